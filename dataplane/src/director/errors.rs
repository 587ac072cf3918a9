//! ICMP errors about connections: translated like the packets that they quote, and passed on.

use std::net::IpAddr;

use control::ForwardMode;

use super::Director;
use super::decide::{Denied, Verdict};
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::packet::{Egress, PacketBuf, PortId};
use crate::related::{self, Related, Tunnelled, related, tunnelled};
use crate::sched::Newcomer;
use crate::time::Instant;
use crate::wire::flow::{Seen, Tuple};
use crate::wire::ip::{Ip, decrement_ttl};

impl<P: PacketBuf> Director<P> {
    /// What a packet of the connection that an ICMP error is about would be, if it went the error's
    /// way.
    pub(super) fn concerned(&self, seen: &Seen, frame: &[u8]) -> Option<Tuple> {
        let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
        if let Some(about) = tunnelled(frame, l3, l4, seen.ip_len) {
            return Some(about.tuple);
        }
        let related = related(frame, l3, l4, seen.ip_len).ok()??;
        Some(related.quoted.reversed())
    }

    /// Takes an ICMP error about a connection; `None` when it is about none.
    pub(super) fn error<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Option<Verdict>, Denied> {
        let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
        if let Some(related) = related(packet.bytes(), l3, l4, seen.ip_len)? {
            let wanted = related.quoted.reversed();
            if let Some(hit) = self
                .live(now, &wanted)
                .or_else(|| self.answer_alone(now, &wanted))
            {
                return self.relay(now, seen, hit, &related, packet).map(Some);
            }
            let mark = self.services.mark(&wanted, from, seen.vlan());
            if self.settings.schedule_icmp
                && let Some(hit) = self.open_for_error(now, &wanted, mark)?
            {
                return self.relay(now, seen, hit, &related, packet).map(Some);
            }
        }
        match tunnelled(packet.bytes(), l3, l4, seen.ip_len) {
            Some(about) => self.tunnel_error(now, &about, packet, out),
            None => Ok(None),
        }
    }

    /// The connection of a tuple, if it has not ended.
    fn live(&mut self, now: Instant, tuple: &Tuple) -> Option<Hit> {
        let hit = self.conns.find(tuple)?;
        let conn = self.conns.get(hit);
        (!conn.expired(now) && !conn.is_doomed()).then_some(hit)
    }

    /// A connection for an error about a packet that had none (`schedule_icmp`).
    fn open_for_error(
        &mut self,
        now: Instant,
        wanted: &Tuple,
        mark: u32,
    ) -> Result<Option<Hit>, Denied> {
        let Some(service) = self.services.matching(wanted, mark) else {
            return Ok(None);
        };
        if !self.is_source(wanted.from.ip()) {
            return Err(Denied(DropReason::BadSource, Some(service)));
        }
        let denied = |reason| Denied(reason, Some(service));
        if self.defence.drops_packet() {
            return Err(denied(DropReason::DropPacket));
        }
        // The packet is quoted as the server sent it: what goes by destinations takes the client for
        // one, as in LVS.
        let newcomer = Newcomer {
            instead: Some(wanted.from.ip()),
            ..Newcomer::new(wanted, &[])
        };
        let choice = match self.choose(now, service, &newcomer) {
            Err(DropReason::NotOurs) => return Ok(None),
            choice => choice.map_err(denied)?,
        };
        let opened = self.open(now, wanted, service, choice, 0);
        opened.map(Some).map_err(denied)
    }

    /// Passes an error on to the other side of its connection.
    fn relay(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        related: &Related,
        packet: &mut P,
    ) -> Result<Verdict, Denied> {
        let (server, service, available) = self.serving(hit);
        let denied = |reason| Denied(reason, service);
        if !available && !hit.outbound() {
            return Err(denied(DropReason::ServerGone));
        }
        // No error answers an error.
        if seen.ttl <= 1 {
            return Err(denied(DropReason::TtlExpired));
        }
        let hop = self.hop(now, hit, server, available).map_err(denied)?;
        let conn = self.conns.get(hit);
        let (mode, id) = (conn.mode(), conn.server());
        let done = match mode {
            ForwardMode::Nat | ForwardMode::FullNat => {
                self.readdress(seen, hit, mode, related, packet)
            }
            ForwardMode::Direct | ForwardMode::Tunnel => {
                if available {
                    self.count(seen, hit);
                }
                if mode == ForwardMode::Tunnel && !hit.outbound() {
                    self.encapsulate(id, seen, packet)
                } else {
                    decrement_ttl(&mut packet.bytes_mut()[usize::from(seen.l3)..]);
                    true
                }
            }
        };
        if !done {
            return Err(denied(DropReason::NoHeadroom));
        }
        // It may have grown; what leaves as IPv4 is cut if need be.
        let leaves = Ip::parse(&packet.bytes()[usize::from(seen.l3)..]).map_err(denied)?;
        if leaves.is_v6() && leaves.total_len > usize::from(self.net.hop(hop).mtu) {
            return Err(denied(DropReason::TooBig));
        }
        Ok(Verdict::Forward(hop))
    }

    /// Gives an error and what it quotes the addresses and ports of its connection's other side.
    fn readdress(
        &mut self,
        seen: &Seen,
        hit: Hit,
        mode: ForwardMode,
        related: &Related,
        packet: &mut P,
    ) -> bool {
        let other = self.conns.tuple(hit.entry(), !hit.outbound());
        let l3 = usize::from(seen.l3);
        // Whoever speaks to the client about its connection speaks for the virtual address; the
        // server sees who spoke, unless that is what FULLNAT hides.
        let keeps_source = mode == ForwardMode::Nat && !hit.outbound();
        let source = if keeps_source {
            related.from
        } else {
            other.to.ip()
        };
        let outer: (IpAddr, IpAddr) = (source, other.from.ip());
        let hides = mode == ForwardMode::FullNat && hit.outbound();
        let seq = hides.then(|| self.conns.extra(hit.entry()).client.quoted_seq());
        let seq = seq.flatten();
        if other.from.is_ipv6() == seen.flow.v6 {
            related::translate(packet.bytes_mut(), l3, related, outer, &other, seq);
            return true;
        }
        let made = related::translate_family(packet.bytes(), l3, related, outer, &other, seq);
        let Some(made) = made else { return false };
        if !packet.resize(l3 + made.len()) {
            return false;
        }
        packet.bytes_mut()[l3..].copy_from_slice(&made);
        true
    }

    /// An error about a packet that was wrapped for a server: its sender is told.
    fn tunnel_error<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        about: &Tunnelled,
        packet: &P,
        out: &mut E,
    ) -> Result<Option<Verdict>, Denied> {
        if !self.net.is_mine(about.to) {
            return Ok(None);
        }
        let sent_alone = |this: &mut Self| this.wrapped_alone(now, &about.tuple, about.server);
        let Some(hit) = self.live(now, &about.tuple).or_else(|| sent_alone(self)) else {
            return Ok(None);
        };
        let conn = self.conns.get(hit);
        let (mode, id) = (conn.mode(), conn.server());
        let server = self.services.server(id);
        let is_to_server = server.is_some_and(|server| {
            server.address.ip() == about.server
                && about.tunnel == server.tunnel.kind
                && about.port.is_none_or(|port| port == server.tunnel.port)
        });
        if mode != ForwardMode::Tunnel || hit.outbound() || !is_to_server {
            return Ok(None);
        }
        let Some(Some(way)) = self.tunnels.get_mut(id.index()) else {
            return Ok(None);
        };
        let mut kind = about.kind;
        if let Some(mtu) = kind.mtu() {
            // No network is narrower than that, whatever a router says.
            let least = if about.server.is_ipv4() { 68 } else { 1280 };
            let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(least);
            way.path_mtu = way.path_mtu.min(mtu);
            way.learned = now;
            kind = kind.with_mtu((way.path_mtu.saturating_sub(way.tunnel.overhead())).into());
        }
        if kind.mtu().is_none() || about.dont_fragment {
            let quoted = &packet.bytes()[about.inner.clone()];
            let answer = related::answer_for_inner(quoted, kind, about.tuple.to.ip());
            self.answer(now, answer, out);
        }
        Ok(Some(Verdict::Consumed))
    }
}

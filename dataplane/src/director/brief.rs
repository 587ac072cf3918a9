//! The short way of the packets that most connections begin with: a client's SYN to a service that asks
//! for nothing but its scheduler, and a server's first answer. It does what [`super::decide`] does,
//! without the questions that such packets do not raise.

use control::ForwardMode;

use super::Director;
use super::decide::{Denied, Verdict, sequence_number};
use super::engine::said;
use super::persist::Choice;
use crate::conn::{First, Hit, NO_HOP};
use crate::counters::DropReason;
use crate::ftp;
use crate::net::HopId;
use crate::packet::{Egress, PacketBuf};
use crate::sched::Newcomer;
use crate::service::Picked;
use crate::time::Instant;
use crate::update::ServiceId;
use crate::wire::flow::{Kind, Seen, TCP, Tuple, UDP, tcp_flags};

/// The next hop toward a server.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    /// What it was found under; 0 is none.
    generation: u16,
    on_link: bool,
    hop: u16,
}

impl<P: PacketBuf> Director<P> {
    /// What becomes of a packet that goes the short way, `known` being its connection; `None` for all
    /// others.
    #[inline]
    pub(super) fn briefly<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        known: Option<Hit>,
        packet: &mut P,
        out: &mut E,
    ) -> Option<Result<Verdict, Denied>> {
        const OPENING: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST;
        if seen.kind != Kind::Transport || seen.ttl <= 1 {
            return None;
        }
        let begins = || match seen.flow.protocol {
            TCP => seen.tcp_flags & OPENING == tcp_flags::SYN,
            protocol => protocol == UDP,
        };
        match known {
            Some(hit) if hit.outbound() || self.conns.get(hit).is_telling() => {
                self.carry_briefly(now, seen, hit, packet, out)
            }
            None if !seen.flow.v6 && begins() => self.begin(now, seen, packet, out),
            _ => None,
        }
    }

    /// A packet that finds no next hop yet, answers a SYN, or tells a server of its client.
    fn carry_briefly<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        out: &mut E,
    ) -> Option<Result<Verdict, Denied>> {
        let generation = self.generation();
        let conn = self.conns.get(hit);
        let is_syn = seen.tcp_flags & tcp_flags::SYN != 0;
        let is_special = conn.hop(hit.outbound()) == NO_HOP || is_syn || conn.is_telling();
        if !is_special
            || seen.begins() && !hit.outbound()
            || conn.generation() != generation
            || conn.is_helped()
            || conn.is_controlled()
            || conn.is_v6(false) != conn.is_v6(true)
        {
            return None;
        }
        let (id, before, tells) = (conn.server(), conn.last_seen(), conn.is_telling());
        if is_syn && self.services.clamps(id) {
            return None;
        }
        let hop = self.hop(now, hit, None, true).ok()?;
        let mtu = self.fitting(seen, hop)?;
        out.note(|| self.note_of(hit));
        self.count(seen, hit);
        self.track(now, seen, hit);
        self.note_syn(now, seen, hit, before);
        if !tells {
            self.translate(seen, hit, packet);
            return Some(Ok(Verdict::Whole(hop)));
        }
        let rewritten = self.rewrite(seen, hit, packet, mtu);
        let service = self.services.server(id).map(|server| server.service);
        Some(match rewritten {
            Ok(before) => {
                self.send_before(now, seen, hop, before, out);
                Ok(Verdict::Whole(hop))
            }
            Err(reason) => Err(Denied(reason, service)),
        })
    }

    /// Notes a SYN, or what answers it.
    pub(super) fn note_syn(&mut self, now: Instant, seen: &Seen, hit: Hit, before: Instant) {
        if seen.tcp_flags & tcp_flags::SYN != 0 {
            // The first one, or one of many: it has its place.
            if before != now {
                self.conns.asked_again(hit.entry());
            }
            self.time_handshake(seen, hit);
        }
    }

    /// The MTU of a hop that a packet may leave to as it is.
    fn fitting(&self, seen: &Seen, hop: HopId) -> Option<u16> {
        let hop = self.net.hop(hop);
        (hop.ready && seen.ip_len <= hop.mtu).then_some(hop.mtu)
    }

    /// A client's SYN that belongs to no connection.
    fn begin<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Option<Result<Verdict, Denied>> {
        let service = self.services.plain(&seen.flow)?;
        let tuple = Tuple::of_v4(&seen.flow);
        if !self.is_source(tuple.from.ip())
            || tuple.from.port() == ftp::DATA
            || self.defence.is_watchful()
        {
            return None;
        }
        let denied = |reason| Some(Err(Denied(reason, Some(service))));
        let said = said(seen, packet.bytes());
        let picked = self
            .services
            .pick(now, service, &Newcomer::new(&tuple, said));
        let Some(picked) = picked else {
            self.turn_away(now, seen, &tuple, service, packet, out);
            return denied(DropReason::NoServer);
        };
        let isn = sequence_number(seen, packet.bytes());
        let Some(hop) = self.way_to(now, seen, &picked) else {
            let id = picked.id;
            let Some(server) = self.services.picked(&picked) else {
                return denied(DropReason::NoServer);
            };
            let choice = Choice {
                id,
                server,
                template: None,
            };
            return match self.open(now, &tuple, service, choice, isn) {
                Ok(hit) => Some(self.connected(now, seen, hit, packet, out)),
                Err(reason) => denied(reason),
            };
        };
        let opened = self.open_for(now, seen, &tuple, service, &picked, hop, isn);
        let hit = match opened {
            Ok(hit) => hit,
            Err(reason) => return denied(reason),
        };
        out.note(|| self.note_of(hit));
        if seen.flow.protocol == TCP && picked.mode != ForwardMode::Direct {
            self.handshakes.asked(hit.entry());
        }
        if !self.conns.get(hit).is_telling() {
            self.translate(seen, hit, packet);
            return Some(Ok(Verdict::Whole(hop)));
        }
        let mtu = self.net.hop(hop).mtu;
        match self.rewrite(seen, hit, packet, mtu) {
            Ok(before) => {
                self.send_before(now, seen, hop, before, out);
                Some(Ok(Verdict::Whole(hop)))
            }
            Err(reason) => denied(reason),
        }
    }

    /// The next hop toward a server over IPv4 that is not behind a tunnel, if the packet fits.
    fn way_to(&mut self, now: Instant, seen: &Seen, server: &Picked) -> Option<HopId> {
        let id = server.id;
        if server.mode == ForwardMode::Tunnel || !server.address.is_ipv4() {
            return None;
        }
        let (generation, on_link) = (self.generation(), server.mode == ForwardMode::Direct);
        if self.ways.len() <= id.index() {
            self.ways.resize_with(id.index() + 1, Way::default);
        }
        let way = self.ways[id.index()];
        let hop = if (way.generation, way.on_link) == (generation, on_link) {
            HopId(way.hop)
        } else {
            let to = server.address.ip();
            let hop = match on_link {
                true => self.net.hop_on_link(now, to),
                false => self.net.hop_to(now, to),
            };
            let HopId(hop) = hop.ok()?;
            self.ways[id.index()] = Way {
                generation,
                on_link,
                hop,
            };
            HopId(hop)
        };
        self.fitting(seen, hop).map(|_| hop)
    }

    /// Opens the connection of a SYN on its way to this hop, and counts both.
    #[expect(clippy::too_many_arguments, reason = "all that is known of it")]
    fn open_for(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        service: ServiceId,
        server: &Picked,
        hop: HopId,
        isn: u32,
    ) -> Result<Hit, DropReason> {
        self.make_room(now)?;
        let (outbound, lease) = match server.mode {
            ForwardMode::Direct => (seen.flow.reversed(), None),
            ForwardMode::Nat => (seen.flow.answered_by(server.address), None),
            _ => {
                let (outbound, lease) = self.way_back(now, tuple, service, server)?;
                let to = seen.flow.answered_by(server.address);
                (to.answered_by(outbound.to).reversed(), lease)
            }
        };
        let first = First {
            now,
            generation: self.generation(),
            hop,
            ip_len: seen.ip_len,
        };
        let opened = self.conns.begin(
            [seen.flow, outbound],
            (server.id, server.mode),
            &first,
            self.transitions,
            &self.timeouts,
        );
        let Some(hit) = opened else {
            if let Some(lease) = lease {
                let port = lease.local.port();
                self.leases.give_back(now, lease.pool, port, None);
            }
            return Err(DropReason::TableFull);
        };
        if let Some(lease) = lease {
            self.hide(hit, service, tuple, lease, isn);
        }
        let id = server.id;
        let counts = &self.page.servers[id.index()];
        counts.conns.add(1);
        match self.conns.get(hit).state().is_active() {
            true => counts.active.up(),
            false => counts.inactive.up(),
        }
        if self.services.is_limited(service) {
            self.services.opened(id);
        }
        self.services.counted(id);
        counts.in_packets.add(1);
        counts.in_bytes.add(u64::from(seen.ip_len));
        self.page.connections.set(self.conns.used());
        self.tell_backups(now, hit);
        Ok(hit)
    }
}

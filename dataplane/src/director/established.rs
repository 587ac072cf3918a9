//! The fast path: packets of known connections in their usual course.

use super::rewrite::{translate, translate6};
use super::{Director, TunnelTo, rewrite};
use crate::conn::{Conn, Event, Hit, State, Wide};
use crate::counters::{DropReason, ServerPage};
use crate::net::HopId;
use crate::packet::{PacketBuf, PortId};
use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::{SCTP, Seen};

/// What the fast path made of a packet.
pub(super) enum Outcome {
    /// It is rewritten and leaves by this port.
    Leaves(PortId),
    Dropped(DropReason),
    /// Of a connection for whose packets there is more to do; it goes to this hop. As it was.
    Involved(HopId),
    /// Not in its usual course, and as it was.
    Unusual,
    /// Not of the connection that it was likely to be of.
    Stranger,
}

impl<P: PacketBuf> Director<P> {
    /// The fast path: a packet of a known connection in its usual course, whose next hop is ready.
    /// Rewrites it, its Ethernet header too.
    #[inline(always)]
    pub(super) fn established(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
    ) -> Outcome {
        let generation = self.generation();
        let (conn, wide) = self.conns.with_addresses(hit);
        let hop_id = conn.hop(hit.outbound());
        if (conn.generation() != generation) | (seen.ttl <= 1) | seen.begins() | conn.expired(now) {
            return Outcome::Unusual;
        }
        let Some(hop) = self.net.hop_if_known(hop_id) else {
            return Outcome::Unusual;
        };
        if !hop.ready | (seen.ip_len > hop.mtu) | (hop.l2_len != seen.l3) {
            return Outcome::Unusual;
        }
        if conn.is_involved() {
            return match conn.is_wrapped(hit.outbound()) {
                true => self.wrap(now, seen, hit, hop_id, packet),
                false => Outcome::Involved(hop_id),
            };
        }
        let frame = packet.bytes_mut();
        let port = hop.depart(frame);
        let server = &self.page.servers[conn.server().index()];
        count(server, hit.outbound(), seen.ip_len);
        translate_over(frame, seen, hit, conn, wide);
        conn.observe(now, hit.outbound(), seen.ip_len);
        let (event, outbound) = (event(seen), hit.outbound());
        if let Some(next) = conn.moved(event, outbound, self.transitions, &self.timeouts) {
            self.change_state(now, hit, next);
        }
        self.tell_backups(now, hit);
        Outcome::Leaves(port)
    }

    /// The fast path of connections whose server is told of a client that it cannot see, or that become
    /// of the other family. What may need another packet before it, and FTP's control connections, of
    /// which there are few, go the cold way.
    #[inline(always)]
    pub(super) fn involved(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        hop: HopId,
        packet: &mut P,
    ) -> Outcome {
        let conn = self.conns.get(hit);
        if conn.is_helped() {
            return Outcome::Unusual;
        }
        let mtu = self.net.hop(hop).mtu;
        let telling = conn.is_telling();
        if telling && self.may_need_another(seen, hit)
            || seen.ip_len > self.room(now, seen, hit, hop).0
        {
            return Outcome::Unusual;
        }
        self.count(seen, hit);
        self.track(now, seen, hit);
        let rewritten = if telling {
            self.rewrite(seen, hit, packet, mtu).map(|before| {
                debug_assert!(before.is_none(), "it may need another");
            })
        } else {
            self.translate_any(seen, hit, packet).map(drop)
        };
        match rewritten {
            Ok(()) => Outcome::Leaves(self.net.hop_mut(hop).depart(packet.bytes_mut())),
            Err(reason) => Outcome::Dropped(reason),
        }
    }

    /// The fast path into tunnels.
    #[inline(always)]
    fn wrap(&mut self, now: Instant, seen: &Seen, hit: Hit, hop: HopId, packet: &mut P) -> Outcome {
        let (conn, hop) = (self.conns.get(hit), self.net.hop_mut(hop));
        let server = conn.server();
        let Some(Some(TunnelTo {
            tunnel, path_mtu, ..
        })) = self.tunnels.get(server.index())
        else {
            return Outcome::Unusual;
        };
        let wrapped_len = u32::from(seen.ip_len) + u32::from(tunnel.overhead());
        if wrapped_len > u32::from(hop.mtu.min(*path_mtu)) {
            return Outcome::Unusual;
        }
        count(&self.page.servers[server.index()], false, seen.ip_len);
        conn.observe(now, false, seen.ip_len);
        let moved = conn.moved(event(seen), false, self.transitions, &self.timeouts);
        rewrite::one_hop_less(packet.bytes_mut(), seen);
        let (id, copy_df) = (next_ip_id(&mut self.ip_id), self.settings.pmtu_disc);
        let l3 = usize::from(seen.l3);
        let (v6, ip_len) = (seen.flow.v6, seen.ip_len);
        let fits = tunnel.encapsulate_as(v6, packet, l3, ip_len, id, copy_df);
        let outcome = match fits {
            true => Outcome::Leaves(hop.depart(packet.bytes_mut())),
            false => Outcome::Dropped(DropReason::NoHeadroom),
        };
        if let Some(next) = moved {
            self.change_state(now, hit, next);
        }
        self.tell_backups(now, hit);
        outcome
    }

    /// Wraps a packet, one hop less to live, for its server; `false` when there is no headroom.
    pub(super) fn encapsulate(&mut self, server: ServerId, seen: &Seen, packet: &mut P) -> bool {
        let id = self.next_ip_id();
        let Some(Some(way)) = self.tunnels.get(server.index()) else {
            return false;
        };
        rewrite::one_hop_less(packet.bytes_mut(), seen);
        let (l3, copy_df) = (usize::from(seen.l3), self.settings.pmtu_disc);
        (way.tunnel).encapsulate_as(seen.flow.v6, packet, l3, seen.ip_len, id, copy_df)
    }

    pub(super) fn next_ip_id(&mut self) -> u16 {
        next_ip_id(&mut self.ip_id)
    }

    /// Counts a packet of a connection for its server.
    #[inline(always)]
    pub(super) fn count(&mut self, seen: &Seen, hit: Hit) {
        let server = self.conns.get(hit).server();
        let server = &self.page.servers[server.index()];
        count(server, hit.outbound(), seen.ip_len);
    }

    /// Gives a packet of a connection the addresses and ports of its other side.
    #[inline(always)]
    pub(super) fn translate(&mut self, seen: &Seen, hit: Hit, packet: &mut P) {
        let (conn, wide) = self.conns.with_addresses(hit);
        translate_over(packet.bytes_mut(), seen, hit, conn, wide);
    }

    /// Notes a packet of a connection, and moves its state.
    #[inline(always)]
    pub(super) fn track(&mut self, now: Instant, seen: &Seen, hit: Hit) {
        let conn = self.conns.get(hit);
        conn.observe(now, hit.outbound(), seen.ip_len);
        let (event, outbound) = (event(seen), hit.outbound());
        if let Some(next) = conn.moved(event, outbound, self.transitions, &self.timeouts) {
            self.change_state(now, hit, next);
        }
        self.tell_backups(now, hit);
    }

    #[inline(never)]
    pub(super) fn change_state(&mut self, now: Instant, hit: Hit, next: State) {
        let conn = self.conns.get(hit);
        let (was, id) = (conn.state(), conn.server());
        if next != was && next.is_established() && conn.is_controlled() {
            self.assure(hit);
        }
        let server = &self.page.servers[id.index()];
        if was.is_active() != next.is_active() {
            let (less, more) = match next.is_active() {
                true => (&server.inactive, &server.active),
                false => (&server.active, &server.inactive),
            };
            less.down();
            more.up();
            self.services.counted(id);
        }
        let timeout_ms = self.timeout_ms(hit, next);
        self.conns.set_state_for(now, hit.entry(), next, timeout_ms);
    }
}

/// An id for an IPv4 packet that may be fragmented; never 0.
#[inline(always)]
pub(super) fn next_ip_id(last: &mut u16) -> u16 {
    *last = last.wrapping_add(1).max(1);
    *last
}

/// Counts a packet of a connection for its server.
#[inline(always)]
pub(super) fn count(server: &ServerPage, outbound: bool, ip_len: u16) {
    let (packets, bytes) = match outbound {
        false => (&server.in_packets, &server.in_bytes),
        true => (&server.out_packets, &server.out_bytes),
    };
    packets.add(1);
    bytes.add(u64::from(ip_len));
}

/// Gives a packet of a connection the addresses and ports of its other side. A mirrored one keeps
/// all it has, a missing UDP checksum too.
#[inline(always)]
fn translate_over(frame: &mut [u8], seen: &Seen, hit: Hit, conn: &Conn, wide: Wide<'_>) {
    let outbound = hit.outbound();
    if conn.is_mirrored() {
        return rewrite::one_hop_less(frame, seen);
    }
    let (to, deltas) = (conn.side(!outbound).reversed(), conn.deltas(outbound));
    if seen.flow.v6 {
        let other = wide.of(Hit::new(hit.entry(), !outbound));
        translate6(frame, seen, other, &to, deltas.1);
    } else {
        translate(frame, seen, &to, deltas);
    }
}

/// What a packet means to its connection's state.
#[inline(always)]
fn event(seen: &Seen) -> Event {
    if !seen.is_plain && seen.flow.protocol == SCTP {
        Event::of_sctp(seen.chunk, seen.next_chunk)
    } else {
        Event::of(seen.tcp_flags)
    }
}

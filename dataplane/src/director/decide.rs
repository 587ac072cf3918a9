//! Everything that is not the fast path: new connections, hops not ready, packets too long, answers.

use std::net::{IpAddr, Ipv4Addr};

use control::{ForwardMode, Refuse};

use super::engine::said;
use super::rewrite::{growth, translate_family};
use super::{Director, TunnelTo};
use crate::conn::{Hit, NO_HOP};
use crate::counters::DropReason;
use crate::ftp;
use crate::fullnat::proxy;
use crate::icmp::{self, Made, Unreachable};
use crate::net::{HopId, flow_number, is_global};
use crate::packet::{Egress, Origin, PacketBuf, PortId};
use crate::sched::Newcomer;
use crate::service::Server;
use crate::time::Instant;
use crate::tunnel::Tunnel;
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::{ETHERNET, ICMP, ICMPV6, Kind, SCTP, Seen, TCP, Tuple, UDP, tcp_flags};
use crate::wire::ip::Ip;
use crate::wire::tcp::clamp_mss;

/// How long the path MTU to a tunnel's server is believed to be what a router said (RFC 1191 §6.3).
const PATH_MTU_MS: u32 = 600_000;

/// What becomes of a packet that left the fast path.
pub(super) enum Verdict {
    /// Rewritten; its next hop is known.
    Forward(HopId),
    /// The same of one that is not too long for it.
    Whole(HopId),
    /// Turned into its own answer.
    Answer(HopId),
    /// To be cut into IP packets of at most so many bytes, which then go the way of this connection.
    Cut(Hit, HopId, u16),
    /// Taken in by the director.
    Consumed,
    /// For the neighbour table.
    Arp,
    Discovery,
}

/// A drop, and the service it is counted for.
pub(super) struct Denied(pub(super) DropReason, pub(super) Option<ServiceId>);

impl From<DropReason> for Denied {
    fn from(reason: DropReason) -> Self {
        Self(reason, None)
    }
}

/// The server of a connection, its service, and whether packets may still go there.
pub(super) type Serving = (Option<Server>, Option<ServiceId>, bool);

/// What a packet may be for its way.
enum Fit {
    Whole,
    /// Cut after it was rewritten; the next hop takes so much.
    CutAfter,
    /// Cut into packets of so much before each is rewritten.
    CutBefore(u16),
}

impl<P: PacketBuf> Director<P> {
    /// Everything that is not the fast path; counts the packet's end. `found` is the connection of a
    /// whole packet's ports, if there is one.
    #[cold]
    #[inline(never)]
    pub(super) fn decide<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        found: Option<Hit>,
        mut packet: P,
        out: &mut E,
    ) {
        if let Some(home) = self.astray(from, seen, packet.bytes()) {
            return out.steer(home, from, None, packet);
        }
        let verdict = match seen.kind {
            Kind::FirstFragment | Kind::Fragment => {
                return self.fragment(now, from, seen, packet, out);
            }
            Kind::Transport => {
                let known = found.and_then(|hit| self.known(now, seen, hit, packet.bytes()));
                match self.briefly(now, seen, known, &mut packet, out) {
                    Some(Ok(Verdict::Whole(hop))) => {
                        let origin = Origin::forwarded(from);
                        return self.leave(now, hop, packet, usize::from(seen.l3), origin, out);
                    }
                    Some(verdict) => verdict,
                    None => self.with_ports(now, from, seen, known, &mut packet, out),
                }
            }
            Kind::Arp => Ok(Verdict::Arp),
            Kind::OtherIp => self.other_ip(now, from, seen, &mut packet, out),
        };
        self.conclude(now, from, seen, packet, verdict, out);
    }

    /// Carries a verdict out; counts the packet's end.
    pub(super) fn conclude<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: P,
        verdict: Result<Verdict, Denied>,
        out: &mut E,
    ) {
        let l3 = usize::from(seen.l3);
        match verdict {
            Ok(Verdict::Forward(hop)) => {
                self.leave_fitting(now, hop, packet, l3, Origin::forwarded(from), out);
            }
            Ok(Verdict::Whole(hop)) => {
                self.leave(now, hop, packet, l3, Origin::forwarded(from), out);
            }
            Ok(Verdict::Answer(hop)) => {
                self.leave(now, hop, packet, l3, Origin::answer(from), out);
            }
            Ok(Verdict::Cut(hit, hop, mtu)) => {
                self.cut(from, packet, l3, mtu, out, |this, mut piece, out| {
                    let Ok(mut seen) = Seen::parse(piece.bytes()) else {
                        return out.watch().discard(from, DropReason::BadHeader, piece);
                    };
                    this.conns.digest(&mut seen, piece.bytes());
                    match this.rewrite(&seen, hit, &mut piece, mtu) {
                        Ok(_) => {
                            let origin = Origin::forwarded(from);
                            this.leave_fitting(now, hop, piece, l3, origin, out);
                        }
                        Err(reason) => out.watch().discard(from, reason, piece),
                    }
                });
            }
            Ok(Verdict::Consumed) => out.watch().consumed(from, &packet),
            Ok(Verdict::Arp) => self.hear_arp(now, from, seen, packet, out),
            Ok(Verdict::Discovery) => self.hear_nd(now, from, seen, packet, out),
            Err(Denied(reason, None)) => self.unwanted(now, from, reason, packet, out),
            Err(Denied(reason, Some(service))) => {
                out.watch().note_service(service);
                out.watch().discard(from, reason, packet);
                self.page.services[service.index()].drops[reason as usize].add(1);
            }
        }
    }

    /// A packet that shows its ports, a first fragment too, and its connection.
    pub(super) fn with_ports<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        known: Option<Hit>,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        match known {
            Some(hit) if self.conns.get(hit).is_doomed() => {
                self.reset_both(now, seen, hit, packet, out)
            }
            Some(hit) => self.connected(now, seen, hit, packet, out),
            None => self.unconnected(now, from, seen, packet, out),
        }
    }

    /// A packet of a connection whose hop is not ready, whose server is gone, or that is special.
    pub(super) fn connected<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let serving = self.serving(hit);
        if !serving.2 && !hit.outbound() {
            return Err(Denied(DropReason::ServerGone, serving.1));
        }
        if hit.outbound() && seen.flow.protocol == UDP && self.conns.get(hit).is_controlled() {
            self.assure(hit);
        }
        self.carry_on(now, seen, hit, serving, packet, out)
    }

    /// Sends a packet to its connection's other side.
    pub(super) fn carry_on<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        (server, service, available): Serving,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let denied = |reason| Denied(reason, service);
        out.note(|| self.note_of(hit));
        let hop = self.hop(now, hit, server, available).map_err(denied)?;
        let fit = self
            .fits(now, seen, hit, hop, packet, out)
            .map_err(denied)?;
        if available {
            self.count(seen, hit);
        }
        let before = self.conns.get(hit).last_seen();
        if seen.kind == Kind::Fragment || self.conns.is_alone(hit) {
            // Its first one moved the connection's state, or there is none to move.
            self.conns
                .get(hit)
                .observe(now, hit.outbound(), seen.ip_len);
        } else {
            self.track(now, seen, hit);
            self.note_syn(now, seen, hit, before);
        }
        if let Fit::CutBefore(mtu) = fit {
            return Ok(Verdict::Cut(hit, hop, mtu));
        }
        self.clamp_mss(seen, service, packet);
        let mut seen = *seen;
        if self.conns.get(hit).is_helped() {
            self.help(now, &mut seen, hit, packet).map_err(denied)?;
        }
        let mtu = self.net.hop(hop).mtu;
        let before = self.rewrite(&seen, hit, packet, mtu).map_err(denied)?;
        self.send_before(now, &seen, hop, before, out);
        Ok(Verdict::Forward(hop))
    }

    /// Sends the frame, if there is one, that is to arrive before a packet.
    pub(super) fn send_before<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hop: HopId,
        before: Option<proxy::Made>,
        out: &mut E,
    ) {
        if let Some(frame) = before {
            let origin = Origin::forwarded(self.net.hop(hop).port);
            self.send_made(now, hop, &frame[usize::from(seen.l3)..], origin, out);
        }
    }

    /// Lowers the segment size that a SYN announces, where its service says so.
    fn clamp_mss(&self, seen: &Seen, service: Option<ServiceId>, packet: &mut P) {
        if seen.tcp_flags & tcp_flags::SYN != 0
            && let Some(max) = service.and_then(|service| self.services.options(service).mss)
        {
            let end = usize::from(seen.l3) + usize::from(seen.ip_len);
            clamp_mss(&mut packet.bytes_mut()[usize::from(seen.l4)..end], max);
        }
    }

    pub(super) fn serving(&mut self, hit: Hit) -> Serving {
        let server = self.services.server(self.conns.get(hit).server()).copied();
        let service = server.map(|server| server.service);
        (
            server,
            service,
            server.is_some_and(|server| server.available),
        )
    }

    /// The next hop of a connection's packets.
    pub(super) fn hop(
        &mut self,
        now: Instant,
        hit: Hit,
        server: Option<Server>,
        available: bool,
    ) -> Result<HopId, DropReason> {
        let (outbound, generation) = (hit.outbound(), self.generation());
        let conn = self.conns.get(hit);
        if conn.generation() != generation {
            // While the server is gone each packet comes this way again.
            conn.renew(if available { generation } else { 0 });
            self.retime(now, hit, server.map(|server| server.service));
        }
        let conn = self.conns.get(hit);
        let (known, mode, id) = (conn.hop(outbound), conn.mode(), conn.server());
        if known != NO_HOP {
            return Ok(known);
        }
        let hop = match (mode, outbound, server) {
            (ForwardMode::Direct, false, Some(server)) => {
                self.net.hop_on_link(now, server.address.ip())
            }
            (ForwardMode::Tunnel, false, Some(server)) => self.dig(now, id, server),
            _ => {
                let tuple = self.conns.tuple(hit.entry(), !outbound);
                let flow = flow_number(tuple.from, tuple.to);
                self.net.hop_for(now, tuple.from.ip(), flow)
            }
        }?;
        self.conns.get(hit).set_hop(outbound, hop);
        Ok(hop)
    }

    /// The next hop toward a tunnel's server; makes what its packets are wrapped in.
    fn dig(&mut self, now: Instant, id: ServerId, server: Server) -> Result<HopId, DropReason> {
        let hop = self.net.hop_to(now, server.address.ip())?;
        let source = self.net.source_for(hop);
        let tunnel = Tunnel::new(server.tunnel, source, server.address.ip());
        let tunnel = tunnel.ok_or(DropReason::NoRoute)?;
        if self.tunnels.len() <= id.index() {
            self.tunnels.resize_with(id.index() + 1, || None);
        }
        let (path_mtu, learned) = match &self.tunnels[id.index()] {
            Some(way) if now.since(way.learned) < PATH_MTU_MS => (way.path_mtu, way.learned),
            _ => (u16::MAX, now),
        };
        self.tunnels[id.index()] = Some(TunnelTo {
            tunnel,
            path_mtu,
            learned,
        });
        Ok(hop)
    }

    /// Whether a server is reached by this tunnel.
    pub(super) fn has_tunnel(&self, id: ServerId, tunnel: &control::Tunnel) -> bool {
        let server = self.services.server(id);
        server.is_some_and(|server| server.tunnel == *tunnel)
    }

    pub(super) fn forget_tunnel(&mut self, id: ServerId) {
        if let Some(tunnel) = self.tunnels.get_mut(id.index()) {
            *tunnel = None;
        }
    }

    /// Rewrites a packet of a connection for its other side, whatever that takes. What is returned
    /// is a frame to be sent before it, to a hop that takes packets of `mtu`.
    pub(super) fn rewrite(
        &mut self,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        mtu: u16,
    ) -> Result<Option<proxy::Made>, DropReason> {
        let outbound = hit.outbound();
        let conn = self.conns.get(hit);
        let (id, mode) = (conn.server(), conn.mode());
        let hides = conn.is_telling();
        if hides && outbound {
            self.unveil(seen, hit, packet);
        }
        if mode == ForwardMode::Tunnel && !outbound {
            let wrapped = self.encapsulate(id, seen, packet);
            return wrapped.then_some(None).ok_or(DropReason::NoHeadroom);
        }
        let l4 = self.translate_any(seen, hit, packet)?;
        if hides && !outbound {
            return self.tell(seen, hit, packet, l4, mtu);
        }
        Ok(None)
    }

    /// Gives a packet the addresses and ports of its connection's other side, of either family;
    /// returns where its transport header then begins.
    #[inline(always)]
    pub(super) fn translate_any(
        &mut self,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
    ) -> Result<usize, DropReason> {
        let outbound = hit.outbound();
        let conn = self.conns.get(hit);
        if seen.kind == Kind::FirstFragment
            && seen.flow.protocol == SCTP
            && conn.side(!outbound).reversed().ports != seen.flow.ports
        {
            // Its checksum is over all of the packet.
            return Err(DropReason::Fragment);
        }
        if conn.is_v6(false) == conn.is_v6(true) {
            self.translate(seen, hit, packet);
            return Ok(usize::from(seen.l4));
        }
        let (to, l4) = (conn.side(!outbound).reversed(), conn.deltas(outbound).1);
        let id = self.next_ip_id();
        let other = self.conns.addresses6(Hit::new(hit.entry(), !outbound));
        translate_family(packet, seen, other, &to, l4, id)
    }

    /// Whether a packet may go on to `hop`; tells its sender if not.
    fn fits<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        hop: HopId,
        packet: &P,
        out: &mut E,
    ) -> Result<Fit, DropReason> {
        const DONT_FRAGMENT: u8 = 0x40;
        let ip = seen.packet(packet.bytes());
        if seen.ttl <= 1 {
            let source = self.speaker(now, seen, packet.bytes());
            self.answer(now, icmp::time_exceeded(ip, source), out);
            return Err(DropReason::TtlExpired);
        }
        let (room, leaves_as_v6) = self.room(now, seen, hit, hop);
        if seen.ip_len <= room {
            return Ok(Fit::Whole);
        }
        let may_be_cut = if seen.flow.v6 {
            // What leaves as IPv4 and is a fragment already may be cut further on the way.
            false
        } else {
            ip[6] & DONT_FRAGMENT == 0 || !self.settings.pmtu_disc && self.is_tunnelled(hit)
        };
        if may_be_cut {
            return Ok(if leaves_as_v6 {
                Fit::CutBefore(room)
            } else {
                Fit::CutAfter
            });
        }
        let source = self.speaker(now, seen, packet.bytes());
        let too_big = icmp::unreachable(ip, Unreachable::TooBig(room), source);
        self.answer(now, too_big, out);
        Err(DropReason::TooBig)
    }

    fn is_tunnelled(&mut self, hit: Hit) -> bool {
        !hit.outbound() && self.conns.get(hit).mode() == ForwardMode::Tunnel
    }

    /// The longest IP packet of a connection that fits its way, and whether it leaves as IPv6.
    #[inline(always)]
    pub(super) fn room(&mut self, now: Instant, seen: &Seen, hit: Hit, hop: HopId) -> (u16, bool) {
        let mtu = self.net.hop(hop).mtu;
        let conn = self.conns.get(hit);
        let (mode, outbound) = (conn.mode(), hit.outbound());
        let (arrives_v6, leaves_v6) = (conn.is_v6(outbound), conn.is_v6(!outbound));
        if mode == ForwardMode::Tunnel && !outbound {
            let Some(Some(way)) = self.tunnels.get_mut(conn.server().index()) else {
                return (mtu, leaves_v6);
            };
            if now.since(way.learned) >= PATH_MTU_MS {
                way.path_mtu = u16::MAX;
            }
            let mtu = mtu.min(way.path_mtu);
            return (
                mtu.saturating_sub(way.tunnel.overhead()),
                way.tunnel.is_v6(),
            );
        }
        if arrives_v6 != leaves_v6 {
            // Cutting makes fragments, which take more room over IPv6.
            let growth = growth(seen).max(if leaves_v6 { 28 } else { i32::MIN });
            let room = i32::from(mtu) - growth;
            return (u16::try_from(room).unwrap_or(0), leaves_v6);
        }
        (mtu, leaves_v6)
    }

    /// The address that an error about a packet comes from: where it was sent to, if that is ours, or
    /// ours on the sender's side. Unspecified where we have none.
    pub(super) fn speaker(&mut self, now: Instant, seen: &Seen, frame: &[u8]) -> IpAddr {
        let tuple = seen.tuple(frame);
        if self.owns(tuple.to.ip()) {
            return tuple.to.ip();
        }
        match self.net.hop_to(now, tuple.from.ip()) {
            Ok(hop) => self.net.source_for(hop),
            Err(_) => Ipv4Addr::UNSPECIFIED.into(),
        }
    }

    /// A packet without a connection: it opens one, or its sender is told why not.
    pub(super) fn unconnected<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let tuple = seen.tuple(packet.bytes());
        let expected = self.expected(now, seen, &tuple, packet.bytes());
        if let Some(opened) =
            expected.or_else(|| self.probed(now, from, seen, &tuple, packet.bytes()))
        {
            return self.connected(now, seen, opened?, packet, out);
        }
        let mark = self.services.mark(&tuple, from, seen.vlan());
        let Some(service) = self.services.matching(&tuple, mark) else {
            let to = tuple.to.ip();
            if self.is_kernels(from, to) {
                return Err(DropReason::NotOurs.into());
            }
            if self.owns(to) {
                self.refuse(now, seen, &tuple, packet, out);
            } else if let Some(hit) = self.unasked(now, seen, &tuple, packet.bytes())? {
                return self.connected(now, seen, hit, packet, out);
            }
            return Err(DropReason::NotOurs.into());
        };
        let denied = |reason| Err(Denied(reason, Some(service)));
        let source = tuple.from.ip();
        if !self.is_source(source) && !self.is_host(from, source) {
            return denied(DropReason::BadSource);
        }
        // LVS never opens a connection for what comes from FTP's data port.
        if !self.may_open(seen) || tuple.from.port() == ftp::DATA {
            self.refuse(now, seen, &tuple, packet, out);
            return denied(DropReason::NoConnection);
        }
        if self.defence.drops_packet() {
            return denied(DropReason::DropPacket);
        }
        let newcomer = Newcomer::new(&tuple, said(seen, packet.bytes()));
        let choice = match self.choose(now, service, &newcomer) {
            Ok(choice) => choice,
            Err(DropReason::NotOurs) => {
                self.refuse(now, seen, &tuple, packet, out);
                return Err(DropReason::NotOurs.into());
            }
            Err(DropReason::NoServer) => {
                self.turn_away(now, seen, &tuple, service, packet, out);
                return denied(DropReason::NoServer);
            }
            Err(reason) => return denied(reason),
        };
        let isn = sequence_number(seen, packet.bytes());
        match self.open(now, &tuple, service, choice, isn) {
            Ok(hit) => {
                self.note_choice(seen, hit, packet.bytes());
                self.connected(now, seen, hit, packet, out)
            }
            Err(reason) => denied(reason),
        }
    }

    /// What is neither TCP, UDP nor SCTP: ICMP about our addresses and connections is.
    fn other_ip<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        const SOLICITATION: u8 = 133;
        const REDIRECT: u8 = 137;
        if !matches!(
            (seen.flow.v6, seen.flow.protocol),
            (false, ICMP) | (true, ICMPV6)
        ) {
            return Err(DropReason::NotOurs.into());
        }
        let kind = packet.bytes().get(usize::from(seen.l4)).copied();
        if seen.flow.v6 && kind.is_some_and(|kind| (SOLICITATION..=REDIRECT).contains(&kind)) {
            return Ok(Verdict::Discovery);
        }
        if let Some(verdict) = self.error(now, from, seen, packet, out)? {
            return Ok(verdict);
        }
        let tuple = seen.tuple(packet.bytes());
        let (l3, len) = (usize::from(seen.l3), usize::from(seen.ip_len));
        let is_ours = self.owns(tuple.to.ip()) && !self.is_kernels(from, tuple.to.ip());
        if is_ours && icmp::echo_reply(&mut packet.bytes_mut()[l3..l3 + len]) {
            let to = tuple.from.ip();
            return Ok(Verdict::Answer(self.net.hop_back(
                now,
                from,
                seen.vlan(),
                to,
            )?));
        }
        Err(DropReason::NotOurs.into())
    }

    pub(super) fn owns(&self, address: IpAddr) -> bool {
        self.services.owns(address) || self.net.is_mine(address)
    }

    /// Whether a client may have this address.
    #[inline]
    pub(super) fn is_source(&self, address: IpAddr) -> bool {
        is_global(address) && !self.net.is_taken(address) && !self.services.owns(address)
    }

    /// What the sender of a packet is told for which its service has no server.
    pub(super) fn turn_away<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        service: ServiceId,
        packet: &P,
        out: &mut E,
    ) {
        let ip = seen.packet(packet.bytes());
        let made = match (self.services.options(service).refuse, tuple.protocol) {
            (Refuse::Drop, _) => return,
            (Refuse::Reset, TCP) => icmp::tcp_reset(ip),
            _ => icmp::unreachable(ip, Unreachable::Port, tuple.to.ip()),
        };
        self.answer(now, made, out);
    }

    /// What a host says to a packet for a port where nobody listens.
    fn refuse<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        packet: &P,
        out: &mut E,
    ) {
        let ip = seen.packet(packet.bytes());
        let made = match tuple.protocol {
            TCP => icmp::tcp_reset(ip),
            _ => icmp::unreachable(ip, Unreachable::Port, tuple.to.ip()),
        };
        self.answer(now, made, out);
    }

    /// Sends an IP packet of our own, if there is one, a buffer for it, and no flood of them.
    pub(super) fn answer<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        made: Option<Made>,
        out: &mut E,
    ) {
        if let Some(made) = made.filter(|_| self.answers.allow(now)) {
            self.send_answer(now, &made, out);
        }
    }

    /// As [`Self::answer`], however many there are.
    pub(super) fn send_answer<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        made: &Made,
        out: &mut E,
    ) {
        let Ok(header) = Ip::parse(made) else {
            return;
        };
        let Ok(hop) = self.net.hop_to(now, header.dst) else {
            return;
        };
        let port = self.net.hop(hop).port;
        self.send_made(now, hop, made, Origin::answer(port), out);
    }

    /// Sends an IP packet of our own, if there is a buffer for it.
    fn send_made<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        hop: HopId,
        made: &[u8],
        origin: Origin,
        out: &mut E,
    ) {
        let Some(mut packet) = out.make(ETHERNET + made.len()) else {
            return;
        };
        packet.bytes_mut()[ETHERNET..].copy_from_slice(made);
        self.page.port(origin.port).made.add(1);
        self.leave(now, hop, packet, ETHERNET, origin, out);
    }
}

/// Of a TCP segment; 0 for all else.
pub(super) fn sequence_number(seen: &Seen, frame: &[u8]) -> u32 {
    let segment = &frame[usize::from(seen.l4)..];
    match segment.get(4..8).and_then(|bytes| bytes.first_chunk()) {
        Some(seq) if seen.flow.protocol == TCP => u32::from_be_bytes(*seq),
        _ => 0,
    }
}

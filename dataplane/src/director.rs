//! The packet walk: a burst goes through parse, look up, decide, rewrite, hop.
//!
//! A director owns no NIC, no clock and no lock. All it ever does follows from [`Director::apply`],
//! [`Director::process`] and [`Director::tick`], each with the time.

#[cfg(test)]
#[expect(
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "the system tests include it as a module of their own"
)]
mod frames; // packets for tests, built by code of their own
#[cfg(test)]
mod simulation; // random packets, changes and pauses
#[cfg(test)]
mod testbed; // a director with its networks and services, checked step by step
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use arrayvec::ArrayVec;
use control::ForwardMode;

use crate::conn::{Conn, Conns, Event, Hash, Hit, NO_HOP, State, Timeouts};
use crate::counters::{DropReason, Page};
use crate::icmp::{self, Made, RateLimit, Unreachable};
use crate::net::{HopId, Net, Setup, is_station};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PORTS_MAX, PacketBuf, PortId};
use crate::service::{Server, Services};
use crate::steer::Steer;
use crate::time::Instant;
use crate::update::{ServerId, ServiceId, Update};
use crate::wire::delta::{Delta, TTL};
use crate::wire::flow::{ETHERNET, Flow, ICMP, Kind, Seen, TCP, tcp_flags};

/// Connections looked at for expiry per call of [`Director::tick`].
const EXPIRE_MAX: u32 = 64;
/// Table entries looked at for one slice of a connection listing.
const LIST_SCAN: u32 = 16_384;
/// Active FTP's data port: LVS never opens a connection for what comes from it.
const FTP_DATA: u16 = 20;

/// One worker's load balancer.
#[derive(Debug)]
pub struct Director<P> {
    conns: Conns,
    services: Services,
    net: Net<P>,
    timeouts: Timeouts,
    answers: RateLimit,
    steer: Steer,
    macs: [[u8; 6]; PORTS_MAX],
    page: Arc<Page>,
    ticked: Option<Instant>,
}

/// What the first two stages learned of a packet.
type Staged = Result<(Seen, Hash, Option<Hit>), DropReason>;

/// What becomes of a packet that left the fast path.
enum Verdict {
    /// Rewritten; its next hop is known.
    Forward(HopId),
    /// Turned into its own answer.
    Answer(HopId),
    /// For the neighbour table.
    Arp,
}

/// A drop, and the service it is counted for.
struct Denied(DropReason, Option<ServiceId>);

impl From<DropReason> for Denied {
    fn from(reason: DropReason) -> Self {
        Self(reason, None)
    }
}

impl<P: PacketBuf> Director<P> {
    /// For `connections_max` connections (its only big allocation), on the interfaces, routes and
    /// static neighbours of `setup`. `secret` keys the connection table's hash.
    pub fn new(
        connections_max: u32,
        secret: [u64; 2],
        setup: Setup,
        steer: Steer,
        page: Arc<Page>,
    ) -> io::Result<Self> {
        let mut macs = [[0; 6]; PORTS_MAX];
        for interface in &setup.interfaces {
            macs[interface.port.index()] = interface.mac;
        }
        Ok(Self {
            conns: Conns::new(connections_max, secret)?,
            services: Services::staggered(steer.me()),
            net: Net::new(setup),
            timeouts: Timeouts::default(),
            answers: RateLimit::default(),
            steer,
            macs,
            page,
            ticked: None,
        })
    }

    /// Takes in one validated change of configuration.
    pub fn apply<E: Egress<Buf = P>>(&mut self, update: &Update, out: &mut E) {
        if let Update::SetTimeouts(timeouts) = update {
            self.timeouts = *timeouts;
        }
        if let Some(vip) = self.services.apply(update)
            && self.steer.me() == 0
        {
            self.net.announce(vip, out, &self.page);
        }
    }

    /// Decides what becomes of each packet of `burst`, all received on `from`, and empties it.
    pub fn process<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        let port = self.page.port(from);
        port.rx.add(burst.len() as u64);
        port.rx_bytes
            .add(burst.iter().map(|packet| packet.bytes().len() as u64).sum());
        if self.steer.is_alone() {
            self.process_home(now, from, burst, out);
        } else {
            self.steer_burst(now, from, burst, out);
        }
    }

    /// As [`Self::process`] for packets that another worker received (and counted) for this one.
    pub fn process_home<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        for packet in burst.iter() {
            packet.prefetch();
        }
        let mut staged: ArrayVec<Staged, BURST> = burst
            .iter()
            .map(|packet| self.parse(from, packet))
            .collect();
        for (seen, hash, hit) in staged.iter_mut().flatten() {
            if seen.kind == Kind::Transport {
                *hit = self.conns.likely(*hash);
            }
        }
        for (staged, packet) in staged.iter().zip(burst.drain(..)) {
            match staged {
                Ok((seen, _, hit)) => self.walk(now, from, seen, *hit, packet, out),
                Err(reason) => self.page.count_drop(from, *reason),
            }
        }
    }

    /// Sends what other workers own to them; the rest goes its way here.
    fn steer_burst<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        let mut mine = Burst::new();
        for packet in burst.drain(..) {
            let home = match Seen::parse(packet.bytes()) {
                Ok(seen) if seen.kind == Kind::Transport => self.home(&seen.flow),
                _ => self.steer.me(),
            };
            if home == self.steer.me() {
                mine.push(packet);
            } else {
                out.steer(home, from, packet);
            }
        }
        self.process_home(now, from, &mut mine, out);
    }

    fn home(&self, flow: &Flow) -> usize {
        let to_client = !self.services.is_vip(*flow.to().ip());
        self.steer
            .home(&if to_client { flow.reversed() } else { *flow })
    }

    /// First stage: what is it, and is it addressed to us? Starts loading its bucket.
    #[inline(always)]
    fn parse(&self, from: PortId, packet: &P) -> Staged {
        let frame = packet.bytes();
        let seen = Seen::parse(frame)?;
        if seen.vlan.is_some() && self.net.interface(from, seen.vlan).is_none() {
            return Err(DropReason::UnknownVlan);
        }
        if frame.first_chunk() != Some(&self.macs[from.index()])
            && !(seen.kind == Kind::Arp && frame.first_chunk() == Some(&[0xff; 6]))
        {
            return Err(DropReason::NotForUs);
        }
        let hash = self.conns.hash(&seen.flow);
        if seen.kind == Kind::Transport {
            self.conns.prefetch(hash);
        }
        Ok((seen, hash, None))
    }

    #[inline(always)]
    fn walk<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        hit: Option<Hit>,
        mut packet: P,
        out: &mut E,
    ) {
        if let Some(hit) = self.sure(seen, hit)
            && let Some(hop) = self.established(now, seen, hit, &mut packet)
        {
            let origin = Origin::forwarded(from);
            return self.leave(now, hop, packet, usize::from(seen.l3), origin, out);
        }
        self.decide(now, from, seen, packet, out);
    }

    /// The packet's connection. In a full table one key in twenty is not where it is likely to be,
    /// and its packets are as hot as any: only those that open connections go the cold way at once.
    #[inline(always)]
    fn sure(&mut self, seen: &Seen, likely: Option<Hit>) -> Option<Hit> {
        match likely.filter(|hit| self.conns.verify(*hit, &seen.flow).is_some()) {
            None if seen.kind == Kind::Transport && seen.tcp_flags & tcp_flags::SYN == 0 => {
                self.conns.lookup(&seen.flow)
            }
            hit => hit,
        }
    }

    /// The fast path: a packet of a known connection in its usual course, whose next hop is ready.
    /// Rewrites it up to its Ethernet header. `None`, with the packet untouched, for all else.
    #[inline(always)]
    fn established(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
    ) -> Option<HopId> {
        let generation = self.generation();
        let conn = self.conns.get(hit);
        let hop_id = conn.hop(hit.outbound());
        if (conn.generation() != generation)
            | (hop_id == NO_HOP)
            | (seen.ttl <= 1)
            | (seen.tcp_flags & tcp_flags::SYN != 0)
            | conn.expired(now)
        {
            return None;
        }
        let hop = self.net.hop(hop_id);
        if !hop.ready | (seen.ip_len > hop.mtu) | (hop.l2_len != seen.l3) {
            return None;
        }
        self.count(seen, hit);
        self.deliver(now, seen, hit, packet);
        Some(hop_id)
    }

    /// Counts a packet of a connection for its server.
    #[inline(always)]
    fn count(&mut self, seen: &Seen, hit: Hit) {
        let server = &self.page.servers[self.conns.get(hit).server().index()];
        let (packets, bytes) = match hit.outbound() {
            false => (&server.in_packets, &server.in_bytes),
            true => (&server.out_packets, &server.out_bytes),
        };
        packets.add(1);
        bytes.add(u64::from(seen.ip_len));
    }

    /// Tracks a packet of a connection and rewrites it, all but its Ethernet header.
    #[inline(always)]
    fn deliver(&mut self, now: Instant, seen: &Seen, hit: Hit, packet: &mut P) {
        let outbound = hit.outbound();
        let conn = self.conns.get(hit);
        let direction = conn.observe(now, outbound, seen.ip_len);
        let (to, deltas) = (conn.side(!outbound).reversed(), conn.deltas(outbound));
        let state = conn.state();
        let next = state.after(Event::of(seen.tcp_flags), direction);
        if (next != state) | (conn.timeout_ms() != self.timeouts.ms(next)) {
            self.change_state(now, hit, next);
        }
        translate(packet.bytes_mut(), seen, &to, deltas);
    }

    #[inline(never)]
    fn change_state(&mut self, now: Instant, hit: Hit, next: State) {
        let conn = self.conns.get(hit);
        let (was, server) = (conn.state(), conn.server());
        let server = &self.page.servers[server.index()];
        match (was.is_active(), next.is_active()) {
            (false, true) => {
                server.inactive.down();
                server.active.up();
            }
            (true, false) => {
                server.active.down();
                server.inactive.up();
            }
            _ => {}
        }
        self.conns.set_state(now, hit.entry(), next, &self.timeouts);
    }

    /// What the connections' cached hops and servers depend on.
    #[inline(always)]
    fn generation(&self) -> u16 {
        // 0 is what a new connection has.
        self.net
            .generation()
            .wrapping_add(self.services.generation())
            | 1 << 15
    }

    /// Everything that is not the fast path; counts the packet's end.
    #[cold]
    #[inline(never)]
    fn decide<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        mut packet: P,
        out: &mut E,
    ) {
        let l3 = usize::from(seen.l3);
        match self.verdict(now, seen, &mut packet, out) {
            Ok(Verdict::Forward(hop)) => {
                self.leave(now, hop, packet, l3, Origin::forwarded(from), out);
            }
            Ok(Verdict::Answer(hop)) => {
                self.leave(now, hop, packet, l3, Origin::answer(from), out);
            }
            Ok(Verdict::Arp) => {
                let services = &self.services;
                let is_vip = |address| services.owns(address);
                self.net
                    .receive_arp(now, from, seen.vlan, packet, l3, is_vip, out, &self.page);
            }
            Err(Denied(reason, service)) => {
                self.page.count_drop(from, reason);
                if let Some(service) = service {
                    self.page.services[service.index()].drops[reason as usize].add(1);
                }
            }
        }
    }

    fn verdict<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        match seen.kind {
            Kind::Arp => Ok(Verdict::Arp),
            Kind::Fragment => Err(DropReason::Fragment.into()),
            Kind::OtherIp => self.other_ip(now, seen, packet),
            Kind::Transport => match self.known(now, seen) {
                Some(hit) => self.connected(now, seen, hit, packet, out),
                None => self.unconnected(now, seen, packet, out),
            },
        }
    }

    /// The connection a packet belongs to, unless it ended or the packet begins another
    /// (`conn_reuse_mode` 1, `spec/connections.md` §2.5).
    fn known(&mut self, now: Instant, seen: &Seen) -> Option<Hit> {
        let hit = self.conns.lookup(&seen.flow)?;
        let conn = self.conns.get(hit);
        let reused = !hit.outbound()
            && seen.flow.protocol == TCP
            && seen.tcp_flags & (tcp_flags::SYN | tcp_flags::RST) == tcp_flags::SYN
            && matches!(conn.state(), State::TimeWait | State::Close);
        if reused || conn.expired(now) {
            self.close(hit.entry());
            return None;
        }
        Some(hit)
    }

    /// A packet of a connection whose hop is not ready, whose server is gone, or that is special.
    fn connected<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let (outbound, generation) = (hit.outbound(), self.generation());
        let conn = self.conns.get(hit);
        let server = self.services.server(conn.server());
        let service = server.map(|server| server.service);
        let available = server.is_some_and(|server| server.available);
        if !available && !outbound {
            return Err(Denied(DropReason::ServerGone, service));
        }
        if conn.generation() != generation {
            // While the server is gone each packet comes this way again.
            conn.renew(if available { generation } else { 0 });
        }
        let hop = match conn.hop(outbound) {
            NO_HOP => {
                let hop = match (conn.mode(), outbound, server) {
                    (ForwardMode::Direct, false, Some(server)) => {
                        self.net.hop_on_link(now, *server.address.ip())
                    }
                    _ => {
                        let to = *conn.side(!outbound).from().ip();
                        self.net.hop_to(now, to)
                    }
                };
                let hop = hop.map_err(|reason| Denied(reason, service))?;
                self.conns.get(hit).set_hop(outbound, hop);
                hop
            }
            hop => hop,
        };
        self.fits(now, seen, hop, packet, out)
            .map_err(|reason| Denied(reason, service))?;
        if available {
            self.count(seen, hit);
        }
        self.deliver(now, seen, hit, packet);
        Ok(Verdict::Forward(hop))
    }

    /// Whether a packet may go on to `hop`; tells its sender if not.
    fn fits<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hop: HopId,
        packet: &P,
        out: &mut E,
    ) -> Result<(), DropReason> {
        let mtu = self.net.hop(hop).mtu;
        let ip = ip_packet(packet, seen);
        if seen.ttl <= 1 {
            let source = self.speaker(now, seen);
            self.answer(now, icmp::time_exceeded(ip, source.into()), out);
            return Err(DropReason::TtlExpired);
        }
        if seen.ip_len > mtu {
            const DONT_FRAGMENT: u8 = 0x40;
            if ip[6] & DONT_FRAGMENT != 0 {
                let source = self.speaker(now, seen);
                self.answer(
                    now,
                    icmp::unreachable(ip, Unreachable::TooBig(mtu), source.into()),
                    out,
                );
            }
            return Err(DropReason::TooBig);
        }
        Ok(())
    }

    /// The address that an error about a packet comes from: where it was sent to, if that is ours, or
    /// ours on the sender's side. Unspecified where we have none.
    fn speaker(&mut self, now: Instant, seen: &Seen) -> Ipv4Addr {
        let to = *seen.flow.to().ip();
        if self.owns(to) {
            return to;
        }
        let hop = self.net.hop_to(now, *seen.flow.from().ip());
        hop.map_or(Ipv4Addr::UNSPECIFIED, |hop| self.net.source_for(hop))
    }

    /// A packet without a connection: it opens one, or its sender is told why not.
    fn unconnected<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let flow = &seen.flow;
        let to = *flow.to().ip();
        let Some(service) = self.services.matching(flow) else {
            if self.owns(to) {
                self.refuse(now, seen, packet, out);
            }
            return Err(DropReason::NotOurs.into());
        };
        let denied = |reason| Err(Denied(reason, Some(service)));
        if !self.is_source(*flow.from().ip()) {
            return denied(DropReason::BadSource);
        }
        if !opens(seen) {
            self.refuse(now, seen, packet, out);
            return denied(DropReason::NoConnection);
        }
        let Some((id, server)) = self.services.pick(service, flow) else {
            self.answer(
                now,
                icmp::unreachable(ip_packet(packet, seen), Unreachable::Port, to.into()),
                out,
            );
            return denied(DropReason::NoServer);
        };
        let Some(hit) = self.open(now, flow, id, server) else {
            return denied(DropReason::TableFull);
        };
        self.connected(now, seen, hit, packet, out)
    }

    /// Opens a connection, at the cost of the oldest half-open one when the table is full.
    fn open(&mut self, now: Instant, flow: &Flow, id: ServerId, server: Server) -> Option<Hit> {
        if self.conns.used() == self.conns.capacity() {
            let oldest = self.conns.oldest_half_open()?;
            self.close(oldest);
        }
        let hit = {
            let (address, mode) = (server.address, server.mode);
            self.conns
                .open(now, flow, address, id, mode, &self.timeouts)?
        };
        let page = &self.page.servers[id.index()];
        page.conns.add(1);
        page.inactive.up();
        self.page.connections.set(self.conns.used());
        Some(hit)
    }

    fn close(&mut self, entry: u32) {
        let Some(conn) = self.conns.at(entry) else {
            return;
        };
        let page = &self.page.servers[conn.server().index()];
        if conn.state().is_active() {
            page.active.down()
        } else {
            page.inactive.down()
        }
        self.conns.close(entry);
        self.page.connections.set(self.conns.used());
    }

    /// ICMP: echo to our addresses is answered.
    fn other_ip(&mut self, now: Instant, seen: &Seen, packet: &mut P) -> Result<Verdict, Denied> {
        let (l3, end) = (
            usize::from(seen.l3),
            usize::from(seen.l3) + usize::from(seen.ip_len),
        );
        if seen.flow.protocol == ICMP
            && self.owns(*seen.flow.to().ip())
            && icmp::echo_reply(&mut packet.bytes_mut()[l3..end])
        {
            return Ok(Verdict::Answer(
                self.net.hop_to(now, *seen.flow.from().ip())?,
            ));
        }
        Err(DropReason::NotOurs.into())
    }

    fn owns(&self, address: Ipv4Addr) -> bool {
        self.services.owns(address) || self.net.is_mine(address)
    }

    /// Whether a client may have this address.
    fn is_source(&self, address: Ipv4Addr) -> bool {
        is_station(address) && !self.net.is_broadcast(address) && !self.owns(address)
    }

    /// What a host says to a packet for a port where nobody listens.
    fn refuse<E: Egress<Buf = P>>(&mut self, now: Instant, seen: &Seen, packet: &P, out: &mut E) {
        let ip = ip_packet(packet, seen);
        let made = match seen.flow.protocol {
            TCP => icmp::tcp_reset(ip),
            _ => icmp::unreachable(ip, Unreachable::Port, (*seen.flow.to().ip()).into()),
        };
        self.answer(now, made, out);
    }

    /// Sends an IP packet of our own, if there is one, a buffer for it, and no flood of them.
    fn answer<E: Egress<Buf = P>>(&mut self, now: Instant, made: Option<Made>, out: &mut E) {
        let Some(made) = made.filter(|_| self.answers.allow(now)) else {
            return;
        };
        let [a, b, c, d] = [made[16], made[17], made[18], made[19]];
        let Ok(hop) = self.net.hop_to(now, Ipv4Addr::new(a, b, c, d)) else {
            return;
        };
        let Some(mut packet) = out.make(ETHERNET + made.len()) else {
            return;
        };
        packet.bytes_mut()[ETHERNET..].copy_from_slice(&made);
        let port = self.net.hop(hop).port;
        self.page.port(port).made.add(1);
        self.leave(now, hop, packet, ETHERNET, Origin::answer(port), out);
    }

    /// Sends a packet whose IPv4 header is at `l3` to its next hop, or holds it until that is known.
    #[inline(always)]
    fn leave<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        id: HopId,
        mut packet: P,
        l3: usize,
        origin: Origin,
        out: &mut E,
    ) {
        let hop = self.net.hop_mut(id);
        hop.used = true;
        if !hop.ready {
            return self.net.hold(now, id, packet, l3, origin, out, &self.page);
        }
        let port = hop.port;
        if hop.address(&mut packet, l3) {
            out.send(port, packet, origin);
        } else {
            self.page.count_drop(origin.port, DropReason::NoHeadroom);
        }
    }

    /// What another worker learned of a neighbour.
    pub fn learned<E: Egress<Buf = P>>(&mut self, now: Instant, learned: &Learned, out: &mut E) {
        self.net.learned(now, learned, out, &self.page);
    }

    /// Ends connections whose time ran out and keeps neighbours fresh: a bounded amount per call.
    pub fn tick<E: Egress<Buf = P>>(&mut self, now: Instant, out: &mut E) {
        if self.ticked == Some(now) {
            return;
        }
        let mut budget = EXPIRE_MAX;
        while let Some(entry) = self.conns.due(now, &self.timeouts, &mut budget) {
            self.close(entry);
        }
        if budget > 0 {
            self.ticked = Some(now);
        }
        self.net.tick(now, out, &self.page);
    }

    /// Gives back every packet that is held.
    pub fn stop(&mut self) {
        self.net.stop(&self.page);
    }

    /// A slice of the connections: up to `limit` from table entry `from` on, and where to go on.
    pub fn connections(
        &self,
        now: Instant,
        from: u32,
        limit: usize,
    ) -> (Vec<control::Connection>, Option<u32>) {
        let mut list = Vec::new();
        let end = self.conns.capacity().min(from.saturating_add(LIST_SCAN));
        for entry in from..end {
            if list.len() == limit {
                return (list, Some(entry));
            }
            let conn = self.conns.at(entry).filter(|conn| !conn.expired(now));
            list.extend(conn.map(|conn| self.shown(now, conn)));
        }
        (list, Some(end).filter(|end| *end < self.conns.capacity()))
    }

    fn shown(&self, now: Instant, conn: &Conn) -> control::Connection {
        let [in_packets, out_packets] = conn.packets();
        let life = conn.timeout_ms();
        control::Connection {
            protocol: Conns::protocol(conn),
            client: conn.side(false).from().into(),
            virtual_address: conn.side(false).to().into(),
            server: self.server_of(conn).into(),
            local: None,
            state: conn.state().name().to_owned(),
            expires_ms: u64::from(life - now.since(conn.last_seen()).min(life)),
            in_packets,
            out_packets,
            bytes: conn.bytes(),
            worker: u16::try_from(self.steer.me()).unwrap_or(u16::MAX),
        }
    }

    /// Where a connection's packets go, as its listing shows it.
    fn server_of(&self, conn: &Conn) -> SocketAddrV4 {
        match (conn.mode(), self.services.server(conn.server())) {
            (ForwardMode::Direct, Some(server)) => {
                SocketAddrV4::new(*server.address.ip(), conn.side(false).to().port())
            }
            _ => conn.side(true).from(),
        }
    }

    pub fn net(&self) -> &Net<P> {
        &self.net
    }

    pub fn page(&self) -> &Arc<Page> {
        &self.page
    }

    /// Memory of the connection table, all included.
    pub fn table_bytes(&self) -> usize {
        self.conns.bytes()
    }
}

/// Whether a packet may open a connection (`spec/connections.md` §3).
fn opens(seen: &Seen) -> bool {
    let syn = seen.tcp_flags & (tcp_flags::SYN | tcp_flags::RST) == tcp_flags::SYN;
    (seen.flow.protocol != TCP || syn) && seen.flow.from().port() != FTP_DATA
}

/// The IPv4 packet within a frame, without padding.
fn ip_packet<'p, P: PacketBuf>(packet: &'p P, seen: &Seen) -> &'p [u8] {
    let l3 = usize::from(seen.l3);
    &packet.bytes()[l3..l3 + usize::from(seen.ip_len)]
}

/// Gives a packet the addresses and ports of `to`, one hop less to live, and checksums to match.
#[inline(always)]
pub fn translate(frame: &mut [u8], seen: &Seen, to: &Flow, (ip, l4): (Delta, Delta)) {
    let (header, segment) =
        frame[usize::from(seen.l3)..].split_at_mut(usize::from(seen.l4 - seen.l3));
    let header: &mut [u8; 20] = header
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("parsed"));
    header[8] -= 1;
    let checksum = ip.and(TTL).apply([header[10], header[11]]);
    header[10..12].copy_from_slice(&checksum);
    header[12..20].copy_from_slice(&to.addresses.to_ne_bytes());
    segment[..4].copy_from_slice(&to.ports.to_ne_bytes());
    if seen.flow.protocol == TCP {
        let field = &mut segment[16..18];
        field.copy_from_slice(&l4.apply([field[0], field[1]]));
    } else {
        let field = &mut segment[6..8];
        field.copy_from_slice(&l4.apply_udp([field[0], field[1]]));
    }
}

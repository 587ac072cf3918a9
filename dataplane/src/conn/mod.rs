//! Connections of one worker: a fixed table, found by either side's flow in two cache lines.

mod excerpt; // a few connections, copied
mod index; // from a flow to its connection
mod left; // those of a director before this one
mod posted; // keys on their way into the index and out of it, and those that came lately
pub mod state; // TCP and UDP states, transitions, timeouts
#[cfg(test)]
mod tests; // the table, its index and its timers against naive models
mod timer; // when connections end

use std::io;

use control::ForwardMode;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use excerpt::{Excerpt, Line};
pub use index::{Hash, Hit};
pub use left::{Former, LAYOUT, Left};
pub use state::{Direction, Event, State, Timeouts, Transitions};

use crate::cpu;
use crate::ftp::Talk;
use crate::fullnat::client::ClientSide;
use crate::mem::{Array, Place};
use crate::net::HopId;
use crate::templates::Hold;
use crate::time::Instant;
use crate::update::{SERVERS_MAX, ServerId};
use crate::wire::delta::Delta;
use crate::wire::flow::{Addresses6, Digest, Flow, SCTP, Seen, TCP, Tuple};
use index::Index;
use posted::{Posted, Recent, Write};
use timer::Timers;

/// `Conn::server` below its top byte, which holds what LVS has in the low byte of a connection's
/// flags, the forwarding method and [`NO_OUTPUT`], and what is ours between them.
const SERVER_ID: u32 = (1 << 24) - 1;
const METHOD: u32 = 7 << 24;
const NAT: u32 = 0;
const TUNNEL: u32 = 2 << 24;
const DIRECT: u32 = 3 << 24;
const FULLNAT: u32 = 5 << 24;
/// Of [`METHOD`], what only the methods have in common that leave addresses and ports as they are.
const MIRRORED: u32 = 2 << 24;
const _: () = assert!(TUNNEL & DIRECT & MIRRORED != 0 && (NAT | FULLNAT) & MIRRORED == 0);
/// The bit of side 0 is IPv6; side 1's is the next one.
const V6: u32 = 0x08 << 24;
/// There is more to do than [`crate::director::translate`] does.
const INVOLVED: u32 = 0x20 << 24;
/// FULLNAT: the server is still told of its client, or each segment's numbers change.
const TELLING: u32 = 0x40 << 24;
/// No packet came from the server: it answers the client without us.
const NO_OUTPUT: u32 = 0x80 << 24;

const _: () = assert!(SERVERS_MAX - 1 <= SERVER_ID);

/// `Conn::state` below what is ours.
const STATE: u8 = 31;
/// A control connection of FTP: what it says is listened to, and changed.
const HELPED: u8 = 0x80;
const _: () = assert!(State::ALL.len() <= STATE as usize + 1);
/// In `Conn::state`: something controls the connection, see [`Conns::control`].
const CONTROLLED: u8 = 0x20;
/// In `Conn::state`: its service has timeouts of its own.
const OWN_TIMEOUTS: u8 = 0x40;

/// How many free entries before its turn one's line begins to be loaded.
const FREE_AHEAD: u32 = 4;

/// No next hop known.
pub const NO_HOP: HopId = HopId(u16::MAX);
/// In the place of hops: no packet goes on as it is, see [`Conn::doom`].
const DOOMED: HopId = HopId(u16::MAX - 1);

/// One connection: all that a packet of it needs, in one cache line.
///
/// Side 0 is the flow as the client sends it (client → virtual), side 1 as the server does (server →
/// client, in FULLNAT → local address). What leaves is always the other side's flow, reversed: in
/// direct routing and tunnels both sides name the virtual address, so that nothing changes on the
/// way. IPv6 addresses are here by digest and in full in a second line, see [`Conns::addresses6`],
/// which packets of direct routing and tunnels do not need, see [`Conns::verify`].
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Conn {
    addresses: [u64; 2],
    ports: [u32; 2],
    /// 0: the entry is free.
    protocol: u8,
    state: u8,
    /// What the hops and the server's availability were taken under; any other is a cold packet.
    generation: u16,
    last_seen: u32,
    /// Method and id, see [`SERVER_ID`].
    server: u32,
    /// Change of the IP and of the TCP or UDP checksum from client to server; of a mirrored
    /// connection, which changes neither, [`Digest::both`].
    deltas: [u16; 2],
    hops: [u16; 2],
    /// Life without a packet, as the state's timeout was at the last one.
    timeout_ms: u32,
    packets: [u32; 2],
    /// IP bytes in both directions.
    bytes: u64,
}

const _: () = assert!(size_of::<Conn>() == 64);

impl Conn {
    fn new(now: Instant, inbound: Flow, outbound: Flow, id: ServerId, mode: ForwardMode) -> Self {
        let method = match mode {
            ForwardMode::Nat => NAT,
            ForwardMode::FullNat => FULLNAT,
            ForwardMode::Direct => DIRECT | NO_OUTPUT,
            ForwardMode::Tunnel => TUNNEL | NO_OUTPUT | INVOLVED,
        };
        let mut families = 0;
        for (side, flow) in [inbound, outbound].iter().enumerate() {
            families |= if flow.v6 { V6 << side } else { 0 };
        }
        if inbound.v6 != outbound.v6 {
            families |= INVOLVED;
        }
        Self {
            addresses: [inbound.addresses, outbound.addresses],
            ports: [inbound.ports, outbound.ports],
            protocol: inbound.protocol,
            state: State::before_all(inbound.protocol) as u8,
            generation: 0,
            last_seen: now.0,
            server: id.0 | method | families,
            deltas: [0; 2],
            hops: [NO_HOP.0; 2],
            timeout_ms: 0,
            packets: [0; 2],
            bytes: 0,
        }
    }

    #[inline(always)]
    fn is(&self, flow: &Flow, outbound: bool) -> bool {
        let side = usize::from(outbound);
        // One branch: the compiler makes four of as many comparisons.
        let differs = (self.addresses[side] ^ flow.addresses)
            | u64::from(self.ports[side] ^ flow.ports)
            | u64::from(self.protocol ^ flow.protocol)
            | u64::from(self.is_v6(outbound) ^ flow.v6);
        differs == 0
    }

    /// Whether packets of that side are IPv6.
    #[inline(always)]
    pub fn is_v6(&self, outbound: bool) -> bool {
        self.server & (V6 << u32::from(outbound)) != 0
    }

    /// Whether both sides have the same addresses and ports: direct routing and tunnels.
    #[inline(always)]
    pub fn is_mirrored(&self) -> bool {
        self.server & MIRRORED != 0
    }

    /// Whether its packets need the second line.
    fn is_wide(&self) -> bool {
        self.server & (V6 | V6 << 1) != 0 && !self.is_mirrored()
    }

    #[inline(always)]
    fn digest(&self) -> u32 {
        let [low, high] = self.deltas;
        u32::from(high) << 16 | u32::from(low)
    }

    /// Whether there is more to do for its packets than to change addresses, ports and checksums.
    #[inline(always)]
    pub fn is_involved(&self) -> bool {
        self.server & (INVOLVED | TELLING) != 0
    }

    /// Whether packets of this side are wrapped for their server, and that is all.
    #[inline(always)]
    pub fn is_wrapped(&self, outbound: bool) -> bool {
        (self.server & METHOD == TUNNEL) & !outbound & !self.is_helped()
    }

    /// Whether [`Extra::client`] has to do with the packets of a FULLNAT connection.
    #[inline(always)]
    pub fn is_telling(&self) -> bool {
        self.server & TELLING != 0
    }

    /// Whether it is a control connection of FTP that [`Conns::talk`] belongs to.
    pub fn is_helped(&self) -> bool {
        self.state & HELPED != 0
    }

    pub fn set_telling(&mut self, telling: bool) {
        self.server = self.server & !TELLING | if telling { TELLING } else { 0 };
    }

    /// A side's flow: 0 as the client sends it, 1 as the server does.
    #[inline(always)]
    pub fn side(&self, outbound: bool) -> Flow {
        let side = usize::from(outbound);
        Flow {
            addresses: self.addresses[side],
            ports: self.ports[side],
            protocol: self.protocol,
            v6: self.is_v6(outbound),
        }
    }

    #[inline(always)]
    pub fn state(&self) -> State {
        // Written by `Conns` alone, from a `State`.
        State::by_number(self.state & STATE)
    }

    /// The state after `event`, a packet that was observed, if it is another one or its timeout has
    /// changed meanwhile.
    #[inline(always)]
    pub fn moved(
        &self,
        event: Event,
        outbound: bool,
        transitions: &Transitions,
        timeouts: &Timeouts,
    ) -> Option<State> {
        if !transitions.keeps(self.state, event) {
            let next = transitions.after(self.state, event, self.direction(outbound));
            if next as u8 != self.state & STATE {
                return Some(next);
            }
        }
        let retimed = !self.has_own_timeouts() & (self.timeout_ms != timeouts.ms_of(self.state));
        retimed.then(|| self.state())
    }

    /// What a packet that was observed is to the connection's state.
    #[inline(always)]
    fn direction(&self, outbound: bool) -> Direction {
        match (outbound, self.is_one_way()) {
            (true, _) => Direction::Output,
            (false, false) => Direction::Input,
            (false, true) => Direction::InputOnly,
        }
    }

    #[inline(always)]
    pub fn server(&self) -> ServerId {
        ServerId(self.server & SERVER_ID)
    }

    /// As it was when the connection began.
    pub fn mode(&self) -> ForwardMode {
        match self.server & METHOD {
            DIRECT => ForwardMode::Direct,
            TUNNEL => ForwardMode::Tunnel,
            FULLNAT => ForwardMode::FullNat,
            _ => ForwardMode::Nat,
        }
    }

    #[inline(always)]
    pub fn last_seen(&self) -> Instant {
        Instant(self.last_seen)
    }

    #[inline(always)]
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// Whether its timeout is for [`Conns::set_state_for`] to change, not for each packet.
    #[inline(always)]
    pub fn has_own_timeouts(&self) -> bool {
        self.state & OWN_TIMEOUTS != 0
    }

    pub fn set_own_timeouts(&mut self, own: bool) {
        self.state = self.state & !OWN_TIMEOUTS | if own { OWN_TIMEOUTS } else { 0 };
    }

    /// Whether no packet came for as long as the connection's state allowed. An expired connection
    /// counts as none even before [`Conns::due`] found it.
    #[inline(always)]
    pub fn expired(&self, now: Instant) -> bool {
        now.since(self.last_seen()) >= self.timeout_ms
    }

    #[inline(always)]
    pub fn hop(&self, outbound: bool) -> HopId {
        HopId(self.hops[usize::from(outbound)])
    }

    pub fn set_hop(&mut self, outbound: bool, hop: HopId) {
        self.hops[usize::from(outbound)] = hop.0;
    }

    #[inline(always)]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Forgets the hops: they were taken under another generation.
    pub fn renew(&mut self, generation: u16) {
        self.generation = generation;
        self.hops = [NO_HOP.0; 2];
    }

    /// From now on its packets only carry the news that it has ended.
    pub fn doom(&mut self) {
        self.generation = 0;
        self.hops = [DOOMED.0; 2];
    }

    pub fn is_doomed(&self) -> bool {
        self.hops[0] == DOOMED.0
    }

    /// Whether another connection controls this one: a template, or that of FTP's commands.
    pub fn is_controlled(&self) -> bool {
        self.state & CONTROLLED != 0
    }

    /// Whether no packet came from the server, which then answers the client without us.
    #[inline(always)]
    pub fn is_one_way(&self) -> bool {
        self.server & NO_OUTPUT != 0
    }

    /// It lives as long as if a packet came now.
    pub fn touch(&mut self, now: Instant) {
        self.last_seen = now.0;
    }

    /// Changes of the IP and the transport checksum for a packet in this direction, where there are
    /// any: not of a mirrored connection.
    #[inline(always)]
    pub fn deltas(&self, outbound: bool) -> (Delta, Delta) {
        let [ip, l4] = self.deltas.map(Delta::from_raw);
        if outbound {
            (ip.reversed(), l4.reversed())
        } else {
            (ip, l4)
        }
    }

    /// Notes one packet of `ip_len` bytes.
    #[inline(always)]
    pub fn observe(&mut self, now: Instant, outbound: bool, ip_len: u16) {
        self.last_seen = now.0;
        self.server &= !(u32::from(outbound) << NO_OUTPUT.trailing_zeros());
        let packets = &mut self.packets[usize::from(outbound)];
        *packets = packets.wrapping_add(1);
        self.bytes += u64::from(ip_len);
    }

    /// It is told by another director, which `in_packets` of its packets passed at least.
    pub fn resume(&mut self, now: Instant, in_packets: u32, one_way: bool) {
        self.last_seen = now.0;
        self.packets[0] = self.packets[0].max(in_packets);
        if self.is_mirrored() {
            self.server = self.server & !NO_OUTPUT | if one_way { NO_OUTPUT } else { 0 };
        }
    }

    /// Packets from the client and from the server.
    pub fn packets(&self) -> [u32; 2] {
        self.packets
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The first packet of a connection, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct First {
    pub now: Instant,
    pub generation: u16,
    /// Toward the server.
    pub hop: HopId,
    pub ip_len: u16,
}

/// What FULLNAT keeps of a connection beside its line.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy)]
#[repr(C, align(32))]
pub struct Extra {
    /// How the server learns who the client is.
    pub client: ClientSide,
    /// Where the local port came from, a [`crate::fullnat::lease::PoolId`].
    pub pool: u32,
    _pad: [u8; 12],
}

/// The addresses of connections that have IPv6 on one side.
#[derive(Debug, Clone, Copy)]
pub struct Wide<'c>(&'c Array<[Addresses6; 2]>);

impl<'c> Wide<'c> {
    /// Of that side of a connection, which is IPv6 there.
    #[inline(always)]
    pub fn of(self, hit: Hit) -> &'c Addresses6 {
        &self.0[hit.entry() as usize][usize::from(hit.outbound())]
    }
}

/// The connection table. Its capacity is fixed at start.
#[derive(Debug)]
pub struct Conns {
    /// The last one is of [`Conns::alone`].
    entries: Array<Conn>,
    /// Addresses of both sides of connections that have IPv6 on one.
    wide: Array<[Addresses6; 2]>,
    /// Entries of `wide` from here on were never written.
    wide_fresh: u32,
    /// What only FULLNAT's connections have.
    extras: Array<Extra>,
    /// Entries of `extras` from here on were never written.
    extras_fresh: u32,
    /// What only control connections of FTP have.
    talks: Array<Talk>,
    /// Entries of `talks` from here on were never written.
    talks_fresh: u32,
    /// Of controlled connections: one more than the number of the template, 0 for none.
    parents: Array<u32>,
    /// Entries of `parents` from here on were never written.
    parents_fresh: u32,
    digest: Digest,
    timers: Timers,
    index: Index,
    posted: Posted,
    /// Keys that the stages of a burst may have missed.
    recent: Recent,
    /// Entries that were used and are free again: the first `free_len`, the last one freed last.
    free: Array<u32>,
    free_len: u32,
    /// Entries from here on were never used.
    fresh: u32,
    used: u32,
}

impl Conns {
    /// For `capacity` connections; flows are hashed under `secret`.
    pub fn new(capacity: u32, secret: [u64; 2]) -> io::Result<Self> {
        Self::within(&Place::MEMORY, capacity, secret)
    }

    /// What cannot be found out again from the rest lies in `place`.
    pub fn within(place: &Place, capacity: u32, secret: [u64; 2]) -> io::Result<Self> {
        let entries = capacity as usize;
        Ok(Self {
            entries: place.zeroed(left::ENTRIES, entries + 1)?,
            wide: place.sparse(left::WIDE, entries + 1)?,
            wide_fresh: 0,
            extras: place.sparse(left::EXTRAS, entries)?,
            extras_fresh: 0,
            talks: place.sparse(left::TALKS, entries)?,
            talks_fresh: 0,
            parents: place.sparse(left::PARENTS, entries)?,
            parents_fresh: 0,
            digest: Digest::new(secret),
            timers: Timers::new(entries)?,
            // What is removed is there until it is written.
            index: Index::new(entries * 2 + posted::DEPTH, secret)?,
            posted: Posted::default(),
            recent: Recent::default(),
            free: Array::zeroed(entries)?,
            free_len: 0,
            fresh: 0,
            used: 0,
        })
    }

    pub fn capacity(&self) -> u32 {
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// Entries from this one on were never used.
    pub fn fresh(&self) -> u32 {
        self.fresh
    }

    /// Connections there are now.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// Memory that the table takes, all included.
    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<Conn>()
            + self.wide_fresh as usize * size_of::<[Addresses6; 2]>()
            + self.extras_fresh as usize * size_of::<Extra>()
            + self.talks_fresh as usize * size_of::<Talk>()
            + self.parents_fresh as usize * size_of::<u32>()
            + self.free.len() * size_of::<u32>()
            + self.timers.bytes()
            + self.index.bytes()
    }

    #[inline(always)]
    pub fn hash(&self, flow: &Flow) -> Hash {
        self.index.hash(flow)
    }

    /// Completes what the parser saw of an IPv6 packet.
    #[inline(always)]
    pub fn digest(&self, seen: &mut Seen, frame: &[u8]) {
        if seen.flow.v6 {
            seen.flow.addresses = self.digest.pair(seen.addresses6(frame));
        }
    }

    /// First stage: starts loading the flow's bucket.
    #[inline(always)]
    pub fn prefetch(&self, hash: Hash) {
        self.index.prefetch(hash);
    }

    /// Second stage: the entry that the flow very likely belongs to; starts loading it. Otherwise
    /// [`Hit::NOWHERE`], or [`Hit::BEYOND`] where it is worth asking again, see [`Self::beyond`].
    #[inline(always)]
    pub fn likely(&self, hash: Hash) -> Hit {
        self.prefetched(self.index.likely(hash))
    }

    /// As [`Self::likely`] a while after that said [`Hit::BEYOND`].
    #[inline(never)]
    pub fn beyond(&self, hash: Hash) -> Hit {
        self.prefetched(self.index.beyond(hash))
    }

    #[inline(always)]
    fn prefetched(&self, (hit, wide): (Hit, bool)) -> Hit {
        cpu::prefetch(&self.entries, hit.entry() as usize);
        if wide {
            cpu::prefetch(&self.wide, hit.entry() as usize);
        }
        hit
    }

    /// Third stage: whether `likely` was right.
    ///
    /// IPv6 addresses are compared in full, but in a mirrored connection by a second digest, which
    /// saves waiting for the second line. A packet with the same ports and one other address then
    /// passes for this connection's with a chance of 2^-64, 2^-32 for each digest, under a secret, so
    /// that nobody can look for one.
    #[inline(always)]
    pub fn verify(&self, hit: Hit, seen: &Seen, frame: &[u8]) -> bool {
        let Some(conn) = self.entries.get(hit.entry() as usize) else {
            return false;
        };
        if !conn.is(&seen.flow, hit.outbound()) {
            return false;
        }
        if !seen.flow.v6 {
            return true;
        }
        match conn.is_mirrored() {
            false => self.addresses6(hit) == seen.addresses6(frame),
            true => conn.digest() == self.digest.both(seen.addresses6(frame)),
        }
    }

    /// The connection a packet belongs to, wherever it is, after the stages of its burst found `hit`,
    /// which was verified, or [`Hit::NOWHERE`]: that holds unless such a key came since.
    #[inline]
    pub fn confirmed(&self, hit: Hit, seen: &Seen, frame: &[u8]) -> Option<Hit> {
        match self.recent.may_have(self.hash(&seen.flow)) {
            true => self.lookup(seen, frame),
            false => (hit != Hit::NOWHERE).then_some(hit),
        }
    }

    /// The connection a packet belongs to, wherever it is.
    pub fn lookup(&self, seen: &Seen, frame: &[u8]) -> Option<Hit> {
        let addresses = seen.flow.v6.then(|| seen.addresses6(frame));
        self.search(&seen.flow, addresses)
    }

    /// The connection a tuple belongs to.
    pub fn find(&self, tuple: &Tuple) -> Option<Hit> {
        self.search(&tuple.flow(self.digest), tuple.addresses6().as_ref())
    }

    fn search(&self, flow: &Flow, addresses: Option<&Addresses6>) -> Option<Hit> {
        let hash = self.hash(flow);
        let is = |hit: Hit| {
            self.entries[hit.entry() as usize].is(flow, hit.outbound())
                && addresses.is_none_or(|addresses| self.addresses6(hit) == addresses)
        };
        let waits = self.recent.may_have(hash);
        let waiting = waits.then(|| self.posted.find(hash, is)).flatten();
        waiting.or_else(|| self.index.find(hash, is))
    }

    /// Adds a key to the index, or removes it, once its bucket is loaded.
    #[inline(always)]
    fn post(&mut self, hash: Hash, hit: Hit, adds: bool) {
        self.index.prefetch(hash);
        if let Some(due) = self.posted.push(Write { hash, hit, adds }) {
            self.carry_out(due);
        }
    }

    /// Writes to the index what has waited for it. To be called when a burst ends: stages look no
    /// farther than the index.
    #[inline(always)]
    pub fn settle(&mut self) {
        self.write_all();
        self.recent.clear();
    }

    #[inline(always)]
    fn write_all(&mut self) {
        while let Some(due) = self.posted.pop() {
            self.carry_out(due);
        }
    }

    fn carry_out(&mut self, Write { hash, hit, adds }: Write) {
        if !adds {
            self.index.remove(hash, hit);
            return;
        }
        let conn = &self.entries[hit.entry() as usize];
        let wide = conn.is_wide();
        if hit.outbound() {
            // Packets of this flow are not of the connection that they were of.
            let flow = conn.side(true);
            let addresses = flow.v6.then(|| self.addresses6(hit));
            let older = self.index.find(hash, |other| {
                self.entries[other.entry() as usize].is(&flow, other.outbound())
                    && addresses.is_none_or(|addresses| self.addresses6(other) == addresses)
            });
            if let Some(older) = older {
                self.index.remove(hash, older);
            }
        }
        self.index.insert(hash, hit, wide);
    }

    /// The addresses of that side of a connection, which is IPv6 there.
    #[inline(always)]
    pub fn addresses6(&self, hit: Hit) -> &Addresses6 {
        Wide(&self.wide).of(hit)
    }

    /// What is kept of a FULLNAT connection.
    pub fn extra(&mut self, entry: u32) -> &mut Extra {
        &mut self.extras[entry as usize]
    }

    /// Makes a new connection a control connection of FTP.
    pub fn help(&mut self, entry: u32) {
        let conn = &mut self.entries[entry as usize];
        conn.state |= HELPED;
        conn.server |= INVOLVED;
        self.talks_fresh = self.talks_fresh.max(entry + 1);
        self.talks[entry as usize] = Talk::default();
    }

    /// As it is now.
    pub fn talk_of(&self, entry: u32) -> &Talk {
        &self.talks[entry as usize]
    }

    /// What is kept of a control connection of FTP.
    pub fn talk(&mut self, entry: u32) -> &mut Talk {
        &mut self.talks[entry as usize]
    }

    /// One side of a connection: 0 as the client sends it, 1 as the server does.
    pub fn tuple(&self, entry: u32, outbound: bool) -> Tuple {
        let flow = self.entries[entry as usize].side(outbound);
        if flow.v6 {
            Tuple::of_v6(&flow, self.addresses6(Hit::new(entry, outbound)))
        } else {
            Tuple::of_v4(&flow)
        }
    }

    /// As [`Self::get`], and beside it the addresses of all connections.
    #[inline(always)]
    pub fn with_addresses(&mut self, hit: Hit) -> (&mut Conn, Wide<'_>) {
        let conn = &mut self.entries[hit.entry() as usize];
        (conn, Wide(&self.wide))
    }

    /// The connection of a [`Hit`] that was just looked up.
    #[inline(always)]
    pub fn get(&mut self, hit: Hit) -> &mut Conn {
        &mut self.entries[hit.entry() as usize]
    }

    /// The connection with this number, if the entry is in use.
    pub fn at(&self, entry: u32) -> Option<&Conn> {
        self.entries
            .get(entry as usize)
            .filter(|conn| conn.protocol != 0)
    }

    /// Opens a connection that is not in the table, by what the client and the server send; `None`
    /// when the table is full. A reply flow that another connection already has goes to the newer
    /// one, as in LVS.
    pub fn open(
        &mut self,
        now: Instant,
        [inbound, outbound]: [&Tuple; 2],
        id: ServerId,
        mode: ForwardMode,
        timeouts: &Timeouts,
    ) -> Option<Hit> {
        let entry = self.take_entry()?;
        let flows = self.fill(now, entry, [inbound, outbound], id, mode, timeouts);
        if flows[0].v6 || flows[1].v6 {
            self.wide_fresh = self.wide_fresh.max(entry + 1);
        }
        Some(self.enter(now, entry, &flows, mode))
    }

    /// As [`Self::open`] by IPv4 flows, with the first packet, a SYN, already on its way.
    #[inline]
    pub fn begin(
        &mut self,
        flows: [Flow; 2],
        (id, mode): (ServerId, ForwardMode),
        first: &First,
        transitions: &Transitions,
        timeouts: &Timeouts,
    ) -> Option<Hit> {
        let entry = self.take_entry()?;
        let [inbound, outbound] = flows;
        let mut conn = Conn::new(first.now, inbound, outbound, id, mode);
        let to = outbound.reversed();
        let ip = Delta::replace(inbound.addresses.to_ne_bytes(), to.addresses.to_ne_bytes());
        let ports = Delta::replace(inbound.ports.to_ne_bytes(), to.ports.to_ne_bytes());
        if !conn.is_mirrored() {
            conn.deltas = [ip.raw(), ip.and(ports).raw()];
        }
        conn.observe(first.now, false, first.ip_len);
        let state = transitions.after(conn.state, Event::Syn, conn.direction(false));
        conn.state = state as u8;
        conn.timeout_ms = timeouts.ms(state);
        (conn.generation, conn.hops[0]) = (first.generation, first.hop.0);
        self.entries[entry as usize] = conn;
        if state.is_half_open() {
            self.timers.queue_half_open(entry);
        }
        Some(self.enter(first.now, entry, &flows, mode))
    }

    /// Enters a connection, whose lines are written, everywhere else.
    #[inline(always)]
    fn enter(&mut self, now: Instant, entry: u32, flows: &[Flow; 2], mode: ForwardMode) -> Hit {
        if mode == ForwardMode::FullNat {
            self.extras_fresh = self.extras_fresh.max(entry + 1);
        }
        let [inbound, outbound] = flows.each_ref().map(|flow| self.hash(flow));
        self.recent.add(inbound);
        self.recent.add(outbound);
        // Its bucket was just looked at.
        let wide = self.entries[entry as usize].is_wide();
        self.index.insert(inbound, Hit::new(entry, false), wide);
        self.post(outbound, Hit::new(entry, true), true);
        self.used += 1;
        let deadline = now.plus_ms(self.entries[entry as usize].timeout_ms);
        self.timers.schedule(now, entry, deadline);
        Hit::new(entry, false)
    }

    /// From now on packets of this tuple are not of the connection that they were of: one that is
    /// opened next has them.
    pub fn give_way(&mut self, tuple: &Tuple) {
        self.write_all();
        if let Some(older) = self.find(tuple) {
            let flow = tuple.flow(self.digest);
            self.index.remove(self.hash(&flow), older);
        }
    }

    /// A connection for one packet, not of FULLNAT: it is not in the table, takes no room there, is
    /// found by nobody and lasts until the next one.
    pub fn alone(
        &mut self,
        now: Instant,
        sides: [&Tuple; 2],
        id: ServerId,
        mode: ForwardMode,
        timeouts: &Timeouts,
    ) -> Hit {
        debug_assert!(mode != ForwardMode::FullNat, "its extra is in the table");
        let entry = self.capacity();
        self.fill(now, entry, sides, id, mode, timeouts);
        Hit::new(entry, false)
    }

    /// Whether this is [`Self::alone`]'s connection.
    pub fn is_alone(&self, hit: Hit) -> bool {
        hit.entry() == self.capacity()
    }

    /// Writes the lines of a new connection; returns its two flows.
    fn fill(
        &mut self,
        now: Instant,
        entry: u32,
        [inbound, outbound]: [&Tuple; 2],
        id: ServerId,
        mode: ForwardMode,
        timeouts: &Timeouts,
    ) -> [Flow; 2] {
        let flows = [inbound.flow(self.digest), outbound.flow(self.digest)];
        let mut conn = Conn::new(now, flows[0], flows[1], id, mode);
        conn.timeout_ms = timeouts.ms(conn.state());
        conn.deltas = match (conn.is_mirrored(), inbound.addresses6()) {
            (false, _) => deltas(inbound, &outbound.reversed()),
            (true, Some(addresses)) => {
                let [a, b, c, d] = self.digest.both(&addresses).to_le_bytes();
                [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
            }
            (true, None) => [0; 2],
        };
        for (side, tuple) in [inbound, outbound].into_iter().enumerate() {
            if let Some(addresses) = tuple.addresses6() {
                self.wide[entry as usize][side] = addresses;
            }
        }
        debug_assert!(!conn.is_mirrored() || *outbound == inbound.reversed());
        self.entries[entry as usize] = conn;
        flows
    }

    #[inline]
    fn take_entry(&mut self) -> Option<u32> {
        if let Some(last) = self.free_len.checked_sub(1) {
            self.free_len = last;
            if let Some(later) = last.checked_sub(FREE_AHEAD) {
                self.prefetch_entry(self.free[later as usize]);
            }
            return Some(self.free[last as usize]);
        }
        (self.fresh < self.capacity()).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Ends a connection.
    pub fn close(&mut self, entry: u32) {
        let conn = &self.entries[entry as usize];
        debug_assert!(conn.protocol != 0, "closing a free entry");
        let hashes = [false, true].map(|outbound| self.hash(&conn.side(outbound)));
        if self.recent.may_have(hashes[1]) && self.posted.adds(entry) {
            self.write_all();
        }
        let conn = &mut self.entries[entry as usize];
        conn.protocol = 0;
        if conn.state().is_half_open() {
            self.timers.unqueue(entry);
        }
        for (hash, outbound) in hashes.into_iter().zip([false, true]) {
            self.post(hash, Hit::new(entry, outbound), false);
        }
        self.free[self.free_len as usize] = entry;
        self.free_len += 1;
        self.used -= 1;
    }

    /// Gives a connection a state and that state's timeout, and moves its timer with them.
    pub fn set_state(&mut self, now: Instant, entry: u32, state: State, timeouts: &Timeouts) {
        self.set_state_for(now, entry, state, timeouts.ms(state));
    }

    /// As [`Self::set_state`], with a timeout of its service's own.
    pub fn set_state_for(&mut self, now: Instant, entry: u32, state: State, timeout_ms: u32) {
        let conn = &mut self.entries[entry as usize];
        let was = conn.state();
        conn.state = conn.state & !STATE | state as u8;
        conn.timeout_ms = timeout_ms;
        if state.is_half_open() {
            self.timers.queue_half_open(entry);
        } else if was.is_half_open() {
            self.timers.unqueue(entry);
        }
        self.timers.schedule(now, entry, now.plus_ms(timeout_ms));
    }

    /// Gives a connection `ms` from now on, whatever its state allows.
    pub fn postpone(&mut self, now: Instant, entry: u32, ms: u32) {
        let conn = &mut self.entries[entry as usize];
        conn.last_seen = now.0;
        conn.timeout_ms = ms;
        self.timers.schedule(now, entry, now.plus_ms(ms));
    }

    /// Its client or its server asked again: others are to go before it while it is half-open.
    pub fn asked_again(&mut self, entry: u32) {
        if self.entries[entry as usize].state().is_half_open() {
            self.timers.queue_half_open(entry);
        }
    }

    /// Notes that a template, held for as long as the connection lives, brought a connection about;
    /// `None` if another connection did.
    pub fn control(&mut self, entry: u32, template: Option<Hold>) {
        self.entries[entry as usize].state |= CONTROLLED;
        self.parents_fresh = self.parents_fresh.max(entry + 1);
        self.parents[entry as usize] = template.map_or(0, |hold| hold.into_number() + 1);
    }

    /// The number of the template that brought a connection about.
    pub fn template(&self, entry: u32) -> Option<u32> {
        let is_controlled = self.entries[entry as usize].is_controlled();
        is_controlled
            .then(|| self.parents[entry as usize])?
            .checked_sub(1)
    }

    /// The connection is nobody's any more; returns its hold on the template that it had.
    pub fn uncontrol(&mut self, entry: u32) -> Option<Hold> {
        let template = self.template(entry);
        self.entries[entry as usize].state &= !CONTROLLED;
        template.map(Hold::from_number)
    }

    /// The next connection whose time ran out, to be closed by the caller. Looks at no more than
    /// `budget` connections, which it counts down.
    pub fn due(&mut self, now: Instant, budget: &mut u32) -> Option<u32> {
        let (entries, extras) = (&self.entries, &self.extras[..self.extras_fresh as usize]);
        let prefetch = |entry: u32| {
            cpu::prefetch(entries, entry as usize);
            cpu::prefetch(extras, entry as usize);
        };
        while let Some(entry) = self.timers.passed(now, self.fresh, budget, prefetch) {
            let conn = &entries[entry as usize];
            let is_free = conn.protocol == 0;
            if !is_free && conn.expired(now) {
                return Some(entry);
            }
            let deadline = match is_free {
                true => now.plus_ms(u32::MAX / 2),
                false => conn.last_seen().plus_ms(conn.timeout_ms),
            };
            self.timers.schedule(now, entry, deadline);
        }
        None
    }

    /// The half-open connection that has waited longest: the first to go when the table is full.
    pub fn oldest_half_open(&self) -> Option<u32> {
        self.timers.oldest_half_open()
    }

    /// Begins to load the one that will be the oldest when that one has gone.
    pub fn prefetch_next_oldest(&self) {
        if let Some(entry) = self.timers.second_oldest_half_open() {
            self.prefetch_entry(entry);
        }
    }

    /// Begins to load what is kept of a connection.
    #[inline(always)]
    fn prefetch_entry(&self, entry: u32) {
        cpu::prefetch(&self.entries, entry as usize);
        if entry < self.extras_fresh {
            cpu::prefetch(&self.extras, entry as usize);
        }
    }

    /// Protocol as the control side names it.
    pub fn protocol(conn: &Conn) -> control::Protocol {
        match conn.protocol {
            TCP => control::Protocol::Tcp,
            SCTP => control::Protocol::Sctp,
            _ => control::Protocol::Udp,
        }
    }
}

/// Changes of the IP header's and of the transport's checksum, where `old` becomes `new`. The
/// families may differ: length and protocol add the same to either pseudo header.
fn deltas(old: &Tuple, new: &Tuple) -> [u16; 2] {
    let addresses = |tuple: &Tuple| {
        let of = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => Delta::adding(&address.octets()),
            std::net::IpAddr::V6(address) => Delta::adding(&address.octets()),
        };
        of(tuple.from.ip()).and(of(tuple.to.ip()))
    };
    let ports = |tuple: &Tuple| {
        let port = |port: u16| Delta::adding(&port.to_be_bytes());
        port(tuple.from.port()).and(port(tuple.to.port()))
    };
    let ip = addresses(new).and(addresses(old).reversed());
    let l4 = ip.and(ports(new)).and(ports(old).reversed());
    [ip.raw(), l4.raw()]
}

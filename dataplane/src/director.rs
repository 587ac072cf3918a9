//! The packet walk: a burst goes through parse, look up, decide, rewrite, hop.
//!
//! A director owns no NIC, no clock and no lock. All it ever does follows from [`Director::apply`],
//! [`Director::process`] and [`Director::tick`], each with the time.

mod adopt; // connections of a director before this one
mod arrival; // whether packets arrive at the worker that owns them
mod brief; // the packets that most connections begin with
mod cut; // connections that are ended from here
mod decide; // everything that is not the fast path
mod defence; // what is given up in a flood
mod engine; // persistence engines: what else a client is known by
mod errors; // ICMP errors about connections
pub mod explain; // what would become of a packet, and why
mod fragmented; // fragments find the way of their first one
#[cfg(test)]
#[expect(
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "the system tests include it as a module of their own"
)]
mod frames; // packets for tests, built by code of their own
mod handshake; // how long servers take to answer a SYN
mod helped; // FTP: control connections, and the data connections that they announce
mod hidden; // FULLNAT: the client's address, told to its server
mod kernel; // what the kernel takes, and what it sends
mod listing; // connections as they are shown
#[cfg(test)]
mod naive; // LVS's table, naively
mod one_packet; // datagrams that are scheduled each by itself, and their answers
mod open; // connections open and close
mod persist; // clients that come back to the server they had
mod retime; // services with timeouts of their own
mod reuse; // whether a packet still belongs to the connection of its ports
mod rewrite; // what changes in a packet on its way
#[cfg(test)]
mod rubbish; // a million spoilt frames of every method
#[cfg(test)]
mod simulation; // random packets, changes and pauses
#[cfg(test)]
#[expect(unreachable_pub, reason = "the tests with DPDK include it too")]
mod spoil; // frames of the golden captures, spoilt
mod steered; // packets that other workers own, and own ones that others received
mod synced; // what other directors tell
mod telling; // what they are told
#[cfg(test)]
mod testbed; // a director with its networks and services, checked step by step
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use arrayvec::ArrayVec;
use control::Settings;
use zerocopy::FromBytes;

use crate::conn::{Conn, Conns, Event, Hash, Hit, State, Timeouts, Transitions, Wide};
use crate::counters::{DropReason, Page, ServerPage};
use crate::cpu::{self, Hot};
use crate::fragments::Fragments;
use crate::fullnat::lease::Leases;
use crate::icmp::RateLimit;
use crate::mem::Place;
#[cfg(test)]
use crate::net::NEIGHBOURS_MAX;
use crate::net::{HopId, Net, Setup};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PORTS_MAX, PacketBuf, PortId};
use crate::sched::Loads;
use crate::service::{Expected, Services};
use crate::steer::Steer;
use crate::templates::{Sweep, Templates};
use crate::time::Instant;
use crate::tunnel::Tunnel;
use crate::update::{ServerId, ServiceId, Update};
use crate::watch::tap::Note;
use crate::wire::ethernet::{self, Station};
use crate::wire::flow::{ICMPV6, IPV4_HEADER, IPV6_HEADER, Kind, Plain, SCTP, Seen};
use crate::wire::partial;

pub use adopt::{Adopted, Heirs};
pub use arrival::Arrival;
use arrival::Arrivals;
use cut::Cuts;
use defence::Defence;
use handshake::Handshakes;
pub use rewrite::{translate, translate6};
pub use steered::Tray;
use synced::Places;
pub use synced::Unkept;
use telling::Telling;

/// Connections looked at for expiry per call of [`Director::tick`], ...
const EXPIRE_MAX: u32 = 64;
/// ... and how many looks one that ends costs besides.
const ENDING: u32 = 1;
/// Work for updates between two bursts, an update of a small service being 1: some 50 µs ...
const PART: usize = 256;
/// ... or until a service's own updates end, but no more than this.
const PART_MAX: usize = 16 * PART;
/// Servers of a service, or neighbours, that are looked through as fast as an update is applied.
const LOOKED_THROUGH_PER_WORK: usize = 64;

/// One worker's load balancer.
#[derive(Debug)]
pub struct Director<P> {
    conns: Conns,
    services: Services,
    net: Net<P>,
    fragments: Fragments<P>,
    leases: Leases,
    templates: Arc<Templates>,
    sweep: Sweep,
    /// By server, where one is needed.
    tunnels: Vec<Option<TunnelTo>>,
    /// By server, too.
    ways: Vec<brief::Way>,
    timeouts: Timeouts,
    settings: Settings,
    cuts: Cuts,
    defence: Defence,
    /// As `secure_tcp` says now.
    transitions: &'static Transitions,
    answers: RateLimit,
    handshakes: Handshakes,
    /// What backups were told, while there are any.
    telling: Option<Box<Telling>>,
    /// Servers that other directors spoke of.
    places: Places,
    steer: Steer,
    arrivals: Arrivals,
    /// By port, what we are there.
    stations: [Station; PORTS_MAX],
    /// Ports whose packets may have checksums to be completed.
    partial: [bool; PORTS_MAX],
    /// By port: the kernel's side of it.
    kernels: [Option<PortId>; PORTS_MAX],
    punts: kernel::Punts,
    page: Arc<Page>,
    ticked: Option<Instant>,
    /// Of packets that need one.
    ip_id: u16,
}

/// The way into the tunnel to one server.
#[derive(Debug, Clone)]
struct TunnelTo {
    tunnel: Tunnel,
    /// The longest IP packet that the way to the server takes, as routers on it said, and when.
    path_mtu: u16,
    learned: Instant,
}

/// So many packets after it was parsed a packet is looked up, and so many later it is rewritten: as long
/// as a line takes to come from memory, and no two stages wait for lines in clumps.
const AHEAD: usize = BURST / 2;

/// Which way a packet goes through the stages.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// A [`Plain`] one of IPv4: what is known of it is read again where it is needed.
    Plain4,
    /// The same of IPv6.
    Plain6,
    /// Any other, or one to be dropped.
    Other,
}

/// What the fast path made of a packet.
enum Outcome {
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

/// What the first two stages learned of a burst, packet by packet.
#[derive(Debug)]
struct Stage {
    shapes: [Shape; BURST],
    /// Of plain packets of IPv6, by digest.
    addresses: [u64; BURST],
    hashes: [Hash; BURST],
    hits: [Hit; BURST],
    /// Those that are not plain, in their order.
    others: ArrayVec<Result<Seen, DropReason>, BURST>,
    /// What services those seem to ask for that open connections.
    expected: Expected,
}

impl Stage {
    #[inline(always)]
    fn new() -> Self {
        Self {
            shapes: [Shape::Other; BURST],
            addresses: [0; BURST],
            hashes: [Hash::NONE; BURST],
            hits: [Hit::NOWHERE; BURST],
            others: ArrayVec::new(),
            expected: Expected::new(),
        }
    }
}

/// A burst on its way through [`Director::stages`].
struct Walk<'w, P: PacketBuf, E: Egress<Buf = P>> {
    director: &'w mut Director<P>,
    now: Instant,
    from: PortId,
    burst: &'w mut Burst<P>,
    out: &'w mut E,
}

impl<P: PacketBuf, E: Egress<Buf = P>> Hot for Walk<'_, P, E> {
    #[inline(always)]
    fn run(self) {
        let director = self.director;
        director.stages(self.now, self.from, self.burst, self.out);
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
        Self::within(&Place::MEMORY, connections_max, secret, setup, steer, page)
    }

    /// As [`Self::new`], with its connections in `place`.
    pub fn within(
        place: &Place,
        connections_max: u32,
        secret: [u64; 2],
        setup: Setup,
        steer: Steer,
        page: Arc<Page>,
    ) -> io::Result<Self> {
        let templates_max = Templates::default_capacity(connections_max, 1);
        let mut director = Self {
            conns: Conns::within(place, connections_max, secret)?,
            services: Services::staggered(steer.me(), Loads::new([page.clone()].into())),
            net: Net::new(setup),
            fragments: Fragments::default(),
            leases: Leases::new(steer.me()),
            templates: Arc::new(Templates::new(templates_max, secret)?),
            sweep: Sweep::new(steer.me(), steer.workers()),
            tunnels: Vec::new(),
            ways: Vec::new(),
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            cuts: Cuts::default(),
            defence: Defence::default(),
            transitions: Transitions::new(false),
            answers: RateLimit::default(),
            handshakes: Handshakes::new(connections_max),
            telling: None,
            places: Places::new(),
            steer,
            arrivals: Arrivals::default(),
            stations: [Station::default(); PORTS_MAX],
            partial: [false; PORTS_MAX],
            kernels: [None; PORTS_MAX],
            punts: kernel::Punts::default(),
            page,
            ticked: None,
            ip_id: 1,
        };
        director.note_ports();
        Ok(director)
    }

    /// What the network says of each port.
    fn note_ports(&mut self) {
        (self.stations, self.partial) = ([Station::default(); PORTS_MAX], [false; PORTS_MAX]);
        self.kernels = [None; PORTS_MAX];
        for on in self.net.interfaces() {
            self.stations[on.port.index()] = Station::new(on.mac);
            self.partial[on.port.index()] = on.partial_checksums;
            if let Some(kernel) = on.kernel {
                self.stations[kernel.port.index()] = Station::new(on.mac);
                self.kernels[on.port.index()] = Some(kernel.port);
            }
        }
    }

    /// Schedules by what all workers count; by default there is but this one.
    #[must_use]
    pub fn among(mut self, pages: Arc<[Arc<Page>]>) -> Self {
        self.services.count_by(Loads::new(pages));
        self
    }

    /// Keeps clients' servers where all workers find them; by default there is but this one.
    #[must_use]
    pub fn sharing(mut self, templates: Arc<Templates>) -> Self {
        self.templates = templates;
        self
    }

    /// Applies the first of a batch's updates, as many as there is time for between two bursts, and
    /// returns how many. A short batch is applied whole; a long one is parted between services.
    pub fn apply_part<E: Egress<Buf = P>>(&mut self, updates: &[Update], out: &mut E) -> usize {
        let (mut work, mut last, mut done) = (0, None, 0);
        for update in updates {
            let (service, looked_through) = self.scope(update);
            let goes_on = service.is_some() && service == last;
            if work >= PART_MAX || work >= PART && !goes_on {
                break;
            }
            self.take_in(update, out);
            work += 1 + looked_through / LOOKED_THROUGH_PER_WORK;
            (last, done) = (service, done + 1);
        }
        self.services.settle();
        done
    }

    /// The service that an update is about, and how many servers or neighbours are looked through.
    fn scope(&self, update: &Update) -> (Option<ServiceId>, usize) {
        match update {
            Update::SetNetwork(_) | Update::FlushNeighbours => (None, self.net.places()),
            _ => self.services.concerned(update),
        }
    }

    /// Takes in one validated change of configuration.
    pub fn apply<E: Egress<Buf = P>>(&mut self, update: &Update, out: &mut E) {
        self.take_in(update, out);
        self.services.settle();
    }

    fn take_in<E: Egress<Buf = P>>(&mut self, update: &Update, out: &mut E) {
        self.note_cuts(update);
        match update {
            Update::SetTimeouts(timeouts) => self.timeouts = *timeouts,
            Update::SetSettings(settings) => {
                self.settings = *settings;
                self.judge();
            }
            // Connections that have their hop do not ask for the tunnel again.
            Update::EditServer { id, tunnel, .. } if self.has_tunnel(*id, tunnel) => {}
            Update::AddServer { id, .. }
            | Update::EditServer { id, .. }
            | Update::ForgetServer { id } => self.forget_tunnel(*id),
            Update::SetLocalAddresses { addresses, .. } => {
                for local in addresses {
                    self.leases.admit(local, self.steer.share(local.address));
                }
            }
            Update::SetNetwork(network) => {
                let announces = self.steer.me() == 0;
                self.net.adopt(network, announces, out, &self.page);
                self.note_ports();
            }
            Update::FlushNeighbours => self.net.flush(),
            _ => {}
        }
        let locals_before = match *update {
            Update::SetLocalAddresses { id, .. } | Update::DeleteService { id } => {
                self.services.locals(id).0.to_vec()
            }
            _ => Vec::new(),
        };
        let announced = self.services.apply(update);
        for address in locals_before {
            if !self.services.is_local(address) {
                self.leases.dismiss(address);
            }
        }
        for address in announced {
            if self.steer.me() == 0 {
                self.net.announce(address, out, &self.page);
            }
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
        let mut tray = Tray::default();
        self.gather(now, from, burst, &mut tray, out);
        self.finish(now, &mut tray, out);
    }

    /// As [`Self::process`] for packets that are counted, and this worker's.
    pub fn process_home<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        cpu::run(Walk {
            director: self,
            now,
            from,
            burst,
            out,
        });
    }

    /// Parse ▸ look up ▸ rewrite ▸ hop, or decide: each stage begins to load what a later one needs.
    #[inline(always)]
    fn stages<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        for packet in burst.iter() {
            packet.prefetch();
        }
        let mut stage = Stage::new();
        self.stage_all(from, burst, &mut stage);
        if self.partial[from.index()] {
            complete_checksums(burst);
        }
        self.go_through(now, |_| from, burst, &mut stage, out);
    }

    /// What remains once packets are staged and half of them looked up; `from` says where each was received.
    #[inline(always)]
    fn go_through<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: impl Fn(usize) -> PortId,
        burst: &mut Burst<P>,
        stage: &mut Stage,
        out: &mut E,
    ) {
        let count = burst.len();
        self.services.load_expected(&stage.expected);
        for at in count.saturating_sub(AHEAD)..count.min(AHEAD) {
            self.look_up(at, stage);
        }
        for at in 0..count.min(AHEAD / 2) {
            self.look_further(at, stage);
        }
        self.services.load_schedulers(&stage.expected);
        let mut others = 0;
        for (at, packet) in burst.drain(..).enumerate() {
            let at = at % BURST;
            if at.is_multiple_of(2) && at + AHEAD < count {
                // Two at once: they wait together for where their pages are.
                self.look_up(at + AHEAD, stage);
                self.look_up(at + AHEAD + 1, stage);
            }
            if at + AHEAD / 2 < count {
                self.look_further(at + AHEAD / 2, stage);
            }
            let (from, addresses, hit) = (from(at), stage.addresses[at], stage.hits[at]);
            match stage.shapes[at] {
                Shape::Plain4 => {
                    self.walk::<IPV4_HEADER, _>(now, from, addresses, hit, packet, out);
                }
                Shape::Plain6 => {
                    self.walk::<IPV6_HEADER, _>(now, from, addresses, hit, packet, out);
                }
                Shape::Other => {
                    self.walk_any(now, from, &stage.others[others], hit, packet, out);
                    others += 1;
                }
            }
        }
        self.conns.settle();
        out.note(Note::default);
    }

    /// First stage, and half of the second.
    #[inline(always)]
    fn stage_all(&self, from: PortId, burst: &Burst<P>, stage: &mut Stage) {
        for at in 0..BURST {
            let Some(packet) = burst.get(at) else {
                break;
            };
            self.parse(from, packet, at, stage);
            if at >= AHEAD {
                self.look_up(at - AHEAD, stage);
            }
        }
    }

    /// What is it, and is it addressed to us? Starts loading its bucket.
    #[inline(always)]
    fn parse(&self, from: PortId, packet: &P, at: usize, stage: &mut Stage) {
        let frame = packet.bytes();
        let station = self.stations[from.index()];
        let is_plain = if ethernet::carries(frame, ethernet::IPV4) {
            stage.shapes[at] = Shape::Plain4;
            self.parse_plain::<IPV4_HEADER>(station, frame, at, stage)
        } else {
            stage.shapes[at] = Shape::Plain6;
            self.parse_plain::<IPV6_HEADER>(station, frame, at, stage)
        };
        if !is_plain {
            self.parse_any(from, frame, at, stage);
        }
    }

    /// Whether the packet is of the usual kind, and now staged.
    #[inline(always)]
    fn parse_plain<const IP: usize>(
        &self,
        station: Station,
        frame: &[u8],
        at: usize,
        stage: &mut Stage,
    ) -> bool {
        let Some(seen) = self.plain::<IP>(station, frame) else {
            return false;
        };
        self.place_plain::<IP>(&seen, at, stage);
        true
    }

    /// As [`Self::place`], of a packet that is read again later, all but the digest of its addresses.
    #[inline(always)]
    fn place_plain<const IP: usize>(&self, seen: &Seen, at: usize, stage: &mut Stage) {
        if IP == IPV6_HEADER {
            stage.addresses[at] = seen.flow.addresses;
        }
        self.place(seen, at, stage);
    }

    /// What a frame is that is of the usual kind and addressed to us.
    #[inline(always)]
    fn plain<const IP: usize>(&self, station: Station, frame: &[u8]) -> Option<Seen> {
        let mut seen = Seen::plain::<IP>(frame)?;
        if !station.is_meant(frame) {
            return None;
        }
        self.conns.digest(&mut seen, frame);
        Some(seen)
    }

    #[inline(never)]
    fn parse_any(&self, from: PortId, frame: &[u8], at: usize, stage: &mut Stage) {
        self.stage_other(self.accepted(from, frame), at, stage);
    }

    /// Stages a packet that is not plain, or not taken for it.
    fn stage_other(&self, seen: Result<Seen, DropReason>, at: usize, stage: &mut Stage) {
        stage.shapes[at] = Shape::Other;
        if let Ok(seen) = &seen
            && seen.kind == Kind::Transport
        {
            self.place(seen, at, stage);
        }
        stage.others.push(seen);
    }

    /// What a frame is that came in on `from`, if it is addressed to us.
    fn accepted(&self, from: PortId, frame: &[u8]) -> Result<Seen, DropReason> {
        let mut seen = Seen::parse(frame)?;
        if seen.vlan().is_some() && self.net.interface(from, seen.vlan()).is_none() {
            return Err(DropReason::UnknownVlan);
        }
        if !self.stations[from.index()].is_meant(frame) && !is_to_all(&seen, frame) {
            return Err(DropReason::NotForUs);
        }
        self.conns.digest(&mut seen, frame);
        Ok(seen)
    }

    /// Where the packet's connection is found. Of one that opens a connection, starts loading its service
    /// too.
    #[inline(always)]
    fn place(&self, seen: &Seen, at: usize, stage: &mut Stage) {
        let hash = self.conns.hash(&seen.flow);
        self.conns.prefetch(hash);
        stage.hashes[at] = hash;
        if seen.begins() && !seen.flow.v6 {
            self.services.expect(&seen.flow, &mut stage.expected);
        }
    }

    /// Second stage: whose packet is it, very likely? Starts loading the connection.
    #[inline(always)]
    fn look_up(&self, at: usize, stage: &mut Stage) {
        stage.hits[at % BURST] = self.conns.likely(stage.hashes[at % BURST]);
    }

    /// The same once more for the few whose bucket was full when they came.
    #[inline(always)]
    fn look_further(&self, at: usize, stage: &mut Stage) {
        let hit = &mut stage.hits[at % BURST];
        if *hit == Hit::BEYOND {
            *hit = self.conns.beyond(stage.hashes[at % BURST]);
        }
    }

    /// The other stages of a packet that is [`Plain`], with an IP header of so many bytes. What it says is
    /// read again, and once more by [`Self::aside`], so that it is nowhere but in registers.
    #[inline(always)]
    fn walk<const IP: usize, E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        addresses: u64,
        hit: Hit,
        mut packet: P,
        out: &mut E,
    ) {
        let seen = seen_again::<IP>(packet.bytes(), addresses);
        match self.attempt(now, &seen, hit, &mut packet, out) {
            Outcome::Leaves(port) => out.send(port, packet, Origin::forwarded(from)),
            outcome => self.aside::<IP, _>(now, from, addresses, hit, outcome, packet, out),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "as `walk`, and how far that came"
    )]
    #[inline(never)]
    fn aside<const IP: usize, E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        addresses: u64,
        hit: Hit,
        outcome: Outcome,
        packet: P,
        out: &mut E,
    ) {
        let seen = seen_again::<IP>(packet.bytes(), addresses);
        self.go_on(now, from, &seen, hit, outcome, packet, out);
    }

    /// The other stages of any packet.
    #[inline(never)]
    fn walk_any<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Result<Seen, DropReason>,
        hit: Hit,
        mut packet: P,
        out: &mut E,
    ) {
        match seen {
            Ok(seen) => {
                let outcome = match seen.kind {
                    Kind::Transport => self.attempt(now, seen, hit, &mut packet, out),
                    _ => Outcome::Stranger,
                };
                self.go_on(now, from, seen, hit, outcome, packet, out);
            }
            Err(reason) => {
                out.note(Note::default);
                self.unwanted(now, from, *reason, packet, out);
            }
        }
    }

    /// The fast path, if the packet is of the connection that it very likely is of.
    #[inline(always)]
    fn attempt<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        out: &mut E,
    ) -> Outcome {
        if !self.conns.verify(hit, seen, packet.bytes()) {
            return Outcome::Stranger;
        }
        out.note(|| self.note_of(hit));
        self.established(now, seen, hit, packet)
    }

    /// What remains to be done for a packet after that.
    #[expect(
        clippy::too_many_arguments,
        reason = "the packet's facts and what became of it"
    )]
    #[inline(always)]
    fn go_on<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        hit: Hit,
        outcome: Outcome,
        mut packet: P,
        out: &mut E,
    ) {
        let (hit, outcome) = match outcome {
            Outcome::Stranger => match self.search(seen, hit, &packet) {
                Some(hit) if !seen.begins() => {
                    out.note(|| self.note_of(hit));
                    (hit, self.established(now, seen, hit, &mut packet))
                }
                found => {
                    out.note(Note::default);
                    return self.decide(now, from, seen, found, packet, out);
                }
            },
            outcome => (hit, outcome),
        };
        let outcome = match outcome {
            Outcome::Involved(hop) => self.involved(now, seen, hit, hop, &mut packet),
            outcome => outcome,
        };
        match outcome {
            Outcome::Leaves(port) => out.send(port, packet, Origin::forwarded(from)),
            Outcome::Dropped(reason) => out.watch().discard(from, reason, packet),
            _ => {
                let found = self.conns.confirmed(hit, seen, packet.bytes());
                self.decide(now, from, seen, found, packet, out);
            }
        }
    }

    /// The connection of a packet that is not of the one that it is likely to be of, which was `hit`: most
    /// open one.
    fn search(&self, seen: &Seen, hit: Hit, packet: &P) -> Option<Hit> {
        match (seen.kind, hit) {
            (Kind::Transport, Hit::NOWHERE) => self.conns.confirmed(hit, seen, packet.bytes()),
            (Kind::Transport, _) => self.conns.lookup(seen, packet.bytes()),
            _ => None,
        }
    }

    /// What a capture says of a packet of this connection.
    #[cold]
    fn note_of(&self, hit: Hit) -> Note {
        let Some(conn) = self.conns.at(hit.entry()) else {
            return Note::default();
        };
        let server = self.services.server(conn.server());
        let sides = [false, true].map(|outbound| self.conns.tuple(hit.entry(), outbound));
        Note {
            service: server.map(|server| server.service),
            server: server.map(|_| conn.server()),
            method: Some(conn.mode()),
            sides: sides.iter().map(Note::side).collect(),
        }
    }

    /// The fast path: a packet of a known connection in its usual course, whose next hop is ready.
    /// Rewrites it, its Ethernet header too.
    #[inline(always)]
    fn established(&mut self, now: Instant, seen: &Seen, hit: Hit, packet: &mut P) -> Outcome {
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
    fn involved(
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
    fn encapsulate(&mut self, server: ServerId, seen: &Seen, packet: &mut P) -> bool {
        let id = self.next_ip_id();
        let Some(Some(way)) = self.tunnels.get(server.index()) else {
            return false;
        };
        rewrite::one_hop_less(packet.bytes_mut(), seen);
        let (l3, copy_df) = (usize::from(seen.l3), self.settings.pmtu_disc);
        (way.tunnel).encapsulate_as(seen.flow.v6, packet, l3, seen.ip_len, id, copy_df)
    }

    fn next_ip_id(&mut self) -> u16 {
        next_ip_id(&mut self.ip_id)
    }

    /// Counts a packet of a connection for its server.
    #[inline(always)]
    fn count(&mut self, seen: &Seen, hit: Hit) {
        let server = self.conns.get(hit).server();
        let server = &self.page.servers[server.index()];
        count(server, hit.outbound(), seen.ip_len);
    }

    /// Gives a packet of a connection the addresses and ports of its other side.
    #[inline(always)]
    fn translate(&mut self, seen: &Seen, hit: Hit, packet: &mut P) {
        let (conn, wide) = self.conns.with_addresses(hit);
        translate_over(packet.bytes_mut(), seen, hit, conn, wide);
    }

    /// Notes a packet of a connection, and moves its state.
    #[inline(always)]
    fn track(&mut self, now: Instant, seen: &Seen, hit: Hit) {
        let conn = self.conns.get(hit);
        conn.observe(now, hit.outbound(), seen.ip_len);
        let (event, outbound) = (event(seen), hit.outbound());
        if let Some(next) = conn.moved(event, outbound, self.transitions, &self.timeouts) {
            self.change_state(now, hit, next);
        }
        self.tell_backups(now, hit);
    }

    #[inline(never)]
    fn change_state(&mut self, now: Instant, hit: Hit, next: State) {
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

    /// What the connections' cached hops and servers depend on.
    #[inline(always)]
    fn generation(&self) -> u16 {
        // 0 is what a new connection has.
        self.net
            .generation()
            .wrapping_add(self.services.generation())
            | 1 << 15
    }

    /// Sends a packet whose IP header is at `l3` to its next hop, or holds it until that is known.
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
        if usize::from(hop.l2_len) == l3 {
            hop.depart(packet.bytes_mut());
            out.send(port, packet, origin);
        } else if hop.address(&mut packet, l3) {
            out.send(port, packet, origin);
        } else {
            let watch = out.watch();
            watch.discard(origin.port, DropReason::NoHeadroom, packet);
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
        while let Some(entry) = self.conns.due(now, &mut budget) {
            if self.outlives(now, entry) {
                continue;
            }
            budget = budget.saturating_sub(ENDING);
            if self.resets_on_expiry(entry) {
                self.doom(now, entry, out);
            } else {
                self.close(now, entry, None);
            }
        }
        if budget > 0 {
            self.ticked = Some(now);
        }
        self.cut_some(now, out);
        self.defend(now);
        self.conns.settle();
        self.forget_fragments(now, out);
        self.leases.tick(now);
        let services = &self.services;
        let is_gone = |id| !services.server(id).is_some_and(|server| server.available);
        self.templates.sweep(&mut self.sweep, now, is_gone);
        self.net.tick(now, out, &self.page);
        self.tell_round(now);
    }

    /// Gives back every packet that is held.
    pub fn stop<E: Egress<Buf = P>>(&mut self, out: &mut E) {
        self.drop_fragments(out);
        self.net.stop(out, &self.page);
    }

    pub fn net(&self) -> &Net<P> {
        &self.net
    }

    /// Fills the table of neighbours.
    #[cfg(test)]
    pub(crate) fn meet_everybody(&mut self) {
        for n in (1..).take(NEIGHBOURS_MAX) {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | n);
            let _ = self.net.hop_to(Instant::default(), address.into());
        }
    }

    pub fn page(&self) -> &Arc<Page> {
        &self.page
    }

    pub fn templates(&self) -> &Arc<Templates> {
        &self.templates
    }

    /// Memory of the connection table, all included.
    pub fn table_bytes(&self) -> usize {
        self.conns.bytes()
    }
}

/// What was seen of a [`Plain`] packet with an IP header of so many bytes, and addresses of this digest if it
/// is IPv6.
#[inline(always)]
fn seen_again<const IP: usize>(frame: &[u8], addresses: u64) -> Seen {
    let Ok((plain, _)) = Plain::<IP>::ref_from_prefix(frame) else {
        unreachable!("parsed");
    };
    let mut seen = Seen::of_plain(plain);
    if IP == IPV6_HEADER {
        seen.flow.addresses = addresses;
    }
    seen
}

/// An id for an IPv4 packet that may be fragmented; never 0.
#[inline(always)]
fn next_ip_id(last: &mut u16) -> u16 {
    *last = last.wrapping_add(1).max(1);
    *last
}

/// Counts a packet of a connection for its server.
#[inline(always)]
fn count(server: &ServerPage, outbound: bool, ip_len: u16) {
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

/// Completes the checksums that senders left to their hardware.
#[inline(never)]
fn complete_checksums<P: PacketBuf>(burst: &mut Burst<P>) {
    for packet in burst {
        if let Ok(seen) = Seen::parse(packet.bytes())
            && seen.kind == Kind::Transport
        {
            let (l3, end) = (usize::from(seen.l3), usize::from(seen.ip_len));
            let l4 = usize::from(seen.l4) - l3;
            let ip = &mut packet.bytes_mut()[l3..l3 + end];
            partial::complete(ip, l4, seen.flow.protocol);
        }
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

/// Whether a frame asks all stations: ARP, or neighbour discovery, for an address of one of them.
fn is_to_all(seen: &Seen, frame: &[u8]) -> bool {
    match frame.first_chunk() {
        Some(to) if seen.kind == Kind::Arp => *to == [0xff; 6],
        Some(to) if seen.flow.protocol == ICMPV6 => crate::net::is_group_of_ours(to),
        _ => false,
    }
}

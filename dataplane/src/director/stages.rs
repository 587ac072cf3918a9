//! The stages of a burst: parse ▸ look up ▸ rewrite ▸ hop, or decide.

use arrayvec::ArrayVec;
use zerocopy::FromBytes;

use super::Director;
use super::established::Outcome;
use super::steered::Tray;
use crate::conn::{Hash, Hit};
use crate::counters::DropReason;
use crate::cpu::{self, Hot};
use crate::packet::{BURST, Burst, Egress, Origin, PacketBuf, PortId};
use crate::service::Expected;
use crate::time::Instant;
use crate::watch::tap::Note;
use crate::wire::ethernet::{self, Station};
use crate::wire::flow::{ICMPV6, IPV4_HEADER, IPV6_HEADER, Kind, Plain, Seen};
use crate::wire::partial;

/// So many packets after it was parsed a packet is looked up, and so many later it is rewritten: as long
/// as a line takes to come from memory, and no two stages wait for lines in clumps.
pub(super) const AHEAD: usize = BURST / 2;

/// Which way a packet goes through the stages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// A [`Plain`] one of IPv4: what is known of it is read again where it is needed.
    Plain4,
    /// The same of IPv6.
    Plain6,
    /// Any other, or one to be dropped.
    Other,
}

/// What the first two stages learned of a burst, packet by packet.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) shapes: [Shape; BURST],
    /// Of plain packets of IPv6, by digest.
    pub(super) addresses: [u64; BURST],
    pub(super) hashes: [Hash; BURST],
    pub(super) hits: [Hit; BURST],
    /// Those that are not plain, in their order.
    pub(super) others: ArrayVec<Result<Seen, DropReason>, BURST>,
    /// What services those seem to ask for that open connections.
    pub(super) expected: Expected,
}

impl Stage {
    #[inline(always)]
    pub(super) fn new() -> Self {
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
    pub(super) fn stages<E: Egress<Buf = P>>(
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
    pub(super) fn go_through<E: Egress<Buf = P>>(
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
    pub(super) fn stage_all(&self, from: PortId, burst: &Burst<P>, stage: &mut Stage) {
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
    pub(super) fn parse(&self, from: PortId, packet: &P, at: usize, stage: &mut Stage) {
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
    pub(super) fn place_plain<const IP: usize>(&self, seen: &Seen, at: usize, stage: &mut Stage) {
        if IP == IPV6_HEADER {
            stage.addresses[at] = seen.flow.addresses;
        }
        self.place(seen, at, stage);
    }

    /// What a frame is that is of the usual kind and addressed to us.
    #[inline(always)]
    pub(super) fn plain<const IP: usize>(&self, station: Station, frame: &[u8]) -> Option<Seen> {
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
    pub(super) fn stage_other(&self, seen: Result<Seen, DropReason>, at: usize, stage: &mut Stage) {
        stage.shapes[at] = Shape::Other;
        if let Ok(seen) = &seen
            && seen.kind == Kind::Transport
        {
            self.place(seen, at, stage);
        }
        stage.others.push(seen);
    }

    /// What a frame is that came in on `from`, if it is addressed to us.
    pub(super) fn accepted(&self, from: PortId, frame: &[u8]) -> Result<Seen, DropReason> {
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
    pub(super) fn place(&self, seen: &Seen, at: usize, stage: &mut Stage) {
        let hash = self.conns.hash(&seen.flow);
        self.conns.prefetch(hash);
        stage.hashes[at] = hash;
        if seen.begins() && !seen.flow.v6 {
            self.services.expect(&seen.flow, &mut stage.expected);
        }
    }

    /// Second stage: whose packet is it, very likely? Starts loading the connection.
    #[inline(always)]
    pub(super) fn look_up(&self, at: usize, stage: &mut Stage) {
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
    pub(super) fn search(&self, seen: &Seen, hit: Hit, packet: &P) -> Option<Hit> {
        match (seen.kind, hit) {
            (Kind::Transport, Hit::NOWHERE) => self.conns.confirmed(hit, seen, packet.bytes()),
            (Kind::Transport, _) => self.conns.lookup(seen, packet.bytes()),
            _ => None,
        }
    }

    /// What a capture says of a packet of this connection.
    #[cold]
    pub(super) fn note_of(&self, hit: Hit) -> Note {
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
}

/// What was seen of a [`Plain`] packet with an IP header of so many bytes, and addresses of this digest if it
/// is IPv6.
#[inline(always)]
pub(super) fn seen_again<const IP: usize>(frame: &[u8], addresses: u64) -> Seen {
    let Ok((plain, _)) = Plain::<IP>::ref_from_prefix(frame) else {
        unreachable!("parsed");
    };
    let mut seen = Seen::of_plain(plain);
    if IP == IPV6_HEADER {
        seen.flow.addresses = addresses;
    }
    seen
}

/// Completes the checksums that senders left to their hardware.
#[inline(never)]
pub(super) fn complete_checksums<P: PacketBuf>(burst: &mut Burst<P>) {
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

/// Whether a frame asks all stations: ARP, or neighbour discovery, for an address of one of them.
pub(super) fn is_to_all(seen: &Seen, frame: &[u8]) -> bool {
    match frame.first_chunk() {
        Some(to) if seen.kind == Kind::Arp => *to == [0xff; 6],
        Some(to) if seen.flow.protocol == ICMPV6 => crate::net::is_group_of_ours(to),
        _ => false,
    }
}

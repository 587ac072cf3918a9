//! Packets that arrive anywhere: each is parsed where it arrives, handed to the worker that owns it with
//! what was found, and goes on there together with that one's own.

use std::net::IpAddr;

use super::Director;
use super::arrival::Arrival;
use super::stages::{AHEAD, Shape, Stage, complete_checksums};
use crate::conn::Hash;
use crate::cpu::{self, Hot};
use crate::exchange::{Errand, Incoming};
use crate::packet::{BURST, Burst, Egress, PacketBuf, PortId};
use crate::time::Instant;
use crate::watch::tap::Note;
use crate::wire::ethernet::{self, Station};
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, Kind, Seen, Tuple, halves};

/// A worker's own packets, gathered from its ports and from other workers: bursts that are not full cost
/// more for each packet.
#[derive(Debug)]
pub struct Tray<P> {
    burst: Burst<P>,
    /// Where each was received.
    ports: [PortId; BURST],
    stage: Stage,
}

impl<P> Default for Tray<P> {
    fn default() -> Self {
        Self {
            burst: Burst::new(),
            ports: [PortId::default(); BURST],
            stage: Stage::new(),
        }
    }
}

/// [`Director::gather`] of packets that may be other workers'.
struct Gather<'w, P: PacketBuf, E: Egress<Buf = P>> {
    director: &'w mut Director<P>,
    now: Instant,
    from: PortId,
    burst: &'w mut Burst<P>,
    tray: &'w mut Tray<P>,
    out: &'w mut E,
}

impl<P: PacketBuf, E: Egress<Buf = P>> Hot for Gather<'_, P, E> {
    #[inline(always)]
    fn run(self) {
        let director = self.director;
        director.sort_out(self.now, self.from, self.burst, self.tray, self.out);
    }
}

/// [`Director::unpack`] of so many parcels.
struct Unpack<'w, P: PacketBuf, E: Egress<Buf = P>> {
    director: &'w mut Director<P>,
    parcels: usize,
    others: &'w mut Incoming<P>,
    tray: &'w mut Tray<P>,
    out: &'w mut E,
}

impl<P: PacketBuf, E: Egress<Buf = P>> Hot for Unpack<'_, P, E> {
    #[inline(always)]
    fn run(self) {
        let Self {
            director,
            tray,
            out,
            ..
        } = self;
        let first = tray.burst.len();
        (self.others).take(self.parcels, |parcel| match parcel.errand() {
            Errand::Decide(from, hash) => director.lay(from, hash, parcel.packet, tray),
            Errand::Send(to, origin) => out.send(to, parcel.packet, origin),
        });
        director.stage_handed(first, tray);
    }
}

/// [`Director::finish`].
struct Finish<'w, P: PacketBuf, E: Egress<Buf = P>> {
    director: &'w mut Director<P>,
    now: Instant,
    tray: &'w mut Tray<P>,
    out: &'w mut E,
}

impl<P: PacketBuf, E: Egress<Buf = P>> Hot for Finish<'_, P, E> {
    #[inline(always)]
    fn run(self) {
        let Tray {
            burst,
            ports,
            stage,
        } = self.tray;
        let from = |at: usize| ports[at];
        self.director
            .go_through(self.now, from, burst, stage, self.out);
        stage.others.clear();
        stage.expected.clear();
    }
}

impl<P: PacketBuf> Director<P> {
    /// Receives `burst` on `from` and empties it. What is this worker's is gathered on the tray, and decided
    /// about when that is full, or by [`Self::finish`]; where all is, nothing is gathered, and nothing waits.
    pub fn gather<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        tray: &mut Tray<P>,
        out: &mut E,
    ) {
        let port = self.page.port(from);
        port.rx.add(burst.len() as u64);
        port.rx_bytes
            .add(burst.iter().map(|packet| packet.bytes().len() as u64).sum());
        out.watch().received(from, burst);
        if self.steer.is_alone() {
            self.process_home(now, from, burst, out);
        } else if self.arrival(from) == Arrival::AtHome {
            // What was looked up for the tray holds only until a burst ends.
            self.finish(now, tray, out);
            self.process_arrived(now, from, burst, out);
        } else {
            cpu::run(Gather {
                director: self,
                now,
                from,
                burst,
                tray,
                out,
            });
        }
    }

    /// Takes in what other workers handed over, a burst from each or a little less, so that the tray is
    /// full as often as can be, and finishes. Returns how many parcels it took, and how many there were.
    pub fn unpack<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        others: &mut Incoming<P>,
        tray: &mut Tray<P>,
        out: &mut E,
    ) -> (usize, usize) {
        let (all, part) = others.waiting();
        let gathered = tray.burst.len();
        let full = (gathered + part) / BURST * BURST;
        let taken = if full > 0 { full - gathered } else { part };
        let mut left = taken;
        while left > 0 {
            let parcels = left.min(tray.burst.remaining_capacity());
            left -= parcels;
            cpu::run(Unpack {
                director: self,
                parcels,
                others,
                tray,
                out,
            });
            if tray.burst.is_full() {
                self.finish(now, tray, out);
            }
        }
        self.finish(now, tray, out);
        (taken, all)
    }

    /// As [`Self::unpack`] of one packet.
    #[cfg(test)]
    pub(super) fn process_handed<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        hash: Option<Hash>,
        packet: P,
        out: &mut E,
    ) {
        let mut tray = Tray::default();
        self.lay(from, hash, packet, &mut tray);
        self.stage_handed(0, &mut tray);
        self.finish(now, &mut tray, out);
    }

    /// Decides what becomes of each packet on the tray, and empties it.
    pub fn finish<E: Egress<Buf = P>>(&mut self, now: Instant, tray: &mut Tray<P>, out: &mut E) {
        if !tray.burst.is_empty() {
            cpu::run(Finish {
                director: self,
                now,
                tray,
                out,
            });
        }
    }

    /// This worker's own packets are laid on the tray, others go to their workers.
    #[inline(always)]
    fn sort_out<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        tray: &mut Tray<P>,
        out: &mut E,
    ) {
        for packet in burst.iter() {
            packet.prefetch();
        }
        if self.partial[from.index()] {
            complete_checksums(burst);
        }
        let is_tried = matches!(self.arrival(from), Arrival::Tried { .. });
        let station = self.stations[from.index()];
        for packet in burst.drain(..) {
            let (at, frame) = (tray.burst.len() % BURST, packet.bytes());
            let stage = &mut tray.stage;
            let found = if is_tried {
                None
            } else if ethernet::carries(frame, ethernet::IPV4) {
                stage.shapes[at] = Shape::Plain4;
                self.stage_plain::<IPV4_HEADER>(from, station, frame, at, stage)
            } else {
                stage.shapes[at] = Shape::Plain6;
                self.stage_plain::<IPV6_HEADER>(from, station, frame, at, stage)
            };
            let kept = match found {
                Some((home, _)) if home == self.steer.me() => Some(packet),
                Some((home, hash)) => {
                    out.steer(home, from, hash, packet);
                    None
                }
                None => self.stage_if_own(now, from, packet, at, stage, out),
            };
            if let Some(packet) = kept {
                tray.ports[at] = from;
                tray.burst.push(packet);
                if at >= AHEAD {
                    self.look_up(at - AHEAD, stage);
                }
                if tray.burst.is_full() {
                    self.finish(now, tray, out);
                }
            }
        }
    }

    /// The worker that owns a packet, if it is plain, and the hash by which that one will find its connection.
    /// One of this worker's is staged here.
    #[inline(always)]
    fn stage_plain<const IP: usize>(
        &self,
        from: PortId,
        station: Station,
        frame: &[u8],
        at: usize,
        stage: &mut Stage,
    ) -> Option<(usize, Option<Hash>)> {
        let seen = self.plain::<IP>(station, frame)?;
        let home = if IP == IPV4_HEADER {
            let [a, b, c, d, e, f, g, h] = seen.flow.addresses.to_ne_bytes();
            self.home_of_plain(from, &seen, frame, [a, b, c, d], [e, f, g, h])
        } else {
            let (source, destination) = halves(seen.addresses6(frame));
            self.home_of_plain(from, &seen, frame, *source, *destination)
        };
        if home == self.steer.me() {
            self.place_plain::<IP>(&seen, at, stage);
            return Some((home, None));
        }
        let hash = (IP == IPV4_HEADER).then(|| self.conns.hash(&seen.flow));
        Some((home, hash))
    }

    /// Lays a packet on the tray that another worker handed over, to be staged when it is there.
    #[inline(always)]
    fn lay(&self, from: PortId, hash: Option<Hash>, packet: P, tray: &mut Tray<P>) {
        let (at, stage) = (tray.burst.len() % BURST, &mut tray.stage);
        packet.prefetch();
        stage.shapes[at] = Shape::Other;
        if let Some(hash) = hash {
            stage.shapes[at] = Shape::Plain4;
            stage.hashes[at] = hash;
            self.conns.prefetch(hash);
        }
        tray.ports[at] = from;
        tray.burst.push(packet);
    }

    /// First stage, and half of the second, of the packets that were laid on the tray from `first` on.
    #[inline(always)]
    fn stage_handed(&self, first: usize, tray: &mut Tray<P>) {
        let Tray {
            burst,
            ports,
            stage,
        } = tray;
        for at in first..burst.len() {
            let at = at % BURST;
            match stage.shapes[at] {
                // Whoever received it did this.
                Shape::Plain4 => debug_assert!(self.is_led(stage.hashes[at], burst[at].bytes())),
                _ => self.parse(ports[at], &burst[at], at, stage),
            }
            if at >= AHEAD {
                self.look_up(at - AHEAD, stage);
            }
        }
    }

    /// Whether a plain packet of IPv4 came with the hash that it has here.
    fn is_led(&self, hash: Hash, frame: &[u8]) -> bool {
        Seen::plain::<IPV4_HEADER>(frame).is_some_and(|seen| self.conns.hash(&seen.flow) == hash)
    }

    /// As [`Self::home`] in fewer steps.
    #[inline(always)]
    fn home_of_plain<const N: usize>(
        &self,
        from: PortId,
        seen: &Seen,
        frame: &[u8],
        source: [u8; N],
        destination: [u8; N],
    ) -> usize
    where
        IpAddr: From<[u8; N]>,
    {
        let to = IpAddr::from(destination);
        let (address, ports) = match self.services.asks(to, from, None, || seen.tuple(frame)) {
            true => (source, seen.flow.ports),
            false => (destination, seen.flow.reversed().ports),
        };
        let [high, low, ..] = ports.to_ne_bytes();
        self.steer.home_at(address, [high, low])
    }

    /// Stages any packet if it is this worker's, which it then returns.
    #[inline(never)]
    fn stage_if_own<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        packet: P,
        at: usize,
        stage: &mut Stage,
        out: &mut E,
    ) -> Option<P> {
        let seen = match self.accepted(from, packet.bytes()) {
            Ok(seen) => seen,
            Err(reason) => {
                out.note(Note::default);
                self.unwanted(now, from, reason, packet, out);
                return None;
            }
        };
        self.compare_hash(from, &seen, &packet);
        let home = self.home_of(from, &seen, packet.bytes());
        if home == self.steer.me() {
            self.stage_other(Ok(seen), at, stage);
            return Some(packet);
        }
        out.steer(home, from, None, packet);
        None
    }

    /// The worker that decides about a packet.
    pub(super) fn home_of(&self, from: PortId, seen: &Seen, frame: &[u8]) -> usize {
        match seen.kind {
            Kind::Transport => self.home(from, seen, &seen.tuple(frame)),
            Kind::FirstFragment | Kind::Fragment => self.meeting_point(seen, frame),
            Kind::OtherIp => self
                .concerned(seen, frame)
                .map_or(self.steer.me(), |tuple| self.home(from, seen, &tuple)),
            Kind::Arp => self.steer.me(),
        }
    }

    /// The worker that owns the connection which a packet of this tuple belongs to.
    pub(super) fn home(&self, from: PortId, seen: &Seen, tuple: &Tuple) -> usize {
        self.home_within(from, seen.vlan(), tuple)
    }

    pub(super) fn home_within(&self, from: PortId, vlan: Option<u16>, tuple: &Tuple) -> usize {
        let from_client = self.services.is_asking(tuple, from, vlan);
        self.steer
            .home(if from_client { tuple.from } else { tuple.to })
    }
}

//! Packets that other workers own, and own ones that others received: parsed once, by whom received them.

use arrayvec::ArrayVec;

use super::arrival::Arrival;
use super::{Director, Stage, Walk};
use crate::counters::DropReason;
use crate::cpu::{self, Hot};
use crate::packet::{BURST, Burst, Egress, PacketBuf, PortId};
use crate::time::Instant;
use crate::watch::tap::Note;
use crate::wire::ethernet;
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, Kind, Seen, Tuple};

/// How the first stage comes to know what a burst's packets are.
pub(super) trait Sighting<P: PacketBuf> {
    /// To be marked `#[inline(always)]`.
    fn stage(&self, on: &Director<P>, from: PortId, at: usize, packet: &P, stage: &mut Stage);
}

/// It looks.
pub(super) struct Unseen;

impl<P: PacketBuf> Sighting<P> for Unseen {
    #[inline(always)]
    fn stage(&self, on: &Director<P>, from: PortId, at: usize, packet: &P, stage: &mut Stage) {
        on.parse(from, packet, at, stage);
    }
}

/// It is told.
struct Known<'s>(&'s [Seen]);

impl<P: PacketBuf> Sighting<P> for Known<'_> {
    #[inline(always)]
    fn stage(&self, on: &Director<P>, _: PortId, at: usize, _: &P, stage: &mut Stage) {
        on.stage_seen(self.0[at], at, stage);
    }
}

/// A burst whose packets are partly other workers'.
struct Steering<'w, P: PacketBuf, E: Egress<Buf = P>> {
    director: &'w mut Director<P>,
    now: Instant,
    from: PortId,
    burst: &'w mut Burst<P>,
    out: &'w mut E,
}

impl<P: PacketBuf, E: Egress<Buf = P>> Hot for Steering<'_, P, E> {
    #[inline(always)]
    fn run(self) {
        let Self {
            director,
            now,
            from,
            burst,
            out,
        } = self;
        let sight = director.part(now, from, burst, out);
        director.stages(now, from, burst, Known(&sight), out);
    }
}

impl<P: PacketBuf> Director<P> {
    /// As [`Self::process`] for packets that another worker received, counted and parsed for this one.
    pub fn process_steered<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        seen: &[Seen],
        out: &mut E,
    ) {
        cpu::run(Walk {
            director: self,
            now,
            from,
            burst,
            sighting: Known(seen),
            out,
        });
    }

    /// Sends what other workers own to them; the rest goes its way here.
    pub(super) fn steer_burst<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        cpu::run(Steering {
            director: self,
            now,
            from,
            burst,
            out,
        });
    }

    /// Parts a burst: what is other workers' goes to them, what is nobody's ends. Of the rest, what was
    /// seen.
    #[inline(always)]
    fn part<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) -> ArrayVec<Seen, BURST> {
        for packet in burst.iter() {
            packet.prefetch();
        }
        let is_tried = matches!(self.arrival(from), Arrival::Tried { .. });
        let (mut mine, mut sight) = (Burst::new(), ArrayVec::new());
        for packet in burst.drain(..) {
            let seen = match self.sighted(from, packet.bytes()) {
                Ok(seen) => seen,
                Err(reason) => {
                    out.note(Note::default);
                    self.unwanted(now, from, reason, packet, out);
                    continue;
                }
            };
            if is_tried {
                self.compare_hash(from, &seen, &packet);
            }
            let home = self.home_of(from, &seen, packet.bytes());
            if home == self.steer.me() {
                mine.push(packet);
                sight.push(seen);
            } else {
                out.steer(home, from, &seen, packet);
            }
        }
        *burst = mine;
        sight
    }

    /// What a frame is that came in on `from`, if it is addressed to us.
    #[inline(always)]
    fn sighted(&self, from: PortId, frame: &[u8]) -> Result<Seen, DropReason> {
        let station = self.stations[from.index()];
        let plain = if ethernet::carries(frame, ethernet::IPV4) {
            self.plain::<IPV4_HEADER>(station, frame)
        } else {
            self.plain::<IPV6_HEADER>(station, frame)
        };
        plain.map_or_else(|| self.accepted(from, frame), Ok)
    }

    /// The worker that decides about a packet.
    #[inline(always)]
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
    #[inline(always)]
    pub(super) fn home(&self, from: PortId, seen: &Seen, tuple: &Tuple) -> usize {
        self.home_within(from, seen.vlan(), tuple)
    }

    #[inline(always)]
    pub(super) fn home_within(&self, from: PortId, vlan: Option<u16>, tuple: &Tuple) -> usize {
        let from_client = self.services.is_asking(tuple, from, vlan);
        self.steer
            .home(if from_client { tuple.from } else { tuple.to })
    }
}

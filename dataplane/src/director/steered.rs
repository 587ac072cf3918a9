//! Packets that arrive anywhere: each is handed to the worker that owns it.

use std::net::IpAddr;

use super::arrival::Arrival;
use super::{AHEAD, Director, Shape, Stage};
use crate::packet::{BURST, Burst, Egress, PacketBuf, PortId};
use crate::time::Instant;
use crate::watch::tap::Note;
use crate::wire::ethernet::{self, Station};
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, Kind, Seen, Tuple, halves};

impl<P: PacketBuf> Director<P> {
    /// As [`Self::stage_all`], of this worker's own packets, which are left: others go to their workers.
    #[inline(always)]
    pub(super) fn stage_own<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        stage: &mut Stage,
        out: &mut E,
    ) {
        let is_tried = matches!(self.arrival(from), Arrival::Tried { .. });
        let station = self.stations[from.index()];
        let mut own = Burst::new();
        for packet in burst.drain(..) {
            let (at, frame) = (own.len() % BURST, packet.bytes());
            let home = if is_tried {
                None
            } else if ethernet::carries(frame, ethernet::IPV4) {
                stage.shapes[at] = Shape::Plain4;
                self.stage_plain::<IPV4_HEADER>(from, station, frame, at, stage)
            } else {
                stage.shapes[at] = Shape::Plain6;
                self.stage_plain::<IPV6_HEADER>(from, station, frame, at, stage)
            };
            let kept = match home {
                Some(home) if home == self.steer.me() => Some(packet),
                Some(home) => {
                    out.steer(home, from, packet);
                    None
                }
                None => self.stage_if_own(now, from, packet, at, stage, out),
            };
            if let Some(packet) = kept {
                own.push(packet);
                if at >= AHEAD {
                    self.look_up(at - AHEAD, stage);
                }
            }
        }
        *burst = own;
    }

    /// The worker that owns a packet, if it is plain. One of this worker's is then staged.
    #[inline(always)]
    fn stage_plain<const IP: usize>(
        &self,
        from: PortId,
        station: Station,
        frame: &[u8],
        at: usize,
        stage: &mut Stage,
    ) -> Option<usize> {
        let seen = self.plain::<IP>(station, frame)?;
        let home = if IP == IPV4_HEADER {
            let [a, b, c, d, e, f, g, h] = seen.flow.addresses.to_ne_bytes();
            self.home_of_plain(from, &seen, frame, [a, b, c, d], [e, f, g, h])
        } else {
            let (source, destination) = halves(seen.addresses6(frame));
            self.home_of_plain(from, &seen, frame, *source, *destination)
        };
        if home == self.steer.me() {
            stage.addresses[at] = seen.flow.addresses;
            self.place(&seen, at, stage);
        }
        Some(home)
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
        let [a, b, c, d] = seen.flow.ports.to_ne_bytes();
        let to = IpAddr::from(destination);
        let (address, port) = match self.services.asks(to, from, None, || seen.tuple(frame)) {
            true => (source, [a, b]),
            false => (destination, [c, d]),
        };
        self.steer.home_at(address, port)
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
        out.steer(home, from, packet);
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

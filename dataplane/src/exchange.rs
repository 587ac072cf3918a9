//! What workers hand to each other: a bounded ring for each pair of them, which one writes and the other
//! reads. Nobody waits: what finds its ring full is dropped and counted.

use std::mem;

use arrayvec::ArrayVec;
use rtrb::chunks::ChunkError::TooFewSlots;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::conn::Hash;
use crate::counters::DropReason;
use crate::packet::{BURST, Exit, Origin, PacketBuf, PortId};
use crate::watch::Watch;

/// Parcels of one pair of workers that are under way: what a port receives in the time for which one of
/// them may be busy with a change of configuration.
pub const RING: usize = 2048;

/// A packet on its way to another worker. It is copied twice and read by another core: so it is two words.
#[derive(Debug)]
pub struct Parcel<P> {
    pub packet: P,
    /// From the lowest bit: 48 bits of a hash, or a port; 8 of a port; an [`Exit`]'s number and 1, or 0.
    errand: u64,
}

/// What is wanted of the other worker.
#[derive(Debug, Clone, Copy)]
pub enum Errand {
    /// To decide about a packet that was received on this port, see [`crate::packet::Egress::steer`].
    Decide(PortId, Option<Hash>),
    /// To send it: the port has too few queues for every worker to have one.
    Send(PortId, Origin),
}

impl<P> Parcel<P> {
    #[inline(always)]
    fn new(packet: P, errand: Errand) -> Self {
        let (what, port, bits) = match errand {
            Errand::Decide(from, hash) => (0, from, hash.map_or(0, Hash::bits)),
            Errand::Send(to, origin) => (origin.exit as u64 + 1, to, u64::from(origin.port.0)),
        };
        let errand = what << 56 | u64::from(port.0) << 48 | bits;
        Self { packet, errand }
    }

    #[inline(always)]
    pub fn errand(&self) -> Errand {
        let [port, .., other, what] = self.errand.to_le_bytes();
        let exit = match what {
            0 => return Errand::Decide(PortId(other), Hash::from_bits(self.errand)),
            1 => Exit::Forwarded,
            2 => Exit::Answered,
            _ => Exit::Punted,
        };
        let port = PortId(port);
        Errand::Send(PortId(other), Origin { port, exit })
    }
}

/// One worker's ends of all rings; by default there is no other worker.
#[derive(Debug)]
pub struct Exchange<P> {
    pub to: Outgoing<P>,
    pub from: Incoming<P>,
}

impl<P> Default for Exchange<P> {
    fn default() -> Self {
        let (to, from) = (Outgoing(Vec::new()), Incoming::default());
        Self { to, from }
    }
}

/// By worker, the ring to it; none to oneself.
#[derive(Debug)]
pub struct Outgoing<P>(Vec<Option<Lane<P>>>);

/// Its lines are no other worker's.
#[derive(Debug)]
#[repr(align(128))]
struct Lane<P> {
    ring: Producer<Parcel<P>>,
    /// What goes together: the other core is asked for a cache line once for all of them.
    waiting: ArrayVec<Parcel<P>, BURST>,
}

/// The ring from another worker. Its lines are nobody else's.
#[derive(Debug)]
#[repr(align(128))]
struct Source<P>(Consumer<Parcel<P>>);

/// The rings from all other workers, and whose turn it is.
#[derive(Debug)]
pub struct Incoming<P> {
    rings: Vec<Source<P>>,
    turn: usize,
}

impl<P> Default for Incoming<P> {
    fn default() -> Self {
        let rings = Vec::new();
        Self { rings, turn: 0 }
    }
}

/// For each of so many workers.
pub fn exchanges<P>(workers: usize) -> Vec<Exchange<P>> {
    let mut all: Vec<_> = (0..workers).map(|_| Exchange::default()).collect();
    for from in 0..workers {
        for to in 0..workers {
            let lane = (from != to).then(|| {
                let (ring, end) = RingBuffer::new(RING);
                all[to].from.rings.push(Source(end));
                let waiting = ArrayVec::new();
                Lane { ring, waiting }
            });
            all[from].to.0.push(lane);
        }
    }
    all
}

impl<P: PacketBuf> Outgoing<P> {
    /// Hands a parcel over, before long: see [`Self::flush`].
    #[inline]
    pub fn put(&mut self, worker: usize, packet: P, errand: Errand, watch: &mut Watch) {
        let parcel = Parcel::new(packet, errand);
        let Some(Some(lane)) = self.0.get_mut(worker) else {
            debug_assert!(false, "no worker {worker}, or this one itself");
            return parcel.refused(watch);
        };
        lane.waiting.push(parcel);
        if lane.waiting.is_full() {
            lane.flush(watch);
        }
    }

    /// Hands over what waits to go together.
    pub fn flush(&mut self, watch: &mut Watch) {
        for lane in self.0.iter_mut().flatten() {
            if !lane.waiting.is_empty() {
                lane.flush(watch);
            }
        }
    }

    /// Whether one of the rings is half full or more.
    pub fn is_crowded(&self) -> bool {
        let mut lanes = self.0.iter().flatten();
        lanes.any(|lane| lane.ring.slots() <= RING / 2)
    }
}

impl<P: PacketBuf> Lane<P> {
    fn flush(&mut self, watch: &mut Watch) {
        let mut waiting = self.waiting.drain(..);
        let room = match self.ring.write_chunk_uninit(waiting.len()) {
            Ok(chunk) => chunk.fill_from_iter(&mut waiting),
            Err(TooFewSlots(room)) => match self.ring.write_chunk_uninit(room) {
                Ok(chunk) => chunk.fill_from_iter(&mut waiting),
                Err(TooFewSlots(_)) => 0,
            },
        };
        watch.page().steered_out.add(room as u64);
        waiting.for_each(|parcel| parcel.refused(watch));
    }
}

impl<P: PacketBuf> Parcel<P> {
    /// The end of a packet that the other worker has no room for.
    #[cold]
    fn refused(self, watch: &mut Watch) {
        let (port, reason) = match self.errand() {
            Errand::Decide(from, _) => (from, DropReason::SteerRingFull),
            Errand::Send(_, origin) => (origin.port, DropReason::TxRefused),
        };
        watch.discard(port, reason, self.packet);
    }
}

impl<P: PacketBuf> Incoming<P> {
    /// Whether there are other workers.
    pub fn is_any(&self) -> bool {
        !self.rings.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.rings.iter().all(|Source(ring)| ring.is_empty())
    }

    /// Starts loading the packets that [`Self::take`] will find.
    #[inline]
    pub fn approach(&mut self) {
        for Source(ring) in &mut self.rings {
            let waiting = ring.slots().min(BURST);
            if let Ok(chunk) = ring.read_chunk(waiting) {
                let (one, other) = chunk.as_slices();
                for parcel in one.iter().chain(other) {
                    parcel.packet.approach();
                }
            }
        }
    }

    /// How many parcels wait, and how many of them may be taken in one pass: a burst of each ring.
    #[inline]
    pub fn waiting(&self) -> (usize, usize) {
        let each = self.rings.iter().map(|Source(ring)| ring.slots());
        each.fold((0, 0), |(all, part), slots| {
            (all + slots, part + slots.min(BURST))
        })
    }

    /// Takes in so many parcels, if there are as many, of one ring after the other: each time of another one
    /// first.
    #[inline(always)]
    pub fn take(&mut self, parcels: usize, mut then: impl FnMut(Parcel<P>)) {
        let mut left = parcels;
        let (last, first) = self.rings.split_at_mut(self.turn);
        for Source(ring) in first.iter_mut().chain(last) {
            let part = ring.slots().min(left);
            if let Ok(chunk) = ring.read_chunk(part) {
                for parcel in chunk {
                    then(parcel);
                }
                left -= part;
            }
        }
        self.turn = if self.turn + 1 < self.rings.len() {
            self.turn + 1
        } else {
            0
        };
    }
}

const _: () = assert!(mem::size_of::<Parcel<usize>>() == 16, "four in a line");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::counters::Page;
    use crate::packet::HeapBuf;

    fn watch() -> (Watch, Arc<Page>) {
        let page = Arc::new(Page::new(1, 1).unwrap());
        (Watch::new(Arc::clone(&page)), page)
    }

    /// A packet by which it can be known again.
    fn packet(n: u8) -> HeapBuf {
        HeapBuf::new(&[n; 60])
    }

    fn last(packet: &HeapBuf) -> u8 {
        packet.bytes()[0]
    }

    fn decide(from: u8) -> Errand {
        Errand::Decide(PortId(from), None)
    }

    /// So many of what arrived, in words.
    fn taken(incoming: &mut Incoming<HeapBuf>, parcels: usize) -> Vec<String> {
        let mut all = Vec::new();
        incoming.approach();
        incoming.take(parcels, |parcel| {
            let n = last(&parcel.packet);
            all.push(match parcel.errand() {
                Errand::Decide(from, _) => format!("{n} from {}", from.0),
                Errand::Send(to, origin) => format!("send {n} from {} {}", to.0, origin.port.0),
            });
        });
        all
    }

    #[test]
    fn parcels_arrive_in_order() {
        let mut all = exchanges(3);
        let (mut watch, page) = watch();
        for (from, n) in [(0, 1), (0, 2), (1, 3), (0, 4)] {
            all[0].to.put(2, packet(n), decide(from), &mut watch);
        }
        all[1].to.put(2, packet(5), decide(0), &mut watch);
        let origin = Origin::forwarded(PortId(3));
        let send = Errand::Send(PortId(7), origin);
        all[1].to.put(2, packet(6), send, &mut watch);
        assert!(all[2].from.is_empty(), "they go together");
        all[0].to.flush(&mut watch);
        all[1].to.flush(&mut watch);
        assert_eq!(page.steered_out.get(), 6);
        assert_eq!(all[2].from.waiting(), (6, 6));
        let found = taken(&mut all[2].from, BURST);
        let firsts = ["1 from 0", "2 from 0", "3 from 1", "4 from 0"];
        assert_eq!(
            found,
            [&firsts[..], &["5 from 0", "send 6 from 7 3"]].concat()
        );
        assert!(all[2].from.is_empty());
        assert!(all[0].from.is_empty() && all[1].from.is_empty());
    }

    #[test]
    fn rings_take_turns() {
        let mut all = exchanges(3);
        let (mut watch, _) = watch();
        for (from, n) in [(0, 1), (0, 2), (0, 3), (1, 4), (1, 5)] {
            all[from].to.put(2, packet(n), decide(0), &mut watch);
        }
        (0..2).for_each(|from| all[from].to.flush(&mut watch));
        let from = &mut all[2].from;
        let found = [2, 1, 9, 9].map(|parcels| taken(from, parcels).join(", "));
        let wanted = ["1 from 0, 2 from 0", "4 from 0", "3 from 0, 5 from 0", ""];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_finds_no_room_is_dropped_for_a_reason() {
        let mut all = exchanges(2);
        let (mut watch, page) = watch();
        let (ring, over) = (RING, 40);
        for n in 0..ring + over {
            assert_eq!(all[0].to.is_crowded(), n / BURST * BURST >= ring / 2, "{n}");
            let errand = match n % 2 {
                0 => decide(1),
                _ => Errand::Send(PortId(0), Origin::forwarded(PortId(2))),
            };
            all[0].to.put(1, packet(9), errand, &mut watch);
        }
        all[0].to.flush(&mut watch);
        assert_eq!(page.steered_out.get(), ring as u64);
        let dropped =
            |port, reason: DropReason| page.port(PortId(port)).drops[reason as usize].get();
        assert_eq!(dropped(1, DropReason::SteerRingFull), over as u64 / 2);
        assert_eq!(dropped(2, DropReason::TxRefused), over as u64 / 2);
        let mut found = 0;
        while !all[1].from.is_empty() {
            found += taken(&mut all[1].from, BURST).len();
        }
        assert_eq!(found, ring);
        all[0].to.put(1, packet(1), decide(1), &mut watch);
        all[0].to.flush(&mut watch);
        assert_eq!(
            taken(&mut all[1].from, 1),
            ["1 from 1"],
            "there is room again"
        );
    }
}

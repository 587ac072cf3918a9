//! What workers hand to each other: a bounded ring for each pair of them, which one writes and the other
//! reads. Nobody waits: what finds its ring full is dropped and counted.

use std::mem;

use arrayvec::ArrayVec;
use rtrb::chunks::ChunkError::TooFewSlots;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::counters::DropReason;
use crate::packet::{BURST, Burst, Origin, PacketBuf, PortId};
use crate::watch::Watch;

/// Parcels of one pair of workers that are under way: what a port receives in the time for which one of
/// them may be busy with a change of configuration.
pub const RING: usize = 2048;

/// A packet, and what is wanted of the other worker.
#[derive(Debug)]
pub enum Parcel<P> {
    /// To decide about a packet that was received on this port.
    Decide(PortId, P),
    /// To send it: the port has too few queues for every worker to have one.
    Send(PortId, Origin, P),
}

/// What came from another worker.
#[derive(Debug)]
pub enum Arrived<'a, P> {
    /// Packets received on one port, to be taken out.
    Burst(PortId, &'a mut Burst<P>),
    Send(PortId, Origin, P),
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

#[derive(Debug)]
struct Lane<P> {
    ring: Producer<Parcel<P>>,
    /// What goes together: the other core is asked for a cache line once for all of them.
    waiting: ArrayVec<Parcel<P>, BURST>,
}

/// The rings from all other workers.
#[derive(Debug)]
pub struct Incoming<P>(Vec<Consumer<Parcel<P>>>);

impl<P> Default for Incoming<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// For each of so many workers.
pub fn exchanges<P>(workers: usize) -> Vec<Exchange<P>> {
    let mut all: Vec<_> = (0..workers).map(|_| Exchange::default()).collect();
    for from in 0..workers {
        for to in 0..workers {
            let lane = (from != to).then(|| {
                let (ring, end) = RingBuffer::new(RING);
                all[to].from.0.push(end);
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
    pub fn put(&mut self, worker: usize, parcel: Parcel<P>, watch: &mut Watch) {
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
        match self {
            Self::Decide(from, packet) => {
                watch.discard(from, DropReason::SteerRingFull, packet);
            }
            Self::Send(_, origin, packet) => {
                watch.discard(origin.port, DropReason::TxRefused, packet);
            }
        }
    }

    fn packet(&self) -> &P {
        match self {
            Self::Decide(.., packet) | Self::Send(.., packet) => packet,
        }
    }
}

impl<P: PacketBuf> Incoming<P> {
    /// Whether there are other workers.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Consumer::is_empty)
    }

    /// Starts loading the packets that [`Self::take`] will find.
    #[inline]
    pub fn approach(&mut self) {
        for ring in &mut self.0 {
            let waiting = ring.slots().min(BURST);
            if let Ok(chunk) = ring.read_chunk(waiting) {
                let (one, other) = chunk.as_slices();
                for parcel in one.iter().chain(other) {
                    parcel.packet().approach();
                }
            }
        }
    }

    /// Takes in a burst of each ring, in runs of packets from the same port; returns how many waited.
    pub fn take(&mut self, mut then: impl FnMut(Arrived<'_, P>)) -> usize {
        let mut all = 0;
        for ring in &mut self.0 {
            let waiting = ring.slots();
            all += waiting;
            let Ok(chunk) = ring.read_chunk(waiting.min(BURST)) else {
                continue;
            };
            let mut burst = Burst::new();
            let mut port = PortId::default();
            for parcel in chunk {
                let (from, packet) = match parcel {
                    Parcel::Decide(from, packet) => (from, packet),
                    Parcel::Send(to, origin, packet) => {
                        then(Arrived::Send(to, origin, packet));
                        continue;
                    }
                };
                if from != port && !burst.is_empty() {
                    then(Arrived::Burst(port, &mut burst));
                }
                port = from;
                burst.push(packet);
            }
            if !burst.is_empty() {
                then(Arrived::Burst(port, &mut burst));
            }
        }
        all
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

    fn decide(from: u8, n: u8) -> Parcel<HeapBuf> {
        Parcel::Decide(PortId(from), packet(n))
    }

    /// What arrives, in words.
    fn taken(incoming: &mut Incoming<HeapBuf>) -> Vec<String> {
        let mut all = Vec::new();
        incoming.approach();
        incoming.take(|arrived| match arrived {
            Arrived::Burst(port, burst) => {
                let numbers: Vec<_> = burst.drain(..).map(|packet| last(&packet)).collect();
                all.push(format!("{} {numbers:?}", port.0));
            }
            Arrived::Send(to, origin, packet) => all.push(format!(
                "send {} from {} {}",
                last(&packet),
                to.0,
                origin.port.0
            )),
        });
        all
    }

    #[test]
    fn parcels_arrive_in_runs_and_in_order() {
        let mut all = exchanges(3);
        let (mut watch, page) = watch();
        for (from, n) in [(0, 1), (0, 2), (1, 3), (0, 4)] {
            all[0].to.put(2, decide(from, n), &mut watch);
        }
        all[1].to.put(2, decide(0, 5), &mut watch);
        let origin = Origin::forwarded(PortId(3));
        let send = Parcel::Send(PortId(7), origin, packet(6));
        all[1].to.put(2, send, &mut watch);
        assert!(all[2].from.is_empty(), "they go together");
        all[0].to.flush(&mut watch);
        all[1].to.flush(&mut watch);
        assert_eq!(page.steered_out.get(), 6);
        let found = taken(&mut all[2].from);
        assert_eq!(
            found,
            ["0 [1, 2]", "1 [3]", "0 [4]", "send 6 from 7 3", "0 [5]"]
        );
        assert!(all[2].from.is_empty());
        assert!(all[0].from.is_empty() && all[1].from.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_dropped_for_a_reason() {
        let mut all = exchanges(2);
        let (mut watch, page) = watch();
        let (ring, over) = (RING, 40);
        for n in 0..ring + over {
            assert_eq!(all[0].to.is_crowded(), n / BURST * BURST >= ring / 2, "{n}");
            let parcel = match n % 2 {
                0 => decide(1, 9),
                _ => Parcel::Send(PortId(0), Origin::forwarded(PortId(2)), packet(9)),
            };
            all[0].to.put(1, parcel, &mut watch);
        }
        all[0].to.flush(&mut watch);
        assert_eq!(page.steered_out.get(), ring as u64);
        let dropped =
            |port, reason: DropReason| page.port(PortId(port)).drops[reason as usize].get();
        assert_eq!(dropped(1, DropReason::SteerRingFull), over as u64 / 2);
        assert_eq!(dropped(2, DropReason::TxRefused), over as u64 / 2);
        let mut found = 0;
        while !all[1].from.is_empty() {
            found += taken(&mut all[1].from).len();
        }
        assert!(found > 0);
        all[0].to.put(1, decide(1, 1), &mut watch);
        all[0].to.flush(&mut watch);
        assert_eq!(taken(&mut all[1].from), ["1 [1]"], "there is room again");
    }
}

//! IP fragments, followed without being put together.
//!
//! A datagram's first fragment has its ports; [`Fragments`] notes where it went, and the later ones
//! go there too. Those that come before it wait for it, briefly and bounded. Overlapping fragments
//! end their datagram (RFC 5722), as do first fragments too short for their ports (RFC 1858, 3128).

mod piece; // one fragment, read from its packet
mod runs; // which bytes of a datagram were seen
#[cfg(test)]
mod tests; // against a naive model

use std::collections::HashMap;

use arrayvec::ArrayVec;

pub use piece::{Key, Piece, piece};

use crate::counters::DropReason;
use crate::packet::{PacketBuf, PortId};
use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::Tuple;
use runs::{Clash, Runs};

/// The most datagrams a worker knows at a time; the oldest makes room.
pub const DATAGRAMS_MAX: usize = 4096;
/// The most fragments that wait for their first one, of all datagrams together.
pub const HELD_MAX: usize = 256;
/// The most fragments of one datagram that wait for its first one.
pub const HELD_PER_DATAGRAM: usize = 8;
/// How long a datagram is known from its first fragment on: `net.ipv4.ipfrag_time`.
pub const KNOWN_MS: u32 = 30_000;
/// How long the later fragments of a datagram wait for the first.
pub const WAIT_MS: u32 = 1000;
/// The most datagrams that one tick forgets.
const TICK_MAX: usize = 32;

/// What is known of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// Its first fragment has not come.
    Waiting,
    /// Its first fragment belonged to this flow, at home on this worker.
    Known(Tuple, u16),
    /// Its first fragment was dropped; so are the others.
    Refused(DropReason),
    /// Its fragments overlap: all that come are dropped.
    Overlapping,
}

#[derive(Debug)]
struct Datagram {
    key: Key,
    stand: Stand,
    /// See [`Fragments::choose`].
    server: Option<ServerId>,
    deadline: Instant,
    seen: Runs,
    /// Slots of those that wait, in the order they came.
    held: ArrayVec<usize, HELD_PER_DATAGRAM>,
    /// Neighbours in its queue.
    older: Option<usize>,
    newer: Option<usize>,
}

/// Datagrams of the same lifetime by age.
#[derive(Debug, Clone, Copy, Default)]
struct Queue {
    oldest: Option<usize>,
    newest: Option<usize>,
}

/// What becomes of a later fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate<P> {
    /// It goes where its first fragment went: that one's flow and home worker.
    Known(P, Tuple, u16),
    /// It is kept until its first fragment comes.
    Held,
    /// The caller counts it.
    Dropped(P, DropReason),
}

/// One worker's datagrams in fragments. Its memory is fixed at construction.
///
/// Each packet comes out exactly once: in its own [`Fate`], by [`Fragments::release`], or through
/// the `drop` that every call takes, which gets the port it came from and why it was dropped.
#[derive(Debug)]
pub struct Fragments<P> {
    datagrams: Vec<Option<Datagram>>,
    free: Vec<usize>,
    /// Attackers choose the ids: the standard library's hash is keyed at random.
    index: HashMap<Key, usize>,
    /// [`Stand::Waiting`]: each holds at least one packet.
    waiting: Queue,
    /// All others.
    settled: Queue,
    slots: Vec<Option<(PortId, P)>>,
    free_slots: Vec<usize>,
}

impl<P: PacketBuf> Default for Fragments<P> {
    fn default() -> Self {
        Self::new(DATAGRAMS_MAX, HELD_MAX)
    }
}

impl<P: PacketBuf> Fragments<P> {
    /// For at most `datagrams_max` (at least 1) datagrams and `held_max` packets that wait.
    pub fn new(datagrams_max: usize, held_max: usize) -> Self {
        Self {
            datagrams: (0..datagrams_max).map(|_| None).collect(),
            free: (0..datagrams_max).rev().collect(),
            // At most half full, so that the map tidies up in place rather than growing.
            index: HashMap::with_capacity(2 * datagrams_max + 2),
            waiting: Queue::default(),
            settled: Queue::default(),
            slots: (0..held_max).map(|_| None).collect(),
            free_slots: (0..held_max).rev().collect(),
        }
    }

    /// Packets that wait now.
    pub fn held(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// The packet of this datagram that waits since the last call of [`Self::later`].
    pub fn last_held(&self, key: &Key) -> Option<&P> {
        let slot = *self.at(*self.index.get(key)?).held.last()?;
        self.slots[slot].as_ref().map(|(_, packet)| packet)
    }

    /// Datagrams known now.
    pub fn datagrams(&self) -> usize {
        self.index.len()
    }

    /// What becomes of `packet`, which is `piece` (not a first one) and came from `port`.
    pub fn later(
        &mut self,
        now: Instant,
        piece: &Piece,
        packet: P,
        port: PortId,
        mut drop: impl FnMut(PortId, P, DropReason),
    ) -> Fate<P> {
        debug_assert!(!piece.is_first(), "a first fragment is no later one");
        let n = self.find_or_open(now, &piece.key, &mut drop);
        match self.note(now, n, piece, &mut drop) {
            Err(reason) => {
                self.forget_if_empty(n);
                Fate::Dropped(packet, reason)
            }
            Ok(Stand::Known(tuple, home)) => {
                self.forget_if_complete(n);
                Fate::Known(packet, tuple, home)
            }
            Ok(_) => self.hold(n, packet, port, &mut drop),
        }
    }

    /// Notes that the first fragment of `piece`'s datagram belongs to `tuple`, at home on worker
    /// `home`. Those that waited for it are the caller's to [`Self::release`], all of them, now.
    /// An error is why the first fragment itself must be dropped.
    pub fn first(
        &mut self,
        now: Instant,
        piece: &Piece,
        tuple: Tuple,
        home: u16,
        mut drop: impl FnMut(PortId, P, DropReason),
    ) -> Result<(), DropReason> {
        debug_assert!(piece.is_first(), "a later fragment is no first one");
        if let Some(n) = self.find(now, &piece.key, &mut drop)
            && matches!(self.at(n).stand, Stand::Refused(_))
        {
            self.forget(n, DropReason::FragmentTimeout, &mut drop);
        }
        let n = self.find_or_open(now, &piece.key, &mut drop);
        if let Err(reason) = self.note(now, n, piece, &mut drop) {
            self.forget_if_empty(n);
            return Err(reason);
        }
        self.settle(now, n, Stand::Known(tuple, home));
        self.forget_if_complete(n);
        Ok(())
    }

    /// Notes that the first fragment of `piece`'s datagram is dropped for `reason`: so are those
    /// that waited for it, and those to come.
    pub fn refuse(
        &mut self,
        now: Instant,
        piece: &Piece,
        reason: DropReason,
        mut drop: impl FnMut(PortId, P, DropReason),
    ) {
        let n = self.find_or_open(now, &piece.key, &mut drop);
        if matches!(self.at(n).stand, Stand::Waiting | Stand::Known(..)) {
            self.drop_held(n, reason, &mut drop);
            self.settle(now, n, Stand::Refused(reason));
        }
    }

    /// Notes that the first fragment of a datagram went to this server without a connection.
    pub fn choose(&mut self, key: &Key, server: ServerId) {
        if let Some(n) = self.index.get(key).copied() {
            self.at_mut(n).server = Some(server);
        }
    }

    /// The server that [`Self::choose`] was told of.
    pub fn chosen(&self, key: &Key) -> Option<ServerId> {
        self.index.get(key).and_then(|n| self.at(*n).server)
    }

    /// The next fragment that waited for the first one of its datagram, with the port it came from.
    pub fn release(&mut self, key: &Key) -> Option<(PortId, P)> {
        let n = *self.index.get(key)?;
        let datagram = self.at_mut(n);
        if !matches!(datagram.stand, Stand::Known(..)) {
            return None;
        }
        let slot = datagram.held.pop_at(0)?;
        let released = self.take(slot);
        self.forget_if_complete(n);
        released
    }

    /// Forgets what ran out of time, a bounded number a call.
    pub fn tick(&mut self, now: Instant, mut drop: impl FnMut(PortId, P, DropReason)) {
        for _ in 0..TICK_MAX {
            let mut oldest = [self.waiting.oldest, self.settled.oldest].into_iter();
            let due = |n: &usize| now.reached(self.at(*n).deadline);
            let Some(n) = oldest.find_map(|n| n.filter(due)) else {
                return;
            };
            self.forget(n, DropReason::FragmentTimeout, &mut drop);
        }
    }

    /// Gives back all that waits, and forgets everything.
    pub fn stop(&mut self, mut drop: impl FnMut(PortId, P, DropReason)) {
        while let Some(n) = self.waiting.oldest.or(self.settled.oldest) {
            self.forget(n, DropReason::Stopped, &mut drop);
        }
    }

    fn at(&self, n: usize) -> &Datagram {
        self.datagrams[n].as_ref().expect(IN_USE)
    }

    fn at_mut(&mut self, n: usize) -> &mut Datagram {
        self.datagrams[n].as_mut().expect(IN_USE)
    }

    /// The datagram with this key. One whose time ran out is forgotten first.
    fn find(
        &mut self,
        now: Instant,
        key: &Key,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) -> Option<usize> {
        let n = *self.index.get(key)?;
        if now.reached(self.at(n).deadline) {
            self.forget(n, DropReason::FragmentTimeout, drop);
            return None;
        }
        Some(n)
    }

    /// Makes room by forgetting the oldest that waits, or else the oldest of all: fragments without
    /// a first one do not push out those that are on their way.
    fn find_or_open(
        &mut self,
        now: Instant,
        key: &Key,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) -> usize {
        if let Some(n) = self.find(now, key, drop) {
            return n;
        }
        if self.free.is_empty()
            && let Some(oldest) = self.waiting.oldest.or(self.settled.oldest)
        {
            self.forget(oldest, DropReason::FragmentsFull, drop);
        }
        let n = self.free.pop().expect("a place for at least one datagram");
        self.datagrams[n] = Some(Datagram {
            key: *key,
            stand: Stand::Waiting,
            server: None,
            deadline: now.plus_ms(WAIT_MS),
            seen: Runs::default(),
            held: ArrayVec::new(),
            older: None,
            newer: None,
        });
        self.index.insert(*key, n);
        self.enqueue(n);
        n
    }

    /// Notes a piece that came; how its datagram stands, or why it is dropped.
    fn note(
        &mut self,
        now: Instant,
        n: usize,
        piece: &Piece,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) -> Result<Stand, DropReason> {
        let datagram = self.at_mut(n);
        match datagram.stand {
            Stand::Overlapping => return Err(DropReason::FragmentOverlap),
            Stand::Refused(reason) => return Err(reason),
            Stand::Waiting if !piece.is_first() && datagram.held.is_full() => {
                return Err(DropReason::FragmentsFull);
            }
            Stand::Waiting | Stand::Known(..) => {}
        }
        let stand = datagram.stand;
        match datagram.seen.add(piece) {
            Ok(()) => Ok(stand),
            Err(Clash::Seen) => Err(DropReason::FragmentOverlap),
            Err(Clash::Gaps) => Err(DropReason::FragmentsFull),
            Err(Clash::Overlap) => {
                self.drop_held(n, DropReason::FragmentOverlap, drop);
                self.settle(now, n, Stand::Overlapping);
                Err(DropReason::FragmentOverlap)
            }
        }
    }

    /// Keeps a packet of datagram `n`. When no more may wait, the datagram that waits longest gives
    /// up, be it this one.
    fn hold(
        &mut self,
        n: usize,
        packet: P,
        port: PortId,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) -> Fate<P> {
        if self.free_slots.is_empty()
            && let Some(oldest) = self.waiting.oldest
        {
            self.forget(oldest, DropReason::FragmentsFull, drop);
            if oldest == n {
                return Fate::Dropped(packet, DropReason::FragmentsFull);
            }
        }
        let Some(slot) = self.free_slots.pop() else {
            self.forget_if_empty(n);
            return Fate::Dropped(packet, DropReason::FragmentsFull);
        };
        self.slots[slot] = Some((port, packet));
        self.at_mut(n).held.push(slot);
        Fate::Held
    }

    fn take(&mut self, slot: usize) -> Option<(PortId, P)> {
        self.free_slots.push(slot);
        self.slots[slot].take()
    }

    fn drop_held(
        &mut self,
        n: usize,
        reason: DropReason,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) {
        for slot in std::mem::take(&mut self.at_mut(n).held) {
            if let Some((port, packet)) = self.take(slot) {
                drop(port, packet, reason);
            }
        }
    }

    /// Ends a datagram's wait; from now on it is known for [`KNOWN_MS`].
    fn settle(&mut self, now: Instant, n: usize, stand: Stand) {
        self.unlink(n);
        let datagram = self.at_mut(n);
        datagram.stand = stand;
        datagram.deadline = now.plus_ms(KNOWN_MS);
        self.enqueue(n);
    }

    /// A datagram all of which has gone through needs no more attention, and its id may come again.
    fn forget_if_complete(&mut self, n: usize) {
        let datagram = self.at(n);
        if datagram.held.is_empty() && datagram.seen.complete() {
            self.remove(n);
        }
    }

    /// A datagram none of whose fragments was kept need not be remembered.
    fn forget_if_empty(&mut self, n: usize) {
        let datagram = self.at(n);
        if datagram.stand == Stand::Waiting && datagram.held.is_empty() {
            self.remove(n);
        }
    }

    fn forget(
        &mut self,
        n: usize,
        reason: DropReason,
        drop: &mut impl FnMut(PortId, P, DropReason),
    ) {
        self.drop_held(n, reason, drop);
        self.remove(n);
    }

    /// Frees the place of a datagram that holds nothing.
    fn remove(&mut self, n: usize) {
        self.unlink(n);
        if let Some(gone) = self.datagrams[n].take() {
            debug_assert!(gone.held.is_empty(), "packets lost with their datagram");
            self.index.remove(&gone.key);
            self.free.push(n);
        }
    }

    fn queue(&mut self, n: usize) -> &mut Queue {
        match self.at(n).stand {
            Stand::Waiting => &mut self.waiting,
            _ => &mut self.settled,
        }
    }

    fn enqueue(&mut self, n: usize) {
        let older = self.queue(n).newest.replace(n);
        match older {
            Some(older) => self.at_mut(older).newer = Some(n),
            None => self.queue(n).oldest = Some(n),
        }
        let datagram = self.at_mut(n);
        (datagram.older, datagram.newer) = (older, None);
    }

    fn unlink(&mut self, n: usize) {
        let Datagram { older, newer, .. } = *self.at(n);
        match older {
            Some(older) => self.at_mut(older).newer = newer,
            None => self.queue(n).oldest = newer,
        }
        match newer {
            Some(newer) => self.at_mut(newer).older = older,
            None => self.queue(n).newest = older,
        }
    }
}

const IN_USE: &str = "the index and the queues name only datagrams in use";

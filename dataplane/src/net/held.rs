//! Packets that wait for a neighbour: one bounded pool, a queue per neighbour.

use crate::packet::Origin;

/// The most packets that wait for one neighbour.
pub const HELD_PER_NEIGHBOUR: u8 = 16;
/// The most packets that wait for all neighbours together.
pub const HELD_MAX: usize = 512;

/// A packet that waits; its IPv4 header begins at `l3`.
#[derive(Debug)]
pub(super) struct Waiting<P> {
    pub(super) packet: P,
    pub(super) l3: usize,
    pub(super) origin: Origin,
}

/// First in, first out; its packets lie in the pool.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queue {
    first: usize,
    last: usize,
    len: u8,
}

#[derive(Debug)]
struct Slot<P> {
    waiting: Option<Waiting<P>>,
    /// The next of the same queue; means nothing for the last.
    next: usize,
}

#[derive(Debug)]
pub(super) struct Pool<P> {
    slots: Vec<Slot<P>>,
    free: Vec<usize>,
}

impl Queue {
    pub(super) const fn len(self) -> u8 {
        self.len
    }
}

impl<P> Pool<P> {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..HELD_MAX)
                .map(|_| Slot {
                    waiting: None,
                    next: 0,
                })
                .collect(),
            free: (0..HELD_MAX).rev().collect(),
        }
    }

    /// One that takes no packet.
    pub(super) const fn full() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// What waits, and where its IP header begins.
    pub(super) fn packets(&self) -> impl Iterator<Item = (&P, usize)> {
        let waiting = self.slots.iter().filter_map(|slot| slot.waiting.as_ref());
        waiting.map(|waiting| (&waiting.packet, waiting.l3))
    }

    /// Shows the packet where it waits, or gives it back when the queue or the pool is full.
    pub(super) fn push(
        &mut self,
        queue: &mut Queue,
        waiting: Waiting<P>,
    ) -> Result<&Waiting<P>, Waiting<P>> {
        if queue.len >= HELD_PER_NEIGHBOUR {
            return Err(waiting);
        }
        let Some(slot) = self.free.pop() else {
            return Err(waiting);
        };
        if queue.len == 0 {
            queue.first = slot;
        } else {
            self.slots[queue.last].next = slot;
        }
        queue.last = slot;
        queue.len += 1;
        Ok(self.slots[slot].waiting.insert(waiting))
    }

    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<Waiting<P>> {
        queue.len = queue.len.checked_sub(1)?;
        let slot = &mut self.slots[queue.first];
        self.free.push(queue.first);
        queue.first = slot.next;
        slot.waiting.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::PortId;

    fn waiting(packet: usize) -> Waiting<usize> {
        Waiting {
            packet,
            l3: 14,
            origin: Origin::forwarded(PortId(0)),
        }
    }

    #[test]
    fn queues_keep_their_order_and_their_limits() {
        let mut pool = Pool::new();
        let mut queues = [Queue::default(); 40];
        let limit = usize::from(HELD_PER_NEIGHBOUR);
        for round in 0..3 {
            let mut kept = 0;
            for i in 0..=limit {
                for (q, queue) in queues.iter_mut().enumerate() {
                    kept += usize::from(pool.push(queue, waiting(q * 1000 + i)).is_ok());
                }
            }
            assert_eq!(kept, HELD_MAX, "round {round}");
            assert!(queues.iter().all(|queue| queue.len < HELD_PER_NEIGHBOUR));
            for (q, queue) in queues.iter_mut().enumerate() {
                let mut i = 0;
                while let Some(w) = pool.pop(queue) {
                    assert_eq!(w.packet, q * 1000 + i);
                    i += 1;
                }
                kept -= i;
            }
            assert_eq!(kept, 0);
        }
        for i in 0..=limit {
            assert_eq!(pool.push(&mut queues[0], waiting(i)).is_ok(), i < limit);
        }
    }
}

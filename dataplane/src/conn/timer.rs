//! When connections end: a timer wheel whose lists run through the connections' own links.
//!
//! A packet only writes its connection's timestamp. The wheel looks at a connection when its slot
//! comes round, and puts it further on if packets came meanwhile. Half-open connections stand in
//! queues of their own, one for each timeout, oldest first: they are the first to go when the table
//! is full.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::state::HALF_OPEN as HALF_OPEN_STATES;
use crate::mem::Array;
use crate::time::Instant;

/// One slot is 256 ms; the wheel reaches 17 minutes. What ends later is looked at in between.
const SLOT_SHIFT: u32 = 8;
const SLOTS: u32 = 4096;
/// In no list.
const UNLISTED: u32 = SLOTS;
/// In a half-open queue; the bits below say in which, and since when, in units of a slot.
const HALF_OPEN: u32 = 1 << 31;
const QUEUES: usize = HALF_OPEN_STATES.len();
/// Where the queue's number begins.
const QUEUE_SHIFT: u32 = u32::BITS - SLOT_SHIFT;
/// Times in units of a slot wrap here.
const TIME_MASK: u32 = u32::MAX >> SLOT_SHIFT;
const NONE: u32 = u32::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy)]
#[repr(C)]
struct Links {
    prev: u32,
    next: u32,
    list: u32,
}

#[derive(Debug)]
pub(super) struct Timers {
    links: Array<Links>,
    heads: Vec<u32>,
    /// Oldest and newest half-open, by queue.
    half_open: [[u32; 2]; QUEUES],
    /// The slot to look at next, counted since the start without wrapping at [`SLOTS`].
    cursor: u32,
}

impl Timers {
    pub(super) fn new(entries: usize) -> io::Result<Self> {
        let mut links = Array::zeroed(entries)?;
        links.fill(Links {
            prev: NONE,
            next: NONE,
            list: UNLISTED,
        });
        Ok(Self {
            links,
            heads: vec![NONE; SLOTS as usize],
            half_open: [[NONE; 2]; QUEUES],
            cursor: 0,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.links.len() * size_of::<Links>() + self.heads.len() * 4
    }

    /// Looks at `entry` at `deadline` or as far ahead as the wheel reaches.
    pub(super) fn schedule(&mut self, now: Instant, entry: u32, deadline: Instant) {
        self.unlink(entry);
        let ahead = deadline.since(now).min((SLOTS - 2) << SLOT_SHIFT);
        let list = (now.plus_ms(ahead).0 >> SLOT_SHIFT) % SLOTS;
        let head = std::mem::replace(&mut self.heads[list as usize], entry);
        if head != NONE {
            self.links[head as usize].prev = entry;
        }
        self.links[entry as usize] = Links {
            prev: NONE,
            next: head,
            list,
        };
    }

    /// Appends `entry` to a queue of the half-open, one of [`HALF_OPEN_STATES`].
    pub(super) fn queue_half_open(&mut self, now: Instant, entry: u32, queue: usize) {
        self.unlink(entry);
        let ends = &mut self.half_open[queue];
        let newest = std::mem::replace(&mut ends[1], entry);
        match self.links.get_mut(newest as usize) {
            Some(links) => links.next = entry,
            None => ends[0] = entry,
        }
        self.links[entry as usize] = Links {
            prev: newest,
            next: NONE,
            list: queued_at(now, queue),
        };
    }

    /// Whether `entry` came into this queue at this time, to a slot.
    pub(super) fn is_queued_at(&self, now: Instant, entry: u32, queue: usize) -> bool {
        self.links[entry as usize].list == queued_at(now, queue)
    }

    /// Takes `entry` out of whatever list it is in.
    pub(super) fn unlink(&mut self, entry: u32) {
        let Links { prev, next, list } = self.links[entry as usize];
        if list == UNLISTED {
            return;
        }
        let is_half_open = list & HALF_OPEN != 0;
        let queue = ((list & !HALF_OPEN) >> QUEUE_SHIFT) as usize;
        match self.links.get_mut(prev as usize) {
            Some(links) => links.next = next,
            None if is_half_open => self.half_open[queue][0] = next,
            None => self.heads[list as usize] = next,
        }
        match self.links.get_mut(next as usize) {
            Some(links) => links.prev = prev,
            None if is_half_open => self.half_open[queue][1] = prev,
            None => {}
        }
        self.links[entry as usize].list = UNLISTED;
    }

    /// Whether the wheel looks at `entry` no later than `deadline`.
    pub(super) fn looks_by(&self, now: Instant, entry: u32, deadline: Instant) -> bool {
        let list = self.links[entry as usize].list;
        let present = now.0 >> SLOT_SHIFT;
        let ahead = list.wrapping_sub(present) % SLOTS;
        list < SLOTS && ahead <= (deadline.0 >> SLOT_SHIFT).wrapping_sub(present) & TIME_MASK
    }

    /// The half-open connection that has waited longest.
    pub(super) fn oldest_half_open(&self, now: Instant) -> Option<u32> {
        let oldest = (0..QUEUES).filter_map(|queue| self.waiting(now, queue));
        oldest.max_by_key(|(_, age)| *age).map(|(entry, _)| entry)
    }

    /// The first of a half-open queue, and for how many slots it has waited.
    fn waiting(&self, now: Instant, queue: usize) -> Option<(u32, u32)> {
        let oldest = self.half_open[queue][0];
        let since = self.links.get(oldest as usize)?.list;
        Some((
            oldest,
            (now.0 >> SLOT_SHIFT).wrapping_sub(since) & TIME_MASK,
        ))
    }

    /// An entry whose slot has passed, or that has been half-open for its queue's `half_open_ms`; it
    /// stays listed until rescheduled or unlinked.
    pub(super) fn passed(&mut self, now: Instant, half_open_ms: [u32; QUEUES]) -> Option<u32> {
        let present = now.0 >> SLOT_SHIFT;
        let mut behind = present.wrapping_sub(self.cursor) & TIME_MASK;
        // After a long pause every slot is due once; no need to walk the wheel twice.
        if behind > SLOTS {
            self.cursor = present.wrapping_sub(SLOTS) & TIME_MASK;
            behind = SLOTS;
        }
        for _ in 0..behind {
            let head = self.heads[(self.cursor % SLOTS) as usize];
            if head != NONE {
                return Some(head);
            }
            self.cursor = self.cursor.wrapping_add(1) & TIME_MASK;
        }
        (0..QUEUES).find_map(|queue| {
            let (oldest, age) = self.waiting(now, queue)?;
            (age > half_open_ms[queue].div_ceil(1 << SLOT_SHIFT)).then_some(oldest)
        })
    }
}

/// What stands in [`Links::list`] of an entry that came into a half-open queue at that time.
#[expect(clippy::cast_possible_truncation, reason = "there are few queues")]
const fn queued_at(now: Instant, queue: usize) -> u32 {
    HALF_OPEN | (queue as u32) << QUEUE_SHIFT | now.0 >> SLOT_SHIFT
}

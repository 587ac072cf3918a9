//! When connections end: a timer wheel whose lists run through the connections' own links.
//!
//! A packet only writes its connection's timestamp. The wheel looks at a connection when its slot
//! comes round, and puts it further on if packets came meanwhile. Half-open connections stand in a
//! queue of their own, oldest first: they are the first to go when the table is full.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::mem::Array;
use crate::time::Instant;

/// One slot is 256 ms; the wheel reaches 17 minutes. What ends later is looked at in between.
const SLOT_SHIFT: u32 = 8;
const SLOTS: u32 = 4096;
/// In no list.
const UNLISTED: u32 = SLOTS;
/// In the half-open queue; the other bits say since when, in units of a slot.
const HALF_OPEN: u32 = 1 << 31;
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
    /// Oldest and newest half-open.
    half_open: [u32; 2],
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
            half_open: [NONE; 2],
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

    /// Appends `entry` to the half-open.
    pub(super) fn queue_half_open(&mut self, now: Instant, entry: u32) {
        self.unlink(entry);
        let newest = std::mem::replace(&mut self.half_open[1], entry);
        match self.links.get_mut(newest as usize) {
            Some(links) => links.next = entry,
            None => self.half_open[0] = entry,
        }
        let list = HALF_OPEN | now.0 >> SLOT_SHIFT;
        self.links[entry as usize] = Links {
            prev: newest,
            next: NONE,
            list,
        };
    }

    /// Whether `entry` became half-open at this time, to a slot.
    pub(super) fn is_queued_at(&self, now: Instant, entry: u32) -> bool {
        self.links[entry as usize].list == HALF_OPEN | now.0 >> SLOT_SHIFT
    }

    /// Takes `entry` out of whatever list it is in.
    pub(super) fn unlink(&mut self, entry: u32) {
        let Links { prev, next, list } = self.links[entry as usize];
        if list == UNLISTED {
            return;
        }
        let half_open = list & HALF_OPEN != 0;
        match self.links.get_mut(prev as usize) {
            Some(links) => links.next = next,
            None if half_open => self.half_open[0] = next,
            None => self.heads[list as usize] = next,
        }
        match self.links.get_mut(next as usize) {
            Some(links) => links.prev = prev,
            None if half_open => self.half_open[1] = prev,
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
    pub(super) fn oldest_half_open(&self) -> Option<u32> {
        Some(self.half_open[0]).filter(|entry| *entry != NONE)
    }

    /// An entry whose slot has passed, or that has been half-open for `half_open_ms`; it stays
    /// listed until rescheduled or unlinked.
    pub(super) fn passed(&mut self, now: Instant, half_open_ms: u32) -> Option<u32> {
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
        let oldest = self.oldest_half_open()?;
        let age = present.wrapping_sub(self.links[oldest as usize].list) & TIME_MASK;
        (age > half_open_ms.div_ceil(1 << SLOT_SHIFT)).then_some(oldest)
    }
}

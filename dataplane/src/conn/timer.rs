//! When connections end: each has a byte that says when it is looked at next, and all bytes are swept
//! four times a second, in order.
//!
//! A packet only writes its connection's timestamp. Whoever looks at a connection whose time came finds
//! that it is over, or when to look again. So nothing is linked and nothing is searched when a time
//! changes, and what ends together is found together, side by side. Half-open connections stand in a
//! queue besides, oldest first: they are the first to go when the table is full.

use std::io;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cpu;
use crate::mem::Array;
use crate::time::Instant;

/// Times are in units of 256 ms, modulo 256.
const UNIT_SHIFT: u32 = 8;
/// The farthest that is looked ahead, in units: what ends later is looked at in between.
const REACH: u32 = 120;
/// The longest between two visits of a byte that it can be told past from future, in units.
const MEMORY: u32 = 127;
/// How long a sweep takes, unless there is too much to look at.
const ROUND_MS: u32 = 256;
/// Bytes that are compared at once, ...
const CHUNK: usize = 64;
/// ... and as often as this for what it costs to look at one connection.
const CHUNKS_PER_LOOK: u32 = 16;
/// In no queue.
const UNLISTED: u32 = u32::MAX - 1;
const NONE: u32 = u32::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy)]
#[repr(C)]
struct Links {
    prev: u32,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Timers {
    /// By entry; whole chunks.
    looks: Array<u8>,
    sweep: Sweep,
    /// Of the half-open.
    links: Array<Links>,
    oldest: u32,
    newest: u32,
}

/// How far the sweep has come.
#[derive(Debug, Default)]
struct Sweep {
    /// The chunk to be compared next.
    chunk: usize,
    /// Of the chunk before that: those still to be looked at, a bit each.
    found: u64,
    /// When this round was to begin, and when it did.
    due: Instant,
    began: Instant,
    /// When the one before did.
    before: Instant,
}

impl Timers {
    pub(super) fn new(entries: usize) -> io::Result<Self> {
        let mut links = Array::zeroed(entries)?;
        links.fill(Links {
            prev: NONE,
            next: UNLISTED,
        });
        Ok(Self {
            looks: Array::zeroed(entries.next_multiple_of(CHUNK))?,
            sweep: Sweep::default(),
            links,
            oldest: NONE,
            newest: NONE,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.looks.len() + self.links.len() * size_of::<Links>()
    }

    /// Looks at `entry` at `deadline`, or as far ahead as there is a time for.
    #[inline(always)]
    pub(super) fn schedule(&mut self, now: Instant, entry: u32, deadline: Instant) {
        let ahead = deadline.since(now).min(REACH << UNIT_SHIFT);
        // Not before it: the unit that begins then or later.
        let look = unit(now.plus_ms(ahead + (1 << UNIT_SHIFT) - 1));
        self.looks[entry as usize] = look;
    }

    /// The next entry whose time to be looked at has come, of so many that were ever used. What is not
    /// scheduled anew is found again in the next round. Counts `budget` down.
    pub(super) fn passed(
        &mut self,
        now: Instant,
        entries: u32,
        budget: &mut u32,
        mut prefetch: impl FnMut(u32),
    ) -> Option<u32> {
        while *budget > 0 {
            if self.sweep.found != 0 {
                *budget -= 1;
                let bit = self.sweep.found.trailing_zeros();
                self.sweep.found &= self.sweep.found - 1;
                let entry = number(self.sweep.chunk * CHUNK - CHUNK) + bit;
                if entry < entries {
                    return Some(entry);
                }
                continue;
            }
            let chunks = (entries as usize).div_ceil(CHUNK);
            let target = self.sweep.target(now, chunks)?;
            *budget -= 1;
            for _ in 0..CHUNKS_PER_LOOK {
                if self.sweep.chunk >= target {
                    break;
                }
                self.compare(now);
                if self.sweep.found != 0 {
                    break;
                }
            }
            let mut left = self.sweep.found;
            while left != 0 {
                let first = number(self.sweep.chunk * CHUNK - CHUNK);
                prefetch(first + left.trailing_zeros());
                left &= left - 1;
            }
        }
        None
    }

    /// Compares one chunk.
    #[inline(always)]
    fn compare(&mut self, now: Instant) {
        let start = self.sweep.chunk * CHUNK;
        self.sweep.chunk += 1;
        let Some(chunk) = self.looks[start..].first_chunk::<CHUNK>() else {
            return;
        };
        let is_late = now.since(self.sweep.before) > MEMORY << UNIT_SHIFT;
        self.sweep.found = if is_late {
            u64::MAX
        } else {
            cpu::reached_lanes(chunk, unit(now))
        };
    }

    /// Appends `entry` to the queue of the half-open, or moves it to its end.
    pub(super) fn queue_half_open(&mut self, entry: u32) {
        self.unqueue(entry);
        let newest = std::mem::replace(&mut self.newest, entry);
        match self.links.get_mut(newest as usize) {
            Some(links) => links.next = entry,
            None => self.oldest = entry,
        }
        self.links[entry as usize] = Links {
            prev: newest,
            next: NONE,
        };
    }

    /// Takes `entry` out of that queue, if it is there.
    pub(super) fn unqueue(&mut self, entry: u32) {
        let Links { prev, next } = self.links[entry as usize];
        if next == UNLISTED {
            return;
        }
        match self.links.get_mut(prev as usize) {
            Some(links) => links.next = next,
            None => self.oldest = next,
        }
        match self.links.get_mut(next as usize) {
            Some(links) => links.prev = prev,
            None => self.newest = prev,
        }
        self.links[entry as usize].next = UNLISTED;
    }

    /// The half-open connection that has waited longest.
    pub(super) fn oldest_half_open(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// The one that will be the oldest when that one has gone.
    pub(super) fn second_oldest_half_open(&self) -> Option<u32> {
        let next = self.links.get(self.oldest as usize)?.next;
        (next != NONE).then_some(next)
    }
}

impl Sweep {
    /// The chunk that the sweep should have reached by now; `None` when it has. Begins the next round
    /// in its time: of those that were missed, one.
    fn target(&mut self, now: Instant, chunks: usize) -> Option<usize> {
        for _ in 0..3 {
            let elapsed = now.since(self.due).min(ROUND_MS);
            let target = chunks * elapsed as usize / ROUND_MS as usize;
            if self.chunk < target {
                return Some(target);
            }
            if elapsed < ROUND_MS {
                return None;
            }
            let next = self.due.plus_ms(ROUND_MS);
            let missed = now.since(next) >= ROUND_MS;
            self.due = if missed { now.minus_ms(ROUND_MS) } else { next };
            (self.before, self.began) = (self.began, now);
            (self.chunk, self.found) = (0, 0);
        }
        None
    }
}

#[expect(clippy::cast_possible_truncation, reason = "modulo 256")]
#[inline(always)]
const fn unit(time: Instant) -> u8 {
    (time.0 >> UNIT_SHIFT) as u8
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "entries are less than 2^30"
)]
const fn number(entry: usize) -> u32 {
    entry as u32
}

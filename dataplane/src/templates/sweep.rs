//! When templates end: each worker looks through its share of the buckets, again and again.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::{HOLDS, SLOTS, Templates, number, slots, taken};
use crate::time::Instant;

/// How long a worker takes for its share, unless there is too much in it.
const ROUND_MS: u32 = 1_000;
/// The most buckets, and the most templates, looked at in one step.
const BUCKETS_MAX: u32 = 4096;
const TEMPLATES_MAX: u32 = 64;
/// A template whose time runs out while it controls connections gets so much more, as in LVS.
const POSTPONED_MS: u32 = 60_000;

/// One worker's place in its share of the table: every bucket whose number is `me` modulo `workers`.
#[derive(Debug)]
pub struct Sweep {
    me: u32,
    workers: u32,
    /// The bucket to look at next, in the share's own count.
    next: u32,
    last: Option<Instant>,
}

impl Sweep {
    pub fn new(me: usize, workers: usize) -> Self {
        Self {
            me: number(me),
            workers: number(workers).max(1),
            next: 0,
            last: None,
        }
    }

    /// Buckets to look at for the time that went by: the whole share at most.
    fn due(&mut self, share: u32, now: Instant) -> u32 {
        let elapsed = now.since(*self.last.get_or_insert(now)).min(ROUND_MS);
        let due = u64::from(share) * u64::from(elapsed) / u64::from(ROUND_MS);
        u32::try_from(due).unwrap_or(u32::MAX)
    }
}

impl Templates {
    /// Ends templates whose time ran out, and gives those more that control connections: a bounded
    /// amount per call, in time with the clock, all of a worker's share in about a second.
    pub fn sweep(&self, sweep: &mut Sweep, now: Instant) {
        let buckets = number(self.words.len());
        let share = buckets.saturating_sub(sweep.me).div_ceil(sweep.workers);
        let due = sweep.due(share, now);
        if due == 0 {
            return;
        }
        sweep.last = Some(now);
        let mut budget = TEMPLATES_MAX;
        for _ in 0..due.min(BUCKETS_MAX) {
            if budget == 0 {
                return;
            }
            let bucket = sweep.me + sweep.next * sweep.workers;
            let looked_at = self.sweep_bucket(bucket as usize, now);
            budget = budget.saturating_sub(looked_at);
            sweep.next = if sweep.next + 1 >= share {
                0
            } else {
                sweep.next + 1
            };
        }
    }

    /// How many templates there were.
    fn sweep_bucket(&self, bucket: usize, now: Instant) -> u32 {
        let taken = taken(self.words[bucket].load(Acquire));
        for slot in slots(taken) {
            let place = bucket * SLOTS + slot;
            let line = &self.lines[place];
            if !line.is_over(now) {
                continue;
            }
            if line.life.load(Relaxed) & HOLDS == 0 {
                self.dismiss(number(place));
            } else {
                line.postpone(now, POSTPONED_MS);
            }
        }
        taken.count_ones()
    }
}

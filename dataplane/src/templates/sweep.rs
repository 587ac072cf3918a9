//! When templates end: each worker looks through its share of the buckets, again and again.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::{HOLDS, SLOTS, Templates, number, slots, taken};
use crate::time::Instant;
use crate::update::ServerId;

/// How long a worker takes for its share, unless there is too much in it.
const ROUND_MS: u32 = 1_000;
/// The most buckets, and the most templates, looked at in one step.
const BUCKETS_MAX: u32 = 4096;
const TEMPLATES_MAX: u32 = 64;
/// A template whose time runs out while it controls connections gets so much more, as in LVS.
const POSTPONED_MS: u32 = 60_000;
/// Rounds in which templates of servers that are gone end: their connections may take one to end.
const PURGE_ROUNDS: u32 = 2;

/// One worker's place in its share of the table: every bucket whose number is `me` modulo `workers`.
#[derive(Debug)]
pub struct Sweep {
    me: u32,
    workers: u32,
    /// The bucket to look at next, in the share's own count.
    next: u32,
    last: Option<Instant>,
    /// Buckets still to be looked at for templates of servers that are gone.
    purges: u32,
}

impl Sweep {
    pub fn new(me: usize, workers: usize) -> Self {
        Self {
            me: number(me),
            workers: number(workers).max(1),
            next: 0,
            last: None,
            purges: 0,
        }
    }

    /// Of so many buckets, those that are looked at here.
    fn share(&self, buckets: u32) -> u32 {
        buckets.saturating_sub(self.me).div_ceil(self.workers)
    }

    /// Buckets to look at for the time that went by: the whole share at most.
    fn due(&mut self, share: u32, now: Instant) -> u32 {
        let elapsed = now.since(*self.last.get_or_insert(now)).min(ROUND_MS);
        let due = u64::from(share) * u64::from(elapsed) / u64::from(ROUND_MS);
        u32::try_from(due).unwrap_or(u32::MAX)
    }
}

impl Templates {
    /// Servers are gone, and the connections of their templates are ending: so do these.
    pub fn purge(&self, sweep: &mut Sweep) {
        sweep.purges = PURGE_ROUNDS * sweep.share(number(self.words.len()));
    }

    /// Ends templates whose time ran out, and gives those more that control connections: a bounded
    /// amount per call, in time with the clock, all of a worker's share in about a second. In rounds
    /// that [`Self::purge`] asked for also those of servers that are gone, if they control none.
    pub fn sweep(&self, sweep: &mut Sweep, now: Instant, is_gone: impl Fn(ServerId) -> bool) {
        let share = sweep.share(number(self.words.len()));
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
            let purges = sweep.purges > 0;
            sweep.purges = sweep.purges.saturating_sub(1);
            let ends = |id| purges && is_gone(id);
            let looked_at = self.sweep_bucket(bucket as usize, now, ends);
            budget = budget.saturating_sub(looked_at);
            sweep.next = if sweep.next + 1 >= share {
                0
            } else {
                sweep.next + 1
            };
        }
    }

    /// How many templates there were.
    fn sweep_bucket(&self, bucket: usize, now: Instant, ends: impl Fn(ServerId) -> bool) -> u32 {
        let taken = taken(self.words[bucket].load(Acquire));
        for slot in slots(taken) {
            let place = bucket * SLOTS + slot;
            let line = &self.lines[place];
            let (is_idle, is_over) = (line.life.load(Relaxed) & HOLDS == 0, line.is_over(now));
            if is_idle && (is_over || ends(line.tie().server)) {
                self.dismiss(number(place));
            } else if is_over {
                line.postpone(now, POSTPONED_MS);
            }
        }
        taken.count_ones()
    }
}

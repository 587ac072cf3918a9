//! What `lblc` and `lblcr` remember of destinations: bounded, and forgotten by LVS's rules.

use std::net::IpAddr;

use hashbrown::HashMap;

use crate::time::Instant;

/// More are swept out a part at a time; half as much again is never exceeded.
pub(super) const USUAL_MAX: usize = 16 * 1024;
pub(super) const MAX: usize = USUAL_MAX / 2 * 3;
/// LVS's timer.
pub(super) const TICK_MS: u32 = 60_000;
/// Ticks from one full sweep to the next.
const FULL_TICKS: u32 = 30;
/// What a full sweep drops was not asked for so long (`lblc_expiration`).
pub(super) const EXPIRY_MS: u32 = 86_400_000;
/// What a partial one drops was not.
pub(super) const PARTIAL_EXPIRY_MS: u32 = 360_000;

#[derive(Debug, Clone)]
struct Entry<T> {
    used: Instant,
    value: T,
}

/// By destination. Which entries a partial sweep takes first is not LVS's: its buckets are easy to
/// fill with one's own addresses.
#[derive(Debug)]
pub(super) struct Memory<T> {
    entries: HashMap<IpAddr, Entry<T>>,
    /// When LVS's timer would have run last.
    ticked: Option<Instant>,
    ticks: u32,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            ticked: None,
            ticks: 1,
        }
    }
}

impl<T> Memory<T> {
    /// Lets the time pass: to be called before each use.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut last = *self.ticked.get_or_insert(now);
        let rounds = now.since(last) / TICK_MS / FULL_TICKS;
        if rounds > 2 {
            // Long unused: one full sweep, with what there is, is like another.
            last = last.plus_ms((rounds - 2) * FULL_TICKS * TICK_MS);
        }
        while now.since(last) >= TICK_MS {
            last = last.plus_ms(TICK_MS);
            self.sweep(last);
        }
        self.ticked = Some(last);
    }

    fn sweep(&mut self, now: Instant) {
        if self.ticks.is_multiple_of(FULL_TICKS) {
            self.entries
                .retain(|_, entry| now.since(entry.used) < EXPIRY_MS);
            self.ticks = 1;
        } else if self.entries.len() <= USUAL_MAX {
            self.ticks += 1;
        } else {
            let mut goal = ((self.entries.len() - USUAL_MAX) * 4 / 3).min(USUAL_MAX / 2);
            self.entries.retain(|_, entry| {
                let goes = goal > 0 && now.since(entry.used) >= PARTIAL_EXPIRY_MS;
                goal -= usize::from(goes);
                !goes
            });
        }
    }

    /// What is remembered of a destination that is asked for now.
    pub(super) fn recall(&mut self, now: Instant, destination: IpAddr) -> Option<&mut T> {
        let entry = self.entries.get_mut(&destination)?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Remembers a destination, unless there are too many.
    pub(super) fn remember(&mut self, now: Instant, destination: IpAddr, value: T) {
        if self.entries.len() < MAX || self.entries.contains_key(&destination) {
            let entry = Entry { used: now, value };
            self.entries.insert(destination, entry);
        }
    }

    /// What is remembered of a destination, for whoever only looks.
    pub(super) fn look(&self, destination: IpAddr) -> Option<&T> {
        self.entries.get(&destination).map(|entry| &entry.value)
    }

    /// A memory of this destination alone: what a full sweep forgets is the same, and where there are
    /// no more than usual there is no other.
    pub(super) fn part(&self, destination: IpAddr) -> Self
    where
        T: Clone,
    {
        let entry = self.entries.get(&destination).cloned();
        Self {
            entries: entry
                .map(|entry| (destination, entry))
                .into_iter()
                .collect(),
            ticked: self.ticked,
            ticks: self.ticks,
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.values().map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(seconds: u32) -> Instant {
        Instant::from_ms(seconds * 1000)
    }

    fn address(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    fn filled(n: usize) -> Memory<usize> {
        let mut memory = Memory::default();
        memory.tick(at_s(0));
        for i in 0..n {
            memory.remember(at_s(0), address(i), i);
        }
        memory
    }

    #[test]
    fn a_day_unused_is_forgotten_by_a_full_sweep() {
        let mut memory = filled(2);
        memory.tick(at_s(3600));
        assert_eq!(memory.recall(at_s(3600), address(1)), Some(&mut 1));
        memory.tick(at_s(86_399));
        assert_eq!(memory.values().count(), 2);
        // Every 30th tick is a full sweep, and this is the 1440th.
        memory.tick(at_s(86_400));
        assert_eq!(memory.values().copied().collect::<Vec<_>>(), [1]);
        memory.tick(at_s(86_400 + 3599));
        assert_eq!(memory.values().count(), 1);
        memory.tick(at_s(86_400 + 3600));
        assert_eq!(memory.values().count(), 0);
    }

    #[test]
    fn too_many_are_not_remembered_and_go_in_parts() {
        let mut memory = filled(MAX + 10);
        assert_eq!(memory.values().count(), MAX);
        memory.remember(at_s(1), address(0), 77);
        assert_eq!(memory.recall(at_s(1), address(0)), Some(&mut 77));
        memory.tick(at_s(359));
        assert_eq!(memory.values().count(), MAX, "nothing is old enough");
        memory.tick(at_s(360));
        assert_eq!(memory.values().count(), USUAL_MAX);
        memory.tick(at_s(720));
        assert_eq!(memory.values().count(), USUAL_MAX, "no more than usual");
    }

    #[test]
    fn an_age_without_use_is_swept_at_once() {
        let mut memory = filled(100);
        memory.tick(at_s(30 * 86_400));
        assert_eq!(memory.values().count(), 0);
    }
}

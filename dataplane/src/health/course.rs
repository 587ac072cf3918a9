//! When a target is probed next, and what its probes make of it: no clock, no socket.

use control::{Fitness, Rhythm};

/// First probes are spread over an interval, but over no more than this.
const SPREAD_MS_MAX: u64 = 10_000;

/// A target's way through its probes.
#[derive(Debug)]
pub(super) struct Course {
    fitness: Fitness,
    /// Probes in a row that say otherwise.
    contrary: u32,
    /// Repetitions of a probe that failed.
    tries: u32,
    dice: u64,
}

/// What follows from a probe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    /// When the next one is sent.
    pub(super) due_ms: u64,
    pub(super) changed: bool,
}

impl Course {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            fitness: Fitness::Unknown,
            contrary: 0,
            tries: 0,
            dice: seed,
        }
    }

    pub(super) const fn fitness(&self) -> Fitness {
        self.fitness
    }

    /// When the first probe is sent.
    pub(super) fn first_ms(&mut self, now_ms: u64, rhythm: &Rhythm) -> u64 {
        let spread = u64::from(rhythm.interval_ms).min(SPREAD_MS_MAX);
        now_ms + self.roll(spread)
    }

    /// A probe that was sent at `sent_ms` has come to something, or could not be sent.
    pub(super) fn ended(
        &mut self,
        passed: Option<bool>,
        sent_ms: u64,
        now_ms: u64,
        rhythm: &Rhythm,
    ) -> Next {
        if passed == Some(false) && self.tries < rhythm.retries {
            self.tries += 1;
            return Next {
                due_ms: now_ms + u64::from(rhythm.retry_ms),
                changed: false,
            };
        }
        self.tries = 0;
        let changed = passed.is_some_and(|passed| self.count(passed, rhythm));
        Next {
            due_ms: (sent_ms + self.interval_ms(rhythm)).max(now_ms),
            changed,
        }
    }

    /// Whether the verdict is another now. The first probe gives one by itself.
    fn count(&mut self, passed: bool, rhythm: &Rhythm) -> bool {
        let (says, needed) = match passed {
            true => (Fitness::Up, rhythm.rise),
            false => (Fitness::Down, rhythm.fall),
        };
        if says == self.fitness {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let changed = self.fitness == Fitness::Unknown || self.contrary >= needed;
        if changed {
            self.fitness = says;
            self.contrary = 0;
        }
        changed
    }

    fn interval_ms(&mut self, rhythm: &Rhythm) -> u64 {
        let jitter = u64::from(rhythm.jitter);
        let percent = 100 - jitter + self.roll(2 * jitter + 1);
        u64::from(rhythm.interval_ms) * percent / 100
    }

    /// 0 to `sides` - 1: splitmix64's step.
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rhythm() -> Rhythm {
        Rhythm {
            interval_ms: 1000,
            timeout_ms: 500,
            rise: 2,
            fall: 3,
            retries: 0,
            retry_ms: 100,
            jitter: 0,
        }
    }

    /// Each outcome, and how the target is after it.
    fn walk(rhythm: &Rhythm, outcomes: &str) -> String {
        let mut course = Course::new(0);
        let step = |outcome: char| {
            let passed = match outcome {
                '+' => Some(true),
                '-' => Some(false),
                _ => None,
            };
            course.ended(passed, 0, 0, rhythm);
            match course.fitness() {
                Fitness::Unknown => '?',
                Fitness::Up => 'U',
                Fitness::Down => 'd',
            }
        };
        outcomes.chars().map(step).collect()
    }

    #[test]
    fn a_verdict_needs_its_run() {
        assert_eq!(walk(&rhythm(), "+--+---+-++"), "UUUUUUddddU");
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(walk(&rhythm(), ".-"), "?d");
        assert_eq!(walk(&rhythm(), ".+"), "?U");
    }

    #[test]
    fn what_could_not_be_sent_counts_neither_way() {
        assert_eq!(walk(&rhythm(), "+--..-"), "UUUUUd");
    }

    #[test]
    fn repetitions_come_before_a_failure_counts() {
        let rhythm = Rhythm {
            retries: 2,
            fall: 1,
            ..rhythm()
        };
        assert_eq!(walk(&rhythm, "+--+---"), "UUUUUUd");
        let mut course = Course::new(0);
        course.ended(Some(true), 0, 0, &rhythm);
        let next = course.ended(Some(false), 1000, 1200, &rhythm);
        assert_eq!((next.due_ms, next.changed), (1300, false));
    }

    prop_compose! {
        fn rhythms()(
            interval_ms in 50..100_000u32,
            (rise, fall) in (1..5u32, 1..5u32),
            jitter in 0..=50u32,
        ) -> Rhythm {
            Rhythm { interval_ms, rise, fall, jitter, ..rhythm() }
        }
    }

    proptest! {
        /// A verdict changes exactly when the last `rise` or `fall` outcomes since it was given all
        /// say otherwise, and the next probe comes an interval later, give or take the jitter.
        #[test]
        fn verdicts_are_those_of_a_naive_count(
            rhythm in rhythms(),
            seed: u64,
            outcomes in prop::collection::vec(any::<Option<bool>>(), 0..200),
        ) {
            let mut course = Course::new(seed);
            let first = course.first_ms(7, &rhythm);
            prop_assert!((7..7 + u64::from(rhythm.interval_ms).min(SPREAD_MS_MAX)).contains(&first));
            let (mut now, mut up, mut said) = (first, None, Vec::new());
            for passed in outcomes {
                let next = course.ended(passed, now, now + 3, &rhythm);
                let interval = u64::from(rhythm.interval_ms);
                let (least, most) = (
                    interval * u64::from(100 - rhythm.jitter) / 100,
                    interval * u64::from(100 + rhythm.jitter) / 100,
                );
                prop_assert!(next.due_ms >= (now + least).max(now + 3));
                prop_assert!(next.due_ms <= now + most.max(3));
                now = next.due_ms;
                said.extend(passed);
                let needed = if up == Some(true) { rhythm.fall } else { rhythm.rise } as usize;
                let run = said.iter().rev().take_while(|&&said| Some(said) != up).count();
                let turns = passed.is_some() && match up {
                    None => true,
                    Some(_) => run >= needed,
                };
                prop_assert_eq!(next.changed, turns);
                if turns {
                    up = passed;
                    said.clear();
                }
                let fitness = match up {
                    None => Fitness::Unknown,
                    Some(true) => Fitness::Up,
                    Some(false) => Fitness::Down,
                };
                prop_assert_eq!(course.fitness(), fitness);
            }
        }
    }
}

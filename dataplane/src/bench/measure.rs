//! Cycles into nanoseconds, windows of them, and how fast the machine is just now.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant as WallTime};

use serde::Serialize;

use crate::cpu;
use crate::mem::Array;
use crate::time::Instant;

/// Longer than the director ever takes for a burst: the core was taken away meanwhile.
const PREEMPTED_NS: f64 = 300_000.0;

/// Wall time, for calibration and the length of windows.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn wall() -> WallTime {
    WallTime::now()
}

/// The cycle counter as a clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: u64,
    cycles_per_ms: u64,
}

impl Clock {
    /// Compares the cycle counter with the system's clock for 100 ms.
    pub(super) fn calibrated() -> Self {
        let (start, began) = (cpu::cycles(), wall());
        while began.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let (cycles, elapsed) = (cpu::cycles() - start, began.elapsed());
        let cycles_per_ms = u128::from(cycles) * 1_000_000 / elapsed.as_nanos();
        Self {
            start,
            cycles_per_ms: u64::try_from(cycles_per_ms).unwrap_or(u64::MAX).max(1),
        }
    }

    /// For who does not ask what time it is.
    pub(super) fn still() -> Self {
        Self {
            start: 0,
            cycles_per_ms: 1 << 48,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "an `Instant` wraps")]
    #[inline(always)]
    pub(super) fn instant(self, cycles: u64) -> Instant {
        Instant::from_ms(((cycles - self.start) / self.cycles_per_ms) as u32)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn ns(self, cycles: u64) -> f64 {
        cycles as f64 * 1e6 / self.cycles_per_ms as f64
    }

    /// The cycle count `ms` from now.
    pub(super) fn deadline(self, ms: u32) -> u64 {
        cpu::cycles() + u64::from(ms) * self.cycles_per_ms
    }

    /// As many cycles as so many nanoseconds have.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number of cycles"
    )]
    pub(super) fn cycles(self, ns: f64) -> u64 {
        (ns / self.ns(1)) as u64
    }

    /// Cycle counts per second, in GHz.
    pub(super) fn ghz(self) -> f64 {
        1e3 / self.ns(1000)
    }
}

/// The director's cycles over some time.
#[derive(Debug, Clone)]
pub(super) struct Meter {
    clock: Clock,
    preempted: u64,
    pub(super) packets: u64,
    cycles: u64,
    /// Passes too long to be the director's work, left out of all else.
    pub(super) stalls: u32,
    /// How long each pass took.
    pub(super) passes: Times,
}

impl Meter {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            preempted: clock.cycles(PREEMPTED_NS),
            packets: 0,
            cycles: 0,
            stalls: 0,
            passes: Times::default(),
        }
    }

    /// `false` if these cycles were not the director's alone.
    #[inline(always)]
    pub(super) fn add(&mut self, packets: usize, cycles: u64) -> bool {
        let is_ours = cycles <= self.preempted;
        if is_ours {
            self.packets += packets as u64;
            self.cycles += cycles;
            self.passes.add(cycles, 1);
        } else {
            self.stalls += 1;
        }
        is_ours
    }

    pub(super) fn ns(&self) -> f64 {
        self.clock.ns(self.cycles)
    }

    /// Nanoseconds for each of so many packets or connections.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn per(&self, count: u64) -> f64 {
        self.ns() / count.max(1) as f64
    }

    /// Nanoseconds that all but this share of the passes took at most.
    pub(super) fn pass_ns(&self, but: f64) -> f64 {
        self.clock.ns(self.passes.all_but(but))
    }
}

/// How often something took how many cycles, to 1.6 %.
#[derive(Debug, Clone)]
pub(super) struct Times(Vec<u64>);

/// Buckets for each doubling.
const FINE_SHIFT: u32 = 6;
const FINE: usize = 1 << FINE_SHIFT;

impl Default for Times {
    fn default() -> Self {
        Self(vec![0; FINE * (u64::BITS - FINE_SHIFT + 1) as usize])
    }
}

impl Times {
    #[expect(clippy::cast_possible_truncation, reason = "less than twice `FINE`")]
    #[inline(always)]
    pub(super) fn add(&mut self, cycles: u64, times: u64) {
        let shift = (cycles | FINE as u64).ilog2() - FINE_SHIFT;
        let bucket = FINE * shift as usize + (cycles >> shift) as usize;
        self.0[bucket] += times;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(&other.0) {
            *count += more;
        }
    }

    /// What all but this share of them do not exceed.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number far below 2^53"
    )]
    pub(super) fn all_but(&self, share: f64) -> u64 {
        let all: u64 = self.0.iter().sum();
        let mut longer = (all as f64 * share) as u64;
        for (bucket, count) in self.0.iter().enumerate().rev() {
            if *count > longer {
                return last_of(bucket);
            }
            longer -= count;
        }
        0
    }
}

/// The most cycles of a bucket.
fn last_of(bucket: usize) -> u64 {
    let shift = (bucket / FINE).saturating_sub(1);
    ((bucket - FINE * shift + 1) as u64).wrapping_shl(u32::try_from(shift).unwrap_or(0)) - 1
}

/// The best and the middle of some numbers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub best: f64,
    pub median: f64,
}

impl Spread {
    /// Of numbers of which the smallest is the best.
    pub(super) fn least(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            best: values.first().copied().unwrap_or(f64::NAN),
            median: values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
        }
    }

    /// Of numbers of which the largest is the best.
    pub(super) fn most(values: impl IntoIterator<Item = f64>) -> Self {
        Self::least(values.into_iter().map(|value| -value)).map(|value| -value)
    }

    pub(super) fn map(self, of: impl Fn(f64) -> f64) -> Self {
        Self {
            best: of(self.best),
            median: of(self.median),
        }
    }
}

const LINE: usize = 64;
const DRAM_BYTES: usize = 256 << 20;
const L2_BYTES: usize = 256 << 10;
const STEPS: u32 = 100_000;

/// One cache line that says where to read next.
#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, Debug)]
#[repr(C, align(64))]
struct Link {
    next: usize,
    _rest: [u64; 7],
}

/// Work of known size, to tell a slow moment of the machine from slow code.
#[derive(Debug)]
pub(super) struct Yardstick {
    clock: Clock,
    dram: Array<Link>,
    l2: Array<Link>,
    samples: [Vec<f64>; 3],
}

/// Nanoseconds of one step of each yardstick.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calibration {
    /// A read that waits for the one before, from 256 MiB.
    pub dram_read: Spread,
    /// The same from 256 KiB.
    pub l2_read: Spread,
    /// A multiplication and an addition that wait for those before.
    pub multiply_add: Spread,
}

impl Yardstick {
    pub(super) fn new(clock: Clock) -> io::Result<Self> {
        Ok(Self {
            clock,
            dram: circle(DRAM_BYTES)?,
            l2: circle(L2_BYTES)?,
            samples: Default::default(),
        })
    }

    /// Measures once; about 60 ms.
    pub(super) fn sample(&mut self) {
        for _ in 0..3 {
            let chased = [&self.dram, &self.l2].map(|links| {
                let mut at = 0;
                self.per_step(|| at = links[at].next)
            });
            let mut x = black_box(1u64);
            let computed = self.per_step(|| x = black_box(x).wrapping_mul(3).wrapping_add(1));
            for (samples, ns) in self
                .samples
                .iter_mut()
                .zip([chased[0], chased[1], computed])
            {
                samples.push(ns);
            }
        }
    }

    fn per_step(&self, mut step: impl FnMut()) -> f64 {
        let begin = cpu::cycles();
        for _ in 0..STEPS {
            step();
        }
        self.clock.ns(cpu::cycles() - begin) / f64::from(STEPS)
    }

    /// Nanoseconds of the best of the dependent reads of DRAM so far.
    pub(super) fn dram_read(&self) -> f64 {
        self.samples[0]
            .iter()
            .copied()
            .fold(f64::INFINITY, f64::min)
    }

    pub(super) fn calibration(self) -> Calibration {
        let [dram_read, l2_read, multiply_add] = self.samples.map(Spread::least);
        Calibration {
            dram_read,
            l2_read,
            multiply_add,
        }
    }
}

/// Lines linked into one circle in random order (Sattolo's shuffle).
fn circle(bytes: usize) -> io::Result<Array<Link>> {
    let mut links = Array::<Link>::zeroed(bytes / LINE)?;
    for (i, link) in links.iter_mut().enumerate() {
        link.next = i;
    }
    let mut random = 1u64;
    for i in (1..links.len()).rev() {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        #[expect(clippy::cast_possible_truncation, reason = "less than `i`")]
        let other = ((u128::from(random) * i as u128) >> 64) as usize;
        let next = links[i].next;
        links[i].next = std::mem::replace(&mut links[other].next, next);
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circle_visits_every_line() {
        let links = circle(64 * 1000).unwrap();
        let mut at = 0;
        let steps = std::iter::from_fn(|| {
            at = links[at].next;
            Some(at)
        });
        assert_eq!(steps.take_while(|at| *at != 0).count(), 999);
    }

    #[test]
    fn times_are_kept_to_a_sixty_fourth() {
        for cycles in [0, 1, 63, 64, 65, 127, 128, 129, 1000, 12_345, 1 << 40] {
            let mut times = Times::default();
            times.add(cycles, 10);
            let found = times.all_but(0.0);
            assert!(
                cycles <= found && found <= cycles + cycles / 64,
                "{cycles}: {found}"
            );
        }
        let mut times = Times::default();
        times.add(10, 989);
        times.add(20, 10);
        times.add(30, 1);
        let found = [0.5, 0.01, 0.001, 0.0].map(|share| times.all_but(share));
        assert_eq!(found, [10, 20, 20, 30]);
    }

    #[test]
    fn best_and_median() {
        let [least, most] = [
            Spread::least([5.0, 1.0, 3.0]),
            Spread::most([5.0, 1.0, 3.0]),
        ];
        assert_eq!((least.best, least.median), (1.0, 3.0));
        assert_eq!((most.best, most.median), (5.0, 3.0));
    }
}

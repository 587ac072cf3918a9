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
fn wall() -> WallTime {
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

    /// Cycle counts per second, in GHz.
    pub(super) fn ghz(self) -> f64 {
        1e3 / self.ns(1000)
    }
}

/// The director's cycles over some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    clock: Clock,
    preempted: u64,
    pub(super) packets: u64,
    cycles: u64,
    /// Bursts too long to be the director's work, left out of the other two.
    pub(super) stalls: u32,
}

impl Meter {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number of cycles"
    )]
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            preempted: (PREEMPTED_NS / clock.ns(1)) as u64,
            packets: 0,
            cycles: 0,
            stalls: 0,
        }
    }

    #[inline(always)]
    pub(super) fn add(&mut self, packets: usize, cycles: u64) {
        if cycles > self.preempted {
            self.stalls += 1;
        } else {
            self.packets += packets as u64;
            self.cycles += cycles;
        }
    }

    pub(super) fn ns(&self) -> f64 {
        self.clock.ns(self.cycles)
    }

    /// Nanoseconds for each of so many packets or connections.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn per(&self, count: u64) -> f64 {
        self.ns() / count.max(1) as f64
    }
}

/// The smallest and the middle of some numbers of nanoseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub best_ns: f64,
    pub median_ns: f64,
}

impl Spread {
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self {
            best_ns: values.first().copied().unwrap_or(f64::NAN),
            median_ns: values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
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

    pub(super) fn calibration(self) -> Calibration {
        let [dram_read, l2_read, multiply_add] = self.samples.map(Spread::of);
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
    fn best_and_median() {
        let spread = Spread::of(vec![5.0, 1.0, 3.0]);
        assert_eq!((spread.best_ns, spread.median_ns), (1.0, 3.0));
    }
}

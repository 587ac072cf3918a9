//! Packets that come when it is time, whether the director is ready for them or not.
//!
//! Time here is the director's alone: it stands still while packets are made and checked, and while
//! something else has the core. Packets arrive at random (exponential gaps) and wait, if they must,
//! in a ring as long as a port's; what finds it full is lost, as a NIC would lose it.

use std::collections::VecDeque;

use anyhow::Result;

use super::generator::Generator;
use super::measure::{Clock, Meter, Times};
use crate::packet::BURST;

/// Descriptors of a port's receive ring.
const RING: usize = 1024;

/// What became of the packets that were offered.
#[derive(Debug, Clone)]
pub(super) struct Offered {
    clock: Clock,
    cycles: u64,
    taken: u64,
    missed: u64,
    /// Cycles from a packet's arrival until it left.
    residence: Times,
}

impl Offered {
    /// Packets in a second that were taken in hand.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn goodput(&self) -> f64 {
        self.taken as f64 * 1e9 / self.clock.ns(self.cycles)
    }

    /// The share that found the ring full.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn missed(&self) -> f64 {
        self.missed as f64 / (self.missed + self.taken) as f64
    }

    /// Microseconds that a packet stayed at most, but for this share of them.
    pub(super) fn residence_us(&self, but: f64) -> f64 {
        self.clock.ns(self.residence.all_but(but)) / 1e3
    }
}

/// Lets packets arrive for so many of the director's milliseconds, one in `gap_ns` on average.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "positive and far below 2^53"
)]
pub(super) fn offer(
    generator: &mut Generator,
    clock: Clock,
    gap_ns: f64,
    ms: u32,
) -> Result<Offered> {
    let mut meter = Meter::new(clock);
    let mut offered = Offered {
        clock,
        cycles: clock.cycles(f64::from(ms) * 1e6),
        taken: 0,
        missed: 0,
        residence: Times::default(),
    };
    let gap = gap_ns / clock.ns(1);
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut ring = VecDeque::with_capacity(RING);
    let (mut now, mut next) = (0, 0.0);
    while now < offered.cycles {
        while next <= now as f64 {
            if ring.len() < RING {
                ring.push_back(next as u64);
            } else {
                offered.missed += 1;
            }
            next -= gap * random.unit().ln();
        }
        if ring.is_empty() {
            now = next.ceil() as u64;
            continue;
        }
        let (taken, cycles) = generator.arrive(ring.len().min(2 * BURST), &mut meter)?;
        offered.taken += taken as u64;
        now += cycles.unwrap_or(0);
        for arrived in ring.drain(..taken) {
            offered.residence.add(now - arrived, 1);
        }
    }
    Ok(offered)
}

struct Random(u64);

impl Random {
    /// Above 0, at most 1 (xorshift64).
    #[expect(clippy::cast_precision_loss, reason = "it is random anyway")]
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

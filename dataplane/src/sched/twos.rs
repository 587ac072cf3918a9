//! `twos`: the less loaded of two drawn by weight (`ip_vs_twos.c`; "the power of two choices").

use super::{Ask, Scheduler};

/// A linear congruential generator (Knuth's MMIX): its upper half is random enough to draw servers.
#[derive(Debug)]
pub(super) struct Twos(u64);

impl Twos {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to `n` exclusive.
    fn below(&mut self, n: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        let scaled = (u128::from(self.0 >> 32) * u128::from(n)) >> 32;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

impl Scheduler for Twos {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let sum: u64 = ask
            .usable()
            .map(|(_, server)| u64::from(server.weight))
            .sum();
        if sum == 0 {
            return None;
        }
        // The sum itself can be drawn too, so that the first server has a little more than its share.
        let [a, b] = [self.below(sum + 1), self.below(sum + 1)];
        let (a, b) = (drawn(ask, a)?, drawn(ask, b)?);
        let [one, other] = [&ask.servers[a], &ask.servers[b]];
        let load = |server| u128::from(ask.load(server).overhead());
        let is_better = u128::from(other.weight) * load(one) > u128::from(one.weight) * load(other);
        Some(if is_better { b } else { a })
    }
}

/// The server at `at` when each takes as much room as its weight says.
fn drawn(ask: &Ask<'_>, mut at: u64) -> Option<usize> {
    let mut servers = ask.usable();
    let found = servers.find(|(_, server)| {
        let weight = u64::from(server.weight);
        let here = at <= weight;
        at = at.saturating_sub(weight);
        here
    });
    found.map(|(index, _)| index)
}

//! `twos`: the less loaded of two drawn by weight (`ip_vs_twos.c`; "the power of two choices").

use std::net::IpAddr;

use super::{Ask, Scheduler, wlc};

/// A linear congruential generator (Knuth's MMIX): its upper half is random enough to draw servers.
#[derive(Debug, Clone)]
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

    /// Two servers, which may be the same.
    fn draw(&mut self, ask: &Ask<'_>) -> Option<[usize; 2]> {
        let sum: u64 = ask
            .usable()
            .map(|(_, server)| u64::from(server.weight))
            .sum();
        if sum == 0 {
            return None;
        }
        // The sum itself can be drawn too, so that the first server has a little more than its share.
        let [a, b] = [self.below(sum + 1), self.below(sum + 1)];
        Some([drawn(ask, a)?, drawn(ask, b)?])
    }
}

impl Scheduler for Twos {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let [a, b] = self.draw(ask)?;
        let [one, other] = [&ask.servers[a], &ask.servers[b]];
        let load = |server| u128::from(ask.load(server).overhead());
        let is_better = u128::from(other.weight) * load(one) > u128::from(one.weight) * load(other);
        Some(if is_better { b } else { a })
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let Some([a, b]) = self.clone().draw(ask) else {
            return Vec::new();
        };
        let mut figures = wlc::overheads(ask);
        for (at, figure) in figures.iter_mut().enumerate() {
            if at == a || at == b {
                *figure += " drawn";
            }
        }
        figures
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the least (256*active+active+inactive)/weight of two drawn by weight".to_owned()
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

//! Which of many servers costs the least for its weight: a tournament, of which only one server's
//! matches are played anew when its connections are counted.

use std::net::IpAddr;

use super::{Ask, Candidate, Load, Loads, Scheduler, lighter};

/// Of servers without thresholds, where no other worker counts besides.
#[derive(Debug, Clone)]
pub(super) struct Ranks {
    cost: fn(Load) -> u64,
    /// Or every server with a weight counts as much as any other.
    weighted: bool,
    /// What the winners were found with; not, after servers or weights changed.
    is_current: bool,
    /// Cost and weight, by position; without a weight none takes part.
    entrants: Vec<(u64, u32)>,
    /// By match: the final first, then its two semi-finals; the last half are the servers.
    winners: Vec<u32>,
}

/// How a scheduler ranks servers.
#[derive(Debug)]
pub(super) struct By {
    pub(super) cost: fn(Load) -> u64,
    pub(super) weighted: bool,
    /// The same by a walk, where there are no ranks.
    pub(super) walk: fn(&Ask<'_>) -> Option<usize>,
    pub(super) figures: fn(&Ask<'_>) -> Vec<String>,
    pub(super) rule: &'static str,
}

/// A scheduler that picks who costs the least.
#[derive(Debug)]
pub(super) struct Ranked {
    by: &'static By,
    ranks: Ranks,
}

impl Ranked {
    pub(super) fn new(by: &'static By) -> Self {
        let ranks = Ranks::new(by.cost, by.weighted);
        Self { by, ranks }
    }
}

impl Scheduler for Ranked {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        self.ranks
            .best(ask)
            .unwrap_or_else(|()| (self.by.walk)(ask))
    }

    fn added(&mut self, _servers: &[Candidate]) {
        self.ranks.forget();
    }

    fn removed(&mut self, _servers: &[Candidate], _index: usize, _gone: &Candidate) {
        self.ranks.forget();
    }

    fn reweighted(&mut self, _servers: &[Candidate]) {
        self.ranks.forget();
    }

    fn counted(&mut self, servers: &[Candidate], loads: &Loads, at: usize) {
        self.ranks.counted(servers, loads, at);
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(Self::new(self.by))
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        (self.by.figures)(ask)
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        self.by.rule.to_owned()
    }
}

impl Ranks {
    pub(super) fn new(cost: fn(Load) -> u64, weighted: bool) -> Self {
        Self {
            cost,
            weighted,
            is_current: false,
            entrants: Vec::new(),
            winners: Vec::new(),
        }
    }

    /// Servers or weights changed.
    pub(super) fn forget(&mut self) {
        self.is_current = false;
    }

    /// The connections of the server at this position are others than before.
    pub(super) fn counted(&mut self, servers: &[Candidate], loads: &Loads, at: usize) {
        if !self.is_current || at >= self.entrants.len() {
            return;
        }
        self.entrants[at] = self.entrant(&servers[at], loads);
        let mut node = (self.winners.len() / 2 + at) / 2;
        while node > 0 {
            let before = self.winners[node] as usize;
            self.play(node);
            // Who lost this match as before changes nothing beyond it.
            if before != at && self.winners[node] as usize != at {
                break;
            }
            node /= 2;
        }
    }

    /// The one that costs the least, the newest of equals; `Err` where that is to be found by a walk.
    pub(super) fn best(&mut self, ask: &Ask<'_>) -> Result<Option<usize>, ()> {
        if !ask.loads.is_one() {
            return Err(());
        }
        if !self.is_current {
            self.rank(ask)?;
        }
        let winner = self.winners.get(1).map(|winner| *winner as usize);
        Ok(winner.filter(|at| {
            self.entrants
                .get(*at)
                .is_some_and(|(_, weight)| *weight > 0)
        }))
    }

    fn rank(&mut self, ask: &Ask<'_>) -> Result<(), ()> {
        if ask.servers.iter().any(|server| server.limit.is_set()) {
            return Err(());
        }
        let size = ask.servers.len().next_power_of_two();
        self.entrants.clear();
        for server in ask.servers {
            let entrant = self.entrant(server, ask.loads);
            self.entrants.push(entrant);
        }
        self.winners.clear();
        self.winners.resize(size, 0);
        self.winners.extend((0..).take(size));
        for node in (1..size).rev() {
            self.play(node);
        }
        self.is_current = true;
        Ok(())
    }

    fn entrant(&self, server: &Candidate, loads: &Loads) -> (u64, u32) {
        let weight = if self.weighted {
            server.weight
        } else {
            server.weight.min(1)
        };
        ((self.cost)(loads.of(server.id)), weight)
    }

    /// Plays one match. The second of the two is the newer.
    #[inline(always)]
    fn play(&mut self, node: usize) {
        let pair = [self.winners[2 * node], self.winners[2 * node + 1]];
        let [(a, weight_a), (b, weight_b)] = pair.map(|at| {
            let entrant = self.entrants.get(at as usize);
            entrant.copied().unwrap_or((0, 0))
        });
        let older_wins =
            weight_a > 0 && (weight_b == 0 || lighter((0, a, weight_a), (0, b, weight_b)));
        self.winners[node] = pair[usize::from(!older_wins)];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use control::SchedulerFlags;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::counters::Page;
    use crate::sched::{Limit, lightest};
    use crate::time::Instant;
    use crate::update::ServerId;
    use crate::wire::flow::{TCP, Tuple};

    proptest! {
        #[test]
        fn the_winner_is_who_a_walk_finds(
            weights in vec(0u32..4, 0..40),
            steps in vec((any::<prop::sample::Index>(), 0u32..3, 0u32..4, 0u32..20), 1..60),
        ) {
            let page = Arc::new(Page::new(1, 40));
            let loads = Loads::new([page.clone()].into());
            let mut servers: Vec<_> = (0..).zip(weights).map(|(n, weight)| Candidate {
                id: ServerId(n),
                address: "10.0.0.1:80".parse().unwrap(),
                weight,
                last_weight: weight,
                limit: Limit::default(),
            }).collect();
            let tuple = Tuple {
                protocol: TCP,
                from: "192.0.2.1:1".parse().unwrap(),
                to: "203.0.113.1:80".parse().unwrap(),
            };
            let mut ranks = [true, false].map(|weighted| Ranks::new(Load::overhead, weighted));
            for (place, active, inactive, change) in steps {
                if !servers.is_empty() {
                    let at = place.index(servers.len());
                    let counts = &page.servers[servers[at].id.index()];
                    counts.active.set(active);
                    counts.inactive.set(inactive);
                    for ranks in &mut ranks {
                        ranks.counted(&servers, &loads, at);
                    }
                    match change {
                        0 => drop(servers.remove(at)),
                        1 => servers[at].weight = active,
                        _ => {}
                    }
                    if change < 2 {
                        ranks.iter_mut().for_each(Ranks::forget);
                    }
                }
                let ask = Ask {
                    now: Instant(0),
                    tuple: &tuple,
                    destination: tuple.to.ip(),
                    servers: &servers,
                    loads: &loads,
                    flags: SchedulerFlags::default(),
                    connection_id: None,
                };
                let cost = |server: &Candidate| loads.of(server.id).overhead();
                let least = ask.usable().min_by_key(|(_, server)| cost(server)).map(|(at, _)| at);
                prop_assert_eq!(ranks[0].best(&ask), Ok(lightest(ask.usable(), cost)));
                prop_assert_eq!(ranks[1].best(&ask), Ok(least));
            }
        }
    }
}

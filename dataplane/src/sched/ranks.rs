//! Which of many servers costs the least for its weight: each has a key, each group of keys knows its
//! least one, and each group of groups. When a server's connections are counted, only the groups that
//! it is in are looked through.

use std::net::IpAddr;

use super::{Ask, Candidate, Load, Loads, Scheduler, gcd};

/// Keys that are compared at once: two cache lines.
const GROUP: usize = 16;
/// The key of who takes no part.
const NOBODY: u64 = u64::MAX;

/// Of servers without thresholds, where no other worker counts besides.
#[derive(Debug, Clone)]
pub(super) struct Ranks {
    cost: fn(Load) -> u64,
    /// Or every server with a weight counts as much as any other.
    weighted: bool,
    /// What the groups were made with; not, after servers or weights changed.
    is_current: bool,
    /// By position, without a common divisor; without a weight none takes part.
    weights: Vec<u64>,
    scale: Scale,
    /// Group `n` has the least keys of groups `16 n + 1` to `16 n + 16`; those from `leaves` on have
    /// the servers' own.
    groups: Vec<[u64; GROUP]>,
    leaves: usize,
}

/// How keys are made: what a server costs for its weight, and below that its position, from the newest
/// on. So no two are alike, and the least one says whose it is.
#[derive(Debug, Clone, Copy, Default)]
struct Scale {
    /// Two costs for weights of `w` at most are the same or differ by `1 / w²` or more: so many bits of
    /// their fractions tell them apart.
    fraction: u32,
    position: u32,
    /// Costs have keys that are less than this.
    cost_end: u64,
}

impl Scale {
    /// For weights up to `greatest` of so many servers.
    fn new(greatest: u64, servers: usize) -> Self {
        let bits = |number: u64| {
            number
                .saturating_sub(1)
                .checked_ilog2()
                .map_or(0, |log| log + 1)
        };
        let (fraction, position) = (2 * bits(greatest), bits(servers as u64));
        Self {
            fraction,
            position,
            cost_end: u64::MAX.checked_shr(fraction + position).unwrap_or(0),
        }
    }

    /// `None` for a cost that is too high.
    #[inline(always)]
    fn key(self, at: usize, cost: u64, weight: u64) -> Option<u64> {
        if weight == 0 {
            return Some(NOBODY);
        }
        if cost >= self.cost_end {
            return None;
        }
        let ratio = (cost << self.fraction) / weight;
        let newness = !(at as u64) & self.positions();
        Some(ratio << self.position | newness)
    }

    #[expect(clippy::cast_possible_truncation, reason = "a position was a `usize`")]
    fn at(self, key: u64) -> usize {
        (!key & self.positions()) as usize
    }

    fn positions(self) -> u64 {
        (1 << self.position) - 1
    }
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
            weights: Vec::new(),
            scale: Scale::default(),
            groups: Vec::new(),
            leaves: 0,
        }
    }

    /// Servers or weights changed.
    pub(super) fn forget(&mut self) {
        self.is_current = false;
    }

    /// The connections of the server at this position are others than before.
    pub(super) fn counted(&mut self, servers: &[Candidate], loads: &Loads, at: usize) {
        if !self.is_current {
            return;
        }
        let Some(mut key) = self.key(servers, loads, at) else {
            return self.forget();
        };
        let (mut group, mut place) = (self.leaves + at / GROUP, at % GROUP);
        // To the end, changed or not: nobody could foretell which.
        while group > 0 {
            self.groups[group][place] = key;
            key = least(&self.groups[group]);
            (group, place) = above(group);
        }
        self.groups[0][place] = key;
    }

    /// The one that costs the least, the newest of equals; `Err` where that is to be found by a walk.
    pub(super) fn best(&mut self, ask: &Ask<'_>) -> Result<Option<usize>, ()> {
        if !ask.loads.is_one() {
            return Err(());
        }
        if !self.is_current {
            self.rank(ask.servers, ask.loads).ok_or(())?;
        }
        let best = least(&self.groups[0]);
        Ok((best != NOBODY).then(|| self.scale.at(best)))
    }

    /// Makes all groups; `None` if somebody can have no key.
    fn rank(&mut self, servers: &[Candidate], loads: &Loads) -> Option<()> {
        if servers.iter().any(|server| server.limit.is_set()) {
            return None;
        }
        self.weigh(servers);
        (self.leaves, self.groups) = (0, Vec::new());
        let mut width = 1;
        while width * GROUP < servers.len() {
            self.leaves += width;
            width *= GROUP;
        }
        let groups = self.leaves + servers.len().div_ceil(GROUP).max(1);
        self.groups.resize(groups, [NOBODY; GROUP]);
        for at in 0..servers.len() {
            let key = self.key(servers, loads, at)?;
            self.groups[self.leaves + at / GROUP][at % GROUP] = key;
        }
        for group in (1..groups).rev() {
            let (parent, place) = above(group);
            self.groups[parent][place] = least(&self.groups[group]);
        }
        self.is_current = true;
        Some(())
    }

    fn weigh(&mut self, servers: &[Candidate]) {
        let highest = if self.weighted { u32::MAX } else { 1 };
        let weights = servers.iter().map(|server| server.weight.min(highest));
        let divisor = weights.clone().map(i64::from).fold(0, gcd).unsigned_abs();
        let divisor = divisor.max(1);
        self.weights.clear();
        self.weights
            .extend(weights.map(|weight| u64::from(weight) / divisor));
        let greatest = self.weights.iter().copied().max();
        self.scale = Scale::new(greatest.unwrap_or(0), servers.len());
    }

    #[inline(always)]
    fn key(&self, servers: &[Candidate], loads: &Loads, at: usize) -> Option<u64> {
        let cost = (self.cost)(loads.of(servers[at].id));
        self.scale.key(at, cost, self.weights[at])
    }
}

/// The group that knows a group's least key, and where.
fn above(group: usize) -> (usize, usize) {
    ((group - 1) / GROUP, (group - 1) % GROUP)
}

/// In halves: no comparison waits for more than three others, and nobody could foretell a branch.
#[inline(always)]
fn least(keys: &[u64; GROUP]) -> u64 {
    let mut keys = *keys;
    for half in [8, 4, 2, 1] {
        for at in 0..half {
            keys[at] = keys[at].min(keys[at + half]);
        }
    }
    keys[0]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use control::{ForwardMode, SchedulerFlags};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::counters::Page;
    use crate::sched::{Limit, lightest};
    use crate::time::Instant;
    use crate::update::ServerId;
    use crate::wire::flow::{TCP, Tuple};

    /// A server, how many active and other connections it has now, and what becomes of its weight.
    type Step = (Index, u32, u32, u32);

    /// Takes the steps; returns how often there was no telling without a walk.
    fn compare(weights: Vec<u32>, steps: Vec<Step>) -> Result<usize, TestCaseError> {
        let page = Arc::new(Page::new(1, weights.len()).unwrap());
        let loads = Loads::new([page.clone()].into());
        let mut servers: Vec<_> = (0..)
            .zip(weights)
            .map(|(n, weight)| Candidate {
                id: ServerId(n),
                address: "10.0.0.1:80".parse().unwrap(),
                mode: ForwardMode::Nat,
                weight,
                last_weight: weight,
                limit: Limit::default(),
            })
            .collect();
        let tuple = Tuple {
            protocol: TCP,
            from: "192.0.2.1:1".parse().unwrap(),
            to: "203.0.113.1:80".parse().unwrap(),
        };
        let mut ranks = [true, false].map(|weighted| Ranks::new(Load::overhead, weighted));
        let mut walks = 0;
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
                instead: None,
                servers: &servers,
                loads: &loads,
                flags: SchedulerFlags::default(),
                connection_id: None,
            };
            let cost = |server: &Candidate| loads.of(server.id).overhead();
            let least = ask
                .usable()
                .min_by_key(|(_, server)| cost(server))
                .map(|(at, _)| at);
            match ranks[0].best(&ask) {
                Ok(best) => prop_assert_eq!(best, lightest(ask.usable(), cost)),
                Err(()) => walks += 1,
            }
            prop_assert_eq!(ranks[1].best(&ask), Ok(least));
        }
        Ok(walks)
    }

    fn steps(active: u32, inactive: u32) -> impl Strategy<Value = Vec<Step>> {
        vec((any::<Index>(), 0..active, 0..inactive, 0u32..20), 1..60)
    }

    proptest! {
        #[test]
        fn the_best_is_who_a_walk_finds(weights in vec(0u32..4, 0..600), steps in steps(3, 4)) {
            prop_assert_eq!(compare(weights, steps)?, 0);
        }

        #[test]
        fn weights_that_hardly_differ(weights in vec(990u32..1000, 0..40), steps in steps(1000, 100_000)) {
            prop_assert_eq!(compare(weights, steps)?, 0);
        }

        #[test]
        fn or_nobody_is_named(weights in vec(any::<u32>(), 0..40), steps in steps(100_000_000, u32::MAX)) {
            compare(weights, steps)?;
        }
    }
}

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use control::Thresholds;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::counters::Page;

const SERVERS_MAX: usize = 64;

/// One service of the reference's scenarios: a line a step, as [`World::step`] reads them. They have
/// no timers.
struct World {
    servers: Vec<Candidate>,
    page: Arc<Page>,
    loads: Loads,
    kind: Kind,
    ipv6: bool,
    /// Since the last table was built.
    changed: bool,
    scheduler: Box<dyn Scheduler>,
    now: Instant,
    flags: SchedulerFlags,
    names: Vec<String>,
}

impl World {
    fn new(kind: Kind, flags: u8, seed: u64) -> Self {
        let page = Arc::new(Page::new(1, SERVERS_MAX).unwrap());
        Self {
            servers: Vec::new(),
            loads: Loads::new([page.clone()].into()),
            page,
            kind,
            ipv6: false,
            changed: false,
            scheduler: kind.bind(&[], seed),
            now: Instant::from_ms(100_000_000),
            flags: SchedulerFlags {
                fallback: flags & 8 != 0,
                port: flags & 16 != 0,
                third: flags & 32 != 0,
            },
            names: Vec::new(),
        }
    }

    fn add(&mut self, name: &str, address: SocketAddr, weight: u32) {
        let id = ServerId(u32::try_from(self.names.len()).unwrap());
        self.names.push(name.to_owned());
        self.servers.push(Candidate {
            id,
            address,
            mode: ForwardMode::Nat,
            weight,
            last_weight: weight,
            limit: Limit::default(),
        });
        self.scheduler.added(&self.servers);
        self.changed = true;
    }

    fn weigh(&mut self, at: usize, weight: u32) {
        let server = &mut self.servers[at];
        server.weight = weight;
        if weight > 0 {
            server.last_weight = weight;
        }
        self.scheduler.reweighted(&self.servers);
        self.changed = true;
    }

    /// What the control side does after each batch.
    fn tabulate(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        if let Some(table) = Table::build(self.recipe()) {
            self.scheduler.tabled(&Arc::new(table));
        }
    }

    fn recipe(&self) -> Recipe {
        let member = |server: &Candidate| Member {
            id: server.id,
            address: server.address,
            // A ring for weights far apart takes long to build.
            weight: match self.kind {
                Kind::Conhash => server.last_weight.min(20),
                _ => server.last_weight,
            },
        };
        Recipe {
            kind: self.kind,
            ipv6: self.ipv6,
            mh_slots: control::MH_TABLE_SIZE,
            members: self.servers.iter().map(member).collect(),
        }
    }

    fn delete(&mut self, at: usize) {
        let gone = self.servers.remove(at);
        self.scheduler.removed(&self.servers, at, &gone);
        self.changed = true;
    }

    fn load(&mut self, at: usize, active: u32, inactive: u32) {
        let server = &self.page.servers[self.servers[at].id.index()];
        server.active.set(active);
        server.inactive.set(inactive);
        self.scheduler.counted(&self.servers, &self.loads, at);
    }

    fn overload(&mut self, at: usize, over: bool) {
        let mut limit = Limit::default();
        if over {
            limit.change(Thresholds { upper: 1, lower: 1 }, 1);
        }
        self.servers[at].limit = limit;
        // Thresholds are edited together with weights.
        if self.kind.ranks() {
            self.scheduler.reweighted(&self.servers);
        }
    }

    fn pick(&mut self, from: SocketAddr, to: SocketAddr) -> Option<usize> {
        self.tabulate();
        self.scheduler.pick(&Ask {
            now: self.now,
            tuple: &Tuple {
                protocol: 17,
                from,
                to,
            },
            instead: None,
            servers: &self.servers,
            loads: &self.loads,
            flags: self.flags,
            connection_id: None,
        })
    }

    fn find(&self, name: &str) -> usize {
        let of = |server: &Candidate| &self.names[server.id.index()];
        self.servers.iter().position(|s| of(s) == name).unwrap()
    }

    /// `pick CLIENT PORT DESTINATION COUNT [open]`, as the names of who was picked.
    fn picks(&mut self, words: &[&str]) -> String {
        let from = SocketAddr::new(words[1].parse().unwrap(), number(words[2]));
        let to = SocketAddr::new(words[3].parse().unwrap(), 80);
        let count = words.get(4).map_or(1, |count| number(count));
        let names: Vec<String> = (0..count)
            .map(|_| match self.pick(from, to) {
                Some(at) => {
                    let id = self.servers[at].id.index();
                    if words.last() == Some(&"open") {
                        self.page.servers[id].active.up();
                        self.scheduler.counted(&self.servers, &self.loads, at);
                    }
                    self.names[id].clone()
                }
                None => "-".to_owned(),
            })
            .collect();
        names.join(" ")
    }

    /// Anything that is no `pick`.
    fn step(&mut self, words: &[&str]) {
        match words {
            ["add", name, ip, port, weight] => {
                let address = SocketAddr::new(ip.parse().unwrap(), number(port));
                self.add(name, address, number(weight));
            }
            ["upd", name, weight] => self.weigh(self.find(name), number(weight)),
            ["del", name] => self.delete(self.find(name)),
            ["conn", name, active, inactive] => {
                self.load(self.find(name), number(active), number(inactive));
            }
            ["overload", name, over] => self.overload(self.find(name), *over != "0"),
            ["advance", seconds] => self.now = self.now.plus_ms(number::<u32>(seconds) * 1000),
            ["flags" | "af" | "seed", _] => {}
            other => panic!("{other:?} is not understood"),
        }
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse().unwrap()
}

/// Works a scenario through; how many picks were compared.
fn work(kind: Kind, scenario: &Value, expected: &Value) -> usize {
    let lines: Vec<Vec<&str>> = (scenario.as_array().unwrap().iter())
        .map(|line| {
            let line = line.as_str().unwrap().split('#').next().unwrap();
            line.split_whitespace().collect()
        })
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect();
    let setting = |name: &str, default: u64| {
        let line = lines.iter().find(|words| words[0] == name);
        line.map_or(default, |words| number(words[1]))
    };
    let flags = u8::try_from(setting("flags", 0)).unwrap();
    let mut world = World::new(kind, flags, setting("seed", 1));
    world.ipv6 = setting("af", 4) == 6;
    let mut expected = expected.as_array().unwrap().iter();
    let mut compared = 0;
    for words in &lines {
        if words[0] == "pick" {
            let right = expected.next().unwrap().as_str().unwrap();
            assert_eq!(world.picks(words), right, "{}: {words:?}", kind.name());
            compared += right.split(' ').count();
        } else {
            world.step(words);
        }
    }
    assert_eq!(expected.next(), None);
    compared
}

#[test]
fn worked_examples() {
    let all = include_str!("../../../tests/oracle/worked.json");
    let all: Vec<HashMap<String, Value>> = serde_json::from_str(all).unwrap();
    let compared: usize = (all.iter())
        .map(|example| {
            let kind = Kind::by_name(example["scheduler"].as_str().unwrap()).unwrap();
            work(kind, &example["scenario"], &example["expect"])
        })
        .sum();
    assert!(all.len() >= 22 && compared >= 380, "{compared} picks");
}

/// Of the kernel's own code, but for `twos`: there it is the reference's, with the same generator.
#[test]
fn random_scenarios() {
    let all = include_str!("../../../tests/oracle/random.json");
    let all: Vec<HashMap<String, Value>> = serde_json::from_str(all).unwrap();
    let mut compared = 0;
    for scenario in &all {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Conhash) {
            let expected = &scenario["expect"][kind.name()];
            compared += work(kind, &scenario["scenario"], expected);
        }
    }
    assert!(all.len() >= 12 && compared >= 18_298, "{compared} picks");
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

/// A service of three servers with these weights, the first one the oldest.
fn three(kind: Kind, weights: [u32; 3]) -> World {
    let mut world = World::new(kind, 0, 1);
    for (n, weight) in (1..).zip(weights) {
        world.add(&n.to_string(), address(n), weight);
    }
    world
}

/// Every pair of draws by the rule itself, against what is picked.
#[test]
fn twos_draws_by_weight() {
    let mut world = three(Kind::Twos, [1, 2, 3]);
    world.load(0, 0, 10);
    world.load(1, 0, 30);
    world.load(2, 0, 29);
    let weights = [3u64, 2, 1];
    let overheads = [29u64, 30, 10];
    let draw = |r: u64| {
        let mut left = i64::try_from(r).unwrap();
        (0..3)
            .find(|i| {
                left -= i64::try_from(weights[*i]).unwrap();
                left <= 0
            })
            .unwrap()
    };
    let mut expected = [0f64; 3];
    for (a, b) in (0..7).flat_map(|a| (0..7).map(move |b| (draw(a), draw(b)))) {
        let better = weights[b] * overheads[a] > weights[a] * overheads[b];
        expected[2 - if better { b } else { a }] += 1.0 / 49.0;
    }
    const PICKS: u32 = 50_000;
    let mut counts = [0u32; 3];
    for _ in 0..PICKS {
        counts[world.pick(address(9), address(8)).unwrap()] += 1;
    }
    for (count, expected) in counts.into_iter().zip(expected) {
        let share = f64::from(count) / f64::from(PICKS);
        assert!((share - expected).abs() < 0.01, "{share}, not {expected}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, u32),
    Weigh(usize, u32),
    Delete(usize),
    Load(usize, u32, u32),
    Overload(usize, bool),
    Wait(u32),
    Pick(u8, u16, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0usize..8;
    let weight = prop_oneof![2 => Just(0u32), 6 => 1u32..9, 1 => Just(1 << 30)];
    prop_oneof![
        2 => (0u8..12, weight.clone()).prop_map(|(n, weight)| Step::Add(n, weight)),
        1 => (place.clone(), weight).prop_map(|(at, weight)| Step::Weigh(at, weight)),
        1 => place.clone().prop_map(Step::Delete),
        2 => (place.clone(), 0u32..20, 0u32..600).prop_map(|(at, a, i)| Step::Load(at, a, i)),
        1 => (place, any::<bool>()).prop_map(|(at, over)| Step::Overload(at, over)),
        1 => (0u32..100_000).prop_map(Step::Wait),
        9 => (any::<u8>(), any::<u16>(), 0u8..4).prop_map(|(a, port, b)| Step::Pick(a, port, b)),
    ]
}

impl World {
    /// `None` when there is nothing to do it to.
    fn random_step(&mut self, step: &Step) -> Option<Option<usize>> {
        let place = |at: usize| (!self.servers.is_empty()).then(|| at % self.servers.len());
        match *step {
            Step::Add(n, weight) => {
                let new = self.servers.iter().all(|s| s.address != address(n));
                if new && self.names.len() < SERVERS_MAX {
                    self.add("", address(n), weight);
                }
            }
            Step::Weigh(at, weight) => self.weigh(place(at)?, weight),
            Step::Delete(at) => self.delete(place(at)?),
            Step::Load(at, active, inactive) => self.load(place(at)?, active, inactive),
            Step::Overload(at, over) => {
                let at = place(at)?;
                self.overload(at, over);
            }
            Step::Wait(seconds) => self.now = self.now.plus_ms(seconds * 1000),
            Step::Pick(client, port, destination) => {
                let from = SocketAddr::from(([192, 0, 2, client], port));
                return Some(self.pick(from, address(destination)));
            }
        }
        None
    }
}

proptest! {
    #[test]
    fn who_is_not_to_be_picked_is_not(
        flags in prop_oneof![Just(0u8), Just(8), Just(16), Just(24)],
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        for kind in Kind::ALL {
            let mut world = World::new(kind, flags, 7);
            for step in &steps {
                world.scheduler.tick(world.now);
                if let Some(picked) = world.random_step(step) {
                    let usable = world.servers.iter().any(Candidate::is_usable);
                    match picked.map(|at| world.servers[at]) {
                        // An overloaded server keeps the destinations that lblc gave it.
                        Some(server) if kind == Kind::Lblc => prop_assert!(server.weight > 0),
                        Some(server) => prop_assert!(server.is_usable(), "{}", kind.name()),
                        // Some send a client nowhere rather than elsewhere.
                        None => prop_assert!(
                            !usable
                                || matches!(kind, Kind::Dh | Kind::Ovf)
                                || matches!(kind, Kind::Sh | Kind::Mh) && flags & 8 == 0
                                || kind == Kind::Sh && world.servers.len() > 1
                                || kind == Kind::Mh && lacks_slots(&world),
                            "{} picked none", kind.name()
                        ),
                    }
                }
            }
        }
    }
}

/// Whether the weights are so far apart that a usable server may have too few slots to be found.
fn lacks_slots(world: &World) -> bool {
    let weights = world.servers.iter().map(|server| server.last_weight);
    weights.max().unwrap_or(0) > 1000
}

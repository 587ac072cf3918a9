//! Local ports: which of the director's own addresses and ports stands in for a client.
//!
//! A pool per local address, real server and protocol, so that each server has every port of each
//! local address. A worker leases only those ports whose replies are steered to it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use hashbrown::HashMap;

use crate::time::Instant;

/// The lowest port that is leased; lower ones belong to the director's own host.
pub const PORT_MIN: u16 = 1024;
/// As long as Linux remembers a connection in TIME_WAIT.
pub const COOLING_MS: u32 = 60_000;
/// The most ports that cool in one pool; the oldest is free early when another comes.
pub const COOLING_MAX: usize = 1024;

const WORDS: usize = 1024;

/// A pool, as long as it has leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolId(pub u32);

impl PoolId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A local address and port toward one server, until it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub pool: PoolId,
    pub local: SocketAddr,
    /// The server may still remember this tuple in TIME_WAIT: the sequence number it expected next.
    pub remembered: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    local: IpAddr,
    server: SocketAddr,
    protocol: u8,
}

/// All local ports of one worker.
#[derive(Debug, Default)]
pub struct Leases {
    pools: Vec<Option<Pool>>,
    vacant: Vec<PoolId>,
    by_key: HashMap<Key, PoolId>,
    locals: HashMap<IpAddr, Local>,
    in_use: usize,
}

/// What every pool of a local address has in common.
#[derive(Debug)]
struct Local {
    mine: Box<Bitmap>,
    ports: usize,
    used: usize,
    pools: usize,
}

impl Leases {
    /// Leases a port toward `server` from one of `locals` of its family, the next after `cursor`,
    /// or the first after that which has one. Ports that cool are taken when there are no others.
    /// `mine` says which ports are this worker's, always the same. `None` when all are taken.
    pub fn take(
        &mut self,
        now: Instant,
        locals: &[IpAddr],
        cursor: &mut usize,
        server: SocketAddr,
        protocol: u8,
        mine: impl Fn(IpAddr, u16) -> bool,
    ) -> Option<Lease> {
        let start = *cursor;
        for how in [Pool::take_free, Pool::take_cooling] {
            for step in 0..locals.len() {
                let at = (start % locals.len() + step) % locals.len();
                let local = locals[at];
                if local.is_ipv4() != server.is_ipv4() {
                    continue;
                }
                let key = Key {
                    local,
                    server,
                    protocol,
                };
                let pool = self.pool(key, &mine);
                let Some((port, remembered)) =
                    self.pools[pool.index()].as_mut().and_then(|p| how(p, now))
                else {
                    continue;
                };
                *cursor = at + 1;
                self.count(local, |used| used + 1);
                return Some(Lease {
                    pool,
                    local: SocketAddr::new(local, port),
                    remembered,
                });
            }
        }
        None
    }

    /// Ends a lease. With `cooling`, the sequence number that the server expects next, it may still
    /// remember the tuple: others are taken before it for [`COOLING_MS`].
    pub fn give_back(&mut self, now: Instant, pool: PoolId, port: u16, cooling: Option<u32>) {
        let given = self
            .pools
            .get_mut(pool.index())
            .and_then(Option::as_mut)
            .and_then(|pool| pool.give_back(now, port, cooling).then_some(pool.key.local));
        debug_assert!(given.is_some(), "port {port} of {pool:?} is not leased");
        if let Some(local) = given {
            self.count(local, |used| used - 1);
        }
    }

    /// How many leases there are.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// How many leases a local address has, and how many it can have toward the servers that it
    /// has been used for.
    pub fn of(&self, local: IpAddr) -> (usize, usize) {
        self.locals
            .get(&local)
            .map_or((0, 0), |l| (l.used, l.ports * l.pools))
    }

    /// Drops the pools without leases of which `keep` does not say that this local address and
    /// server are still configured for this protocol.
    pub fn retain(&mut self, keep: impl Fn(IpAddr, SocketAddr, u8) -> bool) {
        for (id, slot) in (0..).map(PoolId).zip(&mut self.pools) {
            let Some(pool) = slot else { continue };
            let key = pool.key;
            if pool.used > 0 || keep(key.local, key.server, key.protocol) {
                continue;
            }
            *slot = None;
            self.vacant.push(id);
            self.by_key.remove(&key);
            if let Some(local) = self.locals.get_mut(&key.local) {
                local.pools -= 1;
            }
        }
        self.locals.retain(|_, local| local.pools > 0);
    }

    /// The pool of `key`, made when it is needed first.
    fn pool(&mut self, key: Key, mine: impl Fn(IpAddr, u16) -> bool) -> PoolId {
        if let Some(&id) = self.by_key.get(&key) {
            return id;
        }
        let local = self
            .locals
            .entry(key.local)
            .or_insert_with(|| Local::new(key.local, mine));
        local.pools += 1;
        let pool = Some(Pool::new(key, &local.mine));
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.pools.push(None);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a pool is 8 KiB: memory ends before 2^32 of them"
            )]
            PoolId(self.pools.len() as u32 - 1)
        });
        self.pools[id.index()] = pool;
        self.by_key.insert(key, id);
        id
    }

    fn count(&mut self, local: IpAddr, change: impl Fn(usize) -> usize) {
        self.in_use = change(self.in_use);
        if let Some(local) = self.locals.get_mut(&local) {
            local.used = change(local.used);
        }
    }
}

impl Local {
    fn new(address: IpAddr, mine: impl Fn(IpAddr, u16) -> bool) -> Self {
        let mut map = Box::new(Bitmap::empty());
        let mut ports = 0;
        for port in (PORT_MIN..=u16::MAX).filter(|&port| mine(address, port)) {
            map.set(port);
            ports += 1;
        }
        Self {
            mine: map,
            ports,
            used: 0,
            pools: 0,
        }
    }
}

/// The ports of one local address toward one server.
#[derive(Debug)]
struct Pool {
    key: Key,
    free: Box<Bitmap>,
    /// Where the search for the next port begins: one given back is taken as late as possible.
    next: u16,
    used: u32,
    cooling: VecDeque<Cooling>,
}

#[derive(Debug, Clone, Copy)]
struct Cooling {
    port: u16,
    next_seq: u32,
    until: Instant,
}

impl Pool {
    fn new(key: Key, mine: &Bitmap) -> Self {
        Self {
            key,
            free: Box::new(mine.clone()),
            next: PORT_MIN,
            used: 0,
            cooling: VecDeque::new(),
        }
    }

    fn take_free(&mut self, now: Instant) -> Option<(u16, Option<u32>)> {
        while let Some(cool) = self.cooling.front().filter(|c| now.reached(c.until)) {
            self.free.set(cool.port);
            self.cooling.pop_front();
        }
        let port = self.free.next(self.next)?;
        self.free.clear(port);
        self.next = port.wrapping_add(1);
        self.used += 1;
        Some((port, None))
    }

    fn take_cooling(&mut self, _now: Instant) -> Option<(u16, Option<u32>)> {
        let Cooling { port, next_seq, .. } = self.cooling.pop_front()?;
        self.used += 1;
        Some((port, Some(next_seq)))
    }

    /// Whether the port was leased.
    fn give_back(&mut self, now: Instant, port: u16, cooling: Option<u32>) -> bool {
        if self.used == 0 || port < PORT_MIN || self.free.has(port) {
            return false;
        }
        self.used -= 1;
        let Some(next_seq) = cooling else {
            self.free.set(port);
            return true;
        };
        if self.cooling.len() == COOLING_MAX
            && let Some(oldest) = self.cooling.pop_front()
        {
            self.free.set(oldest.port);
        }
        self.cooling.push_back(Cooling {
            port,
            next_seq,
            until: now.plus_ms(COOLING_MS),
        });
        true
    }
}

/// A set of ports: a bit each, and a bit for each word that has any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bitmap {
    words: [u64; WORDS],
    summary: [u64; WORDS / 64],
}

impl Bitmap {
    const fn empty() -> Self {
        Self {
            words: [0; WORDS],
            summary: [0; WORDS / 64],
        }
    }

    fn has(&self, port: u16) -> bool {
        self.words[usize::from(port / 64)] >> (port % 64) & 1 == 1
    }

    fn set(&mut self, port: u16) {
        self.words[usize::from(port / 64)] |= 1 << (port % 64);
        self.summary[usize::from(port / 4096)] |= 1 << (port / 64 % 64);
    }

    fn clear(&mut self, port: u16) {
        let word = &mut self.words[usize::from(port / 64)];
        *word &= !(1 << (port % 64));
        if *word == 0 {
            self.summary[usize::from(port / 4096)] &= !(1 << (port / 64 % 64));
        }
    }

    /// The least member from `from` on, or the least of all.
    fn next(&self, from: u16) -> Option<u16> {
        let word = from / 64;
        first_from(
            &self.words[usize::from(word)..=usize::from(word)],
            from % 64,
        )
        .map(|bit| word * 64 + bit)
        .or_else(|| {
            let after = first_from(&self.summary, word + 1);
            let word = after.or_else(|| first_from(&self.summary, 0))?;
            first_from(&self.words[usize::from(word)..=usize::from(word)], 0)
                .map(|bit| word * 64 + bit)
        })
    }
}

/// The position of the first bit set, from `from` on.
#[expect(clippy::cast_possible_truncation, reason = "at most 16 words")]
fn first_from(words: &[u64], from: u16) -> Option<u16> {
    let mut mask = u64::MAX << (from % 64);
    let start = usize::from(from / 64);
    for (at, word) in words.iter().enumerate().skip(start) {
        if word & mask != 0 {
            return Some(at as u16 * 64 + (word & mask).trailing_zeros() as u16);
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    const TCP: u8 = 6;
    const NOW: Instant = Instant(0);

    fn server(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 1, 0, n], 80))
    }

    fn local(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    #[test]
    fn every_port_once() {
        let mut leases = Leases::default();
        let locals = [local(1)];
        let mut cursor = 0;
        let take = |leases: &mut Leases, cursor: &mut usize| {
            leases.take(NOW, &locals, cursor, server(1), TCP, |_, _| true)
        };
        let mut all = Vec::new();
        let mut fresh = None;
        while let Some(lease) = take(&mut leases, &mut cursor) {
            let pool = leases.pools[0].as_ref().unwrap();
            fresh.get_or_insert_with(|| {
                let mut free = pool.free.clone();
                free.set(lease.local.port());
                free
            });
            all.push(lease);
        }
        assert_eq!(all.len(), 64_512);
        assert_eq!(
            (leases.in_use(), leases.of(local(1))),
            (64_512, (64_512, 64_512))
        );
        let ports: BTreeSet<u16> = all.iter().map(|lease| lease.local.port()).collect();
        assert_eq!((ports.len(), ports.first()), (64_512, Some(&PORT_MIN)));
        assert_eq!(
            leases.pools[0].as_ref().unwrap().free,
            Box::new(Bitmap::empty())
        );
        // Another server has all ports again.
        assert!(
            leases
                .take(NOW, &locals, &mut cursor, server(2), TCP, |_, _| true)
                .is_some()
        );
        for lease in all {
            leases.give_back(NOW, lease.pool, lease.local.port(), None);
        }
        assert_eq!((leases.in_use(), leases.of(local(1))), (1, (1, 2 * 64_512)));
        assert_eq!(
            Some(&leases.pools[0].as_ref().unwrap().free),
            fresh.as_ref()
        );
        leases.retain(|_, _, _| false);
        assert_eq!(leases.of(local(1)), (1, 64_512), "a pool with leases stays");
        leases.give_back(NOW, PoolId(1), PORT_MIN, None);
        leases.retain(|_, _, _| false);
        assert!(leases.locals.is_empty() && leases.by_key.is_empty());
        assert_eq!(
            take(&mut leases, &mut cursor).map(|l| l.local.port()),
            Some(PORT_MIN)
        );
        assert_eq!(leases.pools.len(), 2, "places are used again");
    }

    #[test]
    fn locals_of_the_servers_family_take_turns() {
        let mut leases = Leases::default();
        let locals = ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"].map(|l| l.parse().unwrap());
        let mut cursor = 0;
        let mut take = |server: SocketAddr| {
            let lease = leases.take(NOW, &locals, &mut cursor, server, TCP, |_, _| true);
            lease.unwrap().local.ip().to_string()
        };
        let v6 = "[fd01::1]:80".parse().unwrap();
        assert_eq!(
            [take(server(1)), take(server(1)), take(server(1))],
            ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
        );
        assert_eq!(
            [take(v6), take(v6), take(v6)],
            ["fd00::1", "fd00::2", "fd00::1"]
        );
        let mut leases = Leases::default();
        assert_eq!(leases.take(NOW, &[], &mut 0, v6, TCP, |_, _| true), None);
        assert_eq!(
            leases.take(NOW, &locals[..1], &mut 0, v6, TCP, |_, _| true),
            None
        );
    }

    #[test]
    fn cooling_is_bounded() {
        let mut leases = Leases::default();
        let all: Vec<Lease> = (0..=COOLING_MAX)
            .map(|_| {
                leases
                    .take(NOW, &[local(1)], &mut 0, server(1), TCP, |_, _| true)
                    .unwrap()
            })
            .collect();
        for lease in &all {
            leases.give_back(NOW, lease.pool, lease.local.port(), Some(7));
        }
        let pool = leases.pools[0].as_ref().unwrap();
        assert_eq!(pool.cooling.len(), COOLING_MAX);
        assert!(pool.free.has(PORT_MIN), "the oldest");
        assert!(!pool.free.has(PORT_MIN + 1));
    }

    /// The naive pool: sets and lists, searched.
    #[derive(Default)]
    struct Model {
        free: BTreeSet<u16>,
        used: Vec<(Lease, u16)>,
        cooling: VecDeque<(u16, u32, u32)>,
        next: u16,
    }

    impl Model {
        fn cool(&mut self, now: u32) {
            while let Some(&(port, ..)) = self.cooling.front().filter(|c| now >= c.2) {
                self.free.insert(port);
                self.cooling.pop_front();
            }
        }

        fn expected(&mut self, now: u32) -> Option<(u16, Option<u32>)> {
            self.cool(now);
            let free = self.free.range(self.next..).next().or(self.free.first());
            match free.copied() {
                Some(port) => {
                    self.free.remove(&port);
                    self.next = port.wrapping_add(1);
                    Some((port, None))
                }
                None => self
                    .cooling
                    .pop_front()
                    .map(|(port, seq, _)| (port, Some(seq))),
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take,
        GiveBack(usize, Option<u32>),
        Wait(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Take),
            3 => (any::<usize>(), any::<Option<u32>>()).prop_map(|(n, c)| Step::GiveBack(n, c)),
            1 => (0u32..50_000).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn one_pool_is_the_model(
            steps in proptest::collection::vec(step(), 0..300),
            mine in proptest::collection::btree_set(1024u16.., 1..12),
            late: bool,
        ) {
            let mut leases = Leases::default();
            let mut model = Model { free: mine.clone(), ..Model::default() };
            // Near the wrap of the clock, or not.
            let origin = if late { u32::MAX - 30_000 } else { 0 };
            let (mut elapsed, mut cursor) = (0, 0);
            for step in steps {
                let now = Instant(origin.wrapping_add(elapsed));
                match step {
                    Step::Take => {
                        let lease = leases.take(now, &[local(1)], &mut cursor, server(1), TCP,
                            |_, port| mine.contains(&port));
                        let got = lease.map(|l| (l.local.port(), l.remembered));
                        prop_assert_eq!(got, model.expected(elapsed));
                        model.used.extend(lease.map(|l| (l, l.local.port())));
                    }
                    Step::GiveBack(n, cooling) => {
                        if model.used.is_empty() {
                            continue;
                        }
                        let (lease, port) = model.used.swap_remove(n % model.used.len());
                        leases.give_back(now, lease.pool, port, cooling);
                        match cooling {
                            Some(seq) => model.cooling.push_back((port, seq, elapsed + COOLING_MS)),
                            None => { model.free.insert(port); }
                        }
                    }
                    Step::Wait(ms) => elapsed += ms,
                }
                prop_assert_eq!(leases.in_use(), model.used.len());
                prop_assert_eq!(leases.of(local(1)).0, model.used.len());
            }
        }

        #[test]
        fn many_pools_leak_nothing(
            steps in proptest::collection::vec((any::<u8>(), any::<usize>(), step()), 0..200),
        ) {
            let mut leases = Leases::default();
            let locals = [local(1), local(2), local(3)];
            // Each port is one local address's only, four each.
            let mine = |ip: IpAddr, port: u16| {
                port < 1036 && IpAddr::from([10, 0, 0, 1 + (port % 3) as u8]) == ip
            };
            let (mut held, mut cursor, mut now) = (Vec::<(SocketAddr, Lease)>::new(), 0, 0);
            for (n, which, step) in steps {
                let to = server(n % 3);
                match step {
                    Step::Take => {
                        let lease = leases.take(Instant(now), &locals, &mut cursor, to, TCP, mine);
                        let toward = held.iter().filter(|(s, _)| *s == to).count();
                        prop_assert_eq!(lease.is_none(), toward == 12);
                        let Some(lease) = lease else { continue };
                        prop_assert!(mine(lease.local.ip(), lease.local.port()));
                        prop_assert!(!held.iter().any(|(s, l)| *s == to && l.local == lease.local));
                        held.push((to, lease));
                    }
                    Step::GiveBack(_, cooling) if !held.is_empty() => {
                        let (_, lease) = held.swap_remove(which % held.len());
                        leases.give_back(Instant(now), lease.pool, lease.local.port(), cooling);
                    }
                    Step::Wait(ms) => {
                        now += ms;
                        leases.retain(|_, s, _| s != to);
                    }
                    Step::GiveBack(..) => {}
                }
                prop_assert_eq!(leases.in_use(), held.len());
                for local in locals {
                    let of = held.iter().filter(|(_, l)| l.local.ip() == local).count();
                    prop_assert_eq!(leases.of(local).0, of);
                }
            }
        }

        #[test]
        fn bitmap_is_a_set(ports in proptest::collection::btree_set(any::<u16>(), 0..9), from: u16) {
            let mut map = Bitmap::empty();
            ports.iter().for_each(|&port| map.set(port));
            let expected = ports.range(from..).next().or(ports.first()).copied();
            prop_assert_eq!(map.next(from), expected);
            ports.iter().for_each(|&port| map.clear(port));
            prop_assert_eq!(map, Bitmap::empty());
        }
    }
}

//! Local ports: which of the director's own addresses and ports stands in for a client.
//!
//! A pool per local address, real server and protocol, so that each server has every port of each
//! local address. A worker leases only those ports whose replies are steered to it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::counters::LocalPage;
use crate::time::Instant;
use crate::update::LocalAddress;

/// The lowest port that is leased; lower ones belong to the director's own host.
pub const PORT_MIN: u16 = 1024;
/// As long as Linux remembers a connection in TIME_WAIT.
pub const COOLING_MS: u32 = 60_000;
/// The most ports that cool in one pool; the oldest is free early when another comes.
pub const COOLING_MAX: usize = 1024;
/// How long a pool without leases is kept, at least: until no port of it cools.
pub const IDLE_MS: u32 = 2 * COOLING_MS;

const WORDS: usize = 1024;

mod excerpt; // a few pools, copied

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    local: IpAddr,
    server: SocketAddr,
    protocol: u8,
}

impl Hash for Key {
    /// All of it in one number, and that mixed: each connection looks for its pool.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both halves of a product are folded"
    )]
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits() as u64 ^ (address.to_bits() >> 64) as u64,
        };
        let server = bits(self.server.ip()).rotate_left(24)
            ^ u64::from(self.server.port())
            ^ u64::from(self.protocol) << 16;
        let mixed = u128::from(bits(self.local) | 1 << 63) * u128::from(server | 1 << 63);
        state.write_u64(mixed as u64 ^ (mixed >> 64) as u64);
    }
}

/// All local ports of one worker.
#[derive(Debug, Clone)]
pub struct Leases {
    me: usize,
    pools: Vec<Option<Pool>>,
    vacant: Vec<PoolId>,
    by_key: HashMap<Key, PoolId>,
    locals: Vec<Option<Local>>,
    /// Where they are in `locals`.
    by_address: HashMap<IpAddr, usize>,
    /// Whose turn it is to be looked at: a place in `pools`.
    visited: usize,
}

/// What every pool of a local address has in common.
#[derive(Debug, Clone)]
struct Local {
    mine: Box<Bitmap>,
    pages: Arc<[LocalPage]>,
    used: u32,
    pools: usize,
    /// Dismissed, it only waits for its pools.
    admitted: bool,
}

impl Leases {
    /// For worker `me`.
    pub fn new(me: usize) -> Self {
        Self {
            me,
            pools: Vec::new(),
            vacant: Vec::new(),
            by_key: HashMap::new(),
            locals: Vec::new(),
            by_address: HashMap::new(),
            visited: 0,
        }
    }

    /// Ports of `local` may be leased from now on: those which are `mine`, always the same. Takes
    /// a fifth of a millisecond, so not while packets wait.
    pub fn admit(&mut self, local: &LocalAddress, mine: impl Fn(u16) -> bool) {
        let (me, pages) = (self.me, &local.pages);
        let (_, local) = self.local(local.address, || Local::new(Arc::clone(pages), mine));
        local.admitted = true;
        local.pages = Arc::clone(pages);
        local.show(me);
    }

    /// What is kept of a local address, made if there is nothing yet, and where.
    fn local(&mut self, address: IpAddr, make: impl FnOnce() -> Local) -> (usize, &mut Local) {
        let vacant = self.locals.iter().position(Option::is_none);
        let end = self.locals.len();
        let at = *self
            .by_address
            .entry(address)
            .or_insert(vacant.unwrap_or(end));
        if at == end {
            self.locals.push(None);
        }
        (at, self.locals[at].get_or_insert_with(make))
    }

    fn local_of(&mut self, address: IpAddr) -> Option<&mut Local> {
        let at = *self.by_address.get(&address)?;
        self.locals.get_mut(at)?.as_mut()
    }

    /// No more ports of `address` are leased; those that are come back in time.
    pub fn dismiss(&mut self, address: IpAddr) {
        if let Some(local) = self.local_of(address) {
            local.admitted = false;
        }
        self.forget(address);
    }

    /// Leases a port toward `server` from one of `locals` of its family, the next after `cursor`,
    /// or the first after that which has one. Ports that cool are taken when there are no others.
    /// `None` when all are taken.
    pub fn take(
        &mut self,
        now: Instant,
        locals: &[IpAddr],
        cursor: &mut usize,
        server: SocketAddr,
        protocol: u8,
    ) -> Option<Lease> {
        let start = *cursor;
        let mut cooling = None;
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
            let Some(id) = self.pool(key) else { continue };
            let Some(pool) = self.pools[id.index()].as_mut() else {
                continue;
            };
            if let Some(port) = pool.take_free(now) {
                *cursor = at + 1;
                return self.leased(id, port, None);
            }
            if pool.cooling.is_empty() {
                let at = pool.local;
                self.exhausted(at);
            } else {
                cooling = cooling.or(Some((at, id)));
            }
        }
        let (at, id) = cooling?;
        let (port, remembered) = self.pools[id.index()].as_mut()?.take_cooling()?;
        *cursor = at + 1;
        self.leased(id, port, Some(remembered))
    }

    /// Ends a lease. With `cooling`, the sequence number that the server expects next, it may still
    /// remember the tuple: others are taken before it for [`COOLING_MS`].
    pub fn give_back(&mut self, now: Instant, pool: PoolId, port: u16, cooling: Option<u32>) {
        let given = self
            .pools
            .get_mut(pool.index())
            .and_then(Option::as_mut)
            .and_then(|pool| pool.give_back(now, port, cooling).then_some(pool.local));
        debug_assert!(given.is_some(), "port {port} of {pool:?} is not leased");
        if let Some(Some(local)) = given.and_then(|at| self.locals.get_mut(at)) {
            local.used -= 1;
            local.show(self.me);
        }
    }

    /// How many leases there are.
    #[cfg(test)]
    pub fn in_use(&self) -> u32 {
        self.locals.iter().flatten().map(|local| local.used).sum()
    }

    /// Looks at one pool. One that nothing was leased from for [`IDLE_MS`] goes: its server or its
    /// local address may be gone, and if not a new one is soon made.
    pub fn tick(&mut self, now: Instant) {
        let at = self.visited;
        self.visited = if at + 1 < self.pools.len() { at + 1 } else { 0 };
        let Some(Some(pool)) = self.pools.get_mut(at) else {
            return;
        };
        if pool.used > 0 {
            return pool.idle_since = None;
        }
        let since = *pool.idle_since.get_or_insert(now);
        if !now.reached(since.plus_ms(IDLE_MS)) {
            return;
        }
        let (key, local) = (pool.key, pool.local);
        if let Some(id) = self.by_key.remove(&key) {
            self.pools[at] = None;
            self.vacant.push(id);
        }
        if let Some(Some(local)) = self.locals.get_mut(local) {
            local.pools -= 1;
        }
        self.forget(key.local);
    }

    /// The pool of `key`, made when it is needed first; `None` when the local address is not
    /// admitted.
    fn pool(&mut self, key: Key) -> Option<PoolId> {
        if let Some(&id) = self.by_key.get(&key) {
            return Some(id);
        }
        let at = *self.by_address.get(&key.local)?;
        let local = self.locals.get_mut(at)?.as_mut()?;
        if !local.admitted {
            return None;
        }
        local.pools += 1;
        let pool = Some(Pool::new(key, at, local.mine.clone()));
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
        Some(id)
    }

    fn leased(&mut self, id: PoolId, port: u16, remembered: Option<u32>) -> Option<Lease> {
        let pool = self.pools[id.index()].as_ref()?;
        if let Some(Some(local)) = self.locals.get_mut(pool.local) {
            local.used += 1;
            local.show(self.me);
        }
        Some(Lease {
            pool: id,
            local: SocketAddr::new(pool.key.local, port),
            remembered,
        })
    }

    fn exhausted(&self, local: usize) {
        let local = self.locals.get(local).and_then(Option::as_ref);
        if let Some(page) = local.and_then(|local| local.pages.get(self.me)) {
            page.exhausted.add(1);
        }
    }

    /// A local address that was dismissed and has no pools is not kept.
    fn forget(&mut self, address: IpAddr) {
        let local = self.local_of(address);
        if local.is_some_and(|local| !local.admitted && local.pools == 0)
            && let Some(at) = self.by_address.remove(&address)
        {
            self.locals[at] = None;
        }
    }
}

impl Local {
    fn new(pages: Arc<[LocalPage]>, mine: impl Fn(u16) -> bool) -> Self {
        let mut map = Box::new(Bitmap::empty());
        for port in (PORT_MIN..=u16::MAX).filter(|&port| mine(port)) {
            map.set(port);
        }
        Self {
            mine: map,
            pages,
            used: 0,
            pools: 0,
            admitted: true,
        }
    }

    fn show(&self, me: usize) {
        if let Some(page) = self.pages.get(me) {
            page.in_use.set(self.used);
        }
    }
}

/// The ports of one local address toward one server.
#[derive(Debug, Clone)]
struct Pool {
    key: Key,
    /// Where its local address is in [`Leases::locals`].
    local: usize,
    free: Box<Bitmap>,
    /// Where the search for the next port begins: one given back is taken as late as possible.
    next: u16,
    used: u32,
    cooling: VecDeque<Cooling>,
    /// When it was first found without leases.
    idle_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Cooling {
    port: u16,
    next_seq: u32,
    until: Instant,
}

impl Pool {
    fn new(key: Key, local: usize, free: Box<Bitmap>) -> Self {
        Self {
            key,
            local,
            free,
            next: PORT_MIN,
            used: 0,
            cooling: VecDeque::new(),
            idle_since: None,
        }
    }

    fn take_free(&mut self, now: Instant) -> Option<u16> {
        while let Some(cool) = self.cooling.front().filter(|c| now.reached(c.until)) {
            self.free.set(cool.port);
            self.cooling.pop_front();
        }
        let port = self.free.next(self.next)?;
        self.free.clear(port);
        self.next = port.wrapping_add(1);
        self.lease();
        Some(port)
    }

    /// The port that cools longest, and the sequence number that its server expects next.
    fn take_cooling(&mut self) -> Option<(u16, u32)> {
        let Cooling { port, next_seq, .. } = self.cooling.pop_front()?;
        self.lease();
        Some((port, next_seq))
    }

    fn lease(&mut self) {
        self.used += 1;
        self.idle_since = None;
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

    /// A worker's ports of `locals`, and what counts each of them.
    fn leases(
        locals: &[IpAddr],
        mine: impl Fn(IpAddr, u16) -> bool,
    ) -> (Leases, Vec<LocalAddress>) {
        let mut leases = Leases::new(1);
        let mut admitted = Vec::new();
        for &local in locals {
            admitted.push(LocalAddress::new(local, 2));
            leases.admit(&admitted[admitted.len() - 1], |port| mine(local, port));
        }
        (leases, admitted)
    }

    /// In use and exhausted, as its worker counted.
    fn counted(local: &LocalAddress) -> (u32, u64) {
        assert_eq!(local.pages[0].in_use.get(), 0, "another worker's");
        (local.pages[1].in_use.get(), local.pages[1].exhausted.get())
    }

    /// As many ticks as visit each pool.
    fn visit_all(leases: &mut Leases, now: Instant) {
        for _ in 0..=leases.pools.len() {
            leases.tick(now);
        }
    }

    #[test]
    fn every_port_once() {
        let locals = [local(1)];
        let (mut leases, counts) = leases(&locals, |_, _| true);
        let mut cursor = 0;
        let take = |leases: &mut Leases, cursor: &mut usize| {
            leases.take(NOW, &locals, cursor, server(1), TCP)
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
        assert_eq!(counted(&counts[0]), (64_512, 1));
        let ports: BTreeSet<u16> = all.iter().map(|lease| lease.local.port()).collect();
        assert_eq!((ports.len(), ports.first()), (64_512, Some(&PORT_MIN)));
        assert_eq!(
            leases.pools[0].as_ref().unwrap().free,
            Box::new(Bitmap::empty())
        );
        // Another server has all ports again.
        assert!(
            leases
                .take(NOW, &locals, &mut cursor, server(2), TCP)
                .is_some()
        );
        for lease in all {
            leases.give_back(NOW, lease.pool, lease.local.port(), None);
        }
        assert_eq!(counted(&counts[0]), (1, 1));
        assert_eq!(
            Some(&leases.pools[0].as_ref().unwrap().free),
            fresh.as_ref()
        );
    }

    #[test]
    fn a_pool_goes_when_it_was_idle() {
        let locals = [local(1)];
        let (mut leases, counts) = leases(&locals, |_, _| true);
        let mut cursor = 0;
        let mut take = |leases: &mut Leases, at: u32, to: u8| {
            let lease = leases.take(Instant(at), &locals, &mut cursor, server(to), TCP);
            lease.map(|lease| (lease.pool, lease.local.port()))
        };
        let (first, second) = (take(&mut leases, 0, 1), take(&mut leases, 0, 2));
        assert_eq!(first, Some((PoolId(0), PORT_MIN)));
        assert_eq!(second, Some((PoolId(1), PORT_MIN)));
        leases.give_back(NOW, PoolId(0), PORT_MIN, None);
        visit_all(&mut leases, NOW);
        visit_all(&mut leases, Instant(IDLE_MS - 1));
        assert!(leases.pools[0].is_some(), "not yet");
        // Used meanwhile, it begins anew.
        assert_eq!(
            take(&mut leases, IDLE_MS - 1, 1),
            Some((PoolId(0), PORT_MIN + 1))
        );
        leases.give_back(Instant(IDLE_MS - 1), PoolId(0), PORT_MIN + 1, None);
        visit_all(&mut leases, Instant(IDLE_MS));
        visit_all(&mut leases, Instant(2 * IDLE_MS - 1));
        assert!(leases.pools[0].is_some(), "not yet");
        visit_all(&mut leases, Instant(2 * IDLE_MS));
        assert!(leases.pools[0].is_none() && leases.pools[1].is_some());
        assert_eq!(
            take(&mut leases, 2 * IDLE_MS, 1),
            Some((PoolId(0), PORT_MIN)),
            "its place is used again"
        );
        assert_eq!(counted(&counts[0]), (2, 0));
    }

    #[test]
    fn a_dismissed_address_waits_for_its_leases() {
        let (mut leases, counts) = leases(&[local(1), local(2)], |_, port| port == 2000);
        let take =
            |leases: &mut Leases, n: u8| leases.take(NOW, &[local(n)], &mut 0, server(1), TCP);
        leases.dismiss(local(2));
        assert!(!leases.by_address.contains_key(&local(2)), "never used");
        assert_eq!(take(&mut leases, 2), None);
        let lease = take(&mut leases, 1).unwrap();
        leases.dismiss(local(1));
        visit_all(&mut leases, NOW);
        assert_eq!(counted(&counts[0]), (1, 0));
        // Back, it still knows what is leased, and whoever counts anew is told.
        let again = LocalAddress::new(local(1), 2);
        leases.admit(&again, |_| true);
        assert_eq!(take(&mut leases, 1), None);
        assert_eq!(counted(&again), (1, 1));
        leases.dismiss(local(1));
        leases.give_back(NOW, lease.pool, 2000, None);
        assert_eq!(counted(&again), (0, 1));
        visit_all(&mut leases, NOW);
        visit_all(&mut leases, Instant(IDLE_MS));
        assert!(leases.by_address.is_empty() && leases.by_key.is_empty());
        assert!(leases.locals.iter().all(Option::is_none));
    }

    #[test]
    fn locals_of_the_servers_family_take_turns() {
        let locals = ["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"].map(|l| l.parse().unwrap());
        let (mut leases, _) = leases(&locals, |_, _| true);
        let mut cursor = 0;
        let mut take = |server: SocketAddr| {
            let lease = leases.take(NOW, &locals, &mut cursor, server, TCP);
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
        assert_eq!(leases.take(NOW, &[], &mut 0, v6, TCP), None);
        assert_eq!(leases.take(NOW, &locals[..1], &mut 0, v6, TCP), None);
    }

    #[test]
    fn an_address_without_ports_is_passed_over_and_counted() {
        let locals = [local(1), local(2)];
        let (mut leases, counts) = leases(&locals, |ip, port| {
            port == 2000 || (port == 2001 && ip == local(2))
        });
        let mut take = || {
            let lease = leases.take(NOW, &locals, &mut 0, server(1), TCP);
            lease.map(|lease| (lease.local.ip(), lease.local.port()))
        };
        assert_eq!(take(), Some((local(1), 2000)));
        assert_eq!(
            (take(), take()),
            (Some((local(2), 2000)), Some((local(2), 2001)))
        );
        assert_eq!(take(), None);
        assert_eq!((counted(&counts[0]), counted(&counts[1])), ((1, 3), (2, 1)));
    }

    #[test]
    fn cooling_is_bounded() {
        let (mut leases, _) = leases(&[local(1)], |_, _| true);
        let all: Vec<Lease> = (0..=COOLING_MAX)
            .map(|_| {
                leases
                    .take(NOW, &[local(1)], &mut 0, server(1), TCP)
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
            let (mut leases, counts) = leases(&[local(1)], |_, port| mine.contains(&port));
            let mut model = Model { free: mine.clone(), ..Model::default() };
            // Near the wrap of the clock, or not.
            let origin = if late { u32::MAX - 30_000 } else { 0 };
            let (mut elapsed, mut cursor) = (0, 0);
            for step in steps {
                let now = Instant(origin.wrapping_add(elapsed));
                match step {
                    Step::Take => {
                        let lease = leases.take(now, &[local(1)], &mut cursor, server(1), TCP);
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
                prop_assert_eq!(counted(&counts[0]).0 as usize, model.used.len());
            }
        }

        #[test]
        fn many_pools_leak_nothing(
            steps in proptest::collection::vec((any::<u8>(), any::<usize>(), step()), 0..200),
        ) {
            let locals = [local(1), local(2), local(3)];
            // Each port is one local address's only, four each.
            let mine = |ip: IpAddr, port: u16| {
                port < 1036 && IpAddr::from([10, 0, 0, 1 + (port % 3) as u8]) == ip
            };
            let (mut leases, counts) = leases(&locals, mine);
            let (mut held, mut cursor, mut now) = (Vec::<(SocketAddr, Lease)>::new(), 0, 0);
            for (n, which, step) in steps {
                let to = server(n % 3);
                match step {
                    Step::Take => {
                        let lease = leases.take(Instant(now), &locals, &mut cursor, to, TCP);
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
                        visit_all(&mut leases, Instant(now));
                    }
                    Step::GiveBack(..) => {}
                }
                for local in &counts {
                    let of = held.iter().filter(|(_, l)| l.local.ip() == local.address).count();
                    prop_assert_eq!(counted(local).0 as usize, of);
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

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

//! What was counted since the daemon started, whatever is zeroed: a service or server that comes back
//! goes on where it left off.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use control::{ServiceKey, Totals};
use serde::{Deserialize, Serialize};

use super::{Model, Server, Service};
use crate::control::stats::{self, minus, plus};
use crate::counters::{Page, ServerPage};
use crate::update::{ServerId, ServiceId};

/// Services, and servers, that left and whose counts are remembered; of more the oldest begin at 0.
const REMEMBERED_MAX: usize = 1 << 16;

/// What a server was counted with, or what is to be taken off or added to that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub totals: Totals,
    /// SYNs that it answered, and the microseconds that it took.
    pub answers: u64,
    pub answers_us: u64,
}

impl Tally {
    pub(super) fn of(pages: &[Arc<Page>], id: ServerId) -> Self {
        let sum = |get: fn(&ServerPage) -> u64| {
            let pages = pages.iter().map(|page| get(&page.servers[id.index()]));
            pages.fold(0, u64::wrapping_add)
        };
        Self {
            totals: stats::counted(pages, id),
            answers: sum(|page| page.answers.get()),
            answers_us: sum(|page| page.answers_us.get()),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            totals: minus(self.totals, other.totals),
            answers: self.answers.wrapping_sub(other.answers),
            answers_us: self.answers_us.wrapping_sub(other.answers_us),
        }
    }
}

/// What a service counted before its servers that are in it now joined, and its drops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Past {
    pub(super) totals: Totals,
    pub(super) drops: u64,
}

/// A bounded memory: what came first goes first.
#[derive(Debug)]
struct Memory<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Copy + Eq + Hash, V: Copy + Default> Memory<K, V> {
    fn new(max: usize) -> Self {
        Self {
            values: HashMap::new(),
            order: VecDeque::new(),
            max,
        }
    }

    fn get(&self, key: &K) -> V {
        self.values.get(key).copied().unwrap_or_default()
    }

    fn set(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }

    /// What came first is first.
    fn all(&self) -> Vec<(K, V)> {
        self.order.iter().map(|key| (*key, self.get(key))).collect()
    }
}

/// Those that left.
#[derive(Debug)]
pub(super) struct Ledger {
    services: Memory<ServiceKey, Past>,
    servers: Memory<(ServiceKey, SocketAddr), Tally>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            services: Memory::new(REMEMBERED_MAX),
            servers: Memory::new(REMEMBERED_MAX),
        }
    }
}

/// A [`Ledger`] as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entries {
    services: Vec<(ServiceKey, Past)>,
    servers: Vec<((ServiceKey, SocketAddr), Tally)>,
}

impl Ledger {
    pub(super) fn entries(&self) -> Entries {
        Entries {
            services: self.services.all(),
            servers: self.servers.all(),
        }
    }

    pub(super) fn enter(&mut self, entries: &Entries) {
        for (key, past) in &entries.services {
            self.services.set(*key, *past);
        }
        for (key, tally) in &entries.servers {
            self.servers.set(*key, *tally);
        }
    }
}

impl Model {
    /// What to take off the counts of a server that gets this id, so that it goes on where it was.
    pub(super) fn origin(&self, id: ServerId, service: ServiceKey, address: SocketAddr) -> Tally {
        let before = self.ledger.servers.get(&(service, address));
        Tally::of(&self.pages, id).minus(before)
    }

    /// A server is forgotten, and its id is free.
    pub(super) fn remember_server(&mut self, id: ServerId, server: &Server) {
        let tally = Tally::of(&self.pages, id).minus(server.origin);
        let key = (server.service, server.address);
        self.ledger.servers.set(key, tally);
    }

    /// What to add to the counts of a service that gets this id.
    pub(super) fn past(&self, id: ServiceId, key: &ServiceKey) -> Past {
        let before = self.ledger.services.get(key);
        Past {
            drops: before.drops.wrapping_sub(self.drops(id)),
            ..before
        }
    }

    /// A service leaves.
    pub(super) fn remember_service(&mut self, id: ServiceId, service: &Service) {
        let past = Past {
            totals: plus(service.past.totals, self.service_counted(service)),
            drops: service.past.drops.wrapping_add(self.drops(id)),
        };
        self.ledger.services.set(service.key, past);
    }

    /// What was counted under this id, for whatever service.
    fn drops(&self, id: ServiceId) -> u64 {
        stats::service_drops(&self.pages, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_many_the_oldest_is_forgotten() {
        let mut memory = Memory::new(2);
        for (key, value) in [(1, 10), (2, 20), (1, 11), (3, 30)] {
            memory.set(key, value);
        }
        assert_eq!([1, 2, 3].map(|key| memory.get(&key)), [0, 20, 30]);
        assert_eq!((memory.values.len(), memory.order.len()), (2, 2));
    }
}

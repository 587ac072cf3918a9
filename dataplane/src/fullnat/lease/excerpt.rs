//! The pools that one connection may lease from, copied.

use std::net::{IpAddr, SocketAddr};

use super::{Key, Leases, Local, Pool, PoolId};
use crate::time::Instant;

impl Leases {
    /// Leases that [`Self::take`] finds the same port in; `held` are pools that a lease may be given
    /// back to, and what is returned with them are their numbers there. Nothing is counted.
    pub fn excerpt(
        &self,
        now: Instant,
        locals: &[IpAddr],
        cursor: usize,
        toward: Option<(SocketAddr, u8)>,
        held: &[PoolId],
    ) -> (Self, Vec<PoolId>) {
        let mut part = Self::new(self.me);
        let keys = held.iter().map(|held| self.pools[held.index()].as_ref());
        let keys: Vec<_> = keys.map(|pool| pool.map(|pool| pool.key)).collect();
        let numbers = keys.into_iter().map(|key| {
            let key = key?;
            part.copy(self, key);
            part.by_key.get(&key).copied()
        });
        let numbers = numbers.map(|id| id.unwrap_or(PoolId(u32::MAX))).collect();
        let Some((server, protocol)) = toward else {
            return (part, numbers);
        };
        for step in 0..locals.len() {
            let local = locals[(cursor % locals.len() + step) % locals.len()];
            if local.is_ipv4() != server.is_ipv4() {
                continue;
            }
            let key = Key {
                local,
                server,
                protocol,
            };
            if part.copy(self, key) && part.has_free(now, key) {
                break;
            }
        }
        (part, numbers)
    }

    /// Copies the pool of `key`, or what makes one; whether there was either.
    fn copy(&mut self, whole: &Self, key: Key) -> bool {
        let Some(local) = whole.known(key.local) else {
            return false;
        };
        let (at, _) = self.local(key.local, || Local {
            mine: local.mine.clone(),
            pages: [].into(),
            used: local.used,
            pools: local.pools,
            admitted: local.admitted,
        });
        let id = whole.by_key.get(&key);
        let pool = id.and_then(|id| whole.pools[id.index()].clone());
        if let Some(pool) = pool.filter(|_| !self.by_key.contains_key(&key)) {
            let id = PoolId(u32::try_from(self.pools.len()).unwrap_or(u32::MAX));
            self.pools.push(Some(Pool { local: at, ..pool }));
            self.by_key.insert(key, id);
        }
        true
    }

    fn known(&self, address: IpAddr) -> Option<&Local> {
        self.locals[*self.by_address.get(&address)?].as_ref()
    }

    /// Whether a port is free that does not cool.
    fn has_free(&self, now: Instant, key: Key) -> bool {
        let id = self.by_key.get(&key);
        let pool = id.and_then(|id| self.pools[id.index()].as_ref());
        match (pool, self.known(key.local)) {
            (Some(pool), _) => pool.clone().take_free(now).is_some(),
            (None, Some(local)) => local.admitted && local.mine.next(0).is_some(),
            (None, None) => false,
        }
    }
}

//! Addresses that clients ask: whether a packet is a client's is asked of nearly every one that may be another
//! worker's.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::keyed::Keyed;
use super::updates::release;
use crate::net::is_station;

/// Virtual addresses, each by how much there is of it.
#[derive(Debug, Default)]
pub(super) struct Virtuals {
    /// Services that have it.
    users: HashMap<IpAddr, u32>,
    /// Deleted servers that served it, and that connections may refer to.
    former: HashMap<IpAddr, u32>,
    /// Those over IPv4 of which there is either.
    v4: Keyed<()>,
}

impl Virtuals {
    /// As some others say.
    pub(super) fn of(users: &[(IpAddr, u32)], former: &[(IpAddr, u32)]) -> Self {
        let mut virtuals = Self {
            users: users.iter().copied().collect(),
            former: former.iter().copied().collect(),
            v4: Keyed::default(),
        };
        for (address, _) in users.iter().chain(former) {
            virtuals.note(*address);
        }
        virtuals
    }

    /// Whether some service has this address.
    #[inline]
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.users.contains_key(&address)
    }

    /// Whether some service has it, or had it and connections may be left.
    #[inline(always)]
    pub(super) fn had(&self, address: IpAddr) -> bool {
        match key(address) {
            Some(key) => self.v4.get(key).is_some(),
            None => self.is_counted(address),
        }
    }

    fn is_counted(&self, address: IpAddr) -> bool {
        self.has(address) || self.former.contains_key(&address)
    }

    pub(super) fn users(&self) -> &HashMap<IpAddr, u32> {
        &self.users
    }

    pub(super) fn former(&self) -> &HashMap<IpAddr, u32> {
        &self.former
    }

    /// One service more of each; returns those to announce, which had none.
    pub(super) fn occupy(&mut self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut new = Vec::new();
        for address in addresses {
            let count = self.users.entry(*address).or_insert(0);
            *count += 1;
            if *count == 1 && is_station(*address) {
                new.push(*address);
            }
            self.note(*address);
        }
        new
    }

    /// One service less of each.
    pub(super) fn release(&mut self, addresses: &[IpAddr]) {
        release(&mut self.users, addresses);
        addresses.iter().for_each(|address| self.note(*address));
    }

    /// One server more that served it is deleted.
    pub(super) fn leave(&mut self, address: IpAddr) {
        *self.former.entry(address).or_insert(0) += 1;
        self.note(address);
    }

    /// To one such server less of each connections may refer.
    pub(super) fn forget(&mut self, addresses: &[IpAddr]) {
        release(&mut self.former, addresses);
        addresses.iter().for_each(|address| self.note(*address));
    }

    fn note(&mut self, address: IpAddr) {
        let Some(key) = key(address) else {
            return;
        };
        match self.is_counted(address) {
            true => self.v4.insert(key, ()),
            false => self.v4.remove(key),
        }
    }
}

/// Of an address over IPv4.
#[inline(always)]
fn key(address: IpAddr) -> Option<u64> {
    match address {
        // None is 0.
        IpAddr::V4(address) => Some(u64::from(address.to_bits()) | 1 << 32),
        IpAddr::V6(_) => None,
    }
}

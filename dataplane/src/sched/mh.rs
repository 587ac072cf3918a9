//! `mh`: Maglev hashing of the client (`ip_vs_mh.c`; Eisenbud et al., NSDI 2016): each server fills
//! a table in an order of its own, so that a server that comes or goes moves few clients.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::hash::{fold, words};
use super::sh::client;
use super::{Ask, Candidate, Scheduler, gcd};

const PLACE: u64 = 2_654_435_761;
const SKIP: u64 = 2_654_446_892;
const FREE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Mh {
    /// Positions of servers, or none at all.
    table: Vec<u32>,
    /// How large it is to be.
    size: u32,
    stale: bool,
}

impl Default for Mh {
    fn default() -> Self {
        Self {
            table: Vec::new(),
            size: 0,
            stale: true,
        }
    }
}

/// One server's way through the table.
struct Claimant {
    at: usize,
    slot: usize,
    skip: usize,
    /// Slots that it claims in one round.
    turns: u32,
}

/// The kernel's `hsiphash` on 64-bit machines.
#[expect(clippy::cast_possible_truncation, reason = "its lower half")]
fn hash(key: u64, value: u32) -> usize {
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&value.to_le_bytes());
    hasher.finish() as u32 as usize
}

impl Mh {
    /// A quiesced server keeps its slots, so that nobody else's clients move.
    pub(super) fn fill(&mut self, servers: &[Candidate], service: IpAddr, size: u32) {
        (self.size, self.stale) = (size, false);
        let slots = size as usize;
        self.table.clear();
        // More servers than slots: the newer ones wait.
        let servers = &servers[..servers.len().min(slots)];
        let mut claimants = claimants(servers, service, slots);
        if claimants.is_empty() {
            return;
        }
        self.table.resize(slots, FREE);
        let mut free = slots;
        loop {
            for claimant in &mut claimants {
                for _ in 0..claimant.turns {
                    while self.table[claimant.slot] != FREE {
                        claimant.slot += claimant.skip;
                        if claimant.slot >= slots {
                            claimant.slot -= slots;
                        }
                    }
                    self.table[claimant.slot] = u32::try_from(claimant.at).unwrap_or(FREE);
                    free -= 1;
                    if free == 0 {
                        return;
                    }
                }
            }
        }
    }
}

/// Turns in a round are scaled down to so many bits: half of the table's own.
fn turn_bits(slots: usize) -> u32 {
    (usize::BITS - slots.leading_zeros()) / 2
}

/// Those that ever had a weight, in LVS's order.
fn claimants(servers: &[Candidate], service: IpAddr, slots: usize) -> Vec<Claimant> {
    let weights = || servers.iter().map(|server| server.last_weight);
    let unit = weights().map(i64::from).fold(0, gcd);
    let unit = u32::try_from(unit).unwrap_or(u32::MAX).max(1);
    let most = weights().max().unwrap_or(0) / unit;
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(turn_bits(slots));
    let walk = servers.iter().enumerate().rev();
    walk.filter(|(_, server)| server.last_weight > 0)
        .map(|(at, server)| {
            let folded = match (server.address.ip(), service) {
                // LVS takes the service's family for the server's.
                (IpAddr::V6(address), IpAddr::V4(_)) => words(address)[0],
                (address, _) => fold(address),
            };
            let value = folded.wrapping_add(u32::from(server.address.port()));
            Claimant {
                at,
                slot: hash(PLACE, value) % slots,
                skip: hash(SKIP, value) % (slots - 1) + 1,
                turns: ((server.last_weight / unit) >> shift).max(1),
            }
        })
        .collect()
}

#[cfg(test)]
impl Mh {
    /// Slots of each server.
    pub(super) fn counts(&self, servers: usize) -> Vec<usize> {
        let of = |at| {
            self.table
                .iter()
                .filter(|slot| **slot as usize == at)
                .count()
        };
        (0..servers).map(of).collect()
    }
}

impl Scheduler for Mh {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        if self.stale || self.size != ask.mh_table_size {
            self.fill(ask.servers, ask.tuple.to.ip(), ask.mh_table_size);
        }
        let slots = self.size as usize;
        let client = client(ask);
        let server = |offset: usize| {
            let offset = u32::try_from(offset).unwrap_or(0);
            let slot = hash(PLACE, client.wrapping_add(offset)) % slots;
            Some(*self.table.get(slot)? as usize)
        };
        let usable = |at: &usize| ask.servers[*at].is_usable();
        let picked = server(0)?;
        if usable(&picked) {
            return Some(picked);
        }
        if !ask.flags.fallback || ask.usable().next().is_none() {
            return None;
        }
        let first = hash(PLACE, client) % slots;
        (0..slots)
            .filter_map(|offset| server((offset + first) % slots))
            .find(usable)
    }

    fn added(&mut self, _servers: &[Candidate]) {
        self.stale = true;
    }

    fn removed(&mut self, _servers: &[Candidate], _index: usize, _gone: &Candidate) {
        self.stale = true;
    }

    fn reweighted(&mut self, _servers: &[Candidate]) {
        self.stale = true;
    }
}

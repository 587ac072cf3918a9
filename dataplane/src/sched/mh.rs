//! `mh`: Maglev hashing of the client (`ip_vs_mh.c`; Eisenbud et al., NSDI 2016): each server fills
//! a table in an order of its own, so that a server that comes or goes moves few clients.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use control::MH_TABLE_SIZES;
use siphasher::sip::SipHasher13;

use super::hash::{fold, words};
use super::sh::{client, known_by};
use super::table::{Member, Recipe, Table};
use super::{Ask, Scheduler, gcd};

const PLACE: u64 = 2_654_435_761;
const SKIP: u64 = 2_654_446_892;

#[derive(Debug, Clone, Default)]
pub(super) struct Mh {
    table: Option<Arc<Table>>,
}

/// One server's way through the table.
struct Claimant {
    place: u32,
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

/// The place of each slot's server among the members; none at all if none has a weight.
pub(super) fn slots(recipe: &Recipe) -> Vec<u32> {
    let size = recipe.mh_slots as usize;
    let mut claimants = claimants(recipe, size);
    if claimants.is_empty() {
        return Vec::new();
    }
    let mut table = vec![0; size];
    // A bit each: of a table of 65537 twelve are looked at for each one taken, and bits of so many fit
    // the nearest cache.
    let mut taken = vec![0u64; size.div_ceil(64)];
    let mut left = size;
    loop {
        for claimant in &mut claimants {
            for _ in 0..claimant.turns {
                let mut slot = claimant.slot;
                while taken[slot / 64] >> (slot % 64) & 1 != 0 {
                    slot += claimant.skip;
                    slot -= if slot >= size { size } else { 0 };
                }
                taken[slot / 64] |= 1 << (slot % 64);
                table[slot] = claimant.place;
                claimant.slot = slot;
                left -= 1;
                if left == 0 {
                    return table;
                }
            }
        }
    }
}

/// Turns in a round are scaled down to so many bits: half of the table's own.
fn turn_bits(slots: usize) -> u32 {
    (usize::BITS - slots.leading_zeros()) / 2
}

/// Those that ever had a weight, in the order in which they claim slots: LVS's, newest first, for
/// LVS's tables. Larger and other ones go by address, so that they do not depend on who was added
/// first.
fn claimants(recipe: &Recipe, slots: usize) -> Vec<Claimant> {
    let mut order: Vec<(u32, &Member)> = (0..).zip(&recipe.members).collect();
    let is_lvss = MH_TABLE_SIZES.contains(&recipe.mh_slots);
    if !is_lvss {
        order.sort_unstable_by_key(|(_, member)| member.address);
    }
    // With more servers than slots the last ones wait.
    order.truncate(slots);
    if is_lvss {
        order.reverse();
    }
    let weights = || order.iter().map(|(_, member)| member.weight);
    let unit = weights().map(i64::from).fold(0, gcd);
    let unit = u32::try_from(unit).unwrap_or(u32::MAX).max(1);
    let most = weights().max().unwrap_or(0) / unit;
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(turn_bits(slots));
    let weighted = order.into_iter().filter(|(_, member)| member.weight > 0);
    let claimant = |(place, member): (u32, &Member)| {
        let folded = match member.address.ip() {
            // LVS takes the service's family for the server's.
            IpAddr::V6(address) if !recipe.ipv6 => words(address)[0],
            address => fold(address),
        };
        let value = folded.wrapping_add(u32::from(member.address.port()));
        Claimant {
            place,
            slot: hash(PLACE, value) % slots,
            skip: hash(SKIP, value) % (slots - 1) + 1,
            turns: ((member.weight / unit) >> shift).max(1),
        }
    };
    weighted.map(claimant).collect()
}

impl Scheduler for Mh {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let table = self.table.as_ref()?;
        let slots = table.slots.len();
        let client = client(ask);
        let slot = |offset: usize| {
            let offset = u32::try_from(offset).unwrap_or(0);
            hash(PLACE, client.wrapping_add(offset)).checked_rem(slots)
        };
        let server = |slot| table.find(slot, ask.servers);
        let usable = |at: &usize| ask.servers[*at].is_usable();
        let first = slot(0)?;
        if let Some(picked) = server(first).filter(usable) {
            return Some(picked);
        }
        if !ask.flags.fallback || ask.usable().next().is_none() {
            return None;
        }
        (0..slots)
            .filter_map(|offset| server(slot((offset + first) % slots)?))
            .find(usable)
    }

    fn tabled(&mut self, table: &Arc<Table>) {
        self.table = Some(Arc::clone(table));
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let slots = self.table.as_ref().map_or(0, |table| table.slots.len());
        match hash(PLACE, client(ask)).checked_rem(slots) {
            Some(slot) => format!("slot {slot} of {slots}, by the hash of {}", known_by(ask)),
            None => "its table has no slots".to_owned(),
        }
    }
}

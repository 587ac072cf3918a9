//! `sh`: by the hash of the client (`ip_vs_sh.c`): 256 slots, of which each server takes as many in a
//! row as its weight, round and round.

use std::net::IpAddr;

use super::hash::{fold, slot};
use super::{Ask, Candidate, Scheduler};

pub(super) const SLOTS: usize = 256;

#[derive(Debug, Clone, Default)]
pub(super) struct Sh {
    /// Positions of servers; empty when it is to be filled anew.
    table: Vec<usize>,
}

/// The place of each slot's server among those with these weights, oldest first.
pub(super) fn slots(
    weights: impl DoubleEndedIterator<Item = u32> + Clone + ExactSizeIterator,
) -> Vec<usize> {
    let newest_first = weights.enumerate().rev().cycle();
    // A quiesced server keeps one slot.
    let runs = newest_first
        .flat_map(|(at, weight)| std::iter::repeat_n(at, (weight.max(1) as usize).min(SLOTS)));
    runs.take(SLOTS).collect()
}

impl Scheduler for Sh {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        if self.table.is_empty() {
            self.table = slots(ask.servers.iter().map(|server| server.weight));
        }
        let first = slot(client(ask));
        let usable = |at: &usize| ask.servers[*at].is_usable();
        let picked = *self.table.get(first)?;
        if usable(&picked) {
            return Some(picked);
        }
        if !ask.flags.fallback {
            return None;
        }
        // From twice the slot on, as in LVS.
        (0..SLOTS)
            .map(|offset| self.table[(offset + 2 * first) % SLOTS])
            .find(usable)
    }

    fn added(&mut self, _servers: &[Candidate]) {
        self.table.clear();
    }

    fn removed(&mut self, _servers: &[Candidate], _index: usize, _gone: &Candidate) {
        self.table.clear();
    }

    fn reweighted(&mut self, _servers: &[Candidate]) {
        self.table.clear();
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let slot = slot(client(ask));
        format!("slot {slot} of {SLOTS}, by the hash of {}", known_by(ask))
    }
}

/// What a client is known by: its address, and its port if that is to count.
pub(super) fn client(ask: &Ask<'_>) -> u32 {
    let from = ask.tuple.from;
    let port = if ask.flags.port { from.port() } else { 0 };
    fold(from.ip()).wrapping_add(u32::from(port))
}

/// As [`client`], for people.
pub(super) fn known_by(ask: &Ask<'_>) -> String {
    let from = ask.tuple.from;
    if ask.flags.port {
        from.to_string()
    } else {
        from.ip().to_string()
    }
}

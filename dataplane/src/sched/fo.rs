//! `fo`: failover (`ip_vs_fo.c`): all to the server of the highest weight.

use super::{Ask, Candidate, Scheduler};

#[derive(Debug)]
pub(super) struct Fo;

impl Scheduler for Fo {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        heaviest(ask.usable())
    }
}

/// The one of the highest weight; the first of equals.
pub(super) fn heaviest<'a>(servers: impl Iterator<Item = (usize, &'a Candidate)>) -> Option<usize> {
    let best = servers.reduce(|best, other| {
        if other.1.weight > best.1.weight {
            other
        } else {
            best
        }
    });
    best.map(|(at, _)| at)
}

//! `fo`: failover (`ip_vs_fo.c`): all to the server of the highest weight.

use std::net::IpAddr;

use super::{Ask, Candidate, Scheduler};

#[derive(Debug, Clone)]
pub(super) struct Fo;

impl Scheduler for Fo {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        heaviest(ask.usable())
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the highest weight".to_owned()
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

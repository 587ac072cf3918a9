//! `wlc`: the fewest connections for its weight (`ip_vs_wlc.c`), counted as `lc` does.

use std::net::IpAddr;

use super::{Ask, Scheduler, lightest};

#[derive(Debug, Clone)]
pub(super) struct Wlc;

impl Scheduler for Wlc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        pick(ask)
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        overheads(ask)
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the least (256*active+active+inactive)/weight".to_owned()
    }
}

/// Also what `lblc` and `lblcr` do with a destination that they do not know.
pub(super) fn pick(ask: &Ask<'_>) -> Option<usize> {
    lightest(ask.usable(), |server| ask.load(server).overhead())
}

/// What each server weighs, for people.
pub(super) fn overheads(ask: &Ask<'_>) -> Vec<String> {
    ask.ratios(|load| load.overhead())
}

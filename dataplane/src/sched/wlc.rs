//! `wlc`: the fewest connections for its weight (`ip_vs_wlc.c`), counted as `lc` does.

use super::{Ask, Scheduler, lightest};

#[derive(Debug)]
pub(super) struct Wlc;

impl Scheduler for Wlc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        pick(ask)
    }
}

/// Also what `lblc` and `lblcr` do with a destination that they do not know.
pub(super) fn pick(ask: &Ask<'_>) -> Option<usize> {
    lightest(ask.usable(), |server| ask.load(server).overhead())
}

//! `sed`: the shortest expected delay (`ip_vs_sed.c`): the active connections, the new one among
//! them, for the server's weight.

use super::{Ask, Scheduler, lightest};

#[derive(Debug)]
pub(super) struct Sed;

impl Scheduler for Sed {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        pick(ask)
    }
}

pub(super) fn pick(ask: &Ask<'_>) -> Option<usize> {
    lightest(ask.usable(), |server| ask.load(server).delay())
}

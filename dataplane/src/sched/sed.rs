//! `sed`: the shortest expected delay (`ip_vs_sed.c`): the active connections, the new one among
//! them, for the server's weight.

use std::net::IpAddr;

use super::{Ask, Scheduler, lightest};

#[derive(Debug, Clone)]
pub(super) struct Sed;

impl Scheduler for Sed {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        pick(ask)
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        delays(ask)
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the least (active+1)/weight".to_owned()
    }
}

pub(super) fn pick(ask: &Ask<'_>) -> Option<usize> {
    lightest(ask.usable(), |server| ask.load(server).delay())
}

/// How long each server's connections wait, for people.
pub(super) fn delays(ask: &Ask<'_>) -> Vec<String> {
    ask.ratios(|load| load.delay())
}

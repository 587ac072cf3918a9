//! `wlc`: the fewest connections for its weight (`ip_vs_wlc.c`), counted as `lc` does.

use std::net::IpAddr;

use super::ranks::Ranks;
use super::{Ask, Candidate, Load, Loads, Scheduler, lightest};

#[derive(Debug)]
pub(super) struct Wlc(Ranks);

impl Wlc {
    pub(super) fn new() -> Self {
        Self(Ranks::new(Load::overhead, true))
    }
}

impl Scheduler for Wlc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        self.0.best(ask).unwrap_or_else(|()| pick(ask))
    }

    fn added(&mut self, _servers: &[Candidate]) {
        self.0.forget();
    }

    fn removed(&mut self, _servers: &[Candidate], _index: usize, _gone: &Candidate) {
        self.0.forget();
    }

    fn reweighted(&mut self, _servers: &[Candidate]) {
        self.0.forget();
    }

    fn counted(&mut self, servers: &[Candidate], loads: &Loads, at: usize) {
        self.0.counted(servers, loads, at);
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(Self::new())
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

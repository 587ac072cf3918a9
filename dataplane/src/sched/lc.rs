//! `lc`: the fewest connections (`ip_vs_lc.c`), an active one counting as 257 others; weights count
//! only as zero or not.

use std::net::IpAddr;

use super::ranks::Ranks;
use super::{Ask, Candidate, Load, Loads, Scheduler};

#[derive(Debug)]
pub(super) struct Lc(Ranks);

impl Lc {
    pub(super) fn new() -> Self {
        Self(Ranks::new(Load::overhead, false))
    }
}

impl Scheduler for Lc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        self.0.best(ask).unwrap_or_else(|()| {
            let least = ask
                .usable()
                .min_by_key(|(_, server)| ask.load(server).overhead());
            least.map(|(at, _)| at)
        })
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
        let servers = ask.servers.iter();
        servers
            .map(|server| ask.load(server).overhead().to_string())
            .collect()
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the least 256*active+active+inactive".to_owned()
    }
}

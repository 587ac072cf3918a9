//! `lc`: the fewest connections (`ip_vs_lc.c`), an active one counting as 257 others; weights count
//! only as zero or not.

use std::net::IpAddr;

use super::{Ask, Scheduler};

#[derive(Debug, Clone)]
pub(super) struct Lc;

impl Scheduler for Lc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let least = ask
            .usable()
            .min_by_key(|(_, server)| ask.load(server).overhead());
        least.map(|(at, _)| at)
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
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

//! `ovf`: overflow (`ip_vs_ovf.c`): the server of the highest weight that has no more active
//! connections than its weight; none when all have.

use std::net::IpAddr;

use super::{Ask, Scheduler, fo};

#[derive(Debug, Clone)]
pub(super) struct Ovf;

impl Scheduler for Ovf {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let has_room = |server: &&_| ask.load(server).active <= u64::from(server.weight);
        fo::heaviest(ask.usable().filter(|(_, server)| has_room(server)))
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let of = |server| ask.load(server).active;
        let servers = ask.servers.iter();
        servers
            .map(|server| format!("{} of {}", of(server), server.weight))
            .collect()
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the highest weight among those with no more active connections than weight".to_owned()
    }
}

//! `nq`: never queue (`ip_vs_nq.c`): the first server without active connections, whatever its
//! weight; else as `sed`.

use std::net::IpAddr;

use super::{Ask, Scheduler, sed};

#[derive(Debug, Clone)]
pub(super) struct Nq;

impl Scheduler for Nq {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let idle = ask
            .usable()
            .find(|(_, server)| ask.load(server).active == 0);
        idle.map(|(at, _)| at).or_else(|| sed::pick(ask))
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        sed::delays(ask)
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "the first without active connections, or the least (active+1)/weight".to_owned()
    }
}

//! `nq`: never queue (`ip_vs_nq.c`): the first server without active connections, whatever its
//! weight; else as `sed`.

use super::{Ask, Scheduler, sed};

#[derive(Debug)]
pub(super) struct Nq;

impl Scheduler for Nq {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let idle = ask
            .usable()
            .find(|(_, server)| ask.load(server).active == 0);
        idle.map(|(at, _)| at).or_else(|| sed::pick(ask))
    }
}

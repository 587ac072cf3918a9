//! `ovf`: overflow (`ip_vs_ovf.c`): the server of the highest weight that has no more active
//! connections than its weight; none when all have.

use super::{Ask, Scheduler, fo};

#[derive(Debug)]
pub(super) struct Ovf;

impl Scheduler for Ovf {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let has_room = |server: &&_| ask.load(server).active <= u64::from(server.weight);
        fo::heaviest(ask.usable().filter(|(_, server)| has_room(server)))
    }
}

//! `lc`: the fewest connections (`ip_vs_lc.c`), an active one counting as 257 others; weights count
//! only as zero or not.

use super::{Ask, Scheduler};

#[derive(Debug)]
pub(super) struct Lc;

impl Scheduler for Lc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let least = ask
            .usable()
            .min_by_key(|(_, server)| ask.load(server).overhead());
        least.map(|(at, _)| at)
    }
}

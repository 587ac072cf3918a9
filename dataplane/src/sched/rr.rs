//! `rr`: one after the other (`ip_vs_rr.c`); weights count only as zero or not.

use super::{Ask, Candidate, Scheduler};

/// The server picked last; `None` is the list's head, before the newest.
#[derive(Debug, Default)]
pub(super) struct Rr(Option<usize>);

impl Scheduler for Rr {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let n = ask.servers.len();
        let from = self.0.unwrap_or(n);
        let picked = (1..=n)
            .map(|step| (from + n - step) % n)
            .find(|i| ask.servers[*i].is_usable())?;
        self.0 = Some(picked);
        Some(picked)
    }

    fn removed(&mut self, servers: &[Candidate], index: usize, _gone: &Candidate) {
        // The cursor of a server that goes moves to the one before it in LVS's order: the next newer.
        self.0 = match self.0 {
            Some(cursor) if cursor > index => Some(cursor - 1),
            Some(cursor) if cursor == index => Some(cursor).filter(|c| *c < servers.len()),
            cursor => cursor,
        };
    }
}

//! `rr`: one after the other (`ip_vs_rr.c`); weights count only as zero or not.

use std::net::IpAddr;

use super::{Ask, Candidate, Scheduler};

/// The server picked last; `None` is the list's head, before the newest.
#[derive(Debug, Clone, Default)]
pub(super) struct Rr(Option<usize>);

impl Scheduler for Rr {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let n = ask.servers.len();
        let from = self.0.unwrap_or(n);
        // Down to the oldest, and then from the newest on.
        let (older, others) = ask.servers.split_at(from.min(n));
        let picked = (older.iter().rposition(Candidate::is_usable))
            .or_else(|| Some(from + others.iter().rposition(Candidate::is_usable)?))?;
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

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let n = ask.servers.len();
        let from = self.0.unwrap_or(n);
        let turn = |at: usize| (from + n - at - 1) % n + 1;
        (0..n).map(|at| format!("turn {}", turn(at))).collect()
    }

    fn rule(&self, _ask: &Ask<'_>) -> String {
        "one after the other, the newest first".to_owned()
    }
}

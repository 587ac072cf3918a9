//! Schedulers: which real server takes a new connection.
//!
//! LVS walks a service's servers newest first. Here they lie oldest first in a slice, so that adding
//! one moves none: "first in LVS's order" is the slice's last.

mod rr;
mod wrr;

use crate::update::ServerId;
use crate::wire::flow::Tuple;

/// A real server as a scheduler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub id: ServerId,
    /// Its share of new connections; 0 means none.
    pub weight: u32,
}

/// Chooses the server of a new connection. One instance a service a worker.
pub trait Scheduler: Send + std::fmt::Debug {
    /// Picks one with weight, by its position in `servers`; `None` when there is none.
    fn pick(&mut self, servers: &[Candidate], tuple: &Tuple) -> Option<usize>;
    /// The last of `servers` is new.
    fn added(&mut self, _servers: &[Candidate]) {}
    /// The server that stood at `index` is gone from `servers`.
    fn removed(&mut self, _servers: &[Candidate], _index: usize) {}
    /// Weights changed.
    fn reweighted(&mut self, _servers: &[Candidate]) {}
}

/// The schedulers there are, by LVS's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Rr,
    Wrr,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Rr, Self::Wrr];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A scheduler in its first state, over `servers`.
    pub fn bind(self, servers: &[Candidate]) -> Box<dyn Scheduler> {
        match self {
            Self::Rr => Box::new(rr::Rr::default()),
            Self::Wrr => Box::new(wrr::Wrr::new(servers)),
        }
    }
}

/// The position after `index` in LVS's walk, `None` being the list's head; `None` again at its end.
fn next(servers: &[Candidate], index: Option<usize>) -> Option<usize> {
    index.unwrap_or(servers.len()).checked_sub(1)
}

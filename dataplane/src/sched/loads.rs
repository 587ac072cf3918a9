//! How many connections each server has: every worker counts its own, in its page.

use std::sync::Arc;

use crate::counters::Page;
use crate::cpu;
use crate::update::ServerId;

/// Connections of one server, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub active: u64,
    pub inactive: u64,
}

impl Load {
    pub fn total(self) -> u64 {
        self.active + self.inactive
    }

    /// What a server's connections weigh: 256 for an active one, and 1 for each.
    pub fn overhead(self) -> u64 {
        256 * self.active + self.total()
    }

    /// When it would answer next, in connections.
    pub fn delay(self) -> u64 {
        self.active + 1
    }
}

/// The pages of all workers.
#[derive(Debug, Clone, Default)]
pub struct Loads(Arc<[Arc<Page>]>);

impl Loads {
    pub fn new(pages: Arc<[Arc<Page>]>) -> Self {
        Self(pages)
    }

    /// Whether nobody else counts.
    pub fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// Begins to load what is counted of a server, if nobody else counts.
    #[inline(always)]
    pub fn prefetch(&self, id: ServerId) {
        if let [page] = &*self.0 {
            cpu::prefetch(&page.servers, id.index());
        }
    }

    /// As of now, or a moment ago for what other workers count.
    pub fn of(&self, id: ServerId) -> Load {
        let mut load = Load::default();
        for page in &*self.0 {
            let server = &page.servers[id.index()];
            load.active += u64::from(server.active.get());
            load.inactive += u64::from(server.inactive.get());
        }
        load
    }
}

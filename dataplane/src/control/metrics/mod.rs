//! Metrics in Prometheus's text format: over HTTP, and through the socket.
//!
//! The main thread only hands over what is configured ([`View`], kept until it changes) and what the
//! daemon around the director knows. Whoever formats reads the workers' pages itself.

mod families; // every metric
mod http; // the endpoint
#[cfg(test)]
mod tests;
mod text; // the format

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use control::{Announced, MetricsCursor, NodeState, SyncStatus};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::Worker;
use super::health::Checks;
use super::model::{Limits, View};
use super::stats::Machine;
use crate::counters::{Page, ServerPage};
use crate::health::Status;
use crate::templates::Templates;
use crate::update::ServerId;

pub use self::families::{Family, families};
pub use self::http::serve;
pub use self::text::Kind;

/// Formatted at once; what is longer comes in parts of a little more than this.
const PART: usize = 1 << 20;
/// Scrapes that wait for the main thread.
const WAITING_MAX: usize = 16;
/// How long the main thread may take to answer one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker as it was when the scrape began; its page goes on counting.
#[derive(Debug)]
pub struct WorkerView {
    pub core: u16,
    pub page: Arc<Page>,
    /// Commands that wait for it.
    pub mailbox: usize,
}

/// What one scrape is made from.
#[derive(Debug)]
pub struct Scrape {
    pub view: Arc<View>,
    pub workers: Vec<WorkerView>,
    pub templates: Option<Arc<Templates>>,
    pub checks: Arc<Checks>,
    pub machine: Machine,
    /// The daemons that run.
    pub sync: Vec<SyncStatus>,
    pub node: NodeState,
    pub announced: Vec<Announced>,
    pub limits: Limits,
    /// Per worker.
    pub connections_max: u64,
    pub uptime: Duration,
}

impl Scrape {
    /// What all workers count of a server.
    fn sum(&self, id: ServerId, get: impl Fn(&ServerPage) -> u64) -> u64 {
        let pages = self.workers.iter().map(|worker| &worker.page.servers);
        let counts = pages.filter_map(|servers| servers.get(id.index()).map(&get));
        counts.fold(0, u64::wrapping_add)
    }

    /// How each check of a server is.
    fn statuses(&self, id: ServerId) -> impl Iterator<Item = Status> {
        let checks = self.checks.get(&id).into_iter().flatten();
        checks.map(|check| check.status())
    }

    /// The text from `cursor` on, some [`PART`] of it, and where it goes on. `servers` says whether
    /// servers have series of their own.
    pub fn part(&self, cursor: MetricsCursor, servers: bool) -> (String, Option<MetricsCursor>) {
        let mut out = String::with_capacity(PART + PART / 8);
        let mut born = cursor.service;
        for (index, family) in families().enumerate().skip(cursor.family) {
            if family.is_of_servers() && !servers {
                continue;
            }
            let from = std::mem::take(&mut born);
            if let Some(service) = family.write(self, from, PART, &mut out) {
                let family = index;
                return (out, Some(MetricsCursor { family, service }));
            }
            if out.len() >= PART {
                let family = index + 1;
                return (out, Some(MetricsCursor { family, service: 0 }));
            }
        }
        (out, None)
    }
}

/// Asks the main thread for [`Scrape`]s.
#[derive(Clone)]
pub struct Scraper {
    asks: Sender<Sender<Scrape>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Scraper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraper").finish_non_exhaustive()
    }
}

/// A scraper, which calls `wake` after each ask, and where the main thread finds what was asked.
pub fn scraper(wake: impl Fn() + Send + Sync + 'static) -> (Scraper, Receiver<Sender<Scrape>>) {
    let (asks, asked) = bounded(WAITING_MAX);
    let wake = Arc::new(wake);
    (Scraper { asks, wake }, asked)
}

impl Scraper {
    /// `None` if the main thread does not answer in time.
    pub fn scrape(&self) -> Option<Scrape> {
        let (reply, answers) = bounded(1);
        self.asks.try_send(reply).ok()?;
        (self.wake)();
        answers.recv_timeout(ANSWER_TIMEOUT).ok()
    }
}

pub(super) fn workers(workers: &[Worker]) -> Vec<WorkerView> {
    let view = |worker: &Worker| WorkerView {
        core: worker.core,
        page: Arc::clone(&worker.page),
        mailbox: worker.mailbox.len(),
    };
    workers.iter().map(view).collect()
}

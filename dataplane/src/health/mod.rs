//! Health checks: servers are probed from one thread, over the host's own sockets or as clients are served. What is here knows
//! nothing of services; who wants servers watched says which [`Spec`]s, and looks at each [`Check`].

mod command; // programs
mod course; // when a probe is sent, and what makes a verdict
mod dns; // questions and answers
mod echo; // ICMP
mod engine; // the thread
mod gate; // by the director
mod talk; // TCP and UDP: something is said, something is answered
#[cfg(test)]
mod tests;
mod web; // HTTP and HTTPS

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::{Fitness, Probe, Rhythm};

pub use self::engine::Engine;
pub use self::gate::{Gate, Way};

/// What is probed, how and how often: who wants the same shares one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Of ICMP and commands the port means nothing.
    pub target: SocketAddr,
    /// By the director; `None`: by the host's own network.
    pub way: Option<Way>,
    pub probe: Probe,
    pub rhythm: Rhythm,
}

/// What is watched, and how it is.
#[derive(Debug)]
pub struct Check {
    /// Never used again.
    id: usize,
    pub spec: Spec,
    status: Mutex<Status>,
}

/// How a target is.
#[derive(Debug, Clone)]
pub struct Status {
    pub fitness: Fitness,
    pub since: Instant,
    /// The last probe that ended.
    pub last: Option<Last>,
    /// Probes that ended, and those of them that failed.
    pub probes: u64,
    pub failures: u64,
}

#[derive(Debug, Clone)]
pub struct Last {
    pub at: Instant,
    pub outcome: Outcome,
    pub latency: Duration,
}

/// What a probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Why, in words.
    Failed(String),
    /// It could not be sent, for which the target can do nothing.
    Unsent(String),
}

impl Check {
    fn new(id: usize, spec: Spec) -> Self {
        let status = Mutex::new(Status {
            fitness: Fitness::Unknown,
            since: now(),
            last: None,
            probes: 0,
            failures: 0,
        });
        Self { id, spec, status }
    }

    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    pub fn fitness(&self) -> Fitness {
        self.lock().fitness
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Each of its values is right by itself.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// Whether the target passed, if that can be said.
    fn passed(&self) -> Option<bool> {
        match self {
            Self::Passed => Some(true),
            Self::Failed(_) => Some(false),
            Self::Unsent(_) => None,
        }
    }

    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Passed => "ok",
            Self::Failed(why) | Self::Unsent(why) => why,
        }
    }
}

impl From<io::Error> for Outcome {
    /// What a socket says. A machine that is short of something says nothing of the target.
    fn from(error: io::Error) -> Self {
        use nix::libc::{EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM};
        let short = [EADDRNOTAVAIL, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPERM];
        match (error.kind(), error.raw_os_error()) {
            (_, Some(number)) if short.contains(&number) => Self::Unsent(lower(&error)),
            (ErrorKind::ConnectionRefused, _) => Self::Failed("connection refused".to_owned()),
            (ErrorKind::ConnectionReset, _) => Self::Failed("connection reset".to_owned()),
            _ => Self::Failed(lower(&error)),
        }
    }
}

/// `No route to host (os error 113)` as `no route to host`
fn lower(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "probes are timed here, away from every packet"
)]
fn now() -> Instant {
    Instant::now()
}

//! The control side, on the main thread: a request becomes updates in every worker's mailbox.

pub mod model; // the authoritative services and servers
pub mod stats; // sums, rates, status

use std::sync::Arc;

use crate::counters::Page;

/// Program and release, for people.
pub const PROGRAM: &str = concat!("directord ", env!("CARGO_PKG_VERSION"));

/// One worker, as the control side sees it.
#[derive(Debug)]
pub struct Worker {
    pub core: u16,
    pub page: Arc<Page>,
}

//! DPDK made safe: the EAL, mempools, mbufs, ports, queues and worker threads. No other module
//! of the workspace holds unsafe code, and no DPDK type leaves this one.
//!
//! Lifetimes are kept by reference counts, not by the caller: the EAL outlives whatever came
//! from it, a mempool outlives its ports, and a port closes when the last of its handle and its
//! queues goes.
#![allow(
    unsafe_code,
    reason = "DPDK is C; every block names what the callee demands and why it holds"
)]

mod af_packet;
mod eal;
mod mbuf;
mod mempool;
mod port;
mod queue;
mod thread;

pub use af_packet::with_room;
pub use eal::{Eal, EalConfig, check_core};
pub use mbuf::{Mbuf, free_burst};
pub use mempool::Mempool;
pub use port::{Offer, Port, PortConfig, PortStats, data_room, interface_below, queue_hint};
pub use queue::{RxQueue, TxQueue};
pub use thread::{WorkerThread, register_worker, socket_of};

use std::ffi::{CStr, CString, c_int};

use dpdk_sys as ffi;

use crate::packet::BURST;

/// Bytes in front of every frame in which headers can grow.
pub const HEADROOM: u16 = 128;
const _: () = assert!(
    ffi::RTE_PKTMBUF_HEADROOM == 128,
    "DPDK was built with another headroom"
);

/// [`BURST`] as DPDK counts.
#[expect(clippy::cast_possible_truncation, reason = "BURST is 32")]
const BURST_LEN: u16 = BURST as u16;

/// What DPDK or its environment refused: one line that says what, why, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the EAL was already initialised: it can be once in a process")]
    AlreadyInitialised,
    #[error("EAL: {0}")]
    Eal(String),
    #[error("huge pages: {0}")]
    HugePages(String),
    #[error("core {core}: {reason}")]
    Core { core: u16, reason: String },
    #[error("device {device}: {reason}")]
    Device { device: String, reason: String },
    #[error("mempool {name}: {reason}")]
    Mempool { name: String, reason: String },
    #[error("port {port} ({device}): {reason}")]
    Port {
        port: String,
        device: String,
        reason: String,
    },
}

/// The release that is loaded: `DPDK 22.11.11`.
pub fn version() -> String {
    // SAFETY: takes nothing; the answer is a static NUL-terminated string.
    unsafe { CStr::from_ptr(ffi::rte_version()) }
        .to_string_lossy()
        .into_owned()
}

/// `text` for C, or the one reason why it cannot be.
fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{text:?} contains a zero byte"))
}

/// What DPDK calls the error number `code`, of either sign.
fn describe(code: c_int) -> String {
    // SAFETY: takes any number; the answer is a static or thread-local NUL-terminated string,
    // copied before this thread can ask again.
    unsafe { CStr::from_ptr(ffi::rte_strerror(code.saturating_abs())) }
        .to_string_lossy()
        .into_owned()
}

/// DPDK's `errno` of this thread, in words.
fn last_error() -> String {
    // SAFETY: reads a thread-local integer that every thread has.
    describe(unsafe { ffi::director_errno() })
}

//! Shared by the system tests: where the built binaries are, and how a daemon is started and ended.

#[path = "../dataplane/src/director/frames.rs"]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the director's own tests include it too"
)]
pub mod frames; // packets, built by code that shares nothing with the director
pub mod lab; // a director without DPDK, driven packet by packet
pub mod packets; // IP packets of either family, likewise
pub mod recorded; // the machine of the recordings

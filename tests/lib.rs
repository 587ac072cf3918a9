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

use std::path::PathBuf;

/// A program built in the same profile as this test.
pub fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a file");
    let path = test.ancestors().nth(2).expect("a folder").join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p dataplane -p ctl -p director-ipvs",
        path.display()
    );
    path
}

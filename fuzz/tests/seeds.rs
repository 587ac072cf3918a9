//! Every seed, and every input that once failed, through its target.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

#[test]
fn seeds_pass() {
    for (name, run) in fuzz::TARGETS {
        let seeds = fuzz::seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seed");
        for (_, seed) in seeds {
            run(&seed);
        }
    }
}

#[test]
fn what_once_failed_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    for (name, run) in fuzz::TARGETS {
        for entry in fs::read_dir(folder.join(name)).into_iter().flatten() {
            run(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

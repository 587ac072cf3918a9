//! What the daemons count. Each counter has one writer at a time but those of several ports.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Counts up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// As it was last.
#[derive(Debug, Default)]
pub struct Level(AtomicU32);

impl Level {
    pub fn set(&self, n: u32) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Of both daemons, since the director started.
#[derive(Debug, Default)]
pub struct SyncPage {
    /// Connections and templates that the master told.
    pub told: Count,
    /// Its datagrams, and those that the network did not take.
    pub sent: Count,
    pub sent_bytes: Count,
    pub unsent: Count,
    /// From when a worker had news to when the master wrote it, of the last one.
    pub lag_ms: Level,
    /// Datagrams that the backup took in, and others: of another sync id, or broken.
    pub received: Count,
    pub received_bytes: Count,
    pub ignored: Count,
    /// Connections and templates that it gave to workers; that were wrong; that a worker had no room
    /// for.
    pub heard: Count,
    pub refused: Count,
    pub late: Count,
    /// 1 once a master has told everything since the backup began.
    pub complete: Level,
}

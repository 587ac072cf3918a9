//! Metrics, and how much workers do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a text of metrics goes on: a metric and, of one with series for services, the service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MetricsCursor {
    pub family: usize,
    pub service: u64,
}

/// What a worker does with its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pace {
    /// Cycles a second; 0 before the worker runs.
    pub hz: u64,
    /// Of passes that took packets in hand, of others with something to do, and of idle ones.
    pub packet_cycles: u64,
    pub control_cycles: u64,
    pub idle_cycles: u64,
    pub passes: u64,
    /// Taken in hand: received, or handed over by another worker.
    pub packets: u64,
    /// Of the last 16 to 32 seconds: nanoseconds of the longest pass, a rest included.
    pub longest_gap_ns: u64,
    /// Commands that wait for it.
    pub mailbox: u64,
    /// Packets in the rings to it when it last looked.
    pub steering_waiting: u64,
    /// Batches of changes that it applied.
    pub batches: u64,
}

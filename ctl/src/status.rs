//! What is counted, and how the daemon, its ports and its workers are.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Pace, PortHardware, Steering};

/// Totals since start or the last `Change::Zero`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    pub conns: u64,
    pub in_packets: u64,
    pub out_packets: u64,
    pub in_bytes: u64,
    pub out_bytes: u64,
}

impl Totals {
    /// In the order in which every listing has them.
    pub const fn columns(&self) -> [u64; 5] {
        [
            self.conns,
            self.in_packets,
            self.out_packets,
            self.in_bytes,
            self.out_bytes,
        ]
    }
}

/// Per second, by LVS's estimator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    pub cps: u64,
    pub in_pps: u64,
    pub out_pps: u64,
    pub in_bps: u64,
    pub out_bps: u64,
}

/// How the daemon is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    pub program: String,
    pub uptime_s: u64,
    pub ports: Vec<PortStatus>,
    pub workers: Vec<WorkerStatus>,
    /// Whether rx + made = the sum of ends + held, over all workers, when this was taken. Only
    /// meaningful while no packet is in flight.
    pub balanced: bool,
    /// Mbufs out of their pools, for leak hunting.
    pub mbufs_in_use: u64,
    /// Persistence templates, which all workers share.
    #[serde(default)]
    pub templates: u64,
    #[serde(default)]
    pub templates_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortStatus {
    pub name: String,
    pub device: String,
    pub mac: String,
    pub mtu: u16,
    pub link_up: bool,
    #[serde(default)]
    pub used: PortUse,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Received here: each packet once.
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// What became of the packets received (or made) here, by name.
    pub ends: BTreeMap<String, u64>,
    pub drops: BTreeMap<String, u64>,
    /// What its driver can do.
    #[serde(default)]
    pub hardware: Option<PortHardware>,
}

/// How a port is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PortUse {
    /// Megabits a second; `None` if the driver does not say.
    pub speed_mbps: Option<u32>,
    /// For receiving, and as many for sending: one of each for every worker.
    pub queues: u16,
    /// What the device does for us.
    pub offloads: Vec<String>,
    /// With several workers.
    pub steering: Option<Steering>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStatus {
    pub core: u16,
    pub rx: u64,
    pub made: u64,
    pub held: u64,
    pub connections: u64,
    pub connections_max: u64,
    pub steered_out: u64,
    pub steered_in: u64,
    pub ends: BTreeMap<String, u64>,
    /// Of the dropped: the reasons that occurred.
    pub drops: BTreeMap<String, u64>,
    #[serde(default)]
    pub pace: Pace,
}

//! What the driver of a port can do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A NIC, real or not, as DPDK knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct PortHardware {
    /// `net_mlx5`
    pub driver: String,
    pub rx_queues_max: u16,
    pub tx_queues_max: u16,
    pub mtu_min: u16,
    pub mtu_max: u16,
    /// Whether it spreads packets over queues by their addresses and ports.
    pub rss: bool,
    pub rx_offloads: Vec<String>,
    pub tx_offloads: Vec<String>,
}

impl fmt::Display for PortHardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |offloads: &[String]| match offloads {
            [] => "none".to_owned(),
            some => some.join(" "),
        };
        write!(
            f,
            "{}, {} rx and {} tx queues, MTU {} to {}, RSS {}, rx offloads {}, tx offloads {}",
            self.driver,
            self.rx_queues_max,
            self.tx_queues_max,
            self.mtu_min,
            self.mtu_max,
            if self.rss { "yes" } else { "no" },
            names(&self.rx_offloads),
            names(&self.tx_offloads),
        )
    }
}

//! Whether a director is to have clients, and where its virtual addresses are announced.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;

/// Whether clients are to come to this director.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Not yet: a backup daemon has not heard all connections of others.
    Starting,
    Active,
    /// No more: it was asked to let them go.
    Draining,
}

impl Word for NodeState {
    const ALL: &'static [Self] = &[Self::Starting, Self::Active, Self::Draining];

    fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

/// What a director does as one of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    pub state: NodeState,
    /// Seconds for which it has been so.
    pub since_s: u64,
    /// Those of services that are announced where they are fit to be.
    pub addresses: Vec<Announced>,
    /// Packets that clients have sent to services.
    pub packets: u64,
    /// Connections of services that are established.
    pub connections: u64,
}

/// A virtual address that routing daemons are to announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Announced {
    pub address: IpAddr,
    /// The kernel's, where it is.
    pub interface: String,
    /// Why it is not there; `None`: it is.
    pub withheld: Option<Withheld>,
}

/// Why an address is not announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// The director is starting or draining.
    Node,
    /// Of one of its services too few servers are up.
    Servers,
    /// The kernel has no such interface.
    Interface,
}

impl Word for Withheld {
    const ALL: &'static [Self] = &[Self::Node, Self::Servers, Self::Interface];

    fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Servers => "servers",
            Self::Interface => "interface",
        }
    }
}

//! Real servers: how they are reached, what can be said of them, and how they are.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Rates, ServerHealth, Totals};

/// Forwarding method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ForwardMode {
    /// The server's address takes the virtual one's place, and back.
    Nat,
    /// Direct routing: the packet goes to the server as it is; the server answers by itself.
    Direct,
    /// The packet goes to the server inside another; the server answers by itself.
    Tunnel,
    /// As NAT, and a local address of the director's takes the client's place.
    FullNat,
}

/// How a packet is wrapped for a server with [`ForwardMode::Tunnel`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Tunnel {
    pub kind: TunnelKind,
    /// UDP destination port of GUE; 0 for the others.
    pub port: u16,
    pub checksum: TunnelChecksum,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TunnelKind {
    /// IP in IP (RFC 2003, RFC 4213, RFC 2473).
    #[default]
    Ipip,
    /// Generic UDP encapsulation, version 0.
    Gue,
    /// RFC 2784.
    Gre,
}

/// Checksum of the tunnel's own header; IPIP has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TunnelChecksum {
    #[default]
    None,
    Full,
    /// Remote checksum offload (GUE). What is forwarded has its checksums already, so that this is
    /// the same as [`Self::Full`] on the wire, as in LVS.
    Remote,
}

/// What can be edited of a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerSpec {
    pub mode: ForwardMode,
    /// Share of new connections; 0 means none, but existing ones stay.
    pub weight: u32,
    /// Of [`ForwardMode::Tunnel`]; the default for all others.
    #[serde(default)]
    pub tunnel: Tunnel,
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// When a server has too many connections; 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// With so many connections a server gets no more ...
    pub upper: u32,
    /// ... until it has fewer than so many; 0 stands for three quarters of `upper`.
    pub lower: u32,
}

/// What becomes of a server that gets no new connections, those of persistent clients included. An
/// edit of its weight ends it, whoever makes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// Seconds from now on until the connections that are left are cut; `None`: never.
    pub deadline_s: Option<u32>,
    /// Both ends of a TCP connection that is cut get a reset.
    pub reset: bool,
    /// The server is deleted once it has no connections.
    pub delete: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    pub address: SocketAddr,
    pub spec: ServerSpec,
    pub active: u32,
    pub inactive: u32,
    /// Persistence templates that name it.
    #[serde(default)]
    pub persistent: u32,
    pub totals: Totals,
    pub rates: Rates,
    /// The weight it has now, while it grows to what it is set to.
    #[serde(default)]
    pub weight_now: Option<u32>,
    #[serde(default)]
    pub draining: Option<Draining>,
    /// `None`: nobody watches it.
    #[serde(default)]
    pub health: Option<ServerHealth>,
}

impl Server {
    /// Whether LVS lists it: not while it is removed for its health.
    pub fn is_listed(&self) -> bool {
        !self.health.is_some_and(|health| health.removed)
    }

    /// As LVS lists it: the one that it is set to, 0 while its health withholds it.
    pub fn weight_listed(&self) -> u32 {
        match self.health {
            Some(health) if health.is_withheld() => 0,
            _ => self.spec.weight,
        }
    }
}

/// A server that is being drained; its weight is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Draining {
    /// What is to be done at the end; its deadline is what is left of it.
    pub drain: Drain,
    /// Before, and again when it is cancelled.
    pub weight: u32,
}

//! What would become of a packet, and why.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{End, File, ForwardMode, Protocol, ServiceKey};

/// The packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    pub protocol: Protocol,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Name of the port where it comes in, with its VLAN as in `p0.100`; where packets to its sender
    /// leave, if `None`.
    #[serde(default)]
    pub port: Option<String>,
    /// Of a TCP segment: `S`, `SA`, `FA`, …; a SYN if `None`.
    #[serde(default)]
    pub flags: Option<String>,
    /// Bytes of the IP packet; as few as it takes if `None`.
    #[serde(default)]
    pub length: Option<u16>,
    /// What is in a datagram.
    #[serde(default)]
    pub says: Says,
    /// A director with this configuration is asked, not the one that runs.
    #[serde(default)]
    pub file: Option<File>,
}

/// What is in a datagram.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    #[default]
    Nothing,
    /// A SIP request with this Call-ID.
    CallId(String),
    /// A QUIC packet with this destination connection id, in hexadecimal.
    ConnectionId(String),
}

/// What becomes of the packet, step by step. Each step is in words; what programs may want to know
/// of it is beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// As it comes in.
    pub packet: Frame,
    pub steps: Vec<Step>,
    /// The service it belongs to.
    pub service: Option<ServiceKey>,
    /// Services that it nearly belongs to, and why it does not.
    pub near: Vec<(ServiceKey, String)>,
    /// The servers among which a scheduler chose, newest first.
    pub candidates: Vec<Candidate>,
    pub server: Option<SocketAddr>,
    pub method: Option<ForwardMode>,
    /// What the server sees as its client, in FULLNAT.
    pub local: Option<SocketAddr>,
    /// What leaves, in order.
    pub sent: Vec<Sent>,
    /// What waits for a neighbour, in words, as it will leave.
    pub held: Vec<String>,
    pub end: End,
    /// What became of it.
    pub says: String,
}

/// A step, and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// `worker`, `mark`, `connection`, `service`, `persistence`, `scheduler`, `forwarding`, `route`,
    /// `neighbour`.
    pub name: String,
    pub says: String,
}

/// A server as the scheduler sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    pub server: SocketAddr,
    pub weight: u32,
    pub active: u64,
    pub inactive: u64,
    pub overloaded: bool,
    pub draining: bool,
    /// What the scheduler goes by, if it is something of the server's.
    pub figure: Option<String>,
    pub chosen: bool,
}

/// A frame on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    pub port: String,
    /// The Ethernet addresses of the stations.
    pub from: String,
    pub to: String,
    /// In words.
    pub packet: String,
    /// All of it, in hexadecimal.
    pub bytes: String,
}

/// A frame that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    #[serde(flatten)]
    pub frame: Frame,
    /// The director made it: an answer, or a question to a neighbour.
    pub made: bool,
}

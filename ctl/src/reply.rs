//! What the daemon answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Captured, CheckStatus, Connection, Cursor, Dropped, Explained, MarkRule, MetricsCursor,
    Neighbour, Network, NodeStatus, Plan, Service, Settings, Status, SyncStatus,
};

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    Plan(Plan),
    Saved {
        /// TOML.
        text: String,
        /// Why it cannot be loaded as it is: what runs may be what no file may say.
        flaw: Option<String>,
    },
    Refused(Refusal),
    Services(Vec<Service>),
    Explained(Box<Explained>),
    Connections {
        list: Vec<Connection>,
        next: Option<Cursor>,
    },
    Drops {
        /// Oldest first.
        list: Vec<Dropped>,
        /// Of each worker since it started.
        counts: Vec<u64>,
    },
    CaptureStarted {
        /// The director's ports, by number; one that was deleted keeps its number as long as it can.
        ports: Vec<String>,
    },
    Captured {
        packets: Vec<Captured>,
        /// The director's ports now, by number.
        ports: Vec<String>,
        /// Packets so far that there was no room for.
        missed: u64,
        /// After `Request::StopCapture`: this was all, and the capture is forgotten.
        done: bool,
    },
    Timeouts {
        tcp: u32,
        tcp_fin: u32,
        udp: u32,
    },
    Settings(Settings),
    Status(Status),
    Metrics {
        text: String,
        next: Option<MetricsCursor>,
    },
    Neighbours(Vec<Neighbour>),
    Network(Network),
    Marks(Vec<MarkRule>),
    SyncDaemons(Vec<SyncStatus>),
    Health(Vec<CheckStatus>),
    Node(NodeStatus),
}

/// Why a request was not carried out. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{detail}")]
pub struct Refusal {
    pub errno: Errno,
    /// Position in `Request::Change` of the step at fault.
    pub step: Option<usize>,
    /// One sentence: what, where, what would be right.
    pub detail: String,
}

/// LVS's own vocabulary of refusals (`spec/control.md` §4); the CLI turns it into ipvsadm's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Errno {
    Eexist,
    Enoent,
    Esrch,
    Einval,
    Erange,
    Eperm,
    Enodev,
    Enomem,
    Eopnotsupp,
    /// The request was too long, malformed or of another version.
    Eproto,
    /// The daemon is stopping or a worker does not answer.
    Eagain,
}

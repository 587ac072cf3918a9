//! What clients ask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CaptureSpec, Change, Cursor, File, Filter, MetricsCursor, Question, ServiceKey};

/// The most connections one `Reply::Connections` carries.
pub const CONNECTIONS_MAX: usize = 4096;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Applies every change in order, or none of them.
    Change(Vec<Change>),
    /// What a file would change, and what that would do.
    Plan(File),
    /// Applies a file: all of it but what needs a restart, or nothing. With `confirm_s` the
    /// configuration from before comes back after so many seconds, unless [`Self::Confirm`] comes.
    Apply {
        file: File,
        confirm_s: Option<u32>,
    },
    /// What was applied last stays.
    Confirm,
    /// The configuration from before what waits for its confirmation comes back.
    Rollback,
    /// The running configuration, as a file.
    Save,
    /// Services with their servers and counters: all, newest first, or the one named.
    Services {
        only: Option<ServiceKey>,
    },
    /// What would become of a packet, and why.
    Explain(Box<Question>),
    /// Up to [`CONNECTIONS_MAX`] of the connections that `filter` chooses, from `cursor` on
    /// ([`Cursor::default`] starts).
    Connections {
        cursor: Cursor,
        #[serde(default)]
        filter: Filter,
    },
    /// As [`Self::Connections`], and ends them; the answer tells which.
    EndConnections {
        cursor: Cursor,
        filter: Filter,
        /// Both ends of TCP connections get a reset.
        reset: bool,
    },
    /// The last drops of every worker, but of each worker's only those after the first so many.
    Drops {
        after: Vec<u64>,
    },
    /// Begins this client's capture, which ends with it.
    StartCapture(CaptureSpec),
    /// What was captured since this was asked last, some of it if there is much.
    CapturedNext,
    /// Nothing more is captured; [`Self::CapturedNext`] goes on until it is done.
    StopCapture,
    /// TCP, TCP-FIN and UDP timeouts.
    Timeouts,
    Settings,
    /// Workers, ports, ends of packets and drop reasons.
    Status,
    /// Prometheus's text of all metrics, in parts ([`MetricsCursor::default`] starts).
    Metrics {
        cursor: MetricsCursor,
    },
    /// Neighbours as the first worker knows them.
    Neighbours,
    /// Ports, addresses, routes and static neighbours as they are configured.
    Network,
    /// The rules that mark packets, in order.
    Marks,
    /// The daemons that synchronise connections, the master first.
    SyncDaemons,
    /// Every check of every server.
    Health,
    /// Whether clients are to come to this director, and whether they do.
    Node,
    /// Nothing is announced any more, so that clients go to other directors; what comes is served.
    DrainNode,
    UndrainNode,
}

impl Request {
    /// Whether only who may change things may ask for it: it changes something, or shows what clients
    /// and servers say to each other.
    pub const fn is_privileged(&self) -> bool {
        match self {
            Self::Change(_)
            | Self::Apply { .. }
            | Self::Confirm
            | Self::Rollback
            | Self::EndConnections { .. }
            | Self::Drops { .. }
            | Self::StartCapture(_)
            | Self::CapturedNext
            | Self::StopCapture
            | Self::DrainNode
            | Self::UndrainNode => true,
            Self::Plan(_)
            | Self::Save
            | Self::Services { .. }
            | Self::Explain(_)
            | Self::Connections { .. }
            | Self::Timeouts
            | Self::Settings
            | Self::Status
            | Self::Metrics { .. }
            | Self::Neighbours
            | Self::Network
            | Self::Marks
            | Self::SyncDaemons
            | Self::Health
            | Self::Node => false,
        }
    }
}

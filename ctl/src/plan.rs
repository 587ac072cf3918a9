//! What a configuration file would change of what runs, and what that would do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Address, MarkRule, Prefix, Refusal, ServiceKey};

/// The difference between what runs and what a file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// As the user wrote it.
    pub file: String,
    /// What is done to what runs.
    pub differences: Vec<Difference>,
    /// What only a restart takes over: it stays as it runs.
    pub needs_restart: Vec<Restart>,
    pub forecast: Forecast,
    /// Why it cannot be applied, if it cannot.
    pub refused: Option<Refusal>,
    /// Seconds within which it must be confirmed, of what was applied so.
    pub confirm_s: Option<u32>,
}

impl Plan {
    /// Whether the file says what runs.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty() && self.needs_restart.is_empty()
    }
}

/// Something that comes, goes or is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    pub action: Action,
    #[serde(flatten)]
    pub what: What,
    /// Of an edit what changes, of what is added what is not the default.
    pub keys: Vec<KeyDifference>,
    /// What runs is not what the file loaded last says: somebody changed it by hand.
    pub by_hand: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Add,
    Edit,
    Delete,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    Port {
        port: String,
    },
    /// Of a port.
    Address {
        address: Address,
    },
    Route {
        to: Prefix,
    },
    /// A static one.
    Neighbour {
        neighbour: IpAddr,
    },
    Timeouts,
    Settings,
    Mark {
        rule: MarkRule,
        /// Its place in the list that has it, from 1 on.
        number: usize,
    },
    Service {
        service: ServiceKey,
    },
    Server {
        service: ServiceKey,
        server: SocketAddr,
    },
}

/// One key, with its values as in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyDifference {
    pub key: String,
    /// What runs, of what runs.
    pub before: Option<String>,
    pub after: String,
    pub by_hand: bool,
}

/// A key, or a whole section, that runs otherwise than the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// `director`, `port wan`, `route 0.0.0.0/0`
    pub section: String,
    /// `None` is the section.
    pub key: Option<String>,
    /// `None` where what runs has none of it.
    pub running: Option<String>,
    /// `None` where the file has none of it.
    pub file: Option<String>,
}

/// `director: workers [1] -> [1, 2]`, `port lan2: only in the file`
impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = &self.section;
        match (&self.key, &self.running, &self.file) {
            (Some(key), Some(running), Some(file)) => {
                write!(f, "{section}: {key} {running} -> {file}")
            }
            (_, Some(_), _) => write!(f, "{section}: not in the file"),
            (_, None, _) => write!(f, "{section}: only in the file"),
        }
    }
}

/// What a plan would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Connections of servers that stay.
    pub kept: u64,
    /// Connections of servers that go.
    pub cut: u64,
    /// The servers that are edited or go.
    pub servers: Vec<ServerForecast>,
    /// Services that hash clients to servers and would hash some of them to others.
    pub slots: Vec<SlotsForecast>,
    /// In the tables that servers are looked up in; less than nothing when they shrink.
    pub table_bytes_more: i64,
}

/// What becomes of the connections of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerForecast {
    pub service: ServiceKey,
    pub server: SocketAddr,
    pub connections: u64,
    /// Or cut.
    pub kept: bool,
}

/// How many of a service's hash slots would belong to another server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SlotsForecast {
    pub service: ServiceKey,
    pub scheduler: String,
    pub moved: u64,
    pub of: u64,
}

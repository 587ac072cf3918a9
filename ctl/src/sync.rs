//! Daemons that synchronise connections with other directors.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;
use crate::conf::{Key, quoted};

/// LVS's group, port and TTL.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;
const TTL: u8 = 1;

/// Whether a daemon tells connections, or takes in what others tell. There may be one of each.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum SyncRole {
    Master,
    Backup,
}

impl Word for SyncRole {
    const ALL: &'static [Self] = &[Self::Master, Self::Backup];

    fn word(self) -> &'static str {
        self.name()
    }
}

impl SyncRole {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for SyncRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A daemon of LVS's connection synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncDaemon {
    pub role: SyncRole,
    /// One of the kernel's.
    pub interface: String,
    /// Directors that stand by for each other have the same; a backup with 0 takes everybody's.
    #[serde(default)]
    pub sync_id: u8,
    /// Bytes of a datagram without its headers; `None` for what LVS has by the interface.
    #[serde(default)]
    pub max_len: Option<u16>,
    /// IPv4 or IPv6, multicast.
    #[serde(default = "group")]
    pub group: IpAddr,
    #[serde(default = "port")]
    pub port: u16,
    /// How many routers a datagram passes, and one more.
    #[serde(default = "ttl")]
    pub ttl: u8,
}

fn group() -> IpAddr {
    GROUP
}

fn port() -> u16 {
    PORT
}

fn ttl() -> u8 {
    TTL
}

impl SyncDaemon {
    /// As LVS has it unless told otherwise.
    pub fn new(role: SyncRole, interface: impl Into<String>) -> Self {
        Self {
            role,
            interface: interface.into(),
            sync_id: 0,
            max_len: None,
            group: GROUP,
            port: PORT,
            ttl: TTL,
        }
    }
}

/// UDP over IPv4 and over IPv6: headers of a datagram.
const HEADERS_V4: u32 = 28;
const HEADERS_V6: u32 = 48;
/// What LVS takes for a link's MTU when it sends, and the highest.
const MTU: u32 = 1500;
const MTU_MAX: u32 = 65_535;
/// A backup's longest datagram is not shorter.
const BACKUP_MIN: u32 = 1024;

impl SyncDaemon {
    /// With the length of datagrams that LVS has on an interface of this MTU.
    #[must_use]
    pub fn on(&self, mtu: u32) -> Self {
        let headers = if self.group.is_ipv4() {
            HEADERS_V4
        } else {
            HEADERS_V6
        };
        let (least, usual) = match self.role {
            SyncRole::Master => (1, MTU),
            SyncRole::Backup => (BACKUP_MIN, mtu.clamp(MTU, MTU_MAX)),
        };
        let len = (self.max_len).map_or(usual - headers, |len| {
            u32::from(len).clamp(least, MTU_MAX - headers)
        });
        Self {
            max_len: u16::try_from(len).ok(),
            ..self.clone()
        }
    }

    /// As a file has it.
    pub fn keys(&self) -> Vec<Key> {
        vec![
            Key::needed("role", quoted(self.role.name())),
            Key::needed("interface", quoted(&self.interface)),
            Key::new("sync_id", self.sync_id, 0),
            Key::perhaps("max_len", self.max_len),
            Key::new(
                "group",
                quoted(&self.group.to_string()),
                quoted(&GROUP.to_string()),
            ),
            Key::new("port", self.port, PORT),
            Key::new("ttl", self.ttl, TTL),
        ]
    }
}

/// `master on eth0, sync id 7, to 224.0.0.81 port 8848`
impl fmt::Display for SyncDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            role,
            interface,
            sync_id,
            max_len,
            group,
            port,
            ttl,
        } = self;
        write!(
            f,
            "{role} on {interface}, sync id {sync_id}, group {group} port {port}"
        )?;
        if let Some(max_len) = max_len {
            write!(f, ", at most {max_len} bytes")?;
        }
        if *ttl != TTL {
            write!(f, ", ttl {ttl}")?;
        }
        Ok(())
    }
}

/// A daemon that runs, and what it has done since the director started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SyncStatus {
    /// What was left out when it was started is filled in.
    pub daemon: SyncDaemon,
    /// Datagrams, and bytes of them, that it sent or took in.
    pub messages: u64,
    pub bytes: u64,
    /// Connections and templates that it told, or heard of.
    pub connections: u64,
    /// Those that were lost on the way: of a master, what workers had no room for or the network did
    /// not take; of a backup, what it could not read, knows no server of, or has no room for.
    pub lost: u64,
    /// Of a master: milliseconds that the last news took to the network.
    pub lag_ms: Option<u32>,
    /// Of a backup: whether a master has told everything since it began.
    pub complete: Option<bool>,
}

impl SyncStatus {
    /// Of one that has done nothing yet.
    pub fn idle(daemon: SyncDaemon) -> Self {
        let is_master = daemon.role == SyncRole::Master;
        Self {
            daemon,
            messages: 0,
            bytes: 0,
            connections: 0,
            lost: 0,
            lag_ms: is_master.then_some(0),
            complete: (!is_master).then_some(false),
        }
    }
}

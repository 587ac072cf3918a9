//! The file as it is written. Every value keeps its place in the text for the messages.

use std::collections::BTreeMap;

use control::{
    ClientAddress, Engine, ForwardMode, HashTarget, OnFailure, OnServerGone, Protocol, Refuse,
    Role, SyncDaemon, TunnelChecksum, TunnelKind, Vips,
};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::health::{RawCheck, RawPassive};
use super::{Idle, LogFormat};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) director: RawDirector,
    #[serde(default)]
    pub(super) eal: RawEal,
    #[serde(default)]
    pub(super) metrics: RawMetrics,
    #[serde(default)]
    pub(super) restart: RawRestart,
    #[serde(default)]
    pub(super) port: Vec<RawPort>,
    #[serde(default)]
    pub(super) route: Vec<RawRoute>,
    #[serde(default)]
    pub(super) neighbour: Vec<RawNeighbour>,
    #[serde(default)]
    pub(super) timeouts: RawTimeouts,
    #[serde(default)]
    pub(super) settings: BTreeMap<Spanned<String>, Spanned<Value>>,
    #[serde(default)]
    pub(super) mark: Vec<RawMark>,
    #[serde(default)]
    pub(super) sync: Vec<Spanned<SyncDaemon>>,
    #[serde(default)]
    pub(super) service: Vec<Spanned<RawService>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawDirector {
    pub(super) socket: Option<Spanned<String>>,
    pub(super) socket_group: Option<Spanned<String>>,
    pub(super) socket_read_group: Option<Spanned<String>>,
    pub(super) workers: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) control_core: Option<Spanned<i64>>,
    pub(super) idle: Option<Idle>,
    pub(super) max_connections: Option<Spanned<i64>>,
    pub(super) max_templates: Option<Spanned<i64>>,
    pub(super) max_services: Option<Spanned<i64>>,
    pub(super) max_servers: Option<Spanned<i64>>,
    pub(super) log: Option<Spanned<String>>,
    pub(super) log_format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEal {
    pub(super) huge_pages: Option<bool>,
    pub(super) memory_mb: Option<Spanned<i64>>,
    pub(super) file_prefix: Option<Spanned<String>>,
    pub(super) single_file_segments: Option<bool>,
    pub(super) extra: Vec<String>,
    pub(super) mbufs: Option<Spanned<i64>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawMetrics {
    pub(super) address: Option<Spanned<String>>,
    pub(super) servers: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRestart {
    pub(super) directory: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPort {
    pub(super) name: Spanned<String>,
    pub(super) device: Spanned<String>,
    #[serde(default)]
    pub(super) addresses: Vec<Spanned<String>>,
    pub(super) mtu: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) promiscuous: bool,
    pub(super) partial_checksums: Option<bool>,
    pub(super) rx_descriptors: Option<Spanned<i64>>,
    pub(super) tx_descriptors: Option<Spanned<i64>>,
    pub(super) kernel: Option<RawKernel>,
    pub(super) kernel_name: Option<Spanned<String>>,
    pub(super) vips: Option<Spanned<Vips>>,
    pub(super) role: Option<Spanned<Role>>,
    pub(super) workers: Option<Spanned<Vec<Spanned<i64>>>>,
    #[serde(default)]
    pub(super) vlan: Vec<RawVlan>,
}

/// `"off"`, or how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawKernel {
    Off,
    Auto,
    VirtioUser,
    Tap,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVlan {
    pub(super) id: Spanned<i64>,
    #[serde(default)]
    pub(super) addresses: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) to: Spanned<String>,
    pub(super) via: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNeighbour {
    pub(super) address: Spanned<String>,
    pub(super) mac: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTimeouts {
    pub(super) tcp: Option<Spanned<i64>>,
    pub(super) tcp_fin: Option<Spanned<i64>>,
    pub(super) udp: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMark {
    pub(super) mark: Spanned<i64>,
    pub(super) source: Option<Spanned<String>>,
    pub(super) destination: Option<Spanned<String>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) source_ports: Option<Spanned<RawPorts>>,
    pub(super) ports: Option<Spanned<RawPorts>>,
    pub(super) in_port: Option<String>,
    pub(super) vlan: Option<Spanned<i64>>,
}

/// `80` or `"8000-8010"`
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum RawPorts {
    One(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) protocol: Option<Spanned<Protocol>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) mark: Option<Spanned<i64>>,
    pub(super) family: Option<Family>,
    pub(super) scheduler: Option<Spanned<String>>,
    pub(super) scheduler_flags: Option<Vec<Spanned<String>>>,
    pub(super) persistent: Option<Spanned<i64>>,
    pub(super) netmask: Option<Spanned<Mask>>,
    pub(super) engine: Option<Spanned<Engine>>,
    #[serde(default)]
    pub(super) one_packet: bool,
    pub(super) client_address: Option<Spanned<ClientAddress>>,
    pub(super) mss: Option<Spanned<i64>>,
    pub(super) mh_table_size: Option<Spanned<i64>>,
    pub(super) timeout_tcp: Option<Spanned<i64>>,
    pub(super) timeout_tcp_fin: Option<Spanned<i64>>,
    pub(super) timeout_udp: Option<Spanned<i64>>,
    pub(super) refuse: Option<Spanned<Refuse>>,
    pub(super) on_server_gone: Option<Spanned<OnServerGone>>,
    pub(super) reset_on_expiry: Option<Spanned<bool>>,
    pub(super) slow_start: Option<Spanned<i64>>,
    pub(super) hash_target: Option<Spanned<HashTarget>>,
    #[serde(default)]
    pub(super) local_addresses: Vec<Spanned<String>>,
    pub(super) on_failure: Option<Spanned<OnFailure>>,
    pub(super) min_healthy: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) check: Vec<RawCheck>,
    pub(super) passive: Option<RawPassive>,
    #[serde(default)]
    pub(super) server: Vec<RawServer>,
}

/// Of the packets with a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

/// `"255.255.255.0"` or a prefix length.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Mask {
    Prefix(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) address: Spanned<String>,
    pub(super) method: Option<ForwardMode>,
    pub(super) tunnel: Option<Spanned<TunnelKind>>,
    pub(super) tunnel_port: Option<Spanned<i64>>,
    pub(super) tunnel_checksum: Option<Spanned<TunnelChecksum>>,
    pub(super) weight: Option<Spanned<i64>>,
    pub(super) upper_threshold: Option<Spanned<i64>>,
    pub(super) lower_threshold: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) sorry: bool,
    pub(super) check_address: Option<Spanned<String>>,
    pub(super) check_port: Option<Spanned<i64>>,
}

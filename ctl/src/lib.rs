//! The control protocol: what `directorctl` asks and `directord` answers over the Unix socket.
//!
//! A message is a 4-byte big-endian length and that many bytes of JSON. The client opens with
//! [`Hello`]; the daemon answers with its own. Then each [`Request`] gets exactly one [`Reply`].
//! Protocol types exist once, here; the daemon never sees command-line text.

mod capture; // the last drops, and captures
pub mod client;
pub mod conf; // what a configuration file says, and as TOML
mod connections; // listed, chosen and ended
pub mod doctor; // what a machine lacks
mod explain; // what becomes of a packet
mod file; // configuration files
mod hardware; // what the drivers of ports can do
pub mod health; // servers watched
pub mod import; // configurations of others
pub mod ipvsadm;
mod marks; // rules that mark packets
mod metrics; // for Prometheus, and how much workers do
mod network; // addresses, routes, static neighbours
mod node; // whether a director is to have clients
pub mod packet; // frames, read and in words
pub mod plan; // what a file would change
mod ports; // ports as they are configured
mod sense; // what nobody can mean
mod settings; // one by one
mod sync; // connections that other directors know of
pub mod usage;
mod words; // the words for what can be chosen

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use capture::{
    BUFFER, BUFFER_MAX, BUFFER_MIN, Bytes, CaptureSpec, Captured, Dropped, End, PacketFilter,
    SNAPLEN_MAX, Stage, TERMS_MAX, Traffic,
};
pub use conf::{Conf, ServerConf, ServiceConf, TimeoutsConf};
pub use connections::{Connection, Cursor, Filter, Side, Traits};
pub use explain::{Candidate, Explained, Frame, Question, Says, Sent, Step};
pub use file::File;
pub use hardware::PortHardware;
pub use health::{
    Check, CheckStatus, Dns, DnsRecord, Fitness, Health, Http, OnFailure, Passive, Payload, Probe,
    Rcode, Rhythm, ServerHealth, ServerOptions, ServiceHealth, StatusSet, Talk, Tls, Via,
};
pub use marks::{MarkRule, Ports, Prefix, WhichMark};
pub use metrics::{MetricsCursor, Pace};
pub use network::{
    Address, AddressPrefix, GATEWAYS_MAX, Gateways, KernelHop, KernelNetwork, KernelRoute, Mac,
    Network, Route, StaticNeighbour, interface, is_link_local, is_station, mac_text,
};
pub use node::{Announced, NodeState, NodeStatus, Withheld};
pub use plan::Plan;
pub use ports::{KernelDriver, KernelSide, PortSpec, Role, Steering, Vips};
pub use settings::{SETTINGS, Setting, Value};
pub use sync::{SyncDaemon, SyncRole, SyncStatus};
pub use words::{NoFlag, Word};

/// Bumped by every incompatible change; both ends must agree.
pub const VERSION: u32 = 7;
/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/director/director.sock";
/// The longest message either side accepts, in bytes.
/// Enough for a listing of 100 000 servers.
pub const MESSAGE_MAX: usize = 64 << 20;
/// The most connections one [`Reply::Connections`] carries.
pub const CONNECTIONS_MAX: usize = 4096;

/// A table of `mh` has as many slots as a prime from here ...
pub const MH_TABLE_SIZE_MIN: u32 = 251;
/// ... to here, the last one below 2^20.
pub const MH_TABLE_SIZE_MAX: u32 = 1_048_573;
/// The sizes among which LVS chooses when it is built.
pub const MH_TABLE_SIZES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071,
];
/// The one that `mh` has unless told otherwise.
pub const MH_TABLE_SIZE: u32 = 4093;

/// The first message of each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    pub version: u32,
    /// Program and release, for people.
    pub program: String,
}

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

/// One step of a [`Request::Change`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    AddService {
        service: ServiceKey,
        spec: ServiceSpec,
    },
    EditService {
        service: ServiceKey,
        spec: ServiceSpec,
    },
    DeleteService {
        service: ServiceKey,
    },
    /// Deletes every service.
    Flush,
    AddServer {
        service: ServiceKey,
        server: SocketAddr,
        spec: ServerSpec,
    },
    EditServer {
        service: ServiceKey,
        server: SocketAddr,
        spec: ServerSpec,
    },
    DeleteServer {
        service: ServiceKey,
        server: SocketAddr,
    },
    /// The server gets no new connections any more; see [`Drain`]. Of a server that drains already,
    /// only what is to be done at the end changes.
    DrainServer {
        service: ServiceKey,
        server: SocketAddr,
        drain: Drain,
    },
    /// The server has the weight again that it had before it was drained.
    CancelDrain {
        service: ServiceKey,
        server: SocketAddr,
    },
    /// A local address for FULLNAT: what the servers of this service see as their client.
    AddLocalAddress {
        service: ServiceKey,
        address: IpAddr,
    },
    DeleteLocalAddress {
        service: ServiceKey,
        address: IpAddr,
    },
    SetOptions {
        service: ServiceKey,
        options: ServiceOptions,
    },
    /// As [`Self::SetOptions`], of one of them.
    SetHashTarget {
        service: ServiceKey,
        hash_target: HashTarget,
    },
    SetSettings(Settings),
    /// How a service's servers are watched.
    SetHealth {
        service: ServiceKey,
        health: Box<Health>,
    },
    SetServerOptions {
        service: ServiceKey,
        server: SocketAddr,
        options: ServerOptions,
    },
    /// Moves the zero point of the counters: of all services, or of the one named.
    Zero {
        only: Option<ServiceKey>,
    },
    /// Seconds; `None` leaves a value unchanged.
    SetTimeouts {
        tcp: Option<u32>,
        tcp_fin: Option<u32>,
        udp: Option<u32>,
    },
    /// A device is started as a port.
    AddPort(PortSpec),
    /// With its addresses and VLANs; what waits to leave by it is sent.
    DeletePort {
        port: String,
    },
    /// The port's own VLANs come with their first address and go with their last one.
    AddAddress(Address),
    DeleteAddress(Address),
    AddRoute(Route),
    /// Instead of one to the same network, if there is one.
    ReplaceRoute(Route),
    DeleteRoute {
        to: Prefix,
    },
    AddNeighbour(StaticNeighbour),
    DeleteNeighbour {
        address: IpAddr,
    },
    /// Forgets the neighbours that were learned; those that are needed are asked for again.
    FlushNeighbours,
    /// The rule gets number `at`, from 1 on, and those from there on one more; `None` is the end.
    AddMark {
        rule: MarkRule,
        at: Option<usize>,
    },
    DeleteMark(WhichMark),
    /// Connections are told to other directors from now on, or taken from them.
    StartSync(SyncDaemon),
    StopSync {
        role: SyncRole,
    },
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// What identifies a virtual service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(untagged)]
pub enum ServiceKey {
    /// Packets for an address and a port; port 0 stands for every port that has no service of its own.
    Address {
        protocol: Protocol,
        address: SocketAddr,
    },
    /// Packets of one family that a [`MarkRule`] marks so, whatever their address and protocol.
    Mark { mark: NonZeroU32, ipv6: bool },
}

impl ServiceKey {
    pub const fn at(protocol: Protocol, address: SocketAddr) -> Self {
        Self::Address { protocol, address }
    }

    /// The virtual address; a service by mark has none of its own.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address { address, .. } => Some(*address),
            Self::Mark { .. } => None,
        }
    }

    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Address { protocol, .. } => Some(*protocol),
            Self::Mark { .. } => None,
        }
    }

    /// The virtual port; 0 stands for every port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port(),
            Self::Mark { .. } => 0,
        }
    }

    /// The family of the clients' packets.
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }
}

/// What can be edited of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceSpec {
    /// LVS's name: `rr`, `wrr`, …
    pub scheduler: String,
    #[serde(default)]
    pub flags: SchedulerFlags,
    /// Clients come back to the server they had.
    #[serde(default)]
    pub persistence: Option<Persistence>,
    /// What tells clients apart for [`Self::persistence`]; their address if `None`.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Each UDP datagram is scheduled by itself.
    #[serde(default)]
    pub one_packet: bool,
}

impl ServiceSpec {
    /// With a scheduler of LVS's name and nothing else.
    pub fn new(scheduler: impl Into<String>) -> Self {
        Self {
            scheduler: scheduler.into(),
            flags: SchedulerFlags::default(),
            persistence: None,
            engine: None,
            one_packet: false,
        }
    }
}

/// How long, and which clients together, a service's clients keep their server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Persistence {
    /// Seconds since the client's last new connection.
    pub timeout_s: u32,
    /// Clients whose address is the same under it share a server.
    pub netmask: Netmask,
}

/// Of LVS's `-M`: any mask for IPv4, a prefix length (1 to 128) for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Netmask {
    V4(Ipv4Addr),
    V6(u8),
}

impl Netmask {
    /// Each client by itself.
    pub const fn whole(ipv6: bool) -> Self {
        if ipv6 {
            Self::V6(128)
        } else {
            Self::V4(Ipv4Addr::BROADCAST)
        }
    }

    pub fn is_whole(self) -> bool {
        self == Self::whole(matches!(self, Self::V6(_)))
    }
}

/// A persistence engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The Call-ID of a SIP message over UDP.
    Sip,
}

/// LVS's three scheduler flags, by what `sh` and `mh` make of them; other schedulers ignore them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulerFlags {
    /// `flag-1`: a client whose server is quiesced or overloaded gets another.
    pub fallback: bool,
    /// `flag-2`: a client's port counts, not only its address.
    pub port: bool,
    /// `flag-3`, which no scheduler knows.
    pub third: bool,
}

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

/// How a FULLNAT service tells its servers the client's address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAddress {
    /// TCP option 254 in the segments that acknowledge the server's SYN; nothing for UDP. Servers
    /// without the module ignore it.
    #[default]
    Toa,
    /// TCP as [`Self::Toa`]; a UDP flow's first packets carry DPVS's private header (IP protocol
    /// 248), which only servers with its module understand.
    Uoa,
    /// PROXY protocol version 1, in front of a TCP connection's first byte.
    ProxyV1,
    ProxyV2,
    None,
}

/// What LVS does not know of a service. Editing the service with LVS's words leaves it alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceOptions {
    pub client_address: ClientAddress,
    /// The largest TCP segment either side may announce; larger announcements are lowered.
    pub mss: Option<u16>,
    /// Slots of `mh`'s table, a prime; 4093 unless set, as in LVS.
    pub mh_table_size: Option<u32>,
    /// Instead of the timeouts that all services share.
    pub timeouts: ServiceTimeouts,
    pub refuse: Refuse,
    pub on_server_gone: OnServerGone,
    /// Both ends of a TCP connection that expires while established get a reset.
    pub reset_on_expiry: bool,
    /// Seconds in which the weight of a server that comes or comes back grows to what it is set to.
    pub slow_start_s: u32,
    /// What `conhash` hashes.
    pub hash_target: HashTarget,
}

/// Seconds; `None` is what all services have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceTimeouts {
    /// Of established TCP connections.
    pub tcp: Option<u32>,
    /// Of TCP connections that one side has closed.
    pub tcp_fin: Option<u32>,
    pub udp: Option<u32>,
}

/// What the sender of a packet is told for which there is no server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Refuse {
    /// ICMP port unreachable, as LVS does.
    #[default]
    Icmp,
    /// A TCP reset; ICMP for other protocols.
    Reset,
    /// Nothing.
    Drop,
}

/// What becomes of packets whose connection's server was deleted, where
/// [`Settings::expire_nodest_conn`] says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnServerGone {
    /// As LVS does.
    #[default]
    Drop,
    /// The connection ends; TCP clients get a reset.
    Reset,
    /// The connection ends; a packet that may open one opens one to another server, others are as
    /// with [`Self::Reset`].
    Reschedule,
}

/// What `conhash` tells clients apart by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashTarget {
    /// The client's address.
    #[default]
    Sip,
    /// QUIC's destination connection id; the client's address for what is not QUIC.
    Qid,
}

/// What LVS has as sysctls, with the kernel's defaults (`spec/connections.md` §12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// An ICMP error about a packet that would have a service opens a connection.
    pub schedule_icmp: bool,
    /// Tunnels copy DF from the packet, and tell its sender when it is too long for them.
    pub pmtu_disc: bool,
    /// Bit 0: a SYN on a connection that ended opens a new one. Bit 1: also on one in FIN_WAIT whose
    /// server answers without us. 0: never.
    pub conn_reuse_mode: u8,
    /// A packet of a connection whose server was deleted ends the connection, and a new connection
    /// on the ports of one whose server is quiesced is scheduled anew.
    pub expire_nodest_conn: bool,
    /// Persistent clients of a quiesced server get another one with their next connection.
    pub expire_quiescent_template: bool,
    /// Any TCP segment but a reset opens a connection.
    pub sloppy_tcp: bool,
    /// Any SCTP packet but an abort opens a connection.
    pub sloppy_sctp: bool,
    /// 0 to 3: connections that are the least loss are ended when the table is nearly full.
    pub drop_entry: u8,
    /// 0 to 3: some of the packets that would open connections are dropped.
    pub drop_packet: u8,
    /// 0 to 3: half-open TCP connections count as established later.
    pub secure_tcp: u8,
    /// With `drop_packet` 3 one packet in so many is dropped.
    pub am_droprate: u32,
    /// Modes 1 and 2 of the defences begin when fewer connections than this are free on a worker.
    pub amemthresh: u32,
    /// Answers to single datagrams leave as they are, as in LVS; by default they get the virtual
    /// address as their source.
    pub one_packet_replies_untranslated: bool,
    /// Of the messages to backups: 0 or 1.
    pub sync_version: u8,
    /// Backups are told of a connection with this one of its client's packets, and again in every
    /// [`Self::sync_period`]; without a period once.
    pub sync_threshold: u32,
    pub sync_period: u32,
    /// Seconds that a connection's end has to move before it is told again; 0: packets alone count.
    pub sync_refresh_period: u32,
    /// How often it is told nevertheless, in case a message was lost.
    pub sync_retries: u8,
    /// Templates speak for their connections.
    pub sync_persist_mode: bool,
    /// Over how many UDP ports connections are spread; taken when a daemon starts.
    pub sync_ports: u8,
}

impl Default for Settings {
    /// As the kernel's.
    fn default() -> Self {
        Self {
            schedule_icmp: false,
            pmtu_disc: true,
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            drop_entry: 0,
            drop_packet: 0,
            secure_tcp: 0,
            am_droprate: 10,
            amemthresh: 1024,
            one_packet_replies_untranslated: false,
            sync_version: 1,
            sync_threshold: 3,
            sync_period: 50,
            sync_refresh_period: 0,
            sync_retries: 0,
            sync_persist_mode: false,
            sync_ports: 1,
        }
    }
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
        /// After [`Request::StopCapture`]: this was all, and the capture is forgotten.
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
    /// Position in [`Request::Change`] of the step at fault.
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

/// Totals since start or the last [`Change::Zero`].
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    pub key: ServiceKey,
    pub spec: ServiceSpec,
    pub totals: Totals,
    pub rates: Rates,
    /// Newest first, as LVS walks them.
    pub servers: Vec<Server>,
    #[serde(default)]
    pub options: ServiceOptions,
    /// In the order in which they were added.
    #[serde(default)]
    pub local_addresses: Vec<LocalAddress>,
    /// `None`: nobody watches its servers.
    #[serde(default)]
    pub health: Option<ServiceHealth>,
}

/// A local address of FULLNAT. Services that share one share its ports, so each shows the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalAddress {
    pub address: IpAddr,
    /// Connections that hold a port of it now.
    pub in_use: u64,
    /// How often a new connection found every port of it in use toward its server.
    pub exhausted: u64,
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Neighbour {
    pub port: String,
    pub address: IpAddr,
    /// `aa:bb:cc:dd:ee:ff`, when known.
    pub mac: Option<String>,
    /// `static`, `reachable`, `probe`, `incomplete` or `failed`.
    pub state: String,
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

/// Writes one length-prefixed message.
pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let len = u32::try_from(body.len())
        .ok()
        .filter(|len| *len as usize <= MESSAGE_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "message too long"))?;
    to.write_all(&len.to_be_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// Reads one length-prefixed message.
pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_be_bytes(len) as usize;
    if len > MESSAGE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too long",
        ));
    }
    let mut body = vec![0; len];
    from.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

//! Virtual services: what they go by, what can be said of them, and how they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Rates, Server, ServiceHealth, Totals};

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
    /// Packets of one family that a `MarkRule` marks so, whatever their address and protocol.
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

    /// Whether its packets may be of this protocol: those of a service by mark may be of any.
    pub fn may_be(&self, protocol: Protocol) -> bool {
        self.protocol().is_none_or(|own| own == protocol)
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
/// `Settings::expire_nodest_conn` says nothing.
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

//! What can be changed of what runs.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Address, Drain, HashTarget, Health, MarkRule, PortSpec, Prefix, Route, ServerOptions,
    ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, Settings, StaticNeighbour, SyncDaemon,
    SyncRole, WhichMark,
};

/// One step of a `Request::Change`.
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

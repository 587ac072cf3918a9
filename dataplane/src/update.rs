//! What the control side tells every worker. Updates were validated against the control side's own
//! model, so a worker applies them without failing; ids are the control side's and the same in
//! every worker.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{
    Engine, ForwardMode, Persistence, SchedulerFlags, ServiceKey, ServiceOptions, ServiceSpec,
    Settings, Thresholds, Tunnel,
};

use crate::conn::Timeouts;
use crate::counters::LocalPage;
use crate::marks::Marks;
use crate::net::Network;
use crate::sched::{Kind, Table};

/// Index of a virtual service in every worker's tables and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServiceId(pub u32);

/// Index of a real server of one service in every worker's tables and counters. Not used anew
/// while a connection refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId(pub u32);

/// Real servers that there can be at once, in all services.
pub const SERVERS_MAX: u32 = 1 << 20;

impl ServiceId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl ServerId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A local address of FULLNAT, and where each worker counts its use. Services that share an address
/// share its pages.
#[derive(Debug, Clone)]
pub struct LocalAddress {
    pub address: IpAddr,
    /// By worker. One that has none does not count.
    pub pages: Arc<[LocalPage]>,
}

impl LocalAddress {
    pub fn new(address: IpAddr, workers: usize) -> Self {
        let pages = (0..workers).map(|_| LocalPage::default()).collect();
        Self { address, pages }
    }
}

impl PartialEq for LocalAddress {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl Eq for LocalAddress {}

/// What can be edited of a service, its scheduler found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub scheduler: Kind,
    pub flags: SchedulerFlags,
    pub persistence: Option<Persistence>,
    pub engine: Option<Engine>,
    pub one_packet: bool,
}

impl Policy {
    /// With a scheduler and nothing else.
    pub fn of(scheduler: Kind) -> Self {
        Self {
            scheduler,
            flags: SchedulerFlags::default(),
            persistence: None,
            engine: None,
            one_packet: false,
        }
    }

    /// In the control side's words.
    pub fn spec(&self) -> ServiceSpec {
        ServiceSpec {
            flags: self.flags,
            persistence: self.persistence,
            engine: self.engine,
            one_packet: self.one_packet,
            ..ServiceSpec::new(self.scheduler.name())
        }
    }
}

/// One step; a worker applies a list of them between two bursts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    AddService {
        id: ServiceId,
        key: ServiceKey,
        policy: Policy,
    },
    /// Rebinds the scheduler if it is another.
    EditService {
        id: ServiceId,
        policy: Policy,
    },
    /// The service and all its servers leave; their connections stay, their packets are dropped.
    DeleteService {
        id: ServiceId,
    },
    /// A new server, or one that comes back from the trash under its old id.
    AddServer {
        service: ServiceId,
        id: ServerId,
        address: SocketAddr,
        mode: ForwardMode,
        tunnel: Tunnel,
        weight: u32,
        thresholds: Thresholds,
    },
    EditServer {
        id: ServerId,
        mode: ForwardMode,
        tunnel: Tunnel,
        weight: u32,
        thresholds: Thresholds,
    },
    /// Whether the server is being drained: it takes no new connections of persistent clients either.
    DrainServer {
        id: ServerId,
        draining: bool,
    },
    /// Leaves its service; known until [`Update::ForgetServer`] because connections refer to it.
    DeleteServer {
        id: ServerId,
    },
    /// No connection refers to it any more.
    ForgetServer {
        id: ServerId,
    },
    /// Ends every connection of a server, in the background; so may those that it gets meanwhile.
    /// Nothing is left to do once it is added again.
    CutServer {
        id: ServerId,
        /// Both ends of established TCP connections are told.
        reset: bool,
    },
    SetTimeouts(Timeouts),
    /// FULLNAT's local addresses of a service, all of them.
    SetLocalAddresses {
        id: ServiceId,
        addresses: Vec<LocalAddress>,
    },
    SetOptions {
        id: ServiceId,
        options: ServiceOptions,
    },
    /// What the service's scheduler looks its servers up in, as they are after the updates before.
    /// Whoever made it keeps it for as long as a worker may have it, so that no worker frees it.
    SetTable {
        id: ServiceId,
        table: Arc<Table>,
    },
    SetSettings(Settings),
    /// Interfaces, routes and static neighbours, all of them; shared by the workers. Whoever made it
    /// keeps it for as long as a worker may have it, so that no worker frees it.
    SetNetwork(Arc<Network>),
    /// Neighbours that were learned are forgotten.
    FlushNeighbours,
    /// The rules that mark packets, all of them; shared by the workers.
    SetMarks(Arc<Marks>),
}

/// Updates that every worker applies whole, in order.
pub type Batch = Arc<[Update]>;

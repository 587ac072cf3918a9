//! Virtual services and real servers as one worker sees them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use control::ForwardMode;
use hashbrown::HashMap;

use crate::net::is_station;
use crate::sched::{Candidate, Kind, Scheduler};
use crate::update::{ServerId, ServiceId, Update};
use crate::wire::flow::Flow;

/// A virtual service with its scheduler's state.
#[derive(Debug)]
struct Service {
    key: Key,
    kind: Kind,
    scheduler: Box<dyn Scheduler>,
    /// Picks to pass over before the first, see [`Services::staggered`].
    stagger: usize,
    /// Oldest first.
    servers: Vec<Candidate>,
}

/// A real server, for as long as connections refer to it.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub service: ServiceId,
    pub address: SocketAddrV4,
    /// Of new connections; existing ones keep theirs.
    pub mode: ForwardMode,
    /// In its service; `false` once deleted.
    pub available: bool,
}

/// Protocol number, virtual address and port.
type Key = (u8, SocketAddrV4);

/// All of a worker's services, found by what a packet is addressed to.
#[derive(Debug, Default)]
pub struct Services {
    by_key: HashMap<Key, ServiceId>,
    services: Vec<Option<Service>>,
    servers: Vec<Option<Server>>,
    /// How many services each virtual address has.
    vips: HashMap<Ipv4Addr, u32>,
    generation: u16,
    stagger: usize,
}

impl Services {
    /// For worker `me`: its schedulers begin `me` picks later than the first worker's, so that few
    /// connections over many workers still spread over the servers.
    pub fn staggered(me: usize) -> Self {
        Self {
            stagger: me,
            ..Self::default()
        }
    }

    /// The service that a packet of `flow` from a client asks for.
    pub fn matching(&self, flow: &Flow) -> Option<ServiceId> {
        self.by_key.get(&(flow.protocol, flow.to())).copied()
    }

    /// Whether some service has this address.
    #[inline]
    pub fn is_vip(&self, address: Ipv4Addr) -> bool {
        self.vips.contains_key(&address)
    }

    /// Whether `address` is a virtual one that the director speaks for; a service of 0.0.0.0 or a
    /// multicast group is nobody's to announce.
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        is_station(address.into()) && self.is_vip(address)
    }

    /// What the director announces.
    pub fn vips(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.vips
            .keys()
            .copied()
            .filter(|vip| is_station((*vip).into()))
    }

    /// The scheduler's choice for a new connection. A server without a port is asked at the one
    /// that the client asked.
    pub fn pick(&mut self, service: ServiceId, flow: &Flow) -> Option<(ServerId, Server)> {
        let service = self.services.get_mut(service.index())?.as_mut()?;
        let passed_over = std::mem::take(&mut service.stagger).checked_rem(service.servers.len());
        for _ in 0..passed_over.unwrap_or(0) {
            service.scheduler.pick(&service.servers, flow);
        }
        let picked = service.scheduler.pick(&service.servers, flow)?;
        let id = service.servers[picked].id;
        let mut server = *self.server(id)?;
        if server.address.port() == 0 {
            server.address.set_port(flow.to().port());
        }
        Some((id, server))
    }

    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.index())?.as_ref()
    }

    /// Bumped when a server of existing connections may have become unavailable or available.
    #[inline]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Applies one validated update; returns the virtual address to announce that appeared with
    /// it, if any.
    pub fn apply(&mut self, update: &Update) -> Option<Ipv4Addr> {
        match *update {
            Update::AddService { id, key, scheduler } => {
                let address = v4(key.address);
                let key = (key.protocol.number(), address);
                let service = Service {
                    key,
                    kind: scheduler,
                    scheduler: scheduler.bind(&[]),
                    stagger: self.stagger,
                    servers: Vec::new(),
                };
                *slot(&mut self.services, id.index()) = Some(service);
                self.by_key.insert(key, id);
                let services = self.vips.entry(*address.ip()).or_insert(0);
                *services += 1;
                return (*services == 1 && is_station((*address.ip()).into()))
                    .then_some(*address.ip());
            }
            Update::EditService { id, scheduler } => {
                let stagger = self.stagger;
                let service = self.service_mut(id);
                if service.kind != scheduler {
                    service.kind = scheduler;
                    service.scheduler = scheduler.bind(&service.servers);
                    service.stagger = stagger;
                }
            }
            Update::DeleteService { id } => self.delete_service(id),
            Update::AddServer {
                service,
                id,
                address,
                weight,
                mode,
                ..
            } => {
                let server = Server {
                    service,
                    address: v4(address),
                    mode,
                    available: true,
                };
                *slot(&mut self.servers, id.index()) = Some(server);
                let service = self.service_mut(service);
                service.servers.push(Candidate { id, weight });
                service.scheduler.added(&service.servers);
                self.generation = self.generation.wrapping_add(1);
            }
            Update::EditServer {
                id, weight, mode, ..
            } => {
                if let Some(server) = slot(&mut self.servers, id.index()) {
                    server.mode = mode;
                }
                let (service, index) = self.position(id);
                service.servers[index].weight = weight;
                service.scheduler.reweighted(&service.servers);
            }
            Update::DeleteServer { id } => {
                let (service, index) = self.position(id);
                service.servers.remove(index);
                service.scheduler.removed(&service.servers, index);
                self.withdraw(id);
            }
            Update::ForgetServer { id } => *slot(&mut self.servers, id.index()) = None,
            Update::SetTimeouts(_)
            | Update::SetLocalAddresses { .. }
            | Update::SetOptions { .. }
            | Update::SetSettings(_) => {}
        }
        None
    }

    fn delete_service(&mut self, id: ServiceId) {
        let Some(service) = slot(&mut self.services, id.index()).take() else {
            unreachable!("validated")
        };
        self.by_key.remove(&service.key);
        let vip = *service.key.1.ip();
        if let Some(services) = self.vips.get_mut(&vip) {
            *services -= 1;
            if *services == 0 {
                self.vips.remove(&vip);
            }
        }
        for server in service.servers {
            self.withdraw(server.id);
        }
    }

    fn withdraw(&mut self, id: ServerId) {
        if let Some(server) = slot(&mut self.servers, id.index()) {
            server.available = false;
        }
        self.generation = self.generation.wrapping_add(1);
    }

    fn service_mut(&mut self, id: ServiceId) -> &mut Service {
        self.services[id.index()]
            .as_mut()
            .unwrap_or_else(|| unreachable!("updates are validated"))
    }

    fn position(&mut self, id: ServerId) -> (&mut Service, usize) {
        let owner = self.servers[id.index()]
            .unwrap_or_else(|| unreachable!("updates are validated"))
            .service;
        let service = self.service_mut(owner);
        let index = service.servers.iter().position(|s| s.id == id);
        (
            service,
            index.unwrap_or_else(|| unreachable!("updates are validated")),
        )
    }
}

/// The place of `index`, made when the table is shorter.
fn slot<T>(table: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    &mut table[index]
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddrV4::new(ip, address.port()),
        IpAddr::V6(_) => unreachable!("the control side refuses IPv6"),
    }
}

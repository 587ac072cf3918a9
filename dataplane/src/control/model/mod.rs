//! The authoritative services and servers. It judges every change before a worker hears of it,
//! hands out ids, and keeps what outlives a server: the trash, zero points, rates.

mod rules; // what no service and no server may be
mod slots; // ids
mod steps; // each change, carried out
#[cfg(test)]
mod tests;
mod totals; // zero points, rates
mod trash; // deleted servers
mod undo; // how each step is taken back

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use control::{Change, Errno, Refusal, ServerSpec, ServiceKey, ServiceSpec, Totals};

use self::slots::Slots;
use self::undo::Transaction;
use super::stats::{self, Estimator, minus};
use crate::conn::Timeouts;
use crate::counters::Page;
use crate::sched::Kind;
use crate::update::{ServerId, ServiceId, Update};

/// The highest weight, as in LVS.
pub const WEIGHT_MAX: u32 = i32::MAX as u32;
/// The longest settable timeout in seconds: 31 days, as in ipvsadm.
pub const TIMEOUT_MAX_S: u32 = 31 * 24 * 3600;
/// How often [`Model::sweep`] is due, in seconds.
pub const SWEEP_S: u64 = 60;
/// How long a deleted server without connections stays in the trash, in seconds.
pub const TRASH_IDLE_S: u64 = 120;

/// How much a model holds; the workers' pages are as large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub services_max: usize,
    /// Deleted servers count until they are forgotten.
    pub servers_max: usize,
}

/// Every service and server, and the timeouts.
#[derive(Debug)]
pub struct Model {
    services: Slots<Service>,
    servers: Slots<Server>,
    by_key: HashMap<ServiceKey, ServiceId>,
    /// Servers in their service and servers in the trash: an identity has one id.
    by_address: HashMap<(ServiceKey, SocketAddr), ServerId>,
    timeouts: Timeouts,
    /// Orders servers by age and tells a service from an earlier one of the same key.
    clock: u64,
    pages: Vec<Arc<Page>>,
}

#[derive(Debug)]
struct Service {
    key: ServiceKey,
    born: u64,
    head: Head,
    /// By age: the newest is last.
    servers: BTreeMap<u64, ServerId>,
}

/// The part of a service that changes in place.
#[derive(Debug, Clone, Copy)]
struct Head {
    scheduler: Kind,
    /// Counted by servers that have left.
    gone: Totals,
    zero: Totals,
    estimator: Estimator,
}

#[derive(Debug, Clone, Copy)]
struct Server {
    service: ServiceKey,
    address: SocketAddr,
    spec: ServerSpec,
    place: Place,
    /// The page's count when the server joined its service.
    joined: Totals,
    /// The page's count at the last zeroing.
    zero: Totals,
    estimator: Estimator,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// In its service's list under this age.
    Listed { service: ServiceId, age: u64 },
    /// Left the service that was born then; `idle_since_s` once no connection was seen.
    Trash {
        service_born: u64,
        idle_since_s: Option<u64>,
    },
}

impl Model {
    pub fn new(limits: Limits) -> Self {
        Self {
            services: Slots::new(limits.services_max),
            servers: Slots::new(limits.servers_max),
            by_key: HashMap::new(),
            by_address: HashMap::new(),
            timeouts: Timeouts::default(),
            clock: 0,
            pages: Vec::new(),
        }
    }

    /// Takes totals from `pages`, one a worker, each made for this model's [`Limits`].
    #[must_use]
    pub fn watching(mut self, pages: Vec<Arc<Page>>) -> Self {
        self.pages = pages;
        self
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Carries out every change in order and returns what the workers must apply, or refuses and
    /// leaves everything as it was.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<Update>, Refusal> {
        let mut done = Transaction::default();
        for (step, change) in changes.iter().enumerate() {
            if let Err(mut refusal) = self.step(change, &mut done) {
                refusal.step = Some(step);
                while let Some(undo) = done.undo.pop() {
                    self.undo(undo);
                }
                return Err(refusal);
            }
        }
        Ok(done.updates)
    }

    fn step(&mut self, change: &Change, done: &mut Transaction) -> Result<(), Refusal> {
        match change {
            Change::AddService { service, spec } => self.add_service(*service, spec, done),
            Change::EditService { service, spec } => self.edit_service(*service, spec, done),
            Change::DeleteService { service } => {
                let id = self.find(service)?;
                self.delete_service(id, done);
                Ok(())
            }
            Change::Flush => {
                for id in self.services.ids() {
                    self.delete_service(ServiceId(id), done);
                }
                Ok(())
            }
            Change::AddServer {
                service,
                server,
                spec,
            } => self.add_server(service, *server, *spec, done),
            Change::EditServer {
                service,
                server,
                spec,
            } => self.edit_server(service, *server, *spec, done),
            Change::DeleteServer { service, server } => self.delete_server(service, *server, done),
            Change::Zero { only: Some(key) } => {
                let id = self.find(key)?;
                self.zero(id, done);
                Ok(())
            }
            Change::Zero { only: None } => {
                for id in self.services.ids() {
                    self.zero(ServiceId(id), done);
                }
                Ok(())
            }
            Change::SetTimeouts { tcp, tcp_fin, udp } => {
                self.set_timeouts([*tcp, *tcp_fin, *udp], done)
            }
            Change::AddLocalAddress { .. }
            | Change::DeleteLocalAddress { .. }
            | Change::SetOptions { .. }
            | Change::SetSettings(_) => Err(refuse(Errno::Eopnotsupp, "not supported yet")),
        }
    }

    /// All services sorted by key, or the one named.
    pub fn services(&self, only: Option<&ServiceKey>) -> Result<Vec<control::Service>, Refusal> {
        let mut chosen: Vec<&Service> = match only {
            Some(key) => vec![self.services.get(self.find(key)?.0)],
            None => self.services.iter().collect(),
        };
        chosen.sort_unstable_by_key(|service| service.key);
        Ok(chosen
            .into_iter()
            .map(|service| self.show(service))
            .collect())
    }

    fn show(&self, service: &Service) -> control::Service {
        control::Service {
            key: service.key,
            spec: ServiceSpec {
                scheduler: service.head.scheduler.name().to_owned(),
            },
            totals: minus(self.service_counted(service), service.head.zero),
            rates: service.head.estimator.rates(),
            servers: service
                .servers
                .values()
                .rev()
                .map(|id| self.show_server(*id))
                .collect(),
            options: control::ServiceOptions::default(),
            local_addresses: Vec::new(),
        }
    }

    fn show_server(&self, id: ServerId) -> control::Server {
        let server = self.servers.get(id.0);
        let (active, inactive) = stats::connections(&self.pages, id);
        control::Server {
            address: server.address,
            spec: server.spec,
            active,
            inactive,
            totals: minus(stats::counted(&self.pages, id), server.zero),
            rates: server.estimator.rates(),
        }
    }

    fn head(&mut self, id: ServiceId) -> &mut Head {
        &mut self.services.get_mut(id.0).head
    }

    fn find(&self, key: &ServiceKey) -> Result<ServiceId, Refusal> {
        let missing = || refuse(Errno::Esrch, format!("no such service: {}", name(key)));
        self.by_key.get(key).copied().ok_or_else(missing)
    }

    /// A server in its service, with its place.
    fn find_server(
        &self,
        key: &ServiceKey,
        address: SocketAddr,
    ) -> Result<(ServerId, ServiceId, u64), Refusal> {
        let id = self.by_address.get(&(*key, address)).copied();
        match id.map(|id| (id, self.servers.get(id.0).place)) {
            Some((id, Place::Listed { service, age })) => Ok((id, service, age)),
            _ => Err(refuse(
                Errno::Enoent,
                format!("service {} has no server {address}", name(key)),
            )),
        }
    }
}

/// `tcp 10.0.0.1:80`
pub(in crate::control) fn name(key: &ServiceKey) -> String {
    format!("{} {}", key.protocol.name(), key.address)
}

pub(in crate::control) fn refuse(errno: Errno, detail: impl Into<String>) -> Refusal {
    Refusal {
        errno,
        step: None,
        detail: detail.into(),
    }
}

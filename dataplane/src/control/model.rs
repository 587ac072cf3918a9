//! The authoritative services and servers. It judges every change before a worker hears of it,
//! hands out ids, and keeps what outlives a server: the trash, zero points, rates.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use control::{Change, Errno, ForwardMode, Refusal, ServerSpec, ServiceKey, ServiceSpec, Totals};

use super::stats::{self, Estimator, minus, plus};
use crate::conn::Timeouts;
use crate::conn::state::State;
use crate::counters::Page;
use crate::net::is_station;
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

/// Steps carried out so far, and how to take each back.
#[derive(Debug, Default)]
struct Transaction {
    updates: Vec<Update>,
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    /// What the slot held before.
    Service(ServiceId, Option<Service>),
    Server(ServerId, Option<Server>),
    Head(ServiceId, Head),
    Listed {
        service: ServiceId,
        age: u64,
    },
    Unlisted {
        service: ServiceId,
        age: u64,
        server: ServerId,
    },
    Timeouts(Timeouts),
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
        }
    }

    fn add_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        supported(key.address)?;
        if self.by_key.contains_key(&key) {
            return Err(refuse(
                Errno::Eexist,
                format!("service {} exists already", name(&key)),
            ));
        }
        if key.address.port() == 0 {
            let detail = format!("service {} has port 0, 1 to 65535 is right", key.address);
            return Err(refuse(Errno::Einval, detail));
        }
        let scheduler = scheduler(spec)?;
        self.clock += 1;
        let head = Head {
            scheduler,
            gone: Totals::default(),
            zero: Totals::default(),
            estimator: Estimator::default(),
        };
        let service = Service {
            key,
            born: self.clock,
            head,
            servers: BTreeMap::new(),
        };
        let Some(id) = self.services.insert(service) else {
            let max = self.services.max;
            return Err(refuse(
                Errno::Enomem,
                format!("all {max} services are in use; raise max_services"),
            ));
        };
        let id = ServiceId(id);
        self.by_key.insert(key, id);
        done.undo.push(Undo::Service(id, None));
        done.updates.push(Update::AddService { id, key, scheduler });
        Ok(())
    }

    fn edit_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(&key)?;
        let scheduler = scheduler(spec)?;
        let head = self.head(id);
        // The same scheduler keeps its cursor.
        if head.scheduler != scheduler {
            done.undo.push(Undo::Head(id, *head));
            head.scheduler = scheduler;
            done.updates.push(Update::EditService { id, scheduler });
        }
        Ok(())
    }

    fn delete_service(&mut self, id: ServiceId, done: &mut Transaction) {
        let service = self.services.remove(id.0);
        for server in service.servers.values() {
            self.bin(*server, service.born, done);
        }
        self.by_key.remove(&service.key);
        done.undo.push(Undo::Service(id, Some(service)));
        done.updates.push(Update::DeleteService { id });
    }

    fn add_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let service = self.find(key)?;
        supported(address)?;
        weighed(spec, address)?;
        let known = self.by_address.get(&(*key, address)).copied();
        let old = known.map(|id| *self.servers.get(id.0));
        if matches!(
            old,
            Some(Server {
                place: Place::Listed { .. },
                ..
            })
        ) {
            return Err(refuse(
                Errno::Eexist,
                format!("service {} has server {address} already", name(key)),
            ));
        }
        unicast(address)?;
        same_port(key, address, spec)?;
        self.clock += 1;
        let place = Place::Listed {
            service,
            age: self.clock,
        };
        let id = match (known, old) {
            (Some(id), Some(old)) => {
                let now = stats::counted(&self.pages, id);
                let kept = matches!(old.place, Place::Trash { service_born, .. }
                    if service_born == self.services.get(service.0).born);
                // The same service finds its server's counters as they were, a new one finds none.
                let back = if kept {
                    old
                } else {
                    Server::counting_from(now, old)
                };
                done.undo.push(Undo::Server(id, Some(old)));
                *self.servers.get_mut(id.0) = Server {
                    spec,
                    place,
                    joined: now,
                    ..back
                };
                id
            }
            _ => self.new_server(*key, address, spec, place, done)?,
        };
        self.services
            .get_mut(service.0)
            .servers
            .insert(self.clock, id);
        done.undo.push(Undo::Listed {
            service,
            age: self.clock,
        });
        done.updates.push(Update::AddServer {
            service,
            id,
            address,
            mode: spec.mode,
            weight: spec.weight,
        });
        Ok(())
    }

    fn new_server(
        &mut self,
        service: ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        place: Place,
        done: &mut Transaction,
    ) -> Result<ServerId, Refusal> {
        let zero = Totals::default();
        let server = Server {
            service,
            address,
            spec,
            place,
            joined: zero,
            zero,
            estimator: Estimator::default(),
        };
        let Some(id) = self.servers.insert(server) else {
            let max = self.servers.max;
            let detail = format!(
                "all {max} servers are in use (a deleted one for up to {} s after its last connection); \
                 raise max_servers",
                TRASH_IDLE_S + 2 * SWEEP_S
            );
            return Err(refuse(Errno::Enomem, detail));
        };
        let id = ServerId(id);
        // The page may hold what an earlier server of this number counted.
        let now = stats::counted(&self.pages, id);
        *self.servers.get_mut(id.0) = Server {
            joined: now,
            ..Server::counting_from(now, server)
        };
        self.by_address.insert((service, address), id);
        done.undo.push(Undo::Server(id, None));
        Ok(id)
    }

    fn edit_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        weighed(spec, address)?;
        let (id, ..) = self.find_server(key, address)?;
        same_port(key, address, spec)?;
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        server.spec = spec;
        done.updates.push(Update::EditServer {
            id,
            mode: spec.mode,
            weight: spec.weight,
        });
        Ok(())
    }

    fn delete_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        let (id, service, age) = self.find_server(key, address)?;
        let joined = self.servers.get(id.0).joined;
        let contributed = minus(stats::counted(&self.pages, id), joined);
        let head = self.head(service);
        done.undo.push(Undo::Head(service, *head));
        head.gone = plus(head.gone, contributed);
        let list = self.services.get_mut(service.0);
        list.servers.remove(&age);
        let service_born = list.born;
        done.undo.push(Undo::Unlisted {
            service,
            age,
            server: id,
        });
        self.bin(id, service_born, done);
        done.updates.push(Update::DeleteServer { id });
        Ok(())
    }

    /// Moves a server to the trash.
    fn bin(&mut self, id: ServerId, service_born: u64, done: &mut Transaction) {
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        server.place = Place::Trash {
            service_born,
            idle_since_s: None,
        };
    }

    fn zero(&mut self, id: ServiceId, done: &mut Transaction) {
        let total = self.service_counted(self.services.get(id.0));
        let service = self.services.get_mut(id.0);
        done.undo.push(Undo::Head(id, service.head));
        service.head.zero = total;
        service.head.estimator.clear();
        for id in service.servers.values() {
            let server = self.servers.get_mut(id.0);
            done.undo.push(Undo::Server(*id, Some(*server)));
            server.zero = stats::counted(&self.pages, *id);
            server.estimator.clear();
        }
    }

    fn set_timeouts(
        &mut self,
        seconds: [Option<u32>; 3],
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let old = self.timeouts;
        let mut new = old;
        for (state, seconds) in [State::Established, State::FinWait, State::Udp]
            .into_iter()
            .zip(seconds)
        {
            // LVS reads 0 as "leave it".
            let Some(seconds) = seconds.filter(|s| *s > 0) else {
                continue;
            };
            if seconds > TIMEOUT_MAX_S {
                let detail = format!(
                    "a timeout of {seconds} s is too long, at most {TIMEOUT_MAX_S} (31 days) is right"
                );
                return Err(refuse(Errno::Einval, detail));
            }
            new.set_s(state, seconds);
        }
        self.timeouts = new;
        done.undo.push(Undo::Timeouts(old));
        done.updates.push(Update::SetTimeouts(new));
        Ok(())
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Service(id, None) => {
                let service = self.services.remove(id.0);
                self.by_key.remove(&service.key);
            }
            Undo::Service(id, Some(old)) => {
                self.by_key.insert(old.key, id);
                self.services.put_back(id.0, old);
            }
            Undo::Server(id, None) => {
                let server = self.servers.remove(id.0);
                self.by_address.remove(&(server.service, server.address));
            }
            Undo::Server(id, Some(old)) => *self.servers.get_mut(id.0) = old,
            Undo::Head(id, old) => *self.head(id) = old,
            Undo::Listed { service, age } => {
                self.services.get_mut(service.0).servers.remove(&age);
            }
            Undo::Unlisted {
                service,
                age,
                server,
            } => {
                self.services.get_mut(service.0).servers.insert(age, server);
            }
            Undo::Timeouts(old) => self.timeouts = old,
        }
    }

    /// Looks after the trash, every [`SWEEP_S`] seconds: a deleted server that no connection refers
    /// to is stamped, and forgotten when it still is so [`TRASH_IDLE_S`] later.
    pub fn sweep(&mut self, now_s: u64, in_use: impl Fn(ServerId) -> bool) -> Vec<Update> {
        let mut updates = Vec::new();
        for id in self.servers.ids() {
            let server = self.servers.get_mut(id);
            let Place::Trash { idle_since_s, .. } = &mut server.place else {
                continue;
            };
            let id = ServerId(id);
            *idle_since_s = match *idle_since_s {
                _ if in_use(id) => None,
                None => Some(now_s),
                Some(since) if now_s.saturating_sub(since) < TRASH_IDLE_S => Some(since),
                Some(_) => {
                    let server = self.servers.remove(id.0);
                    self.by_address.remove(&(server.service, server.address));
                    updates.push(Update::ForgetServer { id });
                    continue;
                }
            };
        }
        updates
    }

    /// One step of every estimator, each [`stats::ESTIMATE_S`] seconds.
    pub fn estimate(&mut self) {
        let Self {
            services,
            servers,
            pages,
            ..
        } = self;
        for service in services.slots.iter_mut().flatten() {
            let mut sum = service.head.gone;
            for id in service.servers.values() {
                let server = servers.get_mut(id.0);
                let now = stats::counted(pages, *id);
                server.estimator.step(now);
                sum = plus(sum, minus(now, server.joined));
            }
            service.head.estimator.step(sum);
        }
    }

    /// All services sorted by key, or the one named.
    pub fn services(&self, only: Option<&ServiceKey>) -> Result<Vec<control::Service>, Refusal> {
        let mut chosen: Vec<&Service> = match only {
            Some(key) => vec![self.services.get(self.find(key)?.0)],
            None => self.services.slots.iter().flatten().collect(),
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

    /// What all its servers counted while they were in it.
    fn service_counted(&self, service: &Service) -> Totals {
        service.servers.values().fold(service.head.gone, |sum, id| {
            plus(
                sum,
                minus(
                    stats::counted(&self.pages, *id),
                    self.servers.get(id.0).joined,
                ),
            )
        })
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

impl Server {
    /// `server` with every counter at zero.
    fn counting_from(now: Totals, server: Self) -> Self {
        Self {
            zero: now,
            estimator: Estimator::starting_at(now),
            ..server
        }
    }
}

/// `tcp 10.0.0.1:80`
pub(super) fn name(key: &ServiceKey) -> String {
    let protocol = match key.protocol {
        control::Protocol::Tcp => "tcp",
        control::Protocol::Udp => "udp",
    };
    format!("{protocol} {}", key.address)
}

pub(super) fn refuse(errno: Errno, detail: impl Into<String>) -> Refusal {
    Refusal {
        errno,
        step: None,
        detail: detail.into(),
    }
}

fn scheduler(spec: &ServiceSpec) -> Result<Kind, Refusal> {
    Kind::by_name(&spec.scheduler).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        refuse(
            Errno::Enoent,
            format!(
                "no scheduler {:?}, known are {}",
                spec.scheduler,
                known.join(", ")
            ),
        )
    })
}

fn supported(address: SocketAddr) -> Result<(), Refusal> {
    if address.is_ipv6() {
        return Err(refuse(
            Errno::Eopnotsupp,
            format!("{address}: IPv6 is not supported yet, use an IPv4 address"),
        ));
    }
    Ok(())
}

/// A server's address; a service may have any, as in LVS.
fn unicast(address: SocketAddr) -> Result<(), Refusal> {
    match address {
        SocketAddr::V4(v4) if !is_station(*v4.ip()) => Err(refuse(
            Errno::Einval,
            format!("server address {} is not unicast", v4.ip()),
        )),
        _ => Ok(()),
    }
}

/// Direct routing leaves a packet's port alone.
fn same_port(key: &ServiceKey, address: SocketAddr, spec: ServerSpec) -> Result<(), Refusal> {
    let port = key.address.port();
    match spec.mode {
        ForwardMode::Direct if address.port() != port => Err(refuse(
            Errno::Einval,
            format!(
                "server {address} has another port than its service, {port} is right for direct routing"
            ),
        )),
        ForwardMode::Direct | ForwardMode::Nat => Ok(()),
    }
}

fn weighed(spec: ServerSpec, address: SocketAddr) -> Result<(), Refusal> {
    let weight = spec.weight;
    if weight > WEIGHT_MAX {
        let detail = format!(
            "weight {weight} of server {address} is too high, at most {WEIGHT_MAX} is right"
        );
        return Err(refuse(Errno::Erange, detail));
    }
    Ok(())
}

/// Values by small numbers that are used anew, the last freed first.
#[derive(Debug)]
struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    max: usize,
}

impl<T> Slots<T> {
    fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
        }
    }

    /// `None` when full.
    fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return Some(id);
        }
        let id = u32::try_from(self.slots.len())
            .ok()
            .filter(|id| (*id as usize) < self.max)?;
        self.slots.push(Some(value));
        Some(id)
    }

    fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        self.slots[id as usize]
            .take()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    /// Takes back the latest [`Slots::remove`] that is not taken back yet.
    fn put_back(&mut self, id: u32, value: T) {
        assert_eq!(
            self.free.pop(),
            Some(id),
            "changes are taken back last first"
        );
        self.slots[id as usize] = Some(value);
    }

    fn get(&self, id: u32) -> &T {
        self.slots[id as usize]
            .as_ref()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    fn get_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize]
            .as_mut()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    /// Those in use.
    fn ids(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.is_some())
            .map(|(id, _)| id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use control::Protocol;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        services_max: 3,
        servers_max: 8,
    };

    fn key(n: u8) -> ServiceKey {
        ServiceKey {
            protocol: Protocol::Tcp,
            address: SocketAddr::from(([10, 0, 0, n], 80)),
        }
    }

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 168, 1, n], 80))
    }

    fn weight(weight: u32) -> ServerSpec {
        ServerSpec {
            mode: ForwardMode::Nat,
            weight,
        }
    }

    fn spec(scheduler: &str) -> ServiceSpec {
        ServiceSpec {
            scheduler: scheduler.into(),
        }
    }

    fn add_service(n: u8) -> Change {
        Change::AddService {
            service: key(n),
            spec: spec("rr"),
        }
    }

    fn add_server(service: u8, server: u8) -> Change {
        Change::AddServer {
            service: key(service),
            server: address(server),
            spec: weight(1),
        }
    }

    fn delete_server(service: u8, server: u8) -> Change {
        Change::DeleteServer {
            service: key(service),
            server: address(server),
        }
    }

    /// A model that reads one page, with service 1 and its servers 1 and 2.
    fn counted() -> (Model, Arc<Page>) {
        let page = Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max));
        let mut model = Model::new(LIMITS).watching(vec![Arc::clone(&page)]);
        model
            .apply(&[add_service(1), add_server(1, 1), add_server(1, 2)])
            .unwrap();
        (model, page)
    }

    fn conns(model: &Model) -> (u64, Vec<u64>) {
        let service = &model.services(None).unwrap()[0];
        (
            service.totals.conns,
            service
                .servers
                .iter()
                .map(|server| server.totals.conns)
                .collect(),
        )
    }

    #[test]
    fn refusals_carry_lvss_errno_and_a_sentence() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let service = |address| ServiceKey {
            protocol: Protocol::Udp,
            address,
        };
        let add = |address: &str| Change::AddService {
            service: service(at(address)),
            spec: spec("rr"),
        };
        let server = |address: &str, w| Change::AddServer {
            service: key(1),
            server: at(address),
            spec: weight(w),
        };
        for (change, errno, detail) in [
            (
                add_service(1),
                Errno::Eexist,
                "service tcp 10.0.0.1:80 exists already",
            ),
            (
                Change::AddService {
                    service: key(9),
                    spec: spec("wlc"),
                },
                Errno::Enoent,
                "no scheduler \"wlc\", known are rr, wrr",
            ),
            (
                add("10.0.0.9:0"),
                Errno::Einval,
                "service 10.0.0.9:0 has port 0, 1 to 65535 is right",
            ),
            (
                add("[2001:db8::1]:80"),
                Errno::Eopnotsupp,
                "[2001:db8::1]:80: IPv6 is not supported yet, use an IPv4 address",
            ),
            (
                Change::EditService {
                    service: key(9),
                    spec: spec("rr"),
                },
                Errno::Esrch,
                "no such service: tcp 10.0.0.9:80",
            ),
            (
                Change::EditService {
                    service: key(1),
                    spec: spec(""),
                },
                Errno::Enoent,
                "no scheduler \"\", known are rr, wrr",
            ),
            (
                Change::DeleteService { service: key(9) },
                Errno::Esrch,
                "no such service: tcp 10.0.0.9:80",
            ),
            (
                Change::Zero { only: Some(key(9)) },
                Errno::Esrch,
                "no such service: tcp 10.0.0.9:80",
            ),
            (
                add_server(9, 1),
                Errno::Esrch,
                "no such service: tcp 10.0.0.9:80",
            ),
            (
                add_server(1, 1),
                Errno::Eexist,
                "service tcp 10.0.0.1:80 has server 192.168.1.1:80 already",
            ),
            (
                server("255.255.255.255:80", 1),
                Errno::Einval,
                "server address 255.255.255.255 is not unicast",
            ),
            (
                server("192.168.1.1:80", 1 << 31),
                Errno::Erange,
                "weight 2147483648 of server 192.168.1.1:80 is too high, at most 2147483647 is right",
            ),
            (
                delete_server(9, 1),
                Errno::Esrch,
                "no such service: tcp 10.0.0.9:80",
            ),
            (
                delete_server(1, 9),
                Errno::Enoent,
                "service tcp 10.0.0.1:80 has no server 192.168.1.9:80",
            ),
            (
                Change::EditServer {
                    service: key(1),
                    server: address(9),
                    spec: weight(1),
                },
                Errno::Enoent,
                "service tcp 10.0.0.1:80 has no server 192.168.1.9:80",
            ),
            (
                Change::SetTimeouts {
                    tcp: Some(2_678_401),
                    tcp_fin: None,
                    udp: None,
                },
                Errno::Einval,
                "a timeout of 2678401 s is too long, at most 2678400 (31 days) is right",
            ),
        ] {
            let (mut model, _page) = counted();
            let refusal = model.apply(&[add_service(2), change.clone()]).unwrap_err();
            assert_eq!(
                (refusal.errno, refusal.detail.as_str(), refusal.step),
                (errno, detail, Some(1)),
                "{change:?}"
            );
            assert_eq!(model.services(None).unwrap().len(), 1, "all or nothing");
        }
    }

    #[test]
    fn full_tables_refuse() {
        let (mut model, _page) = counted();
        let refusal = model
            .apply(&[add_service(2), add_service(3), add_service(4)])
            .unwrap_err();
        assert_eq!(
            refusal.detail,
            "all 3 services are in use; raise max_services"
        );
        let servers: Vec<Change> = (3..=9).map(|n| add_server(1, n)).collect();
        let refusal = model.apply(&servers).unwrap_err();
        assert_eq!((refusal.errno, refusal.step), (Errno::Enomem, Some(6)));
        model.apply(&servers[..6]).unwrap();
    }

    #[test]
    fn editing_to_the_same_scheduler_tells_the_workers_nothing() {
        let (mut model, _page) = counted();
        let edit = |name| Change::EditService {
            service: key(1),
            spec: spec(name),
        };
        assert_eq!(model.apply(&[edit("rr")]).unwrap(), []);
        assert_eq!(
            model.apply(&[edit("wrr")]).unwrap(),
            [Update::EditService {
                id: ServiceId(0),
                scheduler: Kind::Wrr
            }]
        );
    }

    #[test]
    fn zero_seconds_leave_a_timeout() {
        let (mut model, _page) = counted();
        model
            .apply(&[Change::SetTimeouts {
                tcp: Some(0),
                tcp_fin: None,
                udp: Some(60),
            }])
            .unwrap();
        let seconds = [State::Established, State::FinWait, State::Udp]
            .map(|state| model.timeouts().ms(state) / 1000);
        assert_eq!(seconds, [900, 120, 60]);
    }

    #[test]
    fn a_deleted_server_returns_with_its_id_and_counters() {
        let (mut model, page) = counted();
        page.servers[0].conns.add(5);
        page.servers[1].conns.add(7);
        assert_eq!(conns(&model), (12, vec![7, 5]));
        model.apply(&[delete_server(1, 1)]).unwrap();
        assert_eq!(
            conns(&model),
            (12, vec![7]),
            "the service keeps what the server counted"
        );
        let updates = model.apply(&[add_server(1, 1)]).unwrap();
        assert!(matches!(
            updates[..],
            [Update::AddServer {
                id: ServerId(0),
                ..
            }]
        ));
        page.servers[0].conns.add(1);
        assert_eq!(conns(&model), (13, vec![6, 7]), "and is the newest");
    }

    #[test]
    fn in_a_service_made_anew_it_counts_from_zero() {
        let (mut model, page) = counted();
        page.servers[0].conns.add(5);
        let updates = model
            .apply(&[
                Change::DeleteService { service: key(1) },
                add_service(1),
                add_server(1, 1),
            ])
            .unwrap();
        assert!(matches!(
            updates[2],
            Update::AddServer {
                id: ServerId(0),
                ..
            }
        ));
        assert_eq!(conns(&model), (0, vec![0]));
    }

    #[test]
    fn zero_moves_the_zero_point_of_service_and_servers() {
        let (mut model, page) = counted();
        page.servers[0].conns.add(5);
        model.estimate();
        model
            .apply(&[delete_server(1, 2), Change::Zero { only: Some(key(1)) }])
            .unwrap();
        assert_eq!(conns(&model), (0, vec![0]));
        assert_eq!(
            model.services(None).unwrap()[0].rates,
            control::Rates::default()
        );
        page.servers[0].conns.add(2);
        assert_eq!(conns(&model), (2, vec![2]));
        assert!(
            model
                .apply(&[Change::Zero { only: None }, add_service(1)])
                .is_err()
        );
        assert_eq!(
            conns(&model),
            (2, vec![2]),
            "a refused batch zeroes nothing"
        );
    }

    #[test]
    fn the_trash_is_swept_as_lvs_does() {
        let (mut model, page) = counted();
        page.servers[0].conns.add(5);
        model.apply(&[delete_server(1, 1)]).unwrap();
        assert_eq!(model.sweep(60, |_| true), []);
        assert_eq!(model.sweep(120, |_| false), [], "stamped");
        assert_eq!(
            model.sweep(180, |_| true),
            [],
            "in use again, the stamp goes"
        );
        assert_eq!(model.sweep(240, |_| false), []);
        assert_eq!(model.sweep(300, |_| false), []);
        assert_eq!(
            model.sweep(360, |_| false),
            [Update::ForgetServer { id: ServerId(0) }]
        );
        assert_eq!(model.sweep(420, |_| false), []);
        // Another server under the same id starts at zero.
        let updates = model.apply(&[add_server(1, 3)]).unwrap();
        assert!(matches!(
            updates[..],
            [Update::AddServer {
                id: ServerId(0),
                ..
            }]
        ));
        assert_eq!(conns(&model), (5, vec![0, 0]));
    }

    #[test]
    fn rates_follow_the_pages() {
        let (mut model, page) = counted();
        page.servers[0].in_packets.add(1000);
        page.servers[1].in_packets.add(3000);
        model.estimate();
        let service = &model.services(None).unwrap()[0];
        let rates: Vec<u64> = service
            .servers
            .iter()
            .map(|server| server.rates.in_pps)
            .collect();
        assert_eq!((service.rates.in_pps, rates), (500, vec![375, 125]));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "guards against quadratic time")]
    fn ten_thousand_changes_take_a_moment() {
        let mut model = Model::new(Limits {
            services_max: 10_000,
            servers_max: 20_000,
        });
        let many = |change: fn(u16) -> Change| (0..10_000).map(change).collect::<Vec<_>>();
        let service = |n: u16| ServiceKey {
            protocol: Protocol::Udp,
            address: SocketAddr::from(([10, 0, 0, 1], n + 1)),
        };
        let start = std::time::Instant::now();
        let services: Vec<Change> = (0..10_000)
            .map(|n| Change::AddService {
                service: service(n),
                spec: spec("rr"),
            })
            .collect();
        model.apply(&services).unwrap();
        model
            .apply(&many(|n| Change::AddServer {
                service: ServiceKey {
                    protocol: Protocol::Udp,
                    address: SocketAddr::from(([10, 0, 0, 1], 1)),
                },
                server: SocketAddr::from(([10, 1, 0, 1], n + 1)),
                spec: weight(1),
            }))
            .unwrap();
        let mut failing = many(|n| Change::DeleteServer {
            service: ServiceKey {
                protocol: Protocol::Udp,
                address: SocketAddr::from(([10, 0, 0, 1], 1)),
            },
            server: SocketAddr::from(([10, 1, 0, 1], n + 1)),
        });
        failing.push(Change::Flush);
        failing.push(Change::DeleteService {
            service: service(0),
        });
        model.apply(&failing).unwrap_err();
        assert_eq!(
            model.services(Some(&service(0))).unwrap()[0].servers.len(),
            10_000
        );
        model.apply(&failing[..10_001]).unwrap();
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
    }

    /// Services in order of birth, servers newest first.
    type Naive = Vec<(ServiceKey, String, Vec<(SocketAddr, u32)>)>;

    /// The same rules without ids, undo or limits; `None` when refused.
    fn naive(state: &mut Naive, change: &Change) -> Option<()> {
        let place =
            |state: &Naive, key: &ServiceKey| state.iter().position(|service| service.0 == *key);
        let known = |spec: &ServiceSpec| {
            ["rr", "wrr"]
                .contains(&spec.scheduler.as_str())
                .then(|| spec.scheduler.clone())
        };
        match change {
            Change::AddService { service, spec } => {
                let scheduler = known(spec)?;
                place(state, service).is_none().then_some(())?;
                state.push((*service, scheduler, Vec::new()));
            }
            Change::EditService { service, spec } => {
                let at = place(state, service)?;
                state[at].1 = known(spec)?;
            }
            Change::DeleteService { service } => {
                let at = place(state, service)?;
                state.remove(at);
            }
            Change::Flush => state.clear(),
            Change::AddServer {
                service,
                server,
                spec,
            } => {
                let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
                servers
                    .iter()
                    .all(|other| other.0 != *server)
                    .then_some(())?;
                servers.insert(0, (*server, spec.weight));
            }
            Change::EditServer {
                service,
                server,
                spec,
            } => {
                let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
                servers.iter_mut().find(|other| other.0 == *server)?.1 = spec.weight;
            }
            Change::DeleteServer { service, server } => {
                let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
                let at = servers.iter().position(|other| other.0 == *server)?;
                servers.remove(at);
            }
            Change::Zero { only } => {
                only.is_none_or(|key| place(state, &key).is_some())
                    .then_some(())?;
            }
            Change::SetTimeouts { .. } => {}
        }
        Some(())
    }

    fn shown(model: &Model) -> Naive {
        let servers = |service: &control::Service| {
            service
                .servers
                .iter()
                .map(|server| (server.address, server.spec.weight))
                .collect()
        };
        let services = model.services(None).unwrap();
        services
            .iter()
            .map(|service| {
                (
                    service.key,
                    service.spec.scheduler.clone(),
                    servers(service),
                )
            })
            .collect()
    }

    fn sorted(state: &Naive) -> Naive {
        let mut state = state.clone();
        state.sort_by_key(|service| service.0);
        state
    }

    /// What a worker knows; it panics at an update that makes no sense.
    #[derive(Default)]
    struct Mirror {
        services: HashMap<ServiceId, (ServiceKey, Kind, Vec<ServerId>)>,
        servers: HashMap<ServerId, (SocketAddr, u32)>,
        binned: HashSet<ServerId>,
    }

    impl Mirror {
        fn apply(&mut self, update: &Update) {
            match *update {
                Update::AddService { id, key, scheduler } => {
                    assert!(
                        self.services
                            .insert(id, (key, scheduler, Vec::new()))
                            .is_none()
                    );
                }
                Update::EditService { id, scheduler } => {
                    self.services.get_mut(&id).unwrap().1 = scheduler
                }
                Update::DeleteService { id } => {
                    self.binned.extend(self.services.remove(&id).unwrap().2)
                }
                Update::AddServer {
                    service,
                    id,
                    address,
                    weight,
                    ..
                } => {
                    let old = self.servers.insert(id, (address, weight));
                    assert_eq!(old.is_some(), self.binned.remove(&id));
                    assert!(old.is_none_or(|old| old.0 == address));
                    self.services.get_mut(&service).unwrap().2.insert(0, id);
                }
                Update::EditServer { id, weight, .. } => {
                    self.servers.get_mut(&id).unwrap().1 = weight
                }
                Update::DeleteServer { id } => {
                    assert!(self.binned.insert(id));
                    let holders = self
                        .services
                        .values_mut()
                        .filter(|service| service.2.contains(&id));
                    assert_eq!(
                        holders
                            .map(|service| service.2.retain(|other| *other != id))
                            .count(),
                        1
                    );
                }
                Update::ForgetServer { id } => {
                    assert!(self.binned.remove(&id));
                    self.servers.remove(&id).unwrap();
                }
                Update::SetTimeouts(_) => {}
            }
        }

        fn shown(&self) -> Naive {
            let servers = |ids: &[ServerId]| ids.iter().map(|id| self.servers[id]).collect();
            let services = self.services.values();
            sorted(
                &services
                    .map(|(key, kind, ids)| (*key, kind.name().to_owned(), servers(ids)))
                    .collect(),
            )
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        let service = || (1u8..4).prop_map(key);
        let server = || (1u8..5).prop_map(address);
        let name =
            || prop_oneof![6 => Just("rr"), 6 => Just("wrr"), 1 => Just("none")].prop_map(spec);
        let weights = || (0u32..4).prop_map(weight);
        prop_oneof![
            5 => (service(), name()).prop_map(|(service, spec)| Change::AddService { service, spec }),
            2 => (service(), name()).prop_map(|(service, spec)| Change::EditService { service, spec }),
            2 => service().prop_map(|service| Change::DeleteService { service }),
            1 => Just(Change::Flush),
            9 => (service(), server(), weights())
                .prop_map(|(service, server, spec)| Change::AddServer { service, server, spec }),
            3 => (service(), server(), weights())
                .prop_map(|(service, server, spec)| Change::EditServer { service, server, spec }),
            4 => (service(), server()).prop_map(|(service, server)| Change::DeleteServer { service, server }),
            1 => proptest::option::of(service()).prop_map(|only| Change::Zero { only }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Batches and sweeps in any order: the model shows what the naive one does, a refused batch
        /// changes nothing, and the updates lead every worker to the same.
        #[test]
        fn agrees_with_a_naive_model(batches in vec((vec(change(), 1..5), any::<bool>()), 1..60)) {
            let page = Arc::new(Page::new(3, 12));
            let mut model = Model::new(Limits { services_max: 3, servers_max: 12 }).watching(vec![Arc::clone(&page)]);
            let (mut reference, mut mirror, mut now_s) = (Naive::new(), Mirror::default(), 0);
            for (batch, sweep) in batches {
                let mut next = reference.clone();
                let accepted = batch.iter().all(|change| naive(&mut next, change).is_some());
                match model.apply(&batch) {
                    Ok(updates) => {
                        prop_assert!(accepted);
                        reference = next;
                        updates.iter().for_each(|update| mirror.apply(update));
                    }
                    Err(refusal) => prop_assert!(!accepted, "{refusal}"),
                }
                if sweep {
                    now_s += 60;
                    let updates = model.sweep(now_s, |id| id.0 % 4 == 0);
                    updates.iter().for_each(|update| mirror.apply(update));
                }
                prop_assert_eq!(shown(&model), sorted(&reference));
                prop_assert_eq!(mirror.shown(), sorted(&reference));
            }
        }

        /// What the listing counts never runs backwards or below zero, whatever comes and goes.
        #[test]
        fn totals_never_wrap(batches in vec(vec(change(), 1..4), 1..40)) {
            let page = Arc::new(Page::new(3, 12));
            let mut model = Model::new(Limits { services_max: 3, servers_max: 12 }).watching(vec![Arc::clone(&page)]);
            let mut counted = 0;
            for batch in batches {
                let before = model.services(None).unwrap();
                if model.apply(&batch).is_err() {
                    prop_assert_eq!(&model.services(None).unwrap(), &before);
                }
                for server in &page.servers {
                    server.conns.add(1);
                    counted += 1;
                }
                for service in model.services(None).unwrap() {
                    prop_assert!(service.totals.conns <= counted);
                    for server in service.servers {
                        prop_assert!(server.totals.conns <= counted);
                    }
                }
            }
        }
    }
}

//! The authoritative services and servers. It judges every change before a worker hears of it,
//! hands out ids, and keeps what outlives a server: the trash, zero points, rates.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use control::{Change, Errno, ForwardMode, Refusal, ServerSpec, ServiceKey, ServiceSpec, Totals};

use super::stats::{self, Estimator, minus, plus};
use crate::conn::Timeouts;
use crate::conn::state::State;
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
                let id = self.find(service, "no such service")?;
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
                let id = self.find(key, "no such service")?;
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
        usable(key.address, "service")?;
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
        let id = self.find(&key, "no such service")?;
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
        let service = self.find(key, "no such service")?;
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
        usable(address, "server")?;
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
        self.find(key, "no such service")?;
        weighed(spec, address)?;
        let (id, ..) = self.find_server(key, address)?;
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
        self.find(key, "no such service")?;
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
            Some(key) => vec![self.services.get(self.find(key, "no such service")?.0)],
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

    fn find(&self, key: &ServiceKey, otherwise: &str) -> Result<ServiceId, Refusal> {
        let missing = || refuse(Errno::Esrch, format!("{otherwise}: {}", name(key)));
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

fn usable(address: SocketAddr, whose: &str) -> Result<(), Refusal> {
    match address {
        SocketAddr::V4(v4) if !is_unicast(*v4.ip()) => Err(refuse(
            Errno::Einval,
            format!("{whose} address {} is not unicast", v4.ip()),
        )),
        _ if address.port() == 0 => Err(refuse(
            Errno::Einval,
            format!("{whose} {address} has port 0, 1 to 65535 is right"),
        )),
        _ => Ok(()),
    }
}

/// An address that can be one station's: not unspecified, loopback, multicast, reserved or
/// broadcast.
pub(crate) fn is_unicast(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

fn weighed(spec: ServerSpec, address: SocketAddr) -> Result<(), Refusal> {
    let ServerSpec {
        mode: ForwardMode::Nat,
        weight,
    } = spec;
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

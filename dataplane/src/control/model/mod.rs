//! The authoritative services and servers. It judges every change before a worker hears of it,
//! hands out ids, and keeps what outlives a server: the trash, zero points, rates.

mod conf; // what there is, as a file says it
mod drain; // servers that get no new connections, and their end
mod extras; // local addresses, options, settings
mod health; // servers that are down, or stand by
mod kept; // what outlives the daemon
mod ledger; // what was counted since the start
mod marks; // rules that mark packets
mod near; // services that a packet nearly belongs to
mod network; // addresses, routes, static neighbours
mod ports; // ports, and their numbers
mod ramp; // slow start
mod rules; // what no service, no server and no local address may be
mod slots; // ids
mod steps; // each change, carried out
mod sync; // daemons that synchronise connections
mod tables; // what hashing schedulers look servers up in
#[cfg(test)]
mod tests;
mod totals; // zero points, rates
mod trash; // deleted servers
mod undo; // how each step is taken back
mod uses; // what each address is used as
mod view; // for whoever counts on another thread
mod was; // what a change finds

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use control::{
    Change, Errno, Health, PortSpec, Refusal, ServerOptions, ServerSpec, ServiceKey,
    ServiceOptions, Settings, SyncDaemon, SyncRole, Totals,
};

use self::drain::Draining;
use self::health::Condition;
use self::ledger::{Ledger, Past};
use self::network::Network;
use self::ramp::Ramp;
use self::slots::Slots;
use self::undo::Transaction;
use self::uses::{Use, Uses};
use super::stats::{self, Estimator, minus};
use crate::conn::Timeouts;
use crate::counters::{LocalPage, Page};
use crate::marks::Rule;
use crate::net::Setup;
use crate::packet::PortId;
use crate::sched::Table;
use crate::templates::Templates;
use crate::update::{LocalAddress, Policy, ServerId, ServiceId, Update};

pub use self::drain::Drained;
pub use self::health::Patient;
pub use self::kept::{Kept, Numbers};
pub use self::ledger::Tally;
pub use self::ports::{
    DESCRIPTORS, MTU_MIN, Ports, is_virtual, is_word, kernel, kernel_name, side_name, side_spec,
    sides, wrong_descriptors, wrong_device, wrong_kernel_name, wrong_name,
};
pub use self::sync::wrong_daemon;
pub use self::view::{ServerView, ServiceView, View};

/// The highest weight, as in LVS.
pub const WEIGHT_MAX: u32 = i32::MAX as u32;
/// The highest threshold, as in LVS.
pub const THRESHOLD_MAX: u32 = i32::MAX as u32;
/// The longest settable timeout in seconds: 31 days, as in ipvsadm.
pub const TIMEOUT_MAX_S: u32 = 31 * 24 * 3600;
/// The longest slow start in seconds: a day.
pub const SLOW_START_MAX_S: u32 = 24 * 3600;
/// The most local addresses of one service.
pub const LOCAL_ADDRESSES_MAX: usize = 256;
/// Local addresses that nobody has any more are remembered while there are no more than so many.
const LOCALS_MAX: usize = 4096;
/// The least and the most that a service's MSS can be; Linux's least, and what fits IPv4.
pub const MSS_MIN: u16 = 88;
pub const MSS_MAX: u16 = 65_495;
/// How often [`Model::sweep`] is due, in seconds.
pub const SWEEP_S: u64 = 60;
/// How often [`Model::ramp`] and [`Model::drained`] are due, in seconds.
pub const STEP_S: u64 = 1;
/// How long a deleted server without connections stays in the trash, in seconds.
pub const TRASH_IDLE_S: u64 = 120;

/// How much a model holds; the workers' pages are as large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub services_max: usize,
    /// Deleted servers count until they are forgotten.
    pub servers_max: usize,
}

/// What follows from a batch of changes that was carried out.
#[derive(Debug)]
pub struct Applied {
    /// What the workers must apply.
    pub updates: Vec<Update>,
    /// Ports that are to be closed once they have.
    pub closed: Vec<PortId>,
    /// Daemons that are to be stopped.
    pub stopped: Vec<SyncRole>,
}

/// A port that is to be started.
#[derive(Debug, Clone, Copy)]
pub struct NewPort<'s> {
    pub id: PortId,
    pub spec: &'s PortSpec,
    /// Its kernel's side, a port of its own, if it has one.
    pub side: Option<PortId>,
}

impl NewPort<'_> {
    /// Locally administered, and each port's own.
    pub const fn mac_without_device(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.id.0]
    }
}

/// What a batch needs beside the model, when all else is found right.
pub trait Outside {
    /// Starts a port; says its Ethernet address.
    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal>;

    /// Starts a daemon that synchronises connections.
    fn start(&mut self, daemon: &SyncDaemon, settings: Settings) -> Result<(), Refusal>;
}

/// Daemons are but names.
impl<F: FnMut(NewPort<'_>) -> Result<[u8; 6], Refusal>> Outside for F {
    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        self(port)
    }

    fn start(&mut self, _: &SyncDaemon, _: Settings) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Every service and server, the timeouts and the settings.
#[derive(Debug)]
pub struct Model {
    services: Slots<Service>,
    servers: Slots<Server>,
    by_key: HashMap<ServiceKey, ServiceId>,
    /// Servers in their service and servers in the trash: an identity has one id.
    by_address: HashMap<(ServiceKey, SocketAddr), ServerId>,
    uses: Uses,
    /// What counts each local address that a service has or had.
    locals: HashMap<IpAddr, Arc<[LocalPage]>>,
    ledger: Ledger,
    timeouts: Timeouts,
    settings: Settings,
    /// The master first.
    daemons: Vec<SyncDaemon>,
    /// Replaced, but a worker may have them yet.
    retired: Vec<Arc<Table>>,
    /// In order.
    marks: Vec<Rule>,
    network: Network,
    ports: Ports,
    /// Orders servers by age and tells a service from an earlier one of the same key.
    clock: u64,
    now: Duration,
    pages: Vec<Arc<Page>>,
    templates: Option<Arc<Templates>>,
}

#[derive(Debug)]
struct Service {
    key: ServiceKey,
    born: u64,
    /// When it was added.
    since: Duration,
    head: Head,
    /// Counted by services of this name before it.
    past: Past,
    /// By age: the newest is last.
    servers: BTreeMap<u64, ServerId>,
    /// In the order in which they were added.
    local_addresses: Vec<LocalAddress>,
    health: Arc<Health>,
    /// What the workers look its servers up in.
    table: Option<Arc<Table>>,
}

/// The part of a service that changes in place.
#[derive(Debug, Clone, Copy)]
struct Head {
    policy: Policy,
    options: ServiceOptions,
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
    /// Its last one that was not 0; 0 if it never had one.
    last_weight: u32,
    place: Place,
    ramp: Option<Ramp>,
    draining: Option<Draining>,
    options: ServerOptions,
    condition: Condition,
    /// The page's count when the server joined its service.
    joined: Totals,
    /// The page's count at the last zeroing.
    zero: Totals,
    /// What to take off the page's count to have all that servers of this name counted.
    origin: Tally,
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
            uses: Uses::default(),
            locals: HashMap::new(),
            ledger: Ledger::default(),
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            daemons: Vec::new(),
            retired: Vec::new(),
            marks: Vec::new(),
            network: Network::new(Setup::default()),
            ports: Ports::default(),
            clock: 0,
            now: Duration::ZERO,
            pages: Vec::new(),
            templates: None,
        }
    }

    /// Takes totals from `pages`, one a worker, each made for this model's [`Limits`].
    #[must_use]
    pub fn watching(mut self, pages: Vec<Arc<Page>>) -> Self {
        self.pages = pages;
        self
    }

    /// What follows happens at this time, counted from the start.
    pub fn set_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// With these ports; the place is a port's id.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = PortSpec>) -> Self {
        self.ports = Ports::new(ports);
        self
    }

    /// In the network that the workers begin with, whose ports were given.
    #[must_use]
    pub fn networked(mut self, setup: Setup) -> Self {
        self.network = Network::new(setup);
        self
    }

    /// Counts servers' templates in `templates`, which the workers share.
    #[must_use]
    pub fn sharing(mut self, templates: Arc<Templates>) -> Self {
        self.templates = Some(templates);
        self
    }

    pub fn limits(&self) -> Limits {
        Limits {
            services_max: self.services.max,
            servers_max: self.servers.max,
        }
    }

    pub fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// As [`Model::apply_with`], where ports and daemons that come are but names.
    pub fn apply(&mut self, changes: &[Change]) -> Result<Vec<Update>, Refusal> {
        let mut outside = |port: NewPort<'_>| Ok(port.mac_without_device());
        Ok(self.apply_with(changes, &mut outside)?.updates)
    }

    /// Carries out every change in order and returns what the workers must apply, or refuses and
    /// leaves everything as it was, but for what `outside` has started already.
    pub fn apply_with(
        &mut self,
        changes: &[Change],
        outside: &mut impl Outside,
    ) -> Result<Applied, Refusal> {
        let mut done = self.carry_out(changes)?;
        if let Err(refusal) = self.begin(&done, outside) {
            self.take_back(done);
            return Err(refusal);
        }
        done.updates.extend(self.told_network());
        let closed = std::mem::take(&mut done.closed);
        let stopped = std::mem::take(&mut done.stopped);
        let updates = self.tabulated(done);
        Ok(Applied {
            updates,
            closed,
            stopped,
        })
    }

    /// Starts what a batch brings.
    fn begin(&mut self, done: &Transaction, outside: &mut impl Outside) -> Result<(), Refusal> {
        for &id in &done.opened {
            let Some(spec) = self.ports.get(id) else {
                unreachable!("it was added");
            };
            let side = self.ports.side(id);
            let mac = outside.open(NewPort { id, spec, side })?;
            self.network.set_mac(id, mac);
        }
        let started = (self.daemons.iter()).filter(|daemon| done.started.contains(&daemon.role));
        for daemon in started {
            outside.start(daemon, self.settings)?;
        }
        Ok(())
    }

    /// As [`Model::apply`], for whoever wants to know only whether it would be refused.
    pub fn check(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        self.carry_out(changes).map(|_| ())
    }

    /// What `look` sees with the changes carried out; then everything is as it was.
    pub fn try_out<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Self) -> T,
    ) -> Result<T, Refusal> {
        let done = self.carry_out(changes)?;
        let seen = look(self);
        self.take_back(done);
        Ok(seen)
    }

    fn carry_out(&mut self, changes: &[Change]) -> Result<Transaction, Refusal> {
        let mut done = Transaction::default();
        for (step, change) in changes.iter().enumerate() {
            if let Err(mut refusal) = self.step(change, &mut done) {
                refusal.step = Some(step);
                self.take_back(done);
                return Err(refusal);
            }
        }
        if done.updates_marks {
            done.updates.push(self.compiled_marks());
        }
        self.settle(&mut done);
        Ok(done)
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
            Change::DrainServer {
                service,
                server,
                drain,
            } => self.drain(service, *server, *drain, done),
            Change::CancelDrain { service, server } => self.cancel_drain(service, *server, done),
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
            Change::AddLocalAddress { service, address } => {
                self.add_local_address(service, *address, done)
            }
            Change::DeleteLocalAddress { service, address } => {
                self.delete_local_address(service, *address, done)
            }
            Change::SetOptions { service, options } => self.set_options(service, *options, done),
            Change::SetHashTarget {
                service,
                hash_target,
            } => self.set_hash_target(service, *hash_target, done),
            Change::SetHealth { service, health } => self.set_health(service, health, done),
            Change::SetServerOptions {
                service,
                server,
                options,
            } => self.set_server_options(service, *server, *options, done),
            Change::SetSettings(settings) => self.set_settings(*settings, done),
            Change::AddPort(spec) => self.add_port(spec, done),
            Change::DeletePort { port } => self.delete_port(port, done),
            Change::AddAddress(address) => self.add_address(address, done),
            Change::DeleteAddress(address) => self.delete_address(address, done),
            Change::AddRoute(route) => self.add_route(route.clone(), done),
            Change::ReplaceRoute(route) => self.replace_route(route.clone(), done),
            Change::DeleteRoute { to } => self.delete_route(*to, done),
            Change::AddNeighbour(neighbour) => self.add_neighbour(*neighbour, done),
            Change::DeleteNeighbour { address } => self.delete_neighbour(*address, done),
            Change::FlushNeighbours => {
                done.updates.push(Update::FlushNeighbours);
                Ok(())
            }
            Change::AddMark { rule, at } => self.add_mark(rule, *at, done),
            Change::DeleteMark(which) => self.delete_mark(which, done),
            Change::StartSync(daemon) => self.start_sync(daemon, done),
            Change::StopSync { role } => self.stop_sync(*role, done),
        }
    }

    /// How many services there are.
    pub fn services_len(&self) -> usize {
        self.by_key.len()
    }

    pub fn service_named(&self, id: ServiceId) -> Option<ServiceKey> {
        self.services.find(id.0).map(|service| service.key)
    }

    /// A server and its service, or the one it has left.
    pub fn server_named(&self, id: ServerId) -> Option<(ServiceKey, SocketAddr)> {
        let server = self.servers.find(id.0)?;
        Some((server.service, server.address))
    }

    /// All services, newest first, or the one named.
    pub fn services(&self, only: Option<&ServiceKey>) -> Result<Vec<control::Service>, Refusal> {
        let mut chosen: Vec<&Service> = match only {
            Some(key) => vec![self.services.get(self.find(key)?.0)],
            None => self.services.iter().collect(),
        };
        chosen.sort_unstable_by_key(|service| Reverse(service.born));
        Ok(chosen
            .into_iter()
            .map(|service| self.show(service))
            .collect())
    }

    fn show(&self, service: &Service) -> control::Service {
        control::Service {
            key: service.key,
            spec: service.head.policy.spec(),
            totals: self.service_totals(service),
            rates: service.head.estimator.rates(),
            servers: service
                .servers
                .values()
                .rev()
                .map(|id| self.show_server(*id))
                .collect(),
            options: service.head.options,
            local_addresses: service.local_addresses.iter().map(stats::local).collect(),
            health: service.health(service.servers.values().map(|id| *self.servers.get(id.0))),
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
            persistent: self
                .templates
                .as_ref()
                .map_or(0, |templates| templates.of_server(id)),
            totals: minus(stats::counted(&self.pages, id), server.zero),
            rates: server.estimator.rates(),
            weight_now: (server.weight_now() != server.spec.weight || server.ramp.is_some())
                .then(|| server.weight_now()),
            health: server.health(),
            draining: server.draining.map(|draining| draining.shown(self.now)),
        }
    }

    /// A service that comes or goes takes the uses of its addresses along.
    fn count_uses(&mut self, service: &Service, count: fn(&mut Uses, IpAddr, Use)) {
        if let Some(address) = service.key.address() {
            count(&mut self.uses, address.ip(), Use::Service);
        }
        for local in &service.local_addresses {
            count(&mut self.uses, local.address, Use::Local);
        }
        for id in service.servers.values() {
            let address = self.servers.get(id.0).address;
            count(&mut self.uses, address.ip(), Use::Server);
        }
    }

    /// Puts a server into its service's list.
    fn enlist(&mut self, service: ServiceId, age: u64, id: ServerId) {
        let address = self.servers.get(id.0).address;
        self.uses.add(address.ip(), Use::Server);
        self.services.get_mut(service.0).servers.insert(age, id);
    }

    fn unlist(&mut self, service: ServiceId, age: u64) {
        if let Some(id) = self.services.get_mut(service.0).servers.remove(&age) {
            let address = self.servers.get(id.0).address;
            self.uses.remove(address.ip(), Use::Server);
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
    key.to_string()
}

pub(in crate::control) fn refuse(errno: Errno, detail: impl Into<String>) -> Refusal {
    Refusal {
        errno,
        step: None,
        detail: detail.into(),
    }
}

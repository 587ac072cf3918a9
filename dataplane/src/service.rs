//! Virtual services and real servers as one worker sees them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use control::{
    Engine, ForwardMode, HashTarget, Persistence, ServiceKey, ServiceOptions, ServiceTimeouts,
    Tunnel,
};
use hashbrown::HashMap;

use crate::answers::Answers;
use crate::cpu;
use crate::ftp;
use crate::marks::Marks;
use crate::net::{Sieve, is_global, is_station};
use crate::packet::{BURST, PortId};
use crate::sched::{Ask, Candidate, Kind, Limit, Loads, Newcomer, Scheduler};
use crate::time::Instant;
use crate::update::{Policy, ServerId, ServiceId};
use crate::wire::flow::{Flow, TCP, Tuple, UDP};
use crate::wire::quic;

mod excerpt; // what concerns one packet, copied
mod keyed; // things by a word that packets have
#[cfg(test)]
mod tests;
mod updates; // how services and servers change
mod virtuals; // addresses that clients ask

pub use excerpt::{Excerpt, Weighed};
use keyed::Keyed;
use virtuals::Virtuals;

/// A virtual service with its scheduler's state. What a new connection needs is in its first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Service {
    scheduler: Box<dyn Scheduler>,
    /// Oldest first.
    servers: Vec<Candidate>,
    policy: Policy,
    /// Picks to pass over before the first, see [`Services::staggered`].
    stagger: u16,
    /// Whether one of its servers has thresholds.
    limited: bool,
    key: ServiceKey,
    /// How many were added before it.
    born: u64,
    options: ServiceOptions,
    /// FULLNAT's local addresses, and whose turn it is.
    locals: Vec<IpAddr>,
    local_cursor: usize,
}

const _: () = assert!(std::mem::offset_of!(Service, limited) < 64);

/// A real server, for as long as connections refer to it.
#[derive(Debug, Clone, Copy)]
pub struct Server {
    pub service: ServiceId,
    /// Its service's address; a service by mark has none of its own.
    vip: Option<IpAddr>,
    pub address: SocketAddr,
    /// Of new connections; existing ones keep theirs.
    pub mode: ForwardMode,
    pub tunnel: Tunnel,
    /// Not even for the clients that come back to it.
    pub draining: bool,
    /// In its service; `false` once deleted.
    pub available: bool,
    /// As it was when it was set, or when the server left its service; in between its candidate's
    /// counts.
    limit: Limit,
}

/// A scheduler's choice: what a new connection needs to know of its server.
#[derive(Debug, Clone, Copy)]
pub struct Picked {
    pub id: ServerId,
    pub address: SocketAddr,
    pub mode: ForwardMode,
}

/// Where a server stands among those of its service, if that one's scheduler is to know of every change
/// of its connections.
#[derive(Debug, Clone, Copy)]
struct Rank {
    service: ServiceId,
    place: u32,
}

/// What the packets of a burst ask for that open connections.
pub type Expected = ArrayVec<u64, BURST>;

/// Protocol number, virtual address and port.
type Key = (u8, SocketAddr);

/// Ports from here on are anyone's.
const UNPRIVILEGED: u16 = 1024;

/// All of a worker's services, found by what a packet is addressed to.
#[derive(Debug, Default)]
pub struct Services {
    by_key: HashMap<Key, ServiceId>,
    /// By family (whether IPv6) and mark.
    by_mark: HashMap<(bool, u32), ServiceId>,
    /// Services over IPv4 that ask for nothing but their scheduler, by [`plain_key`].
    plain: Keyed<ServiceId>,
    marks: Arc<Marks>,
    /// How many services have port 21, and port 0.
    ftp: u32,
    portless: u32,
    services: Vec<Option<Service>>,
    servers: Vec<Option<Server>>,
    /// By server.
    ranks: Vec<Option<Rank>>,
    /// How many services lower the segment sizes that SYNs announce.
    clamping: u32,
    /// A service by mark has the whole addresses that rules of its mark name.
    virtuals: Virtuals,
    /// How many servers that connections may refer to each address has.
    stations: HashMap<IpAddr, u32>,
    /// How many services each local address serves.
    locals: HashMap<IpAddr, u32>,
    /// Virtual and local addresses that there ever were.
    sieve: Sieve,
    answers: Answers,
    /// Services that were ever added.
    born: u64,
    generation: u16,
    /// It is to be bumped.
    unsettled: bool,
    stagger: u16,
    loads: Loads,
}

impl Services {
    /// For worker `me`: its schedulers begin `me` picks later than the first worker's, so that few
    /// connections over many workers still spread over the servers. `loads` are what they go by.
    pub fn staggered(me: usize, loads: Loads) -> Self {
        Self {
            stagger: u16::try_from(me).unwrap_or(u16::MAX),
            loads,
            ..Self::default()
        }
    }

    /// What its schedulers and thresholds go by.
    pub fn count_by(&mut self, loads: Loads) {
        self.loads = loads;
    }

    /// The service that a packet with this mark (0: none) from a client asks for: by mark, by address
    /// and port, as data of FTP, or by address alone (`spec/connections.md` §3).
    pub fn matching(&self, tuple: &Tuple, mark: u32) -> Option<ServiceId> {
        if mark != 0
            && let Some(id) = self.by_mark.get(&(tuple.to.is_ipv6(), mark))
        {
            return Some(*id);
        }
        let at = |port| {
            let address = SocketAddr::new(tuple.to.ip(), port);
            self.by_key.get(&(tuple.protocol, address)).copied()
        };
        let port = tuple.to.port();
        let may_be_data = tuple.protocol == TCP && (port == ftp::DATA || port >= UNPRIVILEGED);
        at(port)
            .or_else(|| at(ftp::CONTROL).filter(|_| self.ftp > 0 && may_be_data))
            .or_else(|| at(0).filter(|_| self.portless > 0))
    }

    /// The service that a client's IPv4 packet asks for, if that asks for nothing but its scheduler and
    /// no other one comes into question.
    #[inline]
    pub fn plain(&self, flow: &Flow) -> Option<ServiceId> {
        if self.may_carry_ftp() {
            return None;
        }
        self.plain.get(plain_key_asked(flow))
    }

    /// Notes a client's IPv4 packet that opens a connection, and begins to load what [`Self::plain`] reads.
    #[inline]
    pub fn expect(&self, flow: &Flow, expected: &mut Expected) {
        let key = plain_key_asked(flow);
        self.plain.prefetch(key);
        // As many as there are packets.
        let _ = expected.try_push(key);
    }

    /// Begins to load the services that are asked for, a while after they were noted.
    #[inline]
    pub fn load_expected(&self, expected: &Expected) {
        for key in expected {
            if let Some(id) = self.plain.get(*key) {
                cpu::prefetch(&self.services, id.index());
            }
        }
    }

    /// Begins to load what their schedulers look at first, a while after that.
    #[inline]
    pub fn load_schedulers(&self, expected: &Expected) {
        for key in expected {
            if let Some(service) = self.plain.get(*key).and_then(|id| self.service(id)) {
                cpu::prefetch_ref(&*service.scheduler);
                cpu::prefetch(&service.servers, 0);
            }
        }
    }

    /// Keeps up whether a service is found by [`Self::plain`].
    fn note_plain(&mut self, id: ServiceId) {
        let Some((service, key)) = self
            .service(id)
            .and_then(|service| Some((service, plain_key_of(service.key)?)))
        else {
            return;
        };
        let (policy, options) = (&service.policy, &service.options);
        let is_plain = policy.persistence.is_none()
            && policy.engine.is_none()
            && !policy.one_packet
            && options.mss.is_none()
            && options.timeouts == ServiceTimeouts::default();
        if is_plain {
            self.plain.insert(key, id);
        } else {
            self.plain.remove(key);
        }
    }

    /// Whether the service of a server lowers the segment sizes that SYNs announce.
    pub fn clamps(&self, id: ServerId) -> bool {
        if self.clamping == 0 {
            return false;
        }
        let service = self.server(id).and_then(|s| self.service(s.service));
        service.is_some_and(|service| service.options.mss.is_some())
    }

    /// Whether a connection to FTP's control port may find a service.
    pub fn may_carry_ftp(&self) -> bool {
        self.ftp > 0 || self.portless > 0 || !self.by_mark.is_empty()
    }

    /// The virtual address of a service that does not go by a mark.
    pub fn vip(&self, service: ServiceId) -> Option<IpAddr> {
        Some(self.service(service)?.key.address()?.ip())
    }

    /// The mark of a packet with this tuple that came in on port `from`, in this VLAN, if there is a
    /// service by it; 0 is none.
    #[inline]
    pub fn mark(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> u32 {
        if self.by_mark.is_empty() {
            return 0;
        }
        let mark = self.marked(tuple, from, vlan);
        let key = (tuple.to.is_ipv6(), mark);
        if self.by_mark.contains_key(&key) {
            mark
        } else {
            0
        }
    }

    /// Whether a packet is a client's. Those of a deleted service still are, for its connections.
    pub fn is_asking(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> bool {
        self.asks(tuple.to.ip(), from, vlan, || *tuple)
    }

    /// As [`Self::is_asking`] of a packet to this address, whose tuple is hardly ever needed.
    #[inline(always)]
    pub fn asks(
        &self,
        to: IpAddr,
        from: PortId,
        vlan: Option<u16>,
        tuple: impl FnOnce() -> Tuple,
    ) -> bool {
        self.was_vip(to) || !self.marks.rules().is_empty() && self.marked(&tuple(), from, vlan) != 0
    }

    /// What the rules say of a packet. What comes from a server is a reply and has no mark, unless it
    /// is for a virtual address; nor has what is not for one station.
    #[inline(never)]
    fn marked(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> u32 {
        if self.marks.rules().is_empty() {
            return 0;
        }
        let (mark, to) = (self.marks.of(tuple, from, vlan), tuple.to.ip());
        let is_reply = || self.stations.contains_key(&tuple.from.ip()) && !self.was_vip(to);
        if mark == 0 || !is_global(to) || is_reply() {
            0
        } else {
            mark
        }
    }

    /// Whether some service has this address.
    #[inline]
    pub fn is_vip(&self, address: IpAddr) -> bool {
        self.virtuals.has(address)
    }

    /// Whether some service has this address, or had it and connections may be left: what is for it
    /// comes from clients.
    #[inline(always)]
    pub fn was_vip(&self, address: IpAddr) -> bool {
        self.virtuals.had(address)
    }

    /// Whether some service has this local address.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.locals.contains_key(&address)
    }

    /// Whether `address` is a virtual or local one that the director speaks for; a service of 0.0.0.0
    /// or a multicast group is nobody's to announce.
    #[inline]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.sieve.may_have(address)
            && is_station(address)
            && (self.is_vip(address) || self.is_local(address))
    }

    /// The scheduler's choice for a new connection. A server without a port is asked at the one
    /// that the client asked.
    pub fn pick(
        &mut self,
        now: Instant,
        service: ServiceId,
        newcomer: &Newcomer<'_>,
    ) -> Option<Picked> {
        let picked = self.consider(now, service, newcomer, |scheduler, ask| {
            let server = &ask.servers[scheduler.pick(ask)?];
            // The connection will be counted.
            ask.loads.prefetch(server.id);
            Some(Picked {
                id: server.id,
                address: server.address,
                mode: server.mode,
            })
        });
        let mut picked = picked??;
        if picked.address.port() == 0 {
            picked.address.set_port(newcomer.tuple.to.port());
        }
        Some(picked)
    }

    /// All that there is of the server that was picked.
    pub fn picked(&self, picked: &Picked) -> Option<Server> {
        let address = picked.address;
        let server = *self.server(picked.id)?;
        Some(Server { address, ..server })
    }

    /// Whether a server of a service may have thresholds.
    #[inline]
    pub fn is_limited(&self, service: ServiceId) -> bool {
        self.service(service).is_some_and(|service| service.limited)
    }

    /// Asks a service's scheduler something about a new connection.
    fn consider<T>(
        &mut self,
        now: Instant,
        service: ServiceId,
        newcomer: &Newcomer<'_>,
        of: impl FnOnce(&mut dyn Scheduler, &Ask<'_>) -> T,
    ) -> Option<T> {
        let Newcomer {
            tuple,
            instead,
            said,
        } = *newcomer;
        let loads = &self.loads;
        let service = self.services.get_mut(service.index())?.as_mut()?;
        if service.limited {
            for server in service.servers.iter_mut().filter(|s| s.limit.is_set()) {
                server.limit.observe(loads.of(server.id).total());
            }
        }
        service.scheduler.tick(now);
        let by_id = service.policy.scheduler == Kind::Conhash
            && service.options.hash_target == HashTarget::Qid;
        let ask = Ask {
            now,
            tuple,
            instead,
            servers: &service.servers,
            loads,
            flags: service.policy.flags,
            connection_id: by_id.then(|| quic::connection_id(said)).flatten(),
        };
        let passed_over = usize::from(std::mem::take(&mut service.stagger));
        let passed_over = passed_over.checked_rem(ask.servers.len());
        for _ in 0..passed_over.unwrap_or(0) {
            service.scheduler.pick(&ask);
        }
        Some(of(&mut *service.scheduler, &ask))
    }

    /// Whether a packet of this tuple is scheduled by itself.
    pub fn is_one_packet(&self, service: ServiceId, tuple: &Tuple) -> bool {
        let service = self.service(service);
        tuple.protocol == UDP && service.is_some_and(|service| service.policy.one_packet)
    }

    /// Whether the service of a server schedules each datagram by itself.
    pub fn schedules_alone(&self, id: ServerId) -> bool {
        let server = self.server(id).filter(|server| server.available);
        let service = server.and_then(|server| self.service(server.service));
        service.is_some_and(|service| service.policy.one_packet)
    }

    /// The server at this address that a packet of this tuple may have been sent to by itself.
    pub fn one_packet_server(&self, tuple: &Tuple, address: IpAddr) -> Option<(ServerId, Server)> {
        let id = self.matching(tuple, 0)?;
        if !self.is_one_packet(id, tuple) {
            return None;
        }
        let mut servers = self.service(id)?.servers.iter();
        let found = servers.find(|server| server.address.ip() == address)?;
        Some((found.id, *self.server(found.id)?))
    }

    /// The server of a service at an address, which may have no port.
    pub fn server_at(&self, service: ServiceId, address: SocketAddr) -> Option<ServerId> {
        let mut servers = self.service(service)?.servers.iter();
        let found = servers.find(|server| server.address == address)?;
        Some(found.id)
    }

    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// A connection to this server was opened, and counted.
    #[inline]
    pub fn opened(&mut self, id: ServerId) {
        let is_limited = |server: &Server| server.available && server.limit.is_set();
        if self.server(id).is_some_and(is_limited) {
            let total = self.loads.of(id).total();
            let (service, index) = self.position(id);
            let limit = &mut service.servers[index].limit;
            limit.observe(total.saturating_sub(1));
            limit.observe(total);
        }
    }

    /// This worker counts other connections of a server than before.
    #[inline]
    pub fn counted(&mut self, id: ServerId) {
        let Some(Some(rank)) = self.ranks.get(id.index()) else {
            return;
        };
        if let Some(Some(service)) = self.services.get_mut(rank.service.index()) {
            let (servers, at) = (&service.servers, rank.place as usize);
            service.scheduler.counted(servers, &self.loads, at);
        }
    }

    /// A connection to `destination` that a director before this one left goes to this server.
    pub fn resumed(&mut self, now: Instant, id: ServerId, destination: IpAddr) {
        let Some(server) = self.server(id).copied().filter(|server| server.available) else {
            return;
        };
        if let Some(Some(service)) = self.services.get_mut(server.service.index()) {
            (service.scheduler).resumed(now, destination, server.address);
        }
    }

    /// Whether a server in its service has no weight.
    pub fn is_quiesced(&self, id: ServerId) -> bool {
        let Some(server) = self.server(id).filter(|server| server.available) else {
            return false;
        };
        let service = self.service(server.service);
        let mut candidates = service.into_iter().flat_map(|service| &service.servers);
        candidates.any(|candidate| candidate.id == id && candidate.weight == 0)
    }

    pub fn server(&self, id: ServerId) -> Option<&Server> {
        self.servers.get(id.index())?.as_ref()
    }

    /// Bumped when a server of existing connections may have become unavailable or available, or their
    /// timeouts others.
    #[inline]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// What a service is, and whether its clients come back to the server they had.
    pub fn persistence(&self, service: ServiceId) -> Option<(ServiceKey, Option<Persistence>)> {
        let service = self.service(service)?;
        Some((service.key, service.policy.persistence))
    }

    /// What else than its address a service knows a client by.
    pub fn engine(&self, service: ServiceId) -> Option<Engine> {
        self.service(service)?.policy.engine
    }

    pub fn options(&self, service: ServiceId) -> ServiceOptions {
        let service = self.service(service);
        service.map_or_else(ServiceOptions::default, |service| service.options)
    }

    /// The timeouts of a service, if it has any of its own.
    pub fn own_timeouts(&self, service: ServiceId) -> Option<ServiceTimeouts> {
        let timeouts = self.service(service)?.options.timeouts;
        (timeouts != ServiceTimeouts::default()).then_some(timeouts)
    }

    /// FULLNAT's local addresses of a service, and whose turn it is.
    pub fn locals(&mut self, service: ServiceId) -> (&[IpAddr], &mut usize) {
        let service = self.service_mut(service);
        (&service.locals, &mut service.local_cursor)
    }

    fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(id.index())?.as_ref()
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

/// What a service over IPv4 is found by.
fn plain_key(protocol: u8, address: u32, port: u16) -> u64 {
    u64::from(address) << 32 | u64::from(port) << 16 | u64::from(protocol)
}

fn plain_key_asked(flow: &Flow) -> u64 {
    let [.., a, b, c, d] = flow.addresses.to_ne_bytes();
    let [.., high, low] = flow.ports.to_ne_bytes();
    let port = u16::from_be_bytes([high, low]);
    plain_key(flow.protocol, u32::from_be_bytes([a, b, c, d]), port)
}

fn plain_key_of(key: ServiceKey) -> Option<u64> {
    match key {
        ServiceKey::Address {
            protocol,
            address: SocketAddr::V4(address),
        } => Some(plain_key(
            protocol.number(),
            address.ip().to_bits(),
            address.port(),
        )),
        _ => None,
    }
}

//! Services as they are read, and what of them the director would take.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::{Import, Kind, Note, Place};
use crate::{
    ClientAddress, ForwardMode, HashTarget, Protocol, ServerSpec, ServiceKey, ServiceOptions,
    ServiceSpec, ServiceTimeouts, Tunnel, TunnelChecksum, TunnelKind, Word,
};
use crate::{MH_TABLE_SIZE_MAX, MH_TABLE_SIZE_MIN, is_link_local, is_station};

/// The director's schedulers.
pub const SCHEDULERS: [&str; 15] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
    "conhash",
];
/// What is taken for a scheduler that the director has not.
const SCHEDULER_DEFAULT: &str = "wlc";
/// 31 days.
pub(super) const TIMEOUT_MAX_S: u32 = 31 * 24 * 3600;
const INT_MAX: u32 = i32::MAX as u32;
const LOCAL_ADDRESSES_MAX: usize = 256;
const MSS: RangeInclusive<u16> = 88..=65_495;
const SLOW_START_MAX_S: u32 = 24 * 3600;

/// A virtual service with its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtual {
    pub key: ServiceKey,
    pub spec: ServiceSpec,
    pub options: ServiceOptions,
    pub local_addresses: Vec<(IpAddr, Place)>,
    /// In the order in which they were added.
    pub servers: Vec<(SocketAddr, ServerSpec, Place)>,
    /// Where it was added.
    pub place: Place,
}

/// Everything that was read so far.
#[derive(Debug)]
pub(super) struct Draft {
    kind: Kind,
    pub(super) timeouts: ServiceTimeouts,
    pub(super) expire_quiescent_template: bool,
    /// What was deleted is `None`.
    services: Vec<Option<Virtual>>,
    by_key: HashMap<ServiceKey, usize>,
    servers: HashSet<(ServiceKey, SocketAddr)>,
    notes: Vec<Note>,
}

impl Draft {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            timeouts: ServiceTimeouts::default(),
            expire_quiescent_template: false,
            services: Vec::new(),
            by_key: HashMap::new(),
            servers: HashSet::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn note(&mut self, place: &Place, about: Option<ServiceKey>, what: impl AsRef<str>) {
        let note = Note::new(place, about, what.as_ref());
        // A range may say the same of thousands.
        if self.notes.last() != Some(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn notes(&mut self, notes: Vec<Note>) {
        self.notes.extend(notes);
    }

    pub(super) fn service(&mut self, key: &ServiceKey) -> Option<&mut Virtual> {
        self.services[*self.by_key.get(key)?].as_mut()
    }

    /// What is there already stays as it is.
    pub(super) fn add_service(
        &mut self,
        place: &Place,
        key: ServiceKey,
        spec: ServiceSpec,
    ) -> bool {
        if let Some(first) = self.service(&key).map(|service| service.place.clone()) {
            let what = format!("service {key} is left out: it is there already, from {first}");
            self.note(place, Some(key), what);
            return false;
        }
        self.by_key.insert(key, self.services.len());
        self.services.push(Some(Virtual {
            key,
            spec,
            options: ServiceOptions::default(),
            local_addresses: Vec::new(),
            servers: Vec::new(),
            place: place.clone(),
        }));
        true
    }

    pub(super) fn delete_service(&mut self, place: &Place, key: ServiceKey) {
        let slot = self.by_key.remove(&key);
        let Some(service) = slot.and_then(|slot| self.services[slot].take()) else {
            return self.note(
                place,
                Some(key),
                format!("there is no service {key} to delete"),
            );
        };
        for (server, ..) in service.servers {
            self.servers.remove(&(key, server));
        }
    }

    pub(super) fn clear(&mut self) {
        self.services.clear();
        self.by_key.clear();
        self.servers.clear();
    }

    /// What is there already stays as it is.
    pub(super) fn add_server(
        &mut self,
        place: &Place,
        key: ServiceKey,
        server: SocketAddr,
        spec: ServerSpec,
    ) {
        let server = port_as(&key, server, spec.mode);
        if !self.by_key.contains_key(&key) {
            let what = format!("server {server} is left out: there is no service {key}");
            self.note(place, Some(key), what);
        } else if !self.servers.insert((key, server)) {
            let what = format!("server {server} is left out: service {key} has it already");
            self.note(place, Some(key), what);
        } else if let Some(service) = self.service(&key) {
            service.servers.push((server, spec, place.clone()));
        }
    }

    pub(super) fn edit_server(
        &mut self,
        place: &Place,
        key: ServiceKey,
        server: SocketAddr,
        spec: ServerSpec,
    ) {
        let service = self.service(&key);
        let mut servers = service.into_iter().flat_map(|service| &mut service.servers);
        match servers.find(|(address, ..)| *address == server) {
            Some(found) => found.1 = spec,
            None => {
                let what = format!("service {key} has no server {server} to edit");
                self.note(place, Some(key), what);
            }
        }
    }

    pub(super) fn delete_server(&mut self, place: &Place, key: ServiceKey, server: SocketAddr) {
        if !self.servers.remove(&(key, server)) {
            let what = format!("service {key} has no server {server} to delete");
            return self.note(place, Some(key), what);
        }
        if let Some(service) = self.service(&key) {
            service.servers.retain(|(address, ..)| *address != server);
        }
    }

    pub(super) fn add_local_address(&mut self, place: &Place, key: ServiceKey, address: IpAddr) {
        let Some(service) = self.service(&key) else {
            let what = format!("local address {address} is left out: there is no service {key}");
            return self.note(place, Some(key), what);
        };
        let locals = &mut service.local_addresses;
        let what = if locals.iter().any(|(local, _)| *local == address) {
            format!("local address {address} is left out: service {key} has it already")
        } else if locals.len() == LOCAL_ADDRESSES_MAX {
            format!(
                "service {key} has {LOCAL_ADDRESSES_MAX} local addresses, the most there can be: what is beyond is left out"
            )
        } else {
            return locals.push((address, place.clone()));
        };
        self.note(place, Some(key), what);
    }

    /// Takes out what the director would refuse. `order` has the files in the order in which they were
    /// read.
    pub(super) fn finish(mut self, order: &[Arc<str>]) -> Import {
        let mut services: Vec<Virtual> = std::mem::take(&mut self.services)
            .into_iter()
            .flatten()
            .collect();
        services.retain_mut(|service| self.sensible(service));
        let mut taken: HashSet<IpAddr> = HashSet::new();
        for service in &services {
            taken.extend(service.key.address().map(|address| address.ip()));
            taken.extend(service.servers.iter().map(|(server, ..)| server.ip()));
        }
        for service in &mut services {
            self.reachable(service, &taken);
        }
        let rank: HashMap<&Arc<str>, usize> =
            order.iter().rev().zip((0..order.len()).rev()).collect();
        let mut notes = self.notes;
        notes.sort_by_key(|note| (rank.get(&note.place.file).copied(), note.place.line));
        Import {
            kind: self.kind,
            timeouts: self.timeouts,
            expire_quiescent_template: self.expire_quiescent_template,
            services,
            notes,
        }
    }

    /// Whether the service can stand, after what cannot was taken from it.
    fn sensible(&mut self, service: &mut Virtual) -> bool {
        let (key, place) = (service.key, service.place.clone());
        let (changed, refused) = service_rules(&key, &mut service.spec, &mut service.options);
        let stays = refused.is_none();
        for what in changed.into_iter().chain(refused) {
            self.note(&place, Some(key), what);
        }
        if !stays {
            return false;
        }
        let spec = service.spec.clone();
        service.servers.retain_mut(|(address, server, place)| {
            let (changed, refused) = server_rules(&key, &spec, *address, server);
            let left_out = refused.map(|why| format!("server {address} is left out: {why}"));
            let stays = left_out.is_none();
            for what in changed.into_iter().chain(left_out) {
                self.note(place, Some(key), what);
            }
            stays
        });
        true
    }

    /// Takes out local addresses that are something else, and servers that then have none.
    fn reachable(&mut self, service: &mut Virtual, taken: &HashSet<IpAddr>) {
        let key = service.key;
        service.local_addresses.retain(|(address, place)| {
            let why = if taken.contains(address) {
                "a service or a server has it"
            } else if !is_station(*address) || is_link_local(*address) {
                "servers could not answer it"
            } else {
                return true;
            };
            self.note(
                place,
                Some(key),
                format!("local address {address} is left out: {why}"),
            );
            false
        });
        let locals = &service.local_addresses;
        let has = |ipv6| locals.iter().any(|(local, _)| local.is_ipv6() == ipv6);
        let families = [has(false), has(true)];
        service.servers.retain(|(server, spec, place)| {
            let stays = spec.mode != ForwardMode::FullNat || families[usize::from(server.is_ipv6())];
            if !stays {
                let family = if server.is_ipv6() { "IPv6" } else { "IPv4" };
                let what = format!(
                    "server {server} is left out: it is reached by fullnat, and service {key} has no {family} \
                     local address"
                );
                self.note(place, Some(key), what);
            }
            stays
        });
        // In the file a service by mark and its rules stand apart.
        if let ServiceKey::Mark { mark, .. } = key {
            let what = format!(
                "service {key}: what gives packets their mark is no part of it, a [[mark]] with mark = {mark} \
                 has to say which they are"
            );
            self.note(&service.place.clone(), Some(key), what);
        }
    }
}

/// Direct routing and tunnels leave a packet's port alone.
fn port_as(key: &ServiceKey, server: SocketAddr, mode: ForwardMode) -> SocketAddr {
    let keeps = matches!(mode, ForwardMode::Direct | ForwardMode::Tunnel);
    match key.address() {
        Some(address) if keeps => SocketAddr::new(server.ip(), address.port()),
        _ => server,
    }
}

/// What was changed of a service, and why it cannot stand, if so.
fn service_rules(
    key: &ServiceKey,
    spec: &mut ServiceSpec,
    choices: &mut ServiceOptions,
) -> (Vec<String>, Option<String>) {
    let mut changed = Vec::new();
    if !SCHEDULERS.contains(&spec.scheduler.as_str()) {
        let name = super::quoted(&spec.scheduler);
        changed.push(format!(
            "scheduler {name} is not known, {SCHEDULER_DEFAULT} is taken"
        ));
        SCHEDULER_DEFAULT.clone_into(&mut spec.scheduler);
        spec.flags = crate::SchedulerFlags::default();
    }
    if let Some(persistence) = &mut spec.persistence
        && !(1..=TIMEOUT_MAX_S).contains(&persistence.timeout_s)
    {
        let right = persistence.timeout_s.clamp(1, TIMEOUT_MAX_S);
        changed.push(format!(
            "persistence of {} s cannot be, {right} s is taken",
            persistence.timeout_s
        ));
        persistence.timeout_s = right;
    }
    if let Some(why) = spec.pointless(key) {
        changed.push(format!("the persistence engine is left out: {why}"));
        spec.engine = None;
    }
    let (tcp, udp) = (key.may_be(Protocol::Tcp), key.may_be(Protocol::Udp));
    if spec.one_packet && !udp {
        changed.push("one-packet scheduling is left out: it is for UDP".to_owned());
        spec.one_packet = false;
    }
    changed.extend(options(choices, tcp, udp));
    let is_every_port = key.address().is_some() && key.port() == 0;
    let refused = (is_every_port && spec.persistence.is_none()).then(|| {
        format!("service {key} is left out: port 0, every port, goes with persistence only")
    });
    (changed, refused)
}

/// Options go with protocols, and have their bounds.
fn options(options: &mut ServiceOptions, tcp: bool, udp: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let usual = ServiceOptions::default();
    let timeouts = &mut options.timeouts;
    for (timeout, right, name) in [
        (&mut timeouts.tcp, tcp, "TCP"),
        (&mut timeouts.tcp_fin, tcp, "TCP"),
        (&mut timeouts.udp, udp, "UDP"),
    ] {
        if let Some(seconds) = timeout.filter(|s| !right || !(1..=TIMEOUT_MAX_S).contains(s)) {
            let why = match right {
                true => format!("1 to {TIMEOUT_MAX_S} s is right"),
                false => format!("it is for {name}"),
            };
            notes.push(format!("the timeout of {seconds} s is left out: {why}"));
            *timeout = None;
        }
    }
    let proxy = matches!(
        options.client_address,
        ClientAddress::ProxyV1 | ClientAddress::ProxyV2
    );
    if proxy && !tcp {
        notes.push("the PROXY protocol is left out: it is for TCP".to_owned());
        options.client_address = usual.client_address;
    }
    if options.hash_target == HashTarget::Qid && !udp {
        notes.push("hash target qid is left out: QUIC is over UDP".to_owned());
        options.hash_target = usual.hash_target;
    }
    if options.reset_on_expiry && !tcp {
        notes.push("reset_on_expiry is left out: it is for TCP".to_owned());
        options.reset_on_expiry = false;
    }
    if let Some(mss) = options.mss.filter(|mss| !tcp || !MSS.contains(mss)) {
        let (least, most) = (MSS.start(), MSS.end());
        notes.push(format!(
            "mss {mss} is left out: it is for TCP, {least} to {most}"
        ));
        options.mss = None;
    }
    if let Some(size) = options.mh_table_size.filter(|size| !is_table_size(*size)) {
        notes.push(format!(
            "mh_table_size {size} is left out: a prime from {MH_TABLE_SIZE_MIN} to {MH_TABLE_SIZE_MAX} is right"
        ));
        options.mh_table_size = None;
    }
    if options.slow_start_s > SLOW_START_MAX_S {
        let seconds = options.slow_start_s;
        notes.push(format!(
            "slow_start {seconds} is too long, {SLOW_START_MAX_S} is taken"
        ));
        options.slow_start_s = SLOW_START_MAX_S;
    }
    notes
}

fn is_table_size(size: u32) -> bool {
    let mut divisors = (2..).take_while(|d| d * d <= size);
    (MH_TABLE_SIZE_MIN..=MH_TABLE_SIZE_MAX).contains(&size)
        && divisors.all(|d| !size.is_multiple_of(d))
}

/// What was changed of a server, and why it cannot stand, if so.
fn server_rules(
    key: &ServiceKey,
    service: &ServiceSpec,
    address: SocketAddr,
    spec: &mut ServerSpec,
) -> (Vec<String>, Option<String>) {
    let mut changed = Vec::new();
    if spec.weight > INT_MAX {
        changed.push(format!(
            "server {address}: weight {} is too high, {INT_MAX} is taken",
            spec.weight
        ));
        spec.weight = INT_MAX;
    }
    let thresholds = &mut spec.thresholds;
    if thresholds.upper > INT_MAX {
        changed.push(format!(
            "server {address}: upper threshold {} is too high, {INT_MAX} is taken",
            thresholds.upper
        ));
        thresholds.upper = INT_MAX;
    }
    if thresholds.lower > thresholds.upper {
        changed.push(format!(
            "server {address}: lower threshold {} is left out: the upper one is {}",
            thresholds.lower, thresholds.upper
        ));
        thresholds.lower = 0;
    }
    if let Some(right) = tunnel(spec) {
        changed.push(format!(
            "server {address}: tunnel {} cannot be, {right} is taken",
            spec.tunnel
        ));
        spec.tunnel = right;
    }
    let mixes = matches!(spec.mode, ForwardMode::Tunnel | ForwardMode::FullNat);
    let ip = address.ip();
    let refused = if !mixes && ip.is_ipv6() != key.is_ipv6() {
        Some(format!(
            "service {key} is of the other family, for which {} cannot be",
            spec.mode.word()
        ))
    } else if (!is_station(ip) || is_link_local(ip)) && !ip.is_loopback() {
        Some(format!("{ip} is not unicast"))
    } else if service.one_packet && spec.mode == ForwardMode::FullNat {
        Some("fullnat cannot be with one-packet scheduling".to_owned())
    } else if spec.mode == ForwardMode::Tunnel
        && spec.tunnel.kind == TunnelKind::Gue
        && spec.tunnel.port == 0
    {
        Some("its gue tunnel has no port".to_owned())
    } else {
        None
    };
    (changed, refused)
}

/// What a tunnel has to be instead.
fn tunnel(spec: &ServerSpec) -> Option<Tunnel> {
    let Tunnel { kind, checksum, .. } = spec.tunnel;
    let right = match (spec.mode, kind) {
        (ForwardMode::Tunnel, TunnelKind::Gue) => spec.tunnel,
        (ForwardMode::Tunnel, TunnelKind::Gre) => Tunnel {
            kind,
            port: 0,
            checksum: match checksum {
                TunnelChecksum::Remote => TunnelChecksum::Full,
                other => other,
            },
        },
        _ => Tunnel::default(),
    };
    (right != spec.tunnel).then_some(right)
}

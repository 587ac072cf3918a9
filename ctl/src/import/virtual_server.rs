//! One `virtual_server` of keepalived.conf: a service, or one for each entry of its group.

use std::net::{IpAddr, SocketAddr};

use super::blocks::Statement;
use super::draft::Draft;
use super::keepalived::{Entry, Groups, port};
use super::{Around, Place, quoted};
use crate::{
    ClientAddress, Engine, ForwardMode, HashTarget, Netmask, NoFlag, Persistence, Protocol,
    SchedulerFlags, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, Thresholds, Tunnel,
    TunnelChecksum, TunnelKind, Word,
};

/// When `persistence_timeout` says none.
const PERSISTENT_DEFAULT: u32 = 360;
const CHECKS: &str = "checks are not carried over, [[service.check]] is right; docs/health.md";
const SCRIPTS: &str = "the director runs no scripts and sends no mail";
const LISTS: &str = "there are no lists of clients to refuse or allow";

/// What the block says.
struct Block<'a> {
    around: Around<'a>,
    protocol: Option<Protocol>,
    ipv6: Option<bool>,
    scheduler: String,
    /// With where they are written; they go with a scheduler that may come later.
    flags: Vec<(String, Place)>,
    one_packet: bool,
    engine: Option<Engine>,
    persistent: Option<u32>,
    granularity: Option<(String, Place)>,
    method: Method,
    weight: u32,
    options: ServiceOptions,
    local_group: Option<(String, Place)>,
    servers: Vec<Server>,
    notes: Vec<(Place, String)>,
}

/// A forwarding method with its tunnel.
type Method = (ForwardMode, Tunnel);

struct Server {
    address: IpAddr,
    /// The service's unless it is written.
    port: Option<u16>,
    /// The service's unless they are written.
    weight: Option<u32>,
    method: Option<Method>,
    thresholds: Thresholds,
    place: Place,
}

pub(super) fn read(
    draft: &mut Draft,
    groups: &mut Groups,
    statement: &Statement,
    around: Around<'_>,
) {
    let mut block = Block::new(around);
    for inner in statement.inner() {
        block.take(inner);
    }
    let keys = block.keys(groups, statement);
    let about = keys.first().map(|(key, _)| *key);
    let local_addresses = block.local_addresses(groups);
    for (place, what) in std::mem::take(&mut block.notes) {
        draft.note(&place, about, what);
    }
    for (key, place) in keys {
        let (spec, notes) = block.spec(&key);
        for (place, what) in notes {
            draft.note(&place, Some(key), what);
        }
        if !draft.add_service(&place, key, spec) {
            continue;
        }
        if let Some(service) = draft.service(&key) {
            service.options = block.options_of(&key);
        }
        for (address, place) in &local_addresses {
            draft.add_local_address(place, key, *address);
        }
        for server in &block.servers {
            let (address, spec) = block.server(&key, server);
            draft.add_server(&server.place, key, address, spec);
        }
    }
}

impl<'a> Block<'a> {
    fn new(around: Around<'a>) -> Self {
        Self {
            around,
            protocol: None,
            ipv6: None,
            scheduler: "wlc".to_owned(),
            flags: Vec::new(),
            one_packet: false,
            engine: None,
            persistent: None,
            granularity: None,
            method: (ForwardMode::Nat, Tunnel::default()),
            weight: 1,
            options: ServiceOptions::default(),
            local_group: None,
            servers: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn left(&mut self, statement: &Statement, why: &str) {
        let what = format!("{}: {why}", statement.shown());
        self.notes.push((statement.place.clone(), what));
    }

    /// One line of the block, or one block within.
    fn take(&mut self, statement: &Statement) {
        let value = statement.value().unwrap_or_default();
        match statement.keyword() {
            "lb_algo" | "lvs_sched" => value.clone_into(&mut self.scheduler),
            "lb_kind" | "lvs_method" => {
                if let Some(method) = self.method(statement) {
                    self.method = method;
                }
            }
            "protocol" => match Protocol::ALL
                .iter()
                .find(|p| p.word().eq_ignore_ascii_case(value))
            {
                Some(protocol) => self.protocol = Some(*protocol),
                None => self.left(statement, "TCP, UDP or SCTP is right, TCP is taken"),
            },
            "ip_family" => self.ipv6 = Some(value == "inet6"),
            "persistence_timeout" => match statement.value().map(str::parse) {
                None => self.persistent = Some(PERSISTENT_DEFAULT),
                // As keepalived has it, 0 is none.
                Some(Ok(0)) => self.persistent = None,
                Some(Ok(seconds)) => self.persistent = Some(seconds),
                Some(Err(_)) => self.left(statement, "not a number of seconds"),
            },
            "persistence_granularity" => {
                self.granularity = Some((value.to_owned(), statement.place.clone()));
            }
            "persistence_engine" => {
                match Engine::ALL.iter().find(|engine| engine.word() == value) {
                    Some(engine) => self.engine = Some(*engine),
                    None => self.left(statement, "no such engine, sip is right"),
                }
            }
            "ops" => self.one_packet = true,
            flag @ ("flag-1" | "flag-2" | "flag-3" | "sh-port" | "sh-fallback" | "mh-port"
            | "mh-fallback") => {
                self.flags.push((flag.to_owned(), statement.place.clone()));
            }
            "weight" => match value.parse() {
                Ok(weight) => self.weight = weight,
                Err(_) => self.left(statement, "not a weight, 1 is taken"),
            },
            "real_server" => self.real_server(statement),
            _ => self.take_extension(statement, value),
        }
    }

    /// What only DPVS has, and what neither of us does.
    fn take_extension(&mut self, statement: &Statement, value: &str) {
        match statement.keyword() {
            "laddr_group_name" => {
                self.local_group = Some((value.to_owned(), statement.place.clone()))
            }
            "hash_target" => match HashTarget::ALL.iter().find(|target| target.word() == value) {
                Some(target) => self.options.hash_target = *target,
                None => self.left(statement, "sip or qid is right"),
            },
            "establish_timeout" | "conn_timeout" => match value.parse() {
                Ok(seconds) => self.options.timeouts.tcp = Some(seconds),
                Err(_) => self.left(statement, "not a number of seconds"),
            },
            "proxy_protocol" => match proxy_protocol(value) {
                Some(Some(client_address)) => self.options.client_address = client_address,
                Some(None) => {}
                None => self.left(statement, "v1, v2 or disable is right"),
            },
            _ => self.left(statement, why_not(statement.keyword())),
        }
    }

    /// `NAT`, `DR`, `TUN type gue port 6080 csum`, and DPVS's `FNAT`.
    fn method(&mut self, statement: &Statement) -> Option<Method> {
        let (name, rest) = statement.values().split_first()?;
        let mode = match name.to_ascii_uppercase().as_str() {
            "NAT" => ForwardMode::Nat,
            "DR" => ForwardMode::Direct,
            "TUN" => ForwardMode::Tunnel,
            "FNAT" => ForwardMode::FullNat,
            _ => {
                self.left(
                    statement,
                    "NAT, DR, TUN or FNAT is right, NAT is taken; the director has no SNAT",
                );
                return None;
            }
        };
        let mut tunnel = Tunnel::default();
        let mut rest = rest.iter().map(String::as_str);
        while let Some(word) = rest.next() {
            if tunnel_word(&mut tunnel, word, &mut rest).is_none() {
                let why = format!("{} is not understood of a tunnel", quoted(word));
                self.left(statement, &why);
            }
        }
        Some((mode, tunnel))
    }

    fn real_server(&mut self, statement: &Statement) {
        let address = statement.value().and_then(|text| text.parse().ok());
        let text = statement.values().get(1);
        let port = text.map(|text| port(text, self.around));
        let (Some(address), None | Some(Some(_))) = (address, port) else {
            return self.left(statement, "left out: 192.168.1.2 80 is right");
        };
        let mut server = Server {
            address,
            port: port.flatten(),
            weight: None,
            method: None,
            thresholds: Thresholds::default(),
            place: statement.place.clone(),
        };
        for inner in statement.inner() {
            let number = inner.value().and_then(|text| text.parse().ok());
            match (inner.keyword(), number) {
                ("weight", Some(weight)) => server.weight = Some(weight),
                ("uthreshold", Some(upper)) => server.thresholds.upper = upper,
                ("lthreshold", Some(lower)) => server.thresholds.lower = lower,
                ("weight" | "uthreshold" | "lthreshold", None) => self.left(inner, "not a number"),
                ("lvs_method" | "lb_kind", _) => server.method = self.method(inner),
                (keyword, _) => self.left(inner, why_not(keyword)),
            }
        }
        self.servers.push(server);
    }

    /// What the block is of.
    fn keys(&mut self, groups: &mut Groups, statement: &Statement) -> Vec<(ServiceKey, Place)> {
        let around = self.around;
        let values: Vec<&str> = statement.values().iter().map(String::as_str).collect();
        let own = |entry| vec![(entry, statement.place.clone())];
        let entries = match values.as_slice() {
            ["group", name] => {
                groups.used.insert((*name).to_owned());
                groups.services.get(*name).cloned()
            }
            ["fwmark", mark] => mark.parse().ok().map(|mark| own(Entry::Mark(mark))),
            [address] => address
                .parse()
                .ok()
                .map(|address| own(Entry::At(address, 0))),
            [address, text] => {
                let both = address.parse().ok().zip(port(text, around));
                both.map(|(address, port)| own(Entry::At(address, port)))
            }
            _ => None,
        };
        let Some(entries) = entries else {
            let why = "left out: 10.0.0.1 80, fwmark 7 or group of a group that is there is right";
            self.left(statement, why);
            return Vec::new();
        };
        let protocol = self.protocol.unwrap_or(Protocol::Tcp);
        let keys = entries.into_iter().map(|(entry, place)| {
            let key = match entry {
                Entry::At(address, port) => {
                    ServiceKey::at(protocol, SocketAddr::new(address, port))
                }
                Entry::Mark(mark) => ServiceKey::Mark {
                    mark,
                    ipv6: self.is_ipv6(),
                },
            };
            (key, place)
        });
        keys.collect()
    }

    /// A mark's family, unless it is said, is its servers'.
    fn is_ipv6(&self) -> bool {
        let servers =
            !self.servers.is_empty() && self.servers.iter().all(|server| server.address.is_ipv6());
        self.ipv6.unwrap_or(servers)
    }

    fn local_addresses(&mut self, groups: &mut Groups) -> Vec<(IpAddr, Place)> {
        let Some((name, place)) = &self.local_group else {
            return Vec::new();
        };
        groups.used.insert(name.clone());
        match groups.local_addresses.get(name) {
            Some(list) => list.clone(),
            None => {
                let what = format!(
                    "laddr_group_name {}: there is no such local_address_group",
                    quoted(name)
                );
                self.notes.push((place.clone(), what));
                Vec::new()
            }
        }
    }

    fn spec(&self, key: &ServiceKey) -> (ServiceSpec, Vec<(Place, String)>) {
        let mut notes = Vec::new();
        let mut flags = SchedulerFlags::default();
        for (name, place) in &self.flags {
            if let Err(NoFlag::Unknown | NoFlag::Incompatible) = flags.set(&self.scheduler, name) {
                let scheduler = quoted(&self.scheduler);
                notes.push((
                    place.clone(),
                    format!("{name}: does not go with scheduler {scheduler}"),
                ));
            }
        }
        let mut netmask = Netmask::whole(key.is_ipv6());
        if let Some((text, place)) = &self.granularity {
            match Netmask::read(text, key.is_ipv6()) {
                Ok(_) if self.persistent.is_none() => {
                    notes.push((
                        place.clone(),
                        "persistence_granularity: goes with persistence_timeout".to_owned(),
                    ));
                }
                Ok(mask) => netmask = mask,
                Err(why) => notes.push((
                    place.clone(),
                    format!("persistence_granularity: {}", quoted(&why)),
                )),
            }
        }
        let spec = ServiceSpec {
            flags,
            persistence: self
                .persistent
                .map(|timeout_s| Persistence { timeout_s, netmask }),
            engine: self.engine,
            one_packet: self.one_packet,
            ..ServiceSpec::new(self.scheduler.clone())
        };
        (spec, notes)
    }

    /// DPVS tells servers of UDP services their client in its own way, without being asked.
    fn options_of(&self, key: &ServiceKey) -> ServiceOptions {
        let mut options = self.options;
        if key.protocol() == Some(Protocol::Udp) && self.method.0 == ForwardMode::FullNat {
            options.client_address = ClientAddress::Uoa;
        }
        if key.protocol() == Some(Protocol::Udp) {
            // One timeout stands for whatever the protocol is.
            options.timeouts.udp = options.timeouts.tcp.take();
        }
        options
    }

    fn server(&self, key: &ServiceKey, server: &Server) -> (SocketAddr, ServerSpec) {
        let (mode, tunnel) = server.method.unwrap_or(self.method);
        let spec = ServerSpec {
            mode,
            weight: server.weight.unwrap_or(self.weight),
            tunnel,
            thresholds: server.thresholds,
        };
        let port = server.port.unwrap_or(key.port());
        (SocketAddr::new(server.address, port), spec)
    }
}

/// Takes in `word`, and its value from `rest` if it has one; `None` if it is not understood.
fn tunnel_word<'w>(
    tunnel: &mut Tunnel,
    word: &str,
    rest: &mut impl Iterator<Item = &'w str>,
) -> Option<()> {
    match word {
        "type" => {
            let kind = rest.next()?;
            tunnel.kind = *TunnelKind::ALL.iter().find(|known| known.word() == kind)?;
        }
        "port" => tunnel.port = rest.next()?.parse().ok()?,
        "nocsum" => tunnel.checksum = TunnelChecksum::None,
        "csum" => tunnel.checksum = TunnelChecksum::Full,
        "remcsum" => tunnel.checksum = TunnelChecksum::Remote,
        _ => return None,
    }
    Some(())
}

/// `None` if it is no such word, and within that if it says nothing.
fn proxy_protocol(word: &str) -> Option<Option<ClientAddress>> {
    match word.to_ascii_lowercase().as_str() {
        "v1" | "v1-insecure" => Some(Some(ClientAddress::ProxyV1)),
        "v2" | "v2-insecure" => Some(Some(ClientAddress::ProxyV2)),
        "disable" => Some(None),
        _ => None,
    }
}

/// Why a keyword has nothing to become.
fn why_not(keyword: &str) -> &'static str {
    match keyword {
        "HTTP_GET" | "SSL_GET" | "TCP_CHECK" | "SMTP_CHECK" | "DNS_CHECK" | "MISC_CHECK"
        | "BFD_CHECK" | "UDP_CHECK" | "PING_CHECK" | "FILE_CHECK" | "delay_loop" | "retry"
        | "delay_before_retry" | "warmup" | "connect_timeout" | "alpha" | "omega" | "quorum"
        | "hysteresis" | "inhibit_on_failure" | "virtualhost" | "ha_suspend" => CHECKS,
        "sorry_server" | "sorry_server_inhibit" | "sorry_server_lvs_method" => {
            "sorry servers are not carried over, sorry = true of a server is right; docs/health.md"
        }
        "notify_up" | "notify_down" | "quorum_up" | "quorum_down" | "smtp_alert" | "snmp_name" => {
            SCRIPTS
        }
        "daddr_group_name" | "waddr_group_name" => LISTS,
        "syn_proxy" => "there is no SYN proxy",
        "quic" => {
            "connections are known by addresses; hash_target qid with scheduler conhash keeps QUIC's servers"
        }
        "expire_quiescent_conn" => {
            "connections of a server without weight stay; directorctl server drain ends them"
        }
        "bps" | "limit_proportion" => "traffic is not limited",
        "vip_bind_dev" => "the director has its addresses at all ports",
        "src-range" | "dst-range" | "oif" | "iif" => "it is for SNAT, which the director has not",
        "hashed" => "it changes nothing",
        "nat_mask" => "no version of LVS uses it",
        _ => "not known",
    }
}

//! Random traffic and changes against a naive model of LVS's table, written from its rules
//! (`spec/connections.md`) with maps, words and loops, and no cleverness.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use control::{ForwardMode, Netmask, Persistence, Protocol, Settings, Thresholds};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::frames::{Frame, Parts, address, describe, tcp, udp};
use super::testbed::{Testbed, key, mac_of};
use super::*;
use crate::conn::State;
use crate::counters::DropReason;
use crate::sched::Kind;
use crate::templates::INVALID_PORT;
use crate::update::{Policy, ServerId, ServiceId, Update};

/// Protocol and address of each service. The third one's servers are reached by direct routing.
const SERVICES: [(Protocol, &str); 4] = [
    (Protocol::Tcp, "203.0.113.1:80"),
    (Protocol::Udp, "203.0.113.1:53"),
    (Protocol::Tcp, "203.0.113.1:81"),
    (Protocol::Tcp, "203.0.113.2:0"),
];
const SERVERS_EACH: usize = 3;
const CLIENTS: usize = 6;
const KINDS: [Kind; 4] = [Kind::Rr, Kind::Wrr, Kind::Lc, Kind::Wlc];
/// How late the director notices that a connection's time ran out, at most. What it counts follows.
const LATE_MS: u32 = 1500;
/// What a template gets that controls connections when its time runs out. Its timeout stays, where
/// LVS's becomes this.
const POSTPONED_MS: u32 = 60_000;

/// Timeouts in seconds.
const TIMEOUTS: [(&str, u32); 12] = [
    ("NONE", 2),
    ("ESTABLISHED", 900),
    ("SYN_SENT", 120),
    ("SYN_RECV", 60),
    ("FIN_WAIT", 120),
    ("TIME_WAIT", 120),
    ("CLOSE", 10),
    ("CLOSE_WAIT", 60),
    ("LAST_ACK", 30),
    ("LISTEN", 120),
    ("SYNACK", 120),
    ("UDP", 300),
];
const ACTIVE: [&str; 4] = ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"];

/// What a server is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Spec {
    weight: u32,
    direct: bool,
    upper: u32,
    lower: u32,
}

/// How clients of a service come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sticky {
    timeout_s: u32,
    mask: Ipv4Addr,
}

#[derive(Debug, Clone)]
enum Step {
    /// From client, to service, with these flags.
    Inbound(usize, usize, &'static str),
    /// To client, from service and server.
    Outbound(usize, usize, usize, &'static str),
    AddServer(usize, usize, Spec),
    EditServer(usize, usize, Spec),
    DeleteServer(usize, usize),
    AddService(usize, Kind, Option<Sticky>),
    EditService(usize, Kind, Option<Sticky>),
    DeleteService(usize),
    Settings(u8, [bool; 3]),
    Timeouts(u32, u32, u32),
    /// Deleted servers without connections are forgotten.
    Forget,
    Wait(u32),
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Server(usize, bool),
    Client,
    Dropped(DropReason),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NaiveConn {
    server: usize,
    direct: bool,
    /// Nothing was heard of the server.
    no_output: bool,
    state: String,
    deadline: u32,
    /// Its controller.
    template: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct NaiveTemplate {
    service: usize,
    /// Masked.
    client: Ipv4Addr,
    server: usize,
    timeout_ms: u32,
    deadline: u32,
    assured: bool,
    invalid: bool,
}

impl NaiveTemplate {
    /// Virtual address, client, server and state, as it is listed.
    fn shown(&self) -> Shown {
        let mut ends = [
            address(SERVICES[self.service].1),
            address(&server(self.service, self.server)),
        ];
        if self.invalid {
            for end in &mut ends {
                end.set_port(INVALID_PORT);
            }
        }
        let state = if self.assured { "ASSURED" } else { "NONE" };
        let client = SocketAddr::new(self.client.into(), 0);
        (ends[0], client, ends[1], state.to_owned())
    }
}

type Shown = (SocketAddr, SocketAddr, SocketAddr, String);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    conns: u64,
    in_packets: u64,
    in_bytes: u64,
    out_packets: u64,
    out_bytes: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct NaiveServer {
    spec: Spec,
    /// In its service.
    available: bool,
    overloaded: bool,
    counted: Counted,
}

#[derive(Debug, Clone)]
struct NaiveService {
    scheduler: Kind,
    sticky: Option<Sticky>,
    /// Newest first.
    list: Vec<usize>,
    /// Of `rr`: picked last.
    cursor: Option<usize>,
}

/// LVS's table.
struct Lvs {
    next: Value,
    timeouts: BTreeMap<&'static str, u32>,
    settings: Settings,
    services: [Option<NaiveService>; SERVICES.len()],
    servers: [[NaiveServer; SERVERS_EACH]; SERVICES.len()],
    /// By service and client.
    conns: BTreeMap<(usize, usize), NaiveConn>,
    templates: BTreeMap<u32, NaiveTemplate>,
    templates_made: u32,
}

impl Lvs {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracle/state_tables.json");
        let mut tables: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        Self {
            next: tables["tcp"]["normal"].take(),
            timeouts: TIMEOUTS.into(),
            settings: Settings::default(),
            services: [const { None }; SERVICES.len()],
            servers: Default::default(),
            conns: BTreeMap::new(),
            templates: BTreeMap::new(),
            templates_made: 0,
        }
    }

    /// Active and total connections of a server.
    fn load(&self, service: usize, server: usize) -> (u32, u32) {
        let (mut active, mut total) = (0, 0);
        for ((s, _), conn) in &self.conns {
            if *s == service && conn.server == server {
                total += 1;
                active += u32::from(ACTIVE.contains(&conn.state.as_str()));
            }
        }
        (active, total)
    }

    fn lower(spec: Spec) -> u32 {
        if spec.lower > 0 {
            spec.lower
        } else {
            spec.upper - (spec.upper >> 2)
        }
    }

    fn bind(&mut self, at: (usize, usize), conn: NaiveConn) {
        let (service, server) = (at.0, conn.server);
        self.conns.insert(at, conn);
        let (_, total) = self.load(service, server);
        let server = &mut self.servers[service][server];
        server.counted.conns += 1;
        let Spec { upper, .. } = server.spec;
        if upper > 0 && total == upper && total >= Self::lower(server.spec) {
            server.overloaded = true;
        }
    }

    fn unbind(&mut self, at: (usize, usize)) {
        let conn = &self.conns[&at];
        let (service, server) = (at.0, conn.server);
        let (_, before) = self.load(service, server);
        let server = &mut self.servers[service][server];
        if before == Self::lower(server.spec) && before - 1 < server.spec.upper {
            server.overloaded = false;
        }
        self.conns.remove(&at);
    }

    fn expire(&mut self, now: u32) {
        let due = self.conns.iter().filter(|(_, conn)| conn.deadline <= now);
        let due: Vec<_> = due.map(|(at, _)| *at).collect();
        for at in due {
            self.unbind(at);
        }
    }

    /// Ends all connections of servers that are not in their service.
    fn sweep(&mut self) {
        let conns = self.conns.iter();
        let withdrawn = conns.filter(|(at, conn)| !self.servers[at.0][conn.server].available);
        let withdrawn: Vec<_> = withdrawn.map(|(at, _)| *at).collect();
        for at in withdrawn {
            self.unbind(at);
        }
    }

    fn sweep_templates(&mut self) {
        let (servers, conns) = (&self.servers, &self.conns);
        self.templates.retain(|number, template| {
            let controls = conns.values().any(|conn| conn.template == Some(*number));
            servers[template.service][template.server].available || controls
        });
    }

    /// One packet of a connection; counted while the server is available.
    fn advance(&mut self, now: u32, at: (usize, usize), outbound: bool, flags: &str, len: u64) {
        let Some(conn) = self.conns.get_mut(&at) else {
            panic!("no connection {at:?}")
        };
        let server = &mut self.servers[at.0][conn.server];
        if server.available {
            let counted = &mut server.counted;
            if outbound {
                (counted.out_packets, counted.out_bytes) =
                    (counted.out_packets + 1, counted.out_bytes + len);
            } else {
                (counted.in_packets, counted.in_bytes) =
                    (counted.in_packets + 1, counted.in_bytes + len);
            }
        }
        let direction = match (outbound, conn.no_output) {
            (true, _) => "OUTPUT",
            (false, false) => "INPUT",
            (false, true) => "INPUT_ONLY",
        };
        conn.no_output &= !outbound;
        if SERVICES[at.0].0 == Protocol::Udp {
            conn.state = "UDP".to_owned();
        } else {
            let events = [('R', "rst"), ('S', "syn"), ('F', "fin"), ('A', "ack")];
            let event = events.iter().find(|(flag, _)| flags.contains(*flag));
            conn.state = match event {
                Some((_, event)) => self.next[direction][event][&conn.state].as_str().unwrap(),
                None => "CLOSE",
            }
            .to_owned();
        }
        conn.deadline = now + self.timeouts[conn.state.as_str()] * 1000;
        let answered = conn.state == "ESTABLISHED" || conn.state == "UDP" && outbound;
        if let Some(template) = conn.template.filter(|_| answered)
            && let Some(template) = self.templates.get_mut(&template)
        {
            template.assured = true;
        }
    }

    /// `chosen` is who got the packet: what some schedulers choose is only checked to be allowed.
    fn inbound(
        &mut self,
        now: u32,
        at: (usize, usize),
        flags: &str,
        len: u64,
        chosen: Option<usize>,
    ) -> Fate {
        let (syn, reset) = (flags.contains('S'), flags.contains('R'));
        let is_tcp = SERVICES[at.0].0 == Protocol::Tcp;
        let Settings {
            conn_reuse_mode: reuse,
            expire_nodest_conn: nodest,
            sloppy_tcp: sloppy,
            ..
        } = self.settings;
        if let Some(conn) = self.conns.get(&at) {
            let server = &self.servers[at.0][conn.server];
            let over = matches!(conn.state.as_str(), "TIME_WAIT" | "CLOSE")
                || reuse & 2 != 0 && conn.state == "FIN_WAIT" && conn.no_output;
            let over = over && conn.template.is_none();
            let again = is_tcp && syn && (nodest && server.spec.weight == 0 || reuse != 0 && over);
            let (available, fate) = (server.available, Fate::Server(conn.server, conn.direct));
            if again || !available && nodest {
                self.unbind(at);
            } else if !available {
                return Fate::Dropped(DropReason::ServerGone);
            } else {
                self.advance(now, at, false, flags, len);
                return fate;
            }
        }
        if self.services[at.0].is_none() {
            return Fate::Dropped(DropReason::NotOurs);
        }
        if is_tcp && (reset || !syn && !sloppy) {
            return Fate::Dropped(DropReason::NoConnection);
        }
        let Some((server, template)) = self.schedule(now, at, chosen) else {
            return Fate::Dropped(DropReason::NoServer);
        };
        let direct = self.servers[at.0][server].spec.direct;
        let conn = NaiveConn {
            server,
            direct,
            no_output: direct,
            state: "NONE".to_owned(),
            deadline: 0,
            template,
        };
        self.bind(at, conn);
        self.advance(now, at, false, flags, len);
        Fate::Server(server, direct)
    }

    /// Server and template of a new connection.
    fn schedule(
        &mut self,
        now: u32,
        (service, c): (usize, usize),
        chosen: Option<usize>,
    ) -> Option<(usize, Option<u32>)> {
        let Some(Sticky { timeout_s, mask }) = self.services[service].as_ref()?.sticky else {
            // Only persistent services have every port.
            let has_port = address(SERVICES[service].1).port() != 0;
            let picked = has_port.then(|| self.pick(service, chosen))?;
            return picked.map(|server| (server, None));
        };
        let client = masked(c, mask);
        let is_its = |template: &NaiveTemplate| {
            (template.service, template.client) == (service, client) && !template.invalid
        };
        let mut templates = self.templates.iter_mut();
        if let Some((number, template)) = templates.find(|(_, template)| is_its(template)) {
            let server = &self.servers[service][template.server];
            let quiet = self.settings.expire_quiescent_template && server.spec.weight == 0;
            if server.available && !quiet {
                template.deadline = now + template.timeout_ms;
                return Some((template.server, Some(*number)));
            }
            template.invalid = true;
        }
        let server = self.pick(service, chosen)?;
        let timeout_ms = timeout_s * 1000;
        let template = NaiveTemplate {
            service,
            client,
            server,
            timeout_ms,
            deadline: now + timeout_ms,
            assured: false,
            invalid: false,
        };
        self.templates_made += 1;
        self.templates.insert(self.templates_made, template);
        Some((server, Some(self.templates_made)))
    }

    fn pick(&mut self, service: usize, chosen: Option<usize>) -> Option<usize> {
        let usable = |server: &usize| {
            let server = &self.servers[service][*server];
            server.spec.weight > 0 && !server.overloaded
        };
        let state = self.services[service].as_ref()?;
        let mut best: Option<(u64, u64, usize)> = None;
        match state.scheduler {
            Kind::Rr => {
                let after = state
                    .cursor
                    .and_then(|cursor| state.list.iter().position(|server| *server == cursor))
                    .map_or(0, |at| at + 1);
                let (first, then) = (&state.list[after..], &state.list[..after]);
                let picked = first.iter().chain(then).copied().find(usable);
                if let (Some(_), Some(state)) = (picked, &mut self.services[service]) {
                    state.cursor = picked;
                }
                return picked;
            }
            Kind::Lc | Kind::Wlc => {
                for server in state.list.iter().filter(|server| usable(server)) {
                    let (active, total) = self.load(service, *server);
                    let cost = u64::from(active * 256 + total);
                    let weight = match state.scheduler {
                        Kind::Lc => 1,
                        _ => u64::from(self.servers[service][*server].spec.weight),
                    };
                    if best.is_none_or(|(least, its, _)| cost * its < least * weight) {
                        best = Some((cost, weight, *server));
                    }
                }
                return best.map(|(.., server)| server);
            }
            _ => {}
        }
        let mut allowed = state.list.iter().copied().filter(usable);
        match chosen {
            Some(chosen) => allowed.find(|server| *server == chosen),
            None => allowed.next(),
        }
    }

    fn outbound(
        &mut self,
        now: u32,
        at: (usize, usize),
        server: usize,
        flags: &str,
        len: u64,
    ) -> Fate {
        match self.conns.get(&at) {
            Some(conn) if conn.server == server && !conn.direct => {
                self.advance(now, at, true, flags, len);
                Fate::Client
            }
            _ => Fate::Dropped(DropReason::NotOurs),
        }
    }

    fn add_server(&mut self, service: usize, server: usize, spec: Spec) {
        self.servers[service][server].available = true;
        self.edit_server(service, server, spec);
        let Some(state) = &mut self.services[service] else {
            panic!("no service {service}")
        };
        state.list.insert(0, server);
    }

    fn edit_server(&mut self, service: usize, server: usize, spec: Spec) {
        let (_, total) = self.load(service, server);
        let server = &mut self.servers[service][server];
        let before = std::mem::replace(&mut server.spec, spec);
        if (before.upper, before.lower) == (spec.upper, spec.lower) {
            return;
        }
        if spec.upper == 0 {
            server.overloaded = false;
        } else if total >= spec.upper {
            server.overloaded = true;
        } else if total < Self::lower(spec) {
            server.overloaded = false;
        }
    }

    fn delete_server(&mut self, service: usize, server: usize) {
        self.servers[service][server].available = false;
        let Some(state) = &mut self.services[service] else {
            panic!("no service {service}")
        };
        let at = state
            .list
            .iter()
            .position(|other| *other == server)
            .unwrap();
        state.list.remove(at);
        if state.cursor == Some(server) {
            state.cursor = at.checked_sub(1).map(|at| state.list[at]);
        }
    }
}

fn client(n: usize) -> String {
    format!("198.51.100.{}:{}", 10 + n % 2, 2000 + n)
}

/// The network that a client is in.
fn masked(n: usize, mask: Ipv4Addr) -> Ipv4Addr {
    let ip: Ipv4Addr = client(n).split_once(':').unwrap().0.parse().unwrap();
    ip & mask
}

/// Where a client of a service connects to: of every port to one of two.
fn virtual_address((service, c): (usize, usize)) -> String {
    match address(SERVICES[service].1) {
        vip if vip.port() == 0 => format!("{}:{}", vip.ip(), 8000 + c / 2 % 2),
        vip => vip.to_string(),
    }
}

fn server(service: usize, n: usize) -> String {
    let port = address(SERVICES[service].1).port();
    format!("10.1.0.{}:{port}", n + 1)
}

/// Where the server has a client's connection.
fn server_end(at: (usize, usize), n: usize) -> String {
    let port = address(&virtual_address(at)).port();
    format!("10.1.0.{}:{port}", n + 1)
}

fn packet(service: usize, from: &str, to: &str, flags: &str) -> Frame {
    match SERVICES[service].0 {
        Protocol::Tcp => tcp(from, to, flags).data(&[7; 4]),
        _ => udp(from, to, flags.as_bytes()),
    }
}

fn id(service: usize, n: usize) -> ServerId {
    ServerId(u32::try_from(service * SERVERS_EACH + n).unwrap())
}

fn service_id(service: usize) -> ServiceId {
    ServiceId(u32::try_from(service).unwrap())
}

/// Source and destination with their ports.
fn ends(frame: &[u8]) -> (std::net::SocketAddr, std::net::SocketAddr) {
    let parts = Parts::of(&frame[14..]);
    let end = |ip: &[u8], at: usize| {
        let ip: [u8; 4] = ip.try_into().unwrap();
        let port = u16::from_be_bytes(*parts.segment[at..].first_chunk().unwrap());
        (ip, port).into()
    };
    (end(parts.from, 0), end(parts.to, 2))
}

/// Whether a frame is none of our own: those are ICMP, or resets without data.
fn is_forwarded(frame: &[u8]) -> bool {
    let parts = Parts::of(&frame[14..]);
    parts.protocol != 1 && !(parts.protocol == 6 && parts.segment.len() == 20)
}

/// The director and the model.
struct World {
    bed: Testbed,
    lvs: Lvs,
    now: u32,
}

impl World {
    fn new() -> Self {
        Self {
            bed: Testbed::with_servers(64, SERVICES.len() * SERVERS_EACH),
            lvs: Lvs::new(),
            now: 0,
        }
    }

    fn apply(&mut self, update: Update) {
        self.bed.apply(update);
    }

    fn mode(service: usize, spec: Spec) -> ForwardMode {
        // UDP's servers are never reached by direct routing: the answers would tell nothing.
        if spec.direct && SERVICES[service].0 == Protocol::Tcp {
            ForwardMode::Direct
        } else {
            ForwardMode::Nat
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Inbound(c, service, flags) => {
                let to = virtual_address((service, c));
                let frame = packet(service, &client(c), &to, flags);
                self.inbound((service, c), flags, &frame)?;
            }
            Step::Outbound(c, service, n, flags) => {
                let from = server_end((service, c), n);
                let frame = packet(service, &from, &client(c), flags);
                let (sent, dropped) = self.send(&frame);
                let len = frame.ip().len() as u64;
                let fate = self.lvs.outbound(self.now, (service, c), n, flags, len);
                Self::check(fate, (service, c), &sent, &dropped)?;
            }
            Step::AddServer(service, n, spec) => {
                let known = self.lvs.servers[service][n].available;
                if self.lvs.services[service].is_some() && !known {
                    self.lvs.add_server(service, n, spec);
                    self.apply(Update::AddServer {
                        service: service_id(service),
                        id: id(service, n),
                        address: address(&server(service, n)),
                        mode: Self::mode(service, spec),
                        tunnel: control::Tunnel::default(),
                        weight: spec.weight,
                        thresholds: Thresholds {
                            upper: spec.upper,
                            lower: spec.lower,
                        },
                    });
                }
            }
            Step::EditServer(service, n, spec) => {
                if self.lvs.servers[service][n].available {
                    self.lvs.edit_server(service, n, spec);
                    self.apply(Update::EditServer {
                        id: id(service, n),
                        mode: Self::mode(service, spec),
                        tunnel: control::Tunnel::default(),
                        weight: spec.weight,
                        thresholds: Thresholds {
                            upper: spec.upper,
                            lower: spec.lower,
                        },
                    });
                }
            }
            Step::DeleteServer(service, n) => {
                if self.lvs.servers[service][n].available {
                    self.lvs.delete_server(service, n);
                    self.apply(Update::DeleteServer { id: id(service, n) });
                    self.swept()?;
                }
            }
            Step::AddService(service, scheduler, sticky) => {
                if self.lvs.services[service].is_none() {
                    self.lvs.services[service] = Some(NaiveService {
                        scheduler,
                        sticky,
                        list: Vec::new(),
                        cursor: None,
                    });
                    let (protocol, vip) = SERVICES[service];
                    self.apply(Update::AddService {
                        id: service_id(service),
                        key: key(protocol, vip),
                        policy: policy(scheduler, sticky),
                    });
                }
            }
            Step::EditService(service, scheduler, sticky) => {
                if let Some(state) = &mut self.lvs.services[service] {
                    if state.scheduler != scheduler {
                        (state.scheduler, state.cursor) = (scheduler, None);
                    }
                    state.sticky = sticky;
                    self.apply(Update::EditService {
                        id: service_id(service),
                        policy: policy(scheduler, sticky),
                    });
                }
            }
            Step::DeleteService(service) => {
                if let Some(state) = self.lvs.services[service].take() {
                    for n in &state.list {
                        self.lvs.servers[service][*n].available = false;
                    }
                    self.apply(Update::DeleteService {
                        id: service_id(service),
                    });
                    self.swept()?;
                }
            }
            Step::Settings(conn_reuse_mode, [nodest, quiescent, sloppy_tcp]) => {
                self.lvs.settings = Settings {
                    conn_reuse_mode,
                    expire_nodest_conn: nodest,
                    expire_quiescent_template: quiescent,
                    sloppy_tcp,
                    ..Settings::default()
                };
                self.apply(Update::SetSettings(self.lvs.settings));
            }
            Step::Timeouts(tcp, fin, udp) => {
                let mut timeouts = Timeouts::default();
                for (state, name, seconds) in [
                    (State::Established, "ESTABLISHED", tcp),
                    (State::FinWait, "FIN_WAIT", fin),
                    (State::Udp, "UDP", udp),
                ] {
                    timeouts.set_s(state, seconds);
                    self.lvs.timeouts.insert(name, seconds);
                }
                self.apply(Update::SetTimeouts(timeouts));
            }
            Step::Forget => self.forget(),
            Step::Wait(ms) => self.wait(ms)?,
        }
        self.holds()
    }

    fn inbound(
        &mut self,
        at: (usize, usize),
        flags: &str,
        frame: &Frame,
    ) -> Result<(), TestCaseError> {
        let (sent, dropped) = self.send(frame);
        let by_station = |n: &usize| {
            let station = mac_of(address(&server(at.0, *n)).ip());
            sent.iter().any(|frame| frame[..6] == station)
        };
        let chosen = (0..SERVERS_EACH).find(by_station);
        let len = frame.ip().len() as u64;
        let fate = self.lvs.inbound(self.now, at, flags, len, chosen);
        Self::check(fate, at, &sent, &dropped)
    }

    /// What is forwarded, and the reasons of what is not.
    fn send(&mut self, frame: &Frame) -> (Vec<Vec<u8>>, Vec<DropReason>) {
        let before = self.drops();
        let mut sent = self.bed.pass(self.now, frame);
        sent.retain(|frame| is_forwarded(frame));
        let after = self.drops();
        let counts = before.iter().zip(&after).zip(DropReason::ALL);
        let dropped = counts.filter(|((before, after), _)| after > before);
        (sent, dropped.map(|(_, reason)| *reason).collect())
    }

    fn drops(&self) -> Vec<u64> {
        let ports = &self.bed.page.ports;
        let of = |reason: &DropReason| ports.iter().map(|p| p.drops[*reason as usize].get()).sum();
        DropReason::ALL.iter().map(of).collect()
    }

    fn check(
        fate: Fate,
        at: (usize, usize),
        sent: &[Vec<u8>],
        dropped: &[DropReason],
    ) -> Result<(), TestCaseError> {
        let shown: Vec<String> = sent.iter().map(|frame| describe(frame)).collect();
        let (client, vip) = (address(&client(at.1)), address(&virtual_address(at)));
        let (expected, reasons) = match fate {
            Fate::Server(n, true) => (
                Some((mac_of(address(&server(at.0, n)).ip()), (client, vip))),
                vec![],
            ),
            Fate::Server(n, false) => {
                let server = address(&server_end(at, n));
                (Some((mac_of(server.ip()), (client, server))), vec![])
            }
            Fate::Client => (Some((mac_of([192, 0, 2, 1].into()), (vip, client))), vec![]),
            Fate::Dropped(reason) => (None, vec![reason]),
        };
        prop_assert_eq!(dropped, &reasons[..], "{:?}: {:?}", fate, shown);
        let sent: Vec<_> = sent
            .iter()
            .map(|frame| (frame[..6].try_into().unwrap(), ends(frame)))
            .collect();
        prop_assert_eq!(sent, Vec::from_iter(expected), "{:?}: {:?}", fate, shown);
        Ok(())
    }

    fn wait(&mut self, ms: u32) -> Result<(), TestCaseError> {
        let end = self.now + ms;
        while self.now < end {
            // Every template's time runs out by itself, as far as possible.
            let next = self.lvs.templates.values().map(|t| t.deadline + LATE_MS);
            let mut until = next.min().map_or(end, |next| next.min(end));
            // Until nothing is left that is over but still counted.
            while let Some(deadline) = self.late(until) {
                until = deadline + LATE_MS;
            }
            self.bed.wait(self.now, until);
            self.now = until;
            self.expire_templates()?;
            self.lvs.expire(until);
        }
        Ok(())
    }

    /// When something ended that may not be noticed yet.
    fn late(&self, now: u32) -> Option<u32> {
        let conns = self.lvs.conns.values().map(|conn| conn.deadline);
        let mut deadlines = conns.chain(self.lvs.templates.values().map(|t| t.deadline));
        deadlines.find(|deadline| *deadline <= now && now < deadline + LATE_MS)
    }

    /// Templates end, or are postponed. If its last connection ends at about the same time either is
    /// right, and how late it was noticed is the director's business.
    fn expire_templates(&mut self) -> Result<(), TestCaseError> {
        let listed = self.listed_templates();
        let Lvs {
            conns, templates, ..
        } = &mut self.lvs;
        let over: Vec<u32> = (templates.iter())
            .filter(|(_, template)| template.deadline <= self.now)
            .map(|(number, _)| *number)
            .collect();
        for number in over {
            let Some(template) = templates.get_mut(&number) else {
                continue;
            };
            let (shown, due) = (template.shown(), template.deadline);
            let its = conns.values().filter(|conn| conn.template == Some(number));
            let last = its.map(|conn| conn.deadline).max().unwrap_or(0);
            let postponed = listed.iter().find_map(|(other, deadline)| {
                let late = deadline.checked_sub(due + POSTPONED_MS);
                (*other == shown && late.is_some_and(|late| late < LATE_MS)).then_some(*deadline)
            });
            if let Some(deadline) = postponed {
                prop_assert!(last + LATE_MS > due, "{:?} controls nothing", template);
                template.deadline = deadline;
            } else {
                prop_assert!(last <= due + LATE_MS, "{:?} controls", template);
                templates.remove(&number);
            }
        }
        Ok(())
    }

    /// The director's templates, and when they end.
    fn listed_templates(&self) -> Vec<(Shown, u32)> {
        let now = Instant(self.now);
        let listed = (self.bed.director).listed_templates(now);
        let shown = listed.into_iter().map(|template| {
            let expires = u32::try_from(template.expires_ms).unwrap();
            let ends = (template.virtual_address, template.client, template.server);
            let (vip, client, server) = ends;
            ((vip, client, server, template.state), self.now + expires)
        });
        shown.collect()
    }

    /// A server was deleted: with `expire_nodest_conn` the connections of all that were end soon, and
    /// then their templates.
    fn swept(&mut self) -> Result<(), TestCaseError> {
        if self.lvs.settings.expire_nodest_conn {
            self.wait(1)?;
            self.lvs.sweep();
            self.wait(2 * LATE_MS)?;
            self.lvs.sweep_templates();
        }
        Ok(())
    }

    fn forget(&mut self) {
        for (service, n) in (0..SERVICES.len()).flat_map(|s| (0..SERVERS_EACH).map(move |n| (s, n)))
        {
            let server = &mut self.lvs.servers[service][n];
            let is_known = self.bed.director.services.server(id(service, n)).is_some();
            let templates = self.bed.director.templates().of_server(id(service, n));
            let is_idle = self.bed.load(id(service, n).index()) == (0, 0) && templates == 0;
            if is_known && !server.available && is_idle {
                (server.spec, server.overloaded) = (Spec::default(), false);
                self.apply(Update::ForgetServer { id: id(service, n) });
            }
        }
    }

    /// Both have the same connections, and count the same.
    fn holds(&self) -> Result<(), TestCaseError> {
        let listed = self.bed.director.listed(Instant(self.now));
        let listed: BTreeSet<_> = (listed.iter())
            .map(|conn| {
                let expires = u32::try_from(conn.expires_ms).unwrap();
                (
                    conn.virtual_address,
                    conn.client,
                    conn.server,
                    conn.state.clone(),
                    expires,
                )
            })
            .collect();
        let expected: BTreeSet<_> = (self.lvs.conns.iter())
            .map(|((service, c), conn)| {
                let vip = address(&virtual_address((*service, *c)));
                let client = address(&client(*c));
                let server = address(&server_end((*service, *c), conn.server));
                (
                    vip,
                    client,
                    server,
                    conn.state.clone(),
                    conn.deadline - self.now,
                )
            })
            .collect();
        prop_assert_eq!(listed, expected);
        let mut listed = self.listed_templates();
        let templates = self.lvs.templates.values();
        let mut expected: Vec<_> = templates.map(|t| (t.shown(), t.deadline)).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(listed, expected);
        for (service, n) in (0..SERVICES.len()).flat_map(|s| (0..SERVERS_EACH).map(move |n| (s, n)))
        {
            let page = &self.bed.page.servers[id(service, n).index()];
            let counted = Counted {
                conns: page.conns.get(),
                in_packets: page.in_packets.get(),
                in_bytes: page.in_bytes.get(),
                out_packets: page.out_packets.get(),
                out_bytes: page.out_bytes.get(),
            };
            prop_assert_eq!(
                counted,
                self.lvs.servers[service][n].counted,
                "{} {}",
                service,
                n
            );
            let (active, total) = self.lvs.load(service, n);
            let load = self.bed.load(id(service, n).index());
            prop_assert_eq!(load, (active, total - active), "{} {}", service, n);
            let its = |t: &&NaiveTemplate| (t.service, t.server) == (service, n);
            let tied = self.lvs.templates.values().filter(its).count();
            let persistent = self.bed.director.templates().of_server(id(service, n));
            prop_assert_eq!(persistent as usize, tied, "{} {}", service, n);
        }
        Ok(())
    }
}

fn policy(scheduler: Kind, sticky: Option<Sticky>) -> Policy {
    Policy {
        persistence: sticky.map(|Sticky { timeout_s, mask }| Persistence {
            timeout_s,
            netmask: Netmask::V4(mask),
        }),
        ..Policy::of(scheduler)
    }
}

fn sticky() -> impl Strategy<Value = Option<Sticky>> {
    let mask = prop::sample::select(vec![
        Ipv4Addr::new(255, 255, 255, 255),
        Ipv4Addr::new(255, 255, 255, 0),
        Ipv4Addr::UNSPECIFIED,
    ]);
    prop::option::of((1..400u32, mask).prop_map(|(timeout_s, mask)| Sticky { timeout_s, mask }))
}

fn spec(service: usize) -> impl Strategy<Value = Spec> {
    let direct = match service {
        0 | 3 => prop_oneof![4 => Just(false), 1 => Just(true)].boxed(),
        1 => Just(false).boxed(),
        _ => prop_oneof![1 => Just(false), 4 => Just(true)].boxed(),
    };
    let thresholds = prop_oneof![3 => Just((0, 0)), 1 => (1..4u32, 0..4u32)];
    let weight = prop_oneof![1 => Just(0u32), 3 => 1..5u32];
    (weight, direct, thresholds).prop_map(|(weight, direct, (upper, lower))| Spec {
        weight,
        direct,
        upper,
        lower: lower.min(upper),
    })
}

fn settings() -> impl Strategy<Value = Step> {
    (0..4u8, any::<[bool; 3]>()).prop_map(|(reuse, on)| Step::Settings(reuse, on))
}

fn step() -> impl Strategy<Value = Step> {
    let flags = || prop::sample::select(vec!["S", "S", "S", "A", "A", "FA", "R", "RA", "."]);
    let back = || prop::sample::select(vec!["SA", "SA", "A", "FA", "R", "."]);
    let kind = || prop::sample::select(KINDS.to_vec());
    let service = || 0..SERVICES.len();
    let n = || 0..SERVERS_EACH;
    let c = || 0..CLIENTS;
    let with_spec = || service().prop_flat_map(move |s| (Just(s), 0..SERVERS_EACH, spec(s)));
    prop_oneof![
        30 => (c(), service(), flags()).prop_map(|(c, s, f)| Step::Inbound(c, s, f)),
        20 => (c(), service(), n(), back()).prop_map(|(c, s, n, f)| Step::Outbound(c, s, n, f)),
        4 => with_spec().prop_map(|(s, n, spec)| Step::AddServer(s, n, spec)),
        6 => with_spec().prop_map(|(s, n, spec)| Step::EditServer(s, n, spec)),
        3 => (service(), n()).prop_map(|(s, n)| Step::DeleteServer(s, n)),
        3 => (service(), kind(), sticky()).prop_map(|(s, k, p)| Step::AddService(s, k, p)),
        1 => (service(), kind(), sticky()).prop_map(|(s, k, p)| Step::EditService(s, k, p)),
        1 => service().prop_map(Step::DeleteService),
        2 => settings(),
        1 => (5..1000u32, 5..200u32, 5..400u32).prop_map(|(t, f, u)| Step::Timeouts(t, f, u)),
        1 => Just(Step::Forget),
        6 => prop_oneof![0..3_000u32, 0..70_000u32, 0..1_000_000u32].prop_map(Step::Wait),
    ]
}

/// All services with all servers to begin with.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = prop::array::uniform4((prop::sample::select(KINDS.to_vec()), sticky()));
    (kinds, settings(), vec(step(), 1..200)).prop_map(|(kinds, settings, steps)| {
        let mut all = vec![settings];
        for (service, (kind, sticky)) in kinds.into_iter().enumerate() {
            all.push(Step::AddService(service, kind, sticky));
            let spec = Spec {
                weight: 1,
                direct: service == 2,
                ..Spec::default()
            };
            all.extend((0..SERVERS_EACH).map(|n| Step::AddServer(service, n, spec)));
        }
        all.extend(steps);
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn the_director_does_as_lvs_does(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
    }
}

//! Random traffic and changes against a naive model of LVS's table, written from its rules
//! (`spec/connections.md`) with maps, words and loops, and no cleverness.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use control::{ForwardMode, Protocol, Settings, Thresholds};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::frames::{Frame, Parts, address, describe, tcp, udp};
use super::testbed::{Testbed, key, mac_of};
use super::*;
use crate::counters::DropReason;
use crate::sched::Kind;
use crate::update::{Policy, ServiceId, Update};

/// Protocol and address of each service. The third one's servers are reached by direct routing.
const SERVICES: [(Protocol, &str); 3] = [
    (Protocol::Tcp, "203.0.113.1:80"),
    (Protocol::Udp, "203.0.113.1:53"),
    (Protocol::Tcp, "203.0.113.1:81"),
];
const SERVERS_EACH: usize = 3;
const CLIENTS: usize = 6;
const KINDS: [Kind; 4] = [Kind::Rr, Kind::Wrr, Kind::Lc, Kind::Wlc];
/// How late the director notices that a connection's time ran out, at most. What it counts follows.
const LATE_MS: u32 = 1500;

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

#[derive(Debug, Clone)]
enum Step {
    /// From client, to service, with these flags.
    Inbound(usize, usize, &'static str),
    /// To client, from service and server.
    Outbound(usize, usize, usize, &'static str),
    AddServer(usize, usize, Spec),
    EditServer(usize, usize, Spec),
    DeleteServer(usize, usize),
    AddService(usize, Kind),
    EditService(usize, Kind),
    DeleteService(usize),
    Settings(u8, bool, bool),
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
}

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
        let Some(server) = self.pick(at.0, chosen) else {
            return Fate::Dropped(DropReason::NoServer);
        };
        let direct = self.servers[at.0][server].spec.direct;
        let conn = NaiveConn {
            server,
            direct,
            no_output: direct,
            state: "NONE".to_owned(),
            deadline: 0,
        };
        self.bind(at, conn);
        self.advance(now, at, false, flags, len);
        Fate::Server(server, direct)
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

fn server(service: usize, n: usize) -> String {
    let port = address(SERVICES[service].1).port();
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
                let frame = packet(service, &client(c), SERVICES[service].1, flags);
                self.inbound((service, c), flags, &frame)?;
            }
            Step::Outbound(c, service, n, flags) => {
                let frame = packet(service, &server(service, n), &client(c), flags);
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
                    self.swept();
                }
            }
            Step::AddService(service, scheduler) => {
                if self.lvs.services[service].is_none() {
                    self.lvs.services[service] = Some(NaiveService {
                        scheduler,
                        list: Vec::new(),
                        cursor: None,
                    });
                    let (protocol, vip) = SERVICES[service];
                    self.apply(Update::AddService {
                        id: service_id(service),
                        key: key(protocol, vip),
                        policy: Policy::of(scheduler),
                    });
                }
            }
            Step::EditService(service, scheduler) => {
                if let Some(state) = &mut self.lvs.services[service] {
                    if state.scheduler != scheduler {
                        (state.scheduler, state.cursor) = (scheduler, None);
                    }
                    self.apply(Update::EditService {
                        id: service_id(service),
                        policy: Policy::of(scheduler),
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
                    self.swept();
                }
            }
            Step::Settings(conn_reuse_mode, expire_nodest_conn, sloppy_tcp) => {
                self.lvs.settings = Settings {
                    conn_reuse_mode,
                    expire_nodest_conn,
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
            Step::Wait(ms) => self.wait(ms),
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
        let (client, vip) = (address(&client(at.1)), address(SERVICES[at.0].1));
        let (expected, reasons) = match fate {
            Fate::Server(n, true) => (
                Some((mac_of(address(&server(at.0, n)).ip()), (client, vip))),
                vec![],
            ),
            Fate::Server(n, false) => {
                let server = address(&server(at.0, n));
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

    fn wait(&mut self, ms: u32) {
        let mut until = self.now + ms;
        // Until nothing is left that is over but still counted.
        let late =
            |conn: &&NaiveConn, until| conn.deadline <= until && until < conn.deadline + LATE_MS;
        while let Some(conn) = self.lvs.conns.values().find(|conn| late(conn, until)) {
            until = conn.deadline + LATE_MS;
        }
        self.bed.wait(self.now, until);
        self.now = until;
        self.lvs.expire(until);
    }

    /// A server was deleted: with `expire_nodest_conn` the connections of all that were end soon.
    fn swept(&mut self) {
        if self.lvs.settings.expire_nodest_conn {
            self.wait(1);
            self.lvs.sweep();
        }
    }

    fn forget(&mut self) {
        for (service, n) in (0..SERVICES.len()).flat_map(|s| (0..SERVERS_EACH).map(move |n| (s, n)))
        {
            let server = &mut self.lvs.servers[service][n];
            let is_known = self.bed.director.services.server(id(service, n)).is_some();
            if is_known && !server.available && self.bed.load(id(service, n).index()) == (0, 0) {
                (server.spec, server.overloaded) = (Spec::default(), false);
                self.apply(Update::ForgetServer { id: id(service, n) });
            }
        }
    }

    /// Both have the same connections, and count the same.
    fn holds(&self) -> Result<(), TestCaseError> {
        let (listed, _) = self.bed.director.connections(Instant(self.now), 0, 64);
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
                let (vip, client) = (address(SERVICES[*service].1), address(&client(*c)));
                let server = address(&server(*service, conn.server));
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
        }
        Ok(())
    }
}

fn spec(service: usize) -> impl Strategy<Value = Spec> {
    let direct = match service {
        0 => prop_oneof![4 => Just(false), 1 => Just(true)].boxed(),
        1 => Just(false).boxed(),
        _ => prop_oneof![1 => Just(false), 4 => Just(true)].boxed(),
    };
    let thresholds = prop_oneof![3 => Just((0, 0)), 1 => (1..4u32, 0..4u32)];
    let weight = prop_oneof![1 => Just(0u32), 5 => 1..5u32];
    (weight, direct, thresholds).prop_map(|(weight, direct, (upper, lower))| Spec {
        weight,
        direct,
        upper,
        lower: lower.min(upper),
    })
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
        4 => with_spec().prop_map(|(s, n, spec)| Step::EditServer(s, n, spec)),
        3 => (service(), n()).prop_map(|(s, n)| Step::DeleteServer(s, n)),
        3 => (service(), kind()).prop_map(|(s, k)| Step::AddService(s, k)),
        1 => (service(), kind()).prop_map(|(s, k)| Step::EditService(s, k)),
        1 => service().prop_map(Step::DeleteService),
        2 => (0..4u8, any::<bool>(), any::<bool>()).prop_map(|(r, e, s)| Step::Settings(r, e, s)),
        1 => (5..1000u32, 5..200u32, 5..400u32).prop_map(|(t, f, u)| Step::Timeouts(t, f, u)),
        1 => Just(Step::Forget),
        6 => prop_oneof![0..3_000u32, 0..70_000u32, 0..1_000_000u32].prop_map(Step::Wait),
    ]
}

/// All services with all servers to begin with.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = prop::array::uniform3(prop::sample::select(KINDS.to_vec()));
    (kinds, vec(step(), 1..200)).prop_map(|(kinds, steps)| {
        let mut all = Vec::new();
        for (service, kind) in kinds.into_iter().enumerate() {
            all.push(Step::AddService(service, kind));
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

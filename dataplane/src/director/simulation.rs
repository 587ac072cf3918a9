//! Random packets, changes and pauses over a small universe.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use control::{
    ClientAddress, Engine, ForwardMode, Netmask, OnServerGone, Persistence, Protocol, Refuse,
    ServiceOptions, ServiceTimeouts, Settings,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::explain::tests::Foretold;
use super::frames::{Frame, Parts, address, describe, icmp, sctp, tcp, udp, wrong_checksum};
use super::testbed::{
    Testbed, add_server_by, arriving, key, local_addresses, mac_of, setup, weigh_by,
};
use super::*;
use crate::counters::balanced;
use crate::packet::{Burst, HeapBuf};
use crate::sched::{Kind, Recipe, Table};
use crate::update::{Policy, ServerId, ServiceId, Update};
use crate::wire::flow::Tuple;

/// A service, and how its servers are reached.
struct Way {
    protocol: Protocol,
    vip: &'static str,
    mode: ForwardMode,
    /// The servers' network: they are hosts 1, 2 and 3 of it.
    servers: &'static str,
    /// FULLNAT's local address.
    local: Option<&'static str>,
    told: ClientAddress,
    one_packet: bool,
    /// Clients are known by what they say, and servers may speak first.
    calls: bool,
}

const fn way(
    protocol: Protocol,
    vip: &'static str,
    mode: ForwardMode,
    servers: &'static str,
    local: Option<&'static str>,
    told: ClientAddress,
) -> Way {
    Way {
        protocol,
        vip,
        mode,
        servers,
        local,
        told,
        one_packet: false,
        calls: false,
    }
}

/// A SIP service whose calls stay with their servers.
const fn calls(vip: &'static str, servers: &'static str) -> Way {
    Way {
        calls: true,
        ..way(Udp, vip, Nat, servers, None, Untold)
    }
}

/// A service that schedules each datagram by itself.
const fn alone(vip: &'static str, mode: ForwardMode, servers: &'static str) -> Way {
    Way {
        one_packet: true,
        ..way(Udp, vip, mode, servers, None, Untold)
    }
}

const NET4: &str = "10.1.0.";
const NET6: &str = "2001:db8:1::";
const LOCAL4: Option<&str> = Some("10.1.0.100");
const LOCAL6: Option<&str> = Some("2001:db8:1::100");

use ClientAddress::{None as Untold, ProxyV1, Toa, Uoa};
use ForwardMode::{Direct, FullNat, Nat, Tunnel};
use Protocol::{Sctp, Tcp, Udp};

const WAYS: [Way; 21] = [
    way(Tcp, "203.0.113.1:80", Nat, NET4, None, Untold),
    way(Udp, "203.0.113.1:53", Nat, NET4, None, Untold),
    way(Sctp, "203.0.113.1:99", Nat, NET4, None, Untold),
    way(Tcp, "203.0.113.1:81", Direct, NET4, None, Untold),
    way(Udp, "203.0.113.1:82", Tunnel, NET6, None, Untold),
    way(Tcp, "203.0.113.1:83", FullNat, NET4, LOCAL4, Toa),
    way(Udp, "203.0.113.1:84", FullNat, NET6, LOCAL6, Untold),
    way(Tcp, "203.0.113.1:85", FullNat, NET6, LOCAL6, ProxyV1),
    way(Tcp, "[2001:db8:f::1]:80", Nat, NET6, None, Untold),
    way(Udp, "[2001:db8:f::1]:53", Nat, NET6, None, Untold),
    way(Tcp, "[2001:db8:f::1]:81", Tunnel, NET4, None, Untold),
    way(Tcp, "[2001:db8:f::1]:82", FullNat, NET4, LOCAL4, Toa),
    way(Udp, "[2001:db8:f::1]:83", FullNat, NET6, LOCAL6, Uoa),
    way(Udp, "[2001:db8:f::1]:84", Direct, NET6, None, Untold),
    alone("203.0.113.1:86", Nat, NET4),
    alone("203.0.113.1:87", Tunnel, NET6),
    alone("[2001:db8:f::1]:86", Nat, NET6),
    alone("[2001:db8:f::1]:87", Direct, NET6),
    calls("203.0.113.1:88", NET4),
    calls("[2001:db8:f::1]:88", NET6),
    Way {
        one_packet: true,
        ..calls("203.0.113.1:89", NET4)
    },
];
const SERVERS_EACH: u32 = 3;
const CLIENTS: u16 = 5;

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// From client, to service, with these flags, in fragments that come in this order.
    Inbound(u16, usize, &'static str, Cut),
    /// An answer to whom this server believes to talk to.
    Reply(u16, usize, &'static str, Cut),
    /// An ICMP error about the packet that this client sent last, or its server.
    Error(u16, usize, bool),
    /// To client, from service and server, whether they are connected or not.
    Stray(u16, usize, u32, &'static str),
    AddServer(usize, u32),
    DeleteServer(usize, u32),
    Weigh(usize, u32, u32),
    /// Ends the connections of a server, in silence or not.
    Cut(usize, u32, bool),
    Set(Settings),
    Options(usize, ServiceOptions),
    Wait(u32),
}

/// Whole, or in two fragments with the second one first or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Whole,
    InOrder,
    Reversed,
}

/// A walk among a few services, so that its packets meet.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let all: Vec<_> = (0..WAYS.len()).collect();
    prop::sample::subsequence(all, 3).prop_flat_map(steps_among)
}

fn steps_among(services: Vec<usize>) -> impl Strategy<Value = Vec<Step>> {
    let flags = || prop::sample::select(vec!["S", "S", "SA", "A", "A", "FA", "R", "PA", "."]);
    let cut = || {
        let cuts = vec![
            Cut::Whole,
            Cut::Whole,
            Cut::Whole,
            Cut::InOrder,
            Cut::Reversed,
        ];
        prop::sample::select(cuts)
    };
    let service = || prop::sample::select(services.clone());
    let server = || 0..SERVERS_EACH;
    let client = || 0..CLIENTS;
    let step = prop_oneof![
        10 => (client(), service(), flags(), cut()).prop_map(|(c, s, f, k)| Step::Inbound(c, s, f, k)),
        8 => (client(), service(), flags(), cut()).prop_map(|(c, s, f, k)| Step::Reply(c, s, f, k)),
        2 => (client(), service(), any::<bool>()).prop_map(|(c, s, b)| Step::Error(c, s, b)),
        2 => (client(), service(), server(), flags()).prop_map(|(c, s, r, f)| Step::Stray(c, s, r, f)),
        1 => (service(), server()).prop_map(|(s, r)| Step::AddServer(s, r)),
        1 => (service(), server()).prop_map(|(s, r)| Step::DeleteServer(s, r)),
        1 => (service(), server(), 0..4u32).prop_map(|(s, r, w)| Step::Weigh(s, r, w)),
        1 => (service(), server(), any::<bool>()).prop_map(|(s, r, b)| Step::Cut(s, r, b)),
        1 => settings().prop_map(Step::Set),
        1 => (service(), options()).prop_map(|(s, o)| Step::Options(s, o)),
        2 => prop_oneof![0..500u32, 0..70_000u32, 0..1_000_000u32].prop_map(Step::Wait),
    ];
    vec(step, 1..250)
}

fn settings() -> impl Strategy<Value = Settings> {
    let defences = (
        0..4u8,
        0..4u8,
        0..4u8,
        1..4u32,
        prop_oneof![Just(0), Just(3), Just(1024)],
    );
    (any::<[bool; 7]>(), 0..4u8, defences).prop_map(|(is, conn_reuse_mode, defences)| {
        let (drop_entry, drop_packet, secure_tcp, am_droprate, amemthresh) = defences;
        Settings {
            schedule_icmp: is[5],
            pmtu_disc: is[0],
            conn_reuse_mode,
            expire_nodest_conn: is[1],
            expire_quiescent_template: is[2],
            sloppy_tcp: is[3],
            sloppy_sctp: is[4],
            drop_entry,
            drop_packet,
            secure_tcp,
            am_droprate,
            amemthresh,
            one_packet_replies_untranslated: is[6],
            ..Settings::default()
        }
    })
}

/// The client's address is told as the service was made.
fn options() -> impl Strategy<Value = ServiceOptions> {
    let seconds = || proptest::option::of(1..500u32);
    let refuse = prop::sample::select(vec![Refuse::Icmp, Refuse::Reset, Refuse::Drop]);
    let gone = vec![
        OnServerGone::Drop,
        OnServerGone::Reset,
        OnServerGone::Reschedule,
    ];
    let gone = prop::sample::select(gone);
    (seconds(), seconds(), seconds(), refuse, gone, any::<bool>()).prop_map(
        |(tcp, tcp_fin, udp, refuse, on_server_gone, reset_on_expiry)| ServiceOptions {
            timeouts: ServiceTimeouts { tcp, tcp_fin, udp },
            refuse,
            on_server_gone,
            reset_on_expiry,
            ..ServiceOptions::default()
        },
    )
}

fn client(service: usize, n: u16) -> String {
    match WAYS[service].vip.starts_with('[') {
        false => format!("198.51.100.{}:{}", 10 + n % 3, 2000 + n),
        true => format!("[2001:db8:99::{:x}]:{}", 10 + n % 3, 2000 + n),
    }
}

fn server(service: usize, n: u32) -> String {
    let port = address(WAYS[service].vip).port();
    let ip = format!("{}{}", WAYS[service].servers, n + 1);
    SocketAddr::new(ip.parse().unwrap(), port).to_string()
}

fn id(service: usize, n: u32) -> u32 {
    u32::try_from(service).unwrap() * SERVERS_EACH + n
}

/// The first fragment has the Call-ID.
const CALL: &[u8] = b"BYE\r\ni: one@c\r\nContent-Length: 0\r\n\r\n";

fn packet(service: usize, from: &str, to: &str, flags: &str) -> Frame {
    let data = [7; 24];
    match WAYS[service].protocol {
        Protocol::Udp if WAYS[service].calls => udp(from, to, CALL),
        Protocol::Tcp => tcp(from, to, flags).data(&data),
        Protocol::Udp => udp(from, to, &data),
        Protocol::Sctp => {
            let first = if flags.contains('S') { 1 } else { 0 };
            sctp(from, to, &[first, 0, 0])
        }
    }
}

/// A worker, a server, and whom the server believes to talk to.
type Served = (usize, SocketAddr, SocketAddr);

/// One director or several that pass each other what is not theirs, as workers do.
pub(super) struct World {
    pub(super) workers: Vec<Testbed>,
    now: u32,
    /// Of the next datagram.
    id: u16,
    present: Vec<bool>,
    /// Of [`Settings::one_packet_replies_untranslated`].
    untranslated: bool,
    /// By service and client; the worker is the one that its packets went to.
    serving: HashMap<(usize, u16), Served>,
    scheduler: Kind,
    /// Each whole packet is explained before it is sent, and what then becomes of it compared.
    pub(super) foretells: bool,
    /// All that left, while packets are explained or to be compared with such.
    pub(super) log: Vec<(usize, Vec<u8>)>,
}

impl World {
    fn new(workers: usize, capacity: u32) -> Self {
        Self::by(Kind::Rr, true, 1024, workers, capacity)
    }

    /// As [`Self::new`] with another scheduler and room for so many templates; stations are known from
    /// the start, or nobody is.
    pub(super) fn by(
        scheduler: Kind,
        stations: bool,
        templates: u32,
        workers: usize,
        capacity: u32,
    ) -> Self {
        let templates = Arc::new(Templates::new(templates, [3, 4]).unwrap());
        let worker = |me| {
            let servers = WAYS.len() * SERVERS_EACH as usize + 1;
            let mut bed = Testbed::with(
                capacity,
                setup(stations),
                Page::new(servers, servers).unwrap(),
            );
            bed.director.steer = Steer::new(me, workers);
            bed.director.sweep = Sweep::new(me, workers);
            bed.director.templates = Arc::clone(&templates);
            for (n, way) in (0..).zip(&WAYS) {
                let id = ServiceId(n);
                let key = key(way.protocol, way.vip);
                let persistence = Persistence {
                    timeout_s: if way.calls { 300 } else { 40 },
                    netmask: Netmask::whole(key.is_ipv6()),
                };
                let policy = Policy {
                    one_packet: way.one_packet,
                    persistence: (way.calls || n.is_multiple_of(3)).then_some(persistence),
                    engine: way.calls.then_some(Engine::Sip),
                    ..Policy::of(scheduler)
                };
                bed.apply(Update::AddService { id, key, policy });
                bed.apply(local_addresses(n, way.local.as_slice()));
                let options = ServiceOptions {
                    client_address: way.told,
                    mss: None,
                    ..ServiceOptions::default()
                };
                bed.apply(Update::SetOptions { id, options });
            }
            bed
        };
        let mut world = Self {
            workers: (0..workers).map(worker).collect(),
            now: 0,
            id: 0,
            present: vec![false; WAYS.len() * SERVERS_EACH as usize],
            untranslated: false,
            serving: HashMap::new(),
            scheduler,
            foretells: false,
            log: Vec::new(),
        };
        for service in 0..WAYS.len() {
            for n in 0..SERVERS_EACH {
                world.step(&Step::AddServer(service, n), 0).unwrap();
            }
        }
        world
    }

    /// As the control side does after servers came, went or got other weights.
    fn tabulate(&mut self, service: usize) {
        if !self.scheduler.has_table() {
            return;
        }
        let id = ServiceId(u32::try_from(service).unwrap());
        let recipe = Recipe {
            kind: self.scheduler,
            ipv6: WAYS[service].vip.starts_with('['),
            mh_slots: control::MH_TABLE_SIZES[0],
            members: self.workers[0].director.services.members(id),
        };
        let table = Arc::new(Table::build(recipe).unwrap());
        self.apply(&Update::SetTable { id, table });
    }

    fn apply(&mut self, update: &Update) {
        for bed in &mut self.workers {
            bed.director.apply(update, &mut bed.out);
            bed.take();
        }
    }

    pub(super) fn step(&mut self, step: &Step, receiver: usize) -> Result<(), TestCaseError> {
        match *step {
            Step::Inbound(c, service, flags, cut) => {
                self.inbound(c, service, flags, cut, receiver)?;
            }
            Step::Reply(c, service, flags, cut) => {
                if let Some((worker, server, believed)) = self.serving.get(&(service, c)).copied() {
                    let way = &WAYS[service];
                    let is_seen = matches!(way.mode, Nat | FullNat);
                    let from = if is_seen {
                        server.to_string()
                    } else {
                        way.vip.to_owned()
                    };
                    let frame = packet(service, &from, &believed.to_string(), flags);
                    for (sender, frame) in self.send_cut(receiver, &frame, cut) {
                        if !is_forwarded(&frame) {
                            continue;
                        }
                        prop_assert_eq!(sender, worker, "a reply left from another worker");
                        let (from, to) = ends(&frame);
                        let speaker = self.speaker(service, server, from);
                        prop_assert_eq!(from.ip(), speaker.ip());
                        prop_assert_eq!(to.ip(), address(&client(service, c)).ip());
                        if has_ports(&frame) {
                            prop_assert_eq!(from, speaker);
                            prop_assert_eq!(to, address(&client(service, c)));
                        }
                    }
                }
            }
            Step::Error(c, service, from_client) => self.error(c, service, from_client, receiver),
            Step::Stray(c, service, n, flags) => {
                let frame =
                    match client(service, c).starts_with('[') == (WAYS[service].servers == NET6) {
                        true => packet(service, &server(service, n), &client(service, c), flags),
                        false => return Ok(()),
                    };
                let before = self.conns(service);
                for (worker, frame) in self.send(receiver, &frame) {
                    // The server of a connection that is being ended is told so in its client's name.
                    if !is_forwarded(&frame) {
                        continue;
                    }
                    let known = self.serving.get(&(service, c)).copied();
                    let (at, to) = (address(&server(service, n)), address(&client(service, c)));
                    if WAYS[service].calls {
                        // If it is a new connection, it is this server's from now on.
                        if before != self.conns(service) {
                            self.serving.insert((service, c), (worker, at, to));
                        }
                    } else if !WAYS[service].one_packet {
                        prop_assert_eq!(known, Some((worker, at, to)), "a reply of another server");
                    }
                    let from = ends(&frame).0;
                    prop_assert_eq!(from, self.speaker(service, at, from));
                }
            }
            Step::AddServer(service, n) => {
                let slot = id(service, n);
                if !std::mem::replace(&mut self.present[slot as usize], true) {
                    let service_id = u32::try_from(service).unwrap();
                    let mode = WAYS[service].mode;
                    self.apply(&add_server_by(mode, service_id, slot, &server(service, n)));
                    self.tabulate(service);
                }
            }
            Step::DeleteServer(service, n) => {
                let slot = id(service, n);
                if std::mem::replace(&mut self.present[slot as usize], false) {
                    self.apply(&Update::DeleteServer { id: ServerId(slot) });
                    self.tabulate(service);
                }
            }
            Step::Weigh(service, n, weight) => {
                if self.present[id(service, n) as usize] {
                    self.apply(&weigh_by(WAYS[service].mode, id(service, n), weight));
                    self.tabulate(service);
                }
            }
            Step::Cut(service, n, reset) => {
                let id = ServerId(id(service, n));
                self.apply(&Update::CutServer { id, reset });
            }
            Step::Set(settings) => {
                self.untranslated = settings.one_packet_replies_untranslated;
                self.apply(&Update::SetSettings(settings));
            }
            Step::Options(service, options) => {
                let id = ServiceId(u32::try_from(service).unwrap());
                let client_address = WAYS[service].told;
                let options = ServiceOptions {
                    client_address,
                    ..options
                };
                self.apply(&Update::SetOptions { id, options });
            }
            Step::Wait(ms) => {
                for at in (0..ms).step_by(100).chain([ms]) {
                    let now = Instant(self.now + at);
                    for bed in &mut self.workers {
                        bed.director.tick(now, &mut bed.out);
                        // What is said of its own accord belongs to no step.
                        bed.take();
                    }
                }
                self.now += ms;
            }
        }
        self.holds()
    }

    fn inbound(
        &mut self,
        c: u16,
        service: usize,
        flags: &str,
        cut: Cut,
        receiver: usize,
    ) -> Result<(), TestCaseError> {
        let frame = packet(service, &client(service, c), WAYS[service].vip, flags);
        let before = self.conns(service);
        let sent = self.send_cut(receiver, &frame, cut);
        for (worker, frame) in sent.iter().filter(|(_, frame)| is_forwarded(frame)) {
            let Some((server, believed)) = served(service, &client(service, c), frame) else {
                continue;
            };
            let last = self.note(service, c, (*worker, server, believed));
            if let Some((owner, at, was)) = last {
                prop_assert_eq!(*worker, owner, "a flow moved to another worker");
                if before == self.conns(service) {
                    prop_assert_eq!((server, believed), (at, was), "a flow changed its server");
                }
            }
        }
        Ok(())
    }

    /// Who serves a client from now on; returns who did.
    fn note(&mut self, service: usize, c: u16, by: Served) -> Option<Served> {
        // A local port belongs to the last client that was given it.
        self.serving.retain(|(s, other), (_, at, port)| {
            *s != service || *other == c || (*at, *port) != (by.1, by.2)
        });
        self.serving.insert((service, c), by)
    }

    /// The address that a server's reply is to come from; `from` is where it came from. Answers to
    /// single datagrams may come from the server, unless it has a connection.
    fn speaker(&self, service: usize, server: SocketAddr, from: SocketAddr) -> SocketAddr {
        if WAYS[service].one_packet && self.untranslated && from.ip() == server.ip() {
            return server;
        }
        address(WAYS[service].vip)
    }

    /// The connection of a client, as its worker has it.
    fn found(&self, service: usize, c: u16) -> Option<Served> {
        let tuple = Tuple {
            protocol: WAYS[service].protocol.number(),
            from: address(&client(service, c)),
            to: address(WAYS[service].vip),
        };
        self.workers.iter().enumerate().find_map(|(worker, bed)| {
            let conns = &bed.director.conns;
            let entry = conns.find(&tuple)?.entry();
            let id = conns.at(entry)?.server();
            let server = bed.director.services.server(id)?.address;
            Some((worker, server, conns.tuple(entry, true).to))
        })
    }

    /// What becomes of it is for `tests/errors.rs`; here nothing breaks by it.
    fn error(&mut self, c: u16, service: usize, from_client: bool, receiver: usize) {
        let Some((_, server, believed)) = self.serving.get(&(service, c)).copied() else {
            return;
        };
        let (client, vip) = (client(service, c), WAYS[service].vip);
        let quoted = match from_client {
            true => packet(service, vip, &client, "A"),
            false if matches!(WAYS[service].mode, Nat | FullNat) => {
                packet(service, &believed.to_string(), &server.to_string(), "A")
            }
            false => return,
        };
        let to = quoted.from.ip().to_string();
        let (kind, code, router) = match (quoted.is_v6(), from_client) {
            (true, true) => (1, 4, "2001:db8:99::99"),
            (true, false) => (2, 0, "2001:db8:1::2"),
            (false, true) => (3, 3, "198.51.100.99"),
            (false, false) => (3, 4, "10.1.0.2"),
        };
        let error = icmp(router, &to, kind, code, [0, 0, 5, 0x78], &quoted.ip());
        let before = self.conns(service);
        self.send(receiver, &error);
        if before != self.conns(service)
            && let Some(opened) = self.found(service, c)
        {
            self.note(service, c, opened);
        }
    }

    /// Connections a service's servers ever had, on all workers.
    fn conns(&self, service: usize) -> u64 {
        let servers = (0..SERVERS_EACH).map(|n| id(service, n) as usize);
        let all = servers.flat_map(|s| {
            self.workers
                .iter()
                .map(move |w| w.page.servers[s].conns.get())
        });
        all.sum()
    }

    /// As [`Self::send`], whole or not. Fragments come to different workers.
    fn send_cut(&mut self, receiver: usize, frame: &Frame, cut: Cut) -> Vec<(usize, Vec<u8>)> {
        self.id = self.id.wrapping_add(1);
        let mut pieces = match cut {
            Cut::Whole => vec![frame.clone()],
            Cut::InOrder | Cut::Reversed => frame.clone().id(self.id).pieces(32),
        };
        if cut == Cut::Reversed {
            pieces.reverse();
        }
        let workers = self.workers.len();
        let pieces = pieces.iter().enumerate();
        pieces
            .flat_map(|(n, piece)| self.send((receiver + n) % workers, piece))
            .collect()
    }

    /// What leaves, and from which worker.
    fn send(&mut self, receiver: usize, frame: &Frame) -> Vec<(usize, Vec<u8>)> {
        let now = Instant(self.now);
        let (port, frame) = arriving(frame);
        let foretells = self.foretells;
        let foretold = foretells.then(|| Foretold::new(&self.workers, now, port, &frame.bytes()));
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
        let bed = &mut self.workers[receiver];
        bed.director.process(now, port, &mut burst, &mut bed.out);
        // To where the fragments of a datagram meet, and from there to their connection's worker.
        for _ in 0..2 {
            for from in 0..self.workers.len() {
                let steered: Vec<_> = self.workers[from].out.steered.drain(..).collect();
                for (to, port, hash, packet) in steered {
                    assert_ne!(to, from, "steered in a circle");
                    let bed = &mut self.workers[to];
                    (bed.director).process_handed(now, port, hash, packet, &mut bed.out);
                }
            }
        }
        for bed in &self.workers {
            assert_eq!(bed.out.steered.len(), 0, "steered without end");
            for (_, packet) in bed.out.sent.iter().filter(|(_, p)| !is_arp(p.bytes())) {
                let wrong = wrong_checksum(packet.bytes());
                assert_eq!(wrong, None, "{}", describe(packet.bytes()));
            }
        }
        if let Some(foretold) = foretold.flatten() {
            foretold.check(&self.workers);
        }
        let sent = self.workers.iter_mut().enumerate();
        let sent = sent.flat_map(|(worker, bed)| {
            bed.take()
                .into_iter()
                .map(move |(_, frame)| (worker, frame))
        });
        let sent: Vec<_> = sent.collect();
        self.log.extend_from_slice(&sent);
        // Whom we ask for an Ethernet address is no matter of the steps.
        sent.into_iter()
            .filter(|(_, frame)| !is_arp(frame))
            .collect()
    }

    /// Gauges are a recount; every packet has an end, every lease a connection.
    fn holds(&self) -> Result<(), TestCaseError> {
        if self
            .workers
            .iter()
            .any(|bed| bed.director.net().waiting().next().is_some())
        {
            return Ok(());
        }
        prop_assert!(balanced(self.workers.iter().map(|bed| &*bed.page)));
        let (mut controlled, now) = (0, Instant(self.now));
        for bed in &self.workers {
            let mut recount = vec![(0, 0); bed.page.servers.len()];
            let mut leased = 0;
            let conns = &bed.director.conns;
            for conn in (0..conns.capacity()).filter_map(|entry| conns.at(entry)) {
                let (active, inactive) = &mut recount[conn.server().index()];
                *if conn.state().is_active() {
                    active
                } else {
                    inactive
                } += 1;
                leased += usize::from(conn.mode() == FullNat);
                controlled += u32::from(conn.is_controlled());
            }
            let gauges: Vec<_> = (0..recount.len()).map(|server| bed.load(server)).collect();
            prop_assert_eq!(gauges, recount);
            prop_assert_eq!(bed.page.connections.get(), conns.used());
            prop_assert_eq!(bed.director.leases.in_use() as usize, leased);
            prop_assert_eq!(bed.page.held.get() as usize, bed.director.fragments.held());
        }
        let templates = &self.workers[0].director.templates;
        let all = (0..templates.lines()).filter_map(|line| templates.at(line, now));
        let all: Vec<_> = all.collect();
        prop_assert_eq!(all.len(), templates.used() as usize);
        prop_assert_eq!(all.iter().map(|t| t.controls).sum::<u32>(), controlled);
        Ok(())
    }

    fn ends_empty(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            self.step(&Step::Wait(1_000_000), 0)?;
        }
        for bed in &self.workers {
            prop_assert_eq!(bed.director.conns.used(), 0);
            prop_assert_eq!(bed.director.leases.in_use(), 0);
            prop_assert_eq!(bed.page.held.get(), 0);
        }
        prop_assert_eq!(self.workers[0].director.templates.used(), 0);
        Ok(())
    }
}

/// The server that a packet of this client went to, and whom it believes to talk to.
fn served(service: usize, client: &str, frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to) = ends(frame);
    let client = address(client);
    match WAYS[service].mode {
        _ if !has_ports(frame) => None,
        Direct => {
            let of_station = |n: &u32| frame[..6] == mac_of(address(&server(service, *n)).ip());
            let n = (0..SERVERS_EACH)
                .find(of_station)
                .expect("a server's station");
            Some((address(&server(service, n)), client))
        }
        Tunnel => Some((
            SocketAddr::new(to.ip(), address(WAYS[service].vip).port()),
            client,
        )),
        Nat | FullNat => Some((to, from)),
    }
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
}

fn ip(frame: &[u8]) -> &[u8] {
    &frame[14..]
}

/// Whether a frame is none of our own: neither ICMP nor a reset to the client.
fn is_forwarded(frame: &[u8]) -> bool {
    let parts = Parts::of(ip(frame));
    let is_reset = parts.protocol == 6 && !parts.is_fragment && parts.segment.len() == 20;
    !matches!(parts.protocol, 1 | 58) && !is_reset
}

fn has_ports(frame: &[u8]) -> bool {
    !Parts::of(ip(frame)).is_later
}

/// Source and destination of a packet without tag; ports are those of a packet that has some.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let parts = Parts::of(ip(frame));
    let segment = match parts.protocol {
        248 => &parts.segment[usize::from(parts.segment[3])..],
        _ => parts.segment,
    };
    let end = |ip: &[u8], at: usize| {
        let ip: IpAddr = match <[u8; 4]>::try_from(ip) {
            Ok(octets) => octets.into(),
            Err(_) => <[u8; 16]>::try_from(ip).unwrap().into(),
        };
        let port = u16::from_be_bytes(*segment[at..].first_chunk().unwrap());
        SocketAddr::new(ip, port)
    };
    (end(parts.from, 0), end(parts.to, 2))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn one_director(steps in steps(), capacity in prop_oneof![2..8u32, Just(100)]) {
        let mut world = World::new(1, capacity);
        for step in &steps {
            world.step(step, 0)?;
        }
        world.ends_empty()?;
    }

    #[test]
    fn several_workers(workers in 2..5usize, steps in vec((steps(), 0..5usize), 1..3)) {
        let mut world = World::new(workers, 100);
        for (steps, receiver) in &steps {
            for (n, step) in steps.iter().enumerate() {
                world.step(step, (receiver + n) % workers)?;
            }
        }
        world.ends_empty()?;
    }
}

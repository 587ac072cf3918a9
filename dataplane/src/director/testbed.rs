//! A director between its clients' network and its servers', checked after every packet.
//!
//! ```text
//! 192.0.2.10, .99 ── port 0 (192.0.2.254/24) director port 1 (10.1.0.254/24) ── 10.1.0.1 …
//! everybody else via 192.0.2.1                            VLAN 100 (10.2.0.254/24) ── 10.2.0.1
//! ```
//! [`STATIONS`] are static neighbours, all others are asked for. A station's Ethernet address is made
//! of its IPv4 address, a port's of its number.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use control::{ForwardMode, Protocol, ServiceKey};

use super::Director;
use super::frames::{Frame, Mac, describe, wrong_checksum};
use crate::counters::{DropReason, Page, balanced};
use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::{Burst, HeapBuf, PacketBuf, PortId};
use crate::replay::Wire;
use crate::sched::Kind;
use crate::steer::Steer;
use crate::time::Instant;
use crate::update::{ServerId, ServiceId, Update};

pub(super) const CLIENTS: PortId = PortId(0);
pub(super) const SERVERS: PortId = PortId(1);
pub(super) const C: &str = "192.0.2.10:40000";
pub(super) const VIP: &str = "203.0.113.1:80";
pub(super) const RS: &str = "10.1.0.1:80";
pub(super) const RS2: &str = "10.1.0.2:80";
pub(super) const MTU: u16 = 1500;
const STATIONS: [&str; 6] = [
    "192.0.2.1",
    "192.0.2.10",
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "10.2.0.1",
];

thread_local! {
    /// One bit for each reason that some test bed of this thread counted.
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

/// Whether a test bed of this thread counted a drop for this reason.
pub(super) fn seen(reason: DropReason) -> bool {
    SEEN.get() >> (reason as u32) & 1 != 0
}

/// A frame and the port that it leaves from.
pub(super) type Sent = (PortId, Vec<u8>);
/// How far counters moved, by name.
type Moves = BTreeMap<String, u64>;

/// What becomes of one packet.
#[derive(Debug, Clone)]
pub(super) enum End {
    Forward(Frame),
    /// Forwarded as this for the server at that address: to its station, or to the client.
    Direct(&'static str, Frame),
    /// Forwarded for a server that is not in its service any more: only the port counts it.
    ForwardUncounted(Frame),
    /// Turned into its own answer.
    Answer(Vec<u8>),
    Consume,
    Drop(DropReason),
    /// Dropped, and its sender is told.
    Refuse(DropReason, Frame),
    /// Waits for a neighbour, who is asked with these bytes unless that was done, to leave as this.
    Hold(Option<Vec<u8>>, Frame),
}

pub(super) struct Testbed {
    pub(super) director: Director<HeapBuf>,
    pub(super) out: Wire,
    pub(super) page: Arc<Page>,
}

pub(super) fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [2, 0xff, a, b, c, d]
}

pub(super) fn mac(address: &str) -> Mac {
    mac_of(address.parse().unwrap())
}

pub(super) fn port_mac(port: PortId) -> Mac {
    [2, 0, 0, 0, 0, port.0]
}

/// Where a packet to `address` leaves: port, VLAN and next station.
fn hop(address: Ipv4Addr) -> (PortId, Option<u16>, Ipv4Addr) {
    match address.octets() {
        [10, 1, 0, _] => (SERVERS, None, address),
        [10, 2, 0, _] => (SERVERS, Some(100), address),
        [192, 0, 2, _] => (CLIENTS, None, address),
        _ => (CLIENTS, None, [192, 0, 2, 1].into()),
    }
}

/// As its sender's network hands it to the director; what is set already stays.
pub(super) fn arriving(frame: &Frame) -> (PortId, Frame) {
    let (port, vlan, station) = hop(*frame.from.ip());
    let mut frame = frame.clone();
    if frame.to_mac == [0; 6] {
        frame = frame.between(mac_of(station), port_mac(port));
        frame.vlan = frame.vlan.or(vlan);
    }
    (port, frame)
}

/// As the director sends it on.
pub(super) fn leaving(frame: &Frame) -> (PortId, Frame) {
    let (port, vlan, station) = hop(*frame.to.ip());
    let mut frame = frame.clone().between(port_mac(port), mac_of(station));
    frame.vlan = vlan;
    (port, frame)
}

pub(super) fn setup(static_neighbours: bool) -> Setup {
    let interface = |port, vlan, address: [u8; 4]| Interface {
        port,
        vlan,
        mac: port_mac(port),
        mtu: MTU,
        addresses: vec![Prefix {
            address: address.into(),
            length: 24,
        }],
    };
    let neighbour = |address: &&str| StaticNeighbour {
        address: address.parse().unwrap(),
        mac: mac(address),
    };
    Setup {
        partial_checksums: Vec::new(),
        interfaces: vec![
            interface(CLIENTS, None, [192, 0, 2, 254]),
            interface(SERVERS, None, [10, 1, 0, 254]),
            interface(SERVERS, Some(100), [10, 2, 0, 254]),
        ],
        routes: vec![Route {
            to: Prefix {
                address: [0, 0, 0, 0].into(),
                length: 0,
            },
            via: [192, 0, 2, 1].into(),
        }],
        neighbours: STATIONS
            .iter()
            .filter(|_| static_neighbours)
            .map(neighbour)
            .collect(),
    }
}

pub(super) fn key(protocol: Protocol, address: &str) -> ServiceKey {
    ServiceKey {
        protocol,
        address: address.parse().unwrap(),
    }
}

/// A server of weight 1 that is reached by `mode`.
pub(super) fn add_server_by(mode: ForwardMode, service: u32, id: u32, address: &str) -> Update {
    Update::AddServer {
        service: ServiceId(service),
        id: ServerId(id),
        address: address.parse::<SocketAddr>().unwrap(),
        mode,
        tunnel: control::Tunnel::default(),
        weight: 1,
        thresholds: control::Thresholds::default(),
    }
}

pub(super) fn add_server(service: u32, id: u32, address: &str, weight: u32) -> Update {
    Update::AddServer {
        service: ServiceId(service),
        id: ServerId(id),
        address: address.parse::<SocketAddr>().unwrap(),
        mode: ForwardMode::Nat,
        tunnel: control::Tunnel::default(),
        weight,
        thresholds: control::Thresholds::default(),
    }
}

pub(super) fn weigh(id: u32, weight: u32) -> Update {
    weigh_by(ForwardMode::Nat, id, weight)
}

pub(super) fn weigh_by(mode: ForwardMode, id: u32, weight: u32) -> Update {
    Update::EditServer {
        id: ServerId(id),
        mode,
        tunnel: control::Tunnel::default(),
        weight,
        thresholds: control::Thresholds::default(),
    }
}

impl Testbed {
    /// No services; room for `capacity` connections.
    pub(super) fn new(capacity: u32, setup: Setup) -> Self {
        let page = Arc::new(Page::new(8, 16));
        let out = Wire::new(page.clone());
        let steer = Steer::new(0, 1);
        let director = Director::new(capacity, [1, 2], setup, steer, page.clone()).unwrap();
        Self {
            director,
            out,
            page,
        }
    }

    /// Service 0 (`rr`) with these servers, numbered from 0 on, all of weight 1.
    pub(super) fn nat(protocol: Protocol, vip: &str, servers: &[&str]) -> Self {
        let mut t = Self::new(1000, setup(true));
        t.add_service(0, protocol, vip);
        for (id, server) in (0..).zip(servers) {
            t.apply(add_server(0, id, server, 1));
        }
        t
    }

    pub(super) fn add_service(&mut self, id: u32, protocol: Protocol, vip: &str) {
        self.apply(Update::AddService {
            id: ServiceId(id),
            key: key(protocol, vip),
            scheduler: Kind::Rr,
            flags: control::SchedulerFlags::default(),
        });
    }

    /// What the director announces is not looked at.
    pub(super) fn apply(&mut self, update: Update) {
        self.director.apply(&update, &mut self.out);
        self.out.sent.clear();
        self.settle();
    }

    /// Lets a worker's rounds pass until `ms`, as they do while no packet comes; returns what left.
    pub(super) fn wait(&mut self, from: u32, to: u32) -> Vec<Sent> {
        for ms in (from..to).step_by(100).chain([to]) {
            self.director.tick(Instant::from_ms(ms), &mut self.out);
        }
        self.settle();
        self.take()
    }

    /// Active and inactive connections of a server.
    pub(super) fn load(&self, server: usize) -> (u32, u32) {
        let page = &self.page.servers[server];
        (page.active.get(), page.inactive.get())
    }

    pub(super) fn take(&mut self) -> Vec<Sent> {
        let sent = self.out.sent.drain(..);
        sent.map(|(port, packet)| (port, packet.bytes().to_vec()))
            .collect()
    }

    /// One packet through the director: what leaves, and which counters move, is exactly `expected`.
    #[track_caller]
    pub(super) fn check(&mut self, ms: u32, frame: Frame, expected: End) {
        let (port, frame) = arriving(&frame);
        self.check_bytes(ms, port, &frame.bytes(), expected);
    }

    #[track_caller]
    pub(super) fn check_bytes(&mut self, ms: u32, port: PortId, frame: &[u8], expected: End) {
        let (before, load) = (self.counters(), self.page.held.get());
        let mut burst = Burst::from_iter([HeapBuf::new(frame)]);
        self.director
            .process(Instant::from_ms(ms), port, &mut burst, &mut self.out);
        assert!(burst.is_empty(), "process leaves packets behind");
        self.settle();
        let sent = self.take();
        let (frames, mut moves) = self.demand(&expected, port, frame);
        let context = || format!("at {ms} ms, in on port {}: {}", port.0, describe(frame));
        compare_frames(&sent, &frames, &context);
        for (port, frame) in &sent {
            *moves.entry(format!("{} tx", port.0)).or_default() += 1;
            *moves.entry(format!("{} tx_bytes", port.0)).or_default() += frame.len() as u64;
        }
        moves.insert(format!("{} rx", port.0), 1);
        moves.insert(format!("{} rx_bytes", port.0), frame.len() as u64);
        moves.retain(|_, n| *n > 0);
        let moved = moved(&before, &self.counters());
        assert_eq!(moved, moves, "counters that moved\n{}", context());
        let held = u32::from(matches!(expected, End::Hold(..)));
        assert_eq!(self.page.held.get(), load + held, "held\n{}", context());
    }

    /// What must leave, and the counters that must move, but for those of what is sent.
    fn demand(&self, expected: &End, port: PortId, packet: &[u8]) -> (Vec<Sent>, Moves) {
        let (mut frames, mut moves) = (Vec::new(), BTreeMap::new());
        let mut count = |name: String, n| *moves.entry(name).or_insert(0) += n;
        match expected {
            End::Forward(frame) | End::ForwardUncounted(frame) => {
                let (to, frame) = leaving(frame);
                frames.push((to, frame.bytes()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::Direct(server, frame) => {
                let server: SocketAddrV4 = server.parse().unwrap();
                let id = self.server_at(server).expect("a server");
                let inbound = self.director.services.is_vip((*frame.to.ip()).into());
                let (to, frame) = if inbound {
                    let (port, vlan, station) = hop(*server.ip());
                    let mut frame = frame.clone().between(port_mac(port), mac_of(station));
                    frame.vlan = vlan;
                    (port, frame)
                } else {
                    leaving(frame)
                };
                frames.push((to, frame.bytes()));
                count(format!("{} forwarded", port.0), 1);
                let way = if inbound { "in" } else { "out" };
                count(format!("server {id} {way}_packets"), 1);
                let len = frame.ip().len() as u64;
                count(format!("server {id} {way}_bytes"), len);
            }
            End::Answer(frame) => {
                frames.push((port, frame.clone()));
                count(format!("{} answered", port.0), 1);
            }
            End::Consume => count(format!("{} consumed", port.0), 1),
            End::Drop(reason) => count(format!("{} {}", port.0, reason.name()), 1),
            End::Refuse(reason, answer) => {
                count(format!("{} {}", port.0, reason.name()), 1);
                let (to, answer) = leaving(answer);
                frames.push((to, answer.bytes()));
                count(format!("{} made", to.0), 1);
                count(format!("{} answered", to.0), 1);
            }
            End::Hold(asked, frame) => {
                let (to, _) = leaving(frame);
                if let Some(asked) = asked {
                    frames.push((to, asked.clone()));
                    count(format!("{} made", to.0), 1);
                    count(format!("{} answered", to.0), 1);
                }
            }
        }
        match expected {
            End::Forward(frame) | End::Hold(_, frame) => {
                let (server, way) = match self.server_at(frame.to) {
                    Some(server) => (server, "in"),
                    None => (self.server_at(source(packet)).expect("a server"), "out"),
                };
                count(format!("server {server} {way}_packets"), 1);
                let len = frame.ip().len() as u64;
                count(format!("server {server} {way}_bytes"), len);
            }
            End::Drop(reason) | End::Refuse(reason, _) if is_charged(*reason) => {
                count(format!("service {}", reason.name()), 1);
            }
            _ => {}
        }
        (frames, moves)
    }

    /// All that must hold between two packets.
    #[track_caller]
    pub(super) fn settle(&mut self) {
        assert!(balanced([&*self.page]), "a packet has no end, or two");
        for (_, packet) in &self.out.sent {
            let wrong = wrong_checksum(packet.bytes());
            assert_eq!(wrong, None, "checksum of {}", describe(packet.bytes()));
        }
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            if self
                .page
                .ports
                .iter()
                .any(|p| p.drops[*reason as usize].get() > 0)
            {
                SEEN.set(SEEN.get() | 1 << i);
            }
        }
    }

    /// Every counter but the gauges, by name.
    fn counters(&self) -> Moves {
        let mut all = BTreeMap::new();
        for (i, port) in self.page.ports.iter().enumerate() {
            for (name, counter) in [
                ("rx", &port.rx),
                ("rx_bytes", &port.rx_bytes),
                ("made", &port.made),
                ("forwarded", &port.forwarded),
                ("answered", &port.answered),
                ("consumed", &port.consumed),
                ("tx", &port.tx),
                ("tx_bytes", &port.tx_bytes),
            ] {
                all.insert(format!("{i} {name}"), counter.get());
            }
            for reason in DropReason::ALL {
                let drops = port.drops[*reason as usize].get();
                all.insert(format!("{i} {}", reason.name()), drops);
            }
        }
        for (i, server) in self.page.servers.iter().enumerate() {
            for (name, counter) in [
                ("in_packets", &server.in_packets),
                ("in_bytes", &server.in_bytes),
                ("out_packets", &server.out_packets),
                ("out_bytes", &server.out_bytes),
            ] {
                all.insert(format!("server {i} {name}"), counter.get());
            }
        }
        for reason in DropReason::ALL {
            let drops = self
                .page
                .services
                .iter()
                .map(|s| s.drops[*reason as usize].get());
            all.insert(format!("service {}", reason.name()), drops.sum());
        }
        all
    }

    fn server_at(&self, address: SocketAddrV4) -> Option<usize> {
        let services = &self.director.services;
        (0..self.page.servers.len()).find(|i| {
            let id = ServerId(u32::try_from(*i).unwrap());
            services
                .server(id)
                .is_some_and(|s| s.address == address.into())
        })
    }
}

/// Whether a drop for this reason is counted for a service too.
fn is_charged(reason: DropReason) -> bool {
    use DropReason::{
        BadSource, NoConnection, NoRoute, NoServer, NotOnLink, ServerGone, TableFull, TooBig,
        TtlExpired,
    };
    matches!(
        reason,
        BadSource
            | NoConnection
            | NoRoute
            | NoServer
            | NotOnLink
            | ServerGone
            | TableFull
            | TooBig
            | TtlExpired
    )
}

/// Where a TCP or UDP packet without options came from.
fn source(frame: &[u8]) -> SocketAddrV4 {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let [a, b, c, d] = *frame[l3 + 12..].first_chunk().unwrap();
    let port = u16::from_be_bytes(*frame[l3 + 20..].first_chunk().unwrap());
    SocketAddrV4::new([a, b, c, d].into(), port)
}

fn moved(before: &Moves, after: &Moves) -> Moves {
    let moved = after
        .iter()
        .map(|(name, n)| (name.clone(), n - before[name]));
    moved.filter(|(_, n)| *n > 0).collect()
}

#[track_caller]
fn compare_frames(sent: &[Sent], expected: &[Sent], context: &dyn Fn() -> String) {
    let show = |frames: &[Sent]| {
        let lines = frames
            .iter()
            .map(|(port, frame)| format!("  port {}: {}\n", port.0, describe(frame)));
        lines.collect::<String>()
    };
    assert!(
        sent == expected,
        "{}\nsent:\n{}expected:\n{}",
        context(),
        show(sent),
        show(expected)
    );
}

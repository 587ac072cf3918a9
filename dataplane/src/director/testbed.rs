//! A director between its clients' network and its servers', checked after every packet.
//!
//! ```text
//! 192.0.2.10, .99 ── port 0 (192.0.2.254/24) director port 1 (10.1.0.254/24) ── 10.1.0.1 …
//! everybody else via 192.0.2.1                            VLAN 100 (10.2.0.254/24) ── 10.2.0.1
//! ```
//! In IPv6 the networks are 2001:db8:c::/64, 2001:db8:1::/64 and 2001:db8:2::/64, and we are ::fe.
//! [`STATIONS`] are static neighbours, all others are asked for. A station's Ethernet address is made
//! of its IP address, a port's of its number.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{ForwardMode, Protocol, ServiceKey, Vips};

use super::Director;
use super::frames::{Frame, Mac, address, describe, wrong_checksum};
use crate::counters::{DropReason, Page, balanced};
use crate::net::{Interface, Kernel, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::{Burst, Egress, HeapBuf, PacketBuf, PortId};
use crate::replay::Wire;
use crate::sched::Kind;
use crate::steer::Steer;
use crate::time::Instant;
use crate::update::{LocalAddress, Policy, ServerId, ServiceId, Update};

pub(super) const CLIENTS: PortId = PortId(0);
pub(super) const SERVERS: PortId = PortId(1);
/// Where the kernel's side of [`CLIENTS`] is, if it has one.
pub(super) const KERNEL: PortId = PortId(2);
pub(super) const C: &str = "192.0.2.10:40000";
pub(super) const VIP: &str = "203.0.113.1:80";
pub(super) const RS: &str = "10.1.0.1:80";
pub(super) const RS2: &str = "10.1.0.2:80";
pub(super) const MTU: u16 = 1500;
pub(super) const C6: &str = "[2001:db8:c::10]:40000";
pub(super) const VIP6: &str = "[2001:db8:f::1]:80";
pub(super) const RS6: &str = "[2001:db8:1::1]:80";
pub(super) const RS6B: &str = "[2001:db8:1::2]:80";
const STATIONS: [&str; 12] = [
    "2001:db8:c::1",
    "2001:db8:c::10",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::1",
    "192.0.2.1",
    "192.0.2.10",
    "10.1.0.1",
    "10.1.0.2",
    "10.1.0.3",
    "2001:db8:1::3",
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
pub(super) type Moves = BTreeMap<String, u64>;

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
    /// Forwarded for the server at that address as these, each to where it is addressed: several if
    /// it was cut.
    To(&'static str, Vec<Frame>),
    /// As [`Self::To`], from that server.
    Back(&'static str, Vec<Frame>),
    /// Forwarded behind a frame of our own.
    Behind(Frame, Frame),
    /// Its sender is told, and it is forwarded.
    Both(Frame, Frame),
    /// A fragment that waits for its first one.
    Wait,
    /// A first fragment, and those that waited for it: all are forwarded.
    Together(&'static str, Vec<Frame>),
    /// Dropped without being charged to a service, with so many fragments that waited.
    DropWith(DropReason, u32),
    /// Dropped with so many fragments that waited, and its sender is told.
    RefuseWith(DropReason, u32, Frame),
    /// Taken in, and somebody is told.
    Tell(Frame),
    /// To the kernel, as it is.
    Punt,
    /// From the kernel out by this port, as it is.
    Emit(PortId),
    /// From the kernel to the server at that address.
    Host(&'static str, Frame),
    /// To the kernel, from the server at that address.
    ToHost(&'static str, Frame),
    /// Waits for a neighbour, who is asked with these bytes unless that was done, to leave as this.
    Hold(Option<Vec<u8>>, Frame),
}

pub(super) struct Testbed {
    pub(super) director: Director<HeapBuf>,
    pub(super) out: Wire,
    pub(super) page: Arc<Page>,
    /// Bytes of the one datagram whose fragments wait.
    waiting: u64,
    /// Drops that were kept to be shown, by port and reason.
    kept: BTreeMap<(PortId, &'static str), u64>,
}

pub(super) fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [2, 0xff, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let [.., network, _, _, _, host] = address.segments();
            let ([a, b], [c, d]) = (network.to_be_bytes(), host.to_be_bytes());
            [2, 0xfe, a, b, c, d]
        }
    }
}

pub(super) fn mac(address: &str) -> Mac {
    mac_of(address.parse().unwrap())
}

pub(super) fn port_mac(port: PortId) -> Mac {
    [2, 0, 0, 0, 0, port.0]
}

/// Where a packet to `address` leaves: port, VLAN and next station.
fn hop(address: IpAddr) -> (PortId, Option<u16>, IpAddr) {
    let gateway = if address.is_ipv4() {
        "192.0.2.1"
    } else {
        "2001:db8:c::1"
    };
    let network = match address {
        IpAddr::V4(address) => address.octets()[..3].to_vec(),
        IpAddr::V6(address) => address.octets()[..6].to_vec(),
    };
    match network[..] {
        [10, 1, 0] | [0x20, 1, 0xd, 0xb8, 0, 1] => (SERVERS, None, address),
        [10, 2, 0] | [0x20, 1, 0xd, 0xb8, 0, 2] => (SERVERS, Some(100), address),
        [192, 0, 2] | [0x20, 1, 0xd, 0xb8, 0, 0xc] => (CLIENTS, None, address),
        _ => (CLIENTS, None, gateway.parse().unwrap()),
    }
}

/// As its sender's network hands it to the director; what is set already stays.
pub(super) fn arriving(frame: &Frame) -> (PortId, Frame) {
    let (port, vlan, station) = hop(frame.from.ip());
    let mut frame = frame.clone();
    if frame.to_mac == [0; 6] {
        frame = frame.between(mac_of(station), port_mac(port));
        frame.vlan = frame.vlan.or(vlan);
    }
    (port, frame)
}

/// As the director sends it on: to where it is addressed, unless [`via`] says otherwise.
pub(super) fn leaving(frame: &Frame) -> (PortId, Frame) {
    if frame.to_mac != [0; 6] {
        return (PortId(frame.from_mac[5]), frame.clone());
    }
    let (port, vlan, station) = hop(frame.to.ip());
    let mut frame = frame.clone().between(port_mac(port), mac_of(station));
    frame.vlan = vlan;
    (port, frame)
}

/// To a station other than the one that the packet is addressed to.
pub(super) fn via(station: &str, frame: Frame) -> Frame {
    let (port, vlan, station) = hop(address(station).ip());
    let mut frame = frame.between(port_mac(port), mac_of(station));
    frame.vlan = vlan;
    frame
}

pub(super) fn setup(static_neighbours: bool) -> Setup {
    let prefix = |address: &str, length| Prefix {
        address: address.parse().unwrap(),
        length,
    };
    let interface = |port, vlan, address, address6| Interface {
        port,
        vlan,
        mac: port_mac(port),
        mtu: MTU,
        partial_checksums: false,
        addresses: vec![prefix(address, 24), prefix(address6, 64)],
        kernel: None,
    };
    let neighbour = |address: &&str| StaticNeighbour {
        address: address.parse().unwrap(),
        mac: mac(address),
    };
    Setup {
        interfaces: vec![
            interface(CLIENTS, None, "192.0.2.254", "2001:db8:c::fe"),
            interface(SERVERS, None, "10.1.0.254", "2001:db8:1::fe"),
            interface(SERVERS, Some(100), "10.2.0.254", "2001:db8:2::fe"),
        ],
        routes: [("0.0.0.0", "192.0.2.1"), ("::", "2001:db8:c::1")]
            .map(|(to, via)| Route {
                to: prefix(to, 0),
                via: via.parse().unwrap(),
            })
            .to_vec(),
        neighbours: STATIONS
            .iter()
            .filter(|_| static_neighbours)
            .map(neighbour)
            .collect(),
    }
}

/// As [`setup`], with a kernel beside [`CLIENTS`].
pub(super) fn beside_kernel(vips: Vips) -> Setup {
    let mut setup = setup(true);
    let port = KERNEL;
    setup.interfaces[0].kernel = Some(Kernel { port, vips });
    setup
}

pub(super) fn key(protocol: Protocol, address: &str) -> ServiceKey {
    ServiceKey::at(protocol, address.parse().unwrap())
}

/// Local addresses of a service, all of them.
pub(super) fn local_addresses(service: u32, addresses: &[&str]) -> Update {
    let local = |address: &&str| LocalAddress::new(address.parse().unwrap(), 8);
    Update::SetLocalAddresses {
        id: ServiceId(service),
        addresses: addresses.iter().map(local).collect(),
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
        Self::with(capacity, setup, Page::new(8, 16).unwrap())
    }

    /// As [`Self::new`], for so many servers.
    pub(super) fn with_servers(capacity: u32, servers: usize) -> Self {
        Self::with(capacity, setup(true), Page::new(servers, servers).unwrap())
    }

    pub(super) fn with(capacity: u32, setup: Setup, page: Page) -> Self {
        let page = Arc::new(page);
        let out = Wire::new(page.clone());
        let steer = Steer::new(0, 1);
        let director = Director::new(capacity, [1, 2], setup, steer, page.clone()).unwrap();
        Self {
            director,
            out,
            page,
            waiting: 0,
            kept: BTreeMap::new(),
        }
    }

    /// Service 0 (`rr`) with these servers, numbered from 0 on, all of weight 1.
    pub(super) fn nat(protocol: Protocol, vip: &str, servers: &[&str]) -> Self {
        Self::by(ForwardMode::Nat, protocol, vip, servers)
    }

    /// As [`Self::nat`] by another method.
    pub(super) fn by(mode: ForwardMode, protocol: Protocol, vip: &str, servers: &[&str]) -> Self {
        let mut t = Self::new(1000, setup(true));
        t.add_service(0, protocol, vip);
        for (id, server) in (0..).zip(servers) {
            t.apply(add_server_by(mode, 0, id, server));
        }
        t
    }

    pub(super) fn add_service(&mut self, id: u32, protocol: Protocol, vip: &str) {
        self.apply(Update::AddService {
            id: ServiceId(id),
            key: key(protocol, vip),
            policy: Policy::of(Kind::Rr),
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

    /// What leaves when this packet comes; counters are only balanced.
    pub(super) fn pass(&mut self, ms: u32, frame: &Frame) -> Vec<Vec<u8>> {
        let (port, frame) = arriving(frame);
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
        self.director.set_microseconds(ms.wrapping_mul(1000));
        self.director
            .process(Instant::from_ms(ms), port, &mut burst, &mut self.out);
        self.settle();
        self.take().into_iter().map(|(_, frame)| frame).collect()
    }

    /// One packet through the director: what leaves, and which counters move, is exactly `expected`.
    #[track_caller]
    pub(super) fn check(&mut self, ms: u32, frame: Frame, expected: End) {
        let (port, frame) = arriving(&frame);
        self.check_from(ms, port, &frame.bytes(), Some(frame.from), expected);
    }

    #[track_caller]
    pub(super) fn check_bytes(&mut self, ms: u32, port: PortId, frame: &[u8], expected: End) {
        self.check_from(ms, port, frame, None, expected);
    }

    #[track_caller]
    fn check_from(
        &mut self,
        ms: u32,
        port: PortId,
        frame: &[u8],
        source: Option<SocketAddr>,
        expected: End,
    ) {
        let (before, load) = (self.counters(), self.page.held.get());
        let mut burst = Burst::from_iter([HeapBuf::new(frame)]);
        self.director.set_microseconds(ms.wrapping_mul(1000));
        self.director
            .process(Instant::from_ms(ms), port, &mut burst, &mut self.out);
        assert!(burst.is_empty(), "process leaves packets behind");
        self.settle();
        let sent = self.take();
        let (frames, mut moves) = self.demand(&expected, port, frame, source);
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
        match &expected {
            End::Wait => self.waiting += ip_len(frame),
            End::Together(..) | End::DropWith(..) | End::RefuseWith(..) => self.waiting = 0,
            _ => {}
        }
        let held = match &expected {
            End::Hold(..) | End::Wait => load + 1,
            End::Together(_, frames) => load + 1 - u32::try_from(frames.len()).unwrap(),
            End::DropWith(_, waited) | End::RefuseWith(_, waited, _) => load - waited,
            _ => load,
        };
        assert_eq!(self.page.held.get(), held, "held\n{}", context());
    }

    /// What must leave, and the counters that must move, but for those of what is sent.
    fn demand(
        &self,
        expected: &End,
        port: PortId,
        packet: &[u8],
        source: Option<SocketAddr>,
    ) -> (Vec<Sent>, Moves) {
        let (mut frames, mut moves) = (Vec::new(), BTreeMap::new());
        let mut count = |name: String, n| *moves.entry(name).or_insert(0) += n;
        let mut charge = |server: usize, way: &str, packets: usize, bytes: u64| {
            count(format!("server {server} {way}_packets"), packets as u64);
            count(format!("server {server} {way}_bytes"), bytes);
        };
        let at = |server: &str| self.server_at(server.parse().unwrap()).expect("a server");
        let len = match expected {
            End::Both(_, reset) => ip_len(&reset.bytes()),
            _ => ip_len(packet),
        };
        match expected {
            End::Forward(frame)
            | End::Behind(_, frame)
            | End::Both(_, frame)
            | End::Hold(_, frame) => match (self.server_at(frame.to), source) {
                (Some(server), _) => charge(server, "in", 1, len),
                (None, Some(source)) => {
                    charge(self.server_at(source).expect("a server"), "out", 1, len);
                }
                (None, None) => panic!("whose is it?"),
            },
            End::To(server, _) | End::Host(server, _) => charge(at(server), "in", 1, len),
            End::ToHost(server, _) | End::Back(server, _) => charge(at(server), "out", 1, len),
            End::Direct(server, frame) => {
                let inbound = self.director.services.is_vip(frame.to.ip());
                charge(at(server), if inbound { "in" } else { "out" }, 1, len);
            }
            End::Together(server, all) => {
                let bytes = self.waiting + len;
                let inbound = self.director.services.is_vip(destination(packet));
                charge(
                    at(server),
                    if inbound { "in" } else { "out" },
                    all.len(),
                    bytes,
                );
            }
            _ => {}
        }
        let mut tell = |answer: &Frame, frames: &mut Vec<Sent>| {
            let (to, answer) = leaving(answer);
            frames.push((to, answer.bytes()));
            count(format!("{} made", to.0), 1);
            count(format!("{} answered", to.0), 1);
        };
        match expected {
            End::Refuse(_, answer)
            | End::RefuseWith(_, _, answer)
            | End::Both(answer, _)
            | End::Tell(answer) => {
                tell(answer, &mut frames);
            }
            _ => {}
        }
        match expected {
            End::Forward(frame) | End::ForwardUncounted(frame) | End::Both(_, frame) => {
                let (to, frame) = leaving(frame);
                frames.push((to, frame.bytes()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::To(_, all) | End::Back(_, all) | End::Together(_, all) => {
                for frame in all {
                    let (to, frame) = leaving(frame);
                    frames.push((to, frame.bytes()));
                    count(format!("{} forwarded", port.0), 1);
                }
                if !matches!(expected, End::Together(..)) && all.len() > 1 {
                    count(format!("{} consumed", port.0), 1);
                    count(format!("{} made", port.0), all.len() as u64);
                }
            }
            End::Behind(first, frame) => {
                let (to, first) = leaving(first);
                frames.push((to, first.bytes()));
                count(format!("{} made", to.0), 1);
                count(format!("{} forwarded", to.0), 1);
                frames.push((to, leaving(frame).1.bytes()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::Direct(server, frame) => {
                let server: SocketAddr = server.parse().unwrap();
                let inbound = self.director.services.is_vip(frame.to.ip());
                let (to, frame) = if inbound {
                    let (port, vlan, station) = hop(server.ip());
                    let mut frame = frame.clone().between(port_mac(port), mac_of(station));
                    frame.vlan = vlan;
                    (port, frame)
                } else {
                    leaving(frame)
                };
                frames.push((to, frame.bytes()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::Answer(frame) => {
                frames.push((port, frame.clone()));
                count(format!("{} answered", port.0), 1);
            }
            End::Consume | End::Tell(_) => count(format!("{} consumed", port.0), 1),
            End::Drop(reason) | End::Refuse(reason, _) => {
                count(format!("{} {}", port.0, reason.name()), 1);
                if is_charged(*reason) {
                    count(format!("service {}", reason.name()), 1);
                }
            }
            End::DropWith(reason, waited) => {
                count(
                    format!("{} {}", port.0, reason.name()),
                    u64::from(waited + 1),
                );
            }
            End::RefuseWith(reason, waited, _) => {
                count(
                    format!("{} {}", port.0, reason.name()),
                    u64::from(waited + 1),
                );
                count(format!("service {}", reason.name()), 1);
            }
            End::Wait => {}
            End::Punt => {
                frames.push((KERNEL, packet.to_vec()));
                count(format!("{} punted", port.0), 1);
            }
            End::Emit(to) => {
                frames.push((*to, packet.to_vec()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::Host(_, frame) => {
                let (to, frame) = leaving(frame);
                frames.push((to, frame.bytes()));
                count(format!("{} forwarded", port.0), 1);
            }
            End::ToHost(_, frame) => {
                let own = port_mac(CLIENTS);
                frames.push((KERNEL, frame.clone().between(own, own).bytes()));
                count(format!("{} forwarded", port.0), 1);
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
        (frames, moves)
    }

    /// All that must hold between two packets.
    #[track_caller]
    pub(super) fn settle(&mut self) {
        assert!(balanced([&*self.page]), "a packet has no end, or two");
        self.every_drop_is_kept();
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

    /// What was counted since the last call, at most what a worker remembers, can be shown.
    #[track_caller]
    pub(super) fn every_drop_is_kept(&mut self) {
        let recent = self.out.watch().recent();
        for drop in recent.since(self.kept.values().sum()) {
            *self
                .kept
                .entry((drop.port, drop.reason.name()))
                .or_default() += 1;
        }
        let mut counted = BTreeMap::new();
        for (id, port) in (0..).map(PortId).zip(&self.page.ports) {
            for (reason, drops) in DropReason::ALL.iter().zip(port.drops.iter()) {
                if drops.get() > 0 {
                    counted.insert((id, reason.name()), drops.get());
                }
            }
        }
        assert_eq!(self.kept, counted, "drops by port and reason");
    }

    /// Every counter but the gauges, by name.
    fn counters(&self) -> Moves {
        counters(&self.page)
    }

    fn server_at(&self, address: SocketAddr) -> Option<usize> {
        let services = &self.director.services;
        (0..self.page.servers.len()).find(|i| {
            let id = ServerId(u32::try_from(*i).unwrap());
            services.server(id).is_some_and(|s| s.address == address)
        })
    }
}

/// Whether a drop for this reason is counted for a service too.
fn is_charged(reason: DropReason) -> bool {
    use DropReason::{
        BadSource, ConnectionCut, DropPacket, NoCallId, NoConnection, NoHeadroom, NoLocalPort,
        NoRoute, NoServer, NotOnLink, ServerGone, TableFull, TemplatesFull, TooBig, TtlExpired,
    };
    matches!(
        reason,
        BadSource
            | ConnectionCut
            | DropPacket
            | NoCallId
            | NoConnection
            | NoHeadroom
            | NoLocalPort
            | NoRoute
            | NoServer
            | NotOnLink
            | ServerGone
            | TableFull
            | TemplatesFull
            | TooBig
            | TtlExpired
    )
}

/// The IP packet of a frame.
fn ip(frame: &[u8]) -> &[u8] {
    &frame[if frame[12..14] == [0x81, 0] { 18 } else { 14 }..]
}

/// As its header says; 0 for what is no IP packet.
fn ip_len(frame: &[u8]) -> u64 {
    match frame.get(18..).map(|_| ip(frame)) {
        Some([0x40..=0x4f, _, a, b, ..]) => u16::from_be_bytes([*a, *b]).into(),
        Some([0x60..=0x6f, _, _, _, a, b, ..]) => 40 + u64::from(u16::from_be_bytes([*a, *b])),
        _ => 0,
    }
}

fn destination(frame: &[u8]) -> IpAddr {
    let ip = ip(frame);
    match ip[0] >> 4 {
        4 => IpAddr::from(*ip[16..].first_chunk::<4>().unwrap()),
        _ => IpAddr::from(*ip[24..].first_chunk::<16>().unwrap()),
    }
}

/// Every counter of a page, by name.
pub(super) fn counters(page: &Page) -> Moves {
    let mut all = BTreeMap::new();
    for (i, port) in page.ports.iter().enumerate() {
        for (name, counter) in [
            ("rx", &port.rx),
            ("rx_bytes", &port.rx_bytes),
            ("made", &port.made),
            ("forwarded", &port.forwarded),
            ("answered", &port.answered),
            ("punted", &port.punted),
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
    for (i, server) in page.servers.iter().enumerate() {
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
        let drops = page
            .services
            .iter()
            .map(|s| s.drops[*reason as usize].get());
        all.insert(format!("service {}", reason.name()), drops.sum());
    }
    all
}

pub(super) fn moved(before: &Moves, after: &Moves) -> Moves {
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

//! The small network that the generator plays: a router with all clients behind it on one port,
//! real servers on the other. Segments of 26 bytes, in frames of 60 bytes over IPv4 and 80 over
//! IPv6, written and checked byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use control::{Change, ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceSpec};

use super::way::{GUE_PORT, Method, Way};
use crate::control::model::Limits;
use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::{PacketBuf, PortId};
use crate::sched;
use crate::wire::flow::{ETHERNET, ICMPV6, TCP, Tuple, UDP, tcp_flags};
use crate::wire::ip::{Ip, V4_LEN, V6_LEN};
use crate::wire::{checksum, ethernet};

/// Clients send to this port of the director, servers to that one.
pub(super) const CLIENT_SIDE: PortId = PortId(0);
pub(super) const SERVER_SIDE: PortId = PortId(1);

/// Servers of a service where their number is not what is measured.
const SERVERS: u32 = 16;
/// Machines that servers are on; further servers are further ports of them.
const HOSTS_MAX: u32 = 4096;
/// What a client sends in 1500 bytes fits into a tunnel.
const MTU: u16 = 1600;
const VIP_PORT: u16 = 80;
const SERVER_PORT: u16 = 8080;
const CLIENT_PORT: u16 = 1024;
const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe)),
];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// Bytes of the shortest segment over either family; over IPv4 its frame is a shortest one.
pub(super) const SEGMENT_MIN: usize = 26;
const _: () = assert!(ETHERNET + V4_LEN + SEGMENT_MIN == ethernet::FRAME_MIN);
/// Bytes of the IP packets of a mix of sizes; 0 is a shortest one.
pub(super) const IMIX: [usize; 12] = [0, 0, 576, 0, 576, 0, 1500, 576, 0, 0, 576, 0];
const TCP_HEADER: usize = 20;
const TTL: u8 = 64;
/// Flows that each of FULLNAT's local addresses has ports for toward one server, and some more.
const FLOWS_PER_LOCAL: u32 = 50_000;

const fn director_mac(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 0, port.0]
}

/// Where the services of a site are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Each at an address of its own.
    Addresses,
    /// All at one address, each at a port of its own.
    Ports,
}

/// What is configured. The servers of service `n` have the numbers from `n * servers` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) way: Way,
    pub(super) services: u32,
    pub(super) place: Place,
    /// Flows ask the services in no order, instead of in turns.
    pub(super) scattered: bool,
    /// Of each service.
    pub(super) servers: u32,
    pub(super) scheduler: sched::Kind,
}

impl Site {
    /// One service with a few servers.
    pub(super) const fn of(way: Way) -> Self {
        Self {
            way,
            services: 1,
            place: Place::Addresses,
            scattered: false,
            servers: SERVERS,
            scheduler: sched::Kind::Rr,
        }
    }

    /// Servers of all services.
    pub(super) const fn all_servers(&self) -> u32 {
        self.services * self.servers
    }

    /// Bytes of the segment in an IP packet of so many.
    pub(super) fn segment(&self, packet: usize) -> usize {
        self.packet_len(packet) - self.header()
    }

    /// Bytes of an IP packet of so many, or of a shortest one.
    pub(super) fn packet_len(&self, packet: usize) -> usize {
        packet.max(self.header() + SEGMENT_MIN)
    }

    fn header(&self) -> usize {
        if self.way.family.is_v6() {
            V6_LEN
        } else {
            V4_LEN
        }
    }

    pub(super) const fn limits(&self) -> Limits {
        Limits {
            services_max: self.services as usize,
            servers_max: self.all_servers() as usize,
        }
    }

    fn hosts(&self) -> u32 {
        self.all_servers().min(HOSTS_MAX)
    }

    fn vip(&self, service: u32) -> SocketAddr {
        let (number, port) = match self.place {
            Place::Addresses => (service, 0),
            Place::Ports => (0, service),
        };
        let address = match self.way.family.is_v6() {
            false => Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(100, 64, 0, 1)) + number).into(),
            true => {
                let [high, low] = halves(number + 1);
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, high, low).into()
            }
        };
        SocketAddr::new(address, VIP_PORT + halves(port)[1])
    }

    /// Where a server listens.
    fn listens(&self, server: u32) -> SocketAddr {
        let hosts = self.hosts();
        let port = if self.way.method.is_one_way() {
            self.vip(server / self.servers).port()
        } else {
            SERVER_PORT + halves(server / hosts)[1]
        };
        SocketAddr::new(host(self.way.family.servers_are_v6(), server % hosts), port)
    }

    /// The service that a client asks.
    fn asked(&self, client: SocketAddr) -> u32 {
        let address = match client.ip() {
            IpAddr::V4(address) => address.to_bits() & 0xffff,
            IpAddr::V6(address) => {
                let [.., high, low] = address.segments();
                u32::from(high) << 8 | u32::from(low)
            }
        };
        let flow = u32::from(client.port().wrapping_sub(CLIENT_PORT)) << 16 | address;
        self.asked_by(flow)
    }

    /// The same by the number of the client's flow.
    fn asked_by(&self, flow: u32) -> u32 {
        match self.scattered {
            false => flow % self.services,
            // Less than the number of services.
            true => ((u64::from(scattered(flow)) * u64::from(self.services)) >> 32) as u32,
        }
    }

    /// Whether the host of this MAC has a server of `service`, which listens there.
    fn is_server(&self, service: u32, mac: [u8; 6], at: SocketAddr) -> bool {
        let [2, 0, 0, 2, high, low] = mac else {
            return false;
        };
        let (number, hosts) = (u32::from(high) << 8 | u32::from(low), self.hosts());
        let first = service * self.servers;
        let (server, listens) = if self.way.method.is_one_way() {
            // A service has no more of these than there are hosts.
            let server = first + (hosts + number - first % hosts) % hosts;
            (server, self.vip(service))
        } else {
            let server = self.server_at(number, at);
            (server, self.listens(server))
        };
        (first..first + self.servers).contains(&server) && at == listens
    }

    /// The service of the server that listens there on that host.
    fn service_at(&self, mac: [u8; 6], at: SocketAddr) -> u32 {
        let number = u32::from(mac[4]) << 8 | u32::from(mac[5]);
        self.server_at(number, at) / self.servers
    }

    /// The server that listens there on the host of that number.
    fn server_at(&self, number: u32, at: SocketAddr) -> u32 {
        let ports = u32::from(at.port().wrapping_sub(SERVER_PORT));
        ports * self.hosts() + number
    }

    fn locals(&self, flows: u32) -> impl Iterator<Item = IpAddr> {
        let count = flows / (FLOWS_PER_LOCAL * self.all_servers()) + 1;
        let v6 = self.way.family.servers_are_v6();
        (1..=u16::try_from(count).unwrap_or(u16::MAX)).map(move |number| local(v6, number))
    }
}

/// Another number for each, far from those of its neighbours.
const fn scattered(number: u32) -> u32 {
    number
        .wrapping_mul(0x9e37_79b1)
        .swap_bytes()
        .wrapping_mul(0x85eb_ca6b)
}

/// A number in two halves, the upper one first.
const fn halves(number: u32) -> [u16; 2] {
    let [a, b, c, d] = number.to_be_bytes();
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

fn host(v6: bool, number: u32) -> IpAddr {
    let [_, number] = halves(number);
    match (v6, number.to_be_bytes()) {
        (false, [a, b]) => Ipv4Addr::new(10, 2, a, b).into(),
        (true, _) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 2, number).into(),
    }
}

fn host_mac(number: u32) -> [u8; 6] {
    let [.., a, b] = number.to_be_bytes();
    [2, 0, 0, 2, a, b]
}

/// One of FULLNAT's addresses.
fn local(v6: bool, number: u16) -> IpAddr {
    match (v6, number.to_be_bytes()) {
        (false, [a, b]) => Ipv4Addr::new(10, 1, a, b).into(),
        (true, _) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number).into(),
    }
}

/// The client of a flow, in RFC 2544's benchmark network or one for documentation. Flows differ for
/// numbers below 2^31.
pub(super) fn client(way: Way, flow: u32) -> SocketAddr {
    let [high, low] = halves(flow);
    let [c, d] = low.to_be_bytes();
    let address = match way.family.is_v6() {
        false => Ipv4Addr::new(198, 18, c, d).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, c.into(), d.into()).into(),
    };
    SocketAddr::new(address, CLIENT_PORT.wrapping_add(high))
}

const fn client_networks() -> [Prefix; 2] {
    [
        prefix(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15),
        prefix(
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, 0, 0)),
            48,
        ),
    ]
}

const fn prefix(address: IpAddr, length: u8) -> Prefix {
    Prefix { address, length }
}

impl Site {
    /// The director's interfaces, routes and neighbours.
    pub(super) fn setup(&self) -> Setup {
        let interface = |port, v4, v6: [u16; 3]| Interface {
            port,
            vlan: None,
            mac: director_mac(port),
            mtu: MTU,
            kernel: None,
            partial_checksums: false,
            addresses: vec![
                prefix(IpAddr::V4(v4), if port == CLIENT_SIDE { 24 } else { 8 }),
                prefix(Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, 1).into(), 64),
            ],
        };
        let routes = client_networks().into_iter().zip(ROUTER);
        let neighbour = |address, mac| StaticNeighbour { address, mac };
        let routers = ROUTER.map(|to| neighbour(to, ROUTER_MAC));
        let v6 = self.way.family.servers_are_v6();
        let hosts = (0..self.hosts()).map(|n| neighbour(host(v6, n), host_mac(n)));
        Setup {
            interfaces: vec![
                interface(
                    CLIENT_SIDE,
                    Ipv4Addr::new(192, 0, 2, 1),
                    [0x2001, 0xdb8, 0xffff],
                ),
                interface(SERVER_SIDE, Ipv4Addr::new(10, 0, 0, 1), [0xfd00, 0, 0]),
            ],
            routes: routes.map(|(to, via)| Route { to, via }).collect(),
            neighbours: routers.into_iter().chain(hosts).collect(),
        }
    }

    /// All services with their servers, and local addresses for `flows` connections if they need some.
    pub(super) fn changes(&self, flows: u32) -> Vec<Change> {
        (0..self.services)
            .flat_map(|number| self.service(number, flows))
            .collect()
    }

    fn service(&self, number: u32, flows: u32) -> Vec<Change> {
        let service = ServiceKey::at(self.way.protocol, self.vip(number));
        let mut changes = vec![Change::AddService {
            service,
            spec: ServiceSpec::new(self.scheduler.name()),
        }];
        if self.way.method == Method::Fullnat {
            let locals = self.locals(flows);
            changes.extend(locals.map(|address| Change::AddLocalAddress { service, address }));
        }
        let first = number * self.servers;
        changes.extend((first..first + self.servers).map(|server| self.add_server(server)));
        changes
    }

    fn add_server(&self, number: u32) -> Change {
        Change::AddServer {
            service: ServiceKey::at(self.way.protocol, self.vip(number / self.servers)),
            server: self.listens(number),
            spec: self.spec(1),
        }
    }

    /// Another weight for a server.
    pub(super) fn weigh(&self, number: u32, weight: u32) -> Change {
        Change::EditServer {
            service: ServiceKey::at(self.way.protocol, self.vip(number / self.servers)),
            server: self.listens(number),
            spec: self.spec(weight),
        }
    }

    fn spec(&self, weight: u32) -> ServerSpec {
        ServerSpec {
            mode: self.way.method.mode(),
            weight,
            tunnel: self.way.method.tunnel(),
            thresholds: control::Thresholds::default(),
        }
    }
}

/// What one packet says; of UDP it has no flags and no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    tuple: Tuple,
    pub(super) flags: u8,
    seq: u32,
    ack: u32,
    /// Bytes of its segment.
    pub(super) segment: usize,
    /// Who sent it last: a client's router or a server.
    mac: [u8; 6],
}

impl Message {
    /// From the client of `flow`, as the first of its connection or within it.
    pub(super) fn from_client(site: &Site, flow: u32, flags: u8, segment: usize) -> Self {
        let from = client(site.way, flow);
        let mut message = Self {
            tuple: Tuple {
                protocol: site.way.protocol.number(),
                from,
                to: site.vip(site.asked_by(flow)),
            },
            flags,
            seq: 0,
            ack: 0,
            segment,
            mac: ROUTER_MAC,
        };
        if flags & tcp_flags::SYN == 0 {
            let begun = 1 + message.said();
            (message.seq, message.ack) = (begun, begun);
        }
        message
    }

    /// How far it moves its sender's numbers.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a segment is in one packet"
    )]
    fn said(&self) -> u32 {
        if self.flags & tcp_flags::SYN != 0 {
            1
        } else {
            (self.segment - TCP_HEADER) as u32
        }
    }

    /// What the one it reached says to it.
    pub(super) fn answer(&self, flags: u8) -> Self {
        Self {
            tuple: self.tuple.reversed(),
            flags,
            seq: self.ack,
            ack: self.seq.wrapping_add(self.said()),
            segment: self.segment,
            mac: self.mac,
        }
    }

    /// Writes it as it comes to this side of the director; `false` when there is no room.
    #[must_use]
    pub(super) fn write<P: PacketBuf>(&self, packet: &mut P, side: PortId) -> bool {
        let v6 = self.tuple.from.is_ipv6();
        let l4 = ETHERNET + if v6 { V6_LEN } else { V4_LEN };
        if !packet.resize(l4 + self.segment) {
            return false;
        }
        let mac = if side == CLIENT_SIDE {
            ROUTER_MAC
        } else {
            self.mac
        };
        let frame = packet.bytes_mut();
        frame[..6].copy_from_slice(&director_mac(side));
        frame[6..12].copy_from_slice(&mac);
        let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 };
        frame[12..ETHERNET].copy_from_slice(&ethertype.to_be_bytes());
        self.write_ip(&mut frame[ETHERNET..l4]);
        self.write_segment(&mut frame[l4..]);
        true
    }

    /// Bytes of a header of so many and the segment, as they are written.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a segment is in one packet"
    )]
    fn len_behind(&self, header: usize) -> [u8; 2] {
        ((header + self.segment) as u16).to_be_bytes()
    }

    fn write_ip(&self, header: &mut [u8]) {
        let Tuple { protocol, from, to } = self.tuple;
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [high, low] = self.len_behind(V4_LEN);
                header[..8].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0]);
                header[8..12].copy_from_slice(&[TTL, protocol, 0, 0]);
                header[12..16].copy_from_slice(&from.octets());
                header[16..].copy_from_slice(&to.octets());
                let sum = checksum::ipv4_header(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [high, low] = self.len_behind(0);
                header[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, protocol, TTL]);
                header[8..24].copy_from_slice(&from.octets());
                header[24..].copy_from_slice(&to.octets());
            }
            _ => unreachable!("one packet has one family"),
        }
    }

    fn write_segment(&self, segment: &mut [u8]) {
        let Tuple { protocol, from, to } = self.tuple;
        segment.fill(0);
        segment[..2].copy_from_slice(&from.port().to_be_bytes());
        segment[2..4].copy_from_slice(&to.port().to_be_bytes());
        let at = if protocol == TCP {
            segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
            segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
            segment[12..16].copy_from_slice(&[5 << 4, self.flags, 0x10, 0]);
            16
        } else {
            segment[4..6].copy_from_slice(&self.len_behind(0));
            6
        };
        // In UDP 0 would mean none; 0xffff is the same number.
        let sum = match checksum::transport(from.ip(), to.ip(), protocol, segment) {
            0 => 0xffff,
            sum => sum,
        };
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }

    /// What a server or client reads of a packet that the director forwarded, out of its tunnel if
    /// it came in one. An error says what is wrong with it; every address and every checksum is
    /// looked at.
    pub(super) fn read<P: PacketBuf>(
        packet: &mut P,
        at: PortId,
        site: &Site,
    ) -> Result<Self, &'static str> {
        let way = site.way;
        if at == SERVER_SIDE && way.method.mode() == ForwardMode::Tunnel {
            unwrap(packet, site)?;
        }
        let frame = packet.bytes();
        let (ip, segment) = open(&frame[ETHERNET..])?;
        if ip.protocol != way.protocol.number() || segment.len() < SEGMENT_MIN {
            return Err("it is of another protocol");
        }
        if ip.ttl != TTL - 1 {
            return Err("its time to live is wrong");
        }
        if checksum::transport(ip.src, ip.dst, ip.protocol, segment) != 0 {
            return Err("a checksum is wrong");
        }
        let half = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let (flags, seq, ack) = match way.protocol {
            Protocol::Tcp => (segment[13], word(4), word(8)),
            Protocol::Udp | Protocol::Sctp => (0, 0, 0),
        };
        if flags & tcp_flags::RST != 0 {
            return Err("it resets the connection");
        }
        let mut mac = [0; 6];
        mac.copy_from_slice(&frame[..6]);
        let message = Self {
            tuple: Tuple {
                protocol: ip.protocol,
                from: SocketAddr::new(ip.src, half(0)),
                to: SocketAddr::new(ip.dst, half(2)),
            },
            flags,
            seq,
            ack,
            segment: segment.len(),
            mac,
        };
        if frame[6..12] != director_mac(at) {
            return Err("it does not come from the director");
        }
        message.check_ends(at, site)?;
        Ok(message)
    }

    fn check_ends(&self, at: PortId, site: &Site) -> Result<(), &'static str> {
        let Tuple { from, to, .. } = self.tuple;
        let is_client = |end: SocketAddr| client_networks().iter().any(|p| p.contains(end.ip()));
        if at == CLIENT_SIDE {
            return match () {
                () if !is_client(to) || self.mac != ROUTER_MAC => Err("it is not for a client"),
                () if from != site.vip(site.asked(to)) => {
                    Err("it does not come from the virtual service")
                }
                () => Ok(()),
            };
        }
        let hidden = site.way.method == Method::Fullnat;
        if hidden == is_client(from) {
            return Err("its source is wrong");
        }
        // Who is hidden may have asked any service.
        let asked = if hidden {
            site.service_at(self.mac, to)
        } else {
            site.asked(from)
        };
        if !site.is_server(asked, self.mac, to) {
            return Err("it is not for a server");
        }
        Ok(())
    }
}

/// Whether the director says it of itself: that it has an address.
pub(super) fn is_announcement(frame: &[u8]) -> bool {
    let ethertype = frame.get(12..ETHERNET);
    ethertype == Some(&ethernet::ARP.to_be_bytes())
        || ethertype == Some(&ethernet::IPV6.to_be_bytes())
            && frame.get(ETHERNET + 6) == Some(&ICMPV6)
}

/// The header of an IP packet that fills its frame, and what is behind it.
fn open(packet: &[u8]) -> Result<(Ip, &[u8]), &'static str> {
    let ip = Ip::parse(packet).map_err(|_| "it is no IP packet")?;
    if ip.total_len != packet.len() {
        return Err("its length is wrong");
    }
    if ip.src.is_ipv4() && checksum::ipv4_header(&packet[..ip.payload]) != 0 {
        return Err("a checksum is wrong");
    }
    Ok((ip, &packet[ip.payload..]))
}

/// Takes a packet out of its tunnel, as a server does.
fn unwrap<P: PacketBuf>(packet: &mut P, site: &Site) -> Result<(), &'static str> {
    let way = site.way;
    let frame = packet.bytes();
    let (ip, rest) = open(&frame[ETHERNET..])?;
    let number = u32::from(frame[4]) << 8 | u32::from(frame[5]);
    if ip.dst != host(way.family.servers_are_v6(), number) {
        return Err("its tunnel does not end at the server it was sent to");
    }
    let v6 = way.family.is_v6();
    let ethertype = if v6 { ethernet::IPV6 } else { ethernet::IPV4 }.to_be_bytes();
    let protocol = if v6 { 41 } else { 4 };
    let gue = GUE_PORT.to_be_bytes();
    let head = match (way.method, ip.protocol, rest) {
        (Method::Ipip, inner, _) if inner == protocol => 0,
        (Method::Gre, 47, [0, 0, a, b, ..]) if [*a, *b] == ethertype => 4,
        (Method::Gue, UDP, [_, _, a, b, _, _, 0, 0, 0, inner, 0, 0, ..])
            if [*a, *b] == gue && *inner == protocol =>
        {
            12
        }
        _ => return Err("it is in another tunnel"),
    };
    let mut link = [0; ETHERNET];
    link.copy_from_slice(&frame[..ETHERNET]);
    link[12..].copy_from_slice(&ethertype);
    packet.trim_front(ip.payload + head);
    packet.bytes_mut()[..ETHERNET].copy_from_slice(&link);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::way::Family;
    use super::*;
    use crate::packet::HeapBuf;
    use crate::wire::flow::Seen;

    fn sites() -> impl Iterator<Item = Site> {
        [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|family| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| {
                Site::of(Way {
                    method: Method::Nat,
                    family,
                    protocol,
                })
            })
        })
    }

    #[test]
    fn frames_are_what_the_director_reads() {
        for site in sites() {
            let mut packet = HeapBuf::new(&[]);
            let message = Message::from_client(&site, 0x0001_0203, tcp_flags::ACK, 500);
            assert!(message.write(&mut packet, CLIENT_SIDE));
            let frame = packet.bytes();
            let seen = Seen::parse(frame).unwrap();
            let tuple = seen.tuple(frame);
            assert_eq!(tuple, message.tuple);
            let (ip, segment) = open(&frame[ETHERNET..]).unwrap();
            assert_eq!(
                checksum::transport(ip.src, ip.dst, ip.protocol, segment),
                0,
                "{site:?}"
            );
        }
    }

    #[test]
    fn a_frame_that_was_not_translated_is_noticed() {
        for site in sites() {
            let asks = Message::from_client(&site, 7, 0, SEGMENT_MIN);
            let to_server = Message {
                tuple: Tuple {
                    to: site.listens(3),
                    ..asks.tuple
                },
                ..asks
            };
            let arrival = |change: fn(&mut [u8])| {
                let mut packet = HeapBuf::new(&[]);
                assert!(to_server.write(&mut packet, SERVER_SIDE));
                let frame = packet.bytes_mut();
                frame[..6].copy_from_slice(&host_mac(3));
                frame[6..12].copy_from_slice(&director_mac(SERVER_SIDE));
                if site.way.family.is_v6() {
                    frame[ETHERNET + 7] -= 1;
                } else {
                    frame[ETHERNET + 8] -= 1;
                    frame[24] = frame[24].wrapping_add(1);
                }
                change(frame);
                Message::read(&mut packet, SERVER_SIDE, &site)
            };
            let read = arrival(|_| ()).unwrap();
            assert_eq!(read.answer(0).tuple, to_server.tuple.reversed());
            let wrong = [
                (arrival(|f| f[5] = 4), "it is not for a server"),
                (
                    arrival(|f| f[11] ^= 1),
                    "it does not come from the director",
                ),
                (arrival(|f| f[f.len() - 1] ^= 1), "a checksum is wrong"),
                (arrival(|f| f[14] ^= 0x10), "it is no IP packet"),
            ];
            for (result, expected) in wrong {
                assert_eq!(result, Err(expected), "{site:?}");
            }
        }
    }
}

//! The small network that the generator plays: a router with all clients behind it on one port,
//! real servers on the other. Segments of 26 bytes, in frames of 60 bytes over IPv4 and 80 over
//! IPv6, written and checked byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use control::{ForwardMode, Protocol, ServiceKey};

use super::way::{GUE_PORT, Method, Way};
use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::{PacketBuf, PortId};
use crate::sched;
use crate::update::{LocalAddress, Policy, ServerId, ServiceId, Update};
use crate::wire::flow::{ETHERNET, ICMPV6, TCP, Tuple, UDP, tcp_flags};
use crate::wire::ip::{Ip, V4_LEN, V6_LEN};
use crate::wire::{checksum, ethernet};

/// Clients send to this port of the director, servers to that one.
pub(super) const CLIENT_SIDE: PortId = PortId(0);
pub(super) const SERVER_SIDE: PortId = PortId(1);

pub(super) const SERVERS: u8 = 16;
const MTU: u16 = 1500;
const VIP_PORT: u16 = 80;
const SERVER_PORT: u16 = 8080;
const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfe)),
];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// Bytes of a segment over either family; over IPv4 its frame is a shortest one.
const SEGMENT_LEN: u8 = 26;
const SEGMENT: usize = SEGMENT_LEN as usize;
const _: () = assert!(ETHERNET + V4_LEN + SEGMENT == ethernet::FRAME_MIN);
/// Behind the TCP header.
const DATA: u32 = 6;
const TTL: u8 = 64;
/// Flows that each of FULLNAT's local addresses has ports for toward one server, and some more.
const FLOWS_PER_LOCAL: u32 = 50_000;

const fn director_mac(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 0, port.0]
}

const fn server_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 2, number]
}

fn server(v6: bool, number: u8) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(10, 0, 0, 10 + number).into(),
        true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 10 + u16::from(number)).into(),
    }
}

/// One of FULLNAT's addresses.
fn local(v6: bool, number: u16) -> IpAddr {
    match (v6, number.to_be_bytes()) {
        (false, [a, b]) => Ipv4Addr::new(10, 1, a, b).into(),
        (true, _) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number).into(),
    }
}

fn locals(way: Way, flows: u32) -> impl Iterator<Item = IpAddr> {
    let count = flows / (FLOWS_PER_LOCAL * u32::from(SERVERS)) + 1;
    (1..=u16::try_from(count).unwrap_or(u16::MAX))
        .map(move |number| local(way.family.servers_are_v6(), number))
}

fn vip(way: Way) -> SocketAddr {
    let address = match way.family.is_v6() {
        false => Ipv4Addr::new(203, 0, 113, 1).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    };
    SocketAddr::new(address, VIP_PORT)
}

/// The client of a flow, in RFC 2544's benchmark network or one for documentation. Flows differ for
/// numbers below 2^32.
fn client(way: Way, flow: u32) -> SocketAddr {
    let [a, b, c, d] = flow.to_be_bytes();
    let port = 1024 + u16::from_be_bytes([a, b]);
    let address = match way.family.is_v6() {
        false => Ipv4Addr::new(198, 18, c, d).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, c.into(), d.into()).into(),
    };
    SocketAddr::new(address, port)
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

/// The director's interfaces, routes and neighbours.
pub(super) fn setup() -> Setup {
    let interface = |port, v4, v6: [u16; 3]| Interface {
        port,
        vlan: None,
        mac: director_mac(port),
        mtu: MTU,
        partial_checksums: false,
        addresses: vec![
            prefix(IpAddr::V4(v4), if port == CLIENT_SIDE { 24 } else { 8 }),
            prefix(Ipv6Addr::new(v6[0], v6[1], v6[2], 0, 0, 0, 0, 1).into(), 64),
        ],
    };
    let routes = client_networks().into_iter().zip(ROUTER);
    let neighbour = |address, mac| StaticNeighbour { address, mac };
    let mut neighbours: Vec<_> = ROUTER.map(|to| neighbour(to, ROUTER_MAC)).into();
    for number in 0..SERVERS {
        let both = [false, true].map(|v6| neighbour(server(v6, number), server_mac(number)));
        neighbours.extend(both);
    }
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
        neighbours,
    }
}

/// One service with all servers, and local addresses for `flows` connections if it needs some.
pub(super) fn updates(way: Way, flows: u32) -> Vec<Update> {
    let id = ServiceId(0);
    let mut updates = vec![Update::AddService {
        id,
        key: ServiceKey::at(way.protocol, vip(way)),
        policy: Policy::of(sched::Kind::Rr),
    }];
    if way.method == Method::Fullnat {
        updates.push(Update::SetLocalAddresses {
            id,
            addresses: locals(way, flows)
                .map(|address| LocalAddress::new(address, 1))
                .collect(),
        });
    }
    updates.extend((0..SERVERS).map(|number| Update::AddServer {
        service: id,
        id: ServerId(number.into()),
        address: listens(way, number),
        mode: way.method.mode(),
        tunnel: way.method.tunnel(),
        weight: 1,
        thresholds: control::Thresholds::default(),
    }));
    updates
}

/// Where a server listens.
fn listens(way: Way, number: u8) -> SocketAddr {
    let port = if way.method.is_one_way() {
        VIP_PORT
    } else {
        SERVER_PORT
    };
    SocketAddr::new(server(way.family.servers_are_v6(), number), port)
}

/// What one packet says; of UDP it has no flags and no numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    tuple: Tuple,
    pub(super) flags: u8,
    seq: u32,
    ack: u32,
    /// Who sent it last: a client's router or a server.
    mac: [u8; 6],
}

impl Message {
    /// From the client of `flow`, as the first of its connection or within it.
    pub(super) fn from_client(way: Way, flow: u32, flags: u8) -> Self {
        let begun = if flags & tcp_flags::SYN != 0 {
            0
        } else {
            1 + DATA
        };
        Self {
            tuple: Tuple {
                protocol: way.protocol.number(),
                from: client(way, flow),
                to: vip(way),
            },
            flags,
            seq: begun,
            ack: begun,
            mac: ROUTER_MAC,
        }
    }

    /// What the one it reached says to it.
    pub(super) fn answer(&self, flags: u8) -> Self {
        let said = if self.flags & tcp_flags::SYN != 0 {
            1
        } else {
            DATA
        };
        Self {
            tuple: self.tuple.reversed(),
            flags,
            seq: self.ack,
            ack: self.seq.wrapping_add(said),
            mac: self.mac,
        }
    }

    /// Writes it as it comes to this side of the director; `false` when there is no room.
    #[must_use]
    pub(super) fn write<P: PacketBuf>(&self, packet: &mut P, side: PortId) -> bool {
        let v6 = self.tuple.from.is_ipv6();
        let l4 = ETHERNET + if v6 { V6_LEN } else { V4_LEN };
        if !packet.resize(l4 + SEGMENT) {
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

    fn write_ip(&self, header: &mut [u8]) {
        let Tuple { protocol, from, to } = self.tuple;
        match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [_, total] = (20 + u16::from(SEGMENT_LEN)).to_be_bytes();
                header[..8].copy_from_slice(&[0x45, 0, 0, total, 0, 0, 0x40, 0]);
                header[8..12].copy_from_slice(&[TTL, protocol, 0, 0]);
                header[12..16].copy_from_slice(&from.octets());
                header[16..].copy_from_slice(&to.octets());
                let sum = checksum::ipv4_header(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, SEGMENT_LEN, protocol, TTL]);
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
            segment[4..6].copy_from_slice(&[0, SEGMENT_LEN]);
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
        way: Way,
    ) -> Result<Self, &'static str> {
        if at == SERVER_SIDE && way.method.mode() == ForwardMode::Tunnel {
            unwrap(packet, way)?;
        }
        let frame = packet.bytes();
        let (ip, segment) = open(&frame[ETHERNET..])?;
        if ip.protocol != way.protocol.number() || segment.len() < SEGMENT {
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
            mac,
        };
        if frame[6..12] != director_mac(at) {
            return Err("it does not come from the director");
        }
        message.check_ends(at, way)?;
        Ok(message)
    }

    fn check_ends(&self, at: PortId, way: Way) -> Result<(), &'static str> {
        let Tuple { from, to, .. } = self.tuple;
        let is_client = |end: SocketAddr| client_networks().iter().any(|p| p.contains(end.ip()));
        if at == CLIENT_SIDE {
            return match () {
                () if from != vip(way) => Err("it does not come from the virtual service"),
                () if !is_client(to) || self.mac != ROUTER_MAC => Err("it is not for a client"),
                () => Ok(()),
            };
        }
        let number = self.mac[5];
        let listens = if way.method.is_one_way() {
            vip(way)
        } else {
            listens(way, number)
        };
        if number >= SERVERS || self.mac != server_mac(number) || to != listens {
            return Err("it is not for a server");
        }
        let hidden = way.method == Method::Fullnat;
        if hidden == is_client(from) {
            return Err("its source is wrong");
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
fn unwrap<P: PacketBuf>(packet: &mut P, way: Way) -> Result<(), &'static str> {
    let frame = packet.bytes();
    let (ip, rest) = open(&frame[ETHERNET..])?;
    let number = frame[5];
    if number >= SERVERS || ip.dst != listens(way, number).ip() {
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

    fn ways() -> impl Iterator<Item = Way> {
        [Family::Ipv4, Family::Ipv6].into_iter().flat_map(|family| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Way {
                method: Method::Nat,
                family,
                protocol,
            })
        })
    }

    #[test]
    fn frames_are_what_the_director_reads() {
        for way in ways() {
            let mut packet = HeapBuf::new(&[]);
            let message = Message::from_client(way, 0x0001_0203, tcp_flags::ACK);
            assert!(message.write(&mut packet, CLIENT_SIDE));
            let frame = packet.bytes();
            let seen = Seen::parse(frame).unwrap();
            let tuple = seen.tuple(frame);
            assert_eq!(tuple, message.tuple);
            let (ip, segment) = open(&frame[ETHERNET..]).unwrap();
            assert_eq!(
                checksum::transport(ip.src, ip.dst, ip.protocol, segment),
                0,
                "{way}"
            );
        }
    }

    #[test]
    fn a_frame_that_was_not_translated_is_noticed() {
        for way in ways() {
            let to_server = Message {
                tuple: Tuple {
                    to: listens(way, 3),
                    ..Message::from_client(way, 7, 0).tuple
                },
                ..Message::from_client(way, 7, 0)
            };
            let arrival = |change: fn(&mut [u8])| {
                let mut packet = HeapBuf::new(&[]);
                assert!(to_server.write(&mut packet, SERVER_SIDE));
                let frame = packet.bytes_mut();
                frame[..6].copy_from_slice(&server_mac(3));
                frame[6..12].copy_from_slice(&director_mac(SERVER_SIDE));
                if way.family.is_v6() {
                    frame[ETHERNET + 7] -= 1;
                } else {
                    frame[ETHERNET + 8] -= 1;
                    frame[24] = frame[24].wrapping_add(1);
                }
                change(frame);
                Message::read(&mut packet, SERVER_SIDE, way)
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
                assert_eq!(result, Err(expected), "{way}");
            }
        }
    }
}

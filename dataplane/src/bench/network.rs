//! The small network that the generator plays: a router with all clients behind it on one port,
//! real servers on the other; 60-byte frames, written and checked byte by byte.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use control::{ForwardMode, Protocol, ServiceKey};

use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::PortId;
use crate::sched;
use crate::update::{ServerId, ServiceId, Update};
use crate::wire::flow::{ETHERNET, TCP, tcp_flags};
use crate::wire::{checksum, ethernet};

/// Clients send to this port of the director, servers to that one.
pub(super) const CLIENT_SIDE: PortId = PortId(0);
pub(super) const SERVER_SIDE: PortId = PortId(1);

pub(super) const SERVERS: u8 = 16;
const MTU: u16 = 1500;
const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 80);
const SERVER_PORT: u16 = 8080;
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 0];

/// Without frame check sequence.
pub(super) const FRAME: usize = ethernet::FRAME_MIN;
const IP_LEN: u8 = 46;
const TTL: u8 = 64;
const L4: usize = ETHERNET + 20;

pub(super) type Frame = [u8; FRAME];

const fn director_mac(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 0, port.0]
}

/// The Ethernet address of the server with this address.
pub(super) const fn server_mac(address: [u8; 4]) -> [u8; 6] {
    [2, 0, 0, 0, 2, address[3]]
}

const fn server(number: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 10 + number), SERVER_PORT)
}

/// The client of a flow, in RFC 2544's benchmark network. Flows differ for numbers below 2^32.
const fn client(flow: u32) -> SocketAddrV4 {
    let [a, b, c, d] = flow.to_be_bytes();
    let port = 1024 + u16::from_be_bytes([a, b]);
    SocketAddrV4::new(Ipv4Addr::new(198, 18, c, d), port)
}

/// The director's interfaces and routes. The router is known, servers are asked for.
pub(super) fn setup() -> Setup {
    let interface = |port, address, length| Interface {
        port,
        vlan: None,
        mac: director_mac(port),
        mtu: MTU,
        addresses: vec![Prefix {
            address: IpAddr::V4(address),
            length,
        }],
    };
    Setup {
        partial_checksums: Vec::new(),
        interfaces: vec![
            interface(CLIENT_SIDE, Ipv4Addr::new(192, 0, 2, 1), 24),
            interface(SERVER_SIDE, Ipv4Addr::new(10, 0, 0, 1), 24),
        ],
        routes: vec![Route {
            to: Prefix {
                address: IpAddr::from([198, 18, 0, 0]),
                length: 15,
            },
            via: ROUTER.into(),
        }],
        neighbours: vec![StaticNeighbour {
            address: ROUTER.into(),
            mac: ROUTER_MAC,
        }],
    }
}

/// One NAT service of `protocol` with all servers.
pub(super) fn updates(protocol: Protocol) -> Vec<Update> {
    let service = Update::AddService {
        id: ServiceId(0),
        key: ServiceKey {
            protocol,
            address: SocketAddr::V4(VIP),
        },
        scheduler: sched::Kind::Rr,
        flags: control::SchedulerFlags::default(),
    };
    let servers = (0..SERVERS).map(|number| Update::AddServer {
        service: ServiceId(0),
        id: ServerId(u32::from(number)),
        address: SocketAddr::V4(server(number)),
        mode: ForwardMode::Nat,
        tunnel: control::Tunnel::default(),
        weight: 1,
        thresholds: control::Thresholds::default(),
    });
    std::iter::once(service).chain(servers).collect()
}

/// What the client of `flow` sends to the virtual service: with `flags` if it is TCP.
pub(super) fn client_frame(protocol: Protocol, flow: u32, flags: u8) -> Frame {
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&director_mac(CLIENT_SIDE));
    frame[6..12].copy_from_slice(&ROUTER_MAC);
    frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    frame[ETHERNET..L4].copy_from_slice(&[
        0x45,
        0,
        0,
        IP_LEN,
        0,
        0,
        0x40,
        0,
        TTL,
        protocol.number(),
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    let (from, to) = (client(flow), VIP);
    frame[26..30].copy_from_slice(&from.ip().octets());
    frame[30..34].copy_from_slice(&to.ip().octets());
    frame[34..36].copy_from_slice(&from.port().to_be_bytes());
    frame[36..38].copy_from_slice(&to.port().to_be_bytes());
    match protocol {
        Protocol::Tcp => frame[46..50].copy_from_slice(&[5 << 4, flags, 0x10, 0]),
        Protocol::Udp | Protocol::Sctp => frame[38..40].copy_from_slice(&[0, IP_LEN - 20]),
    }
    fill_checksums(&mut frame);
    frame
}

/// Makes of a packet that arrived at a server or client what that one sends back, in place.
pub(super) fn turn_round(frame: &mut Frame, from: PortId, flags: u8) {
    let [a, b, c, d, e, f, ..] = *frame;
    frame[..6].copy_from_slice(&director_mac(from));
    frame[6..12].copy_from_slice(&[a, b, c, d, e, f]);
    frame[22] = TTL;
    frame[26..34].rotate_left(4);
    frame[34..38].rotate_left(2);
    if frame[23] == TCP {
        frame[47] = flags;
    }
    fill_checksums(frame);
}

fn fill_checksums(frame: &mut Frame) {
    frame[24..26].fill(0);
    let header = checksum::ipv4_header(&frame[ETHERNET..L4]);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let at = if frame[23] == TCP { 50 } else { 40 };
    frame[at..at + 2].fill(0);
    // In UDP 0 would mean none; 0xffff is the same number.
    let segment = match transport_checksum(frame) {
        0 => 0xffff,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&segment.to_be_bytes());
}

fn transport_checksum(frame: &Frame) -> u16 {
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    checksum::transport_v4(address(26), address(30), frame[23], &frame[L4..])
}

/// What a server or client sees of a packet that the director forwarded: its TCP flags, 0 in UDP.
/// An error says what is wrong with it; every address and every checksum is looked at.
pub(super) fn arrived(frame: &[u8], at: PortId, protocol: Protocol) -> Result<u8, &'static str> {
    let frame: &Frame = frame.try_into().map_err(|_| "its length changed")?;
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if port(12) != ethernet::IPV4 || frame[ETHERNET] != 0x45 || frame[23] != protocol.number() {
        return Err("it is of another protocol");
    }
    let station = if at == SERVER_SIDE {
        let address = [frame[30], frame[31], frame[32], frame[33]];
        if !(0..SERVERS).any(|n| server(n) == SocketAddrV4::new(address.into(), port(36))) {
            return Err("it is not for a server");
        }
        server_mac(address)
    } else {
        if SocketAddrV4::new(
            [frame[26], frame[27], frame[28], frame[29]].into(),
            port(34),
        ) != VIP
        {
            return Err("it does not come from the virtual service");
        }
        ROUTER_MAC
    };
    if frame[..6] != station || frame[6..12] != director_mac(at) {
        return Err("its Ethernet addresses are wrong");
    }
    if frame[22] != TTL - 1 {
        return Err("its time to live is wrong");
    }
    if checksum::ipv4_header(&frame[ETHERNET..L4]) != 0 || transport_checksum(frame) != 0 {
        return Err("a checksum is wrong");
    }
    let flags = if frame[23] == TCP { frame[47] } else { 0 };
    if flags & tcp_flags::RST != 0 {
        return Err("it resets the connection");
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::flow::Seen;

    #[test]
    fn frames_are_what_the_director_reads() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let frame = client_frame(protocol, 0x0001_0203, tcp_flags::ACK);
            let seen = Seen::parse(&frame).unwrap();
            let tuple = seen.tuple(&frame);
            assert_eq!(tuple.from, "198.18.2.3:1025".parse().unwrap());
            assert_eq!(tuple.to, VIP.into());
            assert_eq!(seen.ip_len, 46);
            assert_eq!(checksum::ipv4_header(&frame[14..34]), 0);
            assert_eq!(transport_checksum(&frame), 0);
        }
    }

    #[test]
    fn a_frame_that_was_not_translated_is_noticed() {
        let mut frame = client_frame(Protocol::Udp, 7, 0);
        assert_eq!(
            arrived(&frame, SERVER_SIDE, Protocol::Udp),
            Err("it is not for a server")
        );
        frame[30..34].copy_from_slice(&server(3).ip().octets());
        frame[36..38].copy_from_slice(&SERVER_PORT.to_be_bytes());
        frame[..6].copy_from_slice(&server_mac(server(3).ip().octets()));
        frame[6..12].copy_from_slice(&director_mac(SERVER_SIDE));
        frame[22] -= 1;
        assert_eq!(
            arrived(&frame, SERVER_SIDE, Protocol::Udp),
            Err("a checksum is wrong")
        );
        fill_checksums(&mut frame);
        assert_eq!(arrived(&frame, SERVER_SIDE, Protocol::Udp), Ok(0));

        turn_round(&mut frame, SERVER_SIDE, 0);
        let seen = Seen::parse(&frame).unwrap();
        let tuple = seen.tuple(&frame);
        assert_eq!((tuple.from, tuple.to), (server(3).into(), client(7).into()));
    }
}

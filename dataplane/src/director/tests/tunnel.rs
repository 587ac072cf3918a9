//! Tunnels: what goes into them, what does not fit, and what is said about them.

use control::{Settings, Tunnel, TunnelChecksum, TunnelKind};

use super::*;
use crate::update::{ServerId, ServiceId};

const GUE_PORT: u16 = 6080;

fn spec(kind: TunnelKind, checksum: TunnelChecksum) -> Tunnel {
    let port = if kind == TunnelKind::Gue { GUE_PORT } else { 0 };
    Tunnel {
        kind,
        port,
        checksum,
    }
}

/// With its overhead over IPv4.
fn specs() -> [(Tunnel, usize); 5] {
    use TunnelChecksum::{Full, None};
    use TunnelKind::{Gre, Gue, Ipip};
    [
        (spec(Ipip, None), 20),
        (spec(Gre, None), 24),
        (spec(Gre, Full), 28),
        (spec(Gue, None), 32),
        (spec(Gue, Full), 32),
    ]
}

fn ipip() -> Tunnel {
    Tunnel::default()
}

fn edit(tunnel: Tunnel, weight: u32) -> Update {
    Update::EditServer {
        id: ServerId(0),
        mode: ForwardMode::Tunnel,
        tunnel,
        weight,
        thresholds: control::Thresholds::default(),
    }
}

/// Service 0 with one server behind a tunnel.
fn bed(tunnel: Tunnel, protocol: Protocol, vip: &str, server: &str) -> Testbed {
    let mut t = Testbed::new(100, setup(true));
    t.add_service(0, protocol, vip);
    t.apply(Update::AddServer {
        service: ServiceId(0),
        id: ServerId(0),
        address: server.parse().unwrap(),
        mode: ForwardMode::Tunnel,
        tunnel,
        weight: 1,
        thresholds: control::Thresholds::default(),
    });
    t
}

/// The packet inside the tunnel: `inner` as it is, in what goes to the server. `id` is taken where
/// the outer packet may be cut.
fn wrapped(tunnel: Tunnel, server: &str, inner: &Frame, id: u16) -> Frame {
    let server = super::super::frames::address(server).ip();
    let us = if server.is_ipv6() {
        "2001:db8:1::fe"
    } else {
        "10.1.0.254"
    };
    let ip = inner.ip();
    let (protocol, ethertype): (u8, [u8; 2]) = match inner.is_v6() {
        true => (41, [0x86, 0xdd]),
        false => (4, [0x08, 0x00]),
    };
    let full = tunnel.checksum == TunnelChecksum::Full;
    let outer = match tunnel.kind {
        TunnelKind::Ipip => other_ip(us, &server.to_string(), protocol, &ip),
        TunnelKind::Gre => {
            let mut gre = vec![if full { 0x80 } else { 0 }, 0];
            gre.extend(ethertype);
            if full {
                gre.extend([0; 4]);
                let sum = checksum(&[&gre[..], &ip].concat());
                gre[4..6].copy_from_slice(&sum.to_be_bytes());
            }
            gre.extend(ip);
            other_ip(us, &server.to_string(), 47, &gre)
        }
        TunnelKind::Gue => {
            let from = std::net::SocketAddr::new(us.parse().unwrap(), source_port(tunnel, inner));
            let to = std::net::SocketAddr::new(server, GUE_PORT);
            let gue = [&[0, protocol, 0, 0], &ip[..]].concat();
            let outer = udp(&from.to_string(), &to.to_string(), &gue);
            if full {
                outer
            } else {
                outer.without_checksum()
            }
        }
    };
    let tos = if inner.tos & 3 == 3 {
        inner.tos ^ 1
    } else {
        inner.tos
    };
    let outer = outer.ttl(inner.ttl).tos(tos);
    if !inner.is_v6() && inner.fragment & DONT_FRAGMENT != 0 {
        outer.id(0).fragment(DONT_FRAGMENT)
    } else {
        outer.id(id)
    }
}

/// GUE's source port is a hash of ours: `crate::tunnel` has the tests of it.
fn source_port(tunnel: Tunnel, inner: &Frame) -> u16 {
    let any = "10.1.0.1".parse().unwrap();
    let tunnel = crate::tunnel::Tunnel::new(tunnel, any, any).unwrap();
    let bytes = inner.bytes();
    let mut packet = HeapBuf::new(&bytes);
    let len = u16::try_from(bytes.len() - 14).unwrap();
    assert!(tunnel.encapsulate(&mut packet, 14, len, 1, true));
    let port = u16::from_be_bytes(*packet.bytes()[34..].first_chunk().unwrap());
    assert!((32_768..61_000).contains(&port));
    port
}

/// The id that the next packet gets.
fn next_id(t: &Testbed) -> u16 {
    t.director.ip_id + 1
}

/// A packet and how it leaves.
#[track_caller]
fn goes(t: &mut Testbed, ms: u32, tunnel: Tunnel, server: &'static str, packet: Frame) {
    let outer = wrapped(tunnel, server, &packet.clone().hop(), next_id(t));
    t.check(ms, packet, To(server, vec![outer]));
}

#[test]
fn every_tunnel_over_and_with_both_families() {
    for (tunnel, _) in specs() {
        for (client, vip) in [(C, VIP), (C6, VIP6)] {
            for server in [RS, RS6] {
                let mut t = bed(tunnel, Tcp, vip, server);
                goes(&mut t, 0, tunnel, server, tcp(client, vip, "S"));
                let data = |tos| tcp(client, vip, "PA").data(b"odd").tos(tos);
                for (ms, tos) in [(1, 0xb9), (2, 0x02), (3, 0x03)] {
                    goes(&mut t, ms, tunnel, server, data(tos).ttl(9));
                }
                let whole = data(0).fragment(DONT_FRAGMENT).id(0);
                goes(&mut t, 4, tunnel, server, whole);
                assert_eq!(t.load(0), (1, 0), "one side is enough");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_said() {
    for (tunnel, over_v4) in specs() {
        for (server, overhead) in [(RS, over_v4), (RS6, over_v4 + 20)] {
            let room = 1500 - overhead;
            let mtu = u16::try_from(room).unwrap();
            let mut t = bed(tunnel, Udp, VIP, server);
            let packet = |len: usize| udp(C, VIP, &vec![1; len - 28]).fragment(DONT_FRAGMENT);
            goes(&mut t, 0, tunnel, server, packet(room));
            for ms in 1..3 {
                let told = error(VIP_IP, 3, 4, mtu, &packet(room + 1));
                t.check(ms, packet(room + 1), Refuse(DropReason::TooBig, told));
            }
            goes(&mut t, 3, tunnel, server, packet(room));
            let mut t = bed(tunnel, Udp, VIP6, server);
            let packet = |len: usize| udp(C6, VIP6, &vec![1; len - 48]);
            goes(&mut t, 0, tunnel, server, packet(room));
            for ms in 1..3 {
                let told = error(VIP6_IP, 2, 0, mtu, &packet(room + 1));
                t.check(ms, packet(room + 1), Refuse(DropReason::TooBig, told));
            }
        }
    }
}

#[test]
fn what_may_be_cut_is_cut_around_the_tunnel_or_inside() {
    for (tunnel, over_v4) in specs() {
        let long = || udp(C, VIP, &[1; 1472]);
        let mut t = bed(tunnel, Udp, VIP, RS);
        for ms in 0..2 {
            let outer = wrapped(tunnel, RS, &long().hop(), next_id(&t));
            t.check(ms, long(), To(RS, outer.pieces(1480)));
        }
        let mut t = bed(tunnel, Udp, VIP, RS6);
        for ms in 0..2 {
            let pieces = long().hop().pieces((1500 - over_v4 - 20 - 20) & !7);
            let wrap = |piece| wrapped(tunnel, RS6, piece, 0x1234);
            t.check(ms, long(), To(RS6, pieces.iter().map(wrap).collect()));
        }
    }
}

#[test]
fn without_path_mtu_discovery_everything_may_be_cut() {
    let mut t = bed(ipip(), Udp, VIP, RS);
    t.apply(Update::SetSettings(Settings {
        pmtu_disc: false,
        ..Settings::default()
    }));
    let long = udp(C, VIP, &[1; 1472]).fragment(DONT_FRAGMENT);
    for ms in 0..2 {
        let outer = wrapped(ipip(), RS, &long.clone().hop(), 0);
        let outer = outer.fragment(0).id(next_id(&t));
        t.check(ms, long.clone(), To(RS, outer.pieces(1480)));
    }
}

/// A router on the way to the server says that our packet was too long; the client is told.
#[test]
fn routers_in_the_tunnel_are_heard() {
    for (tunnel, over) in specs() {
        let mut t = bed(tunnel, Udp, VIP, RS);
        let packet = |len: usize| udp(C, VIP, &vec![1; len - 28]).fragment(DONT_FRAGMENT);
        let outer = wrapped(tunnel, RS, &packet(1460).hop(), 0);
        t.check(0, packet(1460), To(RS, vec![outer.clone()]));
        let quote: Vec<u8> = outer.ip().into_iter().take(200).collect();
        let says = told("10.1.0.2", "10.1.0.254", 3, 4, 1400, &quote);
        let room = 1400 - u16::try_from(over).unwrap();
        let answer = ours(told(VIP_IP, C_IP, 3, 4, room, &quote[over..]).tos(0xc0));
        t.check(1, says.clone(), Tell(answer));
        let big = || packet(usize::from(room) + 1);
        let refused =
            |packet: &Frame| Refuse(DropReason::TooBig, error(VIP_IP, 3, 4, room, packet));
        t.check(2, big(), refused(&big()));
        goes(&mut t, 3, tunnel, RS, packet(room.into()));
        t.check(299_000, big(), refused(&big()));
        t.check(590_000, big(), refused(&big()));
        goes(&mut t, 601_002, tunnel, RS, big());
        goes(&mut t, 601_003, tunnel, RS, big());
    }
}

#[test]
fn routers_on_an_ipv6_way_are_heard() {
    for (client, client_ip, vip, vip_ip, kind, code) in [
        (C, C_IP, VIP, VIP_IP, 3, 4),
        (C6, C6_IP, VIP6, VIP6_IP, 2, 0),
    ] {
        let mut t = bed(ipip(), Udp, vip, RS6);
        let header = if vip == VIP { 28 } else { 48 };
        let packet = |len: usize| udp(client, vip, &vec![1; len - header]).fragment(DONT_FRAGMENT);
        let outer = wrapped(ipip(), RS6, &packet(1450).hop(), 0);
        t.check(0, packet(1450), To(RS6, vec![outer.clone()]));
        let quote: Vec<u8> = outer.ip().into_iter().take(200).collect();
        let says = told("2001:db8:1::2", "2001:db8:1::fe", 2, 0, 1400, &quote);
        let answer = ours(told(vip_ip, client_ip, kind, code, 1360, &quote[40..]));
        let answer = if vip == VIP { answer.tos(0xc0) } else { answer };
        t.check(1, says, Tell(answer));
        let refusal = error(vip_ip, kind, code, 1360, &packet(1361));
        t.check(2, packet(1361), Refuse(DropReason::TooBig, refusal));
        goes(&mut t, 3, ipip(), RS6, packet(1360));
    }
}

/// A packet that may be cut is: its sender need not know.
#[test]
fn a_router_that_speaks_of_what_may_be_cut_is_believed_in_silence() {
    let mut t = bed(ipip(), Udp, VIP, RS);
    let packet = || udp(C, VIP, &[1; 1400]);
    let id = next_id(&t);
    goes(&mut t, 0, ipip(), RS, packet());
    let outer = wrapped(ipip(), RS, &packet().hop(), id);
    let quote: Vec<u8> = outer.ip().into_iter().take(200).collect();
    let says = told("10.1.0.2", "10.1.0.254", 3, 4, 1400, &quote);
    t.check(1, says, Consume);
    let whole = packet().fragment(DONT_FRAGMENT);
    let refusal = error(VIP_IP, 3, 4, 1380, &whole);
    t.check(2, whole, Refuse(DropReason::TooBig, refusal));
}

#[test]
fn other_errors_in_the_tunnel_are_passed_on() {
    for (vip, client, client_ip, vip_ip, kind, code) in [
        (VIP, C, C_IP, VIP_IP, 3, 1),
        (VIP6, C6, C6_IP, VIP6_IP, 1, 0),
    ] {
        let mut t = bed(ipip(), Tcp, vip, RS);
        let syn = tcp(client, vip, "S");
        let outer = wrapped(ipip(), RS, &syn.clone().hop(), next_id(&t)).ip();
        goes(&mut t, 0, ipip(), RS, syn);
        let says = told("10.1.0.2", "10.1.0.254", 3, 1, 0, &outer);
        let answer = ours(told(vip_ip, client_ip, kind, code, 0, &outer[20..]));
        let answer = if answer.is_v6() {
            answer
        } else {
            answer.tos(0xc0)
        };
        t.check(1, says, Tell(answer));
        // Not about a tunnel that we have.
        let mut strange = outer.clone();
        strange[16..20].copy_from_slice(&[10, 1, 0, 77]);
        strange[10..12].fill(0);
        let sum = checksum(&strange[..20]);
        strange[10..12].copy_from_slice(&sum.to_be_bytes());
        let says = told("10.1.0.2", "10.1.0.254", 3, 1, 0, &strange);
        t.check(2, says, Drop(DropReason::NotOurs));
    }
}

#[test]
fn new_tunnel_options_hold_for_existing_connections() {
    let mut t = bed(ipip(), Tcp, VIP, RS);
    goes(&mut t, 0, ipip(), RS, tcp(C, VIP, "S"));
    for (ms, (tunnel, _)) in (1..).zip(specs()) {
        t.apply(edit(tunnel, 1));
        goes(&mut t, ms, tunnel, RS, tcp(C, VIP, "A"));
        goes(&mut t, ms, tunnel, RS, tcp(C, VIP, "A"));
    }
    assert_eq!(t.page.servers[0].conns.get(), 1);
}

#[test]
fn a_new_weight_leaves_the_tunnel_alone() {
    let mut t = bed(ipip(), Tcp, VIP, RS);
    goes(&mut t, 0, ipip(), RS, tcp(C, VIP, "S"));
    goes(&mut t, 1, ipip(), RS, tcp(C, VIP, "A"));
    t.apply(edit(ipip(), 0));
    goes(&mut t, 2, ipip(), RS, tcp(C, VIP, "A"));
}

#[test]
fn a_server_that_comes_back_is_reached_again() {
    let mut t = bed(ipip(), Tcp, VIP, RS);
    goes(&mut t, 0, ipip(), RS, tcp(C, VIP, "S"));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.apply(super::super::testbed::add_server_by(
        ForwardMode::Tunnel,
        0,
        0,
        RS,
    ));
    goes(&mut t, 2, ipip(), RS, tcp(C, VIP, "A"));
}

#[test]
fn replies_are_never_seen() {
    let mut t = bed(ipip(), Tcp, VIP, RS);
    let state = |t: &Testbed| {
        let list = t.director.listed(Instant::from_ms(9));
        list[0].state.clone()
    };
    for (flags, expected) in [("S", "SYN_RECV"), ("A", "ESTABLISHED"), ("FA", "FIN_WAIT")] {
        goes(&mut t, 0, ipip(), RS, tcp(C, VIP, flags));
        assert_eq!(state(&t), expected);
    }
}

#[test]
fn the_last_hop_is_here() {
    let mut t = bed(ipip(), Tcp, VIP, RS6);
    let dying = tcp(C, VIP, "S").ttl(1);
    let told = error(VIP_IP, 11, 0, 0, &dying);
    t.check(0, dying, Refuse(DropReason::TtlExpired, told));
    goes(&mut t, 1, ipip(), RS6, tcp(C, VIP, "S").ttl(2));
}

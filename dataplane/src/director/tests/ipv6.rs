//! IPv6: what NAT and direct routing do to it, and what is said about it.

use super::super::frames::ATOMIC;
use super::super::testbed::{add_server_by, mac_of};
use super::*;

fn nat6(protocol: Protocol) -> Testbed {
    Testbed::nat(protocol, VIP6, &[RS6])
}

fn establish6(t: &mut Testbed) {
    t.check(0, tcp(C6, VIP6, "S"), on(tcp(C6, RS6, "S")));
    t.check(1, tcp(RS6, C6, "SA"), on(tcp(VIP6, C6, "SA")));
    t.check(2, tcp(C6, VIP6, "A"), on(tcp(C6, RS6, "A")));
}

#[test]
fn nat_round_trips() {
    let mut t = nat6(Tcp);
    establish6(&mut t);
    let data = |from, to| tcp(from, to, "PA").data(b"GET / odd").tos(0xb8);
    t.check(3, data(C6, VIP6), on(data(C6, RS6)));
    t.check(4, data(RS6, C6), on(data(VIP6, C6)));
    assert_eq!(t.load(0), (1, 0));
    let mut t = nat6(Udp);
    t.check(0, udp(C6, VIP6, b"ping"), on(udp(C6, RS6, b"ping")));
    t.check(1, udp(RS6, C6, b"pong!"), on(udp(VIP6, C6, b"pong!")));
    assert_eq!(t.load(0), (0, 1));
}

/// The digests of two clients fall together once in 2^32; their full addresses differ.
#[test]
fn ports_and_clients_are_told_apart() {
    let mut t = Testbed::nat(Tcp, VIP6, &["[2001:db8:1::1]:8080", "[2001:db8:2::1]:80"]);
    for (n, server) in ["[2001:db8:2::1]:80", "[2001:db8:1::1]:8080"]
        .iter()
        .cycle()
        .take(20)
        .enumerate()
    {
        let client = format!("[2001:db8:ffff::{n:x}]:1000");
        t.check(0, tcp(&client, VIP6, "S"), on(tcp(&client, server, "S")));
        t.check(1, tcp(server, &client, "SA"), on(tcp(VIP6, &client, "SA")));
        t.check(2, tcp(&client, VIP6, "A"), on(tcp(&client, server, "A")));
    }
}

#[test]
fn a_missing_udp_checksum_is_made() {
    let mut t = nat6(Udp);
    for ms in 0..2 {
        let bare = udp(C6, VIP6, b"odd").without_checksum();
        t.check(ms, bare, on(udp(C6, RS6, b"odd")));
        let bare = udp(RS6, C6, b"even").without_checksum();
        t.check(ms, bare, on(udp(VIP6, C6, b"even")));
    }
}

#[test]
fn extension_headers_are_kept() {
    for protocol in [Tcp, Udp] {
        let mut t = nat6(protocol);
        let packet = |from, to| {
            let packet = if protocol == Tcp {
                tcp(from, to, "S")
            } else {
                udp(from, to, b"x")
            };
            packet
                .extension(0, &[1, 4, 0, 0, 0, 0])
                .extension(60, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        };
        t.check(0, packet(C6, VIP6), on(packet(C6, RS6)));
        t.check(1, packet(C6, VIP6), on(packet(C6, RS6)));
        t.check(2, packet(RS6, C6), on(packet(VIP6, C6)));
    }
}

/// RFC 6946: it is whole, whatever its id.
#[test]
fn an_atomic_fragment_is_no_fragment() {
    let mut t = nat6(Udp);
    let atomic = |from, to| udp(from, to, b"whole").fragment(ATOMIC);
    t.check(0, atomic(C6, VIP6), on(atomic(C6, RS6)));
    t.check(1, atomic(C6, VIP6), on(atomic(C6, RS6)));
    t.check(2, atomic(RS6, C6), on(atomic(VIP6, C6)));
}

#[test]
fn the_last_hop() {
    let mut t = nat6(Tcp);
    establish6(&mut t);
    let dying = tcp(C6, VIP6, "A").ttl(1);
    let told = error(VIP6_IP, 3, 0, 0, &dying);
    t.check(3, dying, Refuse(DropReason::TtlExpired, told));
    let dying = tcp(RS6, C6, "A").ttl(1);
    let told = error("2001:db8:1::fe", 3, 0, 0, &dying);
    t.check(4, dying, Refuse(DropReason::TtlExpired, told));
}

#[test]
fn too_long_for_the_next_network() {
    for mode in [ForwardMode::Nat, ForwardMode::Direct] {
        let mut small = setup(true);
        small.interfaces[1].mtu = 1300;
        let mut t = Testbed::new(10, small);
        t.add_service(0, Udp, VIP6);
        t.apply(add_server_by(mode, 0, 0, RS6));
        let fits = |to| udp(C6, to, &[7; 1300 - 48]);
        let end = match mode {
            ForwardMode::Nat => on(fits(RS6)),
            _ => Direct(RS6, fits(VIP6).hop()),
        };
        t.check(0, fits(VIP6), end);
        for ms in 1..3 {
            let long = udp(C6, VIP6, &[7; 1301 - 48]);
            let told = error(VIP6_IP, 2, 0, 1300, &long);
            t.check(ms, long, Refuse(DropReason::TooBig, told));
        }
    }
}

#[test]
fn direct_routing_changes_the_hop_limit_alone() {
    let mut t = Testbed::by(ForwardMode::Direct, Tcp, VIP6, &[RS6, RS6B]);
    for (client, server) in [("[2001:db8:c::10]:1", RS6B), ("[2001:db8:c::10]:2", RS6)] {
        for flags in ["S", "A", "PA"] {
            let packet = tcp(client, VIP6, flags).extension(60, &[0; 6]);
            t.check(0, packet.clone(), Direct(server, packet.hop()));
        }
    }
    let mut t = Testbed::by(ForwardMode::Direct, Udp, VIP6, &[RS6]);
    let packet = udp(C6, VIP6, b"x");
    t.check(0, packet.clone(), Direct(RS6, packet.hop()));
}

#[test]
fn sources_that_no_client_has() {
    let mut t = nat6(Tcp);
    for bad in [
        "fe80::1",
        "ff02::1",
        "::1",
        "::",
        "::ffff:192.0.2.10",
        "2001:db8:c::fe",
        VIP6_IP,
    ] {
        let syn = tcp(&format!("[{bad}]:1"), VIP6, "S").between(mac(C6_IP), port_mac(CLIENTS));
        t.check_bytes(0, CLIENTS, &syn.bytes(), Drop(DropReason::BadSource));
    }
}

#[test]
fn who_is_refused_is_told() {
    let mut t = Testbed::nat(Tcp, VIP6, &[]);
    let syn = tcp(C6, VIP6, "S");
    t.check(
        0,
        syn.clone(),
        Refuse(DropReason::NoServer, error(VIP6_IP, 1, 4, 0, &syn)),
    );
    t.check(
        1,
        tcp(C6, VIP6, "A"),
        Refuse(DropReason::NoConnection, reset(VIP6, C6)),
    );
    let datagram = udp(C6, VIP6, b"x");
    let told = error(VIP6_IP, 1, 4, 0, &datagram);
    t.check(2, datagram, Refuse(DropReason::NotOurs, told));
    t.check(
        3,
        tcp(C6, "[2001:db8:f::2]:80", "S"),
        Drop(DropReason::NotOurs),
    );
}

#[test]
fn echo_is_answered_for_our_addresses() {
    let mut t = nat6(Tcp);
    for ours in [VIP6_IP, "2001:db8:c::fe", "2001:db8:1::fe"] {
        let request = icmp(C6_IP, ours, 128, 0, [1, 2, 3, 4], b"payload").ttl(3);
        let reply = icmp(ours, C6_IP, 129, 0, [1, 2, 3, 4], b"payload");
        t.check(0, request, Answer(leaving(&reply).1.bytes()));
    }
    let request = icmp(C6_IP, "2001:db8:1::1", 128, 0, [0; 4], b"");
    t.check(1, request, Drop(DropReason::NotOurs));
}

/// A neighbour discovery message with one option, the sender's Ethernet address.
fn discovery(kind: u8, flags: u8, from: &str, to: &str, target: &str, mac: [u8; 6]) -> Frame {
    let target: std::net::Ipv6Addr = target.parse().unwrap();
    let option = if kind == 135 { 1 } else { 2 };
    let content = [&target.octets()[..], &[option, 1], &mac].concat();
    icmp(from, to, kind, 0, [flags, 0, 0, 0], &content).ttl(255)
}

#[test]
pub(super) fn neighbour_discovery_is_spoken() {
    let mut t = Testbed::by(ForwardMode::FullNat, Tcp, VIP6, &[RS6]);
    t.apply(local_addresses(0, &["2001:db8:c::77"]));
    let asker = mac(C6_IP);
    let all = [0x33, 0x33, 0xff, 0, 0, 1];
    for ours in [VIP6_IP, "2001:db8:c::fe", "2001:db8:c::77"] {
        let group = [0x33, 0x33, 0xff, 0, 0, mac(ours)[5]];
        let to = format!("ff02::1:ff00:{:x}", mac(ours)[5]);
        let ask = discovery(135, 0, C6_IP, &to, ours, asker).between(asker, group);
        let answer = discovery(136, 0x60, ours, C6_IP, ours, port_mac(CLIENTS));
        let answer = answer.between(port_mac(CLIENTS), asker);
        t.check_bytes(0, CLIENTS, &ask.bytes(), Answer(answer.bytes()));
    }
    let ask =
        discovery(135, 0, C6_IP, "ff02::1:ff00:1", "2001:db8:c::1", asker).between(asker, all);
    t.check_bytes(1, CLIENTS, &ask.bytes(), Consume);
    let far = discovery(135, 0, C6_IP, VIP6_IP, VIP6_IP, asker).ttl(254);
    t.check(2, far, Drop(DropReason::BadNd));
    let thief = discovery(136, 0x60, C6_IP, "2001:db8:c::fe", VIP6_IP, asker);
    t.check(3, thief, Drop(DropReason::BadNd));
}

#[test]
fn a_server_is_asked_for() {
    let server = "[2001:db8:1::9]:80";
    let mut t = Testbed::nat(Tcp, VIP6, &[server]);
    let us = port_mac(SERVERS);
    let ask = discovery(
        135,
        0,
        "2001:db8:1::fe",
        "ff02::1:ff00:9",
        "2001:db8:1::9",
        us,
    );
    let ask = ask.between(us, [0x33, 0x33, 0xff, 0, 0, 9]).bytes();
    let syn = tcp(C6, server, "S").hop();
    t.check(0, tcp(C6, VIP6, "S"), Hold(Some(ask), syn.clone()));
    let station = mac_of("2001:db8:1::9".parse().unwrap());
    let says = discovery(
        136,
        0x60,
        "2001:db8:1::9",
        "2001:db8:1::fe",
        "2001:db8:1::9",
        station,
    );
    let sent = t.pass(1, &says);
    assert_eq!(sent, [leaving(&syn).1.bytes()]);
    assert_eq!(t.page.held.get(), 0);
    t.check(2, tcp(C6, VIP6, "A"), on(tcp(C6, server, "A")));
}

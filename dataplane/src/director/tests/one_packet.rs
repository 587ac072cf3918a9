//! One-packet scheduling: each datagram for itself, and answers that find their way without it.

use control::{Settings, Thresholds, Tunnel};

use super::super::testbed::{add_server_by, via};
use super::*;
use crate::sched::Kind;
use crate::update::{Policy, ServerId, ServiceId};
use End::{Back, Direct as Past, Together, Wait};
use ForwardMode::{Direct, Nat};

const C2: &str = "192.0.2.10:40001";

fn schedule_alone(one_packet: bool) -> Update {
    Update::EditService {
        id: ServiceId(0),
        policy: Policy {
            one_packet,
            ..Policy::of(Kind::Rr)
        },
    }
}

/// Service 0 (`rr`) with these servers, which schedules each datagram by itself.
fn bed(mode: ForwardMode, protocol: Protocol, vip: &str, servers: &[&str]) -> Testbed {
    let mut t = Testbed::by(mode, protocol, vip, servers);
    t.apply(schedule_alone(true));
    t
}

fn tunnel_bed(vip: &str, server: &str) -> Testbed {
    bed(ForwardMode::Tunnel, Udp, vip, &[server])
}

/// Nothing is left of what went through.
#[track_caller]
fn none_stays(t: &Testbed, conns: &[u64]) {
    assert_eq!(t.director.conns.used(), 0);
    assert_eq!(t.page.connections.get(), 0);
    for (server, conns) in conns.iter().enumerate() {
        assert_eq!(t.load(server), (0, 0), "server {server}");
        let counted = t.page.servers[server].conns.get();
        assert_eq!(counted, *conns, "server {server}");
    }
}

#[test]
fn each_datagram_to_the_next_server() {
    for (client, vip, servers) in [(C, VIP, [RS, RS2]), (C6, VIP6, [RS6, RS6B])] {
        let mut t = bed(Nat, Udp, vip, &servers);
        for (ms, server) in (0..).zip([servers[1], servers[0], servers[1]]) {
            t.check(
                ms,
                udp(client, vip, b"ask"),
                on(udp(client, server, b"ask")),
            );
            t.check(
                ms,
                udp(server, client, b"answer"),
                on(udp(vip, client, b"answer")),
            );
        }
        none_stays(&t, &[1, 2]);
    }
}

#[test]
fn direct_routing_and_tunnels() {
    let mut t = bed(Direct, Udp, VIP, &[RS, RS2]);
    for (ms, server) in (0..).zip([RS2, RS, RS2]) {
        t.check(
            ms,
            udp(C, VIP, b"ask"),
            Past(server, udp(C, VIP, b"ask").hop()),
        );
    }
    none_stays(&t, &[1, 2]);
    // What such a server sends to the client through us is nobody's, as in LVS.
    t.check(9, udp(VIP, C, b"answer"), Drop(DropReason::NotOurs));

    for (client, vip, server, us) in [
        (C, VIP, RS, "10.1.0.254"),
        (C6, VIP6, RS6, "2001:db8:1::fe"),
        (C6, VIP6, RS, "10.1.0.254"),
        (C, VIP, RS6, "2001:db8:1::fe"),
    ] {
        let mut t = tunnel_bed(vip, server);
        let server_ip = super::super::frames::address(server).ip().to_string();
        for ms in 0..3 {
            let asked = udp(client, vip, b"ask");
            let inner = asked.clone().hop();
            let protocol = if inner.is_v6() { 41 } else { 4 };
            let id = t.director.ip_id + 1;
            let outer = other_ip(us, &server_ip, protocol, &inner.ip())
                .ttl(inner.ttl)
                .id(id);
            t.check(ms, asked, To(server, vec![outer]));
        }
        none_stays(&t, &[3]);
    }
}

#[test]
fn only_datagrams() {
    let mut t = bed(Nat, Tcp, VIP, &[RS, RS2]);
    establish(&mut t, 0, C, RS2);
    assert_eq!((t.director.conns.used(), t.load(1)), (1, (1, 0)));
}

#[test]
fn loads_and_thresholds_are_those_of_in_between() {
    let mut t = bed(Nat, Udp, VIP, &[RS, RS2]);
    let policy = Policy {
        one_packet: true,
        ..Policy::of(Kind::Wlc)
    };
    let id = ServiceId(0);
    t.apply(Update::EditService { id, policy });
    for server in 0..2 {
        t.apply(Update::EditServer {
            id: ServerId(server),
            mode: Nat,
            tunnel: Tunnel::default(),
            weight: 1,
            thresholds: Thresholds { upper: 1, lower: 0 },
        });
    }
    for ms in 0..5 {
        t.check(ms, udp(C, VIP, b"x"), on(udp(C, RS2, b"x")));
    }
    none_stays(&t, &[0, 5]);
}

#[test]
fn no_server_and_the_last_hop() {
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    let told = |kind, code, original: Frame| error(VIP_IP, kind, code, 0, &original);
    let asked = udp(C, VIP, b"x").ttl(1);
    let answer = told(11, 0, asked.clone());
    t.check(0, asked, Refuse(DropReason::TtlExpired, answer));
    t.apply(weigh(0, 0));
    let asked = udp(C, VIP, b"x");
    let answer = told(3, 3, asked.clone());
    t.check(1000, asked, Refuse(DropReason::NoServer, answer));
    t.check(
        1001,
        udp("127.0.0.1:9", VIP, b"x").between(mac(C_IP), port_mac(CLIENTS)),
        Drop(DropReason::BadSource),
    );
    none_stays(&t, &[1]);
}

#[test]
fn a_connection_from_before_keeps_its_server() {
    let mut t = Testbed::nat(Udp, VIP, &[RS, RS2]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS2, b"x")));
    t.apply(schedule_alone(true));
    for (ms, server) in (1..).zip([RS, RS2, RS]) {
        t.check(ms, udp(C, VIP, b"x"), on(udp(C, RS2, b"x")));
        t.check(ms, udp(C2, VIP, b"x"), on(udp(C2, server, b"x")));
        t.check(ms, udp(server, C2, b"y"), on(udp(VIP, C2, b"y")));
    }
    assert_eq!(t.director.conns.used(), 1);
    t.apply(schedule_alone(false));
    t.check(9, udp(RS, C2, b"y"), Drop(DropReason::NotOurs));
    t.check(9, udp(C2, VIP, b"x"), on(udp(C2, RS2, b"x")));
    t.check(9, udp(C2, VIP, b"x"), on(udp(C2, RS2, b"x")));
    assert_eq!(t.director.conns.used(), 2);
}

/// Service 1 at that address, which schedules each datagram by itself.
fn add_second(t: &mut Testbed, vip: &str, server: &str) {
    let policy = Policy {
        one_packet: true,
        ..Policy::of(Kind::Rr)
    };
    let (id, key) = (ServiceId(1), key(Udp, vip));
    t.apply(Update::AddService { id, key, policy });
    t.apply(add_server_by(Nat, 1, 5, server));
}

#[test]
fn answers_are_the_oldest_services() {
    const SECOND: &str = "203.0.113.2:80";
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    add_second(&mut t, SECOND, RS);
    let leaves = leaving(&udp(C, RS, b"x").hop()).1.bytes();
    assert_eq!(t.pass(0, &udp(C, SECOND, b"x")), [leaves]);
    assert_eq!(t.page.servers[5].conns.get(), 1);
    t.check(0, udp(RS, C, b"y"), on(udp(VIP, C, b"y")));
    // Once it left, the answers are the other's.
    t.apply(Update::DeleteServer { id: ServerId(0) });
    assert_eq!(
        t.pass(1, &udp(RS, C, b"y")),
        [leaving(&udp(SECOND, C, b"y").hop()).1.bytes()]
    );
}

#[test]
fn answers_of_a_deleted_server() {
    let mut t = bed(Nat, Udp, VIP, &["10.1.0.1:8080"]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, "10.1.0.1:8080", b"x")));
    t.check(1, udp("10.1.0.1:80", C, b"y"), Drop(DropReason::NotOurs));
    let answer = || udp("10.1.0.1:8080", C, b"y");
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(2, answer(), ForwardUncounted(udp(VIP, C, b"y").hop()));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    t.check(3, answer(), ForwardUncounted(udp(VIP, C, b"y").hop()));
    t.apply(Update::ForgetServer { id: ServerId(0) });
    t.check(4, answer(), Drop(DropReason::NotOurs));
}

#[test]
fn answers_as_in_lvs() {
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    t.apply(Update::SetSettings(Settings {
        one_packet_replies_untranslated: true,
        ..Settings::default()
    }));
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS, b"x")));
    t.check(
        1,
        udp(RS, C, b"y"),
        ForwardUncounted(udp(RS, C, b"y").hop()),
    );
    t.check(2, udp(RS2, C, b"y"), Drop(DropReason::NotOurs));
}

#[test]
fn answers_to_nobody() {
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    t.check(0, tcp(RS, C, "A"), Drop(DropReason::NotOurs));
    let to_us = udp(RS, "10.1.0.254:9", b"y");
    let answer = error("10.1.0.254", 3, 3, 0, &to_us);
    t.check(1, to_us, Refuse(DropReason::NotOurs, answer));
    let to_station = udp(RS, "127.0.0.1:9", b"y").between(mac("10.1.0.1"), port_mac(SERVERS));
    t.check(2, to_station, Drop(DropReason::NoRoute));
}

#[test]
fn fragments_follow_their_first_one() {
    let data: Vec<u8> = (0..100).collect();
    for (client, vip, servers) in [(C, VIP, [RS, RS2]), (C6, VIP6, [RS6, RS6B])] {
        let pieces = |from, to| udp(from, to, &data).pieces(40);
        let mut t = bed(Nat, Udp, vip, &servers);
        let [other, server] = servers;
        for ms in 0..2 {
            let came = pieces(client, vip);
            let leaves = |n: usize| pieces(client, server)[n].clone().hop();
            t.check(ms, came[1].clone(), Wait);
            // A whole datagram in between goes elsewhere, and does not lead them astray.
            let first = Together(server, vec![leaves(0), leaves(1)]);
            t.check(ms, came[0].clone(), first);
            t.check(ms, udp(client, vip, b"x"), on(udp(client, other, b"x")));
            t.check(ms, udp(client, vip, b"x"), on(udp(client, server, b"x")));
            t.check(ms, udp(client, vip, b"x"), on(udp(client, other, b"x")));
            t.check(ms, came[2].clone(), Together(server, vec![leaves(2)]));
            // The answer is in pieces too.
            for (n, piece) in pieces(server, client).into_iter().enumerate() {
                let leaves = pieces(vip, client)[n].clone().hop();
                t.check(ms, piece, Back(server, vec![leaves]));
            }
            assert_eq!(t.director.fragments.datagrams(), 0);
        }
        assert_eq!(t.director.conns.used(), 0);
    }
}

#[test]
fn fragments_of_a_server_that_goes() {
    let pieces = udp(C, VIP, &[7; 100]).pieces(40);
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    let first = udp(C, RS, &[7; 100]).pieces(40)[0].clone().hop();
    t.check(0, pieces[0].clone(), To(RS, vec![first]));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(1, pieces[1].clone(), Drop(DropReason::ServerGone));
}

#[test]
fn direct_routing_of_fragments() {
    let pieces = udp(C, VIP, &[7; 100]).pieces(40);
    let mut t = bed(Direct, Udp, VIP, &[RS, RS2]);
    for piece in pieces {
        let leaves = via("10.1.0.2", piece.clone().hop());
        t.check(0, piece, To(RS2, vec![leaves]));
    }
}

#[test]
fn too_long_for_the_servers_network() {
    let mut setup = setup(true);
    setup.interfaces[1].mtu = 1000;
    let mut t = Testbed::new(10, setup);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    t.apply(schedule_alone(true));
    let long = |to| udp(C, to, &[7; 1200]).id(9);
    let leaves = udp(C, RS, &[7; 1200]).id(9).hop().pieces(976);
    t.check(0, long(VIP), To(RS, leaves));
    let asked = long(VIP).fragment(DONT_FRAGMENT);
    let answer = error(VIP_IP, 3, 4, 1000, &asked);
    t.check(1, asked, Refuse(DropReason::TooBig, answer));
    assert_eq!(t.director.conns.used(), 0);
}

#[test]
fn errors_of_servers_reach_their_client() {
    let mut t = bed(Nat, Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS, b"x")));
    let about = |from, to| {
        udp(from, to, b"x")
            .id(0)
            .fragment(DONT_FRAGMENT)
            .ttl(60)
            .without_checksum()
    };
    let error = told("10.1.0.1", C_IP, 3, 3, 0, &about(C, RS).ip());
    let leaves = told(VIP_IP, C_IP, 3, 3, 0, &about(C, VIP).ip());
    t.check_bytes(
        1,
        SERVERS,
        &arriving(&error).1.bytes(),
        ForwardUncounted(leaves.hop()),
    );
    // What a client's network says of an answer is for nobody, as in LVS ...
    let about = about(VIP, C);
    let error = told("198.51.100.1", VIP_IP, 3, 3, 0, &about.ip());
    t.check(2, error.clone(), Drop(DropReason::NotOurs));
    // ... but for a server that is scheduled for it.
    t.apply(Update::SetSettings(Settings {
        schedule_icmp: true,
        ..Settings::default()
    }));
    let about = udp(RS, C, b"x")
        .id(0)
        .fragment(DONT_FRAGMENT)
        .ttl(60)
        .without_checksum();
    let leaves = told("198.51.100.1", "10.1.0.1", 3, 3, 0, &about.ip());
    t.check(3, error, ForwardUncounted(leaves.hop()));
    none_stays(&t, &[2]);
}

#[test]
fn a_narrow_way_into_a_tunnel_is_learned() {
    let mut t = tunnel_bed(VIP, RS);
    let asked = || udp(C, VIP, &[7; 1400]).id(0).fragment(DONT_FRAGMENT);
    let inner = asked().hop();
    let outer = other_ip("10.1.0.254", "10.1.0.1", 4, &inner.ip())
        .ttl(inner.ttl)
        .id(0)
        .fragment(DONT_FRAGMENT);
    t.check(0, asked(), To(RS, vec![outer.clone()]));
    let error_from_router = told("10.1.0.9", "10.1.0.254", 3, 4, 1300, &outer.ip()[..100]);
    let quoted = inner.ip()[..100 - 20].to_vec();
    let sent = t.pass(1, &error_from_router);
    assert_eq!(sent.len(), 1, "the client is told");
    let at = sent[0].len() - quoted.len();
    assert_eq!(sent[0][at..], quoted, "of its packet");
    assert_eq!(sent[0][at - 2..at], 1280u16.to_be_bytes());
    let answer = error(VIP_IP, 3, 4, 1280, &asked());
    t.check(2, asked(), Refuse(DropReason::TooBig, answer));
}

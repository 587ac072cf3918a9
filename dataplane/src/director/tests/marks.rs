//! Services by mark: what rules mark goes to them, whatever its address, port and protocol.

use std::num::NonZeroU32;
use std::sync::Arc;

use control::{MarkRule, ServiceKey, Settings, Tunnel};

use super::super::testbed::{add_server_by, via};
use super::*;
use crate::marks::{Marks, Rule};
use crate::sched::Kind;
use crate::update::{Policy, ServerId, ServiceId};
use End::{Back, Together};

const WEB: &str = "203.0.113.1:80";
const SHOP: &str = "203.0.113.2:443";
const MEDIA: &str = "203.0.113.77:5004";
const ANY_PORT: &str = "10.1.0.1:0";
const L_IP: &str = "10.1.0.100";

/// Of packets to this network; `ports` may be empty.
fn to(mark: u32, destination: &str, ports: &str) -> MarkRule {
    MarkRule {
        destination: Some(destination.parse().unwrap()),
        ports: (!ports.is_empty()).then(|| ports.parse().unwrap()),
        ..MarkRule::new(mark)
    }
}

fn set(rules: &[MarkRule]) -> Update {
    set_at(rules.iter().map(|rule| (rule, None)).collect())
}

/// Rules, each with the port at which packets come in.
fn set_at(rules: Vec<(&MarkRule, Option<PortId>)>) -> Update {
    let rule = |(rule, from): (&MarkRule, _)| Rule {
        said: rule.clone(),
        from,
    };
    Update::SetMarks(Arc::new(Marks::new(rules.into_iter().map(rule).collect())))
}

fn service(id: u32, mark: u32, ipv6: bool) -> Update {
    let mark = NonZeroU32::new(mark).unwrap();
    Update::AddService {
        id: ServiceId(id),
        key: ServiceKey::Mark { mark, ipv6 },
        policy: Policy::of(Kind::Rr),
    }
}

/// Two virtual addresses and a network, all of mark 7.
fn rules() -> [MarkRule; 3] {
    let udp = MarkRule {
        protocol: Some(Udp),
        ..to(7, "203.0.113.64/26", "5000-5010")
    };
    [to(7, "203.0.113.1", "80"), to(7, "203.0.113.2", "443"), udp]
}

/// Service 0 by mark 7 with these servers, numbered from 0 on.
fn bed(mode: ForwardMode, servers: &[&str]) -> Testbed {
    let mut t = Testbed::new(100, setup(true));
    t.apply(set(&rules()));
    t.apply(service(0, 7, false));
    for (id, server) in (0..).zip(servers) {
        t.apply(add_server_by(mode, 0, id, server));
    }
    t
}

/// To, and back from, a server that has no port of its own.
fn kept(t: &mut Testbed, ms: u32, ask: Frame, answer: Frame) {
    let (client, asked) = (ask.from.to_string(), ask.to.to_string());
    let readdress = |mut frame: Frame, from: &str, to: &str| {
        (frame.from, frame.to) = (from.parse().unwrap(), to.parse().unwrap());
        frame.hop()
    };
    let server = format!("10.1.0.1:{}", ask.to.port());
    let there = readdress(ask.clone(), &client, &server);
    t.check(ms, ask, To(ANY_PORT, vec![there]));
    let mut reply = answer.clone();
    reply.from = server.parse().unwrap();
    let back = readdress(answer, &asked, &client);
    t.check(ms, reply, Back(ANY_PORT, vec![back]));
}

#[test]
fn addresses_ports_and_protocols_share_a_service() {
    let mut t = bed(ForwardMode::Nat, &[ANY_PORT]);
    kept(&mut t, 0, tcp(C, WEB, "S"), tcp(WEB, C, "SA"));
    kept(&mut t, 1, tcp(C, SHOP, "S"), tcp(SHOP, C, "SA"));
    kept(&mut t, 2, udp(C, MEDIA, b"x"), udp(MEDIA, C, b"y"));
    // TCP to the network of UDP's rule, another port, another address.
    t.check(3, tcp(C, MEDIA, "S"), Drop(DropReason::NotOurs));
    let closed = "203.0.113.1:81";
    t.check(
        4,
        tcp(C, closed, "S"),
        Refuse(
            DropReason::NotOurs,
            ours(tcp(closed, C, "RA").numbers(0, 1001)),
        ),
    );
    t.check(5, tcp(C, "203.0.113.3:80", "S"), Drop(DropReason::NotOurs));
    assert_eq!(t.load(0), (2, 1));
}

#[test]
fn a_server_with_a_port_gets_all_at_that_port() {
    let mut t = bed(ForwardMode::Nat, &["10.1.0.1:8080"]);
    for (ms, asked) in [WEB, SHOP].iter().enumerate() {
        let ms = u32::try_from(ms).unwrap();
        let client = format!("192.0.2.10:{}", 40000 + ms);
        let server = "10.1.0.1:8080";
        t.check(ms, tcp(&client, asked, "S"), on(tcp(&client, server, "S")));
        t.check(
            ms,
            tcp(server, &client, "SA"),
            on(tcp(asked, &client, "SA")),
        );
        t.check(ms, tcp(&client, asked, "A"), on(tcp(&client, server, "A")));
    }
    assert_eq!(t.load(0), (2, 0));
}

#[test]
fn each_family_has_services_of_its_own() {
    let mut t = bed(ForwardMode::Nat, &[RS]);
    let both = [to(7, "203.0.113.1", "80"), to(7, "2001:db8:f::1", "")];
    t.apply(set(&both));
    t.check(0, tcp(C6, VIP6, "S"), Drop(DropReason::NotOurs));
    t.apply(service(1, 7, true));
    t.apply(add_server(1, 1, "[2001:db8:1::1]:0", 1));
    t.check(
        1,
        tcp(C6, VIP6, "S"),
        To("[2001:db8:1::1]:0", vec![tcp(C6, RS6, "S").hop()]),
    );
    t.check(
        1,
        tcp(RS6, C6, "SA"),
        Back("[2001:db8:1::1]:0", vec![tcp(VIP6, C6, "SA").hop()]),
    );
    t.check(2, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.check(2, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA")));
}

#[test]
fn a_mark_comes_before_an_address() {
    let mut t = bed(ForwardMode::Nat, &[RS]);
    t.add_service(1, Tcp, WEB);
    t.apply(add_server(1, 1, RS2, 1));
    t.check(0, tcp(C, WEB, "S"), on(tcp(C, RS, "S")));
    // A mark without a service is none.
    t.apply(Update::DeleteService { id: ServiceId(0) });
    t.check(
        1,
        tcp("192.0.2.10:2", WEB, "S"),
        on(tcp("192.0.2.10:2", RS2, "S")),
    );
    t.apply(service(2, 7, false));
    t.apply(add_server(2, 2, "10.1.0.3:80", 1));
    let third = "192.0.2.10:3";
    t.check(2, tcp(third, WEB, "S"), on(tcp(third, "10.1.0.3:80", "S")));
    // An earlier rule without a mark leaves it to the address.
    t.apply(set(&[
        MarkRule {
            source: Some("192.0.2.0/24".parse().unwrap()),
            ..MarkRule::new(0)
        },
        to(7, "203.0.113.1", ""),
    ]));
    t.check(
        3,
        tcp("192.0.2.10:4", WEB, "S"),
        on(tcp("192.0.2.10:4", RS2, "S")),
    );
    let elsewhere = "198.51.100.9:4";
    t.check(
        4,
        tcp(elsewhere, WEB, "S"),
        on(tcp(elsewhere, "10.1.0.3:80", "S")),
    );
}

fn persistent(id: u32, key: ServiceKey) -> Update {
    let netmask = control::Netmask::whole(key.is_ipv6());
    Update::AddService {
        id: ServiceId(id),
        key,
        policy: Policy {
            persistence: Some(control::Persistence {
                timeout_s: 600,
                netmask,
            }),
            ..Policy::of(Kind::Rr)
        },
    }
}

/// By mark, by address and port, as data of FTP, by address alone.
#[test]
fn services_are_asked_in_lvss_order() {
    let mut t = Testbed::new(100, setup(true));
    let whole = "203.0.113.1:0";
    for (id, vip, server) in [
        (0, whole, "10.1.0.1:0"),
        (1, "203.0.113.1:21", "10.1.0.2:21"),
        (2, "203.0.113.1:8080", "10.1.0.3:8080"),
    ] {
        t.apply(persistent(id, key(Tcp, vip)));
        t.apply(add_server(id, id, server, 1));
    }
    t.apply(set(&[
        to(7, VIP_IP, "8080"),
        to(7, VIP_IP, "1-1023"),
        to(9, VIP_IP, ""),
    ]));
    let mut n = 0;
    let mut taken = |t: &mut Testbed, protocol: Protocol, port: u16| {
        // Each from a client of its own: FTP's service and that of every port share templates, as in LVS.
        n += 1;
        let (client, asked) = (format!("198.51.100.{n}:30000"), format!("{VIP_IP}:{port}"));
        let sent = t.pass(
            n,
            &match protocol {
                Tcp => tcp(&client, &asked, "S"),
                _ => udp(&client, &asked, b"x"),
            },
        );
        let [frame] = &sent[..] else {
            panic!("{sent:?}")
        };
        (frame[33], u16::from_be_bytes([frame[36], frame[37]]))
    };
    assert_eq!(taken(&mut t, Tcp, 8080), (3, 8080), "exact");
    assert_eq!(taken(&mut t, Tcp, 21), (2, 21), "FTP");
    for data in [20, 1024, 50000] {
        assert_eq!(taken(&mut t, Tcp, data), (2, data), "data of FTP");
    }
    for other in [22, 80, 1023] {
        assert_eq!(taken(&mut t, Tcp, other), (1, other), "every port");
    }
    t.apply(service(3, 7, false));
    t.apply(add_server(3, 3, "10.1.0.3:99", 1));
    // Not persistent: it maps ports.
    assert_eq!(taken(&mut t, Tcp, 8080), (3, 99), "the mark");
    assert_eq!(taken(&mut t, Tcp, 21), (3, 99), "the mark");
    assert_eq!(taken(&mut t, Udp, 80), (3, 99), "whatever the protocol");
    assert_eq!(
        taken(&mut t, Tcp, 1024),
        (2, 1024),
        "a mark that no service has"
    );
    t.apply(Update::DeleteService { id: ServiceId(1) });
    assert_eq!(taken(&mut t, Tcp, 1024), (1, 1024), "no FTP any more");
    // Another protocol than the service's of every port.
    let datagram = udp(C, "203.0.113.1:2000", b"x");
    let told = error(VIP_IP, 3, 3, 0, &datagram);
    t.check(90, datagram, Refuse(DropReason::NotOurs, told));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    let syn = tcp(C, "203.0.113.1:2000", "S");
    t.apply(set(&[to(9, VIP_IP, "")]));
    t.check(91, tcp(C, "203.0.113.2:80", "S"), Drop(DropReason::NotOurs));
    let [refused] = &t.pass(92, &syn)[..] else {
        panic!("it is refused")
    };
    assert_eq!(refused[47], 0x14, "by a reset");
}

/// HTTP and HTTPS of a client at one server: the usual reason for services by mark.
#[test]
fn a_clients_ports_stay_together() {
    let mut t = Testbed::new(100, setup(true));
    t.apply(set(&[to(1, VIP_IP, "80"), to(1, VIP_IP, "443")]));
    let mark = NonZeroU32::MIN;
    t.apply(persistent(0, ServiceKey::Mark { mark, ipv6: false }));
    t.apply(add_server(0, 0, "10.1.0.2:0", 1));
    t.apply(add_server(0, 1, ANY_PORT, 1));
    kept(
        &mut t,
        0,
        tcp("192.0.2.10:1", WEB, "S"),
        tcp(WEB, "192.0.2.10:1", "SA"),
    );
    t.pass(1, &tcp("198.51.100.1:1", WEB, "S"));
    let shop = "203.0.113.1:443";
    kept(
        &mut t,
        2,
        tcp("192.0.2.10:2", shop, "S"),
        tcp(shop, "192.0.2.10:2", "SA"),
    );
    kept(
        &mut t,
        3,
        tcp("192.0.2.10:3", WEB, "S"),
        tcp(WEB, "192.0.2.10:3", "SA"),
    );
    assert_eq!((t.load(0), t.load(1)), ((1, 0), (3, 0)));
}

#[test]
fn rules_may_ask_for_ingress_and_tag() {
    let mut t = Testbed::new(10, setup(true));
    let port = "80".parse().unwrap();
    let web = MarkRule {
        ports: Some(port),
        ..MarkRule::new(7)
    };
    let tagged = MarkRule {
        vlan: Some(100),
        ports: Some(port),
        ..MarkRule::new(8)
    };
    t.apply(set_at(vec![(&web, Some(CLIENTS)), (&tagged, None)]));
    t.apply(service(0, 7, false));
    t.apply(service(1, 8, false));
    t.apply(add_server(0, 0, RS, 1));
    t.apply(add_server(1, 1, RS2, 1));
    t.check(
        0,
        tcp(C, MEDIA.replace("5004", "80").as_str(), "S"),
        on(tcp(C, RS, "S")),
    );
    // From VLAN 100 of the other port, and from that port without a tag.
    let (inside, far) = ("10.2.0.9:1000", "198.51.100.7:80");
    let frame = tcp(inside, far, "S")
        .between(mac("10.2.0.1"), port_mac(SERVERS))
        .vlan(100);
    t.check(1, frame, on(tcp(inside, RS2, "S")));
    let frame = tcp("10.1.0.9:1000", far, "S").between(mac("10.1.0.1"), port_mac(SERVERS));
    t.check(2, frame, Drop(DropReason::NotOurs));
}

#[test]
fn every_method() {
    let server = "10.1.0.1";
    let mut t = bed(ForwardMode::Direct, &[ANY_PORT]);
    for (ms, asked) in (0..).zip([WEB, SHOP]) {
        t.check(
            ms,
            tcp(C, asked, "S"),
            Direct(ANY_PORT, tcp(C, asked, "S").hop()),
        );
    }
    // To an address that is not ours alone.
    let there = via(server, udp(C, MEDIA, b"x").hop());
    t.check(2, udp(C, MEDIA, b"x"), To(ANY_PORT, vec![there]));
    let mut t = bed(ForwardMode::FullNat, &[ANY_PORT]);
    t.apply(local_addresses(0, &[L_IP]));
    let sent = t.pass(0, &udp(C, MEDIA, b"x"));
    let there = udp("10.1.0.100:1024", "10.1.0.1:5004", b"x").hop();
    assert_eq!(sent, [leaving(&there).1.bytes()]);
    let reply = udp("10.1.0.1:5004", "10.1.0.100:1024", b"y");
    t.check(1, reply, Back(ANY_PORT, vec![udp(MEDIA, C, b"y").hop()]));
    let mut t = bed(ForwardMode::Tunnel, &[ANY_PORT]);
    let sent = t.pass(0, &udp(C, MEDIA, b"x"));
    assert_eq!(sent.len(), 1);
    let inner = udp(C, MEDIA, b"x").hop().ip();
    assert!(
        sent[0].ends_with(&inner),
        "{}",
        super::super::frames::describe(&sent[0])
    );
    assert_eq!(Tunnel::default().port, 0);
}

/// What is refused is refused in the name of whom it was sent to, an address of ours or not.
#[test]
fn refusals() {
    let mut t = bed(ForwardMode::Nat, &[]);
    for (asked, packet) in [(WEB, tcp(C, WEB, "S")), (MEDIA, udp(C, MEDIA, b"x"))] {
        let asked = asked.split(':').next().unwrap();
        let told = error(asked, 3, 3, 0, &packet);
        t.check(0, packet, Refuse(DropReason::NoServer, told));
    }
    t.apply(set(&[to(7, "203.0.113.64/26", "")]));
    t.check(
        1,
        tcp(C, MEDIA, "A"),
        Refuse(DropReason::NoConnection, reset(MEDIA, C)),
    );
    t.check(2, tcp(C, MEDIA, "R"), Drop(DropReason::NoConnection));
    // Nobody has such an address to ask from.
    t.apply(set(&rules()));
    t.check(
        3,
        udp("203.0.113.1:9", MEDIA, b"x"),
        Drop(DropReason::BadSource),
    );
}

#[test]
fn broadcasts_have_no_mark() {
    let mut t = bed(ForwardMode::Nat, &[RS]);
    t.apply(set(&[MarkRule::new(7)]));
    for to in ["255.255.255.255:80", "224.0.0.1:80", "127.0.0.1:80"] {
        t.check(0, udp(C, to, b"x"), Drop(DropReason::NotOurs));
    }
    t.check(1, udp(C, "8.8.8.8:80", b"x"), on(udp(C, RS, b"x")));
}

#[test]
fn errors_find_their_connections() {
    const ROUTER: &str = "198.51.100.1";
    let datagram = |from, to| {
        udp(from, to, &[9; 40])
            .ttl(55)
            .id(0)
            .fragment(DONT_FRAGMENT)
    };
    let mut t = bed(ForwardMode::Nat, &["10.1.0.1:5004"]);
    let says = told(ROUTER, "203.0.113.77", 3, 3, 0, &datagram(MEDIA, C).ip());
    t.check(0, says.clone(), Drop(DropReason::NotOurs));
    assert_eq!(t.pass(1, &udp(C, MEDIA, b"x")).len(), 1);
    let sent = t.pass(2, &says);
    assert_eq!(sent.len(), 1, "on to the server");
    assert_eq!(sent[0][30..34], [10, 1, 0, 1]);
    let quote = datagram(C, "10.1.0.1:5004").ip();
    let sent = t.pass(3, &told("10.1.0.1", C_IP, 3, 3, 0, &quote));
    assert_eq!(sent.len(), 1, "on to the client");
    assert_eq!(sent[0][26..34], [203, 0, 113, 77, 192, 0, 2, 10]);
    assert_eq!(t.load(0), (0, 1));
    // What the error is about has a mark, so it may open a connection.
    let other = told(
        ROUTER,
        "203.0.113.78",
        3,
        3,
        0,
        &datagram("203.0.113.78:5004", C).ip(),
    );
    t.check(4, other.clone(), Drop(DropReason::NotOurs));
    t.apply(Update::SetSettings(Settings {
        schedule_icmp: true,
        ..Settings::default()
    }));
    assert_eq!(t.pass(5, &other).len(), 1);
    assert_eq!(t.load(0), (0, 2));
}

#[test]
fn whole_addresses_are_ours_while_a_service_has_them() {
    let mut t = Testbed::new(10, setup(true));
    let asker = (mac("192.0.2.99"), "192.0.2.99".parse().unwrap());
    let ask = |address: &str| {
        arp(
            1,
            asker,
            ([0; 6], address.parse().unwrap()),
            [0xff; 6],
            None,
        )
    };
    let answer = |address: &str| {
        let ours = (port_mac(CLIENTS), address.parse().unwrap());
        Answer(arp(2, ours, asker, asker.0, None))
    };
    t.apply(set(&rules()));
    t.check_bytes(0, CLIENTS, &ask(VIP_IP), Consume);
    t.apply(service(0, 7, false));
    t.check_bytes(1, CLIENTS, &ask(VIP_IP), answer(VIP_IP));
    t.check_bytes(2, CLIENTS, &ask("203.0.113.2"), answer("203.0.113.2"));
    // A network is routed to us; nobody asks where it is.
    t.check_bytes(3, CLIENTS, &ask("203.0.113.77"), Consume);
    let request = icmp(C_IP, VIP_IP, 8, 0, [1, 2, 3, 4], b"payload");
    let reply = icmp(VIP_IP, C_IP, 0, 0, [1, 2, 3, 4], b"payload");
    t.check(4, request, Answer(leaving(&reply).1.bytes()));
    t.apply(set(&rules()[1..]));
    t.check_bytes(5, CLIENTS, &ask(VIP_IP), Consume);
    t.check_bytes(6, CLIENTS, &ask("203.0.113.2"), answer("203.0.113.2"));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    t.check_bytes(7, CLIENTS, &ask("203.0.113.2"), Consume);
}

/// Addresses that a director announces when it is told this.
fn announced(t: &mut Testbed, update: &Update) -> Vec<String> {
    t.director.apply(update, &mut t.out);
    let sent = t.take();
    let client_side = sent.iter().filter(|(port, _)| *port == CLIENTS);
    client_side
        .map(|(_, frame)| match frame[12..14] {
            [8, 6] => format!("{}.{}.{}.{}", frame[28], frame[29], frame[30], frame[31]),
            _ => std::net::Ipv6Addr::from(*frame[62..].first_chunk::<16>().unwrap()).to_string(),
        })
        .collect()
}

#[test]
fn addresses_are_announced_as_they_appear() {
    let mut t = Testbed::new(10, setup(true));
    let none = [] as [&str; 0];
    let (a, b) = (to(7, "203.0.113.1", ""), to(7, "203.0.113.2", "80"));
    assert_eq!(announced(&mut t, &set(std::slice::from_ref(&a))), none);
    assert_eq!(announced(&mut t, &service(0, 7, false)), ["203.0.113.1"]);
    let twice = [a.clone(), to(7, "203.0.113.1", "22"), b.clone()];
    assert_eq!(announced(&mut t, &set(&twice)), ["203.0.113.2"]);
    assert_eq!(announced(&mut t, &set(std::slice::from_ref(&b))), none);
    assert_eq!(announced(&mut t, &set(&[b, a])), ["203.0.113.1"]);
    let wide = [to(7, "203.0.113.0/24", "")];
    assert_eq!(announced(&mut t, &set(&wide)), none);
    // A service of the address has announced it.
    let by_address = Update::AddService {
        id: ServiceId(1),
        key: key(Tcp, VIP),
        policy: Policy::of(Kind::Rr),
    };
    assert_eq!(announced(&mut t, &by_address), ["203.0.113.1"]);
    assert_eq!(announced(&mut t, &set(&[to(7, "203.0.113.1", "")])), none);
    assert_eq!(
        announced(&mut t, &Update::DeleteService { id: ServiceId(1) }),
        none
    );
    assert!(t.director.owns(VIP_IP.parse().unwrap()));
    let six = [to(7, "2001:db8:f::1", "")];
    assert_eq!(announced(&mut t, &set(&six)), none);
    assert_eq!(announced(&mut t, &service(2, 7, true)), ["2001:db8:f::1"]);
    assert!(!t.director.owns(VIP_IP.parse().unwrap()));
}

#[test]
fn connections_outlive_their_rule() {
    let mut t = bed(ForwardMode::Nat, &[RS]);
    establish(&mut t, 0, C, RS);
    t.apply(set(&[]));
    t.check(1, tcp(C, WEB, "A"), on(tcp(C, RS, "A")));
    t.check(1, tcp(RS, C, "A"), on(tcp(WEB, C, "A")));
    t.check(2, tcp("192.0.2.10:2", WEB, "S"), Drop(DropReason::NotOurs));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    t.check(3, tcp(C, WEB, "A"), Drop(DropReason::ServerGone));
}

#[test]
fn fragments_follow_a_marked_first_one() {
    let server = "10.1.0.1:5004";
    let mut t = bed(ForwardMode::Nat, &[server]);
    let data: Vec<u8> = (0..100).collect();
    let pieces = |from, to| udp(from, to, &data).pieces(40);
    let (came, leave) = (pieces(C, WEB), pieces(C, server));
    let on = |n: usize| leave[n].clone().hop();
    t.check(0, came[1].clone(), End::Wait);
    t.check(1, came[0].clone(), Together(server, vec![on(0), on(1)]));
    t.check(2, came[2].clone(), Together(server, vec![on(2)]));
    for (ms, (came, leave)) in (3..).zip(pieces(server, C).into_iter().zip(pieces(WEB, C))) {
        t.check(ms, came, Together(server, vec![leave.hop()]));
    }
}

/// What a server sends on its own account is nobody's request: it may be what the service itself
/// asks of the world.
#[test]
fn servers_ask_for_virtual_addresses_only() {
    let mut t = bed(ForwardMode::Nat, &[RS, RS2]);
    t.apply(set(&[to(7, "203.0.113.1", "80"), to(7, "0.0.0.0/0", "80")]));
    t.check(
        0,
        tcp("10.1.0.1:999", "8.8.8.8:80", "S"),
        Drop(DropReason::NotOurs),
    );
    t.check(
        1,
        tcp("10.1.0.1:999", WEB, "S"),
        on(tcp("10.1.0.1:999", RS2, "S")),
    );
    t.check(2, tcp(C, "8.8.8.8:80", "S"), on(tcp(C, RS, "S")));
    // It is a server's for as long as connections may refer to it.
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(
        3,
        tcp("10.1.0.1:998", "8.8.8.8:80", "S"),
        Drop(DropReason::NotOurs),
    );
    t.apply(Update::ForgetServer { id: ServerId(0) });
    t.check(
        4,
        tcp("10.1.0.1:998", "8.8.8.8:80", "S"),
        on(tcp("10.1.0.1:998", RS2, "S")),
    );
}

/// Directors that pass each other what is not theirs, as workers do.
struct Workers(Vec<Testbed>);

impl Workers {
    fn new(count: usize, make: impl Fn() -> Testbed) -> Self {
        let worker = |me| {
            let mut t = make();
            t.director.steer = Steer::new(me, count);
            t
        };
        Self((0..count).map(worker).collect())
    }

    /// What leaves when a packet comes in at `receiver`, and from which worker: one at most.
    fn send(&mut self, receiver: usize, frame: &Frame) -> Option<(usize, Vec<u8>)> {
        let (port, frame) = arriving(frame);
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
        let t = &mut self.0[receiver];
        t.director.process(Instant(0), port, &mut burst, &mut t.out);
        // To where the fragments of a datagram meet, and from there to their connection's worker.
        for _ in 0..2 {
            for from in 0..self.0.len() {
                for (to, port, hash, packet) in std::mem::take(&mut self.0[from].out.steered) {
                    let t = &mut self.0[to];
                    (t.director).process_handed(Instant(0), port, hash, packet, &mut t.out);
                }
            }
        }
        assert!(crate::counters::balanced(self.0.iter().map(|t| &*t.page)));
        let mut sent = Vec::new();
        for (worker, t) in self.0.iter_mut().enumerate() {
            assert_eq!(t.out.steered.len(), 0, "steered on");
            sent.extend(t.take().into_iter().map(|(_, frame)| (worker, frame)));
        }
        assert!(sent.len() <= 1);
        sent.pop()
    }

    fn connections(&self) -> u64 {
        let used = |t: &Testbed| u64::from(t.director.conns.used());
        self.0.iter().map(used).sum()
    }
}

/// Both directions of a connection meet at one worker, even where a rule holds for replies too.
#[test]
fn several_workers() {
    let everything = [MarkRule::new(7)];
    let of_clients = [MarkRule {
        source_ports: Some("1024-65535".parse().unwrap()),
        ..MarkRule::new(7)
    }];
    for rules in [&rules()[..], &everything, &of_clients] {
        let mut workers = Workers::new(4, || {
            let mut t = bed(ForwardMode::Nat, &["10.1.0.1:5004"]);
            t.apply(set(rules));
            t
        });
        let mut homes = [0; 4];
        for n in 0..40u16 {
            let client = format!("198.51.100.{}:{}", n % 7, 30000 + n);
            let server = "10.1.0.1:5004";
            let (receiver, other) = (usize::from(n % 4), usize::from((n + 1) % 4));
            let (home, frame) = workers.send(receiver, &udp(&client, MEDIA, b"x")).unwrap();
            assert_eq!(frame, leaving(&udp(&client, server, b"x").hop()).1.bytes());
            let back = workers.send(other, &udp(server, &client, b"y")).unwrap();
            let expected = leaving(&udp(MEDIA, &client, b"y").hop()).1.bytes();
            assert_eq!(back, (home, expected));
            // An error about the reply, from somewhere on its way.
            let quote = udp(MEDIA, &client, b"y").ip();
            let says = told("198.51.100.99", "203.0.113.77", 3, 3, 0, &quote);
            assert_eq!(workers.send(receiver, &says).unwrap().0, home);
            homes[home] += 1;
        }
        assert_eq!(workers.connections(), 40);
        assert!(homes.iter().all(|n| *n > 3), "{homes:?}");
    }
}

/// The packets of a deleted service still find their worker, which knows what to do with them.
#[test]
fn several_workers_after_the_service() {
    let mut workers = Workers::new(3, || bed(ForwardMode::Nat, &["10.1.0.1:5004"]));
    let client = |n: u16| format!("198.51.100.{n}:{}", 30000 + n);
    for n in 0..12u16 {
        assert!(workers.send(0, &udp(&client(n), MEDIA, b"x")).is_some());
    }
    for t in &mut workers.0 {
        let gone = Update::DeleteService { id: ServiceId(0) };
        t.director.apply(&gone, &mut t.out);
    }
    for n in 0..12u16 {
        assert_eq!(workers.send(0, &udp(&client(n), MEDIA, b"x")), None);
        assert!(
            workers
                .send(0, &udp("10.1.0.1:5004", &client(n), b"y"))
                .is_some()
        );
    }
    let gone = |t: &Testbed| t.page.ports[0].drops[DropReason::ServerGone as usize].get();
    assert_eq!(workers.0.iter().map(gone).sum::<u64>(), 12);
}

#[test]
fn several_workers_with_fragments_and_local_addresses() {
    let data: Vec<u8> = (0..100).collect();
    let mut workers = Workers::new(3, || {
        let mut t = bed(ForwardMode::FullNat, &["10.1.0.1:5004"]);
        t.apply(set(&[MarkRule::new(7)]));
        t
    });
    // A worker takes the ports that are its own, so it must know which it is.
    for t in &mut workers.0 {
        t.apply(local_addresses(0, &[L_IP]));
    }
    for n in 0..12u16 {
        let client = format!("192.0.2.10:{}", 30000 + n);
        let pieces = udp(&client, MEDIA, &data).id(n).pieces(40);
        let mut homes = Vec::new();
        let mut local = String::new();
        for (receiver, piece) in pieces.iter().enumerate() {
            let Some((home, frame)) = workers.send(receiver, piece) else {
                panic!("a fragment got lost")
            };
            if homes.is_empty() {
                local = format!("{L_IP}:{}", u16::from_be_bytes([frame[34], frame[35]]));
            }
            homes.push(home);
        }
        assert!(homes.iter().all(|home| *home == homes[0]), "{homes:?}");
        let reply = udp("10.1.0.1:5004", &local, b"y");
        let (home, frame) = workers.send(0, &reply).unwrap();
        assert_eq!(home, homes[0]);
        assert_eq!(frame, leaving(&udp(MEDIA, &client, b"y").hop()).1.bytes());
    }
    assert_eq!(workers.connections(), 12);
}

//! FULLNAT: local addresses come and go, and servers are told who their clients are.

use control::{ClientAddress, ServiceOptions};

use super::*;
use crate::update::{ServerId, ServiceId};

const L_IP: &str = "10.1.0.100";
const L: &str = "10.1.0.100:1024";
/// The client's address as TOA says it.
const TOA: [u8; 8] = [254, 8, 0x9c, 0x40, 192, 0, 2, 10];
const V1: &[u8] = b"PROXY TCP4 192.0.2.10 203.0.113.1 40000 80\r\n";
const V2: [u8; 28] = [
    0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12, 192, 0,
    2, 10, 203, 0, 113, 1, 0x9c, 0x40, 0, 80,
];

fn locals(addresses: &[&str]) -> Update {
    local_addresses(0, addresses)
}

/// Service 0 with this server.
fn bed(capacity: u32, protocol: Protocol, how: ClientAddress) -> Testbed {
    let mut t = Testbed::new(capacity, setup(true));
    t.add_service(0, protocol, VIP);
    t.apply(super::super::testbed::add_server_by(
        ForwardMode::FullNat,
        0,
        0,
        RS,
    ));
    t.apply(locals(&[L_IP]));
    let options = ServiceOptions {
        client_address: how,
        mss: None,
        ..ServiceOptions::default()
    };
    t.apply(Update::SetOptions {
        id: ServiceId(0),
        options,
    });
    t
}

fn leases(t: &Testbed) -> u32 {
    t.director.leases.in_use()
}

/// Client 1000, server 5000; the local port is `local`.
fn open(t: &mut Testbed, local: &str) {
    let syn = |from, to| tcp(from, to, "S").numbers(1000, 0);
    t.check(0, syn(C, VIP), on(syn(local, RS)));
    let synack = |from, to| tcp(from, to, "SA").numbers(5000, 1001);
    t.check(1, synack(RS, local), on(synack(VIP, C)));
}

fn is_fast(t: &mut Testbed) -> bool {
    !t.director.conns.at(0).unwrap().is_involved()
}

#[test]
fn local_addresses_take_turns_and_ports_go_up() {
    let mut t = bed(100, Udp, ClientAddress::None);
    t.apply(locals(&["10.1.0.100", "10.1.0.101"]));
    for (n, local) in [
        (1, "10.1.0.100:1024"),
        (2, "10.1.0.101:1024"),
        (3, "10.1.0.100:1025"),
        (4, "10.1.0.101:1025"),
    ] {
        let client = format!("192.0.2.10:{n}");
        t.check(0, udp(&client, VIP, b"x"), on(udp(local, RS, b"x")));
        t.check(1, udp(RS, local, b"y"), on(udp(VIP, &client, b"y")));
        t.check(2, udp(&client, VIP, b"z"), on(udp(local, RS, b"z")));
    }
    assert_eq!(leases(&t), 4);
    // Whatever comes to a local address without a connection is not carried on.
    t.check(
        3,
        tcp(RS, "10.1.0.100:1024", "A"),
        Refuse(DropReason::NotOurs, reset("10.1.0.100:1024", RS)),
    );
    t.wait(3, 400_000);
    assert_eq!((leases(&t), t.page.connections.get()), (0, 0));
}

#[test]
pub(super) fn no_local_address() {
    let mut t = bed(100, Tcp, ClientAddress::None);
    t.apply(locals(&[]));
    t.check(0, tcp(C, VIP, "S"), Drop(DropReason::NoLocalPort));
    t.apply(locals(&["2001:db8:1::100"]));
    t.check(0, tcp(C, VIP, "S"), Drop(DropReason::NoLocalPort));
    assert_eq!(t.page.connections.get(), 0);
    t.apply(locals(&[L_IP]));
    t.check(1, tcp(C, VIP, "S"), on(tcp(L, RS, "S")));
}

/// The ports run out; a client that begins anew from a port that its server may remember is
/// numbered beyond and goes without timestamps.
#[test]
fn the_last_port() {
    let mut t = bed(70_000, Tcp, ClientAddress::None);
    let timestamps = [1, 1, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
    let syn = |from, to| tcp(from, to, "S").numbers(1000, 0).tcp_options(&timestamps);
    t.check(0, syn(C, VIP), on(syn(L, RS)));
    for n in 1..64_512 {
        let client = format!("192.0.2.{}:{}", 10 + n % 100, 100 + n / 2);
        let sent = t.pass(0, &tcp(&client, VIP, "S"));
        assert_eq!(sent.len(), 1, "{client}");
    }
    assert_eq!(leases(&t), 64_512);
    t.check(
        1,
        tcp("192.0.2.10:1", VIP, "S"),
        Drop(DropReason::NoLocalPort),
    );
    t.check(
        2,
        tcp(RS, L, "RA").numbers(0, 1001),
        on(tcp(VIP, C, "RA").numbers(0, 1001)),
    );
    // CLOSE: begins anew.
    let again = tcp(C, VIP, "S").numbers(7000, 0).tcp_options(&timestamps);
    let beyond = 7000 + 0x1_0000 + 7000;
    let sent = tcp(L, RS, "S")
        .numbers(beyond, 0)
        .tcp_options(&[&[1, 1][..], &[1; 10]].concat());
    t.check(3, again, on(sent));
    t.check(
        4,
        tcp(RS, L, "SA").numbers(5000, beyond + 1),
        on(tcp(VIP, C, "SA").numbers(5000, 7001)),
    );
    t.check(
        5,
        tcp(C, VIP, "PA").numbers(7001, 5001).data(b"x"),
        on(tcp(L, RS, "PA").numbers(beyond + 1, 5001).data(b"x")),
    );
    t.wait(5, 400_000);
    assert_eq!(t.page.connections.get(), 1);
    t.wait(400_000, 1_000_000);
    assert_eq!((leases(&t), t.page.connections.get()), (0, 0));
}

#[test]
fn an_evicted_connection_gives_its_port_back() {
    let mut t = bed(2, Tcp, ClientAddress::None);
    for n in 0..5 {
        let (client, local) = (
            format!("192.0.2.10:{}", 100 + n),
            format!("{L_IP}:{}", 1024 + n),
        );
        t.check(n, tcp(&client, VIP, "S"), on(tcp(&local, RS, "S")));
        assert_eq!(leases(&t), n.min(1) + 1);
    }
}

#[test]
fn a_deleted_services_leases_come_back() {
    let mut t = bed(10, Tcp, ClientAddress::None);
    open(&mut t, L);
    t.apply(Update::DeleteService { id: ServiceId(0) });
    assert_eq!(leases(&t), 1);
    t.wait(1, 1_000_000);
    assert_eq!(leases(&t), 0);
    t.apply(Update::ForgetServer { id: ServerId(0) });
}

#[test]
fn toa_until_the_server_has_taken_data() {
    let mut t = bed(10, Tcp, ClientAddress::Toa);
    // Whatever a client claims to be: it is overwritten.
    let fake = [254, 8, 1, 2, 9, 9, 9, 9];
    let syn = tcp(C, VIP, "S").numbers(1000, 0).tcp_options(&fake);
    t.check(
        0,
        syn,
        on(tcp(L, RS, "S").numbers(1000, 0).tcp_options(&[1; 8])),
    );
    let mss = |mss: [u8; 2]| [2, 4, mss[0], mss[1]];
    let synack = |from, to| tcp(from, to, "SA").numbers(5000, 1001);
    t.check(
        1,
        synack(RS, L).tcp_options(&mss([5, 0xb4])),
        on(synack(VIP, C).tcp_options(&mss([5, 0xac]))),
    );
    let ack = |from, to| tcp(from, to, "A").numbers(1001, 5001);
    t.check(2, ack(C, VIP), on(ack(L, RS).tcp_options(&TOA)));
    let both = [&TOA[..], &[1; 8]].concat();
    t.check(
        3,
        ack(C, VIP).tcp_options(&fake),
        on(ack(L, RS).tcp_options(&both)),
    );
    let data = |from, to| tcp(from, to, "PA").numbers(1001, 5001).data(b"GET");
    t.check(4, data(C, VIP), on(data(L, RS).tcp_options(&TOA)));
    // No room for it: the segment goes without.
    let full = |from, to| data(from, to).data(&[7; 1460]).fragment(DONT_FRAGMENT);
    t.check(5, full(C, VIP), on(full(L, RS)));
    assert!(!is_fast(&mut t));
    let taken = |from, to| tcp(from, to, "A").numbers(5001, 1004);
    t.check(6, taken(RS, L), on(taken(VIP, C)));
    let more = |from, to| tcp(from, to, "PA").numbers(1004, 5001).data(b"more");
    t.check(7, more(C, VIP), on(more(L, RS)));
    assert!(is_fast(&mut t));
    t.check(8, more(C, VIP), on(more(L, RS)));
    t.check(9, taken(RS, L), on(taken(VIP, C)));
}

#[test]
fn proxy_headers() {
    for (how, header) in [(ClientAddress::ProxyV1, V1), (ClientAddress::ProxyV2, &V2)] {
        let len = u32::try_from(header.len()).unwrap();
        let mut t = bed(10, Tcp, how);
        open(&mut t, L);
        let ack = |from, to| tcp(from, to, "A").numbers(1001, 5001);
        t.check(2, ack(C, VIP), on(ack(L, RS).data(header)));
        t.check(3, ack(C, VIP), on(ack(L, RS).data(header)));
        let data = |from, to| tcp(from, to, "PA").numbers(1001, 5001);
        let both = [header, b"GET"].concat();
        t.check(4, data(C, VIP).data(b"GET"), on(data(L, RS).data(&both)));
        // No room for both: a segment of our own goes first.
        let full = vec![7; 1460];
        t.check(
            5,
            data(C, VIP).data(&full),
            End::Behind(
                ack(L, RS).data(header).hop(),
                data(L, RS).numbers(1001 + len, 5001).data(&full).hop(),
            ),
        );
        // A segment that overtook it is moved too.
        let later = |from, to, seq| tcp(from, to, "PA").numbers(seq, 5001).data(b"later");
        t.check(6, later(C, VIP, 1004), on(later(L, RS, 1004 + len)));
        let acks = |from, to, ack| tcp(from, to, "A").numbers(5001, ack);
        t.check(7, acks(RS, L, 1001 + len - 1), on(acks(VIP, C, 1001)));
        t.check(8, acks(RS, L, 1001 + len), on(acks(VIP, C, 1001)));
        t.check(9, acks(RS, L, 1004 + len), on(acks(VIP, C, 1004)));
        t.check(10, later(C, VIP, 1004), on(later(L, RS, 1004 + len)));
        let fin = |from, to, seq| tcp(from, to, "FA").numbers(seq, 5001);
        t.check(11, fin(C, VIP, 1009), on(fin(L, RS, 1009 + len)));
        let reset = |from, to, seq| tcp(from, to, "R").numbers(seq, 0);
        t.check(12, reset(C, VIP, 1010), on(reset(L, RS, 1010 + len)));
    }
}

#[test]
fn three_datagrams_tell_uoa() {
    let mut t = bed(10, Udp, ClientAddress::Uoa);
    let header = [0x10, 17, 0, 12, 0x9f, 8, 0x9c, 0x40, 192, 0, 2, 10];
    let told = |data: &[u8]| {
        let datagram = &udp(L, RS, data).ip()[20..];
        other_ip(L, RS, 248, &[&header[..], datagram].concat())
    };
    for ms in 0..2 {
        t.check(ms, udp(C, VIP, b"odd"), on(told(b"odd")));
        t.check(ms, udp(RS, L, b"back"), on(udp(VIP, C, b"back")));
    }
    // Full: the third goes without.
    let full = [1; 1472];
    t.check(2, udp(C, VIP, &full), on(udp(L, RS, &full)));
    t.check(3, udp(C, VIP, b"x"), on(udp(L, RS, b"x")));
    assert!(is_fast(&mut t));
}

#[test]
fn nothing_told_is_the_fast_path_at_once() {
    let mut t = bed(10, Udp, ClientAddress::None);
    t.check(0, udp(C, VIP, b"x"), on(udp(L, RS, b"x")));
    assert!(is_fast(&mut t));
    let mut t = bed(10, Tcp, ClientAddress::None);
    open(&mut t, L);
    let data = |from, to| tcp(from, to, "PA").numbers(1001, 5001).data(b"x");
    t.check(2, data(C, VIP), on(data(L, RS)));
    let ack = |from, to| tcp(from, to, "A").numbers(5001, 1002);
    t.check(3, ack(RS, L), on(ack(VIP, C)));
    assert!(is_fast(&mut t));
}

/// From the client or the server; its flags.
/// The server has a connection of the local port that the director does not know of, because a reset
/// was lost or the director began anew.
#[test]
fn a_server_that_remembers_the_local_port_is_asked_again() {
    let mut t = bed(10, Tcp, ClientAddress::Toa);
    let syn = |from, to| tcp(from, to, "S").numbers(1000, 0);
    t.check(1, syn(C, VIP), on(syn(L, RS)));
    let expects = |from, to| tcp(from, to, "A").numbers(5000, 777);
    t.check(2, expects(RS, L), on(expects(VIP, C)));
    let reset = |from, to| tcp(from, to, "R").numbers(777, 0);
    t.check(3, reset(C, VIP), on(reset(L, RS)));
    t.check(1001, syn(C, VIP), on(syn(L, RS)));
    assert_eq!(leases(&t), 1);
    let answer = tcp(RS, L, "SA").numbers(5000, 1001);
    assert_eq!(t.pass(1002, &answer).len(), 1);
    // The option of 8 bytes is there as in any connection.
    let ack = tcp(C, VIP, "A").numbers(1001, 5001);
    let told = t.pass(1003, &ack);
    assert_eq!(told[0].len(), ack.bytes().len() + 8);
}

type Steps = &'static [(bool, &'static str)];

#[test]
fn clients_begin_anew_in_every_state() {
    const OPEN: (bool, &str) = (false, "A");
    let table: [(&str, Steps, &str); 7] = [
        ("SYN_RECV", &[], L),
        ("FIN_WAIT", &[OPEN, (true, "FA")], L),
        ("CLOSE_WAIT", &[OPEN, (false, "FA")], L),
        (
            "TIME_WAIT",
            &[OPEN, (false, "FA"), (true, "FA")],
            "10.1.0.100:1025",
        ),
        ("CLOSE", &[OPEN, (true, "RA")], "10.1.0.100:1025"),
        ("CLOSE", &[OPEN, (false, "RA")], "10.1.0.100:1025"),
        ("ESTABLISHED", &[OPEN], L),
    ];
    for (state, steps, local) in table {
        let mut t = bed(10, Tcp, ClientAddress::Toa);
        open(&mut t, L);
        for (from_server, flags) in steps {
            let packet = match from_server {
                true => tcp(RS, L, flags).numbers(5001, 1001),
                false => tcp(C, VIP, flags).numbers(1001, 5001),
            };
            assert_eq!(t.pass(2, &packet).len(), 1);
        }
        let list = t.director.listed(Instant::from_ms(2));
        assert_eq!(list[0].state, state);
        let syn = |from, to| tcp(from, to, "S").numbers(900_000, 0);
        t.check(3, syn(C, VIP), on(syn(local, RS)));
        if state == "ESTABLISHED" {
            // The server says what it expects, the client resets it and begins again.
            let wrong = |from, to| tcp(from, to, "A").numbers(5001, 1001);
            t.check(4, wrong(RS, L), on(wrong(VIP, C)));
            let reset = |from, to| tcp(from, to, "R").numbers(1001, 0);
            t.check(5, reset(C, VIP), on(reset(L, RS)));
            t.check(6, syn(C, VIP), on(syn("10.1.0.100:1025", RS)));
        }
        let local = if state == "ESTABLISHED" {
            "10.1.0.100:1025"
        } else {
            local
        };
        let synack = |from, to| tcp(from, to, "SA").numbers(77, 900_001);
        t.check(7, synack(RS, local), on(synack(VIP, C)));
        let ack = |from, to| tcp(from, to, "A").numbers(900_001, 78);
        t.check(8, ack(C, VIP), on(ack(local, RS).tcp_options(&TOA)));
        assert_eq!(leases(&t), 1, "{state}");
    }
}

#[test]
fn the_segment_size_is_lowered_both_ways() {
    for mode in [ForwardMode::Nat, ForwardMode::FullNat] {
        let mut t = bed(10, Tcp, ClientAddress::None);
        t.apply(super::super::testbed::weigh_by(mode, 0, 1));
        let options = ServiceOptions {
            client_address: ClientAddress::None,
            mss: Some(1380),
            ..ServiceOptions::default()
        };
        t.apply(Update::SetOptions {
            id: ServiceId(0),
            options,
        });
        let local = if mode == ForwardMode::Nat { C } else { L };
        let mss = |n: u16| [2, 4, n.to_be_bytes()[0], n.to_be_bytes()[1]];
        let syn = |from, to, n| tcp(from, to, "S").tcp_options(&mss(n));
        t.check(0, syn(C, VIP, 1460), on(syn(local, RS, 1380)));
        t.check(1, syn(C, VIP, 1300), on(syn(local, RS, 1300)));
        let synack = |from, to, n| tcp(from, to, "SA").tcp_options(&mss(n));
        t.check(2, synack(RS, local, 8960), on(synack(VIP, C, 1380)));
    }
}

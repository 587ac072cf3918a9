//! Connections that are ended from here.

use control::{Filter, Netmask, OnServerGone, Persistence};

use super::*;
use crate::control::{Fate, Wanted};
use crate::director::testbed::Sent;
use crate::sched::Kind::Rr;
use crate::update::{Policy, ServerId, ServiceId};

const OTHER: &str = "192.0.2.10:40001";

fn cut(t: &mut Testbed, id: u32, reset: bool) {
    t.apply(Update::CutServer {
        id: ServerId(id),
        reset,
    });
}

/// What asks an end of a connection for its numbers.
fn probe(from: &str, to: &str) -> Sent {
    let (port, frame) = leaving(&ours(tcp(from, to, "A").numbers(0, 0)));
    (port, frame.bytes())
}

/// The reset that `tcp(from, to, …)` becomes on its way.
fn becomes(from: &str, to: &str) -> Frame {
    tcp(from, to, "R").numbers(1000, 0).window(0).ttl(63)
}

#[test]
fn all_connections_of_a_server_end() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    establish(&mut t, 0, OTHER, RS2);
    cut(&mut t, 1, false);
    assert_eq!(t.wait(1, 10), []);
    assert_eq!((t.load(0), t.load(1)), ((1, 0), (0, 0)));
    t.check(11, tcp(OTHER, VIP, "A"), on(tcp(OTHER, RS2, "A")));
    let refused = Refuse(DropReason::NoConnection, reset(VIP, C));
    t.check(11, tcp(C, VIP, "A"), refused);
    t.check(11, tcp(RS, C, "A"), Drop(DropReason::NotOurs));
}

#[test]
fn both_ends_are_asked_for_their_numbers_and_reset() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    cut(&mut t, 0, true);
    assert_eq!(t.wait(1, 10), [probe(VIP, C), probe(C, RS)]);
    assert_eq!(t.load(0), (0, 1), "in CLOSE");
    let told = Both(reset(VIP, C), becomes(C, RS));
    t.check(11, tcp(C, VIP, "A"), told.clone());
    // An end that did not take a reset that was not meant for it alone gets one of its own.
    let data = tcp(RS, C, "PA").data(b"late");
    t.check(12, data, Both(reset(C, RS), becomes(VIP, C)));
    t.check(13, tcp(C, VIP, "A"), told);
    t.wait(13, 11_000);
    assert_eq!(t.load(0), (0, 0));
}

#[test]
fn a_reset_of_a_connection_that_ends_goes_on() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    cut(&mut t, 0, true);
    t.wait(1, 10);
    let frame = tcp(C, VIP, "R").numbers(77, 0);
    t.check(11, frame, Forward(becomes(C, RS).numbers(77, 0)));
}

#[test]
fn a_client_may_begin_anew_at_once() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    cut(&mut t, 1, true);
    t.wait(1, 10);
    t.check(11, tcp(C, VIP, "S"), on(tcp(C, RS2, "S")));
    assert_eq!((t.load(0), t.load(1)), ((1, 0), (0, 0)));
}

#[test]
fn only_what_has_numbers_is_told() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    cut(&mut t, 0, true);
    assert_eq!(t.wait(1, 10), []);
    assert_eq!(t.load(0), (0, 0));

    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    cut(&mut t, 0, true);
    assert_eq!(t.wait(1, 10), []);
    assert_eq!(t.load(0), (0, 0));
}

#[test]
fn servers_that_answer_past_us_are_told_through_their_clients() {
    let mut t = Testbed::by(control::ForwardMode::Direct, Tcp, VIP, &[RS]);
    let direct = |flags| Direct(RS, tcp(C, VIP, flags).ttl(63));
    t.check(0, tcp(C, VIP, "S"), direct("S"));
    t.check(1, tcp(C, VIP, "A"), direct("A"));
    cut(&mut t, 0, true);
    assert_eq!(t.wait(1, 10), [probe(VIP, C)]);
    let sent = t.pass(11, &tcp(C, VIP, "A"));
    let goes_on = becomes(C, VIP).between(port_mac(SERVERS), mac("10.1.0.1"));
    assert_eq!(sent, [leaving(&reset(VIP, C)).1.bytes(), goes_on.bytes()]);
}

#[test]
fn over_ipv6_too() {
    let mut t = Testbed::nat(Tcp, VIP6, &[RS6]);
    t.check(0, tcp(C6, VIP6, "S"), on(tcp(C6, RS6, "S")));
    t.check(1, tcp(C6, VIP6, "A"), on(tcp(C6, RS6, "A")));
    cut(&mut t, 0, true);
    assert_eq!(t.wait(1, 10), [probe(VIP6, C6), probe(C6, RS6)]);
    let data = tcp(C6, VIP6, "PA").data(b"late");
    t.check(11, data, Both(reset(VIP6, C6), becomes(C6, RS6)));
}

#[test]
fn many_connections_end_a_few_at_a_time() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for port in 0..500 {
        let client = format!("192.0.2.10:{}", 1000 + port);
        t.check(0, tcp(&client, VIP, "S"), on(tcp(&client, RS, "S")));
    }
    cut(&mut t, 0, false);
    let mut left = vec![t.load(0).0];
    for ms in 1..6 {
        t.director.tick(Instant(ms), &mut t.out);
        left.push(t.load(0).0);
    }
    assert_eq!(left, [500, 372, 244, 116, 0, 0]);
}

#[test]
fn a_server_that_comes_back_keeps_what_it_still_has() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    on_server_gone(&mut t, OnServerGone::Reset);
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.apply(add_server(0, 0, RS, 1));
    t.wait(1, 10);
    t.check(11, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
}

#[test]
pub(super) fn what_cannot_be_turned_into_a_reset() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    cut(&mut t, 0, true);
    t.wait(1, 10);
    let pieces = tcp(C, VIP, "A").data(&[7; 40]).id(9).pieces(32);
    let (port, first) = arriving(&pieces[0]);
    t.check_bytes(11, port, &first.bytes(), Drop(DropReason::ConnectionCut));
}

/// Ends what `filter` chooses among the connections, or the templates; returns the clients.
fn end(t: &mut Testbed, ms: u32, filter: &Filter, templates: bool, reset: bool) -> Vec<String> {
    let now = Instant::from_ms(ms);
    let (mut clients, mut slice) = (Vec::new(), Some(0));
    while let Some(from) = slice {
        let wanted = Wanted {
            templates,
            from,
            filter: filter.clone(),
            fate: Fate::Ends { reset },
        };
        let (list, next) = t.director.connections(now, &wanted, &mut t.out);
        clients.extend(list.iter().map(|conn| conn.client.to_string()));
        slice = next;
    }
    clients
}

#[test]
fn chosen_connections_end() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    establish(&mut t, 0, OTHER, RS2);
    let of_client = Filter {
        client: Some(C.parse().unwrap()),
        ..Filter::default()
    };
    let of_templates = Filter {
        template: Some(true),
        ..Filter::default()
    };
    assert_eq!(end(&mut t, 1, &of_templates, false, false), [""; 0]);
    assert_eq!(end(&mut t, 1, &of_client, false, true), [C]);
    assert_eq!(t.take(), [probe(VIP, C), probe(C, RS)]);
    assert_eq!(
        end(&mut t, 2, &Filter::default(), false, false),
        [C, OTHER],
        "one that is being reset goes at once when it is asked for again"
    );
    assert_eq!(t.take(), []);
    assert_eq!((t.load(0), t.load(1)), ((0, 0), (0, 0)));
    t.settle();
    let refused = Refuse(DropReason::NoConnection, reset(VIP, C));
    t.check(11, tcp(C, VIP, "A"), refused);
}

#[test]
fn chosen_templates_end_and_clients_are_scheduled_anew() {
    let mut t = Testbed::new(1000, setup(true));
    let persistence = Persistence {
        timeout_s: 300,
        netmask: Netmask::whole(false),
    };
    t.apply(Update::AddService {
        id: ServiceId(0),
        key: key(Tcp, VIP),
        policy: Policy {
            persistence: Some(persistence),
            ..Policy::of(Rr)
        },
    });
    for (id, server) in [(0, RS2), (1, RS)] {
        t.apply(add_server(0, id, server, 1));
    }
    let syn = |port: u16| tcp(&format!("192.0.2.10:{port}"), VIP, "S");
    let server_of = |t: &Testbed| t.director.listed(Instant::from_ms(9)).pop().unwrap().server;
    t.pass(0, &syn(1));
    let first = server_of(&t);
    t.pass(0, &syn(2));
    assert_eq!(server_of(&t), first, "tied");
    let all = Filter::default();
    assert_eq!(end(&mut t, 1, &all, true, false), ["192.0.2.10:0"]);
    assert_eq!(
        t.director.listed(Instant::from_ms(1)).len(),
        2,
        "connections stay"
    );
    end(&mut t, 1, &all, false, false);
    t.pass(2, &syn(3));
    assert_ne!(server_of(&t), first);
    t.wait(3, 3000);
    let templates = t.director.listed_templates(Instant::from_ms(3000));
    assert_eq!(templates.len(), 1, "nothing is left of the old one");
    t.settle();
}

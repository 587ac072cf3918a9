//! Direct routing: packet in, the same packet out to the server's station, and what was counted.

use control::ForwardMode;
use control::Protocol::{self, Tcp, Udp};

use super::super::frames::{DONT_FRAGMENT, Frame, arp, tcp, udp};
use super::super::testbed::{
    C, End, RS, RS2, SERVERS, Testbed, VIP, add_server_by, arriving, mac, port_mac, setup, weigh_by,
};
use super::super::*;
use super::error;
use crate::packet::{Burst, HeapBuf};
use crate::update::ServerId;
use End::{Direct, Drop, Forward, Refuse};

/// Service 0 (`rr`) with these servers, all reached by direct routing.
fn direct(protocol: Protocol, servers: &[&str]) -> Testbed {
    let mut t = Testbed::new(100, setup(true));
    t.add_service(0, protocol, VIP);
    for (id, server) in (0..).zip(servers) {
        t.apply(add_server_by(ForwardMode::Direct, 0, id, server));
    }
    t
}

/// What a server is sent: the packet with one hop less to live.
fn to(server: &'static str, frame: Frame) -> End {
    let ttl = frame.ttl - 1;
    Direct(server, frame.ttl(ttl))
}

/// A reply of `RS` on its way through us, as where we are the server's gateway.
fn passing(t: &mut Testbed, ms: u32, reply: Frame) {
    let arrives = reply.clone().between(mac("10.1.0.1"), port_mac(SERVERS));
    t.check_bytes(ms, SERVERS, &arrives.bytes(), to(RS, reply));
}

fn states(t: &Testbed, ms: u32) -> Vec<String> {
    let list = t.director.listed(Instant::from_ms(ms));
    list.into_iter().map(|conn| conn.state).collect()
}

#[test]
fn a_tcp_connection_of_which_we_see_one_half() {
    let mut t = direct(Tcp, &[RS]);
    t.check(0, tcp(C, VIP, "S"), to(RS, tcp(C, VIP, "S")));
    assert_eq!(
        (states(&t, 0), t.load(0)),
        (vec!["SYN_RECV".into()], (1, 0))
    );
    t.check(1, tcp(C, VIP, "A"), to(RS, tcp(C, VIP, "A")));
    assert_eq!(states(&t, 1), ["ESTABLISHED"]);
    let request = tcp(C, VIP, "PA").data(b"GET / odd");
    t.check(2, request.clone(), to(RS, request));
    t.check(3, tcp(C, VIP, "FA"), to(RS, tcp(C, VIP, "FA")));
    assert_eq!(
        (states(&t, 3), t.load(0)),
        (vec!["FIN_WAIT".into()], (0, 1))
    );
    t.check(4, tcp(C, VIP, "A"), to(RS, tcp(C, VIP, "A")));
    assert_eq!(states(&t, 4), ["FIN_WAIT"]);
    t.wait(4, 122_000);
    assert_eq!((states(&t, 122_000).len(), t.load(0)), (0, (0, 0)));
}

#[test]
fn datagrams_are_left_as_they_are() {
    let mut t = direct(Udp, &[RS]);
    t.check(0, udp(C, VIP, b"ping"), to(RS, udp(C, VIP, b"ping")));
    let bare = udp(C, VIP, b"bare").without_checksum();
    t.check(1, bare.clone(), to(RS, bare));
}

#[test]
fn connections_take_turns() {
    let mut t = direct(Tcp, &[RS, RS2]);
    let clients = ["192.0.2.10:1", "192.0.2.10:2", "192.0.2.10:3"];
    for (client, server) in clients.into_iter().zip([RS2, RS, RS2]) {
        t.check(0, tcp(client, VIP, "S"), to(server, tcp(client, VIP, "S")));
    }
}

/// The reply clears "input only": what the client sends after it moves the state as in NAT.
#[test]
fn a_reply_that_passes_is_counted_and_believed() {
    let mut t = direct(Tcp, &[RS]);
    t.check(0, tcp(C, VIP, "S"), to(RS, tcp(C, VIP, "S")));
    passing(&mut t, 1, tcp(VIP, C, "SA"));
    assert_eq!(states(&t, 1), ["SYN_RECV"]);
    t.check(2, tcp(C, VIP, "A"), to(RS, tcp(C, VIP, "A")));
    passing(&mut t, 3, tcp(VIP, C, "PA").data(b"200"));
    assert_eq!(states(&t, 3), ["ESTABLISHED"]);
    t.check(4, tcp(C, VIP, "FA"), to(RS, tcp(C, VIP, "FA")));
    assert_eq!(states(&t, 4), ["CLOSE_WAIT"]);
}

#[test]
fn a_connection_keeps_its_method() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let (old, new) = ("192.0.2.10:1", "192.0.2.10:2");
    let translated = |flags| Forward(tcp(old, RS, flags).ttl(63));
    t.check(0, tcp(old, VIP, "S"), translated("S"));
    t.apply(weigh_by(ForwardMode::Direct, 0, 1));
    t.check(1, tcp(old, VIP, "A"), translated("A"));
    t.check(2, tcp(new, VIP, "S"), to(RS, tcp(new, VIP, "S")));
    t.apply(weigh_by(ForwardMode::Nat, 0, 1));
    t.check(3, tcp(new, VIP, "A"), to(RS, tcp(new, VIP, "A")));
    t.check(4, tcp(old, VIP, "A"), translated("A"));
}

#[test]
fn a_listing_names_the_server() {
    let mut t = direct(Tcp, &[RS]);
    t.check(0, tcp(C, VIP, "S"), to(RS, tcp(C, VIP, "S")));
    let list = t.director.listed(Instant::from_ms(0));
    let shown = list.iter().map(|c| [c.client, c.virtual_address, c.server]);
    let expected = [C, VIP, RS].map(|address| address.parse().unwrap());
    assert_eq!(shown.collect::<Vec<_>>(), [expected]);
    assert_eq!((list[0].in_packets, list[0].out_packets), (1, 0));
}

#[test]
pub(super) fn a_server_behind_a_gateway() {
    let mut t = direct(Tcp, &["198.51.100.9:80"]);
    t.check(0, tcp(C, VIP, "S"), Drop(DropReason::NotOnLink));
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::NotOnLink));
}

#[test]
fn a_deleted_server_is_not_asked_any_more() {
    let mut t = direct(Tcp, &[RS]);
    t.check(0, tcp(C, VIP, "S"), to(RS, tcp(C, VIP, "S")));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.apply(add_server_by(ForwardMode::Direct, 0, 0, RS));
    t.check(2, tcp(C, VIP, "A"), to(RS, tcp(C, VIP, "A")));
}

#[test]
fn errors_come_from_the_virtual_address() {
    let mut small = setup(true);
    small.interfaces[1].mtu = 1000;
    let mut t = Testbed::new(10, small);
    t.add_service(0, Udp, VIP);
    t.apply(add_server_by(ForwardMode::Direct, 0, 0, RS));
    t.check(0, udp(C, VIP, b"x"), to(RS, udp(C, VIP, b"x")));
    let dying = udp(C, VIP, b"x").ttl(1);
    let told = error("203.0.113.1", 11, 0, 0, &dying);
    t.check(1, dying, Refuse(DropReason::TtlExpired, told));
    let long = udp(C, VIP, &[7; 1001 - 28]).fragment(DONT_FRAGMENT);
    let told = error("203.0.113.1", 3, 4, 1000, &long);
    t.check(2, long, Refuse(DropReason::TooBig, told));
}

#[test]
fn a_packet_waits_until_the_server_is_known() {
    let mut t = Testbed::new(10, setup(true));
    t.add_service(0, Udp, VIP);
    t.apply(add_server_by(ForwardMode::Direct, 0, 0, "10.1.0.9:80"));
    let (port, frame) = arriving(&udp(C, VIP, b"x"));
    let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
    t.director
        .process(Instant::from_ms(0), port, &mut burst, &mut t.out);
    t.settle();
    let (ours, server) = ("10.1.0.254".parse().unwrap(), "10.1.0.9".parse().unwrap());
    let asked = arp(
        1,
        (port_mac(SERVERS), ours),
        ([0; 6], server),
        [0xff; 6],
        None,
    );
    assert_eq!(t.take(), [(SERVERS, asked)]);
    assert_eq!(t.page.held.get(), 1);
}

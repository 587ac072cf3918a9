//! What is not carried on, and what its sender is told.

use super::*;

#[test]
pub(super) fn no_server() {
    let mut t = Testbed::nat(Tcp, VIP, &[]);
    let syn = tcp(C, VIP, "S");
    t.check(
        0,
        syn.clone(),
        Refuse(DropReason::NoServer, error(VIP_IP, 3, 3, 0, &syn)),
    );
    assert_eq!(t.page.connections.get(), 0);
}

#[test]
pub(super) fn a_segment_without_connection_is_reset() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(
        0,
        tcp(C, VIP, "A"),
        Refuse(DropReason::NoConnection, reset(VIP, C)),
    );
    t.check(
        1,
        tcp(C, VIP, "PA"),
        Refuse(DropReason::NoConnection, reset(VIP, C)),
    );
    t.check(2, tcp(C, VIP, "R"), Drop(DropReason::NoConnection));
    t.check(3, tcp(C, VIP, "SR"), Drop(DropReason::NoConnection));
    // A server's stray reply is not ours to answer.
    t.check(4, tcp(RS, C, "A"), Drop(DropReason::NotOurs));
}

#[test]
pub(super) fn no_service_on_a_virtual_address() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let other = "203.0.113.1:81";
    t.check(
        0,
        tcp(C, other, "A"),
        Refuse(DropReason::NotOurs, reset(other, C)),
    );
    let datagram = udp(C, VIP, b"x");
    t.check(
        1,
        datagram.clone(),
        Refuse(DropReason::NotOurs, error(VIP_IP, 3, 3, 0, &datagram)),
    );
    let ours = "192.0.2.254:22";
    t.check(
        2,
        tcp(C, ours, "A"),
        Refuse(DropReason::NotOurs, reset(ours, C)),
    );
    t.check(3, tcp(C, "203.0.113.77:80", "S"), Drop(DropReason::NotOurs));
    t.check(
        4,
        udp(C, "203.0.113.77:80", b"x"),
        Drop(DropReason::NotOurs),
    );
    t.check(
        5,
        other_ip(C_IP, VIP_IP, 47, b"gre!"),
        Drop(DropReason::NotOurs),
    );
}

#[test]
fn answers_are_rationed() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for _ in 0..50 {
        t.check(
            0,
            tcp(C, VIP, "A"),
            Refuse(DropReason::NoConnection, reset(VIP, C)),
        );
    }
    t.check(0, tcp(C, VIP, "A"), Drop(DropReason::NoConnection));
    t.check(
        1,
        tcp(C, VIP, "A"),
        Refuse(DropReason::NoConnection, reset(VIP, C)),
    );
}

#[test]
pub(super) fn the_last_hop() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    let dying = tcp(C, VIP, "A").ttl(1);
    t.check(
        1,
        dying.clone(),
        Refuse(DropReason::TtlExpired, error(VIP_IP, 11, 0, 0, &dying)),
    );
    t.check(2, tcp(C, VIP, "A").ttl(2), on(tcp(C, RS, "A").ttl(2)));
    // The client is elsewhere: towards the server we speak for ourselves.
    let dying = tcp(RS, C, "A").ttl(1);
    let told = error("10.1.0.254", 11, 0, 0, &dying);
    t.check(3, dying, Refuse(DropReason::TtlExpired, told));
}

#[test]
pub(super) fn too_long_for_the_next_network() {
    let mut small = setup(true);
    small.interfaces[1].mtu = 1000;
    let mut t = Testbed::new(10, small);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    let fits = |frame: Frame| frame.data(&[7; 1000 - 28]).fragment(DONT_FRAGMENT);
    t.check(0, fits(udp(C, VIP, b"")), on(fits(udp(C, RS, b""))));
    let long = udp(C, VIP, b"")
        .data(&[7; 1001 - 28])
        .fragment(DONT_FRAGMENT);
    t.check(
        2,
        long.clone(),
        Refuse(DropReason::TooBig, error(VIP_IP, 3, 4, 1000, &long)),
    );
}

#[test]
pub(super) fn fragments_of_other_protocols() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    for place in [MORE_FRAGMENTS, 185] {
        let echo = icmp(C_IP, VIP_IP, 8, 0, [0; 4], b"12345678");
        t.check(0, echo.fragment(place), Drop(DropReason::Fragment));
    }
}

#[test]
pub(super) fn sources_that_no_client_has() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for bad in [
        "127.0.0.1:1",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "255.255.255.255:1",
        "192.0.2.255:1",
        "192.0.2.254:1",
        "10.1.0.254:1",
        "203.0.113.1:1",
    ] {
        let syn = tcp(bad, VIP, "S").between(mac(C_IP), port_mac(CLIENTS));
        t.check_bytes(0, CLIENTS, &syn.bytes(), Drop(DropReason::BadSource));
    }
}

#[test]
fn ftps_data_port_opens_nothing() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let ftp = "192.0.2.10:20";
    let answer = ours(tcp(VIP, ftp, "RA").numbers(0, 1001));
    t.check(
        0,
        tcp(ftp, VIP, "S"),
        Refuse(DropReason::NoConnection, answer),
    );
}

#[test]
pub(super) fn malformed_frames() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let (_, syn) = arriving(&tcp(C, VIP, "S"));
    let syn = syn.bytes();
    for len in 0..syn.len() {
        t.check_bytes(0, CLIENTS, &syn[..len], Drop(DropReason::Truncated));
    }
    let mut changed = |at: usize, to: u8, reason| {
        let mut frame = syn.clone();
        frame[at] = to;
        t.check_bytes(1, CLIENTS, &frame, Drop(reason));
    };
    changed(14, 0x65, DropReason::BadHeader); // version 6
    changed(14, 0x44, DropReason::BadHeader); // 16-byte header
    changed(14 + 20 + 12, 0x40, DropReason::BadHeader); // 16-byte TCP header
    changed(14 + 20 + 12, 0xf0, DropReason::BadHeader); // longer than the segment
    changed(12, 0x86, DropReason::UnknownEthertype);
    let ipv6 = link(mac(C_IP), port_mac(CLIENTS), None, 0x86dd);
    t.check_bytes(2, CLIENTS, &ipv6, Drop(DropReason::Truncated));
}

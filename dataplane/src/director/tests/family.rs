//! IPv6 clients of IPv4 servers and the reverse, by FULLNAT.

use control::{ClientAddress, ServiceOptions};

use super::*;
use crate::update::ServiceId;

const L: &str = "10.1.0.100:1024";
const L6: &str = "[2001:db8:1::100]:1024";

/// A service of one family with a server of the other.
fn bed(protocol: Protocol, vip: &str, server: &str, local: &str, how: ClientAddress) -> Testbed {
    let mut t = Testbed::by(ForwardMode::FullNat, protocol, vip, &[server]);
    let local = super::super::frames::address(local).ip().to_string();
    t.apply(local_addresses(0, &[&local]));
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

fn six_to_four(protocol: Protocol, how: ClientAddress) -> Testbed {
    bed(protocol, VIP6, RS, L, how)
}

fn four_to_six(protocol: Protocol, how: ClientAddress) -> Testbed {
    bed(protocol, VIP, RS6, L6, how)
}

/// As what was IPv6 leaves when whole.
fn v4(t: &Testbed, frame: Frame) -> Frame {
    frame.id(t.director.ip_id + 1).fragment(DONT_FRAGMENT).hop()
}

#[test]
fn tcp_both_ways() {
    let mut t = six_to_four(Tcp, ClientAddress::None);
    for (ms, flags) in (0..).zip(["S", "A", "PA"]) {
        let sent = v4(&t, tcp(L, RS, flags).tos(0xb8).data(b"odd"));
        t.check(
            ms,
            tcp(C6, VIP6, flags).tos(0xb8).data(b"odd"),
            Forward(sent),
        );
        let reply = if flags == "S" { "SA" } else { flags };
        t.check(
            ms,
            tcp(RS, L, reply).tos(8),
            on(tcp(VIP6, C6, reply).tos(8)),
        );
    }
    let mut t = four_to_six(Tcp, ClientAddress::None);
    for (ms, flags) in (0..).zip(["S", "A", "PA"]) {
        t.check(
            ms,
            tcp(C, VIP, flags).tos(0xb8),
            on(tcp(L6, RS6, flags).tos(0xb8)),
        );
        let sent = v4(&t, tcp(VIP, C, flags).data(b"odd"));
        t.check(ms, tcp(RS6, L6, flags).data(b"odd"), Forward(sent));
    }
}

#[test]
fn options_and_extension_headers_end_here() {
    let mut t = six_to_four(Udp, ClientAddress::None);
    let sent = v4(&t, udp(L, RS, b"x"));
    t.check(0, udp(C6, VIP6, b"x").extension(60, &[0; 6]), Forward(sent));
    let mut t = four_to_six(Udp, ClientAddress::None);
    t.check(
        0,
        udp(C, VIP, b"x").options(&[1; 4]),
        on(udp(L6, RS6, b"x")),
    );
}

#[test]
fn udp_checksums() {
    let mut t = four_to_six(Udp, ClientAddress::None);
    for ms in 0..2 {
        t.check(ms, udp(C, VIP, b"odd"), on(udp(L6, RS6, b"odd")));
        t.check(
            ms,
            udp(C, VIP, b"odd").without_checksum(),
            on(udp(L6, RS6, b"odd")),
        );
        let sent = v4(&t, udp(VIP, C, b"back"));
        t.check(ms, udp(RS6, L6, b"back"), Forward(sent));
    }
    let mut t = six_to_four(Udp, ClientAddress::None);
    let sent = v4(&t, udp(L, RS, b"odd"));
    t.check(0, udp(C6, VIP6, b"odd"), Forward(sent));
    t.check(
        1,
        udp(RS, L, b"odd").without_checksum(),
        on(udp(VIP6, C6, b"odd")),
    );
}

#[test]
fn the_client_is_told_in_its_own_family() {
    let mut t = six_to_four(Tcp, ClientAddress::Toa);
    let sent = v4(&t, tcp(L, RS, "S").numbers(1000, 0));
    t.check(0, tcp(C6, VIP6, "S").numbers(1000, 0), Forward(sent));
    let synack = |from, to| tcp(from, to, "SA").numbers(5000, 1001);
    t.check(1, synack(RS, L), on(synack(VIP6, C6)));
    let mut toa = vec![254, 20, 0x9c, 0x40, 0x20, 1, 0xd, 0xb8, 0, 0xc];
    toa.extend([0; 9]);
    toa.push(0x10);
    let ack = |from, to| tcp(from, to, "A").numbers(1001, 5001);
    let sent = v4(&t, ack(L, RS).tcp_options(&toa));
    t.check(2, ack(C6, VIP6), Forward(sent));

    let mut t = six_to_four(Tcp, ClientAddress::ProxyV1);
    let sent = v4(&t, tcp(L, RS, "S").numbers(1000, 0));
    t.check(0, tcp(C6, VIP6, "S").numbers(1000, 0), Forward(sent));
    t.check(1, synack(RS, L), on(synack(VIP6, C6)));
    let header = b"PROXY TCP6 2001:db8:c::10 2001:db8:f::1 40000 80\r\n";
    let sent = v4(&t, ack(L, RS).data(header));
    t.check(2, ack(C6, VIP6), Forward(sent));
}

#[test]
fn fragments_both_ways() {
    let data = [5; 100];
    let mut t = six_to_four(Udp, ClientAddress::None);
    let whole = |from, to| udp(from, to, &data);
    for (piece, sent) in whole(C6, VIP6)
        .pieces(40)
        .iter()
        .zip(whole(L, RS).pieces(40))
    {
        t.check(0, piece.clone(), on(sent));
    }
    for (piece, sent) in whole(RS, L)
        .pieces(40)
        .iter()
        .zip(whole(VIP6, C6).pieces(40))
    {
        t.check(1, piece.clone(), on(sent));
    }
    let mut t = four_to_six(Udp, ClientAddress::None);
    for (piece, sent) in whole(C, VIP)
        .pieces(40)
        .iter()
        .zip(whole(L6, RS6).pieces(40))
    {
        t.check(0, piece.clone(), on(sent));
    }
    for (piece, sent) in whole(RS6, L6)
        .pieces(40)
        .iter()
        .zip(whole(VIP, C).pieces(40))
    {
        t.check(1, piece.clone(), on(sent));
    }
    // Without a checksum nobody can make one for the parts (RFC 7915 §4.5).
    let bare = whole(C, VIP).without_checksum().pieces(40);
    let dropped = |t: &Testbed| t.page.port(CLIENTS).drops[DropReason::Fragment as usize].get();
    for (n, piece) in (1..).zip(&bare) {
        assert_eq!(t.pass(2, piece), Vec::<Vec<u8>>::new());
        assert_eq!(dropped(&t), n);
    }
}

#[test]
fn what_is_too_long_for_the_other_family() {
    let mut t = six_to_four(Udp, ClientAddress::None);
    let sent = v4(&t, udp(L, RS, &[1; 1452]));
    t.check(0, udp(C6, VIP6, &[1; 1452]), Forward(sent));
    // The reply is longer over IPv6: its sender is told, or it is cut.
    let long = udp(RS, L, &[1; 1472]);
    let whole = long.clone().fragment(DONT_FRAGMENT);
    let told = error("10.1.0.100", 3, 4, 1472, &whole);
    t.check(1, whole, Refuse(DropReason::TooBig, told));
    let sent = udp(VIP6, C6, &[1; 1472]).hop().pieces(1448);
    t.check(2, long, End::Back(RS, sent));

    let mut small = setup(true);
    small.interfaces[1].mtu = 1300;
    t.director.net = crate::net::Net::new(small);
    let fits = udp(C6, VIP6, &[1; 1300 - 28]);
    let sent = v4(&t, udp(L, RS, &[1; 1300 - 28]));
    t.check(3, fits, Forward(sent));
    let long = udp(C6, VIP6, &[1; 1301 - 28]);
    let told = error(VIP6_IP, 2, 0, 1320, &long);
    t.check(4, long, Refuse(DropReason::TooBig, told));
}

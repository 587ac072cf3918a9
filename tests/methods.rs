//! What is sent in the cases of the forwarding methods, of both families.

use std::net::{IpAddr, Ipv6Addr};

use system_tests::frames::Mac;
use system_tests::packets::{Packet, framed, icmp, sctp, tcp, udp, wrapped};

use crate::{CLIENT_MAC, Capture, SERVER_MAC, port_mac};

const C4: &str = "192.0.2.10:40000";
const C6: &str = "[2001:db8::10]:40000";
const CLIENTS: [&str; 2] = [C4, C6];
/// The first local port that is leased.
const LOCALS: [&str; 2] = ["10.1.0.200:1024", "[2001:db8:1::200]:1024"];
const SERVERS: [&str; 2] = ["10.1.0.1", "2001:db8:1::1"];
const FAMILIES: [usize; 2] = [0, 1];
/// TCP options: a maximum segment size of 1460.
const MSS: [u8; 4] = [2, 4, 0x05, 0xb4];
/// As much as fits into a datagram over IPv4 whose packet is 1500 long.
const LONG: [u8; 1472] = [0x5a; 1472];

/// Unreachable port, next hop too narrow, hop limit exceeded: ICMP type and code by family.
const PORT_UNREACHABLE: [[u8; 2]; 2] = [[3, 3], [1, 4]];
const TOO_BIG: [[u8; 2]; 2] = [[3, 4], [2, 0]];
const EXCEEDED: [[u8; 2]; 2] = [[11, 0], [3, 0]];

impl Capture {
    fn client_sends(&mut self, ms: u32, packet: &Packet) {
        self.raw(ms, 0, packet.between(CLIENT_MAC, port_mac(0)));
    }

    fn server_sends(&mut self, ms: u32, packet: &Packet) {
        self.raw(ms, 1, packet.between(SERVER_MAC, port_mac(1)));
    }

    /// A handshake that the server sees as `[source, server]` and the client as `[client, vip]`.
    fn opened(&mut self, ms: u32, [client, vip]: [&str; 2], [source, server]: [&str; 2]) {
        let syn = tcp(client, vip, "S").numbers(1000, 0).options(&MSS);
        let answer = tcp(server, source, "SA").numbers(5000, 1001).options(&MSS);
        self.client_sends(ms, &syn);
        self.server_sends(ms + 1, &answer);
        self.client_sends(ms + 2, &tcp(client, vip, "A").numbers(1001, 5001));
    }

    /// A handshake, a question, its answer and an end; the server reads `header` bytes more than
    /// the client wrote.
    fn exchanged(&mut self, ms: u32, ends: [&str; 2], to: [&str; 2], header: usize) {
        let ([client, vip], [source, server]) = (ends, to);
        let header = u32::try_from(header).expect("a short header");
        self.opened(ms, ends, to);
        let ask = tcp(client, vip, "PA").numbers(1001, 5001).data(b"GET");
        self.client_sends(ms + 3, &ask);
        let answer = tcp(server, source, "PA").numbers(5001, 1004 + header);
        self.server_sends(ms + 4, &answer.data(b"found"));
        self.client_sends(ms + 5, &tcp(client, vip, "FA").numbers(1004, 5006));
        let last = tcp(server, source, "FA").numbers(5006, 1005 + header);
        self.server_sends(ms + 6, &last);
        self.client_sends(ms + 7, &tcp(client, vip, "A").numbers(1005, 5007));
    }

    fn asked(&mut self, ms: u32, [client, vip]: [&str; 2], [source, server]: [&str; 2]) {
        self.client_sends(ms, &udp(client, vip, b"question"));
        self.server_sends(ms + 1, &udp(server, source, b"an answer"));
    }
}

/// Virtual address `n` of a family (0: IPv4).
fn vip(family: usize, n: u8, port: u16) -> String {
    match family {
        0 => format!("203.0.113.{n}:{port}"),
        _ => format!("[2001:db8:f::{n}]:{port}"),
    }
}

fn server(family: usize, port: u16) -> String {
    match family {
        0 => format!("{}:{port}", SERVERS[0]),
        _ => format!("[{}]:{port}", SERVERS[1]),
    }
}

/// An address without its port.
fn ip(of: &str) -> &str {
    of.rsplit_once(':')
        .map_or(of, |(ip, _)| ip.trim_matches(['[', ']']))
}

pub(crate) fn nat6(c: &mut Capture) {
    let (vip80, vip53) = (vip(1, 6, 80), vip(1, 6, 53));
    let (web, dns) = (server(1, 8080), server(1, 5353));
    c.exchanged(0, [C6, &vip80], [C6, &web], 0);
    c.asked(10, [C6, &vip53], [C6, &dns]);
    c.client_sends(20, &tcp(C6, &vip80, "A").ttl(1).numbers(1005, 5007));
    c.client_sends(30, &tcp("[2001:db8::10]:40001", &vip80, "A"));
    c.client_sends(40, &udp(C6, &vip(1, 6, 54), b"nobody"));
    let echo = icmp(ip(C6), ip(&vip80), [128, 0], [0, 7, 0, 1], b"abcdefg");
    c.client_sends(50, &echo);
    let long = tcp(C6, &vip80, "PA")
        .numbers(1005, 5007)
        .data(&LONG[..1440]);
    c.client_sends(60, &long);
    // The first connection's TIME_WAIT is over.
    c.server_sends(130_000, &tcp(&web, C6, "A"));
}

pub(crate) fn nat_sctp(c: &mut Capture) {
    const DATA: u8 = 0;
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const COOKIE_ECHO: u8 = 10;
    const COOKIE_ACK: u8 = 11;
    for (ms, family) in (0..).step_by(100).zip(FAMILIES) {
        let (client, vip) = (CLIENTS[family], vip(family, 7, 5000));
        let server = server(family, 5001);
        c.client_sends(ms, &sctp(client, &vip, 0, INIT, &[7; 16]));
        c.server_sends(ms + 1, &sctp(&server, client, 1, INIT_ACK, &[8; 20]));
        c.client_sends(ms + 2, &sctp(client, &vip, 2, COOKIE_ECHO, &[9; 4]));
        c.server_sends(ms + 3, &sctp(&server, client, 1, COOKIE_ACK, &[]));
        c.client_sends(ms + 4, &sctp(client, &vip, 2, DATA, &[1; 19]));
        c.server_sends(ms + 5, &sctp(&server, client, 1, DATA, &[2; 14]));
    }
    c.client_sends(
        200,
        &sctp("192.0.2.10:1", &vip(0, 7, 5000), 2, DATA, &[3; 13]),
    );
}

pub(crate) fn direct6(c: &mut Capture) {
    let vip = vip(1, 8, 80);
    for (ms, flags) in (0..).zip(["S", "A", "PA", "FA"]) {
        c.client_sends(ms, &tcp(C6, &vip, flags));
    }
    c.client_sends(4, &tcp(C6, &vip, "A").ttl(1));
    c.client_sends(5, &udp(C6, &self::vip(1, 8, 53), b"question"));
    // Its server sends its answers through us.
    c.server_sends(6, &tcp(&vip, C6, "SA"));
}

/// To each server of a tunnel: a packet of each family, from port 1 on.
fn dig(c: &mut Capture, n: u8, ports: u16) {
    for port in 1..=ports {
        let ms = u32::from(port) * 10;
        c.client_sends(ms, &udp(C4, &vip(0, n, port), b"question").dont_fragment());
        c.client_sends(ms + 1, &udp(C6, &vip(1, n, port), b"another").ttl(9));
    }
    // What is too long for the tunnel: the last two are of either outer family.
    for (ms, port) in (1000..).step_by(10).zip(ports - 1..=ports) {
        let long = udp(C4, &vip(0, n, port), &LONG).id(port);
        c.client_sends(ms, &long);
        c.client_sends(ms + 1, &long.dont_fragment());
        c.client_sends(ms + 2, &udp(C6, &vip(1, n, port), &LONG[..1452]));
    }
}

pub(crate) fn tunnel_ipip(c: &mut Capture) {
    dig(c, 10, 2);
    // A router on the way to the server wants less.
    let inner = udp(C4, &vip(0, 10, 1), &[1; 600]).dont_fragment().ttl(63);
    let outer = wrapped("10.1.0.254", SERVERS[0], 4, &inner.ip());
    let narrow = [0, 0, 600u16.to_be_bytes()[0], 600u16.to_be_bytes()[1]];
    let from_router = icmp("10.1.0.2", "10.1.0.254", TOO_BIG[0], narrow, &outer.ip());
    c.server_sends(2000, &from_router);
    c.client_sends(2001, &inner.clone().ttl(64));
    c.client_sends(2002, &udp(C6, &vip(1, 10, 1), &[1; 600]));
}

pub(crate) fn tunnel_gre(c: &mut Capture) {
    dig(c, 11, 4);
}

pub(crate) fn tunnel_gue(c: &mut Capture) {
    dig(c, 12, 6);
}

pub(crate) fn fullnat_toa(c: &mut Capture) {
    for (ms, family) in (0..).step_by(100).zip(FAMILIES) {
        let ends = [CLIENTS[family], &vip(family, 20, 80)];
        c.exchanged(ms, ends, [LOCALS[family], &server(family, 8080)], 0);
    }
    // No room for the option: it goes without.
    let (client, vip) = ("192.0.2.10:40001", vip(0, 20, 80));
    c.opened(200, [client, &vip], ["10.1.0.200:1025", &server(0, 8080)]);
    let full = tcp(client, &vip, "PA")
        .numbers(1001, 5001)
        .options(&[1; 40]);
    c.client_sends(203, &full.data(b"GET"));
}

pub(crate) fn fullnat_proxy(c: &mut Capture) {
    let mut ms = 0;
    for family in FAMILIES {
        let client = CLIENTS[family];
        for port in [80, 81] {
            let vip = vip(family, 21, port);
            let v1 = format!("PROXY TCP4 {} {} 40000 81\r\n", ip(client), ip(&vip));
            let header = match port {
                80 => [28, 52][family],
                _ => v1.len(),
            };
            let to = [LOCALS[family], &server(family, 8000 + port)];
            c.exchanged(ms, [client, &vip], to, header);
            ms += 100;
        }
    }
    // A first segment that leaves no room for the header.
    let (client, vip) = ("192.0.2.10:40001", vip(0, 21, 80));
    c.opened(ms, [client, &vip], ["10.1.0.200:1025", &server(0, 8080)]);
    let full = tcp(client, &vip, "PA")
        .numbers(1001, 5001)
        .data(&LONG[..1440]);
    c.client_sends(ms + 3, &full);
}

pub(crate) fn fullnat_udp(c: &mut Capture) {
    for (ms, family) in (0..).step_by(100).zip(FAMILIES) {
        let client = CLIENTS[family];
        for port in [53, 54] {
            let to = [LOCALS[family], &server(family, port)];
            c.asked(ms, [client, &vip(family, 22, port)], to);
        }
        for ms in ms + 10..ms + 13 {
            c.client_sends(ms, &udp(client, &vip(family, 22, 53), b"again"));
        }
    }
}

/// Clients of one family, servers of the other.
fn across(c: &mut Capture, n: u8, clients: usize, proxy_len: usize) {
    let (client, servers) = (CLIENTS[clients], 1 - clients);
    for (ms, (port, header)) in (0..).step_by(100).zip([(80, 0), (81, proxy_len)]) {
        let to = [LOCALS[servers], &server(servers, 8000 + port)];
        c.exchanged(ms, [client, &vip(clients, n, port)], to, header);
    }
    let dns = vip(clients, n, 53);
    c.asked(200, [client, &dns], [LOCALS[servers], &server(servers, 53)]);
    let long = udp(client, &dns, &LONG[..[1472, 1452][clients]]);
    c.client_sends(210, &long);
    c.client_sends(211, &long.dont_fragment());
    // The server's host says that nobody listens.
    let quoted = udp(LOCALS[servers], &server(servers, 53), b"question").ttl(63);
    let (from, to) = (SERVERS[servers], ip(LOCALS[servers]));
    let error = icmp(from, to, PORT_UNREACHABLE[servers], [0; 4], &quoted.ip());
    c.server_sends(220, &error);
    let quoted = udp(&dns, client, b"an answer");
    let (from, to) = (ip(client), ip(&dns));
    let error = icmp(from, to, PORT_UNREACHABLE[clients], [0; 4], &quoted.ip());
    c.client_sends(221, &error);
    let pieces = udp(client, &dns, &[3; 400]).fragments([0, 208]);
    for (ms, piece) in (230..).zip(pieces) {
        c.raw(ms, 0, framed(&piece, CLIENT_MAC, port_mac(0)));
    }
}

pub(crate) fn fullnat_64(c: &mut Capture) {
    across(c, 23, 1, 52);
}

pub(crate) fn fullnat_46(c: &mut Capture) {
    across(c, 24, 0, 28);
}

/// About a connection through NAT, then about one through FULLNAT, each from both sides.
pub(crate) fn icmp_errors(c: &mut Capture) {
    const ROUTERS: [[&str; 2]; 2] = [["192.0.2.1", "10.1.0.2"], ["2001:db8::1", "2001:db8:1::2"]];
    let narrow = [0, 0, 0x05, 0x78];
    let mut ms = 0;
    for family in FAMILIES {
        let client = CLIENTS[family];
        let [outside, inside] = ROUTERS[family];
        for (n, source, port) in [(30, client, 8080), (31, LOCALS[family], 8082)] {
            let (vip, server) = (vip(family, n, 80), server(family, port));
            c.opened(ms, [client, &vip], [source, &server]);
            let asked = tcp(source, &server, "PA").numbers(1001, 5001).ttl(63);
            let asked = asked.data(b"GET").ip();
            let to = ip(source);
            c.server_sends(
                ms + 10,
                &icmp(
                    SERVERS[family],
                    to,
                    PORT_UNREACHABLE[family],
                    [0; 4],
                    &asked,
                ),
            );
            c.server_sends(ms + 11, &icmp(inside, to, TOO_BIG[family], narrow, &asked));
            c.server_sends(ms + 12, &icmp(inside, to, EXCEEDED[family], [0; 4], &asked));
            let answered = tcp(&vip, client, "PA").numbers(5001, 1004).ttl(63);
            let answered = answered.data(b"found").ip();
            let to = ip(&vip);
            c.client_sends(
                ms + 20,
                &icmp(ip(client), to, PORT_UNREACHABLE[family], [0; 4], &answered),
            );
            // No more than a router must quote.
            let short = &answered[..[28, 48][family]];
            c.client_sends(ms + 21, &icmp(outside, to, TOO_BIG[family], narrow, short));
            ms += 100;
        }
    }
    // About no connection.
    let stray = tcp(&vip(0, 30, 80), "192.0.2.10:1", "A").ip();
    let to = vip(0, 30, 80);
    c.client_sends(
        ms,
        &icmp(ip(C4), ip(&to), PORT_UNREACHABLE[0], [0; 4], &stray),
    );
}

pub(crate) fn fragments(c: &mut Capture) {
    let mut ms = 0;
    let mut sent = |at: u32, port: u8, piece: &[u8]| {
        let from = [CLIENT_MAC, SERVER_MAC][usize::from(port)];
        c.raw(at, port, framed(piece, from, port_mac(port)));
    };
    for family in FAMILIES {
        let client = CLIENTS[family];
        for n in [33, 34] {
            let vip = vip(family, n, 53);
            let starts = [0, 208, 304];
            let [first, second, third] = udp(client, &vip, &[1; 400]).fragments(starts);
            for (at, piece) in (ms..).zip([&first, &second, &third]) {
                sent(at, 0, piece);
            }
            let [first, second, third] = udp(client, &vip, &[2; 400]).id(7).fragments(starts);
            for (at, piece) in (ms + 10..).zip([&third, &second, &first]) {
                sent(at, 0, piece);
            }
            ms += 100;
        }
        let answer = udp(&server(family, 53), client, &[3; 300]).fragments([0, 160]);
        for (at, piece) in (ms..).zip(answer) {
            sent(at, 1, &piece);
        }
        // Its first one never comes.
        let [_, second] = udp(client, &vip(family, 33, 53), &[4; 300])
            .id(9)
            .fragments([0, 160]);
        sent(ms + 10, 0, &second);
        ms += 100;
    }
    let [whole] = udp(C4, &vip(0, 33, 53), b"later").fragments([0]);
    sent(120_000, 0, &whole);
}

/// Where neighbours are asked for an address.
fn solicited(address: &str) -> (Mac, String) {
    let [.., a, b, c] = address.parse::<Ipv6Addr>().expect("an address").octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    ([0x33, 0x33, 0xff, a, b, c], group.to_string())
}

/// A neighbour discovery message about `target`: what the type is, flags, and the sender's station.
fn discovery(ends: [&str; 2], kind: u8, flags: u8, target: &str, option: &[u8]) -> Packet {
    let Ok(IpAddr::V6(target)) = target.parse() else {
        panic!("{target} is no IPv6 address")
    };
    let rest = [flags, 0, 0, 0];
    let data = [target.octets().as_slice(), option].concat();
    icmp(ends[0], ends[1], [kind, 0], rest, &data).ttl(255)
}

pub(crate) fn nd(c: &mut Capture) {
    const SOLICIT: u8 = 135;
    const ADVERTISE: u8 = 136;
    let station = |kind: u8, mac: Mac| [&[kind, 1], mac.as_slice()].concat();
    let from_client = station(1, CLIENT_MAC);
    // A virtual address, our own, somebody else's; then to find a duplicate of it.
    let virtual_one = "2001:db8:f::6";
    for (ms, target) in (0..).zip([virtual_one, "2001:db8::fe", "2001:db8::99"]) {
        let (mac, group) = solicited(target);
        let ask = discovery(["2001:db8::10", &group], SOLICIT, 0, target, &from_client);
        c.raw(ms, 0, ask.between(CLIENT_MAC, mac));
    }
    let (mac, group) = solicited(virtual_one);
    let probe = discovery(["::", &group], SOLICIT, 0, virtual_one, &[]);
    c.raw(10, 0, probe.between(CLIENT_MAC, mac));
    let forwarded = discovery(["2001:db8::10", virtual_one], SOLICIT, 0, virtual_one, &[]);
    c.client_sends(11, &forwarded);
    // Not from a neighbour: it passed a router.
    c.client_sends(12, &forwarded.ttl(254));
    // A client that is no static neighbour is asked for, when its server answers.
    let (client, vip) = ("[2001:db8::77]:40000", vip(1, 6, 53));
    c.asked(100, [client, &vip], [client, &server(1, 5353)]);
    let ends = ["2001:db8::77", "2001:db8::fe"];
    let told = discovery(ends, ADVERTISE, 0x60, ends[0], &station(2, CLIENT_MAC));
    c.client_sends(110, &told);
    c.server_sends(120, &udp(&server(1, 5353), client, b"more"));
}

/// Errors about connections that are not there open them.
pub(crate) fn schedule_icmp(c: &mut Capture) {
    for (ms, family) in (0..).step_by(100).zip(FAMILIES) {
        let client = CLIENTS[family];
        for (ms, port) in (ms..).step_by(10).zip([80, 81]) {
            let vip = vip(family, 40, port);
            let about = tcp(&vip, client, "A").numbers(5001, 1001).ip();
            let error = icmp(
                ip(client),
                ip(&vip),
                PORT_UNREACHABLE[family],
                [0; 4],
                &about,
            );
            c.client_sends(ms, &error);
            c.client_sends(ms + 1, &tcp(client, &vip, "A").numbers(1001, 5001));
        }
        // Too long for the tunnel, and no error answers an error.
        let vip = vip(family, 40, 81);
        let about = tcp(&vip, client, "A").data(&LONG).ip();
        let about = &about[..[1472, 1452][family]];
        let error = icmp(
            ip(client),
            ip(&vip),
            PORT_UNREACHABLE[family],
            [0; 4],
            about,
        );
        c.client_sends(ms + 40, &error);
        let nowhere = self::vip(family, 40, 82);
        let about = tcp(&nowhere, client, "A").ip();
        let to = ip(&nowhere);
        let error = icmp(ip(client), to, PORT_UNREACHABLE[family], [0; 4], &about);
        c.client_sends(ms + 50, &error);
    }
}

pub(crate) fn mss(c: &mut Capture) {
    for (ms, family) in (0..).step_by(100).zip(FAMILIES) {
        let (client, vip) = (CLIENTS[family], vip(family, 35, 80));
        c.opened(ms, [client, &vip], [client, &server(family, 80)]);
        // Low enough, none, and one at an odd place.
        let mut options = [
            [2, 4, 0x04, 0xb0].as_slice(),
            &[],
            &[1, 2, 4, 0x05, 0xb4, 1, 1, 1],
        ];
        options.reverse();
        for (ms, options) in (ms + 10..).zip(options) {
            let syn = tcp(&client.replace("40000", &ms.to_string()), &vip, "S");
            c.client_sends(ms, &syn.options(options));
        }
    }
}

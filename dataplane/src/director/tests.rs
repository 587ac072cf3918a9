//! The table: packet in, packet out, and what was counted.

mod direct; // what direct routing leaves alone

use control::Protocol;

use super::frames::{DONT_FRAGMENT, Frame, MORE_FRAGMENTS, arp, icmp, link, other_ip, tcp, udp};
use super::testbed::{
    C, CLIENTS, End, RS, RS2, SERVERS, Testbed, VIP, add_server, arriving, key, leaving, mac,
    port_mac, seen, setup, weigh,
};
use super::*;
use crate::packet::HeapBuf;
use crate::update::Update;
use End::{Answer, Consume, Drop, Forward, ForwardUncounted, Hold, Refuse};
use Protocol::{Tcp, Udp};

const VIP_IP: &str = "203.0.113.1";
const C_IP: &str = "192.0.2.10";

/// What the director sends on: one hop less to live.
fn on(frame: Frame) -> End {
    let ttl = frame.ttl - 1;
    Forward(frame.ttl(ttl))
}

/// A TCP connection in ESTABLISHED at 2 ms, from this client to the server that is next.
fn establish(t: &mut Testbed, at: u32, client: &str, server: &str) {
    t.check(at, tcp(client, VIP, "S"), on(tcp(client, server, "S")));
    t.check(at, tcp(server, client, "SA"), on(tcp(VIP, client, "SA")));
    t.check(at, tcp(client, VIP, "A"), on(tcp(client, server, "A")));
}

/// As the director makes packets.
fn ours(mut frame: Frame) -> Frame {
    frame.id = 0;
    frame.fragment(DONT_FRAGMENT).window(0)
}

/// The reset that answers `tcp(from, to, "A")`.
fn reset(from: &str, to: &str) -> Frame {
    ours(tcp(from, to, "R").numbers(2000, 0))
}

/// An ICMP error about `original`, from `from` to its sender.
fn error(from: &str, kind: u8, code: u8, mtu: u16, original: &Frame) -> Frame {
    let [a, b] = mtu.to_be_bytes();
    let quote: Vec<u8> = original.ip().into_iter().take(576 - 28).collect();
    let to = original.from.ip().to_string();
    let mut error = icmp(from, &to, kind, code, [0, 0, a, b], &quote);
    error.tos = 0xc0;
    ours(error)
}

/// A server without a port is asked at the one that the client asked.
#[test]
fn a_server_with_port_0_keeps_the_port() {
    let (vip, asked) = (VIP, RS.replace(":8080", ":80"));
    let server = RS.replace(":8080", ":0");
    let mut t = Testbed::nat(Tcp, vip, &[&server]);
    establish(&mut t, 0, C, &asked);
}

/// LVS takes such a service; nobody is told that its address is here.
#[test]
fn a_service_of_no_station_is_not_ours_to_answer_for() {
    for vip in ["0.0.0.0:80", "224.0.0.1:80"] {
        let t = Testbed::nat(Tcp, vip, &[RS]);
        let address = vip.split(':').next().unwrap().parse().unwrap();
        assert!(!t.director.owns(address), "{vip}");
        assert_eq!(t.director.services.vips().count(), 0, "{vip}");
    }
}

#[test]
fn nat_tcp_round_trip() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.check(
        5,
        tcp(C, VIP, "PA").data(b"GET /"),
        on(tcp(C, RS, "PA").data(b"GET /")),
    );
    t.check(
        6,
        tcp(RS, C, "PA").data(b"200 odd"),
        on(tcp(VIP, C, "PA").data(b"200 odd")),
    );
    assert_eq!(t.load(0), (1, 0));
    assert_eq!(t.page.servers[0].conns.get(), 1);
    assert_eq!(t.page.connections.get(), 1);
}

#[test]
fn nat_udp_round_trip() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"ping"), on(udp(C, RS, b"ping")));
    t.check(1, udp(RS, C, b"pong!"), on(udp(VIP, C, b"pong!")));
    assert_eq!(t.load(0), (0, 1), "UDP is never active");
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(
        0,
        udp(C, VIP, b"x").without_checksum(),
        on(udp(C, RS, b"x").without_checksum()),
    );
    t.check(
        1,
        udp(RS, C, b"y").without_checksum(),
        on(udp(VIP, C, b"y").without_checksum()),
    );
}

#[test]
fn a_udp_checksum_that_comes_out_zero_is_stored_as_ffff() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    // The two bytes of data are chosen so that the checksum towards the server is 0.
    let data = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|data| udp(C, RS, data).ip()[26..28] == [0xff, 0xff])
        .unwrap();
    assert_ne!(udp(C, VIP, &data).ip()[26..28], [0xff, 0xff]);
    t.check(0, udp(C, VIP, &data), on(udp(C, RS, &data)));
}

#[test]
fn what_comes_in_corrupt_goes_out_corrupt() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"ping"), on(udp(C, RS, b"ping")));
    let corrupt = |frame: Frame, leaves: bool| {
        let (port, frame) = if leaves {
            leaving(&frame.ttl(63))
        } else {
            arriving(&frame)
        };
        let mut bytes = frame.bytes();
        *bytes.last_mut().unwrap() ^= 0x40;
        (port, bytes)
    };
    let (port, bytes) = corrupt(udp(C, VIP, b"ping"), false);
    let mut burst = Burst::from_iter([HeapBuf::new(&bytes)]);
    t.director.process(Instant(1), port, &mut burst, &mut t.out);
    assert_eq!(t.take(), [corrupt(udp(C, RS, b"ping"), true)]);
}

#[test]
fn ports_are_mapped() {
    let mut t = Testbed::nat(Tcp, VIP, &["10.1.0.1:8080"]);
    establish(&mut t, 0, C, "10.1.0.1:8080");
    // The server's other port is no reply of this connection.
    t.check(9, tcp("10.1.0.1:80", C, "A"), Drop(DropReason::NotOurs));
}

#[test]
fn one_armed() {
    // The server stands in the clients' network; the same port takes and sends.
    let mut t = Testbed::nat(Tcp, VIP, &["192.0.2.1:80"]);
    let far = "198.51.100.7:1234";
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, "192.0.2.1:80", "S")));
    t.check(1, tcp("192.0.2.1:80", C, "SA"), on(tcp(VIP, C, "SA")));
    t.check(2, tcp(far, VIP, "S"), on(tcp(far, "192.0.2.1:80", "S")));
}

#[test]
fn options_are_kept() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let options = [0x94, 4, 0, 0, 1, 1, 1, 1]; // router alert
    t.check(
        0,
        tcp(C, VIP, "S").options(&options),
        on(tcp(C, RS, "S").options(&options)),
    );
    t.check(
        1,
        tcp(C, VIP, "A").options(&options),
        on(tcp(C, RS, "A").options(&options)),
    );
}

#[test]
fn padding_is_carried() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS, b"x")));
    let padded = |(port, frame): (PortId, Frame)| {
        let mut bytes = frame.bytes();
        bytes.resize(60, 0x77);
        (port, bytes)
    };
    let (port, bytes) = padded(arriving(&udp(C, VIP, b"x")));
    let mut burst = Burst::from_iter([HeapBuf::new(&bytes)]);
    t.director.process(Instant(1), port, &mut burst, &mut t.out);
    assert_eq!(t.take(), [padded(leaving(&udp(C, RS, b"x").ttl(63)))]);
    assert_eq!(t.page.servers[0].in_bytes.get(), 2 * 29);
}

/// The last packet before and the first after a state's time ran out; `prepare` leads there at 0 ms.
#[track_caller]
fn lives(ms: u32, prepare: impl Fn(&mut Testbed)) {
    for (at, alive) in [(ms - 1, true), (ms, false)] {
        let mut t = Testbed::nat(Tcp, VIP, &[RS]);
        prepare(&mut t);
        let reply = if alive {
            on(tcp(VIP, C, "A"))
        } else {
            Drop(DropReason::NotOurs)
        };
        t.check(at, tcp(RS, C, "A"), reply);
        let mut t = Testbed::nat(Tcp, VIP, &[RS]);
        prepare(&mut t);
        t.wait(0, at);
        if !alive {
            // The wheel takes an expired connection within a slot or two.
            t.wait(at, at + 1000);
        }
        let (active, inactive) = t.load(0);
        assert_eq!(active + inactive, u32::from(alive), "at {at} ms");
        assert_eq!(t.page.connections.get(), u32::from(alive));
    }
}

#[test]
fn timeouts_of_the_states() {
    let walk = |steps: &'static [(bool, &'static str)]| {
        move |t: &mut Testbed| {
            for (outbound, flags) in steps {
                let (packet, end) = if *outbound {
                    (tcp(RS, C, flags), on(tcp(VIP, C, flags)))
                } else {
                    (tcp(C, VIP, flags), on(tcp(C, RS, flags)))
                };
                t.check(0, packet, end);
            }
        }
    };
    lives(60_000, walk(&[(false, "S")])); // SYN_RECV
    lives(60_000, walk(&[(false, "S"), (true, "SA")]));
    lives(900_000, walk(&[(false, "S"), (true, "SA"), (false, "A")])); // ESTABLISHED
    lives(120_000, walk(&[(false, "S"), (false, "A"), (true, "FA")])); // FIN_WAIT
    lives(60_000, walk(&[(false, "S"), (false, "A"), (false, "FA")])); // CLOSE_WAIT
    lives(
        120_000,
        walk(&[(false, "S"), (false, "A"), (false, "FA"), (true, "FA")]),
    ); // TIME_WAIT
    lives(10_000, walk(&[(false, "S"), (false, "A"), (true, "R")])); // CLOSE
}

#[test]
fn a_packet_of_either_side_gives_new_life() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    t.check(299_999, udp(RS, C, b"2"), on(udp(VIP, C, b"2")));
    t.wait(299_999, 599_000);
    t.check(599_998, udp(C, VIP, b"3"), on(udp(C, RS, b"3")));
    t.check(899_998, udp(RS, C, b"4"), Drop(DropReason::NotOurs));
    assert_eq!(t.page.servers[0].conns.get(), 1);
}

#[test]
fn timeouts_can_be_set() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    let mut timeouts = Timeouts::default();
    timeouts.set_s(State::Udp, 5);
    t.apply(Update::SetTimeouts(timeouts));
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    t.check(4_999, udp(RS, C, b"2"), on(udp(VIP, C, b"2")));
    t.check(9_999, udp(RS, C, b"3"), Drop(DropReason::NotOurs));
    t.wait(9_999, 11_000);
    assert_eq!(t.load(0), (0, 0));
}

#[test]
fn closing_moves_connections_from_active_to_inactive() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    assert_eq!(t.load(0), (1, 0), "SYN_RECV");
    t.check(1, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA")));
    t.check(2, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(t.load(0), (1, 0), "ESTABLISHED");
    t.check(3, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    assert_eq!(t.load(0), (0, 1), "CLOSE_WAIT");
    t.check(4, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    t.check(5, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(t.load(0), (0, 1), "TIME_WAIT");
    t.wait(5, 121_000);
    assert_eq!(t.load(0), (0, 0));

    establish(&mut t, 121_000, C, RS);
    t.check(121_001, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    assert_eq!(t.load(0), (0, 1), "FIN_WAIT");
    t.check(121_002, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    assert_eq!(t.load(0), (0, 1), "TIME_WAIT");

    let other = "192.0.2.10:40001";
    establish(&mut t, 121_003, other, RS);
    assert_eq!(t.load(0), (1, 1));
    t.check(121_004, tcp(other, VIP, "R"), on(tcp(other, RS, "R")));
    assert_eq!(t.load(0), (0, 2), "CLOSE");
    t.wait(121_004, 132_000);
    assert_eq!(t.load(0), (0, 1));
}

#[test]
fn a_reused_port_is_scheduled_anew_once_the_connection_closed() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    t.check(1, tcp(C, VIP, "S"), on(tcp(C, RS, "S"))); // ESTABLISHED: the same server
    t.check(2, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    t.check(3, tcp(C, VIP, "S"), on(tcp(C, RS, "S"))); // CLOSE_WAIT: the same server
    t.check(4, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    t.check(5, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    t.check(6, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    assert_eq!((t.load(1), t.load(0)), ((0, 1), (0, 0)));
    t.check(7, tcp(C, VIP, "S"), on(tcp(C, RS2, "S"))); // TIME_WAIT: the next one
    assert_eq!((t.load(1), t.load(0)), ((0, 0), (1, 0)));
    t.check(8, tcp(RS2, C, "R"), on(tcp(VIP, C, "R")));
    t.check(9, tcp(C, VIP, "S"), on(tcp(C, RS, "S"))); // CLOSE: the one after
}

#[test]
fn weight_zero_keeps_connections_and_takes_no_new_ones() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    t.apply(weigh(1, 0));
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    for port in 1..5 {
        let client = format!("192.0.2.10:{port}");
        t.check(2, tcp(&client, VIP, "S"), on(tcp(&client, RS2, "S")));
    }
    t.apply(weigh(0, 0));
    let syn = tcp("192.0.2.10:9", VIP, "S");
    t.check(
        3,
        syn.clone(),
        Refuse(DropReason::NoServer, error(VIP_IP, 3, 3, 0, &syn)),
    );
    t.check(4, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
}

#[test]
fn a_deleted_server_leaves_its_connections_without_a_word() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(1_000, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.check(899_999, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.wait(899_999, 901_000); // No dropped packet gave it new life.
    assert_eq!(t.load(0), (0, 0));
    t.check(
        901_000,
        tcp(C, VIP, "A"),
        Refuse(DropReason::NoConnection, reset(VIP, C)),
    );
}

#[test]
fn a_deleted_servers_replies_still_go_back() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(
        1_000,
        tcp(RS, C, "A"),
        ForwardUncounted(tcp(VIP, C, "A").ttl(63)),
    );
    t.check(
        1_001,
        tcp(RS, C, "FA"),
        ForwardUncounted(tcp(VIP, C, "FA").ttl(63)),
    );
    assert_eq!(t.load(0), (0, 1));
}

#[test]
fn a_server_that_comes_back_resumes_its_connections() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.apply(add_server(0, 0, RS, 1));
    t.check(2, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    t.check(3, tcp(RS, C, "A"), on(tcp(VIP, C, "A")));
    assert_eq!(t.load(0), (1, 0));
}

#[test]
fn a_deleted_service_is_nobodys() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.apply(Update::DeleteService { id: ServiceId(0) });
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
    t.check(
        2,
        tcp(RS, C, "A"),
        ForwardUncounted(tcp(VIP, C, "A").ttl(63)),
    );
    // The virtual address went with its only service: nothing is answered for it.
    t.check(3, tcp("192.0.2.10:7", VIP, "S"), Drop(DropReason::NotOurs));
    t.add_service(1, Tcp, VIP);
    t.apply(add_server(1, 0, RS, 1));
    t.check(4, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
}

#[test]
fn no_server() {
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
fn a_segment_without_connection_is_reset() {
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
fn a_syn_ack_may_open() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(0, tcp(C, VIP, "SA"), on(tcp(C, RS, "SA")));
}

#[test]
fn no_service_on_a_virtual_address() {
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
fn the_last_hop() {
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
fn too_long_for_the_next_network() {
    let mut small = setup(true);
    small.interfaces[1].mtu = 1000;
    let mut t = Testbed::new(10, small);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    let fits = |frame: Frame| frame.data(&[7; 1000 - 28]).fragment(DONT_FRAGMENT);
    t.check(0, fits(udp(C, VIP, b"")), on(fits(udp(C, RS, b""))));
    let long = udp(C, VIP, b"").data(&[7; 1001 - 28]);
    t.check(1, long.clone(), Drop(DropReason::TooBig));
    let long = long.fragment(DONT_FRAGMENT);
    t.check(
        2,
        long.clone(),
        Refuse(DropReason::TooBig, error(VIP_IP, 3, 4, 1000, &long)),
    );
}

#[test]
fn fragments_are_dropped() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS, b"x")));
    t.check(
        1,
        udp(C, VIP, b"x").fragment(MORE_FRAGMENTS),
        Drop(DropReason::Fragment),
    );
    t.check(
        2,
        udp(C, VIP, b"x").fragment(185),
        Drop(DropReason::Fragment),
    );
}

#[test]
fn echo_is_answered_for_our_addresses() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for ours in [VIP_IP, "192.0.2.254", "10.1.0.254"] {
        let request = icmp(C_IP, ours, 8, 0, [1, 2, 3, 4], b"payload");
        let reply = icmp(ours, C_IP, 0, 0, [1, 2, 3, 4], b"payload");
        t.check(0, request, Answer(leaving(&reply).1.bytes()));
    }
    t.check(
        1,
        icmp(C_IP, RS_IP, 8, 0, [0; 4], b""),
        Drop(DropReason::NotOurs),
    );
    t.check(
        2,
        icmp(C_IP, VIP_IP, 13, 0, [0; 4], b""),
        Drop(DropReason::NotOurs),
    );
}

const RS_IP: &str = "10.1.0.1";

#[test]
fn other_stations_frames() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let syn = || tcp(C, VIP, "S");
    let from = mac(C_IP);
    t.check(
        0,
        syn().between(from, mac("192.0.2.99")),
        Drop(DropReason::NotForUs),
    );
    t.check(
        1,
        syn().between(from, [0xff; 6]),
        Drop(DropReason::NotForUs),
    );
    t.check(
        2,
        syn().between(from, [1, 0, 0x5e, 0, 0, 1]),
        Drop(DropReason::NotForUs),
    );
    t.check(
        3,
        syn().between(from, port_mac(SERVERS)),
        Drop(DropReason::NotForUs),
    );
}

#[test]
fn tags_are_put_on_and_taken_off() {
    let server = "10.2.0.1:80";
    let mut t = Testbed::nat(Tcp, VIP, &[server]);
    establish(&mut t, 0, C, server);
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, server, "A")));
    // A priority tag is no VLAN; it does not go further.
    let priority = tcp(C, VIP, "A")
        .between(mac(C_IP), port_mac(CLIENTS))
        .vlan(0x6000);
    t.check(2, priority, on(tcp(C, server, "A")));
    let unknown = tcp(server, C, "A")
        .between(mac("10.2.0.1"), port_mac(SERVERS))
        .vlan(101);
    t.check(3, unknown, Drop(DropReason::UnknownVlan));
}

#[test]
fn no_room_for_a_tag() {
    let server = "10.2.0.1:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let (port, frame) = arriving(&udp(C, VIP, &[3; 200]));
    let bytes = frame.bytes();
    // A buffer whose headroom is used up.
    let mut packet = HeapBuf::new(&bytes[128..]);
    assert!(packet.prepend(128));
    packet.bytes_mut().copy_from_slice(&bytes);
    let mut burst = Burst::from_iter([packet]);
    t.director.process(Instant(0), port, &mut burst, &mut t.out);
    t.settle();
    assert_eq!(t.take(), []);
    assert_eq!(
        t.page.port(port).drops[DropReason::NoHeadroom as usize].get(),
        1
    );
}

#[test]
fn sources_that_no_client_has() {
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
fn a_full_table_gives_up_the_oldest_half_open_connection() {
    let mut t = Testbed::new(4, setup(true));
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    let client = |n: u32| format!("192.0.2.10:{}", 1000 + n);
    establish(&mut t, 0, &client(0), RS);
    for n in 1..4 {
        t.check(n, tcp(&client(n), VIP, "S"), on(tcp(&client(n), RS, "S")));
    }
    t.check(4, tcp(&client(4), VIP, "S"), on(tcp(&client(4), RS, "S")));
    assert_eq!(t.load(0), (4, 0));
    t.check(5, tcp(RS, &client(1), "SA"), Drop(DropReason::NotOurs)); // It was the oldest.
    t.check(6, tcp(&client(2), VIP, "A"), on(tcp(&client(2), RS, "A")));
    t.check(7, tcp(&client(3), VIP, "A"), on(tcp(&client(3), RS, "A")));
    t.check(8, tcp(&client(4), VIP, "A"), on(tcp(&client(4), RS, "A")));
    t.check(9, tcp(&client(5), VIP, "S"), Drop(DropReason::TableFull));
    for n in [0, 2, 3, 4] {
        t.check(10, tcp(&client(n), VIP, "A"), on(tcp(&client(n), RS, "A")));
    }
}

#[test]
fn half_open_connections_can_be_given_up_however_often_the_client_asks() {
    let mut t = Testbed::new(1, setup(true));
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    for at in (0..300_000).step_by(20_000) {
        t.check(at, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
        t.wait(at, at + 20_000);
    }
    let other = "192.0.2.10:5";
    t.check(300_000, tcp(other, VIP, "S"), on(tcp(other, RS, "S")));
    t.wait(300_000, 361_000);
    assert_eq!(t.load(0), (0, 0));
}

fn asks(port: PortId, ours: &str, whom: &str) -> Vec<u8> {
    let (ours, whom) = (ours.parse().unwrap(), whom.parse().unwrap());
    arp(1, (port_mac(port), ours), ([0; 6], whom), [0xff; 6], None)
}

fn answers(whom: &str, ours: &str, port: PortId) -> Vec<u8> {
    let sender = (mac(whom), whom.parse().unwrap());
    arp(
        2,
        sender,
        (port_mac(port), ours.parse().unwrap()),
        port_mac(port),
        None,
    )
}

#[test]
fn packets_wait_for_a_neighbour_in_order() {
    let server = "10.1.0.9:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let out = |data: &[u8]| udp(C, server, data).ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"0"), Hold(Some(asked), out(b"0")));
    for n in 1..16u8 {
        t.check(1, udp(C, VIP, &[b'0' + n]), Hold(None, out(&[b'0' + n])));
    }
    let before = t.page.servers[0].in_packets.get();
    let (port, frame) = arriving(&udp(C, VIP, b"more"));
    let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
    t.director.process(Instant(2), port, &mut burst, &mut t.out);
    t.settle();
    assert_eq!(
        t.page.port(port).drops[DropReason::HeldFull as usize].get(),
        1
    );
    assert_eq!(t.page.servers[0].in_packets.get(), before + 1);

    let reply = answers("10.1.0.9", "10.1.0.254", SERVERS);
    let mut burst = Burst::from_iter([HeapBuf::new(&reply)]);
    t.director
        .process(Instant(3), SERVERS, &mut burst, &mut t.out);
    t.settle();
    let expected: Vec<_> = (0..16u8)
        .map(|n| leaving(&out(&[b'0' + n])))
        .map(|(port, frame)| (port, frame.bytes()))
        .collect();
    assert_eq!(t.take(), expected);
    assert_eq!(t.page.held.get(), 0);
    t.check(4, udp(C, VIP, b"ready"), Forward(out(b"ready")));
}

#[test]
fn a_neighbour_that_does_not_answer() {
    let server = "10.1.0.9:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let out = udp(C, server, b"x").ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"x"), Hold(Some(asked.clone()), out));
    assert_eq!(t.wait(0, 2_900), vec![(SERVERS, asked); 2]);
    t.wait(2_900, 3_100);
    assert_eq!(t.page.held.get(), 0);
    assert_eq!(
        t.page.port(CLIENTS).drops[DropReason::NeighbourFailed as usize].get(),
        1
    );
}

#[test]
fn waiting_packets_are_given_back_at_the_end() {
    let mut t = Testbed::nat(Udp, VIP, &["10.1.0.9:80"]);
    let out = udp(C, "10.1.0.9:80", b"x").ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"x"), Hold(Some(asked), out));
    t.director.stop();
    t.settle();
    assert_eq!(t.page.held.get(), 0);
    assert_eq!(
        t.page.port(CLIENTS).drops[DropReason::Stopped as usize].get(),
        1
    );
}

#[test]
fn no_route_to_the_server() {
    let mut nowhere = setup(true);
    nowhere.routes.clear();
    let mut t = Testbed::new(10, nowhere);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, "172.16.0.1:80", 1));
    t.check(0, udp(C, VIP, b"x"), Drop(DropReason::NoRoute));
}

#[test]
fn arp_is_spoken() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let client = (mac("192.0.2.99"), "192.0.2.99".parse().unwrap());
    for ours in [VIP_IP, "192.0.2.254"] {
        let ours = ours.parse().unwrap();
        let request = arp(1, client, ([0; 6], ours), [0xff; 6], None);
        let reply = arp(2, (port_mac(CLIENTS), ours), client, client.0, None);
        t.check_bytes(0, CLIENTS, &request, Answer(reply));
    }
    let other = ([0; 6], "192.0.2.50".parse().unwrap());
    t.check_bytes(1, CLIENTS, &arp(1, client, other, [0xff; 6], None), Consume);
    let thief = (client.0, VIP_IP.parse().unwrap());
    t.check_bytes(
        2,
        CLIENTS,
        &arp(1, thief, other, [0xff; 6], None),
        Drop(DropReason::BadArp),
    );
    t.check_bytes(
        3,
        CLIENTS,
        &arp(1, client, other, mac("192.0.2.50"), None),
        Drop(DropReason::NotForUs),
    );
}

#[test]
fn malformed_frames() {
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
    t.check_bytes(2, CLIENTS, &ipv6, Drop(DropReason::UnknownEthertype));
}

#[test]
fn schedulers_are_changed_in_place() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS, RS2]);
    t.apply(weigh(0, 3));
    t.apply(Update::EditService {
        id: ServiceId(0),
        scheduler: crate::sched::Kind::Wrr,
    });
    for port in 0..8 {
        let client = format!("192.0.2.10:{}", 100 + port);
        let (from, to) = arriving(&tcp(&client, VIP, "S"));
        let mut burst = Burst::from_iter([HeapBuf::new(&to.bytes())]);
        t.director.process(Instant(0), from, &mut burst, &mut t.out);
    }
    assert_eq!((t.load(0), t.load(1)), ((6, 0), (2, 0)));
    assert_eq!(key(Tcp, VIP).address.port(), 80);
}

#[test]
fn every_drop_reason_is_reached() {
    // Only a worker can refuse: it owns the ports' queues and the rings between workers.
    let workers = [DropReason::TxRefused, DropReason::SteerRingFull];
    let table = [
        a_segment_without_connection_is_reset,
        no_service_on_a_virtual_address,
        no_server,
        a_deleted_server_leaves_its_connections_without_a_word,
        the_last_hop,
        too_long_for_the_next_network,
        fragments_are_dropped,
        other_stations_frames,
        tags_are_put_on_and_taken_off,
        no_room_for_a_tag,
        sources_that_no_client_has,
        a_full_table_gives_up_the_oldest_half_open_connection,
        packets_wait_for_a_neighbour_in_order,
        a_neighbour_that_does_not_answer,
        waiting_packets_are_given_back_at_the_end,
        no_route_to_the_server,
        arp_is_spoken,
        malformed_frames,
        direct::a_server_behind_a_gateway_cannot_be_addressed,
    ];
    for case in table {
        case();
    }
    for reason in DropReason::ALL {
        assert_eq!(
            seen(*reason),
            !workers.contains(reason),
            "{}",
            reason.name()
        );
    }
}

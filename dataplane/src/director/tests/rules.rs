//! What settings and options change (`spec/connections.md` §2, §3, §11, §14).

use control::Protocol::Sctp;
use control::{OnServerGone, Refuse as Refusing, ServiceOptions, ServiceTimeouts, Settings};

use super::*;
use crate::conn::State;
use crate::director::frames::sctp;
use crate::director::testbed::{Sent, weigh_by};
use crate::update::{ServerId, ServiceId};

fn set(t: &mut Testbed, settings: Settings) {
    t.apply(Update::SetSettings(settings));
}

fn reuse(conn_reuse_mode: u8) -> Settings {
    Settings {
        conn_reuse_mode,
        ..Settings::default()
    }
}

fn timeouts(t: &mut Testbed, timeouts: ServiceTimeouts) {
    options(
        t,
        ServiceOptions {
            timeouts,
            ..ServiceOptions::default()
        },
    );
}

fn gone(t: &mut Testbed, id: u32) {
    t.apply(Update::DeleteServer { id: ServerId(id) });
}

fn states(t: &Testbed, ms: u32) -> Vec<String> {
    let list = t.director.listed(Instant::from_ms(ms));
    list.into_iter().map(|conn| conn.state).collect()
}

fn client(n: u32) -> String {
    format!("192.0.2.10:{}", 1000 + n)
}

/// `C`'s connection to RS in TIME_WAIT; RS2 is next.
fn in_time_wait() -> Testbed {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    t.check(1, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    t.check(2, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    assert_eq!(states(&t, 2), ["TIME_WAIT"]);
    t
}

#[test]
fn ports_are_used_again_as_conn_reuse_mode_says() {
    for (mode, server) in [(0, RS), (1, RS2), (2, RS2), (3, RS2)] {
        let mut t = in_time_wait();
        set(&mut t, reuse(mode));
        t.check(3, tcp(C, VIP, "S"), on(tcp(C, server, "S")));
    }
    // With ACK or without.
    let mut t = in_time_wait();
    t.check(3, tcp(C, VIP, "SA"), on(tcp(C, RS2, "SA")));
}

#[test]
fn without_reuse_a_port_sticks_to_a_quiesced_server() {
    let mut t = in_time_wait();
    set(&mut t, reuse(0));
    t.apply(weigh(1, 0));
    t.check(3, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
}

#[test]
fn fin_wait_is_over_only_where_the_server_answers_past_us() {
    let to = |server, flags| Direct(server, tcp(C, VIP, flags).ttl(63));
    for (mode, server) in [(0, RS), (1, RS), (2, RS2), (3, RS2)] {
        let mut t = Testbed::by(control::ForwardMode::Direct, Tcp, VIP, &[RS2, RS]);
        set(&mut t, reuse(mode));
        for flags in ["S", "A", "FA"] {
            t.check(0, tcp(C, VIP, flags), to(RS, flags));
        }
        assert_eq!(states(&t, 0), ["FIN_WAIT"]);
        t.check(1, tcp(C, VIP, "S"), to(server, "S"));
    }
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    set(&mut t, reuse(2));
    establish(&mut t, 0, C, RS);
    t.check(1, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    assert_eq!(states(&t, 1), ["FIN_WAIT"]);
    t.check(2, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
}

#[test]
fn an_association_that_is_over_gives_way_to_an_init() {
    const INIT: u8 = 1;
    const ABORT: u8 = 6;
    for (mode, server) in [(0, RS), (1, RS2)] {
        let mut t = Testbed::nat(Sctp, VIP, &[RS2, RS]);
        set(&mut t, reuse(mode));
        t.check(0, sctp(C, VIP, &[INIT]), on(sctp(C, RS, &[INIT])));
        t.check(1, sctp(C, VIP, &[ABORT]), on(sctp(C, RS, &[ABORT])));
        assert_eq!(states(&t, 1), ["CLOSED"]);
        t.check(2, sctp(C, VIP, &[INIT]), on(sctp(C, server, &[INIT])));
    }
}

#[test]
fn a_syn_leaves_a_quiesced_server_with_expire_nodest_conn() {
    for (expire_nodest_conn, server) in [(false, RS), (true, RS2)] {
        let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
        set(
            &mut t,
            Settings {
                expire_nodest_conn,
                ..Settings::default()
            },
        );
        establish(&mut t, 0, C, RS);
        t.apply(weigh_by(control::ForwardMode::Nat, 1, 0));
        t.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
        t.check(2, tcp(C, VIP, "S"), on(tcp(C, server, "S")));
    }
}

/// §14.1: what is dropped gives no new life.
#[test]
fn datagrams_for_a_deleted_server_vanish_until_the_connection_has_expired() {
    let mut t = Testbed::nat(Udp, VIP, &[RS2, RS]);
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    gone(&mut t, 1);
    for ms in [1, 100_000, 299_999] {
        t.check(ms, udp(C, VIP, b"2"), Drop(DropReason::ServerGone));
    }
    t.check(300_000, udp(C, VIP, b"3"), on(udp(C, RS2, b"3")));
}

#[test]
fn expire_nodest_conn_ends_connections_with_their_server() {
    let settings = Settings {
        expire_nodest_conn: true,
        ..Settings::default()
    };
    let mut t = Testbed::nat(Udp, VIP, &[RS2, RS]);
    set(&mut t, settings);
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    gone(&mut t, 1);
    t.check(1, udp(C, VIP, b"2"), on(udp(C, RS2, b"2"))); // before the sweep
    assert_eq!((t.load(1), t.load(0)), ((0, 0), (0, 1)));

    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    set(&mut t, settings);
    establish(&mut t, 0, C, RS);
    gone(&mut t, 1);
    let refused = Refuse(DropReason::NoConnection, reset(VIP, C));
    t.check(1, tcp(C, VIP, "A"), refused.clone());
    t.check(2, tcp(C, VIP, "S"), on(tcp(C, RS2, "S")));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    assert_eq!(t.wait(3, 10), []);
    assert_eq!(t.load(0), (0, 0), "nobody sent anything");
    assert_eq!(t.page.connections.get(), 0);
}

/// Whatever was withdrawn before it was set.
#[test]
fn expire_nodest_conn_ends_what_was_left_of_earlier_servers() {
    let mut t = Testbed::nat(Udp, VIP, &["10.1.0.3:80", RS2, RS]);
    for n in 0..3 {
        t.pass(0, &udp(&client(n), VIP, b"1"));
    }
    assert_eq!([0, 1, 2].map(|n| t.load(n)), [(0, 1); 3]);
    gone(&mut t, 1);
    let settings = Settings {
        expire_nodest_conn: true,
        ..Settings::default()
    };
    set(&mut t, settings);
    t.wait(1, 10);
    assert_eq!(t.load(1), (0, 1), "not before the next one is withdrawn");
    gone(&mut t, 2);
    t.wait(10, 20);
    assert_eq!([0, 1, 2].map(|n| t.load(n)), [(0, 1), (0, 0), (0, 0)]);
}

#[test]
fn what_a_service_does_without_its_server() {
    use OnServerGone::{Reschedule, Reset};
    let tcp_gone = |policy| {
        let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
        on_server_gone(&mut t, policy);
        establish(&mut t, 0, C, RS);
        gone(&mut t, 1);
        t
    };
    let goes_on = tcp(C, RS, "R").numbers(1000, 0).window(0).ttl(63);
    for policy in [Reset, Reschedule] {
        let mut t = tcp_gone(policy);
        let sent = t.pass(1, &tcp(C, VIP, "A"));
        let told = leaving(&reset(VIP, C)).1.bytes();
        assert_eq!(sent, [told, leaving(&goes_on).1.bytes()]);
        // In the background both are asked.
        let mut t = tcp_gone(policy);
        assert_eq!(t.wait(1, 10).len(), 2);
        assert_eq!(states(&t, 10), ["CLOSE"]);
    }
    let mut t = tcp_gone(Reschedule);
    t.check(1, tcp(C, VIP, "S"), on(tcp(C, RS2, "S")));
    let udp_gone = |policy| {
        let mut t = Testbed::nat(Udp, VIP, &[RS2, RS]);
        on_server_gone(&mut t, policy);
        t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
        gone(&mut t, 1);
        t
    };
    let mut t = udp_gone(Reset);
    t.check(1, udp(C, VIP, b"2"), Drop(DropReason::ConnectionCut));
    t.check(2, udp(C, VIP, b"3"), on(udp(C, RS2, b"3")));
    let mut t = udp_gone(Reschedule);
    t.check(1, udp(C, VIP, b"2"), on(udp(C, RS2, b"2")));
}

#[test]
fn sloppy_protocols_open_with_anything_but_an_end() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    set(
        &mut t,
        Settings {
            sloppy_tcp: true,
            ..Settings::default()
        },
    );
    t.check(0, tcp(C, VIP, "R"), Drop(DropReason::NoConnection));
    t.check(0, tcp(C, VIP, "PA"), on(tcp(C, RS, "PA")));
    assert_eq!(states(&t, 0), ["ESTABLISHED"]);

    let mut t = Testbed::nat(Sctp, VIP, &[RS]);
    set(
        &mut t,
        Settings {
            sloppy_sctp: true,
            ..Settings::default()
        },
    );
    let abort = sctp(C, VIP, &[6]);
    let told = error(VIP_IP, 3, 3, 0, &abort);
    t.check(0, abort, Refuse(DropReason::NoConnection, told));
    t.check(0, sctp(C, VIP, &[0]), on(sctp(C, RS, &[0])));
    assert_eq!(states(&t, 0), ["ESTABLISHED"]);
}

#[test]
fn who_finds_no_server_is_told_as_its_service_says() {
    let refuse = |protocol, refuse| {
        let mut t = Testbed::nat(protocol, VIP, &[]);
        options(
            &mut t,
            ServiceOptions {
                refuse,
                ..ServiceOptions::default()
            },
        );
        t
    };
    let syn = tcp(C, VIP, "S");
    let no_server = |told| Refuse(DropReason::NoServer, told);
    let icmp = error(VIP_IP, 3, 3, 0, &syn);
    refuse(Tcp, Refusing::Icmp).check(0, syn.clone(), no_server(icmp));
    let reset = ours(tcp(VIP, C, "RA").numbers(0, 1001));
    refuse(Tcp, Refusing::Reset).check(0, syn.clone(), no_server(reset));
    refuse(Tcp, Refusing::Drop).check(0, syn, Drop(DropReason::NoServer));
    let datagram = udp(C, VIP, b"x");
    let icmp = error(VIP_IP, 3, 3, 0, &datagram);
    refuse(Udp, Refusing::Reset).check(0, datagram.clone(), no_server(icmp));
    refuse(Udp, Refusing::Drop).check(0, datagram, Drop(DropReason::NoServer));
}

#[test]
fn services_have_timeouts_of_their_own() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    let udp_s = |seconds| ServiceTimeouts {
        udp: Some(seconds),
        ..ServiceTimeouts::default()
    };
    timeouts(&mut t, udp_s(5));
    t.check(0, udp(C, VIP, b"1"), on(udp(C, RS, b"1")));
    t.check(4_999, udp(RS, C, b"2"), on(udp(VIP, C, b"2")));
    t.check(9_998, udp(RS, C, b"2"), on(udp(VIP, C, b"2")));
    // Edited, they hold from the next packet on; the shared ones do not.
    timeouts(&mut t, udp_s(7));
    let mut shared = Timeouts::default();
    shared.set_s(State::Udp, 2);
    t.apply(Update::SetTimeouts(shared));
    t.check(10_000, udp(RS, C, b"3"), on(udp(VIP, C, b"3")));
    t.check(16_999, udp(RS, C, b"4"), on(udp(VIP, C, b"4")));
    // Taken back, the shared ones hold.
    timeouts(&mut t, ServiceTimeouts::default());
    t.check(17_000, udp(RS, C, b"5"), on(udp(VIP, C, b"5")));
    t.check(18_999, udp(RS, C, b"6"), on(udp(VIP, C, b"6")));
    t.check(20_999, udp(RS, C, b"7"), Drop(DropReason::NotOurs));
    t.wait(20_999, 23_000);
    assert_eq!(t.load(0), (0, 0));
}

#[test]
fn only_the_states_that_a_service_names_have_its_timeouts() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    timeouts(
        &mut t,
        ServiceTimeouts {
            tcp: Some(30),
            tcp_fin: Some(3),
            udp: None,
        },
    );
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.check(59_999, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA"))); // SYN_RECV
    t.check(60_000, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    t.check(89_999, tcp(C, VIP, "A"), on(tcp(C, RS, "A"))); // ESTABLISHED
    t.check(90_000, tcp(RS, C, "FA"), on(tcp(VIP, C, "FA")));
    t.check(92_999, tcp(RS, C, "A"), on(tcp(VIP, C, "A"))); // FIN_WAIT
    t.check(95_999, tcp(RS, C, "A"), Drop(DropReason::NotOurs));
}

#[test]
fn both_ends_are_asked_when_an_established_connection_expires() {
    let prepared = || {
        let mut t = Testbed::nat(Tcp, VIP, &[RS]);
        options(
            &mut t,
            ServiceOptions {
                reset_on_expiry: true,
                ..ServiceOptions::default()
            },
        );
        t
    };
    let mut t = prepared();
    establish(&mut t, 0, C, RS);
    let asked = t.wait(0, 901_000);
    let probe = |from, to| -> Sent {
        let (port, frame) = leaving(&ours(tcp(from, to, "A").numbers(0, 0)));
        (port, frame.bytes())
    };
    assert_eq!(asked, [probe(VIP, C), probe(C, RS)]);
    let goes_on = tcp(VIP, C, "R").numbers(1000, 0).window(0).ttl(63);
    t.check(901_001, tcp(RS, C, "A"), Both(reset(C, RS), goes_on));
    t.wait(901_001, 912_000);
    assert_eq!(t.load(0), (0, 0));
    // A packet that comes before the timer has looked is answered at once.
    let mut t = prepared();
    establish(&mut t, 0, C, RS);
    let goes_on = tcp(C, RS, "R").numbers(1000, 0).window(0).ttl(63);
    t.check(900_000, tcp(C, VIP, "A"), Both(reset(VIP, C), goes_on));
    // What is not established goes without a word.
    let mut t = prepared();
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    assert_eq!(t.wait(0, 61_000), []);
    assert_eq!(t.load(0), (0, 0));
}

#[test]
pub(super) fn some_packets_that_would_open_are_dropped() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    set(
        &mut t,
        Settings {
            drop_packet: 3,
            am_droprate: 3,
            ..Settings::default()
        },
    );
    for n in 0..7 {
        let syn = tcp(&client(n), VIP, "S");
        let end = match n % 3 {
            0 => Drop(DropReason::DropPacket),
            _ => on(tcp(&client(n), RS, "S")),
        };
        t.check(n, syn, end);
    }
    // Nothing else is.
    for n in [1, 2, 4, 5] {
        t.check(9, tcp(&client(n), VIP, "A"), on(tcp(&client(n), RS, "A")));
    }
}

#[test]
fn the_fewer_connections_are_free_the_more_packets_are_dropped() {
    // Of 10 connections fewer than 8 free are few.
    let mut t = Testbed::new(10, setup(true));
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    set(
        &mut t,
        Settings {
            drop_packet: 1,
            amemthresh: 8,
            ..Settings::default()
        },
    );
    let mut opened = 0;
    let mut drops = |t: &mut Testbed, ms| {
        (0..8)
            .filter(|_| {
                opened += 1;
                let sent = t.pass(ms, &tcp(&client(opened), VIP, "S"));
                let dropped = sent.is_empty();
                if !dropped {
                    let entry = t.director.conns.find(&crate::wire::flow::Tuple {
                        protocol: 6,
                        from: client(opened).parse().unwrap(),
                        to: VIP.parse().unwrap(),
                    });
                    t.director.close(Instant(ms), entry.unwrap().entry(), None);
                }
                dropped
            })
            .count()
    };
    let fill = |t: &mut Testbed, n: u32, ms| {
        t.apply(Update::SetSettings(Settings::default()));
        t.check(ms, tcp(&client(n), VIP, "S"), on(tcp(&client(n), RS, "S")));
        set(
            t,
            Settings {
                drop_packet: 1,
                amemthresh: 8,
                ..Settings::default()
            },
        );
    };
    assert_eq!(drops(&mut t, 0), 0, "10 free");
    fill(&mut t, 1001, 0);
    fill(&mut t, 1002, 0);
    assert_eq!(drops(&mut t, 1), 0, "8 free");
    fill(&mut t, 1003, 1);
    assert_eq!(drops(&mut t, 2), 1, "7 free: one in 8");
    for n in 1004..1007 {
        fill(&mut t, n, 2);
    }
    assert_eq!(drops(&mut t, 3), 4, "4 free: one in 2");
    // In time it is over by itself.
    t.wait(3, 65_000);
    assert_eq!(drops(&mut t, 65_000), 0);
}

/// What one defence strategy at level 3 leaves of `open` connections after so many seconds.
fn left_after(seconds: u32, open: impl Fn(&mut Testbed)) -> u32 {
    let mut t = Testbed::new(64, setup(true));
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    t.add_service(1, Udp, VIP);
    t.apply(add_server(1, 1, RS, 1));
    open(&mut t);
    set(
        &mut t,
        Settings {
            drop_entry: 3,
            ..Settings::default()
        },
    );
    t.wait(1, seconds * 1000);
    t.page.connections.get()
}

#[test]
fn entries_that_are_the_least_loss_are_dropped() {
    let half_open = |t: &mut Testbed| {
        for n in 0..32 {
            t.check(0, tcp(&client(n), VIP, "S"), on(tcp(&client(n), RS, "S")));
        }
    };
    assert!(left_after(10, half_open) < 32);
    assert_eq!(left_after(1, half_open), 32, "once a second");
    let closing = |t: &mut Testbed| {
        for n in 0..32 {
            establish(t, 0, &client(n), RS);
            t.check(0, tcp(&client(n), VIP, "FA"), on(tcp(&client(n), RS, "FA")));
        }
    };
    assert_eq!(left_after(59, closing), 32);
    let established = |t: &mut Testbed| {
        for n in 0..32 {
            establish(t, 0, &client(n), RS);
        }
    };
    assert_eq!(left_after(60, established), 32, "not long ago");
    assert!(left_after(300, established) < 32);
    let busy = |t: &mut Testbed| {
        for n in 0..32 {
            establish(t, 0, &client(n), RS);
            for _ in 0..7 {
                t.check(0, tcp(&client(n), VIP, "A"), on(tcp(&client(n), RS, "A")));
            }
        }
    };
    assert_eq!(left_after(300, busy), 32, "nine packets came from each");
    let datagrams = |t: &mut Testbed| {
        for n in 0..32 {
            t.pass(0, &udp(&client(n), VIP, b"x"));
        }
    };
    assert_eq!(left_after(60, datagrams), 32);
    assert!(
        left_after(290, datagrams) < 8,
        "one packet: each that is met"
    );
}

#[test]
fn templates_of_clients_that_never_got_an_answer_are_dropped() {
    for (answered, all_stay) in [(true, true), (false, false)] {
        let mut t = Testbed::nat(Tcp, VIP, &[RS]);
        let policy = crate::update::Policy {
            persistence: Some(control::Persistence {
                timeout_s: 3000,
                netmask: control::Netmask::whole(false),
            }),
            ..crate::update::Policy::of(crate::sched::Kind::Rr)
        };
        t.apply(Update::EditService {
            id: ServiceId(0),
            policy,
        });
        for n in 1..33 {
            let client = format!("198.51.100.{n}:2000");
            t.check(0, tcp(&client, VIP, "S"), on(tcp(&client, RS, "S")));
            if answered {
                t.check(1, tcp(&client, VIP, "A"), on(tcp(&client, RS, "A")));
                t.check(2, tcp(&client, VIP, "R"), on(tcp(&client, RS, "R")));
            }
        }
        set(
            &mut t,
            Settings {
                drop_entry: 3,
                ..Settings::default()
            },
        );
        t.wait(3, 100_000);
        assert_eq!(t.page.connections.get(), 0);
        assert_eq!(t.director.templates().used() == 32, all_stay);
    }
}

/// Nothing shows whether a single datagram was answered.
#[test]
fn templates_of_single_datagrams_are_dropped_after_a_while() {
    for (datagrams, seconds, most_stay) in [(1, 59, true), (9, 400, true), (1, 400, false)] {
        let mut t = Testbed::nat(Udp, VIP, &[RS]);
        let policy = crate::update::Policy {
            persistence: Some(control::Persistence {
                timeout_s: 3000,
                netmask: control::Netmask::whole(false),
            }),
            one_packet: true,
            ..crate::update::Policy::of(crate::sched::Kind::Rr)
        };
        t.apply(Update::EditService {
            id: ServiceId(0),
            policy,
        });
        for n in (1..33).flat_map(|n| [n].repeat(datagrams)) {
            t.pass(0, &udp(&format!("198.51.100.{n}:2000"), VIP, b"x"));
        }
        let settings = Settings {
            drop_entry: 3,
            ..Settings::default()
        };
        set(&mut t, settings);
        t.wait(0, seconds * 1000);
        let left = t.director.templates().used();
        match most_stay {
            true => assert_eq!(left, 32),
            false => assert!(left < 8, "{left}"),
        }
    }
}

#[test]
fn secure_tcp_believes_the_server_alone() {
    let secure = Settings {
        secure_tcp: 3,
        ..Settings::default()
    };
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    set(&mut t, secure);
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(states(&t, 1), ["SYN_RECV"]);
    t.check(2, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA")));
    assert_eq!(states(&t, 2), ["SYNACK"]);
    assert_eq!(t.load(0), (1, 0));
    t.check(3, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(states(&t, 3), ["SYNACK"]);
    t.check(4, tcp(RS, C, "A"), on(tcp(VIP, C, "A")));
    assert_eq!(states(&t, 4), ["ESTABLISHED"]);
    // Back to what was.
    set(&mut t, Settings::default());
    let other = &client(1);
    establish(&mut t, 5, other, RS);
    assert_eq!(states(&t, 5), ["ESTABLISHED", "ESTABLISHED"]);
    // Automatic: 999 of 1000 free are few below 1024.
    set(
        &mut t,
        Settings {
            secure_tcp: 1,
            ..Settings::default()
        },
    );
    let other = &client(2);
    t.check(6, tcp(other, VIP, "S"), on(tcp(other, RS, "S")));
    t.check(6, tcp(other, VIP, "A"), on(tcp(other, RS, "A")));
    assert_eq!(states(&t, 6)[2], "SYN_RECV");
}

#[test]
fn half_open_connections_of_every_kind_end_in_time() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.add_service(1, Sctp, VIP);
    t.apply(add_server(1, 1, RS, 1));
    set(
        &mut t,
        Settings {
            secure_tcp: 3,
            ..Settings::default()
        },
    );
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.check(0, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA"))); // SYNACK: 120 s
    let other = &client(1);
    t.check(0, tcp(other, VIP, "S"), on(tcp(other, RS, "S"))); // SYN_RECV: 60 s
    t.pass(0, &sctp(C, VIP, &[1])); // INIT1: 4 s
    t.pass(0, &sctp(other, VIP, &[1]));
    t.pass(0, &sctp(RS, other, &[2])); // C-SENT: 61 s
    let mut left = Vec::new();
    for (from, to) in [
        (0, 3_999),
        (3_999, 5_000),
        (5_000, 59_999),
        (59_999, 60_600),
        (60_600, 61_600),
        (61_600, 119_999),
        (119_999, 120_600),
    ] {
        t.wait(from, to);
        left.push(t.page.connections.get());
    }
    assert_eq!(left, [4, 3, 3, 2, 1, 1, 0]);
}

#[test]
fn a_full_table_gives_up_half_open_associations_too() {
    let mut t = Testbed::new(2, setup(true));
    t.add_service(0, Sctp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    for n in 0..3 {
        t.check(
            n,
            sctp(&client(n), VIP, &[1]),
            on(sctp(&client(n), RS, &[1])),
        );
    }
    t.check(3, sctp(RS, &client(0), &[2]), Drop(DropReason::NotOurs));
}

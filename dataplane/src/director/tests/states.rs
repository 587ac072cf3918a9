//! Connections: how they open, live, close and give way.

use super::*;

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
fn a_syn_ack_may_open() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(0, tcp(C, VIP, "SA"), on(tcp(C, RS, "SA")));
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
pub(super) fn a_full_table_gives_up_the_oldest_half_open_connection() {
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
fn a_half_open_connection_that_asked_again_ends_in_its_time() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.check(1_000, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    t.wait(1_000, 50_000);
    let other = "192.0.2.10:5";
    t.check(50_000, tcp(other, VIP, "S"), on(tcp(other, RS, "S")));
    t.check(50_000, tcp(other, VIP, "R"), on(tcp(other, RS, "R"))); // It stays half-open.
    assert_eq!(t.load(0), (2, 0));
    t.wait(50_000, 62_000);
    assert_eq!(t.load(0), (1, 0), "the later one does not hold it up");
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

//! More than there is room or time for: what was there before stays, and no pass does more than so much.

use super::*;

const TABLE: u32 = 300;
const ESTABLISHED: u32 = 100;

/// Clients that come back, and those of a flood, which are all over.
fn regular(number: u32) -> String {
    format!("192.0.2.10:{}", 20_000 + number)
}

fn anybody(number: u32) -> String {
    let [.., c, d] = number.to_be_bytes();
    let port = 1024 + (number.wrapping_mul(0x9e37_79b1) >> 17);
    format!("198.18.{c}.{d}:{port}")
}

/// A full table: established connections, and as many half-open ones as there is room for.
fn full() -> Testbed {
    let mut t = Testbed::with(TABLE, setup(true), Page::new(8, 16).unwrap());
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    for number in 0..ESTABLISHED {
        establish(&mut t, 0, &regular(number), RS);
    }
    for number in 0..TABLE - ESTABLISHED {
        t.pass(1, &tcp(&anybody(number), VIP, "S"));
    }
    assert_eq!(t.page.connections.get(), TABLE);
    t
}

#[test]
fn a_flood_of_syns_costs_no_established_connection_a_packet() {
    let mut t = full();
    for round in 0..10 {
        for number in 0..TABLE {
            let syn = tcp(&anybody(TABLE * (1 + round) + number), VIP, "S");
            let sent = t.pass(2 + round, &syn);
            assert_eq!(sent.len(), 1, "each of the flood opens a connection");
            if number % 8 == 0 {
                let client = regular((number + round) % ESTABLISHED);
                let (ask, say) = (tcp(&client, VIP, "PA"), tcp(RS, &client, "PA"));
                t.check(2 + round, ask, on(tcp(&client, RS, "PA")));
                t.check(2 + round, say, on(tcp(VIP, &client, "PA")));
            }
        }
        assert_eq!(t.page.connections.get(), TABLE);
    }
    for number in 0..ESTABLISHED {
        let client = regular(number);
        t.check(30, tcp(&client, VIP, "PA"), on(tcp(&client, RS, "PA")));
    }
}

/// Connections that one call of `tick` ends, at most, and calls until none is left.
fn end_all(t: &mut Testbed, now: Instant) -> (u32, u32) {
    let (mut most, mut calls) = (0, 0);
    while t.page.connections.get() > 0 {
        let before = t.page.connections.get();
        // Every call is in a millisecond of its own, so that each has something to do.
        t.director.tick(now.plus_ms(calls), &mut t.out);
        most = most.max(before - t.page.connections.get());
        calls += 1;
        assert!(calls < 10 * TABLE, "they are ended before long");
    }
    (most, calls)
}

#[test]
fn what_ends_together_is_ended_a_few_at_a_time() {
    let mut t = full();
    t.director.tick(Instant::from_ms(3), &mut t.out);
    let end = Instant::from_ms(1000 + Timeouts::default().ms(State::Established));
    let (most, _) = end_all(&mut t, end);
    assert!(most <= EXPIRE_MAX, "{most} in one call");
    assert!(t.page.balanced());
}

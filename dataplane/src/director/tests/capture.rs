//! Captures see what passes, and what was decided.

use control::{PacketFilter, Stage};

use super::*;
use crate::watch::tap::{CAPTURES_MAX, Caught, Fate, Intake, Wanted, tap};

fn capture(t: &mut Testbed, id: u64, stage: Stage, filter: &str) -> Intake {
    let words: Vec<_> = filter.split_whitespace().collect();
    let wanted = Wanted {
        stage,
        filter: PacketFilter::parse(&words).unwrap(),
        reason: None,
        port: None,
        snaplen: 65535,
    };
    let (tap, intake) = tap(id, wanted, 1 << 20);
    t.out.watch().add_tap(Box::new(tap)).unwrap();
    intake
}

fn all(intake: &mut Intake) -> Vec<Caught> {
    let all = intake.by_ref().collect();
    assert_eq!(intake.missed(), 0);
    all
}

fn fates(intake: &mut Intake) -> Vec<Fate> {
    all(intake).iter().map(|caught| caught.fate).collect()
}

fn to_server(fate: Fate, at_ns: u64, frame: &Frame) -> Caught {
    let bytes = leaving(frame).1.bytes();
    Caught {
        at_ns,
        len: u32::try_from(bytes.len()).unwrap(),
        missed: 0,
        fate,
        from: CLIENTS,
        to: Some(SERVERS),
        service: Some(ServiceId(0)),
        server: Some(ServerId(0)),
        method: Some(ForwardMode::Nat),
        bytes,
    }
}

/// A connection's first packet, which is decided, and its later ones, which go the fast way.
#[test]
fn each_stage_sees_a_packet_as_it_is_there() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let stages = [Stage::Rx, Stage::Decided, Stage::Tx, Stage::Drop];
    let mut intakes = [1, 2, 3, 4]
        .map(|id| (id, stages[usize::try_from(id).unwrap() - 1]))
        .map(|(id, stage)| capture(&mut t, id, stage, ""));
    for (at, flags) in [(1, "S"), (2, "A")] {
        let at_ns = u64::from(at) * 1_000_000;
        t.out.watch().set_time(at_ns);
        t.check(at, tcp(C, VIP, flags), on(tcp(C, RS, flags)));
        let received = arriving(&tcp(C, VIP, flags)).1.bytes();
        let leaves = tcp(C, RS, flags).ttl(63);
        let expected = to_server(Fate::Forwarded, at_ns, &leaves);
        assert_eq!(all(&mut intakes[1]), std::slice::from_ref(&expected));
        assert_eq!(all(&mut intakes[2]), [expected]);
        assert_eq!(all(&mut intakes[3]), []);
        let expected = Caught {
            at_ns,
            len: u32::try_from(received.len()).unwrap(),
            missed: 0,
            fate: Fate::Received,
            from: CLIENTS,
            to: None,
            service: None,
            server: None,
            method: None,
            bytes: received,
        };
        assert_eq!(all(&mut intakes[0]), [expected]);
    }
    for id in 1..=4 {
        assert_eq!(t.out.watch().remove_tap(id).unwrap().id, id);
    }
    t.check(3, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    for intake in &mut intakes {
        assert_eq!(all(intake), [], "it is over");
    }
}

/// Each packet once, with its end; one that waits for a neighbour twice.
#[test]
fn what_is_decided_is_told() {
    let mut t = Testbed::new(1000, setup(false));
    t.add_service(0, Udp, VIP);
    t.add_service(1, Udp, "203.0.113.2:80");
    t.apply(add_server(0, 0, RS, 1));
    let mut decided = capture(&mut t, 1, Stage::Decided, "");
    let mut dropped = capture(&mut t, 2, Stage::Drop, "");
    t.pass(0, &udp(C, VIP, b"x"));
    let caught = all(&mut decided);
    assert_eq!(
        caught.iter().map(|c| c.fate).collect::<Vec<_>>(),
        [Fate::Held, Fate::Answered],
        "it waits, and the neighbour is asked"
    );
    assert_eq!((caught[0].to, caught[0].server), (None, Some(ServerId(0))));
    // The neighbour asks for us, and is known by that.
    let (server, ours) = ([10, 1, 0, 1], [10, 1, 0, 254]);
    let message = |operation| {
        let sender = (mac("10.1.0.1"), server.into());
        let target = (port_mac(SERVERS), ours.into());
        arp(operation, sender, target, port_mac(SERVERS), None)
    };
    let hear = |t: &mut Testbed, at, operation| {
        let mut burst = Burst::from_iter([HeapBuf::new(&message(operation))]);
        (t.director).process(Instant(at), SERVERS, &mut burst, &mut t.out);
        t.settle();
        t.take();
    };
    hear(&mut t, 1, 1);
    let mut seen = fates(&mut decided);
    seen.sort_by_key(|fate| *fate == Fate::Answered);
    assert_eq!(seen, [Fate::Forwarded, Fate::Answered]);
    assert_eq!(all(&mut dropped), []);
    t.pass(2, &udp(C, "203.0.113.2:80", b"x"));
    let caught = all(&mut dropped);
    assert_eq!(caught.len(), 1);
    assert_eq!(caught[0].fate, Fate::Dropped(DropReason::NoServer));
    assert_eq!(
        (caught[0].service, caught[0].server),
        (Some(ServiceId(1)), None)
    );
    assert_eq!(
        caught[0].bytes,
        arriving(&udp(C, "203.0.113.2:80", b"x")).1.bytes()
    );
    assert!(fates(&mut decided).contains(&Fate::Dropped(DropReason::NoServer)));
    hear(&mut t, 3, 2);
    assert_eq!(fates(&mut decided), [Fate::Consumed]);
}

#[test]
fn a_filter_finds_a_connection_by_either_side() {
    for (filter, n) in [
        ("host 203.0.113.1", 2),
        ("host 10.1.0.1 and port 80 and tcp", 2),
        ("net 192.0.2.0/24", 2),
        ("udp", 0),
        ("host 10.1.0.2", 0),
    ] {
        let mut t = Testbed::nat(Tcp, VIP, &[RS]);
        let mut decided = capture(&mut t, 1, Stage::Decided, filter);
        t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
        t.check(0, tcp(RS, C, "SA"), on(tcp(VIP, C, "SA")));
        assert_eq!(all(&mut decided).len(), n, "{filter}");
    }
}

#[test]
fn there_are_so_many_captures_and_no_more() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for id in 0..u64::try_from(CAPTURES_MAX).unwrap() {
        capture(&mut t, id, Stage::Rx, "");
    }
    let wanted = Wanted {
        stage: Stage::Rx,
        filter: PacketFilter::default(),
        reason: None,
        port: None,
        snaplen: 60,
    };
    let (one_more, _) = tap(9, wanted, 4096);
    let refused = t.out.watch().add_tap(Box::new(one_more)).unwrap_err();
    assert_eq!(refused.id, 9);
    assert!(t.out.watch().remove_tap(9).is_none());
}

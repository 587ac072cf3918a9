//! Services and servers that change under their connections.

use super::*;

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
pub(super) fn a_deleted_server_leaves_its_connections_without_a_word() {
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
    t.apply(Update::DeleteService {
        id: crate::update::ServiceId(0),
    });
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
fn schedulers_are_changed_in_place() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS, RS2]);
    t.apply(weigh(0, 3));
    t.apply(Update::EditService {
        id: crate::update::ServiceId(0),
        policy: crate::update::Policy::of(crate::sched::Kind::Wrr),
    });
    for port in 0..8 {
        let client = format!("192.0.2.10:{}", 100 + port);
        let (from, to) = arriving(&tcp(&client, VIP, "S"));
        let mut burst = Burst::from_iter([HeapBuf::new(&to.bytes())]);
        t.director.process(Instant(0), from, &mut burst, &mut t.out);
    }
    assert_eq!((t.load(0), t.load(1)), ((6, 0), (2, 0)));
    assert_eq!(key(Tcp, VIP).port(), 80);
}

/// The generation has 15 bits that count: what a connection remembers is not to seem right again
/// because a batch was long.
#[test]
fn a_long_batch_is_not_taken_for_none() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    let edit = |port| Update::EditServer {
        id: ServerId(0),
        mode: ForwardMode::Nat,
        tunnel: control::Tunnel {
            port,
            ..control::Tunnel::default()
        },
        weight: 1,
        thresholds: control::Thresholds::default(),
    };
    let mut batch = vec![Update::DeleteServer { id: ServerId(1) }];
    batch.extend((1..1 << 15).map(edit));
    let mut rest = &batch[..];
    while !rest.is_empty() {
        let applied = t.director.apply_part(rest, &mut t.out);
        rest = &rest[applied..];
    }
    t.check(1, tcp(C, VIP, "A"), Drop(DropReason::ServerGone));
}

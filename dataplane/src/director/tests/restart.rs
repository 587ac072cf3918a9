//! Connections that a director before this one left in files.

use std::os::unix::fs::FileExt;
use std::path::Path;

use control::{Netmask, Persistence};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::conn::Left;
use crate::director::{Adopted, Heirs};
use crate::mem::Place;
use crate::sched::Kind::Rr;
use crate::templates;
use crate::update::{Policy, ServerId};

const ROOM: u32 = 100;

/// A director whose connections lie in files of this directory.
fn kept(directory: &Path) -> Testbed {
    let mut t = Testbed::new(ROOM, setup(true));
    let (place, steer) = (Place::files(directory), Steer::new(0, 1));
    let director = Director::within(
        &place.of("w"),
        ROOM,
        [5, 6],
        setup(true),
        steer,
        t.page.clone(),
    );
    let templates = templates::Templates::within(&place.of("t"), 100, [7, 8]).unwrap();
    t.director = director.unwrap().sharing(Arc::new(templates));
    t
}

/// Each server has this number now.
fn heirs(numbers: &[Option<u32>]) -> Heirs {
    Heirs {
        servers: numbers.iter().map(|number| number.map(ServerId)).collect(),
        ..Heirs::default()
    }
}

/// When it is `ms` here, and so much later there.
fn adopt(t: &mut Testbed, directory: &Path, ms: u32, heirs: &Heirs) -> Adopted {
    adopt_after(t, directory, (ms, ms), heirs)
}

fn adopt_after(
    t: &mut Testbed,
    directory: &Path,
    (then, now): (u32, u32),
    heirs: &Heirs,
) -> Adopted {
    let left = Left::open(directory, "w", ROOM).unwrap();
    let all = left.all(Instant(then));
    let adopted = t.director.adopt(Instant(now), all, heirs, true);
    t.settle();
    adopted
}

fn all_kept(kept: u64) -> Adopted {
    Adopted {
        kept,
        ..Adopted::default()
    }
}

#[test]
fn they_go_on_where_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = kept(directory.path());
    first.add_service(0, Tcp, VIP);
    first.apply(add_server(0, 0, RS, 1));
    establish(&mut first, 1000, C, RS);
    first.check(2000, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    let half_open = "192.0.2.10:7";
    first.check(2000, tcp(half_open, VIP, "S"), on(tcp(half_open, RS, "S")));

    // Its number is another, its turn another's, and its time begins anew.
    let mut second = Testbed::nat(Tcp, VIP, &[RS2, RS]);
    let adopted = adopt_after(&mut second, directory.path(), (3000, 5), &heirs(&[Some(1)]));
    assert_eq!(adopted, all_kept(2));
    assert_eq!((second.load(0), second.load(1)), ((0, 0), (2, 0)));
    assert_eq!(second.page.servers[1].conns.get(), 0);
    second.check(5, tcp(RS, C, "A"), on(tcp(VIP, C, "A")));
    second.check(5, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    second.check(6, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(second.director.conns.used(), 2);
    // 60 s after its only packet, and 60 s after the last one.
    second.wait(6, 58_900);
    assert_eq!(second.director.conns.used(), 2);
    second.wait(58_900, 59_900);
    assert_eq!(second.director.conns.used(), 1);
    second.wait(59_900, 61_000);
    assert_eq!((second.director.conns.used(), second.load(1)), (0, (0, 0)));
}

/// With one server, which is reached by `mode`.
fn configured(mut t: Testbed, mode: ForwardMode, vip: &str, server: &str) -> Testbed {
    t.add_service(0, Tcp, vip);
    t.apply(super::super::testbed::add_server_by(mode, 0, 0, server));
    t.apply(local_addresses(0, &["10.1.0.100", "2001:db8:1::100"]));
    t
}

#[test]
fn of_every_method_and_family() {
    for mode in [ForwardMode::Nat, ForwardMode::FullNat, ForwardMode::Direct] {
        for (client, vip, server) in [(C, VIP, RS), (C6, VIP6, RS6)] {
            let directory = tempfile::tempdir().unwrap();
            let configured = |t| configured(t, mode, vip, server);
            let mut first = configured(kept(directory.path()));
            let open = first.pass(0, &tcp(client, vip, "S"));
            first.pass(1, &tcp(client, vip, "A"));
            let expected = first.pass(2, &tcp(client, vip, "PA").data(b"x"));

            let mut second = configured(Testbed::new(ROOM, setup(true)));
            let adopted = adopt(&mut second, directory.path(), 3, &heirs(&[Some(0)]));
            assert_eq!(adopted, all_kept(1));
            assert_eq!(
                second.director.leases.in_use(),
                first.director.leases.in_use()
            );
            let sent = second.pass(3, &tcp(client, vip, "PA").data(b"x"));
            assert_eq!(sent, expected, "{mode:?}");
            // A new one has a local port of its own, and is no end of the other.
            let other = client.replace("40000", "40001");
            let new = second.pass(4, &tcp(&other, vip, "S"));
            assert_eq!((new.len(), new == open), (1, false));
            assert_eq!(second.director.conns.used(), 2);
        }
    }
}

#[test]
fn what_cannot_go_on_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = kept(directory.path());
    first.add_service(0, Tcp, VIP);
    first.apply(add_server(0, 0, RS, 1));
    establish(&mut first, 0, C, RS);
    let gone = adopt(
        &mut Testbed::nat(Tcp, VIP, &[]),
        directory.path(),
        1,
        &heirs(&[None]),
    );
    assert_eq!(gone.strange, 1);
    let over = adopt(
        &mut Testbed::nat(Tcp, VIP, &[RS]),
        directory.path(),
        900_000,
        &heirs(&[Some(0)]),
    );
    assert_eq!((over.over, over.lost()), (1, 0));
    // Not the address that its packets come from.
    let other = adopt(
        &mut Testbed::nat(Tcp, VIP, &[RS2]),
        directory.path(),
        1,
        &heirs(&[Some(0)]),
    );
    assert_eq!(other.torn, 1);
    let mut full = Testbed::new(1, setup(true));
    full.add_service(0, Tcp, VIP);
    full.apply(add_server(0, 0, RS, 1));
    establish(&mut full, 0, "192.0.2.10:8", RS);
    let homeless = adopt(&mut full, directory.path(), 1, &heirs(&[Some(0)]));
    assert_eq!(homeless.homeless, 1);
    let mut twice = Testbed::nat(Tcp, VIP, &[RS]);
    assert_eq!(
        adopt(&mut twice, directory.path(), 1, &heirs(&[Some(0)])),
        all_kept(1)
    );
    assert_eq!(
        adopt(&mut twice, directory.path(), 1, &heirs(&[Some(0)])).torn,
        1
    );
}

#[test]
fn one_without_room_leaves_its_local_port_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let configured = |t| configured(t, ForwardMode::FullNat, VIP, RS);
    let mut first = configured(kept(directory.path()));
    for client in ["192.0.2.10:1", "192.0.2.10:2"] {
        first.pass(0, &tcp(client, VIP, "S"));
    }
    let mut small = configured(Testbed::new(1, setup(true)));
    let adopted = adopt(&mut small, directory.path(), 1, &heirs(&[Some(0)]));
    assert_eq!((adopted.kept, adopted.homeless), (1, 1));
    assert_eq!(small.director.leases.in_use(), 1);
}

#[test]
fn each_worker_takes_what_is_at_home_there() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = kept(directory.path());
    first.add_service(0, Tcp, VIP);
    first.apply(add_server(0, 0, RS, 1));
    for n in 1..=40 {
        establish(&mut first, 0, &format!("192.0.2.10:{}", 2000 + n), RS);
    }
    let mut shares = Vec::new();
    for me in 0..3 {
        let mut t = Testbed::new(ROOM, setup(true));
        let steer = Steer::new(me, 3);
        t.director = Director::new(ROOM, [1, 2], setup(true), steer, t.page.clone()).unwrap();
        t.add_service(0, Tcp, VIP);
        t.apply(add_server(0, 0, RS, 1));
        let adopted = adopt(&mut t, directory.path(), 1, &heirs(&[Some(0)]));
        assert_eq!(adopted, all_kept(t.director.conns.used().into()));
        shares.push(adopted.kept);
    }
    assert_eq!(shares.iter().sum::<u64>(), 40);
    assert!(shares.iter().all(|share| *share > 5), "{shares:?}");
}

#[test]
fn clients_keep_their_servers() {
    let directory = tempfile::tempdir().unwrap();
    let configured = |mut t: Testbed| {
        let persistence = Persistence {
            timeout_s: 300,
            netmask: Netmask::V4(std::net::Ipv4Addr::BROADCAST),
        };
        t.apply(Update::AddService {
            id: ServiceId(0),
            key: key(Tcp, VIP),
            policy: Policy {
                persistence: Some(persistence),
                ..Policy::of(Rr)
            },
        });
        t.apply(add_server(0, 0, RS, 1));
        t.apply(add_server(0, 1, RS2, 1));
        t
    };
    let mut first = configured(kept(directory.path()));
    establish(&mut first, 0, C, RS2);

    let left = templates::Left::open(directory.path(), "t", 100).unwrap();
    let mut second = configured(Testbed::new(ROOM, setup(true)));
    let heirs = heirs(&[Some(0), Some(1)]);
    let templates = Arc::clone(&second.director.templates);
    let resumed = templates.resume(Instant(1), (&left, Instant(1)), |id| heirs.server(id));
    let heirs = Heirs {
        templates: resumed.numbers,
        ..heirs
    };
    assert_eq!(adopt(&mut second, directory.path(), 1, &heirs), all_kept(1));
    resumed
        .holds
        .into_iter()
        .for_each(|hold| templates.release(hold));
    let again = "192.0.2.10:9";
    second.check(2, tcp(again, VIP, "S"), on(tcp(again, RS2, "S")));
    // The connection that was left holds it, too.
    assert_eq!(templates.of_server(ServerId(1)), 1);
    let template = (0..templates.lines()).find_map(|line| templates.at(line, Instant(2)));
    assert_eq!(template.unwrap().controls, 2);
    // Both end, and with them the template at last.
    second.wait(3, 2_000_000);
    assert_eq!((templates.used(), second.director.conns.used()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is in the files: nothing outside is reached, and what is taken in is served and ends.
    #[test]
    fn damage_costs_what_is_damaged_and_nothing_else(
        spoilt in vec((0usize..5, 0u64..2048, any::<u8>()), 1..300),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let configured = |mut t: Testbed| {
            for (id, mode) in [(0, ForwardMode::Nat), (1, ForwardMode::FullNat), (2, ForwardMode::Direct)] {
                t.add_service(id, Tcp, &format!("203.0.113.{}:80", id + 1));
                t.apply(super::super::testbed::add_server_by(mode, id, id, RS));
                t.apply(local_addresses(id, &["10.1.0.100"]));
            }
            t
        };
        let mut first = configured(kept(directory.path()));
        for n in 0..30 {
            let (client, vip) = (format!("192.0.2.10:{}", 3000 + n), format!("203.0.113.{}:80", n % 3 + 1));
            first.pass(0, &tcp(&client, &vip, "S"));
            first.pass(1, &tcp(&client, &vip, "A"));
        }
        for (file, at, value) in spoilt {
            let name = ["entries", "entries", "wide", "extras", "parents"][file];
            let path = directory.path().join(format!("w.{name}"));
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[value], at).unwrap();
        }
        let mut second = configured(Testbed::new(ROOM, setup(true)));
        let adopted = adopt(&mut second, directory.path(), 2, &heirs(&[Some(0), Some(1), Some(2)]));
        prop_assert!(adopted.kept <= 100);
        let loads: u32 = (0..3).map(|id| { let (a, b) = second.load(id); a + b }).sum();
        prop_assert_eq!(u64::from(loads), adopted.kept);
        prop_assert_eq!(u64::from(second.director.conns.used()), adopted.kept);
        for n in 0..30 {
            let (client, vip) = (format!("192.0.2.10:{}", 3000 + n), format!("203.0.113.{}:80", n % 3 + 1));
            second.pass(3, &tcp(&client, &vip, "A"));
            second.pass(3, &tcp(RS, &client, "A"));
            second.pass(3, &tcp(RS, &format!("10.1.0.100:{}", 1024 + n), "FA"));
        }
    }
}

//! Connections that one director tells and another takes up.

use std::net::SocketAddr;

use control::{Netmask, Persistence};

use super::*;
use crate::director::Unkept;
use crate::sched::Kind::Rr;
use crate::sync::message::{Entry, flags};
use crate::sync::news::{Feeder, News, feeds};
use crate::update::Policy;

/// A director that tells what it does, and where that is heard.
fn telling(mut t: Testbed) -> (Testbed, Feeder) {
    let (mut feeds, mut feeders, _) = feeds(1);
    t.director.tell_by(feeds.pop()).unwrap();
    let mut feeder = feeders.pop().unwrap();
    // It begins with a round of nothing.
    t.wait(0, 0);
    assert!(matches!(feeder.take(), Some((_, News::Round(1)))));
    (t, feeder)
}

fn told(feeder: &mut Feeder) -> Vec<Entry> {
    let news = std::iter::from_fn(|| feeder.take());
    let entries = news.map(|(_, news)| match news {
        News::Connection(entry) => entry,
        other => panic!("{other:?}"),
    });
    entries.collect()
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Gives the other director what was told; nothing of it may be counted as a packet.
fn take_up(t: &mut Testbed, ms: u32, entries: &[Entry]) {
    for entry in entries {
        // As it comes by the wire.
        let entry = Entry {
            flags: entry.flags & flags::KEPT | flags::SYNC,
            ..entry.clone()
        };
        assert_eq!(t.director.synced(Instant(ms), &entry), Ok(()));
    }
    t.settle();
}

#[test]
fn an_established_connection_goes_on_at_another_director() {
    let bed = || Testbed::nat(Tcp, VIP, &[RS2, RS]);
    let (mut first, mut feeder) = telling(bed());
    establish(&mut first, 0, C, RS);
    assert_eq!(told(&mut feeder), [], "two packets of the client's");
    first.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    let entries = told(&mut feeder);
    let [entry] = &entries[..] else {
        panic!("{entries:?}")
    };
    let expected = Entry {
        protocol: 6,
        flags: 0,
        state: 1,
        client: socket(C),
        vip: socket(VIP),
        server: socket(RS),
        mark: 0,
        timeout_s: 900,
        sequences: None,
        engine_data: None,
        local: None,
    };
    assert_eq!(*entry, expected);

    let mut second = bed();
    // Its turn is another server's.
    let other = "192.0.2.10:1";
    second.check(0, tcp(other, VIP, "S"), on(tcp(other, RS, "S")));
    take_up(&mut second, 5, &entries);
    assert_eq!(second.load(1), (2, 0));
    assert_eq!(second.page.connections.get(), 2);
    assert_eq!(second.page.sync.kept.get(), 1);
    second.check(6, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    second.check(7, tcp(RS, C, "A"), on(tcp(VIP, C, "A")));
    // Nothing was scheduled.
    assert_eq!(second.page.servers[1].conns.get(), 1);
    second.check(899_999, tcp(RS, C, "A"), on(tcp(VIP, C, "A")));
}

#[test]
fn the_end_is_told_at_once() {
    let bed = || Testbed::nat(Tcp, VIP, &[RS]);
    let (mut first, mut feeder) = telling(bed());
    establish(&mut first, 0, C, RS);
    first.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    let mut second = bed();
    take_up(&mut second, 2, &told(&mut feeder));
    first.check(3, tcp(C, VIP, "FA"), on(tcp(C, RS, "FA")));
    let end = told(&mut feeder);
    assert_eq!(end[0].state, State::CloseWait.number());
    assert_eq!(end[0].flags, flags::INACTIVE);
    take_up(&mut second, 4, &end);
    assert_eq!(second.load(0), (0, 1));
    second.wait(4, 62_000);
    assert_eq!(second.load(0), (0, 0));
    assert_eq!(second.page.connections.get(), 0);
}

#[test]
fn every_method_and_family_goes_on() {
    use ForwardMode::{Direct as Dr, Nat, Tunnel};
    for (mode, vip, server, client, number) in [
        (Dr, VIP, RS, C, flags::DIRECT),
        (Dr, VIP6, RS6, C6, flags::DIRECT),
        (Tunnel, VIP, RS, C, flags::TUNNEL),
        (Tunnel, VIP6, RS6, C6, flags::TUNNEL),
        (Nat, VIP6, RS6, C6, flags::NAT),
    ] {
        let bed = || Testbed::by(mode, Tcp, vip, &[server]);
        let (mut first, mut feeder) = telling(bed());
        for (ms, flags) in [(0, "S"), (1, "A")] {
            first.pass(ms, &tcp(client, vip, flags));
        }
        if mode == Nat {
            first.pass(2, &tcp(server, client, "SA"));
        }
        let here = first.pass(3, &tcp(client, vip, "A"));
        let entries = told(&mut feeder);
        let no_output = if mode == Nat { 0 } else { flags::NO_OUTPUT };
        assert_eq!(entries.len(), 1, "{mode:?}");
        assert_eq!(entries[0].flags & !flags::INACTIVE, number | no_output);
        assert_eq!(entries[0].server, socket(server));
        let mut second = bed();
        take_up(&mut second, 5, &entries);
        assert_eq!(second.load(0), first.load(0));
        let there = second.pass(6, &tcp(client, vip, "A"));
        // A tunnel's own header is numbered.
        assert_eq!(here.len(), there.len());
        assert_eq!(here[0].len(), there[0].len());
        if mode != Tunnel {
            assert_eq!(here, there);
        }
    }
}

#[test]
fn fullnat_keeps_its_local_address_and_port() {
    const LOCAL: &str = "10.1.0.100:1024";
    let bed = || {
        let mut t = Testbed::by(ForwardMode::FullNat, Udp, VIP, &[RS]);
        t.apply(local_addresses(0, &["10.1.0.100"]));
        options(
            &mut t,
            ServiceOptions {
                client_address: control::ClientAddress::None,
                ..ServiceOptions::default()
            },
        );
        t
    };
    let (mut first, mut feeder) = telling(bed());
    for ms in 0..3 {
        first.check(ms, udp(C, VIP, b"x"), on(udp(LOCAL, RS, b"x")));
    }
    let entries = told(&mut feeder);
    assert_eq!(entries[0].local, Some(socket(LOCAL)));
    let mut second = bed();
    take_up(&mut second, 5, &entries);
    assert_eq!(second.director.leases.in_use(), 1);
    second.check(6, udp(C, VIP, b"x"), on(udp(LOCAL, RS, b"x")));
    second.check(7, udp(RS, LOCAL, b"y"), on(udp(VIP, C, b"y")));
    let (other, next) = ("192.0.2.10:1", "10.1.0.100:1025");
    second.check(8, udp(other, VIP, b"x"), on(udp(next, RS, b"x")));
    // Whoever has the port already keeps it.
    let mut taken = entries[0].clone();
    taken.client = socket("192.0.2.10:2");
    let kept = second.director.synced(Instant(9), &taken);
    assert_eq!(kept, Err(Unkept::Full));
    second.wait(9, 400_000);
    assert_eq!(second.director.leases.in_use(), 0);
}

#[test]
fn what_is_not_known_here_is_counted() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS, RS2]);
    let entry = |server: &str, flags| Entry {
        protocol: 6,
        flags: flags | flags::SYNC,
        state: 1,
        client: socket(C),
        vip: socket(VIP),
        server: socket(server),
        mark: 0,
        timeout_s: 0,
        sequences: None,
        engine_data: None,
        local: None,
    };
    let mut told = |entry: &Entry| t.director.synced(Instant(0), entry);
    assert_eq!(told(&entry("10.1.0.9:80", 0)), Err(Unkept::Unknown));
    let elsewhere = Entry {
        vip: socket("203.0.113.9:80"),
        ..entry(RS, 0)
    };
    assert_eq!(told(&elsewhere), Err(Unkept::Unknown));
    assert_eq!(told(&entry(RS, 0)), Ok(()));
    // The end of one that another has replaced, and one that replaces it.
    assert_eq!(told(&entry(RS2, flags::INACTIVE)), Err(Unkept::Replaced));
    assert_eq!(told(&entry(RS2, 0)), Ok(()));
    assert_eq!((t.load(0), t.load(1)), ((0, 0), (1, 0)));
    let counts = &t.page.sync;
    let counted = [
        &counts.kept,
        &counts.unknown,
        &counts.replaced,
        &counts.full,
    ];
    assert_eq!(counted.map(|count| count.get()), [2, 2, 1, 0]);
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, RS2, "A")));
}

#[test]
fn a_client_keeps_its_server_at_another_director() {
    let bed = || {
        let mut t = Testbed::new(1000, setup(true));
        t.apply(Update::AddService {
            id: ServiceId(0),
            key: key(Tcp, VIP),
            policy: Policy {
                persistence: Some(Persistence {
                    timeout_s: 300,
                    netmask: Netmask::whole(false),
                }),
                ..Policy::of(Rr)
            },
        });
        for (id, server) in (0..).zip([RS2, RS]) {
            t.apply(add_server(0, id, server, 1));
        }
        t
    };
    let (mut first, mut feeder) = telling(bed());
    first.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    let Some((_, News::Template(news))) = feeder.take() else {
        panic!("the template is told with the first packet")
    };
    assert_eq!((news.server, news.method, news.mark), (socket(RS), 0, 0));
    let template = first.director.templates().at(news.number, Instant(1));
    let template = template.unwrap();
    let entry = Entry {
        protocol: template.protocol,
        flags: flags::TEMPLATE | flags::SYNC,
        state: 0,
        client: template.client,
        vip: template.virtual_address,
        server: news.server,
        mark: 0,
        timeout_s: 300,
        sequences: None,
        engine_data: None,
        local: None,
    };
    let mut second = bed();
    // Its first client has the server whose turn it is.
    let other = "192.0.2.11:1";
    second.check(0, tcp(other, VIP, "S"), on(tcp(other, RS, "S")));
    assert_eq!(second.director.synced(Instant(1), &entry), Ok(()));
    let again = "192.0.2.10:7";
    second.check(2, tcp(again, VIP, "S"), on(tcp(again, RS, "S")));
    assert_eq!(second.director.templates().used(), 2);
}

#[test]
fn everything_is_told_to_who_asks() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for n in 1..=100 {
        let client = format!("192.0.2.10:{}", 1000 + n);
        establish(&mut t, 0, &client, RS);
    }
    // One that is not established is not told.
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    let (mut feeds, mut feeders, rounds) = feeds(1);
    t.director.tell_by(feeds.pop()).unwrap();
    let feeder = feeders.first_mut().unwrap();
    for round in [1, 2] {
        t.wait(1, 1000);
        let news: Vec<News> = std::iter::from_fn(|| feeder.take())
            .map(|(_, news)| news)
            .collect();
        let (last, all) = news.split_last().unwrap();
        assert!(matches!(last, News::Round(n) if *n == round));
        assert_eq!(all.len(), 100);
        rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

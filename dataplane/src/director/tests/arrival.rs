//! Packets that a NIC spreads over the workers.

use control::Role;

use super::*;
use crate::director::{Arrival, Tray};
use crate::packet::{Burst, PortId};
use crate::steer::hash_of;
use crate::wire::flow::Seen;

/// The first of two workers.
fn bed() -> Testbed {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.director.steer = Steer::new(0, 2);
    t
}

/// Clients whose connections are this worker's, or the other one's.
fn clients(home: usize) -> impl Iterator<Item = String> {
    let steer = Steer::new(0, 2);
    let all = (1024..u16::MAX).map(|n| format!("192.0.2.10:{n}"));
    all.filter(move |client| steer.home(client.parse().unwrap()) == home)
}

/// A frame as it arrives, hashed by its source (or destination) as the device does.
fn hashed(frame: &Frame, by_source: bool) -> (PortId, HeapBuf) {
    let (port, frame) = arriving(frame);
    let bytes = frame.bytes();
    let seen = Seen::parse(&bytes).unwrap();
    let tuple = seen.tuple(&bytes);
    let end = if by_source { tuple.from } else { tuple.to };
    let hash = hash_of(end);
    (port, HeapBuf::new(&bytes).hashed(hash))
}

/// Lets a packet arrive here; to which worker it was handed on, if it was.
fn arrives(t: &mut Testbed, (port, packet): (PortId, HeapBuf)) -> Option<usize> {
    let mut burst = Burst::from_iter([packet]);
    let (director, out) = (&mut t.director, &mut t.out);
    director.process(Instant::default(), port, &mut burst, out);
    t.out.sent.clear();
    let handed_on = t.out.steered.pop();
    handed_on.map(|(worker, ..)| worker)
}

fn port_of(frame: &Frame) -> PortId {
    arriving(frame).0
}

#[test]
fn hashes_that_agree_are_believed_and_strays_find_home() {
    let mut t = bed();
    let port = port_of(&tcp("192.0.2.10:1", VIP, "S"));
    t.director.arrive(port, Some(Role::Clients));
    let ours: Vec<_> = clients(0).take(100).collect();
    for client in &ours {
        assert_ne!(t.director.arrival(port), Arrival::AtHome);
        assert_eq!(arrives(&mut t, hashed(&tcp(client, VIP, "S"), true)), None);
        if t.director.arrival(port) == Arrival::AtHome {
            break;
        }
    }
    assert_eq!(t.director.arrival(port), Arrival::AtHome, "64 are enough");
    assert_eq!(t.page.port(port).arrival.get(), 2);
    // From now on nothing is hashed, but what opens here belongs here.
    let mine = tcp(&ours[99], VIP, "S");
    assert_eq!(arrives(&mut t, hashed(&mine, true)), None);
    assert_eq!(t.page.connections.get(), 65);
    for client in clients(1).take(20) {
        for flags in ["S", "A", "R"] {
            let stray = hashed(&tcp(&client, VIP, flags), true);
            assert_eq!(arrives(&mut t, stray), Some(1));
        }
    }
    assert_eq!(t.page.connections.get(), 65);
    // Those of connections that are here are not looked at.
    assert_eq!(
        arrives(&mut t, hashed(&tcp(&ours[0], VIP, "A"), true)),
        None
    );
}

/// Replies go by the client's end too, which is where they are sent to.
#[test]
fn the_servers_side_goes_by_destinations() {
    let mut t = bed();
    let reply = |client: &str| tcp(RS, client, "SA");
    let port = port_of(&reply("192.0.2.10:1"));
    t.director.arrive(port, Some(Role::Servers));
    for client in clients(0).take(64) {
        arrives(&mut t, hashed(&tcp(&client, VIP, "S"), true));
        assert_eq!(arrives(&mut t, hashed(&reply(&client), false)), None);
    }
    assert_eq!(t.director.arrival(port), Arrival::AtHome);
    // One of a server that is a client itself says nothing of the device.
    let client = clients(1).next().unwrap();
    assert_eq!(arrives(&mut t, hashed(&reply(&client), false)), Some(1));
}

/// What was looked up for it before would not know of the connection.
#[test]
fn what_is_gathered_is_decided_before_a_burst_that_is_at_home() {
    let mut t = bed();
    let reply = |client: &str| tcp(RS, client, "SA");
    let at_home = port_of(&reply("192.0.2.10:1"));
    t.director.arrive(at_home, Some(Role::Servers));
    let all: Vec<_> = clients(0).take(100).collect();
    for client in &all[..64] {
        arrives(&mut t, hashed(&tcp(client, VIP, "S"), true));
        arrives(&mut t, hashed(&reply(client), false));
    }
    assert_eq!(t.director.arrival(at_home), Arrival::AtHome);
    let port = port_of(&tcp(&all[64], VIP, "S"));
    let syn = |client: &String| HeapBuf::new(&arriving(&tcp(client, VIP, "S")).1.bytes());
    // So many that the first is looked up at once.
    let mut burst = Burst::from_iter(all[64..84].iter().map(syn));
    let mut again = arriving(&tcp(&all[64], VIP, "S")).1.bytes().to_vec();
    again[..6].copy_from_slice(&port_mac(at_home));
    let mut other = Burst::from_iter([HeapBuf::new(&again)]);
    let (director, out, now) = (&mut t.director, &mut t.out, Instant::default());
    let mut tray = Tray::default();
    director.gather(now, port, &mut burst, &mut tray, out);
    director.gather(now, at_home, &mut other, &mut tray, out);
    director.finish(now, &mut tray, out);
    assert_eq!(t.page.connections.get(), 64 + 20);
}

#[test]
fn a_device_that_hashes_otherwise_or_not_at_all_is_not_relied_on() {
    let port = port_of(&tcp("192.0.2.10:1", VIP, "S"));
    let after = |t: &mut Testbed, packets: usize, hash: &dyn Fn(&str) -> HeapBuf| {
        t.director.arrive(port, Some(Role::Clients));
        for client in clients(0).take(packets) {
            arrives(t, (port, hash(&client)));
        }
        t.director.arrival(port)
    };
    let plain = |client: &str| HeapBuf::new(&arriving(&tcp(client, VIP, "A")).1.bytes());
    let mut t = bed();
    let wrong = after(&mut t, 1, &|client| plain(client).hashed(7));
    assert_eq!(wrong, Arrival::Disagreed);
    assert_eq!(t.page.port(port).arrival.get(), 3);
    // By the whole packet rather than the client.
    let by_all = after(&mut t, 1, &|client| {
        plain(client).hashed(hashed(&tcp(client, VIP, "A"), false).1.rss_hash().unwrap())
    });
    assert_eq!(by_all, Arrival::Disagreed);
    assert!(matches!(after(&mut t, 255, &plain), Arrival::Tried { .. }));
    assert_eq!(after(&mut t, 256, &plain), Arrival::Unhashed);
    // Right, but at the wrong queue: another worker's.
    t.director.arrive(port, Some(Role::Clients));
    let other = clients(1).next().unwrap();
    assert_eq!(
        arrives(&mut t, hashed(&tcp(&other, VIP, "S"), true)),
        Some(1)
    );
    assert_eq!(t.director.arrival(port), Arrival::Disagreed);
    // Nobody said, or nobody else is there.
    t.director.arrive(port, None);
    assert_eq!(t.director.arrival(port), Arrival::Anywhere);
    t.director.steer = Steer::new(0, 1);
    t.director.arrive(port, Some(Role::Clients));
    assert_eq!(t.director.arrival(port), Arrival::Anywhere);
}

//! The network changes under connections.

use super::*;
use crate::net::{Network, Setup};
use crate::steer::Steer;

/// Behind a gateway.
const FAR: &str = "198.51.100.9:5000";

/// The test bed's network after `edit`.
fn network(edit: impl FnOnce(&mut Setup)) -> Update {
    let mut setup = setup(true);
    edit(&mut setup);
    Update::SetNetwork(Arc::new(Network::new(
        setup.interfaces,
        setup.routes,
        setup.neighbours,
    )))
}

/// The Ethernet address that the only packet to leave goes to.
fn station(sent: &[Vec<u8>]) -> &[u8] {
    assert_eq!(sent.len(), 1);
    &sent[0][..6]
}

#[test]
fn connections_follow_a_route_at_once() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, FAR, RS);
    let answer = tcp(RS, FAR, "A");
    assert_eq!(station(&t.pass(1, &answer)), mac("192.0.2.1"));
    t.apply(network(|setup| {
        setup.routes[0].via = "192.0.2.10".parse().unwrap();
    }));
    assert_eq!(station(&t.pass(2, &answer)), mac("192.0.2.10"));
    // A longer prefix is nearer.
    t.apply(network(|setup| {
        setup.routes.push(crate::net::Route {
            to: crate::net::Prefix {
                address: "198.51.100.0".parse().unwrap(),
                length: 24,
            },
            via: "10.2.0.1".parse().unwrap(),
        });
    }));
    assert_eq!(station(&t.pass(3, &answer)), mac("10.2.0.1"));
    t.apply(network(|setup| setup.routes.clear()));
    t.check(4, answer.clone(), Drop(DropReason::NoRoute));
    t.apply(network(|_| ()));
    assert_eq!(station(&t.pass(5, &answer)), mac("192.0.2.1"));
    assert_eq!(t.load(0), (1, 0), "the connection stays");
}

#[test]
fn an_address_that_goes_no_longer_answers() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let (old, new) = ("192.0.2.254", "192.0.2.253");
    let echo = |ours: &str| icmp("192.0.2.10", ours, 8, 0, [1, 2, 3, 4], b"payload");
    t.check(0, echo(new), Drop(DropReason::NotOurs));
    t.apply(network(|setup| {
        setup.interfaces[0].addresses[0].address = new.parse().unwrap();
    }));
    t.check(1, echo(old), Drop(DropReason::NotOurs));
    let reply = icmp(new, "192.0.2.10", 0, 0, [1, 2, 3, 4], b"payload");
    t.check(2, echo(new), Answer(leaving(&reply).1.bytes()));
}

/// Source and destination of the outer IPv4 header.
#[test]
fn tunnels_begin_at_an_address_that_there_is() {
    let mut t = Testbed::by(ForwardMode::Tunnel, Udp, VIP, &[RS]);
    let outer = |sent: &[Vec<u8>]| sent[0][26..30].to_vec();
    let packet = udp(C, VIP, b"x");
    assert_eq!(outer(&t.pass(0, &packet)), [10, 1, 0, 254]);
    t.apply(network(|setup| {
        setup.interfaces[1].addresses[0].address = "10.1.0.253".parse().unwrap();
    }));
    assert_eq!(outer(&t.pass(1, &packet)), [10, 1, 0, 253]);
}

#[test]
fn one_worker_announces_and_all_agree() {
    let update = network(|setup| {
        let address = "192.0.2.253".parse().unwrap();
        let more = crate::net::Prefix {
            address,
            length: 24,
        };
        setup.interfaces[0].addresses.push(more);
        setup.routes[0].via = "192.0.2.10".parse().unwrap();
    });
    let mut announced = 0;
    for me in 0..3 {
        let mut t = Testbed::new(16, setup(true));
        let steer = Steer::new(me, 3);
        t.director = Director::new(16, [1, 2], setup(true), steer, t.page.clone()).unwrap();
        t.director.apply(&update, &mut t.out);
        announced += t.take().len();
        let far = FAR.parse::<std::net::SocketAddr>().unwrap().ip();
        let hop = t.director.net.hop_to(Instant(0), far).unwrap();
        assert_eq!(t.director.net.hop(hop).l2[..6], mac("192.0.2.10"));
    }
    assert_eq!(announced, 1);
}

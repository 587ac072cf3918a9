//! The network changes: what stays, what goes, who is told.

use super::*;
use crate::wire::nd::link_local;

const MORE: [u8; 4] = [10, 0, 0, 2];

impl Bed {
    /// As the first network is after `edit`.
    fn adopt(&mut self, edit: impl FnOnce(&mut Setup)) {
        let mut setup = setup();
        edit(&mut setup);
        let network = Network::new(setup.interfaces, setup.routes, setup.neighbours);
        let network = Arc::new(network);
        let before = self.net.generation();
        self.net.adopt(&network, true, &mut self.out, &self.page);
        assert_ne!(self.net.generation(), before);
        assert!(self.page.balanced(), "{:?}", self.page);
    }

    fn learn_host(&mut self) -> HopId {
        let id = self.forward(0, HOST, 1);
        self.arp(0, 2, (PEER, HOST), US);
        assert_eq!(self.sent(), [request_for(HOST), data(PEER, 1)]);
        id
    }

    /// Whether somebody who asks for `address` is told.
    fn is_told(&mut self, address: [u8; 4]) -> bool {
        self.arp(0, 1, (PEER, HOST), address);
        !self.sent().is_empty()
    }
}

fn announced(address: [u8; 4]) -> (PortId, Vec<u8>, bool) {
    let us = (OUR_LAN, address);
    (
        LAN,
        arp_frame(BROADCAST, OUR_LAN, None, 1, us, (ZERO, address)),
        true,
    )
}

#[test]
fn what_was_learned_stays_and_routes_follow() {
    let mut bed = Bed::new();
    let id = bed.learn_host();
    bed.adopt(|setup| setup.routes[0].via = HOST.into());
    assert_eq!(bed.state(HOST), Some("reachable"));
    assert_eq!(bed.net.hop_to(Instant(0), [8, 8, 8, 8].into()), Ok(id));
    bed.adopt(|setup| setup.routes.clear());
    assert_eq!(
        bed.net.hop_to(Instant(0), [8, 8, 8, 8].into()),
        Err(NoRoute)
    );
    assert_eq!(bed.net.hop_to(Instant(0), HOST.into()), Ok(id));
    assert_eq!(bed.sent(), []);
}

#[test]
fn addresses_come_and_go() {
    let mut bed = Bed::new();
    bed.learn_host();
    assert!(!bed.is_told(MORE));
    bed.adopt(|setup| setup.interfaces[0].addresses = vec![prefix(MORE, 24)]);
    assert_eq!(bed.sent(), [announced(MORE)]);
    assert!(bed.is_told(MORE) && !bed.is_told(US));
    assert_eq!(bed.state(HOST), Some("reachable"));
    // It is asked with the address that there is.
    let id = bed.net.hop_to(Instant(0), HOST.into()).unwrap();
    assert_eq!(bed.net.source_for(id), IpAddr::from(MORE));
    // The network goes, and with it those who are on it; another takes nobody's place.
    bed.adopt(|setup| {
        setup.interfaces[0].addresses = vec![prefix([10, 9, 0, 1], 24)];
        setup.routes.clear();
    });
    assert_eq!(bed.sent(), [announced([10, 9, 0, 1])]);
    assert_eq!(bed.state(HOST), None);
    assert_eq!(bed.net.hop_to(Instant(0), HOST.into()), Err(NoRoute));
    assert_eq!(bed.drops(NoRoute), 0);
}

#[test]
fn an_address_in_ipv6_is_announced() {
    let mut bed = Bed::new();
    let address: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    bed.adopt(|setup| {
        setup.interfaces[0].addresses.push(Prefix {
            address: address.into(),
            length: 64,
        });
    });
    let sent = bed.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1[..6], [0x33, 0x33, 0, 0, 0, 1], "all nodes");
    assert!(bed.net.is_mine(address.into()) && bed.net.is_mine(link_local(OUR_LAN).into()));
}

#[test]
fn what_waits_for_a_neighbour_that_goes_is_dropped() {
    let mut bed = Bed::new();
    for mark in 0..3 {
        bed.forward(0, HOST, mark);
    }
    let other = bed.forward(0, [192, 168, 1, 9], 4);
    bed.sent();
    assert_eq!(bed.page.held.get(), 4);
    bed.adopt(|setup| setup.interfaces[0].addresses.clear());
    assert_eq!((bed.page.held.get(), bed.drops(NoRoute)), (1, 3));
    assert_eq!(
        bed.net.hop_to(Instant(0), [192, 168, 1, 9].into()),
        Ok(other)
    );
    // It becomes one of our own.
    bed.adopt(|setup| setup.interfaces[1].addresses[0].address = [192, 168, 1, 9].into());
    assert_eq!((bed.page.held.get(), bed.drops(NoRoute)), (0, 4));
}

#[test]
fn a_vlan_goes_and_comes_back() {
    let mut bed = Bed::new();
    let far = [192, 168, 1, 9];
    bed.learn_host();
    bed.forward(0, far, 1);
    bed.sent();
    bed.adopt(|setup| {
        setup.interfaces.remove(1);
    });
    assert_eq!((bed.state(far), bed.drops(NoRoute)), (None, 1));
    assert_eq!(bed.net.interface(TRUNK, Some(100)), None);
    // Others keep their place, whatever their number is.
    bed.adopt(|setup| setup.interfaces.swap(0, 1));
    assert_eq!(bed.state(HOST), Some("reachable"));
    assert_eq!(bed.sent().len(), 1, "the VLAN's address is announced");
    bed.forward(0, HOST, 7);
    assert_eq!(bed.sent(), [data(PEER, 7)]);
}

/// As of a port that was deleted and added again.
#[test]
fn neighbours_of_an_interface_with_another_mac_or_mtu_are_asked_anew() {
    let mut bed = Bed::new();
    bed.learn_host();
    bed.adopt(|_| ());
    assert_eq!(bed.state(HOST), Some("reachable"));
    let changes: [fn(&mut Setup); 2] = [
        |setup| setup.interfaces[0].mac = [2, 0, 0, 0, 0, 0x77],
        |setup| setup.interfaces[0].mtu = 1400,
    ];
    for change in changes {
        bed.adopt(change);
        assert_eq!(bed.state(HOST), None);
        bed.adopt(|_| ());
        bed.learn_host();
    }
}

#[test]
fn static_neighbours_come_change_and_go() {
    let mut bed = Bed::new();
    bed.forward(0, HOST, 1);
    assert_eq!(bed.sent(), [request_for(HOST)]);
    let pin = |mac| {
        move |setup: &mut Setup| {
            let address = HOST.into();
            setup.neighbours.push(StaticNeighbour { address, mac });
        }
    };
    bed.adopt(pin(PEER));
    assert_eq!(bed.sent(), [data(PEER, 1)], "it leaves at once");
    assert_eq!(bed.state(HOST), Some("static"));
    bed.adopt(pin(MOVED));
    bed.forward(0, HOST, 2);
    assert_eq!(bed.sent(), [data(MOVED, 2)]);
    bed.adopt(|_| ());
    assert_eq!(bed.state(HOST), None);
    bed.forward(0, HOST, 3);
    assert_eq!(bed.sent(), [request_for(HOST)]);
    assert_eq!(bed.state([10, 0, 0, 50]), Some("static"));
}

#[test]
fn learned_neighbours_are_flushed() {
    let mut bed = Bed::new();
    bed.learn_host();
    bed.forward(0, [10, 0, 0, 8], 2);
    bed.sent();
    bed.net.flush();
    assert_eq!(bed.state(HOST), None);
    assert_eq!(bed.state([10, 0, 0, 50]), Some("static"));
    assert_eq!(
        bed.state([10, 0, 0, 8]),
        Some("incomplete"),
        "a packet waits"
    );
    bed.forward(0, HOST, 3);
    assert_eq!(bed.sent(), [request_for(HOST)]);
}

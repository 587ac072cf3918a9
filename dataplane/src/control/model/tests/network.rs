//! Addresses, routes and static neighbours: refusals, batches, and the network against a naive one.

use std::net::IpAddr;
use std::sync::Arc;

use control::{Address, Network, Route, StaticNeighbour};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::kernel::mirror::Mirror;
use crate::net::{Interface, NextHop, Prefix, Setup};
use crate::packet::PortId;

const MTU: [u16; 2] = [1500, 1000];

fn port(n: u8) -> Interface {
    Interface {
        port: PortId(n),
        vlan: None,
        mac: [2, 0, 0, 0, 0, n],
        mtu: MTU[usize::from(n)],
        partial_checksums: false,
        addresses: Vec::new(),
        kernel: None,
    }
}

/// Ports `lan` and `wan`, without addresses.
fn model() -> Model {
    let setup = Setup {
        interfaces: vec![port(0), port(1)],
        ..Setup::default()
    };
    Model::new(LIMITS)
        .with_ports([
            PortSpec::new("lan", "net_null0"),
            PortSpec::new("wan", "net_null1"),
        ])
        .networked(setup)
}

fn at(place: &str, prefix: &str) -> Address {
    let (port, vlan) = match place.split_once('.') {
        Some((port, vlan)) => (port, Some(vlan.parse().unwrap())),
        None => (place, None),
    };
    Address {
        port: port.to_owned(),
        vlan,
        prefix: prefix.parse().unwrap(),
    }
}

fn has(place: &str, prefix: &str) -> Change {
    Change::AddAddress(at(place, prefix))
}

fn loses(place: &str, prefix: &str) -> Change {
    Change::DeleteAddress(at(place, prefix))
}

fn route(to: &str, via: &str) -> Change {
    Change::AddRoute(Route {
        to: to.parse().unwrap(),
        via: via.parse().unwrap(),
    })
}

fn neighbour(address: &str) -> Change {
    Change::AddNeighbour(StaticNeighbour {
        address: address.parse().unwrap(),
        mac: "02:00:00:00:00:07".parse().unwrap(),
    })
}

/// The network that a batch tells of, if it does.
fn told(updates: &[Update]) -> Option<Arc<crate::net::Network>> {
    let mut told = updates.iter().filter_map(|update| match update {
        Update::SetNetwork(network) => Some(Arc::clone(network)),
        _ => None,
    });
    let first = told.next();
    assert!(told.next().is_none(), "told once");
    first
}

#[test]
fn what_cannot_be_is_refused() {
    let mut model = model();
    let server = |address: &str| Change::AddServer {
        service: key(1),
        server: address.parse().unwrap(),
        spec: weight(1),
    };
    let base = [
        has("lan", "10.0.0.254/24"),
        has("lan.100", "10.1.0.254/24"),
        route("0.0.0.0/0", "10.0.0.1"),
        neighbour("10.1.0.7"),
        add_service(9),
        server("10.0.0.9:80"),
    ];
    let base = base.map(|change| match change {
        Change::AddService { spec, .. } => Change::AddService {
            service: key(1),
            spec,
        },
        other => other,
    });
    model.apply(&base).unwrap();
    let before = model.network();
    use Errno::{Eexist, Einval, Enoent, Esrch};
    for (change, errno, words) in [
        (
            has("dmz", "10.9.0.1/24"),
            Enoent,
            "no port \"dmz\" for an address, there is lan, wan",
        ),
        (has("lan.4095", "10.9.0.1/24"), Einval, "1 to 4094 is right"),
        (
            has("wan", "10.0.0.254/16"),
            Eexist,
            "lan has address 10.0.0.254 already",
        ),
        (
            has("wan", "10.0.0.253/24"),
            Eexist,
            "network 10.0.0.0/24 is on lan already",
        ),
        (
            has("lan", "10.1.0.1/24"),
            Eexist,
            "network 10.1.0.0/24 is on lan.100 already",
        ),
        (
            has("lan", "10.2.0.0/24"),
            Einval,
            "address 10.2.0.0 is the network address",
        ),
        (has("lan", "10.2.0.255/24"), Einval, "broadcast address"),
        (has("lan", "fe80::1/64"), Einval, "link-local"),
        (has("lan", "127.0.0.1/8"), Einval, "a unicast one like"),
        (
            has("lan", "10.0.0.9/24"),
            Einval,
            "10.0.0.9 is a server's address",
        ),
        (
            has("lan", "10.0.0.1/24"),
            Einval,
            "the gateway of the route to 0.0.0.0/0",
        ),
        (has("lan", "10.1.0.7/32"), Einval, "a static neighbour's"),
        (
            has("wan", "2001:db8::1/64"),
            Einval,
            "port wan has mtu 1000, 1280 or more is right",
        ),
        (
            loses("lan", "10.0.0.254/25"),
            Enoent,
            "no address 10.0.0.254/25 on lan",
        ),
        (
            loses("wan", "10.0.0.254/24"),
            Enoent,
            "no address 10.0.0.254/24 on wan",
        ),
        (
            loses("lan", "10.0.0.254/24"),
            Einval,
            "gateway 10.0.0.1 of the route to 0.0.0.0/0 is reached by",
        ),
        (
            loses("lan.100", "10.1.0.254/24"),
            Einval,
            "static neighbour 10.1.0.7 is reached by",
        ),
        (
            route("0.0.0.0/0", "10.0.0.2"),
            Eexist,
            "a route to 0.0.0.0/0 already, via 10.0.0.1",
        ),
        (
            route("10.0.0.0/24", "10.1.0.1"),
            Eexist,
            "is on lan, which needs no route",
        ),
        (
            route("10.9.0.0/16", "10.9.0.1"),
            Einval,
            "on no port's network",
        ),
        (
            route("10.9.0.0/16", "10.0.0.254"),
            Einval,
            "another station's address",
        ),
        (
            route("2001:db8::/32", "10.0.0.1"),
            Einval,
            "an IPv6 address is right",
        ),
        (
            Change::DeleteRoute {
                to: "10.9.0.0/16".parse().unwrap(),
            },
            Esrch,
            "no route to 10.9.0.0/16",
        ),
        (
            neighbour("10.1.0.7"),
            Eexist,
            "static already, at 02:00:00:00:00:07",
        ),
        (neighbour("10.9.0.7"), Einval, "on no port's network"),
        (
            Change::DeleteNeighbour {
                address: "10.0.0.1".parse().unwrap(),
            },
            Enoent,
            "no static neighbour 10.0.0.1",
        ),
    ] {
        // What comes before it in the batch is taken back.
        let batch = [
            Change::DeleteRoute {
                to: "0.0.0.0/0".parse().unwrap(),
            },
            route("0.0.0.0/0", "10.0.0.1"),
            has("wan", "172.16.0.1/12"),
            change.clone(),
        ];
        let refusal = model.apply(&batch).unwrap_err();
        assert_eq!(
            (refusal.errno, refusal.step),
            (errno, Some(3)),
            "{change:?}: {refusal}"
        );
        assert!(refusal.detail.contains(words), "{change:?}: {refusal}");
        assert_eq!(model.network(), before);
    }
}

#[test]
fn a_network_is_turned_into_another_in_one_batch() {
    let mut model = model();
    let first = [has("lan", "10.0.0.254/24"), route("0.0.0.0/0", "10.0.0.1")];
    model.apply(&first).unwrap();
    let updates = model.apply(&[
        Change::DeleteRoute {
            to: "0.0.0.0/0".parse().unwrap(),
        },
        loses("lan", "10.0.0.254/24"),
        has("wan.7", "10.0.0.253/24"),
        route("0.0.0.0/0", "10.0.0.1"),
    ]);
    let network = told(&updates.unwrap()).unwrap();
    let places: Vec<_> = (network.interfaces().iter())
        .map(|on| (on.port.0, on.vlan, on.addresses.len()))
        .collect();
    assert_eq!(places, [(0, None, 0), (1, None, 0), (1, Some(7), 1)]);
    // A VLAN goes with its last address.
    let updates = model.apply(&[
        Change::DeleteRoute {
            to: "0.0.0.0/0".parse().unwrap(),
        },
        loses("wan.7", "10.0.0.253/24"),
    ]);
    assert_eq!(told(&updates.unwrap()).unwrap().interfaces().len(), 2);
    assert_eq!(model.network(), self::model().network());
}

#[test]
fn batches_about_other_things_do_not_tell_of_the_network() {
    let mut model = model();
    assert!(told(&model.apply(&[has("lan", "10.0.0.254/24")]).unwrap()).is_some());
    assert!(told(&model.apply(&[add_service(1)]).unwrap()).is_none());
    let flush = model.apply(&[Change::FlushNeighbours]).unwrap();
    assert_eq!(flush, [Update::FlushNeighbours]);
}

#[test]
fn what_was_there_is_told() {
    let mut model = model();
    let (to, address) = ("0.0.0.0/0".parse().unwrap(), "10.0.0.7".parse().unwrap());
    let delete = Change::DeleteRoute { to };
    assert_eq!(model.was(&delete), None);
    let first = [
        has("lan", "10.0.0.254/24"),
        route("0.0.0.0/0", "10.0.0.1"),
        neighbour("10.0.0.7"),
    ];
    model.apply(&first).unwrap();
    assert_eq!(model.was(&delete).unwrap(), "via 10.0.0.1");
    let via = "10.0.0.2".parse().unwrap();
    let replace = Change::ReplaceRoute(Route { to, via });
    assert_eq!(model.was(&replace).unwrap(), "via 10.0.0.1");
    let delete = Change::DeleteNeighbour { address };
    assert_eq!(model.was(&delete).unwrap(), "at 02:00:00:00:00:07");
}

#[test]
fn a_network_is_freed_by_the_model() {
    let mut model = model();
    let first = told(&model.apply(&[has("lan", "10.0.0.254/24")]).unwrap()).unwrap();
    model.apply(&[route("0.0.0.0/0", "10.0.0.1")]).unwrap();
    model.release();
    assert_eq!(Arc::strong_count(&first), 2, "a worker may have it");
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(weak.upgrade().is_some(), "not freed by the worker");
    model.release();
    assert!(weak.upgrade().is_none());
}

/// Few enough places that they meet.
fn change() -> impl Strategy<Value = Change> {
    let place = || prop::sample::select(vec!["lan", "wan", "lan.7", "wan.7"]);
    let network = || {
        prop_oneof![
            (0u32..64, 24u8..=32).prop_map(|(host, length)| (0x0a00_0000 | host << 4, length)),
            (0u32..256, 26u8..=30).prop_map(|(host, length)| (0x0a00_0000 | host, length)),
        ]
    };
    let address = || {
        (place(), network()).prop_map(|(place, (address, length))| {
            let address = std::net::Ipv4Addr::from_bits(address);
            at(place, &format!("{address}/{length}"))
        })
    };
    let host = || {
        (0u32..300).prop_map(|host| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 | host)))
    };
    let to = || {
        (network(), 0u8..3).prop_map(|((address, length), short)| {
            let length = length - 8 * short;
            control::Prefix::around(std::net::Ipv4Addr::from_bits(address).into(), length).unwrap()
        })
    };
    let gateways = || {
        let some = proptest::collection::btree_set(host(), 1..3);
        some.prop_map(|some| control::Gateways::new(some).unwrap())
    };
    let mac = "02:00:00:00:00:07".parse().unwrap();
    prop_oneof![
        6 => address().prop_map(Change::AddAddress),
        3 => address().prop_map(Change::DeleteAddress),
        6 => (to(), gateways()).prop_map(|(to, via)| Change::AddRoute(Route { to, via })),
        3 => (to(), gateways()).prop_map(|(to, via)| Change::ReplaceRoute(Route { to, via })),
        3 => to().prop_map(|to| Change::DeleteRoute { to }),
        2 => host().prop_map(move |address| Change::AddNeighbour(StaticNeighbour { address, mac })),
        2 => host().prop_map(|address| Change::DeleteNeighbour { address }),
    ]
}

fn around(address: &Address) -> control::Prefix {
    control::Prefix::around(address.prefix.address(), address.prefix.length()).unwrap()
}

fn holds(network: control::Prefix, address: IpAddr) -> bool {
    control::Prefix::around(address, network.length()) == Some(network)
}

/// The same rules on plain lists; `None` when refused.
fn naively(network: &mut Network, change: &Change) -> Option<()> {
    let connected = |n: &Network, to| n.addresses.iter().any(|a| holds(around(a), to));
    let ours = |n: &Network, to| n.addresses.iter().any(|a| a.prefix.address() == to);
    match change {
        Change::AddAddress(new) => {
            let prefix = Prefix {
                address: new.prefix.address(),
                length: new.prefix.length(),
            };
            let address = prefix.address;
            let fits = crate::net::wrong_address(prefix).is_none()
                && !ours(network, address)
                && !network
                    .routes
                    .iter()
                    .any(|route| route.via.addresses().contains(&address))
                && !network
                    .neighbours
                    .iter()
                    .any(|known| known.address == address)
                && (network.addresses.iter()).all(|a| {
                    around(a) != around(new) || (&a.port, a.vlan) == (&new.port, new.vlan)
                });
            fits.then(|| network.addresses.push(new.clone()))
        }
        Change::DeleteAddress(old) => {
            let place = network.addresses.iter().position(|a| a == old)?;
            network.addresses.remove(place);
            let needed = (network.routes.iter()).flat_map(|route| route.via.addresses().to_vec());
            let mut needed = needed.chain(network.neighbours.iter().map(|known| known.address));
            needed
                .all(|address| connected(network, address))
                .then_some(())
        }
        Change::AddRoute(new) | Change::ReplaceRoute(new) => {
            let there = network.routes.iter().position(|route| route.to == new.to);
            let may = matches!(change, Change::ReplaceRoute(_)) || there.is_none();
            let mut gateways = new.via.addresses().iter();
            let fits = gateways.all(|via| connected(network, *via) && !ours(network, *via))
                && !network.addresses.iter().any(|a| around(a) == new.to);
            (may && fits).then_some(())?;
            network.routes.retain(|route| route.to != new.to);
            network.routes.push(new.clone());
            Some(())
        }
        Change::DeleteRoute { to } => {
            let place = network.routes.iter().position(|route| route.to == *to)?;
            network.routes.remove(place);
            Some(())
        }
        Change::AddNeighbour(new) => {
            let there = network
                .neighbours
                .iter()
                .any(|known| known.address == new.address);
            let fits = !there && connected(network, new.address) && !ours(network, new.address);
            fits.then(|| network.neighbours.push(*new))
        }
        Change::DeleteNeighbour { address } => {
            let mut all = network.neighbours.iter();
            let place = all.position(|known| known.address == *address)?;
            network.neighbours.remove(place);
            Some(())
        }
        other => unreachable!("{other:?}"),
    }
}

fn sorted(mut network: Network) -> Network {
    network.addresses.sort();
    network.routes.sort();
    network.neighbours.sort();
    network
}

/// Where a packet may leave, by a scan: the interface, and the station that it is sent to.
fn leaves(network: &Network, to: IpAddr) -> Vec<((String, Option<u16>), IpAddr)> {
    let ours = |address| {
        network
            .addresses
            .iter()
            .any(|a| a.prefix.address() == address)
    };
    let broadcast = network.addresses.iter().any(|a| {
        let prefix = Prefix {
            address: a.prefix.address(),
            length: a.prefix.length(),
        };
        prefix.broadcast().map(IpAddr::from) == Some(to)
    });
    if ours(to) || broadcast {
        return Vec::new();
    }
    let subnet = |address| {
        let all = network
            .addresses
            .iter()
            .filter(|a| holds(around(a), address));
        all.max_by_key(|a| a.prefix.length())
    };
    let route = network.routes.iter().filter(|route| holds(route.to, to));
    let route = route.max_by_key(|route| route.to.length());
    let name = |a: &Address| (a.port.clone(), a.vlan);
    let by = |route: &Route| {
        let gateways = route.via.addresses().iter();
        let ways = gateways.filter_map(|&via| Some((name(subnet(via)?), via)));
        ways.collect()
    };
    match (subnet(to), route) {
        (Some(near), Some(route)) if route.to.length() > near.prefix.length() => by(route),
        (Some(near), _) => vec![(name(near), to)],
        (None, Some(route)) => by(route),
        (None, None) => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The model shows what the naive one does, a refused batch changes nothing, and what the workers
    /// are told leads every packet where a scan does.
    #[test]
    fn agrees_with_a_naive_network(batches in vec(vec(change(), 1..6), 1..40)) {
        let mut model = model();
        let mut naive = model.network();
        let mut known = None;
        for batch in batches {
            let mut next = naive.clone();
            let accepted = batch.iter().all(|change| naively(&mut next, change).is_some());
            match model.apply(&batch) {
                Ok(updates) => {
                    prop_assert!(accepted, "{batch:?}");
                    naive = next;
                    known = Some(told(&updates).unwrap());
                }
                Err(refusal) => prop_assert!(!accepted, "{refusal}"),
            }
            model.release();
            prop_assert_eq!(sorted(model.network()), sorted(naive.clone()));
            let Some(network) = &known else { continue };
            for host in (0..0x130).step_by(3).chain([0x1_0203, 0x100_0000]) {
                let to = IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + host));
                let way = network.way(to).map(|(on, station)| {
                    let port = ["lan", "wan"][on.port.index()].to_owned();
                    ((port, on.vlan), station)
                });
                let ways = leaves(&naive, to);
                prop_assert_eq!(way.is_none(), ways.is_empty(), "{}", to);
                prop_assert!(way.iter().all(|way| ways.contains(way)), "{to}: {way:?}, {ways:?}");
            }
        }
    }
}

// ---- what the kernel has -------------------------------------------------------------------------

fn shape(prefix: &str) -> Prefix {
    let prefix: control::AddressPrefix = prefix.parse().unwrap();
    Prefix {
        address: prefix.address(),
        length: prefix.length(),
    }
}

/// What the kernel has: addresses by port and VLAN, and routes by the first gateway and others.
fn kernels(addresses: &[(u8, Option<u16>, &str)], routes: &[(&str, &[&str])]) -> Mirror {
    let addresses = addresses.iter();
    let hop = |via: &&str| NextHop {
        port: PortId(0),
        vlan: None,
        via: Some(via.parse().unwrap()),
        weight: 1,
    };
    let route =
        |(to, hops): &(&str, &[&str])| (to.parse().unwrap(), hops.iter().map(hop).collect());
    Mirror {
        addresses: addresses
            .map(|&(port, vlan, prefix)| ((PortId(port), vlan), shape(prefix)))
            .collect(),
        routes: routes.iter().map(route).collect(),
        ..Mirror::default()
    }
}

/// Where a packet to this address goes.
fn station(network: &crate::net::Network, to: &str) -> Option<(PortId, Option<u16>, String)> {
    let (on, station) = network.way(to.parse().unwrap())?;
    Some((on.port, on.vlan, station.to_string()))
}

fn by_lan(via: &str) -> Option<(PortId, Option<u16>, String)> {
    Some((PortId(0), None, via.to_owned()))
}

#[test]
fn the_kernels_network_comes_and_goes_whole() {
    let mut model = model();
    let addresses = [(0, None, "10.0.0.1/24"), (0, Some(5), "10.5.0.1/24")];
    let routes: [(&str, &[&str]); 2] = [("10.1.0.0/16", &["10.0.0.2"]), ("10.1.2.0/24", &[])];
    let network = told(&model.mirror(kernels(&addresses, &routes))).unwrap();
    assert_eq!(station(&network, "10.1.1.1"), by_lan("10.0.0.2"));
    assert_eq!(station(&network, "10.0.0.7"), by_lan("10.0.0.7"));
    let tagged = Some((PortId(0), Some(5), "10.5.0.7".to_owned()));
    assert_eq!(station(&network, "10.5.0.7"), tagged);
    assert_eq!(station(&network, "10.1.2.3"), None);
    let listed = model.whole_network().kernel;
    assert_eq!((listed.addresses.len(), listed.routes.len()), (2, 2));
    assert!(model.network().kernel.is_empty());
    // The same again is nothing new.
    assert!(model.mirror(kernels(&addresses, &routes)).is_empty());
    let network = told(&model.mirror(Mirror::default())).unwrap();
    assert_eq!(station(&network, "10.1.1.1"), None);
    assert_eq!(station(&network, "10.0.0.7"), None);
}

#[test]
fn what_is_configured_comes_first() {
    let mut model = model();
    let changes = [
        has("lan", "10.0.0.1/24"),
        has("wan", "10.9.0.1/24"),
        route("10.1.0.0/16", "10.9.0.2"),
    ];
    model.apply(&changes).unwrap();
    let addresses = [(0, None, "10.0.0.1/24"), (1, None, "fe80::1/64")];
    let routes: [(&str, &[&str]); 3] = [
        ("10.0.0.0/24", &["10.0.0.9"]),
        ("10.1.0.0/16", &["10.0.0.2"]),
        ("10.2.0.0/16", &["10.0.0.2"]),
    ];
    let network = told(&model.mirror(kernels(&addresses, &routes))).unwrap();
    assert_eq!(model.whole_network().kernel.addresses, []);
    assert_eq!(station(&network, "10.0.0.7"), by_lan("10.0.0.7"));
    let configured = Some((PortId(1), None, "10.9.0.2".to_owned()));
    assert_eq!(station(&network, "10.1.1.1"), configured);
    assert_eq!(station(&network, "10.2.1.1"), by_lan("10.0.0.2"));
    // What was in the way is gone: the kernel's is there.
    let gone = Change::DeleteRoute {
        to: "10.1.0.0/16".parse().unwrap(),
    };
    let network = told(&model.apply(&[gone]).unwrap()).unwrap();
    assert_eq!(station(&network, "10.1.1.1"), by_lan("10.0.0.2"));
}

#[test]
fn flows_share_the_kernels_ways() {
    let mut model = model();
    let both: [(&str, &[&str]); 1] = [("10.1.0.0/16", &["10.0.0.2", "10.0.0.3"])];
    let network = told(&model.mirror(kernels(&[(0, None, "10.0.0.1/24")], &both))).unwrap();
    let ways: std::collections::BTreeSet<_> = (0..=255)
        .map(|last| station(&network, &format!("10.1.0.{last}")).unwrap().2)
        .collect();
    assert_eq!(Vec::from_iter(ways), ["10.0.0.2", "10.0.0.3"]);
}

#[test]
fn ten_thousand_routes_are_one_update() {
    let mut model = model();
    let mut mirror = kernels(&[(0, None, "10.0.0.1/24")], &[]);
    let hop = NextHop {
        port: PortId(0),
        vlan: None,
        via: Some([10, 0, 0, 2].into()),
        weight: 1,
    };
    for n in 0..10_000u32 {
        let to = std::net::Ipv4Addr::from_bits(0x0b00_0000 | n << 8);
        let to = control::Prefix::around(to.into(), 24).unwrap();
        mirror.routes.insert(to, vec![hop.clone()]);
    }
    let updates = model.mirror(mirror);
    assert_eq!(updates.len(), 1);
    let network = told(&updates).unwrap();
    assert_eq!(station(&network, "11.39.15.9"), by_lan("10.0.0.2"));
    assert_eq!(station(&network, "11.39.16.9"), None);
}

//! What of the kernel's tables concerns the ports that have a kernel's side.

use std::collections::BTreeMap;
use std::net::IpAddr;

use control::Prefix;

use super::tables::{self, LinkId, Tables};
use crate::net::{self, NextHop};
use crate::packet::PortId;

/// A port, or a VLAN of it.
pub type On = (PortId, Option<u16>);

/// Addresses, routes and static neighbours of the interfaces that are the kernel's sides of ports, and
/// of VLANs on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirror {
    pub addresses: Vec<(On, net::Prefix)>,
    /// Without hops where the kernel refuses packets.
    pub routes: BTreeMap<Prefix, Vec<NextHop>>,
    pub neighbours: BTreeMap<(PortId, Option<u16>, IpAddr), [u8; 6]>,
}

impl Mirror {
    /// `sides` are the ports and what the kernel calls its sides of them.
    pub fn new<'n>(tables: &Tables, sides: impl IntoIterator<Item = (PortId, &'n str)>) -> Self {
        let links = links(tables, sides);
        let addresses = tables
            .addresses
            .iter()
            .filter_map(|&(link, address, length)| {
                let prefix = net::Prefix { address, length };
                Some((*links.get(&link)?, prefix))
            });
        let routes = tables.routes.iter().filter_map(|(&(to, length), route)| {
            let to = Prefix::around(to, length)?;
            hops(&links, route).map(|hops| (to, hops))
        });
        let known = tables
            .neighbours
            .iter()
            .filter(|(_, known)| known.is_static);
        let neighbours = known.filter_map(|(&(link, address), known)| {
            let (port, vlan) = *links.get(&link)?;
            Some(((port, vlan, address), known.mac))
        });
        Self {
            addresses: addresses.collect(),
            routes: routes.collect(),
            neighbours: neighbours.collect(),
        }
    }
}

/// The links that are of ports.
fn links<'n>(
    tables: &Tables,
    sides: impl IntoIterator<Item = (PortId, &'n str)>,
) -> BTreeMap<LinkId, On> {
    let sides = sides.into_iter();
    let untagged = sides.filter_map(|(port, name)| Some((tables.link(name)?, (port, None))));
    let mut links: BTreeMap<LinkId, On> = untagged.collect();
    for (id, link) in &tables.links {
        if let Some((parent, vlan)) = link.vlan
            && let Some(&(port, None)) = links.get(&parent)
        {
            links.insert(*id, (port, Some(vlan)));
        }
    }
    links
}

/// Of a route, those that leave by a port; `None` if it has others only.
fn hops(links: &BTreeMap<LinkId, On>, route: &tables::Route) -> Option<Vec<NextHop>> {
    let hops = route.hops.iter().filter_map(|hop| {
        let (port, vlan) = *links.get(&hop.link)?;
        Some(NextHop {
            port,
            vlan,
            via: hop.via,
            weight: hop.weight,
        })
    });
    let hops: Vec<NextHop> = hops.collect();
    (!hops.is_empty() || route.hops.is_empty()).then_some(hops)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tables::{Link, Neighbour, Route};

    const LAN: LinkId = 7;
    const LAN_5: LinkId = 8;
    const OTHER: LinkId = 2;

    fn link(name: &str, vlan: Option<(LinkId, u16)>) -> Link {
        Link {
            name: name.to_owned(),
            vlan,
            ..Link::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(link: LinkId, via: &str) -> tables::NextHop {
        let via = Some(ip(via));
        let weight = 1;
        tables::NextHop { link, via, weight }
    }

    /// `lan` with a VLAN, and an interface that is no port's.
    fn tables() -> Tables {
        let mut tables = Tables::default();
        tables.links.insert(OTHER, link("eth0", None));
        tables.links.insert(LAN, link("lan", None));
        tables.links.insert(LAN_5, link("blue", Some((LAN, 5))));
        tables
    }

    fn mirror(tables: &Tables) -> Mirror {
        Mirror::new(tables, [(PortId(3), "lan"), (PortId(4), "not there")])
    }

    #[test]
    fn addresses_are_of_ports_and_their_vlans() {
        let mut tables = tables();
        for (link, address) in [(LAN, "10.0.0.1"), (LAN_5, "10.5.0.1"), (OTHER, "192.0.2.1")] {
            tables.addresses.push((link, ip(address), 24));
        }
        let prefix = |address| net::Prefix {
            address: ip(address),
            length: 24,
        };
        let addresses = [
            ((PortId(3), None), prefix("10.0.0.1")),
            ((PortId(3), Some(5)), prefix("10.5.0.1")),
        ];
        assert_eq!(mirror(&tables).addresses, addresses);
    }

    #[test]
    fn routes_leave_by_ports() {
        let mut tables = tables();
        let mut route = |to: &str, hops: &[tables::NextHop]| {
            let (metric, hops) = (0, hops.to_vec());
            tables.routes.insert((ip(to), 16), Route { metric, hops });
        };
        route("10.1.0.0", &[hop(LAN, "10.0.0.2"), hop(LAN_5, "10.5.0.2")]);
        route("10.2.0.0", &[hop(LAN, "10.0.0.2"), hop(OTHER, "192.0.2.2")]);
        route("10.3.0.0", &[hop(OTHER, "192.0.2.2")]);
        route("10.4.0.0", &[]);
        let next = |vlan, via: &str| NextHop {
            port: PortId(3),
            vlan,
            via: Some(ip(via)),
            weight: 1,
        };
        let to = |text: &str| text.parse::<Prefix>().unwrap();
        let routes = [
            (
                to("10.1.0.0/16"),
                vec![next(None, "10.0.0.2"), next(Some(5), "10.5.0.2")],
            ),
            (to("10.2.0.0/16"), vec![next(None, "10.0.0.2")]),
            (to("10.4.0.0/16"), vec![]),
        ];
        assert_eq!(mirror(&tables).routes, routes.into());
    }

    #[test]
    fn neighbours_are_static_ones() {
        let mut tables = tables();
        let mac = [2, 0, 0, 0, 0, 9];
        for (link, address, is_static) in [
            (LAN, "10.0.0.9", true),
            (LAN, "10.0.0.8", false),
            (OTHER, "192.0.2.9", true),
        ] {
            let known = Neighbour { mac, is_static };
            tables.neighbours.insert((link, ip(address)), known);
        }
        let known = ((PortId(3), None, ip("10.0.0.9")), mac);
        assert_eq!(mirror(&tables).neighbours, [known].into());
    }
}

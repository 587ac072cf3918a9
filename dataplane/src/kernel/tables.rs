//! What the kernel knows of the network: links, addresses, routes and neighbours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteType, RouteVia,
};

/// An interface's number.
pub type LinkId = u32;

/// One state of all tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub links: BTreeMap<LinkId, Link>,
    /// With their prefix lengths, in the kernel's order.
    pub addresses: Vec<(LinkId, IpAddr, u8)>,
    /// Of the main table, by network: what has the smallest metric.
    pub routes: BTreeMap<(IpAddr, u8), Route>,
    /// Those that are known to be there.
    pub neighbours: BTreeMap<(LinkId, IpAddr), Neighbour>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    pub is_up: bool,
    /// The interface that it is a VLAN of, and which.
    pub vlan: Option<(LinkId, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub metric: u32,
    /// None: packets are to be refused (blackhole, unreachable, prohibit).
    pub hops: Vec<NextHop>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    pub link: LinkId,
    /// `None`: the destination itself is on the link.
    pub via: Option<IpAddr>,
    /// Its share of packets, from 1.
    pub weight: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub mac: [u8; 6],
    /// It never expires.
    pub is_static: bool,
}

impl Tables {
    /// Takes in one part of a dump.
    pub(super) fn take(&mut self, message: RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.take_link(link),
            RouteNetlinkMessage::NewAddress(address) => self.take_address(&address),
            RouteNetlinkMessage::NewRoute(route) => self.take_route(route),
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.take_neighbour(neighbour),
            _ => {}
        }
    }

    /// A link by its name.
    pub fn link(&self, name: &str) -> Option<LinkId> {
        let mut links = self.links.iter();
        links
            .find(|(_, link)| link.name == name)
            .map(|(link, _)| *link)
    }

    fn take_link(&mut self, message: LinkMessage) {
        let up = LinkFlags::Up | LinkFlags::LowerUp;
        let mut link = Link {
            is_up: message.header.flags.contains(up),
            ..Link::default()
        };
        let mut parent = None;
        let mut vlan = None;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Link(other) => parent = Some(other),
                LinkAttribute::LinkInfo(infos) => vlan = infos.iter().find_map(vlan_id),
                _ => {}
            }
        }
        link.vlan = parent.zip(vlan);
        self.links.insert(message.header.index, link);
    }

    fn take_address(&mut self, message: &AddressMessage) {
        let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
            message.attributes.iter().find_map(wanted)
        };
        // On links with a peer the peer's is the other one.
        let local = find(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let only = find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        let unusable = message.attributes.iter().any(|attribute| {
            let bad = AddressFlags::Tentative | AddressFlags::Dadfailed;
            matches!(attribute, AddressAttribute::Flags(flags) if flags.intersects(bad))
        });
        if let (Some(address), false) = (local.or(only), unusable) {
            let (link, length) = (message.header.index, message.header.prefix_len);
            self.addresses.push((link, address, length));
        }
    }

    fn take_route(&mut self, message: RouteMessage) {
        let RouteHeader { kind, tos, .. } = message.header;
        if table(&message) != u32::from(RouteHeader::RT_TABLE_MAIN) || tos != 0 {
            return;
        }
        let is_refusal = match kind {
            RouteType::Unicast => false,
            RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => true,
            _ => return,
        };
        let mut to = None;
        let mut metric = 0;
        let mut hops = Vec::new();
        let (mut link, mut via) = (None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = ip(&address),
                RouteAttribute::Priority(priority) => metric = priority,
                RouteAttribute::Oif(oif) => link = Some(oif),
                RouteAttribute::MultiPath(all) => hops.extend(all.iter().filter_map(next_hop)),
                other => via = via.or(gateway(&other)),
            }
        }
        if let (Some(link), true) = (link, hops.is_empty()) {
            let weight = 1;
            hops.push(NextHop { link, via, weight });
        }
        if is_refusal {
            hops.clear();
        } else if hops.is_empty() {
            return;
        }
        let is_v6 = message.header.address_family == netlink_packet_route::AddressFamily::Inet6;
        let to = to.unwrap_or(if is_v6 {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        });
        hops.sort_unstable();
        self.prefer(
            (to, message.header.destination_prefix_length),
            Route { metric, hops },
        );
    }

    /// Keeps a route if it is better than the one that is there. IPv6 may tell the hops of one route
    /// each by itself.
    fn prefer(&mut self, to: (IpAddr, u8), route: Route) {
        match self.routes.get_mut(&to) {
            Some(known) if known.metric < route.metric => {}
            Some(known) if known.metric == route.metric && to.0.is_ipv6() => {
                known.hops.extend(route.hops);
                known.hops.sort_unstable();
                known.hops.dedup();
            }
            Some(known) if known.metric == route.metric => {}
            _ => {
                self.routes.insert(to, route);
            }
        }
    }

    fn take_neighbour(&mut self, message: NeighbourMessage) {
        let is_static = match message.header.state {
            NeighbourState::Permanent => true,
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe => false,
            _ => return,
        };
        let (mut address, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => {
                    address = Some(IpAddr::V4(to));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => {
                    address = Some(IpAddr::V6(to));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
                _ => {}
            }
        }
        if let (Some(address), Some(mac)) = (address, mac) {
            let key = (message.header.ifindex, address);
            self.neighbours.insert(key, Neighbour { mac, is_static });
        }
    }
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(vlan)) = info else {
        return None;
    };
    vlan.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })
}

fn table(message: &RouteMessage) -> u32 {
    let attributes = message.attributes.iter();
    let mut wide = attributes.filter_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    wide.next().unwrap_or(message.header.table.into())
}

fn next_hop(hop: &RouteNextHop) -> Option<NextHop> {
    if (hop.flags).intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown) {
        return None;
    }
    Some(NextHop {
        link: hop.interface_index,
        via: hop.attributes.iter().find_map(gateway),
        weight: u16::from(hop.hops) + 1,
    })
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn address(text: &str) -> RouteAddress {
        match text.parse().unwrap() {
            IpAddr::V4(address) => RouteAddress::Inet(address),
            IpAddr::V6(address) => RouteAddress::Inet6(address),
        }
    }

    fn via(gateway: &str, link: LinkId, weight: u16) -> NextHop {
        NextHop {
            link,
            via: Some(gateway.parse().unwrap()),
            weight,
        }
    }

    /// A unicast route of the main table.
    fn route(to: &str, length: u8, attributes: Vec<RouteAttribute>) -> RouteNetlinkMessage {
        let mut route = RouteMessage::default();
        let to = address(to);
        route.header.address_family = match to {
            RouteAddress::Inet(_) => AddressFamily::Inet,
            _ => AddressFamily::Inet6,
        };
        route.header.destination_prefix_length = length;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes = attributes;
        if length > 0 {
            route.attributes.push(RouteAttribute::Destination(to));
        }
        RouteNetlinkMessage::NewRoute(route)
    }

    fn plain(to: &str, gateway: &str, metric: u32) -> RouteNetlinkMessage {
        let attributes = vec![
            RouteAttribute::Oif(2),
            RouteAttribute::Gateway(address(gateway)),
            RouteAttribute::Priority(metric),
        ];
        route(to, 24, attributes)
    }

    fn hops(messages: impl IntoIterator<Item = RouteNetlinkMessage>) -> Vec<NextHop> {
        let mut tables = Tables::default();
        for message in messages {
            tables.take(message);
        }
        assert!(tables.routes.len() <= 1);
        tables
            .routes
            .into_values()
            .flat_map(|route| route.hops)
            .collect()
    }

    #[test]
    fn the_smallest_metric_wins() {
        let messages = [
            plain("10.1.0.0", "10.0.0.2", 100),
            plain("10.1.0.0", "10.0.0.3", 50),
            plain("10.1.0.0", "10.0.0.4", 70),
        ];
        assert_eq!(hops(messages), [via("10.0.0.3", 2, 1)]);
    }

    #[test]
    fn next_hops_that_are_dead_take_no_part() {
        let mut dead = RouteNextHop::default();
        dead.interface_index = 2;
        dead.flags = RouteNextHopFlags::Dead;
        let mut live = RouteNextHop::default();
        live.interface_index = 3;
        live.hops = 4;
        live.attributes = vec![RouteAttribute::Gateway(address("10.0.3.1"))];
        let message = route(
            "10.1.0.0",
            16,
            vec![RouteAttribute::MultiPath(vec![dead, live])],
        );
        assert_eq!(hops([message]), [via("10.0.3.1", 3, 5)]);
    }

    #[test]
    fn next_hops_of_ipv6_may_come_one_by_one() {
        let messages = [
            plain("2001:db8:1::", "2001:db8::3", 1024),
            plain("2001:db8:1::", "2001:db8::2", 1024),
        ];
        let both = [via("2001:db8::2", 2, 1), via("2001:db8::3", 2, 1)];
        assert_eq!(hops(messages), both);
    }

    #[test]
    fn other_tables_and_local_addresses_are_none_of_ours() {
        let with = |change: fn(&mut RouteMessage)| {
            let RouteNetlinkMessage::NewRoute(mut route) = plain("10.1.0.0", "10.0.0.2", 0) else {
                unreachable!()
            };
            change(&mut route);
            hops([RouteNetlinkMessage::NewRoute(route)])
        };
        assert_eq!(with(|_| {}).len(), 1);
        assert!(with(|route| route.header.table = 255).is_empty());
        assert!(with(|route| route.header.kind = RouteType::Local).is_empty());
        assert!(with(|route| route.header.kind = RouteType::Multicast).is_empty());
        assert!(with(|route| route.attributes.push(RouteAttribute::Table(1000))).is_empty());
    }

    #[test]
    fn a_route_that_refuses_hides_those_of_worse_metric() {
        let mut black = RouteMessage::default();
        black.header.address_family = AddressFamily::Inet;
        black.header.table = RouteHeader::RT_TABLE_MAIN;
        black.header.kind = RouteType::BlackHole;
        black.header.destination_prefix_length = 24;
        black.attributes = vec![RouteAttribute::Destination(address("10.1.0.0"))];
        let mut tables = Tables::default();
        tables.take(RouteNetlinkMessage::NewRoute(black));
        tables.take(plain("10.1.0.0", "10.0.0.2", 100));
        let to = (IpAddr::from([10, 1, 0, 0]), 24);
        assert_eq!(tables.routes[&to].hops, []);
    }

    #[test]
    fn a_default_route_has_no_destination() {
        let attributes = vec![
            RouteAttribute::Oif(2),
            RouteAttribute::Gateway(address("10.0.0.1")),
        ];
        let mut tables = Tables::default();
        tables.take(route("0.0.0.0", 0, attributes));
        let default = (IpAddr::from([0, 0, 0, 0]), 0);
        assert_eq!(tables.routes[&default].hops, [via("10.0.0.1", 2, 1)]);
    }

    #[test]
    fn neighbours_that_may_not_be_there_are_left_out() {
        let with = |state| {
            let mut neighbour = NeighbourMessage::default();
            neighbour.header.ifindex = 2;
            neighbour.header.state = state;
            neighbour.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 2].into())),
                NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 2]),
            ];
            let mut tables = Tables::default();
            tables.take(RouteNetlinkMessage::NewNeighbour(neighbour));
            let known = tables.neighbours.into_values().next();
            known.map(|neighbour| neighbour.is_static)
        };
        assert_eq!(with(NeighbourState::Permanent), Some(true));
        assert_eq!(with(NeighbourState::Reachable), Some(false));
        assert_eq!(with(NeighbourState::Stale), Some(false));
        assert_eq!(with(NeighbourState::Failed), None);
        assert_eq!(with(NeighbourState::Incomplete), None);
        assert_eq!(with(NeighbourState::Noarp), None);
    }

    #[test]
    fn a_vlan_names_what_it_is_one_of() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        link.attributes = vec![
            LinkAttribute::IfName("lan.100".to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vlan),
                LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(100)])),
            ]),
        ];
        let mut tables = Tables::default();
        tables.take(RouteNetlinkMessage::NewLink(link));
        let id = tables.link("lan.100").unwrap();
        assert_eq!(
            tables.links[&id],
            Link {
                name: "lan.100".to_owned(),
                mac: Some([2, 0, 0, 0, 0, 1]),
                mtu: 1500,
                is_up: true,
                vlan: Some((3, 100)),
            }
        );
    }

    #[test]
    fn an_address_that_another_has_is_not_ours() {
        let with = |flags| {
            let mut message = AddressMessage::default();
            message.header.index = 2;
            message.header.prefix_len = 32;
            message.attributes = vec![
                AddressAttribute::Address([10, 0, 0, 9].into()),
                AddressAttribute::Local([10, 0, 0, 1].into()),
                AddressAttribute::Flags(flags),
            ];
            let mut tables = Tables::default();
            tables.take(RouteNetlinkMessage::NewAddress(message));
            tables.addresses
        };
        let local = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(with(AddressFlags::Permanent), [(2, local, 32)]);
        assert_eq!(with(AddressFlags::Tentative), []);
        assert_eq!(with(AddressFlags::Dadfailed), []);
    }
}

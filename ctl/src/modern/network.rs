//! `directorctl address`, `route`, `neighbour`: the director's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use control::{
    Address, AddressPrefix, Change, Gateways, KernelRoute, Mac, Network, Prefix, Request, Route,
    StaticNeighbour,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::show::Table;
use super::values::address;

#[derive(Debug, Subcommand)]
pub(super) enum AddressVerb {
    /// The addresses of all ports.
    List,
    /// Give a port, or a VLAN of it, an address. A VLAN comes with its first one. The stations
    /// around are told.
    Add(AddressArgs),
    /// Take an address from a port. A VLAN goes with its last one.
    Delete(AddressArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddressArgs {
    /// ADDRESS/LENGTH: with the length of its network's prefix.
    address: AddressPrefix,
    port: String,
    /// Tag of the port's VLAN, 1 to 4094; untagged unless given.
    #[arg(long)]
    vlan: Option<u16>,
}

impl AddressArgs {
    fn address(&self) -> Address {
        Address {
            port: self.port.clone(),
            vlan: self.vlan,
            prefix: self.address,
        }
    }
}

impl AddressVerb {
    pub(super) fn request(&self) -> Request {
        let change = match self {
            Self::List => return Request::Network,
            Self::Add(args) => Change::AddAddress(args.address()),
            Self::Delete(args) => Change::DeleteAddress(args.address()),
        };
        Request::Change(vec![change])
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum RouteVerb {
    /// All routes, those to the ports' own networks included.
    List,
    /// Add a route to a network: directorctl route add 10.9.0.0/16 via 10.0.0.1
    Add(RouteArgs),
    /// As add, in the place of the route to the same network, if there is one.
    Replace(RouteArgs),
    /// Delete the route to a network.
    Delete {
        /// ADDRESS/LENGTH or ADDRESS.
        #[arg(value_name = "NETWORK")]
        to: Prefix,
    },
}

#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// ADDRESS/LENGTH or ADDRESS; default for 0.0.0.0/0 or, with an IPv6 gateway, ::/0.
    #[arg(value_name = "NETWORK", value_parser = destination)]
    to: Destination,
    /// The word.
    #[arg(value_parser = ["via"])]
    via: String,
    /// Address of a router on the network of a port; several with commas between them have a share of
    /// the flows each.
    gateway: Gateways,
}

#[derive(Debug, Clone, Copy)]
enum Destination {
    Default,
    Network(Prefix),
}

fn destination(text: &str) -> Result<Destination, String> {
    match text {
        "default" => Ok(Destination::Default),
        network => network.parse().map(Destination::Network),
    }
}

impl RouteArgs {
    fn route(&self) -> Result<Route> {
        let via = self.gateway.clone();
        let to = match self.to {
            Destination::Network(to) => Some(to),
            Destination::Default if via.is_ipv4() => {
                Prefix::around(Ipv4Addr::UNSPECIFIED.into(), 0)
            }
            Destination::Default => Prefix::around(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        match to {
            Some(to) => Ok(Route { to, via }),
            None => bail!("no address has a prefix of less than 0 bits"),
        }
    }
}

impl RouteVerb {
    pub(super) fn request(&self) -> Result<Request> {
        let change = match self {
            Self::List => return Ok(Request::Network),
            Self::Add(args) => Change::AddRoute(args.route()?),
            Self::Replace(args) => Change::ReplaceRoute(args.route()?),
            Self::Delete { to } => Change::DeleteRoute { to: *to },
        };
        Ok(Request::Change(vec![change]))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum NeighbourVerb {
    /// Who answers to which Ethernet address.
    List,
    /// Make a neighbour static: it is never asked for its Ethernet address.
    Add {
        #[arg(value_parser = address)]
        address: IpAddr,
        /// Its Ethernet address, 02:00:00:00:00:07 for example.
        mac: Mac,
    },
    /// Delete a static neighbour; it is asked from then on.
    Delete {
        #[arg(value_parser = address)]
        address: IpAddr,
    },
    /// Forget the neighbours that were learned; those that are needed are asked again.
    Flush,
}

impl NeighbourVerb {
    pub(super) fn request(&self) -> Request {
        let change = match *self {
            Self::List => return Request::Neighbours,
            Self::Add { address, mac } => Change::AddNeighbour(StaticNeighbour { address, mac }),
            Self::Delete { address } => Change::DeleteNeighbour { address },
            Self::Flush => Change::FlushNeighbours,
        };
        Request::Change(vec![change])
    }
}

/// Ours, and those that the kernel has beside them.
pub(super) fn every_address(network: &Network) -> Vec<&Address> {
    let own = network.addresses.iter();
    own.chain(&network.kernel.addresses).collect()
}

pub(super) fn addresses(network: &Network) -> String {
    let mut table = Table::new(3, ["PORT", "VLAN", "ADDRESS"]);
    for address in every_address(network) {
        table.row([
            address.port.clone(),
            vlan(address.vlan),
            address.prefix.to_string(),
        ]);
    }
    table.text()
}

/// A route and the port on whose network its gateway is; or such a network itself.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Way<'n> {
    to: Prefix,
    via: Option<IpAddr>,
    port: Option<&'n str>,
    vlan: Option<u16>,
}

/// Those of the ports' own networks first.
pub(super) fn ways(network: &Network) -> Vec<Way<'_>> {
    let around = |prefix: AddressPrefix| Prefix::around(prefix.address(), prefix.length());
    let mut ways: Vec<Way<'_>> = Vec::new();
    for address in every_address(network) {
        let Some(to) = around(address.prefix) else {
            continue;
        };
        if !ways.iter().any(|other| other.to == to) {
            ways.push(Way {
                to,
                via: None,
                port: Some(&address.port),
                vlan: address.vlan,
            });
        }
    }
    // The smallest network holds the gateway.
    let mut connected: Vec<_> = (network.addresses.iter())
        .filter_map(|address| Some((around(address.prefix)?, address)))
        .collect();
    connected.sort_by_key(|(network, _)| std::cmp::Reverse(network.length()));
    for (route, &via) in network.routes.iter().flat_map(each) {
        let holds = |network: &Prefix| Prefix::around(via, network.length()) == Some(*network);
        let on = connected.iter().find(|(network, _)| holds(network));
        ways.push(Way {
            to: route.to,
            via: Some(via),
            port: on.map(|(_, address)| address.port.as_str()),
            vlan: on.and_then(|(_, address)| address.vlan),
        });
    }
    ways.extend(network.kernel.routes.iter().flat_map(of_kernel));
    ways
}

/// A route with each of its gateways.
fn each(route: &Route) -> impl Iterator<Item = (&Route, &IpAddr)> {
    let gateways = route.via.addresses().iter();
    gateways.map(move |via| (route, via))
}

/// A line for each of its hops.
fn of_kernel(route: &KernelRoute) -> impl Iterator<Item = Way<'_>> {
    let refused = route.hops.is_empty().then_some(Way {
        to: route.to,
        via: None,
        port: None,
        vlan: None,
    });
    let hops = route.hops.iter().map(|hop| Way {
        to: route.to,
        via: hop.via,
        port: Some(&hop.port),
        vlan: hop.vlan,
    });
    refused.into_iter().chain(hops)
}

pub(super) fn routes(network: &Network) -> String {
    let mut table = Table::new(4, ["NETWORK", "VIA", "PORT", "VLAN"]);
    for way in ways(network) {
        table.row([
            format!("{}/{}", way.to.address(), way.to.length()),
            way.via.map_or("-".to_owned(), |via| via.to_string()),
            way.port.unwrap_or("-").to_owned(),
            vlan(way.vlan),
        ]);
    }
    table.text()
}

fn vlan(vlan: Option<u16>) -> String {
    vlan.map_or("-".to_owned(), |vlan| vlan.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modern::testing::parsed;
    use control::{KernelHop, KernelNetwork};

    #[derive(Debug, Subcommand)]
    enum Line {
        #[command(subcommand)]
        Address(AddressVerb),
        #[command(subcommand)]
        Route(RouteVerb),
        #[command(subcommand)]
        Neighbour(NeighbourVerb),
    }

    fn asked(line: &str) -> Result<Request, String> {
        match parsed(line)? {
            Line::Address(verb) => Ok(verb.request()),
            Line::Route(verb) => verb.request().map_err(|error| error.to_string()),
            Line::Neighbour(verb) => Ok(verb.request()),
        }
    }

    fn lan() -> Address {
        Address {
            port: "lan".to_owned(),
            vlan: Some(100),
            prefix: "10.0.0.254/24".parse().unwrap(),
        }
    }

    fn route(to: &str, via: &str) -> Route {
        Route {
            to: to.parse().unwrap(),
            via: via.parse().unwrap(),
        }
    }

    #[test]
    fn verbs_become_requests() {
        let gateway = "2001:db8::1".parse().unwrap();
        let known = StaticNeighbour {
            address: gateway,
            mac: "02:00:00:00:00:07".parse().unwrap(),
        };
        for (line, change) in [
            (
                "address add 10.0.0.254/24 lan --vlan 100",
                Change::AddAddress(lan()),
            ),
            (
                "address delete 10.0.0.254/24 lan --vlan 100",
                Change::DeleteAddress(lan()),
            ),
            (
                "route add default via 10.0.0.1",
                Change::AddRoute(route("0.0.0.0/0", "10.0.0.1")),
            ),
            (
                "route add default via 2001:db8::1",
                Change::AddRoute(route("::/0", "2001:db8::1")),
            ),
            (
                "route replace 10.9.0.0/16 via 10.0.0.1",
                Change::ReplaceRoute(route("10.9.0.0/16", "10.0.0.1")),
            ),
            (
                "route add default via 10.0.0.1,10.0.0.2",
                Change::AddRoute(route("0.0.0.0/0", "10.0.0.1,10.0.0.2")),
            ),
            (
                "route delete 10.9.0.0/16",
                Change::DeleteRoute {
                    to: "10.9.0.0/16".parse().unwrap(),
                },
            ),
            (
                "neighbour add 2001:db8::1 02:00:00:00:00:07",
                Change::AddNeighbour(known),
            ),
            (
                "neighbour delete 2001:db8::1",
                Change::DeleteNeighbour { address: gateway },
            ),
            ("neighbour flush", Change::FlushNeighbours),
        ] {
            assert_eq!(asked(line), Ok(Request::Change(vec![change])), "{line}");
        }
        for line in ["address list", "route list"] {
            assert_eq!(asked(line), Ok(Request::Network));
        }
        assert_eq!(asked("neighbour list"), Ok(Request::Neighbours));
    }

    #[test]
    fn mistakes_say_what_is_right() {
        for (line, words) in [
            (
                "address add 10.0.0.254 lan",
                "10.0.0.254/24 or 2001:db8::fe/64 is right",
            ),
            ("address add 10.0.0.254/24", "<PORT>"),
            ("route add 10.9.0.1/16 via 10.0.0.1", "10.9.0.0/16 is right"),
            ("route add 10.9.0.0/16 10.0.0.1", "[possible values: via]"),
            (
                "route add 10.9.0.0/16 via lan",
                "not an address, 10.0.0.5 or 2001:db8::5, or several",
            ),
            ("neighbour add 10.0.0.1 7", "02:00:00:00:00:07 is right"),
        ] {
            let said = asked(line).unwrap_err();
            assert!(said.contains(words), "{line}: {said}");
        }
    }

    #[test]
    fn the_kernels_are_listed_behind_ours() {
        let hop = |via: &str| KernelHop {
            port: "lan".to_owned(),
            vlan: None,
            via: Some(via.parse().unwrap()),
            weight: 1,
        };
        let route = |to: &str, hops| KernelRoute {
            to: to.parse().unwrap(),
            hops,
        };
        let address = Address {
            vlan: None,
            ..lan()
        };
        let network = Network {
            kernel: KernelNetwork {
                addresses: vec![address],
                routes: vec![
                    route("10.1.0.0/16", vec![hop("10.0.0.2"), hop("10.0.0.3")]),
                    route("10.2.0.0/16", vec![]),
                ],
                ..KernelNetwork::default()
            },
            ..Network::default()
        };
        assert_eq!(
            addresses(&network),
            "PORT  VLAN  ADDRESS\nlan   -     10.0.0.254/24\n"
        );
        assert_eq!(
            routes(&network),
            "\
NETWORK      VIA       PORT  VLAN
10.0.0.0/24  -         lan   -
10.1.0.0/16  10.0.0.2  lan   -
10.1.0.0/16  10.0.0.3  lan   -
10.2.0.0/16  -         -     -
"
        );
    }

    #[test]
    fn tables() {
        let plain = Address {
            port: "wan".to_owned(),
            vlan: None,
            prefix: "192.0.2.1/16".parse().unwrap(),
        };
        let small = Address {
            port: "dmz".to_owned(),
            vlan: None,
            prefix: "192.0.2.9/29".parse().unwrap(),
        };
        let network = Network {
            addresses: vec![plain, small, lan()],
            routes: vec![
                route("0.0.0.0/0", "192.0.2.10"),
                route("10.9.0.1", "10.0.0.1"),
            ],
            ..Network::default()
        };
        assert_eq!(
            addresses(&network),
            "\
PORT  VLAN  ADDRESS
wan   -     192.0.2.1/16
dmz   -     192.0.2.9/29
lan   100   10.0.0.254/24
"
        );
        assert_eq!(
            routes(&network),
            "\
NETWORK       VIA         PORT  VLAN
192.0.0.0/16  -           wan   -
192.0.2.8/29  -           dmz   -
10.0.0.0/24   -           lan   100
0.0.0.0/0     192.0.2.10  dmz   -
10.9.0.1/32   10.0.0.1    lan   100
"
        );
        let json = serde_json::to_value(ways(&network)).unwrap();
        let last =
            serde_json::json!({ "to": "10.9.0.1", "via": "10.0.0.1", "port": "lan", "vlan": 100 });
        assert_eq!(json[4], last);
    }
}

//! Addresses, routes and static neighbours. What the workers are told is built here, once a batch;
//! of the routes only what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use control::{
    Address, AddressPrefix, Errno, Gateways, KernelHop, KernelNetwork, KernelRoute, Mac, Refusal,
    Route, StaticNeighbour,
};

use super::undo::Undo;
use super::uses::Use;
use super::{Model, Transaction, kernel_name, refuse};
use crate::kernel::mirror::{Mirror, On};
use crate::net::{
    self, ADDRESSES_MAX, Connected, INTERFACES_MAX, IPV6_MTU_MIN, Interface, ROUTES_MAX,
    STATIC_NEIGHBOURS_MAX, wrong_address, wrong_family, wrong_station,
};
use crate::packet::PortId;
use crate::update::Update;

/// The highest VLAN that there can be.
pub(super) const VLAN_MAX: u16 = 4094;

/// The network as it is configured, and as the workers know it.
#[derive(Debug)]
pub(super) struct Network {
    interfaces: Vec<Interface>,
    /// What the kernel has on its sides of ports, and what does not contradict the rest of it.
    mirror: Mirror,
    /// With the kernel's addresses.
    effective: Vec<Interface>,
    connected: Connected,
    routes: BTreeMap<control::Prefix, Gateways>,
    neighbours: BTreeMap<IpAddr, Mac>,
    /// What the workers have.
    told: Arc<net::Network>,
    /// They had these, and some may yet.
    retired: Vec<Arc<net::Network>>,
    untold: Untold,
}

/// What changed since the workers were told; more than that does no harm.
#[derive(Debug, Default)]
struct Untold {
    addresses: bool,
    neighbours: bool,
    kernel: bool,
    routes: BTreeSet<control::Prefix>,
}

impl Network {
    pub(super) fn new(setup: net::Setup) -> Self {
        let told = net::Network::new(
            setup.interfaces.clone(),
            setup.routes.iter().copied(),
            setup.neighbours.iter().copied(),
        );
        let by_network = setup.routes.chunk_by(|one, other| one.to == other.to);
        let gathered = by_network.filter_map(|routes| {
            let gateways = routes.iter().map(|route| route.via);
            Some((network(routes.first()?.to)?, Gateways::new(gateways).ok()?))
        });
        let neighbours = setup.neighbours.iter();
        Self {
            mirror: Mirror::default(),
            effective: setup.interfaces.clone(),
            connected: Connected::new(&setup.interfaces),
            interfaces: setup.interfaces,
            routes: gathered.collect(),
            neighbours: neighbours
                .filter_map(|known| Some((known.address, Mac::new(known.mac)?)))
                .collect(),
            told: Arc::new(told),
            retired: Vec::new(),
            untold: Untold::default(),
        }
    }

    pub(super) fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Of a port whose device was started.
    pub(super) fn set_mac(&mut self, port: PortId, mac: [u8; 6]) {
        for on in self.interfaces.iter_mut().filter(|on| on.port == port) {
            on.mac = mac;
        }
        self.take_effect();
    }

    /// Interfaces, with the kernel's addresses, and VLANs that only it has.
    fn take_effect(&mut self) {
        self.effective.clone_from(&self.interfaces);
        for &((port, vlan), prefix) in &self.mirror.addresses {
            let all = &mut self.effective;
            let find = |vlan| all.iter().position(|on| on.port == port && on.vlan == vlan);
            let (place, untagged) = (find(vlan), find(None));
            match (place, untagged) {
                (Some(place), _) => all[place].addresses.push(prefix),
                (None, Some(untagged)) if all.len() < INTERFACES_MAX => {
                    let on = Interface {
                        vlan,
                        addresses: vec![prefix],
                        ..all[untagged].clone()
                    };
                    all.push(on);
                }
                _ => {}
            }
        }
        self.untold.addresses = true;
        self.connected = Connected::new(&self.effective);
    }

    fn set_mirror(&mut self, mirror: Mirror) {
        self.untold.kernel = true;
        let is_same = self.mirror.addresses == mirror.addresses;
        self.mirror = mirror;
        if !is_same {
            self.take_effect();
        }
    }

    pub(super) fn gateways(&self, to: control::Prefix) -> Option<&Gateways> {
        self.routes.get(&to)
    }

    /// The Ethernet address of a static neighbour.
    pub(super) fn mac_of(&self, address: IpAddr) -> Option<Mac> {
        self.neighbours.get(&address).copied()
    }

    /// Where an address of ours is.
    fn interface_with(&self, address: IpAddr) -> Option<&Interface> {
        let has = |on: &&Interface| on.addresses.iter().any(|p| p.address == address);
        self.interfaces.iter().find(has)
    }

    /// Whether another station may be there under `address`.
    fn reaches(&self, address: IpAddr) -> bool {
        let of_kernel = (self.mirror.addresses.iter()).any(|(_, prefix)| prefix.address == address);
        self.connected.interface(address).is_some()
            && self.interface_with(address).is_none()
            && !of_kernel
    }

    pub(super) fn set_interfaces(&mut self, interfaces: Vec<Interface>) -> Vec<Interface> {
        let old = std::mem::replace(&mut self.interfaces, interfaces);
        self.take_effect();
        old
    }

    pub(super) fn set_route(
        &mut self,
        to: control::Prefix,
        via: Option<Gateways>,
    ) -> Option<Gateways> {
        self.untold.routes.insert(to);
        match via {
            Some(via) => self.routes.insert(to, via),
            None => self.routes.remove(&to),
        }
    }

    pub(super) fn set_neighbour(&mut self, address: IpAddr, mac: Option<Mac>) -> Option<Mac> {
        self.untold.neighbours = true;
        match mac {
            Some(mac) => self.neighbours.insert(address, mac),
            None => self.neighbours.remove(&address),
        }
    }

    /// What is not told yet, if anything.
    fn compile(&mut self) -> Option<Arc<net::Network>> {
        let mut untold = std::mem::take(&mut self.untold);
        // What of the kernel's is in the way of ours, or was, is known when all is put together.
        let changed = untold.neighbours || !untold.routes.is_empty();
        untold.addresses |= untold.kernel || changed && self.mirror != Mirror::default();
        let neighbours = self.neighbours.iter();
        let neighbours = neighbours.map(|(&address, mac)| net::StaticNeighbour {
            address,
            mac: mac.bytes(),
        });
        let new = if untold.addresses {
            let routes = self.routes.iter();
            let routes = routes.flat_map(|(to, via)| {
                let to = prefix(to.address(), to.length());
                let gateways = via.addresses().iter();
                gateways.map(move |&via| net::Route { to, via })
            });
            let mut new = net::Network::new(self.effective.clone(), routes, neighbours);
            let room = ROUTES_MAX.saturating_sub(self.routes.len());
            for (to, hops) in self.mirror.routes.iter().take(room) {
                new.add_ways(prefix(to.address(), to.length()), hops);
            }
            new.add_neighbours(self.mirror.neighbours.iter().map(|(on, mac)| (*on, *mac)));
            new
        } else if untold.neighbours || !untold.routes.is_empty() {
            let mut new = net::Network::clone(&self.told);
            for to in &untold.routes {
                let via = self.routes.get(to).map_or(&[][..], Gateways::addresses);
                new.set_route(prefix(to.address(), to.length()), via.iter().copied());
            }
            if untold.neighbours {
                new.set_neighbours(neighbours);
            }
            new
        } else {
            return None;
        };
        let old = std::mem::replace(&mut self.told, Arc::new(new));
        self.retired.push(old);
        Some(Arc::clone(&self.told))
    }

    pub(super) fn release(&mut self) {
        self.retired
            .retain(|network| Arc::strong_count(network) > 1);
    }
}

impl Model {
    /// Ports, addresses, routes and static neighbours as they are configured.
    pub fn network(&self) -> control::Network {
        let network = &self.network;
        let on = |interface: &Interface| {
            let (port, vlan) = (self.ports.name(interface.port), interface.vlan);
            let shown = move |prefix: &net::Prefix| {
                Some(Address {
                    port: port.clone(),
                    vlan,
                    prefix: AddressPrefix::new(prefix.address, prefix.length)?,
                })
            };
            let all = interface.addresses.iter().filter_map(shown);
            all.collect::<Vec<_>>()
        };
        let routes = network.routes.iter();
        let neighbours = network.neighbours.iter();
        control::Network {
            ports: self.ports.iter().map(|(_, spec)| spec.clone()).collect(),
            addresses: network.interfaces.iter().flat_map(on).collect(),
            routes: routes
                .map(|(&to, via)| Route {
                    to,
                    via: via.clone(),
                })
                .collect(),
            neighbours: neighbours
                .map(|(&address, &mac)| StaticNeighbour { address, mac })
                .collect(),
            kernel: KernelNetwork::default(),
        }
    }

    /// As [`Self::network`], with what comes from the kernel.
    pub fn whole_network(&self) -> control::Network {
        let Mirror {
            addresses,
            routes,
            neighbours,
        } = &self.network.mirror;
        let name = |port| self.ports.name(port);
        let address = |&((port, vlan), prefix): &(On, net::Prefix)| {
            Some(Address {
                port: name(port),
                vlan,
                prefix: AddressPrefix::new(prefix.address, prefix.length)?,
            })
        };
        let hop = |hop: &net::NextHop| KernelHop {
            port: name(hop.port),
            vlan: hop.vlan,
            via: hop.via,
            weight: hop.weight,
        };
        let route = |(&to, hops): (&control::Prefix, &Vec<net::NextHop>)| KernelRoute {
            to,
            hops: hops.iter().map(hop).collect(),
        };
        let neighbour = |(&(.., address), &mac): (&(PortId, Option<u16>, IpAddr), &[u8; 6])| {
            let mac = Mac::new(mac)?;
            Some(StaticNeighbour { address, mac })
        };
        control::Network {
            kernel: KernelNetwork {
                addresses: addresses.iter().filter_map(address).collect(),
                routes: routes.iter().map(route).collect(),
                neighbours: neighbours.iter().filter_map(neighbour).collect(),
            },
            ..self.network()
        }
    }

    /// The ports that have a kernel's side, and what the kernel calls it.
    pub fn kernels_sides(&self) -> impl Iterator<Item = (PortId, &str)> {
        let ports = self.ports.iter();
        ports.filter_map(|(id, spec)| Some((id, kernel_name(spec)?)))
    }

    /// The kernel's side, and VLAN, of the port that who is at this address is reached by; or of another
    /// one where that has none.
    pub fn side_toward(&self, address: IpAddr) -> Option<(&str, Option<u16>)> {
        let way = self
            .network
            .told
            .way(address)
            .map(|(on, _)| (on.port, on.vlan));
        let named = way.and_then(|(port, vlan)| Some((kernel_name(self.ports.get(port)?)?, vlan)));
        named.or_else(|| Some((self.kernels_sides().next()?.1, None)))
    }

    /// Takes what the kernel has on its sides of ports, but for what contradicts the configuration;
    /// what the workers are told of it.
    pub fn mirror(&mut self, mut mirror: Mirror) -> Vec<Update> {
        let mut room = ADDRESSES_MAX.saturating_sub(
            self.network
                .interfaces
                .iter()
                .map(|on| on.addresses.len())
                .sum(),
        );
        mirror.addresses.retain(|((port, _), prefix)| {
            let mtu = self.ports.get(*port).map_or(0, |spec| spec.mtu);
            let fits = (prefix.address.is_ipv4() || mtu >= IPV6_MTU_MIN)
                && wrong_address(*prefix).is_none()
                && self.may_be_ours(prefix.address).is_ok();
            let stays = fits && room > 0;
            room -= usize::from(stays);
            stays
        });
        // Networks of the ports need no route.
        let mut connected = self.network.interfaces.iter().flat_map(|on| &on.addresses);
        let mut connected: BTreeSet<_> =
            connected.by_ref().filter_map(|own| network(*own)).collect();
        connected.extend(mirror.addresses.iter().filter_map(|(_, own)| network(*own)));
        mirror.routes.retain(|to, _| !connected.contains(to));
        if mirror == self.network.mirror {
            return Vec::new();
        }
        self.network.set_mirror(mirror);
        self.told_network().into_iter().collect()
    }

    /// Addresses that are configured of ports that have a kernel's side: what the kernel calls that, the
    /// VLAN, the address.
    pub fn shared_addresses(&self) -> impl Iterator<Item = (&str, Option<u16>, net::Prefix)> {
        let interfaces = self.network.interfaces.iter();
        interfaces.flat_map(|on| {
            let name = self.ports.get(on.port).and_then(kernel_name);
            name.into_iter().flat_map(move |name| {
                let addresses = on.addresses.iter();
                addresses.map(move |prefix| (name, on.vlan, *prefix))
            })
        })
    }

    /// What is new of the network.
    pub(super) fn told_network(&mut self) -> Option<Update> {
        self.network.compile().map(Update::SetNetwork)
    }

    pub(super) fn add_address(
        &mut self,
        new: &Address,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let port = self.port_of(&new.port, new.vlan)?;
        let prefix = prefix(new.prefix.address(), new.prefix.length());
        if let Some(wrong) = wrong_address(prefix) {
            return Err(refuse(Errno::Einval, format!("address {wrong}")));
        }
        let address = prefix.address;
        self.may_be_ours(address)?;
        let network = &self.network;
        let find = |vlan| {
            let mut all = network.interfaces.iter();
            all.position(|on| on.port == port && on.vlan == vlan)
        };
        let Some(untagged) = find(None) else {
            unreachable!("a port is an interface")
        };
        let place = find(new.vlan);
        let known = network.connected.exactly(prefix.network());
        if let Some(other) = known.map(usize::from).filter(|other| Some(*other) != place) {
            let there = self.name_of(&network.effective[other]);
            let (address, length) = (prefix.network().address, prefix.length);
            let detail = format!("network {address}/{length} is on {there} already, one is right");
            return Err(refuse(Errno::Eexist, detail));
        }
        let mtu = network.interfaces[untagged].mtu;
        if address.is_ipv6() && mtu < IPV6_MTU_MIN {
            let detail = format!(
                "port {} has mtu {mtu}, {IPV6_MTU_MIN} or more is right with IPv6 addresses",
                new.port
            );
            return Err(refuse(Errno::Einval, detail));
        }
        let used = network.interfaces.iter().map(|on| on.addresses.len());
        let full = |what: &str, max: usize| {
            let detail = format!("there are {max} {what} already, no more is right");
            Err(refuse(Errno::Enomem, detail))
        };
        if used.sum::<usize>() >= ADDRESSES_MAX {
            return full("addresses", ADDRESSES_MAX);
        }
        if place.is_none() && network.interfaces.len() >= INTERFACES_MAX {
            return full("ports and VLANs", INTERFACES_MAX);
        }
        let mut interfaces = network.interfaces.clone();
        match place {
            Some(place) => interfaces[place].addresses.push(prefix),
            None => interfaces.push(Interface {
                vlan: new.vlan,
                addresses: vec![prefix],
                ..interfaces[untagged].clone()
            }),
        }
        let old = self.network.set_interfaces(interfaces);
        done.undo.push(Undo::Interfaces(old));
        Ok(())
    }

    /// A server, a gateway or a static neighbour is another station.
    fn may_be_ours(&self, address: IpAddr) -> Result<(), Refusal> {
        let network = &self.network;
        if let Some(on) = network.interface_with(address) {
            let detail = format!("{} has address {address} already", self.name_of(on));
            return Err(refuse(Errno::Eexist, detail));
        }
        let leads = |via: &Gateways| via.addresses().contains(&address);
        let gateway_of = || network.routes.iter().find(|(_, via)| leads(via));
        let other = if self.uses.is_used(address, Use::Server) {
            "a server's address".to_owned()
        } else if network.neighbours.contains_key(&address) {
            "a static neighbour's".to_owned()
        } else if let Some((to, _)) = gateway_of() {
            format!("the gateway of the route to {}", network_text(*to))
        } else {
            return Ok(());
        };
        let detail = format!("{address} is {other}, one of our own is right");
        Err(refuse(Errno::Einval, detail))
    }

    pub(super) fn delete_address(
        &mut self,
        old: &Address,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let port = self.port_of(&old.port, old.vlan)?;
        let prefix = prefix(old.prefix.address(), old.prefix.length());
        let mut interfaces = self.network.interfaces.clone();
        let mut all = interfaces.iter_mut();
        let on = all.position(|on| on.port == port && on.vlan == old.vlan);
        let place = on.and_then(|on| {
            let at = interfaces[on].addresses.iter().position(|p| *p == prefix)?;
            Some((on, at))
        });
        let Some((on, at)) = place else {
            let detail = format!("no address {old}");
            return Err(refuse(Errno::Enoent, detail));
        };
        interfaces[on].addresses.remove(at);
        if interfaces[on].addresses.is_empty() && old.vlan.is_some() {
            interfaces.remove(on);
        }
        let before = self.network.set_interfaces(interfaces);
        if let Some(needs) = self.who_needs_more() {
            self.network.set_interfaces(before);
            let detail = format!("{needs} is reached by address {old}, delete that first");
            return Err(refuse(Errno::Einval, detail));
        }
        done.undo.push(Undo::Interfaces(before));
        Ok(())
    }

    /// A station that is on no network of ours, and should be.
    pub(super) fn who_needs_more(&self) -> Option<String> {
        let network = &self.network;
        let routes = network.routes.iter();
        let mut gateways =
            routes.flat_map(|(to, via)| via.addresses().iter().map(move |via| (to, via)));
        let mut neighbours = network.neighbours.keys();
        let stray = gateways.find(|(_, via)| network.connected.interface(**via).is_none());
        let stray =
            stray.map(|(to, via)| format!("gateway {via} of the route to {}", network_text(*to)));
        stray.or_else(|| {
            let stray = neighbours.find(|known| network.connected.interface(**known).is_none());
            stray.map(|address| format!("static neighbour {address}"))
        })
    }

    pub(super) fn add_route(
        &mut self,
        route: Route,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if let Some(via) = self.network.routes.get(&route.to) {
            let to = network_text(route.to);
            let detail = format!("there is a route to {to} already, via {via}");
            return Err(refuse(Errno::Eexist, detail));
        }
        self.replace_route(route, done)
    }

    pub(super) fn replace_route(
        &mut self,
        route: Route,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let Route { to, via } = route;
        let network = &self.network;
        let shape = prefix(to.address(), to.length());
        if let Some(on) = network.connected.exactly(shape) {
            let there = self.name_of(&network.effective[usize::from(on)]);
            let to = network_text(to);
            let detail = format!("network {to} is on {there}, which needs no route");
            return Err(refuse(Errno::Eexist, detail));
        }
        let wrong = via.addresses().iter().find_map(|&via| {
            wrong_station("gateway", via, network.reaches(via)).or_else(|| wrong_family(shape, via))
        });
        if let Some(wrong) = wrong {
            return Err(refuse(Errno::Einval, wrong));
        }
        if network.routes.len() >= ROUTES_MAX && !network.routes.contains_key(&to) {
            let detail = format!("there are {ROUTES_MAX} routes already, no more is right");
            return Err(refuse(Errno::Enomem, detail));
        }
        let old = self.network.set_route(to, Some(via));
        done.undo.push(Undo::Route(to, old));
        Ok(())
    }

    pub(super) fn delete_route(
        &mut self,
        to: control::Prefix,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if !self.network.routes.contains_key(&to) {
            let detail = format!("no route to {}", network_text(to));
            return Err(refuse(Errno::Esrch, detail));
        }
        let old = self.network.set_route(to, None);
        done.undo.push(Undo::Route(to, old));
        Ok(())
    }

    pub(super) fn add_neighbour(
        &mut self,
        new: StaticNeighbour,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let StaticNeighbour { address, mac } = new;
        let network = &self.network;
        if let Some(known) = network.neighbours.get(&address) {
            let detail = format!("neighbour {address} is static already, at {known}");
            return Err(refuse(Errno::Eexist, detail));
        }
        if let Some(wrong) = wrong_station("neighbour", address, network.reaches(address)) {
            return Err(refuse(Errno::Einval, wrong));
        }
        if network.neighbours.len() >= STATIC_NEIGHBOURS_MAX {
            let max = STATIC_NEIGHBOURS_MAX;
            let detail = format!("there are {max} static neighbours already, no more is right");
            return Err(refuse(Errno::Enomem, detail));
        }
        self.network.set_neighbour(address, Some(mac));
        done.undo.push(Undo::Neighbour(address, None));
        Ok(())
    }

    pub(super) fn delete_neighbour(
        &mut self,
        address: IpAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if !self.network.neighbours.contains_key(&address) {
            let detail = format!("no static neighbour {address}");
            return Err(refuse(Errno::Enoent, detail));
        }
        let old = self.network.set_neighbour(address, None);
        done.undo.push(Undo::Neighbour(address, old));
        Ok(())
    }

    /// The port of that name, which may have that VLAN.
    fn port_of(&self, name: &str, vlan: Option<u16>) -> Result<PortId, Refusal> {
        if let Some(vlan) = vlan
            && !(1..=VLAN_MAX).contains(&vlan)
        {
            let detail = format!("VLAN {vlan} cannot be, 1 to {VLAN_MAX} is right");
            return Err(refuse(Errno::Einval, detail));
        }
        self.port_named(name, "an address")
    }

    fn name_of(&self, interface: &Interface) -> String {
        control::interface(&self.ports.name(interface.port), interface.vlan)
    }
}

/// `10.0.0.1/32` rather than `10.0.0.1`.
fn network_text(to: control::Prefix) -> String {
    format!("{}/{}", to.address(), to.length())
}

fn prefix(address: IpAddr, length: u8) -> net::Prefix {
    net::Prefix { address, length }
}

fn network(prefix: net::Prefix) -> Option<control::Prefix> {
    control::Prefix::around(prefix.address, prefix.length)
}

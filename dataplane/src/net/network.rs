//! Interfaces, routes and static neighbours: built once, shared by every worker, never changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};

use super::route::{Prefix, Routes, Target};
use super::{Sieve, is_global, is_link_local, is_station};
use crate::packet::{PORTS_MAX, PortId};
use crate::wire::nd::link_local;

/// The most ports and VLANs of ports.
pub const INTERFACES_MAX: usize = 4096;
/// The most addresses of all interfaces together.
pub const ADDRESSES_MAX: usize = 1024;
/// The most routes.
pub const ROUTES_MAX: usize = 1 << 18;
/// The most static neighbours; the other places are for those that are learned.
pub const STATIC_NEIGHBOURS_MAX: usize = super::NEIGHBOURS_MAX / 2;
/// The smallest MTU of a link that IPv6 uses (RFC 8200 §5).
pub const IPV6_MTU_MIN: u16 = 1280;

/// Those to one network stand together: each takes its share of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub to: Prefix,
    /// Of the same family.
    pub via: IpAddr,
}

/// One of the ways to a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    pub port: PortId,
    pub vlan: Option<u16>,
    /// `None`: the stations themselves are on the link.
    pub via: Option<IpAddr>,
    /// Its share of flows, from 1.
    pub weight: u16,
}

/// A neighbour whose Ethernet address is given: it never changes and never expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticNeighbour {
    pub address: IpAddr,
    pub mac: [u8; 6],
}

/// A port's untagged side, or one VLAN of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub port: PortId,
    pub vlan: Option<u16>,
    pub mac: [u8; 6],
    /// The longest IP packet.
    pub mtu: u16,
    /// Senders may leave checksums to hardware that is not there.
    pub partial_checksums: bool,
    /// Our own addresses, each with its subnet. [`Self::link_local`] is one more.
    pub addresses: Vec<Prefix>,
    /// Who takes what is not the director's.
    pub kernel: Option<Kernel>,
}

/// The kernel's side of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Where frames go to and come from the kernel.
    pub port: PortId,
    /// Who says where virtual addresses are.
    pub vips: control::Vips,
}

impl Interface {
    /// Its address on its own link, made from its Ethernet address.
    pub fn link_local(&self) -> Ipv6Addr {
        link_local(self.mac)
    }

    /// Whether it is us who say where virtual addresses are.
    pub(super) fn tells_vips(&self) -> bool {
        (self.kernel).is_none_or(|kernel| kernel.vips == control::Vips::Director)
    }

    /// Whether a station with this address may be here.
    pub(super) fn is_on_link(&self, address: IpAddr) -> bool {
        is_link_local(address) || self.addresses.iter().any(|p| p.contains(address))
    }

    /// Our address for what goes to `to`, preferably of its subnet; unspecified where there is none.
    pub(super) fn source_for(&self, to: IpAddr) -> IpAddr {
        let addresses = self.addresses.iter();
        let near = addresses.clone().find(|p| p.contains(to));
        match (near, to) {
            (Some(prefix), _) => prefix.address,
            (None, IpAddr::V4(_)) => self
                .first_of_family(to)
                .unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            (None, IpAddr::V6(_)) => self.link_local().into(),
        }
    }

    fn first_of_family(&self, other: IpAddr) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().map(|p| p.address);
        addresses.find(|address| address.is_ipv4() == other.is_ipv4())
    }
}

/// What the configuration says. Routes and static neighbours that no interface's subnet reaches
/// are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    pub interfaces: Vec<Interface>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<StaticNeighbour>,
}

/// The networks that interfaces are on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connected(Routes);

impl Connected {
    pub fn new(interfaces: &[Interface]) -> Self {
        let mut routes = Routes::default();
        for (interface, on) in (0..).zip(interfaces) {
            let via = None;
            for &prefix in &on.addresses {
                routes.insert(prefix, Target { interface, via });
            }
        }
        Self(routes)
    }

    /// The interface whose subnet holds `address`, the smallest subnet first.
    pub fn interface(&self, address: IpAddr) -> Option<u16> {
        self.0.lookup(address, 0).map(|target| target.interface)
    }

    /// The interface that is on exactly this network.
    pub fn exactly(&self, network: Prefix) -> Option<u16> {
        self.0.get(network).map(|target| target.interface)
    }
}

/// What every worker knows of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub(super) interfaces: Vec<Interface>,
    connected: Connected,
    /// By port, the kernel's sides too.
    untagged: [Option<u16>; PORTS_MAX],
    tagged: HashMap<(PortId, u16), u16>,
    /// And whose they are.
    addresses: HashMap<IpAddr, u16>,
    /// By the kernel's sides of ports: the port.
    fronts: [Option<PortId>; PORTS_MAX],
    broadcasts: HashSet<Ipv4Addr>,
    /// Both: no other station has these. Most that are not among them do not pass the sieve.
    taken: HashSet<IpAddr>,
    sieve: Sieve,
    routes: Routes,
    /// Those that a subnet holds, by interface and address.
    pub(super) neighbours: BTreeMap<(u16, IpAddr), [u8; 6]>,
}

impl Network {
    pub fn new(
        interfaces: Vec<Interface>,
        routes: impl IntoIterator<Item = Route>,
        neighbours: impl IntoIterator<Item = StaticNeighbour>,
    ) -> Self {
        let connected = Connected::new(&interfaces);
        let mut network = Self {
            interfaces,
            routes: connected.0.clone(),
            connected,
            untagged: [None; PORTS_MAX],
            tagged: HashMap::new(),
            addresses: HashMap::new(),
            fronts: [None; PORTS_MAX],
            broadcasts: HashSet::from([Ipv4Addr::BROADCAST]),
            taken: HashSet::new(),
            sieve: Sieve::default(),
            neighbours: BTreeMap::new(),
        };
        network.name_interfaces();
        let routes: Vec<Route> = routes.into_iter().collect();
        for routes in routes.chunk_by(|one, other| one.to == other.to) {
            network.set_route(routes[0].to, routes.iter().map(|route| route.via));
        }
        network.set_neighbours(neighbours);
        network
    }

    fn name_interfaces(&mut self) {
        for (id, interface) in (0..).zip(&self.interfaces) {
            let side = interface.kernel.map(|kernel| kernel.port);
            for port in side.into_iter().chain([interface.port]) {
                match interface.vlan {
                    Some(vlan) => {
                        self.tagged.entry((port, vlan)).or_insert(id);
                    }
                    None => {
                        if let Some(slot) = self.untagged.get_mut(port.index()) {
                            slot.get_or_insert(id);
                        }
                    }
                }
            }
            if let Some(kernel) = interface.kernel
                && let Some(front) = self.fronts.get_mut(kernel.port.index())
            {
                *front = Some(interface.port);
            }
            self.addresses
                .entry(interface.link_local().into())
                .or_insert(id);
            for prefix in &interface.addresses {
                self.addresses.entry(prefix.address).or_insert(id);
                self.broadcasts.extend(prefix.broadcast());
            }
        }
        let broadcasts = self.broadcasts.iter().copied();
        self.taken.extend(broadcasts.map(IpAddr::from));
        self.taken.extend(self.addresses.keys());
        self.sieve.extend(&self.taken);
    }

    /// The route to exactly this network: none, if no interface's subnet holds a gateway. A subnet
    /// itself needs no route and keeps none.
    pub fn set_route(&mut self, to: Prefix, gateways: impl IntoIterator<Item = IpAddr>) {
        if self.connected.exactly(to).is_some() {
            return;
        }
        let target = |via| {
            let interface = self.connected.interface(via)?;
            let via = Some(via);
            Some((Target { interface, via }, 1))
        };
        let targets: Vec<_> = gateways.into_iter().filter_map(target).collect();
        match targets[..] {
            [] => self.routes.remove(to),
            _ => self.routes.replace_by(to, &targets),
        }
    }

    /// The route to a network that leaves by these hops, a share of its flows each; with no hops, packets
    /// are refused. Left out are hops that cannot be, and a route whose hops are all left out. What is
    /// there already stays.
    pub fn add_ways(&mut self, to: Prefix, hops: &[NextHop]) {
        let target = |hop: &NextHop| {
            let interface = self.interface_id(hop.port, hop.vlan)?;
            let may_be = |via| is_station(via) && !self.is_taken(via);
            let fits = |via: IpAddr| via.is_ipv4() == to.address.is_ipv4() && may_be(via);
            let target = Target {
                interface,
                via: hop.via,
            };
            hop.via.is_none_or(fits).then_some((target, hop.weight))
        };
        let targets: Vec<_> = hops.iter().filter_map(target).collect();
        let is_nowhere = targets.is_empty() && !hops.is_empty();
        if !is_nowhere && self.routes.is_free(to) {
            self.routes.replace_by(to, &targets);
        }
    }

    /// As many static neighbours more, on these interfaces.
    pub fn add_neighbours(
        &mut self,
        neighbours: impl IntoIterator<Item = ((PortId, Option<u16>, IpAddr), [u8; 6])>,
    ) {
        for ((port, vlan, address), mac) in neighbours {
            if let Some(interface) = self.interface_id(port, vlan)
                && is_station(address)
                && !self.is_mine(address)
                && self.neighbours.len() < STATIC_NEIGHBOURS_MAX
            {
                self.neighbours.entry((interface, address)).or_insert(mac);
            }
        }
    }

    /// Instead of those before; those that no interface's subnet holds are left out.
    pub fn set_neighbours(&mut self, neighbours: impl IntoIterator<Item = StaticNeighbour>) {
        let of_subnets = neighbours
            .into_iter()
            .filter_map(|StaticNeighbour { address, mac }| {
                let interface = self.connected.interface(address);
                interface
                    .filter(|_| is_station(address))
                    .map(|interface| ((interface, address), mac))
            });
        self.neighbours = of_subnets.collect();
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Where what goes to `to` leaves, and the station that it is sent to.
    pub fn way(&self, to: IpAddr) -> Option<(&Interface, IpAddr)> {
        let target = self.target(to, 0)?;
        let on = &self.interfaces[usize::from(target.interface)];
        Some((on, target.via.unwrap_or(to)))
    }

    #[inline]
    pub(super) fn interface_id(&self, port: PortId, vlan: Option<u16>) -> Option<u16> {
        match vlan {
            None => *self.untagged.get(port.index())?,
            Some(vlan) => self.tagged.get(&(port, vlan)).copied(),
        }
    }

    pub(super) fn is_mine(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Whether an interface beside which there is a kernel has this address.
    pub(super) fn is_kernels(&self, address: IpAddr) -> bool {
        let on = self.addresses.get(&address);
        on.is_some_and(|on| self.interfaces[usize::from(*on)].kernel.is_some())
    }

    /// The port whose kernel's side this is.
    pub(super) fn front(&self, side: PortId) -> Option<PortId> {
        *self.fronts.get(side.index())?
    }

    /// Where what goes to `address` leaves an interface that it is reached by: one of our own is the
    /// kernel's, if that has a side there.
    pub(super) fn exit(&self, on: &Interface, address: IpAddr) -> PortId {
        match on.kernel {
            Some(kernel) if self.is_kernels(address) => kernel.port,
            _ => on.port,
        }
    }

    pub(super) fn is_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.broadcasts.contains(&address))
    }

    /// Whether it is an interface's or a broadcast address.
    #[inline]
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.sieve.may_have(address) && self.taken.contains(&address)
    }

    /// Where what goes to another station's address leaves, of this flow.
    pub(super) fn target(&self, to: IpAddr, flow: u64) -> Option<Target> {
        if !is_global(to) {
            return None;
        }
        if self.is_taken(to) {
            return self.host(to);
        }
        self.routes.lookup(to, flow)
    }

    /// Of all flows.
    pub(super) fn targets(&self, to: IpAddr) -> Vec<Target> {
        match self.target(to, 0) {
            Some(target) if self.is_taken(to) => vec![target],
            Some(_) => self.routes.all(to),
            None => Vec::new(),
        }
    }

    /// The way to ourselves: to the kernel, if it has a side where the address is.
    fn host(&self, to: IpAddr) -> Option<Target> {
        let interface = *self.addresses.get(&to)?;
        let on = &self.interfaces[usize::from(interface)];
        let via = None;
        on.kernel.map(|_| Target { interface, via })
    }
}

/// Why no interface can have this address, and what would be right.
pub fn wrong_address(prefix: Prefix) -> Option<String> {
    let Prefix { address, length } = prefix;
    let (example, longest) = match address {
        IpAddr::V4(_) => ("10.0.0.254/24", 32),
        IpAddr::V6(_) => ("2001:db8::fe/64", 128),
    };
    if is_station(address) && !is_global(address) {
        return Some(format!(
            "{address} is link-local, which each interface has one of by itself, one for all \
             links like {example} is right"
        ));
    }
    if length == 0 || !is_station(address) {
        return Some(format!(
            "{address}/{length} cannot be an interface's, a unicast one like {example} is right"
        ));
    }
    // The two of a point-to-point link (RFC 3021, RFC 6164) and one alone have no such ones.
    let what = match address {
        _ if length >= longest - 1 => None,
        IpAddr::V4(_) if prefix.network() == prefix => Some("network"),
        IpAddr::V6(_) if prefix.network() == prefix => Some("routers' anycast"),
        IpAddr::V4(v4) if prefix.broadcast() == Some(v4) => Some("broadcast"),
        _ => None,
    }?;
    Some(format!(
        "{address} is the {what} address of its network, a host's is right"
    ))
}

/// Why `address`, which another station may have or not, cannot be that of a `what`.
pub fn wrong_station(what: &str, address: IpAddr, is_connected: bool) -> Option<String> {
    if is_station(address) && !is_global(address) {
        return Some(format!(
            "{what} {address} is link-local, which does not say on which port, its address on a \
             port's network is right"
        ));
    }
    (!is_connected).then(|| {
        format!(
            "{what} {address} is on no port's network, another station's address on one is right"
        )
    })
}

/// Why a route to `to` cannot have this gateway.
pub fn wrong_family(to: Prefix, via: IpAddr) -> Option<String> {
    let (family, other) = match via {
        IpAddr::V4(_) => ("IPv4", "IPv6"),
        IpAddr::V6(_) => ("IPv6", "IPv4"),
    };
    (via.is_ipv4() != to.address.is_ipv4()).then(|| {
        format!(
            "gateway {via} is {family}, an {other} address is right for the route to {}/{}",
            to.address, to.length
        )
    })
}

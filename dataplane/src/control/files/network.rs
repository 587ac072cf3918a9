//! Ports, addresses, routes and static neighbours of files.

use std::collections::HashSet;
use std::net::IpAddr;

use control::conf::Key;
use control::plan::{Action, Restart, What};
use control::{Address, Change, Network, PortSpec, Prefix, Route, StaticNeighbour};

use super::diff::{Sides, Steps, changed, given};
use crate::config::Config;
use crate::net;

/// What a file says of the network, as far as it can be without a restart. Ports that are here stay as
/// they are. One whose device another port has here waits for a restart, with its addresses and what is
/// reached through them; that other port stays until then.
pub(super) fn reachable(file: &Config, now: &Network) -> (Network, Vec<Restart>) {
    let mut network = file.network();
    let here = |name: &str| now.ports.iter().find(|port| port.name == name);
    let holder = |new: &PortSpec| {
        let mut now = now.ports.iter();
        now.find(|port| port.name != new.name && port.device_name() == new.device_name())
    };
    let (mut ports, mut waiting) = (Vec::new(), HashSet::new());
    for port in network.ports {
        match (here(&port.name), holder(&port)) {
            (Some(running), _) => ports.push(running.clone()),
            (None, None) => ports.push(port),
            (None, Some(holder)) => {
                waiting.insert(port.name);
                if !file.ports.iter().any(|port| port.spec.name == holder.name) {
                    ports.push(holder.clone());
                    let left = now.addresses.iter();
                    let left = left.filter(|address| address.port == holder.name);
                    network.addresses.extend(left.cloned());
                }
            }
        }
    }
    network.ports = ports;
    (network.addresses).retain(|address| !waiting.contains(&address.port));
    let networks: Vec<net::Prefix> = network.addresses.iter().map(around).collect();
    let reached = |address: IpAddr| networks.iter().any(|network| network.contains(address));
    let mut waits = Vec::new();
    network.routes.retain(|route| {
        let stays = route.via.addresses().iter().all(|via| reached(*via));
        let name = format!("route {}/{}", route.to.address(), route.to.length());
        waits.extend((!stays).then(|| only_in_file(name, format!("via {}", route.via))));
        stays
    });
    network.neighbours.retain(|known| {
        let stays = reached(known.address);
        let name = format!("neighbour {}", known.address);
        waits.extend((!stays).then(|| only_in_file(name, format!("mac {}", known.mac))));
        stays
    });
    (network, waits)
}

fn only_in_file(section: String, file: String) -> Restart {
    Restart {
        section,
        key: None,
        running: None,
        file: Some(file),
    }
}

/// The network that an address is on.
fn around(address: &Address) -> net::Prefix {
    let (address, length) = (address.prefix.address(), address.prefix.length());
    net::Prefix { address, length }.network()
}

fn has(ports: &[PortSpec], name: &str) -> bool {
    ports.iter().any(|port| port.name == name)
}

fn via(route: &Route) -> Vec<Key> {
    vec![Key::needed("via", &route.via)]
}

fn mac(known: &StaticNeighbour) -> Vec<Key> {
    vec![Key::needed("mac", known.mac)]
}

impl Sides<'_> {
    /// Ports and addresses that stay keep their order. What is reached through one that goes goes before it, and
    /// comes again: workers see only what is left at the end.
    pub(super) fn network(self, steps: &mut Steps) {
        let Self {
            now, said, wanted, ..
        } = self;
        let (now, said, wanted) = (&now.network, &said.network, &wanted.network);
        let going = now.addresses.iter();
        let going: Vec<&Address> = going
            .filter(|address| !wanted.addresses.contains(address))
            .collect();
        let shaken: Vec<net::Prefix> = going.iter().map(|address| around(address)).collect();
        let is_shaken = |address: IpAddr| shaken.iter().any(|network| network.contains(address));
        steps.routes(&now.routes, &said.routes, &wanted.routes, is_shaken);
        steps.neighbours(
            &now.neighbours,
            &said.neighbours,
            &wanted.neighbours,
            is_shaken,
        );
        for address in going {
            let by_hand = !said.addresses.contains(address);
            let address = address.clone();
            steps.deletions.push(Change::DeleteAddress(address.clone()));
            steps.tell(
                Action::Delete,
                What::Address { address },
                Vec::new(),
                by_hand,
            );
        }
        let mut coming = Vec::new();
        for port in &wanted.ports {
            if has(&now.ports, &port.name) {
                continue;
            }
            let (by_hand, keys) = (has(&said.ports, &port.name), given(&port.keys()[1..]));
            coming.push(Change::AddPort(port.clone()));
            let port = port.name.clone();
            steps.tell(Action::Add, What::Port { port }, keys, by_hand);
        }
        for address in &wanted.addresses {
            if now.addresses.contains(address) {
                continue;
            }
            let by_hand = said.addresses.contains(address);
            let address = address.clone();
            coming.push(Change::AddAddress(address.clone()));
            steps.tell(Action::Add, What::Address { address }, Vec::new(), by_hand);
        }
        // What is reached through them is there already.
        steps.additions.splice(0..0, coming);
    }

    /// Ports go when nothing needs them any more: neither their addresses nor rules that mark packets.
    pub(super) fn leaving_ports(self, steps: &mut Steps) {
        let (now, said, wanted) = (self.now, self.said, self.wanted);
        for port in &now.network.ports {
            if has(&wanted.network.ports, &port.name) {
                continue;
            }
            let (by_hand, port) = (!has(&said.network.ports, &port.name), port.name.clone());
            (steps.deletions).push(Change::DeletePort { port: port.clone() });
            steps.tell(Action::Delete, What::Port { port }, Vec::new(), by_hand);
        }
    }
}

impl Steps {
    fn routes(
        &mut self,
        now: &[Route],
        said: &[Route],
        wanted: &[Route],
        is_shaken: impl Fn(IpAddr) -> bool,
    ) {
        let find = |routes: &[Route], to: Prefix| routes.iter().find(|one| one.to == to).cloned();
        for route in now {
            let to = route.to;
            let (old, new) = (find(said, to), find(wanted, to));
            let by_hand = old.as_ref().is_none_or(|old| old != route);
            let mut gateways = route.via.addresses().iter();
            if new.as_ref() != Some(route) || gateways.any(|via| is_shaken(*via)) {
                self.deletions.push(Change::DeleteRoute { to });
                self.additions.extend(new.clone().map(Change::AddRoute));
            }
            match new {
                None => self.tell(Action::Delete, What::Route { to }, Vec::new(), by_hand),
                Some(new) if new != *route => {
                    let said = old.map(|old| via(&old)).unwrap_or_default();
                    let keys = changed(&via(route), &said, &via(&new));
                    self.tell_edit(What::Route { to }, keys);
                }
                Some(_) => {}
            }
        }
        for new in wanted {
            let to = new.to;
            if find(now, to).is_none() {
                self.additions.push(Change::AddRoute(new.clone()));
                let keys = given(&via(new));
                let by_hand = find(said, to).is_some();
                self.tell(Action::Add, What::Route { to }, keys, by_hand);
            }
        }
    }

    fn neighbours(
        &mut self,
        now: &[StaticNeighbour],
        said: &[StaticNeighbour],
        wanted: &[StaticNeighbour],
        is_shaken: impl Fn(IpAddr) -> bool,
    ) {
        let find = |known: &[StaticNeighbour], address: IpAddr| {
            known.iter().find(|one| one.address == address).copied()
        };
        for known in now {
            let address = known.address;
            let (old, new) = (find(said, address), find(wanted, address));
            let by_hand = old.is_none_or(|old| old != *known);
            let what = What::Neighbour { neighbour: address };
            if new != Some(*known) || is_shaken(address) {
                self.deletions.push(Change::DeleteNeighbour { address });
                self.additions.extend(new.map(Change::AddNeighbour));
            }
            match new {
                None => self.tell(Action::Delete, what, Vec::new(), by_hand),
                Some(new) if new != *known => {
                    let said = old.map(|old| mac(&old)).unwrap_or_default();
                    let keys = changed(&mac(known), &said, &mac(&new));
                    self.tell_edit(what, keys);
                }
                Some(_) => {}
            }
        }
        for new in wanted {
            let neighbour = new.address;
            if find(now, neighbour).is_none() {
                self.additions.push(Change::AddNeighbour(*new));
                let keys = given(&mac(new));
                let by_hand = find(said, neighbour).is_some();
                self.tell(Action::Add, What::Neighbour { neighbour }, keys, by_hand);
            }
        }
    }
}

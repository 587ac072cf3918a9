//! What concerns packets between a few addresses, copied.

use std::net::IpAddr;

use super::held::{Pool, Queue};
use super::neigh::{Entry, State};
use super::route::{Prefix, Routes, Target};
use super::{Hop, HopId, Interface, NEIGHBOURS_MAX, NeighbourView, Net, Setup};
use crate::packet::{Learned, PacketBuf, PortId};
use crate::time::Instant;
use crate::wire::ethernet;

/// A neighbour under its number.
#[derive(Debug, Clone)]
struct Place {
    id: HopId,
    hop: Hop,
    entry: Entry,
}

/// What is known of one address.
#[derive(Debug, Clone, Copy)]
struct Known {
    address: IpAddr,
    mine: bool,
    broadcast: bool,
    target: Option<Target>,
}

#[derive(Debug, Clone)]
pub struct Excerpt {
    interfaces: Vec<Interface>,
    known: Vec<Known>,
    places: Vec<Place>,
    /// Numbers that neighbours have or had.
    numbers: usize,
    /// One that is free again.
    free: Option<HopId>,
    /// No packet more can wait.
    full: bool,
    generation: u16,
}

/// The way of packets to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub port: PortId,
    pub vlan: Option<u16>,
    /// `None`: the address itself is on the link.
    pub via: Option<IpAddr>,
    pub mtu: u16,
    /// The next hop, if it is known, and how many packets wait for it.
    pub neighbour: Option<(NeighbourView, u8)>,
}

impl<P: PacketBuf> Net<P> {
    /// What is known of these addresses and numbers.
    pub fn excerpt(&self, addresses: &[IpAddr], hops: &[HopId]) -> Excerpt {
        let mut known: Vec<Known> = Vec::new();
        for &address in addresses {
            if known.iter().all(|known| known.address != address) {
                known.push(Known {
                    address,
                    mine: self.is_mine(address),
                    broadcast: self.is_broadcast(address),
                    target: self.routes.lookup(address),
                });
            }
        }
        let next = known.iter().filter_map(|known| {
            let target = known.target?;
            let next = (target.interface, target.via.unwrap_or(known.address));
            self.index.get(&next).copied()
        });
        let valid = |id: &HopId| id.index() < self.entries.len();
        let mut ids: Vec<HopId> = next.chain(hops.iter().copied().filter(valid)).collect();
        ids.sort_unstable_by_key(|id| id.0);
        ids.dedup();
        let place = |id: HopId| Place {
            id,
            hop: self.hops[id.index()].clone(),
            entry: self.entries[id.index()],
        };
        Excerpt {
            interfaces: self.interfaces.clone(),
            known,
            places: ids.into_iter().map(place).collect(),
            numbers: self.entries.len(),
            free: self.free.last().copied(),
            full: self.held.is_full(),
            generation: self.generation,
        }
    }

    /// A net of this and nothing else: neighbours keep their numbers.
    pub fn of(excerpt: &Excerpt) -> Self {
        let mut net = Self::new(Setup {
            interfaces: excerpt.interfaces.clone(),
            ..Setup::default()
        });
        net.generation = excerpt.generation;
        net.routes = Routes::default();
        for known in &excerpt.known {
            if let Some(target) = known.target {
                net.routes.insert(Prefix::whole(known.address), target);
            }
            if known.mine {
                net.addresses.insert(known.address);
            } else {
                net.addresses.remove(&known.address);
            }
            if let (true, IpAddr::V4(address)) = (known.broadcast, known.address) {
                net.broadcasts.insert(address);
            }
        }
        net.settle(excerpt);
        if excerpt.full {
            net.held = Pool::full();
        }
        net
    }

    /// Gives each neighbour its number.
    fn settle(&mut self, excerpt: &Excerpt) {
        let vacant = Hop {
            l2: [0; ethernet::HEADER_MAX],
            l2_len: 14,
            ready: false,
            used: false,
            port: PortId::default(),
            mtu: 0,
        };
        let nobody = Entry {
            interface: 0,
            address: IpAddr::from([0, 0, 0, 0]),
            source: IpAddr::from([0, 0, 0, 0]),
            state: State::Free,
            queue: Queue::default(),
        };
        let numbers = excerpt.numbers.min(NEIGHBOURS_MAX);
        self.hops.resize(numbers, vacant);
        self.entries.resize(numbers, nobody);
        self.free = excerpt.free.into_iter().collect();
        for place in &excerpt.places {
            let Place { id, hop, entry } = place;
            self.hops[id.index()] = hop.clone();
            self.entries[id.index()] = *entry;
            if entry.state != State::Free {
                self.index.insert((entry.interface, entry.address), *id);
            }
        }
    }

    /// From now on a neighbour is known, whether anybody asked for it or not.
    pub fn acquaint(&mut self, now: Instant, learned: &Learned) {
        let Some(interface) = self.interface_id(learned.port, learned.vlan) else {
            return;
        };
        let Ok(id) = self.hop_on(now, interface, learned.address) else {
            return;
        };
        let entry = &mut self.entries[id.index()];
        if entry.state != State::Static {
            entry.state = State::Reachable { since: now };
            self.set_mac(id, learned.mac);
        }
    }

    /// The packets that wait for a neighbour.
    pub fn waiting(&self) -> impl Iterator<Item = &P> {
        self.held.packets()
    }
}

impl Excerpt {
    /// The way of packets to an address that was asked for.
    pub fn way(&self, to: IpAddr) -> Option<Way> {
        let target = self
            .known
            .iter()
            .find(|known| known.address == to)?
            .target?;
        let interface = &self.interfaces[usize::from(target.interface)];
        let next = target.via.unwrap_or(to);
        let place = self.places.iter().find(|place| {
            let Entry {
                interface, address, ..
            } = place.entry;
            (interface, address) == (target.interface, next)
        });
        let neighbour = place.map(|place| {
            let view = NeighbourView {
                port: interface.port,
                vlan: interface.vlan,
                address: next,
                mac: place.hop.mac(),
                state: place.entry.state.name(),
            };
            (view, place.entry.queue.len())
        });
        Some(Way {
            port: interface.port,
            vlan: interface.vlan,
            via: target.via,
            mtu: interface.mtu,
            neighbour,
        })
    }

    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }
}

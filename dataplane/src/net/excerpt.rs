//! What concerns packets between a few addresses: the network, which nobody changes, and of the
//! neighbours a few, copied.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::held::{Pool, Queue};
use super::neigh::{Entry, State};
use super::{Hop, HopId, NEIGHBOURS_MAX, NeighbourView, Net, Network};
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

#[derive(Debug, Clone)]
pub struct Excerpt {
    /// The control side holds it too and lets go of it later than a worker does.
    network: Arc<Network>,
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
    /// The next hops of packets to these addresses, and those of these numbers.
    pub fn excerpt(&self, addresses: &[IpAddr], hops: &[HopId]) -> Excerpt {
        let next = addresses.iter().flat_map(|&address| {
            let targets = self.network.targets(address).into_iter();
            targets.filter_map(move |target| {
                self.known(target.interface, target.via.unwrap_or(address))
            })
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
            network: Arc::clone(&self.network),
            places: ids.into_iter().map(place).collect(),
            numbers: self.entries.len(),
            free: self.free.last().copied(),
            full: self.held.is_full(),
            generation: self.generation,
        }
    }

    /// A net of this and nothing else: neighbours keep their numbers.
    pub fn of(excerpt: &Excerpt) -> Self {
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
            vlan: None,
            address: IpAddr::from([0, 0, 0, 0]),
            source: IpAddr::from([0, 0, 0, 0]),
            state: State::Free,
            queue: Queue::default(),
        };
        let numbers = excerpt.numbers.min(NEIGHBOURS_MAX);
        let mut net = Self {
            network: Arc::clone(&excerpt.network),
            _first: Arc::clone(&excerpt.network),
            hops: vec![vacant; numbers],
            entries: vec![nobody; numbers],
            free: excerpt.free.into_iter().collect(),
            index: HashMap::new(),
            held: if excerpt.full {
                Pool::full()
            } else {
                Pool::new()
            },
            generation: excerpt.generation,
            found: None,
            swept: Instant::default(),
            freed: Instant::default(),
            cursor: 0,
        };
        for Place { id, hop, entry } in &excerpt.places {
            net.hops[id.index()] = hop.clone();
            net.entries[id.index()] = *entry;
            if entry.state != State::Free {
                let key = (hop.port, entry.vlan, entry.address);
                net.index.insert(key, *id);
            }
        }
        net
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

    /// The packets that wait for a neighbour, and where their IP headers begin: what is before them
    /// is written when they leave.
    pub fn waiting(&self) -> impl Iterator<Item = (&P, usize)> {
        self.held.packets()
    }
}

impl Excerpt {
    /// The way of packets to an address that was asked for.
    pub fn way(&self, to: IpAddr) -> Option<Way> {
        let target = self.network.target(to, 0)?;
        let on = (self.network.interfaces).get(usize::from(target.interface))?;
        let next = target.via.unwrap_or(to);
        let (port, vlan, mtu) = (self.network.exit(on, next), on.vlan, on.mtu);
        let place = self.places.iter().find(|place| {
            let key = (place.hop.port, place.entry.vlan, place.entry.address);
            key == (port, vlan, next) && place.entry.state != State::Free
        });
        let neighbour = place.and_then(|place| {
            let view = NeighbourView {
                port,
                vlan,
                address: next,
                mac: place.hop.mac(),
                state: place.entry.state.listed()?,
            };
            Some((view, place.entry.queue.len()))
        });
        Some(Way {
            port,
            vlan,
            via: target.via,
            mtu,
            neighbour,
        })
    }
}

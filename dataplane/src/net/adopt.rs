//! The network changes while packets come: what was learned stays where it is still right.

use std::net::IpAddr;
use std::sync::Arc;

use super::neigh::State;
use super::{HopId, Interface, Net, Network, arp, nd};
use crate::counters::{DropReason, Page};
use crate::packet::{Egress, PacketBuf};
use crate::time::Instant;

impl<P: PacketBuf> Net<P> {
    /// Takes `network` in the place of what is known. Neighbours that can be no more are forgotten,
    /// and what waited for them is dropped; what waited for one that is static now leaves.
    /// With `announces`, the stations around are told of new addresses.
    ///
    /// The old network must be held by somebody else too, who frees it.
    pub fn adopt<E: Egress<Buf = P>>(
        &mut self,
        network: &Arc<Network>,
        announces: bool,
        out: &mut E,
        page: &Page,
    ) {
        let old = std::mem::replace(&mut self.network, Arc::clone(network));
        self.generation = self.generation.wrapping_add(1);
        // Routes alone concern no neighbour.
        if old.interfaces == network.interfaces && old.neighbours == network.neighbours {
            return;
        }
        for id in self.ids() {
            if self.entries[id.index()].state != State::Free && !self.stays(id) {
                self.drop_held(id, DropReason::NoRoute, out, page);
                self.forget(id);
            }
        }
        for (&(interface, address), &mac) in &network.neighbours {
            if let Some(id) = self.place_static(interface, address, mac) {
                self.release(id, out, page);
            }
        }
        if announces {
            self.announce_new(&old, out, page);
        }
    }

    /// Whether a neighbour can still be where it was; if so, what the network says of it is noted.
    fn stays(&mut self, id: HopId) -> bool {
        let (hop, entry) = (&self.hops[id.index()], &mut self.entries[id.index()]);
        let (network, address) = (&self.network, entry.address);
        let Some(interface) = network.interface_id(hop.port, entry.vlan) else {
            return false;
        };
        let on = &network.interfaces[usize::from(interface)];
        entry.interface = interface;
        entry.source = on.source_for(address);
        let is_same = hop.l2[6..12] == on.mac && hop.mtu == on.mtu;
        let was_static = entry.state == State::Static;
        is_same
            && on.is_on_link(address)
            && !network.is_mine(address)
            && (!was_static || network.neighbours.contains_key(&(interface, address)))
    }

    /// Makes a static neighbour of the network, if there is place.
    pub(super) fn place_static(
        &mut self,
        interface: u16,
        address: IpAddr,
        mac: [u8; 6],
    ) -> Option<HopId> {
        let Some(id) = self.known(interface, address) else {
            return self.create(Instant::default(), interface, address);
        };
        self.pin(id, mac);
        Some(id)
    }

    /// Forgets the neighbours that were learned, but for those for whom packets wait.
    pub fn flush(&mut self) {
        for id in self.ids() {
            let state = self.entries[id.index()].state;
            if !matches!(
                state,
                State::Free | State::Static | State::Incomplete { .. }
            ) {
                self.forget(id);
            }
        }
        self.generation = self.generation.wrapping_add(1);
    }

    /// What [`Self::adopt`] looks through: as many neighbours as there have been at once.
    pub fn places(&self) -> usize {
        self.entries.len()
    }

    /// Tells of each address on whose interface it was not. The kernel speaks for its own.
    fn announce_new<E: Egress<Buf = P>>(&self, old: &Network, out: &mut E, page: &Page) {
        let interfaces = self.network.interfaces.iter();
        for on in interfaces.filter(|on| on.kernel.is_none()) {
            let before = old.interface_id(on.port, on.vlan);
            let before = before.map_or(&[][..], |id| &old.interfaces[usize::from(id)].addresses);
            for prefix in &on.addresses {
                if !before.iter().any(|other| other.address == prefix.address) {
                    announce_on(on, prefix.address, out, page);
                }
            }
        }
    }
}

/// Tells the stations of one interface that `address` is here.
pub(super) fn announce_on<E: Egress>(
    interface: &Interface,
    address: IpAddr,
    out: &mut E,
    page: &Page,
) {
    match address {
        IpAddr::V4(address) => arp::ask(interface, address, address, None, out, page),
        IpAddr::V6(address) => nd::announce(interface, address, out, page),
    }
}

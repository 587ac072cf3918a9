//! Where a packet leaves, and to which station: interfaces, routes, neighbours, ARP and neighbour
//! discovery.

mod adopt; // the network changes
mod arp;
mod excerpt; // what concerns a few addresses, copied
mod held;
mod nd;
mod neigh;
mod network;
mod route;
mod sieve; // whether an address may be in a set
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

pub use control::is_station;
pub use excerpt::{Excerpt, Way};
pub use held::{HELD_MAX, HELD_PER_NEIGHBOUR};
pub use neigh::{NEIGHBOURS_MAX, NeighbourView};
pub use network::{
    ADDRESSES_MAX, Connected, INTERFACES_MAX, IPV6_MTU_MIN, Interface, Network, ROUTES_MAX, Route,
    STATIC_NEIGHBOURS_MAX, Setup, StaticNeighbour, wrong_address, wrong_family, wrong_station,
};
pub use route::Prefix;
pub use sieve::Sieve;

pub use crate::wire::nd::is_group_of_ours;

use control::is_link_local;

use crate::counters::{DropReason, Page};
use crate::packet::{Egress, Origin, PacketBuf, PortId};
use crate::time::Instant;
use crate::wire::ethernet::{self, FRAME_MIN};
use held::{Pool, Waiting};
use neigh::{Entry, State};
use route::Target;

/// A next hop. Right for as long as [`Net::generation`] stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HopId(pub u16);

impl HopId {
    fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What the fast path reads of a next hop: half a cache line.
#[derive(Debug, Clone)]
#[repr(C, align(32))]
pub struct Hop {
    /// The Ethernet header of a packet to it, of its own family.
    pub l2: [u8; ethernet::HEADER_MAX],
    /// 14 or 18.
    pub l2_len: u8,
    /// The Ethernet address is known: packets may be addressed.
    pub ready: bool,
    /// Whoever sends a packet there sets it, so that the address is kept fresh.
    pub used: bool,
    pub port: PortId,
    /// The longest IP packet.
    pub mtu: u16,
}

impl Hop {
    /// Its Ethernet address, if that is known.
    fn mac(&self) -> Option<[u8; 6]> {
        self.l2.first_chunk().copied().filter(|_| self.ready)
    }

    /// Sends a frame on its way whose Ethernet header is as long as the hop's; says from which port.
    #[inline(always)]
    pub fn depart(&mut self, frame: &mut [u8]) -> PortId {
        self.used = true;
        if self.l2_len == 14 {
            let Some(header) = frame.first_chunk_mut::<14>() else {
                unreachable!("as long as the hop's");
            };
            // Two words that overlap.
            for part in [0..8, 6..14] {
                header[part.clone()].copy_from_slice(&self.l2[part]);
            }
        } else {
            frame[..ethernet::HEADER_MAX].copy_from_slice(&self.l2);
        }
        self.port
    }

    /// Writes the Ethernet header in front of the IP header that begins at `l3`, growing or
    /// shrinking the frame where tags differ; `false` when there is no headroom.
    #[inline]
    #[must_use]
    pub fn address<P: PacketBuf>(&self, packet: &mut P, l3: usize) -> bool {
        replace_header(packet, l3, &self.l2, self.l2_len)
    }
}

/// Puts the first `len` bytes of `header`, 14 or 18, in the place of the first `l3` of `packet`.
#[inline]
fn replace_header<P: PacketBuf>(
    packet: &mut P,
    l3: usize,
    header: &[u8; ethernet::HEADER_MAX],
    len: u8,
) -> bool {
    if len == 14 {
        replace::<P, 14>(packet, l3, header)
    } else {
        replace::<P, { ethernet::HEADER_MAX }>(packet, l3, header)
    }
}

#[inline]
fn replace<P: PacketBuf, const LEN: usize>(
    packet: &mut P,
    l3: usize,
    header: &[u8; ethernet::HEADER_MAX],
) -> bool {
    if l3 < LEN {
        if !packet.prepend(LEN - l3) {
            return false;
        }
    } else if l3 > LEN {
        packet.trim_front(l3 - LEN);
    }
    packet.bytes_mut()[..LEN].copy_from_slice(&header[..LEN]);
    true
}

/// One worker's interfaces, routes and neighbours, and the packets that wait for one.
#[derive(Debug)]
pub struct Net<P> {
    network: Arc<Network>,
    /// The one that it began with: nobody else has it, so that it is not freed before the end.
    _first: Arc<Network>,
    /// By [`HopId`], like `entries`.
    hops: Vec<Hop>,
    entries: Vec<Entry>,
    free: Vec<HopId>,
    /// By port, VLAN and address, whatever number the interface has.
    index: HashMap<(PortId, Option<u16>, IpAddr), HopId>,
    held: Pool<P>,
    generation: u16,
    /// What was found last, under which generation: most packets leave for one of few gateways.
    found: Option<(u16, u16, IpAddr, HopId)>,
    /// When [`Net::tick`] last did something, freed something, and where it goes on.
    swept: Instant,
    freed: Instant,
    cursor: usize,
}

impl<P: PacketBuf> Net<P> {
    pub fn new(setup: Setup) -> Self {
        let network = Network::new(setup.interfaces, setup.routes, setup.neighbours);
        let network = Arc::new(network);
        let mut net = Self {
            network: Arc::clone(&network),
            _first: Arc::clone(&network),
            hops: Vec::with_capacity(NEIGHBOURS_MAX),
            entries: Vec::with_capacity(NEIGHBOURS_MAX),
            free: Vec::with_capacity(NEIGHBOURS_MAX),
            index: HashMap::with_capacity(NEIGHBOURS_MAX),
            held: Pool::new(),
            generation: 0,
            found: None,
            swept: Instant::default(),
            freed: Instant::default(),
            cursor: 0,
        };
        for (&(interface, address), &mac) in &network.neighbours {
            net.place_static(interface, address, mac);
        }
        net
    }

    fn interface_id(&self, port: PortId, vlan: Option<u16>) -> Option<u16> {
        self.network.interface_id(port, vlan)
    }

    #[inline]
    pub fn interface(&self, port: PortId, vlan: Option<u16>) -> Option<&Interface> {
        self.interface_id(port, vlan).map(|id| self.on(id))
    }

    /// All of them.
    pub fn interfaces(&self) -> &[Interface] {
        self.network.interfaces()
    }

    fn on(&self, interface: u16) -> &Interface {
        &self.network.interfaces[usize::from(interface)]
    }

    /// The neighbour with this address on that interface.
    fn known(&self, interface: u16, address: IpAddr) -> Option<HopId> {
        let on = self.on(interface);
        self.index.get(&(on.port, on.vlan, address)).copied()
    }

    /// Where what goes to `to` leaves, and the station that it is sent to.
    pub fn way(&self, to: IpAddr) -> Option<(&Interface, IpAddr)> {
        self.network.way(to)
    }

    /// Whether an interface has this address.
    pub fn is_mine(&self, address: IpAddr) -> bool {
        self.network.is_mine(address)
    }

    /// Whether no other station has this address: an interface has it, or it is for all of a subnet.
    #[inline]
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.network.is_taken(address)
    }

    /// Whether it is the limited broadcast address or that of a subnet of ours.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        self.network.is_broadcast(address)
    }

    /// Our address on that hop's interface, of the hop's family and preferably in its subnet;
    /// unspecified where the interface has none.
    pub fn source_for(&self, hop: HopId) -> IpAddr {
        self.entries[hop.index()].source
    }

    /// As [`Self::source_for`], of this family whatever the hop's: for errors about what a packet
    /// of the other family carries.
    pub fn source_for_family(&self, hop: HopId, v6: bool) -> Option<IpAddr> {
        let entry = &self.entries[hop.index()];
        if entry.source.is_ipv6() == v6 {
            return Some(entry.source).filter(|source| !source.is_unspecified());
        }
        let interface = self.on(entry.interface);
        let mut addresses = interface.addresses.iter().map(|p| p.address);
        addresses.find(|address| address.is_ipv6() == v6)
    }

    /// The next hop of packets to `to`; made when new, and then not ready yet.
    pub fn hop_to(&mut self, now: Instant, to: IpAddr) -> Result<HopId, DropReason> {
        let target = self.target(to)?;
        self.hop_on(now, target.interface, target.via.unwrap_or(to))
    }

    /// As [`Self::hop_to`], for an answer to what came in on this interface: a link-local address
    /// only means something there.
    pub fn hop_back(
        &mut self,
        now: Instant,
        port: PortId,
        vlan: Option<u16>,
        to: IpAddr,
    ) -> Result<HopId, DropReason> {
        if !is_link_local(to) {
            return self.hop_to(now, to);
        }
        match self.interface_id(port, vlan) {
            Some(interface) if !self.is_mine(to) => self.hop_on(now, interface, to),
            _ => Err(DropReason::NoRoute),
        }
    }

    /// As [`Self::hop_to`], to the station `to` itself: behind a gateway it cannot be addressed.
    pub fn hop_on_link(&mut self, now: Instant, to: IpAddr) -> Result<HopId, DropReason> {
        let target = self.target(to)?;
        if target.via.is_some() {
            return Err(DropReason::NotOnLink);
        }
        self.hop_on(now, target.interface, to)
    }

    fn target(&self, to: IpAddr) -> Result<Target, DropReason> {
        self.network.target(to).ok_or(DropReason::NoRoute)
    }

    fn hop_on(
        &mut self,
        now: Instant,
        interface: u16,
        address: IpAddr,
    ) -> Result<HopId, DropReason> {
        if let Some((generation, on, last, id)) = self.found
            && (generation, on, last) == (self.generation, interface, address)
        {
            return Ok(id);
        }
        let id = match self.known(interface, address) {
            Some(id) => id,
            None => self
                .create(now, interface, address)
                .ok_or(DropReason::NeighbourFailed)?,
        };
        self.found = Some((self.generation, interface, address, id));
        Ok(id)
    }

    #[inline]
    pub fn hop(&self, id: HopId) -> &Hop {
        &self.hops[id.index()]
    }

    /// `None` for [`crate::conn::NO_HOP`].
    #[inline(always)]
    pub fn hop_if_known(&mut self, id: HopId) -> Option<&mut Hop> {
        self.hops.get_mut(id.index())
    }

    #[inline]
    pub fn hop_mut(&mut self, id: HopId) -> &mut Hop {
        &mut self.hops[id.index()]
    }

    /// Changes when a [`HopId`] may have come to mean another hop, and with the network; otherwise at
    /// most once a second.
    #[inline]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Keeps a packet whose IP header, already rewritten, begins at `l3` until the neighbour
    /// answers; sends it at once if the hop is ready.
    #[expect(
        clippy::too_many_arguments,
        reason = "the packet's three facts and the two outlets"
    )]
    pub fn hold<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        id: HopId,
        packet: P,
        l3: usize,
        origin: Origin,
        out: &mut E,
        page: &Page,
    ) {
        let waiting = Waiting { packet, l3, origin };
        let (hop, entry) = (&mut self.hops[id.index()], &mut self.entries[id.index()]);
        hop.used = true;
        if hop.ready {
            deliver(hop, waiting, out);
            return;
        }
        if !entry.may_wait(now) {
            let watch = out.watch();
            watch.discard(origin.port, DropReason::NeighbourFailed, waiting.packet);
            return;
        }
        match self.held.push(&mut entry.queue, waiting) {
            Ok(waiting) => out.watch().held(origin.port, &waiting.packet),
            Err(Waiting { packet, .. }) => {
                (out.watch()).discard(origin.port, DropReason::HeldFull, packet);
            }
        }
        if matches!(entry.state, State::Incomplete { tries: 0, .. }) {
            self.ask(now, id, out, page);
        }
    }

    /// Drops what is held, because the director stops.
    pub fn stop<E: Egress<Buf = P>>(&mut self, out: &mut E, page: &Page) {
        for id in self.ids() {
            self.drop_held(id, DropReason::Stopped, out, page);
        }
    }

    /// Sends what waited for a hop that is ready now.
    fn release<E: Egress<Buf = P>>(&mut self, id: HopId, out: &mut E, page: &Page) {
        let (hop, entry) = (&mut self.hops[id.index()], &mut self.entries[id.index()]);
        while let Some(waiting) = self.held.pop(&mut entry.queue) {
            page.held.down();
            hop.used = true;
            deliver(hop, waiting, out);
        }
    }

    fn drop_held<E: Egress<Buf = P>>(
        &mut self,
        id: HopId,
        reason: DropReason,
        out: &mut E,
        page: &Page,
    ) {
        let entry = &mut self.entries[id.index()];
        while let Some(waiting) = self.held.pop(&mut entry.queue) {
            page.held.down();
            let watch = out.watch();
            watch.discard(waiting.origin.port, reason, waiting.packet);
        }
    }
}

/// Addresses one packet and sends it.
fn deliver<E: Egress>(hop: &Hop, mut waiting: Waiting<E::Buf>, out: &mut E) {
    if hop.address(&mut waiting.packet, waiting.l3) {
        out.send(hop.port, waiting.packet, waiting.origin);
    } else {
        let watch = out.watch();
        watch.discard(waiting.origin.port, DropReason::NoHeadroom, waiting.packet);
    }
}

/// Makes a frame for `message` and sends it; when buffers ran out, nothing: who asks or announces
/// repeats itself, or is asked.
fn make<E: Egress>(
    interface: &Interface,
    to: [u8; 6],
    ethertype: u16,
    message: &[u8],
    out: &mut E,
    page: &Page,
) {
    let (l2, len) = ethernet::header(to, interface.mac, interface.vlan, ethertype);
    let l3 = usize::from(len);
    let Some(mut packet) = out.make(FRAME_MIN.max(l3 + message.len())) else {
        return;
    };
    let port = interface.port;
    page.port(port).made.add(1);
    let frame = packet.bytes_mut();
    frame[..l3].copy_from_slice(&l2[..l3]);
    frame[l3..l3 + message.len()].copy_from_slice(message);
    out.send(port, packet, Origin::answer(port));
}

/// Whether it is a station's and means the same on every link: not link-local in IPv6 (in IPv4
/// 169.254.0.0/16 is routed like others, as LVS does).
#[inline]
pub fn is_global(address: IpAddr) -> bool {
    is_station(address) && !is_link_local(address)
}

/// Neither all zero nor a group address.
fn is_unicast(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

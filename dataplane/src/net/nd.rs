//! Neighbour discovery: answers, learns, asks, announces (RFC 4861).

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::IntoBytes;

use super::neigh::{Heard, NEIGHBOURS_MAX};
use super::{Interface, Left, Net, is_global, is_station, is_unicast, make, replace_header};
use crate::counters::{DropReason, Page};
use crate::packet::{Egress, Learned, Origin, PacketBuf, PortId};
use crate::time::Instant;
use crate::wire::ethernet;
use crate::wire::nd::{self, Message, Packet};

/// Neighbours are made for who only asks for us while there are fewer: a subnet has more addresses
/// than any table, and the rest is for whom we need (RFC 6583).
const UNASKED_MAX: usize = NEIGHBOURS_MAX / 2;

impl<P: PacketBuf> Net<P> {
    /// Takes a message of ICMPv6 type 133 to 137 whose IPv6 header begins at `l3` and ICMPv6 header
    /// at `l4`; the IPv6 payload lies in the frame. Answers for our addresses and VIPs on whatever
    /// interface asks, learns who asked or answered, and sends what waited for them. What was not answered
    /// is returned.
    ///
    /// The caller drops fragments: in a fragment no such message is valid (RFC 6980), and the
    /// message alone does not show that it came in one.
    #[expect(
        clippy::too_many_arguments,
        reason = "where it came from, what it is, two outlets"
    )]
    pub fn receive_nd<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        port: PortId,
        vlan: Option<u16>,
        packet: P,
        l3: usize,
        l4: usize,
        is_vip: impl Fn(IpAddr) -> bool,
        out: &mut E,
        page: &Page,
    ) -> Option<Left<P>> {
        let checked = match self.interface_id(port, vlan) {
            None => Err(DropReason::UnknownVlan),
            Some(id) => self
                .check_nd(packet.bytes(), l3, l4, &is_vip)
                .map(|message| (id, message))
                .ok_or(DropReason::BadNd),
        };
        let (interface, message) = match checked {
            Ok(checked) => checked,
            Err(reason) => return Some((packet, Err(reason))),
        };
        match message {
            Message::Solicitation {
                source,
                target,
                mac,
            } if self.speaks_for(interface, target, &is_vip) => {
                if let Some(mac) = mac {
                    self.meet(now, interface, source, mac, out, page);
                }
                let on = self.on(interface);
                if on.kernel.is_none() || self.tells(on, target.into(), is_vip) {
                    let message = Packet::answer(on.mac, target, source);
                    answer(on, port, source, mac, &message, packet, l3, out);
                    return None;
                }
            }
            Message::Advertisement {
                target,
                mac,
                solicited,
                overrides,
                ..
            } => {
                let heard = Heard {
                    mac,
                    solicited,
                    overrides,
                };
                self.heed(now, interface, target, &heard, out, page);
            }
            Message::Solicitation { .. } | Message::Router => {}
        }
        Some((packet, Ok(())))
    }

    /// Answers the kernel behind `side`, a port's, that asks for a VIP of ours. What was not answered is
    /// returned.
    #[expect(
        clippy::too_many_arguments,
        reason = "where it came from, what it is, and the outlet"
    )]
    pub fn receive_kernels_nd<E: Egress<Buf = P>>(
        &self,
        side: PortId,
        vlan: Option<u16>,
        packet: P,
        l3: usize,
        l4: usize,
        is_vip: impl Fn(IpAddr) -> bool,
        out: &mut E,
    ) -> Option<P> {
        let headers = l4.checked_sub(l3).zip(packet.bytes().get(l3..));
        let message = headers.and_then(|(headers, ip)| Message::parse(ip, headers));
        match self.interface(side, vlan).zip(message) {
            Some((
                on,
                Message::Solicitation {
                    source,
                    target,
                    mac,
                },
            )) if self.tells(on, target.into(), is_vip) => {
                let message = Packet::answer(on.mac, target, source);
                answer(on, side, source, mac, &message, packet, l3, out);
                None
            }
            _ => Some(packet),
        }
    }

    /// The message, if it is one that may be believed: its sender and what it claims is not ours,
    /// and is a station's.
    fn check_nd(
        &self,
        frame: &[u8],
        l3: usize,
        l4: usize,
        is_vip: impl Fn(IpAddr) -> bool,
    ) -> Option<Message> {
        let message = Message::parse(frame.get(l3..)?, l4.checked_sub(l3)?)?;
        let is_others = |address: Ipv6Addr| {
            let address = IpAddr::V6(address);
            is_station(address) && !self.is_mine(address) && !is_vip(address)
        };
        let may_send = match message {
            // Who answers without knowing the asker's address takes it from the frame.
            Message::Solicitation { source, mac, .. } => {
                (source.is_unspecified() || is_others(source))
                    && is_unicast(mac.or_else(|| sender(frame))?)
            }
            Message::Advertisement {
                source,
                target,
                mac,
                ..
            } => is_others(source) && is_others(target) && mac.is_none_or(is_unicast),
            Message::Router => true,
        };
        may_send.then_some(message)
    }

    /// Whether somebody who asks on `interface` is told that `target` is here. A link-local address
    /// is only known on its own link.
    fn speaks_for(
        &self,
        interface: u16,
        target: Ipv6Addr,
        is_vip: impl Fn(IpAddr) -> bool,
    ) -> bool {
        let address = IpAddr::V6(target);
        if is_global(address) {
            self.is_mine(address) || is_vip(address)
        } else {
            self.on(interface).link_local() == target
        }
    }

    /// `address`, at `mac`, asked for us, so it will send us something: it is known from now on. But
    /// only traffic will show whether it hears us (RFC 4861 §7.2.3).
    fn meet<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        interface: u16,
        address: Ipv6Addr,
        mac: [u8; 6],
        out: &mut E,
        page: &Page,
    ) {
        let mut known = self.known(interface, address.into());
        if known.is_none()
            && self.on(interface).is_on_link(address.into())
            && self.index.len() < UNASKED_MAX
        {
            known = self.create(now, interface, address.into());
        }
        let heard = Heard {
            mac: Some(mac),
            solicited: false,
            overrides: true,
        };
        if known.is_some_and(|id| self.confirm(now, id, &heard, out, page)) {
            self.tell(interface, address, &heard, out);
        }
    }

    /// Updates a known neighbour that says where it is (RFC 4861 §7.2.5).
    fn heed<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        interface: u16,
        address: Ipv6Addr,
        heard: &Heard,
        out: &mut E,
        page: &Page,
    ) {
        let known = self.known(interface, address.into());
        let news = match known {
            Some(id) => self.confirm(now, id, heard, out, page),
            // Another worker may know it.
            None => true,
        };
        // Another worker may have asked, and the answer came here.
        if news || heard.solicited {
            self.tell(interface, address, heard, out);
        }
    }

    /// Tells the other workers, unless the message did not say the Ethernet address.
    fn tell<E: Egress>(&self, interface: u16, address: Ipv6Addr, heard: &Heard, out: &mut E) {
        let on = self.on(interface);
        if let Some(mac) = heard.mac {
            out.share(Learned {
                port: on.port,
                vlan: on.vlan,
                address: address.into(),
                mac,
                solicited: heard.solicited,
                overrides: heard.overrides,
            });
        }
    }
}

/// Asks where `target` is: the station at `known`, or whoever it is.
pub(super) fn ask<E: Egress>(
    interface: &Interface,
    source: Ipv6Addr,
    target: Ipv6Addr,
    known: Option<[u8; 6]>,
    out: &mut E,
    page: &Page,
) {
    let group = nd::solicited_node(target);
    let (to, station) = match known {
        Some(mac) => (target, mac),
        None => (group, nd::group_mac(group)),
    };
    let packet = Packet::solicitation(interface.mac, source, target, to);
    make(
        interface,
        station,
        ethernet::IPV6,
        packet.as_bytes(),
        out,
        page,
    );
}

/// Tells everybody that `address` is here.
pub(super) fn announce<E: Egress>(
    interface: &Interface,
    address: Ipv6Addr,
    out: &mut E,
    page: &Page,
) {
    let station = nd::group_mac(nd::ALL_NODES);
    let packet = Packet::announcement(interface.mac, address);
    make(
        interface,
        station,
        ethernet::IPV6,
        packet.as_bytes(),
        out,
        page,
    );
}

/// Turns a solicitation's frame into `message` to who sent it, by the port that it came in on.
#[expect(
    clippy::too_many_arguments,
    reason = "who asks whom, the frame and its outlet"
)]
fn answer<E: Egress>(
    interface: &Interface,
    port: PortId,
    asker: Ipv6Addr,
    mac: Option<[u8; 6]>,
    message: &Packet,
    mut packet: E::Buf,
    l3: usize,
    out: &mut E,
) {
    let station = if asker.is_unspecified() {
        Some(nd::group_mac(nd::ALL_NODES))
    } else {
        mac.or_else(|| sender(packet.bytes()))
    };
    let header = ethernet::header(
        station.unwrap_or_default(),
        interface.mac,
        interface.vlan,
        ethernet::IPV6,
    );
    let l2_len = usize::from(header.1);
    if !replace_header(&mut packet, l3, &header.0, header.1) || !packet.resize(l2_len + nd::LEN) {
        return out.watch().discard(port, DropReason::NoHeadroom, packet);
    }
    packet.bytes_mut()[l2_len..].copy_from_slice(message.as_bytes());
    out.send(port, packet, Origin::answer(port));
}

/// The Ethernet address that a frame came from.
fn sender(frame: &[u8]) -> Option<[u8; 6]> {
    frame.get(6..)?.first_chunk().copied()
}

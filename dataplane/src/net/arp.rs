//! ARP: answers, learns, asks, announces (RFC 826, RFC 5227).

use std::net::{IpAddr, Ipv4Addr};

use zerocopy::IntoBytes;

use super::adopt::announce_on;
use super::neigh::Heard;
use super::{Interface, Left, Net, is_station, is_unicast, make, replace_header};
use crate::counters::{DropReason, Page};
use crate::packet::{Egress, Learned, Origin, PacketBuf, PortId};
use crate::time::Instant;
use crate::wire::arp::{self, Arp};
use crate::wire::ethernet::{self, FRAME_MIN};

impl<P: PacketBuf> Net<P> {
    /// Takes an ARP frame whose message begins at `l3`: answers for our addresses and VIPs
    /// on whatever interface asks, learns who sent it, and sends what waited for the sender. What was
    /// not answered is returned.
    #[expect(
        clippy::too_many_arguments,
        reason = "where it came from, what it is, two outlets"
    )]
    pub fn receive_arp<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        port: PortId,
        vlan: Option<u16>,
        packet: P,
        l3: usize,
        is_vip: impl Fn(IpAddr) -> bool,
        out: &mut E,
        page: &Page,
    ) -> Option<Left<P>> {
        let checked = match self.interface_id(port, vlan) {
            None => Err(DropReason::UnknownVlan),
            Some(id) => self.check(packet.bytes(), l3, &is_vip).map(|arp| (id, arp)),
        };
        let (interface, arp) = match checked {
            Ok(checked) => checked,
            Err(reason) => return Some((packet, Err(reason))),
        };
        let target = IpAddr::from(arp.target);
        let to_us = self.is_mine(target) || is_vip(target);
        self.learn(now, interface, &arp, to_us, out, page);
        let on = self.on(interface);
        if arp.operation.get() == arp::REQUEST && self.tells(on, target, is_vip) {
            answer(on, port, &arp, packet, l3, out);
            return None;
        }
        Some((packet, Ok(())))
    }

    /// Answers the kernel behind `side`, a port's, that asks for a VIP of ours. What was not answered is
    /// returned.
    pub fn receive_kernels_arp<E: Egress<Buf = P>>(
        &self,
        side: PortId,
        vlan: Option<u16>,
        packet: P,
        l3: usize,
        is_vip: impl Fn(IpAddr) -> bool,
        out: &mut E,
    ) -> Option<P> {
        let arp = packet.bytes().get(l3..).and_then(Arp::parse);
        match self.interface(side, vlan).zip(arp) {
            // Who announces an address asks for it too.
            Some((on, arp))
                if arp.is_ethernet_ipv4()
                    && arp.operation.get() == arp::REQUEST
                    && arp.sender != arp.target
                    && self.tells(on, arp.target.into(), is_vip) =>
            {
                answer(on, side, &arp, packet, l3, out);
                None
            }
            _ => Some(packet),
        }
    }

    /// The message, if it is one that may be believed.
    fn check(
        &self,
        frame: &[u8],
        l3: usize,
        is_vip: impl Fn(IpAddr) -> bool,
    ) -> Result<Arp, DropReason> {
        let arp = frame
            .get(l3..)
            .and_then(Arp::parse)
            .ok_or(DropReason::Truncated)?;
        let sender = IpAddr::from(arp.sender);
        let operation = arp.operation.get();
        // An address probe (RFC 5227) asks on behalf of nobody yet.
        let is_probe = operation == arp::REQUEST && sender.is_unspecified();
        let may_send = is_probe
            || is_station(sender)
                && !self.is_broadcast(sender)
                && !self.is_mine(sender)
                && !is_vip(sender);
        let is_valid = arp.is_ethernet_ipv4()
            && matches!(operation, arp::REQUEST | arp::REPLY)
            && is_unicast(arp.sender_mac)
            && may_send;
        if is_valid {
            Ok(arp)
        } else {
            Err(DropReason::BadArp)
        }
    }

    /// Updates a known sender; a new one is kept only if it spoke to us (RFC 826).
    fn learn<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        interface: u16,
        arp: &Arp,
        to_us: bool,
        out: &mut E,
        page: &Page,
    ) {
        let address = IpAddr::from(arp.sender);
        if address.is_unspecified() {
            return;
        }
        let mut known = self.known(interface, address);
        let on = self.on(interface);
        let (port, vlan) = (on.port, on.vlan);
        if known.is_none() && to_us && on.is_on_link(address) {
            known = self.create(now, interface, address);
        }
        let news = match known {
            Some(id) => self.confirm(now, id, &Heard::arp(arp.sender_mac), out, page),
            // Another worker may know the sender and needs to hear that it moved.
            None => arp.sender == arp.target,
        };
        // Another worker may have asked, and the answer came here.
        let answered = to_us && arp.operation.get() == arp::REPLY;
        if news || answered {
            out.share(Learned {
                port,
                vlan,
                address,
                mac: arp.sender_mac,
                solicited: true,
                overrides: true,
            });
        }
    }

    /// Takes up what another worker learned; a neighbour that nobody asked for here stays unknown.
    pub fn learned<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        learned: &Learned,
        out: &mut E,
        page: &Page,
    ) {
        let interface = self.interface_id(learned.port, learned.vlan);
        let known = interface.and_then(|id| self.known(id, learned.address));
        if let Some(id) = known {
            let heard = Heard {
                mac: Some(learned.mac),
                solicited: learned.solicited,
                overrides: learned.overrides,
            };
            self.confirm(now, id, &heard, out, page);
        }
    }

    /// Tells the stations around that `address` is here (gratuitous ARP, RFC 5227 §3, or an
    /// unsolicited advertisement): on the interfaces whose subnet holds it, or else on all.
    pub fn announce<E: Egress<Buf = P>>(&self, address: IpAddr, out: &mut E, page: &Page) {
        let holds = |i: &Interface| i.addresses.iter().any(|p| p.contains(address));
        let everywhere = !self.network.interfaces.iter().any(holds);
        let interfaces = self.network.interfaces.iter();
        let speaking = interfaces.filter(|i| i.tells_vips() && (everywhere || holds(i)));
        for interface in speaking {
            announce_on(interface, address, out, page);
        }
    }
}

/// Asks where `target` is: the station at `known`, or everybody.
pub(super) fn ask<E: Egress>(
    interface: &Interface,
    source: Ipv4Addr,
    target: Ipv4Addr,
    known: Option<[u8; 6]>,
    out: &mut E,
    page: &Page,
) {
    let request = Arp::request(interface.mac, source, target);
    let station = known.unwrap_or(ethernet::BROADCAST);
    make(
        interface,
        station,
        ethernet::ARP,
        request.as_bytes(),
        out,
        page,
    );
}

/// Turns a request's frame into its answer, by the port that it came in on.
fn answer<E: Egress>(
    interface: &Interface,
    port: PortId,
    request: &Arp,
    mut packet: E::Buf,
    l3: usize,
    out: &mut E,
) {
    let (l2, len) = ethernet::header(
        request.sender_mac,
        interface.mac,
        interface.vlan,
        ethernet::ARP,
    );
    if !replace_header(&mut packet, l3, &l2, len) || !packet.resize(FRAME_MIN) {
        return out.watch().discard(port, DropReason::NoHeadroom, packet);
    }
    let (message, padding) = packet.bytes_mut()[usize::from(len)..].split_at_mut(arp::LEN);
    message.copy_from_slice(request.answer(interface.mac).as_bytes());
    padding.fill(0);
    out.send(port, packet, Origin::answer(port));
}

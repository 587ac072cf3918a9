//! What is not the director's is the kernel's, where that has a side of the port; and what the kernel
//! sends leaves as it is, unless it is for the director.

use std::net::IpAddr;

use super::Director;
use super::decide::{Denied, sequence_number};
use super::persist::Choice;
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::net::Left;
use crate::packet::{Egress, Origin, PacketBuf, PortId};
use crate::templates::Key;
use crate::time::Instant;
use crate::wire::flow::{Kind, Seen, Tuple};

/// Packets that the kernel is given, per worker and second: as many as cost a few hundredths of it.
const PUNTS_PER_SECOND: u32 = 20_000;
/// At once.
const PUNTS_BURST: u32 = 512;
/// Of these as many are kept from transport packets, so that no flood of them keeps the kernel from
/// hearing its neighbours and routers.
const PUNTS_RESERVED: u32 = PUNTS_BURST / 4;

/// How many packets the kernel is given.
#[derive(Debug)]
pub(super) struct Punts(crate::icmp::RateLimit);

impl Default for Punts {
    fn default() -> Self {
        Self(crate::icmp::RateLimit::new(PUNTS_PER_SECOND, PUNTS_BURST))
    }
}

impl<P: PacketBuf> Director<P> {
    /// Whether a packet from there to this address is the kernel's, if no service or connection has it.
    pub(super) fn is_kernels(&self, from: PortId, to: IpAddr) -> bool {
        self.kernels[from.index()].is_some() && self.net.is_kernels(to)
    }

    /// Whether a packet from there may have this source because the kernel sent it.
    pub(super) fn is_host(&self, from: PortId, source: IpAddr) -> bool {
        self.net.front(from).is_some() && self.net.is_kernels(source)
    }

    /// Opens the connection of a health check's probe, that the kernel sends: at the server which that
    /// is about, by its method and whatever its weight.
    #[cold]
    pub(super) fn probed(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        tuple: &Tuple,
        frame: &[u8],
    ) -> Option<Result<Hit, Denied>> {
        if !self.is_host(from, tuple.from.ip()) || !self.may_open(seen) {
            return None;
        }
        let key = Key::probe(tuple.protocol, tuple.from.port(), tuple.to);
        let laid = self.templates.take(&key, now)?;
        let id = self.templates.tie(&laid).server;
        self.templates.release(laid);
        let Some(mut server) = self.services.server(id).copied() else {
            return Some(Err(DropReason::ServerGone.into()));
        };
        let service = server.service;
        let denied = |reason| Denied(reason, Some(service));
        if !server.available {
            return Some(Err(denied(DropReason::ServerGone)));
        }
        if server.address.port() == 0 {
            server.address.set_port(tuple.to.port());
        }
        let choice = Choice {
            id,
            server,
            template: None,
        };
        let isn = sequence_number(seen, frame);
        let opened = self.open(now, tuple, service, choice, isn);
        Some(opened.map_err(denied))
    }

    /// Ends a packet that is not the director's.
    #[cold]
    #[inline(never)]
    pub(super) fn unwanted<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        reason: DropReason,
        packet: P,
        out: &mut E,
    ) {
        use DropReason::{BadArp, BadNd, NotForUs, NotOurs, UnknownEthertype, UnknownVlan};
        let is_meant = self.stations[from.index()].is_meant(packet.bytes());
        if let Some(front) = self.net.front(from).filter(|_| !is_meant) {
            return out.send(front, packet, Origin::forwarded(from));
        }
        match reason {
            BadArp | BadNd | NotForUs | NotOurs | UnknownEthertype | UnknownVlan => {
                self.punt(now, from, reason, packet, out);
            }
            _ => out.watch().discard(from, reason, packet),
        }
    }

    /// Gives a packet to the kernel's side of its port, or drops it for `reason` where there is none.
    pub(super) fn punt<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        reason: DropReason,
        packet: P,
        out: &mut E,
    ) {
        let frame = packet.bytes();
        let is_group = frame.first().is_some_and(|first| first & 1 == 1);
        let is_meant = is_group || self.stations[from.index()].is_meant(frame);
        let Some(side) = self.kernels[from.index()].filter(|_| is_meant) else {
            return out.watch().discard(from, reason, packet);
        };
        let seen = Seen::parse(frame)
            .ok()
            .filter(|seen| seen.kind != Kind::Arp);
        let to = seen.map(|seen| seen.tuple(frame).to.ip());
        if to.is_some_and(|to| self.owns(to) && !self.net.is_kernels(to)) {
            return out.watch().discard(from, reason, packet);
        }
        let is_transport = seen.is_some_and(|seen| seen.kind == Kind::Transport);
        let reserved = if is_transport && !is_group {
            PUNTS_RESERVED
        } else {
            0
        };
        if self.punts.0.allow_beside(reserved, now) {
            out.send(side, packet, Origin::punted(from));
        } else {
            out.watch().discard(from, DropReason::PuntLimit, packet);
        }
    }

    /// Takes an ARP frame.
    pub(super) fn hear_arp<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: P,
        out: &mut E,
    ) {
        let services = &self.services;
        let (vlan, l3) = (seen.vlan(), usize::from(seen.l3));
        let is_vip = |address| services.owns(address);
        let left = if self.net.front(from).is_some() {
            let net = &self.net;
            let left = net.receive_kernels_arp(from, vlan, packet, l3, is_vip, out);
            left.map(|packet| (packet, Err(DropReason::BadArp)))
        } else {
            let (net, page) = (&mut self.net, &self.page);
            net.receive_arp(now, from, vlan, packet, l3, is_vip, out, page)
        };
        self.settle_heard(now, from, left, out);
    }

    /// Takes a message of neighbour discovery.
    pub(super) fn hear_nd<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: P,
        out: &mut E,
    ) {
        let services = &self.services;
        let (vlan, l3, l4) = (seen.vlan(), usize::from(seen.l3), usize::from(seen.l4));
        let is_vip = |address| services.owns(address);
        let left = if self.net.front(from).is_some() {
            let net = &self.net;
            let left = net.receive_kernels_nd(from, vlan, packet, l3, l4, is_vip, out);
            left.map(|packet| (packet, Err(DropReason::BadNd)))
        } else {
            let (net, page) = (&mut self.net, &self.page);
            net.receive_nd(now, from, vlan, packet, l3, l4, is_vip, out, page)
        };
        self.settle_heard(now, from, left, out);
    }

    /// Ends a message between neighbours: the kernel hears too what the director took in.
    fn settle_heard<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        left: Option<Left<P>>,
        out: &mut E,
    ) {
        match left {
            None => {}
            Some((packet, Ok(()))) if self.kernels[from.index()].is_none() => {
                out.watch().consumed(from, &packet);
            }
            Some((packet, Ok(()))) => self.punt(now, from, DropReason::NotForUs, packet, out),
            Some((packet, Err(reason))) => self.unwanted(now, from, reason, packet, out),
        }
    }
}

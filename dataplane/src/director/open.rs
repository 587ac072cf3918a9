//! Connections open and close.

use std::net::SocketAddr;

use control::ForwardMode;

use super::Director;
use super::persist::Choice;
use crate::conn::{Hit, State};
use crate::counters::DropReason;
use crate::fullnat::lease::Lease;
use crate::packet::PacketBuf;
use crate::service::{Picked, Server};
use crate::time::Instant;
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::Tuple;

impl<P: PacketBuf> Director<P> {
    /// Opens a connection that was scheduled.
    pub(super) fn open(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        service: ServiceId,
        choice: Choice,
        isn: u32,
    ) -> Result<Hit, DropReason> {
        if self.services.is_one_packet(service, inbound) {
            return self.open_alone(now, inbound, choice);
        }
        let Choice { id, server, .. } = choice;
        let opened = self.open_unscheduled(now, inbound, service, id, server, isn);
        let conns = &self.page.servers[id.index()].conns;
        conns.add(u64::from(opened.is_ok()));
        match (choice.template, opened) {
            (Some(template), Ok(hit)) => self.conns.control(hit.entry(), Some(template)),
            (Some(template), Err(_)) => self.templates.release(template),
            (None, _) => {}
        }
        opened
    }

    /// Opens a connection, at the cost of the oldest half-open one when the table is full. It is not
    /// counted as one that was scheduled.
    pub(super) fn open_unscheduled(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        service: ServiceId,
        id: ServerId,
        server: Server,
        isn: u32,
    ) -> Result<Hit, DropReason> {
        self.make_room(now)?;
        let picked = Picked {
            id,
            address: server.address,
            mode: server.mode,
        };
        let (outbound, lease) = self.way_back(now, inbound, service, &picked)?;
        let opened = self.enter(now, [inbound, &outbound], (id, server.mode), lease.as_ref());
        let hit = opened.ok_or(DropReason::TableFull)?;
        if let Some(lease) = lease {
            self.hide(hit, service, inbound, lease, isn);
        }
        self.count_in(id, State::before_all(inbound.protocol));
        self.listen_in(hit, inbound, server.mode);
        Ok(hit)
    }

    /// Puts a connection into the table. When that is full, the port which it leases is given back.
    #[inline]
    pub(super) fn enter(
        &mut self,
        now: Instant,
        sides: [&Tuple; 2],
        (id, mode): (ServerId, ForwardMode),
        lease: Option<&Lease>,
    ) -> Option<Hit> {
        let opened = self.conns.open(now, sides, id, mode, &self.timeouts);
        if let (None, Some(lease)) = (opened, lease) {
            self.leases
                .give_back(now, lease.pool, lease.local.port(), None);
        }
        opened
    }

    /// Counts a connection that entered the table with its server, by the state it is in.
    #[inline(always)]
    pub(super) fn count_in(&mut self, id: ServerId, state: State) {
        let page = &self.page.servers[id.index()];
        match state.is_active() {
            true => page.active.up(),
            false => page.inactive.up(),
        }
        self.services.opened(id);
        self.services.counted(id);
        self.page.connections.set(self.conns.used());
    }

    /// Makes room for a connection, at the cost of the oldest half-open one when the table is full.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<(), DropReason> {
        if self.conns.used() == self.conns.capacity() {
            let oldest = self.conns.oldest_half_open();
            let oldest = oldest.ok_or(DropReason::TableFull)?;
            self.conns.prefetch_next_oldest();
            self.close(now, oldest, None);
        }
        Ok(())
    }

    /// What the server of a new connection sends to us, or to the client past us, and the local port
    /// that was leased for it.
    pub(super) fn way_back(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        service: ServiceId,
        server: &Picked,
    ) -> Result<(Tuple, Option<Lease>), DropReason> {
        let lease = match server.mode {
            ForwardMode::FullNat => Some(self.lease(now, inbound, service, server.address)?),
            _ => None,
        };
        let local = lease.map(|lease| lease.local);
        let outbound = answered(inbound, server.address, server.mode, local);
        Ok((outbound.ok_or(DropReason::NoRoute)?, lease))
    }

    fn lease(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        service: ServiceId,
        server: SocketAddr,
    ) -> Result<Lease, DropReason> {
        let (locals, cursor) = self.services.locals(service);
        self.leases
            .take(now, locals, cursor, server, inbound.protocol)
            .ok_or(DropReason::NoLocalPort)
    }

    /// Ends a connection. `remembered` is what its server may expect a successor to be numbered
    /// beyond, if it ends before its time.
    pub(super) fn close(&mut self, now: Instant, entry: u32, remembered: Option<u32>) {
        let Some(conn) = self.conns.at(entry) else {
            return;
        };
        let id = conn.server();
        let page = &self.page.servers[id.index()];
        if conn.state().is_active() {
            page.active.down();
        } else {
            page.inactive.down();
        }
        self.services.counted(id);
        if conn.mode() == ForwardMode::FullNat {
            self.end_lease(now, entry, remembered);
        }
        if let Some(template) = self.conns.uncontrol(entry) {
            self.templates.release(template);
        }
        self.conns.close(entry);
        self.page.connections.set(self.conns.used());
    }
}

/// What a server sends to us, or to the client past us, if it can answer such a packet by this method.
/// `local` is what a FULLNAT server takes for its client.
#[inline]
pub(super) fn answered(
    inbound: &Tuple,
    server: SocketAddr,
    mode: ForwardMode,
    local: Option<SocketAddr>,
) -> Option<Tuple> {
    let to = match (mode, local) {
        (ForwardMode::Direct | ForwardMode::Tunnel, _) => return Some(inbound.reversed()),
        (ForwardMode::Nat, None) if server.is_ipv4() == inbound.from.is_ipv4() => inbound.from,
        (ForwardMode::FullNat, Some(local)) => local,
        _ => return None,
    };
    Some(Tuple {
        protocol: inbound.protocol,
        from: server,
        to,
    })
}

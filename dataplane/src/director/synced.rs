//! Connections and templates that another director told (`spec/sync.md` §5): here in case its clients
//! come to us.

use std::collections::HashMap;
use std::net::SocketAddr;

use control::ForwardMode;

use super::Director;
use super::open::answered;
use crate::conn::{Hit, State};
use crate::fullnat::lease::Lease;
use crate::packet::PacketBuf;
use crate::service::Server;
use crate::sync::message::{Entry, flags};
use crate::templates::{Key, Kind, Tie};
use crate::time::Instant;
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::Tuple;

/// Servers whose places are remembered. When there are more, all are found anew.
const PLACES_MAX: usize = 16_384;
/// A template without a timeout lives as long as in LVS.
const TEMPLATE_S: u32 = 180;

/// Why something that was told is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unkept {
    /// No server of ours is at that address, or no service.
    Unknown,
    /// The end of a connection that another one has replaced.
    Replaced,
    /// There is no room, or its local port is not free.
    Full,
}

/// Servers by where they were found last.
pub(super) type Places = HashMap<(ServiceId, SocketAddr), ServerId>;

impl<P: PacketBuf> Director<P> {
    /// Takes in what another director told.
    pub fn synced(&mut self, now: Instant, entry: &Entry) -> Result<(), Unkept> {
        let outcome = if entry.is_template() {
            self.synced_template(now, entry)
        } else {
            self.synced_connection(now, entry)
        };
        self.conns.settle();
        let counts = &self.page.sync;
        let count = match outcome {
            Ok(()) => &counts.kept,
            Err(Unkept::Unknown) => &counts.unknown,
            Err(Unkept::Replaced) => &counts.replaced,
            Err(Unkept::Full) => &counts.full,
        };
        count.add(1);
        outcome
    }

    fn synced_connection(&mut self, now: Instant, entry: &Entry) -> Result<(), Unkept> {
        let inbound = Tuple {
            protocol: entry.protocol,
            from: entry.client,
            to: entry.vip,
        };
        if let Some(hit) = self.conns.find(&inbound).filter(|hit| !hit.outbound()) {
            if self.goes_to(hit, entry) {
                self.resume(now, hit, entry);
                return Ok(());
            }
            if entry.flags & flags::INACTIVE != 0 {
                return Err(Unkept::Replaced);
            }
            self.close(now, hit.entry(), None);
        }
        let (id, server) = self.server_told(&inbound, entry).ok_or(Unkept::Unknown)?;
        let hit = self.open_synced(now, &inbound, (id, server), entry)?;
        self.resume(now, hit, entry);
        Ok(())
    }

    /// Whether a connection of ours has the server that was told.
    fn goes_to(&self, hit: Hit, entry: &Entry) -> bool {
        let outbound = self.conns.tuple(hit.entry(), true);
        let conn = self.conns.at(hit.entry());
        let server = conn.and_then(|conn| self.services.server(conn.server()));
        match (conn.map(|conn| conn.mode()), server) {
            (Some(ForwardMode::Direct | ForwardMode::Tunnel), Some(server)) => {
                server.address.ip() == entry.server.ip()
            }
            (Some(ForwardMode::FullNat), _) => {
                outbound.from == entry.server
                    && entry.local.is_none_or(|local| local == outbound.to)
            }
            (Some(ForwardMode::Nat), _) => outbound.from == entry.server,
            _ => false,
        }
    }

    /// The server that was told, by its own port or by none.
    fn server_told(&mut self, tuple: &Tuple, entry: &Entry) -> Option<(ServerId, Server)> {
        let service = self.services.matching(tuple, entry.mark)?;
        let portless = SocketAddr::new(entry.server.ip(), 0);
        let places = [entry.server, portless];
        let (id, mut server) = places
            .into_iter()
            .find_map(|address| self.server_at(service, address))?;
        if server.address.port() == 0 {
            server.address.set_port(entry.server.port());
        }
        Some((id, server))
    }

    fn server_at(&mut self, service: ServiceId, address: SocketAddr) -> Option<(ServerId, Server)> {
        let is_it = |server: &Server| {
            server.available && server.service == service && server.address == address
        };
        let known = self.places.get(&(service, address)).copied();
        let known = known.filter(|id| self.services.server(*id).is_some_and(is_it));
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.services.server_at(service, address)?;
                if self.places.len() >= PLACES_MAX {
                    self.places.clear();
                }
                self.places.insert((service, address), id);
                id
            }
        };
        Some((id, *self.services.server(id)?))
    }

    /// As a connection of our own, which nothing was counted of yet.
    fn open_synced(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        (id, server): (ServerId, Server),
        entry: &Entry,
    ) -> Result<Hit, Unkept> {
        self.make_room(now).map_err(|_| Unkept::Full)?;
        let outbound = answered(inbound, server.address, server.mode, entry.local);
        let outbound = outbound.ok_or(Unkept::Unknown)?;
        let lease = match server.mode {
            ForwardMode::FullNat => {
                let lease = self.claim(&outbound);
                Some(lease.ok_or(Unkept::Full)?)
            }
            _ => None,
        };
        let opened = self.enter(now, [inbound, &outbound], (id, server.mode), lease.as_ref());
        let hit = opened.ok_or(Unkept::Full)?;
        if let Some(lease) = lease {
            // Its server has been told.
            let extra = self.conns.extra(hit.entry());
            (extra.client, extra.pool) = (Default::default(), lease.pool.0);
        }
        self.count_in(id, State::before_all(inbound.protocol));
        self.listen_in(hit, inbound, server.mode);
        Ok(hit)
    }

    /// The local address and port that a server answers to, if they are ours and no connection has them.
    pub(super) fn claim(&mut self, outbound: &Tuple) -> Option<Lease> {
        let (local, server) = (outbound.to, outbound.from);
        let is_ours =
            self.services.is_local(local.ip()) && self.steer.home(local) == self.steer.me();
        is_ours.then(|| self.leases.claim(local, server, outbound.protocol))?
    }

    /// From now on the connection is as it was told.
    fn resume(&mut self, now: Instant, hit: Hit, entry: &Entry) {
        let state = State::of_number(entry.protocol, entry.state);
        let conn = self.conns.get(hit);
        conn.resume(
            now,
            self.settings.sync_threshold,
            entry.flags & flags::NO_OUTPUT != 0,
        );
        self.change_state(now, hit, state);
        if entry.timeout_s != 0 {
            let ms = entry.timeout_s.saturating_mul(1000);
            self.conns.set_state_for(now, hit.entry(), state, ms);
        }
        if let (Some([_, out]), true) = (entry.sequences, self.conns.get(hit).is_helped()) {
            self.conns.talk(hit.entry()).growth = out.into();
        }
    }

    fn synced_template(&mut self, now: Instant, entry: &Entry) -> Result<(), Unkept> {
        // A template of every port has the service of any.
        let tuple = Tuple {
            protocol: entry.protocol,
            from: entry.client,
            to: entry.vip,
        };
        let (id, _) = self.server_told(&tuple, entry).ok_or(Unkept::Unknown)?;
        let server_port = match entry.vip.port() {
            0 => 0,
            _ => entry.server.port(),
        };
        let engine = entry.engine_data.as_deref();
        let key = Key {
            kind: engine.map_or(Kind::Persistence, |_| Kind::Engine),
            protocol: entry.protocol,
            client: entry.client,
            virtual_address: entry.vip,
            engine: engine.unwrap_or(&[]),
        };
        let timeout_s = match entry.timeout_s {
            0 => TEMPLATE_S,
            seconds => seconds,
        };
        let tie = Tie {
            server: id,
            server_port,
            timeout_ms: timeout_s.saturating_mul(1000),
        };
        if self.is_tied(now, &key, id) {
            return Ok(());
        }
        let made = self.templates.make(&key, now, tie).ok_or(Unkept::Full)?;
        let number = made.into_number();
        if entry.state != 0 {
            self.templates.assure(number);
        }
        let made = crate::templates::Hold::from_number(number);
        self.templates.release(made);
        Ok(())
    }
    /// Whether a client is tied to this server already; if it is to another, it is so no more.
    fn is_tied(&mut self, now: Instant, key: &Key<'_>, id: ServerId) -> bool {
        let Some(template) = self.templates.find(key, now) else {
            return false;
        };
        let same = self.templates.tie(&template).server == id;
        if same {
            self.templates.touch(&template, now);
        } else {
            self.templates.invalidate(&template);
        }
        self.templates.release(template);
        same
    }
}

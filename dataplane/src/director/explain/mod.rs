//! What would become of a packet, and why, without any effect.
//!
//! There is no second decision procedure. What concerns the packet is copied between two bursts
//! ([`Director::excerpt`]), a director of nothing else is made of it elsewhere ([`Excerpt::rehearse`]),
//! and that one processes the packet.

mod packet; // packets as somebody may send them, and as they are described
mod scratch; // a director made of an excerpt
mod story; // the steps, for people
#[cfg(test)]
pub(super) mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};

use control::Settings;

use super::defence::Defence;
use super::engine::with_engine;
use super::persist::template_key;
use super::{Director, TunnelTo, helped};
use crate::conn::{self, NO_HOP, Timeouts, Transitions};
use crate::fullnat::lease::{Leases, PoolId};
use crate::icmp::RateLimit;
use crate::net;
use crate::packet::{Learned, PORTS_MAX, PacketBuf, PortId};
use crate::sched::Loads;
use crate::service;
use crate::templates::{Copied, Key};
use crate::time::Instant;
use crate::update::{ServerId, ServiceId};
use crate::wire::ethernet::Station;
use crate::wire::flow::{TCP, Tuple};

pub use packet::{Flags, Sample};
pub use scratch::{End, Outcome, Sent};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub tuple: Tuple,
    /// What is in a datagram.
    pub said: Vec<u8>,
    /// Where the packet comes in; where packets to its sender leave, unless named.
    pub at: Option<(PortId, Option<u16>)>,
    /// The server that a new connection gets, and where it is reached, once that is known.
    pub toward: Option<(ServerId, SocketAddr)>,
}

/// All that becomes of one packet may depend on.
#[derive(Debug)]
pub struct Excerpt {
    pub now: Instant,
    pub tuple: Tuple,
    pub from: PortId,
    pub vlan: Option<u16>,
    pub me: usize,
    pub workers: usize,
    /// The worker that decides about it.
    pub home: usize,
    conns: conn::Excerpt,
    services: service::Excerpt,
    net: net::Excerpt,
    leases: Leases,
    templates: Vec<Copied>,
    /// One more template finds room.
    room: bool,
    tunnels: Vec<(ServerId, TunnelTo)>,
    timeouts: Timeouts,
    settings: Settings,
    defence: Defence,
    transitions: &'static Transitions,
    answers: RateLimit,
    stations: [Station; PORTS_MAX],
    kernels: [Option<PortId>; PORTS_MAX],
    partial: [bool; PORTS_MAX],
    ip_id: u16,
}

impl<P: PacketBuf> Director<P> {
    /// Copies what concerns a packet: its services with their servers and nothing of others.
    pub fn excerpt(&self, now: Instant, query: &Query) -> Excerpt {
        let tuple = query.tuple;
        let (from, vlan) = query.at.unwrap_or_else(|| self.side_of(tuple.from.ip()));
        let mut conns = self.conns.excerpt(&tuple);
        let (templates, room) = self.copied_templates(now, query, from, vlan, &conns);
        let mut servers: Vec<ServerId> = conns.lines.iter().map(conn::Line::server).collect();
        servers.extend(templates.iter().map(|copied| copied.template.tie.server));
        servers.extend(query.toward.map(|(id, _)| id));
        let tunnels = servers.iter().filter_map(|id| {
            let way = self.tunnels.get(id.index())?.as_ref()?;
            Some((*id, way.clone()))
        });
        let hops = conns.lines.iter().flat_map(conn::Line::hops);
        let hops: Vec<_> = hops.filter(|hop| *hop != NO_HOP).collect();
        let net = self
            .net
            .excerpt(&self.addresses(query, &conns, &servers), &hops);
        let leases = self.copied_leases(now, query, &mut conns);
        Excerpt {
            now,
            tuple,
            from,
            vlan,
            me: self.steer.me(),
            workers: self.steer.workers(),
            home: self.home_within(from, vlan, &tuple),
            services: self.services.excerpt(&tuple, from, vlan, &servers),
            tunnels: tunnels.collect(),
            conns,
            net,
            leases,
            templates,
            room,
            timeouts: self.timeouts,
            settings: self.settings,
            defence: self.defence.clone(),
            transitions: self.transitions,
            answers: self.answers.clone(),
            stations: self.stations,
            kernels: self.kernels,
            partial: self.partial,
            ip_id: self.ip_id,
        }
    }

    /// From now on a neighbour is known.
    pub fn acquaint(&mut self, now: Instant, learned: &Learned) {
        self.net.acquaint(now, learned);
    }

    /// Where packets to an address leave; the first port for what has no route.
    fn side_of(&self, address: IpAddr) -> (PortId, Option<u16>) {
        let way = self.net.excerpt(&[address], &[]).way(address);
        way.map_or((PortId::default(), None), |way| (way.port, way.vlan))
    }

    /// The addresses that packets may be sent to.
    fn addresses(&self, query: &Query, conns: &conn::Excerpt, servers: &[ServerId]) -> Vec<IpAddr> {
        let mut addresses = vec![query.tuple.from.ip(), query.tuple.to.ip()];
        for side in conns.lines.iter().flat_map(|line| line.sides) {
            addresses.extend([side.from.ip(), side.to.ip()]);
        }
        let servers = servers.iter().filter_map(|id| self.services.server(*id));
        addresses.extend(servers.map(|server| server.address.ip()));
        addresses.extend(query.toward.map(|(_, address)| address.ip()));
        addresses
    }

    /// The templates that the packet may find, and those that its connection has; and whether there is
    /// room for the one that it may make.
    fn copied_templates(
        &self,
        now: Instant,
        query: &Query,
        from: PortId,
        vlan: Option<u16>,
        conns: &conn::Excerpt,
    ) -> (Vec<Copied>, bool) {
        let (templates, tuple) = (&self.templates, &query.tuple);
        let lines = conns.lines.iter().flat_map(|line| {
            let announced = line.talk.filter(|talk| talk.port != 0);
            [line.template, announced.map(|talk| talk.line)]
        });
        let mut all: Vec<Copied> = Vec::new();
        let mut add = |copied: Option<Copied>| {
            let new = copied.filter(|new| all.iter().all(|old| old.line != new.line));
            all.extend(new);
        };
        for line in lines.flatten() {
            add(templates.copied(line, now));
        }
        if tuple.protocol == TCP {
            for key in helped::expected_keys(tuple) {
                add(templates.peek(&key, now));
            }
        }
        let mut room = true;
        let mark = self.services.mark(tuple, from, vlan);
        let asked = self.services.matching(tuple, mark).map(|id| (id, *tuple));
        let answerer = self.services.answers().from(tuple.from);
        let asking = answerer.filter(|answerer| answerer.asks).map(|answerer| {
            let inbound = Tuple {
                protocol: tuple.protocol,
                from: tuple.to,
                to: answerer.source(tuple.from),
            };
            (answerer.service, inbound)
        });
        for (service, inbound) in asked.into_iter().chain(asking) {
            if let Some(key) = self.sought(service, &inbound, &query.said) {
                add(templates.peek(&key, now));
                room &= templates.has_room(&key, now);
            }
        }
        (all, room)
    }

    /// What a service finds a client's template by.
    fn sought<'s>(&self, service: ServiceId, tuple: &Tuple, said: &'s [u8]) -> Option<Key<'s>> {
        let (key, persistence) = self.services.persistence(service)?;
        let sought = template_key(key, persistence?.netmask, tuple);
        match self.services.engine(service) {
            None => Some(sought),
            Some(engine) => with_engine(sought, engine, tuple, said).ok(),
        }
    }

    /// The pools that a connection to the server that is known may lease from, and those of
    /// connections that may end.
    fn copied_leases(&self, now: Instant, query: &Query, conns: &mut conn::Excerpt) -> Leases {
        let held = conns.lines.iter().filter_map(|line| line.extra);
        let held: Vec<_> = held.map(|extra| PoolId(extra.pool)).collect();
        let service = query.toward.and_then(|(id, _)| self.services.server(id));
        let locals = service.map(|server| self.services.turn(server.service));
        let (locals, cursor) = locals.unwrap_or_default();
        let toward = query
            .toward
            .map(|(_, address)| (address, query.tuple.protocol));
        let (leases, numbers) = self.leases.excerpt(now, locals, cursor, toward, &held);
        let extras = conns
            .lines
            .iter_mut()
            .filter_map(|line| line.extra.as_mut());
        for (extra, number) in extras.zip(numbers) {
            extra.pool = number.0;
        }
        leases
    }
}

/// How often a packet's home and its server may change while they are asked for.
const TRIES: usize = 8;

/// A packet, all that becomes of it depends on, and what does.
#[derive(Debug)]
pub struct Rehearsal {
    pub excerpt: Excerpt,
    pub frame: Vec<u8>,
    pub outcome: Outcome,
}

/// Finds out what would become of a packet. `ask` gets an excerpt from a worker, whose servers carry
/// `loads`; `frame` makes the packet as it would come in.
pub fn rehearse<E: From<io::Error>>(
    mut query: Query,
    loads: &Loads,
    mut ask: impl FnMut(usize, &Query) -> Result<Excerpt, E>,
    frame: impl Fn(&Excerpt) -> Vec<u8>,
) -> Result<Rehearsal, E> {
    let mut worker = 0;
    let mut excerpt = ask(worker, &query)?;
    for _ in 0..TRIES {
        if excerpt.home != worker {
            worker = excerpt.home;
        } else {
            let toward = excerpt.toward(loads, &frame(&excerpt))?;
            if toward == query.toward || toward.is_none() {
                break;
            }
            query.toward = toward;
        }
        excerpt = ask(worker, &query)?;
    }
    let frame = frame(&excerpt);
    let outcome = excerpt.rehearse(loads, &frame)?;
    Ok(Rehearsal {
        excerpt,
        frame,
        outcome,
    })
}

impl Excerpt {
    /// The station that the packet comes from, as far as it is known, and ours.
    pub fn stations(&self) -> ([u8; 6], [u8; 6]) {
        let way = self.net.way(self.tuple.from.ip());
        let known = way.and_then(|way| way.neighbour?.0.mac);
        let unknown = [2, 0, 0, 0, 0, 0xfe];
        (
            known.unwrap_or(unknown),
            self.stations[self.from.index()].address(),
        )
    }
}

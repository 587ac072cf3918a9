//! What concerns one packet, copied; and what its service's scheduler sees.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::ServiceKey;
use hashbrown::HashMap;

use super::keyed::Keyed;
use super::virtuals::Virtuals;
use super::{Key, Server, Service, Services};
use crate::answers::{Answerer, Answers};
use crate::ftp;
use crate::marks::Marks;
use crate::net::Sieve;
use crate::packet::PortId;
use crate::sched::{Load, Loads, Newcomer};
use crate::time::Instant;
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::Tuple;

/// The services that a packet may have to do with, and what all services say of its addresses.
#[derive(Debug)]
pub struct Excerpt {
    /// What their schedulers are copied for.
    destination: IpAddr,
    services: Vec<(ServiceId, Service)>,
    servers: Vec<(ServerId, Server)>,
    by_key: Vec<(Key, ServiceId)>,
    by_mark: Vec<((bool, u32), ServiceId)>,
    marks: Arc<Marks>,
    ftp: u32,
    portless: u32,
    vips: Vec<(IpAddr, u32)>,
    stations: Vec<(IpAddr, u32)>,
    former: Vec<(IpAddr, u32)>,
    locals: Vec<(IpAddr, u32)>,
    answers: Vec<(SocketAddr, Answerer)>,
    born: u64,
    generation: u16,
    stagger: u16,
}

/// A server as the scheduler of its service sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    pub id: ServerId,
    pub address: SocketAddr,
    pub weight: u32,
    pub load: Load,
    pub overloaded: bool,
    pub draining: bool,
    pub figure: Option<String>,
}

impl Service {
    fn copy(&self, destination: IpAddr) -> Self {
        Self {
            key: self.key,
            born: self.born,
            policy: self.policy,
            scheduler: self.scheduler.copy(destination),
            stagger: self.stagger,
            servers: self.servers.clone(),
            limited: self.limited,
            options: self.options,
            locals: self.locals.clone(),
            local_cursor: self.local_cursor,
        }
    }
}

impl Services {
    /// What concerns a packet, and these servers with their services.
    pub fn excerpt(
        &self,
        tuple: &Tuple,
        from: PortId,
        vlan: Option<u16>,
        servers: &[ServerId],
    ) -> Excerpt {
        let (to, ipv6) = (tuple.to.ip(), tuple.to.is_ipv6());
        let mark = self.mark(tuple, from, vlan);
        let of_mark = |key| self.by_mark.get_key_value(&key);
        // Another one in its place, so that there are some.
        let by_mark = of_mark((ipv6, mark)).or_else(|| self.by_mark.iter().next());
        let by_key = [tuple.to.port(), ftp::CONTROL, 0]
            .map(|port| (tuple.protocol, SocketAddr::new(to, port)))
            .into_iter()
            .filter_map(|key| Some((key, *self.by_key.get(&key)?)));
        let mut excerpt = Excerpt {
            destination: to,
            services: Vec::new(),
            servers: Vec::new(),
            by_key: by_key.collect(),
            by_mark: by_mark.map(|(key, id)| (*key, *id)).into_iter().collect(),
            marks: Arc::clone(&self.marks),
            ftp: self.ftp,
            portless: self.portless,
            vips: users(self.virtuals.users(), tuple),
            stations: users(&self.stations, tuple),
            former: users(self.virtuals.former(), tuple),
            locals: users(&self.locals, tuple),
            answers: self.answers.at(tuple.from),
            born: self.born,
            generation: self.generation,
            stagger: self.stagger,
        };
        let marked = self.by_mark.get(&(ipv6, mark)).copied();
        let keyed: Vec<_> = excerpt.by_key.iter().map(|(_, id)| *id).collect();
        for id in marked.into_iter().chain(keyed) {
            self.copy_service(&mut excerpt, id);
        }
        let answering: Vec<_> = excerpt.answers.iter().map(|(_, a)| a.server).collect();
        for id in answering.iter().chain(servers) {
            self.copy_server(&mut excerpt, *id);
            if let Some(server) = self.server(*id) {
                self.copy_service(&mut excerpt, server.service);
            }
        }
        excerpt
    }

    fn copy_service(&self, excerpt: &mut Excerpt, id: ServiceId) {
        let is_new = excerpt.services.iter().all(|(other, _)| *other != id);
        let Some(service) = self.service(id).filter(|_| is_new) else {
            return;
        };
        for candidate in &service.servers {
            let server = self.server(candidate.id);
            excerpt
                .servers
                .extend(server.map(|server| (candidate.id, *server)));
        }
        excerpt
            .services
            .push((id, service.copy(excerpt.destination)));
    }

    fn copy_server(&self, excerpt: &mut Excerpt, id: ServerId) {
        if let Some(server) = self.server(id) {
            excerpt.servers.push((id, *server));
        }
    }

    /// The services and servers of an excerpt and no others, which go by `loads`.
    pub fn of(excerpt: &Excerpt, loads: Loads) -> Self {
        let mut services = Self {
            by_key: excerpt.by_key.iter().copied().collect(),
            by_mark: excerpt.by_mark.iter().copied().collect(),
            plain: Keyed::default(),
            marks: Arc::clone(&excerpt.marks),
            ftp: excerpt.ftp,
            portless: excerpt.portless,
            services: Vec::new(),
            servers: Vec::new(),
            ranks: Vec::new(),
            clamping: 0,
            virtuals: Virtuals::of(&excerpt.vips, &excerpt.former),
            stations: excerpt.stations.iter().copied().collect(),
            locals: excerpt.locals.iter().copied().collect(),
            sieve: Sieve::default(),
            answers: Answers::default(),
            born: excerpt.born,
            generation: excerpt.generation,
            unsettled: false,
            stagger: excerpt.stagger,
            loads,
        };
        services.sieve.extend(services.virtuals.users().keys());
        services.sieve.extend(services.locals.keys());
        for (id, service) in &excerpt.services {
            let place = super::updates::slot(&mut services.services, id.index());
            *place = Some(service.copy(excerpt.destination));
            services.note_plain(*id);
            services.note_ranks(*id, 0);
            services.clamping += u32::from(service.options.mss.is_some());
        }
        for (id, server) in &excerpt.servers {
            *super::updates::slot(&mut services.servers, id.index()) = Some(*server);
        }
        for (address, answerer) in &excerpt.answers {
            services.answers.add(*address, *answerer);
        }
        services
    }

    /// As [`Self::locals`], for whoever only looks.
    pub fn turn(&self, service: ServiceId) -> (&[IpAddr], usize) {
        let service = self.service(service);
        service.map_or((&[], 0), |service| (&service.locals, service.local_cursor))
    }

    /// What a service is.
    pub fn key(&self, service: ServiceId) -> Option<ServiceKey> {
        Some(self.service(service)?.key)
    }

    /// What a table for a service is made of.
    #[cfg(test)]
    pub(crate) fn members(&self, service: ServiceId) -> Vec<crate::sched::Member> {
        let servers = self.service(service).map_or(&[][..], |s| &s.servers);
        let member = |server: &crate::sched::Candidate| crate::sched::Member {
            id: server.id,
            address: server.address,
            weight: server.last_weight,
        };
        servers.iter().map(member).collect()
    }

    /// The name of a service's scheduler, what it goes by, and what it sees in each server, newest
    /// first, as it is about to pick one.
    pub fn survey(
        &mut self,
        now: Instant,
        service: ServiceId,
        newcomer: &Newcomer<'_>,
    ) -> Option<(&'static str, String, Vec<Weighed>)> {
        let name = self.service(service)?.policy.scheduler.name();
        let (rule, mut weighed) = self.consider(now, service, newcomer, |scheduler, ask| {
            let figures = scheduler.figures(ask);
            let weighed = ask.servers.iter().enumerate().map(|(n, server)| Weighed {
                id: server.id,
                address: server.address,
                weight: server.weight,
                load: ask.loads.of(server.id),
                overloaded: server.limit.is_over(),
                draining: false,
                figure: figures.get(n).filter(|figure| !figure.is_empty()).cloned(),
            });
            (scheduler.rule(ask), weighed.rev().collect::<Vec<_>>())
        })?;
        for weighed in &mut weighed {
            let server = self.server(weighed.id);
            weighed.draining = server.is_some_and(|server| server.draining);
        }
        Some((name, rule, weighed))
    }
}

impl Excerpt {
    /// The highest number of a service and of a server that it has.
    pub fn highest(&self) -> (usize, usize) {
        let services = self.services.iter().map(|(id, _)| id.index());
        let servers = self.servers.iter().map(|(id, _)| id.index());
        (services.max().unwrap_or(0), servers.max().unwrap_or(0))
    }

    /// All servers that it has.
    pub fn servers(&self) -> impl Iterator<Item = ServerId> {
        self.servers.iter().map(|(id, _)| *id)
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }
}

/// What there is of a packet's two addresses.
fn users(all: &HashMap<IpAddr, u32>, tuple: &Tuple) -> Vec<(IpAddr, u32)> {
    let both = [tuple.from.ip(), tuple.to.ip()].into_iter();
    both.filter_map(|address| Some((address, *all.get(&address)?)))
        .collect()
}

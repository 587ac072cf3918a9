//! How updates change services and servers. They were validated before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{ForwardMode, Protocol, ServiceKey, ServiceOptions, Thresholds, Tunnel};
use hashbrown::HashMap;

use super::{Rank, Server, Service, Services, plain_key_of};
use crate::answers::Answerer;
use crate::ftp;
use crate::marks::Marks;
use crate::sched::{Candidate, Limit};
use crate::update::{LocalAddress, Policy, ServerId, ServiceId, Update};

impl Services {
    /// Applies one validated update; returns the addresses to announce that appeared with it.
    pub fn apply(&mut self, update: &Update) -> Vec<IpAddr> {
        match *update {
            Update::AddService { id, key, policy } => return self.add_service(id, key, policy),
            Update::EditService { id, policy } => self.edit_service(id, policy),
            Update::DeleteService { id } => self.delete_service(id),
            Update::AddServer {
                service,
                id,
                address,
                weight,
                mode,
                tunnel,
                thresholds,
            } => {
                let new = Candidate {
                    id,
                    address,
                    mode,
                    weight,
                    last_weight: weight,
                    limit: Limit::default(),
                };
                self.add_server(service, new, tunnel, thresholds);
            }
            Update::EditServer {
                id,
                weight,
                mode,
                tunnel,
                thresholds,
            } => self.edit_server(id, mode, tunnel, weight, thresholds),
            Update::DrainServer { id, draining } => {
                if let Some(server) = slot(&mut self.servers, id.index()) {
                    server.draining = draining;
                }
            }
            Update::DeleteServer { id } => self.delete_server(id),
            Update::ForgetServer { id } => self.forget_server(id),
            Update::SetLocalAddresses { id, ref addresses } => {
                return self.set_locals(id, addresses);
            }
            Update::SetOptions { id, options } => self.set_options(id, options),
            Update::SetTable { id, ref table } => self.service_mut(id).scheduler.tabled(table),
            Update::SetMarks(ref marks) => return self.set_marks(marks),
            Update::SetTimeouts(_)
            | Update::SetSettings(_)
            | Update::CutServer { .. }
            | Update::SetNetwork(_)
            | Update::FlushNeighbours => {}
        }
        Vec::new()
    }

    /// To be called after updates and before the next packet. However many there were, the generation
    /// moves by one: it is short, and is not to come back to what it was while a connection is silent.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// The servers that leave with this update.
    pub fn leaving(&self, update: &Update) -> Vec<ServerId> {
        match update {
            Update::DeleteServer { id } => vec![*id],
            Update::DeleteService { id } => {
                let servers = self
                    .service(*id)
                    .map_or(&[][..], |service| &service.servers);
                servers.iter().map(|server| server.id).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The service that an update is of, and how many of its servers are looked through for it.
    pub fn concerned(&self, update: &Update) -> (Option<ServiceId>, usize) {
        let servers = |id: ServiceId| {
            let service = self.service(id);
            service.map_or(0, |service| service.servers.len())
        };
        match *update {
            Update::AddService { id, .. }
            | Update::SetOptions { id, .. }
            | Update::SetTable { id, .. }
            | Update::SetLocalAddresses { id, .. } => (Some(id), 0),
            Update::EditService { id, .. } | Update::DeleteService { id } => {
                (Some(id), servers(id))
            }
            Update::AddServer { service, .. } => (Some(service), 0),
            Update::EditServer { id, .. }
            | Update::DrainServer { id, .. }
            | Update::DeleteServer { id } => {
                let service = self.server(id).map(|server| server.service);
                (service, service.map_or(0, servers))
            }
            Update::ForgetServer { .. }
            | Update::CutServer { .. }
            | Update::SetTimeouts(_)
            | Update::SetSettings(_)
            | Update::SetNetwork(_)
            | Update::FlushNeighbours
            | Update::SetMarks(_) => (None, 0),
        }
    }

    fn add_service(&mut self, id: ServiceId, key: ServiceKey, policy: Policy) -> Vec<IpAddr> {
        self.born += 1;
        let service = Service {
            key,
            born: self.born,
            policy,
            scheduler: policy.scheduler.bind(&[], self.seed(id)),
            stagger: self.stagger,
            servers: Vec::new(),
            limited: false,
            options: ServiceOptions::default(),
            locals: Vec::new(),
            local_cursor: 0,
        };
        *slot(&mut self.services, id.index()) = Some(service);
        self.note_plain(id);
        self.reach(id, key)
    }

    fn edit_service(&mut self, id: ServiceId, policy: Policy) {
        let (stagger, seed) = (self.stagger, self.seed(id));
        let service = self.service_mut(id);
        if service.policy.scheduler != policy.scheduler {
            service.scheduler = policy.scheduler.bind(&service.servers, seed);
            service.stagger = stagger;
        }
        service.policy = policy;
        let servers: Vec<_> = service.servers.iter().map(|server| server.id).collect();
        for server in servers {
            self.note_answers(server);
        }
        self.note_plain(id);
        self.note_ranks(id, 0);
    }

    fn add_server(
        &mut self,
        owner: ServiceId,
        mut new: Candidate,
        tunnel: Tunnel,
        thresholds: Thresholds,
    ) {
        let id = new.id;
        let connections = self.loads.of(id).total();
        let vip = self.service_mut(owner).key.address().map(|vip| vip.ip());
        let place = slot(&mut self.servers, id.index());
        if let Some(old) = place {
            new.limit = old.limit;
            self.virtuals.forget(vip.as_slice());
        } else {
            *self.stations.entry(new.address.ip()).or_insert(0) += 1;
        }
        new.limit.change(thresholds, connections);
        *place = Some(Server {
            service: owner,
            vip,
            address: new.address,
            mode: new.mode,
            tunnel,
            draining: false,
            available: true,
            limit: new.limit,
        });
        let service = self.service_mut(owner);
        service.limited |= new.limit.is_set();
        service.servers.push(new);
        service.scheduler.added(&service.servers);
        let at = service.servers.len() - 1;
        self.note_ranks(owner, at);
        self.note_answers(id);
        self.unsettled = true;
    }

    fn edit_server(
        &mut self,
        id: ServerId,
        mode: ForwardMode,
        tunnel: Tunnel,
        weight: u32,
        thresholds: Thresholds,
    ) {
        let server = slot(&mut self.servers, id.index());
        if let Some(server) = server {
            if server.tunnel != tunnel {
                self.unsettled = true;
            }
            server.mode = mode;
            server.tunnel = tunnel;
        }
        let connections = self.loads.of(id).total();
        let (service, index) = self.position(id);
        let server = &mut service.servers[index];
        server.mode = mode;
        server.limit.change(thresholds, connections);
        let limit = server.limit;
        service.limited |= limit.is_set();
        server.weight = weight;
        if weight > 0 {
            server.last_weight = weight;
        }
        service.scheduler.reweighted(&service.servers);
        if let Some(server) = slot(&mut self.servers, id.index()) {
            server.limit = limit;
        }
        self.note_answers(id);
    }

    fn delete_server(&mut self, id: ServerId) {
        let (service, index) = self.position(id);
        let gone = service.servers.remove(index);
        service.scheduler.removed(&service.servers, index, &gone);
        if let Some(server) = self.server(id) {
            self.note_ranks(server.service, index);
        }
        self.withdraw(id, gone.limit);
    }

    fn forget_server(&mut self, id: ServerId) {
        if let Some(server) = slot(&mut self.servers, id.index()).take() {
            release(&mut self.stations, &[server.address.ip()]);
            self.virtuals.forget(server.vip.as_slice());
        }
        self.answers.remove(id);
    }

    fn set_options(&mut self, id: ServiceId, options: ServiceOptions) {
        let old = std::mem::replace(&mut self.service_mut(id).options, options);
        self.clamping += u32::from(options.mss.is_some());
        self.clamping -= u32::from(old.mss.is_some());
        if old.timeouts != options.timeouts {
            self.unsettled = true;
        }
        self.note_plain(id);
    }

    /// Keeps up the ranks of a service's servers from this place on.
    pub(super) fn note_ranks(&mut self, id: ServiceId, from: usize) {
        let Some(Some(service)) = self.services.get(id.index()) else {
            return;
        };
        let ranks = service.policy.scheduler.ranks();
        for (place, server) in (0..).zip(&service.servers).skip(from) {
            let rank = Rank { service: id, place };
            *slot(&mut self.ranks, server.id.index()) = ranks.then_some(rank);
        }
    }

    /// Keeps up whether packets of a listed server are told by where they come from.
    fn note_answers(&mut self, id: ServerId) {
        match self.answerer(id) {
            Some((address, answerer)) => self.answers.add(address, answerer),
            None => drop(self.answers.remove(id)),
        }
    }

    fn answerer(&self, id: ServerId) -> Option<(SocketAddr, Answerer)> {
        let server = self.server(id)?;
        let service = self.service(server.service)?;
        let ServiceKey::Address { protocol, address } = service.key else {
            return None;
        };
        let Policy {
            one_packet, engine, ..
        } = service.policy;
        // Servers ask from a port that is known.
        let asks = engine.is_some() && address.port() != 0;
        if !(one_packet || asks) || protocol != Protocol::Udp || server.mode != ForwardMode::Nat {
            return None;
        }
        let port = match (address.port(), server.address.port()) {
            // A service of every port asks its servers at the port that the client asked.
            (0, _) => 0,
            (port, 0) | (_, port) => port,
        };
        let answerer = Answerer {
            server: id,
            service: server.service,
            virtual_address: address,
            one_packet,
            asks,
            left: false,
            born: service.born,
        };
        Some((SocketAddr::new(server.address.ip(), port), answerer))
    }

    /// From now on packets find the service; returns its address if it is to be announced.
    fn reach(&mut self, id: ServiceId, key: ServiceKey) -> Vec<IpAddr> {
        let (protocol, address) = match key {
            ServiceKey::Address { protocol, address } => (protocol, address),
            ServiceKey::Mark { mark, ipv6 } => {
                self.by_mark.insert((ipv6, mark.get()), id);
                let marks = Arc::clone(&self.marks);
                self.sieve.extend(marks.addresses(ipv6, mark.get()));
                return self.virtuals.occupy(marks.addresses(ipv6, mark.get()));
            }
        };
        self.by_key.insert((protocol.number(), address), id);
        self.ftp += u32::from(address.port() == ftp::CONTROL);
        self.portless += u32::from(address.port() == 0);
        self.sieve.add(address.ip());
        self.virtuals.occupy(&[address.ip()])
    }

    /// Packets do not find the service any more.
    fn unreach(&mut self, key: ServiceKey) {
        match key {
            ServiceKey::Address { protocol, address } => {
                self.by_key.remove(&(protocol.number(), address));
                self.ftp -= u32::from(address.port() == ftp::CONTROL);
                self.portless -= u32::from(address.port() == 0);
                self.virtuals.release(&[address.ip()]);
            }
            ServiceKey::Mark { mark, ipv6 } => {
                self.by_mark.remove(&(ipv6, mark.get()));
                let addresses = self.marks.addresses(ipv6, mark.get());
                self.virtuals.release(addresses);
            }
        }
    }

    /// Other rules; returns the addresses to announce that appeared with them.
    fn set_marks(&mut self, marks: &Arc<Marks>) -> Vec<IpAddr> {
        let old = std::mem::replace(&mut self.marks, Arc::clone(marks));
        let mut new = Vec::new();
        // First those that come, so that what stays is not announced.
        for &(ipv6, mark) in self.by_mark.keys() {
            self.sieve.extend(marks.addresses(ipv6, mark));
            new.extend(self.virtuals.occupy(marks.addresses(ipv6, mark)));
        }
        for &(ipv6, mark) in self.by_mark.keys() {
            self.virtuals.release(old.addresses(ipv6, mark));
        }
        new
    }

    fn set_locals(&mut self, id: ServiceId, addresses: &[LocalAddress]) -> Vec<IpAddr> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|local| local.address).collect();
        let mut new = Vec::new();
        self.sieve.extend(&addresses);
        for address in &addresses {
            let services = self.locals.entry(*address).or_insert(0);
            *services += 1;
            if *services == 1 {
                new.push(*address);
            }
        }
        let old = std::mem::replace(&mut self.service_mut(id).locals, addresses);
        release(&mut self.locals, &old);
        new
    }

    fn delete_service(&mut self, id: ServiceId) {
        let Some(service) = slot(&mut self.services, id.index()).take() else {
            unreachable!("validated")
        };
        self.unreach(service.key);
        self.clamping -= u32::from(service.options.mss.is_some());
        if let Some(key) = plain_key_of(service.key) {
            self.plain.remove(key);
        }
        release(&mut self.locals, &service.locals);
        for server in service.servers {
            self.withdraw(server.id, server.limit);
        }
    }

    fn withdraw(&mut self, id: ServerId, limit: Limit) {
        self.answers.leave(id);
        if let Some(server) = slot(&mut self.servers, id.index()) {
            server.available = false;
            server.limit = limit;
            *slot(&mut self.ranks, id.index()) = None;
            if let Some(vip) = server.vip {
                self.virtuals.leave(vip);
            }
        }
        self.unsettled = true;
    }

    /// What a service's scheduler draws at random follows from this: no two draw alike.
    fn seed(&self, id: ServiceId) -> u64 {
        u64::from(id.0) << 16 | u64::from(self.stagger)
    }
}

/// The place of `index`, made when the table is shorter.
pub(super) fn slot<T>(table: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if table.len() <= index {
        table.resize_with(index + 1, || None);
    }
    &mut table[index]
}

/// One user less of each address.
pub(super) fn release(users: &mut HashMap<IpAddr, u32>, addresses: &[IpAddr]) {
    for address in addresses {
        if let Some(count) = users.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                users.remove(address);
            }
        }
    }
}

//! Each change, carried out on the model.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use control::{
    Errno, Refusal, ServerOptions, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, Totals,
};

use super::health::Condition;
use super::ledger::{Past, Tally};
use super::rules::{
    answerable, policy, same_family, same_port, server_address, tunnel, virtual_address, weighed,
};
use super::undo::{Transaction, Undo};
use super::uses::{Use, Uses};
use super::{
    Head, Model, Place, SWEEP_S, Server, Service, TIMEOUT_MAX_S, TRASH_IDLE_S, name, refuse,
};
use crate::conn::state::State;
use crate::control::stats::{self, Estimator, minus, plus};
use crate::update::{ServerId, ServiceId, Update};

impl Model {
    pub(super) fn add_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if self.by_key.contains_key(&key) {
            return Err(refuse(
                Errno::Eexist,
                format!("service {} exists already", name(&key)),
            ));
        }
        virtual_address(&key)?;
        let policy = policy(&key, spec)?;
        if let Some(address) = key.address() {
            self.uses.allow(address.ip(), Use::Service)?;
        }
        self.clock += 1;
        let head = Head {
            policy,
            options: ServiceOptions::default(),
            gone: Totals::default(),
            zero: Totals::default(),
            estimator: Estimator::default(),
        };
        let service = Service {
            key,
            born: self.clock,
            since: self.now,
            head,
            past: Past::default(),
            servers: BTreeMap::new(),
            local_addresses: Vec::new(),
            health: Arc::default(),
            table: None,
        };
        let Some(id) = self.services.insert(service) else {
            let max = self.services.max;
            return Err(refuse(
                Errno::Enomem,
                format!("all {max} services are in use; raise max_services"),
            ));
        };
        let id = ServiceId(id);
        let past = self.past(id, &key);
        self.services.get_mut(id.0).past = past;
        self.by_key.insert(key, id);
        if let Some(address) = key.address() {
            self.uses.add(address.ip(), Use::Service);
        }
        done.undo.push(Undo::Service(id, None));
        done.update(id, Update::AddService { id, key, policy });
        Ok(())
    }

    pub(super) fn edit_service(
        &mut self,
        key: ServiceKey,
        spec: &ServiceSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(&key)?;
        let policy = policy(&key, spec)?;
        for server in self.services.get(id.0).servers.values() {
            let server = self.servers.get(server.0);
            answerable(&key, &policy, server.address, server.spec.mode)?;
        }
        let head = self.head(id);
        // The same scheduler keeps its cursor.
        if head.policy != policy {
            done.undo.push(Undo::Head(id, *head));
            head.policy = policy;
            done.update(id, Update::EditService { id, policy });
        }
        Ok(())
    }

    pub(super) fn delete_service(&mut self, id: ServiceId, done: &mut Transaction) {
        let service = self.services.remove(id.0);
        self.remember_service(id, &service);
        for server in service.servers.values() {
            self.bin(*server, service.born, done);
        }
        self.by_key.remove(&service.key);
        self.count_uses(&service, Uses::remove);
        done.undo.push(Undo::Service(id, Some(service)));
        done.update(id, Update::DeleteService { id });
    }

    pub(super) fn add_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let service = self.find(key)?;
        // In the kernel's order: which complaint comes first is seen.
        same_family(key, address, spec)?;
        weighed(spec, address)?;
        tunnel(address, spec)?;
        let known = self.by_address.get(&(*key, address)).copied();
        let old = known.map(|id| *self.servers.get(id.0));
        if old.is_some_and(|old| matches!(old.place, Place::Listed { .. })) {
            let detail = format!("service {} has server {address} already", name(key));
            return Err(refuse(Errno::Eexist, detail));
        }
        server_address(address)?;
        same_port(key, address, spec)?;
        answerable(key, &self.head(service).policy, address, spec.mode)?;
        self.uses.allow(address.ip(), Use::Server)?;
        self.clock += 1;
        let place = Place::Listed {
            service,
            age: self.clock,
        };
        let ramp = self.ramp_for(service, None, spec.weight);
        let id = match known {
            Some(id) => self.server_again(id, spec, place, done),
            None => self.new_server(*key, address, spec, place, done)?,
        };
        let server = self.servers.get_mut(id.0);
        server.ramp = ramp;
        let added = server.added(service, id);
        self.enlist(service, self.clock, id);
        done.undo.push(Undo::Listed {
            service,
            age: self.clock,
        });
        done.update(service, added);
        Ok(())
    }

    /// A server that was in the trash has its place in a service now.
    fn server_again(
        &mut self,
        id: ServerId,
        spec: ServerSpec,
        place: Place,
        done: &mut Transaction,
    ) -> ServerId {
        let (old, now) = (*self.servers.get(id.0), stats::counted(&self.pages, id));
        let back = match (old.place, place) {
            // The same service finds its server's counters as they were, a new one finds none.
            (Place::Trash { service_born, .. }, Place::Listed { service, .. })
                if service_born == self.services.get(service.0).born =>
            {
                old
            }
            _ => Server::counting_from(now, old),
        };
        done.undo.push(Undo::Server(id, Some(old)));
        *self.servers.get_mut(id.0) = Server {
            spec,
            last_weight: spec.weight,
            place,
            options: ServerOptions::default(),
            joined: now,
            ..back
        };
        id
    }

    fn new_server(
        &mut self,
        service: ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        place: Place,
        done: &mut Transaction,
    ) -> Result<ServerId, Refusal> {
        let zero = Totals::default();
        let server = Server {
            service,
            address,
            spec,
            last_weight: spec.weight,
            place,
            ramp: None,
            draining: None,
            options: ServerOptions::default(),
            condition: Condition::default(),
            joined: zero,
            zero,
            origin: Tally::default(),
            estimator: Estimator::default(),
        };
        let Some(id) = self.servers.insert(server) else {
            let max = self.servers.max;
            let detail = format!(
                "all {max} servers are in use (a deleted one for up to {} s after its last connection); \
                 raise max_servers",
                TRASH_IDLE_S + 2 * SWEEP_S
            );
            return Err(refuse(Errno::Enomem, detail));
        };
        let id = ServerId(id);
        // The page may hold what an earlier server of this number counted.
        let now = stats::counted(&self.pages, id);
        *self.servers.get_mut(id.0) = Server {
            joined: now,
            origin: self.origin(id, service, address),
            ..Server::counting_from(now, server)
        };
        self.by_address.insert((service, address), id);
        done.undo.push(Undo::Server(id, None));
        Ok(id)
    }

    pub(super) fn edit_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        spec: ServerSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let service = self.find(key)?;
        same_family(key, address, spec)?;
        weighed(spec, address)?;
        tunnel(address, spec)?;
        let (id, ..) = self.find_server(key, address)?;
        same_port(key, address, spec)?;
        answerable(key, &self.head(service).policy, address, spec.mode)?;
        self.respecify(id, spec, done);
        Ok(())
    }

    /// What a server in its service is from now on. One that has a weight is not being drained.
    pub(super) fn respecify(&mut self, id: ServerId, spec: ServerSpec, done: &mut Transaction) {
        let Place::Listed { service, .. } = self.servers.get(id.0).place else {
            unreachable!("a server in the trash is not edited")
        };
        if spec.weight > 0 {
            self.undrain(id, done);
        }
        let ramp = self.ramp_on(service, id, spec.weight);
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        server.spec = spec;
        if spec.weight > 0 {
            server.last_weight = spec.weight;
        }
        server.ramp = ramp;
        if server.condition.removed {
            done.touched.insert(service);
        } else {
            let edited = server.edited(id);
            done.update(service, edited);
        }
    }

    pub(super) fn delete_server(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        let (id, service, age) = self.find_server(key, address)?;
        let joined = self.servers.get(id.0).joined;
        let contributed = minus(stats::counted(&self.pages, id), joined);
        let head = self.head(service);
        done.undo.push(Undo::Head(service, *head));
        head.gone = plus(head.gone, contributed);
        let service_born = self.services.get(service.0).born;
        let known = !self.servers.get(id.0).condition.removed;
        self.unlist(service, age);
        done.undo.push(Undo::Unlisted {
            service,
            age,
            server: id,
        });
        self.bin(id, service_born, done);
        done.touched.insert(service);
        if known {
            done.update(service, Update::DeleteServer { id });
        }
        Ok(())
    }

    pub(super) fn set_timeouts(
        &mut self,
        seconds: [Option<u32>; 3],
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let old = self.timeouts;
        let mut new = old;
        for (state, seconds) in [State::Established, State::FinWait, State::Udp]
            .into_iter()
            .zip(seconds)
        {
            // LVS reads 0 as "leave it".
            let Some(seconds) = seconds.filter(|s| *s > 0) else {
                continue;
            };
            if seconds > TIMEOUT_MAX_S {
                let detail = format!(
                    "a timeout of {seconds} s is too long, at most {TIMEOUT_MAX_S} (31 days) is right"
                );
                return Err(refuse(Errno::Einval, detail));
            }
            new.set_s(state, seconds);
        }
        self.timeouts = new;
        done.undo.push(Undo::Timeouts(old));
        done.updates.push(Update::SetTimeouts(new));
        Ok(())
    }
}

impl Server {
    /// What the workers are told when it comes.
    pub(super) fn added(&self, service: ServiceId, id: ServerId) -> Update {
        Update::AddServer {
            service,
            id,
            address: self.address,
            mode: self.spec.mode,
            tunnel: self.spec.tunnel,
            weight: self.weight_now(),
            thresholds: self.spec.thresholds,
        }
    }

    /// What the workers are told when it changed.
    pub(super) fn edited(&self, id: ServerId) -> Update {
        Update::EditServer {
            id,
            mode: self.spec.mode,
            tunnel: self.spec.tunnel,
            weight: self.weight_now(),
            thresholds: self.spec.thresholds,
        }
    }
}

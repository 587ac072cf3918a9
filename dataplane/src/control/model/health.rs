//! Servers that get no connections for their health, whatever weight they are set to: those that are
//! down or ejected, and those that stand by for when no other is left.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{
    Errno, Fitness, ForwardMode, Health, OnFailure, Passive, Protocol, Refusal, ServerHealth,
    ServerOptions, ServiceHealth, ServiceKey, Via,
};

use super::ledger::Tally;
use super::undo::{Transaction, Undo};
use super::{Model, Place, Server, Service, refuse};
use crate::update::{ServerId, ServiceId, Update};

/// How a server is, and what the workers know of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Condition {
    /// `None`: nobody looks.
    fitness: Option<Fitness>,
    /// Its packets say that it fails.
    ejected: bool,
    standing_by: bool,
    /// The workers give it no connections ...
    withheld: bool,
    /// ... and do not have it in its service.
    pub(super) removed: bool,
}

/// A server that somebody is to look after.
#[derive(Debug, Clone)]
pub struct Patient {
    pub id: ServerId,
    pub service: ServiceKey,
    pub address: SocketAddr,
    pub mode: ForwardMode,
    pub options: ServerOptions,
    pub health: Arc<Health>,
}

impl Patient {
    /// How what its packets say is judged, if they say anything: replies of other methods are not seen,
    /// and what is not TCP is not answered.
    pub fn told_by_packets(&self) -> Option<Passive> {
        let is_tcp = self.service.protocol() == Some(Protocol::Tcp);
        let is_seen = matches!(self.mode, ForwardMode::Nat | ForwardMode::FullNat);
        self.health.passive.filter(|_| is_tcp && is_seen)
    }
}

impl Condition {
    fn is_fit(self) -> bool {
        self.fitness != Some(Fitness::Down) && !self.ejected
    }

    pub(super) const fn is_withheld(self) -> bool {
        self.withheld
    }

    /// It has no place among those whom clients are hashed to.
    pub(super) const fn is_aside(self) -> bool {
        self.standing_by || self.removed
    }
}

impl Service {
    pub(super) fn health(&self, servers: impl Iterator<Item = Server>) -> Option<ServiceHealth> {
        let is_up = |server: &Server| {
            let Condition {
                fitness, ejected, ..
            } = server.condition;
            fitness == Some(Fitness::Up) && !ejected && !server.options.sorry
        };
        let up = u32::try_from(servers.filter(is_up).count()).unwrap_or(u32::MAX);
        // Where it is announced says nothing of servers.
        let plain = Health {
            announce: self.health.announce.clone(),
            ..Health::default()
        };
        (*self.health != plain).then_some(ServiceHealth {
            up,
            min_healthy: self.health.min_healthy,
        })
    }
}

impl Server {
    /// Whether its checks say that it fails.
    pub(super) fn is_down(&self) -> bool {
        self.condition.fitness == Some(Fitness::Down)
    }

    /// As it is listed.
    pub(super) fn health(&self) -> Option<ServerHealth> {
        let Condition {
            fitness,
            ejected,
            standing_by,
            removed,
            ..
        } = self.condition;
        let watched = fitness.is_some() || ejected || self.options.sorry;
        watched.then_some(ServerHealth {
            fitness: fitness.unwrap_or_default(),
            ejected,
            standing_by,
            removed,
        })
    }
}

impl Model {
    pub(super) fn set_health(
        &mut self,
        key: &ServiceKey,
        health: &Health,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.find(key)?;
        let wrong = |why: String| refuse(Errno::Einval, format!("service {key}: {why}"));
        health.check().map_err(wrong)?;
        for check in health
            .checks
            .iter()
            .filter(|check| check.via == Via::Method)
        {
            check.virtual_target(key).map_err(wrong)?;
            if self.kernels_sides().next().is_none() {
                let why = "a check with via = \"method\" leaves by the kernel's side of a port, and no \
                           port has one: kernel = \"auto\" is right";
                return Err(wrong(why.to_owned()));
            }
        }
        let is_tcp = key.protocol() == Some(Protocol::Tcp);
        if health.passive.is_some() && !is_tcp {
            return Err(wrong("passive goes with tcp only".to_owned()));
        }
        if health.announce.is_some() && key.address().is_none() {
            return Err(wrong(
                "announce goes with an address, not a mark".to_owned(),
            ));
        }
        let place = &mut self.services.get_mut(id.0).health;
        if **place != *health {
            let old = std::mem::replace(place, Arc::new(health.clone()));
            done.undo.push(Undo::Health(id, old));
            done.touched.insert(id);
        }
        Ok(())
    }

    pub(super) fn set_server_options(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        options: ServerOptions,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        let (id, service, _) = self.find_server(key, address)?;
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        server.options = options;
        done.touched.insert(service);
        Ok(())
    }

    /// Virtual addresses that are announced, on which interface of the kernel's, and whether all services
    /// there that say so are fit for it.
    pub fn announced(&self) -> BTreeMap<(IpAddr, String), bool> {
        let mut all = BTreeMap::new();
        for service in self.services.iter() {
            let (Some(at), Some(interface)) = (service.key.address(), &service.health.announce)
            else {
                continue;
            };
            let servers = service.servers.values().map(|id| *self.servers.get(id.0));
            let is_fit = (service.health(servers)).is_none_or(|health| health.is_enough());
            *all.entry((at.ip(), interface.clone())).or_insert(true) &= is_fit;
        }
        all
    }

    /// Every server that somebody is to look after.
    pub fn patients(&self) -> Vec<Patient> {
        let mut patients = Vec::new();
        for service in self.services.iter() {
            let Health {
                checks, passive, ..
            } = &*service.health;
            if checks.is_empty() && passive.is_none() {
                continue;
            }
            patients.extend(service.servers.values().map(|id| {
                let server = self.servers.get(id.0);
                Patient {
                    id: *id,
                    service: service.key,
                    address: server.address,
                    mode: server.spec.mode,
                    options: server.options,
                    health: Arc::clone(&service.health),
                }
            }));
        }
        patients
    }

    /// What the workers counted of a server so far.
    pub fn counted(&self, id: ServerId) -> Tally {
        Tally::of(&self.pages, id)
    }

    /// Servers that nobody looks after any more are as if nobody ever had.
    pub fn discharge(&mut self, stays: impl Fn(ServerId) -> bool) -> Vec<Update> {
        let ids = self.servers.ids().into_iter().map(ServerId);
        let ids: Vec<_> = ids.filter(|id| !stays(*id)).collect();
        self.diagnose(ids.into_iter().map(|id| (id, None, false)))
    }

    /// How servers are now, and whether each is ejected: what the workers must apply.
    pub fn diagnose(
        &mut self,
        found: impl IntoIterator<Item = (ServerId, Option<Fitness>, bool)>,
    ) -> Vec<Update> {
        let mut done = Transaction::default();
        for (id, fitness, ejected) in found {
            let Some(server) = self.servers.find_mut(id.0) else {
                continue;
            };
            let condition = &mut server.condition;
            let changed = (condition.fitness, condition.ejected) != (fitness, ejected);
            if let (Place::Listed { service, .. }, true) = (server.place, changed) {
                (condition.fitness, condition.ejected) = (fitness, ejected);
                done.touched.insert(service);
            }
        }
        self.settle(&mut done);
        self.tabulated(done)
    }

    /// Of the services that were touched, the workers hear which servers they get.
    pub(super) fn settle(&mut self, done: &mut Transaction) {
        let touched = done.touched.iter().chain(done.last.keys());
        let touched: Vec<ServiceId> = touched
            .copied()
            .filter(|id| self.is_unsettled(*id))
            .collect();
        for id in touched {
            self.settle_service(id, done);
        }
    }

    /// Whether any server of a service may be withheld.
    fn is_unsettled(&self, id: ServiceId) -> bool {
        let servers = (self.services.find(id.0)).map(|service| service.servers.values());
        servers.into_iter().flatten().any(|id| {
            let server = self.servers.get(id.0);
            server.options.sorry || server.condition != Condition::default()
        })
    }

    fn settle_service(&mut self, id: ServiceId, done: &mut Transaction) {
        let service = self.services.get(id.0);
        let removes = service.health.on_failure == OnFailure::Remove;
        let serves = |server: &ServerId| {
            let server = self.servers.get(server.0);
            let fit = server.condition.is_fit() && !server.options.sorry;
            fit && server.spec.weight > 0
        };
        let others = service.servers.values().any(serves);
        for server in service.servers.values().copied().collect::<Vec<_>>() {
            let server_now = self.servers.get(server.0);
            let old = server_now.condition;
            let standing_by = server_now.options.sorry && others;
            let new = Condition {
                standing_by,
                withheld: standing_by || !old.is_fit(),
                removed: removes && !old.is_fit(),
                ..old
            };
            if new != old {
                self.set_condition(id, server, new, done);
            }
        }
    }

    fn set_condition(
        &mut self,
        service: ServiceId,
        id: ServerId,
        new: Condition,
        done: &mut Transaction,
    ) {
        let old = *self.servers.get(id.0);
        let ramp = match (old.condition.withheld, new.withheld) {
            (_, true) => None,
            (true, false) => self.ramp_for(service, Some(id), old.spec.weight),
            (false, false) => old.ramp,
        };
        done.undo.push(Undo::Server(id, Some(old)));
        let server = self.servers.get_mut(id.0);
        (server.condition, server.ramp) = (new, ramp);
        let server = *server;
        let draining = new.withheld || server.draining.is_some();
        match (old.condition.removed, new.removed) {
            (false, true) => done.update(service, Update::DeleteServer { id }),
            (true, true) => {}
            (true, false) => {
                self.renew(service, id, done);
                done.update(service, server.added(service, id));
                done.update(service, Update::DrainServer { id, draining });
            }
            (false, false) => {
                done.update(service, server.edited(id));
                done.update(service, Update::DrainServer { id, draining });
            }
        }
    }

    /// The newest of its service, as the workers will have it.
    fn renew(&mut self, service: ServiceId, id: ServerId, done: &mut Transaction) {
        let Place::Listed { age, .. } = self.servers.get(id.0).place else {
            return;
        };
        self.unlist(service, age);
        done.undo.push(Undo::Unlisted {
            service,
            age,
            server: id,
        });
        self.clock += 1;
        let age = self.clock;
        self.servers.get_mut(id.0).place = Place::Listed { service, age };
        self.enlist(service, age, id);
        done.undo.push(Undo::Listed { service, age });
    }
}

//! A batch that is refused leaves everything as it was: each step says how to take it back.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use control::{Gateways, Health, Mac, Prefix, Settings, SyncDaemon, SyncRole};

use super::ports::Ports;
use super::uses::{Use, Uses};
use super::{Head, Model, Server, Service};
use crate::conn::Timeouts;
use crate::marks::Rule;
use crate::net::Interface;
use crate::packet::PortId;
use crate::update::{LocalAddress, ServerId, ServiceId, Update};

/// Steps carried out so far, and how to take each back.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) updates: Vec<Update>,
    /// The last update of each service that any is about.
    pub(super) last: HashMap<ServiceId, usize>,
    /// Services without an update among whose servers something may have changed.
    pub(super) touched: HashSet<ServiceId>,
    pub(super) undo: Vec<Undo>,
    /// The rules that mark packets changed: told once, at the end.
    pub(super) updates_marks: bool,
    /// Ports that came and stay, and those that went.
    pub(super) opened: Vec<PortId>,
    pub(super) closed: Vec<PortId>,
    /// Daemons that came and stay, and those that went.
    pub(super) started: Vec<SyncRole>,
    pub(super) stopped: Vec<SyncRole>,
}

#[derive(Debug)]
pub(super) enum Undo {
    /// What the slot held before.
    Service(ServiceId, Option<Service>),
    Server(ServerId, Option<Server>),
    Head(ServiceId, Head),
    Health(ServiceId, Arc<Health>),
    Listed {
        service: ServiceId,
        age: u64,
    },
    Unlisted {
        service: ServiceId,
        age: u64,
        server: ServerId,
    },
    /// At this place of the service's list.
    LocalAdded(ServiceId, usize),
    LocalDeleted(ServiceId, usize, LocalAddress),
    Timeouts(Timeouts),
    Settings(Settings),
    Daemons(Vec<SyncDaemon>),
    /// At these places of the list.
    MarkAdded(usize),
    MarkDeleted(usize, Rule),
    Ports(Ports),
    Interfaces(Vec<Interface>),
    /// What there was before.
    Route(Prefix, Option<Gateways>),
    Neighbour(IpAddr, Option<Mac>),
}

impl Transaction {
    /// An update of a service, its servers included.
    pub(super) fn update(&mut self, service: ServiceId, update: Update) {
        self.last.insert(service, self.updates.len());
        self.updates.push(update);
    }
}

impl Model {
    pub(super) fn take_back(&mut self, mut done: Transaction) {
        while let Some(undo) = done.undo.pop() {
            self.undo(undo);
        }
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Service(id, None) => {
                let service = self.services.remove(id.0);
                self.by_key.remove(&service.key);
                self.count_uses(&service, Uses::remove);
            }
            Undo::Service(id, Some(old)) => {
                self.count_uses(&old, Uses::add);
                self.by_key.insert(old.key, id);
                self.services.put_back(id.0, old);
            }
            Undo::Server(id, None) => {
                let server = self.servers.remove(id.0);
                self.by_address.remove(&(server.service, server.address));
            }
            Undo::Server(id, Some(old)) => *self.servers.get_mut(id.0) = old,
            Undo::Head(id, old) => *self.head(id) = old,
            Undo::Health(id, old) => self.services.get_mut(id.0).health = old,
            Undo::Listed { service, age } => self.unlist(service, age),
            Undo::Unlisted {
                service,
                age,
                server,
            } => self.enlist(service, age, server),
            Undo::LocalAdded(id, index) => {
                let local = self.services.get_mut(id.0).local_addresses.remove(index);
                self.uses.remove(local.address, Use::Local);
            }
            Undo::LocalDeleted(id, index, local) => {
                self.uses.add(local.address, Use::Local);
                let addresses = &mut self.services.get_mut(id.0).local_addresses;
                addresses.insert(index, local);
            }
            Undo::Timeouts(old) => self.timeouts = old,
            Undo::Settings(old) => self.settings = old,
            Undo::Daemons(old) => self.daemons = old,
            Undo::MarkAdded(place) => {
                self.take_mark(place);
            }
            Undo::MarkDeleted(place, rule) => self.put_mark(place, rule),
            Undo::Ports(old) => self.ports = old,
            Undo::Interfaces(old) => {
                self.network.set_interfaces(old);
            }
            Undo::Route(to, old) => {
                self.network.set_route(to, old);
            }
            Undo::Neighbour(address, old) => {
                self.network.set_neighbour(address, old);
            }
        }
    }
}

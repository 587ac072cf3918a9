//! A batch that is refused leaves everything as it was: each step says how to take it back.

use super::{Head, Model, Server, Service};
use crate::conn::Timeouts;
use crate::update::{ServerId, ServiceId, Update};

/// Steps carried out so far, and how to take each back.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) updates: Vec<Update>,
    pub(super) undo: Vec<Undo>,
}

#[derive(Debug)]
pub(super) enum Undo {
    /// What the slot held before.
    Service(ServiceId, Option<Service>),
    Server(ServerId, Option<Server>),
    Head(ServiceId, Head),
    Listed {
        service: ServiceId,
        age: u64,
    },
    Unlisted {
        service: ServiceId,
        age: u64,
        server: ServerId,
    },
    Timeouts(Timeouts),
}

impl Model {
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Service(id, None) => {
                let service = self.services.remove(id.0);
                self.by_key.remove(&service.key);
            }
            Undo::Service(id, Some(old)) => {
                self.by_key.insert(old.key, id);
                self.services.put_back(id.0, old);
            }
            Undo::Server(id, None) => {
                let server = self.servers.remove(id.0);
                self.by_address.remove(&(server.service, server.address));
            }
            Undo::Server(id, Some(old)) => *self.servers.get_mut(id.0) = old,
            Undo::Head(id, old) => *self.head(id) = old,
            Undo::Listed { service, age } => {
                self.services.get_mut(service.0).servers.remove(&age);
            }
            Undo::Unlisted {
                service,
                age,
                server,
            } => {
                self.services.get_mut(service.0).servers.insert(age, server);
            }
            Undo::Timeouts(old) => self.timeouts = old,
        }
    }
}

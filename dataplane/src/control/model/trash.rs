//! Deleted servers, kept while connections refer to them and a while longer.

use std::sync::Arc;

use super::health::Condition;
use super::undo::{Transaction, Undo};
use super::{LOCALS_MAX, Model, Place, TRASH_IDLE_S};
use crate::update::{ServerId, Update};

impl Model {
    /// Moves a server to the trash.
    pub(super) fn bin(&mut self, id: ServerId, service_born: u64, done: &mut Transaction) {
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        (server.ramp, server.draining) = (None, None);
        server.condition = Condition::default();
        server.place = Place::Trash {
            service_born,
            idle_since_s: None,
        };
    }

    /// Looks after the trash, every [`super::SWEEP_S`] seconds: a deleted server that no connection refers
    /// to is stamped, and forgotten when it still is so [`TRASH_IDLE_S`] later.
    /// What counted local addresses that nobody has any more goes when there are too many.
    pub fn sweep(&mut self, now_s: u64, in_use: impl Fn(ServerId) -> bool) -> Vec<Update> {
        if self.locals.len() > LOCALS_MAX {
            self.locals.retain(|_, pages| Arc::strong_count(pages) > 1);
        }
        let mut updates = Vec::new();
        for id in self.servers.ids() {
            let server = self.servers.get_mut(id);
            let Place::Trash { idle_since_s, .. } = &mut server.place else {
                continue;
            };
            let id = ServerId(id);
            *idle_since_s = match *idle_since_s {
                _ if in_use(id) => None,
                None => Some(now_s),
                Some(since) if now_s.saturating_sub(since) < TRASH_IDLE_S => Some(since),
                Some(_) => {
                    let server = self.servers.remove(id.0);
                    self.by_address.remove(&(server.service, server.address));
                    self.remember_server(id, &server);
                    updates.push(Update::ForgetServer { id });
                    continue;
                }
            };
        }
        updates
    }
}

//! Tables that schedulers look servers up in: built here, once for a batch, and kept for as long as a
//! worker may look into them.

use std::sync::Arc;

use control::{MH_TABLE_SIZE, ServiceKey};

use super::undo::{Transaction, Undo};
use super::{Model, Service};
use crate::sched::{Member, Recipe, Spread, Table};
use crate::update::{ServerId, ServiceId, Update};

impl Model {
    /// The updates of a batch with the tables that they call for, each behind the last update of its
    /// service.
    pub(super) fn tabulated(&mut self, done: Transaction) -> Vec<Update> {
        for undo in done.undo {
            if let Undo::Service(_, Some(gone)) = undo {
                self.retired.extend(gone.table);
            }
        }
        for update in &done.updates {
            // Its scheduler may have been another one in between, and begins without a table.
            if let Update::EditService { id, .. } = update
                && self.services.find(id.0).is_some()
            {
                self.retired
                    .extend(self.services.get_mut(id.0).table.take());
            }
        }
        let mut last: Vec<(usize, ServiceId)> = (done.last.into_iter())
            .map(|(id, index)| (index, id))
            .collect();
        last.sort_unstable_by_key(|(index, _)| *index);
        let mut last = last.into_iter().peekable();
        let mut updates = Vec::with_capacity(done.updates.len());
        for (index, update) in done.updates.into_iter().enumerate() {
            updates.push(update);
            if let Some((_, id)) = last.next_if(|(last, _)| *last == index) {
                updates.extend(self.new_table(id));
            }
        }
        updates
    }

    /// A table of the service as it now is, if it needs one that it does not have.
    fn new_table(&mut self, id: ServiceId) -> Option<Update> {
        let service = self.services.find(id.0)?;
        let recipe = self.recipe(service);
        if (service.table.as_ref()).is_some_and(|old| *old.recipe() == recipe) {
            return None;
        }
        let new = Table::build(recipe).map(Arc::new);
        let place = &mut self.services.get_mut(id.0).table;
        self.retired.extend(std::mem::replace(place, new.clone()));
        new.map(|table| Update::SetTable { id, table })
    }

    fn recipe(&self, service: &Service) -> Recipe {
        let head = &service.head;
        let member = |id: ServerId| {
            let server = self.servers.get(id.0);
            Member {
                id,
                address: server.address,
                weight: server.last_weight,
            }
        };
        let kind = head.policy.scheduler;
        let members = match kind.has_table() {
            true => {
                let ids = service.servers.values().copied();
                let ids = ids.filter(|id| !self.servers.get(id.0).condition.is_aside());
                ids.map(member).collect()
            }
            false => Vec::new(),
        };
        Recipe {
            kind,
            ipv6: service.key.is_ipv6(),
            mh_slots: head.options.mh_table_size.unwrap_or(MH_TABLE_SIZE),
            members,
        }
    }

    /// Whom a service's scheduler hashes clients to, if it does; as it now is, whether or not
    /// workers know.
    pub fn spread(&self, key: &ServiceKey) -> Option<Spread> {
        let service = self.services.get(self.by_key.get(key)?.0);
        let servers = service.servers.values();
        let weighed = servers.map(|id| {
            let server = self.servers.get(id.0);
            (server.address, server.weight_now())
        });
        let recipe = self.recipe(service);
        let table = match &service.table {
            Some(table) if *table.recipe() == recipe => Some(Arc::clone(table)),
            _ => Table::build(recipe).map(Arc::new),
        };
        Spread::new(service.head.policy.scheduler, table, weighed.collect())
    }

    /// Frees the tables and networks that no worker has any more.
    pub fn release(&mut self) {
        self.network.release();
        self.retired.retain(|table| Arc::strong_count(table) > 1);
    }
}

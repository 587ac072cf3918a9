//! Connections, templates and neighbours, as the workers list them.

use control::{Cursor, Filter, Neighbour, Refusal, Reply};

use super::Control;
use super::command::{Command, Fate, SLICE_MAX, Slice, Wanted, Worker, ask};
use super::server::Peer;
use crate::net::NeighbourView;

/// How often a worker lists [`SLICE_MAX`] connections for one reply.
const SLICES_MAX: usize = 64;

impl Control {
    /// Walks the workers one after the other, and then the templates that they share: a reply holds
    /// connections of one.
    pub(super) fn connections(
        &self,
        cursor: Cursor,
        filter: Filter,
        fate: Fate,
    ) -> Result<Reply, Refusal> {
        let own = self.workers.get(usize::from(cursor.worker));
        let wanted = Wanted {
            templates: own.is_none(),
            from: cursor.entry,
            filter,
            fate,
        };
        // Any worker knows all templates.
        let any = || self.workers.first().filter(|_| self.has_templates());
        let Some(worker) = own.or_else(any) else {
            return Ok(Reply::Connections {
                list: Vec::new(),
                next: None,
            });
        };
        let (list, entry) = listing(worker, wanted)?;
        let next_worker = cursor.worker.saturating_add(1);
        let goes_on = || usize::from(next_worker) < self.workers.len() || self.has_templates();
        let next = match entry {
            Some(entry) => Some(Cursor { entry, ..cursor }),
            None if own.is_some() && goes_on() => Some(Cursor {
                worker: next_worker,
                entry: 0,
            }),
            None => None,
        };
        Ok(Reply::Connections { list, next })
    }

    /// Of the slices of one walk the first says in the log what is ended.
    pub(super) fn end_connections(
        &self,
        cursor: Cursor,
        filter: Filter,
        reset: bool,
        peer: &Peer,
    ) -> Result<Reply, Refusal> {
        if cursor == Cursor::default() {
            let how = if reset { " by resets" } else { "" };
            tracing::info!(target: "audit", %peer, "end connections{how}: {filter}");
        }
        self.connections(cursor, filter, Fate::Ends { reset })
    }

    /// As the first worker knows them.
    pub(super) fn neighbours(&self) -> Result<Vec<Neighbour>, Refusal> {
        let Some(worker) = self.workers.first() else {
            return Ok(Vec::new());
        };
        let show = |view: NeighbourView| Neighbour {
            port: control::interface(&self.model.ports().name(view.port), view.vlan),
            address: view.address,
            mac: view.mac.map(control::mac_text),
            state: view.state,
        };
        let known = ask(worker, Command::Neighbours)?;
        Ok(known.into_iter().map(show).collect())
    }

    pub(super) fn has_templates(&self) -> bool {
        let templates = self.templates.as_ref();
        templates.is_some_and(|templates| templates.used() > 0)
    }
}

/// Several slices of a worker's listing, so that one that finds little goes on; and where to go on.
fn listing(worker: &Worker, mut wanted: Wanted) -> Result<Slice, Refusal> {
    let mut list = Vec::new();
    for _ in 0..SLICES_MAX {
        let (slice, next) = ask(worker, |reply| Command::Connections {
            wanted: wanted.clone(),
            reply,
        })?;
        list.extend(slice);
        match next {
            Some(next) if list.len() + SLICE_MAX <= control::CONNECTIONS_MAX => wanted.from = next,
            next => return Ok((list, next)),
        }
        if wanted.fate != Fate::Stays {
            break;
        }
    }
    Ok((list, Some(wanted.from)))
}

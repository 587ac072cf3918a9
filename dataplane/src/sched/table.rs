//! What `mh` and `conhash` look servers up in. The control side builds a table once for a batch of
//! changes and hands it to every worker, because that takes long and allocates.

use std::fmt;
use std::net::SocketAddr;

use super::{Candidate, Kind, conhash, mh};
use crate::update::ServerId;

/// A server as a table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub id: ServerId,
    pub address: SocketAddr,
    /// Its last one that was not 0: a quiesced server keeps its slots, so that nobody else's clients
    /// move.
    pub weight: u32,
}

/// All that a table depends on, so that every director with the same one has the same table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub kind: Kind,
    /// The family of the service.
    pub ipv6: bool,
    /// Slots of `mh`'s table, a prime from 251 on.
    pub mh_slots: u32,
    /// As they stand in the service: oldest first.
    pub members: Vec<Member>,
}

/// Servers by slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    recipe: Recipe,
    /// Of `conhash`, by slot: the highest hash that it is for, in ascending order. `mh` has none.
    pub(super) ends: Box<[u32]>,
    /// Places among the members.
    pub(super) slots: Box<[u32]>,
}

impl Table {
    /// `None` for a scheduler that needs no table.
    pub fn build(recipe: Recipe) -> Option<Self> {
        let (ends, slots) = match recipe.kind {
            Kind::Mh => (Vec::new(), mh::slots(&recipe)),
            Kind::Conhash => conhash::ring(&recipe.members),
            _ => return None,
        };
        Some(Self {
            recipe,
            ends: ends.into(),
            slots: slots.into(),
        })
    }

    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub fn bytes(&self) -> usize {
        size_of_val(&*self.ends) + size_of_val(&*self.slots)
    }

    /// Where the server of a slot stands. `None` if it does not stand where it stood when the table
    /// was built: a batch of changes is under way, and the next table is part of it.
    pub(super) fn find(&self, slot: usize, servers: &[Candidate]) -> Option<usize> {
        let place = *self.slots.get(slot)? as usize;
        let member = self.recipe.members.get(place)?;
        (servers.get(place)?.id == member.id).then_some(place)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("recipe", &self.recipe)
            .field("slots", &self.slots.len())
            .finish_non_exhaustive()
    }
}

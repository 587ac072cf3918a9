//! Whom a scheduler that hashes sends its clients to: to tell beforehand how many of them a change
//! moves.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Kind, Table, sh};

/// The server of each slot.
#[derive(Debug)]
pub struct Spread {
    kind: Kind,
    /// By place.
    addresses: Vec<SocketAddr>,
    slots: Slots,
}

#[derive(Debug)]
enum Slots {
    /// Places.
    Plain(Vec<usize>),
    Table(Arc<Table>),
}

impl Spread {
    /// Of servers with their weights, oldest first; `table` has the same ones. `None` of a scheduler
    /// that does not hash.
    pub fn new(
        kind: Kind,
        table: Option<Arc<Table>>,
        servers: Vec<(SocketAddr, u32)>,
    ) -> Option<Self> {
        let n = servers.len();
        let slots = match (kind, table) {
            (Kind::Mh | Kind::Conhash, Some(table)) => Slots::Table(table),
            (Kind::Sh, _) => Slots::Plain(sh::slots(servers.iter().map(|(_, weight)| *weight))),
            (Kind::Dh, _) if n == 0 => Slots::Plain(Vec::new()),
            (Kind::Dh, _) => Slots::Plain((0..sh::SLOTS).map(|slot| n - 1 - slot % n).collect()),
            _ => return None,
        };
        let addresses = servers.into_iter().map(|(address, _)| address).collect();
        Some(Self {
            kind,
            addresses,
            slots,
        })
    }

    pub fn scheduler(&self) -> &'static str {
        self.kind.name()
    }

    /// Bytes of the table that workers look into.
    pub fn bytes(&self) -> usize {
        match &self.slots {
            Slots::Plain(_) => 0,
            Slots::Table(table) => table.bytes(),
        }
    }

    /// How many slots, of how many, belong to another server in `after`. Of `conhash` they are
    /// shares of the ring. If clients are hashed otherwise than before, all of them count.
    pub fn moved(&self, after: &Self) -> (u64, u64) {
        let (old, new) = (self.runs(), after.runs());
        let of = new.last().map_or(0, |(end, _)| *end);
        if self.kind != after.kind || old.last().map(|(end, _)| *end) != Some(of) {
            return (of, of);
        }
        let (mut moved, mut at, mut old) = (0, 0, old.into_iter().peekable());
        for (end, server) in new {
            while at < end
                && let Some((old_end, old_server)) = old.peek()
            {
                let until = end.min(*old_end);
                moved += if server == *old_server { 0 } else { until - at };
                at = until;
                if *old_end <= at {
                    old.next();
                }
            }
        }
        (moved, of)
    }

    /// Slots that belong to one server: the first that does not any more, and the server.
    fn runs(&self) -> Vec<(u64, SocketAddr)> {
        let owned = |(end, place): (u64, usize)| Some((end, *self.addresses.get(place)?));
        let table = match &self.slots {
            Slots::Plain(places) => {
                return (1..)
                    .zip(places.iter().copied())
                    .filter_map(owned)
                    .collect();
            }
            Slots::Table(table) => table,
        };
        let places = table.slots.iter().map(|place| *place as usize);
        if self.kind == Kind::Mh {
            return (1..).zip(places).filter_map(owned).collect();
        }
        let ends = table.ends.iter().map(|end| u64::from(*end) + 1);
        let mut runs: Vec<_> = ends.zip(places).filter_map(owned).collect();
        // Behind the last point the ring begins anew.
        runs.extend(runs.first().map(|(_, first)| (1 << 32, *first)));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::{Member, Recipe};
    use crate::update::ServerId;

    fn spread(kind: Kind, weights: &[(u8, u32)]) -> Spread {
        let address = |n: u8| SocketAddr::from(([10, 0, 0, n], 80));
        let member = |(n, weight): &(u8, u32)| Member {
            id: ServerId(u32::from(*n)),
            address: address(*n),
            weight: *weight,
        };
        let table = Table::build(Recipe {
            kind,
            ipv6: false,
            mh_slots: 251,
            members: weights.iter().map(member).collect(),
        });
        let servers = weights.iter().map(|(n, weight)| (address(*n), *weight));
        Spread::new(kind, table.map(Arc::new), servers.collect()).unwrap()
    }

    #[test]
    fn what_stays_does_not_move_and_what_is_of_another_kind_does() {
        for (kind, of) in [
            (Kind::Mh, 251),
            (Kind::Sh, 256),
            (Kind::Dh, 256),
            (Kind::Conhash, 1 << 32),
        ] {
            let two = spread(kind, &[(1, 1), (2, 1)]);
            assert_eq!(two.moved(&spread(kind, &[(1, 1), (2, 1)])), (0, of));
            let three = spread(kind, &[(1, 1), (2, 1), (3, 1)]);
            let (moved, all) = two.moved(&three);
            assert_eq!(all, of);
            assert!(moved > of / 4 && moved < of, "{kind:?}: {moved}");
            let none = spread(kind, &[]);
            assert_eq!(three.moved(&none), (0, 0));
            assert_eq!(none.moved(&three), (of, of));
            let other = if kind == Kind::Sh { Kind::Dh } else { Kind::Sh };
            assert_eq!(two.moved(&spread(other, &[(1, 1), (2, 1)])), (256, 256));
        }
    }

    #[test]
    fn consistent_hashing_moves_about_what_the_new_server_gets() {
        for kind in [Kind::Mh, Kind::Conhash] {
            let two = spread(kind, &[(1, 1), (2, 1)]);
            let (moved, of) = two.moved(&spread(kind, &[(1, 1), (2, 1), (3, 1)]));
            assert!(
                moved * 10 > of * 2 && moved * 10 < of * 5,
                "{kind:?}: {moved}"
            );
        }
    }

    #[test]
    fn dealt_slots_are_compared_one_by_one() {
        // Newest first: 2 1 2 1 …, then 2 2 1 2 2 1 …
        let moved = spread(Kind::Sh, &[(1, 1), (2, 1)]).moved(&spread(Kind::Sh, &[(1, 1), (2, 2)]));
        let before = (0..256).map(|slot| 2 - slot % 2);
        let after = (0..256).map(|slot| if slot % 3 == 2 { 1 } else { 2 });
        let differ = before.zip(after).filter(|(a, b)| a != b).count();
        assert_eq!(moved, (differ as u64, 256));
    }
}

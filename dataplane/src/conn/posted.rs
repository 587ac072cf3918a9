//! Keys on their way into the index and out of it: each waits behind a few others while its bucket is
//! loaded, because who opens or closes many connections would otherwise wait for every single one.

use super::index::{Hash, Hit};

/// Writes that wait at once: what follows on one takes longer than the memory.
const DEPTH: usize = 16;

/// One key to be added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) hash: Hash,
    pub(super) hit: Hit,
    /// Or removes it.
    pub(super) adds: bool,
}

/// A queue of writes.
#[derive(Debug)]
pub(super) struct Posted {
    writes: [Option<Write>; DEPTH],
    /// Of each that adds, in the same place: the connection and the key, for a look at all of them.
    entries: [u32; DEPTH],
    prints: [u32; DEPTH],
    first: usize,
    len: usize,
}

/// In the place of an entry: nothing is added.
const NONE: u32 = u32::MAX;

impl Default for Posted {
    fn default() -> Self {
        Self {
            writes: [None; DEPTH],
            entries: [NONE; DEPTH],
            prints: [0; DEPTH],
            first: 0,
            len: 0,
        }
    }
}

impl Posted {
    /// Appends a write; returns the first one of a full queue, which is to be carried out now.
    #[inline(always)]
    pub(super) fn push(&mut self, write: Write) -> Option<Write> {
        let at = (self.first + self.len) % DEPTH;
        let due = self.writes[at].replace(write);
        if due.is_some() {
            self.first = (self.first + 1) % DEPTH;
        } else {
            self.len += 1;
        }
        self.entries[at] = if write.adds { write.hit.entry() } else { NONE };
        self.prints[at] = write.hash.print();
        due
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Write> {
        let due = self.writes[self.first].take()?;
        self.entries[self.first] = NONE;
        self.first = (self.first + 1) % DEPTH;
        self.len -= 1;
        Some(due)
    }

    /// Whether a key of this connection is yet to be added.
    #[inline(always)]
    pub(super) fn adds(&self, entry: u32) -> bool {
        let entries = self.entries.iter();
        entries.fold(false, |found, other| found | (*other == entry))
    }

    /// The reference of this hash that is yet to be added, the newest that `is` accepts.
    #[inline(always)]
    pub(super) fn find(&self, hash: Hash, is: impl FnMut(Hit) -> bool) -> Option<Hit> {
        let prints = self.prints.iter().zip(&self.entries);
        let may_be = prints.fold(false, |found, (print, entry)| {
            found | ((*print == hash.print()) & (*entry != NONE))
        });
        if may_be { self.search(hash, is) } else { None }
    }

    #[cold]
    fn search(&self, hash: Hash, mut is: impl FnMut(Hit) -> bool) -> Option<Hit> {
        let newest_first = (0..self.len).rev().map(|at| (self.first + at) % DEPTH);
        let mut adding = newest_first.filter_map(|place| {
            let write = self.writes[place].filter(|write| write.adds && write.hash == hash)?;
            Some(write.hit)
        });
        adding.find(|hit| is(*hit))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::conn::Conns;
    use crate::wire::flow::Flow;

    proptest! {
        #[test]
        fn a_queue_that_can_be_searched(
            steps in vec((0u32..40, any::<bool>(), 0u8..3), 1..200),
        ) {
            let conns = Conns::new(1, [1, 2]).unwrap();
            let hash = |n: u32| conns.hash(&Flow { ports: n % 5, ..Flow::default() });
            let (mut posted, mut model) = (Posted::default(), VecDeque::new());
            for (n, adds, pops) in steps {
                let write = Write { hash: hash(n), hit: Hit::new(n, n % 2 == 1), adds };
                model.push_back(write);
                let due = (model.len() > DEPTH).then(|| model.pop_front().unwrap());
                prop_assert_eq!(posted.push(write), due);
                for _ in 0..pops {
                    prop_assert_eq!(posted.pop(), model.pop_front());
                }
                for n in 0..40 {
                    let adding = |write: &&Write| write.adds && write.hash == hash(n);
                    let is = |hit: Hit| hit.entry() % 3 == n % 3;
                    let mut adding = model.iter().rev().filter(adding).map(|write| write.hit);
                    let found = adding.find(|hit| is(*hit));
                    prop_assert_eq!(posted.find(hash(n), is), found);
                    let adds = model.iter().any(|write| write.adds && write.hit.entry() == n);
                    prop_assert_eq!(posted.adds(n), adds);
                }
            }
        }
    }
}

//! Keys on their way into the index and out of it: each waits behind a few others while its bucket is
//! loaded, because who opens or closes many connections would otherwise wait for every single one.

use super::index::{Hash, Hit};

/// Writes that wait at once: what follows on one takes longer than the memory.
pub(super) const DEPTH: usize = 16;

/// One key to be added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) hash: Hash,
    pub(super) hit: Hit,
    /// Or removes it.
    pub(super) adds: bool,
}

/// In a place where nothing waits.
const NOTHING: Write = Write {
    hash: Hash::NONE,
    hit: Hit::NOWHERE,
    adds: false,
};

/// A queue of writes.
#[derive(Debug)]
pub(super) struct Posted {
    writes: [Write; DEPTH],
    first: usize,
    len: usize,
}

impl Default for Posted {
    fn default() -> Self {
        Self {
            writes: [NOTHING; DEPTH],
            first: 0,
            len: 0,
        }
    }
}

impl Posted {
    /// Appends a write; returns the first one of a full queue, which is to be carried out now.
    #[inline(always)]
    pub(super) fn push(&mut self, write: Write) -> Option<Write> {
        let due = if self.len == DEPTH { self.pop() } else { None };
        self.writes[(self.first + self.len) % DEPTH] = write;
        self.len += 1;
        due
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<Write> {
        self.len = self.len.checked_sub(1)?;
        let due = self.writes[self.first % DEPTH];
        self.first = (self.first + 1) % DEPTH;
        Some(due)
    }

    /// What is yet to be added, the newest first.
    fn adding(&self) -> impl Iterator<Item = &Write> {
        let newest_first = (0..self.len).rev().map(|at| (self.first + at) % DEPTH);
        let writes = newest_first.map(|place| &self.writes[place]);
        writes.filter(|write| write.adds)
    }

    /// Whether a key of this connection is yet to be added.
    #[cold]
    pub(super) fn adds(&self, entry: u32) -> bool {
        self.adding().any(|write| write.hit.entry() == entry)
    }

    /// The reference of this hash that is yet to be added, the newest that `is` accepts.
    #[cold]
    pub(super) fn find(&self, hash: Hash, mut is: impl FnMut(Hit) -> bool) -> Option<Hit> {
        let mut found = self.adding().filter(|write| write.hash == hash);
        found.find(|write| is(write.hit)).map(|write| write.hit)
    }
}

/// Keys that were added lately: those that were not are mostly told by one bit.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bits: [u64; RECENT_WORDS],
    any: bool,
}

/// Sixteen bits for each key that a burst adds.
const RECENT_WORDS: usize = 16;

impl Recent {
    #[inline(always)]
    fn place(hash: Hash) -> (usize, u64) {
        let tag = usize::from(hash.tag());
        (tag / 64 % RECENT_WORDS, 1 << (tag % 64))
    }

    #[inline(always)]
    pub(super) fn add(&mut self, hash: Hash) {
        let (word, bit) = Self::place(hash);
        self.bits[word] |= bit;
        self.any = true;
    }

    /// `false`: it was not added.
    #[inline(always)]
    pub(super) fn may_have(&self, hash: Hash) -> bool {
        let (word, bit) = Self::place(hash);
        self.bits[word] & bit != 0
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        if self.any {
            *self = Self::default();
        }
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

    #[test]
    fn what_came_lately_may_be_there_and_little_else() {
        let conns = Conns::new(1000, [1, 2]).unwrap();
        let hash = |ports: u32| {
            conns.hash(&Flow {
                ports,
                ..Flow::default()
            })
        };
        let mut recent = Recent::default();
        (0..64).for_each(|n| recent.add(hash(n)));
        assert!((0..64).all(|n| recent.may_have(hash(n))));
        assert!((64..1064).filter(|n| recent.may_have(hash(*n))).count() < 150);
        recent.clear();
        assert!(!(0..1064).any(|n| recent.may_have(hash(n))));
    }

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

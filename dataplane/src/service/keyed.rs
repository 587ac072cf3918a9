//! Few or many things by a word that packets have: a look-up of one cache line that can be begun ahead of
//! time.

use crate::cpu;

/// Slots to begin with; always a power of two.
const SLOTS_MIN: usize = 16;

/// Values by key; 0 is none. A key that finds its slot taken has the next free one, at a load of 3/4
/// mostly in the same cache line.
#[derive(Debug, Default)]
pub(super) struct Keyed<V> {
    slots: Vec<Slot<V>>,
    used: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot<V> {
    /// 0: free.
    key: u64,
    value: V,
}

impl<V: Copy + Default> Keyed<V> {
    #[inline(always)]
    pub(super) fn get(&self, key: u64) -> Option<V> {
        let slot = self.slots.get(self.place(key)?)?;
        (slot.key == key).then_some(slot.value)
    }

    /// Begins to load what [`Self::get`] reads.
    #[inline(always)]
    pub(super) fn prefetch(&self, key: u64) {
        cpu::prefetch(&self.slots, self.home(key));
    }

    pub(super) fn insert(&mut self, key: u64, value: V) {
        if 4 * (self.used + 1) > 3 * self.slots.len() {
            let longer = vec![Slot::default(); SLOTS_MIN.max(2 * self.slots.len())];
            let old = std::mem::replace(&mut self.slots, longer);
            for slot in old.into_iter().filter(|slot| slot.key != 0) {
                self.put(slot);
            }
        }
        self.used += usize::from(self.get(key).is_none());
        self.put(Slot { key, value });
    }

    fn put(&mut self, slot: Slot<V>) {
        if let Some(place) = self.place(slot.key) {
            self.slots[place] = slot;
        }
    }

    pub(super) fn remove(&mut self, key: u64) {
        if self.get(key).is_none() {
            return;
        }
        let Some(mut free) = self.place(key) else {
            return;
        };
        self.used -= 1;
        // Those behind it move up, so that none is behind a free slot that begins at its home or before.
        let mut at = self.after(free);
        while self.slots[at].key != 0 {
            let home = self.home(self.slots[at].key);
            if self.distance(home, at) >= self.distance(free, at) {
                self.slots[free] = self.slots[at];
                free = at;
            }
            at = self.after(at);
        }
        self.slots[free] = Slot::default();
    }

    /// The slot with this key, or the free one where it would be; some are free.
    #[inline(always)]
    fn place(&self, key: u64) -> Option<usize> {
        let mut at = self.home(key);
        loop {
            let slot = self.slots.get(at)?;
            if slot.key == key || slot.key == 0 {
                return Some(at);
            }
            at = self.after(at);
        }
    }

    /// Addresses and ports that follow on each other are spread evenly.
    #[inline(always)]
    fn home(&self, key: u64) -> usize {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & self.mask()
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    #[inline(always)]
    fn after(&self, at: usize) -> usize {
        (at + 1) & self.mask()
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_any_map(steps in vec((1u64..40, any::<bool>(), 0u8..9), 1..300)) {
            let (mut keyed, mut model) = (Keyed::default(), HashMap::new());
            for (key, adds, value) in steps {
                // Few homes.
                let key = key << 60 | key;
                if adds {
                    keyed.insert(key, value);
                    model.insert(key, value);
                } else {
                    keyed.remove(key);
                    model.remove(&key);
                }
                for n in 1..41 {
                    let key = n << 60 | n;
                    prop_assert_eq!(keyed.get(key), model.get(&key).copied());
                }
            }
        }
    }
}

//! Ids: small numbers that are used anew.

/// Values by small numbers that are used anew, the last freed first.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    pub(super) max: usize,
}

impl<T> Slots<T> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            max,
        }
    }

    /// `None` when full.
    pub(super) fn insert(&mut self, value: T) -> Option<u32> {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return Some(id);
        }
        let id = u32::try_from(self.slots.len())
            .ok()
            .filter(|id| (*id as usize) < self.max)?;
        self.slots.push(Some(value));
        Some(id)
    }

    pub(super) fn remove(&mut self, id: u32) -> T {
        self.free.push(id);
        self.slots[id as usize]
            .take()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    /// Takes back the latest [`Slots::remove`] that is not taken back yet.
    pub(super) fn put_back(&mut self, id: u32, value: T) {
        assert_eq!(
            self.free.pop(),
            Some(id),
            "changes are taken back last first"
        );
        self.slots[id as usize] = Some(value);
    }

    pub(super) fn find(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn find_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn get(&self, id: u32) -> &T {
        self.slots[id as usize]
            .as_ref()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize]
            .as_mut()
            .unwrap_or_else(|| unreachable!("slot {id} is empty"))
    }

    /// Those in use.
    pub(super) fn ids(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.is_some())
            .map(|(id, _)| id)
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten()
    }
}

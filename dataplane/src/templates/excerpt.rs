//! A few templates, copied out of the table that all workers share into one of their own.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::line::{ASSURED, INVALID};
use super::{HOLDS, Hold, Key, OWNED, SLOTS, Template, Templates, slots, taken};
use crate::mem::Place;
use crate::time::Instant;

/// A template, and the number of its line.
#[derive(Debug, Clone)]
pub struct Copied {
    pub line: u32,
    pub template: Template,
}

impl Template {
    /// What it is found by.
    pub fn key(&self) -> Key<'_> {
        Key {
            kind: self.kind,
            protocol: self.protocol,
            client: self.client,
            virtual_address: self.virtual_address,
            engine: &self.engine,
        }
    }
}

impl Templates {
    /// The template that [`Self::find`] would find, or end because its time ran out; it stays as it
    /// is.
    pub fn peek(&self, key: &Key, now: Instant) -> Option<Copied> {
        let hash = self.hash(key);
        let bucket = self.bucket(hash);
        slots(taken(self.words[bucket].load(Acquire))).find_map(|slot| {
            let place = bucket * SLOTS + slot;
            let tagged = self.tags[place].load(Relaxed) == hash;
            let copied = self.copied(super::number(place), now).filter(|_| tagged)?;
            (copied.template.key() == *key).then_some(copied)
        })
    }

    /// The template on this line, if there is one.
    pub fn copied(&self, line: u32, now: Instant) -> Option<Copied> {
        let template = self.at(line, now)?;
        Some(Copied { line, template })
    }

    /// Whether [`Self::make`] would find room for a template of this key.
    pub fn has_room(&self, key: &Key, now: Instant) -> bool {
        let bucket = self.bucket(self.hash(key));
        let mut lives = (bucket * SLOTS..(bucket + 1) * SLOTS).map(|place| &self.lines[place]);
        let is_free = |line: &super::Line| line.life.load(Relaxed) == 0;
        let may_go = |line: &super::Line| {
            let assured = line.flags.load(Relaxed) & ASSURED != 0;
            line.life.load(Relaxed) == OWNED && (!assured || line.left_ms(now) == 0)
        };
        lives.any(|line| may_go(line) || self.used() < self.capacity && is_free(line))
    }

    /// A table of these templates and no others, for servers of numbers below this one; and the number
    /// that each has there, in order.
    pub fn of(
        now: Instant,
        secret: [u64; 2],
        servers: usize,
        copied: &[Copied],
        room: bool,
    ) -> io::Result<(Self, Vec<Option<u32>>)> {
        let spare = u32::try_from(copied.len()).unwrap_or(u32::MAX);
        let servers = servers.max(1);
        let mut templates =
            Self::for_servers(&Place::MEMORY, servers, spare.saturating_add(1), secret)?;
        // Those that nobody finds first: they would be taken for their successors.
        let mut adopted = vec![None; copied.len()];
        for invalid in [true, false] {
            for (number, Copied { template, .. }) in adopted.iter_mut().zip(copied) {
                if template.invalid == invalid {
                    *number = templates.adopt(now, template);
                }
            }
        }
        if !room {
            templates.capacity = 0;
        }
        Ok((templates, adopted))
    }

    /// Whoever holds it elsewhere does so here.
    fn adopt(&self, now: Instant, template: &Template) -> Option<u32> {
        let hold = self.make(&template.key(), now, template.tie)?;
        let line = &self.lines[hold.0 as usize];
        line.set_timer(now, template.expires_ms);
        line.in_packets.store(template.in_packets, Relaxed);
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let flags = flag(template.assured, ASSURED) | flag(template.invalid, INVALID);
        line.flags.store(flags, Relaxed);
        if template.invalid {
            self.tags[hold.0 as usize].store(0, Relaxed);
        }
        line.life.fetch_add(template.controls & HOLDS, Relaxed);
        let number = hold.into_number();
        self.release(Hold::from_number(number));
        Some(number)
    }
}

//! Templates that a director before this one left in files: each is made here anew, and then as old as it was.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use super::line::{EngineLine, INVALID, Line};
use super::{DEAD, HOLDS, Hold, Key, OWNED, SLOTS, Templates, Tie, buckets, number};
use crate::mem;
use crate::time::Instant;
use crate::update::ServerId;

/// Files of what lies in a [`mem::Place`].
pub(super) const LINES: &str = "lines";
pub(super) const ENGINES: &str = "engines";

/// What tells whether they are understood: other numbers, other files.
pub const LAYOUT: &[usize] = &[
    size_of::<Line>(),
    size_of::<EngineLine>(),
    OWNED as usize,
    DEAD as usize,
];

/// All templates.
#[derive(Debug)]
pub struct Left {
    lines: mem::Left,
    engines: mem::Left,
    len: usize,
}

impl Left {
    /// What the files of a table for so many take.
    pub fn bytes(capacity: u32) -> u64 {
        let each = size_of::<Line>() + size_of::<EngineLine>();
        (each * buckets(capacity) * SLOTS) as u64
    }

    /// Of a table with room for so many, in files that begin with `owner`.
    pub fn open(directory: &Path, owner: &str, capacity: u32) -> io::Result<Self> {
        let open = |name: &str| mem::Left::open(&directory.join(format!("{owner}.{name}")));
        let (lines, engines) = (open(LINES)?, open(ENGINES)?);
        let len = buckets(capacity) * SLOTS;
        if lines.room_for::<Line>() < len || engines.room_for::<EngineLine>() < len {
            let detail = format!("{owner}: the files are shorter than {capacity} templates");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        Ok(Self {
            lines,
            engines,
            len,
        })
    }

    /// By its number: a line that has a template.
    fn at(&self, place: usize) -> Option<(Line, EngineLine)> {
        let line: Line = self.lines.get(place)?;
        let is_one = line.life.load(Relaxed) & (OWNED | DEAD) == OWNED;
        is_one.then_some((line, self.engines.get(place)?))
    }
}

/// What became of templates that were left.
#[derive(Debug, Default)]
pub struct Resumed {
    /// By the number that each had.
    pub numbers: HashMap<u32, u32>,
    /// They stay until these are given back, whether or not their connections have come.
    pub holds: Vec<Hold>,
    /// Their server is not there, or there is no room for them.
    pub lost: u64,
}

impl Templates {
    /// Takes in those of `left`, when it is `then` by the clock that they went by; `heir` says what number a
    /// server has now.
    pub fn resume(
        &self,
        now: Instant,
        (left, then): (&Left, Instant),
        heir: impl Fn(ServerId) -> Option<ServerId>,
    ) -> Resumed {
        let mut resumed = Resumed::default();
        // What nobody finds any more is not to be found in place of what came after it.
        for invalid in [true, false] {
            for place in 0..left.len {
                let Some((line, engine)) = left.at(place) else {
                    continue;
                };
                let is_idle = line.life.load(Relaxed) & HOLDS == 0;
                let is_invalid = line.flags.load(Relaxed) & INVALID != 0;
                if is_invalid != invalid || is_idle && line.is_over(then) {
                    continue;
                }
                match self.resume_line([then, now], &line, &engine, &heir) {
                    Some(hold) => {
                        resumed.numbers.insert(number(place), hold.0);
                        resumed.holds.push(hold);
                    }
                    None => resumed.lost += 1,
                }
            }
        }
        resumed
    }

    fn resume_line(
        &self,
        [then, now]: [Instant; 2],
        line: &Line,
        engine: &EngineLine,
        heir: impl Fn(ServerId) -> Option<ServerId>,
    ) -> Option<Hold> {
        let former = line.template(0, engine, then);
        let tie = Tie {
            server: heir(former.tie.server)?,
            ..former.tie
        };
        let key = Key {
            kind: former.kind,
            protocol: former.protocol,
            client: former.client,
            virtual_address: former.virtual_address,
            engine: &former.engine,
        };
        let hold = self.make(&key, now, tie)?;
        if former.invalid {
            self.invalidate(&hold);
        }
        self.lines[hold.0 as usize].resume(now, line, then);
        Some(hold)
    }
}

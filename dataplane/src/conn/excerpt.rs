//! A few connections, copied out of their table into one of their own.

use std::io;

use super::{Conn, Conns, Extra, Hit};
use crate::ftp::Talk;
use crate::net::HopId;
use crate::templates::Hold;
use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::{Addresses6, Tuple};

/// One connection with all that lies beside its line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    conn: Conn,
    wide: Option<[Addresses6; 2]>,
    pub extra: Option<Extra>,
    pub talk: Option<Talk>,
    /// The number of the template that brought it about.
    pub template: Option<u32>,
    /// Whether packets of each side find it.
    found: [bool; 2],
    /// What the client and the server send.
    pub sides: [Tuple; 2],
    /// It would be the first to go in a full table.
    pub oldest: bool,
}

impl Line {
    pub fn server(&self) -> ServerId {
        self.conn.server()
    }

    pub fn hops(&self) -> [HopId; 2] {
        [false, true].map(|outbound| self.conn.hop(outbound))
    }
}

/// Some connections, and what they lie in.
#[derive(Debug, Clone)]
pub struct Excerpt {
    pub lines: Vec<Line>,
    pub secret: [u64; 2],
    /// There is no room for one more.
    full: bool,
}

impl Conns {
    /// The connection of a tuple, and in a full table the one that would go first.
    pub fn excerpt(&self, tuple: &Tuple) -> Excerpt {
        let full = self.used == self.capacity();
        let oldest = self.oldest_half_open().filter(|_| full);
        let found = self.find(tuple).map(Hit::entry);
        let entries = [found, oldest.filter(|oldest| Some(*oldest) != found)];
        let lines = entries.into_iter().flatten();
        let lines = lines.map(|entry| self.line(entry, oldest == Some(entry)));
        Excerpt {
            lines: lines.collect(),
            secret: self.index.secret(),
            full,
        }
    }

    fn line(&self, entry: u32, oldest: bool) -> Line {
        let (conn, place) = (self.entries[entry as usize], entry as usize);
        let sides = [false, true].map(|outbound| self.tuple(entry, outbound));
        let is_hidden = conn.mode() == control::ForwardMode::FullNat;
        Line {
            conn,
            wide: (conn.is_v6(false) || conn.is_v6(true)).then(|| self.wide[place]),
            extra: is_hidden.then(|| self.extras[place]),
            talk: conn.is_helped().then(|| self.talks[place]),
            template: self.template(entry),
            found: [false, true].map(|outbound| {
                let side = &sides[usize::from(outbound)];
                self.find(side) == Some(Hit::new(entry, outbound))
            }),
            sides,
            oldest,
        }
    }

    /// A table of these connections and no others, with room for one more where they came from one
    /// with room.
    pub fn of(now: Instant, excerpt: &Excerpt) -> io::Result<Self> {
        let lines = u32::try_from(excerpt.lines.len()).unwrap_or(u32::MAX);
        let capacity = lines + if excerpt.full { 0 } else { 1 };
        let mut conns = Self::new(capacity, excerpt.secret)?;
        // The oldest comes last, and is to stand first in its queue.
        for line in excerpt.lines.iter().rev() {
            conns.adopt(now, line);
        }
        Ok(conns)
    }

    fn adopt(&mut self, now: Instant, line: &Line) {
        let Some(entry) = self.take_entry() else {
            return;
        };
        let place = entry as usize;
        self.entries[place] = line.conn;
        if let Some(wide) = line.wide {
            self.wide[place] = wide;
        }
        if let Some(extra) = line.extra {
            self.extras[place] = extra;
        }
        if let Some(talk) = line.talk {
            self.talks[place] = talk;
        }
        if line.conn.is_controlled() {
            self.control(entry, line.template.map(Hold::from_number));
        }
        for outbound in [false, true] {
            if line.found[usize::from(outbound)] {
                let hash = self.hash(&line.conn.side(outbound));
                let hit = Hit::new(entry, outbound);
                self.index.insert(hash, hit, line.conn.is_wide());
            }
        }
        self.used += 1;
        if line.conn.state().is_half_open() {
            self.timers.queue_half_open(entry);
        }
        self.timers
            .schedule(now, entry, now.plus_ms(line.conn.timeout_ms));
    }
}

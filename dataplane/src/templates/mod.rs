//! Persistence templates: which server a client is tied to, shared by all workers.
//!
//! A client's connections may be at home with different workers, its template is one for all of them:
//! so there is one table per daemon, made once at start, of atomics alone. Readers never wait, and
//! nobody locks.
//!
//! A template is found by a keyed hash of its [`Key`], in one bucket of [`SLOTS`]. The bucket's word
//! says which slots are taken, and counts what was ever put there: who puts a template in does so
//! with one compare-and-swap against the word under which it had found none, so that no key ever gets
//! two. Who uses a template holds it ([`Hold`]); while anyone does, it stays what it is.
//!
//! A line's `life` is two flags and the number of holds. To take a free line is to swap 0 for
//! [`OWNED`]; to remove one that nobody holds is to swap [`OWNED`] for [`OWNED`] | [`DEAD`]. A reader
//! adds its hold first and looks then: if the line is not what it sought it takes the hold back.

mod excerpt; // a few templates, copied
mod left; // those of a director before this one
mod line; // one template as it lies in memory
mod sweep; // when templates end
#[cfg(test)]
mod tests;

use std::hash::Hasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use siphasher::sip::SipHasher13;

use crate::mem::{Array, Place};
use crate::time::Instant;
use crate::update::{SERVERS_MAX, ServerId};
use line::{ASSURED, EngineLine, INVALID, KeyWords, Line, TAKEN};

pub use excerpt::Copied;
pub use left::{LAYOUT, Left, Resumed};
pub use sweep::Sweep;

/// The longest engine data, in bytes.
pub const ENGINE_MAX: usize = 255;
/// The virtual port that an invalid template is listed with, and its server's.
pub const INVALID_PORT: u16 = 0xffff;

/// Slots of a bucket.
const SLOTS: usize = 32;
/// Templates per bucket when the table is full. With twice the room hardly one bucket in ten thousand
/// is full before the table is.
const LOAD: usize = 16;
/// The least and the most templates that there is room for unless told otherwise.
const DEFAULT_MIN: u32 = 1 << 10;
const DEFAULT_MAX: u32 = 1 << 22;
/// How often one worker's template may be put off by others' in the same bucket.
const TRIES: usize = 64;

/// Flags of [`Line::life`]; below them is the number of holds.
const OWNED: u32 = 1 << 31;
const DEAD: u32 = 1 << 30;
const HOLDS: u32 = DEAD - 1;

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// All connections of a client, or of a network of them.
    Persistence,
    /// One connection that a helper expects, once: see [`Templates::take`].
    Expected,
    /// All connections that an engine finds the same [`Key::engine`] data in.
    Engine,
    /// One connection of a health check's probe, once.
    Probe,
}

impl Kind {
    /// Whether it ties one connection, and no client.
    pub const fn is_single(self) -> bool {
        matches!(self, Self::Expected | Self::Probe)
    }
}

/// What a template is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'e> {
    pub kind: Kind,
    /// 0 stands for every protocol: templates of services by mark.
    pub protocol: u8,
    /// Masked, with port 0; of [`Kind::Expected`] also with the port that it will come from, of
    /// [`Kind::Probe`] only with that.
    pub client: SocketAddr,
    /// Port 0 stands for every port. Of a service by mark the mark in place of the address. The
    /// client's family.
    pub virtual_address: SocketAddr,
    /// Of [`Kind::Engine`]; [`ENGINE_MAX`] bytes at most count.
    pub engine: &'e [u8],
}

impl Key<'static> {
    /// Of a probe that the host itself sends from this port.
    pub fn probe(protocol: u8, from: u16, to: SocketAddr) -> Self {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self {
            kind: Kind::Probe,
            protocol,
            client: SocketAddr::new(any, from),
            virtual_address: to,
            engine: &[],
        }
    }
}

/// What a template ties its client to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tie {
    pub server: ServerId,
    /// As the template is listed, and for [`Kind::Expected`] where its connection goes; 0 is none.
    pub server_port: u16,
    /// How long it lives after it was made or [used](Templates::touch).
    pub timeout_ms: u32,
}

/// A template in use: until it is given back ([`Templates::release`]) it does not end and means the
/// same. Whoever has one gives it back or keeps it beside a connection
/// ([`crate::conn::Conns::control`]).
#[must_use = "a template that is held for ever never ends"]
#[derive(Debug, PartialEq, Eq)]
pub struct Hold(u32);

impl Hold {
    /// To be kept as a number.
    pub fn into_number(self) -> u32 {
        self.0
    }

    /// What [`Self::into_number`] was asked for, once.
    pub fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// A template as it was a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub kind: Kind,
    /// 0 stands for every protocol.
    pub protocol: u8,
    pub client: SocketAddr,
    pub virtual_address: SocketAddr,
    pub engine: Vec<u8>,
    pub tie: Tie,
    /// 0 once its time ran out.
    pub expires_ms: u32,
    /// A connection of it was established, or answered.
    pub assured: bool,
    /// Found by nobody any more: it only waits for its end.
    pub invalid: bool,
    /// Connections that it controls.
    pub controls: u32,
    pub in_packets: u32,
}

/// What there is to lose with a template that controls no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    pub server: ServerId,
    /// As of [`Template`].
    pub assured: bool,
    pub in_packets: u32,
    /// Since it was made or used.
    pub quiet_ms: u32,
}

/// The table.
#[derive(Debug)]
pub struct Templates {
    /// By bucket: above the taken slots' bits the number of templates that were ever put there.
    words: Array<AtomicU64>,
    /// By line, a bucket's are neighbours: the key's hash, 0 of an invalid template.
    tags: Array<AtomicU64>,
    lines: Array<Line>,
    engines: Array<EngineLine>,
    /// By server.
    persistent: Array<AtomicU32>,
    expected: Array<AtomicU32>,
    used: AtomicU32,
    capacity: u32,
    secret: [u64; 2],
}

impl Templates {
    /// For `capacity` templates; keys are hashed under `secret`. Memory is taken as it is used: 140
    /// bytes a template, 396 with engine data.
    pub fn new(capacity: u32, secret: [u64; 2]) -> io::Result<Self> {
        Self::within(&Place::MEMORY, capacity, secret)
    }

    /// What cannot be found out again from the rest lies in `place`.
    pub fn within(place: &Place, capacity: u32, secret: [u64; 2]) -> io::Result<Self> {
        Self::for_servers(place, SERVERS_MAX as usize, capacity, secret)
    }

    /// As [`Self::within`], for servers of numbers below this one.
    fn for_servers(
        place: &Place,
        servers: usize,
        capacity: u32,
        secret: [u64; 2],
    ) -> io::Result<Self> {
        let buckets = buckets(capacity);
        let lines = buckets * SLOTS;
        Ok(Self {
            words: Array::sparse(buckets)?,
            tags: Array::sparse(lines)?,
            lines: place.sparse(left::LINES, lines)?,
            engines: place.sparse(left::ENGINES, lines)?,
            persistent: Array::sparse(servers)?,
            expected: Array::sparse(servers)?,
            used: AtomicU32::new(0),
            capacity,
            secret,
        })
    }

    /// What there is room for unless told otherwise, beside so many connections on each worker: one
    /// template for four connections.
    pub fn default_capacity(connections_max: u32, workers: usize) -> u32 {
        let connections = connections_max.saturating_mul(number(workers));
        (connections / 4).clamp(DEFAULT_MIN, DEFAULT_MAX)
    }

    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Templates there are now.
    pub fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// Templates that tie clients to this server.
    pub fn of_server(&self, id: ServerId) -> u32 {
        self.persistent[id.index()].load(Relaxed)
    }

    /// Whether a template of any kind names this server.
    pub fn refer_to(&self, id: ServerId) -> bool {
        self.of_server(id) > 0 || self.expected[id.index()].load(Relaxed) > 0
    }

    /// By server: how many templates of this kind name it, or of one that counts with it.
    fn counts(&self, kind: Kind) -> &Array<AtomicU32> {
        match kind {
            Kind::Persistence | Kind::Engine => &self.persistent,
            Kind::Expected | Kind::Probe => &self.expected,
        }
    }

    /// Lines of the table: [`Self::at`] knows them by number.
    pub fn lines(&self) -> u32 {
        u32::try_from(self.lines.len()).unwrap_or(u32::MAX)
    }

    /// The template of this key, held. One whose time ran out counts as none unless it controls
    /// connections.
    pub fn find(&self, key: &Key, now: Instant) -> Option<Hold> {
        let hash = self.hash(key);
        let bucket = self.bucket(hash);
        let word = self.words[bucket].load(Acquire);
        self.search(bucket, word, hash, key, now)
    }

    /// Makes a template where [`Self::find`] found none, and holds it. If another worker was faster it
    /// is that one's: ask [`Self::tie`] where it leads. `None` when the table is full.
    ///
    /// In a full table, or bucket of it, the unused and unassured template goes that would end first.
    pub fn make(&self, key: &Key, now: Instant, tie: Tie) -> Option<Hold> {
        let hash = self.hash(key);
        let bucket = self.bucket(hash);
        let mut mine = None;
        for _ in 0..TRIES {
            let word = self.words[bucket].load(Acquire);
            if let Some(theirs) = self.search(bucket, word, hash, key, now) {
                if let Some(index) = mine {
                    self.give_up(index);
                }
                return Some(theirs);
            }
            let index = match mine {
                Some(index) => index,
                None => self.prepare(bucket, hash, key, now, tie)?,
            };
            let bit = 1 << (index as usize % SLOTS);
            // A claim or an eviction of our own may have changed the word: then the next try succeeds.
            let published = (word | bit).wrapping_add(1 << SLOTS);
            let swap = self.words[bucket].compare_exchange(word, published, AcqRel, Relaxed);
            if swap.is_ok() {
                return Some(Hold(index));
            }
            mine = Some(index);
        }
        if let Some(index) = mine {
            self.give_up(index);
        }
        None
    }

    /// Gives a hold back.
    pub fn release(&self, hold: Hold) {
        self.lines[hold.0 as usize].life.fetch_sub(1, Release);
    }

    /// One hold more on the template of this number, which somebody holds.
    pub fn hold_again(&self, number: u32) -> Hold {
        self.lines[number as usize].life.fetch_add(1, Relaxed);
        Hold(number)
    }

    /// Where a template leads.
    pub fn tie(&self, hold: &Hold) -> Tie {
        self.lines[hold.0 as usize].tie()
    }

    /// A new connection uses the template: its time begins anew.
    pub fn touch(&self, hold: &Hold, now: Instant) {
        let line = &self.lines[hold.0 as usize];
        line.set_timer(now, line.timeout_ms.load(Relaxed));
    }

    /// Counts a packet that the template itself chose the server of.
    pub fn count_packet(&self, hold: &Hold) {
        self.lines[hold.0 as usize].in_packets.fetch_add(1, Relaxed);
    }

    /// A connection that holds the template of this number is established, or answered.
    pub fn assure(&self, number: u32) {
        let line = &self.lines[number as usize];
        // Mostly it is already, and a look leaves the line with all its readers.
        if line.flags.load(Relaxed) & ASSURED == 0 {
            line.flags.fetch_or(ASSURED, Relaxed);
        }
    }

    /// From now on nobody finds the template, as when LVS hashes it to ports 65535; it ends when its
    /// time runs out.
    pub fn invalidate(&self, hold: &Hold) {
        self.lines[hold.0 as usize].flags.fetch_or(INVALID, Relaxed);
        self.tags[hold.0 as usize].store(0, Relaxed);
    }

    /// Takes what is expected for the connection that came: from now on nobody else finds it, and it
    /// ends when that connection does. Of several workers one gets it.
    pub fn take(&self, key: &Key, now: Instant) -> Option<Hold> {
        let hold = self.find(key, now)?;
        let line = &self.lines[hold.0 as usize];
        if line.flags.fetch_or(TAKEN, Relaxed) & TAKEN != 0 {
            self.release(hold);
            return None;
        }
        self.invalidate(&hold);
        line.set_timer(now, 0);
        Some(hold)
    }

    /// Ends what was [made](Self::make) for one connection; whether that came.
    pub fn retract(&self, hold: Hold, now: Instant) -> bool {
        let line = &self.lines[hold.0 as usize];
        let came = line.flags.fetch_or(TAKEN, Relaxed) & TAKEN != 0;
        self.invalidate(&hold);
        line.set_timer(now, 0);
        // With somebody else who holds it, it ends later.
        if !self.remove(hold.0, OWNED | 1) {
            self.release(hold);
        }
        came
    }

    /// The template on this line, if there is one.
    pub fn at(&self, index: u32, now: Instant) -> Option<Template> {
        self.held(index, now, |_, template| template)
    }

    /// Ends the template on this line if `chosen` makes something of it, which is returned: from now on
    /// nobody finds it, and it goes with the last connection that holds it.
    pub fn end_if<T>(
        &self,
        index: u32,
        now: Instant,
        chosen: impl FnOnce(Template) -> Option<T>,
    ) -> Option<T> {
        let place = index as usize;
        let made = self.held(index, now, |hold, template| {
            let made = chosen(template)?;
            self.invalidate(hold);
            self.lines[place].set_timer(now, 0);
            Some(made)
        })??;
        self.dismiss(index);
        Some(made)
    }

    /// The template on this line, while it is held: nobody else's comes in its place.
    fn held<T>(
        &self,
        index: u32,
        now: Instant,
        of: impl FnOnce(&Hold, Template) -> T,
    ) -> Option<T> {
        let place = index as usize;
        if !(self.lines.len() > place && self.is_published(place)) {
            return None;
        }
        let line = &self.lines[place];
        let before = line.life.fetch_add(1, Acquire);
        let hold = Hold(index);
        let is_there = before & (OWNED | DEAD) == OWNED && self.is_published(place);
        let template = is_there.then(|| line.template(before & HOLDS, &self.engines[place], now));
        let made = template.map(|template| of(&hold, template));
        self.release(hold);
        made
    }

    /// Ends the template on this line, if there is one that nobody holds; whether it did.
    pub fn dismiss(&self, index: u32) -> bool {
        self.remove(index, OWNED)
    }

    /// As [`Self::dismiss`], while its life is this.
    fn remove(&self, index: u32, life: u32) -> bool {
        let place = index as usize;
        let line = &self.lines[place];
        let swap = line
            .life
            .compare_exchange(life, OWNED | DEAD, AcqRel, Relaxed);
        if swap.is_err() {
            return false;
        }
        self.uncount(line);
        let bit = 1 << (place % SLOTS);
        self.words[place / SLOTS].fetch_and(!bit, Release);
        line.life.fetch_sub(OWNED | DEAD, Release);
        true
    }

    /// What there is to lose with the template on this line, if there is one that nobody holds and
    /// that ties a client to a server.
    pub fn idle(&self, index: u32, now: Instant) -> Option<Idle> {
        let line = self.lines.get(index as usize)?;
        let is_idle = line.life.load(Acquire) == OWNED && self.is_published(index as usize);
        (is_idle && !line.kind().is_single()).then(|| line.idle(now))
    }

    fn hash(&self, key: &Key) -> u64 {
        let [a, b] = self.secret;
        let mut hasher = SipHasher13::new_with_keys(a, b);
        for word in KeyWords::of(key).0 {
            hasher.write_u64(word);
        }
        hasher.write(key.engine);
        // 0 is an invalid template's.
        hasher.finish().max(1)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of buckets"
    )]
    fn bucket(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.words.len() as u128) >> 64) as usize
    }

    fn is_published(&self, place: usize) -> bool {
        self.words[place / SLOTS].load(Acquire) >> (place % SLOTS) & 1 != 0
    }

    /// The template of this key among the slots that `word` has.
    fn search(&self, bucket: usize, word: u64, hash: u64, key: &Key, now: Instant) -> Option<Hold> {
        slots(taken(word)).find_map(|slot| {
            let place = bucket * SLOTS + slot;
            (self.tags[place].load(Relaxed) == hash)
                .then(|| self.hold(place, hash, key, now))
                .flatten()
        })
    }

    /// Holds the template of this place if it is the one sought, and not at its end.
    fn hold(&self, place: usize, hash: u64, key: &Key, now: Instant) -> Option<Hold> {
        let line = &self.lines[place];
        let before = line.life.fetch_add(1, Acquire);
        let hold = Hold(number(place));
        // What is owned and published now stays so while it is held.
        let is_it = before & (OWNED | DEAD) == OWNED
            && self.is_published(place)
            && self.tags[place].load(Relaxed) == hash
            && line.is(key, &self.engines[place]);
        if is_it && (before & HOLDS > 0 || !line.is_over(now)) {
            return Some(hold);
        }
        self.release(hold);
        if is_it {
            self.dismiss(number(place));
        }
        None
    }

    /// A line of this bucket with a template that nobody finds yet, held.
    fn prepare(&self, bucket: usize, hash: u64, key: &Key, now: Instant, tie: Tie) -> Option<u32> {
        let is_full = self.used.fetch_add(1, Relaxed) >= self.capacity;
        let claimed = (!is_full || self.evict(bucket, now))
            .then(|| self.claim(bucket))
            .flatten()
            .or_else(|| {
                let evicted = !is_full && self.evict(bucket, now);
                evicted.then(|| self.claim(bucket)).flatten()
            });
        let Some(place) = claimed else {
            self.used.fetch_sub(1, Relaxed);
            return None;
        };
        self.counts(key.kind)[tie.server.index()].fetch_add(1, Relaxed);
        self.lines[place].fill(key, now, tie, &self.engines[place]);
        self.tags[place].store(hash, Relaxed);
        Some(number(place))
    }

    fn claim(&self, bucket: usize) -> Option<usize> {
        let places = bucket * SLOTS..(bucket + 1) * SLOTS;
        places.into_iter().find(|place| {
            let life = &self.lines[*place].life;
            life.load(Relaxed) == 0 && life.compare_exchange(0, OWNED | 1, AcqRel, Relaxed).is_ok()
        })
    }

    /// Ends the template of this bucket that is the least loss; `false` if none may end.
    fn evict(&self, bucket: usize, now: Instant) -> bool {
        let word = self.words[bucket].load(Acquire);
        let idle = slots(taken(word)).filter_map(|slot| {
            let place = bucket * SLOTS + slot;
            let line = &self.lines[place];
            let is_idle = line.life.load(Relaxed) == OWNED;
            let left_ms = line.left_ms(now);
            let is_assured = line.flags.load(Relaxed) & ASSURED != 0;
            (is_idle && (!is_assured || left_ms == 0)).then_some((left_ms, place))
        });
        idle.min()
            .is_some_and(|(_, place)| self.dismiss(number(place)))
    }

    /// Frees a line whose template was never found by anyone.
    fn give_up(&self, index: u32) {
        let line = &self.lines[index as usize];
        self.uncount(line);
        line.life.fetch_sub(OWNED | 1, Release);
    }

    fn uncount(&self, line: &Line) {
        let server = line.tie().server;
        self.counts(line.kind())[server.index()].fetch_sub(1, Relaxed);
        self.used.fetch_sub(1, Relaxed);
    }
}

/// Of a table for so many templates.
fn buckets(capacity: u32) -> usize {
    (capacity as usize).div_ceil(LOAD).max(1)
}

/// The taken slots of a bucket.
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn taken(word: u64) -> u32 {
    word as u32
}

/// The numbers of the bits that are set.
fn slots(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let slot = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        slot
    })
}

/// A line's number.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the capacity is a u32 and less than two lines a template"
)]
const fn number(place: usize) -> u32 {
    place as u32
}

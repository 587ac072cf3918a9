//! From a flow to its connection: buckets of one cache line, tags compared at once.
//!
//! A bucket holds eight 16-bit tags and eight references. A key that finds its home bucket full goes
//! to the next one; each bucket counts the keys that passed it, by a part of their tags, so a look-up
//! stops at the first bucket that no such key passed, and a removal leaves no tombstone.

use std::io;
use std::num::NonZeroU16;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::cpu;
use crate::mem::Array;
use crate::wire::flow::Flow;

const SLOTS: usize = 8;
/// Keys per bucket when the table is full: 62 %. With six, of keys that come and go one in four
/// would be beyond its home.
const LOAD: usize = 5;
/// By so many parts of their tags keys that pass a bucket are counted.
const PARTS: usize = 16;

/// An entry of the connection table together with the side that a key belongs to: 0 as the client
/// sends it, 1 as the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit(u32);

/// In a bucket's reference: packets of this key need the connection's second line too. Known here,
/// it is loaded together with the first one.
const WIDE: u32 = 1 << 31;

impl Hit {
    /// There is no such entry: the key is not in the index.
    pub const NOWHERE: Self = Self(u32::MAX);
    /// Neither is there such a one, but the key may be beyond the bucket that was looked at.
    pub const BEYOND: Self = Self(u32::MAX - 1);

    /// Entries are less than 2^30.
    pub const fn new(entry: u32, outbound: bool) -> Self {
        Self(entry << 1 | outbound as u32)
    }

    #[inline(always)]
    pub const fn entry(self) -> u32 {
        self.0 >> 1
    }

    #[inline(always)]
    pub const fn outbound(self) -> bool {
        self.0 & 1 != 0
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// 0: free.
    tags: [u16; SLOTS],
    /// A [`Hit`], and [`WIDE`].
    hits: [u32; SLOTS],
    /// Keys that were placed beyond this bucket though their home is here or before, by their part;
    /// once there were [`UNCOUNTED`] nobody knows any more.
    passed: [u8; PARTS],
}

const UNCOUNTED: u8 = u8::MAX;

impl Bucket {
    /// One bit per slot whose tag is `tag`.
    #[inline(always)]
    fn matching(&self, tag: u16) -> u32 {
        cpu::equal_lanes(&self.tags, tag)
    }

    /// The first reference whose tag fits, and whether it is wide.
    #[inline(always)]
    fn likely(&self, hash: Hash) -> Option<(Hit, bool)> {
        let slot = cpu::first_equal_lane(&self.tags, hash.tag())? % SLOTS;
        Some((self.hit(slot), self.hits[slot] & WIDE != 0))
    }

    /// Whether a key like this one passed.
    #[inline(always)]
    fn is_passed(&self, hash: Hash) -> bool {
        self.passed[hash.part()] != 0
    }

    #[inline(always)]
    fn hit(&self, slot: usize) -> Hit {
        Hit(self.hits[slot] & !WIDE)
    }
}

/// What the table looks for, of a flow's hash under its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash {
    /// The bucket where a look-up begins.
    home: u32,
    /// 0 marks a free slot.
    tag: NonZeroU16,
}

impl Hash {
    /// Of what has no connection: whatever it finds is not meant.
    pub const NONE: Self = Self {
        home: 0,
        tag: NonZeroU16::MIN,
    };

    #[inline(always)]
    const fn home(self) -> usize {
        self.home as usize
    }

    #[inline(always)]
    pub(super) const fn tag(self) -> u16 {
        self.tag.get()
    }

    #[inline(always)]
    const fn part(self) -> usize {
        self.tag() as usize % PARTS
    }

    /// In 48 bits, which are not 0: good in every table of the same size and secret.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        u64::from(self.tag()) << 32 | u64::from(self.home)
    }

    /// The other way; `None` if they are 0. Bits above do not count.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "32 bits and 16 are wanted")]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let tag = NonZeroU16::new((bits >> 32) as u16)?;
        let home = bits as u32;
        Some(Self { home, tag })
    }
}

#[derive(Debug)]
pub(super) struct Index {
    buckets: Array<Bucket>,
    secret: [u64; 2],
}

impl Index {
    /// For `keys` keys.
    pub(super) fn new(keys: usize, secret: [u64; 2]) -> io::Result<Self> {
        Ok(Self {
            buckets: Array::zeroed(keys.div_ceil(LOAD).max(2))?,
            secret,
        })
    }

    pub(super) fn secret(&self) -> [u64; 2] {
        self.secret
    }

    pub(super) fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// A folded multiplication under a secret, so that nobody can aim flows at one bucket.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both halves of a product are folded; entries, and so buckets, are less than 2^32"
    )]
    #[inline(always)]
    pub(super) fn hash(&self, flow: &Flow) -> Hash {
        let [a, b] = self.secret;
        let words =
            u64::from(flow.ports) | u64::from(flow.protocol) << 32 | u64::from(flow.v6) << 40;
        let product = u128::from(flow.addresses ^ a) * u128::from(words ^ b);
        let mixed = (product as u64 ^ (product >> 64) as u64) as u128 * 0x9e37_79b9_7f4a_7c15;
        let hash = mixed as u64 ^ (mixed >> 64) as u64;
        // The high bits choose the bucket, the low ones are the tag.
        Hash {
            home: ((u128::from(hash) * self.buckets.len() as u128) >> 64) as u32,
            tag: NonZeroU16::new(hash as u16).unwrap_or(NonZeroU16::MIN),
        }
    }

    #[inline(always)]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets.len() {
            0
        } else {
            bucket + 1
        }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, hash: Hash) {
        cpu::prefetch(&self.buckets, hash.home());
    }

    /// The first reference in the home bucket whose tag fits: very likely the right one, to be
    /// verified against the entry. And whether it needs the second line. [`Hit::BEYOND`] where there is
    /// none, but a key like this one is not in its home: the next bucket then begins to load.
    #[inline(always)]
    pub(super) fn likely(&self, hash: Hash) -> (Hit, bool) {
        let bucket = &self.buckets[hash.home()];
        match bucket.likely(hash) {
            Some(found) => found,
            None if !bucket.is_passed(hash) => (Hit::NOWHERE, false),
            None => {
                cpu::prefetch(&self.buckets, self.after(hash.home()));
                (Hit::BEYOND, false)
            }
        }
    }

    /// As [`Self::likely`], in the bucket behind the home bucket: nearly all keys of a full table that are
    /// beyond their home are there.
    pub(super) fn beyond(&self, hash: Hash) -> (Hit, bool) {
        let bucket = &self.buckets[self.after(hash.home())];
        let other = match bucket.is_passed(hash) {
            true => Hit::BEYOND,
            false => Hit::NOWHERE,
        };
        bucket.likely(hash).unwrap_or((other, false))
    }

    /// The reference that `is` accepts, among all whose tag fits.
    pub(super) fn find(&self, hash: Hash, mut is: impl FnMut(Hit) -> bool) -> Option<Hit> {
        let mut at = hash.home();
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            let mut matching = bucket.matching(hash.tag());
            while matching != 0 {
                let hit = bucket.hit(matching.trailing_zeros() as usize % SLOTS);
                if is(hit) {
                    return Some(hit);
                }
                matching &= matching - 1;
            }
            if !bucket.is_passed(hash) {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// Adds a key, whose packets need the second line if it is `wide`. There is room: the caller keeps
    /// to the number of keys it asked for.
    pub(super) fn insert(&mut self, hash: Hash, hit: Hit, wide: bool) {
        let mut at = hash.home();
        loop {
            let free = self.buckets[at].matching(0);
            let bucket = &mut self.buckets[at];
            if free != 0 {
                let slot = free.trailing_zeros() as usize % SLOTS;
                bucket.tags[slot] = hash.tag();
                bucket.hits[slot] = hit.0 | if wide { WIDE } else { 0 };
                return;
            }
            let passed = &mut bucket.passed[hash.part()];
            *passed = passed.saturating_add(1);
            at = self.after(at);
        }
    }

    /// Whether every bucket is as it was at the start.
    #[cfg(test)]
    pub(super) fn is_untouched(&self) -> bool {
        self.buckets
            .iter()
            .all(|bucket| bucket.tags == [0; SLOTS] && bucket.passed == [0; PARTS])
    }

    /// Removes a key; `false` when it is not there.
    pub(super) fn remove(&mut self, hash: Hash, hit: Hit) -> bool {
        let home = hash.home();
        let mut at = home;
        let slot = loop {
            let bucket = &self.buckets[at];
            let matching = bucket.matching(hash.tag());
            if let Some(slot) = (0..SLOTS).find(|s| matching >> s & 1 != 0 && bucket.hit(*s) == hit)
            {
                break slot;
            }
            at = self.after(at);
            if !bucket.is_passed(hash) || at == home {
                return false;
            }
        };
        self.buckets[at].tags[slot] = 0;
        let mut passed = home;
        while passed != at {
            let count = &mut self.buckets[passed].passed[hash.part()];
            if *count != UNCOUNTED {
                *count -= 1;
            }
            passed = self.after(passed);
        }
        true
    }
}

const _: () = assert!(size_of::<Bucket>() == 64);

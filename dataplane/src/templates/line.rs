//! One template as it lies in memory: what is written before anyone finds it, and what moves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{ENGINE_MAX, Idle, Key, Kind, Template, Tie};
use crate::time::Instant;
use crate::update::ServerId;

/// Of [`Line::flags`].
pub(super) const ASSURED: u32 = 1;
pub(super) const INVALID: u32 = 2;
/// Its one connection came.
pub(super) const TAKEN: u32 = 4;

/// How far one worker's time may be behind another's: each reads the clock once a round.
const SKEW_MAX_MS: u32 = 60_000;

/// A key as numbers: client, virtual address, and all that is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyWords(pub(super) [u64; 5]);

impl KeyWords {
    pub(super) fn of(key: &Key) -> Self {
        let [a, b] = halves(key.client.ip());
        let [c, d] = halves(key.virtual_address.ip());
        let rest = u64::from(key.client.port()) << 48
            | u64::from(key.virtual_address.port()) << 32
            | u64::from(key.protocol) << 16
            | (key.kind as u64) << 8
            | u64::from(key.client.is_ipv6());
        Self([a, b, c, d, rest])
    }

    fn kind(self) -> Kind {
        match self.0[4] >> 8 & 0xff {
            0 => Kind::Persistence,
            1 => Kind::Expected,
            2 => Kind::Engine,
            _ => Kind::Probe,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    fn protocol(self) -> u8 {
        (self.0[4] >> 16) as u8
    }

    #[expect(clippy::cast_possible_truncation, reason = "parts of a word")]
    fn address(self, first: usize, port_shift: u32) -> SocketAddr {
        let [high, low] = [self.0[first], self.0[first + 1]];
        let ip = match self.0[4] & 1 {
            0 => IpAddr::V4(Ipv4Addr::from_bits(low as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(
                u128::from(high) << 64 | u128::from(low),
            )),
        };
        SocketAddr::new(ip, (self.0[4] >> port_shift) as u16)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn halves(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => [0, address.to_bits().into()],
        IpAddr::V6(address) => [(address.to_bits() >> 64) as u64, address.to_bits() as u64],
    }
}

/// Engine data behind its length.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug)]
#[repr(transparent)]
pub(super) struct EngineLine([AtomicU64; (ENGINE_MAX + 1) / 8]);

impl EngineLine {
    fn words(data: &[u8]) -> impl Iterator<Item = u64> {
        let mut bytes = [0; ENGINE_MAX + 1];
        let data = &data[..data.len().min(ENGINE_MAX)];
        bytes[0] = u8::try_from(data.len()).unwrap_or(u8::MAX);
        bytes[1..][..data.len()].copy_from_slice(data);
        let words = bytes.len().min(data.len() + 1).div_ceil(8);
        (0..words).map(move |word| {
            let at = word * 8;
            u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
        })
    }

    fn set(&self, data: &[u8]) {
        for (place, word) in self.0.iter().zip(Self::words(data)) {
            place.store(word, Relaxed);
        }
    }

    fn is(&self, data: &[u8]) -> bool {
        let mut both = self.0.iter().zip(Self::words(data));
        both.all(|(place, word)| place.load(Relaxed) == word)
    }

    fn data(&self) -> Vec<u8> {
        let words = self.0.iter().map(|word| word.load(Relaxed).to_le_bytes());
        let mut bytes = words.flatten();
        let len = bytes.next().unwrap_or(0);
        bytes.take(len.into()).collect()
    }
}

/// Two cache lines, of which the second is never touched: the next template's are not shared.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug)]
#[repr(C, align(128))]
pub(super) struct Line {
    /// Flags and holds, see the module; 0: the line is free.
    pub(super) life: AtomicU32,
    server: AtomicU32,
    key: [AtomicU64; 5],
    /// When its time last began, and how long it is from then on, both in milliseconds.
    timer: AtomicU64,
    pub(super) timeout_ms: AtomicU32,
    pub(super) flags: AtomicU32,
    pub(super) in_packets: AtomicU32,
    server_port: AtomicU32,
    _pad: [u8; 56],
}

impl Line {
    /// Writes a template that nobody finds yet.
    pub(super) fn fill(&self, key: &Key, now: Instant, tie: Tie, engine: &EngineLine) {
        for (place, word) in self.key.iter().zip(KeyWords::of(key).0) {
            place.store(word, Relaxed);
        }
        if key.kind == Kind::Engine {
            engine.set(key.engine);
        }
        self.server.store(tie.server.0, Relaxed);
        self.server_port.store(tie.server_port.into(), Relaxed);
        self.timeout_ms.store(tie.timeout_ms, Relaxed);
        self.flags.store(0, Relaxed);
        self.in_packets.store(0, Relaxed);
        self.set_timer(now, tie.timeout_ms);
    }

    pub(super) fn is(&self, key: &Key, engine: &EngineLine) -> bool {
        self.words() == KeyWords::of(key) && (key.kind != Kind::Engine || engine.is(key.engine))
    }

    pub(super) fn kind(&self) -> Kind {
        self.words().kind()
    }

    pub(super) fn idle(&self, now: Instant) -> Idle {
        Idle {
            server: self.tie().server,
            assured: self.flags.load(Relaxed) & ASSURED != 0,
            in_packets: self.in_packets.load(Relaxed),
            quiet_ms: quiet_ms(self.timer.load(Relaxed), now),
        }
    }

    fn words(&self) -> KeyWords {
        KeyWords(std::array::from_fn(|i| self.key[i].load(Relaxed)))
    }

    pub(super) fn tie(&self) -> Tie {
        Tie {
            server: ServerId(self.server.load(Relaxed)),
            server_port: u16::try_from(self.server_port.load(Relaxed)).unwrap_or(u16::MAX),
            timeout_ms: self.timeout_ms.load(Relaxed),
        }
    }

    pub(super) fn set_timer(&self, now: Instant, life_ms: u32) {
        self.timer.store(timer(now, life_ms), Relaxed);
    }

    /// Until its time runs out.
    pub(super) fn left_ms(&self, now: Instant) -> u32 {
        left_ms(self.timer.load(Relaxed), now)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.left_ms(now) == 0
    }

    /// As old `now` as another one was `then`, which it is.
    pub(super) fn resume(&self, now: Instant, other: &Self, then: Instant) {
        let timer = other.timer.load(Relaxed);
        let begun = now.minus_ms(quiet_ms(timer, then));
        self.set_timer(begun, life_ms(timer));
        self.flags.store(other.flags.load(Relaxed), Relaxed);
        let packets = other.in_packets.load(Relaxed);
        self.in_packets.store(packets, Relaxed);
    }

    /// Gives a template whose time ran out `life_ms` more, unless somebody just used it.
    pub(super) fn postpone(&self, now: Instant, life_ms: u32) {
        let before = self.timer.load(Relaxed);
        if left_ms(before, now) == 0 {
            let after = timer(now, life_ms);
            // If it failed there is time again.
            let _ = self.timer.compare_exchange(before, after, Relaxed, Relaxed);
        }
    }

    pub(super) fn template(&self, controls: u32, engine: &EngineLine, now: Instant) -> Template {
        let (words, flags) = (self.words(), self.flags.load(Relaxed));
        let kind = words.kind();
        Template {
            kind,
            protocol: words.protocol(),
            client: words.address(0, 48),
            virtual_address: words.address(2, 32),
            engine: match kind {
                Kind::Engine => engine.data(),
                _ => Vec::new(),
            },
            tie: self.tie(),
            expires_ms: self.left_ms(now),
            assured: flags & ASSURED != 0,
            invalid: flags & INVALID != 0,
            controls,
            in_packets: self.in_packets.load(Relaxed),
        }
    }
}

fn timer(now: Instant, life_ms: u32) -> u64 {
    u64::from(now.0) << 32 | u64::from(life_ms)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
fn life_ms(timer: u64) -> u32 {
    timer as u32
}

fn left_ms(timer: u64, now: Instant) -> u32 {
    life_ms(timer).saturating_sub(quiet_ms(timer, now))
}

/// Since its time last began.
fn quiet_ms(timer: u64, now: Instant) -> u32 {
    let begun = Instant((timer >> 32) as u32);
    if begun.since(now) <= SKEW_MAX_MS {
        return 0;
    }
    now.since(begun)
}

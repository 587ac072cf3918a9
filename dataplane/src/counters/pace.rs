//! How busy a worker is, and how long things take: counted once a pass or once a connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Counter, Gauge};

/// Up to so many nanoseconds are in a histogram's first bucket ...
const FIRST_SHIFT: u32 = 8;
/// ... and beyond so many (17 s) in its last one.
const LAST_SHIFT: u32 = 34;
/// Two buckets for each doubling, and one at either end.
pub const BUCKETS: usize = 2 + 2 * (LAST_SHIFT - FIRST_SHIFT) as usize;
/// The longest gap is of the last one or two of these spans of milliseconds (16 s), so that who
/// looks every 15 s misses none.
const GAP_SHIFT: u32 = 14;
const NS_PER_S: u64 = 1_000_000_000;

/// How often something took how long: buckets of nanoseconds, two for each doubling.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    /// Nanoseconds, all together.
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| Counter::default()),
            sum: Counter::default(),
        }
    }
}

impl Histogram {
    /// `times` things took `ns` each.
    #[inline]
    pub fn record(&self, ns: u64, times: u64) {
        self.buckets[bucket(ns)].add(times);
        self.sum.add(ns.wrapping_mul(times));
    }

    /// Adds what this one has to `counts`, by bucket, and returns the sum of nanoseconds.
    pub fn add_to(&self, counts: &mut [u64; BUCKETS]) -> u64 {
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count += bucket.get();
        }
        self.sum.get()
    }
}

/// The bucket of a time: the first whose [`bound`] it does not exceed.
#[inline]
fn bucket(ns: u64) -> usize {
    let below = ns.saturating_sub(1);
    if below >> FIRST_SHIFT == 0 {
        return 0;
    }
    let shift = below.ilog2();
    let half = (below >> (shift - 1)) & 1;
    let index = 1 + 2 * (shift - FIRST_SHIFT) as usize + usize::from(half == 1);
    index.min(BUCKETS - 1)
}

/// The most nanoseconds that a bucket counts; `None` for the last one.
pub fn bound(bucket: usize) -> Option<u64> {
    let Some(nth) = bucket.checked_sub(1) else {
        return Some(1 << FIRST_SHIFT);
    };
    (bucket < BUCKETS - 1).then(|| (3 + (nth as u64 & 1)) << (FIRST_SHIFT as usize + nth / 2 - 1))
}

/// What a pass over a worker's queues was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Pass {
    Packets,
    /// Commands and news of other workers, without a packet.
    Control,
    /// Nothing to do; a rest is part of it.
    Idle,
}

impl Pass {
    pub const ALL: [Self; 3] = [Self::Packets, Self::Control, Self::Idle];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Control => "control",
            Self::Idle => "idle",
        }
    }
}

/// How a worker spends its time.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Pace {
    /// By [`Pass`].
    cycles: [Counter; 3],
    /// Packets that were taken in hand: received here or by another worker for this one.
    pub packets: Counter,
    /// Batches of updates that were applied whole.
    pub batches: Counter,
    /// Packets in the rings to this worker when it last looked.
    pub waiting: Gauge,
    gap: AtomicU64,
    hz: Counter,
    /// From receiving a packet to the end of the pass, by when it is sent, dropped or held.
    pub residence: Histogram,
    /// From the first SYN of a client to the SYN/ACK of its server.
    pub handshakes: Histogram,
}

impl Pace {
    pub fn cycles(&self, pass: Pass) -> u64 {
        self.cycles[pass as usize].get()
    }

    /// Cycles a second; 0 before the worker runs.
    pub fn hz(&self) -> u64 {
        self.hz.get()
    }

    pub fn seconds(&self, pass: Pass) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "for people and graphs")]
        let seconds = self.cycles(pass) as f64 / self.hz().max(1) as f64;
        seconds
    }

    /// Nanoseconds of the longest pass, a rest included, within the last 16 to 32 seconds.
    pub fn longest_gap_ns(&self) -> u64 {
        self.gap.load(Relaxed)
    }
}

/// Times a worker's passes; the worker reads the cycle counter.
#[derive(Debug)]
pub struct Stopwatch {
    /// The cycle counter at the end of the last pass.
    last: u64,
    /// Nanoseconds a cycle, scaled by 2^32.
    scale: u64,
    /// Cycles: the longest gap of this span, the one before, and which this is.
    gaps: [u64; 2],
    span: u32,
}

impl Stopwatch {
    /// A cycle counter that runs at `hz` a second is at `cycles`.
    pub fn start(pace: &Pace, hz: u64, cycles: u64) -> Self {
        let hz = hz.max(1);
        pace.hz.add(hz);
        let scale = (u128::from(NS_PER_S) << 32) / u128::from(hz);
        Self {
            last: cycles,
            scale: u64::try_from(scale).unwrap_or(u64::MAX),
            gaps: [0; 2],
            span: 0,
        }
    }

    fn ns(&self, cycles: u64) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "half a million years")]
        let ns = ((u128::from(cycles) * u128::from(self.scale)) >> 32) as u64;
        ns
    }

    /// A pass ends at `cycles`, `ms` after the start. It took `packets` in hand, the first of them
    /// at cycle `since`.
    #[inline]
    pub fn pass(
        &mut self,
        pace: &Pace,
        pass: Pass,
        ms: u32,
        cycles: u64,
        (packets, since): (u64, u64),
    ) {
        // Counters of two sockets may differ a little.
        let spent = cycles.saturating_sub(self.last);
        self.last = cycles;
        pace.cycles[pass as usize].add(spent);
        if packets > 0 {
            pace.packets.add(packets);
            let ns = self.ns(cycles.saturating_sub(since));
            pace.residence.record(ns, packets);
        }
        if spent > self.gaps[0] || ms >> GAP_SHIFT != self.span {
            self.note_gap(pace, spent, ms >> GAP_SHIFT);
        }
    }

    #[cold]
    fn note_gap(&mut self, pace: &Pace, spent: u64, span: u32) {
        self.gaps = match span.wrapping_sub(self.span) {
            0 => [spent, self.gaps[1]],
            1 => [spent, self.gaps[0]],
            _ => [spent, 0],
        };
        self.span = span;
        let longest = self.gaps[0].max(self.gaps[1]);
        pace.gap.store(self.ns(longest), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_is_long_enough() {
        let times = (0..4096u64).chain((10..63).flat_map(|shift| {
            let edge = 1u64 << shift;
            [edge - 1, edge, edge + 1, edge / 2 * 3, edge / 2 * 3 + 1]
        }));
        for ns in times {
            let naive = (0..BUCKETS).find(|index| bound(*index).is_none_or(|most| ns <= most));
            assert_eq!(Some(bucket(ns)), naive, "{ns} ns");
        }
        let bounds: Vec<_> = (0..BUCKETS).map_while(bound).collect();
        assert_eq!(bounds.len(), BUCKETS - 1);
        assert_eq!(bounds[..4], [256, 384, 512, 768]);
        assert_eq!(bounds[BUCKETS - 2], 1 << LAST_SHIFT);
    }

    #[test]
    fn passes_add_up_and_packets_weigh() {
        let pace = Pace::default();
        // Two cycles a nanosecond.
        let mut watch = Stopwatch::start(&pace, 2 * NS_PER_S, 1000);
        watch.pass(&pace, Pass::Idle, 0, 1400, (0, 0));
        watch.pass(&pace, Pass::Packets, 0, 5400, (32, 1800));
        watch.pass(&pace, Pass::Control, 0, 5500, (0, 0));
        let spent = Pass::ALL.map(|pass| pace.cycles(pass));
        assert_eq!(spent, [4000, 100, 400]);
        assert_eq!(pace.packets.get(), 32);
        let mut counts = [0; BUCKETS];
        let sum = pace.residence.add_to(&mut counts);
        assert_eq!(sum, 32 * 1800);
        assert_eq!(counts[bucket(1800)], 32);
        assert_eq!(counts.iter().sum::<u64>(), 32);
    }

    #[test]
    fn the_longest_gap_is_of_this_span_or_the_last() {
        let pace = Pace::default();
        let mut watch = Stopwatch::start(&pace, NS_PER_S, 0);
        let mut at = 0;
        let mut longest = |ms, gap| {
            at += gap;
            watch.pass(&pace, Pass::Idle, ms, at, (0, 0));
            pace.longest_gap_ns()
        };
        assert_eq!(longest(0, 500), 500);
        assert_eq!(longest(10, 100), 500);
        assert_eq!(longest(16_384, 200), 500, "the next span");
        assert_eq!(longest(32_768, 50), 200, "the one after it");
        assert_eq!(longest(98_304, 10), 10, "and after a long silence");
    }
}

//! Time is an argument. Only the worker and the control side read a clock.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Milliseconds since the daemon started. Wraps after 49 days: compare with [`Instant::since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instant(pub u32);

impl Instant {
    pub const fn from_ms(ms: u32) -> Self {
        Self(ms)
    }

    /// Milliseconds from `earlier` to here; right across the wrap for spans under 24 days.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Whether `deadline` is now or past.
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the sign of the wrapped difference is the order"
    )]
    pub const fn reached(self, deadline: Self) -> bool {
        self.0.wrapping_sub(deadline.0) as i32 >= 0
    }

    pub const fn plus_ms(self, ms: u32) -> Self {
        Self(self.0.wrapping_add(ms))
    }

    pub const fn minus_ms(self, ms: u32) -> Self {
        Self(self.0.wrapping_sub(ms))
    }
}

/// Time since the daemon started, the same for all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// In nanoseconds since the system was started, which all processes count alike.
    started_ns: u64,
}

impl Clock {
    pub fn start() -> Self {
        Self {
            started_ns: since_boot_ns(),
        }
    }

    /// The clock of an earlier process; `None` if it was started in the future.
    pub fn resume(started_ns: u64) -> Option<Self> {
        (started_ns <= since_boot_ns()).then_some(Self { started_ns })
    }

    /// For [`Self::resume`].
    pub fn started_ns(&self) -> u64 {
        self.started_ns
    }

    /// Now, and in nanoseconds since the start.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`Instant` wraps and says so"
    )]
    pub fn now(&self) -> (Instant, u64) {
        let elapsed_ns = since_boot_ns().saturating_sub(self.started_ns);
        let now = Instant::from_ms((elapsed_ns / 1_000_000) as u32);
        (now, elapsed_ns)
    }

    /// When it was started by the system's clock as that is set now: nanoseconds since the epoch.
    #[expect(clippy::disallowed_methods, reason = "what people are shown")]
    pub fn epoch_ns(&self) -> u64 {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall = wall.map_or(0, |wall| u64::try_from(wall.as_nanos()).unwrap_or(0));
        wall.saturating_sub(self.now().1)
    }
}

fn since_boot_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_in_another_process() {
        let clock = Clock::start();
        let other = Clock::resume(clock.started_ns()).unwrap();
        let (before, between, after) = (clock.now().1, other.now().1, clock.now().1);
        assert!(before <= between && between <= after);
        assert_eq!(Clock::resume(u64::MAX), None);
    }

    #[test]
    fn order_survives_the_wrap() {
        let before = Instant(u32::MAX - 5);
        let after = before.plus_ms(10);
        assert_eq!(after, Instant(4));
        assert_eq!(after.since(before), 10);
        assert!(after.reached(before) && after.reached(after) && !before.reached(after));
    }
}

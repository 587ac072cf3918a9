//! Time is an argument. Only the worker and the control side read a clock.

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
#[derive(Debug, Clone, Copy)]
pub struct Clock(std::time::Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the data plane")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Now, and in nanoseconds since the start.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`Instant` wraps and says so; nanoseconds do after 584 years"
    )]
    pub fn now(&self) -> (Instant, u64) {
        let elapsed = self.0.elapsed();
        let now = Instant::from_ms(elapsed.as_millis() as u32);
        (now, elapsed.as_nanos() as u64)
    }

    /// When it was started by the system's clock as that is set now: nanoseconds since the epoch.
    #[expect(clippy::disallowed_methods, reason = "what people are shown")]
    pub fn epoch_ns(&self) -> u64 {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall = wall.map_or(0, |wall| u64::try_from(wall.as_nanos()).unwrap_or(0));
        wall.saturating_sub(self.now().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let before = Instant(u32::MAX - 5);
        let after = before.plus_ms(10);
        assert_eq!(after, Instant(4));
        assert_eq!(after.since(before), 10);
        assert!(after.reached(before) && after.reached(after) && !before.reached(after));
    }
}

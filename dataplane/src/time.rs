//! Time is an argument. Only the worker and the control server read a clock.

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

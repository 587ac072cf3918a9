//! How many answers of our own may leave.

use crate::time::Instant;

/// A token bucket over all answers of one worker.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: u32,
    burst: u32,
    /// Thousandths of an answer.
    credit: u64,
    at: Instant,
}

impl Default for RateLimit {
    /// As Linux does: `icmp_msgs_per_sec` 1000, `icmp_msgs_burst` 50.
    fn default() -> Self {
        Self::new(1000, 50)
    }
}

impl RateLimit {
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            credit: u64::from(burst) * 1000,
            at: Instant::default(),
        }
    }

    /// Whether one more answer may be sent now; if so, it is taken as sent.
    pub fn allow(&mut self, now: Instant) -> bool {
        self.allow_beside(0, now)
    }

    /// As [`Self::allow`], if so many could be sent besides.
    pub fn allow_beside(&mut self, reserved: u32, now: Instant) -> bool {
        let earned = u64::from(now.since(self.at)) * u64::from(self.per_second);
        self.credit = self
            .credit
            .saturating_add(earned)
            .min(u64::from(self.burst) * 1000);
        self.at = now;
        let allowed = self.credit >= (u64::from(reserved) + 1) * 1000;
        if allowed {
            self.credit -= 1000;
        }
        allowed
    }
}

//! Connection thresholds (`-x`, `-y`): a server with as many connections as its upper one gets no
//! more until it has fewer than its lower one.

use control::Thresholds;

/// A server's thresholds, and whether it is over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limit {
    thresholds: Thresholds,
    over: bool,
}

impl Limit {
    /// LVS's OVERLOAD flag, as of the last [`Self::observe`].
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether there is anything to observe.
    pub fn is_set(&self) -> bool {
        self.thresholds.upper > 0
    }

    /// The server has this many connections now. LVS decides at each one that begins or ends; it is
    /// enough to look after each that begins, and before the next.
    pub fn observe(&mut self, connections: u64) {
        let Thresholds { upper, lower } = self.thresholds;
        let lower = if lower > 0 { lower } else { upper - upper / 4 };
        if connections >= u64::from(upper) {
            self.over = self.is_set();
        } else if connections < u64::from(lower) {
            self.over = false;
        }
    }

    /// Other thresholds for a server with this many connections.
    pub fn change(&mut self, thresholds: Thresholds, connections: u64) {
        self.observe(connections);
        self.thresholds = thresholds;
        self.observe(connections);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// LVS's rules, event by event (`ip_vs_ctl.c`, `ip_vs_conn.c`).
    struct Flag {
        upper: u64,
        lower: u64,
        count: u64,
        set: bool,
    }

    impl Flag {
        fn effective(&self) -> u64 {
            match self.lower {
                0 => self.upper - (self.upper >> 2),
                lower => lower,
            }
        }

        fn begins(&mut self) {
            self.count += 1;
            if self.upper > 0 && self.count == self.upper && self.count >= self.effective() {
                self.set = true;
            }
        }

        fn ends(&mut self) {
            let before = self.count;
            self.count -= 1;
            if before == self.effective() && self.count < self.upper {
                self.set = false;
            }
        }

        fn edit(&mut self, upper: u64, lower: u64) {
            if (self.upper, self.lower) == (upper, lower) {
                return;
            }
            (self.upper, self.lower) = (upper, lower);
            if upper == 0 {
                self.set = false;
            } else if self.count >= upper {
                self.set = true;
            } else if self.count < self.effective() {
                self.set = false;
            }
        }
    }

    proptest! {
        /// Looking only when connections begin, and before a pick, is as good as at every event.
        #[test]
        fn observed_now_and_then_is_lvss_flag(
            steps in proptest::collection::vec((0u8..8, 0u32..9, 0u32..9), 1..200),
        ) {
            let mut flag = Flag { upper: 0, lower: 0, count: 0, set: false };
            let mut limit = Limit::default();
            for (step, upper, lower) in steps {
                match step {
                    0 => {
                        let lower = lower.min(upper);
                        flag.edit(upper.into(), lower.into());
                        limit.change(Thresholds { upper, lower }, flag.count);
                    }
                    1..=4 => {
                        flag.begins();
                        limit.observe(flag.count - 1);
                        limit.observe(flag.count);
                    }
                    _ if flag.count > 0 => flag.ends(),
                    _ => {}
                }
                let mut looked = limit;
                looked.observe(flag.count);
                prop_assert_eq!(looked.is_over(), flag.set);
            }
        }
    }
}

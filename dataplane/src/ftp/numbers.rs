//! Sequence numbers of a control connection whose server's text grew (or shrank) on its way.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::sync::message::Sequence;

/// By how much a server's text differs in length from what the client gets. All zero: by nothing.
///
/// As in LVS only the last change is remembered, and what was before it: a server says nothing more
/// until its client has taken that.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy, PartialEq, Eq, Default,
)]
#[repr(C)]
pub struct Growth {
    /// The server's number of the first byte of the line that was changed last, and of the one behind
    /// what was changed in it.
    line: u32,
    end: u32,
    /// How much longer than the server's the client's text is, up to that line and behind it; modulo
    /// 2^32.
    before: u32,
    behind: u32,
}

/// Whether `a` is not before `b`.
fn reached(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) < 1 << 31
}

impl Growth {
    /// Notes that in the line which begins at the number `line` the text that ends at `end` grew `by`
    /// so much. What is sent again counts once.
    pub fn note(&mut self, line: u32, end: u32, by: u32) {
        if *self == Self::default() || reached(line, self.end) {
            self.before = self.behind;
        } else if line != self.line {
            return;
        }
        (self.line, self.end) = (line, end);
        self.behind = self.before.wrapping_add(by);
    }

    /// What to add to the number of the server's segment that begins at `seq`.
    pub fn shift(&self, seq: u32) -> u32 {
        if reached(seq, self.end) {
            self.behind
        } else {
            self.before
        }
    }

    /// The server's number for one that the client acknowledges. Of a line that was changed, all or
    /// nothing is acknowledged.
    pub fn acknowledged(&self, ack: u32) -> u32 {
        let behind = ack.wrapping_sub(self.behind);
        if reached(behind, self.end) {
            return behind;
        }
        let before = ack.wrapping_sub(self.before);
        if reached(before, self.line) {
            self.line
        } else {
            before
        }
    }

    /// As LVS tells it.
    pub fn sequence(&self) -> Sequence {
        Sequence {
            from: self.line,
            delta: self.behind,
            previous_delta: self.before,
        }
    }

    /// Whether all numbers are the same on both sides.
    pub fn is_nothing(&self) -> bool {
        self.before == 0 && self.behind == 0
    }
}

/// Where the change ended is not told: LVS takes the byte behind its beginning.
impl From<Sequence> for Growth {
    fn from(told: Sequence) -> Self {
        Self {
            line: told.from,
            end: told.from.wrapping_add(1),
            before: told.previous_delta,
            behind: told.delta,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_grew() {
        let growth = Growth::default();
        assert!(growth.is_nothing());
        for number in [0, 1, 1 << 31, u32::MAX] {
            assert_eq!(growth.shift(number), 0);
            assert_eq!(growth.acknowledged(number), number);
        }
    }

    #[test]
    fn retransmissions_count_once() {
        let mut growth = Growth::default();
        growth.note(1000, 1040, 5);
        let once = growth;
        growth.note(1000, 1040, 5);
        assert_eq!(growth, once);
        growth.note(1050, 1090, 2);
        let twice = growth;
        growth.note(1000, 1040, 5);
        assert_eq!(growth, twice, "the one before");
        assert_eq!(
            [1000, 1049, 1050, 1089, 1090].map(|n| growth.shift(n)),
            [5, 5, 5, 5, 7]
        );
        // The client acknowledges up to the line, part of it, all, and more.
        for (ack, server) in [
            (1010, 1005),
            (1055, 1050),
            (1060, 1050),
            (1097, 1090),
            (1100, 1093),
        ] {
            assert_eq!(growth.acknowledged(ack), server, "{ack}");
        }
    }

    /// A connection that begins at number 0 may be changed at 0.
    #[test]
    fn any_number_is_one() {
        let mut growth = Growth::default();
        growth.note(0, 10, 3);
        assert_eq!((growth.shift(0), growth.shift(10)), (0, 3));
    }

    proptest! {
        /// A server's lines, some of which change, and their echo by the client.
        #[test]
        fn the_server_is_acknowledged_what_it_sent(
            isn: u32,
            lines in proptest::collection::vec((30u32..80, proptest::option::of(0u32..25)), 1..40),
        ) {
            let (mut growth, mut seq, mut total) = (Growth::default(), isn, 0u32);
            for (len, by) in lines {
                let next = seq.wrapping_add(len);
                if let Some(by) = by {
                    // From ten bytes shorter to fourteen longer.
                    let by = by.wrapping_sub(10);
                    growth.note(seq, next.wrapping_sub(2), by);
                    prop_assert_eq!(growth.shift(seq), total);
                    total = total.wrapping_add(by);
                }
                prop_assert_eq!(growth.shift(next), total);
                prop_assert_eq!(growth.acknowledged(next.wrapping_add(total)), next);
                seq = next;
            }
        }
    }
}

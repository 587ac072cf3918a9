//! Changes in the header of a TCP segment, in place, its checksum brought along.
//!
//! A segment is a slice that begins with the TCP header and holds at least all of it. One that
//! does not, or whose options are malformed, is left alone from there on.

use std::ops::Range;

use crate::fullnat::frame::{self, TCP_CHECKSUM};
use crate::wire::delta::Delta;

const FIXED: usize = 20;

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
/// The client's address; Alibaba's for IPv6 in the first, DPVS's and all for IPv4 in the second.
const TOA: [u8; 2] = [253, 254];

/// No MSS is lowered below what Linux takes as the least.
const MSS_MIN: u16 = 48;

/// What of a segment decides about its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
}

impl View {
    /// `None` when the segment ends before its fixed header does.
    pub fn of(segment: &[u8]) -> Option<Self> {
        let [_, _, _, _, a, b, c, d, e, f, g, h, _, flags, ..] = *segment.first_chunk::<FIXED>()?;
        Some(Self {
            seq: u32::from_be_bytes([a, b, c, d]),
            ack: u32::from_be_bytes([e, f, g, h]),
            flags,
        })
    }
}

/// What is added to a segment's sequence numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shift {
    pub seq: u32,
    pub ack: u32,
    /// Added to every edge of selective acknowledgements.
    pub sack: u32,
}

impl Shift {
    /// Acknowledgements and selective ones alike.
    pub const fn new(seq: u32, ack: u32) -> Self {
        Self {
            seq,
            ack,
            sack: ack,
        }
    }
}

/// Length of the header, options included.
pub(crate) fn header_len(segment: &[u8]) -> Option<usize> {
    let len = usize::from(*segment.get(12)? >> 4) * 4;
    (FIXED..=segment.len()).contains(&len).then_some(len)
}

/// Moves sequence numbers, acknowledgements and selective ones.
pub fn shift(segment: &mut [u8], by: Shift) {
    let Some(len) = header_len(segment) else {
        return;
    };
    let header = &mut segment[..len];
    let mut delta = add(header, 4, by.seq).and(add(header, 8, by.ack));
    if by.sack != 0 {
        delta = delta.and(renumber_edges(header, |edge| edge.wrapping_add(by.sack)));
    }
    frame::apply(segment, TCP_CHECKSUM, delta);
}

/// Gives acknowledgements, selective ones too, the numbers that `number` makes of theirs.
pub fn renumber_acks(segment: &mut [u8], number: impl Fn(u32) -> u32) {
    let Some(len) = header_len(segment) else {
        return;
    };
    let header = &mut segment[..len];
    let delta = renumber(header, 8, &number).and(renumber_edges(header, &number));
    frame::apply(segment, TCP_CHECKSUM, delta);
}

/// Changes every edge of selective acknowledgements.
fn renumber_edges(header: &mut [u8], number: impl Fn(u32) -> u32) -> Delta {
    let mut delta = Delta::default();
    walk(header, |header, kind, range| {
        if kind == SACK {
            for edge in (range.start + 2..).step_by(4) {
                if edge + 4 > range.end {
                    break;
                }
                delta = delta.and(renumber(header, edge, &number));
            }
        }
    });
    delta
}

/// Overwrites options that claim to tell a client's address, which only we may. Whether there
/// were any.
pub fn strip(segment: &mut [u8]) -> bool {
    blank(segment, |kind, len| {
        TOA.contains(&kind) && matches!(len, 8 | 20)
    })
}

/// Overwrites the timestamps of a SYN, so that the connection goes without them. Whether there
/// were any.
pub fn blank_timestamps(segment: &mut [u8]) -> bool {
    blank(segment, |kind, len| kind == TIMESTAMPS && len == 10)
}

/// Lowers the announced MSS by `by`, but not below 48. Whether there is one.
pub fn lower_mss(segment: &mut [u8], by: u16) -> bool {
    change_options(segment, |header, kind, range| {
        if kind != MSS || range.len() != 4 {
            return None;
        }
        let at = range.start + 2;
        let old = u16::from_be_bytes([header[at], header[at + 1]]);
        let new = old.saturating_sub(by).max(MSS_MIN).min(old);
        Some(frame::overwrite(header, at, &new.to_be_bytes()))
    })
}

/// Overwrites by NOPs what `which` says of an option's kind and length.
fn blank(segment: &mut [u8], which: impl Fn(u8, usize) -> bool) -> bool {
    change_options(segment, |header, kind, range| {
        let nops = [NOP; 40];
        which(kind, range.len())
            .then(|| frame::overwrite(header, range.start, &nops[..range.len()]))
    })
}

/// Lets `change` see every option in the header; whether it changed any.
fn change_options(
    segment: &mut [u8],
    change: impl Fn(&mut [u8], u8, Range<usize>) -> Option<Delta>,
) -> bool {
    let Some(len) = header_len(segment) else {
        return false;
    };
    let mut total = None;
    walk(&mut segment[..len], |header, kind, range| {
        if let Some(delta) = change(header, kind, range) {
            total = Some(total.map_or(delta, |sum: Delta| sum.and(delta)));
        }
    });
    if let Some(delta) = total {
        frame::apply(segment, TCP_CHECKSUM, delta);
    }
    total.is_some()
}

/// Calls `each` with every option's kind and place, NOPs left out, up to the end of the list or
/// the first that is malformed. At most 20: each is two bytes or longer.
fn walk(header: &mut [u8], mut each: impl FnMut(&mut [u8], u8, Range<usize>)) {
    let mut at = FIXED;
    while let Some(&kind) = header.get(at) {
        match kind {
            END => return,
            NOP => at += 1,
            _ => {
                let len = header.get(at + 1).map_or(0, |&len| usize::from(len));
                let range = at..at + len;
                if len < 2 || range.end > header.len() {
                    return;
                }
                at = range.end;
                each(header, kind, range);
            }
        }
    }
}

/// Adds to the 32-bit number at `at`, which may be odd.
fn add(header: &mut [u8], at: usize, by: u32) -> Delta {
    if by == 0 {
        return Delta::default();
    }
    renumber(header, at, |old| old.wrapping_add(by))
}

/// Changes the 32-bit number at `at`, which may be odd.
fn renumber(header: &mut [u8], at: usize, number: impl Fn(u32) -> u32) -> Delta {
    let old = u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    frame::overwrite(header, at, &number(old).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fullnat::testing::{self, Parts};

    /// The options, each in front of the end of the list changed.
    fn each(parts: &Parts, change: impl Fn(&mut Vec<u8>)) -> Parts {
        let mut parts = parts.clone();
        parts
            .options
            .iter_mut()
            .take_while(|option| option[0] != 0)
            .for_each(change);
        parts
    }

    fn is_toa(option: &[u8]) -> bool {
        matches!(option, [253 | 254, 8 | 20, ..])
    }

    fn edges(option: &mut [u8], by: u32) {
        for edge in option[2..].chunks_mut(4) {
            let old = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
            edge.copy_from_slice(&old.wrapping_add(by).to_be_bytes());
        }
    }

    #[test]
    fn mss_has_a_floor() {
        for (mss, by, lowered) in [(1460u16, 8, 1452u16), (50, 20, 48), (40, 8, 40), (0, 8, 0)] {
            let announce = |mss: u16| {
                let [high, low] = mss.to_be_bytes();
                let options = vec![vec![1], vec![2, 4, high, low]];
                Parts {
                    options,
                    ..Parts::default()
                }
            };
            let mut tcp = announce(mss).tcp();
            assert!(lower_mss(&mut tcp, by));
            assert_eq!(tcp, announce(lowered).tcp());
        }
    }

    #[test]
    fn malformed_options_end_the_walk() {
        let toa = vec![254, 8, 1, 2, 3, 4, 5, 6];
        for bad in [[1, 1, 1, 5], [1, 1, 8, 0], [1, 8, 1, 1], [1, 254, 20, 1]] {
            let options = vec![toa.clone(), bad.to_vec()];
            let mut tcp = Parts {
                options,
                ..Parts::default()
            }
            .tcp();
            assert!(strip(&mut tcp) && !strip(&mut tcp));
            let options = vec![vec![NOP; 8], bad.to_vec()];
            assert_eq!(
                tcp,
                Parts {
                    options,
                    ..Parts::default()
                }
                .tcp()
            );
        }
    }

    proptest! {
        #[test]
        fn shifting(parts in testing::parts(), seq: u32, ack: u32, sack: u32) {
            let mut tcp = parts.tcp();
            shift(&mut tcp, Shift { seq, ack, sack });
            let mut expected = each(&parts, |option| {
                if option[0] == SACK {
                    edges(option, sack);
                }
            });
            expected.seq = parts.seq.wrapping_add(seq);
            expected.ack = parts.ack.wrapping_add(ack);
            prop_assert_eq!(&tcp, &expected.tcp());
            let back = Shift {
                seq: seq.wrapping_neg(),
                ack: ack.wrapping_neg(),
                sack: sack.wrapping_neg(),
            };
            shift(&mut tcp, back);
            prop_assert_eq!(tcp, parts.tcp());
        }

        #[test]
        fn renumbering(parts in testing::parts(), by: u32) {
            let (mut tcp, mut shifted) = (parts.tcp(), parts.tcp());
            renumber_acks(&mut tcp, |number| number.wrapping_add(by));
            shift(&mut shifted, Shift::new(0, by));
            prop_assert_eq!(tcp, shifted);
        }

        #[test]
        fn stripping_and_blanking(parts in testing::parts()) {
            let mut tcp = parts.tcp();
            let stripped = strip(&mut tcp);
            let expected = each(&parts, |option| if is_toa(option) { option.fill(NOP) });
            prop_assert_eq!(stripped, expected.options != parts.options);
            prop_assert_eq!(&tcp, &expected.tcp());

            let mut tcp = parts.tcp();
            let blanked = blank_timestamps(&mut tcp);
            let expected = each(&parts, |option| {
                if option.starts_with(&[TIMESTAMPS, 10]) {
                    option.fill(NOP);
                }
            });
            prop_assert_eq!(blanked, expected.options != parts.options);
            prop_assert_eq!(&tcp, &expected.tcp());
        }

        #[test]
        fn never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..70), shape in 5u8..16, by: u32,
        ) {
            if let Some(offset) = bytes.get_mut(12) {
                *offset = shape << 4;
            }
            shift(&mut bytes, Shift::new(by, by));
            renumber_acks(&mut bytes, |number| number ^ by);
            strip(&mut bytes);
            blank_timestamps(&mut bytes);
            lower_mss(&mut bytes, 8);
            let _ = View::of(&bytes);
        }
    }
}

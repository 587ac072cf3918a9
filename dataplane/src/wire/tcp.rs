//! TCP options (RFC 9293 §3.2).

use crate::wire::delta::Delta;
use crate::wire::flow::tcp_flags::SYN;

const HEADER: usize = 20;
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// Lowers the maximum segment size that a SYN announces to `max`, its checksum with it; whether it
/// was higher. Any other segment, and one whose options are not valid, stays as it is from there on.
pub fn clamp_mss(segment: &mut [u8], max: u16) -> bool {
    if segment.len() < HEADER || segment[13] & SYN == 0 {
        return false;
    }
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let (mut at, mut changed) = (HEADER, false);
    while at < end {
        let len = match (segment[at], segment[..end].get(at + 1)) {
            (NO_OPERATION, _) => 1,
            (END, _) | (_, None) => break,
            (_, Some(&len)) => len,
        };
        let next = at + usize::from(len);
        if next == at || next > end {
            break;
        }
        if segment[at] == MSS && len == MSS_LEN {
            changed |= lower(segment, at + 2, max);
        }
        at = next;
    }
    changed
}

/// Lowers the number at `at`; whether it was higher.
fn lower(segment: &mut [u8], at: usize, max: u16) -> bool {
    let old = [segment[at], segment[at + 1]];
    if u16::from_be_bytes(old) <= max {
        return false;
    }
    let new = max.to_be_bytes();
    segment[at..at + 2].copy_from_slice(&new);
    let delta = if at.is_multiple_of(2) {
        Delta::replace(old, new)
    } else {
        // Each byte lies in the other half of its word.
        Delta::replace([old[1], old[0]], [new[1], new[0]])
    };
    let sum = delta.apply([segment[16], segment[17]]);
    segment[16..18].copy_from_slice(&sum);
    true
}

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
            (END, _) | (_, None | Some(0 | 1)) => break,
            (_, Some(&len)) => len,
        };
        let next = at + usize::from(len);
        if next > end {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A SYN with these options and a right checksum of its own bytes; the pseudo header adds
    /// nothing that changes.
    fn syn(options: &[u8]) -> Vec<u8> {
        assert!(options.len().is_multiple_of(4));
        let words = u8::try_from(5 + options.len() / 4).unwrap();
        let mut segment = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
        segment.extend([words << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(options);
        segment.extend(b"data");
        let sum = textbook(&segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }

    fn textbook(bytes: &[u8]) -> u16 {
        let mut sum = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    /// The options afterwards, if they were changed; checksums must be right.
    fn clamped(options: &[u8], max: u16) -> Option<Vec<u8>> {
        let before = syn(options);
        let mut segment = before.clone();
        let changed = clamp_mss(&mut segment, max);
        assert_eq!(textbook(&segment), 0);
        assert_eq!(changed, segment != before);
        changed.then(|| segment[20..20 + options.len()].to_vec())
    }

    #[test]
    fn what_is_lowered() {
        let even = [2, 4, 0x05, 0xb4, 4, 2, 1, 1];
        assert_eq!(
            clamped(&even, 1380),
            Some(vec![2, 4, 0x05, 0x64, 4, 2, 1, 1])
        );
        assert_eq!(
            clamped(&even, 1459),
            Some(vec![2, 4, 0x05, 0xb3, 4, 2, 1, 1])
        );
        assert_eq!(clamped(&even, 1460), None);
        assert_eq!(clamped(&even, 1461), None);
        let odd = [1, 2, 4, 0x05, 0xb4, 1, 1, 0];
        assert_eq!(
            clamped(&odd, 1380),
            Some(vec![1, 2, 4, 0x05, 0x64, 1, 1, 0])
        );
        let late = [
            1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 4, 0xff, 0xff, 0, 0, 0,
        ];
        assert_eq!(
            clamped(&late, 0x0102).unwrap()[12..],
            [1, 2, 4, 1, 2, 0, 0, 0]
        );
        let twice = [2, 4, 0x05, 0xb4, 2, 4, 0x05, 0xb4];
        assert_eq!(clamped(&twice, 1280), Some([2, 4, 5, 0].repeat(2)));
    }

    #[test]
    fn what_is_left_alone() {
        for options in [
            &[][..],
            &[1, 1, 1, 1],
            &[0, 1, 1, 1, 2, 4, 0x05, 0xb4], // behind the end
            &[2, 0, 0x05, 0xb4],             // no length
            &[2, 3, 0x05, 0xb4],
            &[2, 5, 0x05, 0xb4, 1, 1, 1, 1],
            &[1, 2, 4, 0x05], // cut
            &[1, 1, 1, 2],
            &[3, 1, 2, 4, 0x05, 0xb4, 1, 1], // its number is another option's value
            &[8, 0, 2, 4, 0x05, 0xb4, 1, 1],
            &[8, 200, 2, 4, 0x05, 0xb4, 1, 1],
        ] {
            assert_eq!(clamped(options, 536), None, "{options:?}");
        }
        let mut segment = syn(&[2, 4, 0x05, 0xb4]);
        segment[13] = 0x10;
        assert!(!clamp_mss(&mut segment, 536), "not a SYN");
        let mut segment = syn(&[2, 4, 0x05, 0xb4]);
        assert!(!clamp_mss(&mut segment[..23], 536) && !clamp_mss(&mut segment[..19], 536));
        segment[12] = 4 << 4;
        assert!(!clamp_mss(&mut segment, 536), "no header");
    }

    proptest! {
        #[test]
        fn no_options_do_harm(mut options in proptest::collection::vec(0u8..12, 0..40), max: u16) {
            options.truncate(options.len() / 4 * 4);
            let after = clamped(&options, max);
            prop_assert!(after.is_none() || clamped(&after.unwrap(), max).is_none());
        }

        #[test]
        fn never_panics(mut segment in proptest::collection::vec(any::<u8>(), 0..80), max: u16) {
            if segment.len() > 13 {
                segment[13] |= SYN;
            }
            clamp_mss(&mut segment, max);
        }
    }
}

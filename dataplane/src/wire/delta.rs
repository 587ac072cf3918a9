//! Incremental checksums (RFC 1624, equation 3).
//!
//! Updated, never recomputed: a packet that came in corrupt must go out corrupt, or the receiver
//! would accept it. Words are taken as they lie in memory; a one's complement sum does not care.

/// The change of a checksum when some words of what it covers are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delta(u16);

/// One hop less to live: the change of the word that holds TTL and protocol.
pub const TTL: Delta = Delta(!u16::from_ne_bytes([1, 0]));

impl Delta {
    /// For replacing the 16-bit words of `old` with those of `new`; both of the same even length.
    pub fn replace<const N: usize>(old: [u8; N], new: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2)) };
        Self::adding(&new).and(Self::adding(&old).reversed())
    }

    /// For adding the 16-bit words of `bytes`, an even number of them.
    pub fn adding(bytes: &[u8]) -> Self {
        let words = bytes.as_chunks::<2>().0.iter();
        // At most 64 KiB: no overflow.
        let sum: u32 = words.map(|w| u32::from(u16::from_ne_bytes(*w))).sum();
        Self(fold(sum))
    }

    /// Both changes at once: a one's complement sum.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        let (sum, carry) = self.0.overflowing_add(other.0);
        Self(sum + carry as u16)
    }

    /// The change of the way back.
    #[inline]
    pub const fn reversed(self) -> Self {
        Self(!self.0)
    }

    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The checksum field after the change.
    #[inline(always)]
    pub const fn apply(self, field: [u8; 2]) -> [u8; 2] {
        (!Self(!u16::from_ne_bytes(field)).and(self).0).to_ne_bytes()
    }

    /// As [`Self::apply`] for UDP over IPv4, where 0 means "no checksum": it stays 0 and is never
    /// produced (RFC 768).
    #[inline(always)]
    pub const fn apply_udp(self, field: [u8; 2]) -> [u8; 2] {
        match field {
            [0, 0] => field,
            _ => match self.apply(field) {
                [0, 0] => [0xff, 0xff],
                changed => changed,
            },
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
#[inline(always)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, as its text says it.
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits")]
    fn checksum(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u32 = bytes
            .chunks(2)
            .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    /// 0x0000 and 0xffff are the same number in one's complement.
    fn same(a: [u8; 2], b: [u8; 2]) -> bool {
        let number = |x| if x == [0xff, 0xff] { [0, 0] } else { x };
        number(a) == number(b)
    }

    proptest! {
        #[test]
        fn equals_recomputing(old: [u8; 12], new: [u8; 12], rest: [u8; 8]) {
            let before = checksum(&[&old[..], &rest].concat());
            let after = checksum(&[&new[..], &rest].concat());
            let delta = Delta::replace(old, new);
            prop_assert!(same(delta.apply(before), after));
            prop_assert!(same(delta.reversed().apply(after), before));
            prop_assert_eq!(delta.apply_udp([0, 0]), [0, 0]);
            prop_assert_ne!(delta.apply_udp([before[0] | 1, before[1]]), [0, 0]);
        }

        #[test]
        fn ttl_is_one_less(ttl in 1u8.., protocol: u8, rest: [u8; 8]) {
            let before = checksum(&[&[ttl, protocol][..], &rest].concat());
            let after = checksum(&[&[ttl - 1, protocol][..], &rest].concat());
            prop_assert!(same(TTL.apply(before), after));
        }
    }
}

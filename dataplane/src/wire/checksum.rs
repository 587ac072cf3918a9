//! The Internet checksum (RFC 1071), computed in full.
//!
//! All functions sum the bytes as they are: with the checksum field zeroed the result is what to
//! store there, with the field filled in the result is 0 if it is right. A UDP checksum that comes
//! out as 0 is stored as 0xffff, because 0 means none.

use std::net::{IpAddr, Ipv4Addr};

/// Of an IPv4 header.
pub fn ipv4_header(header: &[u8]) -> u16 {
    !fold(sum(header))
}

/// Of a whole ICMP message.
pub fn icmp(message: &[u8]) -> u16 {
    !fold(sum(message))
}

/// Of a TCP, UDP or ICMPv6 segment between two addresses of one family, pseudo header included.
/// The pseudo headers of both families (RFC 9293 §3.1, RFC 8200 §8.1) are the same sum.
pub fn transport(src: IpAddr, dst: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let pseudo = address(src) + address(dst) + u64::from(protocol) + segment.len() as u64;
    !fold(pseudo + sum(segment))
}

/// As [`transport`], over IPv4.
pub fn transport_v4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    transport(src.into(), dst.into(), protocol, segment)
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

/// The bytes as big-endian 16-bit words, a last odd byte padded with zero; not folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    // A 32-bit word is congruent to the sum of its halves modulo 0xffff.
    let mut total: u64 = words
        .by_ref()
        .map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]])))
        .sum();
    let mut last = [0; 4];
    let rest = words.remainder();
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    total
}

/// One's complement folding to 16 bits, without a branch.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded until it fits")]
pub(crate) const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    ((total >> 16) + (total & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook loop.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        !u16::try_from(total).unwrap()
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(
            icmp(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }

    #[test]
    fn known_header() {
        let mut header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(ipv4_header(&header), 0xb861);
        header[10..12].copy_from_slice(&[0xb8, 0x61]);
        assert_eq!(ipv4_header(&header), 0);
    }

    proptest! {
        #[test]
        fn folding_keeps_the_remainder(total: u64) {
            let folded = fold(total);
            prop_assert_eq!(u64::from(folded) % 0xffff, total % 0xffff);
            prop_assert_eq!(folded == 0, total == 0);
        }

        #[test]
        fn equals_the_textbook(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
            prop_assert_eq!(icmp(&bytes), naive(&bytes));
        }

        #[test]
        fn pseudo_header_is_prepended(
            src: u32, dst: u32, segment in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut whole = [src.to_be_bytes(), dst.to_be_bytes()].concat();
            whole.extend([0, 6]);
            whole.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
            whole.extend(&segment);
            prop_assert_eq!(transport_v4(src.into(), dst.into(), 6, &segment), naive(&whole));
        }

        #[test]
        fn pseudo_header_of_ipv6(
            src: [u8; 16], dst: [u8; 16], segment in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let mut whole = [src, dst].concat();
            whole.extend(u32::try_from(segment.len()).unwrap().to_be_bytes());
            whole.extend([0, 0, 0, 58]);
            whole.extend(&segment);
            prop_assert_eq!(transport(IpAddr::from(src), IpAddr::from(dst), 58, &segment), naive(&whole));
        }
    }
}

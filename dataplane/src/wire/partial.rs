//! Checksums that the sender left to its hardware, completed.
//!
//! A veth pair, a TAP interface or a virtual machine's network card may hand over a TCP or UDP
//! segment whose checksum field only holds the sum of the pseudo header, folded and not
//! complemented: the rest was to be added on the way out.

use super::checksum::{fold, sum};
use super::flow::{TCP, UDP};

/// Where the checksum lies in the transport header.
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Completes the checksum of a whole TCP or UDP segment if it is an unfinished one, and says
/// whether it was.
///
/// `packet` is exactly the IP packet, of either family, not a fragment; its segment begins at
/// `l4`, after whatever options or extension headers there are. Any other protocol, and a packet
/// that is too short, is left alone. A finished checksum that happens to look like an unfinished
/// one is right afterwards, too.
#[inline]
pub fn complete(packet: &mut [u8], l4: usize, protocol: u8) -> bool {
    let at = match protocol {
        TCP => TCP_CHECKSUM,
        UDP => UDP_CHECKSUM,
        _ => return false,
    };
    let Some((header, segment)) = packet.split_at_mut_checked(l4) else {
        return false;
    };
    let addresses = match header.first().map(|first| first >> 4) {
        Some(4) => header.get(12..20),
        Some(6) => header.get(8..40),
        _ => None,
    };
    let (Some(addresses), Some(field)) = (addresses, segment.get(at..at + 2)) else {
        return false;
    };
    let pseudo = sum(addresses) + u64::from(protocol) + segment.len() as u64;
    let is_partial = field == fold(pseudo).to_be_bytes();
    if is_partial {
        finish(segment, at, protocol);
    }
    is_partial
}

/// The field holds the pseudo header's part, so the sum of the segment as it is is that of all.
fn finish(segment: &mut [u8], at: usize, protocol: u8) {
    let checksum = match !fold(sum(segment)) {
        0 if protocol == UDP => 0xffff,
        checksum => checksum,
    };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::flow::SCTP;

    /// RFC 1071 as its text says it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total = 0;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    /// Pseudo header of a packet made by [`packet`].
    fn pseudo(packet: &[u8], l4: usize, protocol: u8) -> Vec<u8> {
        let addresses = if packet[0] >> 4 == 4 { 12..20 } else { 8..40 };
        let len = u32::try_from(packet.len() - l4).unwrap();
        [&packet[addresses], &len.to_be_bytes(), &[0, 0, 0, protocol]].concat()
    }

    /// A packet with four bytes of options or extension headers, and its checksum field's place.
    fn packet(v6: bool, protocol: u8, addresses: &[u8; 32], payload: &[u8]) -> (Vec<u8>, usize) {
        let mut packet = if v6 {
            [&[0x60, 0, 0, 0, 0, 0, protocol, 64][..], addresses, &[1; 4]].concat()
        } else {
            let fixed = [0x46, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
            [&fixed[..], &addresses[..8], &[1; 4]].concat()
        };
        let l4 = packet.len();
        packet.extend(if protocol == TCP {
            &[0x11; 20][..]
        } else {
            &[0x22; 8]
        });
        packet.extend(payload);
        (packet, l4)
    }

    fn field_at(l4: usize, protocol: u8) -> usize {
        l4 + if protocol == TCP { 16 } else { 6 }
    }

    fn put(packet: &mut [u8], at: usize, value: u16) {
        packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn get(packet: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([packet[at], packet[at + 1]])
    }

    proptest! {
        #[test]
        fn unfinished_is_finished_and_finished_stays(
            v6: bool, tcp: bool, addresses: [u8; 32],
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let protocol = if tcp { TCP } else { UDP };
            let (mut packet, l4) = packet(v6, protocol, &addresses, &payload);
            let at = field_at(l4, protocol);
            let pseudo = pseudo(&packet, l4, protocol);
            put(&mut packet, at, naive(&pseudo));
            prop_assert!(complete(&mut packet, l4, protocol));
            prop_assert_eq!(naive(&[&pseudo, &packet[l4..]].concat()), 0xffff);
            prop_assert!(tcp || get(&packet, at) != 0);

            let finished = packet.clone();
            let again = complete(&mut packet, l4, protocol);
            prop_assert_eq!(again, get(&finished, at) == naive(&pseudo));
            prop_assert_eq!(packet, finished);
        }

        #[test]
        fn rubbish(mut packet in proptest::collection::vec(any::<u8>(), 0..80), l4 in 0..90usize, protocol: u8) {
            let before = packet.clone();
            if !complete(&mut packet, l4, protocol) {
                prop_assert_eq!(packet, before);
            }
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    /// As Linux sent them over a veth pair: UDP, a SYN, UDP over IPv6; and a reset, which it finishes.
    #[test]
    fn packets_of_a_veth_pair() {
        for (hex, l4, protocol, unfinished) in [
            (
                "45000021e91c400040113d9b0a0900010a0900020fa00035000d143368656c6c6f",
                20,
                UDP,
                true,
            ),
            (
                "4500003ca1b84000400684ef0a0900010a0900020fa0005053c1322d00000000a002faf014430000020405b40402080a702763de000000000103030a",
                20,
                TCP,
                true,
            ),
            (
                "60054af7000d1140fd090000000000000000000000000001fd0900000000000000000000000000020fa00035000dfa3468656c6c6f",
                40,
                UDP,
                true,
            ),
            (
                "4500002800004000400626bc0a0900020a09000100500fa00000000053c1322e5014000005dd0000",
                20,
                TCP,
                false,
            ),
        ] {
            let mut packet = bytes(hex);
            assert_eq!(complete(&mut packet, l4, protocol), unfinished, "{hex}");
            let pseudo = pseudo(&packet, l4, protocol);
            assert_eq!(naive(&[&pseudo, &packet[l4..]].concat()), 0xffff, "{hex}");
        }
    }

    #[test]
    fn wrong_none_and_other_protocols_are_left_alone() {
        for v6 in [false, true] {
            for protocol in [TCP, UDP, SCTP] {
                let (mut packet, l4) = packet(v6, protocol, &[10; 32], b"hello");
                let at = field_at(l4, protocol);
                let partial = naive(&pseudo(&packet, l4, protocol));
                let others = [0, 1, partial ^ 0x0100, !partial];
                for field in others
                    .into_iter()
                    .chain((protocol == SCTP).then_some(partial))
                {
                    put(&mut packet, at, field);
                    let before = packet.clone();
                    assert!(!complete(&mut packet, l4, protocol), "{field:04x}");
                    assert_eq!(packet, before);
                }
            }
        }
    }

    /// What would be 0 is 0xffff in UDP, where 0 means none, and 0 in TCP.
    #[test]
    fn zero() {
        for (protocol, zero) in [(TCP, 0), (UDP, 0xffff)] {
            let (mut packet, l4) = packet(false, protocol, &[10; 32], &[0, 0]);
            let at = field_at(l4, protocol);
            let partial = naive(&pseudo(&packet, l4, protocol));
            put(&mut packet, at, partial);
            let missing = !naive(&packet[l4..]);
            let end = packet.len() - 2;
            put(&mut packet, end, missing);
            assert!(complete(&mut packet, l4, protocol));
            assert_eq!(get(&packet, at), zero);
        }
    }
}

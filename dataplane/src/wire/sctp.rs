//! SCTP (RFC 9260): chunk types and the checksum. It has no pseudo header and no incremental
//! update: whoever changes a port computes it anew over the whole packet.

/// The common header: ports, verification tag, checksum.
pub const HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;
const CHECKSUM: std::ops::Range<usize> = 8..12;

/// Chunk types that mean something to a connection's state.
pub mod chunk {
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The types of a packet's first chunk and of the one that follows it; `None` when the packet ends
/// before its first chunk's header does.
#[inline]
pub fn first_chunks(segment: &[u8]) -> Option<(u8, Option<u8>)> {
    let (_, chunks) = segment.split_first_chunk::<HEADER_LEN>()?;
    let [kind, _, len @ ..] = *chunks.first_chunk::<CHUNK_HEADER_LEN>()?;
    let len = usize::from(u16::from_be_bytes(len));
    let next = (len >= CHUNK_HEADER_LEN)
        .then(|| chunks.get(len.next_multiple_of(4)..))
        .flatten()
        .and_then(|rest| rest.first_chunk::<CHUNK_HEADER_LEN>())
        .map(|header| header[0]);
    Some((kind, next))
}

/// Whether a packet's checksum is right.
pub fn verify(segment: &[u8]) -> bool {
    segment.len() >= HEADER_LEN && segment[CHECKSUM] == checksum(segment)
}

/// Computes a packet's checksum anew. What is shorter than a header stays as it is.
pub fn refresh(segment: &mut [u8]) {
    if segment.len() >= HEADER_LEN {
        let checksum = checksum(segment);
        segment[CHECKSUM].copy_from_slice(&checksum);
    }
}

/// CRC32c with the checksum field taken as zero, as it lies on the wire (RFC 9260 appendix A): its
/// lowest byte first.
fn checksum(segment: &[u8]) -> [u8; 4] {
    let (before, after) = (&segment[..CHECKSUM.start], &segment[CHECKSUM.end..]);
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(sum, after).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bit by bit, as RFC 9260 appendix A has it (reflected).
    fn naive(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
            }
        }
        !crc
    }

    /// With a wrong checksum.
    fn packet(chunks: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0xa5, 0xa5, 0xa5, 0xa5];
        packet.extend(chunks);
        packet
    }

    #[test]
    fn the_known_value_of_crc32c() {
        assert_eq!(naive(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720 B.4: 32 bytes of zeroes come out as aa 36 91 8a on the wire.
        assert_eq!(checksum(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
    }

    #[test]
    fn chunk_types() {
        let echo = |len: u16, rest: &[u8]| {
            let [a, b] = len.to_be_bytes();
            first_chunks(&packet(&[&[10, 0, a, b, 1, 2, 3, 4], rest].concat()))
        };
        assert_eq!(first_chunks(&packet(&[])), None);
        assert_eq!(first_chunks(&packet(&[1, 0, 0])), None);
        assert_eq!(first_chunks(&packet(&[1, 0, 0, 20])), Some((1, None)));
        assert_eq!(echo(8, &[6, 0, 0, 4]), Some((10, Some(6))));
        assert_eq!(
            echo(5, &[6, 0, 0, 4]),
            Some((10, Some(6))),
            "padded to four"
        );
        assert_eq!(echo(8, &[6, 0, 0]), Some((10, None)), "half a header");
        assert_eq!(
            echo(3, &[6, 0, 0, 4]),
            Some((10, None)),
            "shorter than its header"
        );
        assert_eq!(echo(u16::MAX, &[6, 0, 0, 4]), Some((10, None)));
    }

    proptest! {
        #[test]
        fn refreshed_is_right_and_any_change_is_seen(
            chunks in proptest::collection::vec(any::<u8>(), 0..1500), at: usize, bit in 0..8,
        ) {
            let mut packet = packet(&chunks);
            refresh(&mut packet);
            prop_assert!(verify(&packet));
            let stored = u32::from_le_bytes(packet[CHECKSUM].try_into().unwrap());
            let mut zeroed = packet.clone();
            zeroed[CHECKSUM].fill(0);
            prop_assert_eq!(stored, naive(&zeroed));
            let at = at % packet.len();
            packet[at] ^= 1u8 << bit;
            prop_assert!(!verify(&packet));
        }

        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = first_chunks(&bytes);
            let before = bytes.clone();
            refresh(&mut bytes);
            prop_assert_eq!(verify(&bytes), before.len() >= HEADER_LEN);
        }
    }
}

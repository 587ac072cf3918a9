//! QUIC, as far as every version is alike (RFC 8999).

/// Set in a long header, clear in a short one.
const LONG: u8 = 0x80;
/// Flags and version before the length of a long header's destination connection id.
const BEFORE_LENGTH: usize = 5;
/// Bytes that count of a connection id. A short header does not tell how long it is: what counts of it
/// must count of the long header's too.
const ID: usize = 8;

/// The first eight bytes of a datagram's destination connection id; `None` for a shorter one, and for
/// what is too short to have one.
pub fn connection_id(payload: &[u8]) -> Option<u64> {
    let id = if payload.first()? & LONG != 0 {
        let (length, rest) = payload.get(BEFORE_LENGTH..)?.split_first()?;
        rest.get(..usize::from(*length))?
    } else {
        &payload[1..]
    };
    Some(u64::from_be_bytes(*id.first_chunk::<ID>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9001 appendix A.2: a client's first packet.
    #[test]
    fn a_long_header_tells_its_id() {
        let initial = [
            0xc3, 0, 0, 0, 1, 8, 0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08, 0, 0,
        ];
        assert_eq!(connection_id(&initial), Some(0x8394_c8f0_3e51_5708));
        assert_eq!(connection_id(&initial[..13]), None);
    }

    #[test]
    fn both_headers_of_a_connection_count_alike() {
        let id: Vec<u8> = (1..=20).collect();
        let long = [&[0xe0, 0, 0, 0, 1, 20], &id[..], &[0; 9]].concat();
        let short = [&[0x41], &id[..], &[9; 30]].concat();
        assert_eq!(connection_id(&long), Some(0x0102_0304_0506_0708));
        assert_eq!(connection_id(&short), connection_id(&long));
    }

    #[test]
    fn short_ids_do_not_count() {
        for length in 0..8 {
            let long = [&[0xc0, 0, 0, 0, 1, length][..], &[7; 60]].concat();
            assert_eq!(connection_id(&long), None);
        }
        assert_eq!(connection_id(&[]), None);
        assert_eq!(connection_id(&[0x40, 1, 2, 3, 4, 5, 6, 7]), None);
    }

    proptest! {
        #[test]
        fn anything_can_be_asked(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = connection_id(&payload);
        }
    }
}

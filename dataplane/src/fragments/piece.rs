//! One fragment, read from its packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::counters::DropReason;
use crate::wire::flow::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::wire::ip::{MORE_FRAGMENTS, OFFSET, extension};

/// The most IPv6 extension headers that are walked.
const EXTENSIONS_MAX: usize = 8;

/// What fragments of the same datagram have in common (RFC 791; RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub from: IpAddr,
    pub to: IpAddr,
    pub id: u32,
    /// IPv6 has no protocol here: 0.
    pub protocol: u8,
}

/// One fragment's place in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub key: Key,
    /// In bytes.
    pub offset: u16,
    /// Payload bytes; never 0.
    pub len: u16,
    /// More fragments follow behind it.
    pub more: bool,
}

impl Piece {
    /// Whether it is the one with the ports.
    #[inline]
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }

    /// Where it ends; [`piece`] checked that it does not lie past 65535.
    pub(super) const fn end(&self) -> u16 {
        self.offset.saturating_add(self.len)
    }
}

/// Reads a fragment whose IPv4 or IPv6 header begins at `l3` of `frame`, and checks what can be
/// checked of it alone. A packet that is no fragment is refused as [`DropReason::BadHeader`], but
/// an atomic IPv6 fragment is read.
pub fn piece(frame: &[u8], l3: usize) -> Result<Piece, DropReason> {
    let packet = frame.get(l3..).ok_or(DropReason::Truncated)?;
    match packet.first().ok_or(DropReason::Truncated)? >> 4 {
        4 => piece_v4(packet),
        6 => piece_v6(packet),
        _ => Err(DropReason::BadHeader),
    }
}

fn piece_v4(packet: &[u8]) -> Result<Piece, DropReason> {
    use DropReason::{BadHeader, Truncated};
    let header: &[u8; 20] = packet.first_chunk().ok_or(Truncated)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let (header_len, total_len) = (usize::from(header[0] & 15) * 4, usize::from(word(2)));
    if header_len < 20 || total_len < header_len {
        return Err(BadHeader);
    }
    let packet = packet.get(..total_len).ok_or(Truncated)?;
    let [.., a, b, c, d, e, f, g, h] = *header;
    let key = Key {
        from: Ipv4Addr::new(a, b, c, d).into(),
        to: Ipv4Addr::new(e, f, g, h).into(),
        id: word(4).into(),
        protocol: header[9],
    };
    let (offset, more) = ((word(6) & OFFSET) << 3, word(6) & MORE_FRAGMENTS != 0);
    if offset == 0 && !more {
        return Err(BadHeader);
    }
    let payload = &packet[header_len..];
    let piece = checked(key, offset, more, payload.len())?;
    long_enough(piece, key.protocol, payload)
}

fn piece_v6(packet: &[u8]) -> Result<Piece, DropReason> {
    use DropReason::{BadHeader, Truncated};
    let header: &[u8; 40] = packet.first_chunk().ok_or(Truncated)?;
    let payload_len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let payload = packet.get(40..40 + payload_len).ok_or(Truncated)?;
    let (protocol, rest) = behind_extensions(header[6], payload).ok_or(Truncated)?;
    if protocol != extension::FRAGMENT {
        return Err(BadHeader);
    }
    let (&[next, _, a, b, id @ ..], rest) = rest.split_first_chunk::<8>().ok_or(Truncated)?;
    let address = |at: usize| -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        Ipv6Addr::from(octets).into()
    };
    let key = Key {
        from: address(8),
        to: address(24),
        id: u32::from_be_bytes(id),
        protocol: 0,
    };
    let field = u16::from_be_bytes([a, b]);
    let (offset, more) = (field & !7, field & 1 != 0);
    let piece = checked(key, offset, more, rest.len())?;
    if !piece.is_first() {
        return long_enough(piece, next, rest);
    }
    // All headers are in the first fragment (RFC 7112).
    let (protocol, segment) = behind_extensions(next, rest).ok_or(DropReason::FragmentTiny)?;
    long_enough(piece, protocol, segment)
}

/// The first header from `next` on that is no extension to be skipped, and the bytes it begins
/// with. `None` when an extension is cut, or when there are too many.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    use extension::{DESTINATION, HOP_BY_HOP, ROUTING};
    for _ in 0..=EXTENSIONS_MAX {
        if !matches!(next, HOP_BY_HOP | ROUTING | DESTINATION) {
            return Some((next, rest));
        }
        let [following, len, ..] = *rest.first_chunk::<8>()?;
        rest = rest.get((usize::from(len) + 1) * 8..)?;
        next = following;
    }
    None
}

/// The piece, if its length and offset may be.
fn checked(key: Key, offset: u16, more: bool, len: usize) -> Result<Piece, DropReason> {
    let len = u16::try_from(len).map_err(|_| DropReason::BadHeader)?;
    if len == 0 || (more && !len.is_multiple_of(8)) || offset.checked_add(len).is_none() {
        return Err(DropReason::BadHeader);
    }
    Ok(Piece {
        key,
        offset,
        len,
        more,
    })
}

/// The piece, if the transport header is whole: a first one's `payload` holds it, and a later one
/// begins behind it.
fn long_enough(piece: Piece, protocol: u8, payload: &[u8]) -> Result<Piece, DropReason> {
    let header_len = header_len(protocol);
    let whole = if piece.is_first() {
        payload.len() >= usize::from(header_len)
    } else {
        piece.offset >= header_len
    };
    whole.then_some(piece).ok_or(DropReason::FragmentTiny)
}

/// The part of a transport header that must not be divided.
const fn header_len(protocol: u8) -> u16 {
    match protocol {
        TCP => 20,
        SCTP => 12,
        UDP | ICMP | ICMPV6 => 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use DropReason::{BadHeader, FragmentTiny, Truncated};

    /// An Ethernet header's worth of anything.
    const L3: usize = 14;

    fn v4(protocol: u8, field: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xa5; L3];
        frame.extend([0x46, 0]); // with four bytes of options
        frame.extend(u16::try_from(24 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0x12, 0x34]);
        frame.extend(field.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 0, 0, 9, 10, 0, 0, 100, 1, 1, 1, 0]);
        frame.extend(payload);
        frame
    }

    /// `before` and `behind` the fragment header there may be extension headers; `next` is what the
    /// fragment header names.
    fn v6(before: &[(u8, usize)], next: u8, field: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xa5; L3];
        let kinds = before.iter().map(|(kind, _)| *kind).chain([44]);
        let mut kinds = kinds.chain([next]);
        let first = kinds.next().unwrap();
        let mut rest = Vec::new();
        for (_, words) in before {
            rest.extend([kinds.next().unwrap(), u8::try_from(*words).unwrap()]);
            rest.extend(vec![0; 6 + words * 8]);
        }
        rest.extend([next, 0]);
        rest.extend(field.to_be_bytes());
        rest.extend([1, 2, 3, 4]);
        rest.extend(payload);
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        frame.extend([first, 64]);
        frame.extend([[0x20; 16], [0xfd; 16]].concat());
        frame.extend(rest);
        frame
    }

    #[test]
    fn an_ipv4_fragment() {
        let mut frame = v4(UDP, 0x2000 | 185, &[0; 16]);
        frame.extend([0; 30]); // padding
        let key = Key {
            from: "10.0.0.9".parse().unwrap(),
            to: "10.0.0.100".parse().unwrap(),
            id: 0x1234,
            protocol: UDP,
        };
        let read = Piece {
            key,
            offset: 1480,
            len: 16,
            more: true,
        };
        assert_eq!(piece(&frame, L3), Ok(read));
        assert!(!read.is_first());
        let read = piece(&v4(UDP, 185, &[0; 3]), L3).unwrap();
        assert_eq!((read.len, read.more), (3, false));
        assert!(piece(&v4(UDP, 0x2000, &[0; 8]), L3).unwrap().is_first());
        assert_eq!(
            piece(&v4(UDP, 0x4000, &[0; 8]), L3),
            Err(BadHeader),
            "whole"
        );
    }

    #[test]
    fn an_ipv6_fragment() {
        for before in [&[][..], &[(0, 0)], &[(0, 1), (60, 2), (43, 0)]] {
            let frame = v6(before, UDP, 1480 | 1, &[0; 16]);
            let key = Key {
                from: Ipv6Addr::from([0x20; 16]).into(),
                to: Ipv6Addr::from([0xfd; 16]).into(),
                id: 0x0102_0304,
                protocol: 0,
            };
            let read = Piece {
                key,
                offset: 1480,
                len: 16,
                more: true,
            };
            assert_eq!(piece(&frame, L3), Ok(read), "behind {before:?}");
        }
        let atomic = piece(&v6(&[], UDP, 0, &[0; 9]), L3).unwrap();
        assert!(atomic.is_first() && !atomic.more);
        assert_eq!(piece(&v6(&[], TCP, 1, &[0; 16]), L3), Err(FragmentTiny));
        let options = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &[0; 24]].concat();
        assert!(piece(&v6(&[], 60, 1, &options), L3).is_ok());
        assert_eq!(
            piece(&v6(&[], 60, 1, &options[..24]), L3),
            Err(FragmentTiny)
        );
        let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(12);
        assert_eq!(piece(&v6(&[], 60, 1, &endless), L3), Err(FragmentTiny));
        let cut = [60, 9, 1, 4, 0, 0, 0, 0];
        assert_eq!(piece(&v6(&[], 60, 1, &cut), L3), Err(FragmentTiny));
        let mut none = v6(&[], UDP, 1, &[0; 8]);
        none[L3 + 6] = UDP;
        assert_eq!(piece(&none, L3), Err(BadHeader), "no fragment header");
    }

    #[test]
    fn headers_must_not_be_divided() {
        let headers = [
            (TCP, 20),
            (UDP, 8),
            (SCTP, 12),
            (ICMP, 8),
            (ICMPV6, 8),
            (47, 0),
        ];
        for (protocol, len) in headers {
            for bytes in [8, 16, 24] {
                let first = piece(&v4(protocol, 0x2000, &vec![0; bytes]), L3);
                let later = piece(&v4(protocol, u16::try_from(bytes / 8).unwrap(), &[0]), L3);
                let first6 = piece(&v6(&[], protocol, 1, &vec![0; bytes]), L3);
                let later6 = piece(&v6(&[], protocol, u16::try_from(bytes).unwrap(), &[0]), L3);
                for read in [first, later, first6, later6] {
                    let expected = (bytes < len).then_some(FragmentTiny);
                    assert_eq!(read.err(), expected, "protocol {protocol}, {bytes} bytes");
                }
            }
        }
    }

    #[test]
    fn lengths_must_be_possible() {
        let long = vec![0; 1024];
        for (field, len, expected) in [
            (0x2000 | 2, 9, Some(BadHeader)),
            (0x2000 | 2, 0, Some(BadHeader)),
            (2, 0, Some(BadHeader)),
            (2, 9, None),
            (0x1fff, 7, None),
            (0x1fff, 8, Some(BadHeader)),
            (0x1fff - 127, 1023, None),
            (0x1fff - 127, 1024, Some(BadHeader)),
        ] {
            let read = piece(&v4(UDP, field, &long[..len]), L3);
            assert_eq!(read.err(), expected, "{field:#x}, {len} bytes");
            let field = (field & 0x1fff) << 3 | field >> 13;
            let read = piece(&v6(&[], UDP, field, &long[..len]), L3);
            assert_eq!(read.err(), expected, "IPv6, {field:#x}, {len} bytes");
        }
    }

    #[test]
    fn claims_are_checked() {
        let with = |mut frame: Vec<u8>, at: usize, byte: u8| {
            frame[L3 + at] = byte;
            piece(&frame, L3).err()
        };
        let whole = || v4(UDP, 2, &[0; 8]);
        assert_eq!(with(whole(), 0, 0x56), Some(BadHeader));
        assert_eq!(with(whole(), 0, 0x44), Some(BadHeader));
        assert_eq!(with(whole(), 0, 0x4f), Some(BadHeader));
        assert_eq!(with(whole(), 3, 33), Some(Truncated));
        assert_eq!(with(v6(&[], UDP, 16, &[0; 8]), 5, 17), Some(Truncated));
        for frame in [whole(), v6(&[(0, 1)], UDP, 16, &[0; 8])] {
            for len in 0..frame.len() {
                assert_eq!(piece(&frame[..len], L3), Err(Truncated), "{len} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120), l3 in 0usize..20, shape in 0..4,
        ) {
            if shape > 0 && bytes.len() > l3 + 20 {
                let packet = &mut bytes[l3..];
                if shape == 1 {
                    packet[0] = 0x45;
                    packet[2] = 0;
                    packet[3] %= 100;
                } else {
                    packet[0] = 0x60;
                    packet[4] = 0;
                    packet[5] %= 64;
                    packet[6] = 44;
                }
            }
            if let Ok(piece) = piece(&bytes, l3) {
                prop_assert!(u32::from(piece.offset) + u32::from(piece.len) <= 65535);
                prop_assert!(piece.len > 0 && piece.offset % 8 == 0);
                prop_assert!(!piece.more || piece.len % 8 == 0);
            }
        }
    }
}

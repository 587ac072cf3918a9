//! IPv4 packets longer than the next network's MTU, made into fragments (RFC 791).

use arrayvec::ArrayVec;

use crate::counters::DropReason;
use crate::packet::{Egress, PacketBuf};
use crate::wire::checksum;
use crate::wire::delta::Delta;
use crate::wire::ip::{MORE_FRAGMENTS as MORE, OFFSET};

/// The most fragments one packet is made into.
pub const FRAGMENTS_MAX: usize = 64;

/// A packet's fragments, in order.
pub type Split<P> = ArrayVec<P, FRAGMENTS_MAX>;

const HEADER_MIN: usize = 20;
const HEADER_MAX: usize = 60;
/// An option that goes into every fragment.
const COPIED: u8 = 0x80;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

type Header = ArrayVec<u8, HEADER_MAX>;

/// Makes the IPv4 packet whose header begins at `l3` of `frame` into fragments of at most `mtu`
/// bytes, each a new packet from `out` behind a copy of the frame's link header; one when it fits.
/// The packet may be a fragment itself. Whether it may be split at all (DF) is for the caller to
/// say, and so is its id, which all fragments share. The caller counts them as made.
///
/// All or none: an error leaves nothing made.
pub fn split<E: Egress>(
    frame: &[u8],
    l3: usize,
    mtu: u16,
    out: &mut E,
) -> Result<Split<E::Buf>, DropReason> {
    let (link, packet) = frame.split_at_checked(l3).ok_or(DropReason::Truncated)?;
    let (header, payload) = parse(packet)?;
    let mtu = usize::from(mtu);
    let field = u16::from_be_bytes([header[6], header[7]]);
    let mut made = Split::new();
    if packet_len(&header, payload) <= mtu {
        push(&mut made, link, &header, field, payload, out)?;
        return Ok(made);
    }
    let later = copied_options(&header);
    let mut done = 0;
    while done < payload.len() {
        let header = if done == 0 { &header } else { &later };
        let room = mtu.saturating_sub(header.len());
        let rest = &payload[done..];
        let is_last = rest.len() <= room;
        let len = if is_last { rest.len() } else { room & !7 };
        if len == 0 {
            return Err(DropReason::TooBig);
        }
        let field = if is_last {
            advanced(field, done)?
        } else {
            advanced(field, done)? | MORE
        };
        push(&mut made, link, header, field, &rest[..len], out)?;
        done += len;
    }
    Ok(made)
}

/// Gives the IPv4 packet that `header` begins with an id, and a checksum to match.
pub fn set_id(header: &mut [u8], id: u16) {
    let old = [header[4], header[5]];
    let delta = Delta::replace(old, id.to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    let sum = delta.apply([header[10], header[11]]);
    header[10..12].copy_from_slice(&sum);
}

fn packet_len(header: &Header, payload: &[u8]) -> usize {
    header.len() + payload.len()
}

/// The packet's header and payload, without what pads the frame.
fn parse(packet: &[u8]) -> Result<(Header, &[u8]), DropReason> {
    use DropReason::{BadHeader, Truncated};
    let fixed: &[u8; HEADER_MIN] = packet.first_chunk().ok_or(Truncated)?;
    let header_len = usize::from(fixed[0] & 15) * 4;
    let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 4 || header_len < HEADER_MIN || total_len < header_len {
        return Err(BadHeader);
    }
    let packet = packet.get(..total_len).ok_or(Truncated)?;
    let (header, payload) = packet.split_at(header_len);
    Ok((Header::try_from(header).map_err(|_| BadHeader)?, payload))
}

/// The word of flags and offset `bytes` (a multiple of 8) further on.
fn advanced(field: u16, bytes: usize) -> Result<u16, DropReason> {
    let offset = usize::from(field & OFFSET) + bytes / 8;
    let offset = u16::try_from(offset).ok().filter(|o| *o <= OFFSET);
    Ok(field & !OFFSET | offset.ok_or(DropReason::BadHeader)?)
}

/// The header of every fragment but the first: of the options, only those with the copied flag.
fn copied_options(header: &Header) -> Header {
    let (fixed, mut options) = header.split_at(HEADER_MIN);
    let mut later = Header::new();
    later.extend(fixed.iter().copied());
    while let Some(kind) = options.first().filter(|kind| **kind != END_OF_OPTIONS) {
        let len = match (*kind, options.get(1)) {
            (NO_OPERATION, _) => 1,
            (_, Some(len)) if *len >= 2 => usize::from(*len),
            _ => break,
        };
        let Some((option, rest)) = options.split_at_checked(len) else {
            break;
        };
        if kind & COPIED != 0 {
            later.extend(option.iter().copied());
        }
        options = rest;
    }
    while !later.len().is_multiple_of(4) {
        later.push(END_OF_OPTIONS);
    }
    later
}

/// Makes one fragment.
fn push<E: Egress>(
    made: &mut Split<E::Buf>,
    link: &[u8],
    header: &Header,
    field: u16,
    payload: &[u8],
    out: &mut E,
) -> Result<(), DropReason> {
    if made.is_full() {
        return Err(DropReason::TooBig);
    }
    let ip_len = packet_len(header, payload);
    let mut fragment = out.make(link.len() + ip_len).ok_or(DropReason::NoBuffer)?;
    let (to_link, ip) = fragment.bytes_mut().split_at_mut(link.len());
    let (to_header, to_payload) = ip.split_at_mut(header.len());
    to_link.copy_from_slice(link);
    to_header.copy_from_slice(header);
    to_payload.copy_from_slice(payload);
    finish(to_header, ip_len, field)?;
    made.push(fragment);
    Ok(())
}

/// Fills in the fields in which fragments differ.
fn finish(header: &mut [u8], ip_len: usize, field: u16) -> Result<(), DropReason> {
    let words = u8::try_from(header.len() / 4).map_err(|_| DropReason::BadHeader)?;
    let ip_len = u16::try_from(ip_len).map_err(|_| DropReason::TooBig)?;
    header[0] = 0x40 | words;
    header[2..4].copy_from_slice(&ip_len.to_be_bytes());
    header[6..8].copy_from_slice(&field.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum::ipv4_header(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::conn::Hash;
    use crate::counters::Page;
    use crate::fragments::piece;
    use crate::packet::{HeapBuf, Learned, Origin, PortId};
    use crate::watch::Watch;

    /// Makes so many packets, in memory full of something else.
    struct Maker(usize, Watch);

    fn maker(buffers: usize) -> Maker {
        Maker(buffers, Watch::new(Arc::new(Page::new(1, 1).unwrap())))
    }

    impl Egress for Maker {
        type Buf = HeapBuf;

        fn make(&mut self, len: usize) -> Option<HeapBuf> {
            self.0 = self.0.checked_sub(1)?;
            Some(HeapBuf::new(&vec![0; len]))
        }

        fn send(&mut self, _: PortId, _: HeapBuf, _: Origin) {}
        fn share(&mut self, _: Learned) {}
        fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: HeapBuf) {}
        fn watch(&mut self) -> &mut Watch {
            &mut self.1
        }
    }

    const L3: usize = 14;

    /// Four bytes that stay in the first fragment, eight that go into all, and padding.
    const OPTIONS: [u8; 16] = [7, 3, 4, 1, 0x88, 4, 0xab, 0xcd, 0x94, 4, 0, 0, 0, 0, 0, 0];

    fn frame(options: &[u8], field: u16, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + options.len();
        let mut frame: Vec<u8> = (0..14).collect();
        frame.extend([0x40 | u8::try_from(header_len / 4).unwrap(), 0x10]);
        frame.extend(
            u16::try_from(header_len + payload.len())
                .unwrap()
                .to_be_bytes(),
        );
        frame.extend([0x12, 0x34]);
        frame.extend(field.to_be_bytes());
        frame.extend([63, 17, 0, 0, 10, 0, 0, 9, 10, 0, 0, 100]);
        frame.extend(options);
        frame.extend(payload);
        let sum = checksum::ipv4_header(&frame[L3..L3 + header_len]);
        frame[L3 + 10..L3 + 12].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn made(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let made = split(frame, L3, mtu, &mut maker(FRAGMENTS_MAX)).unwrap();
        made.iter().map(|p| p.bytes().to_vec()).collect()
    }

    fn word(packet: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([packet[L3 + at], packet[L3 + at + 1]])
    }

    fn header_len(packet: &[u8]) -> usize {
        usize::from(packet[L3] & 15) * 4
    }

    #[test]
    fn a_long_packet() {
        let payload: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let long = frame(&[], 0, &payload);
        let padded = [&long[..], &[0xee; 9]].concat();
        let made = made(&padded, 1500);
        let fields: Vec<_> = made.iter().map(|p| (word(p, 2), word(p, 6))).collect();
        assert_eq!(fields, [(1500, MORE), (1500, MORE | 185), (60, 370)]);
        for fragment in &made {
            assert_eq!(fragment[..L3], long[..L3]);
            assert_eq!(fragment.len(), L3 + usize::from(word(fragment, 2)));
            assert_eq!(word(fragment, 4), 0x1234);
            assert_eq!(fragment[L3 + 1], 0x10);
            assert_eq!(fragment[L3 + 8..L3 + 10], [63, 17]);
            assert_eq!(checksum::ipv4_header(&fragment[L3..L3 + 20]), 0);
        }
        let together = made.iter().flat_map(|p| p[L3 + 20..].to_vec());
        assert!(together.eq(payload));
    }

    #[test]
    fn what_fits_stays_whole() {
        for field in [0, MORE | 7, 0x4000] {
            let short = frame(&OPTIONS, field, &[1; 8]);
            let itself = std::slice::from_ref(&short);
            assert_eq!(made(&short, 44), itself);
            assert_eq!(made(&short, 9200), itself);
        }
        let empty = frame(&[], 0, &[]);
        assert_eq!(made(&empty, 20), std::slice::from_ref(&empty));
    }

    #[test]
    fn options_by_their_copied_flag() {
        let made = made(&frame(&OPTIONS, 0, &[1; 100]), 84);
        let options: Vec<_> = made
            .iter()
            .map(|p| p[L3 + 20..L3 + header_len(p)].to_vec())
            .collect();
        assert_eq!(
            options,
            [&OPTIONS[..], &[0x88, 4, 0xab, 0xcd, 0x94, 4, 0, 0]]
        );
        assert_eq!((word(&made[0], 2), word(&made[1], 2)), (84, 28 + 52));
        for broken in [[0x88, 1, 1, 1], [0x88, 9, 0, 0], [1, 1, 1, 0x88]] {
            let made = split(&frame(&broken, 0, &[1; 100]), L3, 84, &mut maker(9)).unwrap();
            assert_eq!(header_len(made[1].bytes()), 20, "{broken:?}");
        }
    }

    #[test]
    fn all_or_none() {
        let long = frame(&[], 0, &[1; 3000]);
        let try_with = |frame: &[u8], mtu: u16, buffers: usize| {
            split(frame, L3, mtu, &mut maker(buffers)).map(|made| made.len())
        };
        assert_eq!(try_with(&long, 1500, 3), Ok(3));
        for buffers in 0..3 {
            assert_eq!(try_with(&long, 1500, buffers), Err(DropReason::NoBuffer));
        }
        assert_eq!(try_with(&long, 68, 100), Ok(63));
        assert_eq!(
            try_with(&long, 67, 100),
            Err(DropReason::TooBig),
            "75 fragments"
        );
        assert_eq!(try_with(&long, 27, 100), Err(DropReason::TooBig));
        assert_eq!(try_with(&long, 0, 100), Err(DropReason::TooBig));
        let far = frame(&[], 0x1ff0, &[1; 200]);
        assert_eq!(try_with(&far, 148, 9), Err(DropReason::BadHeader));
        assert_eq!(try_with(&frame(&[], 0x1ff0, &[1; 200]), 140, 9), Ok(2));
        for len in 0..L3 + 3020 {
            assert_eq!(try_with(&long[..len], 1500, 9), Err(DropReason::Truncated));
        }
        for first in [0x65, 0x44, 0x4f] {
            let mut wrong = frame(&[], 0, &[1; 20]);
            wrong[L3] = first;
            assert_eq!(try_with(&wrong, 1500, 9), Err(DropReason::BadHeader));
        }
    }

    proptest! {
        #[test]
        fn fragments_of_fragments_are_the_packet(
            payload in vec(any::<u8>(), 24..4000), offset in 3u16..4000, more: bool, with_options: bool,
            mtu in 200u16..1600, smaller in 100u16..200,
        ) {
            let payload = if more { &payload[..payload.len() & !7] } else { &payload[..] };
            let options = if with_options { &OPTIONS[..] } else { &[] };
            let whole = frame(options, if more { MORE | offset } else { offset }, payload);
            let mut got = vec![None; payload.len()];
            let mut ends = 0;
            for large in made(&whole, mtu) {
                prop_assert!(large.len() <= L3 + usize::from(mtu));
                for small in made(&large, smaller) {
                    prop_assert!(small.len() <= L3 + usize::from(smaller));
                    let header_len = header_len(&small);
                    prop_assert_eq!(checksum::ipv4_header(&small[L3..L3 + header_len]), 0);
                    let piece = piece(&small, L3).unwrap();
                    let at = usize::from(piece.offset - offset * 8);
                    for (i, byte) in small[L3 + header_len..].iter().enumerate() {
                        prop_assert_eq!(got[at + i].replace(*byte), None);
                    }
                    let is_end = at + usize::from(piece.len) == payload.len();
                    prop_assert_eq!(piece.more, more || !is_end);
                    ends += usize::from(is_end);
                }
            }
            prop_assert_eq!(ends, 1);
            prop_assert!(got.iter().copied().eq(payload.iter().map(|byte| Some(*byte))));
        }

        #[test]
        fn never_panics(mut bytes in vec(any::<u8>(), 0..200), mtu: u16, l3 in 0usize..20, shape: bool) {
            if shape && bytes.len() > l3 + 4 {
                bytes[l3] = 0x40 | bytes[l3] & 15;
                bytes[l3 + 2] = 0;
                bytes[l3 + 3] %= 180;
            }
            let _ = split(&bytes, l3, mtu % 128, &mut maker(20));
        }
    }
}

//! The six numbers of a 227 become others, in place, and the packet gets longer or shorter for it.

use std::fmt::Write;
use std::net::SocketAddrV4;
use std::ops::Range;

use arrayvec::ArrayString;

use crate::fullnat::NoRoom;
use crate::fullnat::frame::{self, Ip, TCP_CHECKSUM};
use crate::fullnat::segment;
use crate::packet::PacketBuf;
use crate::wire::delta::Delta;

/// Six numbers of three digits and five commas.
const NUMBERS_MAX: usize = 23;

/// The payload of the TCP segment at `l4` of the IP packet at `l3`, as a place in the frame.
pub fn payload(frame: &[u8], l3: usize, l4: usize) -> Option<Range<usize>> {
    let ip = Ip::of(frame, l3, l4).ok()?;
    let header = segment::header_len(&frame[l4..ip.end])?;
    Some(l4 + header..ip.end)
}

/// Puts `address` where `numbers`, a place in the frame's [`payload`], says; by how many bytes the
/// packet grew, modulo 2^32. A checksum that was wrong stays wrong. Padding behind the packet is cut
/// off. An error, with the packet as it was, when there is no room.
pub fn announce<P: PacketBuf>(
    packet: &mut P,
    l3: usize,
    l4: usize,
    numbers: Range<usize>,
    address: SocketAddrV4,
) -> Result<u32, NoRoom> {
    let text = six_numbers(address);
    let mut ip = Ip::of(packet.bytes(), l3, l4)?;
    let old_end = ip.end;
    let new_end = (old_end + text.len())
        .checked_sub(numbers.len())
        .filter(|end| numbers.end <= old_end && end - l3 <= usize::from(u16::MAX))
        .ok_or(NoRoom::Malformed)?;
    if !packet.resize(old_end.max(new_end)) {
        return Err(NoRoom::Headroom);
    }
    let frame = packet.bytes_mut();
    let start = numbers.start;
    let before = frame::added(start - l4, &frame[start..old_end]);
    frame.copy_within(numbers.end..old_end, start + text.len());
    frame[start..start + text.len()].copy_from_slice(text.as_bytes());
    let after = frame::added(start - l4, &frame[start..new_end]);
    let length = Delta::replace(frame::word(old_end - l4), frame::word(new_end - l4));
    let delta = after.and(before.reversed()).and(length);
    frame::apply(&mut frame[l4..new_end], TCP_CHECKSUM, delta);
    ip.set_end(frame, new_end);
    // Never longer than it is now.
    if !packet.resize(new_end) {
        return Err(NoRoom::Headroom);
    }
    let grown = |len: usize| u32::try_from(len).unwrap_or(0);
    Ok(grown(text.len()).wrapping_sub(grown(numbers.len())))
}

fn six_numbers(address: SocketAddrV4) -> ArrayString<NUMBERS_MAX> {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    let mut text = ArrayString::new();
    let written = write!(text, "{a},{b},{c},{d},{high},{low}");
    debug_assert!(written.is_ok(), "NUMBERS_MAX is longer than any");
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ftp::words::{self, Reply};
    use crate::packet::HeapBuf;
    use crate::wire::checksum;
    use crate::wire::flow::TCP;

    const L3: usize = 14;

    /// An Ethernet frame with this text in a TCP segment that has `options` bytes of options.
    fn frame(text: &[u8], options: usize, padding: usize) -> Vec<u8> {
        let mut segment = vec![0, 21, 0x9c, 0x40, 0, 0, 3, 232, 0, 0, 7, 208];
        let words = u8::try_from(5 + options / 4).unwrap();
        segment.extend([words << 4, 0x18, 0x20, 0, 0, 0, 0, 0]);
        segment.extend(vec![1; options]);
        segment.extend(text);
        let (from, to) = ([10, 1, 0, 7], [192, 0, 2, 10]);
        let sum = checksum::transport_v4(from.into(), to.into(), TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        let [high, low] = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
        let mut ip = vec![0x45, 0, high, low, 0x12, 0x34, 0x40, 0, 64, TCP, 0, 0];
        ip.extend([from, to].concat());
        let sum = checksum::ipv4_header(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        [&[2; 12][..], &[8, 0], &ip, &segment, &vec![0x77; padding]].concat()
    }

    fn announced(frame: &[u8], address: SocketAddrV4) -> Option<(Vec<u8>, u32)> {
        let l4 = L3 + 20;
        let payload = payload(frame, L3, l4)?;
        let Reply::Passive { numbers, .. } = words::reply(&frame[payload.clone()])? else {
            return None;
        };
        let place = payload.start + numbers.start..payload.start + numbers.end;
        let mut packet = HeapBuf::new(frame);
        let grown = announce(&mut packet, L3, l4, place, address).ok()?;
        Some((packet.bytes().to_vec(), grown))
    }

    proptest! {
        #[test]
        fn as_if_it_had_been_said(
            old: [u8; 4], new: [u8; 4], ports: [u16; 2], options in 0usize..4, padding in 0usize..7,
            around in ("[ a-z]{0,9}", "\\)?[^0-9]{0,9}\r\n"),
        ) {
            let said = |ip: [u8; 4], port| {
                let address = SocketAddrV4::new(ip.into(), port);
                format!("227 {}({}{}", around.0, six_numbers(address), around.1)
            };
            let (before, after) = (said(old, ports[0]), said(new, ports[1]));
            let original = frame(before.as_bytes(), options * 4, padding);
            let (changed, grown) = announced(&original, SocketAddrV4::new(new.into(), ports[1])).unwrap();
            prop_assert_eq!(changed, frame(after.as_bytes(), options * 4, 0));
            let len = |text: &str| u32::try_from(text.len()).unwrap();
            prop_assert_eq!(grown, len(&after).wrapping_sub(len(&before)));
        }

        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), l4 in 0usize..130) {
            if let Some(first) = bytes.get_mut(L3) {
                *first = 0x45;
            }
            if let Some(payload) = payload(&bytes, L3, l4) {
                prop_assert!(payload.start <= payload.end && payload.end <= bytes.len());
            }
        }
    }

    #[test]
    fn corrupt_stays_corrupt() {
        let mut bytes = frame(b"227 (10,1,0,7,1,2)\r\n", 0, 0);
        bytes[50] ^= 0x40;
        let (changed, _) = announced(&bytes, "203.0.113.100:40000".parse().unwrap()).unwrap();
        let sum = checksum::transport_v4(
            [10, 1, 0, 7].into(),
            [192, 0, 2, 10].into(),
            TCP,
            &changed[34..],
        );
        assert_ne!(sum, 0);
        assert_eq!(checksum::ipv4_header(&changed[L3..34]), 0);
    }
}

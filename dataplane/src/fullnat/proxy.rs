//! The PROXY protocol: who the client is, in front of the connection's first byte.
//!
//! `Ethernet / IP / TCP / payload` becomes `Ethernet / IP / TCP / header / payload`, or, when that
//! is too long, `Ethernet / IP / TCP / header` goes before it.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use arrayvec::{ArrayString, ArrayVec};

use crate::fullnat::NoRoom;
use crate::fullnat::frame::{self, Ip, TCP_CHECKSUM};
use crate::fullnat::segment;
use crate::packet::{MADE_MAX, PacketBuf};
use crate::wire::delta::Delta;
use crate::wire::flow::tcp_flags;

/// Longer than any header: version 1 has at most 104 bytes here, version 2 always 28 or 52.
pub const HEADER_MAX: usize = 108;

const URG: u8 = 0x20;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

pub type Header = ArrayVec<u8, HEADER_MAX>;
/// A frame for a packet of our own. Allocated, because it is rare, and what may hold one is returned
/// for every packet.
pub type Made = Vec<u8>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The header that says that `client` connected to `vip`, TCP. Should their families differ, the
/// IPv4 one is mapped into IPv6.
pub fn header(version: Version, client: SocketAddr, vip: SocketAddr) -> Header {
    let (from, to) = match (client.ip(), vip.ip()) {
        (IpAddr::V4(from), to @ IpAddr::V6(_)) => (from.to_ipv6_mapped().into(), to),
        (from @ IpAddr::V6(_), IpAddr::V4(to)) => (from, to.to_ipv6_mapped().into()),
        same => same,
    };
    let ports = (client.port(), vip.port());
    match version {
        Version::V1 => text(from, to, ports),
        Version::V2 => binary(from, to, ports),
    }
}

fn text(from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Header {
    let family = if from.is_ipv4() { 4 } else { 6 };
    let mut line = ArrayString::<HEADER_MAX>::new();
    let written = write!(
        line,
        "PROXY TCP{family} {from} {to} {} {}\r\n",
        ports.0, ports.1
    );
    debug_assert!(written.is_ok(), "HEADER_MAX is longer than any");
    line.bytes().collect()
}

fn binary(from: IpAddr, to: IpAddr, ports: (u16, u16)) -> Header {
    let mut header: Header = SIGNATURE.into_iter().chain([VERSION_2_PROXY]).collect();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([TCP_OVER_IPV4, 0, 12]);
            header.extend(from.octets().into_iter().chain(to.octets()));
        }
        (from, to) => {
            let octets = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            header.extend([TCP_OVER_IPV6, 0, 36]);
            header.extend(octets(from).into_iter().chain(octets(to)));
        }
    }
    header.extend(ports.0.to_be_bytes());
    header.extend(ports.1.to_be_bytes());
    header
}

/// Inserts `header` before the payload of the TCP segment at `l4` of the IP packet at `l3`. The
/// frame's start moves; both offsets are right for the new one.
pub fn prefix<P: PacketBuf>(
    packet: &mut P,
    l3: usize,
    l4: usize,
    header: &[u8],
    mtu: u16,
) -> Result<(), NoRoom> {
    let mut ip = Ip::of(packet.bytes(), l3, l4)?;
    let old_len = ip.end - l4;
    let at = segment::header_len(&packet.bytes()[l4..ip.end]).ok_or(NoRoom::Malformed)?;
    ip.open(packet, l4 + at, header.len(), mtu)?;
    let segment = &mut packet.bytes_mut()[l4..ip.end];
    let behind = at + header.len();
    segment[at..behind].copy_from_slice(header);
    let mut delta = Delta::replace(frame::word(old_len), frame::word(segment.len()))
        .and(frame::added(at, header));
    if header.len() % 2 == 1 {
        // The payload's bytes change places in their words.
        let payload = &segment[behind..];
        delta = delta
            .and(frame::added(at, payload).reversed())
            .and(frame::added(behind, payload));
    }
    if segment[13] & URG != 0 {
        let pointer = usize::from(u16::from_be_bytes([segment[18], segment[19]]));
        let moved = (pointer + header.len()).min(usize::from(u16::MAX));
        delta = delta.and(frame::put(segment, 18, frame::word(moved)));
    }
    frame::apply(segment, TCP_CHECKSUM, delta);
    Ok(())
}

/// A frame with `header` alone, to be sent before the frame given, whose first byte of payload has
/// the sequence number that the header's first byte shall have. `None` when it would be too long.
///
/// Its checksum comes from the other's: the header of a corrupt packet makes a corrupt packet.
pub fn segment(original: &[u8], l3: usize, l4: usize, header: &[u8]) -> Option<Made> {
    let mut ip = Ip::of(original, l3, l4).ok()?;
    let tcp = segment::header_len(&original[l4..ip.end])?;
    let (head, payload) = original[..ip.end].split_at(l4 + tcp);
    if head.len() + header.len() > MADE_MAX {
        return None;
    }
    let mut made = [head, header].concat();
    let old_len = ip.end - l4;
    let end = made.len();
    ip.set_end(&mut made, end);
    let segment = &mut made[l4..];
    let length = Delta::replace(frame::word(old_len), frame::word(segment.len()));
    let flags = [segment[12], tcp_flags::ACK];
    let delta = frame::put(segment, 12, flags)
        .and(frame::added(tcp, payload).reversed())
        .and(frame::added(tcp, header))
        .and(length);
    frame::apply(segment, TCP_CHECKSUM, delta);
    Some(made)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fullnat::testing;
    use crate::packet::HeapBuf;

    fn told(version: Version, client: &str, vip: &str) -> Vec<u8> {
        header(version, client.parse().unwrap(), vip.parse().unwrap()).to_vec()
    }

    #[test]
    fn version_1() {
        assert_eq!(
            told(Version::V1, "192.0.2.1:40000", "198.51.100.7:80"),
            b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 80\r\n"
        );
        assert_eq!(
            told(Version::V1, "[2001:db8::1]:40000", "[2001:db8::7]:80"),
            b"PROXY TCP6 2001:db8::1 2001:db8::7 40000 80\r\n"
        );
        assert_eq!(
            told(Version::V1, "192.0.2.1:40000", "[2001:db8::7]:80"),
            b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::7 40000 80\r\n"
        );
        let longest = format!("[{}]:65535", ["2001"; 8].join(":"));
        assert_eq!(told(Version::V1, &longest, &longest).len(), 104);
    }

    #[test]
    fn version_2() {
        let start = b"\r\n\r\n\0\r\nQUIT\n\x21";
        let v4 = told(Version::V2, "192.0.2.1:40000", "198.51.100.7:80");
        let rest = [
            0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0x9c, 0x40, 0, 80,
        ];
        assert_eq!(v4, [&start[..], &rest].concat());
        let v6 = told(Version::V2, "[2001:db8::1]:40000", "198.51.100.7:80");
        let mut rest = vec![
            0x21, 0, 36, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
        ];
        rest.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7]);
        rest.extend([0x9c, 0x40, 0, 80]);
        assert_eq!(v6, [&start[..], &rest].concat());
    }

    #[test]
    fn the_urgent_byte_stays_the_same() {
        let mut parts = testing::Parts {
            flags: tcp_flags::ACK | URG,
            payload: vec![1; 9],
            ..testing::Parts::default()
        };
        let mut packet = parts.buf();
        let (l3, l4) = (parts.l3(), parts.l4());
        prefix(&mut packet, l3, l4, b"abcdefghi", 1500).unwrap();
        parts.payload.splice(..0, *b"abcdefghi");
        assert_eq!(packet.bytes()[l4 + 19], 7 + 9);
        assert!(testing::tcp_is_right(&parts, &packet));
    }

    proptest! {
        #[test]
        fn equals_building_it_with_the_header(
            mut parts in testing::parts(), header in proptest::collection::vec(any::<u8>(), 1..108),
            corrupt: bool,
        ) {
            let (l3, l4) = (parts.l3(), parts.l4());
            let mut packet = parts.buf();
            if corrupt {
                packet.bytes_mut()[l4] ^= 4;
            }
            let room = u16::try_from(header.len()).unwrap();
            let mtu = parts.ip_len() + room;
            prop_assert_eq!(prefix(&mut packet, l3, l4, &header, mtu - 1), Err(NoRoom::Mtu));
            prop_assert_eq!(prefix(&mut packet, l3, l4, &header, mtu), Ok(()));
            parts.payload.splice(..0, header);
            if corrupt {
                prop_assert!(!testing::tcp_is_right(&parts, &packet));
                packet.bytes_mut()[l4] ^= 4;
            }
            prop_assert_eq!(packet.bytes(), parts.frame());
        }

        #[test]
        fn a_segment_of_its_own(
            mut parts in testing::parts(), header in proptest::collection::vec(any::<u8>(), 1..108),
            corrupt: bool,
        ) {
            let mut frame = parts.frame();
            if corrupt {
                frame[parts.l4()] ^= 4;
            }
            let made = segment(&frame, parts.l3(), parts.l4(), &header).unwrap();
            let mut made = HeapBuf::new(&made);
            parts.payload = header;
            parts.flags = tcp_flags::ACK;
            parts.padding = 0;
            if corrupt {
                prop_assert!(!testing::tcp_is_right(&parts, &made));
                made.bytes_mut()[parts.l4()] ^= 4;
            }
            prop_assert_eq!(made.bytes(), parts.frame());
        }
    }
}

//! TOA, the client's address as a TCP option: kind 254, length, port, address.
//!
//! `Ethernet / IP / TCP fixed header / options` becomes
//! `Ethernet / IP / TCP fixed header / TOA / options`.

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;

use crate::fullnat::NoRoom;
use crate::fullnat::frame::{self, Ip, TCP_CHECKSUM};
use crate::fullnat::segment;
use crate::packet::PacketBuf;
use crate::wire::delta::Delta;

/// DPVS's kind, which Alibaba uses for IPv4 only.
const KIND: u8 = 254;
const FIXED: usize = 20;
const HEADER_MAX: usize = 60;

/// Length of the option that tells `client`.
pub const fn len(client: IpAddr) -> u8 {
    match client {
        IpAddr::V4(_) => 8,
        IpAddr::V6(_) => 20,
    }
}

/// Inserts the option that tells `client` into the TCP segment at `l4` of the IP packet at `l3`,
/// right after the fixed header. The frame's start moves; both offsets are right for the new one.
pub fn insert<P: PacketBuf>(
    packet: &mut P,
    l3: usize,
    l4: usize,
    client: SocketAddr,
    mtu: u16,
) -> Result<(), NoRoom> {
    let mut ip = Ip::of(packet.bytes(), l3, l4)?;
    let old_len = ip.end - l4;
    let tcp = segment::header_len(&packet.bytes()[l4..ip.end]).ok_or(NoRoom::Malformed)?;
    let option = option(KIND, client);
    if tcp + option.len() > HEADER_MAX {
        return Err(NoRoom::Header);
    }
    ip.open(packet, l4 + FIXED, option.len(), mtu)?;
    let segment = &mut packet.bytes_mut()[l4..ip.end];
    segment[FIXED..FIXED + option.len()].copy_from_slice(&option);
    // Lengths in words, in the upper half of the byte: at most 15 by the check above.
    let longer = (len(client.ip()) / 4) << 4;
    let offset = [segment[12] + longer, segment[13]];
    let length = Delta::replace(frame::word(old_len), frame::word(segment.len()));
    let delta = frame::put(segment, 12, offset)
        .and(Delta::adding(&option))
        .and(length);
    frame::apply(segment, TCP_CHECKSUM, delta);
    Ok(())
}

/// Kind or code, length, port, address.
pub(super) fn option(kind: u8, client: SocketAddr) -> ArrayVec<u8, 20> {
    let mut option: ArrayVec<u8, 20> = [kind, len(client.ip())].into_iter().collect();
    option.extend(client.port().to_be_bytes());
    match client.ip() {
        IpAddr::V4(address) => option.extend(address.octets()),
        IpAddr::V6(address) => option.extend(address.octets()),
    }
    option
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fullnat::testing::{self, Parts};
    use crate::packet::HeapBuf;

    #[test]
    fn the_bytes() {
        let option = |client: &str| option(KIND, client.parse().unwrap()).to_vec();
        let v4 = [254, 8, 0x9c, 0x40, 192, 0, 2, 1];
        assert_eq!(option("192.0.2.1:40000"), v4);
        let mut v6 = vec![254, 20, 0, 80, 0x20, 1, 0xd, 0xb8];
        v6.extend([0; 11]);
        v6.push(9);
        assert_eq!(option("[2001:db8::9]:80"), v6);
    }

    #[test]
    fn says_why_not() {
        let client = "192.0.2.1:40000".parse().unwrap();
        let mut parts = Parts {
            payload: vec![9; 100],
            ..Parts::default()
        };
        let (l3, l4, len) = (parts.l3(), parts.l4(), parts.ip_len());
        let mut packet = parts.buf();
        assert_eq!(
            insert(&mut packet, l3, l4, client, len + 7),
            Err(NoRoom::Mtu)
        );
        assert_eq!(packet, parts.buf());
        assert_eq!(insert(&mut packet, l3, l4, client, len + 8), Ok(()));
        parts.options = vec![vec![1; 36]];
        let mut packet = parts.buf();
        assert_eq!(
            insert(&mut packet, l3, l4, client, 1500),
            Err(NoRoom::Header)
        );
        assert_eq!(packet, parts.buf());
        parts.options.clear();
        let mut packet = parts.buf();
        while packet.prepend(1) {}
        packet.trim_front(7);
        packet.bytes_mut()[..parts.frame().len()].copy_from_slice(&parts.frame());
        let before = packet.clone();
        assert_eq!(
            insert(&mut packet, l3, l4, client, 1500),
            Err(NoRoom::Headroom)
        );
        assert_eq!(packet, before);
        let mut short = HeapBuf::new(&parts.frame()[..60]);
        assert_eq!(
            insert(&mut short, l3, l4, client, 1500),
            Err(NoRoom::Malformed)
        );
    }

    proptest! {
        #[test]
        fn equals_building_it_with_the_option(
            mut parts in testing::parts(), client: SocketAddr, corrupt: bool,
        ) {
            let (l3, l4) = (parts.l3(), parts.l4());
            let mut packet = parts.buf();
            if corrupt {
                packet.bytes_mut()[l4] ^= 4;
            }
            let told = insert(&mut packet, l3, l4, client, 1500);
            if told.is_ok() {
                parts.options.insert(0, option(KIND, client).to_vec());
            } else {
                prop_assert!(parts.options.concat().len() + usize::from(len(client.ip())) > 40);
            }
            if corrupt {
                prop_assert!(!testing::tcp_is_right(&parts, &packet));
                packet.bytes_mut()[l4] ^= 4;
            }
            prop_assert_eq!(packet.bytes(), parts.frame());
        }

        #[test]
        fn never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..120), client: SocketAddr,
            l3 in 0usize..30, l4 in 0usize..100, version in prop_oneof![Just(0x45u8), Just(0x60)],
        ) {
            let mut bytes = bytes;
            if let Some(first) = bytes.get_mut(l3) {
                *first = version;
            }
            for at in [2, 4] {
                if let Some(high) = bytes.get_mut(l3 + at) {
                    *high = 0;
                }
            }
            let _ = insert(&mut HeapBuf::new(&bytes), l3, l4, client, 1500);
            let _ = crate::fullnat::uoa::insert(&mut HeapBuf::new(&bytes), l3, l4, client, 1500);
            let _ = crate::fullnat::proxy::prefix(&mut HeapBuf::new(&bytes), l3, l4, b"abc", 1500);
            let _ = crate::fullnat::proxy::segment(&bytes, l3, l4, b"abc");
        }
    }
}

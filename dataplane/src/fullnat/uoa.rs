//! UOA, the client's address before a UDP header, as DPVS's module reads it ("opp" mode).
//!
//! `Ethernet / IP / UDP` becomes `Ethernet / IP / private header / UDP`. The UDP checksum, which
//! does not cover the private header, stays.

use std::net::SocketAddr;

use arrayvec::ArrayVec;

use crate::fullnat::NoRoom;
use crate::fullnat::frame::Ip;
use crate::fullnat::toa;
use crate::packet::PacketBuf;
use crate::wire::flow::UDP;

/// The private header's IP protocol.
pub const PROTOCOL: u8 = 248;
/// 31 with the control class's bit.
const CODE: u8 = 0x9f;
const FIXED: u8 = 4;
const FIXED_AND_OPTION_MAX: usize = 24;

/// Inserts the header that tells `client` before the UDP header at `l4` of the IP packet at `l3`.
/// The frame's start moves; UDP then begins 12 (IPv4 client) or 24 bytes after `l4`.
pub fn insert<P: PacketBuf>(
    packet: &mut P,
    l3: usize,
    l4: usize,
    client: SocketAddr,
    mtu: u16,
) -> Result<(), NoRoom> {
    let mut ip = Ip::of(packet.bytes(), l3, l4)?;
    let protocol = protocol_at(packet.bytes(), ip, l3, l4).ok_or(NoRoom::Malformed)?;
    let header = header(client);
    ip.open(packet, l4, header.len(), mtu)?;
    let frame = packet.bytes_mut();
    frame[l4..l4 + header.len()].copy_from_slice(&header);
    if ip.v6 {
        frame[protocol] = PROTOCOL;
    } else {
        let ttl = frame[l3 + 8];
        ip.put_ipv4(frame, 8, [ttl, PROTOCOL]);
    }
    Ok(())
}

/// Version and four zero bits, next protocol, length, option.
fn header(client: SocketAddr) -> ArrayVec<u8, FIXED_AND_OPTION_MAX> {
    let version = if client.is_ipv4() { 1 } else { 2 };
    let len = FIXED + toa::len(client.ip());
    let mut header: ArrayVec<u8, FIXED_AND_OPTION_MAX> =
        [version << 4, UDP, 0, len].into_iter().collect();
    header.extend(toa::option(CODE, client));
    header
}

/// Where the packet says that UDP begins at `l4`: in its IP header or in the last extension header.
fn protocol_at(frame: &[u8], ip: Ip, l3: usize, l4: usize) -> Option<usize> {
    if !ip.v6 {
        return (frame[l3 + 9] == UDP).then_some(l3 + 9);
    }
    let (mut field, mut at) = (l3 + 6, l3 + 40);
    while at < l4 {
        // Hop-by-hop, routing, destination options.
        if !matches!(frame[field], 0 | 43 | 60) {
            return None;
        }
        field = at;
        at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
    }
    (at == l4 && frame[field] == UDP).then_some(field)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fullnat::testing::{self, checksum};
    use crate::packet::HeapBuf;

    #[test]
    fn the_bytes() {
        let v4 = header("192.0.2.1:40000".parse().unwrap());
        let bytes = [0x10, 17, 0, 12, 0x9f, 8, 0x9c, 0x40, 192, 0, 2, 1];
        assert_eq!(v4.as_slice(), bytes);
        let v6 = header("[2001:db8::9]:80".parse().unwrap());
        let start = [0x20, 17, 0, 24, 0x9f, 20, 0, 80, 0x20, 1, 0xd, 0xb8];
        assert_eq!((&v6[..12], v6.len()), (&start[..], 24));
    }

    proptest! {
        #[test]
        fn equals_building_it_with_the_header(parts in testing::parts(), client: SocketAddr) {
            let (l3, l4) = (parts.l3(), parts.l4());
            let mut udp = vec![0x12, 0x34, 0, 53, 0, 8, 0, 0];
            udp[5] += u8::try_from(parts.payload.len()).unwrap();
            udp.extend(&parts.payload);
            let check = checksum(&[parts.pseudo(17, udp.len()), udp.clone()].concat());
            udp[6..8].copy_from_slice(&check);
            let mut packet = HeapBuf::new(&parts.around(UDP, &udp));
            let len = u16::try_from(l4 - l3 + udp.len()).unwrap();
            let header = header(client);
            let room = u16::try_from(header.len()).unwrap();
            prop_assert_eq!(insert(&mut packet, l3, l4, client, len + room - 1), Err(NoRoom::Mtu));
            prop_assert_eq!(insert(&mut packet, l3, l4, client, len + room), Ok(()));
            let expected = parts.around(PROTOCOL, &[&header, udp.as_slice()].concat());
            prop_assert_eq!(packet.bytes(), expected);
            let mut tcp = parts.buf();
            prop_assert_eq!(insert(&mut tcp, l3, l4, client, 1500), Err(NoRoom::Malformed));
        }
    }
}

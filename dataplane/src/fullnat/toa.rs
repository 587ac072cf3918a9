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
        .and(frame::added(FIXED, &option))
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

//! Rewriting: what changes in a packet between the client's side of a connection and the server's.

use std::net::IpAddr;

use crate::counters::DropReason;
use crate::fragments::{Piece, piece};
use crate::packet::PacketBuf;
use crate::wire::delta::{Delta, TTL};
use crate::wire::flow::{
    Addresses6, Flow, IPV4_HEADER, IPV6_HEADER, Kind, SCTP, Seen, TCP, Tuple, UDP, swapped,
};
use crate::wire::ip::{DONT_FRAGMENT, MORE_FRAGMENTS, extension};
use crate::wire::{checksum, sctp};

/// All that changes in a packet which keeps its addresses.
#[inline(always)]
pub(super) fn one_hop_less(frame: &mut [u8], seen: &Seen) {
    let header = &mut frame[usize::from(seen.l3)..usize::from(seen.l4)];
    if seen.flow.v6 {
        header[7] -= 1;
    } else {
        header[8] -= 1;
        let checksum = TTL.apply([header[10], header[11]]);
        header[10..12].copy_from_slice(&checksum);
    }
}

/// Gives an IPv4 packet the addresses and ports of `to`, one hop less to live, and checksums to
/// match.
#[inline(always)]
pub fn translate(frame: &mut [u8], seen: &Seen, to: &Flow, (ip, l4): (Delta, Delta)) {
    let (header, segment) =
        frame[usize::from(seen.l3)..].split_at_mut(usize::from(seen.l4) - usize::from(seen.l3));
    let header: &mut [u8; IPV4_HEADER] = header
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("parsed"));
    header[8] -= 1;
    let checksum = ip.and(TTL).apply([header[10], header[11]]);
    header[10..12].copy_from_slice(&checksum);
    header[12..20].copy_from_slice(&to.addresses.to_ne_bytes());
    translate_segment(segment, seen, to.ports, l4);
}

/// As [`translate`] for IPv6. `other` is what the other side sends, the reverse of what leaves.
#[inline(always)]
pub fn translate6(frame: &mut [u8], seen: &Seen, other: &Addresses6, to: &Flow, l4: Delta) {
    let (header, segment) =
        frame[usize::from(seen.l3)..].split_at_mut(usize::from(seen.l4) - usize::from(seen.l3));
    let header: &mut [u8; IPV6_HEADER] = header
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("parsed"));
    header[7] -= 1;
    let addresses = swapped(other);
    header[8..].copy_from_slice(&addresses);
    translate_segment(segment, seen, to.ports, l4);
    // Nobody takes UDP without a checksum over IPv6 (RFC 8200 §8.1).
    if seen.flow.protocol == UDP && seen.kind == Kind::Transport && segment[6..8] == [0, 0] {
        let tuple = Tuple::of_v6(to, &addresses);
        fill_udp(frame, seen, &tuple);
    }
}

/// Ports and checksum of the transport header that `segment` begins with.
#[inline(always)]
fn translate_segment(segment: &mut [u8], seen: &Seen, ports: u32, l4: Delta) {
    let ports = ports.to_ne_bytes();
    match (seen.kind, seen.flow.protocol) {
        (Kind::Fragment, _) => return,
        (_, TCP) => {
            let field = &mut segment[16..18];
            field.copy_from_slice(&l4.apply([field[0], field[1]]));
        }
        (_, SCTP) => return translate_sctp(segment, seen, ports),
        _ => {
            let field = &mut segment[6..8];
            field.copy_from_slice(&l4.apply_udp([field[0], field[1]]));
        }
    }
    segment[..4].copy_from_slice(&ports);
}

/// SCTP's checksum covers the ports but no address (RFC 9260 §6.8).
#[cold]
fn translate_sctp(segment: &mut [u8], seen: &Seen, ports: [u8; 4]) {
    if segment[..4] != ports {
        segment[..4].copy_from_slice(&ports);
        let len = usize::from(seen.ip_len) + usize::from(seen.l3) - usize::from(seen.l4);
        sctp::refresh(&mut segment[..len]);
    }
}

/// Computes a UDP checksum in full; the addresses are those of `tuple`.
#[cold]
fn fill_udp(frame: &mut [u8], seen: &Seen, tuple: &Tuple) {
    let end = usize::from(seen.l3) + usize::from(seen.ip_len);
    let segment = &mut frame[usize::from(seen.l4)..end];
    segment[6..8].fill(0);
    let sum = checksum::transport(tuple.from.ip(), tuple.to.ip(), UDP, segment);
    let sum = if sum == 0 { 0xffff } else { sum };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// By how many bytes an IP packet grows (or shrinks) when it becomes one of the other family.
pub(super) fn growth(seen: &Seen) -> i32 {
    i32::from(seen.l3) + new_header_len(seen) - i32::from(seen.l4)
}

/// Length of the IP header that a packet gets in the other family.
fn new_header_len(seen: &Seen) -> i32 {
    match (seen.flow.v6, seen.kind) {
        (true, _) => 20,
        (false, Kind::Transport) => 40,
        (false, _) => 48,
    }
}

/// Makes an IPv4 packet of an IPv6 one or the reverse (RFC 7915 §4.1, §5.1), addressed as `to`, one
/// hop less to live. Its IP header begins at the same offset as before; returns where its transport
/// header does. An error, with the packet as it was, when that cannot be: no headroom, or a fragment
/// of a datagram without checksum.
pub(super) fn translate_family<P: PacketBuf>(
    packet: &mut P,
    seen: &Seen,
    to: &Tuple,
    l4: Delta,
    id: u16,
) -> Result<usize, DropReason> {
    let part = Part::of(packet.bytes(), seen, id)?;
    let l3 = usize::from(seen.l3);
    let has_checksum = seen.kind == Kind::Fragment
        || seen.flow.protocol != UDP
        || packet.bytes()[usize::from(seen.l4) + 6..][..2] != [0, 0];
    if !has_checksum && seen.kind != Kind::Transport {
        return Err(DropReason::Fragment);
    }
    let traffic_class = part.traffic_class;
    let growth = growth(seen);
    let grown = usize::try_from(growth.unsigned_abs()).unwrap_or(0);
    if growth < 0 {
        packet.trim_front(grown);
    } else if !packet.prepend(grown) {
        return Err(DropReason::NoHeadroom);
    }
    let start = l3 + usize::try_from(new_header_len(seen)).unwrap_or(0);
    let payload = usize::from(seen.ip_len) + l3 - usize::from(seen.l4);
    let frame = packet.bytes_mut();
    let header = &mut frame[l3..start];
    match (to.addresses6(), to.from.ip(), to.to.ip()) {
        (Some(addresses), ..) => {
            let total = u16::try_from(header.len() - IPV6_HEADER + payload).unwrap_or(u16::MAX);
            header[0] = 0x60 | traffic_class >> 4;
            header[1..4].copy_from_slice(&[traffic_class << 4, 0, 0]);
            header[4..6].copy_from_slice(&total.to_be_bytes());
            header[6] = seen.flow.protocol;
            header[7] = seen.ttl - 1;
            header[8..40].copy_from_slice(&addresses);
            if let [next, zero, place @ .., _, _, _, _] = &mut header[40..] {
                (*next, *zero) = (seen.flow.protocol, 0);
                place.copy_from_slice(&part.place.to_be_bytes());
                header[6] = extension::FRAGMENT;
                header[44..48].copy_from_slice(&part.id.to_be_bytes());
            }
        }
        (None, IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(header.len() + payload).unwrap_or(u16::MAX);
            header[..2].copy_from_slice(&[0x45, traffic_class]);
            header[2..4].copy_from_slice(&total.to_be_bytes());
            let [.., high, low] = part.id.to_be_bytes();
            header[4..6].copy_from_slice(&[high, low]);
            header[6..8].copy_from_slice(&part.place.to_be_bytes());
            header[8..12].copy_from_slice(&[seen.ttl - 1, seen.flow.protocol, 0, 0]);
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum::ipv4_header(header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        _ => unreachable!("one packet has one family"),
    }
    let mut now = *seen;
    now.l4 = u16::try_from(start).unwrap_or(u16::MAX);
    now.ip_len = u16::try_from(start - l3 + payload).unwrap_or(u16::MAX);
    let segment = &mut frame[start..];
    let ([a, b], [c, d]) = (to.from.port().to_be_bytes(), to.to.port().to_be_bytes());
    translate_segment(segment, &now, u32::from_ne_bytes([a, b, c, d]), l4);
    if !has_checksum {
        fill_udp(frame, &now, to);
    }
    Ok(start)
}

/// What a packet's IP header says beyond its addresses, in the words of the other family.
struct Part {
    traffic_class: u8,
    /// The 16 bits of offset and flags as the other family writes them.
    place: u16,
    id: u32,
}

impl Part {
    fn of(frame: &[u8], seen: &Seen, id: u16) -> Result<Self, DropReason> {
        let header = &frame[usize::from(seen.l3)..];
        let v6 = seen.flow.v6;
        let traffic_class = if v6 {
            header[0] << 4 | header[1] >> 4
        } else {
            header[1]
        };
        if seen.kind == Kind::Transport {
            // What a host sends over IPv6 expects to be told when it is too long.
            let place = if v6 { DONT_FRAGMENT } else { 0 };
            let id = id.into();
            return Ok(Self {
                traffic_class,
                place,
                id,
            });
        }
        let Piece {
            key, offset, more, ..
        } = piece(frame, usize::from(seen.l3))?;
        let place = match v6 {
            true => (offset / 8) | if more { MORE_FRAGMENTS } else { 0 },
            false => offset | u16::from(more),
        };
        Ok(Self {
            traffic_class,
            place,
            id: key.id,
        })
    }
}

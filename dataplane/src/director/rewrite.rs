//! Rewriting: what changes in a packet between the client's side of a connection and the server's.

use std::ops::Range;

use zerocopy::FromBytes;

use crate::counters::DropReason;
use crate::fragments::{Piece, piece};
use crate::packet::PacketBuf;
use crate::wire::delta::{Delta, TTL};
use crate::wire::flow::{
    Addresses6, Flow, IPV4_HEADER, IPV6_HEADER, Kind, Plain, SCTP, Seen, TCP, Tuple, UDP, halves,
    swapped,
};
use crate::wire::ip::{DONT_FRAGMENT, MORE_FRAGMENTS, extension};
use crate::wire::{checksum, sctp};

#[expect(clippy::cast_possible_truncation, reason = "40")]
const IPV6_HEADER_LEN: u16 = IPV6_HEADER as u16;

/// All that changes in a packet which keeps its addresses.
#[inline(always)]
pub(super) fn one_hop_less(frame: &mut [u8], seen: &Seen) {
    let Some(header) = frame[usize::from(seen.l3)..].first_chunk_mut::<IPV4_HEADER>() else {
        unreachable!("parsed");
    };
    if seen.flow.v6 {
        header[7] -= 1;
    } else {
        pass_on(header, TTL);
    }
}

/// One hop less to live, and a checksum to match that and what else changes it.
#[inline(always)]
fn pass_on(header: &mut [u8; IPV4_HEADER], delta: Delta) {
    header[8] -= 1;
    let checksum = delta.apply([header[10], header[11]]);
    header[10..12].copy_from_slice(&checksum);
}

/// Gives an IPv4 packet the addresses and ports of `to`, one hop less to live, and checksums to
/// match.
#[inline(always)]
pub fn translate(frame: &mut [u8], seen: &Seen, to: &Flow, (ip, l4): (Delta, Delta)) {
    match Plain::<IPV4_HEADER>::mut_from_prefix(frame) {
        Ok((plain, _)) if seen.is_plain => {
            translate_header(&mut plain.ip, to.addresses, ip);
            translate_ports(&mut plain.segment, seen.flow.protocol, to.ports, l4);
        }
        _ => translate_parted(frame, seen, to.addresses, to.ports, (ip, l4)),
    }
}

#[inline(never)]
fn translate_parted(
    frame: &mut [u8],
    seen: &Seen,
    addresses: u64,
    ports: u32,
    (ip, l4): (Delta, Delta),
) {
    let (header, segment) = parted(frame, seen);
    let header = header
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("parsed"));
    translate_header(header, addresses, ip);
    translate_segment(segment, seen, ports, l4);
}

#[inline(always)]
fn translate_header(header: &mut [u8; IPV4_HEADER], addresses: u64, ip: Delta) {
    pass_on(header, ip.and(TTL));
    header[12..].copy_from_slice(&addresses.to_ne_bytes());
}

/// As [`translate`] for IPv6. `other` is what the other side sends, the reverse of what leaves.
#[inline(always)]
pub fn translate6(frame: &mut [u8], seen: &Seen, other: &Addresses6, to: &Flow, l4: Delta) {
    let lacks_checksum = match Plain::<IPV6_HEADER>::mut_from_prefix(frame) {
        Ok((plain, _)) if seen.is_plain => {
            translate_header6(&mut plain.ip, other);
            translate_ports(&mut plain.segment, seen.flow.protocol, to.ports, l4);
            seen.flow.protocol == UDP && plain.segment[6..8] == [0, 0]
        }
        _ => translate_parted6(frame, seen, other, to.ports, l4),
    };
    // Nobody takes UDP without a checksum over IPv6 (RFC 8200 §8.1).
    if lacks_checksum {
        fill_udp6(frame, whole_segment(seen), other, to.ports);
    }
}

/// Where a packet's transport header and what follows are.
#[inline(always)]
fn whole_segment(seen: &Seen) -> Range<usize> {
    usize::from(seen.l4)..usize::from(seen.l3) + usize::from(seen.ip_len)
}

#[inline(never)]
fn translate_parted6(
    frame: &mut [u8],
    seen: &Seen,
    other: &Addresses6,
    ports: u32,
    l4: Delta,
) -> bool {
    let (header, segment) = parted(frame, seen);
    let header = header
        .first_chunk_mut()
        .unwrap_or_else(|| unreachable!("parsed"));
    translate_header6(header, other);
    translate_segment(segment, seen, ports, l4);
    seen.flow.protocol == UDP && seen.kind == Kind::Transport && segment[6..8] == [0, 0]
}

#[cold]
#[inline(never)]
fn fill_udp6(frame: &mut [u8], segment: Range<usize>, other: &Addresses6, ports: u32) {
    let to = Flow {
        addresses: 0,
        ports,
        protocol: UDP,
        v6: true,
    };
    fill_udp(&mut frame[segment], &Tuple::of_v6(&to, &swapped(other)));
}

#[inline(always)]
fn translate_header6(header: &mut [u8; IPV6_HEADER], other: &Addresses6) {
    header[7] -= 1;
    // Not by way of a copy: reading that back would wait for its stores.
    let (from, to) = halves(other);
    header[8..24].copy_from_slice(to);
    header[24..].copy_from_slice(from);
}

/// A packet's IP header with all that belongs to it, and what follows.
fn parted<'f>(frame: &'f mut [u8], seen: &Seen) -> (&'f mut [u8], &'f mut [u8]) {
    let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
    frame[l3..].split_at_mut(l4 - l3)
}

/// Ports and checksum of the transport header that `segment` begins with.
#[inline(always)]
fn translate_segment(segment: &mut [u8], seen: &Seen, ports: u32, l4: Delta) {
    match (seen.kind, seen.flow.protocol) {
        (Kind::Fragment, _) => {}
        (_, SCTP) => translate_sctp(segment, seen, ports.to_ne_bytes()),
        (_, protocol) => translate_ports(segment, protocol, ports, l4),
    }
}

/// Ports and checksum of TCP or UDP.
#[inline(always)]
fn translate_ports(segment: &mut [u8], protocol: u8, ports: u32, l4: Delta) {
    if protocol == TCP {
        let checksum = l4.apply([segment[16], segment[17]]);
        segment[16..18].copy_from_slice(&checksum);
    } else {
        let checksum = l4.apply_udp([segment[6], segment[7]]);
        segment[6..8].copy_from_slice(&checksum);
    }
    segment[..4].copy_from_slice(&ports.to_ne_bytes());
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
fn fill_udp(segment: &mut [u8], tuple: &Tuple) {
    segment[6..8].fill(0);
    let sum = checksum::transport(tuple.from.ip(), tuple.to.ip(), UDP, segment);
    let sum = if sum == 0 { 0xffff } else { sum };
    segment[6..8].copy_from_slice(&sum.to_be_bytes());
}

/// By how many bytes an IP packet grows (or shrinks) when it becomes one of the other family.
#[inline(always)]
pub(super) fn growth(seen: &Seen) -> i32 {
    i32::from(seen.l3) + i32::from(new_header_len(seen)) - i32::from(seen.l4)
}

/// Length of the IP header that a packet gets in the other family.
#[inline(always)]
fn new_header_len(seen: &Seen) -> u16 {
    match (seen.flow.v6, seen.kind) {
        (true, _) => 20,
        (false, Kind::Transport) => 40,
        (false, _) => 48,
    }
}

/// Makes an IPv4 packet of an IPv6 one or the reverse (RFC 7915 §4.1, §5.1), one hop less to live.
/// It is addressed as `to`, in IPv6 as the reverse of `other`. Its IP header begins at the same
/// offset as before; returns where its transport header does. An error, with the packet as it was,
/// when that cannot be: no headroom, or a fragment of a datagram without checksum.
#[inline(always)]
pub(super) fn translate_family<P: PacketBuf>(
    packet: &mut P,
    seen: &Seen,
    other: &Addresses6,
    to: &Flow,
    l4: Delta,
    id: u16,
) -> Result<usize, DropReason> {
    let part = Part::of(packet.bytes(), seen, id)?;
    let has_checksum = has_checksum(packet.bytes(), seen);
    if !has_checksum && seen.kind != Kind::Transport {
        return Err(DropReason::Fragment);
    }
    let mut now = *seen;
    now.l4 = u16::from(seen.l3) + new_header_len(seen);
    now.ip_len = (seen.ip_len + now.l4).saturating_sub(seen.l4);
    if !move_front(packet, seen.l4, now.l4) {
        return Err(DropReason::NoHeadroom);
    }
    let frame = packet.bytes_mut();
    let (header, segment) =
        frame[usize::from(seen.l3)..].split_at_mut(usize::from(new_header_len(seen)));
    if to.v6 {
        let addresses = swapped(other);
        write_ipv6(header, &now, &part, &addresses);
    } else {
        write_ipv4(header, &now, &part, to.addresses);
    }
    translate_segment(segment, &now, to.ports, l4);
    if !has_checksum {
        let tuple = if to.v6 {
            Tuple::of_v6(to, &swapped(other))
        } else {
            Tuple::of_v4(to)
        };
        fill_udp(&mut frame[whole_segment(&now)], &tuple);
    }
    Ok(usize::from(now.l4))
}

/// Whether there is a checksum, as everywhere but in some UDP.
#[inline(always)]
fn has_checksum(frame: &[u8], seen: &Seen) -> bool {
    seen.flow.protocol != UDP
        || seen.kind == Kind::Fragment
        || frame[usize::from(seen.l4) + 6..][..2] != [0, 0]
}

/// Moves a frame's start so that what was at `from` is at `to`; `false` when there is no headroom.
#[inline(always)]
fn move_front<P: PacketBuf>(packet: &mut P, from: u16, to: u16) -> bool {
    if from < to {
        return packet.prepend(usize::from(to - from));
    }
    packet.trim_front(usize::from(from - to));
    true
}

/// Writes an IPv6 header of a packet like `now`, with a fragment header where it has room for one.
#[inline(always)]
fn write_ipv6(header: &mut [u8], now: &Seen, part: &Part, addresses: &Addresses6) {
    let Some((fixed, fragment)) = header.split_first_chunk_mut::<IPV6_HEADER>() else {
        unreachable!("as long as `new_header_len` says");
    };
    let class = part.traffic_class;
    let [len_high, len_low] = (now.ip_len - IPV6_HEADER_LEN).to_be_bytes();
    let (protocol, ttl) = (now.flow.protocol, now.ttl - 1);
    let next = match fragment {
        [] => protocol,
        _ => extension::FRAGMENT,
    };
    let (first, rest) = fixed.split_at_mut(8);
    first.copy_from_slice(&[
        0x60 | class >> 4,
        class << 4,
        0,
        0,
        len_high,
        len_low,
        next,
        ttl,
    ]);
    rest.copy_from_slice(addresses);
    if !fragment.is_empty() {
        let ([a, b], [c, d, e, f]) = (part.place.to_be_bytes(), part.id.to_be_bytes());
        fragment.copy_from_slice(&[protocol, 0, a, b, c, d, e, f]);
    }
}

/// Writes the IPv4 header of a packet like `now`.
#[inline(always)]
fn write_ipv4(header: &mut [u8], now: &Seen, part: &Part, addresses: u64) {
    let [len_high, len_low] = now.ip_len.to_be_bytes();
    let [.., id_high, id_low] = part.id.to_be_bytes();
    let [flags, offset] = part.place.to_be_bytes();
    let words = [
        [0x45, part.traffic_class, len_high, len_low],
        [id_high, id_low, flags, offset],
        [now.ttl - 1, now.flow.protocol, 0, 0],
    ];
    // Summed before it is written: reading it back would wait for the stores.
    let sum = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum::<u64>();
    let sum = checksum::fold(sum + (addresses & 0xffff_ffff) + (addresses >> 32));
    let [[a, b, c, d], [e, f, g, h], [i, j, ..]] = words;
    let [k, l] = (!sum).to_ne_bytes();
    let (first, rest) = header.split_at_mut(12);
    first.copy_from_slice(&[a, b, c, d, e, f, g, h, i, j, k, l]);
    rest.copy_from_slice(&addresses.to_ne_bytes());
}

/// What a packet's IP header says beyond its addresses, in the words of the other family.
struct Part {
    traffic_class: u8,
    /// The 16 bits of offset and flags as the other family writes them.
    place: u16,
    id: u32,
}

impl Part {
    #[inline(always)]
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
        Self::of_fragment(frame, seen, traffic_class)
    }

    #[cold]
    fn of_fragment(frame: &[u8], seen: &Seen, traffic_class: u8) -> Result<Self, DropReason> {
        let Piece {
            key, offset, more, ..
        } = piece(frame, usize::from(seen.l3))?;
        let place = match seen.flow.v6 {
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

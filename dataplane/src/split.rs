//! IPv4 packets longer than the next network's MTU, made into fragments (RFC 791).

use arrayvec::ArrayVec;

use crate::counters::DropReason;
use crate::packet::{Egress, PacketBuf};
use crate::wire::checksum;
use crate::wire::delta::Delta;

/// The most fragments one packet is made into.
pub const FRAGMENTS_MAX: usize = 64;

/// A packet's fragments, in order.
pub type Split<P> = ArrayVec<P, FRAGMENTS_MAX>;

/// More fragments follow; DF and the reserved bit are left as they are.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
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

//! The IP packet in a frame: its length, a gap in it, and what that does to checksums.

use crate::packet::PacketBuf;
use crate::wire::delta::Delta;
use crate::wire::flow::IPV6_HEADER;

/// Why something was not put into a packet, which is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// It would be longer than the MTU.
    Mtu,
    /// Its TCP header would be longer than 60 bytes.
    Header,
    /// Its buffer has no headroom left.
    Headroom,
    /// Its headers contradict their lengths; what the parser took never does.
    Malformed,
}

/// Where the checksum lies in a TCP header.
pub(crate) const TCP_CHECKSUM: usize = 16;
const IPV4_CHECKSUM: usize = 10;

/// An IP packet whose headers end before `l4`, and which ends where its header says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) v6: bool,
    l3: usize,
    /// Where it ends in the frame; padding may follow.
    pub(crate) end: usize,
}

impl Ip {
    pub(crate) fn of(frame: &[u8], l3: usize, l4: usize) -> Result<Self, NoRoom> {
        let at = |i: usize| frame.get(l3.checked_add(i)?).copied();
        let read = || {
            let (v6, header, len) = match at(0)? >> 4 {
                4 => (false, 20, u16::from_be_bytes([at(2)?, at(3)?]).into()),
                6 => {
                    let payload = u16::from_be_bytes([at(4)?, at(5)?]);
                    (true, IPV6_HEADER, IPV6_HEADER + usize::from(payload))
                }
                _ => return None,
            };
            let end = l3 + len;
            let fits = l3 + header <= l4 && l4 <= end && end <= frame.len();
            fits.then_some(Self { v6, l3, end })
        };
        read().ok_or(NoRoom::Malformed)
    }

    /// Writes that the packet ends at `end`, which is at most 65 535 bytes after its start.
    pub(crate) fn set_end(&mut self, frame: &mut [u8], end: usize) {
        self.end = end;
        if self.v6 {
            put(frame, self.l3 + 4, word(end - self.l3 - IPV6_HEADER));
        } else {
            let delta = put(frame, self.l3 + 2, word(end - self.l3));
            apply(frame, self.l3 + IPV4_CHECKSUM, delta);
        }
    }

    /// Replaces the 16-bit word at `at` of an IPv4 header.
    pub(crate) fn put_ipv4(self, frame: &mut [u8], at: usize, new: [u8; 2]) {
        let delta = put(frame, self.l3 + at, new);
        apply(frame, self.l3 + IPV4_CHECKSUM, delta);
    }

    /// Opens a gap of `len` bytes at `at`: what is before it moves to the front, and the packet's
    /// length grows. Offsets before the gap stay what they were, counted from the new start.
    pub(crate) fn open<P: PacketBuf>(
        &mut self,
        packet: &mut P,
        at: usize,
        len: usize,
        mtu: u16,
    ) -> Result<(), NoRoom> {
        if self.end + len > self.l3 + usize::from(mtu) {
            return Err(NoRoom::Mtu);
        }
        if !packet.prepend(len) {
            return Err(NoRoom::Headroom);
        }
        let frame = packet.bytes_mut();
        frame.copy_within(len..len + at, 0);
        self.set_end(frame, self.end + len);
        Ok(())
    }
}

/// A length as it lies on the wire; no IP packet is longer than 65 535 bytes.
#[expect(clippy::cast_possible_truncation, reason = "the caller's contract")]
pub(crate) fn word(len: usize) -> [u8; 2] {
    (len as u16).to_be_bytes()
}

/// Replaces the 16-bit word at `at`, an even number of bytes into what a checksum covers.
pub(crate) fn put(bytes: &mut [u8], at: usize, new: [u8; 2]) -> Delta {
    let old = [bytes[at], bytes[at + 1]];
    bytes[at..at + 2].copy_from_slice(&new);
    Delta::replace(old, new)
}

/// Changes the checksum at `at`.
pub(crate) fn apply(bytes: &mut [u8], at: usize, delta: Delta) {
    let new = delta.apply([bytes[at], bytes[at + 1]]);
    bytes[at..at + 2].copy_from_slice(&new);
}

/// The change of a checksum when `bytes` come to lie `at` bytes into what it covers. Taking them
/// away is the reverse.
#[expect(clippy::cast_possible_truncation, reason = "folded until it fits")]
pub(crate) fn added(at: usize, bytes: &[u8]) -> Delta {
    let mut sum: u64 = bytes
        .iter()
        .zip(at..)
        .map(|(&byte, at)| u64::from(byte) << if at % 2 == 0 { 8 } else { 0 })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Delta::from_raw((sum as u16).to_be())
}

/// Overwrites the bytes at `at` of what a checksum covers from its first byte on.
pub(crate) fn overwrite(bytes: &mut [u8], at: usize, new: &[u8]) -> Delta {
    let place = &mut bytes[at..at + new.len()];
    let delta = added(at, place).reversed().and(added(at, new));
    place.copy_from_slice(new);
    delta
}

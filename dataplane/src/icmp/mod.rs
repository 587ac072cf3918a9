//! Answers of our own: echo, unreachable, time exceeded, TCP reset. Bytes in, bytes out: IP packets
//! of either family without their link layer, which may be padded at the end.

mod error; // what an ICMP error says, in both families
mod limit; // how many answers may leave
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use arrayvec::ArrayVec;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::error::ErrorKind;
pub use self::limit::RateLimit;
use crate::net::is_station;
use crate::wire::flow::tcp_flags::{ACK, FIN, RST, SYN};
use crate::wire::flow::{ICMP, ICMPV6, TCP};
use crate::wire::ip::{Head, Ip, V4_LEN, V6_LEN, readdress};
use crate::wire::{checksum, icmp};

/// The longest packet made here, over IPv6 (RFC 4443 §2.4(c)).
pub const MADE_PACKET_MAX: usize = 1280;
/// The longest one over IPv4 (RFC 1812 §4.3.2.3).
const V4_MAX: usize = 576;

/// A whole IP packet, ready to be routed by its destination.
pub type Made = ArrayVec<u8, MADE_PACKET_MAX>;

/// Why a packet could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    Net,
    Host,
    Port,
    /// It may not be fragmented and the next hop takes no IP packet longer than this.
    TooBig(u16),
}

const TCP_LEN: usize = size_of::<Tcp>();
const TTL: u8 = 64;
/// Precedence "internetwork control", as RFC 1812 §4.3.2.5 asks of errors.
const TOS_ERROR: u8 = 0xc0;

/// TCP without options.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy)]
#[repr(C)]
struct Tcp {
    src_port: U16,
    dst_port: U16,
    seq: U32,
    ack: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

/// A received packet, cut into its parts.
struct Original<'p> {
    ip: Ip,
    /// From the header on, without link-layer padding; what arrived, if the packet was cut.
    whole: &'p [u8],
}

impl<'p> Original<'p> {
    /// `None` when the header is not valid or no answer may go to the source (RFC 1122 §3.2.2,
    /// RFC 1812 §4.3.2.7, RFC 4443 §2.4(e)). That an address is a subnet's broadcast address is for
    /// the caller to see.
    fn parse(packet: &'p [u8]) -> Option<Self> {
        let ip = Ip::parse(packet).ok()?;
        let whole = &packet[..ip.total_len.min(packet.len())];
        let is_valid = ip.payload <= whole.len() && is_station(ip.src);
        is_valid.then_some(Self { ip, whole })
    }

    fn payload(&self) -> &'p [u8] {
        &self.whole[self.ip.payload..]
    }

    fn is_complete(&self) -> bool {
        !self.ip.is_fragment && self.whole.len() == self.ip.total_len
    }

    /// Whether it is an ICMP error or a redirect, or too short to tell.
    fn may_be_error(&self) -> bool {
        let kind = self.payload().first();
        match (self.ip.is_v6(), self.ip.protocol) {
            (false, ICMP) => kind.is_none_or(|&kind| icmp::is_error(kind)),
            (true, ICMPV6) => {
                kind.is_none_or(|&kind| icmp::v6::is_error(kind) || kind == icmp::v6::REDIRECT)
            }
            _ => false,
        }
    }
}

/// The error that tells `packet`'s sender that it could not be delivered; `None` when the standards
/// forbid one or `source` is no station of the packet's family.
pub fn unreachable(packet: &[u8], what: Unreachable, source: IpAddr) -> Option<Made> {
    error(packet, ErrorKind::unreachable(is_v6(packet)?, what), source)
}

/// The error that tells `packet`'s sender that its time to live ran out here; `None` as
/// [`unreachable`].
pub fn time_exceeded(packet: &[u8], source: IpAddr) -> Option<Made> {
    error(packet, ErrorKind::time_exceeded(is_v6(packet)?), source)
}

fn is_v6(packet: &[u8]) -> Option<bool> {
    Some(packet.first()? >> 4 == 6)
}

/// The error about `packet`, which may be cut, from `source`; `None` as [`unreachable`].
pub(crate) fn error(packet: &[u8], kind: ErrorKind, source: IpAddr) -> Option<Made> {
    let original = Original::parse(packet)?;
    let Ip { src, dst, tos, .. } = original.ip;
    // IPv6 learns the path MTU of multicast too (RFC 4443 §2.4(e.3)).
    let may_answer_for =
        is_station(dst) || kind.is_v6 && kind.mtu().is_some() && dst.is_multicast();
    if original.ip.is_later_fragment
        || original.may_be_error()
        || !may_answer_for
        || !is_station(source)
        || kind.is_v6 != original.ip.is_v6()
    {
        return None;
    }
    let head = Head {
        src: source,
        dst: src,
        tos: if kind.is_v6 {
            0
        } else {
            tos & 0x1e | TOS_ERROR
        },
        ttl: TTL,
        protocol: protocol(kind.is_v6),
    };
    message(&head, kind, &[original.whole])
}

/// The protocol that ICMP is in a family.
pub(crate) const fn protocol(is_v6: bool) -> u8 {
    if is_v6 { ICMPV6 } else { ICMP }
}

/// An error that quotes as much of the parts of `quote`, one after the other, as fits. `None` if
/// the families differ.
pub(crate) fn message(head: &Head, kind: ErrorKind, quote: &[&[u8]]) -> Option<Made> {
    let start = head.header_len();
    let max = if kind.is_v6 { MADE_PACKET_MAX } else { V4_MAX };
    let quote_len = quote.iter().map(|part| part.len()).sum::<usize>();
    let end = max.min(start + icmp::LEN + quote_len);
    let mut made = Made::new();
    put(&mut made, &head.before(end - start)?)?;
    put(&mut made, kind.head().as_bytes())?;
    for part in quote {
        let room = end - made.len();
        put(&mut made, &part[..part.len().min(room)])?;
    }
    seal(head.src, head.dst, &mut made[start..]);
    Some(made)
}

/// Gives an ICMP message between two addresses its checksum.
pub(crate) fn seal(src: IpAddr, dst: IpAddr, message: &mut [u8]) {
    message[2..4].fill(0);
    let sum = checksum_of(src, dst, message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// 0 if the checksum of an ICMP message between two addresses is right.
pub(crate) fn checksum_of(src: IpAddr, dst: IpAddr, message: &[u8]) -> u16 {
    match src {
        IpAddr::V4(_) => checksum::icmp(message),
        IpAddr::V6(_) => checksum::transport(src, dst, ICMPV6, message),
    }
}

/// The reset that answers a segment for which there is no connection (RFC 9293 §3.10.7.1), from
/// the address it was sent to; `None` for a reset, a fragment and a segment that is not whole or
/// has a wrong checksum.
pub fn tcp_reset(packet: &[u8]) -> Option<Made> {
    let original = Original::parse(packet)?;
    let Ip { src, dst, .. } = original.ip;
    if original.ip.protocol != TCP || !original.is_complete() || !is_station(dst) {
        return None;
    }
    let segment = original.payload();
    let (tcp, _) = Tcp::read_from_prefix(segment).ok()?;
    let data = segment.get(usize::from(tcp.data_offset >> 4) * 4..)?;
    let is_valid = usize::from(tcp.data_offset >> 4) * 4 >= TCP_LEN
        && checksum::transport(src, dst, TCP, segment) == 0;
    if !is_valid || tcp.flags & RST != 0 {
        return None;
    }
    let reset = reset_for(&tcp, u32::try_from(data.len()).ok()?, dst, src);
    let head = Head {
        src: dst,
        dst: src,
        tos: 0,
        ttl: TTL,
        protocol: TCP,
    };
    let mut made = Made::new();
    put(&mut made, &head.before(TCP_LEN)?)?;
    put(&mut made, reset.as_bytes())?;
    Some(made)
}

/// Turns a whole, valid TCP segment into a reset from its sender, in place; returns how long the IP
/// packet then is. `None` leaves it as it was.
#[must_use]
pub fn become_reset(packet: &mut [u8]) -> Option<usize> {
    let original = Original::parse(packet)?;
    let Ip { src, dst, .. } = original.ip;
    if original.ip.protocol != TCP || !original.is_complete() {
        return None;
    }
    let (start, segment) = (original.ip.payload, original.payload());
    let (mut tcp, _) = Tcp::read_from_prefix(segment).ok()?;
    if checksum::transport(src, dst, TCP, segment) != 0 {
        return None;
    }
    let seq = tcp.seq.get();
    // What follows a SYN has the next number.
    tcp.seq = seq.wrapping_add(u32::from(tcp.flags & SYN != 0)).into();
    (tcp.ack, tcp.window, tcp.urgent) = (0.into(), 0.into(), 0.into());
    (tcp.data_offset, tcp.flags) = (5 << 4, RST);
    let end = start + TCP_LEN;
    put_length(&mut packet[..start], end)?;
    readdress(&mut packet[..start], src, dst);
    tcp.checksum = 0.into();
    tcp.checksum = checksum::transport(src, dst, TCP, tcp.as_bytes()).into();
    packet[start..end].copy_from_slice(tcp.as_bytes());
    Some(end)
}

/// Writes an IP packet's length into its header; an IPv4 header's checksum stays as it was.
fn put_length(header: &mut [u8], total_len: usize) -> Option<()> {
    let (at, len) = match header[0] >> 4 {
        4 => (2, total_len),
        _ => (4, total_len.checked_sub(V6_LEN)?),
    };
    let len = u16::try_from(len).ok()?;
    header[at..at + 2].copy_from_slice(&len.to_be_bytes());
    Some(())
}

/// A bare ACK with numbers that no connection is likely to have: whoever has a connection of these
/// ends answers with the right ones (RFC 9293 §3.10.7.4).
pub fn tcp_probe(from: SocketAddr, to: SocketAddr) -> Option<Made> {
    let mut probe = Tcp {
        src_port: from.port().into(),
        dst_port: to.port().into(),
        seq: 0.into(),
        ack: 0.into(),
        data_offset: 5 << 4,
        flags: ACK,
        window: 0.into(),
        checksum: 0.into(),
        urgent: 0.into(),
    };
    probe.checksum = checksum::transport(from.ip(), to.ip(), TCP, probe.as_bytes()).into();
    let head = Head {
        src: from.ip(),
        dst: to.ip(),
        tos: 0,
        ttl: TTL,
        protocol: TCP,
    };
    let mut made = Made::new();
    put(&mut made, &head.before(TCP_LEN)?)?;
    put(&mut made, probe.as_bytes())?;
    Some(made)
}

/// The reset from `src` to `dst` that answers `tcp` with `data_len` bytes of data.
fn reset_for(tcp: &Tcp, data_len: u32, src: IpAddr, dst: IpAddr) -> Tcp {
    let (seq, ack, flags) = if tcp.flags & ACK != 0 {
        (tcp.ack.get(), 0, RST)
    } else {
        let len = data_len + u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
        (0, tcp.seq.get().wrapping_add(len), RST | ACK)
    };
    let mut reset = Tcp {
        src_port: tcp.dst_port,
        dst_port: tcp.src_port,
        seq: seq.into(),
        ack: ack.into(),
        data_offset: 5 << 4,
        flags,
        window: 0.into(),
        checksum: 0.into(),
        urgent: 0.into(),
    };
    reset.checksum = checksum::transport(src, dst, TCP, reset.as_bytes()).into();
    reset
}

fn put(made: &mut Made, bytes: &[u8]) -> Option<()> {
    made.try_extend_from_slice(bytes).ok()
}

/// Turns a whole, valid echo request without IP options or extension headers into its reply, in
/// place; `false` leaves the packet as it was.
#[must_use]
pub fn echo_reply(packet: &mut [u8]) -> bool {
    let Some(original) = Original::parse(packet) else {
        return false;
    };
    let Ip { src, dst, .. } = original.ip;
    let (start, request, reply, ttl_at) = match original.ip.is_v6() {
        false => (V4_LEN, icmp::ECHO_REQUEST, icmp::ECHO_REPLY, 8),
        true => (V6_LEN, icmp::v6::ECHO_REQUEST, icmp::v6::ECHO_REPLY, 7),
    };
    let message = original.payload();
    let is_request = original.ip.protocol == protocol(original.ip.is_v6())
        && original.ip.payload == start
        && original.is_complete()
        && is_station(dst)
        && message.len() >= icmp::LEN
        && message[..2] == [request, 0]
        && checksum_of(src, dst, message) == 0;
    if !is_request {
        return false;
    }
    let end = original.whole.len();
    packet[ttl_at] = TTL;
    readdress(&mut packet[..start], dst, src);
    packet[start] = reply;
    seal(dst, src, &mut packet[start..end]);
    true
}

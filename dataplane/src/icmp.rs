//! Answers of our own: echo, unreachable, time exceeded, TCP reset. Bytes in, bytes out: IPv4
//! packets without their link layer, which may be padded at the end.

use std::net::Ipv4Addr;

use arrayvec::ArrayVec;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::net::is_station;
use crate::time::Instant;
use crate::wire::checksum;
use crate::wire::icmp::{self, Icmp};

/// The longest packet made here (RFC 1812 §4.3.2.3).
pub const MADE_PACKET_MAX: usize = 576;

/// A whole IPv4 packet, ready to be routed by its destination.
pub type Made = ArrayVec<u8, MADE_PACKET_MAX>;

/// Why a packet could not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    Net,
    Host,
    Port,
    /// It may not be fragmented and the next hop takes no IP packet longer than this.
    FragmentationNeeded(u16),
}

const HEADER_LEN: usize = size_of::<Header>();
const TCP_LEN: usize = size_of::<Tcp>();
const ICMP: u8 = 1;
const TCP: u8 = 6;
const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments, or an offset.
const IS_FRAGMENT: u16 = 0x3fff;
const OFFSET: u16 = 0x1fff;
/// Precedence "internetwork control", as RFC 1812 §4.3.2.5 asks of errors.
const TOS_ERROR: u8 = 0xc0;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// IPv4 without options.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy)]
#[repr(C)]
struct Header {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    fragment: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    src: [u8; 4],
    dst: [u8; 4],
}

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
    header: Header,
    /// Header and options.
    header_len: usize,
    /// From the header on, without link-layer padding; what arrived, if the packet was cut.
    whole: &'p [u8],
}

impl<'p> Original<'p> {
    /// `None` when the header is not valid or no answer may go to the source (RFC 1122 §3.2.2,
    /// RFC 1812 §4.3.2.7). That an address is a subnet's broadcast address is for the caller to see.
    fn parse(packet: &'p [u8]) -> Option<Self> {
        let (header, _) = Header::read_from_prefix(packet).ok()?;
        let header_len = usize::from(header.version_ihl & 0x0f) * 4;
        let total_len = usize::from(header.total_len.get());
        let is_valid = header.version_ihl >> 4 == 4
            && (HEADER_LEN..=total_len.min(packet.len())).contains(&header_len);
        if !is_valid || !is_station(header.src.into()) || !is_station(header.dst.into()) {
            return None;
        }
        Some(Self {
            header,
            header_len,
            whole: &packet[..total_len.min(packet.len())],
        })
    }

    fn payload(&self) -> &'p [u8] {
        &self.whole[self.header_len..]
    }

    fn is_complete(&self) -> bool {
        let total_len = usize::from(self.header.total_len.get());
        self.header.fragment.get() & IS_FRAGMENT == 0 && self.whole.len() == total_len
    }
}

/// The error that tells `packet`'s sender that it could not be delivered; `None` when the standards
/// forbid one.
pub fn unreachable(packet: &[u8], code: Unreachable, source: Ipv4Addr) -> Option<Made> {
    let (code, mtu) = match code {
        Unreachable::Net => (icmp::UNREACHABLE_NET, 0),
        Unreachable::Host => (icmp::UNREACHABLE_HOST, 0),
        Unreachable::Port => (icmp::UNREACHABLE_PORT, 0),
        Unreachable::FragmentationNeeded(mtu) => (icmp::FRAGMENTATION_NEEDED, mtu),
    };
    error(packet, icmp::UNREACHABLE, code, mtu, source)
}

/// The error that tells `packet`'s sender that its time to live ran out here; `None` when the
/// standards forbid one.
pub fn time_exceeded(packet: &[u8], source: Ipv4Addr) -> Option<Made> {
    error(packet, icmp::TIME_EXCEEDED, 0, 0, source)
}

fn error(packet: &[u8], kind: u8, code: u8, mtu: u16, source: Ipv4Addr) -> Option<Made> {
    let original = Original::parse(packet)?;
    let is_later_fragment = original.header.fragment.get() & OFFSET != 0;
    let may_be_error = original.header.protocol == ICMP
        && original
            .payload()
            .first()
            .is_none_or(|&kind| icmp::is_error(kind));
    if is_later_fragment || may_be_error || !is_station(source) {
        return None;
    }
    let quote_max = MADE_PACKET_MAX - HEADER_LEN - icmp::LEN;
    let quote = &original.whole[..original.whole.len().min(quote_max)];
    let mut message = Icmp {
        kind,
        code,
        checksum: 0.into(),
        id: 0.into(),
        seq_or_mtu: mtu.into(),
    };
    let mut made = Made::new();
    let tos = original.header.tos & 0x1e | TOS_ERROR;
    put(
        &mut made,
        new_header(
            tos,
            ICMP,
            icmp::LEN + quote.len(),
            source.octets(),
            original.header.src,
        )?
        .as_bytes(),
    )?;
    put(&mut made, message.as_bytes())?;
    put(&mut made, quote)?;
    message.checksum = checksum::icmp(&made[HEADER_LEN..]).into();
    made[HEADER_LEN..HEADER_LEN + icmp::LEN].copy_from_slice(message.as_bytes());
    Some(made)
}

/// The reset that answers a segment for which there is no connection (RFC 9293 §3.10.7.1), from
/// the address it was sent to; `None` for a reset, a fragment and a segment that is not whole or
/// has a wrong checksum.
pub fn tcp_reset(packet: &[u8]) -> Option<Made> {
    let original = Original::parse(packet)?;
    let Header {
        protocol, src, dst, ..
    } = original.header;
    if protocol != TCP || !original.is_complete() {
        return None;
    }
    let segment = original.payload();
    let (tcp, _) = Tcp::read_from_prefix(segment).ok()?;
    let data = segment.get(usize::from(tcp.data_offset >> 4) * 4..)?;
    let is_valid = usize::from(tcp.data_offset >> 4) * 4 >= TCP_LEN
        && checksum::transport_v4(src.into(), dst.into(), TCP, segment) == 0;
    if !is_valid || tcp.flags & RST != 0 {
        return None;
    }
    let reset = reset_for(&tcp, u32::try_from(data.len()).ok()?, dst, src);
    let mut made = Made::new();
    put(&mut made, new_header(0, TCP, TCP_LEN, dst, src)?.as_bytes())?;
    put(&mut made, reset.as_bytes())?;
    Some(made)
}

/// The reset from `src` to `dst` that answers `tcp` with `data_len` bytes of data.
fn reset_for(tcp: &Tcp, data_len: u32, src: [u8; 4], dst: [u8; 4]) -> Tcp {
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
    reset.checksum = checksum::transport_v4(src.into(), dst.into(), TCP, reset.as_bytes()).into();
    reset
}

/// A header for `len` bytes of payload. Never fragmented, so its id means nothing (RFC 6864).
fn new_header(tos: u8, protocol: u8, len: usize, src: [u8; 4], dst: [u8; 4]) -> Option<Header> {
    let mut header = Header {
        version_ihl: 0x45,
        tos,
        total_len: u16::try_from(HEADER_LEN + len).ok()?.into(),
        id: 0.into(),
        fragment: DONT_FRAGMENT.into(),
        ttl: TTL,
        protocol,
        checksum: 0.into(),
        src,
        dst,
    };
    header.checksum = checksum::ipv4_header(header.as_bytes()).into();
    Some(header)
}

fn put(made: &mut Made, bytes: &[u8]) -> Option<()> {
    made.try_extend_from_slice(bytes).ok()
}

/// Turns a whole, valid echo request without IP options into its reply, in place; `false` leaves
/// the packet as it was.
#[must_use]
pub fn echo_reply(packet: &mut [u8]) -> bool {
    let Some(original) = Original::parse(packet) else {
        return false;
    };
    let message = original.payload();
    let is_request = original.header.protocol == ICMP
        && original.header_len == HEADER_LEN
        && original.is_complete()
        && message.len() >= icmp::LEN
        && message[..2] == [icmp::ECHO_REQUEST, 0]
        && checksum::icmp(message) == 0;
    if !is_request {
        return false;
    }
    let (mut header, total_len) = (original.header, original.whole.len());
    (header.src, header.dst) = (header.dst, header.src);
    header.ttl = TTL;
    header.checksum = 0.into();
    header.checksum = checksum::ipv4_header(header.as_bytes()).into();
    packet[..HEADER_LEN].copy_from_slice(header.as_bytes());
    let message = &mut packet[HEADER_LEN..total_len];
    message[..4].copy_from_slice(&[icmp::ECHO_REPLY, 0, 0, 0]);
    let sum = checksum::icmp(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}

/// A token bucket over all answers of one worker.
#[derive(Debug, Clone)]
pub struct RateLimit {
    per_second: u32,
    burst: u32,
    /// Thousandths of an answer.
    credit: u64,
    at: Instant,
}

impl Default for RateLimit {
    /// As Linux does: `icmp_msgs_per_sec` 1000, `icmp_msgs_burst` 50.
    fn default() -> Self {
        Self::new(1000, 50)
    }
}

impl RateLimit {
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second,
            burst,
            credit: u64::from(burst) * 1000,
            at: Instant::default(),
        }
    }

    /// Whether one more answer may be sent now; if so, it is taken as sent.
    pub fn allow(&mut self, now: Instant) -> bool {
        let earned = u64::from(now.since(self.at)) * u64::from(self.per_second);
        self.credit = self
            .credit
            .saturating_add(earned)
            .min(u64::from(self.burst) * 1000);
        self.at = now;
        let allowed = self.credit >= 1000;
        if allowed {
            self.credit -= 1000;
        }
        allowed
    }
}

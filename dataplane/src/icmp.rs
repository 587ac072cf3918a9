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
    if is_later_fragment || may_be_error || !is_station(source.into()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 9];
    const VIP: [u8; 4] = [10, 0, 0, 100];
    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const UDP: u8 = 17;

    /// From client to VIP, with a right header checksum.
    fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let len = u16::try_from(20 + payload.len()).unwrap();
        let mut packet = vec![0x45, 0x03, 0, 0, 0x12, 0x34, 0, 0, 7, protocol, 0, 0];
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet.extend([CLIENT, VIP].concat());
        packet.extend(payload);
        seal(packet)
    }

    fn seal(mut packet: Vec<u8>) -> Vec<u8> {
        packet[10..12].fill(0);
        let sum = checksum::ipv4_header(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn tcp(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut segment = vec![0x9c, 0x40, 0, 80];
        segment.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
        segment.extend([6 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]); // with an MSS
        segment.extend(data);
        let sum = checksum::transport_v4(CLIENT.into(), VIP.into(), TCP, &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        ip(TCP, &segment)
    }

    fn ping(payload: &[u8]) -> Vec<u8> {
        let mut message = vec![8, 0, 0, 0, 0xab, 0xcd, 0, 1];
        message.extend(payload);
        let sum = checksum::icmp(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        ip(ICMP, &message)
    }

    fn assert_valid(made: &[u8]) {
        assert_eq!(checksum::ipv4_header(&made[..20]), 0);
        assert_eq!(
            usize::from(u16::from_be_bytes([made[2], made[3]])),
            made.len()
        );
        match made[9] {
            ICMP => assert_eq!(checksum::icmp(&made[20..]), 0),
            _ => assert_eq!(
                checksum::transport_v4(VIP.into(), CLIENT.into(), TCP, &made[20..]),
                0
            ),
        }
    }

    #[test]
    fn unreachable_quotes_the_packet() {
        let packet = ip(UDP, &[0x9c, 0x40, 0, 53, 0, 10, 0, 0, 1, 2]);
        let padded = [&packet[..], &[0; 16]].concat(); // the link layer's padding is not quoted
        let made = unreachable(&padded, Unreachable::Port, SOURCE).unwrap();
        assert_valid(&made);
        assert_eq!(
            made[..2],
            [0x45, 0xc2],
            "ECN is not echoed, precedence is 6"
        );
        assert_eq!(made[4..10], [0, 0, 0x40, 0, 64, ICMP]);
        assert_eq!(made[12..20], [10, 0, 0, 1, 10, 0, 0, 9]);
        assert_eq!(made[20..22], [3, 3]);
        assert_eq!(made[24..28], [0; 4]);
        assert_eq!(made[28..], packet);
    }

    #[test]
    fn types_and_codes() {
        let packet = ip(UDP, &[0; 8]);
        let head = |made: Option<Made>| {
            let made = made.unwrap();
            assert_valid(&made);
            [made[20], made[21], made[24], made[25], made[26], made[27]]
        };
        assert_eq!(
            head(unreachable(&packet, Unreachable::Net, SOURCE)),
            [3, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            head(unreachable(&packet, Unreachable::Host, SOURCE)),
            [3, 1, 0, 0, 0, 0]
        );
        let needed = Unreachable::FragmentationNeeded(1480);
        assert_eq!(
            head(unreachable(&packet, needed, SOURCE)),
            [3, 4, 0, 0, 0x05, 0xc8]
        );
        assert_eq!(head(time_exceeded(&packet, SOURCE)), [11, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_quote_is_bounded() {
        let packet = ip(UDP, &[0x5a; 1400]);
        let made = time_exceeded(&packet, SOURCE).unwrap();
        assert_eq!(made.len(), 576);
        assert_eq!(made[28..], packet[..548]);
        assert_valid(&made);
    }

    #[test]
    fn no_error_where_none_may_be() {
        let refused = |packet: &[u8]| time_exceeded(packet, SOURCE).is_none();
        for kind in [3, 4, 5, 11, 12] {
            assert!(
                refused(&ip(ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0])),
                "ICMP type {kind}"
            );
        }
        assert!(refused(&ip(ICMP, &[])), "an ICMP message of unknown type");
        assert!(!refused(&ping(b"x")));
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = ip(UDP, &[0; 8]);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            seal(packet)
        };
        assert!(refused(&with(6, &[0x00, 0x01])), "a later fragment");
        assert!(!refused(&with(6, &[0x20, 0x00])), "the first fragment");
        for address in [
            [0; 4],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [240, 0, 0, 1],
            [255; 4],
        ] {
            assert!(refused(&with(12, &address)), "from {address:?}");
            assert!(refused(&with(16, &address)), "to {address:?}");
        }
        assert!(
            refused(&with(0, &[0x65])) && refused(&with(0, &[0x44])),
            "version, header length"
        );
        assert!(refused(&with(0, &[0x4f])), "options past the end");
        assert!(refused(&with(2, &[0, 19])), "total length");
        assert!(time_exceeded(&ip(UDP, &[0; 8]), Ipv4Addr::UNSPECIFIED).is_none());
    }

    fn reset_fields(packet: &[u8]) -> (u32, u32, u8) {
        let made = tcp_reset(packet).unwrap();
        assert_valid(&made);
        assert_eq!(made.len(), 40);
        assert_eq!(made[12..20], [VIP, CLIENT].concat());
        assert_eq!(made[20..24], [0, 80, 0x9c, 0x40]);
        assert_eq!(
            (made[32], &made[34..36], &made[38..40]),
            (0x50, &[0, 0][..], &[0, 0][..])
        );
        let word = |at| u32::from_be_bytes(made[at..at + 4].try_into().unwrap());
        (word(24), word(28), made[33])
    }

    #[test]
    fn resets() {
        let cases = [
            ("SYN", tcp(1000, 0, SYN, b""), (0, 1001, RST | ACK)),
            (
                "SYN with data",
                tcp(1000, 77, SYN, b"abc"),
                (0, 1004, RST | ACK),
            ),
            (
                "FIN without ACK, odd data, wrap",
                tcp(u32::MAX, 0, FIN, b"a"),
                (0, 1, RST | ACK),
            ),
            ("no flag", tcp(5, 9, 0, b""), (0, 5, RST | ACK)),
            ("ACK", tcp(1000, 2000, ACK, b"abc"), (2000, 0, RST)),
            ("SYN-ACK", tcp(1000, 2000, SYN | ACK, b""), (2000, 0, RST)),
            ("FIN-ACK", tcp(1000, 0, FIN | ACK, b""), (0, 0, RST)),
        ];
        for (what, packet, expected) in cases {
            assert_eq!(reset_fields(&packet), expected, "{what}");
            let padded = [&packet[..], &[0; 6]].concat();
            assert_eq!(reset_fields(&padded), expected, "{what}, padded");
        }
    }

    #[test]
    fn no_reset_where_none_may_be() {
        assert!(tcp_reset(&tcp(1, 2, RST, b"")).is_none());
        assert!(tcp_reset(&tcp(1, 2, RST | ACK, b"")).is_none());
        let good = tcp(1, 2, ACK, b"abc");
        assert!(tcp_reset(&good[..good.len() - 1]).is_none(), "cut");
        let with = |at: usize, byte: u8| {
            let mut packet = good.clone();
            packet[at] = byte;
            seal(packet)
        };
        assert!(tcp_reset(&with(6, 0x20)).is_none(), "a first fragment");
        assert!(tcp_reset(&with(9, UDP)).is_none());
        assert!(tcp_reset(&with(30, 0xff)).is_none(), "a wrong checksum");
        for data_offset in [4, 15] {
            let mut packet = tcp(1, 2, ACK, b"abc");
            packet[32] = data_offset << 4;
            packet[36..38].fill(0);
            let sum = checksum::transport_v4(CLIENT.into(), VIP.into(), TCP, &packet[20..]);
            packet[36..38].copy_from_slice(&sum.to_be_bytes());
            assert!(tcp_reset(&packet).is_none(), "data offset {data_offset}");
        }
    }

    #[test]
    fn echo() {
        let mut packet = ping(b"hello");
        let asked = packet.clone();
        packet.extend([0; 13]); // padding
        assert!(echo_reply(&mut packet));
        let (reply, padding) = packet.split_at(asked.len());
        assert_valid(reply);
        assert_eq!(padding, [0; 13]);
        assert_eq!(reply[12..20], [VIP, CLIENT].concat());
        assert_eq!((reply[8], &reply[20..22]), (64, &[0, 0][..]));
        assert_eq!((&reply[24..], &reply[..8]), (&asked[24..], &asked[..8]));
        assert!(!echo_reply(&mut packet), "a reply is no request");
    }

    #[test]
    fn no_echo_of_what_is_not_a_request() {
        let refused = |mut packet: Vec<u8>| {
            let before = packet.clone();
            !echo_reply(&mut packet) && packet == before
        };
        let with = |at: usize, byte: u8| {
            let mut packet = ping(b"hello");
            packet[at] = byte;
            seal(packet)
        };
        assert!(refused(with(9, UDP)) && refused(with(21, 1)) && refused(with(28, b'j')));
        assert!(refused(with(6, 0x20)) && refused(with(7, 1)), "fragments");
        assert!(
            refused(with(12, 127)) && refused(with(16, 224)),
            "addresses"
        );
        assert!(refused(with(0, 0x46)), "options");
        assert!(refused(ping(b"hello")[..30].to_vec()) && refused(vec![]));
        assert!(refused(ip(ICMP, &[8, 0, 0xf7, 0xff])), "half a header");
    }

    #[test]
    fn the_bucket_empties_and_refills() {
        let mut limit = RateLimit::default();
        let at = |limit: &mut RateLimit, ms| (0..200).filter(|_| limit.allow(Instant(ms))).count();
        assert_eq!(at(&mut limit, 1_000_000), 50);
        assert_eq!(at(&mut limit, 1_000_001), 1);
        assert_eq!(at(&mut limit, 1_000_011), 10);
        assert_eq!(at(&mut limit, 9_000_000), 50);
        let mut slow = RateLimit::new(3, 1);
        let sent = (0..10_000).filter(|&ms| slow.allow(Instant(ms))).count();
        assert_eq!(sent, 30);
        let mut none = RateLimit::new(0, 0);
        assert_eq!(at(&mut none, u32::MAX), 0);
    }

    proptest! {
        #[test]
        fn never_panics(mut packet in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = unreachable(&packet, Unreachable::Port, SOURCE);
            let _ = tcp_reset(&packet);
            let _ = echo_reply(&mut packet);
        }

        #[test]
        fn never_panics_on_damage(at in 0usize..60, byte: u8, len in 0usize..60, which in 0..3) {
            let mut packet = match which {
                0 => ping(&[7; 32]),
                1 => tcp(1, 2, ACK, &[7; 16]),
                _ => ip(UDP, &[7; 40]),
            };
            packet[at] = byte;
            packet.truncate(len);
            let _ = time_exceeded(&packet, SOURCE).map(|made| assert_valid(&made));
            let _ = tcp_reset(&packet);
            let _ = echo_reply(&mut packet);
        }
    }
}

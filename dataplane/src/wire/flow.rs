//! What the fast path needs of a packet, taken from its bytes once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::counters::DropReason;
use crate::wire::ip::extension;
use crate::wire::{ethernet, sctp};

pub const ETHERNET: usize = 14;
const TAG: usize = 4;

pub const IPV4_HEADER: usize = 20;
pub const IPV6_HEADER: usize = 40;
/// More extension headers than any honest packet has.
const EXTENSIONS_MAX: usize = 8;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub mod tcp_flags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;
}

/// A 5-tuple as one side sends it, as the connection table compares it. Addresses and ports are
/// kept as they lie on the wire: the source in the first bytes, the destination in the last. An IPv6
/// address is there by its digest, see [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flow {
    pub addresses: u64,
    pub ports: u32,
    pub protocol: u8,
    pub v6: bool,
}

impl Flow {
    /// As the other side sends it.
    #[inline]
    pub const fn reversed(&self) -> Self {
        Self {
            addresses: self.addresses.rotate_left(32),
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
            v6: self.v6,
        }
    }
}

/// Both over IPv4.
impl Flow {
    /// What this server sends to whom this came from.
    #[inline]
    pub fn answered_by(&self, server: SocketAddr) -> Self {
        let reversed = self.reversed();
        let IpAddr::V4(address) = server.ip() else {
            return reversed;
        };
        let [.., e, f, g, h] = reversed.addresses.to_ne_bytes();
        let ([a, b, c, d], [i, j]) = (address.octets(), server.port().to_be_bytes());
        let [.., k, l] = reversed.ports.to_ne_bytes();
        Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: u32::from_ne_bytes([i, j, k, l]),
            ..reversed
        }
    }
}

/// Source and destination address of an IPv6 packet, as they lie on the wire.
pub type Addresses6 = [u8; 32];

/// Folds an IPv6 address into 32 bits under a secret, so that nobody can make two addresses fall
/// together on purpose. What looks equal by digest is then compared in full.
#[derive(Debug, Clone, Copy)]
pub struct Digest {
    key: [u64; 2],
    /// Of the second digest, see [`Self::both`].
    other_key: [u64; 2],
}

impl Digest {
    pub const fn new(secret: [u64; 2]) -> Self {
        let [a, b] = secret;
        Self {
            key: [a | 1, b | 1],
            other_key: [scrambled(a, b) | 1, scrambled(b, !a) | 1],
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "halves of a word")]
    #[inline(always)]
    fn of(key: [u64; 2], address: &[u8; 16]) -> u32 {
        let whole = u128::from_ne_bytes(*address);
        let product = u128::from(whole as u64 ^ key[0]) * u128::from((whole >> 64) as u64 ^ key[1]);
        let folded = product as u64 ^ (product >> 64) as u64;
        folded as u32 ^ (folded >> 32) as u32
    }

    /// What [`Flow::addresses`] is for these.
    #[inline(always)]
    pub fn pair(self, addresses: &Addresses6) -> u64 {
        let (from, to) = halves(addresses);
        let [from, to] = [from, to].map(|address| Self::of(self.key, address).to_ne_bytes());
        u64::from_ne_bytes([
            from[0], from[1], from[2], from[3], to[0], to[1], to[2], to[3],
        ])
    }

    /// A digest of both, under a key of its own: the same whichever of them is the source.
    #[inline(always)]
    pub fn both(self, addresses: &Addresses6) -> u32 {
        let (from, to) = halves(addresses);
        Self::of(self.other_key, from).wrapping_add(Self::of(self.other_key, to))
    }
}

/// Two words made one that tells nothing of either (the finaliser of `SplitMix64`).
const fn scrambled(a: u64, b: u64) -> u64 {
    let x = a ^ b.rotate_left(29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Source and destination.
#[inline(always)]
pub fn halves(addresses: &Addresses6) -> (&[u8; 16], &[u8; 16]) {
    match addresses.as_chunks() {
        ([from, to], []) => (from, to),
        _ => unreachable!("32 is twice 16"),
    }
}

/// As the other side sends them.
#[inline(always)]
pub fn swapped(addresses: &Addresses6) -> Addresses6 {
    let (from, to) = halves(addresses);
    let mut both = [0; 32];
    both[..16].copy_from_slice(to);
    both[16..].copy_from_slice(from);
    both
}

/// A 5-tuple of either family as one side sends it, for all that is not the fast path. Both
/// addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub protocol: u8,
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Tuple {
    /// As the other side sends it.
    pub const fn reversed(&self) -> Self {
        Self {
            protocol: self.protocol,
            from: self.to,
            to: self.from,
        }
    }

    /// Both addresses where they are IPv6.
    pub fn addresses6(&self) -> Option<Addresses6> {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (self.from.ip(), self.to.ip()) else {
            return None;
        };
        let mut both = [0; 32];
        both[..16].copy_from_slice(&from.octets());
        both[16..].copy_from_slice(&to.octets());
        Some(both)
    }

    pub fn flow(&self, digest: Digest) -> Flow {
        let ([i, j], [k, l]) = (self.from.port().to_be_bytes(), self.to.port().to_be_bytes());
        let addresses = match (self.addresses6(), self.from.ip(), self.to.ip()) {
            (Some(both), ..) => digest.pair(&both),
            (None, IpAddr::V4(from), IpAddr::V4(to)) => {
                let ([a, b, c, d], [e, f, g, h]) = (from.octets(), to.octets());
                u64::from_ne_bytes([a, b, c, d, e, f, g, h])
            }
            _ => unreachable!("one packet has one family"),
        };
        Flow {
            addresses,
            ports: u32::from_ne_bytes([i, j, k, l]),
            protocol: self.protocol,
            v6: self.from.is_ipv6(),
        }
    }

    /// The tuple of an IPv4 flow.
    pub fn of_v4(flow: &Flow) -> Self {
        let [a, b, c, d, e, f, g, h] = flow.addresses.to_ne_bytes();
        let (from, to) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
        Self::with_ports(flow, from.into(), to.into())
    }

    /// The tuple of an IPv6 flow with these addresses.
    pub fn of_v6(flow: &Flow, addresses: &Addresses6) -> Self {
        let (from, to) = halves(addresses);
        Self::with_ports(
            flow,
            Ipv6Addr::from(*from).into(),
            Ipv6Addr::from(*to).into(),
        )
    }

    fn with_ports(flow: &Flow, from: IpAddr, to: IpAddr) -> Self {
        let [i, j, k, l] = flow.ports.to_ne_bytes();
        Self {
            protocol: flow.protocol,
            from: SocketAddr::new(from, u16::from_be_bytes([i, j])),
            to: SocketAddr::new(to, u16::from_be_bytes([k, l])),
        }
    }
}

/// What kind of packet it is; decides which stage takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP, UDP or SCTP packet: `flow` and `l4` are valid.
    Transport,
    /// The first fragment of one: the same is valid.
    FirstFragment,
    /// Another fragment, or one of another protocol: only its addresses and protocol are known.
    Fragment,
    /// Another protocol, ICMP among them: addresses and protocol are known, `l4` is where it begins.
    OtherIp,
    Arp,
}

/// The beginning of a frame as nearly all are: no VLAN tag, an IP header of `IP` bytes, IPv4 without
/// options or IPv6 without extension headers, and room for TCP's behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
pub struct Plain<const IP: usize> {
    pub link: [u8; ETHERNET],
    pub ip: [u8; IP],
    /// Ports and what follows.
    pub segment: [u8; 20],
}

/// A parsed packet. Offsets are from the start of the frame and lie within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of an IPv6 packet without its addresses until the connection table's digest adds them.
    pub flow: Flow,
    pub kind: Kind,
    /// The frame is a [`Plain`] one, and was found to be by [`Seen::plain`].
    pub is_plain: bool,
    /// Where the IP or ARP header begins.
    pub l3: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// 0 for all but TCP.
    pub tcp_flags: u8,
    /// Type of SCTP's first chunk and of the one behind it.
    pub chunk: u8,
    pub next_chunk: Option<u8>,
    /// Where the TCP, UDP or SCTP header begins.
    pub l4: u16,
    /// Length of the IP packet as its header says; the frame holds at least that much.
    pub ip_len: u16,
    /// 0: none.
    vlan: u16,
}

impl Seen {
    pub fn vlan(&self) -> Option<u16> {
        (self.vlan != 0).then_some(self.vlan)
    }

    /// Whether it is the first packet of a connection whose first one shows: a SYN, with ACK or without,
    /// or an INIT.
    #[inline(always)]
    pub fn begins(&self) -> bool {
        (self.tcp_flags & tcp_flags::SYN != 0) | (self.chunk == sctp::chunk::INIT)
    }

    /// As [`Self::parse`] in as few steps as there can be, of a frame that is [`Plain`] with an IP header
    /// of so many bytes, and holds a whole TCP or UDP packet; `None` for all else.
    #[inline(always)]
    pub fn plain<const IP: usize>(frame: &[u8]) -> Option<Self> {
        let (plain, _) = Plain::<IP>::ref_from_prefix(frame).ok()?;
        let Plain { ip, segment, .. } = plain;
        let is_plain = match IP == IPV6_HEADER {
            // Neither the more-fragments flag nor an offset.
            false => {
                ethernet::carries(frame, ethernet::IPV4)
                    && ip[0] == 0x45
                    && u16::from_be_bytes([ip[6], ip[7]]) << 2 == 0
            }
            true => ethernet::carries(frame, ethernet::IPV6) && ip[0] >> 4 == 6,
        };
        if !is_plain {
            return None;
        }
        let seen = Self::of_plain(plain);
        let ip_len = usize::from(seen.ip_len);
        if ETHERNET + ip_len > frame.len() {
            return None;
        }
        let protocol = seen.flow.protocol;
        let is_whole = if protocol == TCP {
            segment[12] >= 0x50 && IP + usize::from(segment[12] >> 4) * 4 <= ip_len
        } else {
            let len = u16::from_be_bytes([segment[4], segment[5]]);
            protocol == UDP && len >= 8 && IP + usize::from(len) <= ip_len
        };
        is_whole.then_some(seen)
    }

    /// What [`Self::plain`] says of a frame of which it says something.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "14, 34 and 54")]
    pub fn of_plain<const IP: usize>(Plain { ip, segment, .. }: &Plain<IP>) -> Self {
        let half = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let v6 = IP == IPV6_HEADER;
        let (ip_len, protocol, ttl) = match v6 {
            false => (half(2), ip[9], ip[8]),
            // What is too long for a length is no whole packet.
            true => (half(4).wrapping_add(IP as u16), ip[6], ip[7]),
        };
        let addresses = match ip.last_chunk() {
            Some(addresses) if !v6 => u64::from_ne_bytes(*addresses),
            _ => 0,
        };
        let [i, j, k, l, ..] = *segment;
        Self {
            flow: Flow {
                addresses,
                ports: u32::from_ne_bytes([i, j, k, l]),
                protocol,
                v6,
            },
            kind: Kind::Transport,
            is_plain: true,
            l3: ETHERNET as u8,
            l4: (ETHERNET + IP) as u16,
            ttl,
            tcp_flags: if protocol == TCP { segment[13] } else { 0 },
            chunk: 0,
            next_chunk: None,
            ip_len,
            vlan: 0,
        }
    }

    /// Lengths that the packet claims are checked against those it has, here and only here.
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        use DropReason::{Truncated, UnknownEthertype};
        let at = |i: usize| Some(u16::from_be_bytes(*frame.get(i..i + 2)?.first_chunk()?));
        let (ethertype, l3, vlan) = match at(12).ok_or(Truncated)? {
            ethernet::VLAN => {
                // VLAN 0 is a priority tag on an untagged frame (802.1Q §9.6).
                let vlan = at(ETHERNET).ok_or(Truncated)? & 0xfff;
                (at(ETHERNET + 2).ok_or(Truncated)?, ETHERNET + TAG, vlan)
            }
            ethertype => (ethertype, ETHERNET, 0),
        };
        match ethertype {
            ethernet::IPV4 => Self::parse_ipv4(frame, l3, vlan),
            ethernet::IPV6 => Self::parse_ipv6(frame, l3, vlan),
            ethernet::ARP => Ok(Self::bare(Kind::Arp, l3, vlan)),
            _ => Err(UnknownEthertype),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "l3 is 14 or 18")]
    fn bare(kind: Kind, l3: usize, vlan: u16) -> Self {
        Self {
            flow: Flow::default(),
            kind,
            is_plain: false,
            l3: l3 as u8,
            l4: 0,
            ttl: 0,
            tcp_flags: 0,
            chunk: 0,
            next_chunk: None,
            ip_len: 0,
            vlan,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "headers end before byte 18 + 60"
    )]
    fn parse_ipv4(frame: &[u8], l3: usize, vlan: u16) -> Result<Self, DropReason> {
        use DropReason::{BadHeader, Truncated};
        let packet = &frame[l3..];
        let header: &[u8; IPV4_HEADER] = packet.first_chunk().ok_or(Truncated)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let ip_len = u16::from_be_bytes([header[2], header[3]]);
        if header[0] >> 4 != 4 || header_len < IPV4_HEADER || usize::from(ip_len) < header_len {
            return Err(BadHeader);
        }
        let packet = packet.get(..usize::from(ip_len)).ok_or(Truncated)?;
        let [.., a, b, c, d, e, f, g, h] = *header;
        let mut seen = Self {
            flow: Flow {
                addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                ports: 0,
                protocol: header[9],
                v6: false,
            },
            kind: Kind::OtherIp,
            is_plain: false,
            l3: l3 as u8,
            l4: (l3 + header_len) as u16,
            ttl: header[8],
            tcp_flags: 0,
            chunk: 0,
            next_chunk: None,
            ip_len,
            vlan,
        };
        // More-fragments flag and fragment offset.
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        let segment = packet.get(header_len..).ok_or(Truncated)?;
        if fragment == 0 {
            seen.parse_transport(segment)?;
        } else {
            seen.parse_fragment(fragment & 0x1fff == 0, segment)?;
        }
        Ok(seen)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "within a packet that is shorter than 65 536 bytes"
    )]
    fn parse_ipv6(frame: &[u8], l3: usize, vlan: u16) -> Result<Self, DropReason> {
        use DropReason::{BadHeader, Truncated};
        let packet = &frame[l3..];
        let header: &[u8; IPV6_HEADER] = packet.first_chunk().ok_or(Truncated)?;
        let ip_len = IPV6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 {
            return Err(BadHeader);
        }
        let packet = packet.get(..ip_len).ok_or(Truncated)?;
        let mut seen = Self {
            flow: Flow {
                protocol: header[6],
                v6: true,
                ..Flow::default()
            },
            ttl: header[7],
            l4: (l3 + IPV6_HEADER) as u16,
            ip_len: u16::try_from(ip_len).map_err(|_| BadHeader)?,
            ..Self::bare(Kind::OtherIp, l3, vlan)
        };
        match header[6] {
            TCP | UDP => seen.parse_transport(&packet[IPV6_HEADER..])?,
            _ => seen.parse_extensions(packet)?,
        }
        Ok(seen)
    }

    /// Walks over extension headers to what the packet carries.
    #[cold]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within a packet that is shorter than 65 536 bytes"
    )]
    fn parse_extensions(&mut self, packet: &[u8]) -> Result<(), DropReason> {
        use DropReason::{BadHeader, Truncated};
        let mut at = IPV6_HEADER;
        let mut first_fragment = None;
        for _ in 0..EXTENSIONS_MAX {
            let len = match self.flow.protocol {
                extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => {
                    8 + 8 * usize::from(*packet.get(at + 1).ok_or(Truncated)?)
                }
                extension::FRAGMENT => 8,
                _ => break,
            };
            let header = packet.get(at..at + len).ok_or(Truncated)?;
            if self.flow.protocol == extension::FRAGMENT {
                let fragment = u16::from_be_bytes([header[2], header[3]]) & 0xfff9;
                // One that is no fragment at all goes its way as a whole packet (RFC 6946).
                if fragment != 0 {
                    if first_fragment.is_some() {
                        return Err(BadHeader);
                    }
                    first_fragment = Some(fragment & 0xfff8 == 0);
                }
            }
            self.flow.protocol = header[0];
            at += len;
            if first_fragment == Some(false) {
                break;
            }
        }
        self.l4 = (usize::from(self.l3) + at) as u16;
        let segment = packet.get(at..).ok_or(Truncated)?;
        match first_fragment {
            None => self.parse_transport(segment),
            Some(first) => self.parse_fragment(first, segment),
        }
    }

    fn parse_transport(&mut self, segment: &[u8]) -> Result<(), DropReason> {
        use DropReason::{BadHeader, Truncated};
        match self.flow.protocol {
            TCP => {
                let header: &[u8; 20] = segment.first_chunk().ok_or(Truncated)?;
                let header_len = usize::from(header[12] >> 4) * 4;
                if header_len < 20 || header_len > segment.len() {
                    return Err(BadHeader);
                }
                self.tcp_flags = header[13];
            }
            UDP => {
                let header: &[u8; 8] = segment.first_chunk().ok_or(Truncated)?;
                let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
                if len < 8 || len > segment.len() {
                    return Err(BadHeader);
                }
            }
            SCTP => {
                (self.chunk, self.next_chunk) = sctp::first_chunks(segment).ok_or(Truncated)?;
            }
            _ => return Ok(()),
        }
        self.kind = Kind::Transport;
        self.flow.ports = u32::from_ne_bytes([segment[0], segment[1], segment[2], segment[3]]);
        Ok(())
    }

    /// Of a first fragment the transport header must be whole (RFC 1858, RFC 7112).
    #[cold]
    fn parse_fragment(&mut self, first: bool, segment: &[u8]) -> Result<(), DropReason> {
        self.kind = Kind::Fragment;
        let needed = match self.flow.protocol {
            TCP => 20,
            UDP => 8,
            SCTP => 16,
            _ => return Ok(()),
        };
        if !first {
            return Ok(());
        }
        let header = segment.get(..needed).ok_or(DropReason::FragmentTiny)?;
        self.kind = Kind::FirstFragment;
        self.flow.ports = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        match self.flow.protocol {
            TCP => self.tcp_flags = header[13],
            SCTP => self.chunk = header[12],
            _ => {}
        }
        Ok(())
    }

    /// Both addresses of an IPv6 packet.
    #[inline(always)]
    pub fn addresses6<'f>(&self, frame: &'f [u8]) -> &'f Addresses6 {
        frame[usize::from(self.l3)..]
            .get(8..IPV6_HEADER)
            .and_then(|both| both.first_chunk())
            .unwrap_or_else(|| unreachable!("parsed"))
    }

    /// Addresses, ports and protocol.
    pub fn tuple(&self, frame: &[u8]) -> Tuple {
        if self.flow.v6 {
            Tuple::of_v6(&self.flow, self.addresses6(frame))
        } else {
            Tuple::of_v4(&self.flow)
        }
    }

    /// The IP packet within its frame, without padding.
    pub fn packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let l3 = usize::from(self.l3);
        &frame[l3..l3 + usize::from(self.ip_len)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn udp_frame() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 32, 0, 1, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([
            192, 0, 2, 1, 10, 0, 0, 1, 0x9c, 0x40, 0, 53, 0, 12, 0, 0, 1, 2, 3, 4,
        ]);
        frame
    }

    #[test]
    fn a_whole_udp_packet() {
        let seen = Seen::parse(&udp_frame()).unwrap();
        assert_eq!(
            seen.tuple(&udp_frame()),
            Tuple {
                protocol: UDP,
                from: "192.0.2.1:40000".parse().unwrap(),
                to: "10.0.0.1:53".parse().unwrap()
            }
        );
        assert_eq!(
            seen.tuple(&udp_frame()).flow(Digest::new([1, 2])),
            seen.flow
        );
        assert_eq!(seen.flow.reversed().reversed(), seen.flow);
        assert_eq!(
            (seen.l3, seen.l4, seen.ttl, seen.ip_len, seen.kind),
            (14, 34, 64, 32, Kind::Transport)
        );
    }

    #[test]
    fn the_short_way_is_taken() {
        let mut frame = udp_frame();
        assert_eq!(plain(&frame), None, "not even as long as TCP's headers");
        frame.extend([0; 14]);
        assert!(plain(&frame).is_some());
        frame.splice(12..12, [0x81, 0x00, 0x20, 0x64]);
        assert_eq!(plain(&frame), None);
    }

    fn plain(frame: &[u8]) -> Option<Seen> {
        Seen::plain::<IPV4_HEADER>(frame).or_else(|| Seen::plain::<IPV6_HEADER>(frame))
    }

    #[test]
    fn claims_are_checked() {
        let change = |i: usize, to: u8| {
            let mut frame = udp_frame();
            frame[i] = to;
            Seen::parse(&frame).map(|s| s.kind)
        };
        assert_eq!(change(12, 0x86), Err(DropReason::UnknownEthertype));
        assert_eq!(change(14, 0x65), Err(DropReason::BadHeader));
        assert_eq!(change(14, 0x44), Err(DropReason::BadHeader));
        assert_eq!(change(14, 0x4f), Err(DropReason::BadHeader));
        assert_eq!(change(17, 33), Err(DropReason::Truncated));
        assert_eq!(change(17, 19), Err(DropReason::BadHeader));
        assert_eq!(change(39, 13), Err(DropReason::BadHeader));
        assert_eq!(change(39, 7), Err(DropReason::BadHeader));
        assert_eq!(change(20, 0x60), Ok(Kind::FirstFragment));
        assert_eq!(change(21, 1), Ok(Kind::Fragment));
        assert_eq!(change(23, 6), Err(DropReason::Truncated));
        assert_eq!(change(23, 1), Ok(Kind::OtherIp));
        for len in 0..udp_frame().len() {
            assert_eq!(
                Seen::parse(&udp_frame()[..len]).err(),
                Some(DropReason::Truncated),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn padding_is_not_part_of_the_packet_and_tags_are_peeled() {
        let mut frame = udp_frame();
        frame.extend([0; 20]);
        assert_eq!(Seen::parse(&frame).unwrap().ip_len, 32);
        frame.splice(12..12, [0x81, 0x00, 0x20, 0x64]);
        let seen = Seen::parse(&frame).unwrap();
        assert_eq!((seen.vlan(), seen.l3, seen.l4), (Some(100), 18, 38));
        frame[14..16].copy_from_slice(&[0xe0, 0]);
        assert_eq!(Seen::parse(&frame).unwrap().vlan(), None);
    }

    /// Frames of which most, but for the few bytes that `spoilt` says, are whole TCP or UDP.
    fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
        let segments = proptest::collection::vec(any::<u8>(), 8..60);
        let spoilt = proptest::collection::vec((0usize..60, any::<u8>()), 0..3);
        (segments, any::<bool>(), any::<bool>(), 0u8..8, spoilt).prop_map(
            |(segment, v6, tcp, options, spoilt)| {
                let [_, len] = u16::try_from(segment.len()).unwrap().to_be_bytes();
                let protocol = if tcp { TCP } else { UDP };
                let mut frame = vec![0; 12];
                if v6 {
                    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, len, protocol, 64]);
                    frame.extend([7; 32]);
                } else {
                    frame.extend([8, 0, 0x45, 0, 0, 20 + len, 0, 0, 0x40, 0, 64, protocol]);
                    frame.extend([0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
                }
                let l4 = frame.len();
                frame.extend(segment);
                if tcp && frame.len() > l4 + 12 {
                    frame[l4 + 12] = (4 + options) << 4;
                } else {
                    frame[l4 + 4..l4 + 6].copy_from_slice(&[0, len.saturating_sub(options)]);
                }
                for (at, to) in spoilt {
                    if let Some(byte) = frame.get_mut(at) {
                        *byte = to;
                    }
                }
                frame
            },
        )
    }

    proptest! {
        #[test]
        fn the_short_way_sees_the_same(frame in nearly_plain(), cut in 0usize..200) {
            for frame in [&frame[..], &frame[..cut.min(frame.len())]] {
                if let Some(seen) = plain(frame) {
                    let parsed = Seen::parse(frame).map(|seen| Seen { is_plain: true, ..seen });
                    prop_assert_eq!(parsed, Ok(seen));
                }
            }
        }

        #[test]
        fn never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..100), shape in 0usize..4) {
            if frame.len() > 24 && shape > 0 {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                frame[14] = 0x45;
                frame[16] = 0;
                frame[17] %= 100;
                frame[20..22].fill(0);
                frame[23] = [6, 17, 1][shape - 1];
            }
            if let Ok(seen) = Seen::parse(&frame) && seen.kind == Kind::Transport {
                let l4 = usize::from(seen.l4);
                let header = if seen.flow.protocol == TCP { 20 } else { 8 };
                prop_assert!(l4 + header <= frame.len());
                prop_assert!(usize::from(seen.l3) + usize::from(seen.ip_len) <= frame.len());
            }
        }
    }
}

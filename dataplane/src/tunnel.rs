//! Tunnels to real servers: `Ethernet / IP / …` becomes `Ethernet / IP [/ GRE | / UDP / GUE] / IP / …`.
//!
//! IPIP (RFC 2003, RFC 4213, RFC 2473), GRE (RFC 2784) and generic UDP encapsulation (version 0),
//! each over IPv4 and IPv6, each with packets of either family inside. What comes out is what LVS
//! sends. Remote checksum offload is for packets whose checksum hardware would fill in: those that
//! are forwarded have theirs, so GUE then carries a full checksum, and GRE ignores it as LVS does.

use std::net::IpAddr;

use control::{TunnelChecksum, TunnelKind};

use crate::packet::PacketBuf;
use crate::wire::checksum::{fold, sum};
use crate::wire::ethernet;
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, SCTP, TCP, UDP};
use crate::wire::ip::{DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET};

const IPIP: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;

const GRE_HEADER: usize = 4;
/// With checksum and the reserved field behind it.
const GRE_HEADER_CHECKSUM: usize = 8;
/// The first bit (RFC 2784 §2.1).
const GRE_HAS_CHECKSUM: u16 = 0x8000;
const UDP_HEADER: usize = 8;
const GUE_HEADER: usize = 4;

/// GUE's source ports: Linux's ephemeral ones.
const PORT_FIRST: u16 = 32_768;
const PORTS: u64 = 60_999 - 32_768 + 1;

/// What goes in front of every packet to one real server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    outer: Outer,
    shape: Shape,
    overhead: u16,
    /// Sum of both addresses.
    addresses: u16,
    /// What the outer header says is inside, where that is IPv4 and IPv6.
    protocols: [u8; 2],
}

/// The outer IP header, but for what differs between packets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outer {
    V4([u8; IPV4_HEADER]),
    V6([u8; IPV6_HEADER]),
}

/// What stands between the two IP headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Ipip,
    Gre,
    GreChecksum,
    Gue { port: [u8; 2] },
    GueChecksum { port: [u8; 2] },
}

impl Shape {
    fn new(spec: control::Tunnel) -> Self {
        let port = spec.port.to_be_bytes();
        match (spec.kind, spec.checksum) {
            (TunnelKind::Ipip, _) => Self::Ipip,
            (TunnelKind::Gre, TunnelChecksum::Full) => Self::GreChecksum,
            (TunnelKind::Gre, _) => Self::Gre,
            (TunnelKind::Gue, TunnelChecksum::None) => Self::Gue { port },
            (TunnelKind::Gue, _) => Self::GueChecksum { port },
        }
    }

    const fn len(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre => GRE_HEADER,
            Self::GreChecksum => GRE_HEADER_CHECKSUM,
            Self::Gue { .. } | Self::GueChecksum { .. } => UDP_HEADER + GUE_HEADER,
        }
    }
}

/// What the outer headers take from the packet inside.
#[derive(Debug, Clone, Copy)]
struct Inner {
    v6: bool,
    /// DSCP and ECN.
    traffic_class: u8,
    ttl: u8,
    dont_fragment: bool,
}

impl Inner {
    /// `None` when the packet is shorter than an IPv4 header.
    #[inline(always)]
    fn read(packet: &[u8], v6: bool) -> Option<Self> {
        let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
        Some(if v6 {
            Self {
                v6,
                traffic_class: header[0] << 4 | header[1] >> 4,
                ttl: header[7],
                dont_fragment: false,
            }
        } else {
            Self {
                v6,
                traffic_class: header[1],
                ttl: header[8],
                dont_fragment: header[6] & 0x40 != 0,
            }
        })
    }

    /// RFC 3168 §9.1.1, full functionality: CE stays inside, the outer header begins as ECT(0).
    const fn outer_traffic_class(self) -> u8 {
        let congested = self.traffic_class & (self.traffic_class >> 1) & 1;
        self.traffic_class ^ congested
    }
}

/// Of the packet inside, by its family.
#[inline(always)]
const fn of<T: Copy>(v6: bool, [of_v4, of_v6]: [T; 2]) -> T {
    if v6 { of_v6 } else { of_v4 }
}

const PROTOCOLS: [u8; 2] = [IPIP, IPV6];
const ETHERTYPES: [u16; 2] = [ethernet::IPV4, ethernet::IPV6];

impl Tunnel {
    /// A tunnel from `source` to `server`; `None` when they are not of the same family.
    pub fn new(spec: control::Tunnel, source: IpAddr, server: IpAddr) -> Option<Self> {
        let shape = Shape::new(spec);
        let protocols = match shape {
            Shape::Ipip => PROTOCOLS,
            Shape::Gre | Shape::GreChecksum => [GRE; 2],
            Shape::Gue { .. } | Shape::GueChecksum { .. } => [UDP; 2],
        };
        let outer = match (source, server) {
            (IpAddr::V4(source), IpAddr::V4(server)) => {
                let mut header = [0; IPV4_HEADER];
                header[0] = 0x45;
                header[12..16].copy_from_slice(&source.octets());
                header[16..].copy_from_slice(&server.octets());
                Outer::V4(header)
            }
            (IpAddr::V6(source), IpAddr::V6(server)) => {
                let mut header = [0; IPV6_HEADER];
                header[0] = 0x60;
                header[8..24].copy_from_slice(&source.octets());
                header[24..].copy_from_slice(&server.octets());
                Outer::V6(header)
            }
            _ => return None,
        };
        let (ip, addresses) = match &outer {
            Outer::V4(header) => (header.len(), sum(&header[12..])),
            Outer::V6(header) => (header.len(), sum(&header[8..])),
        };
        #[expect(clippy::cast_possible_truncation, reason = "52 at most")]
        let overhead = (ip + shape.len()) as u16;
        Some(Self {
            outer,
            shape,
            overhead,
            addresses: fold(addresses),
            protocols,
        })
    }

    /// Whether what leaves is IPv6.
    pub const fn is_v6(&self) -> bool {
        matches!(self.outer, Outer::V6(_))
    }

    /// How many bytes longer a packet gets.
    pub const fn overhead(&self) -> u16 {
        self.overhead
    }

    /// Wraps the IP packet of `ip_len` bytes that begins at `l3`, cutting what pads the frame
    /// behind it. The outer header then begins at `l3`, and the Ethernet header in front of it is
    /// to be written anew.
    ///
    /// The packet's TTL is decremented already. `id` is for outer IPv4 headers that may be
    /// fragmented; with `copy_df`, those of packets that may not be may not either.
    ///
    /// `false`, and the frame as it was, when there is no headroom, the result would be longer
    /// than an IP packet can be, or the frame does not hold `ip_len` bytes.
    #[must_use]
    pub fn encapsulate<P: PacketBuf>(
        &self,
        packet: &mut P,
        l3: usize,
        ip_len: u16,
        id: u16,
        copy_df: bool,
    ) -> bool {
        let first = packet.bytes().get(l3);
        let v6 = first.is_some_and(|first| first >> 4 == 6);
        self.encapsulate_as(v6, packet, l3, ip_len, id, copy_df)
    }

    /// As [`Self::encapsulate`], of a packet whose family is known.
    #[must_use]
    #[inline(always)]
    pub fn encapsulate_as<P: PacketBuf>(
        &self,
        v6: bool,
        packet: &mut P,
        l3: usize,
        ip_len: u16,
        id: u16,
        copy_df: bool,
    ) -> bool {
        let overhead = usize::from(self.overhead);
        let end = l3 + usize::from(ip_len);
        let inside = packet.bytes().get(l3..end);
        let Some(inner) = inside.and_then(|inside| Inner::read(inside, v6)) else {
            return false;
        };
        let Some(len) = ip_len.checked_add(self.overhead) else {
            return false;
        };
        if !packet.reframe(overhead, overhead + end) {
            return false;
        }
        let frame = &mut packet.bytes_mut()[l3..];
        match &self.outer {
            Outer::V4(template) => {
                if let Some((header, rest)) = frame.split_first_chunk_mut() {
                    let dont_fragment = inner.dont_fragment & copy_df;
                    *header = self.header_v4(template, inner, len, id, dont_fragment);
                    self.write_shape(rest, v6);
                }
            }
            Outer::V6(template) => {
                if let Some((header, rest)) = frame.split_first_chunk_mut() {
                    *header = *template;
                    #[expect(clippy::cast_possible_truncation, reason = "part of len")]
                    self.finish_v6(header, inner, rest.len() as u16);
                    self.write_shape(rest, v6);
                }
            }
        }
        true
    }

    /// Summed before it is written: reading it back would wait for the stores.
    #[inline(always)]
    fn header_v4(
        &self,
        template: &[u8; IPV4_HEADER],
        inner: Inner,
        len: u16,
        id: u16,
        dont_fragment: bool,
    ) -> [u8; IPV4_HEADER] {
        let (flags, id) = if dont_fragment {
            (DONT_FRAGMENT, 0)
        } else {
            (0, id)
        };
        let protocol = of(inner.v6, self.protocols);
        let first = 0x4500 | u16::from(inner.outer_traffic_class());
        let third = u16::from(inner.ttl) << 8 | u16::from(protocol);
        let words = [self.addresses, first, len, id, flags, third];
        // So few that two steps fold them.
        let sum: u32 = words.map(u32::from).iter().sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        #[expect(clippy::cast_possible_truncation, reason = "folded")]
        let checksum = !((sum + (sum >> 16)) as u16);
        let both = |high: u16, low: u16| u32::from(high) << 16 | u32::from(low);
        let start = u64::from(both(first, len)) << 32 | u64::from(both(id, flags));
        let mut header = *template;
        header[..8].copy_from_slice(&start.to_be_bytes());
        header[8..12].copy_from_slice(&both(third, checksum).to_be_bytes());
        header
    }

    #[inline(always)]
    fn finish_v6(&self, header: &mut [u8; IPV6_HEADER], inner: Inner, payload_len: u16) {
        let traffic_class = inner.outer_traffic_class();
        header[0] = 0x60 | traffic_class >> 4;
        header[1] = traffic_class << 4;
        header[4..6].copy_from_slice(&payload_len.to_be_bytes());
        header[6] = of(inner.v6, self.protocols);
        header[7] = inner.ttl;
    }

    /// What stands in `rest` in front of the packet inside.
    #[inline(always)]
    fn write_shape(&self, rest: &mut [u8], v6: bool) {
        if self.shape != Shape::Ipip {
            self.write_between(rest, v6);
        }
    }

    #[inline(never)]
    fn write_between(&self, rest: &mut [u8], v6: bool) {
        let [type_high, type_low] = of(v6, ETHERTYPES).to_be_bytes();
        match self.shape {
            Shape::Ipip => {}
            Shape::Gre => write(rest, [0, 0, type_high, type_low]),
            Shape::GreChecksum => {
                let [flags, version] = GRE_HAS_CHECKSUM.to_be_bytes();
                write(rest, [flags, version, type_high, type_low, 0, 0, 0, 0]);
                let checksum = !fold(sum(rest));
                rest[4..6].copy_from_slice(&checksum.to_be_bytes());
            }
            Shape::Gue { port } => write_gue(rest, v6, port),
            Shape::GueChecksum { port } => {
                write_gue(rest, v6, port);
                let pseudo = u64::from(self.addresses) + u64::from(UDP) + rest.len() as u64;
                let checksum = match !fold(pseudo + sum(rest)) {
                    0 => 0xffff,
                    checksum => checksum,
                };
                rest[6..8].copy_from_slice(&checksum.to_be_bytes());
            }
        }
    }
}

/// `header` in one store.
#[inline(always)]
fn write<const N: usize>(rest: &mut [u8], header: [u8; N]) {
    if let Some(room) = rest.first_chunk_mut() {
        *room = header;
    }
}

/// UDP without a checksum, and a GUE data message's header.
#[inline(always)]
fn write_gue(rest: &mut [u8], v6: bool, port: [u8; 2]) {
    #[expect(clippy::cast_possible_truncation, reason = "part of an IP packet")]
    let [len_high, len_low] = (rest.len() as u16).to_be_bytes();
    let packet = rest.get(UDP_HEADER + GUE_HEADER..).unwrap_or_default();
    let [from_high, from_low] = source_port(packet, v6).to_be_bytes();
    let ([to_high, to_low], protocol) = (port, of(v6, PROTOCOLS));
    let udp = [
        from_high, from_low, to_high, to_low, len_high, len_low, 0, 0,
    ];
    let [a, b, c, d, e, f, g, h] = udp;
    write(rest, [a, b, c, d, e, f, g, h, 0, protocol, 0, 0]);
}

/// The same for all packets of a flow, so that the network keeps them in order, and different for
/// most flows, so that it spreads them. Ports behind IPv6 extension headers do not count.
#[inline(always)]
fn source_port(packet: &[u8], v6: bool) -> u16 {
    let word = |at: usize| {
        let bytes = packet.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let (addresses, protocol, l4) = if v6 {
        let protocol = packet.get(6).copied().unwrap_or_default();
        let addresses = mix(mix(word(8), word(16)), mix(word(24), word(32)));
        (addresses, protocol, Some(IPV6_HEADER))
    } else {
        let header = packet.first_chunk().unwrap_or(&[0; IPV4_HEADER]);
        let whole = u16::from_be_bytes([header[6], header[7]]) & (MORE_FRAGMENTS | OFFSET) == 0;
        let l4 = whole.then_some(usize::from(header[0] & 0xf) * 4);
        (word(12), header[9], l4)
    };
    let ports = match (protocol, l4) {
        (TCP | UDP | SCTP, Some(at)) => packet.get(at..).and_then(<[u8]>::first_chunk),
        _ => None,
    };
    let ports = ports.map_or(0, |ports| u64::from(u32::from_le_bytes(*ports)));
    // Once more, or ports in a row would give source ports with gaps.
    let hash = mix(mix(addresses, ports << 8 | u64::from(protocol)), 0);
    #[expect(clippy::cast_possible_truncation, reason = "less than PORTS")]
    let offset = (((hash >> 32) * PORTS) >> 32) as u16;
    PORT_FIRST + offset
}

/// Each bit of the result depends on all of `a` and `b`.
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests;

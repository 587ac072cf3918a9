//! What the fast path needs of a packet, taken from its bytes once.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use crate::counters::DropReason;

pub const ETHERNET: usize = 14;
const TAG: usize = 4;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;

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

/// A 5-tuple as one side sends it. Addresses and ports are kept as they lie on the wire: the source
/// in the first bytes, the destination in the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flow {
    pub addresses: u64,
    pub ports: u32,
    pub protocol: u8,
}

impl Flow {
    pub fn new(protocol: u8, from: SocketAddrV4, to: SocketAddrV4) -> Self {
        let [a, b, c, d] = from.ip().octets();
        let [e, f, g, h] = to.ip().octets();
        let ([i, j], [k, l]) = (from.port().to_be_bytes(), to.port().to_be_bytes());
        Self {
            addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            ports: u32::from_ne_bytes([i, j, k, l]),
            protocol,
        }
    }

    pub fn from(&self) -> SocketAddrV4 {
        let [a, b, c, d, ..] = self.addresses.to_ne_bytes();
        let [i, j, ..] = self.ports.to_ne_bytes();
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([i, j]))
    }

    pub fn to(&self) -> SocketAddrV4 {
        self.reversed().from()
    }

    /// As the other side sends it.
    #[inline]
    pub const fn reversed(&self) -> Self {
        Self {
            addresses: self.addresses.rotate_left(32),
            ports: self.ports.rotate_left(16),
            protocol: self.protocol,
        }
    }
}

/// A 5-tuple of either family as one side sends it, for all that is not the fast path.
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
}

/// What kind of packet it is; decides which stage takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole TCP or UDP packet: `flow` and `l4` are valid.
    Transport,
    /// A fragment; only its addresses are known.
    Fragment,
    /// Another protocol over IPv4, ICMP among them: addresses and protocol are known.
    OtherIp,
    Arp,
}

/// A parsed packet. Offsets are from the start of the frame and lie within it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub flow: Flow,
    pub kind: Kind,
    /// Where the IPv4 or ARP header begins.
    pub l3: u8,
    /// Where the TCP or UDP header begins.
    pub l4: u8,
    pub ttl: u8,
    pub tcp_flags: u8,
    /// Length of the IP packet as its header says; the frame holds at least that much.
    pub ip_len: u16,
    pub vlan: Option<u16>,
}

impl Seen {
    /// Lengths that the packet claims are checked against those it has, here and only here.
    #[inline(always)]
    pub fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        use DropReason::{Truncated, UnknownEthertype};
        let at = |i: usize| Some(u16::from_be_bytes(*frame.get(i..i + 2)?.first_chunk()?));
        let (ethertype, l3, vlan) = match at(12).ok_or(Truncated)? {
            ETHERTYPE_VLAN => {
                let tag = at(ETHERNET).ok_or(Truncated)? & 0xfff;
                // VLAN 0 is a priority tag on an untagged frame (802.1Q §9.6).
                let vlan = if tag == 0 { None } else { Some(tag) };
                (at(ETHERNET + 2).ok_or(Truncated)?, ETHERNET + TAG, vlan)
            }
            ethertype => (ethertype, ETHERNET, None),
        };
        match ethertype {
            ETHERTYPE_IPV4 => Self::parse_ipv4(frame, l3, vlan),
            ETHERTYPE_ARP => Ok(Self::bare(Kind::Arp, l3, vlan)),
            _ => Err(UnknownEthertype),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "l3 is 14 or 18")]
    fn bare(kind: Kind, l3: usize, vlan: Option<u16>) -> Self {
        Self {
            flow: Flow::default(),
            kind,
            l3: l3 as u8,
            l4: 0,
            ttl: 0,
            tcp_flags: 0,
            ip_len: 0,
            vlan,
        }
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "headers end before byte 18 + 60"
    )]
    fn parse_ipv4(frame: &[u8], l3: usize, vlan: Option<u16>) -> Result<Self, DropReason> {
        use DropReason::{BadHeader, Truncated};
        let packet = &frame[l3..];
        let header: &[u8; 20] = packet.first_chunk().ok_or(Truncated)?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let ip_len = u16::from_be_bytes([header[2], header[3]]);
        if header[0] >> 4 != 4 || header_len < 20 || usize::from(ip_len) < header_len {
            return Err(BadHeader);
        }
        let packet = packet.get(..usize::from(ip_len)).ok_or(Truncated)?;
        let [.., a, b, c, d, e, f, g, h] = *header;
        let mut seen = Self {
            flow: Flow {
                addresses: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                ports: 0,
                protocol: header[9],
            },
            kind: Kind::OtherIp,
            l3: l3 as u8,
            l4: (l3 + header_len) as u8,
            ttl: header[8],
            tcp_flags: 0,
            ip_len,
            vlan,
        };
        // More-fragments flag or fragment offset.
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            seen.kind = Kind::Fragment;
            return Ok(seen);
        }
        seen.parse_transport(packet.get(header_len..).ok_or(Truncated)?)?;
        Ok(seen)
    }

    #[inline(always)]
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
            _ => return Ok(()),
        }
        self.kind = Kind::Transport;
        self.flow.ports = u32::from_ne_bytes([segment[0], segment[1], segment[2], segment[3]]);
        Ok(())
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
            seen.flow,
            Flow::new(
                UDP,
                "192.0.2.1:40000".parse().unwrap(),
                "10.0.0.1:53".parse().unwrap()
            )
        );
        assert_eq!(seen.flow.from().to_string(), "192.0.2.1:40000");
        assert_eq!(seen.flow.reversed().reversed(), seen.flow);
        assert_eq!(
            (seen.l3, seen.l4, seen.ttl, seen.ip_len, seen.kind),
            (14, 34, 64, 32, Kind::Transport)
        );
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
        assert_eq!(change(20, 0x60), Ok(Kind::Fragment));
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
        assert_eq!((seen.vlan, seen.l3, seen.l4), (Some(100), 18, 38));
        frame[14..16].copy_from_slice(&[0xe0, 0]);
        assert_eq!(Seen::parse(&frame).unwrap().vlan, None);
    }

    proptest! {
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

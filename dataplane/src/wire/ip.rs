//! IP headers of both families (RFC 791, RFC 8200), for all that is not the fast path: read in
//! full, extension headers included, and written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use crate::counters::DropReason;
use crate::wire::checksum;
use crate::wire::delta::TTL;

pub const V4_LEN: usize = 20;
pub const V6_LEN: usize = 40;

/// The most extension headers that are walked; RFC 8200 §4.1 knows seven places for one.
const EXTENSIONS_MAX: usize = 8;

/// IPv6 extension headers that packets may have on their way (RFC 8200 §4).
pub(crate) mod extension {
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const DESTINATION: u8 = 60;
}

/// The parts of IPv4's flags and offset.
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const OFFSET: u16 = 0x1fff;

/// What an IP header says. The packet behind it may have been cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// IPv4's type of service, IPv6's traffic class.
    pub tos: u8,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Of the payload, behind all options and extension headers. A later fragment's is that of the
    /// first thing in the fragmented part.
    pub protocol: u8,
    /// Where the payload begins; not beyond the bytes that were read.
    pub payload: usize,
    /// Length of the packet as the header says, header included; it may lie.
    pub total_len: usize,
    /// Part of a packet, and not its first.
    pub is_later_fragment: bool,
    /// Part of a packet.
    pub is_fragment: bool,
    /// No router may fragment it: IPv4's DF, and always over IPv6.
    pub dont_fragment: bool,
}

impl Ip {
    /// `Truncated` when the bytes end within the headers, `BadHeader` when a version or length is
    /// not valid or the extension headers do not end.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        match bytes.first().ok_or(DropReason::Truncated)? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => Err(DropReason::BadHeader),
        }
    }

    fn parse_v4(bytes: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; V4_LEN] = bytes.first_chunk().ok_or(DropReason::Truncated)?;
        let payload = usize::from(header[0] & 0x0f) * 4;
        if payload < V4_LEN {
            return Err(DropReason::BadHeader);
        }
        if payload > bytes.len() {
            return Err(DropReason::Truncated);
        }
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        let [.., a, b, c, d, e, f, g, h] = *header;
        Ok(Self {
            src: Ipv4Addr::new(a, b, c, d).into(),
            dst: Ipv4Addr::new(e, f, g, h).into(),
            tos: header[1],
            ttl: header[8],
            protocol: header[9],
            payload,
            total_len: usize::from(u16::from_be_bytes([header[2], header[3]])),
            is_later_fragment: fragment & OFFSET != 0,
            is_fragment: fragment & (OFFSET | MORE_FRAGMENTS) != 0,
            dont_fragment: fragment & DONT_FRAGMENT != 0,
        })
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, DropReason> {
        let header: &[u8; V6_LEN] = bytes.first_chunk().ok_or(DropReason::Truncated)?;
        let address = |at: usize| {
            let octets: [u8; 16] = std::array::from_fn(|i| header[at + i]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let mut ip = Self {
            src: address(8),
            dst: address(24),
            tos: header[0] << 4 | header[1] >> 4,
            ttl: header[7],
            protocol: header[6],
            payload: V6_LEN,
            total_len: V6_LEN + usize::from(u16::from_be_bytes([header[4], header[5]])),
            is_later_fragment: false,
            is_fragment: false,
            dont_fragment: true,
        };
        for _ in 0..EXTENSIONS_MAX {
            if !ip.step_over_extension(bytes)? {
                return Ok(ip);
            }
        }
        Err(DropReason::BadHeader)
    }

    /// Moves past one extension header; `false` when there is none.
    fn step_over_extension(&mut self, bytes: &[u8]) -> Result<bool, DropReason> {
        use extension::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
        if self.is_later_fragment {
            return Ok(false);
        }
        let start: Option<&[u8; 4]> = bytes[self.payload..].first_chunk();
        let len = match (self.protocol, start) {
            (HOP_BY_HOP | ROUTING | DESTINATION, Some(start)) => (usize::from(start[1]) + 1) * 8,
            (AUTHENTICATION, Some(start)) => (usize::from(start[1]) + 2) * 4,
            (FRAGMENT, Some(start)) => {
                let fragment = u16::from_be_bytes([start[2], start[3]]);
                self.is_later_fragment = fragment & 0xfff8 != 0;
                self.is_fragment |= fragment & 0xfff9 != 0;
                8
            }
            (HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT, None) => {
                return Err(DropReason::Truncated);
            }
            _ => return Ok(false),
        };
        self.payload += len;
        if self.payload > bytes.len() {
            return Err(DropReason::Truncated);
        }
        self.protocol = start.map_or(self.protocol, |start| start[0]);
        Ok(true)
    }

    pub fn is_v6(&self) -> bool {
        self.src.is_ipv6()
    }
}

/// What a header of ours says.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub src: IpAddr,
    /// Of the same family as the source.
    pub dst: IpAddr,
    pub tos: u8,
    pub ttl: u8,
    pub protocol: u8,
}

impl Head {
    /// Length of the header.
    pub fn header_len(&self) -> usize {
        if self.src.is_ipv6() { V6_LEN } else { V4_LEN }
    }

    /// A header without options for `len` bytes of payload, never to be fragmented, so that its
    /// identification means nothing (RFC 6864). `None` when they are too many or the families differ.
    pub fn before(&self, len: usize) -> Option<ArrayVec<u8, V6_LEN>> {
        let mut header = ArrayVec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let [high, low] = u16::try_from(V4_LEN + len).ok()?.to_be_bytes();
                let [df, _] = DONT_FRAGMENT.to_be_bytes();
                header.extend([0x45, self.tos, high, low, 0, 0, df, 0]);
                header.extend([self.ttl, self.protocol, 0, 0]);
            }
            (IpAddr::V6(_), IpAddr::V6(_)) => {
                let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
                header.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 0]);
                header.extend([high, low, self.protocol, self.ttl]);
            }
            _ => return None,
        }
        header.extend(std::iter::repeat_n(0, self.header_len() - header.len()));
        readdress(&mut header, self.src, self.dst);
        Some(header)
    }
}

/// Gives a valid header its addresses, and if it is IPv4 a right checksum. The addresses are of the
/// header's family; if they are not, it stays as it was.
pub fn readdress(header: &mut [u8], src: IpAddr, dst: IpAddr) {
    match (header[0] >> 4, src, dst) {
        (4, IpAddr::V4(src), IpAddr::V4(dst)) => {
            header[12..16].copy_from_slice(&src.octets());
            header[16..20].copy_from_slice(&dst.octets());
            header[10..12].fill(0);
            let sum = checksum::ipv4_header(&header[..usize::from(header[0] & 0x0f) * 4]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (6, IpAddr::V6(src), IpAddr::V6(dst)) => {
            header[8..24].copy_from_slice(&src.octets());
            header[24..40].copy_from_slice(&dst.octets());
        }
        _ => debug_assert!(false, "addresses of another family than the header's"),
    }
}

/// One hop less to live for a valid header that has at least one left.
pub fn decrement_ttl(header: &mut [u8]) {
    if header[0] >> 4 == 6 {
        header[7] = header[7].saturating_sub(1);
    } else if header[8] > 0 {
        header[8] -= 1;
        let checksum = TTL.apply([header[10], header[11]]);
        header[10..12].copy_from_slice(&checksum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let len = u8::try_from(rest.len()).unwrap();
        let mut packet = vec![0x6a, 0xbc, 0xde, 0xf0, 0, len, next, 64];
        packet.extend([[0x20; 16], [0x30; 16]].concat());
        packet.extend(rest);
        packet
    }

    #[test]
    fn an_ipv4_header() {
        let mut packet = vec![0x46, 0x28, 0, 60, 0, 1, 0x40, 0, 9, 17, 0, 0];
        packet.extend([192, 0, 2, 1, 10, 0, 0, 1, 1, 1, 1, 0]);
        let expected = Ip {
            src: "192.0.2.1".parse().unwrap(),
            dst: "10.0.0.1".parse().unwrap(),
            tos: 0x28,
            ttl: 9,
            protocol: 17,
            payload: 24,
            total_len: 60,
            is_later_fragment: false,
            is_fragment: false,
            dont_fragment: true,
        };
        assert_eq!(Ip::parse(&packet), Ok(expected));
        for len in 0..24 {
            assert_eq!(
                Ip::parse(&packet[..len]),
                Err(DropReason::Truncated),
                "{len} bytes"
            );
        }
        let fragment = |high: u8, low: u8| {
            let mut packet = packet.clone();
            packet[6..8].copy_from_slice(&[high, low]);
            let ip = Ip::parse(&packet).unwrap();
            (ip.is_fragment, ip.is_later_fragment, ip.dont_fragment)
        };
        assert_eq!(fragment(0, 0), (false, false, false));
        assert_eq!(fragment(0x20, 0), (true, false, false));
        assert_eq!(fragment(0, 1), (true, true, false));
        packet[0] = 0x44;
        assert_eq!(Ip::parse(&packet), Err(DropReason::BadHeader));
        packet[0] = 0x56;
        assert_eq!(Ip::parse(&packet), Err(DropReason::BadHeader));
    }

    #[test]
    fn a_hop_less() {
        let (src, dst) = ([192, 0, 2, 1].into(), [10, 0, 0, 1].into());
        let mut header = vec![0x45, 0, 0, 20, 0, 1, 0, 0, 2, 1, 0, 0];
        header.extend([0; 8]);
        readdress(&mut header, src, dst);
        for left in [1, 0, 0] {
            decrement_ttl(&mut header);
            assert_eq!(header[8], left);
            assert_eq!(checksum::ipv4_header(&header), 0);
        }
        let mut header = v6(17, &[]);
        decrement_ttl(&mut header);
        assert_eq!(header[7], 63);
    }

    #[test]
    fn extension_headers_are_walked() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let ip = |packet: &[u8]| Ip::parse(packet).map(|ip| (ip.protocol, ip.payload));
        let plain = Ip::parse(&v6(6, &[0; 20])).unwrap();
        assert_eq!(
            (plain.protocol, plain.payload, plain.total_len),
            (6, 40, 60)
        );
        assert_eq!(
            (plain.tos, plain.ttl, plain.dont_fragment),
            (0xab, 64, true)
        );
        assert_eq!(plain.src, IpAddr::from([0x20; 16]));
        assert_eq!(plain.dst, IpAddr::from([0x30; 16]));

        let long = [&[60, 1][..], &[0; 14], &options(17)].concat();
        assert_eq!(ip(&v6(0, &long)), Ok((17, 64)));
        let authentication = [&[6, 4][..], &[0; 22]].concat();
        assert_eq!(ip(&v6(51, &authentication)), Ok((6, 64)));
        assert_eq!(ip(&v6(43, &options(59))), Ok((59, 48)));
        assert_eq!(ip(&v6(0, &long[..23])), Err(DropReason::Truncated));
        assert_eq!(ip(&v6(0, &[])), Err(DropReason::Truncated));
        assert_eq!(
            ip(&v6(0, &options(0).repeat(9))),
            Err(DropReason::BadHeader)
        );

        let fragment = |offset: [u8; 2]| {
            let header = [60, 0, offset[0], offset[1], 0, 0, 0, 1];
            let ip = Ip::parse(&v6(44, &[header, options(17)].concat())).unwrap();
            (
                ip.protocol,
                ip.payload,
                ip.is_fragment,
                ip.is_later_fragment,
            )
        };
        assert_eq!(fragment([0, 1]), (17, 56, true, false));
        assert_eq!(
            fragment([0, 0]),
            (17, 56, false, false),
            "atomic (RFC 6946)"
        );
        assert_eq!(fragment([0, 8]), (60, 48, true, true), "data, not options");
    }

    #[test]
    fn headers_of_ours() {
        let head = |src: &str, dst: &str| Head {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            tos: 0xab,
            ttl: 7,
            protocol: 6,
        };
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2")] {
            let head = head(src, dst);
            let header = head.before(5).unwrap();
            let ip = Ip::parse(&header).unwrap();
            assert_eq!(
                (ip.src, ip.dst, ip.tos, ip.ttl),
                (head.src, head.dst, 0xab, 7)
            );
            assert_eq!((ip.protocol, ip.payload), (6, header.len()));
            assert_eq!((ip.total_len, ip.dont_fragment), (header.len() + 5, true));
            assert!(ip.is_v6() || checksum::ipv4_header(&header) == 0);
            assert!(head.before(70_000).is_none());
        }
        assert!(head("10.0.0.1", "2001:db8::2").before(5).is_none());
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), next in 0u8..61) {
            if bytes.len() > 6 && bytes[0] & 1 == 0 {
                bytes[0] = 0x60;
                bytes[6] = next;
            }
            if let Ok(ip) = Ip::parse(&bytes) {
                prop_assert!(ip.payload <= bytes.len());
            }
        }
    }
}

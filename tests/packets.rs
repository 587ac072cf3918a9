//! IP packets of either family for captures, built field by field with every checksum computed in
//! full, by code that shares nothing with the director.

use std::net::{IpAddr, SocketAddr};

use crate::frames::{self, Mac, checksum};

/// What an IP packet carries.
#[derive(Debug, Clone)]
enum Body {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp(Vec<u8>),
    Sctp {
        tag: u32,
        chunk: Vec<u8>,
    },
    /// Of either family: type, code and the next four bytes.
    Icmp([u8; 2], [u8; 4], Vec<u8>),
    /// Another IP packet or what else this protocol has.
    Other(u8, Vec<u8>),
}

/// An IP packet without extension headers.
#[derive(Debug, Clone)]
pub struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    body: Body,
}

fn packet(from: &str, to: &str, body: Body) -> Packet {
    Packet {
        from: address(from),
        to: address(to),
        ttl: 64,
        id: 0x1234,
        dont_fragment: false,
        body,
    }
}

/// `10.0.0.1:80`, `[2001:db8::1]:80`, or an address alone where there are no ports.
fn address(text: &str) -> SocketAddr {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    alone
        .or_else(|_| text.parse())
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

/// A TCP segment whose flags are given by their letters: `S`, `A`, `F`, `R`, `P`.
pub fn tcp(from: &str, to: &str, flags: &str) -> Packet {
    let bit = |letter| match letter {
        'F' => 0x01,
        'S' => 0x02,
        'R' => 0x04,
        'P' => 0x08,
        'A' => 0x10,
        _ => panic!("{letter} is no TCP flag"),
    };
    let body = Body::Tcp {
        flags: flags.chars().map(bit).fold(0, |all, bit| all | bit),
        seq: 0,
        ack: 0,
        options: Vec::new(),
        data: Vec::new(),
    };
    packet(from, to, body)
}

pub fn udp(from: &str, to: &str, data: &[u8]) -> Packet {
    packet(from, to, Body::Udp(data.to_vec()))
}

/// An SCTP packet of one chunk of this type.
pub fn sctp(from: &str, to: &str, tag: u32, kind: u8, data: &[u8]) -> Packet {
    let mut chunk = vec![kind, 0];
    chunk.extend(len16(4 + data.len()));
    chunk.extend(data);
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    packet(from, to, Body::Sctp { tag, chunk })
}

/// An ICMP message of the addresses' family, its `rest` the four bytes behind the checksum.
pub fn icmp(from: &str, to: &str, what: [u8; 2], rest: [u8; 4], data: &[u8]) -> Packet {
    packet(from, to, Body::Icmp(what, rest, data.to_vec()))
}

/// An IP packet in another one, as this protocol carries it.
pub fn wrapped(from: &str, to: &str, protocol: u8, inner: &[u8]) -> Packet {
    packet(from, to, Body::Other(protocol, inner.to_vec()))
}

impl Packet {
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    #[must_use]
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Of a TCP segment.
    #[must_use]
    pub fn numbers(mut self, to_seq: u32, to_ack: u32) -> Self {
        if let Body::Tcp { seq, ack, .. } = &mut self.body {
            (*seq, *ack) = (to_seq, to_ack);
        }
        self
    }

    /// Of a TCP segment; a multiple of four bytes.
    #[must_use]
    pub fn options(mut self, bytes: &[u8]) -> Self {
        if let Body::Tcp { options, .. } = &mut self.body {
            *options = bytes.to_vec();
        }
        self
    }

    /// Of a TCP segment.
    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        if let Body::Tcp { data, .. } = &mut self.body {
            *data = bytes.to_vec();
        }
        self
    }

    /// The Ethernet frame.
    pub fn between(&self, from: Mac, to: Mac) -> Vec<u8> {
        framed(&self.ip(), from, to)
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, segment) = self.segment();
        let flags = if self.dont_fragment { 0x4000 } else { 0 };
        self.header(protocol, flags, &segment)
    }

    /// The fragments that begin at these offsets, multiples of eight, of its IP payload.
    pub fn fragments<const N: usize>(&self, starts: [usize; N]) -> [Vec<u8>; N] {
        let (protocol, segment) = self.segment();
        starts.map(|start| {
            let next = starts.iter().filter(|next| **next > start).min();
            let part = &segment[start..next.copied().unwrap_or(segment.len())];
            let place = u16::try_from(start).expect("within a packet");
            if self.from.is_ipv4() {
                let more = if next.is_some() { 0x2000 } else { 0 };
                return self.header(protocol, (place / 8) | more, part);
            }
            let mut payload = vec![protocol, 0];
            payload.extend((place | u16::from(next.is_some())).to_be_bytes());
            payload.extend([0, 0]);
            payload.extend(self.id.to_be_bytes());
            payload.extend(part);
            self.header(44, 0, &payload)
        })
    }

    fn header(&self, protocol: u8, place: u16, payload: &[u8]) -> Vec<u8> {
        let mut ip = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = vec![0x45, 0];
                ip.extend(len16(20 + payload.len()));
                ip.extend(self.id.to_be_bytes());
                ip.extend(place.to_be_bytes());
                ip.extend([self.ttl, protocol, 0, 0]);
                ip.extend([from.octets(), to.octets()].concat());
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                ip
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(len16(payload.len()));
                ip.extend([protocol, self.ttl]);
                ip.extend([from.octets(), to.octets()].concat());
                ip
            }
            (from, to) => panic!("{from} and {to} are of two families"),
        };
        ip.extend(payload);
        ip
    }

    /// The transport header and what follows, with its checksum; and the protocol.
    fn segment(&self) -> (u8, Vec<u8>) {
        let mut segment = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (protocol, at) = match &self.body {
            Body::Tcp {
                flags,
                seq,
                ack,
                options,
                data,
            } => {
                segment.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
                let words = u8::try_from(5 + options.len() / 4).expect("at most 40 bytes");
                segment.extend([words << 4, *flags, 0x20, 0, 0, 0, 0, 0]);
                segment.extend(options);
                segment.extend(data);
                (6, 16)
            }
            Body::Udp(data) => {
                segment.extend(len16(8 + data.len()));
                segment.extend([0, 0]);
                segment.extend(data);
                (17, 6)
            }
            Body::Sctp { tag, chunk } => {
                segment.extend(tag.to_be_bytes());
                segment.extend([0; 4]);
                segment.extend(chunk);
                let sum = crc32c(&segment);
                segment[8..12].copy_from_slice(&sum.to_le_bytes());
                return (132, segment);
            }
            Body::Icmp(what, rest, data) => {
                segment = [what.as_slice(), &[0, 0], rest, data].concat();
                (if self.from.is_ipv4() { 1 } else { 58 }, 2)
            }
            Body::Other(protocol, data) => return (*protocol, data.clone()),
        };
        let sum = match protocol {
            1 => checksum(&segment),
            _ => checksum(&[self.pseudo(protocol, segment.len()), segment.clone()].concat()),
        };
        let sum = if protocol == 17 && sum == 0 {
            0xffff
        } else {
            sum
        };
        segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        (protocol, segment)
    }

    fn pseudo(&self, protocol: u8, len: usize) -> Vec<u8> {
        let mut pseudo = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
            (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
            (from, to) => panic!("{from} and {to} are of two families"),
        };
        pseudo.extend([0, protocol]);
        pseudo.extend(len16(len));
        pseudo
    }
}

/// An IP packet in an Ethernet frame.
pub fn framed(ip: &[u8], from: Mac, to: Mac) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    [frames::link(from, to, None, ethertype), ip.to_vec()].concat()
}

fn len16(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("fits an IP packet").to_be_bytes()
}

/// Bit by bit (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = crc & 1;
            crc >>= 1;
            if carry != 0 {
                crc ^= 0x82f6_3b78;
            }
        }
    }
    !crc
}

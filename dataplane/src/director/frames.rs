//! Frames for tests, built field by field with every checksum computed in full, by code that shares
//! nothing with the director. The system tests include this file too: it needs only `std`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub type Mac = [u8; 6];

/// What an IP packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        /// A multiple of four bytes.
        options: Vec<u8>,
        data: Vec<u8>,
    },
    Udp {
        data: Vec<u8>,
        checksum: bool,
    },
    /// The chunks, each padded.
    Sctp(Vec<u8>),
    /// Of the packet's family.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    Other(u8, Vec<u8>),
}

/// An Ethernet frame with an IP packet in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub to_mac: Mac,
    pub from_mac: Mac,
    pub vlan: Option<u16>,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Or traffic class.
    pub tos: u8,
    pub id: u16,
    /// Flags and offset as IPv4 has them. In IPv6, DF says nothing, and all else makes a fragment
    /// header.
    pub fragment: u16,
    /// Or hop limit.
    pub ttl: u8,
    /// A multiple of four bytes (IPv4).
    pub options: Vec<u8>,
    /// Kind and content behind the first two bytes of each extension header (IPv6).
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub payload: Payload,
}

pub const DONT_FRAGMENT: u16 = 0x4000;
pub const MORE_FRAGMENTS: u16 = 0x2000;
/// An IPv6 fragment header on a packet that is whole (RFC 6946).
pub const ATOMIC: u16 = 0x8000;

fn frame(from: &str, to: &str, payload: Payload) -> Frame {
    Frame {
        to_mac: [0; 6],
        from_mac: [0; 6],
        vlan: None,
        from: address(from),
        to: address(to),
        tos: 0,
        id: 0x1234,
        fragment: 0,
        ttl: 64,
        options: Vec::new(),
        extensions: Vec::new(),
        payload,
    }
}

/// `10.0.0.1:80` or `[2001:db8::1]:80`, or `10.0.0.1` and `2001:db8::1` where there are no ports.
pub fn address(text: &str) -> SocketAddr {
    let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    bare.or_else(|_| text.parse())
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

/// A TCP segment whose flags are given by their letters: `S`, `A`, `F`, `R`, `P`; none is `.`.
pub fn tcp(from: &str, to: &str, flags: &str) -> Frame {
    let bit = |letter| match letter {
        'F' => 0x01,
        'S' => 0x02,
        'R' => 0x04,
        'P' => 0x08,
        'A' => 0x10,
        '.' => 0,
        _ => panic!("{letter} is no TCP flag"),
    };
    let payload = Payload::Tcp {
        flags: flags.chars().map(bit).fold(0, |all, bit| all | bit),
        seq: 1000,
        ack: if flags.contains('A') { 2000 } else { 0 },
        window: 0x2000,
        options: Vec::new(),
        data: Vec::new(),
    };
    frame(from, to, payload)
}

pub fn udp(from: &str, to: &str, data: &[u8]) -> Frame {
    let payload = Payload::Udp {
        data: data.to_vec(),
        checksum: true,
    };
    frame(from, to, payload)
}

/// An SCTP packet with chunks of these types, each with four bytes of content.
pub fn sctp(from: &str, to: &str, chunks: &[u8]) -> Frame {
    let chunks = chunks.iter().map(|kind| [*kind, 0, 0, 8, 1, 2, 3, 4]);
    frame(from, to, Payload::Sctp(chunks.flatten().collect()))
}

pub fn icmp(from: &str, to: &str, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Frame {
    let payload = Payload::Icmp {
        kind,
        code,
        rest,
        data: data.to_vec(),
    };
    frame(from, to, payload)
}

pub fn other_ip(from: &str, to: &str, protocol: u8, data: &[u8]) -> Frame {
    frame(from, to, Payload::Other(protocol, data.to_vec()))
}

impl Frame {
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// As it leaves: one hop less to live.
    #[must_use]
    pub fn hop(mut self) -> Self {
        self.ttl -= 1;
        self
    }

    #[must_use]
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    #[must_use]
    pub fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    #[must_use]
    pub fn fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    #[must_use]
    pub fn vlan(mut self, vlan: u16) -> Self {
        self.vlan = Some(vlan);
        self
    }

    #[must_use]
    pub fn between(mut self, from: Mac, to: Mac) -> Self {
        (self.from_mac, self.to_mac) = (from, to);
        self
    }

    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// One more extension header; `content` is 6 bytes, or 8 more each.
    #[must_use]
    pub fn extension(mut self, kind: u8, content: &[u8]) -> Self {
        self.extensions.push((kind, content.to_vec()));
        self
    }

    #[must_use]
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Payload::Tcp { options, .. } = &mut self.payload {
            *options = bytes.to_vec();
        }
        self
    }

    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        match &mut self.payload {
            Payload::Tcp { data, .. } | Payload::Udp { data, .. } | Payload::Icmp { data, .. } => {
                *data = bytes.to_vec();
            }
            Payload::Other(_, data) | Payload::Sctp(data) => *data = bytes.to_vec(),
        }
        self
    }

    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Payload::Udp { checksum, .. } = &mut self.payload {
            *checksum = false;
        }
        self
    }

    #[must_use]
    pub fn numbers(mut self, to_seq: u32, to_ack: u32) -> Self {
        if let Payload::Tcp { seq, ack, .. } = &mut self.payload {
            (*seq, *ack) = (to_seq, to_ack);
        }
        self
    }

    #[must_use]
    pub fn window(mut self, size: u16) -> Self {
        if let Payload::Tcp { window, .. } = &mut self.payload {
            *window = size;
        }
        self
    }

    pub fn is_v6(&self) -> bool {
        self.from.is_ipv6()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ethertype = if self.is_v6() { 0x86dd } else { 0x0800 };
        let mut bytes = link(self.from_mac, self.to_mac, self.vlan, ethertype);
        bytes.extend(self.ip());
        bytes
    }

    /// The packet in fragments of `size` bytes of payload each (a multiple of 8).
    pub fn pieces(&self, size: usize) -> Vec<Self> {
        let (protocol, segment) = self.segment();
        let first = usize::from(self.fragment & 0x1fff);
        let count = segment.chunks(size).count();
        let piece = |(n, bytes): (usize, &[u8])| {
            let more = n + 1 < count || self.fragment & MORE_FRAGMENTS != 0;
            let offset = first + n * size / 8;
            let mut piece = self.clone();
            piece.fragment = offset as u16 | if more { MORE_FRAGMENTS } else { 0 };
            piece.payload = Payload::Other(protocol, bytes.to_vec());
            piece
        };
        segment.chunks(size).enumerate().map(piece).collect()
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        if self.is_v6() { self.ip6() } else { self.ip4() }
    }

    fn ip4(&self) -> Vec<u8> {
        let (protocol, payload) = self.segment();
        let header_len = 20 + self.options.len();
        let total = u16::try_from(header_len + payload.len()).expect("fits an IP packet");
        let mut ip = vec![0x40 | (header_len / 4) as u8, self.tos];
        ip.extend(total.to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, protocol, 0, 0]);
        ip.extend(octets(self.from.ip()));
        ip.extend(octets(self.to.ip()));
        ip.extend(&self.options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(payload);
        ip
    }

    fn ip6(&self) -> Vec<u8> {
        let (protocol, payload) = self.segment();
        let mut headers = self.extensions.clone();
        let place = self.fragment & !DONT_FRAGMENT;
        if place != 0 {
            let field = (place & 0x1fff) << 3 | u16::from(place & MORE_FRAGMENTS != 0);
            let [a, b] = field.to_be_bytes();
            let [c, d] = self.id.to_be_bytes();
            headers.push((44, vec![a, b, 0, 0, c, d]));
        }
        let mut rest = Vec::new();
        let kinds = headers.iter().map(|(kind, _)| *kind).chain([protocol]);
        let kinds: Vec<_> = kinds.collect();
        for ((_, content), next) in headers.iter().zip(&kinds[1..]) {
            rest.extend([*next, ((content.len() + 2) / 8 - 1) as u8]);
            rest.extend(content);
        }
        rest.extend(payload);
        let mut ip = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        ip.extend(u16::try_from(rest.len()).expect("fits").to_be_bytes());
        ip.extend([kinds[0], self.ttl]);
        ip.extend(octets(self.from.ip()));
        ip.extend(octets(self.to.ip()));
        ip.extend(rest);
        ip
    }

    fn transport(&self, protocol: u8, segment: &[u8]) -> u16 {
        transport(
            &octets(self.from.ip()),
            &octets(self.to.ip()),
            protocol,
            segment,
        )
    }

    fn segment(&self) -> (u8, Vec<u8>) {
        let mut segment = Vec::new();
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        match &self.payload {
            Payload::Tcp {
                flags,
                seq,
                ack,
                window,
                options,
                data,
            } => {
                segment.extend(ports);
                segment.extend(seq.to_be_bytes());
                segment.extend(ack.to_be_bytes());
                segment.extend([0x50 + (options.len() as u8 / 4 * 16), *flags]);
                segment.extend(window.to_be_bytes());
                segment.extend([0; 4]);
                segment.extend(options);
                segment.extend(data);
                let sum = self.transport(6, &segment);
                segment[16..18].copy_from_slice(&sum.to_be_bytes());
                (6, segment)
            }
            Payload::Udp { data, checksum } => {
                segment.extend(ports);
                segment.extend((8 + data.len() as u16).to_be_bytes());
                segment.extend([0, 0]);
                segment.extend(data);
                if *checksum {
                    let sum = match self.transport(17, &segment) {
                        0 => 0xffff,
                        sum => sum,
                    };
                    segment[6..8].copy_from_slice(&sum.to_be_bytes());
                }
                (17, segment)
            }
            Payload::Sctp(chunks) => {
                segment.extend(ports);
                segment.extend([0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0]);
                segment.extend(chunks);
                let sum = crc32c(&segment).to_le_bytes();
                segment[8..12].copy_from_slice(&sum);
                (132, segment)
            }
            Payload::Icmp {
                kind,
                code,
                rest,
                data,
            } => {
                segment.extend([*kind, *code, 0, 0]);
                segment.extend(rest);
                segment.extend(data);
                let (protocol, sum) = match self.is_v6() {
                    true => (58, self.transport(58, &segment)),
                    false => (1, checksum(&segment)),
                };
                segment[2..4].copy_from_slice(&sum.to_be_bytes());
                (protocol, segment)
            }
            Payload::Other(protocol, data) => (*protocol, data.clone()),
        }
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An Ethernet header, tagged when there is a VLAN.
pub fn link(from: Mac, to: Mac, vlan: Option<u16>, ethertype: u16) -> Vec<u8> {
    let mut bytes = [to, from].concat();
    if let Some(vlan) = vlan {
        bytes.extend([0x81, 0x00]);
        bytes.extend(vlan.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

/// An ARP message in a frame of the shortest length.
pub fn arp(
    operation: u16,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
    to: Mac,
    vlan: Option<u16>,
) -> Vec<u8> {
    let mut bytes = link(sender.0, to, vlan, 0x0806);
    bytes.extend([0, 1, 8, 0, 6, 4]);
    bytes.extend(operation.to_be_bytes());
    bytes.extend(sender.0);
    bytes.extend(sender.1.octets());
    bytes.extend(target.0);
    bytes.extend(target.1.octets());
    bytes.resize(60, 0);
    bytes
}

/// RFC 1071 as its text says it.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// RFC 9260 appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
    let sum = bytes
        .iter()
        .fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    !sum
}

fn transport(from: &[u8], to: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    let mut whole = [from, to].concat();
    whole.extend([0, protocol]);
    whole.extend((segment.len() as u16).to_be_bytes());
    whole.extend(segment);
    checksum(&whole)
}

/// What is wrong with a frame's checksums; `None` when all are right or there are none. What is in
/// a tunnel is looked at too.
pub fn wrong_checksum(frame: &[u8]) -> Option<&'static str> {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    match frame[l3 - 2..l3] {
        [0x08, 0x00] | [0x86, 0xdd] => wrong_in_ip(&frame[l3..]),
        _ => None,
    }
}

fn wrong_in_ip(ip: &[u8]) -> Option<&'static str> {
    let parts = Parts::of(ip);
    if ip[0] >> 4 == 4 && checksum(&ip[..usize::from(ip[0] & 15) * 4]) != 0 {
        return Some("IP");
    }
    if parts.is_fragment {
        return None;
    }
    let segment = parts.segment;
    let sum = || transport(parts.from, parts.to, parts.protocol, segment);
    match parts.protocol {
        6 if sum() != 0 => Some("TCP"),
        17 if segment[6..8] == [0, 0] && ip[0] >> 4 == 6 && segment[2..4] != [0x17, 0xc0] => {
            Some("no UDP")
        }
        17 if segment[6..8] != [0, 0] && sum() != 0 => Some("UDP"),
        17 if segment[2..4] == [0x17, 0xc0] => wrong_in_ip(&segment[12..]),
        1 if checksum(segment) != 0 => Some("ICMP"),
        58 if sum() != 0 => Some("ICMPv6"),
        132 => {
            let mut zeroed = segment.to_vec();
            zeroed[8..12].fill(0);
            (crc32c(&zeroed).to_le_bytes() != segment[8..12]).then_some("SCTP")
        }
        4 | 41 => wrong_in_ip(segment),
        47 if segment[0] == 0x80 && checksum(segment) != 0 => Some("GRE"),
        47 => wrong_in_ip(&segment[if segment[0] == 0x80 { 8 } else { 4 }..]),
        248 => {
            let len = usize::from(segment[3]);
            let sum = transport(parts.from, parts.to, 17, &segment[len..]);
            (sum != 0).then_some("UDP behind UOA")
        }
        _ => None,
    }
}

/// An IP packet taken apart.
#[derive(Debug)]
pub struct Parts<'p> {
    pub from: &'p [u8],
    pub to: &'p [u8],
    pub protocol: u8,
    pub is_fragment: bool,
    /// Not the first one.
    pub is_later: bool,
    pub segment: &'p [u8],
}

impl<'p> Parts<'p> {
    pub fn of(ip: &'p [u8]) -> Self {
        let word = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        if ip[0] >> 4 == 4 {
            return Self {
                from: &ip[12..16],
                to: &ip[16..20],
                protocol: ip[9],
                is_fragment: word(6) & 0x3fff != 0,
                is_later: word(6) & 0x1fff != 0,
                segment: &ip[usize::from(ip[0] & 15) * 4..usize::from(word(2))],
            };
        }
        let (mut protocol, mut at, mut place) = (ip[6], 40, 0);
        while matches!(protocol, 0 | 43 | 44 | 60) {
            let is_place = protocol == 44;
            place |= if is_place { word(at + 2) } else { 0 };
            let len = if is_place {
                8
            } else {
                (usize::from(ip[at + 1]) + 1) * 8
            };
            (protocol, at) = (ip[at], at + len);
        }
        Self {
            from: &ip[8..24],
            to: &ip[24..40],
            protocol,
            is_fragment: place != 0,
            is_later: place & 0xfff8 != 0,
            segment: &ip[at..40 + usize::from(word(4))],
        }
    }
}

/// One line on a frame, in tcpdump's style, and its bytes.
pub fn describe(frame: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let Some((macs, rest)) = frame.split_at_checked(12) else {
        return format!("{} bytes: {}", frame.len(), hex(frame));
    };
    let (vlan, rest) = match rest {
        [0x81, 0, a, b, rest @ ..] => (format!(" vlan {}", u16::from_be_bytes([*a, *b])), rest),
        rest => (String::new(), rest),
    };
    let what = match rest {
        [8, 0, ip @ ..] | [0x86, 0xdd, ip @ ..] if is_whole(ip) => {
            let Parts {
                from,
                to,
                protocol,
                is_fragment,
                segment,
                ..
            } = Parts::of(ip);
            let address = |bytes: &[u8]| match <[u8; 16]>::try_from(bytes) {
                Ok(octets) => IpAddr::from(octets).to_string(),
                Err(_) => bytes
                    .iter()
                    .map(u8::to_string)
                    .collect::<Vec<_>>()
                    .join("."),
            };
            let port = |at: usize| {
                let port = segment.get(at..at + 2);
                port.map_or(0, |p| u16::from_be_bytes([p[0], p[1]]))
            };
            let flags = segment.get(13).copied().unwrap_or(0);
            format!(
                "IP {}.{} > {}.{} proto {protocol} fragment {is_fragment} length {} flags {flags:02x}",
                address(from),
                port(0),
                address(to),
                port(2),
                ip.len(),
            )
        }
        [8, 6, ..] => "ARP".to_owned(),
        _ => "unknown".to_owned(),
    };
    format!(
        "{} > {}{vlan} {what}\n    {}",
        hex(&macs[6..]),
        hex(&macs[..6]),
        hex(frame)
    )
}

/// Whether an IP packet's headers are there and no longer than they say.
fn is_whole(ip: &[u8]) -> bool {
    let word = |at: usize| usize::from(u16::from_be_bytes([ip[at], ip[at + 1]]));
    match ip.first() {
        Some(0x45..=0x4f) => {
            let header_len = usize::from(ip[0] & 15) * 4;
            ip.len() >= 20 && ip.len() >= word(2) && word(2) >= header_len
        }
        Some(0x60..=0x6f) => {
            ip.len() >= 48 && ip.len() >= 40 + word(4) && !matches!(ip[6], 0 | 43 | 44 | 60)
        }
        _ => false,
    }
}

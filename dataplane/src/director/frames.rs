//! Frames for tests, built field by field with every checksum computed in full, by code that shares
//! nothing with the director. The system tests include this file too: it needs only `std`.

use std::net::{Ipv4Addr, SocketAddrV4};

pub type Mac = [u8; 6];

/// What an IPv4 packet carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        data: Vec<u8>,
    },
    Udp {
        data: Vec<u8>,
        checksum: bool,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        data: Vec<u8>,
    },
    Other(u8, Vec<u8>),
}

/// An Ethernet frame with an IPv4 packet in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub to_mac: Mac,
    pub from_mac: Mac,
    pub vlan: Option<u16>,
    pub from: SocketAddrV4,
    pub to: SocketAddrV4,
    pub tos: u8,
    pub id: u16,
    /// Flags and offset.
    pub fragment: u16,
    pub ttl: u8,
    /// A multiple of four bytes.
    pub options: Vec<u8>,
    pub payload: Payload,
}

pub const DONT_FRAGMENT: u16 = 0x4000;
pub const MORE_FRAGMENTS: u16 = 0x2000;

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
        payload,
    }
}

/// `10.0.0.1:80`, or `10.0.0.1` where there are no ports.
fn address(text: &str) -> SocketAddrV4 {
    let whole = if text.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:0")
    };
    whole
        .parse()
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

    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        match &mut self.payload {
            Payload::Tcp { data, .. } | Payload::Udp { data, .. } | Payload::Icmp { data, .. } => {
                *data = bytes.to_vec();
            }
            Payload::Other(_, data) => *data = bytes.to_vec(),
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

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = link(self.from_mac, self.to_mac, self.vlan, 0x0800);
        bytes.extend(self.ip());
        bytes
    }

    /// The IPv4 packet.
    pub fn ip(&self) -> Vec<u8> {
        let (protocol, payload) = self.segment();
        let header_len = 20 + self.options.len();
        let total = u16::try_from(header_len + payload.len()).expect("fits an IP packet");
        let mut ip = vec![0x40 | (header_len / 4) as u8, self.tos];
        ip.extend(total.to_be_bytes());
        ip.extend(self.id.to_be_bytes());
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, protocol, 0, 0]);
        ip.extend(self.from.ip().octets());
        ip.extend(self.to.ip().octets());
        ip.extend(&self.options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(payload);
        ip
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
                data,
            } => {
                segment.extend(ports);
                segment.extend(seq.to_be_bytes());
                segment.extend(ack.to_be_bytes());
                segment.extend([0x50, *flags]);
                segment.extend(window.to_be_bytes());
                segment.extend([0; 4]);
                segment.extend(data);
                let sum = transport(*self.from.ip(), *self.to.ip(), 6, &segment);
                segment[16..18].copy_from_slice(&sum.to_be_bytes());
                (6, segment)
            }
            Payload::Udp { data, checksum } => {
                segment.extend(ports);
                segment.extend((8 + data.len() as u16).to_be_bytes());
                segment.extend([0, 0]);
                segment.extend(data);
                if *checksum {
                    let sum = match transport(*self.from.ip(), *self.to.ip(), 17, &segment) {
                        0 => 0xffff,
                        sum => sum,
                    };
                    segment[6..8].copy_from_slice(&sum.to_be_bytes());
                }
                (17, segment)
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
                let sum = checksum(&segment);
                segment[2..4].copy_from_slice(&sum.to_be_bytes());
                (1, segment)
            }
            Payload::Other(protocol, data) => (*protocol, data.clone()),
        }
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

fn transport(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, segment: &[u8]) -> u16 {
    let mut whole = [from.octets(), to.octets()].concat();
    whole.extend([0, protocol]);
    whole.extend((segment.len() as u16).to_be_bytes());
    whole.extend(segment);
    checksum(&whole)
}

/// What is wrong with a frame's checksums; `None` when all are right or there are none.
pub fn wrong_checksum(frame: &[u8]) -> Option<&'static str> {
    let l3 = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    if frame[l3 - 2..l3] != [0x08, 0x00] {
        return None;
    }
    let ip = &frame[l3..];
    let header_len = usize::from(ip[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if checksum(&ip[..header_len]) != 0 {
        return Some("IP");
    }
    // A fragment's checksum covers its siblings too.
    if u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0 {
        return None;
    }
    let end = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let segment = &ip[header_len..total];
    let sum = |protocol| transport(end(12), end(16), protocol, segment);
    match ip[9] {
        6 if sum(6) != 0 => Some("TCP"),
        17 if segment[6..8] != [0, 0] && sum(17) != 0 => Some("UDP"),
        1 if checksum(segment) != 0 => Some("ICMP"),
        _ => None,
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
        [8, 0, ip @ ..] if ip.len() >= 24 => {
            let header_len = usize::from(ip[0] & 15) * 4;
            let port = |at: usize| {
                ip.get(header_len + at..header_len + at + 2)
                    .map_or(0, |p| u16::from_be_bytes([p[0], p[1]]))
            };
            format!(
                "IP {}.{}.{}.{}.{} > {}.{}.{}.{}.{} proto {} ttl {} length {} flags {:02x}",
                ip[12],
                ip[13],
                ip[14],
                ip[15],
                port(0),
                ip[16],
                ip[17],
                ip[18],
                ip[19],
                port(2),
                ip[9],
                ip[8],
                u16::from_be_bytes([ip[2], ip[3]]),
                ip.get(header_len + 13).copied().unwrap_or(0),
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

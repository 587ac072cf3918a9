//! Packets as somebody may send them, and packets as they are described.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::checksum::{ipv4_header, transport};
use crate::wire::ethernet;
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, SCTP, TCP, Tuple, UDP};
use crate::wire::sctp;

/// A packet's hops when it comes in.
const TTL: u8 = 64;
const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
/// What a SYN announces: what fits an Ethernet frame.
const MSS: u16 = 1460;
const MSS6: u16 = 1440;
/// More layers than any packet of ours has.
const LAYERS_MAX: usize = 8;

/// TCP's flags, by their letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u8);

/// In the order of their bits.
const LETTERS: [char; 6] = ['F', 'S', 'R', 'P', 'A', 'U'];

impl Flags {
    pub const SYN: Self = Self(2);
    const ACK: u8 = 0x10;
}

impl FromStr for Flags {
    type Err = String;

    /// `S`, `SA`, `FPA`; `.` for none.
    fn from_str(text: &str) -> Result<Self, String> {
        let letters = text.chars().filter(|letter| *letter != '.');
        let bits = letters.map(|letter| {
            let bit = LETTERS
                .iter()
                .position(|known| known.eq_ignore_ascii_case(&letter));
            bit.ok_or_else(|| format!("{letter} is no TCP flag, some of SAFRPU is right"))
        });
        bits.map(|bit| Ok(1 << bit?))
            .try_fold(0, |all, bit: Result<u8, String>| Ok(all | bit?))
            .map(Self)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |bit: &(usize, char)| self.0 >> bit.0 & 1 != 0;
        if self.0 & 0x3f == 0 {
            return f.write_char('.');
        }
        // SYN first, as people say it.
        for bit in [1, 0, 2, 3, 4, 5]
            .map(|bit| (bit, LETTERS[bit]))
            .iter()
            .filter(|b| set(b))
        {
            f.write_char(bit.1)?;
        }
        Ok(())
    }
}

/// A packet that nobody sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub tuple: Tuple,
    /// Of a TCP segment.
    pub flags: Flags,
    /// What is in it.
    pub payload: Vec<u8>,
    /// Of the IP packet, at least; the payload grows.
    pub length: u16,
}

impl Sample {
    /// From one station to another.
    pub fn frame(&self, from: [u8; 6], to: [u8; 6], vlan: Option<u16>) -> Vec<u8> {
        let v6 = self.tuple.to.is_ipv6();
        let (ethertype, header) = match v6 {
            false => (ethernet::IPV4, IPV4_HEADER),
            true => (ethernet::IPV6, IPV6_HEADER),
        };
        let (l2, len) = ethernet::header(to, from, vlan, ethertype);
        let segment = self.segment(usize::from(self.length).saturating_sub(header));
        let ip_len = u16::try_from(header + segment.len()).unwrap_or(u16::MAX);
        let mut frame = l2[..usize::from(len)].to_vec();
        match (self.tuple.from.ip(), self.tuple.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = [0; IPV4_HEADER];
                (ip[0], ip[8], ip[9]) = (0x45, TTL, self.tuple.protocol);
                ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
                // May not be cut, as the segments of every present system.
                ip[6] = 0x40;
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..].copy_from_slice(&to.octets());
                let sum = ipv4_header(&ip).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                frame.extend(ip);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut ip = [0; IPV6_HEADER];
                (ip[0], ip[6], ip[7]) = (0x60, self.tuple.protocol, TTL);
                let payload = ip_len.saturating_sub(40);
                ip[4..6].copy_from_slice(&payload.to_be_bytes());
                ip[8..24].copy_from_slice(&from.octets());
                ip[24..].copy_from_slice(&to.octets());
                frame.extend(ip);
            }
            _ => unreachable!("a tuple has one family"),
        }
        frame.extend(segment);
        frame
    }

    /// With its header and checksum, of so many bytes at least.
    fn segment(&self, length: usize) -> Vec<u8> {
        let Tuple { protocol, from, to } = self.tuple;
        let [from_port, to_port] = [from, to].map(|end| end.port().to_be_bytes());
        let mut segment = [from_port, to_port].concat();
        let sum_at = match protocol {
            TCP => {
                self.tcp(&mut segment, to.is_ipv6());
                Some(16)
            }
            UDP => {
                segment.extend([0; 4]);
                Some(6)
            }
            // A chunk that begins, or data.
            _ => {
                let first = if self.flags == Flags::SYN { 1 } else { 0 };
                segment.extend([0, 0, 0, 0, 0, 0, 0, 0, first, 0, 0, 20]);
                segment.extend([0; 16]);
                None
            }
        };
        segment.extend(&self.payload);
        segment.resize(segment.len().max(length), 0);
        if protocol == UDP {
            let len = u16::try_from(segment.len()).unwrap_or(u16::MAX);
            segment[4..6].copy_from_slice(&len.to_be_bytes());
        }
        match sum_at {
            Some(at) => {
                let sum = transport(from.ip(), to.ip(), protocol, &segment);
                let sum = if protocol == UDP && sum == 0 {
                    0xffff
                } else {
                    sum
                };
                segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            None => sctp::refresh(&mut segment),
        }
        segment
    }

    fn tcp(&self, segment: &mut Vec<u8>, v6: bool) {
        let begins = self.flags.0 & Flags::SYN.0 != 0;
        let acks = u8::from(self.flags.0 & Flags::ACK != 0);
        let words = if begins { 6 } else { 5 };
        segment.extend([
            0,
            0,
            0,
            1,
            0,
            0,
            0,
            acks,
            words << 4,
            self.flags.0,
            0xff,
            0xff,
        ]);
        segment.extend([0; 4]);
        debug_assert_eq!(segment.len(), TCP_HEADER);
        if begins {
            let [high, low] = if v6 { MSS6 } else { MSS }.to_be_bytes();
            segment.extend([2, 4, high, low]);
        }
    }
}

/// A frame's layers, outermost first, each with what matters of it.
pub(super) fn describe(frame: &[u8]) -> Vec<String> {
    let mut layers = Vec::new();
    let Some(link) = ethernet::Link::parse(frame) else {
        return vec!["truncated".to_owned()];
    };
    let vlan = link
        .vlan
        .map_or_else(String::new, |vlan| format!(" vlan {vlan}"));
    layers.push(format!(
        "Ethernet {} > {}{vlan}",
        mac(link.src),
        mac(link.dst)
    ));
    let rest = frame.get(link.l3..).unwrap_or_default();
    match link.ethertype {
        ethernet::IPV4 | ethernet::IPV6 => ip(rest, &mut layers),
        ethernet::ARP => layers.push(arp(rest)),
        other => layers.push(format!("type {other:04x}")),
    }
    layers
}

fn arp(message: &[u8]) -> String {
    let address = |at: usize| {
        let octets = message
            .get(at..at + 4)
            .and_then(|octets| octets.first_chunk::<4>());
        octets.map_or_else(String::new, |octets| IpAddr::from(*octets).to_string())
    };
    match message.get(7) {
        Some(1) => format!("ARP who has {}, tell {}", address(24), address(14)),
        _ => format!("ARP {} is here", address(14)),
    }
}

fn ip(packet: &[u8], layers: &mut Vec<String>) {
    let Some((from, to, ttl, protocol, payload, length)) = ip_parts(packet) else {
        return layers.push("IP, not valid".to_owned());
    };
    let name = if from.is_ipv4() { "IPv4" } else { "IPv6" };
    let ttl_name = if from.is_ipv4() { "ttl" } else { "hop limit" };
    layers.push(format!(
        "{name} {from} > {to} {ttl_name} {ttl} length {length}"
    ));
    if layers.len() < LAYERS_MAX {
        within(protocol, payload, layers);
    }
}

/// Addresses, TTL, protocol, what is in it, and its length.
fn ip_parts(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, u8, &[u8], usize)> {
    let v4 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<16>()?));
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            *packet.get(at..)?.first_chunk()?,
        )))
    };
    match packet.first()? >> 4 {
        4 => {
            let (header, length) = (usize::from(packet[0] & 15) * 4, word(2)?);
            let payload = packet.get(header..length.min(packet.len()))?;
            Some((
                v4(12)?,
                v4(16)?,
                *packet.get(8)?,
                *packet.get(9)?,
                payload,
                length,
            ))
        }
        6 => {
            let length = IPV6_HEADER + word(4)?;
            let payload = packet.get(IPV6_HEADER..length.min(packet.len()))?;
            Some((
                v6(8)?,
                v6(24)?,
                *packet.get(7)?,
                *packet.get(6)?,
                payload,
                length,
            ))
        }
        _ => None,
    }
}

fn within(protocol: u8, payload: &[u8], layers: &mut Vec<String>) {
    const GUE_PORT_HEADER: usize = UDP_HEADER + 4;
    let word = |at: usize| {
        let bytes = payload.get(at..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
    };
    let ports = || format!("{} > {}", word(0), word(2));
    match protocol {
        4 | 41 => ip(payload, layers),
        47 => {
            let with_sum = word(0) & 0x8000 != 0;
            layers.push(format!(
                "GRE{}",
                if with_sum { " with checksum" } else { "" }
            ));
            ip(
                payload
                    .get(if with_sum { 8 } else { 4 }..)
                    .unwrap_or_default(),
                layers,
            );
        }
        TCP => layers.push(tcp(payload, &ports())),
        UDP => {
            layers.push(format!("UDP {}", ports()));
            let gue = payload.get(UDP_HEADER..GUE_PORT_HEADER);
            // Version 0, no control message, and what is in it is IP.
            if let Some([first, inside @ (4 | 41), ..]) = gue
                && first & 0xe0 == 0
                && let Some(rest) = payload.get(GUE_PORT_HEADER + usize::from(first & 31) * 4..)
                && ip_parts(rest).is_some_and(|parts| parts.4.len() <= rest.len())
            {
                layers.push("GUE".to_owned());
                within(*inside, rest, layers);
            }
        }
        SCTP => layers.push(format!("SCTP {}", ports())),
        1 => layers.push(format!("ICMP type {} code {}", word(0) >> 8, word(0) & 255)),
        58 => layers.push(format!(
            "ICMPv6 type {} code {}",
            word(0) >> 8,
            word(0) & 255
        )),
        other => layers.push(format!("protocol {other}")),
    }
}

fn tcp(segment: &[u8], ports: &str) -> String {
    let flags = Flags(segment.get(13).copied().unwrap_or(0));
    let mut text = format!("TCP {ports} [{flags}]");
    let words = segment.get(12).map_or(5, |byte| usize::from(byte >> 4));
    let mut options = segment
        .get(TCP_HEADER..(words * 4).min(segment.len()))
        .unwrap_or_default();
    while let [kind, rest @ ..] = options {
        let len = match (kind, rest.first()) {
            (1, _) => 1,
            (0, _) | (_, None | Some(0 | 1)) => break,
            (_, Some(len)) => usize::from(*len),
        };
        match (kind, rest) {
            (2, [4, high, low, ..]) => {
                let _ = write!(text, " mss {}", u16::from_be_bytes([*high, *low]));
            }
            (254, _) => text += " toa",
            _ => {}
        }
        options = options.get(len..).unwrap_or_default();
    }
    text
}

/// `aa:bb:cc:dd:ee:ff`
pub(super) fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

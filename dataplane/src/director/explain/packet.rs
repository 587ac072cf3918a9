//! Packets as somebody may send them.

use std::net::IpAddr;
use std::str::FromStr;

use crate::wire::checksum::{ipv4_header, transport};
use crate::wire::ethernet;
use crate::wire::flow::{IPV4_HEADER, IPV6_HEADER, TCP, Tuple, UDP};
use crate::wire::sctp;

/// A packet's hops when it comes in.
const TTL: u8 = 64;
const TCP_HEADER: usize = 20;
/// What a SYN announces: what fits an Ethernet frame.
const MSS: u16 = 1460;
const MSS6: u16 = 1440;

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

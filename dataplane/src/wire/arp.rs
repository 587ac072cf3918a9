//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::ethernet;

pub const REQUEST: u16 = 1;
pub const REPLY: u16 = 2;
pub const LEN: usize = size_of::<Arp>();

const HARDWARE_ETHERNET: u16 = 1;

#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy, PartialEq, Eq,
)]
#[repr(C)]
pub struct Arp {
    pub hardware: U16,
    pub protocol: U16,
    pub hardware_len: u8,
    pub protocol_len: u8,
    pub operation: U16,
    pub sender_mac: [u8; 6],
    pub sender: [u8; 4],
    pub target_mac: [u8; 6],
    pub target: [u8; 4],
}

impl Arp {
    /// `None` when `bytes` end before the message does; trailing padding is ignored.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self::read_from_prefix(bytes).ok()?.0)
    }

    /// Whether it is about IPv4 over Ethernet; otherwise only the first eight bytes mean anything.
    pub fn is_ethernet_ipv4(&self) -> bool {
        self.hardware.get() == HARDWARE_ETHERNET
            && self.protocol.get() == ethernet::IPV4
            && self.hardware_len == 6
            && self.protocol_len == 4
    }

    /// Who has `target`? Tell `sender`.
    pub fn request(sender_mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self::new(REQUEST, (sender_mac, sender), ([0; 6], target))
    }

    /// The answer to this request: its target is at `mac`.
    pub fn answer(&self, mac: [u8; 6]) -> Self {
        let to = (self.sender_mac, self.sender.into());
        Self::new(REPLY, (mac, self.target.into()), to)
    }

    fn new(operation: u16, sender: ([u8; 6], Ipv4Addr), target: ([u8; 6], Ipv4Addr)) -> Self {
        Self {
            hardware: HARDWARE_ETHERNET.into(),
            protocol: ethernet::IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: operation.into(),
            sender_mac: sender.0,
            sender: sender.1.octets(),
            target_mac: target.0,
            target: target.1.octets(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let asked = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1,
        ];
        let request = Arp::request(
            [2, 0, 0, 0, 0, 9],
            [10, 0, 0, 9].into(),
            [10, 0, 0, 1].into(),
        );
        assert_eq!(request.as_bytes(), asked);
        assert_eq!(Arp::parse(&asked), Some(request));
        assert!(request.is_ethernet_ipv4());
        assert_eq!(Arp::parse(&asked[..LEN - 1]), None);

        let answered = [
            0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9,
        ];
        assert_eq!(request.answer([2, 0, 0, 0, 0, 1]).as_bytes(), answered);
    }
}

//! ICMP for IPv4 (RFC 792) and, in [`v6`], for IPv6 (RFC 4443).

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub const ECHO_REPLY: u8 = 0;
pub const UNREACHABLE: u8 = 3;
pub const SOURCE_QUENCH: u8 = 4;
pub const REDIRECT: u8 = 5;
pub const ECHO_REQUEST: u8 = 8;
pub const TIME_EXCEEDED: u8 = 11;
pub const PARAMETER_PROBLEM: u8 = 12;

pub const UNREACHABLE_NET: u8 = 0;
pub const UNREACHABLE_HOST: u8 = 1;
pub const UNREACHABLE_PROTOCOL: u8 = 2;
pub const UNREACHABLE_PORT: u8 = 3;
pub const FRAGMENTATION_NEEDED: u8 = 4;

pub mod v6 {
    pub const UNREACHABLE: u8 = 1;
    pub const TOO_BIG: u8 = 2;
    pub const TIME_EXCEEDED: u8 = 3;
    pub const PARAMETER_PROBLEM: u8 = 4;
    pub const ECHO_REQUEST: u8 = 128;
    pub const ECHO_REPLY: u8 = 129;
    pub const REDIRECT: u8 = 137;

    pub const NO_ROUTE: u8 = 0;
    pub const PROHIBITED: u8 = 1;
    pub const BEYOND_SCOPE: u8 = 2;
    pub const UNREACHABLE_ADDRESS: u8 = 3;
    pub const UNREACHABLE_PORT: u8 = 4;

    pub const ERRONEOUS_FIELD: u8 = 0;
    pub const UNKNOWN_NEXT_HEADER: u8 = 1;

    /// Whether a message of type `kind` reports an error.
    pub const fn is_error(kind: u8) -> bool {
        kind < 128
    }
}

pub const LEN: usize = size_of::<Icmp>();

/// The first eight bytes of every message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug, Clone, Copy)]
#[repr(C)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub checksum: U16,
    /// An echo's identifier and sequence number; an error's next-hop MTU or pointer.
    pub rest: U32,
}

/// Whether an ICMPv4 message of type `kind` reports an error; no error answers one of these.
pub const fn is_error(kind: u8) -> bool {
    matches!(
        kind,
        UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        let bytes = [3, 4, 0x12, 0x34, 0, 0, 0x05, 0xb4];
        let (icmp, _) = Icmp::read_from_prefix(&bytes).unwrap();
        assert_eq!((icmp.kind, icmp.code, icmp.checksum.get()), (3, 4, 0x1234));
        assert_eq!(icmp.rest.get(), 1460);
        assert_eq!(icmp.as_bytes(), bytes);
    }

    #[test]
    fn errors() {
        assert!([3, 4, 5, 11, 12].into_iter().all(is_error));
        assert!(![0, 8, 9, 10, 13, 14, 17, 18].into_iter().any(is_error));
    }
}

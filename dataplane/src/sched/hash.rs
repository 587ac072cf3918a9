//! The hash of an address, as LVS on kernels from 4.18 on.

use std::net::IpAddr;

/// 32 bits of an address: its number, or the xor of an IPv6 one's four words.
pub(super) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => words(address).into_iter().fold(0, |a, b| a ^ b),
    }
}

pub(super) fn words(address: std::net::Ipv6Addr) -> [u32; 4] {
    let bits = address.to_bits();
    #[expect(clippy::cast_possible_truncation, reason = "one word of four")]
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

/// A slot of 256 (`hash_32`).
pub(super) fn slot(value: u32) -> usize {
    (value.wrapping_mul(0x61c8_8647) >> 24) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_addresses() {
        for (address, expected) in [
            ("0.0.0.1", 97),
            ("10.0.0.1", 39),
            ("192.0.2.1", 50),
            ("192.0.2.2", 148),
            ("255.255.255.255", 158),
            ("2001:db8::1", 63),
            ("2001:db8:1::1", 184),
            ("fe80::1", 247),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(slot(fold(address)), expected, "{address}");
        }
        assert_eq!(slot(fold([192, 0, 2, 1].into()) + 40000), 214);
    }
}

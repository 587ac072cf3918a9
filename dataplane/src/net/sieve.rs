//! Whether an address may be in a set: most that are not are told by one bit.

use std::net::IpAddr;

/// Bits of a sieve, by their binary logarithm.
const SHIFT: u32 = 12;

/// Addresses are added and never removed: what left the set is asked of the set itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sieve(Box<[u64; 1 << (SHIFT - 6)]>);

impl Default for Sieve {
    fn default() -> Self {
        Self(Box::new([0; 1 << (SHIFT - 6)]))
    }
}

impl Sieve {
    pub fn add(&mut self, address: IpAddr) {
        let (word, bit) = place(address);
        self.0[word] |= bit;
    }

    /// `false`: it was never added.
    #[inline(always)]
    pub fn may_have(&self, address: IpAddr) -> bool {
        let (word, bit) = place(address);
        self.0[word] & bit != 0
    }
}

impl<'a> Extend<&'a IpAddr> for Sieve {
    fn extend<I: IntoIterator<Item = &'a IpAddr>>(&mut self, addresses: I) {
        addresses.into_iter().for_each(|address| self.add(*address));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "halves of words")]
#[inline(always)]
fn place(address: IpAddr) -> (usize, u64) {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            bits as u64 ^ (bits >> 64) as u64
        }
    };
    let at = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHIFT);
    (at as usize / 64, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn whatever_was_added_may_be_there_and_little_else() {
        let mut sieve = Sieve::default();
        let address = |n: u32| {
            [
                IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)),
                IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n).to_ipv6_mapped()),
            ]
        };
        let many = (0..50).flat_map(address).collect::<Vec<_>>();
        assert!(!many.iter().any(|address| sieve.may_have(*address)));
        sieve.extend(&many);
        assert!(many.iter().all(|address| sieve.may_have(*address)));
        let others = (50..1050).flat_map(address);
        assert!(others.filter(|address| sieve.may_have(*address)).count() < 200);
    }
}

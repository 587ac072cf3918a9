//! Which worker owns a packet: the one to which its client-side endpoint hashes.
//!
//! The endpoint is the source of a packet to a virtual address and the destination of any other, so
//! both directions of a connection meet at one worker. The hash is Toeplitz, as NICs compute it for
//! RSS, under our own key and redirection table, so that a NIC can be made to agree with it.

use std::net::{IpAddr, SocketAddr};

/// The key of the RSS specification's examples: any fixed key will do, every director uses the same.
pub const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// An IPv6 address and a port.
const ENDPOINT: usize = 18;
/// Entries of the redirection table: what most NICs have, or a multiple of it.
pub const RETA: usize = 128;

/// The rule as one worker applies it.
#[derive(Debug)]
pub struct Steer {
    me: usize,
    workers: usize,
    reta: usize,
    /// By the low bits of a hash: the redirection table, once over or repeated.
    owners: [u8; RETA],
    /// What each value of each byte of an endpoint adds to these bits.
    parts: Box<[[u8; 256]; ENDPOINT]>,
}

impl Steer {
    /// For worker `me` of `workers`.
    pub fn new(me: usize, workers: usize) -> Self {
        Self::over(me, workers, RETA)
    }

    /// With a redirection table of so many entries, a power of two and at most [`RETA`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "low bits are what is wanted"
    )]
    pub fn over(me: usize, workers: usize, reta: usize) -> Self {
        let mut parts = Box::new([[0; 256]; ENDPOINT]);
        for (at, part) in parts.iter_mut().enumerate() {
            for (value, low) in (0..=u8::MAX).zip(part) {
                *low = added(at, value) as u8;
            }
        }
        Self {
            me,
            workers,
            reta,
            owners: std::array::from_fn(|entry| (entry % reta % workers) as u8),
            parts,
        }
    }

    pub fn me(&self) -> usize {
        self.me
    }

    /// How many there are to own packets.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Entries of the redirection table.
    pub fn reta(&self) -> usize {
        self.reta
    }

    /// Whether there is anyone else to own a packet.
    pub fn is_alone(&self) -> bool {
        self.workers == 1
    }

    /// The worker that owns a connection whose client side is `endpoint`.
    pub fn home(&self, endpoint: SocketAddr) -> usize {
        let port = endpoint.port().to_be_bytes();
        match endpoint.ip() {
            IpAddr::V4(address) => self.home_at(address.octets(), port),
            IpAddr::V6(address) => self.home_at(address.octets(), port),
        }
    }

    /// The same of an address of 4 or 16 bytes, and a port, as they lie on the wire.
    #[inline(always)]
    pub fn home_at<const N: usize>(&self, address: [u8; N], port: [u8; 2]) -> usize {
        self.owner(self.low(&address) ^ self.of_port(N, port))
    }

    /// Which ports of `address`, as a client side, belong to this worker.
    pub fn share(&self, address: IpAddr) -> impl Fn(u16) -> bool + '_ {
        let (of_address, at) = match address {
            IpAddr::V4(address) => (self.low(&address.octets()), 4),
            IpAddr::V6(address) => (self.low(&address.octets()), 16),
        };
        move |port| self.owner(of_address ^ self.of_port(at, port.to_be_bytes())) == self.me
    }

    #[inline(always)]
    fn owner(&self, low: u8) -> usize {
        self.owners[usize::from(low) % RETA].into()
    }

    /// The low bits of what the first bytes hash to.
    #[inline(always)]
    fn low(&self, bytes: &[u8]) -> u8 {
        let parts = bytes.iter().zip(self.parts.iter());
        parts.fold(0, |low, (byte, part)| low ^ part[usize::from(*byte)])
    }

    /// What a port behind `at` bytes adds to them.
    #[inline(always)]
    fn of_port(&self, at: usize, [high, low]: [u8; 2]) -> u8 {
        self.parts[at][usize::from(high)] ^ self.parts[at + 1][usize::from(low)]
    }
}

/// What a NIC with our key hashes an endpoint to.
pub fn hash_of(endpoint: SocketAddr) -> u32 {
    let [high, low] = endpoint.port().to_be_bytes();
    let (of_address, at) = match endpoint.ip() {
        IpAddr::V4(address) => (toeplitz(&address.octets()), 4),
        IpAddr::V6(address) => (toeplitz(&address.octets()), 16),
    };
    of_address ^ added(at, high) ^ added(at + 1, low)
}

fn toeplitz(bytes: &[u8]) -> u32 {
    let bytes = bytes.iter().enumerate();
    bytes.fold(0, |hash, (at, byte)| hash ^ added(at, *byte))
}

/// What this value of the byte at `at` adds to a hash.
fn added(at: usize, value: u8) -> u32 {
    let set = (0..8).filter(|bit| value & (0x80 >> bit) != 0);
    set.fold(0, |hash, bit| hash ^ window(at * 8 + bit))
}

/// The redirection table of a NIC that has `entries`, by which packets arrive at home where workers go
/// by one of `reta`: which worker's queue each entry names. `None` if no table of that size does.
pub fn table(entries: usize, reta: usize, workers: usize) -> Option<Vec<u16>> {
    let agrees = reta > 0 && entries.is_power_of_two() && entries.is_multiple_of(reta);
    let queue = |entry: usize| u16::try_from(entry.checked_rem(reta)? % workers).ok();
    let table: Option<Vec<u16>> = (0..entries).map(queue).collect();
    table.filter(|_| agrees)
}

/// The 32 bits of the key from bit `at` on.
fn window(at: usize) -> u32 {
    (at..at + 32).fold(0, |bits, i| {
        bits << 1 | u32::from(KEY[i / 8] >> (7 - i % 8) & 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toeplitz_as_the_specification_computes_it() {
        // Microsoft's RSS verification suite, IPv4 only: 66.9.149.187 → 161.142.100.80. Its first six
        // bytes are source address and the destination's first two.
        let bytes = [66u8, 9, 149, 187, 161, 142, 100, 80];
        assert_eq!(toeplitz(&bytes), 0x323e_8fc2);
    }

    /// Workers go by the same hash as a NIC under our key and table.
    #[test]
    fn homes_are_where_the_hash_leads() {
        for workers in [2, 3, 16, 200] {
            let steer = Steer::new(0, workers);
            for n in 1..2000u16 {
                for client in ["198.51.100.7", "2001:db8::7"] {
                    let end = SocketAddr::new(client.parse().unwrap(), n.wrapping_mul(40_503));
                    let table = table(512, RETA, workers).unwrap();
                    let queue = table[hash_of(end) as usize % 512];
                    assert_eq!(steer.home(end), usize::from(queue));
                }
            }
        }
    }

    #[test]
    fn shares_are_homes() {
        for (me, address) in [(0, "198.51.100.7"), (2, "2001:db8::7")] {
            let steer = Steer::new(me, 3);
            let address = address.parse().unwrap();
            let share = steer.share(address);
            for port in 0..=u16::MAX {
                assert_eq!(
                    share(port),
                    steer.home(SocketAddr::new(address, port)) == me
                );
            }
        }
        assert!((0..=u16::MAX).all(Steer::new(0, 1).share([10, 0, 0, 1].into())));
    }

    /// Every NIC's table leads a hash where the workers' own does.
    #[test]
    fn tables_of_all_sizes_agree() {
        for (entries, reta) in [(128, 128), (512, 128), (64, 64), (2048, 64), (128, 64)] {
            let steer = Steer::over(0, 3, reta);
            let table = table(entries, reta, 3).unwrap();
            for hash in (0..1_000_000u32).step_by(997) {
                let queue = table[hash as usize & (entries - 1)];
                let [.., low] = hash.to_be_bytes();
                assert_eq!(usize::from(queue), steer.owner(low));
            }
        }
        for (entries, reta) in [(64, 128), (0, 128), (100, 100), (384, 128), (128, 0)] {
            assert_eq!(table(entries, reta, 3), None, "{entries} {reta}");
        }
    }

    #[test]
    fn load_spreads() {
        let steer = Steer::new(0, 3);
        let mut load = [0; 3];
        for port in 1024..4024 {
            for client in ["198.51.100.7", "2001:db8::7"] {
                load[steer.home(SocketAddr::new(client.parse().unwrap(), port))] += 1;
            }
        }
        assert!(load.iter().all(|n| (1600..2400).contains(n)), "{load:?}");
    }
}

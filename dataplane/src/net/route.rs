//! Longest prefix match.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;

/// An address and how many of its leading bits matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub address: IpAddr,
    /// 0 to 32, or to 128 for IPv6; more counts as that.
    pub length: u8,
}

impl Prefix {
    /// The bits that must agree, as in [`bits`].
    fn mask(self) -> u128 {
        let length = self.length.min(self.longest());
        u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
    }

    /// The bits that must agree, of its own.
    fn key(self) -> u128 {
        bits(self.address) & self.mask()
    }

    fn longest(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && bits(address) & self.mask() == self.key()
    }

    /// The prefix with zeros in the place of the bits that do not matter.
    #[must_use]
    pub fn network(self) -> Self {
        let left = self.key();
        let address = match self.address {
            IpAddr::V4(_) => Ipv4Addr::from_bits(high(left)).into(),
            IpAddr::V6(_) => IpAddr::V6(left.into()),
        };
        Self { address, ..self }
    }

    /// The subnet's broadcast address, if it has one: not in a /31 (RFC 3021) or /32, nor in IPv6.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) if self.length < 31 => {
                Some(address | Ipv4Addr::from_bits(high(!self.mask())))
            }
            _ => None,
        }
    }
}

/// An address, its first bit the highest, IPv4 padded with zeros.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An IPv4 address's part of [`bits`].
fn high(bits: u128) -> u32 {
    (bits >> 96) as u32
}

/// Where an address leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) interface: u16,
    /// `None`: the address itself is on the link.
    pub(super) via: Option<IpAddr>,
}

/// A table a family. A copy costs nothing until it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Routes {
    v4: Table,
    v6: Table,
}

impl Routes {
    /// A prefix that is there already keeps its target.
    pub(super) fn insert(&mut self, to: Prefix, target: Target) {
        self.table(to)
            .of_length(to)
            .entry(to.key())
            .or_insert(target);
    }

    pub(super) fn replace(&mut self, to: Prefix, target: Target) {
        self.table(to).of_length(to).insert(to.key(), target);
    }

    pub(super) fn remove(&mut self, to: Prefix) {
        self.table(to).remove(to);
    }

    /// The target of exactly this prefix.
    pub(super) fn get(&self, to: Prefix) -> Option<Target> {
        let table = if to.address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        table.get(to)
    }

    pub(super) fn lookup(&self, to: IpAddr) -> Option<Target> {
        match to {
            IpAddr::V4(_) => self.v4.lookup(bits(to)),
            IpAddr::V6(_) => self.v6.lookup(bits(to)),
        }
    }

    fn table(&mut self, of: Prefix) -> &mut Table {
        if of.address.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }
}

/// By a prefix's bits.
type Targets = HashMap<u128, Target>;

/// One hash table a prefix length, by mask, longest first: a lookup costs as many probes as there
/// are different lengths. Copies share what neither has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Table(Vec<(u128, Arc<Targets>)>);

impl Table {
    /// Where the table for `mask` is, or belongs.
    fn place(&self, mask: u128) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| mask.cmp(other))
    }

    fn of_length(&mut self, to: Prefix) -> &mut Targets {
        let mask = to.mask();
        let at = self.place(mask).unwrap_or_else(|at| {
            self.0.insert(at, (mask, Arc::default()));
            at
        });
        Arc::make_mut(&mut self.0[at].1)
    }

    fn remove(&mut self, to: Prefix) {
        let Ok(at) = self.place(to.mask()) else {
            return;
        };
        if !self.0[at].1.contains_key(&to.key()) {
            return;
        }
        let targets = Arc::make_mut(&mut self.0[at].1);
        targets.remove(&to.key());
        if targets.is_empty() {
            self.0.remove(at);
        }
    }

    fn get(&self, to: Prefix) -> Option<Target> {
        let at = self.place(to.mask()).ok()?;
        self.0[at].1.get(&to.key()).copied()
    }

    fn lookup(&self, to: u128) -> Option<Target> {
        self.0
            .iter()
            .find_map(|(mask, targets)| targets.get(&(to & mask)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(address: [u8; 4], length: u8) -> Prefix {
        Prefix {
            address: address.into(),
            length,
        }
    }

    fn target(interface: u16) -> Target {
        Target {
            interface,
            via: None,
        }
    }

    #[test]
    fn the_longest_wins() {
        let mut routes = Routes::default();
        routes.insert(prefix([0, 0, 0, 0], 0), target(0));
        routes.insert(prefix([10, 1, 2, 3], 32), target(3));
        routes.insert(prefix([10, 0, 0, 0], 8), target(1));
        routes.insert(prefix([10, 1, 0, 0], 16), target(2));
        routes.insert(prefix([10, 1, 9, 9], 16), target(9)); // the same prefix again
        let lookup = |a: [u8; 4]| routes.lookup(a.into()).unwrap().interface;
        assert_eq!(lookup([192, 0, 2, 1]), 0);
        assert_eq!(lookup([10, 9, 9, 9]), 1);
        assert_eq!(lookup([10, 1, 9, 9]), 2);
        assert_eq!(lookup([10, 1, 2, 3]), 3);
        assert_eq!(Routes::default().lookup([10, 1, 2, 3].into()), None);
    }

    #[test]
    fn families_are_apart() {
        let v6 = |text: &str, length| Prefix {
            address: text.parse().unwrap(),
            length,
        };
        let mut routes = Routes::default();
        routes.insert(prefix([0, 0, 0, 0], 0), target(4));
        assert_eq!(routes.lookup("::".parse().unwrap()), None);
        routes.insert(v6("::", 0), target(0));
        routes.insert(v6("2001:db8::", 32), target(1));
        routes.insert(v6("2001:db8:0:1::", 64), target(2));
        routes.insert(v6("2001:db8:0:1::7", 128), target(3));
        routes.insert(v6("2001:db8:0:1::7", 129), target(9)); // the same prefix again
        let lookup = |a: &str| routes.lookup(a.parse().unwrap()).unwrap().interface;
        assert_eq!(lookup("2001:db9::1"), 0);
        assert_eq!(lookup("2001:db8:0:2::1"), 1);
        assert_eq!(lookup("2001:db8:0:1:ffff::1"), 2);
        assert_eq!(lookup("2001:db8:0:1::7"), 3);
        assert_eq!(lookup("10.0.0.1"), 4);

        let net = v6("2001:db8:0:1::7", 64);
        assert_eq!(net.network(), v6("2001:db8:0:1::", 64));
        assert_eq!(
            prefix([10, 1, 2, 3], 20).network(),
            prefix([10, 1, 0, 0], 20)
        );
        assert_eq!(net.broadcast(), None);
        assert!(!v6("::", 0).contains([0, 0, 0, 0].into()));
    }

    #[test]
    fn broadcast_addresses() {
        assert_eq!(
            prefix([10, 0, 0, 1], 24).broadcast(),
            Some([10, 0, 0, 255].into())
        );
        assert_eq!(
            prefix([10, 0, 0, 1], 30).broadcast(),
            Some([10, 0, 0, 3].into())
        );
        assert_eq!(prefix([10, 0, 0, 1], 31).broadcast(), None);
        assert_eq!(prefix([10, 0, 0, 1], 32).broadcast(), None);
    }

    proptest! {
        #[test]
        fn equals_a_scan(
            prefixes in proptest::collection::vec((0u32..0x400, 20u8..=40), 0..40),
            to in 0u32..0x400,
        ) {
            let mut routes = Routes::default();
            let mut model: Vec<(Prefix, Target)> = Vec::new();
            for (i, (address, length)) in (0..).zip(prefixes) {
                let prefix = Prefix { address: Ipv4Addr::from_bits(address).into(), length };
                routes.insert(prefix, target(i));
                model.push((prefix, target(i)));
            }
            let to = IpAddr::from(Ipv4Addr::from_bits(to));
            // Of equal lengths the first: max_by_key would return the last.
            let best = model.iter().rev().filter(|(p, _)| p.contains(to)).max_by_key(|(p, _)| p.length.min(32));
            prop_assert_eq!(routes.lookup(to), best.map(|(_, t)| *t));
        }

        #[test]
        fn equals_a_scan_in_ipv6(
            prefixes in proptest::collection::vec((0u128..0x400, 116u8..=136), 0..40),
            to in 0u128..0x400,
        ) {
            let at = |low: u128| IpAddr::V6((0x2001_0db8 << 96 | low).into());
            let mut routes = Routes::default();
            let mut model: Vec<(Prefix, Target)> = Vec::new();
            for (i, (address, length)) in (0..).zip(prefixes) {
                let prefix = Prefix { address: at(address), length };
                routes.insert(prefix, target(i));
                model.push((prefix, target(i)));
            }
            let to = at(to);
            let best = model.iter().rev().filter(|(p, _)| p.contains(to)).max_by_key(|(p, _)| p.length.min(128));
            prop_assert_eq!(routes.lookup(to), best.map(|(_, t)| *t));
        }
    }
}

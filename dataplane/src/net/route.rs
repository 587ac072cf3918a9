//! Longest prefix match.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

/// An address and how many of its leading bits matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub address: Ipv4Addr,
    /// 0 to 32; more counts as 32.
    pub length: u8,
}

impl Prefix {
    /// The bits that must agree.
    fn mask(self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.length.min(32)))
            .unwrap_or(0)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0
    }

    /// The subnet's broadcast address, if it has one: not in a /31 (RFC 3021) or /32.
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        (self.length < 31).then(|| Ipv4Addr::from_bits(self.address.to_bits() | !self.mask()))
    }
}

/// Where an address leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) interface: u16,
    /// `None`: the address itself is on the link.
    pub(super) via: Option<Ipv4Addr>,
}

/// One hash table a prefix length, longest first: a lookup costs as many probes as there are
/// different lengths.
#[derive(Debug, Default)]
pub(super) struct Routes(Vec<(Prefix, HashMap<u32, Target>)>);

impl Routes {
    /// A prefix that is there already keeps its target.
    pub(super) fn insert(&mut self, to: Prefix, target: Target) {
        let at = self
            .0
            .partition_point(|(length, _)| length.mask() > to.mask());
        if self
            .0
            .get(at)
            .is_none_or(|(length, _)| length.mask() != to.mask())
        {
            self.0.insert(at, (to, HashMap::new()));
        }
        self.0[at]
            .1
            .entry(to.address.to_bits() & to.mask())
            .or_insert(target);
    }

    pub(super) fn lookup(&self, to: Ipv4Addr) -> Option<Target> {
        self.0
            .iter()
            .find_map(|(length, targets)| targets.get(&(to.to_bits() & length.mask())).copied())
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
                let prefix = Prefix { address: Ipv4Addr::from_bits(address), length };
                routes.insert(prefix, target(i));
                model.push((prefix, target(i)));
            }
            let to = Ipv4Addr::from_bits(to);
            // Of equal lengths the first: max_by_key would return the last.
            let best = model.iter().rev().filter(|(p, _)| p.contains(to)).max_by_key(|(p, _)| p.length.min(32));
            prop_assert_eq!(routes.lookup(to), best.map(|(_, t)| *t));
        }
    }
}

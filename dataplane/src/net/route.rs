//! Longest prefix match; of several ways to a network, one for each flow.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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

/// A network's targets that a flow can have, each as often as its share says.
const SHARES_MAX: u32 = 64;

/// Where a network's packets leave.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    One(Target),
    /// Each flow by one of these; refused if there are none.
    Several(Arc<[Share]>),
}

/// A flow goes by the share that its number and the share's draw highest: a share that leaves takes
/// nobody's but its own flows along, on every worker and director alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    draw: u64,
    target: Target,
}

impl Way {
    fn new(targets: &[(Target, u16)]) -> Self {
        let divisor = targets
            .iter()
            .fold(0, |all, (_, weight)| gcd(all, u32::from(*weight)));
        let part = |weight: u16| u32::from(weight) / divisor.max(1);
        let all: u32 = targets.iter().map(|(_, weight)| part(*weight)).sum();
        let shares = targets.iter().flat_map(|&(target, weight)| {
            let fair = part(weight) * SHARES_MAX / all.max(SHARES_MAX);
            (0..u64::from(fair.max(1))).map(move |copy| Share {
                draw: mix(target.bits() ^ mix(copy)),
                target,
            })
        });
        Self::Several(shares.collect())
    }

    fn target(&self, flow: u64) -> Option<Target> {
        match self {
            Self::One(target) => Some(*target),
            Self::Several(shares) => {
                let highest = shares.iter().max_by_key(|share| mix(share.draw ^ flow));
                highest.map(|share| share.target)
            }
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::One(target) => vec![*target],
            Self::Several(shares) => {
                let mut targets: Vec<Target> = shares.iter().map(|share| share.target).collect();
                targets.dedup();
                targets
            }
        }
    }
}

impl Target {
    /// Those of its gateway, where it has one, so that all directors agree.
    fn bits(self) -> u64 {
        self.via.map_or(self.interface.into(), folded)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What stands for a flow where there are several ways.
pub fn flow_number(from: SocketAddr, to: SocketAddr) -> u64 {
    let ports = u64::from(from.port()) << 16 | u64::from(to.port());
    mix(mix(folded(from.ip())) ^ folded(to.ip()) ^ ports << 32)
}

#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn folded(address: IpAddr) -> u64 {
    let bits = bits(address);
    (bits >> 64) as u64 ^ bits as u64
}

/// Every bit depends on all (the last steps of MurmurHash3).
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
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
            .or_insert(Way::One(target));
    }

    /// Of so many targets, each with its weight; with none of them packets are refused.
    pub(super) fn replace_by(&mut self, to: Prefix, targets: &[(Target, u16)]) {
        let way = match targets {
            [(target, _)] => Way::One(*target),
            _ => Way::new(targets),
        };
        self.table(to).of_length(to).insert(to.key(), way);
    }

    pub(super) fn remove(&mut self, to: Prefix) {
        self.table(to).remove(to);
    }

    /// Whether there is no way to exactly this prefix.
    pub(super) fn is_free(&self, to: Prefix) -> bool {
        let table = if to.address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        !table.has(to)
    }

    /// The target of exactly this prefix, if it is one.
    pub(super) fn get(&self, to: Prefix) -> Option<Target> {
        let table = if to.address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        table.get(to)
    }

    /// The target of a flow to this address.
    pub(super) fn lookup(&self, to: IpAddr, flow: u64) -> Option<Target> {
        self.way(to)?.target(mix(folded(to)) ^ flow)
    }

    /// Of all flows.
    pub(super) fn all(&self, to: IpAddr) -> Vec<Target> {
        self.way(to).map(Way::targets).unwrap_or_default()
    }

    fn way(&self, to: IpAddr) -> Option<&Way> {
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
type Ways = HashMap<u128, Way>;

/// One hash table a prefix length, by mask, longest first: a lookup costs as many probes as there
/// are different lengths. Copies share what neither has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Table(Vec<(u128, Arc<Ways>)>);

impl Table {
    /// Where the table for `mask` is, or belongs.
    fn place(&self, mask: u128) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| mask.cmp(other))
    }

    fn of_length(&mut self, to: Prefix) -> &mut Ways {
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

    fn has(&self, to: Prefix) -> bool {
        let place = self.place(to.mask());
        place.is_ok_and(|at| self.0[at].1.contains_key(&to.key()))
    }

    fn get(&self, to: Prefix) -> Option<Target> {
        let at = self.place(to.mask()).ok()?;
        match self.0[at].1.get(&to.key())? {
            Way::One(target) => Some(*target),
            Way::Several(_) => None,
        }
    }

    fn lookup(&self, to: u128) -> Option<&Way> {
        self.0
            .iter()
            .find_map(|(mask, ways)| ways.get(&(to & mask)))
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
        let lookup = |a: [u8; 4]| routes.lookup(a.into(), 0).unwrap().interface;
        assert_eq!(lookup([192, 0, 2, 1]), 0);
        assert_eq!(lookup([10, 9, 9, 9]), 1);
        assert_eq!(lookup([10, 1, 9, 9]), 2);
        assert_eq!(lookup([10, 1, 2, 3]), 3);
        assert_eq!(Routes::default().lookup([10, 1, 2, 3].into(), 0), None);
    }

    #[test]
    fn families_are_apart() {
        let v6 = |text: &str, length| Prefix {
            address: text.parse().unwrap(),
            length,
        };
        let mut routes = Routes::default();
        routes.insert(prefix([0, 0, 0, 0], 0), target(4));
        assert_eq!(routes.lookup("::".parse().unwrap(), 0), None);
        routes.insert(v6("::", 0), target(0));
        routes.insert(v6("2001:db8::", 32), target(1));
        routes.insert(v6("2001:db8:0:1::", 64), target(2));
        routes.insert(v6("2001:db8:0:1::7", 128), target(3));
        routes.insert(v6("2001:db8:0:1::7", 129), target(9)); // the same prefix again
        let lookup = |a: &str| routes.lookup(a.parse().unwrap(), 0).unwrap().interface;
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

    fn gateway(last: u8) -> Target {
        let via = Some([10, 0, 0, last].into());
        Target { interface: 0, via }
    }

    /// How many of 10 000 flows each of the gateways 1 to 9 gets.
    fn flows(targets: &[(Target, u16)]) -> ([u32; 10], Vec<u8>) {
        let mut routes = Routes::default();
        routes.replace_by(prefix([0, 0, 0, 0], 0), targets);
        let (mut counts, mut chosen) = ([0; 10], Vec::new());
        for port in 0..10_000 {
            let from = SocketAddr::from(([192, 0, 2, 1], port));
            let flow = flow_number(from, ([203, 0, 113, 1], 80).into());
            let target = routes.lookup([192, 0, 2, 1].into(), flow).unwrap();
            let Some(IpAddr::V4(via)) = target.via else {
                unreachable!()
            };
            let last = via.octets()[3];
            counts[usize::from(last)] += 1;
            chosen.push(last);
        }
        (counts, chosen)
    }

    #[test]
    fn flows_are_spread_by_weight() {
        let (counts, _) = flows(&[(gateway(1), 100), (gateway(2), 300)]);
        assert!((2000..3000).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[1] + counts[2], 10_000);
        // Far apart: nobody is left out.
        let (counts, _) = flows(&[(gateway(1), 1), (gateway(2), 256)]);
        assert!((1..400).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn a_gateway_that_leaves_takes_only_its_own_flows_along() {
        let all = [1, 2, 3, 4].map(|last| (gateway(last), 1));
        let (_, before) = flows(&all);
        let (_, after) = flows(&all[..3]);
        for (before, after) in before.iter().zip(after) {
            assert!(*before == after || *before == 4);
        }
    }

    #[test]
    fn a_way_by_nobody_refuses() {
        let mut routes = Routes::default();
        routes.insert(prefix([0, 0, 0, 0], 0), target(0));
        routes.replace_by(prefix([10, 0, 0, 0], 8), &[]);
        assert_eq!(routes.lookup([10, 1, 2, 3].into(), 0), None);
        assert_eq!(routes.lookup([11, 1, 2, 3].into(), 0), Some(target(0)));
        assert_eq!(routes.all([10, 1, 2, 3].into()), []);
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
            prop_assert_eq!(routes.lookup(to, 9), best.map(|(_, t)| *t));
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
            prop_assert_eq!(routes.lookup(to, 9), best.map(|(_, t)| *t));
        }
    }
}

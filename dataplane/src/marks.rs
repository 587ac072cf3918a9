//! Marks of packets, which services by mark go by: set by rules of our own.
//!
//! Rules that look at the same parts of a packet (prefixes of the same lengths, a protocol or none,
//! …) make a *shape*: they are found together, by one look-up of those parts. So what a packet costs
//! grows with the shapes, of which people write few, and not with the rules.

use std::net::IpAddr;
use std::ops::BitAnd;

use control::{MarkRule, Ports, Prefix};
use hashbrown::HashMap;

use crate::packet::PortId;
use crate::wire::flow::Tuple;

/// The most rules.
pub const MARK_RULES_MAX: usize = 4096;

/// A rule, and the number of the port that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub said: MarkRule,
    /// Where packets come in; anywhere if `None`.
    pub from: Option<PortId>,
}

/// The rules, compiled.
#[derive(Debug, Default)]
pub struct Marks {
    rules: Vec<Rule>,
    /// Of IPv4 and IPv6 packets.
    shapes: [Vec<Shape>; 2],
    /// Destinations that are one address, by family (whether IPv6) and mark.
    addresses: HashMap<(bool, u32), Vec<IpAddr>>,
}

impl PartialEq for Marks {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Marks {}

impl Marks {
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut marks = Self {
            rules,
            ..Self::default()
        };
        for (at, rule) in (0..).zip(&marks.rules) {
            for ipv6 in [false, true] {
                if rule.said.is_of(ipv6) {
                    add(&mut marks.shapes[usize::from(ipv6)], at, rule);
                }
            }
            let only = rule.said.destination.and_then(Prefix::only);
            if let Some(address) = only.filter(|_| rule.said.mark != 0) {
                let key = (address.is_ipv6(), rule.said.mark);
                let addresses = marks.addresses.entry(key).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        marks
    }

    /// In order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The mark of a packet with this tuple that came in on port `from`, in this VLAN: what the first
    /// rule says that holds for it. 0 is none.
    pub fn of(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> u32 {
        self.first(tuple, from, vlan).1
    }

    /// The place of that rule, and its mark; `None` if no rule holds.
    pub fn rule_of(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> Option<(u32, u32)> {
        Some(self.first(tuple, from, vlan)).filter(|(at, _)| *at != u32::MAX)
    }

    #[inline(always)]
    fn first(&self, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> (u32, u32) {
        let key = Key::of(tuple, from, vlan);
        let (mut first, mut mark) = (u32::MAX, 0);
        for shape in &self.shapes[usize::from(tuple.to.is_ipv6())] {
            // Shapes come by their first rule.
            if shape.first >= first {
                break;
            }
            let Some(arms) = shape.arms.get(&(key & shape.mask)) else {
                continue;
            };
            let earlier = arms.iter().take_while(|arm| arm.at < first);
            if let Some(arm) = earlier.into_iter().find(|arm| arm.takes(tuple)) {
                (first, mark) = (arm.at, arm.mark);
            }
        }
        (first, mark)
    }

    /// The whole addresses to which packets of a mark may be sent: virtual ones, if there is a service.
    pub fn addresses(&self, ipv6: bool, mark: u32) -> &[IpAddr] {
        self.addresses.get(&(ipv6, mark)).map_or(&[], Vec::as_slice)
    }
}

/// Puts a rule, the last one so far, into its shape.
fn add(shapes: &mut Vec<Shape>, at: u32, rule: &Rule) {
    let (mask, value) = demands(rule);
    let place = shapes.iter().position(|shape| shape.mask == mask);
    let place = place.unwrap_or_else(|| {
        shapes.push(Shape {
            mask,
            first: at,
            arms: HashMap::new(),
        });
        shapes.len() - 1
    });
    shapes[place].arms.entry(value).or_default().push(Arm {
        at,
        source_ports: rule.said.source_ports.unwrap_or(Ports::ALL),
        ports: rule.said.ports.unwrap_or(Ports::ALL),
        mark: rule.said.mark,
    });
}

/// Rules that look at the same parts of a packet.
#[derive(Debug)]
struct Shape {
    mask: Key,
    /// Place of the first of them among all rules.
    first: u32,
    /// By what they want in those parts, in order.
    arms: HashMap<Key, Vec<Arm>>,
}

/// What a rule wants beside the parts that its shape compares.
#[derive(Debug)]
struct Arm {
    at: u32,
    source_ports: Ports,
    ports: Ports,
    mark: u32,
}

impl Arm {
    #[inline]
    fn takes(&self, tuple: &Tuple) -> bool {
        self.source_ports.contains(tuple.from.port()) && self.ports.contains(tuple.to.port())
    }
}

/// All that rules look at; or, as a mask, the parts of it that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Key {
    /// The first bit is the highest; IPv4 addresses are padded with zeros.
    source: u128,
    destination: u128,
    /// See [`rest`].
    rest: u64,
}

impl Key {
    #[inline]
    fn of(tuple: &Tuple, from: PortId, vlan: Option<u16>) -> Self {
        Self {
            source: bits(tuple.from.ip()),
            destination: bits(tuple.to.ip()),
            rest: rest(
                tuple.protocol,
                from.0,
                vlan.unwrap_or(0),
                tuple.from.port(),
                tuple.to.port(),
            ),
        }
    }
}

impl BitAnd for Key {
    type Output = Self;

    #[inline]
    fn bitand(self, mask: Self) -> Self {
        Self {
            source: self.source & mask.source,
            destination: self.destination & mask.destination,
            rest: self.rest & mask.rest,
        }
    }
}

/// The parts of a packet that a rule compares, as a mask, and what they must be. Ranges of ports are
/// no such parts.
fn demands(rule: &Rule) -> (Key, Key) {
    let said = &rule.said;
    let prefix = |prefix: Option<Prefix>| {
        prefix.map_or((0, 0), |prefix| {
            let spare = 128 - u32::from(prefix.length());
            let mask = u128::MAX.checked_shl(spare).unwrap_or(0);
            (mask, bits(prefix.address()))
        })
    };
    // What is not demanded is 0 in both.
    let byte = |byte: Option<u8>| byte.map_or((0, 0), |byte| (u8::MAX, byte));
    let word = |word: Option<u16>| word.map_or((0, 0), |word| (u16::MAX, word));
    let (source, destination) = (prefix(said.source), prefix(said.destination));
    let protocol = byte(said.protocol.map(control::Protocol::number));
    let (from, vlan) = (byte(rule.from.map(|from| from.0)), word(said.vlan));
    let source_port = word(said.source_ports.and_then(Ports::only));
    let port = word(said.ports.and_then(Ports::only));
    let mask = Key {
        source: source.0,
        destination: destination.0,
        rest: rest(protocol.0, from.0, vlan.0, source_port.0, port.0),
    };
    let value = Key {
        source: source.1,
        destination: destination.1,
        rest: rest(protocol.1, from.1, vlan.1, source_port.1, port.1),
    };
    (mask, value)
}

/// Everything but the addresses, side by side; no tag is VLAN 0.
#[inline]
fn rest(protocol: u8, from: u8, vlan: u16, source_port: u16, port: u16) -> u64 {
    u64::from(protocol) << 56
        | u64::from(from) << 48
        | u64::from(vlan) << 32
        | u64::from(source_port) << 16
        | u64::from(port)
}

#[inline]
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use control::Protocol;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn tuple(protocol: u8, from: &str, to: &str) -> Tuple {
        Tuple {
            protocol,
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        }
    }

    fn to(mark: u32, destination: &str, ports: &str) -> Rule {
        Rule {
            said: MarkRule {
                destination: Some(destination.parse().unwrap()),
                ports: Some(ports.parse().unwrap()),
                ..MarkRule::new(mark)
            },
            from: None,
        }
    }

    #[test]
    fn the_first_that_holds_decides() {
        let marks = Marks::new(vec![
            to(0, "192.0.2.1", "22"),
            to(7, "192.0.2.1", "0-1023"),
            to(8, "192.0.2.0/24", "80"),
            to(9, "192.0.2.2", "80"),
        ]);
        let mark = |at: &str| marks.of(&tuple(6, "10.0.0.1:999", at), PortId(0), None);
        assert_eq!(mark("192.0.2.1:22"), 0);
        assert_eq!(mark("192.0.2.1:80"), 7);
        assert_eq!(mark("192.0.2.2:80"), 8);
        assert_eq!(mark("192.0.2.2:81"), 0);
        assert_eq!(mark("[2001:db8::1]:80"), 0);
        assert_eq!(marks.addresses(false, 7), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(marks.addresses(false, 8), [] as [IpAddr; 0]);
        assert_eq!(marks.addresses(false, 0), [] as [IpAddr; 0]);
    }

    /// Whether a rule holds, part by part.
    fn holds(rule: &Rule, tuple: &Tuple, from: PortId, vlan: Option<u16>) -> bool {
        let within = |prefix: Option<Prefix>, address: IpAddr| {
            prefix.is_none_or(|prefix| {
                let (bits, network) = match (address, prefix.address()) {
                    (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into()),
                    (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits()),
                    _ => return false,
                };
                let width = if address.is_ipv4() { 32 } else { 128 };
                let differ: u128 = bits ^ network;
                (0..u32::from(prefix.length())).all(|bit| differ >> (width - 1 - bit) & 1 == 0)
            })
        };
        let said = &rule.said;
        within(said.source, tuple.from.ip())
            && within(said.destination, tuple.to.ip())
            && said.protocol.is_none_or(|p| p.number() == tuple.protocol)
            && (said.source_ports).is_none_or(|ports| ports.contains(tuple.from.port()))
            && said
                .ports
                .is_none_or(|ports| ports.contains(tuple.to.port()))
            && rule.from.is_none_or(|port| port == from)
            && said.vlan.is_none_or(|tag| vlan == Some(tag))
    }

    fn prefixes() -> impl Strategy<Value = Prefix> {
        let texts = [
            "10.0.0.0/8",
            "10.0.0.0/31",
            "10.0.0.1",
            "10.0.0.2",
            "0.0.0.0/0",
            "2001:db8::/32",
            "2001:db8::1",
            "::/0",
        ];
        select(texts.map(|text| text.parse().unwrap()).to_vec())
    }

    fn ports() -> impl Strategy<Value = Ports> {
        select(
            ["1", "2", "1-2", "2-65535", "0-65535"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
        )
    }

    fn rules() -> impl Strategy<Value = Rule> {
        let protocol = of(select(vec![Protocol::Tcp, Protocol::Udp]));
        let place = (of(0..2u8), of(1..3u16));
        let matches = (
            of(prefixes()),
            of(prefixes()),
            protocol,
            of(ports()),
            of(ports()),
            place,
        );
        (0..4u32, matches).prop_map(|(mark, matches)| {
            let (source, destination, protocol, source_ports, ports, (from, vlan)) = matches;
            Rule {
                said: MarkRule {
                    mark,
                    source,
                    destination,
                    protocol,
                    source_ports,
                    ports,
                    in_port: None,
                    vlan,
                },
                from: from.map(PortId),
            }
        })
    }

    fn tuples() -> impl Strategy<Value = Tuple> {
        let v4 = select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1"]);
        let v6 = select(vec!["2001:db8::1", "2001:db8::2", "2001:db9::1"]);
        let pair = prop_oneof![(v4.clone(), v4), (v6.clone(), v6)];
        (select(vec![6u8, 17]), pair, 0..4u16, 0..4u16).prop_map(
            |(protocol, (from, to), sp, dp)| {
                let at = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
                Tuple {
                    protocol,
                    from: at(from, sp),
                    to: at(to, dp),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn as_a_walk_through_the_rules(
            rules in vec(rules(), 0..12), tuple in tuples(), from in 0..2u8, vlan in of(1..3u16),
        ) {
            let from = PortId(from);
            let held = rules.iter().find(|rule| holds(rule, &tuple, from, vlan));
            let expected = held.map_or(0, |rule| rule.said.mark);
            prop_assert_eq!(Marks::new(rules).of(&tuple, from, vlan), expected);
        }
    }
}

//! Rules that mark packets, for services by mark: what iptables' `MARK` is to LVS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Protocol;

/// Marks the packets for which everything holds that it names. Rules have an order, and the first
/// that holds decides (unlike iptables' `MARK`, where the last one does).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkRule {
    /// 0 leaves a packet without a mark, whatever later rules say.
    pub mark: u32,
    #[serde(default)]
    pub source: Option<Prefix>,
    /// Of the same family as `source`.
    #[serde(default)]
    pub destination: Option<Prefix>,
    /// TCP, UDP and SCTP if `None`.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    #[serde(default)]
    pub source_ports: Option<Ports>,
    /// Destination ports.
    #[serde(default)]
    pub ports: Option<Ports>,
    /// Name of the director's port at which the packet comes in.
    #[serde(default)]
    pub in_port: Option<String>,
    /// Its tag, 1 to 4094; tagged or not if `None`.
    #[serde(default)]
    pub vlan: Option<u16>,
}

impl MarkRule {
    /// Of every packet.
    pub const fn new(mark: u32) -> Self {
        Self {
            mark,
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            ports: None,
            in_port: None,
            vlan: None,
        }
    }

    /// Whether it can hold for packets of a family.
    pub fn is_of(&self, ipv6: bool) -> bool {
        let mut prefixes = [self.source, self.destination].into_iter().flatten();
        prefixes.all(|prefix| prefix.address.is_ipv6() == ipv6)
    }
}

/// `mark 7: to 192.0.2.10, tcp, port 80`
impl fmt::Display for MarkRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        said.extend(self.source.map(|source| format!("from {source}")));
        said.extend(self.destination.map(|to| format!("to {to}")));
        said.extend(self.protocol.map(|protocol| protocol.name().to_owned()));
        said.extend(
            self.source_ports
                .map(|ports| format!("source port {ports}")),
        );
        said.extend(self.ports.map(|ports| format!("port {ports}")));
        said.extend(self.in_port.as_ref().map(|name| format!("in at {name}")));
        said.extend(self.vlan.map(|vlan| format!("vlan {vlan}")));
        match said.is_empty() {
            true => write!(f, "mark {}: every packet", self.mark),
            false => write!(f, "mark {}: {}", self.mark, said.join(", ")),
        }
    }
}

/// Which [`MarkRule`] of the list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhichMark {
    /// From 1 on.
    Number(usize),
    /// The one that says exactly this.
    Rule(MarkRule),
}

/// A network: the addresses that share their first `length` bits.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// One address.
    pub const fn whole(address: IpAddr) -> Self {
        let length = longest(address);
        Self { address, length }
    }

    /// The network that `address` is in; `None` if an address of its family has fewer bits.
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        (length <= longest(address)).then(|| Self {
            address: network(address, length),
            length,
        })
    }

    /// Zeros follow its first [`Self::length`] bits.
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// 0 to 32, or to 128 for IPv6.
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether it has the address; never one of the other family.
    pub fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && network(address, self.length) == self.address
    }

    /// The address, if it is but one.
    pub const fn only(self) -> Option<IpAddr> {
        if self.length == longest(self.address) {
            Some(self.address)
        } else {
            None
        }
    }
}

const fn longest(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// `address` with zeros after its first `length` bits.
fn network(address: IpAddr, length: u8) -> IpAddr {
    let spare = u32::from(longest(address) - length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(spare).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(spare).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// `10.0.0.0/8`, `2001:db8::/32`; `10.0.0.1` for a whole address.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(address) => address.fmt(f),
            None => write!(f, "{}/{}", self.address, self.length),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not a network, 10.0.0.0/8, 10.0.0.1 or 2001:db8::/32 is right");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let length = match length {
            Some(digits) => number(digits)
                .filter(|length| *length <= longest(address))
                .ok_or_else(wrong)?,
            None => longest(address),
        };
        let right = Self {
            address: network(address, length),
            length,
        };
        if right.address != address {
            return Err(format!(
                "{text} has bits set after its first {length}, {right} is right"
            ));
        }
        Ok(right)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// A port, or those from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    pub const fn one(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    #[inline]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The port, if it is but one.
    pub const fn only(self) -> Option<u16> {
        if self.first == self.last {
            Some(self.first)
        } else {
            None
        }
    }
}

/// `80`, `8000-8010`
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(port) => port.fmt(f),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(first), Some(last)) => Err(format!("{text} is empty, {last}-{first} is right")),
            _ => Err(format!("{text:?} is not a port, 80 or 8000-8010 is right")),
        }
    }
}

/// In digits and nothing else.
fn number<T: FromStr>(digits: &str) -> Option<T> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_text() {
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.10",
            "2001:db8::/32",
            "::/0",
            "::1",
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), text);
        }
        let whole: Prefix = "192.0.2.10/32".parse().unwrap();
        assert_eq!(whole, Prefix::whole([192, 0, 2, 10].into()));
        assert_eq!(whole.only(), Some([192, 0, 2, 10].into()));
        let complaint = |text: &str| text.parse::<Prefix>().unwrap_err();
        assert_eq!(
            complaint("10.0.0.1/8"),
            "10.0.0.1/8 has bits set after its first 8, 10.0.0.0/8 is right"
        );
        assert_eq!(
            complaint("2001:db8::1/64"),
            "2001:db8::1/64 has bits set after its first 64, 2001:db8::/64 is right"
        );
        for text in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0/8",
            "",
            "::/129",
        ] {
            let said = complaint(text);
            assert!(
                said.ends_with("10.0.0.0/8, 10.0.0.1 or 2001:db8::/32 is right"),
                "{said}"
            );
        }
    }

    #[test]
    fn ports_as_text() {
        for text in ["80", "8000-8010", "0-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        let ports: Ports = "8000-8010".parse().unwrap();
        assert!(ports.contains(8000) && ports.contains(8010));
        assert!(!ports.contains(7999) && !ports.contains(8011));
        assert_eq!("7-7".parse(), Ok(Ports::one(7)));
        let complaint = |text: &str| text.parse::<Ports>().unwrap_err();
        assert_eq!(
            complaint("8010-8000"),
            "8010-8000 is empty, 8000-8010 is right"
        );
        for text in ["http", "65536", "-1", "1-", "+1", ""] {
            let said = complaint(text);
            assert!(
                said.ends_with("is not a port, 80 or 8000-8010 is right"),
                "{said}"
            );
        }
    }

    #[test]
    fn rules_as_json_and_in_words() {
        let rule = MarkRule {
            destination: Some("192.0.2.10".parse().unwrap()),
            protocol: Some(Protocol::Tcp),
            ports: Some("8000-8010".parse().unwrap()),
            ..MarkRule::new(7)
        };
        let json = r#"{"mark":7,"destination":"192.0.2.10","protocol":"tcp","ports":"8000-8010"}"#;
        assert_eq!(serde_json::from_str::<MarkRule>(json).unwrap(), rule);
        let again = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<MarkRule>(&again).unwrap(), rule);
        assert_eq!(
            rule.to_string(),
            "mark 7: to 192.0.2.10, tcp, port 8000-8010"
        );
        assert_eq!(MarkRule::new(0).to_string(), "mark 0: every packet");
        assert!(rule.is_of(false) && !rule.is_of(true));
        assert!(MarkRule::new(1).is_of(false) && MarkRule::new(1).is_of(true));
        let refused = serde_json::from_str::<MarkRule>(r#"{"mark":7,"source":"10.0.0.1/8"}"#);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("10.0.0.0/8 is right")
        );
    }
}

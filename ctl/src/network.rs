//! The director's own network: its ports and their addresses, routes, static neighbours.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{PortSpec, Prefix, Word};

/// An address of a port's, or of a VLAN's of it, with the network around it.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The port's name.
    pub port: String,
    /// 1 to 4094; untagged if `None`.
    #[serde(default)]
    pub vlan: Option<u16>,
    pub prefix: AddressPrefix,
}

/// `10.0.0.254/24 on lan.100`
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.prefix, interface(&self.port, self.vlan))
    }
}

/// `lan`, or `lan.100` of a VLAN.
pub fn interface(port: &str, vlan: Option<u16>) -> String {
    match vlan {
        None => port.to_owned(),
        Some(vlan) => format!("{port}.{vlan}"),
    }
}

/// A station's address, and how many of its leading bits are its network's: `10.0.0.254/24`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct AddressPrefix {
    address: IpAddr,
    length: u8,
}

impl AddressPrefix {
    /// `None` if an address of its family has fewer bits.
    pub const fn new(address: IpAddr, length: u8) -> Option<Self> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if length > longest {
            return None;
        }
        Some(Self { address, length })
    }

    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// 0 to 32, or to 128 for IPv6.
    pub const fn length(self) -> u8 {
        self.length
    }
}

impl fmt::Display for AddressPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for AddressPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, length) = text.split_once('/')?;
            Self::new(address.parse().ok()?, length.parse().ok()?)
        };
        parse().ok_or_else(|| {
            format!(
                "{text:?} is not an address with prefix length, 10.0.0.254/24 or 2001:db8::fe/64 is right"
            )
        })
    }
}

impl TryFrom<String> for AddressPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<AddressPrefix> for String {
    fn from(prefix: AddressPrefix) -> Self {
        prefix.to_string()
    }
}

/// Packets to a network that no port is on go to a gateway.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// There is one route to a network.
    pub to: Prefix,
    /// Of the same family, and on networks of ports.
    pub via: Gateways,
}

/// The most gateways of one route.
pub const GATEWAYS_MAX: usize = 16;

/// Where a route leads: to one gateway, or to several, each for a share of the flows.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "OneOrMore", into = "OneOrMore")]
#[schemars(with = "OneOrMore")]
pub struct Gateways(Vec<IpAddr>);

/// As it is written: `"10.0.0.1"` or `["10.0.0.1", "10.0.0.2"]`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    One(IpAddr),
    More(Vec<IpAddr>),
}

impl Gateways {
    /// In whatever order they are given.
    pub fn new(gateways: impl IntoIterator<Item = IpAddr>) -> Result<Self, String> {
        let mut all: Vec<IpAddr> = gateways.into_iter().collect();
        all.sort_unstable();
        let right = "\"10.0.0.1\" or [\"10.0.0.1\", \"10.0.0.2\"] is right";
        if all.is_empty() || all.len() > GATEWAYS_MAX {
            let count = all.len();
            return Err(format!(
                "{count} gateways cannot be, {right}, up to {GATEWAYS_MAX}"
            ));
        }
        let mut pairs = all.windows(2);
        if let Some(pair) = pairs.find(|pair| pair[0] == pair[1]) {
            return Err(format!("gateway {} is named twice, once is right", pair[0]));
        }
        if let Some(other) = all.iter().find(|other| other.is_ipv4() != all[0].is_ipv4()) {
            return Err(format!(
                "gateways {} and {other} are of two families, {right}",
                all[0]
            ));
        }
        Ok(Self(all))
    }

    /// At least one.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.0
    }

    pub fn is_ipv4(&self) -> bool {
        self.0.iter().all(IpAddr::is_ipv4)
    }
}

impl From<IpAddr> for Gateways {
    fn from(gateway: IpAddr) -> Self {
        Self(vec![gateway])
    }
}

impl TryFrom<OneOrMore> for Gateways {
    type Error = String;

    fn try_from(written: OneOrMore) -> Result<Self, String> {
        match written {
            OneOrMore::One(gateway) => Ok(gateway.into()),
            OneOrMore::More(all) => Self::new(all),
        }
    }
}

impl From<Gateways> for OneOrMore {
    fn from(Gateways(all): Gateways) -> Self {
        match all[..] {
            [one] => Self::One(one),
            _ => Self::More(all),
        }
    }
}

/// `10.0.0.1` or `10.0.0.1,10.0.0.2`
impl FromStr for Gateways {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed: Result<Vec<IpAddr>, _> = text.split(',').map(str::parse).collect();
        let all = parsed.map_err(|_| {
            "not an address, 10.0.0.5 or 2001:db8::5, or several with commas between them, is right".to_owned()
        })?;
        Self::new(all)
    }
}

impl fmt::Display for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(IpAddr::to_string).collect();
        f.write_str(&all.join(","))
    }
}

/// `0.0.0.0/0 via 10.0.0.1`
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.to, self.via)
    }
}

/// A neighbour whose Ethernet address is given: it is never asked and never forgotten.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct StaticNeighbour {
    /// On the network of a port.
    pub address: IpAddr,
    pub mac: Mac,
}

/// `10.0.0.7 at 02:00:00:00:00:07`
impl fmt::Display for StaticNeighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.address, self.mac)
    }
}

/// A station's own Ethernet address: neither a group's nor zero.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    pub fn new(bytes: [u8; 6]) -> Option<Self> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(())?;
        Self::new(bytes)
    }
}

/// `aa:bb:cc:dd:ee:ff`
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mac_text(self.0))
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("mac {text:?} is not a station's, 02:00:00:00:00:07 is right");
        Self::parse(text).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Whether one station on a network can have this address: no multicast, broadcast, loopback,
/// "this network", or IPv4 address in an IPv6 one's place. A subnet's broadcast address is one
/// here.
#[inline]
pub fn is_station(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            first != 0 && first < 224 && !address.is_loopback()
        }
        IpAddr::V6(address) => {
            !address.is_multicast()
                && !address.is_unspecified()
                && !address.is_loopback()
                && address.to_ipv4_mapped().is_none()
        }
    }
}

/// Of IPv6; in IPv4 169.254.0.0/16 is routed like others, as LVS does.
#[inline]
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// What a director's network is configured to be. A batch of changes that turns one into another
/// deletes before it adds: routes and neighbours, then addresses, then ports; and then ports first, and
/// addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub ports: Vec<PortSpec>,
    /// By port and VLAN, as they were added.
    pub addresses: Vec<Address>,
    /// By destination.
    pub routes: Vec<Route>,
    /// By address.
    pub neighbours: Vec<StaticNeighbour>,
    /// What comes from the kernel's sides of ports; it is nobody's to configure here.
    #[serde(skip_serializing_if = "KernelNetwork::is_empty")]
    pub kernel: KernelNetwork,
}

/// Addresses, routes and static neighbours that the kernel has on its sides of ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KernelNetwork {
    pub addresses: Vec<Address>,
    pub routes: Vec<KernelRoute>,
    pub neighbours: Vec<StaticNeighbour>,
}

impl KernelNetwork {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A route of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelRoute {
    pub to: Prefix,
    /// Each flow goes by one of them. None: packets are refused.
    pub hops: Vec<KernelHop>,
}

/// One of a route's ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KernelHop {
    pub port: String,
    #[serde(default)]
    pub vlan: Option<u16>,
    /// `None`: the stations themselves are on the port's network.
    #[serde(default)]
    pub via: Option<IpAddr>,
    /// Its share of flows, from 1.
    pub weight: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Neighbour {
    pub port: String,
    pub address: IpAddr,
    /// `aa:bb:cc:dd:ee:ff`, when known.
    pub mac: Option<String>,
    pub state: NeighbourState,
}

/// What is known of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NeighbourState {
    /// It was asked for, and has not answered yet.
    Incomplete,
    Reachable,
    /// Whether it is still there is being asked.
    Probing,
    /// It did not answer: packets to it are refused for a while.
    Failed,
    /// As it is configured; nobody asks.
    Static,
}

impl Word for NeighbourState {
    const ALL: &'static [Self] = &[
        Self::Incomplete,
        Self::Reachable,
        Self::Probing,
        Self::Failed,
        Self::Static,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Probing => "probing",
            Self::Failed => "failed",
            Self::Static => "static",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_text() {
        for text in ["10.0.0.254/24", "2001:db8::fe/64", "10.0.0.1/32"] {
            assert_eq!(text.parse::<AddressPrefix>().unwrap().to_string(), text);
        }
        for wrong in ["10.0.0.1", "10.0.0.1/33", "::1/129", "/24", "10.0.0.1/-1"] {
            let said = wrong.parse::<AddressPrefix>().unwrap_err();
            assert!(said.contains("10.0.0.254/24"), "{wrong}: {said}");
        }
        let address = Address {
            port: "lan".to_owned(),
            vlan: Some(100),
            prefix: "10.0.0.254/24".parse().unwrap(),
        };
        assert_eq!(address.to_string(), "10.0.0.254/24 on lan.100");
        let json = serde_json::to_value(&address).unwrap();
        let shown = serde_json::json!({ "port": "lan", "vlan": 100, "prefix": "10.0.0.254/24" });
        assert_eq!(json, shown);
    }

    #[test]
    fn gateways_as_text_and_as_a_list() {
        let both: Gateways = "10.0.0.2,10.0.0.1".parse().unwrap();
        assert_eq!(both.to_string(), "10.0.0.1,10.0.0.2");
        for (json, text) in [
            (serde_json::json!("10.0.0.1"), "10.0.0.1"),
            (
                serde_json::json!(["10.0.0.1", "10.0.0.2"]),
                "10.0.0.1,10.0.0.2",
            ),
        ] {
            let read: Gateways = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(serde_json::to_value(&read).unwrap(), json);
        }
        for wrong in ["", "10.0.0.1,", "10.0.0.1,10.0.0.1", "10.0.0.1,::1", "lan"] {
            assert!(wrong.parse::<Gateways>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ethernet_addresses_as_text() {
        let mac: Mac = "02:00:00:00:0A:ff".parse().unwrap();
        assert_eq!(mac.bytes(), [2, 0, 0, 0, 10, 255]);
        assert_eq!(mac.to_string(), "02:00:00:00:0a:ff");
        for wrong in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:07:08",
            "2:0:0:0:0:7",
            "+2:00:00:00:00:07",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }
}

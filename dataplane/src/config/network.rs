//! Interface addresses, `[[route]]` and `[[neighbour]]`: what must be reachable is.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use toml::Spanned;

use super::PortConf;
use super::file::{RawNeighbour, RawPort, RawRoute};
use super::reader::{Checked, Reader};
use crate::net::{Prefix, Route, StaticNeighbour, is_station};

/// The interfaces' addresses, for what must be reachable through them.
#[derive(Debug, Default)]
pub(super) struct Connected {
    addresses: HashSet<Ipv4Addr>,
    networks: Vec<Prefix>,
}

impl Connected {
    /// Whether another station may be there under `address`.
    fn reaches(&self, address: Ipv4Addr) -> bool {
        !self.addresses.contains(&address)
            && self
                .networks
                .iter()
                .any(|network| network.contains(address))
    }
}

impl Reader<'_> {
    pub(super) fn addresses(&self, raw: &[Spanned<String>]) -> Checked<Vec<Prefix>> {
        raw.iter().map(|raw| self.interface_address(raw)).collect()
    }

    fn interface_address(&self, raw: &Spanned<String>) -> Checked<Prefix> {
        let prefix = self.prefix(raw, "10.0.0.254/24")?;
        let Prefix { address, length } = prefix;
        let host = u32::from(address) & !mask(length);
        if length == 0 || !is_station(address) {
            let reason = format!(
                "{address}/{length} cannot be an interface's, a unicast one like 10.0.0.254/24 is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        if length < 31 && (host == 0 || host == !mask(length)) {
            let what = if host == 0 { "network" } else { "broadcast" };
            let reason =
                format!("{address} is the {what} address of its network, a host's is right");
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(prefix)
    }

    fn prefix(&self, raw: &Spanned<String>, example: &str) -> Checked<Prefix> {
        let text = raw.get_ref();
        let wrong =
            |why: &str| self.wrong(raw.span(), format!("{text:?} {why}, {example} is right"));
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| wrong("has no prefix length"))?;
        match address.parse() {
            Ok(IpAddr::V4(address)) => {
                let length = length.parse().ok().filter(|length| *length <= 32);
                Ok(Prefix {
                    address,
                    length: length.ok_or_else(|| wrong("has no prefix length of 0 to 32"))?,
                })
            }
            Ok(IpAddr::V6(_)) => Err(wrong("is IPv6, which is not supported yet")),
            Err(_) => Err(wrong("is not an IPv4 address with prefix length")),
        }
    }

    /// Notes the addresses of one port; no address and no network is on two interfaces.
    pub(super) fn connect(
        &self,
        connected: &mut Connected,
        raw: &RawPort,
        port: &PortConf,
    ) -> Checked<()> {
        let untagged = (&raw.addresses, &port.addresses);
        let tagged = raw
            .vlan
            .iter()
            .zip(&port.vlans)
            .map(|(raw, (_, vlan))| (&raw.addresses, vlan));
        for (raws, prefixes) in std::iter::once(untagged).chain(tagged) {
            let elsewhere = connected.networks.len();
            for (raw, prefix) in raws.iter().zip(prefixes) {
                if !connected.addresses.insert(prefix.address) {
                    let reason =
                        format!("address {} is given twice, once is right", prefix.address);
                    return Err(self.wrong(raw.span(), reason));
                }
                let network = Prefix {
                    address: network(*prefix),
                    length: prefix.length,
                };
                if connected.networks[..elsewhere].contains(&network) {
                    let (address, length) = (network.address, network.length);
                    let reason = format!(
                        "network {address}/{length} is on another interface already, one is right"
                    );
                    return Err(self.wrong(raw.span(), reason));
                }
                connected.networks.push(network);
            }
        }
        Ok(())
    }

    pub(super) fn routes(&self, raw: &[RawRoute], connected: &Connected) -> Checked<Vec<Route>> {
        let mut routes: Vec<Route> = Vec::new();
        for raw in raw {
            let to = self.prefix(&raw.to, "0.0.0.0/0")?;
            if network(to) != to.address {
                let reason = format!(
                    "route to {}/{} has bits beyond its length, {}/{} is right",
                    to.address,
                    to.length,
                    network(to),
                    to.length
                );
                return Err(self.wrong(raw.to.span(), reason));
            }
            if routes.iter().any(|other| other.to == to) {
                let reason = format!(
                    "a route to {}/{} is given twice, once is right",
                    to.address, to.length
                );
                return Err(self.wrong(raw.to.span(), reason));
            }
            routes.push(Route {
                to,
                via: self.neighbour_address(&raw.via, "gateway", connected)?,
            });
        }
        Ok(routes)
    }

    fn neighbour_address(
        &self,
        raw: &Spanned<String>,
        what: &str,
        connected: &Connected,
    ) -> Checked<Ipv4Addr> {
        let text = raw.get_ref();
        let address = match text.parse() {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => {
                let reason = format!(
                    "{what} {text} is IPv6, which is not supported yet, an IPv4 address is right"
                );
                return Err(self.wrong(raw.span(), reason));
            }
            Err(_) => {
                return Err(self.wrong(
                    raw.span(),
                    format!("{what} {text:?} is not an address, 10.0.0.1 is right"),
                ));
            }
        };
        if !connected.reaches(address) {
            let reason = format!(
                "{what} {address} is on no port's network, another station's address on one is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(address)
    }

    pub(super) fn neighbours(
        &self,
        raw: &[RawNeighbour],
        connected: &Connected,
    ) -> Checked<Vec<StaticNeighbour>> {
        let mut seen = HashSet::new();
        let mut neighbours = Vec::new();
        for raw in raw {
            let address = self.neighbour_address(&raw.address, "neighbour", connected)?;
            if !seen.insert(address) {
                let reason = format!("neighbour {address} is given twice, once is right");
                return Err(self.wrong(raw.address.span(), reason));
            }
            let mac = parse_mac(raw.mac.get_ref()).ok_or_else(|| {
                let reason = format!(
                    "mac {:?} is not a station's, 02:00:00:00:00:07 is right",
                    raw.mac.get_ref()
                );
                self.wrong(raw.mac.span(), reason)
            })?;
            neighbours.push(StaticNeighbour { address, mac });
        }
        Ok(neighbours)
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn network(prefix: Prefix) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(prefix.address) & mask(prefix.length))
}

/// A station's own address: neither a group's nor zero.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

//! Interface addresses, `[[route]]` and `[[neighbour]]`: what must be reachable is.

use std::collections::HashSet;
use std::net::IpAddr;

use toml::Spanned;

use super::PortConf;
use super::file::{RawNeighbour, RawPort, RawRoute};
use super::reader::{Checked, Reader};
use crate::net::{Prefix, Route, StaticNeighbour, is_global, is_station};

/// The interfaces' addresses, for what must be reachable through them.
#[derive(Debug, Default)]
pub(super) struct Connected {
    addresses: HashSet<IpAddr>,
    networks: Vec<Prefix>,
}

impl Connected {
    /// Whether another station may be there under `address`.
    fn reaches(&self, address: IpAddr) -> bool {
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
        let prefix = self.prefix(raw, "10.0.0.254/24", "2001:db8::fe/64")?;
        let Prefix { address, length } = prefix;
        let (example, longest) = match address {
            IpAddr::V4(_) => ("10.0.0.254/24", 32),
            IpAddr::V6(_) => ("2001:db8::fe/64", 128),
        };
        if is_station(address) && !is_global(address) {
            let reason = format!(
                "{address} is link-local, which each interface has one of by itself, one for all \
                 links like {example} is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        if length == 0 || !is_station(address) {
            let reason = format!(
                "{address}/{length} cannot be an interface's, a unicast one like {example} is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        // The two of a point-to-point link (RFC 3021, RFC 6164) and one alone have no such ones.
        let what = match address {
            _ if length >= longest - 1 => None,
            IpAddr::V4(_) if prefix.network() == prefix => Some("network"),
            IpAddr::V6(_) if prefix.network() == prefix => Some("routers' anycast"),
            IpAddr::V4(v4) if prefix.broadcast() == Some(v4) => Some("broadcast"),
            _ => None,
        };
        match what {
            None => Ok(prefix),
            Some(what) => {
                let reason =
                    format!("{address} is the {what} address of its network, a host's is right");
                Err(self.wrong(raw.span(), reason))
            }
        }
    }

    /// An address and a length; the examples are what would be right, by family.
    fn prefix(&self, raw: &Spanned<String>, v4: &str, v6: &str) -> Checked<Prefix> {
        let text = raw.get_ref();
        let (longest, example) = if text.contains(':') {
            (128, v6)
        } else {
            (32, v4)
        };
        let wrong =
            |why: String| self.wrong(raw.span(), format!("{text:?} {why}, {example} is right"));
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| wrong("has no prefix length".to_owned()))?;
        let address = address
            .parse()
            .map_err(|_| wrong("is not an address with prefix length".to_owned()))?;
        let length = length.parse().ok().filter(|length| *length <= longest);
        let length =
            length.ok_or_else(|| wrong(format!("has no prefix length of 0 to {longest}")))?;
        Ok(Prefix { address, length })
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
                let network = prefix.network();
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
            let to = self.prefix(&raw.to, "0.0.0.0/0", "::/0")?;
            let network = to.network();
            if network != to {
                let reason = format!(
                    "route to {}/{} has bits beyond its length, {}/{} is right",
                    to.address, to.length, network.address, network.length
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
            let via = self.neighbour_address(&raw.via, "gateway", connected)?;
            if via.is_ipv4() != to.address.is_ipv4() {
                let (family, other) = match via {
                    IpAddr::V4(_) => ("IPv4", "IPv6"),
                    IpAddr::V6(_) => ("IPv6", "IPv4"),
                };
                let reason = format!(
                    "gateway {via} is {family}, an {other} address is right for the route to {}/{}",
                    to.address, to.length
                );
                return Err(self.wrong(raw.via.span(), reason));
            }
            routes.push(Route { to, via });
        }
        Ok(routes)
    }

    /// The address of a `what` on one of the networks.
    fn neighbour_address(
        &self,
        raw: &Spanned<String>,
        what: &str,
        connected: &Connected,
    ) -> Checked<IpAddr> {
        let text = raw.get_ref();
        let Ok(address) = text.parse() else {
            let reason = format!("{what} {text:?} is not an address, 10.0.0.1 is right");
            return Err(self.wrong(raw.span(), reason));
        };
        if is_station(address) && !is_global(address) {
            let reason = format!(
                "{what} {address} is link-local, which does not say on which port, its address on a \
                 port's network is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
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

//! Interface addresses, `[[route]]` and `[[neighbour]]`: what must be reachable is.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use control::{Gateways, Mac};
use toml::Spanned;

use super::PortConf;
use super::file::{RawNeighbour, RawPort, RawRoute};
use super::reader::{Checked, Reader};
use crate::net::{Prefix, Route, StaticNeighbour, wrong_address, wrong_family, wrong_station};

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
        match wrong_address(prefix) {
            None => Ok(prefix),
            Some(reason) => Err(self.wrong(raw.span(), reason)),
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
            let mut all = Vec::new();
            for text in raw.via.get_ref().all() {
                let span = raw.via.span();
                let via = self.neighbour_address(text, span.clone(), "gateway", connected)?;
                if let Some(reason) = wrong_family(to, via) {
                    return Err(self.wrong(span, reason));
                }
                all.push(via);
            }
            let all = Gateways::new(all).map_err(|reason| self.wrong(raw.via.span(), reason))?;
            let all = all.addresses().iter();
            routes.extend(all.map(|&via| Route { to, via }));
        }
        Ok(routes)
    }

    /// The address of a `what` on one of the networks.
    fn neighbour_address(
        &self,
        text: &str,
        place: Range<usize>,
        what: &str,
        connected: &Connected,
    ) -> Checked<IpAddr> {
        let Ok(address) = text.parse() else {
            let reason = format!("{what} {text:?} is not an address, 10.0.0.1 is right");
            return Err(self.wrong(place, reason));
        };
        match wrong_station(what, address, connected.reaches(address)) {
            None => Ok(address),
            Some(reason) => Err(self.wrong(place, reason)),
        }
    }

    pub(super) fn neighbours(
        &self,
        raw: &[RawNeighbour],
        connected: &Connected,
    ) -> Checked<Vec<StaticNeighbour>> {
        let mut seen = HashSet::new();
        let mut neighbours = Vec::new();
        for raw in raw {
            let (text, place) = (raw.address.get_ref(), raw.address.span());
            let address = self.neighbour_address(text, place, "neighbour", connected)?;
            if !seen.insert(address) {
                let reason = format!("neighbour {address} is given twice, once is right");
                return Err(self.wrong(raw.address.span(), reason));
            }
            let mac: Mac = (raw.mac.get_ref().parse())
                .map_err(|reason: String| self.wrong(raw.mac.span(), reason))?;
            let mac = mac.bytes();
            neighbours.push(StaticNeighbour { address, mac });
        }
        Ok(neighbours)
    }
}

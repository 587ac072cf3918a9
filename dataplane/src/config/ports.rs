//! `[[port]]`: names, devices and descriptors.

use control::PortSpec;
use toml::Spanned;

use super::PortConf;
use super::file::RawPort;
use super::reader::{Checked, Reader};
use crate::control::model::{
    DESCRIPTORS, MTU_MIN, is_virtual, wrong_descriptors, wrong_device, wrong_name,
};
use crate::net::{IPV6_MTU_MIN, Prefix};
use crate::packet::{MTU_MAX, PORTS_MAX};

impl PortConf {
    /// Whether its device is a virtual one rather than a PCI address.
    pub fn is_virtual(&self) -> bool {
        is_virtual(&self.spec.device)
    }
}

impl Reader<'_> {
    /// `cores` are those of the workers.
    pub(super) fn ports(&self, raw: &[RawPort], cores: &[u16]) -> Checked<Vec<PortConf>> {
        let mut ports: Vec<PortConf> = Vec::new();
        for raw in raw {
            let port = self.port(raw, cores)?;
            let PortSpec { name, .. } = &port.spec;
            if ports.len() == PORTS_MAX {
                return Err(self.wrong(
                    raw.name.span(),
                    format!("too many ports, at most {PORTS_MAX} is right"),
                ));
            }
            let mut others = ports.iter().map(|other| &other.spec);
            if others.clone().any(|other| other.name == *name) {
                let reason = format!("a port named {name:?} exists already, name each once");
                return Err(self.wrong(raw.name.span(), reason));
            }
            let device = port.spec.device_name();
            if others.any(|other| other.device_name() == device) {
                let reason =
                    format!("device {device} is a port already, each device once is right");
                return Err(self.wrong(raw.device.span(), reason));
            }
            ports.push(port);
        }
        if ports.is_empty() {
            return Err(self.wrong(0..0, "no [[port]] is given, at least one is right"));
        }
        Ok(ports)
    }

    fn port(&self, raw: &RawPort, cores: &[u16]) -> Checked<PortConf> {
        let (name, device) = (raw.name.get_ref(), raw.device.get_ref());
        if let Some(reason) = wrong_name(name) {
            return Err(self.wrong(raw.name.span(), reason));
        }
        if let Some(reason) = wrong_device(device) {
            return Err(self.wrong(raw.device.span(), reason));
        }
        let mut vlans: Vec<(u16, Vec<Prefix>)> = Vec::new();
        for vlan in &raw.vlan {
            let id = self.number("VLAN id", Some(&vlan.id), 0, 1..=4094)?;
            if vlans.iter().any(|(other, _)| *other == id) {
                return Err(self.wrong(
                    vlan.id.span(),
                    format!("VLAN {id} of this port is given twice, once is right"),
                ));
            }
            vlans.push((id, self.addresses(&vlan.addresses)?));
        }
        let addresses = self.addresses(&raw.addresses)?;
        let default = PortSpec::new(name, device);
        let range = MTU_MIN.into()..=MTU_MAX.into();
        let mtu = self.number("mtu", raw.mtu.as_ref(), default.mtu, range)?;
        let mut all = vlans
            .iter()
            .flat_map(|(_, tagged)| tagged)
            .chain(&addresses);
        if let Some(raw) = &raw.mtu
            && mtu < IPV6_MTU_MIN
            && all.any(|prefix| prefix.address.is_ipv6())
        {
            let reason = format!(
                "mtu = {mtu} is too small for the port's IPv6 addresses, {IPV6_MTU_MIN} or more is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        let descriptors =
            |key, raw: &Option<_>, default| self.descriptors(key, raw.as_ref(), default);
        let spec = PortSpec {
            mtu,
            promiscuous: raw.promiscuous,
            partial_checksums: raw.partial_checksums.unwrap_or(default.partial_checksums),
            rx_descriptors: descriptors(
                "rx_descriptors",
                &raw.rx_descriptors,
                default.rx_descriptors,
            )?,
            tx_descriptors: descriptors(
                "tx_descriptors",
                &raw.tx_descriptors,
                default.tx_descriptors,
            )?,
            workers: self.polling(raw, cores)?,
            role: raw.role.as_ref().map(|role| *role.get_ref()),
            ..default
        };
        Ok(PortConf {
            spec,
            addresses,
            vlans,
        })
    }

    /// The cores of the workers that poll it, where they are named.
    fn polling(&self, raw: &RawPort, cores: &[u16]) -> Checked<Vec<u16>> {
        let Some(named) = &raw.workers else {
            return Ok(Vec::new());
        };
        let polling = self.cores(named)?;
        for (core, number) in named.get_ref().iter().zip(&polling) {
            if !cores.contains(number) {
                let reason = format!("core {number} has no worker, some of {cores:?} are right");
                return Err(self.wrong(core.span(), reason));
            }
        }
        match &raw.role {
            Some(role) if polling.len() < cores.len() => {
                let reason = "a role is for a port that all workers poll: each gets its own packets; \
                              no role, or no workers, is right";
                Err(self.wrong(role.span(), reason))
            }
            _ => Ok(polling),
        }
    }

    fn descriptors(&self, key: &str, raw: Option<&Spanned<i64>>, default: u16) -> Checked<u16> {
        let range = (*DESCRIPTORS.start()).into()..=(*DESCRIPTORS.end()).into();
        let number: u16 = self.number(key, raw, default, range)?;
        match (raw, wrong_descriptors(key, number)) {
            (Some(raw), Some(reason)) => Err(self.wrong(raw.span(), reason)),
            _ => Ok(number),
        }
    }
}

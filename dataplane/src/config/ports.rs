//! `[[port]]`: names, devices and descriptors.

use toml::Spanned;

use super::PortConf;
use super::file::RawPort;
use super::reader::{Checked, Reader, is_word};
use crate::net::{IPV6_MTU_MIN, Prefix};
use crate::packet::{MTU_MAX, PORTS_MAX};

const VDEV_PREFIX: &str = "net_";
/// Drivers of devices whose other end is a kernel or a virtual machine on this computer, which may
/// leave checksums to hardware that is not there.
const SHARED: [&str; 5] = [
    "net_af_packet",
    "net_af_xdp",
    "net_tap",
    "net_virtio_user",
    "net_vhost",
];
/// Unless the file says otherwise.
pub(super) const MTU: u16 = 1500;
pub(super) const DESCRIPTORS: u16 = 1024;

impl PortConf {
    /// Whether [`PortConf::device`] is a virtual device rather than a PCI address.
    pub fn is_virtual(&self) -> bool {
        self.device.starts_with(VDEV_PREFIX)
    }
}

impl Reader<'_> {
    pub(super) fn ports(&self, raw: &[RawPort]) -> Checked<Vec<PortConf>> {
        let mut ports: Vec<PortConf> = Vec::new();
        for raw in raw {
            let port = self.port(raw)?;
            if ports.len() == PORTS_MAX {
                return Err(self.wrong(
                    raw.name.span(),
                    format!("too many ports, at most {PORTS_MAX} is right"),
                ));
            }
            if ports.iter().any(|other| other.name == port.name) {
                let reason = format!(
                    "a port named {:?} exists already, name each once",
                    port.name
                );
                return Err(self.wrong(raw.name.span(), reason));
            }
            if ports
                .iter()
                .any(|other| device_name(&other.device) == device_name(&port.device))
            {
                let reason = format!(
                    "device {} is a port already, each device once is right",
                    device_name(&port.device)
                );
                return Err(self.wrong(raw.device.span(), reason));
            }
            ports.push(port);
        }
        if ports.is_empty() {
            return Err(self.wrong(0..0, "no [[port]] is given, at least one is right"));
        }
        Ok(ports)
    }

    fn port(&self, raw: &RawPort) -> Checked<PortConf> {
        if !is_word(raw.name.get_ref()) {
            let reason = format!(
                "port name {:?} cannot be one, letters, digits, - _ . are right",
                raw.name.get_ref()
            );
            return Err(self.wrong(raw.name.span(), reason));
        }
        let device = raw.device.get_ref();
        if !(is_vdev(device) || is_pci(device_name(device))) {
            let reason = format!(
                "device {device:?} is not one, a virtual device like \"net_af_packet0,iface=veth0\" \
                 or a PCI address like \"0000:3b:00.0\" is right"
            );
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
        let mtu = self.number("mtu", raw.mtu.as_ref(), MTU, 68..=MTU_MAX.into())?;
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
        Ok(PortConf {
            name: raw.name.get_ref().clone(),
            device: device.clone(),
            mtu,
            promiscuous: raw.promiscuous,
            partial_checksums: (raw.partial_checksums).unwrap_or_else(|| is_shared(device)),
            rx_descriptors: self.descriptors("rx_descriptors", raw.rx_descriptors.as_ref())?,
            tx_descriptors: self.descriptors("tx_descriptors", raw.tx_descriptors.as_ref())?,
            addresses,
            vlans,
        })
    }

    fn descriptors(&self, key: &str, raw: Option<&Spanned<i64>>) -> Checked<u16> {
        let number: u16 = self.number(key, raw, DESCRIPTORS, 64..=8192)?;
        match raw {
            Some(raw) if !number.is_power_of_two() => {
                let reason = format!(
                    "{key} = {number} is not a power of two, {} is right",
                    number.next_power_of_two()
                );
                Err(self.wrong(raw.span(), reason))
            }
            _ => Ok(number),
        }
    }
}

/// What the EAL calls `device`: what stands before its arguments.
fn device_name(device: &str) -> &str {
    device.split(',').next().unwrap_or(device)
}

fn is_vdev(device: &str) -> bool {
    let name = device_name(device);
    name.len() > VDEV_PREFIX.len() && name.starts_with(VDEV_PREFIX) && is_word(name)
}

pub(super) fn is_shared(device: &str) -> bool {
    SHARED.iter().any(|driver| device.starts_with(driver))
}

/// `0000:3b:00.0` or `3b:00.0`
fn is_pci(text: &str) -> bool {
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, slot) = match parts[..] {
        [domain, bus, slot] => (domain, bus, slot),
        [bus, slot] => ("0000", bus, slot),
        _ => return false,
    };
    let Some((device, function)) = slot.split_once('.') else {
        return false;
    };
    is_hex(domain, 4)
        && is_hex(bus, 2)
        && is_hex(device, 2)
        && function.len() == 1
        && (b'0'..=b'7').contains(&function.as_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::is_pci;

    #[test]
    fn pci_addresses() {
        for fine in ["0000:3b:00.0", "3b:00.1", "0000:3B:1f.7"] {
            assert!(is_pci(fine), "{fine}");
        }
        for wrong in [
            "",
            "3b",
            "3b:00",
            "0000:3b:00",
            "0000:3b:00.8",
            "000:3b:00.0",
            "0000:3g:00.0",
            "0:0000:3b:00.0",
            "3b:00.00",
        ] {
            assert!(!is_pci(wrong), "{wrong}");
        }
    }
}

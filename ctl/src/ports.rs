//! Ports as they are configured.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Word;
use crate::conf::{Key, array, quoted};

/// Drivers of devices whose other end is a kernel or a virtual machine on this computer, which may
/// leave checksums to hardware that is not there.
const SHARED: [&str; 5] = [
    "net_af_packet",
    "net_af_xdp",
    "net_tap",
    "net_virtio_user",
    "net_vhost",
];

/// Who is behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Their packets ask for services.
    Clients,
    /// Their packets answer clients, or local addresses.
    Servers,
}

impl Word for Role {
    const ALL: &'static [Self] = &[Self::Clients, Self::Servers];

    fn word(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Servers => "servers",
        }
    }
}

/// How a port's packets come to the workers that own them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Steering {
    /// A worker that receives another one's packet hands it on.
    #[default]
    Software,
    /// The device was told; the first packets show whether it does it.
    Trying,
    /// The device puts them into the right queues.
    Nic,
    /// By software, because the device hashes otherwise than it was told.
    OtherHash,
    /// By software, because the device does not tell its hashes.
    NoHash,
}

/// A NIC, physical or virtual, but for its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    pub name: String,
    /// A virtual device with its arguments, or a PCI address.
    pub device: String,
    /// The longest IP packet.
    pub mtu: u16,
    pub promiscuous: bool,
    /// Frames may come with TCP and UDP checksums that only sum the pseudo header.
    pub partial_checksums: bool,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// So that a NIC that can spreads packets over the workers as they own them; they do it by themselves
    /// where both are there, or nobody says.
    #[serde(default)]
    pub role: Option<Role>,
    /// Cores of the workers that have a queue of it each; empty for all workers, or as many as the device
    /// has queues.
    #[serde(default)]
    pub workers: Vec<u16>,
}

impl PortSpec {
    /// With defaults for all but its name and device.
    pub fn new(name: impl Into<String>, device: impl Into<String>) -> Self {
        let device = device.into();
        Self {
            name: name.into(),
            mtu: 1500,
            promiscuous: false,
            partial_checksums: SHARED.iter().any(|driver| device.starts_with(driver)),
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            role: None,
            workers: Vec::new(),
            device,
        }
    }

    /// What DPDK calls the device: what stands before its arguments.
    pub fn device_name(&self) -> &str {
        self.device.split(',').next().unwrap_or(&self.device)
    }

    /// As a file has them.
    pub fn keys(&self) -> Vec<Key> {
        let default = Self::new(&self.name, &self.device);
        let Self {
            name,
            device,
            mtu,
            promiscuous,
            partial_checksums,
            rx_descriptors,
            tx_descriptors,
            role,
            workers,
        } = self;
        vec![
            Key::needed("name", quoted(name)),
            Key::needed("device", quoted(device)),
            Key::new("mtu", mtu, default.mtu),
            Key::new("promiscuous", promiscuous, default.promiscuous),
            Key::new(
                "partial_checksums",
                partial_checksums,
                default.partial_checksums,
            ),
            Key::new("rx_descriptors", rx_descriptors, default.rx_descriptors),
            Key::new("tx_descriptors", tx_descriptors, default.tx_descriptors),
            Key::perhaps("role", role.map(|role| quoted(role.word()))),
            Key::new("workers", array(workers), array(&default.workers)),
        ]
    }
}

/// `lan: device "net_af_packet0,iface=veth0", mtu 9000`
impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: device {}", self.name, quoted(&self.device))?;
        let rest = self.keys().into_iter().skip(2);
        for key in rest.filter(|key| !key.is_default) {
            write!(f, ", {} {}", key.name, key.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        let plain = PortSpec::new("lan", "net_af_packet0,iface=veth0");
        assert_eq!(
            plain.to_string(),
            "lan: device \"net_af_packet0,iface=veth0\""
        );
        assert_eq!(plain.device_name(), "net_af_packet0");
        let other = PortSpec {
            mtu: 9000,
            partial_checksums: false,
            ..plain
        };
        assert_eq!(
            other.to_string(),
            "lan: device \"net_af_packet0,iface=veth0\", mtu 9000, partial_checksums false"
        );
    }
}

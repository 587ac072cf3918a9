//! Ports: they come and go, and their numbers are given anew.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use control::{Errno, PortSpec, Refusal};

use super::undo::{Transaction, Undo};
use super::{Model, refuse};
use crate::counters::PortPage;
use crate::net::{INTERFACES_MAX, Interface};
use crate::packet::{MTU_MAX, PORTS_MAX, PortId};

/// The least MTU, of IPv4 (RFC 791).
pub const MTU_MIN: u16 = 68;
/// Packets that a device may queue, in powers of two.
pub const DESCRIPTORS: RangeInclusive<u16> = 64..=8192;

const VDEV_PREFIX: &str = "net_";

/// Every port that there is or was, by number. A port that comes back under its name gets its number
/// back; numbers of ports that are gone are given to others when there is no more room.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    slots: Vec<Slot>,
    /// How many have gone so far.
    gone: u64,
}

#[derive(Debug, Clone)]
struct Slot {
    spec: PortSpec,
    /// Which of those that have gone it was, if it has.
    gone: Option<u64>,
    /// Takes off what was counted for others of its number.
    before: Arc<PortPage>,
}

impl Ports {
    pub(super) fn new(specs: impl IntoIterator<Item = PortSpec>) -> Self {
        let slot = |spec| Slot {
            spec,
            gone: None,
            before: Arc::default(),
        };
        Self {
            slots: specs.into_iter().map(slot).collect(),
            gone: 0,
        }
    }

    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = (PortId, &PortSpec)> {
        let slots = (0..).map(PortId).zip(&self.slots);
        let there = slots.filter(|(_, slot)| slot.gone.is_none());
        there.map(|(id, slot)| (id, &slot.spec))
    }

    /// One that is there.
    pub fn find(&self, name: &str) -> Option<PortId> {
        let mut there = self.iter();
        there.find(|(_, spec)| spec.name == name).map(|(id, _)| id)
    }

    pub fn get(&self, id: PortId) -> Option<&PortSpec> {
        let slot = self.slots.get(id.index());
        slot.filter(|slot| slot.gone.is_none())
            .map(|slot| &slot.spec)
    }

    /// By number, with those of ports that are gone.
    pub fn names(&self) -> Vec<String> {
        let slots = self.slots.iter();
        slots.map(|slot| slot.spec.name.clone()).collect()
    }

    /// Of a port that is there, or was.
    pub fn name(&self, id: PortId) -> String {
        let slot = self.slots.get(id.index());
        slot.map_or_else(|| id.index().to_string(), |slot| slot.spec.name.clone())
    }

    /// `lan, wan`
    pub fn listed(&self) -> String {
        let names: Vec<&str> = self.iter().map(|(_, spec)| spec.name.as_str()).collect();
        names.join(", ")
    }

    /// What is counted for a port less what was counted for others of its number: one page more.
    pub fn before(&self, id: PortId) -> Arc<PortPage> {
        let slot = self.slots.get(id.index());
        slot.map_or_else(Arc::default, |slot| Arc::clone(&slot.before))
    }

    /// `None` if there is no room. `closing` are not free yet.
    fn number(&self, name: &str, closing: &[PortId]) -> Option<PortId> {
        let slots = (0..).map(PortId).zip(&self.slots);
        let free = slots.filter(|(id, slot)| slot.gone.is_some() && !closing.contains(id));
        let mut same = free.clone().filter(|(_, slot)| slot.spec.name == name);
        let next = u8::try_from(self.slots.len()).ok().map(PortId);
        let next = next.filter(|id| id.index() < PORTS_MAX);
        let oldest = free.min_by_key(|(_, slot)| slot.gone);
        let same = same.next().map(|(id, _)| id);
        same.or(next).or(oldest.map(|(id, _)| id))
    }

    fn add(&mut self, id: PortId, spec: PortSpec, before: impl FnOnce() -> PortPage) {
        let gone = None;
        match self.slots.get_mut(id.index()) {
            Some(slot) if slot.spec.name == spec.name => (slot.spec, slot.gone) = (spec, gone),
            Some(slot) => {
                let before = Arc::new(before());
                *slot = Slot { spec, gone, before };
            }
            None => {
                let before = Arc::default();
                self.slots.push(Slot { spec, gone, before });
            }
        }
    }

    fn delete(&mut self, id: PortId) {
        self.gone += 1;
        self.slots[id.index()].gone = Some(self.gone);
    }
}

impl Model {
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    pub(super) fn add_port(
        &mut self,
        spec: &PortSpec,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if let Some(wrong) = wrong_port(spec) {
            return Err(refuse(Errno::Einval, wrong));
        }
        self.may_be_port(spec, &done.closed)?;
        let full = |what: &str, max: usize| {
            let detail = format!("there are {max} {what} already, no more is right");
            refuse(Errno::Enomem, detail)
        };
        let id = self.ports.number(&spec.name, &done.closed);
        let id = id.ok_or_else(|| full("ports", PORTS_MAX))?;
        let mut interfaces = self.network.interfaces().to_vec();
        if interfaces.len() >= INTERFACES_MAX {
            return Err(full("ports and VLANs", INTERFACES_MAX));
        }
        interfaces.push(Interface {
            port: id,
            vlan: None,
            // Known when the device is.
            mac: [0; 6],
            mtu: spec.mtu,
            partial_checksums: spec.partial_checksums,
            addresses: Vec::new(),
        });
        done.undo.push(Undo::Ports(self.ports.clone()));
        let pages = self.pages.iter().map(|page| page.port(id));
        let before = || PortPage::opposite(pages);
        self.ports.add(id, spec.clone(), before);
        done.opened.push(id);
        let old = self.network.set_interfaces(interfaces);
        done.undo.push(Undo::Interfaces(old));
        Ok(())
    }

    /// Name and device are nobody else's, nor those of ports that the same batch deletes: they are
    /// closed when all is carried out.
    fn may_be_port(&self, spec: &PortSpec, closing: &[PortId]) -> Result<(), Refusal> {
        let taken = |detail: String| Err(refuse(Errno::Eexist, detail));
        let (name, device) = (&spec.name, spec.device_name());
        for (_, other) in self.ports.iter() {
            if other.name == *name {
                return taken(format!("there is a port {name} already"));
            }
            if other.device_name() == device {
                return taken(format!(
                    "device {device} is port {} already, each device once is right",
                    other.name
                ));
            }
        }
        for id in closing {
            let other = &self.ports.slots[id.index()].spec;
            if other.name == *name || other.device_name() == device {
                return taken(format!(
                    "port {} with device {} is only being deleted, a change of its own after that is right",
                    other.name,
                    other.device_name()
                ));
            }
        }
        Ok(())
    }

    pub(super) fn delete_port(
        &mut self,
        name: &str,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let id = self.port_named(name, "deletion")?;
        let wrong = |detail: String| Err(refuse(Errno::Einval, detail));
        if self.ports.iter().count() == 1 {
            return wrong(format!(
                "port {name} is the only one, at least one is right"
            ));
        }
        if let Some(rule) = self.marks.iter().position(|rule| rule.from == Some(id)) {
            let rule = rule + 1;
            return wrong(format!(
                "mark rule {rule} is for packets from port {name}, delete that first"
            ));
        }
        let mut interfaces = self.network.interfaces().to_vec();
        interfaces.retain(|on| on.port != id);
        let old = self.network.set_interfaces(interfaces);
        if let Some(needs) = self.who_needs_more() {
            self.network.set_interfaces(old);
            return wrong(format!(
                "{needs} is reached by port {name}, delete that first"
            ));
        }
        done.undo.push(Undo::Interfaces(old));
        done.undo.push(Undo::Ports(self.ports.clone()));
        self.ports.delete(id);
        match done.opened.iter().position(|opened| *opened == id) {
            Some(place) => drop(done.opened.remove(place)),
            None => done.closed.push(id),
        }
        Ok(())
    }
}

/// Why there can be no such port, and what would be right.
fn wrong_port(spec: &PortSpec) -> Option<String> {
    let mtu = spec.mtu;
    let wrong_mtu = !(MTU_MIN..=MTU_MAX).contains(&mtu);
    let out_of_range = |key: &str, number: u16, low: u16, high: u16| {
        format!("{key} = {number} is out of range, {low} to {high} is right")
    };
    let descriptors = |key: &str, number: u16| {
        let (low, high) = (*DESCRIPTORS.start(), *DESCRIPTORS.end());
        if !DESCRIPTORS.contains(&number) {
            return Some(out_of_range(key, number, low, high));
        }
        wrong_descriptors(key, number)
    };
    wrong_name(&spec.name)
        .or_else(|| wrong_device(&spec.device))
        .or_else(|| wrong_mtu.then(|| out_of_range("mtu", mtu, MTU_MIN, MTU_MAX)))
        .or_else(|| descriptors("rx_descriptors", spec.rx_descriptors))
        .or_else(|| descriptors("tx_descriptors", spec.tx_descriptors))
        .or_else(|| wrong_workers(&spec.workers))
}

fn wrong_workers(cores: &[u16]) -> Option<String> {
    let mut before = HashSet::new();
    let twice = cores.iter().find(|core| !before.insert(**core))?;
    Some(format!("worker {twice} is named twice, once is right"))
}

/// Why no port can have this name, and what would be right.
pub fn wrong_name(name: &str) -> Option<String> {
    (!is_word(name))
        .then(|| format!("port name {name:?} cannot be one, letters, digits, - _ . are right"))
}

/// The same of its device.
pub fn wrong_device(device: &str) -> Option<String> {
    let name = device.split(',').next().unwrap_or(device);
    let is_one = if is_virtual(device) {
        name.len() > VDEV_PREFIX.len() && is_word(name)
    } else {
        is_pci(name)
    };
    let is_one = is_one && !device.contains(char::is_control);
    (!is_one).then(|| {
        format!(
            "device {device:?} is not one, a virtual device like \"net_af_packet0,iface=veth0\" \
             or a PCI address like \"0000:3b:00.0\" is right"
        )
    })
}

/// The same of a number of descriptors within [`DESCRIPTORS`].
pub fn wrong_descriptors(key: &str, number: u16) -> Option<String> {
    (!number.is_power_of_two()).then(|| {
        let right = number.next_power_of_two();
        format!("{key} = {number} is not a power of two, {right} is right")
    })
}

/// Whether it is a virtual device rather than a PCI address.
pub fn is_virtual(device: &str) -> bool {
    device.starts_with(VDEV_PREFIX)
}

/// Of letters, digits, `-`, `_` and `.`
pub fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
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

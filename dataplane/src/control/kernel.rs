//! What the kernel has on its sides of ports, taken over; and what it is given.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Control;
use super::hardware::Setting;
use crate::kernel::mirror::Mirror;
use crate::kernel::tables::{LinkId, Tables};
use crate::net::Prefix;

/// The kernel's tables as they were last, and the addresses that it has from us.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    tables: Option<Tables>,
    given: BTreeMap<(LinkId, IpAddr), u8>,
}

impl Control {
    /// Tells the workers what changed.
    pub(super) fn mirror(&mut self) {
        if self.is_busy() {
            return; // the next time will do
        }
        let Some(tables) = self.hardware.kernels_tables() else {
            return;
        };
        let mirror = Mirror::new(&tables, self.model.kernels_sides());
        let (addresses, routes) = (mirror.addresses.len(), mirror.routes.len());
        self.kernel.tables = Some(tables);
        let updates = self.model.mirror(mirror);
        if !updates.is_empty() {
            self.view = None;
            tracing::info!(addresses, routes, "the kernel's network changed");
        }
        self.ward.stale |= self.ward.uses_sides();
        self.post(updates);
        self.share_addresses();
    }

    /// The kernel's interface by which a probe goes to a virtual address.
    pub(super) fn side_toward(&self, address: IpAddr) -> Option<String> {
        let (name, vlan) = self.model.side_toward(address)?;
        if vlan.is_none() {
            return Some(name.to_owned());
        }
        let tables = self.kernel.tables.as_ref()?;
        let link = tables.links.get(&link(tables, name, vlan)?)?;
        Some(link.name.clone())
    }

    /// Gives the kernel the addresses that are configured here, and takes back what it was given and is
    /// configured no more.
    pub(super) fn share_addresses(&mut self) {
        let Kernel { tables, given } = &mut self.kernel;
        let Some(tables) = tables else {
            return;
        };
        let shared = self.model.shared_addresses();
        let wanted = shared.filter_map(|(name, vlan, prefix)| {
            let link = link(tables, name, vlan)?;
            Some(((link, prefix.address), prefix.length))
        });
        let wanted: BTreeMap<(LinkId, IpAddr), u8> = wanted.collect();
        let has = |link, address| {
            let mut all = tables.addresses.iter();
            all.any(|(on, known, _)| (*on, *known) == (link, address))
        };
        for (&(link, address), &length) in &wanted {
            if !has(link, address) {
                let prefix = Prefix { address, length };
                (self.hardware).set_kernels_address(link, prefix, Setting::Add);
            }
        }
        for (&(link, address), &length) in given.iter() {
            // What the tables say may be older than what was asked for here.
            if !wanted.contains_key(&(link, address)) {
                let prefix = Prefix { address, length };
                (self.hardware).set_kernels_address(link, prefix, Setting::Delete);
            }
        }
        *given = wanted;
    }
}

/// An interface of that name, or a VLAN on it.
fn link(tables: &Tables, name: &str, vlan: Option<u16>) -> Option<LinkId> {
    let untagged = tables.link(name)?;
    let Some(vlan) = vlan else {
        return Some(untagged);
    };
    let mut links = tables.links.iter();
    let tagged = links.find(|(_, link)| link.vlan == Some((untagged, vlan)));
    tagged.map(|(link, _)| *link)
}

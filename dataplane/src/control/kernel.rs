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
        self.node.stale = true;
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

    /// Gives the kernel the addresses that are configured here and those that are announced, and takes
    /// back what it was given and is not to have any more.
    pub(super) fn share_addresses(&mut self) {
        let announcements = self.announcements();
        let Kernel { tables, given } = &mut self.kernel;
        let Some(tables) = tables else {
            return;
        };
        let shared = self.model.shared_addresses();
        let wanted = shared.filter_map(|(name, vlan, prefix)| {
            let link = link(tables, name, vlan)?;
            Some(((link, prefix.address), prefix.length))
        });
        let mut wanted: BTreeMap<(LinkId, IpAddr), u8> = wanted.collect();
        let shown = announcements.shown.into_iter();
        wanted.extend(shown.map(|place| (place, whole(place.1))));
        // What the tables say may be older than what was asked for here.
        let has = |link, address| {
            let mut all = tables.addresses.iter();
            all.any(|(on, known, _)| (*on, *known) == (link, address))
        };
        // Left there by a director before this one.
        let left = announcements.withdrawn.into_iter();
        let left = left.filter(|&(link, address)| has(link, address));
        let left: Vec<_> = left.map(|place| (place, whole(place.1))).collect();
        let before = given.iter().map(|(&place, &length)| (place, length));
        let gone: BTreeMap<_, _> = (before.chain(left))
            .filter(|(place, _)| !wanted.contains_key(place))
            .collect();
        for (&(link, address), &length) in &wanted {
            if !has(link, address) {
                let prefix = Prefix { address, length };
                (self.hardware).set_kernels_address(link, prefix, Setting::Add);
            }
        }
        for (&(link, address), &length) in &gone {
            let prefix = Prefix { address, length };
            (self.hardware).set_kernels_address(link, prefix, Setting::Delete);
        }
        *given = wanted;
    }
}

impl Kernel {
    /// Whether its tables were read yet.
    pub(super) const fn is_known(&self) -> bool {
        self.tables.is_some()
    }

    /// An interface of that name.
    pub(super) fn link(&self, name: &str) -> Option<LinkId> {
        self.tables.as_ref()?.link(name)
    }
}

/// The length of the network that is one address.
const fn whole(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
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

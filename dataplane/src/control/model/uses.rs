//! What each address is used as: a local address is nothing else.

use std::collections::HashMap;
use std::net::IpAddr;

use control::{Errno, Refusal};

use super::refuse;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Service,
    Server,
    Local,
    /// The one destination of a rule that marks packets.
    Rule,
}

/// How often each address is used as what.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<IpAddr, [u32; 4]>);

impl Uses {
    pub(super) fn add(&mut self, address: IpAddr, what: Use) {
        self.0.entry(address).or_default()[what as usize] += 1;
    }

    pub(super) fn remove(&mut self, address: IpAddr, what: Use) {
        let Some(counts) = self.0.get_mut(&address) else {
            unreachable!("{address} is not used as {what:?}")
        };
        counts[what as usize] -= 1;
        if *counts == [0; 4] {
            self.0.remove(&address);
        }
    }

    pub(super) fn is_used(&self, address: IpAddr, what: Use) -> bool {
        let counts = self.0.get(&address);
        counts.is_some_and(|counts| counts[what as usize] > 0)
    }

    /// Replies to a local address are told apart from all else by it alone.
    pub(super) fn allow(&self, address: IpAddr, what: Use) -> Result<(), Refusal> {
        let Some([services, servers, locals, rules]) = self.0.get(&address) else {
            return Ok(());
        };
        let other = match what {
            Use::Local if *services > 0 => "a service's address",
            Use::Local if *servers > 0 => "a server's address",
            Use::Local if *rules > 0 => "a mark rule's destination",
            Use::Service | Use::Server | Use::Rule if *locals > 0 => "a local address",
            _ => return Ok(()),
        };
        let own = match what {
            Use::Local => "a local address",
            Use::Service => "a service",
            Use::Server => "a server",
            Use::Rule => "a mark rule",
        };
        let detail = format!("{address} is {other}, {own} needs another one");
        Err(refuse(Errno::Einval, detail))
    }
}

#[cfg(test)]
impl super::Model {
    /// Whether a recount gives the same.
    pub(super) fn uses_are_counted(&self) -> bool {
        let mut recount = Uses::default();
        for service in self.services.iter() {
            if let Some(address) = service.key.address() {
                recount.add(address.ip(), Use::Service);
            }
            for local in &service.local_addresses {
                recount.add(local.address, Use::Local);
            }
            for id in service.servers.values() {
                recount.add(self.servers.get(id.0).address.ip(), Use::Server);
            }
        }
        for address in self
            .marks
            .iter()
            .filter_map(|rule| super::marks::asked(&rule.said))
        {
            recount.add(address, Use::Rule);
        }
        recount.0 == self.uses.0
    }
}

//! Whether clients are to come to this director, and which virtual addresses the kernel has for that.

use std::net::IpAddr;
use std::time::Duration;

use control::{Announced, NodeState, NodeStatus, Withheld};

use super::Control;
use super::server::Peer;
use crate::kernel::tables::LinkId;

#[derive(Debug)]
pub(super) struct Node {
    state: NodeState,
    since: Duration,
    /// How long a backup may take to hear of all connections before clients come.
    patience: Duration,
    /// What is announced may be other now.
    pub(super) stale: bool,
    /// As it was last.
    announced: Vec<Announced>,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            state: NodeState::Starting,
            since: Duration::ZERO,
            patience: Duration::ZERO,
            stale: true,
            announced: Vec::new(),
        }
    }
}

impl Node {
    pub(super) const fn state(&self) -> NodeState {
        self.state
    }

    pub(super) fn announced(&self) -> &[Announced] {
        &self.announced
    }
}

/// Addresses that the kernel is to have for routing daemons, and those that it is not to have.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    pub(super) shown: Vec<(LinkId, IpAddr)>,
    pub(super) withdrawn: Vec<(LinkId, IpAddr)>,
}

impl Control {
    /// Clients come once a backup daemon has heard of all connections, or after so long.
    #[must_use]
    pub fn announcing_after(mut self, patience: Duration) -> Self {
        self.node.patience = patience;
        self
    }

    /// Nothing is announced any more, since the director stops.
    pub fn leave(&mut self) {
        self.enter(NodeState::Draining);
    }

    pub(super) fn see_to_node(&mut self) {
        if self.node.state == NodeState::Starting {
            let waits = self.sync.as_ref().is_some_and(|sync| sync.is_catching_up());
            let patience = self.node.patience;
            if waits && self.now >= patience {
                tracing::warn!(
                    "no other director told of its connections within {} s; clients come all the same",
                    patience.as_secs()
                );
            }
            if !waits || self.now >= patience {
                self.enter(NodeState::Active);
            }
        }
        if std::mem::take(&mut self.node.stale) {
            self.share_addresses();
        }
    }

    pub(super) fn drain_node(&mut self, peer: &Peer) {
        tracing::info!(target: "audit", %peer, "drain this director");
        self.enter(NodeState::Draining);
    }

    pub(super) fn undrain_node(&mut self, peer: &Peer) {
        tracing::info!(target: "audit", %peer, "undrain this director");
        if self.node.state == NodeState::Draining {
            self.enter(NodeState::Active);
        }
    }

    fn enter(&mut self, state: NodeState) {
        if self.node.state != state {
            (self.node.state, self.node.since) = (state, self.now);
            self.share_addresses();
        }
    }

    pub(super) fn node_status(&self) -> NodeStatus {
        NodeStatus {
            state: self.node.state,
            since_s: self.now.saturating_sub(self.node.since).as_secs(),
            addresses: self.node.announced.clone(),
            packets: self.model.in_packets(),
            connections: self.model.active_connections(),
        }
    }

    /// Where virtual addresses are to be seen now, and where not; what changed is said.
    pub(super) fn announcements(&mut self) -> Announcements {
        let all = self.model.announced();
        if !all.is_empty() {
            self.hardware.watch_kernel();
        }
        if !self.kernel.is_known() {
            return Announcements::default();
        }
        let (mut result, mut announced) = (Announcements::default(), Vec::new());
        for ((address, interface), is_fit) in all {
            let link = self.kernel.link(&interface);
            let withheld = match link {
                None => Some(Withheld::Interface),
                Some(_) if self.node.state != NodeState::Active => Some(Withheld::Node),
                Some(_) if !is_fit => Some(Withheld::Servers),
                Some(_) => None,
            };
            match (link, withheld) {
                (Some(link), None) => result.shown.push((link, address)),
                (Some(link), Some(_)) => result.withdrawn.push((link, address)),
                (None, _) => {}
            }
            announced.push(Announced {
                address,
                interface,
                withheld,
            });
        }
        for now in &announced {
            let mut before = self.node.announced.iter();
            let before =
                before.find(|old| (old.address, &old.interface) == (now.address, &now.interface));
            if before.map(|old| old.withheld) != Some(now.withheld) {
                say(now);
            }
        }
        self.node.announced = announced;
        result
    }
}

fn say(now: &Announced) {
    let Announced {
        address, interface, ..
    } = now;
    match now.withheld {
        None => tracing::info!("{address} is announced on {interface}"),
        Some(Withheld::Node) => {
            tracing::info!("{address} is not announced: clients are not to come here")
        }
        Some(Withheld::Servers) => {
            tracing::warn!("{address} is not announced: too few servers are up");
        }
        Some(Withheld::Interface) => {
            tracing::warn!("{address} is not announced: the kernel has no interface {interface}");
        }
    }
}

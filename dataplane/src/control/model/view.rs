//! Services and servers for whoever counts them on another thread: names and ids now, counts from the
//! pages when they are wanted.

use std::net::SocketAddr;
use std::sync::Arc;

use control::{ForwardMode, Persistence, ServerHealth, ServiceHealth, ServiceKey, Totals};

use super::Model;
use super::ledger::{Past, Tally};
use crate::control::stats::{minus, plus};
use crate::update::{LocalAddress, ServerId, ServiceId};

/// Everything that is configured, at one moment.
#[derive(Debug, Default)]
pub struct View {
    /// Oldest first.
    pub services: Vec<ServiceView>,
    /// In order, each once.
    pub locals: Vec<LocalAddress>,
}

#[derive(Debug)]
pub struct ServiceView {
    pub id: ServiceId,
    pub key: ServiceKey,
    /// Tells it from all others, and orders them by age.
    pub born: u64,
    pub scheduler: &'static str,
    pub persistence: Option<Persistence>,
    /// `None`: nobody watches its servers.
    pub health: Option<ServiceHealth>,
    pub servers: Vec<ServerView>,
    past: Past,
}

#[derive(Debug)]
pub struct ServerView {
    pub id: ServerId,
    pub address: SocketAddr,
    pub mode: ForwardMode,
    pub weight: u32,
    pub draining: bool,
    pub health: Option<ServerHealth>,
    /// To be taken off what its page counts.
    pub origin: Tally,
}

impl ServiceView {
    /// To be added to what the pages of its servers have, wrapping.
    pub fn past(&self) -> &Totals {
        &self.past.totals
    }

    /// What it dropped since the daemon started; `sum` is what its pages have.
    pub fn dropped(&self, sum: u64) -> u64 {
        self.past.drops.wrapping_add(sum)
    }
}

impl Model {
    pub fn view(&self) -> View {
        let services = self.services.ids().into_iter();
        let mut services: Vec<ServiceView> = services
            .map(|id| self.view_service(ServiceId(id)))
            .collect();
        services.sort_unstable_by_key(|service| service.born);
        let in_use = (self.locals.iter()).filter(|(_, pages)| Arc::strong_count(pages) > 1);
        let mut locals: Vec<LocalAddress> = in_use
            .map(|(address, pages)| LocalAddress {
                address: *address,
                pages: Arc::clone(pages),
            })
            .collect();
        locals.sort_unstable_by_key(|local| local.address);
        View { services, locals }
    }

    fn view_service(&self, id: ServiceId) -> ServiceView {
        let service = self.services.get(id.0);
        let mut past = service.past;
        past.totals = plus(past.totals, service.head.gone);
        let mut servers = Vec::with_capacity(service.servers.len());
        for id in service.servers.values() {
            let server = self.servers.get(id.0);
            past.totals = minus(past.totals, server.joined);
            servers.push(ServerView {
                id: *id,
                address: server.address,
                mode: server.spec.mode,
                weight: server.weight_now(),
                draining: server.draining.is_some(),
                health: server.health(),
                origin: server.origin,
            });
        }
        ServiceView {
            id,
            key: service.key,
            born: service.born,
            scheduler: service.head.policy.scheduler.name(),
            persistence: service.head.policy.persistence,
            health: service.health(service.servers.values().map(|id| *self.servers.get(id.0))),
            servers,
            past,
        }
    }
}

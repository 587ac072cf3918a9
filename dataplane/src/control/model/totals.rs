//! Zero points, rates, and what a service's servers counted while they were in it.

use control::Totals;

use super::undo::{Transaction, Undo};
use super::{Model, Server, Service};
use crate::control::stats::{self, Estimator, minus, plus};
use crate::update::ServiceId;

impl Model {
    pub(super) fn zero(&mut self, id: ServiceId, done: &mut Transaction) {
        let total = self.service_counted(self.services.get(id.0));
        let service = self.services.get_mut(id.0);
        done.undo.push(Undo::Head(id, service.head));
        service.head.zero = total;
        service.head.estimator.clear();
        for id in service.servers.values() {
            let server = self.servers.get_mut(id.0);
            done.undo.push(Undo::Server(*id, Some(*server)));
            server.zero = stats::counted(&self.pages, *id);
            server.estimator.clear();
        }
    }

    /// One step of every estimator, each [`stats::ESTIMATE_S`] seconds.
    pub fn estimate(&mut self) {
        let Self {
            services,
            servers,
            pages,
            ..
        } = self;
        for service in services.iter_mut() {
            let mut sum = service.head.gone;
            for id in service.servers.values() {
                let server = servers.get_mut(id.0);
                let now = stats::counted(pages, *id);
                server.estimator.step(now);
                sum = plus(sum, minus(now, server.joined));
            }
            service.head.estimator.step(sum);
        }
    }

    /// What all its servers counted while they were in it.
    pub(super) fn service_counted(&self, service: &Service) -> Totals {
        service.servers.values().fold(service.head.gone, |sum, id| {
            let joined = self.servers.get(id.0).joined;
            plus(sum, minus(stats::counted(&self.pages, *id), joined))
        })
    }

    /// The same since the service was zeroed.
    pub(super) fn service_totals(&self, service: &Service) -> Totals {
        minus(self.service_counted(service), service.head.zero)
    }

    /// Packets from clients that all services count.
    pub fn in_packets(&self) -> u64 {
        let services = self.services.iter();
        services
            .map(|service| self.service_totals(service).in_packets)
            .sum()
    }

    /// Of all servers in services.
    pub fn active_connections(&self) -> u64 {
        let servers = self.services.iter().flat_map(|one| one.servers.values());
        let active = servers.map(|id| stats::connections(&self.pages, *id).0);
        active.map(u64::from).sum()
    }
}

impl Server {
    /// `server` with every counter at zero.
    pub(super) fn counting_from(now: Totals, server: Self) -> Self {
        Self {
            zero: now,
            estimator: Estimator::starting_at(now),
            ..server
        }
    }
}

//! What there is, as a configuration file says it.

use std::net::SocketAddr;

use control::{Conf, Drain, Health, ServerConf, ServerSpec, ServiceConf, ServiceKey, TimeoutsConf};

use super::{Model, Server, Service};
use crate::conn::state::State;
use crate::control::stats;
use crate::update::ServerId;

impl Model {
    /// Everything that a file can say. A server that is being drained has the weight that it had
    /// before: draining is no configuration, but something that is under way.
    pub fn conf(&self) -> Conf {
        let mut services: Vec<&Service> = self.services.iter().collect();
        services.sort_unstable_by_key(|service| service.born);
        let seconds = |state| self.timeouts.ms(state) / 1000;
        Conf {
            network: self.network(),
            timeouts: TimeoutsConf {
                tcp: seconds(State::Established),
                tcp_fin: seconds(State::FinWait),
                udp: seconds(State::Udp),
            },
            settings: self.settings,
            marks: self.marks(),
            sync: self.daemons.clone(),
            services: services.into_iter().map(|one| self.written(one)).collect(),
        }
    }

    /// Every server of a service, and its connections.
    pub fn loads(&self) -> Vec<(ServiceKey, SocketAddr, u64)> {
        let mut services: Vec<&Service> = self.services.iter().collect();
        services.sort_unstable_by_key(|service| service.born);
        let ids = services
            .into_iter()
            .flat_map(|service| service.servers.values());
        let load = |id: &ServerId| {
            let server = self.servers.get(id.0);
            let (active, inactive) = stats::connections(&self.pages, *id);
            let connections = u64::from(active) + u64::from(inactive);
            (server.service, server.address, connections)
        };
        ids.map(load).collect()
    }

    fn written(&self, service: &Service) -> ServiceConf {
        let locals = service.local_addresses.iter();
        let servers = service.servers.values();
        let servers = servers.map(|id| self.servers.get(id.0).written());
        ServiceConf {
            key: service.key,
            spec: service.head.policy.spec(),
            options: service.head.options,
            local_addresses: locals.map(|local| local.address).collect(),
            health: Health::clone(&service.health),
            servers: servers.collect(),
        }
    }

    /// The servers that are being drained, and what is to be done at the end.
    pub fn draining(&self) -> impl Iterator<Item = ((ServiceKey, SocketAddr), Drain)> {
        self.servers.iter().filter_map(|server| {
            let shown = server.draining?.shown(self.now);
            Some(((server.service, server.address), shown.drain))
        })
    }
}

impl Server {
    fn written(&self) -> ServerConf {
        let weight = (self.draining).map_or(self.spec.weight, |draining| draining.weight());
        let spec = ServerSpec {
            weight,
            ..self.spec
        };
        ServerConf {
            options: self.options,
            ..ServerConf::new(self.address, spec)
        }
    }
}

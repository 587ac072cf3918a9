//! What of a model outlives the daemon: what it was told, and what its services and servers had counted, by
//! the numbers under which the workers knew them.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use control::{
    Change, Conf, Drain, Fitness, Netmask, Persistence, ServerSpec, ServiceKey, ServiceSpec, Totals,
};
use serde::{Deserialize, Serialize};

use super::ledger::{Entries, Past, Tally};
use super::{Model, Place};
use crate::control::stats::{self, Estimator};
use crate::sched::Kind;
use crate::update::{ServerId, ServiceId};

/// A model, written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub conf: Conf,
    /// What the file loaded last says.
    pub said: Conf,
    /// When this was, in seconds by the workers' clock.
    pub at_s: u64,
    /// With the seconds that were left to their deadlines then.
    draining: Vec<(ServiceKey, SocketAddr, Drain)>,
    services: Vec<KeptService>,
    servers: Vec<KeptServer>,
    ledger: Entries,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptService {
    id: u32,
    key: ServiceKey,
    gone: Totals,
    zero: Totals,
    past: Past,
}

/// A server in its service, or in the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptServer {
    id: u32,
    service: ServiceKey,
    address: SocketAddr,
    spec: ServerSpec,
    listed: bool,
    last_weight: u32,
    down: bool,
    joined: Totals,
    zero: Totals,
    origin: Tally,
}

impl Kept {
    /// The servers that were deleted while connections referred to them: they come and go once more. A list
    /// for each service.
    pub fn deletions(&self) -> Vec<Vec<Change>> {
        let mut services = BTreeMap::<ServiceKey, Vec<Change>>::new();
        for server in self.servers.iter().filter(|server| !server.listed) {
            let service = server.service;
            let changes = services.entry(service).or_insert_with(|| {
                let spec = any_spec(service);
                vec![Change::AddService { service, spec }]
            });
            changes.push(Change::AddServer {
                service,
                server: server.address,
                spec: server.spec,
            });
        }
        let whole = services.into_iter().map(|(service, mut changes)| {
            changes.push(Change::DeleteService { service });
            changes
        });
        whole.collect()
    }

    #[cfg(test)]
    pub fn servers_len(&self) -> usize {
        self.servers.len()
    }

    /// What was being drained goes on being drained.
    pub fn drains(&self, now_s: u64) -> Vec<Change> {
        let passed = u32::try_from(now_s.saturating_sub(self.at_s)).unwrap_or(u32::MAX);
        let drain =
            |(service, server, drain): &(ServiceKey, SocketAddr, Drain)| Change::DrainServer {
                service: *service,
                server: *server,
                drain: Drain {
                    deadline_s: drain.deadline_s.map(|left| left.saturating_sub(passed)),
                    ..*drain
                },
            };
        self.draining.iter().map(drain).collect()
    }
}

/// Of a service of this key: one of every port goes by its clients' servers.
fn any_spec(key: ServiceKey) -> ServiceSpec {
    let persistence = Persistence {
        timeout_s: 1,
        netmask: Netmask::whole(key.is_ipv6()),
    };
    ServiceSpec {
        persistence: (key.port() == 0).then_some(persistence),
        ..ServiceSpec::new(Kind::Wlc.name())
    }
}

/// Each number then, and the one of the same service or server now.
#[derive(Debug, Default)]
pub struct Numbers {
    pub services: Vec<(u32, ServiceId)>,
    pub servers: Vec<(u32, ServerId)>,
}

impl Model {
    /// All of it, at `at_s`, but for what the file says.
    pub fn kept(&self, said: Conf, at_s: u64) -> Kept {
        let draining = self.draining();
        let ids = self.services.ids().into_iter();
        let service = |id: u32| {
            let service = self.services.get(id);
            KeptService {
                id,
                key: service.key,
                gone: service.head.gone,
                zero: service.head.zero,
                past: service.past,
            }
        };
        let server = |id: u32| {
            let server = self.servers.get(id);
            KeptServer {
                id,
                service: server.service,
                address: server.address,
                spec: server.spec,
                listed: matches!(server.place, Place::Listed { .. }),
                last_weight: server.last_weight,
                down: server.is_down(),
                joined: server.joined,
                zero: server.zero,
                origin: server.origin,
            }
        };
        Kept {
            conf: self.conf(),
            said,
            at_s,
            draining: draining
                .map(|((service, server), drain)| (service, server, drain))
                .collect(),
            services: ids.map(service).collect(),
            servers: self.servers.ids().into_iter().map(server).collect(),
            ledger: self.ledger.entries(),
        }
    }

    /// What each number of `kept` is here, where all its services and servers are.
    pub fn numbers(&self, kept: &Kept) -> Numbers {
        let service = |one: &KeptService| Some((one.id, *self.by_key.get(&one.key)?));
        let server = |one: &KeptServer| {
            let id = self.by_address.get(&(one.service, one.address))?;
            Some((one.id, *id))
        };
        Numbers {
            services: kept.services.iter().filter_map(service).collect(),
            servers: kept.servers.iter().filter_map(server).collect(),
        }
    }

    /// Counts as `kept` says, when the pages already do. Returns those who were down.
    pub fn resume(&mut self, kept: &Kept) -> Vec<(ServerId, Fitness)> {
        let (mut down, mut born) = (Vec::new(), BTreeMap::new());
        self.ledger.enter(&kept.ledger);
        for one in &kept.services {
            if let Some(id) = self.by_key.get(&one.key) {
                let service = self.services.get_mut(id.0);
                (service.head.gone, service.head.zero) = (one.gone, one.zero);
                service.past = one.past;
                born.insert(one.key, service.born);
            }
        }
        for one in &kept.servers {
            let Some(&id) = self.by_address.get(&(one.service, one.address)) else {
                continue;
            };
            let now = stats::counted(&self.pages, id);
            let server = self.servers.get_mut(id.0);
            (server.joined, server.zero, server.origin) = (one.joined, one.zero, one.origin);
            server.last_weight = one.last_weight;
            server.estimator = Estimator::starting_at(now);
            if let (Place::Trash { service_born, .. }, Some(born)) =
                (&mut server.place, born.get(&one.service))
            {
                *service_born = *born;
            }
            down.extend(one.down.then_some((id, Fitness::Down)));
        }
        let ids: HashSet<ServiceId> = self.by_key.values().copied().collect();
        for id in ids {
            let counted = self.service_counted(self.services.get(id.0));
            self.head(id).estimator = Estimator::starting_at(counted);
        }
        down
    }
}

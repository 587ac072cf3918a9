//! Random batches and sweeps, against the same rules without ids, undo or limits.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use control::{Change, ServiceKey, ServiceSpec};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{address, key, spec, weight};
use crate::control::model::{Limits, Model};
use crate::counters::Page;
use crate::sched::Kind;
use crate::update::{ServerId, ServiceId, Update};

/// Services in order of birth, servers newest first.
type Naive = Vec<(ServiceKey, String, Vec<(SocketAddr, u32)>)>;

/// The same rules without ids, undo or limits; `None` when refused.
fn naive(state: &mut Naive, change: &Change) -> Option<()> {
    let place =
        |state: &Naive, key: &ServiceKey| state.iter().position(|service| service.0 == *key);
    let known = |spec: &ServiceSpec| {
        ["rr", "wrr"]
            .contains(&spec.scheduler.as_str())
            .then(|| spec.scheduler.clone())
    };
    match change {
        Change::AddService { service, spec } => {
            let scheduler = known(spec)?;
            place(state, service).is_none().then_some(())?;
            state.push((*service, scheduler, Vec::new()));
        }
        Change::EditService { service, spec } => {
            let at = place(state, service)?;
            state[at].1 = known(spec)?;
        }
        Change::DeleteService { service } => {
            let at = place(state, service)?;
            state.remove(at);
        }
        Change::Flush => state.clear(),
        Change::AddServer {
            service,
            server,
            spec,
        } => {
            let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
            servers
                .iter()
                .all(|other| other.0 != *server)
                .then_some(())?;
            servers.insert(0, (*server, spec.weight));
        }
        Change::EditServer {
            service,
            server,
            spec,
        } => {
            let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
            servers.iter_mut().find(|other| other.0 == *server)?.1 = spec.weight;
        }
        Change::DeleteServer { service, server } => {
            let servers = &mut place(state, service).map(|at| &mut state[at])?.2;
            let at = servers.iter().position(|other| other.0 == *server)?;
            servers.remove(at);
        }
        Change::Zero { only } => {
            only.is_none_or(|key| place(state, &key).is_some())
                .then_some(())?;
        }
        Change::AddLocalAddress { .. }
        | Change::DeleteLocalAddress { .. }
        | Change::SetOptions { .. }
        | Change::SetSettings(_) => return None,
        Change::SetTimeouts { .. } => {}
    }
    Some(())
}

fn shown(model: &Model) -> Naive {
    let servers = |service: &control::Service| {
        service
            .servers
            .iter()
            .map(|server| (server.address, server.spec.weight))
            .collect()
    };
    let services = model.services(None).unwrap();
    services
        .iter()
        .map(|service| {
            (
                service.key,
                service.spec.scheduler.clone(),
                servers(service),
            )
        })
        .collect()
}

fn sorted(state: &Naive) -> Naive {
    let mut state = state.clone();
    state.sort_by_key(|service| service.0);
    state
}

/// What a worker knows; it panics at an update that makes no sense.
#[derive(Default)]
struct Mirror {
    services: HashMap<ServiceId, (ServiceKey, Kind, Vec<ServerId>)>,
    servers: HashMap<ServerId, (SocketAddr, u32)>,
    binned: HashSet<ServerId>,
}

impl Mirror {
    fn apply(&mut self, update: &Update) {
        match *update {
            Update::AddService { id, key, scheduler } => {
                assert!(
                    self.services
                        .insert(id, (key, scheduler, Vec::new()))
                        .is_none()
                );
            }
            Update::EditService { id, scheduler } => {
                self.services.get_mut(&id).unwrap().1 = scheduler
            }
            Update::DeleteService { id } => {
                self.binned.extend(self.services.remove(&id).unwrap().2)
            }
            Update::AddServer {
                service,
                id,
                address,
                weight,
                ..
            } => {
                let old = self.servers.insert(id, (address, weight));
                assert_eq!(old.is_some(), self.binned.remove(&id));
                assert!(old.is_none_or(|old| old.0 == address));
                self.services.get_mut(&service).unwrap().2.insert(0, id);
            }
            Update::EditServer { id, weight, .. } => self.servers.get_mut(&id).unwrap().1 = weight,
            Update::DeleteServer { id } => {
                assert!(self.binned.insert(id));
                let holders = self
                    .services
                    .values_mut()
                    .filter(|service| service.2.contains(&id));
                assert_eq!(
                    holders
                        .map(|service| service.2.retain(|other| *other != id))
                        .count(),
                    1
                );
            }
            Update::ForgetServer { id } => {
                assert!(self.binned.remove(&id));
                self.servers.remove(&id).unwrap();
            }
            Update::SetTimeouts(_)
            | Update::SetLocalAddresses { .. }
            | Update::SetOptions { .. }
            | Update::SetSettings(_) => {}
        }
    }

    fn shown(&self) -> Naive {
        let servers = |ids: &[ServerId]| ids.iter().map(|id| self.servers[id]).collect();
        let services = self.services.values();
        sorted(
            &services
                .map(|(key, kind, ids)| (*key, kind.name().to_owned(), servers(ids)))
                .collect(),
        )
    }
}

fn change() -> impl Strategy<Value = Change> {
    let service = || (1u8..4).prop_map(key);
    let server = || (1u8..5).prop_map(address);
    let name = || prop_oneof![6 => Just("rr"), 6 => Just("wrr"), 1 => Just("none")].prop_map(spec);
    let weights = || (0u32..4).prop_map(weight);
    prop_oneof![
        5 => (service(), name()).prop_map(|(service, spec)| Change::AddService { service, spec }),
        2 => (service(), name()).prop_map(|(service, spec)| Change::EditService { service, spec }),
        2 => service().prop_map(|service| Change::DeleteService { service }),
        1 => Just(Change::Flush),
        9 => (service(), server(), weights())
            .prop_map(|(service, server, spec)| Change::AddServer { service, server, spec }),
        3 => (service(), server(), weights())
            .prop_map(|(service, server, spec)| Change::EditServer { service, server, spec }),
        4 => (service(), server()).prop_map(|(service, server)| Change::DeleteServer { service, server }),
        1 => proptest::option::of(service()).prop_map(|only| Change::Zero { only }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Batches and sweeps in any order: the model shows what the naive one does, a refused batch
    /// changes nothing, and the updates lead every worker to the same.
    #[test]
    fn agrees_with_a_naive_model(batches in vec((vec(change(), 1..5), any::<bool>()), 1..60)) {
        let page = Arc::new(Page::new(3, 12));
        let mut model = Model::new(Limits { services_max: 3, servers_max: 12 }).watching(vec![Arc::clone(&page)]);
        let (mut reference, mut mirror, mut now_s) = (Naive::new(), Mirror::default(), 0);
        for (batch, sweep) in batches {
            let mut next = reference.clone();
            let accepted = batch.iter().all(|change| naive(&mut next, change).is_some());
            match model.apply(&batch) {
                Ok(updates) => {
                    prop_assert!(accepted);
                    reference = next;
                    updates.iter().for_each(|update| mirror.apply(update));
                }
                Err(refusal) => prop_assert!(!accepted, "{refusal}"),
            }
            if sweep {
                now_s += 60;
                let updates = model.sweep(now_s, |id| id.0 % 4 == 0);
                updates.iter().for_each(|update| mirror.apply(update));
            }
            prop_assert_eq!(shown(&model), sorted(&reference));
            prop_assert_eq!(mirror.shown(), sorted(&reference));
        }
    }

    /// What the listing counts never runs backwards or below zero, whatever comes and goes.
    #[test]
    fn totals_never_wrap(batches in vec(vec(change(), 1..4), 1..40)) {
        let page = Arc::new(Page::new(3, 12));
        let mut model = Model::new(Limits { services_max: 3, servers_max: 12 }).watching(vec![Arc::clone(&page)]);
        let mut counted = 0;
        for batch in batches {
            let before = model.services(None).unwrap();
            if model.apply(&batch).is_err() {
                prop_assert_eq!(&model.services(None).unwrap(), &before);
            }
            for server in &page.servers {
                server.conns.add(1);
                counted += 1;
            }
            for service in model.services(None).unwrap() {
                prop_assert!(service.totals.conns <= counted);
                for server in service.servers {
                    prop_assert!(server.totals.conns <= counted);
                }
            }
        }
    }
}

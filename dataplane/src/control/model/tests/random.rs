//! Random batches and sweeps, against the same rules without ids, undo or limits.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{
    Change, ClientAddress, Drain, ForwardMode, HashTarget, MH_TABLE_SIZE, MarkRule, Prefix,
    ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, Settings, Thresholds, Tunnel, TunnelKind,
    WhichMark,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{address, key, spec};
use crate::control::model::{Limits, Model};
use crate::counters::Page;
use crate::sched::{Member, Recipe, Table};
use crate::update::Policy;
use crate::update::{ServerId, ServiceId, Update};

#[derive(Debug, Clone, Default, PartialEq)]
struct Naive {
    /// In order of birth.
    services: Vec<NaiveService>,
    settings: Settings,
    marks: Vec<MarkRule>,
}

#[derive(Debug, Clone, PartialEq)]
struct NaiveService {
    key: ServiceKey,
    scheduler: ServiceSpec,
    options: ServiceOptions,
    locals: Vec<IpAddr>,
    /// Newest first.
    servers: Vec<(SocketAddr, ServerSpec)>,
    /// The weights of those that are being drained. No worker knows them.
    drained: HashMap<SocketAddr, u32>,
}

impl NaiveService {
    fn server(&self, address: SocketAddr) -> Option<usize> {
        self.servers.iter().position(|server| server.0 == address)
    }

    fn local(&self, address: IpAddr) -> Option<usize> {
        self.locals.iter().position(|local| *local == address)
    }
}

impl Naive {
    fn place(&self, key: &ServiceKey) -> Option<usize> {
        self.services.iter().position(|service| service.key == *key)
    }

    fn service(&mut self, key: &ServiceKey) -> Option<&mut NaiveService> {
        self.place(key).map(|at| &mut self.services[at])
    }

    fn is_local(&self, address: IpAddr) -> bool {
        (self.services.iter()).any(|service| service.local(address).is_some())
    }

    /// A service's, a server's or a rule's.
    fn is_taken(&self, address: IpAddr) -> bool {
        let ruled =
            (self.marks.iter()).any(|rule| rule.destination == Some(Prefix::whole(address)));
        ruled
            || self.services.iter().any(|service| {
                let mut servers = service.servers.iter();
                service.key.address().unwrap().ip() == address
                    || servers.any(|server| server.0.ip() == address)
            })
    }

    /// The same rules without ids, undo or limits; `None` when refused.
    fn apply(&mut self, change: &Change) -> Option<()> {
        let known = |spec: &ServiceSpec| {
            ["rr", "mh", "wlc", "conhash"]
                .contains(&spec.scheduler.as_str())
                .then(|| spec.clone())
        };
        match change {
            Change::AddService { service, spec } => {
                let free = self.place(service).is_none()
                    && !self.is_local(service.address().unwrap().ip());
                let scheduler = known(spec).filter(|_| free)?;
                self.services.push(NaiveService {
                    key: *service,
                    scheduler,
                    options: ServiceOptions::default(),
                    locals: Vec::new(),
                    servers: Vec::new(),
                    drained: HashMap::new(),
                });
            }
            Change::EditService { service, spec } => {
                self.service(service)?.scheduler = known(spec)?;
            }
            Change::DeleteService { service } => {
                let at = self.place(service)?;
                self.services.remove(at);
            }
            Change::Flush => self.services.clear(),
            Change::AddServer {
                service,
                server,
                spec,
            } => {
                let free = !self.is_local(server.ip());
                let service = self.service(service)?;
                let new = service.server(*server).is_none();
                (free && new && fits(service.key, *server, *spec)).then_some(())?;
                service.servers.insert(0, (*server, *spec));
            }
            Change::EditServer {
                service,
                server,
                spec,
            } => {
                let service = self.service(service)?;
                let at = service.server(*server)?;
                fits(service.key, *server, *spec).then_some(())?;
                service.servers[at].1 = *spec;
                if spec.weight > 0 {
                    service.drained.remove(server);
                }
            }
            Change::DeleteServer { service, server } => {
                let service = self.service(service)?;
                service.servers.remove(service.server(*server)?);
                service.drained.remove(server);
            }
            Change::DrainServer {
                service,
                server,
                drain,
            } => {
                let service = self.service(service)?;
                let at = service.server(*server)?;
                (drain.deadline_s.is_some() || !drain.reset).then_some(())?;
                let weight = std::mem::take(&mut service.servers[at].1.weight);
                service.drained.entry(*server).or_insert(weight);
            }
            Change::CancelDrain { service, server } => {
                let service = self.service(service)?;
                let at = service.server(*server)?;
                service.servers[at].1.weight = service.drained.remove(server)?;
            }
            Change::AddLocalAddress { service, address } => {
                let free = !self.is_taken(*address);
                let service = self.service(service)?;
                (free && service.local(*address).is_none()).then_some(())?;
                service.locals.push(*address);
            }
            Change::DeleteLocalAddress { service, address } => {
                let service = self.service(service)?;
                service.locals.remove(service.local(*address)?);
            }
            Change::SetOptions { service, options } => self.service(service)?.options = *options,
            Change::SetHashTarget {
                service,
                hash_target,
            } => {
                // The services are TCP's.
                (*hash_target == HashTarget::Sip).then_some(())?;
                self.service(service)?.options.hash_target = *hash_target;
            }
            Change::SetSettings(settings) => self.settings = *settings,
            Change::Zero { only } => {
                only.is_none_or(|key| self.place(&key).is_some())
                    .then_some(())?;
            }
            Change::SetTimeouts { .. } => {}
            // With a naive model of their own, or tests.
            Change::AddPort(_)
            | Change::DeletePort { .. }
            | Change::AddAddress(_)
            | Change::DeleteAddress(_)
            | Change::AddRoute(_)
            | Change::ReplaceRoute(_)
            | Change::DeleteRoute { .. }
            | Change::AddNeighbour(_)
            | Change::DeleteNeighbour { .. }
            | Change::FlushNeighbours
            | Change::StartSync(_)
            | Change::StopSync { .. }
            | Change::SetHealth { .. }
            | Change::SetServerOptions { .. } => unreachable!("not generated"),
            Change::AddMark { rule, at } => {
                let at = at.unwrap_or(self.marks.len() + 1);
                let to = rule.destination.and_then(Prefix::only);
                let free = !self.marks.contains(rule) && !to.is_some_and(|to| self.is_local(to));
                (free && at > 0 && at <= self.marks.len() + 1).then_some(())?;
                self.marks.insert(at - 1, rule.clone());
            }
            Change::DeleteMark(which) => {
                let at = match which {
                    WhichMark::Number(number) => number.checked_sub(1)?,
                    WhichMark::Rule(rule) => self.marks.iter().position(|other| other == rule)?,
                };
                (at < self.marks.len()).then(|| self.marks.remove(at))?;
            }
        }
        Some(())
    }

    /// What workers know of it.
    fn told(mut self) -> Self {
        for service in &mut self.services {
            service.drained.clear();
        }
        self.sorted()
    }

    fn sorted(mut self) -> Self {
        self.services.sort_by_key(|service| service.key);
        self
    }
}

/// Whether a server of this kind can be in the service.
fn fits(service: ServiceKey, server: SocketAddr, spec: ServerSpec) -> bool {
    let mixes = matches!(spec.mode, ForwardMode::Tunnel | ForwardMode::FullNat);
    let has_port = spec.tunnel.kind != TunnelKind::Gue || spec.tunnel.port != 0;
    let ordered = spec.thresholds.lower <= spec.thresholds.upper;
    (mixes || server.is_ipv6() == service.is_ipv6()) && has_port && ordered
}

fn shown(model: &Model) -> Naive {
    let service = |service: control::Service| NaiveService {
        key: service.key,
        scheduler: service.spec,
        options: service.options,
        locals: service
            .local_addresses
            .iter()
            .map(|local| local.address)
            .collect(),
        servers: (service.servers.iter())
            .map(|server| (server.address, server.spec))
            .collect(),
        drained: (service.servers.iter())
            .filter_map(|server| Some((server.address, server.draining?.weight)))
            .collect(),
    };
    Naive {
        services: (model.services(None).unwrap().into_iter().rev())
            .map(service)
            .collect(),
        settings: model.settings(),
        marks: model.marks(),
    }
}

/// What a worker knows; it panics at an update that makes no sense.
#[derive(Default)]
struct Mirror {
    services: HashMap<ServiceId, MirrorService>,
    servers: HashMap<ServerId, (SocketAddr, ServerSpec)>,
    /// Each server's last weight that was not 0.
    weights: HashMap<ServerId, u32>,
    binned: HashSet<ServerId>,
    settings: Settings,
    marks: Vec<MarkRule>,
}

struct MirrorService {
    key: ServiceKey,
    policy: Policy,
    options: ServiceOptions,
    locals: Vec<IpAddr>,
    /// Newest first.
    servers: Vec<ServerId>,
    table: Option<Arc<Table>>,
}

impl Mirror {
    fn apply(&mut self, update: &Update) {
        match *update {
            Update::AddService { id, key, policy } => {
                let service = MirrorService {
                    key,
                    policy,
                    options: ServiceOptions::default(),
                    locals: Vec::new(),
                    servers: Vec::new(),
                    table: None,
                };
                assert!(self.services.insert(id, service).is_none());
            }
            Update::EditService { id, policy } => {
                let service = self.service(id);
                if service.policy.scheduler != policy.scheduler {
                    service.table = None;
                }
                service.policy = policy;
            }
            Update::DeleteService { id } => {
                let service = self.services.remove(&id).unwrap();
                self.binned.extend(service.servers);
            }
            Update::AddServer {
                service,
                id,
                address,
                mode,
                tunnel,
                weight,
                thresholds,
            } => {
                let spec = ServerSpec {
                    mode,
                    weight,
                    tunnel,
                    thresholds,
                };
                let old = self.servers.insert(id, (address, spec));
                assert_eq!(old.is_some(), self.binned.remove(&id));
                assert!(old.is_none_or(|old| old.0 == address));
                self.weights.insert(id, weight);
                self.service(service).servers.insert(0, id);
            }
            Update::EditServer {
                id,
                mode,
                tunnel,
                weight,
                thresholds,
            } => {
                self.servers.get_mut(&id).unwrap().1 = ServerSpec {
                    mode,
                    weight,
                    tunnel,
                    thresholds,
                };
                if weight > 0 {
                    self.weights.insert(id, weight);
                }
            }
            Update::DrainServer { id, draining } => {
                assert!(!draining || self.servers[&id].1.weight == 0);
            }
            Update::DeleteServer { id } => {
                assert!(self.binned.insert(id));
                let holders = (self.services.values_mut())
                    .filter(|service| service.servers.contains(&id))
                    .map(|service| service.servers.retain(|other| *other != id));
                assert_eq!(holders.count(), 1);
            }
            Update::ForgetServer { id } => {
                assert!(self.binned.remove(&id));
                self.servers.remove(&id).unwrap();
            }
            Update::SetLocalAddresses { id, ref addresses } => {
                self.service(id).locals = addresses.iter().map(|local| local.address).collect();
            }
            Update::SetOptions { id, options } => self.service(id).options = options,
            Update::SetTable { id, ref table } => {
                self.service(id).table = Some(Arc::clone(table));
            }
            Update::SetSettings(settings) => self.settings = settings,
            Update::SetMarks(ref marks) => {
                let rules = marks.rules().iter();
                self.marks = rules.map(|rule| rule.said.clone()).collect();
            }
            Update::SetTimeouts(_)
            | Update::CutServer { .. }
            | Update::SetNetwork(_)
            | Update::FlushNeighbours => {}
        }
    }

    fn service(&mut self, id: ServiceId) -> &mut MirrorService {
        self.services.get_mut(&id).unwrap()
    }

    /// Whether each service that needs a table has the one of its servers.
    fn tables_are_right(&self) -> bool {
        self.services.values().all(|service| {
            let kind = service.policy.scheduler;
            let member = |id: &ServerId| Member {
                id: *id,
                address: self.servers[id].0,
                weight: self.weights[id],
            };
            let recipe = Recipe {
                kind,
                ipv6: service.key.is_ipv6(),
                mh_slots: service.options.mh_table_size.unwrap_or(MH_TABLE_SIZE),
                members: service.servers.iter().rev().map(member).collect(),
            };
            let table = service.table.as_ref().map(|table| table.recipe());
            table == kind.has_table().then_some(&recipe)
        })
    }

    fn shown(&self) -> Naive {
        let service = |service: &MirrorService| NaiveService {
            key: service.key,
            scheduler: service.policy.spec(),
            options: service.options,
            locals: service.locals.clone(),
            servers: (service.servers.iter())
                .map(|id| self.servers[id])
                .collect(),
            drained: HashMap::new(),
        };
        Naive {
            services: self.services.values().map(service).collect(),
            settings: self.settings,
            marks: self.marks.clone(),
        }
        .sorted()
    }
}

fn server_spec() -> impl Strategy<Value = ServerSpec> {
    let method = prop_oneof![
        5 => Just((ForwardMode::Nat, Tunnel::default())),
        2 => Just((ForwardMode::Direct, Tunnel::default())),
        2 => Just((ForwardMode::FullNat, Tunnel::default())),
        2 => (0u16..4).prop_map(|port| {
            let kind = TunnelKind::Gue;
            (ForwardMode::Tunnel, Tunnel { kind, port, ..Tunnel::default() })
        }),
    ];
    (method, 0u32..4, 0u32..4, 0u32..3).prop_map(|((mode, tunnel), weight, upper, lower)| {
        ServerSpec {
            mode,
            weight,
            tunnel,
            thresholds: Thresholds { upper, lower },
        }
    })
}

fn server() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        6 => (1u8..5).prop_map(address),
        1 => Just("[2001:db8:1::1]:80".parse().unwrap()),
    ]
}

/// Some of them a service's or a server's now and then.
fn local() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        1 => Just(key(1).address().unwrap().ip()),
        1 => Just(address(1).ip()),
        4 => (1u8..3).prop_map(|n| IpAddr::from([172, 16, 0, n])),
        1 => Just("2001:db8:1::2".parse().unwrap()),
    ]
}

fn rule() -> impl Strategy<Value = MarkRule> {
    (0u32..3, local(), any::<bool>()).prop_map(|(mark, to, any)| MarkRule {
        destination: (!any).then_some(Prefix::whole(to)),
        ..MarkRule::new(mark)
    })
}

fn options() -> impl Strategy<Value = ServiceOptions> {
    (any::<bool>(), proptest::option::of(1000u16..1003)).prop_map(|(proxy, mss)| ServiceOptions {
        client_address: if proxy {
            ClientAddress::ProxyV1
        } else {
            ClientAddress::Toa
        },
        mss,
        mh_table_size: mss.map(|_| 251),
        ..ServiceOptions::default()
    })
}

fn drain() -> impl Strategy<Value = Drain> {
    let deadline = proptest::option::of(0u32..9);
    (deadline, any::<bool>(), any::<bool>()).prop_map(|(deadline_s, reset, delete)| Drain {
        deadline_s,
        reset,
        delete,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let service = || (1u8..4).prop_map(key);
    let name = prop_oneof![
        4 => Just("rr"), 4 => Just("wlc"), 4 => Just("mh"), 2 => Just("conhash"), 1 => Just("none")
    ];
    let scheduler = (name, any::<bool>()).prop_map(|(name, fallback)| {
        let mut spec = spec(name);
        spec.flags.fallback = fallback;
        spec
    });
    let name = || scheduler.clone();
    let settings = (any::<bool>(), any::<bool>()).prop_map(|(schedule_icmp, pmtu_disc)| Settings {
        schedule_icmp,
        pmtu_disc,
        ..Settings::default()
    });
    prop_oneof![
        5 => (service(), name()).prop_map(|(service, spec)| Change::AddService { service, spec }),
        2 => (service(), name()).prop_map(|(service, spec)| Change::EditService { service, spec }),
        2 => service().prop_map(|service| Change::DeleteService { service }),
        1 => Just(Change::Flush),
        9 => (service(), server(), server_spec())
            .prop_map(|(service, server, spec)| Change::AddServer { service, server, spec }),
        3 => (service(), server(), server_spec())
            .prop_map(|(service, server, spec)| Change::EditServer { service, server, spec }),
        4 => (service(), server()).prop_map(|(service, server)| Change::DeleteServer { service, server }),
        3 => (service(), server(), drain())
            .prop_map(|(service, server, drain)| Change::DrainServer { service, server, drain }),
        2 => (service(), server()).prop_map(|(service, server)| Change::CancelDrain { service, server }),
        4 => (service(), local())
            .prop_map(|(service, address)| Change::AddLocalAddress { service, address }),
        2 => (service(), local())
            .prop_map(|(service, address)| Change::DeleteLocalAddress { service, address }),
        2 => (service(), options())
            .prop_map(|(service, options)| Change::SetOptions { service, options }),
        1 => (service(), prop::sample::select(vec![HashTarget::Sip, HashTarget::Qid]))
            .prop_map(|(service, hash_target)| Change::SetHashTarget { service, hash_target }),
        1 => settings.prop_map(Change::SetSettings),
        4 => (rule(), proptest::option::of(0usize..4))
            .prop_map(|(rule, at)| Change::AddMark { rule, at }),
        1 => (0usize..4).prop_map(|at| Change::DeleteMark(WhichMark::Number(at))),
        1 => rule().prop_map(|rule| Change::DeleteMark(WhichMark::Rule(rule))),
        1 => proptest::option::of(service()).prop_map(|only| Change::Zero { only }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Batches and sweeps in any order: the model shows what the naive one does, a refused batch
    /// changes nothing, and the updates lead every worker to the same.
    #[test]
    fn agrees_with_a_naive_model(batches in vec((vec(change(), 1..5), any::<bool>()), 1..60)) {
        let page = Arc::new(Page::new(3, 15).unwrap());
        let mut model = Model::new(Limits { services_max: 3, servers_max: 15 }).watching(vec![Arc::clone(&page)]);
        let (mut reference, mut mirror, mut now_s) = (Naive::default(), Mirror::default(), 0);
        for (batch, sweep) in batches {
            let mut next = reference.clone();
            let accepted = batch.iter().all(|change| next.apply(change).is_some());
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
            prop_assert_eq!(shown(&model), reference.clone());
            prop_assert_eq!(mirror.shown(), reference.clone().told());
            prop_assert!(mirror.tables_are_right());
            prop_assert!(model.uses_are_counted());
        }
    }

    /// What the listing counts never runs backwards or below zero, whatever comes and goes.
    #[test]
    fn totals_never_wrap(batches in vec(vec(change(), 1..4), 1..40)) {
        let page = Arc::new(Page::new(3, 15).unwrap());
        let mut model = Model::new(Limits { services_max: 3, servers_max: 15 }).watching(vec![Arc::clone(&page)]);
        let mut counted = 0;
        for batch in batches {
            let before = model.services(None).unwrap();
            if model.apply(&batch).is_err() {
                prop_assert_eq!(&model.services(None).unwrap(), &before);
            }
            for server in page.servers.iter() {
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

//! Health checks: which targets are probed for which servers, and what the workers hear of it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use control::{Change, CheckStatus, Errno, Fitness, Probe, Refusal, ServiceKey, Via};
use crossbeam::channel::{Receiver, Sender, unbounded};

use super::Control;
use super::model::{Patient, name, refuse};
use super::passive::{Counts, Traffic};
use crate::health::{Check, Engine, Gate, Spec, Status, Way};
use crate::update::ServerId;

/// The checks of every server that has some.
pub type Checks = HashMap<ServerId, Vec<Arc<Check>>>;

/// Servers and their checks.
pub(super) struct Ward {
    /// Begins with the first check.
    engine: Option<Engine>,
    changes: Receiver<Arc<Check>>,
    sender: Sender<Arc<Check>>,
    notify: Arc<dyn Fn() + Send + Sync>,
    /// Services or servers may have changed since they were looked at.
    pub(super) stale: bool,
    patients: HashMap<ServerId, Case>,
    /// What a director before this one knew of them.
    pub(super) former: HashMap<ServerId, Fitness>,
    /// Who is probed by what.
    by_spec: HashMap<Spec, Vec<ServerId>>,
    pub(super) checks: Arc<Checks>,
    /// Something is new about them.
    due: HashSet<ServerId>,
}

/// A server that is looked after, and what was said of it last.
struct Case {
    patient: Patient,
    said: Option<Fitness>,
    traffic: Traffic,
}

/// The servers of a service that are looked after, but for those that apologise.
#[derive(Default)]
struct Crowd {
    all: usize,
    /// Of all that are looked after.
    ejected: usize,
}

impl Default for Ward {
    fn default() -> Self {
        let (sender, changes) = unbounded();
        Self {
            engine: None,
            changes,
            sender,
            notify: Arc::new(|| {}),
            stale: false,
            patients: HashMap::new(),
            former: HashMap::new(),
            by_spec: HashMap::new(),
            checks: Arc::default(),
            due: HashSet::new(),
        }
    }
}

impl fmt::Debug for Ward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ward").finish_non_exhaustive()
    }
}

impl Control {
    /// `notify` has [`super::server::Backend::tick`] called soon, from any thread.
    #[must_use]
    pub fn notified(mut self, notify: impl Fn() + Send + Sync + 'static) -> Self {
        self.ward.notify = Arc::new(notify);
        self
    }

    /// Passes on what is new; with a busy worker the next time will do.
    pub(super) fn see_to_health(&mut self) {
        if self.is_busy() {
            return;
        }
        if std::mem::take(&mut self.ward.stale) {
            self.regroup();
        }
        let ward = &mut self.ward;
        for check in ward.changes.try_iter() {
            let concerned = ward.by_spec.get(&check.spec);
            ward.due.extend(concerned.into_iter().flatten());
        }
        let due = std::mem::take(&mut self.ward.due);
        if due.is_empty() {
            return;
        }
        let found: Vec<_> = (due.into_iter())
            .filter_map(|id| self.ward.examine(id))
            .collect();
        let updates = self.model.diagnose(found);
        self.view = None;
        self.node.stale = true;
        self.outdate();
        self.post(updates);
    }

    /// A second has passed: what do the packets say?
    pub(super) fn watch_traffic(&mut self) {
        let Self {
            ward, model, now, ..
        } = self;
        let mut services = ward.returned(*now);
        for case in ward.patients.values_mut() {
            let Patient {
                id,
                service,
                address,
                ..
            } = case.patient;
            let Some(passive) = case.patient.told_by_packets() else {
                continue;
            };
            if case.traffic.is_ejected() {
                continue;
            }
            let totals = model.counted(id);
            let counts = Counts {
                connections: totals.totals.conns,
                answers: totals.answers,
            };
            let Some(why) = case.traffic.fails(counts, &passive) else {
                continue;
            };
            let Crowd { all, ejected } = services.entry(service).or_default();
            if (*ejected + 1) * 100 > *all * passive.ejected_max_percent as usize {
                continue;
            }
            *ejected += 1;
            let server = format!("server {address} of {}", name(&service));
            tracing::warn!(target: "health", "{server} is ejected for {} s: {why}", passive.eject_s);
            case.traffic.eject(why, *now, &passive);
            ward.due.insert(id);
        }
    }

    /// Who is to be looked after may be others now.
    fn regroup(&mut self) {
        let patients = self.model.patients();
        if patients.is_empty() && self.ward.patients.is_empty() {
            return;
        }
        let patients: Vec<(Patient, Vec<Spec>)> = (patients.into_iter())
            .map(|patient| {
                let checks = patient.health.checks.iter();
                let own = checks.map(|check| self.spec(check, &patient)).collect();
                (patient, own)
            })
            .collect();
        let gate = self.templates.as_ref().map(|templates| Gate {
            templates: Arc::clone(templates),
            clock: self.clock,
        });
        self.ward.admit(patients, gate);
        let updates = self
            .model
            .discharge(|id| self.ward.patients.contains_key(&id));
        self.post(updates);
    }

    /// What a check means for one server.
    fn spec(&self, check: &control::Check, patient: &Patient) -> Spec {
        let by_method = match check.via {
            Via::Host => None,
            Via::Method => check.virtual_target(&patient.service).ok(),
        };
        let way = by_method.map(|target| Way {
            server: patient.id,
            side: self.side_toward(target.ip()),
        });
        Spec {
            target: by_method.unwrap_or_else(|| by_host(check, patient)),
            way,
            probe: check.probe.clone(),
            rhythm: check.rhythm,
        }
    }

    /// Every check of every server.
    pub(super) fn health(&self) -> Vec<CheckStatus> {
        let mut list: Vec<CheckStatus> = (self.ward.patients.values())
            .flat_map(|case| {
                let checks = self.ward.checks.get(&case.patient.id);
                let checks = checks.into_iter().flatten();
                let checks = checks.map(|check| shown(&case.patient, check));
                checks.chain(case.traffic(self.now))
            })
            .collect();
        list.sort_by(|a, b| (a.service, a.server, &a.check).cmp(&(b.service, b.server, &b.check)));
        list
    }

    /// Programs run as the director does: only who could run them so may have them run.
    pub(super) fn allow(&self, changes: &[Change]) -> Result<(), Refusal> {
        let mut changes = changes.iter();
        let runs = changes.any(
            |change| matches!(change, Change::SetHealth { health, .. } if health.has_command()),
        );
        if runs && !self.trusted {
            let why = "checks of type \"command\" run programs with the director's rights: only root may set them";
            return Err(refuse(Errno::Eperm, why));
        }
        Ok(())
    }
}

impl Ward {
    /// Whether it matters which sides of ports the kernel has.
    pub(super) fn uses_sides(&self) -> bool {
        self.by_spec.keys().any(|spec| spec.way.is_some())
    }

    /// Looks after these and no others.
    fn admit(&mut self, patients: Vec<(Patient, Vec<Spec>)>, gate: Option<Gate>) {
        let mut before = std::mem::take(&mut self.patients);
        let (mut specs, mut by_spec) = (HashMap::new(), HashMap::<Spec, Vec<ServerId>>::new());
        for (patient, own) in patients {
            for spec in &own {
                by_spec.entry(spec.clone()).or_default().push(patient.id);
            }
            specs.insert(patient.id, own);
            let (said, traffic) = match before.remove(&patient.id) {
                Some(case) => (case.said, case.traffic),
                None => (self.former.get(&patient.id).copied(), Traffic::default()),
            };
            let case = Case {
                patient,
                said,
                traffic,
            };
            self.patients.insert(case.patient.id, case);
        }
        self.former.clear();
        self.watch(&by_spec, gate);
        let checks = specs.into_iter().map(|(id, specs)| {
            let engine = self.engine.as_ref();
            let check = |spec| engine.and_then(|engine| engine.check(spec)).cloned();
            (id, specs.iter().filter_map(check).collect())
        });
        self.checks = Arc::new(checks.collect());
        self.by_spec = by_spec;
        self.due.extend(self.patients.keys());
    }

    /// Probes these targets and no others.
    fn watch(&mut self, wanted: &HashMap<Spec, Vec<ServerId>>, gate: Option<Gate>) {
        if self.engine.is_none() && !wanted.is_empty() {
            let notify = Arc::clone(&self.notify);
            match Engine::start(gate, self.sender.clone(), move || notify()) {
                Ok(engine) => self.engine = Some(engine),
                Err(error) => tracing::error!(%error, "servers cannot be probed"),
            }
        }
        if let Some(engine) = &mut self.engine {
            engine.watch(wanted.keys().cloned().collect());
        }
        if wanted.is_empty() {
            self.engine = None;
        }
    }

    /// Ends the ejections whose time is over, and counts what is left of each service's servers.
    fn returned(&mut self, now: Duration) -> HashMap<ServiceKey, Crowd> {
        let mut services = HashMap::<_, Crowd>::new();
        for case in self.patients.values_mut() {
            let Patient {
                id,
                service,
                address,
                ..
            } = case.patient;
            if case.traffic.ends(now) {
                let service = name(&service);
                tracing::info!(target: "health", "server {address} of {service} is tried again");
                self.due.insert(id);
            }
            let Crowd { all, ejected } = services.entry(service).or_default();
            *all += usize::from(!case.patient.options.sorry);
            *ejected += usize::from(case.traffic.is_ejected());
        }
        services
    }

    /// How a server is by all of its checks, and whether it is ejected. What changed is said. `None`: it is
    /// a patient no more.
    fn examine(&mut self, id: ServerId) -> Option<(ServerId, Option<Fitness>, bool)> {
        let case = self.patients.get_mut(&id)?;
        let checks = self.checks.get(&id).map_or(&[][..], Vec::as_slice);
        let all: Vec<(&Arc<Check>, Status)> =
            checks.iter().map(|check| (check, check.status())).collect();
        let is = |wanted| all.iter().find(|(_, status)| status.fitness == wanted);
        let fitness = match (is(Fitness::Down), is(Fitness::Unknown)) {
            _ if all.is_empty() => None,
            (Some(_), _) => Some(Fitness::Down),
            // Until other checks know better, what was known stands.
            (None, Some(_)) => Some(case.said.unwrap_or(Fitness::Unknown)),
            (None, None) => Some(Fitness::Up),
        };
        if case.said != fitness {
            let Patient {
                service, address, ..
            } = &case.patient;
            let server = format!("server {address} of {}", name(service));
            match (fitness, is(Fitness::Down)) {
                (Some(Fitness::Down), Some((check, status))) => {
                    let why = status.last.as_ref().map_or("", |last| last.outcome.text());
                    tracing::warn!(target: "health", "{server} is down: {}: {why}", title(&check.spec));
                }
                (Some(Fitness::Up), _) => tracing::info!(target: "health", "{server} is up"),
                _ => {}
            }
            case.said = fitness;
        }
        Some((id, fitness, case.traffic.is_ejected()))
    }
}

impl Case {
    /// What its packets say, as a check.
    fn traffic(&self, now: Duration) -> Option<CheckStatus> {
        self.patient.told_by_packets()?;
        let ejected = self.traffic.is_ejected();
        Some(CheckStatus {
            service: self.patient.service,
            server: self.patient.address,
            check: "traffic".to_owned(),
            fitness: if ejected { Fitness::Down } else { Fitness::Up },
            since_s: self.traffic.since(now).as_secs(),
            last: if ejected {
                self.traffic.why.clone()
            } else {
                "ok".to_owned()
            },
            latency_us: None,
            probes: 0,
            failures: self.traffic.ejections,
        })
    }
}

/// What a check by the host's own network means for one server.
fn by_host(check: &control::Check, patient: &Patient) -> SocketAddr {
    let (options, server) = (patient.options, patient.address);
    let address = options
        .check_address
        .or(check.address)
        .unwrap_or(server.ip());
    let port = match check.probe {
        Probe::Icmp => 0,
        _ => options.check_port.or(check.port).unwrap_or(server.port()),
    };
    SocketAddr::new(address, port)
}

/// `http 10.0.0.1:80`, or `http 10.0.0.100:80 by its method`
fn title(spec: &Spec) -> String {
    let kind = spec.probe.kind();
    if spec.way.is_some() {
        return format!("{kind} {} by its method", spec.target);
    }
    match &spec.probe {
        Probe::Icmp => format!("{kind} {}", spec.target.ip()),
        Probe::Command(words) => {
            let program = words.first().map_or("", String::as_str);
            format!("{kind} {program} {}", spec.target)
        }
        _ => format!("{kind} {}", spec.target),
    }
}

fn shown(patient: &Patient, check: &Check) -> CheckStatus {
    let status = check.status();
    let last = status.last.as_ref();
    CheckStatus {
        service: patient.service,
        server: patient.address,
        check: title(&check.spec),
        fitness: status.fitness,
        since_s: status.since.elapsed().as_secs(),
        last: last.map_or(String::new(), |last| last.outcome.text().to_owned()),
        latency_us: last.map(|last| u64::try_from(last.latency.as_micros()).unwrap_or(u64::MAX)),
        probes: status.probes,
        failures: status.failures,
    }
}

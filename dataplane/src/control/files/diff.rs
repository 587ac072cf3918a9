//! From what runs to what a file says: the changes that lead there, and how they are told.
//!
//! What is the same on both sides is not touched. The order of the servers that stay is not changed
//! either: to put one behind another it would have to be deleted. New ones are the newest.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use control::conf::Key;
use control::plan::{Action, Difference, KeyDifference, What};
use control::{
    Change, Conf, Health, MarkRule, ServerConf, ServerOptions, ServerSpec, ServiceConf, ServiceKey,
    ServiceOptions, SyncDaemon, SyncRole, WhichMark, Word,
};

/// The changes, in an order in which none is in another's way, and what they are for people.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Diff {
    pub(super) changes: Vec<Change>,
    pub(super) differences: Vec<Difference>,
}

/// What is compared.
#[derive(Clone, Copy)]
pub(super) struct Sides<'c> {
    /// What runs.
    pub(super) now: &'c Conf,
    /// The servers that are being drained: they have no weight now, and `now` says what they had.
    pub(super) draining: &'c HashSet<(ServiceKey, SocketAddr)>,
    /// What the file loaded last says.
    pub(super) said: &'c Conf,
    /// What is to run.
    pub(super) wanted: &'c Conf,
}

type Services<'c> = HashMap<ServiceKey, &'c ServiceConf>;
type Servers<'c> = HashMap<SocketAddr, &'c ServerConf>;

fn services(conf: &Conf) -> Services<'_> {
    let services = conf.services.iter();
    services.map(|service| (service.key, service)).collect()
}

fn servers(service: Option<&ServiceConf>) -> Servers<'_> {
    let servers = service.into_iter().flat_map(|service| &service.servers);
    servers.map(|server| (server.address, server)).collect()
}

/// Steps that must not come in another order.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) deletions: Vec<Change>,
    edits: Vec<Change>,
    pub(super) additions: Vec<Change>,
    differences: Vec<Difference>,
}

impl Sides<'_> {
    pub(super) fn diff(self) -> Diff {
        let mut steps = Steps::default();
        self.network(&mut steps);
        self.globals(&mut steps);
        self.marks(&mut steps);
        self.sync(&mut steps);
        self.leaving_ports(&mut steps);
        let (now, said, wanted) = (
            services(self.now),
            services(self.said),
            services(self.wanted),
        );
        for service in &self.now.services {
            let key = service.key;
            let said = said.get(&key).copied();
            match wanted.get(&key) {
                Some(wanted) => self.edit_service(service, said, wanted, &mut steps),
                None => {
                    let change = Change::DeleteService { service: key };
                    steps.deletions.push(change);
                    let what = What::Service { service: key };
                    steps.tell(Action::Delete, what, Vec::new(), said.is_none());
                }
            }
        }
        let new = self.wanted.services.iter();
        for service in new.filter(|service| !now.contains_key(&service.key)) {
            steps.add_service(service, said.contains_key(&service.key));
        }
        let Steps {
            deletions,
            edits,
            additions,
            differences,
        } = steps;
        Diff {
            changes: [deletions, edits, additions].concat(),
            differences,
        }
    }

    fn globals(self, steps: &mut Steps) {
        let Self {
            now, said, wanted, ..
        } = self;
        let (before, after) = (now.timeouts.keys(), wanted.timeouts.keys());
        let keys = changed(&before, &said.timeouts.keys(), &after);
        if !keys.is_empty() {
            let [tcp, tcp_fin, udp] = [
                wanted.timeouts.tcp,
                wanted.timeouts.tcp_fin,
                wanted.timeouts.udp,
            ]
            .map(Some);
            steps.edits.push(Change::SetTimeouts { tcp, tcp_fin, udp });
            steps.tell_edit(What::Timeouts, keys);
        }
        let (before, after) = (now.settings.keys(), wanted.settings.keys());
        let keys = changed(&before, &said.settings.keys(), &after);
        if !keys.is_empty() {
            steps.edits.push(Change::SetSettings(wanted.settings));
            steps.tell_edit(What::Settings, keys);
        }
    }

    /// Rules that stay in order stay; the others go, and come where they belong.
    fn marks(self, steps: &mut Steps) {
        let Self {
            now, said, wanted, ..
        } = self;
        let stays = in_order(&now.marks, &wanted.marks);
        let said: HashSet<&MarkRule> = said.marks.iter().collect();
        for (number, rule) in (1..).zip(&now.marks) {
            if !stays.contains(rule) {
                let rule = rule.clone();
                let by_hand = !said.contains(&rule);
                let which = WhichMark::Rule(rule.clone());
                steps.deletions.push(Change::DeleteMark(which));
                let what = What::Mark { rule, number };
                steps.tell(Action::Delete, what, Vec::new(), by_hand);
            }
        }
        let known: HashSet<&MarkRule> = now.marks.iter().collect();
        for (number, rule) in (1..).zip(&wanted.marks) {
            if !stays.contains(rule) {
                let by_hand = said.contains(rule) && !known.contains(rule);
                let (rule, at) = (rule.clone(), Some(number));
                let what = What::Mark {
                    rule: rule.clone(),
                    number,
                };
                steps.additions.push(Change::AddMark { rule, at });
                steps.tell(Action::Add, what, Vec::new(), by_hand);
            }
        }
    }

    /// A daemon that is to be another is stopped and started.
    fn sync(self, steps: &mut Steps) {
        let of = |conf: &Conf, role| conf.sync.iter().find(|one| one.role == role).cloned();
        for &role in SyncRole::ALL {
            let [now, said, wanted] = [self.now, self.said, self.wanted].map(|conf| of(conf, role));
            if now == wanted {
                continue;
            }
            let what = What::Sync { sync: role };
            let keys = |daemon: &Option<SyncDaemon>| {
                daemon.as_ref().map(SyncDaemon::keys).unwrap_or_default()
            };
            match (&now, &wanted) {
                (Some(_), Some(_)) => {
                    let keys = changed(&keys(&now), &keys(&said), &keys(&wanted));
                    steps.tell_edit(what, keys);
                }
                (Some(_), None) => steps.tell(Action::Delete, what, Vec::new(), said.is_none()),
                (None, _) => {
                    let keys = given(&keys(&wanted));
                    steps.tell(Action::Add, what, keys, said.is_some());
                }
            }
            let stop = now.map(|_| Change::StopSync { role });
            steps.deletions.extend(stop);
            steps.additions.extend(wanted.map(Change::StartSync));
        }
    }

    fn edit_service(
        self,
        now: &ServiceConf,
        said: Option<&ServiceConf>,
        wanted: &ServiceConf,
        steps: &mut Steps,
    ) {
        let service = now.key;
        let said_keys = said.map(ServiceConf::keys).unwrap_or_default();
        let keys = changed(&now.keys(), &said_keys, &wanted.keys());
        if !keys.is_empty() {
            steps.tell_edit(What::Service { service }, keys);
        }
        let spec = (now.spec != wanted.spec).then(|| Change::EditService {
            service,
            spec: wanted.spec.clone(),
        });
        // Single packets and FULLNAT do not go together: who gives one up comes first.
        let (first, last) = match now.spec.one_packet {
            true => (spec, None),
            false => (None, spec),
        };
        steps.edits.extend(first);
        if now.options != wanted.options {
            let options = wanted.options;
            steps.edits.push(Change::SetOptions { service, options });
        }
        if now.health != wanted.health {
            let health = Box::new(wanted.health.clone());
            steps.edits.push(Change::SetHealth { service, health });
        }
        steps.local_addresses(now, wanted);
        self.servers(now, said, wanted, steps);
        steps.edits.extend(last);
    }

    fn servers(
        self,
        now: &ServiceConf,
        said: Option<&ServiceConf>,
        wanted: &ServiceConf,
        steps: &mut Steps,
    ) {
        let service = now.key;
        let (known, said, goal) = (servers(Some(now)), servers(said), servers(Some(wanted)));
        for server in &now.servers {
            let address = server.address;
            let said = said.get(&address).copied();
            if let Some(wanted) = goal.get(&address) {
                self.edit_server(service, server, said, wanted, steps);
                continue;
            }
            steps.deletions.push(Change::DeleteServer {
                service,
                server: address,
            });
            let what = What::Server {
                service,
                server: address,
            };
            steps.tell(Action::Delete, what, Vec::new(), said.is_none());
        }
        let new = wanted.servers.iter();
        for server in new.filter(|server| !known.contains_key(&server.address)) {
            steps.add_server(service, server, said.contains_key(&server.address));
        }
    }

    /// One that is being drained goes on being drained if the file gives it the weight that it had,
    /// or the one that it has.
    fn edit_server(
        self,
        service: ServiceKey,
        now: &ServerConf,
        said: Option<&ServerConf>,
        wanted: &ServerConf,
        steps: &mut Steps,
    ) {
        let server = now.address;
        let mut goal = *wanted;
        let drains = self.draining.contains(&(service, server))
            && [0, now.spec.weight].contains(&wanted.spec.weight);
        if drains {
            goal.spec.weight = now.spec.weight;
        }
        if *now == goal {
            return;
        }
        let said = said.map(ServerConf::keys).unwrap_or_default();
        let keys = changed(&now.keys(), &said, &goal.keys());
        let weight = if drains { 0 } else { goal.spec.weight };
        let spec = ServerSpec {
            weight,
            ..goal.spec
        };
        if now.spec != goal.spec {
            steps.edits.push(Change::EditServer {
                service,
                server,
                spec,
            });
        }
        if now.options != goal.options {
            let options = goal.options;
            steps.edits.push(Change::SetServerOptions {
                service,
                server,
                options,
            });
        }
        steps.tell_edit(What::Server { service, server }, keys);
    }
}

impl Steps {
    pub(super) fn tell(
        &mut self,
        action: Action,
        what: What,
        keys: Vec<KeyDifference>,
        by_hand: bool,
    ) {
        self.differences.push(Difference {
            action,
            what,
            keys,
            by_hand,
        });
    }

    pub(super) fn tell_edit(&mut self, what: What, keys: Vec<KeyDifference>) {
        let by_hand = keys.iter().any(|key| key.by_hand);
        self.tell(Action::Edit, what, keys, by_hand);
    }

    fn add_service(&mut self, new: &ServiceConf, by_hand: bool) {
        let service = new.key;
        let spec = new.spec.clone();
        self.additions.push(Change::AddService { service, spec });
        if new.options != ServiceOptions::default() {
            let options = new.options;
            self.additions.push(Change::SetOptions { service, options });
        }
        if new.health != Health::default() {
            let health = Box::new(new.health.clone());
            self.additions.push(Change::SetHealth { service, health });
        }
        for address in &new.local_addresses {
            let address = *address;
            self.additions
                .push(Change::AddLocalAddress { service, address });
        }
        self.tell(
            Action::Add,
            What::Service { service },
            given(&new.keys()),
            by_hand,
        );
        for server in &new.servers {
            self.add_server(service, server, by_hand);
        }
    }

    fn add_server(&mut self, service: ServiceKey, new: &ServerConf, by_hand: bool) {
        let server = new.address;
        self.additions.push(Change::AddServer {
            service,
            server,
            spec: new.spec,
        });
        if new.options != ServerOptions::default() {
            let options = new.options;
            self.additions.push(Change::SetServerOptions {
                service,
                server,
                options,
            });
        }
        let what = What::Server { service, server };
        self.tell(Action::Add, what, given(&new.keys()), by_hand);
    }

    /// They end in the file's order. Those that stay are not touched, unless their order changes.
    fn local_addresses(&mut self, now: &ServiceConf, wanted: &ServiceConf) {
        let service = now.key;
        let (old, new) = (&now.local_addresses, &wanted.local_addresses);
        let kept = old.iter().filter(|address| new.contains(address));
        let mut stays: Vec<_> = kept.copied().collect();
        if !new.starts_with(&stays) {
            stays.clear();
        }
        for address in old.iter().filter(|address| !stays.contains(address)) {
            let address = *address;
            self.deletions
                .push(Change::DeleteLocalAddress { service, address });
        }
        for address in &new[stays.len()..] {
            let address = *address;
            self.additions
                .push(Change::AddLocalAddress { service, address });
        }
    }
}

/// Keys whose values differ; `said` has none of them, or all.
pub(super) fn changed(now: &[Key], said: &[Key], wanted: &[Key]) -> Vec<KeyDifference> {
    let pairs = now.iter().zip(wanted).enumerate();
    let differ = pairs.filter(|(_, (now, wanted))| now.value != wanted.value);
    differ
        .map(|(at, (now, wanted))| KeyDifference {
            key: now.name.to_owned(),
            before: Some(now.value.clone()),
            after: wanted.value.clone(),
            by_hand: said.get(at).is_none_or(|said| said.value != now.value),
        })
        .collect()
}

/// Keys of what is new that are not their defaults.
pub(super) fn given(keys: &[Key]) -> Vec<KeyDifference> {
    let given = keys.iter().filter(|key| !key.is_default);
    given
        .map(|key| KeyDifference {
            key: key.name.to_owned(),
            before: None,
            after: key.value.clone(),
            by_hand: false,
        })
        .collect()
}

/// The most rules that are in both lists in the same order; no list has one twice.
fn in_order<'m>(now: &[MarkRule], wanted: &'m [MarkRule]) -> HashSet<&'m MarkRule> {
    let places: HashMap<&MarkRule, usize> = now.iter().zip(0..).collect();
    let common = wanted
        .iter()
        .filter_map(|rule| Some((rule, *places.get(rule)?)));
    let common: Vec<(&MarkRule, usize)> = common.collect();
    // For each length the run of that length that ends earliest, as an index into `common`; and for
    // each rule the one before it in its run.
    let (mut ends, mut before) = (Vec::<usize>::new(), Vec::with_capacity(common.len()));
    for (at, (_, place)) in common.iter().enumerate() {
        let len = ends.partition_point(|end| common[*end].1 < *place);
        before.push(len.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(len) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut next = ends.last().copied();
    let run = std::iter::from_fn(|| {
        let at = next?;
        next = before[at];
        Some(common[at].0)
    });
    run.collect()
}

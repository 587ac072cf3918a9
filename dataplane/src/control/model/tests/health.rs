//! Servers that are withheld for their health.

use control::{
    Check, Fitness, Health, KernelSide, OnFailure, Probe, Rhythm, ServerOptions, Talk, Via,
};
use proptest::prelude::*;

use super::*;

const DOWN: Option<Fitness> = Some(Fitness::Down);
const UP: Option<Fitness> = Some(Fitness::Up);

fn watched(on_failure: OnFailure) -> Change {
    let check = Check {
        probe: Probe::Tcp(Talk::default()),
        via: Via::Host,
        address: None,
        port: None,
        rhythm: Rhythm::default(),
    };
    let health = Health {
        checks: vec![check],
        on_failure,
        min_healthy: 1,
        announce: None,
        passive: None,
    };
    Change::SetHealth {
        service: key(1),
        health: Box::new(health),
    }
}

fn sorry(server: u8) -> Change {
    let options = ServerOptions {
        sorry: true,
        ..ServerOptions::default()
    };
    Change::SetServerOptions {
        service: key(1),
        server: address(server),
        options,
    }
}

fn edit(server: u8, weight: u32) -> Change {
    Change::EditServer {
        service: key(1),
        server: address(server),
        spec: super::weight(weight),
    }
}

/// A service whose servers are 0, 1, … by id.
fn model(servers: u8, on_failure: OnFailure) -> Model {
    let mut model = Model::new(LIMITS);
    let servers = (1..=servers).map(|n| add_server(1, n));
    let changes: Vec<_> = [add_service(1), watched(on_failure)]
        .into_iter()
        .chain(servers)
        .collect();
    model.apply(&changes).unwrap();
    model
}

/// With this check alone; why it is refused.
fn refused(model: &mut Model, service: ServiceKey, on_failure: OnFailure, check: Check) -> String {
    let health = Box::new(Health {
        checks: vec![check],
        on_failure,
        ..Health::default()
    });
    let change = Change::SetHealth { service, health };
    let refusal = model.apply(&[change]).err();
    refusal.map_or_else(String::new, |refusal| refusal.detail)
}

#[test]
fn a_check_by_the_method_goes_to_what_the_service_is_known_by() {
    let check = Check {
        probe: Probe::Tcp(Talk::default()),
        via: Via::Method,
        address: None,
        port: None,
        rhythm: Rhythm::default(),
    };
    let all_ports = ServiceKey::at(Protocol::Tcp, "10.0.0.9:0".parse().unwrap());
    let mark = ServiceKey::Mark {
        mark: 7.try_into().unwrap(),
        ipv6: false,
    };
    let at = |address: Option<&str>, port| Check {
        address: address.map(|address| address.parse().unwrap()),
        port,
        ..check.clone()
    };
    let vip = Some("10.0.0.8");
    for (service, check, target) in [
        (key(1), at(None, None), key(1).address()),
        (key(1), at(None, Some(81)), None),
        (key(1), at(vip, None), None),
        (all_ports, at(None, Some(81)), "10.0.0.9:81".parse().ok()),
        (all_ports, at(None, None), None),
        (all_ports, at(vip, Some(81)), None),
        (mark, at(vip, Some(81)), "10.0.0.8:81".parse().ok()),
        (mark, at(vip, None), None),
        (mark, at(Some("2001:db8::8"), Some(81)), None),
    ] {
        assert_eq!(check.virtual_target(&service).ok(), target, "{check:?}");
    }
    let side = PortSpec {
        kernel: Some(KernelSide::default()),
        ..PortSpec::new("lan", "net_null0")
    };
    let without = PortSpec::new("wan", "net_null1");
    let mut model = Model::new(LIMITS).with_ports([without, side]);
    model.apply(&[add_service(1)]).unwrap();
    let mut refused = |on_failure, check| refused(&mut model, key(1), on_failure, check);
    assert_eq!(refused(OnFailure::Quiesce, check.clone()), "");
    let removed = refused(OnFailure::Remove, check.clone());
    assert!(removed.contains("reached by no method"), "{removed}");
    let icmp = Check {
        probe: Probe::Icmp,
        ..check
    };
    let icmp = refused(OnFailure::Quiesce, icmp);
    assert!(icmp.contains("goes by no method"), "{icmp}");
    assert_eq!(
        model.side_toward("10.0.0.1".parse().unwrap()),
        Some(("lan", None))
    );
}

/// Each update about a server, in short.
fn told(updates: &[Update]) -> Vec<String> {
    let short = |update: &Update| match update {
        Update::AddServer { id, weight, .. } => format!("+{} {weight}", id.0),
        Update::EditServer { id, weight, .. } => format!("{} {weight}", id.0),
        Update::DrainServer { id, draining: true } => format!("{} drains", id.0),
        Update::DrainServer {
            id,
            draining: false,
        } => format!("{} stays", id.0),
        Update::DeleteServer { id } => format!("-{}", id.0),
        other => panic!("{other:?}"),
    };
    updates.iter().map(short).collect()
}

fn diagnose(model: &mut Model, id: u32, fitness: Option<Fitness>) -> Vec<String> {
    told(&model.diagnose([(ServerId(id), fitness, false)]))
}

/// Weights as ipvsadm lists them, by server.
fn listed(model: &Model) -> Vec<u32> {
    let mut services = model.services(Some(&key(1))).unwrap();
    let servers = &mut services[0].servers;
    servers.retain(control::Server::is_listed);
    servers.sort_by_key(|server| server.address);
    servers.iter().map(control::Server::weight_listed).collect()
}

#[test]
fn a_server_that_is_down_is_quiesced_until_it_is_up() {
    let mut model = model(2, OnFailure::Quiesce);
    let before = model.conf();
    assert_eq!(diagnose(&mut model, 0, Some(Fitness::Unknown)), [""; 0]);
    assert_eq!(diagnose(&mut model, 0, DOWN), ["0 0", "0 drains"]);
    assert_eq!(listed(&model), [0, 1]);
    assert_eq!(model.conf(), before, "the configuration is as it was");
    assert_eq!(diagnose(&mut model, 0, DOWN), [""; 0]);
    // What is set meanwhile counts when it is back.
    let updates = model.apply(&[edit(1, 7)]).unwrap();
    assert_eq!(told(&updates), ["0 0"]);
    assert_eq!(diagnose(&mut model, 0, UP), ["0 7", "0 stays"]);
    assert_eq!(listed(&model), [7, 1]);
    let health = model.services(None).unwrap()[0].health.unwrap();
    assert!(health.is_enough());
    assert_eq!((health.up, health.min_healthy), (1, 1));
}

#[test]
fn a_server_that_is_down_is_removed_where_that_is_wanted() {
    let mut model = model(2, OnFailure::Remove);
    let before = model.conf();
    assert_eq!(diagnose(&mut model, 0, DOWN), ["-0"]);
    assert_eq!(listed(&model), [1]);
    assert_eq!(told(&model.apply(&[edit(1, 3)]).unwrap()), [""; 0]);
    assert_eq!(diagnose(&mut model, 0, UP), ["+0 3", "0 stays"]);
    assert_eq!(listed(&model), [3, 1]);
    model.apply(&[edit(1, 1)]).unwrap();
    let servers = |conf: control::Conf| {
        let mut servers = conf.services[0].servers.clone();
        servers.sort_by_key(|server| server.address);
        servers
    };
    assert_eq!(servers(model.conf()), servers(before));
    // Its workers are told nothing of it when it is deleted meanwhile, and it begins anew.
    diagnose(&mut model, 0, DOWN);
    assert_eq!(told(&model.apply(&[delete_server(1, 1)]).unwrap()), [""; 0]);
    assert_eq!(told(&model.apply(&[add_server(1, 1)]).unwrap()), ["+0 1"]);
}

#[test]
fn a_sorry_server_stands_in_when_no_other_is_left() {
    let mut model = model(3, OnFailure::Quiesce);
    assert_eq!(
        told(&model.apply(&[sorry(3)]).unwrap()),
        ["2 0", "2 drains"]
    );
    assert_eq!(diagnose(&mut model, 0, DOWN), ["0 0", "0 drains"]);
    assert_eq!(listed(&model), [0, 1, 0]);
    let last = ["1 0", "1 drains", "2 1", "2 stays"];
    assert_eq!(diagnose(&mut model, 1, DOWN), last);
    assert_eq!(listed(&model), [0, 0, 1]);
    let back = ["0 1", "0 stays", "2 0", "2 drains"];
    assert_eq!(diagnose(&mut model, 0, UP), back);
    // Weight 0 by hand is as good as down.
    assert_eq!(
        told(&model.apply(&[edit(1, 0)]).unwrap()),
        ["0 0", "2 1", "2 stays"]
    );
    assert_eq!(told(&model.apply(&[delete_server(1, 3)]).unwrap()), ["-2"]);
}

#[test]
fn who_is_not_watched_any_more_is_as_before() {
    let mut model = model(2, OnFailure::Quiesce);
    diagnose(&mut model, 0, DOWN);
    let stays = |id: ServerId| id.0 == 1;
    assert_eq!(told(&model.discharge(stays)), ["0 1", "0 stays"]);
    assert_eq!(model.patients().len(), 2);
    let none = Change::SetHealth {
        service: key(1),
        health: Box::default(),
    };
    model.apply(&[none]).unwrap();
    assert_eq!(model.patients().len(), 0);
}

#[test]
fn a_refused_batch_changes_nobodys_health() {
    let mut model = model(2, OnFailure::Quiesce);
    diagnose(&mut model, 0, DOWN);
    let (before, conf) = (listed(&model), model.conf());
    let wrong = add_server(1, 1);
    let to_removal = watched(OnFailure::Remove);
    model
        .apply(&[sorry(2), to_removal.clone(), wrong])
        .unwrap_err();
    assert_eq!((listed(&model), model.conf()), (before, conf));
    model
        .try_out(&[sorry(2), to_removal.clone()], |tried| {
            assert_eq!(listed(tried), [1])
        })
        .unwrap();
    assert_eq!(listed(&model), [0, 1]);
    assert_eq!(told(&model.apply(&[to_removal]).unwrap()), ["-0"]);
}

proptest! {
    /// Whatever happens, the workers have the weights that follow from weights, health and who is
    /// sorry, and what is configured is nobody's but the operator's.
    #[test]
    fn workers_know_what_follows(
        removes: bool,
        steps in prop::collection::vec((0..4u8, 0..6u8, 0..3u32), 1..40),
    ) {
        let on_failure = if removes { OnFailure::Remove } else { OnFailure::Quiesce };
        let mut model = model(4, on_failure);
        let mut workers: Vec<Option<u32>> = vec![Some(1); 4];
        let mut naive = [(1u32, UP, false); 4];
        for (n, kind, value) in steps {
            let (server, id) = (usize::from(n), u32::from(n));
            let updates = match kind {
                0 => {
                    naive[server].0 = value;
                    model.apply(&[edit(n + 1, value)]).unwrap()
                }
                1 => {
                    naive[server].2 = true;
                    model.apply(&[sorry(n + 1)]).unwrap()
                }
                _ => {
                    naive[server].1 = [DOWN, UP, None][value as usize];
                    model.diagnose([(ServerId(id), naive[server].1, false)])
                }
            };
            for update in &updates {
                match update {
                    Update::AddServer { id, weight, .. } => {
                        prop_assert_eq!(workers[id.index()].replace(*weight), None);
                    }
                    Update::EditServer { id, weight, .. } => {
                        prop_assert!(workers[id.index()].replace(*weight).is_some());
                    }
                    Update::DeleteServer { id } => {
                        prop_assert!(workers[id.index()].take().is_some());
                    }
                    _ => {}
                }
            }
            let serves = |&(weight, fitness, sorry): &(u32, Option<Fitness>, bool)| {
                weight > 0 && fitness != DOWN && !sorry
            };
            let others = naive.iter().any(serves);
            let expected = naive.map(|(weight, fitness, sorry)| match fitness == DOWN {
                true if removes => None,
                true => Some(0),
                false if sorry && others => Some(0),
                false => Some(weight),
            });
            prop_assert_eq!(&workers[..], &expected[..]);
            let conf = model.conf();
            for (n, (weight, ..)) in naive.iter().enumerate() {
                let own = address(u8::try_from(n).unwrap() + 1);
                let written = conf.services[0].servers.iter().find(|server| server.address == own);
                prop_assert_eq!(written.unwrap().spec.weight, *weight);
            }
        }
    }
}

#[test]
fn an_address_is_announced_while_all_its_services_are_fit() {
    let mut model = model(2, OnFailure::Quiesce);
    let announced = |service, min_healthy| {
        let Change::SetHealth { mut health, .. } = watched(OnFailure::Quiesce) else {
            unreachable!()
        };
        health.announce = Some("lo".to_owned());
        health.min_healthy = min_healthy;
        Change::SetHealth { service, health }
    };
    assert!(model.announced().is_empty());
    model.apply(&[announced(key(1), 2)]).unwrap();
    let place = (key(1).address().unwrap().ip(), "lo".to_owned());
    let is_fit = |model: &Model| model.announced()[&place];
    assert!(!is_fit(&model), "nobody has looked yet");
    diagnose(&mut model, 0, UP);
    assert!(!is_fit(&model));
    diagnose(&mut model, 1, UP);
    assert!(is_fit(&model));
    // Another service there has a say too.
    let other = ServiceKey::at(Protocol::Udp, key(1).address().unwrap());
    let spec = ServiceSpec::new("rr");
    let add = Change::AddService {
        service: other,
        spec,
    };
    model.apply(&[add]).unwrap();
    assert!(is_fit(&model), "it does not announce");
    model.apply(&[announced(other, 1)]).unwrap();
    assert!(!is_fit(&model), "it has no server");
}

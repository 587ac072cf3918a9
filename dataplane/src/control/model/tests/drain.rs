//! Draining and slow start.

use std::time::Duration;

use control::{Drain, Draining};

use super::*;

const S1: u8 = 1;

fn drain(drain: Drain) -> Change {
    Change::DrainServer {
        service: key(1),
        server: address(S1),
        drain,
    }
}

fn cancel() -> Change {
    Change::CancelDrain {
        service: key(1),
        server: address(S1),
    }
}

fn edit(server: u8, spec: ServerSpec) -> Change {
    Change::EditServer {
        service: key(1),
        server: address(server),
        spec,
    }
}

/// The first server's weight, its weight for now, and its draining.
fn listed(model: &Model) -> (u32, Option<u32>, Option<Draining>) {
    let services = model.services(Some(&key(1))).unwrap();
    let server = (services[0].servers.iter()).find(|server| server.address == address(S1));
    let server = server.unwrap();
    (server.spec.weight, server.weight_now, server.draining)
}

/// What workers are told of weights.
fn told(updates: &[Update]) -> Vec<(u32, u32)> {
    let weight = |update: &Update| match update {
        Update::AddServer { id, weight, .. } | Update::EditServer { id, weight, .. } => {
            Some((id.0, *weight))
        }
        _ => None,
    };
    updates.iter().filter_map(weight).collect()
}

fn at(model: &mut Model, seconds: u64) {
    model.set_time(Duration::from_secs(seconds));
}

#[test]
fn draining_takes_the_weight_and_cancelling_gives_it_back() {
    let (mut model, _page) = counted();
    model.apply(&[edit(S1, weight(7))]).unwrap();
    at(&mut model, 100);
    let wanted = Drain {
        deadline_s: Some(30),
        reset: true,
        delete: false,
    };
    assert_eq!(told(&model.apply(&[drain(wanted)]).unwrap()), [(0, 0)]);
    at(&mut model, 110);
    let left = |deadline_s| {
        let drain = Drain {
            deadline_s: Some(deadline_s),
            ..wanted
        };
        Some(Draining { drain, weight: 7 })
    };
    assert_eq!(listed(&model), (0, None, left(20)));
    // Asked for again, the deadline counts from now on; the weight is still the one before.
    model.apply(&[drain(wanted)]).unwrap();
    assert_eq!(listed(&model), (0, None, left(30)));
    assert_eq!(told(&model.apply(&[cancel()]).unwrap()), [(0, 7)]);
    assert_eq!(listed(&model), (7, None, None));
    let refusal = model.apply(&[cancel()]).unwrap_err();
    assert_eq!(
        (refusal.errno, refusal.detail.as_str()),
        (
            Errno::Enoent,
            "server 192.168.1.1:80 of tcp 10.0.0.1:80 is not being drained"
        )
    );
}

#[test]
fn a_weight_given_by_hand_ends_a_drain() {
    let (mut model, _page) = counted();
    model.apply(&[drain(Drain::default())]).unwrap();
    let kept = edit(S1, weight(0));
    assert!(!model.ends_drain(&kept));
    model.apply(&[kept]).unwrap();
    assert!(listed(&model).2.is_some(), "weight 0 is what it has");
    let given = edit(S1, weight(5));
    assert!(model.ends_drain(&given) && !model.ends_drain(&edit(2, weight(5))));
    model.apply(std::slice::from_ref(&given)).unwrap();
    assert_eq!(listed(&model), (5, None, None));
    assert!(!model.ends_drain(&given));
}

#[test]
fn a_refused_batch_drains_nothing() {
    let (mut model, _page) = counted();
    let no_deadline = Drain {
        reset: true,
        ..Drain::default()
    };
    let too_late = Drain {
        deadline_s: Some(3_000_000),
        ..Drain::default()
    };
    for (wrong, detail) in [
        (
            no_deadline,
            "server 192.168.1.1:80 is to reset what is cut at a deadline, but has no deadline; seconds are right",
        ),
        (
            too_late,
            "a deadline of 3000000 s for server 192.168.1.1:80 is too far away, at most 2678400 (31 days) is right",
        ),
    ] {
        let refusal = model
            .apply(&[drain(Drain::default()), drain(wrong)])
            .unwrap_err();
        assert_eq!(
            (refusal.errno, refusal.detail.as_str()),
            (Errno::Einval, detail)
        );
        assert_eq!(listed(&model), (1, None, None));
    }
}

#[test]
fn what_is_left_at_the_deadline_is_cut_once_and_then_it_is_empty() {
    let (mut model, page) = counted();
    page.servers[0].active.set(2);
    page.servers[0].inactive.set(1);
    let wanted = Drain {
        deadline_s: Some(10),
        reset: true,
        delete: true,
    };
    model.apply(&[drain(wanted)]).unwrap();
    at(&mut model, 9);
    assert_eq!(model.drained(), []);
    at(&mut model, 10);
    let late = Drained::Late {
        id: ServerId(0),
        service: key(1),
        server: address(S1),
        connections: 3,
        reset: true,
    };
    assert_eq!(model.drained(), [late]);
    assert_eq!(model.drained(), [], "it is told once");
    page.servers[0].active.set(0);
    page.servers[0].inactive.set(0);
    let empty = Drained::Empty {
        service: key(1),
        server: address(S1),
        delete: true,
    };
    assert_eq!(model.drained(), std::slice::from_ref(&empty));
    assert_eq!(model.drained(), [empty], "until it is deleted");
    model.apply(&[delete_server(1, S1)]).unwrap();
    assert_eq!(model.drained(), []);
    model.apply(&[add_server(1, S1)]).unwrap();
    assert_eq!(
        listed(&model),
        (1, None, None),
        "it comes back as it is added"
    );
}

#[test]
fn an_empty_server_that_stays_is_told_once() {
    let (mut model, _page) = counted();
    model.apply(&[drain(Drain::default())]).unwrap();
    assert_eq!(model.drained().len(), 1);
    assert_eq!(model.drained(), []);
    assert!(listed(&model).2.is_some());
}

/// Service 1 by `scheduler`, with slow start over 10 s, 100 s old; server 2 is in it.
fn slow(scheduler: &str) -> Model {
    let mut model = Model::new(LIMITS);
    let service = Change::AddService {
        service: key(1),
        spec: spec(scheduler),
    };
    let options = Change::SetOptions {
        service: key(1),
        options: ServiceOptions {
            slow_start_s: 10,
            ..ServiceOptions::default()
        },
    };
    model.apply(&[service, options, add_server(1, 2)]).unwrap();
    at(&mut model, 100);
    model
}

fn add(spec: ServerSpec) -> Change {
    Change::AddServer {
        service: key(1),
        server: address(S1),
        spec,
    }
}

#[test]
fn a_new_servers_weight_grows() {
    let mut model = slow("wlc");
    let updates = model.apply(&[add(weight(41))]).unwrap();
    assert_eq!(told(&updates), [(1, 1)]);
    assert_eq!(listed(&model), (41, Some(1), None));
    assert_eq!(model.ramp(), []);
    let mut seen = Vec::new();
    for second in 101..=112 {
        at(&mut model, second);
        seen.extend(told(&model.ramp()).iter().map(|(_, weight)| *weight));
    }
    assert_eq!(seen, [5, 9, 13, 17, 21, 25, 29, 33, 37, 41]);
    assert_eq!(listed(&model), (41, None, None));
}

#[test]
fn an_edit_moves_the_goal_and_zero_ends_the_ramp() {
    let mut model = slow("wrr");
    model.apply(&[add(weight(41))]).unwrap();
    at(&mut model, 105);
    assert_eq!(
        told(&model.apply(&[edit(S1, weight(21))]).unwrap()),
        [(1, 11)]
    );
    assert_eq!(
        told(&model.apply(&[edit(S1, weight(0))]).unwrap()),
        [(1, 0)]
    );
    assert_eq!(listed(&model), (0, None, None));
    at(&mut model, 200);
    assert_eq!(
        told(&model.apply(&[edit(S1, weight(21))]).unwrap()),
        [(1, 1)]
    );
    at(&mut model, 205);
    assert_eq!(told(&model.ramp()), [(1, 11)]);
    // A drain that is cancelled begins anew.
    model.apply(&[drain(Drain::default())]).unwrap();
    assert_eq!(told(&model.apply(&[cancel()]).unwrap()), [(1, 1)]);
    // Without slow start it has its weight at once.
    let options = ServiceOptions::default();
    let service = key(1);
    model
        .apply(&[Change::SetOptions { service, options }])
        .unwrap();
    assert_eq!(told(&model.ramp()), [(1, 21)]);
    assert_eq!(model.ramp(), []);
}

#[test]
fn no_ramp_where_it_would_not_help() {
    // By hash or in turn.
    for scheduler in ["mh", "sh", "dh", "rr", "lc", "fo"] {
        let mut model = slow(scheduler);
        assert_eq!(told(&model.apply(&[add(weight(9))]).unwrap()), [(1, 9)]);
    }
    // All are new.
    let mut model = slow("wlc");
    at(&mut model, 9);
    assert_eq!(told(&model.apply(&[add(weight(9))]).unwrap()), [(1, 9)]);
    // Nobody else takes connections.
    let mut model = slow("wlc");
    let updates = model.apply(&[edit(2, weight(0)), add(weight(9))]).unwrap();
    assert_eq!(told(&updates), [(0, 0), (1, 9)]);
    // There is nothing between 1 and 1.
    let mut model = slow("wlc");
    assert_eq!(told(&model.apply(&[add(weight(1))]).unwrap()), [(1, 1)]);
    assert_eq!(listed(&model), (1, None, None));
}

#[test]
fn a_refused_batch_begins_no_ramp() {
    let mut model = slow("wlc");
    model.apply(&[add(weight(0))]).unwrap();
    let batch = [edit(S1, weight(9)), add_service(1)];
    assert!(model.apply(&batch).is_err());
    assert_eq!(listed(&model), (0, None, None));
    at(&mut model, 105);
    assert_eq!(model.ramp(), []);
}

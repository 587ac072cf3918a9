//! Servers whose weight changes by itself: drained, and new ones.

use super::*;

/// What the worker was told since the last time; it confirms all.
fn told(commands: &Receiver<Command>) -> Vec<Update> {
    let updates = |command| match command {
        Command::Apply(batch, done) => {
            let _ = done.send(());
            batch.to_vec()
        }
        other => panic!("{other:?}"),
    };
    commands.try_iter().flat_map(updates).collect()
}

#[test]
fn a_drain_is_seen_to_though_nobody_watches() {
    let (a, commands) = worker(1, MAILBOX_MAX);
    let page = Arc::clone(&a.page);
    page.servers[0].active.set(2);
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let drain = Change::DrainServer {
        service: key(),
        server: "10.1.0.1:80".parse().unwrap(),
        drain: control::Drain {
            deadline_s: Some(3),
            reset: true,
            delete: true,
        },
    };
    // The worker of this test confirms later.
    let updates = control
        .model
        .apply(&[add_service(), add_server(), drain])
        .unwrap();
    control.post(updates);
    assert_eq!(told(&commands).len(), 4);
    for (second, expected) in [
        (2, None),
        (
            3,
            Some(Update::CutServer {
                id: ServerId(0),
                reset: true,
            }),
        ),
        (4, None),
    ] {
        control.tick(Duration::from_secs(second));
        assert_eq!(
            told(&commands),
            Vec::from_iter(expected),
            "after {second} s"
        );
    }
    page.servers[0].active.set(0);
    let deleting = thread::spawn(move || {
        let Command::Apply(batch, done) = commands.recv().unwrap() else {
            panic!()
        };
        done.send(()).unwrap();
        batch.to_vec()
    });
    control.tick(Duration::from_secs(5));
    let id = ServerId(0);
    assert_eq!(deleting.join().unwrap(), [Update::DeleteServer { id }]);
    let services = control.model.services(None).unwrap();
    assert_eq!(services[0].servers, []);
}

#[test]
fn a_ramp_goes_on_by_itself() {
    let (a, commands) = worker(1, MAILBOX_MAX);
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let edit = |server: &str, weight| Change::AddServer {
        service: key(),
        server: server.parse().unwrap(),
        spec: ServerSpec {
            mode: ForwardMode::Nat,
            weight,
            tunnel: control::Tunnel::default(),
            thresholds: control::Thresholds::default(),
        },
    };
    let service = Change::AddService {
        service: key(),
        spec: ServiceSpec::new("wlc"),
    };
    let options = Change::SetOptions {
        service: key(),
        options: control::ServiceOptions {
            slow_start_s: 4,
            ..control::ServiceOptions::default()
        },
    };
    control
        .model
        .apply(&[service, options, edit("10.1.0.1:80", 9)])
        .unwrap();
    control.tick(Duration::from_secs(10));
    control.model.apply(&[edit("10.1.0.2:80", 9)]).unwrap();
    let mut weights = Vec::new();
    for second in 11..20 {
        control.tick(Duration::from_secs(second));
        for update in told(&commands) {
            let Update::EditServer { weight, .. } = update else {
                panic!("{update:?}")
            };
            weights.push(weight);
        }
    }
    assert_eq!(weights, [3, 5, 7, 9]);
}

//! Connections, templates and the status, gathered from all workers.

use super::*;
use crate::templates::{Key, Kind, Tie};
use crate::time::Instant;

fn all_from(cursor: Cursor) -> Request {
    let filter = Filter::default();
    Request::Connections { cursor, filter }
}

#[test]
fn connections_go_on_from_worker_to_worker() {
    let (a, of_a) = worker(1, 4);
    let (b, of_b) = worker(2, 4);
    let answering = thread::spawn(move || {
        for (commands, expected, next) in [(&of_a, 0, Some(7)), (&of_a, 7, None), (&of_b, 0, None)]
        {
            let Command::Connections { wanted, reply } = commands.recv().unwrap() else {
                panic!()
            };
            assert_eq!((wanted.from, wanted.templates), (expected, false));
            reply.send((Vec::new(), next)).unwrap();
        }
    });
    let mut control = Control::new(LIMITS, vec![a, b], 64, Machine::default);
    let mut cursor = Some(Cursor::default());
    let mut cursors = Vec::new();
    while let Some(at) = cursor {
        let Reply::Connections { next, .. } = control.handle(all_from(at), &Peer::root(1)) else {
            panic!()
        };
        cursors.push((at.worker, at.entry));
        cursor = next;
    }
    assert_eq!(cursors, [(0, 0), (1, 0)], "a reply holds several slices");
    answering.join().unwrap();
}

#[test]
fn templates_come_behind_the_last_workers_connections() {
    let (a, commands) = worker(1, 4);
    let templates = Arc::new(Templates::new(64, [1, 2]).unwrap());
    let mut control =
        Control::new(LIMITS, vec![a], 64, Machine::default).sharing(Arc::clone(&templates));
    let updates = control.model.apply(&[add_service(), add_server()]);
    assert_eq!(updates.unwrap().len(), 2);
    let player = thread::spawn(move || {
        for command in commands {
            let _ = match command {
                Command::Connections { wanted, reply } => {
                    let goes_on = wanted.templates && wanted.from == 0;
                    reply.send((Vec::new(), goes_on.then_some(7)))
                }
                other => panic!("{other:?}"),
            };
        }
    });
    let next = |control: &mut Control, worker, entry| {
        let cursor = Cursor { worker, entry };
        match control.handle(all_from(cursor), &Peer::root(1)) {
            Reply::Connections { next, .. } => next.map(|next| (next.worker, next.entry)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(next(&mut control, 0, 0), None);
    let key = Key {
        kind: Kind::Persistence,
        protocol: 6,
        client: "192.0.2.1:0".parse().unwrap(),
        virtual_address: "10.0.0.1:80".parse().unwrap(),
        engine: &[],
    };
    let tie = Tie {
        server: ServerId(0),
        server_port: 80,
        timeout_ms: 1000,
    };
    let hold = templates.make(&key, Instant(0), tie).unwrap();
    templates.release(hold);
    assert_eq!(next(&mut control, 0, 0), Some((1, 0)));
    assert_eq!(
        next(&mut control, 1, 0),
        None,
        "both slices are in the reply"
    );
    let services = control.model.services(None).unwrap();
    assert_eq!(services[0].servers[0].persistent, 1);
    let Reply::Status(status) = control.handle(Request::Status, &Peer::root(1)) else {
        panic!()
    };
    assert_eq!((status.templates, status.templates_max), (1, 64));
    drop(control);
    player.join().unwrap();
}

#[test]
fn the_status_names_ends_and_drops() {
    let (a, _commands) = worker(5, 1);
    let page = Arc::clone(&a.page);
    page.port(PortId(0)).rx.add(3);
    page.port(PortId(0)).consumed.add(1);
    page.count_drop(PortId(0), DropReason::NoRoute);
    let machine = || Machine {
        ports: vec![stats::PortInfo {
            id: PortId(0),
            before: Arc::default(),
            name: "lan".into(),
            device: "net_null0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            link_up: true,
            hardware: None,
            used: control::PortUse::default(),
            lost: stats::Lost::default(),
        }],
        mbufs_in_use: 9,
        mbufs: 64,
    };
    let mut control = Control::new(LIMITS, vec![a], 64, machine);
    control.tick(Duration::from_secs(5));
    let Reply::Status(status) = control.handle(Request::Status, &Peer::root(1)) else {
        panic!()
    };
    assert!(!status.balanced, "one of three packets has no end");
    assert_eq!((status.uptime_s, status.mbufs_in_use), (5, 9));
    assert_eq!(status.ports[0].drops, [("no_route".to_owned(), 1)].into());
    assert_eq!(status.ports[0].ends["dropped"], 1);
    assert_eq!(status.workers[0].ends["consumed"], 1);
    page.held.set(1);
    let Reply::Status(status) = control.handle(Request::Status, &Peer::root(1)) else {
        panic!()
    };
    assert!(status.balanced);
}

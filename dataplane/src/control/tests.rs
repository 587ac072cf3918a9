//! Requests, with threads that play the workers.

use std::thread;

use control::{ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceSpec, Settings};

use super::*;
use crate::counters::DropReason;
use crate::packet::{HeapBuf, PortId};
use crate::templates::{Key, Kind, Tie};
use crate::time::Instant;
use crate::watch::Watch;

const LIMITS: Limits = Limits {
    services_max: 4,
    servers_max: 4,
};

fn worker(core: u16, mailbox_max: usize) -> (Worker, Receiver<Command>) {
    let (mailbox, commands) = bounded(mailbox_max);
    (
        Worker {
            core,
            page: Arc::new(Page::new(4, 4).unwrap()),
            mailbox,
        },
        commands,
    )
}

fn key() -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
}

fn add_service() -> Change {
    Change::AddService {
        service: key(),
        spec: ServiceSpec::new("rr"),
    }
}

fn add_server() -> Change {
    let spec = ServerSpec {
        mode: ForwardMode::Nat,
        weight: 1,
        tunnel: control::Tunnel::default(),
        thresholds: control::Thresholds::default(),
    };
    Change::AddServer {
        service: key(),
        server: "10.1.0.1:80".parse().unwrap(),
        spec,
    }
}

fn all_from(cursor: Cursor) -> Request {
    let filter = Filter::default();
    Request::Connections { cursor, filter }
}

#[test]
fn every_worker_applies_before_the_answer() {
    let (a, of_a) = worker(1, 1);
    let (b, of_b) = worker(2, 1);
    let applied = thread::spawn(move || {
        [of_a, of_b].map(|commands| match commands.recv().unwrap() {
            Command::Apply(batch, done) => {
                thread::sleep(Duration::from_millis(20));
                done.send(()).unwrap();
                batch.len()
            }
            other => panic!("{other:?}"),
        })
    });
    let mut control = Control::new(LIMITS, vec![a, b], 64, Machine::default);
    let reply = control.handle(
        Request::Change(vec![add_service(), add_server()]),
        &Peer::root(1),
    );
    assert_eq!(reply, Reply::Done);
    assert_eq!(applied.join().unwrap(), [2, 2]);
}

#[test]
fn a_full_mailbox_refuses_before_anything_changes() {
    let (a, commands) = worker(3, 1);
    let (filler, _) = bounded(1);
    a.mailbox.send(Command::Neighbours(filler)).unwrap();
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let refusal = control.change(&[add_service()]).unwrap_err();
    assert_eq!(refusal.errno, Errno::Eagain);
    assert_eq!(control.model.services(None).unwrap(), []);
    drop(commands);
}

#[test]
fn without_workers_changes_apply_and_lists_are_empty() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    assert_eq!(
        control.handle(Request::Change(vec![add_service()]), &Peer::root(1)),
        Reply::Done
    );
    let Reply::Services(services) =
        control.handle(Request::Services { only: None }, &Peer::root(1))
    else {
        panic!()
    };
    assert_eq!(services.len(), 1);
    let none = Reply::Connections {
        list: Vec::new(),
        next: None,
    };
    assert_eq!(
        control.handle(
            Request::Connections {
                cursor: Cursor::default(),
                filter: Filter::default(),
            },
            &Peer::root(1)
        ),
        none
    );
    assert_eq!(
        control.handle(Request::Neighbours, &Peer::root(1)),
        Reply::Neighbours(Vec::new())
    );
    assert_eq!(
        control.handle(Request::Timeouts, &Peer::root(1)),
        Reply::Timeouts {
            tcp: 900,
            tcp_fin: 120,
            udp: 300
        }
    );
}

#[test]
fn settings_are_told() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    let settings = Settings {
        schedule_icmp: true,
        pmtu_disc: false,
        ..Settings::default()
    };
    let change = Change::SetSettings(settings);
    assert_eq!(
        control.handle(Request::Change(vec![change]), &Peer::root(1)),
        Reply::Done
    );
    assert_eq!(
        control.handle(Request::Settings, &Peer::root(1)),
        Reply::Settings(settings)
    );
}

#[test]
fn the_audit_log_has_words_for_what_was_changed() {
    let service = key();
    let tunnel = control::Tunnel {
        kind: control::TunnelKind::Gue,
        port: 6080,
        checksum: control::TunnelChecksum::Full,
    };
    let address = "10.0.0.5".parse().unwrap();
    for (change, words) in [
        (
            Change::AddServer {
                service,
                server: "[2001:db8::2]:80".parse().unwrap(),
                spec: ServerSpec {
                    mode: ForwardMode::Tunnel,
                    weight: 3,
                    tunnel,
                    thresholds: control::Thresholds { upper: 9, lower: 6 },
                },
            },
            "add server [2001:db8::2]:80 to tcp 10.0.0.1:80: tunnel gue:6080 csum, thresholds 9 and 6, weight 3",
        ),
        (
            Change::AddLocalAddress { service, address },
            "add local address 10.0.0.5 to tcp 10.0.0.1:80",
        ),
        (
            Change::DeleteLocalAddress { service, address },
            "delete local address 10.0.0.5 of tcp 10.0.0.1:80",
        ),
        (
            Change::DrainServer {
                service,
                server: "10.1.0.1:80".parse().unwrap(),
                drain: control::Drain {
                    deadline_s: Some(30),
                    reset: true,
                    delete: true,
                },
            },
            "drain server 10.1.0.1:80 of tcp 10.0.0.1:80: cut with resets after 30 s, then deleted",
        ),
        (
            Change::CancelDrain {
                service,
                server: "10.1.0.1:80".parse().unwrap(),
            },
            "cancel the draining of server 10.1.0.1:80 of tcp 10.0.0.1:80",
        ),
        (
            Change::SetOptions {
                service,
                options: control::ServiceOptions {
                    client_address: control::ClientAddress::ProxyV2,
                    mss: Some(1380),
                    ..control::ServiceOptions::default()
                },
            },
            "set options of tcp 10.0.0.1:80: client address proxy-v2, mss 1380",
        ),
        (
            Change::SetSettings(Settings {
                conn_reuse_mode: 0,
                sloppy_tcp: true,
                ..Settings::default()
            }),
            "set conn-reuse-mode 1 -> 0, sloppy-tcp false -> true",
        ),
        (
            Change::DeleteAddress(control::Address {
                port: "lan".to_owned(),
                vlan: Some(7),
                prefix: "10.0.0.5/24".parse().unwrap(),
            }),
            "delete address 10.0.0.5/24 on lan.7",
        ),
        (
            Change::ReplaceRoute(control::Route {
                to: "0.0.0.0/0".parse().unwrap(),
                via: address.into(),
            }),
            "replace route to 0.0.0.0/0 via 10.0.0.5",
        ),
        (
            Change::AddNeighbour(control::StaticNeighbour {
                address,
                mac: "02:00:00:00:00:07".parse().unwrap(),
            }),
            "add static neighbour 10.0.0.5 at 02:00:00:00:00:07",
        ),
    ] {
        assert_eq!(audit::describe(&change, Settings::default()), words);
    }
}

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

/// A restore of a hundred thousand servers is not to flood the log.
#[test]
fn a_long_request_is_summed_up_in_the_audit_log() {
    let lines = |changes: &[Change]| {
        let added = |change: &Change| matches!(change, Change::AddServer { .. });
        audit::lines(changes, Settings::default(), |_| None, added)
    };
    assert_eq!(lines(&[]), Vec::<String>::new());
    let mut changes = vec![add_service(); audit::LINES_MAX - 1];
    changes.push(add_server());
    let all = lines(&changes);
    assert_eq!(all.len(), audit::LINES_MAX);
    assert!(all[audit::LINES_MAX - 1].ends_with(", which ends its draining"));
    changes.extend([add_server(), add_server(), Change::Flush]);
    let more = lines(&changes);
    assert_eq!(more[..audit::LINES_MAX], all);
    let last = "and 3 more: 2 add server, 1 delete every service";
    assert_eq!(more[audit::LINES_MAX..], [last]);
}

#[test]
fn the_audit_log_says_what_was_there_before() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    control.change(&[add_service(), add_server()]).unwrap();
    let (service, server) = (key(), "10.1.0.1:80".parse().unwrap());
    let spec = ServiceSpec::new("wlc");
    let options = control::ServiceOptions {
        mss: Some(1400),
        ..control::ServiceOptions::default()
    };
    let (tcp, tcp_fin, udp) = (Some(60), None, None);
    for (change, words) in [
        (
            Change::EditService { service, spec },
            "edit service tcp 10.0.0.1:80: wlc (was rr)",
        ),
        (
            Change::SetOptions { service, options },
            "set options of tcp 10.0.0.1:80: client address toa, mss 1400 (was client address toa)",
        ),
        (
            Change::SetTimeouts { tcp, tcp_fin, udp },
            "set timeouts: tcp 60 s, tcp_fin as it is, udp as it is (was tcp 900 s, tcp_fin 120 s, udp 300 s)",
        ),
        (
            Change::DeleteServer { service, server },
            "delete server 10.1.0.1:80 of tcp 10.0.0.1:80 (was nat, weight 1)",
        ),
        (
            Change::DeleteService { service },
            "delete service tcp 10.0.0.1:80 (was rr, with 1 servers)",
        ),
    ] {
        let was = |change: &Change| control.model.was(change);
        let lines = audit::lines(&[change], Settings::default(), was, |_| false);
        assert_eq!(lines, [words]);
    }
}

#[test]
fn a_late_tick_does_not_catch_up() {
    let mut deadline = Duration::from_secs(2);
    assert!(!due(&mut deadline, Duration::from_millis(1999), 2));
    assert!(due(&mut deadline, Duration::from_millis(2300), 2));
    assert_eq!(deadline, Duration::from_secs(4));
    assert!(due(&mut deadline, Duration::from_secs(9), 2));
    assert_eq!(deadline, Duration::from_secs(11));
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
fn no_worker_frees_what_it_was_sent() {
    let (a, commands) = worker(1, 4);
    let applied = thread::spawn(move || {
        let mut tables = Vec::new();
        let mut table = None;
        for command in commands {
            let Command::Apply(batch, done) = command else {
                panic!("{command:?}")
            };
            for update in batch.iter() {
                let old = match update {
                    Update::SetTable { table: new, .. } => {
                        tables.push(Arc::downgrade(new));
                        table.replace(Arc::clone(new))
                    }
                    Update::DeleteService { .. } => table.take(),
                    _ => None,
                };
                if let Some(old) = old {
                    assert!(Arc::strong_count(&old) > 1, "the control side has it");
                }
            }
            let weak = Arc::downgrade(&batch);
            drop(batch);
            assert_eq!(weak.strong_count(), 1, "the control side has it");
            done.try_send(()).unwrap();
            if table.is_none() {
                return tables;
            }
        }
        panic!("the service was not deleted")
    });
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let spec = ServiceSpec::new("mh");
    let add = |spec| Change::AddService {
        service: key(),
        spec,
    };
    control.change(&[add(spec), add_server()]).unwrap();
    let weight = |weight| {
        let Change::AddServer {
            service,
            server,
            spec,
        } = add_server()
        else {
            unreachable!()
        };
        let spec = ServerSpec { weight, ..spec };
        Change::EditServer {
            service,
            server,
            spec,
        }
    };
    control.change(&[weight(0)]).unwrap();
    control.change(&[weight(2), weight(3)]).unwrap();
    let delete = Change::DeleteService { service: key() };
    control.change(&[delete]).unwrap();
    let tables = applied.join().unwrap();
    assert_eq!(tables.len(), 2, "a server that is quiesced moves nobody");
    control.tick(Duration::from_millis(1));
    assert!(control.posted.is_empty());
    assert!(tables.iter().all(|table| table.strong_count() == 0));
}

/// A worker that does nothing but what captures ask of it.
fn watching(commands: Receiver<Command>) -> thread::JoinHandle<Watch> {
    thread::spawn(move || {
        let mut watch = Watch::new(Arc::new(Page::new(4, 4).unwrap()));
        watch.set_time(1000);
        for command in commands {
            match command {
                Command::Drops {
                    after,
                    mut into,
                    reply,
                } => {
                    into.extend(watch.recent().since(after).cloned());
                    reply.send((into, watch.recent().count())).unwrap();
                }
                Command::Tap(tap, reply) => {
                    reply.send(watch.add_tap(tap)).unwrap();
                    watch.received(PortId(1), &[HeapBuf::new(&[7; 60])]);
                }
                Command::Untap { id, reply } => {
                    let _ = reply.try_send(watch.remove_tap(id));
                }
                Command::Neighbours(_) => {
                    watch.discard(PortId(0), DropReason::NotOurs, HeapBuf::new(&[1; 300]));
                }
                other => panic!("{other:?}"),
            }
        }
        watch
    })
}

fn two_ports() -> [PortSpec; 2] {
    [("lan", "net_null0"), ("rs", "net_null1")].map(|(name, device)| PortSpec::new(name, device))
}

fn spec() -> control::CaptureSpec {
    control::CaptureSpec {
        stage: control::Stage::Rx,
        filter: control::PacketFilter::default(),
        snaplen: 50,
        buffer: control::BUFFER_MIN,
    }
}

#[test]
fn the_last_drops_of_all_workers_are_shown() {
    let (workers, commands): (Vec<_>, Vec<_>) = [worker(1, 8), worker(2, 8)].into_iter().unzip();
    let threads: Vec<_> = commands.into_iter().map(watching).collect();
    let mailbox = workers[1].mailbox.clone();
    let mut control = Control::new(LIMITS, workers, 64, Machine::default).with_ports(two_ports());
    for _ in 0..3 {
        mailbox.send(Command::Neighbours(bounded(1).0)).unwrap();
    }
    let mut ask = |after| match control.handle(Request::Drops { after }, &Peer::root(1)) {
        Reply::Drops { list, counts } => (list, counts),
        other => panic!("{other:?}"),
    };
    let (list, counts) = ask(vec![]);
    assert_eq!((list.len(), &counts), (3, &vec![0, 3]));
    let drop = &list[0];
    assert_eq!(
        (drop.worker, &*drop.port, &*drop.reason),
        (2, "lan", "not_ours")
    );
    assert_eq!((drop.length, &drop.bytes.0), (300, &vec![1; 128]));
    assert_eq!(drop.sentence, DropReason::NotOurs.sentence());
    assert!(drop.at_ns > 1_600_000_000_000_000_000, "since the epoch");
    assert_eq!(ask(vec![0, 2]).0.len(), 1);
    assert_eq!(ask(counts).0, []);
    drop_all(control, mailbox, threads);
}

fn drop_all(control: Control, mailbox: Sender<Command>, threads: Vec<thread::JoinHandle<Watch>>) {
    drop((control, mailbox));
    for thread in threads {
        assert!(!thread.join().unwrap().is_tapped(), "a capture is left");
    }
}

#[test]
fn a_capture_is_one_clients_until_it_stops_or_goes() {
    let (workers, commands): (Vec<_>, Vec<_>) = [worker(1, 8), worker(2, 8)].into_iter().unzip();
    let threads: Vec<_> = commands.into_iter().map(watching).collect();
    let mailbox = workers[1].mailbox.clone();
    let mut control = Control::new(LIMITS, workers, 64, Machine::default).with_ports(two_ports());
    let client = |client| Peer {
        client,
        ..Peer::root(1)
    };
    let next =
        |control: &mut Control, of: u64| match control.handle(Request::CapturedNext, &client(of)) {
            Reply::Captured {
                packets,
                missed: 0,
                done,
                ports: _,
            } => (packets, done),
            other => panic!("{other:?}"),
        };
    let refused = |reply: Reply| match reply {
        Reply::Refused(refusal) => refusal.errno,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(control.handle(Request::CapturedNext, &client(1))),
        Errno::Enoent
    );
    assert_eq!(
        refused(control.handle(Request::StopCapture, &client(1))),
        Errno::Enoent
    );
    let started = Reply::CaptureStarted {
        ports: vec!["lan".into(), "rs".into()],
    };
    for of in 1..=4 {
        assert_eq!(
            control.handle(Request::StartCapture(spec()), &client(of)),
            started
        );
    }
    assert_eq!(
        refused(control.handle(Request::StartCapture(spec()), &client(1))),
        Errno::Eexist
    );
    assert_eq!(
        refused(control.handle(Request::StartCapture(spec()), &client(5))),
        Errno::Enomem
    );
    let (packets, done) = next(&mut control, 4);
    assert_eq!((packets.len(), done), (2, false), "one of each worker");
    let packet = &packets[1];
    assert_eq!((packet.worker, packet.from, packet.length), (2, 1, 60));
    assert_eq!(
        (&packet.end, packet.bytes.0.len()),
        (&control::End::Received, 50)
    );
    assert_eq!(
        control.handle(Request::StopCapture, &client(4)),
        Reply::Done
    );
    assert_eq!(next(&mut control, 4), (vec![], true));
    assert_eq!(
        refused(control.handle(Request::CapturedNext, &client(4))),
        Errno::Enoent
    );
    for of in 1..=3 {
        control.gone(&client(of));
    }
    for wrong in [
        control::CaptureSpec {
            snaplen: 0,
            ..spec()
        },
        control::CaptureSpec {
            buffer: 1,
            ..spec()
        },
        control::CaptureSpec {
            filter: control::PacketFilter {
                port: Some("wan".into()),
                ..control::PacketFilter::default()
            },
            ..spec()
        },
        control::CaptureSpec {
            filter: control::PacketFilter {
                reason: Some("no_reason".into()),
                ..control::PacketFilter::default()
            },
            ..spec()
        },
    ] {
        assert_eq!(
            refused(control.handle(Request::StartCapture(wrong), &client(1))),
            Errno::Einval
        );
    }
    while !control.captures.are_none() {
        control.tick(Duration::ZERO);
    }
    drop_all(control, mailbox, threads);
}

/// Ticks until it is so.
fn until(control: &mut Control, is_so: impl Fn(&Control) -> bool) {
    while !is_so(control) {
        control.tick(Duration::from_secs(1));
        thread::yield_now();
    }
}

fn watched(probe: control::Probe) -> Change {
    let rhythm = control::Rhythm {
        interval_ms: 50,
        rise: 1,
        fall: 1,
        ..control::Rhythm::default()
    };
    let check = control::Check {
        probe,
        via: control::Via::Host,
        address: None,
        port: None,
        rhythm,
    };
    let health = control::Health {
        checks: vec![check],
        ..control::Health::default()
    };
    Change::SetHealth {
        service: key(),
        health: Box::new(health),
    }
}

#[test]
fn a_server_that_dies_has_no_weight_until_it_is_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    let options = control::ServerOptions {
        check_address: Some(at.ip()),
        check_port: Some(at.port()),
        ..control::ServerOptions::default()
    };
    let server = "10.1.0.1:80".parse().unwrap();
    let look_there = Change::SetServerOptions {
        service: key(),
        server,
        options,
    };
    let probe = control::Probe::Tcp(control::Talk::default());
    let changes = vec![add_service(), add_server(), look_there, watched(probe)];
    let reply = control.handle(Request::Change(changes), &Peer::root(1));
    assert_eq!(reply, Reply::Done);
    let conf = control.model.conf();
    let is = |control: &Control, word: &str, weight: u32| {
        let services = control.model.services(None).unwrap();
        let server = &services[0].servers[0];
        let health = server.health.map(|health| health.word());
        health == Some(word) && server.weight_listed() == weight
    };
    until(&mut control, |control| is(control, "up", 1));
    drop(listener);
    until(&mut control, |control| is(control, "down", 0));
    let Reply::Health(list) = control.handle(Request::Health, &Peer::root(1)) else {
        panic!()
    };
    assert_eq!(list[0].check, format!("tcp {at}"));
    assert_eq!(
        (list[0].server, list[0].last.as_str()),
        (server, "connection refused")
    );
    assert_eq!(control.model.conf(), conf);
    let _again = loop {
        if let Ok(listener) = std::net::TcpListener::bind(at) {
            break listener;
        }
    };
    until(&mut control, |control| is(control, "up", 1));
    // Nobody is probed when nobody is to be.
    let delete = Change::DeleteService { service: key() };
    control.change(&[delete]).unwrap();
    until(&mut control, |control| control.health().is_empty());
}

#[test]
fn programs_are_run_for_root_only() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    control.change(&[add_service()]).unwrap();
    let program = control::Probe::Command(vec!["/bin/true".to_owned()]);
    let change = Request::Change(vec![watched(program)]);
    let somebody = Peer {
        uid: 4242,
        ..Peer::root(1)
    };
    let Reply::Refused(refusal) = control.handle(change.clone(), &somebody) else {
        panic!()
    };
    assert_eq!(refusal.errno, Errno::Eperm);
    assert_eq!(control.handle(change, &Peer::root(1)), Reply::Done);
}

/// Devices of a machine whose kernel has only `lo`, and what it was given and is left with.
#[derive(Clone, Default)]
struct Host(std::rc::Rc<std::cell::RefCell<HostState>>);

#[derive(Default)]
struct HostState {
    tables: crate::kernel::tables::Tables,
    /// The tables are news.
    is_new: bool,
    is_watched: bool,
}

impl Host {
    fn with(address: &str) -> Self {
        let host = Self::default();
        {
            let mut state = host.0.borrow_mut();
            let link = crate::kernel::tables::Link {
                name: "lo".to_owned(),
                ..crate::kernel::tables::Link::default()
            };
            state.tables.links.insert(1, link);
            (state.tables.addresses).push((1, address.parse().unwrap(), 32));
            state.is_new = true;
        }
        host
    }

    fn addresses(&self) -> Vec<String> {
        let state = self.0.borrow();
        let addresses = state.tables.addresses.iter();
        addresses
            .map(|(link, address, length)| format!("{address}/{length} {link}"))
            .collect()
    }
}

impl Hardware for Host {
    fn machine(&self) -> Machine {
        Machine::default()
    }

    fn open(&mut self, _: PortId, _: &PortSpec, _: Option<PortId>) -> Result<[u8; 6], Refusal> {
        unreachable!("no port comes")
    }

    fn close(&mut self, _: PortId) {}

    fn watch_kernel(&mut self) {
        self.0.borrow_mut().is_watched = true;
    }

    fn kernels_tables(&mut self) -> Option<crate::kernel::tables::Tables> {
        let mut state = self.0.borrow_mut();
        let news = state.is_watched && std::mem::take(&mut state.is_new);
        news.then(|| state.tables.clone())
    }

    fn set_kernels_address(&mut self, link: u32, prefix: crate::net::Prefix, set: Setting) {
        let mut state = self.0.borrow_mut();
        let place = (link, prefix.address, prefix.length);
        state.tables.addresses.retain(|known| *known != place);
        if set == Setting::Add {
            state.tables.addresses.push(place);
        }
        state.is_new = true;
    }
}

#[test]
fn addresses_are_announced_while_clients_are_to_come() {
    let vip = key().address().unwrap().ip();
    // What a director that was killed left behind.
    let host = Host::with(&vip.to_string());
    let mut control = Control::new(LIMITS, Vec::new(), 64, host.clone());
    let health = control::Health {
        announce: Some("lo".to_owned()),
        min_healthy: 1,
        ..control::Health::default()
    };
    let health = |min_healthy| Change::SetHealth {
        service: key(),
        health: Box::new(control::Health {
            min_healthy,
            ..health.clone()
        }),
    };
    let tick = |control: &mut Control| {
        for _ in 0..3 {
            control.tick(Duration::from_secs(1));
        }
    };
    control
        .change(&[add_service(), add_server(), health(1)])
        .unwrap();
    tick(&mut control);
    assert_eq!(host.addresses(), [""; 0], "no server is known to be up");
    control.change(&[health(0)]).unwrap();
    tick(&mut control);
    assert_eq!(host.addresses(), [format!("{vip}/32 1")]);
    let ask = |control: &mut Control, request| control.handle(request, &Peer::root(1));
    assert_eq!(ask(&mut control, Request::DrainNode), Reply::Done);
    assert_eq!(host.addresses(), [""; 0]);
    let Reply::Node(status) = ask(&mut control, Request::Node) else {
        panic!()
    };
    assert_eq!(status.state, control::NodeState::Draining);
    let withheld = Some(control::Withheld::Node);
    assert_eq!(status.addresses[0].withheld, withheld);
    ask(&mut control, Request::UndrainNode);
    tick(&mut control);
    assert_eq!(host.addresses(), [format!("{vip}/32 1")]);
    control.leave();
    assert_eq!(host.addresses(), [""; 0]);
}

#[test]
fn packets_eject_no_more_servers_than_they_may() {
    let (a, commands) = worker(1, 64);
    let page = Arc::clone(&a.page);
    let applying = thread::spawn(move || while commands.recv().is_ok_and(is_confirmed) {});
    let mut control = Control::new(LIMITS, vec![a], 64, Machine::default);
    let passive = control::Passive {
        window_s: 2,
        connections: 10,
        eject_s: 5,
        ejected_max_percent: 50,
        ..control::Passive::default()
    };
    let health = control::Health {
        passive: Some(passive),
        ..control::Health::default()
    };
    let watched = Change::SetHealth {
        service: key(),
        health: Box::new(health),
    };
    let mut second_server = add_server();
    if let Change::AddServer { server, .. } = &mut second_server {
        *server = "10.1.0.2:80".parse().unwrap();
    }
    let changes = [add_service(), add_server(), second_server, watched];
    control.change(&changes).unwrap();
    let ejected = (1..30).map(|second| {
        for server in &page.servers[..2] {
            server.conns.add(20);
            server.answers.add(if second > 12 { 20 } else { 0 });
        }
        control.tick(Duration::from_secs(second));
        let list = control.health();
        let is_down = |check: &&control::CheckStatus| check.fitness == control::Fitness::Down;
        list.iter().filter(is_down).count()
    });
    let ejected: Vec<usize> = ejected.collect();
    assert!(ejected.contains(&1) && !ejected.contains(&2), "{ejected:?}");
    assert_eq!((ejected[0], ejected.last()), (0, Some(&0)));
    drop(control);
    applying.join().unwrap();
}

fn is_confirmed(command: Command) -> bool {
    matches!(command, Command::Apply(_, done) if done.send(()).is_ok())
}

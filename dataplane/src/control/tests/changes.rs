//! Changes reach every worker, or nobody.

use super::*;

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
fn a_late_tick_does_not_catch_up() {
    let mut deadline = Duration::from_secs(2);
    assert!(!due(&mut deadline, Duration::from_millis(1999), 2));
    assert!(due(&mut deadline, Duration::from_millis(2300), 2));
    assert_eq!(deadline, Duration::from_secs(4));
    assert!(due(&mut deadline, Duration::from_secs(9), 2));
    assert_eq!(deadline, Duration::from_secs(11));
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

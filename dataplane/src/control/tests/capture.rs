//! The last drops, and captures.

use super::*;
use crate::packet::HeapBuf;
use crate::watch::Watch;

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

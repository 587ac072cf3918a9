//! A worker whose port never runs dry still does everything else: one command, or a part of one, and
//! one burst in every pass, whatever else there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crossbeam::channel::bounded;
use dataplane::config::Idle;
use dataplane::control::{Command, MAILBOX_MAX};
use dataplane::counters::Page;
use dataplane::director::Director;
use dataplane::dpdk::{Eal, Mempool, Port, register_worker};
use dataplane::net::{Interface, Setup};
use dataplane::packet::{BURST, PortId};
use dataplane::steer::Steer;
use dataplane::time::Clock;
use dataplane::worker::{Queues, Worker, links};

use super::{DATA_ROOM, port_config};

pub(super) fn the_mailbox_is_served_whatever_arrives(eal: &Eal) {
    let pool = Mempool::new(eal, "overload", 1023, DATA_ROOM, -1).unwrap();
    // It has a full burst whenever it is asked.
    let config = port_config("net_null1", 1);
    let (port, rx, tx) = Port::start(eal, &config, std::slice::from_ref(&pool)).unwrap();
    let setup = Setup {
        interfaces: vec![Interface {
            port: PortId(0),
            vlan: None,
            mac: port.mac(),
            mtu: 1500,
            partial_checksums: false,
            kernel: None,
            addresses: Vec::new(),
        }],
        ..Setup::default()
    };
    let page = Arc::new(Page::new(1, 1).unwrap());
    let (mailbox, commands) = bounded(MAILBOX_MAX);
    let queues = rx.into_iter().zip(tx);
    let queues = queues
        .map(|(rx, tx)| Queues::new(PortId(0), Some(rx), tx.into(), None))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let thread = register_worker(eal, 0).unwrap();
            let steer = Steer::new(0, 1);
            let director = Director::new(16, [1, 2], setup, steer, Arc::clone(&page));
            let mut worker = Worker::new(
                director.unwrap(),
                queues,
                pool.clone(),
                links(1).remove(0),
                commands,
                Clock::start(),
                Idle::Poll,
                eal.cycles_per_second(),
            );
            worker.run(&stop);
            drop((worker, thread));
        });
        for _ in 0..10 {
            // As many as there is room for, so that some wait behind others.
            let answers: Vec<_> = (0..MAILBOX_MAX)
                .map(|_| {
                    let (reply, answer) = bounded(1);
                    mailbox.send(Command::Neighbours(reply)).unwrap();
                    answer
                })
                .collect();
            for answer in answers {
                assert!(answer.recv().unwrap().is_empty());
            }
        }
        stop.store(true, Relaxed);
    });
    let passes = page.passes.get();
    assert!(passes >= 10 * MAILBOX_MAX as u64, "one command a pass");
    assert_eq!(
        page.rx(),
        passes * BURST as u64,
        "one burst a pass, and no more"
    );
    assert!(page.balanced());
    drop(port);
    assert_eq!(pool.in_use(), 0);
}

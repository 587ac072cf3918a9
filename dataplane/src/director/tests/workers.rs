//! Several directors that read each other's pages, as workers do.

use std::thread;

use control::Thresholds;

use super::*;
use crate::sched::{Kind as Scheduler, Loads};
use crate::update::{Policy, ServerId, ServiceId};
use crate::wire::flow::Seen;

/// Directors with one service of these servers, all with this upper threshold.
fn workers(count: usize, scheduler: Scheduler, servers: u32, upper: u32) -> Vec<Testbed> {
    let mut beds: Vec<_> = (0..count)
        .map(|_| Testbed::new(1000, setup(true)))
        .collect();
    let pages: Arc<[_]> = beds.iter().map(|bed| Arc::clone(&bed.page)).collect();
    for bed in &mut beds {
        let loads = Loads::new(Arc::clone(&pages));
        bed.director.services.count_by(loads);
        bed.apply(Update::AddService {
            id: ServiceId(0),
            key: key(Tcp, VIP),
            policy: Policy::of(scheduler),
        });
        for n in 0..servers {
            bed.apply(Update::AddServer {
                service: ServiceId(0),
                id: ServerId(n),
                address: format!("10.1.0.{}:80", n + 1).parse().unwrap(),
                mode: ForwardMode::Nat,
                tunnel: control::Tunnel::default(),
                weight: 1,
                thresholds: Thresholds { upper, lower: 0 },
            });
        }
    }
    beds
}

/// Client `n` sends a segment with these flags.
fn send(bed: &mut Testbed, n: usize, flags: &str) {
    let client = format!("192.0.2.10:{}", 1000 + n);
    bed.pass(0, &tcp(&client, VIP, flags));
}

/// Connections of a server, over all workers.
fn total(beds: &[Testbed], server: usize) -> u32 {
    let sum = |(active, inactive)| active + inactive;
    beds.iter().map(|bed| sum(bed.load(server))).sum()
}

#[test]
fn the_least_loaded_is_found_by_the_sums() {
    for count in [2, 4] {
        let mut beds = workers(count, Scheduler::Lc, 3, 0);
        // Unevenly over the workers: most at the first one.
        for n in 0..60 {
            send(&mut beds[n * n % 7 % count], n, "S");
            let loads = [0, 1, 2].map(|server| total(&beds, server));
            let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
            assert!(most - least <= 1, "{count} workers, {loads:?}");
        }
    }
}

#[test]
fn thresholds_hold_over_workers_that_take_turns() {
    for count in [2, 4] {
        let mut beds = workers(count, Scheduler::Rr, 2, 10);
        for n in 0..100 {
            send(&mut beds[n % count], n, "S");
        }
        assert_eq!([0, 1].map(|server| total(&beds, server)), [10, 10]);
        // Three quarters and more are still too many; fewer are not.
        let cut = |beds: &mut [Testbed], from: u32, to: u32| {
            for bed in beds {
                bed.apply(Update::CutServer {
                    id: ServerId(0),
                    reset: false,
                });
                bed.wait(from, to);
            }
        };
        cut(&mut beds[..1], 1, 10);
        let left = total(&beds, 0);
        for n in 100..200 {
            send(&mut beds[n % count], n, "S");
        }
        assert_eq!(total(&beds, 0), if left < 8 { 10 } else { left });
        assert_eq!(total(&beds, 1), 10);
    }
}

/// Workers that look at the same moment each see room for one more.
#[test]
fn thresholds_are_exceeded_by_one_connection_a_worker_at_most() {
    for count in [2, 4] {
        for round in 0..20 {
            let upper = 5 + round;
            let mut beds = workers(count, Scheduler::Lc, 2, upper);
            thread::scope(|scope| {
                for bed in &mut beds {
                    scope.spawn(move || (0..100).for_each(|n| send(bed, n, "S")));
                }
            });
            for server in [0, 1] {
                let total = total(&beds, server) as usize;
                let upper = upper as usize;
                assert!(
                    (upper..upper + count).contains(&total),
                    "{total} of {upper}"
                );
            }
        }
    }
}

/// What belongs to a deleted service's connections still comes to the worker that has them.
#[test]
fn a_deleted_services_packets_find_their_worker() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    t.director.steer = Steer::new(0, 2);
    let home = |t: &Testbed, client: &str| {
        let (port, frame) = arriving(&tcp(client, VIP, "A"));
        let bytes = frame.bytes();
        let seen = Seen::parse(&bytes).unwrap();
        t.director.home_of(port, &seen, &bytes)
    };
    let clients: Vec<String> = (1..9).map(|n| format!("192.0.2.10:{n}")).collect();
    let homes = |t: &Testbed| {
        clients
            .iter()
            .map(|client| home(t, client))
            .collect::<Vec<_>>()
    };
    let before = homes(&t);
    assert!(before.contains(&0) && before.contains(&1));
    t.apply(Update::DeleteService { id: ServiceId(0) });
    assert_eq!(homes(&t), before);
    assert!(
        !t.director.services.is_vip(VIP_IP.parse().unwrap()),
        "nobody is told of it"
    );
    // The same server of a service made anew, and deleted by itself.
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.apply(Update::DeleteService { id: ServiceId(0) });
    assert_eq!(homes(&t), before);
    t.apply(Update::ForgetServer { id: ServerId(0) });
    assert!(!t.director.services.was_vip(VIP_IP.parse().unwrap()));
}

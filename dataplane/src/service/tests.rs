//! Thresholds, counted over all workers.

use std::sync::Arc;

use control::{Protocol, ServiceKey, Thresholds};

use super::*;
use crate::counters::Page;
use crate::sched::Kind;
use crate::update::Update;

const SERVICE: ServiceId = ServiceId(0);

/// What two workers know of one service.
struct Workers {
    pages: Arc<[Arc<Page>]>,
    services: [Services; 2],
}

impl Workers {
    fn new(scheduler: Kind) -> Self {
        let pages: Arc<[_]> = [(); 2].map(|()| Arc::new(Page::new(1, 4).unwrap())).into();
        let loads = || Loads::new(Arc::clone(&pages));
        let services = [0, 1].map(|me| Services::staggered(me, loads()));
        let mut workers = Self { pages, services };
        workers.apply(&Update::AddService {
            id: SERVICE,
            key: ServiceKey::at(Protocol::Udp, "10.0.0.1:53".parse().unwrap()),
            policy: Policy::of(scheduler),
        });
        workers
    }

    fn apply(&mut self, update: &Update) {
        for services in &mut self.services {
            services.apply(update);
        }
    }

    fn add(&mut self, id: u8, upper: u32) {
        self.apply(&Update::AddServer {
            service: SERVICE,
            id: ServerId(id.into()),
            address: SocketAddr::from(([10, 1, 0, id], 53)),
            mode: ForwardMode::Nat,
            tunnel: Tunnel::default(),
            weight: 1,
            thresholds: Thresholds { upper, lower: 0 },
        });
    }

    fn limit(&mut self, id: u8, upper: u32, lower: u32) {
        self.apply(&Update::EditServer {
            id: ServerId(id.into()),
            mode: ForwardMode::Nat,
            tunnel: Tunnel::default(),
            weight: 1,
            thresholds: Thresholds { upper, lower },
        });
    }

    /// Opens a connection at a worker; who took it.
    fn open(&mut self, worker: usize) -> Option<u32> {
        let tuple = Tuple {
            protocol: 17,
            from: "192.0.2.1:9".parse().unwrap(),
            to: "10.0.0.1:53".parse().unwrap(),
        };
        let services = &mut self.services[worker];
        let newcomer = Newcomer::new(&tuple, &[]);
        let id = services.pick(Instant::default(), SERVICE, &newcomer)?.id;
        self.pages[worker].servers[id.index()].inactive.up();
        services.opened(id);
        Some(id.0)
    }

    fn close(&self, worker: usize, id: usize) {
        self.pages[worker].servers[id].inactive.down();
    }
}

#[test]
fn workers_go_by_what_all_of_them_count() {
    let mut workers = Workers::new(Kind::Wlc);
    workers.add(0, 0);
    workers.add(1, 0);
    let took: Vec<_> = [0, 1, 1, 0, 1, 0].map(|worker| workers.open(worker)).into();
    assert_eq!(took, [1, 0, 1, 0, 1, 0].map(Some));
}

#[test]
fn thresholds_count_all_workers() {
    let mut workers = Workers::new(Kind::Fo);
    workers.add(0, 4);
    for worker in [0, 1, 0, 1] {
        assert_eq!(workers.open(worker), Some(0));
    }
    assert_eq!((workers.open(0), workers.open(1)), (None, None));
    // Three is three quarters: not yet.
    workers.close(0, 0);
    assert_eq!((workers.open(0), workers.open(1)), (None, None));
    workers.close(1, 0);
    assert_eq!(workers.open(1), Some(0));
}

#[test]
fn an_overloaded_server_comes_back_as_it_went() {
    let mut workers = Workers::new(Kind::Fo);
    workers.add(0, 8);
    for _ in 0..8 {
        assert_eq!(workers.open(0), Some(0));
    }
    workers.close(0, 0);
    workers.apply(&Update::DeleteServer { id: ServerId(0) });
    workers.add(0, 8);
    assert_eq!(workers.open(0), None);
    workers.close(0, 0);
    workers.close(0, 0);
    assert_eq!(workers.open(0), Some(0));
}

#[test]
fn other_thresholds_count_at_once() {
    let mut workers = Workers::new(Kind::Fo);
    workers.add(0, 0);
    for _ in 0..3 {
        assert_eq!(workers.open(0), Some(0));
    }
    workers.limit(0, 3, 0);
    assert_eq!(workers.open(0), None);
    // Between the new ones nothing changes ...
    workers.limit(0, 4, 2);
    assert_eq!(workers.open(0), None);
    // ... below them it does.
    workers.limit(0, 8, 4);
    assert_eq!(workers.open(0), Some(0));
    workers.limit(0, 4, 4);
    assert_eq!(workers.open(0), None);
    workers.limit(0, 0, 0);
    assert_eq!(workers.open(0), Some(0));
}

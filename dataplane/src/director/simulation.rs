//! Random packets, changes and pauses over a small universe.

use std::collections::HashMap;
use std::net::SocketAddrV4;

use control::Protocol;
use proptest::collection::vec;
use proptest::prelude::*;

use super::frames::{Frame, tcp, udp};
use super::testbed::{Testbed, add_server, arriving, setup, weigh};
use super::*;
use crate::counters::balanced;
use crate::packet::HeapBuf;
use crate::update::Update;

const VIPS: [(Protocol, &str); 2] = [
    (Protocol::Tcp, "203.0.113.1:80"),
    (Protocol::Udp, "203.0.113.1:53"),
];
const SERVERS_EACH: u32 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// From client, to service, with these flags.
    Inbound(u16, usize, &'static str),
    /// To client, from service and server.
    Reply(u16, usize, u32, &'static str),
    AddServer(usize, u32),
    DeleteServer(usize, u32),
    Weigh(usize, u32, u32),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = || prop::sample::select(vec!["S", "SA", "A", "FA", "R", "PA", "."]);
    let service = || 0..VIPS.len();
    let server = || 0..SERVERS_EACH;
    let step = prop_oneof![
        8 => (0..12u16, service(), flags()).prop_map(|(c, s, f)| Step::Inbound(c, s, f)),
        6 => (0..12u16, service(), server(), flags()).prop_map(|(c, s, r, f)| Step::Reply(c, s, r, f)),
        1 => (service(), server()).prop_map(|(s, r)| Step::AddServer(s, r)),
        1 => (service(), server()).prop_map(|(s, r)| Step::DeleteServer(s, r)),
        1 => (service(), server(), 0..4u32).prop_map(|(s, r, w)| Step::Weigh(s, r, w)),
        2 => prop_oneof![0..500u32, 0..70_000u32, 0..1_000_000u32].prop_map(Step::Wait),
    ];
    vec(step, 1..150)
}

fn client(n: u16) -> String {
    format!("198.51.100.{}:{}", 10 + n % 3, 2000 + n)
}

fn server(service: usize, n: u32) -> String {
    format!(
        "10.1.0.{}:{}",
        n + 1,
        VIPS[service].1.rsplit(':').next().unwrap()
    )
}

fn id(service: usize, n: u32) -> u32 {
    u32::try_from(service).unwrap() * SERVERS_EACH + n
}

fn packet(service: usize, from: &str, to: &str, flags: &str) -> Frame {
    match VIPS[service].0 {
        Protocol::Tcp => tcp(from, to, flags),
        Protocol::Udp | Protocol::Sctp => udp(from, to, flags.as_bytes()),
    }
}

/// One director or several that pass each other what is not theirs, as workers do.
struct World {
    workers: Vec<Testbed>,
    now: u32,
    present: Vec<bool>,
    /// By service and client: the worker and the server that its packets went to.
    serving: HashMap<(usize, u16), (usize, SocketAddrV4)>,
}

impl World {
    fn new(workers: usize, capacity: u32) -> Self {
        let worker = |me| {
            let mut bed = Testbed::new(capacity, setup(true));
            bed.director.steer = Steer::new(me, workers);
            for (n, (protocol, vip)) in (0..).zip(VIPS) {
                bed.add_service(n, protocol, vip);
            }
            bed
        };
        let mut world = Self {
            workers: (0..workers).map(worker).collect(),
            now: 0,
            present: vec![false; VIPS.len() * SERVERS_EACH as usize],
            serving: HashMap::new(),
        };
        for service in 0..VIPS.len() {
            for n in 0..SERVERS_EACH {
                world.step(&Step::AddServer(service, n), 0).unwrap();
            }
        }
        world
    }

    fn apply(&mut self, update: &Update) {
        for bed in &mut self.workers {
            bed.director.apply(update, &mut bed.out);
            bed.take();
        }
    }

    fn step(&mut self, step: &Step, receiver: usize) -> Result<(), TestCaseError> {
        match *step {
            Step::Inbound(c, service, flags) => {
                let frame = packet(service, &client(c), VIPS[service].1, flags);
                let before = self.conns(service);
                let sent = self.send(receiver, &frame);
                for (worker, frame) in sent.iter().filter(|(_, f)| is_forwarded(f)) {
                    let to = ends(frame).1;
                    let last = self.serving.insert((service, c), (*worker, to));
                    if let Some((owner, at)) = last {
                        prop_assert_eq!(*worker, owner, "a flow moved to another worker");
                        let is_same = before == self.conns(service);
                        prop_assert!(!is_same || to == at, "a flow changed its server");
                    }
                }
            }
            Step::Reply(c, service, n, flags) => {
                let frame = packet(service, &server(service, n), &client(c), flags);
                for (worker, frame) in self.send(receiver, &frame) {
                    prop_assert_eq!(ends(&frame).0, VIPS[service].1.parse().unwrap());
                    let known = self.serving.get(&(service, c)).copied();
                    let at = server(service, n).parse().unwrap();
                    prop_assert_eq!(known, Some((worker, at)), "a reply of another server");
                }
            }
            Step::AddServer(service, n) => {
                let slot = id(service, n);
                if !std::mem::replace(&mut self.present[slot as usize], true) {
                    let service_id = u32::try_from(service).unwrap();
                    self.apply(&add_server(service_id, slot, &server(service, n), 1));
                }
            }
            Step::DeleteServer(service, n) => {
                let slot = id(service, n);
                if std::mem::replace(&mut self.present[slot as usize], false) {
                    self.apply(&Update::DeleteServer { id: ServerId(slot) });
                }
            }
            Step::Weigh(service, n, weight) => {
                if self.present[id(service, n) as usize] {
                    self.apply(&weigh(id(service, n), weight));
                }
            }
            Step::Wait(ms) => {
                for bed in &mut self.workers {
                    for at in (0..ms).step_by(100).chain([ms]) {
                        let now = Instant(self.now + at);
                        bed.director.tick(now, &mut bed.out);
                    }
                }
                self.now += ms;
            }
        }
        self.holds()
    }

    /// Connections a service's servers ever had, on all workers.
    fn conns(&self, service: usize) -> u64 {
        let servers = (0..SERVERS_EACH).map(|n| id(service, n) as usize);
        let all = servers.flat_map(|s| {
            self.workers
                .iter()
                .map(move |w| w.page.servers[s].conns.get())
        });
        all.sum()
    }

    /// What leaves, and from which worker.
    fn send(&mut self, receiver: usize, frame: &Frame) -> Vec<(usize, Vec<u8>)> {
        let now = Instant(self.now);
        let (port, frame) = arriving(frame);
        let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
        let bed = &mut self.workers[receiver];
        bed.director.process(now, port, &mut burst, &mut bed.out);
        let steered: Vec<_> = bed.out.steered.drain(..).collect();
        for (to, port, packet) in steered {
            assert_ne!(to, receiver, "steered in a circle");
            let bed = &mut self.workers[to];
            let mut burst = Burst::from_iter([packet]);
            bed.director
                .process_home(now, port, &mut burst, &mut bed.out);
            assert_eq!(bed.out.steered.len(), 0, "steered twice");
        }
        let sent = self.workers.iter_mut().enumerate();
        sent.flat_map(|(worker, bed)| {
            bed.take()
                .into_iter()
                .map(move |(_, frame)| (worker, frame))
        })
        .collect()
    }

    /// Gauges are a recount; every packet has an end.
    fn holds(&self) -> Result<(), TestCaseError> {
        prop_assert!(balanced(self.workers.iter().map(|bed| &*bed.page)));
        for bed in &self.workers {
            let mut recount = vec![(0, 0); bed.page.servers.len()];
            let conns = &bed.director.conns;
            for conn in (0..conns.capacity()).filter_map(|entry| conns.at(entry)) {
                let (active, inactive) = &mut recount[conn.server().index()];
                *if conn.state().is_active() {
                    active
                } else {
                    inactive
                } += 1;
            }
            let gauges: Vec<_> = (0..recount.len()).map(|server| bed.load(server)).collect();
            prop_assert_eq!(gauges, recount);
            prop_assert_eq!(bed.page.connections.get(), conns.used());
        }
        Ok(())
    }

    fn ends_empty(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..3 {
            self.step(&Step::Wait(1_000_000), 0)?;
        }
        for bed in &self.workers {
            prop_assert_eq!(bed.director.conns.used(), 0);
        }
        Ok(())
    }
}

/// Whether a frame goes on to a server, unlike an answer.
fn is_forwarded(frame: &[u8]) -> bool {
    frame[30..33] == [10, 1, 0]
}

/// Source and destination of a TCP or UDP packet without tag and options.
fn ends(frame: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let end = |ip: usize, port: usize| {
        let address: [u8; 4] = *frame[ip..].first_chunk().unwrap();
        let port = u16::from_be_bytes(*frame[port..].first_chunk().unwrap());
        SocketAddrV4::new(address.into(), port)
    };
    (end(26, 34), end(30, 36))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn one_director(steps in steps(), capacity in prop_oneof![2..8u32, Just(100)]) {
        let mut world = World::new(1, capacity);
        for step in &steps {
            world.step(step, 0)?;
        }
        world.ends_empty()?;
    }

    #[test]
    fn two_workers(steps in vec((steps(), any::<bool>()), 1..4)) {
        let mut world = World::new(2, 100);
        for (steps, receiver) in &steps {
            for (n, step) in steps.iter().enumerate() {
                world.step(step, (usize::from(*receiver) + n) % 2)?;
            }
        }
        world.ends_empty()?;
    }
}

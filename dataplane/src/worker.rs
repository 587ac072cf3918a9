//! The lcore loop: one worker polls its queues, feeds its director, and sends what comes out.
//!
//! Workers share templates ([`crate::templates`]), and beside them nothing but bounded rings: packets
//! that another worker owns, neighbours that one learned, commands from the control side. A worker
//! never waits for any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arrayvec::ArrayVec;
use crossbeam::channel::{Receiver, Sender, bounded};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::config::Idle;
use crate::control::Command;
use crate::counters::{DropReason, Page};
use crate::director::Director;
use crate::dpdk::{Mbuf, Mempool, RxQueue, Scattered, TxQueue};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PacketBuf, PortId};
use crate::time::Instant;
use crate::update::Batch;

/// Packets on their way from one worker to another.
const STEER_RING: usize = 1024;
/// Neighbours that other workers learned and this one has not yet taken in.
const LEARNED_RING: usize = 256;
/// Passes without work before a worker that may rest does so.
const IDLE_PASSES: u32 = 200;
/// How long it then rests; the kernel adds up to 50 µs of its own.
const REST: Duration = Duration::from_micros(20);

/// Time since the daemon started, the same for all workers.
#[derive(Debug, Clone, Copy)]
pub struct Clock(std::time::Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one clock of the data plane")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "`Instant` wraps and says so"
    )]
    pub fn now(&self) -> Instant {
        Instant::from_ms(self.0.elapsed().as_millis() as u32)
    }
}

/// What connects a worker with the others.
#[derive(Debug)]
pub struct Links {
    steered_out: Vec<Option<Producer<(PortId, Mbuf)>>>,
    steered_in: Vec<Consumer<(PortId, Mbuf)>>,
    learned_out: Vec<Sender<Learned>>,
    learned_in: Receiver<Learned>,
}

/// A ring for each pair of workers, and a channel to each for what the others learned.
pub fn links(workers: usize) -> Vec<Links> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| bounded(LEARNED_RING)).unzip();
    let mut links: Vec<Links> = receivers
        .into_iter()
        .enumerate()
        .map(|(me, learned_in)| Links {
            steered_out: Vec::new(),
            steered_in: Vec::new(),
            learned_out: others(&senders, me),
            learned_in,
        })
        .collect();
    for from in 0..workers {
        for to in 0..workers {
            let ring = (from != to).then(|| {
                let (producer, consumer) = RingBuffer::new(STEER_RING);
                links[to].steered_in.push(consumer);
                producer
            });
            links[from].steered_out.push(ring);
        }
    }
    links
}

fn others<T: Clone>(all: &[T], me: usize) -> Vec<T> {
    let others = all.iter().enumerate().filter(|(i, _)| *i != me);
    others.map(|(_, other)| other.clone()).collect()
}

/// One worker with everything it owns.
#[derive(Debug)]
pub struct Worker {
    director: Director<Mbuf>,
    /// By port.
    rx: Vec<RxQueue>,
    out: Outlet,
    steered_in: Vec<Consumer<(PortId, Mbuf)>>,
    learned_in: Receiver<Learned>,
    mailbox: Receiver<Command>,
    applying: Option<Applying>,
    clock: Clock,
    idle: Idle,
    /// By port, for listings.
    port_names: Vec<String>,
}

/// A batch of which some updates wait for the next passes.
#[derive(Debug)]
struct Applying {
    batch: Batch,
    applied: usize,
    done: Sender<()>,
}

impl Worker {
    /// `queues` and `port_names` are by port; `pool` is where packets of its own come from.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything a worker owns, given once"
    )]
    pub fn new(
        director: Director<Mbuf>,
        queues: Vec<(RxQueue, TxQueue)>,
        pool: Mempool,
        links: Links,
        mailbox: Receiver<Command>,
        clock: Clock,
        idle: Idle,
        port_names: Vec<String>,
    ) -> Self {
        let (rx, tx): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
        let out = Outlet {
            tx: tx.into_iter().map(Tx::new).collect(),
            page: Arc::clone(director.page()),
            pool,
            steered: links.steered_out,
            learned: links.learned_out,
        };
        let (steered_in, learned_in) = (links.steered_in, links.learned_in);
        Self {
            director,
            rx,
            out,
            steered_in,
            learned_in,
            mailbox,
            applying: None,
            clock,
            idle,
            port_names,
        }
    }

    /// Polls until `stop`. One pass handles at most one command, or a part of one, and one burst per queue
    /// and ring.
    pub fn run(&mut self, stop: &AtomicBool) {
        let mut burst = Burst::new();
        let mut idle_passes = 0;
        while !stop.load(Relaxed) {
            let now = self.clock.now();
            let mut work = self.obey(now);
            work |= self.receive(now, &mut burst);
            work |= self.take_steered(now, &mut burst);
            work |= self.learn(now);
            self.director.tick(now, &mut self.out);
            self.out.flush();
            idle_passes = if work { 0 } else { idle_passes + 1 };
            if idle_passes > IDLE_PASSES && self.idle == Idle::Backoff {
                std::thread::sleep(REST);
            }
        }
        self.director.stop();
    }

    fn receive(&mut self, now: Instant, burst: &mut Burst<Mbuf>) -> bool {
        let mut any = false;
        for (port, queue) in (0..).map(PortId).zip(&mut self.rx) {
            let arrived = queue.recv(burst);
            if arrived == 0 {
                continue;
            }
            any = true;
            if arrived > burst.len() {
                let Scattered { frames, bytes } = queue.take_scattered();
                self.out.page.scattered(port, frames, bytes);
            }
            self.director.process(now, port, burst, &mut self.out);
        }
        any
    }

    /// Takes in one burst from each other worker, in runs of packets from the same port.
    fn take_steered(&mut self, now: Instant, burst: &mut Burst<Mbuf>) -> bool {
        let mut any = false;
        for ring in &mut self.steered_in {
            let mut port = PortId::default();
            for _ in 0..BURST {
                let Ok((from, packet)) = ring.pop() else {
                    break;
                };
                any = true;
                self.out.page.steered_in.add(1);
                if from != port && !burst.is_empty() {
                    self.director.process_home(now, port, burst, &mut self.out);
                }
                port = from;
                burst.push(packet);
            }
            if !burst.is_empty() {
                self.director.process_home(now, port, burst, &mut self.out);
            }
        }
        any
    }

    fn learn(&mut self, now: Instant) -> bool {
        let learned = self.learned_in.try_recv();
        if let Ok(learned) = &learned {
            self.director.learned(now, learned, &mut self.out);
        }
        learned.is_ok()
    }

    /// Carries out one command, or another part of one. Who asked may have given up: an answer that nobody takes is fine.
    fn obey(&mut self, now: Instant) -> bool {
        if let Some(applying) = self.applying.take() {
            self.go_on(applying);
            return true;
        }
        let Ok(command) = self.mailbox.try_recv() else {
            return false;
        };
        match command {
            Command::Apply(batch, done) => self.go_on(Applying {
                batch,
                applied: 0,
                done,
            }),
            Command::Connections { from, limit, reply } => {
                let _ = reply.try_send(self.director.connections(now, from, limit));
            }
            Command::Templates { from, limit, reply } => {
                let _ = reply.try_send(self.director.listed_templates(now, from, limit));
            }
            Command::Explain { query, reply } => {
                let _ = reply.try_send(self.director.excerpt(now, &query));
            }
            Command::Neighbours(reply) => {
                let _ = reply.try_send(self.neighbours());
            }
        }
        true
    }

    fn go_on(&mut self, mut applying: Applying) {
        let rest = &applying.batch[applying.applied..];
        applying.applied += self.director.apply_part(rest, &mut self.out);
        if applying.applied < applying.batch.len() {
            self.applying = Some(applying);
            return;
        }
        // Let go of before the answer, so that it is the control side that frees it.
        let Applying { batch, done, .. } = applying;
        drop(batch);
        let _ = done.try_send(());
    }

    fn neighbours(&self) -> Vec<control::Neighbour> {
        let name = |port: PortId, vlan: Option<u16>| match vlan {
            None => self.port_names[port.index()].clone(),
            Some(vlan) => format!("{}.{vlan}", self.port_names[port.index()]),
        };
        let show = |view: crate::net::NeighbourView| control::Neighbour {
            port: name(view.port, view.vlan),
            address: view.address,
            mac: view.mac.map(mac_text),
            state: view.state.to_owned(),
        };
        self.director
            .net()
            .neighbours()
            .into_iter()
            .map(show)
            .collect()
    }
}

/// `aa:bb:cc:dd:ee:ff`
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Where a worker's packets leave.
#[derive(Debug)]
struct Outlet {
    /// By port.
    tx: Vec<Tx>,
    page: Arc<Page>,
    pool: Mempool,
    /// By worker; none to itself.
    steered: Vec<Option<Producer<(PortId, Mbuf)>>>,
    learned: Vec<Sender<Learned>>,
}

/// A transmit queue and what waits to be sent together.
#[derive(Debug)]
struct Tx {
    queue: TxQueue,
    burst: Burst<Mbuf>,
    /// Origin and length of each packet of `burst`.
    tags: ArrayVec<(Origin, usize), BURST>,
}

impl Tx {
    fn new(queue: TxQueue) -> Self {
        Self {
            queue,
            burst: Burst::new(),
            tags: ArrayVec::new(),
        }
    }

    /// Sends what has gathered for port `to` and counts each packet's end.
    fn flush(&mut self, to: PortId, page: &Page) {
        let sent = self.queue.send(&mut self.burst);
        let (sent, refused) = self.tags.split_at(sent);
        for run in sent.chunk_by(|a, b| a.0 == b.0) {
            let bytes = run.iter().map(|(_, len)| len).sum();
            page.sent_run(to, run.len(), bytes, run[0].0);
        }
        for (origin, _) in refused {
            page.count_drop(origin.port, DropReason::TxRefused);
        }
        self.tags.clear();
    }
}

impl Outlet {
    fn flush(&mut self) {
        for (to, tx) in (0..).map(PortId).zip(&mut self.tx) {
            if !tx.burst.is_empty() {
                tx.flush(to, &self.page);
            }
        }
    }
}

impl Egress for Outlet {
    type Buf = Mbuf;

    #[inline]
    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        let tx = &mut self.tx[to.index()];
        tx.tags.push((origin, packet.bytes().len()));
        tx.burst.push(packet);
        if tx.burst.is_full() {
            tx.flush(to, &self.page);
        }
    }

    fn make(&mut self, len: usize) -> Option<Mbuf> {
        let mut packet = self.pool.alloc()?;
        packet.resize(len).then(|| {
            packet.bytes_mut().fill(0);
            packet
        })
    }

    fn share(&mut self, learned: Learned) {
        for peer in &self.learned {
            // A worker that is behind asks by itself when it needs the neighbour.
            let _ = peer.try_send(learned);
        }
    }

    fn steer(&mut self, worker: usize, from: PortId, packet: Mbuf) {
        let ring = self.steered.get_mut(worker).and_then(Option::as_mut);
        match ring.map(|ring| ring.push((from, packet))) {
            Some(Ok(())) => self.page.steered_out.add(1),
            // The packet is freed with the error that carries it.
            Some(Err(_)) | None => self.page.count_drop(from, DropReason::SteerRingFull),
        }
    }
}

//! The lcore loop: one worker polls its queues, feeds its director, and sends what comes out.
//!
//! Workers share templates ([`crate::templates`]), and beside them nothing but bounded rings: packets
//! that another worker owns, neighbours that one learned, commands from the control side. A worker
//! never waits for any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arrayvec::ArrayVec;
use control::Role;
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::config::Idle;
use crate::conn::Hash;
use crate::control::Command;
use crate::counters::{DropReason, Pass, Stopwatch};
use crate::cpu::cycles;
use crate::director::{Director, Tray};
use crate::dpdk::{Mbuf, Mempool, RxQueue, TxQueue};
use crate::exchange::{Errand, Exchange, Incoming, Outgoing, exchanges};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PORTS_MAX, PacketBuf, PortId};
use crate::sync::message::Entry;
use crate::time::{Clock, Instant};
use crate::update::Batch;
use crate::watch::Watch;
use crate::watch::tap::Note;

/// Neighbours that other workers learned and this one has not yet taken in.
const LEARNED_RING: usize = 256;
/// Connections that other directors told and the worker has not yet taken in, and what it takes in at
/// once.
const SYNCED_RING: usize = 4096;
const SYNCED_PART: usize = 16;
/// Passes without work before a worker that may rest does so.
const IDLE_PASSES: u32 = 200;
/// How long it then rests; the kernel adds up to 50 µs of its own.
const REST: Duration = Duration::from_micros(20);

/// Packets that a pass took in hand, and the cycle counter when the first ones had come.
#[derive(Debug, Clone, Copy, Default)]
struct Hand {
    packets: u64,
    since: u64,
}

impl Hand {
    fn take(&mut self, packets: usize) {
        if self.packets == 0 {
            self.since = cycles();
        }
        self.packets += packets as u64;
    }
}

/// They wrap after 71 minutes.
#[expect(clippy::cast_possible_truncation, reason = "wraps, and says so")]
fn microseconds(ns: u64) -> u32 {
    (ns / 1000) as u32
}

/// What connects a worker with the others.
#[derive(Debug)]
pub struct Links {
    pub(crate) exchange: Exchange<Mbuf>,
    learned_out: Vec<Sender<Learned>>,
    learned_in: Receiver<Learned>,
    /// What other directors tell of connections that are at home here.
    synced: (Sender<Entry>, Receiver<Entry>),
}

impl Links {
    /// Where to put what other directors tell.
    pub fn synced(&self) -> Sender<Entry> {
        self.synced.0.clone()
    }
}

/// A ring for each pair of workers, and a channel to each for what the others learned.
pub fn links(workers: usize) -> Vec<Links> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| bounded(LEARNED_RING)).unzip();
    let ends = exchanges(workers).into_iter().zip(receivers);
    ends.enumerate()
        .map(|(me, (exchange, learned_in))| Links {
            exchange,
            learned_out: others(&senders, me),
            learned_in,
            synced: bounded(SYNCED_RING),
        })
        .collect()
}

fn others<T: Clone>(all: &[T], me: usize) -> Vec<T> {
    let others = all.iter().enumerate().filter(|(i, _)| *i != me);
    others.map(|(_, other)| other.clone()).collect()
}

/// One worker with everything it owns.
#[derive(Debug)]
pub struct Worker {
    director: Director<Mbuf>,
    out: Outlet,
    steered_in: Incoming<Mbuf>,
    learned_in: Receiver<Learned>,
    synced_in: Receiver<Entry>,
    mailbox: Receiver<Command>,
    applying: Option<Applying>,
    /// Packets are taken.
    is_open: bool,
    clock: Clock,
    idle: Idle,
    /// Cycles a second.
    hz: u64,
}

/// A batch of which some updates wait for the next passes.
#[derive(Debug)]
struct Applying {
    batch: Batch,
    applied: usize,
    done: Sender<()>,
}

impl Worker {
    /// `queues` are of the ports that there are; `pool` is where packets of its own come from.
    #[expect(
        clippy::too_many_arguments,
        reason = "everything a worker owns, given once"
    )]
    pub fn new(
        mut director: Director<Mbuf>,
        queues: Vec<Queues>,
        pool: Mempool,
        links: Links,
        mailbox: Receiver<Command>,
        clock: Clock,
        idle: Idle,
        hz: u64,
    ) -> Self {
        let mut out = Outlet {
            ports: ArrayVec::new(),
            watch: Watch::new(Arc::clone(director.page())),
            pool,
            steered: links.exchange.to,
            learned: links.learned_out,
        };
        for queues in queues {
            director.arrive(queues.port, queues.hashes);
            out.attach(Box::new(queues));
        }
        out.meet_ports(&director);
        let (steered_in, learned_in) = (links.exchange.from, links.learned_in);
        let (_, synced_in) = links.synced;
        Self {
            director,
            out,
            steered_in,
            learned_in,
            synced_in,
            mailbox,
            applying: None,
            is_open: true,
            clock,
            idle,
            hz,
        }
    }

    /// Takes no packets until [`Command::Open`].
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.is_open = false;
        self
    }

    /// Polls until `stop`. One pass handles at most one command, or a part of one, and one burst per queue
    /// and ring.
    pub fn run(&mut self, stop: &AtomicBool) {
        let (mut burst, mut tray) = (Burst::new(), Tray::default());
        let mut idle_passes = 0;
        let page = Arc::clone(self.director.page());
        let mut watch = Stopwatch::start(&page.pace, self.hz, cycles());
        while !stop.load(Relaxed) {
            let (now, now_ns) = self.clock.now();
            self.out.watch.set_time(now_ns);
            self.director.set_microseconds(microseconds(now_ns));
            let mut hand = Hand::default();
            let mut work = self.obey(now);
            self.steered_in.approach();
            if self.is_open {
                self.receive(now, &mut burst, &mut tray, &mut hand);
            }
            self.take_steered(now, &mut tray, &mut hand);
            work |= self.learn(now);
            work |= self.take_synced(now);
            self.director.tick(now, &mut self.out);
            self.out.flush();
            let pass = match (hand.packets, work) {
                (1.., _) => Pass::Packets,
                (0, true) => Pass::Control,
                (0, false) => Pass::Idle,
            };
            page.passes.add(1);
            let taken = (hand.packets, hand.since);
            watch.pass(&page.pace, pass, now.0, cycles(), taken);
            idle_passes = if pass == Pass::Idle {
                idle_passes + 1
            } else {
                0
            };
            if idle_passes > IDLE_PASSES && self.idle == Idle::Backoff {
                std::thread::sleep(REST);
                watch.pass(&page.pace, Pass::Idle, now.0, cycles(), (0, 0));
            }
        }
        self.director.stop(&mut self.out);
    }

    fn receive(
        &mut self,
        now: Instant,
        burst: &mut Burst<Mbuf>,
        tray: &mut Tray<Mbuf>,
        hand: &mut Hand,
    ) {
        for slot in 0..self.out.ports.len() {
            let Outlet { ports, watch, .. } = &mut self.out;
            let Some(queues) = ports[slot].as_mut().filter(|queues| queues.is_known) else {
                continue;
            };
            let (port, Some(rx)) = (queues.port, &mut queues.rx) else {
                continue;
            };
            let arrived = rx.recv(burst);
            if arrived == 0 {
                continue;
            }
            hand.take(arrived);
            if arrived > burst.len() {
                rx.free_scattered(|first, len| watch.scattered(port, first, len));
            }
            let (director, out) = (&mut self.director, &mut self.out);
            match out.watch.is_tapped() {
                false => director.gather(now, port, burst, tray, out),
                true => director.gather(now, port, burst, tray, &mut Tapped(out)),
            }
        }
    }

    /// Takes in what other workers handed over, and finishes what is gathered.
    fn take_steered(&mut self, now: Instant, tray: &mut Tray<Mbuf>, hand: &mut Hand) {
        if !self.steered_in.is_any() {
            return;
        }
        let (director, out) = (&mut self.director, &mut self.out);
        let others = &mut self.steered_in;
        let (taken, waiting) = match out.watch.is_tapped() {
            false => director.unpack(now, others, tray, out),
            true => director.unpack(now, others, tray, &mut Tapped(out)),
        };
        if taken > 0 {
            hand.take(taken);
        }
        let page = self.out.watch.page();
        page.steered_in.add(taken as u64);
        (page.pace.waiting).set(u32::try_from(waiting).unwrap_or(u32::MAX));
    }

    fn learn(&mut self, now: Instant) -> bool {
        let learned = self.learned_in.try_recv();
        if let Ok(learned) = &learned {
            self.director.learned(now, learned, &mut self.out);
        }
        learned.is_ok()
    }

    /// Takes in some of what other directors told.
    fn take_synced(&mut self, now: Instant) -> bool {
        let mut any = false;
        for entry in self.synced_in.try_iter().take(SYNCED_PART) {
            any = true;
            // What is not kept is counted.
            let _ = self.director.synced(now, &entry);
        }
        any
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
            Command::Connections { wanted, reply } => {
                let slice = self.director.connections(now, &wanted, &mut self.out);
                let _ = reply.try_send(slice);
            }
            Command::Explain { query, reply } => {
                let _ = reply.try_send(self.director.excerpt(now, &query));
            }
            Command::Neighbours(reply) => {
                let _ = reply.try_send(self.director.net().neighbours());
            }
            Command::Drops {
                after,
                mut into,
                reply,
            } => {
                let recent = self.out.watch.recent();
                into.extend(recent.since(after).cloned());
                let _ = reply.try_send((into, recent.count()));
            }
            Command::Tap(tap, reply) => {
                let _ = reply.try_send(self.out.watch.add_tap(tap));
            }
            Command::Untap { id, reply } => {
                let _ = reply.try_send(self.out.watch.remove_tap(id));
            }
            Command::Tell(feed) => {
                if let Err(error) = self.director.tell_by(feed) {
                    tracing::error!(%error, "no memory to tell backups of connections");
                }
            }
            Command::Adopt {
                image,
                heirs,
                reply,
            } => {
                let _ = reply.try_send(self.director.adopt_image(now, &image, &heirs));
            }
            Command::Open => self.is_open = true,
            Command::Attach(queues) => {
                self.director.arrive(queues.port, queues.hashes);
                self.out.attach(queues);
            }
            Command::Detach(port, reply) => {
                let _ = reply.try_send(self.out.detach(port));
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
        self.out.meet_ports(&self.director);
        self.out.watch.page().pace.batches.add(1);
        let _ = done.try_send(());
    }
}

/// One worker's queues of a port, with what waits to be sent.
#[derive(Debug)]
pub struct Queues {
    port: PortId,
    /// The network has it, so that packets from it mean something.
    is_known: bool,
    /// The device was told to hash its packets by the clients' end.
    hashes: Option<Role>,
    /// Where the device has fewer queues than there are workers, some have none.
    rx: Option<RxQueue>,
    tx: Leaving,
}

/// How a worker's packets leave by a port.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all have a queue, and each is boxed with it"
)]
pub enum Leaving {
    By(Tx),
    /// Another worker, which has a queue, sends them.
    Through(usize),
}

impl From<TxQueue> for Leaving {
    fn from(queue: TxQueue) -> Self {
        Self::By(Tx::new(queue))
    }
}

impl Queues {
    pub fn new(port: PortId, rx: Option<RxQueue>, tx: Leaving, hashes: Option<Role>) -> Self {
        Self {
            port,
            is_known: false,
            hashes,
            rx,
            tx,
        }
    }

    /// What is to be sent, if that is done here.
    fn leaving(&mut self) -> Option<&mut Tx> {
        match &mut self.tx {
            Leaving::By(tx) => Some(tx),
            Leaving::Through(_) => None,
        }
    }
}

/// A worker's ports, and where its packets leave.
#[derive(Debug)]
struct Outlet {
    /// By port.
    ports: ArrayVec<Option<Box<Queues>>, PORTS_MAX>,
    watch: Watch,
    pool: Mempool,
    /// By worker; none to itself.
    steered: Outgoing<Mbuf>,
    learned: Vec<Sender<Learned>>,
}

/// A transmit queue and what waits to be sent together.
#[derive(Debug)]
pub struct Tx {
    queue: TxQueue,
    burst: Burst<Mbuf>,
    /// Origin and length of each packet of `burst`.
    tags: ArrayVec<(Origin, usize), BURST>,
    /// While there are captures: what is known of the first packets of `burst`. It never grows.
    notes: Vec<Note>,
}

impl Tx {
    fn new(queue: TxQueue) -> Self {
        Self {
            queue,
            burst: Burst::new(),
            tags: ArrayVec::new(),
            notes: Vec::with_capacity(BURST),
        }
    }

    /// Sends what has gathered for port `to` and counts each packet's end.
    fn flush(&mut self, to: PortId, watch: &mut Watch) {
        let is_tapped = watch.is_tapped();
        if is_tapped {
            self.show(to, watch);
        }
        let sent = self.queue.send(&mut self.burst);
        if is_tapped {
            watch.left(sent);
            self.notes.drain(..sent.min(self.notes.len()));
        }
        let (sent, refused) = self.tags.split_at(sent);
        for run in sent.chunk_by(|a, b| a.0 == b.0) {
            let bytes = run.iter().map(|(_, len)| len).sum();
            watch.page().sent_run(to, run.len(), bytes, run[0].0);
        }
        let mut notes = self.notes.drain(..);
        for ((origin, _), packet) in refused.iter().zip(self.burst.drain(..)) {
            watch.set_note(notes.next().unwrap_or_default());
            watch.discard(origin.port, DropReason::TxRefused, packet);
        }
        drop(notes);
        self.tags.clear();
    }

    /// Shows what is about to be sent to the captures.
    #[cold]
    fn show(&self, to: PortId, watch: &mut Watch) {
        let none = Note::default();
        for (number, (packet, (origin, _))) in self.burst.iter().zip(&self.tags).enumerate() {
            let note = self.notes.get(number).unwrap_or(&none);
            watch.leaving(number, packet, to, *origin, note);
        }
    }
}

impl Outlet {
    fn flush(&mut self) {
        for queues in self.ports.iter_mut().flatten() {
            let port = queues.port;
            if let Some(tx) = queues.leaving().filter(|tx| !tx.burst.is_empty()) {
                tx.flush(port, &mut self.watch);
            }
        }
        self.steered.flush(&mut self.watch);
    }

    fn attach(&mut self, queues: Box<Queues>) {
        let place = queues.port.index();
        while self.ports.len() <= place {
            self.ports.push(None);
        }
        self.ports[place] = Some(queues);
    }

    /// Looks which ports the network has now.
    fn meet_ports(&mut self, director: &Director<Mbuf>) {
        for queues in self.ports.iter_mut().flatten() {
            queues.is_known = director.net().interface(queues.port, None).is_some();
        }
    }

    /// Sends what waits to leave by a port and gives its queues back.
    fn detach(&mut self, port: PortId) -> Option<Box<Queues>> {
        let mut queues = self.ports.get_mut(port.index())?.take()?;
        if let Some(tx) = queues.leaving() {
            tx.flush(port, &mut self.watch);
        }
        Some(queues)
    }
}

impl Egress for Outlet {
    type Buf = Mbuf;

    #[inline]
    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        let Some(Some(queues)) = self.ports.get_mut(to.index()) else {
            return (self.watch).discard(origin.port, DropReason::PortGone, packet);
        };
        let tx = match &mut queues.tx {
            Leaving::By(tx) => tx,
            Leaving::Through(worker) => {
                let errand = Errand::Send(to, origin);
                return (self.steered).put(*worker, packet, errand, &mut self.watch);
            }
        };
        tx.tags.push((origin, packet.bytes().len()));
        tx.burst.push(packet);
        if tx.burst.is_full() {
            tx.flush(to, &mut self.watch);
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

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    #[inline]
    fn steer(&mut self, worker: usize, from: PortId, hash: Option<Hash>, packet: Mbuf) {
        let errand = Errand::Decide(from, hash);
        (self.steered).put(worker, packet, errand, &mut self.watch);
    }
}

/// An outlet while there are captures: it remembers what is known of each packet.
struct Tapped<'o>(&'o mut Outlet);

impl Egress for Tapped<'_> {
    type Buf = Mbuf;

    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        let Outlet { ports, watch, .. } = &mut *self.0;
        let queues = ports.get_mut(to.index()).and_then(Option::as_mut);
        if let Some(Tx { tags, notes, .. }) = queues.and_then(|queues| queues.leaving()) {
            // What was sent without a note comes first.
            notes.resize_with(tags.len(), Note::default);
            notes.push(watch.note().clone());
        }
        self.0.send(to, packet, origin);
    }

    fn make(&mut self, len: usize) -> Option<Mbuf> {
        self.0.make(len)
    }

    fn share(&mut self, learned: Learned) {
        self.0.share(learned);
    }

    fn steer(&mut self, worker: usize, from: PortId, hash: Option<Hash>, packet: Mbuf) {
        self.0.steer(worker, from, hash, packet);
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.0.watch
    }

    fn note(&mut self, note: impl FnOnce() -> Note) {
        self.0.watch.set_note(note());
    }
}

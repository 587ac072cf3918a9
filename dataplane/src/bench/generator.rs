//! Clients and real servers, played between two bursts on the worker's own core.
//!
//! What the director sends is checked, turned in place into the other side's answer, and comes
//! back [`DELAY`] packets later, when neither the packet nor its connection is in the first
//! cache. All of this happens while the cycle counter is not looked at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};

use anyhow::{Context, Result, anyhow, bail, ensure};
use control::Protocol;
use rtrb::{Consumer, Producer, RingBuffer};

use super::measure::{Clock, Meter};
use super::network::{self, CLIENT_SIDE, IMIX, Message, SEGMENT_MIN, SERVER_SIDE, Site};
use crate::conn::Hash;
use crate::cpu;
use crate::director::{Arrival, Director, Tray};
use crate::dpdk::{Mbuf, Mempool};
use crate::exchange::{Errand, Exchange, Incoming, Outgoing};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PacketBuf, PortId};
use crate::steer::Steer;
use crate::time::Instant;
use crate::update::Update;
use crate::watch::Watch;
use crate::wire::flow::tcp_flags;

/// Packets that pass between a packet's leaving and its answer's coming back, by default.
const DELAY: usize = 1024;
/// Mbufs that a few generators and their directors may hold together.
pub(super) const MBUFS: u32 = 16_383;

/// Clients that there are at all.
const STRANGERS: u32 = 1 << 31;

const SYN: u8 = tcp_flags::SYN;
const FIN: u8 = tcp_flags::FIN;
const ACK: u8 = tcp_flags::ACK;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// Open flow after flow up to this number, once each, and let each side say something.
    Open(u32),
    /// One packet and its answer on any of so many open flows, in random order.
    Established(u32),
    /// One packet on each of so many open flows, and its answer.
    Once(u32),
    /// Whole TCP connections on so many flows, one after the other: SYN, SYN/ACK, ACK with data,
    /// FIN/ACK, FIN/ACK, ACK.
    Connections(u32),
    /// The same, each from a client that was never seen.
    Strangers,
    /// Of eight packets so many are the first ones of clients all over, who say nothing else; the
    /// others are of so many open flows.
    Flood { of_eight: u32, flows: u32 },
}

/// How long segments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sizes {
    Shortest,
    /// Seven short ones, four of 576 bytes, one of 1500.
    Mixed,
}

/// How fast time passes for the director.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As it does.
    Real(Clock),
    /// So many milliseconds whenever clients began so many packets or connections of themselves:
    /// the same in every run.
    Begun { ms: u32, each: u32 },
}

impl Script {
    /// Flags of the next packet on the connection after one with `flags` arrived at a server
    /// (`at` the server side) or a client; `None` when the connection has nothing more to say.
    fn answer(self, at: PortId, protocol: Protocol, flags: u8) -> Option<u8> {
        let at_server = at == SERVER_SIDE;
        if matches!(self, Self::Flood { .. }) && flags & SYN != 0 {
            return None;
        }
        if protocol == Protocol::Udp {
            return at_server.then_some(0);
        }
        let whole = matches!(self, Self::Connections(_) | Self::Strangers);
        match (at_server, flags & (SYN | FIN)) {
            (true, SYN) => Some(SYN | ACK),
            (false, SYN) => Some(ACK),
            (true, FIN) => Some(ACK),
            (false, FIN) => Some(FIN | ACK),
            (true, _) if whole => Some(FIN | ACK),
            (true, _) => Some(ACK),
            (false, _) => None,
        }
    }
}

/// What the director sent since the generator last looked.
#[derive(Debug)]
pub(super) struct Outbox {
    pool: Mempool,
    watch: Watch,
    sent: Vec<Mbuf>,
    /// Which way they went, in the same order.
    runs: Vec<Run>,
    /// The way of the last one.
    way: u32,
    /// To other workers, where there are any.
    steered: Outgoing<Mbuf>,
}

/// Packets one after the other that left by the same port and came from the same one.
#[derive(Debug)]
struct Run {
    to: PortId,
    origin: Origin,
    /// The first one's place among what was sent.
    first: usize,
}

/// Of a packet that went no way.
const NO_WAY: u32 = u32::MAX;

/// One word for where a packet left and where it came from.
#[inline(always)]
const fn way(to: PortId, origin: Origin) -> u32 {
    u32::from_le_bytes([to.0, origin.port.0, origin.exit as u8, 0])
}

/// Between two workers of which each plays the other's clients and servers: where answers go that
/// arrive there, and where those come from that arrive here. What comes is written here, as by a device of
/// this worker's.
#[derive(Debug)]
pub(super) struct Cable {
    there: Producer<(PortId, Message)>,
    here: Consumer<(PortId, Message)>,
}

/// One for each of two workers.
pub(super) fn cables() -> [Cable; 2] {
    let [(to_first, at_first), (to_second, at_second)] =
        [(); 2].map(|()| RingBuffer::new(MBUFS as usize));
    let cable = |there, here| Cable { there, here };
    [cable(to_second, at_first), cable(to_first, at_second)]
}

impl Egress for Outbox {
    type Buf = Mbuf;

    #[inline(always)]
    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        let way = way(to, origin);
        if self.way != way {
            self.way = way;
            let first = self.sent.len();
            self.runs.push(Run { to, origin, first });
        }
        self.sent.push(packet);
    }

    fn make(&mut self, len: usize) -> Option<Mbuf> {
        let mut packet = self.pool.alloc()?;
        if !packet.resize(len) {
            return None;
        }
        packet.bytes_mut().fill(0);
        Some(packet)
    }

    fn share(&mut self, _learned: Learned) {}

    #[inline]
    fn steer(&mut self, worker: usize, from: PortId, hash: Option<Hash>, packet: Mbuf) {
        let errand = Errand::Decide(from, hash);
        (self.steered).put(worker, packet, errand, &mut self.watch);
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// What a worker gathers its own packets on, and where others hand it some.
#[derive(Debug, Default)]
struct Gathered {
    tray: Tray<Mbuf>,
    others: Incoming<Mbuf>,
}

/// A director and the network around it.
#[derive(Debug)]
pub(super) struct Generator {
    director: Director<Mbuf>,
    pace: Pace,
    /// Milliseconds that passed before this pace, or at it if it is not the real one.
    passed_ms: u32,
    /// Packets begun since `passed_ms` last grew.
    since: u32,
    site: Site,
    outbox: Outbox,
    gathered: Gathered,
    /// On their way to the director, by the port they come in on.
    coming: [VecDeque<Mbuf>; 2],
    /// See [`DELAY`].
    delay: usize,
    script: Script,
    sizes: Sizes,
    /// Which flows its clients have, if not all.
    home: Option<(usize, Steer)>,
    cable: Option<Cable>,
    /// Only half of the answers go there, any of them.
    scatters: bool,
    /// The flow to open next.
    next: u32,
    random: u64,
    /// Connections whose last packet arrived.
    completed: u64,
}

impl Generator {
    /// The director gets its configuration by [`Self::apply`].
    pub(super) fn new(director: Director<Mbuf>, pace: Pace, site: Site, pool: Mempool) -> Self {
        let page = Arc::clone(director.page());
        Self {
            director,
            pace,
            passed_ms: 0,
            since: 0,
            site,
            outbox: Outbox {
                pool,
                watch: Watch::new(page),
                sent: Vec::with_capacity(MBUFS as usize),
                runs: Vec::with_capacity(MBUFS as usize),
                way: NO_WAY,
                steered: Exchange::default().to,
            },
            gathered: Gathered::default(),
            coming: [(); 2].map(|()| VecDeque::with_capacity(2 * DELAY)),
            delay: DELAY,
            script: Script::Open(0),
            sizes: Sizes::Shortest,
            home: None,
            cable: None,
            scatters: false,
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            completed: 0,
        }
    }

    /// One step of the configuration; not measured.
    pub(super) fn apply(&mut self, update: &Update) -> Result<()> {
        self.director.apply(update, &mut self.outbox);
        account(&self.director, &self.outbox);
        self.collect()
    }

    #[must_use]
    pub(super) fn sized(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// As one of several workers. Its clients' flows are at home with it.
    #[must_use]
    pub(super) fn among(mut self, steer: Steer, exchange: Exchange<Mbuf>) -> Self {
        (self.outbox.steered, self.gathered.others) = (exchange.to, exchange.from);
        self.home = Some((steer.me(), steer));
        self
    }

    /// From now on its clients' flows are at home with the other worker, where answers come from.
    pub(super) fn cross(&mut self, cable: Cable) {
        if let Some((home, _)) = &mut self.home {
            *home = 1 - *home;
        }
        self.cable = Some(cable);
    }

    /// From now on its clients have all flows, and answers come anywhere.
    pub(super) fn scatter(&mut self, cable: Cable) {
        (self.home, self.cable, self.scatters) = (None, Some(cable), true);
    }

    /// From now on its packets are known to be at home, as when a device was found to spread them.
    pub(super) fn spread_by_device(&mut self) {
        for side in [CLIENT_SIDE, SERVER_SIDE] {
            self.director.set_arrival(side, Arrival::AtHome);
        }
    }

    /// Packets of a port that the worker may take at once: none while the other worker is behind, as if the
    /// port held them back.
    fn at_once(&self) -> usize {
        match self.outbox.steered.is_crowded() {
            true => 0,
            false => BURST,
        }
    }

    /// Answers come back after so many packets.
    #[must_use]
    pub(super) fn delayed(mut self, packets: usize) -> Self {
        self.delay = packets;
        self
    }

    pub(super) fn director(&self) -> &Director<Mbuf> {
        &self.director
    }

    /// Connections of which the client saw the last packet, since the start.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// So much time passes at once.
    pub(super) fn skip(&mut self, ms: u32) {
        self.passed_ms += ms;
    }

    /// What the clients do from now on. Packets under way are let run out first.
    pub(super) fn play(&mut self, script: Script, meter: &mut Meter) -> Result<()> {
        while self.is_busy() {
            self.drain(meter)?;
        }
        self.switch(script);
        Ok(())
    }

    /// The same at once: packets under way are answered as the new script has it.
    pub(super) fn switch(&mut self, script: Script) {
        (self.script, self.next) = (script, 0);
    }

    /// One burst each of what is under way.
    pub(super) fn drain(&mut self, meter: &mut Meter) -> Result<()> {
        self.unplug()?;
        let packets = self.at_once();
        self.pass(CLIENT_SIDE, packets, meter, &mut nothing)?;
        self.pass(SERVER_SIDE, packets, meter, &mut nothing)?;
        Ok(())
    }

    /// Whether anything is on its way to this worker.
    pub(super) fn is_busy(&mut self) -> bool {
        let is_plugged = |cable: &Cable| !cable.here.is_empty();
        self.cable.as_ref().is_some_and(is_plugged)
            || !self.gathered.others.is_empty()
            || self.coming.iter().any(|queue| !queue.is_empty())
    }

    /// Takes in what arrives here of what the other worker sent, as far as it is due before long.
    fn unplug(&mut self) -> Result<()> {
        while let Some((side, message)) = self.plugged() {
            let packet = self.packet()?;
            self.send(packet, &message, side)?;
        }
        Ok(())
    }

    fn plugged(&mut self) -> Option<(PortId, Message)> {
        let here = &mut self.cable.as_mut()?.here;
        let (side, _) = here.peek().ok()?;
        let is_due = self.coming[side.index()].len() < self.delay + BURST;
        is_due.then(|| here.pop().ok()).flatten()
    }

    fn packet(&self) -> Result<Mbuf> {
        let packet = self.outbox.pool.alloc();
        packet.context("the mempool is exhausted: packets were lost")
    }

    /// Opens flows 0 to `flows`, and returns when the last packet of the last of them arrived.
    pub(super) fn open(&mut self, flows: u32, meter: &mut Meter) -> Result<()> {
        self.play(Script::Open(flows), meter)?;
        while self.next < flows {
            self.round(meter)?;
        }
        self.play(Script::Open(flows), meter)
    }

    /// On how many of the first `flows` connections a packet is answered.
    pub(super) fn answered(&mut self, flows: u32, meter: &mut Meter) -> Result<u64> {
        self.play(Script::Once(flows), meter)?;
        let before = self.completed;
        while self.next < flows {
            self.round(meter)?;
        }
        self.play(Script::Once(flows), meter)?;
        Ok(self.completed - before)
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    /// What clients began since they were told what to do.
    pub(super) fn begun(&self) -> u32 {
        self.next
    }

    /// Goes on until so many more connections have ended.
    pub(super) fn complete(&mut self, connections: u64, meter: &mut Meter) -> Result<()> {
        let end = self.completed + connections;
        while self.completed < end {
            self.round(meter)?;
        }
        Ok(())
    }

    /// One burst from the clients and, once replies have waited long enough, one from the servers.
    #[inline]
    pub(super) fn round(&mut self, meter: &mut Meter) -> Result<()> {
        self.round_after(meter, &mut nothing)
    }

    /// As [`Self::round`], after some other work of the worker's that the clients' packets wait for.
    #[inline]
    pub(super) fn round_after(&mut self, meter: &mut Meter, work: &mut impl Work) -> Result<()> {
        self.unplug()?;
        self.stock(BURST)?;
        // One answer for both sides, or answers would pile up behind questions.
        let packets = self.at_once();
        // As they would where they come by chance.
        let asked = match self.waiting() > 2 * self.delay {
            true => 0,
            false => packets,
        };
        self.pass(CLIENT_SIDE, asked, meter, work)?;
        if self.waiting() >= self.delay {
            self.pass(SERVER_SIDE, packets, meter, &mut nothing)?;
        }
        Ok(())
    }

    /// A worker's pass that finds no more than `packets` at its two ports; returns how many it took,
    /// and its cycles if nothing else came between.
    pub(super) fn arrive(
        &mut self,
        packets: usize,
        meter: &mut Meter,
    ) -> Result<(usize, Option<u64>)> {
        let replies = packets
            .min(BURST)
            .min(self.waiting().saturating_sub(self.delay));
        let asked = (packets - replies).min(BURST);
        self.stock(asked)?;
        let first = match asked {
            0 => Some(0),
            _ => self.pass(CLIENT_SIDE, asked, meter, &mut nothing)?,
        };
        let second = match replies {
            0 => Some(0),
            _ => self.pass(SERVER_SIDE, replies, meter, &mut nothing)?,
        };
        let cycles = first.zip(second).map(|(first, second)| first + second);
        Ok((asked + replies, cycles))
    }

    /// Packets on their way from the servers.
    fn waiting(&self) -> usize {
        let far = self.cable.as_ref().map_or(0, |cable| cable.here.slots());
        self.coming[SERVER_SIDE.index()].len() + far
    }

    /// Has clients begin until so many packets of theirs have waited long enough.
    fn stock(&mut self, packets: usize) -> Result<()> {
        while self.coming[CLIENT_SIDE.index()].len() < self.delay + packets && self.begin()? {}
        Ok(())
    }

    /// Puts the next packet that a client sends of itself under way; `false` when all were sent.
    fn begin(&mut self) -> Result<bool> {
        let Some((flow, flags)) = self.choose() else {
            return Ok(false);
        };
        self.age();
        let packet = self.packet()?;
        let segment = match self.sizes {
            Sizes::Shortest => SEGMENT_MIN,
            Sizes::Mixed => self.site.segment(IMIX[self.next as usize % IMIX.len()]),
        };
        let message = Message::from_client(&self.site, flow, flags, segment);
        self.send(packet, &message, CLIENT_SIDE)?;
        Ok(true)
    }

    /// Who sends something next, and with which flags.
    fn choose(&mut self) -> Option<(u32, u8)> {
        loop {
            let chosen = match self.script {
                Script::Open(flows) | Script::Once(flows) if self.next >= flows => return None,
                Script::Open(_) => (self.next, SYN),
                Script::Once(_) => (self.next, ACK),
                Script::Established(flows) => (self.pick(flows), ACK),
                Script::Connections(flows) => (self.next % flows, SYN),
                Script::Strangers => (self.next % STRANGERS, SYN),
                Script::Flood { of_eight, flows } if self.next % 8 >= of_eight => {
                    (self.pick(flows), ACK)
                }
                // Each of them once, in no order.
                Script::Flood { .. } => {
                    let any = self.next.wrapping_mul(0x9e37_79b1);
                    (STRANGERS / 2 + any % (STRANGERS / 2), SYN)
                }
            };
            self.next = self.next.wrapping_add(1);
            if self.plays(chosen.0) {
                return Some(chosen);
            }
        }
    }

    /// Whether the client of this flow is one of its own.
    fn plays(&self, flow: u32) -> bool {
        let home_of = |steer: &Steer| steer.home(network::client(self.site.way, flow));
        (self.home.as_ref()).is_none_or(|(home, steer)| home_of(steer) == *home)
    }

    fn age(&mut self) {
        let Pace::Begun { ms, each } = self.pace else {
            return;
        };
        self.since += 1;
        if self.since >= each {
            self.since = 0;
            self.passed_ms += ms;
        }
    }

    fn now(&self, cycles: u64) -> Instant {
        match self.pace {
            Pace::Real(clock) => clock.instant(cycles).plus_ms(self.passed_ms),
            Pace::Begun { .. } => Instant::from_ms(self.passed_ms),
        }
    }

    /// Puts a packet under way to this side of the director.
    fn send(&mut self, mut packet: Mbuf, message: &Message, side: PortId) -> Result<()> {
        ensure!(message.write(&mut packet, side), "an mbuf has no room");
        self.coming[side.index()].push_back(packet);
        Ok(())
    }

    /// The same for an answer, which may have to come to the other worker.
    fn deliver(&mut self, packet: Mbuf, answer: &Message, side: PortId) -> Result<()> {
        let stays = self.scatters && self.pick(2) == 0;
        let Some(cable) = self.cable.as_mut().filter(|_| !stays) else {
            return self.send(packet, answer, side);
        };
        let sent = cable.there.push((side, *answer));
        sent.map_err(|_| anyhow!("more packets are under way than there are"))
    }

    /// Any number below `flows` (xorshift64).
    fn pick(&mut self, flows: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(flows)) >> 32) as u32
    }

    /// Hands the director up to so many packets, after some other work, and answers what it sends.
    /// Only the director's part is measured: its cycles, if nothing else came between.
    #[inline(always)]
    fn pass(
        &mut self,
        from: PortId,
        packets: usize,
        meter: &mut Meter,
        work: &mut impl Work,
    ) -> Result<Option<u64>> {
        let mut burst = Burst::new();
        let coming = &mut self.coming[from.index()];
        burst.extend(coming.drain(..coming.len().min(packets)));
        let packets = burst.len();

        // What was written so far is not the director's to wait for.
        fence(SeqCst);
        let begin = cpu::cycles();
        let now = self.now(begin);
        let (director, outbox) = (&mut self.director, &mut self.outbox);
        work(director, outbox, now);
        let handed = step(director, outbox, &mut self.gathered, now, from, &mut burst);
        let cycles = cpu::cycles() - begin;
        // Who finds nothing to do waits for the other worker.
        let is_ours = packets + handed == 0 || meter.add(packets, cycles);

        self.collect()?;
        Ok(is_ours.then_some(cycles))
    }

    /// Answers all that was sent.
    fn collect(&mut self) -> Result<()> {
        let mut sent = std::mem::take(&mut self.outbox.sent);
        let mut runs = std::mem::take(&mut self.outbox.runs);
        self.outbox.way = NO_WAY;
        while let Some(run) = runs.pop() {
            for packet in sent.drain(run.first..) {
                self.arrived(packet, run.to)?;
            }
        }
        (self.outbox.sent, self.outbox.runs) = (sent, runs);
        Ok(())
    }

    /// Checks and answers a packet that was sent to this side.
    fn arrived(&mut self, mut packet: Mbuf, to: PortId) -> Result<()> {
        if network::is_announcement(packet.bytes()) {
            return Ok(());
        }
        let message = match Message::read(&mut packet, to, &self.site) {
            Ok(message) => message,
            Err(wrong) => bail!(
                "the director sent a packet and {wrong}: {:02x?}",
                packet.bytes()
            ),
        };
        match self.answer(&message, to) {
            Some((answer, side)) => self.deliver(packet, &answer, side)?,
            None => self.completed += 1,
        }
        Ok(())
    }

    /// What comes to the director because a packet arrived, and on which side.
    fn answer(&self, message: &Message, at: PortId) -> Option<(Message, PortId)> {
        let protocol = self.site.way.protocol;
        let flags = self.script.answer(at, protocol, message.flags)?;
        let answer = message.answer(flags);
        if !self.site.way.method.is_one_way() {
            return Some((answer, at));
        }
        // The client has it without us; what we see next is the client's answer to that.
        let flags = self.script.answer(CLIENT_SIDE, protocol, flags)?;
        Some((answer.answer(flags), CLIENT_SIDE))
    }
}

/// What a worker does beside packets.
pub(super) trait Work: FnMut(&mut Director<Mbuf>, &mut Outbox, Instant) {}
impl<W: FnMut(&mut Director<Mbuf>, &mut Outbox, Instant)> Work for W {}

fn nothing(_: &mut Director<Mbuf>, _: &mut Outbox, _: Instant) {}

/// All that is measured: what a worker has the director do with one burst, the accounting and the
/// timers included; returns how many packets other workers handed over. By itself, so that callgrind can
/// tell it from the rest.
#[inline(never)]
fn step(
    director: &mut Director<Mbuf>,
    outbox: &mut Outbox,
    gathered: &mut Gathered,
    now: Instant,
    from: PortId,
    burst: &mut Burst<Mbuf>,
) -> usize {
    let Gathered { tray, others } = gathered;
    others.approach();
    director.gather(now, from, burst, tray, outbox);
    let mut handed = 0;
    if others.is_any() {
        (handed, _) = director.unpack(now, others, tray, outbox);
        outbox.watch.page().steered_in.add(handed as u64);
    }
    director.tick(now, outbox);
    outbox.steered.flush(&mut outbox.watch);
    account(director, outbox);
    handed
}

/// Counts the ends of what was sent, as the worker does when the port took it.
#[inline(always)]
fn account(director: &Director<Mbuf>, outbox: &Outbox) {
    let mut rest = &outbox.sent[..];
    for run in outbox.runs.iter().rev() {
        let (before, packets) = rest.split_at(run.first);
        let bytes = packets.iter().map(|packet| packet.bytes().len()).sum();
        (director.page()).sent_run(run.to, packets.len(), bytes, run.origin);
        rest = before;
    }
}

//! Clients and real servers, played between two bursts on the worker's own core.
//!
//! What the director sends is checked, turned in place into the other side's answer, and comes
//! back [`DELAY`] packets later, when neither the packet nor its connection is in the first
//! cache. All of this happens while the cycle counter is not looked at.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use control::Protocol;

use super::measure::{Clock, Meter};
use super::network::{self, CLIENT_SIDE, Message, SERVER_SIDE};
use super::way::Way;
use crate::cpu;
use crate::director::Director;
use crate::dpdk::{Mbuf, Mempool};
use crate::packet::{BURST, Burst, Egress, Learned, Origin, PacketBuf, PortId};
use crate::watch::Watch;
use crate::wire::flow::tcp_flags;

/// Packets that pass between a packet's leaving and its answer's coming back.
const DELAY: usize = 1024;
/// Mbufs that two generators and their directors may hold together.
pub(super) const MBUFS: u32 = 8191;

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
    /// Whole TCP connections on so many flows, one after the other: SYN, SYN/ACK, ACK with data,
    /// FIN/ACK, FIN/ACK, ACK.
    Connections(u32),
}

impl Script {
    /// Flags of the next packet on the connection after one with `flags` arrived at a server
    /// (`at` the server side) or a client; `None` when the connection has nothing more to say.
    fn answer(self, at: PortId, protocol: Protocol, flags: u8) -> Option<u8> {
        let at_server = at == SERVER_SIDE;
        if protocol == Protocol::Udp {
            return at_server.then_some(0);
        }
        let whole = matches!(self, Self::Connections(_));
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
struct Outbox {
    pool: Mempool,
    watch: Watch,
    sent: Vec<(PortId, Mbuf, Origin)>,
}

impl Egress for Outbox {
    type Buf = Mbuf;

    #[inline(always)]
    fn send(&mut self, to: PortId, packet: Mbuf, origin: Origin) {
        self.sent.push((to, packet, origin));
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

    fn steer(&mut self, _worker: usize, _from: PortId, _packet: Mbuf) {
        unreachable!("there is one worker");
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

/// A director and the network around it.
#[derive(Debug)]
pub(super) struct Generator {
    director: Director<Mbuf>,
    clock: Clock,
    way: Way,
    outbox: Outbox,
    /// On their way to the director, by the port they come in on.
    coming: [VecDeque<Mbuf>; 2],
    script: Script,
    /// The flow to open next.
    next: u32,
    random: u64,
    /// Connections whose last packet arrived.
    completed: u64,
}

impl Generator {
    /// For up to `flows` connections.
    pub(super) fn new(
        director: Director<Mbuf>,
        clock: Clock,
        way: Way,
        flows: u32,
        pool: Mempool,
    ) -> Result<Self> {
        let page = Arc::clone(director.page());
        let mut generator = Self {
            director,
            clock,
            way,
            outbox: Outbox {
                pool,
                watch: Watch::new(page),
                sent: Vec::with_capacity(MBUFS as usize),
            },
            coming: [(); 2].map(|()| VecDeque::with_capacity(2 * DELAY)),
            script: Script::Open(0),
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            completed: 0,
        };
        for update in network::updates(way, flows) {
            generator.director.apply(&update, &mut generator.outbox);
        }
        generator.account();
        generator.collect()?;
        Ok(generator)
    }

    pub(super) fn director(&self) -> &Director<Mbuf> {
        &self.director
    }

    /// Connections of which the client saw the last packet, since the start.
    pub(super) fn completed(&self) -> u64 {
        self.completed
    }

    /// What the clients do from now on. Packets under way are let run out first.
    pub(super) fn play(&mut self, script: Script, meter: &mut Meter) -> Result<()> {
        while self.coming.iter().any(|queue| !queue.is_empty()) {
            self.pass(CLIENT_SIDE, meter)?;
            self.pass(SERVER_SIDE, meter)?;
        }
        (self.script, self.next) = (script, 0);
        Ok(())
    }

    /// Opens flows 0 to `flows`, and returns when the last packet of the last of them arrived.
    pub(super) fn open(&mut self, flows: u32, meter: &mut Meter) -> Result<()> {
        self.play(Script::Open(flows), meter)?;
        while self.next < flows {
            self.round(meter)?;
        }
        self.play(Script::Open(flows), meter)
    }

    /// One burst from the clients and, once replies have waited long enough, one from the servers.
    pub(super) fn round(&mut self, meter: &mut Meter) -> Result<()> {
        while self.coming[CLIENT_SIDE.index()].len() < DELAY + BURST && self.begin()? {}
        self.pass(CLIENT_SIDE, meter)?;
        if self.coming[SERVER_SIDE.index()].len() >= DELAY {
            self.pass(SERVER_SIDE, meter)?;
        }
        Ok(())
    }

    /// Puts the next packet that a client sends of itself under way; `false` when all were sent.
    fn begin(&mut self) -> Result<bool> {
        let (flow, flags) = match self.script {
            Script::Open(flows) if self.next >= flows => return Ok(false),
            Script::Open(_) => (self.next, SYN),
            Script::Established(flows) => (self.pick(flows), ACK),
            Script::Connections(flows) => (self.next % flows, SYN),
        };
        self.next = self.next.wrapping_add(1);
        let packet = self.outbox.pool.alloc();
        let packet = packet.context("the mempool is exhausted: packets were lost")?;
        let message = Message::from_client(self.way, flow, flags);
        self.send(packet, &message, CLIENT_SIDE)?;
        Ok(true)
    }

    /// Puts a packet under way to this side of the director.
    fn send(&mut self, mut packet: Mbuf, message: &Message, side: PortId) -> Result<()> {
        ensure!(message.write(&mut packet, side), "an mbuf has no room");
        self.coming[side.index()].push_back(packet);
        Ok(())
    }

    /// Any number below `flows` (xorshift64).
    fn pick(&mut self, flows: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(flows)) >> 32) as u32
    }

    /// Hands the director one burst as a worker does, and answers what it sends. Only the
    /// director's part, the accounting and the timers included, is measured.
    fn pass(&mut self, from: PortId, meter: &mut Meter) -> Result<()> {
        let mut burst = Burst::new();
        let coming = &mut self.coming[from.index()];
        burst.extend(coming.drain(..coming.len().min(BURST)));
        let packets = burst.len();

        let begin = cpu::cycles();
        let now = self.clock.instant(begin);
        self.director
            .process(now, from, &mut burst, &mut self.outbox);
        self.director.tick(now, &mut self.outbox);
        self.account();
        meter.add(packets, cpu::cycles() - begin);

        self.collect()
    }

    /// Counts the ends of what was sent, as the worker does when the port took it.
    #[inline(always)]
    fn account(&self) {
        let page = self.director.page();
        for (to, packet, origin) in &self.outbox.sent {
            page.sent(*to, packet.bytes().len(), *origin);
        }
    }

    /// Answers all that was sent.
    fn collect(&mut self) -> Result<()> {
        let mut sent = std::mem::take(&mut self.outbox.sent);
        for (to, mut packet, _) in sent.drain(..) {
            if network::is_announcement(packet.bytes()) {
                continue;
            }
            let message = match Message::read(&mut packet, to, self.way) {
                Ok(message) => message,
                Err(wrong) => bail!(
                    "the director sent a packet and {wrong}: {:02x?}",
                    packet.bytes()
                ),
            };
            match self.answer(&message, to) {
                Some((answer, side)) => self.send(packet, &answer, side)?,
                None => self.completed += 1,
            }
        }
        self.outbox.sent = sent;
        Ok(())
    }

    /// What comes to the director because a packet arrived, and on which side.
    fn answer(&self, message: &Message, at: PortId) -> Option<(Message, PortId)> {
        let protocol = self.way.protocol;
        let flags = self.script.answer(at, protocol, message.flags)?;
        let answer = message.answer(flags);
        if !self.way.method.is_one_way() {
            return Some((answer, at));
        }
        // The client has it without us; what we see next is the client's answer to that.
        let flags = self.script.answer(CLIENT_SIDE, protocol, flags)?;
        Some((answer.answer(flags), CLIENT_SIDE))
    }
}

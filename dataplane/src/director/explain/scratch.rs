//! A director made of an excerpt, and the one packet that it gets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::super::Director;
use super::super::cut::Cuts;
use super::super::engine::said;
use super::super::handshake::Handshakes;
use super::super::kernel::Punts;
use super::super::synced::Places;
use super::Excerpt;
use crate::conn::{Conns, Hash};
use crate::counters::{DropReason, Page};
use crate::fragments::Fragments;
use crate::net::Net;
use crate::packet::{Burst, Egress, Exit, HeapBuf, Learned, Origin, PacketBuf, PortId};
use crate::sched::{Loads, Newcomer};
use crate::service::Services;
use crate::steer::Steer;
use crate::templates::{Sweep, Templates};
use crate::update::{ServerId, ServiceId};
use crate::watch::Watch;
use crate::watch::tap::Note;
use crate::wire::flow::Seen;

/// What became of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Forwarded,
    Answered,
    Punted,
    Held,
    Consumed,
    Dropped(DropReason),
}

/// A frame that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub port: PortId,
    pub frame: Vec<u8>,
    pub exit: Exit,
}

#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub sent: Vec<Sent>,
    /// Packets that wait for a neighbour from now on, without Ethernet headers, which they have not got yet.
    pub held: Vec<Vec<u8>>,
    /// The service that a drop is counted for.
    pub charged: Option<ServiceId>,
    /// What was counted.
    pub page: Arc<Page>,
    /// As it was left.
    pub(super) director: Director<HeapBuf>,
}

impl Excerpt {
    /// A director of nothing but this; servers' connections are those of all workers together.
    pub(super) fn director(&self, loads: &Loads) -> io::Result<(Director<HeapBuf>, Arc<Page>)> {
        let (services, servers) = self.services.highest();
        let page = Arc::new(Page::new(services + 1, servers + 1)?);
        for id in self.services.servers() {
            let (load, server) = (loads.of(id), &page.servers[id.index()]);
            server
                .active
                .set(u32::try_from(load.active).unwrap_or(u32::MAX));
            server
                .inactive
                .set(u32::try_from(load.inactive).unwrap_or(u32::MAX));
        }
        let secret = self.conns.secret;
        let (templates, numbers) =
            Templates::of(self.now, secret, servers + 1, &self.templates, self.room)?;
        let number = |line: u32| {
            let mut pairs = self.templates.iter().zip(&numbers);
            pairs.find_map(|(copied, number)| (copied.line == line).then_some(*number)?)
        };
        let mut conns = self.conns.clone();
        for line in &mut conns.lines {
            line.template = line.template.and_then(number);
            if let Some(talk) = &mut line.talk {
                talk.line = number(talk.line).unwrap_or(u32::MAX);
            }
        }
        let mut tunnels = Vec::new();
        for (id, way) in &self.tunnels {
            if tunnels.len() <= id.index() {
                tunnels.resize_with(id.index() + 1, || None);
            }
            tunnels[id.index()] = Some(way.clone());
        }
        let steer = Steer::new(self.me, self.workers);
        let director = Director {
            conns: Conns::of(self.now, &conns)?,
            services: Services::of(&self.services, Loads::new([page.clone()].into())),
            net: Net::of(&self.net),
            fragments: Fragments::default(),
            leases: self.leases.clone(),
            templates: Arc::new(templates),
            sweep: Sweep::new(steer.me(), steer.workers()),
            tunnels,
            ways: Vec::new(),
            timeouts: self.timeouts,
            settings: self.settings,
            cuts: Cuts::default(),
            defence: self.defence.clone(),
            transitions: self.transitions,
            answers: self.answers.clone(),
            // How long a server takes is no matter of the packet.
            handshakes: Handshakes::new(1),
            telling: None,
            places: Places::new(),
            steer,
            arrivals: crate::director::arrival::Arrivals::default(),
            stations: self.stations,
            kernels: self.kernels,
            punts: Punts::default(),
            partial: self.partial,
            page: page.clone(),
            ticked: None,
            ip_id: self.ip_id,
        };
        Ok((director, page))
    }

    /// The server that the packet's new connection would get, and where it is reached, if it gets so
    /// far.
    pub(super) fn toward(
        &self,
        loads: &Loads,
        frame: &[u8],
    ) -> io::Result<Option<(ServerId, SocketAddr)>> {
        let (mut director, _) = self.director(loads)?;
        let Ok(seen) = self.parsed(&director, frame) else {
            return Ok(None);
        };
        let found = director.conns.lookup(&seen, frame);
        if found.is_some_and(|hit| director.known(self.now, &seen, hit, frame).is_some()) {
            return Ok(None);
        }
        if let Some(tie) = director.awaited(self.now, &self.tuple) {
            let server = director.services.server(tie.server);
            return Ok(server.map(|server| {
                let address = SocketAddr::new(server.address.ip(), tie.server_port);
                (tie.server, address)
            }));
        }
        let mark = director.services.mark(&self.tuple, self.from, self.vlan);
        let Some(service) = director.services.matching(&self.tuple, mark) else {
            return Ok(None);
        };
        let newcomer = Newcomer::new(&self.tuple, said(&seen, frame));
        let choice = director.choose(self.now, service, &newcomer).ok();
        Ok(choice.map(|choice| (choice.id, choice.server.address)))
    }

    /// Has the packet processed.
    pub fn rehearse(&self, loads: &Loads, frame: &[u8]) -> io::Result<Outcome> {
        let (mut director, page) = self.director(loads)?;
        let mut recorder = Recorder {
            watch: Watch::new(page.clone()),
            sent: Vec::new(),
        };
        let mut burst = Burst::from_iter([HeapBuf::new(frame)]);
        director.process_home(self.now, self.from, &mut burst, &mut recorder);
        let held = director.net.waiting();
        let held = held.filter_map(|(packet, l3)| Some(packet.bytes().get(l3..)?.to_vec()));
        let mut services = (0..).zip(page.services.iter());
        let charged = services.find(|(_, page)| page.drops.iter().any(|drops| drops.get() > 0));
        Ok(Outcome {
            end: end(&page, self.from),
            sent: recorder.sent,
            held: held.collect(),
            charged: charged.map(|(id, _)| ServiceId(id)),
            page,
            director,
        })
    }

    /// A packet as a worker's first stage sees it.
    pub(super) fn parsed(
        &self,
        director: &Director<HeapBuf>,
        frame: &[u8],
    ) -> Result<Seen, DropReason> {
        director.accepted(self.from, frame)
    }
}

/// The end of the one packet that came in on `from`. Frames of our own that it brought about have
/// ends too.
fn end(page: &Page, from: PortId) -> End {
    let port = page.port(from);
    let reasons = DropReason::ALL.iter().zip(&port.drops[..]);
    let mut reasons = reasons.filter(|(_, drops)| drops.get() > 0);
    if port.forwarded.get() > 0 {
        End::Forwarded
    } else if let Some((reason, _)) = reasons.next() {
        End::Dropped(*reason)
    } else if page.held.get() > 0 {
        End::Held
    } else if port.consumed.get() > 0 {
        End::Consumed
    } else if port.punted.get() > 0 {
        End::Punted
    } else {
        End::Answered
    }
}

/// What leaves goes nowhere.
struct Recorder {
    watch: Watch,
    sent: Vec<Sent>,
}

impl Egress for Recorder {
    type Buf = HeapBuf;

    fn send(&mut self, to: PortId, packet: HeapBuf, origin: Origin) {
        let frame = packet.bytes().to_vec();
        self.watch.page().sent(to, frame.len(), origin);
        self.sent.push(Sent {
            port: to,
            frame,
            exit: origin.exit,
        });
    }

    fn make(&mut self, len: usize) -> Option<HeapBuf> {
        Some(HeapBuf::new(&vec![0; len]))
    }

    fn share(&mut self, _learned: Learned) {}

    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: HeapBuf) {}

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    fn note(&mut self, _note: impl FnOnce() -> Note) {}
}

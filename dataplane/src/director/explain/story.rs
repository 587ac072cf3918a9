//! The steps that a packet took, for people: read off the director that took them, or off another
//! one made of the same excerpt, before it took them.

use std::io;
use std::net::{IpAddr, SocketAddr};

use control::packet::Line;
use control::{Candidate, Explained, ForwardMode, Frame, ServiceKey, Step, Word, mac_text};

use super::super::Director;
use super::super::engine::{said, with_engine};
use super::super::persist::template_key;
use super::scratch::{End, Outcome};
use super::{Excerpt, Rehearsal};
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::ftp;
use crate::packet::{Exit, HeapBuf, PortId};
use crate::sched::{Loads, Newcomer};
use crate::templates::Copied;
use crate::update::{ServerId, ServiceId};
use crate::wire::ethernet;
use crate::wire::flow::{Seen, Tuple};

impl Rehearsal {
    /// All of it in words; `names` are the ports'.
    pub fn told(&self, loads: &Loads, names: &[String]) -> io::Result<Explained> {
        let (before, _) = self.excerpt.director(loads)?;
        let mut story = Story {
            excerpt: &self.excerpt,
            outcome: &self.outcome,
            packet: &self.frame,
            before,
            names,
            told: Explained {
                packet: frame(names, self.excerpt.from, &self.frame),
                steps: Vec::new(),
                service: None,
                near: Vec::new(),
                candidates: Vec::new(),
                server: None,
                method: None,
                local: None,
                sent: Vec::new(),
                held: Vec::new(),
                end: self.outcome.end.into(),
                says: String::new(),
            },
        };
        story.worker();
        story.mark();
        if let Ok(seen) = self.excerpt.parsed(&story.before, &self.frame) {
            story.walk(&seen);
        }
        story.leaves();
        Ok(story.told)
    }
}

/// What is being told.
struct Story<'r> {
    excerpt: &'r Excerpt,
    outcome: &'r Outcome,
    packet: &'r [u8],
    /// As the director was when the packet came.
    before: Director<HeapBuf>,
    names: &'r [String],
    told: Explained,
}

impl Story<'_> {
    fn step(&mut self, name: &str, says: impl Into<String>) {
        self.told.steps.push(Step {
            name: name.to_owned(),
            says: says.into(),
        });
    }

    fn worker(&mut self) {
        let Excerpt {
            me, workers, tuple, ..
        } = self.excerpt;
        if *workers == 1 {
            return self.step("worker", "the only one");
        }
        let Excerpt { from, vlan, .. } = self.excerpt;
        let asks = self.before.services.is_asking(tuple, *from, *vlan);
        let client = if asks { tuple.from } else { tuple.to };
        let says = format!("{me} of 0 to {}, by the hash of {client}", workers - 1);
        self.step("worker", says);
    }

    fn mark(&mut self) {
        let Excerpt {
            tuple, from, vlan, ..
        } = self.excerpt;
        let marks = self.excerpt.services.marks();
        if marks.rules().is_empty() {
            return;
        }
        let says = match marks.rule_of(tuple, *from, *vlan) {
            None => "none: no rule holds".to_owned(),
            Some((at, mark)) => {
                let number = at + 1;
                let used = self.before.services.mark(tuple, *from, *vlan) != 0;
                let only = if used || mark == 0 {
                    ""
                } else {
                    ", of no service"
                };
                format!("{mark} by rule {number}{only}")
            }
        };
        self.step("mark", says);
    }

    fn walk(&mut self, seen: &Seen) {
        let Some(found) = self.before.conns.lookup(seen, self.packet) else {
            self.step("connection", "none");
            return self.opens(seen);
        };
        let shown = self.shown(found);
        let (now, packet) = (self.excerpt.now, self.packet);
        match self.before.known(now, seen, found, packet) {
            None => {
                self.step("connection", format!("{shown}; it is over"));
                self.opens(seen);
            }
            Some(hit) if self.before.conns.get(hit).is_doomed() => {
                self.step(
                    "connection",
                    format!("{shown}; it is being ended from here"),
                );
                self.goes_on(hit);
            }
            Some(hit) => {
                self.step("connection", shown);
                self.goes_on(hit);
            }
        }
    }

    /// A connection, as it is listed.
    fn shown(&self, hit: Hit) -> String {
        let Some(conn) = self.before.conns.at(hit.entry()) else {
            return "none".to_owned();
        };
        let shown = self.before.shown(self.excerpt.now, hit.entry(), conn);
        let side = if hit.outbound() {
            "its server's side"
        } else {
            "its client's side"
        };
        let seconds = shown.expires_ms.div_ceil(1000);
        let (state, server) = (shown.state, shown.server);
        format!("{state} with {server}, {seconds} s left; the packet is of {side}")
    }

    /// A packet of a connection that there is.
    fn goes_on(&mut self, hit: Hit) {
        let (server, service, available) = self.before.serving(hit);
        let key = service.and_then(|service| self.before.services.key(service));
        self.told.service = key;
        let name = key.map_or_else(|| "one that is gone".to_owned(), |key| key.to_string());
        let gone = match (available, server) {
            (true, _) => "",
            (false, Some(_)) => ", whose server was deleted",
            (false, None) => ", whose server is not known any more",
        };
        self.step("service", format!("{name}, by its connection{gone}"));
        self.forwarding(hit);
    }

    /// A packet without a connection.
    fn opens(&mut self, seen: &Seen) {
        let tuple = self.excerpt.tuple;
        let now = self.excerpt.now;
        if let Some(tie) = self.before.awaited(now, &tuple) {
            let server = self.before.services.server(tie.server).map(|s| s.service);
            self.told.service = server.and_then(|id| self.before.services.key(id));
            self.step(
                "service",
                "data of FTP, as a control connection announced it",
            );
            return self.opened();
        }
        let Excerpt { from, vlan, .. } = *self.excerpt;
        let mark = self.before.services.mark(&tuple, from, vlan);
        let Some(service) = self.before.services.matching(&tuple, mark) else {
            self.step("service", self.no_service());
            return self.opened();
        };
        let key = self.before.services.key(service);
        self.told.service = key;
        let by = key.map_or("", |key| found_by(key, &tuple));
        self.step(
            "service",
            format!("{}, {by}", key.map_or_else(String::new, |k| k.to_string())),
        );
        if !self.gets_a_choice() {
            return;
        }
        self.choice(seen, service);
        self.opened();
    }

    fn no_service(&self) -> String {
        let Tuple { from, to, .. } = self.excerpt.tuple;
        let services = &self.before.services;
        if services.answers().from(from).is_some() {
            format!("none has {to}; {from} is a server that answers without connections")
        } else if self.before.owns(to.ip()) {
            format!("none at {to}, though the address is the director's")
        } else {
            format!("none at {to}, and the address is not the director's")
        }
    }

    /// Whether the packet came so far that a server was looked for.
    fn gets_a_choice(&self) -> bool {
        use DropReason::{BadSource, DropPacket, NoConnection};
        !matches!(
            self.outcome.end,
            End::Dropped(BadSource | NoConnection | DropPacket)
        )
    }

    /// The server, and by what it is chosen.
    fn choice(&mut self, seen: &Seen, service: ServiceId) {
        let (now, tuple) = (self.excerpt.now, self.excerpt.tuple);
        let text = said(seen, self.packet);
        let newcomer = Newcomer::new(&tuple, text);
        let is_tied = self.persistence(service, &tuple, text);
        let survey = match is_tied {
            true => None,
            false => self.before.services.survey(now, service, &newcomer),
        };
        let chosen = self.before.choose(now, service, &newcomer).ok();
        let id = chosen.as_ref().map(|choice| choice.id);
        if let Some(choice) = chosen {
            self.told.server = Some(choice.server.address);
            self.told.method = Some(choice.server.mode);
        }
        let Some((name, rule, weighed)) = survey else {
            return;
        };
        let nobody = match (id, weighed.is_empty()) {
            (Some(_), _) => "",
            (None, true) => "; the service has no servers",
            (None, false) => "; no server is to take a connection",
        };
        self.step("scheduler", format!("{name}: {rule}{nobody}"));
        let candidates = weighed.into_iter().map(|server| Candidate {
            server: server.address,
            weight: server.weight,
            active: server.load.active,
            inactive: server.load.inactive,
            overloaded: server.overloaded,
            draining: server.draining,
            figure: server.figure,
            chosen: Some(server.id) == id,
        });
        self.told.candidates = candidates.collect();
    }

    /// What ties the client to a server; whether something does.
    fn persistence(&mut self, service: ServiceId, tuple: &Tuple, text: &[u8]) -> bool {
        let known = self.before.services.persistence(service);
        let Some((key, Some(persistence))) = known else {
            return false;
        };
        let sought = template_key(key, persistence.netmask, tuple);
        let client = sought.client.ip();
        let (sought, who) = match self.before.services.engine(service) {
            None if persistence.netmask.is_whole() => (sought, format!("client {client}")),
            None => (
                sought,
                format!("clients in {client}/{}", persistence.netmask),
            ),
            Some(engine) => match with_engine(sought, engine, tuple, text) {
                Ok(sought) => {
                    let id = String::from_utf8_lossy(sought.engine);
                    (sought, format!("Call-ID {id}"))
                }
                Err(_) => {
                    self.step("persistence", "by Call-ID, and the packet has none");
                    return false;
                }
            },
        };
        let found = self.before.templates.peek(&sought, self.excerpt.now);
        let found =
            found.filter(|copied| copied.template.expires_ms > 0 || copied.template.controls > 0);
        let (says, is_tied) = self.tie(&who, found, persistence.timeout_s);
        self.step("persistence", says);
        is_tied
    }

    fn tie(&self, who: &str, found: Option<Copied>, timeout_s: u32) -> (String, bool) {
        let made = format!("a template is made for {timeout_s} s");
        let Some(Copied { template, .. }) = found else {
            return (format!("{who} has no template: {made}"), false);
        };
        let left = template.expires_ms.div_ceil(1000);
        let server = self.before.services.server(template.tie.server);
        let name = server.map_or_else(
            || "a server that is gone".to_owned(),
            |server| server.address.to_string(),
        );
        match self.before.still_takes(template.tie.server) {
            true => (
                format!("{who} has {name} by its template, {left} s left"),
                true,
            ),
            false => {
                let says = format!("{who} had {name}, which takes no more: {made}");
                (says, false)
            }
        }
    }

    /// What the packet opened, if it did.
    fn opened(&mut self) {
        match self.outcome.director.conns.find(&self.excerpt.tuple) {
            Some(hit) => self.forwarding(hit),
            None => {
                let to = self.told.server;
                if let (Some(server), Some(mode)) = (to, self.told.method) {
                    self.step("forwarding", way(mode, server, None));
                    self.route(server.ip());
                }
            }
        }
    }

    /// Where the packets of this side of a connection go.
    fn forwarding(&mut self, hit: Hit) {
        let conns = &self.outcome.director.conns;
        let Some(conn) = conns.at(hit.entry()).copied() else {
            return;
        };
        let sides = [false, true].map(|outbound| conns.tuple(hit.entry(), outbound));
        let mode = conn.mode();
        let server = self.server_of(conn.server(), mode, &sides);
        self.told.method = Some(mode);
        self.told.server = Some(server);
        self.told.local = (mode == ForwardMode::FullNat).then_some(sides[1].to);
        if hit.outbound() {
            let [
                Tuple {
                    from: client, to, ..
                },
                _,
            ] = sides;
            let says = format!("back to the client {client} from {to}");
            self.step("forwarding", says);
            return self.route(client.ip());
        }
        self.step("forwarding", way(mode, server, self.told.local));
        self.route(server.ip());
    }

    fn server_of(&self, id: ServerId, mode: ForwardMode, sides: &[Tuple; 2]) -> SocketAddr {
        let known = self.before.services.server(id).map(|server| server.address);
        match (mode, known) {
            (ForwardMode::Direct | ForwardMode::Tunnel, Some(address)) => {
                SocketAddr::new(address.ip(), sides[0].to.port())
            }
            _ => sides[1].from,
        }
    }

    /// The way to an address.
    fn route(&mut self, to: IpAddr) {
        let Some(way) = self.excerpt.net.way(to) else {
            return self.step("route", format!("none to {to}"));
        };
        let port = port_name(self.names, way.port, way.vlan);
        let (says, next) = match way.via {
            None => (format!("{to} is on a network of {port}"), to),
            Some(via) => (format!("{to} is behind {via} on {port}"), via),
        };
        self.step("route", format!("{says}, mtu {}", way.mtu));
        let says = match way.neighbour {
            None => format!("{next} is not known yet"),
            Some((view, waiting)) => {
                let known = view.mac.map_or_else(|| "not known".to_owned(), mac_text);
                let wait = match waiting {
                    0 => String::new(),
                    n => format!(", {n} packets wait"),
                };
                format!("{next} is {known} ({}){wait}", view.state.word())
            }
        };
        self.step("neighbour", says);
    }

    /// What leaves and what waits, and how it ended.
    fn leaves(&mut self) {
        let names = self.names;
        let sent = self.outcome.sent.iter();
        let sent = sent.map(|sent| control::Sent {
            frame: frame(names, sent.port, &sent.frame),
            made: sent.exit == Exit::Answered,
        });
        self.told.sent = sent.collect();
        let held = self.outcome.held.iter();
        self.told.held = held.map(|packet| waiting(packet)).collect();
        self.told.says = self.ending();
    }

    fn ending(&self) -> String {
        let mut out = self.told.sent.iter().filter(|sent| !sent.made);
        let answers = self.told.sent.iter().any(|sent| sent.made);
        match self.outcome.end {
            End::Forwarded => match out.next() {
                Some(sent) => format!("it leaves from {}", sent.frame.port),
                None => "it leaves".to_owned(),
            },
            End::Answered => "its sender gets an answer".to_owned(),
            End::Punted => "the kernel takes it".to_owned(),
            End::Held => "it waits until the neighbour says its Ethernet address".to_owned(),
            End::Consumed => "the director takes it in".to_owned(),
            End::Dropped(reason) => {
                let told = if answers { "; its sender is told" } else { "" };
                format!("{}{told}", reason.sentence())
            }
        }
    }
}

impl From<End> for control::End {
    fn from(end: End) -> Self {
        match end {
            End::Forwarded => Self::Forwarded,
            End::Answered => Self::Answered,
            End::Punted => Self::Punted,
            End::Held => Self::Held,
            End::Consumed => Self::Consumed,
            End::Dropped(reason) => Self::Dropped {
                reason: reason.name().to_owned(),
                sentence: reason.sentence().to_owned(),
            },
        }
    }
}

/// How a service was found.
fn found_by(key: ServiceKey, tuple: &Tuple) -> &'static str {
    match key {
        ServiceKey::Mark { .. } => "by the packet's mark",
        ServiceKey::Address { address, .. } if address.port() == tuple.to.port() => {
            "by its address and port"
        }
        ServiceKey::Address { address, .. } if address.port() == ftp::CONTROL => {
            "by its address, as data of FTP"
        }
        ServiceKey::Address { .. } => "by its address, for every port",
    }
}

/// How packets get to a server.
fn way(mode: ForwardMode, server: SocketAddr, local: Option<SocketAddr>) -> String {
    match (mode, local) {
        (ForwardMode::FullNat, Some(local)) => format!("fullnat to {server} from {local}"),
        (ForwardMode::Direct, _) => format!("direct to the station of {}", server.ip()),
        (ForwardMode::Tunnel, _) => format!("tunnel to {}", server.ip()),
        (mode, _) => format!("{} to {server}", mode.word()),
    }
}

/// A port, and a VLAN of it.
pub(super) fn port_name(names: &[String], port: PortId, vlan: Option<u16>) -> String {
    let name = names.get(port.index());
    let name = name.map_or_else(|| port.0.to_string(), Clone::clone);
    match vlan {
        None => name,
        Some(vlan) => format!("{name}.{vlan}"),
    }
}

/// An IP packet that waits, in words.
fn waiting(packet: &[u8]) -> String {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let ethertype = if is_v6 {
        ethernet::IPV6
    } else {
        ethernet::IPV4
    };
    let bytes = [&[0; 12][..], &ethertype.to_be_bytes(), packet].concat();
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Line { bytes: &bytes, len }.to_string()
}

fn frame(names: &[String], port: PortId, bytes: &[u8]) -> Frame {
    let station = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk().copied());
    let [to, from] = [0, 6].map(|at| station(at).map_or_else(String::new, mac_text));
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Frame {
        port: port_name(names, port, None),
        from,
        to,
        packet: Line { bytes, len }.to_string(),
        bytes: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

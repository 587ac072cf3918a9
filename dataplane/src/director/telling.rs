//! What backups are told of this worker's connections, and when: `crate::sync::rules`.

use std::io;
use std::net::SocketAddr;

use control::ForwardMode;

use super::Director;
use crate::conn::{Conn, Hit, State};
use crate::mem::Array;
use crate::packet::PacketBuf;
use crate::sync::message::{Entry, Sequence, flags};
use crate::sync::news::{Feed, News, TemplateNews};
use crate::sync::rules::{Rules, Subject, Told};
use crate::time::Instant;
use crate::update::ServerId;

/// A template is told no oftener than so, whatever its clients do: LVS tells it with each packet.
const TEMPLATE_MS: u32 = 1000;
/// Connections and templates looked at for a round between two bursts.
const ROUND_PART: u32 = 32;

/// What was told so far.
#[derive(Debug)]
pub(super) struct Telling {
    feed: Option<Feed>,
    /// By connection.
    told: Array<Line>,
    /// By template: one more than when it was told last, in milliseconds.
    templates: Array<u32>,
    round: Round,
}

/// [`Told`] as it lies in memory; all zero is nothing told.
#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, Debug, Clone, Copy)]
#[repr(C)]
struct Line {
    end: u32,
    state: u8,
    repeats: u8,
    _pad: [u8; 2],
}

/// How far a round of everything has come.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// The last one that was begun, and the next connection and template of it.
    number: u32,
    at: u32,
    done: bool,
}

impl Telling {
    pub(super) fn new(connections: u32, templates: u32) -> io::Result<Self> {
        Ok(Self {
            feed: None,
            told: Array::sparse(connections as usize + 1)?,
            templates: Array::sparse(templates as usize)?,
            round: Round {
                done: true,
                ..Round::default()
            },
        })
    }

    /// Of a director that tells nobody.
    pub(super) fn none() -> io::Result<Self> {
        Self::new(0, 0)
    }

    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.feed.is_some()
    }

    fn told(&self, entry: u32) -> Told {
        let line = self.told[entry as usize];
        Told {
            state: State::by_number(line.state),
            end: Instant(line.end),
            repeats: line.repeats,
        }
    }

    fn note(&mut self, entry: u32, told: Told) {
        self.told[entry as usize] = Line {
            end: told.end.0,
            state: told.state as u8,
            repeats: told.repeats,
            _pad: [0; 2],
        };
    }
}

impl<P: PacketBuf> Director<P> {
    /// From now on backups are told by this feed, or by none.
    pub fn tell_by(&mut self, feed: Option<Feed>) {
        self.telling.feed = feed;
        self.telling.round = Round {
            done: true,
            ..Round::default()
        };
    }

    /// After a packet from a connection's client: whether backups are to know.
    #[inline(always)]
    pub(super) fn tell_backups(&mut self, now: Instant, hit: Hit) {
        if self.telling.is_on() && !hit.outbound() {
            self.tell_of(now, hit.entry());
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_of(&mut self, now: Instant, entry: u32) {
        if entry == self.conns.capacity() {
            // A datagram by itself.
            return;
        }
        let Some(conn) = self.conns.at(entry).copied() else {
            return;
        };
        let template = self.conns.template(entry);
        let packets = conn.packets()[0];
        if packets <= 1 {
            self.telling.note(
                entry,
                Told {
                    state: State::before_all(self.conns.tuple(entry, false).protocol),
                    end: Instant(0),
                    repeats: 0,
                },
            );
        }
        let subject = Subject {
            state: conn.state(),
            is_template: false,
            is_persistent: template.is_some(),
            timeout_ms: conn.timeout_ms(),
            packets,
        };
        let rules = Rules::of(&self.settings);
        if let Some(told) = rules.due(now, subject, self.telling.told(entry)) {
            self.tell_connection(now, entry, &conn, told);
        }
        if let Some(number) = template {
            self.tell_template(now, number, conn.server());
        }
    }

    fn push(&mut self, now: Instant, news: News) {
        if let Some(feed) = &mut self.telling.feed
            && !feed.tell(now, news)
        {
            self.page.sync.lost.add(1);
        }
    }

    fn tell_connection(&mut self, now: Instant, entry: u32, conn: &Conn, told: Told) {
        if let Some(news) = self.entry_of(entry, conn) {
            self.telling.note(entry, told);
            self.push(now, News::Connection(news));
        }
    }

    /// A template, unless it was told just now.
    fn tell_template(&mut self, now: Instant, number: u32, id: ServerId) {
        let last = &mut self.telling.templates[number as usize];
        if *last != 0 && now.since(Instant(*last - 1)) < TEMPLATE_MS {
            return;
        }
        *last = now.0.wrapping_add(1).max(1);
        self.tell_template_now(now, number, id);
    }

    fn tell_template_now(&mut self, now: Instant, number: u32, id: ServerId) {
        let Some(server) = self.services.server(id).copied() else {
            return;
        };
        let Some(template) = self.templates.at(number, now) else {
            return;
        };
        let news = TemplateNews {
            number,
            method: method(server.mode).0,
            server: SocketAddr::new(server.address.ip(), template.tie.server_port),
            mark: self.mark_of(id),
        };
        self.push(now, News::Template(news));
    }

    /// A connection as backups know it; `None` for one that they could not go on with.
    fn entry_of(&self, entry: u32, conn: &Conn) -> Option<Entry> {
        let server = self.services.server(conn.server())?;
        let (inbound, outbound) = (
            self.conns.tuple(entry, false),
            self.conns.tuple(entry, true),
        );
        if conn.is_telling() {
            // Numbers of its segments change in ways that only this director knows.
            return None;
        }
        let (method, no_output) = method(conn.mode());
        let mut flags = method;
        if no_output && conn.is_one_way() {
            flags |= flags::NO_OUTPUT;
        }
        if !conn.state().is_active() {
            flags |= flags::INACTIVE;
        }
        let server = match conn.mode() {
            ForwardMode::Direct | ForwardMode::Tunnel => {
                let port = match server.address.port() {
                    0 => inbound.to.port(),
                    port => port,
                };
                SocketAddr::new(server.address.ip(), port)
            }
            ForwardMode::Nat | ForwardMode::FullNat => outbound.from,
        };
        let sequences = self.sequences(entry, conn);
        if sequences.is_some() {
            flags |= flags::SEQUENCE_OUT;
        }
        Some(Entry {
            protocol: inbound.protocol,
            flags,
            state: conn.state().number(),
            client: inbound.from,
            vip: inbound.to,
            server,
            mark: self.mark_of(conn.server()),
            timeout_s: conn.timeout_ms() / 1000,
            sequences,
            engine_data: None,
            local: (conn.mode() == ForwardMode::FullNat).then_some(outbound.to),
        })
    }

    /// FTP's, whose server's text grew on its way.
    fn sequences(&self, entry: u32, conn: &Conn) -> Option<[Sequence; 2]> {
        let growth = conn.is_helped().then(|| self.conns.talk_of(entry).growth)?;
        (!growth.is_nothing()).then(|| [Sequence::default(), growth.sequence()])
    }

    /// Of a server's service.
    fn mark_of(&self, id: ServerId) -> u32 {
        let service = self.services.server(id).map(|server| server.service);
        let key = service.and_then(|service| self.services.persistence(service));
        match key {
            Some((control::ServiceKey::Mark { mark, .. }, _)) => mark.get(),
            _ => 0,
        }
    }

    /// Tells some more of everything, if a backup asked for it: never more than the master has room for.
    pub(super) fn tell_round(&mut self, now: Instant) {
        let Some(feed) = &self.telling.feed else {
            return;
        };
        let (asked, room) = (feed.round(), feed.room());
        let round = &mut self.telling.round;
        if round.done && round.number != asked {
            *round = Round {
                number: asked,
                at: 0,
                done: false,
            };
        }
        if round.done || room <= ROUND_PART as usize {
            return;
        }
        let (from, connections) = (round.at, self.conns.fresh());
        let lines = if self.steer.me() == 0 {
            self.templates.lines()
        } else {
            0
        };
        let end = connections.saturating_add(lines);
        let to = end.min(from.saturating_add(ROUND_PART));
        for at in from..to {
            match at.checked_sub(connections) {
                None => self.tell_in_round(now, at),
                Some(line) => {
                    let template = self.templates.at(line, now);
                    if let Some(template) = template {
                        self.tell_template_now(now, line, template.tie.server);
                    }
                }
            }
        }
        let round = &mut self.telling.round;
        round.at = to;
        if to == end {
            round.done = true;
            let number = round.number;
            self.push(now, News::Round(number));
        }
    }

    fn tell_in_round(&mut self, now: Instant, entry: u32) {
        let conn = self.conns.at(entry).copied();
        let Some(conn) = conn.filter(|conn| !conn.expired(now)) else {
            return;
        };
        let rules = Rules::of(&self.settings);
        let is_persistent = self.conns.template(entry).is_some();
        if rules.may_tell(conn.state(), is_persistent) {
            let end = conn.last_seen().plus_ms(conn.timeout_ms());
            let told = Told {
                state: conn.state(),
                end,
                repeats: 0,
            };
            self.tell_connection(now, entry, &conn, told);
        }
    }
}

/// On the wire, and whether servers answer without us. FULLNAT has no number of LVS's: its local
/// address tells it from NAT.
fn method(mode: ForwardMode) -> (u32, bool) {
    match mode {
        ForwardMode::Nat | ForwardMode::FullNat => (flags::NAT, false),
        ForwardMode::Tunnel => (flags::TUNNEL, true),
        ForwardMode::Direct => (flags::DIRECT, true),
    }
}

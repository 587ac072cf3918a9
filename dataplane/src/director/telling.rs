//! What backups are told of this worker's connections, and when: `crate::sync::rules`.

use std::io;
use std::net::SocketAddr;

use control::ForwardMode;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Director;
use crate::conn::{Conn, Conns, Hit, State};
use crate::mem::Array;
use crate::packet::PacketBuf;
use crate::sync::message::{Entry, Sequence, flags};
use crate::sync::news::{Feed, News, TemplateNews};
use crate::sync::rules::{Rules, Subject, Told};
use crate::time::Instant;
use crate::update::ServerId;

/// A template is told no oftener than so, whatever its clients do: LVS tells it with each packet.
const TEMPLATE_MS: u32 = 1000;
/// Connections that are told in a millisecond of a round, and lines of templates that are looked at: most
/// are free.
const ROUND_PART: u32 = 128;
const ROUND_LINES: u32 = 1024;

/// What was told so far.
#[derive(Debug)]
pub(super) struct Telling {
    feed: Feed,
    /// By connection.
    told: Array<Line>,
    /// By template: one more than when it was told last, in milliseconds; 0 is never.
    templates: Array<u32>,
    /// The last round of everything that was begun.
    round: u32,
    /// The connection or template that is next in it; `None` when it is over.
    at: Option<u32>,
}

/// [`Told`] as it lies in memory; all zero is nothing told.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy)]
#[repr(C)]
struct Line {
    end: u32,
    state: u8,
    repeats: u8,
    _pad: [u8; 2],
}

impl From<Line> for Told {
    fn from(line: Line) -> Self {
        Self {
            state: State::by_number(line.state),
            end: Instant(line.end),
            repeats: line.repeats,
        }
    }
}

impl From<Told> for Line {
    fn from(told: Told) -> Self {
        Self {
            end: told.end.0,
            state: told.state as u8,
            repeats: told.repeats,
            _pad: [0; 2],
        }
    }
}

impl<P: PacketBuf> Director<P> {
    /// From now on backups are told by this feed, or not at all.
    pub fn tell_by(&mut self, feed: Option<Feed>) -> io::Result<()> {
        self.telling = None;
        if let Some(feed) = feed {
            self.telling = Some(Box::new(Telling {
                feed,
                told: Array::sparse(self.conns.capacity() as usize)?,
                templates: Array::sparse(self.templates.lines() as usize)?,
                round: 0,
                at: None,
            }));
        }
        Ok(())
    }

    /// After a packet from a connection's client: whether backups are to know.
    #[inline(always)]
    pub(super) fn tell_backups(&mut self, now: Instant, hit: Hit) {
        if self.telling.is_some() && !hit.outbound() {
            self.tell_of(now, hit.entry());
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_of(&mut self, now: Instant, entry: u32) {
        let (template, conn) = (self.conns.template(entry), self.conns.at(entry).copied());
        let Some(telling) = &mut self.telling else {
            return;
        };
        // A datagram that is scheduled by itself is nobody's business.
        let (Some(conn), Some(line)) = (conn, telling.told.get_mut(entry as usize)) else {
            return;
        };
        let packets = conn.packets()[0];
        if packets <= 1 {
            *line = Line::from(Told {
                state: State::before_all(Conns::protocol(&conn).number()),
                end: Instant(0),
                repeats: 0,
            });
        }
        let subject = Subject {
            state: conn.state(),
            is_template: false,
            is_persistent: template.is_some(),
            timeout_ms: conn.timeout_ms(),
            packets,
        };
        let due = Rules::of(&self.settings).due(now, subject, Told::from(*line));
        if let Some(told) = due {
            self.tell_connection(now, entry, &conn, told);
        }
        if let Some(number) = template {
            self.tell_template(now, number, conn.server());
        }
    }

    fn tell_connection(&mut self, now: Instant, entry: u32, conn: &Conn, told: Told) {
        let news = self.entry_of(entry, conn);
        if let (Some(news), Some(telling)) = (news, &mut self.telling) {
            telling.told[entry as usize] = told.into();
            self.push(now, News::Connection(news));
        }
    }

    /// A template, unless it was told just now.
    fn tell_template(&mut self, now: Instant, number: u32, id: ServerId) {
        let Some(telling) = &mut self.telling else {
            return;
        };
        let Some(last) = telling.templates.get_mut(number as usize) else {
            return;
        };
        let since = last.checked_sub(1).map(|ms| now.since(Instant(ms)));
        if since.is_none_or(|since| since >= TEMPLATE_MS) {
            *last = now.0.wrapping_add(1).max(1);
            self.tell_template_now(now, number, id);
        }
    }

    fn tell_template_now(&mut self, now: Instant, number: u32, id: ServerId) {
        let server = self.services.server(id).copied();
        let template = self.templates.at(number, now);
        if let (Some(server), Some(template)) = (server, template) {
            let news = TemplateNews {
                number,
                method: method(server.mode).0,
                server: SocketAddr::new(server.address.ip(), template.tie.server_port),
                mark: self.mark_of(id),
            };
            self.push(now, News::Template(news));
        }
    }

    fn push(&mut self, now: Instant, news: News) {
        if let Some(telling) = &mut self.telling
            && !telling.feed.tell(now, news)
        {
            self.page.sync.lost.add(1);
        }
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

    /// Tells some more of everything, if a backup asked for it and the master has room for it.
    pub(super) fn tell_round(&mut self, now: Instant) {
        let (connections, lines) = (self.conns.fresh(), self.templates.lines());
        let Some(telling) = &mut self.telling else {
            return;
        };
        let asked = telling.feed.round();
        if telling.at.is_none() && telling.round != asked {
            (telling.round, telling.at) = (asked, Some(0));
        }
        let Some(from) = telling.at else {
            return;
        };
        // One worker speaks of what all share.
        let lines = match self.steer.me() == 0 && self.templates.used() > 0 {
            true => lines,
            false => 0,
        };
        let part = if from < connections {
            ROUND_PART
        } else {
            ROUND_LINES
        };
        let end = connections.saturating_add(lines);
        let to = end.min(from.saturating_add(part));
        let round = telling.round;
        let mut at = from;
        while at < to && self.has_room_for_more() {
            match at.checked_sub(connections) {
                None => self.tell_in_round(now, at),
                Some(line) => {
                    if let Some(template) = self.templates.at(line, now) {
                        self.tell_template_now(now, line, template.tie.server);
                    }
                }
            }
            at += 1;
        }
        if let Some(telling) = &mut self.telling {
            telling.at = Some(at).filter(|at| *at < end);
        }
        if at >= end {
            self.push(now, News::Round(round));
        }
    }

    /// Whether news that can wait may be told: some room is for those that cannot.
    fn has_room_for_more(&self) -> bool {
        let telling = self.telling.as_ref();
        telling.is_some_and(|telling| telling.feed.room() > ROUND_PART as usize)
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

//! Connections as the control side lists them.

use std::net::SocketAddr;

use control::{Engine, Filter, ForwardMode, Protocol, Traits};

use super::Director;
use crate::conn::{Conn, Conns};
use crate::control::{Fate, SLICE_MAX, Wanted};
use crate::packet::{Egress, PacketBuf};
use crate::templates::{INVALID_PORT, Kind, Template};
use crate::time::Instant;

/// Table entries looked at for one slice of a connection listing, which packets wait for.
const LIST_SCAN: u32 = 1024;

impl<P: PacketBuf> Director<P> {
    /// A slice of the connections or templates, as they are, or were before they were ended; and where
    /// to go on.
    pub fn connections<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        wanted: &Wanted,
        out: &mut E,
    ) -> (Vec<control::Connection>, Option<u32>) {
        let entries = if wanted.templates {
            self.templates.lines()
        } else {
            self.conns.fresh()
        };
        let mut list = Vec::with_capacity(SLICE_MAX);
        let end = entries.min(wanted.from.saturating_add(LIST_SCAN));
        for entry in wanted.from..end {
            if list.len() == SLICE_MAX {
                return (list, Some(entry));
            }
            let chosen = if wanted.templates {
                self.chosen_template(now, entry, wanted)
            } else {
                self.chosen(now, entry, &wanted.filter)
            };
            let Some(chosen) = chosen else { continue };
            list.push(chosen);
            if let (Fate::Ends { reset }, false) = (wanted.fate, wanted.templates) {
                self.end(now, entry, reset, out);
            }
        }
        (list, Some(end).filter(|end| *end < entries))
    }

    /// Every connection at once: for tests, which have few.
    pub fn listed(&self, now: Instant) -> Vec<control::Connection> {
        let all = Filter::default();
        (0..self.conns.capacity())
            .filter_map(|entry| self.chosen(now, entry, &all))
            .collect()
    }

    /// As [`Self::listed`], of templates.
    pub fn listed_templates(&self, now: Instant) -> Vec<control::Connection> {
        (0..self.templates.lines())
            .filter_map(|line| self.templates.at(line, now))
            .filter_map(|template| self.shown_template(template))
            .collect()
    }

    fn end<E: Egress<Buf = P>>(&mut self, now: Instant, entry: u32, reset: bool, out: &mut E) {
        let has_numbers = |conn: &Conn| conn.state().has_numbers() && !conn.is_doomed();
        if reset && self.conns.at(entry).is_some_and(has_numbers) {
            self.doom(now, entry, out);
        } else {
            self.close(now, entry, None);
        }
    }

    fn chosen_template(
        &self,
        now: Instant,
        line: u32,
        wanted: &Wanted,
    ) -> Option<control::Connection> {
        let shown = |template: Template| {
            let shown = self.shown_template(template)?;
            let is_chosen = wanted.filter.chooses(&Traits {
                protocol: shown.protocol,
                client: shown.client,
                virtual_address: shown.virtual_address,
                server: shown.server,
                state: &shown.state,
                template: shown.template,
            });
            is_chosen.then_some(shown)
        };
        match wanted.fate {
            Fate::Stays => self.templates.at(line, now).and_then(shown),
            Fate::Ends { .. } => self.templates.end_if(line, now, shown),
        }
    }

    fn chosen(&self, now: Instant, entry: u32, filter: &Filter) -> Option<control::Connection> {
        let conn = self.conns.at(entry).filter(|conn| !conn.expired(now))?;
        let inbound = self.conns.tuple(entry, false);
        let is_chosen = filter.is_all()
            || filter.chooses(&Traits {
                protocol: Some(Conns::protocol(conn)),
                client: inbound.from,
                virtual_address: inbound.to,
                server: self.server_of(entry, conn),
                state: conn.state().name(),
                template: false,
            });
        is_chosen.then(|| self.shown(now, entry, conn))
    }

    /// As LVS shows it: an invalid template's ports are gone, an expected connection listens. One that
    /// came is listed as what it is now, and one that nobody awaits any more is nothing.
    fn shown_template(&self, template: Template) -> Option<control::Connection> {
        let server = self.services.server(template.tie.server)?;
        let mut virtual_address = template.virtual_address;
        let mut server_port = template.tie.server_port;
        let state = match (template.kind, template.invalid, template.assured) {
            (Kind::Expected, true, _) | (Kind::Probe, ..) => return None,
            (Kind::Expected, false, _) => "LISTEN",
            (_, _, true) => "ASSURED",
            (_, _, false) => "NONE",
        };
        if template.kind == Kind::Expected {
            virtual_address = self.awaited_at(&template, server.service)?;
        } else if template.invalid {
            virtual_address.set_port(INVALID_PORT);
            server_port = INVALID_PORT;
        }
        let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let engine = (template.kind == Kind::Engine).then(|| {
            let data = String::from_utf8_lossy(&template.engine);
            (Engine::Sip, data.into_owned())
        });
        Some(control::Connection {
            protocol: known
                .into_iter()
                .find(|protocol| protocol.number() == template.protocol),
            client: template.client,
            virtual_address,
            server: SocketAddr::new(server.address.ip(), server_port),
            local: None,
            state: state.to_owned(),
            expires_ms: template.expires_ms.into(),
            in_packets: template.in_packets,
            out_packets: 0,
            bytes: 0,
            template: template.kind != Kind::Expected,
            engine,
            worker: u16::try_from(self.steer.me()).unwrap_or(u16::MAX),
        })
    }

    pub(super) fn shown(&self, now: Instant, entry: u32, conn: &Conn) -> control::Connection {
        let inbound = self.conns.tuple(entry, false);
        let [in_packets, out_packets] = conn.packets();
        let life = conn.timeout_ms();
        let local = || self.conns.tuple(entry, true).to;
        control::Connection {
            protocol: Some(Conns::protocol(conn)),
            client: inbound.from,
            virtual_address: inbound.to,
            server: self.server_of(entry, conn),
            local: (conn.mode() == ForwardMode::FullNat).then(local),
            state: conn.state().name().to_owned(),
            expires_ms: u64::from(life - now.since(conn.last_seen()).min(life)),
            in_packets,
            out_packets,
            bytes: conn.bytes(),
            template: false,
            engine: None,
            worker: u16::try_from(self.steer.me()).unwrap_or(u16::MAX),
        }
    }

    /// Where a connection's packets go, as its listing shows it.
    fn server_of(&self, entry: u32, conn: &Conn) -> SocketAddr {
        let seen_by_server = self.conns.tuple(entry, true).from;
        match (conn.mode(), self.services.server(conn.server())) {
            (ForwardMode::Direct | ForwardMode::Tunnel, Some(server)) => {
                SocketAddr::new(server.address.ip(), seen_by_server.port())
            }
            _ => seen_by_server,
        }
    }
}

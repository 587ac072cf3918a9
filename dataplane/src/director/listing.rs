//! Connections as the control side lists them.

use std::net::SocketAddr;

use control::{Engine, ForwardMode, Protocol};

use super::Director;
use crate::conn::{Conn, Conns};
use crate::packet::PacketBuf;
use crate::templates::{INVALID_PORT, Kind, Template};
use crate::time::Instant;

/// Table entries looked at for one slice of a connection listing.
const LIST_SCAN: u32 = 16_384;

impl<P: PacketBuf> Director<P> {
    /// A slice of the connections: up to `limit` from table entry `from` on, and where to go on.
    pub fn connections(
        &self,
        now: Instant,
        from: u32,
        limit: usize,
    ) -> (Vec<control::Connection>, Option<u32>) {
        let mut list = Vec::new();
        let end = self.conns.capacity().min(from.saturating_add(LIST_SCAN));
        for entry in from..end {
            if list.len() == limit {
                return (list, Some(entry));
            }
            let conn = self.conns.at(entry).filter(|conn| !conn.expired(now));
            list.extend(conn.map(|conn| self.shown(now, entry, conn)));
        }
        (list, Some(end).filter(|end| *end < self.conns.capacity()))
    }

    /// A slice of the templates that all workers share: up to `limit` from line `from` on, and where
    /// to go on.
    pub fn listed_templates(
        &self,
        now: Instant,
        from: u32,
        limit: usize,
    ) -> (Vec<control::Connection>, Option<u32>) {
        let mut list = Vec::new();
        let lines = self.templates.lines();
        let end = lines.min(from.saturating_add(LIST_SCAN));
        for line in from..end {
            if list.len() == limit {
                return (list, Some(line));
            }
            let template = self.templates.at(line, now);
            list.extend(template.and_then(|template| self.shown_template(template)));
        }
        (list, Some(end).filter(|end| *end < lines))
    }

    /// As LVS shows it: an invalid template's ports are gone, an expected connection listens. One that
    /// came is listed as what it is now, and one that nobody awaits any more is nothing.
    fn shown_template(&self, template: Template) -> Option<control::Connection> {
        let server = self.services.server(template.tie.server)?;
        let mut virtual_address = template.virtual_address;
        let mut server_port = template.tie.server_port;
        let state = match (template.kind, template.invalid, template.assured) {
            (Kind::Expected, true, _) => return None,
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

//! Connections as the control side lists them.

use std::net::SocketAddr;

use control::ForwardMode;

use super::Director;
use crate::conn::{Conn, Conns};
use crate::packet::PacketBuf;
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

    fn shown(&self, now: Instant, entry: u32, conn: &Conn) -> control::Connection {
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

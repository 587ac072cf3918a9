//! One-packet scheduling (`-o`): each datagram is scheduled by itself, and no connection stays.
//!
//! A datagram goes to its server by a connection that is not in the table ([`Conns::alone`]). What a
//! NAT server answers is told by the address and port that it comes from, see [`crate::answers`].
//!
//! [`Conns::alone`]: crate::conn::Conns::alone

use std::net::IpAddr;
use std::sync::Arc;

use control::ForwardMode;

use super::Director;
use super::decide::Denied;
use super::persist::Choice;
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::fragments::piece;
use crate::packet::PacketBuf;
use crate::service::{Picked, Server};
use crate::time::Instant;
use crate::update::{SERVERS_MAX, ServerId};
use crate::wire::flow::{Kind, Seen, Tuple, UDP};

/// The server of packets that are counted for none.
const NOBODY: ServerId = ServerId(SERVERS_MAX);

impl<P: PacketBuf> Director<P> {
    /// A connection for one datagram: it begins, counts, and has ended when this returns.
    pub(super) fn open_alone(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        choice: Choice,
    ) -> Result<Hit, DropReason> {
        let (id, server) = self.spend(choice);
        let hit = self.toward(now, inbound, id, server)?;
        self.count_alone(id);
        Ok(hit)
    }

    pub(super) fn count_alone(&mut self, id: ServerId) {
        let page = Arc::clone(&self.page);
        let server = &page.servers[id.index()];
        server.conns.add(1);
        server.inactive.up();
        self.services.opened(id);
        server.inactive.down();
        self.services.counted(id);
    }

    /// Notes where the first fragment of a datagram goes that has no connection.
    pub(super) fn note_choice(&mut self, seen: &Seen, hit: Hit, frame: &[u8]) {
        if seen.kind == Kind::FirstFragment
            && self.conns.is_alone(hit)
            && let Ok(piece) = piece(frame, usize::from(seen.l3))
        {
            let server = self.conns.get(hit).server();
            self.fragments.choose(&piece.key, server);
        }
    }

    /// The way of a datagram's later fragments, to the server of its first.
    pub(super) fn alone_again(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        id: ServerId,
    ) -> Result<Hit, Denied> {
        let server = self.services.server(id).copied();
        let server = server.ok_or(DropReason::ServerGone)?;
        let denied = |reason| Denied(reason, Some(server.service));
        if !server.available {
            return Err(denied(DropReason::ServerGone));
        }
        self.toward(now, inbound, id, server).map_err(denied)
    }

    /// The way that a datagram went into the tunnel to this server, if it went alone.
    pub(super) fn wrapped_alone(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        server: IpAddr,
    ) -> Option<Hit> {
        let (id, server) = self.services.one_packet_server(inbound, server)?;
        self.toward(now, inbound, id, server).ok()
    }

    /// The way of one packet to a server.
    pub(super) fn toward(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        id: ServerId,
        server: Server,
    ) -> Result<Hit, DropReason> {
        // The answer could not be told from those to others; no service is set up so.
        if server.mode == ForwardMode::FullNat {
            return Err(DropReason::NoLocalPort);
        }
        let picked = Picked {
            id,
            address: server.address,
            mode: server.mode,
        };
        let (outbound, _) = self.way_back(now, inbound, server.service, &picked)?;
        let sides = [inbound, &outbound];
        Ok(self
            .conns
            .alone(now, sides, id, server.mode, &self.timeouts))
    }

    /// The way back of what a server sends that answers single datagrams.
    pub(super) fn answer_alone(&mut self, now: Instant, outbound: &Tuple) -> Option<Hit> {
        if outbound.protocol != UDP {
            return None;
        }
        let answerer = self.services.answers().from(outbound.from)?;
        if !answerer.one_packet {
            return None;
        }
        let (id, mode, to) = match self.settings.one_packet_replies_untranslated {
            false => {
                let from = answerer.source(outbound.from);
                (answerer.server, ForwardMode::Nat, from)
            }
            true => (NOBODY, ForwardMode::Direct, outbound.from),
        };
        let inbound = Tuple {
            protocol: UDP,
            from: outbound.to,
            to,
        };
        let sides = [&inbound, outbound];
        let hit = self.conns.alone(now, sides, id, mode, &self.timeouts);
        Some(Hit::new(hit.entry(), true))
    }
}

//! One-packet scheduling (`-o`): each datagram is scheduled by itself, and no connection stays.
//!
//! A datagram goes to its server by a connection that is not in the table ([`Conns::alone`]). What a
//! NAT server answers is told by the address and port that it comes from, see [`crate::answers`].
//!
//! [`Conns::alone`]: crate::conn::Conns::alone

use std::net::IpAddr;

use control::ForwardMode;

use super::Director;
use super::decide::{Denied, Verdict};
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::fragments::piece;
use crate::packet::{Egress, PacketBuf};
use crate::service::Server;
use crate::time::Instant;
use crate::update::{SERVERS_MAX, ServerId};
use crate::wire::flow::{Kind, Seen, Tuple, UDP};

/// The server of packets that are counted for none.
const NOBODY: ServerId = ServerId(SERVERS_MAX);

impl<P: PacketBuf> Director<P> {
    /// Sends a datagram to the server that was picked for it alone.
    pub(super) fn send_alone<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        (id, server): (ServerId, Server),
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let hit = self
            .open_alone(now, tuple, id, server)
            .map_err(|reason| Denied(reason, Some(server.service)))?;
        if seen.kind == Kind::FirstFragment
            && let Ok(piece) = piece(packet.bytes(), usize::from(seen.l3))
        {
            self.fragments.choose(&piece.key, id);
        }
        self.connected(now, seen, hit, packet, out)
    }

    /// A connection for one datagram: it begins, counts, and has ended when this returns.
    pub(super) fn open_alone(
        &mut self,
        now: Instant,
        inbound: &Tuple,
        id: ServerId,
        server: Server,
    ) -> Result<Hit, DropReason> {
        let hit = self.toward(now, inbound, id, server)?;
        let page = &self.page.servers[id.index()];
        page.conns.add(1);
        page.inactive.up();
        self.services.opened(id);
        self.page.servers[id.index()].inactive.down();
        Ok(hit)
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

    fn toward(
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
        let (outbound, _) = self.way_back(now, inbound, server.service, server)?;
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
        let (id, mode, to) = match self.settings.one_packet_replies_untranslated {
            false => {
                let from = answerer.virtual_address(outbound.from);
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

//! Fragments: they go where their datagram's first one goes, unassembled.
//!
//! All fragments of a datagram meet at one worker, chosen by what every one of them says. It learns
//! from the first whose connection they belong to and sends them on to that worker, the first one
//! first, so that it too knows what the later ones are.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Director;
use super::decide::{Denied, Verdict};
use crate::counters::{DropReason, Page};
use crate::fragments::{Fate, piece};
use crate::net::HopId;
use crate::packet::{Egress, Origin, PacketBuf, PortId};
use crate::split;
use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::{Kind, SCTP, Seen, TCP, Tuple, UDP};

impl<P: PacketBuf> Director<P> {
    /// The worker at which the fragments of a datagram meet.
    pub(super) fn meeting_point(&self, seen: &Seen, frame: &[u8]) -> usize {
        match piece(frame, usize::from(seen.l3)) {
            // The low half of the id stands for the port.
            #[expect(clippy::cast_possible_truncation, reason = "any 16 bits will do")]
            Ok(piece) => self
                .steer
                .home(SocketAddr::new(piece.key.from, piece.key.id as u16)),
            Err(_) => self.steer.me(),
        }
    }

    /// Takes in one fragment; counts its end, and that of those which waited for it.
    pub(super) fn fragment<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        seen: &Seen,
        packet: P,
        out: &mut E,
    ) {
        let page = Arc::clone(&self.page);
        if !matches!(seen.flow.protocol, TCP | UDP | SCTP) {
            return self.punt(now, from, DropReason::Fragment, packet, out);
        }
        let piece = match piece(packet.bytes(), usize::from(seen.l3)) {
            Ok(piece) => piece,
            Err(reason) => return out.watch().discard(from, reason, packet),
        };
        if seen.kind == Kind::Fragment {
            let chosen = self.fragments.chosen(&piece.key);
            let give_up = give_up(&page, out);
            return match self.fragments.later(now, &piece, packet, from, give_up) {
                Fate::Known(packet, tuple, home) => {
                    self.follow(now, from, &tuple, usize::from(home), chosen, packet, out);
                }
                Fate::Held => match self.fragments.last_held(&piece.key) {
                    Some(packet) => out.watch().held(from, packet),
                    None => page.held.up(),
                },
                Fate::Dropped(packet, reason) => self.unwanted(now, from, reason, packet, out),
            };
        }
        let tuple = seen.tuple(packet.bytes());
        let home = self.home(from, seen, &tuple);
        let number = u16::try_from(home).unwrap_or(u16::MAX);
        let noted = (self.fragments).first(now, &piece, tuple, number, give_up(&page, out));
        if let Err(reason) = noted {
            return out.watch().discard(from, reason, packet);
        }
        if let Some(reason) = self.follow(now, from, &tuple, home, None, packet, out) {
            self.fragments
                .refuse(now, &piece, reason, give_up(&page, out));
        }
        let chosen = self.fragments.chosen(&piece.key);
        while let Some((from, packet)) = self.fragments.release(&piece.key) {
            page.held.down();
            self.follow(now, from, &tuple, home, chosen, packet, out);
        }
    }

    /// Sends a fragment of a known datagram to its worker, or on its way here; why not, if not.
    /// `chosen` is where its first one went, if that had no connection.
    #[expect(
        clippy::too_many_arguments,
        reason = "a packet and all that is known of it"
    )]
    fn follow<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        tuple: &Tuple,
        home: usize,
        chosen: Option<ServerId>,
        mut packet: P,
        out: &mut E,
    ) -> Option<DropReason> {
        let mut seen = match Seen::parse(packet.bytes()) {
            Ok(seen) => seen,
            Err(reason) => {
                out.watch().discard(from, reason, packet);
                return Some(reason);
            }
        };
        self.conns.digest(&mut seen, packet.bytes());
        if home != self.steer.me() {
            out.steer(home, from, None, packet);
            return None;
        }
        let verdict = if seen.kind == Kind::FirstFragment {
            let found = self.conns.lookup(&seen, packet.bytes());
            let known = found.and_then(|hit| self.known(now, &seen, hit, packet.bytes()));
            self.with_ports(now, from, &seen, known, &mut packet, out)
        } else {
            self.later_fragment(now, &seen, tuple, chosen, &mut packet, out)
        };
        let dropped = verdict.as_ref().err().map(|Denied(reason, _)| *reason);
        self.conclude(now, from, &seen, packet, verdict, out);
        dropped
    }

    fn later_fragment<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        chosen: Option<ServerId>,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let hit = match chosen {
            Some(server) => Some(self.alone_again(now, tuple, server)?),
            None => {
                let known = self.conns.find(tuple);
                known
                    .filter(|hit| !self.conns.get(*hit).is_doomed())
                    .or_else(|| self.answer_alone(now, tuple))
            }
        };
        let hit = hit.ok_or(DropReason::NotOurs)?;
        self.connected(now, seen, hit, packet, out)
    }

    /// Drops fragments whose first one did not come in time.
    pub(super) fn forget_fragments<E: Egress<Buf = P>>(&mut self, now: Instant, out: &mut E) {
        self.fragments.tick(now, give_up(&self.page, out));
    }

    pub(super) fn drop_fragments<E: Egress<Buf = P>>(&mut self, out: &mut E) {
        self.fragments.stop(give_up(&self.page, out));
    }

    /// As [`Director::leave`], for a packet that may be longer than its hop takes: it is cut.
    pub(super) fn leave_fitting<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        hop: HopId,
        packet: P,
        l3: usize,
        origin: Origin,
        out: &mut E,
    ) {
        let mtu = self.net.hop(hop).mtu;
        let ip = &packet.bytes()[l3..];
        let len = u16::from_be_bytes([ip[2], ip[3]]);
        if ip[0] >> 4 != 4 || len <= mtu {
            return self.leave(now, hop, packet, l3, origin, out);
        }
        self.cut(origin.port, packet, l3, mtu, out, |this, piece, out| {
            this.leave(now, hop, piece, l3, origin, out);
        });
    }

    /// Cuts the IPv4 packet at `l3` into fragments and gives each to `each`; all of them or none.
    pub(super) fn cut<E: Egress<Buf = P>>(
        &mut self,
        from: PortId,
        mut packet: P,
        l3: usize,
        mtu: u16,
        out: &mut E,
        mut each: impl FnMut(&mut Self, P, &mut E),
    ) {
        if packet.bytes()[l3 + 4..l3 + 6] == [0, 0] {
            let id = self.next_ip_id();
            split::set_id(&mut packet.bytes_mut()[l3..], id);
        }
        let pieces = match split::split(packet.bytes(), l3, mtu, out) {
            Ok(pieces) => pieces,
            Err(reason) => return out.watch().discard(from, reason, packet),
        };
        out.watch().consumed(from, &packet);
        self.page.port(from).made.add(pieces.len() as u64);
        for piece in pieces {
            each(self, piece, out);
        }
    }
}

/// Ends fragments that waited in vain.
fn give_up<E: Egress>(page: &Page, out: &mut E) -> impl FnMut(PortId, E::Buf, DropReason) {
    |port, packet, reason| {
        page.held.down();
        out.watch().discard(port, reason, packet);
    }
}

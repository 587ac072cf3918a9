//! Whether a packet still belongs to the connection of its addresses and ports: connections end by
//! time, with their server, and when their client begins anew (`spec/connections.md` §2.5, §2.6).

use control::OnServerGone;

use super::Director;
use super::decide::sequence_number;
use crate::conn::{Conn, Hit, State};
use crate::packet::PacketBuf;
use crate::time::Instant;
use crate::wire::flow::{SCTP, Seen, TCP, tcp_flags};
use crate::wire::sctp;

/// `conn_reuse_mode`: a connection in FIN_WAIT whose server answers without us may be over too.
const REUSE_FIN_WAIT: u8 = 2;

/// What becomes of the connection whose addresses and ports a packet has.
enum Course {
    /// It goes on.
    On,
    /// It ended, and the packet may begin another. Its server may expect that to be numbered beyond
    /// this.
    Over(Option<u32>),
    /// It ends with this packet, see [`Director::reset_both`].
    Cut,
}

impl<P: PacketBuf> Director<P> {
    /// The connection that was found for a packet, unless it ended or the packet begins another.
    pub(super) fn known(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        frame: &[u8],
    ) -> Option<Hit> {
        match self.course(now, seen, hit, frame) {
            Course::On => Some(hit),
            Course::Over(remembered) => {
                self.close(now, hit.entry(), remembered);
                None
            }
            Course::Cut => {
                self.conns.get(hit).doom();
                Some(hit)
            }
        }
    }

    fn course(&mut self, now: Instant, seen: &Seen, hit: Hit, frame: &[u8]) -> Course {
        let conn = *self.conns.get(hit);
        let begins = !hit.outbound() && seen.begins();
        let is_reused = begins && self.may_be_reused(&conn);
        // The server of a client that begins anew may remember what went before, which ended below
        // the client's new numbers.
        let remembered =
            (is_reused && seen.flow.protocol == TCP).then(|| sequence_number(seen, frame));
        if conn.expired(now) && !self.outlives(now, hit.entry()) {
            return match !begins && self.resets_on_expiry(hit.entry()) {
                true => Course::Cut,
                false => Course::Over(remembered),
            };
        }
        if conn.is_doomed() {
            return match begins {
                true => Course::Over(remembered),
                false => Course::On,
            };
        }
        if is_reused {
            return match self.asks_again(hit, sequence_number(seen, frame)) {
                true => Course::On,
                false => Course::Over(remembered),
            };
        }
        if hit.outbound() {
            return Course::On;
        }
        self.without_server(seen, hit)
    }

    /// Whether a packet that begins a connection ends this one.
    fn may_be_reused(&self, conn: &Conn) -> bool {
        let mode = self.settings.conn_reuse_mode;
        if self.settings.expire_nodest_conn && self.services.is_quiesced(conn.server()) {
            return true;
        }
        mode != 0
            && !conn.is_controlled()
            && match conn.state() {
                State::TimeWait | State::Close | State::SctpClosed => true,
                State::FinWait => mode & REUSE_FIN_WAIT != 0 && conn.is_one_way(),
                _ => false,
            }
    }

    /// What a client's packet makes of a connection whose server may be gone.
    fn without_server(&mut self, seen: &Seen, hit: Hit) -> Course {
        let server = self.services.server(self.conns.get(hit).server());
        if server.is_some_and(|server| server.available) {
            return Course::On;
        }
        if self.settings.expire_nodest_conn {
            return Course::Over(None);
        }
        let options = server.map(|server| self.services.options(server.service));
        match options.unwrap_or_default().on_server_gone {
            OnServerGone::Drop => Course::On,
            OnServerGone::Reschedule if self.may_open(seen) => Course::Over(None),
            OnServerGone::Reset | OnServerGone::Reschedule => Course::Cut,
        }
    }

    /// Whether a packet may open a connection (`spec/connections.md` §3).
    pub(super) fn may_open(&self, seen: &Seen) -> bool {
        match seen.flow.protocol {
            TCP => {
                let flags = seen.tcp_flags & (tcp_flags::SYN | tcp_flags::RST);
                flags == tcp_flags::SYN || flags == 0 && self.settings.sloppy_tcp
            }
            SCTP => {
                seen.chunk == sctp::chunk::INIT
                    || seen.chunk != sctp::chunk::ABORT && self.settings.sloppy_sctp
            }
            _ => true,
        }
    }
}

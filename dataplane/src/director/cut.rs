//! Connections that are ended from here: those of a server that is withdrawn, and those whose ends
//! are told when they expire.
//!
//! A reset counts only if its number is what its receiver expects next (RFC 5961 §3), and we keep no
//! numbers. So a connection that is to be reset is *doomed*: it stays for as long as one in CLOSE, and
//! both ends are asked by a bare ACK whose numbers are wrong. Whoever still has the connection answers
//! with the right ones (RFC 9293 §3.10.7.4). This segment, like every other one of a doomed
//! connection, is answered by a reset with the number that it acknowledged, and goes on as a reset
//! with its own. An end that lost a segment just then may not take the latter; its next segment is
//! answered. Servers that answer past us, by direct routing and tunnels, are not asked themselves.

use control::OnServerGone;
use hashbrown::HashMap;

use super::Director;
use super::decide::{Denied, Verdict};
use crate::conn::{Hit, State};
use crate::counters::DropReason;
use crate::icmp;
use crate::packet::{Egress, PacketBuf};
use crate::time::Instant;
use crate::update::{ServerId, Update};
use crate::wire::flow::{Seen, TCP};

/// Connections looked at per call of [`Director::tick`] while a server's are being ended.
const LOOKS_MAX: u32 = 2048;
/// Connections ended per call of it.
const ENDS_MAX: u32 = 128;

/// Servers whose connections are being ended: one walk over the table for all of them.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// Whether the ends of their connections are told.
    servers: HashMap<ServerId, bool>,
    /// So are those of every other server that is not in its service, in silence.
    withdrawn: bool,
    /// The entry to look at next.
    cursor: u32,
    /// Entries still to look at.
    left: u32,
}

impl Cuts {
    fn add(&mut self, id: ServerId, reset: bool, entries: u32) {
        self.servers.insert(id, reset);
        self.left = entries;
    }

    fn add_withdrawn(&mut self, entries: u32) {
        self.withdrawn = true;
        self.left = entries;
    }

    fn remove(&mut self, id: ServerId) {
        self.servers.remove(&id);
    }

    /// The next entry to look at, out of so many.
    fn next(&mut self, entries: u32) -> Option<u32> {
        if self.left == 0 || self.servers.is_empty() && !self.withdrawn {
            self.servers.clear();
            (self.withdrawn, self.left) = (false, 0);
            return None;
        }
        self.left -= 1;
        let entry = self.cursor;
        self.cursor = if entry + 1 < entries { entry + 1 } else { 0 };
        Some(entry)
    }
}

impl<P: PacketBuf> Director<P> {
    /// Begins to end the connections of servers that are withdrawn, or stops when one comes back.
    /// To be called before the update is applied.
    pub(super) fn note_cuts(&mut self, update: &Update) {
        match *update {
            Update::CutServer { id, reset } => self.cuts.add(id, reset, self.conns.fresh()),
            Update::AddServer { id, .. } | Update::ForgetServer { id } => self.cuts.remove(id),
            // As in LVS, whatever else a service says.
            Update::DeleteServer { .. } | Update::DeleteService { .. }
                if self.settings.expire_nodest_conn =>
            {
                self.cuts.add_withdrawn(self.conns.fresh());
                self.templates.purge(&mut self.sweep);
            }
            Update::DeleteServer { .. } | Update::DeleteService { .. } => {
                for id in self.services.leaving(update) {
                    if self.ends_with_server(id) {
                        self.cuts.add(id, true, self.conns.fresh());
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the connections of a server end, by its service's options, when it is deleted.
    fn ends_with_server(&self, id: ServerId) -> bool {
        let Some(server) = self.services.server(id) else {
            return false;
        };
        match self.services.options(server.service).on_server_gone {
            OnServerGone::Drop => false,
            OnServerGone::Reset | OnServerGone::Reschedule => true,
        }
    }

    /// Whether the connections of a server are being ended, and whether that is told.
    fn is_cut(&self, id: ServerId) -> Option<bool> {
        let is_withdrawn = || {
            let server = self.services.server(id);
            self.cuts.withdrawn && server.is_none_or(|server| !server.available)
        };
        let named = self.cuts.servers.get(&id).copied();
        named.or_else(|| is_withdrawn().then_some(false))
    }

    /// Ends some of the connections that are to be ended.
    pub(super) fn cut_some<E: Egress<Buf = P>>(&mut self, now: Instant, out: &mut E) {
        let (mut looks, mut ends) = (LOOKS_MAX, ENDS_MAX);
        while looks > 0
            && ends > 0
            && let Some(entry) = self.cuts.next(self.conns.fresh())
        {
            looks -= 1;
            let Some(conn) = self.conns.at(entry).filter(|conn| !conn.is_doomed()) else {
                continue;
            };
            let Some(reset) = self.is_cut(conn.server()) else {
                continue;
            };
            ends -= 1;
            if reset && conn.state().has_numbers() {
                self.doom(now, entry, out);
            } else {
                self.close(now, entry, None);
            }
        }
    }

    /// Whether both ends of an expired connection are to be told.
    pub(super) fn resets_on_expiry(&self, entry: u32) -> bool {
        let Some(conn) = self.conns.at(entry) else {
            return false;
        };
        // Few end so: the server of all others is not looked at.
        let established = (conn.state() == State::Established).then(|| conn.server());
        let server = established.and_then(|id| self.services.server(id));
        server.is_some_and(|server| self.services.options(server.service).reset_on_expiry)
    }

    /// Ends a TCP connection as soon as its ends can be told.
    pub(super) fn doom<E: Egress<Buf = P>>(&mut self, now: Instant, entry: u32, out: &mut E) {
        let hit = Hit::new(entry, false);
        self.conns.get(hit).touch(now);
        self.change_state(now, hit, State::Close);
        let conn = self.conns.get(hit);
        conn.doom();
        let sides = if conn.is_mirrored() { 1 } else { 2 };
        for outbound in [false, true].into_iter().take(sides) {
            let tuple = self.conns.tuple(entry, outbound);
            if let Some(probe) = icmp::tcp_probe(tuple.to, tuple.from) {
                self.send_answer(now, &probe, out);
            }
        }
    }

    /// A packet of a connection that is ended: its sender is told, and it goes on as a reset.
    pub(super) fn reset_both<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        out: &mut E,
    ) -> Result<Verdict, Denied> {
        let serving = self.serving(hit);
        let denied = |reason| Denied(reason, serving.1);
        if seen.flow.protocol != TCP {
            self.close(now, hit.entry(), None);
            return Err(denied(DropReason::ConnectionCut));
        }
        let (l3, end) = (usize::from(seen.l3), usize::from(seen.ip_len));
        // No more of these than there are packets, and of real connections only: not limited.
        if let Some(answer) = icmp::tcp_reset(seen.packet(packet.bytes())) {
            self.send_answer(now, &answer, out);
        }
        let ip = &mut packet.bytes_mut()[l3..l3 + end];
        let len = icmp::become_reset(ip).ok_or(denied(DropReason::ConnectionCut))?;
        if !packet.resize(l3 + len) {
            return Err(denied(DropReason::ConnectionCut));
        }
        let mut seen = Seen::parse(packet.bytes()).map_err(denied)?;
        self.conns.digest(&mut seen, packet.bytes());
        let verdict = self.carry_on(now, &seen, hit, serving, packet, out);
        self.conns.get(hit).doom();
        verdict
    }
}

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

    fn remove(&mut self, id: ServerId) {
        self.servers.remove(&id);
    }

    /// The next entry to look at, out of so many.
    fn next(&mut self, entries: u32) -> Option<u32> {
        if self.left == 0 || self.servers.is_empty() {
            self.servers.clear();
            self.left = 0;
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
            Update::DeleteServer { .. } | Update::DeleteService { .. } => {
                for id in self.services.leaving(update) {
                    if let Some(reset) = self.ends_with_server(id) {
                        self.cuts.add(id, reset, self.conns.fresh());
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether the connections of a server end when it is deleted, and whether that is told.
    fn ends_with_server(&self, id: ServerId) -> Option<bool> {
        if self.settings.expire_nodest_conn {
            return Some(false);
        }
        let service = self.services.server(id)?.service;
        match self.services.options(service).on_server_gone {
            OnServerGone::Drop => None,
            OnServerGone::Reset | OnServerGone::Reschedule => Some(true),
        }
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
            let Some(reset) = self.cuts.servers.get(&conn.server()).copied() else {
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
        let server = self.services.server(conn.server());
        conn.state() == State::Established
            && server.is_some_and(|server| self.services.options(server.service).reset_on_expiry)
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

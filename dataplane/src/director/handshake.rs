//! How long servers take to answer a SYN, where their answers come through the director.

use control::ForwardMode;

use super::Director;
use crate::conn::Hit;
use crate::packet::PacketBuf;
use crate::wire::flow::{Seen, TCP, tcp_flags};

/// SYNs without an answer yet that are timed at once; of two whose connections share a place the
/// later one is.
const STAMPS_MAX: u32 = 32_768;

/// When a connection's SYN came.
#[derive(Debug, Clone, Copy, Default)]
struct Stamp {
    /// One more than its entry; 0 for none.
    conn: u32,
    us: u32,
}

/// SYNs that servers have not answered yet, in a table of their own: a connection's line has no room.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// By the low bits of a connection's entry.
    stamps: Box<[Stamp]>,
    /// Microseconds since the start; they wrap.
    now_us: u32,
}

impl Handshakes {
    pub(super) fn new(connections_max: u32) -> Self {
        let len = connections_max.next_power_of_two().min(STAMPS_MAX);
        Self {
            stamps: vec![Stamp::default(); len as usize].into(),
            now_us: 0,
        }
    }

    fn place(&mut self, entry: u32) -> &mut Stamp {
        let mask = self.stamps.len() - 1;
        &mut self.stamps[entry as usize & mask]
    }

    #[inline]
    pub(super) fn asked(&mut self, entry: u32) {
        let us = self.now_us;
        *self.place(entry) = Stamp {
            conn: entry + 1,
            us,
        };
    }

    /// Microseconds since this connection's SYN came, once.
    pub(super) fn answered(&mut self, entry: u32) -> Option<u32> {
        let stamp = self.place(entry);
        if stamp.conn != entry + 1 {
            return None;
        }
        stamp.conn = 0;
        let since = stamp.us;
        Some(self.now_us.wrapping_sub(since))
    }
}

impl<P: PacketBuf> Director<P> {
    /// What follows happens at this time, which is only for measuring: microseconds since the start.
    #[inline]
    pub fn set_microseconds(&mut self, us: u32) {
        self.handshakes.now_us = us;
    }

    /// Times the way from a connection's first SYN to its server's first SYN/ACK, so that a SYN which
    /// was lost or ignored counts. Such packets never take the fast path.
    pub(super) fn time_handshake(&mut self, seen: &Seen, hit: Hit) {
        let conn = self.conns.get(hit);
        let passes_here = matches!(conn.mode(), ForwardMode::Nat | ForwardMode::FullNat);
        if seen.flow.protocol != TCP || !passes_here {
            return;
        }
        let (first, server) = (conn.packets()[0] == 1, conn.server());
        match (hit.outbound(), seen.tcp_flags & tcp_flags::ACK != 0) {
            (false, false) if first => self.handshakes.asked(hit.entry()),
            (true, true) => {
                let Some(us) = self.handshakes.answered(hit.entry()) else {
                    return;
                };
                let server = &self.page.servers[server.index()];
                server.answers.add(1);
                server.answers_us.add(u64::from(us));
                self.page.pace.handshakes.record(u64::from(us) * 1000, 1);
            }
            _ => {}
        }
    }
}

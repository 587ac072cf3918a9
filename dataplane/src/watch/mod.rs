//! What is shown of packets that one worker handles: its last drops, always.

pub mod drops; // the last ones

use std::sync::Arc;

use crate::counters::{DropReason, Page};
use crate::packet::{PacketBuf, PortId};
use drops::Recent;

/// Where packets end that do not leave: counted, and kept to be shown.
#[derive(Debug)]
pub struct Watch {
    page: Arc<Page>,
    now_ns: u64,
    recent: Recent,
}

impl Watch {
    /// Counts in `page`, the director's own.
    pub fn new(page: Arc<Page>) -> Self {
        Self {
            page,
            now_ns: 0,
            recent: Recent::default(),
        }
    }

    pub fn page(&self) -> &Page {
        &self.page
    }

    /// What time it is from now on: nanoseconds since the daemon started.
    #[inline]
    pub fn set_time(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Ends a packet that was received on `from`, or made for it.
    #[cold]
    #[inline(never)]
    pub fn discard<P: PacketBuf>(&mut self, from: PortId, reason: DropReason, packet: P) {
        let frame = packet.bytes();
        self.dropped(from, reason, frame, frame.len());
    }

    /// Ends a frame of `len` bytes of which `frame` is the beginning.
    pub fn dropped(&mut self, from: PortId, reason: DropReason, frame: &[u8], len: usize) {
        self.page.count_drop(from, reason);
        self.recent.note(self.now_ns, from, reason, frame, len);
    }

    /// Receives and ends a frame in pieces: `first` is what is in the first buffer.
    pub fn scattered(&mut self, from: PortId, first: &[u8], len: usize) {
        let port = self.page.port(from);
        port.rx.add(1);
        port.rx_bytes.add(len as u64);
        self.dropped(from, DropReason::Scattered, first, len);
    }

    /// Counts a packet that the director took in.
    pub fn consumed<P: PacketBuf>(&mut self, from: PortId, _packet: &P) {
        self.page.port(from).consumed.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_pieces_balance() {
        let mut watch = Watch::new(Arc::new(Page::new(1, 1)));
        watch.set_time(7);
        for len in [5000, 4000] {
            watch.scattered(PortId(1), &[0xa5; 2048], len);
        }
        let port = watch.page().port(PortId(1));
        assert_eq!((port.rx.get(), port.rx_bytes.get()), (2, 9000));
        assert_eq!(port.drops[DropReason::Scattered as usize].get(), 2);
        assert!(watch.page().balanced());
        let last = watch.recent().since(1).next().unwrap();
        assert_eq!((last.at_ns, last.len, last.port), (7, 4000, PortId(1)));
        assert_eq!(last.bytes(), [0xa5; drops::DROP_BYTES]);
    }
}

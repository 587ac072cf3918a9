//! What is shown of packets that one worker handles: its last drops, always, and captures while
//! somebody takes one.

pub mod drops; // the last ones
pub mod tap; // captures

use std::sync::Arc;

use arrayvec::ArrayVec;
use control::Stage;

use crate::counters::{DropReason, Page};
use crate::packet::{Exit, Origin, PacketBuf, PortId};
use crate::update::ServiceId;
use drops::Recent;
use tap::{CAPTURES_MAX, Event, Fate, Note, Tap};

/// Where packets end that do not leave: counted, and kept to be shown. Captures see all packets here.
#[derive(Debug)]
pub struct Watch {
    page: Arc<Page>,
    now_ns: u64,
    recent: Recent,
    taps: ArrayVec<Box<Tap>, CAPTURES_MAX>,
    /// Of the packet that is being decided about, while there are captures.
    note: Note,
}

impl Watch {
    /// Counts in `page`, the director's own.
    pub fn new(page: Arc<Page>) -> Self {
        Self {
            page,
            now_ns: 0,
            recent: Recent::default(),
            taps: ArrayVec::new(),
            note: Note::default(),
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

    /// Begins a capture; gives it back when there are too many.
    pub fn add_tap(&mut self, tap: Box<Tap>) -> Result<(), Box<Tap>> {
        self.taps.try_push(tap).map_err(|full| full.element())
    }

    pub fn remove_tap(&mut self, id: u64) -> Option<Box<Tap>> {
        let place = self.taps.iter().position(|tap| tap.id == id)?;
        self.note = Note::default();
        Some(self.taps.remove(place))
    }

    #[inline]
    pub fn is_tapped(&self) -> bool {
        !self.taps.is_empty()
    }

    pub fn set_note(&mut self, note: Note) {
        self.note = note;
    }

    pub fn note(&self) -> &Note {
        &self.note
    }

    /// What is known of a packet that has no connection.
    pub fn note_service(&mut self, service: ServiceId) {
        self.note.service.get_or_insert(service);
    }

    /// Packets that port `from` received.
    #[inline]
    pub fn received<P: PacketBuf>(&mut self, from: PortId, burst: &[P]) {
        if self.is_tapped() {
            let none = Note::default();
            for packet in burst {
                let frame = packet.bytes();
                let event = self.event(frame, Fate::Received, from, None, &none);
                tell(&mut self.taps, Stage::Rx, &event);
            }
        }
    }

    /// Packet `number` of a burst that port `to` is about to be asked to take.
    pub fn leaving<P: PacketBuf>(
        &mut self,
        number: usize,
        packet: &P,
        to: PortId,
        origin: Origin,
        note: &Note,
    ) {
        let fate = match origin.exit {
            Exit::Forwarded => Fate::Forwarded,
            Exit::Answered => Fate::Answered,
            Exit::Punted => Fate::Punted,
        };
        let event = self.event(packet.bytes(), fate, origin.port, Some(to), note);
        for tap in &mut self.taps {
            match tap.stage() {
                Stage::Decided => tap.take(&event),
                Stage::Tx => tap.stage_sent(number, &event),
                Stage::Rx | Stage::Drop => {}
            }
        }
    }

    /// The port took the first `sent` of the burst that was [`Self::leaving`].
    pub fn left(&mut self, sent: usize) {
        for tap in &mut self.taps {
            tap.settle_sent(sent);
        }
    }

    /// Ends a packet that was received on `from`, or made for it.
    #[cold]
    #[inline(never)]
    pub fn discard<P: PacketBuf>(&mut self, from: PortId, reason: DropReason, packet: P) {
        let frame = packet.bytes();
        self.dropped(from, reason, frame, frame.len());
    }

    /// Ends a frame of `len` bytes of which `frame` is the beginning.
    fn dropped(&mut self, from: PortId, reason: DropReason, frame: &[u8], len: usize) {
        self.page.count_drop(from, reason);
        self.recent.note(self.now_ns, from, reason, frame, len);
        if self.is_tapped() {
            let note = std::mem::take(&mut self.note);
            let event = Event {
                len,
                ..self.event(frame, Fate::Dropped(reason), from, None, &note)
            };
            tell(&mut self.taps, Stage::Drop, &event);
            tell(&mut self.taps, Stage::Decided, &event);
            self.note = note;
        }
    }

    /// Receives and ends a frame in pieces: `first` is what is in the first buffer.
    pub fn scattered(&mut self, from: PortId, first: &[u8], len: usize) {
        let port = self.page.port(from);
        port.rx.add(1);
        port.rx_bytes.add(len as u64);
        self.note = Note::default();
        let none = Note::default();
        let event = Event {
            len,
            ..self.event(first, Fate::Received, from, None, &none)
        };
        tell(&mut self.taps, Stage::Rx, &event);
        self.dropped(from, DropReason::Scattered, first, len);
    }

    /// Counts a packet that the director took in.
    pub fn consumed<P: PacketBuf>(&mut self, from: PortId, packet: &P) {
        self.page.port(from).consumed.add(1);
        self.decided(from, packet, Fate::Consumed);
    }

    /// A packet waits; what comes of it later is another decision.
    pub fn held<P: PacketBuf>(&mut self, from: PortId, packet: &P) {
        self.page.held.up();
        self.decided(from, packet, Fate::Held);
    }

    fn decided<P: PacketBuf>(&mut self, from: PortId, packet: &P, fate: Fate) {
        if self.is_tapped() {
            let note = std::mem::take(&mut self.note);
            let event = self.event(packet.bytes(), fate, from, None, &note);
            tell(&mut self.taps, Stage::Decided, &event);
            self.note = note;
        }
    }

    fn event<'p>(
        &self,
        frame: &'p [u8],
        fate: Fate,
        from: PortId,
        to: Option<PortId>,
        note: &'p Note,
    ) -> Event<'p> {
        Event {
            at_ns: self.now_ns,
            frame,
            len: frame.len(),
            fate,
            from,
            to,
            note,
        }
    }
}

/// The captures of one stage.
fn tell(taps: &mut [Box<Tap>], stage: Stage, event: &Event<'_>) {
    for tap in taps.iter_mut().filter(|tap| tap.stage() == stage) {
        tap.take(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_pieces_balance() {
        let mut watch = Watch::new(Arc::new(Page::new(1, 1).unwrap()));
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

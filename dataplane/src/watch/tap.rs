//! A capture in one worker: packets that are chosen are copied into a ring of bytes.
//!
//! The control side makes the ring and all other memory, and takes it back. A packet for which there is
//! no room is counted.

use std::sync::Arc;

use arrayvec::ArrayVec;
use control::packet::Ends;
use control::{ForwardMode, PacketFilter, Stage};
use rtrb::{Consumer, Producer, RingBuffer};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::counters::{Counter, DropReason};
use crate::packet::{BURST, MADE_MAX, PortId};
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::Tuple;

/// The most captures at a time.
pub const CAPTURES_MAX: usize = 4;

/// What is known of a packet besides its bytes.
#[derive(Debug, Clone, Default)]
pub struct Note {
    pub service: Option<ServiceId>,
    pub server: Option<ServerId>,
    pub method: Option<ForwardMode>,
    /// What the client sends on its connection, and what the server does.
    pub sides: ArrayVec<Ends, 2>,
}

impl Note {
    pub fn side(tuple: &Tuple) -> Ends {
        Ends {
            protocol: Some(tuple.protocol),
            from: tuple.from.ip(),
            to: tuple.to.ip(),
            ports: Some((tuple.from.port(), tuple.to.port())),
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Received,
    Forwarded,
    Answered,
    Punted,
    Held,
    Consumed,
    Dropped(DropReason),
}

/// A packet that passes a stage.
#[derive(Debug, Clone, Copy)]
pub struct Event<'p> {
    pub at_ns: u64,
    /// As much of it as there is.
    pub frame: &'p [u8],
    pub len: usize,
    pub fate: Fate,
    pub from: PortId,
    pub to: Option<PortId>,
    pub note: &'p Note,
}

/// What precedes a packet's bytes in the ring.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    at_ns: u64,
    len: u32,
    caught: u32,
    missed: u32,
    service: u32,
    server: u32,
    fate: u8,
    reason: u8,
    from: u8,
    to: u8,
    method: u8,
    padding: [u8; 7],
}

const HEAD: usize = size_of::<Head>();
const NONE: u32 = u32::MAX;
const NO_PORT: u8 = u8::MAX;
const METHODS: [ForwardMode; 4] = [
    ForwardMode::Nat,
    ForwardMode::Direct,
    ForwardMode::Tunnel,
    ForwardMode::FullNat,
];

/// What is captured, the names in a filter found.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub stage: Stage,
    pub filter: PacketFilter,
    pub reason: Option<DropReason>,
    pub port: Option<PortId>,
    pub snaplen: usize,
}

/// The worker's end.
#[derive(Debug)]
pub struct Tap {
    pub id: u64,
    wanted: Wanted,
    ring: Producer<u8>,
    missed: Arc<Counter>,
    /// Since the last packet that found room.
    missed_since: u32,
    /// Records of packets that a port is asked to take, and where each ends.
    staged: Vec<u8>,
    ends: ArrayVec<(usize, usize), BURST>,
}

/// The control side's end.
#[derive(Debug)]
pub struct Intake {
    ring: Consumer<u8>,
    head: Option<Head>,
    missed: Arc<Counter>,
}

/// A packet that was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    pub at_ns: u64,
    pub len: u32,
    /// Packets before it that found no room.
    pub missed: u32,
    pub fate: Fate,
    pub from: PortId,
    pub to: Option<PortId>,
    pub service: Option<ServiceId>,
    pub server: Option<ServerId>,
    pub method: Option<ForwardMode>,
    pub bytes: Vec<u8>,
}

/// Both ends of a capture in one worker, with a ring of so many bytes.
pub fn tap(id: u64, wanted: Wanted, ring_len: usize) -> (Tap, Intake) {
    let (producer, consumer) = RingBuffer::new(ring_len);
    let missed = Arc::new(Counter::default());
    // Only what leaves is staged, and that is no longer than a frame may be.
    let staged = match wanted.stage {
        Stage::Tx => BURST * (HEAD + wanted.snaplen.min(MADE_MAX)),
        _ => 0,
    };
    let tap = Tap {
        id,
        wanted,
        ring: producer,
        missed: Arc::clone(&missed),
        missed_since: 0,
        staged: Vec::with_capacity(staged),
        ends: ArrayVec::new(),
    };
    let intake = Intake {
        ring: consumer,
        head: None,
        missed,
    };
    (tap, intake)
}

impl Tap {
    pub fn stage(&self) -> Stage {
        self.wanted.stage
    }

    fn chooses(&self, event: &Event<'_>) -> bool {
        let Wanted {
            filter,
            reason,
            port,
            ..
        } = &self.wanted;
        reason.is_none_or(|reason| event.fate == Fate::Dropped(reason))
            && port.is_none_or(|port| event.from == port || event.to == Some(port))
            && filter.chooses(event.frame, &event.note.sides)
    }

    /// Copies a packet, if it is chosen and there is room.
    pub fn take(&mut self, event: &Event<'_>) {
        if self.chooses(event) {
            let caught = event.frame.len().min(self.wanted.snaplen);
            let head = head(event, caught);
            self.put(head, &event.frame[..caught]);
        }
    }

    fn put(&mut self, mut head: Head, bytes: &[u8]) {
        if self.ring.slots() < HEAD + bytes.len() {
            return self.miss();
        }
        head.missed = std::mem::take(&mut self.missed_since);
        // There is room, so both go in whole.
        let _ = self.ring.push_entire_slice(head.as_bytes());
        let _ = self.ring.push_entire_slice(bytes);
    }

    fn miss(&mut self) {
        self.missed.add(1);
        self.missed_since = self.missed_since.saturating_add(1);
    }

    /// Keeps packet `number` of a burst until it is known how many the port takes.
    pub fn stage_sent(&mut self, number: usize, event: &Event<'_>) {
        if !self.chooses(event) {
            return;
        }
        let caught = event.frame.len().min(self.wanted.snaplen);
        if self.staged.len() + HEAD + caught > self.staged.capacity() || self.ends.is_full() {
            return self.miss();
        }
        let head = head(event, caught);
        self.staged.extend_from_slice(head.as_bytes());
        self.staged.extend_from_slice(&event.frame[..caught]);
        self.ends.push((number, self.staged.len()));
    }

    /// The port took the first `sent` of a burst.
    pub fn settle_sent(&mut self, sent: usize) {
        let (staged, ends) = (
            std::mem::take(&mut self.staged),
            std::mem::take(&mut self.ends),
        );
        let mut start = 0;
        for (number, end) in ends {
            if number < sent
                && let Ok((head, bytes)) = Head::read_from_prefix(&staged[start..end])
            {
                self.put(head, bytes);
            }
            start = end;
        }
        self.staged = staged;
        self.staged.clear();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "frames are shorter than 2^32, there are four methods"
)]
fn head(event: &Event<'_>, caught: usize) -> Head {
    let (fate, reason) = match event.fate {
        Fate::Received => (0, 0),
        Fate::Forwarded => (1, 0),
        Fate::Answered => (2, 0),
        Fate::Held => (3, 0),
        Fate::Consumed => (4, 0),
        Fate::Dropped(reason) => (5, reason as u8),
        Fate::Punted => (6, 0),
    };
    let number = |method| METHODS.iter().position(|known| *known == method);
    let method = event.note.method.and_then(number);
    Head {
        at_ns: event.at_ns,
        len: event.len as u32,
        caught: caught as u32,
        missed: 0,
        service: event.note.service.map_or(NONE, |id| id.0),
        server: event.note.server.map_or(NONE, |id| id.0),
        fate,
        reason,
        from: event.from.0,
        to: event.to.map_or(NO_PORT, |port| port.0),
        method: method.map_or(u8::MAX, |method| method as u8),
        padding: [0; 7],
    }
}

impl Intake {
    /// Packets so far that found no room.
    pub fn missed(&self) -> u64 {
        self.missed.get()
    }
}

impl Iterator for Intake {
    type Item = Caught;

    fn next(&mut self) -> Option<Caught> {
        let head = match self.head {
            Some(head) => head,
            None => {
                let mut bytes = [0; HEAD];
                self.ring.pop_entire_slice(&mut bytes).ok()?;
                *self.head.insert(Head::read_from_bytes(&bytes).ok()?)
            }
        };
        let mut bytes = vec![0; head.caught as usize];
        self.ring.pop_entire_slice(&mut bytes).ok()?;
        self.head = None;
        let id = |id: u32| (id != NONE).then_some(id);
        let reason = DropReason::ALL.get(usize::from(head.reason)).copied();
        Some(Caught {
            at_ns: head.at_ns,
            len: head.len,
            missed: head.missed,
            fate: match (head.fate, reason) {
                (1, _) => Fate::Forwarded,
                (2, _) => Fate::Answered,
                (3, _) => Fate::Held,
                (4, _) => Fate::Consumed,
                (5, Some(reason)) => Fate::Dropped(reason),
                (6, _) => Fate::Punted,
                _ => Fate::Received,
            },
            from: PortId(head.from),
            to: (head.to != NO_PORT).then_some(PortId(head.to)),
            service: id(head.service).map(ServiceId),
            server: id(head.server).map(ServerId),
            method: METHODS.get(usize::from(head.method)).copied(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(stage: Stage) -> Wanted {
        Wanted {
            stage,
            filter: PacketFilter::default(),
            reason: None,
            port: None,
            snaplen: 100,
        }
    }

    fn event<'p>(frame: &'p [u8], note: &'p Note) -> Event<'p> {
        Event {
            at_ns: 7,
            frame,
            len: frame.len(),
            fate: Fate::Forwarded,
            from: PortId(0),
            to: Some(PortId(1)),
            note,
        }
    }

    #[test]
    fn a_packet_comes_out_as_it_went_in() {
        let (mut tap, mut intake) = tap(1, wanted(Stage::Decided), 1000);
        let note = Note {
            service: Some(ServiceId(3)),
            server: Some(ServerId(4)),
            method: Some(ForwardMode::FullNat),
            ..Note::default()
        };
        assert_eq!(intake.next(), None);
        for fate in [
            Fate::Received,
            Fate::Forwarded,
            Fate::Answered,
            Fate::Held,
            Fate::Consumed,
            Fate::Dropped(DropReason::NotOurs),
        ] {
            let frame = [5; 150];
            let event = event(&frame, &note);
            tap.take(&Event { fate, ..event });
            let expected = Caught {
                at_ns: 7,
                len: 150,
                missed: 0,
                fate,
                from: PortId(0),
                to: Some(PortId(1)),
                service: note.service,
                server: note.server,
                method: note.method,
                bytes: vec![5; 100],
            };
            assert_eq!(intake.next(), Some(expected));
        }
        assert_eq!((intake.next(), intake.missed()), (None, 0));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (mut tap, mut intake) = tap(1, wanted(Stage::Rx), 3 * (HEAD + 60));
        let note = Note::default();
        for _ in 0..10 {
            tap.take(&event(&[1; 60], &note));
        }
        assert_eq!(intake.missed(), 7);
        let caught: Vec<_> = intake.by_ref().collect();
        assert_eq!(caught.iter().map(|c| c.missed).collect::<Vec<_>>(), [0; 3]);
        tap.take(&event(&[2; 60], &note));
        tap.take(&event(&[2; 60], &note));
        let missed: Vec<_> = intake.by_ref().map(|c| c.missed).collect();
        assert_eq!((missed, intake.missed()), (vec![7, 0], 7));
    }

    #[test]
    fn only_what_a_port_takes_was_sent() {
        let (mut tap, mut intake) = tap(1, wanted(Stage::Tx), 10_000);
        let note = Note::default();
        for sent in [3, 0, 2] {
            for number in 0..3 {
                let frame = [u8::try_from(number).unwrap(); 60];
                tap.stage_sent(number, &event(&frame, &note));
            }
            tap.settle_sent(sent);
            let first: Vec<_> = intake.by_ref().map(|c| c.bytes[0]).collect();
            assert_eq!(first, (0..u8::try_from(sent).unwrap()).collect::<Vec<_>>());
        }
    }
}

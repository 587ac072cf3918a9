//! The table against a naive model: lists in order of age, and a flag for each byte.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::runs::RUNS_MAX;
use super::*;
use crate::packet::HeapBuf;
use crate::wire::flow::UDP;
use DropReason::{FragmentOverlap, FragmentTimeout, FragmentsFull, NoServer, Stopped};

const HOME: u16 = 3;

fn key(n: u16) -> Key {
    Key {
        from: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
        to: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)),
        id: n.into(),
        protocol: UDP,
    }
}

fn tuple(n: u16) -> Tuple {
    Tuple {
        protocol: UDP,
        from: (Ipv4Addr::new(10, 0, 0, 1), 1000 + n).into(),
        to: "10.0.0.100:53".parse().unwrap(),
    }
}

fn packet(id: u32) -> HeapBuf {
    HeapBuf::new(&id.to_be_bytes())
}

fn id(packet: &HeapBuf) -> u32 {
    u32::from_be_bytes(packet.bytes().try_into().unwrap())
}

fn cut(n: u16, offset: u16, len: u16, more: bool) -> Piece {
    Piece {
        key: key(n),
        offset,
        len,
        more,
    }
}

/// What went through a `drop`.
type Dropped = Vec<(PortId, u32, DropReason)>;

/// The table, with what it dropped.
struct Bed {
    fragments: Fragments<HeapBuf>,
    dropped: Dropped,
    now: Instant,
    next: u32,
}

impl Bed {
    fn new(datagrams_max: usize, held_max: usize) -> Self {
        Self {
            fragments: Fragments::new(datagrams_max, held_max),
            dropped: Vec::new(),
            now: Instant(u32::MAX - 500), // the clock wraps on the way
            next: 0,
        }
    }

    /// The packet's id (also its port's number), and its fate.
    fn later(&mut self, piece: Piece) -> (u32, Fate<HeapBuf>) {
        let id = self.next;
        self.next += 1;
        let dropped = &mut self.dropped;
        let note = |port, packet, reason| note(dropped, port, packet, reason);
        let fate = self
            .fragments
            .later(self.now, &piece, packet(id), port(id), note);
        (id, fate)
    }

    fn first(&mut self, piece: Piece) -> Result<(), DropReason> {
        let dropped = &mut self.dropped;
        let n = u16::try_from(piece.key.id).unwrap();
        let note = |port, packet, reason| note(dropped, port, packet, reason);
        self.fragments.first(self.now, &piece, tuple(n), HOME, note)
    }

    fn refuse(&mut self, piece: Piece, reason: DropReason) {
        let dropped = &mut self.dropped;
        let note = |port, packet, reason| note(dropped, port, packet, reason);
        self.fragments.refuse(self.now, &piece, reason, note);
    }

    fn release(&mut self, n: u16) -> Vec<u32> {
        std::iter::from_fn(|| self.fragments.release(&key(n)))
            .map(|(from, packet)| {
                assert_eq!(from, port(id(&packet)));
                id(&packet)
            })
            .collect()
    }

    fn tick(&mut self) {
        let dropped = &mut self.dropped;
        self.fragments.tick(self.now, |port, packet, reason| {
            note(dropped, port, packet, reason);
        });
    }

    fn stop(&mut self) {
        let dropped = &mut self.dropped;
        self.fragments.stop(|port, packet, reason| {
            note(dropped, port, packet, reason);
        });
    }

    fn wait(&mut self, ms: u32) {
        self.now = self.now.plus_ms(ms);
    }
}

fn port(id: u32) -> PortId {
    PortId((id % 32) as u8)
}

fn note(dropped: &mut Dropped, from: PortId, packet: HeapBuf, reason: DropReason) {
    dropped.push((from, id(&packet), reason));
}

fn held(id: u32) -> (u32, Fate<HeapBuf>) {
    (id, Fate::Held)
}

fn known(id: u32, n: u16) -> (u32, Fate<HeapBuf>) {
    (id, Fate::Known(packet(id), tuple(n), HOME))
}

fn refused(id: u32, reason: DropReason) -> (u32, Fate<HeapBuf>) {
    (id, Fate::Dropped(packet(id), reason))
}

#[test]
fn later_ones_follow_the_first() {
    let mut t = Bed::new(4, 4);
    assert_eq!(t.first(cut(1, 0, 16, true)), Ok(()));
    assert_eq!(t.later(cut(1, 16, 16, true)), known(0, 1));
    assert_eq!(t.fragments.datagrams(), 1);
    assert_eq!(t.later(cut(1, 32, 5, false)), known(1, 1));
    assert_eq!(
        t.fragments.datagrams(),
        0,
        "complete: its id may come again"
    );
    assert_eq!(t.first(cut(1, 0, 16, true)), Ok(()));
    t.wait(KNOWN_MS - 1);
    t.tick();
    assert_eq!(t.later(cut(1, 16, 16, true)), known(2, 1));
    t.wait(1);
    t.tick();
    assert_eq!(t.fragments.datagrams(), 0);
    assert_eq!(t.later(cut(1, 32, 16, true)), held(3));
    assert_eq!(t.dropped, []);
}

#[test]
fn early_ones_wait_in_order() {
    let mut t = Bed::new(4, 4);
    assert_eq!(t.later(cut(1, 32, 5, false)), held(0));
    assert_eq!(t.later(cut(2, 16, 8, true)), held(1));
    assert_eq!(t.later(cut(1, 16, 16, true)), held(2));
    assert_eq!(t.fragments.held(), 3);
    assert!(t.release(1).is_empty(), "not before the first one");
    assert_eq!(t.first(cut(1, 0, 16, true)), Ok(()));
    assert_eq!(t.release(1), [0, 2]);
    assert_eq!((t.fragments.held(), t.fragments.datagrams()), (1, 1));
    t.wait(WAIT_MS - 1);
    t.tick();
    assert_eq!(t.dropped, []);
    t.wait(1);
    t.tick();
    assert_eq!(t.dropped, [(port(1), 1, FragmentTimeout)]);
    assert_eq!((t.fragments.held(), t.fragments.datagrams()), (0, 0));
}

#[test]
fn overlaps_end_the_datagram() {
    for overlapping in [
        cut(1, 24, 16, true),
        cut(1, 8, 16, true),
        cut(1, 8, 80, true),
        cut(1, 8, 8, false),  // ends before what was seen
        cut(1, 40, 9, false), // another end
        cut(1, 40, 8, true),  // more, where the end is known to be
        cut(1, 48, 8, true),  // behind the end
    ] {
        let mut t = Bed::new(4, 8);
        assert_eq!(t.later(cut(1, 40, 8, false)), held(0));
        assert_eq!(t.later(cut(1, 16, 16, true)), held(1));
        assert_eq!(t.later(overlapping), refused(2, FragmentOverlap));
        let both = [(port(0), 0, FragmentOverlap), (port(1), 1, FragmentOverlap)];
        assert_eq!(t.dropped, both, "{overlapping:?}");
        assert_eq!(t.later(cut(1, 32, 8, true)), refused(3, FragmentOverlap));
        assert_eq!(t.first(cut(1, 0, 16, true)), Err(FragmentOverlap));
        t.wait(KNOWN_MS);
        assert_eq!(t.first(cut(1, 0, 16, true)), Ok(()));
    }
}

#[test]
fn copies_are_dropped_alone() {
    let mut t = Bed::new(4, 8);
    assert_eq!(t.later(cut(1, 16, 16, true)), held(0));
    assert_eq!(t.later(cut(1, 16, 16, true)), refused(1, FragmentOverlap));
    assert_eq!(t.first(cut(1, 0, 16, true)), Ok(()));
    assert_eq!(t.first(cut(1, 0, 16, true)), Err(FragmentOverlap));
    assert_eq!(t.release(1), [0]);
    assert_eq!(t.later(cut(1, 24, 8, true)), refused(2, FragmentOverlap));
    assert_eq!(t.later(cut(1, 32, 1, false)), known(3, 1));
    assert_eq!((t.dropped.len(), t.fragments.datagrams()), (0, 0));
}

#[test]
fn a_dropped_first_one_takes_the_others_along() {
    let mut t = Bed::new(4, 4);
    assert_eq!(t.later(cut(1, 16, 16, true)), held(0));
    t.refuse(cut(1, 0, 16, true), NoServer);
    assert_eq!(t.dropped, [(port(0), 0, NoServer)]);
    assert_eq!(t.later(cut(1, 32, 16, true)), refused(1, NoServer));
    assert_eq!(
        t.first(cut(1, 0, 16, true)),
        Ok(()),
        "another datagram, same id"
    );
    assert_eq!(t.later(cut(1, 32, 16, true)), known(2, 1));
    t.refuse(cut(1, 0, 16, true), NoServer);
    assert_eq!(t.later(cut(1, 48, 16, true)), refused(3, NoServer));
}

#[test]
fn limits() {
    let mut t = Bed::new(3, 10);
    for i in 0..8 {
        assert_eq!(t.later(cut(1, 16 * (i + 1), 16, true)), held(i.into()));
    }
    assert_eq!(t.later(cut(1, 800, 16, true)), refused(8, FragmentsFull));
    assert_eq!(t.later(cut(2, 16, 16, true)), held(9));
    assert_eq!(t.later(cut(2, 32, 16, true)), held(10));
    assert_eq!(
        t.later(cut(3, 16, 16, true)),
        held(11),
        "the oldest makes room"
    );
    let gone: Dropped = (0..8).map(|i| (port(i), i, FragmentsFull)).collect();
    assert_eq!(t.dropped, gone);
    t.dropped.clear();

    assert_eq!(t.first(cut(2, 0, 16, true)), Ok(()));
    assert_eq!(t.release(2), [9, 10]);
    assert_eq!(t.first(cut(4, 0, 16, true)), Ok(()));
    assert_eq!(t.later(cut(5, 16, 16, true)), held(12));
    assert_eq!(
        t.dropped,
        [(port(11), 11, FragmentsFull)],
        "those that wait go first"
    );
    assert_eq!(t.first(cut(5, 0, 16, true)), Ok(()));
    assert_eq!(t.release(5), [12]);
    assert_eq!(t.later(cut(6, 16, 16, true)), held(13));
    assert_eq!(t.later(cut(4, 16, 16, true)), known(14, 4));
    assert_eq!(t.later(cut(2, 48, 16, true)), held(15), "2 was the oldest");

    let mut t = Bed::new(1, 0);
    assert_eq!(t.later(cut(1, 16, 16, true)), refused(0, FragmentsFull));
    assert_eq!(t.first(cut(2, 0, 8, true)), Ok(()));
    // The first one is a run of its own.
    for i in (1..).take(RUNS_MAX - 1) {
        let piece = cut(2, 16 * i, 8, true);
        assert_eq!(t.later(piece), known(i.into(), 2));
    }
    assert_eq!(t.later(cut(2, 800, 8, true)), refused(8, FragmentsFull));
    assert_eq!(t.later(cut(2, 8, 8, true)), known(9, 2));
    assert_eq!(t.later(cut(2, 800, 8, true)), known(10, 2));
}

#[test]
fn nothing_is_allocated_for_ever_new_ids() {
    let mut t = Bed::new(64, 16);
    let room = t.fragments.index.capacity();
    for n in 0..20_000 {
        let _ = t.later(cut(n % 60_000, 16, 16, true));
        if n % 3 == 0 {
            let _ = t.first(cut(n, 0, 16, true));
            t.release(n);
        }
    }
    // Places of those forgotten count against it for a while.
    assert!(t.fragments.index.capacity() <= room);
    assert_eq!(t.fragments.datagrams(), 64);
}

#[derive(Debug, Clone)]
enum Step {
    Piece {
        n: u16,
        at: u16,
        len: u16,
        last: bool,
        refuse: bool,
    },
    Wait(u32),
    Tick,
    Stop,
}

/// In units of eight bytes; the last piece of a datagram is some bytes shorter.
const UNITS: u16 = 24;
/// Bytes that pieces of so many units may reach.
const BYTES: usize = UNITS as usize * 8 + 64;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let piece = (0..6u16, 0..UNITS, 1..4u16, any::<bool>(), 0..10).prop_map(
        |(n, at, len, last, refuse)| Step::Piece {
            n,
            // Often on a grid, so that pieces fit together.
            at: if refuse < 8 { at / 3 * 3 } else { at },
            len: if refuse < 8 { 3 } else { len },
            last: last && at > UNITS / 2,
            refuse: refuse == 5,
        },
    );
    let step = prop_oneof![
        20 => piece,
        3 => prop_oneof![0..50u32, 0..1500u32, 0..40_000u32].prop_map(Step::Wait),
        3 => Just(Step::Tick),
        1 => Just(Step::Stop),
    ];
    vec(step, 1..150)
}

#[derive(Debug, Clone)]
struct Naive {
    n: u16,
    stand: Stand,
    born: u64,
    seen: [bool; BYTES],
    end: Option<usize>,
    held: Vec<u32>,
}

impl Naive {
    fn clash(&self, at: usize, end: usize, more: bool) -> Option<Clash> {
        let contradicts = match self.end {
            Some(known) if more => end >= known,
            Some(known) => end != known,
            None => !more && self.seen[end..].contains(&true),
        };
        let mut with = self.seen;
        with[at..end].fill(true);
        let runs = with.windows(2).filter(|pair| pair[0] != pair[1]).count() + usize::from(with[0]);
        match (contradicts, &self.seen[at..end]) {
            (true, _) => Some(Clash::Overlap),
            (_, seen) if seen.iter().all(|byte| *byte) => Some(Clash::Seen),
            (_, seen) if seen.contains(&true) => Some(Clash::Overlap),
            _ if runs.div_ceil(2) > RUNS_MAX => Some(Clash::Gaps),
            _ => None,
        }
    }

    fn complete(&self) -> bool {
        self.end
            .is_some_and(|end| self.seen[..end].iter().all(|byte| *byte))
    }
}

/// What should happen.
#[derive(Default)]
struct Model {
    waiting: Vec<Naive>,
    settled: Vec<Naive>,
    dropped: Dropped,
    now: u64,
}

const DATAGRAMS: usize = 4;
const HELD: usize = 10;

#[derive(Debug, PartialEq)]
enum Expected {
    Held,
    Known,
    Dropped(DropReason),
}

impl Model {
    fn drop_all(&mut self, datagram: &Naive, reason: DropReason) {
        let dropped = datagram.held.iter().map(|id| (port(*id), *id, reason));
        self.dropped.extend(dropped);
    }

    fn held(&self) -> usize {
        self.waiting
            .iter()
            .map(|datagram| datagram.held.len())
            .sum()
    }

    fn expire(&mut self, only: Option<u16>) {
        for (list, ms) in [(true, WAIT_MS), (false, KNOWN_MS)] {
            let all = std::mem::take(if list {
                &mut self.waiting
            } else {
                &mut self.settled
            });
            let (gone, kept) = all.into_iter().partition(|datagram| {
                only.is_none_or(|n| n == datagram.n) && datagram.born + u64::from(ms) <= self.now
            });
            *(if list {
                &mut self.waiting
            } else {
                &mut self.settled
            }) = kept;
            let gone: Vec<Naive> = gone;
            for datagram in gone {
                self.drop_all(&datagram, FragmentTimeout);
            }
        }
    }

    fn give_up_oldest(&mut self) -> u16 {
        let oldest = if self.waiting.is_empty() {
            self.settled.remove(0)
        } else {
            self.waiting.remove(0)
        };
        self.drop_all(&oldest, FragmentsFull);
        oldest.n
    }

    /// Takes the datagram out of its list, or makes a new one; with its position.
    fn open(&mut self, n: u16) -> (usize, Naive) {
        self.expire(Some(n));
        if let Some(at) = self.waiting.iter().position(|datagram| datagram.n == n) {
            return (at, self.waiting.remove(at));
        }
        if let Some(at) = self.settled.iter().position(|datagram| datagram.n == n) {
            return (at, self.settled.remove(at));
        }
        if self.waiting.len() + self.settled.len() == DATAGRAMS {
            self.give_up_oldest();
        }
        let fresh = Naive {
            n,
            stand: Stand::Waiting,
            born: self.now,
            seen: [false; BYTES],
            end: None,
            held: Vec::new(),
        };
        (self.waiting.len(), fresh)
    }

    fn put_back(&mut self, at: usize, datagram: Naive) {
        match datagram.stand {
            Stand::Waiting if datagram.held.is_empty() => {}
            Stand::Waiting => self.waiting.insert(at, datagram),
            Stand::Known(..) if datagram.complete() => {}
            _ => self.settled.insert(at, datagram),
        }
    }

    fn settle(&mut self, mut datagram: Naive, stand: Stand) {
        (datagram.stand, datagram.born) = (stand, self.now);
        self.put_back(self.settled.len(), datagram);
    }

    /// What becomes of the piece, and what is released after it.
    fn piece(&mut self, id: u32, piece: &Piece) -> (Expected, Vec<u32>) {
        let n = u16::try_from(piece.key.id).unwrap();
        if piece.is_first() {
            self.settled
                .retain(|d| d.n != n || !matches!(d.stand, Stand::Refused(_)));
        }
        let (place, mut datagram) = self.open(n);
        let (at, end) = (
            usize::from(piece.offset),
            usize::from(piece.offset + piece.len),
        );
        let dropped = |reason| (Expected::Dropped(reason), Vec::new());
        let refusal = match datagram.stand {
            Stand::Refused(reason) => Some(reason),
            Stand::Overlapping => Some(FragmentOverlap),
            Stand::Waiting if at > 0 && datagram.held.len() == 8 => Some(FragmentsFull),
            _ => None,
        };
        if let Some(reason) = refusal {
            self.put_back(place, datagram);
            return dropped(reason);
        }
        match datagram.clash(at, end, piece.more) {
            Some(Clash::Overlap) => {
                self.drop_all(&datagram, FragmentOverlap);
                datagram.held.clear();
                self.settle(datagram, Stand::Overlapping);
                return dropped(FragmentOverlap);
            }
            Some(clash) => {
                self.put_back(place, datagram);
                let full = clash == Clash::Gaps;
                return dropped(if full { FragmentsFull } else { FragmentOverlap });
            }
            None => {}
        }
        datagram.seen[at..end].fill(true);
        if !piece.more {
            datagram.end = Some(end);
        }
        if at == 0 {
            let released = std::mem::take(&mut datagram.held);
            self.settle(datagram, Stand::Known(tuple(n), HOME));
            return (Expected::Known, released);
        }
        if datagram.stand != Stand::Waiting {
            self.put_back(place, datagram);
            return (Expected::Known, Vec::new());
        }
        datagram.held.push(id);
        self.waiting.insert(place, datagram);
        if self.held() > HELD {
            // The new one is not yet in when room is made.
            let me = self.waiting.iter_mut().find(|d| d.n == n).unwrap();
            me.held.pop();
            if self.give_up_oldest() == n {
                return dropped(FragmentsFull);
            }
            self.waiting
                .iter_mut()
                .find(|d| d.n == n)
                .unwrap()
                .held
                .push(id);
        }
        (Expected::Held, Vec::new())
    }

    fn refuse(&mut self, n: u16, reason: DropReason) {
        let (place, mut datagram) = self.open(n);
        if matches!(datagram.stand, Stand::Waiting | Stand::Known(..)) {
            self.drop_all(&datagram, reason);
            datagram.held.clear();
            self.settle(datagram, Stand::Refused(reason));
        } else {
            self.put_back(place, datagram);
        }
    }
}

fn step(
    t: &mut Bed,
    model: &mut Model,
    out: &mut HashSet<u32>,
    step: &Step,
) -> Result<(), TestCaseError> {
    match *step {
        Step::Piece {
            n,
            at: 0,
            refuse: true,
            ..
        } => {
            t.refuse(cut(n, 0, 8, true), NoServer);
            model.refuse(n, NoServer);
        }
        Step::Piece {
            n, at, len, last, ..
        } => {
            let end = (at + len) * 8 - if last { 3 } else { 0 };
            let piece = cut(n, at * 8, end - at * 8, !last);
            let (expected, released) = model.piece(t.next, &piece);
            if piece.is_first() {
                let got = match t.first(piece) {
                    Ok(()) => Expected::Known,
                    Err(reason) => Expected::Dropped(reason),
                };
                prop_assert_eq!(got, expected);
                let got = t.release(n);
                prop_assert!(got.iter().all(|id| out.insert(*id)));
                prop_assert_eq!(got, released);
            } else {
                let (sent, fate) = t.later(piece);
                let (got, back) = match fate {
                    Fate::Held => (Expected::Held, None),
                    Fate::Dropped(packet, reason) => (Expected::Dropped(reason), Some(packet)),
                    Fate::Known(packet, flow, home) => {
                        prop_assert_eq!((flow, home), (tuple(n), HOME));
                        (Expected::Known, Some(packet))
                    }
                };
                prop_assert_eq!(got, expected, "{:?}", piece);
                prop_assert!(back.is_none_or(|packet| id(&packet) == sent && out.insert(sent)));
            }
        }
        Step::Wait(ms) => {
            t.wait(ms);
            model.now += u64::from(ms);
        }
        Step::Tick => {
            t.tick();
            model.expire(None);
        }
        Step::Stop => {
            t.stop();
            for datagram in std::mem::take(&mut model.waiting) {
                model.drop_all(&datagram, Stopped);
            }
            model.settled.clear();
        }
    }
    prop_assert_eq!(&t.dropped, &model.dropped);
    prop_assert!(t.dropped.drain(..).all(|(_, id, _)| out.insert(id)));
    model.dropped.clear();
    prop_assert_eq!(t.fragments.held(), model.held());
    let datagrams = model.waiting.len() + model.settled.len();
    prop_assert_eq!(t.fragments.datagrams(), datagrams);
    prop_assert_eq!(
        out.len() + model.held(),
        t.next as usize,
        "a packet was lost"
    );
    Ok(())
}

/// A datagram of as many units as there are `cuts`, cut behind those that are set; the last piece
/// is some bytes shorter.
fn cut_up(n: u16, cuts: &[bool]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut start, mut len) = (0, 0);
    for cut_here in &cuts[1..] {
        len += 8;
        if *cut_here {
            pieces.push(cut(n, start, len, true));
            (start, len) = (start + len, 0);
        }
    }
    pieces.push(cut(n, start, len + 5, false));
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_naive_model_agrees(steps in steps()) {
        let mut t = Bed::new(DATAGRAMS, HELD);
        let (mut model, mut out) = (Model::default(), HashSet::new());
        for one in &steps {
            step(&mut t, &mut model, &mut out, one)?;
        }
        step(&mut t, &mut model, &mut out, &Step::Stop)?;
        prop_assert_eq!(out.len(), t.next as usize);
    }

    #[test]
    fn datagrams_in_any_order_come_through_whole(
        pieces in vec(vec(any::<bool>(), 2..9), 1..4)
            .prop_map(|all| (0..).zip(all).flat_map(|(n, cuts)| cut_up(n, &cuts)).collect::<Vec<_>>())
            .prop_shuffle(),
        copies in vec(any::<bool>(), 32),
    ) {
        let mut t = Bed::new(16, 64);
        let (mut through, mut firsts) = (0, 0);
        for (piece, copy) in pieces.iter().zip(copies) {
            if piece.is_first() {
                prop_assert_eq!(t.first(*piece), Ok(()));
                firsts += 1;
                through += t.release(u16::try_from(piece.key.id).unwrap()).len();
            } else {
                let (_, fate) = t.later(*piece);
                prop_assert!(!matches!(fate, Fate::Dropped(..)));
                through += usize::from(matches!(fate, Fate::Known(..)));
                // The network may send any of them twice. Once the datagram is through, a copy
                // waits in vain.
                if copy && t.fragments.index.contains_key(&piece.key) {
                    let (id, fate) = t.later(*piece);
                    prop_assert_eq!((id, fate), refused(id, FragmentOverlap));
                }
            }
        }
        prop_assert_eq!(through + firsts, pieces.len());
        prop_assert_eq!((t.fragments.datagrams(), t.fragments.held()), (0, 0));
        prop_assert_eq!(t.dropped, []);
    }
}

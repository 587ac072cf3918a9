//! The table against a `HashMap` and a list of deadlines; index and timers against their own models;
//! the states against the recorded tables.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::timer::Timers;
use super::*;

use crate::wire::flow::UDP;

/// What the client and what the server of connection `n` sends: a third of them over IPv6, a third
/// from IPv6 to IPv4.
fn sides(n: u16, protocol: u8) -> [Tuple; 2] {
    let (v6_client, v6_server) = (!n.is_multiple_of(3), n % 3 == 1);
    let address = |v6, v4_text: &str, v6_text: &str| -> SocketAddr {
        (if v6 { v6_text } else { v4_text }).parse().unwrap()
    };
    let mut client = address(v6_client, "192.0.2.1:0", "[2001:db8::7]:0");
    client.set_port(1000 + n);
    let inbound = Tuple {
        protocol,
        from: client,
        to: address(v6_client, "203.0.113.1:80", "[2001:db8:1::1]:80"),
    };
    let mut local = address(v6_server, "10.1.0.254:0", "[2001:db8:2::fe]:0");
    local.set_port(1000 + n);
    let outbound = Tuple {
        protocol,
        from: address(v6_server, "10.1.0.1:80", "[2001:db8:2::1]:80"),
        to: local,
    };
    [inbound, outbound]
}

fn flow(n: u16, protocol: u8) -> Flow {
    sides(n, protocol)[0].flow(Digest::new([3, 4]))
}

fn open(conns: &mut Conns, now: Instant, n: u16, protocol: u8, timeouts: &Timeouts) -> Option<Hit> {
    let [inbound, outbound] = sides(n, protocol);
    let sides = [&inbound, &outbound];
    conns.open(now, sides, ServerId(0), ForwardMode::FullNat, timeouts)
}

/// Where the first digest does not tell addresses apart, the second one does, in both directions.
#[test]
fn packets_of_mirrored_connections_are_told_apart_by_either_digest() {
    let mut conns = Conns::new(4, [1, 2]).unwrap();
    let [inbound, _] = sides(1, TCP);
    let outbound = inbound.reversed();
    let (now, timeouts) = (Instant(0), Timeouts::default());
    let sides = [&inbound, &outbound];
    let hit = conns
        .open(now, sides, ServerId(0), ForwardMode::Direct, &timeouts)
        .unwrap();
    conns.settle();
    let mut frame = [0; 74];
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, 64]);
    frame[66] = 5 << 4;
    for (tuple, outbound) in [(&inbound, false), (&outbound, true)] {
        let flow = tuple.flow(conns.digest);
        frame[22..54].copy_from_slice(&tuple.addresses6().unwrap());
        frame[54..58].copy_from_slice(&flow.ports.to_ne_bytes());
        let mut seen = Seen::parse(&frame).unwrap();
        conns.digest(&mut seen, &frame);
        let hit = Hit::new(hit.entry(), outbound);
        assert_eq!(conns.likely(conns.hash(&seen.flow)), hit);
        assert!(conns.verify(hit, &seen, &frame));
        assert!(!conns.verify(Hit::new(hit.entry(), !outbound), &seen, &frame));
        for byte in 22..54 {
            // `seen` keeps the first digest of the right addresses.
            frame[byte] ^= 1;
            assert!(!conns.verify(hit, &seen, &frame), "byte {byte}");
            frame[byte] ^= 1;
        }
    }
}

/// Of a full table nearly every key is found in its home bucket or in the next one.
#[test]
fn two_looks_find_nearly_all() {
    let flows = 1000u16;
    let mut conns = Conns::new(flows.into(), [1, 2]).unwrap();
    let timeouts = Timeouts::default();
    let hits: Vec<Hit> = (0..flows)
        .map(|n| open(&mut conns, Instant(0), n, TCP, &timeouts).unwrap())
        .collect();
    conns.settle();
    let mut found = [0, 0];
    for (n, opened) in (0..flows).zip(hits) {
        for (tuple, outbound) in sides(n, TCP).iter().zip([false, true]) {
            let hash = conns.hash(&tuple.flow(conns.digest));
            let hit = Hit::new(opened.entry(), outbound);
            match conns.likely(hash) {
                likely if likely == hit => found[0] += 1,
                Hit::BEYOND => {
                    let beyond = conns.beyond(hash);
                    assert_ne!(beyond, Hit::NOWHERE);
                    found[1] += u32::from(beyond == hit);
                }
                other => assert_ne!(other, Hit::NOWHERE),
            }
        }
    }
    assert!(found[0] > 1900 && found[1] > 20, "{found:?}");
    assert!(found[0] + found[1] > 1990, "{found:?}");
}

/// Whatever its size, a full table takes as many connections as close, before one of those left the
/// index.
#[test]
fn what_closes_makes_room_at_once() {
    let timeouts = Timeouts::default();
    for capacity in 1..40 {
        let mut conns = Conns::new(capacity.into(), [1, 2]).unwrap();
        let open =
            |conns: &mut Conns, n| open(conns, Instant(0), n, TCP, &timeouts).unwrap().entry();
        let mut entries: Vec<u32> = (0..capacity).map(|n| open(&mut conns, n)).collect();
        for round in 1..4 {
            entries.drain(..).for_each(|entry| conns.close(entry));
            entries.extend((0..capacity).map(|n| open(&mut conns, round * capacity + n)));
        }
        conns.settle();
        for (n, entry) in (3 * capacity..).zip(entries) {
            for (tuple, outbound) in sides(n, TCP).iter().zip([false, true]) {
                assert_eq!(conns.find(tuple), Some(Hit::new(entry, outbound)));
            }
        }
    }
}

#[test]
fn states_are_the_recorded_ones() {
    let text = include_str!("../../../tests/oracle/state_tables.json");
    let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
    let events = [
        ("syn", Event::Syn),
        ("fin", Event::Fin),
        ("ack", Event::Ack),
        ("rst", Event::Rst),
    ];
    let mut compared = 0;
    for (variant, secure) in [("normal", false), ("secure", true)] {
        let transitions = Transitions::new(secure);
        for (column, direction) in [
            ("INPUT", Direction::Input),
            ("OUTPUT", Direction::Output),
            ("INPUT_ONLY", Direction::InputOnly),
        ] {
            for (name, event) in events {
                let table = &recorded["tcp"][variant][column][name];
                for state in &State::ALL[..11] {
                    let expected = table[state.name()].as_str().unwrap();
                    let next = state.after(event, direction, transitions).name();
                    let context = format!("{variant} {column} {name} in {}", state.name());
                    assert_eq!(next, expected, "{context}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 2 * 3 * 4 * 11);
}

#[test]
fn sctp_states_are_the_recorded_ones() {
    let text = include_str!("../../../tests/oracle/state_tables.json");
    let recorded: serde_json::Value = serde_json::from_str(text).unwrap();
    let events = [
        ("DATA", Event::SctpData),
        ("INIT", Event::SctpInit),
        ("INIT_ACK", Event::SctpInitAck),
        ("COOKIE_ECHO", Event::SctpCookieEcho),
        ("COOKIE_ACK", Event::SctpCookieAck),
        ("SHUTDOWN", Event::SctpShutdown),
        ("SHUTDOWN_ACK", Event::SctpShutdownAck),
        ("SHUTDOWN_COMPLETE", Event::SctpShutdownComplete),
        ("ERROR", Event::SctpError),
        ("ABORT", Event::SctpAbort),
    ];
    // In full, where listings shorten them.
    let full = |state: State| match state.name().split_once('-') {
        Some(("C", rest)) => format!("COOKIE_{rest}"),
        Some(("S", rest)) => format!("SHUTDOWN_{}", rest.replace('-', "_")),
        _ => state.name().to_owned(),
    };
    let mut compared = 0;
    for (column, direction) in [
        ("INPUT", Direction::Input),
        ("OUTPUT", Direction::Output),
        ("INPUT_ONLY", Direction::InputOnly),
    ] {
        for (name, event) in events {
            let table = recorded["sctp"][column][name].as_object().unwrap();
            for state in &State::ALL[State::SctpNone as usize..] {
                let expected = table[&full(*state)].as_str().unwrap();
                let next = state.after(event, direction, Transitions::new(false));
                assert_eq!(full(next), expected, "{column} {name} in {state:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 3 * 10 * 14);
}

#[test]
fn timeouts_are_the_specified_ones() {
    let timeouts = Timeouts::default();
    let seconds = State::ALL.map(|state| timeouts.ms(state) / 1000);
    assert_eq!(
        seconds,
        [
            2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, // TCP
            300, // UDP
            2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61, // SCTP
        ]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Open(u16, bool),
    Close(u16),
    SetState(u16, usize),
    Packet(u16, bool),
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..24u16;
    let step = prop_oneof![
        4 => (n(), any::<bool>()).prop_map(|(n, udp)| Step::Open(n, udp)),
        1 => n().prop_map(Step::Close),
        3 => (n(), 0..State::ALL.len()).prop_map(|(n, s)| Step::SetState(n, s)),
        3 => (n(), any::<bool>()).prop_map(|(n, outbound)| Step::Packet(n, outbound)),
        3 => prop_oneof![0..400u32, 0..30_000u32, 0..2_000_000u32].prop_map(Step::Wait),
    ];
    vec(step, 1..200)
}

/// What the model knows of one connection: its entry, its state and its last packet.
struct Known {
    entry: u32,
    state: State,
    seen_ms: u64,
}

struct Model {
    conns: Conns,
    known: HashMap<u16, Known>,
    timeouts: Timeouts,
    /// Never wraps; the table sees it wrapped.
    now_ms: u64,
}

impl Model {
    #[expect(clippy::cast_possible_truncation, reason = "the director's time wraps")]
    fn now(&self) -> Instant {
        Instant(self.now_ms as u32)
    }

    fn deadline(&self, known: &Known) -> u64 {
        known.seen_ms + u64::from(self.timeouts.ms(known.state))
    }

    /// Lets the table expire what it finds; each must be due, and each that is overdue must be found.
    fn expire(&mut self) -> Result<(), TestCaseError> {
        let mut budget = 10_000;
        while let Some(entry) = self.conns.due(self.now(), &mut budget) {
            let found = self.known.iter().find(|(_, known)| known.entry == entry);
            let n = *found.expect("only connections there are").0;
            let known = self.known.remove(&n).unwrap();
            prop_assert!(self.deadline(&known) <= self.now_ms, "expired too early");
            self.conns.close(entry);
        }
        prop_assert!(budget > 0, "the timers do not come to rest");
        for known in self.known.values() {
            // It is looked at in the sweep after the unit in which its time runs out, 256 ms each.
            prop_assert!(
                self.deadline(known) + 600 > self.now_ms,
                "{:?} overdue",
                known.state
            );
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let now = self.now();
        match *step {
            Step::Open(n, udp) => {
                if self.known.contains_key(&n) {
                    return Ok(());
                }
                let protocol = if udp { UDP } else { TCP };
                let is_full = self.conns.used() == self.conns.capacity();
                let hit = open(&mut self.conns, now, n, protocol, &self.timeouts);
                prop_assert_eq!(hit.is_none(), is_full);
                if let Some(hit) = hit {
                    let known = Known {
                        entry: hit.entry(),
                        state: self.conns.get(hit).state(),
                        seen_ms: self.now_ms,
                    };
                    self.known.insert(n, known);
                }
            }
            Step::Close(n) => {
                if let Some(known) = self.known.remove(&n) {
                    self.conns.close(known.entry);
                }
            }
            Step::SetState(n, state) => {
                if let Some(known) = self.known.get_mut(&n) {
                    known.state = State::ALL[state];
                    known.seen_ms = self.now_ms;
                    let hit = Hit::new(known.entry, false);
                    self.conns.get(hit).observe(now, false, 40);
                    self.conns
                        .set_state(now, known.entry, known.state, &self.timeouts);
                }
            }
            Step::Packet(n, outbound) => {
                if let Some(known) = self.known.get_mut(&n) {
                    known.seen_ms = self.now_ms;
                    self.conns
                        .get(Hit::new(known.entry, outbound))
                        .observe(now, outbound, 40);
                }
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(ms);
                self.expire()?;
            }
        }
        self.agrees()
    }

    fn agrees(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.conns.used() as usize, self.known.len());
        for n in 0..24 {
            for protocol in [TCP, UDP] {
                let [inbound, outbound] = sides(n, protocol);
                let hit = self.conns.find(&inbound);
                let is_it = |k: &&Known| {
                    self.conns.at(k.entry).is_some() && self.conns.tuple(k.entry, false) == inbound
                };
                let known = self.known.get(&n).filter(is_it);
                prop_assert_eq!(hit, known.map(|known| Hit::new(known.entry, false)));
                let Some(known) = known else { continue };
                let conn = *self.conns.at(known.entry).unwrap();
                prop_assert_eq!(conn.state(), known.state);
                prop_assert_eq!(self.conns.tuple(known.entry, true), outbound);
                let reply = Some(Hit::new(known.entry, true));
                prop_assert_eq!(self.conns.find(&outbound), reply);
            }
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_table_is_a_map_with_deadlines(
        steps in steps(),
        capacity in prop_oneof![1..6u32, Just(64)],
        start in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 40_000)],
    ) {
        let mut model = Model {
            conns: Conns::new(capacity, [7, 9]).unwrap(),
            known: HashMap::new(),
            timeouts: Timeouts::default(),
            now_ms: start,
        };
        model.expire()?;
        for step in &steps {
            model.step(step)?;
        }
        // Two rounds: a half-open connection that asked again is looked at once more.
        for _ in 0..3 {
            model.step(&Step::Wait(1_000_000))?;
        }
        prop_assert_eq!(model.conns.used(), 0);
    }

    #[test]
    fn the_index_is_a_multimap(
        keys in vec((0u16..40, any::<bool>(), any::<bool>()), 1..300),
        secret in prop_oneof![Just([0, 0]), any::<[u64; 2]>()],
    ) {
        // A secret of zeros and few flows make buckets overflow.
        let mut index = Index::new(60, secret).unwrap();
        let mut model = HashSet::new();
        for (n, outbound, insert) in keys {
            let hash = index.hash(&flow(n % 4, TCP));
            let hit = Hit::new(n.into(), outbound);
            if insert && model.len() < 60 && model.insert((n, outbound)) {
                index.insert(hash, hit, n.is_multiple_of(2));
            } else if !insert {
                prop_assert_eq!(index.remove(hash, hit), model.remove(&(n, outbound)));
            }
            for n in 0..40 {
                for outbound in [false, true] {
                    let hit = Hit::new(n.into(), outbound);
                    let found = index.find(index.hash(&flow(n % 4, TCP)), |h| h == hit);
                    prop_assert_eq!(found.is_some(), model.contains(&(n, outbound)));
                }
            }
        }
        for (n, outbound) in model {
            prop_assert!(index.remove(index.hash(&flow(n % 4, TCP)), Hit::new(n.into(), outbound)));
        }
        prop_assert!(index.is_untouched(), "a removal leaves something behind");
    }

    #[test]
    fn timers_come_up_once_and_in_time(
        start in prop_oneof![Just(0), Just(u32::MAX - 100_000), any::<u32>()],
        lives in vec(0u32..1_000_000, 1..40),
        pauses in vec(prop_oneof![0..300u32, 0..100_000u32, 0..20_000_000u32], 1..40),
    ) {
        let entries = u32::try_from(lives.len()).unwrap();
        let mut timers = Timers::new(lives.len()).unwrap();
        let mut now = Instant(start);
        while timers.passed(now, entries, &mut 1000, |_| {}).is_some() {}
        let mut due: HashMap<u32, u32> = HashMap::new();
        for (entry, life) in (0..).zip(&lives) {
            timers.schedule(now, entry, now.plus_ms(*life));
            due.insert(entry, *life);
        }
        let mut elapsed = 0u32;
        for pause in pauses {
            elapsed += pause;
            now = now.plus_ms(pause);
            let (mut budget, mut looked_at) = (10_000, HashSet::new());
            while let Some(entry) = timers.passed(now, entries, &mut budget, |_| {}) {
                match due.get(&entry) {
                    Some(life) if *life <= elapsed => {
                        due.remove(&entry);
                    }
                    // In between, because its time is far, or after a long pause.
                    Some(life) => {
                        let is_far = elapsed > 120 * 256 || pause > 120 * 256;
                        prop_assert!(is_far, "early: {life} at {elapsed}");
                        timers.schedule(now, entry, now.plus_ms(*life - elapsed));
                    }
                    None => timers.schedule(now, entry, now.plus_ms(u32::MAX / 2)),
                }
                prop_assert!(looked_at.insert(entry) || pause > 256, "twice");
            }
            prop_assert!(budget > 0, "the sweep does not come to rest");
            prop_assert!(due.values().all(|life| *life + 512 > elapsed), "late");
        }
    }

    #[test]
    fn half_open_connections_leave_in_order(
        gone in vec(any::<prop::sample::Index>(), 0..10),
        again in vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut timers = Timers::new(20).unwrap();
        let mut queue: Vec<u32> = (0..20).collect();
        for entry in &queue {
            timers.queue_half_open(*entry);
        }
        for index in gone {
            timers.unqueue(queue.remove(index.index(queue.len())));
        }
        for index in again {
            let entry = queue.remove(index.index(queue.len()));
            timers.queue_half_open(entry);
            queue.push(entry);
        }
        while let Some(entry) = timers.oldest_half_open() {
            prop_assert_eq!(entry, queue.remove(0));
            prop_assert_eq!(timers.second_oldest_half_open(), queue.first().copied());
            timers.unqueue(entry);
        }
        prop_assert!(queue.is_empty());
    }
}

/// `ipvsadm --set`: a connection keeps its time until its next packet, then has the new one.
#[test]
fn a_new_timeout_holds_from_the_next_packet_on() {
    let (mut conns, mut timeouts) = (Conns::new(4, [1, 2]).unwrap(), Timeouts::default());
    let at = Instant::from_ms;
    let hit = open(&mut conns, at(0), 0, TCP, &timeouts).unwrap();
    conns.set_state(at(0), hit.entry(), State::Established, &timeouts);
    timeouts.set_s(State::Established, 60);
    assert!(!conns.get(hit).expired(at(899_999)) && conns.get(hit).expired(at(900_000)));
    conns.get(hit).observe(at(1000), false, 40);
    conns.set_state(at(1000), hit.entry(), State::Established, &timeouts);
    assert!(!conns.get(hit).expired(at(60_999)) && conns.get(hit).expired(at(61_000)));
    let due = |conns: &mut Conns, ms| conns.due(at(ms), &mut 100);
    assert_eq!(due(&mut conns, 60_999), None);
    assert_eq!(due(&mut conns, 61_500), Some(hit.entry()));
}

//! The table against a naive model, and under many threads.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};

use proptest::prelude::*;

use super::*;

fn key(client: u8) -> Key<'static> {
    Key {
        kind: Kind::Persistence,
        protocol: 6,
        client: SocketAddr::from(([192, 0, 2, client], 0)),
        virtual_address: SocketAddr::from(([203, 0, 113, 1], 80)),
        engine: &[],
    }
}

fn tie(server: u32, timeout_ms: u32) -> Tie {
    Tie {
        server: ServerId(server),
        server_port: 80,
        timeout_ms,
    }
}

fn at(ms: u32) -> Instant {
    Instant::from_ms(ms)
}

/// Makes a template and lets it go.
fn make(table: &Templates, key: &Key, ms: u32, tie: Tie) -> Option<Tie> {
    let hold = table.make(key, at(ms), tie)?;
    let tie = table.tie(&hold);
    table.release(hold);
    Some(tie)
}

fn find(table: &Templates, key: &Key, ms: u32) -> Option<Tie> {
    let hold = table.find(key, at(ms))?;
    let tie = table.tie(&hold);
    table.release(hold);
    Some(tie)
}

fn list(table: &Templates, ms: u32) -> Vec<Template> {
    let all = 0..table.lines();
    all.filter_map(|line| table.at(line, at(ms))).collect()
}

/// The whole of every worker's share, once.
fn sweep_at(table: &Templates, now: Instant) {
    for me in 0..3 {
        let mut sweep = Sweep::new(me, 3);
        table.sweep(&mut sweep, now.minus_ms(1000), |_| false);
        table.sweep(&mut sweep, now, |_| false);
    }
}

fn sweep(table: &Templates, ms: u32) {
    sweep_at(table, at(ms));
}

#[test]
fn every_part_of_a_key_counts() {
    let table = Templates::new(1000, [1, 2]).unwrap();
    let v6 = |last| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 0));
    let base = key(1);
    let engine = Key {
        kind: Kind::Engine,
        engine: b"a84b4c76e66710@pc33.example.com",
        ..base
    };
    let keys = [
        base,
        Key {
            protocol: 17,
            ..base
        },
        key(2),
        Key {
            virtual_address: SocketAddr::from(([203, 0, 113, 1], 0)),
            ..base
        },
        Key {
            virtual_address: SocketAddr::from(([203, 0, 113, 2], 80)),
            ..base
        },
        Key {
            kind: Kind::Expected,
            client: SocketAddr::from(([192, 0, 2, 1], 2000)),
            ..base
        },
        Key {
            client: v6(1),
            virtual_address: v6(2),
            ..base
        },
        Key {
            client: v6(2),
            virtual_address: v6(1),
            ..base
        },
        engine,
        Key {
            engine: &[7; ENGINE_MAX],
            ..engine
        },
        Key {
            engine: &[7; ENGINE_MAX - 1],
            ..engine
        },
        Key {
            engine: b"",
            ..engine
        },
    ];
    for (server, key) in (0..).zip(&keys) {
        assert_eq!(find(&table, key, 0), None);
        assert_eq!(
            make(&table, key, 0, tie(server, 1000)),
            Some(tie(server, 1000))
        );
    }
    let listed = list(&table, 400);
    assert_eq!(listed.len(), keys.len());
    for (server, key) in (0..).zip(&keys) {
        assert_eq!(find(&table, key, 0), Some(tie(server, 1000)));
        let template = Template {
            kind: key.kind,
            protocol: key.protocol,
            client: key.client,
            virtual_address: key.virtual_address,
            engine: key.engine.to_vec(),
            tie: tie(server, 1000),
            expires_ms: 600,
            assured: false,
            invalid: false,
            controls: 0,
            in_packets: 0,
        };
        assert!(listed.contains(&template), "{template:?}");
    }
}

#[test]
fn a_held_template_is_postponed_and_keeps_its_timeout() {
    let table = Templates::new(100, [1, 2]).unwrap();
    let held = table.make(&key(1), at(0), tie(3, 300_000)).unwrap();
    sweep(&table, 299_999);
    assert_eq!(list(&table, 299_999)[0].expires_ms, 1);
    sweep(&table, 300_000);
    assert_eq!(list(&table, 300_000)[0].expires_ms, 60_000);
    // What comes anew finds it, and its whole time begins.
    let again = table.find(&key(1), at(310_000)).unwrap();
    table.touch(&again, at(310_000));
    assert_eq!(list(&table, 310_000)[0].expires_ms, 300_000);
    table.release(again);
    table.release(held);
    sweep(&table, 609_999);
    assert_eq!((table.used(), table.of_server(ServerId(3))), (1, 1));
    assert_eq!(find(&table, &key(1), 610_000), None);
    assert_eq!((table.used(), table.of_server(ServerId(3))), (0, 0));
}

/// Workers read the clock each for itself.
#[test]
fn a_template_of_a_moment_ahead_has_all_its_time() {
    let table = Templates::new(100, [1, 2]).unwrap();
    make(&table, &key(1), 5_000, tie(0, 1000));
    sweep(&table, 4_990);
    assert_eq!(find(&table, &key(1), 4_990), Some(tie(0, 1000)));
    assert_eq!(list(&table, 4_990)[0].expires_ms, 1000);
}

#[test]
fn an_invalid_template_is_not_found_but_keeps_its_time() {
    let table = Templates::new(100, [1, 2]).unwrap();
    let old = table.make(&key(1), at(0), tie(1, 1000)).unwrap();
    table.invalidate(&old);
    assert_eq!(find(&table, &key(1), 1), None);
    assert_eq!(make(&table, &key(1), 1, tie(2, 5000)), Some(tie(2, 5000)));
    table.release(old);
    let invalid = |ms| list(&table, ms).iter().filter(|t| t.invalid).count();
    assert_eq!((invalid(999), list(&table, 999).len()), (1, 2));
    sweep(&table, 1000);
    assert_eq!((invalid(1000), list(&table, 1000).len()), (0, 1));
}

#[test]
fn an_expected_connection_comes_once() {
    let table = Templates::new(100, [1, 2]).unwrap();
    let expected = Key {
        kind: Kind::Expected,
        ..key(1)
    };
    assert_eq!(table.take(&expected, at(0)), None);
    make(&table, &expected, 0, tie(1, 1000));
    let taken = table.take(&expected, at(1)).unwrap();
    assert_eq!(table.tie(&taken), tie(1, 1000));
    assert_eq!(table.take(&expected, at(1)), None);
    sweep(&table, 2000);
    assert_eq!(table.used(), 1, "while it lives");
    table.release(taken);
    sweep(&table, 62_000);
    assert_eq!(table.used(), 0);
}

#[test]
fn what_is_retracted_is_gone_whether_it_was_taken_or_not() {
    let table = Templates::new(64, [1, 2]).unwrap();
    let probe = Key::probe(6, 50_000, key(1).virtual_address);
    for is_taken in [false, true, false] {
        let hold = table.make(&probe, at(0), tie(1, 0)).unwrap();
        assert!(table.refer_to(ServerId(1)) && table.of_server(ServerId(1)) == 0);
        // Time means nothing to it.
        sweep(&table, 99_000);
        let taken = is_taken.then(|| table.take(&probe, at(99_000)).unwrap());
        assert_eq!(find(&table, &probe, 99_000).is_some(), !is_taken);
        if let Some(taken) = taken {
            table.release(taken);
        }
        assert_eq!(table.retract(hold, at(99_000)), is_taken);
        assert_eq!(table.used(), 0);
    }
    // Who looks at it just now delays its end.
    let hold = table.make(&probe, at(0), tie(1, 0)).unwrap();
    let other = table.find(&probe, at(0)).unwrap();
    table.retract(hold, at(0));
    assert_eq!(find(&table, &probe, 0), None);
    table.release(other);
    sweep(&table, 1);
    assert!(table.used() == 0 && !table.refer_to(ServerId(1)));
}

#[test]
fn a_full_table_gives_up_who_is_the_least_loss() {
    let table = Templates::new(3, [1, 2]).unwrap();
    let held = table.make(&key(1), at(0), tie(0, 1000)).unwrap();
    let assured = table.make(&key(2), at(0), tie(0, 1000)).unwrap();
    table.assure(assured.0);
    table.release(assured);
    make(&table, &key(3), 0, tie(0, 9000));
    assert!(make(&table, &key(4), 0, tie(0, 5000)).is_some());
    assert_eq!(find(&table, &key(3), 1), None);
    assert_eq!(table.used(), 3);
    let other = table.find(&key(4), at(1)).unwrap();
    assert_eq!(make(&table, &key(5), 1, tie(0, 1000)), None);
    assert_eq!((table.used(), table.of_server(ServerId(0))), (3, 3));
    // An assured one goes once its time ran out.
    assert!(make(&table, &key(5), 1000, tie(0, 1000)).is_some());
    assert_eq!(find(&table, &key(2), 1000), None);
    table.release(held);
    table.release(other);
}

/// However full, a bucket never loses or doubles anything.
#[test]
fn the_table_takes_as_many_as_it_says() {
    let table = Templates::new(4000, [5, 6]).unwrap();
    let keys: Vec<Key> = (0..4000u16)
        .map(|n| Key {
            client: SocketAddr::from(([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]], 0)),
            ..key(0)
        })
        .collect();
    let mut made = 0;
    for key in &keys {
        let hold = table.make(key, at(0), tie(0, 1000)).unwrap();
        table.assure(hold.0);
        table.release(hold);
        made += 1;
    }
    assert_eq!(table.used(), made);
    assert_eq!(list(&table, 0).len(), 4000);
    assert!(keys.iter().all(|key| find(&table, key, 0).is_some()));
    assert_eq!(make(&table, &key(1), 0, tie(0, 1)), None);
    for _ in 0..100 {
        sweep(&table, 1000);
    }
    assert_eq!(table.used(), 0);
    assert!(table.words.iter().all(|word| taken(word.load(SeqCst)) == 0));
    assert!(table.lines.iter().all(|line| line.life.load(SeqCst) == 0));
}

#[derive(Debug, Clone)]
enum Step {
    /// Client, server, timeout.
    Make(u8, u32, u32),
    /// One more connection of a client.
    Use(u8),
    /// A connection of a client ends.
    End(u8),
    Invalidate(u8),
    Take(u8),
    Assure(u8),
    Wait(u32),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6u8, 0..4u32, 1..100_000u32).prop_map(|(c, s, t)| Step::Make(c, s, t)),
        (0..6u8).prop_map(Step::Use),
        (0..6u8).prop_map(Step::End),
        (0..6u8).prop_map(Step::Invalidate),
        (0..6u8).prop_map(Step::Take),
        (0..6u8).prop_map(Step::Assure),
        (0..70_000u32).prop_map(Step::Wait),
        Just(Step::Sweep),
    ]
}

/// What a template is in the model. Its connections hold it.
struct Known {
    client: u8,
    tie: Tie,
    deadline: u64,
    holds: Vec<Hold>,
    findable: bool,
    assured: bool,
}

proptest! {
    #[test]
    fn the_table_is_a_list(
        steps in proptest::collection::vec(step(), 1..120),
        start in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 100_000)],
    ) {
        let table = Templates::new(64, [3, 4]).unwrap();
        let (mut model, mut now_ms) = (Vec::<Known>::new(), start);
        #[expect(clippy::cast_possible_truncation, reason = "the director's time wraps")]
        let instant = |ms: u64| Instant(ms as u32);
        for step in steps {
            let now = instant(now_ms);
            // A look-up counts what is over as none, and so does the model.
            let alive = |known: &&mut Known, client| {
                known.client == client
                    && known.findable
                    && (!known.holds.is_empty() || known.deadline > now_ms)
            };
            match step {
                Step::Make(client, server, timeout_ms) => {
                    let hold = table.make(&key(client), now, tie(server, timeout_ms)).unwrap();
                    let found = table.tie(&hold);
                    table.release(hold);
                    let known = model.iter_mut().find(|known| alive(known, client));
                    prop_assert_eq!(found, known.as_ref().map_or(tie(server, timeout_ms), |k| k.tie));
                    if known.is_none() {
                        model.retain(|known| known.client != client || !known.findable);
                        let deadline = now_ms + u64::from(timeout_ms);
                        let tie = tie(server, timeout_ms);
                        let holds = Vec::new();
                        model.push(Known { client, tie, deadline, holds, findable: true, assured: false });
                    }
                }
                Step::Use(client) => {
                    let hold = table.find(&key(client), now);
                    let known = model.iter_mut().find(|known| alive(known, client));
                    prop_assert_eq!(hold.is_some(), known.is_some());
                    if let (Some(hold), Some(known)) = (hold, known) {
                        table.touch(&hold, now);
                        known.deadline = now_ms + u64::from(known.tie.timeout_ms);
                        known.holds.push(hold);
                    } else {
                        model.retain(|known| known.client != client || !known.findable);
                    }
                }
                Step::End(client) => {
                    let mut of_client = model.iter_mut().filter(|known| known.client == client);
                    if let Some(hold) = of_client.find_map(|known| known.holds.pop()) {
                        table.release(hold);
                    }
                }
                Step::Invalidate(client) => {
                    if let Some(known) = model.iter_mut().find(|known| alive(known, client)) {
                        let hold = table.find(&key(client), now).unwrap();
                        table.invalidate(&hold);
                        table.release(hold);
                        known.findable = false;
                    }
                }
                Step::Take(client) => {
                    let known = model.iter_mut().find(|known| alive(known, client));
                    let expected = known.as_ref().map(|known| known.tie);
                    let taken = table.take(&key(client), now).map(|hold| {
                        let (tie, line) = (table.tie(&hold), hold.into_number());
                        table.release(Hold::from_number(line));
                        table.dismiss(line);
                        tie
                    });
                    prop_assert_eq!(taken, expected);
                    match known {
                        Some(known) if !known.holds.is_empty() => {
                            known.findable = false;
                            known.deadline = now_ms;
                        }
                        _ => model.retain(|known| known.client != client || !known.findable),
                    }
                }
                Step::Assure(client) => {
                    if let Some(known) = model.iter_mut().find(|known| alive(known, client)) {
                        let hold = table.find(&key(client), now).unwrap();
                        table.assure(hold.0);
                        table.release(hold);
                        known.assured = true;
                    }
                }
                Step::Wait(ms) => now_ms += u64::from(ms),
                Step::Sweep => {
                    sweep_at(&table, now);
                    model.retain(|known| !known.holds.is_empty() || known.deadline > now_ms);
                    for known in model.iter_mut().filter(|known| known.deadline <= now_ms) {
                        known.deadline = now_ms + 60_000;
                    }
                }
            }
            prop_assert_eq!(table.used() as usize, model.len());
            let mut counts = HashMap::new();
            for known in &model {
                *counts.entry(known.tie.server.0).or_insert(0) += 1;
            }
            for server in 0..4 {
                let count = counts.get(&server).copied().unwrap_or(0);
                prop_assert_eq!(table.of_server(ServerId(server)), count);
            }
            let now = instant(now_ms);
            let mut listed: Vec<_> = (0..table.lines())
                .filter_map(|line| table.at(line, now))
                .map(|t| (t.client.ip(), t.tie.server.0, t.expires_ms, t.controls, t.assured, t.invalid))
                .collect();
            let mut expected: Vec<_> = model
                .iter()
                .map(|known| {
                    let left = known.deadline.saturating_sub(now_ms);
                    (
                        key(known.client).client.ip(),
                        known.tie.server.0,
                        u32::try_from(left).unwrap(),
                        u32::try_from(known.holds.len()).unwrap(),
                        known.assured,
                        !known.findable,
                    )
                })
                .collect();
            listed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(listed, expected);
        }
        for known in model {
            for hold in known.holds {
                table.release(hold);
            }
        }
    }
}

/// Many threads find, make, use and end the same few templates: while anyone holds a client's, all
/// who ask are led to the same server; in the end nothing is left.
#[test]
fn threads_agree_on_every_clients_server() {
    const THREADS: u32 = 4;
    const CLIENTS: u8 = 12;
    const ROUNDS: u32 = 30_000;
    let table = Templates::new(16, [7, 8]).unwrap();
    // By client: holders, and above them the server that they were led to.
    let led: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let begin = |client: u8, server: u32| {
        let both = |now: u64| {
            let holders = now & 0xffff_ffff;
            assert!(
                holders == 0 || now >> 32 == u64::from(server),
                "two servers"
            );
            Some(u64::from(server) << 32 | (holders + 1))
        };
        led[usize::from(client)]
            .fetch_update(SeqCst, SeqCst, both)
            .unwrap();
    };
    let clock = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for me in 0..THREADS {
            let (table, led, clock, begin) = (&table, &led, &clock, &begin);
            scope.spawn(move || {
                let mut random = u64::from(me) + 1;
                let mut held = Vec::new();
                let mut sweeper = Sweep::new(me as usize, THREADS as usize);
                for round in 0..ROUNDS {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let client = u8::try_from(random % u64::from(CLIENTS)).unwrap();
                    let now = at(clock.fetch_add(1, SeqCst));
                    let found = table.find(&key(client), now);
                    let tie = tie(me * ROUNDS + round, 20);
                    match found.or_else(|| table.make(&key(client), now, tie)) {
                        Some(hold) => {
                            begin(client, table.tie(&hold).server.0);
                            table.touch(&hold, now);
                            held.push((client, hold));
                        }
                        None => assert!(table.used() >= 12, "refused without need"),
                    }
                    if held.len() > (random >> 32) as usize % 6 {
                        let (client, hold) = held.swap_remove(0);
                        led[usize::from(client)].fetch_sub(1, SeqCst);
                        table.release(hold);
                    }
                    table.sweep(&mut sweeper, now, |_| false);
                }
                for (client, hold) in held {
                    led[usize::from(client)].fetch_sub(1, SeqCst);
                    table.release(hold);
                }
            });
        }
    });
    let end = clock.load(SeqCst) + 100_000;
    for line in 0..table.lines() {
        assert_eq!(table.at(line, at(end)).map_or(0, |t| t.controls), 0);
    }
    sweep(&table, end);
    assert_eq!(table.used(), 0);
    assert!(table.persistent.iter().all(|count| count.load(SeqCst) == 0));
    assert!(table.lines.iter().all(|line| line.life.load(SeqCst) == 0));
}

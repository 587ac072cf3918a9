//! That the answer is what the next packet meets, and that asking changes nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::simulation::{World, steps};
use super::super::testbed::{Moves, Testbed, counters, moved};
use super::*;
use crate::sched::Kind;
use crate::wire::flow::{self, Seen};

/// What was said of a packet, and all counters before it came.
pub(in crate::director) struct Foretold {
    rehearsal: Rehearsal,
    before: Vec<Moves>,
    held: u32,
}

impl Foretold {
    /// `None` for what is no whole packet with ports.
    pub(in crate::director) fn new(
        workers: &[Testbed],
        now: Instant,
        from: PortId,
        frame: &[u8],
    ) -> Option<Self> {
        let seen = Seen::parse(frame).ok()?;
        if seen.kind != flow::Kind::Transport {
            return None;
        }
        let query = Query {
            tuple: seen.tuple(frame),
            said: super::super::engine::said(&seen, frame).to_vec(),
            at: Some((from, seen.vlan())),
            toward: None,
        };
        // To print everything takes long.
        let looks = workers[0].page.rx().is_multiple_of(64);
        let dumps = || looks.then(|| workers.iter().map(dump).collect::<Vec<_>>());
        let all = dumps();
        // Here a worker's schedulers go by its own connections.
        let home = workers[0].director.excerpt(now, &query).home;
        let loads = Loads::new([workers[home].page.clone()].into());
        let rehearsal = rehearse::<io::Error>(
            query,
            &loads,
            |worker, query| Ok(workers[worker].director.excerpt(now, query)),
            |_| frame.to_vec(),
        );
        assert!(all == dumps(), "asking changed something");
        Some(Self {
            rehearsal: rehearsal.unwrap(),
            before: workers.iter().map(|bed| counters(&bed.page)).collect(),
            held: workers.iter().map(|bed| bed.page.held.get()).sum(),
        })
    }

    /// What left, and which counters moved, is what was said.
    pub(in crate::director) fn check(&self, workers: &[Testbed]) {
        let Rehearsal {
            excerpt, outcome, ..
        } = &self.rehearsal;
        let (mut all, mut said) = (BTreeMap::new(), counters(&outcome.page));
        for (bed, before) in workers.iter().zip(&self.before) {
            for (name, n) in moved(before, &counters(&bed.page)) {
                *all.entry(name).or_insert(0) += n;
            }
        }
        all.retain(|name, _| !name.ends_with(" rx") && !name.ends_with(" rx_bytes"));
        said.retain(|_, n| *n > 0);
        assert_eq!(
            all, said,
            "{:?}: counters, those foretold last",
            excerpt.tuple
        );
        let sent = workers.iter().flat_map(|bed| &bed.out.sent);
        let sent: Vec<_> = sent.map(|(port, packet)| (*port, packet.bytes())).collect();
        let foretold = outcome.sent.iter();
        let foretold: Vec<_> = foretold.map(|sent| (sent.port, &sent.frame[..])).collect();
        assert_eq!(sent, foretold, "frames, those foretold last");
        let held: u32 = workers.iter().map(|bed| bed.page.held.get()).sum();
        assert_eq!(
            held,
            self.held + outcome.page.held.get(),
            "held, foretold last"
        );
    }
}

/// All of a director that can be printed, and what it counted.
fn dump(bed: &Testbed) -> String {
    let now = Instant::default();
    let conns = bed.director.listed(now);
    let templates = bed.director.listed_templates(now);
    format!("{:?} {conns:?} {templates:?} {:?}", bed.director, bed.page)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever the directors went through, with neighbours known or not, and tables full or not.
    #[test]
    fn the_next_packet_meets_what_was_said(
        kind in kinds(),
        stations in prop::bool::weighted(0.8),
        templates in prop_oneof![Just(1024), Just(2)],
        capacity in prop_oneof![2..6u32, Just(100)],
        workers in 1..3usize,
        steps in steps(),
    ) {
        let mut world = World::by(kind, stations, templates, workers, capacity);
        let mut unasked = World::by(kind, stations, templates, workers, capacity);
        world.foretells = true;
        for (n, step) in steps.iter().enumerate() {
            world.step(step, n % workers)?;
            unasked.step(step, n % workers)?;
        }
        prop_assert!(world.log == unasked.log, "asking made a difference");
    }
}

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use control::{MH_TABLE_SIZE, MH_TABLE_SIZES};
use proptest::prelude::*;

use super::*;
use crate::counters::Page;
use crate::wire::flow::UDP;

const CLIENTS: u32 = 20_000;
/// LVS's size, and one of ours.
const SIZES: [u32; 2] = [MH_TABLE_SIZE, 65_537];

fn member(n: u32, weight: u32) -> Member {
    let ip = Ipv4Addr::from_bits(0x0a01_0000 + n);
    Member {
        id: ServerId(n),
        address: SocketAddr::from((ip, 80)),
        weight,
    }
}

fn members(weights: &[u32]) -> Vec<Member> {
    let numbered = (0..).zip(weights);
    numbered.map(|(n, weight)| member(n, *weight)).collect()
}

fn recipe(kind: Kind, mh_slots: u32, members: &[Member]) -> Recipe {
    Recipe {
        kind,
        ipv6: false,
        mh_slots,
        members: members.to_vec(),
    }
}

fn table(kind: Kind, mh_slots: u32, members: &[Member]) -> Table {
    Table::build(recipe(kind, mh_slots, members)).unwrap()
}

/// Slots of each member.
fn slots(table: &Table) -> Vec<usize> {
    let members = &table.recipe().members;
    let mut counts = vec![0; members.len()];
    for place in &table.slots {
        counts[*place as usize] += 1;
    }
    counts
}

/// A scheduler over these servers, all of them usable.
struct Picker {
    scheduler: Box<dyn Scheduler>,
    servers: Vec<Candidate>,
    loads: Loads,
}

impl Picker {
    fn new(kind: Kind, mh_slots: u32, members: &[Member]) -> Self {
        let mut scheduler = kind.bind(&[], 1);
        scheduler.tabled(&Arc::new(table(kind, mh_slots, members)));
        let candidate = |member: &Member| Candidate {
            id: member.id,
            address: member.address,
            mode: ForwardMode::Nat,
            weight: member.weight,
            last_weight: member.weight,
            limit: Limit::default(),
        };
        Self {
            scheduler,
            servers: members.iter().map(candidate).collect(),
            loads: Loads::new([Arc::new(Page::new(1, 1).unwrap())].into()),
        }
    }

    fn pick(&mut self, from: SocketAddr, connection_id: Option<u64>) -> Option<ServerId> {
        let ask = Ask {
            now: Instant::default(),
            tuple: &Tuple {
                protocol: UDP,
                from,
                to: SocketAddr::from(([192, 0, 2, 1], 443)),
            },
            instead: None,
            servers: &self.servers,
            loads: &self.loads,
            flags: SchedulerFlags::default(),
            connection_id,
        };
        let picked = self.scheduler.pick(&ask)?;
        Some(self.servers[picked].id)
    }

    /// Who serves each of many clients.
    fn all(&mut self) -> Vec<Option<ServerId>> {
        let client =
            |n: u32| IpAddr::from(Ipv4Addr::from_bits(0xc633_0000u32.wrapping_add(n * 7919)));
        (0..CLIENTS)
            .map(|n| self.pick((client(n), 999).into(), None))
            .collect()
    }
}

/// The part of clients of other servers than `changed` that `after` serves elsewhere than `before`.
fn moved(before: &[Option<ServerId>], after: &[Option<ServerId>], changed: ServerId) -> f64 {
    let pairs = before.iter().zip(after);
    let moved = pairs.filter(|(a, b)| a != b && ![**a, **b].contains(&Some(changed)));
    moved.count() as f64 / before.len() as f64
}

/// Slots as the reference counts them.
#[test]
fn mh_fills_its_table_by_weight() {
    for (weights, expected) in [
        ([1, 1, 1], [1364, 1364, 1365]),
        ([1, 2, 3], [682, 1364, 2047]),
        ([1, 65535, 3], [62, 3968, 63]),
        ([10, 20, 65535], [77, 77, 3939]),
        ([1, 64, 128], [83, 1328, 2682]),
    ] {
        let ip = |n| SocketAddr::from(([10, 0, 0, n], 80));
        let mut members = members(&weights);
        for (n, member) in (1..).zip(&mut members) {
            member.address = ip(n);
        }
        let table = table(Kind::Mh, MH_TABLE_SIZE, &members);
        assert_eq!(slots(&table), expected, "{weights:?}");
    }
    for size in MH_TABLE_SIZES.into_iter().chain([257, 65_537, 1_048_573]) {
        let table = table(Kind::Mh, size, &members(&[1; 3]));
        let third = size as usize / 3;
        let counts = slots(&table);
        assert_eq!(counts.iter().sum::<usize>(), size as usize);
        assert!(counts.iter().all(|n| (third..=third + 1).contains(n)));
    }
}

#[test]
fn a_server_that_comes_or_goes_moves_few_clients_of_others() {
    let all = members(&[1; 100]);
    let gone = all[37];
    let rest: Vec<Member> = all.iter().filter(|m| **m != gone).copied().collect();
    for (kind, size, most) in [
        (Kind::Mh, SIZES[0], 0.05),
        (Kind::Mh, SIZES[1], 0.01),
        (Kind::Conhash, SIZES[0], 0.0),
    ] {
        let with = Picker::new(kind, size, &all).all();
        let without = Picker::new(kind, size, &rest).all();
        let own = with.iter().filter(|id| **id == Some(gone.id)).count();
        let moved = moved(&with, &without, gone.id);
        println!(
            "{} of {size}: of {CLIENTS} clients {own} had the server, {:.2} % of all others move",
            kind.name(),
            100.0 * moved,
        );
        assert!(own > 0 && moved <= most, "{} moves {moved}", kind.name());
    }
}

#[test]
fn shares_are_by_weight() {
    let weights = [1, 2, 3, 4, 10];
    let sum = f64::from(weights.iter().sum::<u32>());
    for (kind, size, off_by) in [
        (Kind::Mh, SIZES[0], 0.06),
        (Kind::Mh, SIZES[1], 0.04),
        (Kind::Conhash, SIZES[0], 0.25),
    ] {
        let picks = Picker::new(kind, size, &members(&weights)).all();
        for (n, weight) in (0..).zip(weights) {
            let count = picks.iter().filter(|id| **id == Some(ServerId(n))).count();
            let expected = f64::from(weight) / sum;
            let share = count as f64 / picks.len() as f64;
            println!(
                "{} of {size}: weight {weight} of {sum} has {:.2} %, its share is {:.2} %",
                kind.name(),
                100.0 * share,
                100.0 * expected,
            );
            assert!(
                (share / expected - 1.0).abs() < off_by,
                "{share}, not {expected}"
            );
        }
    }
}

#[test]
fn very_different_weights_have_a_ring_of_bounded_size() {
    let table = table(
        Kind::Conhash,
        MH_TABLE_SIZE,
        &members(&[1, i32::MAX as u32, 0]),
    );
    let counts = slots(&table);
    assert_eq!((counts[0], counts[2]), (1, 0));
    assert!((1 << 19..=1 << 20).contains(&counts[1]), "{counts:?}");
    let none = Picker::new(Kind::Conhash, MH_TABLE_SIZE, &[]).all();
    assert!(none.iter().all(Option::is_none));
}

/// What clients of a quiesced server get, and that it has them again.
#[test]
fn conhash_moves_the_clients_of_a_quiesced_server_only() {
    let all = members(&[2, 2, 2]);
    let mut picker = Picker::new(Kind::Conhash, MH_TABLE_SIZE, &all);
    let before = picker.all();
    picker.servers[1].weight = 0;
    let during = picker.all();
    assert!(during.iter().all(|id| id.is_some_and(|id| id != all[1].id)));
    assert_eq!(moved(&before, &during, all[1].id), 0.0);
    picker.servers[0].weight = 0;
    picker.servers[2].weight = 0;
    assert!(picker.all().iter().all(Option::is_none));
}

#[test]
fn conhash_knows_a_connection_by_its_id() {
    let mut picker = Picker::new(Kind::Conhash, MH_TABLE_SIZE, &members(&[1; 10]));
    let mut served = BTreeSet::new();
    for id in 0..1000 {
        let mut from = |address: &str| picker.pick(address.parse().unwrap(), Some(id));
        let server = from("198.51.100.1:1000").unwrap();
        assert_eq!(from("198.51.100.1:2000"), Some(server));
        assert_eq!(from("203.0.113.77:2000"), Some(server));
        served.insert(server.0);
    }
    assert_eq!(served.len(), 10);
}

/// One that is behind the servers, in the middle of a batch, names none that moved.
#[test]
fn a_table_of_other_servers_names_none_of_them() {
    for kind in [Kind::Mh, Kind::Conhash] {
        let mut picker = Picker::new(kind, MH_TABLE_SIZE, &members(&[1; 4]));
        let before = picker.all();
        picker.servers.remove(1);
        for (before, now) in before.iter().zip(picker.all()) {
            assert!(now.is_none() || kind == Kind::Conhash || now == *before);
            assert_ne!(now, Some(ServerId(1)));
        }
        picker.servers.clear();
        assert!(picker.all().iter().all(Option::is_none));
    }
}

proptest! {
    /// Directors whose servers were added in another order, and have other numbers there.
    #[test]
    fn every_director_picks_the_same(
        weights in proptest::collection::vec(0u32..50, 1..12),
        turn in 0usize..12,
    ) {
        let one = members(&weights);
        let mut other = one.clone();
        other.rotate_left(turn % one.len());
        other.reverse();
        for (n, member) in (100..).zip(&mut other) {
            member.id = ServerId(n);
        }
        for (kind, size) in [(Kind::Conhash, MH_TABLE_SIZE), (Kind::Mh, 257), (Kind::Mh, 65_537)] {
            let addresses = [&one, &other].map(|members| {
                let table = table(kind, size, members);
                let of = |place: &u32| members[*place as usize].address;
                (table.ends.to_vec(), table.slots.iter().map(of).collect::<Vec<_>>())
            });
            prop_assert_eq!(&addresses[0], &addresses[1]);
        }
    }
}

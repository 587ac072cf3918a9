//! `directord bench --instructions`: so many packets and connections of each kind, the same in every
//! run, for callgrind to count what the director spends on them (`scripts/instructions`). What is
//! counted is [`generator::step`]; a call of [`phase_ended`] parts one count from the next.

use std::hint::black_box;

use anyhow::Result;
use control::Protocol;

use super::Lab;
use super::generator::{Generator, Pace, Script, cables};
use super::measure::Meter;
use super::network::Site;
use super::way::{Family, Method, Way};
use crate::exchange::exchanges;
use crate::steer::Steer;

/// Established connections, and clients of which each is gone before it could come back.
const FLOWS: u32 = 1000;
/// Rounds of established traffic, after some that fill the delay between question and answer.
const ROUNDS: u32 = 128;
const WARMING: u32 = 8;
/// Packets that an answer waits for: no cache is looked at.
const DELAY: usize = 64;
/// A millisecond is long for who forwards ten packets in a microsecond.
const BUSY: Pace = Pace::Begun {
    ms: 1,
    each: 10_000,
};
/// Connections that are counted, after as many that fill the table.
const CONNECTIONS: u64 = 2000;
/// A connection that ended is remembered for two minutes.
const AGEING: Pace = Pace::Begun {
    ms: 4000,
    each: FLOWS / 30,
};

/// Where packets of two workers arrive.
#[derive(Debug, Clone, Copy)]
enum Arrival {
    /// At home, as the device says.
    AtHome,
    /// At home, which nobody says.
    ByChance,
    /// At the other worker.
    Astray,
}

/// One count: `name` had so many packets or connections.
struct Counted {
    name: String,
    times: u64,
}

/// Plays everything; prints what each of callgrind's counts is of, in their order: a number and a
/// name a line.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(super) fn run(lab: &Lab) -> Result<()> {
    let mut counted = Vec::new();
    for (name, arrival) in [
        ("at home with one of two", Arrival::AtHome),
        ("at home by chance", Arrival::ByChance),
        ("steered", Arrival::Astray),
    ] {
        counted.extend(shared(lab, name, arrival)?);
    }
    for way in Way::all() {
        counted.extend(packets(lab, way)?);
        if is_opened(way) {
            counted.extend(connections(lab, way)?);
            counted.extend(syns(lab, way)?);
        }
    }
    for Counted { name, times } in counted {
        println!("{times} {name}");
    }
    Ok(())
}

/// Whether opening and closing is counted too: what differs in it.
fn is_opened(way: Way) -> bool {
    match way.family {
        Family::Ipv4 => !matches!(way.method, Method::Gre | Method::Gue),
        Family::Ipv6 => way.method == Method::Nat,
        Family::Mixed => false,
    }
}

fn packets(lab: &Lab, way: Way) -> Result<[Counted; 2]> {
    let mut generator = lab.generator(Site::of(way), FLOWS, BUSY)?.delayed(DELAY);
    let mut meter = Meter::new(lab.clock);
    generator.open(FLOWS, &mut meter)?;
    generator.play(Script::Established(FLOWS), &mut meter)?;
    rounds(&mut generator, WARMING, &mut meter)?;
    let before = Counted::until(format!("before {way}"), &mut meter);
    rounds(&mut generator, ROUNDS, &mut meter)?;
    Ok([before, Counted::until(format!("{way} packet"), &mut meter)])
}

/// Packets of two workers, in turns on one core.
fn shared(lab: &Lab, name: &str, arrival: Arrival) -> Result<[Counted; 2]> {
    let way = Way::nat(Protocol::Tcp);
    let mut meter = Meter::new(lab.clock);
    let mut workers = Vec::new();
    for (me, (exchange, cable)) in exchanges(2).into_iter().zip(cables()).enumerate() {
        let steer = || Steer::new(me, 2);
        let generator = lab.generator_of(Site::of(way), FLOWS, BUSY, steer())?;
        let mut generator = generator.delayed(DELAY).among(steer(), exchange);
        generator.open(FLOWS, &mut meter)?;
        match arrival {
            Arrival::AtHome => generator.spread_by_device(),
            Arrival::ByChance => {}
            Arrival::Astray => generator.cross(cable),
        }
        generator.switch(Script::Established(FLOWS));
        workers.push(generator);
    }
    let mut play = |count| {
        for _ in 0..count {
            workers
                .iter_mut()
                .try_for_each(|worker| worker.round(&mut meter))?;
        }
        anyhow::Ok(std::mem::take(&mut meter.packets))
    };
    let count = |name, times| {
        phase_ended();
        Counted { name, times }
    };
    let before = count(format!("before {way}"), play(WARMING)?);
    let name = format!("{way} packet, {name}");
    Ok([before, count(name, play(ROUNDS)?)])
}

fn rounds(generator: &mut Generator, count: u32, meter: &mut Meter) -> Result<()> {
    (0..count).try_for_each(|_| generator.round(meter))
}

fn connections(lab: &Lab, way: Way) -> Result<[Counted; 2]> {
    let mut generator = lab
        .generator(Site::of(way), 4 * FLOWS, AGEING)?
        .delayed(DELAY);
    let mut meter = Meter::new(lab.clock);
    generator.play(Script::Strangers, &mut meter)?;
    generator.complete(CONNECTIONS, &mut meter)?;
    let before = Counted::until(format!("before {way}"), &mut meter);
    let completed = generator.completed();
    generator.complete(CONNECTIONS, &mut meter)?;
    let times = generator.completed() - completed;
    phase_ended();
    let name = format!("{way} connection");
    Ok([before, Counted { name, times }])
}

/// First packets into a full table, each of which ends the oldest connection that nobody answered.
fn syns(lab: &Lab, way: Way) -> Result<[Counted; 2]> {
    let mut generator = lab.generator(Site::of(way), FLOWS, BUSY)?.delayed(DELAY);
    let mut meter = Meter::new(lab.clock);
    let flood = Script::Flood {
        of_eight: 8,
        flows: 0,
    };
    generator.play(flood, &mut meter)?;
    generator.complete(2 * u64::from(FLOWS), &mut meter)?;
    let before = Counted::until(format!("before {way}"), &mut meter);
    generator.complete(CONNECTIONS, &mut meter)?;
    Ok([before, Counted::until(format!("{way} SYN"), &mut meter)])
}

impl Counted {
    /// The packets that `meter` saw, which begins anew.
    fn until(name: String, meter: &mut Meter) -> Self {
        phase_ended();
        let times = std::mem::take(&mut meter.packets);
        Self { name, times }
    }
}

/// Where callgrind writes down what it counted, and begins anew.
#[inline(never)]
fn phase_ended() {
    black_box(());
}

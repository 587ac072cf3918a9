//! Two workers on two cores, each with clients of its own: where every packet arrives at its home, because
//! the device spreads them or because it happens to, where half of them arrive at the other worker, as when a
//! device spreads them in its own way, and where all do. That one hands them over.
//!
//! What two cores of this machine allow at all is found beside it, in turns with it, by two directors that
//! know nothing of each other. Workers that share nothing come as near to that as windows are alike.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control::Protocol;

use crate::bench::generator::{Cable, Generator, MBUFS, Pace, Script, cables};
use crate::bench::measure::{Meter, Spread};
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::{Bench, Lab, Way, Workload};
use crate::counters::{Page, balanced};
use crate::cpu;
use crate::dpdk::{Mbuf, register_worker};
use crate::exchange::{Exchange, exchanges};
use crate::steer::Steer;

/// Of each worker.
const FLOWS: u32 = 100_000;
/// Each has room for so many: of twice as many flows nearly half are at home with each.
const ROOM: u32 = FLOWS + FLOWS / 16;
/// Rounds after which it is asked whether anything is still under way.
const SETTLING: u32 = 256;
/// There and back again.
const TRIPS: u32 = 1000;
/// Between two looks whether the others have come.
const NAP: Duration = Duration::from_micros(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    One,
    Apart,
    Spread,
    Home,
    Half,
    Steered,
}

impl Case {
    const ALL: [Self; 6] = [
        Self::One,
        Self::Apart,
        Self::Spread,
        Self::Home,
        Self::Half,
        Self::Steered,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::One => "one worker",
            Self::Apart => "two directors that share nothing at all",
            Self::Spread => "two workers, the device spreads packets",
            Self::Home => "two workers, packets arrive at home",
            Self::Half => "two workers, half is steered",
            Self::Steered => "two workers, all is steered",
        }
    }

    /// How many cores work.
    fn cores(self) -> usize {
        match self {
            Self::One => 1,
            _ => 2,
        }
    }

    /// Of which each worker has the part that is at home with it.
    #[expect(clippy::cast_possible_truncation, reason = "one or two times")]
    fn flows(self) -> u32 {
        self.workers() as u32 * FLOWS
    }

    /// How many workers know of each other.
    fn workers(self) -> usize {
        match self {
            Self::One | Self::Apart => 1,
            _ => 2,
        }
    }
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let (first, second) = (bench.options.core, bench.options.second_core);
    let cores = if first == second {
        vec![first]
    } else {
        vec![first, second]
    };
    if cores.len() < 2 {
        bench.progress("  one core only: no second worker");
    }
    bench.yardstick.sample();
    // One pool for all, as a director has: packets are freed where they leave, and used there again.
    let lab = Lab::named(bench.eal, bench.lab.clock, "workers", 2 * MBUFS + 1)?;
    let meeting = Meeting::new(cores.len());
    let plan = Plan {
        windows: bench.options.windows(),
        window_ms: bench.options.window_ms(),
        meeting: &meeting,
    };
    let eal = bench.eal;
    let places: Vec<_> = cores.iter().zip(seats()).collect();
    let found: Vec<Result<Vec<Found>>> = thread::scope(|scope| {
        let threads: Vec<_> = places
            .into_iter()
            .enumerate()
            .map(|(me, (core, seats))| {
                let (plan, lab) = (&plan, &lab);
                scope.spawn(move || {
                    let done = register_worker(eal, *core)
                        .map_err(anyhow::Error::from)
                        .and_then(|_thread| plan.work(me, lab, seats));
                    if done.is_err() {
                        plan.meeting.failed.store(true, SeqCst);
                    }
                    done
                })
            })
            .collect();
        let ended = threads.into_iter().map(|thread| thread.join());
        ended
            .map(|done| done.unwrap_or_else(|_| bail!("a worker panicked")))
            .collect()
    });
    let found = found.into_iter().collect::<Result<Vec<_>>>()?;
    report(bench, &found)
}

/// What each worker has in each case that connects it with the other.
fn seats() -> [Vec<Seat>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for case in Case::ALL {
        let is_crossed = matches!(case, Case::Half | Case::Steered);
        let cables = cables().map(|cable| is_crossed.then_some(cable));
        let ends = exchanges(case.workers()).into_iter().map(Some);
        let ends = ends.chain([None]).zip(cables);
        for (seats, (exchange, cable)) in all.iter_mut().zip(ends) {
            let exchange = exchange.unwrap_or_default();
            seats.push(Seat {
                case,
                exchange,
                cable,
            });
        }
    }
    all
}

/// A row a case.
fn report(bench: &mut Bench<'_>, found: &[Vec<Found>]) -> Result<()> {
    let (mut one, mut apart) = (f64::NAN, f64::NAN);
    for case in Case::ALL {
        if case.cores() > found.len() {
            continue;
        }
        let all = found.iter().flatten().filter(|found| found.case == case);
        let all: Vec<_> = all.collect();
        let pages: Vec<&Page> = all.iter().map(|found| &*found.page).collect();
        let name = case.name();
        ensure!(
            balanced(pages.iter().copied()),
            "{name}: packets are unaccounted for"
        );
        let windows = 0..bench.options.windows() as usize;
        let together =
            windows.map(|window| all.iter().map(|found| found.rates[window]).sum::<f64>() * 1e3);
        let rate = Spread::most(together);
        match case {
            Case::One => one = rate.best,
            Case::Apart => apart = rate.best,
            _ => {}
        }
        let share = all.iter().map(|found| found.core_share).fold(1.0, f64::min);
        let dropped: u64 = (pages.iter().flat_map(|page| &page.ports))
            .map(|port| port.dropped())
            .sum();
        let row = Row::new(Workload::Workers, name)
            .with("Mpps", rate)
            .with("rate_to_one", rate.best / one)
            .with("to_two_apart", rate.best / apart)
            .with("core_share", share)
            .with("stalls", all.iter().map(|found| found.stalls).sum::<u32>())
            .with("dropped", dropped);
        let trips = all.iter().flat_map(|found| &found.trips).copied();
        bench.rows.push(match case.cores() {
            1 => row,
            _ => row.with("ns_across", Spread::least(trips)),
        });
    }
    Ok(())
}

/// What every worker does.
struct Plan<'p> {
    windows: u32,
    window_ms: u32,
    meeting: &'p Meeting,
}

/// A worker's place in one case.
struct Seat {
    case: Case,
    exchange: Exchange<Mbuf>,
    cable: Option<Cable>,
}

/// What one worker found in one case.
struct Found {
    case: Case,
    /// Packets that it forwarded, by nanoseconds of its work, in each window.
    rates: Vec<f64>,
    stalls: u32,
    /// The least part of a window that it had its core.
    core_share: f64,
    /// Nanoseconds that a word took to the other core, just before each window.
    trips: Vec<f64>,
    page: Arc<Page>,
}

/// A case under way.
struct Player {
    generator: Generator,
    found: Found,
}

impl Plan<'_> {
    fn work(&self, me: usize, lab: &Lab, seats: Vec<Seat>) -> Result<Vec<Found>> {
        let mut players = Vec::new();
        for seat in seats {
            // The other worker opens its flows meanwhile.
            self.meeting.meet()?;
            if me < seat.case.cores() {
                players.push(self.open(me, lab, seat)?);
            }
        }
        for _ in 0..self.windows {
            for case in Case::ALL {
                self.meeting.meet()?;
                if let Some(player) = players.iter_mut().find(|player| player.found.case == case) {
                    if case.cores() == 2 {
                        player.found.trips.push(self.meeting.trip(me, lab)?);
                    }
                    player.window(lab, self.window_ms)?;
                }
            }
        }
        for case in Case::ALL {
            let player = players.iter_mut().find(|player| player.found.case == case);
            self.settle(me, lab, player.map(|player| &mut player.generator))?;
        }
        Ok(players.into_iter().map(|player| player.found).collect())
    }

    fn open(&self, me: usize, lab: &Lab, seat: Seat) -> Result<Player> {
        let (case, site) = (seat.case, Site::of(Way::nat(Protocol::Tcp)));
        let workers = case.workers();
        let steer = || Steer::new(me % workers, workers);
        let pace = Pace::Real(lab.clock);
        let generator = lab.generator_of(site, ROOM, pace, steer())?;
        let mut generator = generator.among(steer(), seat.exchange);
        if case == Case::Spread {
            generator.spread_by_device();
        }
        let mut meter = Meter::new(lab.clock);
        generator.switch(Script::Open(case.flows()));
        while generator.begun() < case.flows() {
            generator.round(&mut meter)?;
        }
        while generator.is_busy() {
            generator.drain(&mut meter)?;
        }
        match seat.cable {
            Some(cable) if case == Case::Half => generator.scatter(cable),
            Some(cable) => generator.cross(cable),
            None => {}
        }
        generator.switch(Script::Established(case.flows()));
        let page = Arc::clone(generator.director().page());
        let found = Found {
            case,
            rates: Vec::new(),
            stalls: 0,
            core_share: 1.0,
            trips: Vec::new(),
            page,
        };
        Ok(Player { generator, found })
    }

    /// Goes on until nothing is under way at any worker.
    fn settle(&self, me: usize, lab: &Lab, generator: Option<&mut Generator>) -> Result<()> {
        let mut meter = Meter::new(lab.clock);
        let mut generator = generator;
        if let Some(generator) = &mut generator {
            generator.switch(Script::Open(0));
        }
        loop {
            let mut is_busy = false;
            if let Some(generator) = &mut generator {
                (0..SETTLING).try_for_each(|_| generator.drain(&mut meter))?;
                self.meeting.meet()?;
                is_busy = generator.is_busy();
            } else {
                self.meeting.meet()?;
            }
            self.meeting.busy[me].store(is_busy, SeqCst);
            self.meeting.meet()?;
            let is_busy = self.meeting.busy.iter().any(|busy| busy.load(SeqCst));
            self.meeting.meet()?;
            if !is_busy {
                return Ok(());
            }
        }
    }
}

impl Player {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn window(&mut self, lab: &Lab, ms: u32) -> Result<()> {
        let forwarded =
            |page: &Page| -> u64 { page.ports.iter().map(|port| port.forwarded.get()).sum() };
        let (mut meter, before) = (Meter::new(lab.clock), forwarded(&self.found.page));
        let (began, had) = (cpu::cycles(), core_ns()?);
        let end = lab.clock.deadline(ms);
        while cpu::cycles() < end {
            self.generator.round(&mut meter)?;
        }
        let share = (core_ns()? - had) as f64 / lab.clock.ns(cpu::cycles() - began);
        let found = &mut self.found;
        found.core_share = found.core_share.min(share);
        found
            .rates
            .push((forwarded(&found.page) - before) as f64 / meter.ns());
        found.stalls += meter.stalls;
        Ok(())
    }
}

/// How long the calling thread had a core so far.
fn core_ns() -> Result<u64> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let first = text.split_whitespace().next();
    first
        .and_then(|ns| ns.parse().ok())
        .with_context(|| format!("{path} says {text:?}"))
}

/// Where workers wait for each other.
struct Meeting {
    workers: usize,
    came: AtomicUsize,
    failed: AtomicBool,
    busy: [AtomicBool; 2],
    /// What goes from one core to the other and back.
    word: Word,
}

/// In a line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Word(AtomicU32);

impl Meeting {
    fn new(workers: usize) -> Self {
        Self {
            workers,
            came: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            busy: Default::default(),
            word: Word::default(),
        }
    }

    /// How many nanoseconds a word takes from one of two cores to the other: what a cache line takes at
    /// least, which depends on where the machine has put the cores just now.
    fn trip(&self, me: usize, lab: &Lab) -> Result<f64> {
        let Word(word) = &self.word;
        let (mine, began) = (u32::from(me != 0), cpu::cycles());
        for _ in 0..TRIPS {
            while word.load(SeqCst) % 2 != mine {
                ensure!(!self.failed.load(SeqCst), "another worker ended");
                std::hint::spin_loop();
            }
            word.fetch_add(1, SeqCst);
        }
        let ns = lab.clock.ns(cpu::cycles() - began);
        Ok(ns / f64::from(2 * TRIPS))
    }

    /// Returns when all came; an error if one never will. Whoever waits leaves its core alone, which may be
    /// half of another one.
    fn meet(&self) -> Result<()> {
        let all = (self.came.fetch_add(1, SeqCst) / self.workers + 1) * self.workers;
        while self.came.load(SeqCst) < all {
            ensure!(!self.failed.load(SeqCst), "another worker ended");
            thread::sleep(NAP);
        }
        Ok(())
    }
}

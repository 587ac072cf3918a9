//! Two workers on two cores, each with clients of its own: where every packet arrives at its home, and
//! where every packet arrives at the other worker, which hands it over by the ring between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use anyhow::{Result, bail, ensure};
use control::Protocol;

use crate::bench::generator::{Cable, Generator, Pace, Script, cables};
use crate::bench::measure::{Meter, Spread};
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::{Bench, Lab, Way, Workload};
use crate::counters::{Page, balanced};
use crate::cpu;
use crate::dpdk::register_worker;
use crate::steer::Steer;
use crate::worker::{Links, links};

const FLOWS: u32 = 100_000;
/// Rounds after which it is asked whether anything is still under way.
const SETTLING: u32 = 256;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let one = measure(bench, "one worker", 1, false, None)?;
    if bench.options.second_core == bench.options.core {
        bench.progress("  one core only: no second worker");
        return Ok(());
    }
    let (home, steered) = (
        "two workers, packets arrive at home",
        "two workers, all is steered",
    );
    measure(bench, home, 2, false, Some(one))?;
    measure(bench, steered, 2, true, Some(one))?;
    Ok(())
}

/// Packets in a microsecond that all workers forward together.
fn measure(
    bench: &mut Bench<'_>,
    case: &str,
    workers: usize,
    steered: bool,
    one: Option<f64>,
) -> Result<f64> {
    bench.progress(&format!("  {case}"));
    bench.yardstick.sample();
    let meeting = Meeting::new(workers);
    let plan = Plan {
        lab: &bench.lab,
        workers,
        windows: bench.options.windows(),
        window_ms: bench.options.window_ms(),
        meeting: &meeting,
    };
    let (eal, cores) = (bench.eal, [bench.options.core, bench.options.second_core]);
    let found: Vec<_> = thread::scope(|scope| {
        let cables = cables().map(|cable| steered.then_some(cable));
        let threads: Vec<_> = links(workers)
            .into_iter()
            .zip(cables)
            .enumerate()
            .map(|(me, (links, cable))| {
                let (plan, core) = (&plan, cores[me]);
                scope.spawn(move || {
                    let done = register_worker(eal, core)
                        .map_err(anyhow::Error::from)
                        .and_then(|_thread| plan.work(me, links, cable));
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
    let pages: Vec<&Page> = found.iter().map(|found| &*found.page).collect();
    ensure!(
        balanced(pages.iter().copied()),
        "{case}: packets are unaccounted for"
    );
    let together = (0..plan.windows as usize)
        .map(|window| found.iter().map(|found| found.rates[window]).sum::<f64>() * 1e3);
    let rate = Spread::most(together);
    let dropped: u64 = pages
        .iter()
        .flat_map(|page| &page.ports)
        .map(|port| port.dropped())
        .sum();
    let row = Row::new(Workload::Workers, case)
        .with("Mpps", rate)
        .with("rate_to_one", one.map_or(1.0, |one| rate.best / one))
        .with(
            "stalls",
            found.iter().map(|found| found.stalls).sum::<u32>(),
        )
        .with("dropped", dropped);
    bench.rows.push(row);
    Ok(rate.best)
}

/// What every worker does.
struct Plan<'p> {
    lab: &'p Lab,
    workers: usize,
    windows: u32,
    window_ms: u32,
    meeting: &'p Meeting,
}

/// What one worker found.
struct Found {
    /// Packets that it forwarded, by nanoseconds of its work, in each window.
    rates: Vec<f64>,
    stalls: u32,
    page: Arc<Page>,
}

impl Plan<'_> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn work(&self, me: usize, links: Links, cable: Option<Cable>) -> Result<Found> {
        let site = Site::of(Way::nat(Protocol::Tcp));
        let clock = self.lab.clock;
        let steer = || Steer::new(me, self.workers);
        let pace = Pace::Real(clock);
        let generator = (self.lab).generator_of(site, FLOWS, pace, steer())?;
        let mut generator = generator.among(steer(), links);
        let mut meter = Meter::new(clock);
        self.meeting.meet()?;
        generator.switch(Script::Open(FLOWS));
        while generator.begun() < FLOWS {
            generator.round(&mut meter)?;
        }
        self.settle(me, &mut generator)?;
        if let Some(cable) = cable {
            generator.cross(cable);
        }
        generator.switch(Script::Established(FLOWS));
        let page = Arc::clone(generator.director().page());
        let forwarded = || {
            page.ports
                .iter()
                .map(|port| port.forwarded.get())
                .sum::<u64>()
        };
        let (mut rates, mut stalls) = (Vec::new(), 0);
        for _ in 0..self.windows {
            self.meeting.meet()?;
            let (mut meter, before) = (Meter::new(clock), forwarded());
            let end = clock.deadline(self.window_ms);
            while cpu::cycles() < end {
                generator.round(&mut meter)?;
            }
            rates.push((forwarded() - before) as f64 / meter.ns());
            stalls += meter.stalls;
        }
        self.settle(me, &mut generator)?;
        Ok(Found {
            rates,
            stalls,
            page,
        })
    }

    /// Goes on until nothing is under way at any worker.
    fn settle(&self, me: usize, generator: &mut Generator) -> Result<()> {
        generator.switch(Script::Open(0));
        let mut meter = Meter::new(self.lab.clock);
        loop {
            (0..SETTLING).try_for_each(|_| generator.drain(&mut meter))?;
            self.meeting.meet()?;
            self.meeting.busy[me].store(generator.is_busy(), SeqCst);
            self.meeting.meet()?;
            let is_busy = self.meeting.busy.iter().any(|busy| busy.load(SeqCst));
            self.meeting.meet()?;
            if !is_busy {
                return Ok(());
            }
        }
    }
}

/// Where workers wait for each other.
struct Meeting {
    workers: usize,
    came: AtomicUsize,
    failed: AtomicBool,
    busy: [AtomicBool; 2],
}

impl Meeting {
    fn new(workers: usize) -> Self {
        Self {
            workers,
            came: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            busy: Default::default(),
        }
    }

    /// Returns when all came; an error if one never will.
    fn meet(&self) -> Result<()> {
        let all = (self.came.fetch_add(1, SeqCst) / self.workers + 1) * self.workers;
        while self.came.load(SeqCst) < all {
            ensure!(!self.failed.load(SeqCst), "another worker ended");
            std::hint::spin_loop();
        }
        Ok(())
    }
}

//! A full table of connections that end at the same time, beside a few that packets keep alive.

use anyhow::{Result, ensure};
use control::Protocol;

use crate::bench::generator::{Generator, Script};
use crate::bench::measure::Meter;
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::{Bench, Way, Workload};

const FLOWS: u32 = 10_000_000;
const FLOWS_QUICK: u32 = 1_000_000;
const BUSY: u32 = 1_000;
/// Seconds without a packet until an established TCP connection ends, and how much less than that
/// passes before there is a look at the time before: longer than it takes to open all.
const LIFE_S: u32 = 900;
const SPARE_S: u32 = 120;
/// Rounds that stand for a second, in which a worker looks for what has ended.
const ROUNDS_PER_S: u32 = 128;

/// Seconds, faster than they are.
fn pass_time(generator: &mut Generator, seconds: u32, meter: &mut Meter) -> Result<()> {
    for _ in 0..seconds {
        generator.skip(1000);
        (0..ROUNDS_PER_S).try_for_each(|_| generator.round(meter))?;
    }
    Ok(())
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let flows = if bench.options.quick {
        FLOWS_QUICK
    } else {
        FLOWS
    };
    bench.progress(&format!("  {flows} connections"));
    let clock = bench.lab.clock;
    let mut subject = bench.established(Site::of(Way::nat(Protocol::Tcp)), flows)?;
    let generator = &mut subject.generator;
    let mut meanwhile = Meter::new(clock);
    generator.play(Script::Established(BUSY), &mut meanwhile)?;
    pass_time(generator, LIFE_S - SPARE_S, &mut meanwhile)?;
    let mut before = Meter::new(clock);
    let end = clock.deadline(bench.options.windows() * bench.options.window_ms());
    while crate::cpu::cycles() < end {
        generator.round(&mut before)?;
    }
    let mut meanwhile = Meter::new(clock);
    pass_time(generator, SPARE_S, &mut meanwhile)?;
    while generator.director().page().connections.get() > BUSY {
        generator.round(&mut meanwhile)?;
    }
    let alive = generator.answered(BUSY, &mut Meter::new(clock))?;
    ensure!(
        alive == u64::from(BUSY),
        "of {BUSY} connections with packets {alive} are left"
    );
    let ended = f64::from(flows - BUSY) / meanwhile.ns() * 1e9;
    for (case, meter, ended) in [
        ("before", before, 0.0),
        ("while they end", meanwhile, ended),
    ] {
        let row = Row::new(Workload::Expiry, format!("{flows} connections, {case}"))
            .with("ns_per_packet", meter.per(meter.packets))
            .with("ended_per_s", ended)
            .with("p99.99_us", meter.pass_ns(0.0001) / 1e3)
            .with("longest_pass_us", meter.pass_ns(0.0) / 1e3)
            .with("longer_than_300_us", meter.stalls);
        bench.rows.push(subject.end(row)?);
    }
    Ok(())
}

//! What is forwarded when more comes than one core can take; and in a flood of SYNs into a full
//! table, beside which connections were established before.

use anyhow::{Result, ensure};
use control::Protocol;

use crate::bench::generator::Script;
use crate::bench::measure::Meter;
use crate::bench::network::Site;
use crate::bench::paced::offer;
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::{Bench, Way, Workload};

/// What is offered, of what the core can take.
const LOADS: [f64; 6] = [0.5, 0.8, 1.0, 1.5, 2.0, 3.0];
const FLOWS: u32 = 10_000;
const TABLE: u32 = 200_000;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let mixes = [
        ("established", Script::Established(FLOWS)),
        (
            "7 of 8 are SYNs",
            Script::Flood {
                of_eight: 7,
                flows: FLOWS,
            },
        ),
    ];
    for (mix, script) in mixes {
        bench.progress(&format!("  {mix}"));
        let site = Site::of(Way::nat(Protocol::Tcp));
        let mut generator = bench.lab.generator(site, TABLE, bench.real())?;
        let mut first = Meter::new(bench.lab.clock);
        generator.open(FLOWS, &mut first)?;
        generator.play(script, &mut first)?;
        while generator.begun() < 2 * TABLE {
            generator.round(&mut first)?;
        }
        let mut subject = Subject::new(generator);
        bench.in_turns(&mut [&mut subject])?;
        curve(bench, mix, &mut subject)?;
        let alive = subject.generator.answered(FLOWS, &mut first)?;
        ensure!(
            alive == u64::from(FLOWS),
            "of {FLOWS} established connections {alive} are left"
        );
    }
    Ok(())
}

/// Offers each load in turn.
fn curve(bench: &mut Bench<'_>, mix: &str, subject: &mut Subject) -> Result<()> {
    let (clock, ms) = (
        bench.lab.clock,
        bench.options.windows() * bench.options.window_ms(),
    );
    let peak_ns = subject.packet(subject.windows()).median;
    for load in LOADS {
        let offered = offer(&mut subject.generator, clock, peak_ns / load, ms)?;
        let row = Row::new(Workload::Overload, format!("{mix}, {load} of the peak"))
            .with("offered_Mpps", load * 1e3 / peak_ns)
            .with("forwarded_Mpps", offered.goodput() / 1e6)
            .with("of_the_peak", offered.goodput() * peak_ns / 1e9)
            .with("missed_percent", offered.missed() * 100.0)
            .with("p99_us", offered.residence_us(0.01));
        bench.rows.push(subject.end(row)?);
    }
    Ok(())
}

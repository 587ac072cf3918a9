//! How long a packet stays, from its arrival in the receive ring until it is sent, by load.

use anyhow::Result;
use control::Protocol;

use crate::bench::network::Site;
use crate::bench::paced::offer;
use crate::bench::report::Row;
use crate::bench::{Bench, Way, Workload};

/// Shares of the peak.
const LOADS: [f64; 4] = [0.2, 0.5, 0.8, 0.95];

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let (clock, ms) = (
        bench.lab.clock,
        bench.options.windows() * bench.options.window_ms(),
    );
    for flows in [1_000, 1_000_000] {
        bench.progress(&format!("  {flows} flows"));
        let mut subject = bench.established(Site::of(Way::nat(Protocol::Tcp)), flows)?;
        bench.in_turns(&mut [&mut subject])?;
        let peak_ns = subject.packet(subject.windows()).median;
        for load in LOADS {
            let offered = offer(&mut subject.generator, clock, peak_ns / load, ms)?;
            let case = format!("NAT, {flows} flows, {:.0} % of the peak", load * 100.0);
            let row = Row::new(Workload::Latency, case)
                .with("Mpps", offered.goodput() / 1e6)
                .with("p50_us", offered.residence_us(0.5))
                .with("p99_us", offered.residence_us(0.01))
                .with("p99.9_us", offered.residence_us(0.001))
                .with("missed_percent", offered.missed() * 100.0);
            bench.rows.push(subject.end(row)?);
        }
    }
    Ok(())
}

//! A packet of an established connection: each way, with few and many flows, in random order.

use anyhow::Result;
use control::Protocol;

use crate::bench::measure::Spread;
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::way::Way;
use crate::bench::{Bench, Workload};

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    for &protocol in &bench.options.protocol {
        for &flows in bench.options.flows() {
            all_ways(bench, protocol, flows)?;
        }
    }
    Ok(())
}

/// NAT over IPv4 is measured in any case, a window of it before each window of any other.
fn all_ways(bench: &mut Bench<'_>, protocol: Protocol, flows: u32) -> Result<()> {
    let (options, windows) = (bench.options, bench.options.windows());
    let base = Way::nat(protocol);
    let mut nat = open(bench, base, flows)?;
    let first = bench.rows.len();
    for way in options.ways(protocol).filter(|way| *way != base) {
        let mut other = open(bench, way, flows)?;
        bench.in_turns(&mut [&mut nat, &mut other])?;
        let rate = nat.packet(windows).best / other.packet(windows).best;
        let row = row(bench, way, flows, &other, Some(rate))?;
        bench.rows.push(row);
    }
    if nat.windows() == 0 {
        bench.in_turns(&mut [&mut nat])?;
    }
    let row = row(bench, base, flows, &nat, None)?;
    bench.rows.insert(first, row);
    Ok(())
}

fn open(bench: &Bench<'_>, way: Way, flows: u32) -> Result<Subject> {
    bench.progress(&format!("  {way}, {flows} flows"));
    bench.established(Site::of(way), flows)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn row(
    bench: &Bench<'_>,
    way: Way,
    flows: u32,
    subject: &Subject,
    rate: Option<f64>,
) -> Result<Row> {
    let packet: Spread = subject.packet(subject.windows());
    let bytes = subject.generator.director().table_bytes() as f64;
    let row = Row::new(Workload::Packets, format!("{way} {flows:>9} flows"))
        .with("ns_per_packet", packet)
        .with("per_DRAM_read", packet.best / bench.yardstick.dram_read())
        .with("rate_to_NAT", rate.unwrap_or(1.0))
        .with("ns_to_open", subject.opening_ns)
        .with("bytes_per_connection", bytes / f64::from(flows));
    subject.end(row)
}

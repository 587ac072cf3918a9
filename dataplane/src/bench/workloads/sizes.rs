//! Packets of mixed sizes: of twelve, seven short ones, four of 576 bytes, one of 1500.

use anyhow::Result;
use control::Protocol;

use crate::bench::generator::Sizes;
use crate::bench::network::{IMIX, Site};
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::{Bench, Family, Workload};
use crate::wire::flow::ETHERNET;

const FLOWS: u32 = 100_000;
/// Preamble, frame check sequence, and the gap to the next frame.
const ON_THE_WIRE: usize = 8 + 4 + 12;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let options = bench.options;
    for way in options
        .ways(Protocol::Tcp)
        .filter(|way| way.family == Family::Ipv4)
    {
        bench.progress(&format!("  {way}"));
        let site = Site::of(way);
        let generator = bench.lab.generator(site, FLOWS, bench.real())?;
        let mut subject = Subject::established(bench, generator.sized(Sizes::Mixed), FLOWS)?;
        bench.in_turns(&mut [&mut subject])?;
        let packet = subject.packet(subject.windows());
        let row = Row::new(Workload::Sizes, way.to_string())
            .with("ns_per_packet", packet)
            .with("Mpps", packet.map(|ns| 1e3 / ns))
            .with("Gbit/s", packet.map(|ns| mean_bits(&site) / ns));
        bench.rows.push(subject.end(row)?);
    }
    Ok(())
}

/// Of a packet as its client sends it, on the wire.
#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn mean_bits(site: &Site) -> f64 {
    let bytes = |packet: &usize| ETHERNET + site.packet_len(*packet) + ON_THE_WIRE;
    8.0 * IMIX.iter().map(bytes).sum::<usize>() as f64 / IMIX.len() as f64
}

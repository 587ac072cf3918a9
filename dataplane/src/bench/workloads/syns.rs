//! SYNs from clients all over into a full table: each opens a connection at the cost of the oldest
//! one that nobody answered.

use anyhow::{Result, ensure};
use control::{ForwardMode, Protocol};

use crate::bench::generator::Script;
use crate::bench::measure::Meter;
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::{Bench, Family, Method, Workload};

const TABLE: u32 = 1_000_000;
const TABLE_QUICK: u32 = 100_000;
const FLOOD: Script = Script::Flood {
    of_eight: 8,
    flows: 0,
};

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let options = bench.options;
    let table = if options.quick { TABLE_QUICK } else { TABLE };
    for way in options.ways(Protocol::Tcp) {
        let is_tunnel = way.method.mode() == ForwardMode::Tunnel;
        if way.family == Family::Mixed || is_tunnel && way.method != Method::Ipip {
            continue;
        }
        bench.progress(&format!("  {way}"));
        let mut generator = bench.lab.generator(Site::of(way), table, bench.real())?;
        let mut first = Meter::new(bench.lab.clock);
        generator.play(FLOOD, &mut first)?;
        generator.complete(u64::from(table) + u64::from(table) / 8, &mut first)?;
        let mut subject = Subject::new(generator);
        bench.in_turns(&mut [&mut subject])?;
        let open = subject.generator.director().page().connections.get();
        ensure!(
            open == table,
            "{open} connections are in a table of {table}"
        );
        let syn = subject.connection();
        let row = Row::new(Workload::Syns, way.to_string())
            .with("ns_per_SYN", syn)
            .with("SYNs_per_s", syn.map(|ns| 1e9 / ns))
            .with("with_the_generator", subject.connections_per_s());
        bench.rows.push(subject.end(row)?);
    }
    Ok(())
}

//! Whole connections: SYN, SYN/ACK, ACK with data, FIN, FIN, ACK, and the end by time.

use anyhow::Result;
use control::{ForwardMode, Protocol};

use crate::bench::generator::{Pace, Script};
use crate::bench::measure::Meter;
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::{Bench, Family, Method, Way, Workload};

/// Connections that ended and are remembered, two minutes by the director's time; fewer for a first
/// look.
const REMEMBERED: u32 = 1_000_000;
const REMEMBERED_QUICK: u32 = 100_000;

/// Which clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    New,
    /// As many as connections are remembered, over and over.
    Known,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let is_other = |way: &Way| {
        let is_tunnel = way.method.mode() == ForwardMode::Tunnel;
        way.family != Family::Mixed && (!is_tunnel || way.method == Method::Ipip)
    };
    let options = bench.options;
    for way in options.ways(Protocol::Tcp).filter(is_other) {
        let (case, site) = (way.to_string(), Site::of(way));
        whole(
            bench,
            Workload::Setup,
            &[(case.clone(), site)],
            Clients::New,
        )?;
        if way.family == Family::Ipv4 {
            let case = format!("{case} same clients");
            whole(bench, Workload::Setup, &[(case, site)], Clients::Known)?;
        }
    }
    Ok(())
}

/// Measures whole connections at each of these sites in turns; the rates are compared with the first
/// one's.
pub(super) fn whole(
    bench: &mut Bench<'_>,
    workload: Workload,
    sites: &[(String, Site)],
    clients: Clients,
) -> Result<()> {
    let remembered = match bench.options.quick {
        true => REMEMBERED_QUICK,
        false => REMEMBERED,
    };
    let (script, pace) = match clients {
        Clients::Known => (Script::Connections(remembered), bench.real()),
        // So that as many begin in two minutes.
        Clients::New => {
            let each = remembered / 1200;
            (Script::Strangers, Pace::Begun { ms: 100, each })
        }
    };
    let mut subjects = Vec::new();
    for (case, site) in sites {
        bench.progress(&format!("  {case}"));
        let mut generator = bench.lab.generator(*site, 2 * remembered, pace)?;
        let mut first = Meter::new(bench.lab.clock);
        generator.play(script, &mut first)?;
        // From then on as many end as begin.
        generator.complete(remembered.into(), &mut first)?;
        subjects.push(Subject::new(generator));
    }
    bench.in_turns(&mut subjects.iter_mut().collect::<Vec<_>>())?;
    let first = subjects
        .first()
        .map_or(f64::NAN, |first| first.connection().best);
    for ((case, _), subject) in sites.iter().zip(&subjects) {
        let connection = subject.connection();
        let mut row = Row::new(workload, case)
            .with("ns_per_connection", connection)
            .with("connections_per_s", connection.map(|ns| 1e9 / ns))
            .with("with_the_generator", subject.connections_per_s())
            .with("ns_per_packet", subject.packet(subject.windows()));
        if sites.len() > 1 {
            row = row.with("rate_to_first", first / connection.best);
        }
        bench.rows.push(subject.end(row)?);
    }
    Ok(())
}

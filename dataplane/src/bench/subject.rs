//! A generator at work, and what each window of it showed.

use anyhow::{Context, Result, ensure};

use super::Bench;
use super::generator::{Generator, Script, Work};
use super::measure::{Clock, Meter, Spread, Times, wall};
use super::report::Row;
use crate::counters::Page;
use crate::cpu;

pub(super) struct Subject {
    pub(super) generator: Generator,
    windows: Vec<Window>,
    /// The director's time for opening each of the connections that there are, if that was measured.
    pub(super) opening_ns: f64,
    stalls: u32,
    /// Cycles of its passes, in all windows.
    passes: Times,
}

/// What was seen in one window.
#[derive(Debug, Clone, Copy)]
struct Window {
    packet_ns: f64,
    connection_ns: f64,
    /// By the clock, the generator's own time included.
    connections_per_s: f64,
}

impl Subject {
    pub(super) fn new(generator: Generator) -> Self {
        Self {
            generator,
            windows: Vec::new(),
            opening_ns: f64::NAN,
            stalls: 0,
            passes: Times::default(),
        }
    }

    /// `flows` connections opened, and packets on all of them from now on.
    pub(super) fn established(
        bench: &Bench<'_>,
        mut generator: Generator,
        flows: u32,
    ) -> Result<Self> {
        let mut opening = Meter::new(bench.lab.clock);
        generator.open(flows, &mut opening)?;
        let open = generator.director().page().connections.get();
        ensure!(open == flows, "of {flows} connections {open} are open");
        let opening_ns = opening.per(flows.into());
        generator.play(Script::Established(flows), &mut opening)?;
        Ok(Self {
            opening_ns,
            ..Self::new(generator)
        })
    }

    pub(super) fn window(&mut self, clock: Clock, ms: u32) -> Result<()> {
        self.window_beside(clock, ms, &mut |_: &mut _, _: &mut _, _| ())
    }

    /// As [`Self::window`], with other work of the worker's before each burst of clients' packets.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn window_beside(
        &mut self,
        clock: Clock,
        ms: u32,
        work: &mut impl Work,
    ) -> Result<()> {
        let before = self.generator.completed();
        let mut meter = Meter::new(clock);
        let (end, began) = (clock.deadline(ms), wall());
        while cpu::cycles() < end {
            let round = self.generator.round_after(&mut meter, work);
            round.with_context(|| self.generator.site().way.to_string())?;
        }
        let completed = self.generator.completed() - before;
        self.windows.push(Window {
            packet_ns: meter.per(meter.packets),
            connection_ns: meter.per(completed),
            connections_per_s: completed as f64 / began.elapsed().as_secs_f64(),
        });
        self.stalls += meter.stalls;
        self.passes.merge(&meter.passes);
        Ok(())
    }

    /// The last so many windows, as this is of each.
    fn last(&self, windows: usize, of: impl Fn(&Window) -> f64) -> impl Iterator<Item = f64> {
        let skipped = self.windows.len().saturating_sub(windows);
        let last = self.windows[skipped..].iter();
        last.map(of).collect::<Vec<_>>().into_iter()
    }

    /// Nanoseconds per packet in the last so many windows.
    pub(super) fn packet(&self, windows: u32) -> Spread {
        Spread::least(self.last(windows as usize, |window| window.packet_ns))
    }

    /// Nanoseconds per connection, from its first packet to its last.
    pub(super) fn connection(&self) -> Spread {
        Spread::least(self.last(usize::MAX, |window| window.connection_ns))
    }

    pub(super) fn connections_per_s(&self) -> Spread {
        Spread::most(self.last(usize::MAX, |window| window.connections_per_s))
    }

    pub(super) fn windows(&self) -> u32 {
        u32::try_from(self.windows.len()).unwrap_or(u32::MAX)
    }

    /// Microseconds of the longest pass but for this share of them.
    pub(super) fn pass_us(&self, clock: Clock, but: f64) -> f64 {
        clock.ns(self.passes.all_but(but)) / 1e3
    }

    /// Adds what every row ends with, and sees that every packet is accounted for.
    pub(super) fn end(&self, row: Row) -> Result<Row> {
        let page = self.generator.director().page();
        ensure!(page.balanced(), "{}: packets are unaccounted for", row.case);
        Ok(row.with("stalls", self.stalls).with("dropped", drops(page)))
    }
}

fn drops(page: &Page) -> u64 {
    page.ports.iter().map(|port| port.dropped()).sum()
}

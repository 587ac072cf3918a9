//! What a run found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::Workload;
use super::measure::{Calibration, Spread};

/// All numbers of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub calibration: Calibration,
    /// Nanoseconds per packet that DPDK's own forwarder took, driver included, by its mode.
    pub testpmd: BTreeMap<String, f64>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    /// One, or two of workloads with two threads.
    pub cores: Vec<u16>,
    pub dpdk: String,
    pub tsc_ghz: f64,
    /// DPDK's memory is on huge pages; the connection table and the yardstick take what is free.
    pub huge_pages: bool,
    pub windows: u32,
    pub window_ms: u32,
}

/// What was found in one case of a workload.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub workload: Workload,
    pub case: String,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Figures by name; a name's `_` is shown as a space.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<(&'static str, Figure)>);

#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Figure {
    Spread(Spread),
    Number(f64),
    Count(u64),
}

impl Row {
    pub(super) fn new(workload: Workload, case: impl Into<String>) -> Self {
        Self {
            workload,
            case: case.into(),
            figures: Figures::default(),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, name: &'static str, figure: impl Into<Figure>) -> Self {
        self.figures.0.push((name, figure.into()));
        self
    }

    fn figure(&self, name: &str) -> String {
        let figure = self.figures.0.iter().find(|(known, _)| *known == name);
        figure.map_or_else(String::new, |(_, figure)| figure.to_string())
    }
}

impl From<Spread> for Figure {
    fn from(spread: Spread) -> Self {
        Self::Spread(spread)
    }
}

impl From<f64> for Figure {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Figure {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for Figure {
    fn from(count: u32) -> Self {
        Self::Count(count.into())
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, figure) in &self.0 {
            map.serialize_entry(name, figure)?;
        }
        map.end()
    }
}

impl Machine {
    pub(super) fn here(
        cores: Vec<u16>,
        tsc_ghz: f64,
        huge_pages: bool,
        (windows, window_ms): (u32, u32),
    ) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            cpu: model.unwrap_or("unknown processor").to_owned(),
            cores,
            dpdk: crate::dpdk::version(),
            tsc_ghz,
            huge_pages,
            windows,
            window_ms,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{}, cores {:?}, TSC {:.2} GHz, {}, {}, {} windows of {} ms; a/b: best/median",
            machine.cpu,
            machine.cores,
            machine.tsc_ghz,
            machine.dpdk,
            if machine.huge_pages {
                "huge pages"
            } else {
                "no huge pages"
            },
            machine.windows,
            machine.window_ms,
        )?;
        let Calibration {
            dram_read,
            l2_read,
            multiply_add,
        } = &self.calibration;
        let [dram_read, l2_read, multiply_add] = [dram_read, l2_read, multiply_add].map(shown);
        writeln!(
            f,
            "calibration: DRAM read {dram_read}, L2 read {l2_read}, multiply-add {multiply_add} ns"
        )?;
        if !self.testpmd.is_empty() {
            let modes = self.testpmd.iter();
            let modes = modes.map(|(mode, ns)| format!("{mode} {}", number(*ns)));
            let modes = modes.collect::<Vec<_>>().join(", ");
            writeln!(f, "testpmd, driver included: {modes} ns per packet")?;
        }
        let tables = self.rows.chunk_by(|a, b| a.workload == b.workload);
        tables.into_iter().try_for_each(|rows| table(f, rows))
    }
}

/// The rows of one workload, a column for each figure that one of them has.
fn table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.figures.0) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let heads = names.iter().map(|name| name.replace('_', " "));
    let mut lines = vec![[String::new()].into_iter().chain(heads).collect::<Vec<_>>()];
    for row in rows {
        let figures = names.iter().map(|name| row.figure(name));
        lines.push([row.case.clone()].into_iter().chain(figures).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<_> = (0..=names.len()).filter_map(width).collect();
    writeln!(f, "\n{}", rows[0].workload.about())?;
    for line in &lines {
        let cells = line.iter().zip(&widths).skip(1);
        let cells = cells.map(|(cell, width)| format!("  {cell:>width$}"));
        let text = format!("  {:<1$}", line[0], widths[0]) + &cells.collect::<String>();
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

fn shown(spread: &Spread) -> String {
    if spread.best.is_nan() {
        return number(spread.best);
    }
    let [best, median] = [spread.best, spread.median].map(number);
    format!("{best}/{median}")
}

/// Three digits or more; a dash for what is no number.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spread(spread) => f.write_str(&shown(spread)),
            Self::Number(value) => f.write_str(&number(*value)),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_numbers_in_json_and_columns_on_paper() {
        let row = Row::new(Workload::Packets, "NAT")
            .with(
                "ns_per_packet",
                Spread {
                    best: 1.25,
                    median: 130.0,
                },
            )
            .with("stalls", 0u32)
            .with("answer_ms", f64::NAN);
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "workload": "packets",
                "case": "NAT",
                "ns_per_packet": { "best": 1.25, "median": 130.0 },
                "stalls": 0,
                "answer_ms": null,
            })
        );
        struct Table([Row; 2]);
        impl fmt::Display for Table {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                table(f, &self.0)
            }
        }
        let other = Row::new(Workload::Packets, "DR").with("Mpps", 12.34);
        let text = Table([row, other]).to_string();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "       ns per packet  stalls  answer ms  Mpps",
                "  NAT       1.25/130       0          -",
                "  DR                                     12.3",
            ]
        );
    }
}

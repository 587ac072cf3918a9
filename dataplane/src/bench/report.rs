//! What a run found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use serde::Serialize;

use super::measure::{Calibration, Spread};
use super::way::Way;

/// All numbers of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub calibration: Calibration,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub core: u16,
    pub dpdk: String,
    pub tsc_ghz: f64,
    /// DPDK's memory is on huge pages; the connection table and the yardstick take what is free.
    pub huge_pages: bool,
    pub windows: u32,
    pub window_ms: u32,
}

/// One kind of traffic over one number of flows.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    pub traffic: Traffic,
    #[serde(flatten)]
    pub way: Way,
    pub flows: u32,
    /// The director's time per packet.
    pub packet: Spread,
    /// The rate of packets by that of NAT over IPv4, best by best, of windows that took turns.
    pub rate_to_nat: Option<f64>,
    /// The director's time for one connection: from its first packet to its last, or, of
    /// established traffic, for opening it.
    pub connection: Spread,
    pub packets: u64,
    /// Memory of the connection table by its capacity.
    pub bytes_per_connection: f64,
    /// Bursts that took longer than 300 µs, left out.
    pub stalls: u32,
    /// Packets that the director dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    Established,
    Connections,
}

impl Machine {
    pub(super) fn here(
        core: u16,
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
            core,
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
            "{}, core {}, TSC {:.2} GHz, {}, {}, {} windows of {} ms",
            machine.cpu,
            machine.core,
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
        writeln!(
            f,
            "calibration, best/median: DRAM read {dram_read}, L2 read {l2_read}, multiply-add \
             {multiply_add} ns"
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:<34} {:>9}  {:>13}  {:>6}  {:>15}  {:>6}  {:>6}  {:>7}",
            "", "", "ns/packet", "rate,", "ns/connection", "bytes/", "", "",
        )?;
        writeln!(
            f,
            "{:<34} {:>9}  {:>13}  {:>6}  {:>15}  {:>6}  {:>6}  {:>7}",
            "26-byte segments",
            "flows",
            "best/median",
            "NAT=1",
            "best/median",
            "conn.",
            "stalls",
            "dropped",
        )?;
        self.cases.iter().try_for_each(|case| case.fmt(f))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1}/{:.1}", self.best_ns, self.median_ns))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = match self.traffic {
            Traffic::Established => "established",
            Traffic::Connections => "connections",
        };
        let rate = self.rate_to_nat.map(|rate| format!("{rate:.2}"));
        writeln!(
            f,
            "{} {traffic:<12} {:>9}  {:>13}  {:>6}  {:>15}  {:>6.1}  {:>6}  {:>7}",
            self.way,
            self.flows,
            self.packet,
            rate.unwrap_or_default(),
            self.connection,
            self.bytes_per_connection,
            self.stalls,
            self.dropped.values().sum::<u64>(),
        )?;
        for (reason, packets) in &self.dropped {
            writeln!(f, "    dropped {packets}: {reason}")?;
        }
        Ok(())
    }
}

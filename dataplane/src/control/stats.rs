//! Counters for people: the workers' pages summed, LVS's rate estimator, and the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::{PortHardware, PortStatus, PortUse, Rates, Status, Steering, Totals, WorkerStatus};

use super::Worker;
use crate::counters::{Counter, DropReason, Page, Pass, PortPage, balanced};
use crate::director::Arrival;
use crate::packet::PortId;
use crate::templates::Templates;
use crate::update::{LocalAddress, ServerId, ServiceId};

/// Seconds between two steps of the estimator.
pub const ESTIMATE_S: u64 = 2;

/// What `server` was counted with since the daemon started, over all workers, whatever server had
/// its number.
pub(super) fn counted(pages: &[Arc<Page>], server: ServerId) -> Totals {
    let mut sum = Totals::default();
    for page in pages {
        let page = &page.servers[server.index()];
        sum = plus(
            sum,
            Totals {
                conns: page.conns.get(),
                in_packets: page.in_packets.get(),
                out_packets: page.out_packets.get(),
                in_bytes: page.in_bytes.get(),
                out_bytes: page.out_bytes.get(),
            },
        );
    }
    sum
}

/// Packets for a service that were dropped since the daemon started, whatever service had its number.
pub(super) fn service_drops(pages: &[Arc<Page>], service: ServiceId) -> u64 {
    let pages = pages.iter().map(|page| &page.services[service.index()]);
    let drops = pages.flat_map(|page| page.drops.iter().map(Counter::get));
    drops.fold(0, u64::wrapping_add)
}

/// Active and inactive connections of `server` now.
pub(super) fn connections(pages: &[Arc<Page>], server: ServerId) -> (u32, u32) {
    pages
        .iter()
        .map(|page| &page.servers[server.index()])
        .fold((0, 0), |(active, inactive), page| {
            (active + page.active.get(), inactive + page.inactive.get())
        })
}

/// A local address as all workers use it.
pub(super) fn local(local: &LocalAddress) -> control::LocalAddress {
    let pages = local.pages.iter();
    control::LocalAddress {
        address: local.address,
        in_use: pages.clone().map(|page| u64::from(page.in_use.get())).sum(),
        exhausted: pages.map(|page| page.exhausted.get()).sum(),
    }
}

pub(super) fn plus(a: Totals, b: Totals) -> Totals {
    each(a, b, u64::wrapping_add)
}

pub(super) fn minus(a: Totals, b: Totals) -> Totals {
    each(a, b, u64::wrapping_sub)
}

fn each(a: Totals, b: Totals, f: impl Fn(u64, u64) -> u64) -> Totals {
    Totals {
        conns: f(a.conns, b.conns),
        in_packets: f(a.in_packets, b.in_packets),
        out_packets: f(a.out_packets, b.out_packets),
        in_bytes: f(a.in_bytes, b.in_bytes),
        out_bytes: f(a.out_bytes, b.out_bytes),
    }
}

/// LVS's estimator (`ip_vs_est.c`): an average that decays by a quarter every [`ESTIMATE_S`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimator {
    last: Totals,
    /// Scaled by 2^10 (packets, connections) and 2^5 (bytes).
    scaled: Rates,
}

impl Estimator {
    /// Starts at zero from `now` on.
    pub(super) fn starting_at(now: Totals) -> Self {
        Self {
            last: now,
            scaled: Rates::default(),
        }
    }

    /// Clears the averages; the step under way still counts from its beginning.
    pub(super) fn clear(&mut self) {
        self.scaled = Rates::default();
    }

    /// [`ESTIMATE_S`] seconds have passed.
    pub(super) fn step(&mut self, now: Totals) {
        let delta = minus(now, self.last);
        self.last = now;
        // Shifted left by the scale, less one for the two seconds.
        self.scaled = Rates {
            cps: decay(self.scaled.cps, delta.conns << 9),
            in_pps: decay(self.scaled.in_pps, delta.in_packets << 9),
            out_pps: decay(self.scaled.out_pps, delta.out_packets << 9),
            in_bps: decay(self.scaled.in_bps, delta.in_bytes << 4),
            out_bps: decay(self.scaled.out_bps, delta.out_bytes << 4),
        };
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            cps: (self.scaled.cps + 511) >> 10,
            in_pps: (self.scaled.in_pps + 511) >> 10,
            out_pps: (self.scaled.out_pps + 511) >> 10,
            in_bps: (self.scaled.in_bps + 15) >> 5,
            out_bps: (self.scaled.out_bps + 15) >> 5,
        }
    }
}

/// `average` moved a quarter of the way to `rate`, rounded down as LVS does.
fn decay(average: u64, rate: u64) -> u64 {
    let step = (rate.wrapping_sub(average).cast_signed()) >> 2;
    average.wrapping_add_signed(step)
}

/// What only the daemon around the director knows.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// By number.
    pub ports: Vec<PortInfo>,
    pub mbufs_in_use: u64,
    /// In all pools.
    pub mbufs: u64,
}

/// What a port lost before anything here saw it, as its driver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lost {
    pub missed: u64,
    pub receive_errors: u64,
    pub send_errors: u64,
    pub no_buffer: u64,
}

/// A port as its driver sees it now.
#[derive(Debug, Clone)]
pub struct PortInfo {
    pub id: PortId,
    /// Takes off what was counted for others of its number.
    pub before: Arc<PortPage>,
    pub name: String,
    pub device: String,
    pub mac: String,
    pub mtu: u16,
    pub link_up: bool,
    pub hardware: Option<PortHardware>,
    pub used: PortUse,
    pub lost: Lost,
}

pub(super) fn status(
    workers: &[Worker],
    templates: Option<&Templates>,
    machine: Machine,
    connections_max: u64,
    uptime_s: u64,
) -> Status {
    let pages: Vec<&Page> = workers.iter().map(|worker| &*worker.page).collect();
    Status {
        program: super::PROGRAM.to_owned(),
        uptime_s,
        ports: (machine.ports.iter())
            .map(|info| port_status(info, &pages))
            .collect(),
        workers: workers
            .iter()
            .map(|worker| worker_status(worker, connections_max))
            .collect(),
        balanced: balanced(pages.iter().copied()),
        mbufs_in_use: machine.mbufs_in_use,
        templates: templates.map_or(0, |templates| templates.used().into()),
        templates_max: templates.map_or(0, |templates| templates.capacity().into()),
    }
}

fn port_status(info: &PortInfo, pages: &[&Page]) -> PortStatus {
    let ports = info.counted(pages.iter().copied());
    let sum = |get: fn(&PortPage) -> u64| sum(&ports, get);
    PortStatus {
        name: info.name.clone(),
        device: info.device.clone(),
        mac: info.mac.clone(),
        mtu: info.mtu,
        link_up: info.link_up,
        used: PortUse {
            steering: steering(&pages_of(info.id, pages)),
            ..info.used.clone()
        },
        tx_packets: sum(|port| port.tx.get()),
        tx_bytes: sum(|port| port.tx_bytes.get()),
        rx_packets: sum(|port| port.rx.get()),
        rx_bytes: sum(|port| port.rx_bytes.get()),
        ends: ends(&ports),
        drops: drops(&ports),
        hardware: info.hardware.clone(),
    }
}

impl PortInfo {
    /// What counts the port: a page of each worker, and one for what was before.
    pub(super) fn counted<'p>(
        &'p self,
        pages: impl Iterator<Item = &'p Page>,
    ) -> Vec<&'p PortPage> {
        let own = pages.map(|page| page.port(self.id));
        own.chain([&*self.before]).collect()
    }
}

fn pages_of<'p>(id: PortId, pages: &[&'p Page]) -> Vec<&'p PortPage> {
    pages.iter().map(|page| page.port(id)).collect()
}

/// What the workers, each for its own queue, found of a port; `None` where there is but one.
pub(super) fn steering(pages: &[&PortPage]) -> Option<Steering> {
    let is = |arrival: Arrival| move |page: &&PortPage| page.arrival.get() == arrival.code();
    let tried = |page: &&PortPage| page.arrival.get() == Arrival::TRIED;
    match pages {
        [] | [_] => None,
        all if all.iter().any(is(Arrival::Disagreed)) => Some(Steering::OtherHash),
        all if all.iter().any(is(Arrival::Unhashed)) => Some(Steering::NoHash),
        all if all.iter().any(tried) => Some(Steering::Trying),
        all if all.iter().all(is(Arrival::AtHome)) => Some(Steering::Nic),
        _ => Some(Steering::Software),
    }
}

/// Of pages of which one may take off what others count.
pub(super) fn sum(ports: &[&PortPage], get: impl Fn(&PortPage) -> u64) -> u64 {
    ports
        .iter()
        .map(|port| get(port))
        .fold(0, u64::wrapping_add)
}

fn worker_status(worker: &Worker, connections_max: u64) -> WorkerStatus {
    let page = &*worker.page;
    let ports: Vec<&PortPage> = page.ports.iter().collect();
    WorkerStatus {
        core: worker.core,
        rx: page.rx(),
        made: page.made(),
        held: u64::from(page.held.get()),
        connections: u64::from(page.connections.get()),
        connections_max,
        steered_out: page.steered_out.get(),
        steered_in: page.steered_in.get(),
        ends: ends(&ports),
        drops: drops(&ports),
        pace: pace(worker),
    }
}

fn pace(worker: &Worker) -> control::Pace {
    let pace = &worker.page.pace;
    control::Pace {
        hz: pace.hz(),
        packet_cycles: pace.cycles(Pass::Packets),
        control_cycles: pace.cycles(Pass::Control),
        idle_cycles: pace.cycles(Pass::Idle),
        passes: worker.page.passes.get(),
        packets: pace.packets.get(),
        longest_gap_ns: pace.longest_gap_ns(),
        mailbox: worker.mailbox.len() as u64,
        steering_waiting: pace.waiting.get().into(),
        batches: pace.batches.get(),
    }
}

/// Every end by name, those that never occurred included.
fn ends(ports: &[&PortPage]) -> BTreeMap<String, u64> {
    let sum = |get: fn(&PortPage) -> u64| sum(ports, get);
    [
        ("forwarded", sum(|port| port.forwarded.get())),
        ("answered", sum(|port| port.answered.get())),
        ("consumed", sum(|port| port.consumed.get())),
        ("dropped", sum(PortPage::dropped)),
    ]
    .map(|(name, n)| (name.to_owned(), n))
    .into()
}

/// The reasons that occurred.
fn drops(ports: &[&PortPage]) -> BTreeMap<String, u64> {
    (DropReason::ALL.iter())
        .map(|reason| {
            let n = sum(ports, |port| port.drops[*reason as usize].get());
            (reason.name().to_owned(), n)
        })
        .filter(|(_, n)| *n > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recurrence of `ip_vs_est.c` by hand: 1000 packets in each step.
    #[test]
    fn the_estimator_is_lvss() {
        let mut estimator = Estimator::default();
        let mut totals = Totals::default();
        let mut seen = Vec::new();
        for _ in 0..4 {
            totals.in_packets += 1000;
            totals.in_bytes += 64_000;
            estimator.step(totals);
            seen.push((estimator.rates().in_pps, estimator.rates().in_bps));
        }
        assert_eq!(
            seen,
            [(125, 8000), (219, 14000), (289, 18500), (342, 21875)]
        );
        for _ in 0..60 {
            estimator.step(totals);
        }
        assert_eq!(
            estimator.rates(),
            Rates::default(),
            "silence decays to nothing"
        );
    }

    /// Totals and rates that a kernel listed together after its first step (6.1.192).
    #[test]
    fn the_estimator_shows_what_a_kernel_showed() {
        for (totals, rates) in [
            ([5, 16, 12, 972, 944], [1, 2, 1, 121, 118]),
            ([4, 15, 11, 912, 904], [0, 2, 1, 114, 113]),
            ([1, 1, 1, 60, 40], [0, 0, 0, 7, 5]),
        ] {
            let [conns, in_packets, out_packets, in_bytes, out_bytes] = totals;
            let mut estimator = Estimator::default();
            estimator.step(Totals {
                conns,
                in_packets,
                out_packets,
                in_bytes,
                out_bytes,
            });
            let Rates {
                cps,
                in_pps,
                out_pps,
                in_bps,
                out_bps,
            } = estimator.rates();
            assert_eq!([cps, in_pps, out_pps, in_bps, out_bps], rates);
        }
    }

    #[test]
    fn clearing_forgets_the_average_only() {
        let mut estimator = Estimator::starting_at(Totals {
            conns: 7,
            ..Totals::default()
        });
        estimator.step(Totals {
            conns: 107,
            ..Totals::default()
        });
        assert_eq!(
            estimator.rates().cps,
            12,
            "100 in 2 s is 50 a second, a quarter of it 12.5"
        );
        estimator.clear();
        assert_eq!(estimator.rates(), Rates::default());
        estimator.step(Totals {
            conns: 107,
            ..Totals::default()
        });
        assert_eq!(estimator.rates(), Rates::default());
    }
}

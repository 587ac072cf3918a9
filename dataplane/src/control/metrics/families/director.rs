//! Metrics of the director as a whole.

use super::{Director, Family, Gauge, Number, Series, labelled, metric};
use crate::counters::balanced;

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_build_info",
        Gauge,
        &["version"],
        "The release that runs; always 1.",
        Director(Series(|_, _, _, out| {
            out.sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
        })),
    ),
    metric(
        "director_uptime_seconds",
        Gauge,
        "Time since the daemon started.",
        Director(Number(|_, scrape| scrape.uptime.as_secs())),
    ),
    metric(
        "director_balanced",
        Gauge,
        "1 if every packet that was received or made had one end or is held; may be 0 while packets are in flight.",
        Director(Number(|_, scrape| {
            u64::from(balanced(scrape.workers.iter().map(|worker| &*worker.page)))
        })),
    ),
    metric(
        "director_packet_buffers_in_use",
        Gauge,
        "Packet buffers out of their pools.",
        Director(Number(|_, scrape| scrape.machine.mbufs_in_use)),
    ),
    metric(
        "director_packet_buffers",
        Gauge,
        "Packet buffers in all pools.",
        Director(Number(|_, scrape| scrape.machine.mbufs)),
    ),
    metric(
        "director_templates",
        Gauge,
        "Clients whose server is remembered, by persistent services.",
        Director(Number(|_, scrape| {
            let templates = scrape.templates.as_ref();
            templates.map_or(0, |templates| templates.used().into())
        })),
    ),
    metric(
        "director_templates_max",
        Gauge,
        "Clients whose servers can be remembered.",
        Director(Number(|_, scrape| {
            let templates = scrape.templates.as_ref();
            templates.map_or(0, |templates| templates.capacity().into())
        })),
    ),
    metric(
        "director_services",
        Gauge,
        "Virtual services.",
        Director(Number(|_, scrape| scrape.view.services.len() as u64)),
    ),
    metric(
        "director_services_max",
        Gauge,
        "Virtual services that there can be.",
        Director(Number(|_, scrape| scrape.limits.services_max as u64)),
    ),
    metric(
        "director_servers",
        Gauge,
        "Real servers in services.",
        Director(Number(|_, scrape| {
            let services = scrape.view.services.iter();
            services.map(|service| service.servers.len() as u64).sum()
        })),
    ),
    metric(
        "director_servers_max",
        Gauge,
        "Real servers that there can be, deleted ones included until they are forgotten.",
        Director(Number(|_, scrape| scrape.limits.servers_max as u64)),
    ),
];

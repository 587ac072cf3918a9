//! Metrics of each virtual service.

use std::fmt::Display;

use control::{Persistence, Protocol, ServiceKey};

use super::{Family, Gauge, Number, Series, Service, Total, labelled, metric};
use crate::control::metrics::Scrape;
use crate::control::metrics::text::{Labels, Samples};
use crate::control::model::ServiceView;
use crate::counters::{Counter, ServerPage};

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_service_info",
        Gauge,
        &["protocol", "address", "port", "mark", "family", "scheduler"],
        "What a service goes by, and its scheduler; always 1.",
        Service(Series(|service, _, labels, out| {
            service_info(service, labels, out);
        })),
    ),
    metric(
        "director_service_servers",
        Gauge,
        "Real servers in a service.",
        Service(Number(|service, _| service.servers.len() as u64)),
    ),
    metric(
        "director_service_servers_up",
        Gauge,
        "Real servers of a service that pass their health checks.",
        Service(Series(|service, _, labels, out| {
            if let Some(health) = &service.health {
                out.sample(labels, health.up);
            }
        })),
    ),
    metric(
        "director_service_servers_needed",
        Gauge,
        "Real servers that must be up for a service to be fit to be announced: its min_healthy.",
        Service(Series(|service, _, labels, out| {
            if let Some(health) = &service.health {
                out.sample(labels, health.min_healthy);
            }
        })),
    ),
    metric(
        "director_service_persistence_timeout_seconds",
        Gauge,
        "How long clients of a service come back to their server; 0 if they do not.",
        Service(Number(|service, _| {
            let timeout_s = |persistence: Persistence| persistence.timeout_s.into();
            service.persistence.map_or(0, timeout_s)
        })),
    ),
    metric(
        "director_service_active_connections",
        Gauge,
        "Connections of a service in an active state, as LVS counts them.",
        Service(Number(|service, scrape| {
            of_servers(service, scrape, |page| page.active.get().into())
        })),
    ),
    metric(
        "director_service_inactive_connections",
        Gauge,
        "Connections of a service in other states.",
        Service(Number(|service, scrape| {
            of_servers(service, scrape, |page| page.inactive.get().into())
        })),
    ),
    metric(
        "director_service_connections_total",
        Total,
        "Connections that a service scheduled.",
        Service(Number(|service, scrape| {
            service_total(service, scrape, |page| &page.conns, |totals| totals.conns)
        })),
    ),
    metric(
        "director_service_incoming_packets_total",
        Total,
        "Packets from clients to the servers of a service.",
        Service(Number(|service, scrape| {
            service_total(
                service,
                scrape,
                |page| &page.in_packets,
                |totals| totals.in_packets,
            )
        })),
    ),
    metric(
        "director_service_incoming_bytes_total",
        Total,
        "IP bytes from clients to the servers of a service.",
        Service(Number(|service, scrape| {
            service_total(
                service,
                scrape,
                |page| &page.in_bytes,
                |totals| totals.in_bytes,
            )
        })),
    ),
    metric(
        "director_service_outgoing_packets_total",
        Total,
        "Packets from the servers of a service to clients, of those that pass the director.",
        Service(Number(|service, scrape| {
            service_total(
                service,
                scrape,
                |page| &page.out_packets,
                |totals| totals.out_packets,
            )
        })),
    ),
    metric(
        "director_service_outgoing_bytes_total",
        Total,
        "IP bytes from the servers of a service to clients, of those that pass the director.",
        Service(Number(|service, scrape| {
            service_total(
                service,
                scrape,
                |page| &page.out_bytes,
                |totals| totals.out_bytes,
            )
        })),
    ),
    metric(
        "director_service_dropped_packets_total",
        Total,
        "Packets for a service that were dropped.",
        Service(Number(|service, scrape| {
            let pages = scrape.workers.iter().map(|worker| &worker.page.services);
            let pages = pages.filter_map(|services| services.get(service.id.index()));
            let drops = pages.flat_map(|page| page.drops.iter().map(Counter::get));
            service.dropped(drops.fold(0, u64::wrapping_add))
        })),
    ),
];

fn service_info(service: &ServiceView, labels: Labels<'_>, out: &mut Samples<'_>) {
    let (address, mark) = match service.key {
        ServiceKey::Address { address, .. } => (Some(address), None),
        ServiceKey::Mark { mark, .. } => (None, Some(mark)),
    };
    let protocol = service.key.protocol().map_or("", Protocol::name);
    let port = address.map_or(String::new(), |address| address.port().to_string());
    let address = address.map_or(String::new(), |address| address.ip().to_string());
    let mark = mark.map_or(String::new(), |mark| mark.to_string());
    let family = if service.key.is_ipv6() {
        "ipv6"
    } else {
        "ipv4"
    };
    let mut all = labels.to_vec();
    all.extend([
        ("protocol", &protocol as &dyn Display),
        ("address", &address),
        ("port", &port),
        ("mark", &mark),
        ("family", &family),
        ("scheduler", &service.scheduler),
    ]);
    out.sample(&all, 1);
}

/// Over the servers that are in the service.
fn of_servers(service: &ServiceView, scrape: &Scrape, get: fn(&ServerPage) -> u64) -> u64 {
    let servers = service.servers.iter();
    let counts = servers.map(|server| scrape.sum(server.id, get));
    counts.fold(0, u64::wrapping_add)
}

/// The same since the start, servers that left included.
fn service_total(
    service: &ServiceView,
    scrape: &Scrape,
    get: fn(&ServerPage) -> &Counter,
    past: fn(&control::Totals) -> u64,
) -> u64 {
    let servers = service.servers.iter();
    let counts = servers.map(|server| scrape.sum(server.id, |page| get(page).get()));
    counts.fold(past(service.past()), u64::wrapping_add)
}

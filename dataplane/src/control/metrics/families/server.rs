//! Metrics of each real server.

use control::Word;

use super::{Family, Gauge, Number, Series, Server, Total, labelled, metric, with};
use crate::control::metrics::Scrape;
use crate::control::metrics::text::{Kind::Summary, Labels, Samples, seconds};
use crate::control::model::{ServerView, Tally};
use crate::counters::{Counter, ServerPage};
use crate::health::Status;

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_server_info",
        Gauge,
        &["method"],
        "How a server is reached; always 1.",
        Server(Series(|server, _, labels, out| {
            out.sample(&with(labels, "method", &server.mode.word()), 1);
        })),
    ),
    metric(
        "director_server_weight",
        Gauge,
        "Share of new connections, as it is now.",
        Server(Number(|server, _| server.weight.into())),
    ),
    metric(
        "director_server_draining",
        Gauge,
        "1 if the server is being drained.",
        Server(Number(|server, _| u64::from(server.draining))),
    ),
    metric(
        "director_server_up",
        Gauge,
        "1 if the server passes its health checks, 0 if it is down; nothing before the first verdict.",
        Server(Series(|server, _, labels, out| {
            if let Some(up) = server.health.and_then(|health| health.fitness.is_up()) {
                out.sample(labels, u8::from(up));
            }
        })),
    ),
    metric(
        "director_server_ejected",
        Gauge,
        "1 if the server gets no connections because its packets say that it fails.",
        Server(Series(|server, _, labels, out| {
            if let Some(health) = server.health {
                out.sample(labels, u8::from(health.ejected));
            }
        })),
    ),
    metric(
        "director_server_probes_total",
        Total,
        "Probes of a server's health that ended; servers with the same check share them.",
        Server(Series(|server, scrape, labels, out| {
            probes(server, scrape, labels, out, |status| status.probes);
        })),
    ),
    metric(
        "director_server_probes_failed_total",
        Total,
        "Those of them that failed.",
        Server(Series(|server, scrape, labels, out| {
            probes(server, scrape, labels, out, |status| status.failures);
        })),
    ),
    metric(
        "director_server_probe_seconds",
        Gauge,
        "How long the last probe of a server's health took; of its checks the longest.",
        Server(Series(|server, scrape, labels, out| {
            let took = (scrape.statuses(server.id)).filter_map(|status| Some(status.last?.latency));
            if let Some(took) = took.max() {
                out.sample(labels, took.as_secs_f64());
            }
        })),
    ),
    metric(
        "director_server_active_connections",
        Gauge,
        "Connections to a server in an active state, as LVS counts them.",
        Server(Number(|server, scrape| {
            scrape.sum(server.id, |page| page.active.get().into())
        })),
    ),
    metric(
        "director_server_inactive_connections",
        Gauge,
        "Connections to a server in other states.",
        Server(Number(|server, scrape| {
            scrape.sum(server.id, |page| page.inactive.get().into())
        })),
    ),
    metric(
        "director_server_persistent_clients",
        Gauge,
        "Clients that come back to this server.",
        Server(Number(|server, scrape| {
            let templates = scrape.templates.as_ref();
            templates.map_or(0, |templates| templates.of_server(server.id).into())
        })),
    ),
    metric(
        "director_server_connections_total",
        Total,
        "Connections that were scheduled to a server.",
        Server(Number(|server, scrape| {
            server_total(
                server,
                scrape,
                |page| &page.conns,
                |tally| tally.totals.conns,
            )
        })),
    ),
    metric(
        "director_server_incoming_packets_total",
        Total,
        "Packets from clients to a server.",
        Server(Number(|server, scrape| {
            server_total(
                server,
                scrape,
                |page| &page.in_packets,
                |tally| tally.totals.in_packets,
            )
        })),
    ),
    metric(
        "director_server_incoming_bytes_total",
        Total,
        "IP bytes from clients to a server.",
        Server(Number(|server, scrape| {
            server_total(
                server,
                scrape,
                |page| &page.in_bytes,
                |tally| tally.totals.in_bytes,
            )
        })),
    ),
    metric(
        "director_server_outgoing_packets_total",
        Total,
        "Packets from a server to clients, of those that pass the director.",
        Server(Number(|server, scrape| {
            server_total(
                server,
                scrape,
                |page| &page.out_packets,
                |tally| tally.totals.out_packets,
            )
        })),
    ),
    metric(
        "director_server_outgoing_bytes_total",
        Total,
        "IP bytes from a server to clients, of those that pass the director.",
        Server(Number(|server, scrape| {
            server_total(
                server,
                scrape,
                |page| &page.out_bytes,
                |tally| tally.totals.out_bytes,
            )
        })),
    ),
    metric(
        "director_server_answer_seconds",
        Summary,
        "Time from a client's first SYN to the server's SYN/ACK, of TCP connections by NAT and FULLNAT.",
        Server(Series(|server, scrape, labels, out| {
            let us = server_total(
                server,
                scrape,
                |page| &page.answers_us,
                |tally| tally.answers_us,
            );
            let answers = server_total(server, scrape, |page| &page.answers, |tally| tally.answers);
            out.summary(labels, seconds(us.saturating_mul(1000)), answers);
        })),
    ),
];

/// Over all checks of a server, if it has any.
fn probes(
    server: &ServerView,
    scrape: &Scrape,
    labels: Labels<'_>,
    out: &mut Samples<'_>,
    get: fn(&Status) -> u64,
) {
    if scrape.checks.contains_key(&server.id) {
        let counts = scrape.statuses(server.id).map(|status| get(&status));
        out.sample(labels, counts.sum::<u64>());
    }
}

/// Since the start, as its series has it.
fn server_total(
    server: &ServerView,
    scrape: &Scrape,
    get: fn(&ServerPage) -> &Counter,
    origin: fn(&Tally) -> u64,
) -> u64 {
    let sum = scrape.sum(server.id, |page| get(page).get());
    sum.wrapping_sub(origin(&server.origin))
}

//! Metrics of each worker.

use super::port::{drops, ends};
use super::{Family, Gauge, Number, Series, Total, Worker, labelled, metric, with};
use crate::control::metrics::WorkerView;
use crate::control::metrics::text::{Kind, Labels, Samples, seconds};
use crate::counters::{BUCKETS, Histogram, Pace, Pass};

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_worker_info",
        Gauge,
        &["core"],
        "The core of a worker; always 1.",
        Worker(Series(|worker, _, labels, out| {
            out.sample(&with(labels, "core", &worker.core), 1);
        })),
    ),
    metric(
        "director_worker_received_packets_total",
        Total,
        "Packets that the worker's queues received.",
        Worker(Number(|worker, _| worker.page.rx())),
    ),
    metric(
        "director_worker_made_packets_total",
        Total,
        "Packets that the worker made, beside those it turned into answers.",
        Worker(Number(|worker, _| worker.page.made())),
    ),
    labelled(
        "director_worker_ended_packets_total",
        Total,
        &["end"],
        "Packets that the worker forwarded, answered, consumed or dropped.",
        Worker(Series(|worker, _, labels, out| {
            let ports: Vec<_> = worker.page.ports.iter().collect();
            ends(&ports, labels, out);
        })),
    ),
    labelled(
        "director_worker_dropped_packets_total",
        Total,
        &["reason"],
        "Packets that the worker dropped, by reason.",
        Worker(Series(|worker, _, labels, out| {
            let ports: Vec<_> = worker.page.ports.iter().collect();
            drops(&ports, labels, out);
        })),
    ),
    metric(
        "director_worker_held_packets",
        Gauge,
        "Packets that wait for a neighbour or a first fragment.",
        Worker(Number(|worker, _| worker.page.held.get().into())),
    ),
    metric(
        "director_worker_connections",
        Gauge,
        "Connections in the worker's table.",
        Worker(Number(|worker, _| worker.page.connections.get().into())),
    ),
    metric(
        "director_worker_connections_max",
        Gauge,
        "Connections that the worker's table can hold.",
        Worker(Number(|_, scrape| scrape.connections_max)),
    ),
    metric(
        "director_worker_steered_out_packets_total",
        Total,
        "Packets handed over to the worker that owns their connection.",
        Worker(Number(|worker, _| worker.page.steered_out.get())),
    ),
    metric(
        "director_worker_steered_in_packets_total",
        Total,
        "Packets that other workers handed over to this one.",
        Worker(Number(|worker, _| worker.page.steered_in.get())),
    ),
    metric(
        "director_worker_steering_waiting_packets",
        Gauge,
        "Packets in the rings to the worker when it last looked; a ring holds 2048.",
        Worker(Number(|worker, _| worker.page.pace.waiting.get().into())),
    ),
    metric(
        "director_worker_mailbox_commands",
        Gauge,
        "Commands of the control side that wait for the worker, 64 at most.",
        Worker(Number(|worker, _| worker.mailbox as u64)),
    ),
    metric(
        "director_worker_batches_total",
        Total,
        "Batches of changes that the worker applied.",
        Worker(Number(|worker, _| worker.page.pace.batches.get())),
    ),
    metric(
        "director_worker_passes_total",
        Total,
        "Passes over the worker's queues.",
        Worker(Number(|worker, _| worker.page.passes.get())),
    ),
    metric(
        "director_worker_handled_packets_total",
        Total,
        "Packets that the worker took in hand: received, or handed over to it.",
        Worker(Number(|worker, _| worker.page.pace.packets.get())),
    ),
    labelled(
        "director_worker_cycles_total",
        Total,
        &["state"],
        "Cycles of the time stamp counter in passes with packets, in others with commands, and in idle ones.",
        Worker(Series(|worker, _, labels, out| {
            each_pass(worker, labels, out, |pace, pass, labels, out| {
                out.sample(labels, pace.cycles(pass))
            });
        })),
    ),
    labelled(
        "director_worker_seconds_total",
        Total,
        &["state"],
        "The same as time; packets and control are the busy ones.",
        Worker(Series(|worker, _, labels, out| {
            each_pass(worker, labels, out, |pace, pass, labels, out| {
                out.sample(labels, pace.seconds(pass))
            });
        })),
    ),
    metric(
        "director_worker_longest_gap_seconds",
        Gauge,
        "The longest time between two looks at the queues, a rest included, in the last 16 to 32 seconds.",
        Worker(Series(|worker, _, labels, out| {
            out.sample(labels, seconds(worker.page.pace.longest_gap_ns()));
        })),
    ),
    metric(
        "director_worker_residence_seconds",
        Kind::Histogram,
        "Time from receiving a packet to the end of the pass that sends, drops or holds it.",
        Worker(Series(|worker, _, labels, out| {
            histogram(&worker.page.pace.residence, labels, out);
        })),
    ),
    metric(
        "director_worker_server_answer_seconds",
        Kind::Histogram,
        "Time from a client's first SYN to the server's SYN/ACK, of TCP connections by NAT and FULLNAT.",
        Worker(Series(|worker, _, labels, out| {
            histogram(&worker.page.pace.handshakes, labels, out);
        })),
    ),
];

fn each_pass(
    worker: &WorkerView,
    labels: Labels<'_>,
    out: &mut Samples<'_>,
    write: fn(&Pace, Pass, Labels<'_>, &mut Samples<'_>),
) {
    for pass in Pass::ALL {
        write(
            &worker.page.pace,
            pass,
            &with(labels, "state", &pass.name()),
            out,
        );
    }
}

fn histogram(histogram: &Histogram, labels: Labels<'_>, out: &mut Samples<'_>) {
    let mut counts = [0; BUCKETS];
    let sum_ns = histogram.add_to(&mut counts);
    out.histogram(labels, &counts, sum_ns);
}

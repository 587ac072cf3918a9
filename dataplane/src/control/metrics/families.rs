//! Every metric: its name, its meaning, and where its numbers are.

use std::fmt::Display;

use control::{Protocol, ServiceKey, Steering, SyncStatus, Word};

use super::text::{Kind, Labels, Samples, seconds};
use super::{Scrape, WorkerView};
use crate::control::model::{ServerView, ServiceView, Tally};
use crate::control::stats::{self, PortInfo};
use crate::counters::{
    BUCKETS, Counter, DropReason, Histogram, Pace, Page, Pass, PortPage, ServerPage, balanced,
};
use crate::health::Status;
use crate::update::LocalAddress;
use Kind::{Counter as Total, Gauge, Summary};
use Of::{Director, Local, Port, Server, Service, Sync, Worker};

/// One metric.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// Beside those that say whose it is.
    pub labels: &'static [&'static str],
    of: Of,
}

/// Whose samples a metric has, and how they are made. Labels are given that say whose.
enum Of {
    Director(fn(&Scrape, &mut Samples<'_>)),
    Worker(fn(&WorkerView, &Scrape, Labels<'_>, &mut Samples<'_>)),
    Port(fn(&PortInfo, &[&PortPage], Labels<'_>, &mut Samples<'_>)),
    Local(fn(&LocalAddress) -> u64),
    Sync(fn(&SyncStatus, Labels<'_>, &mut Samples<'_>)),
    Service(fn(&ServiceView, &Scrape, Labels<'_>, &mut Samples<'_>)),
    Server(fn(&ServerView, &Scrape, Labels<'_>, &mut Samples<'_>)),
}

impl std::fmt::Debug for Of {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Of {
    const fn name(&self) -> &'static str {
        match self {
            Director(_) => "director",
            Worker(_) => "worker",
            Port(_) => "port",
            Local(_) => "address",
            Sync(_) => "role",
            Service(_) => "service",
            Server(_) => "service, server",
        }
    }
}

impl Family {
    pub fn is_of_servers(&self) -> bool {
        matches!(self.of, Server(_))
    }

    /// The labels that say whose it is, separated by commas; `director` for none.
    pub fn of(&self) -> &'static str {
        self.of.name()
    }

    /// Appends the metric; if it has series for services, those born from `from` on, until `out` is
    /// `max` long. Returns the service that is next then.
    pub(super) fn write(
        &self,
        scrape: &Scrape,
        from: u64,
        max: usize,
        out: &mut String,
    ) -> Option<u64> {
        let mut samples = if from == 0 {
            Samples::begin(self.name, self.kind, self.help, out)
        } else {
            Samples::go_on(self.name, out)
        };
        match self.of {
            Director(write) => write(scrape, &mut samples),
            Worker(write) => {
                for (number, worker) in scrape.workers.iter().enumerate() {
                    write(worker, scrape, &[("worker", &number)], &mut samples);
                }
            }
            Port(write) => {
                for port in &scrape.machine.ports {
                    let pages = port.counted(scrape.workers.iter().map(|worker| &*worker.page));
                    write(port, &pages, &[("port", &port.name)], &mut samples);
                }
            }
            Local(get) => {
                for local in &scrape.view.locals {
                    samples.sample(&[("address", &local.address)], get(local));
                }
            }
            Sync(write) => {
                for status in &scrape.sync {
                    write(status, &[("role", &status.daemon.role)], &mut samples);
                }
            }
            Service(_) | Server(_) => return self.write_services(scrape, from, max, &mut samples),
        }
        None
    }

    fn write_services(
        &self,
        scrape: &Scrape,
        from: u64,
        max: usize,
        samples: &mut Samples<'_>,
    ) -> Option<u64> {
        let services = &scrape.view.services;
        let first = services.partition_point(|service| service.born < from);
        for service in &services[first..] {
            if samples.len() >= max {
                return Some(service.born);
            }
            let name = service.key.to_string();
            match self.of {
                Server(write) => {
                    for server in &service.servers {
                        let labels: Labels<'_> = &[("service", &name), ("server", &server.address)];
                        write(server, scrape, labels, samples);
                    }
                }
                Service(write) => write(service, scrape, &[("service", &name)], samples),
                _ => {}
            }
        }
        None
    }
}

const fn metric(name: &'static str, kind: Kind, help: &'static str, of: Of) -> Family {
    let labels = &[];
    Family {
        name,
        kind,
        help,
        labels,
        of,
    }
}

const fn labelled(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    of: Of,
) -> Family {
    Family {
        name,
        kind,
        help,
        labels,
        of,
    }
}

/// All metrics, in the order of the text.
pub const FAMILIES: &[Family] = &[
    labelled(
        "director_build_info",
        Gauge,
        &["version"],
        "The release that runs; always 1.",
        Director(|_, out| {
            out.sample(&[("version", &env!("CARGO_PKG_VERSION"))], 1);
        }),
    ),
    metric(
        "director_uptime_seconds",
        Gauge,
        "Time since the daemon started.",
        Director(|scrape, out| {
            out.sample(&[], scrape.uptime.as_secs());
        }),
    ),
    metric(
        "director_balanced",
        Gauge,
        "1 if every packet that was received or made had one end or is held; may be 0 while packets are in flight.",
        Director(|scrape, out| {
            let balanced = balanced(scrape.workers.iter().map(|worker| &*worker.page));
            out.sample(&[], u8::from(balanced));
        }),
    ),
    metric(
        "director_packet_buffers_in_use",
        Gauge,
        "Packet buffers out of their pools.",
        Director(|scrape, out| {
            out.sample(&[], scrape.machine.mbufs_in_use);
        }),
    ),
    metric(
        "director_packet_buffers",
        Gauge,
        "Packet buffers in all pools.",
        Director(|scrape, out| {
            out.sample(&[], scrape.machine.mbufs);
        }),
    ),
    metric(
        "director_templates",
        Gauge,
        "Clients whose server is remembered, by persistent services.",
        Director(|scrape, out| {
            out.sample(
                &[],
                scrape
                    .templates
                    .as_ref()
                    .map_or(0, |templates| templates.used()),
            );
        }),
    ),
    metric(
        "director_templates_max",
        Gauge,
        "Clients whose servers can be remembered.",
        Director(|scrape, out| {
            out.sample(
                &[],
                scrape
                    .templates
                    .as_ref()
                    .map_or(0, |templates| templates.capacity()),
            );
        }),
    ),
    metric(
        "director_services",
        Gauge,
        "Virtual services.",
        Director(|scrape, out| {
            out.sample(&[], scrape.view.services.len());
        }),
    ),
    metric(
        "director_services_max",
        Gauge,
        "Virtual services that there can be.",
        Director(|scrape, out| {
            out.sample(&[], scrape.limits.services_max);
        }),
    ),
    metric(
        "director_servers",
        Gauge,
        "Real servers in services.",
        Director(|scrape, out| {
            let services = scrape.view.services.iter();
            out.sample(
                &[],
                services.map(|service| service.servers.len()).sum::<usize>(),
            );
        }),
    ),
    metric(
        "director_servers_max",
        Gauge,
        "Real servers that there can be, deleted ones included until they are forgotten.",
        Director(|scrape, out| {
            out.sample(&[], scrape.limits.servers_max);
        }),
    ),
    labelled(
        "director_worker_info",
        Gauge,
        &["core"],
        "The core of a worker; always 1.",
        Worker(|worker, _, labels, out| {
            out.sample(&with(labels, "core", &worker.core), 1);
        }),
    ),
    metric(
        "director_worker_received_packets_total",
        Total,
        "Packets that the worker's queues received.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.rx());
        }),
    ),
    metric(
        "director_worker_made_packets_total",
        Total,
        "Packets that the worker made, beside those it turned into answers.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.made());
        }),
    ),
    labelled(
        "director_worker_ended_packets_total",
        Total,
        &["end"],
        "Packets that the worker forwarded, answered, consumed or dropped.",
        Worker(|worker, _, labels, out| {
            let ports: Vec<_> = worker.page.ports.iter().collect();
            ends(&ports, labels, out);
        }),
    ),
    labelled(
        "director_worker_dropped_packets_total",
        Total,
        &["reason"],
        "Packets that the worker dropped, by reason.",
        Worker(|worker, _, labels, out| {
            let ports: Vec<_> = worker.page.ports.iter().collect();
            drops(&ports, labels, out);
        }),
    ),
    metric(
        "director_worker_held_packets",
        Gauge,
        "Packets that wait for a neighbour or a first fragment.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.held.get());
        }),
    ),
    metric(
        "director_worker_connections",
        Gauge,
        "Connections in the worker's table.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.connections.get());
        }),
    ),
    metric(
        "director_worker_connections_max",
        Gauge,
        "Connections that the worker's table can hold.",
        Worker(|_, scrape, labels, out| {
            out.sample(labels, scrape.connections_max);
        }),
    ),
    metric(
        "director_worker_steered_out_packets_total",
        Total,
        "Packets handed over to the worker that owns their connection.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.steered_out.get());
        }),
    ),
    metric(
        "director_worker_steered_in_packets_total",
        Total,
        "Packets that other workers handed over to this one.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.steered_in.get());
        }),
    ),
    metric(
        "director_worker_steering_waiting_packets",
        Gauge,
        "Packets in the rings to the worker when it last looked; a ring holds 2048.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.pace.waiting.get());
        }),
    ),
    metric(
        "director_worker_mailbox_commands",
        Gauge,
        "Commands of the control side that wait for the worker, 64 at most.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.mailbox);
        }),
    ),
    metric(
        "director_worker_batches_total",
        Total,
        "Batches of changes that the worker applied.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.pace.batches.get());
        }),
    ),
    metric(
        "director_worker_passes_total",
        Total,
        "Passes over the worker's queues.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.passes.get());
        }),
    ),
    metric(
        "director_worker_handled_packets_total",
        Total,
        "Packets that the worker took in hand: received, or handed over to it.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, worker.page.pace.packets.get());
        }),
    ),
    labelled(
        "director_worker_cycles_total",
        Total,
        &["state"],
        "Cycles of the time stamp counter in passes with packets, in others with commands, and in idle ones.",
        Worker(|worker, _, labels, out| {
            each_pass(worker, labels, out, |pace, pass, labels, out| {
                out.sample(labels, pace.cycles(pass))
            });
        }),
    ),
    labelled(
        "director_worker_seconds_total",
        Total,
        &["state"],
        "The same as time; packets and control are the busy ones.",
        Worker(|worker, _, labels, out| {
            each_pass(worker, labels, out, |pace, pass, labels, out| {
                out.sample(labels, pace.seconds(pass))
            });
        }),
    ),
    metric(
        "director_worker_longest_gap_seconds",
        Gauge,
        "The longest time between two looks at the queues, a rest included, in the last 16 to 32 seconds.",
        Worker(|worker, _, labels, out| {
            out.sample(labels, seconds(worker.page.pace.longest_gap_ns()));
        }),
    ),
    metric(
        "director_worker_residence_seconds",
        Kind::Histogram,
        "Time from receiving a packet to the end of the pass that sends, drops or holds it.",
        Worker(|worker, _, labels, out| {
            histogram(&worker.page.pace.residence, labels, out);
        }),
    ),
    metric(
        "director_worker_server_answer_seconds",
        Kind::Histogram,
        "Time from a client's first SYN to the server's SYN/ACK, of TCP connections by NAT and FULLNAT.",
        Worker(|worker, _, labels, out| {
            histogram(&worker.page.pace.handshakes, labels, out);
        }),
    ),
    labelled(
        "director_port_info",
        Gauge,
        &["device", "mac"],
        "A port's device and Ethernet address; always 1.",
        Port(|port, _, labels, out| {
            out.sample(
                &with(&with(labels, "device", &port.device), "mac", &port.mac),
                1,
            );
        }),
    ),
    metric(
        "director_port_up",
        Gauge,
        "1 if the port's link is up.",
        Port(|port, _, labels, out| {
            out.sample(labels, u8::from(port.link_up));
        }),
    ),
    metric(
        "director_port_mtu_bytes",
        Gauge,
        "Bytes of the longest IP packet.",
        Port(|port, _, labels, out| {
            out.sample(labels, port.mtu);
        }),
    ),
    metric(
        "director_port_received_packets_total",
        Total,
        "Packets that the port received.",
        Port(|_, pages, labels, out| {
            out.sample(labels, sum(pages, |page| &page.rx));
        }),
    ),
    metric(
        "director_port_received_bytes_total",
        Total,
        "Bytes of the frames that the port received.",
        Port(|_, pages, labels, out| {
            out.sample(labels, sum(pages, |page| &page.rx_bytes));
        }),
    ),
    metric(
        "director_port_sent_packets_total",
        Total,
        "Packets that the port sent.",
        Port(|_, pages, labels, out| {
            out.sample(labels, sum(pages, |page| &page.tx));
        }),
    ),
    metric(
        "director_port_sent_bytes_total",
        Total,
        "Bytes of the frames that the port sent.",
        Port(|_, pages, labels, out| {
            out.sample(labels, sum(pages, |page| &page.tx_bytes));
        }),
    ),
    metric(
        "director_port_made_packets_total",
        Total,
        "Packets that were made for the port.",
        Port(|_, pages, labels, out| {
            out.sample(labels, sum(pages, |page| &page.made));
        }),
    ),
    labelled(
        "director_port_ended_packets_total",
        Total,
        &["end"],
        "What became of the packets that the port received or that were made for it.",
        Port(|_, pages, labels, out| {
            ends(pages, labels, out);
        }),
    ),
    labelled(
        "director_port_dropped_packets_total",
        Total,
        &["reason"],
        "Packets of the port that were dropped, by reason.",
        Port(|_, pages, labels, out| {
            drops(pages, labels, out);
        }),
    ),
    metric(
        "director_port_spread_by_device",
        Gauge,
        "1 if the port's device puts packets into the queues of the workers that own them.",
        Port(|_, pages, labels, out| {
            // The last page is no worker's.
            let workers = &pages[..pages.len().saturating_sub(1)];
            let by_device = stats::steering(workers) == Some(Steering::Nic);
            out.sample(labels, u8::from(by_device));
        }),
    ),
    metric(
        "director_port_missed_packets_total",
        Total,
        "Packets that the device dropped because its receive queue was full, as its driver counts.",
        Port(|port, _, labels, out| {
            out.sample(labels, port.lost.missed);
        }),
    ),
    metric(
        "director_port_receive_errors_total",
        Total,
        "Packets that the device received broken, as its driver counts.",
        Port(|port, _, labels, out| {
            out.sample(labels, port.lost.receive_errors);
        }),
    ),
    metric(
        "director_port_send_errors_total",
        Total,
        "Packets that the device failed to send, as its driver counts.",
        Port(|port, _, labels, out| {
            out.sample(labels, port.lost.send_errors);
        }),
    ),
    metric(
        "director_port_no_buffer_total",
        Total,
        "Packets not received for want of a packet buffer, as the driver counts.",
        Port(|port, _, labels, out| {
            out.sample(labels, port.lost.no_buffer);
        }),
    ),
    metric(
        "director_local_address_ports_in_use",
        Gauge,
        "Ports of a FULLNAT local address that connections hold.",
        Local(|local| {
            local
                .pages
                .iter()
                .map(|page| u64::from(page.in_use.get()))
                .sum()
        }),
    ),
    metric(
        "director_local_address_exhausted_total",
        Total,
        "New connections that found every port of a local address in use toward their server.",
        Local(|local| local.pages.iter().map(|page| page.exhausted.get()).sum()),
    ),
    labelled(
        "director_sync_info",
        Gauge,
        &["interface", "sync_id", "group"],
        "A daemon of connection synchronisation that runs; always 1.",
        Sync(|status, labels, out| {
            let daemon = &status.daemon;
            let more: Labels<'_> = &[
                ("interface", &daemon.interface),
                ("sync_id", &daemon.sync_id),
                ("group", &daemon.group),
            ];
            out.sample(&[labels, more].concat(), 1);
        }),
    ),
    metric(
        "director_sync_messages_total",
        Total,
        "Datagrams that a synchronisation daemon sent or took in.",
        Sync(|status, labels, out| out.sample(labels, status.messages)),
    ),
    metric(
        "director_sync_bytes_total",
        Total,
        "Bytes of these datagrams.",
        Sync(|status, labels, out| out.sample(labels, status.bytes)),
    ),
    metric(
        "director_sync_connections_total",
        Total,
        "Connections and templates that were told to other directors, or heard from them.",
        Sync(|status, labels, out| out.sample(labels, status.connections)),
    ),
    metric(
        "director_sync_lost_total",
        Total,
        "Those that a full queue, the network, or a server not known here kept from it.",
        Sync(|status, labels, out| out.sample(labels, status.lost)),
    ),
    metric(
        "director_sync_lag_seconds",
        Gauge,
        "How long the last news took from the packet to the network (master).",
        Sync(|status, labels, out| {
            if let Some(ms) = status.lag_ms {
                out.sample(labels, seconds(u64::from(ms) * 1_000_000));
            }
        }),
    ),
    metric(
        "director_sync_complete",
        Gauge,
        "1 once another director has told everything that it knows (backup).",
        Sync(|status, labels, out| {
            if let Some(complete) = status.complete {
                out.sample(labels, u8::from(complete));
            }
        }),
    ),
    labelled(
        "director_service_info",
        Gauge,
        &["protocol", "address", "port", "mark", "family", "scheduler"],
        "What a service goes by, and its scheduler; always 1.",
        Service(|service, _, labels, out| {
            service_info(service, labels, out);
        }),
    ),
    metric(
        "director_service_servers",
        Gauge,
        "Real servers in a service.",
        Service(|service, _, labels, out| {
            out.sample(labels, service.servers.len());
        }),
    ),
    metric(
        "director_service_servers_up",
        Gauge,
        "Real servers of a service that pass their health checks.",
        Service(|service, _, labels, out| {
            if let Some(health) = &service.health {
                out.sample(labels, health.up);
            }
        }),
    ),
    metric(
        "director_service_servers_needed",
        Gauge,
        "Real servers that must be up for a service to be fit to be announced: its min_healthy.",
        Service(|service, _, labels, out| {
            if let Some(health) = &service.health {
                out.sample(labels, health.min_healthy);
            }
        }),
    ),
    metric(
        "director_service_persistence_timeout_seconds",
        Gauge,
        "How long clients of a service come back to their server; 0 if they do not.",
        Service(|service, _, labels, out| {
            out.sample(
                labels,
                service
                    .persistence
                    .map_or(0, |persistence| persistence.timeout_s),
            );
        }),
    ),
    metric(
        "director_service_active_connections",
        Gauge,
        "Connections of a service in an active state, as LVS counts them.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                of_servers(service, scrape, |page| page.active.get().into()),
            );
        }),
    ),
    metric(
        "director_service_inactive_connections",
        Gauge,
        "Connections of a service in other states.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                of_servers(service, scrape, |page| page.inactive.get().into()),
            );
        }),
    ),
    metric(
        "director_service_connections_total",
        Total,
        "Connections that a service scheduled.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                service_total(service, scrape, |page| &page.conns, |totals| totals.conns),
            );
        }),
    ),
    metric(
        "director_service_incoming_packets_total",
        Total,
        "Packets from clients to the servers of a service.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                service_total(
                    service,
                    scrape,
                    |page| &page.in_packets,
                    |totals| totals.in_packets,
                ),
            );
        }),
    ),
    metric(
        "director_service_incoming_bytes_total",
        Total,
        "IP bytes from clients to the servers of a service.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                service_total(
                    service,
                    scrape,
                    |page| &page.in_bytes,
                    |totals| totals.in_bytes,
                ),
            );
        }),
    ),
    metric(
        "director_service_outgoing_packets_total",
        Total,
        "Packets from the servers of a service to clients, of those that pass the director.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                service_total(
                    service,
                    scrape,
                    |page| &page.out_packets,
                    |totals| totals.out_packets,
                ),
            );
        }),
    ),
    metric(
        "director_service_outgoing_bytes_total",
        Total,
        "IP bytes from the servers of a service to clients, of those that pass the director.",
        Service(|service, scrape, labels, out| {
            out.sample(
                labels,
                service_total(
                    service,
                    scrape,
                    |page| &page.out_bytes,
                    |totals| totals.out_bytes,
                ),
            );
        }),
    ),
    metric(
        "director_service_dropped_packets_total",
        Total,
        "Packets for a service that were dropped.",
        Service(|service, scrape, labels, out| {
            let pages = scrape
                .workers
                .iter()
                .filter_map(|worker| worker.page.services.get(service.id.index()));
            let drops = pages.flat_map(|page| page.drops.iter().map(Counter::get));
            out.sample(labels, service.dropped(drops.fold(0, u64::wrapping_add)));
        }),
    ),
    labelled(
        "director_server_info",
        Gauge,
        &["method"],
        "How a server is reached; always 1.",
        Server(|server, _, labels, out| {
            out.sample(&with(labels, "method", &server.mode.word()), 1);
        }),
    ),
    metric(
        "director_server_weight",
        Gauge,
        "Share of new connections, as it is now.",
        Server(|server, _, labels, out| {
            out.sample(labels, server.weight);
        }),
    ),
    metric(
        "director_server_draining",
        Gauge,
        "1 if the server is being drained.",
        Server(|server, _, labels, out| {
            out.sample(labels, u8::from(server.draining));
        }),
    ),
    metric(
        "director_server_up",
        Gauge,
        "1 if the server passes its health checks, 0 if it is down; nothing before the first verdict.",
        Server(|server, _, labels, out| {
            if let Some(up) = server.health.and_then(|health| health.fitness.is_up()) {
                out.sample(labels, u8::from(up));
            }
        }),
    ),
    metric(
        "director_server_ejected",
        Gauge,
        "1 if the server gets no connections because its packets say that it fails.",
        Server(|server, _, labels, out| {
            if let Some(health) = server.health {
                out.sample(labels, u8::from(health.ejected));
            }
        }),
    ),
    metric(
        "director_server_probes_total",
        Total,
        "Probes of a server's health that ended; servers with the same check share them.",
        Server(|server, scrape, labels, out| {
            probes(server, scrape, labels, out, |status| status.probes);
        }),
    ),
    metric(
        "director_server_probes_failed_total",
        Total,
        "Those of them that failed.",
        Server(|server, scrape, labels, out| {
            probes(server, scrape, labels, out, |status| status.failures);
        }),
    ),
    metric(
        "director_server_probe_seconds",
        Gauge,
        "How long the last probe of a server's health took; of its checks the longest.",
        Server(|server, scrape, labels, out| {
            let took = (scrape.statuses(server.id)).filter_map(|status| Some(status.last?.latency));
            if let Some(took) = took.max() {
                out.sample(labels, took.as_secs_f64());
            }
        }),
    ),
    metric(
        "director_server_active_connections",
        Gauge,
        "Connections to a server in an active state, as LVS counts them.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                scrape.sum(server.id, |page| page.active.get().into()),
            );
        }),
    ),
    metric(
        "director_server_inactive_connections",
        Gauge,
        "Connections to a server in other states.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                scrape.sum(server.id, |page| page.inactive.get().into()),
            );
        }),
    ),
    metric(
        "director_server_persistent_clients",
        Gauge,
        "Clients that come back to this server.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                scrape
                    .templates
                    .as_ref()
                    .map_or(0, |templates| templates.of_server(server.id)),
            );
        }),
    ),
    metric(
        "director_server_connections_total",
        Total,
        "Connections that were scheduled to a server.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                server_total(
                    server,
                    scrape,
                    |page| &page.conns,
                    |tally| tally.totals.conns,
                ),
            );
        }),
    ),
    metric(
        "director_server_incoming_packets_total",
        Total,
        "Packets from clients to a server.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                server_total(
                    server,
                    scrape,
                    |page| &page.in_packets,
                    |tally| tally.totals.in_packets,
                ),
            );
        }),
    ),
    metric(
        "director_server_incoming_bytes_total",
        Total,
        "IP bytes from clients to a server.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                server_total(
                    server,
                    scrape,
                    |page| &page.in_bytes,
                    |tally| tally.totals.in_bytes,
                ),
            );
        }),
    ),
    metric(
        "director_server_outgoing_packets_total",
        Total,
        "Packets from a server to clients, of those that pass the director.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                server_total(
                    server,
                    scrape,
                    |page| &page.out_packets,
                    |tally| tally.totals.out_packets,
                ),
            );
        }),
    ),
    metric(
        "director_server_outgoing_bytes_total",
        Total,
        "IP bytes from a server to clients, of those that pass the director.",
        Server(|server, scrape, labels, out| {
            out.sample(
                labels,
                server_total(
                    server,
                    scrape,
                    |page| &page.out_bytes,
                    |tally| tally.totals.out_bytes,
                ),
            );
        }),
    ),
    metric(
        "director_server_answer_seconds",
        Summary,
        "Time from a client's first SYN to the server's SYN/ACK, of TCP connections by NAT and FULLNAT.",
        Server(|server, scrape, labels, out| {
            let us = server_total(
                server,
                scrape,
                |page| &page.answers_us,
                |tally| tally.answers_us,
            );
            let answers = server_total(server, scrape, |page| &page.answers, |tally| tally.answers);
            out.summary(labels, seconds(us.saturating_mul(1000)), answers);
        }),
    ),
];

/// `labels` and one more.
fn with<'l>(
    labels: Labels<'l>,
    name: &'l str,
    value: &'l dyn Display,
) -> Vec<(&'l str, &'l dyn Display)> {
    let mut more = labels.to_vec();
    more.push((name, value));
    more
}

fn sum(pages: &[&PortPage], get: fn(&PortPage) -> &Counter) -> u64 {
    stats::sum(pages, |page| get(page).get())
}

fn ends(pages: &[&PortPage], labels: Labels<'_>, out: &mut Samples<'_>) {
    let dropped = stats::sum(pages, PortPage::dropped);
    for (end, count) in [
        ("forwarded", sum(pages, |page| &page.forwarded)),
        ("answered", sum(pages, |page| &page.answered)),
        ("punted", sum(pages, |page| &page.punted)),
        ("consumed", sum(pages, |page| &page.consumed)),
        ("dropped", dropped),
    ] {
        out.sample(&with(labels, "end", &end), count);
    }
}

/// Every reason, so that a graph shows the first drop.
fn drops(pages: &[&PortPage], labels: Labels<'_>, out: &mut Samples<'_>) {
    for reason in DropReason::ALL {
        let drops = stats::sum(pages, |page| page.drops[*reason as usize].get());
        out.sample(&with(labels, "reason", &reason.name()), drops);
    }
}

fn each_pass(
    worker: &WorkerView,
    labels: Labels<'_>,
    out: &mut Samples<'_>,
    write: fn(&Pace, Pass, Labels<'_>, &mut Samples<'_>),
) {
    let page: &Page = &worker.page;
    for pass in Pass::ALL {
        write(&page.pace, pass, &with(labels, "state", &pass.name()), out);
    }
}

fn histogram(histogram: &Histogram, labels: Labels<'_>, out: &mut Samples<'_>) {
    let mut counts = [0; BUCKETS];
    let sum_ns = histogram.add_to(&mut counts);
    out.histogram(labels, &counts, sum_ns);
}

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

/// Since the start, as its series has it.
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

fn server_total(
    server: &ServerView,
    scrape: &Scrape,
    get: fn(&ServerPage) -> &Counter,
    origin: fn(&Tally) -> u64,
) -> u64 {
    let sum = scrape.sum(server.id, |page| get(page).get());
    sum.wrapping_sub(origin(&server.origin))
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

//! Metrics of each port: what its device counts, and what the workers count of it.

use control::Steering;

use super::{Family, Gauge, Number, Port, Series, Total, labelled, metric, with};
use crate::control::metrics::Scrape;
use crate::control::metrics::text::{Labels, Samples};
use crate::control::stats::{self, PortInfo};
use crate::counters::{Counter, DropReason, PortPage};

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_port_info",
        Gauge,
        &["device", "mac"],
        "A port's device and Ethernet address; always 1.",
        Port(Series(|port, _, labels, out| {
            let labels = with(labels, "device", &port.device);
            out.sample(&with(&labels, "mac", &port.mac), 1);
        })),
    ),
    metric(
        "director_port_up",
        Gauge,
        "1 if the port's link is up.",
        Port(Number(|port, _| u64::from(port.link_up))),
    ),
    metric(
        "director_port_mtu_bytes",
        Gauge,
        "Bytes of the longest IP packet.",
        Port(Number(|port, _| port.mtu.into())),
    ),
    metric(
        "director_port_received_packets_total",
        Total,
        "Packets that the port received.",
        Port(Number(|port, scrape| sum(port, scrape, |page| &page.rx))),
    ),
    metric(
        "director_port_received_bytes_total",
        Total,
        "Bytes of the frames that the port received.",
        Port(Number(|port, scrape| {
            sum(port, scrape, |page| &page.rx_bytes)
        })),
    ),
    metric(
        "director_port_sent_packets_total",
        Total,
        "Packets that the port sent.",
        Port(Number(|port, scrape| sum(port, scrape, |page| &page.tx))),
    ),
    metric(
        "director_port_sent_bytes_total",
        Total,
        "Bytes of the frames that the port sent.",
        Port(Number(|port, scrape| {
            sum(port, scrape, |page| &page.tx_bytes)
        })),
    ),
    metric(
        "director_port_made_packets_total",
        Total,
        "Packets that were made for the port.",
        Port(Number(|port, scrape| sum(port, scrape, |page| &page.made))),
    ),
    labelled(
        "director_port_ended_packets_total",
        Total,
        &["end"],
        "What became of the packets that the port received or that were made for it.",
        Port(Series(|port, scrape, labels, out| {
            ends(&pages(port, scrape), labels, out);
        })),
    ),
    labelled(
        "director_port_dropped_packets_total",
        Total,
        &["reason"],
        "Packets of the port that were dropped, by reason.",
        Port(Series(|port, scrape, labels, out| {
            drops(&pages(port, scrape), labels, out);
        })),
    ),
    metric(
        "director_port_spread_by_device",
        Gauge,
        "1 if the port's device puts packets into the queues of the workers that own them.",
        Port(Number(|port, scrape| {
            // The last page is no worker's.
            let pages = pages(port, scrape);
            let workers = &pages[..pages.len().saturating_sub(1)];
            u64::from(stats::steering(workers) == Some(Steering::Nic))
        })),
    ),
    metric(
        "director_port_missed_packets_total",
        Total,
        "Packets that the device dropped because its receive queue was full, as its driver counts.",
        Port(Number(|port, _| port.lost.missed)),
    ),
    metric(
        "director_port_receive_errors_total",
        Total,
        "Packets that the device received broken, as its driver counts.",
        Port(Number(|port, _| port.lost.receive_errors)),
    ),
    metric(
        "director_port_send_errors_total",
        Total,
        "Packets that the device failed to send, as its driver counts.",
        Port(Number(|port, _| port.lost.send_errors)),
    ),
    metric(
        "director_port_no_buffer_total",
        Total,
        "Packets not received for want of a packet buffer, as the driver counts.",
        Port(Number(|port, _| port.lost.no_buffer)),
    ),
];

fn pages<'p>(port: &'p PortInfo, scrape: &'p Scrape) -> Vec<&'p PortPage> {
    port.counted(scrape.workers.iter().map(|worker| &*worker.page))
}

fn sum(port: &PortInfo, scrape: &Scrape, get: fn(&PortPage) -> &Counter) -> u64 {
    stats::sum(&pages(port, scrape), |page| get(page).get())
}

pub(super) fn ends(pages: &[&PortPage], labels: Labels<'_>, out: &mut Samples<'_>) {
    let sum = |get: fn(&PortPage) -> &Counter| stats::sum(pages, |page| get(page).get());
    let dropped = stats::sum(pages, PortPage::dropped);
    for (end, count) in [
        ("forwarded", sum(|page| &page.forwarded)),
        ("answered", sum(|page| &page.answered)),
        ("punted", sum(|page| &page.punted)),
        ("consumed", sum(|page| &page.consumed)),
        ("dropped", dropped),
    ] {
        out.sample(&with(labels, "end", &end), count);
    }
}

/// Every reason, so that a graph shows the first drop.
pub(super) fn drops(pages: &[&PortPage], labels: Labels<'_>, out: &mut Samples<'_>) {
    for reason in DropReason::ALL {
        let drops = stats::sum(pages, |page| page.drops[*reason as usize].get());
        out.sample(&with(labels, "reason", &reason.name()), drops);
    }
}

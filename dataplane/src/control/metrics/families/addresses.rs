//! Metrics of local addresses, and of virtual addresses that are announced.

use control::NodeState;

use super::{Director, Family, Gauge, Local, Number, Series, Total, labelled, metric};
use crate::control::metrics::text::Labels;
use crate::control::stats;

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    metric(
        "director_local_address_ports_in_use",
        Gauge,
        "Ports of a FULLNAT local address that connections hold.",
        Local(Number(|local, _| stats::local(local).in_use)),
    ),
    metric(
        "director_local_address_exhausted_total",
        Total,
        "New connections that found every port of a local address in use toward their server.",
        Local(Number(|local, _| stats::local(local).exhausted)),
    ),
    metric(
        "director_node_active",
        Gauge,
        "1 while clients are to come to this director, 0 before it knows others' connections and when it is drained.",
        Director(Number(|_, scrape| {
            u64::from(scrape.node == NodeState::Active)
        })),
    ),
    labelled(
        "director_address_announced",
        Gauge,
        &["address", "interface"],
        "1 while the kernel has a virtual address for routing daemons, 0 while it is withheld.",
        Director(Series(|_, scrape, _, out| {
            for at in &scrape.announced {
                let labels: Labels<'_> = &[("address", &at.address), ("interface", &at.interface)];
                out.sample(labels, u8::from(at.withheld.is_none()));
            }
        })),
    ),
];

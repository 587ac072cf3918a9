//! Metrics of the daemons that synchronise connections.

use super::{Family, Gauge, Number, Series, Sync, Total, labelled, metric};
use crate::control::metrics::text::{Labels, seconds};

/// In the order of the text.
pub(super) const FAMILIES: &[Family] = &[
    labelled(
        "director_sync_info",
        Gauge,
        &["interface", "sync_id", "group"],
        "A daemon of connection synchronisation that runs; always 1.",
        Sync(Series(|status, _, labels, out| {
            let daemon = &status.daemon;
            let more: Labels<'_> = &[
                ("interface", &daemon.interface),
                ("sync_id", &daemon.sync_id),
                ("group", &daemon.group),
            ];
            out.sample(&[labels, more].concat(), 1);
        })),
    ),
    metric(
        "director_sync_messages_total",
        Total,
        "Datagrams that a synchronisation daemon sent or took in.",
        Sync(Number(|status, _| status.messages)),
    ),
    metric(
        "director_sync_bytes_total",
        Total,
        "Bytes of these datagrams.",
        Sync(Number(|status, _| status.bytes)),
    ),
    metric(
        "director_sync_connections_total",
        Total,
        "Connections and templates that were told to other directors, or heard from them.",
        Sync(Number(|status, _| status.connections)),
    ),
    metric(
        "director_sync_lost_total",
        Total,
        "Those that a full queue, the network, or a server not known here kept from it.",
        Sync(Number(|status, _| status.lost)),
    ),
    metric(
        "director_sync_lag_seconds",
        Gauge,
        "How long the last news took from the packet to the network (master).",
        Sync(Series(|status, _, labels, out| {
            if let Some(ms) = status.lag_ms {
                out.sample(labels, seconds(u64::from(ms) * 1_000_000));
            }
        })),
    ),
    metric(
        "director_sync_complete",
        Gauge,
        "1 once another director has told everything that it knows (backup).",
        Sync(Series(|status, _, labels, out| {
            if let Some(complete) = status.complete {
                out.sample(labels, u8::from(complete));
            }
        })),
    ),
];

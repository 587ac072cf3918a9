//! Whole connections with many servers, by scheduler.

use anyhow::Result;
use control::Protocol;

use super::setup::{Clients, whole};
use crate::bench::network::Site;
use crate::bench::{Bench, Way, Workload};
use crate::sched::Kind;

const SERVERS: u32 = 200;

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let sites = [Kind::Rr, Kind::Wrr, Kind::Lc, Kind::Wlc, Kind::Sh, Kind::Mh].map(|scheduler| {
        let site = Site {
            servers: SERVERS,
            scheduler,
            ..Site::of(Way::nat(Protocol::Tcp))
        };
        (scheduler.name().to_owned(), site)
    });
    whole(bench, Workload::Schedulers, &sites, Clients::New)
}

//! Whole connections with many services, each at an address of its own or all at one, whose clients ask
//! them in turns or in no order.

use anyhow::Result;
use control::Protocol;

use super::setup::{Clients, whole};
use crate::bench::network::{Place, Site};
use crate::bench::{Bench, Way, Workload};

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    let site = |services, place, servers| Site {
        services,
        place,
        servers,
        ..Site::of(Way::nat(Protocol::Tcp))
    };
    let sites = [
        ("1 service", site(1, Place::Addresses, 16)),
        (
            "1 service, 10 000 servers",
            site(1, Place::Addresses, 10_000),
        ),
        ("1 000 services", site(1_000, Place::Addresses, 1)),
        ("10 000 services", site(10_000, Place::Addresses, 1)),
        (
            "10 000 services at one address",
            site(10_000, Place::Ports, 1),
        ),
        (
            "10 000 services at one address, in no order",
            Site {
                scattered: true,
                ..site(10_000, Place::Ports, 1)
            },
        ),
        (
            "10 000 services, 100 000 servers",
            site(10_000, Place::Addresses, 10),
        ),
    ];
    let sites = sites.map(|(case, site)| (case.to_owned(), site));
    whole(bench, Workload::Services, &sites, Clients::New)
}

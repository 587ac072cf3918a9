//! What can be measured, one a file.

mod control; // changes, scrapes and listings meanwhile
mod expiry; // a table full of connections that end at once
mod latency; // how long packets stay
mod overload; // more than one core can take
mod packets; // a packet of an established connection
mod schedulers; // connections among many servers
mod services; // connections among many services
mod setup; // whole connections
mod sizes; // packets of mixed sizes
mod syns; // new connections that come to nothing
mod workers; // two of them

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::Bench;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// A packet of an established connection: each method and family, with few and many flows
    Packets,
    /// The same with packets of mixed sizes
    Sizes,
    /// Whole connections, from the SYN to the end
    Setup,
    /// Whole connections with 1, 1 000 and 10 000 services
    Services,
    /// Whole connections with 200 servers, by scheduler
    Schedulers,
    /// SYNs from clients all over, into a full table
    Syns,
    /// How long packets stay, by load
    Latency,
    /// What is forwarded when more comes than one core can take, and in a flood of SYNs
    Overload,
    /// A full table of connections that end at the same time
    Expiry,
    /// Two workers on two cores, with packets that arrive at home or elsewhere
    Workers,
    /// Changes, scrapes and listings by the control socket while packets are forwarded
    Control,
}

impl Workload {
    pub(super) fn run(self, bench: &mut Bench<'_>) -> Result<()> {
        match self {
            Self::Packets => packets::run(bench),
            Self::Sizes => sizes::run(bench),
            Self::Setup => setup::run(bench),
            Self::Services => services::run(bench),
            Self::Schedulers => schedulers::run(bench),
            Self::Syns => syns::run(bench),
            Self::Latency => latency::run(bench),
            Self::Overload => overload::run(bench),
            Self::Expiry => expiry::run(bench),
            Self::Workers => workers::run(bench),
            Self::Control => control::run(bench),
        }
    }

    /// One line.
    pub(super) fn about(self) -> String {
        let value = self.to_possible_value();
        let help = value.as_ref().and_then(|value| value.get_help());
        let name = value.as_ref().map_or("", |value| value.get_name());
        let help = help.map_or_else(String::new, ToString::to_string);
        format!("{name}: {help}")
    }
}

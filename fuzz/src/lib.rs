//! What comes from outside, made up by a fuzzer: each target takes any bytes, and panics when something
//! is wrong. `scripts/fuzz` runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a target fails by panicking"
)]

mod command_lines; // ipvsadm: command lines, and the text of a restore
mod configuration; // our own file
mod imports; // the files of others
mod packets; // frames
mod protocol; // the control socket
pub mod seeds; // what each target begins with

use control::ipvsadm::names::NoNames;
use control::{PortSpec, Reply, Request};
use dataplane::control::Control;
use dataplane::control::model::Limits;
use dataplane::control::server::{Backend as _, Peer, Rights};
use dataplane::control::stats::Machine;

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 8] = [
    ("protocol", protocol::run),
    ("ipvsadm", command_lines::run),
    ("restore", command_lines::restore),
    ("configuration", configuration::run),
    ("import-ipvsadm", imports::ipvsadm),
    ("import-keepalived", imports::keepalived),
    ("import-dpvs", imports::dpvs),
    ("packets", packets::run),
];

const LIMITS: Limits = Limits {
    services_max: 64,
    servers_max: 64,
};

const ROOT: Peer = Peer {
    uid: 0,
    gid: 0,
    pid: 1,
    rights: Rights::Everything,
    client: 0,
};

/// The control side of a director without workers.
fn director() -> Control {
    let lan = PortSpec::new("lan", "net_null0");
    Control::new(LIMITS, Vec::new(), 64, Machine::default).with_ports([lan])
}

fn ask(director: &mut Control, request: Request) -> Reply {
    director.handle(request, &ROOT)
}

/// All that a change may change.
fn everything(director: &mut Control) -> [Reply; 4] {
    [
        Request::Services { only: None },
        Request::Timeouts,
        Request::Settings,
        Request::Marks,
    ]
    .map(|request| ask(director, request))
}

//! Requests, with threads that play the workers.

mod audit;
mod capture;
mod changes;
mod health;
mod listings;
mod node;
mod servers;

use std::thread;

use control::{
    Change, Cursor, Errno, Filter, ForwardMode, Protocol, Refusal, ServerSpec, ServiceKey,
    ServiceSpec, Settings,
};
use crossbeam::channel::bounded;

use super::*;
use crate::counters::DropReason;
use crate::packet::PortId;
use crate::update::Update;

const LIMITS: Limits = Limits {
    services_max: 4,
    servers_max: 4,
};

fn worker(core: u16, mailbox_max: usize) -> (Worker, Receiver<Command>) {
    let (mailbox, commands) = bounded(mailbox_max);
    (
        Worker {
            core,
            page: Arc::new(Page::new(4, 4).unwrap()),
            mailbox,
        },
        commands,
    )
}

fn key() -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
}

fn add_service() -> Change {
    Change::AddService {
        service: key(),
        spec: ServiceSpec::new("rr"),
    }
}

fn add_server() -> Change {
    let spec = ServerSpec {
        mode: ForwardMode::Nat,
        weight: 1,
        tunnel: control::Tunnel::default(),
        thresholds: control::Thresholds::default(),
    };
    Change::AddServer {
        service: key(),
        server: "10.1.0.1:80".parse().unwrap(),
        spec,
    }
}

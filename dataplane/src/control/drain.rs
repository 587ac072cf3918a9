//! What is due to servers that are drained: cut, said, deleted.

use std::net::SocketAddr;

use control::{Change, ServiceKey};

use super::Control;
use super::model::{Drained, name};
use crate::update::Update;

impl Control {
    /// Carries out what is due now; with a busy worker the next time will do.
    pub(super) fn see_to_drained(&mut self) {
        if self.is_busy() {
            return;
        }
        for step in self.model.drained() {
            match step {
                Drained::Late {
                    id,
                    service,
                    server,
                    connections,
                    reset,
                } => {
                    let service = name(&service);
                    tracing::info!(target: "audit", connections, "server {server} of {service}: the deadline came, what is left is cut");
                    self.post(vec![Update::CutServer { id, reset }]);
                }
                Drained::Empty {
                    service,
                    server,
                    delete,
                } => self.emptied(service, server, delete),
            }
        }
    }

    /// No connection is left to a server.
    fn emptied(&mut self, service: ServiceKey, server: SocketAddr, delete: bool) {
        let at = format!("server {server} of {}", name(&service));
        if !delete {
            tracing::info!(target: "audit", "{at} is drained");
            return;
        }
        match self.change(&[Change::DeleteServer { service, server }]) {
            Ok(()) => tracing::info!(target: "audit", "{at} is drained and deleted"),
            Err(refusal) => tracing::warn!(target: "audit", "{at} is drained: {refusal}"),
        }
    }
}

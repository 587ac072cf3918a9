//! Servers that are drained: they get no new connections, and what becomes of those that are left
//! is seen to here, whether or not anybody watches.

use std::net::SocketAddr;
use std::time::Duration;

use control::{Change, Drain, Errno, Refusal, ServiceKey};

use super::undo::{Transaction, Undo};
use super::{Model, Place, TIMEOUT_MAX_S, name, refuse};
use crate::control::stats;
use crate::update::{ServerId, Update};

/// A server that is being drained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draining {
    drain: Drain,
    /// Before.
    weight: u32,
    deadline: Option<Duration>,
    /// The deadline came.
    cut: bool,
    /// It was said that no connection is left.
    done: bool,
}

/// What a drain has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// The deadline came before the last connections ended.
    Late {
        id: ServerId,
        service: ServiceKey,
        server: SocketAddr,
        connections: u32,
        reset: bool,
    },
    /// No connection is left.
    Empty {
        service: ServiceKey,
        server: SocketAddr,
        /// The server is to be deleted now.
        delete: bool,
    },
}

impl Model {
    pub(super) fn drain(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        drain: Drain,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        let (id, service, _) = self.find_server(key, address)?;
        check(address, drain)?;
        let after = |seconds| self.now + Duration::from_secs(u64::from(seconds));
        let deadline = drain.deadline_s.map(after);
        let server = self.servers.get_mut(id.0);
        done.undo.push(Undo::Server(id, Some(*server)));
        let weight = server.draining.map_or(server.spec.weight, |old| old.weight);
        server.draining = Some(Draining {
            drain,
            weight,
            deadline,
            cut: false,
            done: false,
        });
        server.spec.weight = 0;
        server.ramp = None;
        if !server.condition.removed {
            let edited = server.edited(id);
            done.update(service, edited);
            done.update(service, Update::DrainServer { id, draining: true });
        }
        Ok(())
    }

    pub(super) fn cancel_drain(
        &mut self,
        key: &ServiceKey,
        address: SocketAddr,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        self.find(key)?;
        let (id, ..) = self.find_server(key, address)?;
        let server = self.servers.get(id.0);
        let Some(Draining { weight, .. }) = server.draining else {
            let detail = format!("server {address} of {} is not being drained", name(key));
            return Err(refuse(Errno::Enoent, detail));
        };
        let spec = control::ServerSpec {
            weight,
            ..server.spec
        };
        self.undrain(id, done);
        self.respecify(id, spec, done);
        Ok(())
    }

    /// The server is not being drained any more, if it was.
    pub(super) fn undrain(&mut self, id: ServerId, done: &mut Transaction) {
        let server = self.servers.get_mut(id.0);
        if server.draining.is_some() {
            done.undo.push(Undo::Server(id, Some(*server)));
            server.draining = None;
            let draining = server.condition.is_withheld();
            if !server.condition.removed {
                done.updates.push(Update::DrainServer { id, draining });
            }
        }
    }

    /// Whether `change` gives a server that is being drained a weight.
    pub fn ends_drain(&self, change: &Change) -> bool {
        let Change::EditServer {
            service,
            server,
            spec,
        } = change
        else {
            return false;
        };
        let found = self.find_server(service, *server);
        found.is_ok_and(|(id, ..)| self.servers.get(id.0).draining.is_some()) && spec.weight > 0
    }

    /// Looks at every server that is being drained: what is to be done now. Each deadline, and each
    /// end but that of a server to be deleted, is told once.
    pub fn drained(&mut self) -> Vec<Drained> {
        let mut steps = Vec::new();
        for id in self.servers.ids().into_iter().map(ServerId) {
            let server = self.servers.get_mut(id.0);
            let (Some(draining), Place::Listed { .. }) = (&mut server.draining, server.place)
            else {
                continue;
            };
            let (service, address) = (server.service, server.address);
            let (active, inactive) = stats::connections(&self.pages, id);
            let (connections, delete) = (active + inactive, draining.drain.delete);
            let late = draining
                .deadline
                .is_some_and(|deadline| self.now >= deadline);
            if connections == 0 && (delete || !draining.done) {
                draining.done = true;
                steps.push(Drained::Empty {
                    service,
                    server: address,
                    delete,
                });
            } else if connections > 0 && late && !draining.cut {
                draining.cut = true;
                steps.push(Drained::Late {
                    id,
                    service,
                    server: address,
                    connections,
                    reset: draining.drain.reset,
                });
            }
        }
        steps
    }
}

impl Draining {
    /// Before.
    pub(super) const fn weight(&self) -> u32 {
        self.weight
    }

    /// As it is listed at `now`.
    pub(super) fn shown(&self, now: Duration) -> control::Draining {
        let left = |deadline: Duration| deadline.saturating_sub(now).as_millis().div_ceil(1000);
        let deadline_s = self
            .deadline
            .map(|deadline| u32::try_from(left(deadline)).unwrap_or(u32::MAX));
        control::Draining {
            drain: Drain {
                deadline_s,
                ..self.drain
            },
            weight: self.weight,
        }
    }
}

fn check(address: SocketAddr, drain: Drain) -> Result<(), Refusal> {
    let detail = match drain.deadline_s {
        Some(seconds) if seconds > TIMEOUT_MAX_S => format!(
            "a deadline of {seconds} s for server {address} is too far away, at most {TIMEOUT_MAX_S} (31 days) is right"
        ),
        None if drain.reset => format!(
            "server {address} is to reset what is cut at a deadline, but has no deadline; seconds are right"
        ),
        _ => return Ok(()),
    };
    Err(refuse(Errno::Einval, detail))
}

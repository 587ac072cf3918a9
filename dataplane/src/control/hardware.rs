//! What only the daemon around the director knows and does: the devices of its ports.

use std::time::Duration;

use control::Refusal;

use super::model::NewPort;
use super::stats::Machine;
use crate::kernel::tables::{LinkId, Tables};
use crate::net::Prefix;
use crate::packet::PortId;

/// The devices of the ports. Only the main thread has them: workers are given their queues.
pub trait Hardware {
    /// How they do.
    fn machine(&self) -> Machine;

    /// Starts a device as a port, and its kernel's side as another, and gives their queues to the workers;
    /// its Ethernet address.
    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal>;

    /// Takes the queues of a port from the workers, to whom it was named for the last time, and lets go
    /// of its device.
    fn close(&mut self, id: PortId);

    /// The kernel's tables are asked for from now on, if they are not yet.
    fn watch_kernel(&mut self) {}

    /// The kernel's tables, if they changed since this was last asked for.
    fn kernels_tables(&mut self) -> Option<Tables> {
        None
    }

    /// Gives an interface of the kernel's an address, or takes it away.
    fn set_kernels_address(&mut self, _link: LinkId, _prefix: Prefix, _set: Setting) {}

    /// Goes on with what could not be done at once, and looks after the ports' links. `now` counts from the
    /// server's start.
    fn tick(&mut self, _now: Duration) {}
}

/// What becomes of an address of the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Add,
    Delete,
}

/// Without devices ports are but names.
impl<F: Fn() -> Machine> Hardware for F {
    fn machine(&self) -> Machine {
        self()
    }

    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        Ok(port.mac_without_device())
    }

    fn close(&mut self, _: PortId) {}
}

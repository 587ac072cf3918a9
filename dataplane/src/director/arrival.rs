//! Whether packets arrive at the worker that owns them.
//!
//! A NIC can spread packets over the workers' queues as [`crate::steer`] does, by the clients' ends. That
//! is not believed before the hashes of the first packets were found to be ours. Then packets are taken
//! for being at home, and only those without a connection here are looked at once more.

use control::Role;

use super::{Director, PORTS_MAX};
use crate::packet::{Burst, Egress, PacketBuf, PortId};
use crate::steer::hash_of;
use crate::time::Instant;
use crate::wire::flow::{Kind, Seen};

/// Packets whose hashes must agree.
const AGREED: u32 = 64;
/// Packets without a hash after which there is none to be expected.
const UNHASHED: u32 = 256;

/// How a port's packets come to their workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arrival {
    /// By software: they arrive anywhere.
    #[default]
    Anywhere,
    /// The device was told how to hash them; so many hashes were ours, and so many packets had none.
    Tried {
        role: Role,
        agreed: u32,
        unhashed: u32,
    },
    /// The device hashed other than we do. By software.
    Disagreed,
    /// The device tells no hashes. By software.
    Unhashed,
    /// By the device.
    AtHome,
}

impl Arrival {
    /// The code of [`Self::Tried`].
    pub const TRIED: u32 = 1;

    /// As [`crate::counters::PortPage`] has it.
    pub const fn code(self) -> u32 {
        match self {
            Self::Anywhere => 0,
            Self::Tried { .. } => Self::TRIED,
            Self::AtHome => 2,
            Self::Disagreed => 3,
            Self::Unhashed => 4,
        }
    }
}

/// By port, and what is known of the burst that is decided about.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    ports: [Arrival; PORTS_MAX],
    /// Packets of the burst may be another worker's.
    pub(super) unsure: bool,
}

impl<P: PacketBuf> Director<P> {
    /// A port comes. With a role its device was told to hash packets by the end that is a client's.
    pub fn arrive(&mut self, port: PortId, hashes: Option<Role>) {
        let arrival = match hashes {
            Some(role) if !self.steer.is_alone() => Arrival::Tried {
                role,
                agreed: 0,
                unhashed: 0,
            },
            _ => Arrival::Anywhere,
        };
        self.set_arrival(port, arrival);
    }

    pub(super) fn arrival(&self, port: PortId) -> Arrival {
        self.arrivals.ports[port.index()]
    }

    pub fn set_arrival(&mut self, port: PortId, arrival: Arrival) {
        self.arrivals.ports[port.index()] = arrival;
        self.page.port(port).arrival.set(arrival.code());
    }

    /// Packets that arrive at home, or nearly all of them.
    pub(super) fn process_arrived<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        from: PortId,
        burst: &mut Burst<P>,
        out: &mut E,
    ) {
        self.arrivals.unsure = true;
        self.process_home(now, from, burst, out);
        self.arrivals.unsure = false;
    }

    /// The other worker that owns a packet without a connection here.
    pub(super) fn astray(&self, from: PortId, seen: &Seen, frame: &[u8]) -> Option<usize> {
        if !self.arrivals.unsure {
            return None;
        }
        let home = self.home_of(from, seen, frame);
        (home != self.steer.me()).then_some(home)
    }

    /// Compares the device's hash of a packet with ours, of packets that come the way which its role
    /// says.
    #[cold]
    pub(super) fn compare_hash(&mut self, from: PortId, seen: &Seen, packet: &P) {
        let Arrival::Tried {
            role,
            mut agreed,
            mut unhashed,
        } = self.arrival(from)
        else {
            return;
        };
        if seen.kind != Kind::Transport {
            return;
        }
        let tuple = seen.tuple(packet.bytes());
        let is_asking = self.services.is_asking(&tuple, from, seen.vlan());
        if is_asking != (role == Role::Clients) {
            return;
        }
        let end = if is_asking { tuple.from } else { tuple.to };
        let ours = hash_of(end);
        match packet.rss_hash() {
            None => unhashed += 1,
            Some(hash) if hash == ours && self.steer.home(end) == self.steer.me() => agreed += 1,
            Some(_) => return self.set_arrival(from, Arrival::Disagreed),
        }
        let arrival = match (agreed, unhashed) {
            (AGREED.., _) => Arrival::AtHome,
            (_, UNHASHED..) => Arrival::Unhashed,
            _ => Arrival::Tried {
                role,
                agreed,
                unhashed,
            },
        };
        self.set_arrival(from, arrival);
    }
}

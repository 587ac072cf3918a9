//! Slow start: the weight of a server that joins a running service, or comes back from weight 0,
//! grows from 1 to what it is set to while the service's `slow_start_s` pass.
//!
//! Where nothing is warm, or nothing else takes connections, a server has its weight at once: in the
//! first `slow_start_s` of a service's life, and when it is the only one. Nor is there a ramp for
//! schedulers that do not share out by weight; for those that hash clients to servers each step would
//! move clients.

use std::time::Duration;

use super::{Model, Place, Server, Service};
use crate::sched::Kind;
use crate::update::{ServerId, ServiceId, Update};

/// A server on its way to its weight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ramp {
    since: Duration,
    /// The weight that the workers were told last.
    told: u32,
}

impl Ramp {
    /// The weight after so long: from 1 to `goal`, which is at least 1.
    fn weight(elapsed: Duration, over: Duration, goal: u32) -> u32 {
        if elapsed >= over {
            return goal;
        }
        let grown = u128::from(goal - 1) * elapsed.as_millis() / over.as_millis().max(1);
        1 + u32::try_from(grown).unwrap_or(goal - 1)
    }
}

/// Whether a scheduler shares connections out by weight, and bears with weights that change.
fn shares(scheduler: Kind) -> bool {
    use Kind::{Lblc, Lblcr, Nq, Ovf, Sed, Twos, Wlc, Wrr};
    matches!(scheduler, Wrr | Wlc | Sed | Nq | Lblc | Lblcr | Ovf | Twos)
}

impl Service {
    /// How long a server's weight grows here.
    fn ramp_length(&self) -> Duration {
        let seconds = if shares(self.head.policy.scheduler) {
            self.head.options.slow_start_s
        } else {
            0
        };
        Duration::from_secs(u64::from(seconds))
    }
}

impl Server {
    /// The weight that the workers know.
    pub(super) fn weight_now(&self) -> u32 {
        match self.ramp {
            _ if self.condition.is_withheld() => 0,
            Some(ramp) => ramp.told,
            None => self.spec.weight,
        }
    }
}

impl Model {
    /// The ramp of a server that begins to take connections in this service at this weight, if it
    /// needs one.
    pub(super) fn ramp_for(
        &self,
        service: ServiceId,
        id: Option<ServerId>,
        weight: u32,
    ) -> Option<Ramp> {
        let service = self.services.get(service.0);
        let length = service.ramp_length();
        let warm = self.now.saturating_sub(service.since) >= length;
        let mut others = service.servers.values().filter(|other| Some(**other) != id);
        let needed = weight > 1
            && !length.is_zero()
            && warm
            && others.any(|other| self.servers.get(other.0).weight_now() > 0);
        needed.then_some(Ramp {
            since: self.now,
            told: 1,
        })
    }

    /// The ramp of a server whose weight is set from `before` to `weight`: one under way goes on to
    /// the new goal.
    pub(super) fn ramp_on(&self, service: ServiceId, id: ServerId, weight: u32) -> Option<Ramp> {
        let server = self.servers.get(id.0);
        match server.ramp {
            _ if weight == 0 || server.condition.is_withheld() => None,
            None if server.spec.weight == 0 => self.ramp_for(service, Some(id), weight),
            None => None,
            Some(ramp) => {
                let length = self.services.get(service.0).ramp_length();
                let told = Ramp::weight(self.now.saturating_sub(ramp.since), length, weight);
                Some(Ramp { told, ..ramp })
            }
        }
    }

    /// One step of every ramp, each [`super::STEP_S`] seconds.
    pub fn ramp(&mut self) -> Vec<Update> {
        let Self {
            services,
            servers,
            now,
            ..
        } = self;
        let mut updates = Vec::new();
        for id in servers.ids() {
            let server = servers.get_mut(id);
            let (Some(ramp), Place::Listed { service, .. }) = (server.ramp, server.place) else {
                continue;
            };
            let (goal, length) = (server.spec.weight, services.get(service.0).ramp_length());
            let told = Ramp::weight(now.saturating_sub(ramp.since), length, goal);
            server.ramp = (told < goal).then_some(Ramp { told, ..ramp });
            if told != ramp.told {
                updates.push(server.edited(ServerId(id)));
            }
        }
        updates
    }
}

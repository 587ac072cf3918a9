//! Whether the devices spread packets over the workers as they were told, for the log.

use control::Steering;

use super::{Control, stats};
use crate::packet::PORTS_MAX;

/// What was said last, by port.
#[derive(Debug, Default)]
pub(super) struct Arrivals([Option<Steering>; PORTS_MAX]);

impl Control {
    pub(super) fn see_to_arrivals(&mut self) {
        for (id, spec) in self.model.ports().iter() {
            let pages = self.workers.iter().map(|worker| worker.page.port(id));
            let now = stats::steering(&pages.collect::<Vec<_>>());
            let said = &mut self.arrivals.0[id.index()];
            if std::mem::replace(said, now) == now {
                continue;
            }
            let port = &spec.name;
            match now {
                Some(Steering::Nic) => {
                    tracing::info!(port, "its device spreads packets over the workers");
                }
                Some(Steering::OtherHash) => tracing::warn!(
                    port,
                    "its device hashes packets otherwise than it was told; workers hand them on"
                ),
                Some(Steering::NoHash) => tracing::warn!(
                    port,
                    "its device does not tell what it hashes packets to; workers hand them on"
                ),
                _ => {}
            }
        }
    }
}

//! Services with timeouts of their own: their connections are marked, and take their timeouts from the
//! service whenever their state changes, and with their next packet after it was edited.

use control::ServiceTimeouts;

use super::Director;
use crate::conn::{Hit, State};
use crate::packet::PacketBuf;
use crate::time::Instant;
use crate::update::ServiceId;

impl<P: PacketBuf> Director<P> {
    /// How long a connection lives in this state.
    pub(super) fn timeout_ms(&mut self, hit: Hit, state: State) -> u32 {
        let conn = self.conns.get(hit);
        // Most have none: their server is not looked at.
        let with_own = conn.has_own_timeouts().then(|| conn.server());
        let server = with_own.and_then(|id| self.services.server(id));
        let own = server.and_then(|server| self.services.own_timeouts(server.service));
        own.and_then(|own| seconds(own, state))
            .map_or_else(|| self.timeouts.ms(state), |seconds| seconds * 1000)
    }

    /// Takes up the timeouts of a connection's service, which may be new to it.
    pub(super) fn retime(&mut self, now: Instant, hit: Hit, service: Option<ServiceId>) {
        let own = service.and_then(|service| self.services.own_timeouts(service));
        let is_own = own.is_some();
        let conn = self.conns.get(hit);
        if (is_own || conn.has_own_timeouts()) && !self.conns.is_alone(hit) {
            let conn = self.conns.get(hit);
            conn.set_own_timeouts(is_own);
            let state = conn.state();
            let timeout_ms = self.timeout_ms(hit, state);
            self.conns
                .set_state_for(now, hit.entry(), state, timeout_ms);
        }
    }
}

fn seconds(own: ServiceTimeouts, state: State) -> Option<u32> {
    match state {
        State::Established => own.tcp,
        State::FinWait => own.tcp_fin,
        State::Udp => own.udp,
        _ => None,
    }
}

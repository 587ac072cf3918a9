//! `dh`: by the hash of the destination (`ip_vs_dh.c`), for services of many addresses. LVS deals the
//! servers out to 256 slots; the server in a slot is plain arithmetic.

use std::net::IpAddr;

use super::hash::{fold, slot};
use super::{Ask, Scheduler};

#[derive(Debug, Clone)]
pub(super) struct Dh;

impl Scheduler for Dh {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let n = ask.servers.len();
        let nth = slot(fold(ask.destination())).checked_rem(n)?;
        Some(n - 1 - nth).filter(|at| ask.servers[*at].is_usable())
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let slot = slot(fold(ask.destination()));
        format!("slot {slot} of 256, by the hash of {}", ask.destination())
    }
}

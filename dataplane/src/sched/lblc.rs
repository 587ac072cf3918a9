//! `lblc`: locality-based least connections (`ip_vs_lblc.c`), for caches: a destination stays with its
//! server until that is hot; then, as `wlc`, with another.

use std::net::{IpAddr, SocketAddr};

use super::memory::Memory;
use super::{Ask, Scheduler, wlc};
use crate::time::Instant;

/// Servers by address: one that is deleted and comes back takes up where it was.
#[derive(Debug, Default)]
pub(super) struct Lblc(Memory<SocketAddr>);

impl Scheduler for Lblc {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let destination = ask.destination();
        if let Some(server) = self.0.recall(ask.now, destination) {
            let at = position(ask, *server);
            // An overloaded server keeps its destinations, as in LVS.
            if let Some(at) = at.filter(|at| ask.servers[*at].weight > 0 && !is_hot(ask, *at)) {
                return Some(at);
            }
        }
        let picked = wlc::pick(ask)?;
        let server = ask.servers[picked].address;
        self.0.remember(ask.now, destination, server);
        Some(picked)
    }

    fn tick(&mut self, now: Instant) {
        self.0.tick(now);
    }

    fn resumed(&mut self, now: Instant, destination: IpAddr, server: SocketAddr) {
        if self.0.recall(now, destination).is_none() {
            self.0.remember(now, destination, server);
        }
    }

    fn copy(&self, destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(Self(self.0.part(destination)))
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let server = self.0.look(ask.destination());
        marked(ask, |address| server == Some(&address))
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let to = ask.destination();
        format!(
            "the server that {to} has, unless it is hot; or the least (256*active+active+inactive)/weight"
        )
    }
}

pub(super) fn position(ask: &Ask<'_>, server: SocketAddr) -> Option<usize> {
    let mut servers = ask.servers.iter();
    servers.position(|candidate| candidate.address == server)
}

/// Whether a server has more active connections than its weight while another has less than half of
/// its own.
pub(super) fn is_hot(ask: &Ask<'_>, at: usize) -> bool {
    let active = |server| ask.load(server).active;
    let server = &ask.servers[at];
    let weight = |server: &super::Candidate| u64::from(server.weight);
    active(server) > weight(server)
        && (ask.servers.iter()).any(|other| 2 * active(other) < weight(other))
}

/// What each server weighs, and whether the destination has it, for people.
pub(super) fn marked(ask: &Ask<'_>, has: impl Fn(SocketAddr) -> bool) -> Vec<String> {
    let mut figures = wlc::overheads(ask);
    for ((at, server), figure) in ask.servers.iter().enumerate().zip(&mut figures) {
        if has(server.address) {
            *figure += if is_hot(ask, at) { " hot" } else { " its own" };
        }
    }
    figures
}

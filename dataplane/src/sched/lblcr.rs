//! `lblcr`: `lblc` with replication (`ip_vs_lblcr.c`): a destination has a set of servers, of which
//! the least loaded serves it. A server joins when that one is hot; the most loaded leaves when none
//! did for a day.

use std::net::{IpAddr, SocketAddr};

use super::lblc::{is_hot, marked, position};
use super::memory::{EXPIRY_MS, Memory};
use super::{Ask, Candidate, Scheduler, lighter, lightest, wlc};
use crate::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Lblcr {
    memory: Memory<Set>,
    /// Deleted servers that are still in sets.
    gone: Vec<Candidate>,
}

/// By address: a server that is deleted and comes back takes up where it was.
#[derive(Debug, Clone)]
struct Set {
    /// The newest member is last.
    members: Vec<SocketAddr>,
    changed: Instant,
}

impl Set {
    /// Of the members that may be picked, the least loaded.
    fn least(&self, ask: &Ask<'_>) -> Option<usize> {
        let members = self.members.iter().rev();
        let present = members.filter_map(|member| position(ask, *member));
        let servers = present.map(|at| (at, &ask.servers[at]));
        let usable = servers.filter(|(_, server)| server.is_usable());
        lightest(usable, |server| ask.load(server).overhead())
    }

    /// Of the members with a weight, deleted ones too, the place of the most loaded.
    fn most(&self, ask: &Ask<'_>, gone: &[Candidate]) -> Option<usize> {
        let find = |member: &SocketAddr| {
            let mut servers = ask.servers.iter().chain(gone);
            servers.find(|server| server.address == *member)
        };
        let members = self.members.iter().enumerate().rev();
        let priced = members.filter_map(|(place, member)| {
            let server = find(member).filter(|server| server.weight > 0)?;
            Some((place, ask.load(server).overhead(), server.weight))
        });
        priced
            .reduce(|most, other| if lighter(most, other) { other } else { most })
            .map(|(place, ..)| place)
    }
}

impl Scheduler for Lblcr {
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let destination = ask.destination();
        let Some(set) = self.memory.recall(ask.now, destination) else {
            let picked = wlc::pick(ask)?;
            let set = Set {
                members: vec![ask.servers[picked].address],
                changed: ask.now,
            };
            self.memory.remember(ask.now, destination, set);
            return Some(picked);
        };
        let least = set.least(ask);
        if set.members.len() > 1
            && ask.now.since(set.changed) > EXPIRY_MS
            && let Some(most) = set.most(ask, &self.gone)
        {
            set.members.remove(most);
            set.changed = ask.now;
        }
        if let Some(least) = least.filter(|at| !is_hot(ask, *at)) {
            return Some(least);
        }
        let picked = wlc::pick(ask)?;
        let server = ask.servers[picked].address;
        if !set.members.contains(&server) {
            set.members.push(server);
            set.changed = ask.now;
        }
        Some(picked)
    }

    fn tick(&mut self, now: Instant) {
        self.memory.tick(now);
    }

    fn added(&mut self, servers: &[Candidate]) {
        let new = servers.last().map(|server| server.address);
        self.gone.retain(|gone| Some(gone.address) != new);
    }

    fn removed(&mut self, _servers: &[Candidate], _index: usize, gone: &Candidate) {
        self.gone.push(*gone);
        let memory = &self.memory;
        self.gone.retain(|gone| {
            let mut sets = memory.values();
            sets.any(|set| set.members.contains(&gone.address))
        });
    }

    fn resumed(&mut self, now: Instant, destination: IpAddr, server: SocketAddr) {
        match self.memory.recall(now, destination) {
            Some(set) if set.members.contains(&server) => {}
            Some(set) => set.members.push(server),
            None => {
                let set = Set {
                    members: vec![server],
                    changed: now,
                };
                self.memory.remember(now, destination, set);
            }
        }
    }

    fn copy(&self, destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(Self {
            memory: self.memory.part(destination),
            gone: self.gone.clone(),
        })
    }

    fn figures(&self, ask: &Ask<'_>) -> Vec<String> {
        let set = self.memory.look(ask.destination());
        let members = set.map_or(&[][..], |set| &set.members);
        marked(ask, |address| members.contains(&address))
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let to = ask.destination();
        format!(
            "the least (256*active+active+inactive)/weight of those that {to} has, unless that is hot; or of all"
        )
    }
}

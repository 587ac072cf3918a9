//! Neighbours: who is asked for its Ethernet address, who is asked again, who is forgotten.

use std::net::IpAddr;

use control::NeighbourState;

use super::held::Queue;
use super::{Hop, HopId, Net, arp, nd};
use crate::counters::{DropReason, Page};
use crate::packet::{Egress, PacketBuf, PortId};
use crate::time::Instant;
use crate::wire::ethernet;

/// The most neighbours one worker knows.
pub const NEIGHBOURS_MAX: usize = 16_384;

/// Requests and probes that stay unanswered before the next worse state.
const TRIES_MAX: u8 = 3;
const RETRY_MS: u32 = 1000;
/// How long packets to a neighbour that did not answer are dropped at once.
const FAILED_MS: u32 = 3000;
/// An address in use is checked when it is this old.
const FRESH_MS: u32 = 30_000;
/// An address that nobody uses is forgotten when it is this old.
const UNUSED_MS: u32 = 60_000;

/// [`Net::tick`] looks at this many neighbours, this often.
const SWEEP_MAX: usize = 256;
const SWEEP_EVERY_MS: u32 = 10;
/// Neighbours are forgotten in batches so that the 16-bit generation takes 18 hours to wrap.
const FREE_EVERY_MS: u32 = 1000;

/// What the fast path does not read of a next hop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) interface: u16,
    /// Of the interface, as its port is the hop's.
    pub(super) vlan: Option<u16>,
    pub(super) address: IpAddr,
    pub(super) source: IpAddr,
    pub(super) state: State,
    pub(super) queue: Queue,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// Asked `tries` times; asked again, or given up, at `next`.
    Incomplete {
        tries: u8,
        next: Instant,
    },
    Reachable {
        since: Instant,
    },
    /// Still ready, but asked whether it is still there.
    Probing {
        tries: u8,
        next: Instant,
    },
    Failed {
        until: Instant,
    },
    Static,
}

impl State {
    /// As it is listed; `None`: a place that is free is not.
    pub(super) const fn listed(self) -> Option<NeighbourState> {
        match self {
            Self::Free => None,
            Self::Incomplete { .. } => Some(NeighbourState::Incomplete),
            Self::Reachable { .. } => Some(NeighbourState::Reachable),
            Self::Probing { .. } => Some(NeighbourState::Probing),
            Self::Failed { .. } => Some(NeighbourState::Failed),
            Self::Static => Some(NeighbourState::Static),
        }
    }
}

impl Entry {
    /// Whether a packet may wait for it; one that failed long enough ago gets another chance.
    pub(super) fn may_wait(&mut self, now: Instant) -> bool {
        match self.state {
            State::Failed { until } if now.reached(until) => {
                self.state = State::Incomplete {
                    tries: 0,
                    next: now,
                };
                true
            }
            State::Failed { .. } | State::Free => false,
            _ => true,
        }
    }
}

/// What a neighbour, or somebody for it, said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    /// `None`: the one that is known.
    pub(super) mac: Option<[u8; 6]>,
    /// It was asked, so that it certainly hears us.
    pub(super) solicited: bool,
    /// It replaces another Ethernet address that is known.
    pub(super) overrides: bool,
}

impl Heard {
    /// ARP does not tell such differences: it is always believed.
    pub(super) const fn arp(mac: [u8; 6]) -> Self {
        Self {
            mac: Some(mac),
            solicited: true,
            overrides: true,
        }
    }
}

/// A neighbour as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeighbourView {
    pub port: PortId,
    pub vlan: Option<u16>,
    pub address: IpAddr,
    /// `None` while unknown.
    pub mac: Option<[u8; 6]>,
    pub state: NeighbourState,
}

impl<P: PacketBuf> Net<P> {
    pub(super) fn ids(&self) -> impl Iterator<Item = HopId> + use<P> {
        (0..=u16::MAX).take(self.entries.len()).map(HopId)
    }

    /// A new neighbour, not asked yet unless it is static; `None` when the table is full.
    pub(super) fn create(
        &mut self,
        now: Instant,
        interface: u16,
        address: IpAddr,
    ) -> Option<HopId> {
        let on = self.on(interface);
        let entry = Entry {
            interface,
            vlan: on.vlan,
            address,
            source: on.source_for(address),
            state: State::Incomplete {
                tries: 0,
                next: now,
            },
            queue: Queue::default(),
        };
        let ethertype = match address {
            IpAddr::V4(_) => ethernet::IPV4,
            IpAddr::V6(_) => ethernet::IPV6,
        };
        let (l2, l2_len) = ethernet::header([0; 6], on.mac, on.vlan, ethertype);
        let (own, port) = (on.mac, self.network.exit(on, address));
        let is_kernels = port != on.port;
        let hop = Hop {
            l2,
            l2_len,
            ready: false,
            used: false,
            port,
            mtu: on.mtu,
        };
        let key = (hop.port, entry.vlan, address);
        let id = self.place(hop, entry)?;
        self.index.insert(key, id);
        if is_kernels {
            self.pin(id, own);
        } else if let Some(mac) = self.network.neighbours.get(&(interface, address)).copied() {
            self.pin(id, mac);
        }
        Some(id)
    }

    fn place(&mut self, hop: Hop, entry: Entry) -> Option<HopId> {
        if let Some(id) = self.free.pop() {
            self.hops[id.index()] = hop;
            self.entries[id.index()] = entry;
            return Some(id);
        }
        let id = u16::try_from(self.entries.len()).ok().map(HopId)?;
        if id.index() >= NEIGHBOURS_MAX {
            return None;
        }
        self.hops.push(hop);
        self.entries.push(entry);
        Some(id)
    }

    /// Makes a neighbour static.
    pub(super) fn pin(&mut self, id: HopId, mac: [u8; 6]) {
        self.entries[id.index()].state = State::Static;
        self.set_mac(id, mac);
    }

    pub(super) fn set_mac(&mut self, id: HopId, mac: [u8; 6]) {
        let hop = &mut self.hops[id.index()];
        hop.l2[..6].copy_from_slice(&mac);
        hop.ready = true;
    }

    /// The neighbour was heard: what waited for it leaves. Whether that was news.
    pub(super) fn confirm<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        id: HopId,
        heard: &Heard,
        out: &mut E,
        page: &Page,
    ) -> bool {
        let (hop, entry) = (&mut self.hops[id.index()], &mut self.entries[id.index()]);
        let known = hop.mac();
        let Some(mac) = heard.mac.or(known) else {
            return false;
        };
        let is_same = known == Some(mac);
        if entry.state == State::Static || is_same && !heard.solicited {
            return false;
        }
        // Old enough to be checked as soon as it is used.
        let doubtful = now.minus_ms(FRESH_MS);
        if known.is_some() && !is_same && !heard.overrides {
            // Two claim it. The one that is known stays, if it still answers.
            if let State::Reachable { since } = &mut entry.state
                && now.since(*since) < FRESH_MS
            {
                *since = doubtful;
            }
            return false;
        }
        let news = !is_same || !matches!(entry.state, State::Reachable { .. });
        let since = if heard.solicited { now } else { doubtful };
        entry.state = State::Reachable { since };
        hop.used = false;
        self.set_mac(id, mac);
        self.release(id, out, page);
        news
    }

    /// Asks for an incomplete neighbour's address, or a probed one whether it is still there.
    pub(super) fn ask<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        id: HopId,
        out: &mut E,
        page: &Page,
    ) {
        let (hop, entry) = (&self.hops[id.index()], &mut self.entries[id.index()]);
        let mut known = None;
        match &mut entry.state {
            State::Incomplete { tries, next } => {
                *tries += 1;
                *next = now.plus_ms(RETRY_MS);
            }
            State::Probing { tries, next } => {
                *tries += 1;
                *next = now.plus_ms(RETRY_MS);
                known = hop.mac();
            }
            State::Free | State::Reachable { .. } | State::Failed { .. } | State::Static => return,
        }
        let interface = &self.network.interfaces[usize::from(entry.interface)];
        match (entry.source, entry.address) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                arp::ask(interface, source, target, known, out, page);
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                nd::ask(interface, source, target, known, out, page);
            }
            _ => unreachable!("the source is of the address's family"),
        }
    }

    /// Retries, checks and forgets neighbours: a bounded number, and nothing most of the time.
    pub fn tick<E: Egress<Buf = P>>(&mut self, now: Instant, out: &mut E, page: &Page) {
        if now.since(self.swept) < SWEEP_EVERY_MS {
            return;
        }
        self.swept = now;
        let may_free = now.since(self.freed) >= FREE_EVERY_MS;
        let mut freed = false;
        for _ in 0..self.entries.len().min(SWEEP_MAX) {
            let Ok(id) = u16::try_from(self.cursor).map(HopId) else {
                break;
            };
            self.cursor = (self.cursor + 1) % self.entries.len();
            if self.is_forgotten(now, id) {
                if may_free {
                    self.forget(id);
                    freed = true;
                }
            } else {
                self.age(now, id, out, page);
            }
        }
        if freed {
            self.freed = now;
            self.generation = self.generation.wrapping_add(1);
        }
    }

    /// Whether nothing speaks for keeping it.
    fn is_forgotten(&self, now: Instant, id: HopId) -> bool {
        match self.entries[id.index()].state {
            State::Reachable { since } => {
                now.since(since) >= UNUSED_MS && !self.hops[id.index()].used
            }
            // Packets could have started it again for a while, and none did.
            State::Failed { until } => now.reached(until.plus_ms(FAILED_MS)),
            _ => false,
        }
    }

    /// Whoever calls it sees to it that the generation changes.
    pub(super) fn forget(&mut self, id: HopId) {
        let (hop, entry) = (&mut self.hops[id.index()], &mut self.entries[id.index()]);
        self.index.remove(&(hop.port, entry.vlan, entry.address));
        entry.state = State::Free;
        hop.ready = false;
        self.free.push(id);
    }

    /// Takes the next step of one neighbour if it is due.
    fn age<E: Egress<Buf = P>>(&mut self, now: Instant, id: HopId, out: &mut E, page: &Page) {
        let (hop, entry) = (&mut self.hops[id.index()], &mut self.entries[id.index()]);
        match entry.state {
            State::Incomplete { tries, next } if now.reached(next) => {
                if tries >= TRIES_MAX {
                    entry.state = State::Failed {
                        until: now.plus_ms(FAILED_MS),
                    };
                    self.drop_held(id, DropReason::NeighbourFailed, out, page);
                    return;
                }
            }
            State::Reachable { since } if now.since(since) >= FRESH_MS && hop.used => {
                entry.state = State::Probing {
                    tries: 0,
                    next: now,
                };
            }
            State::Probing { tries, next } if now.reached(next) => {
                if tries >= TRIES_MAX {
                    // It may have moved to another station: ask everyone.
                    entry.state = State::Incomplete {
                        tries: 0,
                        next: now,
                    };
                    hop.ready = false;
                }
            }
            _ => return,
        }
        self.ask(now, id, out, page);
    }

    pub fn neighbours(&self) -> Vec<NeighbourView> {
        let entries = self.entries.iter().zip(&self.hops);
        let listed = entries.filter_map(|(entry, hop)| {
            let (state, interface) = (entry.state.listed()?, self.on(entry.interface));
            let view = NeighbourView {
                port: interface.port,
                vlan: interface.vlan,
                address: entry.address,
                mac: hop.mac(),
                state,
            };
            // The kernel is none.
            (interface.port == hop.port).then_some(view)
        });
        listed.collect()
    }
}

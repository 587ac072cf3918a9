//! Schedulers: which real server takes a new connection.
//!
//! LVS walks a service's servers newest first. Here they lie oldest first in a slice, so that adding
//! one moves none: "first in LVS's order" is the slice's last.

mod conhash;
mod dh;
mod fo;
mod hash; // what dh, sh and mh find a slot by
mod lblc;
mod lblcr;
mod lc;
mod limit; // connection thresholds
mod loads; // how many connections each server has
mod memory; // what lblc and lblcr remember
mod mh;
mod nq;
mod ovf;
mod ranks; // the least loaded of many
mod rr;
mod sed;
mod sh;
#[cfg(test)]
mod shares; // how evenly tables share clients out, and how few they move
mod spread; // whom slots belong to, and how many move
mod table; // what mh and conhash look servers up in
#[cfg(test)]
mod tests; // every scheduler against the reference's vectors, and what none may do
mod twos;
mod wlc;
mod wrr;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use control::{ForwardMode, SchedulerFlags};

use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::Tuple;
use ranks::Ranked;

pub use limit::Limit;
pub use loads::{Load, Loads};
pub use spread::Spread;
pub use table::{Member, Recipe, Table};

/// A real server as a scheduler sees it, in one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Candidate {
    pub id: ServerId,
    pub address: SocketAddr,
    /// Of new connections.
    pub mode: ForwardMode,
    /// Its share of new connections; 0 means none.
    pub weight: u32,
    /// The weight it had before it was quiesced; 0 if it never had one.
    pub last_weight: u32,
    pub limit: Limit,
}

impl Candidate {
    /// Whether it may take a new connection: neither quiesced nor overloaded.
    pub fn is_usable(&self) -> bool {
        self.weight > 0 && !self.limit.is_over()
    }
}

/// A packet that wants a connection.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer<'a> {
    /// What the client sent.
    pub tuple: &'a Tuple,
    /// For what goes by destinations, where that is not the virtual address: of what an ICMP error quotes
    /// the client's.
    pub instead: Option<IpAddr>,
    /// What is in a datagram.
    pub said: &'a [u8],
}

impl<'a> Newcomer<'a> {
    pub fn new(tuple: &'a Tuple, said: &'a [u8]) -> Self {
        Self {
            tuple,
            instead: None,
            said,
        }
    }
}

/// A new connection that wants a server, and all that its choice may depend on.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub now: Instant,
    /// What the client sent.
    pub tuple: &'a Tuple,
    /// As [`Newcomer::instead`].
    pub instead: Option<IpAddr>,
    /// Oldest first.
    pub servers: &'a [Candidate],
    pub loads: &'a Loads,
    pub flags: SchedulerFlags,
    /// Of a QUIC packet, where the service goes by it.
    pub connection_id: Option<u64>,
}

impl Ask<'_> {
    /// For what goes by it.
    fn destination(&self) -> IpAddr {
        self.instead.unwrap_or(self.tuple.to.ip())
    }

    /// In LVS's order, with their positions.
    fn walk(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.servers.iter().enumerate().rev()
    }

    /// Those that may be picked, in LVS's order.
    fn usable(&self) -> impl Iterator<Item = (usize, &Candidate)> {
        self.walk().filter(|(_, server)| server.is_usable())
    }

    fn load(&self, server: &Candidate) -> Load {
        self.loads.of(server.id)
    }

    /// What each server costs for its weight, for people.
    fn ratios(&self, cost: fn(Load) -> u64) -> Vec<String> {
        let shown = |server: &Candidate| ratio(cost(self.load(server)), server.weight);
        self.servers.iter().map(shown).collect()
    }
}

/// Chooses the server of a new connection. One instance a service a worker.
pub trait Scheduler: Send + std::fmt::Debug {
    /// Picks one by its position in `ask.servers`; `None` when no server is to take the connection.
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize>;
    /// The time is `now`: called before a pick, for what LVS does by a timer.
    fn tick(&mut self, _now: Instant) {}
    /// The last of `servers` is new.
    fn added(&mut self, _servers: &[Candidate]) {}
    /// `gone`, which stood at `index`, is no longer among `servers`.
    fn removed(&mut self, _servers: &[Candidate], _index: usize, _gone: &Candidate) {}
    /// Weights changed.
    fn reweighted(&mut self, _servers: &[Candidate]) {}
    /// The connections of the server at this position are others than before. Only those are told who
    /// [`Kind::ranks`].
    fn counted(&mut self, _servers: &[Candidate], _loads: &Loads, _at: usize) {}
    /// A connection to `destination`, left by a director before this one, goes to this server.
    fn resumed(&mut self, _now: Instant, _destination: IpAddr, _server: SocketAddr) {}
    /// The table of the servers as they now are.
    fn tabled(&mut self, _table: &Arc<Table>) {}
    /// One that picks as this one would, for connections to this destination.
    fn copy(&self, destination: IpAddr) -> Box<dyn Scheduler>;
    /// What it sees in each of `ask.servers`, for people; nothing where it sees nothing.
    fn figures(&self, _ask: &Ask<'_>) -> Vec<String> {
        Vec::new()
    }
    /// What it picks by, for people.
    fn rule(&self, ask: &Ask<'_>) -> String;
}

/// The schedulers there are, by LVS's names, and `conhash` by DPVS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Sed,
    Nq,
    Fo,
    Ovf,
    Mh,
    Twos,
    Conhash,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
        Self::Conhash,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
            Self::Conhash => "conhash",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it picks nobody until it is given a table.
    pub const fn has_table(self) -> bool {
        matches!(self, Self::Mh | Self::Conhash)
    }

    /// Whether it is to know of every change of a server's connections.
    pub const fn ranks(self) -> bool {
        matches!(self, Self::Lc | Self::Wlc)
    }

    /// A scheduler in its first state, over `servers`. What it draws at random follows from `seed`.
    pub fn bind(self, servers: &[Candidate], seed: u64) -> Box<dyn Scheduler> {
        match self {
            Self::Rr => Box::new(rr::Rr::default()),
            Self::Wrr => Box::new(wrr::Wrr::new(servers)),
            Self::Lc => Box::new(Ranked::new(&lc::LC)),
            Self::Wlc => Box::new(Ranked::new(&wlc::WLC)),
            Self::Lblc => Box::new(lblc::Lblc::default()),
            Self::Lblcr => Box::new(lblcr::Lblcr::default()),
            Self::Dh => Box::new(dh::Dh),
            Self::Sh => Box::new(sh::Sh::default()),
            Self::Sed => Box::new(sed::Sed),
            Self::Nq => Box::new(nq::Nq),
            Self::Fo => Box::new(fo::Fo),
            Self::Ovf => Box::new(ovf::Ovf),
            Self::Mh => Box::new(mh::Mh::default()),
            Self::Twos => Box::new(twos::Twos::new(seed)),
            Self::Conhash => Box::new(conhash::Conhash::default()),
        }
    }
}

/// The position after `index` in LVS's walk, `None` being the list's head; `None` again at its end.
fn next(servers: &[Candidate], index: Option<usize>) -> Option<usize> {
    index.unwrap_or(servers.len()).checked_sub(1)
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The one with the least cost for its weight; the first of equals.
fn lightest<'a>(
    servers: impl Iterator<Item = (usize, &'a Candidate)>,
    cost: impl Fn(&Candidate) -> u64,
) -> Option<usize> {
    let priced = servers.map(|(at, server)| (at, cost(server), server.weight));
    priced
        .reduce(|best, other| if lighter(other, best) { other } else { best })
        .map(|(at, ..)| at)
}

/// Whether the first one's cost for its weight is less; neither weight is 0.
fn lighter((_, a, weight_a): (usize, u64, u32), (_, b, weight_b): (usize, u64, u32)) -> bool {
    u128::from(a) * u128::from(weight_b) < u128::from(b) * u128::from(weight_a)
}

/// A cost for a weight, for people.
fn ratio(cost: u64, weight: u32) -> String {
    match weight {
        0 => cost.to_string(),
        1 => format!("{cost}/1"),
        _ => {
            let hundredths = u128::from(cost) * 100 / u128::from(weight);
            let (whole, part) = (hundredths / 100, hundredths % 100);
            format!("{cost}/{weight} = {whole}.{part:02}")
        }
    }
}

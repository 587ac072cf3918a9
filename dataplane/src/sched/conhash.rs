//! `conhash`: consistent hashing of the client, or of its QUIC connection (DPVS's name; Karger et al.,
//! STOC 1997). Each server has points on a ring, as many as its weight says, that depend on nothing
//! but its own address; a client belongs to the first point at its hash or after it. So a server that
//! comes or goes moves its own clients and no others.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::table::{Member, Table};
use super::{Ask, Scheduler, gcd};

/// Points of a server of the lowest weight, as in DPVS: shares are right to about 8 %.
const POINTS: u64 = 160;
/// Points of all servers together, but for one that each has at least.
const POINTS_MAX: u64 = 1 << 20;
/// The same everywhere: every director hashes alike.
const KEY: (u64, u64) = (0x636f_6e73_6973_7465, 0x6e74_2068_6173_6869);

#[derive(Debug, Clone, Default)]
pub(super) struct Conhash {
    table: Option<Arc<Table>>,
}

/// Of some bytes and a number.
#[expect(clippy::cast_possible_truncation, reason = "its lower half")]
fn hash(bytes: &[u8], number: u64) -> u32 {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    hasher.write(bytes);
    hasher.write(&number.to_le_bytes());
    hasher.finish() as u32
}

fn hash_address(address: IpAddr, number: u64) -> u32 {
    match address {
        IpAddr::V4(address) => hash(&address.octets(), number),
        IpAddr::V6(address) => hash(&address.octets(), number),
    }
}

/// Hashes in ascending order, and whose point each is, by place among `members`.
pub(super) fn ring(members: &[Member]) -> (Vec<u32>, Vec<u32>) {
    let unit = members.iter().map(|m| i64::from(m.weight)).fold(0, gcd);
    let unit = u64::try_from(unit).unwrap_or(1).max(1);
    let units = members.iter().map(|member| u64::from(member.weight) / unit);
    let wanted = units.sum::<u64>() * POINTS;
    let points = |member: &Member| {
        let points = u64::from(member.weight) / unit * POINTS;
        let fitting = points * POINTS_MAX / wanted.max(POINTS_MAX);
        fitting.max(u64::from(member.weight > 0))
    };
    // Of two points in one place the lower address has it, whoever was added first.
    let mut order: Vec<(u32, &Member)> = (0..).zip(members).collect();
    order.sort_unstable_by_key(|(_, member)| member.address);
    let mut ring: Vec<u64> = Vec::new();
    for (rank, (_, member)) in (0u64..).zip(&order) {
        let port = u64::from(member.address.port());
        ring.extend((0..points(member)).map(|point| {
            let place = hash_address(member.address.ip(), point << 16 | port);
            u64::from(place) << 32 | rank
        }));
    }
    ring.sort_unstable();
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is a rank")]
    let owner = |point: u64| order[point as u32 as usize].0;
    ring.into_iter()
        .map(|point| ((point >> 32) as u32, owner(point)))
        .unzip()
}

/// Where a client is on the ring.
fn client(ask: &Ask<'_>) -> u32 {
    match ask.connection_id {
        Some(id) => hash(&[], id),
        None => hash_address(ask.tuple.from.ip(), 0),
    }
}

impl Scheduler for Conhash {
    /// Passes over servers that are not to be picked: only their clients go elsewhere.
    fn pick(&mut self, ask: &Ask<'_>) -> Option<usize> {
        let table = self.table.as_ref()?;
        let client = client(ask);
        let first = table.ends.partition_point(|end| *end < client);
        let slots = table.slots.len();
        let mut walk = (first..slots).chain(0..first);
        let mut next = || table.find(walk.next()?, ask.servers);
        let usable = |at: &usize| ask.servers[*at].is_usable();
        if let Some(picked) = next().filter(usable) {
            return Some(picked);
        }
        ask.usable().next()?;
        walk.filter_map(|slot| table.find(slot, ask.servers))
            .find(usable)
    }

    fn tabled(&mut self, table: &Arc<Table>) {
        self.table = Some(Arc::clone(table));
    }

    fn copy(&self, _destination: IpAddr) -> Box<dyn Scheduler> {
        Box::new(self.clone())
    }

    fn rule(&self, ask: &Ask<'_>) -> String {
        let by = match ask.connection_id {
            Some(id) => format!("the connection id {id:016x}"),
            None => ask.tuple.from.ip().to_string(),
        };
        let hash = client(ask);
        format!("the next point on the ring after {hash:08x}, the hash of {by}")
    }
}

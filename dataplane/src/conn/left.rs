//! Connections that a director before this one left in files.
//!
//! Nothing is believed of what is read: each connection is opened here as a new one is, and then made as
//! old as it was. What was written last may be torn, and costs that one connection.

use std::io;
use std::mem::offset_of;
use std::path::Path;

use control::ForwardMode;

use super::state::State;
use super::{
    CONTROLLED, Conn, Conns, DOOMED, Extra, HELPED, Hit, METHOD, NO_OUTPUT, OWN_TIMEOUTS,
    SERVER_ID, STATE, V6,
};
use crate::ftp::Talk;
use crate::fullnat::client::ClientSide;
use crate::mem;
use crate::time::Instant;
use crate::update::ServerId;
use crate::wire::flow::{Addresses6, SCTP, TCP, Tuple, UDP};

/// Files of what lies in a [`mem::Place`].
pub(super) const ENTRIES: &str = "entries";
pub(super) const WIDE: &str = "wide";
pub(super) const EXTRAS: &str = "extras";
pub(super) const TALKS: &str = "talks";
pub(super) const PARENTS: &str = "parents";

/// What tells whether they are understood: other numbers, other files.
pub const LAYOUT: &[usize] = &[
    size_of::<Conn>(),
    offset_of!(Conn, addresses),
    offset_of!(Conn, ports),
    offset_of!(Conn, protocol),
    offset_of!(Conn, state),
    offset_of!(Conn, last_seen),
    offset_of!(Conn, server),
    offset_of!(Conn, hops),
    offset_of!(Conn, timeout_ms),
    offset_of!(Conn, packets),
    offset_of!(Conn, bytes),
    (SERVER_ID | METHOD) as usize,
    (V6 | NO_OUTPUT) as usize,
    (STATE | HELPED) as usize,
    (CONTROLLED | OWN_TIMEOUTS) as usize,
    DOOMED.0 as usize,
    State::ALL.len(),
    State::Udp as usize,
    State::SctpNone as usize,
    size_of::<Addresses6>(),
    size_of::<Extra>(),
    offset_of!(Extra, client),
    size_of::<ClientSide>(),
    size_of::<Talk>(),
];

/// One connection as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// What the client and the server send.
    pub sides: [Tuple; 2],
    /// By its number then.
    pub server: ServerId,
    pub mode: ForwardMode,
    pub state: State,
    /// Since its last packet.
    pub age_ms: u32,
    pub timeout_ms: u32,
    pub packets: [u32; 2],
    pub bytes: u64,
    /// Nothing was heard of its server.
    pub one_way: bool,
    pub own_timeouts: bool,
    pub doomed: bool,
    /// Of FULLNAT.
    pub client: Option<ClientSide>,
    /// Of a control connection of FTP.
    pub talk: Option<Talk>,
    /// Whether another connection brought it about, or a template, of which this is the number then.
    pub parent: Option<Option<u32>>,
}

impl Former {
    /// Whether its time has run out.
    pub fn is_over(&self) -> bool {
        self.age_ms >= self.timeout_ms
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Left {
    entries: mem::Left,
    wide: mem::Left,
    extras: mem::Left,
    talks: mem::Left,
    parents: mem::Left,
    capacity: u32,
}

impl Left {
    /// What the files of a table for so many take.
    pub const fn bytes(capacity: u32) -> u64 {
        let each = size_of::<Conn>()
            + size_of::<[Addresses6; 2]>()
            + size_of::<Extra>()
            + size_of::<Talk>()
            + size_of::<u32>();
        each as u64 * (capacity as u64 + 1)
    }

    /// Of a table with room for so many, in files that begin with `owner`.
    pub fn open(directory: &Path, owner: &str, capacity: u32) -> io::Result<Self> {
        let open = |name: &str| mem::Left::open(&directory.join(format!("{owner}.{name}")));
        let left = Self {
            entries: open(ENTRIES)?,
            wide: open(WIDE)?,
            extras: open(EXTRAS)?,
            talks: open(TALKS)?,
            parents: open(PARENTS)?,
            capacity,
        };
        let entries = capacity as usize;
        let is_whole = left.entries.room_for::<Conn>() >= entries
            && left.wide.room_for::<[Addresses6; 2]>() >= entries
            && left.extras.room_for::<Extra>() >= entries
            && left.talks.room_for::<Talk>() >= entries
            && left.parents.room_for::<u32>() >= entries;
        if !is_whole {
            let detail = format!("{owner}: the files are shorter than {capacity} connections");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, detail));
        }
        Ok(left)
    }

    /// Each connection, when it is `now` by the clock that they went by; `None` for what cannot be one.
    pub fn all(&self, now: Instant) -> impl Iterator<Item = Option<Former>> {
        (0..self.capacity).filter_map(move |entry| {
            let conn: Conn = self.entries.get(entry as usize)?;
            (conn.protocol != 0).then(|| self.read(now, entry, &conn))
        })
    }

    fn read(&self, now: Instant, entry: u32, conn: &Conn) -> Option<Former> {
        let place = entry as usize;
        let sides = [
            self.side(place, conn, false)?,
            self.side(place, conn, true)?,
        ];
        let mode = mode(conn)?;
        let state = conn.state();
        let of_protocol = match conn.protocol {
            TCP => State::None as u8..State::Udp as u8,
            UDP => State::Udp as u8..State::SctpNone as u8,
            SCTP => State::SctpNone as u8..u8::MAX,
            _ => return None,
        };
        let is_hidden = mode == ForwardMode::FullNat;
        let parent: u32 = self.parents.get(place)?;
        let talk: Talk = self.talks.get(place)?;
        (of_protocol.contains(&(state as u8)) && are_one(mode, &sides)).then_some(Former {
            sides,
            server: conn.server(),
            mode,
            state,
            // A worker's time may be a little before another's.
            age_ms: match now.reached(conn.last_seen()) {
                true => now.since(conn.last_seen()),
                false => 0,
            },
            timeout_ms: conn.timeout_ms,
            packets: conn.packets,
            bytes: conn.bytes,
            one_way: conn.is_one_way(),
            own_timeouts: conn.has_own_timeouts(),
            doomed: conn.is_doomed(),
            client: match is_hidden {
                true => Some(self.extras.get::<Extra>(place)?.client),
                false => None,
            },
            talk: conn.is_helped().then_some(talk),
            parent: conn.is_controlled().then(|| parent.checked_sub(1)),
        })
    }

    fn side(&self, place: usize, conn: &Conn, outbound: bool) -> Option<Tuple> {
        let flow = conn.side(outbound);
        if !flow.v6 {
            return Some(Tuple::of_v4(&flow));
        }
        let addresses: [Addresses6; 2] = self.wide.get(place)?;
        Some(Tuple::of_v6(&flow, &addresses[usize::from(outbound)]))
    }
}

fn mode(conn: &Conn) -> Option<ForwardMode> {
    match conn.server & METHOD {
        super::NAT => Some(ForwardMode::Nat),
        super::FULLNAT => Some(ForwardMode::FullNat),
        super::DIRECT => Some(ForwardMode::Direct),
        super::TUNNEL => Some(ForwardMode::Tunnel),
        _ => None,
    }
}

/// Whether these can be the sides of one connection.
fn are_one(mode: ForwardMode, [inbound, outbound]: &[Tuple; 2]) -> bool {
    match mode {
        ForwardMode::Direct | ForwardMode::Tunnel => *outbound == inbound.reversed(),
        ForwardMode::Nat => outbound.to == inbound.from,
        ForwardMode::FullNat => true,
    }
}

impl Conns {
    /// Makes a connection that was just opened as old as `former` is.
    pub fn resume(&mut self, now: Instant, hit: Hit, former: &Former) {
        let entry = hit.entry();
        let conn = &mut self.entries[entry as usize];
        conn.state = conn.state & !STATE | former.state as u8;
        conn.set_own_timeouts(former.own_timeouts);
        let last_seen = now.minus_ms(former.age_ms);
        conn.last_seen = last_seen.0;
        conn.timeout_ms = former.timeout_ms;
        (conn.packets, conn.bytes) = (former.packets, former.bytes);
        if !former.one_way {
            conn.server &= !NO_OUTPUT;
        }
        if former.doomed {
            conn.doom();
        }
        if former.state.is_half_open() {
            self.timers.queue_half_open(entry);
        }
        let deadline = last_seen.plus_ms(former.timeout_ms);
        self.timers.schedule(now, entry, deadline);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;
    use crate::conn::Timeouts;
    use crate::mem::Place;

    fn address(v6: bool) -> impl Strategy<Value = SocketAddr> {
        (any::<u128>(), any::<u16>()).prop_map(move |(bits, port)| {
            let low = u32::try_from(bits & 0xffff_ffff).unwrap();
            let ip = match v6 {
                true => IpAddr::from(std::net::Ipv6Addr::from_bits(bits)),
                false => IpAddr::from(std::net::Ipv4Addr::from_bits(low)),
            };
            SocketAddr::new(ip, port)
        })
    }

    /// Of any method, protocol, state and age.
    fn former() -> impl Strategy<Value = Former> {
        let ends = (any::<bool>(), any::<bool>()).prop_flat_map(|(v6, server_v6)| {
            let servers = || address(server_v6);
            (address(v6), address(v6), servers(), servers())
        });
        let rest = (
            0usize..4,
            0usize..State::ALL.len(),
            any::<(u32, u32, u64)>(),
        );
        let flags = any::<(bool, bool, bool)>();
        (ends, rest, any::<[u32; 2]>(), flags).prop_map(
            |(
                (client, vip, server, local),
                (mode, state, (age, timeout_ms, bytes)),
                packets,
                flags,
            )| {
                let mode = [
                    ForwardMode::Nat,
                    ForwardMode::FullNat,
                    ForwardMode::Direct,
                    ForwardMode::Tunnel,
                ][mode];
                let state = State::ALL[state];
                let protocol = [TCP, UDP, SCTP]
                    .into_iter()
                    .rfind(|protocol| State::before_all(*protocol) as u8 <= state as u8);
                let inbound = Tuple {
                    protocol: protocol.unwrap(),
                    from: client,
                    to: vip,
                };
                let outbound = match mode {
                    ForwardMode::Direct | ForwardMode::Tunnel => inbound.reversed(),
                    ForwardMode::Nat => Tuple {
                        from: vip,
                        to: client,
                        ..inbound
                    },
                    ForwardMode::FullNat => Tuple {
                        from: server,
                        to: local,
                        ..inbound
                    },
                };
                let is_mirrored = matches!(mode, ForwardMode::Direct | ForwardMode::Tunnel);
                let (one_way, own_timeouts, doomed) = flags;
                Former {
                    sides: [inbound, outbound],
                    server: ServerId(age % 1000),
                    mode,
                    state,
                    age_ms: age / 2,
                    timeout_ms,
                    packets,
                    bytes,
                    one_way: one_way && is_mirrored,
                    own_timeouts,
                    doomed,
                    client: (mode == ForwardMode::FullNat).then(ClientSide::default),
                    talk: None,
                    parent: None,
                }
            },
        )
    }

    const NOW: Instant = Instant(u32::MAX - 5);

    fn reopened(directory: &Path, all: &[Former]) -> Vec<Option<Former>> {
        let place = Place::files(directory).of("w");
        let mut conns = Conns::within(&place, 50, [1, 2]).unwrap();
        for former in all {
            let [inbound, outbound] = &former.sides;
            let timeouts = Timeouts::default();
            let opened = conns.open(
                NOW,
                [inbound, outbound],
                former.server,
                former.mode,
                &timeouts,
            );
            let hit = opened.unwrap();
            if former.mode == ForwardMode::FullNat {
                *conns.extra(hit.entry()) = Extra::new_zeroed();
            }
            conns.resume(NOW, hit, former);
        }
        Left::open(directory, "w", 50).unwrap().all(NOW).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_read_is_what_was_written(all in vec(former(), 0..40)) {
            let directory = tempfile::tempdir().unwrap();
            let read = reopened(directory.path(), &all);
            let expected: Vec<_> = all.into_iter().map(Some).collect();
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn short_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        reopened(directory.path(), &[]);
        assert!(Left::open(directory.path(), "w", 100_000).is_err());
        assert!(Left::open(directory.path(), "v", 50).is_err());
        let path = directory.path().join("w.entries");
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        assert!(Left::open(directory.path(), "w", 50).is_err());
    }
}

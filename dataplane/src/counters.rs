//! What a worker counts. It alone writes its [`Page`]; anyone may read it at any time.
//!
//! Every packet has exactly one end: over any quiet moment `rx + made = forwarded + answered +
//! punted + consumed + dropped + held` ([`Page::balanced`]).

mod pace; // how busy a worker is, and how long things take

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::mem::{Array, Place};
use crate::packet::{Exit, Origin, PORTS_MAX, PortId};

pub use pace::{BUCKETS, Histogram, Pace, Pass, Stopwatch, bound};

/// A counter with one writer. Never goes backwards.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Only the owning worker calls this: a plain load and store, no locked instruction.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down, with one writer.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug, Default)]
#[repr(transparent)]
pub struct Gauge(AtomicU32);

impl Gauge {
    #[inline]
    pub fn set(&self, n: u32) {
        self.0.store(n, Relaxed);
    }

    #[inline]
    pub fn up(&self) {
        self.set(self.get() + 1);
    }

    #[inline]
    pub fn down(&self) {
        debug_assert!(self.get() > 0, "a gauge went below zero");
        self.set(self.get().saturating_sub(1));
    }

    #[inline]
    pub fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// Declares the reasons once: variant, counter name, sentence.
macro_rules! drop_reasons {
    ($($variant:ident $name:literal $sentence:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $sentence] $variant,)* }

        impl DropReason {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The counter's name.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
            /// What happened, for people.
            pub const fn sentence(self) -> &'static str { match self { $(Self::$variant => $sentence,)* } }
        }
    };
}

drop_reasons! {
    Truncated "truncated" "the frame ends before its headers or its announced length do",
    Scattered "scattered" "the frame came in several buffers: longer than the port's mtu",
    BadHeader "bad_header" "an IP or TCP header length or version is not valid",
    BadChecksum "bad_checksum" "an ICMP error whose checksum or IP header checksum is wrong",
    BadSource "bad_source" "the source address is multicast, broadcast, loopback or our own",
    NotForUs "not_for_us" "the Ethernet destination is another station",
    UnknownVlan "unknown_vlan" "no interface of the port has this VLAN",
    UnknownEthertype "unknown_ethertype" "neither IPv4 nor ARP",
    BadArp "bad_arp" "the ARP message is not valid Ethernet/IPv4 or claims our address",
    BadNd "bad_nd" "the neighbour discovery message is not valid or claims our address",
    NotOurs "not_ours" "no service, connection or address of the director matches",
    Fragment "fragment" "a fragment of a packet that is neither TCP, UDP nor SCTP, or that must be changed as a whole",
    FragmentTiny "fragment_tiny" "a fragment that divides its transport header",
    FragmentOverlap "fragment_overlap" "a fragment that overlaps another one, or of a datagram with such fragments",
    FragmentTimeout "fragment_timeout" "a fragment whose first one did not come in time",
    FragmentsFull "fragments_full" "too many fragments wait, or too many of this datagram",
    TtlExpired "ttl_expired" "the time to live ran out here",
    NoServer "no_server" "the service has no server to take a new connection",
    NoCallId "no_call_id" "the service goes by the Call-ID of SIP, and this has none",
    NoConnection "no_connection" "no connection, and the packet may not open one",
    ServerGone "server_gone" "the connection's server was deleted",
    ConnectionCut "connection_cut" "the connection was ended from here",
    DropPacket "drop_packet" "it would open a connection and was one of those that drop_packet drops",
    TemplatesFull "templates_full" "no room to note which server the client of a persistent service has",
    NoLocalPort "no_local_port" "every port of the service's local addresses is in use toward the server, or it has no local address",
    TableFull "table_full" "the connection table is full",
    NoRoute "no_route" "no route to the next hop",
    NotOnLink "not_on_link" "the server of direct routing is behind a gateway, not on a network of ours",
    NeighbourFailed "neighbour_failed" "the next hop did not answer ARP or neighbour discovery",
    HeldFull "held_full" "too many packets wait for a neighbour",
    TooBig "too_big" "longer than the next hop's MTU",
    NoHeadroom "no_headroom" "no room in the buffer for a longer Ethernet header",
    NoBuffer "no_buffer" "no packet buffer was left to split the packet into",
    TxRefused "tx_refused" "the port's transmit queue was full",
    PortGone "port_gone" "the port that it was to leave by was deleted",
    PuntLimit "punt_limit" "the kernel was given as many packets as it may be",
    SteerRingFull "steer_ring_full" "the ring to the connection's worker was full",
    Stopped "stopped" "still waiting for a neighbour or a first fragment when the director stopped",
}

/// Drops by reason.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug)]
#[repr(transparent)]
pub struct Drops([Counter; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Deref for Drops {
    type Target = [Counter; DropReason::ALL.len()];

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// The final ends of packets that a port received or that were made for it.
#[derive(Debug, Default)]
pub struct PortPage {
    pub rx: Counter,
    pub rx_bytes: Counter,
    pub made: Counter,
    pub forwarded: Counter,
    pub answered: Counter,
    /// Given to the kernel.
    pub punted: Counter,
    pub consumed: Counter,
    pub drops: Drops,
    /// What left from this port, whatever its origin.
    pub tx: Counter,
    pub tx_bytes: Counter,
    /// How its packets come to their workers, by number: see [`crate::director::Arrival`].
    pub arrival: Gauge,
}

impl PortPage {
    /// Zero, whatever it counts, together with all of `pages` as they are now.
    pub fn opposite<'p>(pages: impl IntoIterator<Item = &'p Self>) -> Self {
        let opposite = Self::default();
        for page in pages {
            for (to, from) in opposite.counters().zip(page.counters()) {
                to.add(from.get().wrapping_neg());
            }
        }
        opposite
    }

    fn counters(&self) -> impl Iterator<Item = &Counter> {
        let ends = [&self.forwarded, &self.answered, &self.consumed];
        let traffic = [
            &self.rx,
            &self.rx_bytes,
            &self.made,
            &self.tx,
            &self.tx_bytes,
        ];
        traffic.into_iter().chain(ends).chain(self.drops.iter())
    }

    pub fn dropped(&self) -> u64 {
        let drops = self.drops.iter().map(Counter::get);
        drops.fold(0, u64::wrapping_add)
    }
}

/// One real server as one worker counts it. One cache line.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug, Default)]
#[repr(C, align(64))]
pub struct ServerPage {
    pub conns: Counter,
    pub in_packets: Counter,
    pub in_bytes: Counter,
    pub out_packets: Counter,
    pub out_bytes: Counter,
    /// Connections in an active state, as LVS counts them.
    pub active: Gauge,
    pub inactive: Gauge,
    /// SYNs that it answered by a SYN/ACK on its way through the director, ...
    pub answers: Counter,
    /// ... and the microseconds that it took, all together.
    pub answers_us: Counter,
}

const _: () = assert!(size_of::<ServerPage>() == 64);

impl ServerPage {
    /// All that only grows.
    pub fn counters(&self) -> [&Counter; 7] {
        [
            &self.conns,
            &self.in_packets,
            &self.in_bytes,
            &self.out_packets,
            &self.out_bytes,
            &self.answers,
            &self.answers_us,
        ]
    }
}

/// One virtual service as one worker counts it; packets and bytes are its servers' sums.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug, Default)]
#[repr(C, align(64))]
pub struct ServicePage {
    pub drops: Drops,
    _pad: [u64; DropReason::ALL.len().next_multiple_of(8) - DropReason::ALL.len()],
}

/// One FULLNAT local address as one worker counts it. One cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct LocalPage {
    /// Ports of it that connections hold.
    pub in_use: Gauge,
    /// How often a new connection found every port of it in use toward its server.
    pub exhausted: Counter,
}

/// Files of what lies in a [`Place`].
pub const SERVERS: &str = "servers";
pub const SERVICES: &str = "services";

/// Everything one worker counts. No other worker writes to a line of it, nor to the one that processors load
/// along.
#[derive(Debug)]
#[repr(align(128))]
pub struct Page {
    pub ports: [PortPage; PORTS_MAX],
    /// By [`crate::update::ServerId`].
    pub servers: Array<ServerPage>,
    /// By [`crate::update::ServiceId`].
    pub services: Array<ServicePage>,
    /// Packets that wait for a neighbour now.
    pub held: Gauge,
    pub connections: Gauge,
    pub steered_out: Counter,
    pub steered_in: Counter,
    pub pace: Pace,
    /// Of the worker's loop: it stands still when the worker does.
    pub passes: Counter,
    pub sync: SyncCounts,
}

/// What a worker counts of connections that directors tell each other.
#[derive(Debug, Default)]
pub struct SyncCounts {
    /// News for backups that there was no room for.
    pub lost: Counter,
    /// What was told and kept.
    pub kept: Counter,
    /// What was told of a service or a server that is not here.
    pub unknown: Counter,
    /// Ends of connections that others had replaced.
    pub replaced: Counter,
    /// What there was no room for.
    pub full: Counter,
}

impl SyncCounts {
    /// All that was told and not kept.
    pub fn unkept(&self) -> u64 {
        self.unknown.get() + self.replaced.get() + self.full.get()
    }
}

impl Page {
    pub fn new(services_max: usize, servers_max: usize) -> io::Result<Self> {
        Self::within(&Place::MEMORY, services_max, servers_max)
    }

    /// What it counts of services and servers lies in `place`.
    pub fn within(place: &Place, services_max: usize, servers_max: usize) -> io::Result<Self> {
        Ok(Self {
            ports: Default::default(),
            servers: place.zeroed(SERVERS, servers_max)?,
            services: place.zeroed(SERVICES, services_max)?,
            held: Gauge::default(),
            connections: Gauge::default(),
            steered_out: Counter::default(),
            steered_in: Counter::default(),
            pace: Pace::default(),
            passes: Counter::default(),
            sync: SyncCounts::default(),
        })
    }

    #[inline]
    pub fn port(&self, port: PortId) -> &PortPage {
        &self.ports[port.index()]
    }

    /// Counts the end of one packet that was dropped.
    #[inline]
    pub fn count_drop(&self, origin: PortId, reason: DropReason) {
        self.port(origin).drops[reason as usize].add(1);
    }

    /// Counts the ends of `packets` of the same origin, `bytes` together, that port `to` took.
    #[inline]
    pub fn sent_run(&self, to: PortId, packets: usize, bytes: usize, origin: Origin) {
        let from = self.port(origin.port);
        let end = match origin.exit {
            Exit::Forwarded => &from.forwarded,
            Exit::Answered => &from.answered,
            Exit::Punted => &from.punted,
        };
        end.add(packets as u64);
        let to = self.port(to);
        to.tx.add(packets as u64);
        to.tx_bytes.add(bytes as u64);
    }

    /// Counts the end of one packet of `len` bytes that port `to` took.
    #[inline]
    pub fn sent(&self, to: PortId, len: usize, origin: Origin) {
        self.sent_run(to, 1, len, origin);
    }

    pub fn rx(&self) -> u64 {
        self.ports.iter().map(|p| p.rx.get()).sum()
    }

    pub fn made(&self) -> u64 {
        self.ports.iter().map(|p| p.made.get()).sum()
    }

    /// Forwarded, answered, punted, consumed or dropped.
    pub fn ended(&self) -> u64 {
        self.ports
            .iter()
            .flat_map(|p| [&p.forwarded, &p.answered, &p.punted, &p.consumed])
            .map(Counter::get)
            .chain(self.ports.iter().map(PortPage::dropped))
            .sum()
    }

    /// Whether every packet is accounted for. With several workers, steered packets are received
    /// by one and ended by another: see [`balanced`].
    pub fn balanced(&self) -> bool {
        balanced([self])
    }
}

/// Whether every packet that these workers received or made is accounted for.
pub fn balanced<'p>(pages: impl IntoIterator<Item = &'p Page>) -> bool {
    let (mut came, mut went) = (0, 0);
    for page in pages {
        came += page.rx() + page.made();
        went += page.ended() + u64::from(page.held.get());
    }
    came == went
}

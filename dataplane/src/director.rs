//! The packet walk: a burst goes through parse, look up, decide, rewrite, hop.
//!
//! A director owns no NIC, no clock and no lock. All it ever does follows from [`Director::apply`],
//! [`Director::process`] and [`Director::tick`], each with the time.

mod adopt; // connections of a director before this one
mod arrival; // whether packets arrive at the worker that owns them
mod brief; // the packets that most connections begin with
mod cut; // connections that are ended from here
mod decide; // everything that is not the fast path
mod defence; // what is given up in a flood
mod engine; // persistence engines: what else a client is known by
mod errors; // ICMP errors about connections
mod established; // the fast path: packets of known connections in their usual course
pub mod explain; // what would become of a packet, and why
mod fragmented; // fragments find the way of their first one
#[cfg(test)]
#[expect(
    unreachable_pub,
    clippy::cast_possible_truncation,
    reason = "the system tests include it as a module of their own"
)]
mod frames; // packets for tests, built by code of their own
mod handshake; // how long servers take to answer a SYN
mod helped; // FTP: control connections, and the data connections that they announce
mod hidden; // FULLNAT: the client's address, told to its server
mod kernel; // what the kernel takes, and what it sends
mod listing; // connections as they are shown
#[cfg(test)]
mod naive; // LVS's table, naively
mod one_packet; // datagrams that are scheduled each by itself, and their answers
mod open; // connections open and close
mod persist; // clients that come back to the server they had
mod retime; // services with timeouts of their own
mod reuse; // whether a packet still belongs to the connection of its ports
mod rewrite; // what changes in a packet on its way
#[cfg(test)]
mod rubbish; // a million spoilt frames of every method
#[cfg(test)]
mod simulation; // random packets, changes and pauses
#[cfg(test)]
#[expect(unreachable_pub, reason = "the tests with DPDK include it too")]
mod spoil; // frames of the golden captures, spoilt
mod stages; // the stages of a burst
mod steered; // packets that other workers own, and own ones that others received
mod synced; // what other directors tell
mod telling; // what they are told
#[cfg(test)]
mod testbed; // a director with its networks and services, checked step by step
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use control::Settings;

use crate::conn::{Conns, Timeouts, Transitions};
use crate::counters::{DropReason, Page};
use crate::fragments::Fragments;
use crate::fullnat::lease::Leases;
use crate::icmp::RateLimit;
use crate::mem::Place;
#[cfg(test)]
use crate::net::NEIGHBOURS_MAX;
use crate::net::{HopId, Net, Setup};
use crate::packet::{Egress, Learned, Origin, PORTS_MAX, PacketBuf, PortId};
use crate::sched::Loads;
use crate::service::Services;
use crate::steer::Steer;
use crate::templates::{Sweep, Templates};
use crate::time::Instant;
use crate::tunnel::Tunnel;
use crate::update::{ServiceId, Update};
use crate::wire::ethernet::Station;

pub use adopt::{Adopted, Heirs};
pub use arrival::Arrival;
use arrival::Arrivals;
use cut::Cuts;
use defence::Defence;
use handshake::Handshakes;
pub use rewrite::{translate, translate6};
pub use steered::Tray;
use synced::Places;
pub use synced::Unkept;
use telling::Telling;

/// Connections looked at for expiry per call of [`Director::tick`], ...
const EXPIRE_MAX: u32 = 64;
/// ... and how many looks one that ends costs besides.
const ENDING: u32 = 1;
/// Work for updates between two bursts, an update of a small service being 1: some 50 µs ...
const PART: usize = 256;
/// ... or until a service's own updates end, but no more than this.
const PART_MAX: usize = 16 * PART;
/// Servers of a service, or neighbours, that are looked through as fast as an update is applied.
const LOOKED_THROUGH_PER_WORK: usize = 64;

/// One worker's load balancer.
#[derive(Debug)]
pub struct Director<P> {
    conns: Conns,
    services: Services,
    net: Net<P>,
    fragments: Fragments<P>,
    leases: Leases,
    templates: Arc<Templates>,
    sweep: Sweep,
    /// By server, where one is needed.
    tunnels: Vec<Option<TunnelTo>>,
    /// By server, too.
    ways: Vec<brief::Way>,
    timeouts: Timeouts,
    settings: Settings,
    cuts: Cuts,
    defence: Defence,
    /// As `secure_tcp` says now.
    transitions: &'static Transitions,
    answers: RateLimit,
    handshakes: Handshakes,
    /// What backups were told, while there are any.
    telling: Option<Box<Telling>>,
    /// Servers that other directors spoke of.
    places: Places,
    steer: Steer,
    arrivals: Arrivals,
    /// By port, what we are there.
    stations: [Station; PORTS_MAX],
    /// Ports whose packets may have checksums to be completed.
    partial: [bool; PORTS_MAX],
    /// By port: the kernel's side of it.
    kernels: [Option<PortId>; PORTS_MAX],
    punts: kernel::Punts,
    page: Arc<Page>,
    ticked: Option<Instant>,
    /// Of packets that need one.
    ip_id: u16,
}

/// The way into the tunnel to one server.
#[derive(Debug, Clone)]
struct TunnelTo {
    tunnel: Tunnel,
    /// The longest IP packet that the way to the server takes, as routers on it said, and when.
    path_mtu: u16,
    learned: Instant,
}

impl<P: PacketBuf> Director<P> {
    /// For `connections_max` connections (its only big allocation), on the interfaces, routes and
    /// static neighbours of `setup`. `secret` keys the connection table's hash.
    pub fn new(
        connections_max: u32,
        secret: [u64; 2],
        setup: Setup,
        steer: Steer,
        page: Arc<Page>,
    ) -> io::Result<Self> {
        Self::within(&Place::MEMORY, connections_max, secret, setup, steer, page)
    }

    /// As [`Self::new`], with its connections in `place`.
    pub fn within(
        place: &Place,
        connections_max: u32,
        secret: [u64; 2],
        setup: Setup,
        steer: Steer,
        page: Arc<Page>,
    ) -> io::Result<Self> {
        let templates_max = Templates::default_capacity(connections_max, 1);
        let mut director = Self {
            conns: Conns::within(place, connections_max, secret)?,
            services: Services::staggered(steer.me(), Loads::new([page.clone()].into())),
            net: Net::new(setup),
            fragments: Fragments::default(),
            leases: Leases::new(steer.me()),
            templates: Arc::new(Templates::new(templates_max, secret)?),
            sweep: Sweep::new(steer.me(), steer.workers()),
            tunnels: Vec::new(),
            ways: Vec::new(),
            timeouts: Timeouts::default(),
            settings: Settings::default(),
            cuts: Cuts::default(),
            defence: Defence::default(),
            transitions: Transitions::new(false),
            answers: RateLimit::default(),
            handshakes: Handshakes::new(connections_max),
            telling: None,
            places: Places::new(),
            steer,
            arrivals: Arrivals::default(),
            stations: [Station::default(); PORTS_MAX],
            partial: [false; PORTS_MAX],
            kernels: [None; PORTS_MAX],
            punts: kernel::Punts::default(),
            page,
            ticked: None,
            ip_id: 1,
        };
        director.note_ports();
        Ok(director)
    }

    /// What the network says of each port.
    fn note_ports(&mut self) {
        (self.stations, self.partial) = ([Station::default(); PORTS_MAX], [false; PORTS_MAX]);
        self.kernels = [None; PORTS_MAX];
        for on in self.net.interfaces() {
            self.stations[on.port.index()] = Station::new(on.mac);
            self.partial[on.port.index()] = on.partial_checksums;
            if let Some(kernel) = on.kernel {
                self.stations[kernel.port.index()] = Station::new(on.mac);
                self.kernels[on.port.index()] = Some(kernel.port);
            }
        }
    }

    /// Schedules by what all workers count; by default there is but this one.
    #[must_use]
    pub fn among(mut self, pages: Arc<[Arc<Page>]>) -> Self {
        self.services.count_by(Loads::new(pages));
        self
    }

    /// Keeps clients' servers where all workers find them; by default there is but this one.
    #[must_use]
    pub fn sharing(mut self, templates: Arc<Templates>) -> Self {
        self.templates = templates;
        self
    }

    /// Applies the first of a batch's updates, as many as there is time for between two bursts, and
    /// returns how many. A short batch is applied whole; a long one is parted between services.
    pub fn apply_part<E: Egress<Buf = P>>(&mut self, updates: &[Update], out: &mut E) -> usize {
        let (mut work, mut last, mut done) = (0, None, 0);
        for update in updates {
            let (service, looked_through) = self.scope(update);
            let goes_on = service.is_some() && service == last;
            if work >= PART_MAX || work >= PART && !goes_on {
                break;
            }
            self.take_in(update, out);
            work += 1 + looked_through / LOOKED_THROUGH_PER_WORK;
            (last, done) = (service, done + 1);
        }
        self.services.settle();
        done
    }

    /// The service that an update is about, and how many servers or neighbours are looked through.
    fn scope(&self, update: &Update) -> (Option<ServiceId>, usize) {
        match update {
            Update::SetNetwork(_) | Update::FlushNeighbours => (None, self.net.places()),
            _ => self.services.concerned(update),
        }
    }

    /// Takes in one validated change of configuration.
    pub fn apply<E: Egress<Buf = P>>(&mut self, update: &Update, out: &mut E) {
        self.take_in(update, out);
        self.services.settle();
    }

    fn take_in<E: Egress<Buf = P>>(&mut self, update: &Update, out: &mut E) {
        self.note_cuts(update);
        match update {
            Update::SetTimeouts(timeouts) => self.timeouts = *timeouts,
            Update::SetSettings(settings) => {
                self.settings = *settings;
                self.judge();
            }
            // Connections that have their hop do not ask for the tunnel again.
            Update::EditServer { id, tunnel, .. } if self.has_tunnel(*id, tunnel) => {}
            Update::AddServer { id, .. }
            | Update::EditServer { id, .. }
            | Update::ForgetServer { id } => self.forget_tunnel(*id),
            Update::SetLocalAddresses { addresses, .. } => {
                for local in addresses {
                    self.leases.admit(local, self.steer.share(local.address));
                }
            }
            Update::SetNetwork(network) => {
                let announces = self.steer.me() == 0;
                self.net.adopt(network, announces, out, &self.page);
                self.note_ports();
            }
            Update::FlushNeighbours => self.net.flush(),
            _ => {}
        }
        let locals_before = match *update {
            Update::SetLocalAddresses { id, .. } | Update::DeleteService { id } => {
                self.services.locals(id).0.to_vec()
            }
            _ => Vec::new(),
        };
        let announced = self.services.apply(update);
        for address in locals_before {
            if !self.services.is_local(address) {
                self.leases.dismiss(address);
            }
        }
        for address in announced {
            if self.steer.me() == 0 {
                self.net.announce(address, out, &self.page);
            }
        }
    }

    /// What the connections' cached hops and servers depend on.
    #[inline(always)]
    fn generation(&self) -> u16 {
        // 0 is what a new connection has.
        self.net
            .generation()
            .wrapping_add(self.services.generation())
            | 1 << 15
    }

    /// Sends a packet whose IP header is at `l3` to its next hop, or holds it until that is known.
    #[inline(always)]
    fn leave<E: Egress<Buf = P>>(
        &mut self,
        now: Instant,
        id: HopId,
        mut packet: P,
        l3: usize,
        origin: Origin,
        out: &mut E,
    ) {
        let hop = self.net.hop_mut(id);
        hop.used = true;
        if !hop.ready {
            return self.net.hold(now, id, packet, l3, origin, out, &self.page);
        }
        let port = hop.port;
        if usize::from(hop.l2_len) == l3 {
            hop.depart(packet.bytes_mut());
            out.send(port, packet, origin);
        } else if hop.address(&mut packet, l3) {
            out.send(port, packet, origin);
        } else {
            let watch = out.watch();
            watch.discard(origin.port, DropReason::NoHeadroom, packet);
        }
    }

    /// What another worker learned of a neighbour.
    pub fn learned<E: Egress<Buf = P>>(&mut self, now: Instant, learned: &Learned, out: &mut E) {
        self.net.learned(now, learned, out, &self.page);
    }

    /// Ends connections whose time ran out and keeps neighbours fresh: a bounded amount per call.
    pub fn tick<E: Egress<Buf = P>>(&mut self, now: Instant, out: &mut E) {
        if self.ticked == Some(now) {
            return;
        }
        let mut budget = EXPIRE_MAX;
        while let Some(entry) = self.conns.due(now, &mut budget) {
            if self.outlives(now, entry) {
                continue;
            }
            budget = budget.saturating_sub(ENDING);
            if self.resets_on_expiry(entry) {
                self.doom(now, entry, out);
            } else {
                self.close(now, entry, None);
            }
        }
        if budget > 0 {
            self.ticked = Some(now);
        }
        self.cut_some(now, out);
        self.defend(now);
        self.conns.settle();
        self.forget_fragments(now, out);
        self.leases.tick(now);
        let services = &self.services;
        let is_gone = |id| !services.server(id).is_some_and(|server| server.available);
        self.templates.sweep(&mut self.sweep, now, is_gone);
        self.net.tick(now, out, &self.page);
        self.tell_round(now);
    }

    /// Gives back every packet that is held.
    pub fn stop<E: Egress<Buf = P>>(&mut self, out: &mut E) {
        self.drop_fragments(out);
        self.net.stop(out, &self.page);
    }

    pub fn net(&self) -> &Net<P> {
        &self.net
    }

    /// Fills the table of neighbours.
    #[cfg(test)]
    pub(crate) fn meet_everybody(&mut self) {
        for n in (1..).take(NEIGHBOURS_MAX) {
            let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 | n);
            let _ = self.net.hop_to(Instant::default(), address.into());
        }
    }

    pub fn page(&self) -> &Arc<Page> {
        &self.page
    }

    pub fn templates(&self) -> &Arc<Templates> {
        &self.templates
    }

    /// Memory of the connection table, all included.
    pub fn table_bytes(&self) -> usize {
        self.conns.bytes()
    }
}

//! FTP's control connections: servers' addresses in them become the virtual one, and the data
//! connections that they announce open without being scheduled.
//!
//! A data connection is mostly at home with another worker than its control connection. So it is
//! expected in the table that all workers share ([`crate::templates`]). It holds what is there of it
//! for as long as it lives, and that is how its control connection knows.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use control::ForwardMode;

use super::Director;
use super::decide::{Denied, sequence_number};
use crate::conn::{Conn, Hit, State};
use crate::counters::DropReason;
use crate::ftp::words::{self, Reply};
use crate::ftp::{self, Talk, rewrite};
use crate::fullnat::segment::{self, Shift, View};
use crate::packet::PacketBuf;
use crate::templates::{Hold, Key, Kind as TemplateKind, Template, Tie};
use crate::time::Instant;
use crate::update::ServiceId;
use crate::wire::flow::{Kind, Seen, TCP, Tuple, tcp_flags};

/// A control connection whose time runs out while its data connection lives gets so much more, as in
/// LVS.
const POSTPONED_MS: u32 = 60_000;

impl<P: PacketBuf> Director<P> {
    /// Listens to a new connection if it is a control connection whose addresses change on the way.
    pub(super) fn listen_in(&mut self, hit: Hit, inbound: &Tuple, mode: ForwardMode) {
        let changes = matches!(mode, ForwardMode::Nat | ForwardMode::FullNat);
        if changes && inbound.protocol == TCP && inbound.to.port() == ftp::CONTROL {
            self.conns.help(hit.entry());
        }
    }

    /// What a packet of a control connection needs before it is translated; it may get longer.
    pub(super) fn help(
        &mut self,
        now: Instant,
        seen: &mut Seen,
        hit: Hit,
        packet: &mut P,
    ) -> Result<(), DropReason> {
        let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
        if seen.kind == Kind::Fragment {
            return Ok(());
        }
        let Some(view) = View::of(&packet.bytes()[l4..]) else {
            return Ok(());
        };
        let speaks = seen.kind == Kind::Transport
            && view.flags & tcp_flags::SYN == 0
            && self.conns.get(hit).state() == State::Established;
        if hit.outbound() {
            if speaks {
                self.server_speaks(now, seen, hit, view, packet)?;
            }
            let by = self.conns.talk(hit.entry()).growth.shift(view.seq);
            if by != 0 {
                let end = l3 + usize::from(seen.ip_len);
                segment::shift(&mut packet.bytes_mut()[l4..end], Shift::new(by, 0));
            }
        } else {
            let growth = self.conns.talk(hit.entry()).growth;
            if view.flags & tcp_flags::ACK != 0 && !growth.is_nothing() {
                let end = l3 + usize::from(seen.ip_len);
                let segment = &mut packet.bytes_mut()[l4..end];
                segment::renumber_acks(segment, |ack| growth.acknowledged(ack));
            }
            if speaks {
                self.client_speaks(now, seen, hit, packet);
            }
        }
        Ok(())
    }

    /// A server that awaits a data connection awaits it, for the client, at the virtual address.
    fn server_speaks(
        &mut self,
        now: Instant,
        seen: &mut Seen,
        hit: Hit,
        view: View,
        packet: &mut P,
    ) -> Result<(), DropReason> {
        let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
        let Some(payload) = rewrite::payload(packet.bytes(), l3, l4) else {
            return Ok(());
        };
        let inbound = self.conns.tuple(hit.entry(), false);
        let client = SocketAddr::new(inbound.from.ip(), 0);
        let awaited = |port| SocketAddr::new(inbound.to.ip(), port);
        match words::reply(&packet.bytes()[payload.clone()]) {
            Some(Reply::Extended { port }) if port != 0 => {
                self.expect(now, hit, client, awaited(port), port)
            }
            Some(Reply::Passive {
                address,
                line,
                numbers,
            }) => {
                let (port, server) = (address.port(), self.conns.tuple(hit.entry(), true).from);
                let (said, vip) = (IpAddr::from(*address.ip()), inbound.to.ip());
                // Nobody sends a client to a third party through us.
                if port == 0 || said != server.ip() && said != vip {
                    return Ok(());
                }
                self.expect(now, hit, client, awaited(port), port);
                let IpAddr::V4(vip) = vip else { return Ok(()) };
                let place = payload.start + numbers.start..payload.start + numbers.end;
                let to = SocketAddrV4::new(vip, port);
                let grown = rewrite::announce(packet, l3, l4, place, to)
                    .map_err(|_| DropReason::NoHeadroom)?;
                #[expect(clippy::cast_possible_truncation, reason = "modulo 2^16")]
                let grown_len = grown as u16;
                seen.ip_len = seen.ip_len.wrapping_add(grown_len);
                let number = |at: usize| view.seq.wrapping_add(u32::try_from(at).unwrap_or(0));
                let growth = &mut self.conns.talk(hit.entry()).growth;
                growth.note(number(line), number(numbers.end), grown);
            }
            _ => {}
        }
        Ok(())
    }

    /// A client that awaits a data connection is called from the server's port before its control
    /// port. FULLNAT's servers would call it past us.
    fn client_speaks(&mut self, now: Instant, seen: &Seen, hit: Hit, packet: &P) {
        let (l3, l4) = (usize::from(seen.l3), usize::from(seen.l4));
        if self.conns.get(hit).mode() != ForwardMode::Nat {
            return;
        }
        let Some(address) = rewrite::payload(packet.bytes(), l3, l4)
            .and_then(|payload| words::command(&packet.bytes()[payload]))
        else {
            return;
        };
        let server = self.conns.tuple(hit.entry(), true).from;
        let client = self.conns.tuple(hit.entry(), false).from;
        let data_port = server.port().wrapping_sub(1);
        if address.ip() == client.ip() && address.port() != 0 {
            let caller = SocketAddr::new(server.ip(), data_port);
            self.expect(now, hit, address, caller, data_port);
        }
    }

    /// Lets any worker open the data connection that comes from `client` (port 0: any of its ports) to
    /// `at`, or from the server at that address to `client`.
    fn expect(
        &mut self,
        now: Instant,
        hit: Hit,
        client: SocketAddr,
        at: SocketAddr,
        server_port: u16,
    ) {
        let key = expected_key(client, at);
        let tie = Tie {
            server: self.conns.get(hit).server(),
            server_port,
            timeout_ms: self.timeouts.ms(State::Listen),
        };
        // What another control connection announced before is past.
        if let Some(earlier) = self.templates.find(&key, now) {
            if self.templates.tie(&earlier) != tie {
                self.templates.invalidate(&earlier);
            }
            self.templates.release(earlier);
        }
        // When that table is full the data connection is refused like any other.
        let Some(announced) = self.templates.make(&key, now, tie) else {
            return;
        };
        self.templates.touch(&announced, now);
        let line = announced.into_number();
        self.templates.release(Hold::from_number(line));
        let talk = self.conns.talk(hit.entry());
        (talk.line, talk.port) = (line, at.port().into());
    }

    /// Opens the data connection that a packet is the first of, if one is expected; the packet is of
    /// the side that the hit says.
    pub(super) fn expected(
        &mut self,
        now: Instant,
        seen: &Seen,
        tuple: &Tuple,
        frame: &[u8],
    ) -> Option<Result<Hit, Denied>> {
        use tcp_flags::{ACK, RST, SYN};
        let begins = tuple.protocol == TCP && seen.tcp_flags & (SYN | ACK | RST) == SYN;
        if !begins || !self.services.may_carry_ftp() {
            return None;
        }
        let [passive, active] = expected_keys(tuple);
        let (announced, outbound) = match self.templates.take(&passive, now) {
            Some(announced) => (announced, false),
            None => (self.templates.take(&active, now)?, true),
        };
        let isn = sequence_number(seen, frame);
        let opened = self.open_data(now, tuple, outbound, &announced, isn);
        match &opened {
            Ok(hit) => self.conns.control(hit.entry(), Some(announced)),
            Err(_) => self.templates.release(announced),
        }
        Some(opened)
    }

    /// What a packet's data connection was announced with, if it was.
    pub(super) fn awaited(&self, now: Instant, tuple: &Tuple) -> Option<Tie> {
        let mut keys = expected_keys(tuple).into_iter();
        let found = keys.find_map(|key| self.templates.peek(&key, now));
        found
            .filter(|_| tuple.protocol == TCP)
            .map(|copied| copied.template.tie)
    }

    fn open_data(
        &mut self,
        now: Instant,
        tuple: &Tuple,
        outbound: bool,
        announced: &Hold,
        isn: u32,
    ) -> Result<Hit, Denied> {
        let tie = self.templates.tie(announced);
        let gone = DropReason::ServerGone;
        let mut server = *self.services.server(tie.server).ok_or(gone)?;
        let service = server.service;
        let denied = |reason| Denied(reason, Some(service));
        if !server.available {
            return Err(denied(gone));
        }
        let mut inbound = *tuple;
        if outbound {
            inbound.from = tuple.to;
            inbound.to = self.caller(service).ok_or(denied(DropReason::NotOurs))?;
            server.mode = ForwardMode::Nat;
        }
        server.address.set_port(tie.server_port);
        let opened = self.open_unscheduled(now, &inbound, service, tie.server, server, isn);
        let hit = opened.map_err(denied)?;
        self.conns
            .set_state(now, hit.entry(), State::Listen, &self.timeouts);
        Ok(Hit::new(hit.entry(), outbound))
    }

    /// Who calls a client that awaits a data connection, as the client sees it: the port before that
    /// of the control connection.
    fn caller(&self, service: ServiceId) -> Option<SocketAddr> {
        let vip = self.services.vip(service)?;
        Some(SocketAddr::new(vip, ftp::CONTROL - 1))
    }

    /// The virtual address of a data connection that is expected.
    pub(super) fn awaited_at(&self, expected: &Template, service: ServiceId) -> Option<SocketAddr> {
        // A client that calls may do so from any port.
        match expected.client.port() {
            0 => Some(expected.virtual_address),
            _ => self.caller(service),
        }
    }

    /// Whether a connection whose time ran out lives on, because a data connection of it does.
    pub(super) fn outlives(&mut self, now: Instant, entry: u32) -> bool {
        let lives = self.controls(now, entry);
        if lives {
            self.conns.postpone(now, entry, POSTPONED_MS);
        }
        lives
    }

    /// Whether a connection controls another one: a data connection that lives.
    pub(super) fn controls(&mut self, now: Instant, entry: u32) -> bool {
        self.conns.at(entry).is_some_and(Conn::is_helped) && self.has_data(now, entry)
    }

    /// Whether the data connection that was announced last lives.
    fn has_data(&mut self, now: Instant, entry: u32) -> bool {
        let Talk { line, port, .. } = *self.conns.talk(entry);
        let client = self.conns.tuple(entry, false).from;
        port != 0
            && self.templates.at(line, now).is_some_and(|announced| {
                announced.kind == TemplateKind::Expected
                    && announced.client.ip() == client.ip()
                    && u32::from(announced.virtual_address.port()) == port
                    && announced.controls > 0
            })
    }
}

/// What a data connection is expected by that its client opens, or its server.
pub(super) fn expected_keys(tuple: &Tuple) -> [Key<'static>; 2] {
    let any_port = SocketAddr::new(tuple.from.ip(), 0);
    [
        expected_key(any_port, tuple.to),
        expected_key(tuple.to, tuple.from),
    ]
}

fn expected_key(client: SocketAddr, at: SocketAddr) -> Key<'static> {
    Key {
        kind: TemplateKind::Expected,
        protocol: TCP,
        client,
        virtual_address: at,
        engine: &[],
    }
}

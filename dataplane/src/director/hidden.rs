//! FULLNAT: what hides the client from its server, and tells the server who it is all the same.

use control::ForwardMode;

use super::Director;
use crate::conn::{Hit, State};
use crate::counters::DropReason;
use crate::fullnat::NoRoom;
use crate::fullnat::client::{Carry, ClientSide, Ends};
use crate::fullnat::lease::Lease;
use crate::fullnat::segment::View;
use crate::fullnat::{proxy::Made, uoa};
use crate::packet::PacketBuf;
use crate::time::Instant;
use crate::update::ServiceId;
use crate::wire::flow::{Kind, Seen, TCP, Tuple, UDP, tcp_flags};

impl<P: PacketBuf> Director<P> {
    /// Notes how the server of a new connection is told who its client is. `isn` is the sequence
    /// number of the client's SYN.
    pub(super) fn hide(
        &mut self,
        hit: Hit,
        service: ServiceId,
        inbound: &Tuple,
        lease: Lease,
        isn: u32,
    ) {
        let kind = self.services.options(service).client_address;
        let ends = Ends {
            client: inbound.from,
            vip: inbound.to,
        };
        let client = match inbound.protocol {
            TCP => ClientSide::tcp(kind, ends, isn, lease.remembered),
            UDP => ClientSide::udp(kind),
            _ => ClientSide::default(),
        };
        let extra = self.conns.extra(hit.entry());
        (extra.client, extra.pool) = (client, lease.pool.0);
        self.settle(hit);
    }

    /// A connection whose segments need nothing special any more goes the fast way.
    fn settle(&mut self, hit: Hit) {
        let done = self.conns.extra(hit.entry()).client.done();
        self.conns.get(hit).set_telling(!done);
    }

    /// Whether a SYN of a closed connection is the one that opened it, sent again: its server had a
    /// connection of the same local port that we do not know of, and the client has just reset it.
    /// Another local port would not be better.
    pub(super) fn asks_again(&mut self, hit: Hit, isn: u32) -> bool {
        let conn = self.conns.get(hit);
        if conn.mode() != ForwardMode::FullNat || conn.state() != State::Close {
            return false;
        }
        let client = &mut self.conns.extra(hit.entry()).client;
        let again = client.began_with(isn);
        if again {
            client.reopen(isn);
            self.settle(hit);
        }
        again
    }

    pub(super) fn end_lease(&mut self, now: Instant, entry: u32, remembered: Option<u32>) {
        let port = self.conns.tuple(entry, true).to.port();
        let pool = crate::fullnat::lease::PoolId(self.conns.extra(entry).pool);
        self.leases.give_back(now, pool, port, remembered);
    }

    /// What a segment from a FULLNAT server needs before it is translated.
    pub(super) fn unveil(&mut self, seen: &Seen, hit: Hit, packet: &mut P) {
        if seen.flow.protocol != TCP || seen.kind == Kind::Fragment {
            return;
        }
        let end = usize::from(seen.l3) + usize::from(seen.ip_len);
        let segment = &mut packet.bytes_mut()[usize::from(seen.l4)..end];
        let Some(view) = View::of(segment) else {
            return;
        };
        let incoming = self.conns.extra(hit.entry()).client.incoming(view);
        incoming.write(segment);
        self.settle(hit);
    }

    /// What a packet to a FULLNAT server needs once it is translated; its transport header begins
    /// at `l4`. What is returned is to be sent before it.
    pub(super) fn tell(
        &mut self,
        seen: &Seen,
        hit: Hit,
        packet: &mut P,
        l4: usize,
        mtu: u16,
    ) -> Result<Option<Made>, DropReason> {
        if seen.kind == Kind::Fragment || !matches!(seen.flow.protocol, TCP | UDP) {
            return Ok(None);
        }
        let l3 = usize::from(seen.l3);
        let state = self.conns.get(hit).state();
        let client = &mut self.conns.extra(hit.entry()).client;
        if seen.flow.protocol == UDP {
            let carries = seen.kind == Kind::Transport && client.datagram();
            self.settle(hit);
            // Where there is no room for the address, the datagram goes without.
            let _: Result<(), NoRoom> = match carries {
                true => uoa::insert(packet, l3, l4, self.ends(hit).client, mtu),
                false => Ok(()),
            };
            return Ok(None);
        }
        let Some(view) = View::of(&packet.bytes()[l4..]) else {
            return Ok(None);
        };
        if view.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
            && state == State::SynRecv
            && !client.began_with(view.seq)
        {
            client.reopen(view.seq);
        }
        let mut outgoing = client.outgoing(view);
        self.settle(hit);
        if seen.kind == Kind::FirstFragment {
            // What follows it cannot be moved.
            if matches!(outgoing.carry, Carry::Header(_)) {
                return Err(DropReason::Fragment);
            }
            outgoing.carry = Carry::Nothing;
        }
        if outgoing.carry == Carry::Nothing {
            outgoing.change(&mut packet.bytes_mut()[l4..]);
            return Ok(None);
        }
        match outgoing.write(packet, l3, l4, self.ends(hit), mtu) {
            Ok(before) => Ok(before),
            // TOA is a courtesy, a PROXY header is not.
            Err(_) if matches!(outgoing.carry, Carry::Header(_)) => Err(DropReason::NoHeadroom),
            Err(_) => Ok(None),
        }
    }

    fn ends(&self, hit: Hit) -> Ends {
        let inbound = self.conns.tuple(hit.entry(), false);
        Ends {
            client: inbound.from,
            vip: inbound.to,
        }
    }

    /// Whether a packet of a FULLNAT connection is a SYN, or may need another one before it.
    pub(super) fn may_need_another(&mut self, seen: &Seen, hit: Hit) -> bool {
        let is_syn = seen.tcp_flags & tcp_flags::SYN != 0;
        is_syn || self.conns.extra(hit.entry()).client.may_need_another()
    }
}

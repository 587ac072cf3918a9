//! What each segment of a FULLNAT connection needs so that its server learns who the client is.
//!
//! Decided from a segment's numbers alone ([`ClientSide::outgoing`], [`ClientSide::incoming`]),
//! then written ([`Outgoing::write`], [`Incoming::write`]). "Outgoing" is toward the server.

use std::net::SocketAddr;

use control::ClientAddress;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::fullnat::NoRoom;
use crate::fullnat::proxy::{self, Made, Version};
use crate::fullnat::segment::{self, Shift, View};
use crate::fullnat::toa;
use crate::packet::PacketBuf;
use crate::wire::flow::tcp_flags::{ACK, RST, SYN};

/// How many datagrams of a UDP flow carry the client's address.
pub const DATAGRAMS: u8 = 3;

const NOTHING: u8 = 0;
const TOA: u8 = 1;
const PROXY_V1: u8 = 2;
const PROXY_V2: u8 = 3;

/// The server's first sequence number is known.
const SERVER_KNOWN: u8 = 1;
/// The client acknowledged the server's first byte, or the server the client's: the handshake's
/// last segment has arrived.
const OPEN: u8 = 2;
/// The server may have received the PROXY header.
const HEADER_SENT: u8 = 4;
/// The server acknowledged all of the PROXY header.
const HEADER_ACKED: u8 = 8;
/// The server may remember the tuple: no timestamps, for it would compare them.
const REMEMBERED: u8 = 16;

/// What is remembered of a connection while its segments need more than their rewrite. All zero
/// is a connection that needs nothing and is [`Self::done`].
#[derive(
    FromBytes, IntoBytes, KnownLayout, Immutable, Debug, Clone, Copy, PartialEq, Eq, Default,
)]
#[repr(C)]
pub struct ClientSide {
    client_isn: u32,
    server_isn: u32,
    /// Added to the client's sequence numbers before the PROXY header is.
    delta: u32,
    /// How the server is told: one of the constants above.
    how: u8,
    /// Length of the PROXY header, or of the TOA option.
    len: u8,
    flags: u8,
    /// How many datagrams shall still carry the address (UDP).
    datagrams: u8,
}

/// The client's end of a connection and the one it connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    pub vip: SocketAddr,
}

/// How a segment tells the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carry {
    #[default]
    Nothing,
    Toa,
    Header(Version),
}

/// What becomes of a segment toward the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Options that pretend to be ours are overwritten.
    pub strip: bool,
    pub blank_timestamps: bool,
    /// Added to the sequence number.
    pub seq: u32,
    pub carry: Carry,
}

/// What becomes of a segment from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Incoming {
    pub shift: Shift,
    pub lower_mss: u16,
}

impl ClientSide {
    /// Of a TCP connection whose client sends a SYN with the sequence number `client_isn`.
    /// `remembered` is its lease's: the server's numbers then continue beyond that.
    pub fn tcp(kind: ClientAddress, ends: Ends, client_isn: u32, remembered: Option<u32>) -> Self {
        let (how, len) = match kind {
            ClientAddress::Toa | ClientAddress::Uoa => (TOA, toa::len(ends.client.ip()).into()),
            ClientAddress::ProxyV1 => (PROXY_V1, header_len(Version::V1, ends)),
            ClientAddress::ProxyV2 => (PROXY_V2, header_len(Version::V2, ends)),
            ClientAddress::None => (NOTHING, 0),
        };
        // Beyond any window, and not the same for every client.
        let beyond = |next: u32| {
            next.wrapping_add(0x1_0000 + (client_isn & 0xffff))
                .wrapping_sub(client_isn)
        };
        Self {
            client_isn,
            server_isn: 0,
            delta: remembered.map_or(0, beyond),
            how,
            len: u8::try_from(len).unwrap_or(u8::MAX),
            flags: remembered.map_or(0, |_| REMEMBERED),
            datagrams: 0,
        }
    }

    /// Of a UDP flow.
    pub fn udp(kind: ClientAddress) -> Self {
        let datagrams = match kind {
            ClientAddress::Uoa => DATAGRAMS,
            _ => 0,
        };
        Self {
            datagrams,
            flags: OPEN,
            ..Self::default()
        }
    }

    /// A new connection between the same ends, whose SYN has the sequence number `client_isn`. The
    /// server's numbers go on where the client's do. A SYN alone does not: anyone can send one.
    pub fn reopen(&mut self, client_isn: u32) {
        if self.client_isn != client_isn {
            self.client_isn = client_isn;
            self.flags &= REMEMBERED;
        }
    }

    /// A datagram toward the server: whether it shall carry the address ([`super::uoa::insert`]).
    pub fn datagram(&mut self) -> bool {
        let carries = self.datagrams > 0;
        self.datagrams = self.datagrams.saturating_sub(1);
        carries
    }

    /// Whether no packet needs to be looked at any more, in either direction.
    pub fn done(&self) -> bool {
        let opened = self.is(OPEN) || *self == Self::default();
        opened && self.delta == 0 && self.header().is_none() && self.datagrams == 0
    }

    /// Whether a segment may have to carry the client's address, so that it needs all that a new
    /// connection's segments need.
    pub fn is_telling(&self) -> bool {
        match self.header() {
            Some(_) => !self.is(HEADER_ACKED),
            None => self.datagrams > 0 || self.how == TOA && !self.is(OPEN),
        }
    }

    /// What to add to the sequence number of a segment that the server quotes, for its client.
    pub fn quoted_seq(&self) -> Option<u32> {
        let header = match self.header() {
            Some(_) if self.is(HEADER_SENT) => self.len.into(),
            _ => 0,
        };
        let shift = self.delta.wrapping_add(header);
        (shift != 0).then_some(shift.wrapping_neg())
    }

    /// Decides about a segment toward the server, numbered as the client did.
    pub fn outgoing(&mut self, view: View) -> Outgoing {
        let first = self.client_isn.wrapping_add(1);
        let mut out = Outgoing {
            strip: true,
            seq: self.delta,
            ..Outgoing::default()
        };
        if view.flags & SYN != 0 {
            out.blank_timestamps = self.is(REMEMBERED);
            return out;
        }
        let reset = view.flags & RST != 0;
        let acked = view.ack.wrapping_sub(self.server_isn.wrapping_add(1));
        let known = view.flags & ACK != 0 && self.is(SERVER_KNOWN);
        if known && (1..1 << 31).contains(&acked) {
            self.flags |= OPEN;
        }
        match self.header() {
            None if self.how == TOA && known && acked == 0 && !reset && !self.is(OPEN) => {
                out.carry = Carry::Toa;
            }
            None => {}
            Some(version) if view.seq == first && !self.is(HEADER_ACKED) && !reset => {
                self.flags |= HEADER_SENT;
                out.carry = Carry::Header(version);
            }
            Some(_) => out.seq = out.seq.wrapping_add(self.header_before(view.seq, reset)),
        }
        out
    }

    /// By how much the header moves the sequence number of a segment that does not carry it.
    fn header_before(&self, seq: u32, reset: bool) -> u32 {
        let first = self.client_isn.wrapping_add(1);
        let shifted = match seq.wrapping_sub(first) {
            _ if self.is(HEADER_ACKED) => true,
            // A reset must hit the very number that the server expects.
            0 => reset && self.is(HEADER_SENT),
            // A probe with the SYN's number asks for an acknowledgement; it must not look like
            // the header's last byte.
            offset => offset < 1 << 31,
        };
        if shifted { self.len.into() } else { 0 }
    }

    /// Decides about a segment from the server, numbered as the server did.
    pub fn incoming(&mut self, view: View) -> Incoming {
        if view.flags & ACK == 0 {
            return Incoming::default();
        }
        let syn = view.flags & SYN != 0;
        let back = self.delta.wrapping_neg();
        let progress = view
            .ack
            .wrapping_add(back)
            .wrapping_sub(self.client_isn.wrapping_add(1));
        let mut lower_mss = 0;
        if syn && progress == 0 {
            self.server_isn = view.seq;
            self.flags |= SERVER_KNOWN;
        }
        if syn && self.how == TOA {
            lower_mss = self.len.into();
        }
        if !syn && (1..1 << 31).contains(&progress) && view.flags & RST == 0 {
            self.flags |= OPEN;
        }
        let shift = match self.header() {
            Some(_) => self.without_header(progress, syn),
            None => Shift::new(0, back),
        };
        Incoming { shift, lower_mss }
    }

    /// The shift of an acknowledgement `progress` bytes beyond the SYN, the header's counted.
    fn without_header(&mut self, progress: u32, syn: bool) -> Shift {
        let len = u32::from(self.len);
        let back = self.delta.wrapping_neg();
        let mut shift = Shift::new(0, back.wrapping_sub(len));
        if (len..1 << 31).contains(&progress) {
            self.flags |= HEADER_ACKED;
        } else if !self.is(HEADER_ACKED) || syn {
            if progress == 0 && !syn {
                self.flags &= !HEADER_SENT;
            }
            // Part of the header is nothing of the client's.
            let partial = if progress < len { progress } else { 0 };
            shift.ack = back.wrapping_sub(partial);
        }
        shift
    }

    fn header(&self) -> Option<Version> {
        match self.how {
            PROXY_V1 => Some(Version::V1),
            PROXY_V2 => Some(Version::V2),
            _ => None,
        }
    }

    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn header_len(version: Version, ends: Ends) -> usize {
    proxy::header(version, ends.client, ends.vip).len()
}

impl Outgoing {
    /// Writes it into the segment at `l4` of the IP packet at `l3`; both offsets stay right.
    ///
    /// What is returned is a frame to send before this one: the client's address in a segment of
    /// its own. An error says why the address could not be told; the packet goes on without.
    pub fn write<P: PacketBuf>(
        self,
        packet: &mut P,
        l3: usize,
        l4: usize,
        ends: Ends,
        mtu: u16,
    ) -> Result<Option<Made>, NoRoom> {
        let segment = packet.bytes_mut().get_mut(l4..).ok_or(NoRoom::Malformed)?;
        if self.strip {
            segment::strip(segment);
        }
        if self.blank_timestamps {
            segment::blank_timestamps(segment);
        }
        if self.seq != 0 {
            segment::shift(segment, Shift::new(self.seq, 0));
        }
        match self.carry {
            Carry::Nothing => Ok(None),
            Carry::Toa => toa::insert(packet, l3, l4, ends.client, mtu).map(|()| None),
            Carry::Header(version) => {
                let header = proxy::header(version, ends.client, ends.vip);
                let Err(why) = proxy::prefix(packet, l3, l4, &header, mtu) else {
                    return Ok(None);
                };
                let made = proxy::segment(packet.bytes(), l3, l4, &header);
                if let Some(segment) = packet.bytes_mut().get_mut(l4..) {
                    let [len, ..] = header.len().to_le_bytes();
                    segment::shift(segment, Shift::new(len.into(), 0));
                }
                made.map(Some).ok_or(why)
            }
        }
    }
}

impl Incoming {
    /// Writes it into a segment, a slice that begins with the TCP header.
    pub fn write(self, segment: &mut [u8]) {
        if self.lower_mss != 0 {
            segment::lower_mss(segment, self.lower_mss);
        }
        if self.shift != Shift::default() {
            segment::shift(segment, self.shift);
        }
    }
}

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
        self.client_isn = client_isn;
        self.flags &= REMEMBERED;
    }

    /// Whether the SYN with this sequence number is the one that opened the connection.
    pub fn began_with(&self, client_isn: u32) -> bool {
        self.client_isn == client_isn
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

    /// Whether the client's address may have to go in a segment of its own, before another one.
    pub fn may_need_another(&self) -> bool {
        self.header().is_some() && !self.is(HEADER_ACKED)
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
    /// What changes in a segment beside what it carries.
    pub fn change(self, segment: &mut [u8]) {
        if self.strip {
            segment::strip(segment);
        }
        if self.blank_timestamps {
            segment::blank_timestamps(segment);
        }
        if self.seq != 0 {
            segment::shift(segment, Shift::new(self.seq, 0));
        }
    }

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
        self.change(packet.bytes_mut().get_mut(l4..).ok_or(NoRoom::Malformed)?);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fullnat::testing::{self, Parts};
    use crate::packet::HeapBuf;
    use crate::wire::flow::tcp_flags::FIN;

    const ISN: u32 = 1000;
    const SERVER_ISN: u32 = 5000;

    fn ends() -> Ends {
        Ends {
            client: "192.0.2.1:40000".parse().unwrap(),
            vip: "198.51.100.7:80".parse().unwrap(),
        }
    }

    fn view(seq: u32, ack: u32, flags: u8) -> View {
        View { seq, ack, flags }
    }

    /// After SYN and SYN+ACK.
    fn opening(kind: ClientAddress, remembered: Option<u32>) -> ClientSide {
        let mut side = ClientSide::tcp(kind, ends(), ISN, remembered);
        let syn = side.outgoing(view(ISN, 0, SYN));
        assert!(syn.strip && syn.carry == Carry::Nothing);
        let ack = ISN.wrapping_add(1).wrapping_add(syn.seq);
        let back = side.incoming(view(SERVER_ISN, ack, SYN | ACK));
        assert_eq!(ack.wrapping_add(back.shift.ack), ISN + 1);
        side
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<ClientSide>(), 16);
        assert!(ClientSide::default().done());
        assert!(ClientSide::udp(ClientAddress::Toa).done());
    }

    #[test]
    fn toa_while_the_client_acknowledges_the_servers_syn() {
        let mut side = opening(ClientAddress::Toa, None);
        let carry =
            |side: &mut ClientSide, ack, flags| side.outgoing(view(ISN + 1, ack, flags)).carry;
        assert_eq!(carry(&mut side, SERVER_ISN + 1, ACK), Carry::Toa);
        assert_eq!(carry(&mut side, SERVER_ISN + 1, ACK | FIN), Carry::Toa);
        assert_eq!(carry(&mut side, SERVER_ISN + 1, ACK | RST), Carry::Nothing);
        assert_eq!(carry(&mut side, SERVER_ISN, ACK), Carry::Nothing);
        assert!(!side.done());
        let mut other = side;
        assert_eq!(carry(&mut side, SERVER_ISN + 2, ACK), Carry::Nothing);
        assert!(side.done());
        assert_eq!(carry(&mut side, SERVER_ISN + 1, ACK), Carry::Nothing);
        // The server took data: it knows.
        other.incoming(view(SERVER_ISN + 1, ISN + 1, ACK));
        assert!(!other.done());
        other.incoming(view(SERVER_ISN + 1, ISN + 2, ACK));
        assert!(other.done());

        let mut none = opening(ClientAddress::None, None);
        assert_eq!(carry(&mut none, SERVER_ISN + 1, ACK), Carry::Nothing);
        assert!(!none.done(), "what pretends to be ours is still removed");
    }

    #[test]
    fn mss_leaves_room_for_the_option() {
        let lowered = |kind, client: &str| {
            let ends = Ends {
                client: client.parse().unwrap(),
                ..ends()
            };
            let mut side = ClientSide::tcp(kind, ends, ISN, None);
            side.incoming(view(SERVER_ISN, ISN + 1, SYN | ACK))
                .lower_mss
        };
        assert_eq!(lowered(ClientAddress::Toa, "192.0.2.1:1"), 8);
        assert_eq!(lowered(ClientAddress::Uoa, "[2001:db8::1]:1"), 20);
        assert_eq!(lowered(ClientAddress::ProxyV1, "192.0.2.1:1"), 0);
    }

    #[test]
    fn a_remembered_tuple_gets_other_numbers_and_no_timestamps() {
        let next = u32::MAX - 10;
        let mut side = ClientSide::tcp(ClientAddress::Toa, ends(), ISN, Some(next));
        let syn = side.outgoing(view(ISN, 0, SYN));
        assert!(syn.blank_timestamps);
        let beyond = ISN.wrapping_add(syn.seq).wrapping_sub(next);
        assert!((0x1_0000..0x2_0000).contains(&beyond));
        let side = opening(ClientAddress::Toa, Some(next));
        let mut again = side;
        again.reopen(77);
        let syn = again.outgoing(view(77, 0, SYN));
        assert!(syn.blank_timestamps && syn.seq == side.delta);
        assert!(!again.done());
    }

    #[test]
    fn a_reset_hits_what_the_server_expects() {
        let mut side = opening(ClientAddress::ProxyV2, None);
        let reset = |side: &mut ClientSide, seq| side.outgoing(view(seq, 0, RST)).seq;
        assert_eq!(reset(&mut side, ISN + 1), 0);
        side.outgoing(view(ISN + 1, SERVER_ISN + 1, ACK));
        assert_eq!(reset(&mut side, ISN + 1), 28);
        // The server says that the header was lost.
        side.incoming(view(SERVER_ISN + 1, ISN + 1, ACK));
        assert_eq!(reset(&mut side, ISN + 1), 0);
        let probe = side.outgoing(view(ISN, SERVER_ISN + 1, ACK));
        assert_eq!(probe.seq, 0);
    }

    #[test]
    fn the_header_is_acknowledged_to_nobody() {
        let mut side = opening(ClientAddress::ProxyV2, None);
        let carry = Carry::Header(Version::V2);
        for _ in 0..2 {
            let out = side.outgoing(view(ISN + 1, SERVER_ISN + 1, ACK));
            assert_eq!((out.seq, out.carry), (0, carry));
        }
        let later = side.outgoing(view(ISN + 2, SERVER_ISN + 1, ACK));
        assert_eq!((later.seq, later.carry), (28, Carry::Nothing));
        let mut ack = |progress: u32| {
            let ack = ISN + 1 + progress;
            let by = side.incoming(view(SERVER_ISN + 1, ack, ACK)).shift;
            assert_eq!(by.sack, 0u32.wrapping_sub(28));
            (
                ack.wrapping_add(by.ack) - ISN - 1,
                side.outgoing(view(ISN + 1, 0, ACK)).carry,
            )
        };
        assert_eq!(ack(0), (0, carry));
        assert_eq!(ack(10), (0, carry));
        assert_eq!(ack(27), (0, carry));
        assert_eq!(ack(28), (0, Carry::Nothing));
        assert_eq!(ack(30), (2, Carry::Nothing));
        assert!(!side.done());
    }

    #[test]
    fn three_datagrams() {
        let mut flow = ClientSide::udp(ClientAddress::Uoa);
        let carried = (0..300).filter(|_| flow.datagram()).count();
        assert_eq!(carried, usize::from(DATAGRAMS));
        assert!(flow.done());
    }

    /// Splitmix, for what the network does.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
        }
    }

    /// One end of a TCP connection that sends any part of its window at any time.
    struct Peer {
        isn: u32,
        peer_isn: Option<u32>,
        data: Vec<u8>,
        acked: usize,
        sent: usize,
        got: Vec<Option<u8>>,
        open: bool,
    }

    const SEGMENT: usize = 24;

    impl Peer {
        fn new(isn: u32, data: Vec<u8>, expects: usize) -> Self {
            let got = vec![None; expects];
            Self {
                isn,
                peer_isn: None,
                data,
                acked: 0,
                sent: 0,
                got,
                open: false,
            }
        }

        fn received(&self) -> usize {
            self.got.iter().take_while(|byte| byte.is_some()).count()
        }

        fn ack(&self) -> u32 {
            let received = u32::try_from(self.received()).unwrap();
            self.peer_isn
                .map_or(0, |isn| isn.wrapping_add(1 + received))
        }

        /// The blocks beyond the first hole.
        fn sack(&self) -> Vec<u8> {
            let isn = self.peer_isn.unwrap().wrapping_add(1);
            let from = self.received();
            let Some(start) = (from..self.got.len()).find(|&at| self.got[at].is_some()) else {
                return vec![1];
            };
            let end = (start..self.got.len()).find(|&at| self.got[at].is_none());
            let mut option = vec![5, 10];
            for edge in [start, end.unwrap_or(self.got.len())] {
                option.extend(isn.wrapping_add(u32::try_from(edge).unwrap()).to_be_bytes());
            }
            option
        }

        fn emit(&mut self, chance: &mut Chance) -> Parts {
            let mut parts = Parts {
                seq: self.isn,
                ack: self.ack(),
                flags: ACK,
                ..Parts::default()
            };
            if !self.open {
                let timestamps = vec![8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
                parts.options = vec![vec![2, 4, 5, 0xb4], timestamps];
                parts.flags = if self.peer_isn.is_some() {
                    SYN | ACK
                } else {
                    SYN
                };
                return parts;
            }
            let window = (self.data.len() - self.acked).min(4 * SEGMENT);
            let start = self.acked + chance.below(window + 1);
            let end = (start + chance.below(SEGMENT + 1)).min(self.data.len());
            self.sent = self.sent.max(end);
            parts.seq = self.isn.wrapping_add(1 + u32::try_from(start).unwrap());
            parts.payload = self.data[start..end].to_vec();
            parts.options = vec![self.sack()];
            parts
        }

        /// A byte counted from the first, where a stale number may be a little before it.
        fn offset(of: u32, isn: u32) -> i64 {
            i64::from(of.wrapping_sub(isn.wrapping_add(1)).cast_signed())
        }

        fn take(&mut self, frame: &HeapBuf) -> Result<(), TestCaseError> {
            let tcp = &frame.bytes()[34..];
            let seen = View::of(tcp).unwrap();
            let header = segment::header_len(tcp).unwrap();
            if seen.flags & SYN != 0 {
                prop_assert!(self.peer_isn.is_none_or(|isn| isn == seen.seq));
                self.peer_isn = Some(seen.seq);
                if seen.flags & ACK != 0 {
                    // The one that asked is open when it is answered.
                    self.open = true;
                    prop_assert_eq!(seen.ack, self.isn.wrapping_add(1));
                }
                return Ok(());
            }
            let Some(isn) = self.peer_isn else {
                return Ok(());
            };
            self.open = true;
            let acked = Self::offset(seen.ack, self.isn);
            prop_assert!(
                acked <= i64::try_from(self.sent).unwrap(),
                "acknowledges what was not sent"
            );
            prop_assert!(acked > -108);
            self.acked = self.acked.max(usize::try_from(acked).unwrap_or(0));
            if let [5, 10, edges @ ..] = &tcp[20..header] {
                for edge in edges[..8].chunks(4) {
                    let edge = u32::from_be_bytes([edge[0], edge[1], edge[2], edge[3]]);
                    let at = Self::offset(edge, self.isn);
                    prop_assert!((0..=i64::try_from(self.sent).unwrap()).contains(&at));
                }
            }
            let start = Self::offset(seen.seq, isn);
            for (at, &byte) in (start..).zip(&tcp[header..]) {
                let at = usize::try_from(at).unwrap();
                prop_assert!(
                    self.got[at].is_none_or(|had| had == byte),
                    "byte {} changed",
                    at
                );
                self.got[at] = Some(byte);
            }
            Ok(())
        }
    }

    fn kind() -> impl Strategy<Value = ClientAddress> {
        prop_oneof![
            Just(ClientAddress::Toa),
            Just(ClientAddress::ProxyV1),
            Just(ClientAddress::ProxyV2),
            Just(ClientAddress::None),
        ]
    }

    /// Loses, doubles and reorders.
    fn deliver(wire: &mut Vec<HeapBuf>, chance: &mut Chance) -> Option<HeapBuf> {
        if wire.is_empty() || chance.below(3) == 0 {
            return None;
        }
        let at = chance.below(wire.len().min(5));
        match chance.below(8) {
            0 => Some(wire[at].clone()),
            1 => {
                wire.remove(at);
                None
            }
            _ => Some(wire.remove(at)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn streams_arrive_whole(
            kind in kind(), seed: u64, isns: [u32; 2], wraps: bool, remembered: Option<u32>,
            client: SocketAddr, room in 0u16..160,
            up in proptest::collection::vec(any::<u8>(), 1..200),
            down in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let ends = Ends { client, vip: (client.ip(), 80).into() };
            let isn = if wraps { u32::MAX - isns[0] % 150 } else { isns[0] };
            let header = match kind {
                ClientAddress::ProxyV1 => proxy::header(Version::V1, ends.client, ends.vip),
                ClientAddress::ProxyV2 => proxy::header(Version::V2, ends.client, ends.vip),
                _ => proxy::Header::new(),
            };
            let expected = [header.as_slice(), &up].concat();
            let mut chance = Chance(seed);
            let mut side = ClientSide::tcp(kind, ends, isn, remembered);
            let mut user = Peer::new(isn, up, down.len());
            let mut server = Peer::new(isns[1], down.clone(), expected.len());
            let (mut to_server, mut to_user) = (Vec::new(), Vec::new());
            // IP and TCP headers with one block of selective acknowledgements.
            let mtu = 52 + u16::try_from(SEGMENT).unwrap() + room;
            let mut rounds = 0;
            while server.received() < expected.len() || user.received() < down.len() {
                rounds += 1;
                prop_assert!(rounds < 20_000, "stuck: {:?}", side);
                if chance.below(3) > 0 {
                    to_server.push(user.emit(&mut chance).buf());
                }
                if server.peer_isn.is_some() && chance.below(3) > 0 {
                    to_user.push(server.emit(&mut chance).buf());
                }
                if let Some(mut packet) = deliver(&mut to_server, &mut chance) {
                    let seen = View::of(&packet.bytes()[34..]).unwrap();
                    let made = side.outgoing(seen).write(&mut packet, 14, 34, ends, mtu);
                    let before = made.unwrap_or(None).map(|made| HeapBuf::new(&made));
                    for packet in before.into_iter().chain([packet]) {
                        prop_assert!(testing::tcp_is_right(&Parts::default(), &packet));
                        prop_assert!(packet.bytes().len() <= 14 + usize::from(mtu).max(160));
                        server.take(&packet)?;
                    }
                }
                if let Some(mut packet) = deliver(&mut to_user, &mut chance) {
                    let tcp = &mut packet.bytes_mut()[34..];
                    side.incoming(View::of(tcp).unwrap()).write(tcp);
                    let ack = View::of(tcp).unwrap().ack;
                    prop_assert!(side.is(HEADER_ACKED) || Peer::offset(ack, isn) >= 0);
                    prop_assert!(testing::tcp_is_right(&Parts::default(), &packet));
                    user.take(&packet)?;
                }
            }
            let got: Vec<u8> = server.got.into_iter().flatten().collect();
            prop_assert_eq!(got, expected);
            prop_assert_eq!(user.got.into_iter().flatten().collect::<Vec<u8>>(), down);
            if let Some(next) = remembered {
                let beyond = server.peer_isn.unwrap().wrapping_sub(next);
                prop_assert!((0x1_0000..0x2_0000).contains(&beyond));
            } else {
                prop_assert_eq!(server.peer_isn, Some(isn));
            }
        }
    }
}

//! TCP, UDP and SCTP states as LVS keeps them (`ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`,
//! `ip_vs_proto_sctp.c`), as tables.

use crate::wire::flow::{SCTP, UDP};

/// A connection's state. TCP's numbers are LVS's own on the sync wire, UDP's comes after them; an
/// SCTP state's number there is its distance from [`State::SctpNone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Synack,
    Udp,
    SctpNone,
    SctpInit1,
    SctpInit,
    SctpCookieSent,
    SctpCookieReplied,
    SctpCookieWait,
    SctpCookie,
    SctpCookieEchoed,
    SctpEstablished,
    SctpShutdownSent,
    SctpShutdownReceived,
    SctpShutdownAckSent,
    SctpRejected,
    SctpClosed,
}

impl State {
    pub const ALL: [Self; 26] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Synack,
        Self::Udp,
        Self::SctpNone,
        Self::SctpInit1,
        Self::SctpInit,
        Self::SctpCookieSent,
        Self::SctpCookieReplied,
        Self::SctpCookieWait,
        Self::SctpCookie,
        Self::SctpCookieEchoed,
        Self::SctpEstablished,
        Self::SctpShutdownSent,
        Self::SctpShutdownReceived,
        Self::SctpShutdownAckSent,
        Self::SctpRejected,
        Self::SctpClosed,
    ];

    /// Of a connection of this IP protocol before its first packet.
    pub const fn before_all(protocol: u8) -> Self {
        match protocol {
            UDP => Self::Udp,
            SCTP => Self::SctpNone,
            _ => Self::None,
        }
    }

    /// The state that `state as u8` was.
    #[inline(always)]
    pub const fn by_number(number: u8) -> Self {
        const PADDED: [State; 32] = {
            let mut padded = [State::None; 32];
            let mut i = 0;
            while i < State::ALL.len() {
                padded[i] = State::ALL[i];
                i += 1;
            }
            padded
        };
        PADDED[(number & 31) as usize]
    }

    /// As `ipvsadm -Lc` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None | Self::SctpNone => "NONE",
            Self::Established | Self::SctpEstablished => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Synack => "SYNACK",
            Self::Udp => "UDP",
            Self::SctpInit1 => "INIT1",
            Self::SctpInit => "INIT",
            Self::SctpCookieSent => "C-SENT",
            Self::SctpCookieReplied => "C-REPLIED",
            Self::SctpCookieWait => "C-WAIT",
            Self::SctpCookie => "COOKIE",
            Self::SctpCookieEchoed => "C-ECHOED",
            Self::SctpShutdownSent => "S-SENT",
            Self::SctpShutdownReceived => "S-RECEIVED",
            Self::SctpShutdownAckSent => "S-ACK-SENT",
            Self::SctpRejected => "REJECTED",
            Self::SctpClosed => "CLOSED",
        }
    }

    /// Whether both ends agreed on the connection.
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Established | Self::SctpEstablished)
    }

    /// Whether LVS counts a connection in this state as active.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established
                | Self::SynSent
                | Self::SynRecv
                | Self::Synack
                | Self::SctpEstablished
        )
    }
}

/// How long a connection lives without a packet, by state, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts([u32; NUMBERS]);

/// As many as states, and up to a power of two.
const NUMBERS: usize = 32;

impl Default for Timeouts {
    fn default() -> Self {
        let tcp = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
        let udp = [300];
        let sctp = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];
        let all = tcp.into_iter().chain(udp).chain(sctp);
        let mut timeouts = Self([0; NUMBERS]);
        for (state, seconds) in State::ALL.into_iter().zip(all) {
            timeouts.set_s(state, seconds);
        }
        timeouts
    }
}

impl Timeouts {
    #[inline]
    pub const fn ms(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// As [`Self::ms`] of the state of this number.
    #[inline(always)]
    pub const fn ms_of(&self, state: u8) -> u32 {
        self.0[state as usize % NUMBERS]
    }

    /// Sets `state`'s timeout to `seconds` (at most 31 days). A connection takes the new value up
    /// at its next packet.
    pub const fn set_s(&mut self, state: State, seconds: u32) {
        self.0[state as usize] = seconds * 1000;
    }
}

/// What a packet means to its connection's state: by a TCP segment's flags, RST before SYN before
/// FIN before ACK, or by an SCTP packet's first chunk. Whatever it is, UDP stays UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Event {
    Syn,
    Fin,
    Ack,
    Rst,
    /// None of the four flags.
    Other,
    /// Data, or any chunk that has no event of its own.
    SctpData,
    SctpInit,
    SctpInitAck,
    SctpCookieEcho,
    SctpCookieAck,
    SctpShutdown,
    SctpShutdownAck,
    SctpShutdownComplete,
    SctpError,
    SctpAbort,
}

impl Event {
    /// Of a TCP segment with these flags.
    #[inline(always)]
    pub const fn of(flags: u8) -> Self {
        const BY_FLAGS: [Event; 32] = {
            let mut all = [Event::Other; 32];
            let mut flags = 0;
            while flags < all.len() {
                #[expect(clippy::cast_possible_truncation, reason = "less than 32")]
                let event = Event::by_priority(flags as u8);
                all[flags] = event;
                flags += 1;
            }
            all
        };
        BY_FLAGS[(flags & 31) as usize]
    }

    const fn by_priority(flags: u8) -> Self {
        use crate::wire::flow::tcp_flags::{ACK, FIN, RST, SYN};
        if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            Self::Syn
        } else if flags & FIN != 0 {
            Self::Fin
        } else if flags & ACK != 0 {
            Self::Ack
        } else {
            Self::Other
        }
    }

    /// Of an SCTP packet, by the types of its first chunk and of the one that follows it, if any:
    /// an ABORT behind COOKIE-ECHO or COOKIE-ACK is what counts.
    #[inline]
    pub const fn of_sctp(chunk: u8, next: Option<u8>) -> Self {
        use crate::wire::sctp::chunk::{
            ABORT, COOKIE_ACK, COOKIE_ECHO, ERROR, INIT, INIT_ACK, SHUTDOWN, SHUTDOWN_ACK,
            SHUTDOWN_COMPLETE,
        };
        match (chunk, next) {
            (ABORT, _) | (COOKIE_ECHO | COOKIE_ACK, Some(ABORT)) => Self::SctpAbort,
            (INIT, _) => Self::SctpInit,
            (INIT_ACK, _) => Self::SctpInitAck,
            (COOKIE_ECHO, _) => Self::SctpCookieEcho,
            (COOKIE_ACK, _) => Self::SctpCookieAck,
            (SHUTDOWN, _) => Self::SctpShutdown,
            (SHUTDOWN_ACK, _) => Self::SctpShutdownAck,
            (SHUTDOWN_COMPLETE, _) => Self::SctpShutdownComplete,
            (ERROR, _) => Self::SctpError,
            _ => Self::SctpData,
        }
    }
}

/// Whose packet moves a connection's state: the columns of LVS's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Input,
    /// From the server.
    Output,
    /// From the client of a connection whose server was never heard: it answers without us.
    InputOnly,
}

mod tcp {
    use super::State;

    const ES: State = State::Established;
    const SS: State = State::SynSent;
    const SR: State = State::SynRecv;
    const FW: State = State::FinWait;
    const TW: State = State::TimeWait;
    const CL: State = State::Close;
    const CW: State = State::CloseWait;
    const LA: State = State::LastAck;
    const LI: State = State::Listen;
    const SA: State = State::Synack;

    /// By state and direction: the next state by event (SYN, FIN, ACK, RST).
    pub(super) type Rows = [[[State; 4]; 3]; 11];

    pub(super) const NORMAL: Rows = [
        /* NO */ [[SR, CL, ES, CL], [SS, TW, ES, CL], [SR, CL, ES, CL]],
        /* ES */ [[ES, CW, ES, CL], [ES, FW, ES, CL], [ES, FW, ES, CL]],
        /* SS */ [[ES, SS, SS, CL], [SS, SS, SS, SS], [ES, SS, SS, CL]],
        /* SR */ [[SR, TW, ES, SR], [SR, TW, ES, CL], [SR, TW, ES, SR]],
        /* FW */ [[SR, TW, FW, CL], [SS, FW, FW, CL], [SR, FW, FW, CL]],
        /* TW */ [[SR, TW, TW, CL], [SS, TW, TW, TW], [SR, TW, TW, CL]],
        /* CL */ [[SR, CL, CL, CL], [SS, CL, CL, CL], [SR, CL, CL, CL]],
        /* CW */ [[SR, CW, CW, CL], [SS, TW, CW, CL], [SR, CW, CW, CL]],
        /* LA */ [[SR, LA, CL, LA], [SS, LA, LA, CL], [SR, LA, CL, LA]],
        /* LI */ [[SR, LI, LI, LI], [LI, LI, ES, CL], [SR, LI, LI, LI]],
        /* SA */ [[SR, TW, ES, SR], [SR, TW, ES, CL], [SR, TW, ES, CL]],
    ];

    /// With `secure_tcp`: a client's segments alone do not make a half-open connection established.
    pub(super) const SECURE: Rows = [
        /* NO */ [[SR, CL, ES, CL], [SS, TW, ES, CL], [SA, CL, ES, CL]],
        /* ES */ [[ES, CW, ES, CL], [ES, FW, ES, CL], [ES, FW, ES, CL]],
        /* SS */ [[ES, SS, SS, CL], [SS, SS, SS, SS], [ES, SS, SS, CL]],
        /* SR */ [[SR, TW, SR, SR], [SA, TW, ES, CL], [SR, TW, ES, SR]],
        /* FW */ [[SR, TW, FW, CL], [SS, FW, FW, CL], [SA, FW, FW, CL]],
        /* TW */ [[SR, TW, TW, CL], [SS, TW, TW, TW], [SA, TW, TW, CL]],
        /* CL */ [[SR, CL, CL, CL], [SS, CL, CL, CL], [SA, CL, CL, CL]],
        /* CW */ [[SR, CW, CW, CL], [SS, TW, CW, CL], [SA, CW, CW, CL]],
        /* LA */ [[SR, LA, CL, LA], [SS, LA, LA, CL], [SA, LA, CL, LA]],
        /* LI */ [[SR, LI, LI, LI], [LI, LI, ES, CL], [SA, LI, LI, LI]],
        /* SA */ [[SA, SA, SA, CL], [SA, TW, ES, CL], [SA, TW, ES, CL]],
    ];
}

mod sctp {
    use super::State;

    const I1: State = State::SctpInit1;
    const IN: State = State::SctpInit;
    const CS: State = State::SctpCookieSent;
    const CR: State = State::SctpCookieReplied;
    const CW: State = State::SctpCookieWait;
    const CO: State = State::SctpCookie;
    const CE: State = State::SctpCookieEchoed;
    const ES: State = State::SctpEstablished;
    const SS: State = State::SctpShutdownSent;
    const SR: State = State::SctpShutdownReceived;
    const SA: State = State::SctpShutdownAckSent;
    const RJ: State = State::SctpRejected;
    const CL: State = State::SctpClosed;

    /// By event: DATA, INIT, INIT-ACK, COOKIE-ECHO, COOKIE-ACK, SHUTDOWN, SHUTDOWN-ACK,
    /// SHUTDOWN-COMPLETE, ERROR, ABORT.
    type Row = [State; 10];

    /// By direction and state.
    pub(super) const NEXT: [[Row; 14]; 3] = [INPUT, OUTPUT, INPUT_ONLY];

    #[rustfmt::skip]
    pub(super) const INPUT: [Row; 14] = [
        /* NO */ [ES, I1, CW, CR, ES, SR, CL, CL, CL, CL],
        /* I1 */ [I1, IN, CW, IN, I1, I1, IN, CL, I1, CL],
        /* IN */ [IN, IN, CW, IN, IN, IN, IN, CL, IN, CL],
        /* CS */ [CS, CS, CS, CR, CS, CS, CS, CS, CS, CL],
        /* CR */ [CR, CR, CR, CR, CR, CR, CR, CR, CR, CL],
        /* CW */ [CW, CW, CO, CW, CW, CW, CW, CW, CW, RJ],
        /* CO */ [CO, CO, CO, CO, CO, CO, CO, CO, CO, CL],
        /* CE */ [CE, CE, CE, CE, ES, CE, CE, CE, CL, CL],
        /* ES */ [ES, ES, ES, ES, ES, SR, ES, ES, ES, CL],
        /* SS */ [SS, SS, SS, SS, SS, SS, CL, SS, SS, CL],
        /* SR */ [SR, SR, SR, SR, SR, SR, SR, SR, SR, CL],
        /* SA */ [SA, SA, SA, SA, SA, SA, CL, CL, SA, CL],
        /* RJ */ [RJ, IN, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL],
        /* CL */ [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL],
    ];

    #[rustfmt::skip]
    pub(super) const OUTPUT: [Row; 14] = [
        /* NO */ [ES, CW, CS, CE, ES, SS, SA, CL, CL, CL],
        /* I1 */ [I1, CW, CS, CE, ES, SS, SA, I1, CL, RJ],
        /* IN */ [IN, CW, CS, CE, ES, SS, SA, IN, CL, CL],
        /* CS */ [CS, CW, CS, CE, ES, SS, SA, CS, CL, CL],
        /* CR */ [CR, CW, CR, CE, ES, SS, SA, CR, CL, CL],
        /* CW */ [CW, CW, CW, CE, ES, SS, CW, CW, CW, CL],
        /* CO */ [CO, CW, CO, CE, ES, SS, CO, CO, CO, CL],
        /* CE */ [CE, CW, CE, CE, ES, SS, CE, CE, CE, CL],
        /* ES */ [ES, ES, ES, ES, ES, SS, ES, ES, ES, CL],
        /* SS */ [SS, CW, SS, SS, SS, SS, SA, SS, SS, CL],
        /* SR */ [SR, CW, SR, SR, SR, SR, SA, SR, SR, CL],
        /* SA */ [SA, CW, SA, SA, SA, SA, SA, SA, SA, CL],
        /* RJ */ [RJ, CW, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL],
        /* CL */ [CL, CW, CL, CL, CL, CL, CL, CL, CL, CL],
    ];

    #[rustfmt::skip]
    pub(super) const INPUT_ONLY: [Row; 14] = [
        /* NO */ [ES, I1, CE, ES, ES, SR, CL, CL, CL, CL],
        /* I1 */ [I1, IN, CE, ES, I1, I1, IN, CL, I1, CL],
        /* IN */ [IN, IN, CE, ES, IN, IN, IN, CL, IN, CL],
        /* CS */ [CS, IN, CE, ES, ES, CS, CS, CL, CS, CL],
        /* CR */ [CR, IN, CE, ES, ES, CR, CR, CL, CR, CL],
        /* CW */ [ES, IN, CE, ES, CW, CW, CW, CW, CW, RJ],
        /* CO */ [CO, CO, CO, CO, ES, CO, CO, CO, CO, CL],
        /* CE */ [CE, CE, CE, CE, ES, CE, CE, CE, CE, CL],
        /* ES */ [ES, ES, ES, ES, ES, SR, CL, ES, ES, CL],
        /* SS */ [SS, SS, SS, SS, SS, SS, CL, SS, SS, CL],
        /* SR */ [SR, SR, SR, SR, SR, SR, SR, CL, SR, CL],
        /* SA */ [SA, SA, SA, SA, SA, SA, CL, CL, SA, CL],
        /* RJ */ [RJ, IN, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL],
        /* CL */ [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL],
    ];
}

const EVENTS: usize = Event::SctpAbort as usize + 1;
const SCTP_EVENT: usize = Event::SctpData as usize;
const SCTP_STATE: usize = State::SctpNone as usize;

/// By event and state, padded to powers of two.
type Table = [[State; 32]; 16];

/// What follows on what.
#[derive(Debug)]
pub struct Transitions {
    /// By direction, event and state.
    next: [Table; 3],
    /// By event: a bit for each state that it leaves as it is, whatever the direction. So do most.
    kept: [u32; 16],
}

impl Transitions {
    /// As `secure_tcp` says.
    pub const fn new(secure: bool) -> &'static Self {
        static NORMAL: Transitions = Transitions::of(&tcp::NORMAL);
        static SECURE: Transitions = Transitions::of(&tcp::SECURE);
        if secure { &SECURE } else { &NORMAL }
    }

    /// What follows on the state of this number.
    #[inline(always)]
    pub const fn after(&self, state: u8, event: Event, direction: Direction) -> State {
        self.next[direction as usize][event as usize][(state & 31) as usize]
    }

    /// Whether the state of this number stays as it is, whatever the direction.
    #[inline(always)]
    pub const fn keeps(&self, state: u8, event: Event) -> bool {
        self.kept[event as usize] >> (state & 31) & 1 != 0
    }

    const fn of(tcp: &tcp::Rows) -> Self {
        let next = [transposed(tcp, 0), transposed(tcp, 1), transposed(tcp, 2)];
        let kept = kept(&next);
        Self { next, kept }
    }
}

const fn transposed(tcp: &tcp::Rows, direction: usize) -> Table {
    let mut next = [[State::None; 32]; 16];
    let mut event = 0;
    while event < EVENTS {
        let mut state = 0;
        while state < State::ALL.len() {
            next[event][state] = if state < tcp.len() && event < 4 {
                tcp[state][direction][event]
            } else if state < tcp.len() && event < SCTP_EVENT {
                // A segment without any of the four flags closes.
                State::Close
            } else if state >= SCTP_STATE && event >= SCTP_EVENT {
                sctp::NEXT[direction][state - SCTP_STATE][event - SCTP_EVENT]
            } else {
                // UDP, or a packet of another protocol.
                State::ALL[state]
            };
            state += 1;
        }
        event += 1;
    }
    next
}

const fn kept(next: &[Table; 3]) -> [u32; 16] {
    let mut kept = [0; 16];
    let mut event = 0;
    while event < EVENTS {
        let mut state = 0;
        while state < State::ALL.len() {
            let all = [
                next[0][event][state],
                next[1][event][state],
                next[2][event][state],
            ];
            if let [a, b, c] = all
                && a as usize == state
                && b as usize == state
                && c as usize == state
            {
                kept[event] |= 1 << state;
            }
            state += 1;
        }
        event += 1;
    }
    kept
}

impl State {
    /// A connection's state after `event`.
    #[inline(always)]
    pub fn after(self, event: Event, direction: Direction, transitions: &Transitions) -> Self {
        transitions.after(self as u8, event, direction)
    }

    /// Whether both ends of a TCP connection know each other's numbers, and it is not over.
    pub const fn has_numbers(self) -> bool {
        matches!(
            self,
            Self::Established | Self::FinWait | Self::CloseWait | Self::LastAck
        )
    }

    /// Whether the client has not yet shown that it is there, by answering the server: first to go when
    /// the table is full.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(
            self,
            Self::SynRecv
                | Self::Synack
                | Self::SctpInit1
                | Self::SctpInit
                | Self::SctpCookieSent
                | Self::SctpCookieReplied
                | Self::SctpCookieWait
                | Self::SctpCookie
                | Self::SctpCookieEchoed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_of_the_specification() {
        let walk = |steps: &[(Event, bool)]| {
            steps.iter().fold(State::None, |state, (event, outbound)| {
                let direction = if *outbound {
                    Direction::Output
                } else {
                    Direction::Input
                };
                state.after(*event, direction, Transitions::new(false))
            })
        };
        use Event::{Ack, Fin, Other, Rst, Syn};
        let open = [(Syn, false), (Syn, true), (Ack, false)];
        assert_eq!(walk(&open[..2]), State::SynRecv);
        assert_eq!(walk(&open), State::Established);
        assert_eq!(
            walk(&[&open[..], &[(Fin, false)]].concat()),
            State::CloseWait
        );
        assert_eq!(
            walk(&[&open[..], &[(Fin, false), (Fin, true)]].concat()),
            State::TimeWait
        );
        assert_eq!(walk(&[&open[..], &[(Fin, true)]].concat()), State::FinWait);
        assert_eq!(
            walk(&[&open[..], &[(Fin, true), (Fin, false)]].concat()),
            State::TimeWait
        );
        assert_eq!(walk(&[&open[..], &[(Rst, true)]].concat()), State::Close);
        assert_eq!(walk(&[&open[..], &[(Other, true)]].concat()), State::Close);
        assert_eq!(
            State::Udp.after(Rst, Direction::Output, Transitions::new(false)),
            State::Udp
        );
    }

    #[test]
    fn flags_by_priority() {
        assert_eq!(Event::of(0x14), Event::Rst);
        assert_eq!(Event::of(0x13), Event::Syn);
        assert_eq!(Event::of(0x11), Event::Fin);
        assert_eq!(Event::of(0x18), Event::Ack);
        assert_eq!(Event::of(0x08), Event::Other);
    }

    #[test]
    fn chunks_by_type() {
        use Event::*;
        let events: Vec<Event> = (0..16).map(|chunk| Event::of_sctp(chunk, None)).collect();
        let expected = [
            SctpData,
            SctpInit,
            SctpInitAck,
            SctpData,
            SctpData,
            SctpData,
            SctpAbort,
            SctpShutdown,
            SctpShutdownAck,
            SctpError,
            SctpCookieEcho,
            SctpCookieAck,
            SctpData,
            SctpData,
            SctpShutdownComplete,
            SctpData,
        ];
        assert_eq!(events, expected);
        assert_eq!(Event::of_sctp(255, Some(6)), SctpData);
        assert_eq!(Event::of_sctp(10, Some(0)), SctpCookieEcho);
        assert_eq!(Event::of_sctp(10, Some(6)), SctpAbort);
        assert_eq!(Event::of_sctp(11, Some(6)), SctpAbort);
        assert_eq!(Event::of_sctp(0, Some(6)), SctpData);
    }

    #[test]
    fn an_association_is_walked() {
        use Event::*;
        let nat = [
            (SctpInit, Direction::Input, State::SctpInit1),
            (SctpInitAck, Direction::Output, State::SctpCookieSent),
            (SctpCookieEcho, Direction::Input, State::SctpCookieReplied),
            (SctpCookieAck, Direction::Output, State::SctpEstablished),
            (SctpData, Direction::Input, State::SctpEstablished),
            (SctpShutdown, Direction::Input, State::SctpShutdownReceived),
            (
                SctpShutdownAck,
                Direction::Output,
                State::SctpShutdownAckSent,
            ),
            (SctpShutdownComplete, Direction::Input, State::SctpClosed),
        ];
        let direct = [
            (SctpInit, Direction::InputOnly, State::SctpInit1),
            (SctpCookieEcho, Direction::InputOnly, State::SctpEstablished),
            (SctpData, Direction::InputOnly, State::SctpEstablished),
            (
                SctpShutdown,
                Direction::InputOnly,
                State::SctpShutdownReceived,
            ),
            (
                SctpShutdownComplete,
                Direction::InputOnly,
                State::SctpClosed,
            ),
        ];
        for walk in [&nat[..], &direct] {
            let mut state = State::SctpNone;
            for (event, direction, next) in walk {
                state = state.after(*event, *direction, Transitions::new(false));
                assert_eq!(state, *next, "{event:?}");
                assert_eq!(state.is_active(), state == State::SctpEstablished);
            }
        }
    }

    #[test]
    fn protocols_do_not_mix() {
        let first = [6, 17, 132].map(State::before_all);
        assert_eq!(first, [State::None, State::Udp, State::SctpNone]);
        for state in State::ALL {
            assert_eq!(State::by_number(state as u8), state);
            let sctp = state as usize >= SCTP_STATE;
            for direction in [Direction::Input, Direction::Output, Direction::InputOnly] {
                let next = state.after(Event::SctpAbort, direction, Transitions::new(false));
                assert_eq!(next as usize >= SCTP_STATE, sctp);
                assert!(sctp || next == state);
                let next = state.after(Event::Syn, direction, Transitions::new(false));
                assert!(next == state || (state as usize) < tcp::NORMAL.len());
            }
        }
    }
}

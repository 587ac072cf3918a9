//! TCP and UDP states as LVS keeps them (`ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`), as tables.

/// A connection's state; the numbers are LVS's own on the sync wire, UDP after them.
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
}

impl State {
    pub const ALL: [Self; 12] = [
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
    ];

    /// The state that `state as u8` was.
    #[inline(always)]
    pub const fn by_number(number: u8) -> Self {
        const PADDED: [State; 16] = {
            let mut padded = [State::None; 16];
            let mut i = 0;
            while i < State::ALL.len() {
                padded[i] = State::ALL[i];
                i += 1;
            }
            padded
        };
        PADDED[(number & 15) as usize]
    }

    /// Of a connection of this protocol that has seen no packet yet.
    pub const fn first(protocol: u8) -> Self {
        match protocol {
            crate::wire::flow::UDP => Self::Udp,
            _ => Self::None,
        }
    }

    /// As `ipvsadm -Lc` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
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
        }
    }

    /// Whether LVS counts a connection in this state as active.
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established | Self::SynSent | Self::SynRecv | Self::Synack
        )
    }
}

/// How long a connection lives without a packet, by state, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts([u32; State::ALL.len()]);

impl Default for Timeouts {
    fn default() -> Self {
        Self([2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 300].map(|s| s * 1000))
    }
}

impl Timeouts {
    #[inline]
    pub const fn ms(&self, state: State) -> u32 {
        self.0[state as usize]
    }

    /// Sets `state`'s timeout to `seconds` (at most 31 days). A connection takes the new value up
    /// at its next packet.
    pub const fn set_s(&mut self, state: State, seconds: u32) {
        self.0[state as usize] = seconds * 1000;
    }
}

/// What a TCP segment means to the state machine: RST before SYN before FIN before ACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Syn,
    Fin,
    Ack,
    Rst,
    /// None of the four flags.
    Other,
}

impl Event {
    #[inline]
    pub const fn of(flags: u8) -> Self {
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
}

const ES: State = State::Established;
const SS: State = State::SynSent;
const SR: State = State::SynRecv;
const FW: State = State::FinWait;
const TW: State = State::TimeWait;
const CL: State = State::Close;
const CW: State = State::CloseWait;
const LA: State = State::LastAck;
const LI: State = State::Listen;

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

/// One state's row, by [`Direction`]: the next state by event (SYN, FIN, ACK, RST).
type Row = [[State; 4]; 3];

const TCP: [Row; 11] = [
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

/// `TCP` by direction, event and state, for one load per packet.
static NEXT: [[[State; 12]; 5]; 3] = transposed();

const fn transposed() -> [[[State; 12]; 5]; 3] {
    // A segment without any of the four flags closes; UDP stays UDP whatever comes.
    let mut next = [[[CL; 12]; 5]; 3];
    let mut direction = 0;
    while direction < 3 {
        let mut event = 0;
        while event < 5 {
            let mut state = 0;
            while state < TCP.len() && event < 4 {
                next[direction][event][state] = TCP[state][direction][event];
                state += 1;
            }
            next[direction][event][State::Udp as usize] = State::Udp;
            event += 1;
        }
        direction += 1;
    }
    next
}

impl State {
    /// A connection's state after `event`.
    #[inline(always)]
    pub fn after(self, event: Event, direction: Direction) -> Self {
        NEXT[direction as usize][event as usize][self as usize]
    }

    /// The client has not yet answered the server's SYN-ACK: first to go when the table is full.
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynRecv | Self::Synack)
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
                state.after(*event, direction)
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
        assert_eq!(State::Udp.after(Rst, Direction::Output), State::Udp);
    }

    #[test]
    fn flags_by_priority() {
        assert_eq!(Event::of(0x14), Event::Rst);
        assert_eq!(Event::of(0x13), Event::Syn);
        assert_eq!(Event::of(0x11), Event::Fin);
        assert_eq!(Event::of(0x18), Event::Ack);
        assert_eq!(Event::of(0x08), Event::Other);
    }
}

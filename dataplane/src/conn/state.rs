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
        matches!(self, Self::Established | Self::SynSent | Self::SynRecv | Self::Synack)
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

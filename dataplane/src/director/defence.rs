//! Defence against floods, as LVS's (`spec/connections.md` §11): each worker judges once a second by
//! how many of its connections are free, where LVS goes by free memory.

use control::Settings;

use super::Director;
use crate::conn::{Conn, State, Transitions};
use crate::packet::PacketBuf;
use crate::time::Instant;

const PERIOD_MS: u32 = 1000;
/// `drop_entry` looks at one entry of so many in each period.
const SHARE: u32 = 32;
/// Entries looked at per call of [`Director::tick`].
const LOOKS_MAX: u32 = 512;
/// Whoever sent a packet within this time keeps its connection.
const QUIET_MS: u32 = 60_000;
/// Connections with more packets from their clients than this are kept.
const PACKETS_MAX: usize = 8;

/// A strategy's levels: automatic (1 while off, 2 while on, which comes to the same), and always on.
const AUTOMATIC: [u8; 2] = [1, 2];
const ALWAYS: u8 = 3;

/// What is on, and whose turn it is.
#[derive(Debug, Clone)]
pub(super) struct Defence {
    judged: Option<Instant>,
    drops_entries: bool,
    /// One of so many packets that would open a connection is dropped; 0: none.
    packet_rate: u32,
    /// Packets until the next one that is dropped.
    packets_left: u32,
    /// Entries still to look at in this period.
    looks: u32,
    /// Templates still to look at.
    template_looks: u32,
    /// By packets from its client: connections until the next one that is ended.
    spared: [u8; PACKETS_MAX + 1],
    random: u64,
}

impl Default for Defence {
    fn default() -> Self {
        Self {
            judged: None,
            drops_entries: false,
            packet_rate: 0,
            packets_left: 0,
            looks: 0,
            template_looks: 0,
            spared: [0; PACKETS_MAX + 1],
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Defence {
    /// Decides what is on with so many connections free.
    fn judge(&mut self, settings: &Settings, free: u32) {
        let missing = settings.amemthresh.saturating_sub(free);
        self.drops_entries = is_on(settings.drop_entry, missing);
        let is_automatic = AUTOMATIC.contains(&settings.drop_packet);
        self.packet_rate = match settings.amemthresh.checked_div(missing) {
            Some(rate) if is_automatic => rate,
            _ if settings.drop_packet == ALWAYS => settings.am_droprate,
            _ => 0,
        };
        if is_automatic {
            self.packets_left = self.packet_rate;
        }
    }

    /// Whether some of the packets that would open connections are dropped.
    pub(super) const fn is_watchful(&self) -> bool {
        self.packet_rate != 0
    }

    /// Whether the next packet that would open a connection is dropped instead.
    pub(super) fn drops_packet(&mut self) -> bool {
        if self.packet_rate == 0 {
            return false;
        }
        self.packets_left = self.packets_left.saturating_sub(1);
        let drops = self.packets_left == 0;
        if drops {
            self.packets_left = self.packet_rate;
        }
        drops
    }

    /// Whether a connection is the least loss: nothing is known of its client, or little came from it,
    /// and long ago.
    fn gives_up(&mut self, now: Instant, conn: &Conn) -> bool {
        match conn.state() {
            State::SynRecv | State::Synack | State::SctpInit1 | State::SctpInit => true,
            State::Established | State::SctpEstablished | State::Udp => {
                self.is_due(conn.packets()[0], now.since(conn.last_seen()))
            }
            _ => false,
        }
    }

    /// Of what got n packets from clients, and none for so long, each n-th.
    fn is_due(&mut self, packets: u32, quiet_ms: u32) -> bool {
        let spared = self.spared.get_mut(packets as usize);
        let (Some(spared), Ok(n @ 1..)) = (spared, u8::try_from(packets)) else {
            return false;
        };
        if quiet_ms < QUIET_MS {
            return false;
        }
        *spared = spared.saturating_sub(1);
        let is_due = *spared == 0;
        if is_due {
            *spared = n;
        }
        is_due
    }

    /// One of so many entries, any (Marsaglia's xorshift).
    fn any(&mut self, entries: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let scaled = ((self.random >> 32) * u64::from(entries)) >> 32;
        u32::try_from(scaled).unwrap_or(0)
    }
}

/// Whether a strategy of this level is on when so many connections are missing.
fn is_on(level: u8, missing: u32) -> bool {
    level == ALWAYS || AUTOMATIC.contains(&level) && missing > 0
}

impl<P: PacketBuf> Director<P> {
    /// Decides what is on now.
    pub(super) fn judge(&mut self) {
        let free = self.conns.capacity() - self.conns.used();
        let missing = self.settings.amemthresh.saturating_sub(free);
        self.defence.judge(&self.settings, free);
        self.transitions = Transitions::new(is_on(self.settings.secure_tcp, missing));
    }

    /// Judges when it is time, and ends some of the connections that are to be ended.
    pub(super) fn defend(&mut self, now: Instant) {
        let last = *self.defence.judged.get_or_insert(now);
        if now.since(last) >= PERIOD_MS {
            self.defence.judged = Some(now);
            self.judge();
            let drops = self.defence.drops_entries;
            let share = |of: u32| if drops { of.div_ceil(SHARE) } else { 0 };
            self.defence.looks = share(self.conns.fresh());
            let workers = u32::try_from(self.steer.workers()).unwrap_or(1).max(1);
            self.defence.template_looks = share(self.templates.lines() / workers);
        }
        self.drop_entries(now);
        self.drop_templates(now);
    }

    fn drop_entries(&mut self, now: Instant) {
        let looks = self.defence.looks.min(LOOKS_MAX);
        self.defence.looks -= looks;
        for _ in 0..looks {
            let entry = self.defence.any(self.conns.fresh());
            if self.controls(now, entry) {
                continue;
            }
            let conn = self.conns.at(entry);
            if conn.is_some_and(|conn| self.defence.gives_up(now, conn)) {
                self.close(now, entry, None);
            }
        }
    }

    /// Ends templates that control no connection: those whose clients never got an answer, and of
    /// services that schedule each datagram by itself, where no answer is noted, those that would be
    /// ended as connections.
    fn drop_templates(&mut self, now: Instant) {
        let looks = self.defence.template_looks.min(LOOKS_MAX);
        self.defence.template_looks -= looks;
        for _ in 0..looks {
            let line = self.defence.any(self.templates.lines());
            let Some(idle) = self.templates.idle(line, now) else {
                continue;
            };
            let ends = match self.services.schedules_alone(idle.server) {
                true => self.defence.is_due(idle.in_packets, idle.quiet_ms),
                false => !idle.assured,
            };
            if ends {
                self.templates.dismiss(line);
            }
        }
    }
}

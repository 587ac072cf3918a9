//! When a connection is told to the backups: LVS's rules (`ip_vs_sync.c`).

use control::Settings;

use crate::conn::State;
use crate::time::Instant;

/// The longest that announcements of a connection whose end has moved wait, unless half its timeout
/// is longer.
const LATE_MIN_MS: u32 = 10_000;

/// LVS's sysctls of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `sync_threshold`: packets from the client in each period, and the period's length in packets.
    pub threshold: u32,
    pub period: u32,
    /// `sync_refresh_period`: an end that moved by less is not told again; 0: packets alone count.
    pub refresh_ms: u32,
    /// `sync_retries`: how often it is told nevertheless.
    pub retries: u8,
    /// `sync_persist_mode`: a template speaks for its connections.
    pub templates_alone: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(&Settings::default())
    }
}

/// What was last told of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Before anything was, the state that a connection begins with.
    pub state: State,
    /// When it would end, if no packet came.
    pub end: Instant,
    /// How often this end was told again.
    pub repeats: u8,
}

/// A connection, or a template, at a packet from its client.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub state: State,
    pub is_template: bool,
    /// A template controls it.
    pub is_persistent: bool,
    pub timeout_ms: u32,
    /// From the client, this one included; of a template how often it was asked about.
    pub packets: u32,
}

impl Rules {
    pub fn of(settings: &Settings) -> Self {
        Self {
            threshold: settings.sync_threshold,
            period: settings.sync_period,
            refresh_ms: settings.sync_refresh_period.saturating_mul(1000),
            retries: settings.sync_retries,
            templates_alone: settings.sync_persist_mode,
        }
    }

    /// Whether a connection in this state is told at all.
    pub fn may_tell(&self, state: State, is_persistent: bool) -> bool {
        let it = Subject {
            state,
            is_template: false,
            is_persistent,
            timeout_ms: 0,
            packets: 0,
        };
        let told = Told {
            state,
            end: Instant(0),
            repeats: 0,
        };
        self.news(it, told).is_some()
    }

    /// What is told of it now, if anything.
    pub fn due(&self, now: Instant, it: Subject, told: Told) -> Option<Told> {
        let news = self.news(it, told)?;
        let next = Told {
            state: it.state,
            end: now.plus_ms(it.timeout_ms),
            repeats: 0,
        };
        if news && !it.state.is_established() {
            return Some(next);
        }
        let repeats = self.repeats(now, it, told, next.end)?;
        self.is_turn(it).then_some(Told { repeats, ..next })
    }

    /// Whether its state is news, or `None` if it is one that is not told.
    fn news(&self, it: Subject, told: Told) -> Option<bool> {
        match it.state {
            _ if it.is_template => Some(false),
            _ if self.templates_alone && it.is_persistent => None,
            State::Udp => Some(false),
            State::Established
            | State::FinWait
            | State::Close
            | State::CloseWait
            | State::TimeWait
            | State::SctpEstablished
            | State::SctpShutdownSent
            | State::SctpShutdownReceived
            | State::SctpShutdownAckSent
            | State::SctpClosed => Some(it.state != told.state),
            _ => None,
        }
    }

    /// How often its end was told before, or `None` while it is too soon to tell it again.
    fn repeats(&self, now: Instant, it: Subject, told: Told, end: Instant) -> Option<u8> {
        if self.refresh_ms == 0 {
            return Some(0);
        }
        let moved = end.since(told.end).min(told.end.since(end));
        if moved >= self.refresh_ms.min((it.timeout_ms / 2).max(LATE_MIN_MS)) {
            return Some(0);
        }
        let earliest = told
            .end
            .minus_ms(it.timeout_ms)
            .plus_ms(self.refresh_ms / 8);
        (told.repeats < self.retries && now.reached(earliest)).then_some(told.repeats + 1)
    }

    /// Whether it is told by the number of its packets.
    fn is_turn(&self, it: Subject) -> bool {
        match self.period {
            0 => self.refresh_ms > 0 || it.packets == self.threshold,
            period => it.is_template || it.packets % period == self.threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000);
    const FRESH: Told = Told {
        state: State::None,
        end: Instant(0),
        repeats: 0,
    };

    fn tcp(state: State, packets: u32) -> Subject {
        Subject {
            state,
            is_template: false,
            is_persistent: false,
            timeout_ms: 900_000,
            packets,
        }
    }

    /// The packets at which a connection in one state is told.
    fn turns(rules: Rules, it: Subject) -> Vec<u32> {
        let mut told = FRESH;
        let mut turns = Vec::new();
        for packets in 1..=110 {
            if let Some(now_told) = rules.due(NOW, Subject { packets, ..it }, told) {
                told = now_told;
                turns.push(packets);
            }
        }
        turns
    }

    #[test]
    fn by_default_the_third_packet_and_every_fiftieth_after_it() {
        let rules = Rules::default();
        assert_eq!(turns(rules, tcp(State::Established, 0)), [3, 53, 103]);
        assert_eq!(turns(rules, tcp(State::Udp, 0)), [3, 53, 103]);
        assert_eq!(turns(rules, tcp(State::SctpEstablished, 0)), [3, 53, 103]);
    }

    #[test]
    fn a_state_that_ends_is_told_at_once_and_then_by_packets() {
        for state in [
            State::FinWait,
            State::Close,
            State::CloseWait,
            State::TimeWait,
            State::SctpShutdownSent,
            State::SctpClosed,
        ] {
            assert_eq!(
                turns(Rules::default(), tcp(state, 0)),
                [1, 3, 53, 103],
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_is_not_yet_one_is_not_told() {
        for state in [
            State::SynRecv,
            State::SynSent,
            State::LastAck,
            State::SctpInit,
        ] {
            assert!(turns(Rules::default(), tcp(state, 0)).is_empty());
        }
    }

    #[test]
    fn without_a_period_once() {
        let rules = Rules {
            threshold: 5,
            period: 0,
            ..Rules::default()
        };
        assert_eq!(turns(rules, tcp(State::Established, 0)), [5]);
    }

    #[test]
    fn templates_are_told_whenever_they_are_asked_about() {
        let template = Subject {
            is_template: true,
            ..tcp(State::None, 0)
        };
        assert_eq!(turns(Rules::default(), template).len(), 110);
        let once = Rules {
            period: 0,
            ..Rules::default()
        };
        assert_eq!(turns(once, template), [3]);
    }

    #[test]
    fn templates_speak_for_their_connections_if_they_are_to() {
        let rules = Rules {
            templates_alone: true,
            ..Rules::default()
        };
        let it = Subject {
            is_persistent: true,
            ..tcp(State::Established, 0)
        };
        assert!(turns(rules, it).is_empty());
        assert_eq!(turns(Rules::default(), it), [3, 53, 103]);
        assert_eq!(turns(rules, tcp(State::Established, 0)), [3, 53, 103]);
    }

    #[test]
    fn with_a_refresh_period_time_counts() {
        let rules = Rules {
            threshold: 0,
            period: 0,
            refresh_ms: 60_000,
            ..Rules::default()
        };
        let it = tcp(State::Established, 1);
        let told = rules.due(NOW, it, FRESH).unwrap();
        assert_eq!(told.end, NOW.plus_ms(900_000));
        assert_eq!(rules.due(NOW.plus_ms(59_999), it, told), None);
        assert!(rules.due(NOW.plus_ms(60_000), it, told).is_some());
        // What lives shortly is told when ten seconds, or half its life, have passed.
        let short = Subject {
            timeout_ms: 4_000,
            ..it
        };
        let told = rules.due(NOW, short, FRESH).unwrap();
        assert_eq!(rules.due(NOW.plus_ms(9_999), short, told), None);
        assert!(rules.due(NOW.plus_ms(10_000), short, told).is_some());
    }

    #[test]
    fn an_end_is_told_again_as_often_as_said() {
        let rules = Rules {
            threshold: 0,
            period: 0,
            refresh_ms: 80_000,
            retries: 2,
            ..Rules::default()
        };
        let it = tcp(State::Established, 1);
        let mut told = rules.due(NOW, it, FRESH).unwrap();
        let mut times = Vec::new();
        for ms in (0..80_000).step_by(1000) {
            if let Some(again) = rules.due(NOW.plus_ms(ms), it, told) {
                told = again;
                times.push((ms, again.repeats));
            }
        }
        assert_eq!(times, [(10_000, 1), (20_000, 2)]);
    }
}

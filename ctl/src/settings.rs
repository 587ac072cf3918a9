//! What LVS has as sysctls: the settings, and one by one what command lines, files, listings and the log
//! call them.

use std::fmt;
use std::ops::RangeInclusive;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What LVS has as sysctls, with the kernel's defaults (`spec/connections.md` §12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// An ICMP error about a packet that would have a service opens a connection.
    pub schedule_icmp: bool,
    /// Tunnels copy DF from the packet, and tell its sender when it is too long for them.
    pub pmtu_disc: bool,
    /// Bit 0: a SYN on a connection that ended opens a new one. Bit 1: also on one in FIN_WAIT whose
    /// server answers without us. 0: never.
    pub conn_reuse_mode: u8,
    /// A packet of a connection whose server was deleted ends the connection, and a new connection
    /// on the ports of one whose server is quiesced is scheduled anew.
    pub expire_nodest_conn: bool,
    /// Persistent clients of a quiesced server get another one with their next connection.
    pub expire_quiescent_template: bool,
    /// Any TCP segment but a reset opens a connection.
    pub sloppy_tcp: bool,
    /// Any SCTP packet but an abort opens a connection.
    pub sloppy_sctp: bool,
    /// 0 to 3: connections that are the least loss are ended when the table is nearly full.
    pub drop_entry: u8,
    /// 0 to 3: some of the packets that would open connections are dropped.
    pub drop_packet: u8,
    /// 0 to 3: half-open TCP connections count as established later.
    pub secure_tcp: u8,
    /// With `drop_packet` 3 one packet in so many is dropped.
    pub am_droprate: u32,
    /// Modes 1 and 2 of the defences begin when fewer connections than this are free on a worker.
    pub amemthresh: u32,
    /// Answers to single datagrams leave as they are, as in LVS; by default they get the virtual
    /// address as their source.
    pub one_packet_replies_untranslated: bool,
    /// Of the messages to backups: 0 or 1.
    pub sync_version: u8,
    /// Backups are told of a connection with this one of its client's packets, and again in every
    /// [`Self::sync_period`]; without a period once.
    pub sync_threshold: u32,
    pub sync_period: u32,
    /// Seconds that a connection's end has to move before it is told again; 0: packets alone count.
    pub sync_refresh_period: u32,
    /// How often it is told nevertheless, in case a message was lost.
    pub sync_retries: u8,
    /// Templates speak for their connections.
    pub sync_persist_mode: bool,
    /// Over how many UDP ports connections are spread; taken when a daemon starts.
    pub sync_ports: u8,
}

impl Default for Settings {
    /// As the kernel's.
    fn default() -> Self {
        Self {
            schedule_icmp: false,
            pmtu_disc: true,
            conn_reuse_mode: 1,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            sloppy_tcp: false,
            sloppy_sctp: false,
            drop_entry: 0,
            drop_packet: 0,
            secure_tcp: 0,
            am_droprate: 10,
            amemthresh: 1024,
            one_packet_replies_untranslated: false,
            sync_version: 1,
            sync_threshold: 3,
            sync_period: 50,
            sync_refresh_period: 0,
            sync_retries: 0,
            sync_persist_mode: false,
            sync_ports: 1,
        }
    }
}

/// One of [`Settings`].
#[derive(Debug)]
pub struct Setting {
    /// As in files and in JSON; LVS's own where it has it as a sysctl.
    pub name: &'static str,
    /// For people, in a line.
    pub meaning: &'static str,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Switch(fn(&mut Settings) -> &mut bool),
    /// With the highest.
    Level(fn(&mut Settings) -> &mut u8, u8),
    /// With the lowest.
    Number(fn(&mut Settings) -> &mut u32, u32),
}

/// What a setting is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Switch(bool),
    Number(u32),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// The highest number; LVS's sysctls are signed.
const NUMBER_MAX: u32 = i32::MAX as u32;

/// All of them, in the order in which they are listed.
pub const SETTINGS: [Setting; 20] = [
    Setting {
        name: "schedule_icmp",
        meaning: "an ICMP error about a packet that would have a service opens a connection",
        place: Place::Switch(|s| &mut s.schedule_icmp),
    },
    Setting {
        name: "pmtu_disc",
        meaning: "tunnels copy DF, and tell a packet's sender when it is too long",
        place: Place::Switch(|s| &mut s.pmtu_disc),
    },
    Setting {
        name: "conn_reuse_mode",
        meaning: "a SYN on a connection that ended opens a new one: 0 never, 1 yes, 2 or 3 also in FIN_WAIT where servers answer without us",
        place: Place::Level(|s| &mut s.conn_reuse_mode, 3),
    },
    Setting {
        name: "expire_nodest_conn",
        meaning: "a packet of a connection whose server was deleted ends it",
        place: Place::Switch(|s| &mut s.expire_nodest_conn),
    },
    Setting {
        name: "expire_quiescent_template",
        meaning: "persistent clients of a server with weight 0 get another with their next connection",
        place: Place::Switch(|s| &mut s.expire_quiescent_template),
    },
    Setting {
        name: "sloppy_tcp",
        meaning: "any TCP segment but a reset opens a connection",
        place: Place::Switch(|s| &mut s.sloppy_tcp),
    },
    Setting {
        name: "sloppy_sctp",
        meaning: "any SCTP packet but an abort opens a connection",
        place: Place::Switch(|s| &mut s.sloppy_sctp),
    },
    Setting {
        name: "drop_entry",
        meaning: "connections that are the least loss are ended: 0 never, 1 or 2 when the table is nearly full, 3 always",
        place: Place::Level(|s| &mut s.drop_entry, 3),
    },
    Setting {
        name: "drop_packet",
        meaning: "some packets that would open connections are dropped: 0 never, 1 or 2 when the table is nearly full, 3 always",
        place: Place::Level(|s| &mut s.drop_packet, 3),
    },
    Setting {
        name: "secure_tcp",
        meaning: "half-open TCP connections count as established later: 0 never, 1 or 2 when the table is nearly full, 3 always",
        place: Place::Level(|s| &mut s.secure_tcp, 3),
    },
    Setting {
        name: "am_droprate",
        meaning: "with drop_packet 3, one packet in so many is dropped",
        place: Place::Number(|s| &mut s.am_droprate, 1),
    },
    Setting {
        name: "amemthresh",
        meaning: "a worker's table is nearly full when fewer connections than this are free",
        place: Place::Number(|s| &mut s.amemthresh, 0),
    },
    Setting {
        name: "one_packet_replies_untranslated",
        meaning: "answers to single datagrams leave as they are, as in LVS, not with the virtual address",
        place: Place::Switch(|s| &mut s.one_packet_replies_untranslated),
    },
    Setting {
        name: "sync_version",
        meaning: "of the messages to backups; 0 is understood by kernels before 2.6.39, and has no IPv6",
        place: Place::Level(|s| &mut s.sync_version, 1),
    },
    Setting {
        name: "sync_threshold",
        meaning: "backups are told of a connection with this one of its client's packets",
        place: Place::Number(|s| &mut s.sync_threshold, 0),
    },
    Setting {
        name: "sync_period",
        meaning: "... and again with that one of every so many; 0 is once",
        place: Place::Number(|s| &mut s.sync_period, 0),
    },
    Setting {
        name: "sync_refresh_period",
        meaning: "seconds that a connection's end must have moved before it is told again; 0 goes by packets alone",
        place: Place::Number(|s| &mut s.sync_refresh_period, 0),
    },
    Setting {
        name: "sync_retries",
        meaning: "with a refresh period, how often the same is told again in case it was lost",
        place: Place::Level(|s| &mut s.sync_retries, 3),
    },
    Setting {
        name: "sync_persist_mode",
        meaning: "of persistent connections only the templates are told",
        place: Place::Switch(|s| &mut s.sync_persist_mode),
    },
    Setting {
        name: "sync_ports",
        meaning: "over how many UDP ports connections are told, from when a daemon starts; the same on both sides",
        place: Place::Level(|s| &mut s.sync_ports, 64),
    },
];

impl Setting {
    /// As on command lines and in listings.
    pub fn word(&self) -> String {
        self.name.replace('_', "-")
    }

    pub fn of(&self, mut settings: Settings) -> Value {
        match self.place {
            Place::Switch(place) => Value::Switch(*place(&mut settings)),
            Place::Level(place, _) => Value::Number((*place(&mut settings)).into()),
            Place::Number(place, _) => Value::Number(*place(&mut settings)),
        }
    }

    /// What is right; `None` for true and false.
    pub fn range(&self) -> Option<RangeInclusive<u32>> {
        match self.place {
            Place::Switch(_) => None,
            Place::Level(_, highest) => Some(0..=highest.into()),
            Place::Number(_, lowest) => Some(lowest..=NUMBER_MAX),
        }
    }

    /// Says what would be right if `value` is not.
    pub fn set(&self, settings: &mut Settings, value: Value) -> Result<(), String> {
        self.check(value)?;
        match (&self.place, value) {
            (Place::Switch(place), Value::Switch(on)) => *place(settings) = on,
            (Place::Level(place, highest), Value::Number(number)) => {
                *place(settings) = u8::try_from(number).unwrap_or(*highest);
            }
            (Place::Number(place, _), Value::Number(number)) => *place(settings) = number,
            _ => {}
        }
        Ok(())
    }

    fn check(&self, value: Value) -> Result<(), String> {
        let name = self.name;
        match (self.range(), value) {
            (None, Value::Switch(_)) => Ok(()),
            (None, Value::Number(_)) => Err(format!("{name} = {value}, true or false is right")),
            (Some(range), Value::Number(number)) if range.contains(&number) => Ok(()),
            (Some(range), _) => {
                let (low, high) = (range.start(), range.end());
                Err(format!(
                    "{name} = {value} is out of range, {low} to {high} is right"
                ))
            }
        }
    }
}

impl Settings {
    /// Says what would be right of the first that is not.
    pub fn check(self) -> Result<(), String> {
        SETTINGS
            .iter()
            .try_for_each(|setting| setting.check(setting.of(self)))?;
        let (threshold, period) = (self.sync_threshold, self.sync_period);
        if period > 0 && threshold >= period {
            return Err(format!(
                "sync_threshold = {threshold} never comes in a sync_period of {period}, less is right"
            ));
        }
        if !self.sync_ports.is_power_of_two() {
            let ports = self.sync_ports;
            return Err(format!(
                "sync_ports = {ports} is not a power of two, 1 to 64 is right"
            ));
        }
        Ok(())
    }

    /// `conn-reuse-mode 1 -> 0, drop-entry 0 -> 3`; `nothing` where all stays.
    pub fn changed_from(self, before: Self) -> String {
        let changed = SETTINGS.iter().filter_map(|setting| {
            let (old, new) = (setting.of(before), setting.of(self));
            (old != new).then(|| format!("{} {old} -> {new}", setting.word()))
        });
        let changed: Vec<String> = changed.collect();
        if changed.is_empty() {
            return "nothing".to_owned();
        }
        changed.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_listed_once() {
        let json = serde_json::to_value(Settings::default()).unwrap();
        let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(names, fields);
        for setting in &SETTINGS {
            let value = setting.of(Settings::default());
            assert_eq!(json[setting.name].to_string(), value.to_string());
        }
    }

    #[test]
    fn each_is_set_by_itself_and_in_its_range() {
        // Any threshold comes without a period.
        let before = Settings {
            sync_period: 0,
            ..Settings::default()
        };
        for setting in &SETTINGS {
            let mut settings = before;
            let new = match (setting.range(), setting.of(settings)) {
                (None, Value::Switch(on)) => Value::Switch(!on),
                (Some(range), Value::Number(now)) if now == *range.end() => {
                    Value::Number(*range.start())
                }
                (Some(range), _) => Value::Number(*range.end()),
                (None, Value::Number(_)) => unreachable!("a number has a range"),
            };
            setting.set(&mut settings, new).unwrap();
            assert_eq!(setting.of(settings), new);
            let changed = settings.changed_from(before);
            let words = format!("{} {} -> {new}", setting.word(), setting.of(before));
            assert_eq!(changed, words);
            assert_eq!(settings.check(), Ok(()));
            let wrong = match setting.range() {
                None => Value::Number(1),
                Some(range) => Value::Number(range.end() + 1),
            };
            assert!(
                setting.set(&mut settings, wrong).is_err(),
                "{}",
                setting.name
            );
        }
        let wrong = Settings {
            drop_packet: 4,
            ..Settings::default()
        };
        let words = "drop_packet = 4 is out of range, 0 to 3 is right";
        assert_eq!(wrong.check(), Err(words.to_owned()));
        assert_eq!(wrong.changed_from(wrong), "nothing");
    }
}

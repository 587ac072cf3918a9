//! Packets as they are shown: the last drops, and captures.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::packet::{Ends, Frame};
use crate::{ForwardMode, Prefix, ServiceKey, Word};

/// The most bytes that are captured of one packet.
pub const SNAPLEN_MAX: u32 = 65535;
/// Bytes that wait in each worker for the director's main thread, unless the client says otherwise.
pub const BUFFER: u32 = 4 << 20;
pub const BUFFER_MIN: u32 = 4 << 10;
pub const BUFFER_MAX: u32 = 64 << 20;
/// The most conditions of a filter.
pub const TERMS_MAX: usize = 16;

/// Bytes, as base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text);
        bytes.map(Self).map_err(D::Error::custom)
    }
}

/// One packet that was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// Nanoseconds since the epoch.
    pub at_ns: u64,
    /// The core of the worker.
    pub worker: u16,
    /// Where it was received, or what it was made for.
    pub port: String,
    /// Of the tag that it had when it was dropped.
    pub vlan: Option<u16>,
    /// The counter's name.
    pub reason: String,
    /// What that means.
    pub sentence: String,
    /// Of the whole packet, in bytes.
    pub length: u32,
    /// Its first bytes, as they were when it was dropped.
    #[schemars(with = "String")]
    pub bytes: Bytes,
}

/// Where packets are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// As they are received, before anything.
    Rx,
    /// Once it is decided what becomes of them, as they then are.
    Decided,
    /// As the ports take them.
    Tx,
    /// Those that are dropped.
    Drop,
}

impl Word for Stage {
    const ALL: &'static [Self] = &[Self::Rx, Self::Decided, Self::Tx, Self::Drop];

    fn word(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Decided => "decided",
            Self::Tx => "tx",
            Self::Drop => "drop",
        }
    }
}

/// What a capture takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureSpec {
    pub stage: Stage,
    #[serde(default)]
    pub filter: PacketFilter,
    /// Bytes of each packet, at most [`SNAPLEN_MAX`].
    pub snaplen: u32,
    /// Bytes that may wait in each worker, [`BUFFER_MIN`] to [`BUFFER_MAX`].
    pub buffer: u32,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    Tcp,
    Udp,
    Sctp,
    /// Of IPv4 or IPv6.
    Icmp,
    Arp,
}

impl Word for Traffic {
    const ALL: &'static [Self] = &[Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp, Self::Arp];

    fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
            Self::Arp => "arp",
        }
    }
}

/// All of it must hold. Addresses and ports are those of either end: of the packet itself, or of its
/// connection where that is known, before and after translation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PacketFilter {
    pub traffic: Option<Traffic>,
    pub hosts: Vec<IpAddr>,
    pub nets: Vec<Prefix>,
    pub ports: Vec<u16>,
    /// Why it is dropped, by the counter's name.
    pub reason: Option<String>,
    /// The director's port that it came from or leaves by.
    pub port: Option<String>,
}

impl PacketFilter {
    /// Reads `tcp and host 10.0.0.2 and port 80`; every `and` may be left out.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut words = words.iter().map(AsRef::as_ref).peekable();
        while let Some(word) = words.next() {
            let mut value = |example: &str| {
                words
                    .next()
                    .ok_or_else(|| format!("{word:?} wants a value, {word} {example} is right"))
            };
            match word {
                "host" => filter
                    .hosts
                    .push(read(value("10.0.0.2")?, "an address, 10.0.0.2")?),
                "net" => filter
                    .nets
                    .push(read(value("10.0.0.0/8")?, "a network, 10.0.0.0/8")?),
                "port" => filter.ports.push(read(value("80")?, "a port, 80")?),
                "and" if filter != Self::default() && words.peek().is_some() => {}
                _ => filter.add_traffic(word)?,
            }
        }
        let terms = filter.hosts.len() + filter.nets.len() + filter.ports.len();
        if terms > TERMS_MAX {
            return Err(format!(
                "{terms} conditions are too many, at most {TERMS_MAX} is right"
            ));
        }
        Ok(filter)
    }

    fn add_traffic(&mut self, word: &str) -> Result<(), String> {
        let mut all = Traffic::ALL.iter().copied();
        let traffic = all.find(|traffic| traffic.word() == word).ok_or_else(|| {
            format!(
                "{word:?} is no condition: host ADDRESS, net PREFIX, port NUMBER, tcp, udp, sctp, icmp and arp are, \
                 joined by \"and\""
            )
        })?;
        match self.traffic.replace(traffic) {
            Some(other) if other != traffic => {
                Err(format!("no packet is both {} and {word}", other.word()))
            }
            _ => Ok(()),
        }
    }

    /// Whether nothing is asked of addresses, ports and what the packet carries.
    pub fn is_open(&self) -> bool {
        self.traffic.is_none() && self.asks_no_ends()
    }

    fn asks_no_ends(&self) -> bool {
        self.hosts.is_empty() && self.nets.is_empty() && self.ports.is_empty()
    }

    /// Whether the packet is chosen, by its own headers or by those of its connection.
    pub fn chooses(&self, frame: &[u8], connection: &[Ends]) -> bool {
        self.is_open()
            || Frame::read(frame).is_some_and(|frame| self.chooses_frame(&frame))
            || connection.iter().any(|ends| self.chooses_ends(ends))
    }

    fn chooses_frame(&self, frame: &Frame<'_>) -> bool {
        match frame.ends() {
            Some(ends) => self.chooses_ends(&ends),
            None => self.traffic == Some(Traffic::Arp) && frame.is_arp() && self.asks_no_ends(),
        }
    }

    fn chooses_ends(&self, ends: &Ends) -> bool {
        let is_traffic = match self.traffic {
            None => true,
            Some(Traffic::Arp) => ends.protocol.is_none(),
            Some(Traffic::Tcp) => ends.protocol == Some(6),
            Some(Traffic::Udp) => ends.protocol == Some(17),
            Some(Traffic::Sctp) => ends.protocol == Some(132),
            Some(Traffic::Icmp) => matches!(ends.protocol, Some(1 | 58)),
        };
        let has_host = |host: &IpAddr| *host == ends.from || *host == ends.to;
        let is_in = |net: &Prefix| net.contains(ends.from) || net.contains(ends.to);
        let has_port = |port: &u16| ends.ports.is_some_and(|(a, b)| *port == a || *port == b);
        is_traffic
            && self.hosts.iter().all(has_host)
            && self.nets.iter().all(is_in)
            && self.ports.iter().all(has_port)
    }
}

fn read<T: std::str::FromStr>(text: &str, right: &str) -> Result<T, String> {
    let wrong = |_| format!("{text:?} is not {right} is right");
    text.parse().map_err(wrong)
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It is not decided yet.
    Received,
    Forwarded,
    /// Made by the director, or turned into its answer.
    Answered,
    /// Given to the kernel: it is none of the director's.
    Punted,
    /// It waits for a neighbour or for its first fragment.
    Held,
    /// Taken in.
    Consumed,
    Dropped {
        reason: String,
        sentence: String,
    },
}

/// One packet of a capture, and what was decided about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Captured {
    /// Nanoseconds since the epoch, of the worker's pass in which it was captured.
    pub at_ns: u64,
    /// The core of the worker.
    pub worker: u16,
    /// Where it came from, by number among [`crate::Reply::CaptureStarted`]'s ports.
    pub from: u8,
    /// Where it leaves.
    pub to: Option<u8>,
    /// Packets that there was no room for before it.
    pub missed: u32,
    /// Of the whole packet, in bytes.
    pub length: u32,
    pub end: End,
    pub service: Option<ServiceKey>,
    pub server: Option<SocketAddr>,
    pub method: Option<ForwardMode>,
    /// Its first bytes.
    #[schemars(with = "String")]
    pub bytes: Bytes,
}

impl Captured {
    /// The decision in words, for ports of these names.
    pub fn comment(&self, ports: &[String]) -> String {
        struct Port<'n>(&'n [String], u8);
        impl fmt::Display for Port<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.get(usize::from(self.1)) {
                    Some(name) => f.write_str(name),
                    None => write!(f, "port {}", self.1),
                }
            }
        }
        let mut text = match &self.end {
            End::Received => "received".to_owned(),
            End::Forwarded => "forwarded".to_owned(),
            End::Answered => "answered".to_owned(),
            End::Punted => "punted".to_owned(),
            End::Held => "held".to_owned(),
            End::Consumed => "consumed".to_owned(),
            End::Dropped { reason, sentence } => format!("dropped: {reason} ({sentence})"),
        };
        text += &format!("; from {}", Port(ports, self.from));
        if let Some(to) = self.to {
            text += &format!(" to {}", Port(ports, to));
        }
        text += &format!("; worker {}", self.worker);
        if let Some(service) = &self.service {
            text += &format!("; service {service}");
        }
        if let Some(server) = &self.server {
            text += &format!("; server {server}");
        }
        if let Some(method) = self.method {
            text += &format!(" by {}", method.word());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PacketFilter, String> {
        PacketFilter::parse(&text.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn filters_are_read() {
        let filter = parse("tcp and host 10.0.0.2 and net 10.0.0.0/8 port 80 host ::1").unwrap();
        let expected = PacketFilter {
            traffic: Some(Traffic::Tcp),
            hosts: vec!["10.0.0.2".parse().unwrap(), "::1".parse().unwrap()],
            nets: vec!["10.0.0.0/8".parse().unwrap()],
            ports: vec![80],
            ..PacketFilter::default()
        };
        assert_eq!(filter, expected);
        assert_eq!(parse("").unwrap(), PacketFilter::default());
        for (text, error) in [
            ("host", "\"host\" wants a value, host 10.0.0.2 is right"),
            ("host ten", "\"ten\" is not an address, 10.0.0.2 is right"),
            (
                "net 10.0.0.0/33",
                "\"10.0.0.0/33\" is not a network, 10.0.0.0/8 is right",
            ),
            ("port 70000", "\"70000\" is not a port, 80 is right"),
            ("tcp and udp", "no packet is both tcp and udp"),
            ("tcp and", "\"and\" is no condition"),
            ("and tcp", "\"and\" is no condition"),
            ("or", "\"or\" is no condition"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(error), "{text}: {said}");
        }
        assert!(
            parse(&"port 1 ".repeat(17))
                .unwrap_err()
                .contains("too many")
        );
    }

    #[test]
    fn a_connection_is_chosen_by_what_it_is_on_either_side() {
        let ends = |from: &str, to: &str| {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            Ends {
                protocol: Some(6),
                from: from.ip(),
                to: to.ip(),
                ports: Some((from.port(), to.port())),
            }
        };
        let both = [
            ends("10.0.0.2:4000", "10.0.0.1:80"),
            ends("192.168.1.2:8080", "10.0.0.2:4000"),
        ];
        for (filter, chosen) in [
            ("", true),
            ("host 10.0.0.1", true),
            ("host 192.168.1.2 port 8080", true),
            ("net 192.168.0.0/16", true),
            ("tcp port 4000", true),
            ("host 10.0.0.1 port 8080", false), // neither side has both
            ("udp", false),
            ("icmp", false),
            ("arp", false),
            ("host 10.0.0.9", false),
        ] {
            let filter = parse(filter).unwrap();
            assert_eq!(filter.chooses(&[0; 60], &both), chosen, "{filter:?}");
        }
    }
}

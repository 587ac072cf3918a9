//! Connections, as they are listed, chosen and ended.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Engine, Prefix, Protocol};

/// Where a listing of connections goes on: a worker and an entry of its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cursor {
    pub worker: u16,
    pub entry: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// `None` for a persistence template of every protocol.
    pub protocol: Option<Protocol>,
    /// Of a template the masked address, with port 0.
    pub client: SocketAddr,
    /// Of a template by mark the mark in place of an address, as LVS shows it.
    pub virtual_address: SocketAddr,
    pub server: SocketAddr,
    /// What the server sees as its client, in FULLNAT.
    #[serde(default)]
    pub local: Option<SocketAddr>,
    /// LVS's name of the state, `ESTABLISHED`, `UDP`, …
    pub state: String,
    /// Until it expires.
    pub expires_ms: u64,
    pub in_packets: u32,
    pub out_packets: u32,
    /// IP bytes in both directions.
    pub bytes: u64,
    pub worker: u16,
    /// A client's tie to its server, not a connection.
    #[serde(default)]
    pub template: bool,
    /// What tied it, where an engine did.
    #[serde(default)]
    pub engine: Option<(Engine, String)>,
}

/// Chooses connections and templates: those of which all holds that is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    pub protocol: Option<Protocol>,
    pub client: Option<Side>,
    pub virtual_address: Option<Side>,
    pub server: Option<Side>,
    /// As listed, in letters of either case.
    pub state: Option<String>,
    /// Templates only, or connections only.
    pub template: Option<bool>,
}

/// Addresses and a port; every port if `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Side {
    pub network: Prefix,
    #[serde(default)]
    pub port: Option<u16>,
}

impl Side {
    fn has(self, address: SocketAddr) -> bool {
        self.network.contains(address.ip()) && self.port.is_none_or(|port| port == address.port())
    }
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let (network, port) = (Prefix::whole(address.ip()), Some(address.port()));
            return Ok(Self { network, port });
        }
        let wrong = || {
            format!(
                "{text:?} is no address or network, 10.0.0.1, 10.0.0.1:80 or 10.0.0.0/8 is right"
            )
        };
        // Behind a length a colon can only begin a port.
        let (network, port) = match text
            .split_once('/')
            .and_then(|(_, rest)| rest.split_once(':'))
        {
            Some((_, port)) => {
                let network = &text[..text.len() - port.len() - 1];
                (network, Some(port.parse().map_err(|_| wrong())?))
            }
            None => (text, None),
        };
        let network = match network.parse::<IpAddr>() {
            Ok(address) => Prefix::whole(address),
            Err(_) if network.contains('/') => network.parse()?,
            Err(_) => return Err(wrong()),
        };
        Ok(Self { network, port })
    }
}

/// `10.0.0.0/8`, `10.0.0.1:80`, `2001:db8::/32:80`; as it is read.
impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.port, self.network.only()) {
            (None, _) => self.network.fmt(f),
            (Some(port), Some(address)) => SocketAddr::new(address, port).fmt(f),
            (Some(port), None) => write!(f, "{}:{port}", self.network),
        }
    }
}

/// What a [`Filter`] looks at of a connection or a template.
#[derive(Debug, Clone, Copy)]
pub struct Traits<'a> {
    /// `None` of a template of every protocol.
    pub protocol: Option<Protocol>,
    pub client: SocketAddr,
    pub virtual_address: SocketAddr,
    pub server: SocketAddr,
    pub state: &'a str,
    pub template: bool,
}

impl Filter {
    /// Whether it chooses everything.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub fn chooses(&self, conn: &Traits) -> bool {
        let is_of = |side: Option<Side>, address| side.is_none_or(|side| side.has(address));
        let is_in = |state: &String| conn.state.eq_ignore_ascii_case(state);
        (self.protocol.is_none() || self.protocol == conn.protocol)
            && is_of(self.client, conn.client)
            && is_of(self.virtual_address, conn.virtual_address)
            && is_of(self.server, conn.server)
            && self.state.as_ref().is_none_or(is_in)
            && self.template.is_none_or(|wanted| wanted == conn.template)
    }
}

/// `tcp, client 10.0.0.0/8, state ESTABLISHED`
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |name: &str, side: Option<Side>| side.map(|side| format!("{name} {side}"));
        let words = [
            self.protocol.map(|protocol| protocol.name().to_owned()),
            side("client", self.client),
            side("virtual address", self.virtual_address),
            side("server", self.server),
            self.state.as_ref().map(|state| format!("state {state}")),
            self.template.map(|template| {
                let what = if template { "templates" } else { "connections" };
                format!("{what} only")
            }),
        ];
        let words: Vec<String> = words.into_iter().flatten().collect();
        match words.is_empty() {
            true => f.write_str("all"),
            false => f.write_str(&words.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(text: &str) -> Option<Side> {
        let side: Side = text.parse().unwrap();
        assert_eq!(side.to_string(), text);
        Some(side)
    }

    #[test]
    fn sides_are_read_as_they_are_written() {
        for text in ["10.0.0.1", "10.0.0.1:80", "10.0.0.0/8", "10.0.0.0/8:80"] {
            side(text);
        }
        for text in [
            "2001:db8::1",
            "[2001:db8::1]:80",
            "2001:db8::/32",
            "2001:db8::/32:80",
        ] {
            side(text);
        }
        for text in [
            "",
            "x",
            "10.0.0.1:",
            "10.0.0.0/33",
            "10.0.0.0/8:99999",
            "10.0.0.1/8",
            ":80",
        ] {
            assert!(text.parse::<Side>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_that_is_said_holds() {
        let conn = Traits {
            protocol: Some(Protocol::Tcp),
            client: "10.1.2.3:4000".parse().unwrap(),
            virtual_address: "192.0.2.1:80".parse().unwrap(),
            server: "10.9.0.1:8080".parse().unwrap(),
            state: "ESTABLISHED",
            template: false,
        };
        let all = Filter::default();
        assert!(all.is_all() && all.chooses(&conn));
        let chosen = Filter {
            protocol: Some(Protocol::Tcp),
            client: side("10.1.0.0/16"),
            virtual_address: side("192.0.2.1:80"),
            server: side("10.9.0.0/24:8080"),
            state: Some("established".into()),
            template: Some(false),
        };
        assert!(chosen.chooses(&conn));
        assert_eq!(
            chosen.to_string(),
            "tcp, client 10.1.0.0/16, virtual address 192.0.2.1:80, \
             server 10.9.0.0/24:8080, state established, connections only"
        );
        let not = [
            Filter {
                protocol: Some(Protocol::Udp),
                ..all.clone()
            },
            Filter {
                client: side("10.1.2.3:4001"),
                ..all.clone()
            },
            Filter {
                client: side("2001:db8::/32"),
                ..all.clone()
            },
            Filter {
                virtual_address: side("192.0.2.2"),
                ..all.clone()
            },
            Filter {
                server: side("10.9.0.1:80"),
                ..all.clone()
            },
            Filter {
                state: Some("NONE".into()),
                ..all.clone()
            },
            Filter {
                template: Some(true),
                ..all
            },
        ];
        for filter in not {
            assert!(!filter.chooses(&conn), "{filter}");
        }
    }
}

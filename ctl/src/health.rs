//! Health checks of a service's servers, as they are configured and as they come out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ServiceKey, Word};

/// The most checks that each server of a service goes through.
pub const CHECKS_MAX: usize = 8;
/// Milliseconds between two probes.
pub const INTERVAL_MS_MIN: u32 = 50;
pub const INTERVAL_MS_MAX: u32 = 24 * 3600 * 1000;
/// Milliseconds for which a probe may take.
pub const TIMEOUT_MS_MIN: u32 = 10;
pub const TIMEOUT_MS_MAX: u32 = 300_000;
/// The highest `rise`, `fall` and `retries`.
pub const RUN_MAX: u32 = 1000;
/// The highest `jitter`, in percent.
pub const JITTER_MAX: u32 = 50;

/// How the servers of a service are watched, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Health {
    /// A server is up when it passes all of them.
    pub checks: Vec<Check>,
    pub on_failure: OnFailure,
    /// With fewer servers that are up the service is not fit to be announced.
    pub min_healthy: u32,
    pub passive: Option<Passive>,
    /// The kernel's interface that has the service's address while the service is fit and the director
    /// is to have clients, so that routing daemons announce it.
    pub announce: Option<String>,
}

/// The longest name of an interface.
const INTERFACE_MAX: usize = 15;

impl Health {
    /// Why it cannot be.
    pub fn check(&self) -> Result<(), String> {
        if self.checks.len() > CHECKS_MAX {
            let n = self.checks.len();
            return Err(format!(
                "{n} checks are too many, at most {CHECKS_MAX} is right"
            ));
        }
        if let Some(name) = &self.announce
            && !is_interface(name)
        {
            return Err(format!(
                "announce {name:?} is no interface of the kernel's, \"lo\" is right"
            ));
        }
        let mut checks = self.checks.iter();
        if self.on_failure == OnFailure::Remove && checks.any(|check| check.via == Via::Method) {
            return Err(
                "a removed server is reached by no method, on_failure = \"quiesce\" goes with \
                 via = \"method\""
                    .to_owned(),
            );
        }
        self.checks.iter().try_for_each(Check::check)
    }

    /// Whether checks run programs.
    pub fn has_command(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| matches!(check.probe, Probe::Command(_)))
    }
}

fn is_interface(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_graphic() && c != '/';
    (1..=INTERFACE_MAX).contains(&name.len()) && name.chars().all(fits)
}

/// What is said of one server, beside how packets reach it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServerOptions {
    /// It takes connections only while no other server of its service does.
    pub sorry: bool,
    /// Where it is probed, if not where it is.
    pub check_address: Option<IpAddr>,
    pub check_port: Option<u16>,
}

/// What becomes of a server that is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It has weight 0: no new connections, those that it has stay.
    #[default]
    Quiesce,
    /// As a server that is deleted, until it is up again.
    Remove,
}

impl Word for OnFailure {
    const ALL: &'static [Self] = &[Self::Quiesce, Self::Remove];

    fn word(self) -> &'static str {
        match self {
            Self::Quiesce => "quiesce",
            Self::Remove => "remove",
        }
    }
}

/// What packets themselves say of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Passive {
    /// In so many seconds ...
    pub window_s: u32,
    /// ... at least so many connections are opened before anything is concluded.
    pub connections: u32,
    /// Of them so many percent without an answer, or refused by a reset, eject the server ...
    pub failed_percent: u32,
    /// ... for so many seconds, ...
    pub eject_s: u32,
    /// ... while no more than so many percent of the servers are.
    pub ejected_max_percent: u32,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            window_s: 10,
            connections: 20,
            failed_percent: 50,
            eject_s: 30,
            ejected_max_percent: 34,
        }
    }
}

/// One check: what is asked, where, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    pub probe: Probe,
    #[serde(default)]
    pub via: Via,
    /// The server's if `None`; by its method the virtual ones.
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    pub rhythm: Rhythm,
}

impl Check {
    /// Why it cannot be.
    pub fn check(&self) -> Result<(), String> {
        self.probe.check()?;
        self.rhythm.check()?;
        if self.via == Via::Method && matches!(self.probe, Probe::Icmp | Probe::Command(_)) {
            let kind = self.probe.kind();
            return Err(format!(
                "a check of type {kind:?} goes by no method, via = \"host\" is right"
            ));
        }
        Ok(())
    }

    /// Where it goes by a server's method: to the service, or what of that the service does not say.
    pub fn virtual_target(&self, service: &ServiceKey) -> Result<SocketAddr, String> {
        let why = match (service.address(), self.address, self.port) {
            (Some(vip), None, None) if vip.port() != 0 => return Ok(vip),
            (Some(vip), None, Some(port)) if vip.port() == 0 => {
                return Ok(SocketAddr::new(vip.ip(), port));
            }
            (None, Some(address), Some(port)) if address.is_ipv6() == service.is_ipv6() => {
                return Ok(SocketAddr::new(address, port));
            }
            (Some(vip), ..) if vip.port() != 0 => "goes to the service's own address and port",
            (Some(_), ..) => {
                "of a service of every port goes to its own address, and needs a port: \
                 port = 80 is right"
            }
            (None, ..) => {
                "of a service by mark needs an address of its family and a port: \
                 address = \"10.0.0.1\", port = 80 is right"
            }
        };
        Err(format!("a check with via = \"method\" {why}"))
    }
}

/// Which way a probe takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// The host's own, to the server's address.
    #[default]
    Host,
    /// A client's: to the virtual address, and from there by the server's forwarding method.
    Method,
}

impl Word for Via {
    const ALL: &'static [Self] = &[Self::Host, Self::Method];

    fn word(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Method => "method",
        }
    }
}

/// How often a probe is sent, and how many make a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Rhythm {
    pub interval_ms: u32,
    pub timeout_ms: u32,
    /// So many probes in a row that succeed bring a server up.
    pub rise: u32,
    /// So many in a row that fail take it down.
    pub fall: u32,
    /// A probe that fails is repeated up to so many times before it counts, ...
    pub retries: u32,
    /// ... each so long after the one before.
    pub retry_ms: u32,
    /// Percent by which an interval is longer or shorter, by chance.
    pub jitter: u32,
}

impl Rhythm {
    fn check(&self) -> Result<(), String> {
        let run = 1..=RUN_MAX;
        let is_right = (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&self.interval_ms)
            && (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&self.retry_ms)
            && (TIMEOUT_MS_MIN..=TIMEOUT_MS_MAX).contains(&self.timeout_ms)
            && run.contains(&self.rise)
            && run.contains(&self.fall)
            && self.retries <= RUN_MAX
            && self.jitter <= JITTER_MAX;
        (is_right.then_some(()))
            .ok_or_else(|| "a check's times or counts are out of range".to_owned())
    }
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            interval_ms: 5000,
            timeout_ms: 2000,
            rise: 2,
            fall: 3,
            retries: 0,
            retry_ms: 1000,
            jitter: 10,
        }
    }
}

/// What a server is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    Tcp(Talk),
    Udp(Talk),
    Http(Http),
    Dns(Dns),
    /// An echo request.
    Icmp,
    /// A program and its arguments: 0 is up.
    Command(Vec<String>),
}

impl Probe {
    /// Why it cannot be.
    pub fn check(&self) -> Result<(), String> {
        let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
        match self {
            Self::Tcp(_) | Self::Udp(_) | Self::Icmp => {}
            Self::Http(http) => {
                let sni = http.tls.as_ref().and_then(|tls| tls.sni.as_ref());
                let mut names = http.host.iter().chain(sni);
                if !http.path.starts_with('/') || !is_word(&http.path) {
                    let path = &http.path;
                    return Err(format!("path {path:?} is none, \"/health\" is right"));
                }
                if let Some(name) = names.find(|name| !is_word(name) || name.contains('/')) {
                    return Err(format!(
                        "host {name:?} is none, \"www.example.org\" is right"
                    ));
                }
                if !is_word(&http.method) {
                    return Err(format!(
                        "method {:?} is none, \"GET\" is right",
                        http.method
                    ));
                }
            }
            Self::Dns(dns) => {
                let labels = dns.name.trim_end_matches('.').split('.');
                let mut lengths = labels.map(str::len);
                if !is_word(&dns.name) || dns.name.len() > 253 || lengths.any(|n| n == 0 || n > 63)
                {
                    let name = &dns.name;
                    return Err(format!(
                        "name {name:?} is none, \"www.example.org\" is right"
                    ));
                }
            }
            Self::Command(words) => {
                let is_path = words
                    .first()
                    .is_some_and(|program| program.starts_with('/'));
                if !is_path || words.iter().any(|word| word.contains('\0')) {
                    return Err(
                        "a check of type \"command\" runs a program by its whole path, \
                         command = [\"/usr/local/bin/is-up\", \"--quick\"] is right"
                            .to_owned(),
                    );
                }
            }
        }
        Ok(())
    }

    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Udp(_) => "udp",
            Self::Http(Http { tls: None, .. }) => "http",
            Self::Http(Http { tls: Some(_), .. }) => "https",
            Self::Dns(_) => "dns",
            Self::Icmp => "icmp",
            Self::Command(_) => "command",
        }
    }
}

/// What is sent, and what is to be in the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Talk {
    pub send: Payload,
    /// Empty: anything, and over TCP even nothing.
    pub expect: Payload,
}

/// Bytes as text, or as `0x` and hexadecimal digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Payload(pub Vec<u8>);

impl TryFrom<String> for Payload {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("0x") else {
            return Ok(Self(text.into_bytes()));
        };
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair: &[u8]| match pair {
            [a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()
            }
            _ => None,
        };
        let bytes: Option<Vec<u8>> = pairs.map(byte).collect();
        (bytes.map(Self)).ok_or_else(|| format!("{text:?} is not hexadecimal, \"0x0a0d\" is right"))
    }
}

impl From<Payload> for String {
    fn from(payload: Payload) -> Self {
        match String::from_utf8(payload.0) {
            Ok(text) if !text.starts_with("0x") => text,
            Ok(text) => hex(text.as_bytes()),
            Err(error) => hex(error.as_bytes()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

/// A request, and what answers are right.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Http {
    pub method: String,
    pub path: String,
    /// What the request names; the address if `None`.
    pub host: Option<String>,
    pub status: StatusSet,
    /// Text somewhere in the first [`Http::BODY_MAX`] bytes of the body; empty: anything.
    pub body: String,
    /// Over TLS.
    pub tls: Option<Tls>,
}

impl Http {
    /// How much of a body is looked at.
    pub const BODY_MAX: usize = 64 << 10;
}

impl Default for Http {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            status: StatusSet::default(),
            body: String::new(),
            tls: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tls {
    /// The name that is asked for; `host` if `None`.
    pub sni: Option<String>,
    /// Whether the certificate must be valid for that name.
    pub verify: bool,
    /// Certificates of who may have signed it; the system's if `None`.
    pub ca_file: Option<String>,
}

/// HTTP's status codes: `200-299,304`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    pub fn contains(&self, status: u16) -> bool {
        let mut ranges = self.0.iter();
        ranges.any(|(low, high)| (*low..=*high).contains(&status))
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        Self(vec![(200, 399)])
    }
}

impl TryFrom<String> for StatusSet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let range = |word: &str| {
            let (low, high) = word.split_once('-').unwrap_or((word, word));
            let (low, high): (u16, u16) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
            (100 <= low && low <= high && high <= 599).then_some((low, high))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        (ranges.map(Self))
            .ok_or_else(|| format!("status {text:?} is none, \"200-299,304\" is right"))
    }
}

impl From<StatusSet> for String {
    fn from(set: StatusSet) -> Self {
        set.to_string()
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (low, high)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if low == high {
                write!(f, "{comma}{low}")?;
            } else {
                write!(f, "{comma}{low}-{high}")?;
            }
        }
        Ok(())
    }
}

/// A question, and what answers are right.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Dns {
    pub name: String,
    pub record: DnsRecord,
    pub rcode: Rcode,
    /// What one of the records must say: an address, a name, a text.
    pub answer: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecord {
    #[default]
    A,
    Aaaa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl Word for DnsRecord {
    const ALL: &'static [Self] = &[
        Self::A,
        Self::Aaaa,
        Self::Cname,
        Self::Mx,
        Self::Ns,
        Self::Ptr,
        Self::Soa,
        Self::Srv,
        Self::Txt,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Soa => "SOA",
            Self::Srv => "SRV",
            Self::Txt => "TXT",
        }
    }
}

/// DNS's response codes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Rcode {
    #[default]
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
}

impl Rcode {
    pub const fn number(self) -> u16 {
        self as u16
    }
}

impl Word for Rcode {
    const ALL: &'static [Self] = &[
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
        }
    }
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fitness {
    /// Nothing yet: it is treated as one that is up.
    #[default]
    Unknown,
    /// It passes.
    Up,
    /// It fails.
    Down,
}

impl Fitness {
    /// If that is known.
    pub const fn is_up(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Up => Some(true),
            Self::Down => Some(false),
        }
    }
}

impl Word for Fitness {
    const ALL: &'static [Self] = &[Self::Unknown, Self::Up, Self::Down];

    fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What a service's checks have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceHealth {
    /// Servers that are known to be up.
    pub up: u32,
    pub min_healthy: u32,
}

impl ServiceHealth {
    /// Whether so many are up as are needed.
    pub const fn is_enough(&self) -> bool {
        self.up >= self.min_healthy
    }
}

/// What a server's checks have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerHealth {
    pub fitness: Fitness,
    /// Packets themselves told that it fails.
    pub ejected: bool,
    /// It is kept for when no other server is left.
    pub standing_by: bool,
    /// The workers do not know it: it was down, and was removed.
    pub removed: bool,
}

impl ServerHealth {
    /// Whether it gets no connections, whatever its weight.
    pub const fn is_withheld(&self) -> bool {
        matches!(self.fitness, Fitness::Down) || self.ejected || self.standing_by
    }

    /// In a word.
    pub const fn word(&self) -> &'static str {
        match (self.fitness, self.ejected, self.standing_by) {
            (Fitness::Down, ..) => "down",
            (_, true, _) => "ejected",
            (_, _, true) => "standby",
            (Fitness::Up, ..) => "up",
            (Fitness::Unknown, ..) => "unknown",
        }
    }
}

/// One check of one server, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    pub service: ServiceKey,
    pub server: SocketAddr,
    /// `http 10.0.0.1:80`; `traffic` for what packets themselves say.
    pub check: String,
    pub fitness: Fitness,
    /// Seconds for which it has been so.
    pub since_s: u64,
    /// What the last probe came to; empty before the first one.
    pub last: String,
    /// How long that took.
    pub latency_us: Option<u64>,
    pub probes: u64,
    pub failures: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_or_hexadecimal() {
        let read = |text: &str| Payload::try_from(text.to_owned()).map(|payload| payload.0);
        assert_eq!(read("PING\r\n").unwrap(), b"PING\r\n");
        assert_eq!(read("0x00ff").unwrap(), [0, 255]);
        assert!(read("0x").unwrap().is_empty());
        for wrong in ["0x0", "0xgg", "0x+1", "0x\u{e9}"] {
            read(wrong).unwrap_err();
        }
        for bytes in [&b""[..], b"PING", b"0x00", &[0xff, 0], "\u{e9}".as_bytes()] {
            assert_eq!(read(&String::from(Payload(bytes.to_vec()))).unwrap(), bytes);
        }
    }

    #[test]
    fn status_codes_are_ranges() {
        let read = |text: &str| StatusSet::try_from(text.to_owned());
        let set = read("200-299, 304").unwrap();
        assert_eq!(set.to_string(), "200-299,304");
        let has: Vec<u16> = (100..600).filter(|status| set.contains(*status)).collect();
        assert_eq!(has, (200..300).chain([304]).collect::<Vec<u16>>());
        for wrong in ["", "2xx", "300-200", "99", "600", "200,"] {
            read(wrong).unwrap_err();
        }
    }
}

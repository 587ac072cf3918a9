//! What a configuration file says of everything that may change while a director runs, key by key;
//! and as TOML, the way a person would write it: a key that has its default is left out.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Check, ForwardMode, Health, MarkRule, Network, Passive, Probe, Protocol, Rhythm, SETTINGS,
    SchedulerFlags, ServerOptions, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec,
    ServiceTimeouts, Settings, SyncDaemon, Talk, Thresholds, Tunnel, TunnelKind, Via, Word,
};

/// Everything that may change while a director runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conf {
    /// A file says it of its ports, which [`Self::toml`] leaves to who knows them.
    #[serde(default)]
    pub network: Network,
    pub timeouts: TimeoutsConf,
    pub settings: Settings,
    /// In the order in which they are tried.
    pub marks: Vec<MarkRule>,
    /// The master first.
    #[serde(default)]
    pub sync: Vec<SyncDaemon>,
    /// In the order in which they are added: the oldest is first.
    pub services: Vec<ServiceConf>,
}

/// `[timeouts]`, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeoutsConf {
    pub tcp: u32,
    pub tcp_fin: u32,
    pub udp: u32,
}

impl Default for TimeoutsConf {
    /// LVS's.
    fn default() -> Self {
        Self {
            tcp: 900,
            tcp_fin: 120,
            udp: 300,
        }
    }
}

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceConf {
    pub key: ServiceKey,
    pub spec: ServiceSpec,
    pub options: ServiceOptions,
    /// In the order in which they are added.
    pub local_addresses: Vec<IpAddr>,
    #[serde(default)]
    pub health: Health,
    /// In the order in which they are added: the last one is the first to be chosen.
    pub servers: Vec<ServerConf>,
}

impl ServiceConf {
    /// With nothing but a key and a spec.
    pub fn new(key: ServiceKey, spec: ServiceSpec) -> Self {
        Self {
            key,
            spec,
            options: ServiceOptions::default(),
            local_addresses: Vec::new(),
            health: Health::default(),
            servers: Vec::new(),
        }
    }
}

/// `[[service.server]]`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerConf {
    pub address: SocketAddr,
    pub spec: ServerSpec,
    #[serde(default)]
    pub options: ServerOptions,
}

/// One key of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: &'static str,
    /// As TOML has it; [`UNSET`] where the default has no value.
    pub value: String,
    /// What it is when it is left out.
    pub is_default: bool,
}

/// A name that every scheduler's third flag has.
const THIRD: &str = "flag-3";
/// Keys of a service that are tables of their own in a file.
const TABLES: [&str; 2] = ["check", "passive"];
/// Stands for a value that there is none of.
pub const UNSET: &str = "unset";

impl Key {
    /// `value` and `default` as TOML has them.
    pub fn new(name: &'static str, value: impl ToString, default: impl ToString) -> Self {
        let value = value.to_string();
        let is_default = value == default.to_string();
        Self {
            name,
            value,
            is_default,
        }
    }

    /// One without a default.
    pub fn needed(name: &'static str, value: impl ToString) -> Self {
        Self {
            name,
            value: value.to_string(),
            is_default: false,
        }
    }

    /// One that there may be none of.
    pub fn perhaps(name: &'static str, value: Option<impl ToString>) -> Self {
        let value = value.map_or(UNSET.to_owned(), |value| value.to_string());
        Self::new(name, value, UNSET)
    }

    /// One of the words of a choice.
    pub fn word<T: Word>(name: &'static str, value: T, default: T) -> Self {
        Self::new(name, quoted(value.word()), quoted(default.word()))
    }
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A TOML array of what is TOML already.
pub fn array(values: impl IntoIterator<Item = impl ToString>) -> String {
    let values = values.into_iter().map(|value| value.to_string());
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

/// A section, with a blank line in front of it unless it is the first: nothing if every key has its
/// default and `header` is a table's.
pub fn section(out: &mut String, header: &str, keys: &[Key]) {
    let mut said = keys.iter().filter(|key| !key.is_default).peekable();
    if said.peek().is_none() && !header.starts_with("[[") {
        return;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str(header);
    out.push('\n');
    for Key { name, value, .. } in said {
        // Nothing fails that writes into a string.
        let _ = writeln!(out, "{name} = {value}");
    }
}

impl TimeoutsConf {
    pub fn keys(self) -> Vec<Key> {
        let Self { tcp, tcp_fin, udp } = Self::default();
        vec![
            Key::new("tcp", self.tcp, tcp),
            Key::new("tcp_fin", self.tcp_fin, tcp_fin),
            Key::new("udp", self.udp, udp),
        ]
    }
}

impl Settings {
    pub fn keys(self) -> Vec<Key> {
        let key = |setting: &crate::Setting| {
            let default = setting.of(Self::default());
            Key::new(setting.name, setting.of(self), default)
        };
        SETTINGS.iter().map(key).collect()
    }
}

impl MarkRule {
    pub fn keys(&self) -> Vec<Key> {
        let shown = |value: Option<String>| value.map(|value| quoted(&value));
        let ports = |ports: Option<crate::Ports>| {
            ports.map(|ports| match ports.only() {
                Some(port) => port.to_string(),
                None => quoted(&ports.to_string()),
            })
        };
        vec![
            Key::needed("mark", self.mark),
            Key::perhaps("source", shown(self.source.map(String::from))),
            Key::perhaps("destination", shown(self.destination.map(String::from))),
            Key::perhaps(
                "protocol",
                self.protocol.map(|protocol| quoted(protocol.word())),
            ),
            Key::perhaps("source_ports", ports(self.source_ports)),
            Key::perhaps("ports", ports(self.ports)),
            Key::perhaps("in_port", shown(self.in_port.clone())),
            Key::perhaps("vlan", self.vlan),
        ]
    }
}

impl ServiceConf {
    /// What it is, which no edit changes.
    fn identity(&self) -> Vec<Key> {
        match self.key {
            ServiceKey::Address { protocol, address } => vec![
                Key::needed("protocol", quoted(Protocol::word(protocol))),
                Key::needed("address", quoted(&address.to_string())),
            ],
            ServiceKey::Mark { mark, ipv6 } => {
                let family = if ipv6 { "ipv6" } else { "ipv4" };
                vec![
                    Key::needed("mark", mark),
                    Key::new("family", quoted(family), quoted("ipv4")),
                ]
            }
        }
    }

    /// Its own, what it is not among them.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = self.policy();
        keys.extend(self.choices());
        let locals = self.local_addresses.iter();
        let locals = locals.map(|address| quoted(&address.to_string()));
        keys.push(Key::new("local_addresses", array(locals), "[]"));
        keys.extend(self.health.keys());
        keys
    }

    fn policy(&self) -> Vec<Key> {
        let ServiceSpec {
            scheduler,
            flags,
            persistence,
            engine,
            one_packet,
        } = &self.spec;
        let names = |flags: SchedulerFlags| {
            let names = flags.names(scheduler).into_iter();
            // A scheduler with names of its own has none for the third.
            let third = flags.third && !names.as_slice().contains(&THIRD);
            array(names.chain(third.then_some(THIRD)).map(quoted))
        };
        let netmask = persistence.map(|persistence| persistence.netmask);
        let netmask = netmask.filter(|mask| !mask.is_whole());
        let netmask = netmask.map(|mask| match mask {
            crate::Netmask::V4(mask) => quoted(&mask.to_string()),
            crate::Netmask::V6(prefix) => prefix.to_string(),
        });
        let seconds = persistence.map(|persistence| persistence.timeout_s);
        vec![
            Key::new("scheduler", quoted(scheduler), quoted("wlc")),
            Key::new(
                "scheduler_flags",
                names(*flags),
                names(SchedulerFlags::usual(scheduler)),
            ),
            Key::perhaps("persistent", seconds),
            Key::perhaps("netmask", netmask),
            Key::perhaps("engine", engine.map(|engine| quoted(engine.word()))),
            Key::new("one_packet", one_packet, false),
        ]
    }

    fn choices(&self) -> Vec<Key> {
        let ServiceOptions {
            client_address,
            mss,
            mh_table_size,
            timeouts: ServiceTimeouts { tcp, tcp_fin, udp },
            refuse,
            on_server_gone,
            reset_on_expiry,
            slow_start_s,
            hash_target,
        } = self.options;
        let default = ServiceOptions::default();
        vec![
            Key::word("client_address", client_address, default.client_address),
            Key::perhaps("mss", mss),
            // Unset and LVS's are two ways to say one thing, and both come back as they were.
            Key::perhaps("mh_table_size", mh_table_size),
            Key::perhaps("timeout_tcp", tcp),
            Key::perhaps("timeout_tcp_fin", tcp_fin),
            Key::perhaps("timeout_udp", udp),
            Key::word("refuse", refuse, default.refuse),
            Key::word("on_server_gone", on_server_gone, default.on_server_gone),
            Key::new("reset_on_expiry", reset_on_expiry, default.reset_on_expiry),
            Key::new("slow_start", slow_start_s, default.slow_start_s),
            Key::word("hash_target", hash_target, default.hash_target),
        ]
    }

    /// Its sections, with its servers'.
    pub fn toml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let mut keys = self.identity();
        // Those that are tables stand behind.
        keys.extend(
            self.keys()
                .into_iter()
                .filter(|key| !TABLES.contains(&key.name)),
        );
        section(out, "[[service]]", &keys);
        for check in &self.health.checks {
            section(out, "[[service.check]]", &check.keys());
        }
        if let Some(passive) = &self.health.passive {
            section(out, "[service.passive]", &passive.keys());
        }
        for server in &self.servers {
            let mut keys = vec![Key::needed("address", quoted(&server.address.to_string()))];
            keys.extend(server.keys());
            section(out, "[[service.server]]", &keys);
        }
    }
}

impl Health {
    fn keys(&self) -> Vec<Key> {
        let checks = self.checks.iter().map(|check| inline(&check.keys()));
        let passive = self.passive.map(|passive| inline(&passive.keys()));
        let default = Self::default();
        let announce = self.announce.as_deref().map(quoted);
        vec![
            Key::word("on_failure", self.on_failure, default.on_failure),
            Key::new("min_healthy", self.min_healthy, default.min_healthy),
            Key::perhaps("announce", announce),
            Key::new(TABLES[0], array(checks), "[]"),
            Key::perhaps(TABLES[1], passive),
        ]
    }
}

impl Check {
    pub fn keys(&self) -> Vec<Key> {
        let address = self.address.map(|address| quoted(&address.to_string()));
        let mut keys = vec![Key::needed("type", quoted(self.probe.kind()))];
        keys.extend(self.probe.keys());
        keys.push(Key::word("via", self.via, Via::Host));
        keys.push(Key::perhaps("address", address));
        keys.push(Key::perhaps("port", self.port));
        keys.extend(self.rhythm.keys());
        keys
    }
}

impl Probe {
    /// Those of its kind.
    fn keys(&self) -> Vec<Key> {
        let text = |name, text: &str, default: &str| Key::new(name, quoted(text), quoted(default));
        let perhaps = |name, text: &Option<String>| Key::perhaps(name, text.as_deref().map(quoted));
        match self {
            Self::Tcp(Talk { send, expect }) | Self::Udp(Talk { send, expect }) => vec![
                text("send", &String::from(send.clone()), ""),
                text("expect", &String::from(expect.clone()), ""),
            ],
            Self::Http(http) => {
                let default = crate::Http::default();
                let status = default.status.to_string();
                let mut keys = vec![
                    text("method", &http.method, &default.method),
                    text("path", &http.path, &default.path),
                    perhaps("host", &http.host),
                    text("status", &http.status.to_string(), &status),
                    text("body", &http.body, ""),
                ];
                if let Some(tls) = &http.tls {
                    keys.push(perhaps("sni", &tls.sni));
                    keys.push(Key::new("verify", tls.verify, false));
                    keys.push(perhaps("ca_file", &tls.ca_file));
                }
                keys
            }
            Self::Dns(dns) => vec![
                Key::needed("name", quoted(&dns.name)),
                Key::word("record", dns.record, crate::DnsRecord::A),
                Key::word("rcode", dns.rcode, crate::Rcode::NoError),
                perhaps("answer", &dns.answer),
            ],
            Self::Icmp => Vec::new(),
            Self::Command(words) => {
                let words = words.iter().map(|word| quoted(word));
                vec![Key::needed("command", array(words))]
            }
        }
    }
}

impl Rhythm {
    fn keys(&self) -> Vec<Key> {
        let default = Self::default();
        vec![
            Key::new("interval_ms", self.interval_ms, default.interval_ms),
            Key::new("timeout_ms", self.timeout_ms, default.timeout_ms),
            Key::new("rise", self.rise, default.rise),
            Key::new("fall", self.fall, default.fall),
            Key::new("retries", self.retries, default.retries),
            Key::new("retry_ms", self.retry_ms, default.retry_ms),
            Key::new("jitter", self.jitter, default.jitter),
        ]
    }
}

impl Passive {
    /// All of them, so that a table that is there is seen.
    pub fn keys(&self) -> Vec<Key> {
        vec![
            Key::needed("window_s", self.window_s),
            Key::needed("connections", self.connections),
            Key::needed("failed_percent", self.failed_percent),
            Key::needed("eject_s", self.eject_s),
            Key::needed("ejected_max_percent", self.ejected_max_percent),
        ]
    }
}

/// Keys that are not their defaults: `sorry = true, check_port = 80`
fn said(keys: &[Key]) -> String {
    let said = keys.iter().filter(|key| !key.is_default);
    let said = said.map(|Key { name, value, .. }| format!("{name} = {value}"));
    said.collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = said(&self.keys());
        f.write_str(if words.is_empty() { "none" } else { &words })
    }
}

impl fmt::Display for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = said(&self.keys());
        f.write_str(if words.is_empty() { "none" } else { &words })
    }
}

impl ServerOptions {
    fn keys(self) -> Vec<Key> {
        let Self {
            sorry,
            check_address,
            check_port,
        } = self;
        let address = check_address.map(|address| quoted(&address.to_string()));
        vec![
            Key::new("sorry", sorry, false),
            Key::perhaps("check_address", address),
            Key::perhaps("check_port", check_port),
        ]
    }
}

/// `{ type = "tcp", port = 80 }`
fn inline(keys: &[Key]) -> String {
    format!("{{ {} }}", said(keys))
}

impl ServerConf {
    /// With nothing but an address and a spec.
    pub fn new(address: SocketAddr, spec: ServerSpec) -> Self {
        Self {
            address,
            spec,
            options: ServerOptions::default(),
        }
    }

    /// All but its address.
    pub fn keys(&self) -> Vec<Key> {
        let ServerSpec {
            mode,
            weight,
            tunnel,
            thresholds: Thresholds { upper, lower },
        } = self.spec;
        let port = (tunnel.kind == TunnelKind::Gue).then_some(tunnel.port);
        let Tunnel { kind, checksum, .. } = Tunnel::default();
        let mut keys = vec![
            Key::word("method", mode, ForwardMode::Nat),
            Key::word("tunnel", tunnel.kind, kind),
            Key::perhaps("tunnel_port", port),
            Key::word("tunnel_checksum", tunnel.checksum, checksum),
            Key::new("weight", weight, 1),
            Key::new("upper_threshold", upper, 0),
            Key::new("lower_threshold", lower, 0),
        ];
        keys.extend(self.options.keys());
        keys
    }
}

impl Conf {
    /// What a file says of it.
    pub fn toml(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// As [`Self::toml`], behind what is in `out`.
    pub fn write(&self, out: &mut String) {
        section(out, "[timeouts]", &self.timeouts.keys());
        section(out, "[settings]", &self.settings.keys());
        for daemon in &self.sync {
            section(out, "[[sync]]", &daemon.keys());
        }
        for rule in &self.marks {
            section(out, "[[mark]]", &rule.keys());
        }
        for service in &self.services {
            service.write(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientAddress, MH_TABLE_SIZE, Netmask, Persistence, TunnelChecksum};

    fn key(text: &str) -> ServiceKey {
        ServiceKey::at(Protocol::Tcp, text.parse().unwrap())
    }

    fn server(address: &str, mode: ForwardMode, weight: u32) -> ServerConf {
        let spec = ServerSpec {
            mode,
            weight,
            tunnel: Tunnel::default(),
            thresholds: Thresholds::default(),
        };
        ServerConf::new(address.parse().unwrap(), spec)
    }

    #[test]
    fn a_service_reads_as_a_person_would_write_it() {
        let mut service = ServiceConf::new(key("10.0.0.100:80"), ServiceSpec::new("wrr"));
        service.servers = vec![
            server("192.168.1.1:80", ForwardMode::Nat, 1),
            server("192.168.1.2:80", ForwardMode::Nat, 3),
        ];
        assert_eq!(
            service.toml(),
            "\
[[service]]
protocol = \"tcp\"
address = \"10.0.0.100:80\"
scheduler = \"wrr\"

[[service.server]]
address = \"192.168.1.1:80\"

[[service.server]]
address = \"192.168.1.2:80\"
weight = 3
"
        );
    }

    #[test]
    fn only_what_is_not_the_default_is_said() {
        assert_eq!(Conf::default().toml(), "");
        let mut spec = ServiceSpec::new("sh");
        spec.flags.third = true;
        spec.persistence = Some(Persistence {
            timeout_s: 60,
            netmask: Netmask::V6(64),
        });
        let mark = ServiceKey::Mark {
            mark: std::num::NonZeroU32::new(7).unwrap(),
            ipv6: true,
        };
        let mut service = ServiceConf::new(mark, spec);
        service.options.client_address = ClientAddress::ProxyV2;
        service.options.mh_table_size = Some(MH_TABLE_SIZE);
        service.local_addresses = vec![[10, 0, 0, 5].into()];
        let mut gue = server("[2001:db8::1]:80", ForwardMode::Tunnel, 0);
        gue.spec.tunnel = Tunnel {
            kind: TunnelKind::Gue,
            port: 6080,
            checksum: TunnelChecksum::Full,
        };
        service.servers = vec![gue];
        let conf = Conf {
            network: Network::default(),
            timeouts: TimeoutsConf {
                udp: 10,
                ..TimeoutsConf::default()
            },
            settings: Settings {
                pmtu_disc: false,
                ..Settings::default()
            },
            sync: Vec::new(),
            marks: vec![MarkRule {
                ports: Some("8000-8010".parse().unwrap()),
                in_port: Some("wan".to_owned()),
                ..MarkRule::new(7)
            }],
            services: vec![service],
        };
        assert_eq!(
            conf.toml(),
            "\
[timeouts]
udp = 10

[settings]
pmtu_disc = false

[[mark]]
mark = 7
ports = \"8000-8010\"
in_port = \"wan\"

[[service]]
mark = 7
family = \"ipv6\"
scheduler = \"sh\"
scheduler_flags = [\"flag-3\"]
persistent = 60
netmask = 64
client_address = \"proxy-v2\"
mh_table_size = 4093
local_addresses = [\"10.0.0.5\"]

[[service.server]]
address = \"[2001:db8::1]:80\"
method = \"tunnel\"
tunnel = \"gue\"
tunnel_port = 6080
tunnel_checksum = \"full\"
weight = 0
"
        );
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\u{7f}"), "\"a\\\"b\\\\c\\u000A\\u007F\"");
    }
}

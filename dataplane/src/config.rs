//! The TOML file, validated: the only place that reads it. `configs/example.toml` explains each key.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use control::{Change, ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceSpec};
use serde::Deserialize;
use toml::Spanned;

use crate::conn::Timeouts;
use crate::conn::state::State;
use crate::control::model::{Limits, Model, TIMEOUT_MAX_S};
use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour, is_station};
use crate::packet::{PORTS_MAX, PortId};
use crate::update::SERVERS_MAX;

/// What the file says, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    pub director: Director,
    pub eal: Eal,
    /// The index is the port's id.
    pub ports: Vec<PortConf>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<StaticNeighbour>,
    pub timeouts: Timeouts,
    /// The file's timeouts and services, to be applied at start. A model accepted them.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Director {
    pub socket: PathBuf,
    /// Cores, one worker each.
    pub workers: Vec<u16>,
    pub control_core: u16,
    pub idle: Idle,
    /// Per worker.
    pub max_connections: u32,
    pub max_services: u32,
    pub max_servers: u32,
    pub log: tracing::Level,
}

impl Director {
    pub fn limits(&self) -> Limits {
        Limits {
            services_max: self.max_services as usize,
            servers_max: self.max_servers as usize,
        }
    }
}

impl Default for Director {
    fn default() -> Self {
        Self {
            socket: control::DEFAULT_SOCKET.into(),
            workers: vec![1],
            control_core: 0,
            idle: Idle::Backoff,
            max_connections: 262_144,
            max_services: 4096,
            max_servers: 16_384,
            log: tracing::Level::INFO,
        }
    }
}

/// What a worker does while no packet comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// Pauses, then sleeps for microseconds.
    Backoff,
    /// Keeps polling.
    Poll,
}

/// What the EAL is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eal {
    pub huge_pages: bool,
    /// Used without huge pages.
    pub memory_mb: u32,
    pub file_prefix: String,
    pub single_file_segments: bool,
    /// Further arguments, as they stand.
    pub extra: Vec<String>,
    /// Per worker.
    pub mbufs: u32,
}

impl Default for Eal {
    fn default() -> Self {
        Self {
            huge_pages: false,
            memory_mb: 512,
            file_prefix: "director".to_owned(),
            single_file_segments: false,
            extra: Vec::new(),
            mbufs: 16_384,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConf {
    pub name: String,
    /// A virtual device with its arguments, or a PCI address.
    pub device: String,
    pub mtu: u16,
    pub promiscuous: bool,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    /// Of the untagged interface.
    pub addresses: Vec<Prefix>,
    pub vlans: Vec<(u16, Vec<Prefix>)>,
}

impl PortConf {
    /// Whether [`PortConf::device`] is a virtual device rather than a PCI address.
    pub fn is_virtual(&self) -> bool {
        self.device.starts_with(VDEV_PREFIX)
    }
}

/// Why a file was not accepted, in one line: file, line, reason and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: cannot be read: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("{file}:{line}: {reason}")]
    Wrong {
        file: String,
        line: usize,
        reason: String,
    },
}

const VDEV_PREFIX: &str = "net_";
/// RTE_MAX_LCORE of widespread builds is lower, but none has more cores than this.
const CORE_MAX: i64 = 1023;
/// `sun_path` less its final zero.
const SOCKET_PATH_MAX: usize = 107;
const LOG_LEVELS: &str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

// The file as it is written. Every value keeps its place in the text for the messages.

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    director: RawDirector,
    #[serde(default)]
    eal: RawEal,
    #[serde(default)]
    port: Vec<RawPort>,
    #[serde(default)]
    route: Vec<RawRoute>,
    #[serde(default)]
    neighbour: Vec<RawNeighbour>,
    #[serde(default)]
    timeouts: RawTimeouts,
    #[serde(default)]
    service: Vec<RawService>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawDirector {
    socket: Option<Spanned<String>>,
    workers: Option<Spanned<Vec<Spanned<i64>>>>,
    control_core: Option<Spanned<i64>>,
    idle: Option<Idle>,
    max_connections: Option<Spanned<i64>>,
    max_services: Option<Spanned<i64>>,
    max_servers: Option<Spanned<i64>>,
    log: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawEal {
    huge_pages: Option<bool>,
    memory_mb: Option<Spanned<i64>>,
    file_prefix: Option<Spanned<String>>,
    single_file_segments: Option<bool>,
    extra: Vec<String>,
    mbufs: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    name: Spanned<String>,
    device: Spanned<String>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    mtu: Option<Spanned<i64>>,
    #[serde(default)]
    promiscuous: bool,
    rx_descriptors: Option<Spanned<i64>>,
    tx_descriptors: Option<Spanned<i64>>,
    #[serde(default)]
    vlan: Vec<RawVlan>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVlan {
    id: Spanned<i64>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    to: Spanned<String>,
    via: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNeighbour {
    address: Spanned<String>,
    mac: Spanned<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawTimeouts {
    tcp: Option<Spanned<i64>>,
    tcp_fin: Option<Spanned<i64>>,
    udp: Option<Spanned<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawService {
    protocol: Spanned<String>,
    address: Spanned<String>,
    scheduler: Option<Spanned<String>>,
    #[serde(default)]
    server: Vec<RawServer>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    address: Spanned<String>,
    method: Option<Spanned<String>>,
    weight: Option<Spanned<i64>>,
}

impl Config {
    /// The interfaces, routes and neighbours of the file; `mac` tells each port's Ethernet address.
    pub fn setup(&self, mac: impl Fn(PortId) -> [u8; 6]) -> Setup {
        let mut interfaces = Vec::new();
        for (port, conf) in (0..).map(PortId).zip(&self.ports) {
            let tagged = conf
                .vlans
                .iter()
                .map(|(id, addresses)| (Some(*id), addresses));
            for (vlan, addresses) in std::iter::once((None, &conf.addresses)).chain(tagged) {
                let (mac, mtu) = (mac(port), conf.mtu);
                interfaces.push(Interface {
                    port,
                    vlan,
                    mac,
                    mtu,
                    addresses: addresses.clone(),
                });
            }
        }
        Setup {
            interfaces,
            routes: self.routes.clone(),
            neighbours: self.neighbours.clone(),
        }
    }

    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &file),
            Err(error) => Err(ConfigError::Unreadable {
                file,
                reason: error.to_string(),
            }),
        }
    }

    /// Reads `text`; `file` is what messages call it.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let reader = Reader { text, file };
        let raw: File = toml::from_str(text).map_err(|error| reader.syntax(&error))?;
        let director = reader.director(&raw.director)?;
        let ports = reader.ports(&raw.port)?;
        let eal = reader.eal(&raw.eal, &ports)?;
        let mut connected = Connected::default();
        for (raw, port) in raw.port.iter().zip(&ports) {
            reader.connect(&mut connected, raw, port)?;
        }
        let routes = reader.routes(&raw.route, &connected)?;
        let neighbours = reader.neighbours(&raw.neighbour, &connected)?;
        let (timeouts, set) = reader.timeouts(&raw.timeouts)?;
        let mut changes = reader.services(&raw.service, director.limits())?;
        changes.insert(0, set);
        Ok(Self {
            director,
            eal,
            ports,
            routes,
            neighbours,
            timeouts,
            changes,
        })
    }
}

/// The interfaces' addresses, for what must be reachable through them.
#[derive(Debug, Default)]
struct Connected {
    addresses: HashSet<Ipv4Addr>,
    networks: Vec<Prefix>,
}

impl Connected {
    /// Whether another station may be there under `address`.
    fn reaches(&self, address: Ipv4Addr) -> bool {
        !self.addresses.contains(&address)
            && self
                .networks
                .iter()
                .any(|network| network.contains(address))
    }
}

/// Knows where in which file a value stands.
struct Reader<'t> {
    text: &'t str,
    file: &'t str,
}

type Checked<T> = Result<T, ConfigError>;

impl Reader<'_> {
    fn wrong(&self, at: Range<usize>, reason: impl Into<String>) -> ConfigError {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        ConfigError::Wrong {
            file: self.file.to_owned(),
            line,
            reason: reason.into(),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let reason = error.message().lines().collect::<Vec<_>>().join(", ");
        self.wrong(error.span().unwrap_or(0..0), reason)
    }

    /// `value`, or `default` where the file says nothing.
    fn number<T: TryFrom<i64>>(
        &self,
        key: &str,
        value: Option<&Spanned<i64>>,
        default: T,
        range: RangeInclusive<i64>,
    ) -> Checked<T> {
        let Some(value) = value else {
            return Ok(default);
        };
        let number = *value.get_ref();
        (range
            .contains(&number)
            .then(|| T::try_from(number).ok())
            .flatten())
        .ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            self.wrong(
                value.span(),
                format!("{key} = {number} is out of range, {low} to {high} is right"),
            )
        })
    }

    fn director(&self, raw: &RawDirector) -> Checked<Director> {
        let default = Director::default();
        Ok(Director {
            socket: self.socket(raw.socket.as_ref(), default.socket)?,
            workers: self.workers(raw.workers.as_ref(), default.workers)?,
            control_core: self.number(
                "control_core",
                raw.control_core.as_ref(),
                default.control_core,
                0..=CORE_MAX,
            )?,
            idle: raw.idle.unwrap_or(default.idle),
            max_connections: self.number(
                "max_connections",
                raw.max_connections.as_ref(),
                default.max_connections,
                64..=1 << 30,
            )?,
            max_services: self.number(
                "max_services",
                raw.max_services.as_ref(),
                default.max_services,
                1..=1 << 20,
            )?,
            max_servers: self.number(
                "max_servers",
                raw.max_servers.as_ref(),
                default.max_servers,
                1..=i64::from(SERVERS_MAX),
            )?,
            log: self.log(raw.log.as_ref(), default.log)?,
        })
    }

    fn socket(&self, raw: Option<&Spanned<String>>, default: PathBuf) -> Checked<PathBuf> {
        let Some(raw) = raw else { return Ok(default) };
        let path = raw.get_ref();
        if !path.starts_with('/') || path.ends_with('/') || path.len() > SOCKET_PATH_MAX {
            let reason = format!(
                "socket {path:?} cannot be one, an absolute path of at most {SOCKET_PATH_MAX} bytes like {:?} is right",
                control::DEFAULT_SOCKET
            );
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(path.into())
    }

    fn workers(
        &self,
        raw: Option<&Spanned<Vec<Spanned<i64>>>>,
        default: Vec<u16>,
    ) -> Checked<Vec<u16>> {
        let Some(raw) = raw else { return Ok(default) };
        let mut cores = Vec::new();
        for core in raw.get_ref() {
            let number = self.number("worker core", Some(core), 0, 0..=CORE_MAX)?;
            if cores.contains(&number) {
                return Err(self.wrong(
                    core.span(),
                    format!("core {number} has a worker already, name each core once"),
                ));
            }
            cores.push(number);
        }
        if cores.is_empty() {
            return Err(self.wrong(
                raw.span(),
                "workers is empty, at least one core like [1] is right",
            ));
        }
        Ok(cores)
    }

    fn log(
        &self,
        raw: Option<&Spanned<String>>,
        default: tracing::Level,
    ) -> Checked<tracing::Level> {
        let Some(raw) = raw else { return Ok(default) };
        match raw.get_ref().as_str() {
            "error" => Ok(tracing::Level::ERROR),
            "warn" => Ok(tracing::Level::WARN),
            "info" => Ok(tracing::Level::INFO),
            "debug" => Ok(tracing::Level::DEBUG),
            "trace" => Ok(tracing::Level::TRACE),
            other => Err(self.wrong(
                raw.span(),
                format!("log level {other:?} is unknown, {LOG_LEVELS} is right"),
            )),
        }
    }

    fn eal(&self, raw: &RawEal, ports: &[PortConf]) -> Checked<Eal> {
        let default = Eal::default();
        let mbufs = self.number("mbufs", raw.mbufs.as_ref(), default.mbufs, 512..=1 << 24)?;
        // Queues that swallow every buffer leave none to receive into.
        let queued: u32 = ports
            .iter()
            .map(|port| u32::from(port.rx_descriptors) + u32::from(port.tx_descriptors))
            .sum();
        if mbufs <= queued {
            let reason = format!(
                "mbufs = {mbufs} is too few for descriptors of {queued} packets, more than that is right"
            );
            return Err(self.wrong(raw.mbufs.as_ref().map_or(0..0, Spanned::span), reason));
        }
        Ok(Eal {
            huge_pages: raw.huge_pages.unwrap_or(default.huge_pages),
            memory_mb: self.number(
                "memory_mb",
                raw.memory_mb.as_ref(),
                default.memory_mb,
                64..=1 << 20,
            )?,
            file_prefix: self.file_prefix(raw.file_prefix.as_ref(), default.file_prefix)?,
            single_file_segments: raw
                .single_file_segments
                .unwrap_or(default.single_file_segments),
            extra: raw.extra.clone(),
            mbufs,
        })
    }

    fn file_prefix(&self, raw: Option<&Spanned<String>>, default: String) -> Checked<String> {
        let Some(raw) = raw else { return Ok(default) };
        if !is_word(raw.get_ref()) {
            let reason = format!(
                "file_prefix {:?} cannot be one, letters, digits, - _ . are right",
                raw.get_ref()
            );
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(raw.get_ref().clone())
    }

    fn ports(&self, raw: &[RawPort]) -> Checked<Vec<PortConf>> {
        let mut ports: Vec<PortConf> = Vec::new();
        for raw in raw {
            let port = self.port(raw)?;
            if ports.len() == PORTS_MAX {
                return Err(self.wrong(
                    raw.name.span(),
                    format!("too many ports, at most {PORTS_MAX} is right"),
                ));
            }
            if ports.iter().any(|other| other.name == port.name) {
                let reason = format!(
                    "a port named {:?} exists already, name each once",
                    port.name
                );
                return Err(self.wrong(raw.name.span(), reason));
            }
            if ports
                .iter()
                .any(|other| device_name(&other.device) == device_name(&port.device))
            {
                let reason = format!(
                    "device {} is a port already, each device once is right",
                    device_name(&port.device)
                );
                return Err(self.wrong(raw.device.span(), reason));
            }
            ports.push(port);
        }
        if ports.is_empty() {
            return Err(self.wrong(0..0, "no [[port]] is given, at least one is right"));
        }
        Ok(ports)
    }

    fn port(&self, raw: &RawPort) -> Checked<PortConf> {
        if !is_word(raw.name.get_ref()) {
            let reason = format!(
                "port name {:?} cannot be one, letters, digits, - _ . are right",
                raw.name.get_ref()
            );
            return Err(self.wrong(raw.name.span(), reason));
        }
        let device = raw.device.get_ref();
        if !(is_vdev(device) || is_pci(device_name(device))) {
            let reason = format!(
                "device {device:?} is not one, a virtual device like \"net_af_packet0,iface=veth0\" \
                 or a PCI address like \"0000:3b:00.0\" is right"
            );
            return Err(self.wrong(raw.device.span(), reason));
        }
        let mut vlans: Vec<(u16, Vec<Prefix>)> = Vec::new();
        for vlan in &raw.vlan {
            let id = self.number("VLAN id", Some(&vlan.id), 0, 1..=4094)?;
            if vlans.iter().any(|(other, _)| *other == id) {
                return Err(self.wrong(
                    vlan.id.span(),
                    format!("VLAN {id} of this port is given twice, once is right"),
                ));
            }
            vlans.push((id, self.addresses(&vlan.addresses)?));
        }
        Ok(PortConf {
            name: raw.name.get_ref().clone(),
            device: device.clone(),
            mtu: self.number("mtu", raw.mtu.as_ref(), 1500, 68..=9200)?,
            promiscuous: raw.promiscuous,
            rx_descriptors: self.descriptors("rx_descriptors", raw.rx_descriptors.as_ref())?,
            tx_descriptors: self.descriptors("tx_descriptors", raw.tx_descriptors.as_ref())?,
            addresses: self.addresses(&raw.addresses)?,
            vlans,
        })
    }

    fn descriptors(&self, key: &str, raw: Option<&Spanned<i64>>) -> Checked<u16> {
        let number: u16 = self.number(key, raw, 1024, 64..=8192)?;
        match raw {
            Some(raw) if !number.is_power_of_two() => {
                let reason = format!(
                    "{key} = {number} is not a power of two, {} is right",
                    number.next_power_of_two()
                );
                Err(self.wrong(raw.span(), reason))
            }
            _ => Ok(number),
        }
    }

    fn addresses(&self, raw: &[Spanned<String>]) -> Checked<Vec<Prefix>> {
        raw.iter().map(|raw| self.interface_address(raw)).collect()
    }

    fn interface_address(&self, raw: &Spanned<String>) -> Checked<Prefix> {
        let prefix = self.prefix(raw, "10.0.0.254/24")?;
        let Prefix { address, length } = prefix;
        let host = u32::from(address) & !mask(length);
        if length == 0 || !is_station(address) {
            let reason = format!(
                "{address}/{length} cannot be an interface's, a unicast one like 10.0.0.254/24 is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        if length < 31 && (host == 0 || host == !mask(length)) {
            let what = if host == 0 { "network" } else { "broadcast" };
            let reason =
                format!("{address} is the {what} address of its network, a host's is right");
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(prefix)
    }

    fn prefix(&self, raw: &Spanned<String>, example: &str) -> Checked<Prefix> {
        let text = raw.get_ref();
        let wrong =
            |why: &str| self.wrong(raw.span(), format!("{text:?} {why}, {example} is right"));
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| wrong("has no prefix length"))?;
        match address.parse() {
            Ok(IpAddr::V4(address)) => {
                let length = length.parse().ok().filter(|length| *length <= 32);
                Ok(Prefix {
                    address,
                    length: length.ok_or_else(|| wrong("has no prefix length of 0 to 32"))?,
                })
            }
            Ok(IpAddr::V6(_)) => Err(wrong("is IPv6, which is not supported yet")),
            Err(_) => Err(wrong("is not an IPv4 address with prefix length")),
        }
    }

    /// Notes the addresses of one port; no address and no network is on two interfaces.
    fn connect(&self, connected: &mut Connected, raw: &RawPort, port: &PortConf) -> Checked<()> {
        let untagged = (&raw.addresses, &port.addresses);
        let tagged = raw
            .vlan
            .iter()
            .zip(&port.vlans)
            .map(|(raw, (_, vlan))| (&raw.addresses, vlan));
        for (raws, prefixes) in std::iter::once(untagged).chain(tagged) {
            let elsewhere = connected.networks.len();
            for (raw, prefix) in raws.iter().zip(prefixes) {
                if !connected.addresses.insert(prefix.address) {
                    let reason =
                        format!("address {} is given twice, once is right", prefix.address);
                    return Err(self.wrong(raw.span(), reason));
                }
                let network = Prefix {
                    address: network(*prefix),
                    length: prefix.length,
                };
                if connected.networks[..elsewhere].contains(&network) {
                    let (address, length) = (network.address, network.length);
                    let reason = format!(
                        "network {address}/{length} is on another interface already, one is right"
                    );
                    return Err(self.wrong(raw.span(), reason));
                }
                connected.networks.push(network);
            }
        }
        Ok(())
    }

    fn routes(&self, raw: &[RawRoute], connected: &Connected) -> Checked<Vec<Route>> {
        let mut routes: Vec<Route> = Vec::new();
        for raw in raw {
            let to = self.prefix(&raw.to, "0.0.0.0/0")?;
            if network(to) != to.address {
                let reason = format!(
                    "route to {}/{} has bits beyond its length, {}/{} is right",
                    to.address,
                    to.length,
                    network(to),
                    to.length
                );
                return Err(self.wrong(raw.to.span(), reason));
            }
            if routes.iter().any(|other| other.to == to) {
                let reason = format!(
                    "a route to {}/{} is given twice, once is right",
                    to.address, to.length
                );
                return Err(self.wrong(raw.to.span(), reason));
            }
            routes.push(Route {
                to,
                via: self.neighbour_address(&raw.via, "gateway", connected)?,
            });
        }
        Ok(routes)
    }

    fn neighbour_address(
        &self,
        raw: &Spanned<String>,
        what: &str,
        connected: &Connected,
    ) -> Checked<Ipv4Addr> {
        let text = raw.get_ref();
        let address = match text.parse() {
            Ok(IpAddr::V4(address)) => address,
            Ok(IpAddr::V6(_)) => {
                let reason = format!(
                    "{what} {text} is IPv6, which is not supported yet, an IPv4 address is right"
                );
                return Err(self.wrong(raw.span(), reason));
            }
            Err(_) => {
                return Err(self.wrong(
                    raw.span(),
                    format!("{what} {text:?} is not an address, 10.0.0.1 is right"),
                ));
            }
        };
        if !connected.reaches(address) {
            let reason = format!(
                "{what} {address} is on no port's network, another station's address on one is right"
            );
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(address)
    }

    fn neighbours(
        &self,
        raw: &[RawNeighbour],
        connected: &Connected,
    ) -> Checked<Vec<StaticNeighbour>> {
        let mut seen = HashSet::new();
        let mut neighbours = Vec::new();
        for raw in raw {
            let address = self.neighbour_address(&raw.address, "neighbour", connected)?;
            if !seen.insert(address) {
                let reason = format!("neighbour {address} is given twice, once is right");
                return Err(self.wrong(raw.address.span(), reason));
            }
            let mac = parse_mac(raw.mac.get_ref()).ok_or_else(|| {
                let reason = format!(
                    "mac {:?} is not a station's, 02:00:00:00:00:07 is right",
                    raw.mac.get_ref()
                );
                self.wrong(raw.mac.span(), reason)
            })?;
            neighbours.push(StaticNeighbour { address, mac });
        }
        Ok(neighbours)
    }

    /// The table, and the change that sets it.
    fn timeouts(&self, raw: &RawTimeouts) -> Checked<(Timeouts, Change)> {
        let mut timeouts = Timeouts::default();
        let mut set = |key: &str, value: Option<&Spanned<i64>>, state| {
            let seconds = self.number(
                key,
                value,
                timeouts.ms(state) / 1000,
                1..=i64::from(TIMEOUT_MAX_S),
            )?;
            timeouts.set_s(state, seconds);
            Ok(Some(seconds))
        };
        let tcp = set("tcp", raw.tcp.as_ref(), State::Established)?;
        let tcp_fin = set("tcp_fin", raw.tcp_fin.as_ref(), State::FinWait)?;
        let udp = set("udp", raw.udp.as_ref(), State::Udp)?;
        Ok((timeouts, Change::SetTimeouts { tcp, tcp_fin, udp }))
    }

    fn services(&self, raw: &[RawService], limits: Limits) -> Checked<Vec<Change>> {
        let mut changes = Vec::new();
        let mut places: Vec<Range<usize>> = Vec::new();
        for raw in raw {
            let protocol = match raw.protocol.get_ref().as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                other => {
                    let reason =
                        format!("protocol {other:?} is not supported, \"tcp\" or \"udp\" is right");
                    return Err(self.wrong(raw.protocol.span(), reason));
                }
            };
            let service = ServiceKey {
                protocol,
                address: self.socket_address(&raw.address)?,
            };
            let (scheduler, place) = match &raw.scheduler {
                // Its address stands for the whole service, but an unknown scheduler is found there.
                Some(name) if crate::sched::Kind::by_name(name.get_ref()).is_none() => {
                    (name.get_ref().as_str(), name.span())
                }
                Some(name) => (name.get_ref().as_str(), raw.address.span()),
                None => ("rr", raw.address.span()),
            };
            changes.push(Change::AddService {
                service,
                spec: ServiceSpec {
                    scheduler: scheduler.to_owned(),
                },
            });
            places.push(place);
            for raw in &raw.server {
                let (server, spec) = (self.socket_address(&raw.address)?, self.server_spec(raw)?);
                changes.push(Change::AddServer {
                    service,
                    server,
                    spec,
                });
                places.push(raw.address.span());
            }
        }
        match Model::new(limits).apply(&changes) {
            Ok(_) => Ok(changes),
            Err(refusal) => {
                let place = refusal
                    .step
                    .and_then(|step| places.get(step).cloned())
                    .unwrap_or(0..0);
                Err(self.wrong(place, refusal.detail))
            }
        }
    }

    fn server_spec(&self, raw: &RawServer) -> Checked<ServerSpec> {
        let mode = match &raw.method {
            None => ForwardMode::Nat,
            Some(method) => match method.get_ref().as_str() {
                "nat" => ForwardMode::Nat,
                "direct" => ForwardMode::Direct,
                other => {
                    let reason = format!(
                        "method {other:?} is not supported yet, \"nat\" or \"direct\" is right"
                    );
                    return Err(self.wrong(method.span(), reason));
                }
            },
        };
        Ok(ServerSpec {
            mode,
            weight: self.number("weight", raw.weight.as_ref(), 1, 0..=i64::from(i32::MAX))?,
        })
    }

    fn socket_address(&self, raw: &Spanned<String>) -> Checked<SocketAddr> {
        raw.get_ref().parse().map_err(|_| {
            let reason = format!(
                "address {:?} is not an address and port, 10.0.0.1:80 is right",
                raw.get_ref()
            );
            self.wrong(raw.span(), reason)
        })
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn network(prefix: Prefix) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(prefix.address) & mask(prefix.length))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// What the EAL calls `device`: what stands before its arguments.
fn device_name(device: &str) -> &str {
    device.split(',').next().unwrap_or(device)
}

fn is_vdev(device: &str) -> bool {
    let name = device_name(device);
    name.len() > VDEV_PREFIX.len() && name.starts_with(VDEV_PREFIX) && is_word(name)
}

/// `0000:3b:00.0` or `3b:00.0`
fn is_pci(text: &str) -> bool {
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (domain, bus, slot) = match parts[..] {
        [domain, bus, slot] => (domain, bus, slot),
        [bus, slot] => ("0000", bus, slot),
        _ => return false,
    };
    let Some((device, function)) = slot.split_once('.') else {
        return false;
    };
    is_hex(domain, 4)
        && is_hex(bus, 2)
        && is_hex(device, 2)
        && function.len() == 1
        && (b'0'..=b'7').contains(&function.as_bytes()[0])
}

/// A station's own address: neither a group's nor zero.
fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts
            .next()
            .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that is accepted, on one line.
    const PORT: &str =
        "port = [{ name = \"lan\", device = \"net_null0\", addresses = [\"10.0.0.254/24\"] }]\n";

    fn error(text: &str) -> String {
        Config::parse(text, "f").unwrap_err().to_string()
    }

    /// The message for `text` after the one line of [`PORT`].
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(error(&format!("{PORT}{text}")), expected, "for\n{text}");
    }

    /// The message for a file that is only a port with `keys`.
    #[track_caller]
    fn check_port(keys: &str, expected: &str) {
        assert_eq!(
            error(&format!(
                "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\n{keys}"
            )),
            expected,
            "for\n{keys}"
        );
    }

    #[test]
    fn the_example_gives_the_defaults() {
        let config =
            Config::parse(include_str!("../../configs/example.toml"), "example.toml").unwrap();
        let default = Config::default();
        assert_eq!(
            (config.director, config.eal),
            (default.director, default.eal)
        );
        assert_eq!(config.timeouts, default.timeouts);
        assert_eq!(config.ports.len(), 2);
        let prefix = |address: &str, length| Prefix {
            address: address.parse().unwrap(),
            length,
        };
        assert_eq!(
            config.ports[1].vlans,
            [(100, vec![prefix("192.168.100.1", 24)])]
        );
        assert_eq!(
            config.routes,
            [Route {
                to: prefix("0.0.0.0", 0),
                via: "10.0.0.1".parse().unwrap()
            }]
        );
        assert_eq!(config.neighbours[0].mac, [2, 0, 0, 0, 0, 7]);
        assert_eq!(config.changes.len(), 4, "timeouts, a service, two servers");
    }

    /// A key that is in the example under its default may as well be missing.
    #[test]
    fn what_is_left_out_is_the_default() {
        let config = Config::parse(PORT, "f").unwrap();
        let example =
            Config::parse(include_str!("../../configs/example.toml"), "example.toml").unwrap();
        assert_eq!(
            (config.director, config.eal),
            (example.director, example.eal)
        );
        let PortConf {
            mtu,
            promiscuous,
            rx_descriptors,
            tx_descriptors,
            ..
        } = config.ports[0];
        let documented = &example.ports[0];
        assert_eq!((mtu, promiscuous), (documented.mtu, documented.promiscuous));
        assert_eq!(
            (rx_descriptors, tx_descriptors),
            (documented.rx_descriptors, documented.tx_descriptors)
        );
        assert_eq!(
            (config.timeouts, &config.changes[..]),
            (example.timeouts, &example.changes[..1])
        );
    }

    #[test]
    fn the_other_examples_are_accepted() {
        for (name, text) in [
            (
                "nat-two-arm",
                include_str!("../../configs/nat-two-arm.toml"),
            ),
            ("nat-pci", include_str!("../../configs/nat-pci.toml")),
            ("nat-afxdp", include_str!("../../configs/nat-afxdp.toml")),
            ("direct", include_str!("../../configs/direct.toml")),
        ] {
            let config = Config::parse(text, name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.ports[0].is_virtual(), name != "nat-pci");
            assert!(config.changes.len() > 2);
            let modes = config.changes.iter().filter_map(|change| match change {
                Change::AddServer { spec, .. } => Some(spec.mode),
                _ => None,
            });
            let expected = match name {
                "direct" => ForwardMode::Direct,
                _ => ForwardMode::Nat,
            };
            assert!(modes.into_iter().all(|mode| mode == expected), "{name}");
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = Config::load(Path::new("/nonexistent/d.toml"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "/nonexistent/d.toml: cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn syntax_and_unknown_keys() {
        check(
            "[director]\nworkers = [1",
            "f:3: unclosed array, expected `]`",
        );
        check(
            "x = 1",
            "f:2: unknown field `x`, expected one of `director`, `eal`, `port`, `route`, `neighbour`, `timeouts`, `service`",
        );
        check(
            "[timeouts]\nicmp = 3",
            "f:3: unknown field `icmp`, expected one of `tcp`, `tcp_fin`, `udp`",
        );
        check(
            "[timeouts]\ntcp = \"1\"",
            "f:3: invalid type: string \"1\", expected i64",
        );
        check(
            "[director]\nidle = \"sleep\"",
            "f:3: unknown variant `sleep`, expected `backoff` or `poll`",
        );
        check(
            "\n[[route]]\nto = \"0.0.0.0/0\"",
            "f:3: missing field `via`",
        );
    }

    #[test]
    fn director_and_eal() {
        check(
            "[director]\nsocket = \"run/s\"",
            "f:3: socket \"run/s\" cannot be one, an absolute path of at most 107 bytes like \"/run/director/director.sock\" is right",
        );
        check(
            "[director]\nworkers = []",
            "f:3: workers is empty, at least one core like [1] is right",
        );
        check(
            "[director]\nworkers = [\n1,\n2,\n1]",
            "f:6: core 1 has a worker already, name each core once",
        );
        check(
            "[director]\nworkers = [-1]",
            "f:3: worker core = -1 is out of range, 0 to 1023 is right",
        );
        check(
            "[director]\nmax_connections = 63",
            "f:3: max_connections = 63 is out of range, 64 to 1073741824 is right",
        );
        check(
            "[director]\nmax_servers = 0",
            "f:3: max_servers = 0 is out of range, 1 to 1048576 is right",
        );
        check(
            "[director]\nlog = \"loud\"",
            "f:3: log level \"loud\" is unknown, \"error\", \"warn\", \"info\", \"debug\" or \"trace\" is right",
        );
        check(
            "[eal]\nmemory_mb = 1",
            "f:3: memory_mb = 1 is out of range, 64 to 1048576 is right",
        );
        check(
            "[eal]\nfile_prefix = \"a/b\"",
            "f:3: file_prefix \"a/b\" cannot be one, letters, digits, - _ . are right",
        );
        check(
            "[eal]\nmbufs = 2048",
            "f:3: mbufs = 2048 is too few for descriptors of 2048 packets, more than that is right",
        );
    }

    #[test]
    fn ports() {
        assert_eq!(
            error(""),
            "f:1: no [[port]] is given, at least one is right"
        );
        check("[[port]]", "f:2: duplicate key");
        let device = "device \"eth0\" is not one, a virtual device like \"net_af_packet0,iface=veth0\" or a PCI address like \"0000:3b:00.0\" is right";
        assert_eq!(
            error("[[port]]\nname = \"a\"\ndevice = \"eth0\""),
            format!("f:3: {device}")
        );
        assert_eq!(
            error("[[port]]\nname = \"a b\"\ndevice = \"net_null0\""),
            "f:2: port name \"a b\" cannot be one, letters, digits, - _ . are right"
        );
        check_port(
            "mtu = 67",
            "f:4: mtu = 67 is out of range, 68 to 9200 is right",
        );
        check_port(
            "rx_descriptors = 1000",
            "f:4: rx_descriptors = 1000 is not a power of two, 1024 is right",
        );
        check_port(
            "tx_descriptors = 32",
            "f:4: tx_descriptors = 32 is out of range, 64 to 8192 is right",
        );
        check_port(
            "[[port.vlan]]\nid = 4095",
            "f:5: VLAN id = 4095 is out of range, 1 to 4094 is right",
        );
        check_port(
            "vlan = [{ id = 7 },\n{ id = 7 }]",
            "f:5: VLAN 7 of this port is given twice, once is right",
        );
        check_port(
            "[[port]]\nname = \"a\"\ndevice = \"net_null1\"",
            "f:5: a port named \"a\" exists already, name each once",
        );
        check_port(
            "[[port]]\nname = \"b\"\ndevice = \"net_null0,x=1\"",
            "f:6: device net_null0 is a port already, each device once is right",
        );
        let many: String = (0..33)
            .map(|n| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n}\"\n"))
            .collect();
        assert_eq!(error(&many), "f:98: too many ports, at most 32 is right");
    }

    #[test]
    fn addresses() {
        for (address, reason) in [
            (
                "10.0.0.1",
                "\"10.0.0.1\" has no prefix length, 10.0.0.254/24 is right",
            ),
            (
                "10.0.0.1/33",
                "\"10.0.0.1/33\" has no prefix length of 0 to 32, 10.0.0.254/24 is right",
            ),
            (
                "10.0.1/24",
                "\"10.0.1/24\" is not an IPv4 address with prefix length, 10.0.0.254/24 is right",
            ),
            (
                "fe80::1/64",
                "\"fe80::1/64\" is IPv6, which is not supported yet, 10.0.0.254/24 is right",
            ),
            (
                "10.0.0.0/24",
                "10.0.0.0 is the network address of its network, a host's is right",
            ),
            (
                "10.0.0.255/24",
                "10.0.0.255 is the broadcast address of its network, a host's is right",
            ),
            (
                "224.0.0.1/24",
                "224.0.0.1/24 cannot be an interface's, a unicast one like 10.0.0.254/24 is right",
            ),
            (
                "10.0.0.1/0",
                "10.0.0.1/0 cannot be an interface's, a unicast one like 10.0.0.254/24 is right",
            ),
        ] {
            check_port(
                &format!("addresses = [\n\"{address}\"]"),
                &format!("f:5: {reason}"),
            );
        }
        check_port(
            "addresses = [\"10.0.0.1/24\",\n\"10.0.0.1/24\"]",
            "f:5: address 10.0.0.1 is given twice, once is right",
        );
        check_port(
            "addresses = [\"10.0.0.1/24\"]\n[[port.vlan]]\nid = 1\naddresses = [\"10.0.0.2/24\"]",
            "f:7: network 10.0.0.0/24 is on another interface already, one is right",
        );
        for fine in ["10.0.0.1/32", "10.0.0.0/31", "10.0.0.1/24\", \"10.0.0.2/24"] {
            Config::parse(&PORT.replace("10.0.0.254/24", fine), "f").unwrap();
        }
    }

    #[test]
    fn routes_and_neighbours() {
        let route = |to: &str, via: &str| format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n");
        check(
            &route("10.1.0.1/16", "10.0.0.1"),
            "f:3: route to 10.1.0.1/16 has bits beyond its length, 10.1.0.0/16 is right",
        );
        check(
            &route("::/0", "10.0.0.1"),
            "f:3: \"::/0\" is IPv6, which is not supported yet, 0.0.0.0/0 is right",
        );
        check(
            &route("0.0.0.0/0", "10.0.1.1"),
            "f:4: gateway 10.0.1.1 is on no port's network, another station's address on one is right",
        );
        check(
            &route("0.0.0.0/0", "10.0.0.254"),
            "f:4: gateway 10.0.0.254 is on no port's network, another station's address on one is right",
        );
        check(
            &route("0.0.0.0/0", "fe80::1"),
            "f:4: gateway fe80::1 is IPv6, which is not supported yet, an IPv4 address is right",
        );
        check(
            &route("0.0.0.0/0", "gw"),
            "f:4: gateway \"gw\" is not an address, 10.0.0.1 is right",
        );
        check(
            &route("0.0.0.0/0", "10.0.0.1").repeat(2),
            "f:6: a route to 0.0.0.0/0 is given twice, once is right",
        );
        let neighbour = |address: &str, mac: &str| {
            format!("[[neighbour]]\naddress = \"{address}\"\nmac = \"{mac}\"\n")
        };
        check(
            &neighbour("10.9.0.1", "02:00:00:00:00:07"),
            "f:3: neighbour 10.9.0.1 is on no port's network, another station's address on one is right",
        );
        check(
            &neighbour("10.0.0.1", "02:00:00:00:00:07").repeat(2),
            "f:6: neighbour 10.0.0.1 is given twice, once is right",
        );
        for mac in [
            "01:00:5e:00:00:07",
            "00:00:00:00:00:00",
            "02:00:00:00:00",
            "02:00:00:00:00:07:08",
            "2:0:0:0:0:7",
            "+2:00:00:00:00:07",
        ] {
            check(
                &neighbour("10.0.0.1", mac),
                &format!("f:4: mac {mac:?} is not a station's, 02:00:00:00:00:07 is right"),
            );
        }
    }

    #[test]
    fn timeouts() {
        check(
            "[timeouts]\ntcp = 0",
            "f:3: tcp = 0 is out of range, 1 to 2678400 is right",
        );
        let config = Config::parse(&format!("{PORT}[timeouts]\nudp = 60"), "f").unwrap();
        assert_eq!(
            (
                config.timeouts.ms(State::Udp),
                config.timeouts.ms(State::Established)
            ),
            (60_000, 900_000)
        );
        assert_eq!(
            config.changes,
            [Change::SetTimeouts {
                tcp: Some(900),
                tcp_fin: Some(120),
                udp: Some(60)
            }]
        );
    }

    #[test]
    fn services() {
        let service = |keys: &str| {
            format!("[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:80\"\n{keys}")
        };
        let server = |keys: &str| {
            service(&format!(
                "[[service.server]]\naddress = \"10.0.0.2:80\"\n{keys}"
            ))
        };
        check(
            "[[service]]\nprotocol = \"sctp\"\naddress = \"10.0.0.1:80\"",
            "f:3: protocol \"sctp\" is not supported, \"tcp\" or \"udp\" is right",
        );
        check(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1\"",
            "f:4: address \"10.0.0.1\" is not an address and port, 10.0.0.1:80 is right",
        );
        check(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"[::1]:80\"",
            "f:4: [::1]:80: IPv6 is not supported yet, use an IPv4 address",
        );
        check(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:0\"",
            "f:4: service 10.0.0.1:0 has port 0, 1 to 65535 is right",
        );
        check(
            &service("scheduler = \"wlc\""),
            "f:5: no scheduler \"wlc\", known are rr, wrr",
        );
        check(
            &service("").repeat(2),
            "f:7: service tcp 10.0.0.1:80 exists already",
        );
        check(
            &server("method = \"dr\""),
            "f:7: method \"dr\" is not supported yet, \"nat\" or \"direct\" is right",
        );
        check(
            &service("[[service.server]]\naddress = \"10.0.0.2:81\"\nmethod = \"direct\""),
            "f:6: server 10.0.0.2:81 has another port than its service, 80 is right for direct routing",
        );
        check(
            &server("weight = -1"),
            "f:7: weight = -1 is out of range, 0 to 2147483647 is right",
        );
        check(
            &server("[[service.server]]\naddress = \"10.0.0.2:80\""),
            "f:8: service tcp 10.0.0.1:80 has server 10.0.0.2:80 already",
        );
        check(
            &format!(
                "{}[director]\nmax_servers = 1",
                server("[[service.server]]\naddress = \"10.0.0.3:80\"\n")
            ),
            "f:8: all 1 servers are in use (a deleted one for up to 240 s after its last connection); raise max_servers",
        );
    }

    #[test]
    fn pci_addresses() {
        for fine in ["0000:3b:00.0", "3b:00.1", "0000:3B:1f.7"] {
            assert!(is_pci(fine), "{fine}");
        }
        for wrong in [
            "",
            "3b",
            "3b:00",
            "0000:3b:00",
            "0000:3b:00.8",
            "000:3b:00.0",
            "0000:3g:00.0",
            "0:0000:3b:00.0",
            "3b:00.00",
        ] {
            assert!(!is_pci(wrong), "{wrong}");
        }
    }
}

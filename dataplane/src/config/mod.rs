//! The TOML file, validated: the only place that reads it. `configs/example.toml` explains each key.

mod director; // `[director]`, `[eal]`, `[metrics]` and `[restart]`
mod file; // the file as it is written
mod health; // `[[service.check]]`
mod marks; // `[[mark]]`
mod network; // interface addresses, `[[route]]`, `[[neighbour]]`
mod ports; // `[[port]]`
mod reader; // where a value stands, for the message about it
mod services; // `[timeouts]` and `[[service]]`
mod settings; // `[settings]`
#[cfg(test)]
mod tests;
mod text; // a configuration as a file

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use control::{Change, PortSpec};
use serde::Deserialize;

use self::file::File;
use self::network::Connected;
use self::reader::Reader;
pub use self::text::Section;
use crate::conn::Timeouts;
use crate::control::model::{Limits, Model, kernel, sides};
use crate::net::{Interface, Prefix, Route, Setup, StaticNeighbour};
use crate::packet::PortId;
use crate::templates::Templates;

/// What the file says, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    pub director: Director,
    pub eal: Eal,
    pub metrics: Metrics,
    pub restart: Restart,
    /// The index is the port's id.
    pub ports: Vec<PortConf>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<StaticNeighbour>,
    pub timeouts: Timeouts,
    /// The file's timeouts, settings and services, to be applied at start. A model accepted them.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Director {
    pub socket: PathBuf,
    /// Whose members may change things; the daemon's own if `None`.
    pub socket_group: Option<String>,
    /// Whose members may look.
    pub socket_read_group: Option<String>,
    /// Cores, one worker each.
    pub workers: Vec<u16>,
    pub control_core: u16,
    pub idle: Idle,
    /// Per worker.
    pub max_connections: u32,
    /// Of all workers together.
    pub max_templates: u32,
    pub max_services: u32,
    pub max_servers: u32,
    pub log: tracing::Level,
    pub log_format: LogFormat,
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
            socket_group: None,
            socket_read_group: None,
            workers: vec![1],
            control_core: 0,
            idle: Idle::Backoff,
            max_connections: 262_144,
            max_templates: Templates::default_capacity(262_144, 1),
            max_services: 4096,
            max_servers: 16_384,
            log: tracing::Level::INFO,
            log_format: LogFormat::Human,
        }
    }
}

/// The HTTP endpoint for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// `None`: there is none.
    pub address: Option<SocketAddr>,
    /// Whether each server has series of its own.
    pub servers: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            address: Some(SocketAddr::from(([127, 0, 0, 1], 9145))),
            servers: true,
        }
    }
}

/// What outlives the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restart {
    /// Where it lies; `None`: nothing does.
    pub directory: Option<PathBuf>,
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

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A sentence and its values.
    Human,
    /// One JSON object a line.
    Json,
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
    pub spec: PortSpec,
    /// Of the untagged interface.
    pub addresses: Vec<Prefix>,
    pub vlans: Vec<(u16, Vec<Prefix>)>,
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

impl Config {
    /// The interfaces, routes and neighbours of the file; `mac` tells each port's Ethernet address.
    pub fn setup(&self, mac: impl Fn(PortId) -> [u8; 6]) -> Setup {
        let mut interfaces = Vec::new();
        let sides = sides(self.ports.iter().map(|port| &port.spec));
        for ((port, conf), side) in (0..).map(PortId).zip(&self.ports).zip(sides) {
            let tagged = conf
                .vlans
                .iter()
                .map(|(id, addresses)| (Some(*id), addresses));
            for (vlan, addresses) in std::iter::once((None, &conf.addresses)).chain(tagged) {
                let (mac, spec) = (mac(port), &conf.spec);
                interfaces.push(Interface {
                    port,
                    vlan,
                    mac,
                    mtu: spec.mtu,
                    partial_checksums: spec.partial_checksums,
                    addresses: addresses.clone(),
                    kernel: kernel(spec, side),
                });
            }
        }
        Setup {
            interfaces,
            routes: self.routes.clone(),
            neighbours: self.neighbours.clone(),
        }
    }

    /// The index is the port's id.
    pub fn port_specs(&self) -> impl Iterator<Item = PortSpec> {
        self.ports.iter().map(|port| port.spec.clone())
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
        let ports = reader.ports(&raw.port, &director.workers)?;
        let eal = reader.eal(&raw.eal, &ports)?;
        let metrics = reader.metrics(&raw.metrics)?;
        let restart = reader.restart(&raw.restart)?;
        let mut connected = Connected::default();
        for (raw, port) in raw.port.iter().zip(&ports) {
            reader.connect(&mut connected, raw, port)?;
        }
        let routes = reader.routes(&raw.route, &connected)?;
        let neighbours = reader.neighbours(&raw.neighbour, &connected)?;
        let (timeouts, set) = reader.timeouts(&raw.timeouts)?;
        let settings = reader.settings(&raw.settings)?;
        let mut changes = vec![set, Change::SetSettings(settings)];
        let model =
            Model::new(director.limits()).with_ports(ports.iter().map(|port| port.spec.clone()));
        changes.extend(reader.services(&raw.mark, &raw.service, &raw.sync, model)?);
        Ok(Self {
            director,
            eal,
            metrics,
            restart,
            ports,
            routes,
            neighbours,
            timeouts,
            changes,
        })
    }
}

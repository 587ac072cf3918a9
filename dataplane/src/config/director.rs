//! `[director]`, `[eal]`, `[metrics]` and `[restart]`.

use std::path::PathBuf;

use toml::Spanned;

use super::file::{RawDirector, RawEal, RawMetrics, RawRestart};
use super::reader::{Checked, Reader};
use super::{Director, Eal, Idle, Metrics, PortConf, Restart};
use crate::control::model::{is_word, side_spec};
use crate::templates::Templates;
use crate::update::SERVERS_MAX;

/// RTE_MAX_LCORE of widespread builds is lower, but none has more cores than this.
const CORE_MAX: i64 = 1023;
/// In place of an address: no endpoint.
const NO_METRICS: &str = "none";
/// `sun_path` less its final zero.
const SOCKET_PATH_MAX: usize = 107;
const EXAMPLE_DIRECTORY: &str = "/dev/shm/director";
const LOG_LEVELS: &str = "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";

impl Reader<'_> {
    pub(super) fn director(&self, raw: &RawDirector) -> Checked<Director> {
        let default = Director::default();
        let workers = self.workers(raw.workers.as_ref(), default.workers)?;
        let idle = raw.idle.unwrap_or(default.idle);
        let max_connections = self.number(
            "max_connections",
            raw.max_connections.as_ref(),
            default.max_connections,
            64..=1 << 30,
        )?;
        let max_templates = Templates::default_capacity(max_connections, workers.len());
        Ok(Director {
            socket: self.socket(raw.socket.as_ref(), default.socket)?,
            socket_group: self.group("socket_group", raw.socket_group.as_ref())?,
            socket_read_group: self.group("socket_read_group", raw.socket_read_group.as_ref())?,
            control_core: self.control_core(raw, &workers, idle)?,
            workers,
            idle,
            max_connections,
            max_templates: self.number(
                "max_templates",
                raw.max_templates.as_ref(),
                max_templates,
                64..=1 << 24,
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
            log_format: raw.log_format.unwrap_or(default.log_format),
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

    /// Whether the system has it is seen at start.
    fn group(&self, key: &str, raw: Option<&Spanned<String>>) -> Checked<Option<String>> {
        let Some(raw) = raw else { return Ok(None) };
        if !is_word(raw.get_ref()) {
            let reason = format!(
                "{key} {:?} cannot be a group, \"director\" is right",
                raw.get_ref()
            );
            return Err(self.wrong(raw.span(), reason));
        }
        Ok(Some(raw.get_ref().clone()))
    }

    fn workers(
        &self,
        raw: Option<&Spanned<Vec<Spanned<i64>>>>,
        default: Vec<u16>,
    ) -> Checked<Vec<u16>> {
        raw.map_or(Ok(default), |raw| self.cores(raw))
    }

    /// Cores with a worker each.
    pub(super) fn cores(&self, raw: &Spanned<Vec<Spanned<i64>>>) -> Checked<Vec<u16>> {
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

    /// A worker that never sleeps leaves its core to nobody.
    fn control_core(&self, raw: &RawDirector, workers: &[u16], idle: Idle) -> Checked<u16> {
        let default = Director::default().control_core;
        let (key, asked) = ("control_core", raw.control_core.as_ref());
        let core = self.number(key, asked, default, 0..=CORE_MAX)?;
        if idle == Idle::Poll && workers.contains(&core) {
            let reason = format!(
                "control_core = {core} has a worker that never sleeps, a core without one, or \
                 idle = \"backoff\", is right"
            );
            return Err(self.wrong(asked.map_or(0..0, Spanned::span), reason));
        }
        Ok(core)
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

    pub(super) fn eal(&self, raw: &RawEal, ports: &[PortConf]) -> Checked<Eal> {
        let default = Eal::default();
        let mbufs = self.number("mbufs", raw.mbufs.as_ref(), default.mbufs, 512..=1 << 24)?;
        // Queues that swallow every buffer leave none to receive into.
        let queued: u32 = ports
            .iter()
            .flat_map(|port| [Some(port.spec.clone()), side_spec(&port.spec)])
            .flatten()
            .map(|spec| u32::from(spec.rx_descriptors) + u32::from(spec.tx_descriptors))
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

    pub(super) fn metrics(&self, raw: &RawMetrics) -> Checked<Metrics> {
        let default = Metrics::default();
        let address = match &raw.address {
            None => default.address,
            Some(raw) if raw.get_ref() == NO_METRICS => None,
            Some(raw) => Some(raw.get_ref().parse().map_err(|_| {
                let reason = format!(
                    "metrics address {:?} is not one, \"127.0.0.1:9145\", \"[::1]:9145\" or {NO_METRICS:?} is right",
                    raw.get_ref()
                );
                self.wrong(raw.span(), reason)
            })?),
        };
        let servers = raw.servers.unwrap_or(default.servers);
        Ok(Metrics { address, servers })
    }

    pub(super) fn restart(&self, raw: &RawRestart) -> Checked<Restart> {
        let directory = match &raw.directory {
            None => None,
            Some(path) if path.get_ref().starts_with('/') => Some(path.get_ref().into()),
            Some(path) => {
                let reason = format!(
                    "restart directory {:?} cannot be one, an absolute path like {EXAMPLE_DIRECTORY:?} is right",
                    path.get_ref()
                );
                return Err(self.wrong(path.span(), reason));
            }
        };
        Ok(Restart { directory })
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
}

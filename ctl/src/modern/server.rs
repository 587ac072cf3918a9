//! `directorctl server`: real servers of a service.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use control::{
    Change, Errno, ForwardMode, Refusal, Request, Server, ServerSpec, Thresholds, Tunnel,
    TunnelChecksum, TunnelKind, Word,
};

use super::drain::DrainArgs;
use super::key::{Key, ServerKey};
use super::request::Present;
use super::values::{one_of, some_of};

#[derive(Debug, Subcommand)]
pub(super) enum ServerVerb {
    /// The servers of one service.
    List(Key),
    /// Add a server.
    Add {
        #[command(flatten)]
        server: ServerKey,
        #[command(flatten)]
        spec: SpecArgs,
    },
    /// Change what is named of a server; connections stay.
    #[command(group = some_of([
        "method", "tunnel", "tunnel_port", "tunnel_checksum", "weight", "upper_threshold",
        "lower_threshold",
    ]))]
    Edit {
        #[command(flatten)]
        server: ServerKey,
        #[command(flatten)]
        spec: SpecArgs,
    },
    /// Delete a server; its connections stay, but their packets are dropped
    Delete(ServerKey),
    /// Give a server no new connections, and watch until those it has ended.
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
pub(super) struct SpecArgs {
    /// How packets reach the server: through the director both ways (nat, unless set), by direct
    /// routing, inside a tunnel, or with a local address as their sender (fullnat).
    #[arg(long, value_parser = one_of::<ForwardMode>())]
    method: Option<ForwardMode>,
    /// What the tunnel is made of; ipip unless set.
    #[arg(long, value_parser = one_of::<TunnelKind>())]
    tunnel: Option<TunnelKind>,
    /// UDP port of a gue tunnel.
    #[arg(long, allow_negative_numbers = true)]
    tunnel_port: Option<u16>,
    /// Checksum of the tunnel's own header; none unless set.
    #[arg(long, value_parser = one_of::<TunnelChecksum>())]
    tunnel_checksum: Option<TunnelChecksum>,
    /// Share of new connections; 0 drains the server. 1 unless set.
    #[arg(long, short, allow_negative_numbers = true)]
    weight: Option<u32>,
    /// With so many connections the server gets no more; 0, as unless set, is never.
    #[arg(long, short = 'x', allow_negative_numbers = true)]
    upper_threshold: Option<u32>,
    /// Until it has fewer than so many; 0, as unless set, is three quarters of the upper one.
    #[arg(long, short = 'y', allow_negative_numbers = true)]
    lower_threshold: Option<u32>,
}

impl ServerVerb {
    pub(super) fn request(&self, present: &mut impl Present) -> Result<Request> {
        let change = match self {
            Self::List(service) => {
                let only = Some(service.key()?);
                return Ok(Request::Services { only });
            }
            Self::Add { server, spec } => Change::AddServer {
                service: server.service.key()?,
                server: server.server,
                spec: spec.over(ServerSpec {
                    mode: ForwardMode::Nat,
                    weight: 1,
                    tunnel: Tunnel::default(),
                    thresholds: Thresholds::default(),
                })?,
            },
            Self::Edit { server, spec } => Change::EditServer {
                service: server.service.key()?,
                server: server.server,
                spec: spec.over(present_server(server, present)?.spec)?,
            },
            Self::Delete(server) => Change::DeleteServer {
                service: server.service.key()?,
                server: server.server,
            },
            Self::Drain(drain) => drain.change()?,
        };
        Ok(Request::Change(vec![change]))
    }
}

fn present_server(key: &ServerKey, present: &mut impl Present) -> Result<Server> {
    let service = key.service.key()?;
    let mut servers = present.service(service)?.servers.into_iter();
    match servers.find(|server| server.address == key.server) {
        Some(server) => Ok(server),
        None => {
            let detail = format!("service {service} has no server {}", key.server);
            bail!(Refusal {
                errno: Errno::Enoent,
                step: None,
                detail,
            })
        }
    }
}

impl SpecArgs {
    /// `spec` with what is named. Another method or kind of tunnel begins with its defaults.
    fn over(&self, spec: ServerSpec) -> Result<ServerSpec> {
        let mode = self.method.unwrap_or(spec.mode);
        let kind = self.tunnel.unwrap_or(spec.tunnel.kind);
        let tunnel_named =
            self.tunnel.is_some() || self.tunnel_port.is_some() || self.tunnel_checksum.is_some();
        if mode != ForwardMode::Tunnel && tunnel_named {
            bail!(
                "--tunnel, --tunnel-port and --tunnel-checksum go with --method tunnel, not {}",
                mode.word()
            );
        }
        if mode == ForwardMode::Tunnel && kind != TunnelKind::Gue && self.tunnel_port.is_some() {
            bail!("--tunnel-port goes with --tunnel gue, not {}", kind.word());
        }
        let same = mode == spec.mode && kind == spec.tunnel.kind;
        let before = if same { spec.tunnel } else { Tunnel::default() };
        Ok(ServerSpec {
            mode,
            weight: self.weight.unwrap_or(spec.weight),
            tunnel: Tunnel {
                kind: if mode == ForwardMode::Tunnel {
                    kind
                } else {
                    TunnelKind::default()
                },
                port: self.tunnel_port.unwrap_or(before.port),
                checksum: self.tunnel_checksum.unwrap_or(before.checksum),
            },
            thresholds: Thresholds {
                upper: self.upper_threshold.unwrap_or(spec.thresholds.upper),
                lower: self.lower_threshold.unwrap_or(spec.thresholds.lower),
            },
        })
    }
}

//! From ipvsadm's words to the control protocol.

use std::net::{IpAddr, SocketAddr};

use super::Failure;
use super::args::{Command, Forward, Opt, Parsed, Service};
use super::names::Transport;
use crate::{Change, Cursor, Errno, Filter, ForwardMode, Netmask, Persistence, Protocol, Request};
use crate::{
    ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, SyncDaemon, SyncRole, Thresholds, Tunnel,
    TunnelChecksum,
};

/// The request that a command line stands for.
///
/// [`Command::Restore`], [`Command::Help`] and [`Command::Version`] ask nothing by themselves:
/// they give `None`.
pub fn request(parsed: &Parsed) -> Option<Request> {
    let changed = |change| Some(Request::Change(vec![change]));
    match parsed.command {
        Command::AddService => Some(with_options(
            parsed,
            Change::AddService {
                service: service(parsed),
                spec: service_spec(parsed),
            },
        )),
        Command::EditService => Some(with_options(
            parsed,
            Change::EditService {
                service: service(parsed),
                spec: service_spec(parsed),
            },
        )),
        Command::DeleteService => changed(Change::DeleteService {
            service: service(parsed),
        }),
        Command::Flush => changed(Change::Flush),
        Command::AddServer => changed(Change::AddServer {
            service: service(parsed),
            server: server(parsed),
            spec: server_spec(parsed),
        }),
        Command::EditServer => changed(Change::EditServer {
            service: service(parsed),
            server: server(parsed),
            spec: server_spec(parsed),
        }),
        Command::DeleteServer => changed(Change::DeleteServer {
            service: service(parsed),
            server: server(parsed),
        }),
        Command::Zero => changed(Change::Zero { only: only(parsed) }),
        Command::Set => {
            let [tcp, tcp_fin, udp] = parsed.timeouts.map(|value| (value != 0).then_some(value));
            changed(Change::SetTimeouts { tcp, tcp_fin, udp })
        }
        Command::AddLocal => changed(Change::AddLocalAddress {
            service: service(parsed),
            address: local(parsed),
        }),
        Command::DeleteLocal => changed(Change::DeleteLocalAddress {
            service: service(parsed),
            address: local(parsed),
        }),
        Command::GetLocal => Some(Request::Services { only: only(parsed) }),
        Command::List => Some(list(parsed)),
        Command::Save => Some(Request::Services { only: None }),
        Command::StartDaemon => changed(Change::StartSync(daemon(parsed))),
        Command::StopDaemon => changed(Change::StopSync { role: role(parsed) }),
        Command::Restore | Command::Help | Command::Version => None,
    }
}

/// A service's change, and what goes with it that is ours.
fn with_options(parsed: &Parsed, change: Change) -> Request {
    let service = || service(parsed);
    let own = match (parsed.options, parsed.hash_target) {
        (Some(options), target) => Some(Change::SetOptions {
            service: service(),
            options: ServiceOptions {
                hash_target: target.unwrap_or_default(),
                ..options
            },
        }),
        (None, Some(hash_target)) => Some(Change::SetHashTarget {
            service: service(),
            hash_target,
        }),
        (None, None) => None,
    };
    Request::Change([change].into_iter().chain(own).collect())
}

fn list(parsed: &Parsed) -> Request {
    if parsed.has(Opt::Connection) {
        return Request::Connections {
            cursor: Cursor::default(),
            filter: Filter::default(),
        };
    }
    if parsed.has(Opt::Timeout) {
        return Request::Timeouts;
    }
    if parsed.has(Opt::Daemon) {
        return Request::SyncDaemons;
    }
    Request::Services { only: only(parsed) }
}

/// The grammar's rules want one of every command that comes here.
fn role(parsed: &Parsed) -> SyncRole {
    parsed.role.unwrap_or(SyncRole::Master)
}

/// What the grammar has no number for is what LVS has without it.
fn daemon(parsed: &Parsed) -> SyncDaemon {
    let plain = SyncDaemon::new(role(parsed), &parsed.interface);
    let small = |value: Option<u32>| value.and_then(|value| u16::try_from(value).ok());
    let ttl = parsed.ttl.and_then(|ttl| u8::try_from(ttl).ok());
    SyncDaemon {
        sync_id: u8::try_from(parsed.sync_id).unwrap_or(plain.sync_id),
        max_len: small(parsed.sync_max_len),
        group: parsed.group.unwrap_or(plain.group),
        port: small(parsed.group_port).unwrap_or(plain.port),
        ttl: ttl.unwrap_or(plain.ttl),
        ..plain
    }
}

fn only(parsed: &Parsed) -> Option<ServiceKey> {
    parsed.service.is_some().then(|| service(parsed))
}

/// The grammar's rules want one of every command that comes here, and a mark that is not 0.
fn service(parsed: &Parsed) -> ServiceKey {
    let (transport, address) = match parsed.service {
        Some(Service::Address { transport, address }) => (transport, address),
        Some(Service::Mark { mark, ipv6 }) => return ServiceKey::Mark { mark, ipv6 },
        None => unreachable!("{:?} needs a service", parsed.command),
    };
    let protocol = match transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
        Transport::Sctp => Protocol::Sctp,
    };
    ServiceKey::at(protocol, address)
}

/// A mask goes with persistence; without, it is forgotten, as LVS does.
fn service_spec(parsed: &Parsed) -> ServiceSpec {
    let ipv6 = parsed.service.is_some_and(Service::is_ipv6);
    ServiceSpec {
        flags: parsed.scheduler_flags,
        persistence: parsed.persistent.map(|timeout_s| Persistence {
            timeout_s,
            netmask: parsed.netmask.unwrap_or(Netmask::whole(ipv6)),
        }),
        engine: parsed.engine,
        one_packet: parsed.has(Opt::OnePacket),
        ..ServiceSpec::new(parsed.scheduler.clone())
    }
}

/// As with services, there is one.
fn server(parsed: &Parsed) -> SocketAddr {
    parsed
        .server
        .unwrap_or_else(|| unreachable!("{:?} needs a server", parsed.command))
}

fn local(parsed: &Parsed) -> IpAddr {
    parsed
        .local
        .unwrap_or_else(|| unreachable!("{:?} needs a local address", parsed.command))
}

fn server_spec(parsed: &Parsed) -> ServerSpec {
    ServerSpec {
        mode: match parsed.forward {
            Forward::Nat => ForwardMode::Nat,
            Forward::Direct => ForwardMode::Direct,
            Forward::Tunnel => ForwardMode::Tunnel,
            Forward::FullNat => ForwardMode::FullNat,
        },
        weight: parsed.weight,
        tunnel: tunnel(parsed),
        thresholds: Thresholds {
            upper: parsed.upper,
            lower: parsed.lower,
        },
    }
}

/// The default when the method is another: the grammar refuses tunnel options there.
fn tunnel(parsed: &Parsed) -> Tunnel {
    let checksum = if parsed.has(Opt::TunCsum) {
        TunnelChecksum::Full
    } else if parsed.has(Opt::TunRemCsum) {
        TunnelChecksum::Remote
    } else {
        TunnelChecksum::None
    };
    Tunnel {
        kind: parsed.encapsulation,
        port: parsed.tunnel_port,
        checksum,
    }
}

/// What ipvsadm says when `change` was refused.
pub fn refusal(change: &Change, errno: Errno, detail: &str) -> Failure {
    use Change::{
        AddLocalAddress, AddServer, AddService, DeleteLocalAddress, DeleteServer, DeleteService,
        EditServer, EditService, StartSync, StopSync, Zero,
    };
    let text = match (change, errno) {
        (AddService { .. }, Errno::Eexist) => "Service already exists",
        (AddService { .. } | EditService { .. }, Errno::Enoent) => {
            "Scheduler or persistence engine not found"
        }
        (EditService { .. } | DeleteService { .. } | Zero { .. }, Errno::Esrch) => {
            "No such service"
        }
        (AddServer { .. } | EditServer { .. } | DeleteServer { .. }, Errno::Esrch) => {
            "Service not defined"
        }
        (AddServer { .. }, Errno::Eexist) => "Destination already exists",
        (EditServer { .. } | DeleteServer { .. }, Errno::Enoent) => "No such destination",
        (AddLocalAddress { .. } | DeleteLocalAddress { .. }, Errno::Esrch) => "Service not defined",
        (StartSync(_), Errno::Eexist) => "Daemon has already run",
        (StopSync { .. }, Errno::Esrch) => "No daemon is running",
        (AddLocalAddress { .. }, Errno::Eexist) => "Local address already exists",
        (DeleteLocalAddress { .. }, Errno::Enoent) => "No such local address",
        (_, errno) => general(errno, detail),
    };
    // These words leave open what would be right.
    let vague = matches!(errno, Errno::Einval | Errno::Enomem | Errno::Erange)
        || text.starts_with("Scheduler");
    Failure {
        detail: (vague && text != detail).then(|| detail.to_owned()),
        ..Failure::refused(text)
    }
}

/// What ipvsadm says of an errno, whatever was asked.
pub fn general(errno: Errno, detail: &str) -> &str {
    match errno {
        Errno::Eperm => "Permission denied (you must be root)",
        Errno::Einval => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        Errno::Enodev => "No such device",
        Errno::Enomem => "Memory allocation problem",
        Errno::Eopnotsupp => "Operation not supported with IPv6",
        Errno::Erange => "Numerical result out of range",
        Errno::Eexist => "File exists",
        Errno::Enoent => "No such file or directory",
        Errno::Esrch => "No such process",
        // The kernel never says these; the director knows what it means.
        Errno::Eproto | Errno::Eagain => detail,
    }
}

//! directorctl's own verbs.

mod show;

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use control::client::Client;
use control::{
    Change, Connection, Cursor, DEFAULT_SOCKET, ForwardMode, Protocol, Refusal, Reply, Request,
    ServerSpec, ServiceKey, ServiceSpec,
};
use serde::Serialize;

/// Configures and watches a running director.
#[derive(Debug, Parser)]
#[command(name = "directorctl", version)]
struct Cli {
    /// The director's control socket.
    #[arg(long, global = true, env = "DIRECTOR_SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Virtual services.
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Real servers of a service.
    #[command(subcommand)]
    Server(ServerVerb),
    /// Connections.
    #[command(subcommand)]
    Connection(ConnectionVerb),
    /// Ports, workers and why packets were dropped.
    Status,
    /// Totals and rates of services and servers.
    Stats,
    /// Neighbours.
    #[command(subcommand)]
    Neighbour(NeighbourVerb),
    /// Zero the counters: of all services, or of the one named.
    Zero {
        #[arg(requires = "address")]
        protocol: Option<Transport>,
        /// ADDRESS:PORT of the service.
        #[arg(value_parser = address_port)]
        address: Option<SocketAddr>,
    },
    /// Show the timeouts, or set those named, in seconds.
    Timeouts {
        #[arg(long)]
        tcp: Option<u32>,
        #[arg(long)]
        tcp_fin: Option<u32>,
        #[arg(long)]
        udp: Option<u32>,
    },
    /// This program's version and the director's.
    Version,
}

#[derive(Debug, Subcommand)]
enum ServiceVerb {
    /// All services and their servers.
    List,
    /// Add a service.
    Add {
        #[command(flatten)]
        service: Key,
        /// rr or wrr.
        #[arg(long, short, default_value = "rr")]
        scheduler: String,
    },
    /// Give a service another scheduler; connections stay.
    Edit {
        #[command(flatten)]
        service: Key,
        /// rr or wrr.
        #[arg(long, short)]
        scheduler: String,
    },
    /// Delete a service; its connections stay, but their packets are dropped
    Delete(Key),
}

#[derive(Debug, Subcommand)]
enum ServerVerb {
    /// The servers of one service.
    List(Key),
    /// Add a server.
    Add {
        #[command(flatten)]
        server: ServerArgs,
        /// Share of new connections; 0 drains the server.
        #[arg(long, short, default_value_t = 1, allow_negative_numbers = true)]
        weight: u32,
    },
    /// Give a server another weight.
    Edit {
        #[command(flatten)]
        server: ServerArgs,
        /// Share of new connections; 0 drains the server.
        #[arg(long, short, allow_negative_numbers = true)]
        weight: u32,
    },
    /// Delete a server; its connections stay, but their packets are dropped
    Delete {
        #[command(flatten)]
        service: Key,
        /// ADDRESS:PORT of the server.
        #[arg(value_parser = address_port)]
        server: SocketAddr,
    },
}

#[derive(Debug, Subcommand)]
enum ConnectionVerb {
    /// All connections.
    List,
}

#[derive(Debug, Subcommand)]
enum NeighbourVerb {
    /// Who answers to which Ethernet address.
    List,
}

#[derive(Debug, Args)]
struct Key {
    protocol: Transport,
    /// ADDRESS:PORT of the service.
    #[arg(value_parser = address_port)]
    address: SocketAddr,
}

fn address_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an address and port, 10.0.0.1:80 is right")
}

impl Key {
    fn key(&self) -> ServiceKey {
        let protocol = match self.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        };
        ServiceKey {
            protocol,
            address: self.address,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

#[derive(Debug, Args)]
struct ServerArgs {
    #[command(flatten)]
    service: Key,
    /// ADDRESS:PORT of the server.
    #[arg(value_parser = address_port)]
    server: SocketAddr,
    /// How packets reach the server.
    #[arg(long, value_enum, default_value = "nat")]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Through the director both ways.
    Nat,
    /// Direct routing: the server answers the client by itself.
    Direct,
}

impl ServerArgs {
    fn spec(&self, weight: u32) -> ServerSpec {
        let mode = match self.mode {
            Mode::Nat => ForwardMode::Nat,
            Mode::Direct => ForwardMode::Direct,
        };
        ServerSpec {
            mode,
            weight,
            tunnel: control::Tunnel::default(),
        }
    }
}

/// Runs the verb on the command line.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(control::usage::explain("directorctl", &error)),
    };
    let printed = run(&cli).and_then(|text| match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A program that reads JSON finds the reason where the answer would be.
            if let Some(refusal) = error.downcast_ref::<Refusal>().filter(|_| cli.json) {
                let refused = serde_json::json!({ "refused": refusal });
                let _ = writeln!(io::stdout(), "{refused:#}");
            }
            eprintln!("directorctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<String> {
    let hint = "--socket names another path";
    let mut client = Client::connect(&cli.socket, "directorctl", hint)?;
    let request = request(&cli.verb);
    if let Request::Connections { .. } = request {
        return connections(cli, &mut client);
    }
    match client.ask(&request)? {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done if cli.json => json(&Reply::Done),
        Reply::Done => Ok(String::new()),
        Reply::Services(list) if cli.json => json(&list),
        Reply::Services(list) => Ok(match cli.verb {
            Verb::Stats => show::stats(list),
            _ => show::services(list),
        }),
        Reply::Timeouts { tcp, tcp_fin, udp } if cli.json => {
            json(&serde_json::json!({ "tcp": tcp, "tcp_fin": tcp_fin, "udp": udp }))
        }
        Reply::Timeouts { tcp, tcp_fin, udp } => {
            Ok(format!("tcp {tcp} s, tcp-fin {tcp_fin} s, udp {udp} s\n"))
        }
        Reply::Status(status) => match (&cli.verb, cli.json) {
            (Verb::Version, true) => json(&serde_json::json!({
                "directorctl": env!("CARGO_PKG_VERSION"),
                "protocol": control::VERSION,
                "director": status.program,
            })),
            (Verb::Version, false) => Ok(format!(
                "directorctl {}, protocol {}\n{}\n",
                env!("CARGO_PKG_VERSION"),
                control::VERSION,
                status.program
            )),
            (_, true) => json(&status),
            (_, false) => Ok(show::status(&status)),
        },
        Reply::Settings(settings) if cli.json => json(&settings),
        Reply::Settings(settings) => Ok(format!("{settings}\n")),
        Reply::Neighbours(list) if cli.json => json(&list),
        Reply::Neighbours(list) => Ok(show::neighbours(&list)),
        Reply::Connections { .. } => bail!(control::client::ClientError::Unexpected),
    }
}

fn request(verb: &Verb) -> Request {
    let spec = |scheduler: &String| ServiceSpec {
        scheduler: scheduler.clone(),
    };
    let change = match verb {
        Verb::Service(ServiceVerb::List) | Verb::Stats => return Request::Services { only: None },
        Verb::Server(ServerVerb::List(service)) => {
            return Request::Services {
                only: Some(service.key()),
            };
        }
        Verb::Connection(ConnectionVerb::List) => {
            return Request::Connections {
                cursor: Cursor::default(),
            };
        }
        Verb::Status | Verb::Version => return Request::Status,
        Verb::Neighbour(NeighbourVerb::List) => return Request::Neighbours,
        Verb::Timeouts {
            tcp: None,
            tcp_fin: None,
            udp: None,
        } => return Request::Timeouts,
        Verb::Timeouts { tcp, tcp_fin, udp } => Change::SetTimeouts {
            tcp: *tcp,
            tcp_fin: *tcp_fin,
            udp: *udp,
        },
        Verb::Zero { protocol, address } => Change::Zero {
            only: protocol
                .zip(*address)
                .map(|(protocol, address)| Key { protocol, address }.key()),
        },
        Verb::Service(ServiceVerb::Add { service, scheduler }) => Change::AddService {
            service: service.key(),
            spec: spec(scheduler),
        },
        Verb::Service(ServiceVerb::Edit { service, scheduler }) => Change::EditService {
            service: service.key(),
            spec: spec(scheduler),
        },
        Verb::Service(ServiceVerb::Delete(service)) => Change::DeleteService {
            service: service.key(),
        },
        Verb::Server(ServerVerb::Add { server, weight }) => Change::AddServer {
            service: server.service.key(),
            server: server.server,
            spec: server.spec(*weight),
        },
        Verb::Server(ServerVerb::Edit { server, weight }) => Change::EditServer {
            service: server.service.key(),
            server: server.server,
            spec: server.spec(*weight),
        },
        Verb::Server(ServerVerb::Delete { service, server }) => Change::DeleteServer {
            service: service.key(),
            server: *server,
        },
    };
    Request::Change(vec![change])
}

fn json(answer: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(answer).context("writing JSON")?;
    Ok(text + "\n")
}

/// All pages of the connections.
fn connections(cli: &Cli, client: &mut Client) -> Result<String> {
    let mut all: Vec<Connection> = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        match client.ask(&Request::Connections { cursor: from })? {
            Reply::Connections { list, next } => {
                all.extend(list);
                cursor = next;
            }
            Reply::Refused(refusal) => return Err(refusal.into()),
            _ => bail!(control::client::ClientError::Unexpected),
        }
    }
    if cli.json {
        return json(&all);
    }
    Ok(show::connections(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Request {
        let words = ["directorctl"].into_iter().chain(line.split(' '));
        request(&Cli::try_parse_from(words).unwrap().verb)
    }

    fn complaint(line: &str) -> String {
        let words = ["directorctl"].into_iter().chain(line.split(' '));
        Cli::try_parse_from(words).unwrap_err().to_string()
    }

    fn key() -> ServiceKey {
        ServiceKey {
            protocol: Protocol::Tcp,
            address: "10.0.0.1:80".parse().unwrap(),
        }
    }

    #[test]
    fn verbs_become_requests() {
        let (service, server) = (key(), "10.1.0.1:80".parse().unwrap());
        let scheduler = |name: &str| ServiceSpec {
            scheduler: name.into(),
        };
        let weighing = |weight| ServerSpec {
            mode: ForwardMode::Nat,
            weight,
            tunnel: control::Tunnel::default(),
        };
        let only = Some(service);
        for (line, change) in [
            (
                "service add tcp 10.0.0.1:80",
                Change::AddService {
                    service,
                    spec: scheduler("rr"),
                },
            ),
            (
                "service edit tcp 10.0.0.1:80 -s wrr",
                Change::EditService {
                    service,
                    spec: scheduler("wrr"),
                },
            ),
            (
                "service delete tcp 10.0.0.1:80",
                Change::DeleteService { service },
            ),
            (
                "server add tcp 10.0.0.1:80 10.1.0.1:80",
                Change::AddServer {
                    service,
                    server,
                    spec: weighing(1),
                },
            ),
            (
                "server edit tcp 10.0.0.1:80 10.1.0.1:80 -w 7",
                Change::EditServer {
                    service,
                    server,
                    spec: weighing(7),
                },
            ),
            (
                "server delete tcp 10.0.0.1:80 10.1.0.1:80",
                Change::DeleteServer { service, server },
            ),
            ("zero", Change::Zero { only: None }),
            ("zero tcp 10.0.0.1:80", Change::Zero { only }),
            (
                "timeouts --tcp 5",
                Change::SetTimeouts {
                    tcp: Some(5),
                    tcp_fin: None,
                    udp: None,
                },
            ),
        ] {
            assert_eq!(asked(line), Request::Change(vec![change]), "{line}");
        }
        for (line, request) in [
            ("service list", Request::Services { only: None }),
            ("stats", Request::Services { only: None }),
            ("server list tcp 10.0.0.1:80", Request::Services { only }),
            (
                "connection list",
                Request::Connections {
                    cursor: Cursor::default(),
                },
            ),
            ("status", Request::Status),
            ("version", Request::Status),
            ("neighbour list", Request::Neighbours),
            ("timeouts", Request::Timeouts),
        ] {
            assert_eq!(asked(line), request, "{line}");
        }
    }

    #[test]
    fn mistakes_say_what_is_right() {
        for (line, words) in [
            (
                "servce list",
                "similar subcommands exist: 'server', 'service'",
            ),
            ("service lst", "a similar subcommand exists: 'list'"),
            (
                "service add tcp 10.0.0.1",
                "not an address and port, 10.0.0.1:80 is right",
            ),
            (
                "service add sctp 10.0.0.1:80",
                "[possible values: tcp, udp]",
            ),
            ("service edit tcp 10.0.0.1:80", "--scheduler"),
            ("server edit tcp 10.0.0.1:80 10.1.0.1:80", "--weight"),
            (
                "server add tcp 10.0.0.1:80 10.1.0.1:80 -w -1",
                "-1 is not in 0..=4294967295",
            ),
            (
                "server add tcp 10.0.0.1:80 10.1.0.1:80 --mode dr",
                "[possible values: nat, direct]",
            ),
            ("zero tcp", "<ADDRESS>"),
        ] {
            let said = complaint(line);
            assert!(said.contains(words), "{line}: {said}");
        }
    }
}

//! directorctl's own verbs.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use control::client::Client;
use control::{
    Change, Connection, Cursor, DEFAULT_SOCKET, ForwardMode, Neighbour, Protocol, Reply, Request,
    ServerSpec, Service, ServiceKey, ServiceSpec, Status,
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
        #[command(flatten)]
        service: Option<Key>,
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
    List,
    Add(ServiceArgs),
    Edit(ServiceArgs),
    Delete(Key),
}

#[derive(Debug, Subcommand)]
enum ServerVerb {
    List(Key),
    Add(ServerArgs),
    Edit(ServerArgs),
    Delete {
        #[command(flatten)]
        service: Key,
        /// ADDRESS:PORT of the server.
        server: SocketAddr,
    },
}

#[derive(Debug, Subcommand)]
enum ConnectionVerb {
    List,
}

#[derive(Debug, Subcommand)]
enum NeighbourVerb {
    List,
}

#[derive(Debug, Args)]
struct Key {
    protocol: Transport,
    /// ADDRESS:PORT of the service.
    address: SocketAddr,
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
struct ServiceArgs {
    #[command(flatten)]
    service: Key,
    /// LVS's name: rr, wrr, lc, wlc …
    #[arg(long, short, default_value = "wlc")]
    scheduler: String,
}

#[derive(Debug, Args)]
struct ServerArgs {
    #[command(flatten)]
    service: Key,
    /// ADDRESS:PORT of the server.
    server: SocketAddr,
    /// How packets reach the server.
    #[arg(long, value_enum, default_value = "nat")]
    mode: Mode,
    /// Share of new connections; 0 drains the server.
    #[arg(long, short, default_value_t = 1)]
    weight: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Nat,
}

impl ServerArgs {
    fn spec(&self) -> ServerSpec {
        let mode = match self.mode {
            Mode::Nat => ForwardMode::Nat,
        };
        ServerSpec {
            mode,
            weight: self.weight,
        }
    }
}

/// Runs the verb on the command line.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    let printed = run(&cli).and_then(|text| match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
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
        Reply::Services(list) => Ok(services(list, &cli.verb)),
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
            (_, false) => Ok(show_status(&status)),
        },
        Reply::Neighbours(list) if cli.json => json(&list),
        Reply::Neighbours(list) => Ok(neighbours(&list)),
        Reply::Connections { .. } => bail!(control::client::ClientError::Unexpected),
    }
}

fn request(verb: &Verb) -> Request {
    let spec = |args: &ServiceArgs| ServiceSpec {
        scheduler: args.scheduler.clone(),
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
        Verb::Zero { service } => Change::Zero {
            only: service.as_ref().map(Key::key),
        },
        Verb::Service(ServiceVerb::Add(args)) => Change::AddService {
            service: args.service.key(),
            spec: spec(args),
        },
        Verb::Service(ServiceVerb::Edit(args)) => Change::EditService {
            service: args.service.key(),
            spec: spec(args),
        },
        Verb::Service(ServiceVerb::Delete(service)) => Change::DeleteService {
            service: service.key(),
        },
        Verb::Server(ServerVerb::Add(args)) => Change::AddServer {
            service: args.service.key(),
            server: args.server,
            spec: args.spec(),
        },
        Verb::Server(ServerVerb::Edit(args)) => Change::EditServer {
            service: args.service.key(),
            server: args.server,
            spec: args.spec(),
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
    let mut out = row(&["PROTO", "STATE", "EXPIRES", "CLIENT", "VIRTUAL", "SERVER"]);
    for conn in &all {
        let expires = format!("{} s", conn.expires_ms / 1000);
        let (client, service) = (conn.client.to_string(), conn.virtual_address.to_string());
        let server = conn.server.to_string();
        out += &row(&[
            protocol(conn.protocol),
            &conn.state,
            &expires,
            &client,
            &service,
            &server,
        ]);
    }
    Ok(out)
}

fn row(cells: &[&str]) -> String {
    let mut out = String::new();
    for cell in cells {
        // Writing to a string cannot fail.
        let _ = write!(out, "{cell:<22}");
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Services and their servers in numeric order: what they are, or with `stats` what they did.
fn services(mut list: Vec<Service>, verb: &Verb) -> String {
    list.sort_by_key(|service| service.key);
    let stats = matches!(verb, Verb::Stats);
    let mut out = if stats {
        row(&[
            "",
            "CONNECTIONS",
            "IN PACKETS",
            "OUT PACKETS",
            "IN BYTES",
            "OUT BYTES",
            "CONNS/S",
        ])
    } else {
        row(&[
            "SERVICE / SERVER",
            "SCHEDULER / MODE",
            "WEIGHT",
            "ACTIVE",
            "INACTIVE",
        ])
    };
    for mut service in list {
        let name = format!("{} {}", protocol(service.key.protocol), service.key.address);
        out += &if stats {
            counters(&name, &service.totals, &service.rates)
        } else {
            row(&[&name, &service.spec.scheduler])
        };
        service.servers.sort_by_key(|server| server.address);
        for server in &service.servers {
            let name = format!("  {}", server.address);
            let mode = match server.spec.mode {
                ForwardMode::Nat => "nat",
            };
            let numbers = [server.spec.weight, server.active, server.inactive];
            let [weight, active, inactive] = numbers.map(|n| n.to_string());
            out += &if stats {
                counters(&name, &server.totals, &server.rates)
            } else {
                row(&[&name, mode, &weight, &active, &inactive])
            };
        }
    }
    out
}

fn counters(name: &str, totals: &control::Totals, rates: &control::Rates) -> String {
    let t = totals;
    let numbers = [
        t.conns,
        t.in_packets,
        t.out_packets,
        t.in_bytes,
        t.out_bytes,
        rates.cps,
    ];
    let numbers = numbers.map(|n| n.to_string());
    let mut cells = vec![name];
    cells.extend(numbers.iter().map(String::as_str));
    row(&cells)
}

fn show_status(status: &Status) -> String {
    let balanced = if status.balanced {
        "balance"
    } else {
        "do not balance (yet)"
    };
    let mut out = format!(
        "{}, up {} s; {} buffers in use; packet counts {balanced}\n",
        status.program, status.uptime_s, status.mbufs_in_use
    );
    for port in &status.ports {
        let link = if port.link_up { "up" } else { "down" };
        let _ = writeln!(
            out,
            "port {} ({}) {}, mtu {}, link {link}: received {} packets, {} bytes; sent {}, {}",
            port.name,
            port.device,
            port.mac,
            port.mtu,
            port.rx_packets,
            port.rx_bytes,
            port.tx_packets,
            port.tx_bytes
        );
        out += &named("end", &port.ends);
        out += &named("drop", &port.drops);
    }
    for worker in &status.workers {
        let _ = writeln!(
            out,
            "worker on core {}: received {}, made {}, held {}; {} of {} connections; \
             steered out {}, in {}",
            worker.core,
            worker.rx,
            worker.made,
            worker.held,
            worker.connections,
            worker.connections_max,
            worker.steered_out,
            worker.steered_in
        );
        out += &named("end", &worker.ends);
        out += &named("drop", &worker.drops);
    }
    out
}

/// Those counters that moved.
fn named(kind: &str, counters: &[(String, u64)]) -> String {
    let moved = counters.iter().filter(|(_, count)| *count > 0);
    moved
        .map(|(name, count)| format!("  {kind} {name}: {count}\n"))
        .collect()
}

fn neighbours(list: &[Neighbour]) -> String {
    let mut out = row(&["PORT", "ADDRESS", "MAC", "STATE"]);
    for neighbour in list {
        let mac = neighbour.mac.as_deref().unwrap_or("-");
        out += &row(&[
            &neighbour.port,
            &neighbour.address.to_string(),
            mac,
            &neighbour.state,
        ]);
    }
    out
}

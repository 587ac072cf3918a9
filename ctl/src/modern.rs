//! directorctl's own verbs.

mod drain; // a server is drained, and watched
mod mark; // rules that mark packets
mod request; // from verbs to requests
mod show; // answers as tables

use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use control::client::Client;
use control::{
    ClientAddress, Connection, Cursor, DEFAULT_SOCKET, ForwardMode, Protocol, Refusal, Reply,
    Request, ServiceKey, TunnelChecksum, TunnelKind, Word,
};
use serde::Serialize;

use drain::DrainArgs;
use mark::MarkVerb;
use request::request;

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
    /// What the servers reached by fullnat see as their client.
    #[command(subcommand)]
    LocalAddress(LocalAddressVerb),
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
    /// Rules that mark packets, for services by mark.
    #[command(subcommand)]
    Mark(MarkVerb),
    /// Zero the counters: of all services, or of the one named.
    Zero(Perhaps),
    /// Show the timeouts, or set those named, in seconds.
    Timeouts {
        #[arg(long)]
        tcp: Option<u32>,
        #[arg(long)]
        tcp_fin: Option<u32>,
        #[arg(long)]
        udp: Option<u32>,
    },
    /// Show the settings, or set those named.
    Settings {
        /// Whether an ICMP error about a packet that would have a service opens a connection.
        #[arg(long)]
        schedule_icmp: Option<bool>,
        /// Whether tunnels copy DF and tell a packet's sender when it is too long.
        #[arg(long)]
        pmtu_disc: Option<bool>,
    },
    /// This program's version and the director's.
    Version,
}

const SCHEDULER: &str = "By LVS's name: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos; or conhash.";
const FLAGS: &str = "Of sh: sh-fallback, sh-port; of mh: mh-fallback, mh-port; \"none\" for none. sh and mh have \
    their fallback unless set: a client whose server is quiesced or overloaded gets another.";

#[derive(Debug, Subcommand)]
enum ServiceVerb {
    /// All services, their local addresses and servers.
    List,
    /// Add a service.
    Add {
        #[command(flatten)]
        service: Key,
        #[arg(long, short, help = SCHEDULER, default_value = "wlc")]
        scheduler: String,
        #[arg(long, value_delimiter = ',', help = FLAGS)]
        scheduler_flags: Option<Vec<String>>,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Change what is named of a service; connections stay.
    #[command(group = some_of(["scheduler", "scheduler_flags", "client_address", "mss", "mh_table_size"]))]
    Edit {
        #[command(flatten)]
        service: Key,
        #[arg(long, short, help = SCHEDULER)]
        scheduler: Option<String>,
        #[arg(long, value_delimiter = ',', help = FLAGS)]
        scheduler_flags: Option<Vec<String>>,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Delete a service; its connections stay, but their packets are dropped
    Delete(Key),
}

/// An edit names something.
fn some_of<const N: usize>(names: [&'static str; N]) -> ArgGroup {
    let what = ArgGroup::new("what").args(names);
    what.multiple(true).required(true)
}

#[derive(Debug, Args)]
struct OptionArgs {
    /// How servers reached by fullnat learn the client's address; toa unless set.
    #[arg(long, value_parser = one_of::<ClientAddress>())]
    client_address: Option<ClientAddress>,
    /// The largest TCP segment either side may announce, in bytes; "none" leaves announcements alone.
    #[arg(long, value_parser = mss)]
    mss: Option<Mss>,
    /// Slots of mh's table, a prime from 251 to 1048573; 4093 unless set.
    #[arg(long, allow_negative_numbers = true)]
    mh_table_size: Option<u32>,
}

/// `none` or a number.
#[derive(Debug, Clone, Copy)]
struct Mss(Option<u16>);

fn mss(text: &str) -> Result<Mss, &'static str> {
    match text {
        "none" => Ok(Mss(None)),
        number => number
            .parse()
            .map(|mss| Mss(Some(mss)))
            .map_err(|_| "not a segment size, 1380 or none is right"),
    }
}

#[derive(Debug, Subcommand)]
enum ServerVerb {
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

#[derive(Debug, Subcommand)]
enum LocalAddressVerb {
    /// Those of all services, or of the one named.
    List(Perhaps),
    /// Add a local address to a service.
    Add {
        #[command(flatten)]
        service: Key,
        #[arg(value_parser = address)]
        local: IpAddr,
    },
    /// Delete a local address of a service.
    Delete {
        #[command(flatten)]
        service: Key,
        #[arg(value_parser = address)]
        local: IpAddr,
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
    #[arg(value_parser = one_of::<Protocol>())]
    protocol: Protocol,
    /// ADDRESS:PORT of the service.
    #[arg(value_parser = address_port)]
    address: SocketAddr,
}

impl Key {
    fn key(&self) -> ServiceKey {
        ServiceKey::at(self.protocol, self.address)
    }
}

/// A service, or all.
#[derive(Debug, Args)]
struct Perhaps {
    #[arg(requires = "address", value_parser = one_of::<Protocol>())]
    protocol: Option<Protocol>,
    /// ADDRESS:PORT of the service.
    #[arg(value_parser = address_port)]
    address: Option<SocketAddr>,
}

impl Perhaps {
    fn key(&self) -> Option<ServiceKey> {
        let both = self.protocol.zip(self.address);
        both.map(|(protocol, address)| ServiceKey::at(protocol, address))
    }
}

#[derive(Debug, Args)]
struct ServerKey {
    #[command(flatten)]
    service: Key,
    /// ADDRESS:PORT of the server.
    #[arg(value_parser = address_port)]
    server: SocketAddr,
}

#[derive(Debug, Args)]
struct SpecArgs {
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

/// One of the words of a choice.
fn one_of<T: Word + Send + Sync>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::ALL.iter().map(|value| value.word())).try_map(|word| {
        let mut all = T::ALL.iter().copied();
        all.find(|value| value.word() == word).ok_or("no such word")
    })
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an address, 10.0.0.5 or 2001:db8::5 is right")
}

fn address_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right")
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
    if let Verb::Server(ServerVerb::Drain(args)) = &cli.verb {
        return drain::run(args, &mut client, cli.json);
    }
    let request = request(&cli.verb, &mut client)?;
    if let Request::Connections { .. } = request {
        return connections(cli, &mut client);
    }
    match client.ask(&request)? {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done if cli.json => json(&Reply::Done),
        Reply::Done => Ok(String::new()),
        Reply::Services(list) => match (&cli.verb, cli.json) {
            (Verb::LocalAddress(_), true) => json(&show::LocalAddresses::of(&list)),
            (_, true) => json(&list),
            (Verb::LocalAddress(_), false) => Ok(show::local_addresses(&list)),
            (Verb::Stats, false) => Ok(show::stats(list)),
            (_, false) => Ok(show::services(list)),
        },
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
        Reply::Marks(rules) if cli.json => json(&mark::Numbered::all(&rules)),
        Reply::Marks(rules) => Ok(mark::table(&rules)),
        Reply::Connections { .. } => bail!(control::client::ClientError::Unexpected),
    }
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

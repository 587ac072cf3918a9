//! directorctl's own verbs.

mod answers; // what only JSON has
mod capture; // packets into a file
mod connection; // connections listed, ended and watched
mod doctor; // what the machine lacks
mod drain; // a server is drained, and watched
mod drops; // the last drops
mod explain; // where a packet would go
mod files; // configuration files: check, plan, apply, save
mod generate; // completions and man pages
mod import; // configurations of others
mod mark; // rules that mark packets
mod metrics; // for Prometheus
mod network; // addresses, routes, neighbours
mod node; // whether clients are to come
mod pcapng; // captures as files
mod port; // the NICs
mod request; // from verbs to requests
mod schema; // what JSON looks like
mod settings; // one option for each
mod show; // answers as tables
mod sync; // connections that other directors know of
mod top; // again and again

use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand};
use control::client::Client;
use control::{
    ClientAddress, DEFAULT_SOCKET, Engine, ForwardMode, HashTarget, OnServerGone, Protocol,
    Refusal, Refuse, Reply, ServiceKey, TunnelChecksum, TunnelKind, Word,
};
use serde::Serialize;

use capture::CaptureArgs;
use connection::ConnectionVerb;
use doctor::DoctorArgs;
use drain::DrainArgs;
use drops::DropsArgs;
use explain::ExplainArgs;
use files::{ApplyArgs, FileArgs, SaveArgs};
use generate::{CompletionsArgs, ManArgs};
use import::ImportArgs;
use mark::MarkVerb;
use network::{AddressVerb, NeighbourVerb, RouteVerb};
use node::NodeVerb;
use port::PortVerb;
use request::request;
use schema::SchemaArgs;
use settings::SettingArgs;
use sync::SyncVerb;
use top::TopArgs;

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
    /// Where a packet would go, and why; nothing is sent and nothing changes.
    Explain(ExplainArgs),
    /// Connections.
    #[command(subcommand)]
    Connection(ConnectionVerb),
    /// The servers' health checks: how each is, since when, and what its last probe came to.
    Health,
    /// Ports, workers and why packets were dropped.
    Status,
    /// Totals and rates of services and servers.
    Stats(StatsArgs),
    /// What services, servers and workers do now, the busiest first, again and again. In a terminal
    /// keys change what is shown: its last line says which.
    Top(TopArgs),
    /// All metrics in Prometheus's text format, as the HTTP endpoint has them.
    Metrics,
    /// The last packets that were dropped, and why.
    Drops(DropsArgs),
    /// Capture packets as pcapng, with what was decided about each.
    Capture(CaptureArgs),
    /// Ports: the NICs, physical and virtual.
    #[command(subcommand)]
    Port(PortVerb),
    /// Addresses of the director's ports.
    #[command(subcommand)]
    Address(AddressVerb),
    /// Where packets to other networks go.
    #[command(subcommand)]
    Route(RouteVerb),
    /// Neighbours.
    #[command(subcommand)]
    Neighbour(NeighbourVerb),
    /// Rules that mark packets, for services by mark.
    #[command(subcommand)]
    Mark(MarkVerb),
    /// Connections that other directors know of, for when they take over.
    #[command(subcommand)]
    Sync(SyncVerb),
    /// Whether clients are to come to this director, one of several.
    #[command(subcommand)]
    Node(NodeVerb),
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
    /// Show the settings, what each is unless set and what it means, or set those named.
    Settings(SettingArgs),
    /// Say whether a configuration file is valid; works without a director.
    Check(FileArgs),
    /// Show what a configuration file would change of what runs. Exits with 0 if nothing, with 2 if
    /// something.
    Plan(FileArgs),
    /// Make what runs what a configuration file says, all at once; what stays keeps its connections.
    Apply(ApplyArgs),
    /// Keep what apply --confirm applied.
    Confirm,
    /// Go back to the configuration from before apply --confirm.
    Rollback,
    /// Write the running configuration as a file.
    Save(SaveArgs),
    /// Turn what ipvsadm-save printed, a keepalived.conf or a dpvs.conf into a configuration of the
    /// director's, without one running. What cannot be carried over is said line by line.
    Import(ImportArgs),
    /// Say what this machine lacks for the director to run, and to run fast, and the command that mends
    /// it: huge pages, drivers, NUMA nodes, cores, clocks, ports. Exits with 1 if something is bad.
    Doctor(DoctorArgs),
    /// This program's version and the director's.
    Version,
    /// Print a completion script for a shell: source <(directorctl completions bash).
    Completions(CompletionsArgs),
    /// Write the man pages, one for each verb.
    Man(ManArgs),
    /// Print the JSON Schema of what a verb prints with --json.
    Schema(SchemaArgs),
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
        policy: PolicyArgs,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Change what is named of a service; connections stay.
    #[command(group = some_of([
        "scheduler", "scheduler_flags", "persistent", "netmask", "engine", "one_packet",
        "client_address", "mss", "mh_table_size", "timeout_tcp", "timeout_tcp_fin", "timeout_udp",
        "refuse", "on_server_gone", "reset_on_expiry", "slow_start", "hash_target",
    ]))]
    Edit {
        #[command(flatten)]
        service: Key,
        #[arg(long, short, help = SCHEDULER)]
        scheduler: Option<String>,
        #[arg(long, value_delimiter = ',', help = FLAGS)]
        scheduler_flags: Option<Vec<String>>,
        #[command(flatten)]
        policy: PolicyArgs,
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

/// Which clients keep their server, and for how long.
#[derive(Debug, Args)]
struct PolicyArgs {
    /// Seconds for which a client comes back to the server it had, 1 to 2678400; "none", as unless
    /// set, for not.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    persistent: Option<OrNone<u32>>,
    /// Clients whose address is the same under it share a server: 255.255.255.0 or 24 for IPv4, 64
    /// for IPv6. Each by itself unless set.
    #[arg(long)]
    netmask: Option<String>,
    /// What tells persistent clients apart: sip is the Call-ID of SIP over UDP; "none", as unless set,
    /// is the address.
    #[arg(long, value_parser = or_none::<Engine>())]
    engine: Option<OrNone<Engine>>,
    /// Schedule each UDP datagram by itself; =false for not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_packet: Option<bool>,
}

#[derive(Debug, Args)]
struct OptionArgs {
    /// How servers reached by fullnat learn the client's address; toa unless set.
    #[arg(long, value_parser = one_of::<ClientAddress>())]
    client_address: Option<ClientAddress>,
    /// The largest TCP segment either side may announce, in bytes; "none" leaves announcements alone.
    #[arg(long, value_parser = mss)]
    mss: Option<OrNone<u16>>,
    /// Slots of mh's table, a prime from 251 to 1048573; 4093 unless set.
    #[arg(long, allow_negative_numbers = true)]
    mh_table_size: Option<u32>,
    /// Seconds without a packet until an established TCP connection ends; "none" for those of all
    /// services.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_tcp: Option<OrNone<u32>>,
    /// The same after a FIN.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_tcp_fin: Option<OrNone<u32>>,
    /// The same for UDP.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_udp: Option<OrNone<u32>>,
    /// What clients are told when there is no server: ICMP port unreachable (icmp, unless set), a TCP
    /// reset, or nothing.
    #[arg(long, value_parser = one_of::<Refuse>())]
    refuse: Option<Refuse>,
    /// What becomes of packets whose server was deleted: dropped (unless set), answered by a reset, or
    /// sent to another server where they may open a connection.
    #[arg(long, value_parser = one_of::<OnServerGone>())]
    on_server_gone: Option<OnServerGone>,
    /// Reset both ends of a TCP connection that expires while established; =false for not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    reset_on_expiry: Option<bool>,
    /// Seconds in which the weight of a server that comes or comes back grows; 0 unless set.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    slow_start: Option<u32>,
    /// What conhash tells clients apart by: the address (sip, unless set) or QUIC's connection id (qid).
    #[arg(long, value_parser = one_of::<HashTarget>())]
    hash_target: Option<HashTarget>,
}

/// A value, or `none`.
#[derive(Debug, Clone, Copy)]
struct OrNone<T>(Option<T>);

const NONE: &str = "none";

fn mss(text: &str) -> Result<OrNone<u16>, &'static str> {
    number(text).ok_or("not a segment size, 1380 or none is right")
}

fn seconds(text: &str) -> Result<OrNone<u32>, &'static str> {
    number(text).ok_or("not a number of seconds, 600 or none is right")
}

fn number<T: FromStr>(text: &str) -> Option<OrNone<T>> {
    match text {
        NONE => Some(OrNone(None)),
        number => number.parse().ok().map(|number| OrNone(Some(number))),
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

#[derive(Debug, Args)]
struct StatsArgs {
    /// Print them again and again, with so many seconds in between.
    #[arg(long, value_name = "SECONDS", value_parser = top::interval)]
    watch: Option<Duration>,
}

/// What the name of a service begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    At(Protocol),
    Mark,
}

impl Word for Kind {
    const ALL: &'static [Self] = &[
        Self::At(Protocol::Tcp),
        Self::At(Protocol::Udp),
        Self::At(Protocol::Sctp),
        Self::Mark,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::At(protocol) => protocol.word(),
            Self::Mark => "mark",
        }
    }
}

/// What comes after its [`Kind`].
#[derive(Debug, Clone, Copy)]
enum Name {
    Address(SocketAddr),
    Mark(NonZeroU32),
}

#[derive(Debug, Args)]
struct Key {
    #[arg(value_name = "PROTOCOL", value_parser = one_of::<Kind>())]
    kind: Kind,
    /// ADDRESS:PORT of the service, port 0 for every port; with mark the mark, 7 or 0x7.
    #[arg(value_name = "ADDRESS", value_parser = name)]
    name: Name,
    /// The mark is that of IPv6 packets.
    #[arg(long)]
    ipv6: bool,
}

impl Key {
    fn key(&self) -> Result<ServiceKey> {
        key(self.kind, self.name, self.ipv6)
    }
}

fn key(kind: Kind, name: Name, ipv6: bool) -> Result<ServiceKey> {
    match (kind, name) {
        (Kind::At(_), _) if ipv6 => bail!("--ipv6 goes with a mark, not with an address"),
        (Kind::At(protocol), Name::Address(address)) => Ok(ServiceKey::at(protocol, address)),
        (Kind::Mark, Name::Mark(mark)) => Ok(ServiceKey::Mark { mark, ipv6 }),
        (Kind::At(_), Name::Mark(mark)) => bail!("{mark} is {NO_ADDRESS_PORT}"),
        (Kind::Mark, Name::Address(address)) => bail!("{address} is not a mark, 7 or 0x7 is right"),
    }
}

/// A service, or all.
#[derive(Debug, Args)]
struct Perhaps {
    #[arg(requires = "name", value_name = "PROTOCOL", value_parser = one_of::<Kind>())]
    kind: Option<Kind>,
    /// ADDRESS:PORT of the service; with mark the mark, 7 or 0x7.
    #[arg(value_name = "ADDRESS", value_parser = name)]
    name: Option<Name>,
    /// The mark is that of IPv6 packets.
    #[arg(long, requires = "name")]
    ipv6: bool,
}

impl Perhaps {
    fn key(&self) -> Result<Option<ServiceKey>> {
        let both = self.kind.zip(self.name);
        both.map(|(kind, name)| key(kind, name, self.ipv6))
            .transpose()
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

/// One of the words of a choice, or `none`.
fn or_none<T: Word + Send + Sync>() -> impl TypedValueParser<Value = OrNone<T>> {
    let words = T::ALL.iter().map(|value| value.word()).chain([NONE]);
    PossibleValuesParser::new(words).map(|word| {
        let mut all = T::ALL.iter().copied();
        OrNone(all.find(|value| value.word() == word))
    })
}

/// A mark or an address and port; [`key`] finds which one it has to be.
fn name(text: &str) -> Result<Name, &'static str> {
    let mark = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match mark.map(NonZeroU32::new) {
        Some(Some(mark)) => Ok(Name::Mark(mark)),
        Some(None) => Err("not a mark, 1 to 4294967295 is right"),
        None => address_port(text).map(Name::Address),
    }
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    text.parse()
        .map_err(|_| "not an address, 10.0.0.5 or 2001:db8::5 is right")
}

const NO_ADDRESS_PORT: &str = "not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right";

fn address_port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| NO_ADDRESS_PORT)
}

/// Runs the verb on the command line.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(control::usage::explain("directorctl", &error)),
    };
    if let Verb::Doctor(args) = &cli.verb {
        return doctor::main(args, &cli.socket, cli.json);
    }
    let printed =
        answer(&cli).and_then(
            |(text, code)| match io::stdout().write_all(text.as_bytes()) {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(code),
            },
        );
    match printed {
        Ok(code) => code,
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

/// What is printed, and the exit code.
fn answer(cli: &Cli) -> Result<(String, ExitCode)> {
    match &cli.verb {
        Verb::Check(args) => files::check(args, cli.json),
        Verb::Plan(args) => files::plan(args, &mut connect(cli)?, cli.json),
        Verb::Node(verb) => node::run(verb, &mut connect(cli)?, cli.json),
        _ => Ok((run(cli)?, ExitCode::SUCCESS)),
    }
}

fn connect(cli: &Cli) -> Result<Client> {
    let hint = "--socket names another path";
    Ok(Client::connect(&cli.socket, "directorctl", hint)?)
}

fn run(cli: &Cli) -> Result<String> {
    match &cli.verb {
        Verb::Completions(args) => return Ok(generate::completions(args)),
        Verb::Man(args) => return generate::man(args),
        Verb::Schema(args) => return schema::run(args),
        Verb::Import(args) => return import::run(args, cli.json),
        _ => {}
    }
    let mut client = connect(cli)?;
    match &cli.verb {
        Verb::Save(args) => return files::save(args, &mut client, cli.json),
        Verb::Server(ServerVerb::Drain(args)) => return drain::run(args, &mut client, cli.json),
        Verb::Connection(verb) => return connection::run(verb, &mut client, cli.json),
        Verb::Metrics => return metrics::run(&mut client, cli.json),
        Verb::Top(args) => {
            top::unless_closed(top::run(args, &mut client, cli.json))?;
            return Ok(String::new());
        }
        Verb::Stats(StatsArgs { watch: Some(every) }) => {
            top::unless_closed(top::watch_stats(&mut client, *every, cli.json))?;
            return Ok(String::new());
        }
        Verb::Drops(args) => return drops::run(args, &mut client, cli.json),
        Verb::Capture(args) => return capture::run(args, &mut client, cli.json),
        _ => {}
    }
    let request = request(&cli.verb, &mut client)?;
    match client.ask(&request)? {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done if cli.json => json(&Reply::Done),
        Reply::Done => Ok(String::new()),
        Reply::Plan(plan) if cli.json => json(&plan),
        Reply::Plan(plan) => Ok(files::applied(&plan)),
        Reply::Services(list) => match (&cli.verb, cli.json) {
            (Verb::LocalAddress(_), true) => json(&show::LocalAddresses::of(&list)),
            (_, true) => json(&list),
            (Verb::LocalAddress(_), false) => Ok(show::local_addresses(&list)),
            (Verb::Stats(_), false) => Ok(show::stats(list)),
            (_, false) => Ok(show::services(list)),
        },
        Reply::Explained(explained) if cli.json => json(&explained),
        Reply::Explained(explained) => Ok(explain::text(&explained)),
        Reply::Timeouts { tcp, tcp_fin, udp } if cli.json => {
            json(&answers::Timeouts { tcp, tcp_fin, udp })
        }
        Reply::Timeouts { tcp, tcp_fin, udp } => {
            Ok(format!("tcp {tcp} s, tcp-fin {tcp_fin} s, udp {udp} s\n"))
        }
        Reply::Status(status) => match (&cli.verb, cli.json) {
            (Verb::Version, true) => json(&answers::Version {
                directorctl: env!("CARGO_PKG_VERSION"),
                protocol: control::VERSION,
                director: status.program,
            }),
            (Verb::Version, false) => Ok(format!(
                "directorctl {}, protocol {}\n{}\n",
                env!("CARGO_PKG_VERSION"),
                control::VERSION,
                status.program
            )),
            (Verb::Port(_), true) => json(&status.ports),
            (Verb::Port(_), false) => Ok(port::table(&status.ports)),
            (_, true) => json(&status),
            (_, false) => Ok(show::status(&status)),
        },
        Reply::Settings(settings) if cli.json => json(&settings),
        Reply::Settings(settings) => Ok(settings::table(settings)),
        Reply::Neighbours(list) if cli.json => json(&list),
        Reply::Neighbours(list) => Ok(show::neighbours(&list)),
        Reply::Network(all) => match (&cli.verb, cli.json) {
            (Verb::Route(_), true) => json(&network::ways(&all)),
            (Verb::Route(_), false) => Ok(network::routes(&all)),
            (_, true) => json(&network::every_address(&all)),
            (_, false) => Ok(network::addresses(&all)),
        },
        Reply::Marks(rules) if cli.json => json(&mark::Numbered::all(&rules)),
        Reply::Marks(rules) => Ok(mark::table(&rules)),
        Reply::SyncDaemons(daemons) if cli.json => json(&daemons),
        Reply::SyncDaemons(daemons) => Ok(sync::table(&daemons)),
        Reply::Health(list) if cli.json => json(&list),
        Reply::Health(list) => Ok(show::health(&list)),
        Reply::Saved { .. }
        | Reply::Connections { .. }
        | Reply::Drops { .. }
        | Reply::Metrics { .. }
        | Reply::Node(_)
        | Reply::CaptureStarted { .. }
        | Reply::Captured { .. } => bail!(control::client::ClientError::Unexpected),
    }
}

fn json(answer: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(answer).context("writing JSON")?;
    Ok(text + "\n")
}

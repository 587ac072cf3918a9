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
mod key; // what services and servers go by
mod local_address; // of FULLNAT
mod mark; // rules that mark packets
mod metrics; // for Prometheus
mod network; // addresses, routes, neighbours
mod node; // whether clients are to come
mod pcapng; // captures as files
mod port; // the NICs
mod progress; // what is watched until it ends
mod request; // from verbs to requests
mod schema; // what JSON looks like
mod server; // real servers
mod service; // virtual services
mod settings; // one option for each
mod show; // answers as tables
mod sync; // connections that other directors know of
#[cfg(test)]
mod testing; // lines of tests
mod top; // again and again
mod values; // of options

use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use control::client::{Client, ClientError};
use control::{DEFAULT_SOCKET, Refusal, Reply};
use serde::Serialize;

use capture::CaptureArgs;
use connection::ConnectionVerb;
use doctor::DoctorArgs;
use drops::DropsArgs;
use explain::ExplainArgs;
use files::{ApplyArgs, FileArgs, SaveArgs};
use generate::{CompletionsArgs, ManArgs};
use import::ImportArgs;
use key::Perhaps;
use local_address::LocalAddressVerb;
use mark::MarkVerb;
use network::{AddressVerb, NeighbourVerb, RouteVerb};
use node::NodeVerb;
use port::PortVerb;
use request::request;
use schema::SchemaArgs;
use server::ServerVerb;
use service::ServiceVerb;
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

#[derive(Debug, Args)]
struct StatsArgs {
    /// Print them again and again, with so many seconds in between.
    #[arg(long, value_name = "SECONDS", value_parser = top::interval)]
    watch: Option<Duration>,
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
    shown(cli, client.ask(&request)?)
}

/// An answer as it is printed.
fn shown(cli: &Cli, reply: Reply) -> Result<String> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.into()),
        Reply::Done => cli.shown(&Reply::Done, String::new),
        Reply::Plan(plan) => cli.shown(&plan, || files::applied(&plan)),
        Reply::Services(list) => match &cli.verb {
            Verb::LocalAddress(_) => cli.shown(&show::LocalAddresses::of(&list), || {
                show::local_addresses(&list)
            }),
            Verb::Stats(_) => cli.shown(&list, || show::stats(&list)),
            _ => cli.shown(&list, || show::services(&list)),
        },
        Reply::Explained(explained) => cli.shown(&explained, || explain::text(&explained)),
        Reply::Timeouts { tcp, tcp_fin, udp } => cli
            .shown(&answers::Timeouts { tcp, tcp_fin, udp }, || {
                format!("tcp {tcp} s, tcp-fin {tcp_fin} s, udp {udp} s\n")
            }),
        Reply::Status(status) => match &cli.verb {
            Verb::Version => {
                let version = answers::Version {
                    directorctl: env!("CARGO_PKG_VERSION"),
                    protocol: control::VERSION,
                    director: status.program,
                };
                cli.shown(&version, || version.to_string())
            }
            Verb::Port(_) => cli.shown(&status.ports, || port::table(&status.ports)),
            _ => cli.shown(&status, || show::status(&status)),
        },
        Reply::Settings(settings) => cli.shown(&settings, || settings::table(settings)),
        Reply::Neighbours(list) => cli.shown(&list, || show::neighbours(&list)),
        Reply::Network(all) => match &cli.verb {
            Verb::Route(_) => cli.shown(&network::ways(&all), || network::routes(&all)),
            _ => cli.shown(&network::every_address(&all), || network::addresses(&all)),
        },
        Reply::Marks(rules) => cli.shown(&mark::Numbered::all(&rules), || mark::table(&rules)),
        Reply::SyncDaemons(daemons) => cli.shown(&daemons, || sync::table(&daemons)),
        Reply::Health(list) => cli.shown(&list, || show::health(&list)),
        Reply::Saved { .. }
        | Reply::Connections { .. }
        | Reply::Drops { .. }
        | Reply::Metrics { .. }
        | Reply::Node(_)
        | Reply::CaptureStarted { .. }
        | Reply::Captured { .. } => bail!(ClientError::Unexpected),
    }
}

impl Cli {
    /// As JSON where that was asked for.
    fn shown(&self, answer: &impl Serialize, text: impl FnOnce() -> String) -> Result<String> {
        match self.json {
            true => json(answer),
            false => Ok(text()),
        }
    }
}

fn json(answer: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(answer).context("writing JSON")?;
    Ok(text + "\n")
}

//! `directord`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dataplane::bench;
use dataplane::config::{Config, LogFormat};
use dataplane::daemon::{self, Beginning, heritage, log};

/// A Linux Virtual Server director in userspace, on DPDK.
#[derive(Debug, Parser)]
#[command(name = "directord", version = version(), disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
#[command(arg_required_else_help = true)]
struct Args {
    /// Configuration file (TOML); configs/example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only read the configuration and say whether it is valid.
    #[arg(long, requires = "config")]
    check: bool,
    /// Go on with the connections of the directord that runs, which is stopped once it is sure that they can be had;
    /// with --check only say whether they could.
    #[arg(long, requires = "config")]
    take_over: bool,
    /// Begin with no connections, whatever a directord before this one left.
    #[arg(long, requires = "config", conflicts_with_all = ["check", "take_over"])]
    forget: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
}

fn version() -> &'static str {
    let version = format!(
        "{} ({})\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        env!("DIRECTOR_BUILD"),
        dataplane::dpdk::version(),
        env!("DIRECTOR_TARGET"),
    );
    // clap wants it for the life of the program.
    version.leak()
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return ExitCode::from(control::usage::explain("directord", &error)),
    };
    let mut format = LogFormat::Human;
    match run(args, &mut format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::failure(format, &error);
            ExitCode::FAILURE
        }
    }
}

/// `format` is how the log is written, once it is.
fn run(args: Args, format: &mut LogFormat) -> Result<()> {
    if let Some(command) = args.command {
        return match command {
            Command::Bench(options) => bench::command(&options),
        };
    }
    let Some(path) = args.config else {
        return Ok(());
    };
    let config = Config::load(&path)?;
    if args.check {
        return match args.take_over {
            true => heritage::check(&config),
            false => Ok(()),
        };
    }
    log::start(&config.director);
    *format = config.director.log_format;
    let beginning = match (args.take_over, args.forget) {
        (true, _) => Beginning::TakeOver,
        (_, true) => Beginning::Empty,
        _ => Beginning::GoOn,
    };
    daemon::run(&config, &path, beginning)
}

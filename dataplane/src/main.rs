//! `directord`: the daemon.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use dataplane::bench;
use dataplane::config::Config;
use dataplane::daemon;

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
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
}

fn version() -> &'static str {
    let version = format!(
        "{} ({})",
        env!("CARGO_PKG_VERSION"),
        dataplane::dpdk::version()
    );
    // clap wants it for the life of the program.
    version.leak()
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return ExitCode::from(control::usage::explain("directord", &error)),
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directord: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
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
        return Ok(());
    }
    log_at(config.director.log);
    daemon::run(&config, &path)
}

fn log_at(level: tracing::Level) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

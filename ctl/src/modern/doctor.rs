//! `directorctl doctor`: what the machine lacks, and the command that mends it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use control::client::Client;
use control::doctor::{self, Daemon, Finding, Level, Plan, PlannedPort, Running};
use control::{Reply, Request, Status};

use super::answers::Examined;
use super::json;

const CONFIG: &str = "/etc/director/director.toml";

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The configuration that the machine is meant for; /etc/director/director.toml if it is there,
    /// otherwise what the running director has.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at another machine's /proc, /sys and /dev below this folder; no director is asked.
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
}

/// Failure if something is bad, and when it could not look.
pub(super) fn main(args: &DoctorArgs, socket: &Path, as_json: bool) -> ExitCode {
    let examined = examine(args, socket).and_then(|findings| {
        let text = if as_json {
            as_json_text(&findings)?
        } else {
            table(&findings)
        };
        // Who closed it has seen enough.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(is_fine(&findings))
    });
    match examined {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("directorctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn examine(args: &DoctorArgs, socket: &Path) -> Result<Vec<Finding>> {
    let daemon = match args.root {
        None => ask(socket),
        Some(_) => Daemon::NotAsked,
    };
    let plan = match &args.config {
        Some(file) => from_file(file)?,
        None if Path::new(CONFIG).exists() && args.root.is_none() => from_file(Path::new(CONFIG))?,
        None => of_running(&daemon),
    };
    let root = args.root.as_deref().unwrap_or(Path::new("/"));
    Ok(doctor::examine(&doctor::read(root, plan, daemon)))
}

fn from_file(file: &Path) -> Result<Plan> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    doctor::plan(file, &text).map_err(anyhow::Error::msg)
}

/// What the director that runs was configured with, as far as it says.
fn of_running(daemon: &Daemon) -> Plan {
    let mut plan = Plan::default();
    if let Daemon::Running(running) = daemon {
        plan.workers = running
            .status
            .workers
            .iter()
            .map(|worker| worker.core)
            .collect();
        let ports = running.status.ports.iter();
        plan.ports = ports
            .map(|port| PlannedPort {
                name: port.name.clone(),
                device: port.device.clone(),
            })
            .collect();
    }
    plan
}

fn ask(socket: &Path) -> Daemon {
    let asked = || -> Result<Status> {
        let mut client = Client::connect(socket, "directorctl", "--socket names another path")?;
        match client.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => Err(control::client::ClientError::Unexpected.into()),
        }
    };
    match asked() {
        Ok(status) => Daemon::Running(Box::new(Running {
            status,
            expected: concat!("directord ", env!("CARGO_PKG_VERSION")).to_owned(),
        })),
        Err(error) => Daemon::Silent(format!("{error:#}")),
    }
}

fn is_fine(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Bad)
}

fn as_json_text(findings: &[Finding]) -> Result<String> {
    json(&Examined {
        ok: is_fine(findings),
        findings,
    })
}

/// A line for each finding, and below what is not fine why, and what mends it.
fn table(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.topic.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for Finding {
        topic,
        level,
        seen,
        why,
        mend,
    } in findings
    {
        out += &format!("{:<4}  {topic:<width$}  {seen}\n", level.word());
        let below = " ".repeat(width + 8);
        if !why.is_empty() {
            out += &format!("{below}{why}\n");
        }
        if let Some(command) = mend {
            out += &format!("{below}mend: {command}\n");
        }
    }
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    out += &format!(
        "{} bad, {} to look at\n",
        count(Level::Bad),
        count(Level::Warn)
    );
    out
}

//! Configuration files: `check`, `plan`, `apply`, `save`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, value_parser};
use control::client::{Client, ClientError};
use control::plan::{Action, Difference, KeyDifference, Plan, What};
use control::{File, Reply, Request, ServiceKey};

use super::answers::{Checked, Saved};
use super::json;

/// The one program that reads configuration files.
const READER: &str = "directord";
/// Exit code of a plan that changes something.
const DIFFERS: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// Configuration file (TOML).
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// Configuration file (TOML).
    file: PathBuf,
    /// Go back after so many SECONDS, unless directorctl confirm comes within them.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..))]
    confirm: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Where to; printed unless set.
    file: Option<PathBuf>,
}

impl ApplyArgs {
    pub(super) fn request(&self) -> Result<Request> {
        Ok(Request::Apply {
            file: read(&self.file)?,
            confirm_s: self.confirm,
        })
    }
}

fn read(path: &Path) -> Result<File> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| format!("{name}: cannot be read"))?;
    Ok(File { name, text })
}

/// The reader of files is the daemon's own: it is run, and what it says is passed on.
pub(super) fn check(args: &FileArgs, as_json: bool) -> Result<(String, ExitCode)> {
    let output = Command::new(reader())
        .arg("--config")
        .arg(&args.file)
        .arg("--check")
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "{READER} reads configuration files, and is neither beside directorctl nor on the PATH: \
             install both of one release"
        ),
        output => output.with_context(|| format!("running {READER}"))?,
    };
    let code = output
        .status
        .code()
        .and_then(|code| u8::try_from(code).ok());
    let code = code.unwrap_or(1);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, complaint) = (said(&output.stdout), said(&output.stderr));
    if !as_json {
        eprint!("{complaint}");
        return Ok((printed, ExitCode::from(code)));
    }
    let answer = Checked {
        file: args.file.display().to_string(),
        valid: code == 0,
        message: complaint.trim_end().to_owned(),
    };
    Ok((json(&answer)?, ExitCode::from(code)))
}

/// Beside this program, else wherever the PATH says.
fn reader() -> OsString {
    let own = std::env::current_exe().ok();
    let beside = own.map(|own| own.with_file_name(READER));
    let beside = beside.filter(|path| path.is_file());
    beside.map_or(READER.into(), PathBuf::into_os_string)
}

pub(super) fn plan(
    args: &FileArgs,
    client: &mut Client,
    as_json: bool,
) -> Result<(String, ExitCode)> {
    let plan = match client.ask(&Request::Plan(read(&args.file)?))? {
        Reply::Plan(plan) => plan,
        Reply::Refused(refusal) => return Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    };
    let code = match (&plan.refused, plan.is_empty()) {
        (Some(_), _) => ExitCode::FAILURE,
        (None, true) => ExitCode::SUCCESS,
        (None, false) => ExitCode::from(DIFFERS),
    };
    let text = if as_json { json(&plan)? } else { shown(&plan) };
    Ok((text, code))
}

/// What was applied, and what is to be done about it.
pub(super) fn applied(plan: &Plan) -> String {
    let mut text = shown(plan);
    if let Some(seconds) = plan.confirm_s {
        // Nothing fails that writes into a string.
        let _ = writeln!(
            text,
            "applied for {seconds} s: directorctl confirm keeps it, directorctl rollback goes back"
        );
    } else if !plan.differences.is_empty() {
        text.push_str("applied\n");
    }
    text
}

pub(super) fn save(args: &SaveArgs, client: &mut Client, as_json: bool) -> Result<String> {
    let (text, flaw) = match client.ask(&Request::Save)? {
        Reply::Saved { text, flaw } => (text, flaw),
        Reply::Refused(refusal) => return Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    };
    if let Some(flaw) = &flaw {
        eprintln!("directorctl: what runs cannot be loaded from a file as it is: {flaw}");
    }
    let Some(path) = &args.file else {
        return match as_json {
            true => json(&Saved {
                file: None,
                text: Some(text),
                flaw,
            }),
            false => Ok(text),
        };
    };
    write_whole(path, &text).with_context(|| format!("writing {}", path.display()))?;
    match as_json {
        true => json(&Saved {
            file: Some(path.display().to_string()),
            text: None,
            flaw,
        }),
        false => Ok(String::new()),
    }
}

/// Whoever reads `path` finds all of the old text, or all of the new one. A file that is there keeps
/// its mode, and a link keeps pointing to it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(&path).map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// A plan for people: what differs, what needs a restart, what would come of it.
fn shown(plan: &Plan) -> String {
    let mut out = String::new();
    if plan.is_empty() {
        return format!("{} is what runs\n", plan.file);
    }
    differences(&mut out, plan);
    // Nothing fails that writes into a string.
    if !plan.needs_restart.is_empty() {
        out.push_str("needs a restart, and stays as it runs:\n");
        for restart in &plan.needs_restart {
            let _ = writeln!(out, "  {restart}");
        }
    }
    if let Some(refusal) = &plan.refused {
        let _ = writeln!(out, "cannot be applied: {refusal}");
        return out;
    }
    forecast(&mut out, plan);
    out
}

/// Servers stand below their service.
fn differences(out: &mut String, plan: &Plan) {
    let mut of: Option<ServiceKey> = None;
    for difference in &plan.differences {
        let (indent, name) = match &difference.what {
            What::Port { port } => ("", format!("port {port}")),
            What::Address { address } => ("", format!("address {address}")),
            What::Route { to } => ("", format!("route to {}/{}", to.address(), to.length())),
            What::Neighbour { neighbour } => ("", format!("neighbour {neighbour}")),
            What::Timeouts => ("", "timeouts".to_owned()),
            What::Settings => ("", "settings".to_owned()),
            What::Mark { rule, number } => ("", format!("rule {number}: {rule}")),
            What::Service { service } => {
                of = Some(*service);
                ("", service.to_string())
            }
            What::Server { service, server } => {
                if of != Some(*service) {
                    let _ = writeln!(out, "  {service}");
                    of = Some(*service);
                }
                ("    ", format!("server {server}"))
            }
        };
        let details = details(difference, plan);
        let colon = if details.is_empty() { "" } else { ": " };
        let sign = sign(difference.action);
        let _ = writeln!(out, "{indent}{sign} {name}{colon}{details}");
    }
}

fn sign(action: Action) -> char {
    match action {
        Action::Add => '+',
        Action::Edit => '~',
        Action::Delete => '-',
    }
}

fn details(difference: &Difference, plan: &Plan) -> String {
    let mut details: Vec<String> = difference.keys.iter().map(key).collect();
    if difference.by_hand {
        match difference.action {
            Action::Add => details.push("was deleted by hand".to_owned()),
            Action::Delete => details.push("was added by hand".to_owned()),
            Action::Edit => {}
        }
    }
    if difference.action == Action::Delete {
        let cut = cut(&difference.what, plan);
        details.extend(cut.map(|cut| format!("{cut} connections are cut")));
    }
    details.join(", ")
}

fn key(difference: &KeyDifference) -> String {
    let KeyDifference {
        key,
        before,
        after,
        by_hand,
    } = difference;
    match before {
        Some(before) if *by_hand => format!("{key} {before} -> {after} ({before} by hand)"),
        Some(before) => format!("{key} {before} -> {after}"),
        None => format!("{key} {after}"),
    }
}

/// How many connections go with it.
fn cut(what: &What, plan: &Plan) -> Option<u64> {
    let servers = plan.forecast.servers.iter().filter(|server| match what {
        What::Service { service } => server.service == *service,
        What::Server {
            service,
            server: at,
        } => server.service == *service && server.server == *at,
        _ => false,
    });
    let cut = servers.map(|server| server.connections).sum();
    (cut > 0).then_some(cut)
}

fn forecast(out: &mut String, plan: &Plan) {
    let forecast = &plan.forecast;
    if plan.differences.is_empty() {
        return;
    }
    let (kept, cut) = (forecast.kept, forecast.cut);
    let _ = writeln!(out, "{kept} connections are kept, {cut} are cut");
    for slots in &forecast.slots {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let percent = slots.moved as f64 * 100.0 / slots.of.max(1) as f64;
        let (service, scheduler) = (slots.service, &slots.scheduler);
        let _ = match slots.of {
            // Nobody thinks of a ring in points of 32 bits.
            ring if ring > u64::from(u32::MAX) => {
                writeln!(out, "{service}: {percent:.1} % of {scheduler}'s ring moves")
            }
            of => {
                let moved = slots.moved;
                writeln!(
                    out,
                    "{service}: {moved} of {of} slots of {scheduler} move ({percent:.1} %)"
                )
            }
        };
    }
    let bytes = forecast.table_bytes_more;
    if bytes != 0 {
        let (size, more) = (
            bytes.unsigned_abs(),
            if bytes > 0 { "more" } else { "less" },
        );
        let _ = writeln!(out, "tables take {size} bytes {more}");
    }
}

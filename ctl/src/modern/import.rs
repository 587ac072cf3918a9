//! `directorctl import`: what ipvsadm, keepalived and DPVS have, as a configuration of ours.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use control::import::{self, Around, Files, Import, Kind};
use control::ipvsadm::names::SystemNames;

use super::answers::Imported;
use super::json;
use super::values::one_of;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// Output of ipvsadm-save (DPVS's too), a keepalived.conf (DPVS's too), or a dpvs.conf; - is standard input.
    file: PathBuf,
    /// Which of them it is; its words tell unless set.
    #[arg(long, value_parser = one_of::<Kind>())]
    from: Option<Kind>,
    /// Write the configuration there instead of on standard output.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// The machine for which keepalived.conf is read: its lines that begin with @ID are for that one. This
    /// one's name unless set.
    #[arg(long, value_name = "ID")]
    config_id: Option<String>,
}

/// What goes to standard output; what could not be carried over goes to standard error.
pub(super) fn run(args: &ImportArgs, as_json: bool) -> Result<String> {
    let name = args.file.display().to_string();
    let text = read(&args.file).with_context(|| name.clone())?;
    let config_id = args.config_id.clone().unwrap_or_else(host);
    let around = Around {
        files: &Included,
        names: &SystemNames,
        config_id: &config_id,
    };
    let import = import::import(args.from, &name, &text, around)?;
    let mut complaints = io::stderr().lock();
    for note in &import.notes {
        // Who closed it does not want to know.
        let _ = writeln!(complaints, "{note}");
    }
    let answer = if as_json {
        as_json_text(&import)?
    } else {
        import.toml()
    };
    match &args.output {
        Some(path) => {
            fs::write(path, answer).with_context(|| path.display().to_string())?;
            Ok(String::new())
        }
        None => Ok(answer),
    }
}

fn as_json_text(import: &Import) -> Result<String> {
    json(&Imported {
        toml: import.toml(),
        services: import.services.len(),
        notes: &import.notes,
    })
}

/// Old files are in many encodings; what matters in them is ASCII.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().read_to_end(&mut bytes)?;
    } else {
        bytes = fs::read(path)?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first part of this machine's name.
fn host() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// Files as a shell would find them.
struct Included;

impl Files for Included {
    fn read(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let folder = Path::new(from).parent().unwrap_or(Path::new(""));
        let pattern = folder.join(pattern);
        let paths = glob::glob(&pattern.to_string_lossy()).map_err(|error| error.to_string())?;
        let files = paths.map(|path| {
            let path = path.map_err(|error| error.to_string())?;
            let text = read(&path).map_err(|error| error.to_string())?;
            Ok((path.display().to_string(), text))
        });
        files.collect()
    }
}

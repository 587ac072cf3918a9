//! What verbs print as JSON that is not an answer of the director's as it stands.

use std::fmt;

use control::doctor::Finding;
use control::import::Note;
use schemars::JsonSchema;
use serde::Serialize;

/// Of `timeouts`, in seconds.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Timeouts {
    pub(super) tcp: u32,
    pub(super) tcp_fin: u32,
    pub(super) udp: u32,
}

/// Of `version`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Version {
    pub(super) directorctl: &'static str,
    /// Version of the control protocol.
    pub(super) protocol: u32,
    pub(super) director: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            directorctl,
            protocol,
            director,
        } = self;
        writeln!(
            f,
            "directorctl {directorctl}, protocol {protocol}\n{director}"
        )
    }
}

/// Of `check`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Checked {
    pub(super) file: String,
    pub(super) valid: bool,
    /// What is wrong, with file and line; empty if nothing is.
    pub(super) message: String,
}

/// Of `save`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Saved {
    /// Where it was written to, if not to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// The configuration as TOML, if it was not written to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// Why it cannot be loaded as it is, if it cannot.
    pub(super) flaw: Option<String>,
}

/// Of `capture`, at its end.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Captured {
    pub(super) captured: u64,
    /// Packets for which there was no room.
    pub(super) missed: u64,
}

/// Of `metrics`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Metrics {
    pub(super) format: &'static str,
    pub(super) text: String,
}

/// Of `import`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Imported<'a> {
    pub(super) toml: String,
    /// How many there are.
    pub(super) services: usize,
    /// What was not carried over.
    pub(super) notes: &'a [Note],
}

/// Of `doctor`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Examined<'a> {
    /// Nothing is bad.
    pub(super) ok: bool,
    pub(super) findings: &'a [Finding],
}

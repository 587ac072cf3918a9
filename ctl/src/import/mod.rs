//! What others' configurations say of services, as a configuration of ours: ipvsadm-save's output,
//! keepalived.conf, dpvs.conf.
//!
//! Nothing is left out in silence: what cannot be carried over is a [`Note`] with its file and line.

mod blocks; // keywords and blocks in braces, as keepalived and DPVS write them
mod dpvs;
mod draft; // services as they are read, and what of them can stand
mod ipvsadm;
mod keepalived;
mod text; // the configuration as TOML
mod virtual_server; // one block of keepalived.conf

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::ipvsadm::names::Names;
use crate::{ServiceKey, ServiceTimeouts};
pub use draft::{SCHEDULERS, Virtual};

/// The most files that includes may bring in.
const FILES_MAX: usize = 1024;
/// Of all files together, in bytes, with parameters replaced.
const TEXT_MAX: usize = 64 << 20;

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Command lines as ipvsadm-save writes them, DPVS's and Alibaba's words included.
    Ipvsadm,
    /// keepalived.conf, DPVS's words included.
    Keepalived,
    /// dpvs.conf.
    Dpvs,
}

impl crate::Word for Kind {
    const ALL: &'static [Self] = &[Self::Ipvsadm, Self::Keepalived, Self::Dpvs];

    fn word(self) -> &'static str {
        match self {
            Self::Ipvsadm => "ipvsadm",
            Self::Keepalived => "keepalived",
            Self::Dpvs => "dpvs",
        }
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Place {
    #[serde(serialize_with = "plain")]
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
}

fn plain<S: serde::Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(text)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What was not carried over, and why; or what is left to do by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Note {
    #[serde(flatten)]
    pub place: Place,
    /// The service that it is about, if one.
    #[serde(skip)]
    pub about: Option<ServiceKey>,
    pub what: String,
}

impl Note {
    /// `what` may be of anything that files say.
    fn new(place: &Place, about: Option<ServiceKey>, what: &str) -> Self {
        Self {
            place: place.clone(),
            about,
            what: what.chars().map(printable).collect(),
        }
    }
}

/// `keepalived.conf:12: delay_loop: checks are not carried over, [[service.check]] is right; docs/health.md`
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Why a file could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Wrong {
    pub place: Place,
    pub what: String,
}

/// The files that one includes.
pub trait Files {
    /// Name and text of each that fits `pattern`, which is relative to the folder of the file `from`.
    fn read(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String>;
}

/// What an import goes by besides the text.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub files: &'a dyn Files,
    pub names: &'a dyn Names,
    /// For which machine keepalived.conf is read: lines that begin with `@ID` are that one's only.
    pub config_id: &'a str,
}

impl fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around")
            .field("config_id", &self.config_id)
            .finish_non_exhaustive()
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub kind: Kind,
    pub timeouts: ServiceTimeouts,
    pub expire_quiescent_template: bool,
    pub services: Vec<Virtual>,
    /// In the order of files and lines.
    pub notes: Vec<Note>,
}

impl Import {
    /// What a configuration says of timeouts, settings and services, with the notes as comments.
    pub fn toml(&self) -> String {
        text::toml(self)
    }
}

/// Reads `text`; `file` is what messages call it. Without a kind the text tells.
pub fn import(
    kind: Option<Kind>,
    file: &str,
    text: &str,
    around: Around<'_>,
) -> Result<Import, Wrong> {
    let first = Place {
        file: file.into(),
        line: 1,
    };
    let kind = kind.or_else(|| guess(text)).ok_or_else(|| Wrong {
        place: first.clone(),
        what: "neither ipvsadm-save's output nor keepalived.conf nor dpvs.conf, \
               --from ipvsadm, keepalived or dpvs says which it is"
            .to_owned(),
    })?;
    if text.len() > TEXT_MAX {
        let what = format!("longer than {} MiB", TEXT_MAX >> 20);
        return Err(Wrong { place: first, what });
    }
    match kind {
        Kind::Ipvsadm => ipvsadm::import(file, text, around),
        Kind::Keepalived => keepalived::import(file, text, around),
        Kind::Dpvs => dpvs::import(file, text, around),
    }
}

/// By the first word that only one of them has.
fn guess(text: &str) -> Option<Kind> {
    let lines = text.lines().map(str::trim_start);
    let words = lines.filter(|line| !line.starts_with(['#', '!']));
    let mut words = words.flat_map(str::split_whitespace);
    words.find_map(|word| match word {
        "ipvsadm" | "-A" | "-a" | "-C" | "--add-service" | "--clear" | "--set" => {
            Some(Kind::Ipvsadm)
        }
        "netif_defs" | "worker_defs" | "timer_defs" | "neigh_defs" | "ipset_defs" | "ipv4_defs"
        | "ipv6_defs" | "ctrl_defs" | "ipvs_defs" | "sa_pool" => Some(Kind::Dpvs),
        "virtual_server"
        | "virtual_server_group"
        | "local_address_group"
        | "vrrp_instance"
        | "vrrp_sync_group"
        | "include"
        | "lvs_timeouts"
        | "router_id"
        | "notification_email" => Some(Kind::Keepalived),
        _ => None,
    })
}

/// As comments and terminals take it.
fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

/// Text of a file within a message: no control characters, and not much of it.
fn quoted(text: &str) -> String {
    const MAX: usize = 60;
    let mut short: String = text.chars().take(MAX).map(printable).collect();
    if text.chars().nth(MAX).is_some() {
        short.push('…');
    }
    short
}

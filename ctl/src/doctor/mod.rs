//! What a machine must have for the director to run, and to run fast: facts, read once, become findings,
//! each with what was seen, why it matters and the command that mends it.

mod cores; // cores: isolation, siblings, clocks, governors
mod daemon; // the running director and its ports
mod devices; // what ports are made of: NICs, interfaces, device files
mod facts; // what is looked at
mod memory; // huge pages, limits
mod read; // facts, from /proc, /sys and the configuration
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::Serialize;

pub use facts::{
    Cpu, Daemon, Device, Facts, HugePages, Interface, Iommu, Node, Plan, PlannedPort, Running,
};
pub use read::{plan, read};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Ok,
    /// The director runs, but slower, or not as one may think.
    Warn,
    /// The director does not start, or forwards nothing.
    Bad,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub topic: &'static str,
    pub level: Level,
    pub seen: String,
    /// Why it matters; of what is fine nothing.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub why: &'static str,
    /// The command that mends it, as it is to be typed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(topic: &'static str, seen: impl Into<String>) -> Self {
        Self {
            topic,
            level: Level::Ok,
            seen: seen.into(),
            why: "",
            mend: None,
        }
    }

    fn warn(topic: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self {
            topic,
            level: Level::Warn,
            seen: seen.into(),
            why,
            mend: None,
        }
    }

    fn bad(topic: &'static str, seen: impl Into<String>, why: &'static str) -> Self {
        Self {
            topic,
            level: Level::Bad,
            seen: seen.into(),
            why,
            mend: None,
        }
    }

    #[must_use]
    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend = Some(command.into());
        self
    }
}

/// Everything that there is to say of a machine.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    memory::examine(facts, &mut findings);
    devices::examine(facts, &mut findings);
    cores::examine(facts, &mut findings);
    daemon::examine(facts, &mut findings);
    findings
}

/// `1-3,7`, as the kernel's command line and sysfs write lists of cores.
fn list(cores: &[u16]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    let runs = cores.chunk_by(|a, b| a + 1 == *b);
    let runs = runs.map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

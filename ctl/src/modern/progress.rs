//! What is watched until it ends, look by look, as it is shown.

use std::io::{IsTerminal, Write};

use anyhow::Result;
use serde::Serialize;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// One line that is written over, for a terminal.
    InPlace,
    /// A line for each look that has news, and at the end.
    Lines,
    /// An object a look, each on a line.
    Json,
}

impl Style {
    pub(super) fn of(json: bool, out: &impl IsTerminal) -> Self {
        match (json, out.is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::InPlace,
            (false, false) => Self::Lines,
        }
    }

    /// Shows a look, in words as `line` has it. After the last one the line is left.
    pub(super) fn show(
        self,
        look: &impl Serialize,
        line: &str,
        is_news: bool,
        is_last: bool,
        out: &mut impl Write,
    ) -> Result<()> {
        match self {
            Self::Json => writeln!(out, "{}", serde_json::to_string(look)?)?,
            Self::InPlace => {
                let end = if is_last { "\n" } else { "" };
                // Back to the line's beginning, and nothing of the old one stays behind the new one.
                write!(out, "\r{line}\x1b[K{end}")?;
            }
            Self::Lines if is_last || is_news => writeln!(out, "{line}")?,
            Self::Lines => {}
        }
        out.flush()?;
        Ok(())
    }
}

//! ipvsadm 1.31 as its users know it: grammar, messages, tables, exit codes.

pub mod address;
pub mod args;
pub mod lower;
pub mod names;
mod options; // what LVS has no words for
pub mod popt;
pub mod run;
pub mod show;

/// A command line that ends with a message on stderr.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub message: String,
    /// The process's exit status.
    pub code: u8,
    /// What the director knows beyond ipvsadm's words.
    pub detail: Option<String>,
}

impl Failure {
    /// The command line is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 2,
            detail: None,
        }
    }

    /// The command line is not understood, or the director refused.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 255,
            detail: None,
        }
    }

    /// A listing cannot be made.
    pub(crate) fn unlisted(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
            detail: None,
        }
    }

    /// The line does not begin with a command.
    pub(crate) fn try_help() -> Self {
        Self::refused("Try `ipvsadm -h' or 'ipvsadm --help' for more information.")
    }
}

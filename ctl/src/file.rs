//! A configuration file as it travels: who asks reads it, the daemon understands it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The text of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// As the user wrote it, for messages.
    pub name: String,
    /// TOML.
    pub text: String,
}

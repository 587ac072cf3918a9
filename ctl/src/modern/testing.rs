//! Lines of directorctl, for tests.

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Line<V: Subcommand> {
    #[command(subcommand)]
    verb: V,
}

/// What a line says behind the program's name, or its group's; or the complaint about it.
pub(super) fn parsed<V: Subcommand>(line: &str) -> Result<V, String> {
    let words = ["directorctl"].into_iter().chain(line.split(' '));
    match Line::try_parse_from(words) {
        Ok(Line { verb }) => Ok(verb),
        Err(error) => Err(error.to_string()),
    }
}

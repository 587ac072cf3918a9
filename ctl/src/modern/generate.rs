//! What is made of the command line itself: completions for shells, and man pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// Of commands that manage a system.
const SECTION: &str = "8";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Where to write them.
    directory: PathBuf,
}

/// A script for the shell, to be read by it or put where it looks for completions.
pub(super) fn completions(args: &CompletionsArgs) -> String {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "directorctl", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes directorctl.8 and a page for each verb; returns what was written, a path a line.
pub(super) fn man(args: &ManArgs) -> Result<String> {
    let directory = &args.directory;
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = String::new();
    pages(command, directory, &mut written)?;
    Ok(written)
}

fn pages(command: Command, directory: &Path, written: &mut String) -> Result<()> {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs.cloned() {
        pages(verb, directory, written)?;
    }
    // `server drain` is `directorctl-server-drain` once the command was built.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let (name, path) = (name.to_owned(), directory.join(format!("{name}.{SECTION}")));
    let mut page = Vec::new();
    let man = Man::new(command.name(name)).section(SECTION);
    man.render(&mut page)?;
    fs::write(&path, page).with_context(|| path.display().to_string())?;
    written.push_str(&format!("{}\n", path.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_completes_verbs_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(&CompletionsArgs { shell });
            for word in ["local-address", "drain", "hash-target"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn a_page_for_each_verb() {
        let directory = tempfile::tempdir().unwrap();
        let args = ManArgs {
            directory: directory.path().join("man8"),
        };
        let written = man(&args).unwrap();
        let page = |name: &str| fs::read_to_string(args.directory.join(name)).unwrap();
        assert!(page("directorctl.8").contains(".TH directorctl 8"));
        assert!(page("directorctl-server-drain.8").contains("deadline"));
        assert!(written.lines().count() > 15, "{written}");
    }
}

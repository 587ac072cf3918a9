//! A mistake on a command line, in one line.

use clap::error::ErrorKind;

/// Prints what clap has to say: help and versions as they are, a mistake as one line on stderr.
/// Returns the exit code.
pub fn explain(program: &str, error: &clap::Error) -> u8 {
    let asked_for = !error.use_stderr();
    if asked_for || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nobody is left to tell when even this cannot be printed.
        let _ = error.print();
    } else {
        eprintln!("{program}: {}", one_line(program, &error.to_string()));
    }
    u8::try_from(error.exit_code()).unwrap_or(1)
}

/// Clap's message without its usage, tips included.
fn one_line(program: &str, text: &str) -> String {
    let said = text.split("\n\n").enumerate().filter_map(|(i, part)| {
        let part = part.split_whitespace().collect::<Vec<_>>().join(" ");
        let tip = part.strip_prefix("tip: ").map(str::to_owned);
        if i == 0 {
            Some(part.trim_start_matches("error: ").to_owned())
        } else {
            tip
        }
    });
    let said = said.collect::<Vec<_>>().join("; ");
    format!("{said} ({program} --help lists what there is)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_and_its_tip_on_one_line() {
        let text = "error: unrecognized subcommand 'servce'\n\n  tip: some similar subcommands \
                    exist: 'server', 'service'\n\nUsage: x\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line("x", text),
            "unrecognized subcommand 'servce'; some similar subcommands exist: 'server', 'service' \
             (x --help lists what there is)"
        );
        let text = "error: the following required arguments were not provided:\n  <A>\n  <B>\n\nUsage: x\n";
        assert_eq!(
            one_line("x", text),
            "the following required arguments were not provided: <A> <B> (x --help lists what there is)"
        );
    }
}

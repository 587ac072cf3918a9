//! ipvsadm's command lines, and the text that it restores.

use control::client::ClientError;
use control::ipvsadm::run::{Error, Ipvsadm};
use dataplane::control::Control;

use crate::{NoNames, ask, director, everything};

/// More are no news.
const LINES_MAX: usize = 64;

/// Each line is a command line; one that fails changes nothing.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut director = director();
    for line in text.lines().take(LINES_MAX) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let before = everything(&mut director);
        if ipvsadm(&mut director, "ipvsadm", &words, "").is_err() {
            assert_eq!(
                everything(&mut director),
                before,
                "{line:?} changed something"
            );
        }
    }
    saved_is_restored(&mut director);
}

/// A restore does all of it or, but for what comes before a listing, nothing.
pub(crate) fn restore(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut director = director();
    let setup = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m\n";
    ipvsadm(&mut director, "ipvsadm", &["-R".to_owned()], setup).unwrap();
    for name in ["ipvsadm", "ipvsadm-restore"] {
        let words = if name == "ipvsadm" {
            vec!["-R".to_owned()]
        } else {
            Vec::new()
        };
        let before = everything(&mut director);
        match ipvsadm(&mut director, name, &words, &text) {
            Ok(_) | Err(Error::Line { applied: true, .. }) => {}
            Err(error) => assert_eq!(everything(&mut director), before, "{error:?}"),
        }
    }
    saved_is_restored(&mut director);
}

/// What is saved makes a director of which the same is saved: the lines, for ipvsadm's order of
/// addresses is none, and so depends on what came first.
fn saved_is_restored(first: &mut Control) {
    let first = saved(first);
    let mut second = director();
    ipvsadm(&mut second, "ipvsadm-restore", &[], &first)
        .unwrap_or_else(|error| panic!("{}\n{first}", error.report("ipvsadm-restore")));
    let second = saved(&mut second);
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(lines(&second), lines(&first), "of\n{first}");
}

fn saved(director: &mut Control) -> String {
    ipvsadm(director, "ipvsadm-save", &["-n".to_owned()], "").unwrap()
}

fn ipvsadm(
    director: &mut Control,
    name: &str,
    words: &[String],
    input: &str,
) -> Result<String, Error> {
    let mut output = Vec::new();
    Ipvsadm {
        names: &NoNames,
        ask: &mut |request| Ok::<_, ClientError>(ask(director, request.clone())),
        input: &mut input.as_bytes(),
        output: &mut output,
    }
    .run(name, words)?;
    Ok(String::from_utf8(output).unwrap())
}

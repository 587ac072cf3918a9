//! `directorctl`; called `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore` it speaks their language.

mod modern;

use std::env;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use control::client::Client;
use control::ipvsadm::names::SystemNames;
use control::ipvsadm::run::{Error, Ipvsadm};
use control::{DEFAULT_SOCKET, Request};

const SOCKET_VARIABLE: &str = "DIRECTOR_SOCKET";

fn main() -> ExitCode {
    let mut words = env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let name = Path::new(&called)
        .file_name()
        .map(|name| name.to_string_lossy());
    match name.as_deref() {
        Some(name @ ("ipvsadm" | "ipvsadm-save" | "ipvsadm-restore")) => {
            ipvsadm(name, &words.collect::<Vec<_>>())
        }
        _ => modern::main(),
    }
}

fn ipvsadm(name: &str, words: &[String]) -> ExitCode {
    let socket = env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
    let socket = PathBuf::from(socket);
    // Connected at the first question: a wrong command line needs no daemon.
    let mut client = None;
    let mut ask = |request: &Request| match &mut client {
        Some(client) => Client::ask(client, request),
        none => {
            let hint = "DIRECTOR_SOCKET names another path";
            let client = Client::connect(&socket, name, hint)?;
            none.insert(client).ask(request)
        }
    };
    let mut output = io::BufWriter::new(io::stdout().lock());
    let result = Ipvsadm {
        names: &SystemNames,
        ask: &mut ask,
        input: &mut io::stdin(),
        output: &mut output,
    }
    .run(name, words);
    match result.and_then(|()| output.flush().map_err(Error::Output)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has seen enough.
        Err(Error::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            // What was printed before goes out before.
            let _ = output.flush();
            eprint!("{}", error.report(name));
            ExitCode::from(error.code())
        }
    }
}

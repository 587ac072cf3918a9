//! Carries out a command line called `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore`.

use std::io::{self, Read, Write};

use super::Failure;
use super::args::{Command, Opt, Parsed, parse};
use super::lower::{Unsupported, general, refusal, supported};
use super::names::Names;
use super::show::{self, Style};
use crate::client::ClientError;
use crate::{Change, Errno, Refusal, Reply, Request};

const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

const HELP: &str = "\
ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)
This is directorctl speaking ipvsadm's language to a userspace director.

Services
  -A|-E -t|-u ADDRESS:PORT [-s SCHEDULER]     add or edit (wlc when no scheduler is named)
  -D -t|-u ADDRESS:PORT                       delete
  -C                                          delete all
Real servers
  -a|-e -t|-u ADDRESS:PORT -r SERVER[:PORT] -m [-w WEIGHT]
  -d -t|-u ADDRESS:PORT -r SERVER[:PORT]
Listing
  -L|-l [-t|-u ADDRESS:PORT] [-n] [--stats|--rate] [--exact] [--nosort]
  -L -c [-n]                                  connections
  -L --timeout                                timeouts
Other
  -Z [-t|-u ADDRESS:PORT]                     zero the counters
  --set TCP TCPFIN UDP                        timeouts in seconds; 0 leaves one as it is
  -S [-n]                                     save as command lines on stdout
  -R                                          restore from stdin: all lines or none
  -h, -v                                      help, version
The rest of ipvsadm's grammar is understood, and refused while the director cannot do it.
The director's socket is that of DIRECTOR_SOCKET or the default.
";

/// Asks the daemon.
pub type Ask<'a> = dyn FnMut(&Request) -> Result<Reply, ClientError> + 'a;

/// What a command line acts on.
pub struct Ipvsadm<'a> {
    pub names: &'a dyn Names,
    pub ask: &'a mut Ask<'a>,
    pub input: &'a mut dyn Read,
    pub output: &'a mut dyn Write,
}

impl std::fmt::Debug for Ipvsadm<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ipvsadm").finish_non_exhaustive()
    }
}

/// Why a command line did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Failure(#[from] Failure),
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    #[error("cannot read standard input: {0}")]
    Input(io::Error),
}

impl Error {
    /// The process's exit status.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failure(failure) => failure.code,
            Self::Unsupported(_) | Self::Client(_) | Self::Input(_) => 2,
            Self::Output(_) => 1,
        }
    }
}

/// One step of a restore.
enum Step {
    Changes(Vec<Change>),
    Show(Box<Parsed>, Request),
}

impl Ipvsadm<'_> {
    /// Carries out `words` as the program `name`.
    pub fn run(&mut self, name: &str, words: &[String]) -> Result<(), Error> {
        match name {
            "ipvsadm-save" => {
                let mut all = vec!["-S".to_owned()];
                all.extend_from_slice(words);
                self.line(&all)
            }
            "ipvsadm-restore" => match words.first() {
                Some(word) => Err(Failure::invalid(format!("unexpected argument {word}")).into()),
                None => self.restore(vec![Change::Flush]),
            },
            _ => self.line(words),
        }
    }

    fn line(&mut self, words: &[String]) -> Result<(), Error> {
        let parsed = parse(words, self.names)?;
        match supported(&parsed)? {
            Some(Request::Change(changes)) => self.change(changes),
            Some(request) => self.show(&parsed, request),
            None => match parsed.command {
                Command::Help => self.print(HELP),
                Command::Version => self.print(VERSION),
                _ => self.restore(Vec::new()),
            },
        }
    }

    /// Applies the lines of the input on top of `first`: all of them or, when one is wrong or
    /// refused, none. Only a listing among them divides them into parts.
    fn restore(&mut self, first: Vec<Change>) -> Result<(), Error> {
        let mut text = String::new();
        self.input.read_to_string(&mut text).map_err(Error::Input)?;
        // Every line is read before any is judged unsupported, and that before any is sent.
        let mut lines = Vec::new();
        for line in text.lines() {
            let words = restore_words(line);
            if words.is_empty() {
                continue;
            }
            let parsed = parse(&words, self.names)?;
            if matches!(
                parsed.command,
                Command::Restore | Command::Help | Command::Version
            ) {
                return Err(Failure::try_help().into());
            }
            lines.push(parsed);
        }
        let mut steps = vec![Step::Changes(first)];
        for parsed in lines {
            match (supported(&parsed)?, steps.last_mut()) {
                (Some(Request::Change(new)), Some(Step::Changes(changes))) => changes.extend(new),
                (Some(Request::Change(new)), _) => steps.push(Step::Changes(new)),
                (Some(request), _) => steps.push(Step::Show(Box::new(parsed), request)),
                (None, _) => {}
            }
        }
        for step in steps {
            match step {
                Step::Changes(changes) if changes.is_empty() => {}
                Step::Changes(changes) => self.change(changes)?,
                Step::Show(parsed, request) => self.show(&parsed, request)?,
            }
        }
        Ok(())
    }

    fn change(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let request = Request::Change(changes);
        match (self.ask)(&request)? {
            Reply::Done => Ok(()),
            Reply::Refused(refused) => {
                let Request::Change(changes) = &request else {
                    unreachable!("made above")
                };
                Err(refused_change(changes, &refused).into())
            }
            _ => Err(ClientError::Unexpected.into()),
        }
    }

    fn show(&mut self, parsed: &Parsed, request: Request) -> Result<(), Error> {
        let names = self.names;
        let style = Style::of(parsed, names);
        let mut request = request;
        let mut started = false;
        loop {
            match (self.ask)(&request)? {
                Reply::Services(services) if parsed.command == Command::Save => {
                    return self.print(&show::save(services, &style));
                }
                Reply::Services(services) => {
                    if !parsed.has(Opt::Service) {
                        self.print(show::TITLE)?;
                    }
                    return self.print(&show::services(services, &style));
                }
                Reply::Timeouts { tcp, tcp_fin, udp } => {
                    return self.print(&show::timeouts(tcp, tcp_fin, udp));
                }
                Reply::Connections { list, next } => {
                    if !started {
                        self.print(&show::connections_title(&style))?;
                        started = true;
                    }
                    self.print(&show::connections(&list, &style))?;
                    let Some(cursor) = next else { return Ok(()) };
                    request = Request::Connections { cursor };
                }
                Reply::Refused(Refusal {
                    errno: Errno::Esrch,
                    ..
                }) => {
                    return Err(Failure::unlisted("No such service").into());
                }
                Reply::Refused(refused) => {
                    return Err(Failure::unlisted(general(refused.errno, &refused.detail)).into());
                }
                _ => return Err(ClientError::Unexpected.into()),
            }
        }
    }

    fn print(&mut self, text: &str) -> Result<(), Error> {
        self.output
            .write_all(text.as_bytes())
            .map_err(Error::Output)
    }
}

/// The words of one line of a restore: comments and a leading `ipvsadm` do not count.
fn restore_words(line: &str) -> Vec<String> {
    line.split_ascii_whitespace()
        .take_while(|word| !word.starts_with('#'))
        .skip_while(|word| *word == "ipvsadm")
        .map(str::to_owned)
        .collect()
}

fn refused_change(changes: &[Change], refused: &Refusal) -> Failure {
    match changes.get(refused.step.unwrap_or(0)) {
        Some(change) => refusal(change, refused.errno, &refused.detail),
        None => Failure::refused(general(refused.errno, &refused.detail)),
    }
}

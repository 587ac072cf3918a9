//! Carries out a command line called `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore`.

use std::io::{self, Read, Write};

use super::Failure;
use super::args::{Command, Opt, Parsed, parse};
use super::lower::{general, refusal, request};
use super::names::Names;
use super::show::{self, Style};
use crate::client::ClientError;
use crate::{Change, Errno, Filter, Refusal, Reply, Request};

const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";

const HELP: &str = "\
ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)
This is directorctl speaking ipvsadm's language to a userspace director.

Services: SERVICE is -t|-u|--sctp-service ADDRESS:PORT, an IPv6 address stands in brackets, or
-f MARK [-6]: packets that `directorctl mark' or the configuration marks so; -6 for IPv6
  -A|-E SERVICE [-s SCHEDULER] [OPTIONS]      add or edit (wlc when no scheduler is named)
        -p [SECONDS]                          clients keep their server, 360 s unless said; port 0,
                                              or none, is then every port
        -M MASK                               clients of a network together: 255.255.255.0, or the
                                              length of an IPv6 prefix
        --pe sip                              by SIP's Call-ID instead of the address (-u, -f)
        -o                                    each datagram by itself (-u, -f)
        -b FLAG[,FLAG]                        sh-fallback, sh-port, mh-fallback, mh-port
        --hash-target sip|qid                 what conhash goes by: the client's address, or QUIC's
                                              connection id
        --options NAME=VALUE[,NAME=VALUE]     what LVS has no words for, by its names in a
                                              configuration: client_address, mss, mh_table_size,
                                              timeout_tcp, timeout_tcp_fin, timeout_udp, refuse,
                                              on_server_gone, reset_on_expiry, slow_start
  -D SERVICE                                  delete
  -C                                          delete all
Real servers
  -a|-e SERVICE -r SERVER[:PORT] [-g|-i|-m|--fullnat] [-w WEIGHT]
        -g                                    direct routing, the default
        -m                                    NAT
        --fullnat                             NAT of both addresses, see local addresses
        -i [--tun-type ipip]                  tunnel
        -i --tun-type gue --tun-port PORT [--tun-nocsum|--tun-csum|--tun-remcsum]
        -i --tun-type gre [--tun-nocsum|--tun-csum]
  -d SERVICE -r SERVER[:PORT]
Local addresses: what servers reached by --fullnat see as their client
  --add-laddr SERVICE -z|--local-address ADDRESS
  --del-laddr SERVICE -z|--local-address ADDRESS
  --get-laddr [SERVICE] [-n]                  list
Listing
  -L|-l [SERVICE] [-n] [--stats|--rate|--thresholds|--persistent-conn|--tun-info] [--exact] [--nosort]
  -L -c [-n] [--persistent-conn]              connections and templates
  -L --timeout                                timeouts
  -L --daemon                                 daemons that synchronise connections
Connection synchronisation
  --start-daemon master|backup [--mcast-interface INTERFACE] [--syncid ID] [--sync-maxlen BYTES]
        [--mcast-group ADDRESS] [--mcast-port PORT] [--mcast-ttl TTL]
                                              eth0, 0, 1472, 224.0.0.81, 8848 and 1 unless said
  --stop-daemon master|backup
Other
  -Z [SERVICE]                                zero the counters
  --set TCP TCPFIN UDP                        timeouts in seconds; 0 leaves one as it is
  -S [-n]                                     save as command lines on stdout
  -R                                          restore from stdin: all lines or none
  -h, -v                                      help, version
--fullnat, local addresses, conhash, --hash-target and --options are extensions; -S writes them for
services that use them. As upstream it saves no thresholds, no timeouts of all services and no
daemons; settings and marks, which only directorctl sets, stay as they are in a restore.
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
    Client(#[from] ClientError),
    /// A line of a restore is wrong or refused.
    #[error("{error}")]
    Line {
        /// From 1.
        line: usize,
        /// Whether a listing had lines before it applied.
        applied: bool,
        error: Box<Error>,
    },
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
            Self::Line { error, .. } => error.code(),
            Self::Client(_) | Self::Input(_) => 2,
            Self::Output(_) => 1,
        }
    }

    /// All that goes to stderr: ipvsadm's own words first, then what we know beyond them.
    pub fn report(&self, name: &str) -> String {
        match self {
            Self::Failure(failure) => {
                let more = failure.detail.iter();
                let more = more.map(|detail| format!("{name}: {detail}\n"));
                format!("{failure}\n{}", more.collect::<String>())
            }
            Self::Line {
                line,
                applied,
                error,
            } => {
                let before = if *applied {
                    "only what comes before the last listing above it was applied"
                } else {
                    "nothing was changed"
                };
                format!("{}{name}: in line {line}; {before}\n", error.report(name))
            }
            error => format!("{name}: {error}\n"),
        }
    }
}

/// One step of a restore.
enum Step {
    /// With the line of each.
    Changes(Vec<Change>, Vec<usize>),
    Show(Box<Parsed>, Request, usize),
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
        match request(&parsed) {
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
        let mut applied = false;
        for step in steps(&text, first, self.names)? {
            let (result, line) = match step {
                Step::Changes(changes, _) if changes.is_empty() => continue,
                Step::Changes(changes, lines) => match self.send(changes)? {
                    Ok(()) => {
                        applied = true;
                        continue;
                    }
                    Err((failure, step)) => (Err(failure.into()), lines.get(step).copied()),
                },
                Step::Show(parsed, request, line) => (self.show(&parsed, request), Some(line)),
            };
            result.map_err(|error| match (&error, line) {
                (Error::Failure(_), Some(line)) if line > 0 => at(line, applied, error),
                _ => error,
            })?;
        }
        Ok(())
    }

    fn change(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        Ok(self.send(changes)?.map_err(|(failure, _)| failure)?)
    }

    /// The inner error: what the director refused, and which of the changes that was.
    fn send(&mut self, changes: Vec<Change>) -> Result<Result<(), (Failure, usize)>, Error> {
        let request = Request::Change(changes);
        match (self.ask)(&request)? {
            Reply::Done => Ok(Ok(())),
            Reply::Refused(refused) => {
                let Request::Change(changes) = &request else {
                    unreachable!("made above")
                };
                let step = refused.step.unwrap_or(0);
                Ok(Err((refused_change(changes.get(step), &refused), step)))
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
                Reply::Services(services) if parsed.command == Command::GetLocal => {
                    return self.print(&show::local_addresses(services, &style));
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
                Reply::SyncDaemons(daemons) => {
                    return self.print(&show::daemons(&daemons));
                }
                Reply::Connections { list, next } => {
                    if !started {
                        self.print(&show::connections_title(&style))?;
                        started = true;
                    }
                    self.print(&show::connections(&list, &style))?;
                    let Some(cursor) = next else { return Ok(()) };
                    let filter = Filter::default();
                    request = Request::Connections { cursor, filter };
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
pub(crate) fn restore_words(line: &str) -> Vec<String> {
    let words = line.split_ascii_whitespace();
    let mut words: Vec<String> = words
        .take_while(|word| !word.starts_with('#'))
        .skip_while(|word| *word == "ipvsadm")
        .map(str::to_owned)
        .collect();
    // A save has the upper half of the marks as negative numbers, which upstream cannot restore.
    if let Some(flag) = words.iter().position(|word| word == "-f")
        && let Some(mark) = words.get_mut(flag + 1)
        && let Ok(negative @ ..0) = mark.parse::<i32>()
    {
        *mark = negative.cast_unsigned().to_string();
    }
    // Nor the third scheduler flag of sh and mh, which has no name.
    let service = words.first().is_some_and(|word| word == "-A");
    if service && words.last().is_some_and(|word| word == "-b") {
        words.push("flag-3".to_owned());
    }
    words
}

/// Every line is read before any is sent.
fn steps(text: &str, first: Vec<Change>, names: &dyn Names) -> Result<Vec<Step>, Error> {
    let mut parsed_lines = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let words = restore_words(text);
        if words.is_empty() {
            continue;
        }
        let parsed = parse(&words, names).map_err(|error| at(line, false, error.into()))?;
        if matches!(
            parsed.command,
            Command::Restore | Command::Help | Command::Version
        ) {
            return Err(at(line, false, Failure::try_help().into()));
        }
        parsed_lines.push((line, parsed));
    }
    let lines = vec![0; first.len()];
    let mut steps = vec![Step::Changes(first, lines)];
    for (line, parsed) in parsed_lines {
        match (request(&parsed), steps.last_mut()) {
            (Some(Request::Change(new)), Some(Step::Changes(changes, lines))) => {
                lines.resize(lines.len() + new.len(), line);
                changes.extend(new);
            }
            (Some(Request::Change(new)), _) => {
                let lines = vec![line; new.len()];
                steps.push(Step::Changes(new, lines));
            }
            (Some(request), _) => steps.push(Step::Show(Box::new(parsed), request, line)),
            (None, _) => {}
        }
    }
    Ok(steps)
}

fn at(line: usize, applied: bool, error: Error) -> Error {
    Error::Line {
        line,
        applied,
        error: Box::new(error),
    }
}

fn refused_change(change: Option<&Change>, refused: &Refusal) -> Failure {
    match change {
        Some(change) => refusal(change, refused.errno, &refused.detail),
        None => Failure::refused(general(refused.errno, &refused.detail)),
    }
}

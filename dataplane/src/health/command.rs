//! Programs that are checks: 0 is up.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::SigId;
use signal_hook::consts::SIGCHLD;
use signal_hook::low_level::{pipe, unregister};

use super::Outcome;

/// The most that run at a time.
pub(super) const COMMANDS_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Commands {
    running: HashMap<usize, Child>,
    /// Killed, but not gone yet.
    killed: Vec<Child>,
    token: Token,
    ends: Option<Ends>,
}

/// Something can be read when some program ended.
#[derive(Debug)]
struct Ends {
    pipe: UnixStream,
    signal: SigId,
}

impl Drop for Ends {
    fn drop(&mut self) {
        unregister(self.signal);
    }
}

impl Commands {
    pub(super) fn new(token: Token) -> Self {
        Self {
            running: HashMap::new(),
            killed: Vec::new(),
            token,
            ends: None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.running.len() + self.killed.len() >= COMMANDS_MAX
    }

    /// The program learns the target from its environment.
    pub(super) fn start(
        &mut self,
        registry: &Registry,
        check: usize,
        words: &[String],
        target: SocketAddr,
    ) -> io::Result<()> {
        if self.ends.is_none() {
            self.ends = Some(listen(registry, self.token)?);
        }
        let [program, arguments @ ..] = words else {
            return Err(io::Error::other("no program is given"));
        };
        let child = Command::new(program)
            .args(arguments)
            .env("CHECK_ADDRESS", target.ip().to_string())
            .env("CHECK_PORT", target.port().to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        self.running.insert(check, child);
        Ok(())
    }

    /// With all that it started.
    pub(super) fn kill(&mut self, check: usize) {
        if let Some(child) = self.running.remove(&check) {
            kill(&child);
            self.killed.push(child);
        }
    }

    /// Programs that have ended.
    pub(super) fn ended(&mut self) -> Vec<(usize, Outcome)> {
        if let Some(ends) = &mut self.ends {
            let mut signals = [0; 64];
            while matches!(ends.pipe.read(&mut signals), Ok(1..)) {}
        }
        self.killed
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let mut ended = Vec::new();
        self.running.retain(|check, child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                ended.push((*check, outcome(status)));
                false
            }
            Err(error) => {
                ended.push((*check, Outcome::Unsent(super::lower(&error))));
                false
            }
        });
        ended
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for child in self.running.values_mut().chain(&mut self.killed) {
            kill(child);
            // It was killed: there is nothing to wait for but the kernel.
            let _ = child.wait();
        }
    }
}

fn listen(registry: &Registry, token: Token) -> io::Result<Ends> {
    let (mut reader, writer) = UnixStream::pair()?;
    registry.register(&mut reader, token, Interest::READABLE)?;
    let signal = pipe::register(SIGCHLD, writer)?;
    Ok(Ends {
        pipe: reader,
        signal,
    })
}

fn kill(child: &Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // It may have ended.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Passed,
        (Some(code), _) => Outcome::Failed(format!("exited with {code}")),
        (None, signal) => Outcome::Failed(format!("ended by signal {}", signal.unwrap_or(0))),
    }
}

//! What a daemon before this one left: found, taken from it while it runs, or forgotten.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;

use super::sizes;
use crate::config::Config;
use crate::mem::Place;
use crate::restart::{self, Directory, Generation, Image, NoDirectory};

/// How long a director that was asked to stop may take.
const STOPPING: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(2);

/// How a daemon begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beginning {
    /// With what another one left, if there is something that can be used.
    #[default]
    GoOn,
    /// The same, but the other one is still running, and is told to stop once it is sure that its connections can be
    /// had.
    TakeOver,
    /// With nothing.
    Empty,
}

/// What this daemon keeps for the next, and has from the last.
#[derive(Debug)]
pub(super) struct Heritage {
    directory: Directory,
    generation: Generation,
    image: Option<Arc<Image>>,
}

impl Heritage {
    /// `None`: the configuration wants none.
    pub(super) fn take(config: &Config, beginning: Beginning) -> Result<Option<Self>> {
        let Some(path) = &config.restart.directory else {
            ensure!(
                beginning != Beginning::TakeOver,
                "nothing can be taken over without a directory under [restart]"
            );
            return Ok(None);
        };
        if beginning == Beginning::TakeOver {
            check(config)?;
            stop_other(config)?;
        }
        let directory = patiently(beginning, || Directory::take(path))?;
        let left = directory.left().filter(|_| beginning != Beginning::Empty);
        let image = match left {
            None => None,
            Some(Ok(image)) => Some(Arc::new(image)),
            Some(Err(why)) => {
                tracing::error!(target: "restart", "starts empty, what is in {} is refused: {why}", path.display());
                None
            }
        };
        let generation = directory.begin();
        let generation =
            generation.with_context(|| format!("making a directory in {}", path.display()))?;
        Ok(Some(Self {
            directory,
            generation,
            image,
        }))
    }

    pub(super) fn image(&self) -> Option<&Arc<Image>> {
        self.image.as_ref()
    }

    pub(super) fn place(&self) -> Place {
        self.generation.place()
    }

    pub(super) fn generation(&self) -> Generation {
        self.generation.clone()
    }

    /// What there was has been taken over.
    pub(super) fn settle(&self) {
        if let Err(error) = self.directory.forget_others(&self.generation) {
            tracing::warn!(target: "restart", "files of a director before this one stay: {error}");
        }
    }
}

/// Whether a director with this configuration could go on with what is there now.
pub fn check(config: &Config) -> Result<()> {
    let Some(path) = &config.restart.directory else {
        bail!("nothing can be taken over without a directory under [restart]");
    };
    let place = path.display();
    let image = match restart::left(path) {
        None => bail!("there is nothing to be taken over in {place}"),
        Some(Err(why)) => bail!("what is in {place} cannot be taken over: {why}"),
        Some(Ok(image)) => image,
    };
    let no = || format!("what is in {place} cannot be taken over");
    image.fits(config).with_context(no)?;
    // The ports say later how packets are spread.
    restart::has_room(path, &sizes(config, 0)).with_context(no)
}

/// Tells the director that answers at the socket to stop, if one does.
fn stop_other(config: &Config) -> Result<()> {
    let Ok(stream) = UnixStream::connect(&config.director.socket) else {
        return Ok(());
    };
    let peer = getsockopt(&stream, PeerCredentials).context("asking whose socket it is")?;
    tracing::info!(target: "restart", "takes over from directord with process id {}", peer.pid());
    kill(Pid::from_raw(peer.pid()), Signal::SIGTERM)
        .with_context(|| format!("stopping the directord with process id {}", peer.pid()))
}

/// A directory is free when the process that had it has ended.
fn patiently(
    beginning: Beginning,
    mut take: impl FnMut() -> Result<Directory, NoDirectory>,
) -> Result<Directory> {
    let mut left = match beginning {
        Beginning::TakeOver => STOPPING,
        _ => Duration::ZERO,
    };
    loop {
        match take() {
            Err(NoDirectory::Taken(_)) if !left.is_zero() => {
                std::thread::sleep(STEP);
                left = left.saturating_sub(STEP);
            }
            result => return Ok(result?),
        }
    }
}

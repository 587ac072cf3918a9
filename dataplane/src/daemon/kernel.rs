//! The thread that reads the kernel's tables, whenever something in them changed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;
use nix::errno::Errno;

use crate::control::Setting;
use crate::kernel::rtnetlink::{Asking, Hearing};
use crate::kernel::tables::{LinkId, Tables};
use crate::net::Prefix;

/// How long the thread waits before it looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(500);
/// Changes that come together are read together.
const QUIET: Duration = Duration::from_millis(20);
/// So that a change a millisecond does not keep it reading.
const PAUSE: Duration = Duration::from_millis(100);

/// The latest tables, until they are taken. Nobody waits for anybody long.
type Latest = Arc<Mutex<Option<Tables>>>;

#[derive(Debug)]
pub(super) struct Watcher {
    latest: Latest,
    ended: Arc<AtomicBool>,
    asking: Asking,
}

impl Watcher {
    /// Wakes whoever takes the tables when there are others.
    pub(super) fn start(waker: Option<Arc<Waker>>) -> io::Result<Self> {
        let (latest, ended) = (Latest::default(), Arc::new(AtomicBool::new(false)));
        let hearing = Hearing::new()?;
        let asking = Asking::new()?;
        let (to, until) = (Arc::clone(&latest), Arc::clone(&ended));
        std::thread::Builder::new()
            .name("kernel".to_owned())
            .spawn(move || watch(asking, hearing, &to, waker.as_deref(), &until))?;
        let asking = Asking::new()?;
        Ok(Self {
            latest,
            ended,
            asking,
        })
    }

    pub(super) fn take(&self) -> Option<Tables> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.take()
    }

    pub(super) fn set_address(&mut self, link: LinkId, prefix: Prefix, set: Setting) {
        let Prefix { address, length } = prefix;
        let is_there = set == Setting::Add;
        match (self.asking).set_address(link, address, length, is_there) {
            // It is gone already, with its interface or without.
            Err(error) if !is_there && is_absence(&error) => {}
            Err(error) => tracing::warn!(
                link,
                "the kernel's address {address}/{length} stays as it is: {error}"
            ),
            Ok(()) => {}
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    [Errno::EADDRNOTAVAIL, Errno::ENODEV]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
    }
}

fn watch(
    mut asking: Asking,
    mut hearing: Hearing,
    latest: &Latest,
    waker: Option<&Waker>,
    ended: &AtomicBool,
) {
    let mut told = None;
    while !ended.load(Relaxed) {
        match asking.tables() {
            Ok(tables) if told.as_ref() != Some(&tables) => {
                told = Some(tables.clone());
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(tables);
                // The main thread looks by itself before long.
                let _ = waker.map(Waker::wake);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("the kernel's tables cannot be read: {error}"),
        }
        std::thread::sleep(PAUSE);
        while !ended.load(Relaxed) {
            match hearing.wait(PATIENCE, QUIET) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!("the kernel's changes cannot be heard: {error}");
                    std::thread::sleep(PATIENCE);
                    break;
                }
            }
        }
    }
}

//! The backup: takes in what masters tell, for the workers whose connections they are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Sender, TrySendError};

use super::message::{self, Entry, Word};
use super::page::SyncPage;
use super::socket::Place;
use crate::steer::Steer;

/// How long a wait for a datagram lasts before it is looked whether the daemon is to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The longest datagram that there is.
const DATAGRAM_MAX: usize = 65_536;
/// How often a backup that has heard no end of a round asks for everything.
const ASKS_AGAIN: u32 = 50;

/// A backup that runs.
#[derive(Debug)]
pub(super) struct Backup {
    place: Place,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Backup {
    /// Begins, and asks masters for everything; what they tell goes to the worker whose it is.
    pub(super) fn start(
        place: Place,
        ports: u16,
        workers: &[Sender<Entry>],
        page: &Arc<SyncPage>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        page.complete.set(0);
        let mut backup = Self {
            place: place.clone(),
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        for number in 0..ports {
            let place = place.at(number);
            let ear = Ear {
                socket: place.listener(PATIENCE)?,
                sync_id: place.sync_id(),
                workers: workers.to_vec(),
                steer: Steer::new(0, workers.len()),
                page: Arc::clone(page),
            };
            // One is enough to ask.
            let asks = (number == 0).then(|| place.speaker()).transpose()?;
            let (stop, to) = (Arc::clone(&stop), place.to());
            let thread = std::thread::Builder::new().name(format!("sync-backup{number}"));
            backup.threads.push(thread.spawn(move || {
                let want = || {
                    if let Some(socket) = &asks {
                        let word = Word::Want.message(place.sync_id());
                        // Nobody may be there to hear it yet.
                        let _ = socket.send_to(&word, to);
                    }
                };
                ear.listen(&stop, want);
            })?);
        }
        Ok(backup)
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What hears one port.
#[derive(Debug)]
struct Ear {
    socket: std::net::UdpSocket,
    sync_id: u8,
    workers: Vec<Sender<Entry>>,
    steer: Steer,
    page: Arc<SyncPage>,
}

impl Ear {
    fn listen(&self, stop: &AtomicBool, want: impl Fn()) {
        let mut datagram = vec![0; DATAGRAM_MAX];
        let mut quiet = 0;
        want();
        while !stop.load(Relaxed) {
            match self.socket.recv(&mut datagram) {
                Ok(len) => self.take_in(&datagram[..len]),
                Err(_) => quiet += 1,
            }
            if quiet >= ASKS_AGAIN && self.page.complete.get() == 0 {
                quiet = 0;
                want();
            }
        }
    }

    fn take_in(&self, datagram: &[u8]) {
        let page = &self.page;
        let Ok(entries) = message::read(datagram, self.sync_id) else {
            return page.ignored.add(1);
        };
        page.received.add(1);
        page.received_bytes.add(datagram.len() as u64);
        match entries.word() {
            Some(Word::Done) => page.complete.set(1),
            Some(Word::Want) => {}
            None => entries.for_each(|entry| match entry {
                Ok(entry) => self.hand_over(entry),
                Err(_) => page.refused.add(1),
            }),
        }
    }

    fn hand_over(&self, entry: Entry) {
        let home = &self.workers[self.steer.home(entry.client)];
        match home.try_send(entry) {
            Ok(()) => self.page.heard.add(1),
            // It is told again before long.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.page.late.add(1),
        }
    }
}

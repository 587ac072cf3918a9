//! The two daemons, as they are started and stopped.

use std::io;
use std::sync::Arc;

use control::{SyncDaemon, SyncRole};
use crossbeam::channel::Sender;

use super::backup::Backup;
use super::master::{Master, Means};
use super::message::{Entry, Version};
use super::news::Feed;
use super::page::SyncPage;
use super::socket::Place;
use crate::templates::Templates;
use crate::time::Clock;

/// The most ports that LVS spreads connections over.
const PORTS_MAX: u16 = 64;

/// A master and a backup, or one of them, or none.
#[derive(Debug)]
pub struct Daemons {
    /// Each worker takes in what backups hear.
    workers: Vec<Sender<Entry>>,
    templates: Option<Arc<Templates>>,
    clock: Clock,
    page: Arc<SyncPage>,
    master: Option<Master>,
    backup: Option<Backup>,
}

impl Daemons {
    pub fn new(
        workers: Vec<Sender<Entry>>,
        templates: Option<Arc<Templates>>,
        clock: Clock,
    ) -> Self {
        Self {
            workers,
            templates,
            clock,
            page: Arc::default(),
            master: None,
            backup: None,
        }
    }

    /// Starts one, `ports` ports wide. A master's feeds are the workers', one for each.
    pub fn start(
        &mut self,
        daemon: &SyncDaemon,
        version: Version,
        ports: u16,
    ) -> io::Result<Vec<Feed>> {
        let place = Place::of(daemon)?;
        let ports = ports.clamp(1, PORTS_MAX);
        match daemon.role {
            SyncRole::Backup => {
                let backup = Backup::start(place, ports, &self.workers, &self.page)?;
                self.backup = Some(backup);
                Ok(Vec::new())
            }
            SyncRole::Master => {
                let means = Means {
                    workers: self.workers.len(),
                    version,
                    ports,
                    clock: self.clock,
                    templates: self.templates.clone(),
                    page: Arc::clone(&self.page),
                };
                let (master, feeds) = Master::start(place, means)?;
                self.master = Some(master);
                Ok(feeds)
            }
        }
    }

    /// Stops one, if it runs. A master first tells what workers have told it.
    pub fn stop(&mut self, role: SyncRole) {
        match role {
            SyncRole::Master => self.master = None,
            SyncRole::Backup => self.backup = None,
        }
    }

    /// Those that run, the master first, with what they were not told filled in.
    pub fn running(&self) -> Vec<SyncDaemon> {
        let master = self.master.as_ref().map(Master::place);
        let backup = self.backup.as_ref().map(Backup::place);
        let places = master.into_iter().chain(backup);
        places.map(|place| place.daemon.clone()).collect()
    }

    /// Whether a backup runs that has not heard of all connections yet.
    pub fn is_catching_up(&self) -> bool {
        self.backup.is_some() && self.page.complete.get() == 0
    }

    pub fn page(&self) -> &Arc<SyncPage> {
        &self.page
    }
}

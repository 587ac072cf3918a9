//! What a change needs beside the model and the workers: devices of ports, and daemons that synchronise
//! connections.

use control::{Errno, Refusal, Settings, SyncDaemon, SyncRole, SyncStatus};

use nix::errno::Errno as Os;

use super::hardware::Hardware;
use super::model::{NewPort, Outside, refuse};
use super::{Command, Control, Worker};
use crate::packet::PortId;
use crate::sync::Daemons;
use crate::sync::message::Version;

/// Starts what a change brings, and remembers what it started.
pub(super) struct Starts<'c> {
    pub(super) hardware: &'c mut dyn Hardware,
    pub(super) sync: Option<&'c mut Daemons>,
    pub(super) workers: &'c [Worker],
    pub(super) opened: Vec<PortId>,
    pub(super) started: Vec<SyncRole>,
}

impl Outside for Starts<'_> {
    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        let mac = self.hardware.open(port)?;
        self.opened.extend(port.side.into_iter().chain([port.id]));
        Ok(mac)
    }

    fn start(&mut self, daemon: &SyncDaemon, settings: Settings) -> Result<(), Refusal> {
        let version = match settings.sync_version {
            0 => Version::V0,
            _ => Version::V1,
        };
        let Some(sync) = &mut self.sync else {
            return Ok(());
        };
        let feeds = sync.start(daemon, version, settings.sync_ports.into());
        let feeds = feeds.map_err(|error| {
            let errno = match error.raw_os_error().map(Os::from_raw) {
                Some(Os::ENODEV | Os::ENXIO) => Errno::Enodev,
                _ => Errno::Einval,
            };
            let detail = format!("sync {daemon} cannot be started: {error}");
            refuse(errno, detail)
        })?;
        self.started.push(daemon.role);
        for (worker, feed) in self.workers.iter().zip(feeds) {
            // There is room: that was looked for before.
            let _ = worker.mailbox.try_send(Command::Tell(Some(feed)));
        }
        Ok(())
    }
}

impl Control {
    /// Stops a daemon. Workers end what they tell with their next command.
    pub(super) fn stop_sync(&mut self, role: SyncRole) {
        if role == SyncRole::Master {
            for worker in &self.workers {
                let _ = worker.mailbox.try_send(Command::Tell(None));
            }
        }
        if let Some(sync) = &mut self.sync {
            sync.stop(role);
        }
    }

    pub(super) fn sync_daemons(&self) -> Vec<SyncStatus> {
        let lost = |of: fn(&crate::counters::Page) -> u64| -> u64 {
            self.workers.iter().map(|worker| of(&worker.page)).sum()
        };
        let Some(sync) = &self.sync else {
            return self.model.sync_named();
        };
        let page = sync.page();
        let status = |daemon: SyncDaemon| match daemon.role {
            SyncRole::Master => SyncStatus {
                daemon,
                messages: page.sent.get(),
                bytes: page.sent_bytes.get(),
                connections: page.told.get(),
                lost: page.unsent.get() + lost(|page| page.sync.lost.get()),
                lag_ms: Some(page.lag_ms.get()),
                complete: None,
            },
            SyncRole::Backup => SyncStatus {
                daemon,
                messages: page.received.get(),
                bytes: page.received_bytes.get(),
                connections: page.heard.get(),
                lost: page.refused.get() + page.late.get() + lost(|page| page.sync.unkept()),
                lag_ms: None,
                complete: Some(page.complete.get() != 0),
            },
        };
        sync.running().into_iter().map(status).collect()
    }
}

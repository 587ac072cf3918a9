//! Changes: judged by the model, carried out by every worker, and said in the log.

use std::fmt;
use std::sync::Arc;

use control::{Change, Errno, Refusal, Reply};
use crossbeam::channel::{Receiver, bounded};

use super::command::{ANSWER_TIMEOUT, Command, MAILBOX_MAX, Worker};
use super::model::{Applied, refuse};
use super::start::Starts;
use super::{Control, audit};
use crate::update::{Batch, Update};

impl Control {
    /// Whether no update can be posted now.
    pub(super) fn is_busy(&self) -> bool {
        self.workers.iter().any(|worker| worker.mailbox.is_full())
    }

    /// Carries out every change in order and returns when every worker has, or refuses.
    ///
    /// [`Errno::Eagain`] from a worker that does not answer in time is the one refusal after which
    /// the change takes effect: when that worker goes on.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        // Once the model has changed every worker must hear of it.
        // Updates, and for a daemon a feed.
        let is_of_sync =
            |change: &Change| matches!(change, Change::StartSync(_) | Change::StopSync { .. });
        let commands = 1 + usize::from(changes.iter().any(is_of_sync));
        let has_no_room = |worker: &&Worker| {
            let room = worker.mailbox.capacity().unwrap_or(usize::MAX);
            worker.mailbox.len() + commands > room
        };
        if let Some(worker) = self.workers.iter().find(has_no_room) {
            let detail = format!(
                "the worker on core {} has not answered {MAILBOX_MAX} commands",
                worker.core
            );
            return Err(refuse(Errno::Eagain, detail));
        }
        let Applied {
            updates,
            closed,
            stopped,
        } = self.judge(changes)?;
        self.view = None;
        self.ward.stale = true;
        self.outdate();
        let confirmations = self.post(updates);
        let confirmed = confirmations.map_or(Ok(()), |confirmations| {
            let mut workers = self.workers.iter();
            workers.try_for_each(|_| answer(&confirmations))
        });
        for id in closed {
            self.hardware.close(id);
        }
        for role in stopped {
            self.stop_sync(role);
        }
        confirmed?;
        self.release();
        self.node.stale = true;
        Ok(())
    }

    /// The model's part of [`Self::change`]. New ports and daemons are started, all or none of them.
    pub(super) fn judge(&mut self, changes: &[Change]) -> Result<Applied, Refusal> {
        self.allow(changes)?;
        let Self {
            model,
            hardware,
            sync,
            workers,
            ..
        } = self;
        let mut starts = Starts {
            hardware: hardware.as_mut(),
            sync: sync.as_mut(),
            workers,
            opened: Vec::new(),
            started: Vec::new(),
        };
        let applied = model.apply_with(changes, &mut starts);
        let Starts {
            opened, started, ..
        } = starts;
        if applied.is_err() {
            for id in opened {
                self.hardware.close(id);
            }
            for role in started {
                self.stop_sync(role);
            }
        }
        applied
    }

    /// Puts `updates` into every mailbox. Who applies them says so to the receiver.
    pub(super) fn post(&mut self, updates: Vec<Update>) -> Option<Receiver<()>> {
        if updates.is_empty() {
            return None;
        }
        let batch = Batch::from(updates);
        let (done, confirmations) = bounded(self.workers.len());
        for worker in &self.workers {
            if worker
                .mailbox
                .try_send(Command::Apply(Arc::clone(&batch), done.clone()))
                .is_err()
            {
                tracing::error!(
                    core = worker.core,
                    "the worker does not take updates any more"
                );
            }
        }
        self.posted.push(batch);
        Some(confirmations)
    }

    /// Frees what no worker has any more.
    pub(super) fn release(&mut self) {
        self.posted.retain(|batch| Arc::strong_count(batch) > 1);
        self.model.release();
    }

    /// [`Control::change`], with lines in the log for what was changed, or one for what was refused.
    pub(super) fn audited(&mut self, changes: &[Change], peer: &dyn fmt::Display) -> Reply {
        let settings = self.model.settings();
        let was = |change: &Change| self.model.was(change);
        let lines = audit::lines(changes, settings, was, |change| {
            self.model.ends_drain(change)
        });
        if let Err(refusal) = self.change(changes) {
            let change = refusal.step.and_then(|step| changes.get(step));
            let change = change.map(|change| audit::describe(change, settings));
            tracing::warn!(target: "audit", %peer, change, steps = changes.len(), "refused: {refusal}");
            return Reply::Refused(refusal);
        }
        for line in lines {
            tracing::info!(target: "audit", %peer, "{line}");
        }
        Reply::Done
    }
}

fn answer(confirmations: &Receiver<()>) -> Result<(), Refusal> {
    confirmations.recv_timeout(ANSWER_TIMEOUT).map_err(|_| {
        let timeout_s = ANSWER_TIMEOUT.as_secs();
        let detail = format!(
            "a worker did not confirm the change within {timeout_s} s; it takes effect there when the worker goes on"
        );
        refuse(Errno::Eagain, detail)
    })
}

//! The control side, on the main thread: a request becomes updates in every worker's mailbox.

mod audit; // what was changed, for the log
mod drain; // drained servers, seen to
mod explain; // what becomes of a packet
#[cfg(test)]
mod load; // ten thousand services with a hundred thousand servers
pub mod model; // the authoritative services and servers
pub mod server; // the Unix socket
pub mod stats; // sums, rates, status
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use control::{Change, Connection, Cursor, Errno, Neighbour, Refusal, Reply, Request};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::conn::state::State;
use crate::counters::Page;
use crate::director::explain::{Excerpt, Query};
use crate::templates::Templates;
use crate::update::{Batch, ServerId, Update};
use model::{Limits, Model, STEP_S, SWEEP_S, refuse};
use server::{Backend, Peer};
use stats::{ESTIMATE_S, Machine};

/// Program and release, for people.
pub const PROGRAM: &str = concat!("directord ", env!("CARGO_PKG_VERSION"));
/// The most commands that wait for one worker.
pub const MAILBOX_MAX: usize = 64;
/// How long a worker may take to answer a command.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a worker does between two bursts. It never waits for the answer to be taken, and nobody
/// may be there to take it.
#[derive(Debug)]
pub enum Command {
    /// Applies every update, in order, then says so.
    Apply(Batch, Sender<()>),
    /// Up to `limit` connections from table entry `from` on, and the entry to go on from.
    Connections {
        from: u32,
        limit: usize,
        reply: Sender<Slice>,
    },
    /// As [`Self::Connections`], of the templates that all workers share.
    Templates {
        from: u32,
        limit: usize,
        reply: Sender<Slice>,
    },
    Neighbours(Sender<Vec<Neighbour>>),
    /// Copies what concerns a packet.
    Explain {
        query: Box<Query>,
        reply: Sender<Excerpt>,
    },
}

/// Part of a worker's connections, and the table entry to go on from.
pub type Slice = (Vec<Connection>, Option<u32>);

/// One worker, as the control side sees it.
#[derive(Debug)]
pub struct Worker {
    pub core: u16,
    pub page: Arc<Page>,
    pub mailbox: Sender<Command>,
}

/// Answers the socket's requests from the model and the workers.
pub struct Control {
    model: Model,
    workers: Vec<Worker>,
    templates: Option<Arc<Templates>>,
    /// Per worker.
    connections_max: u64,
    /// What some worker has not carried out yet: the last one that lets go of a batch frees it, and
    /// that is to be nobody but us.
    posted: Vec<Batch>,
    machine: Box<dyn Fn() -> Machine>,
    now: Duration,
    estimate_due: Duration,
    sweep_due: Duration,
    step_due: Duration,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("model", &self.model)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Controls `workers`, whose pages were made for `limits`. `machine` is asked at each status.
    pub fn new(
        limits: Limits,
        workers: Vec<Worker>,
        connections_max: u64,
        machine: impl Fn() -> Machine + 'static,
    ) -> Self {
        let pages = workers
            .iter()
            .map(|worker| Arc::clone(&worker.page))
            .collect();
        Self {
            model: Model::new(limits).watching(pages),
            workers,
            templates: None,
            connections_max,
            posted: Vec::new(),
            machine: Box::new(machine),
            now: Duration::ZERO,
            estimate_due: Duration::from_secs(ESTIMATE_S),
            sweep_due: Duration::from_secs(SWEEP_S),
            step_due: Duration::from_secs(STEP_S),
        }
    }

    /// Of ports with these names; the index is a port's id.
    #[must_use]
    pub fn naming(mut self, ports: Vec<String>) -> Self {
        self.model = self.model.naming(ports);
        self
    }

    /// Shows the templates that the workers share.
    #[must_use]
    pub fn sharing(mut self, templates: Arc<Templates>) -> Self {
        self.model = self.model.sharing(Arc::clone(&templates));
        self.templates = Some(templates);
        self
    }

    /// Carries out every change in order and returns when every worker has, or refuses.
    ///
    /// [`Errno::Eagain`] from a worker that does not answer in time is the one refusal after which
    /// the change takes effect: when that worker goes on.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), Refusal> {
        // Once the model has changed every worker must hear of it.
        if let Some(worker) = self.workers.iter().find(|worker| worker.mailbox.is_full()) {
            let detail = format!(
                "the worker on core {} has not answered {MAILBOX_MAX} commands",
                worker.core
            );
            return Err(refuse(Errno::Eagain, detail));
        }
        let updates = self.model.apply(changes)?;
        let confirmations = self.post(updates);
        for _ in &self.workers {
            match &confirmations {
                Some(confirmations) => answer(confirmations)?,
                None => break,
            }
        }
        self.release();
        Ok(())
    }

    /// Puts `updates` into every mailbox. Who applies them says so to the receiver.
    fn post(&mut self, updates: Vec<Update>) -> Option<Receiver<()>> {
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
    fn release(&mut self) {
        self.posted.retain(|batch| Arc::strong_count(batch) > 1);
        self.model.release();
    }

    /// [`Control::change`], with lines in the log for what was changed, or one for what was refused.
    fn audited(&mut self, changes: &[Change], peer: &Peer) -> Reply {
        let settings = self.model.settings();
        let lines = audit::lines(changes, settings, |change| self.model.ends_drain(change));
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

    /// Walks the workers one after the other, and then the templates that they share: a reply holds
    /// connections of one.
    fn connections(&self, cursor: Cursor) -> Result<Reply, Refusal> {
        let Some(worker) = self.workers.get(usize::from(cursor.worker)) else {
            if let Some(worker) = self.workers.first().filter(|_| self.has_templates()) {
                return list_templates(worker, cursor);
            }
            return Ok(Reply::Connections {
                list: Vec::new(),
                next: None,
            });
        };
        let (list, entry) = ask(worker, |reply| Command::Connections {
            from: cursor.entry,
            limit: control::CONNECTIONS_MAX,
            reply,
        })?;
        let next_worker = cursor.worker + 1;
        let next = match entry {
            Some(entry) => Some(Cursor { entry, ..cursor }),
            None if usize::from(next_worker) < self.workers.len() || self.has_templates() => {
                Some(Cursor {
                    worker: next_worker,
                    entry: 0,
                })
            }
            None => None,
        };
        Ok(Reply::Connections { list, next })
    }

    fn has_templates(&self) -> bool {
        let templates = self.templates.as_ref();
        templates.is_some_and(|templates| templates.used() > 0)
    }

    fn timeouts(&self) -> Reply {
        let seconds = |state| self.model.timeouts().ms(state) / 1000;
        Reply::Timeouts {
            tcp: seconds(State::Established),
            tcp_fin: seconds(State::FinWait),
            udp: seconds(State::Udp),
        }
    }

    /// Whether no update can be posted now.
    fn is_busy(&self) -> bool {
        self.workers.iter().any(|worker| worker.mailbox.is_full())
    }

    fn ramp(&mut self) {
        if !self.is_busy() {
            let updates = self.model.ramp();
            self.post(updates);
        }
    }

    fn sweep(&mut self) {
        if self.is_busy() {
            return; // the next sweep will do
        }
        let Self {
            model,
            workers,
            templates,
            now,
            ..
        } = self;
        let in_use = |id: ServerId| {
            workers.iter().any(|worker| {
                let page = &worker.page.servers[id.index()];
                page.active.get() > 0 || page.inactive.get() > 0
            }) || templates
                .as_ref()
                .is_some_and(|templates| templates.refer_to(id))
        };
        let updates = model.sweep(now.as_secs(), in_use);
        self.post(updates);
    }
}

impl Backend for Control {
    fn handle(&mut self, request: Request, peer: &Peer) -> Reply {
        let answer = match request {
            Request::Change(changes) => Ok(self.audited(&changes, peer)),
            Request::Services { only } => self.model.services(only.as_ref()).map(Reply::Services),
            Request::Explain(question) => self.explain(&question),
            Request::Connections { cursor } => self.connections(cursor),
            Request::Timeouts => Ok(self.timeouts()),
            Request::Settings => Ok(Reply::Settings(self.model.settings())),
            Request::Status => {
                let uptime_s = self.now.as_secs();
                Ok(Reply::Status(stats::status(
                    &self.workers,
                    self.templates.as_deref(),
                    (self.machine)(),
                    self.connections_max,
                    uptime_s,
                )))
            }
            Request::Neighbours => self
                .workers
                .first()
                .map_or(Ok(Vec::new()), |worker| ask(worker, Command::Neighbours))
                .map(Reply::Neighbours),
            Request::Marks => Ok(Reply::Marks(self.model.marks())),
        };
        answer.unwrap_or_else(Reply::Refused)
    }

    fn tick(&mut self, now: Duration) {
        self.now = now;
        self.release();
        self.model.set_time(now);
        if due(&mut self.estimate_due, now, ESTIMATE_S) {
            self.model.estimate();
        }
        if due(&mut self.sweep_due, now, SWEEP_S) {
            self.sweep();
        }
        if due(&mut self.step_due, now, STEP_S) {
            self.ramp();
            self.see_to_drained();
        }
    }
}

/// Whether `deadline` has come; if so it moves on by `period_s`, without catching up.
fn due(deadline: &mut Duration, now: Duration, period_s: u64) -> bool {
    let period = Duration::from_secs(period_s);
    let due = now >= *deadline;
    if due {
        *deadline += period;
        if *deadline <= now {
            *deadline = now + period;
        }
    }
    due
}

fn ask<T>(worker: &Worker, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, Refusal> {
    let (reply, answers) = bounded(1);
    let posted = worker.mailbox.try_send(command(reply)).ok();
    posted
        .and_then(|()| answers.recv_timeout(ANSWER_TIMEOUT).ok())
        .ok_or_else(|| {
            let timeout_s = ANSWER_TIMEOUT.as_secs();
            refuse(
                Errno::Eagain,
                format!(
                    "the worker on core {} did not answer within {timeout_s} s",
                    worker.core
                ),
            )
        })
}

/// Any worker knows all of them.
fn list_templates(worker: &Worker, cursor: Cursor) -> Result<Reply, Refusal> {
    let (list, entry) = ask(worker, |reply| Command::Templates {
        from: cursor.entry,
        limit: control::CONNECTIONS_MAX,
        reply,
    })?;
    let next = entry.map(|entry| Cursor { entry, ..cursor });
    Ok(Reply::Connections { list, next })
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

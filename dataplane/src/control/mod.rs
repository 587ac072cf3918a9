//! The control side, on the main thread: a request becomes updates in every worker's mailbox.

mod arrivals; // whether devices spread packets as they were told
mod audit; // what was changed, for the log
mod capture; // packets for clients
mod drain; // drained servers, seen to
mod explain; // what becomes of a packet
mod files; // configuration files: plan, apply, roll back, save
mod hardware; // the devices of ports
pub mod health; // servers that are probed
mod kernel; // what the kernel has on its sides of ports
#[cfg(test)]
mod load; // ten thousand services with a hundred thousand servers
pub mod manager; // the service manager, told how the director does
pub mod metrics; // for Prometheus
pub mod model; // the authoritative services and servers
mod passive; // what packets say of servers
pub mod server; // the Unix socket
mod start; // ports and daemons, started and stopped
pub mod stats; // sums, rates, status
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use control::{
    Change, Connection, Cursor, Errno, Filter, Neighbour, PortSpec, Refusal, Reply, Request,
};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::conn::state::State;
use crate::counters::Page;
use crate::director::explain::{Excerpt, Query};
use crate::net::{NeighbourView, Setup};
use crate::sync::Daemons;
use crate::sync::news::Feed;
use crate::templates::Templates;
use crate::time::Clock;
use crate::update::{Batch, ServerId, Update};
use crate::watch::drops::Drop;
use crate::watch::tap::Tap;
#[cfg(feature = "dpdk")]
use crate::{packet::PortId, worker::Queues};
use arrivals::Arrivals;
use capture::Captures;
pub use files::CONFIRM_MAX_S;
use files::Files;
pub use hardware::{Hardware, Setting};
use health::Ward;
use manager::Manager;
use metrics::Scrape;
use model::{Applied, Limits, Model, STEP_S, SWEEP_S, View, refuse};
use server::{Backend, Peer};
use start::Starts;
use stats::{ESTIMATE_S, Machine};

/// Program and release, for people.
pub const PROGRAM: &str = concat!("directord ", env!("CARGO_PKG_VERSION"));
/// The most commands that wait for one worker.
pub const MAILBOX_MAX: usize = 64;
/// How long a worker may take to answer a command.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections that a worker lists at once, while packets wait ...
pub const SLICE_MAX: usize = 128;
/// ... and how often for one reply.
const SLICES_MAX: usize = 64;

/// What a worker does between two bursts. It never waits for the answer to be taken, and nobody
/// may be there to take it.
#[derive(Debug)]
pub enum Command {
    /// Applies every update, in order, then says so.
    Apply(Batch, Sender<()>),
    /// Some of the worker's connections, or of the templates that all workers share.
    Connections {
        wanted: Wanted,
        reply: Sender<Slice>,
    },
    Neighbours(Sender<Vec<NeighbourView>>),
    /// Copies what concerns a packet.
    Explain {
        query: Box<Query>,
        reply: Sender<Excerpt>,
    },
    /// The last drops, without the first so many, and how many there were.
    Drops {
        after: u64,
        /// Empty, with room for all.
        into: Vec<Drop>,
        reply: Sender<(Vec<Drop>, u64)>,
    },
    /// Begins a capture, or gives it back.
    Tap(Box<Tap>, Sender<Result<(), Box<Tap>>>),
    Untap {
        id: u64,
        reply: Sender<Option<Box<Tap>>>,
    },
    /// Backups are told by this feed from now on, or by none.
    Tell(Option<Feed>),
    /// A port comes.
    #[cfg(feature = "dpdk")]
    Attach(Box<Queues>),
    /// A port goes: what waits to leave by it is sent, and its queues are given back, if there are any.
    #[cfg(feature = "dpdk")]
    Detach(PortId, Sender<Option<Box<Queues>>>),
}

/// Which connections, and what is done with them.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of the templates, not of the worker's connections.
    pub templates: bool,
    /// The first table entry to look at.
    pub from: u32,
    pub filter: Filter,
    pub fate: Fate,
}

/// What is done with connections that are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stays,
    Ends {
        /// Both ends of TCP connections are told.
        reset: bool,
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
    files: Files,
    /// Per worker.
    connections_max: u64,
    /// What some worker has not carried out yet: the last one that lets go of a batch frees it, and
    /// that is to be nobody but us.
    posted: Vec<Batch>,
    hardware: Box<dyn Hardware>,
    /// Who waits for what a scrape is made from.
    scrapes: Receiver<Sender<Scrape>>,
    /// As the model was when it was wanted last; `None` once it changed.
    view: Option<Arc<View>>,
    now: Duration,
    estimate_due: Duration,
    sweep_due: Duration,
    step_due: Duration,
    manager: Option<Manager>,
    clock: Clock,
    captures: Captures,
    /// Without them daemons are but names.
    sync: Option<Daemons>,
    kernel: kernel::Kernel,
    ward: Ward,
    /// Who asks could do by itself whatever the director can.
    trusted: bool,
    arrivals: Arrivals,
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
    /// Controls `workers`, whose pages were made for `limits`, and the devices of their ports.
    pub fn new(
        limits: Limits,
        workers: Vec<Worker>,
        connections_max: u64,
        hardware: impl Hardware + 'static,
    ) -> Self {
        let pages = workers
            .iter()
            .map(|worker| Arc::clone(&worker.page))
            .collect();
        Self {
            model: Model::new(limits).watching(pages),
            workers,
            templates: None,
            files: Files::default(),
            connections_max,
            posted: Vec::new(),
            hardware: Box::new(hardware),
            scrapes: crossbeam::channel::never(),
            view: None,
            now: Duration::ZERO,
            estimate_due: Duration::from_secs(ESTIMATE_S),
            sweep_due: Duration::from_secs(SWEEP_S),
            step_due: Duration::from_secs(STEP_S),
            manager: None,
            clock: Clock::start(),
            captures: Captures::default(),
            sync: None,
            kernel: kernel::Kernel::default(),
            ward: Ward::default(),
            trusted: true,
            arrivals: Arrivals::default(),
        }
    }

    /// Synchronises connections by these daemons.
    #[must_use]
    pub fn synchronised(mut self, sync: Daemons) -> Self {
        self.sync = Some(sync);
        self
    }

    /// The workers' clock.
    #[must_use]
    pub fn timed_by(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Of these ports; the place is a port's id.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = PortSpec>) -> Self {
        self.model = self.model.with_ports(ports);
        self
    }

    /// In the network that the workers begin with, whose ports were given.
    #[must_use]
    pub fn networked(mut self, setup: Setup) -> Self {
        self.model = self.model.networked(setup);
        self
    }

    /// Shows the templates that the workers share.
    #[must_use]
    pub fn sharing(mut self, templates: Arc<Templates>) -> Self {
        self.model = self.model.sharing(Arc::clone(&templates));
        self.templates = Some(templates);
        self
    }

    /// Answers who scrapes.
    #[must_use]
    pub fn scraped(mut self, scrapes: Receiver<Sender<Scrape>>) -> Self {
        self.scrapes = scrapes;
        self
    }

    /// What metrics are made from. Short while nothing changes: the model is not walked again.
    fn scrape(&mut self) -> Scrape {
        let view = self.view.get_or_insert_with(|| Arc::new(self.model.view()));
        let view = Arc::clone(view);
        Scrape {
            view,
            workers: metrics::workers(&self.workers),
            templates: self.templates.clone(),
            checks: Arc::clone(&self.ward.checks),
            machine: self.machine(),
            sync: self.sync_daemons(),
            limits: self.model.limits(),
            connections_max: self.connections_max,
            uptime: self.now,
        }
    }

    /// The ports, whose numbers may have been others' before.
    fn machine(&self) -> Machine {
        let mut machine = self.hardware.machine();
        for port in &mut machine.ports {
            port.before = self.model.ports().before(port.id);
        }
        machine
    }

    /// Each worker's core and the page that shows whether it makes progress.
    pub fn watched(&self) -> Vec<(u16, Arc<Page>)> {
        let workers = self.workers.iter();
        workers
            .map(|worker| (worker.core, Arc::clone(&worker.page)))
            .collect()
    }

    /// Tells the service manager from now on how the workers do.
    pub fn tell(&mut self, mut manager: Manager) {
        manager.ready(self.model.services_len());
        self.manager = Some(manager);
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
        self.share_addresses();
        Ok(())
    }

    /// The model's part of [`Self::change`]. New ports and daemons are started, all or none of them.
    fn judge(&mut self, changes: &[Change]) -> Result<Applied, Refusal> {
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
    fn audited(&mut self, changes: &[Change], peer: &dyn fmt::Display) -> Reply {
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

    /// Walks the workers one after the other, and then the templates that they share: a reply holds
    /// connections of one.
    fn connections(&self, cursor: Cursor, filter: Filter, fate: Fate) -> Result<Reply, Refusal> {
        let own = self.workers.get(usize::from(cursor.worker));
        let wanted = Wanted {
            templates: own.is_none(),
            from: cursor.entry,
            filter,
            fate,
        };
        // Any worker knows all templates.
        let any = || self.workers.first().filter(|_| self.has_templates());
        let Some(worker) = own.or_else(any) else {
            return Ok(Reply::Connections {
                list: Vec::new(),
                next: None,
            });
        };
        let (list, entry) = listing(worker, wanted)?;
        let next_worker = cursor.worker.saturating_add(1);
        let goes_on = || usize::from(next_worker) < self.workers.len() || self.has_templates();
        let next = match entry {
            Some(entry) => Some(Cursor { entry, ..cursor }),
            None if own.is_some() && goes_on() => Some(Cursor {
                worker: next_worker,
                entry: 0,
            }),
            None => None,
        };
        Ok(Reply::Connections { list, next })
    }

    /// Of the slices of one walk the first says in the log what is ended.
    fn end_connections(
        &self,
        cursor: Cursor,
        filter: Filter,
        reset: bool,
        peer: &Peer,
    ) -> Result<Reply, Refusal> {
        if cursor == Cursor::default() {
            let how = if reset { " by resets" } else { "" };
            tracing::info!(target: "audit", %peer, "end connections{how}: {filter}");
        }
        self.connections(cursor, filter, Fate::Ends { reset })
    }

    /// As the first worker knows them.
    fn neighbours(&self) -> Result<Vec<Neighbour>, Refusal> {
        let Some(worker) = self.workers.first() else {
            return Ok(Vec::new());
        };
        let show = |view: NeighbourView| Neighbour {
            port: control::interface(&self.model.ports().name(view.port), view.vlan),
            address: view.address,
            mac: view.mac.map(control::mac_text),
            state: view.state.to_owned(),
        };
        let known = ask(worker, Command::Neighbours)?;
        Ok(known.into_iter().map(show).collect())
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
            if !updates.is_empty() {
                self.view = None;
            }
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
        self.trusted = peer.is_trusted();
        let answer = match request {
            Request::Change(changes) => Ok(self.audited(&changes, peer)),
            Request::Plan(file) => self.plan(&file).map(Reply::Plan),
            Request::Apply { file, confirm_s } => {
                (self.apply_file(&file, confirm_s, peer)).map(Reply::Plan)
            }
            Request::Confirm => self.confirm(peer).map(|()| Reply::Done),
            Request::Rollback => self.roll_back(peer).map(Reply::Plan),
            Request::Save => Ok(self.save()),
            Request::Services { only } => self.model.services(only.as_ref()).map(Reply::Services),
            Request::Explain(question) => self.explain(&question),
            Request::Connections { cursor, filter } => {
                self.connections(cursor, filter, Fate::Stays)
            }
            Request::EndConnections {
                cursor,
                filter,
                reset,
            } => self.end_connections(cursor, filter, reset, peer),
            Request::Drops { after } => self.drops(&after),
            Request::StartCapture(spec) => self.start_capture(spec, peer),
            Request::CapturedNext => self.captured_next(peer.client),
            Request::StopCapture => self.stop_capture(peer.client, ANSWER_TIMEOUT),
            Request::Timeouts => Ok(self.timeouts()),
            Request::Settings => Ok(Reply::Settings(self.model.settings())),
            Request::Status => {
                let uptime_s = self.now.as_secs();
                Ok(Reply::Status(stats::status(
                    &self.workers,
                    self.templates.as_deref(),
                    self.machine(),
                    self.connections_max,
                    uptime_s,
                )))
            }
            Request::Metrics { cursor } => {
                let (text, next) = self.scrape().part(cursor, true);
                Ok(Reply::Metrics { text, next })
            }
            Request::Neighbours => self.neighbours().map(Reply::Neighbours),
            Request::Network => Ok(Reply::Network(self.model.whole_network())),
            Request::Marks => Ok(Reply::Marks(self.model.marks())),
            Request::SyncDaemons => Ok(Reply::SyncDaemons(self.sync_daemons())),
            Request::Health => Ok(Reply::Health(self.health())),
        };
        answer.unwrap_or_else(Reply::Refused)
    }

    fn gone(&mut self, peer: &Peer) {
        self.end_capture(peer.client);
    }

    fn tick(&mut self, now: Duration) {
        self.now = now;
        self.trusted = true;
        self.finish_captures(Duration::ZERO);
        self.hardware.tick();
        self.mirror();
        while let Ok(scraper) = self.scrapes.try_recv() {
            // Who asked may have given up.
            let _ = scraper.try_send(self.scrape());
        }
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
            self.watch_traffic();
            self.see_to_drained();
            self.see_to_arrivals();
        }
        self.see_to_files();
        self.see_to_health();
        if let Some(manager) = &mut self.manager {
            manager.tick(now, self.model.services_len());
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

/// Several slices of a worker's listing, so that one that finds little goes on; and where to go on.
fn listing(
    worker: &Worker,
    mut wanted: Wanted,
) -> Result<(Vec<control::Connection>, Option<u32>), Refusal> {
    let mut list = Vec::new();
    for _ in 0..SLICES_MAX {
        let (slice, next) = ask(worker, |reply| Command::Connections {
            wanted: wanted.clone(),
            reply,
        })?;
        list.extend(slice);
        match next {
            Some(next) if list.len() + SLICE_MAX <= control::CONNECTIONS_MAX => wanted.from = next,
            next => return Ok((list, next)),
        }
        if wanted.fate != Fate::Stays {
            break;
        }
    }
    Ok((list, Some(wanted.from)))
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

fn answer(confirmations: &Receiver<()>) -> Result<(), Refusal> {
    confirmations.recv_timeout(ANSWER_TIMEOUT).map_err(|_| {
        let timeout_s = ANSWER_TIMEOUT.as_secs();
        let detail = format!(
            "a worker did not confirm the change within {timeout_s} s; it takes effect there when the worker goes on"
        );
        refuse(Errno::Eagain, detail)
    })
}

//! The control side, on the main thread: a request becomes updates in every worker's mailbox.

mod arrivals; // whether devices spread packets as they were told
mod audit; // what was changed, for the log
mod capture; // packets for clients
mod change; // judged, carried out, logged
mod command; // what workers are asked
mod drain; // drained servers, seen to
mod explain; // what becomes of a packet
mod files; // configuration files: plan, apply, roll back, save
mod hardware; // the devices of ports
pub mod health; // servers that are probed
mod kept; // what outlives the daemon
mod kernel; // what the kernel has on its sides of ports
mod listings; // connections and neighbours, as workers know them
#[cfg(test)]
mod load; // ten thousand services with a hundred thousand servers
pub mod manager; // the service manager, told how the director does
pub mod metrics; // for Prometheus
pub mod model; // the authoritative services and servers
mod node; // whether clients are to come here
mod passive; // what packets say of servers
pub mod server; // the Unix socket
mod start; // ports and daemons, started and stopped
pub mod stats; // sums, rates, status
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use control::{PortSpec, Reply, Request};
use crossbeam::channel::{Receiver, Sender};

use crate::conn::state::State;
use crate::counters::Page;
use crate::net::Setup;
use crate::sync::Daemons;
use crate::templates::Templates;
use crate::time::Clock;
use crate::update::{Batch, ServerId};
use arrivals::Arrivals;
use capture::Captures;
use command::ask;
pub use command::{ANSWER_TIMEOUT, Command, Fate, MAILBOX_MAX, SLICE_MAX, Slice, Wanted, Worker};
pub use files::CONFIRM_MAX_S;
use files::Files;
pub use hardware::{Hardware, Setting};
use health::Ward;
use manager::Manager;
use metrics::Scrape;
use model::{Limits, Model, STEP_S, SWEEP_S, View};
use node::Node;
use server::{Backend, Peer};
use stats::{ESTIMATE_S, Machine};

/// Program and release, for people.
pub const PROGRAM: &str = concat!("directord ", env!("CARGO_PKG_VERSION"));

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
    node: Node,
    /// Who asks could do by itself whatever the director can.
    trusted: bool,
    arrivals: Arrivals,
    /// Without it nothing outlives the daemon.
    keeper: Option<kept::Keeper>,
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
            node: Node::default(),
            trusted: true,
            arrivals: Arrivals::default(),
            keeper: None,
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
            node: self.node.state(),
            announced: self.node.announced().to_vec(),
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

    fn status(&self) -> control::Status {
        stats::status(
            &self.workers,
            self.templates.as_deref(),
            self.machine(),
            self.connections_max,
            self.now.as_secs(),
        )
    }

    fn timeouts(&self) -> Reply {
        let seconds = |state| self.model.timeouts().ms(state) / 1000;
        Reply::Timeouts {
            tcp: seconds(State::Established),
            tcp_fin: seconds(State::FinWait),
            udp: seconds(State::Udp),
        }
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
        // Numbers are not used anew before it is written down whose they were. The next sweep will do.
        if self.is_busy() || !self.is_kept() {
            return;
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
        if !updates.is_empty() {
            self.keep_now();
        }
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
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Metrics { cursor } => {
                let (text, next) = self.scrape().part(cursor, true);
                Ok(Reply::Metrics { text, next })
            }
            Request::Neighbours => self.neighbours().map(Reply::Neighbours),
            Request::Network => Ok(Reply::Network(self.model.whole_network())),
            Request::Marks => Ok(Reply::Marks(self.model.marks())),
            Request::SyncDaemons => Ok(Reply::SyncDaemons(self.sync_daemons())),
            Request::Health => Ok(Reply::Health(self.health())),
            Request::Node => Ok(Reply::Node(self.node_status())),
            Request::DrainNode => {
                self.drain_node(peer);
                Ok(Reply::Done)
            }
            Request::UndrainNode => {
                self.undrain_node(peer);
                Ok(Reply::Done)
            }
        };
        self.keep();
        answer.unwrap_or_else(Reply::Refused)
    }

    fn gone(&mut self, peer: &Peer) {
        self.end_capture(peer.client);
    }

    fn tick(&mut self, now: Duration) {
        self.now = now;
        self.trusted = true;
        self.finish_captures(Duration::ZERO);
        self.hardware.tick(now);
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
        self.see_to_node();
        self.keep();
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

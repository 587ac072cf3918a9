//! The daemon around the director: configuration, EAL, ports, workers, control server, and the end.

pub mod heritage; // what a daemon before this one left
mod kernel; // reads the kernel's tables
mod links; // goes by what ports are linked with
pub mod log; // where the log goes, and how
pub mod ports; // the devices of the ports

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::Scope;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender, bounded};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, PortConf};
use crate::control::manager::Manager;
use crate::control::metrics::{self, Scrape};
use crate::control::server::{Access, CLIENTS_MAX, Server};
use crate::control::{Command, Control, MAILBOX_MAX, Worker as WorkerHandle};
use crate::counters::Page;
use crate::director::Director;
use crate::dpdk::{
    Eal, EalConfig, HEADROOM, Mempool, check_core, data_room, register_worker, socket_of, with_room,
};
use crate::mem::Place;
use crate::net::Setup;
use crate::restart::{self, Sizes};
use crate::steer::Steer;
use crate::sync::Daemons;
use crate::sync::message::Entry;
use crate::templates::Templates;
use crate::time::Clock;
use crate::worker::{Links, Queues, Worker, links};
pub use heritage::Beginning;
use heritage::Heritage;
use ports::Ports;

/// The least bytes of an mbuf, headroom included.
const ROOM_MIN: u32 = HEADROOM as u32 + 2048;
/// Bytes behind the longest frame, in which a packet can grow.
const ROOM_SPARE: u32 = 64;

/// Open files that are not the control socket's: logs, devices, huge pages.
const DESCRIPTORS_SPARE: usize = 1024;

/// Runs until SIGTERM or SIGINT; with SIGHUP the file at `path`, which `config` was read from, is
/// read again.
pub fn run(config: &Config, path: &Path, beginning: Beginning) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let reload = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&reload))
        .context("taking over signals")?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("taking over signals")?;
    }
    let heritage = Heritage::take(config, beginning)?;
    let director = &config.director;
    let (group, read_group) = (&director.socket_group, &director.socket_read_group);
    let access = Access::by_name(group.as_deref(), read_group.as_deref())?;
    let mut server = Server::bind(&director.socket, access)?;
    allow_descriptors();
    // While the process's own affinity is to be seen.
    director
        .workers
        .iter()
        .try_for_each(|&core| check_core(core))?;
    let eal = Eal::init(&eal_config(config))?;
    let pools = pools(&eal, config)?;
    let mut ports = Ports::new(&eal, &director.workers, &pools).waking(server.waker());
    let queues = ports.start_all(config.ports.iter().map(|port| &port.spec))?;
    let asked = (path, reload);
    let result = serve(
        config,
        &mut server,
        &eal,
        &pools,
        ports,
        queues,
        &stop,
        asked,
        heritage.as_ref(),
    );
    let in_use: u32 = pools.iter().map(Mempool::in_use).sum();
    if in_use > 0 {
        tracing::error!(in_use, "packet buffers were not returned");
    }
    tracing::info!("stopped");
    result
}

/// Each client of the socket takes a descriptor, and the usual limit is for less than there may be.
fn allow_descriptors() {
    let wanted = (CLIENTS_MAX + DESCRIPTORS_SPARE) as u64;
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted.min(hard)), hard)
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Starts the workers, serves the socket until `stop`, and ends the workers.
#[expect(
    clippy::too_many_arguments,
    reason = "everything that was started, given once"
)]
fn serve(
    config: &Config,
    server: &mut Server,
    eal: &Eal,
    pools: &[Mempool],
    mut ports: Ports,
    queues: Vec<Vec<Queues>>,
    stop: &AtomicBool,
    (path, reload): (&Path, Arc<AtomicBool>),
    heritage: Option<&Heritage>,
) -> Result<()> {
    let (setup, reta) = (config.setup(|port| ports.mac(port)), ports.reta());
    let place = heritage.map_or(Place::MEMORY, Heritage::place);
    let image = heritage.and_then(Heritage::image);
    let (ended, stopped) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
    std::thread::scope(|scope| {
        let templates = templates(config, &restart::of_templates(&place))?;
        let clock = Clock::start();
        let workers = start_workers(
            scope,
            config,
            eal,
            pools,
            queues,
            (&setup, reta),
            &templates,
            clock,
            &ended,
            (&place, image.is_none()),
        );
        // Whatever happens from here on, the workers must be told to end or the scope waits for ever.
        let result = workers.and_then(|workers| {
            ports.serve(&workers.0);
            let connections_max = u64::from(config.director.max_connections);
            let (workers, synced) = workers;
            let sync = Daemons::new(synced, Some(Arc::clone(&templates)), clock);
            let mut control =
                Control::new(config.director.limits(), workers, connections_max, ports)
                    .synchronised(sync)
                    .with_ports(config.port_specs())
                    .timed_by(clock)
                    .announcing_after(config.director.announce_wait)
                    .networked(setup.clone())
                    .sharing(Arc::clone(&templates))
                    .reloading(path.to_owned(), reload);
            let waker = server.waker();
            control = control.notified(move || {
                // The main thread looks by itself before long.
                let _ = waker.wake();
            });
            if let Some(heritage) = heritage {
                control = control.keeping(heritage.generation(), sizes(config, reta));
            }
            let started = match image {
                None => control.start(config),
                Some(image) => control.resume(config, image),
            };
            started.context("applying the services of the configuration")?;
            if let Some(heritage) = heritage {
                control.keep_now();
                heritage.settle();
            }
            if let Some(address) = config.metrics.address {
                let scraper = serve_metrics(config, address, server, &stopped);
                control = control.scraped(scraper);
            }
            announce_ready(config, &mut control);
            let served = server.run(&mut control, stop);
            control.leave();
            control.keep_now();
            served.context("serving the control socket")
        });
        match &result {
            Ok(()) if heritage.is_some() => {
                tracing::info!("told to stop; the connections wait for the next director");
            }
            Ok(()) => tracing::info!("told to stop; the connections end with the director"),
            Err(_) => tracing::error!("cannot go on, stopping"),
        }
        Manager::stopping();
        ended.store(true, Relaxed);
        stopped.store(true, Relaxed);
        result
    })
}

/// Opens the endpoint for Prometheus, without which a director can well live.
fn serve_metrics(
    config: &Config,
    address: SocketAddr,
    server: &Server,
    stopped: &Arc<AtomicBool>,
) -> Receiver<Sender<Scrape>> {
    let waker = server.waker();
    let (scraper, asked) = metrics::scraper(move || {
        // The main thread looks by itself before long.
        let _ = waker.wake();
    });
    match metrics::serve(address, config.metrics.servers, &scraper, stopped) {
        Ok(address) => tracing::info!(%address, "metrics at http://{address}/metrics"),
        Err(error) => tracing::warn!(
            "no metrics at {address}: {error}; another address under [metrics] is right, or \"none\""
        ),
    }
    asked
}

/// The one table of templates that all workers share.
fn templates(config: &Config, place: &Place) -> Result<Arc<Templates>> {
    let templates = config.director.max_templates;
    let table = Templates::within(place, templates, [random(), random()]);
    let table = table.with_context(|| format!("memory for {templates} templates"))?;
    Ok(Arc::new(table))
}

fn announce_ready(config: &Config, control: &mut Control) {
    let (socket, workers) = (config.director.socket.display(), &config.director.workers);
    tracing::info!(%socket, ?workers, "ready");
    control.tell(Manager::new(
        control.watched(),
        sd_notify::watchdog_enabled(),
    ));
}

fn eal_config(config: &Config) -> EalConfig {
    let devices = |is_virtual| {
        let of_kind = config
            .ports
            .iter()
            .filter(move |port| port.is_virtual() == is_virtual);
        of_kind.map(device).collect::<Vec<_>>()
    };
    let (vdevs, devices) = (devices(true), devices(false));
    EalConfig {
        file_prefix: config.eal.file_prefix.clone(),
        huge_pages: config.eal.huge_pages,
        memory_mb: config.eal.memory_mb,
        pci: !devices.is_empty(),
        single_file_segments: config.eal.single_file_segments,
        vdevs,
        devices,
        main_core: config.director.control_core,
        extra: config.eal.extra.clone(),
    }
}

/// The device of `port`, made to take packets as long as its MTU says.
fn device(port: &PortConf) -> String {
    with_room(&port.spec.device, port.spec.mtu)
}

/// One pool per worker, in the memory of its core's NUMA node.
fn pools(eal: &Eal, config: &Config) -> Result<Vec<Mempool>> {
    let ports = config.ports.iter();
    let rooms = ports.map(|port| data_room(&device(port), port.spec.mtu) + ROOM_SPARE);
    let room = rooms.fold(ROOM_MIN, u32::max);
    let room = u16::try_from(room).ok().with_context(|| {
        format!(
            "packet buffers of {room} bytes are too long, 65535 at most is right: lower framesz"
        )
    })?;
    let cores = config.director.workers.iter().enumerate();
    let make = |(i, core): (usize, &u16)| {
        Mempool::new(
            eal,
            &format!("worker{i}"),
            config.eal.mbufs,
            room,
            socket_of(*core),
        )
    };
    Ok(cores.map(make).collect::<Result<_, _>>()?)
}

/// How much there is of everything.
pub(super) fn sizes(config: &Config, reta: usize) -> Sizes {
    let (director, limits) = (&config.director, config.director.limits());
    Sizes {
        workers: director.workers.len(),
        reta,
        connections: director.max_connections,
        templates: director.max_templates,
        services: limits.services_max,
        servers: limits.servers_max,
    }
}

/// Everything that one worker's thread is started with.
struct Start {
    me: usize,
    core: u16,
    /// Entries of the redirection table.
    reta: usize,
    queues: Vec<Queues>,
    links: Links,
    mailbox: Receiver<Command>,
    /// Of all workers.
    pages: Arc<[Arc<Page>]>,
    templates: Arc<Templates>,
    /// Where its tables lie.
    place: Place,
    /// Whether it takes packets from the beginning.
    is_open: bool,
    /// Says whether the worker could be set up.
    ready: Sender<Result<()>>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "everything that workers are started with, given once"
)]
fn start_workers<'s>(
    scope: &'s Scope<'s, '_>,
    config: &'s Config,
    eal: &'s Eal,
    pools: &'s [Mempool],
    queues: Vec<Vec<Queues>>,
    (setup, reta): (&'s Setup, usize),
    templates: &Arc<Templates>,
    clock: Clock,
    ended: &'s AtomicBool,
    (place, is_open): (&Place, bool),
) -> Result<(Vec<WorkerHandle>, Vec<Sender<Entry>>)> {
    let cores = &config.director.workers;
    let secret = [random(), random()];
    let limits = config.director.limits();
    let new_page = |me| {
        let place = restart::of_worker(place, me);
        Page::within(&place, limits.services_max, limits.servers_max).map(Arc::new)
    };
    let pages = (0..cores.len()).map(new_page);
    let pages: Arc<[_]> = pages
        .collect::<Result<_, _>>()
        .context("memory for counters")?;
    let (mut handles, mut synced) = (Vec::new(), Vec::new());
    for (me, (queues, links)) in queues.into_iter().zip(links(cores.len())).enumerate() {
        let core = cores[me];
        let (sender, mailbox) = bounded(MAILBOX_MAX);
        let (ready, is_ready) = bounded(1);
        synced.push(links.synced());
        handles.push(WorkerHandle {
            core,
            page: Arc::clone(&pages[me]),
            mailbox: sender,
        });
        let start = Start {
            me,
            core,
            reta,
            queues,
            links,
            mailbox,
            pages: Arc::clone(&pages),
            templates: Arc::clone(templates),
            place: restart::of_worker(place, me),
            is_open,
            ready,
        };
        std::thread::Builder::new()
            .name(format!("worker{me}"))
            .spawn_scoped(scope, move || {
                work(
                    start,
                    config,
                    eal,
                    &pools[me],
                    setup.clone(),
                    secret,
                    clock,
                    ended,
                );
            })
            .with_context(|| format!("starting the worker on core {core}"))?;
        match is_ready.recv() {
            Ok(result) => result?,
            Err(_) => bail!("the worker on core {core} ended while it was started"),
        }
    }
    Ok((handles, synced))
}

#[expect(
    clippy::too_many_arguments,
    reason = "one thread's whole world, given once"
)]
fn work(
    start: Start,
    config: &Config,
    eal: &Eal,
    pool: &Mempool,
    setup: Setup,
    secret: [u64; 2],
    clock: Clock,
    ended: &AtomicBool,
) {
    // Memory that the thread touches first lies at its own NUMA node: so pin before building.
    let built = register_worker(eal, start.core)
        .map_err(anyhow::Error::from)
        .and_then(|thread| {
            let steer = Steer::over(start.me, config.director.workers.len(), start.reta);
            let connections = config.director.max_connections;
            let page = Arc::clone(&start.pages[start.me]);
            let director = Director::within(&start.place, connections, secret, setup, steer, page)
                .with_context(|| format!("memory for {connections} connections"))?;
            let director = director.among(start.pages).sharing(start.templates);
            Ok((thread, director))
        });
    match built {
        Ok((thread, director)) => {
            let (pool, idle) = (pool.clone(), config.director.idle);
            let mut worker = Worker::new(
                director,
                start.queues,
                pool,
                start.links,
                start.mailbox,
                clock,
                idle,
                eal.cycles_per_second(),
            );
            if !start.is_open {
                worker = worker.closed();
            }
            let _ = start.ready.send(Ok(()));
            worker.run(ended);
            drop(worker);
            drop(thread);
        }
        Err(error) => {
            let _ = start.ready.send(Err(error));
        }
    }
}

/// A number that nobody outside can guess: the standard library's own hash-flood protection.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

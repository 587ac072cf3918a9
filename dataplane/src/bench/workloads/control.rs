//! The control socket while packets are forwarded: the real server and model on the second core,
//! a client that asks without pause or a thousand times a second, and the worker's mailbox.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use control::client::Client;
use control::{Cursor, Filter, MetricsCursor, Protocol, Reply, Request};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::bench::generator::{Generator, Outbox, Work};
use crate::bench::measure::{Meter, Spread, wall};
use crate::bench::network::Site;
use crate::bench::report::Row;
use crate::bench::subject::Subject;
use crate::bench::{Bench, Way, Workload};
use crate::control::server::{Access, Server};
use crate::control::stats::Machine;
use crate::control::{Command, Control, MAILBOX_MAX, Worker};
use crate::director::Director;
use crate::dpdk::{Mbuf, register_worker};
use crate::steer::Steer;
use crate::time::Instant;
use crate::update::Batch;

const SERVERS: u32 = 200;
const FLOWS: u32 = 100_000;

/// What the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Nothing,
    /// Another weight for a server, so many times a second.
    Changes(u32),
    /// All metrics, so many times a second.
    Scrapes(u32),
    /// All connections, over and over.
    Listings,
}

/// How far the worker and the client have come: the director is configured, its connections are open,
/// and all is measured.
#[derive(Debug, Default)]
struct Steps {
    configured: AtomicBool,
    open: AtomicBool,
    served: AtomicBool,
}

pub(super) fn run(bench: &mut Bench<'_>) -> Result<()> {
    for (case, asks) in [
        ("nothing", Asks::Nothing),
        ("1 000 changes a second", Asks::Changes(1_000)),
        ("10 scrapes a second", Asks::Scrapes(10)),
        ("listing 100 000 connections", Asks::Listings),
    ] {
        bench.progress(&format!("  {case}"));
        let row = case_of(bench, case, asks)?;
        bench.rows.push(row);
    }
    Ok(())
}

fn case_of(bench: &mut Bench<'_>, case: &str, asks: Asks) -> Result<Row> {
    let site = Site {
        servers: SERVERS,
        ..Site::of(Way::nat(Protocol::Tcp))
    };
    let generator = bench
        .lab
        .bare(site, FLOWS, bench.real(), Steer::new(0, 1))?;
    let path = std::env::temp_dir().join(format!("directord-bench-{}.sock", std::process::id()));
    let mut server = Server::bind(&path, Access::by_name(None, None)?)?;
    let (mailbox, commands) = bounded(MAILBOX_MAX);
    let (core, eal) = (bench.options.second_core, bench.eal);
    let worker = Worker {
        core: bench.options.core,
        page: Arc::clone(generator.director().page()),
        mailbox,
    };
    let (steps, stop) = (Steps::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let control_side = scope.spawn(|| {
            let _core = register_worker(eal, core)?;
            let connections = u64::from(FLOWS);
            let mut control =
                Control::new(site.limits(), vec![worker], connections, Machine::default);
            Ok::<_, anyhow::Error>(server.run(&mut control, &stop)?)
        });
        let client = scope.spawn(|| {
            let asked = register_worker(eal, core)
                .map_err(anyhow::Error::from)
                .and_then(|_core| ask(&path, site, asks, &steps));
            // Whatever became of it, the worker goes on.
            steps.configured.store(true, Relaxed);
            asked
        });
        let mut mailbox = Mailbox::new(commands);
        let seen = serve(bench, generator, &mut mailbox, &steps);
        steps.served.store(true, Relaxed);
        let row = seen.and_then(|mut subject| {
            while !client.is_finished() {
                subject.window_beside(bench.lab.clock, 1, &mut mailbox.work())?;
            }
            Ok(subject)
        });
        stop.store(true, Relaxed);
        let answers = joined(client)?;
        joined(control_side)?;
        row.and_then(|subject| self::row(bench, case, &subject, answers))
    })
}

/// The worker's part: is configured, opens connections, and forwards.
fn serve(
    bench: &mut Bench<'_>,
    mut generator: Generator,
    mailbox: &mut Mailbox,
    steps: &Steps,
) -> Result<Subject> {
    let clock = bench.lab.clock;
    let mut meter = Meter::new(clock);
    while !steps.configured.load(Relaxed) {
        generator.round_after(&mut meter, &mut mailbox.work())?;
    }
    let mut subject = Subject::established(bench, generator, FLOWS)?;
    steps.open.store(true, Relaxed);
    bench.yardstick.sample();
    for _ in 0..bench.options.windows() {
        subject.window_beside(clock, bench.options.window_ms(), &mut mailbox.work())?;
    }
    Ok(subject)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| bail!("a thread of the benchmark panicked"))
}

fn row(bench: &Bench<'_>, case: &str, subject: &Subject, answers_ms: Vec<f64>) -> Result<Row> {
    let clock = bench.lab.clock;
    let (answers, longest) = (
        answers_ms.len(),
        answers_ms.iter().copied().fold(f64::NAN, f64::max),
    );
    let row = Row::new(Workload::Control, case)
        .with("ns_per_packet", subject.packet(subject.windows()))
        .with("p99.99_pass_us", subject.pass_us(clock, 0.0001))
        .with("longest_pass_us", subject.pass_us(clock, 0.0))
        .with("answers", answers as u64)
        .with("answer_ms", Spread::least(answers_ms).median)
        .with("longest_answer_ms", longest);
    subject.end(row)
}

/// What a worker carries out between two bursts: one command, or a part of one.
struct Mailbox {
    commands: Receiver<Command>,
    /// A batch of which a part waits for the next pass.
    applying: Option<(Batch, usize, Sender<()>)>,
}

impl Mailbox {
    fn new(commands: Receiver<Command>) -> Self {
        Self {
            commands,
            applying: None,
        }
    }

    fn work(&mut self) -> impl Work {
        |director: &mut Director<Mbuf>, outbox: &mut Outbox, now: Instant| {
            self.obey(director, outbox, now);
        }
    }

    fn obey(&mut self, director: &mut Director<Mbuf>, outbox: &mut Outbox, now: Instant) {
        if let Some((batch, applied, done)) = self.applying.take() {
            return self.apply(batch, applied, done, director, outbox);
        }
        match self.commands.try_recv() {
            Ok(Command::Apply(batch, done)) => self.apply(batch, 0, done, director, outbox),
            Ok(Command::Connections { wanted, reply }) => {
                let _ = reply.try_send(director.connections(now, &wanted, outbox));
            }
            // Nothing else is asked for.
            Ok(_) | Err(_) => {}
        }
    }

    fn apply(
        &mut self,
        batch: Batch,
        mut applied: usize,
        done: Sender<()>,
        director: &mut Director<Mbuf>,
        outbox: &mut Outbox,
    ) {
        applied += director.apply_part(&batch[applied..], outbox);
        if applied < batch.len() {
            self.applying = Some((batch, applied, done));
        } else {
            drop(batch);
            let _ = done.try_send(());
        }
    }
}

/// The client's part: configures the director, and asks until it is told to end. Returns how many
/// milliseconds each answer took.
fn ask(path: &Path, site: Site, asks: Asks, steps: &Steps) -> Result<Vec<f64>> {
    let mut client = Client::connect(path, "bench", "")?;
    done(client.ask(&Request::Change(site.changes(FLOWS)))?)?;
    steps.configured.store(true, Relaxed);
    while !steps.open.load(Relaxed) && !steps.served.load(Relaxed) {
        thread::sleep(Duration::from_millis(1));
    }
    let (mut took, began) = (Vec::new(), wall());
    let mut number = 0;
    while !steps.served.load(Relaxed) {
        if let Asks::Nothing = asks {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        if let Asks::Changes(rate) | Asks::Scrapes(rate) = asks {
            let due = Duration::from_secs(1) * number / rate;
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let asked = wall();
        match asks {
            Asks::Nothing => {}
            Asks::Changes(_) => {
                let change = site.weigh(number % SERVERS, 1 + number % 7);
                done(client.ask(&Request::Change(vec![change]))?)?;
            }
            Asks::Scrapes(_) => scrape(&mut client)?,
            Asks::Listings => list(&mut client)?,
        }
        took.push(asked.elapsed().as_secs_f64() * 1e3);
        number += 1;
    }
    Ok(took)
}

fn done(reply: Reply) -> Result<()> {
    match reply {
        Reply::Done => Ok(()),
        other => bail!("the control side answered {other:?}"),
    }
}

fn scrape(client: &mut Client) -> Result<()> {
    let mut at = Some(MetricsCursor::default());
    while let Some(cursor) = at {
        let Reply::Metrics { next, .. } = client.ask(&Request::Metrics { cursor })? else {
            bail!("metrics were refused");
        };
        at = next;
    }
    Ok(())
}

fn list(client: &mut Client) -> Result<()> {
    let mut at = Some(Cursor::default());
    while let Some(cursor) = at {
        let filter = Filter::default();
        let Reply::Connections { next, .. } =
            client.ask(&Request::Connections { cursor, filter })?
        else {
            bail!("a listing was refused");
        };
        at = next;
    }
    Ok(())
}

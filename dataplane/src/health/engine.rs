//! The thread that probes: what is due is sent, what comes is judged.

use std::cmp::Reverse;
use std::collections::hash_map::RandomState;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::{Http, Probe};
use crossbeam::channel::{Receiver, Sender, unbounded};
use mio::{Events, Poll, Token, Waker};
use nix::sys::resource::{Resource, getrlimit};
use socket2::{Socket, Type};

use super::command::Commands;
use super::course::Course;
use super::dns::{self, Asked};
use super::echo::Echo;
use super::gate::{Gate, Pass};
use super::talk::Talk;
use super::web::Web;
use super::{Check, Last, Outcome, Spec, now};

/// The most probes that are under way at a time; half of the descriptors that there may be if these
/// are fewer.
const UNDER_WAY_MAX: u64 = 4096;
/// What is due waits so long when no more can be under way.
const WAIT_MS: u64 = 20;

// A check's token is its number.
const SPECIAL: usize = 1 << 62;
const WAKER: Token = Token(SPECIAL);
const ENDS: Token = Token(SPECIAL + 1);
const ECHO: [Token; 2] = [Token(SPECIAL + 2), Token(SPECIAL + 3)];
/// libcurl's sockets.
const WEB: usize = SPECIAL + 16;

/// Watches targets until it is dropped.
#[derive(Debug)]
pub struct Engine {
    /// What is to be watched, all of it.
    orders: Option<Sender<Vec<Arc<Check>>>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
    checks: HashMap<Spec, Arc<Check>>,
    /// Checks so far.
    made: usize,
}

impl Engine {
    /// Tells `changes` each check whose fitness is another, and calls `notify` then. Without a `gate`
    /// nothing goes by the director.
    pub fn start(
        gate: Option<Gate>,
        changes: Sender<Arc<Check>>,
        notify: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (orders, received) = unbounded();
        let prober = move || match Web::new(WEB) {
            Ok(web) => Prober::new(poll, web, gate, received, changes, Box::new(notify)).run(),
            Err(error) => tracing::error!("health checks: libcurl cannot be used: {error}"),
        };
        let thread = std::thread::Builder::new().name("health".to_owned());
        Ok(Self {
            orders: Some(orders),
            waker,
            thread: Some(thread.spawn(prober)?),
            checks: HashMap::new(),
            made: 0,
        })
    }

    /// Watches these and nothing else. What is watched already stays as it is.
    pub fn watch(&mut self, specs: HashSet<Spec>) {
        let Self { checks, made, .. } = self;
        checks.retain(|spec, _| specs.contains(spec));
        for spec in specs {
            checks.entry(spec).or_insert_with_key(|spec| {
                *made += 1;
                Arc::new(Check::new(*made, spec.clone()))
            });
        }
        let all = self.checks.values().cloned().collect();
        if let Some(orders) = &self.orders {
            // A thread that is gone has said so.
            let _ = orders.send(all);
        }
        self.wake();
    }

    pub fn check(&self, spec: &Spec) -> Option<&Arc<Check>> {
        self.checks.get(spec)
    }

    pub fn checks(&self) -> impl Iterator<Item = &Arc<Check>> {
        self.checks.values()
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the health checks");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.orders = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A target that is watched.
#[derive(Debug)]
struct Watched {
    check: Arc<Check>,
    course: Course,
    /// When its next probe is sent, or the one under way is given up.
    timer_ms: u64,
    probe: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    since: Instant,
    since_ms: u64,
    means: Means,
    pass: Option<Pass>,
}

#[derive(Debug)]
enum Means {
    Talk(Box<Talk>),
    Web,
    Echo,
    Command,
}

struct Prober {
    poll: Poll,
    gate: Option<Gate>,
    orders: Receiver<Vec<Arc<Check>>>,
    changes: Sender<Arc<Check>>,
    notify: Box<dyn Fn() + Send>,
    started: Instant,
    watched: HashMap<usize, Watched>,
    /// Timers and whose they are; one that was set anew is there twice.
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    under_way: u64,
    under_way_max: u64,
    web: Web,
    web_timer_ms: Option<u64>,
    echo: Echo,
    commands: Commands,
}

impl fmt::Debug for Prober {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prober").finish_non_exhaustive()
    }
}

impl Prober {
    fn new(
        poll: Poll,
        web: Web,
        gate: Option<Gate>,
        orders: Receiver<Vec<Arc<Check>>>,
        changes: Sender<Arc<Check>>,
        notify: Box<dyn Fn() + Send>,
    ) -> Self {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        Self {
            poll,
            gate,
            orders,
            changes,
            notify,
            started: now(),
            watched: HashMap::new(),
            timers: BinaryHeap::new(),
            under_way: 0,
            under_way_max: UNDER_WAY_MAX.min(descriptors / 2),
            web,
            web_timer_ms: None,
            echo: Echo::new(ECHO),
            commands: Commands::new(ENDS),
        }
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    tracing::error!(%error, "health checks end: cannot poll");
                    return;
                }
                _ => {}
            }
            for event in &events {
                self.ready(event);
            }
            if !self.obey() {
                return;
            }
            self.fire();
            self.see_to_web();
        }
    }

    /// How long nothing is to be done unless something comes.
    fn timeout(&self) -> Option<Duration> {
        let first = self.timers.peek().map(|Reverse((ms, _))| *ms);
        let due = first.into_iter().chain(self.web_timer_ms).min()?;
        Some(Duration::from_millis(due.saturating_sub(self.now_ms())))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ready(&mut self, event: &mio::event::Event) {
        match event.token() {
            WAKER => {}
            ENDS => {
                for (check, outcome) in self.commands.ended() {
                    self.ended(check, outcome);
                }
            }
            token if ECHO.contains(&token) => {
                for check in self.echo.heard(token) {
                    self.ended(check, Outcome::Passed);
                }
            }
            token if token.0 >= WEB => {
                let registry = self.poll.registry();
                self.web.socket_is_ready(registry, token, event);
                self.web.poll_sockets(registry);
            }
            Token(check) => self.talk(check),
        }
    }

    fn talk(&mut self, id: usize) {
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let Some(UnderWay {
            means: Means::Talk(talk),
            ..
        }) = &mut watched.probe
        else {
            return;
        };
        let outcome = match &watched.check.spec.probe {
            Probe::Tcp(words) | Probe::Udp(words) => talk.go_on(words),
            Probe::Dns(dns) => {
                let question = talk.said().to_vec();
                let question = &question;
                talk.go_on(&Asked { dns, question })
            }
            Probe::Http(_) | Probe::Icmp | Probe::Command(_) => None,
        };
        if let Some(outcome) = outcome {
            self.ended(id, outcome);
        }
    }

    /// Takes the last orders, if there are any; `false` when there are to be no more.
    fn obey(&mut self) -> bool {
        use crossbeam::channel::TryRecvError;
        let mut last = None;
        loop {
            match self.orders.try_recv() {
                Ok(checks) => last = Some(checks),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        if let Some(checks) = last {
            self.watch(checks);
        }
        true
    }

    fn watch(&mut self, checks: Vec<Arc<Check>>) {
        let wanted: HashSet<usize> = checks.iter().map(|check| check.id).collect();
        let gone = self.watched.keys().filter(|id| !wanted.contains(id));
        for id in gone.copied().collect::<Vec<_>>() {
            self.give_up(id);
            self.watched.remove(&id);
        }
        let now_ms = self.now_ms();
        for check in checks {
            let id = check.id;
            if self.watched.contains_key(&id) {
                continue;
            }
            let mut course = Course::new(random());
            let timer_ms = course.first_ms(now_ms, &check.spec.rhythm);
            self.timers.push(Reverse((timer_ms, id)));
            let watched = Watched {
                check,
                course,
                timer_ms,
                probe: None,
            };
            self.watched.insert(id, watched);
        }
    }

    /// Sends what is due, and gives up what takes too long.
    fn fire(&mut self) {
        let now_ms = self.now_ms();
        while let Some(Reverse((ms, id))) = self.timers.peek().copied()
            && ms <= now_ms
        {
            self.timers.pop();
            match self.watched.get(&id) {
                Some(watched) if watched.timer_ms != ms => {}
                Some(Watched { probe: None, .. }) => self.probe(id, now_ms),
                Some(Watched { check, .. }) => {
                    let outcome = too_late(&check.spec);
                    self.ended(id, outcome);
                }
                None => {}
            }
        }
    }

    fn set_timer(&mut self, id: usize, ms: u64) {
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.timer_ms = ms;
            self.timers.push(Reverse((ms, id)));
        }
    }

    fn probe(&mut self, id: usize, now_ms: u64) {
        let Some(watched) = self.watched.get(&id) else {
            return;
        };
        let check = Arc::clone(&watched.check);
        let is_command = matches!(check.spec.probe, Probe::Command(_));
        if self.under_way >= self.under_way_max || is_command && self.commands.is_full() {
            return self.set_timer(id, now_ms + WAIT_MS);
        }
        let since = now();
        let (pass, begun) = match self.enter(&check.spec) {
            Ok(None) => (None, self.begin(id, &check.spec, None)),
            Ok(Some((socket, pass))) => (Some(pass), self.begin(id, &check.spec, Some(socket))),
            Err(outcome) => (None, Err(outcome)),
        };
        let (means, early) = match begun {
            Ok(means) => (means, None),
            Err(outcome) => (Means::Web, Some(outcome)),
        };
        self.under_way += 1;
        if let Some(watched) = self.watched.get_mut(&id) {
            watched.probe = Some(UnderWay {
                since,
                since_ms: now_ms,
                means,
                pass,
            });
        }
        self.set_timer(id, now_ms + u64::from(check.spec.rhythm.timeout_ms));
        if let Some(outcome) = early {
            self.ended(id, outcome);
        }
    }

    /// What a probe that goes by the director goes through.
    fn enter(&self, spec: &Spec) -> Result<Option<(Socket, Pass)>, Outcome> {
        let Some(way) = &spec.way else {
            return Ok(None);
        };
        let nowhere = || Outcome::Unsent("there is no director".to_owned());
        let gate = self.gate.as_ref().ok_or_else(nowhere)?;
        let kind = match spec.probe {
            Probe::Udp(_) | Probe::Dns(_) => Type::DGRAM,
            _ => Type::STREAM,
        };
        gate.enter(way, kind, spec.target).map(Some)
    }

    /// By this socket, if there is one.
    fn begin(&mut self, id: usize, spec: &Spec, by: Option<Socket>) -> Result<Means, Outcome> {
        let (registry, token, to) = (self.poll.registry(), Token(id), spec.target);
        let talk = |talk: io::Result<Talk>| Ok(Means::Talk(Box::new(talk?)));
        match &spec.probe {
            Probe::Tcp(words) => talk(Talk::tcp(registry, token, to, by, words.send.0.clone())),
            Probe::Udp(words) => talk(Talk::udp(registry, token, to, by, words.send.0.clone())),
            Probe::Dns(dns) => {
                let [a, b, ..] = random().to_be_bytes();
                let question = dns::question(dns, u16::from_be_bytes([a, b]));
                let question = question.map_err(Outcome::Unsent)?;
                talk(Talk::udp(registry, token, to, by, question))
            }
            Probe::Http(http) => self.web.start(id, http, to, by).map(|()| Means::Web),
            Probe::Icmp => {
                self.echo.send(registry, id, to.ip(), random())?;
                Ok(Means::Echo)
            }
            Probe::Command(words) => {
                let started = self.commands.start(registry, id, words, to);
                let unsent = |error| {
                    let program = words.first().map_or("", String::as_str);
                    Outcome::Unsent(format!("cannot run {program}: {}", super::lower(&error)))
                };
                started.map(|()| Means::Command).map_err(unsent)
            }
        }
    }

    /// Nothing is waited for any more.
    fn give_up(&mut self, id: usize) -> Option<UnderWay> {
        let under_way = self.watched.get_mut(&id)?.probe.take()?;
        self.under_way -= 1;
        match under_way.means {
            Means::Talk(_) => {}
            Means::Web => self.web.stop(id),
            Means::Echo => self.echo.forget(id),
            Means::Command => self.commands.kill(id),
        }
        Some(under_way)
    }

    fn ended(&mut self, id: usize, outcome: Outcome) {
        let Some(UnderWay {
            since,
            since_ms,
            pass,
            ..
        }) = self.give_up(id)
        else {
            return;
        };
        let outcome = match pass {
            Some(pass) => pass.judge(outcome),
            None => outcome,
        };
        let (at, now_ms) = (now(), self.now_ms());
        let Some(watched) = self.watched.get_mut(&id) else {
            return;
        };
        let (check, passed) = (&watched.check, outcome.passed());
        let rhythm = &check.spec.rhythm;
        let next = watched.course.ended(passed, since_ms, now_ms, rhythm);
        let mut status = check.lock();
        status.probes += 1;
        status.failures += u64::from(passed == Some(false));
        status.last = Some(Last {
            at,
            outcome,
            latency: at.duration_since(since),
        });
        if next.changed {
            status.fitness = watched.course.fitness();
            status.since = at;
        }
        drop(status);
        if next.changed {
            // Nobody may want to know any more.
            let _ = self.changes.send(Arc::clone(check));
            (self.notify)();
        }
        self.set_timer(id, next.due_ms);
    }

    fn see_to_web(&mut self) {
        if self.web_timer_ms.is_some_and(|ms| ms <= self.now_ms()) {
            self.web_timer_ms = None;
            self.web.timer_came();
        }
        let watched = &self.watched;
        let ended = self.web.ended(|id| asked(watched, id));
        for (id, outcome) in ended {
            self.ended(id, outcome);
        }
        self.web.poll_sockets(self.poll.registry());
        if let Some(ms) = self.web.take_timer() {
            self.web_timer_ms = Some(self.now_ms() + ms);
        }
    }
}

fn asked(watched: &HashMap<usize, Watched>, id: usize) -> Option<&Http> {
    match &watched.get(&id)?.check.spec.probe {
        Probe::Http(http) => Some(http),
        _ => None,
    }
}

/// Of UDP, where no particular answer is expected, silence is right.
fn too_late(spec: &Spec) -> Outcome {
    match &spec.probe {
        Probe::Udp(words) if words.expect.0.is_empty() => Outcome::Passed,
        Probe::Command(_) => {
            Outcome::Failed(format!("still ran after {} ms", spec.rhythm.timeout_ms))
        }
        _ => Outcome::Failed(format!("no answer within {} ms", spec.rhythm.timeout_ms)),
    }
}

/// A number that nobody outside can guess.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

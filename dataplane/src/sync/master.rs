//! The master: tells the group what the workers have to tell.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Wall};

use super::message::{self, Entry, Version, Word, Writer, flags};
use super::news::{Feed, Feeder, News, TemplateNews, feeds};
use super::page::SyncPage;
use super::socket::Place;
use crate::templates::{Kind, Templates};
use crate::time::Clock;

/// How long news wait for others to share a datagram with.
const GATHER: Duration = Duration::from_millis(20);
/// How often rings are looked into while nothing comes.
const LOOK: Duration = Duration::from_millis(5);
/// News taken from one worker before the next one's turn.
const TURN: usize = 256;
/// How long a socket that takes no more is waited for before a datagram is given up.
const PATIENCE: Duration = Duration::from_millis(100);

/// A master that runs.
#[derive(Debug)]
pub(super) struct Master {
    place: Place,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a master works with.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) workers: usize,
    pub(super) version: Version,
    /// As many as `sync_ports`, one after the other.
    pub(super) ports: u16,
    pub(super) clock: Clock,
    pub(super) templates: Option<Arc<Templates>>,
    pub(super) page: Arc<SyncPage>,
}

impl Master {
    /// Begins; the feeds are the workers'. A round of everything is asked for.
    pub(super) fn start(place: Place, means: Means) -> io::Result<(Self, Vec<Feed>)> {
        let (feeds, feeders, rounds) = feeds(means.workers);
        let stop = Arc::new(AtomicBool::new(false));
        let mut speech = Speech::new(&place, means, feeders, rounds)?;
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("sync-master".to_owned());
        let thread = thread.spawn(move || speech.run(&stopped))?;
        let thread = Some(thread);
        Ok((
            Self {
                place,
                stop,
                thread,
            },
            feeds,
        ))
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One port's socket, and what gathers for it.
#[derive(Debug)]
struct Voice {
    socket: UdpSocket,
    writer: Writer,
}

/// The master's thread.
#[derive(Debug)]
struct Speech {
    place: Place,
    means: Means,
    feeders: Vec<Feeder>,
    /// By worker, the round that it has finished.
    finished: Vec<u32>,
    rounds: Arc<AtomicU32>,
    told_round: u32,
    voices: Vec<Voice>,
    /// Hears who asks for a round.
    listener: UdpSocket,
    gathering_since: Option<Wall>,
}

impl Speech {
    fn new(
        place: &Place,
        means: Means,
        feeders: Vec<Feeder>,
        rounds: Arc<AtomicU32>,
    ) -> io::Result<Self> {
        let voice = |number: u16| {
            let place = place.at(number);
            let socket = place.speaker()?;
            socket.connect(place.to())?;
            socket.set_write_timeout(Some(PATIENCE))?;
            let writer = Writer::new(means.version, place.sync_id(), place.len_max());
            Ok(Voice { socket, writer })
        };
        let voices = (0..means.ports).map(voice).collect::<io::Result<_>>()?;
        Ok(Self {
            place: place.clone(),
            finished: vec![0; feeders.len()],
            feeders,
            rounds,
            told_round: 0,
            voices,
            listener: place.listener(LOOK)?,
            gathering_since: None,
            means,
        })
    }

    fn run(&mut self, stop: &AtomicBool) {
        loop {
            let ends = stop.load(Relaxed);
            let any = self.take_turns();
            if ends && !any {
                return self.send_gathered();
            }
            if self
                .gathering_since
                .is_some_and(|since| since.elapsed() >= GATHER)
            {
                self.send_gathered();
            }
            self.end_round();
            if !any {
                self.listen();
            }
        }
    }

    /// Takes some news of each worker; whether there were any.
    fn take_turns(&mut self) -> bool {
        let mut any = false;
        for worker in 0..self.feeders.len() {
            for _ in 0..TURN {
                let Some((since, news)) = self.feeders[worker].take() else {
                    break;
                };
                any = true;
                let lag = self.means.clock.now().0.since(since);
                self.means.page.lag_ms.set(lag);
                match news {
                    News::Connection(entry) => self.write(&entry),
                    News::Template(news) => {
                        if let Some(entry) = self.template(news) {
                            self.write(&entry);
                        }
                    }
                    News::Round(round) => self.finished[worker] = round,
                }
            }
        }
        any
    }

    fn write(&mut self, entry: &Entry) {
        let count = self.voices.len().max(1);
        let voice = &mut self.voices[usize::from(entry.client.port()) % count];
        self.gathering_since.get_or_insert_with(wall);
        self.means.page.told.add(1);
        if let Some(full) = voice.writer.push(entry) {
            send(&voice.socket, &full, &self.means.page);
        }
    }

    fn send_gathered(&mut self) {
        self.gathering_since = None;
        for voice in &mut self.voices {
            if let Some(message) = voice.writer.take() {
                send(&voice.socket, &message, &self.means.page);
            }
        }
    }

    /// As the kernel's backups know a template.
    fn template(&self, news: TemplateNews) -> Option<Entry> {
        let (templates, now) = (self.means.templates.as_ref()?, self.means.clock.now().0);
        let template = templates.at(news.number, now)?;
        if template.kind.is_single() || template.invalid {
            return None;
        }
        let no_output = match news.method {
            flags::DIRECT | flags::TUNNEL => flags::NO_OUTPUT,
            _ => 0,
        };
        Some(Entry {
            protocol: template.protocol,
            flags: flags::TEMPLATE | flags::INACTIVE | no_output | news.method,
            state: u16::from(template.assured),
            client: template.client,
            vip: template.virtual_address,
            server: news.server,
            mark: news.mark,
            timeout_s: template.tie.timeout_ms / 1000,
            sequences: None,
            engine_data: (template.kind == Kind::Engine).then_some(template.engine),
            local: None,
        })
    }

    /// Says so once every worker has told all that there was when it was asked.
    fn end_round(&mut self) {
        let Some(&round) = self.finished.iter().min() else {
            return;
        };
        if round.wrapping_sub(self.told_round) as i32 > 0 {
            self.told_round = round;
            self.send_gathered();
            let word = Word::Done.message(self.place.sync_id());
            send(&self.voices[0].socket, &word, &self.means.page);
            tracing::info!("every connection was told to the backups");
        }
    }

    /// Waits a moment for who asks for everything.
    fn listen(&mut self) {
        let mut heard = [0; 64];
        let Ok(len) = self.listener.recv(&mut heard) else {
            return;
        };
        let word = message::read(&heard[..len], self.place.sync_id());
        let wanted = word.is_ok_and(|entries| entries.word() == Some(Word::Want));
        // Who asks during a round waits for its end, or has it from the middle on and asks again.
        if wanted && self.told_round == self.rounds.load(Relaxed) {
            tracing::info!("a backup asks for every connection");
            self.rounds.fetch_add(1, Relaxed);
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the network's time, not the director's"
)]
fn wall() -> Wall {
    Wall::now()
}

fn send(socket: &UdpSocket, message: &[u8], page: &SyncPage) {
    match socket.send(message) {
        Ok(_) => {
            page.sent.add(1);
            page.sent_bytes.add(message.len() as u64);
        }
        Err(_) => page.unsent.add(1),
    }
}

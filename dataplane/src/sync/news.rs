//! What workers tell the master, and how it reaches it: a ring for each worker, which a full ring loses from.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rtrb::{Consumer, Producer, RingBuffer};

use super::message::Entry;
use crate::time::Instant;

/// News that wait for the master.
const RING: usize = 1 << 13;

/// Something that backups are to know. Nearly all are connections, and none is allocated.
#[derive(Debug)]
pub enum News {
    Connection(Entry),
    /// Of this number among those that the workers share; what is not there but in services.
    Template(TemplateNews),
    /// All that there was when this round was asked for has been told.
    Round(u32),
}

#[derive(Debug, Clone, Copy)]
pub struct TemplateNews {
    pub number: u32,
    /// The forwarding method as in [`super::message::flags`].
    pub method: u32,
    pub server: SocketAddr,
    pub mark: u32,
}

/// A worker's end.
#[derive(Debug)]
pub struct Feed {
    ring: Producer<(Instant, News)>,
    rounds: Arc<AtomicU32>,
}

/// The master's end.
#[derive(Debug)]
pub struct Feeder(Consumer<(Instant, News)>);

impl Feeder {
    /// The oldest, and when it was told.
    pub fn take(&mut self) -> Option<(Instant, News)> {
        self.0.pop().ok()
    }
}

/// For so many workers. The number is of the last round that was asked for: one more asks for one more.
pub fn feeds(workers: usize) -> (Vec<Feed>, Vec<Feeder>, Arc<AtomicU32>) {
    let rounds = Arc::new(AtomicU32::new(1));
    let pairs = (0..workers).map(|_| {
        let (producer, consumer) = RingBuffer::new(RING);
        let feed = Feed {
            ring: producer,
            rounds: Arc::clone(&rounds),
        };
        (feed, Feeder(consumer))
    });
    let (feeds, feeders) = pairs.unzip();
    (feeds, feeders, rounds)
}

impl Feed {
    /// Whether there was room for it.
    pub fn tell(&mut self, now: Instant, news: News) -> bool {
        self.ring.push((now, news)).is_ok()
    }

    /// How many news there is room for.
    pub fn room(&self) -> usize {
        self.ring.slots()
    }

    /// The last round that was asked for.
    pub fn round(&self) -> u32 {
        self.rounds.load(Relaxed)
    }
}

//! What workers are asked between two bursts.

use std::sync::Arc;
use std::time::Duration;

use control::{Connection, Errno, Filter, Refusal};
use crossbeam::channel::{Sender, bounded};

use super::model::refuse;
use crate::counters::Page;
use crate::director::explain::{Excerpt, Query};
use crate::director::{Adopted, Heirs};
use crate::net::NeighbourView;
use crate::restart::Image;
use crate::sync::news::Feed;
use crate::update::Batch;
use crate::watch::drops::Drop;
use crate::watch::tap::Tap;
#[cfg(feature = "dpdk")]
use crate::{packet::PortId, worker::Queues};

/// The most commands that wait for one worker.
pub const MAILBOX_MAX: usize = 64;
/// How long a worker may take to answer a command.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections that a worker lists at once, while packets wait.
pub const SLICE_MAX: usize = 128;

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
    /// Takes over the connections that a director before this one left.
    Adopt {
        image: Arc<Image>,
        heirs: Arc<Heirs>,
        reply: Sender<Adopted>,
    },
    /// From now on packets are taken.
    Open,
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

/// Posts a command and waits for its answer.
pub(super) fn ask<T>(
    worker: &Worker,
    command: impl FnOnce(Sender<T>) -> Command,
) -> Result<T, Refusal> {
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

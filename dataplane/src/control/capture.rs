//! Packets for clients: the last drops, and captures.

use std::time::Duration;

use control::packet::Frame;
use control::{
    BUFFER_MAX, BUFFER_MIN, Bytes, CaptureSpec, Captured, Dropped, End, Errno, Refusal, Reply,
    SNAPLEN_MAX, TERMS_MAX, Word,
};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

use super::model::{Model, refuse};
use super::server::Peer;
use super::{Command, Control, Worker, ask};
use crate::counters::DropReason;
use crate::watch::drops::{DROPS_KEPT, Drop};
use crate::watch::tap::{CAPTURES_MAX, Caught, Fate, Intake, Tap, Wanted, tap};

/// Bytes of packets that one reply carries, or a packet more.
const REPLY_BYTES: usize = 4 << 20;
/// Bytes of all captures' rings together.
const BUFFERS_MAX: usize = 512 << 20;

/// One client's capture.
#[derive(Debug)]
struct Capture {
    client: u64,
    id: u64,
    /// By worker.
    intakes: Vec<Intake>,
    bytes: usize,
    /// When the daemon started, by the system's clock when the capture began.
    epoch_ns: u64,
    stopped: bool,
}

/// All captures, and what is left of those whose workers did not answer.
#[derive(Debug, Default)]
pub(super) struct Captures {
    all: Vec<Capture>,
    last_id: u64,
    ending: Vec<Ending>,
}

/// A capture that a worker is to give back.
#[derive(Debug)]
struct Ending {
    worker: usize,
    id: u64,
    /// Once it is told.
    answer: Option<Receiver<Option<Box<Tap>>>>,
}

impl Captures {
    /// Whether no client has one, and no worker.
    #[cfg(test)]
    pub(super) fn are_none(&self) -> bool {
        self.all.is_empty() && self.ending.is_empty()
    }
}

impl Control {
    pub(super) fn drops(&self, after: &[u64]) -> Result<Reply, Refusal> {
        let epoch_ns = self.clock.epoch_ns();
        let (mut list, mut counts) = (Vec::new(), Vec::new());
        for (number, worker) in self.workers.iter().enumerate() {
            let (drops, count) = ask(worker, |reply| Command::Drops {
                after: after.get(number).copied().unwrap_or(0),
                into: Vec::with_capacity(DROPS_KEPT),
                reply,
            })?;
            let shown = drops
                .iter()
                .map(|drop| self.dropped(drop, worker, epoch_ns));
            list.extend(shown);
            counts.push(count);
        }
        list.sort_by_key(|dropped| dropped.at_ns);
        Ok(Reply::Drops { list, counts })
    }

    fn dropped(&self, drop: &Drop, worker: &Worker, epoch_ns: u64) -> Dropped {
        let frame = Frame::read(drop.bytes());
        Dropped {
            at_ns: epoch_ns + drop.at_ns,
            worker: worker.core,
            port: self.model.ports().name(drop.port),
            vlan: frame.and_then(|frame| frame.vlan),
            reason: drop.reason.name().to_owned(),
            sentence: drop.reason.sentence().to_owned(),
            length: drop.len,
            bytes: Bytes(drop.bytes().to_vec()),
        }
    }

    /// Who looks at packets is noted in the log.
    pub(super) fn start_capture(
        &mut self,
        spec: CaptureSpec,
        peer: &Peer,
    ) -> Result<Reply, Refusal> {
        let (client, stage) = (peer.client, spec.stage);
        let wanted = wanted(&self.model, spec.clone())?;
        let (bytes, captures) = (
            spec.buffer as usize * self.workers.len(),
            &self.captures.all,
        );
        if captures.iter().any(|capture| capture.client == client) {
            let detail = "this client captures already; end that one first";
            return Err(refuse(Errno::Eexist, detail));
        }
        let used: usize = captures.iter().map(|capture| capture.bytes).sum();
        if captures.len() >= CAPTURES_MAX || used + bytes > BUFFERS_MAX {
            let detail = format!(
                "{} captures with {} MiB are taken already, at most {CAPTURES_MAX} with {} MiB together are right",
                captures.len(),
                used >> 20,
                BUFFERS_MAX >> 20,
            );
            return Err(refuse(Errno::Enomem, detail));
        }
        self.captures.last_id += 1;
        let mut capture = Capture {
            client,
            id: self.captures.last_id,
            intakes: Vec::new(),
            bytes,
            epoch_ns: self.clock.epoch_ns(),
            stopped: false,
        };
        let started = self.tap(&mut capture, &wanted, spec.buffer as usize);
        self.captures.all.push(capture);
        if let Err(refusal) = started {
            self.end_capture(client);
            return Err(refusal);
        }
        tracing::info!(target: "audit", %peer, "capture packets, stage {}", stage.word());
        Ok(Reply::CaptureStarted {
            ports: self.model.ports().names(),
        })
    }

    fn tap(&self, capture: &mut Capture, wanted: &Wanted, ring: usize) -> Result<(), Refusal> {
        for worker in &self.workers {
            let (tap, intake) = tap(capture.id, wanted.clone(), ring);
            capture.intakes.push(intake);
            let full = |_| refuse(Errno::Enomem, "a worker has too many captures");
            ask(worker, |reply| Command::Tap(Box::new(tap), reply))?.map_err(full)?;
        }
        Ok(())
    }

    pub(super) fn captured_next(&mut self, client: u64) -> Result<Reply, Refusal> {
        let (captures, model) = (&mut self.captures.all, &self.model);
        let place = find(captures, client)?;
        let capture = &mut captures[place];
        let share = REPLY_BYTES / capture.intakes.len().max(1);
        let mut packets = Vec::new();
        for (intake, worker) in capture.intakes.iter_mut().zip(&self.workers) {
            let mut taken = 0;
            while taken < share
                && let Some(caught) = intake.next()
            {
                // A reply holds more than the bytes of small packets.
                taken += caught.bytes.len() + size_of::<Captured>();
                packets.push(captured(model, caught, worker.core, capture.epoch_ns));
            }
        }
        packets.sort_by_key(|packet| packet.at_ns);
        let missed = capture.intakes.iter().map(Intake::missed).sum();
        let done = capture.stopped && packets.is_empty();
        if done {
            captures.swap_remove(place);
        }
        Ok(Reply::Captured {
            packets,
            ports: self.model.ports().names(),
            missed,
            done,
        })
    }

    pub(super) fn stop_capture(
        &mut self,
        client: u64,
        patience: Duration,
    ) -> Result<Reply, Refusal> {
        let place = find(&self.captures.all, client)?;
        let capture = &mut self.captures.all[place];
        if !std::mem::replace(&mut capture.stopped, true) {
            let id = capture.id;
            let endings = (0..self.workers.len()).map(|worker| Ending {
                worker,
                id,
                answer: None,
            });
            self.captures.ending.extend(endings);
            self.finish_captures(patience);
        }
        Ok(Reply::Done)
    }

    /// Ends the capture of a client that has gone, if it had one.
    pub(super) fn end_capture(&mut self, client: u64) {
        if self.stop_capture(client, Duration::ZERO).is_ok() {
            self.captures.all.retain(|capture| capture.client != client);
        }
    }

    /// Takes what is to end from the workers, so that its memory is freed here.
    pub(super) fn finish_captures(&mut self, patience: Duration) {
        let workers = &self.workers;
        self.captures.ending.retain_mut(|ending| {
            let Some(worker) = workers.get(ending.worker) else {
                return false;
            };
            if ending.answer.is_none() {
                let (reply, answer) = bounded(1);
                let untap = Command::Untap {
                    id: ending.id,
                    reply,
                };
                ending.answer = worker.mailbox.try_send(untap).ok().map(|()| answer);
            }
            // A worker that is no more has nothing to give.
            (ending.answer.as_ref()).is_none_or(|answer| {
                matches!(
                    answer.recv_timeout(patience),
                    Err(RecvTimeoutError::Timeout)
                )
            })
        });
    }
}

fn find(captures: &[Capture], client: u64) -> Result<usize, Refusal> {
    let place = captures.iter().position(|capture| capture.client == client);
    place.ok_or_else(|| {
        refuse(
            Errno::Enoent,
            "this client captures nothing; start a capture first",
        )
    })
}

/// The names in a filter found, and its bounds kept.
fn wanted(model: &Model, spec: CaptureSpec) -> Result<Wanted, Refusal> {
    let wrong = |detail: String| Err(refuse(Errno::Einval, detail));
    let CaptureSpec {
        stage,
        filter,
        snaplen,
        buffer,
    } = spec;
    if !(1..=SNAPLEN_MAX).contains(&snaplen) {
        return wrong(format!(
            "a snaplen of {snaplen} bytes, 1 to {SNAPLEN_MAX} is right"
        ));
    }
    if !(BUFFER_MIN..=BUFFER_MAX).contains(&buffer) {
        return wrong(format!(
            "a buffer of {buffer} bytes, {BUFFER_MIN} to {BUFFER_MAX} is right"
        ));
    }
    if filter.hosts.len() + filter.nets.len() + filter.ports.len() > TERMS_MAX {
        return wrong(format!("too many conditions, at most {TERMS_MAX} is right"));
    }
    let mut reason = None;
    if let Some(name) = &filter.reason {
        reason = DropReason::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == name);
        if reason.is_none() {
            return wrong(format!(
                "no drop has the reason {name:?}; directorctl status names those that occurred"
            ));
        }
    }
    let mut port = None;
    if let Some(name) = &filter.port {
        port = model.ports().find(name);
        if port.is_none() {
            return wrong(format!(
                "the director has no port {name:?}, one of {} is right",
                model.ports().listed()
            ));
        }
    }
    Ok(Wanted {
        stage,
        filter,
        reason,
        port,
        snaplen: snaplen as usize,
    })
}

fn captured(model: &Model, caught: Caught, worker: u16, epoch_ns: u64) -> Captured {
    let server = caught.server.and_then(|id| model.server_named(id));
    let service = caught.service.and_then(|id| model.service_named(id));
    let end = match caught.fate {
        Fate::Received => End::Received,
        Fate::Forwarded => End::Forwarded,
        Fate::Answered => End::Answered,
        Fate::Punted => End::Punted,
        Fate::Held => End::Held,
        Fate::Consumed => End::Consumed,
        Fate::Dropped(reason) => End::Dropped {
            reason: reason.name().to_owned(),
            sentence: reason.sentence().to_owned(),
        },
    };
    Captured {
        at_ns: epoch_ns + caught.at_ns,
        worker,
        from: caught.from.0,
        to: caught.to.map(|port| port.0),
        missed: caught.missed,
        length: caught.len,
        end,
        service: service.or(server.map(|(service, _)| service)),
        server: server.map(|(_, address)| address),
        method: caught.method,
        bytes: Bytes(caught.bytes),
    }
}

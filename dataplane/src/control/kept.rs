//! What outlives the daemon: it is written down after each change, and taken up at the next start.

use std::sync::Arc;

use control::{Errno, Refusal};
use crossbeam::channel::bounded;

#[cfg(test)]
use super::model::Kept;
use super::model::{Numbers, refuse};
use super::{Command, Control};
use crate::config::Config;
use crate::counters::Counter;
use crate::director::{Adopted, Heirs};
use crate::restart::{Generation, Image, Sizes};
use crate::update::SERVERS_MAX;

/// What takes no longer is written with each change; ...
const PROMPT_NS: u64 = 5_000_000;
/// ... what does takes at most one part in so many of this thread's time.
const SHARE: u64 = 10;
/// After it failed, the next time.
const RETRY_NS: u64 = NS_PER_S;
const NS_PER_S: u64 = 1_000_000_000;

/// Where it is written down.
#[derive(Debug)]
pub(super) struct Keeper {
    generation: Generation,
    sizes: Sizes,
    stale: bool,
    /// Not before then, on the workers' clock.
    due_ns: u64,
    failed: bool,
}

impl Control {
    /// Writes down from now on what outlives this daemon.
    #[must_use]
    pub fn keeping(mut self, generation: Generation, sizes: Sizes) -> Self {
        self.keeper = Some(Keeper {
            generation,
            sizes,
            stale: true,
            due_ns: 0,
            failed: false,
        });
        self
    }

    /// Something may have changed of it.
    pub(super) fn outdate(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.stale = true;
        }
    }

    /// Whether what was written down last is still so, as far as anybody would read it.
    pub(super) fn is_kept(&self) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| !keeper.stale)
    }

    /// Writes down what changed, if it is time to.
    pub(super) fn keep(&mut self) {
        let now_ns = self.clock.now().1;
        let is_due = |keeper: &Keeper| keeper.stale && now_ns >= keeper.due_ns;
        if self.keeper.as_ref().is_some_and(is_due) {
            self.keep_now();
        }
    }

    /// Writes it down whether it is time to or not.
    pub fn keep_now(&mut self) {
        let Some(mut keeper) = self.keeper.take() else {
            return;
        };
        let (now, begun_ns) = self.clock.now();
        let kept = self
            .model
            .kept(self.said().clone(), u64::from(now.0) / 1000);
        let written = keeper.generation.write(self.clock, keeper.sizes, &kept);
        let ended_ns = self.clock.now().1;
        let took_ns = ended_ns - begun_ns;
        keeper.due_ns = match &written {
            Ok(()) if took_ns <= PROMPT_NS => ended_ns,
            Ok(()) => ended_ns + SHARE * took_ns,
            Err(_) => ended_ns + RETRY_NS,
        };
        keeper.stale = written.is_err();
        let failed = written.is_err();
        match written {
            Ok(()) if keeper.failed => {
                tracing::info!(target: "restart", "what outlives the director is written down again")
            }
            Err(error) if !keeper.failed => {
                tracing::error!(target: "restart", "what outlives the director cannot be written down, a restart would miss the last changes: {error}");
            }
            _ => {}
        }
        keeper.failed = failed;
        self.keeper = Some(keeper);
    }

    /// In place of [`Self::start`]: goes on where the director ended that left `image`. The workers take no
    /// packets until this is over.
    pub fn resume(&mut self, config: &Config, image: &Arc<Image>) -> Result<(), Refusal> {
        let kept = &image.kept;
        let is_same = match self.bring_back(config, kept) {
            Ok(is_same) => is_same,
            Err(refusal) => {
                tracing::error!(target: "restart", "starts empty, what ran before cannot come back: {refusal}");
                self.start(config)?;
                self.open();
                return Ok(());
            }
        };
        let numbers = self.model.numbers(kept);
        self.count_on(image, &numbers);
        for (id, fitness) in self.model.resume(kept) {
            self.ward.former.insert(id, fitness);
        }
        self.view = None;
        self.adopt(image, &numbers)?;
        for drain in kept.drains(image.clock.now().1 / NS_PER_S) {
            if let Err(refusal) = self.change(&[drain]) {
                tracing::warn!(target: "restart", "a server is not drained any more: {refusal}");
            }
        }
        self.open();
        self.catch_up(config, kept, is_same);
        Ok(())
    }

    /// Lets the workers take packets.
    pub fn open(&self) {
        for worker in &self.workers {
            let _ = worker.mailbox.send(Command::Open);
        }
    }

    /// Services and servers go on counting where they were.
    fn count_on(&self, image: &Image, numbers: &Numbers) {
        let pages = self.workers.iter().map(|worker| &worker.page).cycle();
        for (left, page) in image.workers.iter().zip(pages) {
            for (then, id) in &numbers.servers {
                let (Some(left), Some(page)) =
                    (left.server(*then as usize), page.servers.get(id.index()))
                else {
                    continue;
                };
                for (from, to) in left.counters().into_iter().zip(page.counters()) {
                    to.add(from.get());
                }
            }
            for (then, id) in &numbers.services {
                let (Some(left), Some(page)) =
                    (left.service(*then as usize), page.services.get(id.index()))
                else {
                    continue;
                };
                for (from, to) in left.drops.iter().zip(page.drops.iter()) {
                    to.add(Counter::get(from));
                }
            }
        }
    }

    /// Templates and connections go on.
    fn adopt(&self, image: &Arc<Image>, numbers: &Numbers) -> Result<(), Refusal> {
        let mut heirs = Heirs::default();
        for (then, id) in &numbers.servers {
            if *then < SERVERS_MAX {
                let place = *then as usize;
                let len = heirs.servers.len().max(place + 1);
                heirs.servers.resize(len, None);
                heirs.servers[place] = Some(*id);
            }
        }
        let templates = self.templates.as_ref().map(|templates| {
            let now = self.clock.now().0;
            let left = (&image.templates, image.clock.now().0);
            templates.resume(now, left, |id| heirs.server(id))
        });
        let mut templates = templates.unwrap_or_default();
        heirs.templates = std::mem::take(&mut templates.numbers);
        let adopted = self.adopt_connections(image, heirs)?;
        let (ties, lost) = (templates.holds.len(), templates.lost);
        if let Some(all) = &self.templates {
            templates
                .holds
                .into_iter()
                .for_each(|hold| all.release(hold));
        }
        let Adopted {
            kept,
            over,
            strange,
            homeless,
            torn,
        } = adopted;
        tracing::info!(
            target: "restart",
            "goes on with {kept} connections and {ties} templates; {over} connections had ended"
        );
        if adopted.lost() + lost > 0 {
            tracing::warn!(
                target: "restart",
                "lost are {strange} connections of servers that are not here, {homeless} without room or local port, \
                 {torn} that were damaged, and {lost} templates"
            );
        }
        Ok(())
    }

    fn adopt_connections(&self, image: &Arc<Image>, heirs: Heirs) -> Result<Adopted, Refusal> {
        let (reply, replies) = bounded(self.workers.len());
        let heirs = Arc::new(heirs);
        for worker in &self.workers {
            let command = Command::Adopt {
                image: Arc::clone(image),
                heirs: Arc::clone(&heirs),
                reply: reply.clone(),
            };
            let _ = worker.mailbox.send(command);
        }
        drop(reply);
        // However long it takes: millions of them take seconds.
        let adopted: Vec<Adopted> = replies.iter().collect();
        if adopted.len() < self.workers.len() {
            let detail = "a worker ended while it took over connections";
            return Err(refuse(Errno::Eagain, detail));
        }
        Ok(adopted.into_iter().fold(Adopted::default(), Adopted::and))
    }
}

#[cfg(test)]
impl Control {
    /// As it would be written down now.
    pub(super) fn kept(&self) -> Kept {
        self.model.kept(self.said().clone(), 0)
    }
}

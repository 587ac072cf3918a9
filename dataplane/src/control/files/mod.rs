//! Configuration files on a running director: plan, apply, confirm or roll back, reload, save.

mod diff; // the changes from what runs to what a file says
mod forecast; // what they would do
mod network; // addresses, routes, neighbours
mod restart; // what they cannot change
mod resume; // a start that goes on where another director ended
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use control::plan::Forecast;
use control::{Change, Conf, Drain, Errno, File, Plan, Refusal, Reply, ServiceKey};

use self::diff::{Diff, Sides};
use super::Control;
use super::manager::Manager;
use super::model::refuse;
use super::server::TICK;
use crate::config::Config;

/// The longest that something waits for its confirmation, in seconds: a day.
pub const CONFIRM_MAX_S: u32 = 24 * 3600;

/// What files there were.
#[derive(Default)]
pub(super) struct Files {
    /// What the director was started with.
    started: Config,
    /// What the file loaded last says.
    said: Conf,
    waiting: Option<Waiting>,
    reload: Option<Reload>,
}

/// A file that was applied and is not confirmed yet.
struct Waiting {
    file: String,
    confirm_s: u32,
    deadline: Duration,
    before: Before,
    /// It was said that going back does not work.
    complained: bool,
}

/// What comes back when nobody confirms.
struct Before {
    conf: Conf,
    said: Conf,
    draining: Vec<(ServiceKey, SocketAddr, Drain)>,
}

/// What a signal asks for.
struct Reload {
    path: PathBuf,
    wanted: Arc<AtomicBool>,
}

impl Control {
    /// Of a director started with `config`, which is applied now.
    pub fn start(&mut self, config: &Config) -> Result<(), Refusal> {
        self.change(&config.changes)?;
        self.files.started = config.clone();
        self.files.said = self.model.conf();
        Ok(())
    }

    /// What the file loaded last says.
    pub(super) fn said(&self) -> &Conf {
        &self.files.said
    }

    /// Applies the file at `path` whenever `wanted` becomes true, which it then is no more.
    #[must_use]
    pub fn reloading(mut self, path: PathBuf, wanted: Arc<AtomicBool>) -> Self {
        self.files.reload = Some(Reload { path, wanted });
        self
    }

    pub(super) fn plan(&mut self, file: &File) -> Result<Plan, Refusal> {
        let (plan, ..) = self.compare(&read(file)?, &file.name)?;
        Ok(plan)
    }

    /// The plan, what leads there, and what the file of this name says.
    fn compare(
        &mut self,
        config: &Config,
        name: &str,
    ) -> Result<(Plan, Vec<Change>, Conf), Refusal> {
        let mut wanted = config.conf()?;
        let now = self.model.network();
        let (network, waits) = network::reachable(config, &now);
        let mut needs_restart = restart::needs_restart(&self.files.started, &now, config, &network);
        needs_restart.extend(waits);
        wanted.network = network;
        let diff = self.diff(&wanted);
        let forecast = forecast::forecast(&mut self.model, &diff.changes, &diff.differences);
        let (forecast, refused) = match forecast {
            Ok(forecast) => (forecast, None),
            Err(refusal) => (Forecast::default(), Some(refusal)),
        };
        let plan = Plan {
            file: name.to_owned(),
            differences: diff.differences,
            needs_restart,
            forecast,
            refused,
            confirm_s: None,
        };
        Ok((plan, diff.changes, wanted))
    }

    fn diff(&self, wanted: &Conf) -> Diff {
        let draining: HashSet<_> = self.model.draining().map(|(server, _)| server).collect();
        let sides = Sides {
            now: &self.model.conf(),
            draining: &draining,
            said: &self.files.said,
            wanted,
        };
        sides.diff()
    }

    /// Applies a file that `who` sent; with `confirm_s` until somebody confirms it.
    pub(super) fn apply_file(
        &mut self,
        file: &File,
        confirm_s: Option<u32>,
        who: &dyn fmt::Display,
    ) -> Result<Plan, Refusal> {
        self.free_to_apply(confirm_s)?;
        self.apply_config(&read(file)?, &file.name, confirm_s, who)
    }

    pub(super) fn apply_config(
        &mut self,
        config: &Config,
        name: &str,
        confirm_s: Option<u32>,
        who: &dyn fmt::Display,
    ) -> Result<Plan, Refusal> {
        let (mut plan, changes, wanted) = self.compare(config, name)?;
        if let Some(refusal) = &plan.refused {
            let detail = format!("{name}: cannot be applied: {}", refusal.detail);
            return Err(refuse(refusal.errno, detail));
        }
        if changes.is_empty() {
            self.files.said = wanted;
            tracing::info!(target: "audit", %who, "apply {name}: nothing changes");
            return Ok(plan);
        }
        let before = self.before();
        let (steps, confirm) = (changes.len(), confirmation(confirm_s));
        tracing::info!(target: "audit", %who, "apply {name}: {steps} changes{confirm}");
        self.carry_out(&changes, who)?;
        self.files.said = wanted;
        plan.confirm_s = confirm_s;
        if let Some(confirm_s) = confirm_s {
            self.files.waiting = Some(Waiting {
                file: name.to_owned(),
                confirm_s,
                // The time of a request is up to a tick behind.
                deadline: self.now + TICK + Duration::from_secs(confirm_s.into()),
                before,
                complained: false,
            });
        }
        Ok(plan)
    }

    fn free_to_apply(&self, confirm_s: Option<u32>) -> Result<(), Refusal> {
        if let Some(waiting) = &self.files.waiting {
            let left = waiting.deadline.saturating_sub(self.now).as_secs();
            let detail = format!(
                "{} was applied and waits for its confirmation for {left} s more, \
                 directorctl confirm or directorctl rollback first is right",
                waiting.file
            );
            return Err(refuse(Errno::Eagain, detail));
        }
        if let Some(wrong) = confirm_s.filter(|seconds| !(1..=CONFIRM_MAX_S).contains(seconds)) {
            let detail =
                format!("confirm within {wrong} s cannot be, 1 to {CONFIRM_MAX_S} is right");
            return Err(refuse(Errno::Erange, detail));
        }
        Ok(())
    }

    /// The changes, in the log too. A worker that does not answer in time is no reason to believe
    /// that nothing has changed.
    fn carry_out(&mut self, changes: &[Change], who: &dyn fmt::Display) -> Result<(), Refusal> {
        let before = self.model.conf();
        match self.audited(changes, who) {
            Reply::Refused(refusal) if self.model.conf() == before => Err(refusal),
            Reply::Refused(refusal) => {
                tracing::warn!(target: "audit", %who, "{refusal}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn before(&self) -> Before {
        let draining = self.model.draining();
        Before {
            conf: self.model.conf(),
            said: self.files.said.clone(),
            draining: draining
                .map(|((service, server), drain)| (service, server, drain))
                .collect(),
        }
    }

    pub(super) fn confirm(&mut self, who: &dyn fmt::Display) -> Result<(), Refusal> {
        let waiting = self.files.waiting.take().ok_or_else(nothing_waits)?;
        tracing::info!(target: "audit", %who, "{} is confirmed", waiting.file);
        Ok(())
    }

    /// The configuration from before comes back, whatever was changed since.
    pub(super) fn roll_back(&mut self, who: &dyn fmt::Display) -> Result<Plan, Refusal> {
        let waiting = self.files.waiting.as_ref().ok_or_else(nothing_waits)?;
        let name = format!("the configuration before {}", waiting.file);
        let Diff {
            mut changes,
            differences,
        } = self.diff(&waiting.before.conf);
        changes.extend(self.drains_again(&waiting.before));
        let forecast = forecast::forecast(&mut self.model, &changes, &differences)?;
        let steps = changes.len();
        tracing::info!(target: "audit", %who, "{name} comes back: {steps} changes");
        self.carry_out(&changes, who)?;
        if let Some(waiting) = self.files.waiting.take() {
            self.files.said = waiting.before.said;
        }
        Ok(Plan {
            file: name,
            differences,
            needs_restart: Vec::new(),
            forecast,
            refused: None,
            confirm_s: None,
        })
    }

    /// What was being drained before and is not now.
    fn drains_again(&self, before: &Before) -> Vec<Change> {
        let still: HashSet<_> = self.model.draining().map(|(server, _)| server).collect();
        let lost = before.draining.iter();
        let lost = lost.filter(|(service, server, _)| !still.contains(&(*service, *server)));
        lost.map(|(service, server, drain)| Change::DrainServer {
            service: *service,
            server: *server,
            drain: *drain,
        })
        .collect()
    }

    /// The running configuration, as a file.
    pub(super) fn save(&self) -> Reply {
        let text = self.files.started.toml(&self.model.conf());
        let flaw = Config::parse(&text, "line").err();
        Reply::Saved {
            text,
            flaw: flaw.map(|error| error.to_string()),
        }
    }

    /// What is due of files: a signal, or the end of waiting.
    pub(super) fn see_to_files(&mut self) {
        let late = |waiting: &Waiting| self.now >= waiting.deadline;
        if self.files.waiting.as_ref().is_some_and(late) && !self.is_busy() {
            self.give_up_waiting();
        }
        if let Some(reload) = &self.files.reload
            && reload.wanted.swap(false, Relaxed)
        {
            let path = reload.path.clone();
            self.manager.iter_mut().for_each(Manager::reloading);
            self.reload(&path);
            let services = self.model.services_len();
            (self.manager.iter_mut()).for_each(|manager| manager.ready(services));
        }
    }

    /// Nobody confirmed. What does not work now is tried again with the next tick.
    fn give_up_waiting(&mut self) {
        let Some(waiting) = &self.files.waiting else {
            return;
        };
        let (file, confirm_s) = (waiting.file.clone(), waiting.confirm_s);
        if let Err(refusal) =
            self.roll_back(&format!("nobody confirmed {file} within {confirm_s} s"))
            && let Some(waiting) = &mut self.files.waiting
            && !std::mem::replace(&mut waiting.complained, true)
        {
            tracing::error!(target: "audit", "{file} cannot be rolled back, which is tried again: {refusal}");
        }
    }

    fn reload(&mut self, path: &std::path::Path) {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| refuse(Errno::Enoent, format!("{name}: cannot be read: {error}")));
        let applied = text.and_then(|text| {
            let file = File { name, text };
            self.apply_file(&file, None, &"SIGHUP")
        });
        match applied {
            Ok(plan) => {
                for restart in &plan.needs_restart {
                    tracing::warn!(target: "audit", "{}: {restart} needs a restart", plan.file);
                }
            }
            Err(refusal) => {
                tracing::error!(target: "audit", "SIGHUP changes nothing: {refusal}");
            }
        }
    }
}

fn read(file: &File) -> Result<Config, Refusal> {
    let config = Config::parse(&file.text, &file.name);
    config.map_err(|error| refuse(Errno::Einval, error.to_string()))
}

fn nothing_waits() -> Refusal {
    let detail =
        "nothing waits for its confirmation, what directorctl apply --confirm applied does";
    refuse(Errno::Enoent, detail)
}

/// `, to be confirmed within 30 s`
fn confirmation(confirm_s: Option<u32>) -> String {
    confirm_s.map_or(String::new(), |seconds| {
        format!(", to be confirmed within {seconds} s")
    })
}

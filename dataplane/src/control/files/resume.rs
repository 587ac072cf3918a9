//! A start that goes on where another director ended: what ran there comes first, and then what the file has
//! that it did not have then.

use std::collections::HashSet;

use control::{Change, Conf, Errno, Network, Refusal};

use super::diff::Sides;
use super::network;
use crate::config::Config;
use crate::control::Control;
use crate::control::model::Kept;

/// The changes from one to the other.
fn between(now: &Conf, wanted: &Conf) -> Vec<Change> {
    let sides = Sides {
        now,
        draining: &HashSet::new(),
        said: wanted,
        wanted,
    };
    sides.diff().changes
}

/// Workers that are slow with very much to apply do so before all that they are asked next.
fn in_time(result: Result<(), Refusal>) -> Result<(), Refusal> {
    match result {
        Err(refusal) if refusal.errno == Errno::Eagain => Ok(()),
        result => result,
    }
}

impl Kept {
    /// What brings the services back that ran, in the network that there is.
    pub fn changes(&self, now: &Conf) -> Vec<Change> {
        self.changes_in(now.network.clone(), now)
    }

    /// The same in this network.
    fn changes_in(&self, network: Network, now: &Conf) -> Vec<Change> {
        let wanted = Conf {
            network,
            sync: Vec::new(),
            ..self.conf.clone()
        };
        between(now, &wanted)
    }
}

impl Control {
    /// Brings back what ran, but for what synchronises connections, which waits until they are here. Whether the
    /// file is the one that was loaded last.
    pub(in crate::control) fn bring_back(
        &mut self,
        config: &Config,
        kept: &Kept,
    ) -> Result<bool, Refusal> {
        for changes in kept.deletions() {
            if let Err(refusal) = self.change(&changes) {
                tracing::warn!(target: "restart", "a deleted server is not known any more: {refusal}");
            }
        }
        let is_same = between(&kept.said, &config.conf()?).is_empty();
        let network = self.model.network();
        let mut whole = None;
        if is_same {
            let file = config.with_network(&kept.conf.network);
            let (network, _) = network::reachable(&file, &network);
            let changes = kept.changes_in(network, &self.model.conf());
            whole = match in_time(self.change(&changes)) {
                Ok(()) => Some(()),
                Err(refusal) => {
                    tracing::warn!(target: "restart", "the network is the file's: {refusal}");
                    None
                }
            };
        }
        if whole.is_none() {
            let changes = kept.changes(&self.model.conf());
            in_time(self.change(&changes))?;
        }
        self.files.started = config.clone();
        self.files.said = kept.said.clone();
        Ok(is_same)
    }

    /// What was put off, and what a file that was changed meanwhile says.
    pub(in crate::control) fn catch_up(&mut self, config: &Config, kept: &Kept, is_same: bool) {
        let result = match is_same {
            true => {
                let daemons = Conf {
                    sync: kept.conf.sync.clone(),
                    ..self.model.conf()
                };
                let changes = between(&self.model.conf(), &daemons);
                self.change(&changes)
            }
            false => {
                let applied = self.apply_config(config, "the file", None, &"start");
                applied.map(|_| ())
            }
        };
        if let Err(refusal) = result {
            tracing::error!(target: "restart", "goes on without what is new in the file: {refusal}");
        }
    }
}

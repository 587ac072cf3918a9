//! What only a restart takes over from a file.

use std::collections::HashMap;

use control::Network;
use control::conf::Key;
use control::plan::Restart;

use crate::config::{Config, Section};

/// Keys and sections in which `file` differs from what the director was started with, on the ports that
/// it has `now`; those that come and go on the way to `wanted` do not count.
pub(super) fn needs_restart(
    started: &Config,
    now: &Network,
    file: &Config,
    wanted: &Network,
) -> Vec<Restart> {
    let has = |network: &Network, name: &str| network.ports.iter().any(|port| port.name == name);
    let (mut started, mut file) = (started.with_network(now).fixed(), file.fixed());
    started.ports.retain(|port| has(wanted, &port.spec.name));
    (file.ports).retain(|port| has(now, &port.spec.name) || !has(wanted, &port.spec.name));
    let (started, file) = (started.sections(), file.sections());
    let by_name = |sections: &[Section]| -> HashMap<String, Vec<Key>> {
        let named = |section: &Section| (section.name.clone(), section.keys.clone());
        sections.iter().map(named).collect()
    };
    let (running, wanted) = (by_name(&started), by_name(&file));
    let mut needs = Vec::new();
    for Section { name, keys, .. } in &started {
        match wanted.get(name) {
            Some(wanted) => needs.extend(changed(name, keys, wanted)),
            None => needs.push(whole(name, Some(keys), None)),
        }
    }
    let new = file.iter().filter(|one| !running.contains_key(&one.name));
    needs.extend(new.map(|one| whole(&one.name, None, Some(&one.keys))));
    needs
}

fn changed(section: &str, running: &[Key], file: &[Key]) -> Vec<Restart> {
    let pairs = running.iter().zip(file);
    // A default may follow from other keys, which are told then.
    let said = pairs.filter(|(running, file)| !(running.is_default && file.is_default));
    let differ = said.filter(|(running, file)| running.value != file.value);
    differ
        .map(|(running, file)| Restart {
            section: section.to_owned(),
            key: Some(running.name.to_owned()),
            running: Some(running.value.clone()),
            file: Some(file.value.clone()),
        })
        .collect()
}

fn whole(section: &str, running: Option<&[Key]>, file: Option<&[Key]>) -> Restart {
    let said = |keys: &[Key]| {
        let said = keys.iter().filter(|key| !key.is_default);
        let said = said.map(|key| format!("{} = {}", key.name, key.value));
        said.collect::<Vec<_>>().join(", ")
    };
    Restart {
        section: section.to_owned(),
        key: None,
        running: running.map(said),
        file: file.map(said),
    }
}

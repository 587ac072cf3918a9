//! The daemons that synchronise connections: a master and a backup at most.

use control::{Errno, Refusal, SyncDaemon, SyncRole, SyncStatus};

use super::undo::{Transaction, Undo};
use super::{Model, refuse};

const MTU: u32 = 1500;
/// The longest name of an interface.
const INTERFACE_MAX: usize = 15;
/// The longest datagram without its headers.
const LEN_MAX: u16 = 65_507;

impl Model {
    /// Those that run, the master first.
    pub fn sync_daemons(&self) -> &[SyncDaemon] {
        &self.daemons
    }

    pub fn sync_daemon(&self, role: SyncRole) -> Option<&SyncDaemon> {
        self.daemons.iter().find(|daemon| daemon.role == role)
    }

    /// As they are listed where nothing but their names runs.
    pub fn sync_named(&self) -> Vec<SyncStatus> {
        let daemons = self.daemons.iter();
        let named = daemons.map(|daemon| SyncStatus::idle(daemon.on(MTU)));
        named.collect()
    }

    pub(super) fn start_sync(
        &mut self,
        daemon: &SyncDaemon,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        let role = daemon.role;
        if let Some(wrong) = wrong_daemon(daemon) {
            return Err(refuse(Errno::Einval, wrong));
        }
        if self.sync_daemon(role).is_some() {
            let detail = format!("a sync {role} runs already, stop that first");
            return Err(refuse(Errno::Eexist, detail));
        }
        if let Some((service, server)) = self.mixed_server() {
            let detail = format!(
                "server {server} of {} is of another family than its clients, which backups cannot be told; \
                 delete that first",
                super::name(&service)
            );
            return Err(refuse(Errno::Einval, detail));
        }
        done.undo.push(Undo::Daemons(self.daemons.clone()));
        self.daemons.push(daemon.clone());
        self.daemons.sort_by_key(|daemon| daemon.role);
        done.started.push(role);
        Ok(())
    }

    pub(super) fn stop_sync(
        &mut self,
        role: SyncRole,
        done: &mut Transaction,
    ) -> Result<(), Refusal> {
        if self.sync_daemon(role).is_none() {
            let detail = format!("no sync {role} runs");
            return Err(refuse(Errno::Esrch, detail));
        }
        done.undo.push(Undo::Daemons(self.daemons.clone()));
        self.daemons.retain(|daemon| daemon.role != role);
        match done.started.iter().position(|started| *started == role) {
            Some(at) => drop(done.started.remove(at)),
            None => done.stopped.push(role),
        }
        Ok(())
    }

    /// A server whose connections no message has room for, as in LVS.
    fn mixed_server(&self) -> Option<(control::ServiceKey, std::net::SocketAddr)> {
        let mut servers = self
            .services
            .iter()
            .flat_map(|service| service.servers.values());
        servers.find_map(|id| {
            let server = self.servers.get(id.0);
            (server.address.is_ipv6() != server.service.is_ipv6())
                .then_some((server.service, server.address))
        })
    }
}

/// Why there can be no such daemon, and what would be right.
pub fn wrong_daemon(daemon: &SyncDaemon) -> Option<String> {
    let SyncDaemon {
        interface,
        max_len,
        group,
        port,
        ttl,
        ..
    } = daemon;
    if interface.is_empty() || interface.len() > INTERFACE_MAX || interface.contains('/') {
        return Some(format!(
            "{interface:?} is no interface, a name of 1 to {INTERFACE_MAX} characters is right"
        ));
    }
    if !group.is_multicast() {
        return Some(format!(
            "{group} is no multicast group, one like 224.0.0.81 or ff02::81 is right"
        ));
    }
    if max_len.is_some_and(|len| !(1..=LEN_MAX).contains(&len)) {
        return Some(format!(
            "max_len = {} is out of range, 1 to {LEN_MAX} is right",
            max_len.unwrap_or_default()
        ));
    }
    let zero = [("port", u32::from(*port)), ("ttl", u32::from(*ttl))];
    let zero = zero.into_iter().find(|(_, value)| *value == 0);
    zero.map(|(key, _)| format!("{key} = 0 is out of range, 1 or more is right"))
}

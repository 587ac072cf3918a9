//! What a change finds of what it changes, in the audit log's words.

use std::net::SocketAddr;

use control::{Change, Route, ServerSpec, ServiceKey, Word};

use super::{Head, Model};
use crate::conn::state::State;
use crate::control::audit::weighed;

impl Model {
    /// `None` of what is new, and of what leaves nothing to tell.
    pub fn was(&self, change: &Change) -> Option<String> {
        match change {
            Change::EditService { service, .. } => {
                Some(self.head_of(service)?.policy.spec().to_string())
            }
            Change::DeleteService { service } => {
                let servers = self.services.get(self.find(service).ok()?.0).servers.len();
                let spec = self.head_of(service)?.policy.spec();
                Some(format!("{spec}, with {servers} servers"))
            }
            Change::EditServer {
                service, server, ..
            }
            | Change::DeleteServer { service, server } => {
                self.spec_of(service, *server).as_ref().map(weighed)
            }
            Change::SetOptions { service, .. } => Some(self.head_of(service)?.options.to_string()),
            Change::SetHealth { service, .. } => {
                let health = &self.services.get(self.find(service).ok()?.0).health;
                Some(health.to_string())
            }
            Change::SetHashTarget { service, .. } => {
                let target = self.head_of(service)?.options.hash_target;
                Some(target.word().to_owned())
            }
            Change::SetTimeouts { .. } => {
                let seconds = |state| self.timeouts.ms(state) / 1000;
                Some(format!(
                    "tcp {} s, tcp_fin {} s, udp {} s",
                    seconds(State::Established),
                    seconds(State::FinWait),
                    seconds(State::Udp)
                ))
            }
            Change::DeletePort { port } => {
                let spec = self.ports.get(self.ports.find(port)?)?;
                let addresses = self.network().addresses;
                let own = addresses.iter().filter(|address| address.port == *port);
                Some(format!("{spec}, with {} addresses", own.count()))
            }
            Change::ReplaceRoute(Route { to, .. }) | Change::DeleteRoute { to } => {
                self.network.gateways(*to).map(|via| format!("via {via}"))
            }
            Change::StopSync { role } => self.sync_daemon(*role).map(|daemon| daemon.to_string()),
            Change::DeleteNeighbour { address } => {
                let mac = self.network.mac_of(*address);
                mac.map(|mac| format!("at {mac}"))
            }
            _ => None,
        }
    }

    fn head_of(&self, key: &ServiceKey) -> Option<&Head> {
        let id = self.find(key).ok()?;
        Some(&self.services.get(id.0).head)
    }

    fn spec_of(&self, key: &ServiceKey, address: SocketAddr) -> Option<ServerSpec> {
        let (id, ..) = self.find_server(key, address).ok()?;
        Some(self.servers.get(id.0).spec)
    }
}

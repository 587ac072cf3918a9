//! Clients of persistent services come back to the server they had (`spec/connections.md` §4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use control::{Netmask, Persistence, ServiceKey};

use super::Director;
use super::engine::with_engine;
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::ftp;
use crate::packet::PacketBuf;
use crate::sched::Newcomer;
use crate::service::Server;
use crate::templates::{Hold, Key, Kind, Tie};
use crate::time::Instant;
use crate::update::{ServerId, ServiceId};
use crate::wire::flow::Tuple;

/// Who gets a new connection.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) id: ServerId,
    /// At the port that the connection goes to.
    pub(super) server: Server,
    /// What tied the client to it: to be kept with the connection, or given back.
    pub(super) template: Option<Hold>,
}

impl<P: PacketBuf> Director<P> {
    /// The server for a new connection: the one that its client has, if the service is persistent, or
    /// the scheduler's choice. [`DropReason::NotOurs`] for what no service of ours is to answer.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        service: ServiceId,
        newcomer: &Newcomer<'_>,
    ) -> Result<Choice, DropReason> {
        let Newcomer { tuple, said, .. } = *newcomer;
        let Some((key, persistence)) = self.services.persistence(service) else {
            return Err(DropReason::NoServer);
        };
        let is_its_own = key.address().is_none() || key.port() == tuple.to.port();
        let choice = match persistence {
            Some(persistence) => {
                let sought = template_key(key, persistence.netmask, tuple);
                match self.services.engine(service) {
                    None => Ok(sought),
                    Some(engine) => with_engine(sought, engine, tuple, said),
                }
                .and_then(|sought| {
                    self.come_back(now, service, key, persistence, newcomer, &sought)
                })
            }
            // A service of every port, and FTP's data, go by templates alone.
            None if !is_its_own => Err(DropReason::NoServer),
            None => self.pick(now, service, newcomer),
        };
        choice.map_err(|reason| match reason {
            DropReason::NoServer if key.port() == ftp::CONTROL && !is_its_own => {
                DropReason::NotOurs
            }
            reason => reason,
        })
    }

    fn pick(
        &mut self,
        now: Instant,
        service: ServiceId,
        newcomer: &Newcomer<'_>,
    ) -> Result<Choice, DropReason> {
        let picked = self.services.pick(now, service, newcomer);
        let all = picked.and_then(|picked| Some((picked.id, self.services.picked(&picked)?)));
        let (id, server) = all.ok_or(DropReason::NoServer)?;
        Ok(Choice {
            id,
            server,
            template: None,
        })
    }

    /// The server that the client's template names, or the scheduler's choice from now on.
    fn come_back(
        &mut self,
        now: Instant,
        service: ServiceId,
        key: ServiceKey,
        persistence: Persistence,
        newcomer: &Newcomer<'_>,
        sought: &Key<'_>,
    ) -> Result<Choice, DropReason> {
        let tuple = newcomer.tuple;
        if let Some(template) = self.templates.find(sought, now) {
            let id = self.templates.tie(&template).server;
            if self.still_takes(id) {
                self.templates.touch(&template, now);
                return self.tied(id, template, key, tuple);
            }
            self.templates.invalidate(&template);
            self.templates.release(template);
        }
        let id = self.pick(now, service, newcomer)?.id;
        let port = self.services.server(id).map_or(0, |s| s.address.port());
        let tie = Tie {
            server: id,
            server_port: if sought.virtual_address.port() == 0 {
                0
            } else {
                port
            },
            timeout_ms: persistence.timeout_s.saturating_mul(1000),
        };
        let template = self.templates.make(sought, now, tie);
        let template = template.ok_or(DropReason::TemplatesFull)?;
        // Another worker may have met the client at the same time, and been faster.
        let id = self.templates.tie(&template).server;
        self.tied(id, template, key, tuple)
    }

    /// Whether the server of a template takes new connections of its client, overloaded or not.
    pub(super) fn still_takes(&self, id: ServerId) -> bool {
        let is_quiesced =
            || self.settings.expire_quiescent_template && self.services.is_quiesced(id);
        let is_available = |server: &Server| server.available && !server.draining;
        self.services.server(id).is_some_and(is_available) && !is_quiesced()
    }

    /// A connection to its template's server, at the server's own port only if it asks for the
    /// service's own.
    fn tied(
        &self,
        id: ServerId,
        template: Hold,
        key: ServiceKey,
        tuple: &Tuple,
    ) -> Result<Choice, DropReason> {
        let Some(mut server) = self.services.server(id).copied() else {
            self.templates.release(template);
            return Err(DropReason::NoServer);
        };
        if key.port() != tuple.to.port() || server.address.port() == 0 {
            server.address.set_port(tuple.to.port());
        }
        Ok(Choice {
            id,
            server,
            template: Some(template),
        })
    }

    /// The server of a single datagram, which its template counts; nothing is kept of it.
    pub(super) fn spend(&self, choice: Choice) -> (ServerId, Server) {
        if let Some(template) = choice.template {
            self.templates.count_packet(&template);
            self.templates.release(template);
        }
        (choice.id, choice.server)
    }

    /// The connection is established, or answered: its template is worth more from now on.
    #[cold]
    pub(super) fn assure(&self, hit: Hit) {
        if let Some(template) = self.conns.template(hit.entry()) {
            self.templates.assure(template);
        }
    }
}

/// What a persistent service finds the template of this connection's client by.
pub(super) fn template_key(key: ServiceKey, netmask: Netmask, tuple: &Tuple) -> Key<'static> {
    let (protocol, virtual_address) = match key {
        ServiceKey::Mark { mark, ipv6 } => (0, SocketAddr::new(mark_address(mark.get(), ipv6), 0)),
        ServiceKey::Address { address, .. } => {
            let is_own = address.port() == tuple.to.port() && address.port() != ftp::CONTROL;
            let port = if is_own { address.port() } else { 0 };
            (tuple.protocol, SocketAddr::new(tuple.to.ip(), port))
        }
    };
    Key {
        kind: Kind::Persistence,
        protocol,
        client: SocketAddr::new(masked(tuple.from.ip(), netmask), 0),
        virtual_address,
        engine: &[],
    }
}

/// A mark as LVS writes it where an address stands: 32 bits, the others 0.
fn mark_address(mark: u32, ipv6: bool) -> IpAddr {
    if ipv6 {
        Ipv6Addr::from_bits(u128::from(mark) << 96).into()
    } else {
        Ipv4Addr::from_bits(mark).into()
    }
}

/// The network that a client's address is in; the address itself under the other family's mask.
pub(super) fn masked(address: IpAddr, netmask: Netmask) -> IpAddr {
    match (address, netmask) {
        (IpAddr::V4(address), Netmask::V4(mask)) => (address & mask).into(),
        (IpAddr::V6(address), Netmask::V6(prefix)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128)));
            (address & Ipv6Addr::from_bits(mask.unwrap_or(0))).into()
        }
        _ => address,
    }
}

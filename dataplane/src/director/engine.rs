//! Persistence engines: clients are known by what they say, and servers may speak first
//! (`spec/connections.md` §4).

use control::Engine;

use super::Director;
use super::decide::Denied;
use super::persist::{Choice, template_key};
use crate::answers::Answerer;
use crate::conn::Hit;
use crate::counters::DropReason;
use crate::packet::PacketBuf;
use crate::sip::call_id;
use crate::templates::{Hold, Key, Kind, Tie};
use crate::time::Instant;
use crate::wire::flow::{Seen, Tuple, UDP};

/// Length of a UDP header.
const UDP_HEADER: usize = 8;

impl<P: PacketBuf> Director<P> {
    /// The connection of a datagram from a server that has none: one that the server may open, or
    /// none but for itself.
    pub(super) fn unasked(
        &mut self,
        now: Instant,
        seen: &Seen,
        outbound: &Tuple,
        frame: &[u8],
    ) -> Result<Option<Hit>, Denied> {
        let answerer = self.services.answers().from(outbound.from).copied();
        let asks = |answerer: &Answerer| answerer.asks && outbound.protocol == UDP;
        if let Some(answerer) = answerer.filter(asks)
            && let Some(hit) = self.ask(now, answerer, outbound, said(seen, frame))?
        {
            return Ok(Some(hit));
        }
        Ok(self.answer_alone(now, outbound))
    }

    /// Opens a connection from its server's side, with a template that brings the client's answers
    /// back to it; `None` for what the engine does not understand.
    fn ask(
        &mut self,
        now: Instant,
        answerer: Answerer,
        outbound: &Tuple,
        said: &[u8],
    ) -> Result<Option<Hit>, Denied> {
        let Answerer {
            server: id,
            service,
            ..
        } = answerer;
        let denied = |reason| Denied(reason, Some(service));
        let inbound = Tuple {
            protocol: UDP,
            from: outbound.to,
            to: answerer.source(outbound.from),
        };
        let known = self.services.persistence(service);
        let engine = self.services.engine(service);
        let server = self.services.server(id).copied();
        let (Some((key, persistence)), Some(engine), Some(mut server)) = (known, engine, server)
        else {
            return Ok(None);
        };
        if !self.is_source(inbound.from.ip()) {
            return Err(denied(DropReason::BadSource));
        }
        server.address = outbound.from;
        let template = match persistence {
            None => None,
            Some(persistence) => {
                let sought = template_key(key, persistence.netmask, &inbound);
                let Ok(sought) = with_engine(sought, engine, &inbound, said) else {
                    return Ok(None);
                };
                let tie = Tie {
                    server: id,
                    server_port: outbound.from.port(),
                    timeout_ms: persistence.timeout_s.saturating_mul(1000),
                };
                let tied = self.tie(now, &sought, tie);
                Some(tied.ok_or(denied(DropReason::TemplatesFull))?)
            }
        };
        let hit = if self.services.is_one_packet(service, &inbound) {
            // Its packets are the client's.
            if let Some(template) = template {
                self.templates.release(template);
            }
            let hit = self.toward(now, &inbound, id, server).map_err(denied)?;
            self.count_alone(id);
            hit
        } else {
            let choice = Choice {
                id,
                server,
                template,
            };
            // The client may be another server's already.
            self.conns.give_way(&inbound);
            self.open(now, &inbound, service, choice, 0)
                .map_err(denied)?
        };
        Ok(Some(Hit::new(hit.entry(), true)))
    }

    /// The template of this key, which leads to this server from now on.
    fn tie(&self, now: Instant, sought: &Key<'_>, tie: Tie) -> Option<Hold> {
        if let Some(template) = self.templates.find(sought, now) {
            if self.templates.tie(&template).server == tie.server && self.still_takes(tie.server) {
                self.templates.touch(&template, now);
                return Some(template);
            }
            self.templates.invalidate(&template);
            self.templates.release(template);
        }
        self.templates.make(sought, now, tie)
    }
}

/// What is in a datagram; nothing in other packets and in fragments without a header.
pub(super) fn said<'f>(seen: &Seen, frame: &'f [u8]) -> &'f [u8] {
    let (start, end) = (
        usize::from(seen.l4) + UDP_HEADER,
        usize::from(seen.l3) + usize::from(seen.ip_len),
    );
    match seen.flow.protocol {
        UDP => frame.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}

/// The key of a template by what its client said.
pub(super) fn with_engine<'s>(
    key: Key<'static>,
    engine: Engine,
    tuple: &Tuple,
    said: &'s [u8],
) -> Result<Key<'s>, DropReason> {
    let Engine::Sip = engine;
    let found = call_id(said).filter(|_| tuple.protocol == UDP);
    Ok(Key {
        kind: Kind::Engine,
        engine: found.ok_or(DropReason::NoCallId)?,
        ..key
    })
}

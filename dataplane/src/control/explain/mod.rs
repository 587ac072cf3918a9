//! What would become of a packet: asked of the workers, or of a director that a file describes.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use control::{Errno, Explained, File, Question, Refusal, Reply, Says, Settings};

use super::model::{Model, Ports, refuse};
use super::{Command, Control, ask};
use crate::config::Config;
use crate::counters::Page;
use crate::director::Director;
use crate::director::explain::{Excerpt, Flags, Query, Rehearsal, Sample, rehearse};
use crate::packet::{HeapBuf, Learned, PortId};
use crate::replay::Wire;
use crate::sched::Loads;
use crate::steer::Steer;
use crate::time::Instant;
use crate::wire::flow::Tuple;

/// The most connections that a director of a file has room for, unless its settings ask for more.
const CONNECTIONS: u32 = 1024;
/// The shortest and the longest packet that can be asked about.
const LENGTH_MAX: u16 = crate::packet::MTU_MAX;
/// The longest connection id of QUIC, in bytes.
const CONNECTION_ID_MAX: usize = 20;
/// Of a director of a file: nobody sends it anything.
const SECRET: [u64; 2] = [1, 2];

/// Why there is no answer.
struct Failure(Refusal);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let detail = format!("memory for a director to try it with: {error}");
        Self(refuse(Errno::Enomem, detail))
    }
}

impl Control {
    /// What would become of a packet here, or with the file that the question has.
    pub(super) fn explain(&self, question: &Question) -> Result<Reply, Refusal> {
        let sample = sample(question).map_err(|detail| refuse(Errno::Einval, detail))?;
        let explained = match &question.file {
            None => self.explain_here(question, sample),
            Some(file) => self.explain_with(question, sample, file),
        };
        let explained = explained.map_err(|Failure(refusal)| refusal)?;
        Ok(Reply::Explained(Box::new(explained)))
    }

    fn explain_here(&self, question: &Question, sample: Sample) -> Result<Explained, Failure> {
        if self.workers.is_empty() {
            return Err(Failure(refuse(
                Errno::Eagain,
                "the director has no workers",
            )));
        }
        let query = query(question, &sample, self.model.ports())?;
        let pages = self.workers.iter().map(|worker| Arc::clone(&worker.page));
        let loads = Loads::new(pages.collect());
        let excerpt = |worker: usize, query: &Query| {
            let worker = &self.workers[worker.min(self.workers.len() - 1)];
            let query = Box::new(query.clone());
            ask(worker, |reply| Command::Explain { query, reply }).map_err(Failure)
        };
        let rehearsal = rehearse(query, &loads, excerpt, |excerpt| framed(&sample, excerpt))?;
        told(&rehearsal, &loads, &self.model)
    }

    /// As if the director had been started with this file; neighbours that it knows are known.
    fn explain_with(
        &self,
        question: &Question,
        sample: Sample,
        file: &File,
    ) -> Result<Explained, Failure> {
        let wrong = |detail: String| Failure(refuse(Errno::Einval, detail));
        let config =
            Config::parse(&file.text, &file.name).map_err(|error| wrong(error.to_string()))?;
        let limits = config.director.limits();
        let workers = config.director.workers.len().max(1);
        let page = |_| Page::new(limits.services_max, limits.servers_max).map(Arc::new);
        let pages = (0..workers).map(page).collect::<Result<Arc<[_]>, _>>()?;
        let mut model = Model::new(limits)
            .watching(pages.to_vec())
            .with_ports(config.port_specs());
        let updates = model.apply(&config.changes).map_err(Failure)?;
        let query = query(question, &sample, model.ports())?;
        let loads = Loads::new(Arc::clone(&pages));
        let learned = self.learned(model.ports());
        let setup = config.setup(|port| self.mac(model.ports(), port));
        let excerpt = |worker: usize, query: &Query| {
            let page = Arc::clone(&pages[worker]);
            let mut wire = Wire::new(Arc::clone(&page));
            let room = config.director.max_connections.min(room(&model.settings()));
            let steer = Steer::new(worker, workers);
            let director = Director::<HeapBuf>::new(room, SECRET, setup.clone(), steer, page)?;
            let mut director = director.among(Arc::clone(&pages));
            for update in &updates {
                director.apply(update, &mut wire);
            }
            for learned in &learned {
                director.acquaint(Instant::default(), learned);
            }
            Ok::<_, Failure>(director.excerpt(Instant::default(), query))
        };
        let rehearsal = rehearse(query, &loads, excerpt, |excerpt| framed(&sample, excerpt))?;
        told(&rehearsal, &loads, &model)
    }

    /// The neighbours that the first worker knows, on ports of these names.
    fn learned(&self, ports: &Ports) -> Vec<Learned> {
        let worker = self.workers.first();
        let known = worker.and_then(|worker| ask(worker, Command::Neighbours).ok());
        let learned = known.into_iter().flatten().filter_map(|neighbour| {
            let here = self.model.ports().get(neighbour.port)?;
            Some(Learned {
                port: ports.find(&here.name)?,
                vlan: neighbour.vlan,
                address: neighbour.address,
                mac: neighbour.mac?,
                solicited: true,
                overrides: true,
            })
        });
        learned.collect()
    }

    /// The Ethernet address of the port that is here of the same name, or one like those of a replay.
    fn mac(&self, ports: &Ports, port: PortId) -> [u8; 6] {
        let here = self.hardware.machine().ports;
        let name = ports.name(port);
        let same = here.iter().find(|here| here.name == name);
        let same = same.and_then(|same| mac(&same.mac));
        same.unwrap_or([2, 0, 0, 0, 0, port.0])
    }
}

fn told(rehearsal: &Rehearsal, loads: &Loads, model: &Model) -> Result<Explained, Failure> {
    let mut explained = rehearsal.told(loads, &model.ports().names())?;
    if explained.service.is_none() {
        explained.near = model.near(&rehearsal.excerpt.tuple);
    }
    Ok(explained)
}

/// Connections that a director of a file needs room for, so that its defences are as they would be.
fn room(settings: &Settings) -> u32 {
    settings.amemthresh.max(CONNECTIONS)
}

fn framed(sample: &Sample, excerpt: &Excerpt) -> Vec<u8> {
    let (from, to) = excerpt.stations();
    sample.frame(from, to, excerpt.vlan)
}

/// The packet of a question.
fn sample(question: &Question) -> Result<Sample, String> {
    let Question {
        protocol, from, to, ..
    } = *question;
    if from.is_ipv4() != to.is_ipv4() {
        return Err(format!("{from} and {to} are not of the same family"));
    }
    let flags = match &question.flags {
        None => Flags::SYN,
        Some(_) if protocol != control::Protocol::Tcp => {
            return Err(format!("{} has no flags, TCP has", protocol.name()));
        }
        Some(text) => text.parse()?,
    };
    if let Some(length) = question.length.filter(|length| *length > LENGTH_MAX) {
        return Err(format!(
            "{length} bytes are too long, up to {LENGTH_MAX} is right"
        ));
    }
    let payload = payload(&question.says)?;
    if !payload.is_empty() && protocol != control::Protocol::Udp {
        return Err(format!(
            "a Call-ID or a connection id is in UDP datagrams, not in {}",
            protocol.name()
        ));
    }
    let tuple = Tuple {
        protocol: protocol.number(),
        from: plain(from),
        to: plain(to),
    };
    Ok(Sample {
        tuple,
        flags,
        payload,
        length: question.length.unwrap_or(0),
    })
}

/// Without what is not on the wire.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn payload(says: &Says) -> Result<Vec<u8>, String> {
    match says {
        Says::Nothing => Ok(Vec::new()),
        Says::CallId(id) => {
            let message = format!("OPTIONS sip:explain SIP/2.0\r\nCall-ID: {id}\r\n\r\n");
            match crate::sip::call_id(message.as_bytes()) {
                Some(found) if found == id.as_bytes() => Ok(message.into_bytes()),
                _ => Err(format!(
                    "{id} is not a Call-ID, one like a84b4c76@host is right"
                )),
            }
        }
        Says::ConnectionId(id) => {
            let wrong = || {
                format!(
                    "{id} is not a connection id, 8 to {CONNECTION_ID_MAX} bytes in hexadecimal are right"
                )
            };
            let digits = id.as_bytes().chunks(2);
            let byte = |pair: &[u8]| {
                let text = std::str::from_utf8(pair)
                    .ok()
                    .filter(|text| text.len() == 2)?;
                u8::from_str_radix(text, 16).ok()
            };
            let bytes: Option<Vec<u8>> = digits.map(byte).collect();
            let bytes = bytes.filter(|bytes| (8..=CONNECTION_ID_MAX).contains(&bytes.len()));
            // A short header, whose first bytes are the id's.
            Ok([&[0x40][..], &bytes.ok_or_else(wrong)?, &[0; 20]].concat())
        }
    }
}

fn query(question: &Question, sample: &Sample, ports: &Ports) -> Result<Query, Failure> {
    let at = match &question.port {
        None => None,
        Some(name) => {
            let found = side(name, ports).ok_or_else(|| {
                let detail = format!("no port {name}, one of {} is right", ports.listed());
                Failure(refuse(Errno::Einval, detail))
            });
            Some(found?)
        }
    };
    Ok(Query {
        tuple: sample.tuple,
        said: sample.payload.clone(),
        at,
        toward: None,
    })
}

/// `p0` or `p0.100`
fn side(name: &str, ports: &Ports) -> Option<(PortId, Option<u16>)> {
    if let Some(port) = ports.find(name) {
        return Some((port, None));
    }
    let (name, vlan) = name.rsplit_once('.')?;
    Some((ports.find(name)?, Some(vlan.parse().ok()?)))
}

/// Of `aa:bb:cc:dd:ee:ff`.
fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes?.try_into().ok()
}

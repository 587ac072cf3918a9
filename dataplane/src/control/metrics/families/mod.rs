//! Every metric: its name, its meaning, and where its numbers are.

mod addresses; // local addresses, and those that are announced
mod director; // the whole
mod port;
mod server;
mod service;
mod sync; // daemons that synchronise connections
mod worker;

use std::fmt::{self, Debug, Display};

use control::SyncStatus;

use super::text::{Kind, Labels, Samples};
use super::{Scrape, WorkerView};
use crate::control::model::{ServerView, ServiceView};
use crate::control::stats::PortInfo;
use crate::update::LocalAddress;
use Get::{Number, Series};
use Kind::{Counter as Total, Gauge};
use Of::{Director, Local, Port, Server, Service, Sync, Worker};

/// One metric.
#[derive(Debug)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub help: &'static str,
    /// Beside those that say whose it is.
    pub labels: &'static [&'static str],
    of: Of,
}

/// Whose samples a metric has.
#[derive(Debug)]
enum Of {
    Director(Get<()>),
    Worker(Get<WorkerView>),
    Port(Get<PortInfo>),
    Local(Get<LocalAddress>),
    Sync(Get<SyncStatus>),
    Service(Get<ServiceView>),
    Server(Get<ServerView>),
}

/// How they are made, for each of them.
enum Get<T> {
    Number(fn(&T, &Scrape) -> u64),
    /// None, several, or fractions. Labels are given that say whose.
    Series(fn(&T, &Scrape, Labels<'_>, &mut Samples<'_>)),
}

impl<T> Debug for Get<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Number(_) => "Number",
            Series(_) => "Series",
        })
    }
}

impl<T> Get<T> {
    fn write(&self, one: &T, scrape: &Scrape, labels: Labels<'_>, samples: &mut Samples<'_>) {
        match self {
            Number(get) => samples.sample(labels, get(one, scrape)),
            Series(write) => write(one, scrape, labels, samples),
        }
    }
}

/// All metrics, in the order of the text.
pub fn families() -> impl Iterator<Item = &'static Family> {
    [
        director::FAMILIES,
        worker::FAMILIES,
        port::FAMILIES,
        addresses::FAMILIES,
        sync::FAMILIES,
        service::FAMILIES,
        server::FAMILIES,
    ]
    .into_iter()
    .flatten()
}

impl Family {
    pub fn is_of_servers(&self) -> bool {
        matches!(self.of, Server(_))
    }

    /// The labels that say whose it is, separated by commas; `director` for none.
    pub fn of(&self) -> &'static str {
        match self.of {
            Director(_) => "director",
            Worker(_) => "worker",
            Port(_) => "port",
            Local(_) => "address",
            Sync(_) => "role",
            Service(_) => "service",
            Server(_) => "service, server",
        }
    }

    /// Appends the metric; if it has series for services, those born from `from` on, until `out` is
    /// `max` long. Returns the service that is next then.
    pub(super) fn write(
        &self,
        scrape: &Scrape,
        from: u64,
        max: usize,
        out: &mut String,
    ) -> Option<u64> {
        let mut samples = if from == 0 {
            Samples::begin(self.name, self.kind, self.help, out)
        } else {
            Samples::go_on(self.name, out)
        };
        let samples = &mut samples;
        match &self.of {
            Director(get) => get.write(&(), scrape, &[], samples),
            Worker(get) => {
                for (number, worker) in scrape.workers.iter().enumerate() {
                    get.write(worker, scrape, &[("worker", &number)], samples);
                }
            }
            Port(get) => {
                for port in &scrape.machine.ports {
                    get.write(port, scrape, &[("port", &port.name)], samples);
                }
            }
            Local(get) => {
                for local in &scrape.view.locals {
                    get.write(local, scrape, &[("address", &local.address)], samples);
                }
            }
            Sync(get) => {
                for status in &scrape.sync {
                    get.write(status, scrape, &[("role", &status.daemon.role)], samples);
                }
            }
            Service(_) | Server(_) => return self.write_services(scrape, from, max, samples),
        }
        None
    }

    fn write_services(
        &self,
        scrape: &Scrape,
        from: u64,
        max: usize,
        samples: &mut Samples<'_>,
    ) -> Option<u64> {
        let services = &scrape.view.services;
        let first = services.partition_point(|service| service.born < from);
        for service in &services[first..] {
            if samples.len() >= max {
                return Some(service.born);
            }
            let name = service.key.to_string();
            match &self.of {
                Server(get) => {
                    for server in &service.servers {
                        let labels: Labels<'_> = &[("service", &name), ("server", &server.address)];
                        get.write(server, scrape, labels, samples);
                    }
                }
                Service(get) => get.write(service, scrape, &[("service", &name)], samples),
                _ => {}
            }
        }
        None
    }
}

const fn metric(name: &'static str, kind: Kind, help: &'static str, of: Of) -> Family {
    labelled(name, kind, &[], help, of)
}

const fn labelled(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    of: Of,
) -> Family {
    Family {
        name,
        kind,
        help,
        labels,
        of,
    }
}

/// `labels` and one more.
fn with<'l>(
    labels: Labels<'l>,
    name: &'l str,
    value: &'l dyn Display,
) -> Vec<(&'l str, &'l dyn Display)> {
    let mut more = labels.to_vec();
    more.push((name, value));
    more
}

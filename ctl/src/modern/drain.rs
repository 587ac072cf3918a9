//! `server drain`: asks for it, and watches until the server is empty. The director goes on by itself
//! when nobody watches.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use control::client::{Client, ClientError};
use control::{Change, Drain, Errno, Refusal, Reply, Request, Server, ServiceKey};
use schemars::JsonSchema;
use serde::Serialize;

use super::key::ServerKey;
use super::progress::Style;
use super::request::Present;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    server: ServerKey,
    /// Cut the connections that are left after so many SECONDS; none is cut unless set.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u32>,
    /// Send both ends of a TCP connection that is cut a reset.
    #[arg(long, requires = "deadline")]
    reset: bool,
    /// Delete the server once it has no connections.
    #[arg(long)]
    delete: bool,
    /// Do not watch; the director sees to it by itself.
    #[arg(long)]
    no_wait: bool,
    /// Give the server its weight back.
    #[arg(long, conflicts_with_all = ["deadline", "reset", "delete", "no_wait"])]
    cancel: bool,
}

impl DrainArgs {
    pub(super) fn change(&self) -> Result<Change> {
        let (service, server) = (self.server.service.key()?, self.server.server);
        if self.cancel {
            return Ok(Change::CancelDrain { service, server });
        }
        let drain = Drain {
            deadline_s: self.deadline,
            reset: self.reset,
            delete: self.delete,
        };
        Ok(Change::DrainServer {
            service,
            server,
            drain,
        })
    }
}

/// Asks, and watches if that is wanted; returns what is still to be printed.
pub(super) fn run(args: &DrainArgs, client: &mut Client, json: bool) -> Result<String> {
    match client.ask(&Request::Change(vec![args.change()?]))? {
        Reply::Done if args.cancel || args.no_wait => match json {
            true => super::json(&Reply::Done),
            false => Ok(String::new()),
        },
        Reply::Done => {
            let mut out = io::stdout();
            let style = Style::of(json, &out);
            let (service, server) = (args.server.service.key()?, args.server.server);
            watch(client, service, server, style, &mut out, || {
                thread::sleep(LOOK)
            })?;
            Ok(String::new())
        }
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    }
}

/// A server that is being drained, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Look {
    server: SocketAddr,
    active: u32,
    inactive: u32,
    /// Of both directions.
    packets_per_s: u64,
    /// Until what is left is cut.
    deadline_s: Option<u32>,
    drained: bool,
    deleted: bool,
}

impl Look {
    fn connections(&self) -> u32 {
        self.active + self.inactive
    }

    /// Compared with the number of connections at the look before.
    fn line(&self, before: Option<u32>) -> String {
        let server = self.server;
        if self.deleted {
            return format!("{server} is drained and deleted");
        }
        if self.drained {
            return format!("{server} is drained");
        }
        let connections = self.connections();
        let mut line = format!(
            "{server}: {connections} connections ({} active)",
            self.active
        );
        if let Some(before) = before {
            line += &format!(", {:+}/s", i64::from(connections) - i64::from(before));
        }
        line += &format!(", {} packets/s", self.packets_per_s);
        match self.deadline_s {
            Some(0) => line + ", being cut",
            Some(seconds) => line + &format!(", cut in {seconds} s"),
            None => line,
        }
    }
}

/// Looks until the server is empty, and deleted if it is to be.
fn watch(
    present: &mut impl Present,
    service: ServiceKey,
    server: SocketAddr,
    style: Style,
    out: &mut impl Write,
    mut pause: impl FnMut(),
) -> Result<()> {
    let mut before = None;
    loop {
        let look = match find(present, service, server)? {
            Some(found) => seen(&found)?,
            None => gone(server),
        };
        let is_news = before != Some(look.connections());
        style.show(&look, &look.line(before), is_news, look.drained, out)?;
        if look.drained {
            return Ok(());
        }
        before = Some(look.connections());
        pause();
    }
}

/// The server, if it is still there.
fn find(
    present: &mut impl Present,
    service: ServiceKey,
    server: SocketAddr,
) -> Result<Option<Server>> {
    let servers = match present.service(service) {
        Ok(service) => service.servers,
        Err(error) => match error.downcast_ref::<Refusal>() {
            Some(refusal) if refusal.errno == Errno::Esrch => return Ok(None),
            _ => return Err(error),
        },
    };
    Ok(servers.into_iter().find(|found| found.address == server))
}

fn seen(found: &Server) -> Result<Look> {
    let Some(draining) = found.draining else {
        bail!(
            "server {} is not drained any more: somebody gave it weight {}",
            found.address,
            found.spec.weight
        );
    };
    Ok(Look {
        server: found.address,
        active: found.active,
        inactive: found.inactive,
        packets_per_s: found.rates.in_pps + found.rates.out_pps,
        deadline_s: draining.drain.deadline_s,
        drained: found.active + found.inactive == 0 && !draining.drain.delete,
        deleted: false,
    })
}

fn gone(server: SocketAddr) -> Look {
    Look {
        server,
        active: 0,
        inactive: 0,
        packets_per_s: 0,
        deadline_s: None,
        drained: true,
        deleted: true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use control::{
        Draining, ForwardMode, Protocol, Rates, ServerSpec, Service, ServiceOptions, ServiceSpec,
        Settings, Thresholds, Totals, Tunnel,
    };

    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::at(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
    }

    fn at() -> SocketAddr {
        "10.1.0.1:80".parse().unwrap()
    }

    fn server(active: u32, deadline_s: Option<u32>, delete: bool) -> Server {
        let drain = Drain {
            deadline_s,
            reset: false,
            delete,
        };
        Server {
            address: at(),
            spec: ServerSpec {
                mode: ForwardMode::Nat,
                weight: 0,
                tunnel: Tunnel::default(),
                thresholds: Thresholds::default(),
            },
            active,
            inactive: 1,
            persistent: 0,
            totals: Totals::default(),
            rates: Rates {
                in_pps: 3,
                out_pps: 4,
                ..Rates::default()
            },
            health: None,
            weight_now: None,
            draining: Some(Draining { drain, weight: 5 }),
        }
    }

    /// What is found at each look.
    struct Looks(VecDeque<Option<Server>>);

    impl Present for Looks {
        fn service(&mut self, key: ServiceKey) -> Result<Service> {
            Ok(Service {
                key,
                spec: ServiceSpec::new("rr"),
                totals: Totals::default(),
                rates: Rates::default(),
                servers: self.0.pop_front().unwrap().into_iter().collect(),
                options: ServiceOptions::default(),
                local_addresses: Vec::new(),
                health: None,
            })
        }

        fn settings(&mut self) -> Result<Settings> {
            Ok(Settings::default())
        }
    }

    fn watched(looks: impl IntoIterator<Item = Option<Server>>, style: Style) -> (String, bool) {
        let (mut looks, mut out) = (Looks(looks.into_iter().collect()), Vec::new());
        let result = watch(&mut looks, key(), at(), style, &mut out, || {});
        (String::from_utf8(out).unwrap(), result.is_ok())
    }

    fn empty(delete: bool) -> Server {
        Server {
            inactive: 0,
            ..server(0, None, delete)
        }
    }

    #[test]
    fn a_drain_is_watched_line_by_line() {
        let looks = [
            Some(server(7, Some(20), false)),
            Some(server(7, Some(19), false)),
            Some(server(5, Some(0), false)),
            Some(empty(false)),
        ];
        assert_eq!(
            watched(looks, Style::Lines),
            (
                "10.1.0.1:80: 8 connections (7 active), 7 packets/s, cut in 20 s\n\
                 10.1.0.1:80: 6 connections (5 active), -2/s, 7 packets/s, being cut\n\
                 10.1.0.1:80 is drained\n"
                    .to_owned(),
                true
            )
        );
    }

    #[test]
    fn with_delete_it_ends_when_the_server_is_gone() {
        let looks = || [Some(server(1, None, true)), Some(empty(true)), None];
        let (text, ended) = watched(looks(), Style::InPlace);
        assert!(ended);
        assert!(
            text.ends_with("\r10.1.0.1:80 is drained and deleted\x1b[K\n"),
            "{text:?}"
        );
        let (text, _) = watched(looks(), Style::Json);
        assert_eq!(
            text.lines().last().unwrap(),
            r#"{"server":"10.1.0.1:80","active":0,"inactive":0,"packets_per_s":0,"deadline_s":null,"drained":true,"deleted":true}"#
        );
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn somebody_else_may_end_it() {
        let given = Server {
            draining: None,
            ..server(1, None, false)
        };
        let (_, ended) = watched([Some(server(1, None, false)), Some(given)], Style::Lines);
        assert!(!ended);
    }
}

//! `connection`: listed, ended, and watched.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use control::client::{Client, ClientError};
use control::{Connection, Cursor, Filter, Protocol, Reply, Request, Side};
use schemars::JsonSchema;
use serde::Serialize;

use super::values::one_of;
use super::{json, show};

#[derive(Debug, Subcommand)]
pub(super) enum ConnectionVerb {
    /// All connections and persistence templates, or those of which all holds that is said.
    List(Chosen),
    /// End those of which all holds that is said, and print them. What ends is what `list` lists with
    /// the same options.
    Kill(KillArgs),
    /// Print connections as they come (+), change their state (=) and go (-).
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct Chosen {
    #[arg(long, value_parser = one_of::<Protocol>())]
    protocol: Option<Protocol>,
    /// Its client: an ADDRESS, a NETWORK/LENGTH, or either with a :PORT; of a template the masked
    /// address.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<Side>,
    /// Its virtual address, in the same words.
    #[arg(long, value_name = "ADDRESS")]
    service: Option<Side>,
    /// Its server, in the same words.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Side>,
    /// Its state as listed, ESTABLISHED for example.
    #[arg(long)]
    state: Option<String>,
    /// Templates, which tie persistent clients to their server, only; =false for connections only.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    templates: Option<bool>,
}

impl Chosen {
    fn filter(&self) -> Filter {
        Filter {
            protocol: self.protocol,
            client: self.client,
            virtual_address: self.service,
            server: self.server,
            state: self.state.clone(),
            template: self.templates,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// All of them, when nothing else is said.
    #[arg(long)]
    all: bool,
    /// Send both ends of a TCP connection a reset.
    #[arg(long)]
    reset: bool,
}

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Seconds between two looks. What comes and goes in between is not seen.
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// End after so many looks.
    #[arg(long)]
    looks: Option<u64>,
}

fn interval(text: &str) -> Result<f64, &'static str> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds.ok_or("not a number of seconds from 0.05 to 3600")
}

pub(super) fn run(verb: &ConnectionVerb, client: &mut Client, as_json: bool) -> Result<String> {
    match verb {
        ConnectionVerb::List(chosen) => {
            let filter = chosen.filter();
            let list = pages(client, |cursor| Request::Connections {
                cursor,
                filter: filter.clone(),
            })?;
            shown(&list, as_json)
        }
        ConnectionVerb::Kill(args) => {
            let filter = args.chosen.filter();
            if filter.is_all() && !args.all {
                bail!("say which connections, --client 192.0.2.7 for example, or --all");
            }
            let list = pages(client, |cursor| Request::EndConnections {
                cursor,
                filter: filter.clone(),
                reset: args.reset,
            })?;
            shown(&list, as_json)
        }
        ConnectionVerb::Watch(args) => {
            let pause = || thread::sleep(Duration::from_secs_f64(args.interval));
            watch(args, client, as_json, &mut io::stdout(), pause)?;
            Ok(String::new())
        }
    }
}

fn shown(list: &[Connection], as_json: bool) -> Result<String> {
    match as_json {
        true => json(&list),
        false => Ok(show::connections(list)),
    }
}

/// What all pages hold.
fn pages(client: &mut Client, request: impl Fn(Cursor) -> Request) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        match client.ask(&request(from))? {
            Reply::Connections { list, next } => {
                all.extend(list);
                cursor = next;
            }
            Reply::Refused(refusal) => return Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }
    Ok(all)
}

/// What makes a connection the same one at two looks.
type Identity = (Option<Protocol>, [SocketAddr; 3], bool);

fn identity(conn: &Connection) -> Identity {
    let addresses = [conn.client, conn.virtual_address, conn.server];
    (conn.protocol, addresses, conn.template)
}

/// What a look found that the one before did not.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Event<'a> {
    event: &'static str,
    connection: &'a Connection,
    /// The state before, where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a str>,
}

impl Event<'_> {
    fn line(&self) -> String {
        let conn = self.connection;
        let sign = match self.event {
            "new" => '+',
            "gone" => '-',
            _ => '=',
        };
        let protocol = conn.protocol.map_or("ip", Protocol::name);
        let what = if conn.template { " template" } else { "" };
        let mut line = format!(
            "{sign} {protocol}{what} {} -> {} -> {} ",
            conn.client, conn.virtual_address, conn.server
        );
        // A string takes whatever is written to it.
        let _ = match self.before {
            Some(before) => write!(line, "{before} -> {}", conn.state),
            None => write!(line, "{}", conn.state),
        };
        line
    }
}

fn events<'a>(
    before: &'a HashMap<Identity, Connection>,
    now: &'a HashMap<Identity, Connection>,
) -> Vec<Event<'a>> {
    let event = |event, connection, before| Event {
        event,
        connection,
        before,
    };
    let mut events = Vec::new();
    for (identity, connection) in before {
        if !now.contains_key(identity) {
            events.push(event("gone", connection, None));
        }
    }
    for (identity, connection) in now {
        match before.get(identity) {
            None => events.push(event("new", connection, None)),
            Some(old) if old.state != connection.state => {
                events.push(event("state", connection, Some(&old.state)));
            }
            Some(_) => {}
        }
    }
    events.sort_by_key(|event| identity(event.connection));
    events
}

/// Prints what is there, and then what changes, a line each.
fn watch(
    args: &WatchArgs,
    client: &mut Client,
    as_json: bool,
    out: &mut impl Write,
    pause: impl Fn(),
) -> Result<()> {
    let mut before = HashMap::new();
    let mut looks = 0;
    loop {
        let filter = args.chosen.filter();
        let list = pages(client, |cursor| Request::Connections {
            cursor,
            filter: filter.clone(),
        })?;
        let now: HashMap<_, _> = list
            .into_iter()
            .map(|conn| (identity(&conn), conn))
            .collect();
        for event in events(&before, &now) {
            let line = match as_json {
                true => serde_json::to_string(&event)?,
                false => event.line(),
            };
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        before = now;
        looks += 1;
        if args.looks.is_some_and(|most| looks >= most) {
            return Ok(());
        }
        pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(client: &str, state: &str) -> Connection {
        Connection {
            protocol: Some(Protocol::Tcp),
            client: client.parse().unwrap(),
            virtual_address: "10.0.0.1:80".parse().unwrap(),
            server: "10.1.0.1:80".parse().unwrap(),
            local: None,
            state: state.to_owned(),
            expires_ms: 1000,
            in_packets: 1,
            out_packets: 1,
            bytes: 100,
            worker: 0,
            template: false,
            engine: None,
        }
    }

    fn table(list: &[Connection]) -> HashMap<Identity, Connection> {
        let keyed = list.iter().map(|conn| (identity(conn), conn.clone()));
        keyed.collect()
    }

    #[test]
    fn what_changed_is_told() {
        let before = table(&[
            connection("192.0.2.1:1", "SYN_RECV"),
            connection("192.0.2.2:2", "ESTABLISHED"),
            connection("192.0.2.3:3", "ESTABLISHED"),
        ]);
        let now = table(&[
            connection("192.0.2.1:1", "ESTABLISHED"),
            connection("192.0.2.3:3", "ESTABLISHED"),
            connection("192.0.2.4:4", "SYN_RECV"),
        ]);
        let events = events(&before, &now);
        let lines: Vec<_> = events.iter().map(Event::line).collect();
        assert_eq!(
            lines,
            [
                "= tcp 192.0.2.1:1 -> 10.0.0.1:80 -> 10.1.0.1:80 SYN_RECV -> ESTABLISHED",
                "- tcp 192.0.2.2:2 -> 10.0.0.1:80 -> 10.1.0.1:80 ESTABLISHED",
                "+ tcp 192.0.2.4:4 -> 10.0.0.1:80 -> 10.1.0.1:80 SYN_RECV",
            ]
        );
        let json = serde_json::to_value(&events[0]).unwrap();
        assert_eq!(
            (&json["event"], &json["before"]),
            (&"state".into(), &"SYN_RECV".into())
        );
        assert_eq!(json["connection"]["state"], "ESTABLISHED");
    }
}

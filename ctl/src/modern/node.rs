//! `directorctl node`: whether clients are to come to this director, and letting them go.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use control::client::{Client, ClientError};
use control::{NodeState, NodeStatus, Reply, Request, Withheld, Word};
use schemars::JsonSchema;
use serde::Serialize;

use super::progress::Style;
use super::show::{Table, duration};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum NodeVerb {
    /// Whether clients are to come here, and which virtual addresses are announced. Exits with 0 if they
    /// are, with 2 if not yet or no more.
    #[command(
        long_about = "Whether clients are to come here, and which virtual addresses are announced. Exits with 0 \
                      if they are, with 2 if not yet (connections of other directors are still to be heard) or \
                      no more (it is being drained), so that keepalived's vrrp_script can go by it."
    )]
    Status,
    /// Announce nothing any more, and watch until clients come no more. What comes is served.
    Drain(DrainArgs),
    /// Have clients come again.
    Undrain,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Clients are gone when no packet of theirs came for so many SECONDS.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    quiet: u32,
    /// Or when no more than so many connections are established.
    #[arg(long, value_name = "COUNT")]
    connections: Option<u64>,
    /// Give up after so many SECONDS, with exit code 1; the director stays as it is.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
    /// Do not watch.
    #[arg(long, conflicts_with_all = ["connections", "timeout"])]
    no_wait: bool,
}

/// What is printed, and the exit code.
pub(super) fn run(verb: &NodeVerb, client: &mut Client, json: bool) -> Result<(String, ExitCode)> {
    match verb {
        NodeVerb::Status => {
            let status = ask(client)?;
            let code = match status.state {
                NodeState::Active => ExitCode::SUCCESS,
                NodeState::Starting | NodeState::Draining => ExitCode::from(2),
            };
            let text = match json {
                true => super::json(&status)?,
                false => text(&status),
            };
            Ok((text, code))
        }
        NodeVerb::Undrain => done(client, &Request::UndrainNode, json),
        NodeVerb::Drain(args) => {
            let (printed, code) = done(client, &Request::DrainNode, json)?;
            if args.no_wait {
                return Ok((printed, code));
            }
            let mut out = io::stdout();
            let style = Style::of(json, &out);
            let pause = || thread::sleep(LOOK);
            watch(args, style, &mut out, || ask(client), pause)?;
            Ok((String::new(), ExitCode::SUCCESS))
        }
    }
}

fn ask(client: &mut Client) -> Result<NodeStatus> {
    match client.ask(&Request::Node)? {
        Reply::Node(status) => Ok(status),
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    }
}

fn done(client: &mut Client, request: &Request, json: bool) -> Result<(String, ExitCode)> {
    match client.ask(request)? {
        Reply::Done if json => Ok((super::json(&Reply::Done)?, ExitCode::SUCCESS)),
        Reply::Done => Ok((String::new(), ExitCode::SUCCESS)),
        Reply::Refused(refusal) => Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    }
}

fn text(status: &NodeStatus) -> String {
    let NodeStatus {
        state,
        since_s,
        addresses,
        packets,
        connections,
    } = status;
    let text = format!(
        "{} since {}, {connections} connections established, {packets} packets from clients\n",
        state.word(),
        duration(*since_s)
    );
    if addresses.is_empty() {
        return text;
    }
    let mut table = Table::new(3, ["ADDRESS", "INTERFACE", "ANNOUNCED"]);
    for at in addresses {
        let announced = match at.withheld {
            None => "yes",
            Some(Withheld::Node) => "no: not this director",
            Some(Withheld::Servers) => "no: too few servers are up",
            Some(Withheld::Interface) => "no: the kernel has no such interface",
        };
        let (address, interface) = (at.address.to_string(), at.interface.clone());
        table.row([address, interface, announced.to_owned()]);
    }
    text + &table.text()
}

/// A director that is being drained, as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct Look {
    connections: u64,
    /// Of clients.
    packets_per_s: u64,
    /// For so many seconds none came.
    quiet_s: u32,
    /// It can be stopped: clients are gone.
    safe: bool,
}

impl Look {
    fn line(&self) -> String {
        let Self {
            connections,
            packets_per_s,
            quiet_s,
            safe,
        } = self;
        let seen = match quiet_s {
            0 => format!("{packets_per_s} packets/s"),
            seconds => format!("no packets for {seconds} s"),
        };
        let verdict = if *safe { ": safe to stop" } else { "" };
        format!("{connections} connections, {seen}{verdict}")
    }
}

/// Looks until clients are gone.
fn watch(
    args: &DrainArgs,
    style: Style,
    out: &mut impl Write,
    mut ask: impl FnMut() -> Result<NodeStatus>,
    mut pause: impl FnMut(),
) -> Result<()> {
    let (mut before, mut quiet_s, mut waited) = (ask()?.packets, 0, 0);
    loop {
        pause();
        waited += 1;
        let status = ask()?;
        if status.state != NodeState::Draining {
            bail!("somebody undrained this director");
        }
        // Somebody may have set the counters to zero.
        let came = status.packets.saturating_sub(before);
        quiet_s = if status.packets == before {
            quiet_s + 1
        } else {
            0
        };
        before = status.packets;
        let few = (args.connections).is_some_and(|most| status.connections <= most);
        let look = Look {
            connections: status.connections,
            packets_per_s: came,
            quiet_s,
            safe: quiet_s >= args.quiet || few,
        };
        style.show(&look, &look.line(), look.quiet_s == 0, look.safe, out)?;
        if look.safe {
            return Ok(());
        }
        if args.timeout.is_some_and(|most| waited >= most) {
            bail!("clients still come after {waited} s; it stays drained");
        }
    }
}

#[cfg(test)]
mod tests {
    use control::Announced;

    use super::*;

    fn status(state: NodeState, packets: u64, connections: u64) -> NodeStatus {
        NodeStatus {
            state,
            since_s: 65,
            addresses: Vec::new(),
            packets,
            connections,
        }
    }

    const ARGS: DrainArgs = DrainArgs {
        quiet: 2,
        connections: None,
        timeout: None,
        no_wait: false,
    };

    /// What is said of these looks, packets and connections each, and whether it ended well.
    fn watched(args: &DrainArgs, looks: &[(u64, u64)]) -> (String, bool) {
        let (mut looks, mut out) = (looks.iter(), Vec::new());
        let ask = || {
            let &(packets, connections) = looks.next().unwrap();
            Ok(status(NodeState::Draining, packets, connections))
        };
        let ended = watch(args, Style::Lines, &mut out, ask, || {});
        (String::from_utf8(out).unwrap(), ended.is_ok())
    }

    #[test]
    fn clients_are_gone_when_no_packet_comes() {
        let looks = [(100, 9), (140, 9), (140, 8), (141, 8), (141, 8), (141, 8)];
        let said = "9 connections, 40 packets/s\n\
                    8 connections, 1 packets/s\n\
                    8 connections, no packets for 2 s: safe to stop\n";
        assert_eq!(watched(&ARGS, &looks), (said.to_owned(), true));
    }

    #[test]
    fn or_when_few_connections_are_left() {
        let args = DrainArgs {
            connections: Some(3),
            ..ARGS
        };
        let said = "4 connections, 40 packets/s\n3 connections, 40 packets/s: safe to stop\n";
        let looks = [(100, 9), (140, 4), (180, 3)];
        assert_eq!(watched(&args, &looks), (said.to_owned(), true));
    }

    #[test]
    fn patience_ends() {
        let args = DrainArgs {
            timeout: Some(2),
            ..ARGS
        };
        assert!(!watched(&args, &[(1, 9), (2, 9), (3, 9)]).1);
    }

    #[test]
    fn addresses_are_listed_with_why_they_are_not_announced() {
        let at = |address: &str, withheld| Announced {
            address: address.parse().unwrap(),
            interface: "lo".to_owned(),
            withheld,
        };
        let status = NodeStatus {
            addresses: vec![
                at("10.0.0.1", None),
                at("2001:db8::1", Some(Withheld::Servers)),
            ],
            ..status(NodeState::Active, 7, 3)
        };
        assert_eq!(
            text(&status),
            "active since 1 min 5 s, 3 connections established, 7 packets from clients\n\
             ADDRESS      INTERFACE  ANNOUNCED\n\
             10.0.0.1     lo         yes\n\
             2001:db8::1  lo         no: too few servers are up\n"
        );
    }
}

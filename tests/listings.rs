//! Listings byte for byte: ipvsadm 1.31 printed one fixed set of services and connections in every
//! format it has.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use control::client::ClientError;
use control::ipvsadm::names::SystemNames;
use control::ipvsadm::run::Ipvsadm;
use control::{
    Change, Connection, Engine, Protocol, Rates, Reply, Request, Server, Service, ServiceKey,
    Thresholds, Totals,
};
use dataplane::control::model::{Limits, Model};

const LISTINGS: &str = include_str!("oracle/cli_listings.txt");
const LISTINGS_MIN: usize = 18;

/// Each command line with what was printed.
fn listings() -> Vec<(&'static str, String)> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for line in LISTINGS.lines().skip_while(|line| !line.starts_with("$ ")) {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push((command, String::new())),
            (None, Some((_, printed))) if !line.is_empty() => *printed += &format!("{line}\n"),
            _ => {}
        }
    }
    all
}

/// A director whose counters are as the recorded kernel's.
struct Director {
    model: Model,
}

impl Director {
    /// With the services of the recorded save.
    fn new() -> Self {
        let limits = Limits {
            services_max: 64,
            servers_max: 64,
        };
        let mut director = Self {
            model: Model::new(limits),
        };
        let saved = listings().into_iter().find(|(line, _)| line.contains("-S"));
        director.run("ipvsadm -R", &saved.unwrap().1);
        director
    }

    fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Change(changes) => {
                self.change(changes);
                Reply::Done
            }
            Request::Services { only } => {
                let mut list = self.model.services(only.as_ref()).unwrap();
                list.iter_mut().for_each(counted);
                Reply::Services(list)
            }
            Request::Connections { .. } => Reply::Connections {
                list: connections(),
                next: None,
            },
            other => panic!("no listing asks {other:?}"),
        }
    }

    fn change(&mut self, changes: &[Change]) {
        self.model.apply(changes).unwrap();
    }

    fn run(&mut self, command: &str, stdin: &str) -> String {
        let words: Vec<String> = command.split(' ').skip(1).map(str::to_owned).collect();
        let mut printed = Vec::new();
        Ipvsadm {
            names: &SystemNames,
            ask: &mut |request| Ok::<_, ClientError>(self.answer(request)),
            input: &mut stdin.as_bytes(),
            output: &mut printed,
        }
        .run("ipvsadm", &words)
        .unwrap();
        String::from_utf8(printed).unwrap()
    }
}

/// What the recorded kernel had counted.
fn counted(service: &mut Service) {
    let busy = ServiceKey::at(Protocol::Tcp, "192.168.0.1:80".parse().unwrap());
    if service.key == busy {
        service.totals = Totals {
            conns: 12345,
            in_packets: 99_999_999,
            out_packets: 100_000_000,
            in_bytes: 123_456_789_012,
            out_bytes: 1_234_567_890_123_456,
        };
        service.rates = Rates {
            cps: 12,
            in_pps: 345,
            out_pps: 678,
            in_bps: 90123,
            out_bps: 999_999_999,
        };
    }
    let busy = |server: &&mut Server| server.address.ip().to_string() == "192.168.10.2";
    for server in service.servers.iter_mut().filter(busy) {
        server.spec.thresholds = Thresholds {
            upper: 1000,
            lower: 800,
        };
        (server.active, server.inactive, server.persistent) = (5, 77, 2);
        server.totals.conns = 5;
        server.totals.in_packets = 100;
        server.rates = Rates {
            cps: 3,
            in_pps: 1_234_567_890,
            in_bps: 123_456_789,
            ..Rates::default()
        };
    }
}

fn connections() -> Vec<Connection> {
    use Protocol::{Sctp, Tcp, Udp};
    let entry =
        |protocol, [client, virtual_address, server]: [&str; 3], state: &str, seconds: u64| {
            let address = |text: &str| text.parse::<SocketAddr>().unwrap();
            Connection {
                protocol,
                client: address(client),
                virtual_address: address(virtual_address),
                server: address(server),
                local: None,
                state: state.to_owned(),
                expires_ms: seconds * 1000,
                in_packets: 0,
                out_packets: 0,
                bytes: 0,
                worker: 0,
                template: matches!(state, "NONE" | "ASSURED"),
                engine: None,
            }
        };
    let server = "192.168.10.2:8080";
    let mut sip = entry(
        Some(Udp),
        ["192.0.2.3:0", "10.0.0.1:5060", "192.168.10.2:5060"],
        "NONE",
        12,
    );
    sip.engine = Some((Engine::Sip, "1234@host".to_owned()));
    let tied = ["192.0.2.1:0", "10.0.0.1:443", server];
    let marked = ["192.0.2.0:0", "0.0.0.7:0", "192.168.10.2:0"];
    let v6 = [
        "[2001:db8:1::1]:40000",
        "[2001:db8::80]:80",
        "[2001:db8::a1]:80",
    ];
    vec![
        entry(
            Some(Tcp),
            ["192.0.2.1:40000", "10.0.0.1:443", server],
            "ESTABLISHED",
            899,
        ),
        entry(Some(Tcp), tied, "NONE", 357),
        entry(
            Some(Udp),
            ["192.0.2.2:40001", "10.0.0.1:53", "192.168.10.2:53"],
            "UDP",
            299,
        ),
        entry(None, marked, "ASSURED", 59),
        sip,
        entry(
            Some(Sctp),
            ["192.0.2.1:40000", "10.0.0.2:3868", server],
            "ESTABLISHED",
            7199,
        ),
        entry(Some(Tcp), v6, "FIN_WAIT", 119),
    ]
}

/// A server on the director's own machine, which LVS tells from others, is none here.
fn without_local(listing: &str) -> String {
    listing.replace("Local   ", "Route   ")
}

fn in_one_order(listing: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn listings_as_recorded() {
    let mut director = Director::new();
    let listings = listings();
    for (command, recorded) in &listings {
        let (ours, recorded) = (director.run(command, ""), without_local(recorded));
        // The kernel that was made up for the recording had no buckets.
        if command.ends_with("--nosort") {
            assert_eq!(in_one_order(&ours), in_one_order(&recorded), "{command}");
        } else {
            assert_eq!(ours, recorded, "{command}");
        }
    }
    assert!(
        listings.len() >= LISTINGS_MIN,
        "{} listings",
        listings.len()
    );
}

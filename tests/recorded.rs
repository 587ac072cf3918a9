//! The machine on which the real ipvsadm was recorded, as far as its listings show it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use control::ipvsadm::names::{Names, Transport};
use control::{Errno, Refusal, Reply, Request, Settings, SyncDaemon};
use dataplane::conn::state::State;
use dataplane::control::model::{Limits, Model, NewPort, Outside};
use serde::Deserialize;

/// The names of the machine that made the recordings.
#[derive(Debug, Clone, Copy)]
pub struct RecordedNames;

const HOSTS: &[(&str, IpAddr)] = &[
    ("vip.example", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
    ("rs1.example", IpAddr::V4(Ipv4Addr::new(192, 168, 1, 11))),
    (
        "vip6.example",
        IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1)),
    ),
];
const PORTS: &[(&str, u16)] = &[
    ("domain", 53),
    ("http", 80),
    ("https", 443),
    ("sip", 5060),
    ("mdns", 5353),
    ("http-alt", 8080),
];

impl Names for RecordedNames {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        HOSTS.iter().find_map(|(host, address)| match address {
            IpAddr::V4(address) if *host == name => Some(*address),
            _ => None,
        })
    }

    fn port(&self, name: &str, _: Option<Transport>) -> Option<u16> {
        PORTS
            .iter()
            .find(|(port, _)| *port == name)
            .map(|(_, number)| *number)
    }

    fn host_name(&self, address: IpAddr) -> Option<String> {
        HOSTS
            .iter()
            .find(|(_, known)| address == *known)
            .map(|(name, _)| (*name).into())
    }

    fn port_name(&self, port: u16, _: Transport) -> Option<String> {
        PORTS
            .iter()
            .find(|(_, known)| port == *known)
            .map(|(name, _)| (*name).into())
    }
}

/// A command line, what comes before it, and what shows what it did.
#[derive(Debug, Deserialize)]
pub struct Recording {
    pub setup: Vec<String>,
    #[serde(flatten)]
    pub step: Step,
    #[serde(default)]
    pub stdin: String,
    #[serde(default)]
    pub after: Vec<Step>,
    pub kernel: String,
}

/// A command line, and what the real ipvsadm did with it.
#[derive(Debug, Deserialize)]
pub struct Step {
    pub cmd: String,
    pub stdout: String,
    pub stderr: String,
    pub rc: u8,
}

/// What a command line did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub stdout: String,
    pub stderr: String,
    pub rc: u8,
}

/// Whose services are in which bucket depends on the machine; ours are as on this one.
const BUCKETS_OF: &str = "6.1.192";

/// Fails when any differed, or fewer than `min` were compared.
pub fn assert_equal(compared: usize, wrong: &[String], min: usize) {
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= min, "only {compared} were compared");
}

/// All of them.
pub fn recordings() -> impl Iterator<Item = Recording> {
    let lines = include_str!("oracle/ipvsadm.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("a recording is as the type says"))
}

impl Recording {
    /// How the outcome differs from what was recorded of a step, in words.
    pub fn difference(&self, step: &Step, outcome: &Outcome) -> Option<String> {
        let recorded = Outcome {
            stdout: step.stdout.clone(),
            stderr: step.stderr.clone(),
            rc: step.rc,
        };
        let any_order = step.cmd.ends_with("--nosort") && self.kernel != BUCKETS_OF;
        let same = *outcome == recorded
            || any_order && in_one_order(&outcome.stdout) == in_one_order(&recorded.stdout);
        (!same).then(|| {
            format!(
                "{} ({}), after {:?}\n  recorded {recorded:?}\n  ours     {outcome:?}",
                step.cmd, self.kernel, self.setup
            )
        })
    }
}

/// Blanks divide words, single quotes hold them together: all that the recordings use.
pub fn shell_words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

pub fn in_one_order(listing: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = listing.lines().collect();
    lines.sort_unstable();
    lines
}

/// What the machine of the recordings has: one interface, and no ports.
struct Machine;

impl Outside for Machine {
    fn open(&mut self, _: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        unreachable!("ipvsadm knows no ports")
    }

    fn start(&mut self, daemon: &SyncDaemon, _: Settings) -> Result<(), Refusal> {
        match daemon.interface.as_str() {
            "eth0" => Ok(()),
            _ => Err(Refusal {
                errno: Errno::Enodev,
                step: None,
                detail: String::new(),
            }),
        }
    }
}

/// A director without packets and workers.
pub fn model() -> Model {
    Model::new(Limits {
        services_max: 64,
        servers_max: 64,
    })
}

/// What such a one answers.
pub fn answered(model: &mut Model, request: &Request) -> Reply {
    match request {
        Request::Change(changes) => match model.apply_with(changes, &mut Machine) {
            Ok(_) => Reply::Done,
            Err(refusal) => Reply::Refused(refusal),
        },
        Request::Connections { .. } => Reply::Connections {
            list: Vec::new(),
            next: None,
        },
        _ => told(model, request),
    }
}

/// What the model alone answers.
pub fn told(model: &Model, request: &Request) -> Reply {
    match request {
        Request::Services { only } => match model.services(only.as_ref()) {
            Ok(list) => Reply::Services(list),
            Err(refusal) => Reply::Refused(refusal),
        },
        Request::Timeouts => {
            let seconds = |state| model.timeouts().ms(state) / 1000;
            Reply::Timeouts {
                tcp: seconds(State::Established),
                tcp_fin: seconds(State::FinWait),
                udp: seconds(State::Udp),
            }
        }
        Request::SyncDaemons => Reply::SyncDaemons(model.sync_named()),
        _ => panic!("ipvsadm asks the model no {request:?}"),
    }
}

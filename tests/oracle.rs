//! The command line against recordings of the real ipvsadm 1.31 on a real kernel.
//!
//! Each recording runs in this process: words → `Request` → the control side's model → tables.
//! A recording that needs a feature the director does not have yet is skipped, and counted by
//! that feature; pure grammar (nothing reaches the director) is always compared.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use control::client::ClientError;
use control::ipvsadm::names::{Names, Transport};
use control::ipvsadm::run::{Error, Ipvsadm};
use control::{Change, Reply, Request};
use dataplane::conn::state::State;
use dataplane::control::model::{Limits, Model};
use dataplane::sched::Kind;
use serde::Deserialize;

/// Raise these when a feature lands: fewer compared means that one was lost.
const RECORDINGS_MIN: usize = 314;
const CASES_MIN: usize = 147;

#[derive(Deserialize)]
struct Recording {
    setup: Vec<String>,
    #[serde(flatten)]
    step: Step,
    #[serde(default)]
    stdin: String,
    #[serde(default)]
    after: Vec<Step>,
    kernel: String,
}

#[derive(Deserialize)]
struct Step {
    cmd: String,
    stdout: String,
    stderr: String,
    rc: u8,
}

/// Why a recording is not compared.
#[derive(Debug, Clone)]
enum Skip {
    Feature(String),
}

/// The names of the machine that made the recordings.
struct RecordedNames;

const HOSTS: &[(&str, Ipv4Addr)] = &[
    ("vip.example", Ipv4Addr::new(10, 0, 0, 1)),
    ("rs1.example", Ipv4Addr::new(192, 168, 1, 11)),
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
        HOSTS
            .iter()
            .find(|(host, _)| *host == name)
            .map(|(_, address)| *address)
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

/// What a command line did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    stdout: String,
    stderr: String,
    rc: u8,
}

/// A director without packets.
struct Director {
    model: Model,
    /// A scheduler that LVS has and the director has not.
    missing: Option<String>,
}

impl Director {
    fn new() -> Self {
        let limits = Limits {
            services_max: 64,
            servers_max: 64,
        };
        Self {
            model: Model::new(limits),
            missing: None,
        }
    }

    fn answer(&mut self, request: &Request) -> Reply {
        match request {
            Request::Change(changes) => {
                self.note_missing(changes);
                match self.model.apply(changes) {
                    Ok(_) => Reply::Done,
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Request::Services { only } => match self.model.services(only.as_ref()) {
                Ok(list) => Reply::Services(list),
                Err(refusal) => Reply::Refused(refusal),
            },
            Request::Timeouts => {
                let seconds = |state| self.model.timeouts().ms(state) / 1000;
                Reply::Timeouts {
                    tcp: seconds(State::Established),
                    tcp_fin: seconds(State::FinWait),
                    udp: seconds(State::Udp),
                }
            }
            Request::Connections { .. } => Reply::Connections {
                list: Vec::new(),
                next: None,
            },
            Request::Status | Request::Neighbours | Request::Settings => {
                panic!("ipvsadm asks no {request:?}")
            }
        }
    }

    fn note_missing(&mut self, changes: &[Change]) {
        const LVS: &[&str] = &[
            "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
            "twos",
        ];
        for change in changes {
            if let Change::AddService { spec, .. } | Change::EditService { spec, .. } = change
                && LVS.contains(&spec.scheduler.as_str())
                && Kind::by_name(&spec.scheduler).is_none()
            {
                self.missing = Some(format!("scheduler {}", spec.scheduler));
            }
        }
    }

    fn run(&mut self, command: &str, stdin: &str) -> Result<Outcome, Skip> {
        self.words(&shell_words(command), stdin)
    }

    fn words(&mut self, words: &[String], stdin: &str) -> Result<Outcome, Skip> {
        let (name, words) = words.split_first().unwrap();
        if name == "cat" {
            return Err(Skip::Feature("/proc files".into()));
        }
        let mut stdout = Vec::new();
        let result = Ipvsadm {
            names: &RecordedNames,
            ask: &mut |request| Ok::<_, ClientError>(self.answer(request)),
            input: &mut stdin.as_bytes(),
            output: &mut stdout,
        }
        .run(name, words);
        if let Some(missing) = self.missing.take() {
            return Err(Skip::Feature(missing));
        }
        // Which line it was, ipvsadm does not say.
        let result = result.map_err(|error| match error {
            Error::Line { error, .. } => *error,
            error => error,
        });
        let (stderr, rc) = match result {
            Ok(()) => (String::new(), 0),
            Err(Error::Unsupported(what)) => return Err(Skip::Feature(what.to_string())),
            Err(error) => (format!("{error}\n"), error.code()),
        };
        Ok(Outcome {
            stdout: String::from_utf8(stdout).unwrap(),
            stderr,
            rc,
        })
    }
}

/// Blanks divide words, single quotes hold them together: all that the recordings use.
fn shell_words(command: &str) -> Vec<String> {
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

/// Where we differ on purpose: a restore with a wrong or refused line changes nothing. (It also
/// accepts comments; the recordings that have them need features besides.)
fn our_restore(recording: &Recording) -> bool {
    let restore = recording.step.cmd == "ipvsadm -R" || recording.step.cmd == "ipvsadm-restore";
    restore && recording.step.rc != 0
}

fn check(recording: &Recording) -> Result<Vec<String>, Skip> {
    let mut director = Director::new();
    let setup = recording
        .setup
        .iter()
        .try_for_each(|command| director.run(command, "").map(drop));
    // A line that is wrong by grammar alone is compared whatever came before it.
    let by_grammar = recording.step.rc == 2;
    if !by_grammar {
        setup.as_ref().map_err(Skip::clone)?;
    }
    let mut wrong = Vec::new();
    let mut compare = |step: &Step, outcome: Outcome| {
        let recorded = Outcome {
            stdout: step.stdout.clone(),
            stderr: step.stderr.clone(),
            rc: step.rc,
        };
        if outcome != recorded {
            wrong.push(format!(
                "{} ({}), after {:?}\n  recorded {recorded:?}\n  ours     {outcome:?}",
                step.cmd, recording.kernel, recording.setup
            ));
        }
    };
    let outcome = director.run(&recording.step.cmd, &recording.stdin)?;
    if !our_restore(recording) {
        compare(&recording.step, outcome);
        if setup.is_ok() {
            for step in &recording.after {
                compare(step, director.run(&step.cmd, "")?);
            }
        }
        return Ok(wrong);
    }
    // The same words, but nothing was changed.
    compare(&recording.step, outcome);
    if !director.run("ipvsadm -Sn", "")?.stdout.is_empty() {
        wrong.push(format!("{:?} was applied in part", recording.stdin));
    }
    Ok(wrong)
}

#[test]
fn ipvsadm_as_recorded() {
    let text = include_str!("oracle/ipvsadm.jsonl");
    let (mut compared, mut skipped, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for line in text.lines() {
        let recording: Recording = serde_json::from_str(line).unwrap();
        match check(&recording) {
            Ok(differences) => {
                compared += 1;
                wrong.extend(differences);
            }
            Err(Skip::Feature(feature)) => *skipped.entry(feature).or_default() += 1,
        }
    }
    println!("{compared} recordings compared; skipped:");
    for (feature, count) in &skipped {
        println!("{count:5}  {feature}");
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= RECORDINGS_MIN, "only {compared} were compared");
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    args: Vec<String>,
    rc: u8,
    stderr: Vec<String>,
}

/// What the parser refuses, in words and exit status.
#[test]
fn ipvsadm_refuses_as_recorded() {
    let text = include_str!("oracle/cli_cases.json");
    let cases: Cases = serde_json::from_str(text).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in &cases.cases {
        // The recordings of the packaged ipvsadm say that weights go to 2^31 - 1.
        let newer = case.args.iter().any(|word| word == "65536") && case.args[0] == "-a";
        if newer || case.args[0..].first().is_some_and(|word| word == "-R") {
            continue;
        }
        let parsed = control::ipvsadm::args::parse(&case.args, &RecordedNames);
        let ours = match parsed {
            Ok(_) => (0, String::new()),
            Err(failure) => (failure.code, failure.message),
        };
        // What the kernel refused, the parser let pass.
        let kernel = case.rc != 0 && ours.0 == 0;
        let said_by_kernel = [1, 255].contains(&case.rc)
            || case
                .stderr
                .first()
                .is_some_and(|line| line.starts_with("Can't initialize"));
        if kernel && said_by_kernel {
            continue;
        }
        compared += 1;
        if ours != (case.rc, case.stderr.join("\n")) {
            wrong.push(format!(
                "{:?}: {ours:?}, not {:?} {:?}",
                case.args, case.rc, case.stderr
            ));
        }
    }
    println!("{compared} of {} cases compared", cases.cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= CASES_MIN, "only {compared} were compared");
}

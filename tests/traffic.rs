//! Traffic through a director, and what ipvsadm lists of it: recordings of the real ipvsadm 1.31 on
//! one kernel (6.1.192), whose connections live on from one recording to the next.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use control::client::ClientError;
use control::ipvsadm::run::Ipvsadm;
use control::{Change, MarkRule, Reply, Request, ServiceKey, Totals};
use serde::Deserialize;
use system_tests::frames::{self, Frame};
use system_tests::lab::Lab;
use system_tests::recorded::RecordedNames;

/// All there are; fewer compared means that something got lost.
const RECORDINGS: usize = 7;
const COMMANDS_MIN: usize = 127;
/// No recording waited longer than this between two listings.
const PAUSE_MAX_MS: u32 = 3000;
/// How much longer than listed a connection whose time ran out may be counted.
const LATE_MS: u32 = 1500;
const STEP_MS: u32 = 50;

/// After which step of which recording the kernel estimated rates, to judge by what it listed. What
/// `--stats` and `--rate` show is from then.
const ESTIMATES: &[(&str, &str)] = &[
    (
        "tcp states and timeouts (NAT)",
        "nobody listens at the server: it answered RST",
    ),
    (
        "udp, several entries, listing",
        "ipvsadm -Ln --stats --exact",
    ),
    ("ipv6 listing", "ipvsadm -Lnc"),
];

#[derive(Deserialize)]
struct Recording {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Step {
    Event { event: String },
    Command { cmd: String, stdout: String },
}

/// What becomes of a step.
enum End {
    /// Something happened, or was said of it.
    Done,
    Compared,
    LeftOut(&'static str),
    /// With all that follows in the recording.
    LeftOutFromHere(&'static str),
}

struct Client {
    address: String,
    virtual_address: String,
    /// With whom it has, or had, a TCP connection.
    server: Option<String>,
    /// It has a connection, and has not closed it.
    is_open: bool,
    /// A UDP client that sent nothing yet.
    silent: bool,
}

struct Replay {
    lab: Lab,
    /// Of the recording under way.
    clients: Vec<Client>,
    /// Totals of services and of their servers at the last estimate.
    estimated: HashMap<(ServiceKey, Option<SocketAddr>), Totals>,
    wrong: Vec<String>,
}

impl Replay {
    /// The recorded machine marks what is for 10.0.0.3.
    fn new() -> Self {
        let mut lab = Lab::default();
        let rule = MarkRule {
            destination: Some("10.0.0.3/32".parse().unwrap()),
            ..MarkRule::new(77)
        };
        lab.change(&[Change::AddMark { rule, at: None }]);
        Self {
            lab,
            clients: Vec::new(),
            estimated: HashMap::new(),
            wrong: Vec::new(),
        }
    }

    fn step(&mut self, recording: &str, step: &Step) -> End {
        let (text, end) = match step {
            Step::Event { event } => (event, self.event(event)),
            Step::Command { cmd, stdout } => (cmd, self.compare(cmd, stdout)),
        };
        if ESTIMATES.contains(&(recording, text)) {
            self.estimate();
        }
        end
    }

    fn event(&mut self, event: &str) -> End {
        match event {
            "client sent 100 bytes, server 300" => {
                self.client_sends(data(100));
                self.server_sends(acknowledgement());
                self.server_sends(data(300));
                self.client_sends(acknowledgement());
            }
            "client closes (FIN from client, ACK)" | "client closes" => self.client_closes(),
            "server closes (FIN, ACK)" | "server closes first" => {
                self.server_sends(flags("FA"));
                self.client_sends(acknowledgement());
            }
            "client resets" => {
                self.client_sends(flags("RA"));
                self.latest().is_open = false;
            }
            "server resets" => {
                self.server_sends(flags("RA"));
                self.latest().is_open = false;
            }
            "client i (from 0) sends i+1 datagrams of 100*(i+1) bytes" => {
                for n in 0..self.clients.len() {
                    for _ in 0..=n {
                        self.datagram(n, 100 * (n + 1));
                    }
                }
            }
            "each client sends one datagram more" => {
                for n in 0..self.clients.len() {
                    self.datagram(n, 1);
                }
            }
            "1000 frames of 1000 bytes IP" => self.flood(1000),
            "99000 more" => self.flood(99_000),
            "1000000 more" => {
                return End::LeftOutFromHere(
                    "millions of packets, for a larger table, listed at some moment among them",
                );
            }
            // What was said of the step before.
            "nobody listens at the server: it answered RST"
            | "server never answers the SYN"
            | "no server with a weight: client gets"
            | "server with live entries was deleted"
            | "added again" => {}
            _ => self.connects(event),
        }
        End::Done
    }

    /// `client ADDRESS connects to ADDRESS (PROTOCOL)`, and why it could not.
    fn connects(&mut self, event: &str) {
        let parsed = || {
            let (client, rest) = event.strip_prefix("client ")?.split_once(" connects to ")?;
            let (virtual_address, rest) = rest.split_once(" (")?;
            let (protocol, failure) = rest.split_once(')')?;
            Some((
                bracketed(client),
                bracketed(virtual_address),
                protocol,
                failure,
            ))
        };
        let (address, virtual_address, protocol, failure) =
            parsed().unwrap_or_else(|| panic!("an event that is not understood: {event}"));
        let is_tcp = protocol == "tcp";
        self.clients.push(Client {
            address,
            virtual_address,
            server: None,
            is_open: false,
            silent: !is_tcp,
        });
        if is_tcp {
            self.handshake(failure);
        }
    }

    fn handshake(&mut self, failure: &str) {
        let client = self.latest();
        let syn = frames::tcp(&client.address, &client.virtual_address, "S");
        let server = self.lab.chosen(&syn.tcp_options(&SYN_OPTIONS));
        self.latest().server = server.map(|server| server.to_string());
        if failure.is_empty() {
            self.server_sends(flags("SA"));
            self.client_sends(acknowledgement());
            self.latest().is_open = true;
        } else if failure.contains("ConnectionRefused") {
            // By the director when it has no server.
            if server.is_some() {
                self.server_sends(|from, to| frames::tcp(from, to, "RA"));
            }
        } else {
            assert!(server.is_some(), "somebody does not answer");
        }
    }

    fn latest(&mut self) -> &mut Client {
        self.clients.last_mut().expect("a client")
    }

    /// From the latest client.
    fn client_sends(&mut self, frame: impl Fn(&str, &str) -> Frame) {
        let client = self.latest();
        let frame = frame(&client.address, &client.virtual_address);
        assert_eq!(self.lab.send(&frame).len(), 1);
    }

    /// To the latest client.
    fn server_sends(&mut self, frame: impl Fn(&str, &str) -> Frame) {
        let client = self.latest();
        let server = client.server.as_ref().expect("a connection");
        let frame = frame(server, &client.address);
        assert_eq!(self.lab.send(&frame).len(), 1);
    }

    fn client_closes(&mut self) {
        self.client_sends(flags("FA"));
        self.server_sends(acknowledgement());
        self.latest().is_open = false;
    }

    /// Whether it is sent on is seen by the listings.
    fn datagram(&mut self, n: usize, bytes: usize) {
        let client = &mut self.clients[n];
        client.silent = false;
        let data = vec![0; bytes];
        let frame = frames::udp(&client.address, &client.virtual_address, &data);
        self.lab.send(&frame);
    }

    fn flood(&mut self, count: usize) {
        let frame = frames::udp("10.1.0.1:46000", "10.0.0.4:3006", &[0; 1000 - 28]);
        for _ in 0..count {
            assert_eq!(self.lab.send(&frame).len(), 1);
        }
    }

    fn estimate(&mut self) {
        self.lab.estimate();
        let Reply::Services(services) = self.lab.answer(&Request::Services { only: None }) else {
            panic!("no services");
        };
        self.estimated.clear();
        for service in services {
            self.estimated.insert((service.key, None), service.totals);
            for server in service.servers {
                let name = (service.key, Some(server.address));
                self.estimated.insert(name, server.totals);
            }
        }
    }

    /// As the kernel answers: with totals as they were when it last estimated.
    fn answer(&mut self, request: &Request) -> Reply {
        let mut reply = self.lab.answer(request);
        let estimated = |name| self.estimated.get(&name).copied().unwrap_or_default();
        if let Reply::Services(list) = &mut reply {
            for service in list {
                service.totals = estimated((service.key, None));
                for server in &mut service.servers {
                    server.totals = estimated((service.key, Some(server.address)));
                }
            }
        }
        if let Request::Change(changes) = request {
            for change in changes {
                if let Change::Zero { only } = change {
                    let goes = |key| only.is_none_or(|only| only == key);
                    self.estimated.retain(|(key, _), _| !goes(*key));
                }
            }
        }
        reply
    }

    fn ipvsadm(&mut self, command: &str) -> String {
        let words: Vec<String> = command.split(' ').skip(1).map(str::to_owned).collect();
        let mut printed = Vec::new();
        Ipvsadm {
            names: &RecordedNames,
            ask: &mut |request| Ok::<_, ClientError>(self.answer(request)),
            input: &mut io::empty(),
            output: &mut printed,
        }
        .run("ipvsadm", &words)
        .unwrap_or_else(|error| panic!("{command}: {error}"));
        String::from_utf8(printed).unwrap()
    }

    /// What a line of the shell prints: commands one after the other, each maybe through `grep`.
    fn shell(&mut self, line: &str) -> String {
        let mut printed = String::new();
        for command in line.split("; ") {
            let (command, pattern) = command.split_once(" | grep ").unwrap_or((command, ""));
            let all = self.ipvsadm(command);
            for line in all.lines().filter(|line| line.contains(pattern)) {
                printed += &format!("{line}\n");
            }
        }
        printed
    }

    fn compare(&mut self, command: &str, recorded: &str) -> End {
        if command.starts_with("cat ") {
            return End::LeftOut("files of /proc");
        }
        // A recording does not always say what a client sends first.
        for n in 0..self.clients.len() {
            if self.clients[n].silent {
                self.datagram(n, 1);
            }
        }
        let ours = self.after_a_pause(command, recorded);
        if !is_same(&ours, recorded) {
            self.wrong
                .push(format!("{command}\nrecorded:\n{recorded}ours:\n{ours}"));
        }
        End::Compared
    }

    /// What is printed when so much time has passed as the recording shows: recordings do not say when
    /// something happened.
    fn after_a_pause(&mut self, command: &str, recorded: &str) -> String {
        let ours = self.wait_while(PAUSE_MAX_MS, command, |ours| is_early(ours, recorded));
        if is_same(&ours, recorded) {
            return ours;
        }
        self.wait_while(LATE_MS, command, |ours| !is_same(ours, recorded))
    }

    fn wait_while(&mut self, ms: u32, command: &str, waits: impl Fn(&str) -> bool) -> String {
        let mut ours = self.shell(command);
        for _ in 0..ms / STEP_MS {
            if !waits(&ours) {
                break;
            }
            self.lab.wait(STEP_MS);
            ours = self.shell(command);
        }
        ours
    }

    /// Clients close when a recording is over, and no service stays.
    fn end(&mut self) {
        while let Some(client) = self.clients.last() {
            if client.is_open {
                self.client_closes();
            }
            self.clients.pop();
        }
        self.ipvsadm("ipvsadm -C");
    }
}

/// As long as what Linux sends: maximum segment size, SACK, time stamps, window scale.
const SYN_OPTIONS: [u8; 20] = [1; 20];
/// Time stamps.
const OPTIONS: [u8; 12] = [1; 12];

fn flags(flags: &str) -> impl Fn(&str, &str) -> Frame {
    move |from, to| {
        let options: &[u8] = match flags.contains('S') {
            true => &SYN_OPTIONS,
            false => &OPTIONS,
        };
        frames::tcp(from, to, flags).tcp_options(options)
    }
}

fn acknowledgement() -> impl Fn(&str, &str) -> Frame {
    flags("A")
}

fn data(bytes: usize) -> impl Fn(&str, &str) -> Frame {
    move |from, to| flags("PA")(from, to).data(&vec![0; bytes])
}

/// An address and a port, which the recordings write without brackets.
fn bracketed(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').expect("a port");
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => address.to_owned(),
    }
}

/// A connection's line without the time that it has left, and that time in seconds.
fn timed(line: &str) -> Option<(String, u32)> {
    let (protocol, rest) = line.split_at_checked("TCP ".len())?;
    let (time, rest) = rest.split_at_checked("00:00".len())?;
    let (minutes, seconds) = time.split_once(':')?;
    let left_s = 60 * minutes.parse::<u32>().ok()? + seconds.parse::<u32>().ok()?;
    Some((format!("{protocol}{rest}"), left_s))
}

/// Whether something has longer to live than recorded.
fn is_early(ours: &str, recorded: &str) -> bool {
    let recorded: HashMap<_, _> = recorded.lines().filter_map(timed).collect();
    let mut ours = ours.lines().filter_map(timed);
    ours.any(|(line, left_s)| {
        recorded
            .get(&line)
            .is_none_or(|recorded| left_s > *recorded)
    })
}

/// Whether two listings are the same: connections, which lie in the order of a hash, in any order and
/// with a second more or less to live.
fn is_same(ours: &str, recorded: &str) -> bool {
    let lines = |listing: &str| {
        let line = |line: &str| timed(line).unwrap_or_else(|| (line.to_owned(), 0));
        let mut lines: Vec<_> = listing.lines().map(line).collect();
        if listing.lines().any(|line| timed(line).is_some()) {
            lines.sort_unstable();
        }
        lines
    };
    let (ours, recorded) = (lines(ours), lines(recorded));
    let same = |((ours, ours_s), (recorded, recorded_s)): (&(String, u32), &(String, u32))| {
        ours == recorded && ours_s.abs_diff(*recorded_s) <= 1
    };
    ours.len() == recorded.len() && ours.iter().zip(&recorded).all(same)
}

#[test]
fn traffic_as_recorded() {
    let text = include_str!("oracle/ipvsadm-traffic.jsonl");
    let mut replay = Replay::new();
    let (mut recordings, mut compared) = (0, 0);
    let mut left_out = BTreeMap::<&str, usize>::new();
    for line in text.lines() {
        let recording: Recording = serde_json::from_str(line).unwrap();
        for (done, step) in recording.steps.iter().enumerate() {
            match replay.step(&recording.name, step) {
                End::Done => {}
                End::Compared => compared += 1,
                End::LeftOut(why) => *left_out.entry(why).or_default() += 1,
                End::LeftOutFromHere(why) => {
                    *left_out.entry(why).or_default() += recording.steps.len() - done;
                    break;
                }
            }
        }
        replay.end();
        recordings += 1;
    }
    println!("{recordings} recordings with {compared} commands compared; steps left out:");
    for (why, count) in &left_out {
        println!("{count:5}  {why}");
    }
    let wrong = &replay.wrong;
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(recordings, RECORDINGS);
    assert!(compared >= COMMANDS_MIN, "only {compared} were compared");
}

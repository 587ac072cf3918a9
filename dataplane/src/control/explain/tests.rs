use std::sync::Mutex;
use std::thread;

use control::{End, Protocol, Request};
use crossbeam::channel::bounded;

use super::*;
use crate::control::Worker;
use crate::control::server::{Backend, Peer};
use crate::control::stats::Machine;
use crate::net::NeighbourView;
use crate::packet::Burst;

/// Two ports, stations that are known, and a service of nearly every kind.
const FILE: &str = r#"
[director]
workers = [1, 2]
[[port]]
name = "wan"
device = "net_null0"
addresses = ["192.0.2.254/24", "2001:db8:c::fe/64"]
[[port]]
name = "lan"
device = "net_null1"
addresses = ["10.1.0.254/24", "2001:db8:1::fe/64"]
[[port.vlan]]
id = 100
addresses = ["10.2.0.254/24"]
[[route]]
to = "0.0.0.0/0"
via = "192.0.2.1"
[[neighbour]]
address = "192.0.2.1"
mac = "02:00:00:00:01:01"
[[neighbour]]
address = "10.1.0.1"
mac = "02:00:00:00:02:01"
[[neighbour]]
address = "10.2.0.1"
mac = "02:00:00:00:02:02"
[[neighbour]]
address = "2001:db8:1::1"
mac = "02:00:00:00:02:03"
[[neighbour]]
address = "2001:db8:c::10"
mac = "02:00:00:00:01:02"

[[mark]]
mark = 7
destination = "203.0.113.7"
protocol = "udp"

[[service]]
protocol = "tcp"
address = "203.0.113.1:80"
scheduler = "wlc"
[[service.server]]
address = "10.1.0.3:8080"
[[service.server]]
address = "10.1.0.2:8080"
weight = 0
[[service.server]]
address = "10.1.0.1:8080"
weight = 3

[[service]]
protocol = "udp"
address = "203.0.113.1:53"
scheduler = "rr"
persistent = 300
[[service.server]]
address = "10.2.0.1:53"

[[service]]
protocol = "tcp"
address = "203.0.113.1:81"
local_addresses = ["10.1.0.100"]
[[service.server]]
address = "10.1.0.1:80"
method = "fullnat"

[[service]]
protocol = "tcp"
address = "203.0.113.1:82"

[[service]]
protocol = "tcp"
address = "[2001:db8:f::1]:80"
[[service.server]]
address = "[2001:db8:1::1]:80"
method = "direct"

[[service]]
mark = 7
[[service.server]]
address = "10.1.0.1:0"
method = "tunnel"
"#;

type Shared = Arc<Mutex<Director<HeapBuf>>>;

/// A director of several workers, each played by a thread.
struct Lab {
    control: Control,
    workers: Vec<(Shared, Arc<Page>)>,
}

fn mac_of(port: PortId) -> [u8; 6] {
    [2, 0, 0, 0, 0, port.0]
}

impl Lab {
    fn new(text: &str) -> Self {
        let config = Config::parse(text, "f").unwrap();
        let limits = config.director.limits();
        let page = |_| Arc::new(Page::new(limits.services_max, limits.servers_max).unwrap());
        let count = config.director.workers.len();
        let pages: Arc<[_]> = (0..count).map(page).collect();
        let setup = config.setup(mac_of);
        let (mut workers, mut shared) = (Vec::new(), Vec::new());
        for (me, page) in pages.iter().enumerate() {
            let steer = Steer::new(me, count);
            let director = Director::new(100, [1, 2], setup.clone(), steer, page.clone()).unwrap();
            let director = Arc::new(Mutex::new(director.among(pages.clone())));
            workers.push(played(Arc::clone(&director), page.clone()));
            shared.push((director, page.clone()));
        }
        let mut control = Control::new(limits, workers, 100, Machine::default)
            .with_ports(config.port_specs())
            .networked(setup);
        control.start(&config).unwrap();
        Self {
            control,
            workers: shared,
        }
    }

    fn ask(&mut self, question: Question) -> Result<Explained, Refusal> {
        match self
            .control
            .handle(Request::Explain(Box::new(question)), &Peer::root(1))
        {
            Reply::Explained(explained) => Ok(*explained),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// Sends the very packet that was asked about; returns what leaves, in hexadecimal.
    fn send(&mut self, explained: &Explained) -> Vec<String> {
        let digits = explained.packet.bytes.as_bytes().chunks(2);
        let frame: Vec<_> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let port = if explained.packet.port == "wan" { 0 } else { 1 };
        let now = Instant::default();
        let mut wires: Vec<_> = (self.workers.iter())
            .map(|(_, page)| Wire::new(page.clone()))
            .collect();
        let mut burst = Burst::from_iter([HeapBuf::new(&frame)]);
        let first = &self.workers[0].0;
        first
            .lock()
            .unwrap()
            .process(now, PortId(port), &mut burst, &mut wires[0]);
        for (home, from, _, packet) in std::mem::take(&mut wires[0].steered) {
            let mut burst = Burst::from_iter([packet]);
            let mut director = self.workers[home].0.lock().unwrap();
            director.process_home(now, from, &mut burst, &mut wires[home]);
        }
        let sent = wires.iter().flat_map(|wire| &wire.sent);
        sent.map(|(_, packet)| hex(packet)).collect()
    }

    fn printed(&self) -> Vec<String> {
        let workers = self.workers.iter();
        workers
            .map(|(director, page)| format!("{:?} {page:?}", director.lock().unwrap()))
            .collect()
    }
}

fn hex(packet: &HeapBuf) -> String {
    use crate::packet::PacketBuf as _;
    packet
        .bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn played(director: Shared, page: Arc<Page>) -> Worker {
    let (mailbox, commands) = bounded(8);
    let own = page.clone();
    thread::spawn(move || {
        let mut wire = Wire::new(own);
        for command in commands {
            let mut director = director.lock().unwrap();
            match command {
                Command::Apply(batch, done) => {
                    for update in &*batch {
                        director.apply(update, &mut wire);
                    }
                    let _ = done.send(());
                }
                Command::Explain { query, reply } => {
                    let _ = reply.send(director.excerpt(Instant::default(), &query));
                }
                Command::Neighbours(reply) => {
                    let known = NeighbourView {
                        port: PortId(1),
                        vlan: None,
                        address: "10.1.0.3".parse().unwrap(),
                        mac: Some([2, 0, 0, 0, 2, 9]),
                        state: control::NeighbourState::Reachable,
                    };
                    let _ = reply.send(vec![known]);
                }
                other => panic!("{other:?}"),
            }
        }
    });
    Worker {
        core: 1,
        page,
        mailbox,
    }
}

fn question(protocol: Protocol, from: &str, to: &str) -> Question {
    Question {
        protocol,
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        port: None,
        flags: None,
        length: None,
        says: Says::Nothing,
        file: None,
    }
}

fn lines(explained: &Explained) -> Vec<String> {
    let steps = explained.steps.iter();
    let mut lines: Vec<_> = steps
        .map(|step| format!("{}: {}", step.name, step.says))
        .collect();
    lines.push(format!("{:?}: {}", explained.end, explained.says));
    lines
}

const C: &str = "198.51.100.7:4242";
const C6: &str = "[2001:db8:c::10]:4242";

/// What leaves, whether the packet that was made up for the question is one that the director takes.
#[test]
fn the_packet_that_was_asked_about_meets_what_was_said() {
    use Protocol::{Sctp, Tcp, Udp};
    let mut lab = Lab::new(FILE);
    let mut forwarded = 0;
    for (protocol, from, to, flags, length) in [
        (Tcp, C, "203.0.113.1:80", None, None),
        (Tcp, C, "203.0.113.1:80", Some("A"), Some(1500)),
        (Tcp, "198.51.100.8:4242", "203.0.113.1:80", Some("."), None),
        (Udp, C, "203.0.113.1:53", None, Some(600)),
        (Udp, "198.51.100.9:1", "203.0.113.7:9", None, Some(1480)),
        (Udp, "198.51.100.9:2", "203.0.113.7:9", None, Some(1490)),
        (Tcp, C, "203.0.113.1:81", None, None),
        (Tcp, C, "203.0.113.1:81", Some("PA"), Some(100)),
        (Tcp, C, "203.0.113.1:82", None, None),
        (Tcp, C, "203.0.113.1:83", None, None),
        (Sctp, C, "203.0.113.1:80", None, None),
        (Tcp, C6, "[2001:db8:f::1]:80", None, None),
        (Tcp, C6, "[2001:db8:f::1]:80", Some("FA"), None),
        (Udp, C6, "[2001:db8:f::1]:81", None, None),
        (Tcp, C, "198.51.100.99:80", None, None),
    ] {
        let before = lab.printed();
        let question = Question {
            flags: flags.map(str::to_owned),
            length,
            ..question(protocol, from, to)
        };
        let explained = lab.ask(question).unwrap();
        assert!(lab.printed() == before, "{to}: asking changed something");
        let asked = explained.packet.bytes.len() / 2 - 14;
        assert!(
            length.is_none_or(|length| asked == usize::from(length)),
            "{to}"
        );
        let said: Vec<_> = (explained.sent.iter())
            .map(|sent| sent.frame.bytes.clone())
            .collect();
        assert_eq!(lab.send(&explained), said, "{to}: {:?}", lines(&explained));
        forwarded += usize::from(explained.end == End::Forwarded);
    }
    assert!(forwarded >= 8, "{forwarded}");
}

/// Of the first packet, and once it was sent of the same once more.
fn twice(lab: &mut Lab, question: &Question) -> [Vec<String>; 2] {
    [true, false].map(|is_first| {
        let explained = lab.ask(question.clone()).unwrap();
        if is_first {
            lab.send(&explained);
        }
        lines(&explained)
    })
}

#[test]
fn steps_are_said_in_words() {
    let mut lab = Lab::new(FILE);
    let question = question(Protocol::Tcp, C, "203.0.113.1:80");
    let explained = lab.ask(question.clone()).unwrap();
    assert_eq!(
        explained.packet.packet,
        "IP 198.51.100.7:4242 > 203.0.113.1:80: Flags [S], seq 1, win 65535, options [mss 1460], length 0"
    );
    let chosen = explained.candidates.iter().filter(|server| server.chosen);
    let chosen: Vec<_> = chosen.map(|server| server.server.to_string()).collect();
    assert_eq!(
        (explained.candidates.len(), chosen),
        (3, vec!["10.1.0.1:8080".to_owned()])
    );
    let [first, second] = twice(&mut lab, &question);
    assert_eq!(
        first,
        [
            "worker: 0 of 0 to 1, by the hash of 198.51.100.7:4242",
            "mark: none: no rule holds",
            "connection: none",
            "service: tcp 203.0.113.1:80, by its address and port",
            "scheduler: wlc: the least (256*active+active+inactive)/weight",
            "forwarding: nat to 10.1.0.1:8080",
            "route: 10.1.0.1 is on a network of lan, mtu 1500",
            "neighbour: 10.1.0.1 is 02:00:00:00:02:01 (static)",
            "Forwarded: it leaves from lan",
        ]
    );
    assert_eq!(
        second[2..4],
        [
            "connection: SYN_RECV with 10.1.0.1:8080, 60 s left; the packet is of its client's side",
            "service: tcp 203.0.113.1:80, by its connection",
        ]
    );
    let other = Question {
        from: "198.51.100.8:4242".parse().unwrap(),
        ..question
    };
    let candidates = lab.ask(other).unwrap().candidates;
    let shown: Vec<_> = (candidates.iter())
        .map(|server| {
            (
                server.weight,
                server.inactive,
                server.figure.as_deref(),
                server.chosen,
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (3, 0, Some("257/3 = 85.66"), false),
            (0, 0, Some("0"), false),
            (1, 0, Some("0/1"), true)
        ]
    );
}

#[test]
fn persistence_marks_and_local_addresses_are_said() {
    let mut lab = Lab::new(FILE);
    let [first, second] = twice(&mut lab, &question(Protocol::Udp, C, "203.0.113.1:53"));
    assert_eq!(
        first[3..],
        [
            "service: udp 203.0.113.1:53, by its address and port",
            "persistence: client 198.51.100.7 has no template: a template is made for 300 s",
            "scheduler: rr: one after the other, the newest first",
            "forwarding: nat to 10.2.0.1:53",
            "route: 10.2.0.1 is on a network of lan.100, mtu 1500",
            "neighbour: 10.2.0.1 is 02:00:00:00:02:02 (static)",
            "Forwarded: it leaves from lan",
        ]
    );
    assert!(
        second[2].starts_with("connection: UDP with 10.2.0.1:53, "),
        "{second:?}"
    );
    let other = lines(
        &lab.ask(question(Protocol::Udp, "198.51.100.7:1", "203.0.113.1:53"))
            .unwrap(),
    );
    let tied = "persistence: client 198.51.100.7 has 10.2.0.1:53 by its template, 300 s left";
    assert!(other.iter().any(|line| line == tied), "{other:?}");

    let marked = lab
        .ask(question(Protocol::Udp, C, "203.0.113.7:9"))
        .unwrap();
    let said = lines(&marked);
    assert_eq!(
        [&said[1], &said[3], &said[5]],
        [
            "mark: 7 by rule 1",
            "service: mark 7, by the packet's mark",
            "forwarding: tunnel to 10.1.0.1"
        ]
    );
    assert_eq!(marked.method, Some(control::ForwardMode::Tunnel));

    let local = lab
        .ask(question(Protocol::Tcp, C, "203.0.113.1:81"))
        .unwrap();
    let from = local.local.unwrap();
    assert_eq!(from.ip().to_string(), "10.1.0.100");
    let forwarding = format!("forwarding: fullnat to 10.1.0.1:80 from {from}");
    assert!(lines(&local).contains(&forwarding), "{:?}", lines(&local));
}

#[test]
fn what_is_not_forwarded_has_its_reason() {
    let mut lab = Lab::new(FILE);
    let empty = lab
        .ask(question(Protocol::Tcp, C, "203.0.113.1:82"))
        .unwrap();
    assert!(
        matches!(&empty.end, End::Dropped { reason, .. } if reason == "no_server"),
        "{empty:?}"
    );
    assert!(
        empty.says.ends_with("; its sender is told"),
        "{}",
        empty.says
    );
    assert!(empty.sent[0].made, "{empty:?}");
    let scheduler = lines(&empty)
        .into_iter()
        .find(|line| line.starts_with("scheduler"));
    assert!(scheduler.unwrap().ends_with("; the service has no servers"));

    let near = lab
        .ask(question(Protocol::Udp, C, "203.0.113.1:80"))
        .unwrap();
    assert_eq!(near.service, None);
    let shown: Vec<_> = near
        .near
        .iter()
        .map(|(key, why)| format!("{key}: {why}"))
        .collect();
    assert_eq!(
        shown[..2],
        [
            "tcp 203.0.113.1:80: it is for tcp",
            "udp 203.0.113.1:53: it is at port 53"
        ]
    );

    let far = Question {
        port: Some("lan.100".to_owned()),
        ..question(Protocol::Tcp, C, "203.0.113.1:83")
    };
    let far = lab.ask(far).unwrap();
    assert!(
        far.packet.packet.starts_with("vlan 100, IP "),
        "{}",
        far.packet.packet
    );
    assert_eq!(far.packet.port, "lan");
}

#[test]
fn what_is_wrong_with_a_question_is_said() {
    let mut lab = Lab::new(FILE);
    let of = |question: Question| lab.ask(question).unwrap_err();
    let tcp = || question(Protocol::Tcp, C, "203.0.113.1:80");
    let udp = || question(Protocol::Udp, C, "203.0.113.1:53");
    let text = |text: &str| Some(text.to_owned());
    let questions = [
        Question {
            port: text("eth0"),
            ..tcp()
        },
        Question {
            flags: text("SX"),
            ..tcp()
        },
        Question {
            flags: text("S"),
            ..udp()
        },
        Question {
            length: Some(9999),
            ..tcp()
        },
        Question {
            says: Says::ConnectionId("12".to_owned()),
            ..udp()
        },
        Question {
            says: Says::CallId("a b".to_owned()),
            ..udp()
        },
        Question {
            says: Says::CallId("a@b".to_owned()),
            ..tcp()
        },
        question(Protocol::Tcp, C, "[2001:db8:f::1]:80"),
    ];
    let refusals: Vec<_> = questions.map(of).into_iter().collect();
    assert!(
        refusals
            .iter()
            .all(|refusal| refusal.errno == Errno::Einval),
        "{refusals:?}"
    );
    let said: Vec<_> = refusals.iter().map(|refusal| &*refusal.detail).collect();
    assert_eq!(
        said,
        [
            "no port eth0, one of wan, lan is right",
            "X is no TCP flag, some of SAFRPU is right",
            "udp has no flags, TCP has",
            "9999 bytes are too long, up to 9200 is right",
            "12 is not a connection id, 8 to 20 bytes in hexadecimal are right",
            "a b is not a Call-ID, one like a84b4c76@host is right",
            "a Call-ID or a connection id is in UDP datagrams, not in tcp",
            "198.51.100.7:4242 and [2001:db8:f::1]:80 are not of the same family",
        ]
    );
}

#[test]
fn a_file_is_asked_instead() {
    let mut lab = Lab::new(FILE);
    let with = |text: String| Question {
        file: Some(File {
            name: "new.toml".to_owned(),
            text,
        }),
        ..question(Protocol::Tcp, C, "203.0.113.1:80")
    };
    let before = lab.printed();
    // The only server that is left is one whose Ethernet address is known to who runs.
    let other = FILE.replace("weight = 3", "weight = 0");
    let explained = lab.ask(with(other)).unwrap();
    assert_eq!(explained.server.unwrap().to_string(), "10.1.0.3:8080");
    let known = "neighbour: 10.1.0.3 is 02:00:00:00:02:09 (reachable)";
    assert!(
        lines(&explained).iter().any(|line| line == known),
        "{:?}",
        lines(&explained)
    );
    assert_eq!(explained.end, End::Forwarded);
    let wrong = FILE.replace("weight = 3", "weigth = 3");
    let refusal = lab.ask(with(wrong)).unwrap_err();
    assert!(
        refusal.detail.starts_with("new.toml:"),
        "{}",
        refusal.detail
    );
    assert!(refusal.detail.contains("weigth"), "{}", refusal.detail);
    assert!(lab.printed() == before, "asking changed something");
}

#[test]
fn without_workers_there_is_no_answer() {
    let config = Config::parse(FILE, "f").unwrap();
    let mut control = Control::new(config.director.limits(), Vec::new(), 1, Machine::default)
        .with_ports(config.port_specs());
    let question = Box::new(question(Protocol::Tcp, C, "203.0.113.1:80"));
    let reply = control.handle(Request::Explain(question), &Peer::root(1));
    let Reply::Refused(refusal) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(refusal.errno, Errno::Eagain);
}

/// How long a worker is busy with a copy; printed.
#[test]
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn the_copy_of_one_service_among_ten_thousand() {
    use std::fmt::Write as _;
    for (scheduler, servers) in [("wlc", 10), ("wlc", 1000), ("rr", 1000), ("mh", 1000)] {
        let mut text = String::from(
            "[director]\nmax_services = 20000\nmax_servers = 20000\n[[port]]\nname = \"lan\"\n\
             device = \"net_null0\"\naddresses = [\"10.0.0.254/24\"]\n",
        );
        for service in 0..10_000u32 {
            let vip = std::net::Ipv4Addr::from_bits(0xcb00_0000 + service);
            let by = if service == 0 { scheduler } else { "wlc" };
            let _ = writeln!(
                text,
                "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\nscheduler = {by:?}"
            );
            for server in 0..if service == 0 { servers } else { 1 } {
                let rip = std::net::Ipv4Addr::from_bits(0x0b00_0000 + service * 1000 + server);
                let _ = writeln!(text, "[[service.server]]\naddress = \"{rip}:80\"");
            }
        }
        let lab = Lab::new(&text);
        let (director, _) = &lab.workers[0];
        let director = director.lock().unwrap();
        let sample = sample(&question(Protocol::Tcp, C, "203.0.0.0:80")).unwrap();
        let query = Query {
            tuple: sample.tuple,
            said: Vec::new(),
            at: None,
            toward: None,
        };
        let mut took: Vec<_> = (0..99)
            .map(|_| {
                let started = std::time::Instant::now();
                let excerpt = director.excerpt(Instant::default(), &query);
                let took = started.elapsed();
                drop(excerpt);
                took
            })
            .collect();
        took.sort_unstable();
        let (middle, worst) = (took[49], took[98]);
        println!(
            "copy of a service by {scheduler} with {servers} servers: {middle:?}, at most {worst:?}"
        );
        assert!(middle.as_millis() < 5, "{middle:?}");
    }
}

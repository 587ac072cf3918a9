//! What real kernels chose, and what we choose: recordings replayed through a director.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use control::{
    Change, Connection, ForwardMode, MarkRule, Netmask, Persistence, Protocol, SchedulerFlags,
    ServerSpec, ServiceKey, ServiceSpec, Settings, Thresholds,
};
use dataplane::sched::Kind;
use serde_json::Value;
use system_tests::frames;
use system_tests::lab::{Lab, service};

/// Recordings that use nothing but what there is; fewer means that something got lost.
const REPLAYED_MIN: usize = 401;
const CHOICES_MIN: usize = 9627;

fn oracle(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("oracle")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An `ipvsadm` command line as a change; `Err` names what is not supported yet.
fn change(command: &str) -> Result<Change, String> {
    let mut words = command.split_whitespace().skip(1);
    let (mut verb, mut key, mut server) = ("", None, None);
    let (mut scheduler, mut flags, mut weight) = (String::new(), "", 1);
    let mut thresholds = Thresholds::default();
    let mut one_packet = false;
    let (mut persistent_s, mut netmask) = (None, None);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word {
            "-A" | "-E" | "-D" | "-a" | "-e" | "-d" => verb = word,
            "-t" | "-u" => {
                let protocol = if word == "-t" {
                    Protocol::Tcp
                } else {
                    Protocol::Udp
                };
                key = Some(service(protocol, value()));
            }
            "-f" => {
                let mark = value().parse().expect("a mark");
                key = Some(ServiceKey::Mark { mark, ipv6: false });
            }
            "-p" => persistent_s = Some(value().parse().expect("seconds")),
            "-M" => netmask = Some(value()),
            "-o" => one_packet = true,
            "-x" => thresholds.upper = value().parse().expect("a threshold"),
            "-y" => thresholds.lower = value().parse().expect("a threshold"),
            "-b" => flags = value(),
            "-s" => scheduler = value().to_owned(),
            "-r" => server = Some(value().parse().expect("a server's address")),
            "-w" => weight = value().parse().expect("a weight"),
            "-m" => {}
            other => return Err(format!("option {other}")),
        }
    }
    let service = key.ok_or("no service")?;
    let server = || server.ok_or("no server");
    let spec = ServerSpec {
        mode: ForwardMode::Nat,
        weight,
        tunnel: control::Tunnel::default(),
        thresholds,
    };
    let service_spec = ServiceSpec {
        one_packet,
        persistence: persistent_s.map(|timeout_s| Persistence {
            timeout_s,
            netmask: masked(&service, netmask),
        }),
        ..scheduled(scheduler, flags)
    };
    Ok(match verb {
        "-A" => Change::AddService {
            service,
            spec: service_spec,
        },
        "-E" => Change::EditService {
            service,
            spec: service_spec,
        },
        "-D" => Change::DeleteService { service },
        "-a" => Change::AddServer {
            service,
            server: server()?,
            spec,
        },
        "-e" => Change::EditServer {
            service,
            server: server()?,
            spec,
        },
        "-d" => Change::DeleteServer {
            service,
            server: server()?,
        },
        other => return Err(format!("verb {other}")),
    })
}

/// Of `-M`, which only persistent services have.
fn masked(service: &ServiceKey, netmask: Option<&str>) -> Netmask {
    match netmask {
        None => Netmask::whole(service.is_ipv6()),
        Some(prefix) if service.is_ipv6() => Netmask::V6(prefix.parse().expect("a prefix length")),
        Some(mask) => Netmask::V4(mask.parse().expect("a mask")),
    }
}

fn scheduled(scheduler: String, names: &str) -> ServiceSpec {
    let mut flags = SchedulerFlags::default();
    for name in names.split(',').filter(|name| !name.is_empty()) {
        flags.set(&scheduler, name).expect("a flag");
    }
    ServiceSpec {
        flags,
        ..ServiceSpec::new(scheduler)
    }
}

/// A sysctl as a change of settings; `Err` names what is not supported yet.
fn setting(sysctl: &str) -> Result<Change, String> {
    match sysctl {
        "net.ipv4.vs.expire_quiescent_template=1" => Ok(Change::SetSettings(Settings {
            expire_quiescent_template: true,
            ..Settings::default()
        })),
        other => Err(other.to_owned()),
    }
}

/// The rule by which the recordings' clients got their mark.
fn marked(mark: u32) -> Change {
    let destination = format!("20.0.{mark}.0/24").parse();
    Change::AddMark {
        rule: MarkRule {
            destination: Some(destination.expect("a network")),
            ..MarkRule::new(mark)
        },
        at: None,
    }
}

/// All changes of a recording by command; `Err` says why it cannot be replayed.
fn changes(recording: &Value) -> Result<HashMap<String, Change>, String> {
    let list = |name: &str| recording[name].as_array().cloned().unwrap_or_default();
    let mut changes = HashMap::new();
    for step in list("setup").iter().chain(&list("steps")) {
        if let Some(command) = step["cmd"].as_str() {
            changes.insert(command.to_owned(), change(command)?);
        } else if let Some(sysctl) = step["sysctl"].as_str() {
            changes.insert(sysctl.to_owned(), setting(sysctl)?);
        }
    }
    match list("sysctl").is_empty() {
        true => Ok(changes),
        false => Err("sysctl".to_owned()),
    }
}

/// One recording, through a director of its own.
struct Replay<'r> {
    lab: Lab,
    name: &'r str,
    key: ServiceKey,
    protocol: Protocol,
    /// Client, virtual address and server of each connection, by its number.
    open: HashMap<u64, (String, String, String)>,
    choices: usize,
    /// Whom it takes is chance: only whether it takes somebody is compared.
    random: bool,
}

impl Replay<'_> {
    fn step(&mut self, step: &Value, changes: &HashMap<String, Change>) {
        if let Some(number) = step["conn"].as_u64() {
            self.connect(number, step);
        } else if let Some(command) = step["cmd"].as_str().or(step["sysctl"].as_str()) {
            self.lab.change(&[changes[command].clone()]);
        } else if let Some(number) = step["close"].as_u64() {
            self.close(number, step["how"].as_str().expect("how it closes"));
        } else if let Some(table) = step["table"].as_str() {
            self.compare_table(table);
        } else if let Some(templates) = step["templates"].as_array() {
            self.compare_templates(templates);
        } else {
            panic!("{}: a step that is not understood: {step}", self.name);
        }
    }

    fn connect(&mut self, number: u64, step: &Value) {
        let end = |address: &str, port: &str| {
            let address = step[address].as_str().expect("an address");
            match address.contains(':') {
                true => format!("[{address}]:{}", step[port]),
                false => format!("{address}:{}", step[port]),
            }
        };
        let (client, virtual_address) = (end("src", "sport"), end("dst", "dport"));
        let chosen = match self.protocol {
            Protocol::Tcp => self.lab.connect(&client, &virtual_address),
            Protocol::Udp | Protocol::Sctp => {
                self.lab
                    .chosen(&frames::udp(&client, &virtual_address, b"x"))
            }
        };
        let shown = chosen.map(|server| format!("{}:{}", server.ip(), server.port()));
        let recorded = step["chosen"].as_str();
        let same = match self.random {
            true => chosen.is_some() == recorded.is_some(),
            false => shown.as_deref() == recorded,
        };
        assert!(same, "{}: {chosen:?} instead of {step}", self.name);
        self.choices += 1;
        if let Some(server) = chosen {
            let server = server.to_string();
            self.open.insert(number, (client, virtual_address, server));
        }
    }

    /// The client closes; the server follows a FIN with its own.
    fn close(&mut self, number: u64, how: &str) {
        // Some recordings go on to close what was refused.
        let Some((client, virtual_address, server)) = &self.open.get(&number) else {
            return;
        };
        let flags: &[(bool, &str)] = match how {
            "fin" => &[(false, "FA"), (true, "FA"), (false, "A")],
            "rst" => &[(false, "RA")],
            other => panic!("{}: closes by {other}", self.name),
        };
        for (outbound, flags) in flags {
            let frame = match outbound {
                false => frames::tcp(client, virtual_address, flags),
                true => frames::tcp(server, client, flags),
            };
            assert_eq!(self.lab.send(&frame).len(), 1);
        }
    }

    /// As `/proc/net/ip_vs_conn` has them, but for the time left.
    fn compare_templates(&self, recorded: &[Value]) {
        let mut recorded: Vec<_> = recorded.iter().filter_map(Value::as_str).collect();
        let mut listed: Vec<_> = self.lab.templates().iter().map(line).collect();
        recorded.sort_unstable();
        listed.sort_unstable();
        if !self.random {
            assert_eq!(listed, recorded, "{}", self.name);
        }
    }

    fn compare_table(&self, table: &str) {
        let mut recorded: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("  -> "))
            .filter(|line| !line.starts_with("RemoteAddress"))
            .map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let number = |i: usize| words[i].parse::<u32>().expect("a number");
                (
                    words[0].parse().expect("an address"),
                    number(2),
                    number(3),
                    number(4),
                )
            })
            .collect();
        let mut counted = self.lab.servers(&self.key);
        recorded.sort_unstable();
        counted.sort_unstable();
        if !self.random {
            assert_eq!(counted, recorded, "{}: {table}", self.name);
        }
    }
}

/// A template in the kernel's hexadecimal.
fn line(template: &Connection) -> String {
    let end = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => format!("{:08X} {:04X}", ip.to_bits(), address.port()),
        IpAddr::V6(ip) => {
            let groups = ip.segments().map(|group| format!("{group:04x}"));
            format!("{} {:04X}", groups.join(":"), address.port())
        }
    };
    let protocol = template.protocol.map_or("ip", Protocol::name);
    let (client, server) = (end(template.client), end(template.server));
    let (protocol, to) = (protocol.to_uppercase(), end(template.virtual_address));
    format!("{protocol} {client} {to} {server} {}", template.state)
}

#[test]
fn kernels_choices_are_ours() {
    let (mut replayed, mut choices) = (0, 0);
    let mut skipped: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let of_lvs = |kind: &Kind| *kind != Kind::Conhash;
    for kind in Kind::ALL.into_iter().filter(of_lvs) {
        for line in oracle(&format!("schedulers/{}.jsonl", kind.name())).lines() {
            let recording: Value = serde_json::from_str(line).expect("a recording");
            let name = recording["name"].as_str().expect("a name");
            let changes = match changes(&recording) {
                Ok(changes) => changes,
                Err(why) => {
                    skipped.entry(why).or_default().push(name.to_owned());
                    continue;
                }
            };
            let setup = recording["setup"].as_array().expect("a setup");
            let Change::AddService { service, .. } =
                changes[setup[0]["cmd"].as_str().expect("a command")]
            else {
                panic!("{name} does not begin with a service");
            };
            let mut replay = Replay {
                lab: Lab::default(),
                name,
                key: service,
                protocol: match recording["proto"].as_str() {
                    Some("tcp") => Protocol::Tcp,
                    Some("udp") => Protocol::Udp,
                    other => panic!("{name}: protocol {other:?}"),
                },
                open: HashMap::new(),
                choices: 0,
                random: kind == Kind::Twos,
            };
            if let ServiceKey::Mark { mark, .. } = service {
                replay.lab.change(&[marked(mark.get())]);
            }
            for step in setup
                .iter()
                .chain(recording["steps"].as_array().expect("steps"))
            {
                replay.step(step, &changes);
            }
            replayed += 1;
            choices += replay.choices;
        }
    }
    println!("{replayed} recordings with {choices} choices compared; skipped:");
    for (why, names) in &skipped {
        println!("{:5}  {why}", names.len());
    }
    assert!(
        replayed >= REPLAYED_MIN,
        "only {replayed} recordings replayed"
    );
    assert!(choices >= CHOICES_MIN, "only {choices} choices compared");
}

/// The specification's worked examples; overloaded servers are what thresholds will make.
#[test]
fn worked_examples() {
    let all: Value = serde_json::from_str(&oracle("worked.json")).expect("examples");
    let mut picks = 0;
    for example in all.as_array().expect("a list") {
        let scheduler = example["scheduler"].as_str().expect("a scheduler");
        if matches!(scheduler, "rr" | "wrr") {
            picks += work(example, scheduler);
        }
    }
    assert!(picks >= 66, "only {picks} picks compared");
}

/// Works one example as far as it goes without thresholds; how many picks were compared.
fn work(example: &Value, scheduler: &str) -> usize {
    let (mut lab, mut clients, mut picks) = (Lab::default(), 0u16, 0);
    let key = service(Protocol::Udp, "9.9.9.9:1000");
    let server = |name: &str| format!("192.168.1.{}:80", name.as_bytes()[0]);
    lab.change(&[Change::AddService {
        service: key,
        spec: scheduled(scheduler.to_owned(), ""),
    }]);
    let mut expected = example["expect"].as_array().expect("a list").iter();
    for line in example["scenario"].as_array().expect("a list") {
        let words: Vec<&str> = line.as_str().expect("a line").split_whitespace().collect();
        let spec = |i: usize| ServerSpec {
            mode: ForwardMode::Nat,
            weight: words[i].parse().expect("a weight"),
            tunnel: control::Tunnel::default(),
            thresholds: Thresholds::default(),
        };
        let server_at = |i: usize| server(words[i]).parse().expect("an address");
        match words[0] {
            "#" => {}
            // To rr an overloaded server is one without weight; wrr would measure its levels anew.
            "overload" if scheduler == "rr" => {
                let weight = u32::from(words[2] == "0");
                let server = server_at(1);
                let spec = ServerSpec {
                    mode: ForwardMode::Nat,
                    weight,
                    tunnel: control::Tunnel::default(),
                    thresholds: Thresholds::default(),
                };
                lab.change(&[Change::EditServer {
                    service: key,
                    server,
                    spec,
                }]);
            }
            "overload" => break,
            "add" => lab.change(&[Change::AddServer {
                service: key,
                server: server_at(1),
                spec: spec(4),
            }]),
            "upd" => lab.change(&[Change::EditServer {
                service: key,
                server: server_at(1),
                spec: spec(2),
            }]),
            "del" => lab.change(&[Change::DeleteServer {
                service: key,
                server: server_at(1),
            }]),
            "pick" => {
                let expected = expected
                    .next()
                    .and_then(Value::as_str)
                    .expect("an expectation");
                for name in expected.split_whitespace() {
                    clients += 1;
                    let client = format!("10.9.9.9:{}", 1000 + clients);
                    let chosen = lab.chosen(&frames::udp(&client, "9.9.9.9:1000", b"x"));
                    let right = (name != "-").then(|| server(name));
                    assert_eq!(chosen.map(|s| s.to_string()), right, "{scheduler}: {line}");
                    picks += 1;
                }
            }
            other => panic!("{other} is not understood"),
        }
    }
    picks
}

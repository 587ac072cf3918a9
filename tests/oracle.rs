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
use std::net::SocketAddr;

use control::client::ClientError;
use control::ipvsadm::lower::{refusal, request};
use control::ipvsadm::run::{Error, Ipvsadm};
use control::{
    Change, Errno, ForwardMode, Netmask, Request, ServerSpec, ServiceKey, ServiceSpec, SyncDaemon,
    Thresholds, Tunnel, Word,
};
use dataplane::control::model::Model;
use serde::Deserialize;
use system_tests::recorded::{
    self, Outcome, RecordedNames, Recording, Step, in_one_order, shell_words,
};

/// Raise these when a feature lands: fewer compared means that one was lost.
const RECORDINGS_MIN: usize = 592;
const CASES_MIN: usize = 167;
const REQUESTS_MIN: usize = 62;

/// Why a recording is not compared.
#[derive(Debug, Clone)]
enum Skip {
    Feature(String),
}

/// A director without packets.
struct Director {
    model: Model,
}

impl Director {
    fn new() -> Self {
        Self {
            model: recorded::model(),
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
            ask: &mut |request| Ok::<_, ClientError>(recorded::answered(&mut self.model, request)),
            input: &mut stdin.as_bytes(),
            output: &mut stdout,
        }
        .run(name, words);
        // Which line it was, ipvsadm does not say.
        let result = result.map_err(|error| match error {
            Error::Line { error, .. } => *error,
            error => error,
        });
        let (stderr, rc) = match result {
            Ok(()) => (String::new(), 0),
            Err(error) => (format!("{error}\n"), error.code()),
        };
        Ok(Outcome {
            stdout: String::from_utf8(stdout).unwrap(),
            stderr,
            rc,
        })
    }
}

fn is_restore(step: &Step) -> bool {
    step.cmd == "ipvsadm -R" || step.cmd == "ipvsadm-restore"
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
    if is_restore(&recording.step) && !recording.step.stderr.is_empty() {
        return check_restore(recording, &mut director);
    }
    let mut wrong = Vec::new();
    let mut compare = |step: &Step, outcome: Outcome| {
        wrong.extend(recording.difference(step, &outcome));
    };
    let outcome = director.run(&recording.step.cmd, &recording.stdin)?;
    compare(&recording.step, outcome);
    if setup.is_ok() {
        for step in &recording.after {
            compare(step, director.run(&step.cmd, "")?);
        }
    }
    Ok(wrong)
}

/// Where we differ on purpose: a restore with a wrong or refused line says so and changes nothing,
/// and comments are none.
fn check_restore(recording: &Recording, director: &mut Director) -> Result<Vec<String>, Skip> {
    let before = director.run("ipvsadm -Sn", "")?.stdout;
    let outcome = director.run(&recording.step.cmd, &recording.stdin)?;
    let after = director.run("ipvsadm -Sn", "")?.stdout;
    let right = if recording.stdin.contains("# comment") {
        outcome == Outcome::default()
            && in_one_order(&after) == in_one_order(&commands(&recording.stdin))
    } else {
        let first = recording.step.stderr.lines().next();
        outcome.stdout == recording.step.stdout
            && outcome.stderr.lines().eq(first)
            && outcome.rc != 0
            && [0, outcome.rc].contains(&recording.step.rc)
            && after == before
    };
    let wrong = (!right).then(|| format!("{:?} gives {outcome:?}, and {after:?}", recording.stdin));
    Ok(wrong.into_iter().collect())
}

/// The lines of a restore that are neither empty nor comments.
fn commands(stdin: &str) -> String {
    let lines = stdin.lines().filter(|line| line.starts_with('-'));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn ipvsadm_as_recorded() {
    let (mut compared, mut skipped, mut wrong) = (0, BTreeMap::<String, usize>::new(), Vec::new());
    for recording in recorded::recordings() {
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
    recorded::assert_equal(compared, &wrong, RECORDINGS_MIN);
}

#[derive(Deserialize)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    args: Vec<String>,
    rc: u8,
    /// The request as a kernel without IPVS behind it printed it.
    #[serde(default)]
    stdout: Vec<String>,
    stderr: Vec<String>,
    /// What that kernel was told to answer.
    kernel_errno: Option<u8>,
}

fn cases() -> Vec<Case> {
    let cases: Cases = serde_json::from_str(include_str!("oracle/cli_cases.json")).unwrap();
    // The recordings of the packaged ipvsadm say that weights go to 2^31 - 1.
    let newer = |case: &Case| {
        case.args.first().is_some_and(|word| word == "-a")
            && case.args.iter().any(|word| word == "65536")
    };
    (cases.cases.into_iter())
        .filter(|case| !newer(case) && case.args.first().is_none_or(|word| word != "-R"))
        .collect()
}

/// Those of the kernel's that the director has too.
fn errno(number: u8) -> Option<Errno> {
    Some(match number {
        1 => Errno::Eperm,
        2 => Errno::Enoent,
        3 => Errno::Esrch,
        12 => Errno::Enomem,
        17 => Errno::Eexist,
        22 => Errno::Einval,
        34 => Errno::Erange,
        _ => return None,
    })
}

/// What is said, by the parser or of a refusal; `None` where only a kernel could say it.
fn said(case: &Case) -> Option<(u8, String)> {
    let parsed = match control::ipvsadm::args::parse(&case.args, &RecordedNames) {
        Ok(parsed) => parsed,
        Err(failure) => return Some((failure.code, failure.message)),
    };
    if let Some(number) = case.kernel_errno {
        let Some(Request::Change(changes)) = request(&parsed) else {
            return None;
        };
        let failure = refusal(&changes[0], errno(number)?, "");
        return Some((failure.code, failure.message));
    }
    let by_kernel = case.rc == 1
        || (case.stderr.first()).is_some_and(|line| line.starts_with("Can't initialize"));
    (!by_kernel).then_some((0, String::new()))
}

/// What the parser or the kernel refuses, in words and exit status.
#[test]
fn ipvsadm_refuses_as_recorded() {
    let cases = cases();
    let (mut compared, mut wrong) = (0, Vec::new());
    for case in &cases {
        let Some(ours) = said(case) else { continue };
        compared += 1;
        if ours != (case.rc, case.stderr.join("\n")) {
            wrong.push(format!(
                "{:?}: {ours:?}, not {:?} {:?}",
                case.args, case.rc, case.stderr
            ));
        }
    }
    println!("{compared} of {} cases compared", cases.len());
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(compared >= CASES_MIN, "only {compared} were compared");
}

/// The service line of a request, as the kernel's structure has it.
fn service_words(name: &str, service: ServiceKey, spec: Option<&ServiceSpec>) -> String {
    let (identity, mask) = match service {
        ServiceKey::Address { protocol, address } => {
            let (protocol, ip, port) = (protocol.number(), address.ip(), address.port());
            let mask = Netmask::whole(address.is_ipv6());
            (format!("proto={protocol} {ip} port={port}"), mask)
        }
        ServiceKey::Mark { mark, ipv6 } => {
            let family = if ipv6 { 6 } else { 4 };
            (format!("fwm={mark} af={family}"), Netmask::whole(ipv6))
        }
    };
    let empty = ServiceSpec::new("");
    let spec = spec.unwrap_or(&empty);
    let (timeout, mask) = (spec.persistence).map_or((0, mask), |persistence| {
        (persistence.timeout_s, persistence.netmask)
    });
    let mask = match mask {
        Netmask::V4(mask) => mask.to_bits(),
        Netmask::V6(prefix) => prefix.into(),
    };
    let set = [
        (0, spec.persistence.is_some()),
        (2, spec.one_packet),
        (3, spec.flags.fallback),
        (4, spec.flags.port),
        (5, spec.flags.third),
    ];
    let bits = set.map(|(bit, set)| u8::from(set) << bit);
    let flags = match bits.iter().sum::<u8>() {
        0 => "0".to_owned(),
        bits => format!("{bits:#x}"),
    };
    let (scheduler, engine) = (&spec.scheduler, spec.engine.map_or("", Word::word));
    format!(
        "{name} {identity} sched={scheduler} flags={flags} timeout={timeout} mask={mask:#x} pe={engine}"
    )
}

fn server_words(server: SocketAddr, spec: ServerSpec) -> String {
    let method = match spec.mode {
        ForwardMode::Nat => 0,
        ForwardMode::Tunnel => 2,
        ForwardMode::Direct => 3,
        ForwardMode::FullNat => 5,
    };
    let Tunnel {
        kind,
        port,
        checksum,
    } = spec.tunnel;
    let Thresholds { upper, lower } = spec.thresholds;
    format!(
        "   dest {} port={} fwd={method} w={} u={upper} l={lower} tun={} tport={port} tfl={}",
        server.ip(),
        server.port(),
        spec.weight,
        kind as u8,
        checksum as u8
    )
}

fn request_words(change: &Change) -> Vec<String> {
    let direct = ServerSpec {
        mode: ForwardMode::Direct,
        weight: 1,
        tunnel: Tunnel::default(),
        thresholds: Thresholds::default(),
    };
    match change {
        Change::AddService { service, spec } => {
            vec![service_words("ADDSVC", *service, Some(spec))]
        }
        Change::EditService { service, spec } => {
            vec![service_words("EDITSVC", *service, Some(spec))]
        }
        Change::DeleteService { service } => vec![service_words("DELSVC", *service, None)],
        Change::Flush => vec!["FLUSH".to_owned()],
        Change::AddServer {
            service,
            server,
            spec,
        } => vec![
            service_words("ADDDEST", *service, None),
            server_words(*server, *spec),
        ],
        Change::EditServer {
            service,
            server,
            spec,
        } => vec![
            service_words("EDITDEST", *service, None),
            server_words(*server, *spec),
        ],
        Change::DeleteServer { service, server } => vec![
            service_words("DELDEST", *service, None),
            server_words(*server, direct),
        ],
        Change::Zero { only: Some(key) } => vec![service_words("ZERO", *key, None)],
        Change::Zero { only: None } => {
            let all = "ZERO proto=0 0.0.0.0 port=0 sched= flags=0 timeout=0 mask=0xffffffff pe=";
            vec![all.to_owned()]
        }
        Change::SetTimeouts { tcp, tcp_fin, udp } => {
            let [tcp, tcp_fin, udp] = [tcp, tcp_fin, udp].map(|value| value.unwrap_or(0));
            vec![format!("TIMEOUT {tcp} {tcp_fin} {udp}")]
        }
        Change::StartSync(daemon) => vec![daemon_words(daemon)],
        Change::StopSync { role } => vec![format!("STOP state={}", *role as u8 + 1)],
        other => panic!("ipvsadm has no {other:?}"),
    }
}

/// LVS is told nothing of what it would choose by itself.
fn daemon_words(daemon: &SyncDaemon) -> String {
    let unsaid: SyncDaemon =
        serde_json::from_str(r#"{"role": "master", "interface": "eth0"}"#).unwrap();
    let said = |value: u16, default: u16| if value == default { 0 } else { value };
    let (family, group) = match daemon.group {
        group if group == unsaid.group => (0, "-".to_owned()),
        group => (if group.is_ipv4() { 2 } else { 10 }, group.to_string()),
    };
    format!(
        "START state={} if={} syncid={} maxlen={} port={} ttl={} af={family} grp={group}",
        daemon.role as u8 + 1,
        daemon.interface,
        daemon.sync_id,
        daemon.max_len.unwrap_or(0),
        said(daemon.port, unsaid.port),
        said(daemon.ttl.into(), unsaid.ttl.into()),
    )
}

/// The kernel does not read which number a daemon that is to stop has.
fn kernels_part(asked: &[String]) -> Vec<String> {
    let part = |line: &String| match line.split_once(" syncid=") {
        Some((stop, _)) if stop.starts_with("STOP ") => stop.to_owned(),
        _ => line.clone(),
    };
    asked.iter().map(part).collect()
}

/// What the director is asked is what the kernel was asked.
#[test]
fn ipvsadm_asks_as_recorded() {
    let mut compared = 0;
    for case in cases().iter().filter(|case| case.rc == 0) {
        let parsed = control::ipvsadm::args::parse(&case.args, &RecordedNames).unwrap();
        if let Some(Request::Change(changes)) = request(&parsed) {
            let ours: Vec<String> = changes.iter().flat_map(request_words).collect();
            assert_eq!(ours, kernels_part(&case.stdout), "{:?}", case.args);
            compared += 1;
        }
    }
    println!("{compared} requests compared");
    assert!(compared >= REQUESTS_MIN, "only {compared} were compared");
}

/// What upstream's grammar has no words for, saved, restored and listed.
#[test]
fn extensions_survive_a_round_trip() {
    const SAVED: &str = "\
-A -t 10.0.0.1:80 -s rr
--add-laddr -t 10.0.0.1:80 -z 192.168.1.200
--add-laddr -t 10.0.0.1:80 -z 2001:db8:1::200
-a -t 10.0.0.1:80 -r 192.168.1.11:8080 --fullnat -w 3
-a -t 10.0.0.1:80 -r 192.168.1.12:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.1:80 -r 192.168.1.13:80 -i -w 1 --tun-type gre --tun-nocsum
-a -t 10.0.0.1:80 -r [2001:db8:1::11]:8080 --fullnat -w 1
-A --sctp-service [2001:db8::1]:9 -s wrr
-a --sctp-service [2001:db8::1]:9 -r 192.168.1.11:10 --fullnat -w 1
";
    let mut director = Director::new();
    let mut done = |command: &str, stdin: &str| {
        let outcome = director.run(command, stdin).unwrap();
        assert_eq!((outcome.rc, outcome.stderr.as_str()), (0, ""), "{command}");
        outcome.stdout
    };
    done("ipvsadm -R", SAVED);
    assert_eq!(done("ipvsadm-save -n", ""), SAVED);
    done("ipvsadm-restore", SAVED);
    assert_eq!(done("ipvsadm -Sn", ""), SAVED);
    assert_eq!(
        done("ipvsadm -Ln --tun-info", ""),
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \x20 -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n\
         TCP  10.0.0.1:80 rr\n\
         \x20 -> 192.168.1.11:8080            FullNat n/a           3      0          0         \n\
         \x20 -> 192.168.1.12:80              Tunnel  gue:6080:r+c  1      0          0         \n\
         \x20 -> 192.168.1.13:80              Tunnel  gre:-c        1      0          0         \n\
         \x20 -> [2001:db8:1::11]:8080        FullNat n/a           1      0          0         \n\
         SCTP [2001:db8::1]:9 wrr\n\
         \x20 -> 192.168.1.11:10              FullNat n/a           1      0          0         \n"
    );
    let title = "Prot VIP:VPORT                    Total  LocalAddress                            Exhausted  Conns\n";
    let listed = "\
        TCP  10.0.0.1:80                  2      192.168.1.200                           0          0\n\
        TCP  10.0.0.1:80                  2      2001:db8:1::200                         0          0\n";
    assert_eq!(
        done("ipvsadm --get-laddr -n -t 10.0.0.1:80", ""),
        format!("{title}{listed}")
    );
    done(
        "ipvsadm --del-laddr -t 10.0.0.1:80 --local-address 192.168.1.200",
        "",
    );
    assert_eq!(
        done("ipvsadm --get-laddr -n", ""),
        format!(
            "{title}{}\n{}\n",
            "TCP  10.0.0.1:80                  1      2001:db8:1::200                         0          0",
            "SCTP [2001:db8::1]:9              0      -"
        )
    );
}

/// What conhash goes by is saved with it, and edited by its own word only.
#[test]
fn hash_targets_survive_a_round_trip() {
    const SAVED: &str = "-A -u 10.0.0.1:443 -s conhash --hash-target qid\n";
    let mut director = Director::new();
    let mut done = |command: &str, stdin: &str| {
        let outcome = director.run(command, stdin).unwrap();
        assert_eq!((outcome.rc, outcome.stderr.as_str()), (0, ""), "{command}");
        outcome.stdout
    };
    done("ipvsadm -R", SAVED);
    assert_eq!(done("ipvsadm -Sn", ""), SAVED);
    done("ipvsadm -E -u 10.0.0.1:443 -s conhash", "");
    assert_eq!(done("ipvsadm -Sn", ""), SAVED);
    // Upstream's schedulers are saved in upstream's words.
    done("ipvsadm -E -u 10.0.0.1:443 -s sh", "");
    assert_eq!(done("ipvsadm -Sn", ""), "-A -u 10.0.0.1:443 -s sh\n");
    done(
        "ipvsadm -E -u 10.0.0.1:443 -s conhash --hash-target sip",
        "",
    );
    let saved = "-A -u 10.0.0.1:443 -s conhash\n";
    assert_eq!(done("ipvsadm -Sn", ""), saved);
}

/// Refusals of what upstream's grammar has no words for.
#[test]
fn extensions_are_refused_in_ipvsadms_way() {
    let mut director = Director::new();
    let setup = [
        "-A -t 10.0.0.1:80 -s rr",
        "--add-laddr -t 10.0.0.1:80 -z 10.0.0.5",
    ];
    for line in setup {
        assert_eq!(director.run(&format!("ipvsadm {line}"), "").unwrap().rc, 0);
    }
    const EINVAL: &str =
        "Invalid operation.  Possibly wrong module version, address not unicast, ...";
    for (line, rc, words) in [
        (
            "--add-laddr -t 10.0.0.1:80 -z 10.0.0.5",
            255,
            "Local address already exists",
        ),
        ("--add-laddr -t 10.0.0.1:80 -z 10.0.0.1", 255, EINVAL),
        (
            "--del-laddr -t 10.0.0.1:80 -z 10.0.0.6",
            255,
            "No such local address",
        ),
        (
            "--add-laddr -u 10.0.0.1:80 -z 10.0.0.5",
            255,
            "Service not defined",
        ),
        (
            "--add-laddr -t 10.0.0.1:80",
            2,
            "You need to supply the 'local-address' option for the 'add-laddr' command",
        ),
        (
            "--del-laddr -z 10.0.0.5",
            2,
            "You need to supply the 'service-address' option for the 'del-laddr' command",
        ),
        (
            "--add-laddr -t 10.0.0.1:80 -z 10.0.0.5/24",
            2,
            "illegal local address specified",
        ),
        (
            "--add-laddr -t 10.0.0.1:80 -z 10.0.0.5 -w 1",
            2,
            "Illegal 'weight' option with the 'add-laddr' command",
        ),
        (
            "-A -t 10.0.0.2:80 -z 10.0.0.5",
            2,
            "Illegal 'local-address' option with the 'add-service' command",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2 --fullnat -m",
            2,
            "multiple 'forwarding-method' options specified",
        ),
        (
            "-a -t 10.0.0.1:80 -r 10.0.0.2 --fullnat --tun-type gre",
            2,
            "Tunnel options conflict with forward method",
        ),
        ("--get-laddr -t 10.0.0.9:80", 1, "No such service"),
        (
            "-A -u 10.0.0.1:443 --hash-target qid",
            2,
            "Illegal 'hash-target' option with the 'wlc' scheduler",
        ),
        (
            "-A -u 10.0.0.1:443 -s conhash --hash-target cid",
            2,
            "illegal hash target specified",
        ),
        (
            "-D -t 10.0.0.1:80 --hash-target sip",
            2,
            "Illegal 'hash-target' option with the 'delete-service' command",
        ),
        (
            "-E -t 10.0.0.1:80 -s conhash --hash-target qid",
            255,
            EINVAL,
        ),
    ] {
        let outcome = director.run(&format!("ipvsadm {line}"), "").unwrap();
        assert_eq!(
            (outcome.rc, outcome.stderr.trim_end()),
            (rc, words),
            "{line}"
        );
    }
}

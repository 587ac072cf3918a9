//! Lines of directorctl become requests.

use control::{
    ClientAddress, Engine, ForwardMode, HashTarget, Netmask, OnServerGone, Persistence, Protocol,
    Rates, Refuse, Server, ServerSpec, ServiceOptions, ServiceSpec, ServiceTimeouts, Thresholds,
    Totals, Tunnel, TunnelChecksum, TunnelKind,
};

use super::*;
use crate::modern::testing::parsed;

/// One service with one server by a GUE tunnel.
struct Canned;

const GUE: ServerSpec = ServerSpec {
    mode: ForwardMode::Tunnel,
    weight: 5,
    tunnel: Tunnel {
        kind: TunnelKind::Gue,
        port: 6080,
        checksum: TunnelChecksum::Full,
    },
    thresholds: Thresholds { upper: 9, lower: 6 },
};

impl Present for Canned {
    fn service(&mut self, key: ServiceKey) -> Result<Service> {
        let server = Server {
            address: "10.1.0.1:80".parse().unwrap(),
            spec: GUE,
            active: 0,
            inactive: 0,
            persistent: 0,
            totals: Totals::default(),
            rates: Rates::default(),
            health: None,
            weight_now: None,
            draining: None,
        };
        let mut spec = scheduler("rr");
        if key.port() == 0 {
            spec.persistence = Some(Persistence {
                timeout_s: 60,
                netmask: Netmask::V4([255, 255, 255, 0].into()),
            });
        }
        Ok(Service {
            health: None,
            key,
            spec,
            totals: Totals::default(),
            rates: Rates::default(),
            servers: vec![server],
            options: ServiceOptions {
                client_address: ClientAddress::ProxyV1,
                mss: Some(1400),
                mh_table_size: None,
                ..ServiceOptions::default()
            },
            local_addresses: Vec::new(),
        })
    }

    fn settings(&mut self) -> Result<Settings> {
        Ok(Settings::default())
    }
}

fn asked(line: &str) -> Request {
    let verb: Verb = parsed(line).unwrap();
    request(&verb, &mut Canned).unwrap()
}

fn complaint(line: &str) -> String {
    match parsed::<Verb>(line) {
        Ok(verb) => request(&verb, &mut Canned).unwrap_err().to_string(),
        Err(complaint) => complaint,
    }
}

fn key() -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, "10.0.0.1:80".parse().unwrap())
}

fn scheduler(name: &str) -> ServiceSpec {
    ServiceSpec::new(name)
}

#[track_caller]
fn check(line: &str, changes: Vec<Change>) {
    assert_eq!(asked(line), Request::Change(changes), "{line}");
}

#[test]
fn services_become_requests() {
    let service = key();
    let spec = scheduler("wlc");
    let options = |client_address, mss| Change::SetOptions {
        service,
        options: ServiceOptions {
            client_address,
            mss,
            mh_table_size: None,
            ..ServiceOptions::default()
        },
    };
    let add = Change::AddService { service, spec };
    check("service add tcp 10.0.0.1:80", vec![add.clone()]);
    check(
        "service add tcp 10.0.0.1:80 --client-address proxy-v2 --mss 1380",
        vec![add, options(ClientAddress::ProxyV2, Some(1380))],
    );
    let spec = scheduler("wrr");
    let edit = Change::EditService { service, spec };
    check("service edit tcp 10.0.0.1:80 -s wrr", vec![edit.clone()]);
    check(
        "service edit tcp 10.0.0.1:80 -s wrr --mss none",
        vec![edit, options(ClientAddress::ProxyV1, None)],
    );
    check(
        "service edit tcp 10.0.0.1:80 --mh-table-size 65521",
        vec![Change::SetOptions {
            service,
            options: ServiceOptions {
                client_address: ClientAddress::ProxyV1,
                mss: Some(1400),
                mh_table_size: Some(65521),
                ..ServiceOptions::default()
            },
        }],
    );
    check(
        "service edit tcp 10.0.0.1:80 --client-address none",
        vec![options(ClientAddress::None, Some(1400))],
    );
    check(
        "service delete tcp 10.0.0.1:80",
        vec![Change::DeleteService { service }],
    );
    let flagged = |name: &str, fallback, port| {
        let mut spec = scheduler(name);
        spec.flags.fallback = fallback;
        spec.flags.port = port;
        spec
    };
    for (words, spec) in [
        ("sh", flagged("sh", true, false)),
        ("mh --scheduler-flags none", flagged("mh", false, false)),
        (
            "mh --scheduler-flags mh-port,mh-fallback",
            flagged("mh", true, true),
        ),
    ] {
        check(
            &format!("service add tcp 10.0.0.1:80 -s {words}"),
            vec![Change::AddService { service, spec }],
        );
    }
    let spec = flagged("rr", false, true);
    check(
        "service edit tcp 10.0.0.1:80 --scheduler-flags flag-2",
        vec![Change::EditService { service, spec }],
    );
    assert_eq!(
        complaint("service add tcp 10.0.0.1:80 --scheduler-flags sh-port"),
        "scheduler flag sh-port does not go with scheduler wlc"
    );
    let service = ServiceKey::at(Protocol::Sctp, "[2001:db8::1]:9".parse().unwrap());
    check(
        "service delete sctp [2001:db8::1]:9",
        vec![Change::DeleteService { service }],
    );
}

#[test]
fn persistent_services_become_requests() {
    let service = ServiceKey::at(Protocol::Udp, "10.0.0.1:5060".parse().unwrap());
    let persistent = |timeout_s, netmask| ServiceSpec {
        persistence: Some(Persistence { timeout_s, netmask }),
        ..scheduler("rr")
    };
    let network = Netmask::V4([255, 255, 255, 0].into());
    for (words, spec) in [
        ("--persistent 60", persistent(60, Netmask::whole(false))),
        (
            "--persistent 60 --netmask 255.255.255.0",
            persistent(60, network),
        ),
        ("--persistent 60 --netmask 24", persistent(60, network)),
        ("--persistent none", scheduler("rr")),
        (
            "--persistent 60 --engine sip --one-packet",
            ServiceSpec {
                engine: Some(Engine::Sip),
                one_packet: true,
                ..persistent(60, Netmask::whole(false))
            },
        ),
        ("--one-packet=false", scheduler("rr")),
    ] {
        check(
            &format!("service add udp 10.0.0.1:5060 -s rr {words}"),
            vec![Change::AddService { service, spec }],
        );
    }
    // The canned service has persistence by network already when its port is every port.
    let service = ServiceKey::at(Protocol::Udp, "10.0.0.1:0".parse().unwrap());
    for (words, spec) in [
        ("--persistent 30", persistent(30, network)),
        (
            "--netmask 16",
            persistent(60, Netmask::V4([255, 255, 0, 0].into())),
        ),
        (
            "--one-packet",
            ServiceSpec {
                one_packet: true,
                ..persistent(60, network)
            },
        ),
        ("--persistent none", scheduler("rr")),
    ] {
        check(
            &format!("service edit udp 10.0.0.1:0 {words}"),
            vec![Change::EditService { service, spec }],
        );
    }
}

#[test]
fn services_by_mark_become_requests() {
    let server = "10.1.0.1:0".parse().unwrap();
    for (words, number, ipv6) in [
        ("7", 7, false),
        ("0x10", 16, false),
        ("4294967295 --ipv6", u32::MAX, true),
    ] {
        let mark = number.try_into().unwrap();
        let service = ServiceKey::Mark { mark, ipv6 };
        check(
            &format!("service delete mark {words}"),
            vec![Change::DeleteService { service }],
        );
        let mask = Netmask::read("64", true).unwrap();
        let spec = ServiceSpec {
            persistence: ipv6.then_some(Persistence {
                timeout_s: 60,
                netmask: mask,
            }),
            ..scheduler("rr")
        };
        let persistent = if ipv6 {
            " --persistent 60 --netmask 64"
        } else {
            ""
        };
        check(
            &format!("service add mark {words} -s rr{persistent}"),
            vec![Change::AddService { service, spec }],
        );
        let only = Some(service);
        check(&format!("zero mark {words}"), vec![Change::Zero { only }]);
    }
    let service = ServiceKey::Mark {
        mark: 7.try_into().unwrap(),
        ipv6: false,
    };
    check(
        "server delete mark 7 10.1.0.1:0",
        vec![Change::DeleteServer { service, server }],
    );
}

#[test]
fn options_become_requests() {
    let service = key();
    let canned = ServiceOptions {
        client_address: ClientAddress::ProxyV1,
        mss: Some(1400),
        ..ServiceOptions::default()
    };
    let timeouts = |tcp, tcp_fin, udp| ServiceOptions {
        timeouts: ServiceTimeouts { tcp, tcp_fin, udp },
        ..canned
    };
    for (words, options) in [
        (
            "--timeout-tcp 60 --timeout-tcp-fin 5",
            timeouts(Some(60), Some(5), None),
        ),
        ("--timeout-udp none", canned),
        (
            "--refuse reset --on-server-gone reschedule --reset-on-expiry",
            ServiceOptions {
                refuse: Refuse::Reset,
                on_server_gone: OnServerGone::Reschedule,
                reset_on_expiry: true,
                ..canned
            },
        ),
        (
            "--slow-start 30 --hash-target qid --reset-on-expiry=false",
            ServiceOptions {
                slow_start_s: 30,
                hash_target: HashTarget::Qid,
                ..canned
            },
        ),
    ] {
        check(
            &format!("service edit tcp 10.0.0.1:80 {words}"),
            vec![Change::SetOptions { service, options }],
        );
    }
}

#[test]
fn servers_become_requests() {
    let (service, server) = (key(), "10.1.0.1:80".parse().unwrap());
    let by = |mode, weight| ServerSpec {
        mode,
        weight,
        tunnel: Tunnel::default(),
        thresholds: Thresholds::default(),
    };
    let tunnel = |kind, port, checksum, weight| ServerSpec {
        mode: ForwardMode::Tunnel,
        weight,
        tunnel: Tunnel {
            kind,
            port,
            checksum,
        },
        thresholds: Thresholds::default(),
    };
    let limited = |upper, lower, spec| ServerSpec {
        thresholds: Thresholds { upper, lower },
        ..spec
    };
    let (none, full) = (TunnelChecksum::None, TunnelChecksum::Full);
    for (words, spec) in [
        ("", by(ForwardMode::Nat, 1)),
        (" --method fullnat -w 3", by(ForwardMode::FullNat, 3)),
        (" --method tunnel", tunnel(TunnelKind::Ipip, 0, none, 1)),
        (
            " --method tunnel --tunnel gue --tunnel-port 6080 --tunnel-checksum full -w 5 -x 9 -y 6",
            GUE,
        ),
        (
            " --upper-threshold 7",
            limited(7, 0, by(ForwardMode::Nat, 1)),
        ),
    ] {
        let change = Change::AddServer {
            service,
            server,
            spec,
        };
        check(
            &format!("server add tcp 10.0.0.1:80 10.1.0.1:80{words}"),
            vec![change],
        );
    }
    for (words, spec) in [
        ("-w 7", ServerSpec { weight: 7, ..GUE }),
        ("-y 2", limited(9, 2, GUE)),
        ("--method direct", limited(9, 6, by(ForwardMode::Direct, 5))),
        (
            "--tunnel-port 7000",
            limited(9, 6, tunnel(TunnelKind::Gue, 7000, full, 5)),
        ),
        (
            "--tunnel gre",
            limited(9, 6, tunnel(TunnelKind::Gre, 0, none, 5)),
        ),
    ] {
        let change = Change::EditServer {
            service,
            server,
            spec,
        };
        check(
            &format!("server edit tcp 10.0.0.1:80 10.1.0.1:80 {words}"),
            vec![change],
        );
    }
    check(
        "server delete tcp 10.0.0.1:80 10.1.0.1:80",
        vec![Change::DeleteServer { service, server }],
    );
}

#[test]
fn the_rest_becomes_requests() {
    let service = key();
    let only = Some(service);
    let address = "2001:db8::5".parse().unwrap();
    let settings = |schedule_icmp, pmtu_disc| Settings {
        schedule_icmp,
        pmtu_disc,
        ..Settings::default()
    };
    for (line, change) in [
        (
            "local-address add tcp 10.0.0.1:80 2001:db8::5",
            Change::AddLocalAddress { service, address },
        ),
        (
            "local-address delete tcp 10.0.0.1:80 2001:db8::5",
            Change::DeleteLocalAddress { service, address },
        ),
        (
            "settings --schedule-icmp true",
            Change::SetSettings(settings(true, true)),
        ),
        (
            "settings --pmtu-disc false",
            Change::SetSettings(settings(false, false)),
        ),
        (
            "settings --conn-reuse-mode 0 --drop_entry 3 --am-droprate 5",
            Change::SetSettings(Settings {
                conn_reuse_mode: 0,
                drop_entry: 3,
                am_droprate: 5,
                ..Settings::default()
            }),
        ),
        ("zero", Change::Zero { only: None }),
        ("zero tcp 10.0.0.1:80", Change::Zero { only }),
        (
            "timeouts --tcp 5",
            Change::SetTimeouts {
                tcp: Some(5),
                tcp_fin: None,
                udp: None,
            },
        ),
    ] {
        check(line, vec![change]);
    }
    for (line, request) in [
        ("service list", Request::Services { only: None }),
        ("stats", Request::Services { only: None }),
        ("server list tcp 10.0.0.1:80", Request::Services { only }),
        ("local-address list", Request::Services { only: None }),
        (
            "local-address list tcp 10.0.0.1:80",
            Request::Services { only },
        ),
        ("status", Request::Status),
        ("version", Request::Status),
        ("neighbour list", Request::Neighbours),
        ("timeouts", Request::Timeouts),
        ("settings", Request::Settings),
    ] {
        assert_eq!(asked(line), request, "{line}");
    }
}

#[test]
fn mistakes_say_what_is_right() {
    for (line, words) in [
        (
            "servce list",
            "similar subcommands exist: 'server', 'service'",
        ),
        ("service lst", "a similar subcommand exists: 'list'"),
        (
            "service add tcp 10.0.0.1",
            "not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right",
        ),
        (
            "service add dccp 10.0.0.1:80",
            "[possible values: tcp, udp, sctp, mark]",
        ),
        ("service edit tcp 10.0.0.1:80", "--scheduler"),
        (
            "service edit tcp 10.0.0.1:80 --mss big",
            "not a segment size, 1380 or none is right",
        ),
        (
            "service add tcp 10.0.0.1:80 --client-address proxy",
            "[possible values: toa, uoa, proxy-v1, proxy-v2, none]",
        ),
        ("server edit tcp 10.0.0.1:80 10.1.0.1:80", "--weight"),
        (
            "server edit tcp 10.0.0.1:80 10.1.0.9:80 -w 1",
            "service tcp 10.0.0.1:80 has no server 10.1.0.9:80",
        ),
        (
            "server add tcp 10.0.0.1:80 10.1.0.1:80 -w -1",
            "-1 is not in 0..=4294967295",
        ),
        (
            "server add tcp 10.0.0.1:80 10.1.0.1:80 --method dr",
            "[possible values: nat, direct, tunnel, fullnat]",
        ),
        (
            "server add tcp 10.0.0.1:80 10.1.0.1:80 --tunnel gre",
            "--tunnel, --tunnel-port and --tunnel-checksum go with --method tunnel, not nat",
        ),
        (
            "server add tcp 10.0.0.1:80 10.1.0.1:80 --method tunnel --tunnel-port 6080",
            "--tunnel-port goes with --tunnel gue, not ipip",
        ),
        (
            "local-address add tcp 10.0.0.1:80 10.0.0.5:80",
            "not an address, 10.0.0.5 or 2001:db8::5 is right",
        ),
        ("settings --pmtu-disc on", "[possible values: true, false]"),
        ("settings --drop-entry 4", "4 is not in 0..=3"),
        ("settings --am-droprate 0", "0 is not in 1..=2147483647"),
        (
            "settings --drop-enrty 1",
            "a similar argument exists: '--drop-entry'",
        ),
        ("zero tcp", "<ADDRESS>"),
        ("service add mark 0", "not a mark, 1 to 4294967295 is right"),
        (
            "service add mark 10.0.0.1:80",
            "10.0.0.1:80 is not a mark, 7 or 0x7 is right",
        ),
        (
            "service add tcp 7",
            "7 is not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right",
        ),
        (
            "service add tcp 10.0.0.1:80 --ipv6",
            "--ipv6 goes with a mark, not with an address",
        ),
        (
            "service add tcp 10.0.0.1:80 --netmask 24",
            "--netmask goes with --persistent",
        ),
        (
            "service add tcp 10.0.0.1:80 --persistent 60 --netmask 33",
            "netmask \"33\" is none, 255.255.255.0 or 24 is right for IPv4",
        ),
        (
            "service add tcp 10.0.0.1:80 --persistent long",
            "not a number of seconds, 600 or none is right",
        ),
        (
            "service add udp 10.0.0.1:80 --engine sip",
            "service udp 10.0.0.1:80 has engine sip but no persistence, which it goes with",
        ),
        (
            "service add tcp 10.0.0.1:80 --persistent 60 --engine sip",
            "udp or a mark is right, not tcp",
        ),
        (
            "service add udp 10.0.0.1:80 --persistent 60 --engine rtp",
            "[possible values: sip, none]",
        ),
    ] {
        let said = complaint(line);
        assert!(said.contains(words), "{line}: {said}");
    }
}

#[test]
fn draining_is_asked_for() {
    let (service, server) = (key(), "10.1.0.1:80".parse().unwrap());
    let drain = |deadline_s, reset, delete| Change::DrainServer {
        service,
        server,
        drain: control::Drain {
            deadline_s,
            reset,
            delete,
        },
    };
    let at = "server drain tcp 10.0.0.1:80 10.1.0.1:80";
    check(at, vec![drain(None, false, false)]);
    check(
        &format!("{at} --deadline 30 --reset --delete --no-wait"),
        vec![drain(Some(30), true, true)],
    );
    check(
        &format!("{at} --cancel"),
        vec![Change::CancelDrain { service, server }],
    );
    assert!(complaint(&format!("{at} --reset")).contains("--deadline"));
    assert!(complaint(&format!("{at} --cancel --delete")).contains("cannot be used"));
}

//! Any configuration.

use std::net::IpAddr;
use std::num::NonZeroU32;

use control::{
    Check, ClientAddress, Dns, DnsRecord, Engine, ForwardMode, HashTarget, Health, Http,
    KernelSide, MarkRule, Netmask, OnFailure, OnServerGone, Passive, Payload, Persistence,
    PortSpec, Probe, Protocol, Rcode, Refuse, Rhythm, SchedulerFlags, ServerOptions, ServerSpec,
    ServiceOptions, ServiceSpec, ServiceTimeouts, Settings, StatusSet, Talk, Thresholds,
    TimeoutsConf, Tls, Tunnel, TunnelChecksum, TunnelKind, Via, Word,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::config::{Director, Eal, PortConf};
use crate::control::model::Kept;
use crate::net::{Prefix, Route, StaticNeighbour};

fn key(text: &str) -> ServiceKey {
    match text.split_once(' ') {
        Some(("tcp", address)) => ServiceKey::at(Protocol::Tcp, address.parse().unwrap()),
        Some(("udp", address)) => ServiceKey::at(Protocol::Udp, address.parse().unwrap()),
        Some(("sctp", address)) => ServiceKey::at(Protocol::Sctp, address.parse().unwrap()),
        _ => ServiceKey::Mark {
            mark: NonZeroU32::new(7).unwrap(),
            ipv6: text.ends_with('6'),
        },
    }
}

fn keys() -> impl Strategy<Value = Vec<ServiceKey>> {
    let all = [
        "tcp 10.0.0.1:80",
        "udp 10.0.0.2:53",
        "tcp [2001:db8::1]:80",
        "sctp 10.0.0.1:80",
        "tcp 10.0.0.3:0",
        "mark",
        "mark6",
    ];
    subsequence(all.map(key).to_vec(), 0..=7).prop_shuffle()
}

fn spec(key: ServiceKey) -> impl Strategy<Value = ServiceSpec> {
    let udp = key.may_be(Protocol::Udp);
    let masks = match key.is_ipv6() {
        true => vec![Netmask::whole(true), Netmask::V6(64)],
        false => vec![
            Netmask::whole(false),
            Netmask::V4([255, 255, 255, 0].into()),
        ],
    };
    let persistence = (1u32..4, select(masks))
        .prop_map(|(timeout_s, netmask)| Persistence { timeout_s, netmask });
    let every_port = key.address().is_some() && key.port() == 0;
    let persistence = (option::of(persistence.clone()), persistence)
        .prop_map(move |(maybe, always)| maybe.or(every_port.then_some(always)));
    let scheduler = select(vec!["rr", "wlc", "sh", "mh", "dh", "conhash"]);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (scheduler, flags, persistence, any::<bool>(), any::<bool>()).prop_map(
        move |(scheduler, (fallback, port, third), persistence, sip, one_packet)| ServiceSpec {
            flags: SchedulerFlags {
                fallback,
                port,
                third,
            },
            persistence,
            engine: (sip && udp && persistence.is_some()).then_some(Engine::Sip),
            one_packet: one_packet && udp && !sip,
            ..ServiceSpec::new(scheduler)
        },
    )
}

fn options(key: ServiceKey) -> impl Strategy<Value = ServiceOptions> {
    let is = move |protocol| key.may_be(protocol);
    let (tcp, udp) = (is(Protocol::Tcp), is(Protocol::Udp));
    let hidden = select(vec![
        ClientAddress::Toa,
        ClientAddress::Uoa,
        ClientAddress::None,
    ]);
    let choices = (
        select(vec![Refuse::Icmp, Refuse::Drop]),
        select(vec![OnServerGone::Drop, OnServerGone::Reset]),
        any::<bool>(),
        select(vec![0u32, 9]),
        any::<bool>(),
    );
    let own = (
        option::of(1u32..9),
        option::of(1u32..9),
        option::of(1u32..9),
    );
    (
        hidden,
        option::of(1400u16..1402),
        option::of(Just(251u32)),
        own,
        choices,
    )
        .prop_map(
            move |(client_address, mss, mh_table_size, own, choices)| ServiceOptions {
                client_address,
                mss: mss.filter(|_| tcp),
                mh_table_size,
                timeouts: ServiceTimeouts {
                    tcp: own.0.filter(|_| tcp),
                    tcp_fin: own.1.filter(|_| tcp),
                    udp: own.2.filter(|_| udp),
                },
                refuse: choices.0,
                on_server_gone: choices.1,
                reset_on_expiry: choices.2 && tcp,
                slow_start_s: choices.3,
                hash_target: match choices.4 && udp {
                    true => HashTarget::Qid,
                    false => HashTarget::Sip,
                },
            },
        )
}

fn server(key: ServiceKey, full: bool) -> impl Strategy<Value = ServerConf> {
    let (ipv6, port) = (key.is_ipv6(), key.port());
    let kinds = if port == 0 && key.address().is_some() {
        1
    } else {
        4u8
    };
    let tunnels = vec![
        Tunnel::default(),
        Tunnel {
            kind: TunnelKind::Gue,
            port: 6080,
            checksum: TunnelChecksum::Remote,
        },
        Tunnel {
            kind: TunnelKind::Gre,
            port: 0,
            checksum: TunnelChecksum::Full,
        },
    ];
    (1u8..5, 0..kinds, select(tunnels), 0u32..3, 0u32..3, 0u32..3).prop_map(
        move |(n, kind, tunnel, weight, lower, more)| {
            let ip: IpAddr = match ipv6 {
                true => format!("2001:db8:1::{n}").parse().unwrap(),
                false => [192, 168, 1, n].into(),
            };
            let mode = match kind {
                1 if full => ForwardMode::FullNat,
                2 => ForwardMode::Direct,
                3 => ForwardMode::Tunnel,
                _ => ForwardMode::Nat,
            };
            let is_tunnel = mode == ForwardMode::Tunnel;
            let spec = ServerSpec {
                mode,
                weight,
                tunnel: if is_tunnel { tunnel } else { Tunnel::default() },
                thresholds: Thresholds {
                    upper: lower + more,
                    lower,
                },
            };
            let options = ServerOptions {
                sorry: more == 1,
                check_address: (lower == 1).then(|| [10, 9, 9, n].into()),
                check_port: (lower == 2).then_some(8080),
            };
            ServerConf {
                options,
                ..ServerConf::new(SocketAddr::new(ip, if port == 0 { 80 } else { port }), spec)
            }
        },
    )
}

fn health(key: ServiceKey) -> impl Strategy<Value = Health> {
    let text = || select(vec!["", "a \"b\"\r\n", "0x00ff", "0xé"]);
    let payload = || text().prop_map(|text| Payload(text.as_bytes().to_vec()));
    let name = || option::of(select(vec!["a.example", "b.example:8443"]).prop_map(str::to_owned));
    let talk = (payload(), payload()).prop_map(|(send, expect)| Talk { send, expect });
    let tls = (name(), any::<bool>(), name()).prop_map(|(sni, verify, ca_file)| Tls {
        sni,
        verify,
        ca_file,
    });
    let http = (
        select(vec!["GET", "HEAD"]),
        name(),
        select(vec!["200", "200-299,404"]),
        text(),
    );
    let http = (http, option::of(tls)).prop_map(|((method, host, status, body), tls)| Http {
        method: method.to_owned(),
        path: "/health".to_owned(),
        host,
        status: StatusSet::try_from(status.to_owned()).unwrap(),
        body: body.to_owned(),
        tls,
    });
    let dns = (select(DnsRecord::ALL), select(Rcode::ALL), name());
    let dns = dns.prop_map(|(record, rcode, answer)| Dns {
        name: "a.example".to_owned(),
        record,
        rcode,
        answer,
    });
    let command = text().prop_map(|text| vec!["/bin/true".to_owned(), text.to_owned()]);
    let probe = prop_oneof![
        talk.clone().prop_map(Probe::Tcp),
        talk.prop_map(Probe::Udp),
        http.prop_map(Probe::Http),
        dns.prop_map(Probe::Dns),
        Just(Probe::Icmp),
        command.prop_map(Probe::Command),
    ];
    let rhythm = (
        50u32..9999,
        10u32..9999,
        1u32..9,
        1u32..9,
        0u32..9,
        0u32..=50,
    )
        .prop_map(
            |(interval_ms, timeout_ms, rise, fall, retries, jitter)| Rhythm {
                interval_ms,
                timeout_ms,
                rise,
                fall,
                retries,
                jitter,
                ..Rhythm::default()
            },
        );
    let address = option::of(Just(IpAddr::from([10, 8, 8, 8])));
    let check = (probe, any::<bool>(), address, option::of(1u16..9), rhythm);
    let check = check.prop_map(|(probe, by_method, address, port, rhythm)| Check {
        probe,
        via: if by_method { Via::Method } else { Via::Host },
        address,
        port,
        rhythm,
    });
    let passive = (1u32..9).prop_map(|eject_s| Passive {
        eject_s,
        ..Passive::default()
    });
    let is_tcp = key.protocol() == Some(Protocol::Tcp);
    let has_address = key.address().is_some();
    let announce = option::of(Just("lo".to_owned()));
    let rest = (
        select(OnFailure::ALL),
        0u32..3,
        option::of(passive),
        announce,
    );
    let checks = prop_oneof![3 => Just(Vec::new()), 1 => vec(check, 1..3)];
    (checks, rest).prop_map(move |(mut checks, rest)| {
        let (on_failure, min_healthy, passive, announce) = rest;
        for check in &mut checks {
            let goes = check.check().is_ok() && check.virtual_target(&key).is_ok();
            if !goes || on_failure == OnFailure::Remove {
                check.via = Via::Host;
            }
        }
        Health {
            checks,
            on_failure,
            min_healthy,
            passive: passive.filter(|_| is_tcp),
            announce: announce.filter(|_| has_address),
        }
    })
}

fn service(key: ServiceKey) -> impl Strategy<Value = ServiceConf> {
    let pool: Vec<IpAddr> = match key.is_ipv6() {
        true => ["2001:db8:2::1", "2001:db8:2::2", "2001:db8:2::3"]
            .map(|text| text.parse().unwrap())
            .to_vec(),
        false => (1..4).map(|n| [172, 16, 0, n].into()).collect(),
    };
    let locals = subsequence(pool, 0..=3).prop_shuffle();
    (spec(key), options(key), locals, health(key))
        .prop_flat_map(move |(spec, options, locals, health)| {
            let full = !locals.is_empty() && !spec.one_packet;
            let rest = (Just(spec), Just(options), Just(locals), Just(health));
            (rest, vec(server(key, full), 0..5))
        })
        .prop_map(move |(rest, mut servers)| {
            let (spec, options, local_addresses, health) = rest;
            let mut seen = HashSet::new();
            servers.retain(|server| seen.insert(server.address));
            ServiceConf {
                key,
                spec,
                options,
                local_addresses,
                health,
                servers,
            }
        })
}

fn marks() -> impl Strategy<Value = Vec<MarkRule>> {
    let rule = |mark, ports: Option<&str>| MarkRule {
        destination: Some("10.0.0.9".parse().unwrap()),
        ports: ports.map(|ports| ports.parse().unwrap()),
        ..MarkRule::new(mark)
    };
    let full = MarkRule {
        source: Some("10.0.0.0/8".parse().unwrap()),
        protocol: Some(Protocol::Udp),
        source_ports: Some("7".parse().unwrap()),
        in_port: Some("wan".to_owned()),
        vlan: Some(9),
        ..rule(7, Some("1-9"))
    };
    let all = vec![
        rule(7, None),
        rule(7, Some("80")),
        rule(8, None),
        rule(0, None),
        full,
    ];
    subsequence(all, 0..=5).prop_shuffle()
}

/// The port of every file, by whose kernel's side probes may go.
fn wan() -> PortSpec {
    PortSpec {
        kernel: Some(KernelSide::default()),
        ..PortSpec::new("wan", "net_null0")
    }
}

/// What a file may say.
pub(super) fn conf() -> impl Strategy<Value = Conf> {
    let services = keys().prop_flat_map(|keys| keys.into_iter().map(service).collect::<Vec<_>>());
    let timeouts =
        (select(vec![900u32, 60]), select(vec![300u32, 5])).prop_map(|(tcp, udp)| TimeoutsConf {
            tcp,
            udp,
            ..TimeoutsConf::default()
        });
    let settings = (any::<bool>(), 0u8..4).prop_map(|(sloppy_tcp, drop_entry)| Settings {
        sloppy_tcp,
        drop_entry,
        ..Settings::default()
    });
    (timeouts, settings, marks(), services).prop_map(|(timeouts, settings, marks, services)| Conf {
        network: control::Network {
            ports: vec![wan()],
            ..control::Network::default()
        },
        timeouts,
        settings,
        marks,
        sync: Vec::new(),
        services,
    })
}

/// What a director is started with.
fn start() -> impl Strategy<Value = Config> {
    let words = || "[a-z]{1,5}";
    let director = (
        // Core 0 is the main thread's.
        vec(1u16..9, 1..3),
        any::<bool>(),
        option::of(words()),
        64u32..99,
    )
        .prop_map(|(mut workers, poll, socket_group, max_connections)| {
            workers.dedup();
            let idle = match poll {
                true => crate::config::Idle::Poll,
                false => crate::config::Idle::Backoff,
            };
            let max_templates =
                crate::templates::Templates::default_capacity(max_connections, workers.len());
            Director {
                workers,
                idle,
                socket_group,
                max_connections,
                max_templates,
                ..Director::default()
            }
        });
    let eal = (vec("[ -~]{1,9}", 0..3), any::<bool>(), words()).prop_map(
        |(extra, huge_pages, file_prefix)| Eal {
            extra,
            huge_pages,
            file_prefix,
            ..Eal::default()
        },
    );
    let prefix = |text: &str| {
        let (address, length) = text.split_once('/').unwrap();
        Prefix {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
        }
    };
    let ports = (any::<bool>(), any::<bool>(), 1300u16..1501, 0usize..3).prop_map(
        move |(promiscuous, partial_checksums, mtu, vlans)| {
            let port = |name: &str, device: &str, addresses: &[&str]| PortConf {
                spec: PortSpec {
                    mtu,
                    promiscuous,
                    partial_checksums,
                    rx_descriptors: 512,
                    kernel: Some(KernelSide::default()),
                    ..PortSpec::new(name, device)
                },
                addresses: addresses.iter().map(|text| prefix(text)).collect(),
                vlans: Vec::new(),
            };
            let mut wan = port("wan", "net_af_packet0,iface=x", &["10.1.0.1/24"]);
            let vlan = vec![prefix("10.2.0.1/24"), prefix("2001:db8:9::1/64")];
            wan.vlans = vec![(7, vlan), (8, Vec::new())];
            wan.vlans.truncate(vlans);
            vec![wan, port("lan", "0000:3b:00.0", &[])]
        },
    );
    (director, eal, ports, any::<bool>()).prop_map(move |(director, eal, ports, more)| {
        let route = Route {
            to: prefix("0.0.0.0/0"),
            via: [10, 1, 0, 2].into(),
        };
        let neighbour = StaticNeighbour {
            address: [10, 1, 0, 3].into(),
            mac: [2, 0, 0, 0, 0, 0xab],
        };
        Config {
            director,
            eal,
            ports,
            routes: more.then_some(route).into_iter().collect(),
            neighbours: more.then_some(neighbour).into_iter().collect(),
            ..Config::default()
        }
    })
}

fn toml(conf: &Conf) -> String {
    let mut text = format!("{PORT}kernel = \"auto\"\n");
    conf.write(&mut text);
    text
}

fn read(conf: &Conf) -> File {
    File {
        name: "f".to_owned(),
        text: toml(conf),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What is written is what is read.
    #[test]
    fn a_saved_file_says_what_was_saved(start in start(), mut conf in conf()) {
        conf.network = start.network();
        let text = start.toml(&conf);
        let config = Config::parse(&text, "f").unwrap();
        prop_assert_eq!(config.sections(), start.sections());
        let (director, eal) = (&config.director, &config.eal);
        prop_assert_eq!((director, eal), (&start.director, &start.eal));
        prop_assert_eq!(&config.ports, &start.ports);
        prop_assert_eq!((&config.routes, &config.neighbours), (&start.routes, &start.neighbours));
        prop_assert_eq!(config.conf().unwrap(), conf.clone());
        prop_assert_eq!(config.toml(&conf), text);
    }

    /// From any file to any other: the plan changes nothing, to apply it gives what the other says,
    /// only what differs is touched, and what was comes back.
    #[test]
    fn any_file_follows_any_other(a in conf(), b in conf()) {
        let mut control =
            Control::new(LIMITS, Vec::new(), 64, Machine::default).with_ports([wan()]);
        control.start(&config(&toml(&a))).unwrap();
        prop_assert_eq!(&control.model.conf(), &a);
        let planned = ask(&mut control, Request::Plan(read(&b)));
        prop_assert_eq!(&control.model.conf(), &a);
        prop_assert_eq!(&planned.refused, &None);
        prop_assert!(planned.differences.iter().all(|one| !one.by_hand));

        let changes = control.diff(&b).changes;
        for change in &changes {
            if let Some(service) = service_of(change) {
                let of = |conf: &Conf| {
                    unordered(conf.clone()).services.into_iter().find(|one| one.key == service)
                };
                prop_assert_ne!(of(&a), of(&b), "{:?}", change);
            }
        }
        let request = Request::Apply { file: read(&b), confirm_s: Some(9) };
        let applied = ask(&mut control, request);
        prop_assert_eq!(&applied.differences, &planned.differences);
        prop_assert_eq!(unordered(control.model.conf()), unordered(b.clone()));
        prop_assert!(orders(&a, &b).eq(orders(&control.model.conf(), &b)), "who stays, stays in place");
        prop_assert!(ask(&mut control, Request::Plan(read(&b))).is_empty());

        let Reply::Saved { text, flaw } = control.save() else { panic!() };
        prop_assert_eq!(flaw, None);
        let name = "saved".to_owned();
        let saved = ask(&mut control, Request::Plan(File { name, text }));
        prop_assert!(saved.is_empty());

        if !changes.is_empty() {
            ask(&mut control, Request::Rollback);
        }
        prop_assert_eq!(unordered(control.model.conf()), unordered(a));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A director that was started with one file and changed by hand goes on in another one, which was given the
    /// same file, or a third.
    #[test]
    fn any_director_goes_on_where_another_ended(a in conf(), b in conf(), c in conf()) {
        let new = || Control::new(LIMITS, Vec::new(), 64, Machine::default).with_ports([wan()]);
        let mut first = new();
        first.start(&config(&toml(&a))).unwrap();
        let by_hand = first.diff(&b).changes;
        first.change(&by_hand).unwrap();
        let kept = first.kept();
        let written = serde_json::to_vec(&kept).unwrap();
        prop_assert_eq!(&serde_json::from_slice::<Kept>(&written).unwrap(), &kept);
        for (file, expected) in [(&a, first.model.conf()), (&c, c.clone())] {
            let mut second = new();
            let config = config(&toml(file));
            let is_same = second.bring_back(&config, &kept).unwrap();
            prop_assert_eq!(is_same, *file == a);
            // The order too: it is the servers' turn.
            prop_assert_eq!(&second.model.conf().services, &kept.conf.services);
            prop_assert_eq!(second.model.resume(&kept), []);
            let numbers = second.model.numbers(&kept);
            // In the trash or not, each is known.
            prop_assert_eq!(numbers.servers.len(), kept.servers_len());
            second.catch_up(&config, &kept, is_same);
            prop_assert_eq!(unordered(second.model.conf()), unordered(expected));
            prop_assert!(ask(&mut second, Request::Plan(read(&c))).differences.iter().all(|one| is_same || !one.by_hand));
        }
    }
}

/// What a change is about.
fn service_of(change: &Change) -> Option<ServiceKey> {
    match change {
        Change::AddService { service, .. }
        | Change::EditService { service, .. }
        | Change::DeleteService { service }
        | Change::AddServer { service, .. }
        | Change::EditServer { service, .. }
        | Change::DeleteServer { service, .. }
        | Change::AddLocalAddress { service, .. }
        | Change::DeleteLocalAddress { service, .. }
        | Change::SetHealth { service, .. }
        | Change::SetServerOptions { service, .. }
        | Change::SetOptions { service, .. } => Some(*service),
        Change::SetTimeouts { .. }
        | Change::SetSettings(_)
        | Change::AddMark { .. }
        | Change::DeleteMark(_) => None,
        other => panic!("no file asks for {other:?}"),
    }
}

/// The servers of `after` that stay, in the order in which they stand, and behind them the new ones.
fn orders<'c>(before: &'c Conf, after: &'c Conf) -> impl Iterator<Item = (ServiceKey, SocketAddr)> {
    let find = |key| before.services.iter().find(move |one| one.key == key);
    let mut all: Vec<_> = (after.services.iter())
        .flat_map(|wanted| {
            let old = find(wanted.key).map_or(&[][..], |one| &one.servers);
            let has = |servers: &[ServerConf], address| {
                servers.iter().any(|server| server.address == address)
            };
            let kept = old.iter().filter(|one| has(&wanted.servers, one.address));
            let new = wanted.servers.iter().filter(|one| !has(old, one.address));
            let key = wanted.key;
            kept.chain(new)
                .map(move |one| (key, one.address))
                .collect::<Vec<_>>()
        })
        .collect();
    all.sort_by_key(|(key, _)| *key);
    all.into_iter()
}

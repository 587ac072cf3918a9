//! From verbs to requests. A verb that changes part of something asks for the whole first.

use anyhow::{Result, bail};
use control::client::{Client, ClientError};
use control::{
    Change, Cursor, Errno, ForwardMode, NoFlag, Refusal, Reply, Request, SchedulerFlags, Server,
    ServerSpec, Service, ServiceKey, ServiceOptions, ServiceSpec, Settings, Thresholds, Tunnel,
    TunnelKind, Word,
};

use super::{
    ConnectionVerb, LocalAddressVerb, Mss, NeighbourVerb, OptionArgs, ServerKey, ServerVerb,
    ServiceVerb, SpecArgs, Verb,
};

/// What is there now.
pub(super) trait Present {
    fn service(&mut self, key: ServiceKey) -> Result<Service>;
    fn settings(&mut self) -> Result<Settings>;
}

impl Present for Client {
    fn service(&mut self, key: ServiceKey) -> Result<Service> {
        match self.ask(&Request::Services { only: Some(key) })? {
            Reply::Services(mut list) if list.len() == 1 => Ok(list.remove(0)),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }

    fn settings(&mut self) -> Result<Settings> {
        match self.ask(&Request::Settings)? {
            Reply::Settings(settings) => Ok(settings),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }
}

/// What to ask for a verb.
pub(super) fn request(verb: &Verb, present: &mut impl Present) -> Result<Request> {
    let change = match verb {
        Verb::Service(verb) => return service(verb, present),
        Verb::Server(verb) => return server(verb, present),
        Verb::LocalAddress(LocalAddressVerb::List(only)) => {
            return Ok(Request::Services { only: only.key() });
        }
        Verb::LocalAddress(LocalAddressVerb::Add { service, local }) => Change::AddLocalAddress {
            service: service.key(),
            address: *local,
        },
        Verb::LocalAddress(LocalAddressVerb::Delete { service, local }) => {
            Change::DeleteLocalAddress {
                service: service.key(),
                address: *local,
            }
        }
        Verb::Connection(ConnectionVerb::List) => {
            let cursor = Cursor::default();
            return Ok(Request::Connections { cursor });
        }
        Verb::Stats => return Ok(Request::Services { only: None }),
        Verb::Status | Verb::Version => return Ok(Request::Status),
        Verb::Neighbour(NeighbourVerb::List) => return Ok(Request::Neighbours),
        Verb::Mark(verb) => return Ok(super::mark::request(verb)),
        Verb::Timeouts {
            tcp: None,
            tcp_fin: None,
            udp: None,
        } => return Ok(Request::Timeouts),
        Verb::Timeouts { tcp, tcp_fin, udp } => Change::SetTimeouts {
            tcp: *tcp,
            tcp_fin: *tcp_fin,
            udp: *udp,
        },
        Verb::Settings {
            schedule_icmp: None,
            pmtu_disc: None,
        } => return Ok(Request::Settings),
        Verb::Settings {
            schedule_icmp,
            pmtu_disc,
        } => {
            let now = present.settings()?;
            Change::SetSettings(Settings {
                schedule_icmp: schedule_icmp.unwrap_or(now.schedule_icmp),
                pmtu_disc: pmtu_disc.unwrap_or(now.pmtu_disc),
                ..now
            })
        }
        Verb::Zero(only) => Change::Zero { only: only.key() },
    };
    Ok(Request::Change(vec![change]))
}

fn service(verb: &ServiceVerb, present: &mut impl Present) -> Result<Request> {
    let mut changes = Vec::new();
    match verb {
        ServiceVerb::List => return Ok(Request::Services { only: None }),
        ServiceVerb::Add {
            service,
            scheduler,
            scheduler_flags,
            options,
        } => {
            let service = service.key();
            let flags = match scheduler_flags {
                Some(names) => flags(scheduler, names)?,
                None => SchedulerFlags::usual(scheduler),
            };
            let spec = ServiceSpec {
                flags,
                ..ServiceSpec::new(scheduler.clone())
            };
            changes.push(Change::AddService { service, spec });
            if let Some(options) = options.over(ServiceOptions::default()) {
                changes.push(Change::SetOptions { service, options });
            }
        }
        ServiceVerb::Edit {
            service,
            scheduler,
            scheduler_flags,
            options,
        } => {
            let service = service.key();
            if scheduler.is_some() || scheduler_flags.is_some() {
                let now = present.service(service)?.spec;
                let spec = rescheduled(now, scheduler.as_deref(), scheduler_flags.as_deref())?;
                changes.push(Change::EditService { service, spec });
            }
            if options.any()
                && let Some(options) = options.over(present.service(service)?.options)
            {
                changes.push(Change::SetOptions { service, options });
            }
        }
        ServiceVerb::Delete(service) => {
            let service = service.key();
            changes.push(Change::DeleteService { service });
        }
    }
    Ok(Request::Change(changes))
}

/// `spec` with what is named. Another scheduler begins with its usual flags.
fn rescheduled(
    spec: ServiceSpec,
    scheduler: Option<&str>,
    names: Option<&[String]>,
) -> Result<ServiceSpec> {
    let scheduler = scheduler.unwrap_or(&spec.scheduler);
    let flags = match names {
        Some(names) => flags(scheduler, names)?,
        None if scheduler == spec.scheduler => spec.flags,
        None => SchedulerFlags::usual(scheduler),
    };
    Ok(ServiceSpec {
        scheduler: scheduler.to_owned(),
        flags,
        ..spec
    })
}

fn flags(scheduler: &str, names: &[String]) -> Result<SchedulerFlags> {
    let mut flags = SchedulerFlags::default();
    for name in names.iter().filter(|name| *name != "none") {
        match flags.set(scheduler, name) {
            Ok(()) => {}
            Err(NoFlag::Unknown) => {
                bail!("no scheduler flag {name:?}, sh-fallback or mh-port,mh-fallback is right")
            }
            Err(NoFlag::Incompatible) => {
                bail!("scheduler flag {name} does not go with scheduler {scheduler}")
            }
        }
    }
    Ok(flags)
}

impl OptionArgs {
    fn any(&self) -> bool {
        self.client_address.is_some() || self.mss.is_some() || self.mh_table_size.is_some()
    }

    /// `options` with what is named, if anything is.
    fn over(&self, options: ServiceOptions) -> Option<ServiceOptions> {
        self.any().then_some(ServiceOptions {
            client_address: self.client_address.unwrap_or(options.client_address),
            mss: self.mss.map_or(options.mss, |Mss(mss)| mss),
            mh_table_size: self.mh_table_size.or(options.mh_table_size),
            ..options
        })
    }
}

fn server(verb: &ServerVerb, present: &mut impl Present) -> Result<Request> {
    let change = match verb {
        ServerVerb::List(service) => {
            let only = Some(service.key());
            return Ok(Request::Services { only });
        }
        ServerVerb::Add { server, spec } => Change::AddServer {
            service: server.service.key(),
            server: server.server,
            spec: spec.over(ServerSpec {
                mode: ForwardMode::Nat,
                weight: 1,
                tunnel: Tunnel::default(),
                thresholds: Thresholds::default(),
            })?,
        },
        ServerVerb::Edit { server, spec } => Change::EditServer {
            service: server.service.key(),
            server: server.server,
            spec: spec.over(present_server(server, present)?.spec)?,
        },
        ServerVerb::Delete(server) => Change::DeleteServer {
            service: server.service.key(),
            server: server.server,
        },
        ServerVerb::Drain(drain) => drain.change(),
    };
    Ok(Request::Change(vec![change]))
}

fn present_server(key: &ServerKey, present: &mut impl Present) -> Result<Server> {
    let service = key.service.key();
    let mut servers = present.service(service)?.servers.into_iter();
    match servers.find(|server| server.address == key.server) {
        Some(server) => Ok(server),
        None => {
            let detail = format!("service {service} has no server {}", key.server);
            bail!(Refusal {
                errno: Errno::Enoent,
                step: None,
                detail,
            })
        }
    }
}

impl SpecArgs {
    /// `spec` with what is named. Another method or kind of tunnel begins with its defaults.
    fn over(&self, spec: ServerSpec) -> Result<ServerSpec> {
        let mode = self.method.unwrap_or(spec.mode);
        let kind = self.tunnel.unwrap_or(spec.tunnel.kind);
        let tunnel_named =
            self.tunnel.is_some() || self.tunnel_port.is_some() || self.tunnel_checksum.is_some();
        if mode != ForwardMode::Tunnel && tunnel_named {
            bail!(
                "--tunnel, --tunnel-port and --tunnel-checksum go with --method tunnel, not {}",
                mode.word()
            );
        }
        if mode == ForwardMode::Tunnel && kind != TunnelKind::Gue && self.tunnel_port.is_some() {
            bail!("--tunnel-port goes with --tunnel gue, not {}", kind.word());
        }
        let same = mode == spec.mode && kind == spec.tunnel.kind;
        let before = if same { spec.tunnel } else { Tunnel::default() };
        Ok(ServerSpec {
            mode,
            weight: self.weight.unwrap_or(spec.weight),
            tunnel: Tunnel {
                kind: if mode == ForwardMode::Tunnel {
                    kind
                } else {
                    TunnelKind::default()
                },
                port: self.tunnel_port.unwrap_or(before.port),
                checksum: self.tunnel_checksum.unwrap_or(before.checksum),
            },
            thresholds: Thresholds {
                upper: self.upper_threshold.unwrap_or(spec.thresholds.upper),
                lower: self.lower_threshold.unwrap_or(spec.thresholds.lower),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::Parser;
    use control::{ClientAddress, Protocol, Rates, Totals, TunnelChecksum};

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
                weight_now: None,
                draining: None,
            };
            Ok(Service {
                key,
                spec: scheduler("rr"),
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
        let words = ["directorctl"].into_iter().chain(line.split(' '));
        let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        request(&cli.verb, &mut Canned).unwrap()
    }

    fn complaint(line: &str) -> String {
        let words = ["directorctl"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words) {
            Ok(cli) => request(&cli.verb, &mut Canned).unwrap_err().to_string(),
            Err(error) => error.to_string(),
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
        let cursor = Cursor::default();
        for (line, request) in [
            ("service list", Request::Services { only: None }),
            ("stats", Request::Services { only: None }),
            ("server list tcp 10.0.0.1:80", Request::Services { only }),
            ("local-address list", Request::Services { only: None }),
            (
                "local-address list tcp 10.0.0.1:80",
                Request::Services { only },
            ),
            ("connection list", Request::Connections { cursor }),
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
                "[possible values: tcp, udp, sctp]",
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
            ("zero tcp", "<ADDRESS>"),
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
}

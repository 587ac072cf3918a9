//! From verbs to requests. A verb that changes part of something asks for the whole first.

use anyhow::{Error, Result, bail};
use control::client::{Client, ClientError};
use control::{
    Change, Errno, ForwardMode, Netmask, NoFlag, Persistence, Refusal, Reply, Request,
    SchedulerFlags, Server, ServerSpec, Service, ServiceKey, ServiceOptions, ServiceSpec, Settings,
    Thresholds, Tunnel, TunnelKind, Word,
};

use super::{
    LocalAddressVerb, OptionArgs, OrNone, PolicyArgs, ServerKey, ServerVerb, ServiceVerb, SpecArgs,
    Verb,
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
            return Ok(Request::Services { only: only.key()? });
        }
        Verb::LocalAddress(LocalAddressVerb::Add { service, local }) => Change::AddLocalAddress {
            service: service.key()?,
            address: *local,
        },
        Verb::LocalAddress(LocalAddressVerb::Delete { service, local }) => {
            Change::DeleteLocalAddress {
                service: service.key()?,
                address: *local,
            }
        }
        Verb::Explain(args) => return super::explain::request(args),
        Verb::Connection(_) => unreachable!("they ask page by page"),
        Verb::Stats(_) => return Ok(Request::Services { only: None }),
        Verb::Health => return Ok(Request::Health),
        Verb::Status | Verb::Version => return Ok(Request::Status),
        Verb::Port(verb) => return Ok(verb.request()),
        Verb::Apply(args) => return args.request(),
        Verb::Confirm => return Ok(Request::Confirm),
        Verb::Rollback => return Ok(Request::Rollback),
        Verb::Save(_) => return Ok(Request::Save),
        Verb::Plan(_) | Verb::Node(_) => unreachable!("its exit code says something too"),
        Verb::Check(_)
        | Verb::Completions(_)
        | Verb::Man(_)
        | Verb::Schema(_)
        | Verb::Import(_)
        | Verb::Doctor(_) => unreachable!("they ask nothing"),
        Verb::Drops(_) | Verb::Capture(_) | Verb::Metrics | Verb::Top(_) => {
            unreachable!("they ask by themselves")
        }
        Verb::Address(verb) => return Ok(verb.request()),
        Verb::Route(verb) => return verb.request(),
        Verb::Neighbour(verb) => return Ok(verb.request()),
        Verb::Mark(verb) => return Ok(super::mark::request(verb)),
        Verb::Sync(verb) => return Ok(super::sync::request(verb)),
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
        Verb::Settings(named) if !named.any() => return Ok(Request::Settings),
        Verb::Settings(named) => {
            let settings = named.over(present.settings()?).map_err(Error::msg)?;
            Change::SetSettings(settings)
        }
        Verb::Zero(only) => Change::Zero { only: only.key()? },
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
            policy,
            options,
        } => {
            let service = service.key()?;
            let flags = match scheduler_flags {
                Some(names) => flags(scheduler, names)?,
                None => SchedulerFlags::usual(scheduler),
            };
            let spec = ServiceSpec {
                flags,
                ..ServiceSpec::new(scheduler.clone())
            };
            let spec = policy.over(&service, spec)?;
            changes.push(Change::AddService { service, spec });
            if let Some(options) = options.over(ServiceOptions::default()) {
                changes.push(Change::SetOptions { service, options });
            }
        }
        ServiceVerb::Edit {
            service,
            scheduler,
            scheduler_flags,
            policy,
            options,
        } => {
            let service = service.key()?;
            if scheduler.is_some() || scheduler_flags.is_some() || policy.any() {
                let now = present.service(service)?.spec;
                let spec = rescheduled(now, scheduler.as_deref(), scheduler_flags.as_deref())?;
                let spec = policy.over(&service, spec)?;
                changes.push(Change::EditService { service, spec });
            }
            if options.any()
                && let Some(options) = options.over(present.service(service)?.options)
            {
                changes.push(Change::SetOptions { service, options });
            }
        }
        ServiceVerb::Delete(service) => {
            let service = service.key()?;
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

impl PolicyArgs {
    fn any(&self) -> bool {
        self.persistent.is_some()
            || self.netmask.is_some()
            || self.engine.is_some()
            || self.one_packet.is_some()
    }

    /// `spec` with what is named.
    fn over(&self, service: &ServiceKey, spec: ServiceSpec) -> Result<ServiceSpec> {
        let spec = ServiceSpec {
            persistence: self.persistence(service, spec.persistence)?,
            engine: self.engine.map_or(spec.engine, |OrNone(engine)| engine),
            one_packet: self.one_packet.unwrap_or(spec.one_packet),
            ..spec
        };
        match spec.pointless(service).filter(|_| self.any()) {
            Some(why) => bail!(why),
            None => Ok(spec),
        }
    }

    /// Without a mask of its own it keeps the one there is.
    fn persistence(
        &self,
        service: &ServiceKey,
        now: Option<Persistence>,
    ) -> Result<Option<Persistence>> {
        let ipv6 = service.is_ipv6();
        let timeout_s = match self.persistent {
            Some(OrNone(timeout_s)) => timeout_s,
            None => now.map(|now| now.timeout_s),
        };
        let Some(timeout_s) = timeout_s else {
            if self.netmask.is_some() {
                bail!("--netmask goes with --persistent");
            }
            return Ok(None);
        };
        let netmask = match &self.netmask {
            Some(text) => Netmask::read(text, ipv6).map_err(Error::msg)?,
            None => now.map_or(Netmask::whole(ipv6), |now| now.netmask),
        };
        Ok(Some(Persistence { timeout_s, netmask }))
    }
}

impl OptionArgs {
    fn any(&self) -> bool {
        self.over(ServiceOptions::default()).is_some()
    }

    /// `options` with what is named, if anything is.
    fn over(&self, options: ServiceOptions) -> Option<ServiceOptions> {
        let Self {
            client_address,
            mss,
            mh_table_size,
            timeout_tcp,
            timeout_tcp_fin,
            timeout_udp,
            refuse,
            on_server_gone,
            reset_on_expiry,
            slow_start,
            hash_target,
        } = self;
        let mut options = options;
        let mut any = false;
        any |= set(&mut options.client_address, *client_address);
        any |= set(&mut options.mss, mss.map(|OrNone(mss)| mss));
        any |= set(&mut options.mh_table_size, mh_table_size.map(Some));
        let timeouts = &mut options.timeouts;
        any |= set(&mut timeouts.tcp, timeout_tcp.map(|OrNone(tcp)| tcp));
        any |= set(
            &mut timeouts.tcp_fin,
            timeout_tcp_fin.map(|OrNone(fin)| fin),
        );
        any |= set(&mut timeouts.udp, timeout_udp.map(|OrNone(udp)| udp));
        any |= set(&mut options.refuse, *refuse);
        any |= set(&mut options.on_server_gone, *on_server_gone);
        any |= set(&mut options.reset_on_expiry, *reset_on_expiry);
        any |= set(&mut options.slow_start_s, *slow_start);
        any |= set(&mut options.hash_target, *hash_target);
        any.then_some(options)
    }
}

/// Whether there is something to set.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

fn server(verb: &ServerVerb, present: &mut impl Present) -> Result<Request> {
    let change = match verb {
        ServerVerb::List(service) => {
            let only = Some(service.key()?);
            return Ok(Request::Services { only });
        }
        ServerVerb::Add { server, spec } => Change::AddServer {
            service: server.service.key()?,
            server: server.server,
            spec: spec.over(ServerSpec {
                mode: ForwardMode::Nat,
                weight: 1,
                tunnel: Tunnel::default(),
                thresholds: Thresholds::default(),
            })?,
        },
        ServerVerb::Edit { server, spec } => Change::EditServer {
            service: server.service.key()?,
            server: server.server,
            spec: spec.over(present_server(server, present)?.spec)?,
        },
        ServerVerb::Delete(server) => Change::DeleteServer {
            service: server.service.key()?,
            server: server.server,
        },
        ServerVerb::Drain(drain) => drain.change()?,
    };
    Ok(Request::Change(vec![change]))
}

fn present_server(key: &ServerKey, present: &mut impl Present) -> Result<Server> {
    let service = key.service.key()?;
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
    use control::{
        ClientAddress, Engine, HashTarget, OnServerGone, Protocol, Rates, Refuse, ServiceTimeouts,
        Totals, TunnelChecksum,
    };

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
}

//! What the options of a line must be together.

use super::words::{Command, OPTS, Opt};
use super::{Forward, Parsed, SCHEDULER_DEFAULT, Service};
use crate::ipvsadm::Failure;
use crate::ipvsadm::names::Transport;
use crate::{Engine, NoFlag, SchedulerFlags, TunnelKind, Word};

/// Which options the command needs, allows and excludes.
pub(super) fn check_rules(parsed: &Parsed) -> Result<(), Failure> {
    let rules = parsed.command.rules();
    let command = parsed.command.name();
    let mut chosen: Option<&str> = None;
    for (opt, name) in OPTS {
        if !parsed.has(*opt) {
            if rules.needs.contains(opt) {
                return Err(Failure::invalid(format!(
                    "You need to supply the '{name}' option for the '{command}' command"
                )));
            }
        } else if rules.one_of.contains(opt) {
            if let Some(first) = chosen.replace(name) {
                return Err(Failure::invalid(format!(
                    "The option '{name}' conflicts with the '{first}' option in the '{command}' command"
                )));
            }
        } else if !rules.needs.contains(opt) && !rules.may.contains(opt) {
            return Err(Failure::invalid(format!(
                "Illegal '{name}' option with the '{command}' command"
            )));
        }
    }
    Ok(())
}

/// What only the whole line tells.
pub(super) fn check_command(parsed: &mut Parsed, flags: &str, engine: &str) -> Result<(), Failure> {
    match parsed.command {
        Command::AddService | Command::EditService => {
            check_service(parsed)?;
            if parsed.scheduler.is_empty() {
                parsed.scheduler = SCHEDULER_DEFAULT.into();
            }
            parsed.scheduler_flags = scheduler_flags(&parsed.scheduler, flags)?;
            check_hash_target(parsed)?;
            if parsed.has(Opt::Engine) {
                parsed.engine = Some(persistence_engine(engine)?);
            }
        }
        Command::AddServer | Command::EditServer => check_server(parsed)?,
        Command::List => check_list(parsed)?,
        _ => {}
    }
    Ok(())
}

fn check_service(parsed: &Parsed) -> Result<(), Failure> {
    let Some(Service::Address { transport, address }) = parsed.service else {
        return Ok(());
    };
    if address.port() == 0 && parsed.persistent.is_none() {
        return Err(Failure::invalid(
            "Zero port specified for non-persistent service",
        ));
    }
    if parsed.has(Opt::OnePacket) && transport != Transport::Udp {
        return Err(Failure::invalid(
            "One-Packet Scheduling is only for UDP virtual services",
        ));
    }
    Ok(())
}

/// One scheduler hashes by choice.
fn check_hash_target(parsed: &Parsed) -> Result<(), Failure> {
    let (name, scheduler) = (Opt::HashTarget.name(), &parsed.scheduler);
    if parsed.has(Opt::HashTarget) && scheduler != "conhash" {
        return Err(Failure::invalid(format!(
            "Illegal '{name}' option with the '{scheduler}' scheduler"
        )));
    }
    Ok(())
}

fn check_server(parsed: &mut Parsed) -> Result<(), Failure> {
    let (Some(service), Some(server)) = (parsed.service, &mut parsed.server) else {
        return Ok(());
    };
    // Direct routing and tunnels leave the port alone.
    let keeps_port = matches!(parsed.forward, Forward::Direct | Forward::Tunnel);
    if keeps_port && matches!(service, Service::Address { .. }) {
        server.set_port(service.port());
    }
    if parsed.forward != Forward::Tunnel {
        if server.is_ipv6() != service.is_ipv6() && parsed.forward != Forward::FullNat {
            return Err(Failure::invalid(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        let tunnel = [
            Opt::TunType,
            Opt::TunPort,
            Opt::TunNoCsum,
            Opt::TunCsum,
            Opt::TunRemCsum,
        ];
        if tunnel.iter().any(|opt| parsed.has(*opt)) {
            return Err(Failure::invalid(
                "Tunnel options conflict with forward method",
            ));
        }
    }
    check_tunnel(parsed)
}

/// Which tunnel options go with which tunnel.
fn check_tunnel(parsed: &Parsed) -> Result<(), Failure> {
    use Opt::{TunCsum, TunNoCsum, TunPort, TunRemCsum};
    let one_of: &[Opt] = match parsed.encapsulation {
        TunnelKind::Ipip => &[],
        TunnelKind::Gue => &[TunNoCsum, TunCsum, TunRemCsum],
        TunnelKind::Gre => &[TunNoCsum, TunCsum],
    };
    let kind = parsed.encapsulation.word();
    let gue = parsed.encapsulation == TunnelKind::Gue;
    let mut chosen: Option<&str> = None;
    for opt in [TunPort, TunNoCsum, TunCsum, TunRemCsum] {
        let name = opt.name();
        if !parsed.has(opt) {
            if opt == TunPort && gue {
                return Err(Failure::invalid(format!(
                    "You need to supply the '{name}' option for the '{kind}' tunnel type"
                )));
            }
        } else if one_of.contains(&opt) {
            if let Some(first) = chosen.replace(name) {
                return Err(Failure::invalid(format!(
                    "The option '{name}' conflicts with the '{first}' option in the '{kind}' tunnel type"
                )));
            }
        } else if !(opt == TunPort && gue) {
            return Err(Failure::invalid(format!(
                "Illegal '{name}' option with the '{kind}' tunnel type"
            )));
        }
    }
    Ok(())
}

fn check_list(parsed: &Parsed) -> Result<(), Failure> {
    let any = |opts: &[Opt]| opts.iter().any(|opt| parsed.has(*opt));
    let counters = any(&[Opt::Stats, Opt::Rate, Opt::Thresholds]);
    let no_services = any(&[Opt::Connection, Opt::Timeout, Opt::Daemon]);
    let no_entries = any(&[Opt::Timeout, Opt::Daemon]);
    if no_services && counters || no_entries && parsed.has(Opt::PersistentConn) {
        return Err(Failure::invalid("options conflicts in the list command"));
    }
    Ok(())
}

/// A comma list of flags; those with a scheduler's name go with that scheduler only.
fn scheduler_flags(scheduler: &str, text: &str) -> Result<SchedulerFlags, Failure> {
    let mut flags = SchedulerFlags::default();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        flags.set(scheduler, name).map_err(|why| {
            let what = match why {
                NoFlag::Unknown => "invalid",
                NoFlag::Incompatible => "incompatible",
            };
            Failure::invalid(format!("{what} scheduler flag `{name}'"))
        })?;
    }
    Ok(flags)
}

/// Upstream leaves this to the kernel; its words and its exit status are the kernel's.
fn persistence_engine(name: &str) -> Result<Engine, Failure> {
    let known = Engine::ALL.iter().copied();
    let found = known.clone().find(|engine| engine.word() == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = known.map(Engine::word).collect();
        Failure {
            detail: Some(format!(
                "no persistence engine {name:?}, known is {}",
                known.join(", ")
            )),
            ..Failure::refused("Scheduler or persistence engine not found")
        }
    })
}

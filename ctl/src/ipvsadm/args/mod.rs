//! ipvsadm's command line: words in, [`Parsed`] out, with its validation and its messages.
//!
//! The whole grammar is here, whatever the director can do; [`super::lower`] decides that.

mod check; // what the options of a line must be together
mod words; // commands, options, and which go together

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use super::Failure;
use super::address::{host_port, number, v4_host};
use super::names::{Names, Transport};
use super::options;
use super::popt::Words;
use crate::{
    Engine, HashTarget, Netmask, SchedulerFlags, ServiceOptions, SyncRole, TunnelKind, Word,
};
use check::{check_command, check_rules};
pub use words::{Command, Opt};
use words::{Meaning, SWITCHES};

/// 31 days, the longest timeout in seconds.
const TIMEOUT_MAX: u32 = 31 * 24 * 3600;
const PERSISTENT_DEFAULT: u32 = 360;
const SCHEDULER_DEFAULT: &str = "wlc";
const SCHEDULER_NAME_MAX: usize = 15;
const INTERFACE_NAME_MAX: usize = 15;
const INT_MAX: u32 = i32::MAX as u32;

/// What names a service on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Address {
        transport: Transport,
        address: SocketAddr,
    },
    Mark {
        mark: NonZeroU32,
        ipv6: bool,
    },
}

impl Service {
    pub(super) fn is_ipv6(self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => ipv6,
        }
    }

    fn transport(self) -> Option<Transport> {
        match self {
            Self::Address { transport, .. } => Some(transport),
            Self::Mark { .. } => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port(),
            Self::Mark { .. } => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    Direct,
    Tunnel,
    Nat,
    /// No part of upstream's grammar.
    FullNat,
}

/// A command line that ipvsadm would send to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub command: Command,
    given: u64,
    pub service: Option<Service>,
    pub scheduler: String,
    /// Seconds.
    pub persistent: Option<u32>,
    pub netmask: Option<Netmask>,
    pub engine: Option<Engine>,
    pub scheduler_flags: SchedulerFlags,
    /// No part of upstream's grammar.
    pub hash_target: Option<HashTarget>,
    /// No part of upstream's grammar.
    pub options: Option<ServiceOptions>,
    pub server: Option<SocketAddr>,
    pub forward: Forward,
    pub weight: u32,
    pub upper: u32,
    pub lower: u32,
    pub encapsulation: TunnelKind,
    pub tunnel_port: u16,
    pub local: Option<IpAddr>,
    /// `--set`: TCP, TCP-FIN, UDP in seconds; 0 leaves a value.
    pub timeouts: [u32; 3],
    pub role: Option<SyncRole>,
    pub interface: String,
    pub sync_id: u32,
    pub sync_max_len: Option<u32>,
    pub group: Option<IpAddr>,
    pub group_port: Option<u32>,
    pub ttl: Option<u32>,
}

impl Parsed {
    fn new(command: Command) -> Self {
        Self {
            command,
            given: 0,
            service: None,
            scheduler: String::new(),
            persistent: None,
            netmask: None,
            engine: None,
            scheduler_flags: SchedulerFlags::default(),
            hash_target: None,
            options: None,
            server: None,
            forward: Forward::Direct,
            weight: 1,
            upper: 0,
            lower: 0,
            encapsulation: TunnelKind::Ipip,
            tunnel_port: 0,
            local: None,
            timeouts: [0; 3],
            role: None,
            interface: "eth0".into(),
            sync_id: 0,
            sync_max_len: None,
            group: None,
            group_port: None,
            ttl: None,
        }
    }

    /// Whether an option was on the line.
    pub fn has(&self, opt: Opt) -> bool {
        self.given & 1 << opt as u32 != 0
    }

    fn set(&mut self, opt: Opt) -> Result<(), Failure> {
        if self.has(opt) {
            return Err(Failure::invalid(format!(
                "multiple '{}' options specified",
                opt.name()
            )));
        }
        self.given |= 1 << opt as u32;
        Ok(())
    }
}

/// Reads a command line without the program's name.
pub fn parse(words: &[String], names: &dyn Names) -> Result<Parsed, Failure> {
    if words.is_empty() {
        return Ok(Parsed::new(Command::List));
    }
    let mut line = Words::new(SWITCHES, words);
    let Ok(Some((Meaning::Command(command), value))) = line.option() else {
        return Err(Failure::try_help());
    };
    let mut parsed = Parsed::new(command);
    // Upstream answers these two without looking further.
    if matches!(command, Command::Help | Command::Version) {
        return Ok(parsed);
    }
    parsed.role = role(command, value)?;
    let (mut flags, mut engine) = ("", "");
    loop {
        match line.option() {
            Ok(None) => break,
            Ok(Some((Meaning::Command(_), _))) => {
                return Err(Failure::invalid(format!("invalid option `{}'", line.word)));
            }
            Ok(Some((Meaning::Other(Opt::SchedFlags), value))) => {
                parsed.set(Opt::SchedFlags)?;
                flags = value.unwrap_or_default();
            }
            Ok(Some((Meaning::Other(Opt::Engine), value))) => {
                parsed.set(Opt::Engine)?;
                engine = value.unwrap_or_default();
            }
            Ok(Some((meaning, value))) => {
                option(&mut parsed, meaning, value, names)?;
            }
            Err(bad) => return Err(Failure::refused(format!("{}: {bad}", line.word))),
        }
    }
    left_over(&mut parsed, &line.left_over)?;
    check_rules(&parsed)?;
    check_command(&mut parsed, flags, engine)?;
    Ok(parsed)
}

fn role(command: Command, value: Option<&str>) -> Result<Option<SyncRole>, Failure> {
    match (command, value) {
        (Command::StartDaemon | Command::StopDaemon, Some("master")) => Ok(Some(SyncRole::Master)),
        (Command::StartDaemon | Command::StopDaemon, Some("backup")) => Ok(Some(SyncRole::Backup)),
        (Command::StartDaemon, _) => {
            Err(Failure::invalid("illegal start-daemon parameter specified"))
        }
        (Command::StopDaemon, _) => Err(Failure::invalid("illegal start_daemon specified")),
        _ => Ok(None),
    }
}

/// Takes in one option that is not a command.
fn option(
    parsed: &mut Parsed,
    meaning: Meaning,
    value: Option<&str>,
    names: &dyn Names,
) -> Result<(), Failure> {
    match meaning {
        Meaning::Service(transport) => {
            parsed.set(Opt::Service)?;
            let service = host_port(value.unwrap_or_default(), Some(transport), names);
            let (ip, port) = service.ok_or_else(|| {
                Failure::invalid("illegal virtual server address[:port] specified")
            })?;
            if ip.is_ipv6() {
                parsed.netmask = None;
            }
            let address = SocketAddr::new(ip, port.unwrap_or(0));
            parsed.service = Some(Service::Address { transport, address });
        }
        Meaning::Mark => {
            parsed.set(Opt::Service)?;
            let text = value.unwrap_or_default();
            let mark = number(text, 0..=u32::MAX).and_then(NonZeroU32::new);
            let mark = mark.ok_or_else(|| {
                Failure::invalid(format!("invalid fwmark value `{text}' specified"))
            })?;
            parsed.service = Some(Service::Mark { mark, ipv6: false });
        }
        Meaning::Ipv6 => match &mut parsed.service {
            Some(Service::Mark { ipv6, .. }) => {
                *ipv6 = true;
                parsed.netmask = None;
            }
            // The empty line is upstream's.
            _ => return Err(Failure::invalid("-6 used before -f\n")),
        },
        Meaning::Forward(forward) => {
            parsed.set(Opt::Forward)?;
            parsed.forward = forward;
        }
        Meaning::Other(opt) => {
            parsed.set(opt)?;
            with_value(parsed, opt, value, names)?;
        }
        Meaning::Sort | Meaning::Command(_) => {}
    }
    Ok(())
}

/// Takes in an option's value; an option that has none is done with being noted.
fn with_value(
    parsed: &mut Parsed,
    opt: Opt,
    value: Option<&str>,
    names: &dyn Names,
) -> Result<(), Failure> {
    let text = value.unwrap_or_default();
    let int = |range, what: &str| {
        number(text, range).ok_or_else(|| Failure::invalid(format!("illegal {what} specified")))
    };
    match opt {
        Opt::Scheduler => parsed.scheduler = text.chars().take(SCHEDULER_NAME_MAX).collect(),
        Opt::Persistent => {
            parsed.persistent = Some(match value {
                Some(text) => timeout(text, 1)?,
                None => PERSISTENT_DEFAULT,
            });
        }
        Opt::Netmask => parsed.netmask = Some(netmask(parsed, text, names)?),
        Opt::Server => parsed.server = Some(server(parsed, text, names)?),
        Opt::Weight => parsed.weight = int(0..=INT_MAX, "weight")?,
        Opt::Upper => parsed.upper = int(0..=INT_MAX, "u_threshold")?,
        Opt::Lower => parsed.lower = int(0..=INT_MAX, "l_threshold")?,
        Opt::TunType => {
            let mut kinds = TunnelKind::ALL.iter();
            let kind = kinds.find(|kind| kind.word() == text);
            parsed.encapsulation =
                *kind.ok_or_else(|| Failure::invalid("illegal tunnel type specified"))?;
        }
        Opt::TunPort => {
            let port = int(1..=u32::from(u16::MAX), "tunnel port")?;
            parsed.tunnel_port = u16::try_from(port).unwrap_or(u16::MAX);
        }
        Opt::HashTarget => {
            let mut targets = HashTarget::ALL.iter();
            let target = targets.find(|target| target.word() == text).copied();
            let illegal = || Failure::invalid("illegal hash target specified");
            parsed.hash_target = Some(target.ok_or_else(illegal)?);
        }
        Opt::Options => {
            let options = options::read(text).map_err(|why| Failure {
                detail: Some(why),
                ..Failure::invalid("illegal options specified")
            });
            parsed.options = Some(options?);
        }
        Opt::LocalAddress => {
            let local = text.parse().ok();
            let local = local.or_else(|| v4_host(text, names).map(IpAddr::V4));
            parsed.local =
                Some(local.ok_or_else(|| Failure::invalid("illegal local address specified"))?);
        }
        Opt::McastInterface => {
            parsed.interface = text.chars().take(INTERFACE_NAME_MAX).collect();
        }
        Opt::SyncId => parsed.sync_id = int(0..=255, "syncid")?,
        Opt::SyncMaxLen => parsed.sync_max_len = Some(int(1..=65507, "sync-maxlen")?),
        Opt::McastGroup => parsed.group = Some(group(text)?),
        Opt::McastPort => parsed.group_port = Some(int(1..=65535, "mcast-port")?),
        Opt::McastTtl => parsed.ttl = Some(int(1..=255, "mcast-ttl")?),
        _ => {}
    }
    Ok(())
}

fn timeout(text: &str, least: u32) -> Result<u32, Failure> {
    number(text, least..=TIMEOUT_MAX)
        .ok_or_else(|| Failure::invalid(format!("invalid timeout value `{text}' specified")))
}

fn netmask(parsed: &Parsed, text: &str, names: &dyn Names) -> Result<Netmask, Failure> {
    if parsed.service.is_some_and(Service::is_ipv6) {
        return number(text, 1..=128)
            .and_then(|prefix| u8::try_from(prefix).ok())
            .map(Netmask::V6)
            .ok_or_else(|| Failure::invalid("illegal ipv6 netmask specified"));
    }
    v4_host(text, names)
        .map(Netmask::V4)
        .ok_or_else(|| Failure::invalid("illegal virtual server persistent mask specified"))
}

/// A server's port is the service's, as known so far, unless one is written.
fn server(parsed: &Parsed, text: &str, names: &dyn Names) -> Result<SocketAddr, Failure> {
    let transport = parsed.service.and_then(Service::transport);
    let (ip, port) = host_port(text, transport, names)
        .ok_or_else(|| Failure::invalid("illegal real server address[:port] specified"))?;
    Ok(SocketAddr::new(
        ip,
        port.unwrap_or_else(|| parsed.service.map_or(0, Service::port)),
    ))
}

fn group(text: &str) -> Result<IpAddr, Failure> {
    let family = if text.contains(':') { "IPv6" } else { "IPv4" };
    text.parse::<IpAddr>()
        .ok()
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| Failure::invalid(format!("invalid {family} mcast-group `{text}'")))
}

/// Words that are no options: `--set` wants three, nothing else any.
fn left_over(parsed: &mut Parsed, words: &[&str]) -> Result<(), Failure> {
    let mut words = words;
    if parsed.command == Command::Set {
        let Some((three, rest)) = words.split_at_checked(3) else {
            return Err(Failure::invalid("--set option requires 3 timeout values"));
        };
        for (value, text) in parsed.timeouts.iter_mut().zip(three) {
            *value = timeout(text, 0)?;
        }
        words = rest;
    }
    match words.first() {
        Some(word) => Err(Failure::invalid(format!("unexpected argument {word}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::SystemNames;
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn bundles_and_values_in_one_word() {
        let apart = parse(&words("-A -t 10.0.0.1:80 -s rr"), &SystemNames);
        assert!(apart.is_ok());
        assert_eq!(parse(&words("-At 10.0.0.1:80 -srr"), &SystemNames), apart);
        let long = words("--add-service --tcp-service=10.0.0.1:80 --scheduler rr");
        assert_eq!(parse(&long, &SystemNames), apart);
    }

    proptest! {
        #[test]
        fn never_panics(
            line in proptest::collection::vec(
                // Words without names: the resolver is not to be asked.
                "-[A-Za-z6]{1,3}|--(set|pe|tun-type|syncid|timeout)(=[0-9]{1,3})?|-?[0-9.:\\[\\]]{0,9}",
                0..8,
            ),
        ) {
            let _ = parse(&line, &SystemNames);
        }
    }
}

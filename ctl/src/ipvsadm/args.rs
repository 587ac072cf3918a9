//! ipvsadm's command line: words in, [`Parsed`] out, with its validation and its messages.
//!
//! The whole grammar is here, whatever the director can do; [`super::lower`] decides that.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Failure;
use super::address::{host_port, number, v4_host};
use super::names::{Names, Transport};
use super::popt::{Switch, Takes, Words};

/// 31 days, the longest timeout in seconds.
const TIMEOUT_MAX: u32 = 31 * 24 * 3600;
const PERSISTENT_DEFAULT: u32 = 360;
const SCHEDULER_DEFAULT: &str = "wlc";
const SCHEDULER_NAME_MAX: usize = 15;
const INTERFACE_NAME_MAX: usize = 15;
const INT_MAX: u32 = i32::MAX as u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    AddService,
    EditService,
    DeleteService,
    Flush,
    Restore,
    Save,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    Set,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

impl Command {
    /// As messages name it.
    fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Help => "help",
            Self::Version => "version",
        }
    }

    fn rules(self) -> Rules {
        use Opt::*;
        const NONE: &[Opt] = &[];
        let rules = |needs, may| Rules {
            needs,
            may,
            one_of: NONE,
        };
        match self {
            Self::AddService | Self::EditService => rules(
                &[Service],
                &[
                    Scheduler, Persistent, Netmask, OnePacket, Engine, SchedFlags,
                ],
            ),
            Self::DeleteService => rules(&[Service], NONE),
            Self::AddServer | Self::EditServer => rules(
                &[Service, Server],
                &[
                    Forward, Weight, Upper, Lower, TunType, TunPort, TunNoCsum, TunCsum, TunRemCsum,
                ],
            ),
            Self::DeleteServer => rules(&[Service, Server], NONE),
            Self::List => Rules {
                needs: NONE,
                may: &[
                    Numeric,
                    Stats,
                    Rate,
                    Thresholds,
                    PersistentConn,
                    NoSort,
                    SyncId,
                    Exact,
                    TunInfo,
                ],
                one_of: &[Connection, Service, Timeout, Daemon],
            },
            Self::Zero => rules(NONE, &[Service]),
            Self::Save => rules(NONE, &[Numeric]),
            Self::StartDaemon => rules(
                NONE,
                &[
                    McastInterface,
                    SyncId,
                    McastGroup,
                    McastPort,
                    McastTtl,
                    SyncMaxLen,
                ],
            ),
            Self::StopDaemon => rules(NONE, &[SyncId]),
            Self::Flush | Self::Restore | Self::Set | Self::Help | Self::Version => {
                rules(NONE, NONE)
            }
        }
    }
}

/// Which options go with a command.
struct Rules {
    needs: &'static [Opt],
    may: &'static [Opt],
    /// At most one of these.
    one_of: &'static [Opt],
}

/// Options that the rules speak of, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    Upper,
    Lower,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxLen,
    TunInfo,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
}

const OPTS: &[(Opt, &str)] = &[
    (Opt::Numeric, "numeric"),
    (Opt::Connection, "connection"),
    (Opt::Service, "service-address"),
    (Opt::Scheduler, "scheduler"),
    (Opt::Persistent, "persistent"),
    (Opt::Netmask, "netmask"),
    (Opt::Server, "real-server"),
    (Opt::Forward, "forwarding-method"),
    (Opt::Weight, "weight"),
    (Opt::Upper, "u-threshold"),
    (Opt::Lower, "l-threshold"),
    (Opt::McastInterface, "mcast-interface"),
    (Opt::Timeout, "timeout"),
    (Opt::Daemon, "daemon"),
    (Opt::Stats, "stats"),
    (Opt::Rate, "rate"),
    (Opt::Thresholds, "thresholds"),
    (Opt::PersistentConn, "persistent-conn"),
    (Opt::NoSort, "nosort"),
    (Opt::SyncId, "syncid"),
    (Opt::Exact, "exact"),
    (Opt::OnePacket, "ops"),
    (Opt::Engine, "pe"),
    (Opt::SchedFlags, "sched-flags"),
    (Opt::McastGroup, "mcast-group"),
    (Opt::McastPort, "mcast-port"),
    (Opt::McastTtl, "mcast-ttl"),
    (Opt::SyncMaxLen, "sync-maxlen"),
    (Opt::TunInfo, "tun-info"),
    (Opt::TunType, "tun-type"),
    (Opt::TunPort, "tun-port"),
    (Opt::TunNoCsum, "tun-nocsum"),
    (Opt::TunCsum, "tun-csum"),
    (Opt::TunRemCsum, "tun-remcsum"),
];

impl Opt {
    /// As messages name it.
    fn name(self) -> &'static str {
        OPTS.iter()
            .find(|(opt, _)| *opt == self)
            .map_or("", |(_, name)| name)
    }
}

/// What a word that begins with `-` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Command(Command),
    Service(Transport),
    Mark,
    Forward(Forward),
    Ipv6,
    /// `--sort`: the default.
    Sort,
    Other(Opt),
}

const fn switch(
    short: Option<char>,
    long: &'static str,
    takes: Takes,
    meaning: Meaning,
) -> Switch<Meaning> {
    Switch {
        short,
        long,
        takes,
        meaning,
    }
}

const SWITCHES: &[Switch<Meaning>] = {
    use Command as C;
    use Meaning::Other;
    use Takes::{Nothing, Perhaps, Value};
    &[
        switch(
            Some('A'),
            "add-service",
            Nothing,
            Meaning::Command(C::AddService),
        ),
        switch(
            Some('E'),
            "edit-service",
            Nothing,
            Meaning::Command(C::EditService),
        ),
        switch(
            Some('D'),
            "delete-service",
            Nothing,
            Meaning::Command(C::DeleteService),
        ),
        switch(Some('C'), "clear", Nothing, Meaning::Command(C::Flush)),
        switch(Some('R'), "restore", Nothing, Meaning::Command(C::Restore)),
        switch(Some('S'), "save", Nothing, Meaning::Command(C::Save)),
        switch(
            Some('a'),
            "add-server",
            Nothing,
            Meaning::Command(C::AddServer),
        ),
        switch(
            Some('e'),
            "edit-server",
            Nothing,
            Meaning::Command(C::EditServer),
        ),
        switch(
            Some('d'),
            "delete-server",
            Nothing,
            Meaning::Command(C::DeleteServer),
        ),
        switch(Some('L'), "list", Nothing, Meaning::Command(C::List)),
        switch(Some('l'), "list", Nothing, Meaning::Command(C::List)),
        switch(Some('Z'), "zero", Nothing, Meaning::Command(C::Zero)),
        switch(None, "set", Nothing, Meaning::Command(C::Set)),
        switch(
            None,
            "start-daemon",
            Value,
            Meaning::Command(C::StartDaemon),
        ),
        switch(None, "stop-daemon", Value, Meaning::Command(C::StopDaemon)),
        switch(Some('h'), "help", Nothing, Meaning::Command(C::Help)),
        switch(Some('v'), "version", Nothing, Meaning::Command(C::Version)),
        switch(
            Some('t'),
            "tcp-service",
            Value,
            Meaning::Service(Transport::Tcp),
        ),
        switch(
            Some('u'),
            "udp-service",
            Value,
            Meaning::Service(Transport::Udp),
        ),
        switch(
            None,
            "sctp-service",
            Value,
            Meaning::Service(Transport::Sctp),
        ),
        switch(Some('f'), "fwmark-service", Value, Meaning::Mark),
        switch(Some('6'), "ipv6", Nothing, Meaning::Ipv6),
        switch(Some('s'), "scheduler", Value, Other(Opt::Scheduler)),
        switch(Some('p'), "persistent", Perhaps, Other(Opt::Persistent)),
        switch(Some('M'), "netmask", Value, Other(Opt::Netmask)),
        switch(Some('o'), "ops", Nothing, Other(Opt::OnePacket)),
        switch(None, "pe", Value, Other(Opt::Engine)),
        switch(Some('b'), "sched-flags", Value, Other(Opt::SchedFlags)),
        switch(Some('r'), "real-server", Value, Other(Opt::Server)),
        switch(
            Some('g'),
            "gatewaying",
            Nothing,
            Meaning::Forward(Forward::Direct),
        ),
        switch(
            Some('i'),
            "ipip",
            Nothing,
            Meaning::Forward(Forward::Tunnel),
        ),
        switch(
            Some('m'),
            "masquerading",
            Nothing,
            Meaning::Forward(Forward::Nat),
        ),
        switch(Some('w'), "weight", Value, Other(Opt::Weight)),
        switch(Some('x'), "u-threshold", Value, Other(Opt::Upper)),
        switch(Some('y'), "l-threshold", Value, Other(Opt::Lower)),
        switch(None, "tun-type", Value, Other(Opt::TunType)),
        switch(None, "tun-port", Value, Other(Opt::TunPort)),
        switch(None, "tun-nocsum", Nothing, Other(Opt::TunNoCsum)),
        switch(None, "tun-csum", Nothing, Other(Opt::TunCsum)),
        switch(None, "tun-remcsum", Nothing, Other(Opt::TunRemCsum)),
        switch(None, "mcast-interface", Value, Other(Opt::McastInterface)),
        switch(None, "syncid", Value, Other(Opt::SyncId)),
        switch(None, "sync-maxlen", Value, Other(Opt::SyncMaxLen)),
        switch(None, "mcast-group", Value, Other(Opt::McastGroup)),
        switch(None, "mcast-port", Value, Other(Opt::McastPort)),
        switch(None, "mcast-ttl", Value, Other(Opt::McastTtl)),
        switch(Some('c'), "connection", Nothing, Other(Opt::Connection)),
        switch(Some('n'), "numeric", Nothing, Other(Opt::Numeric)),
        switch(None, "timeout", Nothing, Other(Opt::Timeout)),
        switch(None, "daemon", Nothing, Other(Opt::Daemon)),
        switch(None, "stats", Nothing, Other(Opt::Stats)),
        switch(None, "rate", Nothing, Other(Opt::Rate)),
        switch(None, "thresholds", Nothing, Other(Opt::Thresholds)),
        switch(None, "persistent-conn", Nothing, Other(Opt::PersistentConn)),
        switch(None, "tun-info", Nothing, Other(Opt::TunInfo)),
        switch(Some('X'), "exact", Nothing, Other(Opt::Exact)),
        switch(None, "sort", Nothing, Meaning::Sort),
        switch(None, "nosort", Nothing, Other(Opt::NoSort)),
    ]
};

/// What names a service on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Address {
        transport: Transport,
        address: SocketAddr,
    },
    Mark {
        mark: u32,
        ipv6: bool,
    },
}

impl Service {
    fn is_ipv6(self) -> bool {
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

/// Clients that share this much of their address stay together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Netmask {
    V4(Ipv4Addr),
    /// Prefix length.
    V6(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    Direct,
    Tunnel,
    Nat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    Ipip,
    Gue,
    Gre,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Master,
    Backup,
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
    pub engine: Option<String>,
    /// Bit 0 is `flag-1`.
    pub scheduler_flags: u8,
    pub server: Option<SocketAddr>,
    pub forward: Forward,
    pub weight: u32,
    pub upper: u32,
    pub lower: u32,
    pub encapsulation: Encapsulation,
    pub tunnel_port: u16,
    /// `--set`: TCP, TCP-FIN, UDP in seconds; 0 leaves a value.
    pub timeouts: [u32; 3],
    pub role: Option<Role>,
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
            scheduler_flags: 0,
            server: None,
            forward: Forward::Direct,
            weight: 1,
            upper: 0,
            lower: 0,
            encapsulation: Encapsulation::Ipip,
            tunnel_port: 0,
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
    let mut flags = "";
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
            Ok(Some((meaning, value))) => {
                option(&mut parsed, meaning, value, names)?;
            }
            Err(bad) => return Err(Failure::refused(format!("{}: {bad}", line.word))),
        }
    }
    left_over(&mut parsed, &line.left_over)?;
    check_rules(&parsed)?;
    check_command(&mut parsed, flags)?;
    Ok(parsed)
}

fn role(command: Command, value: Option<&str>) -> Result<Option<Role>, Failure> {
    match (command, value) {
        (Command::StartDaemon | Command::StopDaemon, Some("master")) => Ok(Some(Role::Master)),
        (Command::StartDaemon | Command::StopDaemon, Some("backup")) => Ok(Some(Role::Backup)),
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
            let mark = number(text, 1..=u32::MAX).ok_or_else(|| {
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
        Opt::Engine => parsed.engine = Some(text.to_owned()),
        Opt::Server => parsed.server = Some(server(parsed, text, names)?),
        Opt::Weight => parsed.weight = int(0..=INT_MAX, "weight")?,
        Opt::Upper => parsed.upper = int(0..=INT_MAX, "u_threshold")?,
        Opt::Lower => parsed.lower = int(0..=INT_MAX, "l_threshold")?,
        Opt::TunType => {
            parsed.encapsulation = match text {
                "ipip" => Encapsulation::Ipip,
                "gue" => Encapsulation::Gue,
                "gre" => Encapsulation::Gre,
                _ => return Err(Failure::invalid("illegal tunnel type specified")),
            }
        }
        Opt::TunPort => {
            let port = int(1..=u32::from(u16::MAX), "tunnel port")?;
            parsed.tunnel_port = u16::try_from(port).unwrap_or(u16::MAX);
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

/// Which options the command needs, allows and excludes.
fn check_rules(parsed: &Parsed) -> Result<(), Failure> {
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
fn check_command(parsed: &mut Parsed, flags: &str) -> Result<(), Failure> {
    match parsed.command {
        Command::AddService | Command::EditService => {
            check_service(parsed)?;
            if parsed.scheduler.is_empty() {
                parsed.scheduler = SCHEDULER_DEFAULT.into();
            }
            parsed.scheduler_flags = scheduler_flags(&parsed.scheduler, flags)?;
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

fn check_server(parsed: &mut Parsed) -> Result<(), Failure> {
    let (Some(service), Some(server)) = (parsed.service, &mut parsed.server) else {
        return Ok(());
    };
    // Direct routing and tunnels leave the port alone.
    if parsed.forward != Forward::Nat && matches!(service, Service::Address { .. }) {
        server.set_port(service.port());
    }
    if parsed.forward != Forward::Tunnel {
        if server.is_ipv6() != service.is_ipv6() {
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
    let (kind, one_of): (_, &[Opt]) = match parsed.encapsulation {
        Encapsulation::Ipip => ("ipip", &[]),
        Encapsulation::Gue => ("gue", &[TunNoCsum, TunCsum, TunRemCsum]),
        Encapsulation::Gre => ("gre", &[TunNoCsum, TunCsum]),
    };
    let gue = parsed.encapsulation == Encapsulation::Gue;
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
fn scheduler_flags(scheduler: &str, text: &str) -> Result<u8, Failure> {
    let mut flags = 0;
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let (bit, only) = match name {
            "flag-1" => (0, None),
            "flag-2" => (1, None),
            "flag-3" => (2, None),
            "sh-fallback" => (0, Some("sh")),
            "sh-port" => (1, Some("sh")),
            "mh-fallback" => (0, Some("mh")),
            "mh-port" => (1, Some("mh")),
            _ => {
                return Err(Failure::invalid(format!("invalid scheduler flag `{name}'")));
            }
        };
        if only.is_some_and(|only| only != scheduler) {
            return Err(Failure::invalid(format!(
                "incompatible scheduler flag `{name}'"
            )));
        }
        flags |= 1 << bit;
    }
    Ok(flags)
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

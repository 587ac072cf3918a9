//! The words of the grammar: commands, options, and which go together.

use super::Forward;
use crate::ipvsadm::names::Transport;
use crate::ipvsadm::popt::{Switch, Takes};

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
    /// Local addresses are no part of upstream's grammar.
    AddLocal,
    DeleteLocal,
    GetLocal,
    Help,
    Version,
}

impl Command {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
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
            Self::AddLocal => "add-laddr",
            Self::DeleteLocal => "del-laddr",
            Self::GetLocal => "get-laddr",
            Self::Help => "help",
            Self::Version => "version",
        }
    }

    pub(super) fn rules(self) -> Rules {
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
                    Scheduler, Persistent, Netmask, OnePacket, Engine, SchedFlags, HashTarget,
                    Options,
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
            Self::AddLocal | Self::DeleteLocal => rules(&[Service, LocalAddress], NONE),
            Self::GetLocal => rules(NONE, &[Service, Numeric]),
            Self::Flush | Self::Restore | Self::Set | Self::Help | Self::Version => {
                rules(NONE, NONE)
            }
        }
    }
}

/// Which options go with a command.
pub(super) struct Rules {
    pub(super) needs: &'static [Opt],
    pub(super) may: &'static [Opt],
    /// At most one of these.
    pub(super) one_of: &'static [Opt],
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
    LocalAddress,
    HashTarget,
    Options,
}

pub(super) const OPTS: &[(Opt, &str)] = &[
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
    (Opt::LocalAddress, "local-address"),
    (Opt::HashTarget, "hash-target"),
    (Opt::Options, "options"),
];

impl Opt {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        OPTS.iter()
            .find(|(opt, _)| *opt == self)
            .map_or("", |(_, name)| name)
    }
}

/// What a word that begins with `-` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
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

pub(super) const SWITCHES: &[Switch<Meaning>] = {
    use Command as C;
    use Meaning::{Command as Do, Forward as By, Ipv6, Mark, Other, Service as Of, Sort};
    use Takes::{Nothing, Perhaps, Value};
    &[
        switch(Some('A'), "add-service", Nothing, Do(C::AddService)),
        switch(Some('E'), "edit-service", Nothing, Do(C::EditService)),
        switch(Some('D'), "delete-service", Nothing, Do(C::DeleteService)),
        switch(Some('C'), "clear", Nothing, Do(C::Flush)),
        switch(Some('R'), "restore", Nothing, Do(C::Restore)),
        switch(Some('S'), "save", Nothing, Do(C::Save)),
        switch(Some('a'), "add-server", Nothing, Do(C::AddServer)),
        switch(Some('e'), "edit-server", Nothing, Do(C::EditServer)),
        switch(Some('d'), "delete-server", Nothing, Do(C::DeleteServer)),
        switch(Some('L'), "list", Nothing, Do(C::List)),
        switch(Some('l'), "list", Nothing, Do(C::List)),
        switch(Some('Z'), "zero", Nothing, Do(C::Zero)),
        switch(None, "set", Nothing, Do(C::Set)),
        switch(None, "start-daemon", Value, Do(C::StartDaemon)),
        switch(None, "stop-daemon", Value, Do(C::StopDaemon)),
        switch(None, "add-laddr", Nothing, Do(C::AddLocal)),
        switch(None, "del-laddr", Nothing, Do(C::DeleteLocal)),
        switch(None, "get-laddr", Nothing, Do(C::GetLocal)),
        switch(Some('h'), "help", Nothing, Do(C::Help)),
        switch(Some('v'), "version", Nothing, Do(C::Version)),
        switch(Some('t'), "tcp-service", Value, Of(Transport::Tcp)),
        switch(Some('u'), "udp-service", Value, Of(Transport::Udp)),
        switch(None, "sctp-service", Value, Of(Transport::Sctp)),
        switch(Some('f'), "fwmark-service", Value, Mark),
        switch(Some('6'), "ipv6", Nothing, Ipv6),
        switch(Some('s'), "scheduler", Value, Other(Opt::Scheduler)),
        switch(Some('p'), "persistent", Perhaps, Other(Opt::Persistent)),
        switch(Some('M'), "netmask", Value, Other(Opt::Netmask)),
        switch(Some('o'), "ops", Nothing, Other(Opt::OnePacket)),
        switch(None, "pe", Value, Other(Opt::Engine)),
        switch(Some('b'), "sched-flags", Value, Other(Opt::SchedFlags)),
        // As DPVS has it.
        switch(None, "hash-target", Value, Other(Opt::HashTarget)),
        switch(None, "options", Value, Other(Opt::Options)),
        switch(Some('r'), "real-server", Value, Other(Opt::Server)),
        switch(Some('g'), "gatewaying", Nothing, By(Forward::Direct)),
        switch(Some('i'), "ipip", Nothing, By(Forward::Tunnel)),
        switch(Some('m'), "masquerading", Nothing, By(Forward::Nat)),
        switch(None, "fullnat", Nothing, By(Forward::FullNat)),
        switch(Some('z'), "local-address", Value, Other(Opt::LocalAddress)),
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
        switch(None, "sort", Nothing, Sort),
        switch(None, "nosort", Nothing, Other(Opt::NoSort)),
    ]
};

//! The words for what can be chosen: on command lines, in files, in listings and in the log.

use std::fmt;

use crate::{
    ClientAddress, Drain, Engine, ForwardMode, HashTarget, KernelDriver, Netmask, OnServerGone,
    Persistence, Protocol, Refuse, SchedulerFlags, ServerSpec, ServiceKey, ServiceOptions,
    ServiceSpec, ServiceTimeouts, Thresholds, Tunnel, TunnelChecksum, TunnelKind, Vips,
};

/// A choice with a word for each of its values, the same as in JSON.
pub trait Word: Copy + 'static {
    const ALL: &'static [Self];

    fn word(self) -> &'static str;
}

impl Word for Protocol {
    const ALL: &'static [Self] = &[Self::Tcp, Self::Udp, Self::Sctp];

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for ForwardMode {
    const ALL: &'static [Self] = &[Self::Nat, Self::Direct, Self::Tunnel, Self::FullNat];

    fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
            Self::FullNat => "fullnat",
        }
    }
}

impl Word for TunnelKind {
    const ALL: &'static [Self] = &[Self::Ipip, Self::Gue, Self::Gre];

    fn word(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Gre => "gre",
        }
    }
}

impl Word for TunnelChecksum {
    const ALL: &'static [Self] = &[Self::None, Self::Full, Self::Remote];

    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Full => "full",
            Self::Remote => "remote",
        }
    }
}

impl Word for ClientAddress {
    const ALL: &'static [Self] = &[
        Self::Toa,
        Self::Uoa,
        Self::ProxyV1,
        Self::ProxyV2,
        Self::None,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Toa => "toa",
            Self::Uoa => "uoa",
            Self::ProxyV1 => "proxy-v1",
            Self::ProxyV2 => "proxy-v2",
            Self::None => "none",
        }
    }
}

impl Word for KernelDriver {
    const ALL: &'static [Self] = &[Self::Auto, Self::VirtioUser, Self::Tap];

    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::VirtioUser => "virtio-user",
            Self::Tap => "tap",
        }
    }
}

impl Word for Vips {
    const ALL: &'static [Self] = &[Self::Director, Self::Kernel];

    fn word(self) -> &'static str {
        match self {
            Self::Director => "director",
            Self::Kernel => "kernel",
        }
    }
}

impl Word for Engine {
    const ALL: &'static [Self] = &[Self::Sip];

    fn word(self) -> &'static str {
        match self {
            Self::Sip => "sip",
        }
    }
}

impl Word for Refuse {
    const ALL: &'static [Self] = &[Self::Icmp, Self::Reset, Self::Drop];

    fn word(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Reset => "reset",
            Self::Drop => "drop",
        }
    }
}

impl Word for OnServerGone {
    const ALL: &'static [Self] = &[Self::Drop, Self::Reset, Self::Reschedule];

    fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reset => "reset",
            Self::Reschedule => "reschedule",
        }
    }
}

impl Word for HashTarget {
    const ALL: &'static [Self] = &[Self::Sip, Self::Qid];

    fn word(self) -> &'static str {
        match self {
            Self::Sip => "sip",
            Self::Qid => "qid",
        }
    }
}

impl Netmask {
    /// `255.255.255.0` or a prefix length for IPv4, a prefix length for IPv6; says what would be
    /// right.
    pub fn read(text: &str, ipv6: bool) -> Result<Self, String> {
        let prefix: Option<u32> = text.parse().ok();
        let mask = match prefix {
            Some(prefix @ 1..=128) if ipv6 => u8::try_from(prefix).ok().map(Self::V6),
            Some(prefix @ 0..=32) if !ipv6 => {
                let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
                Some(Self::V4(mask.into()))
            }
            None if !ipv6 => text.parse().ok().map(Self::V4),
            _ => None,
        };
        let right = if ipv6 {
            "1 to 128 is right for IPv6"
        } else {
            "255.255.255.0 or 24 is right for IPv4"
        };
        mask.ok_or_else(|| format!("netmask {text:?} is none, {right}"))
    }
}

/// `255.255.255.0`, `64`
impl fmt::Display for Netmask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(mask) => mask.fmt(f),
            Self::V6(prefix) => prefix.fmt(f),
        }
    }
}

/// `tcp 10.0.0.1:80`, `mark 7`, `mark 7 ipv6`
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{} {address}", protocol.name()),
            Self::Mark { mark, ipv6: false } => write!(f, "mark {mark}"),
            Self::Mark { mark, ipv6: true } => write!(f, "mark {mark} ipv6"),
        }
    }
}

/// `ipip`, `gue:6080 csum`
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.word())?;
        if self.kind == TunnelKind::Gue {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(match self.checksum {
            TunnelChecksum::None => "",
            TunnelChecksum::Full => " csum",
            TunnelChecksum::Remote => " remcsum",
        })
    }
}

/// Why a word names no flag of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoFlag {
    Unknown,
    /// Another scheduler has it.
    Incompatible,
}

/// A scheduler with flag names of its own.
const NAMED_FLAGS: [(&str, [&str; 2]); 2] = [
    ("sh", ["sh-fallback", "sh-port"]),
    ("mh", ["mh-fallback", "mh-port"]),
];
const PLAIN_FLAGS: [&str; 3] = ["flag-1", "flag-2", "flag-3"];

impl SchedulerFlags {
    /// What a new service has unless told otherwise: a client finds a server as long as there is one.
    /// (ipvsadm sets no flag by itself.)
    pub fn usual(scheduler: &str) -> Self {
        Self {
            fallback: NAMED_FLAGS.iter().any(|(name, _)| *name == scheduler),
            ..Self::default()
        }
    }

    /// Sets the flag of this name: one of `flag-1` to `flag-3`, or one of the scheduler's own.
    pub fn set(&mut self, scheduler: &str, name: &str) -> Result<(), NoFlag> {
        let plain = PLAIN_FLAGS.iter().position(|flag| *flag == name);
        let place = plain.map(Ok).or_else(|| {
            NAMED_FLAGS.iter().find_map(|(owner, flags)| {
                let place = flags.iter().position(|flag| *flag == name)?;
                let own = *owner == scheduler;
                Some(own.then_some(place).ok_or(NoFlag::Incompatible))
            })
        });
        match place.ok_or(NoFlag::Unknown)?? {
            0 => self.fallback = true,
            1 => self.port = true,
            _ => self.third = true,
        }
        Ok(())
    }

    /// The names of the flags that are set; the third has none with a scheduler that has names of
    /// its own.
    pub fn names(self, scheduler: &str) -> Vec<&'static str> {
        let own = NAMED_FLAGS.iter().find(|(owner, _)| *owner == scheduler);
        let names: &[&str] = own.map_or(&PLAIN_FLAGS, |(_, names)| names);
        let set = [self.fallback, self.port, self.third];
        let flags = names.iter().zip(set);
        flags
            .filter(|(_, set)| *set)
            .map(|(name, _)| *name)
            .collect()
    }
}

/// `persistent 360 s`, `persistent 360 s by 255.255.255.0`
impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "persistent {} s", self.timeout_s)?;
        if self.netmask.is_whole() {
            return Ok(());
        }
        write!(f, " by {}", self.netmask)
    }
}

/// `wlc`, `sh (sh-fallback,sh-port), persistent 360 s, engine sip, one packet`
impl fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheduler)?;
        if self.flags != SchedulerFlags::default() {
            write!(f, " ({})", self.flags.names(&self.scheduler).join(","))?;
        }
        if let Some(persistence) = self.persistence {
            write!(f, ", {persistence}")?;
        }
        if let Some(engine) = self.engine {
            write!(f, ", engine {}", engine.word())?;
        }
        if self.one_packet {
            f.write_str(", one packet")?;
        }
        Ok(())
    }
}

/// `thresholds 200 and 100`
impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thresholds {} and {}", self.upper, self.lower)
    }
}

impl ServerSpec {
    /// `nat`, `tunnel gue:6080 csum, thresholds 200 and 100`
    pub fn how(&self) -> String {
        if self.thresholds == Thresholds::default() {
            return self.method();
        }
        format!("{}, {}", self.method(), self.thresholds)
    }

    /// `nat`, `tunnel gue:6080 csum`
    pub fn method(&self) -> String {
        match self.mode {
            ForwardMode::Tunnel => format!("{} {}", self.mode.word(), self.tunnel),
            mode => mode.word().to_owned(),
        }
    }
}

/// `client address toa, mss 1380, mh table size 65521, tcp timeout 60 s`: after the first, what is not
/// the default.
impl fmt::Display for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_address,
            mss,
            mh_table_size,
            timeouts: ServiceTimeouts { tcp, tcp_fin, udp },
            refuse,
            on_server_gone,
            reset_on_expiry,
            slow_start_s,
            hash_target,
        } = *self;
        write!(f, "client address {}", client_address.word())?;
        if let Some(mss) = mss {
            write!(f, ", mss {mss}")?;
        }
        if let Some(size) = mh_table_size {
            write!(f, ", mh table size {size}")?;
        }
        for (name, timeout) in [("tcp", tcp), ("tcp-fin", tcp_fin), ("udp", udp)] {
            if let Some(seconds) = timeout {
                write!(f, ", {name} timeout {seconds} s")?;
            }
        }
        if refuse != Refuse::default() {
            write!(f, ", refuse by {}", refuse.word())?;
        }
        if on_server_gone != OnServerGone::default() {
            write!(f, ", on server gone {}", on_server_gone.word())?;
        }
        if reset_on_expiry {
            f.write_str(", reset on expiry")?;
        }
        if slow_start_s != 0 {
            write!(f, ", slow start {slow_start_s} s")?;
        }
        if hash_target != HashTarget::default() {
            write!(f, ", hash target {}", hash_target.word())?;
        }
        Ok(())
    }
}

impl fmt::Display for Drain {
    /// `cut with resets after 30 s, then deleted`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.deadline_s, self.reset) {
            (None, _) => write!(f, "no deadline")?,
            (Some(seconds), false) => write!(f, "cut after {seconds} s")?,
            (Some(seconds), true) => write!(f, "cut with resets after {seconds} s")?,
        }
        f.write_str(if self.delete { ", then deleted" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    fn check<T: Word + Serialize>() {
        for value in T::ALL {
            assert_eq!(serde_json::to_value(value).unwrap(), value.word());
        }
    }

    #[test]
    fn words_are_those_of_the_protocol() {
        check::<Protocol>();
        check::<ForwardMode>();
        check::<TunnelKind>();
        check::<TunnelChecksum>();
        check::<ClientAddress>();
        check::<Engine>();
        check::<Refuse>();
        check::<OnServerGone>();
        check::<HashTarget>();
    }

    #[test]
    fn netmasks_are_read_as_masks_and_prefixes() {
        let v4 = |mask: &str| Ok(Netmask::V4(mask.parse().unwrap()));
        for (text, ipv6, mask) in [
            ("255.255.255.0", false, v4("255.255.255.0")),
            ("255.0.255.0", false, v4("255.0.255.0")),
            ("24", false, v4("255.255.255.0")),
            ("0", false, v4("0.0.0.0")),
            ("32", false, Ok(Netmask::whole(false))),
            ("64", true, Ok(Netmask::V6(64))),
            ("128", true, Ok(Netmask::whole(true))),
        ] {
            assert_eq!(Netmask::read(text, ipv6), mask);
        }
        for (text, ipv6) in [("33", false), ("x", false), ("0", true), ("129", true)] {
            assert!(Netmask::read(text, ipv6).is_err(), "{text}");
        }
        assert_eq!(
            Netmask::read("255.255.255.0", true),
            Err("netmask \"255.255.255.0\" is none, 1 to 128 is right for IPv6".to_owned())
        );
    }

    #[test]
    fn services_in_words() {
        let mut spec = ServiceSpec::new("sh");
        assert_eq!(spec.to_string(), "sh");
        spec.flags.fallback = true;
        spec.persistence = Some(Persistence {
            timeout_s: 360,
            netmask: Netmask::whole(false),
        });
        assert_eq!(spec.to_string(), "sh (sh-fallback), persistent 360 s");
        spec.persistence = Some(Persistence {
            timeout_s: 60,
            netmask: Netmask::V6(64),
        });
        spec.engine = Some(Engine::Sip);
        spec.one_packet = true;
        assert_eq!(
            spec.to_string(),
            "sh (sh-fallback), persistent 60 s by 64, engine sip, one packet"
        );
        let options = ServiceOptions {
            timeouts: ServiceTimeouts {
                tcp: Some(60),
                tcp_fin: None,
                udp: Some(5),
            },
            refuse: Refuse::Reset,
            on_server_gone: OnServerGone::Reschedule,
            reset_on_expiry: true,
            slow_start_s: 30,
            hash_target: HashTarget::Qid,
            ..ServiceOptions::default()
        };
        assert_eq!(
            options.to_string(),
            "client address toa, tcp timeout 60 s, udp timeout 5 s, refuse by reset, \
             on server gone reschedule, reset on expiry, slow start 30 s, hash target qid"
        );
    }

    #[test]
    fn tunnels_and_options_in_words() {
        let spec = |mode, tunnel| ServerSpec {
            mode,
            weight: 1,
            tunnel,
            thresholds: Thresholds::default(),
        };
        let gue = Tunnel {
            kind: TunnelKind::Gue,
            port: 6080,
            checksum: TunnelChecksum::Full,
        };
        assert_eq!(
            spec(ForwardMode::Tunnel, gue).method(),
            "tunnel gue:6080 csum"
        );
        assert_eq!(
            spec(ForwardMode::Tunnel, Tunnel::default()).method(),
            "tunnel ipip"
        );
        assert_eq!(
            spec(ForwardMode::FullNat, Tunnel::default()).method(),
            "fullnat"
        );
        let options = ServiceOptions {
            client_address: ClientAddress::ProxyV2,
            mss: Some(1380),
            mh_table_size: Some(65521),
            ..ServiceOptions::default()
        };
        assert_eq!(
            options.to_string(),
            "client address proxy-v2, mss 1380, mh table size 65521"
        );
        let limited = ServerSpec {
            thresholds: Thresholds {
                upper: 200,
                lower: 100,
            },
            ..spec(ForwardMode::Nat, Tunnel::default())
        };
        assert_eq!(limited.how(), "nat, thresholds 200 and 100");
    }

    #[test]
    fn flags_by_name() {
        let mut flags = SchedulerFlags::default();
        assert_eq!(flags.set("sh", "sh-port"), Ok(()));
        assert_eq!(flags.set("rr", "mh-port"), Err(NoFlag::Incompatible));
        assert_eq!(flags.set("rr", "bogus"), Err(NoFlag::Unknown));
        let port = SchedulerFlags {
            port: true,
            ..SchedulerFlags::default()
        };
        assert_eq!(flags, port);
        assert_eq!(flags.names("rr"), ["flag-2"]);
        assert_eq!(flags.names("mh"), ["mh-port"]);
        assert_eq!(SchedulerFlags::usual("mh").names("mh"), ["mh-fallback"]);
        assert_eq!(SchedulerFlags::usual("wlc"), SchedulerFlags::default());
    }
}

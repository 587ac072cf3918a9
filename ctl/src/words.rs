//! The words for what can be chosen: on command lines, in files, in listings and in the log.

use std::fmt;

use crate::{
    ClientAddress, Drain, Engine, ForwardMode, HashTarget, Netmask, OnServerGone, Protocol, Refuse,
    SchedulerFlags, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec, Settings, Thresholds,
    Tunnel, TunnelChecksum, TunnelKind,
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

/// `wlc`, `sh (sh-fallback,sh-port)`
impl fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheduler)?;
        if self.flags == SchedulerFlags::default() {
            return Ok(());
        }
        write!(f, " ({})", self.flags.names(&self.scheduler).join(","))
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

/// `client address toa, mss 1380, mh table size 65521`
impl fmt::Display for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client address {}", self.client_address.word())?;
        if let Some(mss) = self.mss {
            write!(f, ", mss {mss}")?;
        }
        match self.mh_table_size {
            Some(size) => write!(f, ", mh table size {size}"),
            None => Ok(()),
        }
    }
}

/// `schedule-icmp false, pmtu-disc true, …`
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

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            schedule_icmp,
            pmtu_disc,
            conn_reuse_mode,
            expire_nodest_conn,
            expire_quiescent_template,
            sloppy_tcp,
            sloppy_sctp,
            drop_entry,
            drop_packet,
            secure_tcp,
            am_droprate,
            amemthresh,
            one_packet_replies_untranslated,
        } = self;
        write!(
            f,
            "schedule-icmp {schedule_icmp}, pmtu-disc {pmtu_disc}, conn-reuse-mode {conn_reuse_mode}, \
             expire-nodest-conn {expire_nodest_conn}, expire-quiescent-template {expire_quiescent_template}, \
             sloppy-tcp {sloppy_tcp}, sloppy-sctp {sloppy_sctp}, drop-entry {drop_entry}, \
             drop-packet {drop_packet}, secure-tcp {secure_tcp}, am-droprate {am_droprate}, \
             amemthresh {amemthresh}, one-packet-replies-untranslated {one_packet_replies_untranslated}"
        )
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

//! What is measured: a forwarding method, the families of its addresses, a protocol.

use std::fmt;

use clap::ValueEnum;
use control::{ForwardMode, Protocol, Tunnel, TunnelKind};
use serde::Serialize;

/// GUE's port, as IANA has it.
pub(super) const GUE_PORT: u16 = 6080;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    Nat,
    Fullnat,
    Direct,
    Ipip,
    Gre,
    Gue,
}

impl Method {
    pub(super) const fn mode(self) -> ForwardMode {
        match self {
            Self::Nat => ForwardMode::Nat,
            Self::Fullnat => ForwardMode::FullNat,
            Self::Direct => ForwardMode::Direct,
            Self::Ipip | Self::Gre | Self::Gue => ForwardMode::Tunnel,
        }
    }

    pub(super) fn tunnel(self) -> Tunnel {
        let (kind, port) = match self {
            Self::Gre => (TunnelKind::Gre, 0),
            Self::Gue => (TunnelKind::Gue, GUE_PORT),
            _ => (TunnelKind::Ipip, 0),
        };
        Tunnel {
            kind,
            port,
            ..Tunnel::default()
        }
    }

    /// Servers answer their clients past the director.
    pub(super) const fn is_one_way(self) -> bool {
        !matches!(self, Self::Nat | Self::Fullnat)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::Fullnat => "FULLNAT",
            Self::Direct => "DR",
            Self::Ipip => "TUN ipip",
            Self::Gre => "TUN gre",
            Self::Gue => "TUN gue",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Ipv4,
    Ipv6,
    /// Clients of IPv6, servers of IPv4: FULLNAT only.
    Mixed,
}

impl Family {
    /// What clients use.
    pub(super) const fn is_v6(self) -> bool {
        !matches!(self, Self::Ipv4)
    }

    pub(super) const fn servers_are_v6(self) -> bool {
        matches!(self, Self::Ipv6)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Mixed => "6 to 4",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Way {
    pub method: Method,
    pub family: Family,
    pub protocol: Protocol,
}

impl Way {
    /// What all others are compared with.
    pub(super) const fn nat(protocol: Protocol) -> Self {
        Self {
            method: Method::Nat,
            family: Family::Ipv4,
            protocol,
        }
    }

    /// Every method of every family, for TCP.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let families = Family::value_variants().iter();
        let all = families.flat_map(|&family| {
            Method::value_variants().iter().map(move |&method| Self {
                method,
                family,
                protocol: Protocol::Tcp,
            })
        });
        all.filter(|way| way.exists())
    }

    /// Whether there is such a thing.
    pub(super) fn exists(self) -> bool {
        self.family != Family::Mixed || self.method == Method::Fullnat
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, family) = (self.method.name(), self.family.name());
        write!(f, "{} {method:<8} {family:<6}", self.protocol.name())
    }
}

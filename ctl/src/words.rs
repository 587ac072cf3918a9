//! The words for what can be chosen: on command lines, in files, in listings and in the log.

use std::fmt;

use crate::{
    ClientAddress, ForwardMode, Protocol, ServerSpec, ServiceOptions, Settings, Tunnel,
    TunnelChecksum, TunnelKind,
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

impl ServerSpec {
    /// `nat`, `tunnel gue:6080 csum`
    pub fn method(&self) -> String {
        match self.mode {
            ForwardMode::Tunnel => format!("{} {}", self.mode.word(), self.tunnel),
            mode => mode.word().to_owned(),
        }
    }
}

/// `client address toa, mss 1380`
impl fmt::Display for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client address {}", self.client_address.word())?;
        match self.mss {
            Some(mss) => write!(f, ", mss {mss}"),
            None => Ok(()),
        }
    }
}

/// `schedule-icmp false, pmtu-disc true`
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            schedule_icmp,
            pmtu_disc,
        } = self;
        write!(f, "schedule-icmp {schedule_icmp}, pmtu-disc {pmtu_disc}")
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
        };
        assert_eq!(options.to_string(), "client address proxy-v2, mss 1380");
    }
}

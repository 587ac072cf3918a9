//! What services and servers go by.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use anyhow::{Result, bail};
use clap::Args;
use control::{Protocol, ServiceKey, Word};

use super::values::{NO_ADDRESS_PORT, address_port, one_of};

/// What the name of a service begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    At(Protocol),
    Mark,
}

impl Word for Kind {
    const ALL: &'static [Self] = &[
        Self::At(Protocol::Tcp),
        Self::At(Protocol::Udp),
        Self::At(Protocol::Sctp),
        Self::Mark,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::At(protocol) => protocol.word(),
            Self::Mark => "mark",
        }
    }
}

/// What comes after its [`Kind`].
#[derive(Debug, Clone, Copy)]
enum Name {
    Address(SocketAddr),
    Mark(NonZeroU32),
}

#[derive(Debug, Args)]
pub(super) struct Key {
    #[arg(value_name = "PROTOCOL", value_parser = one_of::<Kind>())]
    kind: Kind,
    /// ADDRESS:PORT of the service, port 0 for every port; with mark the mark, 7 or 0x7.
    #[arg(value_name = "ADDRESS", value_parser = name)]
    name: Name,
    /// The mark is that of IPv6 packets.
    #[arg(long)]
    ipv6: bool,
}

impl Key {
    pub(super) fn key(&self) -> Result<ServiceKey> {
        key(self.kind, self.name, self.ipv6)
    }
}

fn key(kind: Kind, name: Name, ipv6: bool) -> Result<ServiceKey> {
    match (kind, name) {
        (Kind::At(_), _) if ipv6 => bail!("--ipv6 goes with a mark, not with an address"),
        (Kind::At(protocol), Name::Address(address)) => Ok(ServiceKey::at(protocol, address)),
        (Kind::Mark, Name::Mark(mark)) => Ok(ServiceKey::Mark { mark, ipv6 }),
        (Kind::At(_), Name::Mark(mark)) => bail!("{mark} is {NO_ADDRESS_PORT}"),
        (Kind::Mark, Name::Address(address)) => bail!("{address} is not a mark, 7 or 0x7 is right"),
    }
}

/// A service, or all.
#[derive(Debug, Args)]
pub(super) struct Perhaps {
    #[arg(requires = "name", value_name = "PROTOCOL", value_parser = one_of::<Kind>())]
    kind: Option<Kind>,
    /// ADDRESS:PORT of the service; with mark the mark, 7 or 0x7.
    #[arg(value_name = "ADDRESS", value_parser = name)]
    name: Option<Name>,
    /// The mark is that of IPv6 packets.
    #[arg(long, requires = "name")]
    ipv6: bool,
}

impl Perhaps {
    pub(super) fn key(&self) -> Result<Option<ServiceKey>> {
        let both = self.kind.zip(self.name);
        both.map(|(kind, name)| key(kind, name, self.ipv6))
            .transpose()
    }
}

#[derive(Debug, Args)]
pub(super) struct ServerKey {
    #[command(flatten)]
    pub(super) service: Key,
    /// ADDRESS:PORT of the server.
    #[arg(value_parser = address_port)]
    pub(super) server: SocketAddr,
}

/// A mark or an address and port; [`key`] finds which one it has to be.
fn name(text: &str) -> Result<Name, &'static str> {
    let mark = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match mark.map(NonZeroU32::new) {
        Some(Some(mark)) => Ok(Name::Mark(mark)),
        Some(None) => Err("not a mark, 1 to 4294967295 is right"),
        None => address_port(text).map(Name::Address),
    }
}

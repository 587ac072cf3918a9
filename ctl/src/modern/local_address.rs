//! `directorctl local-address`: what servers reached by FULLNAT see as their client.

use std::net::IpAddr;

use anyhow::Result;
use clap::Subcommand;
use control::{Change, Request};

use super::key::{Key, Perhaps};
use super::values::address;

#[derive(Debug, Subcommand)]
pub(super) enum LocalAddressVerb {
    /// Those of all services, or of the one named.
    List(Perhaps),
    /// Add a local address to a service.
    Add {
        #[command(flatten)]
        service: Key,
        #[arg(value_parser = address)]
        local: IpAddr,
    },
    /// Delete a local address of a service.
    Delete {
        #[command(flatten)]
        service: Key,
        #[arg(value_parser = address)]
        local: IpAddr,
    },
}

impl LocalAddressVerb {
    pub(super) fn request(&self) -> Result<Request> {
        let change = match self {
            Self::List(only) => return Ok(Request::Services { only: only.key()? }),
            Self::Add { service, local } => Change::AddLocalAddress {
                service: service.key()?,
                address: *local,
            },
            Self::Delete { service, local } => Change::DeleteLocalAddress {
                service: service.key()?,
                address: *local,
            },
        };
        Ok(Request::Change(vec![change]))
    }
}

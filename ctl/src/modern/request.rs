//! From verbs to requests. A verb that changes part of something asks for the whole first.

use anyhow::{Error, Result, bail};
use control::client::{Client, ClientError};
use control::{Change, Reply, Request, Service, ServiceKey, Settings};

use super::Verb;

/// What is there now.
pub(super) trait Present {
    fn service(&mut self, key: ServiceKey) -> Result<Service>;
    fn settings(&mut self) -> Result<Settings>;
}

impl Present for Client {
    fn service(&mut self, key: ServiceKey) -> Result<Service> {
        match self.ask(&Request::Services { only: Some(key) })? {
            Reply::Services(mut list) if list.len() == 1 => Ok(list.remove(0)),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }

    fn settings(&mut self) -> Result<Settings> {
        match self.ask(&Request::Settings)? {
            Reply::Settings(settings) => Ok(settings),
            Reply::Refused(refusal) => Err(refusal.into()),
            _ => bail!(ClientError::Unexpected),
        }
    }
}

/// What to ask for a verb.
pub(super) fn request(verb: &Verb, present: &mut impl Present) -> Result<Request> {
    let change = match verb {
        Verb::Service(verb) => return verb.request(present),
        Verb::Server(verb) => return verb.request(present),
        Verb::LocalAddress(verb) => return verb.request(),
        Verb::Explain(args) => return super::explain::request(args),
        Verb::Connection(_) => unreachable!("they ask page by page"),
        Verb::Stats(_) => return Ok(Request::Services { only: None }),
        Verb::Health => return Ok(Request::Health),
        Verb::Status | Verb::Version => return Ok(Request::Status),
        Verb::Port(verb) => return Ok(verb.request()),
        Verb::Apply(args) => return args.request(),
        Verb::Confirm => return Ok(Request::Confirm),
        Verb::Rollback => return Ok(Request::Rollback),
        Verb::Save(_) => return Ok(Request::Save),
        Verb::Plan(_) | Verb::Node(_) => unreachable!("its exit code says something too"),
        Verb::Check(_)
        | Verb::Completions(_)
        | Verb::Man(_)
        | Verb::Schema(_)
        | Verb::Import(_)
        | Verb::Doctor(_) => unreachable!("they ask nothing"),
        Verb::Drops(_) | Verb::Capture(_) | Verb::Metrics | Verb::Top(_) => {
            unreachable!("they ask by themselves")
        }
        Verb::Address(verb) => return Ok(verb.request()),
        Verb::Route(verb) => return verb.request(),
        Verb::Neighbour(verb) => return Ok(verb.request()),
        Verb::Mark(verb) => return Ok(verb.request()),
        Verb::Sync(verb) => return Ok(verb.request()),
        Verb::Timeouts {
            tcp: None,
            tcp_fin: None,
            udp: None,
        } => return Ok(Request::Timeouts),
        Verb::Timeouts { tcp, tcp_fin, udp } => Change::SetTimeouts {
            tcp: *tcp,
            tcp_fin: *tcp_fin,
            udp: *udp,
        },
        Verb::Settings(named) if !named.any() => return Ok(Request::Settings),
        Verb::Settings(named) => {
            let settings = named.over(present.settings()?).map_err(Error::msg)?;
            Change::SetSettings(settings)
        }
        Verb::Zero(only) => Change::Zero { only: only.key()? },
    };
    Ok(Request::Change(vec![change]))
}

#[cfg(test)]
mod tests;

//! What no service and no server may be.

use std::net::SocketAddr;

use control::{Errno, ForwardMode, Refusal, ServerSpec, ServiceKey, ServiceSpec};

use super::{WEIGHT_MAX, refuse};
use crate::net::is_station;
use crate::sched::Kind;

pub(super) fn scheduler(spec: &ServiceSpec) -> Result<Kind, Refusal> {
    Kind::by_name(&spec.scheduler).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        refuse(
            Errno::Enoent,
            format!(
                "no scheduler {:?}, known are {}",
                spec.scheduler,
                known.join(", ")
            ),
        )
    })
}

pub(super) fn supported(address: SocketAddr) -> Result<(), Refusal> {
    if address.is_ipv6() {
        return Err(refuse(
            Errno::Eopnotsupp,
            format!("{address}: IPv6 is not supported yet, use an IPv4 address"),
        ));
    }
    Ok(())
}

/// A server's address; a service may have any, as in LVS.
pub(super) fn unicast(address: SocketAddr) -> Result<(), Refusal> {
    match address {
        SocketAddr::V4(v4) if !is_station((*v4.ip()).into()) => Err(refuse(
            Errno::Einval,
            format!("server address {} is not unicast", v4.ip()),
        )),
        _ => Ok(()),
    }
}

/// Direct routing leaves a packet's port alone.
pub(super) fn same_port(
    key: &ServiceKey,
    address: SocketAddr,
    spec: ServerSpec,
) -> Result<(), Refusal> {
    let port = key.address.port();
    match spec.mode {
        ForwardMode::Direct if address.port() != port => Err(refuse(
            Errno::Einval,
            format!(
                "server {address} has another port than its service, {port} is right for direct routing"
            ),
        )),
        _ => Ok(()),
    }
}

pub(super) fn weighed(spec: ServerSpec, address: SocketAddr) -> Result<(), Refusal> {
    let weight = spec.weight;
    if weight > WEIGHT_MAX {
        let detail = format!(
            "weight {weight} of server {address} is too high, at most {WEIGHT_MAX} is right"
        );
        return Err(refuse(Errno::Erange, detail));
    }
    Ok(())
}

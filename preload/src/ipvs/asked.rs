//! What programs ask, as the director's changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;

use control::{
    Change, Engine, ForwardMode, Netmask, Persistence, Protocol, SchedulerFlags, ServerSpec,
    ServiceKey, ServiceSpec, Thresholds, Tunnel, TunnelChecksum, TunnelKind, Word,
};

use super::{
    Ask, DEL_DEST, DEL_SERVICE, DROUTE, FLUSH, MASQ, NEW_DEST, NEW_SERVICE, ONE_PACKET, PERSISTENT,
    SCHED1, SCHED2, SCHED3, SET_CONFIG, SET_DEST, SET_SERVICE, TUNNEL, ZERO, attr, dest, svc, told,
};
use crate::netlink::Attributes;

/// The bits of a server's flags that are its forwarding method.
const METHOD: u32 = 7;

pub(super) fn change(
    command: u8,
    attributes: Attributes<'_>,
    ask: &mut Ask<'_>,
) -> Result<Change, i32> {
    match command {
        FLUSH => return Ok(Change::Flush),
        SET_CONFIG => return Ok(set_timeouts(attributes)),
        ZERO if attributes.get(attr::SERVICE).is_none() => return Ok(Change::Zero { only: None }),
        _ => {}
    }
    let service = service_key(attributes)?;
    let spec = |kept| service_spec(attributes, service.is_ipv6(), kept);
    Ok(match command {
        NEW_SERVICE => Change::AddService {
            service,
            spec: spec(0)?,
        },
        SET_SERVICE => Change::EditService {
            service,
            spec: spec(kept_flags(attributes, service, ask)?)?,
        },
        DEL_SERVICE => Change::DeleteService { service },
        ZERO => Change::Zero {
            only: Some(service),
        },
        NEW_DEST => Change::AddServer {
            service,
            server: server_key(attributes, service)?,
            spec: server_spec(attributes)?,
        },
        SET_DEST => Change::EditServer {
            service,
            server: server_key(attributes, service)?,
            spec: server_spec(attributes)?,
        },
        DEL_DEST => Change::DeleteServer {
            service,
            server: server_key(attributes, service)?,
        },
        _ => return Err(libc::EOPNOTSUPP),
    })
}

/// 0 leaves one as it is.
fn set_timeouts(attributes: Attributes<'_>) -> Change {
    let seconds = |kind| attributes.u32(kind).filter(|seconds| *seconds != 0);
    Change::SetTimeouts {
        tcp: seconds(attr::TIMEOUT_TCP),
        tcp_fin: seconds(attr::TIMEOUT_TCP_FIN),
        udp: seconds(attr::TIMEOUT_UDP),
    }
}

/// An address of either family stands in 16 bytes, from the first on.
fn address(bytes: &[u8], ipv6: bool) -> IpAddr {
    let mut whole = [0; 16];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    let [a, b, c, d, ..] = whole;
    if ipv6 {
        Ipv6Addr::from(whole).into()
    } else {
        Ipv4Addr::new(a, b, c, d).into()
    }
}

fn is_ipv6(family: u16) -> Result<bool, i32> {
    match i32::from(family) {
        libc::AF_INET => Ok(false),
        libc::AF_INET6 => Ok(true),
        _ => Err(libc::EAFNOSUPPORT),
    }
}

pub(super) fn service_key(attributes: Attributes<'_>) -> Result<ServiceKey, i32> {
    let service = attributes.nested(attr::SERVICE).ok_or(libc::EINVAL)?;
    let family = service.u16(svc::AF).ok_or(libc::EINVAL)?;
    if let Some(mark) = service.u32(svc::FWMARK) {
        let ipv6 = is_ipv6(family)?;
        let mark = NonZeroU32::new(mark).ok_or(libc::EINVAL)?;
        return Ok(ServiceKey::Mark { mark, ipv6 });
    }
    let parts = (
        service.u16(svc::PROTOCOL),
        service.get(svc::ADDR),
        service.be16(svc::PORT),
    );
    let (Some(protocol), Some(bytes), Some(port)) = parts else {
        return Err(libc::EINVAL);
    };
    let address = address(bytes, is_ipv6(family)?);
    let protocol = (Protocol::ALL.iter())
        .find(|known| u16::from(known.number()) == protocol)
        .ok_or(libc::EINVAL)?;
    Ok(ServiceKey::at(*protocol, SocketAddr::new(address, port)))
}

/// The flags given, and which of them count.
fn flags(attributes: Attributes<'_>) -> Option<(u32, u32)> {
    let service = attributes.nested(attr::SERVICE)?;
    let (flags, rest) = service.get(svc::FLAGS)?.split_first_chunk()?;
    let mask = rest.first_chunk()?;
    Some((u32::from_ne_bytes(*flags), u32::from_ne_bytes(*mask)))
}

/// The service's flags as they are, where an edit leaves some of them alone.
fn kept_flags(
    attributes: Attributes<'_>,
    service: ServiceKey,
    ask: &mut Ask<'_>,
) -> Result<u32, i32> {
    const ALL: u32 = PERSISTENT | ONE_PACKET | SCHED1 | SCHED2 | SCHED3;
    if flags(attributes).is_none_or(|(_, mask)| mask & ALL == ALL) {
        return Ok(0);
    }
    let found = told::listed(Some(service), ask)?;
    Ok(found
        .first()
        .map_or(0, |service| told::flags_of(&service.spec)))
}

fn service_spec(attributes: Attributes<'_>, ipv6: bool, kept: u32) -> Result<ServiceSpec, i32> {
    let service = attributes.nested(attr::SERVICE).ok_or(libc::EINVAL)?;
    let parts = (
        service.text(svc::SCHED_NAME),
        flags(attributes),
        service.u32(svc::TIMEOUT),
        service
            .get(svc::NETMASK)
            .and_then(|mask| mask.first_chunk()),
    );
    let (Some(scheduler), Some((flags, mask)), Some(timeout_s), Some(netmask)) = parts else {
        return Err(libc::EINVAL);
    };
    let flags = kept & !mask | flags & mask;
    let netmask = if ipv6 {
        let prefix = u8::try_from(u32::from_ne_bytes(*netmask)).map_err(|_| libc::EINVAL)?;
        Netmask::V6(prefix)
    } else {
        Netmask::V4(Ipv4Addr::from(*netmask))
    };
    Ok(ServiceSpec {
        scheduler: scheduler.to_owned(),
        flags: SchedulerFlags {
            fallback: flags & SCHED1 != 0,
            port: flags & SCHED2 != 0,
            third: flags & SCHED3 != 0,
        },
        persistence: (flags & PERSISTENT != 0).then_some(Persistence { timeout_s, netmask }),
        engine: match service.text(svc::PE_NAME) {
            None | Some("") => None,
            Some(name) => Some(engine(name)?),
        },
        one_packet: flags & ONE_PACKET != 0,
    })
}

fn engine(name: &str) -> Result<Engine, i32> {
    let known = Engine::ALL.iter().find(|engine| engine.word() == name);
    known.copied().ok_or(libc::ENOENT)
}

/// A server is of its service's family unless it says otherwise.
fn server_key(attributes: Attributes<'_>, service: ServiceKey) -> Result<SocketAddr, i32> {
    let server = attributes.nested(attr::DEST).ok_or(libc::EINVAL)?;
    let (Some(bytes), Some(port)) = (server.get(dest::ADDR), server.be16(dest::PORT)) else {
        return Err(libc::EINVAL);
    };
    let ipv6 = match server.u16(dest::ADDR_FAMILY) {
        None | Some(0) => service.is_ipv6(),
        Some(family) => is_ipv6(family)?,
    };
    Ok(SocketAddr::new(address(bytes, ipv6), port))
}

fn server_spec(attributes: Attributes<'_>) -> Result<ServerSpec, i32> {
    let server = attributes.nested(attr::DEST).ok_or(libc::EINVAL)?;
    let parts = (
        server.u32(dest::FWD_METHOD),
        server.u32(dest::WEIGHT),
        server.u32(dest::U_THRESH),
        server.u32(dest::L_THRESH),
    );
    let (Some(method), Some(weight), Some(upper), Some(lower)) = parts else {
        return Err(libc::EINVAL);
    };
    let mode = match method & METHOD {
        MASQ => ForwardMode::Nat,
        TUNNEL => ForwardMode::Tunnel,
        DROUTE => ForwardMode::Direct,
        _ => return Err(libc::EINVAL),
    };
    // A signed number to the kernel.
    if weight.cast_signed() < 0 {
        return Err(libc::ERANGE);
    }
    Ok(ServerSpec {
        mode,
        weight,
        tunnel: tunnel(server)?,
        thresholds: Thresholds { upper, lower },
    })
}

fn tunnel(server: Attributes<'_>) -> Result<Tunnel, i32> {
    Ok(Tunnel {
        kind: match server.u8(dest::TUN_TYPE) {
            None | Some(0) => TunnelKind::Ipip,
            Some(1) => TunnelKind::Gue,
            Some(2) => TunnelKind::Gre,
            Some(_) => return Err(libc::EINVAL),
        },
        port: server.be16(dest::TUN_PORT).unwrap_or(0),
        checksum: match server.u16(dest::TUN_FLAGS) {
            None | Some(0) => TunnelChecksum::None,
            Some(1) => TunnelChecksum::Full,
            Some(2) => TunnelChecksum::Remote,
            Some(_) => return Err(libc::EINVAL),
        },
    })
}

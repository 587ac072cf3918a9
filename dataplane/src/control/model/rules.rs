//! What no service, no server and no local address may be.

use std::net::{IpAddr, SocketAddr};

use control::{
    ClientAddress, Errno, ForwardMode, MH_TABLE_SIZES, Protocol, Refusal, ServerSpec, ServiceKey,
    ServiceOptions, ServiceSpec, ServiceTimeouts, Settings, Thresholds, Tunnel, TunnelChecksum,
    TunnelKind, Word,
};

use super::{MSS_MAX, MSS_MIN, THRESHOLD_MAX, TIMEOUT_MAX_S, WEIGHT_MAX, name, refuse};
use crate::net::is_global;
use crate::sched::Kind;
use crate::update::Policy;

/// Of a defence strategy, and of `conn_reuse_mode`.
const LEVEL_MAX: u8 = 3;

pub(super) fn policy(key: &ServiceKey, spec: &ServiceSpec) -> Result<Policy, Refusal> {
    let scheduler = Kind::by_name(&spec.scheduler).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        refuse(
            Errno::Enoent,
            format!(
                "no scheduler {:?}, known are {}",
                spec.scheduler,
                known.join(", ")
            ),
        )
    })?;
    if let ServiceKey::Address { address, .. } = key
        && address.port() == 0
        && spec.persistence.is_none()
    {
        let detail = format!(
            "service {} has port 0 (every port), which goes with persistence only; 1 to 65535 is right without",
            name(key)
        );
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(Policy {
        scheduler,
        flags: spec.flags,
        persistence: spec.persistence,
        engine: spec.engine,
        one_packet: spec.one_packet,
    })
}

/// A service's address; it may have any, as in LVS.
pub(super) fn virtual_address(key: &ServiceKey) -> Result<(), Refusal> {
    key.address().map_or(Ok(()), plain)
}

/// A server's address: LVS takes loopback addresses too.
pub(super) fn server_address(address: SocketAddr) -> Result<(), Refusal> {
    plain(address)?;
    let ip = address.ip();
    if !is_global(ip) && !ip.is_loopback() {
        let detail = format!("server address {ip} is not unicast");
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

pub(super) fn local_address(address: IpAddr) -> Result<(), Refusal> {
    if !is_global(address) {
        let detail =
            format!("local address {address} is not unicast, one that servers can answer is right");
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

/// A zone or a flow label would make two of one address.
fn plain(address: SocketAddr) -> Result<(), Refusal> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0 => {
            let right = SocketAddr::new(address.ip(), address.port());
            let detail = format!("{address} has a zone or a flow label, {right} is right");
            Err(refuse(Errno::Einval, detail))
        }
        _ => Ok(()),
    }
}

/// NAT and direct routing keep the family of a packet.
pub(super) fn same_family(
    key: &ServiceKey,
    address: SocketAddr,
    spec: ServerSpec,
) -> Result<(), Refusal> {
    let mixes = matches!(spec.mode, ForwardMode::Tunnel | ForwardMode::FullNat);
    if !mixes && address.is_ipv6() != key.is_ipv6() {
        let detail = format!(
            "server {address} and service {} are of two families, tunnel or fullnat is right for that, not {}",
            name(key),
            spec.mode.word()
        );
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

/// Who answers through a local address answers all clients alike: without a connection nobody knows
/// which one is meant.
pub(super) fn answerable(
    key: &ServiceKey,
    policy: &Policy,
    address: SocketAddr,
    mode: ForwardMode,
) -> Result<(), Refusal> {
    let has_datagrams = key.protocol().is_none_or(|p| p == Protocol::Udp);
    if policy.one_packet && has_datagrams && mode == ForwardMode::FullNat {
        let detail = format!(
            "server {address} has method fullnat, but service {} schedules each packet by itself, \
             for which nat, direct routing or tunnel is right",
            name(key)
        );
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

/// Direct routing and tunnels leave a packet's port alone.
pub(super) fn same_port(
    key: &ServiceKey,
    address: SocketAddr,
    spec: ServerSpec,
) -> Result<(), Refusal> {
    // A service by mark has clients of many ports.
    let Some(port) = key.address().map(|address| address.port()) else {
        return Ok(());
    };
    let kept = match spec.mode {
        ForwardMode::Direct => "direct routing",
        ForwardMode::Tunnel => "a tunnel",
        ForwardMode::Nat | ForwardMode::FullNat => return Ok(()),
    };
    if address.port() != port {
        let detail = format!(
            "server {address} has another port than its service, {port} is right for {kept}"
        );
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

/// The tunnel's port and checksum go with its kind, and a tunnel goes with its method.
pub(super) fn tunnel(address: SocketAddr, spec: ServerSpec) -> Result<(), Refusal> {
    let Tunnel {
        kind,
        port,
        checksum,
    } = spec.tunnel;
    let reason = if spec.mode != ForwardMode::Tunnel && spec.tunnel != Tunnel::default() {
        format!(
            "is reached by {}, a tunnel's kind, port and checksum go with method tunnel",
            spec.mode.word()
        )
    } else if kind == TunnelKind::Gue && port == 0 {
        "has a gue tunnel without a port, 1 to 65535 is right".to_owned()
    } else if kind != TunnelKind::Gue && port != 0 {
        format!("has a tunnel port, which only gue has, not {}", kind.word())
    } else if kind == TunnelKind::Ipip && checksum != TunnelChecksum::None {
        "has an ipip tunnel with a checksum, none is right".to_owned()
    } else if kind == TunnelKind::Gre && checksum == TunnelChecksum::Remote {
        "has a gre tunnel with a remote checksum, none or full is right".to_owned()
    } else {
        return Ok(());
    };
    Err(refuse(Errno::Einval, format!("server {address} {reason}")))
}

pub(super) fn weighed(spec: ServerSpec, address: SocketAddr) -> Result<(), Refusal> {
    let weight = spec.weight;
    if weight > WEIGHT_MAX {
        let detail = format!(
            "weight {weight} of server {address} is too high, at most {WEIGHT_MAX} is right"
        );
        return Err(refuse(Errno::Erange, detail));
    }
    let Thresholds { upper, lower } = spec.thresholds;
    if upper > THRESHOLD_MAX {
        let detail = format!(
            "upper threshold {upper} of server {address} is too high, at most {THRESHOLD_MAX} is right"
        );
        return Err(refuse(Errno::Erange, detail));
    }
    if lower > upper {
        let detail = format!(
            "lower threshold {lower} of server {address} is above the upper one, {upper} or less is right"
        );
        return Err(refuse(Errno::Erange, detail));
    }
    Ok(())
}

pub(super) fn options(key: &ServiceKey, options: ServiceOptions) -> Result<(), Refusal> {
    let wrong = |detail| Err(refuse(Errno::Einval, detail));
    let ServiceOptions {
        client_address,
        mss,
        mh_table_size,
        timeouts,
        reset_on_expiry,
        ..
    } = options;
    timeouts_of(key, timeouts)?;
    let tcp = key
        .protocol()
        .is_none_or(|protocol| protocol == Protocol::Tcp);
    let proxy = matches!(
        client_address,
        ClientAddress::ProxyV1 | ClientAddress::ProxyV2
    );
    if proxy && !tcp {
        return wrong(format!(
            "service {} is not TCP, client address {} needs TCP; toa, uoa or none is right",
            name(key),
            client_address.word()
        ));
    }
    if reset_on_expiry && !tcp {
        return wrong(format!(
            "service {} is not TCP, only TCP connections are reset on expiry",
            name(key)
        ));
    }
    if let Some(size) = mh_table_size.filter(|size| !MH_TABLE_SIZES.contains(size)) {
        let right = MH_TABLE_SIZES.map(|size| size.to_string()).join(", ");
        return wrong(format!(
            "mh table size {size} of service {} is none of LVS's, one of {right} is right",
            name(key)
        ));
    }
    match mss {
        Some(_) if !tcp => wrong(format!(
            "service {} is not TCP, only TCP has an MSS",
            name(key)
        )),
        Some(mss) if !(MSS_MIN..=MSS_MAX).contains(&mss) => wrong(format!(
            "mss {mss} of service {} is out of range, {MSS_MIN} to {MSS_MAX} is right",
            name(key)
        )),
        _ => Ok(()),
    }
}

/// Timeouts of a service's own are those of its protocol, and no longer than those of all services.
fn timeouts_of(key: &ServiceKey, timeouts: ServiceTimeouts) -> Result<(), Refusal> {
    let ServiceTimeouts { tcp, tcp_fin, udp } = timeouts;
    for (what, seconds, protocol) in [
        ("tcp", tcp, Protocol::Tcp),
        ("tcp_fin", tcp_fin, Protocol::Tcp),
        ("udp", udp, Protocol::Udp),
    ] {
        let Some(seconds) = seconds else { continue };
        let reason = if key.protocol().is_some_and(|other| other != protocol) {
            format!("goes with {} only", protocol.name())
        } else if !(1..=TIMEOUT_MAX_S).contains(&seconds) {
            format!("is out of range, 1 to {TIMEOUT_MAX_S} (31 days) is right")
        } else {
            continue;
        };
        let detail = format!(
            "{what} timeout {seconds} s of service {} {reason}",
            name(key)
        );
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

pub(super) fn settings(settings: &Settings) -> Result<(), Refusal> {
    for (what, level) in [
        ("conn_reuse_mode", settings.conn_reuse_mode),
        ("drop_entry", settings.drop_entry),
        ("drop_packet", settings.drop_packet),
        ("secure_tcp", settings.secure_tcp),
    ] {
        if level > LEVEL_MAX {
            let detail = format!("{what} {level} is out of range, 0 to {LEVEL_MAX} is right");
            return Err(refuse(Errno::Einval, detail));
        }
    }
    if settings.am_droprate == 0 {
        let detail = "am_droprate 0 is out of range, 1 or more is right".to_owned();
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

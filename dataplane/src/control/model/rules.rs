//! What no service, no server and no local address may be.

use std::net::{IpAddr, SocketAddr};

use control::{
    ClientAddress, Errno, ForwardMode, HashTarget, MH_TABLE_SIZE_MAX, MH_TABLE_SIZE_MIN, Netmask,
    Persistence, Protocol, Refusal, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec,
    ServiceTimeouts, Thresholds, Tunnel, TunnelChecksum, TunnelKind, Word,
};

use super::{MSS_MAX, MSS_MIN, SLOW_START_MAX_S, THRESHOLD_MAX, TIMEOUT_MAX_S, WEIGHT_MAX};
use super::{name, refuse};
use crate::net::is_global;
use crate::sched::Kind;
use crate::update::Policy;

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
    let wrong = match spec.persistence {
        Some(persistence) => wrong_persistence(key, persistence),
        None => (key.address().is_some() && key.port() == 0).then_some(
            "has port 0 (every port), which goes with persistence only; 1 to 65535 is right without".to_owned(),
        ),
    };
    let wrong = wrong.or_else(|| {
        let protocol = key
            .protocol()
            .filter(|protocol| *protocol != Protocol::Udp)?;
        spec.one_packet.then(|| {
            let protocol = protocol.name();
            format!(
                "has single packets scheduled, for which udp or a mark is right, not {protocol}"
            )
        })
    });
    if let Some(wrong) = wrong {
        let detail = format!("service {} {wrong}", name(key));
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

/// LVS takes any mask for IPv4.
fn wrong_persistence(key: &ServiceKey, persistence: Persistence) -> Option<String> {
    let Persistence { timeout_s, netmask } = persistence;
    if !(1..=TIMEOUT_MAX_S).contains(&timeout_s) {
        return Some(format!(
            "has persistence of {timeout_s} s, 1 to {TIMEOUT_MAX_S} is right"
        ));
    }
    match (netmask, key.is_ipv6()) {
        (Netmask::V4(_), false) | (Netmask::V6(1..=128), true) => None,
        (Netmask::V4(mask), true) => Some(format!(
            "has netmask {mask}, a prefix length of 1 to 128 is right for IPv6"
        )),
        (Netmask::V6(prefix), true) => {
            Some(format!("has netmask {prefix}, 1 to 128 is right for IPv6"))
        }
        (Netmask::V6(prefix), false) => Some(format!(
            "has netmask {prefix}, one like 255.255.255.0 is right for IPv4"
        )),
    }
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
    let has_datagrams = key.may_be(Protocol::Udp);
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
        refuse: _,
        on_server_gone: _,
        reset_on_expiry,
        slow_start_s,
        hash_target,
    } = options;
    let (tcp, udp) = (key.may_be(Protocol::Tcp), key.may_be(Protocol::Udp));
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
    if let Some(size) = mh_table_size.filter(|size| *size != prime_near(*size)) {
        return wrong(format!(
            "mh table size {size} of service {} is not a prime from {MH_TABLE_SIZE_MIN} to {MH_TABLE_SIZE_MAX}, {} is right",
            name(key),
            prime_near(size)
        ));
    }
    if hash_target == HashTarget::Qid && !udp {
        return wrong(format!(
            "service {} is not UDP, hash target qid needs QUIC; sip is right",
            name(key)
        ));
    }
    if reset_on_expiry && !tcp {
        return wrong(format!(
            "service {} is not TCP, only TCP has resets; false is right for reset on expiry",
            name(key)
        ));
    }
    if slow_start_s > SLOW_START_MAX_S {
        return wrong(format!(
            "slow start of {slow_start_s} s of service {} is too long, 0 to {SLOW_START_MAX_S} is right",
            name(key)
        ));
    }
    own_timeouts(key, timeouts)?;
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

fn own_timeouts(key: &ServiceKey, timeouts: ServiceTimeouts) -> Result<(), Refusal> {
    let ServiceTimeouts { tcp, tcp_fin, udp } = timeouts;
    for (timeout, kind, of) in [
        (tcp, "tcp", Protocol::Tcp),
        (tcp_fin, "tcp-fin", Protocol::Tcp),
        (udp, "udp", Protocol::Udp),
    ] {
        let Some(seconds) = timeout else { continue };
        let detail = if !key.may_be(of) {
            format!("service {} has no {kind} timeout, none is right", name(key))
        } else if !(1..=TIMEOUT_MAX_S).contains(&seconds) {
            format!(
                "{kind} timeout {seconds} of service {} is out of range, 1 to {TIMEOUT_MAX_S} is right",
                name(key)
            )
        } else {
            continue;
        };
        return Err(refuse(Errno::Einval, detail));
    }
    Ok(())
}

/// The first prime from `size` on that a table of `mh` can have.
fn prime_near(size: u32) -> u32 {
    let is_prime = |n: &u32| {
        (2..)
            .take_while(|d| d * d <= *n)
            .all(|d| !n.is_multiple_of(d))
    };
    let sizes = size.clamp(MH_TABLE_SIZE_MIN, MH_TABLE_SIZE_MAX)..=MH_TABLE_SIZE_MAX;
    sizes
        .into_iter()
        .find(is_prime)
        .unwrap_or(MH_TABLE_SIZE_MAX)
}

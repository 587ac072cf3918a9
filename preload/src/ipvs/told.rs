//! What there is, as the kernel tells of it.

use std::net::IpAddr;

use control::ipvsadm::show::as_walked;
use control::{
    ForwardMode, Netmask, Rates, Reply, Request, Server, ServerSpec, Service, ServiceKey,
    ServiceSpec, SyncDaemon, SyncRole, SyncStatus, Totals, TunnelChecksum, TunnelKind, Word,
};

use super::{
    Ask, BACKUP, DROUTE, Item, MASQ, MASTER, NEW_DAEMON, NEW_DEST, NEW_SERVICE, ONE_PACKET,
    PERSISTENT, SCHED1, SCHED2, SCHED3, SET_CONFIG, SET_INFO, TUNNEL, ask_for, asked, attr, daemon,
    dest, svc,
};
use crate::netlink::{Attributes, Writer};

/// IPVS 1.2.1, with as many buckets as ipvsadm's first line says elsewhere.
const VERSION: u32 = 0x0001_0201;
const TABLE_SIZE: u32 = 4096;

const INFO_VERSION: u16 = 1;
const INFO_TABLE_SIZE: u16 = 2;

/// The kernel's own: it is in the table.
const HASHED: u32 = 0x2;

/// All services, or the one named, as the kernel walks them.
pub(super) fn listed(only: Option<ServiceKey>, ask: &mut Ask<'_>) -> Result<Vec<Service>, i32> {
    match ask_for(&Request::Services { only }, ask)? {
        Reply::Services(services) => Ok(as_walked(services)),
        _ => Err(libc::EPROTO),
    }
}

pub(super) fn services(only: Option<ServiceKey>, ask: &mut Ask<'_>) -> Result<Vec<Item>, i32> {
    let item = |service: &Service| Item {
        command: NEW_SERVICE,
        attributes: within(attr::SERVICE, |out| put_service(out, service)),
    };
    Ok(listed(only, ask)?.iter().map(item).collect())
}

/// A listing of servers is empty where there is no such service.
pub(super) fn servers(attributes: Attributes<'_>, ask: &mut Ask<'_>) -> Result<Vec<Item>, i32> {
    let Ok(key) = asked::service_key(attributes) else {
        return Ok(Vec::new());
    };
    let found = match listed(Some(key), ask) {
        Err(libc::ESRCH) => Vec::new(),
        found => found?,
    };
    let item = |server: &Server| Item {
        command: NEW_DEST,
        attributes: within(attr::DEST, |out| put_server(out, server)),
    };
    let servers = found.iter().flat_map(|service| &service.servers);
    let servers = servers.filter(|server| server.is_listed());
    Ok(servers.map(item).collect())
}

/// The master first, as the kernel.
pub(super) fn daemons(ask: &mut Ask<'_>) -> Result<Vec<Item>, i32> {
    let Reply::SyncDaemons(daemons) = ask_for(&Request::SyncDaemons, ask)? else {
        return Err(libc::EPROTO);
    };
    let item = |status: &SyncStatus| Item {
        command: NEW_DAEMON,
        attributes: within(attr::DAEMON, |out| put_daemon(out, &status.daemon)),
    };
    Ok(daemons.iter().map(item).collect())
}

fn put_daemon(out: &mut Writer, one: &SyncDaemon) {
    let state = match one.role {
        SyncRole::Master => MASTER,
        SyncRole::Backup => BACKUP,
    };
    out.u32(daemon::STATE, state);
    out.text(daemon::MCAST_IFN, &one.interface);
    out.u32(daemon::SYNC_ID, one.sync_id.into());
    out.u16(daemon::SYNC_MAXLEN, one.max_len.unwrap_or_default());
    out.u16(daemon::MCAST_PORT, one.port);
    out.u8(daemon::MCAST_TTL, one.ttl);
    match one.group {
        IpAddr::V4(group) => out.put(daemon::MCAST_GROUP, &group.octets()),
        IpAddr::V6(group) => out.put(daemon::MCAST_GROUP6, &group.octets()),
    }
}

pub(super) fn timeouts(ask: &mut Ask<'_>) -> Result<Item, i32> {
    let Reply::Timeouts { tcp, tcp_fin, udp } = ask_for(&Request::Timeouts, ask)? else {
        return Err(libc::EPROTO);
    };
    let mut out = Writer::default();
    out.u32(attr::TIMEOUT_TCP, tcp);
    out.u32(attr::TIMEOUT_TCP_FIN, tcp_fin);
    out.u32(attr::TIMEOUT_UDP, udp);
    Ok(Item {
        command: SET_CONFIG,
        attributes: out.0,
    })
}

/// Programs take the answer for a sign that IPVS is there: without a director there is none.
pub(super) fn info(ask: &mut Ask<'_>) -> Result<Item, i32> {
    ask_for(&Request::Timeouts, ask)?;
    let mut out = Writer::default();
    out.u32(INFO_VERSION, VERSION);
    out.u32(INFO_TABLE_SIZE, TABLE_SIZE);
    Ok(Item {
        command: SET_INFO,
        attributes: out.0,
    })
}

fn within(kind: u16, write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.nested(kind, write);
    out.0
}

fn put_family(out: &mut Writer, kind: u16, ipv6: bool) {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    out.u16(kind, u16::try_from(family).unwrap_or(0));
}

fn put_address(out: &mut Writer, kind: u16, address: IpAddr) {
    let mut bytes = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    bytes.resize(16, 0);
    out.put(kind, &bytes);
}

pub(super) fn flags_of(spec: &ServiceSpec) -> u32 {
    let set = [
        (spec.persistence.is_some(), PERSISTENT),
        (spec.one_packet, ONE_PACKET),
        (spec.flags.fallback, SCHED1),
        (spec.flags.port, SCHED2),
        (spec.flags.third, SCHED3),
    ];
    let set = set.iter().filter(|(set, _)| *set);
    set.fold(HASHED, |flags, (_, flag)| flags | flag)
}

fn put_service(out: &mut Writer, service: &Service) {
    let spec = &service.spec;
    put_family(out, svc::AF, service.key.is_ipv6());
    match service.key {
        ServiceKey::Mark { mark, .. } => out.u32(svc::FWMARK, mark.get()),
        ServiceKey::Address { protocol, address } => {
            out.u16(svc::PROTOCOL, protocol.number().into());
            put_address(out, svc::ADDR, address.ip());
            out.be16(svc::PORT, address.port());
        }
    }
    out.text(svc::SCHED_NAME, &spec.scheduler);
    if let Some(engine) = spec.engine {
        out.text(svc::PE_NAME, engine.word());
    }
    let flags = [flags_of(spec).to_ne_bytes(), u32::MAX.to_ne_bytes()];
    out.put(svc::FLAGS, flags.as_flattened());
    let whole = Netmask::whole(service.key.is_ipv6());
    let (timeout_s, netmask) = (spec.persistence).map_or((0, whole), |persistence| {
        (persistence.timeout_s, persistence.netmask)
    });
    out.u32(svc::TIMEOUT, timeout_s);
    match netmask {
        Netmask::V4(mask) => out.put(svc::NETMASK, &mask.octets()),
        Netmask::V6(prefix) => out.u32(svc::NETMASK, prefix.into()),
    }
    out.nested(svc::STATS, |out| {
        put_stats(out, service.totals, service.rates)
    });
    out.nested(svc::STATS64, |out| {
        put_stats64(out, service.totals, service.rates)
    });
}

fn put_server(out: &mut Writer, server: &Server) {
    let ServerSpec {
        mode,
        tunnel,
        thresholds,
        ..
    } = server.spec;
    put_address(out, dest::ADDR, server.address.ip());
    out.be16(dest::PORT, server.address.port());
    let method = match mode {
        // The kernel has no word for the one of both addresses.
        ForwardMode::Nat | ForwardMode::FullNat => MASQ,
        ForwardMode::Tunnel => TUNNEL,
        ForwardMode::Direct => DROUTE,
    };
    out.u32(dest::FWD_METHOD, method);
    out.u32(dest::WEIGHT, server.weight_listed());
    let kind = match tunnel.kind {
        TunnelKind::Ipip => 0,
        TunnelKind::Gue => 1,
        TunnelKind::Gre => 2,
    };
    out.u8(dest::TUN_TYPE, kind);
    out.be16(dest::TUN_PORT, tunnel.port);
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => 0,
        TunnelChecksum::Full => 1,
        TunnelChecksum::Remote => 2,
    };
    out.u16(dest::TUN_FLAGS, checksum);
    out.u32(dest::U_THRESH, thresholds.upper);
    out.u32(dest::L_THRESH, thresholds.lower);
    out.u32(dest::ACTIVE_CONNS, server.active);
    out.u32(dest::INACT_CONNS, server.inactive);
    out.u32(dest::PERSIST_CONNS, server.persistent);
    put_family(out, dest::ADDR_FAMILY, server.address.is_ipv6());
    out.nested(dest::STATS, |out| {
        put_stats(out, server.totals, server.rates)
    });
    out.nested(dest::STATS64, |out| {
        put_stats64(out, server.totals, server.rates)
    });
}

/// The ten counters, of which these are the first five.
fn numbers(totals: Totals, rates: Rates) -> impl Iterator<Item = (u16, u64)> {
    let Rates {
        cps,
        in_pps,
        out_pps,
        in_bps,
        out_bps,
    } = rates;
    let rates = [cps, in_pps, out_pps, in_bps, out_bps];
    (1..).zip(totals.columns().into_iter().chain(rates))
}

/// Of old: all but the bytes are cut to 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "as the kernel cuts them")]
fn put_stats(out: &mut Writer, totals: Totals, rates: Rates) {
    for (kind, number) in numbers(totals, rates) {
        match kind {
            4 | 5 => out.u64(kind, number),
            _ => out.u32(kind, number as u32),
        }
    }
}

fn put_stats64(out: &mut Writer, totals: Totals, rates: Rates) {
    for (kind, number) in numbers(totals, rates) {
        out.u64(kind, number);
    }
}

//! Replies as ipvsadm's tables, byte for byte.

use std::cmp::Ordering;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::args::{Opt, Parsed};
use super::names::{Names, Transport};
use super::options;
use crate::{Connection, ForwardMode, HashTarget, Persistence, Protocol, SchedulerFlags};
use crate::{Server, Service, SyncDaemon, SyncStatus};
use crate::{ServiceKey, ServiceSpec, Thresholds, Tunnel, TunnelChecksum, TunnelKind, Word};

/// Names longer than these are cut in the table.
const SERVICE_NAME_MAX: usize = 33;
const SERVER_NAME_MAX: usize = 28;

/// Which columns a listing has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
}

/// How a listing is printed.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    pub format: Format,
    /// Whole numbers instead of K, M, G and T.
    pub exact: bool,
    /// By LVS's comparison; else as LVS walks them.
    pub sorted: bool,
    /// `None` prints numbers.
    pub names: Option<&'a dyn Names>,
}

impl std::fmt::Debug for Style<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Style")
            .field("format", &self.format)
            .field("exact", &self.exact)
            .field("sorted", &self.sorted)
            .field("numeric", &self.names.is_none())
            .finish()
    }
}

impl<'a> Style<'a> {
    /// What a command line asks for.
    pub fn of(parsed: &Parsed, names: &'a dyn Names) -> Self {
        let formats = [
            (Opt::Stats, Format::Stats),
            (Opt::Rate, Format::Rate),
            (Opt::Thresholds, Format::Thresholds),
            (Opt::PersistentConn, Format::PersistentConn),
            (Opt::TunInfo, Format::TunInfo),
        ];
        let format = formats.iter().find(|(opt, _)| parsed.has(*opt));
        Self {
            format: format.map_or(Format::Plain, |(_, format)| *format),
            exact: parsed.has(Opt::Exact),
            sorted: !parsed.has(Opt::NoSort),
            names: (!parsed.has(Opt::Numeric)).then_some(names),
        }
    }

    /// `ADDRESS:PORT`, by name where there is one.
    fn address(&self, address: SocketAddr, protocol: Protocol) -> String {
        let transport = match protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => Transport::Sctp,
        };
        let host = self.names.and_then(|names| names.host_name(address.ip()));
        let port = self
            .names
            .and_then(|names| names.port_name(address.port(), transport));
        let host = host.unwrap_or_else(|| address.ip().to_string());
        let port = port.unwrap_or_else(|| address.port().to_string());
        if address.is_ipv6() {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

/// The lines above all services.
pub const TITLE: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";

/// The services' table.
pub fn services(services: Vec<Service>, style: &Style<'_>) -> String {
    let mut out = header(style.format);
    for service in in_order(services, style.sorted) {
        service_line(&mut out, &service, style);
        let listed = service.servers.iter().filter(|server| server.is_listed());
        for server in listed {
            server_line(&mut out, server, transport(&service), style);
        }
    }
    out
}

/// The services as command lines for `ipvsadm -R`.
pub fn save(services: Vec<Service>, style: &Style<'_>) -> String {
    let mut out = String::new();
    for service in in_order(services, style.sorted) {
        let protocol = transport(&service);
        let name = match service.key {
            ServiceKey::Address { protocol, address } => {
                let flag = match protocol {
                    Protocol::Tcp => "-t",
                    Protocol::Udp => "-u",
                    Protocol::Sctp => "--sctp-service",
                };
                format!("{flag} {}", style.address(address, protocol))
            }
            ServiceKey::Mark { mark, ipv6 } => {
                let family = if ipv6 { " -6" } else { "" };
                format!("-f {}{family}", mark.get().cast_signed())
            }
        };
        let spec = &service.spec;
        let (flags, target) = (flag_options(spec), hash_target_option(&service));
        let own = options::written(&service.options);
        line(
            &mut out,
            format_args!("-A {name} -s {}{target}{own}{flags}", spec.scheduler),
        );
        for local in &service.local_addresses {
            let address = local.address;
            line(&mut out, format_args!("--add-laddr {name} -z {address}"));
        }
        for server in &service.servers {
            let method = match server.spec.mode {
                ForwardMode::Nat => "-m",
                ForwardMode::Direct => "-g",
                ForwardMode::Tunnel => "-i",
                ForwardMode::FullNat => "--fullnat",
            };
            let address = style.address(server.address, protocol);
            let weight = server.spec.weight;
            let tunnel = match server.spec.mode {
                ForwardMode::Tunnel => tunnel_options(server.spec.tunnel),
                _ => String::new(),
            };
            line(
                &mut out,
                format_args!("-a {name} -r {address} {method} -w {weight}{tunnel}"),
            );
        }
    }
    out
}

/// ` --tun-type gue --tun-port 6080 --tun-csum`
fn tunnel_options(tunnel: Tunnel) -> String {
    let port = match tunnel.kind {
        TunnelKind::Gue => format!(" --tun-port {}", tunnel.port),
        TunnelKind::Ipip | TunnelKind::Gre => String::new(),
    };
    let checksum = match (tunnel.kind, tunnel.checksum) {
        (TunnelKind::Ipip, _) => "",
        (_, TunnelChecksum::None) => " --tun-nocsum",
        (_, TunnelChecksum::Full) => " --tun-csum",
        (_, TunnelChecksum::Remote) => " --tun-remcsum",
    };
    format!(" --tun-type {}{port}{checksum}", tunnel.kind.word())
}

/// `gue:6080:+c`
fn tunnel_info(tunnel: Tunnel) -> String {
    let checksum = match tunnel.checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Full => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match tunnel.kind {
        TunnelKind::Ipip => "ipip".to_owned(),
        TunnelKind::Gue => format!("gue:{}:{checksum}", tunnel.port),
        TunnelKind::Gre => format!("gre:{checksum}"),
    }
}

/// The local addresses, each on a line with its service, how often it had no free port, and the
/// connections that hold one; ours, upstream has none.
pub fn local_addresses(services: Vec<Service>, style: &Style<'_>) -> String {
    let mut out = String::new();
    line(
        &mut out,
        format_args!(
            "{:<33} {:<6} {:<39} {:<10} Conns",
            "Prot VIP:VPORT", "Total", "LocalAddress", "Exhausted"
        ),
    );
    for service in in_order(services, style.sorted) {
        let name = service_name(&service, style, None);
        let total = service.local_addresses.len();
        for local in &service.local_addresses {
            let (address, exhausted, in_use) = (local.address, local.exhausted, local.in_use);
            line(
                &mut out,
                format_args!("{name:<33} {total:<6} {address:<39} {exhausted:<10} {in_use}"),
            );
        }
        if total == 0 {
            line(&mut out, format_args!("{name:<33} {total:<6} -"));
        }
    }
    out
}

/// The line under `--timeout`.
pub fn timeouts(tcp: u32, tcp_fin: u32, udp: u32) -> String {
    format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
}

/// One line each.
pub fn daemons(daemons: &[SyncStatus]) -> String {
    let line = |status: &SyncStatus| {
        let SyncDaemon {
            role,
            interface,
            sync_id,
            max_len,
            group,
            port,
            ttl,
        } = &status.daemon;
        let max_len = max_len.unwrap_or_default();
        format!(
            "{role} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={max_len}, \
             group={group}, port={port}, ttl={ttl})\n"
        )
    };
    daemons.iter().map(line).collect()
}

/// The lines above all connections.
pub fn connections_title(style: &Style<'_>) -> String {
    let mut out = String::from("IPVS connection entries\n");
    let title = match style.format {
        Format::PersistentConn => format!(
            "pro expire {:<11} {:<18} {:<18} {:<18} {:<16} pe_data",
            "state", "source", "virtual", "destination", "pe name"
        ),
        _ => format!(
            "pro expire {:<11} {:<18} {:<18} destination",
            "state", "source", "virtual"
        ),
    };
    line(&mut out, format_args!("{title}"));
    out
}

/// One page of connections. In FULLNAT the local address comes last, as with DPVS.
pub fn connections(list: &[Connection], style: &Style<'_>) -> String {
    let mut out = String::new();
    for conn in list {
        let seconds = conn.expires_ms / 1000;
        let expire = format!("{:02}:{:02}", seconds / 60, seconds % 60);
        let name = |address| style.address(address, conn.protocol.unwrap_or(Protocol::Tcp));
        let mut server = name(conn.server);
        if let Some(local) = conn.local {
            server = format!("{server:<18} {}", name(local));
        }
        if let (Format::PersistentConn, Some((engine, data))) = (style.format, &conn.engine) {
            // Narrow where the title is wide and the other way round, as upstream's.
            server = format!("{server:<16} {:<18} {data}", engine.word());
        }
        line(
            &mut out,
            format_args!(
                "{:<3} {expire:<6} {:<11} {:<18} {:<18} {server}",
                conn.protocol.map_or("IP", protocol),
                conn.state,
                name(conn.client),
                name(conn.virtual_address),
            ),
        );
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// Whose names of ports a service's servers have: LVS takes a marked service's for TCP's.
fn transport(service: &Service) -> Protocol {
    service.key.protocol().unwrap_or(Protocol::Tcp)
}

/// `TCP  10.0.0.1:80`, `FWM  7 IPv6`; addresses of IPv4 cut to `max` characters.
fn service_name(service: &Service, style: &Style<'_>, max: Option<usize>) -> String {
    match service.key {
        ServiceKey::Address {
            protocol: transport,
            address,
        } => {
            let name = match max {
                Some(max) => cut(style, address, transport, max),
                None => style.address(address, transport),
            };
            format!("{:<4} {name}", protocol(transport))
        }
        // LVS prints the mark as a signed number.
        ServiceKey::Mark { mark, ipv6 } => {
            let family = if ipv6 { " IPv6" } else { "" };
            format!("FWM  {}{family}", mark.get().cast_signed())
        }
    }
}

fn header(format: Format) -> String {
    const LOCAL: &str = "Prot LocalAddress:Port";
    const REMOTE: &str = "  -> RemoteAddress:Port";
    const FLAGS: &str = "Prot LocalAddress:Port Scheduler Flags";
    let counters = |names: [&str; 5]| {
        let [a, b, c, d, e] = names;
        format!("{LOCAL:<33} {a:>8} {b:>8} {c:>8} {d:>8} {e:>8}\n{REMOTE}\n")
    };
    match format {
        Format::Plain => {
            format!("{FLAGS}\n{REMOTE}           Forward Weight ActiveConn InActConn\n")
        }
        Format::TunInfo => format!(
            "{FLAGS}\n{REMOTE}           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        ),
        Format::Stats => counters(["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"]),
        Format::Rate => counters(["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"]),
        Format::Thresholds => format!(
            "{LOCAL:<33} {:<10} {:<10} {:<10} {:<10}\n{REMOTE}\n",
            "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        ),
        Format::PersistentConn => format!(
            "{LOCAL:<33} {:<9} {:<11} {:<10} {:<10}\n{REMOTE}\n",
            "Weight", "PersistConn", "ActiveConn", "InActConn"
        ),
    }
}

fn service_line(out: &mut String, service: &Service, style: &Style<'_>) {
    let padded = service_name(service, style, Some(SERVICE_NAME_MAX));
    match style.format {
        Format::Stats => {
            let numbers = service.totals.columns();
            line(out, format_args!("{padded:<33}{}", large(numbers, style)));
        }
        Format::Rate => {
            let r = &service.rates;
            let numbers = [r.cps, r.in_pps, r.out_pps, r.in_bps, r.out_bps];
            line(out, format_args!("{padded:<33}{}", large(numbers, style)));
        }
        _ => line(out, format_args!("{padded} {}", flags(&service.spec))),
    }
}

/// `wlc`, `sh (sh-fallback) persistent 360 mask 255.255.255.0 pe sip ops`
fn flags(spec: &ServiceSpec) -> String {
    let names = spec.flags.names(&spec.scheduler).join(",");
    let flagged = spec.flags != SchedulerFlags::default();
    let mut out = spec.scheduler.clone();
    if flagged {
        out += &format!(" ({names})");
    }
    if let Some(Persistence { timeout_s, netmask }) = spec.persistence {
        out += &format!(" persistent {timeout_s}");
        if !netmask.is_whole() {
            out += &format!(" mask {netmask}");
        }
        // One without persistence does nothing, and is only saved.
        if let Some(engine) = spec.engine {
            out += &format!(" pe {}", engine.word());
        }
    }
    if spec.one_packet {
        out += " ops";
    }
    out
}

/// ` -p 360 -M 255.255.255.0 --pe sip -o -b sh-fallback`
fn flag_options(spec: &ServiceSpec) -> String {
    let mut out = String::new();
    if let Some(Persistence { timeout_s, netmask }) = spec.persistence {
        out += &format!(" -p {timeout_s}");
        if !netmask.is_whole() {
            out += &format!(" -M {netmask}");
        }
    }
    if let Some(engine) = spec.engine {
        out += &format!(" --pe {}", engine.word());
    }
    if spec.one_packet {
        out += " -o";
    }
    // Last: where there is but the third flag, which has no name with sh and mh, nothing follows.
    if spec.flags != SchedulerFlags::default() {
        out += &format!(" -b {}", spec.flags.names(&spec.scheduler).join(","));
    }
    out
}

/// ` --hash-target qid`; ours, like the scheduler that goes by it.
fn hash_target_option(service: &Service) -> String {
    let target = service.options.hash_target;
    if service.spec.scheduler != "conhash" || target == HashTarget::default() {
        return String::new();
    }
    format!(" --hash-target {}", target.word())
}

fn server_line(out: &mut String, server: &Server, protocol: Protocol, style: &Style<'_>) {
    let name = cut(style, server.address, protocol, SERVER_NAME_MAX);
    let name = format!("  -> {name:<28}");
    let method = match server.spec.mode {
        ForwardMode::Nat => "Masq",
        ForwardMode::Direct => "Route",
        ForwardMode::Tunnel => "Tunnel",
        ForwardMode::FullNat => "FullNat",
    };
    let (weight, active, inactive) = (server.weight_listed(), server.active, server.inactive);
    match style.format {
        Format::Plain => line(
            out,
            format_args!("{name} {method:<7} {weight:<6} {active:<10} {inactive:<10}"),
        ),
        Format::TunInfo => {
            let tunnel = match server.spec.mode {
                ForwardMode::Tunnel => tunnel_info(server.spec.tunnel),
                _ => "n/a".to_owned(),
            };
            line(
                out,
                format_args!(
                    "{name} {method:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}"
                ),
            );
        }
        Format::Stats => {
            let numbers = server.totals.columns();
            line(out, format_args!("{name}{}", large(numbers, style)));
        }
        Format::Rate => {
            let r = &server.rates;
            let bytes = large([r.in_bps, r.out_bps], style);
            line(
                out,
                format_args!(
                    "{name} {:>8} {:>8} {:>8}{bytes}",
                    r.cps, r.in_pps, r.out_pps
                ),
            );
        }
        Format::Thresholds => {
            let Thresholds { upper, lower } = server.spec.thresholds;
            line(
                out,
                format_args!("{name} {upper:<10} {lower:<10} {active:<10} {inactive:<10}"),
            );
        }
        Format::PersistentConn => {
            let persistent = server.persistent;
            line(
                out,
                format_args!("{name} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}"),
            );
        }
    }
}

/// An address's name; IPv4 ones are cut to the column.
fn cut(style: &Style<'_>, address: SocketAddr, protocol: Protocol, max: usize) -> String {
    let name = style.address(address, protocol);
    if address.is_ipv4() {
        name.chars().take(max).collect()
    } else {
        name
    }
}

fn large<const N: usize>(numbers: [u64; N], style: &Style<'_>) -> String {
    let mut out = String::new();
    for n in numbers {
        // Writing to a string cannot fail.
        let _ = match n {
            _ if style.exact => {
                // A blank always precedes it, however long it is.
                let digits = n.to_string();
                write!(out, " {digits:>8}")
            }
            0..=99_999_999 => write!(out, "{n:>9}"),
            100_000_000..=999_999_999 => write!(out, "{:>8}K", n / 1000),
            1_000_000_000..=99_999_999_999 => write!(out, "{:>8}M", n / 1_000_000),
            100_000_000_000..=99_999_999_999_999 => write!(out, "{:>8}G", n / 1_000_000_000),
            _ => write!(out, "{:>8}T", n / 1_000_000_000_000),
        };
    }
    out
}

/// `services` come newest first; LVS walks the buckets of its two tables.
pub fn as_walked(mut services: Vec<Service>) -> Vec<Service> {
    services.sort_by_key(|service| bucket(&service.key));
    services
}

/// As LVS walks them, or as ipvsadm sorts what it found so.
fn in_order(services: Vec<Service>, sorted: bool) -> Vec<Service> {
    let mut services = as_walked(services);
    if !sorted {
        return services;
    }
    for service in &mut services {
        service.servers = merge_sort(
            std::mem::take(&mut service.servers),
            &|a: &Server, b: &Server| by_address(a.address, b.address),
        );
    }
    merge_sort(services, &|a: &Service, b: &Service| {
        let mark = |key: &ServiceKey| match key {
            ServiceKey::Mark { mark, .. } => mark.get(),
            ServiceKey::Address { .. } => 0,
        };
        let number = |key: &ServiceKey| key.protocol().map_or(0, Protocol::number);
        mark(&a.key)
            .cmp(&mark(&b.key))
            .then(a.key.is_ipv6().cmp(&b.key.is_ipv6()))
            .then(number(&a.key).cmp(&number(&b.key)))
            .then_with(|| match (a.key.address(), b.key.address()) {
                (Some(a), Some(b)) => by_address(a, b),
                _ => Ordering::Equal,
            })
    })
}

/// Which of LVS's tables a service is in, and where. (Its hash has a byte of its own besides, another
/// one on each machine; this is that of the recordings.)
fn bucket(key: &ServiceKey) -> (bool, u8) {
    const OWN: u8 = 0x80;
    match key {
        ServiceKey::Address { protocol, address } => {
            let ip = match address.ip() {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => v6.octets().chunks(4).fold(0, |fold, word| fold ^ word[3]),
            };
            let [high, low] = address.port().to_be_bytes();
            (false, protocol.number() ^ ip ^ high ^ low ^ OWN)
        }
        ServiceKey::Mark { mark, .. } => (true, mark.get().to_le_bytes()[0]),
    }
}

/// LVS's comparison: the sign of a 32-bit difference, so 192.168.0.0 comes before 10.0.0.0.
fn by_address(a: SocketAddr, b: SocketAddr) -> Ordering {
    let address = match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            a.to_bits().wrapping_sub(b.to_bits()).cast_signed().cmp(&0)
        }
        (a, b) => a.cmp(&b),
    };
    address.then(a.port().cmp(&b.port()))
}

/// The C library's qsort: that comparison is no order, so the outcome depends on the algorithm
/// (and the standard library's sort may panic).
fn merge_sort<T>(mut items: Vec<T>, compare: &dyn Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let right = items.split_off(items.len() / 2);
    let total = items.len() + right.len();
    let mut left = merge_sort(items, compare).into_iter().peekable();
    let mut right = merge_sort(right, compare).into_iter().peekable();
    let mut merged = Vec::with_capacity(total);
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from = if compare(a, b).is_gt() {
            &mut right
        } else {
            &mut left
        };
        merged.extend(from.next());
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const STYLE: Style<'_> = Style {
        format: Format::Stats,
        exact: false,
        sorted: true,
        names: None,
    };

    #[test]
    fn large_numbers_get_units() {
        let numbers = [
            12_345,
            99_999_999,
            100_000_000,
            123_456_789_012,
            1_234_567_890_123_456,
        ];
        let units = large(numbers, &STYLE);
        assert_eq!(units, "    12345 99999999  100000K     123G    1234T");
        let exact = large(
            numbers,
            &Style {
                exact: true,
                ..STYLE
            },
        );
        assert_eq!(
            exact,
            "    12345 99999999 100000000 123456789012 1234567890123456"
        );
    }

    fn style(format: Format, exact: bool) -> Style<'static> {
        Style {
            format,
            exact,
            ..STYLE
        }
    }

    /// What a kernel counted while it was flooded, with its own listings of it.
    fn flooded(totals: [u64; 5], rates: [u64; 5]) -> Vec<Service> {
        let [conns, in_packets, out_packets, in_bytes, out_bytes] = totals;
        let totals = crate::Totals {
            conns,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        };
        let [cps, in_pps, out_pps, in_bps, out_bps] = rates;
        let rates = crate::Rates {
            cps,
            in_pps,
            out_pps,
            in_bps,
            out_bps,
        };
        let server = Server {
            address: "192.168.1.78:3006".parse().unwrap(),
            spec: crate::ServerSpec {
                mode: ForwardMode::Nat,
                weight: 65535,
                tunnel: crate::Tunnel::default(),
                thresholds: Thresholds::default(),
            },
            active: 0,
            inactive: 148_185,
            persistent: 0,
            totals,
            rates,
            health: None,
            weight_now: None,
            draining: None,
        };
        vec![Service {
            key: crate::ServiceKey::at(Protocol::Udp, "10.0.0.4:3006".parse().unwrap()),
            spec: crate::ServiceSpec::new("rr"),
            totals,
            rates,
            servers: vec![server],
            options: crate::ServiceOptions::default(),
            local_addresses: Vec::new(),
            health: None,
        }]
    }

    #[test]
    fn listings_as_a_flooded_kernel_gave_them() {
        let after_a_minute = || {
            flooded(
                [148_185, 10_129_737, 0, 14_426_505_500, 0],
                [13, 222_200, 0, 333_256_277, 0],
            )
        };
        let early = flooded([1, 900_725, 0, 900_725_000, 0], [0; 5]);
        let head = "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n";
        assert_eq!(
            services(early, &style(Format::Stats, false)),
            format!(
                "{head}UDP  10.0.0.4:3006                       1   900725        0  900725K        0\n\
                 \x20 -> 192.168.1.78:3006                   1   900725        0  900725K        0\n"
            )
        );
        assert_eq!(
            services(after_a_minute(), &style(Format::Stats, false)),
            format!(
                "{head}UDP  10.0.0.4:3006                  148185 10129737        0   14426M        0\n\
                 \x20 -> 192.168.1.78:3006              148185 10129737        0   14426M        0\n"
            )
        );
        assert_eq!(
            services(after_a_minute(), &style(Format::Stats, true)),
            format!(
                "{head}UDP  10.0.0.4:3006                  148185 10129737        0 14426505500        0\n\
                 \x20 -> 192.168.1.78:3006              148185 10129737        0 14426505500        0\n"
            )
        );
        let head = "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n";
        assert_eq!(
            services(after_a_minute(), &style(Format::Rate, false)),
            format!(
                "{head}UDP  10.0.0.4:3006                      13   222200        0  333256K        0\n\
                 \x20 -> 192.168.1.78:3006                  13   222200        0  333256K        0\n"
            )
        );
        assert_eq!(
            services(after_a_minute(), &style(Format::Rate, true)),
            format!(
                "{head}UDP  10.0.0.4:3006                      13   222200        0 333256277        0\n\
                 \x20 -> 192.168.1.78:3006                  13   222200        0 333256277        0\n"
            )
        );
        assert_eq!(
            services(after_a_minute(), &style(Format::Plain, false)),
            "Prot LocalAddress:Port Scheduler Flags\n\
             \x20 -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n\
             UDP  10.0.0.4:3006 rr\n\
             \x20 -> 192.168.1.78:3006            Masq    65535  0          148185    \n"
        );
    }

    #[test]
    fn connections_as_a_kernel_listed_them() {
        let rows = [
            (
                Protocol::Tcp,
                "ESTABLISHED",
                40001,
                899_999,
                "TCP 14:59  ESTABLISHED 10.1.0.1:40001     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "CLOSE_WAIT",
                40001,
                59_999,
                "TCP 00:59  CLOSE_WAIT  10.1.0.1:40001     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "TIME_WAIT",
                40001,
                119_000,
                "TCP 01:59  TIME_WAIT   10.1.0.1:40001     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "FIN_WAIT",
                40002,
                119_000,
                "TCP 01:59  FIN_WAIT    10.1.0.1:40002     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "CLOSE",
                40003,
                9_001,
                "TCP 00:09  CLOSE       10.1.0.1:40003     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "SYN_RECV",
                40006,
                59_000,
                "TCP 00:59  SYN_RECV    10.1.0.1:40006     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Udp,
                "UDP",
                41000,
                299_500,
                "UDP 04:59  UDP         10.1.0.1:41000     10.0.0.1:3001      192.168.1.11:3001",
            ),
            (
                Protocol::Tcp,
                "LAST_ACK",
                1,
                7_199_000,
                "TCP 119:59 LAST_ACK    10.1.0.1:1         10.0.0.1:3001      192.168.1.11:3001",
            ),
        ];
        for (protocol, state, port, expires_ms, expected) in rows {
            let conn = Connection {
                protocol: Some(protocol),
                client: SocketAddr::from(([10, 1, 0, 1], port)),
                virtual_address: "10.0.0.1:3001".parse().unwrap(),
                server: "192.168.1.11:3001".parse().unwrap(),
                local: None,
                state: state.into(),
                expires_ms,
                in_packets: 1,
                out_packets: 1,
                bytes: 80,
                worker: 0,
                template: false,
                engine: None,
            };
            assert_eq!(connections(&[conn], &STYLE), format!("{expected}\n"));
        }
        let full_nat = Connection {
            protocol: Some(Protocol::Sctp),
            client: "[2001:db8::7]:1".parse().unwrap(),
            virtual_address: "[2001:db8::1]:80".parse().unwrap(),
            server: "192.168.1.11:3001".parse().unwrap(),
            local: Some("192.168.1.200:1025".parse().unwrap()),
            state: "ESTABLISHED".into(),
            expires_ms: 1000,
            in_packets: 1,
            out_packets: 1,
            bytes: 80,
            worker: 0,
            template: false,
            engine: None,
        };
        assert_eq!(
            connections(&[full_nat], &STYLE),
            "SCTP 00:01  ESTABLISHED [2001:db8::7]:1    [2001:db8::1]:80   192.168.1.11:3001  192.168.1.200:1025\n"
        );
        assert_eq!(
            connections_title(&STYLE),
            "IPVS connection entries\n\
             pro expire state       source             virtual            destination\n"
        );
    }

    #[test]
    fn timeouts_as_a_kernel_listed_them() {
        assert_eq!(timeouts(5, 3, 4), "Timeout (tcp tcpfin udp): 5 3 4\n");
    }

    #[test]
    fn addresses_sort_by_signed_difference() {
        let order = |a: &str, b: &str| by_address(a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(order("192.168.0.1:80", "10.0.0.1:80"), Ordering::Less);
        assert_eq!(order("10.0.0.1:80", "10.0.0.2:80"), Ordering::Less);
        assert_eq!(order("10.0.0.1:443", "10.0.0.1:80"), Ordering::Greater);
    }
}

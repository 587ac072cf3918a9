//! Answers as tables for people.

use std::time::Duration;

use control::{
    CheckStatus, Connection, Drain, LocalAddress, Neighbour, Rates, Server, Service, ServiceHealth,
    ServiceKey, ServiceOptions, Status, Totals, Word, WorkerStatus,
};
use schemars::JsonSchema;
use serde::Serialize;

/// Rows of cells; a column is as wide as its widest cell, and numbers stand to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns before this one hold words.
    words: usize,
}

impl Table {
    pub(super) fn new(words: usize, title: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let title = title.into_iter().map(Into::into).collect();
        Self {
            rows: vec![title],
            words,
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                line += &if column < self.words {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                };
            }
            out += line.trim_end();
            out.push('\n');
        }
        out
    }
}

/// Services and the servers of each, in the order of their addresses.
fn sorted(list: &[Service]) -> Vec<(&Service, Vec<&Server>)> {
    fn with_servers(service: &Service) -> (&Service, Vec<&Server>) {
        let mut servers: Vec<_> = service.servers.iter().collect();
        servers.sort_by_key(|server| server.address);
        (service, servers)
    }
    let mut all: Vec<_> = list.iter().map(with_servers).collect();
    all.sort_by_key(|(service, _)| service.key);
    all
}

fn name(service: &Service) -> String {
    service.key.to_string()
}

/// What services and servers are.
pub(super) fn services(list: &[Service]) -> String {
    let mut title = vec!["SERVICE / SERVER", "HOW", "WEIGHT", "ACTIVE", "INACTIVE"];
    let watched = list.iter().any(|service| service.health.is_some());
    if watched {
        title.push("HEALTH");
    }
    let mut table = Table::new(2, title);
    for (service, servers) in sorted(list) {
        let options = service.options;
        let how = if options == ServiceOptions::default() {
            service.spec.to_string()
        } else {
            format!("{}, {options}", service.spec)
        };
        let mut row = vec![name(service), how];
        if let Some(health) = &service.health {
            row.resize(5, String::new());
            row.push(enough(health));
        }
        table.row(row);
        for local in &service.local_addresses {
            table.row([format!("  {}", local.address), "local address".to_owned()]);
        }
        for server in servers {
            let numbers = [server.active, server.inactive].map(|n| n.to_string());
            let words = [
                format!("  {}", server.address),
                reached(server),
                weight(server),
            ];
            let health = server.health.map(|health| health.word().to_owned());
            table.row(words.into_iter().chain(numbers).chain(health));
        }
    }
    table.text()
}

/// `2 up`, `1 up of 2 needed`
fn enough(health: &ServiceHealth) -> String {
    let ServiceHealth { up, min_healthy } = health;
    if health.is_enough() {
        format!("{up} up")
    } else {
        format!("{up} up, {min_healthy} needed")
    }
}

/// Every check of every server.
pub(super) fn health(list: &[CheckStatus]) -> String {
    let title = [
        "SERVICE", "SERVER", "CHECK", "STATE", "SINCE", "LAST", "LATENCY", "PROBES", "FAILED",
    ];
    let mut table = Table::new(6, title);
    for checked in list {
        let since = Duration::from_secs(checked.since_s);
        let latency = (checked.latency_us).map_or(String::new(), |us| {
            format!("{}.{:03} ms", us / 1000, us % 1000)
        });
        table.row([
            checked.service.to_string(),
            checked.server.to_string(),
            checked.check.clone(),
            checked.fitness.word().to_owned(),
            humantime::format_duration(since).to_string(),
            checked.last.clone(),
            latency,
            checked.probes.to_string(),
            checked.failures.to_string(),
        ]);
    }
    table.text()
}

/// How a server is reached, and whether it is being drained.
fn reached(server: &Server) -> String {
    let how = server.spec.how();
    match server.draining.map(|draining| draining.drain) {
        Some(
            drain @ Drain {
                deadline_s: None, ..
            },
        ) if !drain.delete => format!("{how}, DRAINING"),
        Some(drain) => format!("{how}, DRAINING ({drain})"),
        None => how,
    }
}

/// A server's weight, and how much of it the server has while it grows.
fn weight(server: &Server) -> String {
    let weight = server.spec.weight;
    match server.weight_now {
        Some(now) if now != weight => format!("{weight} ({now} now)"),
        _ => weight.to_string(),
    }
}

/// A service's local addresses, for programs.
#[derive(Serialize, JsonSchema)]
pub(super) struct LocalAddresses<'a> {
    service: ServiceKey,
    local_addresses: &'a [LocalAddress],
}

impl<'a> LocalAddresses<'a> {
    pub(super) fn of(list: &'a [Service]) -> Vec<Self> {
        list.iter()
            .map(|service| Self {
                service: service.key,
                local_addresses: &service.local_addresses,
            })
            .collect()
    }
}

/// Each local address with its service and its use.
pub(super) fn local_addresses(list: &[Service]) -> String {
    let mut table = Table::new(2, ["SERVICE", "LOCAL ADDRESS", "CONNS", "EXHAUSTED"]);
    for service in list {
        for local in &service.local_addresses {
            let words = [name(service), local.address.to_string()];
            let numbers = [local.in_use, local.exhausted];
            table.row(words.into_iter().chain(numbers.map(|n| n.to_string())));
        }
    }
    table.text()
}

/// What services and servers did.
pub(super) fn stats(list: &[Service]) -> String {
    let title = [
        "SERVICE / SERVER",
        "CONNS",
        "IN PKTS",
        "OUT PKTS",
        "IN BYTES",
        "OUT BYTES",
        "CONNS/S",
        "IN PKTS/S",
        "OUT PKTS/S",
        "IN BYTES/S",
        "OUT BYTES/S",
    ];
    let mut table = Table::new(1, title);
    let mut row = |name: String, t: &Totals, r: &Rates| {
        let numbers = [
            t.conns,
            t.in_packets,
            t.out_packets,
            t.in_bytes,
            t.out_bytes,
            r.cps,
            r.in_pps,
            r.out_pps,
            r.in_bps,
            r.out_bps,
        ];
        table.row([name].into_iter().chain(numbers.map(|n| n.to_string())));
    };
    for (service, servers) in sorted(list) {
        row(name(service), &service.totals, &service.rates);
        for server in servers {
            row(
                format!("  {}", server.address),
                &server.totals,
                &server.rates,
            );
        }
    }
    table.text()
}

/// Connections, and what ties clients to their servers.
pub(super) fn connections(list: &[Connection]) -> String {
    let title = [
        "PROTO", "STATE", "CLIENT", "VIRTUAL", "LOCAL", "SERVER", "TEMPLATE", "EXPIRES",
    ];
    let mut table = Table::new(7, title);
    for conn in list {
        let template = match &conn.engine {
            Some((engine, data)) => format!("{} {data}", engine.word()),
            None if conn.template => "address".to_owned(),
            None => "-".to_owned(),
        };
        table.row([
            conn.protocol
                .map_or("ip", control::Protocol::name)
                .to_owned(),
            conn.state.clone(),
            conn.client.to_string(),
            conn.virtual_address.to_string(),
            conn.local.map_or("-".to_owned(), |local| local.to_string()),
            conn.server.to_string(),
            template,
            format!("{} s", conn.expires_ms / 1000),
        ]);
    }
    table.text()
}

pub(super) fn neighbours(list: &[Neighbour]) -> String {
    let mut table = Table::new(4, ["PORT", "ADDRESS", "MAC", "STATE"]);
    for neighbour in list {
        table.row([
            neighbour.port.clone(),
            neighbour.address.to_string(),
            neighbour.mac.clone().unwrap_or_else(|| "-".to_owned()),
            neighbour.state.word().to_owned(),
        ]);
    }
    table.text()
}

/// One line of summary, the ports, the workers, and why packets were dropped.
pub(super) fn status(status: &Status) -> String {
    let balance = if status.balanced {
        "balance"
    } else {
        "do not balance (yet: packets are in flight)"
    };
    let (up, mbufs) = (duration(status.uptime_s), status.mbufs_in_use);
    let head = format!(
        "{}, up {up}; packet counts {balance}; {mbufs} packet buffers in use; {} of {} templates\n",
        status.program, status.templates, status.templates_max
    );
    let tables = [ports(status), workers(&status.workers), drops(status)];
    tables.into_iter().fold(head, |out, table| {
        if table.is_empty() {
            out
        } else {
            out + "\n" + &table
        }
    })
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86400, seconds / 3600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match seconds {
        0..=59 => format!("{rest} s"),
        60..=3599 => format!("{minutes} min {rest} s"),
        3600..=86399 => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn ports(status: &Status) -> String {
    let title = [
        "PORT",
        "DEVICE",
        "MAC",
        "LINK",
        "MTU",
        "RX PACKETS",
        "RX BYTES",
        "TX PACKETS",
        "TX BYTES",
    ];
    let mut table = Table::new(4, title);
    for port in &status.ports {
        let link = if port.link_up { "up" } else { "down" };
        let numbers = [
            u64::from(port.mtu),
            port.rx_packets,
            port.rx_bytes,
            port.tx_packets,
            port.tx_bytes,
        ];
        let words = [&port.name, &port.device, &port.mac, link].map(str::to_owned);
        table.row(words.into_iter().chain(numbers.map(|n| n.to_string())));
    }
    table.text()
}

fn workers(workers: &[WorkerStatus]) -> String {
    let title = ["WORKER", "RECEIVED", "MADE"].map(str::to_owned);
    let ends = workers.iter().take(1).flat_map(|worker| worker.ends.keys());
    let ends = ends.map(|name| name.to_uppercase());
    let last = ["HELD", "STEERED OUT", "STEERED IN", "CONNECTIONS"].map(str::to_owned);
    let mut table = Table::new(1, title.into_iter().chain(ends).chain(last));
    for worker in workers {
        let first = [format!("core {}", worker.core)];
        let numbers = [worker.rx, worker.made]
            .into_iter()
            .chain(worker.ends.values().copied())
            .chain([worker.held, worker.steered_out, worker.steered_in]);
        let connections = format!("{} of {}", worker.connections, worker.connections_max);
        table.row(
            first
                .into_iter()
                .chain(numbers.map(|n| n.to_string()))
                .chain([connections]),
        );
    }
    table.text()
}

/// Why, and on which port; nothing when no packet was dropped.
fn drops(status: &Status) -> String {
    let mut table = Table::new(2, ["DROPPED BECAUSE", "PORT", "PACKETS"]);
    let mut any = false;
    for port in &status.ports {
        for (reason, count) in port.drops.iter().filter(|(_, count)| **count > 0) {
            any = true;
            table.row([reason.clone(), port.name.clone(), count.to_string()]);
        }
    }
    if any { table.text() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use control::{
        ClientAddress, Fitness, ForwardMode, PortStatus, Server, ServerSpec, ServiceSpec,
    };
    use control::{Tunnel, TunnelKind};

    fn list() -> Vec<Service> {
        let server = |address: &str, weight| Server {
            address: address.parse().unwrap(),
            spec: ServerSpec {
                mode: ForwardMode::Nat,
                weight,
                tunnel: control::Tunnel::default(),
                thresholds: control::Thresholds::default(),
            },
            active: 5,
            inactive: 0,
            persistent: 0,
            totals: Totals {
                conns: 12,
                ..Totals::default()
            },
            rates: Rates::default(),
            health: None,
            weight_now: None,
            draining: None,
        };
        vec![Service {
            key: ServiceKey::at(control::Protocol::Tcp, "10.0.0.1:80".parse().unwrap()),
            spec: ServiceSpec::new("wrr"),
            totals: Totals::default(),
            rates: Rates::default(),
            servers: vec![server("192.168.1.3:80", 1000), server("192.168.1.2:80", 1)],
            options: control::ServiceOptions::default(),
            local_addresses: Vec::new(),
            health: None,
        }]
    }

    #[test]
    fn what_grows_and_what_drains_is_told() {
        let mut list = list();
        list[0].servers[0].weight_now = Some(12);
        let drain = Drain {
            deadline_s: Some(20),
            reset: true,
            delete: true,
        };
        list[0].servers[1].draining = Some(control::Draining { drain, weight: 1 });
        list[0].servers[1].spec.weight = 0;
        let text = services(&list);
        let cells = |line: &str| {
            line.split("  ")
                .filter(|cell| !cell.is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join("|")
        };
        let lines: Vec<String> = text.lines().skip(2).map(cells).collect();
        assert_eq!(
            lines,
            [
                "192.168.1.2:80|nat, DRAINING (cut with resets after 20 s, then deleted)|0|5|0",
                "192.168.1.3:80|nat|1000 (12 now)|5|0",
            ]
        );
    }

    #[test]
    fn health_has_a_column_where_anything_is_watched() {
        let mut list = list();
        let health = |fitness| control::ServerHealth {
            fitness,
            ejected: false,
            standing_by: false,
            removed: false,
        };
        list[0].health = Some(ServiceHealth {
            up: 1,
            min_healthy: 2,
        });
        list[0].servers[0].health = Some(health(Fitness::Down));
        list[0].servers[0].weight_now = Some(0);
        list[0].servers[1].health = Some(health(Fitness::Up));
        assert_eq!(
            services(&list),
            "SERVICE / SERVER  HOW        WEIGHT  ACTIVE  INACTIVE          HEALTH\n\
             tcp 10.0.0.1:80   wrr                                  1 up, 2 needed\n\
             \x20 192.168.1.2:80  nat             1       5         0              up\n\
             \x20 192.168.1.3:80  nat  1000 (0 now)       5         0            down\n"
        );
    }

    #[test]
    fn a_check_in_one_line() {
        let checked = CheckStatus {
            service: ServiceKey::at(control::Protocol::Tcp, "10.0.0.1:80".parse().unwrap()),
            server: "192.168.1.3:80".parse().unwrap(),
            check: "http 192.168.1.3:80".to_owned(),
            fitness: Fitness::Down,
            since_s: 83,
            last: "status 500".to_owned(),
            latency_us: Some(1234),
            probes: 100,
            failures: 3,
        };
        let text = health(&[checked]);
        assert_eq!(
            text.lines().nth(1),
            Some(
                "tcp 10.0.0.1:80  192.168.1.3:80  http 192.168.1.3:80  down   1m 23s  status 500  1.234 ms     100       3"
            )
        );
    }

    #[test]
    fn columns_fit_their_cells() {
        assert_eq!(
            services(&list()),
            "SERVICE / SERVER  HOW  WEIGHT  ACTIVE  INACTIVE\n\
             tcp 10.0.0.1:80   wrr\n\
             \x20 192.168.1.2:80  nat       1       5         0\n\
             \x20 192.168.1.3:80  nat    1000       5         0\n"
        );
        let stats = stats(&list());
        let line = stats.lines().nth(2).unwrap();
        assert!(
            line.starts_with("  192.168.1.2:80     12        0"),
            "{line}"
        );
    }

    #[test]
    fn methods_options_and_local_addresses_are_told() {
        let mut list = list();
        list[0].options.client_address = ClientAddress::ProxyV1;
        list[0].local_addresses = [("10.0.0.5", 64_512), ("::5", 7)]
            .map(|(address, in_use)| LocalAddress {
                address: address.parse().unwrap(),
                in_use,
                exhausted: in_use / 100,
            })
            .to_vec();
        list[0].servers[0].spec.mode = ForwardMode::FullNat;
        list[0].servers[1].spec.mode = ForwardMode::Tunnel;
        list[0].servers[1].spec.tunnel = Tunnel {
            kind: TunnelKind::Gue,
            port: 6080,
            ..Tunnel::default()
        };
        assert_eq!(
            local_addresses(&list),
            "SERVICE          LOCAL ADDRESS  CONNS  EXHAUSTED\n\
             tcp 10.0.0.1:80  10.0.0.5       64512        645\n\
             tcp 10.0.0.1:80  ::5                7          0\n"
        );
        assert_eq!(
            services(&list),
            "SERVICE / SERVER  HOW                           WEIGHT  ACTIVE  INACTIVE\n\
             tcp 10.0.0.1:80   wrr, client address proxy-v1\n\
             \x20 10.0.0.5        local address\n\
             \x20 ::5             local address\n\
             \x20 192.168.1.2:80  tunnel gue:6080                    1       5         0\n\
             \x20 192.168.1.3:80  fullnat                         1000       5         0\n"
        );
    }

    #[test]
    fn status_is_a_line_and_three_tables() {
        let ends: BTreeMap<_, _> = [("forwarded".to_owned(), 7), ("dropped".to_owned(), 3)].into();
        let drops = [("no_route".to_owned(), 3), ("truncated".to_owned(), 0)].into();
        let shown = status(&Status {
            program: "directord 1".into(),
            uptime_s: 3700,
            ports: vec![PortStatus {
                name: "lan".into(),
                device: "net_null0".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: 1500,
                link_up: true,
                used: control::PortUse::default(),
                tx_packets: 7,
                tx_bytes: 700,
                rx_packets: 10,
                rx_bytes: 1000,
                ends: ends.clone(),
                drops,
                hardware: None,
            }],
            workers: vec![WorkerStatus {
                core: 1,
                rx: 10,
                made: 0,
                held: 0,
                connections: 2,
                connections_max: 64,
                steered_out: 0,
                steered_in: 0,
                ends,
                drops: BTreeMap::new(),
                pace: control::Pace::default(),
            }],
            balanced: true,
            mbufs_in_use: 4,
            templates: 7,
            templates_max: 64,
        });
        assert_eq!(
            shown,
            "directord 1, up 1 h 1 min; packet counts balance; 4 packet buffers in use; 7 of 64 templates\n\
             \n\
             PORT  DEVICE     MAC                LINK   MTU  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES\n\
             lan   net_null0  02:00:00:00:00:01  up    1500          10      1000           7       700\n\
             \n\
             WORKER  RECEIVED  MADE  DROPPED  FORWARDED  HELD  STEERED OUT  STEERED IN  CONNECTIONS\n\
             core 1        10     0        3          7     0            0           0      2 of 64\n\
             \n\
             DROPPED BECAUSE  PORT  PACKETS\n\
             no_route         lan         3\n"
        );
    }
}

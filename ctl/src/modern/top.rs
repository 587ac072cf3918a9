//! `top`: what services, servers and workers do now, again and again; `stats --watch` too.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use control::client::{Client, ClientError};
use control::{Pace, Rates, Reply, Request, Service, Status, Totals, WorkerStatus};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{cursor, execute, queue};
use schemars::JsonSchema;
use serde::Serialize;

use super::show::{self, Table};

/// The shortest time between two looks; a listing of very many servers takes longer.
const INTERVAL_MIN: f64 = 0.1;
/// And the longest: a day.
const INTERVAL_MAX: f64 = 86_400.0;
const KEYS: &str = "q quit  c conns/s  p packets/s  b bits/s  n connections  s servers";

/// Seconds between two looks.
pub(super) fn interval(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (INTERVAL_MIN..=INTERVAL_MAX).contains(seconds));
    let seconds = seconds.ok_or("not a time in seconds, 0.1 to 86400 is right")?;
    Ok(Duration::from_secs_f64(seconds))
}

/// What rows are sorted by, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// New connections a second.
    Conns,
    /// Packets a second, both directions.
    Packets,
    /// Bits a second, both directions.
    Bits,
    /// Connections there are.
    Connections,
}

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// What comes first.
    #[arg(long, value_enum, default_value = "bits")]
    sort: Sort,
    /// Servers instead of services.
    #[arg(long)]
    servers: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// End after so many looks; until interrupted (q in a terminal) unless set.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Show so many rows; as many as the terminal has, or all, unless set.
    #[arg(long, value_name = "NUMBER")]
    rows: Option<usize>,
}

/// The daemon at one moment.
struct Look {
    at: Instant,
    services: Vec<Service>,
    status: Status,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Row {
    service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// There are now.
    connections: u64,
    conns_per_s: u64,
    in_packets_per_s: u64,
    out_packets_per_s: u64,
    in_bits_per_s: u64,
    out_bits_per_s: u64,
}

/// A worker between two looks.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
struct Work {
    core: u16,
    connections: u64,
    /// Of its time; `None` before it is known.
    busy_percent: Option<f64>,
    packets_per_s: u64,
    cycles_per_packet: Option<u64>,
    longest_gap_us: f64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Frame {
    rows: Vec<Row>,
    workers: Vec<Work>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "rates are per second of this program's time"
)]
fn clock() -> Instant {
    Instant::now()
}

fn look(client: &mut Client) -> Result<Look> {
    let services = match client.ask(&Request::Services { only: None })? {
        Reply::Services(services) => services,
        Reply::Refused(refusal) => return Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    };
    let status = match client.ask(&Request::Status)? {
        Reply::Status(status) => status,
        Reply::Refused(refusal) => return Err(refusal.into()),
        _ => bail!(ClientError::Unexpected),
    };
    Ok(Look {
        at: clock(),
        services,
        status,
    })
}

/// `count` in so many seconds, a second.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "rates for people"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(1e-3)).round() as u64
}

/// Whoever reads may have seen enough.
pub(super) fn unless_closed(result: Result<()>) -> Result<()> {
    let is_closed = |error: &anyhow::Error| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    match result {
        Err(error) if is_closed(&error) => Ok(()),
        result => result,
    }
}

/// What was counted between two looks. Counters that were zeroed meanwhile began at 0.
fn rates(now: &Totals, before: &Totals, seconds: f64) -> Rates {
    let [now, before] = [now.columns(), before.columns()];
    let zeroed = now.iter().zip(&before).any(|(now, before)| now < before);
    let rate = |i: usize| per_second(if zeroed { now[i] } else { now[i] - before[i] }, seconds);
    Rates {
        cps: rate(0),
        in_pps: rate(1),
        out_pps: rate(2),
        in_bps: rate(3),
        out_bps: rate(4),
    }
}

impl Row {
    /// Of the first look there is nothing before, and the daemon's own averages have to do.
    fn new(service: &str, server: Option<String>, connections: u64, rates: Rates) -> Self {
        Self {
            service: service.to_owned(),
            server,
            connections,
            conns_per_s: rates.cps,
            in_packets_per_s: rates.in_pps,
            out_packets_per_s: rates.out_pps,
            in_bits_per_s: rates.in_bps * 8,
            out_bits_per_s: rates.out_bps * 8,
        }
    }

    fn key(&self, sort: Sort) -> u64 {
        match sort {
            Sort::Conns => self.conns_per_s,
            Sort::Packets => self.in_packets_per_s + self.out_packets_per_s,
            Sort::Bits => self.in_bits_per_s + self.out_bits_per_s,
            Sort::Connections => self.connections,
        }
    }
}

/// Totals by the name of a service or of a service and its server.
type Known = HashMap<(String, Option<String>), Totals>;

fn known(look: &Look) -> Known {
    let mut known = HashMap::new();
    for service in &look.services {
        let name = service.key.to_string();
        for server in &service.servers {
            let key = (name.clone(), Some(server.address.to_string()));
            known.insert(key, server.totals);
        }
        known.insert((name, None), service.totals);
    }
    known
}

fn rows(look: &Look, before: Option<&Look>, servers: bool, sort: Sort) -> Vec<Row> {
    let known = before.map(known).unwrap_or_default();
    let seconds = before.map_or(1.0, |before| (look.at - before.at).as_secs_f64());
    let row = |service: &str, server: Option<String>, connections, totals: &Totals, average| {
        let key = (service.to_owned(), server.clone());
        let rates = match (known.get(&key), before) {
            (Some(before), _) => rates(totals, before, seconds),
            // It came meanwhile.
            (None, Some(_)) => rates(totals, &Totals::default(), seconds),
            (None, None) => average,
        };
        Row::new(service, server, connections, rates)
    };
    let mut rows = Vec::new();
    for service in &look.services {
        let name = service.key.to_string();
        let load = |server: &control::Server| u64::from(server.active) + u64::from(server.inactive);
        if !servers {
            let connections = service.servers.iter().map(load).sum();
            rows.push(row(
                &name,
                None,
                connections,
                &service.totals,
                service.rates,
            ));
            continue;
        }
        for server in &service.servers {
            let address = Some(server.address.to_string());
            rows.push(row(
                &name,
                address,
                load(server),
                &server.totals,
                server.rates,
            ));
        }
    }
    rows.sort_by(|a, b| {
        let name = |row: &Row| (row.service.clone(), row.server.clone());
        (Reverse(a.key(sort)), name(a)).cmp(&(Reverse(b.key(sort)), name(b)))
    });
    rows
}

fn works(look: &Look, before: Option<&Look>) -> Vec<Work> {
    let workers = look.status.workers.iter().enumerate();
    let work = |(n, worker): (usize, &WorkerStatus)| {
        let old = before.and_then(|before| before.status.workers.get(n));
        work(worker, old.map(|worker| worker.pace).unwrap_or_default())
    };
    workers.map(work).collect()
}

#[expect(clippy::cast_precision_loss, reason = "shares for people")]
fn work(worker: &WorkerStatus, before: Pace) -> Work {
    let now = worker.pace;
    let spent = |get: fn(&Pace) -> u64| get(&now).saturating_sub(get(&before));
    let (packets, packet_cycles) = (spent(|p| p.packets), spent(|p| p.packet_cycles));
    let busy = packet_cycles + spent(|p| p.control_cycles);
    let all = busy + spent(|p| p.idle_cycles);
    Work {
        core: worker.core,
        connections: worker.connections,
        busy_percent: (all > 0).then(|| (busy as f64 / all as f64 * 1000.0).round() / 10.0),
        packets_per_s: per_second(packets, all as f64 / now.hz.max(1) as f64),
        cycles_per_packet: packet_cycles.checked_div(packets),
        longest_gap_us: now.longest_gap_ns as f64 / 1000.0,
    }
}

/// `12.3M`: at most four digits, so that columns stay narrow.
#[expect(clippy::cast_precision_loss, reason = "three digits for people")]
fn short(number: u64) -> String {
    let mut scaled = number as f64;
    for unit in ["", "k", "M", "G", "T"] {
        if scaled < 999.5 || unit == "T" {
            let digits = usize::from(!unit.is_empty() && scaled < 99.95);
            return format!("{scaled:.digits$}{unit}");
        }
        scaled /= 1000.0;
    }
    number.to_string()
}

fn text(look: &Look, frame: &Frame, sort: Sort) -> String {
    let status = &look.status;
    let up = show::duration(status.uptime_s);
    let (services, workers) = (look.services.len(), status.workers.iter());
    let connections: u64 = workers.map(|worker| worker.connections).sum();
    let mut out = format!(
        "{}, up {up}; {services} services, {connections} connections\n",
        status.program
    );
    let title = [
        "WORKER",
        "BUSY",
        "PACKETS/S",
        "CYCLES/PACKET",
        "LONGEST GAP",
        "CONNECTIONS",
    ];
    let mut table = Table::new(1, title);
    for work in &frame.workers {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            format!("core {}", work.core),
            or_dash(work.busy_percent.map(|busy| format!("{busy:.1} %"))),
            short(work.packets_per_s),
            or_dash(work.cycles_per_packet.map(|cycles| cycles.to_string())),
            format!("{:.0} us", work.longest_gap_us),
            work.connections.to_string(),
        ]);
    }
    out += &format!("{}\n", table.text());
    let mark = |name: &str, by: &[Sort]| {
        let mark = if by.contains(&sort) { "*" } else { "" };
        format!("{name}{mark}")
    };
    let mut table = Table::new(
        1,
        [
            "SERVICE / SERVER".to_owned(),
            mark("CONNECTIONS", &[Sort::Connections]),
            mark("CONNS/S", &[Sort::Conns]),
            mark("IN PKTS/S", &[Sort::Packets]),
            mark("OUT PKTS/S", &[Sort::Packets]),
            mark("IN BITS/S", &[Sort::Bits]),
            mark("OUT BITS/S", &[Sort::Bits]),
        ],
    );
    for row in &frame.rows {
        let name = match &row.server {
            Some(server) => format!("{} > {server}", row.service),
            None => row.service.clone(),
        };
        let numbers = [
            row.conns_per_s,
            row.in_packets_per_s,
            row.out_packets_per_s,
            row.in_bits_per_s,
            row.out_bits_per_s,
        ];
        let cells = [name, row.connections.to_string()].into_iter();
        table.row(cells.chain(numbers.map(short)));
    }
    out + &table.text()
}

pub(super) fn run(args: &TopArgs, client: &mut Client, json: bool) -> Result<()> {
    let mut out = io::stdout();
    if !json && out.is_terminal() && io::stdin().is_terminal() {
        let screen = Screen::open()?;
        let result = interact(args, client, &mut out);
        drop(screen);
        return result;
    }
    let mut before: Option<Look> = None;
    for n in 0.. {
        if args.iterations.is_some_and(|most| n >= most) {
            break;
        }
        if n > 0 {
            thread::sleep(args.interval);
        }
        let now = look(client)?;
        let frame = frame(args.servers, args.sort, args.rows, &now, before.as_ref());
        if json {
            writeln!(out, "{}", serde_json::to_string(&frame)?)?;
        } else {
            let blank = if n > 0 { "\n" } else { "" };
            write!(out, "{blank}{}", text(&now, &frame, args.sort))?;
        }
        out.flush()?;
        before = Some(now);
    }
    Ok(())
}

fn frame(
    servers: bool,
    sort: Sort,
    most: Option<usize>,
    now: &Look,
    before: Option<&Look>,
) -> Frame {
    let mut rows = rows(now, before, servers, sort);
    rows.truncate(most.unwrap_or(usize::MAX));
    Frame {
        rows,
        workers: works(now, before),
    }
}

/// The terminal while it is ours; it is given back whatever happens.
struct Screen;

impl Screen {
    fn open() -> Result<Self> {
        enable_raw_mode()?;
        // From here on there is something to give back.
        let screen = Self;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Sort(Sort),
    Servers,
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Key> {
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::Quit),
        KeyCode::Char('c') => Some(Key::Sort(Sort::Conns)),
        KeyCode::Char('p') => Some(Key::Sort(Sort::Packets)),
        KeyCode::Char('b') => Some(Key::Sort(Sort::Bits)),
        KeyCode::Char('n') => Some(Key::Sort(Sort::Connections)),
        KeyCode::Char('s') => Some(Key::Servers),
        _ => None,
    }
}

fn interact(args: &TopArgs, client: &mut Client, out: &mut impl Write) -> Result<()> {
    let (mut sort, mut servers) = (args.sort, args.servers);
    let mut before: Option<Look> = None;
    for n in 1.. {
        let now = look(client)?;
        let due = now.at + args.interval;
        draw(args, sort, servers, &now, before.as_ref(), out)?;
        if args.iterations.is_some_and(|most| n >= most) {
            return Ok(());
        }
        while let Some(left) = due.checked_duration_since(clock()) {
            match asked(left)? {
                Asked::Nothing => {}
                Asked::Redraw => draw(args, sort, servers, &now, before.as_ref(), out)?,
                Asked::Key(Key::Quit) => return Ok(()),
                Asked::Key(what) => {
                    match what {
                        Key::Sort(by) => sort = by,
                        Key::Servers => servers = !servers,
                        Key::Quit => {}
                    }
                    draw(args, sort, servers, &now, before.as_ref(), out)?;
                }
            }
        }
        before = Some(now);
    }
    Ok(())
}

enum Asked {
    Nothing,
    /// The terminal has another size.
    Redraw,
    Key(Key),
}

fn asked(within: Duration) -> Result<Asked> {
    if !event::poll(within)? {
        return Ok(Asked::Nothing);
    }
    Ok(match event::read()? {
        Event::Key(pressed) if pressed.kind == KeyEventKind::Press => {
            key(pressed.code, pressed.modifiers).map_or(Asked::Nothing, Asked::Key)
        }
        Event::Resize(..) => Asked::Redraw,
        _ => Asked::Nothing,
    })
}

/// As much as the terminal has room for.
fn draw(
    args: &TopArgs,
    sort: Sort,
    servers: bool,
    now: &Look,
    before: Option<&Look>,
    out: &mut impl Write,
) -> Result<()> {
    let (columns, lines) = size()?;
    let frame = frame(servers, sort, args.rows.or(Some(lines.into())), now, before);
    queue!(out, cursor::MoveTo(0, 0), Clear(ClearType::All))?;
    let text = text(now, &frame, sort);
    let room = usize::from(lines).saturating_sub(1);
    for line in text.lines().take(room) {
        let line: String = line.chars().take(columns.into()).collect();
        write!(out, "{line}\r\n")?;
    }
    let keys: String = KEYS.chars().take(columns.into()).collect();
    queue!(out, cursor::MoveTo(0, lines.saturating_sub(1)))?;
    write!(out, "{keys}")?;
    out.flush()?;
    Ok(())
}

/// The tables of `stats`, again and again.
pub(super) fn watch_stats(client: &mut Client, every: Duration, json: bool) -> Result<()> {
    let mut out = io::stdout();
    let in_place = !json && out.is_terminal();
    for n in 0.. {
        if n > 0 {
            thread::sleep(every);
        }
        let list = look(client)?.services;
        if json {
            writeln!(out, "{}", serde_json::to_string(&list)?)?;
        } else if in_place {
            // From the top left corner on, nothing of the old ones stays.
            write!(out, "\x1b[H\x1b[2J{}", show::stats(&list))?;
        } else {
            let blank = if n > 0 { "\n" } else { "" };
            write!(out, "{blank}{}", show::stats(&list))?;
        }
        out.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use control::{ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceOptions, ServiceSpec};

    fn totals(n: u64) -> Totals {
        Totals {
            conns: n,
            in_packets: 10 * n,
            out_packets: 20 * n,
            in_bytes: 1000 * n,
            out_bytes: 3000 * n,
        }
    }

    fn service(n: u8, count: u64, active: u32) -> Service {
        let spec = ServerSpec {
            mode: ForwardMode::Nat,
            weight: 1,
            tunnel: control::Tunnel::default(),
            thresholds: control::Thresholds::default(),
        };
        let server = control::Server {
            address: format!("10.1.0.{n}:80").parse().unwrap(),
            spec,
            active,
            inactive: 1,
            persistent: 0,
            totals: totals(count),
            rates: Rates::default(),
            health: None,
            weight_now: None,
            draining: None,
        };
        let address = format!("10.0.0.{n}:80").parse().unwrap();
        Service {
            key: ServiceKey::at(Protocol::Tcp, address),
            spec: ServiceSpec::new("rr"),
            totals: totals(count),
            rates: Rates {
                cps: 77,
                ..Rates::default()
            },
            servers: vec![server],
            options: ServiceOptions::default(),
            local_addresses: Vec::new(),
            health: None,
        }
    }

    fn looked(at: Instant, services: Vec<Service>, pace: Pace) -> Look {
        let worker = WorkerStatus {
            core: 4,
            rx: 0,
            made: 0,
            held: 0,
            connections: 12,
            connections_max: 64,
            steered_out: 0,
            steered_in: 0,
            ends: BTreeMap::new(),
            drops: BTreeMap::new(),
            pace,
        };
        let status = Status {
            program: "directord 1".into(),
            uptime_s: 61,
            ports: Vec::new(),
            workers: vec![worker],
            balanced: true,
            mbufs_in_use: 0,
            templates: 0,
            templates_max: 0,
        };
        Look {
            at,
            services,
            status,
        }
    }

    fn two() -> (Look, Look) {
        let start = clock();
        let pace = |scale: u64| Pace {
            hz: 1_000_000,
            packet_cycles: 400_000 * scale,
            control_cycles: 100_000 * scale,
            idle_cycles: 1_500_000 * scale,
            packets: 1000 * scale,
            longest_gap_ns: 80_000,
            ..Pace::default()
        };
        let before = vec![service(1, 100, 5), service(2, 500, 9)];
        let now = vec![service(1, 300, 5), service(2, 510, 9), service(3, 7, 0)];
        let later = start + Duration::from_secs(2);
        (looked(start, before, pace(1)), looked(later, now, pace(2)))
    }

    #[test]
    fn rates_are_between_two_looks() {
        let (before, now) = two();
        let rows = rows(&now, Some(&before), false, Sort::Conns);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.service.as_str(), row.conns_per_s, row.in_bits_per_s))
            .collect();
        assert_eq!(
            shown,
            [
                ("tcp 10.0.0.1:80", 100, 800_000),
                ("tcp 10.0.0.2:80", 5, 40_000),
                ("tcp 10.0.0.3:80", 4, 28_000),
            ]
        );
        let first = super::rows(&now, None, false, Sort::Conns);
        assert_eq!(first[0].conns_per_s, 77, "the daemon's average");
    }

    #[test]
    fn zeroed_counters_are_no_huge_rates() {
        let rates = rates(&totals(4), &totals(1000), 2.0);
        assert_eq!((rates.cps, rates.in_pps), (2, 20));
    }

    #[test]
    fn rows_are_sorted_and_servers_named() {
        let (before, now) = two();
        let names = |sort, servers| {
            let rows = rows(&now, Some(&before), servers, sort);
            let name = |row: Row| row.server.unwrap_or(row.service);
            rows.into_iter().map(name).collect::<Vec<_>>()
        };
        let by_connections = names(Sort::Connections, true);
        assert_eq!(
            by_connections,
            ["10.1.0.2:80", "10.1.0.1:80", "10.1.0.3:80"]
        );
        assert_eq!(names(Sort::Bits, true)[0], "10.1.0.1:80");
        assert_eq!(names(Sort::Packets, false)[0], "tcp 10.0.0.1:80");
    }

    #[test]
    fn a_frame_as_text() {
        let (before, now) = two();
        let frame = frame(false, Sort::Bits, Some(1), &now, Some(&before));
        assert_eq!(
            text(&now, &frame, Sort::Bits),
            "directord 1, up 1 min 1 s; 3 services, 12 connections\n\
             WORKER    BUSY  PACKETS/S  CYCLES/PACKET  LONGEST GAP  CONNECTIONS\n\
             core 4  25.0 %        500            400        80 us           12\n\
             \n\
             SERVICE / SERVER  CONNECTIONS  CONNS/S  IN PKTS/S  OUT PKTS/S  IN BITS/S*  OUT BITS/S*\n\
             tcp 10.0.0.1:80             6      100       1.0k        2.0k        800k         2.4M\n"
        );
    }

    #[test]
    fn numbers_stay_short() {
        let numbers = [0, 999, 1000, 12_345, 123_456, 999_600, 40_000_000_000];
        let texts = ["0", "999", "1.0k", "12.3k", "123k", "1.0M", "40.0G"];
        assert_eq!(numbers.map(short), texts);
    }

    #[test]
    fn keys_mean_something() {
        let plain = |c| key(KeyCode::Char(c), KeyModifiers::NONE);
        assert_eq!(plain('q'), Some(Key::Quit));
        assert_eq!(plain('s'), Some(Key::Servers));
        assert_eq!(plain('n'), Some(Key::Sort(Sort::Connections)));
        assert_eq!(plain('x'), None);
        let c = KeyCode::Char('c');
        assert_eq!(key(c, KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(c, KeyModifiers::NONE), Some(Key::Sort(Sort::Conns)));
    }

    #[test]
    fn an_interval_is_a_time() {
        assert_eq!(interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "1e9", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}

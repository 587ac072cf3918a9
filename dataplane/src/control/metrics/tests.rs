//! The text, the endpoint, and that no counter runs backwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use control::{
    Change, ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceSpec, SyncDaemon, SyncRole,
    SyncStatus,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::control::model::Model;
use crate::control::stats::{Lost, PortInfo};
use crate::counters::DropReason;
use crate::packet::PortId;

const LIMITS: Limits = Limits {
    services_max: 4,
    servers_max: 8,
};

fn key(n: u8) -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, format!("10.0.0.{n}:80").parse().unwrap())
}

fn server(n: u8) -> SocketAddr {
    format!("10.1.0.{n}:80").parse().unwrap()
}

fn add_service(n: u8) -> Change {
    Change::AddService {
        service: key(n),
        spec: ServiceSpec::new("rr"),
    }
}

fn add_server(service: u8, n: u8) -> Change {
    Change::AddServer {
        service: key(service),
        server: server(n),
        spec: ServerSpec {
            mode: ForwardMode::Nat,
            weight: 1,
            tunnel: control::Tunnel::default(),
            thresholds: control::Thresholds::default(),
        },
    }
}

fn daemon(role: SyncRole) -> SyncDaemon {
    SyncDaemon {
        role,
        interface: "eth1".to_owned(),
        sync_id: 7,
        max_len: None,
        group: "224.0.0.81".parse().unwrap(),
        port: 8848,
        ttl: 1,
    }
}

fn scrape(model: &Model, pages: &[Arc<Page>]) -> Scrape {
    let worker = |page: &Arc<Page>| WorkerView {
        core: 3,
        page: Arc::clone(page),
        mailbox: 2,
    };
    let port = PortInfo {
        id: PortId(0),
        before: Arc::default(),
        hardware: None,
        used: control::PortUse::default(),
        name: "wan".to_owned(),
        device: "net_pcap0,rx_pcap=\"a\\b\"".to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1500,
        link_up: true,
        lost: Lost {
            missed: 7,
            ..Lost::default()
        },
    };
    Scrape {
        checks: Arc::default(),
        view: Arc::new(model.view()),
        workers: pages.iter().map(worker).collect(),
        templates: None,
        machine: Machine {
            ports: vec![port],
            mbufs_in_use: 5,
            mbufs: 100,
        },
        sync: vec![
            SyncStatus {
                lag_ms: Some(20),
                lost: 3,
                ..SyncStatus::idle(daemon(SyncRole::Master))
            },
            SyncStatus {
                complete: Some(true),
                ..SyncStatus::idle(daemon(SyncRole::Backup))
            },
        ],
        node: control::NodeState::Active,
        announced: vec![control::Announced {
            address: "10.0.0.1".parse().unwrap(),
            interface: "lo".to_owned(),
            withheld: Some(control::Withheld::Servers),
        }],
        limits: LIMITS,
        connections_max: 64,
        uptime: Duration::from_secs(9),
    }
}

fn whole(scrape: &Scrape) -> String {
    let (mut text, mut cursor) = (String::new(), Some(MetricsCursor::default()));
    while let Some(from) = cursor {
        let (part, next) = scrape.part(from, true);
        text += &part;
        cursor = next;
    }
    text
}

fn configured() -> (Model, Vec<Arc<Page>>) {
    let page = || Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max).unwrap());
    let pages = vec![page(), page()];
    let mut model = Model::new(LIMITS).watching(pages.clone());
    model
        .apply(&[add_service(1), add_server(1, 1), add_server(1, 2)])
        .unwrap();
    (model, pages)
}

/// Values by series.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    };
    let samples: Vec<(String, f64)> = lines.map(sample).collect();
    let count = samples.len();
    let samples: BTreeMap<_, _> = samples.into_iter().collect();
    assert_eq!(samples.len(), count, "a series twice");
    samples
}

#[test]
fn numbers_are_where_they_belong() {
    let (model, pages) = configured();
    pages[1].servers[1].conns.add(4);
    pages[0].servers[1].conns.add(3);
    pages[0].servers[0].active.set(2);
    pages[0].servers[0].answers.add(2);
    pages[0].servers[0].answers_us.add(5000);
    pages[0].services[0].drops[DropReason::NoServer as usize].add(6);
    pages[1].count_drop(PortId(0), DropReason::NoServer);
    pages[1].pace.residence.record(300, 8);
    let samples = samples(&whole(&scrape(&model, &pages)));
    for (series, value) in [
        ("director_uptime_seconds", 9.0),
        ("director_worker_mailbox_commands{worker=\"1\"}", 2.0),
        (
            "director_worker_dropped_packets_total{worker=\"1\",reason=\"no_server\"}",
            1.0,
        ),
        (
            "director_worker_residence_seconds_bucket{worker=\"1\",le=\"0.000000256\"}",
            0.0,
        ),
        (
            "director_worker_residence_seconds_bucket{worker=\"1\",le=\"0.000000384\"}",
            8.0,
        ),
        (
            "director_worker_residence_seconds_bucket{worker=\"1\",le=\"+Inf\"}",
            8.0,
        ),
        (
            "director_worker_residence_seconds_sum{worker=\"1\"}",
            0.0000024,
        ),
        ("director_port_missed_packets_total{port=\"wan\"}", 7.0),
        (
            "director_port_info{port=\"wan\",device=\"net_pcap0,rx_pcap=\\\"a\\\\b\\\"\",mac=\"02:00:00:00:00:01\"}",
            1.0,
        ),
        ("director_node_active", 1.0),
        (
            "director_address_announced{address=\"10.0.0.1\",interface=\"lo\"}",
            0.0,
        ),
        ("director_sync_lost_total{role=\"master\"}", 3.0),
        ("director_sync_lag_seconds{role=\"master\"}", 0.02),
        ("director_sync_complete{role=\"backup\"}", 1.0),
        (
            "director_service_connections_total{service=\"tcp 10.0.0.1:80\"}",
            7.0,
        ),
        (
            "director_service_dropped_packets_total{service=\"tcp 10.0.0.1:80\"}",
            6.0,
        ),
        (
            "director_service_active_connections{service=\"tcp 10.0.0.1:80\"}",
            2.0,
        ),
        (
            "director_service_info{service=\"tcp 10.0.0.1:80\",protocol=\"tcp\",address=\"10.0.0.1\",port=\"80\",mark=\"\",family=\"ipv4\",scheduler=\"rr\"}",
            1.0,
        ),
        (
            "director_server_connections_total{service=\"tcp 10.0.0.1:80\",server=\"10.1.0.2:80\"}",
            7.0,
        ),
        (
            "director_server_answer_seconds_sum{service=\"tcp 10.0.0.1:80\",server=\"10.1.0.1:80\"}",
            0.005,
        ),
        (
            "director_server_answer_seconds_count{service=\"tcp 10.0.0.1:80\",server=\"10.1.0.1:80\"}",
            2.0,
        ),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    assert!(!samples.contains_key("director_sync_complete{role=\"master\"}"));
}

/// The rules of the format and of naming, as far as a program can tell.
#[test]
fn the_text_is_well_formed() {
    let (model, pages) = configured();
    let text = whole(&scrape(&model, &pages));
    let (mut family, mut seen) = (None, BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(seen.insert(name), "{name} twice");
            assert!(help.ends_with('.') && !help.contains('\\'), "{help}");
            family = families().find(|family| family.name == name);
            continue;
        }
        let family = family.unwrap();
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert_eq!(rest, format!("{} {}", family.name, family.kind.name()));
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap();
        let suffix = name.strip_prefix(family.name).unwrap();
        match family.kind {
            Kind::Counter | Kind::Gauge => assert_eq!(suffix, ""),
            Kind::Summary => assert!(["_sum", "_count"].contains(&suffix)),
            Kind::Histogram => assert!(["_bucket", "_sum", "_count"].contains(&suffix)),
        }
        for label in family.labels {
            assert!(line.contains(&format!("{label}=\"")), "{line}");
        }
    }
    for family in families() {
        let is_total = family.name.ends_with("_total");
        assert_eq!(is_total, family.kind == Kind::Counter, "{}", family.name);
        assert!(family.name.starts_with("director_"));
    }
    // Without a local address two metrics have no sample, but all have their lines.
    assert_eq!(seen.len(), families().count());
}

#[test]
fn parts_are_the_whole() {
    let limits = Limits {
        services_max: 100,
        servers_max: 100,
    };
    let page = Arc::new(Page::new(100, 100).unwrap());
    let mut model = Model::new(limits).watching(vec![Arc::clone(&page)]);
    let add = |n| [add_service(n), add_server(n, n)];
    let changes: Vec<Change> = (1..=100).flat_map(add).collect();
    model.apply(&changes).unwrap();
    let scrape = scrape(&model, &[page]);
    for family in families() {
        let (mut all, mut parts, mut from) = (String::new(), 0, Some(0));
        while let Some(next) = from {
            let mut part = String::new();
            from = family.write(&scrape, next, 500, &mut part);
            all += &part;
            parts += 1;
        }
        let mut once = String::new();
        assert_eq!(family.write(&scrape, 0, usize::MAX, &mut once), None);
        assert_eq!(all, once);
        // Nobody is watched.
        let is_silent = once.lines().all(|line| line.starts_with('#'));
        assert!(parts > 10 || is_silent || !family.of().starts_with("service"));
    }
}

fn change() -> impl Strategy<Value = Change> {
    let (service, server_) = (|| 1u8..4, || 1u8..4);
    prop_oneof![
        4 => service().prop_map(add_service),
        2 => service().prop_map(|n| Change::DeleteService { service: key(n) }),
        6 => (service(), server_()).prop_map(|(service, n)| add_server(service, n)),
        4 => (service(), server_()).prop_map(|(service, n)| Change::DeleteServer { service: key(service), server: server(n) }),
        2 => proptest::option::of(service()).prop_map(|n| Change::Zero { only: n.map(key) }),
        1 => Just(Change::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is added, deleted, forgotten, brought back and zeroed, refused batches included.
    #[test]
    fn no_counter_runs_backwards(batches in vec((vec(change(), 1..4), any::<bool>(), 0u64..5), 1..80)) {
        let (_, pages) = configured();
        let mut model = Model::new(LIMITS).watching(pages.clone());
        let (mut last, mut now_s) = (HashMap::new(), 0);
        for (batch, sweep, counted) in batches {
            let _ = model.apply(&batch);
            if sweep {
                now_s += 120;
                model.sweep(now_s, |id| id.0 % 4 == 3);
            }
            // Deleted servers count too, as long as connections refer to them; so does a number that
            // nobody has yet, from an earlier server.
            for page in &pages {
                for server in page.servers.iter() {
                    server.conns.add(counted);
                    server.in_bytes.add(counted * 100);
                    server.answers.add(counted);
                }
                for service in page.services.iter() {
                    service.drops[DropReason::NoServer as usize].add(counted);
                }
            }
            for (series, value) in samples(&whole(&scrape(&model, &pages))) {
                if !series.split('{').next().unwrap().ends_with("_total") && !series.contains("_count{") {
                    continue;
                }
                let before = last.insert(series.clone(), value).unwrap_or(0.0);
                prop_assert!(value >= before, "{series}: {before}, then {value}");
                // What an earlier owner of a number counted is nobody else's.
                prop_assert!(value < 1e6, "{series} is {value}");
            }
        }
    }
}

/// The endpoint on a free port of its own, with a thread that plays the main one.
struct Endpoint {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl Endpoint {
    fn start(answers: bool) -> Self {
        let (scraper, asked) = scraper(|| ());
        let stop = Arc::new(AtomicBool::new(false));
        let any = "127.0.0.1:0".parse().unwrap();
        let address = serve(any, true, &scraper, &stop).unwrap();
        let (model, pages) = configured();
        thread::spawn(move || {
            while let Ok(reply) = asked.recv() {
                if answers {
                    let _ = reply.send(scrape(&model, &pages));
                }
            }
        });
        Self { address, stop }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

#[test]
fn the_endpoint_says_metrics_and_nothing_else() {
    let endpoint = Endpoint::start(true);
    let chunked = endpoint.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = chunked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
    assert!(head.contains("Transfer-Encoding: chunked"));
    let (length, rest) = body.split_once("\r\n").unwrap();
    let length = usize::from_str_radix(length, 16).unwrap();
    assert_eq!(&rest[length..], "\r\n0\r\n\r\n");
    let plain = endpoint.ask("GET /metrics?x=1 HTTP/1.0\r\n\r\n");
    let (_, text) = plain.split_once("\r\n\r\n").unwrap();
    assert_eq!(text, &rest[..length]);
    assert!(samples(text).len() > 100);
    for (request, status) in [
        ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 "),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 "),
        ("GET / HTTP/1.1\r\n\r\n", "404 "),
        ("\x16\x03\x01\x02\r\n\r\n", "400 "),
        (
            &format!("GET /metrics HTTP/1.1\r\nX: {}", "a".repeat(9000)),
            "431 ",
        ),
    ] {
        let answer = endpoint.ask(request);
        assert!(answer[9..].starts_with(status), "{request:?}: {answer:?}");
    }
}

#[test]
fn slow_clients_are_let_go_and_hold_up_nobody_for_long() {
    let endpoint = Endpoint::start(true);
    let slow: Vec<TcpStream> = (0..12)
        .map(|_| {
            let mut stream = TcpStream::connect(endpoint.address).unwrap();
            stream.write_all(b"GET /met").unwrap();
            stream
        })
        .collect();
    let answer = endpoint.ask("GET /metrics HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"));
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    }
}

/// The lines of docs/metrics.md that follow from the code.
fn table() -> String {
    let mut table =
        String::from("| metric | type | of | labels | meaning |\n|---|---|---|---|---|\n");
    for family in families() {
        let (name, kind, of) = (family.name, family.kind.name(), family.of());
        let labels = family.labels.join(", ");
        table += &format!(
            "| `{name}` | {kind} | {of} | {labels} | {} |\n",
            family.help
        );
    }
    table
}

#[test]
fn every_metric_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let end = text.find("| metric |").unwrap_or(text.len());
    let right = format!("{}{}", &text[..end], table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, right).unwrap();
        return;
    }
    assert!(
        text == right,
        "docs/metrics.md differs from the code: UPDATE_DOCS=1 writes its table"
    );
}

/// How many series there are of what, as docs/metrics.md says.
#[test]
fn series_are_as_many_as_documented() {
    let (mut model, pages) = configured();
    let count = |model: &Model, pages: &[Arc<Page>]| samples(&whole(&scrape(model, pages))).len();
    let two = count(&model, &pages);
    let worker = two - count(&model, &pages[..1]);
    model.apply(&[add_service(2)]).unwrap();
    let service = count(&model, &pages) - two;
    model.apply(&[add_server(2, 1)]).unwrap();
    let server = count(&model, &pages) - two - service;
    let mut portless = scrape(&model, &pages);
    portless.machine.ports.clear();
    let port = count(&model, &pages) - samples(&whole(&portless)).len();
    let docs = include_str!("../../../../docs/metrics.md");
    let said = format!(
        "A server has {server} series, a service {service}, a worker {worker}, a port {port}."
    );
    assert!(docs.contains(&said), "docs/metrics.md does not say: {said}");
}

/// Metrics that the dashboard and the rules name, with what is at the end of histograms and summaries.
#[test]
fn the_dashboard_and_the_rules_name_what_there_is() {
    let dashboard = include_str!("../../../../configs/grafana-dashboard.json");
    let rules = include_str!("../../../../configs/prometheus-rules.yml");
    let json: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(json["panels"].as_array().unwrap().len() > 10);
    let (model, pages) = configured();
    let scraped = whole(&scrape(&model, &pages));
    let mut named = 0;
    for text in [dashboard, rules] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("director_")) {
            let with = |end| scraped.contains(&format!("\n{word}{end}"));
            let silent = families().any(|family| family.name == word && family.of() == "address");
            assert!(
                with('{') || with(' ') || silent,
                "there is no metric {word}"
            );
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

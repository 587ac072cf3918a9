//! Captures through a director: what leaves and what is counted must match exactly.
//!
//! A case is a folder: `config.toml`, `in.N.pcap` for each port, `out.N.pcap`, `counters.toml`. To
//! accept what comes out now, run with `UPDATE_GOLDEN=1`; that writes the inputs below anew as well.
//! `verify-captures` checks once more what came out.

mod methods; // what is sent through each forwarding method

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dataplane::config::Config;
use dataplane::packet::PortId;
use dataplane::replay::{self, Frame};
use dataplane::time::Instant;
use system_tests::frames::{self, Mac, icmp, tcp, udp};

const C: &str = "192.0.2.10:40000";
const VIP: &str = "203.0.113.1:80";
const DNS: &str = "203.0.113.1:53";
const RS1: &str = "10.1.0.1:8080";
const RS2: &str = "10.1.0.2:8080";
const NS: &str = "10.1.0.1:53";
const CLIENT_MAC: Mac = [2, 0, 0, 0, 1, 10];
const SERVER_MAC: Mac = [2, 0, 0, 0, 2, 1];

type Case = (&'static str, fn(&mut Capture));

const CASES: [Case; 25] = [
    ("nat-tcp", nat_tcp),
    ("nat-udp", nat_udp),
    ("direct", direct),
    ("no-server", no_server),
    ("no-connection", no_connection),
    ("vlan", vlan),
    ("arp", arp),
    ("malformed", malformed),
    ("port-reuse", port_reuse),
    ("nat6", methods::nat6),
    ("nat-sctp", methods::nat_sctp),
    ("direct6", methods::direct6),
    ("tunnel-ipip", methods::tunnel_ipip),
    ("tunnel-gre", methods::tunnel_gre),
    ("tunnel-gue", methods::tunnel_gue),
    ("fullnat-toa", methods::fullnat_toa),
    ("fullnat-proxy", methods::fullnat_proxy),
    ("fullnat-udp", methods::fullnat_udp),
    ("fullnat-64", methods::fullnat_64),
    ("fullnat-46", methods::fullnat_46),
    ("icmp-errors", methods::icmp_errors),
    ("fragments", methods::fragments),
    ("nd", methods::nd),
    ("schedule-icmp", methods::schedule_icmp),
    ("mss", methods::mss),
];

/// The frames of a case.
#[derive(Default)]
struct Capture(Vec<Frame>);

impl Capture {
    fn raw(&mut self, ms: u32, port: u8, bytes: Vec<u8>) {
        self.0.push(Frame {
            at: Instant::from_ms(ms),
            port: PortId(port),
            bytes,
        });
    }

    fn client(&mut self, ms: u32, frame: frames::Frame) {
        self.raw(ms, 0, frame.between(CLIENT_MAC, port_mac(0)).bytes());
    }

    fn server(&mut self, ms: u32, frame: frames::Frame) {
        self.raw(ms, 1, frame.between(SERVER_MAC, port_mac(1)).bytes());
    }

    fn handshake(&mut self, ms: u32, server: &str) {
        self.client(ms, tcp(C, VIP, "S"));
        self.server(ms + 1, tcp(server, C, "SA"));
        self.client(ms + 2, tcp(C, VIP, "A"));
    }
}

fn port_mac(port: u8) -> Mac {
    [2, 0, 0, 0, 0, port]
}

fn nat_tcp(c: &mut Capture) {
    c.handshake(0, RS2);
    c.client(3, tcp(C, VIP, "PA").data(b"GET / HTTP/1.0\r\n\r\n"));
    c.server(4, tcp(RS2, C, "PA").data(b"HTTP/1.0 200 OK\r\n\r\n"));
    c.server(5, tcp(RS2, C, "FA"));
    c.client(6, tcp(C, VIP, "FA"));
    c.server(7, tcp(RS2, C, "A"));
    c.client(120_000, tcp("192.0.2.10:40001", VIP, "S"));
    c.client(
        120_100,
        icmp("192.0.2.10", "203.0.113.1", 8, 0, [0, 7, 0, 1], b"abcdefgh"),
    );
    c.client(120_200, tcp("192.0.2.10:40001", VIP, "A").ttl(1));
    // The first connection's TIME_WAIT is over.
    c.server(130_000, tcp(RS2, C, "A"));
}

fn nat_udp(c: &mut Capture) {
    c.client(0, udp(C, DNS, b"question"));
    c.server(1, udp(NS, C, b"answer"));
    c.client(2, udp(C, DNS, b"none").without_checksum());
    c.server(3, udp(NS, C, b"none").without_checksum());
    c.client(4, udp(C, DNS, b"cut").fragment(frames::MORE_FRAGMENTS));
    c.server(300_003, udp(NS, C, b"too late"));
}

/// One arm: what comes from the client leaves on the same port, to the server's station.
fn direct(c: &mut Capture) {
    c.client(0, tcp(C, VIP, "S"));
    c.client(1, tcp(C, VIP, "A"));
    c.client(2, tcp(C, VIP, "PA").data(b"GET / HTTP/1.0\r\n\r\n"));
    c.client(3, tcp(C, VIP, "FA"));
    c.client(4, tcp(C, VIP, "A").ttl(1));
    c.client(10, tcp("192.0.2.10:40001", VIP, "S"));
    // Its server sends its answers through us.
    c.raw(
        11,
        0,
        tcp(VIP, "192.0.2.10:40001", "SA")
            .between(SERVER_MAC, port_mac(0))
            .bytes(),
    );
    c.client(12, tcp("192.0.2.10:40001", VIP, "A"));
    // The third server is behind a gateway.
    c.client(20, tcp("192.0.2.10:40002", VIP, "S"));
    c.client(30, udp(C, DNS, b"question").without_checksum());
}

fn no_server(c: &mut Capture) {
    c.client(0, tcp(C, VIP, "S"));
    c.client(1000, tcp(C, VIP, "S"));
    c.client(1500, udp(C, DNS, b"?"));
}

fn no_connection(c: &mut Capture) {
    c.client(0, tcp(C, VIP, "A"));
    c.client(1, tcp(C, VIP, "FA"));
    c.client(2, tcp(C, VIP, "R"));
    c.client(3, tcp(C, "203.0.113.1:81", "S"));
    c.client(4, udp(C, "203.0.113.1:54", b"nobody"));
    c.client(5, tcp(C, "203.0.113.9:80", "S"));
    c.server(6, tcp(RS1, C, "A"));
}

fn vlan(c: &mut Capture) {
    let server = "10.2.0.1:80";
    c.client(0, tcp(C, VIP, "S"));
    c.server(1, tcp(server, C, "SA").vlan(100));
    c.client(2, tcp(C, VIP, "A"));
    c.server(3, tcp(server, C, "A").vlan(0x6000 | 100));
    c.server(4, tcp(server, C, "A").vlan(101));
    c.client(5, tcp(C, VIP, "A").vlan(0xe000));
}

fn arp(c: &mut Capture) {
    let client = (CLIENT_MAC, [192, 0, 2, 10].into());
    let server = (SERVER_MAC, [10, 1, 0, 1].into());
    let ask = |whom: [u8; 4]| frames::arp(1, client, ([0; 6], whom.into()), [0xff; 6], None);
    c.raw(0, 0, ask([203, 0, 113, 1]));
    c.raw(1, 0, ask([192, 0, 2, 254]));
    c.raw(2, 0, ask([192, 0, 2, 77]));
    // Packets wait until the server answers; the client is known by then.
    c.client(10, udp(C, DNS, b"1"));
    c.client(11, udp(C, DNS, b"2"));
    let us = (port_mac(1), [10, 1, 0, 254].into());
    c.raw(500, 1, frames::arp(2, server, us, us.0, None));
    c.server(501, udp(NS, C, b"3"));
    // It is asked again while packets go to it.
    c.client(31_000, udp(C, DNS, b"4"));
}

fn malformed(c: &mut Capture) {
    let frame = udp(C, DNS, b"whole")
        .between(CLIENT_MAC, port_mac(0))
        .bytes();
    for (ms, len) in (0..).zip([0, 13, 20, 33, 41, frame.len() - 1]) {
        c.raw(ms, 0, frame[..len].to_vec());
    }
    for (ms, (at, to)) in (10..).zip([
        (14, 0x65),
        (14, 0x44),
        (17, 200),
        (39, 3),
        (12, 0x86),
        (5, 9),
    ]) {
        let mut bad = frame.clone();
        bad[at] = to;
        c.raw(ms, 0, bad);
    }
    c.client(20, udp("127.0.0.1:1", DNS, b"x"));
    c.client(30, udp(C, DNS, b"whole").options(&[1, 1, 1, 0]));
}

fn port_reuse(c: &mut Capture) {
    c.handshake(0, RS2);
    c.client(3, tcp(C, VIP, "FA"));
    c.server(4, tcp(RS2, C, "FA"));
    c.client(5, tcp(C, VIP, "A"));
    c.handshake(1000, RS1);
    c.server(1003, tcp(RS1, C, "R"));
    c.handshake(2000, RS2);
}

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(case)
}

fn numbered(folder: &Path, what: &str, port: usize) -> PathBuf {
    folder.join(format!("{what}.{port}.pcap"))
}

fn write_captures(folder: &Path, what: &str, ports: usize, frames: &[Frame]) {
    for port in 0..ports {
        let file = File::create(numbered(folder, what, port)).expect("a writable folder");
        let of_port = frames.iter().filter(|f| f.port.index() == port);
        replay::write(file, of_port).expect("a capture");
    }
}

fn read_captures(folder: &Path, what: &str, ports: usize) -> Vec<Frame> {
    let open = |port: usize| {
        let path = numbered(folder, what, port);
        let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (PortId(u8::try_from(port).expect("few ports")), file)
    };
    replay::read((0..ports).map(open)).expect("captures")
}

fn as_toml(counters: &BTreeMap<String, u64>) -> String {
    let mut text = String::new();
    for (name, value) in counters {
        writeln!(text, "{name:?} = {value}").expect("memory");
    }
    text
}

/// Frames of one port after the other, as captures hold them; time from the first of all.
fn by_port(frames: &[Frame]) -> Vec<(PortId, Vec<u8>, u32)> {
    let first = frames.first().map_or(0, |f| f.at.0);
    let mut sorted: Vec<_> = frames
        .iter()
        .map(|f| (f.port, f.bytes.clone(), f.at.0 - first))
        .collect();
    sorted.sort_by_key(|(port, _, at)| (*port, *at));
    sorted
}

fn check(case: &str, input: fn(&mut Capture)) {
    let folder = folder(case);
    let config = Config::load(&folder.join("config.toml")).unwrap_or_else(|e| panic!("{e}"));
    let ports = config.ports.len();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    if update {
        let mut capture = Capture::default();
        input(&mut capture);
        write_captures(&folder, "in", ports, &capture.0);
    }
    let frames = read_captures(&folder, "in", ports);
    assert!(!frames.is_empty());
    let outcome = replay::run(&config, &frames).expect("memory for the director");
    for frame in &outcome.sent {
        assert_eq!(frames::wrong_checksum(&frame.bytes), None, "{case}");
    }
    let counters = as_toml(&outcome.counters);
    if update {
        write_captures(&folder, "out", ports, &outcome.sent);
        fs::write(folder.join("counters.toml"), &counters).expect("a writable folder");
        return;
    }
    let expected = fs::read_to_string(folder.join("counters.toml")).expect("counters.toml");
    let same_frames = by_port(&read_captures(&folder, "out", ports)) == by_port(&outcome.sent);
    if !same_frames || counters != expected {
        write_captures(&folder, "out.actual", ports, &outcome.sent);
        fs::write(folder.join("counters.actual.toml"), &counters).expect("a writable folder");
        let differs = if same_frames {
            "counters.toml"
        } else {
            "out.N.pcap"
        };
        panic!(
            "{case}: {differs} differs; see *.actual.* in {}",
            folder.display()
        );
    }
}

#[test]
fn captures_come_out_as_accepted() {
    for (case, input) in CASES {
        check(case, input);
    }
}

#[test]
fn every_folder_is_a_case() {
    let folders = fs::read_dir(folder("")).expect("tests/golden");
    for entry in folders {
        let name = entry.expect("an entry").file_name();
        assert!(
            CASES.iter().any(|(case, _)| name == *case),
            "{} is not run",
            name.display()
        );
    }
}

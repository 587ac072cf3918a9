//! Clients of persistent services come back to the server they had.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Barrier;

use control::{Netmask, Persistence, ServiceKey, Thresholds};

use super::*;
use crate::director::frames::Parts;
use crate::sched::Kind::Rr;
use crate::sched::Newcomer;
use crate::update::{Policy, ServiceId};
use crate::wire::flow::Tuple;

const EACH: Netmask = Netmask::V4(Ipv4Addr::BROADCAST);
const TIMEOUT_MS: u32 = 300_000;

fn policy(timeout_s: u32, netmask: Netmask) -> Policy {
    Policy {
        persistence: Some(Persistence { timeout_s, netmask }),
        ..Policy::of(Rr)
    }
}

/// Service 0, persistent for 300 s, with these servers, of which the last is first in turn.
fn persistent(key: ServiceKey, netmask: Netmask, servers: &[&str]) -> Testbed {
    let mut t = Testbed::new(1000, setup(true));
    add_service(&mut t, 0, key, netmask);
    for (id, server) in (0..).zip(servers) {
        t.apply(add_server(0, id, server, 1));
    }
    t
}

fn add_service(t: &mut Testbed, id: u32, key: ServiceKey, netmask: Netmask) {
    t.apply(Update::AddService {
        id: ServiceId(id),
        key,
        policy: policy(300, netmask),
    });
}

/// Where a packet is sent on to.
#[track_caller]
fn taken(t: &mut Testbed, ms: u32, frame: &Frame) -> String {
    let sent = t.pass(ms, frame);
    assert_eq!(sent.len(), 1);
    addressee(&sent[0])
}

fn addressee(frame: &[u8]) -> String {
    let parts = Parts::of(&frame[14..]);
    let ip = match parts.to.first_chunk::<16>() {
        Some(ip) => IpAddr::from(*ip),
        None => IpAddr::from(*parts.to.first_chunk::<4>().unwrap()),
    };
    let port = u16::from_be_bytes([parts.segment[2], parts.segment[3]]);
    SocketAddr::new(ip, port).to_string()
}

/// Client, virtual address, server and state of each template, sorted.
fn listed(t: &Testbed, ms: u32) -> Vec<String> {
    let list = t.director.listed_templates(Instant(ms));
    let shown = list.iter().map(|c| {
        assert!(c.template);
        let protocol = c.protocol.map_or("ip", Protocol::name);
        let (client, at, server, state) = (c.client, c.virtual_address, c.server, &c.state);
        format!("{protocol} {client} {at} {server} {state} {}", c.expires_ms)
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort();
    shown
}

fn templates_of(t: &Testbed, server: u32) -> u32 {
    t.director.templates.of_server(ServerId(server))
}

fn quiescent(t: &mut Testbed) {
    t.apply(Update::SetSettings(Settings {
        expire_quiescent_template: true,
        ..Settings::default()
    }));
}

#[test]
fn a_client_comes_back() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS2, RS]);
    for client in ["192.0.2.10:1", "192.0.2.10:2"] {
        t.check(0, tcp(client, VIP, "S"), on(tcp(client, RS, "S")));
    }
    let other = "192.0.2.11:1";
    t.check(5, tcp(other, VIP, "S"), on(tcp(other, RS2, "S")));
    let again = "192.0.2.10:3";
    t.check(7, tcp(again, VIP, "S"), on(tcp(again, RS, "S")));
    let none = |client, server, left| format!("tcp {client}:0 {VIP} {server} NONE {left}");
    assert_eq!(
        listed(&t, 10),
        [
            none("192.0.2.10", RS, 299_997),
            none("192.0.2.11", RS2, 299_995)
        ]
    );
    assert_eq!((templates_of(&t, 0), templates_of(&t, 1)), (1, 1));
    assert_eq!((t.load(0), t.load(1)), ((1, 0), (3, 0)));
    assert_eq!(t.page.servers[1].conns.get(), 3);
}

#[test]
fn an_established_connection_assures_its_template() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS]);
    t.pass(0, &tcp(C, VIP, "S"));
    t.pass(0, &tcp(RS, C, "SA"));
    assert!(listed(&t, 0)[0].contains("NONE"));
    t.pass(0, &tcp(C, VIP, "A"));
    assert!(listed(&t, 0)[0].contains("ASSURED"));
}

#[test]
fn an_answer_assures_a_udp_clients_template() {
    let mut t = persistent(key(Udp, VIP), EACH, &[RS]);
    t.pass(0, &udp(C, VIP, b"?"));
    t.pass(0, &udp(C, VIP, b"?"));
    assert!(listed(&t, 0)[0].contains("NONE"));
    t.pass(0, &udp(RS, C, b"!"));
    assert!(listed(&t, 0)[0].contains("ASSURED"));
}

#[test]
fn a_mask_makes_one_client_of_many() {
    // Not a prefix: the third byte does not count.
    let mask = Netmask::V4(Ipv4Addr::new(255, 255, 0, 255));
    let mut t = persistent(key(Tcp, VIP), mask, &[RS2, RS]);
    assert_eq!(taken(&mut t, 0, &tcp("172.16.1.5:1", VIP, "S")), RS);
    assert_eq!(taken(&mut t, 0, &tcp("172.16.9.5:1", VIP, "S")), RS);
    assert_eq!(taken(&mut t, 0, &tcp("172.16.1.6:1", VIP, "S")), RS2);
    assert!(listed(&t, 0)[0].starts_with("tcp 172.16.0.5:0 "));
    let mut t = persistent(key(Tcp, VIP6), Netmask::V6(60), &[RS6B, RS6]);
    let at = |network| format!("[2001:db9:0:{network}::1]:7");
    assert_eq!(taken(&mut t, 0, &tcp(&at("10"), VIP6, "S")), RS6);
    assert_eq!(taken(&mut t, 0, &tcp(&at("1f"), VIP6, "S")), RS6);
    assert_eq!(taken(&mut t, 0, &tcp(&at("20"), VIP6, "S")), RS6B);
    assert!(listed(&t, 0)[0].starts_with("tcp [2001:db9:0:10::]:0 "));
}

#[test]
fn all_ports_of_a_service_without_port_share_a_server() {
    let every = "203.0.113.1:0";
    let mut t = persistent(key(Tcp, every), EACH, &["10.1.0.2:0", "10.1.0.1:0"]);
    add_service(&mut t, 1, key(Udp, every), EACH);
    t.apply(add_server(1, 2, "10.1.0.2:0", 1));
    // A server's port means nothing to a port that is not the service's.
    t.apply(add_server(0, 3, "10.1.0.3:99", 1));
    for (client, server) in [("192.0.2.10:1", "10.1.0.3"), ("192.0.2.11:1", "10.1.0.1")] {
        for port in [80, 443, 8080] {
            let vip = format!("203.0.113.1:{port}");
            let server = format!("{server}:{port}");
            assert_eq!(taken(&mut t, 0, &tcp(client, &vip, "S")), server);
        }
    }
    // Another protocol has templates of its own.
    let asked = udp("192.0.2.10:1", "203.0.113.1:80", b"?");
    assert_eq!(taken(&mut t, 0, &asked), "10.1.0.2:80");
    assert_eq!(
        listed(&t, 0),
        [
            format!("tcp 192.0.2.10:0 {every} 10.1.0.3:0 NONE 300000"),
            format!("tcp 192.0.2.11:0 {every} 10.1.0.1:0 NONE 300000"),
            format!("udp 192.0.2.10:0 {every} 10.1.0.2:0 NONE 300000"),
        ]
    );
}

#[test]
fn ftps_data_goes_where_its_control_connection_went() {
    let mut t = persistent(
        key(Tcp, "203.0.113.1:21"),
        EACH,
        &["10.1.0.2:2121", "10.1.0.1:2121"],
    );
    let control = tcp("192.0.2.10:1", "203.0.113.1:21", "S");
    assert_eq!(taken(&mut t, 0, &control), "10.1.0.1:2121");
    let data = tcp("192.0.2.10:2", "203.0.113.1:5000", "S");
    assert_eq!(taken(&mut t, 0, &data), "10.1.0.1:5000");
    let all = listed(&t, 0);
    assert_eq!(
        all,
        ["tcp 192.0.2.10:0 203.0.113.1:0 10.1.0.1:0 NONE 300000"]
    );
}

#[test]
fn a_marked_service_is_one_to_all_protocols() {
    let mark = ServiceKey::Mark {
        mark: NonZeroU32::new(77).unwrap(),
        ipv6: false,
    };
    let mut t = persistent(mark, EACH, &["10.1.0.2:80", "10.1.0.1:80"]);
    let tuple = |protocol, to: &str| Tuple {
        protocol,
        from: C.parse().unwrap(),
        to: to.parse().unwrap(),
    };
    for (protocol, to, goes_to) in [
        (6, "203.0.113.1:80", "10.1.0.1:80"),
        (6, "203.0.113.9:443", "10.1.0.1:443"),
        (17, "203.0.113.1:53", "10.1.0.1:53"),
    ] {
        let tuple = tuple(protocol, to);
        let choice = t
            .director
            .choose(Instant(0), ServiceId(0), &Newcomer::new(&tuple, &[]))
            .unwrap();
        assert_eq!(choice.server.address.to_string(), goes_to);
        t.director.templates.release(choice.template.unwrap());
    }
    let all = listed(&t, 0);
    assert_eq!(all, ["ip 192.0.2.10:0 0.0.0.77:0 10.1.0.1:0 NONE 300000"]);
}

#[test]
fn what_goes_by_templates_alone_is_not_scheduled_without() {
    let mut t = Testbed::new(10, setup(true));
    t.add_service(0, Tcp, "203.0.113.1:21");
    t.apply(add_server(0, 0, RS, 1));
    t.check(
        0,
        tcp(C, "203.0.113.1:5000", "S"),
        Refuse(
            DropReason::NotOurs,
            ours(tcp("203.0.113.1:5000", C, "RA").numbers(0, 1001)),
        ),
    );
    let mut t = Testbed::new(10, setup(true));
    t.add_service(0, Tcp, "203.0.113.1:0");
    t.apply(add_server(0, 0, RS, 1));
    let syn = tcp(C, "203.0.113.1:5000", "S");
    t.check(
        0,
        syn.clone(),
        Refuse(DropReason::NoServer, error(VIP_IP, 3, 3, 0, &syn)),
    );
}

#[test]
fn a_quiesced_server_keeps_its_clients_unless_told_otherwise() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    t.apply(weigh(1, 0));
    assert_eq!(taken(&mut t, 1, &tcp("192.0.2.10:1", VIP, "S")), RS);
    quiescent(&mut t);
    assert_eq!(taken(&mut t, 2, &tcp("192.0.2.10:2", VIP, "S")), RS2);
    t.check(3, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    t.apply(weigh(1, 1));
    assert_eq!(taken(&mut t, 4, &tcp("192.0.2.10:3", VIP, "S")), RS2);
    let old = "tcp 192.0.2.10:0 203.0.113.1:65535 10.1.0.1:65535 ASSURED 299996";
    let new = "tcp 192.0.2.10:0 203.0.113.1:80 10.1.0.2:80 NONE 299999";
    assert_eq!(listed(&t, 5), [old, new]);
}

#[test]
fn a_drained_servers_clients_get_another() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS2, RS]);
    establish(&mut t, 0, C, RS);
    let drain = |draining| Update::DrainServer {
        id: ServerId(1),
        draining,
    };
    t.apply(weigh(1, 0));
    t.apply(drain(true));
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, RS, "A")));
    assert_eq!(taken(&mut t, 2, &tcp("192.0.2.10:1", VIP, "S")), RS2);
    t.apply(weigh(1, 1));
    t.apply(drain(false));
    assert_eq!(
        taken(&mut t, 3, &tcp("192.0.2.10:2", VIP, "S")),
        RS2,
        "from now on"
    );
    assert_eq!(taken(&mut t, 4, &tcp("192.0.2.11:1", VIP, "S")), RS);
}

#[test]
fn a_deleted_servers_clients_get_another() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS2, RS]);
    for client in ["192.0.2.10:1", "192.0.2.11:1", "192.0.2.12:1"] {
        t.pass(0, &tcp(client, VIP, "S"));
    }
    assert_eq!(templates_of(&t, 1), 2);
    t.apply(Update::DeleteServer { id: ServerId(1) });
    assert_eq!(taken(&mut t, 1, &tcp("192.0.2.10:2", VIP, "S")), RS2);
    // Who did not come meanwhile finds all as it was.
    t.apply(add_server(0, 1, RS, 1));
    assert_eq!(taken(&mut t, 2, &tcp("192.0.2.12:2", VIP, "S")), RS);
    assert_eq!(taken(&mut t, 2, &tcp("192.0.2.10:3", VIP, "S")), RS2);
    // The invalid one waits for its end, and counts until then.
    assert_eq!((templates_of(&t, 0), templates_of(&t, 1)), (2, 2));
    t.wait(2, TIMEOUT_MS + 62_000);
    assert_eq!(t.director.templates.used(), 0);
}

#[test]
fn without_a_server_the_client_is_told() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS]);
    t.pass(0, &tcp(C, VIP, "S"));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    let syn = tcp("192.0.2.10:1", VIP, "S");
    t.check(
        1,
        syn.clone(),
        Refuse(DropReason::NoServer, error(VIP_IP, 3, 3, 0, &syn)),
    );
}

#[test]
fn an_overloaded_server_still_takes_its_clients() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS]);
    t.apply(Update::EditServer {
        id: ServerId(0),
        mode: ForwardMode::Nat,
        tunnel: control::Tunnel::default(),
        weight: 1,
        thresholds: Thresholds { upper: 1, lower: 0 },
    });
    assert_eq!(taken(&mut t, 0, &tcp("192.0.2.10:1", VIP, "S")), RS);
    assert_eq!(taken(&mut t, 0, &tcp("192.0.2.10:2", VIP, "S")), RS);
    let other = tcp("172.16.1.1:1", VIP, "S");
    t.check(
        1,
        other.clone(),
        Refuse(DropReason::NoServer, error(VIP_IP, 3, 3, 0, &other)),
    );
}

#[test]
fn a_template_outlives_its_connections_by_its_timeout_and_keeps_it() {
    let mut t = persistent(key(Udp, VIP), EACH, &[RS2, RS]);
    t.pass(0, &udp(C, VIP, b"?"));
    // The connection lives on; the template is put off, 60 s at a time.
    t.pass(200_000, &udp(C, VIP, b"?"));
    t.wait(200_000, 301_000);
    let left = |t: &Testbed, ms| listed(t, ms)[0].rsplit(' ').next().unwrap().to_owned();
    assert!(left(&t, 301_000).parse::<u32>().unwrap() <= 60_000);
    // LVS would leave it 60 s for good.
    assert_eq!(taken(&mut t, 310_000, &udp("192.0.2.10:1", VIP, b"?")), RS);
    assert_eq!(left(&t, 310_000), "300000");
    // An edited service gives new templates another time and mask; those that there are keep theirs.
    t.apply(Update::EditService {
        id: ServiceId(0),
        policy: policy(50, Netmask::V4(Ipv4Addr::new(255, 255, 255, 0))),
    });
    assert_eq!(taken(&mut t, 311_000, &udp("192.0.2.99:1", VIP, b"?")), RS2);
    assert_eq!(taken(&mut t, 311_000, &udp("192.0.2.10:2", VIP, b"?")), RS2);
    let all = listed(&t, 311_000);
    assert_eq!(
        all,
        [
            "udp 192.0.2.0:0 203.0.113.1:80 10.1.0.2:80 NONE 50000",
            "udp 192.0.2.10:0 203.0.113.1:80 10.1.0.1:80 NONE 299000"
        ]
    );
    t.wait(311_000, 311_000 + 300_000 + 62_000);
    assert_eq!(t.director.templates.used(), 0);
    assert_eq!((t.load(0), t.load(1)), ((0, 0), (0, 0)));
}

#[test]
pub(super) fn a_full_table_of_templates() {
    let mut t = persistent(key(Tcp, VIP), EACH, &[RS]);
    t.director.templates = Arc::new(Templates::new(1, [1, 2]).unwrap());
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, RS, "S")));
    let other = tcp("192.0.2.11:1", VIP, "S");
    t.check(1, other, Drop(DropReason::TemplatesFull));
    assert_eq!(t.load(0), (1, 0));
    // Once its client has no connection the template gives way.
    t.pass(2, &tcp(C, VIP, "R"));
    t.wait(2, 61_000);
    assert_eq!(taken(&mut t, 61_000, &tcp("192.0.2.11:1", VIP, "S")), RS);
    assert_eq!(listed(&t, 61_000).len(), 1);
}

#[test]
fn a_full_table_of_connections_leaves_no_hold() {
    let mut t = Testbed::new(1, setup(true));
    add_service(&mut t, 0, key(Udp, VIP), EACH);
    t.apply(add_server(0, 0, RS, 1));
    t.pass(0, &udp(C, VIP, b"?"));
    let full = udp("192.0.2.10:1", VIP, b"?");
    t.check(1, full, Drop(DropReason::TableFull));
    t.wait(1, 301_000 + 62_000);
    assert_eq!(t.director.templates.used(), 0);
}

/// Two workers of a daemon, on service 0 with these servers.
fn workers(servers: &[&str], upper: u32) -> [Testbed; 2] {
    let templates = Arc::new(Templates::new(4096, [1, 2]).unwrap());
    let mut workers = [0, 1].map(|me| {
        let mut t = Testbed::new(4096, setup(true));
        t.director.steer = Steer::new(me, 2);
        t.director.sweep = Sweep::new(me, 2);
        t.director.templates = Arc::clone(&templates);
        t
    });
    let pages: Arc<[_]> = workers.iter().map(|t| Arc::clone(&t.page)).collect();
    for t in &mut workers {
        t.director.services.count_by(Loads::new(Arc::clone(&pages)));
        add_service(t, 0, key(Tcp, VIP), EACH);
        for (id, server) in (0..).zip(servers) {
            let mut add = add_server(0, id, server, 1);
            if let Update::AddServer { thresholds, .. } = &mut add {
                thresholds.upper = upper;
            }
            t.apply(add);
        }
    }
    workers
}

/// What this worker makes of a packet that is at home there.
fn home(t: &mut Testbed, ms: u32, frame: &Frame) -> Vec<Vec<u8>> {
    let (port, frame) = arriving(frame);
    let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
    t.director
        .process_home(Instant(ms), port, &mut burst, &mut t.out);
    t.take().into_iter().map(|(_, frame)| frame).collect()
}

#[test]
fn a_template_holds_at_every_worker() {
    let [mut a, mut b] = workers(&[RS2, RS], 0);
    let took = |t: &mut Testbed, ms, client: &str| {
        let sent = home(t, ms, &tcp(client, VIP, "S"));
        addressee(&sent[0])
    };
    let server = took(&mut a, 0, "192.0.2.10:1");
    let other = took(&mut b, 0, "192.0.2.11:1");
    for port in 2..8 {
        assert_eq!(took(&mut b, 1, &format!("192.0.2.10:{port}")), server);
        assert_eq!(took(&mut a, 1, &format!("192.0.2.11:{port}")), other);
    }
    assert_eq!(a.director.templates.used(), 2);
    // Half-open connections end after a minute, templates after five; each sweeps its share.
    for ms in (0..=TIMEOUT_MS + 62_000).step_by(100) {
        for t in [&mut a, &mut b] {
            t.director.tick(Instant(ms), &mut t.out);
        }
    }
    assert_eq!(a.director.templates.used(), 0);
}

/// Clients whose first connections come to both workers at the same time.
#[test]
fn workers_that_meet_a_client_at_once_agree() {
    const CLIENTS: u32 = 1000;
    let mut both = workers(&[RS2, RS], 0);
    let start = Barrier::new(2);
    let address = |n: u32| Ipv4Addr::from_bits(0xac10_0000 + n);
    std::thread::scope(|scope| {
        for (me, t) in both.iter_mut().enumerate() {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for n in 0..CLIENTS {
                    let client = format!("{}:{}", address(n), 1000 + me);
                    home(t, 0, &tcp(&client, VIP, "S"));
                }
            });
        }
    });
    let mut servers = HashMap::new();
    for t in &both {
        let list = t.director.listed(Instant(0));
        assert_eq!(list.len(), CLIENTS as usize);
        for connection in list {
            let client = connection.client.ip();
            let server = *servers.entry(client).or_insert(connection.server);
            assert_eq!(connection.server, server, "{client} has two servers");
        }
    }
    let templates = &both[0].director.templates;
    assert_eq!(templates.used(), CLIENTS);
    let of = |id| templates.of_server(ServerId(id));
    assert_eq!(of(0) + of(1), CLIENTS);
}

#[test]
fn a_threshold_is_passed_by_no_more_than_a_connection_each() {
    const UPPER: u32 = 100;
    let mut both = workers(&[RS], UPPER);
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for (me, t) in (0..).zip(&mut both) {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for n in 0..200 {
                    let client = Ipv4Addr::from_bits(0xac10_0000 + n * 2 + me);
                    let client = format!("{client}:1000");
                    home(t, n * 10, &tcp(&client, VIP, "S"));
                }
            });
        }
    });
    let total: u32 = both.iter().map(|t| t.load(0).0).sum();
    assert!((UPPER..=UPPER + 1).contains(&total), "{total}");
    assert_eq!(both[0].director.templates.used(), total);
}

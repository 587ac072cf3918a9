//! A port beside which there is a kernel: it has what is not the director's.

use std::net::Ipv4Addr;

use control::Vips;

use super::super::testbed::{add_server_by, weigh_by};
use super::*;
use crate::packet::Burst;
use crate::templates::{Hold, Key, Tie};
use crate::update::ServerId;

const US: &str = "192.0.2.254";
const SSH: &str = "192.0.2.254:22";
const SSH6: &str = "[2001:db8:c::fe]:22";
const HOST: &str = "192.0.2.254:50000";
const ZERO: [u8; 6] = [0; 6];

fn nat(vips: Vips) -> Testbed {
    let mut t = Testbed::new(1000, beside_kernel(vips));
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    t
}

fn ip4(address: &str) -> Ipv4Addr {
    address.parse().unwrap()
}

/// Who has `target`, to all stations.
fn who_has(target: &str, sender: (&str, [u8; 6])) -> Vec<u8> {
    let sender = (sender.1, ip4(sender.0));
    arp(1, sender, (ZERO, ip4(target)), [0xff; 6], None)
}

fn client() -> (&'static str, [u8; 6]) {
    (C_IP, mac(C_IP))
}

fn host() -> (&'static str, [u8; 6]) {
    (US, port_mac(CLIENTS))
}

/// A frame of the kernel's.
fn from_host(frame: Frame, to: [u8; 6]) -> Vec<u8> {
    frame.between(port_mac(CLIENTS), to).bytes()
}

#[test]
fn what_is_for_the_ports_own_address_is_the_kernels() {
    let mut t = nat(Vips::Director);
    t.check(0, tcp(C, SSH, "S"), Punt);
    t.check(1, tcp(C6, SSH6, "S"), Punt);
    t.check(2, udp(C, SSH, b"?"), Punt);
    t.check(3, icmp(C_IP, US, 8, 0, [0; 4], b"ping"), Punt);
    t.check(4, other_ip(C_IP, US, 89, b"ospf"), Punt);
    let big = icmp(C_IP, US, 8, 0, [0; 4], &[7; 64]).id(7);
    for piece in big.pieces(40) {
        t.check(5, piece, Punt);
    }
    let big = udp(C, SSH, &[7; 64]).id(8);
    for piece in big.pieces(40) {
        t.check(6, piece, Punt);
    }
}

#[test]
fn what_is_for_nobody_here_is_the_kernels_to_route() {
    let mut t = nat(Vips::Director);
    t.check(0, udp(C, "198.51.100.1:53", b"?"), Punt);
    let own = |ethertype| link(mac(C_IP), port_mac(CLIENTS), None, ethertype);
    let lldp = link(mac(C_IP), [1, 0x80, 0xc2, 0, 0, 0xe], None, 0x88cc);
    let vrrp = other_ip(C_IP, "224.0.0.18", 112, b"vrrp").ttl(255);
    let vrrp = vrrp.between(mac(C_IP), [1, 0, 0x5e, 0, 0, 0x12]);
    for mut frame in [own(0x88b5), lldp, vrrp.bytes()] {
        frame.resize(frame.len().max(60), 0);
        t.check_bytes(1, CLIENTS, &frame, Punt);
    }
    // Of a VLAN that only the kernel may know.
    t.check(2, tcp(C, SSH, "S").vlan(7), Punt);
}

#[test]
fn what_is_the_directors_stays_the_directors() {
    let mut t = nat(Vips::Director);
    establish(&mut t, 0, C, RS);
    let ping = icmp(C_IP, VIP_IP, 8, 0, [0; 4], b"ping");
    let pong = icmp(VIP_IP, C_IP, 0, 0, [0; 4], b"ping");
    t.check(5, ping, Answer(leaving(&pong).1.bytes()));
    t.check(6, tcp(C, "203.0.113.1:81", "R"), Drop(DropReason::NotOurs));
    // The servers' port has no kernel beside it.
    let inner = icmp("10.1.0.1", "10.1.0.254", 8, 0, [0; 4], b"ping");
    let answer = icmp("10.1.0.254", "10.1.0.1", 0, 0, [0; 4], b"ping");
    t.check(7, inner, Answer(leaving(&answer).1.bytes()));
    let across = icmp(C_IP, "10.1.0.254", 8, 0, [0; 4], b"ping");
    let answer = icmp("10.1.0.254", C_IP, 0, 0, [0; 4], b"ping");
    t.check(8, across, Answer(leaving(&answer).1.bytes()));
    t.check(
        8,
        udp(RS, "198.51.100.1:53", b"?"),
        Drop(DropReason::NotOurs),
    );
    // Nor is a frame to another station anybody's here.
    let other = tcp(C, SSH, "S").between(mac(C_IP), mac("192.0.2.99"));
    t.check(9, other, Drop(DropReason::NotForUs));
    t.check_bytes(10, CLIENTS, &[2; 20], Drop(DropReason::UnknownEthertype));
}

#[test]
fn who_asks_for_us_is_answered_by_the_kernel() {
    let mut t = nat(Vips::Director);
    t.check_bytes(0, CLIENTS, &who_has(US, client()), Punt);
    let to_us = (port_mac(CLIENTS), ip4(US));
    let reply = arp(2, (mac(C_IP), ip4(C_IP)), to_us, to_us.0, None);
    t.check_bytes(1, CLIENTS, &reply, Punt);
    // Who claims our address, too: the kernel says what it thinks of that.
    t.check_bytes(2, CLIENTS, &who_has(C_IP, (US, mac(C_IP))), Punt);
    let vip = (port_mac(CLIENTS), ip4(VIP_IP));
    let answer = arp(2, vip, (mac(C_IP), ip4(C_IP)), mac(C_IP), None);
    t.check_bytes(3, CLIENTS, &who_has(VIP_IP, client()), Answer(answer));
}

#[test]
fn a_kernel_that_speaks_for_virtual_addresses_is_asked_for_them() {
    let mut t = nat(Vips::Kernel);
    t.check_bytes(0, CLIENTS, &who_has(VIP_IP, client()), Punt);
    // The other director has it, or announces that it has it now.
    let other = (VIP_IP, mac("192.0.2.99"));
    t.check_bytes(1, CLIENTS, &who_has(VIP_IP, other), Punt);
    establish(&mut t, 2, C, RS);
}

#[test]
fn what_the_director_learns_the_kernel_hears_too() {
    let mut t = Testbed::new(1000, {
        let mut setup = beside_kernel(Vips::Director);
        setup.neighbours.clear();
        setup
    });
    t.add_service(0, Tcp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    t.check_bytes(0, CLIENTS, &who_has(US, client()), Punt);
    let known = t.director.net().neighbours();
    let known: Vec<_> = known.iter().map(|view| (view.address, view.mac)).collect();
    assert_eq!(known, [(C_IP.parse().unwrap(), Some(mac(C_IP)))]);
}

#[test]
fn what_the_kernel_sends_leaves_as_it_is() {
    let mut t = nat(Vips::Director);
    let to = mac("192.0.2.1");
    for frame in [
        from_host(tcp(SSH, C, "SA"), mac(C_IP)),
        from_host(udp(HOST, "198.51.100.1:53", b"?"), to),
        from_host(tcp(HOST, C, "S").vlan(7), to),
        from_host(
            other_ip(US, "224.0.0.18", 112, b""),
            [1, 0, 0x5e, 0, 0, 0x12],
        ),
        link(port_mac(CLIENTS), [1, 0x80, 0xc2, 0, 0, 0xe], None, 0x88cc),
        who_has(C_IP, host()),
        // keepalived takes an address over.
        who_has(VIP_IP, (VIP_IP, port_mac(CLIENTS))),
    ] {
        t.check_bytes(0, KERNEL, &frame, Emit(CLIENTS));
    }
}

#[test]
fn the_host_itself_is_a_client() {
    let mut t = nat(Vips::Director);
    let own = port_mac(CLIENTS);
    let vip = (own, ip4(VIP_IP));
    let answer = arp(2, vip, (own, ip4(US)), own, None);
    t.check_bytes(0, KERNEL, &who_has(VIP_IP, host()), Answer(answer));
    let syn = tcp(HOST, VIP, "S");
    let sent = Host(RS, tcp(HOST, RS, "S").ttl(63));
    t.check_bytes(1, KERNEL, &from_host(syn, own), sent);
    let answer = tcp(VIP, HOST, "SA").ttl(63);
    // As the servers' gateway the director is addressed.
    let from_server = tcp(RS, HOST, "SA").between(mac("10.1.0.1"), port_mac(SERVERS));
    t.check(2, from_server, ToHost(RS, answer));
    let ack = from_host(tcp(HOST, VIP, "A"), own);
    t.check_bytes(3, KERNEL, &ack, Host(RS, tcp(HOST, RS, "A").ttl(63)));
    assert_eq!(t.load(0), (1, 0));
    // The kernel is no neighbour that anybody lists.
    let known = t.director.net().neighbours();
    assert!(known.iter().all(|view| view.address.to_string() != US));
    // Nobody else has this address.
    let spoofed = tcp("192.0.2.254:50001", VIP, "S").between(mac(C_IP), own);
    t.check(4, spoofed, Drop(DropReason::BadSource));
}

const TCP_PROBE: u8 = 6;

/// What a health check lays for its probe of a server, from the port of [`HOST`].
fn lay(t: &Testbed, protocol: u8, to: &str, server: u32) -> Hold {
    let key = Key::probe(protocol, 50_000, to.parse().unwrap());
    let tie = Tie {
        server: ServerId(server),
        server_port: 0,
        timeout_ms: 0,
    };
    t.director.templates().make(&key, Instant(0), tie).unwrap()
}

/// Whether a connection came.
fn retract(t: &Testbed, hold: Hold) -> bool {
    let templates = t.director.templates();
    let came = templates.retract(hold, Instant(1));
    assert_eq!(templates.used(), 0);
    came
}

/// Two servers by this method, of which the second has weight 0.
fn by(mode: ForwardMode, protocol: Protocol, vip: &str, servers: [&str; 2]) -> Testbed {
    let mut t = Testbed::new(1000, beside_kernel(Vips::Director));
    t.add_service(0, protocol, vip);
    t.apply(local_addresses(0, &["10.1.0.50", "2001:db8:1::50"]));
    for (id, server) in (0..).zip(servers) {
        t.apply(add_server_by(mode, 0, id, server));
    }
    t.apply(weigh_by(mode, 1, 0));
    t
}

/// Sends the host's packet; what leaves, and the servers of all connections.
fn host_sends(t: &mut Testbed, frame: Frame) -> (usize, Vec<String>) {
    let frame = from_host(frame, port_mac(CLIENTS));
    let mut burst = Burst::from_iter([HeapBuf::new(&frame)]);
    let now = Instant::from_ms(0);
    t.director.process(now, KERNEL, &mut burst, &mut t.out);
    t.settle();
    let conns = t.director.listed(now).into_iter();
    let servers = conns.map(|conn| conn.server.to_string()).collect();
    (t.take().len(), servers)
}

#[test]
fn a_probe_goes_to_its_server_by_every_method() {
    use ForwardMode::{Direct, FullNat, Nat, Tunnel};
    const HOST6: &str = "[2001:db8:c::fe]:50000";
    for mode in [Nat, FullNat, Direct, Tunnel] {
        for (vip, host, servers) in [(VIP, HOST, [RS, RS2]), (VIP6, HOST6, [RS6, RS6B])] {
            let mut t = by(mode, Tcp, vip, servers);
            let hold = lay(&t, TCP_PROBE, vip, 1);
            let went = (1, vec![servers[1].to_owned()]);
            assert_eq!(host_sends(&mut t, tcp(host, vip, "S")), went, "{mode:?}");
            assert_eq!(t.page.servers[1].conns.get(), 1);
            assert!(retract(&t, hold));
            let mut t = by(mode, Udp, vip, servers);
            let hold = lay(&t, 17, vip, 1);
            assert_eq!(host_sends(&mut t, udp(host, vip, b"?")), went, "{mode:?}");
            assert!(retract(&t, hold));
        }
    }
}

#[test]
fn a_probe_of_a_nat_server_is_answered() {
    let mut t = by(ForwardMode::Nat, Tcp, VIP, [RS, RS2]);
    let own = port_mac(CLIENTS);
    let hold = lay(&t, TCP_PROBE, VIP, 1);
    let sent = Host(RS2, tcp(HOST, RS2, "S").ttl(63));
    t.check_bytes(0, KERNEL, &from_host(tcp(HOST, VIP, "S"), own), sent);
    let answer = tcp(RS2, HOST, "SA").between(mac("10.1.0.2"), port_mac(SERVERS));
    t.check(1, answer, ToHost(RS2, tcp(VIP, HOST, "SA").ttl(63)));
    assert!(retract(&t, hold));
    // Its connection does not need it any more; what comes by itself is scheduled.
    for flags in ["A", "R"] {
        let sent = Host(RS2, tcp(HOST, RS2, flags).ttl(63));
        t.check_bytes(2, KERNEL, &from_host(tcp(HOST, VIP, flags), own), sent);
    }
    let again = Host(RS, tcp(HOST, RS, "S").ttl(63));
    t.check_bytes(3, KERNEL, &from_host(tcp(HOST, VIP, "S"), own), again);
}

#[test]
fn a_probe_that_reset_its_connection_leaves_its_port_to_the_next() {
    let mut t = by(ForwardMode::Direct, Tcp, VIP, [RS, RS2]);
    for server in [1, 0, 1] {
        let hold = lay(&t, TCP_PROBE, VIP, server);
        let went = (1, vec![[RS, RS2][server as usize].to_owned()]);
        assert_eq!(host_sends(&mut t, tcp(HOST, VIP, "S")), went);
        assert!(retract(&t, hold));
        host_sends(&mut t, tcp(HOST, VIP, "A"));
        host_sends(&mut t, tcp(HOST, VIP, "R"));
    }
}

#[test]
fn nobody_but_the_host_takes_what_was_laid_for_it() {
    let mut t = by(ForwardMode::Nat, Tcp, VIP, [RS, RS2]);
    let hold = lay(&t, TCP_PROBE, VIP, 1);
    let client = "192.0.2.10:50000";
    t.check(0, tcp(client, VIP, "S"), on(tcp(client, RS, "S")));
    assert_eq!(t.director.listed_templates(Instant(0)), []);
    assert!(!retract(&t, hold));
}

#[test]
fn a_probe_of_a_server_that_is_deleted_is_dropped() {
    let mut t = by(ForwardMode::Nat, Tcp, VIP, [RS, RS2]);
    let hold = lay(&t, TCP_PROBE, VIP, 1);
    let id = ServerId(1);
    t.apply(Update::DeleteServer { id });
    let syn = from_host(tcp(HOST, VIP, "S"), port_mac(CLIENTS));
    t.check_bytes(0, KERNEL, &syn, Drop(DropReason::ServerGone));
    assert!(retract(&t, hold));
}

#[test]
fn a_probe_of_a_service_of_every_port_goes_to_its_own() {
    let mut t = by(
        ForwardMode::Nat,
        Tcp,
        "203.0.113.1:0",
        ["10.1.0.1:0", "10.1.0.2:0"],
    );
    let hold = lay(&t, TCP_PROBE, VIP, 1);
    let went = (1, vec![RS2.to_owned()]);
    assert_eq!(host_sends(&mut t, tcp(HOST, VIP, "S")), went);
    assert!(retract(&t, hold));
}

#[test]
fn what_the_kernel_sends_to_us_in_vain_does_not_come_back_to_it() {
    let mut t = nat(Vips::Director);
    let own = port_mac(CLIENTS);
    let stray = from_host(udp(HOST, "198.51.100.1:53", b"?"), own);
    t.check_bytes(0, KERNEL, &stray, Drop(DropReason::NotOurs));
}

#[test]
pub(super) fn a_flood_does_not_keep_the_kernel_from_its_neighbours() {
    let mut t = nat(Vips::Director);
    let punted = |t: &Testbed| t.page.port(CLIENTS).punted.get();
    for _ in 0..1000 {
        t.pass(0, &udp(C, SSH, b"flood"));
    }
    let flooded = punted(&t);
    assert!(flooded < 512, "{flooded}");
    t.check(0, tcp(C, SSH, "S"), Drop(DropReason::PuntLimit));
    t.check_bytes(0, CLIENTS, &who_has(US, client()), Punt);
    // Later there is room again.
    t.check(1000, tcp(C, SSH, "S"), Punt);
}

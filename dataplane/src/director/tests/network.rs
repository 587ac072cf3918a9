//! Frames, tags, neighbours, routes, and being asked for.

use super::*;

const RS_IP: &str = "10.1.0.1";

/// LVS takes such a service; nobody is told that its address is here.
#[test]
fn a_service_of_no_station_is_not_ours_to_answer_for() {
    for vip in ["0.0.0.0:80", "224.0.0.1:80"] {
        let t = Testbed::nat(Tcp, vip, &[RS]);
        let address = vip.split(':').next().unwrap().parse().unwrap();
        assert!(!t.director.owns(address), "{vip}");
        assert!(!t.director.services.owns(address), "{vip}");
    }
}

#[test]
fn echo_is_answered_for_our_addresses() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for ours in [VIP_IP, "192.0.2.254", "10.1.0.254"] {
        let request = icmp(C_IP, ours, 8, 0, [1, 2, 3, 4], b"payload");
        let reply = icmp(ours, C_IP, 0, 0, [1, 2, 3, 4], b"payload");
        t.check(0, request, Answer(leaving(&reply).1.bytes()));
    }
    t.check(
        1,
        icmp(C_IP, RS_IP, 8, 0, [0; 4], b""),
        Drop(DropReason::NotOurs),
    );
    t.check(
        2,
        icmp(C_IP, VIP_IP, 13, 0, [0; 4], b""),
        Drop(DropReason::NotOurs),
    );
}

#[test]
pub(super) fn other_stations_frames() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let syn = || tcp(C, VIP, "S");
    let from = mac(C_IP);
    t.check(
        0,
        syn().between(from, mac("192.0.2.99")),
        Drop(DropReason::NotForUs),
    );
    t.check(
        1,
        syn().between(from, [0xff; 6]),
        Drop(DropReason::NotForUs),
    );
    t.check(
        2,
        syn().between(from, [1, 0, 0x5e, 0, 0, 1]),
        Drop(DropReason::NotForUs),
    );
    t.check(
        3,
        syn().between(from, port_mac(SERVERS)),
        Drop(DropReason::NotForUs),
    );
}

#[test]
pub(super) fn tags_are_put_on_and_taken_off() {
    let server = "10.2.0.1:80";
    let mut t = Testbed::nat(Tcp, VIP, &[server]);
    establish(&mut t, 0, C, server);
    t.check(1, tcp(C, VIP, "A"), on(tcp(C, server, "A")));
    // A priority tag is no VLAN; it does not go further.
    let priority = tcp(C, VIP, "A")
        .between(mac(C_IP), port_mac(CLIENTS))
        .vlan(0x6000);
    t.check(2, priority, on(tcp(C, server, "A")));
    let unknown = tcp(server, C, "A")
        .between(mac("10.2.0.1"), port_mac(SERVERS))
        .vlan(101);
    t.check(3, unknown, Drop(DropReason::UnknownVlan));
}

#[test]
pub(super) fn no_room_for_a_tag() {
    let server = "10.2.0.1:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let (port, frame) = arriving(&udp(C, VIP, &[3; 200]));
    let bytes = frame.bytes();
    // A buffer whose headroom is used up.
    let mut packet = HeapBuf::new(&bytes[128..]);
    assert!(packet.prepend(128));
    packet.bytes_mut().copy_from_slice(&bytes);
    let mut burst = Burst::from_iter([packet]);
    t.director.process(Instant(0), port, &mut burst, &mut t.out);
    t.settle();
    assert_eq!(t.take(), []);
    assert_eq!(
        t.page.port(port).drops[DropReason::NoHeadroom as usize].get(),
        1
    );
}

fn asks(port: PortId, ours: &str, whom: &str) -> Vec<u8> {
    let (ours, whom) = (ours.parse().unwrap(), whom.parse().unwrap());
    arp(1, (port_mac(port), ours), ([0; 6], whom), [0xff; 6], None)
}

fn answers(whom: &str, ours: &str, port: PortId) -> Vec<u8> {
    let sender = (mac(whom), whom.parse().unwrap());
    arp(
        2,
        sender,
        (port_mac(port), ours.parse().unwrap()),
        port_mac(port),
        None,
    )
}

#[test]
pub(super) fn packets_wait_for_a_neighbour_in_order() {
    let server = "10.1.0.9:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let out = |data: &[u8]| udp(C, server, data).ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"0"), Hold(Some(asked), out(b"0")));
    for n in 1..16u8 {
        t.check(1, udp(C, VIP, &[b'0' + n]), Hold(None, out(&[b'0' + n])));
    }
    let before = t.page.servers[0].in_packets.get();
    let (port, frame) = arriving(&udp(C, VIP, b"more"));
    let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
    t.director.process(Instant(2), port, &mut burst, &mut t.out);
    t.settle();
    assert_eq!(
        t.page.port(port).drops[DropReason::HeldFull as usize].get(),
        1
    );
    assert_eq!(t.page.servers[0].in_packets.get(), before + 1);

    let reply = answers("10.1.0.9", "10.1.0.254", SERVERS);
    let mut burst = Burst::from_iter([HeapBuf::new(&reply)]);
    t.director
        .process(Instant(3), SERVERS, &mut burst, &mut t.out);
    t.settle();
    let expected: Vec<_> = (0..16u8)
        .map(|n| leaving(&out(&[b'0' + n])))
        .map(|(port, frame)| (port, frame.bytes()))
        .collect();
    assert_eq!(t.take(), expected);
    assert_eq!(t.page.held.get(), 0);
    t.check(4, udp(C, VIP, b"ready"), Forward(out(b"ready")));
}

#[test]
pub(super) fn a_neighbour_that_does_not_answer() {
    let server = "10.1.0.9:80";
    let mut t = Testbed::nat(Udp, VIP, &[server]);
    let out = udp(C, server, b"x").ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"x"), Hold(Some(asked.clone()), out));
    assert_eq!(t.wait(0, 2_900), vec![(SERVERS, asked); 2]);
    t.wait(2_900, 3_100);
    assert_eq!(t.page.held.get(), 0);
    assert_eq!(
        t.page.port(CLIENTS).drops[DropReason::NeighbourFailed as usize].get(),
        1
    );
}

#[test]
pub(super) fn waiting_packets_are_given_back_at_the_end() {
    let mut t = Testbed::nat(Udp, VIP, &["10.1.0.9:80"]);
    let out = udp(C, "10.1.0.9:80", b"x").ttl(63);
    let asked = asks(SERVERS, "10.1.0.254", "10.1.0.9");
    t.check(0, udp(C, VIP, b"x"), Hold(Some(asked), out));
    t.director.stop(&mut t.out);
    t.settle();
    assert_eq!(t.page.held.get(), 0);
    assert_eq!(
        t.page.port(CLIENTS).drops[DropReason::Stopped as usize].get(),
        1
    );
}

#[test]
pub(super) fn no_route_to_the_server() {
    let mut nowhere = setup(true);
    nowhere.routes.clear();
    let mut t = Testbed::new(10, nowhere);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, "172.16.0.1:80", 1));
    t.check(0, udp(C, VIP, b"x"), Drop(DropReason::NoRoute));
}

#[test]
pub(super) fn arp_is_spoken() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let client = (mac("192.0.2.99"), "192.0.2.99".parse().unwrap());
    for ours in [VIP_IP, "192.0.2.254"] {
        let ours = ours.parse().unwrap();
        let request = arp(1, client, ([0; 6], ours), [0xff; 6], None);
        let reply = arp(2, (port_mac(CLIENTS), ours), client, client.0, None);
        t.check_bytes(0, CLIENTS, &request, Answer(reply));
    }
    let other = ([0; 6], "192.0.2.50".parse().unwrap());
    t.check_bytes(1, CLIENTS, &arp(1, client, other, [0xff; 6], None), Consume);
    let thief = (client.0, VIP_IP.parse().unwrap());
    t.check_bytes(
        2,
        CLIENTS,
        &arp(1, thief, other, [0xff; 6], None),
        Drop(DropReason::BadArp),
    );
    t.check_bytes(
        3,
        CLIENTS,
        &arp(1, client, other, mac("192.0.2.50"), None),
        Drop(DropReason::NotForUs),
    );
}

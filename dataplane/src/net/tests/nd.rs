//! Neighbour discovery, and what differs with IPv6.

use std::net::Ipv6Addr;

use super::*;
use crate::wire::ethernet::IPV6;
use DropReason::BadNd;

const LAN6: &str = "2001:db8:0:1::1";
const VLAN6: &str = "2001:db8:0:2::1";
const HOST6: &str = "2001:db8:0:1::9";
const VIP6: &str = "2001:db8:0:1::100";
const FAR_VIP6: &str = "2001:db8:f::100";
const PINNED6: &str = "2001:db8:0:1::50";
const GATEWAY6: &str = "2001:db8:0:1::fe";
/// Made from [`OUR_LAN`].
const LAN_LOCAL: &str = "fe80::ff:fe00:1";
const VLAN_LOCAL: &str = "fe80::ff:fe00:2";
const HOST_LOCAL: &str = "fe80::9";
const ALL: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn octets(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn prefix6(address: &str, length: u8) -> Prefix {
    Prefix {
        address: ip(address),
        length,
    }
}

fn route6(to: &str, length: u8, via: &str) -> Route {
    Route {
        to: prefix6(to, length),
        via: ip(via),
    }
}

/// The IPv4 network with IPv6 on the same interfaces.
fn both() -> Setup {
    let mut setup = setup();
    setup.interfaces[0].addresses.push(prefix6(LAN6, 64));
    setup.interfaces[1].addresses.push(prefix6(VLAN6, 64));
    setup.routes.extend([
        route6("::", 0, GATEWAY6),
        route6("2001:db8:a::", 48, "2001:db8:0:2::fe"),
        route6("2001:db8:0:1::", 64, "2001:db8:0:2::fe"), // ours is nearer
        route6("2001:db8:b::", 48, "2001:db8:dead::1"),   // unreachable
    ]);
    setup.neighbours.push(StaticNeighbour {
        address: ip(PINNED6),
        mac: PINNED,
    });
    setup
}

fn bed() -> Bed {
    Bed {
        net: Net::new(both()),
        ..Bed::new()
    }
}

/// The textbook loop: the code under test has its own way.
fn checksum(src: &[u8], dst: &[u8], message: &[u8]) -> [u8; 2] {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    let all = [src, dst, &len, &[0, 0, 0, 58], message].concat();
    let mut total = 0;
    for pair in all.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    (!u16::try_from(total).unwrap()).to_be_bytes()
}

/// An IPv6 packet with an ICMPv6 `message`, whose checksum is filled in.
fn icmp6(src: &str, dst: &str, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
    packet.extend([58, 255]);
    packet.extend([octets(src), octets(dst)].concat());
    packet.extend(message);
    let sum = checksum(&octets(src), &octets(dst), message);
    if let Some(field) = packet.get_mut(42..44) {
        field.copy_from_slice(&sum);
    }
    packet
}

fn tagged(dst: [u8; 6], src: [u8; 6], vlan: Option<u8>, packet: &[u8]) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0, 0, vlan]);
    }
    frame.extend([0x86, 0xdd]);
    frame.extend(packet);
    frame
}

fn message(kind: u8, flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(octets(target));
    message.extend(options);
    message
}

/// A link-layer address option: 1 is the source's, 2 the target's.
fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

fn group_of(target: &str) -> (String, [u8; 6]) {
    let [.., a, b, c] = octets(target);
    let group = format!("ff02::1:ff{a:02x}:{b:02x}{c:02x}");
    (group, [0x33, 0x33, 0xff, a, b, c])
}

/// What we ask the group of `target`'s.
fn question(target: &str) -> (PortId, Vec<u8>, bool) {
    let (group, station) = group_of(target);
    let source = if target.starts_with("fe80") {
        LAN_LOCAL
    } else {
        LAN6
    };
    let asked = message(SOLICITATION, 0, target, &option(1, OUR_LAN));
    let packet = icmp6(source, &group, &asked);
    (LAN, tagged(station, OUR_LAN, None, &packet), true)
}

/// What we answer on the LAN to somebody at [`PEER`].
fn reply(target: &str, to: &str) -> (PortId, Vec<u8>, bool) {
    let flags = SOLICITED | OVERRIDE;
    let told = message(ADVERTISEMENT, flags, target, &option(2, OUR_LAN));
    let packet = icmp6(target, to, &told);
    (LAN, tagged(PEER, OUR_LAN, None, &packet), true)
}

/// What we tell everybody on an interface.
fn announced(target: &str, mac: [u8; 6], vlan: Option<u8>) -> Vec<u8> {
    let told = message(ADVERTISEMENT, OVERRIDE, target, &option(2, mac));
    tagged(ALL, mac, vlan, &icmp6(target, "ff02::1", &told))
}

fn data6(dst: [u8; 6], mark: u8) -> (PortId, Vec<u8>, bool) {
    (LAN, tagged(dst, OUR_LAN, None, &[mark]), false)
}

/// From the frame of [`PEER`], with an option of its own address, on the LAN.
fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let (group, station) = group_of(target);
    let asked = message(SOLICITATION, 0, target, &option(1, PEER));
    tagged(station, PEER, None, &icmp6(source, &group, &asked))
}

fn probe(target: &str) -> Vec<u8> {
    let (group, station) = group_of(target);
    let asked = message(SOLICITATION, 0, target, &[]);
    tagged(station, PEER, None, &icmp6("::", &group, &asked))
}

fn advertisement(target: &str, flags: u8, mac: Option<[u8; 6]>) -> Vec<u8> {
    let options = mac.map(|mac| option(2, mac)).unwrap_or_default();
    let told = message(ADVERTISEMENT, flags, target, &options);
    let to = if flags & SOLICITED != 0 {
        LAN6
    } else {
        "ff02::1"
    };
    tagged(OUR_LAN, PEER, None, &icmp6(target, to, &told))
}

fn learned6(mac: [u8; 6], flags: u8) -> Learned {
    Learned {
        port: LAN,
        vlan: None,
        address: ip(HOST6),
        mac,
        solicited: flags & SOLICITED != 0,
        overrides: flags & OVERRIDE != 0,
    }
}

impl Bed {
    fn nd(&mut self, ms: u32, port: PortId, vlan: Option<u16>, frame: &[u8], ends: (usize, usize)) {
        self.page.port(port).rx.add(1);
        let (packet, (l3, l4)) = (HeapBuf::new(frame), ends);
        let is_vip = |a: IpAddr| a == ip(VIP6) || a == ip(FAR_VIP6);
        let (out, page) = (&mut self.out, &self.page);
        let now = Instant(ms);
        let left = (self.net).receive_nd(now, port, vlan, packet, l3, l4, is_vip, out, page);
        self.settle(port, left);
        assert!(self.page.balanced(), "{:?}", self.page);
    }

    fn lan(&mut self, ms: u32, frame: &[u8]) {
        self.nd(ms, LAN, None, frame, (14, 54));
    }

    fn forward6(&mut self, ms: u32, to: &str, mark: u8) -> HopId {
        let id = self.net.hop_to(Instant(ms), ip(to)).unwrap();
        self.hold(ms, id, mark);
        id
    }

    fn state6(&self, address: &str) -> Option<&'static str> {
        let all = self.net.neighbours();
        let found = all.iter().find(|n| n.address == ip(address));
        found.map(|n| n.state.word())
    }

    fn consumed(&self) -> u64 {
        self.page.port(LAN).consumed.get()
    }

    /// [`HOST6`] answered at [`PEER`]; what was sent and shared is forgotten.
    fn resolved(ms: u32) -> (Self, HopId) {
        let mut bed = bed();
        let id = bed.forward6(ms, HOST6, 1);
        bed.lan(ms, &advertisement(HOST6, SOLICITED | OVERRIDE, Some(PEER)));
        assert_eq!(bed.sent(), [question(HOST6), data6(PEER, 1)]);
        bed.shared();
        (bed, id)
    }
}

#[test]
fn addresses_of_both_families() {
    let net = bed().net;
    for ours in [LAN6, VLAN6, LAN_LOCAL, VLAN_LOCAL, "10.0.0.1"] {
        assert!(net.is_mine(ip(ours)), "{ours}");
    }
    assert!(!net.is_mine(ip(HOST6)) && !net.is_mine(ip("::ffff:10.0.0.1")));
    assert!(!net.is_broadcast(ip("2001:db8:0:1:ffff:ffff:ffff:ffff")));
    for (address, station, global) in [
        (HOST6, true, true),
        (HOST_LOCAL, true, false),
        ("febf::1", true, false),
        ("169.254.0.1", true, true),
        ("ff02::1", false, false),
        ("::", false, false),
        ("::1", false, false),
        ("::ffff:10.0.0.9", false, false),
        ("224.0.0.1", false, false),
    ] {
        assert_eq!(is_station(ip(address)), station, "{address}");
        assert_eq!(is_global(ip(address)), global, "{address}");
    }
}

#[test]
fn hops_follow_the_longest_prefix_in_ipv6() {
    let mut net = bed().net;
    let mut hop = |to: &str| net.hop_to(Instant(0), ip(to));
    let direct = hop(HOST6).unwrap();
    assert_eq!(hop(HOST6), Ok(direct));
    let gateway = hop("2001:db8:c::1").unwrap();
    assert_eq!(hop(GATEWAY6), Ok(gateway));
    assert_eq!(hop("2001:db8:b::1"), Ok(gateway), "a route over nothing");
    let other = hop("2001:db8:a::1").unwrap();
    assert_ne!(other, gateway);
    let v4 = hop("10.0.0.9").unwrap();
    for nowhere in [
        "::",
        "::1",
        "ff02::1",
        "ff0e::1",
        "::ffff:10.0.0.9",
        HOST_LOCAL,
        LAN_LOCAL,
        LAN6,
        VLAN6,
    ] {
        assert_eq!(hop(nowhere), Err(NoRoute), "{nowhere}");
    }
    assert_eq!(
        net.hop_on_link(Instant(0), ip("2001:db8:c::1")),
        Err(DropReason::NotOnLink)
    );
    assert_eq!(net.hop_on_link(Instant(0), ip(HOST6)), Ok(direct));
    assert_eq!(net.hop_on_link(Instant(0), ip(HOST_LOCAL)), Err(NoRoute));
    assert_eq!(net.hop(direct).l2[12..14], IPV6.to_be_bytes());
    assert_eq!(net.hop(other).l2[12..], [0x81, 0, 0, 100, 0x86, 0xdd]);
    assert_eq!(net.hop(v4).l2[12..14], IPV4.to_be_bytes());
    assert_eq!(net.source_for(direct), ip(LAN6));
    assert_eq!(net.source_for(other), ip(VLAN6));
    assert_eq!(net.source_for(v4), IpAddr::from(US));
    assert_eq!(net.source_for_family(v4, true), Some(ip(LAN6)));
    assert_eq!(net.source_for_family(v4, false), Some(US.into()));
    assert_eq!(net.source_for_family(other, false), Some(US_VLAN.into()));
}

#[test]
fn an_interface_without_an_address_of_the_family() {
    let mut only4 = Bed::new().net;
    let v4 = only4.hop_to(Instant(0), HOST.into()).unwrap();
    assert_eq!(only4.source_for_family(v4, true), None);
    assert_eq!(only4.hop_to(Instant(0), ip(HOST6)), Err(NoRoute));

    let mut setup = both();
    setup.interfaces[0].addresses.remove(0);
    let mut only6 = Net::<HeapBuf>::new(setup);
    let v6 = only6.hop_to(Instant(0), ip(HOST6)).unwrap();
    assert_eq!(only6.source_for_family(v6, false), None);
    assert_eq!(only6.source_for_family(v6, true), Some(ip(LAN6)));
}

#[test]
fn link_local_answers_go_back_where_they_came_from() {
    let mut bed = bed();
    let now = Instant(0);
    let lan = bed.net.hop_back(now, LAN, None, ip(HOST_LOCAL)).unwrap();
    let vlan = bed.net.hop_back(now, TRUNK, Some(100), ip(HOST_LOCAL));
    let vlan = vlan.unwrap();
    assert_ne!(lan, vlan, "the same address is another station's there");
    assert_eq!(
        (bed.net.hop(lan).port, bed.net.hop(vlan).port),
        (LAN, TRUNK)
    );
    assert_eq!(bed.net.source_for(lan), ip(LAN_LOCAL));
    assert_eq!(bed.net.source_for(vlan), ip(VLAN_LOCAL));
    let elsewhere = bed.net.hop_to(now, ip(HOST6));
    assert_eq!(
        bed.net.hop_back(now, TRUNK, Some(100), ip(HOST6)),
        elsewhere
    );
    for nowhere in [LAN_LOCAL, VLAN_LOCAL, "ff02::1", "::1"] {
        assert_eq!(bed.net.hop_back(now, LAN, None, ip(nowhere)), Err(NoRoute));
    }
    let unknown = bed.net.hop_back(now, LAN, Some(5), ip(HOST_LOCAL));
    assert_eq!(unknown, Err(NoRoute));

    bed.hold(0, lan, 1);
    assert_eq!(bed.sent(), [question(HOST_LOCAL)]);
    bed.lan(
        1,
        &advertisement(HOST_LOCAL, SOLICITED | OVERRIDE, Some(PEER)),
    );
    assert_eq!(bed.sent(), [data6(PEER, 1)]);
    assert!(!bed.net.hop(vlan).ready);
}

#[test]
fn resolve_hold_release_in_order() {
    let mut bed = bed();
    let id = bed.forward6(0, HOST6, 1);
    assert_eq!(bed.sent(), [question(HOST6)]);
    bed.forward6(1, HOST6, 2);
    assert_eq!(bed.sent(), [], "one question, however many packets wait");
    assert_eq!(
        (bed.page.held.get(), bed.state6(HOST6)),
        (2, Some("incomplete"))
    );
    bed.lan(4, &advertisement(HOST6, SOLICITED | OVERRIDE, None));
    assert_eq!(bed.state6(HOST6), Some("incomplete"), "nothing was said");

    bed.lan(5, &advertisement(HOST6, SOLICITED | OVERRIDE, Some(PEER)));
    assert_eq!(bed.sent(), [data6(PEER, 1), data6(PEER, 2)]);
    assert_eq!(
        (bed.page.held.get(), bed.state6(HOST6)),
        (0, Some("reachable"))
    );
    assert_eq!(bed.shared(), [learned6(PEER, SOLICITED | OVERRIDE)]);
    assert!(bed.net.hop(id).ready);
    bed.forward6(6, HOST6, 3);
    assert_eq!(bed.sent(), [data6(PEER, 3)], "a ready hop's leave at once");
    assert_eq!((bed.consumed(), bed.net.generation()), (2, 0));
}

#[test]
fn retries_then_fails_then_tries_again() {
    let mut bed = bed();
    let id = bed.forward6(0, HOST6, 1);
    let mut questions = bed.sent().len();
    for ms in (10..=2990).step_by(10) {
        bed.tick(ms);
        let sent = bed.sent();
        let is_due = ms % 1000 == 0 && sent == [question(HOST6)];
        assert!(sent.is_empty() || is_due, "{ms}");
        questions += sent.len();
    }
    assert_eq!((questions, bed.page.held.get()), (3, 1));
    bed.tick(3000);
    assert_eq!(
        (bed.state6(HOST6), bed.drops(NeighbourFailed)),
        (Some("failed"), 1)
    );
    bed.forward6(5999, HOST6, 2);
    assert_eq!((bed.sent(), bed.drops(NeighbourFailed)), (vec![], 2));
    bed.forward6(6000, HOST6, 3);
    assert_eq!(bed.sent(), [question(HOST6)]);
    bed.lan(6001, &advertisement(HOST6, SOLICITED, Some(PEER)));
    assert_eq!(bed.sent(), [data6(PEER, 3)], "nothing is overridden");
    assert_eq!(bed.net.hop_to(Instant(6002), ip(HOST6)), Ok(id));
}

#[test]
fn a_used_neighbour_is_probed() {
    let (mut bed, id) = Bed::resolved(0);
    bed.net.hop_mut(id).used = true;
    bed.tick(29_990);
    assert_eq!(bed.sent(), []);
    bed.tick(30_000);
    let asked = message(SOLICITATION, 0, HOST6, &option(1, OUR_LAN));
    let packet = icmp6(LAN6, HOST6, &asked);
    let probe = (LAN, tagged(PEER, OUR_LAN, None, &packet), true);
    assert_eq!(bed.sent(), std::slice::from_ref(&probe));
    assert!(bed.net.hop(id).ready, "traffic goes on while probing");
    bed.lan(30_000, &advertisement(HOST6, 0, Some(PEER)));
    assert_eq!(bed.state6(HOST6), Some("probing"), "that was no answer");
    bed.lan(30_001, &advertisement(HOST6, SOLICITED, None));
    assert_eq!(bed.state6(HOST6), Some("reachable"), "the address is known");
    assert_eq!(bed.net.hop(id).l2[..6], PEER);

    bed.net.hop_mut(id).used = true;
    for ms in [60_001, 61_001, 62_001] {
        bed.tick(ms);
        assert_eq!(bed.sent(), std::slice::from_ref(&probe), "{ms}");
    }
    bed.tick(63_001);
    assert_eq!(bed.sent(), [question(HOST6)], "it may have moved");
    assert!(!bed.net.hop(id).ready);
    bed.forward6(63_002, HOST6, 2);
    bed.lan(63_003, &advertisement(HOST6, SOLICITED, Some(MOVED)));
    assert_eq!(bed.sent(), [data6(MOVED, 2)]);
}

#[test]
fn answers_for_addresses_and_vips() {
    let mut bed = bed();
    for target in [LAN6, VLAN6, VIP6, FAR_VIP6, LAN_LOCAL] {
        bed.lan(0, &solicitation(HOST6, target));
        assert_eq!(bed.sent(), [reply(target, HOST6)], "{target}");
    }
    bed.lan(0, &solicitation(HOST_LOCAL, VIP6));
    assert_eq!(bed.sent(), [reply(VIP6, HOST_LOCAL)]);
    for target in ["2001:db8:0:1::77", VLAN_LOCAL, HOST_LOCAL] {
        bed.lan(1, &solicitation(HOST6, target));
        assert_eq!(bed.sent(), [], "{target}");
    }
    assert_eq!((bed.consumed(), bed.page.made()), (3, 0));
    assert_eq!(bed.page.port(LAN).answered.get(), 6);
}

#[test]
fn who_asks_for_us_is_known_and_checked_when_used() {
    let mut bed = bed();
    bed.lan(0, &solicitation(HOST6, LAN6));
    bed.lan(0, &solicitation(HOST6, LAN6));
    bed.lan(0, &solicitation("2001:db8:7::7", LAN6));
    bed.lan(0, &solicitation("2001:db8:0:1::77", "2001:db8:0:1::78"));
    bed.sent();
    assert_eq!(bed.state6(HOST6), Some("reachable"));
    assert_eq!(bed.state6("2001:db8:7::7"), None, "of another network");
    assert_eq!(bed.state6("2001:db8:0:1::77"), None, "did not ask for us");
    assert_eq!(bed.shared(), [learned6(PEER, OVERRIDE)], "once");
    bed.forward6(10, HOST6, 1);
    bed.net.hop_mut(HopId(2)).used = true;
    assert_eq!(bed.sent(), [data6(PEER, 1)], "ready");
    bed.tick(20);
    let asked = message(SOLICITATION, 0, HOST6, &option(1, OUR_LAN));
    let packet = icmp6(LAN6, HOST6, &asked);
    assert_eq!(
        bed.sent(),
        [(LAN, tagged(PEER, OUR_LAN, None, &packet), true)]
    );
    assert_eq!(bed.state6(HOST6), Some("probing"));
}

#[test]
fn who_does_not_say_its_ethernet_address_is_answered_where_the_frame_came_from() {
    let mut bed = bed();
    let asked = message(SOLICITATION, 0, LAN6, &[]);
    let frame = tagged(OUR_LAN, PEER, None, &icmp6(HOST6, LAN6, &asked));
    bed.lan(0, &frame);
    assert_eq!(bed.sent(), [reply(LAN6, HOST6)]);
    assert_eq!((bed.state6(HOST6), bed.shared()), (None, vec![]));
    let mut of_nobody = frame.clone();
    of_nobody[6..12].fill(0);
    bed.lan(0, &of_nobody);
    assert_eq!((bed.sent(), bed.drops(BadNd)), (vec![], 1));
}

#[test]
fn an_address_probe_is_answered_for_all_to_hear_and_not_learned() {
    let mut bed = bed();
    for target in [LAN6, VIP6, LAN_LOCAL] {
        bed.lan(0, &probe(target));
        let told = announced(target, OUR_LAN, None);
        assert_eq!(bed.sent(), [(LAN, told, true)], "{target}");
    }
    bed.lan(0, &probe("2001:db8:0:1::77"));
    assert_eq!(bed.sent(), []);
    assert_eq!((bed.net.neighbours().len(), bed.shared()), (2, vec![]));
}

#[test]
fn vlan_in_and_out() {
    let mut bed = bed();
    let host = "2001:db8:0:2::9";
    let (group, station) = group_of(VLAN6);
    let asked = message(SOLICITATION, 0, VLAN6, &option(1, PEER));
    let frame = tagged(station, PEER, Some(100), &icmp6(host, &group, &asked));
    bed.nd(0, TRUNK, Some(100), &frame, (18, 58));
    let flags = SOLICITED | OVERRIDE;
    let told = message(ADVERTISEMENT, flags, VLAN6, &option(2, OUR_VLAN));
    let answer = tagged(PEER, OUR_VLAN, Some(100), &icmp6(VLAN6, host, &told));
    assert_eq!(bed.sent(), [(TRUNK, answer, true)]);
    bed.nd(0, TRUNK, Some(101), &frame, (18, 58));
    bed.nd(0, TRUNK, None, &frame, (18, 58));
    assert_eq!((bed.drops(UnknownVlan), bed.sent()), (2, vec![]));
    bed.forward6(0, host, 7);
    let sent = (TRUNK, tagged(PEER, OUR_VLAN, Some(100), &[7]), false);
    assert_eq!(bed.sent(), [sent]);

    let mut priority = solicitation(HOST6, LAN6);
    priority.splice(12..12, [0x81, 0, 0xe0, 0]);
    bed.nd(0, LAN, None, &priority, (18, 58));
    assert_eq!(bed.sent(), [reply(LAN6, HOST6)], "the tag is taken off");
}

#[test]
fn extension_headers_and_padding_are_left_out_of_the_answer() {
    let mut bed = bed();
    let (group, station) = group_of(LAN6);
    let asked = message(SOLICITATION, 0, LAN6, &option(1, PEER));
    let mut packet = icmp6(HOST6, &group, &asked);
    packet[5] += 8;
    packet[6] = 60; // destination options, all padding
    packet.splice(40..40, [58, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([0xa5; 11]);
    let frame = tagged(station, PEER, None, &packet);
    bed.nd(0, LAN, None, &frame, (14, 62));
    assert_eq!(bed.sent(), [reply(LAN6, HOST6)]);
}

#[test]
fn announcements() {
    let mut bed = bed();
    let mut announce = |vip: &str| {
        bed.net.announce(ip(vip), &mut bed.out, &bed.page);
        bed.sent()
    };
    let on_lan = (LAN, announced(VIP6, OUR_LAN, None), true);
    assert_eq!(announce(VIP6), [on_lan]);
    let on_lan = (LAN, announced(FAR_VIP6, OUR_LAN, None), true);
    let on_vlan = (TRUNK, announced(FAR_VIP6, OUR_VLAN, Some(100)), true);
    assert_eq!(announce(FAR_VIP6), [on_lan, on_vlan]);
    assert_eq!(bed.page.made(), 3);
}

#[test]
fn an_unasked_advertisement_moves_a_known_neighbour_only() {
    let mut bed = bed();
    bed.lan(0, &advertisement(HOST6, OVERRIDE, Some(PEER)));
    assert_eq!(bed.state6(HOST6), None);
    assert_eq!(bed.shared(), [learned6(PEER, OVERRIDE)], "another's, maybe");
    let (mut bed, id) = Bed::resolved(0);
    bed.lan(1, &advertisement(HOST6, OVERRIDE, Some(PEER)));
    assert_eq!(bed.shared(), [], "no news");
    bed.lan(2, &advertisement(HOST6, OVERRIDE, Some(MOVED)));
    assert_eq!(bed.net.hop(id).l2[..6], MOVED);
    assert_eq!(bed.shared(), [learned6(MOVED, OVERRIDE)]);
    bed.net.hop_mut(id).used = true;
    bed.tick(12);
    assert_eq!(bed.state6(HOST6), Some("probing"), "does it hear us?");
}

#[test]
fn who_does_not_override_only_raises_doubt() {
    for flags in [0, SOLICITED] {
        let (mut bed, id) = Bed::resolved(0);
        bed.net.hop_mut(id).used = true;
        bed.lan(1, &advertisement(HOST6, flags, Some(MOVED)));
        assert_eq!(bed.net.hop(id).l2[..6], PEER);
        bed.tick(11);
        let asked = message(SOLICITATION, 0, HOST6, &option(1, OUR_LAN));
        let packet = icmp6(LAN6, HOST6, &asked);
        let probe = (LAN, tagged(PEER, OUR_LAN, None, &packet), true);
        assert_eq!(bed.sent(), [probe], "the known one is asked");
        bed.lan(12, &advertisement(HOST6, flags, Some(MOVED)));
        assert_eq!(bed.state6(HOST6), Some("probing"));
        bed.lan(13, &advertisement(HOST6, SOLICITED | OVERRIDE, Some(PEER)));
        assert_eq!(bed.state6(HOST6), Some("reachable"));
        assert_eq!(bed.net.hop(id).l2[..6], PEER);
    }
}

#[test]
fn doubt_does_not_keep_an_unused_neighbour() {
    let (mut bed, _) = Bed::resolved(0);
    for ms in (10..60_000).step_by(1000) {
        bed.lan(ms, &advertisement(HOST6, 0, Some(MOVED)));
        bed.shared();
    }
    bed.net.hop_mut(HopId(2)).used = false;
    bed.tick(60_000);
    assert_eq!(bed.state6(HOST6), None);
}

#[test]
fn what_another_worker_learned() {
    let mut bed = bed();
    let tell = |bed: &mut Bed, ms, learned: &Learned| {
        bed.net
            .learned(Instant(ms), learned, &mut bed.out, &bed.page);
        bed.shared()
    };
    assert_eq!(tell(&mut bed, 0, &learned6(PEER, SOLICITED)), []);
    assert_eq!(bed.state6(HOST6), None);
    let id = bed.forward6(0, HOST6, 1);
    bed.sent();
    assert_eq!(tell(&mut bed, 1, &learned6(PEER, SOLICITED)), []);
    assert_eq!(bed.sent(), [data6(PEER, 1)]);
    tell(&mut bed, 2, &learned6(MOVED, SOLICITED));
    assert_eq!(bed.net.hop(id).l2[..6], PEER, "does not override");
    tell(&mut bed, 3, &learned6(MOVED, OVERRIDE));
    assert_eq!(bed.net.hop(id).l2[..6], MOVED);
}

#[test]
fn a_static_neighbour_stays() {
    let mut bed = bed();
    let id = bed.forward6(0, PINNED6, 1);
    assert_eq!(bed.sent(), [data6(PINNED, 1)]);
    bed.lan(1, &solicitation(PINNED6, LAN6));
    bed.lan(1, &advertisement(PINNED6, SOLICITED | OVERRIDE, Some(PEER)));
    for ms in (0..200_000).step_by(1000) {
        bed.tick(ms);
    }
    assert_eq!(bed.state6(PINNED6), Some("static"));
    assert_eq!(bed.net.hop(id).l2[..6], PINNED);
}

#[test]
fn routers_are_not_listened_to() {
    let mut bed = bed();
    let bodies: [(u8, &str, usize); 3] = [
        (133, HOST6, 8),
        (134, HOST_LOCAL, 16),
        (137, HOST_LOCAL, 40),
    ];
    for (kind, source, len) in bodies {
        let mut body = vec![0; len];
        body[0] = kind;
        body.extend(option(1, PEER));
        let frame = tagged(ALL, PEER, None, &icmp6(source, "ff02::1", &body));
        bed.lan(0, &frame);
        assert_eq!((bed.sent(), bed.drops(BadNd)), (vec![], 0), "{kind}");
    }
    assert_eq!((bed.consumed(), bed.net.neighbours().len()), (3, 2));
    assert_eq!(bed.shared(), []);
}

/// Whatever is sent, it is one bad message, and nothing comes of it.
#[track_caller]
fn is_bad(bed: &mut Bed, frame: &[u8]) {
    let bad = bed.drops(BadNd);
    bed.lan(0, frame);
    assert_eq!((bed.drops(BadNd), bed.sent()), (bad + 1, vec![]));
    assert_eq!((bed.net.neighbours().len(), bed.shared()), (2, vec![]));
}

#[test]
fn who_claims_an_address_of_ours_is_not_believed() {
    let mut bed = bed();
    for ours in [LAN6, VLAN6, VIP6, FAR_VIP6, LAN_LOCAL, VLAN_LOCAL] {
        let flags = SOLICITED | OVERRIDE;
        is_bad(&mut bed, &advertisement(ours, flags, Some(PEER)));
        is_bad(&mut bed, &advertisement(ours, OVERRIDE, Some(PEER)));
        is_bad(&mut bed, &solicitation(ours, LAN6));
        let told = message(ADVERTISEMENT, flags, HOST6, &option(2, PEER));
        let packet = icmp6(ours, LAN6, &told);
        is_bad(&mut bed, &tagged(OUR_LAN, PEER, None, &packet));
    }
    for nobody in ["::1", "::ffff:10.0.0.9"] {
        is_bad(&mut bed, &solicitation(nobody, LAN6));
        is_bad(&mut bed, &advertisement(nobody, OVERRIDE, Some(PEER)));
    }
}

#[test]
fn messages_from_beyond_the_link_or_damaged_are_bad() {
    let mut bed = bed();
    let good = solicitation(HOST6, LAN6);
    for (at, byte) in [(21, 254), (55, 1), (56, 0xa5), (60, 1), (85, 8)] {
        let mut frame = good.clone();
        frame[at] = byte;
        is_bad(&mut bed, &frame);
    }
    for len in 0..good.len() {
        is_bad(&mut bed, &good[..len]);
    }
    for ends in [(14, 13), (14, 0), (14, 1000), (1000, 1040), (usize::MAX, 0)] {
        let bad = bed.drops(BadNd);
        bed.nd(0, LAN, None, &good, ends);
        assert_eq!(
            (bed.drops(BadNd), bed.sent()),
            (bad + 1, vec![]),
            "{ends:?}"
        );
    }
    bed.lan(0, &good);
    assert_eq!(bed.sent(), [reply(LAN6, HOST6)], "the message was good");
}

#[test]
fn false_messages_are_dropped() {
    let mut bed = bed();
    let (group, station) = group_of(LAN6);
    let own = option(1, PEER);
    let mut check = |source: &str, to: &str, body: &[u8]| {
        let frame = tagged(station, PEER, None, &icmp6(source, to, body));
        is_bad(&mut bed, &frame);
    };
    let asked = |options: &[u8]| message(SOLICITATION, 0, LAN6, options);
    check(
        HOST6,
        &group,
        &[&[SOLICITATION, 1][..], &asked(&own)[2..]].concat(),
    );
    check(HOST6, &group, &asked(&own)[..23]);
    check(HOST6, &group, &message(SOLICITATION, 0, "ff02::1", &own));
    check("ff02::1", &group, &asked(&own));
    check(HOST6, &group, &asked(&option(1, BROADCAST)));
    check(HOST6, &group, &asked(&option(1, ZERO)));
    // A probe says no address, and asks the group.
    check("::", &group, &asked(&own));
    check("::", LAN6, &asked(&[]));
    check("::", "ff02::1", &asked(&[]));
    let told = |flags, options: &[u8]| message(ADVERTISEMENT, flags, HOST6, options);
    check(HOST6, "ff02::1", &told(SOLICITED, &option(2, PEER)));
    check(HOST6, "ff02::1", &told(0, &option(2, BROADCAST)));
    check("::", "ff02::1", &told(0, &option(2, PEER)));
    check(HOST6, LAN6, &message(ADVERTISEMENT, 0, "ff02::1", &own));
    check(
        HOST6,
        LAN6,
        &message(ADVERTISEMENT, 0, "::", &option(2, PEER)),
    );
    let of_router = |kind, len| {
        let mut body = vec![0; len];
        body[0] = kind;
        body
    };
    check("::", "ff02::2", &[&of_router(133, 8)[..], &own].concat());
    check(HOST6, "ff02::2", &of_router(133, 7));
    check(HOST6, "ff02::1", &of_router(134, 16));
    check(HOST_LOCAL, "ff02::1", &of_router(134, 15));
    check(HOST6, LAN6, &of_router(137, 40));
    check(HOST_LOCAL, LAN6, &of_router(137, 39));
    check(HOST6, LAN6, &of_router(138, 40));
    check(HOST6, LAN6, &of_router(128, 40));
    check(HOST6, LAN6, &[]);
}

#[test]
fn garbage_options_are_bad_in_every_message() {
    let mut bed = bed();
    let many = [5, 1, 0, 0, 0, 0, 0, 0].repeat(33);
    let bodies = |options: &[u8]| {
        let mut router = [[0; 16], [0; 16], [0; 16]];
        (router[0][0], router[1][0], router[2][0]) = (133, 134, 137);
        [
            (HOST6, message(SOLICITATION, 0, LAN6, options)),
            (HOST6, message(ADVERTISEMENT, 0, HOST6, options)),
            (HOST6, [&router[0][..8], options].concat()),
            (HOST_LOCAL, [&router[1][..], options].concat()),
            (HOST_LOCAL, [&router[2][..], &[0; 24], options].concat()),
        ]
    };
    for options in [
        &[1, 0, 0, 0, 0, 0, 0, 0][..],
        &[0; 8],
        &[1],
        &[2, 1, 2, 0, 0, 0, 0],
        &[9, 255, 0, 0, 0, 0, 0, 0],
        &[5, 1, 0, 0, 0, 0, 0, 0, 1],
        &many,
    ] {
        for (source, body) in bodies(options) {
            let frame = tagged(OUR_LAN, PEER, None, &icmp6(source, LAN6, &body));
            is_bad(&mut bed, &frame);
        }
    }
    let unknown = [14, 1, 0, 0, 0, 0, 0, 0];
    for (source, body) in bodies(&unknown) {
        let frame = tagged(OUR_LAN, PEER, None, &icmp6(source, LAN6, &body));
        bed.lan(0, &frame);
    }
    assert_eq!((bed.consumed(), bed.sent().len()), (4, 1), "one may be new");
}

#[test]
fn without_buffers_the_question_follows_later() {
    let mut bed = bed();
    bed.out.buffers = false;
    bed.forward6(0, HOST6, 1);
    bed.net.announce(ip(VIP6), &mut bed.out, &bed.page);
    assert_eq!((bed.sent(), bed.page.made()), (vec![], 0));
    bed.out.buffers = true;
    bed.tick(1000);
    assert_eq!(bed.sent(), [question(HOST6)]);
}

#[test]
fn strangers_do_not_fill_the_table() {
    let mut bed = bed();
    for n in 0..NEIGHBOURS_MAX {
        let source = format!("2001:db8:0:1:aa::{n:x}");
        bed.lan(0, &solicitation(&source, LAN6));
    }
    assert_eq!(bed.out.sent.len(), NEIGHBOURS_MAX, "answered all the same");
    assert_eq!(bed.net.neighbours().len(), NEIGHBOURS_MAX / 2);
    bed.out.sent.clear();
    bed.forward6(0, HOST6, 1);
    assert_eq!(bed.sent(), [question(HOST6)]);
}

#[derive(Debug, Clone)]
enum Step {
    Forward(u8),
    Use(u8),
    Ask(u8, u8, u8),
    Tell(u8, u8, u8, bool),
    Wait(u32),
    Buffers(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Forward),
        1 => any::<u8>().prop_map(Step::Use),
        3 => (0u8..4, any::<u8>(), any::<u8>()).prop_map(|(m, s, t)| Step::Ask(m, s, t)),
        4 => (0u8..4, any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(m, t, f, o)| Step::Tell(m, t, f, o)),
        3 => (0u32..4000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Buffers),
    ]
}

fn host(n: u8) -> String {
    format!("2001:db8:0:1::{:x}", n & 0x1f)
}

proptest! {
    /// Whatever happens, every packet is accounted for, and what leaves has a neighbour's address.
    #[test]
    fn books_always_balance(start: u32, steps in proptest::collection::vec(step(), 1..200)) {
        let mut bed = bed();
        let mut ms = start;
        for step in steps {
            match step {
                Step::Forward(n) => {
                    if let Ok(id) = bed.net.hop_to(Instant(ms), ip(&host(n))) {
                        bed.hold(ms, id, n);
                    }
                }
                Step::Use(n) => {
                    if let Ok(id) = bed.net.hop_to(Instant(ms), ip(&host(n))) {
                        bed.net.hop_mut(id).used = true;
                    }
                }
                Step::Ask(mac, source, target) => {
                    let options = option(1, [mac, 0, 0, 0, 0, 8]);
                    let asked = message(SOLICITATION, 0, &host(target), &options);
                    let packet = icmp6(&host(source), LAN6, &asked);
                    bed.lan(ms, &tagged(OUR_LAN, PEER, None, &packet));
                }
                Step::Tell(mac, target, flags, says) => {
                    let mac = says.then_some([mac, 0, 0, 0, 0, 8]);
                    bed.lan(ms, &advertisement(&host(target), flags & 0xe0, mac));
                }
                Step::Wait(more) => ms = ms.wrapping_add(more),
                Step::Buffers(buffers) => bed.out.buffers = buffers,
            }
            bed.tick(ms);
            for learned in bed.shared() {
                prop_assert!(learned.mac[0] & 1 == 0 && !bed.net.is_mine(learned.address));
            }
            for (_, frame, answer) in bed.sent() {
                prop_assert_eq!(&frame[12..14], &[0x86, 0xdd]);
                prop_assert!(answer || frame[5] == 8);
            }
        }
        bed.net.stop(&mut bed.out, &bed.page);
        prop_assert_eq!(bed.page.held.get(), 0);
        prop_assert!(bed.page.balanced());
    }

    #[test]
    fn random_messages_never_panic(
        frame in proptest::collection::vec(any::<u8>(), 0..120), l3 in 0usize..40, l4 in 0usize..100,
    ) {
        bed().nd(0, LAN, None, &frame, (l3, l4));
    }

    /// Also behind a checksum that is right.
    #[test]
    fn random_bodies_never_panic(
        kind in 133u8..=137, body in proptest::collection::vec(any::<u8>(), 0..100), local: bool,
    ) {
        let source = if local { HOST_LOCAL } else { HOST6 };
        let message = [&[kind, 0, 0, 0][..], &body].concat();
        let mut bed = bed();
        bed.lan(0, &tagged(OUR_LAN, PEER, None, &icmp6(source, LAN6, &message)));
        prop_assert_eq!(bed.page.ended(), 1);
    }

    #[test]
    fn damaged_messages_have_one_end(at in 0usize..86, byte: u8, len in 0usize..=86, ask: bool) {
        let mut frame = match ask {
            true => solicitation(HOST6, LAN6),
            false => advertisement(HOST6, SOLICITED, Some(PEER)),
        };
        frame[at] = byte;
        let mut bed = bed();
        bed.lan(0, &frame[..len]);
        prop_assert_eq!(bed.page.ended(), 1);
    }
}

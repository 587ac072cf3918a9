//! ICMP errors about connections: each side hears of its own packets.

use super::*;
use crate::update::{Policy, ServiceId};

const L: &str = "10.1.0.100:1024";
const L_IP: &str = "10.1.0.100";
const L6: &str = "[2001:db8:1::100]:1024";
const RS_IP: &str = "10.1.0.1";
const RS6_IP: &str = "2001:db8:1::1";
const ROUTER: &str = "198.51.100.1";
const ROUTER6: &str = "2001:db8:99::1";

/// Connected by one UDP datagram of the client.
fn bed(mode: ForwardMode, vip: &str, server: &str, local: &str, client: &str) -> Testbed {
    let mut t = Testbed::by(mode, Udp, vip, &[server]);
    if mode == ForwardMode::FullNat {
        let local = super::super::frames::address(local).ip().to_string();
        t.apply(local_addresses(0, &[&local]));
    }
    assert_eq!(t.pass(0, &udp(client, vip, b"x")).len(), 1);
    t
}

fn datagram(from: &str, to: &str) -> Frame {
    udp(from, to, &[9; 40])
        .ttl(55)
        .id(0)
        .fragment(DONT_FRAGMENT)
}

/// The packet as it was readdressed inside an error: its transport checksum is the old one.
fn quoted(now: &Frame, was: &Frame) -> Vec<u8> {
    let l4 = |frame: &Frame| if frame.is_v6() { 40 } else { 20 };
    let (mut ip, old) = (now.ip(), was.ip());
    let (to, from) = (l4(now) + 6, l4(was) + 6);
    ip[to..to + 2].copy_from_slice(&old[from..from + 2]);
    ip
}

fn ip(address: &str) -> String {
    super::super::frames::address(address).ip().to_string()
}

#[test]
fn nat_and_fullnat_readdress_them() {
    for (mode, client, vip, server, local, router, kinds) in [
        (
            ForwardMode::Nat,
            C,
            VIP,
            "10.1.0.1:8080",
            C,
            ROUTER,
            [(3, 4, 1400), (3, 3, 0), (11, 0, 0)],
        ),
        (
            ForwardMode::FullNat,
            C,
            VIP,
            "10.1.0.1:8080",
            L,
            ROUTER,
            [(3, 4, 1400), (3, 3, 0), (11, 0, 0)],
        ),
        (
            ForwardMode::Nat,
            C6,
            VIP6,
            RS6,
            C6,
            ROUTER6,
            [(2, 0, 1400), (1, 4, 0), (3, 0, 0)],
        ),
        (
            ForwardMode::FullNat,
            C6,
            VIP6,
            RS6,
            L6,
            ROUTER6,
            [(2, 0, 1400), (1, 4, 0), (3, 0, 0)],
        ),
    ] {
        let mut t = bed(mode, vip, server, local, client);
        for (kind, code, mtu) in kinds {
            // From the client's side: the router is shown to the server unless FULLNAT hides it.
            let (seen, meant) = (datagram(vip, client), datagram(server, local));
            let from = if mode == ForwardMode::Nat {
                router.to_owned()
            } else {
                ip(local)
            };
            let says = told(router, &ip(vip), kind, code, mtu, &seen.ip());
            let hears = told(&from, &ip(server), kind, code, mtu, &quoted(&meant, &seen));
            t.check(1, says, ForwardUncounted(hears.hop()));
            // From the server's: whoever speaks, the client hears the virtual address.
            let (seen, meant) = (datagram(local, server), datagram(client, vip));
            let hears = told(
                &ip(vip),
                &ip(client),
                kind,
                code,
                mtu,
                &quoted(&meant, &seen),
            );
            let other = if client == C {
                "10.1.0.2"
            } else {
                "2001:db8:1::2"
            };
            for speaker in [&ip(server), other] {
                let says = told(speaker, &ip(local), kind, code, mtu, &seen.ip());
                t.check(2, says, ForwardUncounted(hears.clone().hop()));
            }
        }
    }
}

/// What is quoted of a SYN shows the sequence number that its client chose.
#[test]
fn a_quoted_segment_has_its_senders_numbers() {
    let mut t = Testbed::by(ForwardMode::FullNat, Tcp, VIP, &[RS]);
    t.apply(local_addresses(0, &[L_IP]));
    let options = control::ServiceOptions {
        client_address: control::ClientAddress::ProxyV2,
        mss: None,
        ..control::ServiceOptions::default()
    };
    t.apply(Update::SetOptions {
        id: ServiceId(0),
        options,
    });
    for packet in [
        tcp(C, VIP, "S").numbers(1000, 0),
        tcp(RS, L, "SA").numbers(5000, 1001),
        tcp(C, VIP, "A").numbers(1001, 5001),
        tcp(C, VIP, "PA").numbers(1001, 5001).data(b"x"),
    ] {
        assert_eq!(t.pass(0, &packet).len(), 1);
    }
    let quote = |from, to, seq| {
        tcp(from, to, "A")
            .numbers(seq, 0)
            .fragment(DONT_FRAGMENT)
            .id(0)
    };
    let cut = |frame: Frame| frame.ip()[..28].to_vec();
    let says = told(RS_IP, L_IP, 3, 1, 0, &cut(quote(L, RS, 1002 + 28)));
    let mut hears = quote(C, VIP, 1002);
    hears.tos = 0;
    let hears = told(VIP_IP, C_IP, 3, 1, 0, &cut(hears));
    t.check(1, says, ForwardUncounted(hears.hop()));
}

#[test]
fn between_families_they_are_translated() {
    let mut t = bed(ForwardMode::FullNat, VIP6, RS, L, C6);
    for ((k4, c4, m4), (k6, c6, m6)) in [
        ((3, 3, 0), (1, 4, 0)),
        ((3, 4, 1400), (2, 0, 1420)),
        ((11, 0, 0), (3, 0, 0)),
    ] {
        let (seen, meant) = (datagram(L, RS), datagram(C6, VIP6));
        let says = told(RS_IP, L_IP, k4, c4, m4, &seen.ip());
        let hears = told(VIP6_IP, C6_IP, k6, c6, m6, &quoted(&meant, &seen));
        t.check(1, says, ForwardUncounted(hears.hop()));
        let (seen, meant) = (datagram(VIP6, C6), datagram(RS, L));
        let says = told(ROUTER6, VIP6_IP, k6, c6, m6, &seen.ip());
        let hears = told(L_IP, RS_IP, k4, c4, m4, &quoted(&meant, &seen));
        t.check(2, says, ForwardUncounted(ours(hears).hop()));
    }
    let mut t = bed(ForwardMode::FullNat, VIP, RS6, L6, C);
    let (seen, meant) = (datagram(L6, RS6), datagram(C, VIP));
    let says = told(RS6_IP, &ip(L6), 2, 0, 1300, &seen.ip());
    let hears = told(VIP_IP, C_IP, 3, 4, 1280, &quoted(&meant, &seen));
    t.check(1, says, ForwardUncounted(ours(hears).hop()));
}

#[test]
fn direct_routing_and_tunnels_pass_them_on() {
    for (client, vip, server, router, kind, code) in
        [(C, VIP, RS, ROUTER, 3, 4), (C6, VIP6, RS6, ROUTER6, 2, 0)]
    {
        let mut t = bed(ForwardMode::Direct, vip, server, L, client);
        let says = told(
            router,
            &ip(vip),
            kind,
            code,
            1400,
            &datagram(vip, client).ip(),
        );
        t.check(1, says.clone(), Direct(server, says.clone().hop()));
        let mut t = bed(ForwardMode::Tunnel, vip, server, L, client);
        let us = if vip == VIP {
            "10.1.0.254"
        } else {
            "2001:db8:1::fe"
        };
        let protocol = if vip == VIP { 4 } else { 41 };
        let outer = other_ip(us, &ip(server), protocol, &says.clone().hop().ip());
        let outer = outer.ttl(63).id(t.director.ip_id + 1);
        t.check(1, says, To(server, vec![outer]));
    }
}

#[test]
fn quoted_sctp() {
    let sctp = |from, to| {
        super::super::frames::sctp(from, to, &[1])
            .id(0)
            .fragment(DONT_FRAGMENT)
    };
    let mut t = Testbed::nat(Protocol::Sctp, VIP, &["10.1.0.1:8080"]);
    assert_eq!(t.pass(0, &sctp(C, VIP)).len(), 1);
    let cut = |frame: Frame| frame.ip()[..28].to_vec();
    let says = told(RS_IP, C_IP, 3, 3, 0, &cut(sctp(C, "10.1.0.1:8080")));
    let hears = told(VIP_IP, C_IP, 3, 3, 0, &cut(sctp(C, VIP)));
    t.check(1, says, ForwardUncounted(hears.hop()));
}

#[test]
pub(super) fn wrong_checksums() {
    for (client, vip, server, router, kind) in
        [(C, VIP, RS, ROUTER, 3), (C6, VIP6, RS6, ROUTER6, 1)]
    {
        let mut t = bed(ForwardMode::Nat, vip, server, L, client);
        let says = told(router, &ip(vip), kind, 3, 0, &datagram(vip, client).ip());
        let (port, frame) = arriving(&says);
        let mut bytes = frame.bytes();
        *bytes.last_mut().unwrap() ^= 1;
        t.check_bytes(1, port, &bytes, Drop(DropReason::BadChecksum));
    }
}

#[test]
fn an_error_may_open_a_connection() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    let (seen, meant) = (datagram(VIP, C), datagram(RS, C));
    let says = told(ROUTER, VIP_IP, 3, 3, 0, &seen.ip());
    t.check(0, says.clone(), Drop(DropReason::NotOurs));
    let settings = control::Settings {
        schedule_icmp: true,
        ..control::Settings::default()
    };
    t.apply(Update::SetSettings(settings));
    let hears = told(ROUTER, RS_IP, 3, 3, 0, &quoted(&meant, &seen));
    t.check(1, says, ForwardUncounted(hears.hop()));
    assert_eq!(t.load(0), (0, 1));
    let other = told(ROUTER, VIP_IP, 3, 3, 0, &datagram("203.0.113.1:81", C).ip());
    t.check(2, other, Drop(DropReason::NotOurs));
    t.apply(weigh(0, 0));
    let other = told(ROUTER, VIP_IP, 3, 3, 0, &datagram(VIP, "192.0.2.10:2").ip());
    t.check(3, other, Drop(DropReason::NoServer));
}

/// What goes by destinations takes the client for one (`spec/schedulers.md` §2), as all who ask it do.
#[test]
fn an_error_is_scheduled_by_the_destination_that_it_quotes() {
    use crate::sched::Kind::{Dh, Lblc, Lblcr};
    let persistence = control::Persistence {
        timeout_s: 300,
        netmask: control::Netmask::whole(false),
    };
    let policies = [Dh, Lblc, Lblcr]
        .into_iter()
        .flat_map(|kind| [None, Some(persistence)].map(|persistence| (kind, persistence)));
    for (kind, persistence) in policies {
        let servers = |packet: fn(&str) -> Frame| {
            let mut t = Testbed::nat(Udp, VIP, &[RS2, RS]);
            t.apply(Update::EditService {
                id: ServiceId(0),
                policy: Policy {
                    persistence,
                    ..Policy::of(kind)
                },
            });
            let settings = control::Settings {
                schedule_icmp: true,
                ..control::Settings::default()
            };
            t.apply(Update::SetSettings(settings));
            for n in 1..9 {
                let sent = t.pass(0, &packet(&format!("198.51.100.{n}:2000")));
                assert_eq!(sent.len(), 1);
            }
            [0, 1].iter().filter(|n| t.load(**n) != (0, 0)).count()
        };
        assert_eq!(servers(|client| udp(client, VIP, b"x")), 1, "{kind:?}");
        let says = |client: &str| told(ROUTER, VIP_IP, 3, 3, 0, &datagram(VIP, client).ip());
        assert_eq!(servers(says), 2, "{kind:?}");
    }
}

#[test]
fn those_that_go_no_further() {
    let mut t = bed(ForwardMode::Nat, VIP, RS, L, C);
    let quote = datagram(VIP, C).ip();
    let says = |kind, code| told(ROUTER, VIP_IP, kind, code, 0, &quote);
    // No error answers an error.
    t.check(1, says(3, 3).ttl(1), Drop(DropReason::TtlExpired));
    // Redirects and parameter problems are none of LVS's (spec §8.1).
    t.check(2, says(5, 1), Drop(DropReason::NotOurs));
    t.check(3, says(12, 0), Drop(DropReason::NotOurs));
    // About a later fragment, or about nothing that has ports.
    let later = datagram(VIP, C).fragment(185).ip();
    t.check(
        4,
        told(ROUTER, VIP_IP, 3, 3, 0, &later),
        Drop(DropReason::NotOurs),
    );
    t.check(
        5,
        told(ROUTER, VIP_IP, 3, 3, 0, &quote[..27]),
        Drop(DropReason::NotOurs),
    );
    t.apply(Update::DeleteServer {
        id: crate::update::ServerId(0),
    });
    t.check(6, says(3, 3), Drop(DropReason::ServerGone));
    let mut t = bed(ForwardMode::Nat, VIP6, RS6, L6, C6);
    let cut = told(ROUTER6, VIP6_IP, 1, 4, 0, &datagram(VIP6, C6).ip()).fragment(MORE_FRAGMENTS);
    let (port, frame) = arriving(&cut);
    t.check_bytes(1, port, &frame.bytes(), Drop(DropReason::Fragment));
}

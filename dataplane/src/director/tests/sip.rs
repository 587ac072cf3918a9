//! The engine `sip`: a call stays with its server, whoever of a network speaks, and whoever begins.

use std::num::NonZeroU32;

use control::{Engine, Netmask, Persistence, ServiceKey, Settings};

use super::*;
use crate::sched::Kind;
use crate::templates::{self, Template};
use crate::update::{Policy, ServerId, ServiceId};

/// Another port of the same client.
const C_B: &str = "192.0.2.10:40001";
const FAR: &str = "198.51.100.7:5060";
const FAR_IP: &str = "198.51.100.7";

fn policy(netmask: Netmask) -> Policy {
    Policy {
        persistence: Some(Persistence {
            timeout_s: 300,
            netmask,
        }),
        engine: Some(Engine::Sip),
        ..Policy::of(Kind::Rr)
    }
}

fn edit(t: &mut Testbed, policy: Policy) {
    let id = ServiceId(0);
    t.apply(Update::EditService { id, policy });
}

/// Service 0 (`rr`, NAT) with the engine; the second server is the first one's turn.
fn bed(netmask: Netmask) -> Testbed {
    let mut t = Testbed::nat(Udp, VIP, &[RS, RS2]);
    edit(&mut t, policy(netmask));
    t
}

fn each() -> Netmask {
    Netmask::V4([255; 4].into())
}

fn all() -> Netmask {
    Netmask::V4([0; 4].into())
}

fn message(call: &str) -> Vec<u8> {
    format!("INVITE sip:b@example.com SIP/2.0\r\nCall-ID: {call}\r\n\r\n").into_bytes()
}

fn sip(from: &str, to: &str, call: &str) -> Frame {
    udp(from, to, &message(call))
}

/// A client's message goes to this server.
#[track_caller]
fn calls(t: &mut Testbed, ms: u32, client: &str, call: &str, server: &str) {
    t.check(ms, sip(client, VIP, call), on(sip(client, server, call)));
}

/// A server's message, translated.
#[track_caller]
fn comes(t: &mut Testbed, ms: u32, server: &str, client: &str, call: &str) {
    t.check(ms, sip(server, client, call), on(sip(VIP, client, call)));
}

fn templates(t: &Testbed) -> Vec<Template> {
    let table = t.director.templates();
    let all = (0..table.lines()).filter_map(|line| table.at(line, Instant(0)));
    all.collect()
}

#[test]
fn a_call_stays_with_its_server() {
    let mut t = bed(each());
    calls(&mut t, 0, C, "one@c", RS2);
    calls(&mut t, 1, C_B, "two@c", RS);
    // Only what opens a connection is read: these have theirs.
    calls(&mut t, 2, C, "two@c", RS2);
    t.check(3, udp(C, VIP, b"no call"), on(udp(C, RS2, b"no call")));
    comes(&mut t, 4, RS2, C, "three@c");
    // Other ports of the client, another client.
    for (ms, port, call, server) in [
        (5, 40_002, "one@c", RS2),
        (6, 40_003, "one@c", RS2),
        (7, 40_004, "two@c", RS),
    ] {
        calls(&mut t, ms, &format!("{C_IP}:{port}"), call, server);
    }
    calls(&mut t, 8, FAR, "two@c", RS2);
    let mut known = templates(&t);
    known.sort_unstable_by_key(|template| (template.client, template.engine.clone()));
    let shown: Vec<_> = known
        .iter()
        .map(|template| {
            let call = std::str::from_utf8(&template.engine).unwrap();
            let Template { kind, protocol, .. } = template;
            assert_eq!((*kind, *protocol), (templates::Kind::Engine, 17));
            assert_eq!(template.virtual_address, VIP.parse().unwrap());
            (template.client.to_string(), call, template.tie.server.0)
        })
        .collect();
    let client = format!("{C_IP}:0");
    let expected = [
        (client.clone(), "one@c", 1),
        (client, "two@c", 0),
        (format!("{FAR_IP}:0"), "two@c", 1),
    ];
    assert_eq!(shown, expected);
    assert_eq!(known[0].controls, 3);
}

#[test]
fn both_ends_of_a_call_with_mask_0() {
    let mut t = bed(all());
    calls(&mut t, 0, C, "one@c", RS2);
    calls(&mut t, 1, FAR, "one@c", RS2);
    calls(&mut t, 2, C_B, "two@c", RS);
    assert_eq!(templates(&t).len(), 2);
    assert_eq!(templates(&t)[0].client, "0.0.0.0:0".parse().unwrap());
}

#[test]
fn ipv6() {
    let mut t = Testbed::nat(Udp, VIP6, &[RS6, RS6B]);
    edit(&mut t, policy(Netmask::V6(64)));
    for (ms, client, call, server) in [
        (0, C6, "one@c", RS6B),
        (1, "[2001:db8:c::10]:40001", "two@c", RS6),
        (2, "[2001:db8:c::1]:40000", "one@c", RS6B),
    ] {
        t.check(ms, sip(client, VIP6, call), on(sip(client, server, call)));
    }
    assert_eq!(templates(&t).len(), 2);
}

#[test]
pub(super) fn what_is_no_call_is_dropped() {
    let mut t = bed(each());
    let dropped = || Drop(DropReason::NoCallId);
    t.check(0, udp(C, VIP, b"no call"), dropped());
    t.check(1, udp(C, VIP, b""), dropped());
    t.check(2, sip(C, VIP, &"c".repeat(256)), dropped());
    // A first fragment that does not reach so far, and those that follow it.
    let long = udp(C, VIP, &[&[b'x'; 40], &message("one@c")[..]].concat());
    let pieces = long.pieces(32);
    t.check(3, pieces[0].clone(), dropped());
    t.check(3, pieces[1].clone(), End::DropWith(DropReason::NoCallId, 0));
    assert!(templates(&t).is_empty());
    assert_eq!(t.director.conns.used(), 0);

    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    edit(&mut t, policy(each()));
    t.check(0, tcp(C, VIP, "S"), dropped());
}

#[test]
fn a_server_calls() {
    let mut t = bed(each());
    // What is no call is nobody's.
    t.check(0, udp(RS, FAR, b"no call"), Drop(DropReason::NotOurs));
    comes(&mut t, 1, RS, FAR, "back@s");
    assert_eq!((t.director.conns.used(), t.load(0)), (1, (0, 1)));
    assert_eq!(t.page.servers[0].conns.get(), 1);
    // The client answers, and goes on from another port.
    calls(&mut t, 2, FAR, "back@s", RS);
    calls(&mut t, 3, "198.51.100.7:5061", "back@s", RS);
    comes(&mut t, 4, RS, "198.51.100.7:5062", "back@s");
    let [template] = &templates(&t)[..] else {
        panic!("one call");
    };
    assert_eq!((template.tie.server, template.controls), (ServerId(0), 3));
    // The other server has the same idea: the call is its own from now on.
    comes(&mut t, 5, RS2, "198.51.100.7:5063", "back@s");
    calls(&mut t, 6, "198.51.100.7:5064", "back@s", RS2);
    let known = templates(&t);
    let valid: Vec<_> = known.iter().filter(|template| !template.invalid).collect();
    assert_eq!((known.len(), valid.len()), (2, 1));
    assert_eq!((valid[0].tie.server, valid[0].controls), (ServerId(1), 2));
}

#[test]
fn two_servers_call_one_client() {
    let mut t = bed(each());
    calls(&mut t, 0, C, "one@c", RS2);
    comes(&mut t, 1, RS, C, "two@s");
    // The client's messages are the newer connection's, answers are of either.
    calls(&mut t, 2, C, "one@c", RS);
    comes(&mut t, 3, RS2, C, "one@c");
    comes(&mut t, 4, RS, C, "one@c");
    assert_eq!(t.director.conns.used(), 2);
    // The older one ends, the newer stays.
    for ms in (250_000..1_000_000).step_by(250_000) {
        t.wait(ms - 250_000, ms);
        comes(&mut t, ms, RS, C, "one@c");
    }
    assert_eq!((t.load(0), t.load(1)), ((0, 1), (0, 0)));
    calls(&mut t, 750_001, C, "one@c", RS);
}

#[test]
fn who_may_not_call() {
    let mut t = bed(each());
    let other_port = RS.replace(":80", ":81");
    t.check(0, sip(&other_port, FAR, "x"), Drop(DropReason::NotOurs));
    let nobody = "127.0.0.1:5060";
    let to_nobody = sip(RS, nobody, "x").between(mac("10.1.0.1"), port_mac(SERVERS));
    t.check(1, to_nobody, Drop(DropReason::BadSource));
    t.apply(Update::DeleteServer { id: ServerId(0) });
    t.check(2, sip(RS, FAR, "x"), Drop(DropReason::NotOurs));
    let without = Policy {
        engine: None,
        ..policy(each())
    };
    edit(&mut t, without);
    t.check(3, sip(RS2, FAR, "x"), Drop(DropReason::NotOurs));
    assert!(templates(&t).is_empty());

    // Without persistence a server may say anything, as in LVS.
    let without = Policy {
        persistence: None,
        ..policy(each())
    };
    edit(&mut t, without);
    t.check(4, udp(RS2, FAR, b"x"), on(udp(VIP, FAR, b"x")));
    t.check(5, udp(FAR, VIP, b"x"), on(udp(FAR, RS2, b"x")));
    assert_eq!((t.director.conns.used(), templates(&t).len()), (1, 0));
}

#[test]
fn no_connections() {
    let mut t = bed(each());
    let one_packet = Policy {
        one_packet: true,
        ..policy(each())
    };
    edit(&mut t, one_packet);
    for ms in 0..3 {
        calls(&mut t, ms, C, "one@c", RS2);
        calls(&mut t, ms, C, "two@c", RS);
        comes(&mut t, ms, RS2, C, "one@c");
        t.check(ms, udp(C, VIP, b"no call"), Drop(DropReason::NoCallId));
    }
    // What is no call is an answer all the same, unless that is to be as in LVS.
    t.check(4, udp(RS, C, b"no call"), on(udp(VIP, C, b"no call")));
    t.apply(Update::SetSettings(Settings {
        one_packet_replies_untranslated: true,
        ..Settings::default()
    }));
    let as_it_is = udp(RS, C, b"no call").hop();
    t.check(5, udp(RS, C, b"no call"), ForwardUncounted(as_it_is));
    comes(&mut t, 6, RS, C, "two@c");
    comes(&mut t, 7, RS, FAR, "back@s");
    calls(&mut t, 8, FAR, "back@s", RS);
    assert_eq!(t.director.conns.used(), 0);
    assert_eq!([t.load(0), t.load(1)], [(0, 0); 2]);
    let mut counts: Vec<_> = templates(&t)
        .iter()
        .map(|template| (template.in_packets, template.controls))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [(1, 0), (3, 0), (3, 0)]);
}

#[test]
fn servers_of_a_service_by_mark_cannot_call() {
    let mut t = Testbed::new(10, setup(true));
    let mark = NonZeroU32::new(7).unwrap();
    let key = ServiceKey::Mark { mark, ipv6: false };
    let (id, policy) = (ServiceId(0), policy(all()));
    t.apply(Update::AddService { id, key, policy });
    t.apply(add_server(0, 0, RS, 1));
    t.check(0, sip(RS, FAR, "x"), Drop(DropReason::NotOurs));
}

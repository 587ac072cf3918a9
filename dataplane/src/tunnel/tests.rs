use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;
use crate::packet::HeapBuf;

const FROM4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const TO4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const FROM6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1);
const TO6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0xffff, 0, 0, 2);
const PORT: u16 = 6080;
const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
const TAGGED: [u8; 18] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 7, 8, 0];

use TunnelChecksum::{Full, None as Without, Remote};
use TunnelKind::{Gre, Gue, Ipip};

const KINDS: [TunnelKind; 3] = [Ipip, Gre, Gue];
const CHECKSUMS: [TunnelChecksum; 3] = [Without, Full, Remote];

fn tunnel(kind: TunnelKind, checksum: TunnelChecksum, v6: bool) -> Tunnel {
    let port = if kind == Gue { PORT } else { 0 };
    let spec = control::Tunnel {
        kind,
        port,
        checksum,
    };
    if v6 {
        Tunnel::new(spec, FROM6.into(), TO6.into()).unwrap()
    } else {
        Tunnel::new(spec, FROM4.into(), TO4.into()).unwrap()
    }
}

/// RFC 1071 as its text says it: 0 where a checksum is right.
fn checksum(bytes: &[u8]) -> u16 {
    let mut total = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    !u16::try_from(total).unwrap()
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// An IPv4 packet with UDP ports 1000 and 53 and `payload`; its own checksums are of no interest.
fn packet_v4(tos: u8, ttl: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(28 + payload.len()).unwrap();
    let mut packet = vec![0x45, tos];
    packet.extend(len.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(flags.to_be_bytes());
    packet.extend([ttl, UDP, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1]);
    packet.extend([0x03, 0xe8, 0, 53, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn packet_v6(traffic_class: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = vec![
        0x60 | traffic_class >> 4,
        traffic_class << 4 | 0xa,
        0xbc,
        0xde,
    ];
    packet.extend(len.to_be_bytes());
    packet.extend([UDP, hop_limit]);
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).octets());
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets());
    packet.extend([0x03, 0xe8, 0, 53, 0, 0, 0, 0]);
    packet.extend(payload);
    packet
}

fn framed(ethernet: &[u8], packet: &[u8], padding: usize) -> HeapBuf {
    HeapBuf::new(&[ethernet, packet, &vec![0x77; padding]].concat())
}

/// What a receiver learns from the outer headers; it has checked all it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Read {
    traffic_class: u8,
    ttl: u8,
    dont_fragment: bool,
    id: u16,
    kind: TunnelKind,
    with_checksum: bool,
    inner_v6: bool,
    source_port: u16,
}

/// What a real server does: checks each field against the RFCs and unwraps.
fn decapsulate(packet: &[u8]) -> (Read, Vec<u8>) {
    let (traffic_class, ttl, fragment, id, protocol, pseudo, rest);
    if packet[0] >> 4 == 4 {
        assert_eq!(packet[0], 0x45, "no options");
        assert_eq!(usize::from(be16(packet, 2)), packet.len(), "total length");
        assert_eq!(checksum(&packet[..20]), 0, "header checksum");
        assert_eq!(packet[12..16], FROM4.octets());
        assert_eq!(packet[16..20], TO4.octets());
        (traffic_class, ttl, protocol) = (packet[1], packet[8], packet[9]);
        (fragment, id) = (be16(packet, 6), be16(packet, 4));
        assert_eq!(fragment & !DONT_FRAGMENT, 0, "no fragment");
        (pseudo, rest) = (packet[12..20].to_vec(), &packet[20..]);
    } else {
        let first = u32::from_be_bytes(*packet.first_chunk().unwrap());
        assert_eq!(first >> 28, 6);
        assert_eq!(first & 0xf_ffff, 0, "flow label");
        assert_eq!(
            usize::from(be16(packet, 4)),
            packet.len() - 40,
            "payload length"
        );
        assert_eq!(packet[8..24], FROM6.octets());
        assert_eq!(packet[24..40], TO6.octets());
        traffic_class = u8::try_from(first >> 20 & 0xff).unwrap();
        (protocol, ttl, fragment, id) = (packet[6], packet[7], 0, 0);
        (pseudo, rest) = (packet[8..40].to_vec(), &packet[40..]);
    }
    let mut read = Read {
        traffic_class,
        ttl,
        dont_fragment: fragment == DONT_FRAGMENT,
        id,
        kind: Ipip,
        with_checksum: false,
        inner_v6: protocol == IPV6,
        source_port: 0,
    };
    let inner = match protocol {
        IPIP | IPV6 => rest,
        GRE => {
            let flags = be16(rest, 0);
            read.kind = Gre;
            read.with_checksum = flags == 0x8000;
            assert!(read.with_checksum || flags == 0, "flags {flags:04x}");
            read.inner_v6 = match be16(rest, 2) {
                0x0800 => false,
                0x86dd => true,
                other => panic!("protocol type {other:04x}"),
            };
            if read.with_checksum {
                assert_eq!(checksum(rest), 0, "GRE checksum");
                assert_eq!(rest[6..8], [0, 0], "reserved");
                &rest[8..]
            } else {
                &rest[4..]
            }
        }
        UDP => {
            read.kind = Gue;
            read.source_port = be16(rest, 0);
            assert_eq!(be16(rest, 2), PORT);
            assert_eq!(usize::from(be16(rest, 4)), rest.len(), "UDP length");
            read.with_checksum = be16(rest, 6) != 0;
            if read.with_checksum {
                let length = u32::try_from(rest.len()).unwrap().to_be_bytes();
                let covered = [&pseudo, &length[..], &[0, 0, 0, 17], rest].concat();
                assert_eq!(checksum(&covered), 0, "UDP checksum");
            }
            read.inner_v6 = match rest[8..12] {
                [0, 4, 0, 0] => false,
                [0, 41, 0, 0] => true,
                ref other => panic!("GUE header {other:?}"),
            };
            &rest[12..]
        }
        other => panic!("protocol {other}"),
    };
    (read, inner.to_vec())
}

/// Encapsulates `inner` in a frame with `padding` and unwraps it again.
fn round_trip(tunnel: &Tunnel, ethernet: &[u8], inner: &[u8], padding: usize) -> Read {
    let mut packet = framed(ethernet, inner, padding);
    let len = u16::try_from(inner.len()).unwrap();
    assert!(tunnel.encapsulate(&mut packet, ethernet.len(), len, 0xbeef, true));
    let outer = &packet.bytes()[ethernet.len()..];
    assert_eq!(outer.len(), inner.len() + usize::from(tunnel.overhead()));
    let (read, unwrapped) = decapsulate(outer);
    assert_eq!(unwrapped, inner, "{tunnel:?}");
    assert_eq!(read.inner_v6, inner[0] >> 4 == 6);
    read
}

#[test]
fn known_bytes() {
    let encapsulated = |kind, checksum, inner: &[u8]| {
        let mut packet = framed(&ETHERNET, inner, 0);
        let len = u16::try_from(inner.len()).unwrap();
        assert!(tunnel(kind, checksum, false).encapsulate(&mut packet, 14, len, 0xbeef, true));
        packet.bytes()[14..].to_vec()
    };
    let v4 = packet_v4(0, 63, DONT_FRAGMENT, b"hello");
    let v6 = packet_v6(0, 63, b"hello");
    let packet = encapsulated(Ipip, Without, &v4);
    let header = [
        0x45, 0, 0, 53, 0, 0, 0x40, 0, 63, 4, 0xb8, 0x71, 192, 168, 1, 1, 192, 168, 1, 2,
    ];
    assert_eq!(packet[..20], header);
    assert_eq!(encapsulated(Ipip, Without, &v6)[9], 41);
    assert_eq!(encapsulated(Gre, Without, &v4)[20..24], [0, 0, 8, 0]);
    assert_eq!(encapsulated(Gre, Without, &v6)[20..24], [0, 0, 0x86, 0xdd]);
    let packet = encapsulated(Gre, Full, &v4);
    assert_eq!(packet[20..24], [0x80, 0, 8, 0]);
    assert_eq!(packet[26..28], [0, 0]);
    let packet = encapsulated(Gue, Without, &v4);
    assert_eq!(packet[22..32], [0x17, 0xc0, 0, 45, 0, 0, 0, 4, 0, 0]);
    assert_eq!(encapsulated(Gue, Without, &v6)[28..32], [0, 41, 0, 0]);
}

#[test]
fn every_kind_over_and_of_every_family() {
    for kind in KINDS {
        for sum in CHECKSUMS {
            for outer_v6 in [false, true] {
                let tunnel = tunnel(kind, sum, outer_v6);
                for ethernet in [&ETHERNET[..], &TAGGED] {
                    for (padding, payload) in [(0, 1400), (0, 1401), (18, 0), (13, 5)] {
                        let payload = vec![0x5a; payload];
                        for inner in [packet_v4(0, 63, 0, &payload), packet_v6(0, 63, &payload)] {
                            let read = round_trip(&tunnel, ethernet, &inner, padding);
                            assert_eq!((read.kind, read.ttl), (kind, 63));
                            let with = match kind {
                                Ipip => false,
                                Gre => sum == Full,
                                Gue => sum != Without,
                            };
                            assert_eq!(read.with_checksum, with, "{tunnel:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn overhead() {
    for (kind, checksum, v4, v6) in [
        (Ipip, Without, 20, 40),
        (Ipip, Full, 20, 40),
        (Gre, Without, 24, 44),
        (Gre, Full, 28, 48),
        (Gre, Remote, 24, 44),
        (Gue, Without, 32, 52),
        (Gue, Full, 32, 52),
        (Gue, Remote, 32, 52),
    ] {
        assert_eq!(
            tunnel(kind, checksum, false).overhead(),
            v4,
            "{kind:?} {checksum:?}"
        );
        assert_eq!(
            tunnel(kind, checksum, true).overhead(),
            v6,
            "{kind:?} {checksum:?}"
        );
    }
}

#[test]
fn families_must_agree() {
    let spec = control::Tunnel::default();
    assert_eq!(Tunnel::new(spec, FROM4.into(), TO6.into()), None);
    assert_eq!(Tunnel::new(spec, FROM6.into(), TO4.into()), None);
}

/// RFC 3168 §9.1.1: all but CE is copied, CE becomes ECT(0).
#[test]
fn traffic_class_of_the_outer_header() {
    for outer_v6 in [false, true] {
        let tunnel = tunnel(Ipip, Without, outer_v6);
        for inner in 0..=255 {
            let outer = if inner & 3 == 3 {
                inner & !3 | 2
            } else {
                inner
            };
            for packet in [packet_v4(inner, 9, 0, b"x"), packet_v6(inner, 9, b"x")] {
                let read = round_trip(&tunnel, &ETHERNET, &packet, 0);
                assert_eq!((read.traffic_class, read.ttl), (outer, 9));
            }
        }
    }
}

#[test]
fn dont_fragment_and_id() {
    let tunnel = tunnel(Gre, Without, false);
    let read = |inner: &[u8], copy_df| {
        let mut packet = framed(&ETHERNET, inner, 0);
        let len = u16::try_from(inner.len()).unwrap();
        assert!(tunnel.encapsulate(&mut packet, 14, len, 0xbeef, copy_df));
        let (read, _) = decapsulate(&packet.bytes()[14..]);
        (read.dont_fragment, read.id)
    };
    let (df, may, v6) = (
        packet_v4(0, 9, DONT_FRAGMENT, b""),
        packet_v4(0, 9, 0, b""),
        packet_v6(0, 9, b""),
    );
    assert_eq!(read(&df, true), (true, 0));
    assert_eq!(read(&df, false), (false, 0xbeef));
    for inner in [may, v6] {
        assert_eq!(read(&inner, true), (false, 0xbeef));
        assert_eq!(read(&inner, false), (false, 0xbeef));
    }
    // An inner fragment's flag and offset stay inside.
    assert_eq!(read(&packet_v4(0, 9, 0x2001, b""), true), (false, 0xbeef));
}

/// `frame` with `headroom` bytes in front.
fn with_headroom(headroom: usize, frame: &[u8]) -> HeapBuf {
    let mut packet = HeapBuf::new(&[]);
    assert!(packet.prepend(128 - headroom));
    assert!(packet.resize(frame.len()));
    packet.bytes_mut().copy_from_slice(frame);
    packet
}

#[test]
fn what_does_not_fit_stays_as_it_was() {
    let inner = packet_v4(0, 63, 0, b"hello");
    let len = u16::try_from(inner.len()).unwrap();
    let frame = [&ETHERNET[..], &inner, &[0x77; 9]].concat();
    for kind in KINDS {
        for outer_v6 in [false, true] {
            let tunnel = tunnel(kind, Full, outer_v6);
            let needed = usize::from(tunnel.overhead());
            let mut packet = with_headroom(needed - 1, &frame);
            assert!(!tunnel.encapsulate(&mut packet, 14, len, 1, true));
            assert_eq!(packet.bytes(), frame);
            let mut packet = with_headroom(needed, &frame);
            assert!(tunnel.encapsulate(&mut packet, 14, len, 1, true));
        }
    }
    let tunnel = tunnel(Ipip, Without, false);
    // Longer than the frame, shorter than a header, longer than an IP packet can become.
    let long = packet_v4(0, 63, 0, &vec![0; 65_500]);
    let frames = [
        (frame.clone(), len + 10),
        (frame, 19),
        (
            [&ETHERNET[..], &long].concat(),
            u16::try_from(long.len()).unwrap(),
        ),
    ];
    for (frame, ip_len) in frames {
        let mut packet = HeapBuf::new(&frame);
        assert!(!tunnel.encapsulate(&mut packet, 14, ip_len, 1, true));
        assert!(packet.bytes() == frame, "{ip_len}");
    }
}

/// A checksum that comes out as 0 is sent as 0xffff: 0 would mean none.
#[test]
fn udp_checksum_is_never_zero() {
    for outer_v6 in [false, true] {
        let tunnel = tunnel(Gue, Full, outer_v6);
        let mut inner = packet_v4(0, 63, 0, &[0, 0]);
        let udp_checksum = |inner: &[u8]| {
            let mut packet = framed(&ETHERNET, inner, 0);
            assert!(tunnel.encapsulate(&mut packet, 14, 30, 1, true));
            let at = 14 + usize::from(tunnel.overhead()) - GUE_HEADER - 2;
            be16(packet.bytes(), at)
        };
        let rest = udp_checksum(&inner);
        assert_ne!(rest, 0xffff);
        // Adding the checksum to what it covers makes the sum 0xffff, whose complement is 0.
        inner[28..30].copy_from_slice(&rest.to_be_bytes());
        assert_eq!(udp_checksum(&inner), 0xffff);
    }
}

#[test]
fn a_flow_keeps_its_source_port_and_flows_spread() {
    let port =
        |inner: &[u8]| round_trip(&tunnel(Gue, Without, false), &ETHERNET, inner, 0).source_port;
    for (make, ports) in [
        (
            (&|payload: &[u8]| packet_v4(0, 9, 0, payload)) as &dyn Fn(&[u8]) -> Vec<u8>,
            20,
        ),
        (&|payload: &[u8]| packet_v6(0, 9, payload), 40),
    ] {
        assert_eq!(port(&make(b"one")), port(&make(b"two of the same")));
        let mut seen = std::collections::HashSet::new();
        for client_port in 0..2000u16 {
            let mut inner = make(b"");
            inner[ports..ports + 2].copy_from_slice(&client_port.to_be_bytes());
            seen.insert(port(&inner));
        }
        // Of 28,232 ports, 2000 random ones would hit about 1932.
        assert!(seen.len() > 1850, "{}", seen.len());
        assert!(seen.iter().all(|port| (32_768..=60_999).contains(port)));
        let last = seen.iter().max().unwrap();
        assert!(*last > 60_000, "the whole range: {last}");
    }
    // Fragments of a packet take one way: what lies where ports would be does not count.
    let (mut first, mut last) = (packet_v4(0, 9, 0x2000, b"a"), packet_v4(0, 9, 0x0001, b"b"));
    first[20..22].copy_from_slice(&[1, 1]);
    last[20..22].copy_from_slice(&[2, 2]);
    assert_eq!(port(&first), port(&last));
    // Neither do they in other protocols.
    let mut esp = packet_v4(0, 9, 0, b"");
    esp[9] = 50;
    let one = port(&esp);
    esp[20] ^= 0xff;
    assert_eq!(port(&esp), one);
}

proptest! {
    #[test]
    fn unwraps_to_what_went_in(
        kind in 0..3usize, sum in 0..3usize, outer_v6: bool, tagged: bool, inner_v6: bool,
        traffic_class: u8, ttl: u8, flags in prop_oneof![Just(0u16), Just(DONT_FRAGMENT), 0..0x3fffu16],
        payload in proptest::collection::vec(any::<u8>(), 0..600), padding in 0..40usize,
    ) {
        let inner = if inner_v6 {
            packet_v6(traffic_class, ttl, &payload)
        } else {
            packet_v4(traffic_class, ttl, flags, &payload)
        };
        let ethernet = if tagged { &TAGGED[..] } else { &ETHERNET };
        let tunnel = tunnel(KINDS[kind], CHECKSUMS[sum], outer_v6);
        let read = round_trip(&tunnel, ethernet, &inner, padding);
        prop_assert_eq!((read.kind, read.ttl), (KINDS[kind], ttl));
        prop_assert_eq!(read.dont_fragment, !outer_v6 && !inner_v6 && flags == DONT_FRAGMENT);
    }

    /// Whatever the bytes, no panic, and what is refused is untouched.
    #[test]
    fn rubbish(
        kind in 0..3usize, sum in 0..3usize, outer_v6: bool, l3 in 0..40usize, ip_len: u16,
        frame in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut packet = HeapBuf::new(&frame);
        let tunnel = tunnel(KINDS[kind], CHECKSUMS[sum], outer_v6);
        let ip_len = ip_len % 120;
        let fits = l3 + usize::from(ip_len) <= frame.len() && ip_len >= 20;
        prop_assert_eq!(tunnel.encapsulate(&mut packet, l3, ip_len, 1, true), fits);
        if !fits {
            prop_assert_eq!(packet.bytes(), &frame[..]);
        }
    }
}

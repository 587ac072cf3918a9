//! Known packets in, known answers out; and nothing that arrives can do harm.

mod v6; // the same over IPv6

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::time::Instant;
use crate::wire::flow::UDP;

const CLIENT: [u8; 4] = [10, 0, 0, 9];
const VIP: [u8; 4] = [10, 0, 0, 100];
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// From client to VIP, with a right header checksum.
fn ip(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0x03, 0, 0, 0x12, 0x34, 0, 0, 7, protocol, 0, 0];
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet.extend([CLIENT, VIP].concat());
    packet.extend(payload);
    seal(packet)
}

fn seal(mut packet: Vec<u8>) -> Vec<u8> {
    packet[10..12].fill(0);
    let sum = checksum::ipv4_header(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn tcp(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80];
    segment.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    segment.extend([6 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]); // with an MSS
    segment.extend(data);
    let sum = checksum::transport_v4(CLIENT.into(), VIP.into(), TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(TCP, &segment)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 0xab, 0xcd, 0, 1];
    message.extend(payload);
    let sum = checksum::icmp(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(ICMP, &message)
}

fn assert_valid(made: &[u8]) {
    assert_eq!(checksum::ipv4_header(&made[..20]), 0);
    assert_eq!(
        usize::from(u16::from_be_bytes([made[2], made[3]])),
        made.len()
    );
    match made[9] {
        ICMP => assert_eq!(checksum::icmp(&made[20..]), 0),
        _ => assert_eq!(
            checksum::transport_v4(VIP.into(), CLIENT.into(), TCP, &made[20..]),
            0
        ),
    }
}

#[test]
fn unreachable_quotes_the_packet() {
    let packet = ip(UDP, &[0x9c, 0x40, 0, 53, 0, 10, 0, 0, 1, 2]);
    let padded = [&packet[..], &[0; 16]].concat(); // the link layer's padding is not quoted
    let made = unreachable(&padded, Unreachable::Port, SOURCE).unwrap();
    assert_valid(&made);
    assert_eq!(
        made[..2],
        [0x45, 0xc2],
        "ECN is not echoed, precedence is 6"
    );
    assert_eq!(made[4..10], [0, 0, 0x40, 0, 64, ICMP]);
    assert_eq!(made[12..20], [10, 0, 0, 1, 10, 0, 0, 9]);
    assert_eq!(made[20..22], [3, 3]);
    assert_eq!(made[24..28], [0; 4]);
    assert_eq!(made[28..], packet);
}

#[test]
fn types_and_codes() {
    let packet = ip(UDP, &[0; 8]);
    let head = |made: Option<Made>| {
        let made = made.unwrap();
        assert_valid(&made);
        [made[20], made[21], made[24], made[25], made[26], made[27]]
    };
    assert_eq!(
        head(unreachable(&packet, Unreachable::Net, SOURCE)),
        [3, 0, 0, 0, 0, 0]
    );
    assert_eq!(
        head(unreachable(&packet, Unreachable::Host, SOURCE)),
        [3, 1, 0, 0, 0, 0]
    );
    let needed = Unreachable::TooBig(1480);
    assert_eq!(
        head(unreachable(&packet, needed, SOURCE)),
        [3, 4, 0, 0, 0x05, 0xc8]
    );
    assert_eq!(head(time_exceeded(&packet, SOURCE)), [11, 0, 0, 0, 0, 0]);
}

#[test]
fn the_quote_is_bounded() {
    let packet = ip(UDP, &[0x5a; 1400]);
    let made = time_exceeded(&packet, SOURCE).unwrap();
    assert_eq!(made.len(), 576);
    assert_eq!(made[28..], packet[..548]);
    assert_valid(&made);
}

#[test]
fn no_error_where_none_may_be() {
    let refused = |packet: &[u8]| time_exceeded(packet, SOURCE).is_none();
    for kind in [3, 4, 5, 11, 12] {
        assert!(
            refused(&ip(ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0])),
            "ICMP type {kind}"
        );
    }
    assert!(refused(&ip(ICMP, &[])), "an ICMP message of unknown type");
    assert!(!refused(&ping(b"x")));
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = ip(UDP, &[0; 8]);
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        seal(packet)
    };
    assert!(refused(&with(6, &[0x00, 0x01])), "a later fragment");
    assert!(!refused(&with(6, &[0x20, 0x00])), "the first fragment");
    for address in [
        [0; 4],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [240, 0, 0, 1],
        [255; 4],
    ] {
        assert!(refused(&with(12, &address)), "from {address:?}");
        assert!(refused(&with(16, &address)), "to {address:?}");
    }
    assert!(
        refused(&with(0, &[0x65])) && refused(&with(0, &[0x44])),
        "version, header length"
    );
    assert!(refused(&with(0, &[0x4f])), "options past the end");
    assert!(refused(&with(2, &[0, 19])), "total length");
    assert!(time_exceeded(&ip(UDP, &[0; 8]), Ipv4Addr::UNSPECIFIED.into()).is_none());
}

fn reset_fields(packet: &[u8]) -> (u32, u32, u8) {
    let made = tcp_reset(packet).unwrap();
    assert_valid(&made);
    assert_eq!(made.len(), 40);
    assert_eq!(made[12..20], [VIP, CLIENT].concat());
    assert_eq!(made[20..24], [0, 80, 0x9c, 0x40]);
    assert_eq!(
        (made[32], &made[34..36], &made[38..40]),
        (0x50, &[0, 0][..], &[0, 0][..])
    );
    let word = |at| u32::from_be_bytes(made[at..at + 4].try_into().unwrap());
    (word(24), word(28), made[33])
}

#[test]
fn resets() {
    let cases = [
        ("SYN", tcp(1000, 0, SYN, b""), (0, 1001, RST | ACK)),
        (
            "SYN with data",
            tcp(1000, 77, SYN, b"abc"),
            (0, 1004, RST | ACK),
        ),
        (
            "FIN without ACK, odd data, wrap",
            tcp(u32::MAX, 0, FIN, b"a"),
            (0, 1, RST | ACK),
        ),
        ("no flag", tcp(5, 9, 0, b""), (0, 5, RST | ACK)),
        ("ACK", tcp(1000, 2000, ACK, b"abc"), (2000, 0, RST)),
        ("SYN-ACK", tcp(1000, 2000, SYN | ACK, b""), (2000, 0, RST)),
        ("FIN-ACK", tcp(1000, 0, FIN | ACK, b""), (0, 0, RST)),
    ];
    for (what, packet, expected) in cases {
        assert_eq!(reset_fields(&packet), expected, "{what}");
        let padded = [&packet[..], &[0; 6]].concat();
        assert_eq!(reset_fields(&padded), expected, "{what}, padded");
    }
}

#[test]
fn no_reset_where_none_may_be() {
    assert!(tcp_reset(&tcp(1, 2, RST, b"")).is_none());
    assert!(tcp_reset(&tcp(1, 2, RST | ACK, b"")).is_none());
    let good = tcp(1, 2, ACK, b"abc");
    assert!(tcp_reset(&good[..good.len() - 1]).is_none(), "cut");
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        seal(packet)
    };
    assert!(tcp_reset(&with(6, 0x20)).is_none(), "a first fragment");
    assert!(tcp_reset(&with(9, UDP)).is_none());
    assert!(tcp_reset(&with(30, 0xff)).is_none(), "a wrong checksum");
    for data_offset in [4, 15] {
        let mut packet = tcp(1, 2, ACK, b"abc");
        packet[32] = data_offset << 4;
        packet[36..38].fill(0);
        let sum = checksum::transport_v4(CLIENT.into(), VIP.into(), TCP, &packet[20..]);
        packet[36..38].copy_from_slice(&sum.to_be_bytes());
        assert!(tcp_reset(&packet).is_none(), "data offset {data_offset}");
    }
}

#[test]
fn echo() {
    let mut packet = ping(b"hello");
    let asked = packet.clone();
    packet.extend([0; 13]); // padding
    assert!(echo_reply(&mut packet));
    let (reply, padding) = packet.split_at(asked.len());
    assert_valid(reply);
    assert_eq!(padding, [0; 13]);
    assert_eq!(reply[12..20], [VIP, CLIENT].concat());
    assert_eq!((reply[8], &reply[20..22]), (64, &[0, 0][..]));
    assert_eq!((&reply[24..], &reply[..8]), (&asked[24..], &asked[..8]));
    assert!(!echo_reply(&mut packet), "a reply is no request");
}

#[test]
fn no_echo_of_what_is_not_a_request() {
    let refused = |mut packet: Vec<u8>| {
        let before = packet.clone();
        !echo_reply(&mut packet) && packet == before
    };
    let with = |at: usize, byte: u8| {
        let mut packet = ping(b"hello");
        packet[at] = byte;
        seal(packet)
    };
    assert!(refused(with(9, UDP)) && refused(with(21, 1)) && refused(with(28, b'j')));
    assert!(refused(with(6, 0x20)) && refused(with(7, 1)), "fragments");
    assert!(
        refused(with(12, 127)) && refused(with(16, 224)),
        "addresses"
    );
    assert!(refused(with(0, 0x46)), "options");
    assert!(refused(ping(b"hello")[..30].to_vec()) && refused(vec![]));
    assert!(refused(ip(ICMP, &[8, 0, 0xf7, 0xff])), "half a header");
}

#[test]
fn the_bucket_empties_and_refills() {
    let mut limit = RateLimit::default();
    let at = |limit: &mut RateLimit, ms| (0..200).filter(|_| limit.allow(Instant(ms))).count();
    assert_eq!(at(&mut limit, 1_000_000), 50);
    assert_eq!(at(&mut limit, 1_000_001), 1);
    assert_eq!(at(&mut limit, 1_000_011), 10);
    assert_eq!(at(&mut limit, 9_000_000), 50);
    let mut slow = RateLimit::new(3, 1);
    let sent = (0..10_000).filter(|&ms| slow.allow(Instant(ms))).count();
    assert_eq!(sent, 30);
    let mut none = RateLimit::new(0, 0);
    assert_eq!(at(&mut none, u32::MAX), 0);
}

proptest! {
    #[test]
    fn never_panics(mut packet in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = unreachable(&packet, Unreachable::Port, SOURCE);
        let _ = tcp_reset(&packet);
        let _ = echo_reply(&mut packet);
    }

    #[test]
    fn never_panics_on_damage(at in 0usize..60, byte: u8, len in 0usize..60, which in 0..3) {
        let mut packet = match which {
            0 => ping(&[7; 32]),
            1 => tcp(1, 2, ACK, &[7; 16]),
            _ => ip(UDP, &[7; 40]),
        };
        packet[at] = byte;
        packet.truncate(len);
        let _ = time_exceeded(&packet, SOURCE).map(|made| assert_valid(&made));
        let _ = tcp_reset(&packet);
        let _ = echo_reply(&mut packet);
    }
}

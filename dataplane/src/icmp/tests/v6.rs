use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::wire::flow::ICMPV6;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
const SOURCE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const HOP_BY_HOP: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// The textbook's checksum of a payload over IPv6, written anew: 0 if it is right.
fn textbook(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8]) -> u16 {
    let mut bytes = [src.octets(), dst.octets()].concat();
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes.extend(payload);
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn ip(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x62, 0x31, 0x23, 0x45];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 7]);
    packet.extend([CLIENT.octets(), VIP.octets()].concat());
    packet.extend(payload);
    packet
}

fn tcp(seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40, 0, 80];
    segment.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    let sum = textbook(CLIENT, VIP, TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    ip(TCP, &segment)
}

fn ping(payload: &[u8]) -> Vec<u8> {
    let mut message = vec![128, 0, 0, 0, 0xab, 0xcd, 0, 1];
    message.extend(payload);
    let sum = textbook(CLIENT, VIP, ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(ICMPV6, &message)
}

fn assert_valid(made: &[u8]) {
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&made[at..at + 16]).unwrap());
    assert_eq!(made[..4], [0x60, 0, 0, 0]);
    let len = u16::from_be_bytes([made[4], made[5]]);
    assert_eq!(usize::from(len) + 40, made.len());
    assert_eq!(textbook(address(8), address(24), made[6], &made[40..]), 0);
}

#[test]
fn unreachable_quotes_the_packet() {
    let packet = ip(UDP, &[0x9c, 0x40, 0, 53, 0, 10, 0, 0, 1, 2]);
    let padded = [&packet[..], &[0; 16]].concat();
    let made = unreachable(&padded, Unreachable::Port, SOURCE).unwrap();
    assert_valid(&made);
    assert_eq!(made[6..8], [ICMPV6, 64]);
    let IpAddr::V6(source) = SOURCE else {
        unreachable!()
    };
    assert_eq!(made[8..40], [source.octets(), CLIENT.octets()].concat());
    assert_eq!((&made[40..42], &made[44..48]), (&[1, 4][..], &[0; 4][..]));
    assert_eq!(made[48..], packet);
}

#[test]
fn types_and_codes() {
    let packet = ip(UDP, &[0; 8]);
    let head = |made: Option<Made>| {
        let made = made.unwrap();
        assert_valid(&made);
        [made[40], made[41], made[44], made[45], made[46], made[47]]
    };
    for (what, expected) in [
        (Unreachable::Net, [1, 0, 0, 0, 0, 0]),
        (Unreachable::Host, [1, 3, 0, 0, 0, 0]),
        (Unreachable::Port, [1, 4, 0, 0, 0, 0]),
        (Unreachable::TooBig(1480), [2, 0, 0, 0, 0x05, 0xc8]),
    ] {
        assert_eq!(
            head(unreachable(&packet, what, SOURCE)),
            expected,
            "{what:?}"
        );
    }
    assert_eq!(head(time_exceeded(&packet, SOURCE)), [3, 0, 0, 0, 0, 0]);
}

#[test]
fn the_whole_fits_the_least_mtu() {
    let packet = ip(UDP, &[0x5a; 1400]);
    let made = unreachable(&packet, Unreachable::TooBig(1280), SOURCE).unwrap();
    assert_eq!(made.len(), 1280);
    assert_eq!(made[48..], packet[..1232]);
    assert_valid(&made);
}

#[test]
fn no_error_where_none_may_be() {
    let refused = |packet: &[u8]| time_exceeded(packet, SOURCE).is_none();
    let error = |kind| [kind, 0, 0, 0, 0, 0, 0, 0];
    for kind in [1, 2, 3, 4, 100, 127, 137] {
        assert!(refused(&ip(ICMPV6, &error(kind))), "type {kind}");
    }
    assert!(!refused(&ping(b"x")));
    assert!(refused(&ip(ICMPV6, &[])), "of unknown type");
    let behind =
        |first: u8, extension: &[u8], kind: u8| ip(first, &[extension, &error(kind)].concat());
    let with_next = |mut extension: [u8; 8]| {
        extension[0] = ICMPV6;
        extension
    };
    for first in [0, 43, 60] {
        let extension = with_next(HOP_BY_HOP);
        assert!(refused(&behind(first, &extension, 1)), "behind {first}");
        assert!(!refused(&behind(first, &extension, 128)), "behind {first}");
        let endless = [first, 0, 1, 4, 0, 0, 0, 0].repeat(20);
        assert!(refused(&ip(first, &endless)), "nothing but {first}");
        assert!(
            refused(&ip(first, &[UDP, 9, 0, 0, 0, 0, 0, 0])),
            "past the end"
        );
        assert!(refused(&ip(first, &[])), "without its header");
    }
    let first_fragment = [ICMPV6, 0, 0, 1, 0, 0, 0, 1];
    assert!(
        refused(&behind(44, &first_fragment, 1)) && !refused(&behind(44, &first_fragment, 128))
    );
    assert!(
        refused(&behind(44, &[UDP, 0, 0, 8, 0, 0, 0, 1], 0)),
        "a later fragment"
    );
    let authentication = [ICMPV6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(
        refused(&behind(51, &authentication, 1)) && !refused(&behind(51, &authentication, 128))
    );

    let with = |at: usize, address: Ipv6Addr| {
        let mut packet = ip(UDP, &[0; 8]);
        packet[at..at + 16].copy_from_slice(&address.octets());
        packet
    };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    for address in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, all_nodes] {
        assert!(refused(&with(8, address)), "from {address}");
        assert!(refused(&with(24, address)), "to {address}");
    }
    let too_big = |packet: &[u8]| unreachable(packet, Unreachable::TooBig(1300), SOURCE);
    assert!(
        too_big(&with(24, all_nodes)).is_some(),
        "RFC 4443 §2.4(e.3)"
    );
    assert!(too_big(&with(8, all_nodes)).is_none());
    assert!(
        time_exceeded(&ip(UDP, &[0; 8]), super::SOURCE).is_none(),
        "families"
    );
    assert!(
        time_exceeded(&super::ip(UDP, &[0; 8]), SOURCE).is_none(),
        "families"
    );
}

#[test]
fn resets() {
    let cases = [
        (tcp(1000, 0, SYN, b"abc"), (0, 1004u32, RST | ACK)),
        (tcp(1000, 2000, ACK, b"a"), (2000u32, 0, RST)),
    ];
    for (packet, (seq, ack, flags)) in cases {
        let made = tcp_reset(&[&packet[..], &[0; 6]].concat()).unwrap();
        assert_valid(&made);
        assert_eq!(made[8..40], [VIP.octets(), CLIENT.octets()].concat());
        assert_eq!(made[40..44], [0, 80, 0x9c, 0x40]);
        assert_eq!(
            made[44..52],
            [seq.to_be_bytes(), ack.to_be_bytes()].concat()
        );
        assert_eq!(made[53], flags);
    }
    assert!(tcp_reset(&tcp(1, 2, RST, b"")).is_none());
    let mut packet = tcp(1, 2, ACK, b"abc");
    packet[60] ^= 1;
    assert!(tcp_reset(&packet).is_none(), "a wrong checksum");
}

#[test]
fn echo() {
    let asked = ping(b"hello");
    let mut packet = [&asked[..], &[0; 13]].concat();
    assert!(echo_reply(&mut packet));
    let (reply, padding) = packet.split_at(asked.len());
    let addresses = [VIP.octets(), CLIENT.octets()].concat();
    assert_eq!(textbook(VIP, CLIENT, ICMPV6, &reply[40..]), 0);
    assert_eq!(
        (&reply[..7], &reply[7..40]),
        (&asked[..7], &[&[64][..], &addresses].concat()[..])
    );
    assert_eq!(
        (&reply[40..42], &reply[44..]),
        (&[129, 0][..], &asked[44..])
    );
    assert_eq!(padding, [0; 13]);
    let refused = |at: usize, byte: u8| {
        let mut packet = asked.clone();
        packet[at] = byte;
        let before = packet.clone();
        !echo_reply(&mut packet) && packet == before
    };
    assert!(refused(40, 129) && refused(50, b'x') && refused(24, 0xff) && refused(8, 0xff));
    assert!(refused(5, 200), "not whole");
}

proptest! {
    #[test]
    fn never_panics(mut packet in proptest::collection::vec(any::<u8>(), 0..160), next in 0u8..61) {
        if packet.len() > 6 {
            packet[0] = 0x60;
            packet[4] = 0;
            packet[6] = next;
        }
        for source in [SOURCE, super::SOURCE] {
            let _ = unreachable(&packet, Unreachable::TooBig(1400), source);
            let _ = time_exceeded(&packet, source).map(|made| assert_valid(&made));
        }
        let _ = tcp_reset(&packet);
        let _ = echo_reply(&mut packet);
    }
}

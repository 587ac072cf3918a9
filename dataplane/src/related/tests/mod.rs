//! Errors by hand, byte for byte; and any errors, against the textbook's checksum.

mod golden; // whole packets
mod tunnel; // errors about tunnels

use proptest::prelude::*;

use super::*;
use crate::packet::MADE_MAX;
use crate::wire::flow::{ICMP, ICMPV6};

const L3: usize = 14;

/// The textbook's checksum: 0 if what it covers has a right one.
fn textbook(bytes: &[u8]) -> u16 {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn tuple_of(protocol: u8, from: &str, to: &str) -> Tuple {
    Tuple {
        protocol,
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
    }
}

/// An IP packet without options; `more` is added to the length that it claims.
fn ip(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8], more: u16) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap() + more;
    let addresses = [octets(src), octets(dst)].concat();
    let mut packet;
    if src.is_ipv4() {
        let [high, low] = (len + 20).to_be_bytes();
        packet = vec![0x45, 0, high, low, 0, 7, 0x40, 0, 64, protocol, 0, 0];
        packet.extend(addresses);
        let sum = textbook(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet = vec![0x60, 0, 0, 0];
        packet.extend(len.to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend(addresses);
    }
    packet.extend(payload);
    packet
}

/// A packet of a flow of which the transport header's first eight bytes and `more` are there.
fn packet_of(tuple: &Tuple, more: &[u8]) -> Vec<u8> {
    let mut l4 = tuple.from.port().to_be_bytes().to_vec();
    l4.extend(tuple.to.port().to_be_bytes());
    l4.extend([1, 2, 3, 4]);
    l4.extend(more);
    ip(tuple.from.ip(), tuple.to.ip(), tuple.protocol, &l4, 1000)
}

fn pseudo(src: IpAddr, dst: IpAddr, message: &[u8]) -> Vec<u8> {
    if src.is_ipv4() {
        return vec![];
    }
    let mut pseudo = [octets(src), octets(dst)].concat();
    pseudo.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    pseudo
}

/// A frame with an ICMP message of this type, code and word.
fn error(src: IpAddr, dst: IpAddr, kind: u8, code: u8, word: u32, quote: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    let sum = textbook(&[&pseudo(src, dst, &message)[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    [vec![0; L3], ip(src, dst, protocol, &message, 0)].concat()
}

/// Where the transport header of the frame's packet begins, and how long the packet is.
fn places(frame: &[u8]) -> (usize, u16) {
    let ip = Ip::parse(&frame[L3..]).unwrap();
    (L3 + ip.payload, u16::try_from(ip.total_len).unwrap())
}

fn read(frame: &[u8]) -> Result<Option<Related>, DropReason> {
    let (l4, ip_len) = places(frame);
    related(frame, L3, l4, ip_len)
}

/// Every checksum of an ICMP packet, and of the IPv4 header that it quotes, is right.
fn assert_valid(packet: &[u8]) {
    let ip = Ip::parse(packet).unwrap();
    assert_eq!(ip.total_len, packet.len());
    let message = &packet[ip.payload..];
    assert_eq!(
        textbook(&[&pseudo(ip.src, ip.dst, message)[..], message].concat()),
        0
    );
    if !ip.is_v6() {
        assert_eq!(textbook(&packet[..ip.payload]), 0);
        let quoted = &message[8..];
        assert_eq!(textbook(&quoted[..Ip::parse(quoted).unwrap().payload]), 0);
    }
}

fn client(is_v6: bool) -> Tuple {
    match is_v6 {
        false => tuple_of(TCP, "192.0.2.9:40000", "10.0.0.100:80"),
        true => tuple_of(TCP, "[2001:db8::9]:40000", "[2001:db8::100]:80"),
    }
}

#[test]
fn which_types_are_errors() {
    let kinds = |is_v6: bool| -> Vec<u8> {
        let tuple = client(is_v6);
        let quote = packet_of(&tuple, b"");
        let read = |kind| read(&error(tuple.to.ip(), tuple.from.ip(), kind, 0, 0, &quote));
        (0..=255)
            .filter(|&kind| read(kind).unwrap().is_some())
            .collect()
    };
    assert_eq!(kinds(false), [3, 4, 11]);
    assert_eq!(kinds(true), (0..128).collect::<Vec<u8>>());
}

#[test]
fn what_an_error_says() {
    for is_v6 in [false, true] {
        let tuple = client(is_v6);
        let (from, to) = (
            address(["10.9.9.9", "2001:db8::f"][usize::from(is_v6)]),
            tuple.from.ip(),
        );
        let (kind, code) = if is_v6 { (2, 0) } else { (3, 4) };
        let mut frame = error(from, to, kind, code, 1400, &packet_of(&tuple, b"more"));
        let header = if is_v6 { 40 } else { 20 };
        let seen = read(&frame).unwrap().unwrap();
        assert_eq!((seen.quoted, seen.from, seen.to), (tuple, from, to));
        assert_eq!(
            (seen.kind.kind, seen.kind.code, seen.kind.mtu()),
            (kind, code, Some(1400))
        );
        assert_eq!(seen.quoted_l3, L3 + header + 8);
        assert_eq!(seen.quoted_l4, seen.quoted_l3 + header);
        frame.extend([0xee; 9]);
        assert_eq!(
            read(&frame).unwrap(),
            Some(seen),
            "padding is no part of it"
        );
        let last = frame.len() - 10;
        for at in [L3 + header + 1, L3 + header + 2, last] {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged), Err(DropReason::BadChecksum), "byte {at}");
        }
        let (l4, ip_len) = places(&frame);
        let cut = related(&frame[..frame.len() - 10], L3, l4, ip_len);
        assert_eq!(cut, Err(DropReason::Truncated));
    }
    let tuple = client(false);
    let mut frame = error(
        tuple.to.ip(),
        tuple.from.ip(),
        3,
        1,
        0,
        &packet_of(&tuple, b""),
    );
    frame[L3 + 8] -= 1;
    assert_eq!(
        read(&frame),
        Err(DropReason::BadChecksum),
        "the IP header's own"
    );
}

#[test]
fn what_is_quoted() {
    for is_v6 in [false, true] {
        let tuple = client(is_v6);
        let (from, to) = (tuple.to.ip(), tuple.from.ip());
        let kind = if is_v6 { 1 } else { 3 };
        let read = |quote: &[u8]| {
            let seen = read(&error(from, to, kind, 1, 0, quote))?;
            Ok(seen.map(|seen| seen.quoted))
        };
        for protocol in [TCP, UDP, SCTP] {
            let tuple = Tuple { protocol, ..tuple };
            assert_eq!(read(&packet_of(&tuple, b"")), Ok(Some(tuple)));
            assert_eq!(read(&packet_of(&tuple, &[7; 400])), Ok(Some(tuple)));
        }
        let whole = packet_of(&tuple, b"");
        for len in 0..whole.len() {
            assert_eq!(read(&whole[..len]), Ok(None), "{len} bytes");
        }
        for protocol in [1, 47, 50, 58] {
            assert_eq!(
                read(&packet_of(&Tuple { protocol, ..tuple }, b"")),
                Ok(None)
            );
        }
        let first_byte = |byte: u8| [&[byte], &whole[1..]].concat();
        for byte in [0x44, 0x15, 0x00, 0xff] {
            assert_eq!(
                read(&first_byte(byte)),
                Err(DropReason::BadHeader),
                "{byte:#x}"
            );
        }
        let other = packet_of(&client(!is_v6), &[0; 40]);
        assert_eq!(read(&other), Err(DropReason::BadHeader), "another family");
    }
    let tuple = client(false);
    let mut quote = packet_of(&tuple, b"");
    let read =
        |quote: &[u8]| read(&error(tuple.to.ip(), tuple.from.ip(), 11, 1, 0, quote)).unwrap();
    quote[6..8].copy_from_slice(&[0x20, 0]);
    assert!(read(&quote).is_some(), "a first fragment");
    quote[6..8].copy_from_slice(&[0x20, 1]);
    assert!(read(&quote).is_none(), "a later fragment");
}

#[test]
fn extension_headers_of_the_quoted_packet() {
    let tuple = client(true);
    let (from, to) = (tuple.to.ip(), tuple.from.ip());
    let plain = packet_of(&tuple, b"");
    let behind = |first: u8, extensions: &[u8]| {
        let mut quote = plain.clone();
        quote[6] = first;
        quote.splice(40..40, extensions.iter().copied());
        read(&error(from, to, 1, 0, 0, &quote))
    };
    let seen = behind(
        0,
        &[
            60, 0, 0, 0, 0, 0, 0, 0, TCP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    );
    let seen = seen.unwrap().unwrap();
    assert_eq!((seen.quoted, seen.quoted_l4), (tuple, seen.quoted_l3 + 64));
    assert!(behind(44, &[TCP, 0, 0, 1, 0, 0, 0, 1]).unwrap().is_some());
    assert!(behind(44, &[TCP, 0, 0, 9, 0, 0, 0, 1]).unwrap().is_none());
    assert_eq!(
        behind(0, &[0, 0, 0, 0, 0, 0, 0, 0].repeat(9)),
        Err(DropReason::BadHeader)
    );
    assert_eq!(behind(0, &[TCP, 200, 0, 0, 0, 0, 0, 0]), Ok(None), "cut");
}

#[test]
fn an_old_router_knows_no_mtu() {
    let tuple = client(false);
    let frame = error(
        address("10.9.9.9"),
        tuple.from.ip(),
        3,
        4,
        0,
        &packet_of(&tuple, b""),
    );
    assert_eq!(read(&frame).unwrap().unwrap().kind.mtu(), Some(1006)); // it was 1028 bytes long
}

/// Extensions of RFC 4884 are not taken to the other family, whose quote would end elsewhere.
#[test]
fn extensions_stay_behind() {
    let quoted = client(true);
    let tuple = tuple_of(TCP, "10.0.0.5:5000", "10.0.1.1:8080");
    let mut quote = packet_of(&tuple, b"");
    quote.resize(128, 0);
    quote.extend([0x20, 0, 0xff, 0xff, 0, 8, 1, 1, 1, 2, 3, 4]);
    let frame = error(tuple.to.ip(), tuple.from.ip(), 11, 0, 32 << 16, &quote);
    let seen = read(&frame).unwrap().unwrap();
    let outer = (quoted.to.ip(), quoted.from.ip());
    let made = translate_family(&frame, L3, &seen, outer, &quoted, None).unwrap();
    assert_valid(&made);
    assert_eq!(made.len(), 40 + 8 + 40 + 108);
    assert_eq!(made[40..42], [3, 0]);
    assert_eq!(made[44..48], [0; 4]);
}

#[test]
fn what_is_not_told_in_the_other_family() {
    let (tuple, quoted) = (client(false), client(true));
    let outer = (quoted.to.ip(), quoted.from.ip());
    let frame = error(
        tuple.to.ip(),
        tuple.from.ip(),
        4,
        0,
        0,
        &packet_of(&tuple, b""),
    );
    let seen = read(&frame).unwrap().unwrap();
    assert_eq!(
        translate_family(&frame, L3, &seen, outer, &quoted, None),
        None
    );
}

#[test]
fn mtus_in_the_other_family() {
    let mtu = |is_v6: bool, mtu: u32| {
        let (tuple, quoted) = (client(is_v6), client(!is_v6));
        let (kind, code) = if is_v6 { (2, 0) } else { (3, 4) };
        let quote = packet_of(&tuple, b"");
        let frame = error(tuple.to.ip(), tuple.from.ip(), kind, code, mtu, &quote);
        let seen = read(&frame).unwrap().unwrap();
        let outer = (quoted.to.ip(), quoted.from.ip());
        let made = translate_family(&frame, L3, &seen, outer, &quoted, None).unwrap();
        assert_valid(&made);
        let at = if is_v6 { 24 } else { 44 };
        u32::from_be_bytes(made[at..at + 4].try_into().unwrap())
    };
    for (v4, v6) in [(1400, 1420), (1260, 1280), (576, 1280), (65_535, 65_555)] {
        assert_eq!(mtu(false, v4), v6, "to IPv6");
    }
    for (v6, v4) in [(1400, 1380), (1280, 1260), (10, 68), (u32::MAX, 65_535)] {
        assert_eq!(mtu(true, v6), v4, "to IPv4");
    }
}

#[test]
fn what_is_made_is_bounded() {
    for (is_v6, len) in [(false, 1280), (true, 576)] {
        let (tuple, quoted) = (client(is_v6), client(!is_v6));
        let kind = if is_v6 { 1 } else { 3 };
        let quote = packet_of(&tuple, &[0x77; 1400]);
        let frame = error(tuple.to.ip(), tuple.from.ip(), kind, 1, 0, &quote);
        let seen = read(&frame).unwrap().unwrap();
        let outer = (quoted.to.ip(), quoted.from.ip());
        let made = translate_family(&frame, L3, &seen, outer, &quoted, None).unwrap();
        assert_valid(&made);
        assert_eq!(made.len(), len);
        assert!(18 + made.len() <= MADE_MAX);
    }
}

fn any_tuple(is_v6: bool) -> impl Strategy<Value = Tuple> {
    let any_address = move |octets: [u8; 16]| match is_v6 {
        true => IpAddr::from(octets),
        false => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
    };
    (
        any::<([u8; 16], u16, [u8; 16], u16)>(),
        prop_oneof![Just(TCP), Just(UDP), Just(SCTP)],
    )
        .prop_map(move |((src, src_port, dst, dst_port), protocol)| Tuple {
            protocol,
            from: SocketAddr::new(any_address(src), src_port),
            to: SocketAddr::new(any_address(dst), dst_port),
        })
}

fn two_tuples() -> impl Strategy<Value = (Tuple, Tuple)> {
    any::<bool>().prop_flat_map(|is_v6| (any_tuple(is_v6), any_tuple(is_v6)))
}

proptest! {
    /// What comes out is what would have been sent for the new addresses, to the last bit.
    #[test]
    fn translated_is_as_if_sent_so(
        (old, new) in two_tuples(), more in proptest::collection::vec(any::<u8>(), 0..60), seq: u32,
    ) {
        let new = Tuple { protocol: old.protocol, ..new };
        let is_v6 = old.from.is_ipv6();
        let (kind, at) = if is_v6 { (1, 7) } else { (3, 8) };
        let mut frame = error(old.to.ip(), old.from.ip(), kind, 1, 0, &packet_of(&old, &more));
        let seen = read(&frame).unwrap().unwrap();
        translate(&mut frame, L3, &seen, (new.to.ip(), new.from.ip()), &new, Some(seq));
        assert_valid(&frame[L3..]);
        let mut quote = packet_of(&new, &more);
        if new.protocol == TCP {
            let l4 = if is_v6 { 40 } else { 20 };
            quote[l4 + 4..l4 + 8].copy_from_slice(&0x0102_0304u32.wrapping_add(seq).to_be_bytes());
        }
        let mut expected = error(new.to.ip(), new.from.ip(), kind, 1, 0, &quote);
        expected[L3 + at] = 63;
        // IPv4 header checksums may be written as 0 or 0xffff; they were checked above.
        for packet in [&mut frame, &mut expected] {
            if !is_v6 {
                packet[L3 + 10..L3 + 12].fill(0);
                packet[L3 + 22..L3 + 24].fill(0);
                packet[L3 + 38..L3 + 40].fill(0);
            }
        }
        prop_assert_eq!(frame, expected);
    }

    #[test]
    fn translated_there_and_back((old, new) in two_tuples(), seq: u32) {
        let new = Tuple { protocol: old.protocol, ..new };
        let kind = if old.from.is_ipv6() { 3 } else { 11 };
        let before = error(old.to.ip(), old.from.ip(), kind, 0, 0, &packet_of(&old, b"abc"));
        let mut frame = before.clone();
        let seen = read(&frame).unwrap().unwrap();
        translate(&mut frame, L3, &seen, (new.to.ip(), new.from.ip()), &new, Some(seq));
        let seen = read(&frame).unwrap().unwrap();
        prop_assert_eq!(seen.quoted, new);
        let back = Some(seq.wrapping_neg());
        translate(&mut frame, L3, &seen, (old.to.ip(), old.from.ip()), &old, back);
        let (_, quote) = frame.split_at(seen.quoted_l3);
        prop_assert_eq!(quote, &before[seen.quoted_l3..]);
    }

    #[test]
    fn never_panics(
        frame in proptest::collection::vec(any::<u8>(), 0..200), l3 in 0usize..40, l4: usize, ip_len: u16,
    ) {
        let l4 = l4 % 220;
        let ip_len = if ip_len.is_multiple_of(3) { ip_len } else { ip_len % 200 };
        let _ = tunnelled(&frame, l3, l4, ip_len);
        let _ = related(&frame, l3, l4, ip_len);
        let kind = ErrorKind::read(true, &Icmp { kind: 1, code: 0, checksum: 0.into(), rest: 0.into() });
        let _ = answer_for_inner(&frame, kind.unwrap(), address("10.0.0.1"));
        let _ = answer_for_inner(&frame, kind.unwrap(), address("2001:db8::1"));
    }

    /// Any quote within an error that is right: nothing is too strange.
    #[test]
    fn never_panics_on_quotes(
        is_v6: bool, kind in 0u8..13, code in 0u8..6, word: u32, damage in proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
        protocol in 0u8..60, len in 0usize..140, seq: u32,
    ) {
        let tuple = client(is_v6);
        let mut quote = packet_of(&tuple, &[0x45; 80]);
        quote[if is_v6 { 6 } else { 9 }] = protocol;
        let last = quote.len() - 1;
        for (at, byte) in damage {
            quote[at.min(last)] = byte;
        }
        quote.truncate(len);
        let mut frame = error(tuple.to.ip(), tuple.from.ip(), kind, code, word, &quote);
        let (l4, ip_len) = places(&frame);
        if let Some(tunnelled) = tunnelled(&frame, L3, l4, ip_len) {
            let inner = &frame[tunnelled.inner.clone()];
            let _ = answer_for_inner(inner, tunnelled.kind, address("10.0.0.100"));
        }
        let Ok(Some(seen)) = read(&frame) else { return Ok(()) };
        let (same, other) = (client(is_v6), client(!is_v6));
        let outer = (other.to.ip(), other.from.ip());
        if let Some(made) = translate_family(&frame, L3, &seen, outer, &other, Some(seq)) {
            assert_valid(&made);
        }
        translate(&mut frame, L3, &seen, (same.to.ip(), same.from.ip()), &same, Some(seq));
        assert_valid(&frame[L3..]);
    }
}

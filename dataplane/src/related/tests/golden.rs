//! Packets before and after, worked out by hand.

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let words = hex.split_whitespace();
    words
        .flat_map(|word| u16::from_str_radix(word, 16).unwrap().to_be_bytes())
        .collect()
}

/// The error `before` is about a packet of `was`; readdressed, it is `after`.
fn check(
    before: &str,
    was: Tuple,
    outer: (&str, &str),
    quoted: Tuple,
    seq: Option<u32>,
    after: &str,
) {
    let frame = [vec![0; L3], bytes(before)].concat();
    let seen = read(&frame).unwrap().unwrap();
    assert_eq!(seen.quoted, was);
    let outer = (address(outer.0), address(outer.1));
    let packet = if was.from.is_ipv4() == quoted.from.is_ipv4() {
        let mut frame = frame;
        translate(&mut frame, L3, &seen, outer, &quoted, seq);
        frame[L3..].to_vec()
    } else {
        let made = translate_family(&frame, L3, &seen, outer, &quoted, seq).unwrap();
        made.to_vec()
    };
    assert_valid(&packet);
    assert_eq!(packet, bytes(after));
}

/// NAT: the server has no such port. Port unreachable, about the client's UDP packet.
#[test]
fn nat_from_the_server() {
    check(
        "45c0 003c 1234 4000 4001 5ac3 0a00 0101 \
         c000 0209 0303 efb6 0000 0000 4500 0020 \
         1234 4000 3f11 5c8f c000 0209 0a00 0101 \
         9c40 1f75 000c beef 6162 3132",
        tuple_of(UDP, "192.0.2.9:40000", "10.0.1.1:8053"),
        ("10.0.0.100", "192.0.2.9"),
        tuple_of(UDP, "192.0.2.9:40000", "10.0.0.100:53"),
        None,
        "45c0 003c 1234 4000 3f01 5c60 0a00 0064 \
         c000 0209 0303 0ef7 0000 0000 4500 0020 \
         1234 4000 3f11 5d2c c000 0209 0a00 0064 \
         9c40 0035 000c beef 6162 3132",
    );
}

/// NAT: a router on the way to the client takes 1400 bytes. Its error goes on to the server.
#[test]
fn nat_toward_the_server() {
    check(
        "4500 0038 1234 4000 3c01 e62b cb00 7101 \
         0a00 0064 0304 56ed 0000 0578 4500 05dc \
         1234 4000 3206 647b 0a00 0064 c000 0209 \
         0050 9c40 0102 0304",
        tuple_of(TCP, "10.0.0.100:80", "192.0.2.9:40000"),
        ("203.0.113.1", "10.0.1.1"),
        tuple_of(TCP, "10.0.1.1:8080", "192.0.2.9:40000"),
        None,
        "4500 0038 1234 4000 3b01 e68e cb00 7101 \
         0a00 0101 0304 37ad 0000 0578 4500 05dc \
         1234 4000 3206 63de 0a00 0101 c000 0209 \
         1f90 9c40 0102 0304",
    );
}

/// NAT over IPv6, as [`nat_from_the_server`].
#[test]
fn nat_over_ipv6() {
    check(
        "6000 0000 003c 3a40 2001 0db8 0001 0000 \
         0000 0000 0000 0001 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0104 c8f9 0000 0000 \
         6000 0000 000c 113f 2001 0db8 0000 0000 \
         0000 0000 0000 0009 2001 0db8 0001 0000 \
         0000 0000 0000 0001 9c40 1f75 000c beef \
         6162 3132",
        tuple_of(UDP, "[2001:db8::9]:40000", "[2001:db8:1::1]:8053"),
        ("2001:db8::100", "2001:db8::9"),
        tuple_of(UDP, "[2001:db8::9]:40000", "[2001:db8::100]:53"),
        None,
        "6000 0000 003c 3a3f 2001 0db8 0000 0000 \
         0000 0000 0000 0100 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0104 e63d 0000 0000 \
         6000 0000 000c 113f 2001 0db8 0000 0000 \
         0000 0000 0000 0009 2001 0db8 0000 0000 \
         0000 0000 0000 0100 9c40 0035 000c beef \
         6162 3132",
    );
}

/// FULLNAT from IPv6 to IPv4: the server has no such port.
#[test]
fn family_from_the_server() {
    check(
        "45c0 003c 1234 4000 4001 12c8 0a00 0101 \
         0a00 0005 0303 786f 0000 0000 4528 0020 \
         1234 4000 3f11 146c 0a00 0005 0a00 0101 \
         1388 1f75 000c beef 6162 3132",
        tuple_of(UDP, "10.0.0.5:5000", "10.0.1.1:8053"),
        ("2001:db8::100", "2001:db8::9"),
        tuple_of(UDP, "[2001:db8::9]:40000", "[2001:db8::100]:53"),
        None,
        "6c00 0000 003c 3a3f 2001 0db8 0000 0000 \
         0000 0000 0000 0100 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0104 e3bd 0000 0000 \
         6280 0000 000c 113f 2001 0db8 0000 0000 \
         0000 0000 0000 0009 2001 0db8 0000 0000 \
         0000 0000 0000 0100 9c40 0035 000c beef \
         6162 3132",
    );
}

/// FULLNAT from IPv6 to IPv4: a router before the server takes 1400 bytes, which are 1420 for the
/// client; what it sent was 0x10 lower in sequence.
#[test]
fn family_too_big_for_the_server() {
    check(
        "4500 0038 1234 4000 3e01 0d84 0a00 0909 \
         0a00 0005 0304 c055 0000 0578 4500 05c8 \
         1234 4000 3c06 11f7 0a00 0005 0a00 0101 \
         1388 1f90 0102 0314",
        tuple_of(TCP, "10.0.0.5:5000", "10.0.1.1:8080"),
        ("2001:db8::100", "2001:db8::9"),
        tuple_of(TCP, "[2001:db8::9]:40000", "[2001:db8::100]:80"),
        Some(0x10u32.wrapping_neg()),
        "6000 0000 0038 3a3d 2001 0db8 0000 0000 \
         0000 0000 0000 0100 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0200 3284 0000 058c \
         6000 0000 05b4 063c 2001 0db8 0000 0000 \
         0000 0000 0000 0009 2001 0db8 0000 0000 \
         0000 0000 0000 0100 9c40 0050 0102 0304",
    );
}

/// FULLNAT from IPv6 to IPv4: the client has closed its port.
#[test]
fn family_from_the_client() {
    check(
        "6000 0000 003c 3a3a 2001 0db8 0000 0000 \
         0000 0000 0000 0009 2001 0db8 0000 0000 \
         0000 0000 0000 0100 0104 e645 0000 0000 \
         6000 0000 000c 1137 2001 0db8 0000 0000 \
         0000 0000 0000 0100 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0035 9c40 000c beef \
         6162 3132",
        tuple_of(UDP, "[2001:db8::100]:53", "[2001:db8::9]:40000"),
        ("10.0.0.5", "10.0.1.1"),
        tuple_of(UDP, "10.0.1.1:8053", "10.0.0.5:5000"),
        None,
        "4500 003c 0000 4000 3901 2cbc 0a00 0005 \
         0a00 0101 0303 786f 0000 0000 4500 0020 \
         0000 4000 3711 2ec8 0a00 0101 0a00 0005 \
         1f75 1388 000c beef 6162 3132",
    );
}

/// FULLNAT from IPv6 to IPv4: a router before the client takes 1400 bytes, which are 1380 for the
/// server.
#[test]
fn family_too_big_for_the_client() {
    check(
        "6000 0000 0038 3a3a 2001 0db8 000f 0000 \
         0000 0000 0000 0001 2001 0db8 0000 0000 \
         0000 0000 0000 0100 0200 2098 0000 0578 \
         6000 0000 05a0 0637 2001 0db8 0000 0000 \
         0000 0000 0000 0100 2001 0db8 0000 0000 \
         0000 0000 0000 0009 0050 9c40 0a0b 0c0d",
        tuple_of(TCP, "[2001:db8::100]:80", "[2001:db8::9]:40000"),
        ("10.0.0.5", "10.0.1.1"),
        tuple_of(TCP, "10.0.1.1:8080", "10.0.0.5:5000"),
        None,
        "4500 0038 0000 4000 3901 2cc0 0a00 0005 \
         0a00 0101 0304 ae67 0000 0564 4500 05b4 \
         0000 4000 3706 293f 0a00 0101 0a00 0005 \
         1f90 1388 0a0b 0c0d",
    );
}

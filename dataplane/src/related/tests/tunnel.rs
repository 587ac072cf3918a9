use control::TunnelKind;

use super::*;

const DIRECTOR: &str = "10.0.0.1";
const DIRECTOR_V6: &str = "2001:db8:0:1::1";
const SERVER: &str = "10.0.1.1";
const SERVER_V6: &str = "2001:db8:1::1";
const ROUTER: &str = "10.0.0.254";
const ROUTER_V6: &str = "2001:db8::fe";

/// An error of this type, code and MTU about an outer packet with `header` before `inner`.
fn about(is_v6: bool, what: (u8, u8, u32), protocol: u8, header: &[u8], inner: &[u8]) -> Vec<u8> {
    let [director, server, router] = match is_v6 {
        false => [DIRECTOR, SERVER, ROUTER].map(address),
        true => [DIRECTOR_V6, SERVER_V6, ROUTER_V6].map(address),
    };
    let outer = ip(director, server, protocol, &[header, inner].concat(), 0);
    error(router, director, what.0, what.1, what.2, &outer)
}

fn read(frame: &[u8]) -> Option<Tunnelled> {
    let (l4, ip_len) = places(frame);
    tunnelled(frame, L3, l4, ip_len)
}

/// Header of each tunnel before an IPv4 or IPv6 packet.
fn tunnels(is_inner_v6: bool) -> [(u8, Vec<u8>, TunnelKind, Option<u16>); 5] {
    let protocol = if is_inner_v6 { 41 } else { 4 };
    let ethertype = if is_inner_v6 { [0x86, 0xdd] } else { [8, 0] };
    let gre = |flags: u8, rest: &[u8]| [&[flags, 0][..], &ethertype, rest].concat();
    let gue = |len: u8, flags: u8| {
        let udp = [0xc0, 0, 0x17, 0xc0, 0, 99, 0, 0];
        [&udp[..], &[len, protocol, 0, flags]].concat()
    };
    let remote = [gue(2, 1), vec![0x80, 0, 0, 0, 0, 0, 0, 6]].concat();
    [
        (protocol, vec![], TunnelKind::Ipip, None),
        (47, gre(0, &[]), TunnelKind::Gre, None),
        (47, gre(0x80, &[0xab, 0xcd, 0, 0]), TunnelKind::Gre, None),
        (17, gue(0, 0), TunnelKind::Gue, Some(6080)),
        (17, remote, TunnelKind::Gue, Some(6080)),
    ]
}

#[test]
fn every_tunnel() {
    for (is_v6, is_inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let inner = packet_of(&client(is_inner_v6), b"data");
        let (what, outer_len) = if is_v6 {
            ((2, 0, 1400), 40)
        } else {
            ((3, 4, 1400), 20)
        };
        for (protocol, header, kind, port) in tunnels(is_inner_v6) {
            let mut frame = about(is_v6, what, protocol, &header, &inner);
            let seen = read(&frame).unwrap();
            let [server, to] = match is_v6 {
                false => [SERVER, DIRECTOR].map(address),
                true => [SERVER_V6, DIRECTOR_V6].map(address),
            };
            assert_eq!((seen.server, seen.to), (server, to));
            assert_eq!((seen.tunnel, seen.port), (kind, port));
            assert_eq!(seen.overhead, outer_len + header.len());
            assert_eq!(seen.kind.mtu(), Some(1400));
            assert_eq!(
                (&frame[seen.inner.clone()], seen.tuple),
                (&inner[..], client(is_inner_v6))
            );
            assert!(seen.dont_fragment);
            let last = frame.len() - 1;
            frame[last] ^= 1;
            assert_eq!(read(&frame), None, "a wrong checksum");
        }
    }
}

#[test]
fn what_is_no_tunnel_of_ours() {
    let inner = packet_of(&client(false), b"data");
    let about =
        |protocol: u8, header: &[u8]| read(&about(false, (3, 1, 0), protocol, header, &inner));
    assert!(about(4, &[]).is_some());
    assert!(about(41, &[]).is_none(), "IPv4 where IPv6 is said to be");
    assert!(about(50, &[]).is_none(), "ESP");
    for gre in [
        [0x80, 0, 8, 0],
        [0x40, 0, 8, 0],
        [0x10, 0, 8, 0],
        [0, 1, 8, 0],
        [0, 0, 0x86, 0xdd],
        [0, 0, 0x65, 0x58],
    ] {
        assert!(about(47, &gre).is_none(), "GRE {gre:x?}");
    }
    let udp = [0xc0, 0, 0x17, 0xc0, 0, 99, 0, 0];
    for gue in [
        [0x20, 4, 0, 0],
        [0x40, 4, 0, 0],
        [0x80, 4, 0, 0],
        [0, 17, 0, 0],
        [0, 41, 0, 0],
        [31, 4, 0, 0],
    ] {
        assert!(
            about(17, &[&udp[..], &gue].concat()).is_none(),
            "GUE {gue:x?}"
        );
    }
    for len in 0..20 + 28 {
        let outer = ip(address(DIRECTOR), address(SERVER), 4, &inner, 0);
        let frame = error(
            address(ROUTER),
            address(DIRECTOR),
            3,
            4,
            1400,
            &outer[..len],
        );
        assert_eq!(read(&frame), None, "{len} bytes quoted");
    }
    let mut outer = ip(address(DIRECTOR), address(SERVER), 4, &inner, 0);
    outer[7] = 1;
    let frame = error(address(ROUTER), address(DIRECTOR), 3, 4, 1400, &outer);
    assert_eq!(read(&frame), None, "a later fragment");
}

#[test]
fn which_errors_the_client_may_know() {
    let inner = packet_of(&client(false), b"data");
    let kinds = |is_v6: bool| {
        let seen = |kind: u8| read(&about(is_v6, (kind, 0, 0), 4, &[], &inner));
        let kinds = (0..=255).filter_map(|kind| Some((kind, seen(kind)?.kind)));
        kinds
            .map(|(kind, told)| (kind, told.kind, told.code))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(false), [(3, 3, 0), (4, 4, 0), (11, 11, 0)]);
    assert_eq!(kinds(true), [(1, 1, 0), (2, 2, 0), (3, 3, 0), (4, 1, 3)]);
}

#[test]
fn an_inner_packet_that_routers_may_fragment() {
    let mut inner = packet_of(&client(false), b"data");
    inner[6] = 0;
    let frame = about(false, (3, 4, 1400), 4, &[], &inner);
    assert!(!read(&frame).unwrap().dont_fragment);
}

/// The client learns of the MTU that is left within the tunnel, or of the same type and code, in
/// its own family.
#[test]
fn the_client_is_told() {
    // The error's family, the client's, type, code and MTU; what the client is told.
    let table = [
        (false, false, (3, 4, 1400), [3, 4, 0, 0, 0x05, 0x64]),
        (false, true, (3, 4, 1400), [2, 0, 0, 0, 0x05, 0x64]),
        (true, true, (2, 0, 1400), [2, 0, 0, 0, 0x05, 0x50]),
        (true, false, (2, 0, 1400), [3, 4, 0, 0, 0x05, 0x50]),
        (false, false, (3, 13, 0), [3, 13, 0, 0, 0, 0]),
        (false, true, (3, 13, 0), [1, 1, 0, 0, 0, 0]),
        (false, false, (11, 0, 0), [11, 0, 0, 0, 0, 0]),
        (false, true, (11, 0, 0), [3, 0, 0, 0, 0, 0]),
        (true, false, (1, 3, 0), [3, 1, 0, 0, 0, 0]),
        (true, true, (4, 1, 6), [1, 3, 0, 0, 0, 0]),
    ];
    for (is_v6, is_inner_v6, what, expected) in table {
        let tuple = client(is_inner_v6);
        let inner = packet_of(&tuple, b"data");
        let frame = about(is_v6, what, if is_inner_v6 { 41 } else { 4 }, &[], &inner);
        let seen = read(&frame).unwrap();
        let left = seen
            .kind
            .mtu()
            .map_or(0, |mtu| mtu - u32::try_from(seen.overhead).unwrap());
        let kind = seen.kind.with_mtu(left);
        let made = answer_for_inner(&frame[seen.inner], kind, tuple.to.ip()).unwrap();
        assert_valid(&made);
        let told = Ip::parse(&made).unwrap();
        assert_eq!((told.src, told.dst), (tuple.to.ip(), tuple.from.ip()));
        let (head, quote) = made[told.payload..].split_at(8);
        assert_eq!([&head[..2], &head[4..]].concat(), expected, "{what:?}");
        assert_eq!(quote, inner);
    }
}

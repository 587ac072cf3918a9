//! Addresses and ports are rewritten, everything else goes through as it came.

use super::*;

/// A server without a port is asked at the one that the client asked.
#[test]
fn a_server_with_port_0_keeps_the_port() {
    let (vip, asked) = (VIP, RS.replace(":8080", ":80"));
    let server = RS.replace(":8080", ":0");
    let mut t = Testbed::nat(Tcp, vip, &[&server]);
    establish(&mut t, 0, C, &asked);
}

#[test]
fn nat_tcp_round_trip() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    establish(&mut t, 0, C, RS);
    t.check(
        5,
        tcp(C, VIP, "PA").data(b"GET /"),
        on(tcp(C, RS, "PA").data(b"GET /")),
    );
    t.check(
        6,
        tcp(RS, C, "PA").data(b"200 odd"),
        on(tcp(VIP, C, "PA").data(b"200 odd")),
    );
    assert_eq!(t.load(0), (1, 0));
    assert_eq!(t.page.servers[0].conns.get(), 1);
    assert_eq!(t.page.connections.get(), 1);
}

#[test]
fn nat_udp_round_trip() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"ping"), on(udp(C, RS, b"ping")));
    t.check(1, udp(RS, C, b"pong!"), on(udp(VIP, C, b"pong!")));
    assert_eq!(t.load(0), (0, 1), "UDP is never active");
}

#[test]
fn udp_without_checksum_stays_without() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(
        0,
        udp(C, VIP, b"x").without_checksum(),
        on(udp(C, RS, b"x").without_checksum()),
    );
    t.check(
        1,
        udp(RS, C, b"y").without_checksum(),
        on(udp(VIP, C, b"y").without_checksum()),
    );
}

#[test]
fn a_udp_checksum_that_comes_out_zero_is_stored_as_ffff() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    // The two bytes of data are chosen so that the checksum towards the server is 0.
    let data = (0..=u16::MAX)
        .map(u16::to_be_bytes)
        .find(|data| udp(C, RS, data).ip()[26..28] == [0xff, 0xff])
        .unwrap();
    assert_ne!(udp(C, VIP, &data).ip()[26..28], [0xff, 0xff]);
    t.check(0, udp(C, VIP, &data), on(udp(C, RS, &data)));
}

#[test]
fn what_comes_in_corrupt_goes_out_corrupt() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"ping"), on(udp(C, RS, b"ping")));
    let corrupt = |frame: Frame, leaves: bool| {
        let (port, frame) = if leaves {
            leaving(&frame.ttl(63))
        } else {
            arriving(&frame)
        };
        let mut bytes = frame.bytes();
        *bytes.last_mut().unwrap() ^= 0x40;
        (port, bytes)
    };
    let (port, bytes) = corrupt(udp(C, VIP, b"ping"), false);
    let mut burst = Burst::from_iter([HeapBuf::new(&bytes)]);
    t.director.process(Instant(1), port, &mut burst, &mut t.out);
    assert_eq!(t.take(), [corrupt(udp(C, RS, b"ping"), true)]);
}

#[test]
fn ports_are_mapped() {
    let mut t = Testbed::nat(Tcp, VIP, &["10.1.0.1:8080"]);
    establish(&mut t, 0, C, "10.1.0.1:8080");
    // The server's other port is no reply of this connection.
    t.check(9, tcp("10.1.0.1:80", C, "A"), Drop(DropReason::NotOurs));
}

#[test]
fn one_armed() {
    // The server stands in the clients' network; the same port takes and sends.
    let mut t = Testbed::nat(Tcp, VIP, &["192.0.2.1:80"]);
    let far = "198.51.100.7:1234";
    t.check(0, tcp(C, VIP, "S"), on(tcp(C, "192.0.2.1:80", "S")));
    t.check(1, tcp("192.0.2.1:80", C, "SA"), on(tcp(VIP, C, "SA")));
    t.check(2, tcp(far, VIP, "S"), on(tcp(far, "192.0.2.1:80", "S")));
}

#[test]
fn options_are_kept() {
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    let options = [0x94, 4, 0, 0, 1, 1, 1, 1]; // router alert
    t.check(
        0,
        tcp(C, VIP, "S").options(&options),
        on(tcp(C, RS, "S").options(&options)),
    );
    t.check(
        1,
        tcp(C, VIP, "A").options(&options),
        on(tcp(C, RS, "A").options(&options)),
    );
}

#[test]
fn padding_is_carried() {
    let mut t = Testbed::nat(Udp, VIP, &[RS]);
    t.check(0, udp(C, VIP, b"x"), on(udp(C, RS, b"x")));
    let padded = |(port, frame): (PortId, Frame)| {
        let mut bytes = frame.bytes();
        bytes.resize(60, 0x77);
        (port, bytes)
    };
    let (port, bytes) = padded(arriving(&udp(C, VIP, b"x")));
    let mut burst = Burst::from_iter([HeapBuf::new(&bytes)]);
    t.director.process(Instant(1), port, &mut burst, &mut t.out);
    assert_eq!(t.take(), [padded(leaving(&udp(C, RS, b"x").ttl(63)))]);
    assert_eq!(t.page.servers[0].in_bytes.get(), 2 * 29);
}

//! SCTP: ports are mapped, the checksum is made anew, and its chunks move the state.

use super::super::frames::sctp;
use super::*;
use control::Protocol::Sctp;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;
const DATA: u8 = 0;

#[test]
fn an_association_from_begin_to_end() {
    for (client, vip, server) in [
        (C, VIP, "10.1.0.1:8080"),
        (C6, VIP6, "[2001:db8:1::1]:8080"),
    ] {
        let mut t = Testbed::nat(Sctp, vip, &[server]);
        let steps: [(bool, &[u8], &str); 9] = [
            (false, &[INIT], "INIT1"),
            (true, &[INIT_ACK], "C-SENT"),
            (false, &[COOKIE_ECHO, DATA], "C-REPLIED"),
            (true, &[COOKIE_ACK], "ESTABLISHED"),
            (false, &[DATA, DATA], "ESTABLISHED"),
            (true, &[DATA], "ESTABLISHED"),
            (false, &[SHUTDOWN], "S-RECEIVED"),
            (true, &[SHUTDOWN_ACK], "S-ACK-SENT"),
            (false, &[SHUTDOWN_COMPLETE], "CLOSED"),
        ];
        for (from_server, chunks, state) in steps {
            let (packet, leaves) = match from_server {
                false => (sctp(client, vip, chunks), sctp(client, server, chunks)),
                true => (sctp(server, client, chunks), sctp(vip, client, chunks)),
            };
            t.check(0, packet, on(leaves));
            let list = t.director.listed(Instant::from_ms(0));
            assert_eq!(list[0].state, state);
        }
        assert_eq!(t.load(0), (0, 1));
    }
}

#[test]
fn only_init_opens() {
    let mut t = Testbed::nat(Sctp, VIP, &[RS]);
    for chunk in [DATA, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, SHUTDOWN] {
        let packet = sctp(C, VIP, &[chunk]);
        let told = error(VIP_IP, 3, 3, 0, &packet);
        t.check(0, packet, Refuse(DropReason::NoConnection, told));
    }
    t.check(1, sctp(C, VIP, &[INIT]), on(sctp(C, RS, &[INIT])));
}

#[test]
fn what_comes_in_corrupt_goes_out_corrupt() {
    let mut t = Testbed::nat(Sctp, VIP, &[RS]);
    t.check(0, sctp(C, VIP, &[INIT]), on(sctp(C, RS, &[INIT])));
    let (port, mut bytes) = arriving(&sctp(C, VIP, &[DATA])).clone();
    bytes.ttl = 64;
    let mut bytes = bytes.bytes();
    *bytes.last_mut().unwrap() ^= 1;
    let mut burst = Burst::from_iter([HeapBuf::new(&bytes)]);
    t.director.process(Instant(1), port, &mut burst, &mut t.out);
    let sent = t.take();
    assert_eq!(
        super::super::frames::wrong_checksum(&sent[0].1),
        Some("SCTP")
    );
}

/// Its checksum covers the ports: who changes them must see all of it.
#[test]
fn fragments_keep_their_ports_or_end_here() {
    let packet = |from, to| sctp(from, to, &[INIT, DATA, DATA, DATA]).pieces(24);
    let mut t = Testbed::nat(Sctp, VIP, &[RS]);
    for (came, sent) in packet(C, VIP).iter().zip(packet(C, RS)) {
        t.check(0, came.clone(), on(sent));
    }
    let mut t = Testbed::nat(Sctp, VIP, &["10.1.0.1:8080"]);
    for (n, piece) in (1..).zip(packet(C, VIP)) {
        assert_eq!(t.pass(0, &piece), Vec::<Vec<u8>>::new());
        let drops = &t.page.port(CLIENTS).drops;
        assert_eq!(drops[DropReason::Fragment as usize].get(), n);
    }
}

#[test]
fn direct_routing_and_tunnels_leave_it_alone() {
    let mut t = Testbed::by(ForwardMode::Direct, Sctp, VIP, &[RS]);
    for chunk in [INIT, COOKIE_ECHO, DATA] {
        let packet = sctp(C, VIP, &[chunk]);
        t.check(0, packet.clone(), Direct(RS, packet.hop()));
    }
    let mut t = Testbed::by(ForwardMode::Tunnel, Sctp, VIP, &[RS]);
    let packet = sctp(C, VIP, &[INIT]).fragment(DONT_FRAGMENT);
    let outer = other_ip("10.1.0.254", "10.1.0.1", 4, &packet.clone().hop().ip());
    let outer = outer.ttl(63).id(0).fragment(DONT_FRAGMENT);
    t.check(0, packet, To(RS, vec![outer]));
}

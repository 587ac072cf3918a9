//! Fragments: all of a datagram go the way of the first, whatever order they come in.

use super::super::testbed::via;
use super::*;
use crate::conn::Hash;
use crate::packet::{Learned, Origin};
use crate::replay::Wire;
use crate::watch::Watch;
use End::{DropWith, RefuseWith, Together, Wait};

const L: &str = "10.1.0.100:1024";
const L6: &str = "[2001:db8:1::100]:1024";
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn bed(mode: ForwardMode, vip: &str, server: &str) -> Testbed {
    let mut t = Testbed::by(mode, Udp, vip, &[server]);
    let local = if server == RS { L } else { L6 };
    let local = super::super::frames::address(local).ip().to_string();
    t.apply(local_addresses(0, &[&local]));
    t
}

/// Three fragments in this order leave as `leaves` says of each.
fn in_order(
    t: &mut Testbed,
    ms: u32,
    server: &'static str,
    order: [usize; 3],
    pieces: &[Frame],
    leaves: impl Fn(&Testbed, usize, usize) -> Frame,
) {
    assert_eq!(pieces.len(), 3);
    let mut waiting = Vec::new();
    let mut has_first = false;
    for n in order {
        let end = if n == 0 {
            has_first = true;
            let all = [0].into_iter().chain(waiting.drain(..)).enumerate();
            Together(server, all.map(|(nth, n)| leaves(t, n, nth)).collect())
        } else if has_first {
            Together(server, vec![leaves(t, n, 0)])
        } else {
            waiting.push(n);
            Wait
        };
        t.check(ms, pieces[n].clone(), end);
    }
    assert_eq!(t.page.held.get(), 0);
    assert_eq!(
        t.director.fragments.datagrams(),
        0,
        "a whole datagram is forgotten"
    );
}

#[test]
fn every_order_by_every_method() {
    let data: Vec<u8> = (0..100).collect();
    for (client, vip, server, local) in [(C, VIP, RS, L), (C6, VIP6, RS6, L6)] {
        let pieces = |from, to| udp(from, to, &data).pieces(40);
        for (ms, order) in (0..).zip(ORDERS) {
            let (came, back) = (pieces(client, vip), pieces(server, client));
            let mut t = bed(ForwardMode::Nat, vip, server);
            let sent = |_: &Testbed, n: usize, _| pieces(client, server)[n].clone().hop();
            in_order(&mut t, ms, server, order, &came, sent);
            let sent = |_: &Testbed, n: usize, _| pieces(vip, client)[n].clone().hop();
            in_order(&mut t, ms, server, order, &back, sent);

            let mut t = bed(ForwardMode::Direct, vip, server);
            let station = super::super::frames::address(server).ip().to_string();
            let sent = |_: &Testbed, n: usize, _| via(&station, came[n].clone().hop());
            in_order(&mut t, ms, server, order, &came, sent);

            let mut t = bed(ForwardMode::FullNat, vip, server);
            let sent = |_: &Testbed, n: usize, _| pieces(local, server)[n].clone().hop();
            in_order(&mut t, ms, server, order, &came, sent);
            let sent = |_: &Testbed, n: usize, _| pieces(vip, client)[n].clone().hop();
            in_order(&mut t, ms, server, order, &pieces(server, local), sent);

            let mut t = bed(ForwardMode::Tunnel, vip, server);
            let us = if vip == VIP {
                "10.1.0.254"
            } else {
                "2001:db8:1::fe"
            };
            let protocol = if vip == VIP { 4 } else { 41 };
            let sent = |t: &Testbed, n: usize, nth: usize| {
                let id = t.director.ip_id + 1 + u16::try_from(nth).unwrap();
                let inner = came[n].clone().hop();
                other_ip(us, &station, protocol, &inner.ip()).ttl(63).id(id)
            };
            in_order(&mut t, ms, server, order, &came, sent);
        }
    }
}

#[test]
fn tcp_in_fragments() {
    let pieces = |from, to| tcp(from, to, "S").data(&[1; 60]).pieces(32);
    let mut t = Testbed::nat(Tcp, VIP, &[RS]);
    for order in ORDERS {
        let sent = |_: &Testbed, n: usize, _| pieces(C, RS)[n].clone().hop();
        in_order(&mut t, 0, RS, order, &pieces(C, VIP), sent);
    }
    assert_eq!(t.page.servers[0].conns.get(), 1);
}

/// Two datagrams with one id differ by protocol or by sender.
#[test]
fn datagrams_are_told_apart() {
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    let one = udp(C, VIP, &[1; 60]).pieces(40);
    let other = udp("192.0.2.10:2", VIP, &[2; 60]).id(7).pieces(40);
    let (to_one, to_other) = (
        udp(C, RS, &[1; 60]).pieces(40),
        udp("192.0.2.10:2", RS, &[2; 60]).id(7).pieces(40),
    );
    t.check(0, one[0].clone(), on(to_one[0].clone()));
    t.check(0, other[0].clone(), on(to_other[0].clone()));
    t.check(0, one[1].clone(), on(to_one[1].clone()));
    t.check(0, other[1].clone(), on(to_other[1].clone()));
}

#[test]
pub(super) fn overlaps_duplicates_and_tiny_ones() {
    let came = udp(C, VIP, &[1; 100]).pieces(40);
    let sent = udp(C, RS, &[1; 100]).pieces(40);
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    t.check(0, came[0].clone(), on(sent[0].clone()));
    t.check(1, came[0].clone(), Drop(DropReason::FragmentOverlap));
    t.check(2, came[1].clone(), on(sent[1].clone()));
    t.check(3, came[1].clone(), Drop(DropReason::FragmentOverlap));
    let over = came[1].clone().fragment(8 | MORE_FRAGMENTS);
    t.check(4, over, Drop(DropReason::FragmentOverlap));
    t.check(5, came[2].clone(), Drop(DropReason::FragmentOverlap));
    let tiny = udp(C, VIP, b"12345678").id(2).pieces(8).remove(0);
    let mut short = tiny.clone();
    short.payload = super::super::frames::Payload::Other(6, vec![0; 8]);
    t.check(6, short, Drop(DropReason::FragmentTiny));
    // One that waits goes with those that it overlaps.
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    t.check(0, came[1].clone(), Wait);
    let over = came[1].clone().fragment(6 | MORE_FRAGMENTS);
    t.check(1, over, DropWith(DropReason::FragmentOverlap, 1));
}

#[test]
pub(super) fn a_first_one_that_does_not_come() {
    let pieces = udp(C, VIP, &[1; 100]).pieces(40);
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    t.check(0, pieces[1].clone(), Wait);
    t.check(1, pieces[2].clone(), Wait);
    assert_eq!(t.wait(1, 900), []);
    assert_eq!(t.page.held.get(), 2);
    t.wait(900, 1_100);
    let drops =
        |t: &Testbed| t.page.port(CLIENTS).drops[DropReason::FragmentTimeout as usize].get();
    assert_eq!((t.page.held.get(), drops(&t)), (0, 2));
    // It comes late: it goes, and those behind it that come again.
    t.check(
        1_200,
        pieces[0].clone(),
        on(udp(C, RS, &[1; 100]).pieces(40)[0].clone()),
    );
    t.check(
        1_201,
        pieces[1].clone(),
        on(udp(C, RS, &[1; 100]).pieces(40)[1].clone()),
    );
}

#[test]
fn those_that_wait_are_given_back_at_the_end() {
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    t.check(0, udp(C, VIP, &[1; 100]).pieces(40)[1].clone(), Wait);
    t.director.stop(&mut t.out);
    t.settle();
    assert_eq!(t.page.held.get(), 0);
}

#[test]
pub(super) fn too_many_wait() {
    let mut t = bed(ForwardMode::Nat, VIP, RS);
    let pieces = udp(C, VIP, &[1; 200]).pieces(16);
    for piece in &pieces[1..9] {
        t.check(0, piece.clone(), Wait);
    }
    t.check(0, pieces[9].clone(), Drop(DropReason::FragmentsFull));
}

#[test]
fn the_rest_shares_the_first_ones_fate() {
    let pieces = udp(C, VIP, &[1; 100]).pieces(40);
    let mut t = Testbed::nat(Udp, VIP, &[]);
    let told = error(VIP_IP, 3, 3, 0, &pieces[0]);
    t.check(1, pieces[0].clone(), Refuse(DropReason::NoServer, told));
    t.check(2, pieces[1].clone(), DropWith(DropReason::NoServer, 0));
    t.check(3, pieces[2].clone(), DropWith(DropReason::NoServer, 0));
    let again: Vec<_> = pieces.into_iter().map(|piece| piece.id(9)).collect();
    t.check(4, again[1].clone(), Wait);
    let told = error(VIP_IP, 3, 3, 0, &again[0]);
    t.check(
        5,
        again[0].clone(),
        RefuseWith(DropReason::NoServer, 1, told),
    );
    t.check(6, again[2].clone(), DropWith(DropReason::NoServer, 0));
}

/// A network that makes no packets.
struct Poor<'w>(&'w mut Wire);

impl Egress for Poor<'_> {
    type Buf = HeapBuf;

    fn send(&mut self, to: PortId, packet: HeapBuf, origin: Origin) {
        self.0.send(to, packet, origin);
    }
    fn make(&mut self, _: usize) -> Option<HeapBuf> {
        None
    }
    fn share(&mut self, _: Learned) {}
    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: HeapBuf) {}
    fn watch(&mut self) -> &mut Watch {
        self.0.watch()
    }
}

#[test]
pub(super) fn no_buffers_to_cut_into() {
    let mut small = setup(true);
    small.interfaces[1].mtu = 1000;
    let mut t = Testbed::new(10, small);
    t.add_service(0, Udp, VIP);
    t.apply(add_server(0, 0, RS, 1));
    let mut poor = Poor(&mut t.out);
    let (port, frame) = arriving(&udp(C, VIP, &[1; 1200]));
    let mut burst = Burst::from_iter([HeapBuf::new(&frame.bytes())]);
    t.director.process(Instant(0), port, &mut burst, &mut poor);
    t.settle();
    assert_eq!(t.out.sent.len(), 0);
    let drops = &t.page.port(port).drops;
    assert_eq!(drops[DropReason::NoBuffer as usize].get(), 1);
    let sent = udp(C, RS, &[1; 1200]).hop().pieces(976);
    t.check(1, udp(C, VIP, &[1; 1200]), To(RS, sent));
}

//! Scenarios: what comes in, what goes out, what was counted.

mod adopt;
mod nd;

use std::net::Ipv4Addr;
use std::sync::Arc;

use control::Word as _;
use proptest::prelude::*;

use super::*;
use crate::conn::Hash;
use crate::packet::{Exit, HeapBuf, Learned};
use crate::watch::Watch;
use crate::wire::ethernet::{ARP, BROADCAST, IPV4};
use DropReason::{BadArp, HeldFull, NeighbourFailed, NoRoute, Stopped, Truncated, UnknownVlan};

const LAN: PortId = PortId(0);
const TRUNK: PortId = PortId(1);
const OUR_LAN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OUR_VLAN: [u8; 6] = [2, 0, 0, 0, 0, 2];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];
const MOVED: [u8; 6] = [2, 0, 0, 0, 0, 0x19];
const PINNED: [u8; 6] = [2, 0, 0, 0, 0, 0x50];
const ZERO: [u8; 6] = [0; 6];
const VIP: [u8; 4] = [10, 0, 0, 100];
const US: [u8; 4] = [10, 0, 0, 1];
const US_VLAN: [u8; 4] = [192, 168, 1, 1];
const HOST: [u8; 4] = [10, 0, 0, 9];

fn prefix(address: [u8; 4], length: u8) -> Prefix {
    Prefix {
        address: address.into(),
        length,
    }
}

fn setup() -> Setup {
    let lan = Interface {
        port: LAN,
        vlan: None,
        mac: OUR_LAN,
        mtu: 1500,
        partial_checksums: false,
        addresses: vec![prefix(US, 24)],
        kernel: None,
    };
    let vlan = Interface {
        port: TRUNK,
        vlan: Some(100),
        mac: OUR_VLAN,
        mtu: 9000,
        partial_checksums: false,
        addresses: vec![prefix(US_VLAN, 24)],
        kernel: None,
    };
    Setup {
        interfaces: vec![lan, vlan],
        routes: vec![
            Route {
                to: prefix([0, 0, 0, 0], 0),
                via: [10, 0, 0, 254].into(),
            },
            Route {
                to: prefix([172, 16, 0, 0], 12),
                via: [192, 168, 1, 254].into(),
            },
            Route {
                to: prefix([10, 0, 0, 0], 24),
                via: [192, 168, 1, 254].into(),
            }, // ours is nearer
            Route {
                to: prefix([198, 51, 100, 0], 24),
                via: [203, 0, 113, 1].into(),
            }, // unreachable
        ],
        neighbours: vec![StaticNeighbour {
            address: [10, 0, 0, 50].into(),
            mac: PINNED,
        }],
    }
}

#[derive(Debug)]
struct Out {
    watch: Watch,
    sent: Vec<(PortId, Vec<u8>, bool)>,
    shared: Vec<Learned>,
    buffers: bool,
}

impl Egress for Out {
    type Buf = HeapBuf;

    fn send(&mut self, to: PortId, packet: HeapBuf, origin: Origin) {
        self.watch.page().sent(to, packet.bytes().len(), origin);
        self.sent
            .push((to, packet.bytes().to_vec(), origin.exit == Exit::Answered));
    }

    fn make(&mut self, len: usize) -> Option<HeapBuf> {
        self.buffers.then(|| HeapBuf::new(&vec![0; len]))
    }

    fn share(&mut self, learned: Learned) {
        self.shared.push(learned);
    }

    fn steer(&mut self, _: usize, _: PortId, _: Option<Hash>, _: HeapBuf) {
        unreachable!("one worker");
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }
}

struct Bed {
    net: Net<HeapBuf>,
    out: Out,
    page: Arc<Page>,
}

impl Bed {
    fn new() -> Self {
        let page = Arc::new(Page::new(1, 1).unwrap());
        let out = Out {
            watch: Watch::new(page.clone()),
            sent: vec![],
            shared: vec![],
            buffers: true,
        };
        Self {
            net: Net::new(setup()),
            out,
            page,
        }
    }

    /// What left since the last call.
    fn sent(&mut self) -> Vec<(PortId, Vec<u8>, bool)> {
        assert!(self.page.balanced(), "{:?}", self.page);
        std::mem::take(&mut self.out.sent)
    }

    fn shared(&mut self) -> Vec<Learned> {
        std::mem::take(&mut self.out.shared)
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.page
            .ports
            .iter()
            .map(|port| port.drops[reason as usize].get())
            .sum()
    }

    fn receive(&mut self, ms: u32, port: PortId, vlan: Option<u16>, frame: &[u8], l3: usize) {
        self.page.port(port).rx.add(1);
        let (now, packet) = (Instant(ms), HeapBuf::new(frame));
        let is_vip = |a: IpAddr| a == IpAddr::from(VIP);
        let (out, page) = (&mut self.out, &self.page);
        let left = (self.net).receive_arp(now, port, vlan, packet, l3, is_vip, out, page);
        self.settle(port, left);
        assert!(self.page.balanced(), "{:?}", self.page);
    }

    /// Ends what was not answered, as a director does that has no kernel beside it.
    fn settle(&mut self, port: PortId, left: Option<Left<HeapBuf>>) {
        match left {
            None => {}
            Some((packet, Ok(()))) => self.out.watch.consumed(port, &packet),
            Some((packet, Err(reason))) => self.out.watch.discard(port, reason, packet),
        }
    }

    /// An ARP message from the LAN: operation, sender, target.
    fn arp(&mut self, ms: u32, op: u8, sender: ([u8; 6], [u8; 4]), target: [u8; 4]) {
        let frame = arp_frame(BROADCAST, sender.0, None, op, sender, (ZERO, target));
        self.receive(ms, LAN, None, &frame, 14);
    }

    /// A packet of one payload byte, received on the trunk, to `to`.
    fn forward(&mut self, ms: u32, to: [u8; 4], mark: u8) -> HopId {
        let id = self.net.hop_to(Instant(ms), to.into()).unwrap();
        self.hold(ms, id, mark);
        id
    }

    fn hold(&mut self, ms: u32, id: HopId, mark: u8) {
        let mut frame = vec![0xee; 18];
        frame.push(mark);
        self.page.port(TRUNK).rx.add(1);
        let (packet, origin) = (HeapBuf::new(&frame), Origin::forwarded(TRUNK));
        self.net.hold(
            Instant(ms),
            id,
            packet,
            18,
            origin,
            &mut self.out,
            &self.page,
        );
        assert!(self.page.balanced(), "{:?}", self.page);
    }

    fn tick(&mut self, ms: u32) {
        self.net.tick(Instant(ms), &mut self.out, &self.page);
    }

    fn state(&self, address: [u8; 4]) -> Option<&'static str> {
        let all = self.net.neighbours();
        all.iter()
            .find(|n| n.address == IpAddr::from(address))
            .map(|n| n.state.word())
    }
}

/// Written out by hand: the code under test has its own way.
fn arp_frame(
    dst: [u8; 6],
    src: [u8; 6],
    vlan: Option<u8>,
    op: u8,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
) -> Vec<u8> {
    let mut frame = [dst, src].concat();
    if let Some(vlan) = vlan {
        frame.extend([0x81, 0, 0, vlan]);
    }
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
    frame.extend([&sender.0[..], &sender.1, &target.0, &target.1].concat());
    frame.resize(60, 0);
    frame
}

fn request_for(address: [u8; 4]) -> (PortId, Vec<u8>, bool) {
    (
        LAN,
        arp_frame(BROADCAST, OUR_LAN, None, 1, (OUR_LAN, US), (ZERO, address)),
        true,
    )
}

fn data(dst: [u8; 6], mark: u8) -> (PortId, Vec<u8>, bool) {
    let mut frame = [dst, OUR_LAN].concat();
    frame.extend([8, 0, mark]);
    (LAN, frame, false)
}

#[test]
fn a_hop_is_half_a_cache_line() {
    assert_eq!(size_of::<Hop>(), 32);
}

#[test]
fn interfaces_and_addresses() {
    let net = Bed::new().net;
    assert_eq!(net.interface(LAN, None).unwrap().mac, OUR_LAN);
    assert_eq!(net.interface(TRUNK, Some(100)).unwrap().mac, OUR_VLAN);
    assert_eq!(net.interface(LAN, Some(100)), None);
    assert_eq!(net.interface(TRUNK, None), None);
    assert_eq!(net.interface(PortId(255), None), None);
    assert!(net.is_mine(US.into()) && net.is_mine(US_VLAN.into()) && !net.is_mine(HOST.into()));
    assert!(
        net.is_broadcast([10, 0, 0, 255].into()) && net.is_broadcast(Ipv4Addr::BROADCAST.into())
    );
    assert!(!net.is_broadcast(HOST.into()));
}

#[test]
fn hops_follow_the_longest_prefix() {
    let mut net = Bed::new().net;
    let mut hop = |to: [u8; 4]| net.hop_to(Instant(0), to.into());
    let direct = hop(HOST).unwrap();
    assert_eq!(hop(HOST), Ok(direct));
    let gateway = hop([8, 8, 8, 8]).unwrap();
    assert_eq!(
        hop([10, 0, 0, 254]),
        Ok(gateway),
        "the gateway is a neighbour like others"
    );
    assert_eq!(
        hop([198, 51, 100, 1]),
        Ok(gateway),
        "a route over nothing was left out"
    );
    let other = hop([172, 31, 0, 1]).unwrap();
    assert_ne!(other, gateway);
    for nowhere in [
        [127, 0, 0, 1],
        [0, 0, 0, 0],
        [224, 0, 0, 1],
        [10, 0, 0, 255],
        US,
        [255; 4],
    ] {
        assert_eq!(hop(nowhere), Err(NoRoute), "{nowhere:?}");
    }
    assert_eq!(net.source_for(direct), IpAddr::from(US));
    assert_eq!(net.source_for(other), IpAddr::from(US_VLAN));
    assert_eq!(
        (
            net.hop(other).port,
            net.hop(other).mtu,
            net.hop(other).l2_len
        ),
        (TRUNK, 9000, 18)
    );
}

#[test]
fn addressing_grows_and_shrinks_the_frame() {
    let mut net = Bed::new().net;
    let plain = net.hop_to(Instant(0), HOST.into()).unwrap();
    let tagged = net.hop_to(Instant(0), [192, 168, 1, 9].into()).unwrap();
    for (hop, header) in [(plain, (None, 14)), (tagged, (Some(100), 18))] {
        for l3 in [14, 18, 22] {
            let mut frame = vec![0xa5; l3];
            frame.extend([0x45, 1, 2, 3]);
            let mut packet = HeapBuf::new(&frame);
            assert!(net.hop(hop).address(&mut packet, l3));
            let link = ethernet::Link::parse(packet.bytes()).unwrap();
            assert_eq!(
                (link.vlan, link.l3, link.ethertype),
                (header.0, header.1, IPV4)
            );
            assert_eq!(packet.bytes()[link.l3..], [0x45, 1, 2, 3]);
        }
    }
}

#[test]
fn resolve_hold_release_in_order() {
    let mut bed = Bed::new();
    let id = bed.forward(0, HOST, 1);
    assert_eq!(bed.sent(), [request_for(HOST)]);
    bed.forward(1, HOST, 2);
    assert_eq!(bed.sent(), [], "one request, however many packets wait");
    assert_eq!(
        (bed.page.held.get(), bed.state(HOST)),
        (2, Some("incomplete"))
    );

    bed.arp(5, 2, (PEER, HOST), US);
    assert_eq!(bed.sent(), [data(PEER, 1), data(PEER, 2)]);
    assert_eq!(
        (bed.page.held.get(), bed.state(HOST)),
        (0, Some("reachable"))
    );
    let learned = Learned {
        port: LAN,
        vlan: None,
        address: HOST.into(),
        mac: PEER,
        solicited: true,
        overrides: true,
    };
    assert_eq!(bed.shared(), [learned]);
    assert!(bed.net.hop(id).ready);
    bed.forward(6, HOST, 3);
    assert_eq!(bed.sent(), [data(PEER, 3)], "holding for a ready hop sends");
    assert_eq!(bed.net.generation(), 0);
}

#[test]
fn retries_then_fails_then_tries_again() {
    let mut bed = Bed::new();
    let id = bed.forward(0, HOST, 1);
    let mut requests = bed.sent().len();
    for ms in (10..=2990).step_by(10) {
        bed.tick(ms);
        let sent = bed.sent();
        assert!(
            sent.is_empty() || ms % 1000 == 0 && sent == [request_for(HOST)],
            "{ms}"
        );
        requests += sent.len();
    }
    assert_eq!((requests, bed.page.held.get()), (3, 1));
    bed.tick(3000);
    assert_eq!(
        (bed.state(HOST), bed.drops(NeighbourFailed)),
        (Some("failed"), 1)
    );
    bed.forward(5999, HOST, 2);
    assert_eq!(
        (bed.sent(), bed.drops(NeighbourFailed)),
        (vec![], 2),
        "failed neighbours block"
    );
    bed.forward(6000, HOST, 3);
    assert_eq!(bed.sent(), [request_for(HOST)]);
    bed.arp(6001, 2, (PEER, HOST), US);
    assert_eq!(bed.sent(), [data(PEER, 3)]);
    assert_eq!(bed.net.hop_to(Instant(6002), HOST.into()), Ok(id));
}

#[test]
fn a_failed_neighbour_that_nobody_wants_is_forgotten() {
    let mut bed = Bed::new();
    let id = bed.forward(0, HOST, 1);
    for ms in (0..8990).step_by(10) {
        bed.tick(ms);
    }
    assert_eq!((bed.state(HOST), bed.net.generation()), (Some("failed"), 0));
    bed.tick(9000);
    assert_eq!((bed.state(HOST), bed.net.generation()), (None, 1));
    bed.hold(9001, id, 2);
    assert_eq!(bed.drops(NeighbourFailed), 2, "an outdated id harms nobody");
    assert_eq!(
        bed.net.hop_to(Instant(9002), HOST.into()),
        Ok(id),
        "and is used anew"
    );
}

#[test]
fn an_unused_neighbour_expires() {
    let mut bed = Bed::new();
    let id = bed.net.hop_to(Instant(0), HOST.into()).unwrap();
    bed.arp(0, 1, (PEER, HOST), US);
    bed.sent();
    for ms in [30_000, 59_990] {
        bed.tick(ms);
        assert_eq!((bed.state(HOST), bed.sent()), (Some("reachable"), vec![]));
    }
    bed.tick(60_000);
    assert_eq!((bed.state(HOST), bed.net.generation()), (None, 1));
    assert!(!bed.net.hop(id).ready);
}

#[test]
fn a_used_neighbour_is_probed() {
    let mut bed = Bed::new();
    let id = bed.forward(0, HOST, 1);
    bed.arp(0, 2, (PEER, HOST), US);
    bed.sent();
    bed.net.hop_mut(id).used = true;
    bed.tick(29_990);
    assert_eq!(bed.sent(), []);
    bed.tick(30_000);
    let probe = (
        LAN,
        arp_frame(PEER, OUR_LAN, None, 1, (OUR_LAN, US), (ZERO, HOST)),
        true,
    );
    assert_eq!(bed.sent(), std::slice::from_ref(&probe));
    assert!(bed.net.hop(id).ready, "traffic goes on while probing");
    bed.arp(30_001, 2, (PEER, HOST), US);
    assert_eq!(bed.state(HOST), Some("reachable"));
    bed.shared();
    assert!(!bed.net.hop(id).used, "since then");

    bed.net.hop_mut(id).used = true;
    for ms in [60_001, 61_001, 62_001] {
        bed.tick(ms);
        assert_eq!(bed.sent(), std::slice::from_ref(&probe), "{ms}");
    }
    bed.tick(63_001);
    assert_eq!(
        bed.sent(),
        [request_for(HOST)],
        "silent: it may have moved, so all are asked"
    );
    assert!(!bed.net.hop(id).ready);
    bed.forward(63_002, HOST, 2);
    bed.arp(63_003, 2, (MOVED, HOST), US);
    assert_eq!(bed.sent(), [data(MOVED, 2)]);
    assert_eq!(bed.shared()[0].mac, MOVED);
}

#[test]
fn answers_for_addresses_and_vips() {
    let mut bed = Bed::new();
    for target in [US, VIP, US_VLAN] {
        bed.arp(0, 1, (PEER, HOST), target);
        let answer = arp_frame(PEER, OUR_LAN, None, 2, (OUR_LAN, target), (PEER, HOST));
        assert_eq!(bed.sent(), [(LAN, answer, true)]);
    }
    assert_eq!(
        bed.state(HOST),
        Some("reachable"),
        "who asks for us is learned"
    );
    assert_eq!(bed.shared().len(), 1);
    bed.arp(1, 1, (PEER, HOST), [10, 0, 0, 77]);
    bed.arp(1, 2, (PEER, HOST), US);
    assert_eq!(bed.sent(), []);
    assert_eq!(bed.page.port(LAN).consumed.get(), 2);
    assert_eq!((bed.page.port(LAN).answered.get(), bed.page.made()), (3, 0));
    assert_eq!(
        bed.shared().len(),
        1,
        "an answer is shared: another worker may have asked"
    );
}

#[test]
fn an_address_probe_is_answered_and_not_learned() {
    let mut bed = Bed::new();
    bed.arp(0, 1, (PEER, [0; 4]), US);
    let answer = arp_frame(PEER, OUR_LAN, None, 2, (OUR_LAN, US), (PEER, [0; 4]));
    assert_eq!(bed.sent(), [(LAN, answer, true)]);
    assert_eq!((bed.net.neighbours().len(), bed.shared()), (1, vec![]));
}

#[test]
fn vlan_in_and_out() {
    let mut bed = Bed::new();
    let (peer, host) = (PEER, [192, 168, 1, 9]);
    let asked = arp_frame(BROADCAST, peer, Some(100), 1, (peer, host), (ZERO, US_VLAN));
    bed.receive(0, TRUNK, Some(100), &asked, 18);
    let answer = arp_frame(
        peer,
        OUR_VLAN,
        Some(100),
        2,
        (OUR_VLAN, US_VLAN),
        (peer, host),
    );
    assert_eq!(bed.sent(), [(TRUNK, answer, true)]);
    bed.receive(0, TRUNK, Some(101), &asked, 18);
    bed.receive(0, TRUNK, None, &asked, 18);
    assert_eq!((bed.drops(UnknownVlan), bed.sent()), (2, vec![]));

    bed.forward(0, host, 7);
    let mut tagged = [peer, OUR_VLAN].concat();
    tagged.extend([0x81, 0, 0, 100, 8, 0, 7]);
    assert_eq!(bed.sent(), [(TRUNK, tagged, false)]);

    bed.forward(0, [172, 16, 0, 1], 8);
    let request = arp_frame(
        BROADCAST,
        OUR_VLAN,
        Some(100),
        1,
        (OUR_VLAN, US_VLAN),
        (ZERO, [192, 168, 1, 254]),
    );
    assert_eq!(bed.sent(), [(TRUNK, request, true)]);
}

#[test]
fn a_priority_tag_is_taken_off_the_answer() {
    let mut bed = Bed::new();
    let frame = arp_frame(BROADCAST, PEER, Some(0), 1, (PEER, HOST), (ZERO, US));
    bed.receive(0, LAN, None, &frame, 18);
    let answer = arp_frame(PEER, OUR_LAN, None, 2, (OUR_LAN, US), (PEER, HOST));
    assert_eq!(bed.sent(), [(LAN, answer, true)]);
}

#[test]
fn announcements() {
    let mut bed = Bed::new();
    bed.net.announce(VIP.into(), &mut bed.out, &bed.page);
    let on_lan = arp_frame(BROADCAST, OUR_LAN, None, 1, (OUR_LAN, VIP), (ZERO, VIP));
    assert_eq!(bed.sent(), [(LAN, on_lan, true)]);

    let far = [203, 0, 113, 80];
    bed.net.announce(far.into(), &mut bed.out, &bed.page);
    let on_lan = arp_frame(BROADCAST, OUR_LAN, None, 1, (OUR_LAN, far), (ZERO, far));
    let on_vlan = arp_frame(
        BROADCAST,
        OUR_VLAN,
        Some(100),
        1,
        (OUR_VLAN, far),
        (ZERO, far),
    );
    assert_eq!(bed.sent(), [(LAN, on_lan, true), (TRUNK, on_vlan, true)]);
    assert_eq!(
        (bed.page.made(), bed.page.port(TRUNK).answered.get()),
        (3, 1)
    );
}

#[test]
fn a_gratuitous_arp_moves_a_known_neighbour_only() {
    let mut bed = Bed::new();
    bed.arp(0, 1, (PEER, HOST), HOST);
    assert_eq!(bed.state(HOST), None);
    assert_eq!(bed.shared().len(), 1, "another worker may know it");
    let id = bed.forward(0, HOST, 1);
    bed.arp(1, 1, (PEER, HOST), HOST);
    bed.arp(2, 1, (PEER, HOST), HOST);
    assert_eq!(bed.shared().len(), 1, "the second is no news");
    bed.arp(3, 2, (MOVED, HOST), HOST);
    assert_eq!(bed.net.hop(id).l2[..6], MOVED);
    assert_eq!(bed.shared()[0].mac, MOVED);
}

#[test]
fn what_another_worker_learned() {
    let mut bed = Bed::new();
    let learned = Learned {
        port: LAN,
        vlan: None,
        address: HOST.into(),
        mac: PEER,
        solicited: true,
        overrides: true,
    };
    bed.net
        .learned(Instant(0), &learned, &mut bed.out, &bed.page);
    assert_eq!(bed.state(HOST), None);
    bed.forward(0, HOST, 1);
    bed.sent();
    let elsewhere = Learned {
        vlan: Some(5),
        ..learned
    };
    bed.net
        .learned(Instant(1), &elsewhere, &mut bed.out, &bed.page);
    assert_eq!(bed.sent(), []);
    bed.net
        .learned(Instant(1), &learned, &mut bed.out, &bed.page);
    assert_eq!(bed.sent(), [data(PEER, 1)]);
    assert_eq!(bed.shared(), [], "or workers would tell each other forever");
}

#[test]
fn a_static_neighbour_stays() {
    let mut bed = Bed::new();
    let address = [10, 0, 0, 50];
    let id = bed.forward(0, address, 1);
    assert_eq!(bed.sent(), [data(PINNED, 1)]);
    bed.arp(1, 1, (PEER, address), US);
    bed.arp(1, 2, (PEER, address), US);
    for ms in (0..200_000).step_by(1000) {
        bed.tick(ms);
    }
    assert_eq!(
        (bed.state(address), bed.net.generation()),
        (Some("static"), 0)
    );
    assert_eq!(bed.net.hop(id).l2[..6], PINNED);
}

#[test]
fn false_messages_are_dropped() {
    let mut bed = Bed::new();
    let good = arp_frame(BROADCAST, PEER, None, 1, (PEER, HOST), (ZERO, US));
    let mut bad = 0;
    let mut check = |bed: &mut Bed, at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        bed.receive(0, LAN, None, &frame, 14);
        bad += 1;
        assert_eq!(
            (bed.drops(BadArp), bed.sent()),
            (bad, vec![]),
            "{bytes:?} at {at}"
        );
    };
    check(&mut bed, 14, &[0, 6]); // hardware
    check(&mut bed, 16, &[0x86, 0xdd]); // protocol
    check(&mut bed, 18, &[8]);
    check(&mut bed, 19, &[16]);
    check(&mut bed, 20, &[0, 3]); // operation
    check(&mut bed, 20, &[1, 1]);
    check(&mut bed, 22, &ZERO); // sender's Ethernet address
    check(&mut bed, 22, &[1, 0, 0x5e, 0, 0, 1]);
    check(&mut bed, 22, &BROADCAST);
    for sender in [
        US,
        US_VLAN,
        VIP,
        [127, 0, 0, 1],
        [224, 0, 0, 5],
        [255; 4],
        [10, 0, 0, 255],
    ] {
        check(&mut bed, 28, &sender);
    }
    let mut reply_of_nobody = good.clone();
    reply_of_nobody[21] = 2;
    reply_of_nobody[28..32].fill(0);
    bed.receive(0, LAN, None, &reply_of_nobody, 14);
    assert_eq!(bed.drops(BadArp), bad + 1);
    bed.receive(0, LAN, None, &good[..41], 14);
    bed.receive(0, LAN, None, &good[..10], 14);
    assert_eq!((bed.drops(Truncated), bed.net.neighbours().len()), (2, 1));
    bed.receive(0, LAN, None, &good[..42], 14);
    assert_eq!(bed.sent().len(), 1, "unpadded is fine");
}

#[test]
fn a_sender_of_another_subnet_is_answered_and_not_learned() {
    let mut bed = Bed::new();
    bed.arp(0, 1, (PEER, [192, 0, 2, 7]), US);
    assert_eq!((bed.sent().len(), bed.net.neighbours().len()), (1, 1));
}

#[test]
fn waiting_is_bounded() {
    let mut bed = Bed::new();
    for mark in 0..=HELD_PER_NEIGHBOUR {
        bed.forward(0, HOST, mark);
    }
    assert_eq!(
        (bed.page.held.get(), bed.drops(HeldFull)),
        (HELD_PER_NEIGHBOUR.into(), 1)
    );
    for host in 10..50 {
        for mark in 0..HELD_PER_NEIGHBOUR {
            bed.forward(0, [10, 0, 0, host], mark);
        }
    }
    assert_eq!(bed.page.held.get() as usize, HELD_MAX);
    bed.sent();
    bed.net.stop(&mut bed.out, &bed.page);
    assert_eq!(
        (bed.page.held.get(), bed.drops(Stopped)),
        (0, HELD_MAX as u64)
    );
    assert_eq!(bed.sent(), []);
}

#[test]
fn without_buffers_the_request_follows_later() {
    let mut bed = Bed::new();
    bed.out.buffers = false;
    bed.forward(0, HOST, 1);
    bed.net.announce(VIP.into(), &mut bed.out, &bed.page);
    assert_eq!((bed.sent(), bed.page.made()), (vec![], 0));
    bed.out.buffers = true;
    bed.tick(1000);
    assert_eq!(bed.sent(), [request_for(HOST)]);
}

#[test]
fn the_table_is_bounded_and_empties() {
    let mut setup = setup();
    setup.interfaces[0].addresses = vec![prefix([10, 0, 0, 1], 8)];
    let mut bed = Bed::new();
    bed.net = Net::new(setup);
    let full = |bed: &mut Bed, ms| {
        let hosts = (0..).map(|i: u32| Ipv4Addr::from_bits(0x0a01_0000 + i));
        hosts
            .map(|to| bed.net.hop_to(Instant(ms), to.into()))
            .take_while(Result::is_ok)
            .count()
    };
    assert_eq!(full(&mut bed, 0), NEIGHBOURS_MAX - 1); // one is static
    let to = [10, 200, 0, 1].into();
    assert_eq!(bed.net.hop_to(Instant(0), to), Err(NeighbourFailed));
    bed.arp(0, 1, (PEER, HOST), US);
    assert_eq!(bed.out.sent.len(), 1, "answered, if not learned");
    for ms in (0..150_000).step_by(10) {
        bed.tick(ms);
        bed.sent();
    }
    assert_eq!(bed.net.neighbours().len(), 1);
    assert_eq!(full(&mut bed, 150_000), NEIGHBOURS_MAX - 1);
}

#[derive(Debug, Clone)]
enum Step {
    Forward(u8),
    Use(u8),
    Arp(u8, u8, u8, u8),
    Learned(u8, u8),
    Wait(u32),
    Buffers(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Forward),
        1 => any::<u8>().prop_map(Step::Use),
        4 => (1u8..=2, 0u8..4, any::<u8>(), any::<u8>()).prop_map(|(o, m, s, t)| Step::Arp(o, m, s, t)),
        1 => (0u8..4, any::<u8>()).prop_map(|(m, s)| Step::Learned(m, s)),
        3 => (0u32..4000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Buffers),
    ]
}

proptest! {
    /// Whatever happens, every packet is accounted for, and what leaves has a neighbour's address.
    #[test]
    fn books_always_balance(start: u32, steps in proptest::collection::vec(step(), 1..300)) {
        let mut bed = Bed::new();
        let mut ms = start;
        for step in steps {
            match step {
                Step::Forward(host) => {
                    if let Ok(id) = bed.net.hop_to(Instant(ms), [10, 0, 0, host & 0x8f].into()) {
                        bed.hold(ms, id, host);
                    }
                }
                Step::Use(host) => {
                    if let Ok(id) = bed.net.hop_to(Instant(ms), [10, 0, 0, host & 0x8f].into()) {
                        bed.net.hop_mut(id).used = true;
                    }
                }
                Step::Arp(op, mac, sender, target) => {
                    let sender = ([mac, 0, 0, 0, 0, 8], [10, 0, 0, sender & 0x8f]);
                    bed.arp(ms, op, sender, [10, 0, 0, target & 0x0f]);
                }
                Step::Learned(mac, host) => {
                    let address = [10, 0, 0, host & 0x8f].into();
                    let mac = [mac & 2, 0, 0, 0, 0, 8];
                    let (solicited, overrides) = (host & 1 == 0, host & 2 == 0);
                    let learned = Learned { port: LAN, vlan: None, address, mac, solicited, overrides };
                    bed.net.learned(Instant(ms), &learned, &mut bed.out, &bed.page);
                }
                Step::Wait(more) => ms = ms.wrapping_add(more),
                Step::Buffers(buffers) => bed.out.buffers = buffers,
            }
            bed.tick(ms);
            prop_assert!(bed.page.held.get() as usize <= HELD_MAX);
            for (_, frame, answer) in bed.sent() {
                let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
                prop_assert_eq!(ethertype, if answer { ARP } else { IPV4 });
                prop_assert!(answer || [8, 0x50].contains(&frame[5]));
            }
        }
        bed.net.stop(&mut bed.out, &bed.page);
        prop_assert_eq!(bed.page.held.get(), 0);
        prop_assert!(bed.page.balanced());
    }

    #[test]
    fn random_messages_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..80), l3 in 14usize..30) {
        let mut bed = Bed::new();
        bed.receive(0, LAN, None, &frame, l3);
    }

    #[test]
    fn damaged_messages_never_panic(at in 0usize..60, byte: u8, len in 0usize..=60) {
        let mut frame = arp_frame(BROADCAST, PEER, None, 1, (PEER, HOST), (ZERO, US));
        frame[at] = byte;
        Bed::new().receive(0, LAN, None, &frame[..len], 14);
    }
}

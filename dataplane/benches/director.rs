//! Parse, look up, rewrite, wrap, one at a time and as a whole burst: what `scripts/bench` adds up.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use control::{ForwardMode, Protocol, ServiceKey, Thresholds, TunnelKind};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::conn::{Conns, Hit, Timeouts};
use dataplane::counters::Page;
use dataplane::director::{Director, translate, translate6};
use dataplane::net::{Interface, Prefix, Setup, StaticNeighbour};
use dataplane::packet::{Burst, HeapBuf, PacketBuf, PortId};
use dataplane::replay::Wire;
use dataplane::sched::{Kind, Member, Recipe, Table};
use dataplane::steer::Steer;
use dataplane::time::Instant;
use dataplane::tunnel::Tunnel;
use dataplane::update::{Policy, ServerId, ServiceId, Update};
use dataplane::wire::delta::Delta;
use dataplane::wire::flow::{Digest, Seen, TCP, Tuple, UDP, tcp_flags};

const BURST: usize = 32;

fn ends() -> [SocketAddr; 2] {
    [
        (Ipv4Addr::new(203, 0, 113, 1), 80).into(),
        (Ipv4Addr::new(10, 0, 0, 10), 8080).into(),
    ]
}

/// What client `number` sends, and what the server answers.
fn sides(number: u32) -> [Tuple; 2] {
    let [vip, server] = ends();
    let [a, b, c, d] = number.to_be_bytes();
    let port = 1024 + u16::from_be_bytes([a, b]);
    let client = (Ipv4Addr::new(198, 18, c, d), port).into();
    [(client, vip), (server, client)].map(|(from, to)| Tuple {
        protocol: TCP,
        from,
        to,
    })
}

fn frame_of(number: u32) -> [u8; 60] {
    frame(&sides(number)[0])
}

/// A 60-byte TCP frame; its checksums are not filled in, the fast path only updates them.
fn frame(tuple: &Tuple) -> [u8; 60] {
    let flow = tuple.flow(Digest::new([0, 0]));
    let mut frame = [0; 60];
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, TCP]);
    frame[26..34].copy_from_slice(&flow.addresses.to_ne_bytes());
    frame[34..38].copy_from_slice(&flow.ports.to_ne_bytes());
    frame[46..48].copy_from_slice(&[5 << 4, tcp_flags::ACK]);
    frame
}

fn parse(c: &mut Criterion) {
    let frames: Vec<_> = (0..32).map(frame_of).collect();
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("burst", |b| {
        b.iter(|| {
            for frame in &frames {
                black_box(Seen::parse(black_box(frame)).unwrap());
            }
        });
    });
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("look-up");
    group.throughput(Throughput::Elements(BURST as u64));
    for flows in [1_000, 1_000_000] {
        let mut conns = Conns::new(flows, [3, 5]).unwrap();
        for number in 0..flows {
            let (now, timeouts) = (Instant::default(), Timeouts::default());
            let [inbound, outbound] = sides(number);
            let sides = [&inbound, &outbound];
            conns
                .open(now, sides, ServerId(0), ForwardMode::Nat, &timeouts)
                .unwrap();
        }
        let mut random = 1u32;
        let mut burst = || {
            [(); BURST].map(|()| {
                random = random.wrapping_mul(747_796_405).wrapping_add(1);
                frame_of(random % flows)
            })
        };
        group.bench_function(format!("burst of {flows} flows"), |b| {
            b.iter_batched(
                &mut burst,
                |burst| look_up_burst(&conns, &burst),
                BatchSize::SmallInput,
            );
        });
    }
}

/// The three stages of `Director::process`.
fn look_up_burst(conns: &Conns, burst: &[[u8; 60]; BURST]) {
    let staged = burst.map(|frame| {
        let seen = Seen::parse(&frame).unwrap();
        let hash = conns.hash(&seen.flow);
        conns.prefetch(hash);
        (seen, hash)
    });
    let hits = staged.map(|(seen, hash)| (seen, conns.likely(hash)));
    for ((seen, hit), frame) in hits.into_iter().zip(burst) {
        black_box(conns.verify(hit, &seen, frame).then_some(hit));
    }
}

fn rewrite(c: &mut Criterion) {
    let mut frames: Vec<_> = (0..32).map(frame_of).collect();
    let seen: Vec<_> = frames
        .iter()
        .map(|frame| Seen::parse(frame).unwrap())
        .collect();
    let to = sides(1)[1].reversed().flow(Digest::new([0, 0]));
    let deltas = (
        Delta::replace([1, 2, 3, 4], [5, 6, 7, 8]),
        Delta::replace([1, 2, 3, 4], [0, 80, 0, 99]),
    );
    let mut group = c.benchmark_group("rewrite");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("burst", |b| {
        b.iter(|| {
            for (frame, seen) in frames.iter_mut().zip(&seen) {
                frame[22] = 64;
                translate(black_box(frame), seen, black_box(&to), deltas);
            }
        });
    });
}

/// What client `number` sends over IPv6, and what the server answers.
fn sides6(number: u32) -> [Tuple; 2] {
    let address = |network: u16, low: u16| Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, low);
    let [a, b, c, d] = number.to_be_bytes();
    let port = 1024 + u16::from_be_bytes([a, b]);
    let client = (address(18, u16::from_be_bytes([c, d])), port).into();
    let ends = [(address(1, 1), 80), (address(2, 10), 8080)].map(SocketAddr::from);
    [(client, ends[0]), (ends[1], client)].map(|(from, to)| Tuple {
        protocol: TCP,
        from,
        to,
    })
}

fn frame6(number: u32) -> [u8; 80] {
    let tuple = &sides6(number)[0];
    let flow = tuple.flow(Digest::new([0, 0]));
    let mut frame = [0; 80];
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, TCP, 64]);
    frame[22..54].copy_from_slice(&tuple.addresses6().unwrap());
    frame[54..58].copy_from_slice(&flow.ports.to_ne_bytes());
    frame[66..68].copy_from_slice(&[5 << 4, tcp_flags::ACK]);
    frame
}

/// All that is done to a packet over IPv6 of one of 1 000 connections.
fn ipv6(c: &mut Criterion) {
    let flows = 1_000;
    let mut conns = Conns::new(flows, [3, 5]).unwrap();
    for number in 0..flows {
        let [inbound, outbound] = sides6(number);
        let (now, timeouts) = (Instant::default(), Timeouts::default());
        let sides = [&inbound, &outbound];
        conns
            .open(now, sides, ServerId(0), ForwardMode::Nat, &timeouts)
            .unwrap();
    }
    let frames: Vec<_> = (0..32).map(|n| frame6(n * 31)).collect();
    let mut group = c.benchmark_group("ipv6");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("look-up and rewrite of a burst", |b| {
        b.iter(|| {
            let staged: [_; BURST] = std::array::from_fn(|i| {
                let mut seen = Seen::parse(&frames[i]).unwrap();
                conns.digest(&mut seen, &frames[i]);
                let hash = conns.hash(&seen.flow);
                conns.prefetch(hash);
                (seen, hash)
            });
            let hits = staged.map(|(seen, hash)| (seen, conns.likely(hash)));
            for ((seen, hit), frame) in hits.into_iter().zip(&frames) {
                assert!(conns.verify(hit, &seen, frame));
                // Into a copy, because the next round looks the frame up again.
                let mut leaving = *frame;
                let conn = conns.get(hit);
                let (to, delta) = (conn.side(true).reversed(), conn.deltas(false).1);
                let other = conns.addresses6(Hit::new(hit.entry(), true));
                translate6(black_box(&mut leaving), &seen, other, &to, delta);
            }
        });
    });
}

fn encapsulate(c: &mut Criterion) {
    let ends = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 10)];
    let mut packets: Vec<_> = (0..32).map(|n| HeapBuf::new(&frame_of(n))).collect();
    let mut group = c.benchmark_group("encapsulate");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, kind) in [
        ("ipip", TunnelKind::Ipip),
        ("gre", TunnelKind::Gre),
        ("gue", TunnelKind::Gue),
    ] {
        let spec = control::Tunnel {
            kind,
            ..control::Tunnel::default()
        };
        let tunnel = Tunnel::new(spec, ends[0].into(), ends[1].into()).unwrap();
        group.bench_function(format!("burst, {name}"), |b| {
            b.iter(|| {
                for packet in &mut packets {
                    assert!(tunnel.encapsulate(black_box(packet), 14, 46, 1, true));
                    let [link @ .., _, _] = *packet.bytes().first_chunk::<16>().unwrap();
                    packet.trim_front(usize::from(tunnel.overhead()));
                    packet.bytes_mut()[..14].copy_from_slice(&link);
                }
            });
        });
    }
}

/// What the control side builds when a server of a thousand comes or goes.
fn tables(c: &mut Criterion) {
    let member = |n: u32| Member {
        id: ServerId(n),
        address: (Ipv4Addr::from_bits(0x0a01_0000 + n), 80).into(),
        weight: 1,
    };
    let mut group = c.benchmark_group("table");
    for (kind, mh_slots) in [
        (Kind::Mh, 4093),
        (Kind::Mh, 65_537),
        (Kind::Mh, 1_048_573),
        (Kind::Conhash, 4093),
    ] {
        let recipe = Recipe {
            kind,
            ipv6: false,
            mh_slots,
            members: (0..1000).map(member).collect(),
        };
        let name = match kind {
            Kind::Mh => format!("mh, {mh_slots} slots, 1000 servers"),
            _ => format!("{}, 1000 servers", kind.name()),
        };
        group.bench_function(name, |b| {
            b.iter(|| Table::build(black_box(recipe.clone())).unwrap());
        });
    }
}

/// Datagrams through a whole director with one NAT service: each scheduled by itself, and each of a
/// connection that it has.
fn one_packet(c: &mut Criterion) {
    let mut group = c.benchmark_group("datagrams");
    group.throughput(Throughput::Elements(BURST as u64));
    for (name, one_packet) in [("by themselves", true), ("of connections", false)] {
        let (mut director, mut wire) = with_one_service(one_packet);
        let frames: Vec<_> = (0..32).map(datagram).collect();
        group.bench_function(format!("burst, {name}"), |b| {
            b.iter_batched(
                || frames.iter().map(|frame| HeapBuf::new(frame)).collect(),
                |mut burst: Burst<_>| {
                    director.process(Instant::default(), PortId(0), &mut burst, &mut wire);
                    std::mem::take(&mut wire.sent)
                },
                BatchSize::SmallInput,
            );
        });
    }
}

/// As [`frame_of`], over UDP.
fn datagram(number: u32) -> [u8; 60] {
    let mut frame = frame_of(number);
    frame[23] = UDP;
    frame[38..40].copy_from_slice(&[0, 26]);
    frame
}

fn with_one_service(one_packet: bool) -> (Director<HeapBuf>, Wire) {
    let [vip, server] = ends();
    let (ip, mac) = (Ipv4Addr::new(10, 0, 0, 1).into(), [0; 6]);
    let setup = Setup {
        interfaces: vec![Interface {
            port: PortId(0),
            vlan: None,
            mac,
            mtu: 1500,
            kernel: None,
            partial_checksums: false,
            addresses: vec![Prefix {
                address: ip,
                length: 24,
            }],
        }],
        routes: Vec::new(),
        neighbours: vec![StaticNeighbour {
            address: server.ip(),
            mac,
        }],
    };
    let page = Arc::new(Page::new(1, 1).unwrap());
    let steer = Steer::new(0, 1);
    let mut director = Director::new(1 << 16, [3, 5], setup, steer, page.clone()).unwrap();
    let mut wire = Wire::new(page);
    let policy = Policy {
        one_packet,
        ..Policy::of(Kind::Rr)
    };
    let (id, key) = (ServiceId(0), ServiceKey::at(Protocol::Udp, vip));
    for update in [
        Update::AddService { id, key, policy },
        Update::AddServer {
            service: id,
            id: ServerId(0),
            address: server,
            mode: ForwardMode::Nat,
            tunnel: control::Tunnel::default(),
            weight: 1,
            thresholds: Thresholds::default(),
        },
    ] {
        director.apply(&update, &mut wire);
    }
    (director, wire)
}

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = parse, look_up, rewrite, ipv6, encapsulate, one_packet, tables
}
criterion_main!(stages);

//! Parse, look up, rewrite, wrap, one at a time and as a whole burst: what `scripts/bench` adds up. And
//! what finds a new connection's service.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use control::{ForwardMode, MarkRule, Ports, Prefix, Protocol, ServiceKey, TunnelKind};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::conn::{Conns, Hit, Timeouts};
use dataplane::director::{translate, translate6};
use dataplane::marks::{Marks, Rule};
use dataplane::packet::{HeapBuf, PacketBuf, PortId};
use dataplane::sched::Kind;
use dataplane::service::Services;
use dataplane::time::Instant;
use dataplane::tunnel::Tunnel;
use dataplane::update::{Policy, ServerId, ServiceId, Update};
use dataplane::wire::delta::Delta;
use dataplane::wire::flow::{Digest, Seen, TCP, Tuple, tcp_flags};

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
        black_box(hit.filter(|hit| conns.verify(*hit, &seen, frame)));
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
                let hit = hit.filter(|hit| conns.verify(*hit, &seen, frame)).unwrap();
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

/// Where service `number` is: at an address of its own, or at a port of its own of one address.
type Place = fn(u32) -> SocketAddr;

fn own_address(number: u32) -> SocketAddr {
    (Ipv4Addr::from_bits(0x0b00_0000 + number), 80).into()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are fewer services than ports"
)]
fn own_port(number: u32) -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, 1), 1024 + number as u16).into()
}

fn add(services: &mut Services, number: u32, key: ServiceKey) {
    services.apply(&Update::AddService {
        id: ServiceId(number),
        key,
        policy: Policy::of(Kind::Rr),
    });
}

fn by_address(count: u32, place: Place) -> Services {
    let mut services = Services::default();
    for number in 0..count {
        let key = ServiceKey::at(Protocol::Tcp, place(number));
        add(&mut services, number, key);
    }
    services
}

/// A rule for each service.
fn by_mark(count: u32, place: Place) -> Services {
    let mut services = Services::default();
    let rule = |number| Rule {
        said: MarkRule {
            destination: Some(Prefix::whole(place(number).ip())),
            protocol: Some(Protocol::Tcp),
            ports: Some(Ports::one(place(number).port())),
            ..MarkRule::new(number + 1)
        },
        from: None,
    };
    let marks = Marks::new((0..count).map(rule).collect());
    services.apply(&Update::SetMarks(Arc::new(marks)));
    for number in 0..count {
        let mark = NonZeroU32::new(number + 1).unwrap();
        add(
            &mut services,
            number,
            ServiceKey::Mark { mark, ipv6: false },
        );
    }
    services
}

/// Services by mark whose rules make so many shapes: one for each length of the sources' prefixes.
fn by_shapes(count: u8) -> Services {
    let mut services = Services::default();
    let rule = |length: u8| Rule {
        said: MarkRule {
            // No client is there.
            source: Some(format!("8.0.0.0/{length}").parse::<Prefix>().unwrap()),
            ..MarkRule::new(7)
        },
        from: None,
    };
    let last = Rule {
        said: MarkRule {
            destination: Some(Prefix::whole(IpAddr::from([203, 0, 113, 1]))),
            ..MarkRule::new(1)
        },
        from: None,
    };
    let rules = (5..5 + count - 1).map(rule).chain([last]).collect();
    services.apply(&Update::SetMarks(Arc::new(Marks::new(rules))));
    let mark = NonZeroU32::MIN;
    add(&mut services, 0, ServiceKey::Mark { mark, ipv6: false });
    services
}

/// The look-ups of 32 new connections to services at random.
fn services(c: &mut Criterion) {
    let mut group = c.benchmark_group("service");
    group.throughput(Throughput::Elements(BURST as u64));
    let mut look_up = |name: String, services: &Services, count: u32, place: Place| {
        let mut random = 1u32;
        let tuples: Vec<Tuple> = (0..4096)
            .map(|n| {
                random = random.wrapping_mul(747_796_405).wrapping_add(1);
                let to = place((random >> 8) % count);
                Tuple { to, ..sides(n)[0] }
            })
            .collect();
        let mut bursts = tuples.chunks_exact(BURST).cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                for tuple in bursts.next().unwrap() {
                    let mark = services.mark(black_box(tuple), PortId(0), None);
                    black_box(services.matching(tuple, mark).unwrap());
                }
            });
        });
    };
    let places: [(&str, Place); 2] = [
        ("addresses", own_address),
        ("ports of one address", own_port),
    ];
    for (what, place) in places {
        for count in [1, 100, 10_000] {
            let name = format!("burst among {count} {what}");
            look_up(name, &by_address(count, place), count, place);
        }
    }
    for (what, place) in places {
        for count in [1, 100, 4_000] {
            let name = format!("burst by mark among {count} {what}");
            look_up(name, &by_mark(count, place), count, place);
        }
    }
    for count in [4, 16] {
        let name = format!("burst by mark, {count} shapes of rules");
        look_up(name, &by_shapes(count), 1, own_port);
    }
}

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = parse, look_up, services, rewrite, ipv6, encapsulate
}
criterion_main!(stages);

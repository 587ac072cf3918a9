//! Parse, look up, rewrite, one at a time and as a whole burst: what `scripts/bench` adds up.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use control::ForwardMode;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::conn::{Conns, Timeouts};
use dataplane::director::translate;
use dataplane::time::Instant;
use dataplane::update::ServerId;
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
    let hits = staged.map(|(seen, hash)| (seen, conns.likely(hash, &seen.flow)));
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

criterion_group! {
    name = stages;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = parse, look_up, rewrite
}
criterion_main!(stages);

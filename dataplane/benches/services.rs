//! What finds a new connection's service.
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use control::{MarkRule, Ports, Prefix, Protocol, ServiceKey};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataplane::marks::{Marks, Rule};
use dataplane::packet::PortId;
use dataplane::sched::Kind;
use dataplane::service::Services;
use dataplane::update::{Policy, ServiceId, Update};
use dataplane::wire::flow::{TCP, Tuple};

const BURST: usize = 32;

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
                let client = Ipv4Addr::from_bits(0xc612_0000 + n);
                Tuple {
                    protocol: TCP,
                    from: (client, 40_000).into(),
                    to: place((random >> 8) % count),
                }
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
    name = look_up;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = services
}
criterion_main!(look_up);

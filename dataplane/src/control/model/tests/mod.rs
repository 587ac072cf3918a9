//! Refusals, the trash, counters across deletions.

mod drain; // servers without new connections, and slow start
mod health; // servers that are down, or stand by
mod marks; // rules that mark packets
mod methods; // forwarding methods, families, local addresses, options
mod network; // addresses, routes, static neighbours
mod policy; // persistence, single packets, own timeouts, settings
mod ports; // ports that come and go
mod random; // batches and sweeps against a naive model

use control::{ForwardMode, Protocol, ServiceSpec};

use super::*;
use crate::conn::state::State;
use crate::sched::Kind;

const LIMITS: Limits = Limits {
    services_max: 3,
    servers_max: 8,
};

fn key(n: u8) -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, SocketAddr::from(([10, 0, 0, n], 80)))
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 168, 1, n], 80))
}

fn weight(weight: u32) -> ServerSpec {
    ServerSpec {
        mode: ForwardMode::Nat,
        weight,
        tunnel: control::Tunnel::default(),
        thresholds: control::Thresholds::default(),
    }
}

fn spec(scheduler: &str) -> ServiceSpec {
    ServiceSpec::new(scheduler)
}

fn add_service(n: u8) -> Change {
    Change::AddService {
        service: key(n),
        spec: spec("rr"),
    }
}

fn add_server(service: u8, server: u8) -> Change {
    Change::AddServer {
        service: key(service),
        server: address(server),
        spec: weight(1),
    }
}

fn delete_server(service: u8, server: u8) -> Change {
    Change::DeleteServer {
        service: key(service),
        server: address(server),
    }
}

/// A model that reads one page, with service 1 and its servers 1 and 2.
fn counted() -> (Model, Arc<Page>) {
    let page = Arc::new(Page::new(LIMITS.services_max, LIMITS.servers_max).unwrap());
    let mut model = Model::new(LIMITS).watching(vec![Arc::clone(&page)]);
    model
        .apply(&[add_service(1), add_server(1, 1), add_server(1, 2)])
        .unwrap();
    (model, page)
}

fn conns(model: &Model) -> (u64, Vec<u64>) {
    let service = &model.services(None).unwrap()[0];
    (
        service.totals.conns,
        service
            .servers
            .iter()
            .map(|server| server.totals.conns)
            .collect(),
    )
}

#[test]
fn refusals_carry_lvss_errno_and_a_sentence() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let service = |address| ServiceKey::at(Protocol::Udp, address);
    let add = |address: &str| Change::AddService {
        service: service(at(address)),
        spec: spec("rr"),
    };
    let server = |address: &str, w| Change::AddServer {
        service: key(1),
        server: at(address),
        spec: weight(w),
    };
    let limited = |upper, lower| Change::AddServer {
        service: key(1),
        server: address(1),
        spec: ServerSpec {
            thresholds: control::Thresholds { upper, lower },
            ..weight(1)
        },
    };
    for (change, errno, detail) in [
        (
            add_service(1),
            Errno::Eexist,
            "service tcp 10.0.0.1:80 exists already",
        ),
        (
            Change::AddService {
                service: key(9),
                spec: spec("none"),
            },
            Errno::Enoent,
            "no scheduler \"none\", known are rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, conhash",
        ),
        (
            add("10.0.0.9:0"),
            Errno::Einval,
            "service udp 10.0.0.9:0 has port 0 (every port), which goes with persistence only; 1 to 65535 is right without",
        ),
        (
            Change::EditService {
                service: key(9),
                spec: spec("rr"),
            },
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            Change::EditService {
                service: key(1),
                spec: spec(""),
            },
            Errno::Enoent,
            "no scheduler \"\", known are rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, conhash",
        ),
        (
            Change::DeleteService { service: key(9) },
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            Change::Zero { only: Some(key(9)) },
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            add_server(9, 1),
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            add_server(1, 1),
            Errno::Eexist,
            "service tcp 10.0.0.1:80 has server 192.168.1.1:80 already",
        ),
        (
            server("255.255.255.255:80", 1),
            Errno::Einval,
            "server address 255.255.255.255 is not unicast",
        ),
        (
            server("192.168.1.1:80", 1 << 31),
            Errno::Erange,
            "weight 2147483648 of server 192.168.1.1:80 is too high, at most 2147483647 is right",
        ),
        (
            limited(1 << 31, 0),
            Errno::Erange,
            "upper threshold 2147483648 of server 192.168.1.1:80 is too high, at most 2147483647 is right",
        ),
        (
            limited(5, 6),
            Errno::Erange,
            "lower threshold 6 of server 192.168.1.1:80 is above the upper one, 5 or less is right",
        ),
        (
            delete_server(9, 1),
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            delete_server(1, 9),
            Errno::Enoent,
            "service tcp 10.0.0.1:80 has no server 192.168.1.9:80",
        ),
        (
            Change::EditServer {
                service: key(1),
                server: address(9),
                spec: weight(1),
            },
            Errno::Enoent,
            "service tcp 10.0.0.1:80 has no server 192.168.1.9:80",
        ),
        (
            Change::SetTimeouts {
                tcp: Some(2_678_401),
                tcp_fin: None,
                udp: None,
            },
            Errno::Einval,
            "a timeout of 2678401 s is too long, at most 2678400 (31 days) is right",
        ),
    ] {
        let (mut model, _page) = counted();
        let refusal = model.apply(&[add_service(2), change.clone()]).unwrap_err();
        assert_eq!(
            (refusal.errno, refusal.detail.as_str(), refusal.step),
            (errno, detail, Some(1)),
            "{change:?}"
        );
        assert_eq!(model.services(None).unwrap().len(), 1, "all or nothing");
    }
}

#[test]
fn full_tables_refuse() {
    let (mut model, _page) = counted();
    let refusal = model
        .apply(&[add_service(2), add_service(3), add_service(4)])
        .unwrap_err();
    assert_eq!(
        refusal.detail,
        "all 3 services are in use; raise max_services"
    );
    let servers: Vec<Change> = (3..=9).map(|n| add_server(1, n)).collect();
    let refusal = model.apply(&servers).unwrap_err();
    assert_eq!((refusal.errno, refusal.step), (Errno::Enomem, Some(6)));
    model.apply(&servers[..6]).unwrap();
}

#[test]
fn editing_to_the_same_scheduler_tells_the_workers_nothing() {
    let (mut model, _page) = counted();
    let edit = |name| Change::EditService {
        service: key(1),
        spec: spec(name),
    };
    assert_eq!(model.apply(&[edit("rr")]).unwrap(), []);
    assert_eq!(
        model.apply(&[edit("wrr")]).unwrap(),
        [Update::EditService {
            id: ServiceId(0),
            policy: Policy::of(Kind::Wrr),
        }]
    );
    let mut flagged = spec("wrr");
    flagged.flags.port = true;
    let edit = Change::EditService {
        service: key(1),
        spec: flagged.clone(),
    };
    let told = model.apply(&[edit]).unwrap();
    assert_eq!(
        told,
        [Update::EditService {
            id: ServiceId(0),
            policy: Policy {
                flags: flagged.flags,
                ..Policy::of(Kind::Wrr)
            },
        }]
    );
    assert_eq!(model.services(None).unwrap()[0].spec, flagged);
}

#[test]
fn zero_seconds_leave_a_timeout() {
    let (mut model, _page) = counted();
    model
        .apply(&[Change::SetTimeouts {
            tcp: Some(0),
            tcp_fin: None,
            udp: Some(60),
        }])
        .unwrap();
    let seconds = [State::Established, State::FinWait, State::Udp]
        .map(|state| model.timeouts().ms(state) / 1000);
    assert_eq!(seconds, [900, 120, 60]);
}

#[test]
fn a_deleted_server_returns_with_its_id_and_counters() {
    let (mut model, page) = counted();
    page.servers[0].conns.add(5);
    page.servers[1].conns.add(7);
    assert_eq!(conns(&model), (12, vec![7, 5]));
    model.apply(&[delete_server(1, 1)]).unwrap();
    assert_eq!(
        conns(&model),
        (12, vec![7]),
        "the service keeps what the server counted"
    );
    let updates = model.apply(&[add_server(1, 1)]).unwrap();
    assert!(matches!(
        updates[..],
        [Update::AddServer {
            id: ServerId(0),
            ..
        }]
    ));
    page.servers[0].conns.add(1);
    assert_eq!(conns(&model), (13, vec![6, 7]), "and is the newest");
}

#[test]
fn in_a_service_made_anew_it_counts_from_zero() {
    let (mut model, page) = counted();
    page.servers[0].conns.add(5);
    let updates = model
        .apply(&[
            Change::DeleteService { service: key(1) },
            add_service(1),
            add_server(1, 1),
        ])
        .unwrap();
    assert!(matches!(
        updates[2],
        Update::AddServer {
            id: ServerId(0),
            ..
        }
    ));
    assert_eq!(conns(&model), (0, vec![0]));
}

#[test]
fn zero_moves_the_zero_point_of_service_and_servers() {
    let (mut model, page) = counted();
    page.servers[0].conns.add(5);
    model.estimate();
    model
        .apply(&[delete_server(1, 2), Change::Zero { only: Some(key(1)) }])
        .unwrap();
    assert_eq!(conns(&model), (0, vec![0]));
    assert_eq!(
        model.services(None).unwrap()[0].rates,
        control::Rates::default()
    );
    page.servers[0].conns.add(2);
    assert_eq!(conns(&model), (2, vec![2]));
    assert!(
        model
            .apply(&[Change::Zero { only: None }, add_service(1)])
            .is_err()
    );
    assert_eq!(
        conns(&model),
        (2, vec![2]),
        "a refused batch zeroes nothing"
    );
}

#[test]
fn the_trash_is_swept_as_lvs_does() {
    let (mut model, page) = counted();
    page.servers[0].conns.add(5);
    model.apply(&[delete_server(1, 1)]).unwrap();
    assert_eq!(model.sweep(60, |_| true), []);
    assert_eq!(model.sweep(120, |_| false), [], "stamped");
    assert_eq!(
        model.sweep(180, |_| true),
        [],
        "in use again, the stamp goes"
    );
    assert_eq!(model.sweep(240, |_| false), []);
    assert_eq!(model.sweep(300, |_| false), []);
    assert_eq!(
        model.sweep(360, |_| false),
        [Update::ForgetServer { id: ServerId(0) }]
    );
    assert_eq!(model.sweep(420, |_| false), []);
    // Another server under the same id starts at zero.
    let updates = model.apply(&[add_server(1, 3)]).unwrap();
    assert!(matches!(
        updates[..],
        [Update::AddServer {
            id: ServerId(0),
            ..
        }]
    ));
    assert_eq!(conns(&model), (5, vec![0, 0]));
}

#[test]
fn rates_follow_the_pages() {
    let (mut model, page) = counted();
    page.servers[0].in_packets.add(1000);
    page.servers[1].in_packets.add(3000);
    model.estimate();
    let service = &model.services(None).unwrap()[0];
    let rates: Vec<u64> = service
        .servers
        .iter()
        .map(|server| server.rates.in_pps)
        .collect();
    assert_eq!((service.rates.in_pps, rates), (500, vec![375, 125]));
}

#[test]
fn ten_thousand_changes_are_undone_whole() {
    let mut model = Model::new(Limits {
        services_max: 10_000,
        servers_max: 20_000,
    });
    let many = |change: fn(u16) -> Change| (0..10_000).map(change).collect::<Vec<_>>();
    let service = |n: u16| ServiceKey::at(Protocol::Udp, SocketAddr::from(([10, 0, 0, 1], n + 1)));
    let services: Vec<Change> = (0..10_000)
        .map(|n| Change::AddService {
            service: service(n),
            spec: spec("rr"),
        })
        .collect();
    model.apply(&services).unwrap();
    model
        .apply(&many(|n| Change::AddServer {
            service: ServiceKey::at(Protocol::Udp, SocketAddr::from(([10, 0, 0, 1], 1))),
            server: SocketAddr::from(([10, 1, 0, 1], n + 1)),
            spec: weight(1),
        }))
        .unwrap();
    let mut failing = many(|n| Change::DeleteServer {
        service: ServiceKey::at(Protocol::Udp, SocketAddr::from(([10, 0, 0, 1], 1))),
        server: SocketAddr::from(([10, 1, 0, 1], n + 1)),
    });
    failing.push(Change::Flush);
    failing.push(Change::DeleteService {
        service: service(0),
    });
    model.apply(&failing).unwrap_err();
    assert_eq!(
        model.services(Some(&service(0))).unwrap()[0].servers.len(),
        10_000
    );
    model.apply(&failing[..10_001]).unwrap();
    assert_eq!(model.services(None).unwrap(), []);
}

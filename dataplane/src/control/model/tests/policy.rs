//! Persistence, single packets, a service's own timeouts, settings: what of them cannot be.

use control::{Engine, Netmask, Persistence, ServiceTimeouts};

use super::*;

fn tcp() -> ServiceKey {
    key(9)
}

fn udp() -> ServiceKey {
    ServiceKey::at(Protocol::Udp, "10.0.0.9:53".parse().unwrap())
}

fn v6() -> ServiceKey {
    ServiceKey::at(Protocol::Tcp, "[2001:db8::9]:80".parse().unwrap())
}

fn marked(ipv6: bool) -> ServiceKey {
    let mark = 7.try_into().unwrap();
    ServiceKey::Mark { mark, ipv6 }
}

fn persistent(timeout_s: u32, netmask: Netmask) -> ServiceSpec {
    ServiceSpec {
        persistence: Some(Persistence { timeout_s, netmask }),
        ..spec("rr")
    }
}

fn one_packet() -> ServiceSpec {
    ServiceSpec {
        one_packet: true,
        ..spec("rr")
    }
}

#[test]
fn services_that_cannot_be() {
    let v4 = Netmask::whole(false);
    for (service, spec, detail) in [
        (
            tcp(),
            persistent(0, v4),
            "tcp 10.0.0.9:80 has persistence of 0 s, 1 to 2678400 is right",
        ),
        (
            marked(false),
            persistent(2_678_401, v4),
            "mark 7 has persistence of 2678401 s, 1 to 2678400 is right",
        ),
        (
            v6(),
            persistent(60, v4),
            "tcp [2001:db8::9]:80 has netmask 255.255.255.255, a prefix length of 1 to 128 is right for IPv6",
        ),
        (
            marked(true),
            persistent(60, Netmask::V6(0)),
            "mark 7 ipv6 has netmask 0, 1 to 128 is right for IPv6",
        ),
        (
            v6(),
            persistent(60, Netmask::V6(129)),
            "tcp [2001:db8::9]:80 has netmask 129, 1 to 128 is right for IPv6",
        ),
        (
            udp(),
            persistent(60, Netmask::V6(64)),
            "udp 10.0.0.9:53 has netmask 64, one like 255.255.255.0 is right for IPv4",
        ),
        (
            tcp(),
            one_packet(),
            "tcp 10.0.0.9:80 has single packets scheduled, for which udp or a mark is right, not tcp",
        ),
    ] {
        let mut model = Model::new(LIMITS);
        let change = Change::AddService { service, spec };
        let refusal = model.apply(&[change]).unwrap_err();
        let detail = format!("service {detail}");
        assert_eq!((refusal.errno, refusal.detail), (Errno::Einval, detail));
    }
}

/// What LVS takes, whether it makes sense or not, and what is told of it.
#[test]
fn services_that_can_be() {
    let every_port = ServiceKey::at(Protocol::Tcp, "10.0.0.9:0".parse().unwrap());
    let odd_mask = Netmask::V4([255, 0, 255, 0].into());
    let engine = ServiceSpec {
        engine: Some(Engine::Sip),
        ..spec("rr")
    };
    for (service, spec) in [
        (every_port, persistent(1, Netmask::V4([0; 4].into()))),
        (tcp(), persistent(2_678_400, odd_mask)),
        (v6(), persistent(60, Netmask::V6(1))),
        (marked(true), persistent(60, Netmask::V6(128))),
        (udp(), one_packet()),
        (marked(false), one_packet()),
        (tcp(), engine),
    ] {
        let mut model = Model::new(LIMITS);
        let add = Change::AddService {
            service,
            spec: spec.clone(),
        };
        model.apply(&[add]).unwrap();
        let shown = &model.services(None).unwrap()[0];
        assert_eq!((shown.key, &shown.spec), (service, &spec));
    }
}

#[test]
fn options_that_cannot_be() {
    let timeouts = |tcp, tcp_fin, udp| ServiceOptions {
        timeouts: ServiceTimeouts { tcp, tcp_fin, udp },
        ..ServiceOptions::default()
    };
    let reset_on_expiry = ServiceOptions {
        reset_on_expiry: true,
        ..ServiceOptions::default()
    };
    let slow_start = ServiceOptions {
        slow_start_s: 86_401,
        ..ServiceOptions::default()
    };
    for (service, options, detail) in [
        (
            tcp(),
            timeouts(Some(0), None, None),
            "tcp timeout 0 of service tcp 10.0.0.9:80 is out of range, 1 to 2678400 is right",
        ),
        (
            marked(false),
            timeouts(None, Some(2_678_401), None),
            "tcp-fin timeout 2678401 of service mark 7 is out of range, 1 to 2678400 is right",
        ),
        (
            tcp(),
            timeouts(None, None, Some(5)),
            "service tcp 10.0.0.9:80 has no udp timeout, none is right",
        ),
        (
            udp(),
            reset_on_expiry,
            "service udp 10.0.0.9:53 is not TCP, only TCP has resets; false is right for reset on expiry",
        ),
        (
            udp(),
            slow_start,
            "slow start of 86401 s of service udp 10.0.0.9:53 is too long, 0 to 86400 is right",
        ),
    ] {
        let mut model = Model::new(LIMITS);
        let add = Change::AddService {
            service,
            spec: spec("rr"),
        };
        let set = Change::SetOptions { service, options };
        let refusal = model.apply(&[add, set]).unwrap_err();
        let detail = detail.to_owned();
        assert_eq!((refusal.errno, refusal.detail), (Errno::Einval, detail));
    }
}

#[test]
fn settings_that_cannot_be() {
    let mut model = Model::new(LIMITS);
    let settings = Settings {
        conn_reuse_mode: 4,
        ..Settings::default()
    };
    let refusal = model.apply(&[Change::SetSettings(settings)]).unwrap_err();
    let detail = "conn_reuse_mode = 4 is out of range, 0 to 3 is right";
    assert_eq!(
        (refusal.errno, refusal.detail.as_str()),
        (Errno::Einval, detail)
    );
    assert_eq!(model.settings(), Settings::default());
}

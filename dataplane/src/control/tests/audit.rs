//! What the audit log says of changes.

use super::*;
use crate::control::audit;

#[test]
fn the_audit_log_has_words_for_what_was_changed() {
    let service = key();
    let tunnel = control::Tunnel {
        kind: control::TunnelKind::Gue,
        port: 6080,
        checksum: control::TunnelChecksum::Full,
    };
    let address = "10.0.0.5".parse().unwrap();
    for (change, words) in [
        (
            Change::AddServer {
                service,
                server: "[2001:db8::2]:80".parse().unwrap(),
                spec: ServerSpec {
                    mode: ForwardMode::Tunnel,
                    weight: 3,
                    tunnel,
                    thresholds: control::Thresholds { upper: 9, lower: 6 },
                },
            },
            "add server [2001:db8::2]:80 to tcp 10.0.0.1:80: tunnel gue:6080 csum, thresholds 9 and 6, weight 3",
        ),
        (
            Change::AddLocalAddress { service, address },
            "add local address 10.0.0.5 to tcp 10.0.0.1:80",
        ),
        (
            Change::DeleteLocalAddress { service, address },
            "delete local address 10.0.0.5 of tcp 10.0.0.1:80",
        ),
        (
            Change::DrainServer {
                service,
                server: "10.1.0.1:80".parse().unwrap(),
                drain: control::Drain {
                    deadline_s: Some(30),
                    reset: true,
                    delete: true,
                },
            },
            "drain server 10.1.0.1:80 of tcp 10.0.0.1:80: cut with resets after 30 s, then deleted",
        ),
        (
            Change::CancelDrain {
                service,
                server: "10.1.0.1:80".parse().unwrap(),
            },
            "cancel the draining of server 10.1.0.1:80 of tcp 10.0.0.1:80",
        ),
        (
            Change::SetOptions {
                service,
                options: control::ServiceOptions {
                    client_address: control::ClientAddress::ProxyV2,
                    mss: Some(1380),
                    ..control::ServiceOptions::default()
                },
            },
            "set options of tcp 10.0.0.1:80: client address proxy-v2, mss 1380",
        ),
        (
            Change::SetSettings(Settings {
                conn_reuse_mode: 0,
                sloppy_tcp: true,
                ..Settings::default()
            }),
            "set conn-reuse-mode 1 -> 0, sloppy-tcp false -> true",
        ),
        (
            Change::DeleteAddress(control::Address {
                port: "lan".to_owned(),
                vlan: Some(7),
                prefix: "10.0.0.5/24".parse().unwrap(),
            }),
            "delete address 10.0.0.5/24 on lan.7",
        ),
        (
            Change::ReplaceRoute(control::Route {
                to: "0.0.0.0/0".parse().unwrap(),
                via: address.into(),
            }),
            "replace route to 0.0.0.0/0 via 10.0.0.5",
        ),
        (
            Change::AddNeighbour(control::StaticNeighbour {
                address,
                mac: "02:00:00:00:00:07".parse().unwrap(),
            }),
            "add static neighbour 10.0.0.5 at 02:00:00:00:00:07",
        ),
    ] {
        assert_eq!(audit::describe(&change, Settings::default()), words);
    }
}

/// A restore of a hundred thousand servers is not to flood the log.
#[test]
fn a_long_request_is_summed_up_in_the_audit_log() {
    let lines = |changes: &[Change]| {
        let added = |change: &Change| matches!(change, Change::AddServer { .. });
        audit::lines(changes, Settings::default(), |_| None, added)
    };
    assert_eq!(lines(&[]), Vec::<String>::new());
    let mut changes = vec![add_service(); audit::LINES_MAX - 1];
    changes.push(add_server());
    let all = lines(&changes);
    assert_eq!(all.len(), audit::LINES_MAX);
    assert!(all[audit::LINES_MAX - 1].ends_with(", which ends its draining"));
    changes.extend([add_server(), add_server(), Change::Flush]);
    let more = lines(&changes);
    assert_eq!(more[..audit::LINES_MAX], all);
    let last = "and 3 more: 2 add server, 1 delete every service";
    assert_eq!(more[audit::LINES_MAX..], [last]);
}

#[test]
fn the_audit_log_says_what_was_there_before() {
    let mut control = Control::new(LIMITS, Vec::new(), 64, Machine::default);
    control.change(&[add_service(), add_server()]).unwrap();
    let (service, server) = (key(), "10.1.0.1:80".parse().unwrap());
    let spec = ServiceSpec::new("wlc");
    let options = control::ServiceOptions {
        mss: Some(1400),
        ..control::ServiceOptions::default()
    };
    let (tcp, tcp_fin, udp) = (Some(60), None, None);
    for (change, words) in [
        (
            Change::EditService { service, spec },
            "edit service tcp 10.0.0.1:80: wlc (was rr)",
        ),
        (
            Change::SetOptions { service, options },
            "set options of tcp 10.0.0.1:80: client address toa, mss 1400 (was client address toa)",
        ),
        (
            Change::SetTimeouts { tcp, tcp_fin, udp },
            "set timeouts: tcp 60 s, tcp_fin as it is, udp as it is (was tcp 900 s, tcp_fin 120 s, udp 300 s)",
        ),
        (
            Change::DeleteServer { service, server },
            "delete server 10.1.0.1:80 of tcp 10.0.0.1:80 (was nat, weight 1)",
        ),
        (
            Change::DeleteService { service },
            "delete service tcp 10.0.0.1:80 (was rr, with 1 servers)",
        ),
    ] {
        let was = |change: &Change| control.model.was(change);
        let lines = audit::lines(&[change], Settings::default(), was, |_| false);
        assert_eq!(lines, [words]);
    }
}

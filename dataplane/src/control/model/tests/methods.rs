//! Forwarding methods, families, local addresses, options and settings.

use control::{ClientAddress, Tunnel, TunnelChecksum, TunnelKind};

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(protocol: Protocol, address: &str) -> ServiceKey {
    ServiceKey::at(protocol, at(address))
}

fn v6() -> ServiceKey {
    service(Protocol::Tcp, "[2001:db8::1]:80")
}

fn add(service: ServiceKey) -> Change {
    Change::AddService {
        service,
        spec: spec("rr"),
    }
}

fn by(mode: ForwardMode) -> ServerSpec {
    ServerSpec { mode, ..weight(1) }
}

fn tunnel(kind: TunnelKind, port: u16, checksum: TunnelChecksum) -> ServerSpec {
    ServerSpec {
        tunnel: Tunnel {
            kind,
            port,
            checksum,
        },
        ..by(ForwardMode::Tunnel)
    }
}

fn server(service: ServiceKey, address: &str, spec: ServerSpec) -> Change {
    Change::AddServer {
        service,
        server: at(address),
        spec,
    }
}

fn add_local(service: ServiceKey, address: &str) -> Change {
    Change::AddLocalAddress {
        service,
        address: ip(address),
    }
}

fn delete_local(service: ServiceKey, address: &str) -> Change {
    Change::DeleteLocalAddress {
        service,
        address: ip(address),
    }
}

fn set(service: ServiceKey, client_address: ClientAddress, mss: Option<u16>) -> Change {
    Change::SetOptions {
        service,
        options: ServiceOptions {
            client_address,
            mss,
            ..ServiceOptions::default()
        },
    }
}

/// Service 1 with its servers, an IPv6 service, and a UDP one.
fn model() -> Model {
    let (mut model, _page) = counted();
    let udp = service(Protocol::Udp, "10.0.0.1:53");
    model.apply(&[add(v6()), add(udp)]).unwrap();
    model
}

/// What the model says to the last of `changes`.
#[track_caller]
fn check(changes: &[Change], errno: Errno, detail: &str) {
    let mut model = model();
    let before = model.services(None).unwrap();
    let refusal = model.apply(changes).unwrap_err();
    assert_eq!(
        (refusal.errno, refusal.detail.as_str(), refusal.step),
        (errno, detail, Some(changes.len() - 1))
    );
    assert_eq!(model.services(None).unwrap(), before, "all or nothing");
    assert!(model.uses_are_counted());
}

#[test]
fn servers_that_cannot_be() {
    use ForwardMode::{Direct, FullNat, Nat};
    for (service, address, spec, detail) in [
        (
            key(1),
            "[2001:db8::2]:80",
            by(Nat),
            "server [2001:db8::2]:80 and service tcp 10.0.0.1:80 are of two families, tunnel or fullnat is right for that, not nat",
        ),
        (
            v6(),
            "192.168.1.9:80",
            by(Direct),
            "server 192.168.1.9:80 and service tcp [2001:db8::1]:80 are of two families, tunnel or fullnat is right for that, not direct",
        ),
        (
            v6(),
            "[fe80::1]:80",
            by(Nat),
            "server address fe80::1 is not unicast",
        ),
        (
            v6(),
            "[ff02::1]:80",
            by(Nat),
            "server address ff02::1 is not unicast",
        ),
        (v6(), "[::]:80", by(Nat), "server address :: is not unicast"),
        (
            v6(),
            "[::ffff:10.0.0.9]:80",
            by(FullNat),
            "server address ::ffff:10.0.0.9 is not unicast",
        ),
        (
            v6(),
            "[2001:db8::2%3]:80",
            by(Nat),
            "[2001:db8::2%3]:80 has a zone or a flow label, [2001:db8::2]:80 is right",
        ),
        (
            v6(),
            "[2001:db8::2]:81",
            by(Direct),
            "server [2001:db8::2]:81 has another port than its service, 80 is right for direct routing",
        ),
        (
            key(1),
            "[2001:db8::2]:81",
            tunnel(TunnelKind::Ipip, 0, TunnelChecksum::None),
            "server [2001:db8::2]:81 has another port than its service, 80 is right for a tunnel",
        ),
        (
            key(1),
            "192.168.1.9:80",
            tunnel(TunnelKind::Gue, 0, TunnelChecksum::Full),
            "server 192.168.1.9:80 has a gue tunnel without a port, 1 to 65535 is right",
        ),
        (
            key(1),
            "192.168.1.9:80",
            tunnel(TunnelKind::Gre, 7, TunnelChecksum::None),
            "server 192.168.1.9:80 has a tunnel port, which only gue has, not gre",
        ),
        (
            key(1),
            "192.168.1.9:80",
            tunnel(TunnelKind::Gre, 0, TunnelChecksum::Remote),
            "server 192.168.1.9:80 has a gre tunnel with a remote checksum, none or full is right",
        ),
        (
            key(1),
            "192.168.1.9:80",
            tunnel(TunnelKind::Ipip, 0, TunnelChecksum::Full),
            "server 192.168.1.9:80 has an ipip tunnel with a checksum, none is right",
        ),
        (
            key(1),
            "192.168.1.9:80",
            ServerSpec {
                mode: Nat,
                ..tunnel(TunnelKind::Gre, 0, TunnelChecksum::None)
            },
            "server 192.168.1.9:80 is reached by nat, a tunnel's kind, port and checksum go with method tunnel",
        ),
    ] {
        check(&[server(service, address, spec)], Errno::Einval, detail);
        if service == key(1) && address == "192.168.1.9:80" {
            let edit = Change::EditServer {
                service,
                server: at(address),
                spec,
            };
            check(
                &[server(service, address, weight(1)), edit],
                Errno::Einval,
                detail,
            )
        }
    }
}

#[test]
fn every_method_in_every_family_that_can_be() {
    use ForwardMode::{Direct, FullNat, Nat};
    let mut model = model();
    let gue = tunnel(TunnelKind::Gue, 6080, TunnelChecksum::Remote);
    let sctp = service(Protocol::Sctp, "[2001:db8::1]:9");
    model
        .apply(&[
            server(v6(), "[2001:db8::2]:8080", by(Nat)),
            server(v6(), "[::1]:80", by(Direct)),
            server(v6(), "192.168.1.9:80", gue),
            server(v6(), "192.168.1.10:8080", by(FullNat)),
            server(key(1), "[2001:db8::2]:80", gue),
            server(
                key(1),
                "127.0.0.1:80",
                tunnel(TunnelKind::Gre, 0, TunnelChecksum::Full),
            ),
        ])
        .unwrap();
    model
        .apply(&[Change::DeleteService { service: v6() }, add(sctp)])
        .unwrap();
    assert!(model.uses_are_counted());
}

#[test]
fn local_addresses_are_nothing_else() {
    for (changes, errno, detail) in [
        (
            vec![add_local(key(9), "172.16.0.1")],
            Errno::Esrch,
            "no such service: tcp 10.0.0.9:80",
        ),
        (
            vec![delete_local(key(1), "172.16.0.1")],
            Errno::Enoent,
            "service tcp 10.0.0.1:80 has no local address 172.16.0.1",
        ),
        (
            vec![
                add_local(key(1), "172.16.0.1"),
                add_local(key(1), "172.16.0.1"),
            ],
            Errno::Eexist,
            "service tcp 10.0.0.1:80 has local address 172.16.0.1 already",
        ),
        (
            vec![add_local(v6(), "10.0.0.1")],
            Errno::Einval,
            "10.0.0.1 is a service's address, a local address needs another one",
        ),
        (
            vec![add_local(v6(), "192.168.1.2")],
            Errno::Einval,
            "192.168.1.2 is a server's address, a local address needs another one",
        ),
        (
            vec![
                add_local(key(1), "172.16.0.1"),
                add(service(Protocol::Udp, "172.16.0.1:9")),
            ],
            Errno::Einval,
            "172.16.0.1 is a local address, a service needs another one",
        ),
        (
            vec![
                add_local(key(1), "172.16.0.1"),
                server(key(1), "172.16.0.1:80", weight(1)),
            ],
            Errno::Einval,
            "172.16.0.1 is a local address, a server needs another one",
        ),
        (
            vec![add_local(key(1), "fe80::1")],
            Errno::Einval,
            "local address fe80::1 is not unicast, one that servers can answer is right",
        ),
        (
            vec![add_local(key(1), "127.0.0.1")],
            Errno::Einval,
            "local address 127.0.0.1 is not unicast, one that servers can answer is right",
        ),
    ] {
        check(&changes, errno, detail);
    }
}

#[test]
fn local_addresses_may_be_shared_and_become_free() {
    let mut model = model();
    let updates = model
        .apply(&[
            add_local(key(1), "172.16.0.1"),
            add_local(key(1), "2001:db8::9"),
            add_local(v6(), "172.16.0.1"),
            delete_local(key(1), "172.16.0.1"),
        ])
        .unwrap();
    let told: Vec<usize> = (updates.iter())
        .map(|update| match update {
            Update::SetLocalAddresses { addresses, .. } => addresses.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [1, 2, 1, 1], "each update has all of them");
    let shown = &model.services(Some(&key(1))).unwrap()[0];
    assert_eq!(shown.local_addresses[0].address, ip("2001:db8::9"));
    assert_eq!(shown.local_addresses.len(), 1);
    // The last service that has it takes it along.
    let use_it = server(key(1), "172.16.0.1:80", weight(1));
    assert!(model.apply(std::slice::from_ref(&use_it)).is_err());
    model
        .apply(&[Change::DeleteService { service: v6() }, use_it])
        .unwrap();
    // And a deleted server leaves its address to others.
    model
        .apply(&[delete_server(1, 1), add_local(key(1), "192.168.1.1")])
        .unwrap();
    assert!(model.uses_are_counted());
}

#[test]
fn the_use_of_a_local_address_is_every_workers() {
    let pages = (0..2).map(|_| Arc::new(Page::new(8, 8).unwrap())).collect();
    let mut model = Model::new(LIMITS).watching(pages);
    model.apply(&[add(key(1)), add(v6())]).unwrap();
    let told = |updates: Vec<Update>| match updates.as_slice() {
        [Update::SetLocalAddresses { addresses, .. }] => addresses.clone(),
        other => panic!("{other:?}"),
    };
    let first = told(model.apply(&[add_local(key(1), "172.16.0.1")]).unwrap());
    first[0].pages[0].in_use.set(3);
    first[0].pages[1].in_use.set(4);
    first[0].pages[1].exhausted.add(5);
    let shown = |model: &Model, key| {
        let local = model.services(Some(&key)).unwrap()[0].local_addresses[0];
        (local.address, local.in_use, local.exhausted)
    };
    let expected = (ip("172.16.0.1"), 7, 5);
    assert_eq!(shown(&model, key(1)), expected);
    // Who has the same address shares its ports.
    let second = told(model.apply(&[add_local(v6(), "172.16.0.1")]).unwrap());
    assert!(Arc::ptr_eq(&first[0].pages, &second[0].pages));
    assert_eq!(shown(&model, v6()), expected);
    // What is refused changes nothing, and who comes back finds the connections that it left.
    let refused = [
        delete_local(key(1), "172.16.0.1"),
        Change::DeleteService { service: key(9) },
    ];
    model.apply(&refused).unwrap_err();
    assert_eq!(shown(&model, key(1)), expected);
    let gone = [
        delete_local(key(1), "172.16.0.1"),
        delete_local(v6(), "172.16.0.1"),
    ];
    model.apply(&gone).unwrap();
    model.sweep(0, |_| false);
    model.apply(&[add_local(key(1), "172.16.0.1")]).unwrap();
    assert_eq!(shown(&model, key(1)), expected);
    // Without any left, it is not shown, and goes on counting when it comes back.
    model.apply(&[delete_local(key(1), "172.16.0.1")]).unwrap();
    drop((first, second));
    model.sweep(0, |_| false);
    assert!(model.view().locals.is_empty());
    model.apply(&[add_local(key(1), "172.16.0.1")]).unwrap();
    assert_eq!(shown(&model, key(1)), expected);
    assert_eq!(model.view().locals.len(), 1);
    // Of too many, those that nobody has are forgotten.
    for n in 0..LOCALS_MAX {
        model.local(ip(&format!("172.17.{}.{}", n / 256, n % 256)));
    }
    model.sweep(0, |_| false);
    assert_eq!(model.locals.len(), 1);
}

#[test]
fn too_many_local_addresses() {
    let locals: Vec<Change> = (0..=LOCAL_ADDRESSES_MAX)
        .map(|n| add_local(key(1), &format!("172.16.{}.{}", n / 200, n % 200 + 1)))
        .collect();
    check(
        &locals,
        Errno::Enomem,
        "service tcp 10.0.0.1:80 has 256 local addresses already, no more is right",
    );
}

#[test]
fn options_go_with_their_protocol() {
    let udp = service(Protocol::Udp, "10.0.0.1:53");
    check(
        &[set(udp, ClientAddress::ProxyV2, None)],
        Errno::Einval,
        "service udp 10.0.0.1:53 is not TCP, client address proxy-v2 needs TCP; toa, uoa or none is right",
    );
    check(
        &[set(udp, ClientAddress::Toa, Some(1380))],
        Errno::Einval,
        "service udp 10.0.0.1:53 is not TCP, only TCP has an MSS",
    );
    check(
        &[set(key(1), ClientAddress::Toa, Some(87))],
        Errno::Einval,
        "mss 87 of service tcp 10.0.0.1:80 is out of range, 88 to 65495 is right",
    );
    let mut model = model();
    let proxy = set(key(1), ClientAddress::ProxyV1, Some(1380));
    let uoa = set(udp, ClientAddress::Uoa, None);
    let updates = model.apply(&[proxy.clone(), uoa, proxy]).unwrap();
    assert_eq!(updates.len(), 2, "what is as it was is not told");
    // LVS's words leave them alone.
    let edit = Change::EditService {
        service: key(1),
        spec: spec("wrr"),
    };
    model.apply(&[edit]).unwrap();
    let shown = &model.services(Some(&key(1))).unwrap()[0];
    assert_eq!(shown.options.client_address, ClientAddress::ProxyV1);
    assert_eq!(shown.options.mss, Some(1380));
}

#[test]
fn settings_are_told_once() {
    let mut model = model();
    let settings = Settings {
        schedule_icmp: true,
        ..Settings::default()
    };
    let updates = model
        .apply(&[Change::SetSettings(settings), Change::SetSettings(settings)])
        .unwrap();
    assert_eq!(updates, [Update::SetSettings(settings)]);
    let refused = [Change::SetSettings(Settings::default()), add_service(1)];
    model.apply(&refused).unwrap_err();
    assert_eq!(model.settings(), settings);
}

#[test]
fn no_fullnat_for_single_datagrams() {
    let udp = service(Protocol::Udp, "10.0.0.1:53");
    let alone = |service| {
        let spec = ServiceSpec {
            one_packet: true,
            ..spec("rr")
        };
        Change::EditService { service, spec }
    };
    let edit = |mode| Change::EditServer {
        service: udp,
        server: at("192.168.1.20:53"),
        spec: by(mode),
    };
    let detail = "server 192.168.1.20:53 has method fullnat, but service udp 10.0.0.1:53 schedules \
                  each packet by itself, for which nat, direct routing or tunnel is right";
    let of = |mode| server(udp, "192.168.1.20:53", by(mode));
    let (fullnat, nat) = (of(ForwardMode::FullNat), of(ForwardMode::Nat));
    for changes in [
        vec![alone(udp), fullnat.clone()],
        vec![fullnat, alone(udp)],
        vec![alone(udp), nat, edit(ForwardMode::FullNat)],
    ] {
        check(&changes, Errno::Einval, detail);
    }
}

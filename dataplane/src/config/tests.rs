//! The examples, and the message for each mistake.

use std::path::Path;

use control::{
    Change, ClientAddress, ForwardMode, PortSpec, ServiceOptions, Settings, Tunnel, TunnelChecksum,
    TunnelKind,
};

use super::Config;
use crate::conn::state::State;
use crate::net::{Prefix, Route};

/// The least that is accepted, on one line.
const PORT: &str =
    "port = [{ name = \"lan\", device = \"net_null0\", addresses = [\"10.0.0.254/24\"] }]\n";

fn error(text: &str) -> String {
    Config::parse(text, "f").unwrap_err().to_string()
}

/// The message for `text` after the one line of [`PORT`].
#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(error(&format!("{PORT}{text}")), expected, "for\n{text}");
}

/// The message for a file that is only a port with `keys`.
#[track_caller]
fn check_port(keys: &str, expected: &str) {
    assert_eq!(
        error(&format!(
            "[[port]]\nname = \"a\"\ndevice = \"net_null0\"\n{keys}"
        )),
        expected,
        "for\n{keys}"
    );
}

#[test]
fn the_example_gives_the_defaults() {
    let config = Config::parse(
        include_str!("../../../configs/example.toml"),
        "example.toml",
    )
    .unwrap();
    let default = Config::default();
    assert_eq!(
        (config.director, config.eal, config.metrics, config.restart),
        (
            default.director,
            default.eal,
            default.metrics,
            default.restart
        )
    );
    assert_eq!(config.timeouts, default.timeouts);
    assert_eq!(config.ports.len(), 2);
    let prefix = |address: &str, length| Prefix {
        address: address.parse().unwrap(),
        length,
    };
    assert_eq!(
        config.ports[1].vlans,
        [(100, vec![prefix("192.168.100.1", 24)])]
    );
    assert_eq!(
        config.routes,
        [Route {
            to: prefix("0.0.0.0", 0),
            via: "10.0.0.1".parse().unwrap()
        }]
    );
    assert_eq!(config.neighbours[0].mac, [2, 0, 0, 0, 0, 7]);
    let kinds: Vec<&str> = (config.changes.iter())
        .map(|change| match change {
            Change::SetTimeouts { .. } => "timeouts",
            Change::SetSettings(settings) if *settings == Settings::default() => "settings",
            Change::AddMark { .. } => "mark",
            Change::AddService { .. } => "service",
            Change::SetOptions { .. } => "options",
            Change::AddLocalAddress { .. } => "local",
            Change::AddServer { .. } => "server",
            Change::StartSync(_) => "sync",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        kinds.join(" "),
        "timeouts settings mark service options options options options options options options options local server server server sync"
    );
}

/// A key that is in the example under its default may as well be missing.
#[test]
fn what_is_left_out_is_the_default() {
    let config = Config::parse(PORT, "f").unwrap();
    let example = Config::parse(
        include_str!("../../../configs/example.toml"),
        "example.toml",
    )
    .unwrap();
    assert_eq!(
        (config.director, config.eal, config.metrics, config.restart),
        (
            example.director,
            example.eal,
            example.metrics,
            example.restart
        )
    );
    let documented = example.ports[0].spec.clone();
    let default = PortSpec::new(documented.name.clone(), documented.device.clone());
    assert_eq!(documented, default);
    assert_eq!(
        (config.timeouts, &config.changes[..]),
        (example.timeouts, &example.changes[..2])
    );
}

/// Whatever is in configs/ is shipped, so it must be right, and say what it is for and what servers need.
#[test]
fn every_example_is_accepted_and_explains_itself() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let files = std::fs::read_dir(folder).unwrap().flatten();
    let examples = files.filter(|file| file.path().extension().is_some_and(|end| end == "toml"));
    let mut seen = 0;
    for example in examples {
        let config = Config::load(&example.path()).unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.changes.is_empty());
        let (name, text) = (
            example.file_name(),
            std::fs::read_to_string(example.path()).unwrap(),
        );
        assert!(text.starts_with("# "), "{name:?}");
        let is_set_up = ![
            "example.toml",
            "health.toml",
            "ipv6.toml",
            "persistence.toml",
        ]
        .iter()
        .any(|other| name == **other);
        if is_set_up {
            assert!(
                text.contains("# Servers:") && text.contains("───"),
                "{name:?}"
            );
        }
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}

#[test]
fn what_outlives_the_daemon_lies_in_a_directory() {
    let directory = |keys: &str| {
        let config = Config::parse(&format!("{PORT}\n[restart]\n{keys}"), "f");
        config.map(|config| config.restart.directory)
    };
    assert_eq!(directory(""), Ok(None));
    let path = Some("/dev/shm/a".into());
    assert_eq!(directory("directory = \"/dev/shm/a\""), Ok(path));
    assert!(directory("directory = \"shm\"").unwrap_err().to_string().ends_with(
        ": restart directory \"shm\" cannot be one, an absolute path like \"/dev/shm/director\" is right"
    ));
}

#[test]
fn metrics_may_be_elsewhere_or_nowhere() {
    let metrics = |keys: &str| {
        let config = Config::parse(&format!("{PORT}\n[metrics]\n{keys}"), "f");
        config.map(|config| (config.metrics.address, config.metrics.servers))
    };
    let address = "[::1]:80".parse().ok();
    assert_eq!(metrics("address = \"[::1]:80\""), Ok((address, true)));
    assert_eq!(
        metrics("address = \"none\"\nservers = false"),
        Ok((None, false))
    );
    assert!(metrics("address = \"localhost\"").unwrap_err().to_string().ends_with(
        ": metrics address \"localhost\" is not one, \"127.0.0.1:9145\", \"[::1]:9145\" or \"none\" is right"
    ));
}

#[test]
fn the_other_examples_are_accepted() {
    for (name, text) in [
        (
            "nat-two-arm",
            include_str!("../../../configs/nat-two-arm.toml"),
        ),
        ("nat-pci", include_str!("../../../configs/nat-pci.toml")),
        ("nat-afxdp", include_str!("../../../configs/nat-afxdp.toml")),
        ("direct", include_str!("../../../configs/direct.toml")),
        ("tunnel", include_str!("../../../configs/tunnel.toml")),
        ("fullnat", include_str!("../../../configs/fullnat.toml")),
    ] {
        let config = Config::parse(text, name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.ports[0].is_virtual(), name != "nat-pci");
        assert!(config.changes.len() > 3);
        let mut modes = config.changes.iter().filter_map(|change| match change {
            Change::AddServer { spec, .. } => Some(spec.mode),
            _ => None,
        });
        let expected = match name {
            "direct" => ForwardMode::Direct,
            "tunnel" => ForwardMode::Tunnel,
            "fullnat" => ForwardMode::FullNat,
            _ => ForwardMode::Nat,
        };
        assert!(modes.all(|mode| mode == expected), "{name}");
    }
}

#[test]
fn the_ipv6_example_mixes_families() {
    let text = include_str!("../../../configs/ipv6.toml");
    let config = Config::parse(text, "ipv6").unwrap_or_else(|error| panic!("{error}"));
    let mixed = |change: &&Change| match change {
        Change::AddServer {
            service, server, ..
        } => service.is_ipv6() != server.is_ipv6(),
        _ => false,
    };
    assert_eq!(config.changes.iter().filter(mixed).count(), 3);
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/d.toml"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "/nonexistent/d.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn syntax_and_unknown_keys() {
    check(
        "[director]\nworkers = [1",
        "f:3: unclosed array, expected `]`",
    );
    check(
        "x = 1",
        "f:2: unknown field `x`, expected one of `director`, `eal`, `metrics`, `restart`, `port`, `route`, `neighbour`, `timeouts`, `settings`, `mark`, `sync`, `service`",
    );
    check(
        "[timeouts]\nicmp = 3",
        "f:3: unknown field `icmp`, expected one of `tcp`, `tcp_fin`, `udp`",
    );
    check(
        "[timeouts]\ntcp = \"1\"",
        "f:3: invalid type: string \"1\", expected i64",
    );
    check(
        "[director]\nidle = \"sleep\"",
        "f:3: unknown variant `sleep`, expected `backoff` or `poll`",
    );
    check(
        "[director]\nlog_format = \"xml\"",
        "f:3: unknown variant `xml`, expected `human` or `json`",
    );
    check(
        "\n[[route]]\nto = \"0.0.0.0/0\"",
        "f:3: missing field `via`",
    );
}

#[test]
fn director_and_eal() {
    check(
        "[director]\nsocket = \"run/s\"",
        "f:3: socket \"run/s\" cannot be one, an absolute path of at most 107 bytes like \"/run/director/director.sock\" is right",
    );
    check(
        "[director]\nsocket_group = \"a b\"",
        "f:3: socket_group \"a b\" cannot be a group, \"director\" is right",
    );
    check(
        "[director]\nworkers = []",
        "f:3: workers is empty, at least one core like [1] is right",
    );
    check(
        "[director]\nworkers = [\n1,\n2,\n1]",
        "f:6: core 1 has a worker already, name each core once",
    );
    check(
        "[director]\nworkers = [-1]",
        "f:3: worker core = -1 is out of range, 0 to 1023 is right",
    );
    check(
        "[director]\nworkers = [1, 2]\nidle = \"poll\"\ncontrol_core = 2",
        "f:5: control_core = 2 has a worker that never sleeps, a core without one, or idle = \"backoff\", is right",
    );
    check(
        "[director]\nmax_connections = 63",
        "f:3: max_connections = 63 is out of range, 64 to 1073741824 is right",
    );
    check(
        "[director]\nmax_templates = 63",
        "f:3: max_templates = 63 is out of range, 64 to 16777216 is right",
    );
    check(
        "[director]\nmax_servers = 0",
        "f:3: max_servers = 0 is out of range, 1 to 1048576 is right",
    );
    check(
        "[director]\nlog = \"loud\"",
        "f:3: log level \"loud\" is unknown, \"error\", \"warn\", \"info\", \"debug\" or \"trace\" is right",
    );
    check(
        "[eal]\nmemory_mb = 1",
        "f:3: memory_mb = 1 is out of range, 64 to 1048576 is right",
    );
    check(
        "[eal]\nfile_prefix = \"a/b\"",
        "f:3: file_prefix \"a/b\" cannot be one, letters, digits, - _ . are right",
    );
    check(
        "[eal]\nmbufs = 2048",
        "f:3: mbufs = 2048 is too few for descriptors of 2048 packets, more than that is right",
    );
}

#[test]
fn ports() {
    assert_eq!(
        error(""),
        "f:1: no [[port]] is given, at least one is right"
    );
    check("[[port]]", "f:2: duplicate key");
    let device = "device \"eth0\" is not one, a virtual device like \"net_af_packet0,iface=veth0\" or a PCI address like \"0000:3b:00.0\" is right";
    assert_eq!(
        error("[[port]]\nname = \"a\"\ndevice = \"eth0\""),
        format!("f:3: {device}")
    );
    assert_eq!(
        error("[[port]]\nname = \"a b\"\ndevice = \"net_null0\""),
        "f:2: port name \"a b\" cannot be one, letters, digits, - _ . are right"
    );
    check_port(
        "mtu = 67",
        "f:4: mtu = 67 is out of range, 68 to 9200 is right",
    );
    check_port(
        "rx_descriptors = 1000",
        "f:4: rx_descriptors = 1000 is not a power of two, 1024 is right",
    );
    check_port(
        "tx_descriptors = 32",
        "f:4: tx_descriptors = 32 is out of range, 64 to 8192 is right",
    );
    check_port(
        "kernel_name = \"lan0\"",
        "f:4: means nothing without the kernel, kernel = \"auto\" beside it is right",
    );
    check_port(
        "kernel = \"tap\"\nkernel_name = \"a-name-too-long-for-it\"",
        "f:5: \"a-name-too-long-for-it\" cannot be an interface of the kernel's, letters, digits, - _ . are \
         right, 15 at most: kernel_name says another",
    );
    check_port(
        "kernel = \"tap\"\n[[port]]\nname = \"a-kernel\"\ndevice = \"net_null1\"",
        "f:6: port a-kernel is called as the kernel's side of a port, a, another name is right",
    );
    check_port(
        "kernel = \"tap\"\n[[port]]\nname = \"b\"\ndevice = \"net_null1\"\nkernel = \"tap\"\nkernel_name = \"a\"",
        "f:6: the kernel has an interface of this name for another port, each once is right",
    );
    check_port(
        "workers = [2]",
        "f:4: core 2 has no worker, some of [1] are right",
    );
    check_port(
        "workers = [1, 1]",
        "f:4: core 1 has a worker already, name each core once",
    );
    check_port(
        "workers = [2]\nrole = \"clients\"\n[director]\nworkers = [1, 2]",
        "f:5: a role is for a port that all workers poll: each gets its own packets; no role, or no workers, is right",
    );
    check_port(
        "[[port.vlan]]\nid = 4095",
        "f:5: VLAN id = 4095 is out of range, 1 to 4094 is right",
    );
    check_port(
        "vlan = [{ id = 7 },\n{ id = 7 }]",
        "f:5: VLAN 7 of this port is given twice, once is right",
    );
    check_port(
        "[[port]]\nname = \"a\"\ndevice = \"net_null1\"",
        "f:5: a port named \"a\" exists already, name each once",
    );
    check_port(
        "[[port]]\nname = \"b\"\ndevice = \"net_null0,x=1\"",
        "f:6: device net_null0 is a port already, each device once is right",
    );
    let many: String = (0..33)
        .map(|n| format!("[[port]]\nname = \"p{n}\"\ndevice = \"net_null{n}\"\n"))
        .collect();
    assert_eq!(error(&many), "f:98: too many ports, at most 32 is right");
}

/// Where the other end is software on this computer; the file has the last word.
#[test]
fn partial_checksums() {
    let of = |device: &str, more: &str| {
        let text = format!("[[port]]\nname = \"a\"\ndevice = \"{device}\"\n{more}");
        let config = Config::parse(&text, "f").unwrap();
        config.ports[0].spec.partial_checksums
    };
    for (device, default) in [
        ("net_af_packet0,iface=veth0", true),
        ("net_af_xdp0,iface=veth0", true),
        ("net_tap0", true),
        ("net_virtio_user0,path=/dev/vhost-net", true),
        ("net_vhost0,iface=/run/x.sock", true),
        ("net_null0", false),
        ("net_ring0", false),
        ("0000:3b:00.0", false),
    ] {
        assert_eq!(of(device, ""), default, "{device}");
        assert!(of(device, "partial_checksums = true"), "{device}");
        assert!(!of(device, "partial_checksums = false"), "{device}");
    }
}

#[test]
fn addresses() {
    for (address, reason) in [
        (
            "10.0.0.1",
            "\"10.0.0.1\" has no prefix length, 10.0.0.254/24 is right",
        ),
        (
            "10.0.0.1/33",
            "\"10.0.0.1/33\" has no prefix length of 0 to 32, 10.0.0.254/24 is right",
        ),
        (
            "10.0.1/24",
            "\"10.0.1/24\" is not an address with prefix length, 10.0.0.254/24 is right",
        ),
        (
            "2001:db8::1",
            "\"2001:db8::1\" has no prefix length, 2001:db8::fe/64 is right",
        ),
        (
            "2001:db8::1/129",
            "\"2001:db8::1/129\" has no prefix length of 0 to 128, 2001:db8::fe/64 is right",
        ),
        (
            "2001:db8:::1/64",
            "\"2001:db8:::1/64\" is not an address with prefix length, 2001:db8::fe/64 is right",
        ),
        (
            "fe80::1/64",
            "fe80::1 is link-local, which each interface has one of by itself, one for all links like 2001:db8::fe/64 is right",
        ),
        (
            "2001:db8::/64",
            "2001:db8:: is the routers' anycast address of its network, a host's is right",
        ),
        (
            "2001:db8::4/126",
            "2001:db8::4 is the routers' anycast address of its network, a host's is right",
        ),
        (
            "ff05::1/64",
            "ff05::1/64 cannot be an interface's, a unicast one like 2001:db8::fe/64 is right",
        ),
        (
            "::ffff:10.0.0.1/120",
            "::ffff:10.0.0.1/120 cannot be an interface's, a unicast one like 2001:db8::fe/64 is right",
        ),
        (
            "::1/128",
            "::1/128 cannot be an interface's, a unicast one like 2001:db8::fe/64 is right",
        ),
        (
            "2001:db8::1/0",
            "2001:db8::1/0 cannot be an interface's, a unicast one like 2001:db8::fe/64 is right",
        ),
        (
            "10.0.0.0/24",
            "10.0.0.0 is the network address of its network, a host's is right",
        ),
        (
            "10.0.0.255/24",
            "10.0.0.255 is the broadcast address of its network, a host's is right",
        ),
        (
            "224.0.0.1/24",
            "224.0.0.1/24 cannot be an interface's, a unicast one like 10.0.0.254/24 is right",
        ),
        (
            "10.0.0.1/0",
            "10.0.0.1/0 cannot be an interface's, a unicast one like 10.0.0.254/24 is right",
        ),
    ] {
        check_port(
            &format!("addresses = [\n\"{address}\"]"),
            &format!("f:5: {reason}"),
        );
    }
    check_port(
        "addresses = [\"10.0.0.1/24\",\n\"10.0.0.1/24\"]",
        "f:5: address 10.0.0.1 is given twice, once is right",
    );
    check_port(
        "addresses = [\"10.0.0.1/24\"]\n[[port.vlan]]\nid = 1\naddresses = [\"10.0.0.2/24\"]",
        "f:7: network 10.0.0.0/24 is on another interface already, one is right",
    );
    check_port(
        "addresses = [\"2001:db8::1/64\",\n\"2001:DB8:0::1/64\"]",
        "f:5: address 2001:db8::1 is given twice, once is right",
    );
    check_port(
        "addresses = [\"2001:db8::1/64\"]\n[[port.vlan]]\nid = 1\naddresses = [\"2001:db8::2/64\"]",
        "f:7: network 2001:db8::/64 is on another interface already, one is right",
    );
    check_port(
        "vlan = [{ id = 7, addresses = [\"2001:db8::1/64\"] }]\nmtu = 1279",
        "f:5: mtu = 1279 is too small for the port's IPv6 addresses, 1280 or more is right",
    );
    for fine in [
        "10.0.0.1/32",
        "10.0.0.0/31",
        "10.0.0.1/24\", \"10.0.0.2/24",
        "2001:db8::/128",
        "2001:db8::4/127",
        "2001:db8::1/64\", \"2001:db8::2/64\", \"10.0.0.1/24",
        "2001:db8::ffff:ffff:ffff:ffff/64",
    ] {
        Config::parse(&PORT.replace("10.0.0.254/24", fine), "f").unwrap();
    }
}

#[test]
fn routes_and_neighbours() {
    let route = |to: &str, via: &str| format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\"\n");
    check(
        &route("10.1.0.1/16", "10.0.0.1"),
        "f:3: route to 10.1.0.1/16 has bits beyond its length, 10.1.0.0/16 is right",
    );
    check(
        &route("::/0", "10.0.0.1"),
        "f:4: gateway 10.0.0.1 is IPv4, an IPv6 address is right for the route to ::/0",
    );
    check(
        &route("2001:db8:1::1/48", "2001:db8::1"),
        "f:3: route to 2001:db8:1::1/48 has bits beyond its length, 2001:db8:1::/48 is right",
    );
    check(
        &route("2001:db8:1::", "2001:db8::1"),
        "f:3: \"2001:db8:1::\" has no prefix length, ::/0 is right",
    );
    check(
        &route("::/0", "2001:db8::1"),
        "f:4: gateway 2001:db8::1 is on no port's network, another station's address on one is right",
    );
    check(
        &route("0.0.0.0/0", "10.0.1.1"),
        "f:4: gateway 10.0.1.1 is on no port's network, another station's address on one is right",
    );
    check(
        &route("0.0.0.0/0", "10.0.0.254"),
        "f:4: gateway 10.0.0.254 is on no port's network, another station's address on one is right",
    );
    check(
        &route("0.0.0.0/0", "fe80::1"),
        "f:4: gateway fe80::1 is link-local, which does not say on which port, its address on a port's network is right",
    );
    check(
        &route("0.0.0.0/0", "gw"),
        "f:4: gateway \"gw\" is not an address, 10.0.0.1 is right",
    );
    check(
        &route("0.0.0.0/0", "10.0.0.1").repeat(2),
        "f:6: a route to 0.0.0.0/0 is given twice, once is right",
    );
    let both = PORT.replace(
        "\"10.0.0.254/24\"",
        "\"10.0.0.254/24\", \"2001:db8::fe/64\"",
    );
    let config = Config::parse(&format!("{both}{}", route("::/0", "2001:db8::1")), "f").unwrap();
    let to = Prefix {
        address: "::".parse().unwrap(),
        length: 0,
    };
    let via = "2001:db8::1".parse().unwrap();
    assert_eq!(config.routes, [Route { to, via }]);
    let several =
        format!("{PORT}[[route]]\nto = \"0.0.0.0/0\"\nvia = [\"10.0.0.2\", \"10.0.0.1\"]\n");
    let config = Config::parse(&several, "f").unwrap();
    let gateways: Vec<_> = config
        .routes
        .iter()
        .map(|route| route.via.to_string())
        .collect();
    assert_eq!(gateways, ["10.0.0.1", "10.0.0.2"]);
    let written = config.toml(&config.conf().unwrap());
    assert!(
        written.contains("via = [\"10.0.0.1\", \"10.0.0.2\"]\n"),
        "{written}"
    );
    for (route, message) in [
        (
            route("0.0.0.0/0", "2001:db8::1"),
            "f:4: gateway 2001:db8::1 is IPv6, an IPv4 address is right for the route to 0.0.0.0/0",
        ),
        (
            route("::/0", "2001:db8::1").repeat(2),
            "f:6: a route to ::/0 is given twice, once is right",
        ),
        (
            route("::/0", "2001:db8::fe"),
            "f:4: gateway 2001:db8::fe is on no port's network, another station's address on one is right",
        ),
    ] {
        assert_eq!(error(&format!("{both}{route}")), message);
    }
    let neighbour = |address: &str, mac: &str| {
        format!("[[neighbour]]\naddress = \"{address}\"\nmac = \"{mac}\"\n")
    };
    check(
        &neighbour("10.9.0.1", "02:00:00:00:00:07"),
        "f:3: neighbour 10.9.0.1 is on no port's network, another station's address on one is right",
    );
    check(
        &neighbour("10.0.0.1", "02:00:00:00:00:07").repeat(2),
        "f:6: neighbour 10.0.0.1 is given twice, once is right",
    );
    check(
        &neighbour("fe80::7", "02:00:00:00:00:07"),
        "f:3: neighbour fe80::7 is link-local, which does not say on which port, its address on a port's network is right",
    );
    let known = neighbour("2001:db8::7", "02:00:00:00:00:07");
    let config = Config::parse(&format!("{both}{known}"), "f").unwrap();
    assert_eq!(config.neighbours[0].mac, [2, 0, 0, 0, 0, 7]);
    assert_eq!(
        error(&format!("{both}{}", known.repeat(2))),
        "f:6: neighbour 2001:db8::7 is given twice, once is right"
    );
    for mac in [
        "01:00:5e:00:00:07",
        "00:00:00:00:00:00",
        "02:00:00:00:00",
        "02:00:00:00:00:07:08",
        "2:0:0:0:0:7",
        "+2:00:00:00:00:07",
    ] {
        check(
            &neighbour("10.0.0.1", mac),
            &format!("f:4: mac {mac:?} is not a station's, 02:00:00:00:00:07 is right"),
        );
    }
}

#[test]
fn timeouts() {
    check(
        "[timeouts]\ntcp = 0",
        "f:3: tcp = 0 is out of range, 1 to 2678400 is right",
    );
    let config = Config::parse(&format!("{PORT}[timeouts]\nudp = 60"), "f").unwrap();
    assert_eq!(
        (
            config.timeouts.ms(State::Udp),
            config.timeouts.ms(State::Established)
        ),
        (60_000, 900_000)
    );
    assert_eq!(
        config.changes,
        [
            Change::SetTimeouts {
                tcp: Some(900),
                tcp_fin: Some(120),
                udp: Some(60)
            },
            Change::SetSettings(Settings::default())
        ]
    );
}

#[test]
fn settings() {
    check(
        "[settings]\nschedule_icpm = true",
        "f:3: unknown field `schedule_icpm`, expected one of `schedule_icmp`, `pmtu_disc`, `conn_reuse_mode`, `expire_nodest_conn`, `expire_quiescent_template`, \
         `sloppy_tcp`, `sloppy_sctp`, `drop_entry`, `drop_packet`, `secure_tcp`, `am_droprate`, `amemthresh`, \
         `one_packet_replies_untranslated`, `sync_version`, `sync_threshold`, `sync_period`, `sync_refresh_period`, \
         `sync_retries`, `sync_persist_mode`, `sync_ports`",
    );
    check(
        "[settings]\npmtu_disc = 1",
        "f:3: pmtu_disc = 1, true or false is right",
    );
    check(
        "[settings]\npmtu_disc = true\ndrop_entry = 4",
        "f:4: drop_entry = 4 is out of range, 0 to 3 is right",
    );
    check(
        "[settings]\nam_droprate = 0",
        "f:3: am_droprate = 0 is out of range, 1 to 2147483647 is right",
    );
    check(
        "[settings]\namemthresh = -1",
        "f:3: amemthresh = -1 is out of range, 0 to 2147483647 is right",
    );
    check(
        "[settings]\nsloppy_tcp = \"yes\"",
        "f:3: sloppy_tcp = \"yes\" is out of range, true or false is right",
    );
    let config = Config::parse(&format!("{PORT}[settings]\npmtu_disc = false"), "f").unwrap();
    let settings = Settings {
        pmtu_disc: false,
        ..Settings::default()
    };
    assert_eq!(config.changes[1], Change::SetSettings(settings));
}

fn service(keys: &str) -> String {
    format!("[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:80\"\n{keys}")
}

fn server(keys: &str) -> String {
    service(&format!(
        "[[service.server]]\naddress = \"10.0.0.2:80\"\n{keys}"
    ))
}

#[test]
fn services() {
    check(
        "[[service]]\nprotocol = \"dccp\"\naddress = \"10.0.0.1:80\"",
        "f:3: unknown variant `dccp`, expected one of `tcp`, `udp`, `sctp`",
    );
    check(
        "[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1\"",
        "f:4: address \"10.0.0.1\" is not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right",
    );
    check(
        "[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:0\"",
        "f:4: service tcp 10.0.0.1:0 has port 0 (every port), which goes with persistence only; 1 to 65535 is right without",
    );
    check(
        &service("scheduler = \"none\""),
        "f:5: no scheduler \"none\", known are rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos, conhash",
    );
    check(
        &service("").repeat(2),
        "f:7: service tcp 10.0.0.1:80 exists already",
    );
    check(
        &server("method = \"dr\""),
        "f:7: unknown variant `dr`, expected one of `nat`, `direct`, `tunnel`, `fullnat`",
    );
    check(
        &service("[[service.server]]\naddress = \"10.0.0.2:81\"\nmethod = \"direct\""),
        "f:6: server 10.0.0.2:81 has another port than its service, 80 is right for direct routing",
    );
    check(
        &server("weight = -1"),
        "f:7: weight = -1 is out of range, 0 to 2147483647 is right",
    );
    check(
        &server("upper_threshold = -1"),
        "f:7: upper_threshold = -1 is out of range, 0 to 2147483647 is right",
    );
    check(
        &server("upper_threshold = 5\nlower_threshold = 6"),
        "f:6: lower threshold 6 of server 10.0.0.2:80 is above the upper one, 5 or less is right",
    );
    check(
        &server("[[service.server]]\naddress = \"10.0.0.2:80\""),
        "f:8: service tcp 10.0.0.1:80 has server 10.0.0.2:80 already",
    );
    check(
        &format!(
            "{}[director]\nmax_servers = 1",
            server("[[service.server]]\naddress = \"10.0.0.3:80\"\n")
        ),
        "f:8: all 1 servers are in use (a deleted one for up to 240 s after its last connection); raise max_servers",
    );
}

#[test]
fn scheduling() {
    check(
        &service("scheduler = \"sh\"\nscheduler_flags = [\"sh-port\", \"bogus\"]"),
        "f:6: no scheduler flag \"bogus\", \"sh-fallback\" or \"mh-port\" is right",
    );
    check(
        &service("scheduler_flags = [\"sh-port\"]"),
        "f:5: scheduler flag \"sh-port\" does not go with scheduler \"wlc\"",
    );
    for (keys, scheduler, flags) in [
        ("", "wlc", (false, false)),
        ("scheduler = \"mh\"", "mh", (true, false)),
        (
            "scheduler = \"mh\"\nscheduler_flags = []",
            "mh",
            (false, false),
        ),
        (
            "scheduler = \"sh\"\nscheduler_flags = [\"sh-port\"]",
            "sh",
            (false, true),
        ),
    ] {
        let text = format!("{PORT}{}", service(keys));
        let config = Config::parse(&text, "f").unwrap();
        let specs = config.changes.iter().filter_map(|change| match change {
            Change::AddService { spec, .. } => Some(spec),
            _ => None,
        });
        let set = |flags: control::SchedulerFlags| (flags.fallback, flags.port);
        let specs: Vec<_> = specs
            .map(|spec| (spec.scheduler.as_str(), set(spec.flags)))
            .collect();
        assert_eq!(specs, [(scheduler, flags)], "{keys}");
    }
}

#[test]
fn tunnels() {
    check(
        &server("tunnel = \"ipip\""),
        "f:7: tunnel goes with method = \"tunnel\" only",
    );
    check(
        &server("method = \"fullnat\"\ntunnel_checksum = \"none\""),
        "f:8: tunnel_checksum goes with method = \"tunnel\" only",
    );
    check(
        &server("method = \"tunnel\"\ntunnel = \"vxlan\""),
        "f:8: unknown variant `vxlan`, expected one of `ipip`, `gue`, `gre`",
    );
    check(
        &server("method = \"tunnel\"\ntunnel = \"gre\"\ntunnel_port = 6080"),
        "f:9: tunnel_port goes with tunnel = \"gue\" only",
    );
    check(
        &server("method = \"tunnel\"\ntunnel = \"gue\"\ntunnel_port = 0"),
        "f:9: tunnel_port = 0 is out of range, 1 to 65535 is right",
    );
    check(
        &server("method = \"tunnel\"\ntunnel = \"gue\""),
        "f:6: server 10.0.0.2:80 has a gue tunnel without a port, 1 to 65535 is right",
    );
    check(
        &server("method = \"tunnel\"\ntunnel_checksum = \"full\""),
        "f:6: server 10.0.0.2:80 has an ipip tunnel with a checksum, none is right",
    );
    let gue =
        "method = \"tunnel\"\ntunnel = \"gue\"\ntunnel_port = 6080\ntunnel_checksum = \"remote\"";
    let config = Config::parse(&format!("{PORT}{}", server(gue)), "f").unwrap();
    let Some(Change::AddServer { spec, .. }) = config.changes.last() else {
        panic!("{:?}", config.changes)
    };
    let tunnel = Tunnel {
        kind: TunnelKind::Gue,
        port: 6080,
        checksum: TunnelChecksum::Remote,
    };
    assert_eq!((spec.mode, spec.tunnel), (ForwardMode::Tunnel, tunnel));
}

#[test]
fn full_nat_and_options() {
    let full_nat = |locals: &str| {
        let server = "[[service.server]]\naddress = \"[2001:db8::2]:80\"\nmethod = \"fullnat\"";
        service(&format!("local_addresses = [{locals}]\n{server}"))
    };
    check(
        &full_nat("\"172.16.0.1\""),
        "f:7: server [2001:db8::2]:80 has method fullnat but its service has no IPv6 address to reach it from, local_addresses = [\"2001:db8::5\"] is right",
    );
    check(
        &full_nat("\n\"2001:db8::3\",\n\"2001:db8::3\""),
        "f:7: service tcp 10.0.0.1:80 has local address 2001:db8::3 already",
    );
    check(
        &full_nat("\"2001:db8::3/64\""),
        "f:5: \"2001:db8::3/64\" is not an address, 10.0.0.5 or 2001:db8::5 is right",
    );
    check(
        &full_nat("\"2001:db8::3\",\n\"10.0.0.1\""),
        "f:6: 10.0.0.1 is a service's address, a local address needs another one",
    );
    check(
        &service("client_address = \"tao\""),
        "f:5: unknown variant `tao`, expected one of `toa`, `uoa`, `proxy-v1`, `proxy-v2`, `none`",
    );
    check(
        &service("mh_table_size = 4096"),
        "f:5: mh table size 4096 of service tcp 10.0.0.1:80 is not a prime from 251 to 1048573, 4099 is right",
    );
    check(
        &service("mss = 70000"),
        "f:5: mss = 70000 is out of range, 88 to 65495 is right",
    );
    check(
        &service("client_address = \"proxy-v1\"").replace("tcp", "udp"),
        "f:5: service udp 10.0.0.1:80 is not TCP, client address proxy-v1 needs TCP; toa, uoa or none is right",
    );
    let text = service("mh_table_size = 65521\nmss = 1380\nclient_address = \"proxy-v2\"");
    let config = Config::parse(&format!("{PORT}{text}"), "f").unwrap();
    let Some(Change::SetOptions { options, .. }) = config.changes.last() else {
        panic!("{:?}", config.changes)
    };
    let expected = ServiceOptions {
        client_address: ClientAddress::ProxyV2,
        mss: Some(1380),
        mh_table_size: Some(65521),
        ..ServiceOptions::default()
    };
    assert_eq!(*options, expected);
}

#[test]
fn marks() {
    let rules = |text: &str| {
        let config = Config::parse(&format!("{PORT}{text}"), "f").unwrap();
        let changes = config.changes.into_iter();
        let rules = changes.filter_map(|change| match change {
            Change::AddMark { rule, at: None } => Some(rule.to_string()),
            _ => None,
        });
        rules.collect::<Vec<_>>()
    };
    let text = "[[mark]]\nmark = 7\ndestination = \"192.0.2.10\"\nprotocol = \"tcp\"\nports = 80\n\
                [[mark]]\nmark = 0\nsource = \"2001:db8::/32\"\nsource_ports = \"1-1023\"\n\
                in_port = \"lan\"\nvlan = 5\n";
    assert_eq!(
        rules(text),
        [
            "mark 7: to 192.0.2.10, tcp, port 80",
            "mark 0: from 2001:db8::/32, source port 1-1023, in at lan, vlan 5"
        ]
    );
    check("[[mark]]\n", "f:2: missing field `mark`");
    for (keys, message) in [
        (
            "mark = -1",
            "f:3: mark = -1 is out of range, 0 to 4294967295 is right",
        ),
        (
            "mark = 1\nsource = \"10.0.0.1/8\"",
            "f:4: 10.0.0.1/8 has bits set after its first 8, 10.0.0.0/8 is right",
        ),
        (
            "mark = 1\nports = 65536",
            "f:4: \"65536\" is not a port, 80 or 8000-8010 is right",
        ),
        (
            "mark = 1\nports = \"9-1\"",
            "f:4: 9-1 is empty, 1-9 is right",
        ),
        (
            "mark = 1\nvlan = 0",
            "f:4: vlan = 0 is out of range, 1 to 4094 is right",
        ),
        (
            "mark = 1\nin_port = \"wan\"",
            "f:3: no port \"wan\" for a mark rule, there is lan",
        ),
        (
            "mark = 1\n[[mark]]\nmark = 1",
            "f:5: mark rule 1 says the same: mark 1: every packet",
        ),
    ] {
        check(&format!("[[mark]]\n{keys}\n"), message);
    }
    let local = "[[mark]]\nmark = 1\ndestination = \"10.0.0.9\"\n[[service]]\nprotocol = \"tcp\"\n\
                 address = \"10.0.0.1:80\"\nlocal_addresses = [\"10.0.0.9\"]\n";
    check(
        local,
        "f:8: 10.0.0.9 is a mark rule's destination, a local address needs another one",
    );
}

#[test]
fn persistent_and_marked_services() {
    let udp =
        |keys: &str| format!("[[service]]\nprotocol = \"udp\"\naddress = \"10.0.0.1:0\"\n{keys}");
    for (text, message) in [
        (
            udp("netmask = 24"),
            "f:5: netmask goes with persistent, persistent = 360 is right",
        ),
        (
            udp("persistent = 0"),
            "f:5: persistent = 0 is out of range, 1 to 2678400 is right",
        ),
        (
            udp("persistent = 60\nnetmask = 33"),
            "f:6: netmask \"33\" is none, 255.255.255.0 or 24 is right for IPv4",
        ),
        (
            udp("engine = \"sip\""),
            "f:5: service udp 10.0.0.1:0 has engine sip but no persistence, which it goes with",
        ),
        (
            udp("persistent = 60\ntimeout_tcp = 5"),
            "f:6: service udp 10.0.0.1:0 has no tcp timeout, none is right",
        ),
        (
            "[[service]]\nmark = 0".to_owned(),
            "f:3: mark = 0 is out of range, 1 to 4294967295 is right",
        ),
        (
            "[[service]]\nmark = 7\naddress = \"10.0.0.1:80\"".to_owned(),
            "f:4: a service has either a mark (and a family) or a protocol and an address, \
             mark = 7 or protocol = \"tcp\", address = \"10.0.0.1:80\" is right",
        ),
    ] {
        check(&text, message);
    }
    let text = include_str!("../../../configs/persistence.toml");
    let config = Config::parse(text, "persistence.toml").unwrap();
    let services = config.changes.iter().filter_map(|change| match change {
        Change::AddService { service, spec } => Some(format!("{service}: {spec}")),
        _ => None,
    });
    assert_eq!(
        services.collect::<Vec<_>>(),
        [
            "tcp 10.0.0.100:80: wlc, persistent 600 s by 255.255.255.0",
            "tcp 10.0.0.101:0: rr, persistent 360 s",
            "udp 10.0.0.102:5060: rr, persistent 3600 s by 0.0.0.0, engine sip",
            "udp 10.0.0.103:53: rr, one packet",
            "mark 7: wlc, persistent 600 s",
        ]
    );
}

#[test]
fn checks() {
    let check_keys = |keys: &str, message: &str| {
        let text = service(&format!("check = [{{ {keys} }}]"));
        check(&text, message);
    };
    check_keys(
        "type = \"ping\"",
        "f:5: no check of type \"ping\", one of tcp, udp, http, https, dns, icmp, command is right",
    );
    check_keys(
        "type = \"tcp\", path = \"/\"",
        "f:5: path goes with type = \"http\", \"https\" only, this check is of type \"tcp\"",
    );
    check_keys(
        "type = \"http\", path = \"health\"",
        "f:5: path \"health\" is none, \"/health\" is right",
    );
    check_keys(
        "type = \"http\", status = \"2xx\"",
        "f:5: status \"2xx\" is none, \"200-299,304\" is right",
    );
    check_keys(
        "type = \"udp\", send = \"0x0\"",
        "f:5: \"0x0\" is not hexadecimal, \"0x0a0d\" is right",
    );
    check_keys(
        "type = \"dns\"",
        "f:5: a check of type \"dns\" asks for a name, name = \"www.example.org\" is right",
    );
    check_keys(
        "type = \"dns\", name = \"a..b\"",
        "f:5: name \"a..b\" is none, \"www.example.org\" is right",
    );
    check_keys(
        "type = \"command\", command = [\"true\"]",
        "f:5: a check of type \"command\" runs a program by its whole path, \
         command = [\"/usr/local/bin/is-up\", \"--quick\"] is right",
    );
    check_keys(
        "type = \"icmp\", interval_ms = 10",
        "f:5: interval_ms = 10 is out of range, 50 to 86400000 is right",
    );
    check_keys(
        "type = \"icmp\", via = \"method\"",
        "f:5: a check of type \"icmp\" goes by no method, via = \"host\" is right",
    );
    check_keys(
        "type = \"tcp\", via = \"kernel\"",
        "f:5: unknown variant `kernel`, expected `host` or `method`",
    );
    check_keys(
        "type = \"tcp\", via = \"method\", port = 81",
        "f:4: service tcp 10.0.0.1:80: a check with via = \"method\" goes to the service's own address and port",
    );
    check_keys(
        "type = \"tcp\", via = \"method\"",
        "f:4: service tcp 10.0.0.1:80: a check with via = \"method\" leaves by the kernel's side of a port, \
         and no port has one: kernel = \"auto\" is right",
    );
    check_keys(
        "type = \"icmp\", address = \"here\"",
        "f:5: \"here\" is not an address, 10.0.0.5 or 2001:db8::5 is right",
    );
}

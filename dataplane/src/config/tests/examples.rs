//! The files that are shipped.

use super::*;

#[test]
fn the_example_gives_the_defaults() {
    let config = Config::parse(
        include_str!("../../../../configs/example.toml"),
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
        include_str!("../../../../configs/example.toml"),
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
fn the_other_examples_are_accepted() {
    for (name, text) in [
        (
            "nat-two-arm",
            include_str!("../../../../configs/nat-two-arm.toml"),
        ),
        ("nat-pci", include_str!("../../../../configs/nat-pci.toml")),
        (
            "nat-afxdp",
            include_str!("../../../../configs/nat-afxdp.toml"),
        ),
        ("direct", include_str!("../../../../configs/direct.toml")),
        ("tunnel", include_str!("../../../../configs/tunnel.toml")),
        ("fullnat", include_str!("../../../../configs/fullnat.toml")),
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
    let text = include_str!("../../../../configs/ipv6.toml");
    let config = Config::parse(text, "ipv6").unwrap_or_else(|error| panic!("{error}"));
    let mixed = |change: &&Change| match change {
        Change::AddServer {
            service, server, ..
        } => service.is_ipv6() != server.is_ipv6(),
        _ => false,
    };
    assert_eq!(config.changes.iter().filter(mixed).count(), 3);
}

//! Ports, addresses, routes and neighbours.

use super::*;

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

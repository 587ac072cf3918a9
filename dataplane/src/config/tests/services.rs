//! Services, servers, marks and checks.

use super::*;

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
    let text = include_str!("../../../../configs/persistence.toml");
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

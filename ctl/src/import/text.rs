//! The configuration as TOML, with what was not carried over as comments.

use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Write as _};

use super::{Import, Kind, Note, Virtual};
use crate::{
    ForwardMode, HashTarget, Netmask, Persistence, SchedulerFlags, ServerSpec, ServiceKey,
    ServiceTimeouts, Thresholds, Tunnel, TunnelKind, Word,
};

/// With more of them `[director]` has to say so.
const SERVICES_USUAL: usize = 4096;
const SERVERS_USUAL: usize = 16_384;

pub(super) fn toml(import: &Import) -> String {
    let there: HashSet<ServiceKey> = import.services.iter().map(|service| service.key).collect();
    let mut about: HashMap<ServiceKey, Vec<&Note>> = HashMap::new();
    let mut out = Text::default();
    out.comment(format_args!("Imported from {}.", whose(import.kind)));
    out.comment("Ports, their addresses and routes belong in front; configs/example.toml explains each key.");
    limits(&mut out, import);
    for note in &import.notes {
        match note.about.filter(|key| there.contains(key)) {
            Some(key) => about.entry(key).or_default().push(note),
            None => out.comment(note),
        }
    }
    let ServiceTimeouts { tcp, tcp_fin, udp } = import.timeouts;
    if [tcp, tcp_fin, udp].iter().any(Option::is_some) {
        out.table("[timeouts]");
        out.perhaps("tcp", tcp);
        out.perhaps("tcp_fin", tcp_fin);
        out.perhaps("udp", udp);
    }
    if import.expire_quiescent_template {
        out.table("[settings]");
        out.pair("expire_quiescent_template", true);
    }
    for service in &import.services {
        out.0.push('\n');
        for note in about.remove(&service.key).unwrap_or_default() {
            out.comment(note);
        }
        virtual_service(&mut out, service);
    }
    out.0
}

fn whose(kind: Kind) -> &'static str {
    match kind {
        Kind::Ipvsadm => "ipvsadm's command lines",
        Kind::Keepalived => "keepalived.conf",
        Kind::Dpvs => "dpvs.conf",
    }
}

fn limits(out: &mut Text, import: &Import) {
    let services = import.services.len();
    let servers: usize = import
        .services
        .iter()
        .map(|service| service.servers.len())
        .sum();
    for (key, count, usual) in [
        ("max_services", services, SERVICES_USUAL),
        ("max_servers", servers, SERVERS_USUAL),
    ] {
        if count > usual {
            let right = count.next_power_of_two();
            out.comment(format_args!(
                "[director] has to have {key} = {right} or more."
            ));
        }
    }
}

fn virtual_service(out: &mut Text, service: &Virtual) {
    out.0.push_str("[[service]]\n");
    match service.key {
        ServiceKey::Address { protocol, address } => {
            out.word("protocol", protocol.word());
            out.word("address", address);
        }
        ServiceKey::Mark { mark, ipv6 } => {
            out.pair("mark", mark);
            if ipv6 {
                out.word("family", "ipv6");
            }
        }
    }
    let spec = &service.spec;
    out.word("scheduler", &spec.scheduler);
    if spec.flags != SchedulerFlags::usual(&spec.scheduler) {
        out.words("scheduler_flags", spec.flags.names(&spec.scheduler));
    }
    if let Some(Persistence { timeout_s, netmask }) = spec.persistence {
        out.pair("persistent", timeout_s);
        match netmask {
            whole if whole.is_whole() => {}
            Netmask::V4(mask) => out.word("netmask", mask),
            Netmask::V6(prefix) => out.pair("netmask", prefix),
        }
    }
    if let Some(engine) = spec.engine {
        out.word("engine", engine.word());
    }
    if spec.one_packet {
        out.pair("one_packet", true);
    }
    let options = &service.options;
    out.perhaps("timeout_tcp", options.timeouts.tcp);
    out.perhaps("timeout_udp", options.timeouts.udp);
    if options.hash_target != HashTarget::default() {
        out.word("hash_target", options.hash_target.word());
    }
    if options.client_address != crate::ClientAddress::default() {
        out.word("client_address", options.client_address.word());
    }
    if !service.local_addresses.is_empty() {
        out.words(
            "local_addresses",
            service.local_addresses.iter().map(|(local, _)| local),
        );
    }
    for (address, spec, _) in &service.servers {
        out.table("[[service.server]]");
        out.word("address", address);
        server(out, spec);
    }
}

fn server(out: &mut Text, spec: &ServerSpec) {
    out.word("method", spec.mode.word());
    if spec.mode == ForwardMode::Tunnel {
        let Tunnel {
            kind,
            port,
            checksum,
        } = spec.tunnel;
        out.word("tunnel", kind.word());
        if kind == TunnelKind::Gue {
            out.pair("tunnel_port", port);
        }
        if checksum != Tunnel::default().checksum {
            out.word("tunnel_checksum", checksum.word());
        }
    }
    out.pair("weight", spec.weight);
    let Thresholds { upper, lower } = spec.thresholds;
    out.perhaps("upper_threshold", Some(upper).filter(|upper| *upper != 0));
    out.perhaps("lower_threshold", Some(lower).filter(|lower| *lower != 0));
}

/// What is written so far. None of its strings has a character that would need an escape.
#[derive(Default)]
struct Text(String);

impl Text {
    fn comment(&mut self, what: impl Display) {
        self.line(format_args!("# {what}"));
    }

    fn table(&mut self, name: &str) {
        self.line(format_args!("\n{name}"));
    }

    fn pair(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn perhaps(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }

    fn word(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = \"{value}\""));
    }

    fn words(&mut self, key: &str, values: impl IntoIterator<Item = impl Display>) {
        let values = values.into_iter().map(|value| format!("\"{value}\""));
        let values: Vec<String> = values.collect();
        self.pair(key, format_args!("[{}]", values.join(", ")));
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{text}");
    }
}

//! The configuration as TOML, with what was not carried over as comments.

use std::collections::{HashMap, HashSet};
use std::fmt::{Display, Write as _};

use super::{Import, Kind, Note};
use crate::{Conf, ServerConf, ServiceConf, ServiceKey, ServiceTimeouts, Settings, TimeoutsConf};

/// With more of them `[director]` has to say so.
const SERVICES_USUAL: usize = 4096;
const SERVERS_USUAL: usize = 16_384;

pub(super) fn toml(import: &Import) -> String {
    let there: HashSet<ServiceKey> = import.services.iter().map(|service| service.key).collect();
    let mut about: HashMap<ServiceKey, Vec<&Note>> = HashMap::new();
    let mut out = String::new();
    let whose = whose(import.kind);
    comment(&mut out, format_args!("Imported from {whose}."));
    comment(
        &mut out,
        "Ports, their addresses and routes belong in front; configs/example.toml explains each key.",
    );
    limits(&mut out, import);
    for note in &import.notes {
        match note.about.filter(|key| there.contains(key)) {
            Some(key) => about.entry(key).or_default().push(note),
            None => comment(&mut out, note),
        }
    }
    general(import).write(&mut out);
    for service in &import.services {
        out.push('\n');
        for note in about.remove(&service.key).unwrap_or_default() {
            comment(&mut out, note);
        }
        let servers = service.servers.iter();
        let locals = service.local_addresses.iter();
        let service = ServiceConf {
            options: service.options,
            local_addresses: locals.map(|(local, _)| *local).collect(),
            servers: servers
                .map(|(address, spec, _)| ServerConf::new(*address, *spec))
                .collect(),
            ..ServiceConf::new(service.key, service.spec.clone())
        };
        out.push_str(&service.toml());
    }
    out
}

/// What is of no service.
fn general(import: &Import) -> Conf {
    let ServiceTimeouts { tcp, tcp_fin, udp } = import.timeouts;
    let usual = TimeoutsConf::default();
    Conf {
        timeouts: TimeoutsConf {
            tcp: tcp.unwrap_or(usual.tcp),
            tcp_fin: tcp_fin.unwrap_or(usual.tcp_fin),
            udp: udp.unwrap_or(usual.udp),
        },
        settings: Settings {
            expire_quiescent_template: import.expire_quiescent_template,
            ..Settings::default()
        },
        ..Conf::default()
    }
}

fn whose(kind: Kind) -> &'static str {
    match kind {
        Kind::Ipvsadm => "ipvsadm's command lines",
        Kind::Keepalived => "keepalived.conf",
        Kind::Dpvs => "dpvs.conf",
    }
}

fn limits(out: &mut String, import: &Import) {
    let services = import.services.iter();
    let servers: usize = services.map(|service| service.servers.len()).sum();
    for (key, count, usual) in [
        ("max_services", import.services.len(), SERVICES_USUAL),
        ("max_servers", servers, SERVERS_USUAL),
    ] {
        if count > usual {
            let right = count.next_power_of_two();
            let what = format_args!("[director] has to have {key} = {right} or more.");
            comment(out, what);
        }
    }
}

fn comment(out: &mut String, what: impl Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# {what}");
}

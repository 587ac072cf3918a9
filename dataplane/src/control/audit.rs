//! The audit log: what was changed, in words.

use std::collections::BTreeMap;

use control::{Change, ServerSpec, Settings, WhichMark, Word};

use super::model::name;

/// Changes of one request that get a line each; of the others the last line says how many there are.
pub(super) const LINES_MAX: usize = 100;

/// What a request changes, which finds these settings; `was` says what each of its changes finds of
/// what it changes, and `ends_drain` which of them end a server's draining.
pub(super) fn lines(
    changes: &[Change],
    mut settings: Settings,
    was: impl Fn(&Change) -> Option<String>,
    ends_drain: impl Fn(&Change) -> bool,
) -> Vec<String> {
    let (shown, rest) = changes.split_at(changes.len().min(LINES_MAX));
    let mut lines = Vec::new();
    for change in shown {
        let more = if ends_drain(change) {
            ", which ends its draining"
        } else {
            ""
        };
        let was = was(change).map_or(String::new(), |was| format!(" (was {was})"));
        lines.push(format!("{}{was}{more}", describe(change, settings)));
        if let Change::SetSettings(new) = change {
            settings = *new;
        }
    }
    lines.extend(summary(rest));
    lines
}

/// `and 3 more: 1 add service, 2 add server`
fn summary(rest: &[Change]) -> Option<String> {
    let mut kinds = BTreeMap::<&str, usize>::new();
    for change in rest {
        *kinds.entry(kind(change)).or_default() += 1;
    }
    let kinds: Vec<_> = kinds
        .iter()
        .map(|(kind, n)| format!("{n} {kind}"))
        .collect();
    (!rest.is_empty()).then(|| format!("and {} more: {}", rest.len(), kinds.join(", ")))
}

/// What kind of change it is, where [`describe`] says more.
fn kind(change: &Change) -> &'static str {
    match change {
        Change::AddService { .. } => "add service",
        Change::EditService { .. } => "edit service",
        Change::DeleteService { .. } => "delete service",
        Change::Flush => "delete every service",
        Change::AddServer { .. } => "add server",
        Change::EditServer { .. } => "edit server",
        Change::DeleteServer { .. } => "delete server",
        Change::DrainServer { .. } => "drain server",
        Change::CancelDrain { .. } => "cancel draining",
        Change::Zero { .. } => "zero counters",
        Change::AddLocalAddress { .. } => "add local address",
        Change::DeleteLocalAddress { .. } => "delete local address",
        Change::SetOptions { .. } => "set options",
        Change::SetHashTarget { .. } => "set hash target",
        Change::SetHealth { .. } => "set health checks",
        Change::SetServerOptions { .. } => "set server options",
        Change::SetSettings(_) => "set settings",
        Change::AddPort(_) => "add port",
        Change::DeletePort { .. } => "delete port",
        Change::AddAddress(_) => "add address",
        Change::DeleteAddress(_) => "delete address",
        Change::AddRoute(_) => "add route",
        Change::ReplaceRoute(_) => "replace route",
        Change::DeleteRoute { .. } => "delete route",
        Change::AddNeighbour(_) => "add neighbour",
        Change::DeleteNeighbour { .. } => "delete neighbour",
        Change::FlushNeighbours => "flush neighbours",
        Change::AddMark { .. } => "add mark rule",
        Change::DeleteMark(_) => "delete mark rule",
        Change::StartSync(_) => "start sync",
        Change::StopSync { .. } => "stop sync",
        Change::SetTimeouts { .. } => "set timeouts",
    }
}

/// A change in words; `before` are the settings that it finds.
pub(super) fn describe(change: &Change, before: Settings) -> String {
    match change {
        Change::AddService { service, spec } => {
            format!("add service {}: {spec}", name(service))
        }
        Change::EditService { service, spec } => {
            format!("edit service {}: {spec}", name(service))
        }
        Change::DeleteService { service } => format!("delete service {}", name(service)),
        Change::Flush => "delete every service".to_owned(),
        Change::AddServer {
            service,
            server,
            spec,
        } => {
            format!(
                "add server {server} to {}: {}",
                name(service),
                weighed(spec)
            )
        }
        Change::EditServer {
            service,
            server,
            spec,
        } => {
            format!(
                "edit server {server} of {}: {}",
                name(service),
                weighed(spec)
            )
        }
        Change::DeleteServer { service, server } => {
            format!("delete server {server} of {}", name(service))
        }
        Change::DrainServer {
            service,
            server,
            drain,
        } => format!("drain server {server} of {}: {drain}", name(service)),
        Change::CancelDrain { service, server } => {
            format!(
                "cancel the draining of server {server} of {}",
                name(service)
            )
        }
        Change::Zero {
            only: Some(service),
        } => format!("zero the counters of {}", name(service)),
        Change::Zero { only: None } => "zero every counter".to_owned(),
        Change::AddLocalAddress { service, address } => {
            format!("add local address {address} to {}", name(service))
        }
        Change::DeleteLocalAddress { service, address } => {
            format!("delete local address {address} of {}", name(service))
        }
        Change::SetOptions { service, options } => {
            format!("set options of {}: {options}", name(service))
        }
        Change::SetHashTarget {
            service,
            hash_target,
        } => format!(
            "set hash target of {}: {}",
            name(service),
            hash_target.word()
        ),
        Change::SetHealth { service, health } => {
            format!("set health checks of {}: {health}", name(service))
        }
        Change::SetServerOptions {
            service,
            server,
            options,
        } => format!(
            "set options of server {server} of {}: {options}",
            name(service)
        ),
        Change::SetSettings(settings) => format!("set {}", settings.changed_from(before)),
        Change::AddPort(spec) => format!("add port {spec}"),
        Change::DeletePort { port } => format!("delete port {port}"),
        Change::AddAddress(address) => format!("add address {address}"),
        Change::DeleteAddress(address) => format!("delete address {address}"),
        Change::AddRoute(route) => format!("add route to {route}"),
        Change::ReplaceRoute(route) => format!("replace route to {route}"),
        Change::DeleteRoute { to } => format!("delete route to {to}"),
        Change::AddNeighbour(neighbour) => format!("add static neighbour {neighbour}"),
        Change::DeleteNeighbour { address } => format!("delete static neighbour {address}"),
        Change::FlushNeighbours => "flush learned neighbours".to_owned(),
        Change::AddMark { rule, at: None } => format!("add {rule}"),
        Change::AddMark { rule, at: Some(at) } => format!("add at {at}: {rule}"),
        Change::DeleteMark(WhichMark::Number(number)) => format!("delete mark rule {number}"),
        Change::DeleteMark(WhichMark::Rule(rule)) => format!("delete {rule}"),
        Change::StartSync(daemon) => format!("start sync {daemon}"),
        Change::StopSync { role } => format!("stop sync {role}"),
        Change::SetTimeouts { tcp, tcp_fin, udp } => {
            let shown = |seconds: &Option<u32>| {
                seconds.map_or("as it is".to_owned(), |seconds| format!("{seconds} s"))
            };
            format!(
                "set timeouts: tcp {}, tcp_fin {}, udp {}",
                shown(tcp),
                shown(tcp_fin),
                shown(udp)
            )
        }
    }
}

/// `nat, weight 1`
pub(super) fn weighed(spec: &ServerSpec) -> String {
    format!("{}, weight {}", spec.how(), spec.weight)
}

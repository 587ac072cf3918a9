//! keepalived.conf: its virtual servers, and the local addresses that DPVS's has besides.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use super::blocks::{Dialect, Statement, read};
use super::draft::{Draft, TIMEOUT_MAX_S};
use super::{Around, Import, Kind, Place, Wrong, quoted, virtual_server};

/// Addresses that one line may stand for.
const RANGE_MAX: u32 = 65_536;

/// What virtual servers call by name.
#[derive(Debug, Default)]
pub(super) struct Groups {
    pub(super) services: HashMap<String, Vec<(Entry, Place)>>,
    pub(super) local_addresses: HashMap<String, Vec<(IpAddr, Place)>>,
    pub(super) used: HashSet<String>,
}

/// Of a `virtual_server_group`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Entry {
    At(IpAddr, u16),
    Mark(NonZeroU32),
}

pub(super) fn import(file: &str, text: &str, around: Around<'_>) -> Result<Import, Wrong> {
    let read = read(Dialect::Keepalived, file, text, around)?;
    let mut draft = Draft::new(Kind::Keepalived);
    draft.notes(read.notes);
    // Groups may stand behind what uses them.
    let mut groups = Groups::default();
    for statement in &read.statements {
        groups.take(&mut draft, statement, around);
    }
    for statement in &read.statements {
        match statement.keyword() {
            "virtual_server" => virtual_server::read(&mut draft, &mut groups, statement, around),
            "global_defs" => {
                for inner in statement.inner() {
                    global(&mut draft, inner);
                }
            }
            "virtual_server_group" | "local_address_group" => {}
            keyword => {
                let what = format!("{}: {}", statement.shown(), other(keyword));
                draft.note(&statement.place, None, what);
            }
        }
    }
    groups.unused(&mut draft, &read.statements);
    Ok(draft.finish(&read.files))
}

/// What else there is at the top.
fn other(keyword: &str) -> &'static str {
    match keyword {
        "deny_address_group" | "allow_address_group" => {
            "there are no lists of clients to refuse or allow"
        }
        "tunnel_group" => "a server's own tunnel is its method",
        "SSL" => "checks are not carried over, [[service.check]] is right; docs/health.md",
        _ if keyword.starts_with("vrrp") => "who has an address is no part of it",
        _ => "says nothing of services",
    }
}

fn global(draft: &mut Draft, statement: &Statement) {
    let why = match statement.keyword() {
        "lvs_timeouts" => return timeouts(draft, statement),
        "lvs_sync_daemon" => "goes by keepalived's instance, [[sync]] is right; docs/standby.md",
        "lvs_flush" | "lvs_flush_on_stop" => {
            "the director begins and ends with no services but its own"
        }
        _ => "says nothing of services",
    };
    draft.note(
        &statement.place,
        None,
        format!("{}: {why}", statement.shown()),
    );
}

/// `lvs_timeouts tcp 7200 tcpfin 60 udp 300`
fn timeouts(draft: &mut Draft, statement: &Statement) {
    for pair in statement.values().chunks(2) {
        let seconds = pair.get(1).and_then(|text| text.parse().ok());
        let seconds = seconds.filter(|seconds| (1..=TIMEOUT_MAX_S).contains(seconds));
        let place = match (pair[0].as_str(), seconds) {
            ("tcp", Some(_)) => &mut draft.timeouts.tcp,
            ("tcpfin", Some(_)) => &mut draft.timeouts.tcp_fin,
            ("udp", Some(_)) => &mut draft.timeouts.udp,
            _ => {
                let pair = quoted(&pair.join(" "));
                let what = format!(
                    "lvs_timeouts {pair}: no timeout, tcp, tcpfin or udp and 1 to {TIMEOUT_MAX_S} s is right"
                );
                draft.note(&statement.place, None, what);
                continue;
            }
        };
        *place = seconds;
    }
}

impl Groups {
    fn take(&mut self, draft: &mut Draft, statement: &Statement, around: Around<'_>) {
        let is_services = statement.keyword() == "virtual_server_group";
        if !is_services && statement.keyword() != "local_address_group" {
            return;
        }
        let name = statement.value().unwrap_or_default().to_owned();
        for inner in statement.inner() {
            let taken = if is_services {
                let entries = entries(&inner.words, around);
                let group = self.services.entry(name.clone()).or_default();
                entries.map(|list| group.extend(list.into_iter().map(|e| (e, inner.place.clone()))))
            } else {
                let range = range(inner.keyword());
                let group = self.local_addresses.entry(name.clone()).or_default();
                range.map(|list| group.extend(list.into_iter().map(|a| (a, inner.place.clone()))))
            };
            if taken.is_none() {
                let what = format!(
                    "{}: not understood, 10.0.0.1-9 80 or fwmark 7 is right",
                    inner.shown()
                );
                draft.note(&inner.place, None, what);
            } else if !is_services && let Some(device) = inner.value() {
                let device = quoted(device);
                let what = format!(
                    "{}: device {device} is left out, the director has its addresses at all ports",
                    inner.keyword()
                );
                draft.note(&inner.place, None, what);
            }
        }
    }

    fn unused(&self, draft: &mut Draft, statements: &[Statement]) {
        for statement in statements {
            let is_group = matches!(
                statement.keyword(),
                "virtual_server_group" | "local_address_group"
            );
            let name = statement.value().unwrap_or_default();
            if is_group && !self.used.contains(name) {
                let what = format!("{}: no virtual_server uses it", statement.shown());
                draft.note(&statement.place, None, what);
            }
        }
    }
}

/// A line of a `virtual_server_group`.
fn entries(words: &[String], around: Around<'_>) -> Option<Vec<Entry>> {
    match words {
        [fwmark, mark] if fwmark == "fwmark" => Some(vec![Entry::Mark(mark.parse().ok()?)]),
        [addresses, rest @ ..] if rest.len() <= 1 => {
            let port = rest.first().map_or(Some(0), |text| port(text, around))?;
            let addresses = range(addresses)?.into_iter();
            Some(addresses.map(|address| Entry::At(address, port)).collect())
        }
        _ => None,
    }
}

pub(super) fn port(text: &str, around: Around<'_>) -> Option<u16> {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic());
    text.parse()
        .ok()
        .or_else(|| around.names.port(text, None).filter(|_| is_name))
}

/// `192.0.2.1`, `192.0.2.1-9`, `2001:db8::1-f`: up to the last part's other value.
pub(super) fn range(text: &str) -> Option<Vec<IpAddr>> {
    let Some((first, last)) = text.split_once('-') else {
        return Some(vec![text.parse().ok()?]);
    };
    let list = match first.parse().ok()? {
        IpAddr::V4(first) => {
            let low = first.octets()[3];
            let high = last.parse::<u8>().ok().filter(|high| *high >= low)?;
            let count = u32::from(high - low);
            (0..=count)
                .map(|i| std::net::Ipv4Addr::from_bits(first.to_bits() + i).into())
                .collect()
        }
        IpAddr::V6(first) => {
            let low = first.segments()[7];
            let high = u16::from_str_radix(last, 16)
                .ok()
                .filter(|high| *high >= low)?;
            let count = u32::from(high - low).min(RANGE_MAX);
            let at = |i| std::net::Ipv6Addr::from_bits(first.to_bits() + u128::from(i)).into();
            (0..=count).map(at).collect()
        }
    };
    Some(list)
}

//! Command lines as `ipvsadm -S` writes them and `ipvsadm -R` reads them, with the words of DPVS's and
//! Alibaba's ipvsadm.

use std::sync::Arc;

use super::draft::Draft;
use super::{Around, Import, Kind, Place, Wrong, quoted};
use crate::ipvsadm::args::{Command, parse};
use crate::ipvsadm::lower::request;
use crate::ipvsadm::run::restore_words;
use crate::{Change, ClientAddress, HashTarget, Protocol, Request, ServiceKey, ServiceTimeouts};

pub(super) fn import(file: &str, text: &str, around: Around<'_>) -> Result<Import, Wrong> {
    let mut draft = Draft::new(Kind::Ipvsadm);
    let name: Arc<str> = file.into();
    for (line, text) in (1..).zip(text.lines()) {
        let place = Place {
            file: Arc::clone(&name),
            line,
        };
        let words = restore_words(text);
        if !words.is_empty() {
            self::line(&mut draft, &place, words, around)?;
        }
    }
    Ok(draft.finish(&[name]))
}

fn line(
    draft: &mut Draft,
    place: &Place,
    words: Vec<String>,
    around: Around<'_>,
) -> Result<(), Wrong> {
    let (words, foreign) = translate(words);
    for what in foreign.notes {
        draft.note(place, None, what);
    }
    if foreign.whole {
        return Ok(());
    }
    let wrong = |what: String| Wrong {
        place: place.clone(),
        what,
    };
    if !words.first().is_some_and(|word| word.starts_with('-')) {
        let line = quoted(&words.join(" "));
        return Err(wrong(format!(
            "{line}: no command line, what ipvsadm -S -n prints is right"
        )));
    }
    let parsed = parse(&words, around.names).map_err(|failure| {
        let detail = failure.detail.iter().map(|detail| format!(": {detail}"));
        wrong(quoted(&format!(
            "{}{}",
            failure.message.trim_end(),
            detail.collect::<String>()
        )))
    })?;
    match (parsed.command, request(&parsed)) {
        (Command::Restore | Command::Help | Command::Version, _) => Err(wrong(format!(
            "{} makes no service",
            quoted(&words.join(" "))
        ))),
        (_, Some(Request::Change(changes))) => {
            for change in changes {
                carry_out(draft, place, change, &foreign.options);
            }
            Ok(())
        }
        _ => {
            draft.note(
                place,
                None,
                format!("{}: lists, and changes nothing", quoted(&words.join(" "))),
            );
            Ok(())
        }
    }
}

/// What DPVS's and Alibaba's words say that ours do not.
#[derive(Default)]
struct Foreign {
    notes: Vec<String>,
    options: Options,
    /// Nothing is left of the line.
    whole: bool,
}

#[derive(Default)]
struct Options {
    client_address: Option<ClientAddress>,
    /// Of established connections, in seconds.
    timeout: Option<u32>,
    /// Its servers are told their clients by UOA.
    dpvs: bool,
}

/// The words as ours. Saved lines have each option as a word of its own.
fn translate(words: Vec<String>) -> (Vec<String>, Foreign) {
    let mut foreign = Foreign::default();
    if let Some(why) = nothing_like_it(&words) {
        let line = quoted(&words.join(" "));
        foreign.notes.push(format!("{line}: {why}"));
        foreign.whole = true;
        return (words, foreign);
    }
    let mut out = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    let command = words.next().unwrap_or_default();
    let is_server = matches!(
        command.as_str(),
        "-a" | "-e" | "--add-server" | "--edit-server"
    );
    out.push(match command.as_str() {
        "-P" => "--add-laddr".to_owned(),
        "-Q" => "--del-laddr".to_owned(),
        _ => command,
    });
    while let Some(word) = words.next() {
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        if name == "-b" && is_server {
            foreign.options.dpvs = true;
            out.push("--fullnat".to_owned());
        } else if FOREIGN_SWITCHES.contains(&name) {
            foreign.switch(name);
        } else if FOREIGN_OPTIONS.contains(&name) {
            let value = joined.or_else(|| words.next()).unwrap_or_default();
            foreign.option(name, &value);
        } else {
            out.push(word);
        }
    }
    (out, foreign)
}

/// Why nothing can come of the whole line, if so.
fn nothing_like_it(words: &[String]) -> Option<&'static str> {
    let has = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_str()));
    match words.first()?.as_str() {
        "-U" | "-V" | "-B" | "--add-blklst" | "--del-blklst" | "--get-blklst" | "-O" | "-Y"
        | "-W" | "--add-whtlst" | "--del-whtlst" | "--get-whtlst" => {
            Some("there are no lists of clients to refuse or allow")
        }
        "-G" => Some("lists, and changes nothing"),
        _ if has(&["-H", "--match", "-J", "--snat"]) => Some("the director has no SNAT"),
        _ if has(&["-q", "--icmp-service", "-1", "--icmpv6-service"]) => {
            Some("services are TCP, UDP or SCTP; the director answers echo requests itself")
        }
        _ => None,
    }
}

const FOREIGN_SWITCHES: [&str; 2] = ["--expire-quiescent", "--quic"];
const FOREIGN_OPTIONS: [&str; 9] = [
    "-F",
    "--ifname",
    "-j",
    "--synproxy",
    "-V",
    "--vsestablish-timeout",
    "--conn-timeout",
    "--proxy-protocol",
    "--dest-check",
];

impl Foreign {
    fn switch(&mut self, name: &str) {
        let why = match name {
            "--quic" => {
                "connections are known by addresses; --hash-target qid with conhash keeps QUIC's servers"
            }
            _ => "connections of a server without weight stay; directorctl server drain ends them",
        };
        self.notes.push(format!("{name}: {why}"));
    }

    fn option(&mut self, name: &str, value: &str) {
        let why = match (name, value) {
            ("-F" | "--ifname", _) => "the director has its addresses at all ports",
            ("-j" | "--synproxy" | "--proxy-protocol", "disable") => return,
            ("-j" | "--synproxy", _) => "there is no SYN proxy",
            ("--dest-check", _) => {
                "checks are not carried over, [[service.check]] is right; docs/health.md"
            }
            ("--proxy-protocol", "v1" | "v1-insecure") => {
                return self.options.client_address = Some(ClientAddress::ProxyV1);
            }
            ("--proxy-protocol", "v2" | "v2-insecure") => {
                return self.options.client_address = Some(ClientAddress::ProxyV2);
            }
            ("--proxy-protocol", _) => "v1, v2 or disable is right",
            _ => match value.parse() {
                Ok(seconds) => return self.options.timeout = Some(seconds),
                Err(_) => "not a number of seconds",
            },
        };
        self.notes.push(format!("{name} {}: {why}", quoted(value)));
    }
}

fn carry_out(draft: &mut Draft, place: &Place, change: Change, options: &Options) {
    match change {
        Change::AddService { service, spec } => {
            let added = draft.add_service(place, service, spec);
            if added {
                set_options(draft, service, options);
            }
        }
        Change::EditService { service, spec } => match draft.service(&service) {
            Some(known) => {
                known.spec = spec;
                set_options(draft, service, options);
            }
            None => draft.note(
                place,
                Some(service),
                format!("there is no service {service} to edit"),
            ),
        },
        Change::DeleteService { service } => draft.delete_service(place, service),
        Change::Flush => draft.clear(),
        Change::AddServer {
            service,
            server,
            spec,
        } => {
            draft.add_server(place, service, server, spec);
            if options.dpvs {
                set_options(draft, service, options);
            }
        }
        Change::EditServer {
            service,
            server,
            spec,
        } => draft.edit_server(place, service, server, spec),
        Change::DeleteServer { service, server } => draft.delete_server(place, service, server),
        Change::AddLocalAddress { service, address } => {
            draft.add_local_address(place, service, address);
        }
        Change::DeleteLocalAddress { service, address } => match draft.service(&service) {
            Some(known) => known.local_addresses.retain(|(local, _)| *local != address),
            None => draft.note(
                place,
                Some(service),
                format!("there is no service {service}"),
            ),
        },
        Change::SetHashTarget {
            service,
            hash_target,
        } => set_hash_target(draft, service, hash_target),
        Change::SetOptions { service, options } => {
            if let Some(known) = draft.service(&service) {
                known.options = options;
            }
        }
        Change::SetTimeouts { tcp, tcp_fin, udp } => {
            let now = draft.timeouts;
            draft.timeouts = ServiceTimeouts {
                tcp: tcp.or(now.tcp),
                tcp_fin: tcp_fin.or(now.tcp_fin),
                udp: udp.or(now.udp),
            };
        }
        Change::StartSync(daemon) => {
            let what = format!("sync {daemon}: a [[sync]] section of the file starts it");
            draft.note(place, None, what);
        }
        Change::Zero { .. } => draft.note(place, None, "-Z: counters begin at zero"),
        _ => {}
    }
}

fn set_options(draft: &mut Draft, key: ServiceKey, options: &Options) {
    let Some(service) = draft.service(&key) else {
        return;
    };
    let set = &mut service.options;
    let udp = key.protocol() == Some(Protocol::Udp);
    if options.dpvs && udp {
        set.client_address = ClientAddress::Uoa;
    }
    set.client_address = options.client_address.unwrap_or(set.client_address);
    let timeout = if udp {
        &mut set.timeouts.udp
    } else {
        &mut set.timeouts.tcp
    };
    *timeout = options.timeout.or(*timeout);
}

fn set_hash_target(draft: &mut Draft, key: ServiceKey, hash_target: HashTarget) {
    if let Some(service) = draft.service(&key) {
        service.options.hash_target = hash_target;
    }
}

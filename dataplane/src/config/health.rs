//! `[[service.check]]`, `[service.passive]`, and what servers say of their checks.

use std::ops::Range;

use control::{
    Change, Check, Dns, DnsRecord, Health, Http, OnFailure, Passive, Payload, Probe, Rcode, Rhythm,
    ServerOptions, ServiceKey, StatusSet, Talk, Tls, Via, health,
};
use serde::Deserialize;
use toml::Spanned;

use super::file::{RawServer, RawService};
use super::reader::{Checked, Reader};
use super::services::Changes;

/// Keys of every kind of check; which goes with which is found out here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    #[serde(rename = "type")]
    kind: Spanned<String>,
    via: Option<Spanned<Via>>,
    address: Option<Spanned<String>>,
    port: Option<Spanned<i64>>,
    interval_ms: Option<Spanned<i64>>,
    timeout_ms: Option<Spanned<i64>>,
    rise: Option<Spanned<i64>>,
    fall: Option<Spanned<i64>>,
    retries: Option<Spanned<i64>>,
    retry_ms: Option<Spanned<i64>>,
    jitter: Option<Spanned<i64>>,
    send: Option<Spanned<String>>,
    expect: Option<Spanned<String>>,
    method: Option<Spanned<String>>,
    path: Option<Spanned<String>>,
    host: Option<Spanned<String>>,
    status: Option<Spanned<String>>,
    body: Option<Spanned<String>>,
    sni: Option<Spanned<String>>,
    verify: Option<Spanned<bool>>,
    ca_file: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    record: Option<Spanned<DnsRecord>>,
    rcode: Option<Spanned<Rcode>>,
    answer: Option<Spanned<String>>,
    command: Option<Spanned<Vec<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPassive {
    window_s: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    failed_percent: Option<Spanned<i64>>,
    eject_s: Option<Spanned<i64>>,
    ejected_max_percent: Option<Spanned<i64>>,
}

/// A key, where it is, and the kinds that it goes with.
type Particular = (&'static str, Option<Range<usize>>, &'static [&'static str]);

const KINDS: [&str; 7] = ["tcp", "udp", "http", "https", "dns", "icmp", "command"];

impl RawCheck {
    /// Each key that goes with some kinds only, and where it is.
    fn keys(&self) -> [Particular; 15] {
        const TALK: &[&str] = &["tcp", "udp"];
        const HTTP: &[&str] = &["http", "https"];
        const TLS: &[&str] = &["https"];
        const DNS: &[&str] = &["dns"];
        fn place<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
            value.map(Spanned::span)
        }
        [
            ("send", place(self.send.as_ref()), TALK),
            ("expect", place(self.expect.as_ref()), TALK),
            ("method", place(self.method.as_ref()), HTTP),
            ("path", place(self.path.as_ref()), HTTP),
            ("host", place(self.host.as_ref()), HTTP),
            ("status", place(self.status.as_ref()), HTTP),
            ("body", place(self.body.as_ref()), HTTP),
            ("sni", place(self.sni.as_ref()), TLS),
            ("verify", place(self.verify.as_ref()), TLS),
            ("ca_file", place(self.ca_file.as_ref()), TLS),
            ("name", place(self.name.as_ref()), DNS),
            ("record", place(self.record.as_ref()), DNS),
            ("rcode", place(self.rcode.as_ref()), DNS),
            ("answer", place(self.answer.as_ref()), DNS),
            ("command", place(self.command.as_ref()), &["command"]),
        ]
    }
}

impl Reader<'_> {
    /// How the servers of a service are watched, if they are; whether that needs a port of theirs.
    pub(super) fn health(
        &self,
        service: ServiceKey,
        whole: Range<usize>,
        raw: &RawService,
        changes: &mut Changes,
    ) -> Checked<bool> {
        let checks = raw.check.iter().map(|check| self.check(check));
        let health = Health {
            checks: checks.collect::<Checked<_>>()?,
            on_failure: (raw.on_failure.as_ref())
                .map_or(OnFailure::Quiesce, |word| *word.get_ref()),
            min_healthy: self.number("min_healthy", raw.min_healthy.as_ref(), 0, 0..=65_535)?,
            passive: raw
                .passive
                .as_ref()
                .map(|passive| self.passive(passive))
                .transpose()?,
            announce: raw.announce.as_ref().map(|name| name.get_ref().clone()),
        };
        for (raw, check) in raw.check.iter().zip(&health.checks) {
            if let Err(why) = check.check() {
                return Err(self.wrong(raw.kind.span(), why));
            }
        }
        let portless = |check: &Check| matches!(check.probe, Probe::Icmp | Probe::Command(_));
        let needs_port = (health.checks.iter())
            .any(|check| check.port.is_none() && check.via == Via::Host && !portless(check));
        if health != Health::default() {
            let health = Box::new(health);
            changes.push(whole, Change::SetHealth { service, health });
        }
        Ok(needs_port)
    }

    /// What is said of a server beside its method and weight.
    pub(super) fn server_options(&self, raw: &RawServer) -> Checked<ServerOptions> {
        let address = raw.check_address.as_ref();
        Ok(ServerOptions {
            sorry: raw.sorry,
            check_address: address.map(|address| self.address(address)).transpose()?,
            check_port: self.check_port(raw.check_port.as_ref())?,
        })
    }

    fn check_port(&self, raw: Option<&Spanned<i64>>) -> Checked<Option<u16>> {
        raw.map(|port| self.number("port", Some(port), 0, 1..=65_535))
            .transpose()
    }

    fn passive(&self, raw: &RawPassive) -> Checked<Passive> {
        let default = Passive::default();
        let number = |key, raw: &Option<Spanned<i64>>, default, max| {
            self.number(key, raw.as_ref(), default, 1..=max)
        };
        Ok(Passive {
            window_s: number("window_s", &raw.window_s, default.window_s, 3600)?,
            connections: number(
                "connections",
                &raw.connections,
                default.connections,
                1_000_000,
            )?,
            failed_percent: number(
                "failed_percent",
                &raw.failed_percent,
                default.failed_percent,
                100,
            )?,
            eject_s: number("eject_s", &raw.eject_s, default.eject_s, 86_400)?,
            ejected_max_percent: number(
                "ejected_max_percent",
                &raw.ejected_max_percent,
                default.ejected_max_percent,
                100,
            )?,
        })
    }

    fn check(&self, raw: &RawCheck) -> Checked<Check> {
        let kind = raw.kind.get_ref().as_str();
        if !KINDS.contains(&kind) {
            let reason = format!(
                "no check of type {kind:?}, one of {} is right",
                KINDS.join(", ")
            );
            return Err(self.wrong(raw.kind.span(), reason));
        }
        for (key, place, kinds) in raw.keys() {
            if let Some(place) = place.filter(|_| !kinds.contains(&kind)) {
                let reason = format!(
                    "{key} goes with type = {kinds:?} only, this check is of type {kind:?}"
                );
                return Err(self.wrong(place, reason.replace(['[', ']'], "")));
            }
        }
        let address = raw.address.as_ref();
        Ok(Check {
            probe: self.probe(kind, raw)?,
            via: raw.via.as_ref().map_or(Via::Host, |via| *via.get_ref()),
            address: address.map(|address| self.address(address)).transpose()?,
            port: self.check_port(raw.port.as_ref())?,
            rhythm: self.rhythm(raw)?,
        })
    }

    fn probe(&self, kind: &str, raw: &RawCheck) -> Checked<Probe> {
        Ok(match kind {
            "tcp" => Probe::Tcp(self.talk(raw)?),
            "udp" => Probe::Udp(self.talk(raw)?),
            "http" => Probe::Http(self.http(raw, None)?),
            "https" => {
                let tls = Tls {
                    sni: text(&raw.sni),
                    verify: raw.verify.as_ref().is_some_and(|verify| *verify.get_ref()),
                    ca_file: text(&raw.ca_file),
                };
                Probe::Http(self.http(raw, Some(tls))?)
            }
            "dns" => {
                let Some(name) = text(&raw.name) else {
                    let reason = "a check of type \"dns\" asks for a name, name = \"www.example.org\" is right";
                    return Err(self.wrong(raw.kind.span(), reason));
                };
                Probe::Dns(Dns {
                    name,
                    record: raw
                        .record
                        .as_ref()
                        .map_or(DnsRecord::A, |word| *word.get_ref()),
                    rcode: raw
                        .rcode
                        .as_ref()
                        .map_or(Rcode::NoError, |word| *word.get_ref()),
                    answer: text(&raw.answer),
                })
            }
            "icmp" => Probe::Icmp,
            _ => Probe::Command(
                raw.command
                    .as_ref()
                    .map_or(Vec::new(), |words| words.get_ref().clone()),
            ),
        })
    }

    fn talk(&self, raw: &RawCheck) -> Checked<Talk> {
        let payload = |raw: &Option<Spanned<String>>| match raw {
            Some(text) => Payload::try_from(text.get_ref().clone())
                .map_err(|why| self.wrong(text.span(), why)),
            None => Ok(Payload::default()),
        };
        Ok(Talk {
            send: payload(&raw.send)?,
            expect: payload(&raw.expect)?,
        })
    }

    fn http(&self, raw: &RawCheck, tls: Option<Tls>) -> Checked<Http> {
        let default = Http::default();
        let status = raw.status.as_ref().map(|status| {
            StatusSet::try_from(status.get_ref().clone())
                .map_err(|why| self.wrong(status.span(), why))
        });
        Ok(Http {
            method: text(&raw.method).unwrap_or(default.method),
            path: text(&raw.path).unwrap_or(default.path),
            host: text(&raw.host),
            status: status.transpose()?.unwrap_or(default.status),
            body: text(&raw.body).unwrap_or_default(),
            tls,
        })
    }

    fn rhythm(&self, raw: &RawCheck) -> Checked<Rhythm> {
        let default = Rhythm::default();
        let number = |key, raw: &Option<Spanned<i64>>, default, low: u32, high: u32| {
            self.number(key, raw.as_ref(), default, i64::from(low)..=i64::from(high))
        };
        let (least, most) = (health::INTERVAL_MS_MIN, health::INTERVAL_MS_MAX);
        let (soonest, latest) = (health::TIMEOUT_MS_MIN, health::TIMEOUT_MS_MAX);
        Ok(Rhythm {
            interval_ms: number(
                "interval_ms",
                &raw.interval_ms,
                default.interval_ms,
                least,
                most,
            )?,
            timeout_ms: number(
                "timeout_ms",
                &raw.timeout_ms,
                default.timeout_ms,
                soonest,
                latest,
            )?,
            rise: number("rise", &raw.rise, default.rise, 1, health::RUN_MAX)?,
            fall: number("fall", &raw.fall, default.fall, 1, health::RUN_MAX)?,
            retries: number("retries", &raw.retries, default.retries, 0, health::RUN_MAX)?,
            retry_ms: number("retry_ms", &raw.retry_ms, default.retry_ms, least, most)?,
            jitter: number("jitter", &raw.jitter, default.jitter, 0, health::JITTER_MAX)?,
        })
    }
}

fn text(raw: &Option<Spanned<String>>) -> Option<String> {
    raw.as_ref().map(|text| text.get_ref().clone())
}

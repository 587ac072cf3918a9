//! `[timeouts]` and `[[service]]`: a model accepts them before the director starts.

use std::net::SocketAddr;
use std::ops::Range;

use control::{Change, ForwardMode, Protocol, ServerSpec, ServiceKey, ServiceSpec};
use toml::Spanned;

use super::file::{RawServer, RawService, RawTimeouts};
use super::reader::{Checked, Reader};
use crate::conn::Timeouts;
use crate::conn::state::State;
use crate::control::model::{Limits, Model, TIMEOUT_MAX_S};

impl Reader<'_> {
    /// The table, and the change that sets it.
    pub(super) fn timeouts(&self, raw: &RawTimeouts) -> Checked<(Timeouts, Change)> {
        let mut timeouts = Timeouts::default();
        let mut set = |key: &str, value: Option<&Spanned<i64>>, state| {
            let seconds = self.number(
                key,
                value,
                timeouts.ms(state) / 1000,
                1..=i64::from(TIMEOUT_MAX_S),
            )?;
            timeouts.set_s(state, seconds);
            Ok(Some(seconds))
        };
        let tcp = set("tcp", raw.tcp.as_ref(), State::Established)?;
        let tcp_fin = set("tcp_fin", raw.tcp_fin.as_ref(), State::FinWait)?;
        let udp = set("udp", raw.udp.as_ref(), State::Udp)?;
        Ok((timeouts, Change::SetTimeouts { tcp, tcp_fin, udp }))
    }

    pub(super) fn services(&self, raw: &[RawService], limits: Limits) -> Checked<Vec<Change>> {
        let mut changes = Vec::new();
        let mut places: Vec<Range<usize>> = Vec::new();
        for raw in raw {
            let protocol = match raw.protocol.get_ref().as_str() {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                other => {
                    let reason =
                        format!("protocol {other:?} is not supported, \"tcp\" or \"udp\" is right");
                    return Err(self.wrong(raw.protocol.span(), reason));
                }
            };
            let service = ServiceKey {
                protocol,
                address: self.socket_address(&raw.address)?,
            };
            let (scheduler, place) = match &raw.scheduler {
                // Its address stands for the whole service, but an unknown scheduler is found there.
                Some(name) if crate::sched::Kind::by_name(name.get_ref()).is_none() => {
                    (name.get_ref().as_str(), name.span())
                }
                Some(name) => (name.get_ref().as_str(), raw.address.span()),
                None => ("rr", raw.address.span()),
            };
            changes.push(Change::AddService {
                service,
                spec: ServiceSpec {
                    scheduler: scheduler.to_owned(),
                },
            });
            places.push(place);
            for raw in &raw.server {
                let (server, spec) = (self.socket_address(&raw.address)?, self.server_spec(raw)?);
                changes.push(Change::AddServer {
                    service,
                    server,
                    spec,
                });
                places.push(raw.address.span());
            }
        }
        match Model::new(limits).apply(&changes) {
            Ok(_) => Ok(changes),
            Err(refusal) => {
                let place = refusal
                    .step
                    .and_then(|step| places.get(step).cloned())
                    .unwrap_or(0..0);
                Err(self.wrong(place, refusal.detail))
            }
        }
    }

    fn server_spec(&self, raw: &RawServer) -> Checked<ServerSpec> {
        let mode = match &raw.method {
            None => ForwardMode::Nat,
            Some(method) => match method.get_ref().as_str() {
                "nat" => ForwardMode::Nat,
                "direct" => ForwardMode::Direct,
                other => {
                    let reason = format!(
                        "method {other:?} is not supported yet, \"nat\" or \"direct\" is right"
                    );
                    return Err(self.wrong(method.span(), reason));
                }
            },
        };
        Ok(ServerSpec {
            mode,
            tunnel: control::Tunnel::default(),
            weight: self.number("weight", raw.weight.as_ref(), 1, 0..=i64::from(i32::MAX))?,
        })
    }

    fn socket_address(&self, raw: &Spanned<String>) -> Checked<SocketAddr> {
        raw.get_ref().parse().map_err(|_| {
            let reason = format!(
                "address {:?} is not an address and port, 10.0.0.1:80 is right",
                raw.get_ref()
            );
            self.wrong(raw.span(), reason)
        })
    }
}

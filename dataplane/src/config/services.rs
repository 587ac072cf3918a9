//! `[timeouts]` and `[[service]]`: a model accepts them, and the marks, before the director starts.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Range;

use control::{
    Change, ForwardMode, Netmask, NoFlag, Persistence, SchedulerFlags, ServerOptions, ServerSpec,
    ServiceKey, ServiceOptions, ServiceSpec, SyncDaemon, Thresholds, Tunnel, TunnelKind,
};
use toml::Spanned;

use super::file::{Family, Mask, RawMark, RawServer, RawService, RawTimeouts};
use super::reader::{Checked, Reader};
use crate::conn::Timeouts;
use crate::conn::state::State;
use crate::control::model::{MSS_MAX, MSS_MIN, Model, SLOW_START_MAX_S};
use crate::control::model::{THRESHOLD_MAX, TIMEOUT_MAX_S};

/// Changes, and where in the file each comes from.
#[derive(Default)]
pub(super) struct Changes {
    list: Vec<Change>,
    places: Vec<Range<usize>>,
}

impl Changes {
    pub(super) fn push(&mut self, place: Range<usize>, change: Change) {
        self.list.push(change);
        self.places.push(place);
    }
}

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

    /// What `model`, an empty one, accepts.
    pub(super) fn services(
        &self,
        marks: &[RawMark],
        raw: &[Spanned<RawService>],
        sync: &[Spanned<SyncDaemon>],
        mut model: Model,
    ) -> Checked<Vec<Change>> {
        let mut changes = Changes::default();
        for raw in marks {
            self.mark(raw, &mut changes)?;
        }
        for raw in raw {
            self.service(raw, &mut changes)?;
        }
        // What other directors tell is of services and servers that are there.
        for daemon in sync {
            let start = Change::StartSync(daemon.get_ref().clone());
            changes.push(daemon.span(), start);
        }
        match model.check(&changes.list) {
            Ok(()) => Ok(changes.list),
            Err(refusal) => {
                let place = refusal
                    .step
                    .and_then(|step| changes.places.get(step).cloned())
                    .unwrap_or(0..0);
                Err(self.wrong(place, refusal.detail))
            }
        }
    }

    fn service(&self, raw: &Spanned<RawService>, changes: &mut Changes) -> Checked<()> {
        let (service, whole) = self.service_key(raw)?;
        let raw = raw.get_ref();
        let (scheduler, place) = match &raw.scheduler {
            // Its address stands for the whole service, but an unknown scheduler is found there.
            Some(name) if crate::sched::Kind::by_name(name.get_ref()).is_none() => {
                (name.get_ref().as_str(), name.span())
            }
            Some(name) => (name.get_ref().as_str(), whole),
            None => ("wlc", whole),
        };
        let spec = self.service_spec(&service, scheduler, raw)?;
        changes.push(place.clone(), Change::AddService { service, spec });
        self.options(service, raw, changes)?;
        let checks_need_port = self.health(service, place, raw, changes)?;
        let mut families = [false; 2];
        for raw in &raw.local_addresses {
            let address = self.address(raw)?;
            families[usize::from(address.is_ipv6())] = true;
            changes.push(raw.span(), Change::AddLocalAddress { service, address });
        }
        for raw in &raw.server {
            let (server, spec) = (self.socket_address(&raw.address)?, self.server_spec(raw)?);
            if spec.mode == ForwardMode::FullNat && !families[usize::from(server.is_ipv6())] {
                return Err(self.no_local_address(raw, server));
            }
            let change = Change::AddServer {
                service,
                server,
                spec,
            };
            changes.push(raw.address.span(), change);
            let options = self.server_options(raw)?;
            if server.port() == 0 && options.check_port.is_none() && checks_need_port {
                let reason = format!(
                    "server {server} has no port to be checked at, check_port = 80 is right"
                );
                return Err(self.wrong(raw.address.span(), reason));
            }
            if options != ServerOptions::default() {
                let change = Change::SetServerOptions {
                    service,
                    server,
                    options,
                };
                changes.push(raw.address.span(), change);
            }
        }
        Ok(())
    }

    /// A protocol and an address, or a mark; and the place that stands for the whole service.
    fn service_key(&self, whole: &Spanned<RawService>) -> Checked<(ServiceKey, Range<usize>)> {
        let raw = whole.get_ref();
        match (&raw.protocol, &raw.address, &raw.mark, &raw.family) {
            (Some(protocol), Some(address), None, None) => {
                let key = ServiceKey::at(*protocol.get_ref(), self.socket_address(address)?);
                Ok((key, address.span()))
            }
            (None, None, Some(mark), family) => {
                let range = 1..=i64::from(u32::MAX);
                let number = self.number("mark", Some(mark), 1, range)?;
                let key = ServiceKey::Mark {
                    mark: NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN),
                    ipv6: *family == Some(Family::Ipv6),
                };
                Ok((key, mark.span()))
            }
            (protocol, address, mark, _) => {
                let places = [
                    protocol.as_ref().map(Spanned::span),
                    address.as_ref().map(Spanned::span),
                    mark.as_ref().map(Spanned::span),
                ];
                let place = places.into_iter().flatten().max_by_key(|place| place.start);
                let reason = "a service has either a mark (and a family) or a protocol and an address, \
                              mark = 7 or protocol = \"tcp\", address = \"10.0.0.1:80\" is right";
                Err(self.wrong(place.unwrap_or(whole.span()), reason))
            }
        }
    }

    fn service_spec(
        &self,
        service: &ServiceKey,
        scheduler: &str,
        raw: &RawService,
    ) -> Checked<ServiceSpec> {
        let spec = ServiceSpec {
            flags: self.scheduler_flags(scheduler, raw.scheduler_flags.as_deref())?,
            persistence: self.persistence(service, raw)?,
            engine: raw.engine.as_ref().map(|engine| *engine.get_ref()),
            one_packet: raw.one_packet,
            ..ServiceSpec::new(scheduler)
        };
        match (spec.pointless(service), &raw.engine) {
            (Some(why), Some(engine)) => Err(self.wrong(engine.span(), why)),
            _ => Ok(spec),
        }
    }

    fn persistence(&self, service: &ServiceKey, raw: &RawService) -> Checked<Option<Persistence>> {
        let ipv6 = service.is_ipv6();
        let netmask = match &raw.netmask {
            Some(mask) => {
                if raw.persistent.is_none() {
                    let reason = "netmask goes with persistent, persistent = 360 is right";
                    return Err(self.wrong(mask.span(), reason));
                }
                let text = match mask.get_ref() {
                    Mask::Prefix(prefix) => prefix.to_string(),
                    Mask::Text(text) => text.clone(),
                };
                Netmask::read(&text, ipv6).map_err(|why| self.wrong(mask.span(), why))?
            }
            None => Netmask::whole(ipv6),
        };
        let Some(seconds) = &raw.persistent else {
            return Ok(None);
        };
        let range = 1..=i64::from(TIMEOUT_MAX_S);
        let timeout_s = self.number("persistent", Some(seconds), 0, range)?;
        Ok(Some(Persistence { timeout_s, netmask }))
    }

    fn scheduler_flags(
        &self,
        scheduler: &str,
        raw: Option<&[Spanned<String>]>,
    ) -> Checked<SchedulerFlags> {
        let Some(raw) = raw else {
            return Ok(SchedulerFlags::usual(scheduler));
        };
        let mut flags = SchedulerFlags::default();
        for raw in raw {
            let name = raw.get_ref();
            flags.set(scheduler, name).map_err(|why| {
                let reason = match why {
                    NoFlag::Unknown => {
                        format!(
                            "no scheduler flag {name:?}, \"sh-fallback\" or \"mh-port\" is right"
                        )
                    }
                    NoFlag::Incompatible => {
                        format!("scheduler flag {name:?} does not go with scheduler {scheduler:?}")
                    }
                };
                self.wrong(raw.span(), reason)
            })?;
        }
        Ok(flags)
    }

    /// Each option by itself, so that a refusal is found where it is written.
    fn options(&self, service: ServiceKey, raw: &RawService, changes: &mut Changes) -> Checked<()> {
        let mut options = ServiceOptions::default();
        let mut push =
            |place, options| changes.push(place, Change::SetOptions { service, options });
        if let Some(raw) = &raw.client_address {
            options.client_address = *raw.get_ref();
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.mss {
            let range = i64::from(MSS_MIN)..=i64::from(MSS_MAX);
            options.mss = Some(self.number("mss", Some(raw), 0, range)?);
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.mh_table_size {
            let range = 0..=i64::from(u32::MAX);
            options.mh_table_size = Some(self.number("mh_table_size", Some(raw), 0, range)?);
            push(raw.span(), options);
        }
        let seconds = |key, raw| self.number(key, Some(raw), 0, 1..=i64::from(TIMEOUT_MAX_S));
        if let Some(raw) = &raw.timeout_tcp {
            options.timeouts.tcp = Some(seconds("timeout_tcp", raw)?);
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.timeout_tcp_fin {
            options.timeouts.tcp_fin = Some(seconds("timeout_tcp_fin", raw)?);
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.timeout_udp {
            options.timeouts.udp = Some(seconds("timeout_udp", raw)?);
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.refuse {
            options.refuse = *raw.get_ref();
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.on_server_gone {
            options.on_server_gone = *raw.get_ref();
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.reset_on_expiry {
            options.reset_on_expiry = *raw.get_ref();
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.slow_start {
            let range = 0..=i64::from(SLOW_START_MAX_S);
            options.slow_start_s = self.number("slow_start", Some(raw), 0, range)?;
            push(raw.span(), options);
        }
        if let Some(raw) = &raw.hash_target {
            options.hash_target = *raw.get_ref();
            push(raw.span(), options);
        }
        Ok(())
    }

    fn no_local_address(&self, raw: &RawServer, server: SocketAddr) -> super::ConfigError {
        let (family, like) = if server.is_ipv6() {
            ("IPv6", "2001:db8::5")
        } else {
            ("IPv4", "10.0.0.5")
        };
        let reason = format!(
            "server {server} has method fullnat but its service has no {family} address to reach it from, \
             local_addresses = [\"{like}\"] is right"
        );
        self.wrong(raw.address.span(), reason)
    }

    fn server_spec(&self, raw: &RawServer) -> Checked<ServerSpec> {
        let mode = raw.method.unwrap_or(ForwardMode::Nat);
        Ok(ServerSpec {
            mode,
            tunnel: self.tunnel(raw, mode)?,
            weight: self.number("weight", raw.weight.as_ref(), 1, 0..=i64::from(i32::MAX))?,
            thresholds: self.thresholds(raw)?,
        })
    }

    fn thresholds(&self, raw: &RawServer) -> Checked<Thresholds> {
        let threshold = |key, raw| self.number(key, raw, 0, 0..=i64::from(THRESHOLD_MAX));
        Ok(Thresholds {
            upper: threshold("upper_threshold", raw.upper_threshold.as_ref())?,
            lower: threshold("lower_threshold", raw.lower_threshold.as_ref())?,
        })
    }

    /// Its keys go with its method only, and the port with GUE.
    fn tunnel(&self, raw: &RawServer, mode: ForwardMode) -> Checked<Tunnel> {
        let kind = raw.tunnel.as_ref().map(Spanned::span);
        let port = raw.tunnel_port.as_ref().map(Spanned::span);
        let checksum = raw.tunnel_checksum.as_ref().map(Spanned::span);
        let given = [
            ("tunnel", kind),
            ("tunnel_port", port),
            ("tunnel_checksum", checksum),
        ];
        for (key, place) in given {
            if let Some(place) = place.filter(|_| mode != ForwardMode::Tunnel) {
                let reason = format!("{key} goes with method = \"tunnel\" only");
                return Err(self.wrong(place, reason));
            }
        }
        let default = Tunnel::default();
        let kind = (raw.tunnel.as_ref()).map_or(default.kind, |kind| *kind.get_ref());
        let checksum = raw.tunnel_checksum.as_ref();
        if let (Some(port), true) = (&raw.tunnel_port, kind != TunnelKind::Gue) {
            let reason = "tunnel_port goes with tunnel = \"gue\" only";
            return Err(self.wrong(port.span(), reason));
        }
        Ok(Tunnel {
            kind,
            port: self.number(
                "tunnel_port",
                raw.tunnel_port.as_ref(),
                default.port,
                1..=65535,
            )?,
            checksum: checksum.map_or(default.checksum, |checksum| *checksum.get_ref()),
        })
    }

    fn socket_address(&self, raw: &Spanned<String>) -> Checked<SocketAddr> {
        raw.get_ref().parse().map_err(|_| {
            let reason = format!(
                "address {:?} is not an address and port, 10.0.0.1:80 or [2001:db8::1]:80 is right",
                raw.get_ref()
            );
            self.wrong(raw.span(), reason)
        })
    }

    pub(super) fn address(&self, raw: &Spanned<String>) -> Checked<IpAddr> {
        raw.get_ref().parse().map_err(|_| {
            let reason = format!(
                "{:?} is not an address, 10.0.0.5 or 2001:db8::5 is right",
                raw.get_ref()
            );
            self.wrong(raw.span(), reason)
        })
    }
}

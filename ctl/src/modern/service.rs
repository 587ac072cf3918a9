//! `directorctl service`: virtual services, and what is said of one.

use anyhow::{Error, Result, bail};
use clap::{Args, Subcommand};
use control::{
    Change, ClientAddress, Engine, HashTarget, Netmask, NoFlag, OnServerGone, Persistence, Refuse,
    Request, SchedulerFlags, ServiceKey, ServiceOptions, ServiceSpec,
};

use super::key::Key;
use super::request::Present;
use super::values::{OrNone, mss, one_of, or_none, seconds, some_of};

const SCHEDULER: &str = "By LVS's name: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos; or conhash.";
const FLAGS: &str = "Of sh: sh-fallback, sh-port; of mh: mh-fallback, mh-port; \"none\" for none. sh and mh have \
    their fallback unless set: a client whose server is quiesced or overloaded gets another.";

#[derive(Debug, Subcommand)]
pub(super) enum ServiceVerb {
    /// All services, their local addresses and servers.
    List,
    /// Add a service.
    Add {
        #[command(flatten)]
        service: Key,
        #[arg(long, short, help = SCHEDULER, default_value = "wlc")]
        scheduler: String,
        #[arg(long, value_delimiter = ',', help = FLAGS)]
        scheduler_flags: Option<Vec<String>>,
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Change what is named of a service; connections stay.
    #[command(group = some_of([
        "scheduler", "scheduler_flags", "persistent", "netmask", "engine", "one_packet",
        "client_address", "mss", "mh_table_size", "timeout_tcp", "timeout_tcp_fin", "timeout_udp",
        "refuse", "on_server_gone", "reset_on_expiry", "slow_start", "hash_target",
    ]))]
    Edit {
        #[command(flatten)]
        service: Key,
        #[arg(long, short, help = SCHEDULER)]
        scheduler: Option<String>,
        #[arg(long, value_delimiter = ',', help = FLAGS)]
        scheduler_flags: Option<Vec<String>>,
        #[command(flatten)]
        policy: PolicyArgs,
        #[command(flatten)]
        options: OptionArgs,
    },
    /// Delete a service; its connections stay, but their packets are dropped
    Delete(Key),
}

/// Which clients keep their server, and for how long.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// Seconds for which a client comes back to the server it had, 1 to 2678400; "none", as unless
    /// set, for not.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    persistent: Option<OrNone<u32>>,
    /// Clients whose address is the same under it share a server: 255.255.255.0 or 24 for IPv4, 64
    /// for IPv6. Each by itself unless set.
    #[arg(long)]
    netmask: Option<String>,
    /// What tells persistent clients apart: sip is the Call-ID of SIP over UDP; "none", as unless set,
    /// is the address.
    #[arg(long, value_parser = or_none::<Engine>())]
    engine: Option<OrNone<Engine>>,
    /// Schedule each UDP datagram by itself; =false for not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_packet: Option<bool>,
}

#[derive(Debug, Args)]
pub(super) struct OptionArgs {
    /// How servers reached by fullnat learn the client's address; toa unless set.
    #[arg(long, value_parser = one_of::<ClientAddress>())]
    client_address: Option<ClientAddress>,
    /// The largest TCP segment either side may announce, in bytes; "none" leaves announcements alone.
    #[arg(long, value_parser = mss)]
    mss: Option<OrNone<u16>>,
    /// Slots of mh's table, a prime from 251 to 1048573; 4093 unless set.
    #[arg(long, allow_negative_numbers = true)]
    mh_table_size: Option<u32>,
    /// Seconds without a packet until an established TCP connection ends; "none" for those of all
    /// services.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_tcp: Option<OrNone<u32>>,
    /// The same after a FIN.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_tcp_fin: Option<OrNone<u32>>,
    /// The same for UDP.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout_udp: Option<OrNone<u32>>,
    /// What clients are told when there is no server: ICMP port unreachable (icmp, unless set), a TCP
    /// reset, or nothing.
    #[arg(long, value_parser = one_of::<Refuse>())]
    refuse: Option<Refuse>,
    /// What becomes of packets whose server was deleted: dropped (unless set), answered by a reset, or
    /// sent to another server where they may open a connection.
    #[arg(long, value_parser = one_of::<OnServerGone>())]
    on_server_gone: Option<OnServerGone>,
    /// Reset both ends of a TCP connection that expires while established; =false for not.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    reset_on_expiry: Option<bool>,
    /// Seconds in which the weight of a server that comes or comes back grows; 0 unless set.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    slow_start: Option<u32>,
    /// What conhash tells clients apart by: the address (sip, unless set) or QUIC's connection id (qid).
    #[arg(long, value_parser = one_of::<HashTarget>())]
    hash_target: Option<HashTarget>,
}

impl ServiceVerb {
    pub(super) fn request(&self, present: &mut impl Present) -> Result<Request> {
        let mut changes = Vec::new();
        match self {
            Self::List => return Ok(Request::Services { only: None }),
            Self::Add {
                service,
                scheduler,
                scheduler_flags,
                policy,
                options,
            } => {
                let service = service.key()?;
                let flags = match scheduler_flags {
                    Some(names) => flags(scheduler, names)?,
                    None => SchedulerFlags::usual(scheduler),
                };
                let spec = ServiceSpec {
                    flags,
                    ..ServiceSpec::new(scheduler.clone())
                };
                let spec = policy.over(&service, spec)?;
                changes.push(Change::AddService { service, spec });
                if let Some(options) = options.over(ServiceOptions::default()) {
                    changes.push(Change::SetOptions { service, options });
                }
            }
            Self::Edit {
                service,
                scheduler,
                scheduler_flags,
                policy,
                options,
            } => {
                let service = service.key()?;
                if scheduler.is_some() || scheduler_flags.is_some() || policy.any() {
                    let now = present.service(service)?.spec;
                    let spec = rescheduled(now, scheduler.as_deref(), scheduler_flags.as_deref())?;
                    let spec = policy.over(&service, spec)?;
                    changes.push(Change::EditService { service, spec });
                }
                if options.any()
                    && let Some(options) = options.over(present.service(service)?.options)
                {
                    changes.push(Change::SetOptions { service, options });
                }
            }
            Self::Delete(service) => {
                let service = service.key()?;
                changes.push(Change::DeleteService { service });
            }
        }
        Ok(Request::Change(changes))
    }
}

/// `spec` with what is named. Another scheduler begins with its usual flags.
fn rescheduled(
    spec: ServiceSpec,
    scheduler: Option<&str>,
    names: Option<&[String]>,
) -> Result<ServiceSpec> {
    let scheduler = scheduler.unwrap_or(&spec.scheduler);
    let flags = match names {
        Some(names) => flags(scheduler, names)?,
        None if scheduler == spec.scheduler => spec.flags,
        None => SchedulerFlags::usual(scheduler),
    };
    Ok(ServiceSpec {
        scheduler: scheduler.to_owned(),
        flags,
        ..spec
    })
}

fn flags(scheduler: &str, names: &[String]) -> Result<SchedulerFlags> {
    let mut flags = SchedulerFlags::default();
    for name in names.iter().filter(|name| *name != "none") {
        match flags.set(scheduler, name) {
            Ok(()) => {}
            Err(NoFlag::Unknown) => {
                bail!("no scheduler flag {name:?}, sh-fallback or mh-port,mh-fallback is right")
            }
            Err(NoFlag::Incompatible) => {
                bail!("scheduler flag {name} does not go with scheduler {scheduler}")
            }
        }
    }
    Ok(flags)
}

impl PolicyArgs {
    fn any(&self) -> bool {
        self.persistent.is_some()
            || self.netmask.is_some()
            || self.engine.is_some()
            || self.one_packet.is_some()
    }

    /// `spec` with what is named.
    fn over(&self, service: &ServiceKey, spec: ServiceSpec) -> Result<ServiceSpec> {
        let spec = ServiceSpec {
            persistence: self.persistence(service, spec.persistence)?,
            engine: self.engine.map_or(spec.engine, |OrNone(engine)| engine),
            one_packet: self.one_packet.unwrap_or(spec.one_packet),
            ..spec
        };
        match spec.pointless(service).filter(|_| self.any()) {
            Some(why) => bail!(why),
            None => Ok(spec),
        }
    }

    /// Without a mask of its own it keeps the one there is.
    fn persistence(
        &self,
        service: &ServiceKey,
        now: Option<Persistence>,
    ) -> Result<Option<Persistence>> {
        let ipv6 = service.is_ipv6();
        let timeout_s = match self.persistent {
            Some(OrNone(timeout_s)) => timeout_s,
            None => now.map(|now| now.timeout_s),
        };
        let Some(timeout_s) = timeout_s else {
            if self.netmask.is_some() {
                bail!("--netmask goes with --persistent");
            }
            return Ok(None);
        };
        let netmask = match &self.netmask {
            Some(text) => Netmask::read(text, ipv6).map_err(Error::msg)?,
            None => now.map_or(Netmask::whole(ipv6), |now| now.netmask),
        };
        Ok(Some(Persistence { timeout_s, netmask }))
    }
}

impl OptionArgs {
    fn any(&self) -> bool {
        self.over(ServiceOptions::default()).is_some()
    }

    /// `options` with what is named, if anything is.
    fn over(&self, options: ServiceOptions) -> Option<ServiceOptions> {
        let Self {
            client_address,
            mss,
            mh_table_size,
            timeout_tcp,
            timeout_tcp_fin,
            timeout_udp,
            refuse,
            on_server_gone,
            reset_on_expiry,
            slow_start,
            hash_target,
        } = self;
        let mut options = options;
        let mut any = false;
        any |= set(&mut options.client_address, *client_address);
        any |= set(&mut options.mss, mss.map(|OrNone(mss)| mss));
        any |= set(&mut options.mh_table_size, mh_table_size.map(Some));
        let timeouts = &mut options.timeouts;
        any |= set(&mut timeouts.tcp, timeout_tcp.map(|OrNone(tcp)| tcp));
        any |= set(
            &mut timeouts.tcp_fin,
            timeout_tcp_fin.map(|OrNone(fin)| fin),
        );
        any |= set(&mut timeouts.udp, timeout_udp.map(|OrNone(udp)| udp));
        any |= set(&mut options.refuse, *refuse);
        any |= set(&mut options.on_server_gone, *on_server_gone);
        any |= set(&mut options.reset_on_expiry, *reset_on_expiry);
        any |= set(&mut options.slow_start_s, *slow_start);
        any |= set(&mut options.hash_target, *hash_target);
        any.then_some(options)
    }
}

/// Whether there is something to set.
fn set<T>(place: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *place = value;
            true
        }
        None => false,
    }
}

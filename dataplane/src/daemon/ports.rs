//! The devices of the ports: started, given to the workers, and taken from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use control::{Errno, KernelDriver, PortSpec, PortUse, Refusal};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mio::Waker;

use crate::control::model::{NewPort, kernel_name, side_spec, sides};
use crate::control::stats::{Lost, Machine, PortInfo};
use crate::control::{ANSWER_TIMEOUT, Command, Hardware, Setting, Worker};
use crate::dpdk::{Eal, Error, Mempool, Offer, Port, PortConfig, queue_hint, socket_of, with_room};
use crate::kernel::tables::{LinkId, Tables};
use crate::net::Prefix;
use crate::packet::PortId;
use crate::steer::RETA;
use crate::worker::{Leaving, Queues};

use super::kernel::Watcher;
use super::links::{Link, Links};

/// Where the kernel takes packets from memory that is shared with it.
const VHOST_NET: &str = "/dev/vhost-net";

/// Every port that is open, on the main thread.
#[derive(Debug)]
pub struct Ports {
    eal: Eal,
    /// By worker, as the mailboxes are.
    pools: Vec<Mempool>,
    /// The same.
    cores: Vec<u16>,
    mailboxes: Vec<Sender<Command>>,
    open: BTreeMap<PortId, Open>,
    closing: Vec<Closing>,
    /// Once a port has a kernel's side.
    watcher: Option<Watcher>,
    waker: Option<Arc<Waker>>,
    links: Links,
    /// Entries of the redirection table that the workers go by.
    reta: usize,
}

#[derive(Debug)]
struct Open {
    port: Port,
    /// Packets that its queues of one worker can hold.
    queued: u32,
    link: Link,
}

/// A port whose queues some workers still have.
#[derive(Debug)]
struct Closing {
    id: PortId,
    port: Port,
    taking: Vec<Taking>,
}

#[derive(Debug)]
struct Taking {
    worker: usize,
    /// Once it is told.
    answer: Option<Receiver<Option<Box<Queues>>>>,
}

/// By worker, those of all ports.
pub type ByWorker = Vec<Vec<Queues>>;

impl Ports {
    /// For workers on these cores, each with its pool.
    pub fn new(eal: &Eal, cores: &[u16], pools: &[Mempool]) -> Self {
        Self {
            eal: eal.clone(),
            pools: pools.to_vec(),
            cores: cores.to_vec(),
            mailboxes: Vec::new(),
            open: BTreeMap::new(),
            closing: Vec::new(),
            watcher: None,
            waker: None,
            links: Links::default(),
            reta: RETA,
        }
    }

    /// Wakes the main thread when the kernel's tables changed.
    #[must_use]
    pub fn waking(mut self, waker: Arc<Waker>) -> Self {
        self.waker = Some(waker);
        self
    }

    /// Starts the ports that the EAL was started with, and returns their queues for the workers.
    pub fn start_all<'s>(
        &mut self,
        specs: impl IntoIterator<Item = &'s PortSpec>,
    ) -> anyhow::Result<ByWorker> {
        let specs: Vec<&PortSpec> = specs.into_iter().collect();
        self.reta = self.smallest_table(&specs);
        let mut queues: ByWorker = self.pools.iter().map(|_| Vec::new()).collect();
        let sides = sides(specs.iter().copied());
        for ((id, spec), side) in (0..).map(PortId).zip(specs).zip(sides) {
            let of_port = self.start(id, spec)?;
            let of_side = match side {
                Some(side) => self.start_side(side, id, spec)?,
                None => Vec::new(),
            };
            for (number, own) in (0..self.pools.len())
                .cycle()
                .zip(of_port.into_iter().chain(of_side))
            {
                queues[number].push(own);
            }
        }
        Ok(queues)
    }

    /// Makes and starts the kernel's side of a port that was started.
    fn start_side(
        &mut self,
        side: PortId,
        of: PortId,
        spec: &PortSpec,
    ) -> anyhow::Result<Vec<Queues>> {
        let workers = self.pools.len();
        let device = side_device(spec, self.mac(of), workers);
        let shape = side_spec(spec).zip(device);
        let (shape, device) = shape.context("a port without a kernel's side")?;
        self.start_watcher()?;
        self.eal.plug(&device)?;
        let started = self.start(
            side,
            &PortSpec {
                device: device.clone(),
                ..shape
            },
        );
        if started.is_err()
            && let Err(error) = self.eal.unplug(&device)
        {
            tracing::warn!("{error}");
        }
        if let (Some(open), Some(interface)) = (self.open.get_mut(&of), kernel_name(spec)) {
            open.link.share(interface);
        }
        started.with_context(|| format!("the kernel's side of port {}", spec.name))
    }

    fn start_watcher(&mut self) -> anyhow::Result<()> {
        if self.watcher.is_none() {
            let watcher = Watcher::start(self.waker.clone())
                .context("hearing what the kernel's network is")?;
            self.watcher = Some(watcher);
        }
        Ok(())
    }

    /// Ports that come and go from now on do so at these workers, one a pool.
    pub fn serve(&mut self, workers: &[Worker]) {
        let workers = workers.iter();
        self.mailboxes = workers.map(|worker| worker.mailbox.clone()).collect();
    }

    /// Entries of the redirection table that the workers go by: no more than any device has that spreads
    /// packets over them.
    pub fn reta(&self) -> usize {
        self.reta
    }

    fn smallest_table(&self, specs: &[&PortSpec]) -> usize {
        let hashing = specs.iter().filter(|spec| spec.role.is_some());
        let tables = hashing.map(|spec| Port::offer(&self.eal, &spec.device).table);
        tables
            .filter(|entries| entries.is_power_of_two())
            .fold(RETA, usize::min)
    }

    pub fn mac(&self, id: PortId) -> [u8; 6] {
        self.open.get(&id).map_or([0; 6], |open| open.port.mac())
    }

    /// Starts a port whose device is there; its queues are by worker.
    fn start(&mut self, id: PortId, spec: &PortSpec) -> anyhow::Result<Vec<Queues>> {
        let device = with_room(&spec.device, spec.mtu);
        let offer = Port::offer(&self.eal, &device);
        let shares = Shares::new(spec, &self.cores, &offer)
            .map_err(|reason| anyhow!("port {}, device {device}: {reason}", spec.name))?;
        shares.say(spec, &self.cores, &offer);
        let config = PortConfig {
            name: spec.name.clone(),
            device,
            tx_queues: u16::try_from(shares.send.len()).context("more workers than queues")?,
            one_pool: self.pools.len() == 1,
            rx_descriptors: spec.rx_descriptors,
            tx_descriptors: spec.tx_descriptors,
            mtu: spec.mtu,
            promiscuous: spec.promiscuous,
            role: spec
                .role
                .filter(|_| shares.receive.len() == self.pools.len()),
            reta: self.reta,
        };
        let pools: Vec<_> = shares
            .receive
            .iter()
            .map(|&worker| self.pools[worker].clone())
            .collect();
        let (port, rx, tx) = Port::start(&self.eal, &config, &pools)?;
        tracing::info!(
            port = port.name(),
            device = port.device(),
            mac = control::mac_text(port.mac()),
            capabilities = %port.hardware(),
            "port started"
        );
        let (queued, hashes) = (queued(spec), port.hashes());
        let link = self.links.first(&port);
        self.open.insert(id, Open { port, queued, link });
        let mut rx: BTreeMap<_, _> = shares.receive.iter().zip(rx).collect();
        let mut tx: BTreeMap<_, _> = shares.send.iter().zip(tx).collect();
        let all = (0..self.pools.len()).map(|worker| {
            let leaving = match tx.remove(&worker) {
                Some(queue) => Leaving::from(queue),
                None => Leaving::Through(shares.sender_for(worker)),
            };
            Queues::new(id, rx.remove(&worker), leaving, hashes)
        });
        Ok(all.collect())
    }

    /// Queues that swallow every buffer leave none to receive into.
    fn check_buffers(&self, spec: &PortSpec) -> Result<(), Refusal> {
        let others: u32 = self.open.values().map(|open| open.queued).sum();
        let side = side_spec(spec).map_or(0, |side| queued(&side));
        let queued = others + queued(spec) + side;
        let mbufs = self.pools.iter().map(Mempool::mbufs).min().unwrap_or(0);
        if mbufs > queued {
            return Ok(());
        }
        let detail = format!(
            "port {}: descriptors of {queued} packets on all ports are too many for the {mbufs} packet \
             buffers of a worker; fewer descriptors are right, or more mbufs at the next start",
            spec.name
        );
        Err(refuse(Errno::Enomem, detail))
    }

    /// Gives each worker its queues; `Err` leaves some without.
    fn attach(&self, queues: Vec<Queues>) -> Result<(), Refusal> {
        for (mailbox, queues) in self.mailboxes.iter().zip(queues) {
            let command = Command::Attach(Box::new(queues));
            if mailbox.send_timeout(command, ANSWER_TIMEOUT).is_err() {
                let detail = "a worker takes no commands, so that it cannot be given the port";
                return Err(refuse(Errno::Eagain, detail));
            }
        }
        Ok(())
    }

    fn finish(&mut self, patience: Duration) {
        let mailboxes = &self.mailboxes;
        for closing in &mut self.closing {
            let id = closing.id;
            closing.taking.retain_mut(|taking| {
                if taking.answer.is_none() {
                    let (reply, answer) = bounded(1);
                    let told = mailboxes[taking.worker].try_send(Command::Detach(id, reply));
                    taking.answer = told.ok().map(|()| answer);
                }
                let Some(answer) = &taking.answer else {
                    return true;
                };
                // What it answers goes here. A worker that is no more has nothing to give.
                matches!(
                    answer.recv_timeout(patience),
                    Err(RecvTimeoutError::Timeout)
                )
            });
        }
        let done = |closing: &mut Closing| closing.taking.is_empty();
        for Closing { port, .. } in self.closing.extract_if(.., done) {
            let (name, device) = (port.name().to_owned(), port.device().to_owned());
            drop(port);
            match self.eal.unplug(&device) {
                Ok(()) => tracing::info!(port = name, device, "port closed"),
                Err(error) => tracing::warn!(port = name, "port closed, but {error}"),
            }
        }
    }
}

/// Which workers, by number, have queues of a port.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    receive: Vec<usize>,
    send: Vec<usize>,
}

impl Shares {
    /// All workers have one of each, where nobody wants it otherwise and there are as many. What others
    /// than those that poll the port are to decide about is handed on to them, and what they send without
    /// a queue of their own by one that has.
    fn new(spec: &PortSpec, cores: &[u16], offer: &Offer) -> Result<Self, String> {
        let offered = match offer.rx_queues.min(offer.tx_queues) {
            // It is not there, as will be said when it is started.
            0 => cores.len(),
            offered => offered.into(),
        };
        let mut receive = Vec::new();
        for core in &spec.workers {
            let worker = cores.iter().position(|other| other == core);
            receive.push(worker.ok_or_else(|| {
                format!("core {core} has no worker, some of {cores:?} are right")
            })?);
        }
        if receive.len() > offered {
            let hint = queue_hint(&spec.device, receive.len());
            return Err(format!(
                "offers {offered} queues, its workers {:?} need {}{hint}",
                spec.workers,
                receive.len()
            ));
        }
        if receive.is_empty() {
            receive = (0..cores.len().min(offered)).collect();
        }
        if spec.role.is_some() && !spec.workers.is_empty() && receive.len() < cores.len() {
            return Err(
                "a role is for a port that all workers poll; no role, or no workers, is right"
                    .to_owned(),
            );
        }
        if offer.polls_all && usize::from(offer.rx_queues) > receive.len() {
            return Err(format!(
                "its device string makes {} queues and {} workers poll it: what comes to the other queues would \
                 be lost; as many as workers is right",
                offer.rx_queues,
                receive.len()
            ));
        }
        let has_all = offered.max(offer.tx_queues.into()) >= cores.len();
        let send = if has_all {
            (0..cores.len()).collect()
        } else {
            receive.clone()
        };
        Ok(Self { receive, send })
    }

    /// Who sends for a worker without a queue.
    fn sender_for(&self, worker: usize) -> usize {
        self.send[worker % self.send.len()]
    }

    /// What may be a surprise.
    fn say(&self, spec: &PortSpec, cores: &[u16], offer: &Offer) {
        let (port, polling) = (&spec.name, self.receive.iter().map(|&worker| cores[worker]));
        if spec.workers.is_empty() && self.receive.len() < cores.len() {
            let hint = queue_hint(&spec.device, cores.len());
            let polling: Vec<_> = polling.clone().collect();
            tracing::warn!(
                port,
                ?polling,
                "fewer queues than workers, which hand packets on to the others{hint}"
            );
        }
        for core in polling {
            let (node, own) = (socket_of(core), offer.node);
            if node >= 0 && own >= 0 && node != own {
                tracing::warn!(
                    port,
                    core,
                    "its device is at NUMA node {own}, the worker at {node}: a core of node {own} is faster"
                );
            }
        }
    }
}

impl Hardware for Ports {
    fn machine(&self) -> Machine {
        let (ports, pools) = (self.open.iter(), self.pools.iter());
        Machine {
            ports: ports.map(|(id, open)| info(*id, open)).collect(),
            mbufs_in_use: pools.clone().map(|pool| u64::from(pool.in_use())).sum(),
            mbufs: pools.map(|pool| u64::from(pool.mbufs())).sum(),
        }
    }

    fn open(&mut self, port: NewPort<'_>) -> Result<[u8; 6], Refusal> {
        let NewPort { id, spec, side } = port;
        self.check_buffers(spec)?;
        let device = with_room(&spec.device, spec.mtu);
        let is_new = !self.eal.has(&device);
        if is_new {
            self.eal
                .plug(&device)
                .map_err(|error| cannot(spec, &error))?;
        }
        let queues = self.start(id, spec).map_err(|error| {
            // What was refused is not left behind.
            if is_new && let Err(error) = self.eal.unplug(&device) {
                tracing::warn!("{error}");
            }
            refuse(Errno::Einval, format!("{error:#}"))
        })?;
        let opened = self.attach(queues).and_then(|()| match side {
            None => Ok(()),
            Some(side) => {
                let queues = self.start_side(side, id, spec);
                let queues = queues.map_err(|error| refuse(Errno::Einval, format!("{error:#}")))?;
                self.attach(queues)
            }
        });
        if let Err(refusal) = opened {
            side.into_iter().chain([id]).for_each(|id| self.close(id));
            return Err(refusal);
        }
        Ok(self.mac(id))
    }

    fn close(&mut self, id: PortId) {
        let Some(Open { port, .. }) = self.open.remove(&id) else {
            return;
        };
        let taking = (0..self.mailboxes.len()).map(|worker| Taking {
            worker,
            answer: None,
        });
        let taking = taking.collect();
        self.closing.push(Closing { id, port, taking });
        self.finish(ANSWER_TIMEOUT);
    }

    fn watch_kernel(&mut self) {
        if let Err(error) = self.start_watcher() {
            tracing::warn!("{error:#}");
        }
    }

    fn kernels_tables(&mut self) -> Option<Tables> {
        self.watcher.as_ref()?.take()
    }

    fn set_kernels_address(&mut self, link: LinkId, prefix: Prefix, set: Setting) {
        if let Some(watcher) = &mut self.watcher {
            watcher.set_address(link, prefix, set);
        }
    }

    fn tick(&mut self, now: Duration) {
        self.finish(Duration::ZERO);
        let open = self.open.values_mut();
        let open = open.map(|open| (&open.port, &mut open.link));
        self.links.look(now, open);
    }
}

fn refuse(errno: Errno, detail: impl Into<String>) -> Refusal {
    Refusal {
        errno,
        step: None,
        detail: detail.into(),
    }
}

fn cannot(spec: &PortSpec, error: &Error) -> Refusal {
    refuse(Errno::Einval, format!("port {}: {error}", spec.name))
}

/// Packets that a port's queues of one worker can hold.
fn queued(spec: &PortSpec) -> u32 {
    u32::from(spec.rx_descriptors) + u32::from(spec.tx_descriptors)
}

/// The device of the kernel's side of a port, with the port's Ethernet address.
fn side_device(spec: &PortSpec, mac: [u8; 6], workers: usize) -> Option<String> {
    let (kernel, iface) = (spec.kernel.as_ref()?, kernel_name(spec)?);
    let (name, mac) = (&spec.name, control::mac_text(mac));
    let has_vhost = || std::path::Path::new(VHOST_NET).exists();
    let is_virtio = match kernel.driver {
        KernelDriver::Auto => has_vhost(),
        KernelDriver::VirtioUser => true,
        KernelDriver::Tap => false,
    };
    Some(if is_virtio {
        format!(
            "net_virtio_user_{name},path={VHOST_NET},iface={iface},queues={workers},queue_size=1024,mac={mac}"
        )
    } else {
        format!("net_tap_{name},iface={iface},mac={mac}")
    })
}

fn info(id: PortId, Open { port, link, .. }: &Open) -> PortInfo {
    let stats = port.stats();
    PortInfo {
        id,
        before: Default::default(),
        name: port.name().to_owned(),
        device: port.device().to_owned(),
        mac: control::mac_text(port.mac()),
        mtu: port.mtu(),
        link_up: link.is_up(),
        hardware: Some(port.hardware().clone()),
        used: PortUse {
            speed_mbps: port.speed_mbps(),
            queues: port.queues(),
            offloads: (port.spreads().then(|| "rss".to_owned()).into_iter()).collect(),
            steering: None,
        },
        lost: Lost {
            missed: stats.imissed,
            receive_errors: stats.ierrors,
            send_errors: stats.oerrors,
            no_buffer: stats.rx_nombuf,
        },
    }
}

#[cfg(test)]
mod tests {
    use control::Role;

    use super::*;

    const CORES: [u16; 3] = [4, 5, 6];

    fn shares(workers: &[u16], rx_queues: u16, tx_queues: u16) -> Result<Shares, String> {
        let spec = PortSpec {
            workers: workers.to_vec(),
            ..PortSpec::new("a", "net_af_packet0,iface=x")
        };
        let offer = Offer {
            rx_queues,
            tx_queues,
            ..Offer::default()
        };
        Shares::new(&spec, &CORES, &offer)
    }

    #[test]
    fn workers_share_what_queues_there_are() {
        let are = |receive: &[usize], send: &[usize]| {
            let (receive, send) = (receive.to_vec(), send.to_vec());
            Ok(Shares { receive, send })
        };
        assert_eq!(shares(&[], 8, 8), are(&[0, 1, 2], &[0, 1, 2]));
        assert_eq!(shares(&[], 2, 3), are(&[0, 1], &[0, 1, 2]));
        assert_eq!(shares(&[], 1, 1), are(&[0], &[0]));
        assert_eq!(shares(&[6, 4], 8, 2), are(&[2, 0], &[2, 0]));
        let by_others = shares(&[6, 4], 2, 2).unwrap();
        assert_eq!([1, 3].map(|worker| by_others.sender_for(worker)), [0, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |workers: &[u16], queues| shares(workers, queues, queues).unwrap_err();
        assert_eq!(
            refused(&[7], 8),
            "core 7 has no worker, some of [4, 5, 6] are right"
        );
        let too_few = refused(&[4, 5], 1);
        let right = "offers 1 queues, its workers [4, 5] need 2; ask for them in its device string: \
                     net_af_packet0,qpairs=2,...";
        assert_eq!(too_few, right);
        let mut spec = PortSpec::new("a", "net_af_packet0,iface=x,qpairs=4");
        let offer = Offer {
            rx_queues: 4,
            tx_queues: 4,
            polls_all: true,
            ..Offer::default()
        };
        let lost = Shares::new(&spec, &CORES, &offer).unwrap_err();
        assert!(
            lost.contains("makes 4 queues and 3 workers poll it"),
            "{lost}"
        );
        (spec.role, spec.workers) = (Some(Role::Clients), vec![4]);
        let role = Shares::new(&spec, &CORES, &offer).unwrap_err();
        assert!(role.contains("no role, or no workers, is right"), "{role}");
    }
}

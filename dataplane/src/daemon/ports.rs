//! The devices of the ports: started, given to the workers, and taken from them.

use std::collections::BTreeMap;

use anyhow::Context;
use control::{Errno, KernelDriver, PortSpec, PortUse, Refusal};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::control::model::{kernel_name, side_spec, sides};
use crate::control::stats::{Lost, Machine, PortInfo};
use crate::control::{ANSWER_TIMEOUT, Command, Hardware, Setting, Worker};
use crate::dpdk::{Eal, Error, Mempool, Port, PortConfig, with_room};
use crate::kernel::tables::{LinkId, Tables};
use crate::net::Prefix;
use crate::packet::PortId;
use crate::worker::Queues;

use super::kernel::Watcher;

/// Where the kernel takes packets from memory that is shared with it.
const VHOST_NET: &str = "/dev/vhost-net";

/// Every port that is open, on the main thread.
#[derive(Debug)]
pub struct Ports {
    eal: Eal,
    /// By worker, as the mailboxes are.
    pools: Vec<Mempool>,
    mailboxes: Vec<Sender<Command>>,
    open: BTreeMap<PortId, Open>,
    closing: Vec<Closing>,
    /// Once a port has a kernel's side.
    watcher: Option<Watcher>,
}

#[derive(Debug)]
struct Open {
    port: Port,
    /// Packets that its queues of one worker can hold.
    queued: u32,
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
    pub fn new(eal: &Eal, pools: &[Mempool]) -> Self {
        Self {
            eal: eal.clone(),
            pools: pools.to_vec(),
            mailboxes: Vec::new(),
            open: BTreeMap::new(),
            closing: Vec::new(),
            watcher: None,
        }
    }

    /// Starts the ports that the EAL was started with, and returns their queues for the workers.
    pub fn start_all<'s>(
        &mut self,
        specs: impl IntoIterator<Item = &'s PortSpec>,
    ) -> anyhow::Result<ByWorker> {
        let mut queues: ByWorker = self.pools.iter().map(|_| Vec::new()).collect();
        let specs: Vec<&PortSpec> = specs.into_iter().collect();
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
        if self.watcher.is_none() {
            let watcher = Watcher::start().context("hearing what the kernel's network is")?;
            self.watcher = Some(watcher);
        }
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
        started.with_context(|| format!("the kernel's side of port {}", spec.name))
    }

    /// Ports that come and go from now on do so at these workers, one a pool.
    pub fn serve(&mut self, workers: &[Worker]) {
        let workers = workers.iter();
        self.mailboxes = workers.map(|worker| worker.mailbox.clone()).collect();
    }

    pub fn mac(&self, id: PortId) -> [u8; 6] {
        self.open.get(&id).map_or([0; 6], |open| open.port.mac())
    }

    /// Starts a port whose device is there; its queues are by worker.
    fn start(&mut self, id: PortId, spec: &PortSpec) -> anyhow::Result<Vec<Queues>> {
        let config = port_config(spec, self.pools.len())?;
        let (port, rx, tx) = Port::start(&self.eal, &config, &self.pools)?;
        tracing::info!(
            port = port.name(),
            device = port.device(),
            mac = control::mac_text(port.mac()),
            capabilities = %port.hardware(),
            "port started"
        );
        let queued = queued(spec);
        self.open.insert(id, Open { port, queued });
        let pairs = rx.into_iter().zip(tx);
        Ok(pairs.map(|(rx, tx)| Queues::new(id, rx, tx)).collect())
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

    fn finish(&mut self, patience: std::time::Duration) {
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

impl Hardware for Ports {
    fn machine(&self) -> Machine {
        let (ports, pools) = (self.open.iter(), self.pools.iter());
        Machine {
            ports: ports.map(|(id, open)| info(*id, &open.port)).collect(),
            mbufs_in_use: pools.clone().map(|pool| u64::from(pool.in_use())).sum(),
            mbufs: pools.map(|pool| u64::from(pool.mbufs())).sum(),
        }
    }

    fn open(
        &mut self,
        id: PortId,
        spec: &PortSpec,
        side: Option<PortId>,
    ) -> Result<[u8; 6], Refusal> {
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

    fn kernels_tables(&mut self) -> Option<Tables> {
        self.watcher.as_ref()?.take()
    }

    fn set_kernels_address(&mut self, link: LinkId, prefix: Prefix, set: Setting) {
        if let Some(watcher) = &mut self.watcher {
            watcher.set_address(link, prefix, set);
        }
    }

    fn tick(&mut self) {
        self.finish(std::time::Duration::ZERO);
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

fn port_config(spec: &PortSpec, workers: usize) -> anyhow::Result<PortConfig> {
    Ok(PortConfig {
        name: spec.name.clone(),
        device: with_room(&spec.device, spec.mtu),
        queues: u16::try_from(workers).context("more workers than a port can have queues")?,
        rx_descriptors: spec.rx_descriptors,
        tx_descriptors: spec.tx_descriptors,
        mtu: spec.mtu,
        promiscuous: spec.promiscuous,
    })
}

fn info(id: PortId, port: &Port) -> PortInfo {
    let stats = port.stats();
    PortInfo {
        id,
        before: Default::default(),
        name: port.name().to_owned(),
        device: port.device().to_owned(),
        mac: control::mac_text(port.mac()),
        mtu: port.mtu(),
        link_up: port.link_up(),
        hardware: Some(port.hardware().clone()),
        used: PortUse {
            speed_mbps: port.speed_mbps(),
            queues: port.queues(),
            offloads: (port.spreads().then(|| "rss".to_owned()).into_iter()).collect(),
        },
        lost: Lost {
            missed: stats.imissed,
            receive_errors: stats.ierrors,
            send_errors: stats.oerrors,
            no_buffer: stats.rx_nombuf,
        },
    }
}

//! A NIC, physical or virtual: configured, started, and closed with its last queue.

use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

use control::{PortHardware, Role};
use dpdk_sys as ffi;
use nix::libc::ENOTSUP;

use super::af_packet::Ring;
use super::eal::{Hold, device_name, find_device, option};
use super::{BURST_LEN, Eal, Error, HEADROOM, Mempool, RxQueue, TxQueue, describe};
use crate::packet::BURST;
use crate::steer::{KEY, table};

/// Ethernet header and two VLAN tags.
const L2_MAX: u32 = 14 + 2 * 4;
/// Ethernet header and frame check sequence.
const L2_DEFAULT: u32 = 14 + 4;

/// How a port starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    pub name: String,
    /// A virtual device string, as given to the EAL, or a PCI address.
    pub device: String,
    /// Transmit queues; there is a receive queue a pool.
    pub tx_queues: u16,
    /// All that it ever sends is of one pool.
    pub one_pool: bool,
    pub rx_descriptors: u16,
    pub tx_descriptors: u16,
    pub mtu: u16,
    pub promiscuous: bool,
    /// Who is behind it: the device hashes the clients' end, if it can and there are queues.
    pub role: Option<Role>,
    /// Entries of the redirection table that the workers go by.
    pub reta: usize,
}

impl PortConfig {
    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Port {
            port: self.name.clone(),
            device: self.device.clone(),
            reason: reason.into(),
        }
    }

    /// `Ok` for 0, or what `doing` failed with.
    fn check(&self, code: c_int, doing: &str) -> Result<(), Error> {
        if code >= 0 {
            Ok(())
        } else {
            Err(self.refuse(format!("{doing}: {}", describe(code))))
        }
    }
}

/// What the port lost, as its driver counts; a driver that does not count says 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Dropped by the NIC because the rx queue was full.
    pub imissed: u64,
    /// Received broken.
    pub ierrors: u64,
    /// Failed to send.
    pub oerrors: u64,
    /// Not received because the mempool was exhausted.
    pub rx_nombuf: u64,
}

/// What a device has of all that is shared out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    pub rx_queues: u16,
    pub tx_queues: u16,
    /// Entries of its redirection table.
    pub table: usize,
    /// Its NUMA node; -1 where there is none, or nobody knows.
    pub node: i32,
    /// Packets come to all its queues, whether they are polled or not.
    pub polls_all: bool,
}

/// A started port. It closes, and returns every mbuf, when this and all its queues are gone.
#[derive(Debug)]
pub struct Port {
    started: Arc<Started>,
    name: String,
    device: String,
    mac: [u8; 6],
    mtu: u16,
    hardware: PortHardware,
    spreads: bool,
    hashes: Option<Role>,
}

impl Port {
    /// Configures and starts the port of `config.device`, with one rx queue per pool. With a single
    /// pool, what is sent must be of that pool.
    pub fn start(
        eal: &Eal,
        config: &PortConfig,
        pools: &[Mempool],
    ) -> Result<(Self, Vec<RxQueue>, Vec<TxQueue>), Error> {
        let mut port = Configuring::claim(eal, config, pools)?;
        port.check_limits()?;
        port.configure()?;
        port.set_mtu()?;
        port.set_up_queues()?;
        port.set_promiscuous()?;
        port.receive_multicast()?;
        port.start()?;
        let hashes = port.set_table();
        let mac = port.mac()?;
        let (hardware, spreads) = (hardware(&port.info), port.rss() != 0);
        let started = Arc::new(port.started);
        let rx = (0..started.queues).map(|queue| RxQueue::new(Arc::clone(&started), queue));
        let tx = (0..config.tx_queues).map(|queue| TxQueue::new(Arc::clone(&started), queue));
        let (rx, tx) = (rx.collect(), tx.collect());
        let (name, device) = (config.name.clone(), config.device.clone());
        Ok((
            Self {
                started,
                name,
                device,
                mac,
                mtu: config.mtu,
                hardware,
                spreads,
                hashes,
            },
            rx,
            tx,
        ))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn device(&self) -> &str {
        &self.device
    }

    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Receive queues.
    pub fn queues(&self) -> u16 {
        self.started.queues
    }

    /// Whether the NIC spreads what it receives over the queues (RSS), as configured.
    pub fn spreads(&self) -> bool {
        self.spreads
    }

    /// Whose packets it was told to hash by the clients' end. What comes of that is to be seen.
    pub fn hashes(&self) -> Option<Role> {
        self.hashes
    }

    /// What a device has of all that is shared out; nothing if it is not there.
    pub fn offer(_: &Eal, device: &str) -> Offer {
        let mut info = Box::<ffi::rte_eth_dev_info>::default();
        let Some(id) = find_device(device) else {
            return Offer::default();
        };
        // SAFETY: wants a valid port, which was just found, and room.
        if unsafe { ffi::rte_eth_dev_info_get(id, &mut *info) } != 0 {
            return Offer::default();
        }
        Offer {
            rx_queues: info.max_rx_queues,
            tx_queues: info.max_tx_queues,
            table: info.reta_size.into(),
            // SAFETY: takes any port number.
            node: unsafe { ffi::rte_eth_dev_socket_id(id) },
            polls_all: Ring::of(device).is_some(),
        }
    }

    /// Megabits a second; `None` if the driver does not say, or the link is down.
    pub fn speed_mbps(&self) -> Option<u32> {
        // SAFETY: wants a valid port, which `Started` is.
        let speed = unsafe { ffi::director_link_speed(self.started.id) };
        Some(speed).filter(|speed| {
            ![ffi::DIRECTOR_SPEED_NONE, ffi::DIRECTOR_SPEED_UNKNOWN].contains(speed)
        })
    }

    /// What driver and NIC offer.
    pub fn hardware(&self) -> &PortHardware {
        &self.hardware
    }

    /// As the driver says; see [`interface_below`].
    pub fn link_up(&self) -> bool {
        // SAFETY: wants a valid port, which `Started` is.
        unsafe { ffi::director_link_up(self.started.id) != 0 }
    }

    pub fn stats(&self) -> PortStats {
        let mut stats = ffi::rte_eth_stats::default();
        // SAFETY: wants a valid port, which `Started` is, and room for the structure.
        if unsafe { ffi::rte_eth_stats_get(self.started.id, &mut stats) } != 0 {
            return PortStats::default();
        }
        PortStats {
            imissed: stats.imissed,
            ierrors: stats.ierrors,
            oerrors: stats.oerrors,
            rx_nombuf: stats.rx_nombuf,
        }
    }

    /// Gives up this handle: the port stops and closes once its queues are gone too.
    pub fn stop(self) {}
}

/// A port that is ours; it stops and closes when this goes.
#[derive(Debug)]
pub(super) struct Started {
    id: u16,
    queues: u16,
    /// Whether DPDK was asked for more than its limits: only then there is something to undo.
    configured: bool,
    running: bool,
    /// The rx queues allocate from these: they outlive the port.
    pools: Vec<Mempool>,
    hold: Arc<Hold>,
}

impl Started {
    #[inline(always)]
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Frees what waits in the rx queues: some virtual devices do not when they close.
    fn drain(&self) {
        let mbufs: u64 = self.pools.iter().map(|pool| u64::from(pool.mbufs())).sum();
        for queue in 0..self.queues {
            let mut left = mbufs;
            loop {
                let mut burst = [std::ptr::null_mut(); BURST];
                // SAFETY: wants a running port and queue, nobody else on it (the last handle is
                // going), and room for BURST pointers. The mbufs it gives are ours to free.
                let len = unsafe {
                    let room = burst.as_mut_ptr();
                    let len = ffi::rte_eth_rx_burst(self.id, queue, room, BURST_LEN);
                    ffi::rte_pktmbuf_free_bulk(room, u32::from(len));
                    len
                };
                left = left.saturating_sub(u64::from(len));
                if len == 0 || left == 0 {
                    break;
                }
            }
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.running {
            self.drain();
        }
        if self.configured {
            // SAFETY: wants a valid port that no thread polls: the last handle and queue are
            // gone. A port that never ran may be stopped too.
            unsafe {
                ffi::rte_eth_dev_stop(self.id);
                ffi::rte_eth_dev_close(self.id);
            }
        }
        self.hold.books().ports.retain(|&id| id != self.id);
    }
}

/// A port on its way from claimed to started.
struct Configuring<'a> {
    started: Started,
    config: &'a PortConfig,
    info: Box<ffi::rte_eth_dev_info>,
    rx_descriptors: u16,
    tx_descriptors: u16,
}

impl<'a> Configuring<'a> {
    fn claim(eal: &Eal, config: &'a PortConfig, pools: &[Mempool]) -> Result<Self, Error> {
        let id = find_device(&config.device).ok_or_else(|| config.refuse(missing(config)))?;
        let mut books = eal.hold.books();
        if books.ports.contains(&id) {
            return Err(config.refuse("another port uses this device already"));
        }
        books.ports.push(id);
        drop(books);
        let (pools, hold) = (pools.to_vec(), Arc::clone(&eal.hold));
        let started = Started {
            id,
            queues: 0,
            configured: false,
            running: false,
            pools,
            hold,
        };
        let mut info = Box::<ffi::rte_eth_dev_info>::default();
        // SAFETY: wants a valid port, which was just found and is ours, and room.
        let code = unsafe { ffi::rte_eth_dev_info_get(id, &mut *info) };
        config.check(code, "reading its limits")?;
        let (rx_descriptors, tx_descriptors) = (config.rx_descriptors, config.tx_descriptors);
        Ok(Self {
            started,
            config,
            info,
            rx_descriptors,
            tx_descriptors,
        })
    }

    /// What the device cannot do, said before it is tried.
    fn check_limits(&self) -> Result<(), Error> {
        let (config, info) = (self.config, &self.info);
        let (rx, tx) = (self.started.pools.len(), usize::from(config.tx_queues));
        let (rx_max, tx_max) = (info.max_rx_queues, info.max_tx_queues);
        if rx == 0 || tx == 0 {
            let reason = "wants at least one mempool to receive into, and one queue to send from";
            return Err(config.refuse(reason));
        }
        if rx > rx_max.into() || tx > tx_max.into() {
            let hint = queue_hint(&config.device, rx.max(tx));
            return Err(config.refuse(format!(
                "offers {rx_max} queues to receive and {tx_max} to send, {rx} and {tx} are wanted{hint}"
            )));
        }
        self.check_mtu()?;
        let mtu = config.mtu;
        let (needed, room_max) = (data_room(&config.device, mtu), room_max(&config.device));
        if let Some(pool) = (self.started.pools.iter()).find(|pool| pool.data_room() > room_max) {
            let room = pool.data_room();
            return Err(config.refuse(format!(
                "takes mbufs of {room_max} bytes at most, the mempool's have {room}; all ports \
                 share them, and the longest MTU or framesz sets their size"
            )));
        }
        match self
            .started
            .pools
            .iter()
            .find(|pool| u32::from(pool.data_room()) < needed)
        {
            Some(pool) => Err(config.refuse(format!(
                "MTU {mtu} needs mbufs of {needed} bytes, the mempool's have {}; the longest MTU of the \
                 ports at the start sets their size",
                pool.data_room()
            ))),
            None => Ok(()),
        }
    }

    fn check_mtu(&self) -> Result<(), Error> {
        let (mtu, mtu_min) = (self.config.mtu, self.info.min_mtu);
        let (mtu_max, hint) = match Ring::of(&self.config.device) {
            None => (mtu_max(&self.info), ""),
            Some(ring) => match ring.fault() {
                Some(fault) => return Err(self.config.refuse(fault)),
                None => (
                    ring.mtu_max(),
                    "; framesz in its device string sets how much",
                ),
            },
        };
        if (mtu_min..=mtu_max).contains(&mtu) {
            return Ok(());
        }
        let reason = format!("MTU {mtu}: it offers {mtu_min} to {mtu_max}{hint}");
        Err(self.config.refuse(reason))
    }

    /// Beside [`Self::fast_free`], and the hash where packets are spread by it, no offload is asked for:
    /// checksums are updated in software.
    fn configure(&mut self) -> Result<(), Error> {
        let (config, id) = (self.config, self.started.id);
        self.started.configured = true;
        let mut conf = Box::<ffi::rte_eth_conf>::default();
        conf.rxmode.mtu = u32::from(config.mtu.min(mtu_max(&self.info)));
        conf.txmode.offloads = self.fast_free();
        let rss = self.rss();
        if rss != 0 {
            conf.rxmode.mq_mode = ffi::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf.rss_hf = rss;
        }
        let key_len = self.info.hash_key_size;
        let mut key: Vec<u8> = KEY.into_iter().cycle().take(key_len.into()).collect();
        if self.by_end().is_some() {
            conf.rxmode.offloads = ffi::DIRECTOR_RX_RSS_HASH;
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = key_len;
        }
        // SAFETY: wants a valid, stopped port, and a configuration that it copies, with its key.
        let code =
            unsafe { ffi::rte_eth_dev_configure(id, self.queues(), config.tx_queues, &*conf) };
        config.check(code, "configuring it")?;
        let (rx, tx) = (&mut self.rx_descriptors, &mut self.tx_descriptors);
        // SAFETY: wants a valid port and two numbers to adjust.
        let code = unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(id, rx, tx) };
        config.check(code, "choosing the numbers of descriptors")
    }

    /// With fast free, where there is such a thing, the driver gives back what it sent without a look at
    /// each mbuf. All that a queue ever sends must then be of one pool, unshared and in one piece. Ours
    /// always are the latter two; they are of one pool where that is the only one, that of a worker which
    /// is alone: steering would mix the pools of several.
    fn fast_free(&self) -> u64 {
        match self.config.one_pool {
            true => self.info.tx_offload_capa & ffi::DIRECTOR_TX_FAST_FREE,
            false => 0,
        }
    }

    /// To receive: one a pool.
    #[expect(clippy::cast_possible_truncation, reason = "no device has that many")]
    fn queues(&self) -> u16 {
        self.started.pools.len() as u16
    }

    /// What the NIC is asked to spread packets by; 0 for not.
    fn rss(&self) -> u64 {
        match (self.queues(), self.by_end()) {
            (0..=1, _) => 0,
            (_, Some(by)) => self.info.flow_type_rss_offloads & ffi::DIRECTOR_RSS_TRANSPORT | by,
            (_, None) => self.info.flow_type_rss_offloads & ffi::DIRECTOR_RSS_L3_L4,
        }
    }

    /// How it hashes just the clients' end, if that is wanted and it can: under our key, into our
    /// table, and telling the hash.
    fn by_end(&self) -> Option<u64> {
        let by = match self.config.role? {
            // SAFETY: takes nothing and answers with a constant.
            Role::Clients => unsafe { ffi::director_rss_by_source() },
            // SAFETY: as above.
            Role::Servers => unsafe { ffi::director_rss_by_destination() },
        };
        let info = &self.info;
        let offers = info.flow_type_rss_offloads;
        let can = self.queues() > 1
            && offers & by == by
            && offers & ffi::DIRECTOR_RSS_TRANSPORT != 0
            && info.rx_offload_capa & ffi::DIRECTOR_RX_RSS_HASH != 0
            && usize::from(info.hash_key_size) >= KEY.len();
        (can && self.table().is_some()).then_some(by)
    }

    /// Which queue each entry of the device's redirection table is to name.
    fn table(&self) -> Option<Vec<u16>> {
        let entries = self.info.reta_size;
        let table = table(entries.into(), self.config.reta, self.queues().into());
        table.filter(|_| entries <= ffi::DIRECTOR_RETA_MAX)
    }

    /// Programs the redirection table of a started device that hashes the clients' end.
    fn set_table(&self) -> Option<Role> {
        self.by_end()?;
        let table = self.table()?;
        // SAFETY: wants a started port, and as many entries as are said, no more than it takes.
        let code =
            unsafe { ffi::director_set_reta(self.started.id, table.as_ptr(), self.info.reta_size) };
        if let Err(error) = self.config.check(code, "programming its redirection table") {
            tracing::warn!("{error}; packets are spread by software");
            return None;
        }
        self.config.role
    }

    fn set_mtu(&self) -> Result<(), Error> {
        let config = self.config;
        let doing = format!("setting MTU {}", config.mtu);
        if config.mtu > mtu_max(&self.info)
            && let Some(ring) = Ring::of(&config.device)
        {
            let set = ring.set_interface_mtu(config.mtu);
            return set.map_err(|error| config.refuse(format!("{doing}: {error}")));
        }
        // SAFETY: wants a valid, configured port.
        let code = unsafe { ffi::rte_eth_dev_set_mtu(self.started.id, config.mtu) };
        // A driver without this call takes whatever it says it takes, which was checked.
        if code == -ENOTSUP {
            return Ok(());
        }
        config.check(code, &doing)
    }

    fn set_up_queues(&mut self) -> Result<(), Error> {
        let (config, id) = (self.config, self.started.id);
        // SAFETY: takes any port number; -1, any node, where it does not know.
        let socket = unsafe { ffi::rte_eth_dev_socket_id(id) }.cast_unsigned();
        let mut rx_conf = self.info.default_rxconf;
        rx_conf.offloads = 0;
        let mut tx_conf = self.info.default_txconf;
        tx_conf.offloads = self.fast_free();
        for (queue, pool) in (0..).zip(&self.started.pools) {
            // SAFETY: wants a configured port, a queue below the number configured, a
            // configuration that it copies, and a pool that outlives the port (`Started`).
            let code = unsafe {
                let descriptors = self.rx_descriptors;
                let pool = pool.as_ptr();
                ffi::rte_eth_rx_queue_setup(id, queue, descriptors, socket, &rx_conf, pool)
            };
            // Some drivers take mbufs right here: AF_XDP 2048 a queue, and says only "invalid".
            let free = pool.mbufs().saturating_sub(pool.in_use());
            let doing = format!("setting up rx queue {queue} with {free} free mbufs");
            config.check(code, &doing)?;
        }
        for queue in 0..config.tx_queues {
            // SAFETY: as above, without a pool.
            let code = unsafe {
                let descriptors = self.tx_descriptors;
                ffi::rte_eth_tx_queue_setup(id, queue, descriptors, socket, &tx_conf)
            };
            config.check(code, &format!("setting up tx queue {queue}"))?;
        }
        self.started.queues = self.queues();
        Ok(())
    }

    fn set_promiscuous(&self) -> Result<(), Error> {
        // SAFETY: wants a valid, configured port.
        let code = unsafe {
            if self.config.promiscuous {
                ffi::rte_eth_promiscuous_enable(self.started.id)
            } else {
                ffi::rte_eth_promiscuous_disable(self.started.id)
            }
        };
        // A device without the call does not filter: it delivers what it gets.
        if code == -ENOTSUP {
            Ok(())
        } else {
            self.config.check(code, "setting promiscuous mode")
        }
    }

    /// All multicast, because virtual addresses come and go, and each has a group in which IPv6
    /// stations ask for it. A device that cannot filter just that receives everything.
    fn receive_multicast(&self) -> Result<(), Error> {
        // SAFETY: wants a valid, configured port.
        let code = unsafe { ffi::rte_eth_allmulticast_enable(self.started.id) };
        if code >= 0 || self.config.promiscuous {
            return Ok(());
        }
        // SAFETY: as above.
        let instead = unsafe { ffi::rte_eth_promiscuous_enable(self.started.id) };
        // As in `set_promiscuous`.
        if instead == -ENOTSUP {
            return Ok(());
        }
        let doing = format!(
            "receiving multicast ({}), and promiscuous mode instead",
            describe(code)
        );
        self.config.check(instead, &doing)?;
        tracing::info!(
            port = self.config.name,
            "promiscuous: its driver has no mode for all multicast, which IPv6 needs"
        );
        Ok(())
    }

    fn start(&mut self) -> Result<(), Error> {
        // SAFETY: wants a valid port with all queues set up.
        let code = unsafe { ffi::rte_eth_dev_start(self.started.id) };
        self.config.check(code, "starting it")?;
        self.started.running = true;
        Ok(())
    }

    fn mac(&self) -> Result<[u8; 6], Error> {
        let mut address = ffi::rte_ether_addr::default();
        // SAFETY: wants a valid port and room for an address.
        let code = unsafe { ffi::rte_eth_macaddr_get(self.started.id, &mut address) };
        self.config.check(code, "reading its address")?;
        Ok(address.addr_bytes)
    }
}

/// Bytes that an mbuf needs, headroom included, for the frames of `device`.
pub fn data_room(device: &str, mtu: u16) -> u32 {
    let frame = u32::from(mtu) + L2_MAX;
    let slot = Ring::of(device).map_or(0, |ring| ring.frame_max());
    u32::from(HEADROOM) + frame.max(slot)
}

/// The longest mbuf that `device` takes, headroom included. AF_XDP wants each within a page, with
/// 192 bytes of DPDK's own in front and an odd number of cache lines in all.
fn room_max(device: &str) -> u16 {
    if device.starts_with("net_af_xdp") {
        63 * 64 - 192
    } else {
        u16::MAX
    }
}

/// The largest MTU, counted as DPDK does: a driver that names none may limit the frame instead.
fn mtu_max(info: &ffi::rte_eth_dev_info) -> u16 {
    let header = match info.max_mtu {
        u16::MAX => L2_DEFAULT,
        max_mtu => info.max_rx_pktlen.saturating_sub(u32::from(max_mtu)),
    };
    let longest = info.max_rx_pktlen.saturating_sub(header);
    info.max_mtu.min(u16::try_from(longest).unwrap_or(u16::MAX))
}

fn missing(config: &PortConfig) -> String {
    let name = device_name(&config.device);
    if name.contains(':') {
        return format!(
            "DPDK has no port for it; bind it with: dpdk-devbind.py -b vfio-pci {name}, and let \
             the EAL look at PCI devices"
        );
    }
    "DPDK has no port of that name; a virtual device is created when the EAL starts".to_owned()
}

/// How a device string asks for more queues.
pub fn queue_hint(device: &str, queues: usize) -> String {
    let name = device_name(device);
    let option = [
        ("net_af_packet", "qpairs"),
        ("eth_af_packet", "qpairs"),
        ("net_af_xdp", "queue_count"),
        ("net_vhost", "queues"),
        ("net_virtio_user", "queues"),
    ]
    .into_iter()
    .find(|(driver, _)| name.starts_with(driver));
    option.map_or_else(String::new, |(_, option)| {
        format!("; ask for them in its device string: {name},{option}={queues},...")
    })
}

/// The kernel's interface that `device` is on, where its driver takes every link for up: what the kernel
/// says of the interface is then true.
pub fn interface_below(device: &str) -> Option<&str> {
    let drivers = ["net_af_packet", "eth_af_packet", "net_af_xdp", "net_pcap"];
    let is_silent = drivers.iter().any(|driver| device.starts_with(driver));
    option(device, "iface").filter(|_| is_silent)
}

fn hardware(info: &ffi::rte_eth_dev_info) -> PortHardware {
    let driver = if info.driver_name.is_null() {
        "unknown driver".to_owned()
    } else {
        // SAFETY: not null, and a driver's name is a static NUL-terminated string.
        unsafe { CStr::from_ptr(info.driver_name) }
            .to_string_lossy()
            .into_owned()
    };
    PortHardware {
        driver,
        rx_queues_max: info.max_rx_queues,
        tx_queues_max: info.max_tx_queues,
        mtu_min: info.min_mtu,
        mtu_max: info.max_mtu,
        rss: info.flow_type_rss_offloads != 0,
        // SAFETY: the function takes any number and answers with a static string.
        rx_offloads: offloads(info.rx_offload_capa, |bit| unsafe {
            ffi::rte_eth_dev_rx_offload_name(bit)
        }),
        // SAFETY: as above.
        tx_offloads: offloads(info.tx_offload_capa, |bit| unsafe {
            ffi::rte_eth_dev_tx_offload_name(bit)
        }),
    }
}

/// The names of the bits set in `capabilities`; `name` answers with a static C string.
fn offloads(capabilities: u64, name: impl Fn(u64) -> *const c_char) -> Vec<String> {
    (0..u64::BITS)
        .map(|shift| 1 << shift)
        .filter(|bit| capabilities & bit != 0)
        .map(|bit| {
            // SAFETY: a static NUL-terminated string, never null.
            let name = unsafe { CStr::from_ptr(name(bit)) };
            name.to_string_lossy().into_owned()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silent_drivers_have_an_interface_below() {
        for silent in [
            "net_af_packet0,iface=lan",
            "net_af_xdp1,start_queue=0,iface=lan",
        ] {
            assert_eq!(interface_below(silent), Some("lan"));
        }
        for other in ["net_tap0,iface=lan", "0000:3b:00.0", "net_pcap0,rx_pcap=a"] {
            assert_eq!(interface_below(other), None);
        }
    }
}

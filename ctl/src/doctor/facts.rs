//! What is looked at. A fact that a machine does not tell is `None` or empty.

use std::path::PathBuf;

use crate::Status;

/// A machine, the configuration that is meant for it, and the director that runs on it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Kernel's release, `6.1.0-37-amd64`.
    pub kernel: String,
    pub pages: Vec<HugePages>,
    pub nodes: Vec<Node>,
    /// Where hugetlbfs is mounted.
    pub hugetlbfs: Option<String>,
    /// The word of transparent huge pages that is chosen.
    pub transparent: Option<String>,
    /// Bytes that may be locked, `None` for any number.
    pub memlock: Option<u64>,
    pub cpus: Vec<Cpu>,
    pub isolated: Vec<u16>,
    /// Without a timer's interrupt while one thread runs.
    pub tickless: Vec<u16>,
    /// Without RCU's callbacks.
    pub callback_free: Vec<u16>,
    pub cpu_flags: Vec<String>,
    pub clock_source: Option<String>,
    pub irqbalance: bool,
    pub iommu: Iommu,
    /// PCI devices of the plan's ports.
    pub devices: Vec<Device>,
    /// Interfaces of the plan's ports.
    pub interfaces: Vec<Interface>,
    /// Files of the plan's ports, and whether they are there: `/dev/vhost-net`, sockets.
    pub files: Vec<(String, bool)>,
    pub plan: Plan,
    pub daemon: Daemon,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    pub size_kb: u64,
    pub total: u64,
    pub free: u64,
}

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: u16,
    pub cpus: Vec<u16>,
    pub pages: Vec<HugePages>,
}

/// A core as the kernel counts: a hardware thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    pub id: u16,
    /// Hardware threads of the same core, itself among them.
    pub siblings: Vec<u16>,
    pub governor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Iommu {
    pub present: bool,
    /// vfio was told to do without.
    pub unsafe_allowed: bool,
    /// vfio-pci is loaded.
    pub vfio: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// With its domain.
    pub address: String,
    pub is_present: bool,
    pub driver: Option<String>,
    /// None on machines with one.
    pub node: Option<u16>,
    /// The kernel's interface on it, and whether that is up.
    pub interface: Option<(String, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub is_present: bool,
    /// Receive queues.
    pub queues: u16,
}

/// What the configuration wants, as far as the machine matters for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whence it comes; none without a file.
    pub file: Option<PathBuf>,
    pub workers: Vec<u16>,
    pub control_core: u16,
    pub huge_pages: bool,
    pub memory_mb: u64,
    /// Packet buffers per worker.
    pub mbufs: u64,
    pub ports: Vec<PlannedPort>,
}

impl Default for Plan {
    /// directord's own defaults, and no port.
    fn default() -> Self {
        Self {
            file: None,
            workers: vec![1],
            control_core: 0,
            huge_pages: false,
            memory_mb: 512,
            mbufs: 16_384,
            ports: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPort {
    pub name: String,
    pub device: String,
}

impl PlannedPort {
    /// The value of an argument of a virtual device: `iface`, `path`.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let arguments = self.device.split(',').skip(1);
        let pairs = arguments.filter_map(|argument| argument.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next()
    }

    pub fn is_driven_by(&self, driver: &str) -> bool {
        self.device.starts_with(driver)
    }

    /// The PCI address with its domain.
    pub fn pci(&self) -> Option<String> {
        let name = self.device.split(',').next().unwrap_or_default();
        match (name.starts_with("net_"), name.matches(':').count()) {
            (false, 2) => Some(name.to_lowercase()),
            (false, 1) => Some(format!("0000:{}", name.to_lowercase())),
            _ => None,
        }
    }
}

/// Who answers on the control socket.
#[derive(Debug, Clone, Default)]
pub enum Daemon {
    Running(Box<Running>),
    /// Nobody, with the reason.
    Silent(String),
    /// It was not asked.
    #[default]
    NotAsked,
}

#[derive(Debug, Clone)]
pub struct Running {
    pub status: Status,
    /// What this program's release calls its daemon.
    pub expected: String,
}

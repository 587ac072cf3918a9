//! Facts, from /proc and /sys below a root, and from a configuration.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Daemon;
use super::facts::{Cpu, Device, Facts, HugePages, Interface, Iommu, Node, Plan, PlannedPort};

/// The most entries of a folder that are looked at.
const ENTRIES_MAX: usize = 65_536;

/// The part of a configuration that the machine matters for. Everything else is the daemon's to judge.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    director: Director,
    eal: Eal,
    port: Vec<Port>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Director {
    workers: Option<Vec<u16>>,
    control_core: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Eal {
    huge_pages: Option<bool>,
    memory_mb: Option<u64>,
    mbufs: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Port {
    name: String,
    device: String,
}

/// What the configuration `text` wants of a machine.
pub fn plan(file: &Path, text: &str) -> Result<Plan, String> {
    let read: File = toml::from_str(text).map_err(|error| {
        format!(
            "{}: {}; directord --check --config FILE says more",
            file.display(),
            error.message()
        )
    })?;
    let default = Plan::default();
    let port = |port: Port| PlannedPort {
        name: port.name,
        device: port.device,
    };
    Ok(Plan {
        file: Some(file.to_owned()),
        workers: read.director.workers.unwrap_or(default.workers),
        control_core: read.director.control_core.unwrap_or(default.control_core),
        huge_pages: read.eal.huge_pages.unwrap_or(default.huge_pages),
        memory_mb: read.eal.memory_mb.unwrap_or(default.memory_mb),
        mbufs: read.eal.mbufs.unwrap_or(default.mbufs),
        ports: read.port.into_iter().map(port).collect(),
    })
}

/// The machine whose /proc, /sys and /dev are below `root`, for `plan`. What cannot be read is left out.
pub fn read(root: &Path, plan: Plan, daemon: Daemon) -> Facts {
    let at = Root(root);
    let command_line = at.text("proc/cmdline").unwrap_or_default();
    let devices = plan
        .ports
        .iter()
        .filter_map(PlannedPort::pci)
        .map(|address| at.device(address));
    let interfaces = plan.ports.iter().filter_map(|port| port.argument("iface"));
    Facts {
        kernel: at.text("proc/sys/kernel/osrelease").unwrap_or_default(),
        pages: at.huge_pages(Path::new("sys/kernel/mm/hugepages")),
        nodes: at.nodes(),
        hugetlbfs: at.mount_of("hugetlbfs"),
        transparent: at.chosen("sys/kernel/mm/transparent_hugepage/enabled"),
        memlock: at.memlock(),
        cpus: at.cpus(),
        isolated: at.cores("sys/devices/system/cpu/isolated"),
        tickless: at.cores("sys/devices/system/cpu/nohz_full"),
        callback_free: argument(&command_line, "rcu_nocbs"),
        cpu_flags: at.cpu_flags(),
        clock_source: at.text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
        irqbalance: at.runs("irqbalance"),
        iommu: at.iommu(),
        devices: devices.collect(),
        interfaces: interfaces.map(|name| at.interface(name)).collect(),
        files: at.files(&plan),
        plan,
        daemon,
    }
}

/// The cores that `word=` names on the kernel's command line.
fn argument(command_line: &str, word: &str) -> Vec<u16> {
    let mut words = command_line.split_whitespace();
    let value = words.find_map(|argument| argument.strip_prefix(word)?.strip_prefix('='));
    cores(value.unwrap_or_default())
}

/// `1-3,7`; what is no core (`(null)`, flags of isolcpus) is passed over.
fn cores(text: &str) -> Vec<u16> {
    let runs = text.trim().split(',').filter_map(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let run: (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        Some(run.0..=run.1)
    });
    runs.flatten().collect()
}

struct Root<'r>(&'r Path);

impl Root<'_> {
    /// A file's text without blanks around it, none if it is empty or not there.
    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    fn cores(&self, path: &str) -> Vec<u16> {
        cores(&self.text(path).unwrap_or_default())
    }

    fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.0.join(path).exists()
    }

    /// Names in a folder, sorted.
    fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(path))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries
            .take(ENTRIES_MAX)
            .filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// The numbers N of entries called `prefix`N.
    fn numbered(&self, path: &str, prefix: &str) -> Vec<u16> {
        let names = self.names(path);
        let mut numbers: Vec<u16> = names
            .iter()
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    fn huge_pages(&self, folder: &Path) -> Vec<HugePages> {
        let of = |name: &String| {
            let size_kb = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let number = |file: &str| self.number(folder.join(name).join(file)).unwrap_or(0);
            Some(HugePages {
                size_kb,
                total: number("nr_hugepages"),
                free: number("free_hugepages"),
            })
        };
        let mut kinds: Vec<HugePages> = self.names(folder).iter().filter_map(of).collect();
        kinds.sort_by_key(|kind| kind.size_kb);
        kinds
    }

    fn nodes(&self) -> Vec<Node> {
        let folder = "sys/devices/system/node";
        let numbers = self.numbered(folder, "node").into_iter();
        let nodes = numbers.map(|id| {
            let node = PathBuf::from(format!("{folder}/node{id}"));
            Node {
                id,
                cpus: cores(&self.text(node.join("cpulist")).unwrap_or_default()),
                pages: self.huge_pages(&node.join("hugepages")),
            }
        });
        nodes.collect()
    }

    fn cpus(&self) -> Vec<Cpu> {
        let online = self.cores("sys/devices/system/cpu/online");
        let cpus = online.into_iter().map(|id| {
            let cpu = format!("sys/devices/system/cpu/cpu{id}");
            Cpu {
                id,
                siblings: self.cores(&format!("{cpu}/topology/thread_siblings_list")),
                governor: self.text(format!("{cpu}/cpufreq/scaling_governor")),
            }
        });
        cpus.collect()
    }

    fn cpu_flags(&self) -> Vec<String> {
        let text = self.text("proc/cpuinfo").unwrap_or_default();
        let flags = text.lines().find(|line| line.starts_with("flags"));
        let flags = flags
            .and_then(|line| line.split_once(':'))
            .map_or("", |(_, flags)| flags);
        flags.split_whitespace().map(str::to_owned).collect()
    }

    fn mount_of(&self, kind: &str) -> Option<String> {
        let mounts = self.text("proc/mounts")?;
        let mut lines = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = lines.find(|words| words.get(2) == Some(&kind))?;
        mount.get(1).map(|place| (*place).to_owned())
    }

    /// The word in brackets.
    fn chosen(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(word, _)| word.to_owned())
    }

    /// The soft limit of this process, which what it starts inherits.
    fn memlock(&self) -> Option<u64> {
        let limits = self.text("proc/self/limits")?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next()?.parse().ok()
    }

    fn runs(&self, program: &str) -> bool {
        let processes = self.names("proc");
        let mut numbers = processes
            .iter()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        numbers.any(|id| self.text(format!("proc/{id}/comm")).as_deref() == Some(program))
    }

    fn iommu(&self) -> Iommu {
        let allowed = self.text("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
        Iommu {
            present: !self.names("sys/class/iommu").is_empty(),
            unsafe_allowed: allowed.is_some_and(|word| word == "Y" || word == "1"),
            vfio: self.exists("sys/bus/pci/drivers/vfio-pci"),
        }
    }

    fn device(&self, address: String) -> Device {
        let folder = PathBuf::from(format!("sys/bus/pci/devices/{address}"));
        let driver = fs::read_link(self.0.join(&folder).join("driver")).ok();
        let interface = self.names(folder.join("net")).into_iter().next();
        Device {
            is_present: self.exists(&folder),
            driver: driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned())),
            // -1 where there is one node.
            node: self
                .text(folder.join("numa_node"))
                .and_then(|node| node.parse().ok()),
            interface: interface.map(|name| {
                let state = self.text(format!("sys/class/net/{name}/operstate"));
                (name, state.as_deref() == Some("up"))
            }),
            address,
        }
    }

    fn interface(&self, name: &str) -> Interface {
        let queues = self.names(format!("sys/class/net/{name}/queues"));
        let receive = queues
            .iter()
            .filter(|queue| queue.starts_with("rx-"))
            .count();
        Interface {
            name: name.to_owned(),
            is_present: self.exists(format!("sys/class/net/{name}")),
            queues: u16::try_from(receive).unwrap_or(u16::MAX),
        }
    }

    /// Files that virtual devices open.
    fn files(&self, plan: &Plan) -> Vec<(String, bool)> {
        let of = |port: &PlannedPort| match port {
            port if port.is_driven_by("net_tap") => Some("/dev/net/tun".to_owned()),
            port if port.is_driven_by("net_virtio_user") => {
                port.argument("path").map(str::to_owned)
            }
            _ => None,
        };
        let mut files: Vec<String> = plan.ports.iter().filter_map(of).collect();
        files.dedup();
        let exists = |file: &String| self.exists(file.trim_start_matches('/'));
        files
            .into_iter()
            .map(|file| (file.clone(), exists(&file)))
            .collect()
    }
}

//! The environment abstraction layer: DPDK's memory, devices and threads, once in a process.

use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use dpdk_sys as ffi;
use nix::libc;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use super::mempool::RawPool;
use super::{Error, c_string, describe, last_error};

/// How the EAL starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalConfig {
    /// Names this process's runtime files: another one for every DPDK process of the machine.
    pub file_prefix: String,
    pub huge_pages: bool,
    /// With huge pages, what is reserved at start; without, all there is.
    pub memory_mb: u32,
    /// Look for devices on the PCI bus.
    pub pci: bool,
    /// One file for all memory, as vhost-user and virtio-user need it.
    pub single_file_segments: bool,
    /// Virtual devices to create: `net_af_packet0,iface=veth1`.
    pub vdevs: Vec<String>,
    /// PCI addresses to take; none: whatever is bound to a DPDK driver.
    pub devices: Vec<String>,
    /// Core to which the calling thread is pinned; threads that it starts inherit this.
    pub main_core: u16,
    /// Further EAL options, as they are.
    pub extra: Vec<String>,
}

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// The EAL, initialised. It is cleaned up when the last of its clones, its pools, ports and worker
/// threads is gone, provided that happens on the thread that initialised it and no mbuf is out.
#[derive(Debug, Clone)]
pub struct Eal {
    pub(super) hold: Arc<Hold>,
}

impl Eal {
    /// Initialises DPDK and pins the calling thread. Everything that can be known to fail is
    /// checked first, so that a mistake in the configuration costs no EAL.
    pub fn init(config: &EalConfig) -> Result<Self, Error> {
        if INITIALISED.load(Ordering::Acquire) {
            return Err(Error::AlreadyInitialised);
        }
        check_core(config.main_core)?;
        if config.huge_pages {
            check_huge_pages(config.memory_mb)?;
        }
        config.vdevs.iter().try_for_each(|vdev| check_vdev(vdev))?;
        let arguments = arguments(config)?;
        if INITIALISED.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyInitialised);
        }
        let log = CapturedLog::begin();
        let initialised = call_init(arguments);
        let log = log.map(CapturedLog::end).unwrap_or_default();
        initialised.map_err(|reason| blame(config, &reason, &log))?;
        let eal = Self {
            hold: Arc::new(Hold::new()),
        };
        for vdev in &config.vdevs {
            check_created(vdev, &log)?;
        }
        for line in &log {
            tracing::warn!("{line}");
        }
        Ok(eal)
    }

    /// Makes a device that the EAL was not started with into one that a port can have.
    pub fn plug(&self, device: &str) -> Result<(), Error> {
        let refuse = |reason: String| device_error(device, reason);
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        let bus = bus(name);
        if bus == VDEV {
            check_vdev(device)?;
        }
        let text = |text: &str| c_string(text).map_err(refuse);
        let (bus, name, arguments) = (text(bus)?, text(&full_name(name))?, text(arguments)?);
        let log = CapturedLog::begin();
        // SAFETY: wants the EAL initialised (`self`) and three NUL-terminated strings that it copies.
        let code =
            unsafe { ffi::rte_eal_hotplug_add(bus.as_ptr(), name.as_ptr(), arguments.as_ptr()) };
        let log = log.map(CapturedLog::end).unwrap_or_default();
        if code < 0 {
            let reason = format!("cannot be added: {}", describe(code));
            return Err(refuse(join(&reason, &log)));
        }
        for line in &log {
            tracing::warn!("{line}");
        }
        check_created(device, &log)
    }

    /// Lets go of a device that no port has any more.
    pub fn unplug(&self, device: &str) -> Result<(), Error> {
        let refuse = |reason: String| device_error(device, reason);
        let name = device_name(device);
        if find_device(device).is_some_and(|id| self.hold.books().ports.contains(&id)) {
            return Err(refuse("a port uses it".to_owned()));
        }
        let text = |text: &str| c_string(text).map_err(refuse);
        let (bus, name) = (text(bus(name))?, text(&full_name(name))?);
        let log = CapturedLog::begin();
        // SAFETY: wants the EAL initialised (`self`), two NUL-terminated strings, and a device that
        // nobody uses: its port was closed (checked).
        let code = unsafe { ffi::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
        let log = log.map(CapturedLog::end).unwrap_or_default();
        if code < 0 {
            let reason = format!("cannot be removed: {}", describe(code));
            return Err(refuse(join(&reason, &log)));
        }
        Ok(())
    }

    /// Whether there is a device of that name already.
    pub fn has(&self, device: &str) -> bool {
        find_device(device).is_some()
    }

    /// How many cycles of [`crate::cpu::cycles`] a second has.
    pub fn cycles_per_second(&self) -> u64 {
        // SAFETY: wants the EAL initialised, as it is while `self` lives.
        unsafe { ffi::rte_get_tsc_hz() }
    }
}

/// What keeps the EAL alive, and what must not happen behind its back.
#[derive(Debug)]
pub(super) struct Hold {
    main: ThreadId,
    books: Mutex<Books>,
}

/// Who uses the EAL now.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// Registered worker threads; each may hold mbufs in a cache of its own.
    pub(super) workers: usize,
    /// Ports that somebody started: each has one owner.
    pub(super) ports: Vec<u16>,
    /// Pools without an owner that could not be freed yet.
    retired: Vec<RawPool>,
}

impl Hold {
    fn new() -> Self {
        Self {
            main: thread::current().id(),
            books: Mutex::default(),
        }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees a pool that has no owner any more, or keeps it while an mbuf of it is out.
    ///
    /// The count of free mbufs can be trusted only when no cache moves. Caches belong to this
    /// EAL's registered workers and its initialising thread, so: on that thread, with no workers.
    pub(super) fn retire(&self, pool: RawPool) {
        let mut books = self.books();
        if books.workers == 0 && thread::current().id() == self.main && pool.in_use() == 0 {
            // SAFETY: wants a pool nobody uses afterwards. Its last owner is giving it up, so no
            // port or thread can allocate; no mbuf is out, and the count is exact (see above).
            unsafe { ffi::rte_mempool_free(pool.as_ptr()) };
        } else {
            books.retired.push(pool);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let idle = self.books().retired.iter().all(|pool| pool.in_use() == 0);
        // Otherwise an mbuf that is still out would point into unmapped memory: then the memory
        // stays until the process ends.
        if idle && thread::current().id() == self.main {
            // SAFETY: wants the initialising thread and no DPDK object in use. Pools, ports and
            // workers each share this `Hold`, so none is left; no mbuf is out either.
            unsafe { ffi::rte_eal_cleanup() };
        }
    }
}

fn call_init(arguments: Vec<CString>) -> Result<(), String> {
    let count = c_int::try_from(arguments.len()).map_err(|_| "too many options".to_owned())?;
    let mut argv: Vec<*mut c_char> = arguments.into_iter().map(CString::into_raw).collect();
    argv.push(ptr::null_mut());
    // Never freed: options may be kept by reference, and this runs once.
    let argv = Vec::leak(argv);
    // SAFETY: wants `argc` writable strings and a null, alive as long as the EAL (leaked above),
    // and to be called once (`INITIALISED`).
    if unsafe { ffi::rte_eal_init(count, argv.as_mut_ptr()) } < 0 {
        return Err(last_error());
    }
    Ok(())
}

fn arguments(config: &EalConfig) -> Result<Vec<CString>, Error> {
    let mut options = vec![
        "director".to_owned(),
        format!("--file-prefix={}", config.file_prefix),
        format!("--lcores=0@{}", config.main_core),
        "--log-level=warning".to_owned(),
        "--no-telemetry".to_owned(),
    ];
    if !config.huge_pages {
        options.push("--no-huge".to_owned());
    }
    if config.memory_mb > 0 {
        options.extend(["-m".to_owned(), config.memory_mb.to_string()]);
    }
    if !config.pci {
        options.push("--no-pci".to_owned());
    }
    if config.single_file_segments {
        options.push("--single-file-segments".to_owned());
    }
    options.extend(config.vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
    for device in &config.devices {
        options.extend(["-a".to_owned(), device.clone()]);
    }
    options.extend(config.extra.iter().cloned());
    options
        .iter()
        .map(|option| c_string(option).map_err(Error::Eal))
        .collect()
}

/// Whether this process may run on `core`.
pub fn check_core(core: u16) -> Result<(), Error> {
    let refuse = |reason: String| Error::Core { core, reason };
    // Of the process, not of this thread: an EAL thread is pinned already.
    let allowed = sched_getaffinity(Pid::this())
        .map_err(|error| refuse(format!("cannot read the affinity: {error}")))?;
    let online = Path::new("/sys/devices/system/cpu")
        .join(format!("cpu{core}"))
        .exists();
    if !online || usize::from(core) >= CpuSet::count() {
        return Err(refuse("this machine has no such core".to_owned()));
    }
    // The main thread's own affinity is one core once the EAL pinned it; then the kernel decides.
    if !INITIALISED.load(Ordering::Acquire) && !allowed.is_set(usize::from(core)).unwrap_or(false) {
        return Err(refuse(
            "this process is not allowed to run on it (see taskset -p)".to_owned(),
        ));
    }
    Ok(())
}

/// Whether `memory_mb` of huge pages can be had.
fn check_huge_pages(memory_mb: u32) -> Result<(), Error> {
    let free_kb: u64 = huge_page_pools()
        .iter()
        .map(|(size_kb, free)| size_kb * free)
        .sum();
    let wanted_kb = u64::from(memory_mb.max(64)) * 1024;
    if free_kb < wanted_kb {
        return Err(Error::HugePages(format!(
            "{} MiB wanted, {} MiB free; reserve them with: echo {} > \
             /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages, or configure huge_pages = false",
            wanted_kb / 1024,
            free_kb / 1024,
            wanted_kb.div_ceil(2048),
        )));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("hugetlbfs"))
    {
        return Err(Error::HugePages(
            "no hugetlbfs is mounted; mount one with: mkdir -p /dev/hugepages && \
             mount -t hugetlbfs none /dev/hugepages"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Size in KiB and number of free pages, of every huge page size of this machine.
fn huge_page_pools() -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size_kb = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let free = fs::read_to_string(entry.path().join("free_hugepages")).ok()?;
            Some((size_kb, free.trim().parse().ok()?))
        })
        .collect()
}

/// The name part of a device string: the port is called so.
pub(super) fn device_name(device: &str) -> &str {
    device.split(',').next().unwrap_or(device)
}

/// The value of `key` among the arguments of `device`.
pub(super) fn option<'d>(device: &'d str, key: &str) -> Option<&'d str> {
    let mut options = device.split(',').skip(1);
    options.find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
}

/// Virtual devices are on a bus of their own.
const VDEV: &str = "vdev";

fn bus(name: &str) -> &'static str {
    if name.contains(':') { "pci" } else { VDEV }
}

/// Of a PCI device with its domain.
fn full_name(name: &str) -> String {
    match name.matches(':').count() {
        1 => format!("0000:{name}"),
        _ => name.to_owned(),
    }
}

fn device_error(device: &str, reason: impl Into<String>) -> Error {
    Error::Device {
        device: device.to_owned(),
        reason: reason.into(),
    }
}

/// Drivers that attach to a network interface that must exist already.
const ON_INTERFACE: [&str; 4] = ["net_af_packet", "eth_af_packet", "net_af_xdp", "eth_af_xdp"];

fn check_vdev(vdev: &str) -> Result<(), Error> {
    if device_name(vdev).is_empty() {
        return Err(device_error(
            vdev,
            "has no name; it starts with one, like net_af_packet0",
        ));
    }
    if !ON_INTERFACE.iter().any(|driver| vdev.starts_with(driver)) {
        return Ok(());
    }
    let Some(interface) = vdev.split(',').find_map(|pair| pair.strip_prefix("iface=")) else {
        return Err(device_error(vdev, "names no interface; add ,iface=NAME"));
    };
    if interface.is_empty() || !Path::new("/sys/class/net").join(interface).exists() {
        return Err(device_error(
            vdev,
            format!("there is no network interface {interface:?} here (see ip link)"),
        ));
    }
    Ok(())
}

/// Whether the EAL created the port of `vdev`; where not, DPDK's log knows why.
fn check_created(vdev: &str, log: &[String]) -> Result<(), Error> {
    if find_port(device_name(vdev)).is_some() {
        return Ok(());
    }
    let reason = "not created; the driver is unknown, an option is wrong, or it is busy";
    Err(device_error(vdev, join(reason, log)))
}

/// The port of that name.
fn find_port(name: &str) -> Option<u16> {
    let name = c_string(name).ok()?;
    let mut port = 0;
    // SAFETY: wants a NUL-terminated name and room for one u16; both are ours.
    (unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port) } == 0).then_some(port)
}

/// The port of a device string or of a PCI address, with or without its domain.
pub(super) fn find_device(device: &str) -> Option<u16> {
    find_port(&full_name(device_name(device)))
}

/// The error of an EAL that did not start: of the device that its log names, or of its own.
fn blame(config: &EalConfig, reason: &str, log: &[String]) -> Error {
    let reason = join(reason, log);
    let named = |device: &&String| log.iter().any(|line| line.contains(device_name(device)));
    match config.vdevs.iter().chain(&config.devices).find(named) {
        Some(device) => device_error(device, reason),
        None => Error::Eal(reason),
    }
}

fn join(reason: &str, log: &[String]) -> String {
    if log.is_empty() {
        return reason.to_owned();
    }
    format!("{reason} (DPDK: {})", log.join("; "))
}

/// DPDK's log, gathered in a temporary file instead of going to stderr. The file is kept: another thread
/// may still write to it when it is no longer wanted.
#[derive(Clone, Copy)]
struct CapturedLog(NonNull<libc::FILE>);

// SAFETY: C's streams lock themselves; any thread may use one.
unsafe impl Send for CapturedLog {}
// SAFETY: as above.
unsafe impl Sync for CapturedLog {}

static LOG: OnceLock<Option<CapturedLog>> = OnceLock::new();

impl CapturedLog {
    const LEN_MAX: usize = 16 * 1024;

    fn begin() -> Option<Self> {
        // SAFETY: no demands; null where no file can be made.
        let make = || NonNull::new(unsafe { libc::tmpfile() }).map(Self);
        let log = (*LOG.get_or_init(make))?;
        let file = log.0.as_ptr();
        // SAFETY: wants an open stream, which this stays; what it had is cut off.
        unsafe {
            libc::rewind(file);
            libc::ftruncate(libc::fileno(file), 0);
            ffi::rte_openlog_stream(file.cast());
        }
        Some(log)
    }

    /// Lets the log go to stderr again; returns its lines so far.
    fn end(self) -> Vec<String> {
        let mut text = vec![0u8; Self::LEN_MAX];
        // SAFETY: null means the default stream. The file is open, and read into a buffer of the length
        // given.
        let len = unsafe {
            ffi::rte_openlog_stream(ptr::null_mut());
            libc::rewind(self.0.as_ptr());
            libc::fread(text.as_mut_ptr().cast(), 1, text.len(), self.0.as_ptr())
        };
        text.truncate(len);
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

//! Worker threads: pinned, and known to DPDK so that they have mbuf caches of their own.

use std::fs;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as ffi;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::eal::{Hold, check_core};
use super::{Eal, Error, last_error};

/// The calling thread, registered with DPDK until this is dropped, on the same thread.
#[derive(Debug)]
#[must_use = "the thread is a worker only while this lives"]
pub struct WorkerThread {
    hold: Arc<Hold>,
    /// Unregistering is for the thread that registered: not `Send`.
    here: PhantomData<*const ()>,
}

/// Pins the calling thread to `core` and registers it with DPDK.
pub fn register_worker(eal: &Eal, core: u16) -> Result<WorkerThread, Error> {
    let refuse = |reason: String| Error::Core { core, reason };
    // SAFETY: reads a thread-local integer that every thread has.
    if unsafe { ffi::rte_lcore_id() } != ffi::DIRECTOR_LCORE_ID_ANY {
        return Err(refuse(
            "this thread is registered with DPDK already".to_owned(),
        ));
    }
    check_core(core)?;
    let mut cores = CpuSet::new();
    cores
        .set(usize::from(core))
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores))
        .map_err(|error| refuse(format!("cannot pin a worker to it: {error}")))?;
    let mut books = eal.hold.books();
    // SAFETY: wants the EAL initialised (`eal`) and a thread that is not registered (checked).
    if unsafe { ffi::rte_thread_register() } != 0 {
        return Err(refuse(format!(
            "DPDK takes no further worker: {}",
            last_error()
        )));
    }
    books.workers += 1;
    drop(books);
    Ok(WorkerThread {
        hold: Arc::clone(&eal.hold),
        here: PhantomData,
    })
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        let mut books = self.hold.books();
        // SAFETY: wants the EAL initialised (`hold`) and the thread that registered (not `Send`).
        unsafe { ffi::rte_thread_unregister() };
        books.workers -= 1;
    }
}

/// The NUMA node of `core`, or -1 when the machine does not tell.
pub fn socket_of(core: u16) -> i32 {
    let Ok(entries) = fs::read_dir(format!("/sys/devices/system/cpu/cpu{core}")) else {
        return -1;
    };
    entries
        .flatten()
        .find_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_prefix("node")?
                .parse()
                .ok()
        })
        .unwrap_or(-1)
}

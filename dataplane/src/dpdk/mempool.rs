//! Where mbufs come from and go back to.

use std::ffi::c_uint;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as ffi;

use super::eal::Hold;
use super::{Eal, Error, HEADROOM, Mbuf, c_string, last_error};
use crate::packet::{BURST, Burst};

/// Mbufs that each registered thread keeps for itself, so that it rarely touches the shared ring.
const CACHE_MAX: u32 = 256;
/// Longest name: DPDK derives others from it.
const NAME_MAX: usize = ffi::DIRECTOR_MEMPOOL_NAMESIZE - 1;

/// A DPDK mempool of mbufs, alive.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawPool(NonNull<ffi::rte_mempool>);

// SAFETY: our pools are made with DPDK's default multi-producer multi-consumer ring, and each
// registered thread has a cache of its own; so any thread may use one at any time.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

impl RawPool {
    pub(super) fn as_ptr(self) -> *mut ffi::rte_mempool {
        self.0.as_ptr()
    }

    pub(super) fn in_use(self) -> u32 {
        // SAFETY: wants a live pool, which this is until `Hold` frees it, having no owner then.
        unsafe { ffi::rte_mempool_in_use_count(self.as_ptr()) }
    }
}

#[derive(Debug)]
struct Inner {
    raw: RawPool,
    mbufs: u32,
    data_room: u16,
    hold: Arc<Hold>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.hold.retire(self.raw);
    }
}

/// A pool of mbufs. Clones are the same pool; it goes with the last of them, or with the EAL
/// when mbufs of it are still out.
#[derive(Debug, Clone)]
pub struct Mempool(Arc<Inner>);

impl Mempool {
    /// Makes a pool of `mbufs` buffers of `data_room` bytes, [`HEADROOM`] included, in the memory
    /// of NUMA node `socket` (-1: any).
    pub fn new(
        eal: &Eal,
        name: &str,
        mbufs: u32,
        data_room: u16,
        socket: i32,
    ) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Mempool {
            name: name.to_owned(),
            reason,
        };
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(refuse(format!("a name has 1 to {NAME_MAX} bytes")));
        }
        if mbufs == 0 || data_room <= HEADROOM {
            return Err(refuse(format!(
                "{mbufs} mbufs of {data_room} bytes: wants at least one, and more than the \
                 headroom of {HEADROOM} bytes"
            )));
        }
        let c_name = c_string(name).map_err(refuse)?;
        let cache = CACHE_MAX.min(mbufs / 4);
        // SAFETY: wants the EAL initialised (`eal`), a NUL-terminated name that it copies, and a
        // cache of at most two thirds of the pool and 512.
        let raw = unsafe {
            ffi::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, data_room, socket)
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let mib = (u64::from(mbufs) * (u64::from(data_room) + 192)) >> 20;
            refuse(format!(
                "{} ({mbufs} mbufs of {data_room} bytes need about {mib} MiB of DPDK memory)",
                last_error()
            ))
        })?;
        let hold = Arc::clone(&eal.hold);
        Ok(Self(Arc::new(Inner {
            raw: RawPool(raw),
            mbufs,
            data_room,
            hold,
        })))
    }

    /// How many mbufs are out. Exact only while nobody allocates or frees.
    pub fn in_use(&self) -> u32 {
        self.0.raw.in_use()
    }

    /// How many mbufs there are.
    pub fn mbufs(&self) -> u32 {
        self.0.mbufs
    }

    /// Bytes of each buffer, headroom included.
    pub fn data_room(&self) -> u16 {
        self.0.data_room
    }

    /// An mbuf with an empty frame behind the headroom, or `None` when the pool is exhausted.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: wants a live pool. The mbuf it returns is nobody else's.
        unsafe { Mbuf::from_raw(ffi::rte_pktmbuf_alloc(self.as_ptr())) }
    }

    /// Appends `n` fresh mbufs to `burst`; `false`, and nothing appended, when it has no room or
    /// the pool has fewer.
    #[must_use]
    pub fn alloc_burst(&self, burst: &mut Burst<Mbuf>, n: usize) -> bool {
        let len = burst.len();
        if n > BURST - len {
            return false;
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most BURST")]
        let count = n as c_uint;
        // SAFETY: wants a live pool and room for `count` pointers, which `burst` has behind `len`.
        // `Mbuf` is a transparent mbuf pointer, so they are initialised when it returns 0.
        unsafe {
            let free = burst.as_mut_ptr().add(len).cast();
            let ok = ffi::rte_pktmbuf_alloc_bulk(self.as_ptr(), free, count) == 0;
            if ok {
                burst.set_len(len + n);
            }
            ok
        }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::rte_mempool {
        self.0.raw.as_ptr()
    }
}

//! One packet in DPDK's memory, owned.

use std::fmt;
use std::ptr::NonNull;

use dpdk_sys as ffi;

use crate::cpu;
use crate::packet::{Burst, PacketBuf};

/// Of the cache.
const LINE: usize = 64;

/// One packet, owned. Dropping it returns the buffer to its mempool. Never `Clone`.
///
/// It is one segment that nobody else refers to: `RxQueue::recv` and `Mempool::alloc` see to
/// that, so frame and length are where the first segment's are.
#[repr(transparent)]
pub struct Mbuf(NonNull<ffi::rte_mbuf>);

// SAFETY: an mbuf has one owner and no tie to a thread: its pool takes it back from any.
unsafe impl Send for Mbuf {}

/// A field of the mbuf, by its offset in the C structure.
macro_rules! field {
    ($mbuf:expr, $offset:ident: $type:ty) => {
        $mbuf
            .0
            .as_ptr()
            .cast::<u8>()
            .add(ffi::$offset)
            .cast::<$type>()
    };
}

impl Mbuf {
    /// Takes over what DPDK handed out.
    ///
    /// # Safety
    /// `raw` is null or an mbuf that nothing else refers to.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ffi::rte_mbuf) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// Whether the frame is in one piece, as [`PacketBuf`] demands.
    #[inline(always)]
    pub(super) fn is_one_segment(&self) -> bool {
        // SAFETY: the pointer is a live mbuf; DPDK keeps the count up to date.
        unsafe { *field!(self, DIRECTOR_MBUF_NB_SEGS: u16) == 1 }
    }

    /// Length of the whole frame, all its segments together.
    pub(super) fn frame_len(&self) -> u32 {
        // SAFETY: the pointer is a live mbuf; DPDK keeps the sum up to date.
        unsafe { *field!(self, DIRECTOR_MBUF_PKT_LEN: u32) }
    }

    #[inline(always)]
    fn data_off(&self) -> u16 {
        // SAFETY: the pointer is a live mbuf, this its field.
        unsafe { *field!(self, DIRECTOR_MBUF_DATA_OFF: u16) }
    }

    #[inline(always)]
    fn data_len(&self) -> u16 {
        // SAFETY: the pointer is a live mbuf, this its field.
        unsafe { *field!(self, DIRECTOR_MBUF_DATA_LEN: u16) }
    }

    fn buf_len(&self) -> u16 {
        // SAFETY: the pointer is a live mbuf, this its field.
        unsafe { *field!(self, DIRECTOR_MBUF_BUF_LEN: u16) }
    }

    #[inline(always)]
    fn data(&self) -> *mut u8 {
        // SAFETY: `data_off` is at most `buf_len`, so this stays in (or just behind) the buffer.
        unsafe {
            (*field!(self, DIRECTOR_MBUF_BUF_ADDR: *mut u8)).add(usize::from(self.data_off()))
        }
    }

    /// Places the frame at `data_off` with `len` bytes.
    ///
    /// # Safety
    /// `data_off + len` is at most `buf_len`.
    #[inline(always)]
    unsafe fn set_frame(&mut self, data_off: u16, len: u16) {
        // SAFETY: the pointer is a live mbuf that we own, these its fields. One segment, so its
        // length and the packet's are the same.
        unsafe {
            *field!(self, DIRECTOR_MBUF_DATA_OFF: u16) = data_off;
            *field!(self, DIRECTOR_MBUF_DATA_LEN: u16) = len;
            *field!(self, DIRECTOR_MBUF_PKT_LEN: u32) = u32::from(len);
        }
    }
}

impl PacketBuf for Mbuf {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: data_off + data_len is at most buf_len (DPDK's promise on rx, ours since), the
        // memory is mapped and written before, and while `self` is borrowed nobody writes.
        unsafe { std::slice::from_raw_parts(self.data(), usize::from(self.data_len())) }
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; and we are its only owner, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data(), usize::from(self.data_len())) }
    }

    #[inline]
    fn prepend(&mut self, len: usize) -> bool {
        let room = self.data_off();
        let Ok(len) = u16::try_from(len) else {
            return false;
        };
        if len > room {
            return false;
        }
        // SAFETY: the frame's end stays where it is, so it stays in the buffer.
        unsafe { self.set_frame(room - len, self.data_len() + len) };
        true
    }

    #[inline]
    fn trim_front(&mut self, len: usize) {
        let have = self.data_len();
        assert!(len <= usize::from(have), "trim_front past the end");
        #[expect(clippy::cast_possible_truncation, reason = "at most data_len")]
        let len = len as u16;
        // SAFETY: the frame's end stays where it is, so it stays in the buffer.
        unsafe { self.set_frame(self.data_off() + len, have - len) };
    }

    #[inline]
    fn resize(&mut self, len: usize) -> bool {
        let room = self.buf_len() - self.data_off();
        let Ok(len) = u16::try_from(len) else {
            return false;
        };
        if len > room {
            return false;
        }
        // SAFETY: data_off + len is at most data_off + room, which is buf_len.
        unsafe { self.set_frame(self.data_off(), len) };
        true
    }

    #[inline(always)]
    fn reframe(&mut self, front: usize, len: usize) -> bool {
        let room = self.data_off();
        let (Ok(front), Ok(len)) = (u16::try_from(front), u16::try_from(len)) else {
            return false;
        };
        if front > room || len > self.data_len() + front {
            return false;
        }
        // SAFETY: the frame begins in the buffer, and ends no later than it did.
        unsafe { self.set_frame(room - front, len) };
        true
    }

    #[inline]
    fn rss_hash(&self) -> Option<u32> {
        // SAFETY: the pointer is a live mbuf, these its fields.
        let (flags, hash) = unsafe {
            (
                *field!(self, DIRECTOR_MBUF_OL_FLAGS: u64),
                *field!(self, DIRECTOR_MBUF_HASH_RSS: u32),
            )
        };
        (flags & ffi::DIRECTOR_MBUF_RSS_HASH != 0).then_some(hash)
    }

    #[inline(always)]
    fn approach(&self) {
        // SAFETY: the pointer is a live mbuf, which has a first byte.
        cpu::prefetch_ref(unsafe { self.0.cast::<u8>().as_ref() });
    }

    /// Reading the address loads the mbuf's first line, which holds its length too. What the headers of
    /// IPv6 do not find room for in one line is in the next.
    #[inline(always)]
    fn prefetch(&self) {
        let frame = self.bytes();
        cpu::prefetch_to_write(frame, 0);
        if frame.len() > LINE {
            cpu::prefetch(frame, LINE);
        }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: wants an mbuf that nobody uses afterwards; its only owner goes here.
        unsafe { ffi::rte_pktmbuf_free(self.0.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.data_len())
            .finish_non_exhaustive()
    }
}

/// Frees all of `burst` with one call.
pub fn free_burst(mut burst: Burst<Mbuf>) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a burst is at most BURST long"
    )]
    let len = burst.len() as u32;
    // SAFETY: wants `len` mbufs that nobody uses afterwards. Length 0 first, so that `burst`
    // does not free them again; `Mbuf` is a transparent mbuf pointer.
    unsafe {
        burst.set_len(0);
        ffi::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), len);
    }
}

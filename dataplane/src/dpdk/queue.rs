//! A port's queues: each is moved into the one worker that polls or fills it.

use std::sync::Arc;

use dpdk_sys as ffi;

use super::port::Started;
use super::{BURST_LEN, Mbuf};
use crate::packet::Burst;

/// One receive queue. Not `Clone`, not shared: one worker polls it.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Started>,
    queue: u16,
    scattered: Scattered,
}

/// Frames that came in several buffers: longer than the port's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scattered {
    pub frames: u64,
    pub bytes: u64,
}

impl RxQueue {
    pub(super) fn new(port: Arc<Started>, queue: u16) -> Self {
        Self {
            port,
            queue,
            scattered: Scattered::default(),
        }
    }

    /// Fills `burst` with what has arrived; returns how many. Of these, the ones that came in
    /// several buffers are not in `burst` but freed: see [`Self::take_scattered`].
    #[inline]
    pub fn recv(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        burst.clear();
        // SAFETY: wants a started port and queue, which `Started` is and stays while we hold it;
        // no other thread on this queue (`&mut self`, one `RxQueue` a queue); and room for BURST
        // pointers, which an empty burst has. It returns how many mbufs it gave us to own.
        unsafe {
            let mbufs = burst.as_mut_ptr().cast();
            let len = ffi::rte_eth_rx_burst(self.port.id(), self.queue, mbufs, BURST_LEN);
            burst.set_len(usize::from(len));
        }
        let arrived = burst.len();
        if !burst.iter().all(Mbuf::is_one_segment) {
            self.drop_scattered(burst);
        }
        arrived
    }

    /// What was dropped since this was asked last.
    pub fn take_scattered(&mut self) -> Scattered {
        std::mem::take(&mut self.scattered)
    }

    #[cold]
    fn drop_scattered(&mut self, burst: &mut Burst<Mbuf>) {
        let scattered = &mut self.scattered;
        burst.retain(|mbuf| {
            let whole = mbuf.is_one_segment();
            if !whole {
                scattered.frames += 1;
                scattered.bytes += u64::from(mbuf.frame_len());
            }
            whole
        });
    }
}

/// One transmit queue. Not `Clone`, not shared: one worker fills it.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<Started>,
    queue: u16,
}

impl TxQueue {
    pub(super) fn new(port: Arc<Started>, queue: u16) -> Self {
        Self { port, queue }
    }

    /// Sends `burst`, leaving it empty; what the NIC refuses is freed. Returns how many were
    /// sent: the first so many.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a burst is at most BURST = 32 long"
    )]
    pub fn send(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let len = burst.len();
        // SAFETY: length 0 first, so no mbuf is ever owned twice. The port is started while we
        // hold it, and `&mut self` of its only handle keeps other threads off the queue. After
        // the call the NIC owns [..sent]; [sent..len] is still ours, and exactly that is freed.
        // `Mbuf` is a transparent non-null mbuf pointer, so the array is what DPDK expects.
        unsafe {
            burst.set_len(0);
            let mbufs = burst.as_mut_ptr().cast();
            let sent = ffi::rte_eth_tx_burst(self.port.id(), self.queue, mbufs, len as u16);
            let sent = usize::from(sent);
            if sent < len {
                ffi::rte_pktmbuf_free_bulk(mbufs.add(sent), (len - sent) as u32);
            }
            sent
        }
    }
}

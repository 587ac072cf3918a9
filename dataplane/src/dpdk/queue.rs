//! A port's queues: each is moved into the one worker that polls or fills it.

use std::sync::Arc;

use dpdk_sys as ffi;

use super::port::Started;
use super::{BURST_LEN, Mbuf};
use crate::packet::{Burst, PacketBuf};

/// One receive queue. Not `Clone`, not shared: one worker polls it.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<Started>,
    queue: u16,
    scattered: Burst<Mbuf>,
}

impl RxQueue {
    pub(super) fn new(port: Arc<Started>, queue: u16) -> Self {
        Self {
            port,
            queue,
            scattered: Burst::new(),
        }
    }

    /// Fills `burst` with what has arrived; returns how many. Of these, the ones that came in
    /// several buffers, longer than the port's MTU, are not in `burst`: see [`Self::free_scattered`].
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
            self.set_scattered_aside(burst);
        }
        arrived
    }

    /// Frees those of the last call of [`Self::recv`] that came in several buffers; `each` sees what is
    /// in the first buffer, and the whole length.
    pub fn free_scattered(&mut self, mut each: impl FnMut(&[u8], usize)) {
        for mbuf in self.scattered.drain(..) {
            each(mbuf.bytes(), mbuf.frame_len() as usize);
        }
    }

    #[cold]
    fn set_scattered_aside(&mut self, burst: &mut Burst<Mbuf>) {
        self.scattered.clear();
        for mbuf in std::mem::take(burst) {
            if mbuf.is_one_segment() {
                burst.push(mbuf);
            } else {
                self.scattered.push(mbuf);
            }
        }
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

    /// Sends `burst`, leaving in it what the NIC refuses. Returns how many were sent: the first so
    /// many.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a burst is at most BURST = 32 long"
    )]
    pub fn send(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let len = burst.len();
        // SAFETY: length 0 first, so no mbuf is ever owned twice. The port is started while we
        // hold it, and `&mut self` of its only handle keeps other threads off the queue. After
        // the call the NIC owns [..sent]; [sent..len] is still ours, and exactly that is moved to
        // the front, where it is again what an array of that length owns. `Mbuf` is a transparent
        // non-null mbuf pointer, so the array is what DPDK expects.
        unsafe {
            burst.set_len(0);
            let mbufs = burst.as_mut_ptr();
            let sent = ffi::rte_eth_tx_burst(self.port.id(), self.queue, mbufs.cast(), len as u16);
            let sent = usize::from(sent);
            if sent < len {
                std::ptr::copy(mbufs.add(sent), mbufs, len - sent);
                burst.set_len(len - sent);
            }
            sent
        }
    }
}

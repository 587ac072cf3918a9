//! Packets, bursts of them, and where they leave.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::conn::Hash;
use crate::watch::Watch;
use crate::watch::tap::Note;
use crate::wire::ethernet;

/// The most packets that travel together.
pub const BURST: usize = 32;
/// The most ports a director serves.
pub const PORTS_MAX: usize = 32;
/// The longest IP packet of any network.
pub const MTU_MAX: u16 = 9200;
/// The longest frame the director makes itself, without frame check sequence: a fragment of a
/// longer packet. Buffers are as long as the largest MTU of the ports.
pub const MADE_MAX: usize = ethernet::HEADER_MAX + MTU_MAX as usize;

/// A NIC, physical or virtual, by its position in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PortId(pub u8);

impl PortId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One packet, owned: dropping it frees it. One contiguous frame from the Ethernet header on,
/// without frame check sequence.
pub trait PacketBuf: Sized + std::fmt::Debug {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Grows the frame by `len` bytes at the front; `false` when there is no headroom.
    #[must_use]
    fn prepend(&mut self, len: usize) -> bool;
    /// Cuts `len` bytes from the front; the frame is at least that long.
    fn trim_front(&mut self, len: usize);
    /// Cuts or grows the frame at its end; `false` when it does not fit. New bytes are unspecified.
    #[must_use]
    fn resize(&mut self, len: usize) -> bool;
    /// Grows the frame by `front` bytes at the front and cuts it behind `len`, which it then has; `false`,
    /// and nothing done, when there is no headroom.
    #[must_use]
    fn reframe(&mut self, front: usize, len: usize) -> bool {
        let fits = self.prepend(front);
        if fits {
            let cut = self.resize(len);
            debug_assert!(cut, "a frame can always be shorter");
        }
        fits
    }
    /// Starts loading what says where the headers are.
    fn approach(&self) {}
    /// Starts loading the headers into the cache.
    fn prefetch(&self) {}
    /// What the device that received it hashed it to, if it tells.
    fn rss_hash(&self) -> Option<u32> {
        None
    }
}

/// Up to [`BURST`] packets that travel together.
pub type Burst<P> = ArrayVec<P, BURST>;

/// What it means that a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Forwarded,
    /// Made by the director, or turned into its answer.
    Answered,
    /// To the kernel: it is none of the director's.
    Punted,
}

/// Where a packet that leaves came from, for the accounting of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The port it was received on; for a packet of our own, the port it was made for.
    pub port: PortId,
    pub exit: Exit,
}

impl Origin {
    /// Of a packet that was received on `port` and goes on.
    #[inline]
    pub const fn forwarded(port: PortId) -> Self {
        let exit = Exit::Forwarded;
        Self { port, exit }
    }

    /// Of a packet of the director's own, made for `port` or in the place of one received there.
    #[inline]
    pub const fn answer(port: PortId) -> Self {
        let exit = Exit::Answered;
        Self { port, exit }
    }

    /// Of a packet that was received on `port` and is the kernel's.
    #[inline]
    pub const fn punted(port: PortId) -> Self {
        let exit = Exit::Punted;
        Self { port, exit }
    }
}

/// An Ethernet address that a worker learned and every worker should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    pub port: PortId,
    pub vlan: Option<u16>,
    pub address: IpAddr,
    pub mac: [u8; 6],
    /// The neighbour was asked and answered, so that it is certainly there.
    pub solicited: bool,
    /// Replaces another Ethernet address that is known.
    pub overrides: bool,
}

/// What the director may do to the outside: send, make, tell the other workers.
pub trait Egress {
    type Buf: PacketBuf;

    /// Sends `packet` from port `to`. Its end is counted when the port took or refused it.
    fn send(&mut self, to: PortId, packet: Self::Buf, origin: Origin);
    /// A fresh packet of `len` (at most [`MADE_MAX`]) zeroed bytes, or `None` when buffers ran
    /// out. The caller counts it as made.
    fn make(&mut self, len: usize) -> Option<Self::Buf>;
    /// Tells the other workers.
    fn share(&mut self, learned: Learned);
    /// Hands a packet received on `from` to the worker that owns it. With a `hash` it is
    /// plain, of IPv4 and addressed to us, and that is its flow's in that worker's table too.
    fn steer(&mut self, worker: usize, from: PortId, hash: Option<Hash>, packet: Self::Buf);
    /// Where packets end that go no further.
    fn watch(&mut self) -> &mut Watch;
    /// What is known of the packet that is being decided about; only who captures wants to know.
    #[inline(always)]
    fn note(&mut self, _: impl FnOnce() -> Note) {}
}

/// A packet in plain memory, for tests and replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeapBuf {
    data: Vec<u8>,
    start: usize,
    rss_hash: Option<u32>,
}

impl HeapBuf {
    const HEADROOM: usize = 128;

    pub fn new(frame: &[u8]) -> Self {
        let mut data = vec![0xa5; Self::HEADROOM];
        data.extend_from_slice(frame);
        Self {
            data,
            start: Self::HEADROOM,
            rss_hash: None,
        }
    }

    /// As from a device that hashes.
    #[must_use]
    pub fn hashed(self, hash: u32) -> Self {
        let rss_hash = Some(hash);
        Self { rss_hash, ..self }
    }
}

impl PacketBuf for HeapBuf {
    fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..]
    }

    fn prepend(&mut self, len: usize) -> bool {
        let fits = self.start >= len;
        if fits {
            self.start -= len;
        }
        fits
    }

    fn trim_front(&mut self, len: usize) {
        assert!(self.bytes().len() >= len, "trim_front past the end");
        self.start += len;
    }

    fn resize(&mut self, len: usize) -> bool {
        self.data.resize(self.start + len, 0xa5);
        true
    }

    fn rss_hash(&self) -> Option<u32> {
        self.rss_hash
    }
}

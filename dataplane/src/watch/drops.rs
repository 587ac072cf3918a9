//! The last drops of one worker.

use crate::counters::DropReason;
use crate::packet::PortId;

/// Drops that a worker remembers.
pub const DROPS_KEPT: usize = 256;
/// Bytes that it remembers of each packet.
pub const DROP_BYTES: usize = 128;

/// One packet that was dropped.
#[derive(Debug, Clone)]
pub struct Drop {
    /// Since the daemon started.
    pub at_ns: u64,
    /// Of the packet.
    pub len: u32,
    caught: u8,
    pub reason: DropReason,
    /// Where it was received, or what it was made for.
    pub port: PortId,
    bytes: [u8; DROP_BYTES],
}

const _: () = assert!(DROP_BYTES <= u8::MAX as usize);

impl Drop {
    /// The first bytes of the packet as it was when it was dropped.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.caught)]
    }
}

/// A ring of the last [`DROPS_KEPT`] drops. Its memory is fixed at construction.
#[derive(Debug)]
pub struct Recent {
    ring: Box<[Drop]>,
    /// Drops so far.
    count: u64,
}

impl Default for Recent {
    fn default() -> Self {
        let empty = Drop {
            at_ns: 0,
            len: 0,
            caught: 0,
            reason: DropReason::Stopped,
            port: PortId::default(),
            bytes: [0; DROP_BYTES],
        };
        Self {
            ring: vec![empty; DROPS_KEPT].into(),
            count: 0,
        }
    }
}

impl Recent {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "frames are shorter than 2^32, `caught` is at most DROP_BYTES"
    )]
    pub(super) fn note(
        &mut self,
        at_ns: u64,
        port: PortId,
        reason: DropReason,
        frame: &[u8],
        len: usize,
    ) {
        let slot = &mut self.ring[self.count as usize % DROPS_KEPT];
        let caught = frame.len().min(DROP_BYTES);
        slot.bytes[..caught].copy_from_slice(&frame[..caught]);
        (slot.at_ns, slot.len, slot.caught) = (at_ns, len as u32, caught as u8);
        (slot.reason, slot.port) = (reason, port);
        self.count += 1;
    }

    /// Drops so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Drops after the first `seen` ones that are still here, oldest first. The last of them is number
    /// [`Self::count`].
    pub fn since(&self, seen: u64) -> impl Iterator<Item = &Drop> {
        let kept = self.count.saturating_sub(DROPS_KEPT as u64);
        let numbers = seen.max(kept)..self.count;
        #[expect(clippy::cast_possible_truncation, reason = "modulo DROPS_KEPT")]
        numbers.map(|number| &self.ring[number as usize % DROPS_KEPT])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let mut recent = Recent::default();
        assert_eq!(recent.since(0).count(), 0);
        for n in 0..300u32 {
            let frame = vec![n.to_be_bytes()[3]; n as usize];
            let reason = DropReason::ALL[n as usize % DropReason::ALL.len()];
            recent.note(n.into(), PortId(1), reason, &frame, frame.len());
            assert_eq!(recent.count(), u64::from(n) + 1);
        }
        let all: Vec<_> = recent.since(0).collect();
        assert_eq!(all.len(), DROPS_KEPT);
        for (n, drop) in (44u32..).zip(&all) {
            assert_eq!((drop.at_ns, drop.len, drop.port), (n.into(), n, PortId(1)));
            let caught = (n as usize).min(DROP_BYTES);
            assert_eq!(drop.bytes(), vec![n.to_be_bytes()[3]; caught]);
            let reason = DropReason::ALL[n as usize % DropReason::ALL.len()];
            assert_eq!(drop.reason, reason);
        }
        let new: Vec<_> = recent.since(298).map(|drop| drop.at_ns).collect();
        assert_eq!(new, [298, 299]);
        assert_eq!(recent.since(300).count(), 0);
        assert_eq!(
            recent.since(400).count(),
            0,
            "a number from before a restart"
        );
    }
}

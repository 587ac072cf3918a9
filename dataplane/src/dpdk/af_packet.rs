//! AF_PACKET's ring. Its driver says that it takes frames of 1518 bytes, but cuts only what does
//! not fit into the ring's slots, whose size (`framesz`) its device string tells.

use std::io;
use std::os::fd::AsRawFd;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::eal::option;

const DRIVERS: [&str; 2] = ["net_af_packet", "eth_af_packet"];
/// The driver's own defaults.
const FRAME_DEFAULT: u32 = 2048;
const BLOCK_DEFAULT: u32 = 4096;
/// Slots for every MTU that a port may have, and the smallest blocks of whole pages and whole slots.
const FRAME_JUMBO: u32 = 10_240;
const BLOCK_JUMBO: u32 = 20_480;
/// Of each slot: what the kernel keeps in front of a received packet's IP header.
const SLOT_HEADER: u32 = 80;
/// Of each slot: what the driver keeps when it asks how long a frame can be.
const SLOT_HEADER_MIN: u32 = 32;

/// What a device string says of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ring<'d> {
    interface: &'d str,
    /// Bytes of a slot.
    frame: u32,
    /// Bytes of a block of slots.
    block: u32,
}

impl<'d> Ring<'d> {
    /// `None` for a device of another driver.
    pub(super) fn of(device: &'d str) -> Option<Self> {
        if !DRIVERS.iter().any(|driver| device.starts_with(driver)) {
            return None;
        }
        let number = |key| option(device, key).and_then(|value| value.parse().ok());
        Some(Self {
            interface: option(device, "iface").unwrap_or_default(),
            frame: number("framesz").unwrap_or(FRAME_DEFAULT),
            block: number("blocksz").unwrap_or(BLOCK_DEFAULT),
        })
    }

    /// The longest IP packet that is not cut.
    pub(super) fn mtu_max(&self) -> u16 {
        u16::try_from(self.frame.saturating_sub(SLOT_HEADER)).unwrap_or(u16::MAX)
    }

    /// The longest frame, as the driver reckons: buffers must hold it.
    pub(super) fn frame_max(&self) -> u32 {
        self.frame.saturating_sub(SLOT_HEADER_MIN)
    }

    /// What is wrong with the ring's sizes. The driver takes the slots for contiguous, also from
    /// block to block.
    pub(super) fn fault(&self) -> Option<String> {
        let Self { frame, block, .. } = *self;
        let fits = frame != 0 && block.is_multiple_of(frame);
        (!fits).then(|| format!("blocksz={block} is not a multiple of framesz={frame}"))
    }

    /// Sets the interface's MTU, as the driver does up to where DPDK lets it.
    pub(super) fn set_interface_mtu(&self, mtu: u16) -> io::Result<()> {
        let any = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_mtu: mtu.into(),
            },
        };
        // The last byte stays 0.
        let name = request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut();
        for (to, byte) in name.zip(self.interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([byte]);
        }
        // SAFETY: wants an open socket and a request with a NUL-terminated name, which it only reads.
        match unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFMTU, &request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// `device` with slots for packets of `mtu` bytes, where its driver has slots and nothing is said of
/// their size.
pub fn with_room(device: &str, mtu: u16) -> String {
    let small = Ring::of(device).is_some_and(|ring| ring.mtu_max() < mtu);
    let silent = ["framesz", "blocksz"].map(|key| option(device, key)) == [None, None];
    if small && silent {
        format!("{device},framesz={FRAME_JUMBO},blocksz={BLOCK_JUMBO}")
    } else {
        device.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_where_it_is_needed_and_nobody_says_otherwise() {
        let device = "net_af_packet0,iface=veth0,qpairs=2";
        assert_eq!(with_room(device, 1968), device);
        let jumbo = "net_af_packet0,iface=veth0,qpairs=2,framesz=10240,blocksz=20480";
        assert_eq!(with_room(device, 1969), jumbo);
        let ring = Ring::of(jumbo).unwrap();
        assert!(ring.mtu_max() >= 9200 && ring.fault().is_none());
        assert_eq!(ring.interface, "veth0");
        assert!(BLOCK_JUMBO.is_multiple_of(4096));
        for other in ["net_af_packet0,iface=veth0,framesz=4096", "net_tap0"] {
            assert_eq!(with_room(other, 9000), other);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(Ring::of("net_tap0,iface=x"), None);
        let ring = Ring::of("net_af_packet1,iface=x").unwrap();
        assert_eq!((ring.mtu_max(), ring.frame_max()), (1968, 2016));
        assert_eq!(ring.fault(), None);
        let ring = Ring::of("net_af_packet1,iface=x,framesz=3072").unwrap();
        assert_eq!(
            ring.fault().unwrap(),
            "blocksz=4096 is not a multiple of framesz=3072"
        );
        let ring = Ring::of("eth_af_packet1,iface=x,framesz=0").unwrap();
        assert!(ring.fault().is_some());
        assert_eq!(ring.mtu_max(), 0);
    }
}

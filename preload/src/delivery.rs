//! Answers, into the socket that the program has open to the kernel.
//!
//! Who may administer a network may also send from one netlink socket to another. So a second socket,
//! which lives for one request, sends what the kernel would have: the program's own holds it, wakes who
//! polls it, and is shared, duplicated and closed as it always was.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, getsockname,
    getsockopt, setsockopt, socket,
};
use nix::unistd::write;

/// Port ids that the kernel gives nobody by itself, so that answers can be told by them.
const PORTS: std::ops::RangeInclusive<u32> = 0xffff_f001..=0xffff_fffe;

/// Whether what comes from this port id is an answer of ours.
pub(crate) fn is_ours(port: u32) -> bool {
    PORTS.contains(&port)
}

/// The way to one socket of the program's.
pub(crate) struct Delivery<'a> {
    program: BorrowedFd<'a>,
    port: u32,
    from: OwnedFd,
}

impl<'a> Delivery<'a> {
    /// Fails where the kernel would refuse the request too: IPVS is for who may administer a network.
    pub(crate) fn to(program: BorrowedFd<'a>) -> Result<Self, Errno> {
        let port = port_of(program)?;
        let from = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkGeneric,
        )?;
        bind_anywhere(&from)?;
        connect(from.as_raw_fd(), &NetlinkAddr::new(port, 0))?;
        Ok(Self {
            program,
            port,
            from,
        })
    }

    pub(crate) const fn port(&self) -> u32 {
        self.port
    }

    /// All of them, or as many as were sent before the first that could not be.
    pub(crate) fn send(&self, datagrams: &[Vec<u8>]) -> Result<(), Errno> {
        self.make_room(datagrams)?;
        for datagram in datagrams {
            // Not send(2), which is replaced.
            write(&self.from, datagram)?;
        }
        Ok(())
    }

    /// Where the kernel makes a listing while it is read, this one waits whole.
    fn make_room(&self, datagrams: &[Vec<u8>]) -> Result<(), Errno> {
        /// What the kernel charges for a datagram beside its bytes, at most doubled.
        const OVERHEAD: usize = 1024;
        let needed: usize = datagrams
            .iter()
            .map(|bytes| 2 * bytes.len() + OVERHEAD)
            .sum();
        if needed > getsockopt(&self.program, RcvBuf)? {
            setsockopt(&self.program, RcvBufForce, &needed)?;
        }
        Ok(())
    }
}

/// The kernel names a socket when it first sends; here nothing of it is sent.
fn port_of(program: BorrowedFd<'_>) -> Result<u32, Errno> {
    let port = |fd: BorrowedFd<'_>| getsockname::<NetlinkAddr>(fd.as_raw_fd()).map(|at| at.pid());
    match port(program)? {
        0 => {
            bind(program.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            port(program)
        }
        port => Ok(port),
    }
}

/// Starts where other processes hardly are.
fn bind_anywhere(socket: &impl AsFd) -> Result<(), Errno> {
    let (first, last) = (*PORTS.start(), *PORTS.end());
    let start = first + process::id() % (last - first);
    for port in (start..=last).chain(first..start) {
        match bind(socket.as_fd().as_raw_fd(), &NetlinkAddr::new(port, 0)) {
            Err(Errno::EADDRINUSE) => {}
            bound => return bound,
        }
    }
    Err(Errno::EADDRINUSE)
}

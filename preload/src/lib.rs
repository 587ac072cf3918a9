//! `libdirector_ipvs.so`, for LD_PRELOAD: programs that speak the kernel's generic netlink family IPVS,
//! as ipvsadm and keepalived do, get the director.
//!
//! ```text
//! sendmsg(socket, request) ─▶ interpose ─▶ genetlink ─▶ ipvs ─▶ the director's control socket
//! recvmsg(socket) ◀── the kernel ◀── delivery ◀── genetlink ◀── ipvs ◀──┘
//! ```
//!
//! A request to the family never reaches the kernel. Its answer is sent to the program's own socket by a
//! second one, so that the program waits for it, reads it and loses it as it would one of the kernel's:
//! nothing but sending is replaced, and nothing is remembered about any socket.

mod delivery; // answers, into the program's own socket
mod director; // asked
mod files; // what the kernel shows under /proc
mod genetlink; // requests taken apart, answers put together
mod interpose; // what the C library does otherwise
mod ipvs; // the family's commands
mod netlink; // messages and attributes

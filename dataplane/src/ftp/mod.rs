//! FTP: what its control connections say of data connections to come, and how that is changed on the
//! way, so that clients are told of the virtual address and not of a server's (`docs/ftp.md`).

pub mod numbers; // a text that grew moves the numbers of all that follows
pub mod rewrite; // the virtual address instead of the server's
pub mod words; // PORT and EPRT, 227 and 229

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use numbers::Growth;

/// Control connections come to this port of a virtual address.
pub const CONTROL: u16 = 21;
/// Active data connections come from this port of a server.
pub const DATA: u16 = 20;

/// What is kept of a control connection beside its line. All zero is a new one's.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Debug, Clone, Copy, PartialEq, Eq, Default,
)]
#[repr(C)]
pub struct Talk {
    pub growth: Growth,
    /// The data connection that was announced last: the number of what is known of it in
    /// [`crate::templates::Templates`], and the port it was announced at; 0 is none.
    pub line: u32,
    pub port: u32,
}

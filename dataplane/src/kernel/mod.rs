//! The kernel's side of the ports: what its routing tables say.

pub mod mirror; // what of its tables concerns ports
pub mod rtnetlink; // asks the kernel, and hears when something changed
pub mod tables; // links, addresses, routes and neighbours as it has them

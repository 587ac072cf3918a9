//! Connections: key, table, states, timers.

pub mod state; // TCP and UDP states, transitions, timeouts

pub use state::Timeouts;

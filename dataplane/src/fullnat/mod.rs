//! FULLNAT.
pub mod lease;

//! Raw bindings to the parts of DPDK that the director uses; `dataplane::dpdk` makes them safe.

#![allow(
    unsafe_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    missing_debug_implementations,
    unreachable_pub,
    unnecessary_transmutes,
    reason = "generated: C's names, and foreign functions"
)]
#![allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    reason = "generated: not ours to improve"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

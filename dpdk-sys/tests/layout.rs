//! The facts about DPDK's binary interface on which the safe layer rests.

use std::mem::{align_of, size_of};

#[test]
fn an_mbuf_is_two_cache_lines() {
    assert_eq!(size_of::<dpdk_sys::rte_mbuf>(), 128);
    assert_eq!(align_of::<dpdk_sys::rte_mbuf>(), 64);
    assert_eq!(dpdk_sys::RTE_PKTMBUF_HEADROOM, 128);
}

#[test]
fn fields_of_the_fast_path_share_the_first_line() {
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_BUF_ADDR, 0);
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_DATA_OFF, 16);
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_NB_SEGS, 20);
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_PKT_LEN, 36);
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_DATA_LEN, 40);
    assert_eq!(dpdk_sys::DIRECTOR_MBUF_BUF_LEN, 54);
    // In the second line, or in place of `buf_iova` where DPDK was built without physical addresses.
    assert!([8, 64].contains(&dpdk_sys::DIRECTOR_MBUF_NEXT));
}

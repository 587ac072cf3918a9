//! The few instructions that the language has no word for.

/// Starts loading the cache line of `items[index]`; of no use, and no harm, when there is no such item.
#[inline(always)]
pub fn prefetch<T>(items: &[T], index: usize) {
    load(items.as_ptr().wrapping_add(index).cast());
}

/// Starts loading the cache line at the beginning of `item`.
#[inline(always)]
pub fn prefetch_ref<T: ?Sized>(item: &T) {
    load(std::ptr::from_ref(item).cast());
}

#[inline(always)]
#[expect(
    unsafe_code,
    reason = "a prefetch is the point of the staged burst: 2x at a million flows"
)]
fn load(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the address; SSE is in
    // the baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// As [`prefetch`], of a line that will be written: it is taken from other cores' caches at once, not first
/// shared with them.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "a packet from another core costs a second trip across at its first write otherwise"
)]
pub fn prefetch_to_write<T>(items: &[T], index: usize) {
    let address = items.as_ptr().wrapping_add(index);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the address; a processor
    // without this one takes it for no operation.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The cycle counter.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "reading the time stamp counter has no safe spelling"
)]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: rdtsc is in every x86-64 processor and reads no memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// One bit per lane that equals `value`, lane 0 in bit 0; no branch.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "the compiler's own code for this loop is 5x as long"
)]
pub fn equal_lanes(lanes: &[u16; 8], value: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is in the x86-64 baseline; the load reads exactly the 16 bytes of `lanes`, with
    // no demand on their alignment.
    unsafe {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16,
            _mm_setzero_si128,
        };
        let equal = _mm_cmpeq_epi16(
            _mm_loadu_si128(lanes.as_ptr().cast()),
            _mm_set1_epi16(value.cast_signed()),
        );
        _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())).cast_unsigned()
    }
    #[cfg(not(target_arch = "x86_64"))]
    lanes
        .iter()
        .rev()
        .fold(0, |bits, lane| bits << 1 | u32::from(*lane == value))
}

/// The first lane that equals `value`.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "two instructions less than the first bit of `equal_lanes`, twice a packet"
)]
pub fn first_equal_lane(lanes: &[u16; 8], value: u16) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `equal_lanes`.
    let bits = unsafe {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi16,
        };
        let lanes = _mm_loadu_si128(lanes.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi16(lanes, _mm_set1_epi16(value.cast_signed())))
    };
    // Two bits a lane.
    #[cfg(target_arch = "x86_64")]
    return (bits != 0).then(|| bits.trailing_zeros() as usize / 2);
    #[cfg(not(target_arch = "x86_64"))]
    lanes.iter().position(|lane| *lane == value)
}

/// One bit per lane that `now` has reached, modulo 256: it is there or up to 127 beyond.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "four instructions for 16 lanes, which are swept by the million"
)]
pub fn reached_lanes(lanes: &[u8; 64], now: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is in the x86-64 baseline; each load reads 16 of the 64 bytes of `lanes`, with no
    // demand on their alignment.
    unsafe {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_sub_epi8};
        let now = _mm_set1_epi8(now.cast_signed());
        let ahead = |part: usize| {
            let lanes = _mm_loadu_si128(lanes[part * 16..].as_ptr().cast());
            u64::from(_mm_movemask_epi8(_mm_sub_epi8(now, lanes)).cast_unsigned()) << (part * 16)
        };
        !(ahead(0) | ahead(1) | ahead(2) | ahead(3))
    }
    #[cfg(not(target_arch = "x86_64"))]
    lanes.iter().rev().fold(0, |bits, lane| {
        bits << 1 | u64::from(now.wrapping_sub(*lane) < 128)
    })
}

/// Work that is worth having twice: compiled for the baseline, and for x86-64-v3.
pub trait Hot {
    /// To be marked `#[inline(always)]`, as everything in it that is to be had twice.
    fn run(self);
}

/// Does the work as the processor does it best.
#[inline(always)]
#[expect(
    unsafe_code,
    reason = "what the processor has is known only when it runs; rotations as the baseline has them cost AMD's six operations each"
)]
pub fn run(work: impl Hot) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
    {
        // SAFETY: `run_v3` wants a processor with these five, which was just asked.
        return unsafe { run_v3(work) };
    }
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe")]
fn run_v3(work: impl Hot) {
    work.run();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reached_lanes_marks_what_is_past() {
        for now in [0, 1, 127, 128, 200, 255] {
            let lanes: [u8; 64] = std::array::from_fn(|lane| u8::try_from(lane * 4 + 3).unwrap());
            let bits = reached_lanes(&lanes, now);
            for (at, lane) in lanes.iter().enumerate() {
                assert_eq!(
                    bits >> at & 1 == 1,
                    now.wrapping_sub(*lane) < 128,
                    "{now} {lane}"
                );
            }
        }
    }

    #[test]
    fn equal_lanes_marks_each_lane() {
        assert_eq!(equal_lanes(&[7, 0, 7, 1, 2, 3, 0xff07, 7], 7), 0b1000_0101);
        assert_eq!(equal_lanes(&[0; 8], 0), 0xff);
        assert_eq!(equal_lanes(&[0x8000; 8], 1), 0);
    }

    #[test]
    fn first_equal_lane_is_the_first() {
        assert_eq!(first_equal_lane(&[1, 0xff07, 7, 7, 0, 0, 0, 7], 7), Some(2));
        assert_eq!(
            first_equal_lane(&[0, 0, 0, 0, 0, 0, 0, 0x8000], 0x8000),
            Some(7)
        );
        assert_eq!(first_equal_lane(&[0x0700; 8], 7), None);
    }
}

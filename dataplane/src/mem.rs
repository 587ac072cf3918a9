//! Fixed arrays on huge pages where there are any. They are made once, at start, and never grow.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut, MmapOptions};
use zerocopy::{FromZeros, IntoBytes};

const HUGE_PAGE: usize = 2 << 20;
/// Binary logarithms of the sizes of pages that may be reserved for applications, the larger one first: at
/// ten million connections a table on 2 MiB pages already waits for their addresses.
const RESERVED: [u8; 2] = [30, 21];

/// `len` zeroed values, resident from the start.
#[derive(Debug)]
pub struct Array<T> {
    values: NonNull<[T]>,
    _map: MmapMut,
}

impl<T: FromZeros + IntoBytes> Array<T> {
    /// Takes pages of 1 GiB that are reserved for applications first, if they are filled by half, then
    /// those of 2 MiB, then transparent ones, then ordinary ones.
    pub fn zeroed(len: usize) -> io::Result<Self> {
        Self::view(Self::map(Self::size(len)?)?, len)
    }

    fn size(len: usize) -> io::Result<usize> {
        const { assert!(align_of::<T>() <= 4096 && size_of::<T>() > 0) };
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|bytes| *bytes <= isize::MAX as usize - HUGE_PAGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(bytes.max(1))
    }

    /// `map` is zeroed and holds `len` values.
    fn view(mut map: MmapMut, len: usize) -> io::Result<Self> {
        let values = NonNull::slice_from_raw_parts(
            NonNull::new(map.as_mut_ptr())
                .ok_or(io::ErrorKind::OutOfMemory)?
                .cast(),
            len,
        );
        Ok(Self { values, _map: map })
    }

    /// As [`Self::zeroed`], but memory is only taken where something is written: of what is shorter
    /// than a huge page in ordinary ones.
    pub fn sparse(len: usize) -> io::Result<Self> {
        if Self::size(len)? < HUGE_PAGE {
            let map = MmapOptions::new().len(Self::size(len)?).map_anon()?;
            return Self::view(map, len);
        }
        let bytes = Self::size(len)?.next_multiple_of(HUGE_PAGE);
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        // Advice that the kernel cannot follow costs speed, not correctness.
        let _ = map.advise(Advice::HugePage);
        Self::view(map, len)
    }

    fn map(bytes: usize) -> io::Result<MmapMut> {
        if bytes < HUGE_PAGE {
            return MmapOptions::new().len(bytes).populate().map_anon();
        }
        for shift in RESERVED {
            let page = 1 << shift;
            let mut options = MmapOptions::new();
            options.len(bytes.next_multiple_of(page)).huge(Some(shift));
            if bytes >= page / 2
                && let Ok(map) = options.populate().map_anon()
            {
                return Ok(map);
            }
        }
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let mut map = MmapOptions::new().len(bytes).map_anon()?;
        // Advice that the kernel cannot follow costs speed, not correctness.
        let _ = map.advise(Advice::HugePage);
        for page in map.chunks_mut(4096) {
            page[0] = 0;
        }
        Ok(map)
    }
}

// A `Vec` cannot ask for huge pages, and casting the mapping's bytes on each access costs a length
// and alignment check per look-up (3 ns of a 30 ns packet): hence the two blocks below.
#[expect(unsafe_code, reason = "typed view of a mapping, argued above")]
impl<T> Deref for Array<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `values` points into `_map`, which lives as long as `self`, is page-aligned, at
        // least `len * size_of::<T>()` long and was zeroed by the kernel; `T: FromZeros` makes zeroes
        // valid values. `&self` allows shared reads only.
        unsafe { self.values.as_ref() }
    }
}

#[expect(unsafe_code, reason = "typed view of a mapping, argued above")]
impl<T> DerefMut for Array<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference.
        unsafe { self.values.as_mut() }
    }
}

#[expect(
    unsafe_code,
    reason = "the pointer is to memory that only this value owns"
)]
// SAFETY: an `Array` owns its mapping alone, like a `Vec` its buffer.
unsafe impl<T: Send> Send for Array<T> {}

#[expect(unsafe_code, reason = "as with `Send`")]
// SAFETY: `&Array<T>` gives `&T` and nothing else, like a shared `Vec`; nothing here has interior
// mutability but what `T` has.
unsafe impl<T: Sync> Sync for Array<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_and_writable_to_the_last_value() {
        for len in [0, 1, 1000, 1 << 19] {
            let mut array = Array::<u64>::zeroed(len).unwrap();
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|v| *v == 0));
            if let Some(last) = array.last_mut() {
                *last = 7;
            }
            assert_eq!(array.iter().sum::<u64>(), if len == 0 { 0 } else { 7 });
        }
        assert!(Array::<u64>::zeroed(usize::MAX / 4).is_err());
    }
}

//! Fixed arrays on huge pages where there are any, or in files that outlive the process. They are made
//! once, at start, and never grow.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const HUGE_PAGE: usize = 2 << 20;
/// What is shorter has few enough ordinary pages. The counters of ten thousand servers have not: a whole
/// connection takes 4 % less time with them on a huge page.
const HUGE_FROM: usize = HUGE_PAGE / 16;
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
        if bytes < HUGE_FROM {
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

/// Where arrays lie: in memory that ends with the process, or each in a file of its own.
#[derive(Debug, Clone, Default)]
pub struct Place(Option<Shelf>);

#[derive(Debug, Clone)]
struct Shelf {
    directory: Arc<Path>,
    /// In front of the names of its files.
    owner: Arc<str>,
    /// Bytes of files that take their memory only when something is written to them.
    promised: Arc<AtomicU64>,
}

impl Place {
    /// In memory that ends with the process.
    pub const MEMORY: Self = Self(None);

    /// In files of this directory.
    pub fn files(directory: &Path) -> Self {
        Self(Some(Shelf {
            directory: directory.into(),
            owner: "".into(),
            promised: Arc::default(),
        }))
    }

    /// Beside the others, where names of files begin with this one.
    #[must_use]
    pub fn of(&self, owner: &str) -> Self {
        let shelf = self.0.as_ref();
        Self(shelf.map(|shelf| Shelf {
            owner: format!("{}{owner}.", shelf.owner).into(),
            ..shelf.clone()
        }))
    }

    /// As [`Array::zeroed`].
    pub fn zeroed<T: FromZeros + IntoBytes>(&self, name: &str, len: usize) -> io::Result<Array<T>> {
        match &self.0 {
            None => Array::zeroed(len),
            Some(shelf) => Array::view(shelf.map(name, Array::<T>::size(len)?, true)?, len),
        }
    }

    /// As [`Array::sparse`].
    pub fn sparse<T: FromZeros + IntoBytes>(&self, name: &str, len: usize) -> io::Result<Array<T>> {
        match &self.0 {
            None => Array::sparse(len),
            Some(shelf) => Array::view(shelf.map(name, Array::<T>::size(len)?, false)?, len),
        }
    }
}

impl Shelf {
    fn map(&self, name: &str, bytes: usize, filled: bool) -> io::Result<MmapMut> {
        let path = self.directory.join(format!("{}{name}", self.owner));
        let map = self.make(&path, bytes, filled);
        map.map_err(|error| named(&path, error))
    }

    fn make(&self, path: &Path, bytes: usize, filled: bool) -> io::Result<MmapMut> {
        let (file, bytes) = new_file(path, bytes)?;
        let (whole, all) = (i64::try_from(bytes), bytes as u64);
        let promised = match filled {
            true => self.promised.load(Relaxed),
            false => self.promised.fetch_add(all, Relaxed),
        };
        has_room(&file, promised + all)?;
        let mut options = MmapOptions::new();
        if filled {
            let whole = whole.map_err(|_| io::ErrorKind::OutOfMemory)?;
            fallocate(&file, FallocateFlags::empty(), 0, whole)?;
            options.populate();
        }
        let map = map_mut(&options, &file)?;
        // Advice that the kernel cannot follow costs speed, not correctness.
        let _ = map.advise(Advice::HugePage);
        Ok(map)
    }
}

/// Whether the file system of this file has room for so much.
pub fn has_room(file: &File, bytes: u64) -> io::Result<()> {
    let room = fstatfs(file)?;
    let free = room.blocks_available() * u64::try_from(room.block_size()).unwrap_or(1);
    // Nothing is said of room that is not limited.
    if room.blocks() > 0 && bytes > free {
        let detail = format!("{} MiB are needed, {} are free", mib(bytes), mib(free));
        return Err(io::Error::new(io::ErrorKind::StorageFull, detail));
    }
    Ok(())
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A new file of as many zeroes, or of a few more, for nobody else to read.
fn new_file(path: &Path, bytes: usize) -> io::Result<(File, usize)> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(path)?;
    // Files on huge pages are of whole ones.
    let page = usize::try_from(fstatfs(&file)?.block_size()).unwrap_or(0);
    let bytes = bytes.next_multiple_of(page.max(4096));
    file.set_len(bytes as u64)?;
    Ok((file, bytes))
}

/// Whether files in this directory are memory and nothing else: a disk would be written to all the time.
pub fn holds_memory(directory: &File) -> io::Result<bool> {
    /// Of ramfs.
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    let kind = fstatfs(directory)?.filesystem_type();
    Ok([TMPFS_MAGIC, HUGETLBFS_MAGIC, RAMFS_MAGIC].contains(&kind))
}

/// Writes a file at once, on whatever file system: whoever reads it finds all of `content`, zeroes behind
/// it, or what was there before.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (file, _) = new_file(&new, content.len())?;
        // There is no other way to write to a file on huge pages; on a full file system this fails.
        let bytes = i64::try_from(content.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1))?;
        map_mut(&MmapOptions::new(), &file)?[..content.len()].copy_from_slice(content);
        std::fs::rename(&new, path)
    };
    write().map_err(|error| named(path, error))
}

/// What a former process left in a file, as it is now: any bytes.
#[derive(Debug)]
pub struct Left(Mmap);

impl Left {
    /// Refuses a file of another owner, and one that others may write to.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(path).map_err(|error| named(path, error))
    }

    fn map(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        let own = nix::unistd::geteuid().as_raw();
        if !found.is_file() || found.uid() != own || found.mode() & 0o077 != 0 {
            let detail = "not a file of our own that nobody else may read";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, detail));
        }
        let map = map_shared(&file)?;
        Ok(Self(map))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many values there is room for.
    pub fn room_for<T>(&self) -> usize {
        self.0.len() / size_of::<T>()
    }

    /// A copy of the value at this place.
    pub fn get<T: FromBytes>(&self, at: usize) -> Option<T> {
        let from = at.checked_mul(size_of::<T>())?;
        let bytes = self.0.get(from..from.checked_add(size_of::<T>())?)?;
        T::read_from_bytes(bytes).ok()
    }
}

#[expect(unsafe_code, reason = "a file's memory, argued below")]
fn map_mut(options: &MmapOptions, file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file was just made, for nobody else to read or write, in a directory that this process
    // has locked; later ones only read it, once this process has ended.
    unsafe { options.map_mut(file) }
}

#[expect(unsafe_code, reason = "a file's memory, argued below")]
fn map_shared(file: &File) -> io::Result<Mmap> {
    // SAFETY: nobody but us and root may write to the file, and who wrote to it held the lock that this
    // process has now, or had it from the one before. Values are copied out of it and then looked at.
    unsafe { MmapOptions::new().map(file) }
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

    #[test]
    fn files_are_read_by_whoever_comes_next() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::files(directory.path()).of("a").of("b");
        let mut array = place.zeroed::<u64>("x", 1000).unwrap();
        array[999] = 7;
        assert!(
            place
                .sparse::<u32>("y", 10)
                .unwrap()
                .iter()
                .all(|v| *v == 0)
        );
        let again = place.zeroed::<u64>("x", 1).unwrap_err().to_string();
        assert!(again.contains("a.b.x"), "{again}");
        assert!(
            place.sparse::<u64>("z", 1 << 50).is_err(),
            "no file system is so large"
        );

        let left = Left::open(&directory.path().join("a.b.x")).unwrap();
        assert!(left.room_for::<u64>() >= 1000);
        let read = [0, 999, 1 << 40, usize::MAX].map(|at| left.get::<u64>(at));
        assert_eq!(read, [Some(0), Some(7), None, None]);
        array[0] = 9;
        assert_eq!(left.get(0), Some(9u64), "it is the same memory");
    }
}

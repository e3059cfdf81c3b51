//! Memory for secrets: pages of their own, so that they can be locked against swapping, left out of core
//! dumps and wiped in a forked child without touching anybody else's data.

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// Bytes on pages of their own. Locking them is a second wall: where the limits forbid it they are there
/// all the same.
pub struct Pages {
    start: NonNull<u8>,
    length: usize,
    mapped: NonZeroUsize,
}

// SAFETY: the pages are owned by this value alone; nothing about them belongs to a thread.
unsafe impl Send for Pages {}
// SAFETY: through a shared reference they are only read.
unsafe impl Sync for Pages {}

impl Pages {
    /// Moves `bytes` there, and wipes where they were.
    ///
    /// # Errors
    /// When the system has no more memory; the bytes are wiped then, too.
    pub fn take(mut bytes: Vec<u8>) -> std::io::Result<Self> {
        let taken = Self::of(&bytes);
        bytes.zeroize();
        taken
    }

    fn of(bytes: &[u8]) -> std::io::Result<Self> {
        let mapped = NonZeroUsize::new(bytes.len()).unwrap_or(NonZeroUsize::MIN);
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at a place of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, mapped, protection, flags) }?;
        // SAFETY: the range is the mapping just made, and none of these change a byte of it here.
        unsafe {
            let _ = mlock(start, mapped.get());
            let _ = madvise(start, mapped.get(), MmapAdvise::MADV_DONTDUMP);
            let _ = madvise(start, mapped.get(), MmapAdvise::MADV_WIPEONFORK);
        }
        let start = start.cast::<u8>();
        // SAFETY: the mapping is at least as long as `bytes`, fresh, and so does not overlap them.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        Ok(Self { start, length: bytes.len(), mapped })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes of the mapping were written in `of`, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and nobody can hold a reference into it any more.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length).zeroize();
            let _ = munmap(self.start.cast(), self.mapped.get());
        }
    }
}

/// Locks all memory of this process, now and later, as it is touched, so that nothing of it is ever
/// swapped. Only where the limit can be lifted: under a limit, allocations would fail once it is reached.
pub fn lock_everything() -> std::io::Result<()> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    // SAFETY: changes no byte.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's flags of the mapping that contains `address`.
    fn flags(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let parsed = range.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            if let Some((from, to)) = parsed {
                inside = (from..to).contains(&address);
            } else if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("no such mapping");
    }

    #[test]
    fn pages_are_locked_and_excluded_from_dump_and_fork() {
        let pages = Pages::take(b"a value".to_vec()).unwrap();
        assert_eq!(pages.bytes(), b"a value");
        let flags = flags(pages.bytes().as_ptr() as usize);
        for flag in [" lo", " dd", " wf"] {
            assert!(flags.contains(flag), "{flag} is not in {flags}");
        }
    }

    #[test]
    fn empty_value_is_supported() {
        assert!(Pages::take(Vec::new()).unwrap().bytes().is_empty());
    }
}

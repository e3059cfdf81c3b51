//! Counts the uses of a session in a file that grows by one byte per use. The file outlives the process that
//! counts, several processes may count at once, and a missing file counts as used up.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use crate::sys::files;

/// The most uses that can be counted.
pub const MAX_USES: u64 = 1_000_000;

/// Begins to count.
pub fn begin(path: &Path) -> io::Result<()> {
    files::replace(path, &[])
}

/// The number of uses so far, for a session that counts them.
pub fn used(path: &Path) -> io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

/// Counts one use more, unless there were `most` already. Blocks. Whether it may be used.
pub fn charge(path: &Path, most: u64) -> io::Result<bool> {
    // Some systems lock for nobody who may only append.
    let mut file = OpenOptions::new().read(true).append(true).open(path)?;
    file.lock()?;
    if file.metadata()?.len() >= most {
        return Ok(false);
    }
    file.write_all(b".")?;
    // What was used before the power failed was used.
    file.sync_data()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_uses_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uses");
        begin(&path).unwrap();
        let allowed = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..20).map(|_| scope.spawn(|| charge(&path, 7).unwrap())).collect();
            tries.into_iter().map(|thread| thread.join().unwrap()).filter(|may| *may).count()
        });
        assert_eq!((allowed, used(&path).unwrap()), (7, 7));
    }

    #[test]
    fn missing_count_file_is_not_a_new_count() {
        let folder = tempfile::tempdir().unwrap();
        assert!(charge(&folder.path().join("uses"), 7).is_err());
    }
}

//! The hash of an executable file: computed once per version of the file, off the threads that serve.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use moka::future::Cache;

use crate::types::hex::hex;

use crate::sys::{Version, last_change};

const MAX_CACHED_FILES: u64 = 4096;
/// A file that changed more recently is hashed anew each time: file systems keep time in steps, and a
/// second change within the same step would not show.
const MIN_FILE_AGE: Duration = Duration::from_secs(2);

/// Our own program, for a process whose callers are mostly that, and its children.
static OWN: OnceLock<(Version, String)> = OnceLock::new();

/// Hashes of executables. A copy remembers the same ones.
#[derive(Clone)]
pub struct Hashes {
    known: Cache<Version, Arc<str>>,
}

impl Default for Hashes {
    fn default() -> Self {
        Self { known: Cache::new(MAX_CACHED_FILES) }
    }
}

impl Hashes {
    /// SHA-256 of the open `file` in lower-case hex. Callers that ask at once wait for one computation.
    pub async fn of(&self, file: File) -> io::Result<Arc<str>> {
        let (version, metadata) = (Version::of(&file)?, file.metadata()?);
        let computed = async move {
            let hashed = tokio::task::spawn_blocking(move || sha256(file)).await.map_err(io::Error::other)?;
            hashed.map(Arc::from)
        };
        if !is_settled(&metadata) {
            return computed.await;
        }
        self.known
            .try_get_with(version, computed)
            .await
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

/// Whether the last change of a file, by a clock that nobody sets but root, is long enough ago.
fn is_settled(metadata: &Metadata) -> bool {
    let age = last_change(metadata).and_then(|changed| SystemTime::now().duration_since(changed).ok());
    age.is_some_and(|age| age > MIN_FILE_AGE)
}

/// Hashes our own program once, for `hash` in this process and in those that it forks.
#[cfg(target_os = "linux")]
pub fn cache_own_hash() -> io::Result<()> {
    let file = File::open("/proc/self/exe")?;
    let version = Version::of(&file)?;
    if is_settled(&file.metadata()?) {
        let _ = OWN.set((version, sha256(file)?));
    }
    Ok(())
}

/// SHA-256 of the open `file`, which is known if it is our own program as it was remembered.
pub fn hash(file: File) -> io::Result<String> {
    let version = Version::of(&file)?;
    match OWN.get() {
        Some((own, hash)) if *own == version => Ok(hash.clone()),
        _ => sha256(file),
    }
}

/// SHA-256 of what `file` holds from here on, in lower-case hex.
pub fn sha256(mut file: impl Read) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(hex(context.finish().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changed_file_has_another_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let hashes = Hashes::default();
        let mut seen = Vec::new();
        // The second is written within the same step of the clock, if it is a coarse one.
        for content in ["abc", "abd"] {
            std::fs::write(&path, content).unwrap();
            seen.push(hashes.of(File::open(&path).unwrap()).await.unwrap());
        }
        assert_eq!(&*seen[0], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_ne!(seen[0], seen[1]);
    }
}

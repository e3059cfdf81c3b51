//! Confirmation by a passphrase, typed at a terminal for one act and remembered for none. An Argon2id hash of
//! it is stored in the private home. Wrong guesses are throttled, and a guess is counted before it is
//! verified, so that aborting one does not undo it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentsecrets_sys::files;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Minimum length of a passphrase, in bytes.
pub const MIN_PASSPHRASE_LENGTH: usize = 8;
/// Maximum delay after a wrong guess.
const MAX_THROTTLE: Duration = Duration::from_secs(300);
/// Wrong guesses without a delay: people mistype.
const FREE_ATTEMPTS: u32 = 3;
/// Argon2id's cost: 64 MiB, three passes, one lane.
const ARGON2_COST: (u32, u32, u32) = (64 * 1024, 3, 1);

/// The passphrase of one person, in that person's private home.
pub struct Passphrase {
    folder: PathBuf,
}

/// Reasons that a passphrase does not confirm an act.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmationError {
    /// No passphrase is set.
    #[error("no passphrase is set for your presence")]
    NotSet,
    /// Too many wrong guesses; the delay in seconds.
    #[error("too many wrong passphrases: wait {0} seconds")]
    Throttled(u64),
    /// The passphrase is wrong.
    #[error("that is not the passphrase")]
    Wrong,
    /// The file could not be read or written.
    #[error("presence cannot be judged: {0}")]
    Io(#[from] io::Error),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHash {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

/// Wrong guesses since the last right one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct FailedAttempts {
    wrong: u32,
    last: Timestamp,
}

impl Passphrase {
    /// The passphrase in `folder`, the private home.
    pub fn in_home(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// Whether a passphrase is set.
    pub fn is_set(&self) -> bool {
        self.hash_path().exists()
    }

    /// Sets or replaces the passphrase.
    pub fn set(&self, passphrase: &str) -> io::Result<()> {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no randomness"))?;
        let hash = hash(passphrase, &salt, ARGON2_COST)?;
        let (memory, passes, lanes) = ARGON2_COST;
        let stored =
            StoredHash { memory, passes, lanes, salt: STANDARD.encode(salt), hash: STANDARD.encode(*hash) };
        files::replace(&self.hash_path(), &serde_json::to_vec(&stored)?)?;
        let _ = fs::remove_file(self.attempts_path());
        Ok(())
    }

    /// Removes it. Returns whether there was one.
    pub fn remove(&self) -> io::Result<bool> {
        let _ = fs::remove_file(self.attempts_path());
        match fs::remove_file(self.hash_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Fails while guesses are throttled, so that nobody is asked in vain.
    pub fn check_throttle(&self) -> Result<(), ConfirmationError> {
        if !self.is_set() {
            return Err(ConfirmationError::NotSet);
        }
        self.read_attempts()?.check_throttle(Timestamp::now())
    }

    /// Verifies `passphrase`. Guesses of one person are verified one at a time.
    pub fn verify(&self, passphrase: &str) -> Result<(), ConfirmationError> {
        let lock = self.lock()?;
        self.check_throttle()?;
        let wrong = self.read_attempts()?.wrong.saturating_add(1);
        self.write_attempts(&FailedAttempts { wrong, last: Timestamp::now() })?;
        let stored: StoredHash =
            serde_json::from_slice(&fs::read(self.hash_path())?).map_err(io::Error::from)?;
        let bytes = |text: &str| STANDARD.decode(text).map_err(io::Error::other);
        let (salt, expected) = (bytes(&stored.salt)?, bytes(&stored.hash)?);
        let actual = hash(passphrase, &salt, (stored.memory, stored.passes, stored.lanes))?;
        if !bool::from(actual.as_slice().ct_eq(&expected)) {
            return Err(ConfirmationError::Wrong);
        }
        self.write_attempts(&FailedAttempts::default())?;
        drop(lock);
        Ok(())
    }

    fn hash_path(&self) -> PathBuf {
        self.folder.join("presence.json")
    }

    fn attempts_path(&self) -> PathBuf {
        self.folder.join("presence.tries")
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join("presence.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn read_attempts(&self) -> Result<FailedAttempts, ConfirmationError> {
        match fs::read(self.attempts_path()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_err(io::Error::from)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FailedAttempts::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_attempts(&self, tries: &FailedAttempts) -> io::Result<()> {
        files::replace(&self.attempts_path(), &serde_json::to_vec(tries)?)
    }
}

impl FailedAttempts {
    /// Fails during the delay after the last wrong guess. A clock that was set back neither ends the delay
    /// early nor extends it beyond the maximum.
    fn check_throttle(&self, now: Timestamp) -> Result<(), ConfirmationError> {
        let doublings = self.wrong.saturating_sub(FREE_ATTEMPTS);
        if doublings == 0 {
            return Ok(());
        }
        let wait = Duration::from_secs(1 << doublings.min(16)).min(MAX_THROTTLE);
        let since = Duration::try_from(now.duration_since(self.last)).unwrap_or_default();
        match wait.checked_sub(since) {
            Some(left) if !left.is_zero() => Err(ConfirmationError::Throttled(left.as_secs() + 1)),
            _ => Ok(()),
        }
    }
}

fn hash(passphrase: &str, salt: &[u8], cost: (u32, u32, u32)) -> io::Result<Zeroizing<[u8; 32]>> {
    let (memory, passes, lanes) = cost;
    let parameters = Params::new(memory, passes, lanes, Some(32)).map_err(io::Error::other)?;
    let mut hash = Zeroizing::new([0; 32]);
    // Allocated here so that it is zeroed.
    let mut blocks = Zeroizing::new(vec![Block::new(); parameters.block_count()]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into_with_memory(passphrase.as_bytes(), salt, &mut *hash, blocks.as_mut_slice())
        .map_err(io::Error::other)?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_passphrase_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let stored = Passphrase::in_home(folder.path());
        assert!(matches!(stored.verify("correct horse"), Err(ConfirmationError::NotSet)));
        stored.set("correct horse").unwrap();
        assert!(matches!(stored.verify("wrong horse"), Err(ConfirmationError::Wrong)));
        assert!(stored.verify("correct horse").is_ok());
        let text = fs::read_to_string(stored.hash_path()).unwrap();
        assert!(!text.contains("correct horse"));
        assert!(stored.remove().unwrap() && !stored.is_set());
    }

    #[test]
    fn wrong_guesses_are_throttled() {
        let now = Timestamp::now();
        let wait = |wrong, seconds| {
            let tries = FailedAttempts { wrong, last: now };
            tries.check_throttle(now + jiff::SignedDuration::from_secs(seconds)).is_err()
        };
        assert!(!wait(FREE_ATTEMPTS, 0), "a person may slip");
        for (wrong, seconds) in [(4, 1), (5, 3), (8, 31), (12, 299), (u32::MAX, 299)] {
            assert!(wait(wrong, seconds), "{wrong} wrong guesses, {seconds} s later");
            assert!(!wait(wrong, seconds + 2), "{wrong} wrong guesses, {seconds} s later");
        }
        assert!(wait(5, -1000), "a clock that is set back ends no wait");

        let folder = tempfile::tempdir().unwrap();
        let stored = Passphrase::in_home(folder.path());
        stored.set("correct horse").unwrap();
        stored.write_attempts(&FailedAttempts { wrong: 9, last: now }).unwrap();
        assert!(
            matches!(stored.verify("correct horse"), Err(ConfirmationError::Throttled(_))),
            "not even the right one"
        );
        stored
            .write_attempts(&FailedAttempts { wrong: 9, last: now - jiff::SignedDuration::from_secs(3600) })
            .unwrap();
        assert!(stored.verify("correct horse").is_ok());
        assert_eq!(stored.read_attempts().unwrap().wrong, 0);
    }

    #[test]
    fn aborted_guess_counts() {
        let folder = tempfile::tempdir().unwrap();
        let stored = Passphrase::in_home(folder.path());
        stored.set("correct horse").unwrap();
        fs::write(stored.hash_path(), "{").unwrap();
        assert!(stored.verify("x").is_err());
        assert_eq!(stored.read_attempts().unwrap().wrong, 1);
    }
}

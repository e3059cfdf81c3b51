//! A person's presence: a passphrase that is typed at a terminal for one act, and remembered for none. What
//! is kept of it is an Argon2id hash in the private home. Guessing gets slower with every wrong guess, and a
//! guess is counted before it is judged, so that breaking one off does not undo it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::sys::files;

/// The shortest passphrase, in bytes.
pub const SHORTEST: usize = 8;
/// The longest wait after a wrong guess.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// So many wrong guesses cost no wait: a person slips.
const FREE: u32 = 3;
/// Argon2id's cost: 64 MiB, three passes.
const COST: (u32, u32, u32) = (64 * 1024, 3, 1);

/// The presence of one person, in that person's private home.
pub struct Presence {
    folder: PathBuf,
}

/// Why a passphrase was not taken for presence.
#[derive(Debug, thiserror::Error)]
pub enum Absent {
    /// Nobody has set one.
    #[error("no passphrase is set for your presence")]
    NotSet,
    /// It was guessed too often.
    #[error("too many wrong passphrases: wait {0} seconds")]
    Wait(u64),
    /// It is not the one.
    #[error("that is not the passphrase")]
    Wrong,
    /// The file could not be read or written.
    #[error("presence cannot be judged: {0}")]
    Io(#[from] io::Error),
}

/// What is kept of a passphrase.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    hash: String,
}

/// The wrong guesses since the last right one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tries {
    wrong: u32,
    last: Timestamp,
}

impl Presence {
    /// In `folder`, the private home.
    pub fn in_home(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// Whether a passphrase was set.
    pub fn is_set(&self) -> bool {
        self.file().exists()
    }

    /// Sets the passphrase, in the place of one that may have been set.
    pub fn set(&self, passphrase: &str) -> io::Result<()> {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("no randomness"))?;
        let hash = hash(passphrase, &salt, COST)?;
        let (memory, passes, lanes) = COST;
        let kept = Kept { memory, passes, lanes, salt: STANDARD.encode(salt), hash: STANDARD.encode(*hash) };
        files::replace(&self.file(), &serde_json::to_vec(&kept)?)?;
        let _ = fs::remove_file(self.tries());
        Ok(())
    }

    /// Forgets it. Whether there was one.
    pub fn forget(&self) -> io::Result<bool> {
        let _ = fs::remove_file(self.tries());
        match fs::remove_file(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Fails if guessing must wait, so that nobody is asked in vain.
    pub fn may_be_asked(&self) -> Result<(), Absent> {
        if !self.is_set() {
            return Err(Absent::NotSet);
        }
        self.read_tries()?.wait(Timestamp::now())
    }

    /// Whether `passphrase` is the one. One guess of a person at a time is judged.
    pub fn prove(&self, passphrase: &str) -> Result<(), Absent> {
        let lock = self.lock()?;
        self.may_be_asked()?;
        let mut tries = self.read_tries()?;
        tries = Tries { wrong: tries.wrong.saturating_add(1), last: Timestamp::now() };
        self.write_tries(&tries)?;
        let kept: Kept = serde_json::from_slice(&fs::read(self.file())?).map_err(io::Error::from)?;
        let bytes = |text: &str| STANDARD.decode(text).map_err(io::Error::other);
        let (salt, wanted) = (bytes(&kept.salt)?, bytes(&kept.hash)?);
        let found = hash(passphrase, &salt, (kept.memory, kept.passes, kept.lanes))?;
        if !bool::from(found.as_slice().ct_eq(&wanted)) {
            return Err(Absent::Wrong);
        }
        self.write_tries(&Tries::default())?;
        drop(lock);
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join("presence.json")
    }

    fn tries(&self) -> PathBuf {
        self.folder.join("presence.tries")
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.folder.join("presence.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        file.lock()?;
        Ok(file)
    }

    fn read_tries(&self) -> Result<Tries, Absent> {
        match fs::read(self.tries()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map_err(io::Error::from)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tries::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn write_tries(&self, tries: &Tries) -> io::Result<()> {
        files::replace(&self.tries(), &serde_json::to_vec(tries)?)
    }
}

impl Tries {
    /// Fails while the wait after the last wrong guess is not over. A clock that was set back does not end it
    /// early, nor make it longer than its longest.
    fn wait(&self, now: Timestamp) -> Result<(), Absent> {
        let doublings = self.wrong.saturating_sub(FREE);
        if doublings == 0 {
            return Ok(());
        }
        let wait = Duration::from_secs(1 << doublings.min(16)).min(LONGEST_WAIT);
        let since = Duration::try_from(now.duration_since(self.last)).unwrap_or_default();
        match wait.checked_sub(since) {
            Some(left) if !left.is_zero() => Err(Absent::Wait(left.as_secs() + 1)),
            _ => Ok(()),
        }
    }
}

fn hash(passphrase: &str, salt: &[u8], cost: (u32, u32, u32)) -> io::Result<Zeroizing<[u8; 32]>> {
    let (memory, passes, lanes) = cost;
    let parameters = Params::new(memory, passes, lanes, Some(32)).map_err(io::Error::other)?;
    let mut hash = Zeroizing::new([0; 32]);
    // Our own memory for it, so that it is wiped.
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
    fn the_right_passphrase_proves_presence_and_no_other_does() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::in_home(folder.path());
        assert!(matches!(presence.prove("correct horse"), Err(Absent::NotSet)));
        presence.set("correct horse").unwrap();
        assert!(matches!(presence.prove("wrong horse"), Err(Absent::Wrong)));
        assert!(presence.prove("correct horse").is_ok());
        let kept = fs::read_to_string(presence.file()).unwrap();
        assert!(!kept.contains("correct horse"));
        assert!(presence.forget().unwrap() && !presence.is_set());
    }

    #[test]
    fn guessing_gets_slower_and_the_right_one_makes_it_fast_again() {
        let now = Timestamp::now();
        let wait = |wrong, seconds| {
            let tries = Tries { wrong, last: now };
            tries.wait(now + jiff::SignedDuration::from_secs(seconds)).is_err()
        };
        assert!(!wait(FREE, 0), "a person may slip");
        for (wrong, seconds) in [(4, 1), (5, 3), (8, 31), (12, 299), (u32::MAX, 299)] {
            assert!(wait(wrong, seconds), "{wrong} wrong guesses, {seconds} s later");
            assert!(!wait(wrong, seconds + 2), "{wrong} wrong guesses, {seconds} s later");
        }
        assert!(wait(5, -1000), "a clock that is set back ends no wait");

        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::in_home(folder.path());
        presence.set("correct horse").unwrap();
        presence.write_tries(&Tries { wrong: 9, last: now }).unwrap();
        assert!(matches!(presence.prove("correct horse"), Err(Absent::Wait(_))), "not even the right one");
        presence.write_tries(&Tries { wrong: 9, last: now - jiff::SignedDuration::from_secs(3600) }).unwrap();
        assert!(presence.prove("correct horse").is_ok());
        assert_eq!(presence.read_tries().unwrap().wrong, 0);
    }

    #[test]
    fn a_guess_that_is_broken_off_counts() {
        let folder = tempfile::tempdir().unwrap();
        let presence = Presence::in_home(folder.path());
        presence.set("correct horse").unwrap();
        fs::write(presence.file(), "{").unwrap();
        assert!(presence.prove("x").is_err());
        assert_eq!(presence.read_tries().unwrap().wrong, 1);
    }
}

//! The pins of a home: which files are trusted, for which secrets, and within which bounds. A file of ours
//! that commands write; a mistake in it is an error, never a pin less.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::authz::registry::{RegistryContent, VERSION};
use crate::identity::executable::sha256;
use crate::policy;
use crate::types::hex::is_hex;
use crate::types::name::SecretName;

/// Everything that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    version: u32,
    pins: Vec<Pin>,
}

/// One program that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The program: the file and its content.
    pub program: PinnedFile,
    /// The only secrets that it may spend by this pin; any, where none is named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<SecretName>,
    /// The script that it must say it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<PinnedFile>,
    /// The cgroup that the program must run in, as a glob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Whether it must run inside a session.
    #[serde(default, skip_serializing_if = "is_false")]
    pub session: bool,
    /// The kind of interpreter, if it is one: its hash then says nothing of what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// The package that vouched for it, and that package's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// When it was trusted.
    pub since: jiff::Timestamp,
}

/// A file, and what it held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// The path, without links.
    pub path: PathBuf,
    /// SHA-256 of its content, in lower-case hex.
    pub sha256: String,
    /// The size in bytes.
    pub size: u64,
    /// When it had last been written.
    pub modified: jiff::Timestamp,
}

impl Default for Pins {
    fn default() -> Self {
        Self { version: VERSION, pins: Vec::new() }
    }
}

impl RegistryContent for Pins {
    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for pin in &self.pins {
            pin.files().try_for_each(PinnedFile::check)?;
            if let Some(cgroup) = &pin.cgroup {
                policy::parse_glob(cgroup)?;
            }
            if !seen.insert((&pin.program.path, pin.script_path())) {
                return Err(format!("{} is pinned twice", pin.program.path.display()));
            }
        }
        Ok(())
    }
}

impl Pins {
    /// Every pin.
    pub fn all(&self) -> &[Pin] {
        &self.pins
    }

    /// Every pin, to be changed.
    pub fn all_mut(&mut self) -> &mut [Pin] {
        &mut self.pins
    }

    /// Adds `pin`, in the place of one for the same program and script. What was there before.
    pub fn add(&mut self, pin: Pin) -> Option<Pin> {
        let before = self.pins.iter().position(|other| other.is_for(&pin.program.path, pin.script_path()));
        match before.and_then(|at| self.pins.get_mut(at)) {
            Some(other) => Some(std::mem::replace(other, pin)),
            None => {
                self.pins.push(pin);
                None
            }
        }
    }

    /// Removes the pins of the program at `path`; where a script is named, only the one with that script. How
    /// many there were.
    pub fn remove(&mut self, path: &Path, script: Option<&Path>) -> usize {
        let before = self.pins.len();
        let goes = |pin: &Pin| pin.program.path == path && (script.is_none() || pin.script_path() == script);
        self.pins.retain(|pin| !goes(pin));
        before - self.pins.len()
    }
}

impl Pin {
    /// Whether its hash says nothing of what it does, and nothing else bounds it.
    pub fn is_unbound(&self) -> bool {
        self.interpreter.is_some() && self.script.is_none() && self.cgroup.is_none() && !self.session
    }

    /// Its files: the program and, where there is one, the script.
    pub fn files(&self) -> impl Iterator<Item = &PinnedFile> {
        std::iter::once(&self.program).chain(&self.script)
    }

    fn script_path(&self) -> Option<&Path> {
        self.script.as_ref().map(|script| script.path.as_path())
    }

    fn is_for(&self, path: &Path, script: Option<&Path>) -> bool {
        self.program.path == path && self.script_path() == script
    }
}

impl PinnedFile {
    /// The file at `path` as it is now, whatever links lead to it.
    pub fn now(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let file = std::fs::File::open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let (size, modified) = size_and_time(&metadata)?;
        Ok(Self { sha256: sha256(file)?, path, size, modified })
    }

    /// Describes the change of the file: old and new digest, old and new size and time.
    pub fn changed_to(&self, sha256: &str) -> String {
        let of = |size: u64, time: &jiff::Timestamp| format!("{size} bytes of {time}");
        let now = std::fs::metadata(&self.path).and_then(|metadata| size_and_time(&metadata));
        let now = now.map_or_else(|_| "out of sight".to_owned(), |(size, time)| of(size, &time));
        let (was, is) = (short(&self.sha256), short(sha256));
        let before = of(self.size, &self.modified);
        format!("its sha256 was {was} and is {is}; the file was {before} and is {now}")
    }

    fn check(&self) -> Result<(), String> {
        let path = self.path.display();
        if !self.path.is_absolute() {
            Err(format!("{path} is not an absolute path"))
        } else if self.sha256.len() != 64 || !is_hex(&self.sha256) {
            Err(format!("the 'sha256' of {path} is not 64 digits of lower-case hex"))
        } else {
            Ok(())
        }
    }
}

/// The first digits of a hash, for people.
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn size_and_time(metadata: &Metadata) -> io::Result<(u64, jiff::Timestamp)> {
    let modified = jiff::Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)?;
    let modified = modified.round(jiff::Unit::Second).map_err(io::Error::other)?;
    Ok((metadata.len(), modified))
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::registry::{self, RegistryError};

    fn pin(path: &str) -> String {
        let program = format!(
            r#"{{"path":"{path}","sha256":"{}","size":3,"modified":"2026-01-02T03:04:05Z"}}"#,
            "ab".repeat(32)
        );
        format!(r#"{{"program":{program},"since":"2026-01-02T03:04:05Z"}}"#)
    }

    fn parsed(version: u32, pins: &[String]) -> Result<Pins, String> {
        let text = format!(r#"{{"version":{version},"pins":[{}]}}"#, pins.join(","));
        registry::parse(Some(&text), Path::new("trust.json")).map_err(|error| error.to_string())
    }

    fn change<T>(
        path: &Path,
        change: impl FnOnce(&mut Pins) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        registry::change(path, change)
    }

    #[test]
    fn invalid_file_is_an_error_without_pins() {
        assert_eq!(parsed(1, &[pin("/a"), pin("/b")]).unwrap().all().len(), 2);
        let with = |more: &str| pin("/a").replacen('{', &format!("{{{more},"), 1);
        for (version, pins, expected) in [
            (2, vec![], "version 2 is not one that this program reads"),
            (1, vec![pin("/a"), pin("/a")], "/a is pinned twice"),
            (1, vec![pin("a")], "a is not an absolute path"),
            (1, vec![pin("/a").replace("abab", "ABAB")], "64 digits of lower-case hex"),
            (1, vec![with(r#""cgroups":"/x""#)], "unknown field `cgroups`"),
            (1, vec![with(r#""session":true,"session":false"#)], "duplicate field `session`"),
            (1, vec![with(r#""cgroup":"x**""#)], "not a usable pattern"),
            (1, vec![with(r#""secrets":["A-B"]"#)], "is not a valid secret name"),
        ] {
            let error = parsed(version, &pins).unwrap_err();
            assert!(error.starts_with("trust.json:1: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn change_is_atomic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trust.json");
        let one = parsed(1, &[pin("/a")]).unwrap().all()[0].clone();
        let add = || change(&path, |pins| Ok(pins.add(one.clone()))).unwrap();
        assert_eq!(add(), None);
        let failed = change(&path, |pins| {
            pins.remove(Path::new("/a"), None);
            Err::<(), _>(RegistryError::Busy(path.clone()))
        });
        assert!(matches!(failed, Err(RegistryError::Busy(_))));
        assert_eq!(registry::read::<Pins>(&path).unwrap().all(), std::slice::from_ref(&one));
        assert_eq!(add(), Some(one));
        assert_eq!(change(&path, |pins| Ok(pins.remove(Path::new("/a"), None))).unwrap(), 1);
        assert_eq!(registry::read::<Pins>(&path).unwrap(), Pins::default());
    }

    #[test]
    fn concurrent_changes_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("trust.json");
        std::thread::scope(|scope| {
            for number in 0..16 {
                scope.spawn(move || {
                    let pin = parsed(1, &[pin(&format!("/{number}"))]).unwrap().all()[0].clone();
                    change(path, |pins| Ok(pins.add(pin))).unwrap();
                });
            }
        });
        assert_eq!(registry::read::<Pins>(path).unwrap().all().len(), 16);
    }
}

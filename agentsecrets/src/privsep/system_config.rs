//! `/etc/agentsecrets/config.yaml`: whether this machine is strict, and who the daemon is. Root's file, which
//! nothing in a caller's environment can replace.

use std::path::Path;

use nix::unistd::{Gid, Uid, User};
use serde::Deserialize;

use crate::policy::load::{plainly, read};
use crate::sys;
use crate::types::failure::{Exit, Failure};

/// Where it is.
pub const FILE: &str = "/etc/agentsecrets/config.yaml";
/// The daemon's user, unless the file names another.
pub const USER: &str = "agentsecrets";

/// A strict machine.
#[derive(Debug, Clone)]
pub struct System {
    /// The daemon's user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// How people prove to be there.
    pub presence: Means,
}

/// How a person proves to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Means {
    /// By the passphrase of [`Presence`](super::presence::Presence), at a terminal.
    #[default]
    Passphrase,
    /// By polkit; where it has nobody to ask, by the passphrase.
    Polkit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    strict: bool,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    presence: Means,
}

impl System {
    /// What the file says; `None` where there is none, or it says that the machine is not strict.
    pub fn find() -> Result<Option<Self>, Failure> {
        Self::read(Path::new(FILE))
    }

    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let bad = |what: String| {
            Failure::new(Exit::Failure, format!("{}: {what}", path.display()))
                .hint("root corrects it: until then nothing shows values or gives rights")
        };
        let Some(text) = read(path).map_err(|error| bad(error.to_string()))? else { return Ok(None) };
        let file = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?;
        if !sys::is_roots_alone(&file) {
            return Err(bad("it must be root's, and nobody else may write to it".into()));
        }
        if text.trim().is_empty() {
            return Err(bad("it is empty: write 'strict: true', or remove it".into()));
        }
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        let file: File = serde_yaml::from_str_with_options(&text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            bad(format!("line {line}: {}", plainly(&error.to_string())))
        })?;
        if !file.strict {
            return Ok(None);
        }
        let name = file.user.as_deref().unwrap_or(USER);
        let found = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(name),
        };
        let user = found.ok().flatten().ok_or_else(|| bad(format!("there is no user '{name}'")))?;
        if user.uid.is_root() || user.gid.as_raw() == 0 {
            return Err(bad(format!("'{name}' must be a user of its own, not root")));
        }
        Ok(Some(Self { uid: user.uid, gid: user.gid, presence: file.presence }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn read(text: &str, mode: u32, owner: u32) -> Result<Option<System>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        System::read(&path).map_err(|failure| failure.what().to_owned())
    }

    #[test]
    fn a_machine_is_strict_when_root_says_so() {
        assert!(System::read(Path::new("/nonexistent/config.yaml")).unwrap().is_none());
        assert!(read("strict: false\n", 0o644, 0).unwrap().is_none());
        let system = read("strict: true\nuser: daemon\n", 0o644, 0).unwrap().unwrap();
        assert_ne!(system.uid.as_raw(), 0);
        assert_eq!(system.presence, Means::Passphrase);
        let system = read("strict: true\nuser: daemon\npresence: polkit\n", 0o644, 0).unwrap().unwrap();
        assert_eq!(system.presence, Means::Polkit);
    }

    #[test]
    fn a_file_that_others_could_have_written_stops_everything() {
        for (mode, owner) in [(0o666, 0), (0o664, 0), (0o644, 1)] {
            assert!(read("strict: false\n", mode, owner).unwrap_err().contains("must be root's"));
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, told) in [
            ("strict: maybe\n", "line 1"),
            ("strict: true\nusr: x\n", "line 2"),
            ("strict: true\nuser: no-such-user\n", "no user 'no-such-user'"),
            ("strict: true\nuser: root\n", "not root"),
            ("strict: true\npresence: nobody\n", "line 2"),
            ("", "it is empty"),
        ] {
            let error = read(text, 0o644, 0).unwrap_err();
            assert!(error.contains(told), "{text:?} gives {error}");
        }
    }
}

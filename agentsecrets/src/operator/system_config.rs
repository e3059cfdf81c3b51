//! `/etc/agentsecrets/config.yaml`: whether this machine is strict, and the daemon's user. The file is
//! root's; nothing in a caller's environment replaces it.

use std::path::Path;

use nix::unistd::{Gid, Uid, User};
use serde::Deserialize;

use crate::policy::{read_file, yaml_error_message};
use crate::sys;
use crate::types::failure::{Exit, Failure};

pub(crate) const SYSTEM_CONFIG: &str = "/etc/agentsecrets/config.yaml";
/// The daemon's user, unless the file names another.
pub(crate) const DEFAULT_USER: &str = "agentsecrets";

/// The configuration of a strict machine.
#[derive(Debug, Clone)]
pub(crate) struct SystemConfig {
    /// The daemon's user.
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) confirmation: ConfirmationMethod,
}

/// The way in which a person confirms an act.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConfirmationMethod {
    /// A passphrase at a terminal; see [`Passphrase`](crate::privsep::confirmation::Passphrase).
    #[default]
    Passphrase,
    /// polkit; the passphrase where polkit has nobody to ask.
    Polkit,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    strict: bool,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    presence: ConfirmationMethod,
}

impl SystemConfig {
    /// Reads the file; `None` if it is missing or the machine is not strict.
    pub(crate) fn load() -> Result<Option<Self>, Failure> {
        Self::load_from(Path::new(SYSTEM_CONFIG))
    }

    fn load_from(path: &Path) -> Result<Option<Self>, Failure> {
        let invalid = |what: String| {
            Failure::new(Exit::Failure, format!("{}: {what}", path.display()))
                .hint("root corrects it: until then nothing shows values or gives rights")
        };
        let Some(text) = read_file(path).map_err(|error| invalid(error.to_string()))? else {
            return Ok(None);
        };
        let file = std::fs::metadata(path).map_err(|error| invalid(error.to_string()))?;
        if !sys::is_roots_alone(&file) {
            return Err(invalid("it must be root's, and nobody else may write to it".into()));
        }
        if text.trim().is_empty() {
            return Err(invalid("it is empty: write 'strict: true', or remove it".into()));
        }
        let options = serde_yaml::options! { strict_booleans: true, with_snippet: false };
        let file: ConfigFile = serde_yaml::from_str_with_options(&text, options).map_err(|error| {
            let line = error.location().map_or(0, |location| location.line());
            invalid(format!("line {line}: {}", yaml_error_message(&error.to_string())))
        })?;
        if !file.strict {
            return Ok(None);
        }
        let name = file.user.as_deref().unwrap_or(DEFAULT_USER);
        let found = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)),
            Err(_) => User::from_name(name),
        };
        let user = found.ok().flatten().ok_or_else(|| invalid(format!("there is no user '{name}'")))?;
        if user.uid.is_root() || user.gid.as_raw() == 0 {
            return Err(invalid(format!("'{name}' must be a user of its own, not root")));
        }
        Ok(Some(Self { uid: user.uid, gid: user.gid, confirmation: file.presence }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    fn read(text: &str, mode: u32, owner: u32) -> Result<Option<SystemConfig>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        SystemConfig::load_from(&path).map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn strict_file_of_root_is_accepted() {
        assert!(SystemConfig::load_from(Path::new("/nonexistent/config.yaml")).unwrap().is_none());
        assert!(read("strict: false\n", 0o644, 0).unwrap().is_none());
        let system = read("strict: true\nuser: daemon\n", 0o644, 0).unwrap().unwrap();
        assert_ne!(system.uid.as_raw(), 0);
        assert_eq!(system.confirmation, ConfirmationMethod::Passphrase);
        let system = read("strict: true\nuser: daemon\npresence: polkit\n", 0o644, 0).unwrap().unwrap();
        assert_eq!(system.confirmation, ConfirmationMethod::Polkit);
    }

    #[test]
    fn writable_file_is_refused() {
        for (mode, owner) in [(0o666, 0), (0o664, 0), (0o644, 1)] {
            assert!(read("strict: false\n", mode, owner).unwrap_err().contains("must be root's"));
        }
    }

    #[test]
    fn errors_name_their_line() {
        for (text, expected) in [
            ("strict: maybe\n", "line 1"),
            ("strict: true\nusr: x\n", "line 2"),
            ("strict: true\nuser: no-such-user\n", "no user 'no-such-user'"),
            ("strict: true\nuser: root\n", "not root"),
            ("strict: true\npresence: nobody\n", "line 2"),
            ("", "it is empty"),
        ] {
            let error = read(text, 0o644, 0).unwrap_err();
            assert!(error.contains(expected), "{text:?} gives {error}");
        }
    }
}

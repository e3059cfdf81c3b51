//! Our own files as the launcher treats them: it knows whose they are, sees that they exist, and hides
//! them. It reads none of them but the list of sessions, in which it enters its own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::user::{AgentUser, who_called_sudo};
use crate::authz::registry::{self, RegistryError};
use crate::authz::sessions::{Session, Sessions};
use crate::sys::home::Home;

/// Who owns our files: whoever owns the first folder that exists, else who called `sudo`, else the caller.
pub fn owner(home: &Home) -> (u32, u32) {
    let found = home.folders().into_iter().find_map(|folder| fs::metadata(folder).ok());
    match (found, who_called_sudo()) {
        (Some(folder), _) => (folder.uid(), folder.gid()),
        (None, Some(user)) => (user.uid.as_raw(), user.gid.as_raw()),
        (None, None) => (Uid::current().as_raw(), Gid::current().as_raw()),
    }
}

/// Makes those of our folders that are missing, with the rights of their owner alone: a folder that the
/// agent's user could make in our place would be our policy the next time.
pub fn make_folders(home: &Home) -> io::Result<()> {
    as_owner(home, || home.folders().into_iter().try_for_each(crate::sys::files::private_folder))
}

/// Writes down that a run has begun, so that others see it and can end it. Those that are gone are forgotten.
pub fn register(home: &Home, session: Session) -> Result<(), RegistryError> {
    as_owner(home, || {
        registry::change(&home.sessions(), |sessions: &mut Sessions| {
            sessions.forget_gone(home);
            sessions.sessions.push(session);
            Ok(())
        })
    })
}

/// Does something to our files with the rights of their owner.
fn as_owner<T>(home: &Home, work: impl FnOnce() -> T) -> T {
    let (uid, gid) = owner(home);
    let (gid_before, uid_before) = (setfsgid(Gid::from_raw(gid)), setfsuid(Uid::from_raw(uid)));
    let done = work();
    setfsuid(uid_before);
    setfsgid(gid_before);
    done
}

/// Our folders, and every file that a variable of ours names.
pub fn to_hide(home: &Home, user: &AgentUser, variables: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = home.folders().into_iter().map(Path::to_path_buf).collect();
    // The usual ones of the agent's user as well, whatever home this run has.
    let usual = [".config/agentsecrets", ".local/share/agentsecrets", ".local/state/agentsecrets"];
    paths.extend(usual.map(|folder| user.home.join(folder)));
    let named = std::env::vars_os().chain(variables.iter().cloned()).filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("AGENTSECRETS_") && name.ends_with("_FILE")
    });
    paths.extend(named.map(|(_, path)| PathBuf::from(path)));
    paths.retain(|path| path.is_absolute());
    paths
}

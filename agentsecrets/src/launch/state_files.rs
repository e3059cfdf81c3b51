//! Our own files as the launcher treats them: it finds their owner, creates their folders and masks them. It
//! reads only the list of sessions, to which it adds its own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::user::{AgentUser, sudo_caller};
use crate::authz::registry::{self, RegistryError};
use crate::authz::sessions::{Session, Sessions};
use crate::sys::home::Home;

/// The owner of our files: the owner of the first folder that exists, otherwise sudo's caller, otherwise the
/// current user.
pub(crate) fn owner(home: &Home) -> (u32, u32) {
    let found = home.folders().into_iter().find_map(|folder| fs::metadata(folder).ok());
    match (found, sudo_caller()) {
        (Some(folder), _) => (folder.uid(), folder.gid()),
        (None, Some(user)) => (user.uid.as_raw(), user.gid.as_raw()),
        (None, None) => (Uid::current().as_raw(), Gid::current().as_raw()),
    }
}

/// Creates missing folders with the rights of their owner: a folder that the agent's user could create in
/// their place would hold the next run's policy.
pub(crate) fn make_folders(home: &Home) -> io::Result<()> {
    as_owner(home, || home.folders().into_iter().try_for_each(crate::sys::files::private_folder))
}

/// Registers the session of a run, so that others see it and can end it. Ended ones are removed.
pub(crate) fn register_session(home: &Home, session: Session) -> Result<(), RegistryError> {
    as_owner(home, || {
        registry::change(&home.sessions(), |sessions: &mut Sessions| {
            sessions.remove_expired(home);
            sessions.sessions.push(session);
            Ok(())
        })
    })
}

/// Runs `work` with the file system rights of our files' owner.
fn as_owner<T>(home: &Home, work: impl FnOnce() -> T) -> T {
    let (uid, gid) = owner(home);
    let (gid_before, uid_before) = (setfsgid(Gid::from_raw(gid)), setfsuid(Uid::from_raw(uid)));
    let done = work();
    setfsuid(uid_before);
    setfsgid(gid_before);
    done
}

/// Our folders, and every file that a variable of ours names.
pub(crate) fn paths_to_mask(
    home: &Home,
    user: &AgentUser,
    variables: &[(OsString, OsString)],
) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = home.folders().into_iter().map(Path::to_path_buf).collect();
    // Also the default folders of the agent's user, whatever home this run has.
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

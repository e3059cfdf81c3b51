//! A person's private home on a strict machine: a folder of the daemon's user that the person's own programs
//! cannot enter. A command sees only the home of the person who requested it.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use crate::launch::mounts;
use crate::operator::system_config::SystemConfig;
use crate::sys;
use crate::types::hex::hex;

/// The folder of the private homes, one for each uid.
pub(crate) const USER_HOMES: &str = "/var/lib/agentsecrets";

pub(crate) fn path(uid: Uid) -> PathBuf {
    Path::new(USER_HOMES).join(uid.to_string())
}

/// The key file of the vault in it.
pub(crate) fn key_path(uid: Uid) -> PathBuf {
    path(uid).join("key")
}

/// Creates the home of `uid` and gives it to the daemon's user. Root does it: the parent folder is root's, so
/// that nobody else can create an entry there.
pub(crate) fn create(system: &SystemConfig, uid: Uid) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(USER_HOMES) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let homes = fs::symlink_metadata(USER_HOMES)?;
    if !homes.is_dir() || !sys::is_roots_alone(&homes) {
        return Err(io::Error::other(format!("{USER_HOMES} must be a folder that only root may write to")));
    }
    let home = path(uid);
    let give_to_daemon = |home: &Path| chown(home, Some(system.uid.as_raw()), Some(system.gid.as_raw()));
    match DirBuilder::new().mode(0o700).create(&home) {
        Ok(()) => give_to_daemon(&home),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(&home)?;
            let is_private = found.is_dir() && found.mode() & 0o077 == 0;
            // Created by a process that ended before it gave the folder away.
            if is_private && found.uid() == 0 && fs::read_dir(&home)?.next().is_none() {
                return give_to_daemon(&home);
            }
            if is_private && found.uid() == system.uid.as_raw() {
                Ok(())
            } else {
                Err(io::Error::other("the private home is not the daemon's alone"))
            }
        }
        Err(error) => Err(error),
    }
}

/// Creates the vault's key, if there is none. The daemon's user does it.
pub(crate) fn create_key(uid: Uid) -> io::Result<()> {
    let key_path = key_path(uid);
    if key_path.exists() {
        return Ok(());
    }
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| io::Error::other("no randomness"))?;
    // A trailing newline byte would be stripped, and the key be too short.
    let text = zeroize::Zeroizing::new(hex(&*bytes));
    let mut file = tempfile::NamedTempFile::new_in(path(uid))?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&key_path) {
        // Another command was faster: its key is the key.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map(drop).map_err(|error| error.error),
    }
}

/// Hides all other homes in a mount namespace of the calling process. All homes belong to one user, so that
/// file modes do not separate them.
pub(crate) fn isolate(uid: Uid) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mounts::detach_from_host()?;
    let (own, flags) = (path(uid), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    // Kept open while an empty folder is mounted over all of them.
    let own_home = fs::File::open(&own)?;
    mount(Some("tmpfs"), USER_HOMES, Some("tmpfs"), flags, Some("mode=0711,size=64k"))?;
    DirBuilder::new().mode(0o700).create(&own)?;
    let own_home = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&own_home));
    mount(Some(own_home.as_str()), &own, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

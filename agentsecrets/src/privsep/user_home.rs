//! A person's private home on a strict machine: a folder of the daemon's user, which that person's own
//! programs cannot even look into. A verb sees the home of the person who asked, and nobody else's.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

use super::HOMES;
use crate::launch::mounts;
use crate::privsep::system_config::System;
use crate::sys;
use crate::types::hex::hex;

/// The home of the person `uid`.
pub fn of(uid: Uid) -> PathBuf {
    Path::new(HOMES).join(uid.to_string())
}

/// The key file of the vault there.
pub fn key(uid: Uid) -> PathBuf {
    of(uid).join("key")
}

/// Makes the home of `uid`, and its owner the daemon. Root's work: the folder of homes is root's own, so
/// that nobody can put something else there.
pub fn make(system: &System, uid: Uid) -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(HOMES) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let all = fs::symlink_metadata(HOMES)?;
    if !all.is_dir() || !sys::is_roots_alone(&all) {
        return Err(io::Error::other(format!("{HOMES} must be a folder that only root may write to")));
    }
    let home = of(uid);
    let give = |home: &Path| chown(home, Some(system.uid.as_raw()), Some(system.gid.as_raw()));
    match DirBuilder::new().mode(0o700).create(&home) {
        Ok(()) => give(&home),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(&home)?;
            let private = found.is_dir() && found.mode() & 0o077 == 0;
            // Made by who ended before it was given away.
            if private && found.uid() == 0 && fs::read_dir(&home)?.next().is_none() {
                return give(&home);
            }
            if private && found.uid() == system.uid.as_raw() {
                Ok(())
            } else {
                Err(io::Error::other("the private home is not the daemon's alone"))
            }
        }
        Err(error) => Err(error),
    }
}

/// Makes the vault's key, if there is none. The daemon's user's work.
pub fn make_key(uid: Uid) -> io::Result<()> {
    let path = key(uid);
    if path.exists() {
        return Ok(());
    }
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| io::Error::other("no randomness"))?;
    // A newline at the end would be stripped, and the key be too short.
    let text = zeroize::Zeroizing::new(hex(&*bytes));
    let mut file = tempfile::NamedTempFile::new_in(of(uid))?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(&path) {
        // Another verb was faster: its key is the key.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done.map(drop).map_err(|error| error.error),
    }
}

/// Leaves the calling process the home of `uid` alone: in a mount namespace of its own, the others are not
/// there. All homes belong to one user, so that file modes do not keep them apart.
pub fn alone(uid: Uid) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mounts::detach_from_host()?;
    let (own, flags) = (of(uid), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
    // Held by a descriptor while an empty folder is put over all of them.
    let held = fs::File::open(&own)?;
    mount(Some("tmpfs"), HOMES, Some("tmpfs"), flags, Some("mode=0711,size=64k"))?;
    DirBuilder::new().mode(0o700).create(&own)?;
    let held = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    mount(Some(held.as_str()), &own, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    Ok(())
}

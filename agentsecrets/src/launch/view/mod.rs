//! The agent's view of the host: the caller's file system without what acts for the person, and read-only
//! where it holds what would run later outside. Any error stops the start.

pub(crate) mod ca_bundle;
mod mask;
mod read_only;
mod spec;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::mounts;
use super::user::AgentUser;
use crate::launch::run_resources::RUNS_FOLDER;

pub(crate) use read_only::unprotected;
pub(crate) use spec::{AUTHORITY, BUNDLE, JAVA, View};

/// Arranges the view in the calling process's own mount namespace. The process must be the first of its
/// pid namespace, and root.
pub(crate) fn arrange(view: &View<'_>) -> io::Result<()> {
    mounts::detach_from_host()?;
    // No folder that is covered below must stay reachable as a working directory.
    std::env::set_current_dir("/")?;
    if view.user.private_home {
        mounts::bind_mount(&inner_home(&view.user.home), &view.user.home)?;
    }
    read_only::protect(view)?;
    mask::hide(view)?;
    let devices = MsFlags::empty();
    let processes = MsFlags::MS_NODEV;
    mounts::mount_new("proc", Path::new("/proc"), processes, "")?;
    let group = nix::unistd::Group::from_name("tty").ok().flatten().map_or(5, |group| group.gid.as_raw());
    let options = format!("newinstance,ptmxmode=0666,mode=0620,gid={group}");
    mounts::mount_new("devpts", Path::new("/dev/pts"), devices, &options)?;
    runtime_folder(view.user)?;
    mounts::mask_folder_with(
        Path::new(RUNS_FOLDER),
        &[
            ("agent".into(), b"Processes that see this file are inside an agent's sandbox.\n".to_vec()),
            ("ca.pem".into(), view.authority.as_bytes().to_vec()),
            ("ca-bundle.pem".into(), view.bundle.as_bytes().to_vec()),
            ("cacerts".into(), view.java.to_vec()),
        ],
    )?;
    ca_bundle::show(view)
}

/// Makes the private HOME on the host: a folder that only root may enter, with the agent's own inside.
/// Only in the agent's view does the inner one stand at `home`.
pub(crate) fn make_private_home(user: &AgentUser) -> io::Result<()> {
    let inner = inner_home(&user.home);
    for folder in [user.home.as_path(), &inner] {
        std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700).create(folder)?;
    }
    chown(&inner, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

fn inner_home(home: &Path) -> PathBuf {
    home.join("home")
}

/// An empty `/run/user` with a folder of the agent's own.
fn runtime_folder(user: &AgentUser) -> io::Result<()> {
    let all = Path::new("/run/user");
    if !all.is_dir() {
        return Ok(());
    }
    mounts::mount_new("tmpfs", all, MsFlags::MS_NODEV, "mode=0755,size=64m")?;
    let own = all.join(user.uid.to_string());
    fs::create_dir(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    chown(&own, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

//! What the agent sees of the host: the caller's file system without what acts for the person, and with
//! what would run later outside read-only. Anything that cannot be arranged stops the start.

pub mod ca_bundle;
mod mask;
mod read_only;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::mounts;
use super::user::AgentUser;
use crate::launch::run_resources::RUNS;

pub use read_only::unprotected;

/// The system's roots and this run's authority, as the agent sees them.
pub const BUNDLE: &str = "/run/agentsecrets/ca-bundle.pem";
/// This run's authority alone.
pub const AUTHORITY: &str = "/run/agentsecrets/ca.pem";

/// The system's roots and this run's authority, as a Java trust store.
pub const JAVA: &str = "/run/agentsecrets/cacerts";

/// What the view is made from.
pub struct View<'a> {
    /// As whom the agent runs.
    pub user: &'a AgentUser,
    /// Folders and files of ours.
    pub ours: Vec<PathBuf>,
    /// The certificate of this run's authority, in PEM.
    pub authority: &'a str,
    /// That and the system's roots, in PEM.
    pub bundle: &'a str,
    /// All of that as a Java trust store.
    pub java: &'a [u8],
    /// The caller's working directory.
    pub folder: &'a Path,
    /// The caller's terminals.
    pub terminals: Vec<PathBuf>,
}

/// Arranges the view in the calling process's own mount namespace. The process must be the first of its
/// pid namespace, and root.
pub fn arrange(view: &View<'_>) -> io::Result<()> {
    mounts::detach_from_host()?;
    // No folder that is covered below must stay reachable as a working directory.
    std::env::set_current_dir("/")?;
    if view.user.private_home {
        mounts::show(&inner_home(&view.user.home), &view.user.home)?;
    }
    read_only::protect(view)?;
    mask::hide(view)?;
    let devices = MsFlags::empty();
    let processes = MsFlags::MS_NODEV;
    mounts::fresh("proc", Path::new("/proc"), processes, "")?;
    let group = nix::unistd::Group::from_name("tty").ok().flatten().map_or(5, |group| group.gid.as_raw());
    let options = format!("newinstance,ptmxmode=0666,mode=0620,gid={group}");
    mounts::fresh("devpts", Path::new("/dev/pts"), devices, &options)?;
    runtime_folder(view.user)?;
    mounts::cover_with(
        Path::new(RUNS),
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
pub fn make_private_home(user: &AgentUser) -> io::Result<()> {
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
    mounts::fresh("tmpfs", all, MsFlags::MS_NODEV, "mode=0755,size=64m")?;
    let own = all.join(user.uid.to_string());
    fs::create_dir(&own)?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    chown(&own, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
}

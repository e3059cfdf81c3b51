//! The file systems that interception needs: bpffs and cgroup v2.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::error::EbpfError;

/// The mount point of cgroup v2, alone or beside version 1.
///
/// # Errors
/// If it is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf, EbpfError> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        // A path with a space is written \040: not one that anybody mounts cgroups at.
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    mounted.ok_or_else(|| EbpfError::NoCgroup2 { path: PathBuf::from("/sys/fs/cgroup") })
}

/// Mounts a bpffs at `at`, usually `/sys/fs/bpf`, unless there is one.
///
/// # Errors
/// When it can be neither found nor mounted.
pub fn mount_bpffs(at: &Path) -> Result<(), EbpfError> {
    if is_bpffs(at) {
        return Ok(());
    }
    if !at.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(at);
        made.map_err(|source| EbpfError::Pin { path: at.to_path_buf(), source })?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), at, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        EbpfError::call(format!("mounting a bpffs at {}", at.display()), io::Error::from(errno))
    })
}

/// Whether `path` is a folder on a bpffs.
pub fn is_bpffs(path: &Path) -> bool {
    is(path, BPF_FS_MAGIC)
}

pub(super) fn is_cgroup2(path: &Path) -> bool {
    is(path, CGROUP2_SUPER_MAGIC)
}

fn is(path: &Path, magic: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == magic)
}

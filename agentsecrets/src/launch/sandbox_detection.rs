//! Detects an agent's sandbox, in which administrative commands are refused.

use nix::sys::statvfs::{FsFlags, statvfs};

/// The marker file, in the file system that `run` mounts over the folder of runs.
pub(crate) const SANDBOX_MARKER: &str = "/run/agentsecrets/agent";

/// Whether this process is inside an agent's sandbox. Outside only root could create the marker; inside
/// nobody can remove it.
pub(crate) fn is_inside_agent() -> bool {
    let Ok(marker) = std::fs::symlink_metadata(SANDBOX_MARKER) else { return false };
    // In a user namespace root's files seem to belong to the overflow user.
    let owner = std::os::unix::fs::MetadataExt::uid(&marker);
    let read_only = statvfs(SANDBOX_MARKER).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
    marker.is_file() && matches!(owner, 0 | 65534) && read_only
}

#[cfg(test)]
mod tests {
    #[test]
    fn process_outside_run_is_not_inside_agent() {
        assert!(!super::is_inside_agent());
    }
}

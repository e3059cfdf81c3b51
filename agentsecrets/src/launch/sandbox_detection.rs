//! Whether this process is inside an agent's sandbox, where administrative commands are refused.

use nix::sys::statvfs::{FsFlags, statvfs};

/// The marker, in the small file system that `run` mounts over the folder of runs.
pub const MARKER: &str = "/run/agentsecrets/agent";

/// Whether this process is inside an agent's sandbox. Outside, only root could make the marker; inside,
/// nobody can remove it.
pub fn inside_agent() -> bool {
    let Ok(marker) = std::fs::symlink_metadata(MARKER) else { return false };
    // In a user namespace root's files seem to belong to the overflow user.
    let owner = std::os::unix::fs::MetadataExt::uid(&marker);
    let read_only = statvfs(MARKER).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
    marker.is_file() && matches!(owner, 0 | 65534) && read_only
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_that_run_did_not_start_is_outside() {
        assert!(!super::inside_agent());
    }
}

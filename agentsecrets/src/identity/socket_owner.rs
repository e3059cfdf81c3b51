//! Finds the process that owns a socket, by the descriptors of every visible process.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::IdentityError;
use crate::identity::ancestry::start_of;

/// The process that holds the socket: of several that run one program the oldest. Where they run different
/// ones, nobody knows who speaks.
pub(super) fn holder(inode: u64) -> Result<u32, IdentityError> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let holders: Vec<u32> = pids.filter(|pid| holds(*pid, inode)).collect();
    let program = |pid: &u32| {
        let exe = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
        let process = fs::metadata(format!("/proc/{pid}")).ok()?;
        Some((exe.dev(), exe.ino(), process.uid()))
    };
    let first = holders.first().ok_or(IdentityError::Nobody)?;
    if holders.iter().any(|other| program(other).is_none() || program(other) != program(first)) {
        return Err(IdentityError::Shared);
    }
    holders
        .iter()
        .copied()
        .min_by_key(|pid| (start_of(*pid).unwrap_or(u64::MAX), *pid))
        .ok_or(IdentityError::Nobody)
}

/// Whether the process `pid` holds the socket. What may not be seen is not held by a program of our user.
pub(super) fn holds(pid: u32, inode: u64) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new(&socket)))
}

//! macOS: `libproc` tells which processes of our user hold the caller's end, and what they are.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use super::executable::Hashes;
use super::peer::{PeerLookup, SocketAddrs};
use super::{IdentityError, Process};
use crate::identity::process_details::ProcessDetails;
use crate::sys::{self, Program};

/// The user as whom this process runs.
pub(super) fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Nobody looks closer at processes here: no rule about scripts or parents holds for any.
pub fn process_details() -> Option<Arc<dyn ProcessDetails>> {
    None
}

/// The process that started this one.
pub fn parent_id() -> std::io::Result<u32> {
    Ok(std::os::unix::process::parent_id())
}

/// This machine, as far as this process may see it.
#[derive(Default)]
pub(super) struct SystemPeers {
    hashes: Hashes,
}

impl PeerLookup for SystemPeers {
    fn process(&self, ends: SocketAddrs) -> Result<Process, IdentityError> {
        let pid = holder(ends)?;
        let process = tokio::runtime::Handle::current().block_on(look(pid, &self.hashes))?;
        // Between finding its id and looking at it the process may have ended, and another have got the id.
        if sys::holds(pid, ends.theirs, ends.ours) { Ok(process) } else { Err(IdentityError::Gone) }
    }
}

/// The process that holds the caller's end: of several that run one program the oldest. Where they run
/// different ones, nobody knows who speaks.
fn holder(ends: SocketAddrs) -> Result<u32, IdentityError> {
    let holders = sys::holders_of(ends.theirs, ends.ours)?;
    let program = |pid: &u32| {
        let exe = fs::metadata(sys::executable(*pid).ok()?).ok()?;
        Some((exe.dev(), exe.ino(), Program::of(*pid).ok()?.uid))
    };
    let first = holders.first().ok_or(IdentityError::Nobody)?;
    if holders.iter().any(|other| program(other).is_none() || program(other) != program(first)) {
        return Err(IdentityError::Shared);
    }
    let started = |pid: &u32| Program::of(*pid).map_or(u64::MAX, |program| program.start_time);
    holders.iter().copied().min_by_key(|pid| (started(pid), *pid)).ok_or(IdentityError::Nobody)
}

/// The system's facts about the process `pid` now. The executable is the file that has its name now: macOS
/// gives no descriptor of the running file.
pub(super) async fn look(pid: u32, hashes: &Hashes) -> Result<Process, IdentityError> {
    let see = || Program::of(pid).map_err(|_| IdentityError::Gone);
    let (program, exe) = (see()?, sys::executable(pid)?);
    let sha256 = hashes.of(File::open(&exe)?).await?.to_string();
    // Whoever has the id now started when the one that was looked at did, and runs what it ran.
    if see()? != program {
        return Err(IdentityError::Gone);
    }
    if sys::executable(pid)? != exe {
        return Err(IdentityError::Changed);
    }
    let Program { start_time, uid } = program;
    Ok(Process { pid, start_time, exe, sha256, uid, cgroup: String::new(), image: None, here: true })
}

//! Windows: the table of connections tells which process owns the caller's end, and a handle of that process
//! keeps its id from becoming another's. The table names one owner: a socket that was handed on to other
//! processes is its first one's, so that `Shared` is never said here.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::executable::Hashes;
use super::peer::{PeerLookup, SocketAddrs};
use super::{IdentityError, Process};
use crate::identity::process_details::ProcessDetails;
use crate::sys::{Program, caller_of, parent};

/// The number of the user as whom this process runs.
pub(super) fn own_uid() -> u32 {
    Program::open(std::process::id()).and_then(|program| program.user()).unwrap_or(u32::MAX)
}

/// Nobody looks closer at processes here: no rule about scripts or parents holds for any.
pub fn process_details() -> Option<Arc<dyn ProcessDetails>> {
    None
}

/// The process that started this one.
pub fn parent_id() -> io::Result<u32> {
    parent()
}

/// This machine, as far as this process may see it.
#[derive(Default)]
pub(super) struct SystemPeers {
    hashes: Hashes,
}

impl PeerLookup for SystemPeers {
    fn process(&self, ends: SocketAddrs) -> Result<Process, IdentityError> {
        let pid = caller_of(ends.theirs, ends.ours)?.ok_or(IdentityError::Nobody)?;
        let program = open(pid)?;
        let process = tokio::runtime::Handle::current().block_on(examine(&program, &self.hashes))?;
        // Between finding its id and opening it the process may have ended, and another have got the id.
        if caller_of(ends.theirs, ends.ours)? == Some(pid) { Ok(process) } else { Err(IdentityError::Gone) }
    }
}

fn open(pid: u32) -> Result<Program, IdentityError> {
    Program::open(pid).map_err(|error| match error.kind() {
        // Those of our own user let us look at them.
        io::ErrorKind::PermissionDenied => IdentityError::OtherUser,
        _ => IdentityError::Gone,
    })
}

/// The system's facts about the process `pid` now.
pub(super) async fn look(pid: u32, hashes: &Hashes) -> Result<Process, IdentityError> {
    examine(&open(pid)?, hashes).await
}

/// An executable that runs may be renamed, but not written: what has its name now is what runs, or was put in
/// its place by who may change the program anyway.
async fn examine(program: &Program, hashes: &Hashes) -> Result<Process, IdentityError> {
    // The number alone could be that of another machine's or domain's user.
    if !program.is_ours()? {
        return Err(IdentityError::OtherUser);
    }
    let (start_time, uid, exe) = (program.start_time()?, program.user()?, program.executable()?);
    let sha256 = hashes.of(File::open(&exe)?).await?.to_string();
    if !program.lives()? {
        return Err(IdentityError::Gone);
    }
    Ok(Process {
        pid: program.pid(),
        start_time,
        exe,
        sha256,
        uid,
        cgroup: String::new(),
        image: None,
        here: true,
    })
}

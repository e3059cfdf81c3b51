//! Where no agent can be started: only Linux has what `run` is made of. So nothing here runs inside one.

/// Whether this process is inside an agent's sandbox.
pub fn inside_agent() -> bool {
    false
}

/// Nowhere: what `sudo` says of who called it counts for `run` alone.
pub fn home_of_who_called_sudo() -> Option<std::path::PathBuf> {
    None
}

/// Nobody, likewise.
#[cfg(unix)]
pub fn uid_of_who_called_sudo() -> Option<u32> {
    None
}

//! Agents are started on Linux alone, so no process on another system is inside one.

/// Whether this process is inside an agent's sandbox.
pub(crate) fn is_inside_agent() -> bool {
    false
}

/// The home of sudo's caller: only `run` uses it, which other systems do not have.
pub(crate) fn sudo_caller_home() -> Option<std::path::PathBuf> {
    None
}

/// The uid of sudo's caller, likewise.
#[cfg(unix)]
pub(crate) fn sudo_caller_uid() -> Option<u32> {
    None
}

//! Arguments and results of system calls.

/// `text` in UTF-16 with a final zero, as the system takes it.
pub(super) fn wide(text: impl AsRef<std::ffi::OsStr>) -> Vec<u16> {
    use std::os::windows::ffi::OsStrExt;
    text.as_ref().encode_wide().chain([0]).collect()
}

/// The result of a call that returns zero on failure.
pub(super) fn done(succeeded: i32) -> std::io::Result<()> {
    if succeeded == 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

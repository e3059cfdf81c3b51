//! Windows: access lists in the place of modes, an event in the place of a signal, and handles that keep a
//! process's id from being another's.

mod acl;
mod call;
mod executable_name;
mod listen;
mod process_table;
mod shutdown;

pub use acl::{
    append, check_private, check_private_folder, create_private_folder, give, give_as, give_folder,
    make_private, sync_folder, try_lock, unlock,
};
pub use executable_name::runnable;
pub use listen::listen;
pub use process_table::{Program, caller_of, parent};
pub use shutdown::{ShutdownListener, leave_terminal, prepare_to_leave, request_shutdown};

/// Nothing: whoever may open this process may read it, and what is swapped or dumped is the system's choice.
/// The manual's "Other systems" says so.
pub fn conceal() -> std::io::Result<()> {
    Ok(())
}

/// Nothing, likewise.
pub fn protect_memory() -> std::io::Result<()> {
    Ok(())
}

/// The command that makes a shell's programs use the proxy.
pub const USE_PROXY: &str = "agentsecrets proxy env | Out-String | Invoke-Expression";

/// The file of names that the system knows by itself.
pub fn hosts_file() -> std::path::PathBuf {
    let system = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    std::path::Path::new(&system).join(r"System32\drivers\etc\hosts")
}

/// The command that lists listeners.
pub const LISTENERS: &str = "netstat -ano";

/// The command that ends a process that does not end.
pub const KILL: &str = "taskkill /F /PID";

/// When a file was last written; a program may set it, and the one who does could change the file anyway.
pub fn last_change(metadata: &std::fs::Metadata) -> Option<std::time::SystemTime> {
    metadata.modified().ok()
}

/// No: there is no root here, and no package manager that vouches for what is root's.
pub fn is_roots_alone(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// Our standard output, without the buffer before it.
pub fn standard_output() -> std::io::Result<std::fs::File> {
    use std::os::windows::io::AsHandle;
    Ok(std::io::stdout().as_handle().try_clone_to_owned()?.into())
}

/// This program.
pub fn own_program() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

/// Bytes as the system takes text, which must be UTF-8 here.
pub fn os_text(bytes: &[u8]) -> Option<&std::ffi::OsStr> {
    std::str::from_utf8(bytes).ok().map(AsRef::as_ref)
}

/// Not told by this system: a reader who is gone shows when we write.
pub fn wait_until_nobody_reads() -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Handles are not limited by a setting: what a process may have at most.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    Ok(1 << 24)
}

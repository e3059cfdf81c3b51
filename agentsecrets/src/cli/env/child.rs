//! The command while it runs, in one file a system.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(super) use linux::{Flags, Signals, as_who_asked};
#[cfg(target_os = "macos")]
pub(super) use macos::{Flags, Signals, as_who_asked};
#[cfg(windows)]
pub(super) use windows::{Flags, Signals, as_who_asked};

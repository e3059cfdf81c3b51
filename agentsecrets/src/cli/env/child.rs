//! The command while it runs, in one file a system.

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(windows)]
mod windows;

#[cfg(not(target_os = "linux"))]
pub(super) use elsewhere::{Flags, as_who_asked};
#[cfg(target_os = "linux")]
pub(super) use linux::{Flags, Signals, as_who_asked};
#[cfg(target_os = "macos")]
pub(super) use macos::Signals;
#[cfg(windows)]
pub(super) use windows::Signals;

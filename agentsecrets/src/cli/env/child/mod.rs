//! Runs the command, with one implementation per operating system.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(not(target_os = "linux"))]
mod portable;
mod spawn_error;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub(super) use linux::{OutputArgs, Signals, run_as_caller};
#[cfg(target_os = "macos")]
pub(super) use macos::Signals;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::{OutputArgs, run_as_caller};
#[cfg(windows)]
pub(super) use windows::Signals;

//! The door to system calls that no safe library offers. Every `unsafe` block outside the loading of
//! eBPF is here, each with the reason why it is sound. What every system has, each in its own way, stands in
//! one file a system, under the same names.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod capabilities;
#[cfg(target_os = "linux")]
pub mod fd_passing;
pub mod files;
pub mod home;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
pub mod memory;
#[cfg(target_os = "linux")]
pub mod process;
pub mod prompt;
#[cfg(target_os = "linux")]
pub mod terminal;
#[cfg(unix)]
mod unix;
pub mod watched_file;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(target_os = "macos")]
pub use macos::*;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

/// A version of a file: any write, replacement or reuse of its place changes this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    device: u64,
    file: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    /// Whether both are versions of one file.
    pub fn is_of_same_file(&self, other: &Self) -> bool {
        (self.device, self.file) == (other.device, other.file)
    }
}

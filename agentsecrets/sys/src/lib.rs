//! Safe functions for system calls that no safe library offers. Every `unsafe` block outside the loading of
//! eBPF is here, each with the reason why it is sound. Functions that each operating system implements in its
//! own way have one file per system, under the same names.
#![allow(unsafe_code)]

#[cfg(target_os = "linux")]
pub mod capabilities;
#[cfg(target_os = "linux")]
pub mod fd_passing;
mod file_version;
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

pub use file_version::Version;
#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(target_os = "macos")]
pub use macos::*;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

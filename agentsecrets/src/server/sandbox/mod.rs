//! The sandbox of our own serving processes: they give up privileges, system calls and files before they read
//! hostile bytes.

#[cfg(target_os = "linux")]
pub(crate) mod landlock;
#[cfg(target_os = "linux")]
pub(crate) mod privileges;
pub(crate) mod proxy;
#[cfg(target_os = "linux")]
pub(crate) mod seccomp;

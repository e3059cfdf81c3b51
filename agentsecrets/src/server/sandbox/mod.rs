//! The sandbox of the serving process itself: privileges, system calls and files that it gives up before it
//! reads hostile bytes.

#[cfg(target_os = "linux")]
pub mod landlock;
#[cfg(target_os = "linux")]
pub mod privileges;
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod seccomp;

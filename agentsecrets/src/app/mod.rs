//! The interceptor as a process: its order, its start, its hardening, its end.

pub mod activation;
pub mod call;
#[cfg(target_os = "linux")]
pub mod calls;
pub mod config;
#[cfg(target_os = "linux")]
mod doors;
mod fence;
#[cfg(target_os = "linux")]
pub mod harden;
#[cfg(target_os = "linux")]
pub mod health;
#[cfg(target_os = "linux")]
pub mod interceptor;
pub mod logging;
pub mod order;
#[cfg(target_os = "linux")]
mod pods;
pub mod proxy;
#[cfg(target_os = "linux")]
pub mod reach;
#[cfg(target_os = "linux")]
mod running;
pub mod stages;
pub mod stream;

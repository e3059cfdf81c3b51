//! The interceptor as a process: its order, its start, its hardening, its end.

pub mod builder;
pub mod explicit_proxy;
pub mod export;
#[cfg(target_os = "linux")]
pub mod health;
#[cfg(target_os = "linux")]
pub mod interceptor;
pub mod launch_config;
#[cfg(target_os = "linux")]
mod listeners;
pub mod logging;
#[cfg(target_os = "linux")]
mod pods;
#[cfg(target_os = "linux")]
mod runtime;
pub mod sandbox;
pub mod socket_activation;

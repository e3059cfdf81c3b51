//! Processes that serve requests: the interceptor, the explicit proxy and the audit exporter, with their
//! start, their sandbox and their end.

pub(crate) mod builder;
pub(crate) mod explicit_proxy;
pub(crate) mod export;
#[cfg(target_os = "linux")]
pub(crate) mod health;
#[cfg(target_os = "linux")]
pub(crate) mod interceptor;
#[cfg(target_os = "linux")]
pub(crate) mod launch_config;
#[cfg(target_os = "linux")]
mod listeners;
pub(crate) mod logging;
#[cfg(target_os = "linux")]
mod pods;
pub(crate) mod sandbox;
pub(crate) mod socket_activation;

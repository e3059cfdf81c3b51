//! Identifies the caller. The principal is the part that the kernel fixed and the agent cannot change; the
//! hash of the executable only narrows it.

pub mod ancestry;
mod caller;
#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod container;
#[cfg(target_os = "linux")]
pub mod container_engine;
pub mod executable;
pub mod image;
#[cfg(target_os = "linux")]
pub mod inspector;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
mod parent_process;
mod peer;
pub mod pod;
#[cfg(target_os = "linux")]
pub mod process;
pub mod process_details;
mod process_facts;
mod proven_process;
pub mod socket;
#[cfg(target_os = "linux")]
mod socket_owner;
#[cfg(target_os = "linux")]
mod socket_user;
pub mod spiffe;
#[cfg(target_os = "linux")]
pub mod spiffe_workload_api;
#[cfg(windows)]
mod windows;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(windows)]
use windows as system;

pub use caller::{Caller, CallerAttributes};
pub use parent_process::{parent_caller, parent_process, parent_process_with};
pub use process_facts::ProcessFacts;
pub use proven_process::{IdentityError, Process};
pub use system::{parent_id, process_details};

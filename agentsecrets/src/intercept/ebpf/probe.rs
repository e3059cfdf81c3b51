//! Probes the machine for its eBPF requirements.

use super::error::EbpfError;
use super::mounts::cgroup2_mount;
use super::{load, offsets};

/// Loads every program and unloads it again, without attaching it, to see whether kernel and rights suffice.
///
/// # Errors
/// The first thing that is missing, and what to do about it.
pub fn probe() -> Result<(), EbpfError> {
    cgroup2_mount()?;
    offsets::of_kernel()?;
    load::verify()
}

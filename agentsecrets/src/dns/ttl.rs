//! The TTLs of the DNS answers that agents receive.

/// The longest time for which an agent may keep the records of an allowed name, in seconds.
pub(super) const MAX_TTL: u64 = 60;

/// The TTL of sinkhole addresses, in seconds. It is short, because the policy can change.
pub(super) const SINKHOLE_TTL: u32 = 2;

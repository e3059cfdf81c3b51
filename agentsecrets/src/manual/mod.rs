//! The manual: what is promised, against whom, by which measure, how each promise is seen to hold, and
//! what is not promised.

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("security.md")]
pub mod security {}

#[doc = include_str!("door.md")]
pub mod door {}

#[doc = include_str!("references.md")]
pub mod references {}

#[doc = include_str!("keychain_auth.md")]
pub mod keychain_auth {}

#[doc = include_str!("trust.md")]
pub mod trust {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("computed.md")]
pub mod computed {}

#[doc = include_str!("approvals.md")]
pub mod approvals {}

#[doc = include_str!("known_attacks.md")]
pub mod known_attacks {}

#[doc = include_str!("redaction.md")]
pub mod redaction {}

#[doc = include_str!("systems.md")]
pub mod systems {}

#[doc = include_str!("containers.md")]
pub mod containers {}

#[doc = include_str!("kubernetes.md")]
pub mod kubernetes {}

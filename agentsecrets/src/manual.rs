//! The manual: the security promises, their threat model, the measures behind them, the tests that prove
//! them, and the limits.

#[doc = include_str!("../docs/threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("../docs/security.md")]
pub mod security {}

#[doc = include_str!("../docs/operator.md")]
pub mod operator {}

#[doc = include_str!("../docs/references.md")]
pub mod references {}

#[doc = include_str!("../docs/keychain_auth.md")]
pub mod keychain_auth {}

#[doc = include_str!("../docs/trust.md")]
pub mod trust {}

#[doc = include_str!("../docs/stores.md")]
pub mod stores {}

#[doc = include_str!("../docs/computed.md")]
pub mod computed {}

#[doc = include_str!("../docs/approvals.md")]
pub mod approvals {}

#[doc = include_str!("../docs/known_attacks.md")]
pub mod known_attacks {}

#[doc = include_str!("../docs/redaction.md")]
pub mod redaction {}

#[doc = include_str!("../docs/systems.md")]
pub mod systems {}

#[doc = include_str!("../docs/containers.md")]
pub mod containers {}

#[doc = include_str!("../docs/kubernetes.md")]
pub mod kubernetes {}

//! The non-public addresses that a rule allows to dial.

use std::sync::Arc;

/// The non-public addresses that may be dialled. Metadata addresses never may.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PrivateAddresses {
    /// None: public addresses only.
    #[default]
    None,
    /// Loopback and private addresses.
    Any,
    /// Addresses in these networks.
    Within(Arc<[ipnet::IpNet]>),
}

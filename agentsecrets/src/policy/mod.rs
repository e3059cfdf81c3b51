//! The policy: which caller may send which request, and with which secrets. Everything is denied unless a
//! rule allows it. Each request gets one decision, and only the decision creates a `Grant`.

pub mod access_request;
pub(crate) mod allowlist;
mod caller_matcher;
pub(crate) mod capability_check;
mod compile;
pub(crate) mod connection;
#[cfg(test)]
mod connection_tests;
pub(crate) mod edit;
pub mod evaluate;
#[cfg(test)]
mod evaluate_tests;
mod exe_pattern;
pub(crate) mod explain;
mod glob;
pub(crate) mod grant;
mod host_patterns;
pub(crate) mod injection;
mod load_error;
pub(crate) mod location;
#[cfg(test)]
mod location_tests;
pub(crate) mod minted_credentials;
mod minting_endpoints;
mod operator;
mod path;
pub(crate) mod pending_approval;
mod pod;
pub(crate) mod private_addresses;
pub(crate) mod project_restriction;
mod rate_limit;
mod referenced_files;
mod rules;
pub(crate) mod signing;
mod spiffe;
pub(crate) mod template;
pub(crate) mod value_export;
pub(crate) mod watch;

pub(crate) use compile::{parse_duration, read_file, yaml_error_message};
pub use evaluate::evaluate;
pub(crate) use glob::{is_canonical_path, parse_glob};
pub use host_patterns::{HostList, HostMatch};
pub use load_error::{LoadError, Problem};
pub use rules::{Agent, Policy};
pub use watch::PolicyWatcher;

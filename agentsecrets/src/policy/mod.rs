//! Who may do what: deny by default. One decision per request, and the only place where a `Grant`
//! comes into being.

pub mod access_request;
pub mod allowlist;
pub mod bounds;
mod compile;
pub mod connection;
#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod decide_tests;
pub mod edit;
pub mod evaluate;
mod exe_pattern;
pub mod explain;
pub mod grant;
pub(crate) mod inject_rules;
pub mod load;
#[cfg(test)]
mod load_tests;
pub mod location;
mod matching;
pub mod minted_credentials;
mod minting_endpoints;
mod operator;
mod path;
#[cfg(test)]
mod places_tests;
pub(crate) mod pod;
pub mod project_restriction;
mod public_suffix;
pub(crate) mod rate_limit;
mod referenced_files;
pub mod response_capture;
pub mod rules;
mod schema;
pub mod signing;
mod spiffe;
pub mod template;
pub(crate) mod units;
pub mod value_export;
pub mod watch;

pub use evaluate::evaluate;
pub use load::{LoadError, Problem};
pub use matching::Naming;
pub(crate) use matching::{glob, is_plain};
pub use rules::{Agent, Policy};
pub use watch::Live;

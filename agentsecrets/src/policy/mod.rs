//! Who may do what: deny by default. One decision per request, and the only place where a `Grant`
//! comes into being.

pub mod allowlist;
pub mod approval;
pub mod ask;
pub mod bounds;
mod compile;
pub mod connection;
#[cfg(test)]
mod connection_tests;
pub mod decide;
#[cfg(test)]
mod decide_tests;
pub mod derived;
pub mod edit;
pub mod explain;
pub mod grant;
pub mod handover;
pub(crate) mod injects;
pub mod json_path;
mod limit;
pub mod live;
pub mod load;
#[cfg(test)]
mod load_tests;
mod matching;
mod minting;
mod model;
pub mod narrow;
mod path;
mod person;
pub mod place;
#[cfg(test)]
mod places_tests;
pub(crate) mod pods;
mod program;
pub mod rules;
pub(crate) mod scale;
pub mod signing;
mod sources;
mod spiffe;
pub mod taking;
pub mod template;
mod tenants;

pub use decide::decide;
pub use live::Live;
pub use load::{LoadError, Problem};
pub use matching::Naming;
pub(crate) use matching::{glob, is_plain};
pub use rules::{Agent, Policy};
